//! TLB maintenance (DDI 0487, C5.5, D8.17): banks are tagged by address space, so most of it drops one.

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
        Flush::Page(_) if core.arch.tagged => core.mmu.flush_all(),
        Flush::Page(va) => core.mmu.flush_page(va),
    }
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
        _ if by_range => Flush::All,
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
