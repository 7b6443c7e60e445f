//! A plain evaluation of IR: one value after the other, as the documentation says.

use std::collections::HashMap;

use accel_ir::{
    Binary, Cmp, End, Endian, FlagKind, FpFmt, FpRules, Mem, Op, Rmw, Ty, Unary, Unit, Val, flags,
    fp, vector,
};
use target_softfloat::Env;

use super::{FLAGS, FP};

/// Evaluates a unit value by value.
pub(super) struct Plain {
    pub(super) regs: [u64; 64],
    pub(super) memory: Vec<u8>,
    pub(super) values: HashMap<Val, u128>,
}

impl Plain {
    fn flags(&self) -> (FlagKind, Ty, u64, u64, u64) {
        let at = usize::from(FLAGS);
        let (kind, ty) = FlagKind::of(self.regs[at]);
        (
            kind,
            ty,
            self.regs[at + 1],
            self.regs[at + 2],
            self.regs[at + 3],
        )
    }

    fn access(&mut self, va: u64, mem: &Mem, store: Option<u128>) -> u128 {
        let bytes = usize::from(mem.ty.bytes());
        let at = |i: usize| (va.wrapping_add(i as u64) & 0x1fff) as usize;
        let mut raw = [0u8; 16];
        for (i, byte) in raw.iter_mut().enumerate().take(bytes) {
            *byte = self.memory[at(i)];
        }
        if mem.endian == Endian::Big {
            raw[..bytes].reverse();
        }
        if let Some(value) = store {
            let mut out = value.to_le_bytes();
            if mem.endian == Endian::Big {
                out[..bytes].reverse();
            }
            for (i, byte) in out.iter().enumerate().take(bytes) {
                let at = at(i);
                self.memory[at] = *byte;
            }
        }
        u128::from_le_bytes(raw)
    }

    pub(super) fn run(&mut self, unit: &Unit) -> u64 {
        let mut block = 0;
        loop {
            for op in &unit.blocks[block].ops {
                self.op(unit, op);
            }
            match &unit.blocks[block].end {
                End::Jump { to, args } => {
                    for (a, p) in args.iter().zip(&unit.blocks[to.0 as usize].params) {
                        let value = self.values[a];
                        self.values.insert(*p, value);
                    }
                    block = to.0 as usize;
                }
                End::Branch { c, then, other } => {
                    block = if self.values[c] != 0 { then.0 } else { other.0 } as usize;
                }
                End::Goto { pc, .. } => return *pc,
                End::GotoVal { pc, .. } => return self.values[pc] as u64,
                End::Leave => return 0,
            }
        }
    }

    fn floating<R>(&mut self, rules: FpRules, run: impl FnOnce(&mut Env) -> R) -> R {
        let control = &mut self.regs[usize::from(FP.0)];
        let mut env = rules.env(*control);
        let result = run(&mut env);
        *control = rules.settle(*control, env.flags);
        result
    }

