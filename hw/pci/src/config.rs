//! Configuration space: bytes, and which bits of them the guest may change.

use hw_core::{DeviceError, StateError};

/// Registers of the header (PCI 3.0 section 6.1).
pub mod reg {
    /// Vendor id.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device id.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command.
    pub const COMMAND: u16 = 0x04;
    /// Status.
    pub const STATUS: u16 = 0x06;
    /// Revision id.
    pub const REVISION: u16 = 0x08;
    /// Programming interface, sub-class, class.
    pub const CLASS: u16 = 0x09;
    /// Cache line size.
    pub const CACHE_LINE: u16 = 0x0c;
    /// Latency timer.
    pub const LATENCY: u16 = 0x0d;
    /// Header type; bit 7: more functions.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register.
    pub const BAR0: u16 = 0x10;
    /// Subsystem vendor id.
    pub const SUBSYSTEM_VENDOR: u16 = 0x2c;
    /// Subsystem id.
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    /// Expansion ROM base address.
    pub const ROM: u16 = 0x30;
    /// First capability.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line: scratch for firmware.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin: 1 is INTA#.
    pub const INTERRUPT_PIN: u16 = 0x3d;

    /// Command: answers I/O accesses.
    pub const COMMAND_IO: u16 = 1;
    /// Command: answers memory accesses.
    pub const COMMAND_MEMORY: u16 = 2;
    /// Command: may master the bus.
    pub const COMMAND_MASTER: u16 = 4;
    /// Command: does not drive its interrupt pin.
    pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
    /// Status: has an interrupt pending, whether it drives the pin or not.
    pub const STATUS_INTERRUPT: u16 = 1 << 3;
    /// Status: has capabilities.
    pub const STATUS_CAPABILITIES: u16 = 1 << 4;
}

/// Capability ids.
pub mod cap {
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor's own.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
}

/// Command bits that guests can change.
const COMMAND_WRITABLE: u16 = 0x0507;
/// Status bits that writing a one clears.
const STATUS_CLEAR: u16 = 0xf900;
/// Where capabilities begin by default.
const FIRST_CAPABILITY: u16 = 0x40;
/// Bytes of conventional configuration space.
pub(crate) const CONVENTIONAL: usize = 256;

/// Configuration space of one function.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// Bits the guest may set and clear.
    writable: Vec<u8>,
    /// Bits the guest clears by writing a one.
    clear: Vec<u8>,
    /// The bytes after power on.
    initial: Vec<u8>,
    next_capability: u16,
}

impl Default for ConfigSpace {
    fn default() -> Self {
        let mut config = ConfigSpace {
            bytes: vec![0; CONVENTIONAL],
            writable: vec![0; CONVENTIONAL],
            clear: vec![0; CONVENTIONAL],
            initial: vec![0; CONVENTIONAL],
            next_capability: FIRST_CAPABILITY,
        };
        config.set_writable(reg::COMMAND, 2, u64::from(COMMAND_WRITABLE));
        put(&mut config.clear, reg::STATUS, 2, u64::from(STATUS_CLEAR));
        config.set_writable(reg::CACHE_LINE, 1, 0xff);
        config.set_writable(reg::INTERRUPT_LINE, 1, 0xff);
        config
    }
}

fn put(bytes: &mut [u8], offset: u16, size: u8, value: u64) {
    let at = usize::from(offset);
    for (slot, byte) in bytes
        .iter_mut()
        .skip(at)
        .zip(value.to_le_bytes())
        .take(usize::from(size))
    {
        *slot = byte;
    }
}

fn get(bytes: &[u8], offset: u16, size: u8) -> u64 {
    let mut out = [0u8; 8];
    for (slot, byte) in out
        .iter_mut()
        .zip(bytes.iter().skip(usize::from(offset)))
        .take(usize::from(size))
    {
        *slot = *byte;
    }
    u64::from_le_bytes(out)
}

impl ConfigSpace {
    /// `size` bytes at `offset`, little-endian.
    pub fn get(&self, offset: u16, size: u8) -> u64 {
        get(&self.bytes, offset, size)
    }

