//! Random units.

use accel_ir::{
    Binary, Builder, Cmp, Cond, Endian, FlagKind, Fp, FpCmp, FpCompare, FpFmt, FpMulAdd, FpOp,
    FpRound, FpRules, FpShape, HelperId, Mem, Ordering, Rmw, Slot, ToInt, Ty, Unary, Unit, Val,
    VecOp,
};

use super::SLOTS;

/// Makes a random unit from a stream of random numbers.
struct Maker<'a> {
    random: &'a mut dyn FnMut() -> u64,
    b: Builder,
    ints: Vec<Val>,
    vectors: Vec<Val>,
}

const INTS: [Ty; 4] = [Ty::I8, Ty::I16, Ty::I32, Ty::I64];

impl Maker<'_> {
    fn pick(&mut self, n: usize) -> usize {
        (self.random)() as usize % n
    }

    fn int(&mut self) -> Val {
        let ty = INTS[self.pick(4)];
        match self.pick(6) {
            0 => {
                let value = (self.random)();
                let value = if self.pick(2) == 0 {
                    value
                } else {
                    value & 0x3f
                };
                self.b.iconst(ty, value)
            }
            1 => {
                let slot = Slot(self.pick(usize::from(SLOTS)) as u8);
                self.b.get_low(slot, ty)
            }
            _ => {
                let i = self.pick(self.ints.len());
                self.ints[i]
            }
        }
    }

    fn int_of(&mut self, ty: Ty) -> Val {
        let v = self.int();
        if self.pick(2) == 0 {
            self.b.zext(v, ty)
        } else {
            self.b.sext(v, ty)
        }
    }

    fn mem(&mut self, ty: Ty) -> Mem {
        let endian = if self.pick(4) == 0 {
            Endian::Big
        } else {
            Endian::Little
        };
        Mem {
            ty,
            endian,
            aligned: false,
            ordering: Ordering::Relaxed,
            ctx: 0,
        }
    }

    fn address(&mut self) -> Val {
        let base = self.int_of(Ty::I64);
        let index = self.int_of(Ty::I64);
        let shift = self.pick(4) as u64;
        let index = self.b.shl_const(index, shift);
        let sum = self.b.add(base, index);
        let disp = (self.random)() & 0xff;
        self.b.add_const(sum, disp)
    }

    fn vector(&mut self) -> Val {
        if self.vectors.is_empty() || self.pick(3) == 0 {
            let slot = Slot(10 + 2 * self.pick(3) as u8);
            return self.b.get_v(slot);
        }
        let i = self.pick(self.vectors.len());
        self.vectors[i]
    }

    /// Floating-point operations; their operands are mostly numbers of moderate size.
    fn floating(&mut self) {
        const OPS: [FpOp; 21] = [
            FpOp::Add,
            FpOp::Sub,
            FpOp::Mul,
            FpOp::Div,
            FpOp::Min,
            FpOp::Max,
            FpOp::Sqrt,
            FpOp::Cmp(FpCmp::Eq),
            FpOp::Cmp(FpCmp::Nlt),
            FpOp::Cmp(FpCmp::Ord),
            FpOp::HAdd,
            FpOp::HSub,
            FpOp::AddSub,
            FpOp::Convert,
            FpOp::FromI32,
            FpOp::ToI32,
            FpOp::ToI32Trunc,
            FpOp::Add,
            FpOp::Round(FpRound::Current),
            FpOp::Round(FpRound::Up),
            FpOp::RoundQuiet(FpRound::Nearest),
        ];
        let rules = FpRules::Sse;
        let fmt = [FpFmt::F32, FpFmt::F64][self.pick(2)];
        let shape = [FpShape::Scalar, FpShape::Packed][self.pick(2)];
        let (ty, flag) = ([Ty::I32, Ty::I64][self.pick(2)], self.pick(2) == 0);
        let (mut a, b) = (self.vector(), self.vector());
        if self.pick(4) != 0 {
            let v = self.int_of(ty);
            a = self.b.fp_from_int(fmt, rules, a, v);
            self.vectors.push(a);
        }
        match self.pick(5) {
            4 => {
                let how = FpMulAdd {
                    fmt,
                    shape,
                    rules,
                    negates: flag,
                    subtracts: self.pick(2) == 0,
                };
                let c = self.vector();
                let v = self.b.fp_mul_add(how, (a, b), c);
                self.vectors.push(v);
            }
            0 => {
                let how = ToInt {
                    fmt,
                    rules,
                    truncate: flag,
                };
                let v = self.b.fp_to_int(how, a, ty);
                self.ints.push(v);
            }
            1 => {
                let how = FpCompare {
                    fmt,
                    rules,
                    signals: flag,
                };
                let v = self.b.fp_compare(how, a, b);
                self.b.flags_def(FlagKind::Raw, v, v, None);
            }
            _ => {
                let op = OPS[self.pick(21)];
                let mut how = Fp {
                    op,
                    fmt,
                    shape,
                    rules,
                };
                if !how.has_its_shape() {
                    how.shape = FpShape::Packed;
                }
                let v = self.b.fp(how, a, b);
                self.vectors.push(v);
                if flag {
                    let slot = Slot(10 + 2 * self.pick(3) as u8);
                    self.b.set_v(slot, v);
                }
            }
        }
    }

    fn step(&mut self) {
        let ty = INTS[self.pick(4)];
        match self.pick(17) {
            0 | 1 => {
                const OPS: [Binary; 13] = [
                    Binary::Add,
                    Binary::Sub,
                    Binary::Mul,
                    Binary::MulHu,
                    Binary::MulHs,
                    Binary::And,
                    Binary::Or,
                    Binary::Xor,
                    Binary::Shl,
                    Binary::Shr,
                    Binary::Sar,
                    Binary::Rotl,
                    Binary::Rotr,
                ];
                let (a, b, op) = (self.int_of(ty), self.int_of(ty), OPS[self.pick(13)]);
                let v = self.b.binary(op, a, b);
                self.ints.push(v);
            }
            2 => {
                const OPS: [Unary; 6] = [
                    Unary::Not,
                    Unary::Neg,
                    Unary::Clz,
                    Unary::Ctz,
                    Unary::Popcnt,
                    Unary::Bswap,
                ];
                let (a, op) = (self.int_of(ty), OPS[self.pick(6)]);
                let v = self.b.unary(op, a);
                self.ints.push(v);
            }
            3 => {
                const OPS: [Cmp; 6] = [Cmp::Eq, Cmp::Ne, Cmp::Ltu, Cmp::Leu, Cmp::Lts, Cmp::Les];
                let (a, b, op) = (self.int_of(ty), self.int_of(ty), OPS[self.pick(6)]);
                let v = self.b.cmp(op, a, b);
                self.ints.push(v);
            }
            4 => {
                let (c, a, b) = (self.int(), self.int_of(ty), self.int_of(ty));
                let v = self.b.select(c, a, b);
                self.ints.push(v);
            }
            5 => {
                let (a, b) = (self.int(), self.int());
                let bits = self.b.ty(a).bits() as usize;
                let width = 1 + self.pick(bits);
                let shift = self.pick(bits - width + 1);
                let v = self.b.insert(a, b, shift as u8, width as u8);
                let w = self.b.extract(v, shift as u8, width as u8, ty);
                self.ints.extend([v, w]);
            }
            6 | 7 => {
                let (addr, mem) = (self.address(), self.mem(ty));
                let v = self.b.load(addr, mem);
                self.ints.push(v);
            }
            8 => {
                let (addr, mem, v) = (self.address(), self.mem(ty), self.int_of(ty));
                self.b.store(addr, v, mem);
            }
            9 => {
                const KINDS: [FlagKind; 6] = [
                    FlagKind::Add,
                    FlagKind::Sub,
                    FlagKind::LogicC,
                    FlagKind::Logic,
                    FlagKind::Adc,
                    FlagKind::Inc,
                ];
                let (a, b, c) = (self.int_of(ty), self.int_of(ty), self.int_of(Ty::I64));
                let kind = KINDS[self.pick(6)];
                let third = matches!(kind, FlagKind::Adc | FlagKind::Inc).then_some(c);
                self.b.flags_def(kind, a, b, third);
            }
            10 => {
                let cond = Cond::from_number(self.pick(16) as u8);
                let v = self.b.flags_use(cond);
                let w = self.b.flags_get();
                self.ints.extend([v, w]);
            }
            11 => {
                let (addr, mem) = (
                    self.address(),
                    Mem {
                        endian: Endian::Little,
                        ..self.mem(ty)
                    },
                );
                let eight = self.b.iconst(Ty::I64, !7);
                let addr = self.b.and(addr, eight);
                let (x, y) = (self.int_of(ty), self.int_of(ty));
                let v = if self.pick(2) == 0 {
                    self.b.rmw(Rmw::Add, addr, x, mem)
                } else {
                    self.b.cas(addr, x, y, mem)
                };
                self.ints.push(v);
            }
            12 => {
                const OPS: [VecOp; 9] = [
                    VecOp::Add32,
                    VecOp::Xor,
                    VecOp::UnpackLo8,
                    VecOp::Shuffle32,
                    VecOp::MoveLow32,
                    VecOp::MoveLow64,
                    VecOp::Low32,
                    VecOp::Low64,
                    VecOp::SarImm16,
                ];
                let (a, b, op, imm) = (
                    self.vector(),
                    self.vector(),
                    OPS[self.pick(9)],
                    (self.random)() as u8,
                );
                let v = self.b.vec(op, a, b, imm);
                self.vectors.push(v);
                let (lo, hi) = (self.b.vec_half(v, false), self.b.vec_half(v, true));
                let slot = Slot(10 + 2 * self.pick(3) as u8);
                // Halves of a register swapped in place, among others.
                let (lo, hi) = match self.pick(3) {
                    0 => {
                        let old = self.b.get_v(slot);
                        (self.b.vec_half(old, false), self.b.vec_half(old, true))
                    }
                    1 => {
                        let wide = self.int_of(Ty::I64);
                        let zero = self.b.iconst(Ty::I64, 0);
                        (zero, wide)
                    }
                    _ => (lo, hi),
                };
                let made = self.b.vec_make(hi, lo);
                if self.pick(2) == 0 {
                    self.b.set_v(slot, made);
                }
                self.vectors.push(made);
                let lane = [Ty::I8, Ty::I32, Ty::I64][self.pick(3)];
                let signs = self.b.vec_signs(v, lane);
                self.ints.push(signs);
                let slot = Slot(10 + 2 * self.pick(3) as u8);
                self.b.set_v(slot, v);
                let (half, low) = (Slot(10 + self.pick(6) as u8), self.int());
                self.b.set(half, low);
            }
            14 => self.floating(),
            13 => {
                let (a, b) = (self.int(), self.int());
                let v = self.b.call(HelperId(0), &[a, b]);
                self.ints.push(v);
            }
            _ => {}
        }
        if self.pick(2) == 0 {
            let (slot, v) = (Slot(self.pick(usize::from(SLOTS)) as u8), self.int());
            self.b.set(slot, v);
        }
    }
}

