//! Programs of many cases for A32 and T32, as [`crate::program`] makes them for A64.
//!
//! The oracle is `qemu-arm`; the engine begins at EL1 and gets to AArch32 by an ERET. R11 points to the
//! record at hand and R14 is the return address: cases leave both alone.

mod code;
pub mod generate;
pub mod user;

use crate::program::{BASE, VECTORS};
use crate::random::Rng;

pub use code::program;

/// Bytes of memory of a case.
pub const MEMORY: usize = 512;
/// Bytes above the stack pointer of all cases, and below it.
pub const STACK: u64 = 0x1_0000;
const ABOVE: u64 = 0x1000;
/// Offsets in a record.
const STATUS: u32 = 64;
const D: u32 = 80;
const MEM: u32 = 336;
/// Bytes of a record.
pub const SIZE: usize = MEM as usize + MEMORY;

/// A case's state, before or after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// R0 to R10, zero, R12, SP, zero, zero.
    pub r: [u32; 16],
    /// CPSR's flags, FPSCR, what ended the case (not zero if UNDEFINED), where the next instruction is.
    pub status: [u32; 4],
    /// D0 to D31.
    pub d: [u64; 32],
    /// Memory.
    pub memory: [u8; MEMORY],
}

/// What user programs see of CPSR: N, Z, C, V, Q and GE.
pub const FLAGS: u32 = 0xf80f_0000;

/// An instruction and the state it runs in.
#[derive(Clone, Debug)]
pub struct Case {
    /// The instruction; one of 16 bits in the upper half.
    pub word: u32,
    /// Condition of an IT instruction before it.
    pub it: Option<u32>,
    /// The IT block has the instruction twice, the second time for the opposite condition.
    pub twice: bool,
    /// Low registers that are compared before.
    pub compared: Option<(u32, u32)>,
    /// State before.
    pub before: Record,
}

/// A program: its image, and where things are.
#[derive(Clone, Debug)]
pub struct Program {
    /// The ELF file, which is loaded at [`BASE`].
    pub image: Vec<u8>,
    /// Where the records are.
    pub records: usize,
    /// How many.
    pub count: usize,
}

/// The engine's entry, at EL1.
pub const ENTRY: u64 = BASE + 0x100;
/// Exceptions from AArch32 arrive here.
const VECTOR: u64 = BASE + VECTORS + 0x600;

impl Record {
    /// Random state.
    pub fn random(rng: &mut Rng) -> Self {
        let mut record = Record {
            r: [0; 16],
            status: [0; 4],
            d: [0; 32],
            memory: [0; MEMORY],
        };
        for n in (0..11).chain([12]) {
            record.r[n] = rng.operand() as u32;
            if rng.below(4) == 0 {
                record.r[n] = (rng.operand() >> 32) as u32;
            }
        }
        record.d.iter_mut().for_each(|d| *d = rng.operand());
        record.memory.iter_mut().for_each(|b| *b = rng.word() as u8);
        record.status[0] = rng.word() as u32 & FLAGS;
        if rng.below(2) == 0 {
            // Rounding mode, flush to zero, default NaN, AHP.
            let fpscr = rng.below(4) << 22 | rng.below(2) << 24 | rng.below(2) << 25;
            record.status[1] = fpscr as u32;
            if rng.below(8) == 0 {
                record.status[1] |= 1 << 26;
            }
        }
        // N, Z, C, V of FPSCR.
        record.status[1] |= (rng.below(16) as u32) << 28;
        record
    }

    fn bytes(&self) -> Vec<u8> {
        let words = self.r.iter().chain(&self.status);
        let mut bytes: Vec<u8> = words.flat_map(|w| w.to_le_bytes()).collect();
        bytes.extend(self.d.iter().flat_map(|d| d.to_le_bytes()));
        bytes.extend(self.memory);
        bytes
    }

    fn parse(bytes: &[u8; SIZE]) -> Self {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        Record {
            r: std::array::from_fn(|n| word(4 * n)),
            status: std::array::from_fn(|n| word(STATUS as usize + 4 * n)),
            d: std::array::from_fn(|n| long(D as usize + 8 * n)),
            memory: std::array::from_fn(|n| bytes[MEM as usize + n]),
        }
    }
}

fn records_of(cases: usize) -> usize {
    (0x2400 + cases * 24).next_multiple_of(4096)
}

impl Program {
    /// Address of a case's memory, in a program of so many cases.
    pub fn memory_of(cases: usize, n: usize) -> u32 {
        (BASE + (records_of(cases) + n * SIZE) as u64) as u32 + MEM
    }

    /// The stack pointer of all cases.
    pub fn stack_of(cases: usize) -> u32 {
        let end = BASE + (records_of(cases) + cases * SIZE) as u64;
        ((end + STACK - ABOVE) & !15) as u32
    }

    /// Records from the memory they lie in.
    pub fn parse(&self, bytes: &[u8]) -> Vec<Record> {
        let (records, _) = bytes.as_chunks::<SIZE>();
        records.iter().map(Record::parse).collect()
    }
}
