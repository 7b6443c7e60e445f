//! Programs of many cases.

use crate::random::Rng;

/// Where the program lies.
pub const BASE: u64 = 0x1000_0000;
/// Offset of the handlers' code: a vector table (2 KiB aligned) for EL1.
pub const VECTORS: u64 = 0x800;
/// Offset of the first case's code.
const CODE: u64 = 0x2000;
/// First bytes of the file that are headers.
const HEADER: usize = 0x78;

/// Bytes of stack behind the records, for signal handlers.
pub const STACK: u64 = 0x1_0000;

/// Bytes of memory of a case.
pub const MEMORY: usize = 512;

/// A case's state, before or after. The layout is that of the program's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// X0 to X28, zero, zero, and SP.
    pub x: [u64; 32],
    /// NZCV, FPCR, FPSR, and what ended the case: 1 if UNDEFINED.
    pub status: [u64; 4],
    /// V0 to V31.
    pub v: [u128; 32],
    /// Memory.
    pub memory: [u8; MEMORY],
}

/// Offsets in a record.
const STATUS: u32 = 256;
const V: u32 = 288;
const MEM: u32 = 800;
/// Bytes of a record in memory.
pub const SIZE: usize = MEM as usize + MEMORY;

/// An instruction and the state it runs in.
#[derive(Clone, Debug)]
pub struct Case {
    /// The instruction.
    pub word: u32,
    /// State before.
    pub before: Record,
}

impl Record {
    /// All zero.
    pub fn new() -> Self {
        Record {
            x: [0; 32],
            status: [0; 4],
            v: [0; 32],
            memory: [0; MEMORY],
        }
    }

    /// Random state.
    pub fn random(rng: &mut Rng) -> Self {
        let mut record = Record::new();
        record.x[..29].iter_mut().for_each(|x| *x = rng.operand());
        for v in &mut record.v {
            *v = u128::from(rng.operand()) | u128::from(rng.operand()) << 64;
        }
        record.memory.iter_mut().for_each(|b| *b = rng.word() as u8);
        record.status[0] = rng.below(16) << 28;
        if rng.below(2) == 0 {
            // Rounding mode, flush to zero, default NaN, FZ16, AHP.
            let fpcr = rng.below(4) << 22 | rng.below(2) << 24 | rng.below(2) << 25;
            record.status[1] = fpcr | rng.below(2) << 19;
            if rng.below(8) == 0 {
                record.status[1] |= 1 << 26;
            }
        }
        record
    }

    fn bytes(&self) -> Vec<u8> {
        let words = self.x.iter().chain(&self.status);
        let mut bytes: Vec<u8> = words.flat_map(|w| w.to_le_bytes()).collect();
        bytes.extend(self.v.iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(self.memory);
        bytes
    }

    /// From a program's memory.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let mut record = Record::new();
        for (n, x) in record.x.iter_mut().chain(&mut record.status).enumerate() {
            *x = word(n * 8)?;
        }
        for (n, v) in record.v.iter_mut().enumerate() {
            let at = V as usize + n * 16;
            *v = u128::from(word(at)?) | u128::from(word(at + 8)?) << 64;
        }
        record.memory = bytes.get(MEM as usize..SIZE)?.try_into().ok()?;
        Some(record)
    }
}

impl Default for Record {
    fn default() -> Self {
        Record::new()
    }
}

/// A program: an ELF file, which is also what lies at [`BASE`].
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub image: Vec<u8>,
    /// Offset of the records.
    pub records: usize,
    /// Number of cases.
    pub count: usize,
}

/// Offset of the records.
fn records_of(cases: usize) -> usize {
    (CODE as usize + cases * 12 + 0x400).next_multiple_of(4096)
}

/// Instructions one after the other.
struct Code {
    words: Vec<u32>,
    at: u64,
}

impl Code {
    fn new(at: u64) -> Self {
        Code {
            words: Vec::new(),
            at,
        }
    }

    fn here(&self) -> u64 {
        self.at + self.words.len() as u64 * 4
    }

    fn put(&mut self, word: u32) {
        self.words.push(word);
    }

    /// BL or B.
    fn branch(&mut self, opcode: u32, to: u64) {
        let words = (to.wrapping_sub(self.here()) >> 2) as u32 & 0x03ff_ffff;
        self.put(opcode | words);
    }

