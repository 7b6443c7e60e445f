//! What an exception says that depends on the instruction, found out when one is delivered: which
//! accesses belong to the stack, and which loads are the first half of a read-modify-write.

use accel_core::{Source, Target};
use iced_x86::{
    Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};

use super::context::{number, segment_number};
use super::mode::Mode;
use super::{Decoded, decode, linear_pc, options};
use crate::state::vector;
use crate::{Core, X86, regs};

/// Page fault error code: the access was a write.
const PF_WRITE: u32 = 1 << 1;
/// Page fault error code: the access was a fetch.
const PF_FETCH: u32 = 1 << 4;

/// Completes the noted exception; the PC is at the instruction that caused it.
///
/// Processors check a read-modify-write operand for writing at once (#PF with W set), and raise #SS
/// instead of #GP for non-canonical addresses of the stack segment (SDM vol. 1, 3.3.7.1).
pub(crate) fn refine(core: &mut Core) {
    let Some(mut exception) = core.arch.exception else {
        return;
    };
    match exception.vector {
        vector::PF => {
            let data = exception
                .error
                .filter(|error| error & (PF_WRITE | PF_FETCH) == 0);
            if let Some(error) = data
                && current(core).is_some_and(|insn| updates_memory(&insn))
            {
                exception.error = Some(error | PF_WRITE);
            }
        }
        vector::GP
            if exception.error == Some(0)
                && Mode(core.mode).is_64()
                && current(core).is_some_and(|insn| is_stack_fault(core, &insn)) =>
        {
            exception.vector = vector::SS;
        }
        _ => {}
    }
    core.arch.exception = Some(exception);
}

/// The instruction at the PC, if it can be fetched.
fn current(core: &mut Core) -> Option<Instruction> {
    let mode = Mode(core.mode);
    let options = options(core);
    let pc = core.pc();
    let va = linear_pc(core);
    let ctx = X86::fetch_ctx(core);
    let mut source = Source::new(core, va, ctx).ok()?;
    if let Decoded::Incomplete = decode(mode, options, source.bytes(), pc) {
        source.extend(core).ok()?;
    }
    match decode(mode, options, source.bytes(), pc) {
        Decoded::Instruction(insn) => Some(insn),
        _ => None,
    }
}

fn updates_memory(insn: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(insn);
    insn.op0_kind() == OpKind::Memory
        && matches!(
            info.op0_access(),
            OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
}

fn is_stack_fault(core: &Core, insn: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(insn);
    if must_be_aligned(insn) && is_misaligned(core, insn) {
        return false;
    }
    // A bit string's address is beyond what the operand says.
    let bits = insn.op0_kind() == OpKind::Memory
        && insn.op1_kind() == OpKind::Register
        && matches!(
            insn.mnemonic(),
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
        );
    let is_bad = |memory: &UsedMemory| {
        let size = memory.memory_size().size().max(1) as u64;
        bits || memory
            .virtual_address(0, |register, _, _| Some(value(core, register)))
            .is_some_and(|va| {
                !is_canonical(va) || !is_canonical(va.wrapping_add(size).wrapping_sub(1))
            })
    };
    let (stack, others): (Vec<_>, Vec<_>) = info
        .used_memory()
        .iter()
        .partition(|memory| is_stack(memory));
    // POP reads the stack first, PUSH and CALL their operand.
    let first = insn.mnemonic() != Mnemonic::Pop && others.into_iter().any(is_bad);
    !first && stack.into_iter().any(is_bad)
}

/// Whether an operand is in the stack segment: in 64-bit mode prefixes for it, and for the segments
/// without a base, do nothing.
fn is_stack(memory: &UsedMemory) -> bool {
    let special = matches!(memory.segment(), Register::FS | Register::GS);
    let base = memory.base();
    !special && base.is_gpr() && matches!(number(base), regs::index::RSP | regs::index::RBP)
}

/// Whether the operand in memory must be aligned to 16 bytes: that is checked first.
fn must_be_aligned(insn: &Instruction) -> bool {
    use Mnemonic::{Lddqu, Movdqu, Movupd, Movups};
    !matches!(insn.mnemonic(), Movups | Movupd | Movdqu | Lddqu) && insn.memory_size().size() == 16
}

fn is_misaligned(core: &Core, insn: &Instruction) -> bool {
    (0..insn.op_count())
        .find(|&i| insn.op_kind(i) == OpKind::Memory)
        .and_then(|i| insn.virtual_address(i, 0, |register, _, _| Some(value(core, register))))
        .is_some_and(|va| !va.is_multiple_of(16))
}

fn is_canonical(va: u64) -> bool {
    (va as i64) << 16 >> 16 == va as i64
}

/// A register of an address in 64-bit mode.
fn value(core: &Core, register: Register) -> u64 {
    if register.is_segment_register() {
        return match register {
            Register::FS | Register::GS => {
                core.regs.get(regs::base(segment_number(register) as usize))
            }
            _ => 0,
        };
    }
    let value = core.regs.get(regs::gpr(number(register)));
    accel_ir::Ty::of_bytes(register.size() as u32).mask() & value
}
