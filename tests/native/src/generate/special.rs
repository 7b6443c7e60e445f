//! What single instructions need to be worth running: counts, stack content, images, targets.

use iced_x86::{Code, Encoder, FlowControl, Instruction, Mnemonic, OpCodeOperandKind, OpKind};

use super::memory::{get, put};
use super::operands::Plan;
use super::values::{self, Lanes};
use super::{Form, Prefix, RSP, Rng, random_fx};
use crate::state::{CODE, DATA, DATA_SIZE, NativeState, RFLAGS_IN};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// `lea r11, [r11 + 1]`: shows that it ran, and changes no flags.
const MARK: [u8; 4] = [0x4d, 0x8d, 0x5b, 0x01];
/// `jmp short` over the mark and another such jump.
const JMP_SHORT: u8 = 0xeb;

/// Adjusts registers and memory to the instruction.
pub(super) fn prepare(
    form: &Form,
    plan: &Plan,
    state: &mut NativeState,
    data: &mut [u8],
    rng: &mut Rng,
) {
    let repeated = form.prefix != Prefix::None;
    if is_string(form.code) {
        string(
            form,
            plan,
            repeated && form.prefix != Prefix::Lock,
            state,
            data,
            rng,
        );
    }
    match form.code.mnemonic() {
        Mnemonic::Xlatb => {
            let base = pointer(rng, 1).wrapping_sub(state.gpr[RAX] & 0xff);
            state.gpr[RBX] = sized(base, plan.short, rng);
        }
        Mnemonic::Maskmovq | Mnemonic::Maskmovdqu => {
            state.gpr[RDI] = sized(pointer(rng, 16), plan.short, rng);
        }
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz | Mnemonic::Jecxz
            if rng.percent(70) =>
        {
            state.gpr[RCX] = rng.pick(&[0, 1, 2, 1 << 32, 1 << 32 | 1]);
        }
        Mnemonic::Div | Mnemonic::Idiv => dividend(state, rng),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => {
            bit_offset(plan, state, rng)
        }
        Mnemonic::Shld | Mnemonic::Shrd => word_count(form.code, state),
        Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b => {
            expected(form, plan, state, data, rng);
        }
        Mnemonic::Enter | Mnemonic::Leave => state.gpr[RBP] = DATA + 0x400 + rng.below(0x1800),
        Mnemonic::Popf | Mnemonic::Popfq => {
            // TF and AC would reach the code around the instruction.
            let flags = rng.u64() & RFLAGS_IN | 0x202;
            put(data, state.gpr[RSP], &flags.to_le_bytes());
        }
        _ => {}
    }
    if let Some(address) = plan.address {
        image(form.code, address, data, rng);
    }
}

/// Whether RSI or RDI walk through memory.
fn is_string(code: Code) -> bool {
    let kinds = code.op_code().op_kinds();
    kinds.contains(&OpCodeOperandKind::seg_rSI) || kinds.contains(&OpCodeOperandKind::es_rDI)
}

/// Pointers, count and, for comparisons, memory that is equal for a while.
fn string(
    form: &Form,
    plan: &Plan,
    repeated: bool,
    state: &mut NativeState,
    data: &mut [u8],
    rng: &mut Rng,
) {
    let size = form.code.op_code().memory_size().size() as u64;
    let count = if repeated { rng.below(13) } else { 1 };
    let from = pointer(rng, size);
    let to = match rng.below(4) {
        // Overlapping by less than an element, or by a few.
        0 => from
            .wrapping_add(rng.below(4 * size + 1))
            .wrapping_sub(2 * size),
        _ => pointer(rng, size),
    };
    let equal = if rng.percent(50) {
        rng.below(count + 1)
    } else {
        0
    };
    let step = if state.rflags & super::DF != 0 {
        size.wrapping_neg()
    } else {
        size
    };
    for i in 0..equal {
        let offset = step.wrapping_mul(i);
        let value = match form.code.mnemonic() {
            Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => state.gpr[RAX],
            _ => get(data, from.wrapping_add(offset), size as usize),
        };
        put(
            data,
            to.wrapping_add(offset),
            &value.to_le_bytes()[..size as usize],
        );
    }
    state.gpr[RSI] = sized(from, plan.short, rng);
    state.gpr[RDI] = sized(to, plan.short, rng);
    if repeated {
        state.gpr[RCX] = sized(count, plan.short, rng);
    }
}

