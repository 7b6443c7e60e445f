//! The CPU interface of version 3 as system registers (IHI 0069H section 12.2).

use hw_intc::{GIC_FIRST_LPI, GIC_PRIORITY};

use super::Gic;
use super::model::{FIRST_SPECIAL, Model, SPURIOUS, icc_ctlr, running};
use super::virt;

/// A register by its encoding: `op0 << 14 | op1 << 11 | CRn << 7 | CRm << 3 | op2`.
pub(super) const fn reg(op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    3 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

pub(super) const ICC_PMR: u16 = reg(0, 4, 6, 0);
pub(super) const ICC_IAR0: u16 = reg(0, 12, 8, 0);
pub(super) const ICC_EOIR0: u16 = reg(0, 12, 8, 1);
pub(super) const ICC_HPPIR0: u16 = reg(0, 12, 8, 2);
pub(super) const ICC_BPR0: u16 = reg(0, 12, 8, 3);
pub(super) const ICC_AP0R0: u16 = reg(0, 12, 8, 4);
pub(super) const ICC_AP1R0: u16 = reg(0, 12, 9, 0);
pub(super) const ICC_DIR: u16 = reg(0, 12, 11, 1);
pub(super) const ICC_RPR: u16 = reg(0, 12, 11, 3);
pub(super) const ICC_SGI1R: u16 = reg(0, 12, 11, 5);
pub(super) const ICC_ASGI1R: u16 = reg(0, 12, 11, 6);
pub(super) const ICC_SGI0R: u16 = reg(0, 12, 11, 7);
pub(super) const ICC_IAR1: u16 = reg(0, 12, 12, 0);
pub(super) const ICC_EOIR1: u16 = reg(0, 12, 12, 1);
pub(super) const ICC_HPPIR1: u16 = reg(0, 12, 12, 2);
pub(super) const ICC_BPR1: u16 = reg(0, 12, 12, 3);
pub(super) const ICC_CTLR: u16 = reg(0, 12, 12, 4);
pub(super) const ICC_SRE: u16 = reg(0, 12, 12, 5);
pub(super) const ICC_IGRPEN0: u16 = reg(0, 12, 12, 6);
pub(super) const ICC_IGRPEN1: u16 = reg(0, 12, 12, 7);
pub(super) const ICC_SRE_EL2: u16 = reg(4, 12, 9, 5);

/// System registers in use, no bypass of IRQ and FIQ: the only way this controller works.
const SRE: u64 = 7;
/// `ICC_SRE_EL2`: EL1 may use its own.
const SRE_EL2: u64 = 0xf;
/// `ICC_CTLR_EL1`: five bits of priority, 16 bits of INTID (IDbits 0), Aff3 works.
pub(super) const CTLR: u64 = 4 << 8 | 1 << 15;
const CTLR_WRITABLE: u64 = icc_ctlr::CBPR | icc_ctlr::EOI_MODE;
/// `ICC_SGI1R_EL1`: to all CPUs but the sender.
const TO_OTHERS: u64 = 1 << 40;

/// What is read where there is no interrupt.
pub(super) const NOTHING: u64 = SPURIOUS as u64;

/// An access to a system register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Which register: `op0 << 14 | op1 << 11 | CRn << 7 | CRm << 3 | op2`.
    pub encoding: u16,
    /// The exception level that makes it.
    pub el: u8,
    /// Groups that are virtual to EL1: `HCR_EL2.FMO` is bit 0, `IMO` bit 1.
    pub groups: u8,
}

impl Access {
    /// An access to the CPU interface itself.
    pub const fn physical(encoding: u16) -> Self {
        Access {
            encoding,
            el: 2,
            groups: 0,
        }
    }
}

/// Why a register was not accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SystemFault {
    /// There is none.
    Undefined,
    /// The hypervisor is to see to it.
    Trap,
}

/// Whether a number is one of an interrupt and not a special one.
pub(super) fn is_interrupt(intid: u32) -> bool {
    !(FIRST_SPECIAL..=SPURIOUS).contains(&intid)
}

fn acknowledge(model: &mut Model, cpu: usize, group: usize) -> u64 {
    match model.signalled(cpu) {
        Some(candidate) if candidate.group == group => model.activate(cpu, candidate).into(),
        _ => SPURIOUS.into(),
    }
}

fn highest(model: &Model, cpu: usize, group: usize) -> u64 {
    let candidate = model.highest(cpu).filter(|c| c.group == group);
    candidate.map_or(SPURIOUS.into(), |c| c.intid.into())
}

fn end(model: &mut Model, cpu: usize, value: u64, group: usize) {
    let intid = value as u32 & 0x00ff_ffff;
    let Some(own) = model.state.cpus.get(cpu) else {
        return;
    };
    let [a, b] = own.apr.map(u32::trailing_zeros);
    let active_group = usize::from(b < a);
    // Ending what is not the highest active interrupt's group is unpredictable: nothing happens.
    let is_valid = !(FIRST_SPECIAL..GIC_FIRST_LPI).contains(&intid);
    if is_valid && (a < 32 || b < 32) && active_group == group {
        model.end(cpu, intid, group);
    }
}

