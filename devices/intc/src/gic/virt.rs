//! The virtual CPU interface of version 3 (IHI 0069H chapter 6 and section 12.4): what a hypervisor
//! puts into its list registers, and what a guest sees of them.

use hw_intc::{GIC_FIRST_LPI, GIC_IDLE, GIC_LIST, GIC_PRIORITY, GicState, GicVirtual};

use super::sysregs::{self, Access, SystemFault, reg};
use super::{Gic, model::Model};

const ICH_AP0R0: u16 = reg(4, 12, 8, 0);
const ICH_AP1R0: u16 = reg(4, 12, 9, 0);
const ICH_HCR: u16 = reg(4, 12, 11, 0);
const ICH_VTR: u16 = reg(4, 12, 11, 1);
const ICH_MISR: u16 = reg(4, 12, 11, 2);
const ICH_EISR: u16 = reg(4, 12, 11, 3);
const ICH_ELRSR: u16 = reg(4, 12, 11, 5);
const ICH_VMCR: u16 = reg(4, 12, 11, 7);
const ICH_LR0: u16 = reg(4, 12, 12, 0);
const ICH_LR_LAST: u16 = ICH_LR0 + GIC_LIST as u16 - 1;

/// The interrupt by which a hypervisor is asked to look, a private one on all boards (INTID).
const MAINTENANCE: u32 = 25;

/// `ICH_VTR_EL2`: as many list registers, 16 bits of INTID, `ICV_DIR` trapped on its own, Aff3, no
/// direct injection, five bits of priority, all of which preempt.
const VTR: u64 = (GIC_LIST as u64 - 1) | 1 << 19 | 1 << 20 | 1 << 21 | 4 << 26 | 4 << 29;

/// `ICH_HCR_EL2`.
mod hcr {
    pub(super) const EN: u32 = 1;
    pub(super) const UIE: u32 = 1 << 1;
    pub(super) const LRENPIE: u32 = 1 << 2;
    pub(super) const NPIE: u32 = 1 << 3;
    /// Group 0 enabled, disabled, then group 1.
    pub(super) const GROUPS_SHIFT: u32 = 4;
    pub(super) const TC: u32 = 1 << 10;
    pub(super) const TALL0: u32 = 1 << 11;
    pub(super) const TALL1: u32 = 1 << 12;
    pub(super) const TDIR: u32 = 1 << 14;
    pub(super) const EOI_COUNT: u32 = 1 << 27;
    pub(super) const EOI_COUNT_MASK: u32 = 0x1f << 27;
    pub(super) const WRITABLE: u32 = 0xf800_7cff;
}

/// `ICH_VMCR_EL2`.
mod vmcr {
    /// Where the enables of groups 0 and 1 are.
    pub(super) const GROUPS: u32 = 3;
    /// Always so with system registers: group 0 is signalled as FIQ.
    pub(super) const FIQ_EN: u32 = 1 << 3;
    pub(super) const CBPR: u32 = 1 << 4;
    pub(super) const EOIM: u32 = 1 << 9;
    pub(super) const BPR1_SHIFT: u32 = 18;
    pub(super) const BPR0_SHIFT: u32 = 21;
    pub(super) const PMR_SHIFT: u32 = 24;
    pub(super) const WRITABLE: u32 = 0xf8fc_0213;
}

/// `ICH_LR<n>_EL2`.
mod lr {
    pub(super) const EOI: u64 = 1 << 41;
    pub(super) const GROUP_1: u64 = 1 << 60;
    pub(super) const HW: u64 = 1 << 61;
    pub(super) const PENDING: u64 = 1 << 62;
    pub(super) const ACTIVE: u64 = 1 << 63;
    pub(super) const STATE: u64 = PENDING | ACTIVE;
    pub(super) const WRITABLE: u64 = 0xf0ff_1fff_ffff_ffff;
}

/// Least binary points, as in the CPU interface itself.
const LEAST_BPR: [u32; 2] = [2, 3];

fn intid(entry: u64) -> u32 {
    entry as u32
}

fn priority(entry: u64) -> u8 {
    (entry >> 48) as u8 & GIC_PRIORITY
}

