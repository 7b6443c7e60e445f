//! System instructions, far transfers and segment loads: operands are evaluated here, the rest is
//! `system`'s (SDM vol. 1, 5.20).

use accel_ir::{Binary, HelperId, Ty, Val};
use iced_x86::{Code, Mnemonic, OpKind, Register};

use super::context::{Ctx, Place, number, segment_number};
use super::data::set_zero;
use super::stack::bytes;
use crate::regs;
use crate::regs::index::{RAX, RCX, RDX, RSP};
use crate::state::{SegmentIndex, vector};
use crate::system::calls;

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    transfer(c) || segments(c) || tables(c) || registers(c) || other(c)
}

/// Calls a helper that leaves, with these arguments.
fn leave(c: &mut Ctx<'_>, helper: HelperId, args: &[Val]) {
    c.b.call_void(helper, args);
    c.b.leave();
}

/// Calls a helper that may leave, and ends the unit at the next instruction: what it changed may
/// matter to decoding.
fn may_leave(c: &mut Ctx<'_>, helper: HelperId, args: &[Val]) {
    c.b.call_void(helper, args);
    c.b.goto(c.next);
}

/// Far transfers and interrupts.
fn transfer(c: &mut Ctx<'_>) -> bool {
    let next = c.next;
    match c.insn.mnemonic() {
        Mnemonic::Jmp | Mnemonic::Call => {
            let helper = if c.insn.mnemonic() == Mnemonic::Jmp {
                calls::FAR_JUMP
            } else {
                calls::FAR_CALL
            };
            let (selector, offset, size) = far_target(c);
            let size = c.const64(size);
            let next = c.next_pc();
            leave(c, helper, &[selector, offset, size, next]);
        }
        Mnemonic::Retf => {
            let size = match c.insn.code() {
                Code::Retfw | Code::Retfw_imm16 => 2,
                Code::Retfd | Code::Retfd_imm16 => 4,
                _ => 8,
            };
            let release = match c.insn.op_count() {
                0 => 0,
                _ => c.immediate(0) & 0xffff,
            };
            c.call_consts(calls::FAR_RETURN, &[size, release, next]);
            c.b.leave();
        }
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            let size = match c.insn.mnemonic() {
                Mnemonic::Iret => 2,
                Mnemonic::Iretd => 4,
                _ => 8,
            };
            let to = c.call_consts(calls::INTERRUPT_RETURN, &[size, next]);
            c.b.goto_val(to);
        }
        Mnemonic::Int => {
            let number = c.immediate(0) & 0xff;
            c.call_consts(calls::SOFTWARE_INTERRUPT, &[number, next]);
            c.b.leave();
        }
        Mnemonic::Int3 => only_next(c, calls::BREAKPOINT),
        Mnemonic::Int1 => only_next(c, calls::ICEBP),
        Mnemonic::Syscall => only_next(c, calls::SYSCALL),
        Mnemonic::Sysenter => only_next(c, calls::SYSENTER),
        Mnemonic::Sysret | Mnemonic::Sysretq | Mnemonic::Sysexit | Mnemonic::Sysexitq => {
            let size = match c.insn.code() {
                Code::Sysretq | Code::Sysexitq => 8,
                _ => 4,
            };
            let helper = match c.insn.mnemonic() {
                Mnemonic::Sysret | Mnemonic::Sysretq => calls::SYSRET,
                _ => calls::SYSEXIT,
            };
            c.call_consts(helper, &[size, next]);
            c.b.leave();
        }
        Mnemonic::Hlt => only_next(c, calls::HALT),
        Mnemonic::Rsm => only_next(c, calls::RSM),
        Mnemonic::Mwait => only_next(c, calls::MWAIT),
        Mnemonic::Pause => only_next(c, calls::PAUSE),
        _ => return false,
    }
    true
}

/// A helper that leaves and is given the next instruction only.
fn only_next(c: &mut Ctx<'_>, helper: HelperId) {
    let next = c.next_pc();
    leave(c, helper, &[next]);
}

/// A helper that may leave and is given the next instruction only.
/// A counter's value into EDX:EAX.
fn time_stamp(c: &mut Ctx<'_>, helper: HelperId) {
    let now = c.b.call(helper, &[]);
    let low = c.const64(u32::MAX.into());
    let low = c.b.binary(Binary::And, now, low);
    let half = c.b.iconst(Ty::I8, 32);
    let high = c.b.binary(Binary::Shr, now, half);
    c.b.set(regs::gpr(RAX), low);
    c.b.set(regs::gpr(RDX), high);
}

fn next_may_leave(c: &mut Ctx<'_>, helper: HelperId) {
    let next = c.next_pc();
    may_leave(c, helper, &[next]);
}

