//! Address translation (DDI 0487, D8): stage 1 of all regimes, stage 2.
//!
//! Address spaces of the software MMU: with translation off there is one key, else the regime, VMID and
//! ASID are one; each for either Security state. What only the Secure state reaches is in the map at
//! [`hw_memory::SECURE_SPACE`]. Global pages are cached in each space that uses them.
//!
//! Not modelled: 52-bit addresses, memory types (all memory is coherent and takes unaligned
//! accesses), contiguous hints, caches of table walks. An access of the Secure state by a Non-secure page
//! (NS) finds what the Non-secure state would, but a device takes it for a Secure one.

use accel_core::{Access, Permissions, Translation, Trap};

use super::control::{self, hcr, scr, sctlr_bits};
use super::exception::{class, esr};
use super::registers as sys;
use crate::Core;
use crate::mode::ctx;
use crate::model::Feature;
use crate::state::{Exception, Vector};

mod stage_2;
mod tables;

use stage_2::second_stage;
use tables::{Walk, descend, in_map, update};

/// Key of the address space without translation.
const OFF: u64 = 0;
/// Stage 1 is off, stage 2 on.
const STAGE_2_ONLY: u64 = 1 << 59;
/// Of the Secure state.
const SECURE: u64 = 1 << 57;

/// Address field of a descriptor.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const AF: u64 = 1 << 10;
const DBM: u64 = 1 << 51;
/// Stage 1: read-only. Stage 2: writable.
const AP2: u64 = 1 << 7;
/// Stage 1: user access. Stage 2: readable.
const AP1: u64 = 1 << 6;
const NG: u64 = 1 << 11;
/// Stage 1 of the Secure state: the page is in the Non-secure address space; of a table, so is all below.
const NS: u64 = 1 << 5;
const NS_TABLE: u64 = 1 << 63;
const GUARDED: u64 = 1 << 50;

/// Fault status codes without their level (ESR_ELx.DFSC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    AddressSize = 0x00,
    Translation = 0x04,
    AccessFlag = 0x08,
    Permission = 0x0c,
    External = 0x14,
}

/// Why there is no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    kind: Kind,
    level: u8,
    /// The intermediate address that stage 2 refused.
    ipa: Option<u64>,
    /// Stage 2 refused an access of stage 1's walk.
    in_walk: bool,
}

impl Fault {
    /// The fault status code.
    pub(crate) fn status(self) -> u64 {
        self.kind as u64 | u64::from(self.level & 3)
    }

    pub(crate) fn is_stage_2(self) -> bool {
        self.ipa.is_some()
    }

    pub(crate) fn is_in_walk(self) -> bool {
        self.in_walk
    }
}

fn fault(kind: Kind, level: u8) -> Fault {
    Fault {
        kind,
        level,
        ipa: None,
        in_walk: false,
    }
}

/// Where a page is and what it allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) physical: u64,
    pub(crate) page_bits: u32,
    pub(crate) allow: Permissions,
    pub(crate) global: bool,
    pub(crate) guarded: bool,
    pub(crate) tagged: bool,
}

const ALL: Permissions = Permissions {
    read: true,
    write: true,
    exec: true,
};

fn allows(allow: Permissions, access: Access) -> bool {
    match access {
        Access::Read => allow.read,
        Access::Write => allow.write,
        Access::Fetch => allow.exec,
    }
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub(crate) va: u64,
    pub(crate) access: Access,
    /// Exception level of the regime: 1, 2 or 3.
    pub(crate) regime: u8,
    /// Translation context ([`ctx`]).
    pub(crate) ctx: u8,
    /// Access and dirty flags may be set.
    pub(crate) update: bool,
    /// Stage 1 alone: what is found is an intermediate address. Tables are looked up through stage 2
    /// all the same.
    pub(crate) first_stage: bool,
}

/// Fields of TCR_ELx for one half of the address space.
struct Range {
    base: u64,
    size: u32,
    granule: u32,
    tbi: bool,
    disabled: bool,
    flat: bool,
    hardware_af: bool,
    hardware_dirty: bool,
}

fn is_two_ranges(core: &Core, regime: u8) -> bool {
    regime == 1 || regime == 2 && control::hcr_in_effect(core) & hcr::E2H != 0
}

fn granule_0(field: u64) -> u32 {
    match field & 3 {
        1 => 16,
        2 => 14,
        _ => 12,
    }
}

fn granule_1(field: u64) -> u32 {
    match field & 3 {
        1 => 14,
        3 => 16,
        _ => 12,
    }
}

