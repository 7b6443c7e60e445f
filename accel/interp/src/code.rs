//! The interpreter's own form of a unit: flat, with operands resolved to slots.
//!
//! An operand is an index into the register file's array: guest slots first, scratch slots behind
//! them. Integer results are stored zero-extended; operands may have stray bits above their type's
//! width, which each operation cuts off.

use accel_core::PageRef;
use accel_ir::{Binary, Cmp, Mem, Ty};

/// Index of a slot: guest register or scratch.
pub(crate) type Loc = u16;

/// The rows of the two tables, handed to `$with`.
///
/// `binary`: register form, immediate form, IR operation, IR type, meaning.
/// `compare`: value form, its immediate form, branch form, its immediate form, IR comparison, IR
/// type, meaning.
macro_rules! rows {
    ($with:ident) => {
        $with! {
            binary {
            Add8 Add8I Add I8 (|a: u8, b: u8| a.wrapping_add(b));
            Add16 Add16I Add I16 (|a: u16, b: u16| a.wrapping_add(b));
            Add32 Add32I Add I32 (|a: u32, b: u32| a.wrapping_add(b));
            Add64 Add64I Add I64 (|a: u64, b: u64| a.wrapping_add(b));
            Sub8 Sub8I Sub I8 (|a: u8, b: u8| a.wrapping_sub(b));
            Sub16 Sub16I Sub I16 (|a: u16, b: u16| a.wrapping_sub(b));
            Sub32 Sub32I Sub I32 (|a: u32, b: u32| a.wrapping_sub(b));
            Sub64 Sub64I Sub I64 (|a: u64, b: u64| a.wrapping_sub(b));
            Mul8 Mul8I Mul I8 (|a: u8, b: u8| a.wrapping_mul(b));
            Mul16 Mul16I Mul I16 (|a: u16, b: u16| a.wrapping_mul(b));
            Mul32 Mul32I Mul I32 (|a: u32, b: u32| a.wrapping_mul(b));
            Mul64 Mul64I Mul I64 (|a: u64, b: u64| a.wrapping_mul(b));
            MulHu8 MulHu8I MulHu I8 (|a: u8, b: u8| ((u16::from(a) * u16::from(b)) >> 8) as u8);
            MulHu16 MulHu16I MulHu I16 (|a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16);
            MulHu32 MulHu32I MulHu I32 (|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32);
            MulHu64 MulHu64I MulHu I64 (|a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64);
            MulHs8 MulHs8I MulHs I8 (|a: u8, b: u8| ((i16::from(a as i8) * i16::from(b as i8)) >> 8) as u8);
            MulHs16 MulHs16I MulHs I16 (|a: u16, b: u16| ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u16);
            MulHs32 MulHs32I MulHs I32 (|a: u32, b: u32| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32);
            MulHs64 MulHs64I MulHs I64 (|a: u64, b: u64| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64);
            And8 And8I And I8 (|a: u8, b: u8| a & b);
            And16 And16I And I16 (|a: u16, b: u16| a & b);
            And32 And32I And I32 (|a: u32, b: u32| a & b);
            And64 And64I And I64 (|a: u64, b: u64| a & b);
            Or8 Or8I Or I8 (|a: u8, b: u8| a | b);
            Or16 Or16I Or I16 (|a: u16, b: u16| a | b);
            Or32 Or32I Or I32 (|a: u32, b: u32| a | b);
            Or64 Or64I Or I64 (|a: u64, b: u64| a | b);
            Xor8 Xor8I Xor I8 (|a: u8, b: u8| a ^ b);
            Xor16 Xor16I Xor I16 (|a: u16, b: u16| a ^ b);
            Xor32 Xor32I Xor I32 (|a: u32, b: u32| a ^ b);
            Xor64 Xor64I Xor I64 (|a: u64, b: u64| a ^ b);
            Shl8 Shl8I Shl I8 (|a: u8, n: u32| a.checked_shl(n & 31).unwrap_or(0));
            Shl16 Shl16I Shl I16 (|a: u16, n: u32| a.checked_shl(n & 31).unwrap_or(0));
            Shl32 Shl32I Shl I32 (|a: u32, n: u32| a.wrapping_shl(n));
            Shl64 Shl64I Shl I64 (|a: u64, n: u32| a.wrapping_shl(n));
            Shr8 Shr8I Shr I8 (|a: u8, n: u32| a.checked_shr(n & 31).unwrap_or(0));
            Shr16 Shr16I Shr I16 (|a: u16, n: u32| a.checked_shr(n & 31).unwrap_or(0));
            Shr32 Shr32I Shr I32 (|a: u32, n: u32| a.wrapping_shr(n));
            Shr64 Shr64I Shr I64 (|a: u64, n: u32| a.wrapping_shr(n));
            Sar8 Sar8I Sar I8 (|a: u8, n: u32| ((a as i8) >> (n & 31).min(7)) as u8);
            Sar16 Sar16I Sar I16 (|a: u16, n: u32| ((a as i16) >> (n & 31).min(15)) as u16);
            Sar32 Sar32I Sar I32 (|a: u32, n: u32| (a as i32).wrapping_shr(n) as u32);
            Sar64 Sar64I Sar I64 (|a: u64, n: u32| (a as i64).wrapping_shr(n) as u64);
            Rotl8 Rotl8I Rotl I8 (|a: u8, n: u32| a.rotate_left(n & 7));
            Rotl16 Rotl16I Rotl I16 (|a: u16, n: u32| a.rotate_left(n & 15));
            Rotl32 Rotl32I Rotl I32 (|a: u32, n: u32| a.rotate_left(n & 31));
            Rotl64 Rotl64I Rotl I64 (|a: u64, n: u32| a.rotate_left(n & 63));
            Rotr8 Rotr8I Rotr I8 (|a: u8, n: u32| a.rotate_right(n & 7));
            Rotr16 Rotr16I Rotr I16 (|a: u16, n: u32| a.rotate_right(n & 15));
            Rotr32 Rotr32I Rotr I32 (|a: u32, n: u32| a.rotate_right(n & 31));
            Rotr64 Rotr64I Rotr I64 (|a: u64, n: u32| a.rotate_right(n & 63));
            }
            compare {
            Eq8 Eq8I BrEq8 BrEq8I Eq I8 (|a: u8, b: u8| a == b);
            Eq16 Eq16I BrEq16 BrEq16I Eq I16 (|a: u16, b: u16| a == b);
            Eq32 Eq32I BrEq32 BrEq32I Eq I32 (|a: u32, b: u32| a == b);
            Eq64 Eq64I BrEq64 BrEq64I Eq I64 (|a: u64, b: u64| a == b);
            Ne8 Ne8I BrNe8 BrNe8I Ne I8 (|a: u8, b: u8| a != b);
            Ne16 Ne16I BrNe16 BrNe16I Ne I16 (|a: u16, b: u16| a != b);
            Ne32 Ne32I BrNe32 BrNe32I Ne I32 (|a: u32, b: u32| a != b);
            Ne64 Ne64I BrNe64 BrNe64I Ne I64 (|a: u64, b: u64| a != b);
            Ltu8 Ltu8I BrLtu8 BrLtu8I Ltu I8 (|a: u8, b: u8| a < b);
            Ltu16 Ltu16I BrLtu16 BrLtu16I Ltu I16 (|a: u16, b: u16| a < b);
            Ltu32 Ltu32I BrLtu32 BrLtu32I Ltu I32 (|a: u32, b: u32| a < b);
            Ltu64 Ltu64I BrLtu64 BrLtu64I Ltu I64 (|a: u64, b: u64| a < b);
            Leu8 Leu8I BrLeu8 BrLeu8I Leu I8 (|a: u8, b: u8| a <= b);
            Leu16 Leu16I BrLeu16 BrLeu16I Leu I16 (|a: u16, b: u16| a <= b);
            Leu32 Leu32I BrLeu32 BrLeu32I Leu I32 (|a: u32, b: u32| a <= b);
            Leu64 Leu64I BrLeu64 BrLeu64I Leu I64 (|a: u64, b: u64| a <= b);
            Lts8 Lts8I BrLts8 BrLts8I Lts I8 (|a: i8, b: i8| a < b);
            Lts16 Lts16I BrLts16 BrLts16I Lts I16 (|a: i16, b: i16| a < b);
            Lts32 Lts32I BrLts32 BrLts32I Lts I32 (|a: i32, b: i32| a < b);
            Lts64 Lts64I BrLts64 BrLts64I Lts I64 (|a: i64, b: i64| a < b);
            Les8 Les8I BrLes8 BrLes8I Les I8 (|a: i8, b: i8| a <= b);
            Les16 Les16I BrLes16 BrLes16I Les I16 (|a: i16, b: i16| a <= b);
            Les32 Les32I BrLes32 BrLes32I Les I32 (|a: i32, b: i32| a <= b);
            Les64 Les64I BrLes64 BrLes64I Les I64 (|a: i64, b: i64| a <= b);
            }
        }
    };
}
pub(crate) use rows;

