//! The register state that goes in and comes out, and how a run may end.

/// Size of a page on the host.
pub const PAGE: usize = 4096;

/// First of the two data pages. The pages before and after them are not mapped.
pub const DATA: u64 = 0x1000_0000;

/// Bytes of data memory at [`DATA`].
pub const DATA_SIZE: usize = 2 * PAGE;

/// The page the code runs in. The pages before and after it are not mapped, and every byte that
/// is not code under test is INT3.
pub const CODE_PAGE: u64 = 0x1100_0000;

/// Address of the first instruction.
pub const CODE: u64 = CODE_PAGE + 0x800;

/// Longest code that can be run, in bytes.
pub const CODE_MAX: usize = 1024;

/// The RFLAGS bits taken from the initial state: the arithmetic flags, DF, NT and ID. All others
/// run as a user program sees them: IF set, IOPL 0, and TF, AC and RF clear.
pub const RFLAGS_IN: u64 = 0x8d5 | 1 << 10 | 1 << 14 | 1 << 21;

/// The 512-byte memory image of FXSAVE64 (Intel SDM volume 1, section 10.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(16))]
pub struct FxsaveArea(pub [u8; 512]);

impl Default for FxsaveArea {
    /// The state after FNINIT and with MXCSR at its reset value.
    fn default() -> Self {
        let mut area = Self([0; 512]);
        area.set_fcw(0x37f);
        area.set_mxcsr(0x1f80);
        area
    }
}

macro_rules! field {
    ($(#[$doc:meta])* $get:ident, $set:ident, $ty:ty, $at:literal) => {
        $(#[$doc])*
        pub fn $get(&self) -> $ty {
            <$ty>::from_le_bytes(self.bytes($at))
        }

        /// Replaces the field of the getter's name.
        pub fn $set(&mut self, value: $ty) {
            self.put($at, &value.to_le_bytes());
        }
    };
}

impl FxsaveArea {
    field!(
        /// x87 control word.
        fcw, set_fcw, u16, 0
    );
    field!(
        /// x87 status word.
        fsw, set_fsw, u16, 2
    );
    field!(
        /// Abridged tag word: a set bit is a register in use, indexed by physical register.
        ftw, set_ftw, u8, 4
    );
    field!(
        /// Last x87 opcode.
        fop, set_fop, u16, 6
    );
    field!(
        /// Last x87 instruction pointer.
        fip, set_fip, u64, 8
    );
    field!(
        /// Last x87 data pointer.
        fdp, set_fdp, u64, 16
    );
    field!(
        /// SSE control and status.
        mxcsr, set_mxcsr, u32, 24
    );

    /// `ST(i)` as its 80-bit pattern in the low bits.
    pub fn st(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.bytes(32 + 16 * (i % 8))) & ((1 << 80) - 1)
    }

    /// Replaces the 80-bit pattern of `ST(i)`.
    pub fn set_st(&mut self, i: usize, value: u128) {
        self.put(32 + 16 * (i % 8), &(value & ((1 << 80) - 1)).to_le_bytes());
    }

    /// XMM register `i`.
    pub fn xmm(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.bytes(160 + 16 * (i % 16)))
    }

    /// Replaces XMM register `i`.
    pub fn set_xmm(&mut self, i: usize, value: u128) {
        self.put(160 + 16 * (i % 16), &value.to_le_bytes());
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.0[at + i])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Clears what the processor does not define or the operating system uses for itself: the
    /// reserved bytes, the MXCSR mask and the area past the registers.
    pub(crate) fn clean(&mut self) {
        self.0[5] = 0;
        self.0[28..32].fill(0);
        for i in 0..8 {
            let at = 32 + 16 * i;
            self.0[at + 10..at + 16].fill(0);
        }
        self.0[416..].fill(0);
    }
}

/// Everything a user-level instruction can see besides memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NativeState {
    /// General registers in encoding order: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub gpr: [u64; 16],
    /// RFLAGS. On the way in only the bits in [`RFLAGS_IN`] count; on the way out RF is clear,
    /// since it belongs to the exception frame and not to the instruction.
    pub rflags: u64,
    /// x87, MMX and SSE state.
    pub fx: FxsaveArea,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The code ran off its end.
    Done,
    /// An exception; the state is the one the operating system saw.
    Fault {
        /// Signal number the kernel made of it.
        signal: i32,
        /// Vector of the exception.
        trapno: u8,
        /// Error code the processor pushed, 0 for vectors without one.
        error_code: u64,
        /// CR2 for page faults, 0 otherwise.
        address: u64,
        /// RIP of the exception frame minus [`CODE`], modulo 2^64.
        rip_offset: u64,
    },
    /// The code did not end by itself.
    TimedOut,
}
