//! Lazy flags: the operands are kept, the flags computed where they are read.
//!
//! A kind says what the operands mean. The kinds below are x86's (Intel SDM vol. 1, 3.4.3.1 "Status
//! Flags"); other guests add theirs beside them. Flags that the manual leaves undefined read as
//! stated at each kind.

use crate::{Cmp, Ty};

/// Carry.
pub const CF: u64 = 1 << 0;
/// Even parity of the low byte.
pub const PF: u64 = 1 << 2;
/// Carry out of bit 3.
pub const AF: u64 = 1 << 4;
/// Zero.
pub const ZF: u64 = 1 << 6;
/// Sign.
pub const SF: u64 = 1 << 7;
/// Signed overflow.
pub const OF: u64 = 1 << 11;
/// All six.
pub const ALL: u64 = CF | PF | AF | ZF | SF | OF;

/// What the operands of the last flag-setting operation mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FlagKind {
    /// `a` holds the flags themselves, in the guest's layout.
    Raw = 0,
    /// `a + b`.
    Add,
    /// `a + b + c`, c the carry in.
    Adc,
    /// `a - b`.
    Sub,
    /// `a - b - c`, c the borrow in.
    Sbb,
    /// `a` is the result; CF, OF and AF are zero.
    Logic,
    /// `a + 1`; the carry flag is bit 0 of `c`.
    Inc,
    /// `a - 1`; the carry flag is bit 0 of `c`.
    Dec,
    /// `a << b`, b from 1; AF is zero, OF as for a shift by one.
    Shl,
    /// `a >> b`, logical, b from 1; AF is zero, OF as for a shift by one.
    Shr,
    /// `a >> b`, arithmetic, b from 1; AF and OF are zero.
    Sar,
    /// `a` is the low half of a product; CF and OF are bit 0 of `b`.
    Mul,
    /// `a` is the result; CF is one, OF and AF are zero: for guests that keep CF inverted.
    LogicC,
}

impl FlagKind {
    /// Whether the flags depend on `b`.
    pub const fn reads_b(self) -> bool {
        use FlagKind::*;
        !matches!(self, Raw | Logic | LogicC | Inc | Dec)
    }

    /// The kind and its operands' type as a number, which the lazy flags' first slot holds.
    pub const fn with(self, ty: Ty) -> u8 {
        (self as u8) << 2 | ty.bytes().trailing_zeros() as u8 & 3
    }

    /// Kind and type of a number.
    pub fn of(number: u64) -> (FlagKind, Ty) {
        use FlagKind::*;
        const KINDS: [FlagKind; 13] = [
            Raw, Add, Adc, Sub, Sbb, Logic, Inc, Dec, Shl, Shr, Sar, Mul, LogicC,
        ];
        let kind = KINDS.get((number >> 2) as usize).copied().unwrap_or(Raw);
        let ty = [Ty::I8, Ty::I16, Ty::I32, Ty::I64][(number & 3) as usize];
        (kind, ty)
    }
}

/// Conditions on the flags, numbered as the low four bits of x86's `Jcc` opcodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Cond {
    O = 0,
    No,
    B,
    Ae,
    E,
    Ne,
    Be,
    A,
    S,
    Ns,
    P,
    Np,
    L,
    Ge,
    Le,
    G,
}

impl Cond {
    /// The condition of this number, modulo 16.
    pub fn from_number(number: u8) -> Cond {
        use Cond::*;
        const CONDS: [Cond; 16] = [O, No, B, Ae, E, Ne, Be, A, S, Ns, P, Np, L, Ge, Le, G];
        CONDS[usize::from(number & 15)]
    }

    /// Its negation.
    pub fn negated(self) -> Cond {
        Cond::from_number(self as u8 ^ 1)
    }

    /// Whether it holds for these flags.
    #[inline]
    pub fn holds(self, flags: u64) -> bool {
        let set = |mask: u64| flags & mask != 0;
        let yes = match Cond::from_number(self as u8 & 14) {
            Cond::O => set(OF),
            Cond::B => set(CF),
            Cond::E => set(ZF),
            Cond::Be => set(CF | ZF),
            Cond::S => set(SF),
            Cond::P => set(PF),
            Cond::L => set(SF) != set(OF),
            _ => set(ZF) || set(SF) != set(OF),
        };
        yes != (self as u8 & 1 != 0)
    }

    /// This condition after `cmp a, b` (kind `Sub`) as one integer comparison: the comparison, and
    /// whether the operands are swapped.
    pub fn after_sub(self) -> Option<(Cmp, bool)> {
        Some(match self {
            Cond::E => (Cmp::Eq, false),
            Cond::Ne => (Cmp::Ne, false),
            Cond::B => (Cmp::Ltu, false),
            Cond::Ae => (Cmp::Leu, true),
            Cond::Be => (Cmp::Leu, false),
            Cond::A => (Cmp::Ltu, true),
            Cond::L => (Cmp::Lts, false),
            Cond::Ge => (Cmp::Les, true),
            Cond::Le => (Cmp::Les, false),
            Cond::G => (Cmp::Lts, true),
            _ => return None,
        })
    }
}

/// Sign, zero and parity of a result.
#[inline]
fn szp(ty: Ty, result: u64) -> u64 {
    let result = result & ty.mask();
    let sign = (result >> (ty.bits() - 1)) & 1;
    let parity = u64::from((result as u8).count_ones() & 1 == 0);
    sign << 7 | u64::from(result == 0) << 6 | parity << 2
}

