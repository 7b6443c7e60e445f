//! Saved form of a CPU. Tags are for ever: add, never renumber or reuse.
//!
//! System registers are saved by encoding, so that rows may be added to their table.

use hw_state::{Section, StateError};

use super::exception;
use super::registers::ROWS;
use crate::model::Feature;
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

fn exactly(section: &Section, tag: u16, count: usize) -> Result<Vec<u64>, StateError> {
    let words = words(section, tag)?;
    if words.len() != count {
        return Err(section.bad(tag, "has the wrong length"));
    }
    Ok(words)
}

/// The bank of stack pointers, the one in use included.
fn stack_pointers(core: &Core) -> [u64; 4] {
    let current = if core.arch.sp_sel { core.arch.el } else { 0 };
    [0, 1, 2, 3].map(|n| match n == current {
        true => core.regs.get(regs::SP),
        false => core.regs.get(regs::sp_bank(n)),
    })
}

pub(crate) fn save(core: &Core) -> Section {
    let get = |slot| core.regs.get(slot);
    let vectors = (0..32).flat_map(|n| {
        let v = core.regs.get_v(regs::v(n));
        [v as u64, (v >> 64) as u64]
    });
    let monitor = core.regs.get_v(regs::MONITOR_DATA);
    Section::new(NAME, VERSION)
        .with(MODEL, core.arch.model.name.to_string())
        .with(X, bytes((0..31).map(|n| get(regs::x(n)))))
        .with(SP, bytes(stack_pointers(core)))
        .with(PC, core.pc())
        .with(PSTATE, exception::pstate(core))
        .with(VECTORS, bytes(vectors))
        .with(FPCR, get(regs::FPCR))
        .with(FPSR, crate::float::fpsr_now(core))
        .with(ENCODINGS, bytes(ROWS.iter().map(|r| r.reg.0.into())))
        .with(VALUES, bytes(ROWS.iter().map(|r| get(r.slot))))
        .with(
            MONITOR,
            bytes([get(regs::MONITOR), monitor as u64, (monitor >> 64) as u64]),
        )
        .with(DEBUG, bytes(core.arch.debug.into_iter().flatten()))
        .with(OS_LOCK, core.arch.os_lock)
        .with(POWERED_OFF, core.arch.powered_off)
        .with(HALTED, core.arch.halted)
        .with(PMU, bytes(core.arch.pmu.save()))
}

pub(crate) fn restore(core: &mut Core, section: &Section) -> Result<(), StateError> {
    section.expect(NAME, VERSION)?;
    if section.text(MODEL)? != core.arch.model.name {
        return Err(section.bad(MODEL, "is another CPU model"));
    }
    let x = exactly(section, X, 31)?;
    let sp = exactly(section, SP, 4)?;
    let pc = section.u64(PC)?;
    let pstate = section.u64(PSTATE)?;
    let vectors = exactly(section, VECTORS, 64)?;
    let (fpcr, fpsr) = (section.u64(FPCR)?, section.u64(FPSR)?);
    let encodings = words(section, ENCODINGS)?;
    let values = exactly(section, VALUES, encodings.len())?;
    let monitor = exactly(section, MONITOR, 3)?;
    let debug = exactly(section, DEBUG, 64)?;
    let os_lock = section.bool(OS_LOCK)?;
    let (off, halted) = (section.bool(POWERED_OFF)?, section.bool(HALTED)?);
    let pmu = match section.get(PMU) {
        Some(_) => exactly(section, PMU, super::pmu::SAVED)?,
        None => Vec::new(),
    };
    let el = (pstate >> 2 & 3) as u8;
    let highest = super::reset::highest_el(core);
    let is_32 = pstate & 0x10 != 0;
    let is_there = match is_32 {
        true => pstate & 0xf == 0 && core.arch.model.has(Feature::El0Is32),
        false => pstate & 2 == 0 && el <= highest && !(el == 0 && pstate & 1 != 0),
    };
    if !is_there {
        return Err(section.bad(PSTATE, "is no state of this CPU"));
    }
    super::reset::reset(core);
    for (n, value) in (0..).zip(x) {
        core.regs.set(regs::x(n), value);
    }
    for (encoding, value) in encodings.into_iter().zip(values) {
        let row = ROWS.iter().find(|r| u64::from(r.reg.0) == encoding);
        let row = row.ok_or_else(|| section.bad(ENCODINGS, "names an unknown register"))?;
        core.regs.set(row.slot, value);
    }
    for (n, [low, high]) in (0..).zip(vectors.as_chunks().0) {
        core.regs
            .set_v(regs::v(n), u128::from(*high) << 64 | u128::from(*low));
    }
    for (n, value) in (0..).zip(&sp) {
        core.regs.set(regs::sp_bank(n), *value);
    }
    let sel = pstate & 1 != 0;
    let current = sp.get(usize::from(if sel { el } else { 0 }));
    core.regs.set(regs::SP, current.copied().unwrap_or(0));
    crate::float::set_fpcr(core, fpcr);
    crate::float::set_fpsr(core, fpsr);
    if let [address, low, high] = monitor[..] {
        core.regs.set(regs::MONITOR, address);
        core.regs
            .set_v(regs::MONITOR_DATA, u128::from(high) << 64 | u128::from(low));
    }
    for (row, values) in core.arch.debug.iter_mut().zip(debug.as_chunks().0) {
        *row = *values;
    }
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
    arch.os_lock = os_lock;
    arch.powered_off = off;
    arch.halted = halted;
    // Guarded pages may be in use: found out anew only for pages not yet cached.
    arch.guarded = !is_32 && (bit(10) || bit(11));
    core.set_pc(pc);
    let offset = core.regs.get(super::registers::CNTVOFF_EL2);
    core.port.set_counter_offset(offset);
    exception::changed(core);
    super::debug::arm(core);
    super::pmu::restored(core, &pmu);
    core.mmu.flush_all();
    // Whatever is active is looked at.
    core.pending.raise(accel_core::reason::INTR);
    Ok(())
}
