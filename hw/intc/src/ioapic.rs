//! State of an I/O APIC (Intel 82093AA, and the EOI register of later ones).

use hw_state::{Section, StateError, Value};

/// Inputs of an I/O APIC.
pub const IOAPIC_PINS: usize = 24;

/// Bits of a redirection table entry (82093AA, section 3.2.4).
pub mod redirection {
    /// Delivery mode, three bits from here.
    pub const MODE_SHIFT: u32 = 8;
    /// The destination is a logical one.
    pub const LOGICAL: u64 = 1 << 11;
    /// Delivery status: a message is on its way.
    pub const PENDING: u64 = 1 << 12;
    /// Active low. Wires here carry "asserted", so that nothing depends on it.
    pub const ACTIVE_LOW: u64 = 1 << 13;
    /// Remote IRR: a level interrupt was accepted and has not ended.
    pub const REMOTE_IRR: u64 = 1 << 14;
    /// Level-triggered.
    pub const LEVEL: u64 = 1 << 15;
    /// Masked.
    pub const MASKED: u64 = 1 << 16;
    /// Destination, eight bits from here.
    pub const DEST_SHIFT: u32 = 56;
    /// What software may write.
    pub const WRITABLE: u64 = 0xff00_0000_0001_afff;

    /// The memory write that an entry sends: address and data.
    pub fn message(entry: u64) -> (u64, u32) {
        crate::ApicMessage::msi(
            (entry >> DEST_SHIFT) as u8,
            entry & LOGICAL != 0,
            (entry >> MODE_SHIFT) as u32,
            entry as u8,
            entry & LEVEL != 0,
        )
    }
}

/// One I/O APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoApicState {
    /// Bits 27:24 of the identification register.
    pub id: u8,
    /// IOREGSEL.
    pub select: u8,
    /// The redirection table.
    pub entries: [u64; IOAPIC_PINS],
    /// Levels of the inputs as last driven.
    pub lines: u32,
}

impl Default for IoApicState {
    fn default() -> Self {
        IoApicState {
            id: 0,
            select: 0,
            entries: [redirection::MASKED; IOAPIC_PINS],
            lines: 0,
        }
    }
}

const NAME: &str = "ioapic";
const VERSION: u16 = 1;

impl IoApicState {
    /// The saved form.
    pub fn save(&self) -> Section {
        let IoApicState {
            id,
            select,
            entries,
            lines,
        } = self.clone();
        Section::new(NAME, VERSION)
            .with(1, id)
            .with(2, select)
            .with(3, entries.into_iter().collect::<Value>())
            .with(4, lines)
    }

    /// From the saved form.
    pub fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect(NAME, VERSION)?;
        Ok(IoApicState {
            id: s.u8(1)? & 0x0f,
            select: s.u8(2)?,
            entries: s.u64_array(3)?.map(|e: u64| {
                e & (redirection::WRITABLE | redirection::REMOTE_IRR | redirection::PENDING)
            }),
            lines: s.u32(4)? & 0x00ff_ffff,
        })
    }
}
