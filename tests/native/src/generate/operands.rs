//! Chooses registers, addresses and immediates for the operands of one instruction.

use iced_x86::{Code, Instruction, Mnemonic, OpCodeOperandKind as Kind, OpKind, Register};

use super::memory::{self, Address};
use super::{Form, Prefix, Rng, values};
use crate::state::{CODE, NativeState};

/// An instruction, and where its memory operand is.
pub(super) struct Plan {
    pub(super) instruction: Instruction,
    /// Effective address of the operand in memory, if it has one with ModRM or moffs.
    pub(super) address: Option<u64>,
    /// Whether the string instructions and their kin use 32-bit addresses.
    pub(super) short: bool,
}

/// Whether ModRM decides if this operand is a register or in memory.
pub(super) fn is_register_or_memory(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::r8_or_mem
            | Kind::r16_or_mem
            | Kind::r32_or_mem
            | Kind::r64_or_mem
            | Kind::mm_or_mem
            | Kind::xmm_or_mem
    )
}

/// Builds the instruction, and sets the registers its address is made of.
pub(super) fn choose(form: &Form, rng: &mut Rng, state: &mut NativeState) -> Option<Plan> {
    let op = form.code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(form.code);
    match form.prefix {
        Prefix::None => {}
        Prefix::Lock => instruction.set_has_lock_prefix(true),
        Prefix::Rep => instruction.set_has_rep_prefix(true),
        Prefix::Repne => instruction.set_has_repne_prefix(true),
    }
    let mut plan = Plan {
        instruction,
        address: None,
        short: rng.percent(8),
    };
    for (i, &kind) in op.op_kinds().iter().enumerate() {
        operand(form, i as u32, kind, &mut plan, rng, state)?;
    }
    // XCHG of the accumulator with itself is NOP, another instruction.
    let exchange = matches!(
        form.code,
        Code::Xchg_r16_AX | Code::Xchg_r32_EAX | Code::Xchg_r64_RAX
    );
    if exchange && plan.instruction.op0_register() == plan.instruction.op1_register() {
        return None;
    }
    Some(plan)
}

fn operand(
    form: &Form,
    i: u32,
    kind: Kind,
    plan: &mut Plan,
    rng: &mut Rng,
    state: &mut NativeState,
) -> Option<()> {
    let short = plan.short;
    if kind == Kind::mem || form.memory && is_register_or_memory(kind) {
        let address = memory::choose(form, rng);
        modrm(plan, i, &address);
        address.apply(state, rng);
        return Some(());
    }
    let instruction = &mut plan.instruction;
    let string = |long, short_kind| if short { short_kind } else { long };
    match kind {
        Kind::mem_offs => {
            let address = memory::target(form, rng);
            instruction.set_op_kind(i, OpKind::Memory);
            instruction.set_memory_displacement64(address);
            instruction.set_memory_displ_size(8);
            plan.address = Some(address);
        }
        Kind::seg_rSI => {
            instruction.set_op_kind(i, string(OpKind::MemorySegRSI, OpKind::MemorySegESI));
        }
        Kind::es_rDI => {
            instruction.set_op_kind(i, string(OpKind::MemoryESRDI, OpKind::MemoryESEDI));
        }
        Kind::seg_rDI => {
            instruction.set_op_kind(i, string(OpKind::MemorySegRDI, OpKind::MemorySegEDI));
        }
        Kind::seg_rBX_al => {
            instruction.set_op_kind(i, OpKind::Memory);
            instruction.set_memory_base(if short { Register::EBX } else { Register::RBX });
            instruction.set_memory_index(Register::AL);
        }
        Kind::br64_1 | Kind::br64_4 => {
            instruction.set_op_kind(i, OpKind::NearBranch64);
            instruction.set_near_branch64(CODE);
        }
        _ => {
            if let Some(register) = register(kind, rng) {
                instruction.set_op_kind(i, OpKind::Register);
                instruction.set_op_register(i, register);
            } else {
                immediate(form.code, i, kind, instruction, rng)?;
            }
        }
    }
    Some(())
}

fn modrm(plan: &mut Plan, i: u32, address: &Address) {
    let instruction = &mut plan.instruction;
    let name = |number: usize| {
        let first = if address.short {
            Register::EAX
        } else {
            Register::RAX
        };
        first + number as u32
    };
    instruction.set_op_kind(i, OpKind::Memory);
    instruction.set_segment_prefix(address.segment);
    if let Some(base) = address.base {
        instruction.set_memory_base(name(base));
    }
    if let Some(index) = address.index {
        instruction.set_memory_index(name(index));
        instruction.set_memory_index_scale(1 << address.shift);
    }
    instruction.set_memory_displacement64(address.displacement as u64);
    let long = if address.short { 4 } else { 8 };
    let bytes = match i8::try_from(address.displacement) {
        Ok(0) if address.base.is_some() && address.omit_zero => 0,
        Ok(_) if address.base.is_some() && !address.wide => 1,
        _ => long,
    };
    instruction.set_memory_displ_size(bytes);
    plan.address = Some(address.effective);
}

