//! Firmware for `virt` in a few hundred words, made by a test: begins at EL3, takes exceptions at every
//! level, tells on the serial port what it saw, and switches off.
//!
//! The program runs from RAM, where both worlds reach it. Its log is lines of two numbers: what was asked
//! ([`Program::note`]) and what came of it; an exception leaves a line with where it went, and its syndrome, return
//! address, address and saved state. Software of lower levels ends with SMC, or when an
//! interrupt is taken from it to a higher level than EL1.
//!
//! x20 to x28 are the frame's.

/// Where the program runs; its vectors come first, 2 KiB for each of EL1 to EL3.
const BASE: u64 = 0x4010_0000;
const HANDLERS: usize = 0x1800 / 4;
const LOG: u64 = 0x4020_0000;
/// Where the image has it, behind what copies it.
const IN_IMAGE: usize = 0x1000;
const UART: u64 = 0x0900_0000;
const SECURE_GPIO: u64 = 0x090b_0000;

/// A system register by op0, op1, CRn, CRm, op2.
pub type Reg = (u32, u32, u32, u32, u32);

/// A register of an exception level that has the same name at all three.
const fn level(el: u32, crn: u32, crm: u32, op2: u32) -> Reg {
    let op1 = match el {
        1 => 0,
        2 => 4,
        _ => 6,
    };
    (3, op1, crn, crm, op2)
}

/// `SCR_EL3`.
pub const SCR_EL3: Reg = level(3, 1, 1, 0);

