//! The instruction being translated: operands, addresses and registers as IR.

use accel_ir::{Builder, Endian, HelperId, Mem, Ordering, Ty, Unit, Val};
use iced_x86::{Instruction, OpKind, Register};

use super::check;
use super::mode::Mode;
use crate::Core;
use crate::regs;
use crate::state::SegmentIndex;

/// Where an operand lives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// A general register or a part of one.
    Reg(Register),
    /// Memory at this linear address.
    Mem(Val),
}

/// Translates one instruction after the other into a unit.
pub(crate) struct Ctx<'a> {
    /// The unit.
    pub(crate) b: Builder,
    /// The CPU, for what belongs to its model.
    pub(crate) core: &'a Core,
    /// The mode the code runs in.
    pub(crate) mode: Mode,
    /// The instruction.
    pub(crate) insn: Instruction,
    /// Its offset in CS.
    pub(crate) pc: u64,
    /// Offset of the instruction after it.
    pub(crate) next: u64,
    /// Added to addresses that start from the stack pointer (POP to memory).
    sp_bias: u64,
    /// The unit goes on with the next instruction, unless this one ends it.
    pub(crate) goes_on: bool,
    /// What earlier instructions of the unit say of MMX registers.
    pub(crate) mmx: crate::float::KnownMmx,
}

/// The integer type of a register's size.
fn ty_of(register: Register) -> Ty {
    Ty::of_bytes(register.size() as u32)
}

fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::CH | Register::DH | Register::BH
    )
}

/// The number of a general register, whatever part of it is named.
pub(crate) fn number(register: Register) -> usize {
    register.full_register().number()
}

/// A segment register's number.
pub(crate) fn segment_number(register: Register) -> SegmentIndex {
    match register {
        Register::ES => SegmentIndex::Es,
        Register::CS => SegmentIndex::Cs,
        Register::SS => SegmentIndex::Ss,
        Register::FS => SegmentIndex::Fs,
        Register::GS => SegmentIndex::Gs,
        _ => SegmentIndex::Ds,
    }
}

impl<'a> Ctx<'a> {
    /// An empty unit, in the memory of another.
    pub(crate) fn new(core: &'a Core, mode: Mode, spare: Unit) -> Self {
        Ctx {
            b: Builder::reusing(spare),
            core,
            mode,
            insn: Instruction::default(),
            pc: 0,
            next: 0,
            sp_bias: 0,
            goes_on: false,
            mmx: Default::default(),
        }
    }

    /// Cuts an instruction offset to what the mode can name.
    pub(crate) fn wrap(mode: Mode, pc: u64) -> u64 {
        match mode.bitness() {
            64 => pc,
            32 => pc & 0xffff_ffff,
            _ => pc & 0xffff,
        }
    }

    /// Starts an instruction.
    pub(crate) fn start(&mut self, insn: Instruction, pc: u64) {
        self.pc = pc;
        self.next = Self::wrap(self.mode, pc.wrapping_add(insn.len() as u64));
        self.insn = insn;
        self.sp_bias = 0;
        self.b.insn(pc);
        if self.mode.has_code_limit() {
            let last = pc.wrapping_add(insn.len() as u64).wrapping_sub(1);
            let last = self.const64(last);
            self.b.call_void(check::CODE_LIMIT, &[last]);
        }
    }

    // --- constants and helpers

    /// A 64-bit constant.
    pub(crate) fn const64(&mut self, value: u64) -> Val {
        self.b.iconst(Ty::I64, value)
    }

    /// The offset of the next instruction.
    pub(crate) fn next_pc(&mut self) -> Val {
        self.const64(self.next)
    }

    /// Calls a helper with constants.
    pub(crate) fn call_consts(&mut self, helper: HelperId, args: &[u64]) -> Val {
        let args: Vec<Val> = args.iter().map(|a| self.const64(*a)).collect();
        self.b.call(helper, &args)
    }

    /// Raises an exception.
    pub(crate) fn raise(&mut self, vector: u8, error: Option<u32>) {
        let vector = self.const64(vector.into());
        let error = self.const64(error.map_or(u64::MAX, u64::from));
        self.b.call_void(check::RAISE, &[vector, error]);
    }

