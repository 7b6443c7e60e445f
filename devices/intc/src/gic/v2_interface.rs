//! Registers of a CPU interface of version 2 (IHI 0048B section 4.4), as each Security state sees them.

use hw_core::{Access, Fault};
use hw_intc::GicCpu;

use super::model::{FIRST_SPECIAL, GROUP_1, Model, OTHER_GROUP, SPURIOUS, cpu_ctlr, running};
use super::security::View;
use super::{IIDR, acts};

const GICC_CTLR: u64 = 0x00;
const GICC_PMR: u64 = 0x04;
const GICC_BPR: u64 = 0x08;
const GICC_IAR: u64 = 0x0c;
const GICC_EOIR: u64 = 0x10;
const GICC_RPR: u64 = 0x14;
const GICC_HPPIR: u64 = 0x18;
const GICC_ABPR: u64 = 0x1c;
const GICC_AIAR: u64 = 0x20;
const GICC_AEOIR: u64 = 0x24;
const GICC_AHPPIR: u64 = 0x28;
const GICC_APR0: u64 = 0xd0;
const GICC_NSAPR0: u64 = 0xe0;
const GICC_IIDR: u64 = 0xfc;
const GICC_DIR: u64 = 0x1000;
/// A CPU interface of version 2.
const GICC_VERSION: u64 = 2 << 16;

/// The register that an offset means: Non-secure software sees those of group 1 in the place of those of
/// group 0, which it does not see (section 4.1.3).
fn banked(offset: u64, view: View) -> Option<u64> {
    if view.is_whole() {
        return Some(offset);
    }
    match offset {
        GICC_BPR => Some(GICC_ABPR),
        GICC_IAR => Some(GICC_AIAR),
        GICC_EOIR => Some(GICC_AEOIR),
        GICC_HPPIR => Some(GICC_AHPPIR),
        GICC_ABPR | GICC_AIAR | GICC_AEOIR | GICC_AHPPIR | GICC_NSAPR0 => None,
        _ => Some(offset),
    }
}

/// Takes the pending interrupt.
fn acknowledge(model: &mut Model, cpu: usize, aliased: bool) -> u32 {
    let Some(candidate) = model.signalled(cpu) else {
        return SPURIOUS;
    };
    match visible(model, cpu, candidate.group, aliased) {
        Ok(()) => model.activate(cpu, candidate),
        Err(special) => special,
    }
}

/// Group 1 is seen through the aliased registers, or where GICC_CTLR.AckCtl says so.
fn visible(model: &Model, cpu: usize, group: usize, aliased: bool) -> Result<(), u32> {
    let own = model.state.cpus.get(cpu);
    let ack_ctl = own.is_some_and(|own| own.ctlr & cpu_ctlr::ACK_CTL != 0);
    match (group, aliased) {
        (0, true) => Err(SPURIOUS),
        (1, false) if !ack_ctl => Err(OTHER_GROUP),
        _ => Ok(()),
    }
}

/// `GICC_CTLR`: Non-secure, bit 0 enables group 1, and bit 9 is its own mode of ending.
fn control(own: &GicCpu, view: View) -> u64 {
    match view {
        View::Whole => u64::from(own.ctlr) | u64::from(own.groups),
        View::NonSecure => {
            let split = if own.ctlr & cpu_ctlr::EOI_MODE_NS != 0 {
                cpu_ctlr::EOI_MODE
            } else {
                0
            };
            u64::from(own.groups) >> 1 & 1 | u64::from(split)
        }
    }
}

fn set_control(own: &mut GicCpu, value: u64, view: View) {
    match view {
        View::Whole => {
            own.groups = value as u8 & 3;
            own.ctlr = value as u32 & cpu_ctlr::WRITABLE;
        }
        View::NonSecure => {
            own.groups = own.groups & 1 | (value as u8 & 1) << 1;
            own.ctlr &= !cpu_ctlr::EOI_MODE_NS;
            if value as u32 & cpu_ctlr::EOI_MODE != 0 {
                own.ctlr |= cpu_ctlr::EOI_MODE_NS;
            }
        }
    }
}

