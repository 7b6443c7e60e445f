//! The host's SSE and FMA3 units. Each function runs one instruction under the given MXCSR and returns the result
//! and the flags that it raised; all exceptions must be masked in it.

use core::arch::asm;

macro_rules! two_operands {
    ($($name:ident: $bits:ty, $mov:literal, $r:literal, $op:literal;)*) => {$(
        #[doc = concat!("`", $op, "`: the first operand is the destination.")]
        pub fn $name(a: $bits, b: $bits, mxcsr: u32) -> ($bits, u8) {
            let (mut saved, mut status) = (0_u32, mxcsr);
            let out: $bits;
            // SAFETY: only xmm0, xmm1 and MXCSR are changed, and MXCSR is put back; both pointers are to live locals.
            unsafe {
                asm!(
                    concat!($mov, " xmm0, {a", $r, "}"),
                    concat!($mov, " xmm1, {b", $r, "}"),
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{status}]",
                    concat!($op, " xmm0, xmm1"),
                    "stmxcsr [{status}]",
                    "ldmxcsr [{saved}]",
                    concat!($mov, " {a", $r, "}, xmm0"),
                    a = inout(reg) a => out, b = in(reg) b,
                    saved = in(reg) &raw mut saved, status = in(reg) &raw mut status,
                    out("xmm0") _, out("xmm1") _, options(nostack),
                );
            }
            (out, status as u8 & 0x3f)
        }
    )*};
}
two_operands! {
    addsd: u64, "movq", "", "addsd";
    subsd: u64, "movq", "", "subsd";
    mulsd: u64, "movq", "", "mulsd";
    divsd: u64, "movq", "", "divsd";
    minsd: u64, "movq", "", "minsd";
    maxsd: u64, "movq", "", "maxsd";
    addss: u32, "movd", ":e", "addss";
    subss: u32, "movd", ":e", "subss";
    mulss: u32, "movd", ":e", "mulss";
    divss: u32, "movd", ":e", "divss";
    minss: u32, "movd", ":e", "minss";
    maxss: u32, "movd", ":e", "maxss";
}

macro_rules! one_operand {
    ($($name:ident: $from:ty, $movin:literal, $rin:literal, $to:ty, $movout:literal, $rout:literal, $op:literal;)*) => {$(
        #[doc = concat!("`", $op, "`.")]
        pub fn $name(a: $from, mxcsr: u32) -> ($to, u8) {
            let (mut saved, mut status) = (0_u32, mxcsr);
            let out: $to;
            // SAFETY: only xmm0, xmm1, one register and MXCSR are changed, and MXCSR is put back; both pointers are to
            // live locals.
            unsafe {
                asm!(
                    concat!($movin, " xmm1, {a", $rin, "}"),
                    "xorps xmm0, xmm0",
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{status}]",
                    $op,
                    "stmxcsr [{status}]",
                    "ldmxcsr [{saved}]",
                    concat!($movout, " {out", $rout, "}, xmm0"),
                    a = in(reg) a, out = lateout(reg) out,
                    saved = in(reg) &raw mut saved, status = in(reg) &raw mut status,
                    out("xmm0") _, out("xmm1") _, out("rax") _, options(nostack),
                );
            }
            (out, status as u8 & 0x3f)
        }
    )*};
}
one_operand! {
    sqrtsd: u64, "movq", "", u64, "movq", "", "sqrtsd xmm0, xmm1";
    sqrtss: u32, "movd", ":e", u32, "movd", ":e", "sqrtss xmm0, xmm1";
    cvtsd2ss: u64, "movq", "", u32, "movd", ":e", "cvtsd2ss xmm0, xmm1";
    cvtss2sd: u32, "movd", ":e", u64, "movq", "", "cvtss2sd xmm0, xmm1";
    cvtsd2si32: u64, "movq", "", u32, "movd", ":e", "cvtsd2si eax, xmm1\nmovd xmm0, eax";
    cvtsd2si64: u64, "movq", "", u64, "movq", "", "cvtsd2si rax, xmm1\nmovq xmm0, rax";
    cvttsd2si32: u64, "movq", "", u32, "movd", ":e", "cvttsd2si eax, xmm1\nmovd xmm0, eax";
    cvttsd2si64: u64, "movq", "", u64, "movq", "", "cvttsd2si rax, xmm1\nmovq xmm0, rax";
    cvtss2si32: u32, "movd", ":e", u32, "movd", ":e", "cvtss2si eax, xmm1\nmovd xmm0, eax";
    cvtss2si64: u32, "movd", ":e", u64, "movq", "", "cvtss2si rax, xmm1\nmovq xmm0, rax";
    cvtsi2sd32: u32, "movd", ":e", u64, "movq", "", "movd eax, xmm1\ncvtsi2sd xmm0, eax";
    cvtsi2sd64: u64, "movq", "", u64, "movq", "", "movq rax, xmm1\ncvtsi2sd xmm0, rax";
    cvtsi2ss32: u32, "movd", ":e", u32, "movd", ":e", "movd eax, xmm1\ncvtsi2ss xmm0, eax";
    cvtsi2ss64: u64, "movq", "", u32, "movd", ":e", "movq rax, xmm1\ncvtsi2ss xmm0, rax";
}

