//! The kernel's i8259 pair and I/O APIC, to and from the models' state.

use hw_intc::{I8259Chip, IoApicState, redirection};
use kvm_bindings::{kvm_ioapic_state, kvm_pic_state};

/// Address of the kernel's I/O APIC.
const IOAPIC_BASE: u64 = 0xfec0_0000;

pub(crate) fn pic_to(chip: &I8259Chip, elcr_mask: u8) -> kvm_pic_state {
    kvm_pic_state {
        last_irr: chip.lines,
        irr: chip.irr,
        imr: chip.imr,
        isr: chip.isr,
        priority_add: chip.priority_add,
        irq_base: chip.irq_base,
        read_reg_select: chip.reads_isr.into(),
        poll: chip.poll.into(),
        special_mask: chip.special_mask.into(),
        // The kernel counts 1 (ICW2), 2 (ICW3), 3 (ICW4).
        init_state: chip.expects_icw.saturating_sub(1),
        auto_eoi: chip.auto_eoi.into(),
        rotate_on_auto_eoi: chip.rotate_on_auto_eoi.into(),
        special_fully_nested_mode: chip.special_fully_nested.into(),
        init4: chip.has_icw4.into(),
        elcr: chip.elcr,
        elcr_mask,
    }
}

pub(crate) fn pic_of(state: &kvm_pic_state, old: &I8259Chip) -> I8259Chip {
    I8259Chip {
        lines: state.last_irr,
        irr: state.irr,
        imr: state.imr,
        isr: state.isr,
        elcr: state.elcr,
        priority_add: state.priority_add & 7,
        irq_base: state.irq_base,
        expects_icw: match state.init_state {
            0 => 0,
            n => n.saturating_add(1).min(4),
        },
        has_icw4: state.init4 != 0,
        // The kernel knows neither.
        is_single: old.is_single,
        is_level: old.is_level,
        auto_eoi: state.auto_eoi != 0,
        special_fully_nested: state.special_fully_nested_mode != 0,
        rotate_on_auto_eoi: state.rotate_on_auto_eoi != 0,
        special_mask: state.special_mask != 0,
        poll: state.poll != 0,
        reads_isr: state.read_reg_select != 0,
    }
}

pub(crate) fn ioapic_to(state: &IoApicState) -> kvm_ioapic_state {
    let mut kernel = kvm_ioapic_state {
        base_address: IOAPIC_BASE,
        ioregsel: state.select.into(),
        id: state.id.into(),
        irr: 0,
        ..kvm_ioapic_state::default()
    };
    for (n, (to, entry)) in kernel.redirtbl.iter_mut().zip(state.entries).enumerate() {
        to.bits = entry;
        // The kernel's IRR holds what is asserted: levels, and edges not yet delivered.
        if entry & redirection::LEVEL != 0 {
            kernel.irr |= state.lines & 1 << n;
        }
    }
    kernel
}

pub(crate) fn ioapic_of(kernel: &kvm_ioapic_state, old: &IoApicState) -> IoApicState {
    let mut state = IoApicState {
        id: kernel.id as u8 & 15,
        select: kernel.ioregsel as u8,
        lines: old.lines,
        ..IoApicState::default()
    };
    for (entry, from) in state.entries.iter_mut().zip(kernel.redirtbl) {
        // SAFETY: both members of the union are plain bits of the same size.
        *entry = unsafe { from.bits }
            & (redirection::WRITABLE | redirection::REMOTE_IRR | redirection::PENDING);
    }
    state
}
