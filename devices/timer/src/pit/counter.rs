//! One counter of the i8254: counts and outputs as functions of time.
//!
//! Spec: Intel 8254 (231164-005), "Mode Definitions".

use hw_intc::I8254Channel;

/// Behaviour of a counter; `now` is in ticks of its input since virtual time zero.
pub(super) trait Counter {
    /// Writes a control word's lower six bits.
    fn set_control(&mut self, control: u8);
    /// Loads a whole count.
    fn load(&mut self, reload: u16, now: u64);
    /// Writes one byte of a count.
    fn write(&mut self, value: u8, now: u64);
    /// Reads the next byte of latched status, latched count or count.
    fn read(&mut self, now: u64) -> u8;
    /// What [`read`](Self::read) would answer.
    fn peek(&self, now: u64) -> u8;
    /// Counter latch command.
    fn latch_count(&mut self, now: u64);
    /// Read-back command, status part.
    fn latch_status(&mut self, now: u64);
    /// Drives the gate.
    fn set_gate(&mut self, gate: bool, now: u64);
    /// Level of the output.
    fn out(&self, now: u64) -> bool;
    /// The first time after `now` at which the output rises, if it does.
    fn next_rise(&self, now: u64) -> Option<u64>;
    /// Whether it starts again by itself.
    fn is_periodic(&self) -> bool;
    /// Ticks after which it does.
    fn period(&self) -> Option<u64>;
}

/// Control word: RW field.
const ACCESS_SHIFT: u32 = 4;
const ACCESS_LOW: u8 = 1;
const ACCESS_HIGH: u8 = 2;

const STATUS_OUT: u8 = 0x80;
const STATUS_NULL_COUNT: u8 = 0x40;

fn from_bcd(value: u16) -> u64 {
    let digit = |n: u32| u64::from(value.wrapping_shr(n.wrapping_mul(4)) & 0x0f);
    let tens = |n: u64, digit: u64| n.wrapping_mul(10).wrapping_add(digit);
    [3, 2, 1, 0].map(digit).into_iter().fold(0, tens)
}

fn to_bcd(value: u64) -> u16 {
    let digit = |by: u64| (value.checked_div(by).unwrap_or(0) % 10) as u16;
    (digit(1000) << 12) | (digit(100) << 8) | (digit(10) << 4) | digit(1)
}

/// Values the counting element goes through.
fn modulus(c: &I8254Channel) -> u64 {
    if c.bcd { 10_000 } else { 0x1_0000 }
}

/// The count register's value in ticks.
fn count(c: &I8254Channel) -> u64 {
    let value = if c.bcd {
        from_bcd(c.reload)
    } else {
        c.reload.into()
    };
    match value {
        0 => modulus(c),
        // Not allowed in the periodic modes.
        1 if c.is_periodic() => 2,
        _ => value,
    }
}

/// A rising gate starts it, a low one does not stop it.
fn is_triggered(c: &I8254Channel) -> bool {
    matches!(c.mode, 1 | 5)
}

/// Ticks counted since the load; `None` before it.
fn elapsed(c: &I8254Channel, now: u64) -> Option<u64> {
    match c.loaded_at {
        Some(at) => Some(now.saturating_sub(at).saturating_add(c.counted)),
        None if c.counted != 0 => Some(c.counted),
        None => None,
    }
}

/// The counting element's value as the CPU reads it.
fn value(c: &I8254Channel, now: u64) -> u16 {
    let n = count(c);
    let Some(elapsed) = elapsed(c, now) else {
        return c.reload;
    };
    let left = match c.mode {
        2 => n.wrapping_sub(elapsed.checked_rem(n).unwrap_or(0)),
        // Counts by two.
        3 => n.wrapping_sub(elapsed.wrapping_mul(2).checked_rem(n).unwrap_or(0)),
        _ => {
            let modulus = modulus(c);
            let passed = elapsed.checked_rem(modulus).unwrap_or(0);
            n.wrapping_add(modulus).wrapping_sub(passed)
        }
    };
    let left = left.checked_rem(modulus(c)).unwrap_or(0);
    if c.bcd { to_bcd(left) } else { left as u16 }
}

