//! The x87 by the host's own: one piece of code for each operation, format and number of registers popped.
//!
//! The guest's control word is the host's from the first piece on until generated code is left or the guest's
//! changes, and what the host's status word says was raised is in the guest's too. Rust code called meanwhile
//! computes by SSE. All exceptions are masked. What the host's stack holds is gone when a piece ends.

use accel_core::{X87Form, X87Format, X87Layout, X87Op};

use super::{CLC, Make, STC};
use crate::asm::{
    Alu, Asm, Bit, CC_AE, CC_B, CC_E, CC_NE, Fix, Mem, RAX, RBP, RCX, RDX, Reg, Shift, Size,
};
use crate::compile::{ARG, RESULT, slot_at};
use crate::memory::cell;

/// Exception flags of the status word (SDM vol. 1, 8.1.3).
const FLAGS: i32 = 0x3f;
/// Condition codes.
const C0: i32 = 1 << 8;
const C1: i32 = 1 << 9;
const C2: i32 = 1 << 10;
const C3: i32 = 1 << 14;
/// The exception masks of the control word.
const MASKS: i32 = 0x3f;
/// What of the control word can be written, and what always reads as one.
const WRITABLE: i32 = 0x1f3f;
const FIXED: i32 = 0x40;

/// Bits of the cell that says whose control word the host has.
const OF_NOW: i32 = 1;
const OF_GUEST: i32 = 2;

/// The guest's control word or the exceptions it sees as raised may be others now.
pub(crate) fn forget_x87(asm: &mut Asm) {
    asm.alu_imm(Alu::And, Size::B, Mem::Code(cell::X87 as i32), OF_GUEST);
}

/// Where the guest's unit is, as distances from RBP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells {
    registers: i32,
    pub(crate) top: i32,
    pub(crate) used: i32,
    pub(crate) status: i32,
    pub(crate) control: i32,
    pub(crate) ip: i32,
    pub(crate) dp: i32,
}

impl Cells {
    /// `state` is the distance of the target's state from RBP.
    pub(crate) fn new(layout: &X87Layout, state: i32) -> Cells {
        let at = |offset: usize| state + offset as i32;
        Cells {
            registers: at(layout.registers),
            top: at(layout.top),
            used: at(layout.used),
            status: at(layout.status),
            control: at(layout.control),
            ip: at(layout.ip),
            dp: at(layout.dp),
        }
    }

    /// A physical register that is known.
    pub(crate) fn register(&self, n: i32) -> Mem {
        Mem::base(RBP, self.registers + 16 * (n & 7))
    }

    /// The one whose number times 16 is in a register.
    fn register_at(&self, index: Reg) -> Mem {
        Mem::At {
            base: Some(RBP),
            index: Some((index, 0)),
            disp: self.registers,
        }
    }
}

/// What pieces are told apart by: the operation, and what of its form the code depends on.
pub(crate) type Key = (X87Op, u8, Option<X87Format>, u8, bool);

/// The key of an operation, if there may be a piece for it.
pub(crate) fn key(op: X87Op, form: X87Form) -> Key {
    match op {
        X87Op::Arith => (op, form.op, None, form.pops, false),
        X87Op::ArithValue => (op, form.op, form.format, 0, false),
        X87Op::Compare | X87Op::CompareFlags => (op, 0, None, form.pops, form.variant),
        X87Op::CompareValue => (op, 0, form.format, form.pops, false),
        X87Op::Load => (op, 0, form.format, 0, false),
        X87Op::StoreRegister => (op, 0, None, form.pops, false),
        X87Op::Convert => (op, 0, form.format, 0, form.variant),
        _ => (op, 0, None, 0, false),
    }
}

const VALUES: [X87Format; 4] = [
    X87Format::F32,
    X87Format::F64,
    X87Format::I16,
    X87Format::I32,
];
const INTEGERS: [X87Format; 3] = [X87Format::I16, X87Format::I32, X87Format::I64];

