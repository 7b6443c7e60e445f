//! Saved form of a CPU. Tags are for ever: add, never renumber or reuse.
//!
//! System registers are saved by encoding, so that rows may be added to their table.

use hw_state::{Section, StateError};

use super::exception;
use super::registers::ROWS;
use crate::model::{CpuModel, Feature};
use crate::port::SysReg;
use crate::{Core, mode, regs};

const NAME: &str = "aarch64-cpu";
const VERSION: u16 = 1;

const X: u16 = 1;
const SP: u16 = 2;
const PC: u16 = 3;
const PSTATE: u16 = 4;
const VECTORS: u16 = 5;
const FPCR: u16 = 6;
const FPSR: u16 = 7;
const ENCODINGS: u16 = 8;
const VALUES: u16 = 9;
const MONITOR: u16 = 10;
const DEBUG: u16 = 11;
const OS_LOCK: u16 = 12;
const POWERED_OFF: u16 = 13;
const HALTED: u16 = 14;
const MODEL: u16 = 15;
const PMU: u16 = 16;

/// PSTATE: nRW, as in SPSR_ELx.
const AARCH32: u64 = 0x10;

fn bytes(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn words(section: &Section, tag: u16) -> Result<Vec<u64>, StateError> {
    let bytes = section.bytes(tag)?;
    if bytes.len() % 8 != 0 {
        return Err(section.bad(tag, "is cut off"));
    }
    let words = bytes.as_chunks().0.iter();
    Ok(words.map(|word| u64::from_le_bytes(*word)).collect())
}

fn array<const N: usize>(section: &Section, tag: u16) -> Result<[u64; N], StateError> {
    let words = exactly(section, tag, N)?;
    <[u64; N]>::try_from(words).map_err(|_| section.bad(tag, "has the wrong length"))
}

fn exactly(section: &Section, tag: u16, count: usize) -> Result<Vec<u64>, StateError> {
    let words = words(section, tag)?;
    if words.len() != count {
        return Err(section.bad(tag, "has the wrong length"));
    }
    Ok(words)
}

/// All of a CPU that is saved, in the form that accelerators share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuState {
    /// Name of the model.
    pub model: String,
    /// x0 to x30.
    pub x: [u64; 31],
    /// SP_EL0 to SP_EL3.
    pub sp: [u64; 4],
    /// The program counter.
    pub pc: u64,
    /// PSTATE, as in SPSR_ELx.
    pub pstate: u64,
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
    /// System registers: those of the table, or fewer.
    pub system: Vec<(SysReg, u64)>,
    /// Address of the exclusive monitor, all ones if it is open, and what was loaded.
    pub monitor: (u64, u128),
    /// DBGBVR, DBGBCR, DBGWVR, DBGWCR by number.
    pub debug: [[u64; 4]; 16],
    /// OSLSR_EL1.OSLK.
    pub os_lock: bool,
    /// Off until PSCI turns it on.
    pub powered_off: bool,
    /// In WFI.
    pub halted: bool,
    /// The engine's performance monitors; nothing for those after reset.
    pub pmu: Vec<u64>,
}

/// Whether a register is one that [`CpuState::system`] has.
pub fn is_saved(reg: SysReg) -> bool {
    ROWS.iter().any(|row| row.reg == reg)
}

/// The bank of stack pointers, the one in use included.
fn stack_pointers(core: &Core) -> [u64; 4] {
    let current = if core.arch.sp_sel { core.arch.el } else { 0 };
    [0, 1, 2, 3].map(|n| match n == current {
        true => core.regs.get(regs::SP),
        false => core.regs.get(regs::sp_bank(n)),
    })
}

fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

