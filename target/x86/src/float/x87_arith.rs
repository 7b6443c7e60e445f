//! x87 arithmetic and comparisons (SDM vol. 1, 8.3.3 to 8.3.6).

use core::cmp::Ordering;

use target_softfloat::{Env, F32, F64, F80, Flags, Float};

use super::x87::{INDEFINITE, X87, status};

/// A source operand in the x87's format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    value: F80,
    /// The memory operand was a denormal, which its widened value does not show.
    denormal: bool,
}

impl Source {
    pub(super) fn register(value: F80) -> Self {
        Source {
            value,
            denormal: false,
        }
    }

    /// Exact: a signalling NaN stays one, so that the operation itself sees it.
    pub(super) fn f32(bits: u32) -> Self {
        let x = F32(bits);
        if x.is_nan() {
            let sign = ((bits >> 31) as u16) << 15;
            return Source::register(F80 {
                se: sign | 0x7fff,
                sig: 1 << 63 | u64::from(bits & 0x7f_ffff) << 40,
            });
        }
        Source {
            value: x.convert(&mut Env::x87()),
            denormal: x.is_subnormal(),
        }
    }

    /// As [`f32`](Self::f32).
    pub(super) fn f64(bits: u64) -> Self {
        let x = F64(bits);
        if x.is_nan() {
            let sign = ((bits >> 63) as u16) << 15;
            return Source::register(F80 {
                se: sign | 0x7fff,
                sig: 1 << 63 | (bits & 0xf_ffff_ffff_ffff) << 11,
            });
        }
        Source {
            value: x.convert(&mut Env::x87()),
            denormal: x.is_subnormal(),
        }
    }

    pub(super) fn int(value: i64) -> Self {
        Source::register(F80::from_i64(value, &mut Env::x87()))
    }
}

/// FADD to FDIVR. The reversed ones swap the operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Arith {
    Add,
    Mul,
    Sub,
    Subr,
    Div,
    Divr,
}

impl Arith {
    pub(super) fn from_number(n: u8) -> Self {
        match n {
            0 => Arith::Add,
            1 => Arith::Mul,
            2 => Arith::Sub,
            3 => Arith::Subr,
            4 => Arith::Div,
            _ => Arith::Divr,
        }
    }

    fn run(self, a: F80, b: F80, env: &mut Env) -> F80 {
        match self {
            Arith::Add => a.add(b, env),
            Arith::Mul => a.mul(b, env),
            Arith::Sub => a.sub(b, env),
            Arith::Subr => b.sub(a, env),
            Arith::Div => a.div(b, env),
            Arith::Divr => b.div(a, env),
        }
    }
}

/// Whether an operation on a denormal in place of `b` raises the denormal flag: it does unless
/// something of higher precedence happens (SDM vol. 1, 4.9.2).
fn raises_denormal(b: Source, mut env: Env, run: impl FnOnce(F80, &mut Env)) -> bool {
    let stand_in = F80 {
        se: b.value.se & 0x8000,
        sig: 1,
    };
    run(stand_in, &mut env);
    env.flags.has(Flags::DENORMAL)
}

impl X87 {
    /// `ST(dst) = ST(dst) op b`, then pops. `b` is `None` for an empty register.
    pub(super) fn arith(&mut self, op: Arith, dst: u8, b: Option<Source>, pops: u8) {
        let (Some(a), Some(b)) = (self.get(dst), b) else {
            if self.stack_fault(false) {
                self.put(dst, INDEFINITE);
                self.pop(pops);
            }
            return;
        };
        let mut env = self.env();
        let result = op.run(a, b.value, &mut env);
        if b.denormal
            && raises_denormal(b, self.env(), |b, env| {
                op.run(a, b, env);
            })
        {
            env.raise(Flags::DENORMAL);
        }
        if self.settle(&mut env) {
            self.put(dst, result);
            self.pop(pops);
        }
    }

    /// Compares ST(0) with `b`, and whether no unmasked exception forbids to pop.
    fn order(&mut self, b: Option<Source>, quiet: bool) -> (Option<Ordering>, bool) {
        let (Some(a), Some(b)) = (self.get(0), b) else {
            return (None, self.stack_fault(false));
        };
        let compare = |b: F80, env: &mut Env| {
            if quiet {
                a.compare_quiet(b, env)
            } else {
                a.compare_signalling(b, env)
            }
        };
        let mut env = self.env();
        let order = compare(b.value, &mut env);
        if b.denormal
            && raises_denormal(b, self.env(), |b, env| {
                compare(b, env);
            })
        {
            env.raise(Flags::DENORMAL);
        }
        (order, self.settle(&mut env))
    }

    /// FCOM, FUCOM, FTST and their popping forms. The condition codes are set in any case, as AMD's
    /// processors do.
    pub(super) fn compare(&mut self, b: Option<Source>, quiet: bool, pops: u8) {
        let (order, done) = self.order(b, quiet);
        use status::{C0, C2, C3};
        let codes = match order {
            Some(Ordering::Greater) => 0,
            Some(Ordering::Less) => C0,
            Some(Ordering::Equal) => C3,
            None => C0 | C2 | C3,
        };
        self.set_codes(C0 | C2 | C3, codes);
        if done {
            self.pop(pops);
        }
    }

    /// FCOMI, FUCOMI and their popping forms: the flags, which are set in any case, as on AMD's
    /// processors. C1 changes only when a register is empty.
    pub(super) fn compare_flags(&mut self, i: u8, quiet: bool, pops: u8) -> u64 {
        let b = self.get(i).map(Source::register);
        let (before, empty) = (self.status, b.is_none() || !self.is_used(0));
        let (order, done) = self.order(b, quiet);
        if !empty {
            self.set_codes(status::C1, before);
        }
        if done {
            self.pop(pops);
        }
        accel_ir::fp::relation(order)
    }

    /// FXAM.
    pub(super) fn examine(&mut self) {
        use status::{C0, C1, C2, C3};
        let x = self.st(0);
        let class = if !self.is_used(0) {
            C3 | C0
        } else if x.is_unsupported() {
            0
        } else if x.is_nan() {
            C0
        } else if x.is_infinite() {
            C2 | C0
        } else if x.is_zero() {
            C3
        } else if x.is_subnormal() {
            C3 | C2
        } else {
            C2
        };
        let sign = if x.is_negative() { C1 } else { 0 };
        self.set_codes(C0 | C1 | C2 | C3, class | sign);
    }
}
