//! The CPU interface of version 3 as system registers (IHI 0069H section 12.2).

use hw_intc::{GIC_FIRST_LPI, GicCpu};

use super::Gic;
use super::model::{
    Candidate, FIRST_SPECIAL, GROUP_1, Model, SECURE_GROUP_1, SPURIOUS, active_group, icc_ctlr,
    running,
};
use super::security::{View, lent};
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
const ICC_CTLR_EL3: u16 = reg(6, 12, 12, 4);
const ICC_SRE_EL3: u16 = reg(6, 12, 12, 5);
const ICC_IGRPEN1_EL3: u16 = reg(6, 12, 12, 7);

/// System registers in use, no bypass of IRQ and FIQ: the only way this controller works.
const SRE: u64 = 7;
/// `ICC_SRE_EL2`, `ICC_SRE_EL3`: lower levels may use their own.
const SRE_EL2: u64 = 0xf;
/// `ICC_CTLR_EL3.EOImode_EL3`: ends at EL3 only drop the priority. The bits of Secure and Non-secure EL1 are
/// beside it.
const EOI_MODE_EL3: u32 = 1 << 2;
/// What is read for Secure and Non-secure group 1 where only group 0 may be acknowledged.
const SPECIAL_SECURE: u32 = 1020;
const SPECIAL_NON_SECURE: u32 = 1021;
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
    /// Groups that are EL3's: `SCR_EL3.FIQ` is bit 0, `IRQ` bit 1.
    pub monitored: u8,
    /// Below EL3 the Secure state: `SCR_EL3.NS` is clear.
    pub secure: bool,
}

impl Access {
    /// An access to the CPU interface itself.
    pub const fn physical(encoding: u16) -> Self {
        Access {
            encoding,
            el: 2,
            groups: 0,
            monitored: 0,
            secure: false,
        }
    }

    fn is_secure(self) -> bool {
        self.secure || self.el == 3
    }

    /// What it sees of priorities.
    fn view(self) -> View {
        if !self.is_secure() && self.monitored & 1 != 0 {
            View::NonSecure
        } else {
            View::Whole
        }
    }

    /// Whether EL3 keeps the register to itself.
    fn is_monitors(self) -> bool {
        let all = match virt::group_of(self.encoding) {
            _ if matches!(self.encoding, ICC_SRE | ICC_SRE_EL2) => return false,
            Some(0) => 1,
            Some(_) => 2,
            None => 3,
        };
        self.el < 3 && self.monitored & all == all
    }
}

/// Why a register was not accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SystemFault {
    /// There is none.
    Undefined,
    /// The hypervisor is to see to it.
    Trap,
    /// EL3 is.
    Monitor,
}

/// Whether a number is one of an interrupt and not a special one.
pub(super) fn is_interrupt(intid: u32) -> bool {
    !(FIRST_SPECIAL..=SPURIOUS).contains(&intid)
}

/// The group 1 that an access is about.
fn own_group(model: &Model, access: Access) -> usize {
    if model.state.has_two_states() && access.secure {
        SECURE_GROUP_1
    } else {
        GROUP_1
    }
}

/// The INTID that an access sees of a pending interrupt, by the registers of group 0 or of group 1
/// (section 12.2 "ICC_HPPIR0_EL1", "ICC_HPPIR1_EL1").
fn seen(model: &Model, access: Access, pending: Option<Candidate>, wants_0: bool) -> u32 {
    let Some(Candidate { intid, group, .. }) = pending else {
        return SPURIOUS;
    };
    let two_states = model.state.has_two_states();
    let is_hidden = two_states && group != GROUP_1 && !access.is_secure();
    match (wants_0, group) {
        _ if is_hidden => SPURIOUS,
        (true, 0) => intid,
        // EL3 learns whose it is.
        (true, SECURE_GROUP_1) if access.el == 3 => SPECIAL_SECURE,
        (true, _) if access.el == 3 => SPECIAL_NON_SECURE,
        (true, _) | (false, 0) => SPURIOUS,
        (false, GROUP_1) if two_states && access.secure && access.el < 3 => SPURIOUS,
        (false, _) => intid,
    }
}

fn acknowledge(model: &mut Model, cpu: usize, access: Access, wants_0: bool) -> u64 {
    let pending = model.signalled(cpu);
    let intid = seen(model, access, pending, wants_0);
    match pending.filter(|pending| pending.intid == intid) {
        Some(pending) => model.activate(cpu, pending).into(),
        None => intid.into(),
    }
}