fn whole(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

impl CpuState {
    /// The state of an engine's CPU.
    pub fn of(core: &Core) -> Self {
        let get = |slot| core.regs.get(slot);
        CpuState {
            model: core.arch.model.name.to_owned(),
            x: std::array::from_fn(|n| get(regs::x(n as u32))),
            sp: stack_pointers(core),
            pc: core.pc(),
            pstate: exception::pstate(core),
            v: std::array::from_fn(|n| core.regs.get_v(regs::v(n as u32))),
            fpcr: get(regs::FPCR),
            fpsr: crate::float::fpsr_now(core),
            system: ROWS.iter().map(|row| (row.reg, get(row.slot))).collect(),
            monitor: (get(regs::MONITOR), core.regs.get_v(regs::MONITOR_DATA)),
            debug: core.arch.debug,
            os_lock: core.arch.os_lock,
            powered_off: core.arch.powered_off,
            halted: core.arch.halted,
            pmu: core.arch.pmu.save(),
        }
    }

    /// The saved form.
    pub fn save(&self) -> Section {
        let (address, data) = self.monitor;
        let [low, high] = halves(data);
        let system = self.system.iter();
        let mut section = Section::new(NAME, VERSION)
            .with(MODEL, self.model.clone())
            .with(X, bytes(self.x))
            .with(SP, bytes(self.sp))
            .with(PC, self.pc)
            .with(PSTATE, self.pstate)
            .with(VECTORS, bytes(self.v.into_iter().flat_map(halves)))
            .with(FPCR, self.fpcr)
            .with(FPSR, self.fpsr)
            .with(
                ENCODINGS,
                bytes(system.clone().map(|(reg, _)| reg.0.into())),
            )
            .with(VALUES, bytes(system.map(|(_, value)| *value)))
            .with(MONITOR, bytes([address, low, high]))
            .with(DEBUG, bytes(self.debug.into_iter().flatten()))
            .with(OS_LOCK, self.os_lock)
            .with(POWERED_OFF, self.powered_off)
            .with(HALTED, self.halted);
        if !self.pmu.is_empty() {
            section.push(PMU, bytes(self.pmu.iter().copied()));
        }
        section
    }

    /// From the saved form of a CPU of this model.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(section: &Section, model: &CpuModel) -> Result<Self, StateError> {
        section.expect(NAME, VERSION)?;
        if section.text(MODEL)? != model.name {
            return Err(section.bad(MODEL, "is another CPU model"));
        }
        let pstate = section.u64(PSTATE)?;
        if !is_possible(pstate, model) {
            return Err(section.bad(PSTATE, "is no state of this CPU"));
        }
        let encodings = words(section, ENCODINGS)?;
        let values = exactly(section, VALUES, encodings.len())?;
        let register = |(encoding, value): (u64, u64)| {
            let reg = u16::try_from(encoding).ok().map(SysReg);
            let reg = reg.filter(|reg| is_saved(*reg));
            let reg = reg.ok_or_else(|| section.bad(ENCODINGS, "names an unknown register"))?;
            Ok((reg, value))
        };
        let vectors = exactly(section, VECTORS, 64)?;
        let vectors = vectors.as_chunks::<2>().0;
        let mut v = [0; 32];
        for (to, [low, high]) in v.iter_mut().zip(vectors) {
            *to = whole(*low, *high);
        }
        let debug = exactly(section, DEBUG, 64)?;
        let mut rows = [[0; 4]; 16];
        for (row, values) in rows.iter_mut().zip(debug.as_chunks::<4>().0) {
            *row = *values;
        }
        let [address, low, high] = array(section, MONITOR)?;
        Ok(CpuState {
            model: model.name.to_owned(),
            x: array(section, X)?,
            sp: array(section, SP)?,
            pc: section.u64(PC)?,
            pstate,
            v,
            fpcr: section.u64(FPCR)?,
            fpsr: section.u64(FPSR)?,
            system: encodings
                .into_iter()
                .zip(values)
                .map(register)
                .collect::<Result<_, StateError>>()?,
            monitor: (address, whole(low, high)),
            debug: rows,
            os_lock: section.bool(OS_LOCK)?,
            powered_off: section.bool(POWERED_OFF)?,
            halted: section.bool(HALTED)?,
            pmu: match section.get(PMU) {
                Some(_) => exactly(section, PMU, super::pmu::SAVED)?,
                None => Vec::new(),
            },
        })
    }

    /// Puts an engine's CPU of the same model into this state.
    pub fn apply(&self, core: &mut Core) {
        super::reset::reset(core);
        for (n, value) in (0..).zip(self.x) {
            core.regs.set(regs::x(n), value);
        }
        for (reg, value) in &self.system {
            if let Some(row) = ROWS.iter().find(|row| row.reg == *reg) {
                core.regs.set(row.slot, *value);
            }
        }
        for (n, value) in (0..).zip(self.v) {
            core.regs.set_v(regs::v(n), value);
        }
        for (n, value) in (0..).zip(self.sp) {
            core.regs.set(regs::sp_bank(n), value);
        }
        crate::float::set_fpcr(core, self.fpcr);
        crate::float::set_fpsr(core, self.fpsr);
        let (address, data) = self.monitor;
        core.regs.set(regs::MONITOR, address);
        core.regs.set_v(regs::MONITOR_DATA, data);
        core.arch.debug = self.debug;
        self.apply_pstate(core);
        core.arch.os_lock = self.os_lock;
        core.arch.powered_off = self.powered_off;
        core.arch.halted = self.halted;
        core.set_pc(self.pc);
        let offset = core.regs.get(super::registers::CNTVOFF_EL2);
        core.port.set_counter_offset(offset);
        exception::changed(core);
        super::debug::arm(core);
        super::pmu::restored(core, &self.pmu);
        core.mmu.flush_all();
        // Whatever is active is looked at.
        core.pending.raise(accel_core::reason::INTR);
    }

    fn apply_pstate(&self, core: &mut Core) {
        let pstate = self.pstate;
        let el = (pstate >> 2 & 3) as u8;
        let is_32 = pstate & AARCH32 != 0;
        let sel = pstate & 1 != 0;
        let current = self.sp.get(usize::from(if sel { el } else { 0 }));
        core.regs.set(regs::SP, current.copied().unwrap_or(0));
        mode::set_nzcv(core, pstate);
        let daif = if is_32 { 0x1c0 } else { 0x3c0 };
        core.regs.set(regs::DAIF, pstate & daif);
        core.regs
            .set(regs::BTYPE, if is_32 { 0 } else { pstate >> 10 & 3 });
        exception::set_state(core, pstate);
        let bit = |n: u32| pstate.wrapping_shr(n) & 1 != 0;
        let arch = &mut core.arch;
        arch.el = el;
        arch.sp_sel = sel;
        (arch.il, arch.ss) = (bit(20), bit(21));
        // SSBS of AArch32 is where UAO is otherwise.
        arch.ssbs = bit(if is_32 { 23 } else { 12 });
        (arch.pan, arch.uao, arch.dit) = (bit(22), bit(23) && !is_32, bit(24));
        // Guarded pages may be in use: found out anew only for pages not yet cached.
        arch.guarded = !is_32 && (bit(10) || bit(11));
    }
}

/// Whether a model can be in such a state.
fn is_possible(pstate: u64, model: &CpuModel) -> bool {
    let el = (pstate >> 2 & 3) as u8;
    match pstate & AARCH32 != 0 {
        true => pstate & 0xf == 0 && model.has(Feature::El0Is32),
        false => {
            pstate & 2 == 0
                && el <= super::reset::highest_of(model)
                && !(el == 0 && pstate & 1 != 0)
        }
    }
}
