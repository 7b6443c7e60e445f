//! Integer vector operations and their meaning.
//!
//! Lanes are numbered from the low end. [`eval`] is the meaning; a back end maps each operation to
//! the host's own or calls it. In brackets stands the x86 instruction that computes the same, with
//! `a` as its destination and `b` as its source; those with a source alone (PSHUFD, PABSB) have
//! it in `a`.

/// A vector operation on 128 bits. `b` is the second operand, `imm` a constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum VecOp {
    /// Bitwise and (PAND).
    And,
    /// `!a & b` (PANDN).
    AndNot,
    /// Bitwise or (POR).
    Or,
    /// Bitwise exclusive or (PXOR).
    Xor,
    /// Lane sums, modulo (PADDB).
    Add8,
    /// Lane sums, modulo (PADDW).
    Add16,
    /// Lane sums, modulo (PADDD).
    Add32,
    /// Lane sums, modulo (PADDQ).
    Add64,
    /// Lane differences, modulo (PSUBB).
    Sub8,
    /// Lane differences, modulo (PSUBW).
    Sub16,
    /// Lane differences, modulo (PSUBD).
    Sub32,
    /// Lane differences, modulo (PSUBQ).
    Sub64,
    /// Signed saturating sums (PADDSB).
    AddS8,
    /// Signed saturating sums (PADDSW).
    AddS16,
    /// Unsigned saturating sums (PADDUSB).
    AddU8,
    /// Unsigned saturating sums (PADDUSW).
    AddU16,
    /// Signed saturating differences (PSUBSB).
    SubS8,
    /// Signed saturating differences (PSUBSW).
    SubS16,
    /// Unsigned saturating differences (PSUBUSB).
    SubU8,
    /// Unsigned saturating differences (PSUBUSW).
    SubU16,
    /// All ones where equal (PCMPEQB).
    CmpEq8,
    /// All ones where equal (PCMPEQW).
    CmpEq16,
    /// All ones where equal (PCMPEQD).
    CmpEq32,
    /// All ones where signed greater (PCMPGTB).
    CmpGt8,
    /// All ones where signed greater (PCMPGTW).
    CmpGt16,
    /// All ones where signed greater (PCMPGTD).
    CmpGt32,
    /// Unsigned minimum (PMINUB).
    MinU8,
    /// Unsigned maximum (PMAXUB).
    MaxU8,
    /// Signed minimum (PMINSW).
    MinS16,
    /// Signed maximum (PMAXSW).
    MaxS16,
    /// Unsigned average, rounded up (PAVGB).
    Avg8,
    /// Unsigned average, rounded up (PAVGW).
    Avg16,
    /// Low halves of products (PMULLW).
    MulLo16,
    /// High halves of signed products (PMULHW).
    MulHiS16,
    /// High halves of unsigned products (PMULHUW).
    MulHiU16,
    /// Signed products rounded: `((a * b >> 14) + 1) >> 1` (PMULHRSW).
    MulHrs16,
    /// Unsigned products of the even 32-bit lanes (PMULUDQ).
    MulU32,
    /// Signed 16-bit products, neighbours summed to 32 bits (PMADDWD).
    MAdd16,
    /// Unsigned times signed bytes, neighbours summed to saturated 16 bits (PMADDUBSW).
    MAddUbS8,
    /// Sums of absolute byte differences, one a half (PSADBW).
    Sad8,
    /// Signed saturation of a's then b's lanes to 8 bits (PACKSSWB).
    PackS16,
    /// Unsigned saturation of a's then b's signed lanes to 8 bits (PACKUSWB).
    PackU16,
    /// Signed saturation of a's then b's lanes to 16 bits (PACKSSDW).
    PackS32,
    /// Low lanes of a and b in turn (PUNPCKLBW).
    UnpackLo8,
    /// Low lanes of a and b in turn (PUNPCKLWD).
    UnpackLo16,
    /// Low lanes of a and b in turn (PUNPCKLDQ).
    UnpackLo32,
    /// Low lanes of a and b in turn (PUNPCKLQDQ).
    UnpackLo64,
    /// High lanes of a and b in turn (PUNPCKHBW).
    UnpackHi8,
    /// High lanes of a and b in turn (PUNPCKHWD).
    UnpackHi16,
    /// High lanes of a and b in turn (PUNPCKHDQ).
    UnpackHi32,
    /// High lanes of a and b in turn (PUNPCKHQDQ).
    UnpackHi64,
    /// Bytes of a chosen by the low four bits of b's bytes; zero where their bit 7 is set (PSHUFB).
    Shuffle8,
    /// 32-bit lanes of a chosen by imm, two bits each (PSHUFD).
    Shuffle32,
    /// Low four 16-bit lanes of a chosen by imm; the others stay (PSHUFLW).
    ShuffleLo16,
    /// High four 16-bit lanes of a chosen by imm; the others stay (PSHUFHW).
    ShuffleHi16,
    /// Two 32-bit lanes of a then two of b, chosen by imm (SHUFPS).
    Select32,
    /// A 64-bit lane of a then one of b, chosen by imm (SHUFPD).
    Select64,
    /// Bytes imm to imm + 15 of b (low) and a (high) (PALIGNR).
    Align8,
    /// 16-bit lane imm of a replaced by the low bits of b (PINSRW).
    Insert16,
    /// Shift left by the low 64 bits of b (PSLLW).
    Shl16,
    /// Shift left by the low 64 bits of b (PSLLD).
    Shl32,
    /// Shift left by the low 64 bits of b (PSLLQ).
    Shl64,
    /// Logical shift right by the low 64 bits of b (PSRLW).
    Shr16,
    /// Logical shift right by the low 64 bits of b (PSRLD).
    Shr32,
    /// Logical shift right by the low 64 bits of b (PSRLQ).
    Shr64,
    /// Arithmetic shift right by the low 64 bits of b (PSRAW).
    Sar16,
    /// Arithmetic shift right by the low 64 bits of b (PSRAD).
    Sar32,
    /// Shift of the whole left by imm bytes (PSLLDQ).
    ShlBytes,
    /// Shift of the whole right by imm bytes (PSRLDQ).
    ShrBytes,
    /// Absolute values (PABSB).
    Abs8,
    /// Absolute values (PABSW).
    Abs16,
    /// Absolute values (PABSD).
    Abs32,
    /// a's lanes negated, kept or zeroed by the sign of b's (PSIGNB).
    Sign8,
    /// a's lanes negated, kept or zeroed by the sign of b's (PSIGNW).
    Sign16,
    /// a's lanes negated, kept or zeroed by the sign of b's (PSIGND).
    Sign32,
    /// Sums of neighbours: a's then b's (PHADDW).
    HAdd16,
    /// Sums of neighbours: a's then b's (PHADDD).
    HAdd32,
    /// Signed saturating sums of neighbours (PHADDSW).
    HAddS16,
    /// Differences of neighbours (lower minus higher) (PHSUBW).
    HSub16,
    /// Differences of neighbours (lower minus higher) (PHSUBD).
    HSub32,
    /// Signed saturating differences of neighbours (PHSUBSW).
    HSubS16,
    /// a with its low 32 bits replaced by b's (MOVSS).
    MoveLow32,
    /// a with its low half replaced by b's (MOVSD).
    MoveLow64,
    /// a's low 32 bits, zeros above (MOVSS from memory).
    Low32,
    /// a's low half, zeros above (MOVQ).
    Low64,
    /// Shift left by imm (PSLLW).
    ShlImm16,
    /// Shift left by imm (PSLLD).
    ShlImm32,
    /// Shift left by imm (PSLLQ).
    ShlImm64,
    /// Logical shift right by imm (PSRLW).
    ShrImm16,
    /// Logical shift right by imm (PSRLD).
    ShrImm32,
    /// Logical shift right by imm (PSRLQ).
    ShrImm64,
    /// Arithmetic shift right by imm (PSRAW).
    SarImm16,
    /// Arithmetic shift right by imm (PSRAD).
    SarImm32,
}