/// Somewhere in the data pages, sometimes across an edge.
fn pointer(rng: &mut Rng, size: u64) -> u64 {
    match rng.below(12) {
        0 => DATA + DATA_SIZE as u64 - rng.below(4 * size + 1),
        1 => DATA + rng.below(4 * size + 1),
        2 => DATA + DATA_SIZE as u64 / 2 - rng.below(4 * size + 1),
        3..6 => DATA + 0x100 + rng.below(DATA_SIZE as u64 - 0x200),
        _ => DATA + 0x100 + 16 * rng.below(DATA_SIZE as u64 / 16 - 0x20),
    }
}

/// With 32-bit addresses the high half must not matter.
fn sized(value: u64, short: bool, rng: &mut Rng) -> u64 {
    if short {
        value & 0xffff_ffff | rng.u64() << 32
    } else {
        value
    }
}

/// Mostly a high half that leaves the quotient in range.
fn dividend(state: &mut NativeState, rng: &mut Rng) {
    match rng.below(4) {
        0 => {}
        1 => state.gpr[RDX] = 0,
        2 => state.gpr[RDX] = ((state.gpr[RAX] as i64) >> 63) as u64,
        _ => {
            state.gpr[RDX] = rng.below(4);
            state.gpr[RAX] &= 0x7fff;
        }
    }
}

/// A bit offset that stays within the data pages, unless the address needs the register.
fn bit_offset(plan: &Plan, state: &mut NativeState, rng: &mut Rng) {
    let instruction = &plan.instruction;
    if plan.address.is_none() || instruction.op1_kind() != OpKind::Register {
        return;
    }
    let register = instruction.op1_register().full_register();
    if register == instruction.memory_base().full_register()
        || register == instruction.memory_index().full_register()
        || rng.percent(5)
    {
        return;
    }
    let offset = rng.below(0x4000).wrapping_sub(0x2000);
    let number = register.number();
    state.gpr[number] = match instruction.op1_register().size() {
        2 => offset & 0xffff | rng.u64() << 16,
        4 => offset & 0xffff_ffff | rng.u64() << 32,
        _ => offset,
    };
}

/// Keeps double shifts of words to the counts with a defined result.
fn word_count(code: Code, state: &mut NativeState) {
    let by_cl = matches!(code, Code::Shld_rm16_r16_CL | Code::Shrd_rm16_r16_CL);
    // If the address is made of RCX, changing it would lead elsewhere: the fault is as good.
    if by_cl && state.gpr[RCX] & 0x1f > 16 {
        state.gpr[RCX] &= !0x10;
    }
}

/// Half of the time, what the exchange compares with.
fn expected(form: &Form, plan: &Plan, state: &mut NativeState, data: &[u8], rng: &mut Rng) {
    if rng.percent(50) {
        return;
    }
    let instruction = &plan.instruction;
    let used = |number: usize| {
        [instruction.memory_base(), instruction.memory_index()]
            .iter()
            .any(|r| r.is_gpr() && r.full_register().number() == number)
    };
    let Some(address) = plan.address else {
        let register = instruction.op0_register();
        // AH to BH are not worth the trouble.
        if register.is_gpr() {
            state.gpr[RAX] = state.gpr[register.full_register().number()];
        }
        return;
    };
    if used(RAX) || used(RDX) {
        return;
    }
    match form.code {
        Code::Cmpxchg8b_m64 => {
            state.gpr[RAX] = get(data, address, 4);
            state.gpr[RDX] = get(data, address.wrapping_add(4), 4);
        }
        Code::Cmpxchg16b_m128 => {
            state.gpr[RAX] = get(data, address, 8);
            state.gpr[RDX] = get(data, address.wrapping_add(8), 8);
        }
        _ => state.gpr[RAX] = get(data, address, 8),
    }
}