    /// Raises an exception as the last thing of the unit.
    pub(crate) fn raise_and_end(&mut self, vector: u8, error: Option<u32>) {
        self.raise(vector, error);
        self.b.leave();
    }

    /// Whether a condition on the flags holds, as an integer of `ty`.
    pub(crate) fn carry(&mut self, ty: Ty) -> Val {
        let cf = self.b.flags_use(accel_ir::Cond::B);
        self.b.zext(cf, ty)
    }

    // --- registers

    /// The low bits of general register `n`.
    pub(crate) fn reg(&mut self, n: usize, ty: Ty) -> Val {
        self.b.get_low(regs::gpr(n), ty)
    }

    /// Writes the low bits of general register `n` as an instruction's destination: 32 bits clear
    /// the upper half, narrower ones keep the rest.
    pub(crate) fn set_reg(&mut self, n: usize, v: Val) {
        let v = match self.b.ty(v) {
            ty @ (Ty::I8 | Ty::I16) => {
                let old = self.b.get(regs::gpr(n));
                self.b.insert(old, v, 0, ty.bits() as u8)
            }
            _ => v,
        };
        self.b.set(regs::gpr(n), v);
    }

    /// A general register, of its own type.
    pub(crate) fn gpr(&mut self, register: Register) -> Val {
        let slot = regs::gpr(number(register));
        if is_high_byte(register) {
            let all = self.b.get(slot);
            return self.b.extract(all, 8, 8, Ty::I8);
        }
        self.b.get_low(slot, ty_of(register))
    }

    /// Writes a general register.
    pub(crate) fn set_gpr(&mut self, register: Register, v: Val) {
        if is_high_byte(register) {
            let slot = regs::gpr(number(register));
            let old = self.b.get(slot);
            let new = self.b.insert(old, v, 8, 8);
            self.b.set(slot, new);
            return;
        }
        let v = self.b.zext(v, ty_of(register));
        self.set_reg(number(register), v);
    }

    // --- addresses

    /// Size of the memory operand in bytes.
    pub(crate) fn memory_bytes(&self) -> u32 {
        self.insn.memory_size().size() as u32
    }

    /// Type of the addresses the memory operand is computed with.
    pub(crate) fn address_ty(&self) -> Ty {
        let (base, index) = (self.insn.memory_base(), self.insn.memory_index());
        if base != Register::None {
            ty_of(base)
        } else if index != Register::None {
            ty_of(index)
        } else {
            match self.insn.memory_displ_size() {
                2 => Ty::I16,
                4 => Ty::I32,
                _ => Ty::I64,
            }
        }
    }

    /// Offset of the memory operand in its segment, wrapped to the address size; an i64.
    pub(crate) fn offset(&mut self) -> Val {
        if self.insn.is_ip_rel_memory_operand() {
            let address = self.insn.ip_rel_memory_address();
            return self.const64(address);
        }
        let ty = self.address_ty();
        let (base, index) = (self.insn.memory_base(), self.insn.memory_index());
        let mut disp = self.insn.memory_displacement64();
        let mut sum = None;
        if base != Register::None {
            if number(base) == regs::index::RSP {
                disp = disp.wrapping_add(self.sp_bias);
            }
            sum = Some(self.gpr(base));
        }
        if index != Register::None {
            let v = self.gpr(index);
            let v = self.b.zext(v, ty);
            let v = self
                .b
                .shl_const(v, self.insn.memory_index_scale().trailing_zeros().into());
            sum = Some(match sum {
                Some(base) => self.b.add(base, v),
                None => v,
            });
        }
        let disp = disp & ty.mask();
        let sum = match sum {
            Some(v) => self.b.add_const(v, disp),
            None => self.b.iconst(ty, disp),
        };
        self.b.zext(sum, Ty::I64)
    }

    /// The segment of the memory operand.
    pub(crate) fn memory_segment(&self) -> SegmentIndex {
        segment_number(self.insn.memory_segment())
    }