/// Selector, offset and operand size of a far pointer.
fn far_target(c: &mut Ctx<'_>) -> (Val, Val, u64) {
    match c.insn.op0_kind() {
        OpKind::FarBranch16 => {
            let selector = c.const64(c.insn.far_branch_selector().into());
            let offset = c.const64(c.insn.far_branch16().into());
            (selector, offset, 2)
        }
        OpKind::FarBranch32 => {
            let selector = c.const64(c.insn.far_branch_selector().into());
            let offset = c.const64(c.insn.far_branch32().into());
            (selector, offset, 4)
        }
        _ => far_pointer(c),
    }
}

/// A far pointer in memory: the offset, then the selector.
fn far_pointer(c: &mut Ctx<'_>) -> (Val, Val, u64) {
    let size = u64::from(c.memory_bytes().saturating_sub(2));
    let address = c.operand_address(false);
    let offset = c.load(address, Ty::of_bytes(size as u32));
    let offset = c.b.zext(offset, Ty::I64);
    let address = c.address_plus(address, size);
    let selector = c.load(address, Ty::I16);
    let selector = c.b.zext(selector, Ty::I64);
    (selector, offset, size)
}

/// Loads of segment registers.
fn segments(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::Mov if c.is_register(0) && c.insn.op0_register().is_segment_register() => {
            let register = c.insn.op0_register();
            if register == Register::CS {
                c.raise_and_end(vector::UD, None);
                return true;
            }
            // Wider registers: the selector is their low half.
            let v = if c.is_memory(1) {
                let address = c.address(2, false);
                c.load(address, Ty::I16)
            } else {
                let v = c.operand(1);
                c.b.zext(v, Ty::I16)
            };
            let rsp = c.reg(RSP, Ty::I64);
            load(c, register, v, rsp);
        }
        Mnemonic::Pop if c.is_register(0) && c.insn.op0_register().is_segment_register() => {
            let size = bytes(c);
            let (v, sp) = c.peek(Ty::of_bytes(size), size.into());
            let v = c.b.zext(v, Ty::I16);
            let rsp = c.rsp_with(sp);
            load(c, c.insn.op0_register(), v, rsp);
        }
        Mnemonic::Les => pointer(c, SegmentIndex::Es),
        Mnemonic::Lss => pointer(c, SegmentIndex::Ss),
        Mnemonic::Lds => pointer(c, SegmentIndex::Ds),
        Mnemonic::Lfs => pointer(c, SegmentIndex::Fs),
        Mnemonic::Lgs => pointer(c, SegmentIndex::Gs),
        _ => return false,
    }
    true
}

fn load(c: &mut Ctx<'_>, register: Register, selector: Val, rsp: Val) {
    let segment = c.const64(segment_number(register) as u64);
    let next = c.next_pc();
    may_leave(c, calls::LOAD_SEGMENT, &[segment, selector, next, rsp]);
}

fn pointer(c: &mut Ctx<'_>, segment: SegmentIndex) {
    let register = number(c.insn.op0_register()) as u64;
    let (selector, offset, size) = far_pointer(c);
    let what = c.const64(segment as u64 | register << 8 | size << 16);
    let next = c.next_pc();
    may_leave(c, calls::LOAD_FAR_POINTER, &[what, selector, offset, next]);
}

/// A value of the low 16 bits of the first operand.
fn word(c: &mut Ctx<'_>) -> Val {
    operand_word(c, 0)
}

fn operand_word(c: &mut Ctx<'_>, i: u32) -> Val {
    let v = if c.is_memory(i) {
        let address = c.address(2, false);
        c.load(address, Ty::I16)
    } else {
        let v = c.operand(i);
        c.b.zext(v, Ty::I16)
    };
    c.b.zext(v, Ty::I64)
}

/// Stores 16 bits to memory, or a value to a register of any size.
fn store_word(c: &mut Ctx<'_>, v: Val) {
    if c.is_memory(0) {
        let address = c.address(2, true);
        let v = c.b.zext(v, Ty::I16);
        c.store(address, v);
    } else {
        c.write(Place::Reg(c.insn.op0_register()), v);
    }
}