impl Counter for I8254Channel {
    fn set_control(&mut self, control: u8) {
        self.bcd = control & 1 != 0;
        self.mode = match (control >> 1) & 7 {
            mode @ 0..6 => mode,
            // Bit 2 does not count in the periodic modes.
            mode => mode & 3,
        };
        self.access = (control >> ACCESS_SHIFT) & 3;
        self.null_count = true;
        self.write_low = None;
        self.read_high = false;
        self.latched_count = None;
        self.latched_status = None;
        self.loaded_at = None;
        self.counted = 0;
    }

    fn load(&mut self, reload: u16, now: u64) {
        self.reload = reload;
        self.null_count = false;
        if !is_triggered(self) {
            self.counted = 0;
            self.loaded_at = self.gate.then_some(now);
        }
    }

    fn write(&mut self, value: u8, now: u64) {
        match self.access {
            ACCESS_LOW => self.load(value.into(), now),
            ACCESS_HIGH => self.load(u16::from(value) << 8, now),
            _ => match self.write_low.take() {
                None => self.write_low = Some(value),
                Some(low) => self.load(u16::from_le_bytes([low, value]), now),
            },
        }
    }

    fn read(&mut self, now: u64) -> u8 {
        let byte = self.peek(now);
        if self.latched_status.take().is_some() {
            return byte;
        }
        let is_last = !matches!(self.access, 0 | 3) || self.read_high;
        self.read_high = !is_last;
        if is_last {
            self.latched_count = None;
        }
        byte
    }

    fn peek(&self, now: u64) -> u8 {
        if let Some(status) = self.latched_status {
            return status;
        }
        let [low, high] = self
            .latched_count
            .unwrap_or_else(|| value(self, now))
            .to_le_bytes();
        match self.access {
            ACCESS_LOW => low,
            ACCESS_HIGH => high,
            _ if self.read_high => high,
            _ => low,
        }
    }

    fn latch_count(&mut self, now: u64) {
        // A second latch before the first was read is ignored.
        if self.latched_count.is_none() {
            self.latched_count = Some(value(self, now));
        }
    }

    fn latch_status(&mut self, now: u64) {
        let out = if self.out(now) { STATUS_OUT } else { 0 };
        let null = if self.null_count {
            STATUS_NULL_COUNT
        } else {
            0
        };
        let word = (self.access << ACCESS_SHIFT) | (self.mode << 1) | u8::from(self.bcd);
        self.latched_status.get_or_insert(out | null | word);
    }

    fn set_gate(&mut self, gate: bool, now: u64) {
        let rose = gate && !self.gate;
        let fell = !gate && self.gate;
        self.gate = gate;
        if self.null_count {
            return;
        }
        match self.mode {
            1 | 5 if rose => {
                self.counted = 0;
                self.loaded_at = Some(now);
            }
            2 | 3 if rose => {
                self.counted = 0;
                self.loaded_at = Some(now);
            }
            2 | 3 if fell => {
                self.counted = 0;
                self.loaded_at = None;
            }
            0 | 4 if rose => self.loaded_at = Some(now),
            0 | 4 if fell => {
                self.counted = elapsed(self, now).unwrap_or(0);
                self.loaded_at = None;
            }
            _ => {}
        }
    }

    fn out(&self, now: u64) -> bool {
        let n = count(self);
        let Some(elapsed) = elapsed(self, now) else {
            return self.mode != 0;
        };
        let into = elapsed.checked_rem(n).unwrap_or(0);
        match self.mode {
            0 | 1 => elapsed >= n,
            2 => into != n.wrapping_sub(1),
            3 => into < n.div_ceil(2),
            _ => elapsed != n,
        }
    }

    fn next_rise(&self, now: u64) -> Option<u64> {
        let at = self.loaded_at?;
        let n = count(self);
        let elapsed = elapsed(self, now)?;
        let rise = match self.mode {
            0 | 1 if elapsed < n => n,
            2 | 3 => elapsed.checked_div(n)?.saturating_add(1).saturating_mul(n),
            4 | 5 if elapsed <= n => n.saturating_add(1),
            _ => return None,
        };
        Some(at.saturating_add(rise.saturating_sub(self.counted)))
    }

    fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn period(&self) -> Option<u64> {
        self.is_periodic().then(|| count(self))
    }
}
