//! The battery-backed memory beside the clock, and what firmware reads there.
//!
//! The places above 0Eh are those of IBM's PC AT and of QEMU's firmware interface, which SeaBIOS
//! reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes, the clock's included.
pub const CMOS_LEN: usize = 128;

const EQUIPMENT: u8 = 0x14;
const BASE_MEMORY: u8 = 0x15;
const EXTENDED_MEMORY: u8 = 0x17;
const EXTENDED_MEMORY_2: u8 = 0x30;
const ABOVE_16M: u8 = 0x34;
const BOOT_3: u8 = 0x38;
const BOOT_12: u8 = 0x3d;
const ABOVE_4G: u8 = 0x5b;
const CPUS: u8 = 0x5f;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const CHUNK: u64 = 64 * KIB;

/// The memory, shared by the device and the board that fills it.
#[derive(Clone)]
pub struct Cmos {
    bytes: Arc<Mutex<[u8; CMOS_LEN]>>,
}

impl Default for Cmos {
    fn default() -> Self {
        Cmos {
            bytes: Arc::new(Mutex::new([0; CMOS_LEN])),
        }
    }
}

impl Cmos {
    fn bytes(&self) -> MutexGuard<'_, [u8; CMOS_LEN]> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A byte, `index` modulo 128.
    pub fn get(&self, index: u8) -> u8 {
        let index = usize::from(index & 0x7f);
        self.bytes().get(index).copied().unwrap_or(0)
    }

    /// Sets a byte. Those of the clock (0 to 0Dh, 32h) belong to the device.
    pub fn set(&self, index: u8, value: u8) {
        if let Some(byte) = self.bytes().get_mut(usize::from(index & 0x7f)) {
            *byte = value;
        }
    }

    pub(crate) fn all(&self) -> [u8; CMOS_LEN] {
        *self.bytes()
    }

    pub(crate) fn set_all(&self, bytes: [u8; CMOS_LEN]) {
        *self.bytes() = bytes;
    }

    fn set_word(&self, index: u8, value: u64) {
        let [low, high, ..] = value.min(0xffff).to_le_bytes();
        self.set(index, low);
        self.set(index.wrapping_add(1), high);
    }

    /// RAM in bytes below and above 4 GiB.
    pub fn set_memory(&self, below_4g: u64, above_4g: u64) {
        let in_units = |bytes: u64, unit: u64| bytes.checked_div(unit).unwrap_or(0);
        self.set_word(BASE_MEMORY, in_units(below_4g, KIB).min(640));
        let extended = in_units(below_4g.saturating_sub(MIB), KIB);
        self.set_word(EXTENDED_MEMORY, extended);
        self.set_word(EXTENDED_MEMORY_2, extended);
        let above_16m = below_4g.saturating_sub(MIB.saturating_mul(16));
        self.set_word(ABOVE_16M, in_units(above_16m, CHUNK));
        let [low, middle, high, ..] = in_units(above_4g, CHUNK).min(0xff_ffff).to_le_bytes();
        for (index, byte) in (ABOVE_4G..).zip([low, middle, high]) {
            self.set(index, byte);
        }
    }

    /// Number of CPUs present at power on.
    pub fn set_cpus(&self, count: u32) {
        self.set(CPUS, count.saturating_sub(1).min(0xff) as u8);
    }

    /// Boot order in QEMU's letters (`a` floppy, `c` disk, `d` CD, `n` network), at most three
    /// count; `false` for another letter. `floppy_check` lets firmware test the signature of
    /// floppies.
    pub fn set_boot_order(&self, order: &str, floppy_check: bool) -> bool {
        let code = |letter: char| match letter {
            'a' | 'b' => Some(1u8),
            'c' => Some(2),
            'd' => Some(3),
            'n' => Some(4),
            _ => None,
        };
        let Some(codes) = order.chars().map(code).collect::<Option<Vec<u8>>>() else {
            return false;
        };
        let at = |n: usize| codes.get(n).copied().unwrap_or(0);
        self.set(BOOT_12, (at(1) << 4) | at(0));
        self.set(BOOT_3, (at(2) << 4) | u8::from(!floppy_check));
        true
    }

    /// Equipment byte: coprocessor (02h), PS/2 mouse (04h), floppy drives.
    pub fn set_equipment(&self, bits: u8) {
        self.set(EQUIPMENT, bits);
    }
}
