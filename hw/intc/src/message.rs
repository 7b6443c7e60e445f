//! Interrupt messages on the APIC bus, and their form as a memory write.
//!
//! Spec: Intel SDM volume 3, "Message Signalled Interrupts" (11.11) and "Interrupt Command Register"
//! (11.6.1).

/// First address of interrupt messages.
pub const MSI_BASE: u64 = 0xfee0_0000;
/// Bytes of the message window.
pub const MSI_LEN: u64 = 0x10_0000;

const DEST_SHIFT: u32 = 12;
const ADDRESS_LOGICAL: u64 = 1 << 2;
const ADDRESS_REDIRECTION_HINT: u64 = 1 << 3;
const DATA_MODE_SHIFT: u32 = 8;
const DATA_ASSERT: u32 = 1 << 14;
const DATA_LEVEL: u32 = 1 << 15;

/// What a message does to the CPUs it reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryMode {
    /// The vector, to each of them.
    Fixed,
    /// The vector, to the one with the least important work.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up, with a page number for vector.
    StartUp,
    /// The vector comes from the i8259.
    ExtInt,
}

impl DeliveryMode {
    /// From the three-bit code in ICR, LVT, redirection entries and message data.
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code & 7 {
            0 => DeliveryMode::Fixed,
            1 => DeliveryMode::LowestPriority,
            2 => DeliveryMode::Smi,
            4 => DeliveryMode::Nmi,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::StartUp,
            7 => DeliveryMode::ExtInt,
            _ => return None,
        })
    }

    /// The three-bit code.
    pub fn code(self) -> u32 {
        match self {
            DeliveryMode::Fixed => 0,
            DeliveryMode::LowestPriority => 1,
            DeliveryMode::Smi => 2,
            DeliveryMode::Nmi => 4,
            DeliveryMode::Init => 5,
            DeliveryMode::StartUp => 6,
            DeliveryMode::ExtInt => 7,
        }
    }

    /// Whether the message carries a vector into IRR.
    pub fn has_vector(self) -> bool {
        matches!(self, DeliveryMode::Fixed | DeliveryMode::LowestPriority)
    }
}

/// Which CPUs a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The APIC id; all ones is everyone.
    Physical(u32),
    /// A set of logical ids; all ones is everyone.
    Logical(u32),
    /// Everyone.
    All,
    /// Everyone but the CPU of this index.
    AllBut(u32),
    /// The CPU of this index.
    Cpu(u32),
}

impl Destination {
    /// From an 8-bit destination field, whose all ones is everyone too.
    pub fn from_8_bits(dest: u8, logical: bool) -> Self {
        let dest = if dest == u8::MAX {
            u32::MAX
        } else {
            dest.into()
        };
        if logical {
            Destination::Logical(dest)
        } else {
            Destination::Physical(dest)
        }
    }
}

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicMessage {
    /// For whom.
    pub destination: Destination,
    /// What it does.
    pub mode: DeliveryMode,
    /// The vector.
    pub vector: u8,
    /// Level-triggered: its end is broadcast to the IOAPICs.
    pub level: bool,
}

impl ApicMessage {
    /// Reads a memory write to the message window. `None` for what no controller answers.
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        if address.checked_sub(MSI_BASE)? >= MSI_LEN {
            return None;
        }
        let dest = (address >> DEST_SHIFT) as u8;
        let logical = address & ADDRESS_LOGICAL != 0;
        let mut mode = DeliveryMode::from_code(data >> DATA_MODE_SHIFT)?;
        if mode == DeliveryMode::Fixed && logical && address & ADDRESS_REDIRECTION_HINT != 0 {
            mode = DeliveryMode::LowestPriority;
        }
        Some(ApicMessage {
            destination: Destination::from_8_bits(dest, logical),
            mode,
            vector: data as u8,
            level: data & DATA_LEVEL != 0,
        })
    }

    /// The memory write of a message with an 8-bit destination field.
    pub fn msi(dest: u8, logical: bool, mode_code: u32, vector: u8, level: bool) -> (u64, u32) {
        let mut address = MSI_BASE | (u64::from(dest) << DEST_SHIFT);
        if logical {
            address |= ADDRESS_LOGICAL;
        }
        let mut data = u32::from(vector) | ((mode_code & 7) << DATA_MODE_SHIFT);
        if level {
            data |= DATA_LEVEL | DATA_ASSERT;
        }
        (address, data)
    }
}
