//! Debug registers: breakpoints on code, data and ports (SDM vol. 3, 19.2 and 19.3).

use accel_core::{Access, Exit, Trap, Watch, reason};

use super::{exception, raise};
use crate::regs::rflags;
use crate::state::{cr4, vector};
use crate::{Core, decode};

/// DR6.BT: a task with the debug trap flag was switched to.
const DR6_BT: u64 = 1 << 15;
/// DR7.GD: touching debug registers is an exception.
pub(super) const DR7_GD: u64 = 1 << 13;
/// DR6.B0 to B3.
const DR6_HITS: u64 = 0xf;
/// DR7.L0 to L3 and LE, which a task switch clears.
const DR7_LOCAL: u64 = 0x155;

/// What a breakpoint is on (DR7.R/Wn).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum On {
    Code,
    Write,
    Port,
    Data,
}

/// An enabled breakpoint.
#[derive(Clone, Copy, Debug)]
struct Breakpoint {
    /// Its bit in DR6.
    bit: u64,
    on: On,
    first: u64,
    last: u64,
}

impl Breakpoint {
    fn touches(&self, first: u64, size: u64) -> bool {
        let last = first.saturating_add(size.saturating_sub(1));
        self.first <= last && first <= self.last
    }
}

/// The breakpoints that DR7 enables.
fn enabled(core: &Core) -> impl Iterator<Item = Breakpoint> {
    let (dr, dr7) = (core.arch.system.dr, core.arch.system.dr7);
    let has_ports = core.arch.cr4 & cr4::DE != 0;
    dr.into_iter().zip(0u32..).filter_map(move |(address, n)| {
        // R/Wn, then LENn above it.
        let control = dr7.wrapping_shr(n.wrapping_mul(4).wrapping_add(16));
        let on = match control & 3 {
            0 => On::Code,
            1 => On::Write,
            2 if has_ports => On::Port,
            2 => return None,
            _ => On::Data,
        };
        let len: u64 = match (on, control >> 2 & 3) {
            (On::Code, _) | (_, 0) => 1,
            (_, 1) => 2,
            (_, 2) => 8,
            _ => 4,
        };
        let first = address & !len.wrapping_sub(1);
        let is_enabled = dr7.wrapping_shr(n.wrapping_mul(2)) & 3 != 0;
        is_enabled.then_some(Breakpoint {
            bit: 1u64.wrapping_shl(n),
            on,
            first,
            last: first.saturating_add(len.wrapping_sub(1)),
        })
    })
}

/// Brings what the MMU watches in line with the debug registers and CR4.DE.
pub(crate) fn arm(core: &mut Core) {
    let watches = enabled(core)
        .filter(|breakpoint| breakpoint.on != On::Port)
        .map(|breakpoint| Watch {
            first: breakpoint.first,
            last: breakpoint.last,
            code: breakpoint.on == On::Code,
        })
        .collect();
    core.mmu.set_watches(watches);
}

/// A task switch leaves global breakpoints only.
pub(super) fn task_switched(core: &mut Core) {
    core.arch.system.dr7 &= !DR7_LOCAL;
    arm(core);
}

/// The task switched to wants a trap before its first instruction (19.3.1.5).
pub(super) fn task_traps(core: &mut Core) {
    core.arch.system.debug_hits |= DR6_BT;
    core.pending.raise(reason::DEBUG);
}

/// Notes breakpoints that trap after the instruction.
fn hit(core: &mut Core, is_hit: impl Fn(&Breakpoint) -> bool) {
    let hits = enabled(core)
        .filter(is_hit)
        .fold(0, |bits, breakpoint| bits | breakpoint.bit);
    if hits != 0 {
        core.arch.system.debug_hits |= hits;
        core.leave_after(reason::DEBUG);
    }
}

/// Memory that is watched was accessed.
pub(crate) fn watched(core: &mut Core, va: u64, size: u8, access: Access) {
    hit(core, |breakpoint| {
        let is_on = match breakpoint.on {
            On::Data => true,
            On::Write => access == Access::Write,
            On::Code | On::Port => false,
        };
        is_on && breakpoint.touches(va, size.into())
    });
}

/// A port was accessed.
pub(super) fn port(core: &mut Core, port: u16, size: u8) {
    if core.arch.cr4 & cr4::DE != 0 {
        hit(core, |breakpoint| {
            breakpoint.on == On::Port && breakpoint.touches(port.into(), size.into())
        });
    }
}

/// A debug exception comes: what was hit before it is in DR6.
pub(super) fn take_hits(core: &mut Core) {
    core.pending.clear(reason::DEBUG);
    let hits = std::mem::take(&mut core.arch.system.debug_hits);
    note(core, hits);
}

/// DR6.B0 to B3 say what the exception at hand is for; the other bits stay (19.2.3).
fn note(core: &mut Core, hits: u64) {
    let dr6 = &mut core.arch.system.dr6;
    *dr6 = *dr6 & !DR6_HITS | hits;
}

/// Delivers the trap after an instruction that hit breakpoints, unless that was one of those that hold
/// traps off until after the next.
pub(super) fn trap(core: &mut Core) -> Result<(), Exit> {
    if core.arch.shadow {
        return Ok(());
    }
    core.pending.clear(reason::DEBUG);
    if core.arch.system.debug_hits != 0 {
        take_hits(core);
        let _ = raise(core, vector::DB, None);
        exception::deliver(core)?;
    }
    Ok(())
}

/// Before an instruction near a breakpoint on code: raises its fault, unless RF holds it off.
pub(crate) fn before_step(core: &mut Core) -> Result<(), Trap> {
    if !core.mmu.is_watching() {
        return Ok(());
    }
    let pc = decode::linear_pc(core);
    let is_hit = |breakpoint: &Breakpoint| breakpoint.on == On::Code && breakpoint.first == pc;
    let hits = enabled(core)
        .filter(is_hit)
        .fold(0, |bits, breakpoint| bits | breakpoint.bit);
    if hits == 0 || core.arch.system.resume_at == Some(pc) {
        return Ok(());
    }
    note(core, hits);
    Err(raise(core, vector::DB, None))
}

/// The instruction that RF was for is done.
pub(super) fn after_step(core: &mut Core) {
    // A repeated instruction that goes on has RF set, too (19.3.1.1).
    if core.arch.system.resume_at.is_some()
        && core.arch.system.resume_at != Some(decode::linear_pc(core))
    {
        core.arch.system.resume_at = None;
    }
}

/// IRET has loaded these flags. RF holds off breakpoints on the instruction it returns to: where there are
/// none, it is of no consequence and not kept.
pub(super) fn resume(core: &mut Core, flags: u64) {
    let pc = decode::linear_pc(core);
    let is_on = |breakpoint: Breakpoint| breakpoint.on == On::Code && breakpoint.first == pc;
    let resumes = flags & rflags::RF != 0 && enabled(core).any(is_on);
    core.arch.system.resume_at = resumes.then_some(pc);
}

/// RF in its place among the flags.
pub(super) fn rf(core: &Core) -> u64 {
    match core.arch.system.resume_at {
        Some(at) if at == decode::linear_pc(core) => rflags::RF,
        _ => 0,
    }
}
