//! Building a unit, one guest instruction after the other.

use crate::{
    Binary, Block, BlockId, Cmp, Cond, End, FlagKind, Fp, FpCompare, FpFmt, FpMulAdd, FpRules,
    HelperId, Mem, Op, Rmw, Slot, ToInt, Ty, Unary, Unit, Val, VecOp, Via,
};

/// Memory of earlier units, for the next one. It is no part of a unit.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    ops: Vec<Vec<Op>>,
    ended: Vec<bool>,
}

impl Clone for Spare {
    fn clone(&self) -> Self {
        Spare::default()
    }
}

impl PartialEq for Spare {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Appends operations to the current block of a unit in the making.
#[derive(Debug)]
pub struct Builder {
    unit: Unit,
    current: usize,
    ended: Vec<bool>,
    /// The last definition of flags, and how many there were.
    flags: Option<Op>,
    flag_defs: u32,
}

/// A place in a unit in the making, to go back to ([`Builder::rewind`]).
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    blocks: usize,
    current: usize,
    ops: usize,
    types: usize,
    insns: u32,
    flags: Option<Op>,
    flag_defs: u32,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty unit, at its entry block.
    pub fn new() -> Self {
        Self::reusing(Unit::default())
    }

    /// An empty unit in the memory of one that is not needed any more.
    pub fn reusing(mut unit: Unit) -> Self {
        while let Some(block) = unit.blocks.pop() {
            unit.spare.ops.push(block.ops);
        }
        unit.types.clear();
        unit.insns = 0;
        let mut ended = std::mem::take(&mut unit.spare.ended);
        ended.clear();
        let mut builder = Builder {
            unit,
            current: 0,
            ended,
            flags: None,
            flag_defs: 0,
        };
        builder.block();
        builder
    }

    /// The finished unit. Blocks never ended leave the unit.
    pub fn finish(mut self) -> Unit {
        self.unit.spare.ended = self.ended;
        self.unit
    }

