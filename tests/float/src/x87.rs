//! The host's x87 unit. Each function runs one instruction under the given control word; where nothing else is said all
//! exceptions must be masked in it.

use core::arch::asm;

use target_softfloat::F80;

/// A double extended as `fld` and `fstp` see it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Memory {
    sig: u64,
    se: u16,
}

impl From<F80> for Memory {
    fn from(value: F80) -> Self {
        Self {
            sig: value.sig,
            se: value.se,
        }
    }
}

impl From<Memory> for F80 {
    fn from(value: Memory) -> Self {
        Self {
            sig: value.sig,
            se: value.se,
        }
    }
}

macro_rules! on_stack {
    ($($name:ident: $($op:literal),+;)*) => {$(
        #[doc = concat!($("`", $op, "` ",)+ "with the operands in ST(0) and ST(1): ST(0) and the status word.")]
        ///
        /// A single instruction may have exceptions unmasked: no waiting instruction follows before they are cleared.
        pub fn $name(st0: F80, st1: F80, control: u16) -> (F80, u16) {
            let (a, b) = (Memory::from(st0), Memory::from(st1));
            let mut out = Memory::default();
            let mut status = 0_u16;
            // SAFETY: the x87 stack is empty on entry and FNINIT empties it again; all pointers are to live locals of
            // at least the size accessed.
            unsafe {
                asm!(
                    "fninit",
                    "fldcw [{control}]",
                    "fld tbyte ptr [{b}]",
                    "fld tbyte ptr [{a}]",
                    $($op,)+
                    "fnstsw [{status}]",
                    "fnclex",
                    "fstp tbyte ptr [{out}]",
                    "fninit",
                    a = in(reg) &raw const a, b = in(reg) &raw const b, out = in(reg) &raw mut out,
                    control = in(reg) &raw const control, status = in(reg) &raw mut status,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack),
                );
            }
            (out.into(), status)
        }
    )*};
}
on_stack! {
    fadd: "fadd st(0), st(1)";
    fsub: "fsub st(0), st(1)";
    fmul: "fmul st(0), st(1)";
    fdiv: "fdiv st(0), st(1)";
    fsqrt: "fsqrt";
    fprem: "fprem";
    fprem1: "fprem1";
    fscale: "fscale";
    frndint: "frndint";
    fxtract_significand: "fxtract";
    fxtract_exponent: "fxtract", "fxch";
    fcom: "fcom";
    fucom: "fucom";
    f2xm1: "f2xm1";
    fyl2x: "fyl2x";
    fyl2xp1: "fyl2xp1";
    fpatan: "fpatan";
    fsin: "fsin";
    fcos: "fcos";
    fld1: "fld1";
    fldl2t: "fldl2t";
    fldl2e: "fldl2e";
    fldpi: "fldpi";
    fldlg2: "fldlg2";
    fldln2: "fldln2";
    fldz: "fldz";
}

/// `fptan`: the tangent (or the untouched operand when C2 is set) and the status word.
pub fn fptan(st0: F80, control: u16) -> (F80, u16) {
    // FXCH would bring the operand of an argument out of range under an empty register: look at C2 first.
    let (top, status) = fptan_top(st0, st0, control);
    if status & 0x400 != 0 {
        (top, status)
    } else {
        fptan_below(st0, st0, control)
    }
}

on_stack! {
    fptan_top: "fptan";
    fptan_below: "fptan", "fxch";
}

macro_rules! stores {
    ($($name:ident: $to:ty, $op:literal;)*) => {$(
        #[doc = concat!("`", $op, "`: the memory operand and the status word.")]
        pub fn $name(st0: F80, control: u16) -> ($to, u16) {
            let a = Memory::from(st0);
            let mut out = <$to>::default();
            let mut status = 0_u16;
            // SAFETY: the x87 stack is empty on entry and FNINIT empties it again; all pointers are to live locals of
            // at least the size accessed.
            unsafe {
                asm!(
                    "fninit",
                    "fldcw [{control}]",
                    "fld tbyte ptr [{a}]",
                    concat!($op, " [{out}]"),
                    "fnstsw [{status}]",
                    "fninit",
                    a = in(reg) &raw const a, out = in(reg) &raw mut out,
                    control = in(reg) &raw const control, status = in(reg) &raw mut status,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack),
                );
            }
            (out, status)
        }
    )*};
}
stores! {
    fst32: u32, "fst dword ptr";
    fst64: u64, "fst qword ptr";
    fist16: u16, "fist word ptr";
    fist32: u32, "fist dword ptr";
    fistp64: u64, "fistp qword ptr";
    fbstp: [u8; 10], "fbstp tbyte ptr";
}

macro_rules! loads {
    ($($name:ident: $from:ty, $op:literal;)*) => {$(
        #[doc = concat!("`", $op, "`: ST(0) and the status word.")]
        pub fn $name(operand: $from, control: u16) -> (F80, u16) {
            let mut out = Memory::default();
            let mut status = 0_u16;
            // SAFETY: the x87 stack is empty on entry and FNINIT empties it again; all pointers are to live locals of
            // at least the size accessed.
            unsafe {
                asm!(
                    "fninit",
                    "fldcw [{control}]",
                    concat!($op, " [{operand}]"),
                    "fnstsw [{status}]",
                    "fstp tbyte ptr [{out}]",
                    "fninit",
                    operand = in(reg) &raw const operand, out = in(reg) &raw mut out,
                    control = in(reg) &raw const control, status = in(reg) &raw mut status,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack),
                );
            }
            (out.into(), status)
        }
    )*};
}
loads! {
    fld32: u32, "fld dword ptr";
    fld64: u64, "fld qword ptr";
    fild64: u64, "fild qword ptr";
    fbld: [u8; 10], "fbld tbyte ptr";
}
