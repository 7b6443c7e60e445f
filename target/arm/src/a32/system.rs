//! Exceptions, hints, barriers, CP14 and CP15 from EL0 (DDI 0487, F5.1, G1.20, G7).

use accel_core::Trap;
use accel_ir::{Ty, Val};

use super::context::Ctx;
use crate::model::Feature;
use crate::system::exception::{self, class, esr};
use crate::system::{access, control, dcc};
use crate::{Core, helper, mode, regs};

mod table {
    include!(concat!(env!("OUT_DIR"), "/system.rs"));
}
use table::Insn;
pub(super) use table::{FORMS, decode};

type Args = [u64; 4];

/// (target): on there, in the same instruction set. Leaves.
pub(crate) fn go(core: &mut Core, [target, ..]: Args) -> Result<u64, Trap> {
    core.set_pc(target & 0xffff_ffff);
    Err(Trap::Leave)
}

/// (target): on there; bit 0 selects the instruction set. Leaves.
pub(crate) fn exchange(core: &mut Core, [target, ..]: Args) -> Result<u64, Trap> {
    core.arch.thumb = target & 1 != 0;
    core.set_pc(target & 0xffff_fffe);
    mode::refresh(core);
    Err(Trap::Leave)
}

/// ESR_ELx.IL: clear for instructions of 16 bits.
fn with_length(value: u64, len: u64) -> u64 {
    if len == 2 {
        value & !exception::IL
    } else {
        value
    }
}

/// (immediate, next, length): leaves.
pub(crate) fn svc_call(core: &mut Core, [imm, next, len, ..]: Args) -> Result<u64, Trap> {
    let to = exception::default_target(core);
    let esr = with_length(esr(class::SVC_32, imm), len);
    exception::raise_to(core, to, esr, None);
    core.set_pc(next);
    Err(Trap::After)
}

/// (immediate, length): leaves.
pub(crate) fn bkpt_call(core: &mut Core, [imm, len, ..]: Args) -> Result<u64, Trap> {
    let to = control::debug_target(core).max(core.arch.el);
    let esr = with_length(esr(class::BKPT_32, imm), len);
    Err(exception::raise_to(core, to, esr, None))
}

/// (big-endian, next): SETEND. Leaves.
pub(crate) fn setend_call(core: &mut Core, [big, next, ..]: Args) -> Result<u64, Trap> {
    core.arch.big_endian = big & 1 != 0;
    mode::refresh(core);
    core.set_pc(next);
    Err(Trap::Leave)
}

pub(super) fn svc(c: &mut Ctx, imm: u32) -> Option<()> {
    let (next, len, it) = (c.after(), c.len, c.it_next);
    let asks_host = imm == if c.thumb { 0xab } else { 0x12_3456 };
    // Of A32's 24 bits the syndrome has 16.
    let imm = u64::from(imm & 0xffff);
    if asks_host {
        c.leave_by(helper::SEMIHOST_SVC_32, &[imm, next, len, it.into()]);
    } else {
        c.settle_it();
        c.leave_by(helper::SVC_32, &[imm, next, len]);
    }
    Some(())
}

/// HLT: asks the host, or is UNDEFINED, as no debugger is attached that halts the CPU.
pub(super) fn hlt(c: &mut Ctx, imm: u32) -> Option<()> {
    let asks_host = imm == if c.thumb { 0x3c } else { 0xf000 };
    let (next, it) = (c.after(), c.it_next);
    asks_host.then(|| c.leave_by(helper::SEMIHOST_32, &[next, it.into()]))
}

pub(super) fn bkpt(c: &mut Ctx, imm: u32) -> Option<()> {
    let len = c.len;
    c.leave_by(helper::BKPT_32, &[imm.into(), len]);
    Some(())
}

/// SETEND: UNDEFINED where SCTLR_ELx.SED says so.
pub(super) fn setend(c: &mut Ctx, big: u32) -> Option<()> {
    if c.mode.setend_is_disabled() || c.in_it_block() {
        return None;
    }
    let next = c.after();
    c.leave_by(helper::SETEND, &[big.into(), next]);
    Some(())
}

/// SETPAN: at EL0 a NOP.
pub(super) fn setpan(c: &mut Ctx) -> Option<()> {
    c.has(Feature::Pan).then_some(())
}

pub(super) fn clrex(c: &mut Ctx) -> Option<()> {
    c.set_const(regs::MONITOR, u64::MAX);
    Some(())
}

/// DSB (4), DMB (5), ISB (6), SB (7).
pub(super) fn barrier(c: &mut Ctx, op: u32) -> Option<()> {
    match op {
        4 => {
            c.b.fence();
            c.b.call_void(helper::DSB, &[]);
        }
        5 => c.b.fence(),
        6 => {}
        _ => return c.has(Feature::Sb).then_some(()),
    }
    Some(())
}

