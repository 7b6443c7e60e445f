//! Self-hosted debug: breakpoints and watchpoints (DDI 0487, D2.8 and D2.9).
//!
//! Not modelled: vector catch, breakpoints in AArch32 that match half of a word.

use accel_core::{Access, Trap, Watch};

use super::control;
use super::exception::{class, esr, raise_to};
use super::registers as sys;
use crate::mode::Mode;
use crate::model::Feature;
use crate::{Core, regs};

/// Registers by the op2 of their encoding.
pub(crate) const BVR: u16 = 4;
pub(crate) const BCR: u16 = 5;
pub(crate) const WVR: u16 = 6;
pub(crate) const WCR: u16 = 7;

/// MDSCR_EL1.MDE: breakpoints and watchpoints are on.
const MDE: u64 = 1 << 15;
/// DBGBCR, DBGWCR: enabled.
const E: u64 = 1;
/// The bits that there are of DBGBCR: E, PMC, BAS, HMC, SSC, LBN, BT.
const BCR_MASK: u64 = 0x00ff_e1e7;
/// And of DBGWCR: E, PAC, LSC, BAS, HMC, SSC, LBN, WT, MASK.
const WCR_MASK: u64 = 0x1f1f_ffff;
/// Kinds of breakpoints (DBGBCR.BT), without the lowest bit: the breakpoint is linked, or linked to.
mod kind {
    pub(super) const ADDRESS: u64 = 0;
    pub(super) const CONTEXT: u64 = 2;
    pub(super) const CONTEXT_EL1: u64 = 6;
    pub(super) const VMID: u64 = 8;
    pub(super) const VMID_CONTEXT: u64 = 10;
    pub(super) const CONTEXT_EL2: u64 = 12;
    pub(super) const BOTH_CONTEXTS: u64 = 14;
}
/// Fault status code of a debug exception.
const DEBUG_STATUS: u64 = 0x22;

/// How many breakpoints (DBGBVR and DBGBCR) or watchpoints there are, by op2.
fn count(core: &Core, op2: u16) -> u64 {
    let at = if op2 < WVR { 12u32 } else { 20 };
    (core.arch.model.id.dfr0.wrapping_shr(at) & 15).wrapping_add(1)
}

/// Whether there is such a register.
pub(super) fn exists(core: &Core, n: u16, op2: u16) -> bool {
    u64::from(n) < count(core, op2)
}

/// Sets one that exists.
pub(super) fn set(core: &mut Core, n: u16, op2: u16, value: u64) {
    let value = match op2 {
        BCR => value & BCR_MASK,
        WCR => value & WCR_MASK,
        WVR => value & !3,
        _ => value,
    };
    core.arch.set_debug_register(n, op2, value);
    arm(core);
}

/// A breakpoint or watchpoint: its control, and the bytes it is on.
#[derive(Clone, Copy, Debug)]
struct Point {
    control: u64,
    first: u64,
    last: u64,
}

impl Point {
    fn overlaps(&self, first: u64, size: u64) -> bool {
        let last = first.saturating_add(size.saturating_sub(1));
        self.first <= last && first <= self.last
    }
}

/// An address in a register: bits above the virtual address repeat its sign.
fn address(value: u64) -> u64 {
    (value << 8).cast_signed().wrapping_shr(8).cast_unsigned() & !3
}

fn breakpoints(core: &Core) -> impl Iterator<Item = Point> {
    (0..16).filter_map(move |n| {
        let control = core.arch.debug_register(n, BCR);
        let first = address(core.arch.debug_register(n, BVR));
        let is_address = control >> 20 & 14 == kind::ADDRESS;
        (control & E != 0 && is_address).then_some(Point {
            control,
            first,
            last: first.saturating_add(3),
        })
    })
}

/// Breakpoints on a context alone that are enabled.
fn context_breakpoints(core: &Core) -> impl Iterator<Item = u16> {
    let all = count(core, BCR);
    (0..16).filter(move |n| {
        let control = core.arch.debug_register(*n, BCR);
        let kind = control >> 20 & 15;
        let is_context = kind & 1 == 0 && kind != kind::ADDRESS;
        u64::from(*n) < all && control & E != 0 && is_context
    })
}

fn watchpoints(core: &Core) -> impl Iterator<Item = Point> {
    (0..16).filter_map(move |n| {
        let control = core.arch.debug_register(n, WCR);
        let base = address(core.arch.debug_register(n, WVR));
        let bytes = (control >> 5 & 0xff) as u8;
        if control & E == 0 || bytes == 0 {
            return None;
        }
        let mask = (control >> 24 & 31) as u32;
        let (first, last) = if mask >= 3 {
            let len = 1u64.wrapping_shl(mask);
            let first = base & !len.wrapping_sub(1);
            (first, first.saturating_add(len.wrapping_sub(1)))
        } else {
            // The bytes selected are one run; of an address of half a double word, four count.
            let bytes = if base & 4 != 0 { bytes & 15 } else { bytes };
            let (low, high) = (bytes.trailing_zeros(), bytes.checked_ilog2()?);
            (
                base.saturating_add(low.into()),
                base.saturating_add(high.into()),
            )
        };
        Some(Point {
            control,
            first,
            last,
        })
    })
}

/// Brings what the MMU watches in line with the registers.
pub(crate) fn arm(core: &mut Core) {
    let mut watches = Vec::new();
    if core.regs.get(sys::MDSCR_EL1) & MDE != 0 && !core.arch.os_lock {
        let watch = |point: Point, code: bool| Watch {
            first: point.first,
            last: point.last,
            code,
        };
        watches.extend(breakpoints(core).map(|point| watch(point, true)));
        watches.extend(watchpoints(core).map(|point| watch(point, false)));
        if context_breakpoints(core).next().is_some() {
            watches.push(Watch {
                first: 0,
                last: u64::MAX,
                code: true,
            });
        }
    }
    core.mmu.set_watches(watches);
}

