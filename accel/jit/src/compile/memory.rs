//! Accesses to guest memory.
//!
//! The translation of plain RAM is looked up in line: the page's line in the current bank's table
//! (`accel_softmmu::layout`), its tag, and the host's address. All else takes a detour behind the
//! main line, to a thunk that calls Rust. A store is announced afterwards if its page is flagged.

use accel_ir::{Endian, Mem as Access, Rmw, Ty, Val};
use accel_softmmu::layout;

use super::int::imm_of;
use super::{ARG, CHECK, Compiler, Detour, RESULT, TooBig, What, slot_at};
use crate::asm::{Alu, CC_NE, Mem, RAX, RBP, Reg, Shift, Size, Xmm};
use crate::thunks::{Complex, Kind};

/// Mask of a page's address, as an immediate.
const PAGE: i32 = -4096;

/// Where a loaded value goes.
#[derive(Clone, Copy)]
pub(super) enum Loaded {
    Reg(Reg),
    Xmm(Xmm),
}

/// What is stored.
#[derive(Clone, Copy)]
pub(super) enum Stored {
    Reg(Reg),
    Xmm(Xmm),
    Imm(i32),
}

/// The size of an integer type.
pub(super) fn size_of(ty: Ty) -> Size {
    match ty {
        Ty::I8 => Size::B,
        Ty::I16 => Size::W,
        Ty::I32 => Size::D,
        Ty::I64 | Ty::V128 => Size::Q,
    }
}