    /// Guest instructions so far.
    pub fn insns(&self) -> u32 {
        self.unit.insns
    }

    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.unit.ty(v)
    }

    /// Creates a block to jump to; [`switch`](Self::switch) continues in it.
    pub fn block(&mut self) -> BlockId {
        let id = BlockId(self.unit.blocks.len() as u32);
        // The first block, which is the longest, gets its own memory again: it was given back last.
        let mut ops = self.unit.spare.ops.pop().unwrap_or_default();
        ops.clear();
        self.unit.blocks.push(Block {
            params: Vec::new(),
            ops,
            end: End::Leave,
        });
        self.ended.push(false);
        id
    }

    /// Gives a block a parameter.
    pub fn param(&mut self, block: BlockId, ty: Ty) -> Val {
        let v = self.value(ty);
        if let Some(block) = self.unit.blocks.get_mut(block.0 as usize) {
            block.params.push(v);
        }
        v
    }

    /// The current block.
    pub fn current(&self) -> BlockId {
        BlockId(self.current as u32)
    }

    /// Continues at the end of this block.
    pub fn switch(&mut self, block: BlockId) {
        self.current = block.0 as usize;
    }

    /// Whether the current block has its end.
    pub fn is_ended(&self) -> bool {
        self.ended.get(self.current).copied().unwrap_or(true)
    }

    fn value(&mut self, ty: Ty) -> Val {
        let v = Val(self.unit.types.len() as u32);
        self.unit.types.push(ty);
        v
    }

    /// Appends an operation.
    pub fn push(&mut self, op: Op) {
        if matches!(op, Op::Insn { .. }) {
            self.unit.insns += 1;
        }
        if matches!(op, Op::FlagsDef { .. }) {
            self.flags = Some(op);
            self.flag_defs += 1;
        }
        if let Some(block) = self.unit.blocks.get_mut(self.current) {
            block.ops.push(op);
        }
    }

    /// The last definition of flags, and how many there were.
    pub fn flags_defined(&self) -> (Option<Op>, u32) {
        (self.flags, self.flag_defs)
    }

    /// The place where the next operation comes.
    pub fn mark(&self) -> Mark {
        let block = self.unit.blocks.get(self.current);
        Mark {
            blocks: self.unit.blocks.len(),
            current: self.current,
            ops: block.map_or(0, |b| b.ops.len()),
            types: self.unit.types.len(),
            insns: self.unit.insns,
            flags: self.flags,
            flag_defs: self.flag_defs,
        }
    }

    /// The operations since a place. `None` if the block ended there, or others were begun.
    pub fn since(&self, mark: &Mark) -> Option<&[Op]> {
        let is_same = self.unit.blocks.len() == mark.blocks && self.current == mark.current;
        if !is_same || self.is_ended() {
            return None;
        }
        self.unit.blocks.get(self.current)?.ops.get(mark.ops..)
    }

    /// Takes back all since a place, where the block had not ended.
    pub fn rewind(&mut self, mark: Mark) {
        self.unit.blocks.truncate(mark.blocks);
        self.ended.truncate(mark.blocks);
        self.unit.types.truncate(mark.types);
        self.unit.insns = mark.insns;
        self.current = mark.current;
        (self.flags, self.flag_defs) = (mark.flags, mark.flag_defs);
        if let Some(block) = self.unit.blocks.get_mut(mark.current) {
            block.ops.truncate(mark.ops);
            block.end = End::Leave;
        }
        if let Some(ended) = self.ended.get_mut(mark.current) {
            *ended = false;
        }
    }

    fn end(&mut self, end: End) {
        if let (Some(block), Some(ended)) = (
            self.unit.blocks.get_mut(self.current),
            self.ended.get_mut(self.current),
        ) {
            debug_assert!(!*ended, "a block ends once");
            block.end = end;
            *ended = true;
        }
    }

    /// Starts a guest instruction.
    pub fn insn(&mut self, pc: u64) {
        self.push(Op::Insn { pc });
    }

    /// Ends the block: to another one.
    pub fn jump(&mut self, to: BlockId, args: &[Val]) {
        self.end(End::Jump {
            to,
            args: args.to_vec(),
        });
    }

    /// Ends the block: to one of two.
    pub fn branch(&mut self, c: Val, then: BlockId, other: BlockId) {
        self.end(End::Branch { c, then, other });
    }

    /// Ends the block and the unit.
    pub fn goto(&mut self, pc: u64) {
        self.goto_via(pc, Via::Jump);
    }

    /// Ends the block and the unit.
    pub fn goto_val(&mut self, pc: Val) {
        self.goto_val_via(pc, Via::Jump);
    }

    /// Ends the block and the unit, and says what for.
    pub fn goto_via(&mut self, pc: u64, via: Via) {
        self.end(End::Goto { pc, via });
    }

    /// Ends the block and the unit, and says what for.
    pub fn goto_val_via(&mut self, pc: Val, via: Via) {
        self.end(End::GotoVal { pc, via });
    }

    /// Ends the block and the unit: a helper has set the PC.
    pub fn leave(&mut self) {
        self.end(End::Leave);
    }

    /// A constant.
    pub fn iconst(&mut self, ty: Ty, value: u64) -> Val {
        let d = self.value(ty);
        self.push(Op::Const {
            d,
            value: value & ty.mask(),
        });
        d
    }

    /// The constant that a value is, if the current block made it one.
    pub fn as_const(&self, v: Val) -> Option<u64> {
        let block = self.unit.blocks.get(self.current)?;
        block.ops.iter().rev().find_map(|op| match op {
            Op::Const { d, value } if *d == v => Some(*value),
            _ => None,
        })
    }

    /// Reads a slot.
    pub fn get(&mut self, slot: Slot) -> Val {
        self.get_low(slot, Ty::I64)
    }

    /// Reads the low bits of a slot.
    pub fn get_low(&mut self, slot: Slot, ty: Ty) -> Val {
        let d = self.value(ty);
        self.push(Op::Get { d, slot });
        d
    }

    /// Writes a slot; narrower values are zero-extended.
    pub fn set(&mut self, slot: Slot, v: Val) {
        self.push(Op::Set { slot, v });
    }

    /// Reads a vector register.
    pub fn get_v(&mut self, slot: Slot) -> Val {
        let d = self.value(Ty::V128);
        self.push(Op::GetV { d, slot });
        d
    }

    /// Writes a vector register.
    pub fn set_v(&mut self, slot: Slot, v: Val) {
        self.push(Op::SetV { slot, v });
    }

    /// One-operand operation.
    pub fn unary(&mut self, op: Unary, a: Val) -> Val {
        let d = self.value(self.ty(a));
        self.push(Op::Unary { op, d, a });
        d
    }

    /// Two-operand operation; the type is that of `a`.
    pub fn binary(&mut self, op: Binary, a: Val, b: Val) -> Val {
        let d = self.value(self.ty(a));
        self.push(Op::Binary { op, d, a, b });
        d
    }

    /// Sum.
    pub fn add(&mut self, a: Val, b: Val) -> Val {
        self.binary(Binary::Add, a, b)
    }

    /// Sum with a constant.
    pub fn add_const(&mut self, a: Val, value: u64) -> Val {
        if value == 0 {
            return a;
        }
        let b = self.iconst(self.ty(a), value);
        self.binary(Binary::Add, a, b)
    }

    /// Difference.
    pub fn sub(&mut self, a: Val, b: Val) -> Val {
        self.binary(Binary::Sub, a, b)
    }

    /// Bitwise and.
    pub fn and(&mut self, a: Val, b: Val) -> Val {
        self.binary(Binary::And, a, b)
    }

    /// Bitwise or.
    pub fn or(&mut self, a: Val, b: Val) -> Val {
        self.binary(Binary::Or, a, b)
    }

    /// Bitwise exclusive or.
    pub fn xor(&mut self, a: Val, b: Val) -> Val {
        self.binary(Binary::Xor, a, b)
    }

    /// Shift left by a constant.
    pub fn shl_const(&mut self, a: Val, count: u64) -> Val {
        if count == 0 {
            return a;
        }
        let b = self.iconst(Ty::I8, count);
        self.binary(Binary::Shl, a, b)
    }

    /// Comparison; an i8 of 0 or 1.
    pub fn cmp(&mut self, op: Cmp, a: Val, b: Val) -> Val {
        let d = self.value(Ty::I8);
        self.push(Op::Cmp { op, d, a, b });
        d
    }

    /// `a` if `c` else `b`.
    pub fn select(&mut self, c: Val, a: Val, b: Val) -> Val {
        let d = self.value(self.ty(a));
        self.push(Op::Select { d, c, a, b });
        d
    }

    /// Zero-extends or cuts to `ty`.
    pub fn zext(&mut self, a: Val, ty: Ty) -> Val {
        if self.ty(a) == ty {
            return a;
        }
        let d = self.value(ty);
        self.push(Op::Zext { d, a });
        d
    }

    /// Sign-extends to `ty`.
    pub fn sext(&mut self, a: Val, ty: Ty) -> Val {
        if self.ty(a) == ty {
            return a;
        }
        let d = self.value(ty);
        self.push(Op::Sext { d, a });
        d
    }

    /// Bits of a value, as a value of `ty`.
    pub fn extract(&mut self, a: Val, shift: u8, width: u8, ty: Ty) -> Val {
        let d = self.value(ty);
        self.push(Op::Extract { d, a, shift, width });
        d
    }

    /// A value with some bits replaced.
    pub fn insert(&mut self, a: Val, b: Val, shift: u8, width: u8) -> Val {
        let d = self.value(self.ty(a));
        self.push(Op::Insert {
            d,
            a,
            b,
            shift,
            width,
        });
        d
    }

    /// Load.
    pub fn load(&mut self, addr: Val, mem: Mem) -> Val {
        let d = self.value(mem.ty);
        self.push(Op::Load { d, addr, mem });
        d
    }

    /// Store.
    pub fn store(&mut self, addr: Val, v: Val, mem: Mem) {
        self.push(Op::Store { addr, v, mem });
    }

    /// Faults as a store would.
    pub fn probe(&mut self, addr: Val, mem: Mem) {
        self.push(Op::Probe { addr, mem });
    }

    /// Atomic read-modify-write; the old value.
    pub fn rmw(&mut self, op: Rmw, addr: Val, v: Val, mem: Mem) -> Val {
        let d = self.value(mem.ty);
        self.push(Op::Rmw {
            op,
            d,
            addr,
            v,
            mem,
        });
        d
    }

    /// Atomic compare and exchange; the old value.
    pub fn cas(&mut self, addr: Val, expected: Val, new: Val, mem: Mem) -> Val {
        let d = self.value(mem.ty);
        self.push(Op::Cas {
            d,
            addr,
            expected,
            new,
            mem,
        });
        d
    }

    /// Full fence.
    pub fn fence(&mut self) {
        self.push(Op::Fence);
    }

    /// Defines the flags.
    pub fn flags_def(&mut self, kind: FlagKind, a: Val, b: Val, c: Option<Val>) {
        let ty = self.ty(a);
        self.push(Op::FlagsDef { kind, ty, a, b, c });
    }

    /// Tests the flags; an i8 of 0 or 1.
    pub fn flags_use(&mut self, cond: Cond) -> Val {
        let d = self.value(Ty::I8);
        self.push(Op::FlagsUse { d, cond });
        d
    }

    /// All flags packed; an i64.
    pub fn flags_get(&mut self) -> Val {
        let d = self.value(Ty::I64);
        self.push(Op::FlagsGet { d });
        d
    }

    /// Vector operation.
    pub fn vec(&mut self, op: VecOp, a: Val, b: Val, imm: u8) -> Val {
        let d = self.value(Ty::V128);
        self.push(Op::Vec { op, d, a, b, imm });
        d
    }

    /// Sign bits of lanes; an i32.
    pub fn vec_signs(&mut self, a: Val, lane: Ty) -> Val {
        let d = self.value(Ty::I32);
        self.push(Op::VecSigns { d, a, lane });
        d
    }

    /// Floating-point operation on vectors.
    pub fn fp(&mut self, how: Fp, a: Val, b: Val) -> Val {
        let d = self.value(Ty::V128);
        self.push(Op::Fp { how, d, a, b });
        d
    }

    /// A product of `a` and `b` and a sum with `c`, rounded once.
    pub fn fp_mul_add(&mut self, how: FpMulAdd, (a, b): (Val, Val), c: Val) -> Val {
        let d = self.value(Ty::V128);
        self.push(Op::FpMulAdd { how, d, a, b, c });
        d
    }

    /// A signed integer as lane 0 of `a`.
    pub fn fp_from_int(&mut self, fmt: FpFmt, rules: FpRules, a: Val, v: Val) -> Val {
        let d = self.value(Ty::V128);
        self.push(Op::FpFromInt {
            fmt,
            rules,
            d,
            a,
            v,
        });
        d
    }

    /// Lane 0 as a signed integer of `ty`.
    pub fn fp_to_int(&mut self, how: ToInt, a: Val, ty: Ty) -> Val {
        let d = self.value(ty);
        self.push(Op::FpToInt { how, d, a });
        d
    }

    /// Compares lanes 0; flags as an i64.
    pub fn fp_compare(&mut self, how: FpCompare, a: Val, b: Val) -> Val {
        let d = self.value(Ty::I64);
        self.push(Op::FpCompare { how, d, a, b });
        d
    }

    /// Vector from halves.
    pub fn vec_make(&mut self, lo: Val, hi: Val) -> Val {
        let d = self.value(Ty::V128);
        self.push(Op::VecMake { d, lo, hi });
        d
    }

    /// Half of a vector.
    pub fn vec_half(&mut self, a: Val, high: bool) -> Val {
        let d = self.value(Ty::I64);
        self.push(Op::VecHalf { d, a, high });
        d
    }

    /// Calls a helper for its result.
    pub fn call(&mut self, helper: HelperId, args: &[Val]) -> Val {
        let d = self.value(Ty::I64);
        self.push_call(Some(d), helper, args);
        d
    }

    /// Calls a helper for its effect.
    pub fn call_void(&mut self, helper: HelperId, args: &[Val]) {
        self.push_call(None, helper, args);
    }

    fn push_call(&mut self, d: Option<Val>, helper: HelperId, args: &[Val]) {
        debug_assert!(args.len() <= 4, "a helper takes at most four arguments");
        let mut all = [None; 4];
        for (slot, arg) in all.iter_mut().zip(args) {
            *slot = Some(*arg);
        }
        self.push(Op::Call {
            d,
            helper,
            args: all,
        });
    }
}