fn group(entry: u64) -> usize {
    usize::from(entry & lr::GROUP_1 != 0)
}

fn pmr(v: &GicVirtual) -> u8 {
    (v.vmcr >> vmcr::PMR_SHIFT) as u8
}

fn bpr(v: &GicVirtual, group: usize) -> u32 {
    let [zero, one] = [vmcr::BPR0_SHIFT, vmcr::BPR1_SHIFT].map(|at| v.vmcr.wrapping_shr(at) & 7);
    let [least0, least1] = LEAST_BPR;
    match group {
        0 => zero.max(least0),
        _ if v.vmcr & vmcr::CBPR != 0 => zero.max(least0).wrapping_add(1).min(7),
        _ => one.max(least1),
    }
}

/// The priorities that do not preempt each other: those equal under this mask.
fn group_mask(v: &GicVirtual, group: usize) -> u8 {
    let low = bpr(v, group).wrapping_add(u32::from(group == 0));
    0xffu8.checked_shl(low).unwrap_or(0)
}

fn running(v: &GicVirtual) -> u8 {
    let [a, b] = v.apr;
    match (a | b).trailing_zeros() {
        first @ 0..32 => (first << 3) as u8,
        _ => GIC_IDLE,
    }
}

/// The list register with the highest pending interrupt of an enabled group.
fn highest(v: &GicVirtual) -> Option<(usize, u64)> {
    let enabled = |entry: u64| (v.vmcr & vmcr::GROUPS).wrapping_shr(group(entry) as u32) & 1 != 0;
    let entries = v.list.iter().copied().enumerate();
    let pending = entries.filter(|(_, entry)| entry & lr::STATE == lr::PENDING && enabled(*entry));
    pending
        .min_by_key(|(_, entry)| priority(*entry))
        .filter(|_| v.hcr & hcr::EN != 0)
}

/// The same, if it may interrupt the guest now.
fn signalled(v: &GicVirtual) -> Option<(usize, u64)> {
    let (n, entry) = highest(v)?;
    let mask = group_mask(v, group(entry));
    let passes = priority(entry) < pmr(v) && priority(entry) & mask < running(v);
    passes.then_some((n, entry))
}

/// Levels of the virtual inputs: IRQ, FIQ.
pub(super) fn outputs(state: &GicState, cpu: usize) -> (bool, bool) {
    let own = state.cpus.get(cpu).and_then(|cpu| signalled(&cpu.virt));
    own.map_or((false, false), |(_, entry)| {
        (group(entry) == 1, group(entry) == 0)
    })
}

/// A bit for each list register that fits.
fn which(v: &GicVirtual, fits: impl Fn(u64) -> bool) -> u64 {
    let bits = v.list.iter().zip(0u32..);
    bits.filter(|(entry, _)| fits(**entry))
        .fold(0, |all, (_, n)| all | 1u64.wrapping_shl(n))
}

fn ended(entry: u64) -> bool {
    entry & (lr::STATE | lr::HW | lr::EOI) == lr::EOI
}

/// `ICH_MISR_EL2`: why a hypervisor is asked to look.
fn misr(v: &GicVirtual) -> u64 {
    let has = |bit: u32| v.hcr & bit != 0;
    let mut out = u64::from(which(v, ended) != 0);
    let valid = which(v, |entry| entry & lr::STATE != 0).count_ones();
    out |= u64::from(has(hcr::UIE) && valid <= 1) << 1;
    out |= u64::from(has(hcr::LRENPIE) && v.hcr & hcr::EOI_COUNT_MASK != 0) << 2;
    let pending = which(v, |entry| entry & lr::STATE == lr::PENDING);
    out |= u64::from(has(hcr::NPIE) && pending == 0) << 3;
    for (n, at) in (0u32..2).zip([4u32, 6]) {
        let enabled = v.vmcr.wrapping_shr(n) & 1;
        let wanted = v.hcr.wrapping_shr(hcr::GROUPS_SHIFT.wrapping_add(n << 1)) & 3;
        let seen = wanted & if enabled != 0 { 1 } else { 2 };
        out |= u64::from(seen).wrapping_shl(at);
    }
    out
}