/// A random unit with a branch and a join. If `passes`, both sides are instructions that pass a value
/// to the join; else they are parts of one instruction, as front ends make them.
pub(super) fn make(random: &mut dyn FnMut() -> u64, passes: bool) -> Unit {
    let mut m = Maker {
        random,
        b: Builder::new(),
        ints: Vec::new(),
        vectors: Vec::new(),
    };
    let first = m.b.get(Slot(1));
    m.ints.push(first);
    for pc in 0..6 {
        m.b.insn(pc);
        m.step();
    }
    m.b.insn(9);
    let (then, other, join) = (m.b.block(), m.b.block(), m.b.block());
    let param = passes.then(|| m.b.param(join, Ty::I64));
    let c = match m.pick(3) {
        0 => m.b.flags_use(Cond::from_number((m.random)() as u8)),
        1 => {
            let (a, b) = (m.int_of(Ty::I16), m.int_of(Ty::I16));
            m.b.cmp(Cmp::Lts, a, b)
        }
        _ => m.int(),
    };
    m.b.branch(c, then, other);
    let (ints, vectors) = (m.ints.clone(), m.vectors.clone());
    for (block, pc) in [(then, 10), (other, 20)] {
        m.b.switch(block);
        m.ints = ints.clone();
        m.vectors = vectors.clone();
        if passes {
            m.b.insn(pc);
        }
        m.step();
        let arg = m.int_of(Ty::I64);
        m.b.jump(join, param.map(|_| arg).as_slice());
    }
    m.b.switch(join);
    m.ints = ints;
    m.ints.extend(param);
    m.vectors = vectors;
    for pc in 30..33 {
        m.b.insn(pc);
        m.step();
    }
    let pc = m.int_of(Ty::I64);
    m.b.goto_val(pc);
    m.b.finish()
}
