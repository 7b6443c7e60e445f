//! Stage 2: from a guest's physical addresses to the machine's (DDI 0487, D8.2.4).

use accel_core::{Access, Permissions};

use super::tables::{Walk, descend, update};
use super::{AF, AP1, AP2, DBM, Fault, Found, Kind, Query, Stop, allows, fault, granule_0};
use crate::Core;
use crate::mode::ctx;
use crate::model::Feature;
use crate::system::registers as sys;

/// Translates an intermediate address, or says why not.
pub(super) fn second_stage(
    core: &Core,
    ipa: u64,
    access: Access,
    query: &Query,
) -> Result<Found, Stop> {
    let may_update = query.update;
    let vtcr = core.regs.get(sys::VTCR_EL2);
    let granule = granule_0(vtcr >> 14);
    let input_bits = 64u32.wrapping_sub(((vtcr & 0x3f) as u32).clamp(16, 39));
    let start = (vtcr >> 6 & 3) as u32;
    let level = match granule {
        12 => 2u32.saturating_sub(start),
        _ => 3u32.saturating_sub(start),
    };
    let at = |f: Fault| Fault {
        ipa: Some(ipa),
        ..f
    };
    if ipa.checked_shr(input_bits).unwrap_or(0) != 0 {
        return Err(at(fault(Kind::Translation, level as u8)).into());
    }
    let stride = granule.wrapping_sub(3);
    let below = granule.wrapping_add(3u32.wrapping_sub(level).wrapping_mul(stride));
    let table_bits = input_bits.saturating_sub(below).wrapping_add(3);
    let model = &core.arch.model;
    let walk = Walk {
        table: core.regs.get(sys::VTTBR_EL2)
            & 0x0000_ffff_ffff_fffe
            & u64::MAX.wrapping_shl(table_bits.clamp(4, 20)),
        level,
        granule,
        input_bits,
        hardware_af: model.has(Feature::Hafdbs) && vtcr >> 21 & 1 != 0,
        is_secure: false,
    };
    let hardware_dirty = model.has(Feature::Dbm) && walk.hardware_af && vtcr >> 22 & 1 != 0;
    let leaf = descend(core, ipa, &walk, Ok).map_err(at)?;
    let mut descriptor = leaf.descriptor;
    if descriptor & AF == 0 {
        if !walk.hardware_af {
            return Err(at(fault(Kind::AccessFlag, leaf.level)).into());
        }
        if may_update {
            if !update(core, leaf.at, descriptor, descriptor | AF) {
                return Err(Stop::Again);
            }
            descriptor |= AF;
        }
    }
    let mut writable = descriptor & AP2 != 0;
    let clean = !writable && hardware_dirty && descriptor & DBM != 0;
    // XN[1:0] in bits 54 and 53: FEAT_XNX tells the levels apart.
    let user = query.ctx == ctx::USER;
    let exec = match (descriptor >> 53 & 3, model.has(Feature::Xnx)) {
        (0, _) => true,
        (1, true) => user,
        (3, true) => !user,
        (1, false) => true,
        _ => false,
    };
    let mut allow = Permissions {
        read: descriptor & AP1 != 0,
        write: writable || clean,
        exec: exec && descriptor & AP1 != 0,
    };
    if !allows(allow, access) {
        return Err(at(fault(Kind::Permission, leaf.level)).into());
    }
    if clean {
        if access == Access::Write && may_update {
            if !update(core, leaf.at, descriptor, descriptor | AP2) {
                return Err(Stop::Again);
            }
            writable = true;
        }
        allow.write &= writable || access == Access::Write;
    }
    Ok(Found {
        physical: leaf.output,
        page_bits: leaf.page_bits,
        allow,
        global: false,
        guarded: false,
        tagged: false,
    })
}
