//! A vCPU's registers one by one, to and from the common state.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst, KVM_SET_ONE_REG ("arm64 registers are mapped using the
//! lower 32 bits").

use std::io;

use target_arm::{CpuState, SysReg, Timer, is_saved};

use super::state::Full;

const ARM64: u64 = 0x6000_0000_0000_0000;
const SIZE: u64 = 0x00f0_0000_0000_0000;
const U32: u64 = 0x0020_0000_0000_0000;
const U64: u64 = 0x0030_0000_0000_0000;
const U128: u64 = 0x0040_0000_0000_0000;
/// What kind of register: `KVM_REG_ARM_COPROC_MASK`.
const KIND: u64 = 0x0fff_0000;
const CORE: u64 = 0x0010_0000;
/// Sizes of caches: facts.
const DEMUX: u64 = 0x0011_0000;
const SYSREG: u64 = 0x0013_0000;

/// In `struct kvm_regs`, in words of 32 bits.
mod core {
    pub(super) const SP: u64 = 62;
    pub(super) const PC: u64 = 64;
    pub(super) const PSTATE: u64 = 66;
    pub(super) const SP_EL1: u64 = 68;
    pub(super) const ELR_EL1: u64 = 70;
    pub(super) const SPSR_EL1: u64 = 72;
    pub(super) const V: u64 = 84;
    pub(super) const FPSR: u64 = 212;
    pub(super) const FPCR: u64 = 213;
}

const ELR_EL1: SysReg = SysReg::new(3, 0, 4, 0, 1);
const SPSR_EL1: SysReg = SysReg::new(3, 0, 4, 0, 0);
const OSLSR_EL1: SysReg = SysReg::new(2, 0, 1, 1, 4);
/// OSLSR_EL1.OSLK.
const OS_LOCKED: u64 = 2;

/// The virtual counter. The kernel has its number and that of the comparator the wrong way round.
pub(crate) const TIMER_CNT: u64 = system(SysReg::new(3, 3, 14, 3, 2));
const PTIMER_CNT: u64 = system(SysReg::new(3, 3, 14, 0, 1));
/// Control and comparator of each timer; the physical one has them from Linux 6.4 on.
pub(crate) const TIMERS: [(Timer, [u64; 2]); 2] = [
    (
        Timer::Virtual,
        [
            system(SysReg::new(3, 3, 14, 3, 1)),
            system(SysReg::new(3, 3, 14, 0, 2)),
        ],
    ),
    (
        Timer::Physical,
        [
            system(SysReg::new(3, 3, 14, 2, 1)),
            system(SysReg::new(3, 3, 14, 2, 2)),
        ],
    ),
];
/// For sentences.
pub(crate) const PC: u64 = in_core(U64, core::PC);
pub(crate) const PSTATE: u64 = in_core(U64, core::PSTATE);

const fn system(reg: SysReg) -> u64 {
    ARM64 | U64 | SYSREG | reg.0 as u64
}

const fn in_core(size: u64, word: u64) -> u64 {
    ARM64 | size | CORE | word
}

/// The number of a system register.
pub(crate) fn id_of(reg: SysReg) -> u64 {
    system(reg)
}

/// A system register's encoding.
fn encoding(id: u64) -> Option<SysReg> {
    (id & !0xffff == ARM64 | U64 | SYSREG).then_some(SysReg(id as u16))
}

/// The registers of a vCPU, or of a test's.
pub(crate) trait Registers {
    fn get(&self, id: u64) -> io::Result<u128>;
    fn set(&self, id: u64, value: u128) -> io::Result<()>;
}

/// Number and kind of a debug register: DBGBVR, DBGBCR, DBGWVR, DBGWCR.
fn debug_register(reg: SysReg) -> Option<(usize, usize)> {
    let (op0, op1, crn, crm, op2) = reg.fields();
    let is_one = (op0, op1, crn) == (2, 0, 0) && (4..8).contains(&op2);
    is_one.then(|| (usize::from(crm), usize::from(op2 & 3)))
}

/// Whether a register says what the processor is: nothing of the guest's (DDI 0487, D23.3: those of
/// CRn 0, and of caches).
fn is_fact(reg: SysReg) -> bool {
    let (op0, op1, crn, crm, op2) = reg.fields();
    op0 == 3 && crn == 0 && !(op1 == 2 && crm == 0 && op2 == 0)
}

/// Where a register of the kernel's list belongs.
enum Place {
    /// In the common state, by encoding.
    System(SysReg),
    Debug(usize, usize),
    Own,
    /// Moved otherwise, or not at all.
    Elsewhere,
}

