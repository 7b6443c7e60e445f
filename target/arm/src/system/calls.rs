//! Helpers of system instructions: exceptions, hints, barriers, cache lines, atomics that the IR has not.

use accel_core::{Access, Exit, Physical, Trap};

use super::control::{self, hcr, scr, sctlr_bits};
use super::exception::{self, class, esr, raise, raise_to};
use super::pauth;
use crate::model::Feature;
use crate::port::{Answer, Conduit};
use crate::{Core, regs};

type Args = [u64; 4];

/// (): an UNDEFINED instruction. Leaves.
pub(crate) fn undefined(core: &mut Core, _: Args) -> Result<u64, Trap> {
    Err(exception::undefined(core))
}

/// The trap of floating point from here.
pub(crate) fn fp_trap_of(core: &mut Core) -> Trap {
    let to = control::fp_trap(core).unwrap_or(1);
    // COND is AL, CV set: A64.
    let iss = 1 << 24 | 0xe << 20;
    let class = if to == 2 && !super::is_host(core) {
        return raise_to(core, to, esr(class::FP, 0), None);
    } else {
        class::FP
    };
    raise_to(core, to, esr(class, iss), None)
}

/// (): floating point is off. Leaves.
pub(crate) fn fp_trap(core: &mut Core, _: Args) -> Result<u64, Trap> {
    Err(fp_trap_of(core))
}

/// (): PSTATE.IL is set. Leaves.
pub(crate) fn illegal_state(core: &mut Core, _: Args) -> Result<u64, Trap> {
    Err(raise(core, class::ILLEGAL, 0, None))
}

/// (): the PC is no multiple of four. Leaves.
pub(crate) fn pc_alignment(core: &mut Core, _: Args) -> Result<u64, Trap> {
    let pc = core.pc();
    Err(raise(core, class::PC_ALIGNMENT, 0, Some(pc)))
}

/// (): the stack pointer that an access goes by is no multiple of 16. Leaves.
pub(crate) fn sp_alignment(core: &mut Core, _: Args) -> Result<u64, Trap> {
    Err(raise(core, class::SP_ALIGNMENT, 0, None))
}

/// (next): the stack pointer may have come to be aligned, or not. Leaves if so.
pub(crate) fn sp_moved(core: &mut Core, [next, ..]: Args) -> Result<u64, Trap> {
    if crate::mode::refresh(core) {
        core.set_pc(next);
        return Err(Trap::Leave);
    }
    Ok(0)
}

/// (): a guarded page was branched to at no landing pad. Leaves.
pub(crate) fn branch_target(core: &mut Core, _: Args) -> Result<u64, Trap> {
    let btype = core.regs.get(regs::BTYPE) & 3;
    Err(raise(core, class::BTI, btype, None))
}

/// (): the first instruction of a unit has been let through.
pub(crate) fn clear_btype(core: &mut Core, _: Args) -> Result<u64, Trap> {
    core.regs.set(regs::BTYPE, 0);
    Ok(0)
}

/// An exception after a complete instruction.
fn after(core: &mut Core, next: u64) -> Trap {
    core.set_pc(next);
    Trap::After
}

/// (immediate, next): leaves.
pub(crate) fn svc(core: &mut Core, [imm, next, ..]: Args) -> Result<u64, Trap> {
    raise(core, class::SVC, imm, None);
    Err(after(core, next))
}

/// (immediate): leaves.
pub(crate) fn brk(core: &mut Core, [imm, ..]: Args) -> Result<u64, Trap> {
    let to = control::debug_target(core).max(core.arch.el);
    Err(raise_to(core, to, esr(class::BRK, imm), None))
}

/// Firmware's answer to a call, if the board serves it.
fn firmware(core: &mut Core, conduit: Conduit, next: u64) -> Option<Trap> {
    let mut x = [0; 8];
    for (n, value) in (0..).zip(&mut x) {
        *value = core.regs.get(regs::x(n));
    }
    match core.port.call(conduit, x) {
        Answer::NotServed => return None,
        Answer::Return(values) => {
            for (n, value) in (0..).zip(values) {
                core.regs.set(regs::x(n), value);
            }
        }
        Answer::Off => {
            core.arch.powered_off = true;
            core.set_pc(next);
            return Some(Trap::Exit(Exit::Halted));
        }
        Answer::Suspend => {
            core.regs.set(regs::x(0), 0);
            return Some(halt(core, next));
        }
    }
    core.set_pc(next);
    Some(Trap::Leave)
}