macro_rules! define {
    (
        binary { $($r:ident $i:ident $op:ident $ty:ident ($f:expr);)* }
        compare { $($v:ident $vi:ident $b:ident $bi:ident $cmp:ident $cty:ident ($cf:expr);)* }
    ) => {
        /// One operation of a flat unit. `d` is written, `a`, `b`, `c` are read.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Instr {
            $($r { d: Loc, a: Loc, b: Loc }, $i { d: Loc, a: Loc, imm: u64 },)*
            $($v { d: Loc, a: Loc, b: Loc }, $vi { d: Loc, a: Loc, imm: u64 },
              $b { a: Loc, b: Loc, to: u32 }, $bi { a: Loc, to: u32, imm: u64 },)*
            Mov { d: Loc, a: Loc },
            MovI { d: Loc, imm: u64 },
            MovV { d: Loc, a: Loc },
            /// Keeps the bits of `mask`.
            Mask { d: Loc, a: Loc, mask: u64 },
            Sext8 { d: Loc, a: Loc, mask: u64 },
            Sext16 { d: Loc, a: Loc, mask: u64 },
            Sext32 { d: Loc, a: Loc, mask: u64 },
            Extract { d: Loc, a: Loc, shift: u8, mask: u64 },
            Insert { d: Loc, a: Loc, b: Loc, shift: u8, width: u8 },
            /// `a + (b << shift) + imm`.
            Lea { d: Loc, a: Loc, b: Loc, shift: u8, imm: i32 },
            Unary { op: accel_ir::Unary, ty: accel_ir::Ty, d: Loc, a: Loc },
            Select { d: Loc, c: Loc, a: Loc, b: Loc },
            Load8 { d: Loc, a: Loc, ctx: u8, imm: u64 },
            Load16 { d: Loc, a: Loc, ctx: u8, imm: u64 },
            Load32 { d: Loc, a: Loc, ctx: u8, imm: u64 },
            Load64 { d: Loc, a: Loc, ctx: u8, imm: u64 },
            Store8 { a: Loc, v: Loc, ctx: u8, imm: u64 },
            Store16 { a: Loc, v: Loc, ctx: u8, imm: u64 },
            Store32 { a: Loc, v: Loc, ctx: u8, imm: u64 },
            Store64 { a: Loc, v: Loc, ctx: u8, imm: u64 },
            /// Loads and stores of any description, by index into `Code::mems`.
            LoadAny { d: Loc, a: Loc, mem: u16 },
            StoreAny { a: Loc, v: Loc, mem: u16 },
            Probe { a: Loc, mem: u16 },
            Rmw { op: accel_ir::Rmw, d: Loc, a: Loc, v: Loc, mem: u16 },
            Cas { d: Loc, a: Loc, expected: Loc, new: Loc, mem: u16 },
            Fence,
            /// Kind and type, then the operands.
            Flags { kind: u16, a: Loc, b: Loc },
            FlagsI { kind: u16, a: Loc, imm: u64 },
            FlagsC { kind: u16, a: Loc, b: Loc, c: Loc },
            Test { d: Loc, cond: accel_ir::Cond },
            Pack { d: Loc },
            Vec { op: accel_ir::VecOp, imm: u8, d: Loc, a: Loc, b: Loc },
            VecSigns { lane: accel_ir::Ty, d: Loc, a: Loc },
            Fp { how: accel_ir::Fp, d: Loc, a: Loc, b: Loc },
            FpMulAdd { how: accel_ir::FpMulAdd, d: Loc, a: Loc, b: Loc, c: Loc },
            FpFromInt { fmt: accel_ir::FpFmt, rules: accel_ir::FpRules, ty: accel_ir::Ty, d: Loc, a: Loc, v: Loc },
            FpToInt { how: accel_ir::ToInt, ty: accel_ir::Ty, d: Loc, a: Loc },
            FpCompare { how: accel_ir::FpCompare, d: Loc, a: Loc, b: Loc },
            /// Arguments not given are `NO_ARG`, a result not wanted goes to `NOWHERE`.
            Call { helper: u16, d: Loc, args: [Loc; 4] },
            Jump { to: u32 },
            BrIf { a: Loc, to: u32 },
            BrTest { cond: accel_ir::Cond, to: u32 },
            /// Leaves the unit after `insns` instructions.
            Exit { insns: u16, pc: u64 },
            ExitVal { insns: u16, a: Loc },
            Leave { insns: u16 },
            /// Never made from a verified unit.
            Fail,
        }

        /// A two-operand operation.
        pub(crate) fn binary(op: Binary, ty: Ty, d: Loc, a: Loc, b: Loc) -> Instr {
            match (op, ty) {
                $((Binary::$op, Ty::$ty) => Instr::$r { d, a, b },)*
                _ => Instr::Fail,
            }
        }

        /// A two-operand operation with a constant.
        pub(crate) fn binary_imm(op: Binary, ty: Ty, d: Loc, a: Loc, imm: u64) -> Instr {
            match (op, ty) {
                $((Binary::$op, Ty::$ty) => Instr::$i { d, a, imm },)*
                _ => Instr::Fail,
            }
        }

        /// A comparison.
        pub(crate) fn compare(op: Cmp, ty: Ty, d: Loc, a: Loc, b: Loc) -> Instr {
            match (op, ty) {
                $((Cmp::$cmp, Ty::$cty) => Instr::$v { d, a, b },)*
                _ => Instr::Fail,
            }
        }

        /// A comparison with a constant.
        pub(crate) fn compare_imm(op: Cmp, ty: Ty, d: Loc, a: Loc, imm: u64) -> Instr {
            match (op, ty) {
                $((Cmp::$cmp, Ty::$cty) => Instr::$vi { d, a, imm },)*
                _ => Instr::Fail,
            }
        }

        /// A branch on a comparison.
        pub(crate) fn branch(op: Cmp, ty: Ty, a: Loc, b: Loc) -> Instr {
            match (op, ty) {
                $((Cmp::$cmp, Ty::$cty) => Instr::$b { a, b, to: 0 },)*
                _ => Instr::Fail,
            }
        }

        /// A branch on a comparison with a constant.
        pub(crate) fn branch_imm(op: Cmp, ty: Ty, a: Loc, imm: u64) -> Instr {
            match (op, ty) {
                $((Cmp::$cmp, Ty::$cty) => Instr::$bi { a, to: 0, imm },)*
                _ => Instr::Fail,
            }
        }

        impl Instr {
            /// The target of a jump or branch, to be filled in.
            pub(crate) fn target(&mut self) -> Option<&mut u32> {
                match self {
                    $(Instr::$b { to, .. } | Instr::$bi { to, .. } => Some(to),)*
                    Instr::Jump { to } | Instr::BrIf { to, .. } | Instr::BrTest { to, .. } => Some(to),
                    _ => None,
                }
            }
        }
    };
}
rows!(define);

/// An argument slot of a call that is not used.
pub(crate) const NO_ARG: Loc = u16::MAX;
/// The last scratch slot: results nobody wants.
pub(crate) const NOWHERE: Loc = 511;

/// A unit ready to run.
pub(crate) struct Code {
    pub(crate) ops: Vec<Instr>,
    /// Where each guest instruction starts: index in `ops`, PC.
    pub(crate) marks: Vec<(u32, u64)>,
    pub(crate) mems: Vec<Mem>,
    /// Memory it was made from; empty if it must not be reused.
    pub(crate) pages: Vec<PageRef>,
}