/// Descriptor tables and what looks into them.
fn tables(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::Sgdt => store_table(c, 0),
        Mnemonic::Sidt => store_table(c, 1),
        Mnemonic::Lgdt => load_table(c, 0),
        Mnemonic::Lidt => load_table(c, 1),
        Mnemonic::Sldt | Mnemonic::Str => {
            let which = u64::from(c.insn.mnemonic() == Mnemonic::Str);
            let v = c.call_consts(calls::READ_SYSTEM_SEGMENT, &[which]);
            store_word(c, v);
        }
        Mnemonic::Lldt | Mnemonic::Ltr => {
            let which = u64::from(c.insn.mnemonic() == Mnemonic::Ltr);
            let which = c.const64(which);
            let v = word(c);
            c.b.call_void(calls::LOAD_SYSTEM_SEGMENT, &[which, v]);
        }
        Mnemonic::Verr | Mnemonic::Verw => {
            let which = u64::from(c.insn.mnemonic() == Mnemonic::Verw);
            let which = c.const64(which);
            let v = word(c);
            let zf = c.b.call(calls::VERIFY_SEGMENT, &[which, v]);
            set_zero(c, zf);
        }
        Mnemonic::Lar | Mnemonic::Lsl => {
            let which = u64::from(c.insn.mnemonic() == Mnemonic::Lsl);
            let which = c.const64(which);
            let v = operand_word(c, 1);
            let found = c.b.call(calls::SEGMENT_PROPERTY, &[which, v]);
            let ty = c.op_ty(0);
            let valid = c.b.extract(found, 63, 1, Ty::I8);
            let value = c.b.extract(found, 0, 32, Ty::I64);
            set_zero(c, valid);
            // The whole destination stays when the selector is not valid.
            let register = c.insn.op0_register();
            let slot = crate::regs::gpr(number(register));
            let old = c.b.get(slot);
            let new = match ty {
                Ty::I16 => c.b.insert(old, value, 0, 16),
                _ => value,
            };
            let v = c.b.select(valid, new, old);
            c.b.set(slot, v);
        }
        _ => return false,
    }
    true
}

/// Type of a table's base in memory.
fn base_ty(c: &Ctx<'_>) -> Ty {
    if c.mode.is_64() { Ty::I64 } else { Ty::I32 }
}

fn store_table(c: &mut Ctx<'_>, which: u64) {
    let limit = c.call_consts(calls::READ_TABLE, &[which, 0]);
    let base = c.call_consts(calls::READ_TABLE, &[which, 1]);
    let ty = base_ty(c);
    let address = c.address(u32::from(ty.bytes()).wrapping_add(2), true);
    let second = c.address_plus(address, 2);
    let limit = c.b.zext(limit, Ty::I16);
    let base = c.b.zext(base, ty);
    c.probe(second, ty);
    c.store(address, limit);
    c.store(second, base);
}

fn load_table(c: &mut Ctx<'_>, which: u64) {
    let ty = base_ty(c);
    let address = c.address(u32::from(ty.bytes()).wrapping_add(2), false);
    let limit = c.load(address, Ty::I16);
    let second = c.address_plus(address, 2);
    let base = c.load(second, ty);
    let mut base = c.b.zext(base, Ty::I64);
    // With 16-bit operands the base has 24 bits.
    if matches!(c.insn.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
        base = c.b.extract(base, 0, 24, Ty::I64);
    }
    let which = c.const64(which);
    let limit = c.b.zext(limit, Ty::I64);
    c.b.call_void(calls::LOAD_TABLE, &[which, limit, base]);
}

/// Control and debug registers, MSRs, bases.
fn registers(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::Mov => return mov(c),
        Mnemonic::Smsw => {
            let v = c.b.call(calls::SMSW, &[]);
            store_word(c, v);
        }
        Mnemonic::Lmsw => {
            let v = word(c);
            let next = c.next_pc();
            may_leave(c, calls::LMSW, &[v, next]);
        }
        Mnemonic::Clts => next_may_leave(c, calls::CLTS),
        Mnemonic::Rdmsr => next_may_leave(c, calls::RDMSR),
        Mnemonic::Wrmsr => next_may_leave(c, calls::WRMSR),
        Mnemonic::Xsetbv => next_may_leave(c, calls::XSETBV),
        Mnemonic::Swapgs => next_may_leave(c, calls::SWAPGS),
        Mnemonic::Cli => c.b.call_void(calls::CLI, &[]),
        Mnemonic::Sti if c.goes_on => {
            // The unit goes on: what STI holds off is looked at after the next instruction.
            let next = c.next_pc();
            c.b.call_void(calls::STI_INSIDE, &[next]);
        }
        Mnemonic::Sti => next_may_leave(c, calls::STI),
        Mnemonic::Clac | Mnemonic::Stac => {
            let set = u64::from(c.insn.mnemonic() == Mnemonic::Stac);
            c.call_consts(calls::SET_AC, &[set, c.next]);
            c.b.goto(c.next);
        }
        Mnemonic::Rdtsc => time_stamp(c, calls::RDTSC),
        Mnemonic::Rdtscp => {
            time_stamp(c, calls::RDTSCP);
            let aux = c.b.call(calls::TSC_AUX, &[]);
            c.b.set(regs::gpr(RCX), aux);
        }
        Mnemonic::Rdpmc => c.b.call_void(calls::RDPMC, &[]),
        Mnemonic::Cpuid => c.b.call_void(calls::CPUID, &[]),
        Mnemonic::Xgetbv => c.b.call_void(calls::XGETBV, &[]),
        Mnemonic::Rdfsbase | Mnemonic::Rdgsbase => {
            let segment = base_segment(c.insn.mnemonic() == Mnemonic::Rdfsbase);
            let v = c.call_consts(calls::READ_BASE, &[segment]);
            c.write(Place::Reg(c.insn.op0_register()), v);
        }
        Mnemonic::Wrfsbase | Mnemonic::Wrgsbase => {
            let segment = base_segment(c.insn.mnemonic() == Mnemonic::Wrfsbase);
            let segment = c.const64(segment);
            let v = c.operand(0);
            let v = c.b.zext(v, Ty::I64);
            c.b.call_void(calls::WRITE_BASE, &[segment, v]);
        }
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => {
            let size = bytes(c);
            let (v, sp) = c.peek(Ty::of_bytes(size), size.into());
            let v = c.b.zext(v, Ty::I64);
            let rsp = c.rsp_with(sp);
            let size = c.const64(size.into());
            let next = c.next_pc();
            may_leave(c, calls::POPF, &[v, size, next, rsp]);
        }
        _ => return false,
    }
    true
}

