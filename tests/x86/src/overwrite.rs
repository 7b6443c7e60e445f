//! Random programs that overwrite and remap themselves.
//!
//! Their code is a row of cells of 16 bytes, in two pages, one cell over the end between them. Each
//! cell holds a whole instruction or several, made for its place, and ends at its end: whatever the row
//! holds can run on. Stores put a whole new cell in place at once, or a new constant into an instruction, by the code's
//! own address or by another one of its memory. In half of all programs each page has a twin with other
//! cells, which page tables are changed to; cells that do that are alike in both, and the cell over the end is
//! an instruction with a constant, of which halves of any two are one. Calls and loops count down, so that each
//! program ends.

use target_x86::Segment;
use test_native::generate::Rng;
use test_native::kvm::SystemState;

/// Memory of a machine.
pub const MEMORY: usize = 0x8_0000;

const DIRECTORY: u32 = 0x1000;
const TABLE: u32 = 0x2000;
/// Where the code appears: in the middle of what is else mapped to itself.
const CODE: u32 = 0x1_0000;
/// Frames of the two pages and of their twins.
const FRAMES: [u32; 4] = [0x2_0000, 0x2_1000, 0x2_4000, 0x2_6000];
const DATA: u32 = 0x2_8000;
const STACK: u32 = 0x2_a000;
/// HLT.
const EXIT: u32 = 0x2_c000;
/// New cells and page table entries.
const POOL: u32 = 0x4_0000;

const PAGE: u32 = 0x1000;
const CELL: u32 = 16;
/// Cells of a program; the last leaves.
const CELLS: u32 = 44;
/// Present, writable, user, accessed, dirty.
const MAPPED: u32 = 0x67;

/// A program, and what it begins with.
pub struct Program {
    /// All of memory.
    pub memory: Vec<u8>,
    /// Registers.
    pub state: SystemState,
    /// It has REP MOVSB, which may be done in several goes that each count as an instruction.
    pub copies: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// May be overwritten.
    Free,
    /// Holds an instruction with a constant that may be overwritten.
    Constant,
    /// Changes the page tables, in two cells.
    Remap,
    /// Its second cell.
    Flush,
}

struct Maker<'a> {
    rng: &'a mut Rng,
    memory: Vec<u8>,
    pool: u32,
    start: u32,
    /// By twin and page.
    frames: [[u32; 2]; 2],
    roles: Vec<Role>,
    copies: bool,
}