fn range(core: &Core, regime: u8, high: bool) -> Range {
    let get = |slot| core.regs.get(slot);
    let model = &core.arch.model;
    let (tcr, base0, base1) = match regime {
        1 => (sys::TCR_EL1, sys::TTBR0_EL1, sys::TTBR1_EL1),
        2 => (sys::TCR_EL2, sys::TTBR0_EL2, sys::TTBR1_EL2),
        _ => (sys::TCR_EL3, sys::TTBR0_EL3, sys::TTBR0_EL3),
    };
    let tcr = get(tcr);
    let bit = |n: u32| tcr.wrapping_shr(n) & 1 != 0;
    let af = model.has(Feature::Hafdbs);
    let dirty = model.has(Feature::Dbm);
    let hpds = model.has(Feature::Hpds);
    if !is_two_ranges(core, regime) {
        return Range {
            base: get(base0),
            size: (tcr & 0x3f) as u32,
            granule: granule_0(tcr >> 14),
            tbi: bit(20),
            disabled: false,
            flat: hpds && bit(24),
            hardware_af: af && bit(21),
            hardware_dirty: dirty && bit(21) && bit(22),
        };
    }
    let (hardware_af, hardware_dirty) = (af && bit(39), dirty && bit(39) && bit(40));
    if high {
        Range {
            base: get(base1),
            size: (tcr >> 16 & 0x3f) as u32,
            granule: granule_1(tcr >> 30),
            tbi: bit(38),
            disabled: bit(23),
            flat: hpds && bit(42),
            hardware_af,
            hardware_dirty,
        }
    } else {
        Range {
            base: get(base0),
            size: (tcr & 0x3f) as u32,
            granule: granule_0(tcr >> 14),
            tbi: bit(37),
            disabled: bit(7),
            flat: hpds && bit(41),
            hardware_af,
            hardware_dirty,
        }
    }
}

/// Whether the top byte of an address is ignored.
pub(crate) fn ignores_top_byte(core: &Core, regime: u8, va: u64) -> bool {
    let high = is_two_ranges(core, regime) && va >> 55 & 1 != 0;
    range(core, regime, high).tbi
}

/// Bits of an address that select the range and above, without the tag: the lowest of them, for
/// pointer authentication.
pub(crate) fn address_bits(core: &Core, regime: u8, va: u64) -> (u32, bool) {
    let high = is_two_ranges(core, regime) && va >> 55 & 1 != 0;
    let range = range(core, regime, high);
    (64u32.saturating_sub(range.size.clamp(16, 39)), range.tbi)
}

/// Whether a regime is of the Secure state.
fn is_secure(core: &Core, regime: u8) -> bool {
    regime == 3 || control::is_secure_below_el3(core)
}

/// Turns of a walk while another CPU changes the tables.
const TURNS: u32 = 64;

/// Translates by both stages.
pub(crate) fn find(core: &Core, query: &Query) -> Result<Found, Fault> {
    let mut result = attempt(core, query);
    for _ in 0..TURNS {
        match result {
            Err(Stop::Again) => result = attempt(core, query),
            _ => break,
        }
    }
    match result {
        Ok(found) => Ok(found),
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::Again) => Err(fault(Kind::AccessFlag, 3)),
    }
}

