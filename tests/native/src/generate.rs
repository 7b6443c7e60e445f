//! Test cases: every user-level instruction form of the baseline CPU, with operands worth trying.
//!
//! A case is one instruction; branches come with a few bytes around them that show whether they
//! were taken. All operands in memory lie in the data pages, or by intent just outside.

mod exclusions;
mod memory;
mod operands;
mod rng;
mod special;
mod undefined;
mod values;

use std::fmt;

use iced_x86::{Code, Instruction, MemorySize, OpCodeOperandKind};

pub use rng::Rng;
pub use undefined::{Undefined, undefined_flags};

use crate::state::{DATA, DATA_SIZE, FxsaveArea, NativeState, RFLAGS_IN};
use values::Lanes;

/// Selectors a user program under Linux has in ES, CS, SS, DS, FS and GS: some instructions store
/// them.
pub const SELECTORS: [u16; 6] = [0, 0x33, 0x2b, 0, 0, 0];

const RSP: usize = 4;
const DF: u64 = 1 << 10;

/// The prefix of a form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Prefix {
    /// No prefix beyond those of the encoding.
    None,
    /// LOCK.
    Lock,
    /// REP, or REPE for the comparing string instructions.
    Rep,
    /// REPNE.
    Repne,
}

/// How far results may differ between processors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Precision {
    /// Not at all.
    Exact,
    /// RCPPS and its kin: a relative error of 1.5 * 2^-12.
    Estimate,
    /// x87 transcendental functions: an error of about one unit in the last place.
    Transcendental,
}

/// One way of writing one instruction: an opcode, register or memory operand, a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Form {
    /// The opcode and its operand kinds.
    pub code: Code,
    /// Whether the operand that can be either is in memory.
    pub memory: bool,
    /// LOCK or a repeat prefix.
    pub prefix: Prefix,
}

/// Bytes to run with the state to start from.
#[derive(Clone, Debug)]
pub struct Case {
    /// Code for [`crate::CODE`]. It ends by running off its end, or in a fault.
    pub bytes: Vec<u8>,
    /// The instruction under test within `bytes`.
    pub instruction: Instruction,
    /// Registers at the start.
    pub state: NativeState,
    /// Content of the data pages at the start.
    pub memory: Vec<u8>,
    /// Where its operand in memory begins, if it was placed.
    pub address: Option<u64>,
    /// What not to compare.
    pub undefined: Undefined,
}

/// Every form there is.
pub fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for code in Code::values() {
        let op = code.op_code();
        if exclusions::reason(op).is_some() {
            continue;
        }
        let kinds = op.op_kinds();
        let either = kinds
            .iter()
            .any(|&kind| operands::is_register_or_memory(kind));
        let always = kinds.contains(&OpCodeOperandKind::mem);
        for memory in [false, true] {
            if memory && !either && !always || !memory && always {
                continue;
            }
            let mut add = |prefix| {
                forms.push(Form {
                    code,
                    memory,
                    prefix,
                })
            };
            add(Prefix::None);
            if op.can_use_lock_prefix() && memory {
                add(Prefix::Lock);
            }
            if op.can_use_rep_prefix() {
                add(Prefix::Rep);
            }
            if op.can_use_repne_prefix() {
                add(Prefix::Repne);
            }
        }
    }
    forms
}

/// Why a code has no forms, or `None` if it has.
pub fn exclusion(code: Code) -> Option<&'static str> {
    exclusions::reason(code.op_code())
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Prefix::None => {}
            Prefix::Lock => f.write_str("LOCK ")?,
            Prefix::Rep => f.write_str("REP ")?,
            Prefix::Repne => f.write_str("REPNE ")?,
        }
        write!(f, "{:?}", self.code)?;
        if self.memory {
            f.write_str(" (memory)")
        } else {
            Ok(())
        }
    }
}

