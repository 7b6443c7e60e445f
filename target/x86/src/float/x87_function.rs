//! x87 instructions on the top of the stack alone: signs, roots, remainders, transcendentals
//! (SDM vol. 1, 8.3.5 to 8.3.7).

use target_softfloat::{Env, F80, Flags, Float, x87 as soft};

use super::x87::{INDEFINITE, X87, status};

/// An instruction without operands but the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub(super) enum Function {
    Chs,
    Abs,
    Xam,
    Tst,
    Sqrt,
    RndInt,
    F2xm1,
    Sin,
    Cos,
    SinCos,
    Ptan,
    Patan,
    Yl2x,
    Yl2xp1,
    Scale,
    Prem,
    Prem1,
    Xtract,
    IncStp,
    DecStp,
    Nop,
}

impl Function {
    const ALL: [Function; 21] = {
        use Function::*;
        [
            Chs, Abs, Xam, Tst, Sqrt, RndInt, F2xm1, Sin, Cos, SinCos, Ptan, Patan, Yl2x, Yl2xp1,
            Scale, Prem, Prem1, Xtract, IncStp, DecStp, Nop,
        ]
    };

    pub(super) fn from_number(n: u8) -> Self {
        Self::ALL
            .get(usize::from(n))
            .copied()
            .unwrap_or(Function::Nop)
    }
}

/// What trigonometric functions push or replace.
enum Two {
    /// The new ST(0), then a value pushed.
    Push(F80, F80),
    /// C2: the argument is out of range.
    OutOfRange,
}

impl X87 {
    pub(super) fn function(&mut self, which: Function) {
        match which {
            Function::Chs => self.sign(F80::neg),
            Function::Abs => self.sign(F80::abs),
            Function::Xam => self.examine(),
            Function::Tst => {
                let zero = super::x87_arith::Source::register(F80::zero(false));
                self.compare(Some(zero), false, 0);
            }
            Function::Sqrt => self.unary(|x, env| x.sqrt(env)),
            Function::RndInt => {
                self.unary(|x, env| x.round_to_integral(env.rounding, true, env));
            }
            Function::F2xm1 => self.unary(f2xm1),
            Function::Sin => self.trigonometric(soft::fsin),
            Function::Cos => self.trigonometric(soft::fcos),
            Function::SinCos => self.two(|x, env| match soft::fsincos(x, env) {
                Some((sin, cos)) => Two::Push(sin, cos),
                None => Two::OutOfRange,
            }),
            Function::Ptan => self.two(|x, env| match soft::fptan(x, env) {
                Some(nan) if nan.is_nan() => Two::Push(nan, nan),
                Some(tan) => Two::Push(tan, F80::from_i64(1, &mut Env::x87())),
                None => Two::OutOfRange,
            }),
            Function::Patan => self.replace_st1(soft::fpatan),
            Function::Yl2x => self.replace_st1(soft::fyl2x),
            Function::Yl2xp1 => self.replace_st1(fyl2xp1),
            Function::Scale => self.binary(soft::fscale),
            Function::Prem => self.remainder(soft::fprem),
            Function::Prem1 => self.remainder(soft::fprem1),
            Function::Xtract => self.two(|x, env| {
                let (exponent, significand) = soft::fxtract(x, env);
                Two::Push(exponent, significand)
            }),
            Function::IncStp => {
                self.set_codes(status::C1, 0);
                self.rotate(1);
            }
            Function::DecStp => {
                self.set_codes(status::C1, 0);
                self.rotate(-1);
            }
            Function::Nop => {}
        }
    }

    /// The masked response to an empty operand replaces ST(0).
    fn underflow(&mut self) {
        if self.stack_fault(false) {
            self.put(0, INDEFINITE);
        }
    }

    fn sign(&mut self, change: impl FnOnce(F80) -> F80) {
        match self.get(0) {
            Some(x) => {
                self.set_codes(status::C1, 0);
                self.put(0, change(x));
            }
            None => self.underflow(),
        }
    }

    fn unary(&mut self, run: impl FnOnce(F80, &mut Env) -> F80) {
        let Some(x) = self.get(0) else {
            return self.underflow();
        };
        let mut env = self.env();
        let result = run(x, &mut env);
        if self.settle(&mut env) {
            self.put(0, result);
        }
    }