fn acknowledge(v: &mut GicVirtual, wanted: usize) -> u64 {
    let Some((n, entry)) = signalled(v).filter(|(_, entry)| group(*entry) == wanted) else {
        return sysregs::NOTHING;
    };
    let level = u32::from(priority(entry) & group_mask(v, wanted)) >> 3;
    if let Some(apr) = v.apr.get_mut(wanted) {
        *apr |= 1u32.wrapping_shl(level);
    }
    if let Some(slot) = v.list.get_mut(n) {
        // An active message has no meaning: it is done with.
        let active = if intid(entry) < GIC_FIRST_LPI {
            lr::ACTIVE
        } else {
            0
        };
        *slot = entry & !lr::STATE | active;
    }
    intid(entry).into()
}

fn count_end(v: &mut GicVirtual) {
    v.hcr = v.hcr & !hcr::EOI_COUNT_MASK | v.hcr.wrapping_add(hcr::EOI_COUNT) & hcr::EOI_COUNT_MASK;
}

/// A virtual interrupt is no longer active; its physical one, if it stands for one, to be ended too.
fn deactivate(v: &mut GicVirtual, id: u32) -> Option<u32> {
    let fits = |entry: &&mut u64| **entry & lr::ACTIVE != 0 && intid(**entry) == id;
    let Some(entry) = v.list.iter_mut().find(fits) else {
        count_end(v);
        return None;
    };
    *entry &= !lr::ACTIVE;
    let physical = (*entry >> 32) as u32 & 0x1fff;
    (*entry & lr::HW != 0).then_some(physical)
}

fn end(v: &mut GicVirtual, value: u64, wanted: usize) -> Option<u32> {
    let id = value as u32 & 0x00ff_ffff;
    let [a, b] = v.apr.map(u32::trailing_zeros);
    let dropped = (a < 32 || b < 32) && usize::from(b < a) == wanted;
    if !sysregs::is_interrupt(id) || !dropped {
        return None;
    }
    if let Some(apr) = v.apr.get_mut(wanted) {
        *apr &= apr.wrapping_sub(1);
    }
    if v.vmcr & vmcr::EOIM != 0 || id >= GIC_FIRST_LPI {
        return None;
    }
    deactivate(v, id)
}

fn set_bpr(v: &mut GicVirtual, group: usize, value: u64) {
    let shift = match group {
        0 => vmcr::BPR0_SHIFT,
        _ if v.vmcr & vmcr::CBPR != 0 => return,
        _ => vmcr::BPR1_SHIFT,
    };
    let field = 7u32.wrapping_shl(shift);
    v.vmcr = v.vmcr & !field | (value as u32).wrapping_shl(shift) & field;
    v.vmcr = v.vmcr & !field | bpr(v, group).wrapping_shl(shift);
}

fn set_vmcr(v: &mut GicVirtual, value: u32) {
    v.vmcr = value & vmcr::WRITABLE | vmcr::FIQ_EN;
    for (group, shift) in [(0, vmcr::BPR0_SHIFT), (1, vmcr::BPR1_SHIFT)] {
        let least = LEAST_BPR.get(group).copied().unwrap_or(0);
        let given = v.vmcr.wrapping_shr(shift) & 7;
        let field = 7u32.wrapping_shl(shift);
        v.vmcr = v.vmcr & !field | given.max(least).wrapping_shl(shift);
    }
}

/// Group of an `ICC_*` register of EL1; `None` for those of both.
pub(super) fn group_of(encoding: u16) -> Option<usize> {
    match encoding {
        sysregs::ICC_IAR0..=sysregs::ICC_AP0R0 | sysregs::ICC_IGRPEN0 => Some(0),
        sysregs::ICC_AP1R0 | sysregs::ICC_IGRPEN1 => Some(1),
        sysregs::ICC_IAR1..=sysregs::ICC_BPR1 => Some(1),
        _ => None,
    }
}

fn sends(encoding: u16) -> bool {
    (sysregs::ICC_SGI1R..=sysregs::ICC_SGI0R).contains(&encoding)
}