impl Maker<'_> {
    fn below(&mut self, n: u32) -> u32 {
        self.rng.below(n.into()) as u32
    }

    fn put(&mut self, at: u32, bytes: &[u8]) {
        let at = at as usize;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn at(&self, cell: u32) -> u32 {
        self.start + cell * CELL
    }

    /// Where a byte of the code is in memory.
    fn physical(&self, twin: usize, va: u32) -> u32 {
        let page = (va - CODE) / PAGE;
        self.frames[twin][page as usize] + va % PAGE
    }

    /// An address of a cell of one twin, or of whichever is in place.
    fn address_of(&mut self, cell: u32) -> u32 {
        let va = self.at(cell);
        let twin = self.below(2) as usize;
        let [first, last] = [va, va + CELL - 1].map(|va| self.physical(twin, va));
        if last == first + CELL - 1 && self.below(2) == 0 {
            return first;
        }
        va
    }

    /// A register but the stack pointer and the counter.
    fn reg(&mut self) -> u8 {
        [0, 1, 2, 3, 6, 7][self.below(6) as usize]
    }

    fn with_address(code: &[u8], address: u32) -> Vec<u8> {
        let mut bytes = code.to_vec();
        bytes.extend(address.to_le_bytes());
        bytes
    }

    /// An opcode and a register, and an address without base.
    fn absolute(&mut self, opcode: u8, address: u32) -> Vec<u8> {
        let reg = self.reg();
        Self::with_address(&[opcode, reg << 3 | 5], address)
    }

    /// A cell that a store may go to, if there is one.
    fn target(&mut self, role: Role) -> Option<u32> {
        let cells = (0..CELLS - 1).filter(|cell| self.roles[*cell as usize] == role);
        let cells: Vec<u32> = cells.collect();
        (!cells.is_empty()).then(|| self.rng.pick(&cells))
    }

    fn pool(&mut self, bytes: &[u8]) -> u32 {
        let at = self.pool;
        self.put(at, bytes);
        self.pool += bytes.len() as u32;
        at
    }

    /// NOPs of several lengths.
    fn pad(&mut self, bytes: &mut Vec<u8>, len: usize) {
        const NOPS: [&[u8]; 5] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
        ];
        while bytes.len() < len {
            let most = (len - bytes.len()).min(5);
            let nop = NOPS[self.below(most as u32) as usize];
            bytes.extend(nop);
        }
    }

    fn arithmetic(&mut self) -> Vec<u8> {
        let (a, b) = (self.reg(), self.reg());
        let registers = 0xc0 | a << 3 | b;
        match self.below(9) {
            0 => vec![0x01, registers],
            1 => vec![0x11, registers],
            2 => vec![0x29, registers],
            3 => vec![0x31, registers],
            4 => vec![0x39, registers],
            5 => vec![0xd1, 0xc0 | a],
            6 => vec![0x40 | a],
            7 => vec![0x8d, 0x44 | a << 3, b | 0x40, self.below(256) as u8],
            _ => vec![0x0f, 0x40 | self.below(16) as u8, registers],
        }
    }

    /// A jump on a condition or without, to this address.
    fn jump(&mut self, from: u32, to: u32) -> Vec<u8> {
        let (mut bytes, len) = match self.below(4) {
            0 => (vec![0xe9], 5),
            _ => (vec![0x0f, 0x80 | self.below(16) as u8], 6),
        };
        bytes.extend(to.wrapping_sub(from + len).to_le_bytes());
        bytes
    }

    /// Code for a free cell.
    fn cell(&mut self, cell: u32, depth: u32) -> Vec<u8> {
        let at = self.at(cell);
        let last = CELLS - 1;
        match self.below(if depth < 3 { 16 } else { 10 }) {
            0 | 1 => {
                let mut bytes = Vec::new();
                while bytes.len() <= 12 {
                    bytes.extend(self.arithmetic());
                }
                bytes
            }
            2 => {
                let opcode = [0x03, 0x89, 0x8b][self.below(3) as usize];
                // Over the page's end, too.
                let place =
                    DATA + [self.below(64), PAGE - 4 + self.below(4)][self.below(2) as usize];
                let mut bytes = self.absolute(opcode, place);
                bytes.extend(self.arithmetic());
                bytes
            }
            3 => {
                let cell = self.below(CELLS);
                let place = self.address_of(cell) + self.below(12);
                let opcode = [0x03, 0x33][self.below(2) as usize];
                self.absolute(opcode, place)
            }
            4 => {
                let to = cell + 1 + self.below(10);
                let to = self.at(to.min(last));
                self.jump(at, to)
            }
            5 | 6 => {
                // dec ebp; jg
                let to = self.below(cell + 1);
                let to = self.at(to);
                let mut bytes = vec![0x4d, 0x0f, 0x8f];
                bytes.extend(to.wrapping_sub(at + 7).to_le_bytes());
                bytes
            }
            7 | 8 => {
                // dec ebp; jle over; call, at the end: it returns to the next cell.
                let mut bytes = Vec::new();
                self.pad(&mut bytes, 8);
                bytes.extend([0x4d, 0x7e, 5, 0xe8]);
                let to = self.below(CELLS);
                let to = self.at(to);
                bytes.extend(to.wrapping_sub(at + CELL).to_le_bytes());
                bytes
            }
            9 => {
                // jcc over; ret
                vec![0x70 | self.below(16) as u8, 1, 0xc3]
            }
            10 => match self.target(Role::Constant) {
                Some(to) => self.constant(to),
                None => self.arithmetic(),
            },
            11 => match self.target(Role::Free) {
                Some(to) if to != cell && self.copies => self.copy(to, depth),
                _ => self.arithmetic(),
            },
            _ => match self.target(Role::Free) {
                Some(to) => self.overwrite(to, depth),
                None => self.arithmetic(),
            },
        }
    }

    /// Puts something into the constant of an instruction.
    fn constant(&mut self, to: u32) -> Vec<u8> {
        let place = self.address_of(to) + 1;
        match self.below(5) {
            // mov byte
            0 => {
                let place = place + self.below(4);
                self.absolute(0x88, place)
            }
            1 => {
                let mut bytes = vec![0x66];
                let place = place + self.below(3);
                bytes.extend(self.absolute(0x89, place));
                bytes
            }
            // xchg, add, lock xadd
            2 => self.absolute(0x87, place),
            3 => self.absolute(0x01, place),
            _ => {
                let reg = self.reg();
                Self::with_address(&[0xf0, 0x0f, 0xc1, reg << 3 | 5], place)
            }
        }
    }

    /// What the cell `to` is to be, in the pool.
    fn new_cell(&mut self, to: u32, depth: u32) -> u32 {
        let mut bytes = self.cell(to, depth + 1);
        self.pad(&mut bytes, CELL as usize);
        self.pool(&bytes)
    }

    /// movups xmm0, [new]; movups [to], xmm0
    fn overwrite(&mut self, to: u32, depth: u32) -> Vec<u8> {
        let new = self.new_cell(to, depth);
        // At the end: if this is the cell, the next one is what follows.
        let mut bytes = Vec::new();
        self.pad(&mut bytes, 2);
        bytes.extend(Self::with_address(&[0x0f, 0x10, 0x05], new));
        let place = self.address_of(to);
        bytes.extend(Self::with_address(&[0x0f, 0x11, 0x05], place));
        bytes
    }

    /// mov esi, new; mov edi, to; push 16; pop ecx; rep movsb
    fn copy(&mut self, to: u32, depth: u32) -> Vec<u8> {
        let new = self.new_cell(to, depth);
        let mut bytes = Self::with_address(&[0xbe], new);
        let place = self.address_of(to);
        bytes.extend(Self::with_address(&[0xbf], place));
        bytes.extend([0x6a, CELL as u8, 0x59, 0xf3, 0xa4]);
        bytes
    }

    /// Has one of the pages be that of a twin: movq xmm0, [entry]; movd [table], xmm0; then INVLPG, or
    /// CR3 again.
    fn remap(&mut self) -> [Vec<u8>; 2] {
        let (twin, page) = (self.below(2) as usize, self.below(2));
        let entry = self.frames[twin][page as usize] | MAPPED;
        let mut wide = entry.to_le_bytes().to_vec();
        wide.extend([0; 4]);
        let from = self.pool(&wide);
        let mut change = Self::with_address(&[0xf3, 0x0f, 0x7e, 0x05], from);
        let to = TABLE + 4 * (CODE / PAGE + page);
        change.extend(Self::with_address(&[0x66, 0x0f, 0x7e, 0x05], to));
        let address = CODE + page * PAGE + self.below(PAGE);
        let mut flush = match self.below(3) {
            0 => vec![0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8],
            _ => Self::with_address(&[0x0f, 0x01, 0x3d], address),
        };
        self.pad(&mut flush, CELL as usize);
        [change, flush]
    }

    /// Whether a cell reaches over the end of a page.
    fn is_over(&self, cell: u32) -> bool {
        let at = self.at(cell);
        at / PAGE != (at + CELL - 1) / PAGE
    }

    fn make_roles(&mut self, has_twins: bool) {
        let mut cell = 0;
        while cell < CELLS - 2 {
            let role = match self.below(16) {
                _ if self.is_over(cell) && has_twins => Role::Constant,
                0 if has_twins && !self.is_over(cell + 1) => Role::Remap,
                1 | 2 => Role::Constant,
                _ => Role::Free,
            };
            self.roles[cell as usize] = role;
            if role == Role::Remap {
                cell += 1;
                self.roles[cell as usize] = Role::Flush;
            }
            cell += 1;
        }
    }

    /// Writes a cell of one twin.
    fn place(&mut self, twin: usize, cell: u32, bytes: &[u8]) {
        for (va, byte) in (self.at(cell)..).zip(bytes) {
            let at = self.physical(twin, va);
            self.put(at, &[*byte]);
        }
    }

    fn make_code(&mut self) {
        let both = |m: &mut Self, cell: u32, bytes: &[u8]| {
            m.place(0, cell, bytes);
            m.place(1, cell, bytes);
        };
        let mut flush = Vec::new();
        for cell in 0..CELLS - 1 {
            match self.roles[cell as usize] {
                Role::Free => {
                    for twin in 0..2 {
                        let mut bytes = self.cell(cell, 0);
                        self.pad(&mut bytes, CELL as usize);
                        self.place(twin, cell, &bytes);
                    }
                }
                Role::Constant => {
                    // mov reg, constant; add reg, reg
                    let reg = self.reg();
                    let constant = self.rng.u64() as u32;
                    let mut bytes = Self::with_address(&[0xb8 | reg], constant);
                    bytes.extend(self.arithmetic());
                    self.pad(&mut bytes, CELL as usize);
                    both(self, cell, &bytes);
                }
                Role::Remap => {
                    let [change, after] = self.remap();
                    both(self, cell, &change);
                    flush = after;
                }
                Role::Flush => both(self, cell, &flush),
            }
        }
        let last = CELLS - 1;
        let mut bytes = vec![0xe9];
        bytes.extend(EXIT.wrapping_sub(self.at(last) + 5).to_le_bytes());
        both(self, last, &bytes);
    }

    fn make_tables(&mut self) {
        self.put(DIRECTORY, &(TABLE | MAPPED).to_le_bytes());
        for page in 0..MEMORY as u32 / PAGE {
            let frame = match page.wrapping_sub(CODE / PAGE) {
                n @ 0..2 => self.frames[0][n as usize],
                _ => page * PAGE,
            };
            self.put(TABLE + 4 * page, &(frame | MAPPED).to_le_bytes());
        }
        for at in (STACK..STACK + PAGE).step_by(4) {
            self.put(at, &EXIT.to_le_bytes());
        }
        self.put(EXIT, &[0xf4]);
    }
}

