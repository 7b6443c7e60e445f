//! The tables beside the DSDT.

use acpi_tables::sdt::Sdt;

use crate::deliver::Tables;
use crate::{Board, Fixed, GenericEvents, Power};

pub(crate) const OEM_ID: [u8; 6] = *b"MIMIC ";
const OEM_TABLE_ID: [u8; 8] = *b"MIMICPC ";

/// A table with its header.
pub(crate) fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    // Appending would write the length in the host's byte order.
    let len = body.len().saturating_add(36) as u32;
    let mut sdt = Sdt::new(signature, len, revision, OEM_ID, OEM_TABLE_ID, 1);
    sdt.write_bytes(36, body);
    sdt.as_slice().to_vec()
}

/// Firmware ACPI control structure (ACPI 6.5, section 5.2.10).
pub(crate) fn facs() -> Vec<u8> {
    let mut out = b"FACS".to_vec();
    out.extend_from_slice(&64u32.to_le_bytes());
    out.resize(64, 0);
    out
}

/// A body built by offsets from the start of the table.
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    /// For a table of this length.
    pub(crate) fn new(table_len: usize) -> Self {
        Body(vec![0; table_len.saturating_sub(36)])
    }

    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) {
        let from = offset.saturating_sub(36);
        let to = from.saturating_add(bytes.len());
        if let Some(slot) = self.0.get_mut(from..to) {
            slot.copy_from_slice(bytes);
        }
    }

    /// A generic address (ACPI 6.5, section 5.2.3.2): space, bits, access size, address.
    pub(crate) fn address(&mut self, offset: usize, space: u8, bytes: u8, address: u64) {
        let access = match bytes {
            1 => 1,
            2 => 2,
            4 => 3,
            _ => 0,
        };
        let bits = u32::from(bytes).saturating_mul(8).min(255) as u8;
        self.put(offset, &[space, bits, 0, access]);
        self.put(offset.saturating_add(4), &address.to_le_bytes());
    }
}

pub(crate) const MEMORY: u8 = 0;
const IO: u8 = 1;

/// FADT flags (ACPI 6.5, table 5.10).
pub(crate) mod flag {
    pub(super) const WBINVD: u32 = 1;
    pub(super) const PROC_C1: u32 = 1 << 2;
    /// The power button is no fixed hardware.
    pub(super) const PWR_BUTTON: u32 = 1 << 4;
    /// Neither is the sleep button.
    pub(super) const SLP_BUTTON: u32 = 1 << 5;
    pub(super) const RESET_REG_SUP: u32 = 1 << 10;
    pub(super) const USE_PLATFORM_CLOCK: u32 = 1 << 15;
    pub(crate) const HW_REDUCED_ACPI: u32 = 1 << 20;
}

/// IA-PC boot flags (ACPI 6.5, table 5.11).
mod boot {
    pub(super) const LEGACY_DEVICES: u16 = 1;
    pub(super) const I8042: u16 = 1 << 1;
    pub(super) const NO_VGA: u16 = 1 << 2;
    pub(super) const NO_RTC: u16 = 1 << 5;
}

/// Where the FADT points to its companions.
const FACS_32: usize = 36;
const DSDT_32: usize = 40;
const DSDT_64: usize = 140;

/// Fixed ACPI description table (ACPI 6.5, section 5.2.9), pointers left zero.
pub(crate) fn fadt(board: &Board) -> Vec<u8> {
    let (revision, len) = match board.power {
        Power::Fixed(_) => (3, 244),
        Power::Reduced(_) => (6, 276),
    };
    let mut b = Body::new(len);
    let legacy = &board.legacy;
    let mut boot_flags = 0;
    if !legacy.serial.is_empty() || !legacy.parallel.is_empty() {
        boot_flags |= boot::LEGACY_DEVICES;
    }
    if legacy.i8042 {
        boot_flags |= boot::I8042;
    }
    if !legacy.vga {
        boot_flags |= boot::NO_VGA;
    }
    if legacy.rtc.is_none() {
        boot_flags |= boot::NO_RTC;
    } else {
        // CMOS byte of the century.
        b.put(108, &[0x32]);
    }
    b.put(109, &boot_flags.to_le_bytes());
    let flags = match &board.power {
        Power::Fixed(fixed) => fadt_fixed(&mut b, fixed),
        Power::Reduced(events) => fadt_reduced(&mut b, events),
    };
    b.put(112, &flags.to_le_bytes());
    table(*b"FACP", revision, &b.0)
}