/// Whether debug exceptions other than BRK are taken from here (D2.4).
fn is_enabled(core: &Core) -> bool {
    core.regs.get(sys::MDSCR_EL1) & MDE != 0 && !core.arch.os_lock && control::debugs_here(core)
}

/// Whether a point is for this exception level (D2.8.3, D2.9.3), and its context is the one at hand.
fn applies(core: &Core, point: &Point) -> bool {
    let linked = point.control >> 20 & 1 != 0;
    let to = (point.control >> 16 & 15) as u16;
    is_for_level(core, point.control) && (!linked || is_linked_to(core, to))
}

fn is_for_level(core: &Core, control: u64) -> bool {
    let bit = |n: u32| control.wrapping_shr(n) & 1 != 0;
    let level = match core.arch.el {
        0 => bit(2),
        1 => bit(1),
        _ => bit(13),
    };
    // SSC: 1 is Non-secure only, 2 Secure only.
    let is_elsewhere = match control >> 14 & 3 {
        1 => control::is_secure(core),
        2 => !control::is_secure(core),
        _ => false,
    };
    level && !is_elsewhere
}

/// Whether the breakpoint that another point is linked to matches the context.
fn is_linked_to(core: &Core, n: u16) -> bool {
    let control = core.arch.debug_register(n, BCR);
    control & E != 0 && control >> 20 & 1 != 0 && has_context(core, n)
}

/// Whether the context at hand is the one that a breakpoint is on (`AArch64.StateMatch...`, D2.8.2).
fn has_context(core: &Core, n: u16) -> bool {
    let all = count(core, BCR);
    let aware = (core.arch.model.id.dfr0 >> 28 & 15).wrapping_add(1);
    let n64 = u64::from(n);
    if n64 >= all || n64 < all.saturating_sub(aware) {
        return false;
    }
    let value = core.arch.debug_register(n, BVR);
    let el = core.arch.el;
    let host = el == 2 && super::is_host(core) || control::is_host_user(core);
    let is_guest = el < 2 && !host;
    let get = |slot| core.regs.get(slot);
    let el1 = || is_guest && get(sys::CONTEXTIDR_EL1) as u32 == value as u32;
    let vmid = || {
        let bits = control::vmid_bits(core);
        let mask = 0xffffu64.wrapping_shr(16u32.wrapping_sub(bits));
        is_guest
            && control::el2_enabled(core)
            && (get(sys::VTTBR_EL2) >> 48 ^ value >> 32) & mask == 0
    };
    let el2 = |wanted: u64| {
        let there = el == 2 || el < 2 && control::el2_enabled(core);
        there && get(sys::CONTEXTIDR_EL2) as u32 == wanted as u32
    };
    let model = &core.arch.model;
    let has_vmid = model.has(Feature::El2);
    let has_both = has_vmid && model.has(Feature::Vhe);
    match core.arch.debug_register(n, BCR) >> 20 & 14 {
        kind::CONTEXT if host => el2(value),
        kind::CONTEXT => el1(),
        kind::CONTEXT_EL1 => has_both && el1(),
        kind::VMID => has_vmid && vmid(),
        kind::VMID_CONTEXT => has_vmid && vmid() && el1(),
        kind::CONTEXT_EL2 => has_both && el2(value >> 32),
        kind::BOTH_CONTEXTS => has_both && el1() && el2(value >> 32),
        _ => false,
    }
}

/// The class for the level at hand, and where the exception goes.
fn raise(core: &mut Core, lower: u64, iss: u64, far: Option<u64>) -> Trap {
    let to = control::debug_target(core).max(core.arch.el);
    let class = if to > core.arch.el {
        lower
    } else {
        // The one from the same level is the next.
        lower | 1
    };
    raise_to(core, to, esr(class, iss), far)
}

/// Before an instruction near a breakpoint.
pub(crate) fn before_step(core: &mut Core) -> Result<(), Trap> {
    if !core.mmu.is_watching() || !is_enabled(core) {
        return Ok(());
    }
    // A step exception that is due comes first.
    if Mode(core.mode).steps() && !core.arch.ss {
        return Ok(());
    }
    let pc = core.regs.get(regs::PC) & !3;
    let on_context =
        |n: u16| is_for_level(core, core.arch.debug_register(n, BCR)) && has_context(core, n);
    let is_hit = breakpoints(core).any(|point| point.first == pc && applies(core, &point))
        || context_breakpoints(core).any(on_context);
    if is_hit {
        return Err(raise(core, class::BREAKPOINT_LOWER, DEBUG_STATUS, None));
    }
    Ok(())
}

/// Before an access to what is watched.
pub(crate) fn before_access(core: &mut Core, va: u64, size: u8, access: Access) -> Option<Trap> {
    if !is_enabled(core) {
        return None;
    }
    let direction = if access == Access::Write { 4u32 } else { 3 };
    let hit = watchpoints(core).find(|point| {
        point.control.wrapping_shr(direction) & 1 != 0
            && point.overlaps(va, size.into())
            && applies(core, point)
    })?;
    let write = u64::from(access == Access::Write) << 6;
    let at = va.max(hit.first);
    let iss = DEBUG_STATUS | write;
    Some(raise(core, class::WATCHPOINT_LOWER, iss, Some(at)))
}
