//! Flat code against a plain evaluation of the same IR, on random units.

use std::collections::HashMap;
use std::sync::Arc;

use accel_core::{
    Access, Core, Effects, Exit, Helper, Layout, Permissions, Source, Target, Translation, Trap,
};
use accel_ir::{
    Binary, Builder, Cmp, Cond, End, Endian, FlagKind, Fp, FpCmp, FpCompare, FpFmt, FpOp, FpRules,
    FpShape, HelperId, Mem, Op, Ordering, Rmw, Slot, ToInt, Ty, Unary, Unit, Val, VecOp, flags, fp,
    vector,
};
use hw_clock::Clock;
use hw_memory::{Fault, MappingSpec, MemoryMap, RamBlock, What};
use proptest::prelude::*;
use target_softfloat::Env;

use crate::exec::{self, Flow};
use crate::lower::lower;

const SLOTS: u8 = 8;
const FLAGS: u8 = 40;
const PC: Slot = Slot(39);
const FP: Slot = Slot(7);

/// A guest with eight registers whose only helper adds its arguments and clobbers r0.
struct Toy;

fn clobber(core: &mut Core<Toy>, args: [u64; 4]) -> Result<u64, Trap> {
    core.regs.set(Slot(0), args[0]);
    Ok(args[0].wrapping_add(args[1]))
}

static HELPERS: [Helper<Toy>; 1] = [Helper {
    name: "clobber",
    run: clobber,
    effects: Effects::ALL,
}];

impl Target for Toy {
    const NAME: &'static str = "toy";
    const LAYOUT: Layout = Layout {
        pc: PC,
        flags: Slot(FLAGS),
        fp: FP,
        regs: &[],
    };
    type State = ();
    type Port = ();
    fn helpers() -> &'static [Helper<Self>] {
        &HELPERS
    }
    fn fetch_address(core: &Core<Self>) -> u64 {
        core.pc()
    }
    fn fetch_ctx(_: &Core<Self>) -> u8 {
        0
    }
    fn unit_limit(_: &Core<Self>) -> u32 {
        8
    }
    fn translate(_: &mut Core<Self>, _: &mut Source, _: u32) -> Result<Unit, Trap> {
        Err(Trap::Exception)
    }
    fn walk(_: &mut Core<Self>, va: u64, _: Access, _: u8) -> Result<Translation, Trap> {
        let allow = Permissions {
            read: true,
            write: true,
            exec: true,
        };
        Ok(Translation {
            physical: va & 0x1fff,
            page_bits: 12,
            allow,
            global: false,
        })
    }
    fn bus_fault(_: &mut Core<Self>, _: u64, _: Access, _: Fault) -> Result<u64, Trap> {
        Ok(0)
    }
    fn alignment_fault(_: &mut Core<Self>, _: u64, _: Access) -> Trap {
        Trap::Exception
    }
    fn deliver(_: &mut Core<Self>) -> Result<(), Exit> {
        Err(Exit::Shutdown)
    }
    fn service(_: &mut Core<Self>) -> Result<(), Exit> {
        Err(Exit::Pending)
    }
    fn after_step(_: &mut Core<Self>) -> Result<(), Exit> {
        Ok(())
    }
}

fn core() -> (Core<Toy>, Arc<RamBlock>) {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", 0x2000).unwrap());
    map.add(MappingSpec {
        name: "ram".into(),
        base: 0,
        len: 0x2000,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset: 0,
        },
    });
    (
        Core::new(0, (), Box::new(()), map, Clock::manual().0),
        block,
    )
}

/// Evaluates a unit value by value.
struct Plain {
    regs: [u64; 64],
    memory: Vec<u8>,
    values: HashMap<Val, u128>,
}

