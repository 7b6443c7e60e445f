//! Register map (Motorola MC146818A, "Address Map", figure 9) and its bits.

/// Seconds.
pub(crate) const SECONDS: u8 = 0x00;
/// Seconds alarm.
pub(crate) const SECONDS_ALARM: u8 = 0x01;
/// Minutes.
pub(crate) const MINUTES: u8 = 0x02;
/// Minutes alarm.
pub(crate) const MINUTES_ALARM: u8 = 0x03;
/// Hours.
pub(crate) const HOURS: u8 = 0x04;
/// Hours alarm.
pub(crate) const HOURS_ALARM: u8 = 0x05;
/// Day of the week, Sunday is 1.
pub(crate) const WEEKDAY: u8 = 0x06;
/// Day of the month.
pub(crate) const DAY: u8 = 0x07;
/// Month.
pub(crate) const MONTH: u8 = 0x08;
/// Year.
pub(crate) const YEAR: u8 = 0x09;
/// Register A.
pub(crate) const A: u8 = 0x0a;
/// Register B.
pub(crate) const B: u8 = 0x0b;
/// Register C.
pub(crate) const C: u8 = 0x0c;
/// Register D.
pub(crate) const D: u8 = 0x0d;
/// Century, where the FADT says it is.
pub(crate) const CENTURY: u8 = 0x32;

/// The bytes that hold the time.
pub(crate) const TIME: [u8; 8] = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];

/// Register A bits.
pub(crate) mod a {
    /// Update in progress.
    pub(crate) const UIP: u8 = 0x80;
    /// Divider: both bits set hold it in reset.
    pub(crate) const DIVIDER_RESET: u8 = 0x60;
    /// Rate selection.
    pub(crate) const RATE: u8 = 0x0f;
    /// 32768 Hz crystal, 1024 Hz rate.
    pub(crate) const POWER_ON: u8 = 0x26;
}

/// Register B bits.
pub(crate) mod b {
    /// Updates are halted while the time is set.
    pub(crate) const SET: u8 = 0x80;
    /// Periodic interrupt.
    pub(crate) const PIE: u8 = 0x40;
    /// Alarm interrupt.
    pub(crate) const AIE: u8 = 0x20;
    /// Update-ended interrupt.
    pub(crate) const UIE: u8 = 0x10;
    /// Square wave.
    pub(crate) const SQWE: u8 = 0x08;
    /// Binary instead of BCD.
    pub(crate) const BINARY: u8 = 0x04;
    /// 24-hour mode.
    pub(crate) const HOURS_24: u8 = 0x02;
}

/// Register C bits; each is at the place of its enable bit in register B.
pub(crate) mod c {
    /// An enabled interrupt waits.
    pub(crate) const IRQF: u8 = 0x80;
    /// Periodic.
    pub(crate) const PF: u8 = 0x40;
    /// Alarm.
    pub(crate) const AF: u8 = 0x20;
    /// Update ended.
    pub(crate) const UF: u8 = 0x10;
}

/// Register D: RAM and time are valid.
pub(crate) const VALID: u8 = 0x80;

/// Hours in 12-hour mode: afternoon.
pub(crate) const PM: u8 = 0x80;
/// An alarm byte with these bits matches always.
pub(crate) const ANY: u8 = 0xc0;