    fn mov(&mut self, rd: u32, value: u64) {
        for hw in 0..4u32 {
            let part = (value >> (16 * hw)) as u32 & 0xffff;
            let opcode = if hw == 0 { 0xd280_0000 } else { 0xf280_0000 };
            self.put(opcode | hw << 21 | part << 5 | rd);
        }
    }

    fn ldr(&mut self, rt: u32, rn: u32, offset: u32) {
        self.put(0xf940_0000 | (offset / 8) << 10 | rn << 5 | rt);
    }

    fn str(&mut self, rt: u32, rn: u32, offset: u32) {
        self.put(0xf900_0000 | (offset / 8) << 10 | rn << 5 | rt);
    }

    fn write(&self, image: &mut [u8]) {
        let mut at = (self.at - BASE) as usize;
        for word in &self.words {
            image[at..at + 4].copy_from_slice(&word.to_le_bytes());
            at += 4;
        }
    }
}

/// NZCV, FPCR and FPSR as operands of MRS and MSR.
const NZCV: u32 = 0xd51b_4200;
const FPCR: u32 = 0xd51b_4400;
const FPSR: u32 = 0xd51b_4420;
/// Makes an MRS of an MSR.
const READ: u32 = 1 << 21;

const RET: u32 = 0xd65f_03c0;
const SVC: u32 = 0xd400_0001;
const HVC: u32 = 0xd400_0002;
const ERET: u32 = 0xd69f_03e0;

/// Loads the state at X29; returns by X30.
fn load(code: &mut Code) {
    for (n, register) in [NZCV, FPCR, FPSR].into_iter().enumerate() {
        code.ldr(0, 29, STATUS + 8 * n as u32);
        code.put(register);
    }
    code.ldr(0, 29, 31 * 8);
    code.put(0x9100_0000 | 31); // mov sp, x0
    for n in 0..32 {
        code.put(0x3dc0_0000 | (V / 16 + n) << 10 | 29 << 5 | n);
    }
    for n in 0..29 {
        code.ldr(n, 29, n * 8);
    }
    code.put(0xd503_3f5f); // clrex
    code.put(RET);
}

/// Stores the state at X29 and goes on to the next record.
fn store(code: &mut Code) {
    for n in 0..29 {
        code.str(n, 29, n * 8);
    }
    code.put(0x9100_03e0); // mov x0, sp
    code.str(0, 29, 31 * 8);
    for (n, register) in [NZCV, FPCR, FPSR].into_iter().enumerate() {
        code.put(register | READ);
        code.str(0, 29, STATUS + 8 * n as u32);
    }
    for n in 0..32 {
        code.put(0x3d80_0000 | (V / 16 + n) << 10 | 29 << 5 | n);
    }
    code.put(0x9100_0000 | (SIZE as u32) << 10 | 29 << 5 | 29);
    code.put(RET);
}

/// Offsets in what a signal handler gets (Linux, `struct ucontext`): X29 and the PC.
const UC_X29: u32 = 176 + 8 + 29 * 8;
const UC_PC: u32 = 176 + 8 + 32 * 8;

/// System calls of Linux.
const SYS_WRITE: u64 = 64;
const SYS_EXIT: u64 = 93;
const SYS_SIGACTION: u64 = 134;

/// Signals that mark a case: SIGILL, SIGSEGV, SIGBUS.
const SIGNALS: [u64; 3] = [4, 11, 7];