/// Whether an access from EL1 is one to the virtual CPU interface; that it is the hypervisor's to
/// carry out is a fault.
pub(super) fn is_virtual(
    state: &GicState,
    cpu: usize,
    access: Access,
) -> Result<bool, SystemFault> {
    if access.el != 1 || access.encoding == sysregs::ICC_SRE {
        return Ok(false);
    }
    let Some(own) = state.cpus.get(cpu) else {
        return Ok(false);
    };
    let (group, is_sgi) = (group_of(access.encoding), sends(access.encoding));
    let trap = match (group, access.encoding) {
        (Some(0), _) => hcr::TALL0,
        (Some(_), _) => hcr::TALL1,
        (None, sysregs::ICC_DIR) => hcr::TC | hcr::TDIR,
        (None, _) => hcr::TC,
    };
    // A guest that sends to its CPUs knows nothing of the real ones.
    if own.virt.hcr & trap != 0 || is_sgi && access.groups != 0 {
        return Err(SystemFault::Trap);
    }
    Ok(match group {
        Some(group) => access.groups.wrapping_shr(group as u32) & 1 != 0,
        None => access.groups != 0,
    })
}

/// `ICV_*`.
fn read_guest(v: &mut GicVirtual, encoding: u16) -> Option<u64> {
    let highest = |group_wanted: usize, v: &GicVirtual| {
        let found = highest(v).filter(|(_, entry)| group(*entry) == group_wanted);
        found.map_or(sysregs::NOTHING, |(_, entry)| intid(entry).into())
    };
    Some(match encoding {
        sysregs::ICC_IAR0 => acknowledge(v, 0),
        sysregs::ICC_IAR1 => acknowledge(v, 1),
        sysregs::ICC_PMR => pmr(v).into(),
        sysregs::ICC_HPPIR0 => highest(0, v),
        sysregs::ICC_HPPIR1 => highest(1, v),
        sysregs::ICC_BPR0 => bpr(v, 0).into(),
        sysregs::ICC_BPR1 => bpr(v, 1).into(),
        sysregs::ICC_AP0R0 => v.apr[0].into(),
        sysregs::ICC_AP1R0 => v.apr[1].into(),
        sysregs::ICC_RPR => running(v).into(),
        sysregs::ICC_CTLR => {
            let cbpr = u64::from(v.vmcr & vmcr::CBPR != 0);
            let eoi = u64::from(v.vmcr & vmcr::EOIM != 0) << 1;
            sysregs::CTLR | cbpr | eoi
        }
        sysregs::ICC_IGRPEN0 => u64::from(v.vmcr & 1),
        sysregs::ICC_IGRPEN1 => u64::from(v.vmcr >> 1 & 1),
        _ => return None,
    })
}

/// `ICV_*`. What is left to do is to deactivate a physical interrupt.
fn write_guest(v: &mut GicVirtual, encoding: u16, value: u64) -> Option<Option<u32>> {
    let flag = |v: &mut GicVirtual, bit: u32, on: bool| {
        v.vmcr = v.vmcr & !bit | if on { bit } else { 0 };
    };
    let id = value as u32 & 0x00ff_ffff;
    match encoding {
        sysregs::ICC_EOIR0 => return Some(end(v, value, 0)),
        sysregs::ICC_EOIR1 => return Some(end(v, value, 1)),
        sysregs::ICC_DIR => {
            let counts =
                v.vmcr & vmcr::EOIM != 0 && id < GIC_FIRST_LPI && sysregs::is_interrupt(id);
            return Some(if counts { deactivate(v, id) } else { None });
        }
        sysregs::ICC_PMR => {
            let pmr = u32::from(value as u8 & GIC_PRIORITY);
            v.vmcr = v.vmcr & !(0xff << vmcr::PMR_SHIFT) | pmr << vmcr::PMR_SHIFT;
        }
        sysregs::ICC_BPR0 => set_bpr(v, 0, value),
        sysregs::ICC_BPR1 => set_bpr(v, 1, value),
        sysregs::ICC_AP0R0 => v.apr[0] = value as u32,
        sysregs::ICC_AP1R0 => v.apr[1] = value as u32,
        sysregs::ICC_CTLR => {
            flag(v, vmcr::CBPR, value & 1 != 0);
            flag(v, vmcr::EOIM, value & 2 != 0);
        }
        sysregs::ICC_IGRPEN0 => flag(v, 1, value & 1 != 0),
        sysregs::ICC_IGRPEN1 => flag(v, 2, value & 1 != 0),
        _ => return None,
    }
    Some(None)
}

