//! Loads and stores (DDI 0487, C4.1.95).

use accel_ir::{Binary, Cmp, Mem, Ordering, Rmw, Ty, Val};

use super::context::Ctx;
use super::register::extended;
use crate::model::Feature;
use crate::{helper, regs};

mod pair;
mod table {
    include!(concat!(env!("OUT_DIR"), "/memory.rs"));
}
use pair::pair;
use table::Insn;
pub(super) use table::{FORMS, decode};

fn ty_of(size: u32) -> Ty {
    match size & 7 {
        0 => Ty::I8,
        1 => Ty::I16,
        2 => Ty::I32,
        3 => Ty::I64,
        _ => Ty::V128,
    }
}

/// What a load or store moves.
#[derive(Clone, Copy)]
enum Move {
    /// From a general register.
    Store(Ty),
    /// To a general register of a width, with or without the sign.
    Load {
        ty: Ty,
        signed: bool,
        to: Ty,
    },
    /// A vector register's low bits.
    StoreV(Ty),
    LoadV(Ty),
    Prefetch,
}

/// What `size`, `V` and `opc` select (C4.1.95 "Load/store register").
fn movement(size: u32, v: u32, opc: u32) -> Option<Move> {
    if v != 0 {
        let bytes = size | (opc & 2) << 1;
        if bytes > 4 {
            return None;
        }
        return Some(match opc & 1 {
            0 => Move::StoreV(ty_of(bytes)),
            _ => Move::LoadV(ty_of(bytes)),
        });
    }
    let ty = ty_of(size);
    Some(match (opc, size) {
        (0, _) => Move::Store(ty),
        (1, _) => Move::Load {
            ty,
            signed: false,
            to: Ty::I64,
        },
        (2, 3) => Move::Prefetch,
        (2, _) => Move::Load {
            ty,
            signed: true,
            to: Ty::I64,
        },
        (_, 0 | 1) => Move::Load {
            ty,
            signed: true,
            to: Ty::I32,
        },
        _ => return None,
    })
}

impl Move {
    fn ty(self) -> Ty {
        match self {
            Move::Store(ty) | Move::Load { ty, .. } | Move::StoreV(ty) | Move::LoadV(ty) => ty,
            Move::Prefetch => Ty::I8,
        }
    }

    fn is_vector(self) -> bool {
        matches!(self, Move::StoreV(_) | Move::LoadV(_))
    }

    fn shift(self) -> u32 {
        u32::from(self.ty().bytes()).trailing_zeros()
    }
}

/// A loaded value on its way to its register.
enum Loaded {
    X(Val),
    V(Val),
    None,
}

impl Ctx {
    /// The low bits of a vector register.
    pub(super) fn v_low(&mut self, n: u32, ty: Ty) -> Val {
        match ty {
            Ty::V128 => self.b.get_v(regs::v(n)),
            _ => self.b.get_low(regs::v(n), ty),
        }
    }

    /// Sets a vector register to a value, zeros above.
    pub(super) fn set_v_low(&mut self, n: u32, v: Val) {
        let v = match self.b.ty(v) {
            Ty::V128 => v,
            _ => {
                let low = self.b.zext(v, Ty::I64);
                let zero = self.b.iconst(Ty::I64, 0);
                self.b.vec_make(low, zero)
            }
        };
        self.b.set_v(regs::v(n), v);
    }

    fn access(&mut self, address: Val, rt: u32, how: Move, mem: Mem) -> Loaded {
        match how {
            Move::Store(ty) => {
                let v = self.x(rt, ty);
                self.b.store(address, v, mem);
                Loaded::None
            }
            Move::StoreV(ty) => {
                let v = self.v_low(rt, ty);
                self.b.store(address, v, mem);
                Loaded::None
            }
            Move::Load { signed, to, .. } => {
                let v = self.b.load(address, mem);
                Loaded::X(if signed { self.b.sext(v, to) } else { v })
            }
            Move::LoadV(_) => Loaded::V(self.b.load(address, mem)),
            Move::Prefetch => Loaded::None,
        }
    }

    fn settle(&mut self, rt: u32, loaded: Loaded) {
        match loaded {
            Loaded::X(v) => self.set_x(rt, v),
            Loaded::V(v) => self.set_v_low(rt, v),
            Loaded::None => {}
        }
    }

    /// A whole load or store at an address, base register written back last.
    fn load_store(&mut self, address: Val, rt: u32, how: Move, mem: Mem, back: Option<(u32, Val)>) {
        let loaded = self.access(address, rt, how, mem);
        if let Some((rn, v)) = back {
            self.set_x_sp(rn, v);
        }
        self.settle(rt, loaded);
    }