    fn op(&mut self, unit: &Unit, op: &Op) {
        let v = |x: Val| self.values[&x] as u64;
        let value: u128 = match *op {
            Op::Insn { .. } | Op::Fence | Op::Probe { .. } => return,
            Op::Const { value, .. } => value.into(),
            Op::Get { d, slot } => u128::from(self.regs[usize::from(slot.0)] & unit.ty(d).mask()),
            Op::Set { slot, v: x } => {
                self.regs[usize::from(slot.0)] = v(x);
                return;
            }
            Op::GetV { slot, .. } => {
                let i = usize::from(slot.0);
                u128::from(self.regs[i]) | u128::from(self.regs[i + 1]) << 64
            }
            Op::SetV { slot, v: x } => {
                let (i, value) = (usize::from(slot.0), self.values[&x]);
                self.regs[i] = value as u64;
                self.regs[i + 1] = (value >> 64) as u64;
                return;
            }
            Op::Unary { op, d, a } => {
                let (ty, a) = (unit.ty(d), v(a));
                let bits = ty.bits();
                let r = match op {
                    Unary::Not => !a,
                    Unary::Neg => 0u64.wrapping_sub(a),
                    Unary::Clz => (0..bits)
                        .take_while(|i| a >> (bits - 1 - i) & 1 == 0)
                        .count() as u64,
                    Unary::Ctz => (0..bits).take_while(|i| a >> i & 1 == 0).count() as u64,
                    Unary::Popcnt => a.count_ones().into(),
                    Unary::Bswap => (0..bits / 8).fold(0, |out, i| {
                        out | (a >> (8 * i) & 0xff) << (bits - 8 - 8 * i)
                    }),
                };
                u128::from(r & ty.mask())
            }
            Op::Binary { op, d, a, b } => {
                let (ty, a, b) = (unit.ty(d), v(a), v(b));
                let (bits, n) = (
                    ty.bits(),
                    if ty == Ty::I64 { b & 63 } else { b & 31 } as u32,
                );
                let wide = u128::from(a);
                let rot = (b % u64::from(bits)) as u32;
                let r = match op {
                    Binary::Add => a.wrapping_add(b),
                    Binary::Sub => a.wrapping_sub(b),
                    Binary::Mul => a.wrapping_mul(b),
                    Binary::MulHu => ((wide * u128::from(b)) >> bits) as u64,
                    Binary::MulHs => {
                        ((i128::from(ty.sext(a)) * i128::from(ty.sext(b))) >> bits) as u64
                    }
                    Binary::And => a & b,
                    Binary::Or => a | b,
                    Binary::Xor => a ^ b,
                    Binary::Shl => (wide << n) as u64,
                    Binary::Shr => (wide >> n) as u64,
                    Binary::Sar => (i128::from(ty.sext(a)) >> n) as u64,
                    Binary::Rotl => (wide << rot | wide >> (bits - rot)) as u64,
                    Binary::Rotr => (wide >> rot | wide << (bits - rot)) as u64,
                };
                u128::from(r & ty.mask())
            }
            Op::Cmp { op, a, b, .. } => {
                let ty = unit.ty(a);
                let (a, b) = (v(a), v(b));
                u128::from(match op {
                    Cmp::Eq => a == b,
                    Cmp::Ne => a != b,
                    Cmp::Ltu => a < b,
                    Cmp::Leu => a <= b,
                    Cmp::Lts => ty.sext(a) < ty.sext(b),
                    Cmp::Les => ty.sext(a) <= ty.sext(b),
                })
            }
            Op::Select { c, a, b, .. } => u128::from(if v(c) != 0 { v(a) } else { v(b) }),
            Op::Zext { d, a } => u128::from(v(a) & unit.ty(d).mask()),
            Op::Sext { d, a } => u128::from(unit.ty(a).sext(v(a)) as u64 & unit.ty(d).mask()),
            Op::Extract { d, a, shift, width } => {
                let bits = (1u128 << width) - 1;
                u128::from(v(a)) >> shift & bits & u128::from(unit.ty(d).mask())
            }
            Op::Insert {
                a, b, shift, width, ..
            } => {
                let bits = ((1u128 << width) - 1) << shift;
                u128::from(v(a)) & !bits | u128::from(v(b)) << shift & bits
            }
            Op::Load { addr, mem, .. } => {
                let va = v(addr);
                self.access(va, &mem, None)
            }
            Op::Store { addr, v: x, mem } => {
                let (va, value) = (v(addr), self.values[&x]);
                self.access(va, &mem, Some(value));
                return;
            }
            Op::Rmw {
                op,
                addr,
                v: x,
                mem,
                ..
            } => {
                let (va, x) = (v(addr), v(x));
                let old = self.access(va, &mem, None) as u64;
                let new = match op {
                    Rmw::Xchg => x,
                    Rmw::Add => old.wrapping_add(x),
                    Rmw::Sub => old.wrapping_sub(x),
                    Rmw::And => old & x,
                    Rmw::Or => old | x,
                    Rmw::Xor => old ^ x,
                };
                self.access(va, &mem, Some(u128::from(new & mem.ty.mask())));
                u128::from(old)
            }
            Op::Cas {
                addr,
                expected,
                new,
                mem,
                ..
            } => {
                let (va, expected, new) = (v(addr), v(expected), v(new));
                let old = self.access(va, &mem, None);
                if old == u128::from(expected) {
                    self.access(va, &mem, Some(new.into()));
                }
                old
            }
            Op::FlagsDef { kind, ty, a, b, c } => {
                let at = usize::from(FLAGS);
                let (a, b, c) = (v(a), v(b), c.map(v));
                self.regs[at] = kind.with(ty).into();
                self.regs[at + 1] = a;
                self.regs[at + 2] = b;
                if let Some(c) = c {
                    self.regs[at + 3] = c;
                }
                return;
            }
            Op::FlagsUse { cond, .. } => {
                let (kind, ty, a, b, c) = self.flags();
                u128::from(cond.holds(flags::pack(kind, ty, a, b, c)))
            }
            Op::FlagsGet { .. } => {
                let (kind, ty, a, b, c) = self.flags();
                u128::from(flags::pack(kind, ty, a, b, c))
            }
            Op::Vec { op, a, b, imm, .. } => {
                vector::eval(op, self.values[&a], self.values[&b], imm)
            }
            Op::VecSigns { a, lane, .. } => {
                let (bits, a) = (lane.bits(), self.values[&a]);
                let lanes = 128 / bits;
                (0..lanes)
                    .map(|i| (a >> (i * bits + bits - 1) & 1) << i)
                    .sum()
            }
            Op::Fp { how, a, b, .. } => {
                let (a, b) = (self.values[&a], self.values[&b]);
                self.floating(how.rules, |env| fp::eval(how, a, b, env))
            }
            Op::FpMulAdd { how, a, b, c, .. } => {
                let (a, b) = (self.values[&a], self.values[&b]);
                let c = self.values[&c];
                self.floating(how.rules, |env| fp::mul_add(how, (a, b), c, env))
            }
            Op::FpFromInt {
                fmt, rules, a, v, ..
            } => {
                let (ty, v, a) = (unit.ty(v), self.values[&v] as u64, self.values[&a]);
                let low = self.floating(rules, |env| fp::from_int(fmt, ty.sext(v), env));
                let mask = match fmt {
                    FpFmt::F32 => 0xffff_ffff,
                    FpFmt::F64 => u128::from(u64::MAX),
                };
                a & !mask | u128::from(low)
            }
            Op::FpToInt { how, d, a } => {
                let (ty, a) = (unit.ty(d), self.values[&a] as u64);
                self.floating(how.rules, |env| fp::to_int(how, a, ty, env))
                    .into()
            }
            Op::FpCompare { how, a, b, .. } => {
                let (a, b) = (self.values[&a] as u64, self.values[&b] as u64);
                self.floating(how.rules, |env| fp::compare(how, a, b, env))
                    .into()
            }
            Op::VecMake { lo, hi, .. } => u128::from(v(lo)) | u128::from(v(hi)) << 64,
            Op::VecHalf { a, high, .. } => {
                self.values[&a] >> if high { 64 } else { 0 } & u128::from(u64::MAX)
            }
            Op::Call { d, args, .. } => {
                let arg = |i: usize| args[i].map_or(0, v);
                let (a, b) = (arg(0), arg(1));
                self.regs[0] = a;
                if let Some(d) = d {
                    self.values.insert(d, u128::from(a.wrapping_add(b)));
                }
                return;
            }
        };
        if let Some(d) = op.def() {
            self.values.insert(d, value);
        }
    }
}
