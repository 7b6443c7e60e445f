//! What executors know of an x87 unit (Intel SDM vol. 1, chapter 8): where it keeps its state, and what helpers
//! do to it that are called while all its exceptions are masked.
//!
//! A helper is the meaning. An executor whose host has such a unit may do without the call, where no
//! register is found empty or full that must not be.

/// Where a unit keeps its state: offsets in bytes from the start of [`Core::arch`](crate::Core::arch).
#[derive(Clone, Copy, Debug)]
pub struct X87Layout {
    /// Eight physical registers, 16 bytes each: significand, sign and exponent.
    pub registers: usize,
    /// Number of the physical register that is ST(0), 0 to 7. 8 bits.
    pub top: usize,
    /// Bit n: physical register n is not empty. 8 bits.
    pub used: usize,
    /// The status word, TOP and, while all exceptions are masked, ES and B zero. 16 bits.
    pub status: usize,
    /// The control word. 16 bits.
    pub control: usize,
    /// Offset of the last instruction. 64 bits.
    pub ip: usize,
    /// Offset of the last memory operand. 64 bits.
    pub dp: usize,
}

/// What a memory operand holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum X87Format {
    /// binary32.
    F32,
    /// binary64.
    F64,
    /// Double extended, ten bytes.
    F80,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 18 decimal digits, ten bytes.
    Bcd,
}

impl X87Format {
    /// By its number; numbers beyond are the last's.
    pub fn from_number(n: u8) -> Self {
        match n {
            0 => X87Format::F32,
            1 => X87Format::F64,
            2 => X87Format::F80,
            3 => X87Format::I16,
            4 => X87Format::I32,
            5 => X87Format::I64,
            _ => X87Format::Bcd,
        }
    }

    /// Bytes in memory.
    pub fn bytes(self) -> u8 {
        match self {
            X87Format::I16 => 2,
            X87Format::F32 | X87Format::I32 => 4,
            X87Format::F64 | X87Format::I64 => 8,
            X87Format::F80 | X87Format::Bcd => 10,
        }
    }
}

/// Everything about an x87 instruction but its addresses and values: the first argument of its helper.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct X87Form {
    /// Number of the operation within its helper.
    pub op: u8,
    /// Stack register of the destination.
    pub dst: u8,
    /// Stack register of the source.
    pub src: u8,
    /// Format of the memory operand, or `None` for registers.
    pub format: Option<X87Format>,
    /// Registers popped afterwards.
    pub pops: u8,
    /// Translation context of the memory operand.
    pub ctx: u8,
    /// Quiet (FUCOM), truncating (FISTTP).
    pub variant: bool,
}

impl X87Form {
    /// Byte of the packed form that holds [`dst`](Self::dst).
    pub const DST: usize = 1;
    /// Byte of the packed form that holds [`src`](Self::src).
    pub const SRC: usize = 2;

    /// As an argument.
    pub fn pack(self) -> u64 {
        let format = self.format.map_or(0xff, |f| f as u8);
        u64::from_le_bytes([
            self.op,
            self.dst,
            self.src,
            format,
            self.pops,
            self.ctx,
            u8::from(self.variant),
            0,
        ])
    }

    /// Of an argument.
    pub fn unpack(bits: u64) -> Self {
        let [op, dst, src, format, pops, ctx, variant, _] = bits.to_le_bytes();
        X87Form {
            op,
            dst,
            src,
            format: (format != 0xff).then(|| X87Format::from_number(format)),
            pops,
            ctx,
            variant: variant != 0,
        }
    }
}

/// What a helper does. All but `Changes` is only called while all exceptions are masked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum X87Op {
    /// (form): ST(dst) = ST(dst) op ST(src), and pops. Operations: addition, multiplication, subtraction, the
    /// same with its operands exchanged, division, so too.
    Arith,
    /// (form, bits): ST(dst) = ST(dst) op value.
    ArithValue,
    /// (form): ST(0) with ST(src), to the condition codes; pops.
    Compare,
    /// (form, bits): ST(0) with a value.
    CompareValue,
    /// (form): ST(0) with ST(src): CF, PF and ZF in their places; pops.
    CompareFlags,
    /// (form, bits, sign and exponent of `F80`): pushes a value.
    Load,
    /// (form): pushes ST(src).
    LoadRegister,
    /// (form): ST(dst) = ST(0), and pops.
    StoreRegister,
    /// (form): ST(0) in the form's format, at most 64 bits.
    Convert,
    /// (): the significand of ST(0).
    Significand,
    /// (): sign and exponent of ST(0).
    SignExponent,
    /// (): pops one register.
    Pop,
    /// (form): exchanges ST(0) and ST(src).
    Exchange,
    /// (): ST(0) = -ST(0).
    ChangeSign,
    /// (): ST(0) = |ST(0)|.
    Absolute,
    /// (): ST(0) = its square root.
    SquareRoot,
    /// (): ST(0) rounded to an integer.
    Round,
    /// (): the status word.
    ReadStatus,
    /// (): the control word.
    ReadControl,
    /// (value, next instruction's offset): FLDCW. The helper is called if it unmasks an exception.
    LoadControl,
    /// (instruction's offset).
    Note,
    /// (instruction's offset, operand's offset).
    NoteData,
    /// (n): MMX register n.
    GetMmx,
    /// (n, value): writes MMX register n.
    SetMmx,
    /// (): as each MMX instruction does, TOP is 0 and no register empty.
    TouchMmx,
    /// Anything: the control word, or that an exception was raised, may be other than before.
    Changes,
}