/// Hints. In an IT block the ones that wait do not.
pub(super) fn hint(c: &mut Ctx, number: u32) -> Option<()> {
    let next = c.after();
    let alone = c.it == c.it_next && c.it == 0;
    match number {
        1 if alone => c.leave_by(helper::YIELD, &[next]),
        2 if alone => c.leave_by(helper::WFE, &[next]),
        3 if alone => c.leave_by(helper::WFI, &[next]),
        4 | 5 => {
            let local = c.imm(Ty::I64, u64::from(number == 5));
            c.b.call_void(helper::SEND_EVENT, &[local]);
        }
        _ => {}
    }
    Some(())
}

/// MCR, MRC, MCRR, MRRC of CP14 and CP15.
pub(super) fn translate(c: &mut Ctx, word: u32) -> Option<()> {
    match decode(word)? {
        Insn::Mcr {
            op1,
            l,
            crn,
            rt,
            cp15,
            op2,
            crm,
            ..
        } => register(c, word, (cp15, l), (op1, crn, crm, op2), rt),
        Insn::Mcrr {
            l,
            rt2,
            rt,
            cp15,
            op1,
            crm,
            ..
        } => wide(c, word, (cp15, l), (op1, crm), (rt, rt2)),
    }
}

/// An A64 MRS or MSR of a register of EL0 by the numbers that both states share.
fn a64_word(crn: u32, crm: u32, op2: u32, read: bool) -> u64 {
    let base: u64 = if read { 0xd53b_0000 } else { 0xd51b_0000 };
    base | u64::from(crn << 12 | crm << 8 | op2 << 5)
}

/// What a register of CP14 is to EL0.
#[derive(Clone, Copy)]
enum DebugValue {
    /// DBGDIDR.
    Identification,
    /// DBGDRAR, DBGDSAR: none is known.
    RomAddress,
    /// DBGDSCRint, DBGDTRRXint, DBGDTRTXint: empty.
    Channel,
}

/// An access to CP14, or the trap of it.
fn debug_value(c: &mut Ctx, word: u32, what: DebugValue) -> Val {
    let own = c.imm(Ty::I64, word.into());
    let what = c.imm(Ty::I64, what as u64);
    c.call(helper::DEBUG_32, &[own, what])
}

/// (instruction, what): its value.
pub(crate) fn debug_call(core: &mut Core, [word, what, ..]: Args) -> Result<u64, Trap> {
    let is_address = what == DebugValue::RomAddress as u64;
    let bit = match is_address {
        true => control::mdcr::TDRA,
        false => control::mdcr::TDA,
    };
    if let Some(to) = dcc::trapped_to(core, bit) {
        return Err(exception::raise_to(core, to, syndrome(word), None));
    }
    let identifies = what == DebugValue::Identification as u64;
    Ok(if identifies { dcc::dbgdidr(core) } else { 0 })
}

/// The registers of CP14 that EL0 may reach (G8.3).
fn debug_register(
    c: &mut Ctx,
    word: u32,
    read: bool,
    (op1, crn, crm, op2): (u32, u32, u32, u32),
    rt: u32,
) -> Option<()> {
    let what = match (op1, crn, crm, op2, read) {
        (0, 0, 0, 0, true) => DebugValue::Identification,
        (0, 1 | 2, 0, 0, true) => DebugValue::RomAddress,
        (0, 0, 1, 0, true) | (0, 0, 5, 0, _) => DebugValue::Channel,
        _ => return None,
    };
    let is_status = crm == 1;
    if !is_status {
        super::bits::no_pc(&[rt])?;
    }
    let v = debug_value(c, word, what);
    match (read, rt) {
        // DBGDSCRint's upper bits into the flags.
        (true, 15) => super::alu::write_nzcv(c, v),
        (true, _) => c.set_r(rt, v),
        (false, _) => {}
    }
    Some(())
}

fn register(
    c: &mut Ctx,
    word: u32,
    (cp15, read): (u32, u32),
    (op1, crn, crm, op2): (u32, u32, u32, u32),
    rt: u32,
) -> Option<()> {
    let read = read != 0;
    if cp15 == 0 {
        return debug_register(c, word, read, (op1, crn, crm, op2), rt);
    }
    match (op1, crn, crm, op2, read) {
        // CP15ISB, CP15DSB, CP15DMB.
        (0, 7, 5, 4, false) | (0, 7, 10, 4 | 5, false) => {
            if !c.mode.has_cp15_barriers() {
                return None;
            }
            barrier(
                c,
                match (crm, op2) {
                    (5, _) => 6,
                    (_, 4) => 4,
                    _ => 5,
                },
            )
        }
        // TPIDRURW, TPIDRURO.
        (0, 13, 0, 2, _) | (0, 13, 0, 3, true) => {
            let slot = match op2 {
                2 => crate::system::registers::TPIDR_EL0,
                _ => crate::system::registers::TPIDRRO_EL0,
            };
            super::bits::no_pc(&[rt])?;
            if read {
                let v = c.b.get_low(slot, Ty::I32);
                c.set_r(rt, v);
            } else {
                let v = c.r(rt);
                c.b.set(slot, v);
            }
            Some(())
        }
        // The performance monitors, CNTFRQ, timers.
        (0, 9, 12..=14, _, _)
        | (0, 14, 0, 0, true)
        | (0, 14, 2 | 3, 0 | 1, _)
        | (0, 14, 8..=15, _, _) => {
            super::bits::no_pc(&[rt])?;
            let v = (!read).then(|| c.r(rt));
            let v = system_access(c, word, a64_word(crn, crm, op2, read), v)?;
            if read {
                c.set_r(rt, v);
            }
            Some(())
        }
        _ => None,
    }
}

