//! Loads and stores of core registers (DDI 0487, F2.6, F5.1).
//!
//! Addresses are computed in 32 bits. The registers of one LDM or STM follow each other without a wrap at
//! the top of the address space, which is unpredictable there.

use accel_ir::{Cmp, Mem, Ordering, Ty, Val, Via};

use super::alu::{Operand, shift_constant};
use super::bits::no_pc;
use super::context::Ctx;
use crate::regs;

/// What a load or store of one register moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Move {
    pub(super) ty: Ty,
    pub(super) signed: bool,
    pub(super) load: bool,
}

impl Move {
    /// log2 of the bytes; a sign; whether a load.
    pub(super) fn new(size: u32, signed: u32, load: u32) -> Move {
        Move {
            ty: match size & 3 {
                0 => Ty::I8,
                1 => Ty::I16,
                _ => Ty::I32,
            },
            signed: signed != 0,
            load: load != 0,
        }
    }
}

/// How the base register and the offset make an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Index {
    /// P: the offset counts for the access.
    pub(super) before: bool,
    /// U: it is added.
    pub(super) up: bool,
    /// The base register is written back.
    pub(super) back: bool,
}

impl Index {
    /// P, U and W as A32 has them: post-indexed forms always write back.
    pub(super) fn new(p: u32, u: u32, w: u32) -> Index {
        Index {
            before: p != 0,
            up: u != 0,
            back: p == 0 || w != 0,
        }
    }

    pub(super) fn plain() -> Index {
        Index::new(1, 1, 0)
    }
}

/// The base of an address: the PC is aligned.
fn base(c: &mut Ctx, rn: u32) -> Val {
    if rn == 15 {
        let pc = c.pc_base();
        return c.imm(Ty::I32, pc);
    }
    c.r(rn)
}

/// The offset of an access.
pub(super) fn offset(c: &mut Ctx, operand: Operand) -> Val {
    match operand {
        Operand::Constant(value, _) => c.i32(value),
        Operand::Shifted(rm, kind, amount) | Operand::ShiftedBy(rm, kind, amount) => {
            let v = c.r(rm);
            shift_constant(c, v, kind, amount, false).0
        }
    }
}

/// Address of an access (i64), and the new value of the base register.
pub(super) fn address(c: &mut Ctx, rn: u32, index: Index, operand: Operand) -> (Val, Val) {
    let base = base(c, rn);
    let moved = match operand {
        Operand::Constant(0, _) => base,
        _ => {
            let offset = offset(c, operand);
            match index.up {
                true => c.b.add(base, offset),
                false => c.b.sub(base, offset),
            }
        }
    };
    let used = if index.before { moved } else { base };
    (c.address(used), moved)
}

/// LDR, STR and their narrow forms.
pub(super) fn single(
    c: &mut Ctx,
    what: Move,
    (rt, rn): (u32, u32),
    index: Index,
    operand: Operand,
) -> Option<()> {
    if index.back && (rn == 15 || rn == rt) {
        return None;
    }
    if rt == 15 {
        if what.ty != Ty::I32 || c.thumb && !what.load {
            return None;
        }
        if what.load {
            c.may_branch()?;
        }
    }
    if let Operand::Shifted(rm, ..) = operand {
        no_pc(&[rm])?;
    }
    let (address, moved) = address(c, rn, index, operand);
    let mem = c.data(what.ty);
    if !what.load {
        let v = c.r(rt);
        let v = c.b.zext(v, what.ty);
        c.b.store(address, v, mem);
        if index.back {
            c.set_r(rn, moved);
        }
        return Some(());
    }
    let v = c.b.load(address, mem);
    if index.back {
        c.set_r(rn, moved);
    }
    let v = match what.signed {
        true => c.b.sext(v, Ty::I32),
        false => c.b.zext(v, Ty::I32),
    };
    // POP {PC}.
    let via = if rn == 13 { Via::Return } else { Via::Jump };
    c.write_loaded(rt, v, via)
}