/// A random program; without paging, its code is where it appears and has no twins.
pub fn program(rng: &mut Rng, is_paged: bool) -> Program {
    let mut frames = FRAMES;
    for i in (1..4).rev() {
        frames.swap(i, rng.below(i as u64 + 1) as usize);
    }
    if !is_paged {
        frames = [CODE, CODE + PAGE, CODE, CODE + PAGE];
    }
    let [a, b, c, d] = frames;
    // Some cell reaches over the end of the first page, or begins the second.
    let start = CODE + PAGE - CELL * (4 + rng.below(u64::from(CELLS) - 8) as u32);
    let copies = rng.below(2) == 0;
    let mut m = Maker {
        copies,
        memory: vec![0; MEMORY],
        pool: POOL,
        start: start + rng.below(u64::from(CELL)) as u32,
        frames: [[a, b], [c, d]],
        roles: vec![Role::Free; CELLS as usize],
        rng,
    };
    m.make_tables();
    let has_twins = is_paged && m.below(2) == 0;
    m.make_roles(has_twins);
    m.make_code();
    let memory = m.memory;
    let entry = m.start;
    let mut gpr = [0; 16];
    for register in &mut gpr[..8] {
        *register = rng.u64() & 0xffff_ffff;
    }
    gpr[4] = u64::from(STACK + PAGE / 2);
    gpr[5] = 10 + rng.below(250);
    let flat = |attributes| Segment {
        selector: 8,
        base: 0,
        limit: u32::MAX,
        attributes,
    };
    let system = |attributes| Segment {
        selector: 0,
        base: 0,
        limit: 0xffff,
        attributes,
    };
    let state = SystemState {
        gpr,
        rip: entry.into(),
        rflags: 2,
        segments: [0, 1, 2, 3, 4, 5].map(|n| flat(if n == 1 { 0xc09b } else { 0xc093 })),
        tr: system(0x8b),
        ldtr: system(0x82),
        // PE, MP, ET, NE, WP, PG; OSFXSR.
        cr0: 0x8001_0033 & if is_paged { u64::MAX } else { 0x7fff_ffff },
        cr3: DIRECTORY.into(),
        cr4: 1 << 9,
        ..SystemState::default()
    };
    Program {
        memory,
        state,
        copies,
    }
}