/// (immediate, next): leaves.
pub(crate) fn hvc(core: &mut Core, [imm, next, ..]: Args) -> Result<u64, Trap> {
    let el = core.arch.el;
    if el == 0 {
        return Err(exception::undefined(core));
    }
    if let Some(trap) = firmware(core, Conduit::Hvc, next) {
        return Err(trap);
    }
    let model = core.arch.model.clone();
    let disabled = match model.has(Feature::El3) {
        true => core.regs.get(super::registers::SCR_EL3) & scr::HCE == 0,
        false => core.regs.get(super::registers::HCR_EL2) & hcr::HCD != 0,
    };
    let there = model.has(Feature::El2) && (control::el2_enabled(core) || el == 3);
    if !there || disabled {
        return Err(exception::undefined(core));
    }
    raise_to(core, el.max(2), esr(class::HVC, imm), None);
    Err(after(core, next))
}

/// (immediate, next): leaves.
pub(crate) fn smc(core: &mut Core, [imm, next, ..]: Args) -> Result<u64, Trap> {
    let el = core.arch.el;
    if el == 0 {
        return Err(exception::undefined(core));
    }
    if el == 1 && control::hcr_in_effect(core) & hcr::TSC != 0 {
        return Err(raise_to(core, 2, esr(class::SMC, imm), None));
    }
    if let Some(trap) = firmware(core, Conduit::Smc, next) {
        return Err(trap);
    }
    let there = core.arch.model.has(Feature::El3);
    if !there || core.regs.get(super::registers::SCR_EL3) & scr::SMD != 0 {
        return Err(exception::undefined(core));
    }
    raise_to(core, 3, esr(class::SMC, imm), None);
    Err(after(core, next))
}

/// (authenticates, key B): ERET. Leaves.
pub(crate) fn eret(core: &mut Core, [authenticates, key, ..]: Args) -> Result<u64, Trap> {
    let mut target = exception::return_address(core);
    if authenticates != 0 {
        if control::traps_pauth(core) {
            pauth::trap(core, [key & 1, 0, 0, 0])?;
        }
        let sp = core.regs.get(regs::SP);
        target = pauth::process(core, target, sp, key & 1 | 4);
    }
    Err(exception::exception_return(core, target))
}

fn halt(core: &mut Core, next: u64) -> Trap {
    core.set_pc(next);
    core.arch.halted = true;
    Trap::Exit(Exit::Halted)
}

/// Traps of WFI and WFE.
fn check_wait(core: &mut Core, wfe: bool) -> Result<(), Trap> {
    let iss = 1 << 24 | 0xe << 20 | u64::from(wfe);
    let (own, hypervisor, monitor) = match wfe {
        true => (sctlr_bits::NTWE, hcr::TWE, scr::TWE),
        false => (sctlr_bits::NTWI, hcr::TWI, scr::TWI),
    };
    if core.arch.el == 0 && control::sctlr(core) & own == 0 {
        return Err(raise(core, class::WFX, iss, None));
    }
    if core.arch.el < 2 && control::hcr_in_effect(core) & hypervisor != 0 {
        return Err(raise_to(core, 2, esr(class::WFX, iss), None));
    }
    if core.arch.el < 3 && control::scr_in_effect(core) & monitor != 0 {
        return Err(raise_to(core, 3, esr(class::WFX, iss), None));
    }
    Ok(())
}

/// (next): leaves.
pub(crate) fn wfi(core: &mut Core, [next, ..]: Args) -> Result<u64, Trap> {
    check_wait(core, false)?;
    Err(halt(core, next))
}

/// (next): gives up the slice unless an event is there. Leaves.
pub(crate) fn wfe(core: &mut Core, [next, ..]: Args) -> Result<u64, Trap> {
    if core.arch.peer.take_event() {
        core.set_pc(next);
        return Err(Trap::Leave);
    }
    check_wait(core, true)?;
    core.set_pc(next);
    Err(Trap::Exit(Exit::Yield))
}