fn place(id: u64) -> Place {
    let is_timer = TIMERS.iter().any(|(_, ids)| ids.contains(&id));
    let is_counter = [TIMER_CNT, PTIMER_CNT].contains(&id);
    if id & KIND == CORE || id & KIND == DEMUX || is_timer || is_counter {
        return Place::Elsewhere;
    }
    let Some(reg) = encoding(id) else {
        return match id & SIZE {
            U32 | U64 => Place::Own,
            _ => Place::Elsewhere,
        };
    };
    match debug_register(reg) {
        Some((n, kind)) => Place::Debug(n, kind),
        None if is_saved(reg) => Place::System(reg),
        None if is_fact(reg) => Place::Elsewhere,
        None => Place::Own,
    }
}

/// Registers of 64 bits of the core.
fn core_registers(cpu: &mut CpuState) -> impl Iterator<Item = (u64, &mut u64)> {
    let CpuState {
        x,
        sp: [sp_el0, sp_el1, ..],
        pc,
        pstate,
        ..
    } = cpu;
    let x = (0..).step_by(2).zip(x);
    x.chain([
        (core::SP, sp_el0),
        (core::SP_EL1, sp_el1),
        (core::PC, pc),
        (core::PSTATE, pstate),
    ])
}

/// Reads all that `list` names, and the core.
pub(crate) fn read(vcpu: &impl Registers, list: &[u64]) -> io::Result<Full> {
    let mut full = Full::default();
    let cpu = &mut full.cpu;
    for (word, value) in core_registers(cpu) {
        *value = vcpu.get(in_core(U64, word))? as u64;
    }
    for (n, v) in (0..).zip(&mut cpu.v) {
        *v = vcpu.get(in_core(U128, core::V + 4 * n))?;
    }
    cpu.fpsr = vcpu.get(in_core(U32, core::FPSR))? as u64;
    cpu.fpcr = vcpu.get(in_core(U32, core::FPCR))? as u64;
    for (reg, word) in [(ELR_EL1, core::ELR_EL1), (SPSR_EL1, core::SPSR_EL1)] {
        let value = vcpu.get(in_core(U64, word))? as u64;
        cpu.system.push((reg, value));
    }
    // No load exclusive is remembered across an exit.
    cpu.monitor.0 = u64::MAX;
    for id in list {
        let value = || vcpu.get(*id).map(|value| value as u64);
        match place(*id) {
            Place::System(reg) => cpu.system.push((reg, value()?)),
            Place::Debug(n, kind) => {
                let row = cpu.debug.get_mut(n).and_then(|row| row.get_mut(kind));
                if let Some(register) = row {
                    *register = value()?;
                }
            }
            Place::Own => full.own.push((*id, value()?)),
            Place::Elsewhere => {}
        }
    }
    let lock = full.own.iter().find(|(id, _)| *id == system(OSLSR_EL1));
    full.cpu.os_lock = lock.is_some_and(|(_, value)| value & OS_LOCKED != 0);
    Ok(full)
}

/// Replaces the core and what else of `list` the state has. Answers the numbers of registers that the
/// host refused.
pub(crate) fn write(vcpu: &impl Registers, list: &[u64], full: &Full) -> io::Result<Vec<u64>> {
    let mut cpu = full.cpu.clone();
    let mut refused = Vec::new();
    let mut put = |id: u64, value: u64| {
        // What is so already may be what cannot be written.
        let is_so = vcpu.get(id).is_ok_and(|old| old == value.into());
        if !is_so && vcpu.set(id, value.into()).is_err() {
            refused.push(id);
        }
    };
    for id in list {
        match place(*id) {
            Place::System(reg) => {
                if let Some((_, value)) = cpu.system.iter().find(|(known, _)| *known == reg) {
                    put(*id, *value);
                }
            }
            Place::Debug(n, kind) => {
                if let Some(value) = cpu.debug.get(n).and_then(|row| row.get(kind)) {
                    put(*id, *value);
                }
            }
            Place::Own => {
                if let Some((_, value)) = full.own.iter().find(|(known, _)| known == id) {
                    put(*id, *value);
                }
            }
            Place::Elsewhere => {}
        }
    }
    for (reg, word) in [(ELR_EL1, core::ELR_EL1), (SPSR_EL1, core::SPSR_EL1)] {
        if let Some((_, value)) = cpu.system.iter().find(|(known, _)| *known == reg) {
            vcpu.set(in_core(U64, word), (*value).into())?;
        }
    }
    for (n, v) in (0..).zip(&cpu.v) {
        vcpu.set(in_core(U128, core::V + 4 * n), *v)?;
    }
    vcpu.set(in_core(U32, core::FPSR), cpu.fpsr.into())?;
    vcpu.set(in_core(U32, core::FPCR), cpu.fpcr.into())?;
    for (word, value) in core_registers(&mut cpu) {
        vcpu.set(in_core(U64, word), (*value).into())?;
    }
    Ok(refused)
}

/// The bytes of a register.
pub(crate) fn size_of(id: u64) -> usize {
    1 << (id >> 52 & 15)
}