fn register(kind: Kind, rng: &mut Rng) -> Option<Register> {
    let any = |first: Register, count: u64, rng: &mut Rng| first + rng.below(count) as u32;
    Some(match kind {
        // AL to BL, AH to BH, SPL to DIL, R8L to R15L.
        Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => any(Register::AL, 20, rng),
        Kind::r16_or_mem | Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode => {
            any(Register::AX, 16, rng)
        }
        Kind::r32_or_mem | Kind::r32_reg | Kind::r32_rm | Kind::r32_opcode => {
            any(Register::EAX, 16, rng)
        }
        Kind::r64_or_mem | Kind::r64_reg | Kind::r64_rm | Kind::r64_opcode => {
            any(Register::RAX, 16, rng)
        }
        Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => any(Register::MM0, 8, rng),
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm => any(Register::XMM0, 16, rng),
        Kind::seg_reg => any(Register::ES, 6, rng),
        Kind::sti_opcode => any(Register::ST0, 8, rng),
        Kind::st0 => Register::ST0,
        Kind::es => Register::ES,
        Kind::cs => Register::CS,
        Kind::ss => Register::SS,
        Kind::ds => Register::DS,
        Kind::fs => Register::FS,
        Kind::gs => Register::GS,
        Kind::al => Register::AL,
        Kind::cl => Register::CL,
        Kind::ax => Register::AX,
        Kind::dx => Register::DX,
        Kind::eax => Register::EAX,
        Kind::rax => Register::RAX,
        _ => return None,
    })
}

fn immediate(
    code: Code,
    i: u32,
    kind: Kind,
    instruction: &mut Instruction,
    rng: &mut Rng,
) -> Option<()> {
    let value = values::int(rng);
    match kind {
        Kind::imm8 if code.mnemonic() == Mnemonic::Enter => {
            // The nesting level is modulo 32; deep ones run off the stack.
            let level = if rng.percent(60) { rng.below(4) } else { value };
            instruction.set_op_kind(i, OpKind::Immediate8_2nd);
            instruction.set_immediate8_2nd(level as u8);
        }
        Kind::imm8 => {
            instruction.set_op_kind(i, OpKind::Immediate8);
            instruction.set_immediate8(shift_count(code, value));
        }
        Kind::imm8_const_1 => {
            instruction.set_op_kind(i, OpKind::Immediate8);
            instruction.set_immediate8(1);
        }
        Kind::imm8sex16 => {
            instruction.set_op_kind(i, OpKind::Immediate8to16);
            instruction.set_immediate8to16(i16::from(value as i8));
        }
        Kind::imm8sex32 => {
            instruction.set_op_kind(i, OpKind::Immediate8to32);
            instruction.set_immediate8to32(i32::from(value as i8));
        }
        Kind::imm8sex64 => {
            instruction.set_op_kind(i, OpKind::Immediate8to64);
            instruction.set_immediate8to64(i64::from(value as i8));
        }
        Kind::imm16 => {
            // ENTER and RET take them as sizes: stay on the stack.
            let size = matches!(code.mnemonic(), Mnemonic::Enter | Mnemonic::Ret);
            let value = if size && rng.percent(85) {
                rng.below(64)
            } else {
                value
            };
            instruction.set_op_kind(i, OpKind::Immediate16);
            instruction.set_immediate16(value as u16);
        }
        Kind::imm32 => {
            instruction.set_op_kind(i, OpKind::Immediate32);
            instruction.set_immediate32(value as u32);
        }
        Kind::imm32sex64 => {
            instruction.set_op_kind(i, OpKind::Immediate32to64);
            instruction.set_immediate32to64(i64::from(value as i32));
        }
        Kind::imm64 => {
            instruction.set_op_kind(i, OpKind::Immediate64);
            instruction.set_immediate64(value);
        }
        _ => return None,
    }
    Some(())
}

/// Keeps double shifts of words to the counts with a defined result.
fn shift_count(code: Code, value: u64) -> u8 {
    match code {
        Code::Shld_rm16_r16_imm8 | Code::Shrd_rm16_r16_imm8 => (value % 17) as u8,
        _ => value as u8,
    }
}
