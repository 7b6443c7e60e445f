//! What the translation of one unit shares: the builder, registers, flags, memory accesses.

use std::sync::Arc;

use accel_ir::{
    Binary, Builder, Cond, Endian, FlagKind, FpHost, HelperId, Mem, Ordering, Slot, Ty, Unary,
    Unit, Val,
};

use crate::mode::Mode;
use crate::model::{CpuModel, Feature};
use crate::{helper, regs};

/// Translation of a unit in the making.
pub(crate) struct Ctx {
    pub(crate) b: Builder,
    pub(crate) mode: Mode,
    pub(crate) model: Arc<CpuModel>,
    /// Address of the instruction at hand.
    pub(crate) pc: u64,
    pub(crate) word: u32,
    /// What the executor's floating-point unit has.
    pub(crate) fp_host: FpHost,
    /// There are other CPUs, which a DSB may have to wait for.
    pub(crate) has_peers: bool,
    /// The instruction at hand writes the stack pointer.
    pub(crate) moves_sp: bool,
}

/// The type of a general register operand.
pub(crate) fn width(sf: u32) -> Ty {
    if sf != 0 { Ty::I64 } else { Ty::I32 }
}

/// The IR's condition for a condition of A64 other than AL: see [`regs::FLAGS`].
pub(crate) fn condition(cond: u32) -> Cond {
    const CONDS: [Cond; 16] = [
        Cond::E,
        Cond::Ne,
        Cond::Ae,
        Cond::B,
        Cond::S,
        Cond::Ns,
        Cond::O,
        Cond::No,
        Cond::A,
        Cond::Be,
        Cond::Ge,
        Cond::L,
        Cond::G,
        Cond::Le,
        Cond::E,
        Cond::E,
    ];
    CONDS.get((cond & 15) as usize).copied().unwrap_or(Cond::E)
}

impl Ctx {
    pub(crate) fn new(mode: Mode, model: Arc<CpuModel>, spare: Unit) -> Self {
        Ctx {
            b: Builder::reusing(spare),
            mode,
            model,
            pc: 0,
            word: 0,
            fp_host: FpHost::ALL,
            has_peers: true,
            moves_sp: false,
        }
    }

    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.model.has(feature)
    }

    /// Address of the next instruction.
    pub(crate) fn next(&self) -> u64 {
        self.pc.wrapping_add(4)
    }

    /// A constant.
    pub(crate) fn imm(&mut self, ty: Ty, value: u64) -> Val {
        self.b.iconst(ty, value)
    }

    /// A general register, 31 being zero.
    pub(crate) fn x(&mut self, n: u32, ty: Ty) -> Val {
        if n == 31 {
            return self.b.iconst(ty, 0);
        }
        self.b.get_low(regs::x(n), ty)
    }

    /// A general register, 31 being the stack pointer.
    pub(crate) fn x_sp(&mut self, n: u32, ty: Ty) -> Val {
        self.b.get_low(regs::x(n), ty)
    }

    /// Writes a general register, 31 being none.
    pub(crate) fn set_x(&mut self, n: u32, v: Val) {
        if n != 31 {
            self.b.set(regs::x(n), v);
        }
    }

    /// Writes a general register, 31 being the stack pointer.
    pub(crate) fn set_x_sp(&mut self, n: u32, v: Val) {
        self.moves_sp |= n == 31;
        self.b.set(regs::x(n), v);
    }

    pub(crate) fn not(&mut self, v: Val) -> Val {
        self.b.unary(Unary::Not, v)
    }

    pub(crate) fn binary_imm(&mut self, op: Binary, a: Val, value: u64) -> Val {
        let ty = self.b.ty(a);
        let b = self.b.iconst(ty, value);
        self.b.binary(op, a, b)
    }

    pub(crate) fn shl(&mut self, a: Val, count: u32) -> Val {
        self.shift(Binary::Shl, a, count)
    }

    /// Shifts by a constant.
    pub(crate) fn shift(&mut self, op: Binary, a: Val, count: u32) -> Val {
        if count == 0 {
            return a;
        }
        let count = self.b.iconst(Ty::I8, count.into());
        self.b.binary(op, a, count)
    }

    /// Whether a condition holds; an i8.
    pub(crate) fn holds(&mut self, cond: u32) -> Val {
        if cond & 14 == 14 {
            return self.b.iconst(Ty::I8, 1);
        }
        self.b.flags_use(condition(cond))
    }

    /// Sum and, if wanted, its flags.
    pub(crate) fn add_flags(&mut self, a: Val, b: Val) {
        match self.b.as_const(b) {
            Some(value) if value != 0 && value < 1 << 30 => {
                let ty = self.b.ty(b);
                let negated = self.b.iconst(ty, value.wrapping_neg());
                self.b.flags_def(FlagKind::Sub, a, negated, None);
            }
            // a + b is a - NOT(b) - 1.
            _ => {
                let complement = self.not(b);
                let one = self.b.iconst(Ty::I64, 1);
                self.b.flags_def(FlagKind::Sbb, a, complement, Some(one));
            }
        }
    }

    /// Flags of `a - b`.
    pub(crate) fn sub_flags(&mut self, a: Val, b: Val) {
        self.b.flags_def(FlagKind::Sub, a, b, None);
    }

    /// Flags of a logical result.
    pub(crate) fn logic_flags(&mut self, result: Val) {
        let zero = self.b.iconst(self.b.ty(result), 0);
        self.b.flags_def(FlagKind::LogicC, result, zero, None);
    }

    /// Sets NZCV from a value with flags in their x86 places, C inverted.
    pub(crate) fn raw_flags(&mut self, flags: Val) {
        let zero = self.b.iconst(Ty::I64, 0);
        self.b.flags_def(FlagKind::Raw, flags, zero, None);
    }

    /// An ordinary access.
    pub(crate) fn mem(&self, ty: Ty) -> Mem {
        Mem {
            ty,
            endian: Endian::Little,
            aligned: self.mode.is_aligned(),
            ordering: Ordering::Relaxed,
            ctx: self.mode.ctx(),
        }
    }

    /// An access that must be aligned, in some order.
    pub(crate) fn mem_ordered(&self, ty: Ty, ordering: Ordering) -> Mem {
        Mem {
            aligned: true,
            ordering,
            ..self.mem(ty)
        }
    }

    /// Calls a helper for its result.
    pub(crate) fn call(&mut self, helper: HelperId, args: &[Val]) -> Val {
        self.b.call(helper, args)
    }

    /// Ends the unit with an UNDEFINED instruction.
    pub(crate) fn undefined(&mut self) {
        self.b.call_void(helper::UNDEFINED, &[]);
        self.b.leave();
    }

    /// Ends the unit with a helper that always leaves, given the next instruction's address last.
    pub(crate) fn leave_by(&mut self, helper: HelperId, args: &[u64]) {
        let args: Vec<_> = args.iter().map(|a| self.b.iconst(Ty::I64, *a)).collect();
        self.b.call_void(helper, &args);
        self.b.leave();
    }

    /// A slot with a constant.
    pub(crate) fn set_const(&mut self, slot: Slot, value: u64) {
        let v = self.b.iconst(Ty::I64, value);
        self.b.set(slot, v);
    }

    /// Whether floating point and vectors may be used; else ends the unit with the trap.
    pub(crate) fn fp_access(&mut self) -> bool {
        if self.mode.fp_traps() {
            self.leave_by(helper::FP_TRAP, &[]);
            return false;
        }
        true
    }
}