impl Program {
    /// A program of these cases.
    pub fn new(cases: &[Case]) -> Self {
        let load_at = BASE + 0x200;
        let store_at = BASE + 0x400;
        let signal_at = BASE + 0x700;
        let action_at = BASE + 0x780;
        let start = BASE + CODE;
        let records = records_of(cases.len());
        let mut image = vec![0; records + cases.len() * SIZE];

        let mut routine = Code::new(load_at);
        load(&mut routine);
        assert!(routine.here() <= store_at);
        routine.write(&mut image);
        let mut routine = Code::new(store_at);
        store(&mut routine);
        assert!(routine.here() <= signal_at);
        routine.write(&mut image);

        // Signal handler: marks the record, skips the instruction.
        let mut handler = Code::new(signal_at);
        handler.ldr(1, 2, UC_X29);
        handler.str(0, 1, STATUS + 24);
        handler.ldr(1, 2, UC_PC);
        handler.put(0x9100_1021); // add x1, x1, #4
        handler.str(1, 2, UC_PC);
        handler.put(RET);
        handler.write(&mut image);
        // SA_SIGINFO and SA_NODEFER.
        let action = [signal_at, 0x4000_0004, 0, 0];
        for (n, word) in action.into_iter().enumerate() {
            let at = (action_at - BASE) as usize + n * 8;
            image[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }

        // The same as an exception vector, for synchronous exceptions from EL0.
        let mut vector = Code::new(BASE + VECTORS + 0x400);
        vector.put(0xd518_d080); // msr tpidr_el1, x0
        vector.put(0xd538_5200); // mrs x0, esr_el1
        vector.put(0xd35a_fc00); // lsr x0, x0, #26
        vector.put(0xf100_541f); // cmp x0, #0x15 (SVC)
        vector.put(0x5400_0041); // b.ne +8
        vector.put(HVC);
        vector.str(29, 29, STATUS + 24);
        vector.put(0xd538_4020); // mrs x0, elr_el1
        vector.put(0x9100_1000); // add x0, x0, #4
        vector.put(0xd518_4020); // msr elr_el1, x0
        vector.put(0xd538_d080); // mrs x0, tpidr_el1
        vector.put(ERET);
        vector.write(&mut image);

        let mut code = Code::new(start);
        // The first case's marker: under the engine this system call ends the program.
        for signal in SIGNALS {
            code.mov(0, signal);
            code.mov(1, action_at);
            code.mov(2, 0);
            code.mov(3, 8);
            code.mov(8, SYS_SIGACTION);
            code.put(SVC);
        }
        let entry = code.here();
        code.mov(29, BASE + records as u64);
        for case in cases {
            code.branch(0x9400_0000, load_at);
            code.put(case.word);
            code.branch(0x9400_0000, store_at);
        }
        code.mov(0, 1);
        code.mov(1, BASE + records as u64);
        code.mov(2, (cases.len() * SIZE) as u64);
        code.mov(8, SYS_WRITE);
        code.put(SVC);
        code.mov(0, 0);
        code.mov(8, SYS_EXIT);
        code.put(SVC);
        assert!(code.here() <= BASE + records as u64);
        code.write(&mut image);
        for (n, case) in cases.iter().enumerate() {
            let at = records + n * SIZE;
            image[at..at + SIZE].copy_from_slice(&case.before.bytes());
        }
        let program = Program {
            image: Vec::new(),
            records,
            count: cases.len(),
        };
        program.with_header(image, start, entry)
    }

    /// ELF and program header (System V ABI); the engine's entry goes where nothing else is.
    fn with_header(mut self, mut image: Vec<u8>, start: u64, entry: u64) -> Self {
        let len = image.len() as u64;
        let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        header.resize(16, 0);
        let half = |h: &mut Vec<u8>, v: u16| h.extend(v.to_le_bytes());
        let word = |h: &mut Vec<u8>, v: u32| h.extend(v.to_le_bytes());
        let long = |h: &mut Vec<u8>, v: u64| h.extend(v.to_le_bytes());
        half(&mut header, 2);
        half(&mut header, 183);
        word(&mut header, 1);
        for v in [start, 64, 0] {
            long(&mut header, v);
        }
        word(&mut header, 0);
        for v in [64, 56, 1, 64, 0, 0] {
            half(&mut header, v);
        }
        word(&mut header, 1);
        word(&mut header, 7);
        for v in [0, BASE, BASE, len, len + STACK, 4096] {
            long(&mut header, v);
        }
        assert_eq!(header.len(), HEADER);
        image[..HEADER].copy_from_slice(&header);
        image[HEADER..HEADER + 8].copy_from_slice(&entry.to_le_bytes());
        self.image = image;
        self
    }

    /// Where the engine begins.
    pub fn entry(&self) -> u64 {
        let bytes = self.image[HEADER..HEADER + 8].try_into();
        u64::from_le_bytes(bytes.unwrap_or_default())
    }

    /// Address of a case's memory, in a program of so many cases.
    pub fn memory_of(cases: usize, n: usize) -> u64 {
        BASE + (records_of(cases) + n * SIZE) as u64 + u64::from(MEM)
    }

    /// The stack pointer of all cases.
    pub fn stack_of(cases: usize) -> u64 {
        BASE + (records_of(cases) + cases * SIZE) as u64 / 16 * 16 + STACK - 0x100
    }

    /// Records from the memory they lie in.
    pub fn parse(&self, bytes: &[u8]) -> Vec<Record> {
        let (records, _) = bytes.as_chunks::<SIZE>();
        records.iter().filter_map(|r| Record::parse(r)).collect()
    }
}