/// (next): leaves.
pub(crate) fn yield_now(core: &mut Core, [next, ..]: Args) -> Result<u64, Trap> {
    core.set_pc(next);
    Err(Trap::Exit(Exit::Yield))
}

/// (local): SEV, SEVL.
pub(crate) fn send_event(core: &mut Core, [local, ..]: Args) -> Result<u64, Trap> {
    let peer = core.arch.peer.clone();
    if local != 0 {
        peer.set_event();
    } else {
        core.arch.setup.peers.send_event(&peer);
    }
    Ok(0)
}

/// (): DSB: done when all other CPUs have carried out what this one broadcast. Until then it is
/// executed again.
pub(crate) fn dsb(core: &mut Core, _: Args) -> Result<u64, Trap> {
    if !core.arch.unsettled {
        return Ok(0);
    }
    let peer = core.arch.peer.clone();
    if core.arch.setup.peers.is_settled(&peer) {
        core.arch.unsettled = false;
        return Ok(0);
    }
    // An exception that is none: the PC goes back to the DSB, and `deliver` only yields.
    core.arch.again = true;
    Err(Trap::Exception)
}

/// (address, context): cache maintenance by address: faults as a load does.
pub(crate) fn cache_line(core: &mut Core, [address, ctx, ..]: Args) -> Result<u64, Trap> {
    let (access, ctx) = (Access::Read, ctx as u8);
    if core.mmu.look_up(ctx, address, access) != Physical::Miss {
        return Ok(0);
    }
    let result = core.translate_for(address, access, ctx);
    if let (Err(Trap::Exception), Some(exception)) = (&result, &mut core.arch.exception) {
        // CM and WnR.
        exception.esr |= 1 << 8 | 1 << 6;
    }
    result.map(|_| 0)
}

/// (flags in x86's places, to external): XAFLAG and AXFLAG (C6.2).
pub(crate) fn convert_flags(_: &mut Core, [flags, to_external, ..]: Args) -> Result<u64, Trap> {
    let nzcv = crate::mode::from_x86(flags);
    let bit = |n: u32| nzcv.wrapping_shr(n) & 1;
    let (z, c, v) = (bit(30), bit(29), bit(28));
    let (n, z, c, v) = if to_external != 0 {
        (0, z | v, c & (v ^ 1), 0)
    } else {
        ((c ^ 1) & (z ^ 1), z & c, c | z, (c ^ 1) & z)
    };
    Ok(crate::mode::to_x86(n << 31 | z << 30 | c << 29 | v << 28))
}

/// (sum, value, log2 of the bytes | Castagnoli << 2): CRC32, CRC32C (reflected).
pub(crate) fn crc32(_: &mut Core, [sum, value, how, ..]: Args) -> Result<u64, Trap> {
    let polynomial: u32 = if how & 4 != 0 {
        0x82f6_3b78
    } else {
        0xedb8_8320
    };
    let mut sum = sum as u32;
    for n in 0..1u32.wrapping_shl(how as u32 & 3) {
        sum ^= (value.wrapping_shr(n.wrapping_mul(8)) & 0xff) as u32;
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 != 0 { polynomial } else { 0 };
        }
    }
    Ok(sum.into())
}

fn join(high: u64, low: u64, bits: u64) -> u128 {
    let mask = u64::MAX.wrapping_shr(64u32.wrapping_sub(bits as u32));
    u128::from(high & mask).wrapping_shl(bits as u32) | u128::from(low & mask)
}

/// (high, low, divisor, bits): the quotient, which exists.
pub(crate) fn divide(_: &mut Core, [high, low, divisor, bits]: Args) -> Result<u64, Trap> {
    let quotient = join(high, low, bits).checked_div(divisor.into());
    Ok(quotient.unwrap_or(0) as u64)
}

/// As `divide`, signed.
pub(crate) fn divide_signed(_: &mut Core, [_, low, divisor, bits]: Args) -> Result<u64, Trap> {
    let up = 64u32.wrapping_sub(bits as u32);
    let signed = |v: u64| v.wrapping_shl(up).cast_signed().wrapping_shr(up);
    let quotient = signed(low).checked_div(signed(divisor));
    Ok(quotient.unwrap_or(0) as u64)
}