/// Two words as one access of 64 bits, which is atomic where its address is a multiple of eight.
fn words(c: &mut Ctx, low: Val, high: Val) -> Val {
    let (low, high) = match c.mode.is_big_endian() {
        true => (high, low),
        false => (low, high),
    };
    let low = c.b.zext(low, Ty::I64);
    let high = c.b.zext(high, Ty::I64);
    c.b.insert(low, high, 32, 32)
}

fn parts(c: &mut Ctx, v: Val) -> (Val, Val) {
    let low = c.b.zext(v, Ty::I32);
    let high = c.b.extract(v, 32, 32, Ty::I32);
    match c.mode.is_big_endian() {
        true => (high, low),
        false => (low, high),
    }
}

/// LDRD, STRD.
pub(super) fn pair(
    c: &mut Ctx,
    load: bool,
    (rt, rt2, rn): (u32, u32, u32),
    index: Index,
    operand: Operand,
) -> Option<()> {
    no_pc(&[rt, rt2])?;
    if index.back && (rn == 15 || rn == rt || rn == rt2) || load && rt == rt2 {
        return None;
    }
    if let Operand::Shifted(rm, ..) = operand {
        no_pc(&[rm])?;
        if load && (rm == rt || rm == rt2) {
            return None;
        }
    }
    let (address, moved) = address(c, rn, index, operand);
    // Words are aligned always.
    super::neon::check_alignment(c, address, 4, !load);
    let both = Mem {
        aligned: false,
        ..c.data(Ty::I64)
    };
    if load {
        let v = c.b.load(address, both);
        let (low, high) = parts(c, v);
        if index.back {
            c.set_r(rn, moved);
        }
        c.set_r(rt, low);
        c.set_r(rt2, high);
    } else {
        let (low, high) = (c.r(rt), c.r(rt2));
        let v = words(c, low, high);
        c.b.store(address, v, both);
        if index.back {
            c.set_r(rn, moved);
        }
    }
    Some(())
}

/// LDM, STM, PUSH, POP. `before` and `up` as in [`Index`].
pub(super) fn block(c: &mut Ctx, load: bool, index: Index, rn: u32, list: u32) -> Option<()> {
    let count = list.count_ones();
    if rn == 15 || count == 0 || load && index.back && list.wrapping_shr(rn) & 1 != 0 {
        return None;
    }
    let has_pc = list >> 15 & 1 != 0;
    if has_pc {
        c.may_branch()?;
    }
    let base = c.r(rn);
    let bytes = u64::from(count) << 2;
    let up = bytes;
    let down = bytes.wrapping_neg();
    let start = match (index.up, index.before) {
        (true, false) => 0,
        (true, true) => 4,
        (false, false) => down.wrapping_add(4),
        (false, true) => down,
    };
    let first = c.b.add_const(base, start & 0xffff_ffff);
    let moved =
        c.b.add_const(base, if index.up { up } else { down & 0xffff_ffff });
    let first = c.address(first);
    let mem = c.data_aligned(Ty::I32, Ordering::Relaxed);
    let registers = (0..16u32).filter(|n| list.wrapping_shr(*n) & 1 != 0);
    let places = registers.zip(0u64..);
    if !load {
        if count > 1 {
            let last = c.past(first, bytes.wrapping_sub(4));
            c.b.probe(last, mem);
        }
        for (n, at) in places {
            let v = c.r(n);
            let address = c.past(first, at << 2);
            c.b.store(address, v, mem);
        }
        if index.back {
            c.set_r(rn, moved);
        }
        return Some(());
    }
    let mut loaded = Vec::with_capacity(16);
    for (n, at) in places {
        let address = c.past(first, at << 2);
        loaded.push((n, c.b.load(address, mem)));
    }
    if index.back {
        c.set_r(rn, moved);
    }
    for (n, v) in loaded {
        // Whatever is loaded with it was saved at a subroutine's beginning.
        c.write_loaded(n, v, Via::Return)?;
    }
    Some(())
}

/// An exclusive or ordered access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Exclusive {
    pub(super) ty: Ty,
    pub(super) rn: u32,
    pub(super) rt: u32,
    /// The second register of 64 bits.
    pub(super) rt2: u32,
    /// Added to the base register.
    pub(super) offset: u32,
}

impl Exclusive {
    fn address(self, c: &mut Ctx) -> Val {
        let base = c.r(self.rn);
        let address = c.b.add_const(base, self.offset.into());
        c.address(address)
    }