/// All keys.
fn keys() -> Vec<Key> {
    use X87Format as F;
    use X87Op as O;
    let mut keys = Vec::new();
    for arith in 0..6 {
        keys.extend([0, 1].map(|pops| (O::Arith, arith, None, pops, false)));
        keys.extend(VALUES.map(|format| (O::ArithValue, arith, Some(format), 0, false)));
    }
    for pops in 0..3 {
        for quiet in [false, true] {
            keys.push((O::Compare, 0, None, pops, quiet));
            keys.push((O::CompareFlags, 0, None, pops, quiet));
        }
        keys.extend(VALUES.map(|format| (O::CompareValue, 0, Some(format), pops, false)));
        keys.push((O::StoreRegister, 0, None, pops, false));
    }
    for format in [F::F32, F::F64, F::F80, F::I16, F::I32, F::I64] {
        keys.push((O::Load, 0, Some(format), 0, false));
    }
    for format in [F::F32, F::F64] {
        keys.push((O::Convert, 0, Some(format), 0, false));
    }
    for format in INTEGERS {
        keys.extend([false, true].map(|cuts| (O::Convert, 0, Some(format), 0, cuts)));
    }
    let plain = [
        O::LoadRegister,
        O::Significand,
        O::SignExponent,
        O::Pop,
        O::Exchange,
        O::ChangeSign,
        O::Absolute,
        O::SquareRoot,
        O::Round,
        O::LoadControl,
    ];
    keys.extend(plain.map(|op| (op, 0, None, 0, false)));
    keys
}

/// Opcode and digit of `op st, memory` by format and the digit of the operation.
fn with_value(format: Option<X87Format>) -> u8 {
    match format {
        Some(X87Format::F32) => 0xd8,
        Some(X87Format::F64) => 0xdc,
        Some(X87Format::I16) => 0xde,
        _ => 0xda,
    }
}

impl Make<'_> {
    /// All pieces. Each finds its arguments where helpers do, leaves its result there, keeps all registers
    /// but for the flags, and returns with carry, nothing done, where the helper must be called.
    pub(super) fn x87(&mut self, cells: &Cells) {
        let on = self.asm.here();
        self.asm.byte(0xdb);
        self.asm.byte(0xe2); // fnclex
        self.asm.fpu(0xd9, 5, Mem::base(RBP, cells.control)); // fldcw
        let is_on = Mem::Code(cell::X87 as i32);
        self.asm.mov_imm_to(Size::B, is_on, OF_NOW | OF_GUEST);
        self.asm.ret();
        for key in keys() {
            let mut piece = Piece {
                asm: &mut self.asm,
                cells,
                on,
                slow: Vec::new(),
            };
            let at = piece.make(key);
            self.thunks.x87.push((key, at));
        }
    }

    /// Has the host's control word as the calling convention wants it, if it is the guest's. Registers stay.
    pub(super) fn x87_off(&mut self) {
        let is_on = Mem::Code(cell::X87 as i32);
        self.asm.alu_imm(Alu::Cmp, Size::B, is_on, 0);
        let off = self.asm.jcc(CC_E);
        let control = Mem::Code(cell::RUST_CONTROL as i32);
        self.asm.fpu(0xd9, 5, control); // fldcw
        self.asm.mov_imm_to(Size::B, is_on, 0);
        self.asm.bind(off);
    }
}

struct Piece<'a> {
    asm: &'a mut Asm,
    cells: &'a Cells,
    /// Loads the guest's control word.
    on: usize,
    slow: Vec<Fix>,
}

