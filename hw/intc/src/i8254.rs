//! State of the i8254 programmable interval timer and of port 61h that goes with it.

use hw_state::{Section, StateError, Value};

/// Frequency of the three clock inputs: 315 / 88 MHz / 3.
pub const PIT_HZ: u64 = 1_193_182;

/// One counter. Names follow the data sheet (Intel 231164-005).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct I8254Channel {
    /// Counter mode, 0 to 5.
    pub mode: u8,
    /// Counts in BCD.
    pub bcd: bool,
    /// Control word's RW field: 1 low byte, 2 high byte, 3 both.
    pub access: u8,
    /// The count register; 0 stands for 65536 (10000 in BCD).
    pub reload: u16,
    /// Level of the gate input.
    pub gate: bool,
    /// A control word was written and no count since.
    pub null_count: bool,
    /// Low byte of a two-byte count being written.
    pub write_low: Option<u8>,
    /// The next read of a two-byte count answers the high byte.
    pub read_high: bool,
    /// Count held by the counter latch command.
    pub latched_count: Option<u16>,
    /// Status held by the read-back command.
    pub latched_status: Option<u8>,
    /// When the counting element was loaded (or last stopped being stopped), in ticks of the
    /// counter's input since virtual time zero; `None` while it waits for its gate.
    pub loaded_at: Option<u64>,
    /// Ticks already counted when the gate stopped it.
    pub counted: u64,
}

impl Default for I8254Channel {
    fn default() -> Self {
        I8254Channel {
            mode: 3,
            bcd: false,
            access: 3,
            reload: 0,
            gate: true,
            null_count: false,
            write_low: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
            loaded_at: None,
            counted: 0,
        }
    }
}

/// The three counters, and what port 61h adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct I8254State {
    /// Timer interrupt, refresh, speaker.
    pub channels: [I8254Channel; 3],
    /// Port 61h bit 1: the speaker hears counter 2.
    pub speaker_data: bool,
    /// When counter 0 raises its interrupt next, in ticks since virtual time zero.
    pub fires_at: Option<u64>,
}

impl Default for I8254State {
    fn default() -> Self {
        let mut channels: [I8254Channel; 3] = Default::default();
        // Port 61h drives the gate of counter 2, low at power on.
        if let Some(speaker) = channels.last_mut() {
            speaker.gate = false;
        }
        I8254State {
            channels,
            speaker_data: false,
            fires_at: None,
        }
    }
}

/// An i8254 with port 61h that an accelerator has in the kernel, where its time goes on by itself.
pub trait KernelI8254: Send + Sync {
    /// Its state, at virtual time `now` in ticks. When counter 0 raises its interrupt next is not told.
    ///
    /// # Errors
    /// Why the kernel does not tell.
    fn get(&self, now: u64) -> Result<I8254State, String>;

    /// Gives it this state. Counts start over; counter 0 waits unless its interrupt is due some time
    /// and nobody else has it (`replaced`).
    ///
    /// # Errors
    /// Why the kernel refuses.
    fn put(&self, state: &I8254State, replaced: bool) -> Result<(), String>;

    /// Whether interrupts that the guest was too slow to take are given later, one by one.
    ///
    /// # Errors
    /// Why the kernel refuses.
    fn set_catch_up(&self, on: bool) -> Result<(), String>;
}

const NAME: &str = "i8254";
const VERSION: u16 = 1;

/// `None` as zero, else the value plus one bit above its width.
fn option(value: Option<u16>) -> u64 {
    value.map_or(0, |v| u64::from(v) | 0x1_0000)
}

impl I8254Channel {
    fn save(&self) -> Section {
        let I8254Channel {
            mode,
            bcd,
            access,
            reload,
            gate,
            null_count,
            write_low,
            read_high,
            latched_count,
            latched_status,
            loaded_at,
            counted,
        } = self.clone();
        let mut section = Section::new("counter", VERSION)
            .with(1, mode)
            .with(2, bcd)
            .with(3, access)
            .with(4, reload)
            .with(5, gate)
            .with(6, null_count)
            .with(7, option(write_low.map(u16::from)))
            .with(8, read_high)
            .with(9, option(latched_count))
            .with(10, option(latched_status.map(u16::from)))
            .with(12, counted);
        if let Some(at) = loaded_at {
            section.push(11, at);
        }
        section
    }

    fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect("counter", VERSION)?;
        let option = |tag| -> Result<Option<u16>, StateError> {
            let value = s.u64(tag)?;
            Ok((value & 0x1_0000 != 0).then_some(value as u16))
        };
        let (mode, access) = (s.u8(1)?, s.u8(3)?);
        if mode > 5 {
            return Err(s.bad(1, "not a counter mode"));
        }
        if !(1..=3).contains(&access) {
            return Err(s.bad(3, "not a read/write mode"));
        }
        Ok(I8254Channel {
            mode,
            bcd: s.bool(2)?,
            access,
            reload: s.u16(4)?,
            gate: s.bool(5)?,
            null_count: s.bool(6)?,
            write_low: option(7)?.map(|v| v as u8),
            read_high: s.bool(8)?,
            latched_count: option(9)?,
            latched_status: option(10)?.map(|v| v as u8),
            loaded_at: s.get(11).map(|_| s.u64(11)).transpose()?,
            counted: s.u64(12)?,
        })
    }
}

impl I8254State {
    /// The saved form.
    pub fn save(&self) -> Section {
        let channels = self.channels.iter().map(I8254Channel::save);
        let mut section = Section::new(NAME, VERSION)
            .with(1, channels.collect::<Value>())
            .with(2, self.speaker_data);
        if let Some(at) = self.fires_at {
            section.push(3, at);
        }
        section
    }

    /// From the saved form.
    pub fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect(NAME, VERSION)?;
        let [Value::Section(a), Value::Section(b), Value::Section(c)] = s.list(1)? else {
            return Err(s.bad(1, "not three counters"));
        };
        let channel = I8254Channel::restore;
        Ok(I8254State {
            channels: [channel(a)?, channel(b)?, channel(c)?],
            speaker_data: s.bool(2)?,
            fires_at: s.get(3).map(|_| s.u64(3)).transpose()?,
        })
    }
}