    /// The linear address of `size` bytes at an offset in a segment, checked for the access where
    /// segments can forbid it.
    pub(crate) fn linear(
        &mut self,
        segment: SegmentIndex,
        offset: Val,
        size: u32,
        write: bool,
    ) -> Val {
        let special = matches!(segment, SegmentIndex::Fs | SegmentIndex::Gs);
        if self.mode.is_64() {
            if !special {
                return offset;
            }
            let base = self.b.get(regs::base(segment as usize));
            return self.b.add(base, offset);
        }
        let code = segment == SegmentIndex::Cs && write && self.mode.has_descriptors();
        if special || code || !self.mode.is_flat() {
            let what = segment as u64 | u64::from(write) << 8 | u64::from(size) << 16;
            let what = self.const64(what);
            self.b.call_void(check::SEGMENT_LIMIT, &[what, offset]);
        }
        if !special && self.mode.zero_bases() {
            return offset;
        }
        let base = self.b.get(regs::base(segment as usize));
        let sum = self.b.add(base, offset);
        self.wrap_linear(sum)
    }

    /// Cuts a linear address to 32 bits outside 64-bit mode.
    pub(crate) fn wrap_linear(&mut self, address: Val) -> Val {
        if self.mode.is_64() {
            return address;
        }
        let low = self.b.zext(address, Ty::I32);
        self.b.zext(low, Ty::I64)
    }

    /// The linear address of the memory operand, `size` bytes of which are accessed.
    pub(crate) fn address(&mut self, size: u32, write: bool) -> Val {
        let offset = self.offset();
        self.linear(self.memory_segment(), offset, size, write)
    }

    /// As [`address`](Self::address) for an operand of the whole memory size.
    pub(crate) fn operand_address(&mut self, write: bool) -> Val {
        self.address(self.memory_bytes(), write)
    }

    /// An address some bytes further on.
    pub(crate) fn address_plus(&mut self, address: Val, bytes: u64) -> Val {
        let sum = self.b.add_const(address, bytes);
        if bytes == 0 {
            sum
        } else {
            self.wrap_linear(sum)
        }
    }

    // --- memory

    /// A plain access: loads acquire and stores release, which is x86's order.
    pub(crate) fn mem(&self, ty: Ty, ordering: Ordering) -> Mem {
        Mem {
            ty,
            endian: Endian::Little,
            aligned: false,
            ordering,
            ctx: self.mode.data_ctx(),
        }
    }

    /// Loads from a linear address.
    pub(crate) fn load(&mut self, address: Val, ty: Ty) -> Val {
        let mem = self.mem(ty, Ordering::Acquire);
        self.b.load(address, mem)
    }

    /// Stores to a linear address.
    pub(crate) fn store(&mut self, address: Val, v: Val) {
        let mem = self.mem(self.b.ty(v), Ordering::Release);
        self.b.store(address, v, mem);
    }

    /// Faults as a store would.
    pub(crate) fn probe(&mut self, address: Val, ty: Ty) {
        let mem = self.mem(ty, Ordering::Release);
        self.b.probe(address, mem);
    }

    // --- operands

    /// Whether operand `i` is a register.
    pub(crate) fn is_register(&self, i: u32) -> bool {
        self.insn.op_kind(i) == OpKind::Register
    }

    /// Whether operand `i` is in memory.
    pub(crate) fn is_memory(&self, i: u32) -> bool {
        self.insn.op_kind(i) == OpKind::Memory
    }

    /// Type of operand `i`: a general register or integer memory.
    pub(crate) fn op_ty(&self, i: u32) -> Ty {
        match self.insn.op_kind(i) {
            OpKind::Register => ty_of(self.insn.op_register(i)),
            OpKind::Memory => Ty::of_bytes(self.memory_bytes()),
            OpKind::Immediate16 | OpKind::Immediate8to16 => Ty::I16,
            OpKind::Immediate32 | OpKind::Immediate8to32 => Ty::I32,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => Ty::I64,
            _ => Ty::I8,
        }
    }

    /// The value of immediate operand `i`, sign-extended as the encoding says.
    pub(crate) fn immediate(&self, i: u32) -> u64 {
        self.insn.try_immediate(i).unwrap_or(0)
    }

    /// The value of operand `i`.
    pub(crate) fn operand(&mut self, i: u32) -> Val {
        let ty = self.op_ty(i);
        match self.insn.op_kind(i) {
            OpKind::Register => self.gpr(self.insn.op_register(i)),
            OpKind::Memory => {
                let address = self.operand_address(false);
                self.load(address, ty)
            }
            _ => self.b.iconst(ty, self.immediate(i)),
        }
    }