fn base_segment(fs: bool) -> u64 {
    let segment = if fs {
        SegmentIndex::Fs
    } else {
        SegmentIndex::Gs
    };
    segment as u64
}

/// MOV from and to control and debug registers.
fn mov(c: &mut Ctx<'_>) -> bool {
    let (to, from) = (c.insn.op0_register(), c.insn.op1_register());
    if from.is_cr() || from.is_dr() {
        let helper = if from.is_cr() {
            calls::READ_CR
        } else {
            calls::READ_DR
        };
        let v = c.call_consts(helper, &[from.number() as u64]);
        c.write(Place::Reg(to), v);
        return true;
    }
    if to.is_cr() || to.is_dr() {
        let helper = if to.is_cr() {
            calls::WRITE_CR
        } else {
            calls::WRITE_DR
        };
        let n = c.const64(to.number() as u64);
        let v = c.operand(1);
        let v = c.b.zext(v, Ty::I64);
        let next = c.next_pc();
        may_leave(c, helper, &[n, v, next]);
        return true;
    }
    false
}

/// Ports, caches and monitors.
fn other(c: &mut Ctx<'_>) -> bool {
    match c.insn.mnemonic() {
        Mnemonic::In => {
            let port = port(c, 1);
            let ty = c.op_ty(0);
            let size = c.const64(ty.bytes().into());
            let v = c.b.call(calls::IN, &[port, size]);
            c.write(Place::Reg(c.insn.op0_register()), v);
            c.b.goto(c.next);
        }
        Mnemonic::Out => {
            let port = port(c, 0);
            let v = c.operand(1);
            let size = c.const64(c.op_ty(1).bytes().into());
            let v = c.b.zext(v, Ty::I64);
            c.b.call_void(calls::OUT, &[port, size, v]);
            c.b.goto(c.next);
        }
        Mnemonic::Invlpg => {
            let address = c.address(1, false);
            let next = c.next_pc();
            may_leave(c, calls::INVLPG, &[address, next]);
        }
        Mnemonic::Invpcid => {
            let kind = c.operand(0);
            let kind = c.b.zext(kind, Ty::I64);
            let address = c.operand_address(false);
            let low = c.load(address, Ty::I64);
            let address = c.address_plus(address, 8);
            let high = c.load(address, Ty::I64);
            let next = c.next_pc();
            may_leave(c, calls::INVPCID, &[kind, low, high, next]);
        }
        Mnemonic::Invd | Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => {
            c.b.call_void(calls::WRITE_BACK, &[]);
        }
        Mnemonic::Monitor => {
            let ty = match c.insn.code() {
                Code::Monitorw => Ty::I16,
                Code::Monitord => Ty::I32,
                _ => Ty::I64,
            };
            let offset = c.reg(RAX, ty);
            let offset = c.b.zext(offset, Ty::I64);
            let segment = match c.insn.segment_prefix() {
                Register::None => Register::DS,
                register => register,
            };
            let address = c.linear(segment_number(segment), offset, 1, false);
            c.b.call_void(calls::MONITOR, &[address]);
        }
        Mnemonic::Vmcall | Mnemonic::Vmmcall => {
            let amd = u64::from(c.insn.mnemonic() == Mnemonic::Vmmcall);
            c.call_consts(calls::HYPERCALL, &[amd, c.next]);
            c.b.goto(c.next);
        }
        _ => return false,
    }
    true
}

/// The port that operand `i` names.
fn port(c: &mut Ctx<'_>, i: u32) -> Val {
    if c.is_register(i) {
        let v = c.operand(i);
        return c.b.zext(v, Ty::I64);
    }
    c.const64(c.immediate(i) & 0xff)
}