fn fadt_fixed(b: &mut Body, fixed: &Fixed) -> u32 {
    let (port, on, off) = fixed.smi_command;
    let at = |offset: u16| fixed.pm_base.wrapping_add(offset);
    let (event, control, timer) = (at(0), at(4), at(8));
    let (gpe, gpe_len) = fixed.gpe;
    b.put(46, &fixed.sci.to_le_bytes());
    b.put(48, &u32::from(port).to_le_bytes());
    b.put(52, &[on, off]);
    b.put(56, &u32::from(event).to_le_bytes());
    b.put(64, &u32::from(control).to_le_bytes());
    b.put(76, &u32::from(timer).to_le_bytes());
    b.put(80, &u32::from(gpe).to_le_bytes());
    // Lengths of event, control, PM2, timer and event blocks.
    b.put(88, &[4, 2, 0, 4, gpe_len]);
    // C2 and C3 latencies beyond what counts as supported.
    b.put(96, &0xfffu16.to_le_bytes());
    b.put(98, &0xfffu16.to_le_bytes());
    b.address(116, IO, 1, 0xcf9);
    // Reset register value: full reset.
    b.put(128, &[0x0f]);
    b.address(148, IO, 4, event.into());
    b.address(172, IO, 2, control.into());
    b.address(208, IO, 4, timer.into());
    b.address(220, IO, gpe_len, gpe.into());
    // The access width of a block wider than 4 bytes stays undefined, its first byte is the least.
    b.put(223, &[1]);
    flag::WBINVD | flag::PROC_C1 | flag::SLP_BUTTON | flag::RESET_REG_SUP | flag::USE_PLATFORM_CLOCK
}

fn fadt_reduced(b: &mut Body, events: &GenericEvents) -> u32 {
    let (reset, value) = events.reset;
    b.address(116, MEMORY, 1, reset);
    b.put(128, &[value]);
    b.address(244, MEMORY, 1, events.sleep);
    b.address(256, MEMORY, 1, events.sleep.wrapping_add(1));
    b.put(268, HYPERVISOR);
    flag::WBINVD | flag::PWR_BUTTON | flag::SLP_BUTTON | flag::RESET_REG_SUP | flag::HW_REDUCED_ACPI
}

/// The hypervisor's name in FADTs.
pub(crate) const HYPERVISOR: &[u8; 8] = b"MIMIC\0\0\0";

/// Points a FADT without fixed hardware at the DSDT.
pub(crate) fn link_dsdt(out: &mut Tables, fadt: usize, dsdt: usize) {
    out.point(fadt.saturating_add(DSDT_64), 8, dsdt);
}

/// Points a FADT at its companions.
pub(crate) fn link_fadt(out: &mut Tables, fadt: usize, facs: usize, dsdt: usize) {
    out.point(fadt.saturating_add(FACS_32), 4, facs);
    out.point(fadt.saturating_add(DSDT_32), 4, dsdt);
    link_dsdt(out, fadt, dsdt);
}

/// Multiple APIC description table (ACPI 6.5, section 5.2.12).
pub(crate) fn madt(board: &Board) -> Vec<u8> {
    const ENABLED: u32 = 1;
    /// Local APIC entries hold identifiers below this.
    const XAPIC_END: u32 = 255;
    let mut body = board.lapic.to_le_bytes().to_vec();
    body.extend_from_slice(&u32::from(board.has_8259).to_le_bytes());
    for (uid, id) in (0u32..).zip(&board.apic_ids) {
        match (u8::try_from(uid), u8::try_from(*id)) {
            (Ok(uid), Ok(id)) if u32::from(id) < XAPIC_END && uid < 255 => {
                body.extend_from_slice(&[0, 8, uid, id]);
                body.extend_from_slice(&ENABLED.to_le_bytes());
            }
            _ => {
                body.extend_from_slice(&[9, 16, 0, 0]);
                body.extend_from_slice(&id.to_le_bytes());
                body.extend_from_slice(&ENABLED.to_le_bytes());
                body.extend_from_slice(&uid.to_le_bytes());
            }
        }
    }
    for ioapic in &board.ioapics {
        body.extend_from_slice(&[1, 12, ioapic.id, 0]);
        body.extend_from_slice(&ioapic.address.to_le_bytes());
        body.extend_from_slice(&ioapic.gsi_base.to_le_bytes());
    }
    for o in &board.overrides {
        // As the bus says, or active high and level-triggered.
        let flags: u16 = if o.level { 0xd } else { 0 };
        body.extend_from_slice(&[2, 10, 0, o.irq]);
        body.extend_from_slice(&o.gsi.to_le_bytes());
        body.extend_from_slice(&flags.to_le_bytes());
    }
    // Every CPU takes non-maskable interrupts at LINT1.
    body.extend_from_slice(&[4, 6, 0xff, 0, 0, 1]);
    if board.apic_ids.iter().any(|id| *id >= XAPIC_END) {
        body.extend_from_slice(&[10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    }
    table(*b"APIC", 3, &body)
}

/// HPET description (IA-PC HPET Specification 1.0a, section 3.2.4).
pub(crate) fn hpet(address: u32) -> Vec<u8> {
    let mut b = Body::new(56);
    // Intel, legacy routing, 64-bit counter, three comparators, revision 1.
    b.put(36, &0x8086_a201u32.to_le_bytes());
    b.put(40, &[MEMORY, 64, 0, 0]);
    b.put(44, &u64::from(address).to_le_bytes());
    table(*b"HPET", 1, &b.0)
}

/// Memory-mapped configuration space (PCI Firmware Specification 3.3, section 4.1.2).
pub(crate) fn mcfg(base: u64, last_bus: u8) -> Vec<u8> {
    let mut b = Body::new(60);
    b.put(44, &base.to_le_bytes());
    b.put(55, &[last_bus]);
    table(*b"MCFG", 1, &b.0)
}

/// Windows ACPI emulated devices table: the PM timer is read reliably at the first try.
pub(crate) fn waet() -> Vec<u8> {
    table(*b"WAET", 1, &2u32.to_le_bytes())
}