/// The CPUs that a software generated interrupt is for.
fn receivers(model: &Model, from: usize, value: u64) -> Vec<usize> {
    if value & TO_OTHERS != 0 {
        let all = 0..model.state.cpus.len();
        return all.filter(|n| *n != from).collect();
    }
    let field = |shift: u32| (value.wrapping_shr(shift) & 0xff) as u32;
    let cluster = field(48) << 24 | field(32) << 16 | field(16) << 8;
    let first = ((value >> 44 & 0xf) as u32) << 4;
    (0..16u32)
        .filter(|n| value.wrapping_shr(*n) & 1 != 0)
        .filter_map(|n| model.cpu_of(cluster | (first | n) & 0xff))
        .collect()
}

impl Gic {
    /// A CPU reads a register of its CPU interface.
    pub fn read_system(&self, cpu: usize, access: Access) -> Result<u64, SystemFault> {
        let encoding = access.encoding;
        if virt::is_control(encoding) {
            return self.read_control(cpu, encoding);
        }
        if virt::is_virtual(&self.lock().state, cpu, access)? {
            return self.read_guest(cpu, encoding);
        }
        self.read_physical(cpu, encoding)
            .ok_or(SystemFault::Undefined)
    }

    fn read_physical(&self, cpu: usize, encoding: u16) -> Option<u64> {
        match encoding {
            ICC_IAR0 => return Some(self.with(cpu, |m| acknowledge(m, cpu, 0))),
            ICC_IAR1 => return Some(self.with(cpu, |m| acknowledge(m, cpu, 1))),
            _ => {}
        }
        let model = self.lock();
        let own = model.state.cpus.get(cpu)?;
        Some(match encoding {
            ICC_PMR => own.pmr.into(),
            ICC_HPPIR0 => highest(&model, cpu, 0),
            ICC_HPPIR1 => highest(&model, cpu, 1),
            ICC_BPR0 => own.bpr[0].into(),
            ICC_BPR1 => own.bpr[1].into(),
            ICC_AP0R0 => own.apr[0].into(),
            ICC_AP1R0 => own.apr[1].into(),
            ICC_RPR => running(own).into(),
            ICC_CTLR => CTLR | u64::from(own.ctlr),
            ICC_SRE => SRE,
            ICC_SRE_EL2 => SRE_EL2,
            ICC_IGRPEN0 => u64::from(own.groups) & 1,
            ICC_IGRPEN1 => u64::from(own.groups) >> 1 & 1,
            _ => return None,
        })
    }

    /// A CPU writes a register of its CPU interface.
    pub fn write_system(&self, cpu: usize, access: Access, value: u64) -> Result<(), SystemFault> {
        let encoding = access.encoding;
        if virt::is_control(encoding) {
            return self.write_control(cpu, encoding, value);
        }
        if virt::is_virtual(&self.lock().state, cpu, access)? {
            return self.write_guest(cpu, encoding, value);
        }
        self.write_physical(cpu, encoding, value)
            .ok_or(SystemFault::Undefined)
    }

    fn write_physical(&self, cpu: usize, encoding: u16, value: u64) -> Option<()> {
        match encoding {
            ICC_SGI0R | ICC_SGI1R | ICC_ASGI1R => {
                self.send(cpu, value);
                return Some(());
            }
            // EL1's is fixed, and so is EL2's.
            ICC_SRE | ICC_SRE_EL2 => return Some(()),
            _ => {}
        }
        self.with(cpu, |model| {
            let intid = value as u32 & 0x00ff_ffff;
            match encoding {
                ICC_EOIR0 => end(model, cpu, value, 0),
                ICC_EOIR1 => end(model, cpu, value, 1),
                ICC_DIR if intid < FIRST_SPECIAL => model.deactivate(cpu, intid),
                ICC_DIR => {}
                ICC_BPR0 => model.set_bpr(cpu, 0, value),
                ICC_BPR1 => model.set_bpr(cpu, 1, value),
                _ => {
                    let own = model.state.cpus.get_mut(cpu)?;
                    let enable = |group: u8| {
                        let bit = 1u8.wrapping_shl(group.into());
                        let rest = own.groups & !bit;
                        rest | if value & 1 != 0 { bit } else { 0 }
                    };
                    match encoding {
                        ICC_PMR => own.pmr = value as u8 & GIC_PRIORITY,
                        ICC_AP0R0 => own.apr[0] = value as u32,
                        ICC_AP1R0 => own.apr[1] = value as u32,
                        ICC_CTLR => own.ctlr = (value & CTLR_WRITABLE) as u32,
                        ICC_IGRPEN0 => own.groups = enable(0),
                        ICC_IGRPEN1 => own.groups = enable(1),
                        _ => return None,
                    }
                }
            }
            Some(())
        })
    }

    fn send(&self, from: usize, value: u64) {
        let mut model = self.lock();
        let sgi = (value >> 24 & 15) as u32;
        for to in receivers(&model, from, value) {
            model.send_sgi(from, to, sgi);
            self.follow(&model, Some(to));
        }
    }
}
