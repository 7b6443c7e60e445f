//! Programs of A32 and T32 at EL0 whose exceptions are logged at EL1, which returns to where it is told.

use accel_core::Executor;
use target_arm::Arm;

use super::{BASE, VECTORS};
use crate::engine::Machine;

/// Where programs are.
pub const CODE: u64 = BASE + 0x4000;
/// Memory for programs.
pub const DATA: u64 = BASE + 0x5000;
const LEN: usize = 0x6000;
const ENTRY: u64 = BASE + 0x100;
const COMMON: u64 = BASE + 0x1000;
const NEXT: u64 = COMMON + 9 * 4;
const RETURNS: u64 = BASE + 0x1800;
const LOG: u64 = BASE + 0x2000;
const END: u64 = BASE + 0x3000;

/// SPSR_ELx of User mode, and its T bit.
pub const A32: u64 = 0x10;
/// As [`A32`], T32.
pub const T32: u64 = 0x30;

/// An exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Offset in the vector table.
    pub vector: u64,
    /// ELR_EL1.
    pub pc: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// SPSR_EL1.
    pub spsr: u64,
}

impl Taken {
    /// ESR_EL1.EC.
    pub fn class(&self) -> u64 {
        self.esr >> 26
    }

    /// ESR_EL1.IL: 32 bits.
    pub fn is_long(&self) -> bool {
        self.esr >> 25 & 1 != 0
    }

    /// PSTATE.IT.
    pub fn it(&self) -> u64 {
        self.spsr >> 8 & 0xfc | self.spsr >> 25 & 3
    }
}

/// What a program left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Exceptions, in order.
    pub taken: Vec<Taken>,
    /// X0 to X14 at the end.
    pub x: Vec<u64>,
}

/// Bytes of A32.
pub fn a32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Bytes of T32, by halfwords.
pub fn t32(halves: &[u16]) -> Vec<u8> {
    halves.iter().flat_map(|h| h.to_le_bytes()).collect()
}

fn put(image: &mut [u8], at: u64, bytes: &[u8]) {
    let at = (at - BASE) as usize;
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn mov(rd: u32, value: u64) -> [u32; 2] {
    let low = 0xd280_0000 | ((value & 0xffff) as u32) << 5 | rd;
    [low, 0xf2a0_0000 | ((value >> 16 & 0xffff) as u32) << 5 | rd]
}

/// The image of a program: EL1's part, code, and where it goes at first and after each exception.
fn image(code: &[u8], returns: &[(u64, u64)]) -> Vec<u8> {
    let mut image = vec![0; LEN];
    let branch =
        |from: u64, to: u64| 0x1400_0000 | ((to.wrapping_sub(from) >> 2) as u32 & 0x3ff_ffff);
    for vector in [0x200u64, 0x400, 0x600] {
        let at = BASE + VECTORS + vector;
        // MOVZ X24, then on.
        let slot = [0xd280_0018 | (vector as u32) << 5, branch(at + 4, COMMON)];
        put(&mut image, at, &a32(&slot));
    }
    let log = |rt: u32| 0xf800_8400 | 20 << 5 | rt;
    let mut common = vec![log(24)];
    for register in [0xd538_4020, 0xd538_5200, 0xd538_6000, 0xd538_4000u32] {
        common.extend([register | 21, log(21)]);
    }
    assert_eq!(COMMON + 4 * common.len() as u64, NEXT);
    common.push(0xa8c1_0000 | 22 << 10 | 23 << 5 | 21); // ldp x21, x22, [x23], #16
    common.push(0xb400_0000 | 4 << 5 | 21); // cbz x21, +16
    common.push(0xd518_4020 | 21); // msr elr_el1, x21
    common.push(0xd518_4000 | 22); // msr spsr_el1, x22
    common.push(0xd69f_03e0); // eret
    common.extend((0..15).map(|n| 0xf900_0000 | n << 10 | 25 << 5 | n));
    common.push(0xd400_0002); // hvc #0
    put(&mut image, COMMON, &a32(&common));
    let mut start = Vec::new();
    for (register, value) in [(20, LOG), (23, RETURNS), (25, END)] {
        start.extend(mov(register, value));
    }
    start.push(branch(ENTRY + 4 * start.len() as u64, NEXT));
    put(&mut image, ENTRY, &a32(&start));
    let words = returns.iter().flat_map(|(pc, spsr)| [*pc, *spsr]);
    let table: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    put(&mut image, RETURNS, &table);
    put(&mut image, CODE, code);
    image
}

fn run_one(
    code: &[u8],
    returns: &[(u64, u64)],
    registers: &[(&str, u64)],
    executor: &mut dyn Executor<Arm>,
) -> Result<Outcome, String> {
    let machine = Machine {
        image: &image(code, returns),
        stack: 0,
        entry: ENTRY,
        el: 1,
        cases: 4000,
        registers,
    };
    let memory = machine.run(executor, 0, LEN)?;
    let word = |at: u64| {
        let at = (at - BASE) as usize;
        u64::from_le_bytes(std::array::from_fn(|n| memory[at + n]))
    };
    let taken = (0..returns.len() as u64).map(|n| {
        let at = |m: u64| word(LOG + n * 40 + m * 8);
        Taken {
            vector: at(0),
            pc: at(1),
            esr: at(2),
            far: at(3),
            spsr: at(4),
        }
    });
    Ok(Outcome {
        taken: taken.collect(),
        x: (0..15).map(|n| word(END + n * 8)).collect(),
    })
}

/// Runs a program on every executor: all come to the same. It begins at the first of `returns` (an address
/// and SPSR), goes on at the others after its exceptions, and ends with the exception after the last.
pub fn run(code: &[u8], returns: &[(u64, u64)]) -> Result<Outcome, String> {
    run_with(code, returns, &[])
}

/// As [`run`], with system registers set before.
pub fn run_with(
    code: &[u8],
    returns: &[(u64, u64)],
    registers: &[(&str, u64)],
) -> Result<Outcome, String> {
    let mut first: Option<Outcome> = None;
    for (name, mut executor) in crate::engine::executors() {
        let outcome = run_one(code, returns, registers, executor.as_mut());
        let outcome = outcome.map_err(|error| format!("{name}: {error}"))?;
        match &first {
            Some(first) if *first != outcome => {
                return Err(format!("{name}: {outcome:x?}, but the first {first:x?}"));
            }
            _ => first = Some(outcome),
        }
    }
    first.ok_or_else(|| "no executor".to_owned())
}

/// Runs anything: that it ends, or still runs when its time is over.
pub fn survive(code: &[u8], returns: &[(u64, u64)]) -> Result<(), String> {
    for (name, mut executor) in crate::engine::executors() {
        match run_one(code, returns, &[], executor.as_mut()) {
            Err(error) if !error.starts_with("Budget") && !error.starts_with("Halted") => {
                return Err(format!("{name}: {error}"));
            }
            _ => {}
        }
    }
    Ok(())
}
