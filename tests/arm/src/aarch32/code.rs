//! The code around the cases: A32, T32, and A64 for the engine's entry and exceptions.

use super::{BASE, Case, D, ENTRY, MEM, MEMORY, Program, SIZE, STACK, STATUS, VECTOR, records_of};

const LOAD: u64 = BASE + 0x200;
const STORE: u64 = BASE + 0x300;
const SIGNAL: u64 = BASE + 0x400;
const ACTION: u64 = BASE + 0x480;
const CODE: u64 = BASE + 0x2000;

/// System calls of Linux.
const SYS_EXIT: u32 = 1;
const SYS_WRITE: u32 = 4;
const SYS_SIGACTION: u32 = 174;
/// SIGILL, SIGSEGV, SIGBUS.
const SIGNALS: [u32; 3] = [4, 11, 7];

/// Bytes at an address.
struct Code {
    at: u64,
    bytes: Vec<u8>,
}

impl Code {
    fn new(at: u64) -> Self {
        Code {
            at,
            bytes: Vec::new(),
        }
    }

    fn here(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    fn put(&mut self, word: u32) {
        self.bytes.extend(word.to_le_bytes());
    }

    fn half(&mut self, half: u32) {
        self.bytes.extend((half as u16).to_le_bytes());
    }

    /// T32: an instruction of 32 bits.
    fn wide(&mut self, word: u32) {
        self.half(word >> 16);
        self.half(word);
    }

    /// A32: MOVW and MOVT.
    fn mov(&mut self, rd: u32, value: u32) {
        for (op, half) in [(0xe300_0000, value & 0xffff), (0xe340_0000, value >> 16)] {
            self.put(op | (half >> 12) << 16 | rd << 12 | half & 0xfff);
        }
    }

    /// A32: LDR and STR of a word at R11.
    fn ldr(&mut self, rt: u32, rn: u32, at: u32) {
        self.put(0xe590_0000 | rn << 16 | rt << 12 | at);
    }

    fn str(&mut self, rt: u32, rn: u32, at: u32) {
        self.put(0xe580_0000 | rn << 16 | rt << 12 | at);
    }

    /// A32: BL.
    fn bl(&mut self, to: u64) {
        let words = (to as i64 - self.here() as i64 - 8) >> 2;
        self.put(0xeb00_0000 | words as u32 & 0xff_ffff);
    }

    /// T32: BLX to A32.
    fn blx(&mut self, to: u64) {
        let from = (self.here() + 4) & !3;
        let distance = (to as i64 - from as i64) as u32;
        let bit = |n: u32| distance >> n & 1;
        let s = bit(24);
        let (j1, j2) = (bit(23) ^ s ^ 1, bit(22) ^ s ^ 1);
        let high = 0xf000 | s << 10 | distance >> 12 & 0x3ff;
        let low = 0xc000 | j1 << 13 | j2 << 11 | distance >> 1 & 0x7fe;
        self.half(high);
        self.half(low);
    }

    fn write(&self, image: &mut [u8], end: u64) {
        assert!(self.here() <= end, "code of {:#x} is too long", self.at);
        let at = (self.at - BASE) as usize;
        image[at..at + self.bytes.len()].copy_from_slice(&self.bytes);
    }
}

const BX_LR: u32 = 0xe12f_ff1e;
const SVC: u32 = 0xef00_0000;

fn load() -> Code {
    let mut code = Code::new(LOAD);
    code.ldr(0, 11, STATUS);
    code.put(0xe12c_f000); // msr apsr_nzcvqg, r0
    code.ldr(0, 11, STATUS + 4);
    code.put(0xeee1_0a10); // vmsr fpscr, r0
    code.put(0xe28b_0000 | D); // add r0, r11, #D
    code.put(0xecb0_0b20); // vldmia r0!, {d0-d15}
    code.put(0xecd0_0b20); // vldmia r0, {d16-d31}
    code.ldr(13, 11, 13 * 4);
    code.ldr(12, 11, 12 * 4);
    code.put(0xe89b_07ff); // ldmia r11, {r0-r10}
    code.put(0xf57f_f01f); // clrex
    code.put(BX_LR);
    code
}

fn store() -> Code {
    let mut code = Code::new(STORE);
    code.put(0xe88b_07ff); // stmia r11, {r0-r10}
    code.str(12, 11, 12 * 4);
    code.str(13, 11, 13 * 4);
    code.put(0xe10f_0000); // mrs r0, cpsr
    code.str(0, 11, STATUS);
    code.put(0xeef1_0a10); // vmrs r0, fpscr
    code.str(0, 11, STATUS + 4);
    code.put(0xe28b_0000 | D); // add r0, r11, #D
    code.put(0xeca0_0b20); // vstmia r0!, {d0-d15}
    code.put(0xecc0_0b20); // vstmia r0, {d16-d31}
    const { assert!(SIZE.is_multiple_of(16) && SIZE < 4096) };
    code.put(0xe28b_be00 | (SIZE as u32) >> 4); // add r11, r11, #SIZE
    code.put(BX_LR);
    code
}

/// Offsets in what a signal handler gets (Linux, `struct ucontext`): R11, the PC and CPSR.
const UC_R11: u32 = 20 + 12 + 11 * 4;
const UC_PC: u32 = 20 + 12 + 15 * 4;
const UC_CPSR: u32 = UC_PC + 4;

/// Marks the record and goes on behind the instruction, out of any IT block.
fn signal() -> Code {
    let mut code = Code::new(SIGNAL);
    code.ldr(3, 2, UC_R11);
    code.str(3, 3, STATUS + 8);
    code.ldr(1, 3, STATUS + 12);
    code.str(1, 2, UC_PC);
    code.ldr(1, 2, UC_CPSR);
    code.put(0xe3c1_1cfc); // bic r1, r1, #0xfc00
    code.put(0xe3c1_1406); // bic r1, r1, #0x06000000
    code.str(1, 2, UC_CPSR);
    code.put(BX_LR);
    code
}

/// The same as an exception vector in A64.
fn vector() -> Code {
    let mut code = Code::new(VECTOR);
    let ldr = |rt: u32, rn: u32, at: u32| 0xb940_0000 | (at / 4) << 10 | rn << 5 | rt;
    let and = |immr: u32, imms: u32| 0x9240_0000 | immr << 16 | imms << 10;
    code.put(0xd518_d080); // msr tpidr_el1, x0
    code.put(0xd538_5200); // mrs x0, esr_el1
    code.put(0xd35a_fc00); // lsr x0, x0, #26
    code.put(0xf100_441f); // cmp x0, #0x11 (SVC)
    code.put(0x5400_0041); // b.ne +8
    code.put(0xd400_0002); // hvc #0
    code.put(0xb900_0000 | ((STATUS + 8) / 4) << 10 | 11 << 5 | 11); // str w11, [x11]
    code.put(ldr(0, 11, STATUS + 12));
    code.put(0xd518_4020); // msr elr_el1, x0
    code.put(0xd538_4000); // mrs x0, spsr_el1
    code.put(and(48, 57)); // and x0, x0, #~0xfc00
    code.put(and(37, 61)); // and x0, x0, #~0x06000000
    code.put(0xd518_4000); // msr spsr_el1, x0
    code.put(0xd538_d080); // mrs x0, tpidr_el1
    code.put(0xd69f_03e0); // eret
    code
}

/// A64: to an address in A32.
fn entry(to: u64) -> Code {
    let mut code = Code::new(ENTRY);
    code.put(0xd280_0000 | ((to & 0xffff) as u32) << 5); // movz x0
    code.put(0xf2a0_0000 | ((to >> 16) as u32) << 5); // movk x0, lsl #16
    code.put(0xd518_4020); // msr elr_el1, x0
    code.put(0xd280_0200); // mov x0, #0x10: User mode
    code.put(0xd518_4000); // msr spsr_el1, x0
    code.put(0xd69f_03e0); // eret
    code
}

/// A program of these cases.
pub fn program(cases: &[Case], thumb: bool) -> Program {
    let records = records_of(cases.len());
    let first = BASE + records as u64;
    let mut image = vec![0; records + cases.len() * SIZE];
    load().write(&mut image, STORE);
    store().write(&mut image, SIGNAL);
    signal().write(&mut image, ACTION);
    vector().write(&mut image, CODE);
    // SA_SIGINFO and SA_NODEFER.
    for (n, word) in [SIGNAL as u32, 0x4000_0004, 0, 0, 0]
        .into_iter()
        .enumerate()
    {
        let at = (ACTION - BASE) as usize + n * 4;
        image[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    let mut code = Code::new(CODE);
    for signal in SIGNALS {
        code.mov(0, signal);
        code.mov(1, ACTION as u32);
        code.mov(2, 0);
        code.mov(3, 8);
        code.mov(7, SYS_SIGACTION);
        code.put(SVC);
    }
    let begin = code.here();
    entry(begin).write(&mut image, LOAD);
    code.mov(11, first as u32);
    if thumb {
        code.put(0xe28f_0001); // add r0, pc, #1
        code.put(0xe12f_ff10); // bx r0
    }
    let mut resumes = Vec::new();
    for case in cases {
        if thumb {
            code.blx(LOAD);
            if let Some((rn, rm)) = case.compared {
                code.half(0x4280 | rm << 3 | rn);
            }
            let twice = case.it.is_some() && case.twice;
            if let Some(cond) = case.it {
                let mask = if twice { (cond & 1 ^ 1) << 3 | 4 } else { 8 };
                code.half(0xbf00 | cond << 4 | mask);
            }
            for _ in 0..=u32::from(twice) {
                if case.word >> 27 >= 0b11101 {
                    code.wide(case.word);
                } else {
                    code.half(case.word >> 16);
                }
            }
            resumes.push(code.here() as u32);
            code.blx(STORE);
        } else {
            code.bl(LOAD);
            if let Some((rn, rm)) = case.compared {
                code.put(0xe150_0000 | rn << 16 | rm);
            }
            code.put(case.word);
            resumes.push(code.here() as u32);
            code.bl(STORE);
        }
    }
    if thumb {
        if code.here() & 2 != 0 {
            code.half(0x46c0);
        }
        code.half(0x4778); // bx pc
        code.half(0x46c0);
    }
    code.mov(0, 1);
    code.mov(1, first as u32);
    code.mov(2, (cases.len() * SIZE) as u32);
    code.mov(7, SYS_WRITE);
    code.put(SVC);
    code.mov(0, 0);
    code.mov(7, SYS_EXIT);
    code.put(SVC);
    code.write(&mut image, first);
    for (n, (case, resume)) in cases.iter().zip(resumes).enumerate() {
        let mut before = case.before.clone();
        before.status[3] = resume;
        let at = records + n * SIZE;
        image[at..at + SIZE].copy_from_slice(&before.bytes());
    }
    let header = header(image.len() as u32);
    image[..header.len()].copy_from_slice(&header);
    const { assert!(MEM as usize + MEMORY == SIZE) };
    Program {
        image,
        records,
        count: cases.len(),
    }
}

/// ELF and program header (System V ABI).
fn header(len: u32) -> Vec<u8> {
    let mut header = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0];
    header.resize(16, 0);
    let half = |h: &mut Vec<u8>, v: u16| h.extend(v.to_le_bytes());
    let word = |h: &mut Vec<u8>, v: u32| h.extend(v.to_le_bytes());
    half(&mut header, 2);
    half(&mut header, 40);
    // EABI version 5, hard float.
    for v in [1, CODE as u32, 52, 0, 0x0500_0400] {
        word(&mut header, v);
    }
    for v in [52, 32, 1, 40, 0, 0] {
        half(&mut header, v);
    }
    for v in [
        1,
        0,
        BASE as u32,
        BASE as u32,
        len,
        len + STACK as u32,
        7,
        4096,
    ] {
        word(&mut header, v);
    }
    header
}