macro_rules! gated {
    ($feature:tt: $($name:ident: $bits:ty, $mov:literal, $r:literal, $op:literal;)*) => {$(
        #[doc = concat!("`", $op, "`, or nothing on a host without it.")]
        pub fn $name(a: $bits, mxcsr: u32) -> Option<($bits, u8)> {
            if !std::arch::is_x86_feature_detected!($feature) {
                return None;
            }
            let (mut saved, mut status) = (0_u32, mxcsr);
            let out: $bits;
            // SAFETY: the host has the instruction; only xmm0, xmm1 and MXCSR are changed, and MXCSR is put back; both
            // pointers are to live locals.
            unsafe {
                asm!(
                    concat!($mov, " xmm1, {a", $r, "}"),
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{status}]",
                    $op,
                    "stmxcsr [{status}]",
                    "ldmxcsr [{saved}]",
                    concat!($mov, " {a", $r, "}, xmm0"),
                    a = inout(reg) a => out,
                    saved = in(reg) &raw mut saved, status = in(reg) &raw mut status,
                    out("xmm0") _, out("xmm1") _, options(nostack),
                );
            }
            Some((out, status as u8 & 0x3f))
        }
    )*};
}
gated! { "sse4.1":
    roundsd: u64, "movq", "", "roundsd xmm0, xmm1, 4";
    roundsd_quiet: u64, "movq", "", "roundsd xmm0, xmm1, 12";
    roundss: u32, "movd", ":e", "roundss xmm0, xmm1, 4";
}
gated! { "f16c":
    vcvtph2ps: u32, "vmovd", ":e", "vcvtph2ps xmm0, xmm1";
    vcvtps2ph: u32, "vmovd", ":e", "vcvtps2ph xmm0, xmm1, 4";
}

macro_rules! fused {
    ($($name:ident: $bits:ty, $mov:literal, $r:literal, $op:literal;)*) => {$(
        #[doc = concat!("`", $op, " a, b, c`: `a * b` and the addend `c`; nothing on a host without FMA3.")]
        pub fn $name(a: $bits, b: $bits, c: $bits, mxcsr: u32) -> Option<($bits, u8)> {
            if !std::arch::is_x86_feature_detected!("fma") {
                return None;
            }
            let (mut saved, mut status) = (0_u32, mxcsr);
            let out: $bits;
            // SAFETY: the host has FMA3; only xmm0 to xmm2 and MXCSR are changed, and MXCSR is put back; both pointers
            // are to live locals.
            unsafe {
                asm!(
                    concat!($mov, " xmm0, {a", $r, "}"),
                    concat!($mov, " xmm1, {b", $r, "}"),
                    concat!($mov, " xmm2, {c", $r, "}"),
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{status}]",
                    concat!($op, " xmm0, xmm1, xmm2"),
                    "stmxcsr [{status}]",
                    "ldmxcsr [{saved}]",
                    concat!($mov, " {a", $r, "}, xmm0"),
                    a = inout(reg) a => out, b = in(reg) b, c = in(reg) c,
                    saved = in(reg) &raw mut saved, status = in(reg) &raw mut status,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, options(nostack),
                );
            }
            Some((out, status as u8 & 0x3f))
        }
    )*};
}
// The 213 form multiplies its second operand by its first: for NaNs that order counts, so callers pass (b, a).
fused! {
    vfmadd213sd: u64, "vmovq", "", "vfmadd213sd";
    vfmsub213sd: u64, "vmovq", "", "vfmsub213sd";
    vfnmadd213sd: u64, "vmovq", "", "vfnmadd213sd";
    vfnmsub213sd: u64, "vmovq", "", "vfnmsub213sd";
    vfmadd213ss: u32, "vmovd", ":e", "vfmadd213ss";
}

macro_rules! compares {
    ($($name:ident: $bits:ty, $mov:literal, $r:literal, $op:literal;)*) => {$(
        #[doc = concat!("`", $op, "`: ZF, PF, CF as bits 6, 2, 0, and the flags.")]
        pub fn $name(a: $bits, b: $bits, mxcsr: u32) -> (u8, u8) {
            let (mut saved, mut status) = (0_u32, mxcsr);
            let eflags: u64;
            // SAFETY: only rax, xmm0, xmm1, arithmetic flags and MXCSR are changed, and MXCSR is put back; both
            // pointers are to live locals.
            unsafe {
                asm!(
                    concat!($mov, " xmm0, {a", $r, "}"),
                    concat!($mov, " xmm1, {b", $r, "}"),
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{status}]",
                    concat!($op, " xmm0, xmm1"),
                    "lahf",
                    "stmxcsr [{status}]",
                    "ldmxcsr [{saved}]",
                    a = in(reg) a, b = in(reg) b,
                    saved = in(reg) &raw mut saved, status = in(reg) &raw mut status,
                    out("rax") eflags, out("xmm0") _, out("xmm1") _, options(nostack),
                );
            }
            ((eflags >> 8) as u8 & 0x45, status as u8 & 0x3f)
        }
    )*};
}
compares! {
    ucomisd: u64, "movq", "", "ucomisd";
    comisd: u64, "movq", "", "comisd";
    ucomiss: u32, "movd", ":e", "ucomiss";
    comiss: u32, "movd", ":e", "comiss";
}
