//! TLB maintenance (DDI 0487, C5.5, D8.17): banks are tagged by address space, so most of it drops one.

use hw_memory::PAGE_BITS;

use super::control::{self, hcr};
use super::translation;
use crate::Core;
use crate::peers::Flush;
use crate::port::SysReg;

/// Carries out what others have listed for this CPU.
pub(crate) fn carry_out(core: &mut Core) {
    for flush in core.arch.peer.clone().take() {
        apply(core, flush);
    }
}

fn apply(core: &mut Core, flush: Flush) {
    match flush {
        Flush::All => core.mmu.flush_all(),
        Flush::Space(key) => core.mmu.flush_space(key),
        Flush::Page(_) | Flush::Pages(..) if core.arch.tagged => core.mmu.flush_all(),
        Flush::Page(va) => core.mmu.flush_page(va),
        Flush::Pages(va, count) => {
            for n in 0..u64::from(count) {
                core.mmu.flush_page(va.wrapping_add(n << PAGE_BITS));
            }
        }
    }
}

/// Most pages that are forgotten one by one.
const MOST_PAGES: u64 = 128;

/// What the operand of a TLBI by range means (C5.5 "TLBI RVAE1").
fn range(value: u64) -> Flush {
    let granule: u32 = match value >> 46 & 3 {
        1 => 12,
        2 => 14,
        3 => 16,
        _ => return Flush::All,
    };
    let scale = (value >> 44 & 3) as u32;
    let number = (value >> 39 & 31).wrapping_add(1);
    let shift = scale.wrapping_mul(5).wrapping_add(1);
    let pages = number.wrapping_shl(shift.wrapping_add(granule.wrapping_sub(PAGE_BITS)));
    if pages > MOST_PAGES {
        return Flush::All;
    }
    // BaseADDR has 37 bits, the highest of which is the sign.
    let base = (value << 27).cast_signed() >> 27;
    Flush::Pages(base.wrapping_shl(granule).cast_unsigned(), pages as u16)
}

/// A TLBI instruction. `false` if there is none of this encoding.
pub(crate) fn invalidate(core: &mut Core, reg: SysReg, value: u64) -> bool {
    let (_, op1, _, crm, op2) = reg.fields();
    // CRm: 3 inner shareable, 7 local; 1 outer shareable; 2, 5, 6 ranges; 0, 4 by IPA.
    let broadcast = match crm {
        7 | 6 => control::hcr_in_effect(core) & hcr::FB != 0 && core.arch.el < 2,
        1 | 2 | 3 | 5 | 0 => true,
        4 => matches!(op2, 0 | 2 | 4 | 6) && op2 != 1,
        _ => return false,
    };
    let by_range = matches!((crm, op2), (2 | 5 | 6, 1 | 3 | 5 | 7));
    let flush = match (op1, op2) {
        _ if matches!(crm, 0 | 4) => Flush::All,
        _ if by_range => range(value),
        // VAE1, VAAE1, VALE1, VAALE1 and those of EL2 and EL3.
        (0 | 4 | 6, 1 | 3 | 5 | 7) if matches!(crm, 1 | 3 | 7) => {
            // VA[55:12], with its top bits as translation has them.
            let va = (value << 12).cast_signed() << 8 >> 8;
            Flush::Page(va as u64)
        }
        // ASIDE1: of another's address space, from above.
        (0, 2) if core.arch.el > 1 => Flush::All,
        (0, 2) => Flush::Space(translation::key_of_asid(core, value >> 48)),
        (0, 0) | (4, 0 | 4 | 6) | (6, 0) => Flush::All,
        _ => return false,
    };
    apply(core, flush);
    if broadcast {
        let peer = core.arch.peer.clone();
        if core.arch.setup.peers.clone().broadcast(&peer, flush) {
            core.arch.unsettled = true;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ranges_are_their_pages() {
        // TG 4 KiB, SCALE 0, NUM 3: eight pages from the highest sixteen on.
        let operand = 1 << 46 | 3 << 39 | 0x1f_ffff_fff0;
        assert_eq!(range(operand), Flush::Pages(0u64.wrapping_sub(16 << 12), 8));
        // 64 KiB, SCALE 1: 64 units of sixteen pages.
        assert_eq!(range(3 << 46 | 1 << 44 | 5), Flush::All);
        assert_eq!(range(3 << 46 | 1 << 39 | 5), Flush::Pages(5 << 16, 64));
    }

    #[test]
    fn a_range_of_no_granule_is_everything() {
        assert_eq!(range(1), Flush::All);
    }
}