fn alignment(core: &mut Core, address: u64, access: accel_core::Access) -> Trap {
    use accel_core::Target;
    crate::Arm::alignment_fault(core, address, access)
}

/// (address, context): LDXP of 16 bytes, into the monitor's data.
pub(crate) fn load_pair_exclusive(core: &mut Core, [address, ctx, ..]: Args) -> Result<u64, Trap> {
    if address & 15 != 0 {
        return Err(alignment(core, address, accel_core::Access::Read));
    }
    let value = core.load_v(address, ctx as u8)?;
    core.regs.set_v(regs::MONITOR_DATA, value);
    core.regs.set(regs::MONITOR, address);
    Ok(0)
}

/// (address, low, high, context): STXP of 16 bytes: the status.
pub(crate) fn store_pair_exclusive(
    core: &mut Core,
    [address, low, high, ctx]: Args,
) -> Result<u64, Trap> {
    if address & 15 != 0 {
        return Err(alignment(core, address, accel_core::Access::Write));
    }
    if core.regs.get(regs::MONITOR) != address {
        core.regs.set(regs::MONITOR, u64::MAX);
        return Ok(1);
    }
    let expected = core.regs.get_v(regs::MONITOR_DATA);
    let new = u128::from(high) << 64 | u128::from(low);
    let old = core.update_v(address, ctx as u8, |old| (old == expected).then_some(new))?;
    core.regs.set(regs::MONITOR, u64::MAX);
    Ok(u64::from(old != expected))
}

/// (address, Rs | Rt << 8 | context << 16): CASP of 16 bytes.
pub(crate) fn cas_pair(core: &mut Core, [address, how, ..]: Args) -> Result<u64, Trap> {
    if address & 15 != 0 {
        return Err(alignment(core, address, accel_core::Access::Write));
    }
    let (rs, rt) = (how as u32 & 0x1e, (how >> 8) as u32 & 0x1e);
    let x = |n: u32| match n {
        31 => 0,
        n => core.regs.get(regs::x(n)),
    };
    let pair = |n: u32| u128::from(x(n | 1)) << 64 | u128::from(x(n));
    let (expected, new) = (pair(rs), pair(rt));
    let ctx = (how >> 16) as u8;
    let old = core.update_v(address, ctx, |old| (old == expected).then_some(new))?;
    core.regs.set(regs::x(rs), old as u64);
    if rs | 1 != 31 {
        core.regs.set(regs::x(rs | 1), (old >> 64) as u64);
    }
    Ok(0)
}

/// (address, value, operation | bytes << 8 | context << 16 | aligned << 24): LDSMAX (0), LDSMIN (1),
/// LDUMAX (2), LDUMIN (3): the value before.
pub(crate) fn atomic_min_max(
    core: &mut Core,
    [address, value, how, ..]: Args,
) -> Result<u64, Trap> {
    let bytes = (how >> 8) as u8;
    if how >> 24 & 1 != 0 && !address.is_multiple_of(u64::from(bytes.max(1))) {
        return Err(alignment(core, address, accel_core::Access::Write));
    }
    let ty = accel_ir::Ty::of_bytes(bytes.into());
    core.update(address, bytes, (how >> 16) as u8, |old| {
        let (a, b) = (ty.sext(old), ty.sext(value));
        let take_new = match how & 3 {
            0 => b > a,
            1 => b < a,
            2 => value > old,
            _ => value < old,
        };
        Some(if take_new { value } else { old })
    })
}

/// Software step: the instruction is done, the step exception is due (D2.12.5).
pub(crate) fn step_exception(core: &mut Core) -> Result<(), Exit> {
    note_step(core);
    exception::deliver(core)
}

/// Notes the step exception.
pub(crate) fn note_step(core: &mut Core) {
    let to = control::debug_target(core).max(core.arch.el);
    let class = if to > core.arch.el {
        class::STEP_LOWER
    } else {
        class::STEP_SAME
    };
    // ISV, and the debug code.
    raise_to(core, to, esr(class, 1 << 24 | 0x22), None);
}