impl Piece<'_> {
    fn make(&mut self, key: Key) -> usize {
        let at = self.asm.here();
        for reg in [RAX, RCX, RDX] {
            self.asm.push(reg);
        }
        self.body(key);
        self.end(CLC);
        for from in std::mem::take(&mut self.slow) {
            self.asm.bind(from);
        }
        self.end(STC);
        at
    }

    fn end(&mut self, carry: u8) {
        for reg in [RDX, RCX, RAX] {
            self.asm.pop(reg);
        }
        self.asm.byte(carry);
        self.asm.ret();
    }

    fn body(&mut self, (op, arith, format, pops, variant): Key) {
        let value = slot_at(ARG + 1);
        match op {
            X87Op::Arith => {
                self.stack(RCX, Some(X87Form::DST));
                self.stack(RDX, Some(X87Form::SRC));
                self.need_on();
                self.fld(RCX);
                self.fld(RDX);
                // faddp, fmulp, fsubp, fsubrp, fdivp, fdivrp
                let second = [0xc1, 0xc9, 0xe9, 0xe1, 0xf9, 0xf1][usize::from(arith)];
                self.code([0xde, second]);
                self.read_status();
                self.fstp(RCX);
                self.merge(FLAGS | C1, C1);
                self.pop(pops);
            }
            X87Op::ArithValue => {
                self.stack(RCX, Some(X87Form::DST));
                self.need_on();
                self.fld(RCX);
                let digit = [0, 1, 4, 5, 6, 7][usize::from(arith)];
                self.asm.fpu(with_value(format), digit, value);
                self.read_status();
                self.fstp(RCX);
                self.merge(FLAGS | C1, C1);
            }
            X87Op::Compare => {
                self.stack(RCX, None);
                self.stack(RDX, Some(X87Form::SRC));
                self.need_on();
                self.fld(RDX);
                self.fld(RCX);
                // fcompp, fucompp
                self.code(if variant { [0xda, 0xe9] } else { [0xde, 0xd9] });
                self.read_status();
                self.merge(FLAGS | C0 | C2 | C3, C0 | C1 | C2 | C3);
                self.pop(pops);
            }
            X87Op::CompareValue => {
                self.stack(RCX, None);
                self.need_on();
                self.fld(RCX);
                self.asm.fpu(with_value(format), 3, value);
                self.read_status();
                self.merge(FLAGS | C0 | C2 | C3, C0 | C1 | C2 | C3);
                self.pop(pops);
            }
            X87Op::CompareFlags => {
                self.stack(RCX, None);
                self.stack(RDX, Some(X87Form::SRC));
                self.need_on();
                self.fld(RDX);
                self.fld(RCX);
                // fucomip, fcomip
                self.code([0xdf, if variant { 0xe9 } else { 0xf1 }]);
                self.asm.lahf();
                self.asm.movzx_eax_ah();
                self.asm.alu_imm(Alu::And, Size::D, RAX, 0x45);
                self.asm.mov_to(Size::Q, slot_at(RESULT), RAX);
                // fstp st(0)
                self.code([0xdd, 0xd8]);
                self.read_status();
                self.merge(FLAGS, 0);
                self.pop(pops);
            }
            X87Op::Load => self.load(format),
            X87Op::LoadRegister => {
                self.stack(RCX, Some(X87Form::SRC));
                self.room();
                self.need_on();
                self.fld(RCX);
                self.push();
                self.clear_c1();
            }
            X87Op::StoreRegister => {
                // The destination may be empty.
                self.stack(RCX, None);
                self.number(RDX, Some(X87Form::DST));
                self.fill(RDX);
                self.need_on();
                self.fld(RCX);
                self.fstp(RDX);
                self.clear_c1();
                self.pop(pops);
            }
            X87Op::Convert => self.convert(format, variant),
            X87Op::Significand | X87Op::SignExponent => {
                self.stack(RCX, None);
                let from = self.cells.register_at(RCX);
                if op == X87Op::Significand {
                    self.asm.mov(Size::Q, RAX, from);
                    self.clear_c1();
                } else {
                    self.asm.movzx(Size::W, RAX, from.after(8));
                }
                self.asm.mov_to(Size::Q, slot_at(RESULT), RAX);
            }
            X87Op::Pop => self.pop(1),
            X87Op::Exchange => {
                self.stack(RCX, None);
                self.stack(RDX, Some(X87Form::SRC));
                self.need_on();
                self.fld(RCX);
                self.fld(RDX);
                self.fstp(RCX);
                self.fstp(RDX);
                self.clear_c1();
            }
            X87Op::ChangeSign | X87Op::Absolute => {
                self.stack(RCX, None);
                let sign = self.cells.register_at(RCX).after(9);
                let (change, with) = match op {
                    X87Op::Absolute => (Alu::And, 0x7f),
                    _ => (Alu::Xor, -0x80),
                };
                self.asm.alu_imm(change, Size::B, sign, with);
                self.clear_c1();
            }
            X87Op::SquareRoot | X87Op::Round => {
                self.stack(RCX, None);
                self.need_on();
                self.fld(RCX);
                // fsqrt, frndint
                self.code([0xd9, if op == X87Op::SquareRoot { 0xfa } else { 0xfc }]);
                self.read_status();
                self.fstp(RCX);
                self.merge(FLAGS | C1, C1);
            }
            X87Op::LoadControl => {
                self.asm.movzx(Size::W, RAX, slot_at(ARG));
                self.asm.mov(Size::D, RCX, RAX);
                self.asm.alu_imm(Alu::And, Size::D, RCX, MASKS);
                self.asm.alu_imm(Alu::Cmp, Size::D, RCX, MASKS);
                self.slow.push(self.asm.jcc(CC_NE));
                self.asm.alu_imm(Alu::And, Size::D, RAX, WRITABLE);
                self.asm.alu_imm(Alu::Or, Size::D, RAX, FIXED);
                self.asm
                    .mov_to(Size::W, Mem::base(RBP, self.cells.control), RAX);
                forget_x87(self.asm);
            }
            _ => self.slow.push(self.asm.jmp()),
        }
    }

    fn load(&mut self, format: Option<X87Format>) {
        let value = slot_at(ARG + 1);
        self.room();
        self.need_on();
        match format {
            Some(X87Format::F32) => self.asm.fpu(0xd9, 0, value),
            Some(X87Format::F64) => self.asm.fpu(0xdd, 0, value),
            Some(X87Format::F80) => self.asm.fpu(0xdb, 5, value),
            Some(X87Format::I16) => self.asm.fpu(0xdf, 0, value),
            Some(X87Format::I32) => self.asm.fpu(0xdb, 0, value),
            _ => self.asm.fpu(0xdf, 5, value),
        }
        self.push();
        if let Some(X87Format::F32 | X87Format::F64) = format {
            self.read_status();
            self.merge(FLAGS, C1);
        } else {
            self.clear_c1();
        }
    }

    fn convert(&mut self, format: Option<X87Format>, truncates: bool) {
        let result = slot_at(RESULT);
        self.stack(RCX, None);
        self.need_on();
        self.fld(RCX);
        match (format, truncates) {
            (Some(X87Format::F32), _) => self.asm.fpu(0xd9, 3, result),
            (Some(X87Format::F64), _) => self.asm.fpu(0xdd, 3, result),
            (Some(X87Format::I16), false) => self.asm.fpu(0xdf, 3, result),
            (Some(X87Format::I32), false) => self.asm.fpu(0xdb, 3, result),
            (_, false) => self.asm.fpu(0xdf, 7, result),
            (Some(X87Format::I16), true) => self.asm.fpu(0xdf, 1, result),
            (Some(X87Format::I32), true) => self.asm.fpu(0xdb, 1, result),
            (_, true) => self.asm.fpu(0xdd, 1, result),
        }
        self.read_status();
        self.merge(FLAGS | C1, C1);
    }

    // --- registers

    /// The place of ST(0), or of the register that a byte of the form names: 16 times its physical number.
    /// Slow if it is empty. Changes EAX.
    fn stack(&mut self, to: Reg, byte: Option<usize>) {
        self.number(to, byte);
        self.asm
            .movzx(Size::B, RAX, Mem::base(RBP, self.cells.used));
        self.asm.bit(Bit::Test, RAX, to);
        self.slow.push(self.asm.jcc(CC_AE));
        self.asm.shift_imm(Shift::Shl, Size::D, to, 4);
    }

    /// Its physical number.
    fn number(&mut self, to: Reg, byte: Option<usize>) {
        self.asm.movzx(Size::B, to, Mem::base(RBP, self.cells.top));
        if let Some(byte) = byte {
            self.asm
                .movzx(Size::B, RAX, slot_at(ARG).after(byte as i32));
            self.asm.alu(Alu::Add, Size::D, to, RAX);
            self.asm.alu_imm(Alu::And, Size::D, to, 7);
        }
    }

    /// EDX: the physical number of the register that will be ST(0) after a push. Slow if it is not empty.
    fn room(&mut self) {
        self.asm.movzx(Size::B, RDX, Mem::base(RBP, self.cells.top));
        self.asm.alu_imm(Alu::Sub, Size::D, RDX, 1);
        self.asm.alu_imm(Alu::And, Size::D, RDX, 7);
        self.asm
            .movzx(Size::B, RAX, Mem::base(RBP, self.cells.used));
        self.asm.bit(Bit::Test, RAX, RDX);
        self.slow.push(self.asm.jcc(CC_B));
    }

    /// The host's ST(0) becomes the guest's, in the register EDX. Changes EAX and EDX.
    fn push(&mut self) {
        self.asm
            .mov_to(Size::B, Mem::base(RBP, self.cells.top), RDX);
        self.fill(RDX);
        self.fstp(RDX);
    }

    /// A physical register is no longer empty; its number becomes its place. Changes EAX.
    fn fill(&mut self, n: Reg) {
        let used = Mem::base(RBP, self.cells.used);
        self.asm.movzx(Size::B, RAX, used);
        self.asm.bit(Bit::Set, RAX, n);
        self.asm.mov_to(Size::B, used, RAX);
        self.asm.shift_imm(Shift::Shl, Size::D, n, 4);
    }

    /// Changes EAX and ECX.
    fn pop(&mut self, count: u8) {
        if count == 0 {
            return;
        }
        let [top, used] = [self.cells.top, self.cells.used].map(|at| Mem::base(RBP, at));
        self.asm.movzx(Size::B, RAX, top);
        self.asm.movzx(Size::B, RCX, used);
        for _ in 0..count {
            self.asm.bit(Bit::Clear, RCX, RAX);
            self.asm.alu_imm(Alu::Add, Size::D, RAX, 1);
            self.asm.alu_imm(Alu::And, Size::D, RAX, 7);
        }
        self.asm.mov_to(Size::B, top, RAX);
        self.asm.mov_to(Size::B, used, RCX);
    }

    fn fld(&mut self, place: Reg) {
        self.asm.fpu(0xdb, 5, self.cells.register_at(place));
    }

    fn fstp(&mut self, place: Reg) {
        self.asm.fpu(0xdb, 7, self.cells.register_at(place));
    }

    // --- control and status

    /// Sees to the guest's control word being the host's.
    fn need_on(&mut self) {
        self.asm
            .test_imm(Size::B, Mem::Code(cell::X87 as i32), OF_NOW);
        let over = self.asm.jcc(CC_NE);
        self.asm.call_to(self.on);
        self.asm.bind(over);
    }

    /// AX: the host's status word.
    fn read_status(&mut self) {
        self.code([0xdf, 0xe0]);
    }

    /// Clears bits of the guest's status word, then adds some of AX. Changes EAX and EDX.
    fn merge(&mut self, taken: i32, cleared: i32) {
        let status = Mem::base(RBP, self.cells.status);
        self.asm.alu_imm(Alu::And, Size::D, RAX, taken);
        self.asm.movzx(Size::W, RDX, status);
        if cleared != 0 {
            self.asm.alu_imm(Alu::And, Size::D, RDX, !cleared);
        }
        self.asm.alu(Alu::Or, Size::D, RDX, RAX);
        self.asm.mov_to(Size::W, status, RDX);
    }

    fn clear_c1(&mut self) {
        let high = Mem::base(RBP, self.cells.status + 1);
        self.asm.alu_imm(Alu::And, Size::B, high, !(C1 >> 8));
    }

    /// An instruction on the host's stack.
    fn code(&mut self, bytes: [u8; 2]) {
        bytes.into_iter().for_each(|byte| self.asm.byte(byte));
    }
}