fn list_index(encoding: u16) -> Option<usize> {
    (ICH_LR0..=ICH_LR_LAST)
        .contains(&encoding)
        .then(|| usize::from(encoding.wrapping_sub(ICH_LR0)))
}

fn read_control(v: &GicVirtual, encoding: u16) -> Option<u64> {
    if let Some(n) = list_index(encoding) {
        return v.list.get(n).copied();
    }
    Some(match encoding {
        ICH_AP0R0 => v.apr[0].into(),
        ICH_AP1R0 => v.apr[1].into(),
        ICH_HCR => v.hcr.into(),
        ICH_VTR => VTR,
        ICH_MISR => misr(v),
        ICH_EISR => which(v, ended),
        ICH_ELRSR => which(v, |entry| {
            entry & lr::STATE == 0 && entry & (lr::HW | lr::EOI) != lr::EOI
        }),
        ICH_VMCR => v.vmcr.into(),
        _ => return None,
    })
}

fn write_control(v: &mut GicVirtual, encoding: u16, value: u64) -> Option<()> {
    if let Some(n) = list_index(encoding) {
        *v.list.get_mut(n)? = value & lr::WRITABLE;
        return Some(());
    }
    match encoding {
        ICH_AP0R0 => v.apr[0] = value as u32,
        ICH_AP1R0 => v.apr[1] = value as u32,
        ICH_HCR => v.hcr = value as u32 & hcr::WRITABLE,
        ICH_VMCR => set_vmcr(v, value as u32),
        _ => return None,
    }
    Some(())
}

/// Whether a register belongs to a hypervisor.
pub(super) fn is_control(encoding: u16) -> bool {
    encoding >> 11 & 7 == 4 && encoding != sysregs::ICC_SRE_EL2
}

impl Gic {
    /// Changes the virtual CPU interface of a CPU and what follows from it.
    fn with_virtual<R>(
        &self,
        cpu: usize,
        f: impl FnOnce(&mut Model) -> Option<R>,
    ) -> Result<R, SystemFault> {
        self.with(cpu, |model| {
            let result = f(model).ok_or(SystemFault::Undefined);
            if let Some(own) = model.state.cpus.get(cpu) {
                let asks = own.virt.hcr & hcr::EN != 0 && misr(&own.virt) != 0;
                model.set_line(cpu, MAINTENANCE, asks);
            }
            result
        })
    }

    pub(super) fn read_guest(&self, cpu: usize, encoding: u16) -> Result<u64, SystemFault> {
        self.with_virtual(cpu, |model| {
            read_guest(&mut model.state.cpus.get_mut(cpu)?.virt, encoding)
        })
    }

    pub(super) fn write_guest(
        &self,
        cpu: usize,
        encoding: u16,
        value: u64,
    ) -> Result<(), SystemFault> {
        self.with_virtual(cpu, |model| {
            let own = model.state.cpus.get_mut(cpu)?;
            if let Some(physical) = write_guest(&mut own.virt, encoding, value)? {
                model.deactivate(cpu, physical);
            }
            Some(())
        })
    }

    pub(super) fn read_control(&self, cpu: usize, encoding: u16) -> Result<u64, SystemFault> {
        let model = self.lock();
        let own = model.state.cpus.get(cpu);
        own.and_then(|own| read_control(&own.virt, encoding))
            .ok_or(SystemFault::Undefined)
    }

    pub(super) fn write_control(
        &self,
        cpu: usize,
        encoding: u16,
        value: u64,
    ) -> Result<(), SystemFault> {
        self.with_virtual(cpu, |model| {
            write_control(&mut model.state.cpus.get_mut(cpu)?.virt, encoding, value)
        })
    }
}