    pub(super) fn offset(&mut self, base: Val, offset: i64) -> Val {
        self.b.add_const(base, offset as u64)
    }
}

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    match decode(c.word)? {
        Insn::LdstUimm {
            size,
            v,
            opc,
            imm,
            rn,
            rt,
        } => {
            let how = movement(size, v, opc)?;
            if how.is_vector() && !c.fp_access() {
                return Some(());
            }
            let base = c.x_sp(rn, Ty::I64);
            let address = c.offset(base, i64::from(imm.wrapping_shl(how_shift(how, size))));
            let mem = c.mem(how.ty());
            c.load_store(address, rt, how, mem, None);
        }
        Insn::LdstImm9 {
            size,
            v,
            opc,
            imm,
            mode,
            rn,
            rt,
        } => {
            let how = movement(size, v, opc)?;
            if how.is_vector() && mode == 2 {
                return None;
            }
            if matches!(how, Move::Prefetch) && mode != 0 {
                return None;
            }
            if how.is_vector() && !c.fp_access() {
                return Some(());
            }
            let base = c.x_sp(rn, Ty::I64);
            let moved = c.offset(base, imm.into());
            let address = if mode == 1 { base } else { moved };
            let mut mem = c.mem(how.ty());
            if mode == 2 {
                mem.ctx = c.mode.unprivileged_ctx();
            }
            let back = (mode & 1 != 0).then_some((rn, moved));
            c.load_store(address, rt, how, mem, back);
        }
        Insn::LdstReg {
            size,
            v,
            opc,
            rm,
            option,
            s,
            rn,
            rt,
        } => {
            let how = movement(size, v, opc)?;
            if option & 2 == 0 {
                return None;
            }
            if how.is_vector() && !c.fp_access() {
                return Some(());
            }
            let base = c.x_sp(rn, Ty::I64);
            let shift = if s != 0 { how_shift(how, size) } else { 0 };
            let index = extended(c, rm, option, shift, Ty::I64);
            let address = c.b.add(base, index);
            let mem = c.mem(how.ty());
            c.load_store(address, rt, how, mem, None);
        }
        Insn::LdrLit { opc, v, imm, rt } => {
            let how = match (opc, v) {
                (3, 0) => Move::Prefetch,
                (3, _) => return None,
                (2, 0) => Move::Load {
                    ty: Ty::I32,
                    signed: true,
                    to: Ty::I64,
                },
                (_, 0) => Move::Load {
                    ty: ty_of(2 | opc & 1),
                    signed: false,
                    to: Ty::I64,
                },
                _ => Move::LoadV(ty_of(opc.wrapping_add(2))),
            };
            if how.is_vector() && !c.fp_access() {
                return Some(());
            }
            let target = c.pc.wrapping_add((i64::from(imm) << 2) as u64);
            let address = c.imm(Ty::I64, target);
            let mem = c.mem(how.ty());
            c.load_store(address, rt, how, mem, None);
        }
        Insn::Pair {
            opc,
            v,
            mode,
            l,
            imm,
            rt2,
            rn,
            rt,
        } => return pair(c, (opc, v, l), mode, imm, (rt, rt2, rn)),
        Insn::Ldapur {
            size,
            opc,
            imm,
            rn,
            rt,
        } => {
            if !c.has(Feature::Lrcpc2) {
                return None;
            }
            let how = movement(size, 0, opc)?;
            if matches!(how, Move::Prefetch) {
                return None;
            }
            let base = c.x_sp(rn, Ty::I64);
            let address = c.offset(base, imm.into());
            let ordering = match how {
                Move::Store(_) => Ordering::Release,
                _ => Ordering::Acquire,
            };
            let mem = Mem {
                aligned: c.mode.is_aligned() || !c.has(Feature::Lse2),
                ordering,
                ..c.mem(how.ty())
            };
            c.load_store(address, rt, how, mem, None);
        }
        Insn::Ldapr { size, rn, rt } => {
            if !c.has(Feature::Lrcpc) {
                return None;
            }
            let address = c.x_sp(rn, Ty::I64);
            let mem = ordered(c, ty_of(size), Ordering::Acquire);
            let v = c.b.load(address, mem);
            c.set_x(rt, v);
        }
        Insn::Ldar { size, rn, rt } => {
            let address = c.x_sp(rn, Ty::I64);
            let mem = ordered(c, ty_of(size), Ordering::Acquire);
            let v = c.b.load(address, mem);
            c.set_x(rt, v);
        }
        Insn::Stlr { size, rn, rt } => {
            let address = c.x_sp(rn, Ty::I64);
            let v = c.x(rt, ty_of(size));
            // Sequentially consistent with LDAR.
            let mem = ordered(c, ty_of(size), Ordering::SeqCst);
            c.b.store(address, v, mem);
        }
        Insn::Ldxr {
            size,
            acquire,
            rn,
            rt,
        } => {
            let address = c.x_sp(rn, Ty::I64);
            let ordering = match acquire {
                0 => Ordering::Relaxed,
                _ => Ordering::Acquire,
            };
            let mem = c.mem_ordered(ty_of(size), ordering);
            let v = c.b.load(address, mem);
            c.b.set(regs::MONITOR, address);
            c.b.set(regs::MONITOR_DATA, v);
            c.set_x(rt, v);
        }
        Insn::Ldxp {
            sz,
            acquire: _,
            rt2,
            rn,
            rt,
        } => {
            let address = c.x_sp(rn, Ty::I64);
            if sz == 0 {
                let mem = c.mem_ordered(Ty::I64, Ordering::Acquire);
                let v = c.b.load(address, mem);
                c.b.set(regs::MONITOR, address);
                c.b.set(regs::MONITOR_DATA, v);
                let low = c.b.zext(v, Ty::I32);
                let high = c.shift(Binary::Shr, v, 32);
                c.set_x(rt, low);
                c.set_x(rt2, high);
            } else {
                let how = c.imm(Ty::I64, c.mode.ctx().into());
                let (low, high) = pair_slot(1);
                c.b.call_void(helper::LOAD_PAIR_EXCLUSIVE, &[address, how]);
                let low = c.b.get(low);
                let high = c.b.get(high);
                c.set_x(rt, low);
                c.set_x(rt2, high);
            }
        }
        Insn::Stxr {
            size,
            rs,
            release: _,
            rn,
            rt,
        } => {
            let ty = ty_of(size);
            let address = c.x_sp(rn, Ty::I64);
            let new = c.x(rt, ty);
            store_exclusive(c, ty, address, new, rs);
        }
        Insn::Stxp {
            sz,
            rs,
            release: _,
            rt2,
            rn,
            rt,
        } => {
            let address = c.x_sp(rn, Ty::I64);
            let ty = if sz != 0 { Ty::I64 } else { Ty::I32 };
            let low = c.x(rt, ty);
            let high = c.x(rt2, ty);
            if sz == 0 {
                let wide = c.b.zext(low, Ty::I64);
                let new = c.b.insert(wide, high, 32, 32);
                store_exclusive(c, Ty::I64, address, new, rs);
            } else {
                let how = c.imm(Ty::I64, c.mode.ctx().into());
                let status = c.call(helper::STORE_PAIR_EXCLUSIVE, &[address, low, high, how]);
                c.set_x(rs, status);
            }
        }
        Insn::Cas {
            size, rs, rn, rt, ..
        } => {
            if !c.has(Feature::Lse) {
                return None;
            }
            let ty = ty_of(size);
            let address = c.x_sp(rn, Ty::I64);
            let expected = c.x(rs, ty);
            let new = c.x(rt, ty);
            let mem = ordered(c, ty, Ordering::SeqCst);
            let old = c.b.cas(address, expected, new, mem);
            c.set_x(rs, old);
        }
        Insn::Casp { sz, rs, rn, rt, .. } => {
            if !c.has(Feature::Lse) || (rs | rt) & 1 != 0 {
                return None;
            }
            let address = c.x_sp(rn, Ty::I64);
            if sz == 0 {
                let [expected, new] = [rs, rt].map(|n| {
                    let low = c.x(n, Ty::I64);
                    let high = c.x(n | 1, Ty::I64);
                    c.b.insert(low, high, 32, 32)
                });
                let mem = ordered(c, Ty::I64, Ordering::SeqCst);
                let old = c.b.cas(address, expected, new, mem);
                let low = c.b.zext(old, Ty::I32);
                let high = c.shift(Binary::Shr, old, 32);
                c.set_x(rs, low);
                c.set_x(rs | 1, high);
            } else {
                let how = u64::from(rs) | u64::from(rt) << 8 | u64::from(c.mode.ctx()) << 16;
                let how = c.imm(Ty::I64, how);
                c.b.call_void(helper::CAS_PAIR, &[address, how]);
            }
        }
        Insn::Atomic {
            size,
            rs,
            o3,
            opc,
            rn,
            rt,
            ..
        } => {
            if !c.has(Feature::Lse) || o3 != 0 && opc != 0 {
                return None;
            }
            atomic(c, ty_of(size), o3 != 0, opc, (rs, rn, rt));
        }
        Insn::Ldra {
            key,
            s,
            imm,
            w,
            rn,
            rt,
        } => {
            if !c.model.has_pauth() {
                return None;
            }
            let base = c.x_sp(rn, Ty::I64);
            let zero = c.imm(Ty::I64, 0);
            let base = c.authenticated(base, zero, 2 | key, true);
            let words = i64::from(imm).wrapping_sub(i64::from(s) << 9);
            let address = c.offset(base, words << 3);
            let mem = c.mem(Ty::I64);
            let how = Move::Load {
                ty: Ty::I64,
                signed: false,
                to: Ty::I64,
            };
            let back = (w != 0).then_some((rn, address));
            c.load_store(address, rt, how, mem, back);
        }
        Insn::LdstMulti {
            q,
            l,
            opcode,
            size,
            rn,
            rt,
            rm,
            post,
        } => return super::structures::multiple(c, (q, l, opcode, size), (rn, rt, rm), post != 0),
        Insn::LdstSingle {
            q,
            l,
            r,
            opcode,
            s,
            size,
            rn,
            rt,
            rm,
            post,
        } => {
            return super::structures::single(
                c,
                (q, l, r),
                (opcode, s, size),
                (rn, rt, rm),
                post != 0,
            );
        }
    }
    Some(())
}