/// Reads, or writes a value, by way of the A64 register.
fn system_access(c: &mut Ctx, word: u32, a64: u64, v: Option<Val>) -> Option<Val> {
    let how = c.imm(Ty::I64, a64);
    let own = c.imm(Ty::I64, word.into());
    let next = c.after() | u64::from(c.it) << 32;
    let next = c.imm(Ty::I64, next);
    Some(match v {
        None => c.call(helper::READ_32, &[how, own]),
        Some(v) => {
            // The helper may leave after the instruction.
            c.settle_it();
            let v = c.b.zext(v, Ty::I64);
            c.call(helper::WRITE_32, &[how, own, v, next])
        }
    })
}

fn wide(
    c: &mut Ctx,
    word: u32,
    (cp15, read): (u32, u32),
    (op1, crm): (u32, u32),
    (rt, rt2): (u32, u32),
) -> Option<()> {
    super::bits::no_pc(&[rt, rt2])?;
    let read = read != 0;
    if cp15 == 0 {
        // DBGDRAR, DBGDSAR.
        if !(read && op1 == 0 && matches!(crm, 1 | 2)) || rt == rt2 {
            return None;
        }
        let v = debug_value(c, word, DebugValue::RomAddress);
        c.set_r(rt, v);
        c.set_r(rt2, v);
        return Some(());
    }
    // CNTPCT, CNTVCT, CNTP_CVAL, CNTV_CVAL, PMCCNTR.
    let (crn, crm, op2) = match (crm, op1, read) {
        (14, 0, true) => (14, 0, 1),
        (14, 1, true) => (14, 0, 2),
        (14, 2, _) => (14, 2, 2),
        (14, 3, _) => (14, 3, 2),
        (9, 0, _) => (9, 13, 0),
        _ => return None,
    };
    let value = if read {
        if rt == rt2 {
            return None;
        }
        None
    } else {
        let low = c.r(rt);
        let low = c.b.zext(low, Ty::I64);
        let high = c.r(rt2);
        let high = c.b.zext(high, Ty::I64);
        Some(c.b.insert(low, high, 32, 32))
    };
    let v = system_access(c, word, a64_word(crn, crm, op2, read), value)?;
    if read {
        let low = c.b.zext(v, Ty::I32);
        let high = c.b.extract(v, 32, 32, Ty::I32);
        c.set_r(rt, low);
        c.set_r(rt2, high);
    }
    Some(())
}

/// Syndrome of a trapped MCR, MRC, MCRR or MRRC.
fn syndrome(word: u64) -> u64 {
    let field = |shift: u32, mask: u64| word.wrapping_shr(shift) & mask;
    let always = 1 << 24 | 0xe << 20;
    let read = field(20, 1);
    let (narrow, wide) = match field(8, 1) {
        0 => (class::CP14, class::CP14_WIDE),
        _ => (class::CP15, class::CP15_WIDE),
    };
    if field(24, 15) == 0b1110 {
        let iss = field(5, 7) << 17 | field(21, 7) << 14 | field(16, 15) << 10;
        return esr(
            narrow,
            always | iss | field(12, 15) << 5 | field(0, 15) << 1 | read,
        );
    }
    let iss = field(4, 15) << 16 | field(16, 15) << 10 | field(12, 15) << 5;
    esr(wide, always | iss | field(0, 15) << 1 | read)
}

/// A trap of the A64 register becomes that of the instruction at hand.
fn own_syndrome(core: &mut Core, word: u64) {
    if let Some(exception) = &mut core.arch.exception
        && exception.esr >> 26 == class::SYSTEM
    {
        exception.esr = syndrome(word);
    }
}

/// (A64 instruction, own instruction): the value.
pub(crate) fn read_call(core: &mut Core, [a64, word, ..]: Args) -> Result<u64, Trap> {
    access::mrs(core, [a64, 0, 0, 0]).inspect_err(|_| own_syndrome(core, word))
}

/// (A64 instruction, own instruction, value, next | PSTATE.IT << 32): may leave.
pub(crate) fn write_call(core: &mut Core, [a64, word, value, next]: Args) -> Result<u64, Trap> {
    let result = access::msr(core, [a64, value, next & 0xffff_ffff, 0]);
    if result == Err(Trap::Exception) {
        core.regs.set(regs::IT, next >> 32);
        own_syndrome(core, word);
    }
    result
}