fn end(model: &mut Model, cpu: usize, access: Access, value: u64, ends_0: bool) {
    let intid = value as u32 & 0x00ff_ffff;
    let Some(own) = model.state.cpus.get(cpu) else {
        return;
    };
    let is_valid = !(FIRST_SPECIAL..GIC_FIRST_LPI).contains(&intid);
    let Some(group) = active_group(own).filter(|_| is_valid) else {
        return;
    };
    let two_states = model.state.has_two_states();
    let may = match group {
        0 => ends_0 && (!two_states || access.is_secure()),
        SECURE_GROUP_1 => !ends_0 && access.is_secure(),
        _ => !ends_0 && (!two_states || access.el == 3 || !access.secure),
    };
    // Ending what is not the highest active interrupt's group is unpredictable: nothing happens.
    if may {
        let is_split = is_split(model, own, access);
        model.end(cpu, intid, group, is_split);
    }
}

/// Whether the end of an interrupt only drops its priority.
fn is_split(model: &Model, own: &GicCpu, access: Access) -> bool {
    if access.el == 3 {
        return own.ctlr_el3 & EOI_MODE_EL3 != 0;
    }
    let control = match own_group(model, access) {
        SECURE_GROUP_1 => own.ctlr_secure,
        _ => own.ctlr,
    };
    u64::from(control) & icc_ctlr::EOI_MODE != 0
}

/// `ICC_BPR1_EL1`: which binary point it shows, and whether one more.
fn bpr1(model: &Model, own: &GicCpu, access: Access) -> (usize, bool) {
    match own_group(model, access) {
        SECURE_GROUP_1 if access.el < 3 && u64::from(own.ctlr_secure) & icc_ctlr::CBPR != 0 => {
            (0, false)
        }
        GROUP_1 if access.el < 3 && u64::from(own.ctlr) & icc_ctlr::CBPR != 0 => (0, true),
        group => (group, false),
    }
}

/// `ICC_CTLR_EL3`.
fn control_el3(own: &GicCpu) -> u64 {
    let [secure, other] = [own.ctlr_secure, own.ctlr].map(u64::from);
    let bits = secure & 1 | (other & 1) << 1 | (secure >> 1 & 1) << 3 | (other >> 1 & 1) << 4;
    CTLR | bits | u64::from(own.ctlr_el3)
}

fn set_control_el3(own: &mut GicCpu, value: u64) {
    let value = value as u32;
    own.ctlr_el3 = value & EOI_MODE_EL3;
    own.ctlr_secure = value & 1 | (value >> 3 & 1) << 1;
    own.ctlr = value >> 1 & 1 | (value >> 4 & 1) << 1;
}