    fn check(self) -> Option<()> {
        no_pc(&[self.rn, self.rt])?;
        if self.ty == Ty::I64 {
            no_pc(&[self.rt2])?;
        }
        Some(())
    }

    fn set(self, c: &mut Ctx, v: Val) {
        if self.ty == Ty::I64 {
            let (low, high) = parts(c, v);
            c.set_r(self.rt, low);
            c.set_r(self.rt2, high);
        } else {
            c.set_r(self.rt, v);
        }
    }

    fn get(self, c: &mut Ctx) -> Val {
        let v = c.r(self.rt);
        if self.ty == Ty::I64 {
            let high = c.r(self.rt2);
            return words(c, v, high);
        }
        c.b.zext(v, self.ty)
    }
}

/// LDREX and LDAEX.
pub(super) fn load_exclusive(c: &mut Ctx, e: Exclusive) -> Option<()> {
    e.check()?;
    if e.ty == Ty::I64 && e.rt == e.rt2 {
        return None;
    }
    let address = e.address(c);
    let mem = c.data_aligned(e.ty, Ordering::Acquire);
    let v = c.b.load(address, mem);
    c.b.set(regs::MONITOR, address);
    c.b.set(regs::MONITOR_DATA, v);
    e.set(c, v);
    Some(())
}

/// STREX and STLEX, as a compare and exchange with what LDREX read.
pub(super) fn store_exclusive(c: &mut Ctx, e: Exclusive, rd: u32) -> Option<()> {
    e.check()?;
    no_pc(&[rd])?;
    if rd == e.rn || rd == e.rt || e.ty == Ty::I64 && rd == e.rt2 {
        return None;
    }
    let address = e.address(c);
    let new = e.get(c);
    let monitor = c.b.get(regs::MONITOR);
    let is_open = c.b.cmp(Cmp::Ne, monitor, address);
    let (attempt, fail, done) = (c.b.block(), c.b.block(), c.b.block());
    c.b.branch(is_open, fail, attempt);
    c.b.switch(attempt);
    let expected = c.b.get_low(regs::MONITOR_DATA, e.ty);
    let mem = c.data_aligned(e.ty, Ordering::SeqCst);
    let old = c.b.cas(address, expected, new, mem);
    let differs = c.b.cmp(Cmp::Ne, old, expected);
    c.set_const(regs::MONITOR, u64::MAX);
    c.set_r(rd, differs);
    c.b.jump(done, &[]);
    c.b.switch(fail);
    c.set_const(regs::MONITOR, u64::MAX);
    c.set_const(regs::x(rd), 1);
    c.b.jump(done, &[]);
    c.b.switch(done);
    Some(())
}

/// LDA.
pub(super) fn load_acquire(c: &mut Ctx, e: Exclusive) -> Option<()> {
    e.check()?;
    let address = e.address(c);
    let mem = c.data_aligned(e.ty, Ordering::Acquire);
    let v = c.b.load(address, mem);
    e.set(c, v);
    Some(())
}

/// STL: sequentially consistent with LDA.
pub(super) fn store_release(c: &mut Ctx, e: Exclusive) -> Option<()> {
    e.check()?;
    let address = e.address(c);
    let v = e.get(c);
    let mem = c.data_aligned(e.ty, Ordering::SeqCst);
    c.b.store(address, v, mem);
    Some(())
}

/// TBB, TBH.
pub(super) fn table_branch(c: &mut Ctx, halves: u32, rn: u32, rm: u32) -> Option<()> {
    no_pc(&[rm])?;
    c.may_branch()?;
    let table = c.r(rn);
    let index = c.r(rm);
    let index = c.shl(index, halves);
    let address = c.b.add(table, index);
    let address = c.address(address);
    let mem = c.data(if halves != 0 { Ty::I16 } else { Ty::I8 });
    let entry = c.b.load(address, mem);
    let entry = c.b.zext(entry, Ty::I32);
    let distance = c.shl(entry, 1);
    let pc = c.pc_value();
    let target = c.b.add_const(distance, pc);
    c.branch_to(target, Via::Jump);
    Some(())
}