impl Form {
    /// How exact the results are.
    pub fn precision(&self) -> Precision {
        use iced_x86::Mnemonic::{
            F2xm1, Fcos, Fpatan, Fptan, Fsin, Fsincos, Fyl2x, Fyl2xp1, Rcpps, Rcpss, Rsqrtps,
            Rsqrtss,
        };
        match self.code.mnemonic() {
            Rcpps | Rcpss | Rsqrtps | Rsqrtss => Precision::Estimate,
            F2xm1 | Fcos | Fpatan | Fptan | Fsin | Fsincos | Fyl2x | Fyl2xp1 => {
                Precision::Transcendental
            }
            _ => Precision::Exact,
        }
    }

    /// A case that depends on the state of `rng` only.
    pub fn generate(&self, rng: &mut Rng) -> Case {
        // Some choices cannot be encoded together, such as AH with a REX prefix.
        loop {
            if let Some(case) = self.attempt(rng) {
                return case;
            }
        }
    }

    fn attempt(&self, rng: &mut Rng) -> Option<Case> {
        let lanes = self.lanes();
        let mut state = random_state(rng, lanes);
        let mut data = random_memory(rng);
        let plan = operands::choose(self, rng, &mut state)?;
        let mut instruction = plan.instruction;
        if let Some(address) = plan.address {
            memory::fill(self.code, address, &mut data, rng);
        }
        special::prepare(self, &plan, &mut state, &mut data, rng);
        let bytes = special::encode(&mut instruction, &mut state, &mut data, &plan, rng)?;
        let undefined = Undefined::of(&instruction, &state, plan.address);
        Some(Case {
            bytes,
            instruction,
            state,
            memory: data,
            address: plan.address,
            undefined,
        })
    }

    /// What the vector operands hold, as far as the operand in memory tells.
    fn lanes(&self) -> Lanes {
        match self.code.op_code().memory_size().element_type() {
            MemorySize::Float32 => Lanes::Single,
            MemorySize::Float64 => Lanes::Double,
            _ => Lanes::Integer,
        }
    }
}

fn random_state(rng: &mut Rng, lanes: Lanes) -> NativeState {
    let mut state = NativeState::default();
    for register in &mut state.gpr {
        *register = values::int(rng);
    }
    state.gpr[RSP] = stack_pointer(rng);
    state.rflags = rng.u64() & RFLAGS_IN & !(1 << 14 | 1 << 21) | 0x202;
    if rng.percent(70) {
        state.rflags &= !DF;
    }
    state.fx = random_fx(rng, lanes);
    state
}

/// Mostly aligned and with room on both sides, sometimes at the edges.
fn stack_pointer(rng: &mut Rng) -> u64 {
    match rng.below(20) {
        0 => DATA + rng.below(24),
        1 => DATA + DATA_SIZE as u64 - rng.below(24),
        2 => 1 << 63 | rng.u64(),
        3 => DATA + 0xff0 + rng.below(32),
        _ => DATA + 0x800 + 8 * rng.below(0x200),
    }
}

fn random_fx(rng: &mut Rng, lanes: Lanes) -> FxsaveArea {
    let mut fx = FxsaveArea::default();
    let fcw = values::fcw(rng);
    fx.set_fcw(fcw);
    fx.set_fsw(values::fsw(rng, fcw));
    fx.set_ftw(match rng.below(4) {
        0 => rng.u64() as u8,
        1 => 0,
        _ => 0xff,
    });
    fx.set_mxcsr(values::mxcsr(rng));
    for i in 0..8 {
        fx.set_st(i, values::f80(rng));
    }
    for i in 0..16 {
        fx.set_xmm(i, values::vector(rng, lanes));
    }
    fx
}

fn random_memory(rng: &mut Rng) -> Vec<u8> {
    let mut data = Vec::with_capacity(DATA_SIZE);
    while data.len() < DATA_SIZE {
        data.extend_from_slice(&rng.u64().to_le_bytes());
    }
    data
}

#[cfg(test)]
mod tests;
