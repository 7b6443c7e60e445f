//! x87 data transfer (SDM vol. 1, 8.3.3): loads, stores, exchanges and conditional moves.

use target_softfloat::x87::{Constant, fbld, fbstp};
use target_softfloat::{Env, F32, F64, F80, Flags, Float, IntOverflow, Rounding};

use accel_core::X87Format as Format;

use super::x87::{INDEFINITE, X87, status};

/// What a store leaves to be done once memory has taken the value.
#[derive(Debug)]
pub(super) struct Stored {
    /// The value's bytes, or `None` if an unmasked exception forbids the store.
    pub(super) bits: Option<u128>,
    /// The unit afterwards.
    pub(super) after: X87,
}

impl X87 {
    /// Pushes what `value` computes, unless the stack overflows.
    pub(super) fn load(&mut self, value: impl FnOnce(&mut Env) -> F80) {
        if self.is_used(7) {
            if self.stack_fault(true) {
                self.push(INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let value = value(&mut env);
        let invalid = env.flags.has(Flags::INVALID);
        // A denormal is loaded even if its exception is unmasked.
        if self.settle(&mut env) || !invalid {
            self.push(value);
        }
    }

    /// FLD, FILD and FBLD of these bytes.
    pub(super) fn load_memory(&mut self, format: Format, bits: u128) {
        self.load(|env| match format {
            Format::F32 => F32(bits as u32).convert(env),
            Format::F64 => F64(bits as u64).convert(env),
            Format::F80 => F80 {
                se: (bits >> 64) as u16,
                sig: bits as u64,
            },
            Format::I16 => F80::from_i64((bits as i16).into(), env),
            Format::I32 => F80::from_i64((bits as i32).into(), env),
            Format::I64 => F80::from_i64(bits as i64, env),
            Format::Bcd => {
                let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, ..] = bits.to_le_bytes();
                fbld([b0, b1, b2, b3, b4, b5, b6, b7, b8, b9])
            }
        });
    }

    /// FLD1 to FLDZ.
    pub(super) fn load_constant(&mut self, which: u8) {
        let which = match which {
            0 => Constant::One,
            1 => Constant::Log2Of10,
            2 => Constant::Log2OfE,
            3 => Constant::Pi,
            4 => Constant::Log10Of2,
            5 => Constant::LnOf2,
            _ => Constant::Zero,
        };
        self.load(|env| target_softfloat::x87::constant(which, env.rounding));
    }

    /// FLD ST(i).
    pub(super) fn load_register(&mut self, i: u8) {
        match self.get(i) {
            Some(value) => self.load(|_| value),
            None => {
                if self.stack_fault(false) {
                    self.push(INDEFINITE);
                }
            }
        }
    }

    /// FST, FIST, FISTTP and FBSTP to memory: computes, but changes nothing here, for the store may
    /// still fault.
    pub(super) fn store_memory(&self, format: Format, truncate: bool, pops: u8) -> Stored {
        let mut after = self.clone();
        let Some(value) = self.get(0) else {
            let masked = after.stack_fault(false);
            if masked {
                after.pop(pops);
            }
            return Stored {
                bits: masked.then(|| indefinite(format)),
                after,
            };
        };
        let mut env = self.env();
        let rounding = if truncate {
            Rounding::TowardZero
        } else {
            env.rounding
        };
        let bits = match format {
            Format::F32 => u128::from(value.convert::<F32>(&mut env).0),
            Format::F64 => u128::from(value.convert::<F64>(&mut env).0),
            Format::F80 => bits_of(value),
            Format::I16 => {
                let v: i16 = value.to_int(rounding, IntOverflow::X86, &mut env);
                u128::from(v as u16)
            }
            Format::I32 => {
                let v: i32 = value.to_int(rounding, IntOverflow::X86, &mut env);
                u128::from(v as u32)
            }
            Format::I64 => {
                let v: i64 = value.to_int(rounding, IntOverflow::X86, &mut env);
                u128::from(v as u64)
            }
            Format::Bcd => {
                let mut bytes = [0; 16];
                for (to, from) in bytes.iter_mut().zip(fbstp(value, &mut env)) {
                    *to = from;
                }
                u128::from_le_bytes(bytes)
            }
        };
        // Memory gets no wrapped exponent: an unmasked overflow or underflow stores nothing.
        let wrapped = env.flags & env.unmasked & (Flags::OVERFLOW | Flags::UNDERFLOW);
        if wrapped != Flags::NONE {
            env.flags = env.flags & !(Flags::INEXACT | Flags::ROUNDED_UP);
        }
        let stored = after.settle(&mut env) && wrapped == Flags::NONE;
        if stored {
            after.pop(pops);
        }
        Stored {
            bits: stored.then_some(bits),
            after,
        }
    }

    /// FST ST(i).
    pub(super) fn store_register(&mut self, i: u8, pops: u8) {
        match self.get(0) {
            Some(value) => {
                self.set_codes(status::C1, 0);
                self.put(i, value);
                self.pop(pops);
            }
            None => {
                if self.stack_fault(false) {
                    self.put(i, INDEFINITE);
                    self.pop(pops);
                }
            }
        }
    }

    /// FSTPNCE ST(i): as FSTP, but an empty register is no fault: it is only popped.
    pub(super) fn store_unchecked(&mut self, i: u8) {
        match self.get(0) {
            Some(_) => self.store_register(i, 1),
            None => {
                self.set_codes(status::C1, 0);
                self.pop(1);
            }
        }
    }

    /// FXCH ST(i).
    pub(super) fn exchange(&mut self, i: u8) {
        if !(self.is_used(0) && self.is_used(i)) {
            if !self.stack_fault(false) {
                return;
            }
        } else {
            self.set_codes(status::C1, 0);
        }
        let (a, b) = (
            self.get(0).unwrap_or(INDEFINITE),
            self.get(i).unwrap_or(INDEFINITE),
        );
        self.put(0, b);
        self.put(i, a);
    }

    /// FCMOVcc ST(0), ST(i).
    pub(super) fn move_if(&mut self, i: u8, condition: bool) {
        if !(self.is_used(0) && self.is_used(i)) {
            if self.stack_fault(false) {
                self.put(0, INDEFINITE);
            }
            return;
        }
        if condition {
            self.put(0, self.st(i));
        }
    }
}

/// The 80 bits of a register.
pub(super) fn bits_of(value: F80) -> u128 {
    u128::from(value.se) << 64 | u128::from(value.sig)
}

/// What the masked response to an empty register stores.
fn indefinite(format: Format) -> u128 {
    match format {
        Format::F32 => 0xffc0_0000,
        Format::F64 => 0xfff8_0000_0000_0000,
        Format::F80 => bits_of(INDEFINITE),
        Format::I16 => 0x8000,
        Format::I32 => 0x8000_0000,
        Format::I64 => 0x8000_0000_0000_0000,
        Format::Bcd => 0xffff_c000_0000_0000_0000,
    }
}