const fn encoded((op0, op1, crn, crm, op2): Reg) -> u32 {
    (op0 & 1) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

/// MRS.
pub const fn mrs(rt: u32, reg: Reg) -> u32 {
    0xd530_0000 | encoded(reg) | rt
}

/// MSR.
pub const fn msr(reg: Reg, rt: u32) -> u32 {
    0xd510_0000 | encoded(reg) | rt
}

/// SMC.
pub const SMC: u32 = 0xd400_0003;
/// HVC.
pub const HVC: u32 = 0xd400_0002;
/// ISB.
pub const ISB: u32 = 0xd503_3fdf;
const ERET: u32 = 0xd69f_03e0;
const EQ: u32 = 0;
const NE: u32 = 1;
/// The log's register.
const TO: u32 = 28;

/// Four instructions that load a value.
pub fn mov(rd: u32, value: u64) -> [u32; 4] {
    let part = |n: u32| (value >> (16 * n)) as u32 & 0xffff;
    let piece = |n: u32| {
        let opcode = if n == 0 { 0xd280_0000 } else { 0xf280_0000 };
        opcode | n << 21 | part(n) << 5 | rd
    };
    [piece(0), piece(1), piece(2), piece(3)]
}

/// STR of a register into the log.
const fn log(rt: u32) -> u32 {
    0xf800_8400 | TO << 5 | rt
}

fn branch(condition: u32, words: i32) -> u32 {
    0x5400_0000 | (words as u32 & 0x7_ffff) << 5 | condition
}

/// A program in the making.
pub struct Program {
    code: Vec<u32>,
    /// What the numbers of the log mean.
    names: Vec<String>,
}

impl Default for Program {
    fn default() -> Self {
        let mut program = Program {
            code: vec![0; HANDLERS],
            names: Vec::new(),
        };
        let handlers = [1, 2, 3].map(|el| program.add_handler(el));
        for (table, handler) in handlers.into_iter().enumerate() {
            for entry in 0..16 {
                let at = table * 0x200 + entry * 0x20;
                let id = (table as u32 + 1) << 12 | (entry as u32) << 7;
                // MOVZ x20, B
                program.code[at] = 0xd280_0000 | id << 5 | 20;
                program.code[at + 1] = 0x1400_0000 | (handler - at - 1) as u32;
            }
        }
        program
    }
}

impl Program {
    fn add(&mut self, words: &[u32]) {
        self.code.extend(words);
    }

    fn address(&self, index: usize) -> u64 {
        BASE + 4 * index as u64
    }

    /// What all vectors of a level go to, their offset in x20: it leaves a line in the log and returns behind what
    /// trapped, or after an interrupt with all masked. EL3 goes on at x27 after an SMC.
    fn add_handler(&mut self, el: u32) -> usize {
        let at = self.code.len();
        let [spsr, elr, esr, far] = [(4, 0, 0), (4, 0, 1), (5, 2, 0), (6, 0, 0)]
            .map(|(crn, crm, op2)| level(el, crn, crm, op2));
        self.add(&mov(21, 1 << 32));
        // ORR x21, x21, x20
        self.add(&[0xaa14_02b5, log(21), mrs(23, esr)]);
        // The address counts for aborts alone: classes 0x20 to 0x27. LSR x22, x23, #29; CMP x22, #4
        self.add(&[0xd35d_fef6, 0xf100_12df, mrs(24, far)]);
        // CSEL x24, x24, xzr, EQ
        self.add(&[0x9a9f_0318]);
        // Interrupts have no syndrome. AND x22, x20, #0x180; CMP; CSEL x23, x23, xzr, EQ
        self.add(&mov(22, 0x180));
        self.add(&[0x8a16_0296, 0xf100_02df, 0x9a9f_02f7, 0x9a9f_0318]);
        self.add(&[
            log(23),
            mrs(21, elr),
            log(21),
            log(24),
            mrs(21, spsr),
            log(21),
        ]);
        // CBZ x22 to what is synchronous.
        let synchronous = self.code.len();
        self.add(&[0]);
        if el > 1 {
            // From below it would be taken again and again: the end. MOVZ x22, #0xc; AND; CMP
            self.add(&[
                0xd280_0196,
                0x8a16_02b6,
                0xf100_02df | el << 12,
                branch(EQ, 2),
            ]);
            // BR x27
            self.add(&[if el == 2 { SMC } else { 0xd61f_0360 }]);
        }
        self.add(&mov(22, 0x3c0));
        // ORR x21, x21, x22
        self.add(&[0xaa16_02b5, msr(spsr, 21), ERET]);
        self.code[synchronous] = 0xb400_0016 | ((self.code.len() - synchronous) as u32) << 5;
        // LSR x22, x23, #26
        self.add(&[0xd35a_fef6]);
        if el == 3 {
            // CMP x22, #0x17; BR x27
            self.add(&[0xf100_5edf, branch(NE, 2), 0xd61f_0360]);
        }
        for class in [0x15, 0x16, 0x17] {
            // CMP, to ERET.
            let left = (0x17 - class) * 2;
            self.add(&[0xf100_02df | class << 10, branch(EQ, left as i32 + 4)]);
        }
        // ADD x21, x21, #4
        self.add(&[mrs(21, elr), 0x9100_12b5, msr(elr, 21), ERET]);
        at
    }

    /// Words as they are.
    pub fn raw(&mut self, words: &[u32]) -> &mut Self {
        self.add(words);
        self
    }

    /// MSR of a value, by x1.
    pub fn set(&mut self, reg: Reg, value: u64) -> &mut Self {
        self.add(&mov(1, value));
        self.add(&[msr(reg, 1), ISB]);
        self
    }

    fn tag(&mut self, name: &str) {
        let number = self.names.len() as u64;
        self.names.push(name.to_owned());
        self.add(&mov(2, number));
        self.add(&[log(2)]);
    }

    /// Logs what a register reads as; after an exception something that it never is.
    pub fn note(&mut self, name: &str, reg: Reg) -> &mut Self {
        self.add(&mov(1, 0xdead_dead));
        self.add(&[mrs(1, reg)]);
        self.tag(name);
        self.add(&[log(1)]);
        self
    }

    /// Logs a word of memory.
    pub fn peek(&mut self, name: &str, address: u64) -> &mut Self {
        self.add(&mov(3, address));
        self.add(&mov(1, 0xdead_dead));
        // LDR w1, [x3]
        self.add(&[0xb940_0061]);
        self.tag(name);
        self.add(&[log(1)]);
        self
    }

    /// Stores a word.
    pub fn poke(&mut self, address: u64, value: u32) -> &mut Self {
        self.add(&mov(3, address));
        self.add(&mov(1, value.into()));
        // STR w1, [x3]; DSB SY
        self.add(&[0xb900_0061, 0xd503_3f9f]);
        self
    }

    /// At EL3: goes to a level with this SCR_EL3 and these bits of PSTATE.DAIF, and comes back.
    pub fn at(
        &mut self,
        el: u64,
        scr: u64,
        masked: u64,
        body: impl FnOnce(&mut Program),
    ) -> &mut Self {
        self.set(SCR_EL3, scr);
        let spsr = masked | el << 2 | u64::from(el != 0);
        self.set(level(3, 4, 0, 0), spsr);
        let moves = self.code.len();
        self.add(&[0; 4]);
        // MSR ELR_EL3, x1; ERET
        self.add(&mov(1, self.address(moves + 10)));
        self.add(&[msr(level(3, 4, 0, 1), 1), ERET]);
        body(self);
        self.add(&[SMC]);
        let after = mov(27, self.address(self.code.len()));
        self.code[moves..moves + 4].copy_from_slice(&after);
        self
    }

    /// The whole program as an image for `-bios`.
    pub fn image(&mut self, body: impl FnOnce(&mut Program)) -> Vec<u8> {
        let entry = self.code.len();
        for (el, offset) in [(1, 0), (2, 0x800), (3, 0x1000)] {
            self.set(level(el, 12, 0, 0), BASE + offset);
        }
        // HCR_EL2.RW, where there is EL2.
        self.set(level(2, 1, 1, 0), 1 << 31);
        self.add(&mov(TO, LOG));
        body(self);
        self.add_end();
        let mut first = Vec::new();
        first.extend(mov(0, IN_IMAGE as u64));
        first.extend(mov(1, BASE));
        first.extend(mov(2, self.code.len().div_ceil(2) as u64));
        // LDR x3, [x0], #8; STR x3, [x1], #8; SUBS x2, x2, #1
        first.extend([0xf840_8403, 0xf800_8423, 0xf100_0442, branch(NE, -3)]);
        first.extend(mov(4, self.address(entry)));
        // IC IALLU; DSB SY; ISB; BR x4
        first.extend([0xd508_751f, 0xd503_3f9f, ISB, 0xd61f_0080]);
        first.resize(IN_IMAGE / 4, 0);
        first.extend(&self.code);
        first.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Writes the log to the serial port, and switches off.
    fn add_end(&mut self) {
        self.add(&mov(0, LOG));
        self.add(&mov(1, UART));
        let outer = self.code.len();
        // CMP x0, x28; B.EQ to the end
        self.add(&[0xeb1c_001f, branch(EQ, 15)]);
        // LDR x2, [x0], #8; MOVZ x3, #60; then a digit: LSRV x4, x2, x3; AND x4, x4, #15
        self.add(&[0xf840_8402, 0xd280_0783]);
        let digit = self.code.len();
        // ADD x5, x4, #'0'; CMP x4, #10; ADD x6, x4, #'a' - 10; CSEL x5, x5, x6, LO; STR w5, [x1]
        self.add(&[0x9ac3_2444, 0x9240_0c84]);
        self.add(&[
            0x9100_c085,
            0xf100_289f,
            0x9101_5c86,
            0x9a86_30a5,
            0xb900_0025,
        ]);
        // SUBS x3, x3, #4; B.PL
        let back = digit as i32 - (self.code.len() as i32 + 1);
        self.add(&[0xf100_1063, branch(5, back)]);
        // A new line.
        self.add(&[0xd280_0145, 0xb900_0025]);
        let back = outer as i32 - self.code.len() as i32;
        self.add(&[0x1400_0000 | back as u32 & 0x3ff_ffff]);
        for (offset, value) in [(0x400, 1), (4, 1)] {
            self.poke(SECURE_GPIO + offset, value);
        }
        // WFI, and again.
        self.add(&[0xd503_207f, 0x17ff_ffff]);
    }

    /// The log of a run in words, a line for each thing noted or taken.
    pub fn describe(&self, console: &str) -> Vec<String> {
        let words = console.lines().filter(|line| line.trim().len() == 16);
        let mut words = words.filter_map(|line| u64::from_str_radix(line.trim(), 16).ok());
        let mut lines = Vec::new();
        while let Some(tag) = words.next() {
            let mut next = || words.next().unwrap_or(0);
            if tag >> 32 != 0 {
                let (el, offset) = (tag >> 12 & 3, tag & 0xfff);
                let [mut esr, elr, mut far, spsr] = [next(), next(), next(), next()];
                // Of an external abort the address may be told, or not (FnV).
                if matches!(esr >> 26, 0x24 | 0x25) && esr & 0x3f == 0x10 {
                    (esr, far) = (esr & !(1 << 10), 0);
                }
                lines.push(format!(
                    "  taken to EL{el} +{offset:#x}: {esr:#x} at {elr:#x}, {far:#x}, from {spsr:#x}"
                ));
            } else {
                let name = self.names.get(tag as usize).map_or("?", String::as_str);
                lines.push(format!("{name} = {:#x}", next()));
            }
        }
        lines
    }
}