/// How an attempt ends without a translation.
enum Stop {
    Fault(Fault),
    /// A descriptor changed under our hands.
    Again,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// Whether stage 2 is on for a regime.
fn has_stage_2(core: &Core, regime: u8) -> bool {
    let both = hcr::E2H | hcr::TGE;
    let now = control::hcr_in_effect(core);
    regime == 1 && now & hcr::VM != 0 && now & both != both
}

fn is_stage_1_on(core: &Core, regime: u8) -> bool {
    if regime == 1 && control::hcr_in_effect(core) & (hcr::DC | hcr::TGE) != 0 {
        return false;
    }
    control::sctlr_of(core, regime) & sctlr_bits::M != 0
}

fn attempt(core: &Core, query: &Query) -> Result<Found, Stop> {
    let stage_2 = has_stage_2(core, query.regime);
    let mut found = if is_stage_1_on(core, query.regime) {
        stage_1(core, query, stage_2)?
    } else {
        let tagged = ignores_top_byte(core, query.regime, query.va);
        let address = if tagged { query.va << 8 >> 8 } else { query.va };
        let bits = core.arch.model.physical_bits();
        if address.checked_shr(bits).unwrap_or(0) != 0 {
            return Err(fault(Kind::AddressSize, 0).into());
        }
        Found {
            physical: in_map(core, address, is_secure(core, query.regime)),
            page_bits: 12,
            allow: ALL,
            global: true,
            guarded: false,
            tagged: address != query.va,
        }
    };
    if stage_2 && !query.first_stage {
        let second = second_stage(core, found.physical, query.access, query)?;
        found.physical = second.physical;
        found.page_bits = found.page_bits.min(second.page_bits);
        found.allow.read &= second.allow.read;
        found.allow.write &= second.allow.write;
        found.allow.exec &= second.allow.exec;
    }
    Ok(found)
}

fn stage_1(core: &Core, query: &Query, has_second: bool) -> Result<Found, Stop> {
    let Query { va, regime, .. } = *query;
    let two = is_two_ranges(core, regime);
    let high = two && va >> 55 & 1 != 0;
    let range = range(core, regime, high);
    let size = range
        .size
        .clamp(16, if range.granule == 16 { 47 } else { 48 });
    let input_bits = 64u32.wrapping_sub(size);
    let top_bits = if range.tbi { 55 } else { 63 };
    // All bits above the input are alike.
    let sign =
        u64::MAX.wrapping_shl(input_bits) & u64::MAX.wrapping_shr(63u32.wrapping_sub(top_bits));
    let wanted = if high { sign } else { 0 };
    if range.disabled || va & sign != wanted {
        return Err(fault(Kind::Translation, 0).into());
    }
    let stride = range.granule.wrapping_sub(3);
    let levels = input_bits
        .wrapping_sub(range.granule)
        .div_ceil(stride.max(1))
        .clamp(1, 4);
    let level = 4u32.wrapping_sub(levels);
    let below = range
        .granule
        .wrapping_add(3u32.wrapping_sub(level).wrapping_mul(stride));
    let table_bits = input_bits.wrapping_sub(below).wrapping_add(3);
    let walk = Walk {
        table: range.base & 0x0000_ffff_ffff_fffe & u64::MAX.wrapping_shl(table_bits.max(4)),
        level,
        granule: range.granule,
        input_bits,
        hardware_af: range.hardware_af,
        is_secure: is_secure(core, regime),
    };
    let leaf = descend(core, va, &walk, |ipa| {
        if !has_second {
            return Ok(ipa);
        }
        match second_stage(core, ipa, Access::Read, query) {
            Ok(found) => Ok(found.physical),
            Err(Stop::Fault(f)) => Err(Fault { in_walk: true, ..f }),
            Err(Stop::Again) => Err(fault(Kind::AccessFlag, 3)),
        }
    })?;
    let mut descriptor = leaf.descriptor;
    let tables = if range.flat { 0 } else { leaf.tables };
    if descriptor & AF == 0 {
        if !walk.hardware_af {
            return Err(fault(Kind::AccessFlag, leaf.level).into());
        }
        if query.update {
            if !update(core, leaf.at, descriptor, descriptor | AF) {
                return Err(Stop::Again);
            }
            descriptor |= AF;
        }
    }
    let is_secure = walk.is_secure && descriptor & NS == 0 && leaf.tables & NS_TABLE == 0;
    let has_user = two;
    let user_page = has_user && descriptor & AP1 != 0 && tables & 1 << 61 == 0;
    let table_read_only = tables & 1 << 62 != 0;
    let can_be_dirty = range.hardware_dirty && descriptor & DBM != 0 && !table_read_only;
    let mut writable = descriptor & AP2 == 0 && !table_read_only;
    let clean = !writable && can_be_dirty;
    let uxn = descriptor >> 54 & 1 != 0 || tables & 1 << 60 != 0;
    let pxn = descriptor >> 53 & 1 != 0 || tables & 1 << 59 != 0;
    let wxn = control::sctlr_of(core, regime) & sctlr_bits::WXN != 0;
    let may_write = writable || clean;
    let mut allow = if query.ctx == ctx::USER {
        Permissions {
            read: user_page,
            write: user_page && may_write,
            exec: !(uxn || wxn && may_write && user_page),
        }
    } else {
        let never = if has_user {
            pxn || user_page && may_write
        } else {
            uxn
        };
        let data = !(query.ctx == ctx::PAN && user_page);
        Permissions {
            read: data,
            write: data && may_write,
            exec: !(never || wxn && may_write),
        }
    };
    if walk.is_secure && !is_secure && control::scr_in_effect(core) & scr::SIF != 0 {
        // Secure software does not execute what Non-secure software may write.
        allow.exec = false;
    }
    if !allows(allow, query.access) {
        return Err(fault(Kind::Permission, leaf.level).into());
    }
    if clean {
        if query.access == Access::Write && query.update {
            if !update(core, leaf.at, descriptor, descriptor & !AP2) {
                return Err(Stop::Again);
            }
            writable = true;
        }
        // Written for the first time, it is walked again.
        allow.write &= writable || query.access == Access::Write;
    }
    Ok(Found {
        physical: in_map(core, leaf.output, is_secure),
        page_bits: leaf.page_bits,
        allow,
        global: descriptor & NG == 0,
        guarded: descriptor & GUARDED != 0,
        tagged: range.tbi && va >> 56 != if high { 0xff } else { 0 },
    })
}

/// Whether code at an address lies in a guarded page.
pub(crate) fn is_guarded(core: &Core, va: u64) -> bool {
    let query = Query {
        va,
        access: Access::Fetch,
        regime: control::regime(core),
        ctx: crate::mode::Mode(core.mode).ctx(),
        update: false,
        first_stage: false,
    };
    find(core, &query).is_ok_and(|found| found.guarded)
}

/// Translates for an access of the CPU, or notes the abort.
pub(crate) fn walk(core: &mut Core, va: u64, access: Access, ctx: u8) -> Result<Translation, Trap> {
    let regime = control::regime(core);
    if access == Access::Fetch && !strip_tag(core, regime, va) {
        return Err(Trap::Leave);
    }
    let query = Query {
        va,
        access,
        regime,
        ctx,
        update: true,
        first_stage: false,
    };
    match find(core, &query) {
        Ok(found) => {
            core.arch.tagged |= found.tagged;
            if found.guarded && access == Access::Fetch && !core.arch.guarded {
                core.arch.guarded = true;
                core.mmu.flush_all();
                crate::mode::refresh(core);
            }
            // What is cached is not walked again: the first fetch from a guarded page, and each from a tagged
            // address, has to be.
            let unseen = found.tagged || found.guarded && !core.arch.guarded;
            let exec = found.allow.exec && !unseen;
            Ok(Translation {
                physical: found.physical,
                page_bits: found.page_bits,
                allow: Permissions {
                    exec,
                    ..found.allow
                },
                global: found.global,
            })
        }
        Err(fault) => Err(abort(core, va, access, fault)),
    }
}

/// The PC is an address without its tag (D8.8.1): strips it. `false` if there was one.
fn strip_tag(core: &mut Core, regime: u8, va: u64) -> bool {
    if core.pc() != va || !ignores_top_byte(core, regime, va) {
        return true;
    }
    let plain = if is_two_ranges(core, regime) {
        (va << 8).cast_signed() >> 8
    } else {
        (va << 8 >> 8).cast_signed()
    } as u64;
    core.set_pc(plain);
    plain == va
}

/// Notes an abort.
pub(crate) fn abort(core: &mut Core, va: u64, access: Access, fault: Fault) -> Trap {
    let from = core.arch.el;
    let is_external = fault.kind == Kind::External;
    let to = match fault.ipa {
        _ if is_external && control::scr_in_effect(core) & scr::EA != 0 => 3,
        Some(_) => 2,
        None => super::exception::default_target(core),
    };
    let mut iss = fault.status() | u64::from(fault.in_walk) << 7;
    let lower = to > from;
    let class = match (access, lower) {
        (Access::Fetch, true) => class::FETCH_LOWER,
        (Access::Fetch, false) => class::FETCH_SAME,
        (_, true) => class::DATA_LOWER,
        (_, false) => class::DATA_SAME,
    };
    if access == Access::Write && !fault.in_walk {
        iss |= 1 << 6;
    }
    core.arch.exception = Some(Exception {
        vector: Vector::Synchronous,
        to,
        esr: esr(class, iss),
        far: Some(va),
        hpfar: fault.ipa.map(|ipa| ipa >> 12 << 4),
    });
    Trap::Exception
}

/// The key of the address space of the regime at EL1 with an ASID.
pub(crate) fn key_of_asid(core: &Core, asid: u64) -> u64 {
    key(core, 1, asid)
}

fn key(core: &Core, regime: u8, asid: u64) -> u64 {
    let mut key = u64::from(regime) << 60 | asid & 0xffff;
    if is_secure(core, regime) {
        key |= SECURE;
    }
    if has_stage_2(core, regime) {
        key |= (core.regs.get(sys::VTTBR_EL2) >> 48) << 16 | 1 << 58;
    }
    key
}

/// Makes the address space in force the current one.
pub(crate) fn switch(core: &mut Core) {
    let regime = control::regime(core);
    let stage_2 = has_stage_2(core, regime);
    let key = if !is_stage_1_on(core, regime) {
        if stage_2 {
            key(core, regime, 0) | STAGE_2_ONLY
        } else if is_secure(core, regime) {
            OFF | SECURE
        } else {
            OFF
        }
    } else if is_two_ranges(core, regime) {
        let (tcr, base0, base1) = match regime {
            1 => (sys::TCR_EL1, sys::TTBR0_EL1, sys::TTBR1_EL1),
            _ => (sys::TCR_EL2, sys::TTBR0_EL2, sys::TTBR1_EL2),
        };
        let get = |slot| core.regs.get(slot);
        // TCR.A1 says whose ASID counts.
        let base = if get(tcr) >> 22 & 1 != 0 {
            base1
        } else {
            base0
        };
        key(core, regime, get(base) >> 48)
    } else {
        key(core, regime, 0)
    };
    core.mmu.switch(key);
}