    /// The value of a source operand that takes its type from the destination (immediates).
    pub(crate) fn operand_as(&mut self, i: u32, ty: Ty) -> Val {
        match self.insn.op_kind(i) {
            OpKind::Register | OpKind::Memory => self.operand(i),
            _ => self.b.iconst(ty, self.immediate(i)),
        }
    }

    /// Where operand `i` lives, for an instruction that writes it.
    pub(crate) fn place(&mut self, i: u32) -> Place {
        if self.is_memory(i) {
            Place::Mem(self.operand_address(true))
        } else {
            Place::Reg(self.insn.op_register(i))
        }
    }

    /// Reads a place.
    pub(crate) fn read(&mut self, place: Place, ty: Ty) -> Val {
        match place {
            Place::Reg(register) => self.gpr(register),
            Place::Mem(address) => self.load(address, ty),
        }
    }

    /// Writes a place.
    pub(crate) fn write(&mut self, place: Place, v: Val) {
        match place {
            Place::Reg(register) => self.set_gpr(register, v),
            Place::Mem(address) => self.store(address, v),
        }
    }

    /// Writes operand `i`.
    pub(crate) fn set_operand(&mut self, i: u32, v: Val) {
        let place = self.place(i);
        self.write(place, v);
    }

    // --- stack

    /// Type of the stack pointer.
    pub(crate) fn stack_ty(&self) -> Ty {
        Ty::of_bytes(self.mode.stack_bytes())
    }

    /// The stack pointer.
    pub(crate) fn sp(&mut self) -> Val {
        self.reg(regs::index::RSP, self.stack_ty())
    }

    /// RSP as it is after the stack pointer becomes `sp`.
    pub(crate) fn rsp_with(&mut self, sp: Val) -> Val {
        match self.b.ty(sp) {
            Ty::I16 => {
                let old = self.b.get(regs::gpr(regs::index::RSP));
                self.b.insert(old, sp, 0, 16)
            }
            _ => self.b.zext(sp, Ty::I64),
        }
    }

    /// Sets the stack pointer.
    pub(crate) fn set_sp(&mut self, sp: Val) {
        let rsp = self.rsp_with(sp);
        self.b.set(regs::gpr(regs::index::RSP), rsp);
    }

    /// The linear address of `size` bytes at an offset in the stack segment.
    pub(crate) fn stack_address(&mut self, sp: Val, size: u32, write: bool) -> Val {
        let offset = self.b.zext(sp, Ty::I64);
        self.linear(SegmentIndex::Ss, offset, size, write)
    }

    /// Pushes a value. Nothing may fault after this.
    pub(crate) fn push(&mut self, v: Val) {
        let bytes = u32::from(self.b.ty(v).bytes());
        let sp = self.sp();
        let sp = self.b.add_const(sp, u64::from(bytes).wrapping_neg());
        let address = self.stack_address(sp, bytes, true);
        self.store(address, v);
        self.set_sp(sp);
    }

    /// The value on top of the stack, and the stack pointer after popping `release` bytes.
    pub(crate) fn peek(&mut self, ty: Ty, release: u64) -> (Val, Val) {
        let sp = self.sp();
        let address = self.stack_address(sp, ty.bytes().into(), false);
        let v = self.load(address, ty);
        let sp = self.b.add_const(sp, release);
        (v, sp)
    }

    /// Makes addresses that start from the stack pointer see it `bytes` higher.
    pub(crate) fn bias_sp(&mut self, bytes: u64) {
        self.sp_bias = bytes;
    }

    // --- flags

    /// Defines the flags by their bits.
    pub(crate) fn set_flags(&mut self, bits: Val) {
        self.b.flags_def(accel_ir::FlagKind::Raw, bits, bits, None);
    }

    /// Replaces CF (bit 0 of an i8) and keeps the others.
    pub(crate) fn set_carry(&mut self, cf: Val) {
        let old = self.b.flags_get();
        let new = self.b.insert(old, cf, 0, 1);
        self.set_flags(new);
    }
}
