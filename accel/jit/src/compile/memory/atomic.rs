//! Atomic operations: the host's own, or plain instructions where no other CPU runs meanwhile.

use accel_ir::{Endian, Mem as Access, Rmw, Ty, Val};

use super::{Slow, Stored, size_of};
use crate::asm::{Alu, CC_NE, RAX, Size};
use crate::compile::{ARG, Compiler, FLAGS, HOST, RESULT, TooBig, slot_at};
use crate::thunks::Complex;

impl Compiler<'_> {
    pub(in crate::compile) fn rmw(
        &mut self,
        op: Rmw,
        d: Val,
        addr: Val,
        v: Val,
        mem: &Access,
    ) -> Result<(), TooBig> {
        self.ready(v)?;
        if mem.endian == Endian::Big {
            return self.complex(Complex::Rmw(op), d, addr, [Some(v), None], mem);
        }
        let wanted = self.plan.is_used(d);
        let by = self.locate_atomic(addr, mem)?;
        let value = self.reg(v)?;
        let size = size_of(mem.ty);
        let vectors = self.places.has_vectors();
        let sole = self.env.sole;
        let check = self.check(by, mem, true, mem.aligned || !sole);
        let to = check.at;
        match op {
            Rmw::Xchg if sole => {
                self.asm.movzx(size, RAX, to);
                self.asm.mov_to(size, to, value);
            }
            Rmw::Xchg => {
                self.asm.mov(Size::Q, RAX, value);
                self.asm.xchg_mem(size, to, RAX);
            }
            Rmw::Add | Rmw::Sub => {
                self.asm.mov(Size::Q, RAX, value);
                if op == Rmw::Sub {
                    self.asm.neg(Size::Q, RAX);
                }
                self.lock();
                self.asm.xadd(size, to, RAX);
            }
            Rmw::And | Rmw::Or | Rmw::Xor => {
                let alu = match op {
                    Rmw::And => Alu::And,
                    Rmw::Or => Alu::Or,
                    _ => Alu::Xor,
                };
                if wanted {
                    self.asm.movzx(size, RAX, to);
                    let again = self.asm.here();
                    self.asm.mov(Size::Q, FLAGS, RAX);
                    self.asm.alu(alu, Size::Q, FLAGS, value);
                    if sole {
                        self.asm.mov_to(size, to, FLAGS);
                    } else {
                        self.asm.lock();
                        self.asm.cmpxchg(size, to, FLAGS);
                        self.asm.jcc_to(CC_NE, again);
                    }
                } else {
                    self.lock();
                    self.asm.alu_to(alu, size, to, value);
                }
            }
        }
        self.announce(by, mem, vectors);
        let slow = Slow::Complex {
            args: [value, value],
            what: self.complex_number(Complex::Rmw(op), mem),
            to: RAX,
            vectors,
        };
        self.access_detour(check, slow);
        self.consume(v);
        if wanted {
            self.old_value(d, mem.ty);
        }
        Ok(())
    }

    /// Makes the next instruction atomic, if there is anyone to see the difference.
    fn lock(&mut self) {
        if !self.env.sole {
            self.asm.lock();
        }
    }

    /// Defines the old value of an atomic operation, which is in RAX.
    fn old_value(&mut self, d: Val, ty: Ty) {
        if !matches!(ty, Ty::I64) {
            self.asm.movzx(size_of(ty), RAX, RAX);
        }
        self.define(d, RAX, false);
    }

    pub(in crate::compile) fn cas(
        &mut self,
        d: Val,
        addr: Val,
        expected: Val,
        new: Val,
        mem: &Access,
    ) -> Result<(), TooBig> {
        self.ready(expected)?;
        self.ready(new)?;
        if mem.endian == Endian::Big {
            return self.complex(Complex::Cas, d, addr, [Some(expected), Some(new)], mem);
        }
        let by = self.locate_atomic(addr, mem)?;
        // Where the instruction wants it.
        self.copy_into(RAX, expected)?;
        self.keep_only(Stored::Reg(RAX));
        self.places.lock(FLAGS);
        let value = self.reg(new)?;
        let size = size_of(mem.ty);
        let vectors = self.places.has_vectors();
        let check = self.check(by, mem, true, mem.aligned || !self.env.sole);
        self.lock();
        self.asm.cmpxchg(size, check.at, value);
        self.announce(by, mem, vectors);
        let slow = Slow::Complex {
            args: [RAX, value],
            what: self.complex_number(Complex::Cas, mem),
            to: RAX,
            vectors,
        };
        self.access_detour(check, slow);
        self.consume(expected);
        self.consume(new);
        if self.plan.is_used(d) {
            self.old_value(d, mem.ty);
        }
        Ok(())
    }

    /// An atomic operation by a thunk alone.
    fn complex(
        &mut self,
        op: Complex,
        d: Val,
        addr: Val,
        args: [Option<Val>; 2],
        mem: &Access,
    ) -> Result<(), TooBig> {
        self.claim(HOST)?;
        self.address_into(HOST, addr)?;
        self.asm.mov_to(Size::Q, slot_at(ARG), HOST);
        for (i, arg) in args.iter().enumerate() {
            if let Some(v) = arg {
                let from = self.clean(*v)?;
                self.asm.mov_to(Size::Q, slot_at(ARG + 1 + i), from);
            }
        }
        args.iter().flatten().for_each(|v| self.consume(*v));
        let what = self.complex_number(op, mem);
        self.asm.mov_imm_to(Size::Q, slot_at(ARG + 4), what);
        let vectors = self.places.has_vectors();
        self.call_out(self.env.thunks.complex(vectors));
        if self.plan.is_used(d) {
            let to = self.alloc()?;
            self.asm.mov(Size::Q, to, slot_at(RESULT));
            self.define(d, to, false);
        }
        Ok(())
    }

    fn complex_number(&self, op: Complex, mem: &Access) -> i32 {
        op.number(mem)
    }
}