/// Whether a software generated interrupt reaches a CPU that has it in group `there`: it was sent as one of
/// `group`, perhaps by Non-secure software, which it may be `lent` to (section 4.7 "Software Generated
/// Interrupts").
fn is_forwarded(group: usize, there: usize, is_secure: bool, field: u64) -> bool {
    let fits = group == there || group == SECURE_GROUP_1 && there == 0;
    let is_lent = match there {
        0 => field >= lent::SET_PENDING,
        SECURE_GROUP_1 => field >= lent::CLEAR_PENDING,
        _ => false,
    };
    fits && (is_secure || there == GROUP_1 || is_lent)
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
        if access.is_monitors() {
            return Err(SystemFault::Monitor);
        }
        self.read_physical(cpu, access)
            .ok_or(SystemFault::Undefined)
    }

    fn read_physical(&self, cpu: usize, access: Access) -> Option<u64> {
        let encoding = access.encoding;
        if matches!(encoding, ICC_IAR0 | ICC_IAR1) {
            let wants_0 = encoding == ICC_IAR0;
            return Some(self.with(cpu, |m| acknowledge(m, cpu, access, wants_0)));
        }
        let model = self.lock();
        let own = model.state.cpus.get(cpu)?;
        let group = own_group(&model, access);
        Some(match encoding {
            ICC_PMR => access.view().shown(own.pmr).into(),
            ICC_HPPIR0 | ICC_HPPIR1 => {
                let wants_0 = encoding == ICC_HPPIR0;
                seen(&model, access, model.highest(cpu), wants_0).into()
            }
            ICC_BPR0 => own.bpr[0].into(),
            ICC_BPR1 => {
                let (group, is_more) = bpr1(&model, own, access);
                let bpr = own.bpr.get(group)?.saturating_add(is_more.into());
                bpr.min(7).into()
            }
            ICC_AP0R0 => own.apr[0].into(),
            ICC_AP1R0 => own.apr.get(group).copied()?.into(),
            ICC_RPR => access.view().shown(running(own)).into(),
            ICC_CTLR => {
                let own = match group {
                    SECURE_GROUP_1 => own.ctlr_secure,
                    _ => own.ctlr,
                };
                CTLR | u64::from(own)
            }
            ICC_SRE => SRE,
            ICC_SRE_EL2 | ICC_SRE_EL3 => SRE_EL2,
            ICC_IGRPEN0 => u64::from(own.groups) & 1,
            ICC_IGRPEN1 => u64::from(own.groups).wrapping_shr(group as u32) & 1,
            ICC_CTLR_EL3 => control_el3(own),
            ICC_IGRPEN1_EL3 => u64::from(own.groups) >> 1,
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
        if access.is_monitors() {
            return Err(SystemFault::Monitor);
        }
        self.write_physical(cpu, access, value)
            .ok_or(SystemFault::Undefined)
    }

    fn write_physical(&self, cpu: usize, access: Access, value: u64) -> Option<()> {
        let encoding = access.encoding;
        match encoding {
            ICC_SGI0R | ICC_SGI1R | ICC_ASGI1R => {
                self.send(cpu, access, value);
                return Some(());
            }
            // EL1's is fixed, and so are the others.
            ICC_SRE | ICC_SRE_EL2 | ICC_SRE_EL3 => return Some(()),
            _ => {}
        }
        self.with(cpu, |model| {
            let intid = value as u32 & 0x00ff_ffff;
            let group = own_group(model, access);
            let two_states = model.state.has_two_states();
            match encoding {
                ICC_EOIR0 => end(model, cpu, access, value, true),
                ICC_EOIR1 => end(model, cpu, access, value, false),
                ICC_DIR if intid < FIRST_SPECIAL => {
                    let is_secret = model.state.has_two_states() && !access.is_secure();
                    if !is_secret || model.group_of(cpu, intid) == GROUP_1 {
                        model.deactivate(cpu, intid);
                    }
                }
                ICC_DIR => {}
                ICC_BPR0 => model.set_bpr(cpu, 0, value),
                ICC_BPR1 => {
                    // Where it shows group 0's plus one, it cannot be written.
                    if let (group, false) = bpr1(model, model.state.cpus.get(cpu)?, access) {
                        model.set_bpr(cpu, group, value);
                    }
                }
                _ => {
                    let own = model.state.cpus.get_mut(cpu)?;
                    let enable = |group: usize| {
                        let bit = 1u8.wrapping_shl(group as u32);
                        let rest = own.groups & !bit;
                        rest | if value & 1 != 0 { bit } else { 0 }
                    };
                    match encoding {
                        ICC_PMR => own.pmr = access.view().new_mask(own.pmr, value as u8),
                        ICC_AP0R0 => own.apr[0] = value as u32,
                        ICC_AP1R0 => *own.apr.get_mut(group)? = value as u32,
                        // With two Security states CBPR is EL3's to set.
                        ICC_CTLR => {
                            let own = match group {
                                SECURE_GROUP_1 => &mut own.ctlr_secure,
                                _ => &mut own.ctlr,
                            };
                            let mask = if two_states {
                                icc_ctlr::EOI_MODE
                            } else {
                                CTLR_WRITABLE
                            };
                            *own = *own & !(mask as u32) | (value & mask) as u32;
                        }
                        ICC_IGRPEN0 => own.groups = enable(0),
                        ICC_IGRPEN1 => own.groups = enable(group),
                        ICC_CTLR_EL3 => set_control_el3(own, value),
                        ICC_IGRPEN1_EL3 => own.groups = own.groups & 1 | (value as u8 & 3) << 1,
                        _ => return None,
                    }
                }
            }
            Some(())
        })
    }

    fn send(&self, from: usize, access: Access, value: u64) {
        let mut model = self.lock();
        let sgi = (value >> 24 & 15) as u32;
        let two_states = model.state.has_two_states();
        let group = match access.encoding {
            ICC_SGI0R => 0,
            ICC_ASGI1R if two_states && !access.secure => SECURE_GROUP_1,
            ICC_ASGI1R => GROUP_1,
            _ => own_group(&model, access),
        };
        let is_secure = access.is_secure() || !two_states;
        for to in receivers(&model, from, value) {
            let bank = model.state.bank(to, 0);
            let field = bank.map_or(0, |bank| bank.lent.wrapping_shr(sgi.wrapping_mul(2)) & 3);
            if is_forwarded(group, model.group_of(to, sgi), is_secure, field) {
                model.send_sgi(from, to, sgi);
                self.follow(&model, Some(to));
            }
        }
    }
}