/// Scale of an immediate or index: PRFM's is eight bytes.
fn how_shift(how: Move, size: u32) -> u32 {
    match how {
        Move::Prefetch => size,
        _ => how.shift(),
    }
}

/// An access that orders: aligned, unless FEAT_LSE2 lets it be anywhere in 16 bytes. Those that
/// cross 16 bytes are not refused then.
fn ordered(c: &Ctx, ty: Ty, ordering: Ordering) -> Mem {
    Mem {
        aligned: c.mode.is_aligned() || !c.has(Feature::Lse2),
        ..c.mem_ordered(ty, ordering)
    }
}

fn pair_slot(first: u8) -> (accel_ir::Slot, accel_ir::Slot) {
    let low = regs::MONITOR.0.wrapping_add(first);
    (accel_ir::Slot(low), accel_ir::Slot(low.wrapping_add(1)))
}

/// STXR as a compare and exchange with what LDXR read.
fn store_exclusive(c: &mut Ctx, ty: Ty, address: Val, new: Val, rs: u32) {
    let monitor = c.b.get(regs::MONITOR);
    let is_open = c.b.cmp(Cmp::Ne, monitor, address);
    // Without parameters of blocks, which the compiler leaves to the interpreter.
    let (attempt, fail, done) = (c.b.block(), c.b.block(), c.b.block());
    c.b.branch(is_open, fail, attempt);
    c.b.switch(attempt);
    let expected = c.b.get_low(regs::MONITOR_DATA, ty);
    let mem = c.mem_ordered(ty, Ordering::SeqCst);
    let old = c.b.cas(address, expected, new, mem);
    let differs = c.b.cmp(Cmp::Ne, old, expected);
    c.set_const(regs::MONITOR, u64::MAX);
    c.set_x(rs, differs);
    c.b.jump(done, &[]);
    c.b.switch(fail);
    let one = c.imm(Ty::I8, 1);
    c.set_const(regs::MONITOR, u64::MAX);
    c.set_x(rs, one);
    c.b.jump(done, &[]);
    c.b.switch(done);
}

fn atomic(c: &mut Ctx, ty: Ty, swap: bool, opc: u32, (rs, rn, rt): (u32, u32, u32)) {
    let address = c.x_sp(rn, Ty::I64);
    let v = c.x(rs, ty);
    let mem = ordered(c, ty, Ordering::SeqCst);
    let (op, v) = match (swap, opc) {
        (true, _) => (Rmw::Xchg, v),
        (_, 0) => (Rmw::Add, v),
        (_, 1) => (Rmw::And, c.not(v)),
        (_, 2) => (Rmw::Xor, v),
        (_, 3) => (Rmw::Or, v),
        _ => {
            // LDSMAX, LDSMIN, LDUMAX, LDUMIN.
            let how = u64::from(opc & 3) | u64::from(ty.bytes()) << 8 | u64::from(mem.ctx) << 16;
            let how = how | u64::from(mem.aligned) << 24;
            let how = c.imm(Ty::I64, how);
            let old = c.call(helper::ATOMIC_MIN_MAX, &[address, v, how]);
            c.set_x(rt, old);
            return;
        }
    };
    let old = c.b.rmw(op, address, v, mem);
    c.set_x(rt, old);
}