/// Control words and whole states in memory.
fn image(code: Code, address: u64, data: &mut [u8], rng: &mut Rng) {
    let fcw = values::fcw(rng);
    let fsw = values::fsw(rng, fcw);
    match code {
        Code::Fldcw_m2byte => put(data, address, &fcw.to_le_bytes()),
        Code::Ldmxcsr_m32 => {
            let reserved = if rng.percent(10) {
                rng.u64() as u32 & 0xffff_0000
            } else {
                0
            };
            put(
                data,
                address,
                &(values::mxcsr(rng) | reserved).to_le_bytes(),
            );
        }
        Code::Fldenv_m14byte | Code::Frstor_m94byte => {
            put(data, address, &fcw.to_le_bytes());
            put(data, address.wrapping_add(2), &fsw.to_le_bytes());
            registers(code, address.wrapping_add(14), data, rng);
        }
        Code::Fldenv_m28byte | Code::Frstor_m108byte => {
            put(data, address, &fcw.to_le_bytes());
            put(data, address.wrapping_add(4), &fsw.to_le_bytes());
            registers(code, address.wrapping_add(28), data, rng);
        }
        Code::Fxrstor_m512byte | Code::Fxrstor64_m512byte => {
            let mut fx = random_fx(rng, Lanes::Integer);
            if rng.percent(5) {
                fx.set_mxcsr(rng.u64() as u32);
            }
            put(data, address, &fx.0);
        }
        _ => {}
    }
}

fn registers(code: Code, address: u64, data: &mut [u8], rng: &mut Rng) {
    if matches!(code, Code::Frstor_m94byte | Code::Frstor_m108byte) {
        for i in 0..8 {
            let value = values::f80(rng).to_le_bytes();
            put(data, address.wrapping_add(10 * i), &value[..10]);
        }
    }
}

/// Encodes the instruction; branches get a target and bytes that mark which way they went.
pub(super) fn encode(
    instruction: &mut Instruction,
    state: &mut NativeState,
    data: &mut [u8],
    plan: &Plan,
    rng: &mut Rng,
) -> Option<Vec<u8>> {
    match instruction.flow_control() {
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::Call => {
            let mark = MARK.len() as u64;
            if rng.percent(25) {
                // jmp over; back: mark; jmp end; over: branch back; end:
                let back = CODE + 2;
                let at = back + mark + 2;
                instruction.set_near_branch64(back);
                let branch = assemble(instruction, at)?;
                let mut bytes = vec![JMP_SHORT, MARK.len() as u8 + 2];
                bytes.extend_from_slice(&MARK);
                bytes.extend_from_slice(&[JMP_SHORT, branch.len() as u8]);
                bytes.extend_from_slice(&branch);
                Some(bytes)
            } else {
                // branch end; mark; end:
                instruction.set_near_branch64(CODE);
                let length = assemble(instruction, CODE)?.len() as u64;
                instruction.set_near_branch64(CODE + length + mark);
                with_mark(assemble(instruction, CODE)?)
            }
        }
        FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return => {
            let bytes = with_mark(assemble(instruction, CODE)?)?;
            let target = CODE + bytes.len() as u64;
            match (instruction.flow_control(), plan.address) {
                (FlowControl::Return, _) => put(data, state.gpr[RSP], &target.to_le_bytes()),
                (_, Some(address)) => put(data, address, &target.to_le_bytes()),
                (_, None) => state.gpr[instruction.op0_register().number()] = target,
            }
            Some(bytes)
        }
        _ => assemble(instruction, CODE),
    }
}

fn with_mark(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    bytes.extend_from_slice(&MARK);
    Some(bytes)
}

fn assemble(instruction: &Instruction, at: u64) -> Option<Vec<u8>> {
    let mut encoder = Encoder::try_new(64).ok()?;
    encoder.encode(instruction, at).ok()?;
    Some(encoder.take_buffer())
}