    fn binary(&mut self, run: impl FnOnce(F80, F80, &mut Env) -> F80) {
        let (Some(x), Some(y)) = (self.get(0), self.get(1)) else {
            return self.underflow();
        };
        let mut env = self.env();
        let result = run(x, y, &mut env);
        if self.settle(&mut env) {
            self.put(0, result);
        }
    }

    /// FSIN and FCOS.
    fn trigonometric(&mut self, run: impl FnOnce(F80, &mut Env) -> Option<F80>) {
        self.set_codes(status::C2, 0);
        let Some(x) = self.get(0) else {
            return self.underflow();
        };
        let mut env = self.env();
        let result = run(x, &mut env);
        if !self.settle(&mut env) {
            return;
        }
        match result {
            Some(value) => self.put(0, value),
            None => self.set_codes(status::C2, status::C2),
        }
    }

    /// FSINCOS, FPTAN and FXTRACT: one result replaces ST(0), one is pushed.
    fn two(&mut self, run: impl FnOnce(F80, &mut Env) -> Two) {
        self.set_codes(status::C2, 0);
        let Some(x) = self.get(0) else {
            if self.stack_fault(false) {
                self.put(0, INDEFINITE);
                self.push(INDEFINITE);
            }
            return;
        };
        if self.is_used(7) {
            if self.stack_fault(true) {
                self.put(0, INDEFINITE);
                self.push(INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let result = run(x, &mut env);
        if !self.settle(&mut env) {
            return;
        }
        match result {
            Two::Push(first, second) => {
                self.put(0, first);
                self.push(second);
            }
            Two::OutOfRange => self.set_codes(status::C2, status::C2),
        }
    }

    /// FPATAN, FYL2X and FYL2XP1: the result replaces ST(1), ST(0) is popped.
    fn replace_st1(&mut self, run: impl FnOnce(F80, F80, &mut Env) -> F80) {
        let (Some(x), Some(y)) = (self.get(0), self.get(1)) else {
            if self.stack_fault(false) {
                self.put(1, INDEFINITE);
                self.pop(1);
            }
            return;
        };
        let mut env = self.env();
        let result = run(y, x, &mut env);
        if self.settle(&mut env) {
            self.put(1, result);
            self.pop(1);
        }
    }

    /// FPREM and FPREM1: the condition codes tell the quotient's low bits.
    fn remainder(
        &mut self,
        run: impl FnOnce(F80, F80, &mut Env) -> target_softfloat::Remainder<F80>,
    ) {
        use status::{C0, C1, C2, C3};
        self.set_codes(C2, 0);
        let (Some(x), Some(y)) = (self.get(0), self.get(1)) else {
            return self.underflow();
        };
        let mut env = self.env();
        let result = run(x, y, &mut env);
        if !self.settle(&mut env) {
            return;
        }
        self.put(0, result.value);
        if result.value.is_nan() {
            // No quotient: C0 and C3 stay.
            return self.set_codes(C1 | C2, 0);
        }
        let bit = |n: u32, code: u16| {
            if result.quotient.wrapping_shr(n) & 1 != 0 {
                code
            } else {
                0
            }
        };
        let codes = if result.partial {
            C2
        } else {
            bit(2, C0) | bit(1, C3) | bit(0, C1)
        };
        self.set_codes(C0 | C1 | C2 | C3, codes);
    }
}

/// The biased exponent of 1.0.
const BIAS: u16 = 0x3fff;

/// Whether the magnitude of a number is 1 or more.
fn is_large(x: F80) -> bool {
    x.se & 0x7fff >= BIAS && !x.is_nan() && !x.is_infinite() && !x.is_unsupported()
}

/// Outside its range F2XM1 is undefined; AMD's processors keep the operand and call it inexact.
fn f2xm1(x: F80, env: &mut Env) -> F80 {
    let is_one = x.se & 0x7fff == BIAS && x.sig == 1 << 63;
    if is_large(x) && !is_one {
        env.raise(Flags::INEXACT);
    }
    soft::f2xm1(x, env)
}

/// Outside its range FYL2XP1 is undefined; AMD's processors leave ST(0) where no logarithm is.
fn fyl2xp1(y: F80, x: F80, env: &mut Env) -> F80 {
    if is_large(x) && x.is_negative() && !y.is_nan() && !y.is_unsupported() {
        if y.is_zero() || y.is_infinite() {
            return y.neg();
        }
        if y.is_subnormal() {
            env.raise(Flags::DENORMAL);
        }
        env.raise(Flags::INEXACT);
        return x;
    }
    soft::fyl2xp1(y, x, env)
}
