//! What processors of different vendors do differently, where the manuals allow both.
//!
//! The emulated processor does as AMD's do; the host may be either.

use iced_x86::{Instruction, Mnemonic};

use super::End;
use crate::generate::Case;
use crate::state::{DATA, NativeState, Outcome};

const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;

/// The arithmetic flags in RFLAGS.
const STATUS: u64 = 0x8d5;
/// The field TOP in the x87 status word.
const TOP: u16 = 7 << 11;
/// Vector of page faults.
const PAGE_FAULT: u8 = 14;
const PAGE: u64 = 4096;

/// Takes over from `want` what a processor of another vendor may do in `got`'s way.
pub(super) fn adopt(case: &Case, want: &End, got: &mut End) {
    let insn = &case.instruction;
    let is_repeated = insn.has_rep_prefix() || insn.has_repne_prefix();
    if is_repeated && insn.is_string_instruction() {
        narrow_counters(&case.state, want, got);
    }
    let Outcome::Fault { trapno, .. } = want.outcome else {
        return;
    };
    if is_repeated && compares(insn) {
        // SDM vol. 2, "REP": flags may not be restored when CMPS or SCAS fault.
        let theirs = want.state.rflags & STATUS;
        got.state.rflags = got.state.rflags & !STATUS | theirs;
    }
    if insn.mnemonic() == Mnemonic::Fbstp && trapno == PAGE_FAULT {
        // Ten bytes that cross into a page that is not there: the first may be stored.
        let address = case.address.unwrap_or(0).wrapping_sub(DATA) as usize;
        for at in address..address.saturating_add(10) {
            if let (Some(theirs), Some(ours)) = (want.memory.get(at), got.memory.get_mut(at)) {
                *ours = *theirs;
            }
        }
    }
    if matches!(insn.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu) {
        fault_in_page(want, got);
    }
    if (0..insn.op_count()).any(|i| insn.op_register(i).is_mm()) {
        // TOP may be 0 already when an MMX instruction faults.
        turn_stack(want, got);
    }
}

fn compares(insn: &Instruction) -> bool {
    use Mnemonic::{Cmpsb, Cmpsd, Cmpsq, Cmpsw, Scasb, Scasd, Scasq, Scasw};
    matches!(
        insn.mnemonic(),
        Cmpsb | Cmpsw | Cmpsd | Cmpsq | Scasb | Scasw | Scasd | Scasq
    )
}

/// With 32-bit addresses, upper halves of registers may be cleared or left alone when not a single
/// iteration is done.
fn narrow_counters(start: &NativeState, want: &End, got: &mut End) {
    for n in [RCX, RSI, RDI] {
        let (theirs, ours) = (want.state.gpr[n], &mut got.state.gpr[n]);
        let untouched = start.gpr[n];
        let both = [theirs, *ours];
        if both.contains(&untouched) && both.contains(&u64::from(untouched as u32)) {
            *ours = theirs;
        }
    }
}

/// Any byte of the operand may be the one that a page fault names.
fn fault_in_page(want: &End, got: &mut End) {
    if let (
        Outcome::Fault {
            trapno: PAGE_FAULT,
            address: theirs,
            ..
        },
        Outcome::Fault {
            trapno: PAGE_FAULT,
            address: ours,
            ..
        },
    ) = (want.outcome, &mut got.outcome)
        && theirs / PAGE == *ours / PAGE
    {
        *ours = theirs;
    }
}

/// Has TOP be the other's, with every register where it was.
fn turn_stack(want: &End, got: &mut End) {
    let (theirs, ours) = (&want.state.fx, &mut got.state.fx);
    let top = |word: u16| usize::from((word & TOP) >> 11);
    let turn = top(theirs.fsw()).wrapping_sub(top(ours.fsw()));
    let old: [u128; 8] = std::array::from_fn(|i| ours.st(i));
    for (i, _) in old.iter().enumerate() {
        ours.set_st(i, old[i.wrapping_add(turn) & 7]);
    }
    ours.set_fsw(ours.fsw() & !TOP | theirs.fsw() & TOP);
}