trait Lane: Copy {
    const N: u32;
    fn get(v: u128, i: u32) -> Self;
    fn put(self, i: u32) -> u128;
}

macro_rules! lane {
    ($($t:ty, $u:ty);*) => {$(
        impl Lane for $t {
            const N: u32 = 128 / <$t>::BITS;
            #[inline]
            fn get(v: u128, i: u32) -> Self { (v >> (i * <$t>::BITS)) as $t }
            #[inline]
            fn put(self, i: u32) -> u128 { u128::from(self as $u) << (i * <$t>::BITS) }
        }
    )*};
}
lane!(u8, u8; i8, u8; u16, u16; i16, u16; u32, u32; i32, u32; u64, u64; i64, u64);

#[inline]
fn map2<T: Lane>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    (0..T::N).fold(0, |out, i| out | f(T::get(a, i), T::get(b, i)).put(i))
}

#[inline]
fn build<T: Lane>(f: impl Fn(u32) -> T) -> u128 {
    (0..T::N).fold(0, |out, i| out | f(i).put(i))
}

/// Lanes of `a` then of `b`, each made of two neighbours.
#[inline]
fn pairs<T: Lane>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    build(|i| {
        let (from, at) = if i < T::N / 2 {
            (a, i)
        } else {
            (b, i - T::N / 2)
        };
        f(T::get(from, at * 2), T::get(from, at * 2 + 1))
    })
}