impl Compiler<'_> {
    /// Checks an address against the translation tables, up to the jump that leaves if it is not at
    /// hand. `CHECK[0]` then points to the page's line.
    fn check(&mut self, va: Reg, mem: &Access, tag: i32, aligned: bool) -> crate::asm::Fix {
        let [line, page] = CHECK;
        let bytes = i32::from(mem.ty.bytes());
        self.asm.mov(Size::D, line, va);
        self.asm
            .shift_imm(Shift::Shr, Size::D, line, layout::LINE_SHIFT as u8);
        self.asm
            .alu_imm(Alu::And, Size::D, line, layout::LINE_MASK as i32);
        let hot = Mem::base(RBP, self.env.hot + 8 * i32::from(mem.ctx & 3));
        self.asm.alu(Alu::Add, Size::Q, line, hot);
        if aligned || bytes == 1 {
            self.asm.mov(Size::Q, page, va);
            self.asm
                .alu_imm(Alu::And, Size::Q, page, PAGE | (bytes - 1));
        } else {
            // An access that ends in the next page does not match.
            self.asm.lea(Size::Q, page, Mem::base(va, bytes - 1));
            self.asm.alu_imm(Alu::And, Size::Q, page, PAGE);
        }
        self.asm.alu(Alu::Cmp, Size::Q, page, Mem::base(line, tag));
        self.asm.jcc(CC_NE)
    }

    /// Frees the registers that checks use. The address must not be in one of them.
    fn claim_check(&mut self) -> Result<(), TooBig> {
        CHECK.into_iter().try_for_each(|reg| self.claim(reg))
    }

    /// The address in a register that checks do not use.
    fn checked_address(&mut self, addr: Val) -> Result<Reg, TooBig> {
        self.claim_check()?;
        self.address(addr)
    }

    pub(super) fn load(&mut self, d: Val, addr: Val, mem: &Access) -> Result<(), TooBig> {
        if mem.endian == Endian::Big && mem.ty == Ty::V128 {
            return Err(TooBig);
        }
        let va = self.checked_address(addr)?;
        // The target may be a guest register: it is written when the access has succeeded.
        self.consume(addr);
        let vectors = self.places.has_vectors() || mem.ty == Ty::V128;
        let thunk = self.env.thunks.memory(Kind::Load, mem, vectors);
        let [line, page] = CHECK;
        if mem.ty == Ty::V128 {
            let to = self.alloc_v()?;
            let from = self.check(va, mem, layout::READ, mem.aligned);
            self.asm
                .mov(Size::Q, page, Mem::base(line, layout::READ + 8));
            self.asm.movups(to, Mem::sum(va, page));
            self.detour(
                from,
                What::Load {
                    va,
                    thunk,
                    to: Loaded::Xmm(to),
                },
            );
            if self.plan.is_used(d) {
                self.define_v(d, to);
            }
            return Ok(());
        }
        let used = self.plan.is_used(d);
        let to = match used {
            // Reading the page's address last, the register may be the one it stands in.
            true => self.fresh_or(d, va)?,
            false => page,
        };
        let from = self.check(va, mem, layout::READ, mem.aligned);
        self.asm
            .mov(Size::Q, page, Mem::base(line, layout::READ + 8));
        let size = size_of(mem.ty);
        self.asm.movzx(size, to, Mem::sum(va, page));
        self.detour(
            from,
            What::Load {
                va,
                thunk,
                to: Loaded::Reg(to),
            },
        );
        if mem.endian == Endian::Big {
            self.swap(mem.ty, to);
        }
        if used {
            self.define(d, to, false);
        }
        Ok(())
    }

    /// A register for a loaded value: a guest register that is set next, the address's own if that is
    /// free, or another one.
    fn fresh_or(&mut self, d: Val, va: Reg) -> Result<Reg, TooBig> {
        if let Some((_, reg)) = self.destination(d) {
            return Ok(reg);
        }
        if self.is_free(va) {
            return Ok(va);
        }
        self.alloc()
    }

    /// Swaps the bytes of a clean value.
    fn swap(&mut self, ty: Ty, reg: Reg) {
        match ty {
            Ty::I16 => self.asm.shift_imm(Shift::Rol, Size::W, reg, 8),
            Ty::I32 => self.asm.bswap(Size::D, reg),
            Ty::I64 => self.asm.bswap(Size::Q, reg),
            Ty::I8 | Ty::V128 => {}
        }
    }

    pub(super) fn store(&mut self, addr: Val, v: Val, mem: &Access) -> Result<(), TooBig> {
        if mem.endian == Endian::Big && mem.ty == Ty::V128 {
            return Err(TooBig);
        }
        self.ready(v)?;
        let va = self.checked_address(addr)?;
        let size = size_of(mem.ty);
        let value = match (mem.ty, self.places.constant(v)) {
            (Ty::V128, _) => Stored::Xmm(self.xmm(v)?),
            (ty, Some(value)) if mem.endian == Endian::Little && imm_of(ty, value).is_some() => {
                Stored::Imm(imm_of(ty, value).unwrap_or(0))
            }
            _ if mem.endian == Endian::Big => {
                let copy = self.alloc()?;
                self.copy_into(copy, v)?;
                self.swap(mem.ty, copy);
                Stored::Reg(copy)
            }
            _ => Stored::Reg(self.reg(v)?),
        };
        self.consume(addr);
        self.consume(v);
        let vectors = self.places.has_vectors() || mem.ty == Ty::V128;
        let thunk = self.env.thunks.memory(Kind::Store, mem, vectors);
        let [line, page] = CHECK;
        let from = self.check(va, mem, layout::WRITE, mem.aligned);
        self.asm
            .mov(Size::Q, page, Mem::base(line, layout::WRITE + 8));
        let to = Mem::sum(va, page);
        match value {
            Stored::Reg(reg) => self.asm.mov_to(size, to, reg),
            Stored::Xmm(reg) => self.asm.movups_to(to, reg),
            Stored::Imm(imm) => self.asm.mov_imm_to(size, to, imm),
        }
        self.asm.mov(Size::Q, page, Mem::base(line, layout::FLAGS));
        self.announce(page, va, mem, vectors);
        self.detour(from, What::Store { va, value, thunk });
        if mem.ordering == accel_ir::Ordering::SeqCst {
            self.asm
                .lock_alu_imm(Alu::Or, Size::D, Mem::base(crate::asm::RSP, 0), 0);
        }
        Ok(())
    }

    /// Leaves to announce a store if the page's flags, pointed to by a register, say so.
    fn announce(&mut self, flags: Reg, va: Reg, mem: &Access, vectors: bool) {
        self.asm.alu_imm(Alu::Cmp, Size::B, Mem::base(flags, 0), 0);
        let from = self.asm.jcc(CC_NE);
        let thunk = self.env.thunks.memory(Kind::Announce, mem, vectors);
        self.detour(from, What::Address { va, thunk });
    }

    pub(super) fn probe(&mut self, addr: Val, mem: &Access) -> Result<(), TooBig> {
        let va = self.checked_address(addr)?;
        self.consume(addr);
        let vectors = self.places.has_vectors();
        let thunk = self.env.thunks.memory(Kind::Probe, mem, vectors);
        let from = self.check(va, mem, layout::WRITE, false);
        self.detour(from, What::Address { va, thunk });
        Ok(())
    }

    pub(super) fn rmw(
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
        self.claim(RAX)?;
        let va = self.checked_address(addr)?;
        let value = self.reg(v)?;
        let [line, page] = CHECK;
        let size = size_of(mem.ty);
        let vectors = self.places.has_vectors();
        let from = self.check(va, mem, layout::WRITE, true);
        self.asm
            .mov(Size::Q, page, Mem::base(line, layout::WRITE + 8));
        self.asm.alu(Alu::Add, Size::Q, page, va);
        self.asm.mov(Size::Q, line, Mem::base(line, layout::FLAGS));
        let to = Mem::base(page, 0);
        match op {
            Rmw::Xchg => {
                self.asm.mov(Size::Q, RAX, value);
                self.asm.xchg_mem(size, to, RAX);
            }
            Rmw::Add | Rmw::Sub => {
                self.asm.mov(Size::Q, RAX, value);
                if op == Rmw::Sub {
                    self.asm.neg(Size::Q, RAX);
                }
                self.asm.lock_xadd(size, to, RAX);
            }
            Rmw::And | Rmw::Or | Rmw::Xor => {
                let alu = match op {
                    Rmw::And => Alu::And,
                    Rmw::Or => Alu::Or,
                    _ => Alu::Xor,
                };
                if wanted {
                    // Registers are scarce here: the flags' address waits in memory.
                    let kept = slot_at(ARG + 5);
                    self.asm.mov_to(Size::Q, kept, line);
                    self.asm.movzx(size, RAX, to);
                    let again = self.asm.here();
                    self.asm.mov(Size::Q, line, RAX);
                    self.asm.alu(alu, Size::Q, line, value);
                    self.asm.lock_cmpxchg(size, to, line);
                    self.asm.jcc_to(CC_NE, again);
                    self.asm.mov(Size::Q, line, kept);
                } else {
                    self.asm.lock_alu_to(alu, size, to, value);
                }
            }
        }
        self.announce(line, va, mem, vectors);
        let args = [value, value];
        let what = self.complex_number(Complex::Rmw(op), mem);
        self.detour(
            from,
            What::Complex {
                va,
                args,
                what,
                to: RAX,
                vectors,
            },
        );
        self.consume(addr);
        self.consume(v);
        if wanted {
            self.old_value(d, mem.ty);
        }
        Ok(())
    }

    /// Defines the old value of an atomic operation, which is in RAX.
    fn old_value(&mut self, d: Val, ty: Ty) {
        if !matches!(ty, Ty::I64) {
            self.asm.movzx(size_of(ty), RAX, RAX);
        }
        self.define(d, RAX, false);
    }

    pub(super) fn cas(
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
        self.claim(RAX)?;
        let va = self.checked_address(addr)?;
        let old = self.reg(expected)?;
        let value = self.reg(new)?;
        let [line, page] = CHECK;
        let size = size_of(mem.ty);
        let vectors = self.places.has_vectors();
        let from = self.check(va, mem, layout::WRITE, true);
        self.asm
            .mov(Size::Q, page, Mem::base(line, layout::WRITE + 8));
        self.asm.alu(Alu::Add, Size::Q, page, va);
        self.asm.mov(Size::Q, RAX, old);
        self.asm.lock_cmpxchg(size, Mem::base(page, 0), value);
        self.asm.mov(Size::Q, page, Mem::base(line, layout::FLAGS));
        self.announce(page, va, mem, vectors);
        let what = self.complex_number(Complex::Cas, mem);
        self.detour(
            from,
            What::Complex {
                va,
                args: [old, value],
                what,
                to: RAX,
                vectors,
            },
        );
        self.consume(addr);
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
        let va = self.address(addr)?;
        self.asm.mov_to(Size::Q, slot_at(ARG), va);
        for (i, arg) in args.iter().enumerate() {
            if let Some(v) = arg {
                let from = self.clean(*v)?;
                self.asm.mov_to(Size::Q, slot_at(ARG + 1 + i), from);
            }
        }
        self.consume(addr);
        args.iter().flatten().for_each(|v| self.consume(*v));
        let what = self.complex_number(op, mem);
        self.asm.mov_imm_to(Size::D, slot_at(ARG + 4), what);
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

    pub(super) fn detour(&mut self, from: crate::asm::Fix, what: What) {
        self.detours.push(Detour {
            from,
            back: self.asm.here(),
            insn: self.insn(),
            what,
        });
        // Flags differ by the way come.
        self.asm.flags_of = None;
    }

    /// Emits the detours.
    pub(super) fn detours(&mut self) {
        for detour in std::mem::take(&mut self.detours) {
            self.asm.bind(detour.from);
            let (va, thunk) = match detour.what {
                What::Divide {
                    args,
                    helper,
                    vectors,
                    ..
                } => {
                    self.asm
                        .mov_imm_to(Size::D, slot_at(ARG + 4), i32::from(helper));
                    (args[0], self.env.thunks.call(false, vectors))
                }
                What::Load { va, thunk, .. }
                | What::Store { va, thunk, .. }
                | What::Address { va, thunk } => (va, thunk),
                What::Complex { va, vectors, .. } => (va, self.env.thunks.complex(vectors)),
            };
            self.asm.mov_to(Size::Q, slot_at(ARG), va);
            match detour.what {
                What::Store { value, .. } => {
                    let at = slot_at(ARG + 1);
                    match value {
                        Stored::Reg(reg) => self.asm.mov_to(Size::Q, at, reg),
                        Stored::Xmm(reg) => self.asm.movups_to(at, reg),
                        Stored::Imm(imm) => self.asm.mov_imm_to(Size::Q, at, imm),
                    }
                }
                What::Divide { args, bits, .. } => {
                    self.asm.mov_to(Size::Q, slot_at(ARG + 1), args[1]);
                    self.asm.mov_to(Size::Q, slot_at(ARG + 2), args[2]);
                    self.asm.mov_imm_to(Size::Q, slot_at(ARG + 3), bits);
                }
                What::Complex { args, what, .. } => {
                    self.asm.mov_to(Size::Q, slot_at(ARG + 1), args[0]);
                    self.asm.mov_to(Size::Q, slot_at(ARG + 2), args[1]);
                    self.asm.mov_imm_to(Size::D, slot_at(ARG + 4), what);
                }
                _ => {}
            }
            self.call_out_for(thunk, detour.insn);
            match detour.what {
                What::Load { to, .. } => match to {
                    Loaded::Reg(to) => self.asm.mov(Size::Q, to, slot_at(RESULT)),
                    Loaded::Xmm(to) => self.asm.movups(to, slot_at(RESULT)),
                },
                What::Complex { to, .. } => self.asm.mov(Size::Q, to, slot_at(RESULT)),
                What::Divide { .. } => self.asm.mov(Size::Q, RAX, slot_at(RESULT)),
                _ => {}
            }
            self.asm.jmp_to(detour.back);
        }
    }
}