    /// One byte.
    pub fn byte(&self, offset: u16) -> u8 {
        self.get(offset, 1) as u8
    }

    /// Two bytes.
    pub fn word(&self, offset: u16) -> u16 {
        self.get(offset, 2) as u16
    }

    /// Four bytes.
    pub fn long(&self, offset: u16) -> u32 {
        self.get(offset, 4) as u32
    }

    /// Sets `size` bytes, whoever may write them: the function's own doing.
    pub fn set(&mut self, offset: u16, size: u8, value: u64) {
        put(&mut self.bytes, offset, size, value);
    }

    /// Says which bits of `size` bytes the guest may change.
    pub fn set_writable(&mut self, offset: u16, size: u8, mask: u64) {
        put(&mut self.writable, offset, size, mask);
    }

    /// Says which bits of `size` bytes the guest clears by writing ones.
    pub fn set_clear(&mut self, offset: u16, size: u8, mask: u64) {
        put(&mut self.clear, offset, size, mask);
    }

    /// A register with its value after power on and the bits that the guest may change.
    pub fn define(&mut self, offset: u16, size: u8, value: u64, writable: u64) {
        self.set(offset, size, value);
        self.set_writable(offset, size, writable);
    }

    /// Makes what is there now the state after power on.
    pub(crate) fn seal(&mut self) {
        self.initial.clone_from(&self.bytes);
    }

    /// Back to the state after power on.
    pub(crate) fn reset(&mut self) {
        self.bytes.clone_from(&self.initial);
    }

    /// A write by the guest.
    pub(crate) fn guest_write(&mut self, offset: u16, size: u8, value: u64) {
        let masks = self.writable.iter().zip(&self.clear);
        for ((slot, (writable, clear)), new) in self
            .bytes
            .iter_mut()
            .zip(masks)
            .skip(usize::from(offset))
            .zip(value.to_le_bytes())
            .take(usize::from(size))
        {
            *slot = ((*slot & !writable) | (new & writable)) & !(new & clear);
        }
    }

    /// Appends a capability and returns its offset. `body` follows the id and the link; `writable`
    /// has the bits of `body` that the guest may change, and may be shorter.
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u16, DeviceError> {
        let at = self.next_capability;
        let len = u16::try_from(body.len().saturating_add(2)).unwrap_or(u16::MAX);
        let end = at.saturating_add(len);
        if usize::from(end) > CONVENTIONAL {
            return Err(DeviceError::Other(
                "a PCI function has more capabilities than fit its configuration space".into(),
            ));
        }
        // The new one goes first, as the list is walked from the header.
        let head = u64::from(self.byte(reg::CAPABILITIES));
        self.set(at, 1, u64::from(id));
        self.set(at.saturating_add(1), 1, head);
        self.set(reg::CAPABILITIES, 1, u64::from(at));
        let status = self.word(reg::STATUS) | reg::STATUS_CAPABILITIES;
        self.set(reg::STATUS, 2, u64::from(status));
        for (byte, offset) in body.iter().zip(at.saturating_add(2)..) {
            self.set(offset, 1, u64::from(*byte));
        }
        for (mask, offset) in writable.iter().zip(at.saturating_add(2)..) {
            self.set_writable(offset, 1, u64::from(*mask));
        }
        self.next_capability = end.next_multiple_of(4);
        Ok(at)
    }

    /// The bytes, for the saved form.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A configuration space with the guest's bits of a saved one.
    pub(crate) fn restored(&self, saved: &[u8]) -> Result<Self, StateError> {
        if saved.len() != self.bytes.len() {
            return Err(StateError::Malformed("size of a configuration space"));
        }
        if saved.get(..4) != self.bytes.get(..4) {
            return Err(StateError::Malformed("another PCI function"));
        }
        let mut config = self.clone();
        let masks = self.writable.iter().zip(&self.clear);
        for ((slot, old), (writable, clear)) in config.bytes.iter_mut().zip(saved).zip(masks) {
            let guests = writable | clear;
            *slot = (*slot & !guests) | (old & guests);
        }
        Ok(config)
    }
}