pub(super) fn read_interface(model: &mut Model, cpu: usize, access: &Access) -> Result<u64, Fault> {
    let view = model.view(access);
    let Some(offset) = banked(access.offset, view) else {
        return Ok(0);
    };
    let aliased = matches!(offset, GICC_AIAR | GICC_AHPPIR);
    if matches!(offset, GICC_IAR | GICC_AIAR) && acts(access) {
        return Ok(acknowledge(model, cpu, aliased).into());
    }
    let highest = model.highest(cpu);
    let own = model.state.cpus.get(cpu).ok_or(Fault::NoRegister)?;
    let is_common = own.ctlr & cpu_ctlr::CBPR != 0 && !view.is_whole();
    Ok(match offset {
        GICC_CTLR => control(own, view),
        GICC_PMR => view.shown(own.pmr).into(),
        GICC_BPR => own.bpr[0].into(),
        GICC_ABPR if is_common => own.bpr[0].saturating_add(1).min(7).into(),
        GICC_ABPR => own.bpr[1].into(),
        GICC_RPR => view.shown(running(own)).into(),
        GICC_HPPIR | GICC_AHPPIR | GICC_IAR | GICC_AIAR => match highest {
            None => SPURIOUS.into(),
            Some(c) => visible(model, cpu, c.group, aliased).map_or_else(u64::from, |()| {
                let sources = own.sgi_sources.get(c.intid as usize).copied();
                let from = sources.map_or(0, |s| u64::from(s.trailing_zeros() & 7));
                u64::from(c.intid) | from << 10
            }),
        },
        // The lower half of the priorities, from bit 0 on.
        GICC_APR0 if !view.is_whole() => u64::from(own.apr[1]) >> 16,
        GICC_APR0 => own.apr[0].into(),
        GICC_NSAPR0 => own.apr[1].into(),
        // Those of priorities that are not implemented.
        0xd4..0xe0 | 0xe4..0xf0 => 0,
        GICC_IIDR => GICC_VERSION | IIDR,
        GICC_EOIR | GICC_AEOIR | GICC_DIR => return Err(Fault::WriteOnly),
        _ => return Err(Fault::NoRegister),
    })
}

/// The end of an interrupt, or of its being active.
fn end(model: &mut Model, cpu: usize, intid: u32, view: View, deactivates: bool) {
    if intid >= FIRST_SPECIAL {
        return;
    }
    let group = model.group_of(cpu, intid);
    let own = model.state.cpus.get(cpu);
    let Some(own) = own.filter(|_| view.is_whole() || group == GROUP_1) else {
        return;
    };
    let split = match view {
        View::Whole => cpu_ctlr::EOI_MODE,
        View::NonSecure => cpu_ctlr::EOI_MODE_NS,
    };
    let is_split = own.ctlr & split != 0;
    match deactivates {
        true => model.deactivate(cpu, intid),
        false => model.end(cpu, intid, group, is_split),
    }
}

pub(super) fn write_interface(
    model: &mut Model,
    cpu: usize,
    access: &Access,
    value: u64,
) -> Result<(), Fault> {
    let view = model.view(access);
    let Some(offset) = banked(access.offset, view) else {
        return Ok(());
    };
    let intid = value as u32 & 0x3ff;
    match offset {
        GICC_EOIR | GICC_AEOIR | GICC_DIR => {
            end(model, cpu, intid, view, offset == GICC_DIR);
            return Ok(());
        }
        GICC_BPR => {
            model.set_bpr(cpu, 0, value);
            return Ok(());
        }
        GICC_ABPR => {
            let own = model.state.cpus.get(cpu);
            let is_common = own.is_some_and(|own| own.ctlr & cpu_ctlr::CBPR != 0);
            // Non-secure, it shows group 0's then, which cannot be changed by it.
            if view.is_whole() || !is_common {
                model.set_bpr(cpu, 1, value);
            }
            return Ok(());
        }
        _ => {}
    }
    let own = model.state.cpus.get_mut(cpu).ok_or(Fault::NoRegister)?;
    match offset {
        GICC_CTLR => set_control(own, value, view),
        GICC_PMR => own.pmr = view.new_mask(own.pmr, value as u8),
        GICC_APR0 if !view.is_whole() => own.apr[1] = own.apr[1] & 0xffff | (value as u32) << 16,
        GICC_APR0 => own.apr[0] = value as u32,
        GICC_NSAPR0 => own.apr[1] = value as u32,
        0xd4..0xe0 | 0xe4..0xf0 => {}
        GICC_IAR | GICC_AIAR | GICC_RPR | GICC_HPPIR | GICC_AHPPIR | GICC_IIDR => {
            return Err(Fault::ReadOnly);
        }
        _ => return Err(Fault::NoRegister),
    }
    Ok(())
}
