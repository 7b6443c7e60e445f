//! What an instruction leaves undefined, or up to the model of the processor.

use std::ops::Range;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, RflagsBits};

use crate::state::{DATA, DATA_SIZE, NativeState};

const CF: u64 = 1;
const AF: u64 = 1 << 4;
const OF: u64 = 1 << 11;

/// RFLAGS bits that iced names in its own order.
const RFLAGS: [(u32, u64); 7] = [
    (RflagsBits::CF, CF),
    (RflagsBits::PF, 1 << 2),
    (RflagsBits::AF, AF),
    (RflagsBits::ZF, 1 << 6),
    (RflagsBits::SF, 1 << 7),
    (RflagsBits::DF, 1 << 10),
    (RflagsBits::OF, OF),
];

/// Condition bits of the x87 status word.
const FSW: [(u32, u16); 4] = [
    (RflagsBits::C0, 1 << 8),
    (RflagsBits::C1, 1 << 9),
    (RflagsBits::C2, 1 << 10),
    (RflagsBits::C3, 1 << 14),
];

/// What not to compare after a case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Undefined {
    /// Bits of RFLAGS.
    pub rflags: u64,
    /// Condition bits of the x87 status word.
    pub fsw: u16,
    /// Offsets in the data pages: x87 pointers, and reserved parts of state images.
    pub memory: Vec<Range<usize>>,
}

/// RFLAGS bits that are undefined after `code`, whatever its operands.
pub fn undefined_flags(code: Code) -> u64 {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    rflags(&instruction)
}

impl Undefined {
    /// What `instruction` leaves undefined when it starts from `state` with its operand in memory
    /// at `address`.
    pub(super) fn of(instruction: &Instruction, state: &NativeState, address: Option<u64>) -> Self {
        let bits = instruction.rflags_undefined();
        let fsw = FSW
            .iter()
            .filter(|(from, _)| bits & from != 0)
            .fold(0, |m, (_, to)| m | to);
        let rflags = match shift_count(instruction, state) {
            Some(count) => after_shift(instruction, count),
            None => rflags(instruction),
        };
        let memory = match address.and_then(|a| usize::try_from(a.wrapping_sub(DATA)).ok()) {
            Some(at) => ranges(instruction.code())
                .iter()
                .map(|&(start, end)| (at + start).min(DATA_SIZE)..(at + end).min(DATA_SIZE))
                .collect(),
            None => Vec::new(),
        };
        Self {
            rflags,
            fsw,
            memory,
        }
    }
}

fn rflags(instruction: &Instruction) -> u64 {
    let bits = instruction.rflags_undefined();
    RFLAGS
        .iter()
        .filter(|(from, _)| bits & from != 0)
        .fold(0, |m, (_, to)| m | to)
}

/// The masked count of shifts and rotates.
fn shift_count(instruction: &Instruction, state: &NativeState) -> Option<u32> {
    let last = match instruction.mnemonic() {
        Mnemonic::Shl
        | Mnemonic::Sal
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Rol
        | Mnemonic::Ror
        | Mnemonic::Rcl
        | Mnemonic::Rcr => 1,
        Mnemonic::Shld | Mnemonic::Shrd => 2,
        _ => return None,
    };
    let count = match instruction.op_kind(last) {
        OpKind::Register => state.gpr[1] as u32,
        _ => u32::from(instruction.immediate8()),
    };
    Some(count & if bits(instruction) == 64 { 0x3f } else { 0x1f })
}

/// Intel SDM volume 2, "SAL/SAR/SHL/SHR", "RCL/RCR/ROL/ROR", "SHLD", "SHRD", flags affected.
fn after_shift(instruction: &Instruction, count: u32) -> u64 {
    let overflow = if count == 1 { 0 } else { OF };
    match (count, instruction.mnemonic()) {
        (0, _) => 0,
        (_, Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr) => overflow,
        (_, Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr) if count >= bits(instruction) => {
            AF | OF | CF
        }
        _ => AF | overflow,
    }
}

fn bits(instruction: &Instruction) -> u32 {
    let bytes = match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size(),
        _ => instruction.memory_size().size(),
    };
    8 * bytes as u32
}

/// Offsets of FIP, FCS, FOP, FDP, FDS and of reserved bytes in the images that are stored.
fn ranges(code: Code) -> &'static [(usize, usize)] {
    match code {
        Code::Fnstenv_m14byte | Code::Fnsave_m94byte => &[(6, 14)],
        Code::Fnstenv_m28byte | Code::Fnsave_m108byte => &[(12, 28)],
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte => &[
            (5, 24),
            (28, 32),
            (42, 48),
            (58, 64),
            (74, 80),
            (90, 96),
            (106, 112),
            (122, 128),
            (138, 144),
            (154, 160),
            (416, 512),
        ],
        _ => &[],
    }
}