impl Plain {
    fn flags(&self) -> (FlagKind, Ty, u64, u64, u64) {
        let at = usize::from(FLAGS);
        let kind = FlagKind::from_number((self.regs[at] >> 8) as u8);
        let ty = Ty::of_bytes(self.regs[at] as u32 & 15);
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

    fn run(&mut self, unit: &Unit) -> u64 {
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
                End::Goto { pc } => return *pc,
                End::GotoVal { pc } => return self.values[pc] as u64,
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
                self.regs[at] = u64::from(kind as u8) << 8 | u64::from(ty.bytes());
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
        const OPS: [FpOp; 18] = [
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
        match self.pick(4) {
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
                let op = OPS[self.pick(18)];
                let how = Fp {
                    op,
                    fmt,
                    shape,
                    rules,
                };
                let v = self.b.fp(how, a, b);
                self.vectors.push(v);
                if flag {
                    let slot = Slot(10 + 2 * self.pick(3) as u8);
                    self.b.set_v(slot, v);
                }
            }
        }
    }

    fn step(&mut self, pc: u64) {
        self.b.insn(pc);
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
                    FlagKind::Sub,
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
                const OPS: [VecOp; 7] = [
                    VecOp::Add32,
                    VecOp::Xor,
                    VecOp::UnpackLo8,
                    VecOp::Shuffle32,
                    VecOp::MoveLow32,
                    VecOp::MoveLow64,
                    VecOp::SarImm16,
                ];
                let (a, b, op, imm) = (
                    self.vector(),
                    self.vector(),
                    OPS[self.pick(7)],
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

fn make(random: &mut dyn FnMut() -> u64) -> Unit {
    let mut m = Maker {
        random,
        b: Builder::new(),
        ints: Vec::new(),
        vectors: Vec::new(),
    };
    let first = m.b.get(Slot(1));
    m.ints.push(first);
    for pc in 0..6 {
        m.step(pc);
    }
    let (then, other, join) = (m.b.block(), m.b.block(), m.b.block());
    let param = m.b.param(join, Ty::I64);
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
        m.step(pc);
        let arg = m.int_of(Ty::I64);
        m.b.jump(join, &[arg]);
    }
    m.b.switch(join);
    m.ints = ints;
    m.ints.push(param);
    m.vectors = vectors;
    for pc in 30..33 {
        m.step(pc);
    }
    let pc = m.int_of(Ty::I64);
    m.b.goto_val(pc);
    m.b.finish()
}

fn compare(seed: u64) {
    let mut state = seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 7
    };
    let unit = make(&mut random);
    let code = lower::<Toy>(&unit).expect("a small unit fits");
    let (mut core, block) = core();
    let mut plain = Plain {
        regs: [0; 64],
        memory: vec![0; 0x2000],
        values: HashMap::new(),
    };
    for i in 0..20 {
        let value = if random() % 3 == 0 {
            random() & 0xff
        } else {
            random()
        };
        plain.regs[i] = value;
        core.regs.set(Slot(i as u8), value);
    }
    plain.memory.iter_mut().for_each(|b| *b = random() as u8);
    block.write(0, &plain.memory).unwrap();
    core.alone = true;
    let pc = plain.run(&unit);
    match exec::run(&mut core, &code, 0, code.ops.len()) {
        Flow::Done(_) => {}
        _ => panic!("the unit did not finish:\n{unit}"),
    }
    assert_eq!(core.pc(), pc, "seed {seed}\n{unit}\n{:#?}", code.ops);
    let at = usize::from(FLAGS);
    // The flags' operands may have stray bits above their type.
    let ty = Ty::of_bytes(plain.regs[at] as u32 & 15);
    for i in [at + 1, at + 2] {
        let got = core.regs.get(Slot(i as u8)) & ty.mask();
        assert_eq!(got, plain.regs[i] & ty.mask(), "flags, seed {seed}\n{unit}");
    }
    for i in (0..20).chain([at]) {
        assert_eq!(
            core.regs.get(Slot(i as u8)),
            plain.regs[i],
            "r{i} seed {seed}\n{unit}\n{:#?}",
            code.ops
        );
    }
    let mut memory = vec![0; 0x2000];
    block.read(0, &mut memory).unwrap();
    assert!(memory == plain.memory, "memory, seed {seed}\n{unit}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn flat_code_does_what_the_unit_says(seed: u64) {
        compare(seed);
    }
}

#[test]
fn a_store_into_the_running_unit_leaves_it_after_the_instruction() {
    let (mut core, block) = core();
    let mem = Mem {
        ty: Ty::I8,
        endian: Endian::Little,
        aligned: false,
        ordering: Ordering::Relaxed,
        ctx: 0,
    };
    let mut b = Builder::new();
    b.insn(0x10);
    let (addr, v) = (b.iconst(Ty::I64, 0x100), b.iconst(Ty::I8, 7));
    b.store(addr, v, mem);
    let one = b.iconst(Ty::I64, 1);
    b.set(Slot(1), one);
    b.insn(0x14);
    b.set(Slot(2), one);
    b.goto(0x18);
    let code = lower::<Toy>(&b.finish()).expect("fits");
    block.track_code(0x100, 4);
    assert!(matches!(
        exec::run(&mut core, &code, 0, code.ops.len()),
        Flow::Done(1)
    ));
    assert_eq!(
        (core.pc(), core.regs.get(Slot(1)), core.regs.get(Slot(2))),
        (0x14, 1, 0)
    );
    assert_eq!(block.load(0x100, 1), Some(7));
}