/// Lanes `first..` of a and b in turn.
#[inline]
fn unpack<T: Lane>(a: u128, b: u128, first: u32) -> u128 {
    build::<T>(|i| T::get(if i & 1 == 0 { a } else { b }, first + i / 2))
}

#[inline]
fn shift<T: Lane>(
    a: u128,
    b: u128,
    limit: u64,
    f: impl Fn(T, u32) -> T,
    beyond: impl Fn(T) -> T,
) -> u128 {
    let count = b as u64;
    build(|i| {
        let lane = T::get(a, i);
        if count < limit {
            f(lane, count as u32)
        } else {
            beyond(lane)
        }
    })
}

/// The sign bits of lanes of a type, the lowest first.
pub fn signs(a: u128, lane: crate::Ty) -> u32 {
    let bits = lane.bits();
    let sign = |i: u32| (a >> (i * bits + bits - 1) & 1) as u32;
    (0..128 / bits).fold(0, |out, i| out | sign(i) << i)
}

/// Computes one operation.
pub fn eval(op: VecOp, a: u128, b: u128, imm: u8) -> u128 {
    use VecOp::*;
    let ones = |yes: bool| if yes { -1i64 } else { 0 };
    match op {
        And => a & b,
        AndNot => !a & b,
        Or => a | b,
        Xor => a ^ b,
        Add8 => map2(a, b, u8::wrapping_add),
        Add16 => map2(a, b, u16::wrapping_add),
        Add32 => map2(a, b, u32::wrapping_add),
        Add64 => map2(a, b, u64::wrapping_add),
        Sub8 => map2(a, b, u8::wrapping_sub),
        Sub16 => map2(a, b, u16::wrapping_sub),
        Sub32 => map2(a, b, u32::wrapping_sub),
        Sub64 => map2(a, b, u64::wrapping_sub),
        AddS8 => map2(a, b, i8::saturating_add),
        AddS16 => map2(a, b, i16::saturating_add),
        AddU8 => map2(a, b, u8::saturating_add),
        AddU16 => map2(a, b, u16::saturating_add),
        SubS8 => map2(a, b, i8::saturating_sub),
        SubS16 => map2(a, b, i16::saturating_sub),
        SubU8 => map2(a, b, u8::saturating_sub),
        SubU16 => map2(a, b, u16::saturating_sub),
        CmpEq8 => map2(a, b, |x: u8, y| ones(x == y) as u8),
        CmpEq16 => map2(a, b, |x: u16, y| ones(x == y) as u16),
        CmpEq32 => map2(a, b, |x: u32, y| ones(x == y) as u32),
        CmpGt8 => map2(a, b, |x: i8, y| ones(x > y) as i8),
        CmpGt16 => map2(a, b, |x: i16, y| ones(x > y) as i16),
        CmpGt32 => map2(a, b, |x: i32, y| ones(x > y) as i32),
        MinU8 => map2(a, b, |x: u8, y: u8| x.min(y)),
        MaxU8 => map2(a, b, |x: u8, y: u8| x.max(y)),
        MinS16 => map2(a, b, |x: i16, y: i16| x.min(y)),
        MaxS16 => map2(a, b, |x: i16, y: i16| x.max(y)),
        Avg8 => map2(a, b, |x: u8, y: u8| {
            (u16::from(x) + u16::from(y)).div_ceil(2) as u8
        }),
        Avg16 => map2(a, b, |x: u16, y: u16| {
            (u32::from(x) + u32::from(y)).div_ceil(2) as u16
        }),
        MulLo16 => map2(a, b, u16::wrapping_mul),
        MulHiS16 => map2(a, b, |x: i16, y| {
            ((i32::from(x) * i32::from(y)) >> 16) as i16
        }),
        MulHiU16 => map2(a, b, |x: u16, y| {
            ((u32::from(x) * u32::from(y)) >> 16) as u16
        }),
        MulHrs16 => map2(a, b, |x: i16, y| {
            ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16
        }),
        MulU32 => map2(a, b, |x: u64, y: u64| {
            u64::from(x as u32) * u64::from(y as u32)
        }),
        MAdd16 => build(|i| {
            let product = |at| i32::from(i16::get(a, at)).wrapping_mul(i32::from(i16::get(b, at)));
            product(i * 2).wrapping_add(product(i * 2 + 1))
        }),
        MAddUbS8 => build(|i| {
            let product = |at| i32::from(u8::get(a, at)) * i32::from(i8::get(b, at));
            let sum = product(i * 2) + product(i * 2 + 1);
            sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
        }),
        Sad8 => build(|i| {
            (i * 8..i * 8 + 8)
                .map(|at| u64::from(u8::get(a, at).abs_diff(u8::get(b, at))))
                .sum::<u64>()
        }),
        PackS16 => build(|i| {
            let lane = if i < 8 {
                i16::get(a, i)
            } else {
                i16::get(b, i - 8)
            };
            lane.clamp(i16::from(i8::MIN), i16::from(i8::MAX)) as i8
        }),
        PackU16 => build(|i| {
            let lane = if i < 8 {
                i16::get(a, i)
            } else {
                i16::get(b, i - 8)
            };
            lane.clamp(0, 255) as u8
        }),
        PackS32 => build(|i| {
            let lane = if i < 4 {
                i32::get(a, i)
            } else {
                i32::get(b, i - 4)
            };
            lane.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
        }),
        UnpackLo8 => unpack::<u8>(a, b, 0),
        UnpackLo16 => unpack::<u16>(a, b, 0),
        UnpackLo32 => unpack::<u32>(a, b, 0),
        UnpackLo64 => unpack::<u64>(a, b, 0),
        UnpackHi8 => unpack::<u8>(a, b, 8),
        UnpackHi16 => unpack::<u16>(a, b, 4),
        UnpackHi32 => unpack::<u32>(a, b, 2),
        UnpackHi64 => unpack::<u64>(a, b, 1),
        Shuffle8 => build(|i| {
            let which = u8::get(b, i);
            if which & 0x80 != 0 {
                0
            } else {
                u8::get(a, u32::from(which & 15))
            }
        }),
        Shuffle32 => build(|i| u32::get(a, u32::from(imm >> (2 * i)) & 3)),
        ShuffleLo16 => build(|i| {
            u16::get(
                a,
                if i < 4 {
                    u32::from(imm >> (2 * i)) & 3
                } else {
                    i
                },
            )
        }),
        ShuffleHi16 => build(|i| {
            u16::get(
                a,
                if i < 4 {
                    i
                } else {
                    4 + (u32::from(imm >> (2 * (i - 4))) & 3)
                },
            )
        }),
        Select32 => build(|i| u32::get(if i < 2 { a } else { b }, u32::from(imm >> (2 * i)) & 3)),
        Select64 => build(|i| u64::get(if i == 0 { a } else { b }, u32::from(imm >> i) & 1)),
        Align8 => match u32::from(imm) {
            0 => b,
            n @ 1..=15 => (b >> (8 * n)) | (a << (128 - 8 * n)),
            n @ 16..=31 => a >> (8 * (n - 16)),
            _ => 0,
        },
        Insert16 => build(|i| {
            if i == u32::from(imm & 7) {
                b as u16
            } else {
                u16::get(a, i)
            }
        }),
        Shl16 => shift(a, b, 16, |x: u16, n| x << n, |_| 0),
        Shl32 => shift(a, b, 32, |x: u32, n| x << n, |_| 0),
        Shl64 => shift(a, b, 64, |x: u64, n| x << n, |_| 0),
        Shr16 => shift(a, b, 16, |x: u16, n| x >> n, |_| 0),
        Shr32 => shift(a, b, 32, |x: u32, n| x >> n, |_| 0),
        Shr64 => shift(a, b, 64, |x: u64, n| x >> n, |_| 0),
        Sar16 => shift(a, b, 16, |x: i16, n| x >> n, |x| x >> 15),
        Sar32 => shift(a, b, 32, |x: i32, n| x >> n, |x| x >> 31),
        ShlBytes => a.checked_shl(u32::from(imm) * 8).unwrap_or(0),
        ShrBytes => a.checked_shr(u32::from(imm) * 8).unwrap_or(0),
        Abs8 => map2(a, b, |x: i8, _| x.wrapping_abs()),
        Abs16 => map2(a, b, |x: i16, _| x.wrapping_abs()),
        Abs32 => map2(a, b, |x: i32, _| x.wrapping_abs()),
        Sign8 => map2(a, b, |x: i8, y: i8| x.wrapping_mul(y.signum())),
        Sign16 => map2(a, b, |x: i16, y: i16| x.wrapping_mul(y.signum())),
        Sign32 => map2(a, b, |x: i32, y: i32| x.wrapping_mul(y.signum())),
        HAdd16 => pairs(a, b, u16::wrapping_add),
        HAdd32 => pairs(a, b, u32::wrapping_add),
        HAddS16 => pairs(a, b, i16::saturating_add),
        HSub16 => pairs(a, b, u16::wrapping_sub),
        HSub32 => pairs(a, b, u32::wrapping_sub),
        HSubS16 => pairs(a, b, i16::saturating_sub),
        MoveLow32 => a & !u128::from(u32::MAX) | b & u128::from(u32::MAX),
        MoveLow64 => a & !u128::from(u64::MAX) | b & u128::from(u64::MAX),
        Low32 => a & u128::from(u32::MAX),
        Low64 => a & u128::from(u64::MAX),
        ShlImm16 => eval(Shl16, a, imm.into(), 0),
        ShlImm32 => eval(Shl32, a, imm.into(), 0),
        ShlImm64 => eval(Shl64, a, imm.into(), 0),
        ShrImm16 => eval(Shr16, a, imm.into(), 0),
        ShrImm32 => eval(Shr32, a, imm.into(), 0),
        ShrImm64 => eval(Shr64, a, imm.into(), 0),
        SarImm16 => eval(Sar16, a, imm.into(), 0),
        SarImm32 => eval(Sar32, a, imm.into(), 0),
    }
}