#[inline]
fn top(ty: Ty, value: u64) -> u64 {
    (value >> (ty.bits() - 1)) & 1
}

/// All flags, in EFLAGS' layout. `a` and `b` are zero-extended values of `ty`.
#[inline]
pub fn pack(kind: FlagKind, ty: Ty, a: u64, b: u64, c: u64) -> u64 {
    let mask = ty.mask();
    let (a, b) = (a & mask, b & mask);
    match kind {
        FlagKind::Raw => a & ALL,
        FlagKind::Add | FlagKind::Adc | FlagKind::Inc => {
            let (b, carry) = match kind {
                FlagKind::Adc => (b, c & 1),
                FlagKind::Inc => (1, 0),
                _ => (b, 0),
            };
            let result = a.wrapping_add(b).wrapping_add(carry) & mask;
            let carries = (a & b) | ((a | b) & !result);
            let cf = if kind == FlagKind::Inc {
                c & 1
            } else {
                top(ty, carries)
            };
            let of = top(ty, (a ^ result) & (b ^ result));
            cf | szp(ty, result) | ((carries >> 3) & 1) << 4 | of << 11
        }
        FlagKind::Sub | FlagKind::Sbb | FlagKind::Dec => {
            let (b, borrow) = match kind {
                FlagKind::Sbb => (b, c & 1),
                FlagKind::Dec => (1, 0),
                _ => (b, 0),
            };
            let result = a.wrapping_sub(b).wrapping_sub(borrow) & mask;
            let borrows = (!a & b) | ((!a | b) & result);
            let cf = if kind == FlagKind::Dec {
                c & 1
            } else {
                top(ty, borrows)
            };
            let of = top(ty, (a ^ b) & (a ^ result));
            cf | szp(ty, result) | ((borrows >> 3) & 1) << 4 | of << 11
        }
        FlagKind::Logic => szp(ty, a),
        FlagKind::LogicC => szp(ty, a) | CF,
        FlagKind::Shl => {
            let count = b as u32 & 63;
            let result = a.checked_shl(count).unwrap_or(0) & mask;
            let cf = if count == 0 || count > ty.bits() {
                0
            } else {
                (a >> (ty.bits() - count)) & 1
            };
            cf | szp(ty, result) | (top(ty, result) ^ cf) << 11
        }
        FlagKind::Shr => {
            let count = b as u32 & 63;
            let result = a.checked_shr(count).unwrap_or(0);
            let cf = a.checked_shr(count.wrapping_sub(1)).unwrap_or(0) & 1;
            cf | szp(ty, result) | top(ty, a) << 11
        }
        FlagKind::Sar => {
            let count = b as u32 & 63;
            let wide = ty.sext(a);
            let result = (wide >> count) as u64;
            let cf = ((wide >> count.saturating_sub(1)) & 1) as u64;
            cf | szp(ty, result)
        }
        FlagKind::Mul => szp(ty, a) | (b & 1) | (b & 1) << 11,
    }
}

/// The carry flag alone, without computing the others.
#[inline]
pub fn carry(kind: FlagKind, ty: Ty, a: u64, b: u64, c: u64) -> u64 {
    let mask = ty.mask();
    match kind {
        FlagKind::Add => u64::from((a.wrapping_add(b) & mask) < (a & mask)),
        FlagKind::Sub => u64::from((a & mask) < (b & mask)),
        FlagKind::Inc | FlagKind::Dec => c & 1,
        FlagKind::Logic => 0,
        FlagKind::LogicC => CF,
        FlagKind::Raw => a & CF,
        _ => pack(kind, ty, a, b, c) & CF,
    }
}

/// Whether a condition holds, computing no more than it needs.
#[inline]
pub fn test(cond: Cond, kind: FlagKind, ty: Ty, a: u64, b: u64, c: u64) -> bool {
    let mask = ty.mask();
    if kind == FlagKind::Sub
        && let Some((op, swap)) = cond.after_sub()
    {
        let (x, y) = if swap {
            (b & mask, a & mask)
        } else {
            (a & mask, b & mask)
        };
        return compare(op, ty, x, y);
    }
    match (kind, cond) {
        (FlagKind::Logic | FlagKind::LogicC, Cond::E) => a & mask == 0,
        (FlagKind::Logic | FlagKind::LogicC, Cond::Ne) => a & mask != 0,
        (FlagKind::Logic | FlagKind::LogicC, Cond::S | Cond::L) => top(ty, a) != 0,
        (FlagKind::Logic | FlagKind::LogicC, Cond::Ns | Cond::Ge) => top(ty, a) == 0,
        (_, Cond::B) => carry(kind, ty, a, b, c) != 0,
        (_, Cond::Ae) => carry(kind, ty, a, b, c) == 0,
        _ => cond.holds(pack(kind, ty, a, b, c)),
    }
}

/// An integer comparison of two zero-extended values of `ty`.
#[inline]
pub fn compare(op: Cmp, ty: Ty, a: u64, b: u64) -> bool {
    match op {
        Cmp::Eq => a == b,
        Cmp::Ne => a != b,
        Cmp::Ltu => a < b,
        Cmp::Leu => a <= b,
        Cmp::Lts => ty.sext(a) < ty.sext(b),
        Cmp::Les => ty.sext(a) <= ty.sext(b),
    }
}
