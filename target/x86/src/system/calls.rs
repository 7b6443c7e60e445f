//! The helpers that IR calls for system instructions: the whole contract between the decoder and
//! this module. Each body is a thin call into the file of its SDM chapter.
//!
//! Arguments are zero-extended integers, missing ones are 0. `next` is the offset of the next
//! instruction. `size` is an operand size in bytes (2, 4, 8). A helper raises its own privilege
//! and mode checks. Conventions of the result:
//!
//! - "leaves": always ends in a [`Trap`]; it has set RIP.
//! - "may leave": if mode (`decode::refresh` returned true), mapping or interruptibility changed, it
//!   sets RIP to `next` and ends in [`Trap::Leave`]; else `Ok`, and the unit goes on at `next` by itself.
//! - "value": `Ok(value)`, the IR does the rest.
//!
//! All faults come before any change.

use accel_core::{Effects, Exit, Trap};
use iced_x86::CpuidFeature;

use super::transfer::Far;
use super::{Shadow, control, exception, fast, feature, flags, io, msr, paging, segment, transfer};
use crate::Core;
use crate::helper::helpers;
use crate::regs::{self, index};
use crate::state::{SegmentIndex, vector};

const ALL: Effects = Effects::ALL;
/// Reads state outside the register file, may trap, leaves the register file alone.
const VALUE: Effects = Effects {
    reads_regs: true,
    writes_regs: false,
    traps: true,
};

helpers! { crate::helper::SYSTEM;
    // (segment, selector, next, new RSP): MOV Sreg and POP Sreg. Loads the segment, sets RSP to the
    // fourth argument (all 64 bits as they shall be), holds interrupts off after SS. May leave.
    LOAD_SEGMENT => load_segment, ALL;
    // (segment | register << 8 | size << 16, selector, offset, next): LDS to LGS. Loads the segment,
    // then the general register's low `size` bytes (4 zero-extends, 2 keeps the rest). May leave.
    LOAD_FAR_POINTER => load_far_pointer, ALL;
    // (selector, offset, size, next): JMP far, direct or by memory. Leaves.
    FAR_JUMP => far_jump, ALL;
    // (selector, offset, size, next): CALL far. Leaves.
    FAR_CALL => far_call, ALL;
    // (size, bytes to release, next): RETF. Leaves.
    FAR_RETURN => far_return, ALL;
    // (size, next): IRET. Leaves, or returns the PC.
    INTERRUPT_RETURN => interrupt_return, ALL;
    // (vector, next): INT n. Leaves.
    SOFTWARE_INTERRUPT => software_interrupt, ALL;
    // (next): INT3. Leaves.
    BREAKPOINT => breakpoint, ALL;
    // (next): INTO with OF set (the IR tests it). Leaves.
    OVERFLOW => overflow, ALL;
    // (next): INT1. Leaves.
    ICEBP => icebp, ALL;
    // (next): leaves.
    SYSCALL => syscall, ALL;
    // (size: 4 or 8, next): leaves.
    SYSRET => sysret, ALL;
    // (next): leaves.
    SYSENTER => sysenter, ALL;
    // (size: 4 or 8, next): leaves.
    SYSEXIT => sysexit, ALL;
    // (next): HLT. Leaves (Exit::Halted, RIP at next).
    HALT => halt, ALL;
    // (): CLI.
    CLI => cli, ALL;
    // (next): STI. May leave (always when IF was clear: shadow).
    STI => sti, ALL;
    // (next): STI that is not a unit's last. May leave.
    STI_INSIDE => sti_inside, ALL;
    // (): raises what PUSHF raises in virtual-8086 mode; called there only.
    PUSHF_CHECK => pushf_check, VALUE;
    // (value popped, size, next, new RSP): POPF. Sets RSP and the flags it may. May leave.
    POPF => popf, ALL;
    // (port, size 1/2/4): value. Called by INS too.
    IN => io_in, VALUE;
    // (port, size 1/2/4, value): called by OUTS too. The unit ends after OUT in any case.
    OUT => io_out, VALUE;
    // (n): MOV from CRn: value.
    READ_CR => read_cr, VALUE;
    // (n, value, next): MOV to CRn. May leave.
    WRITE_CR => write_cr, ALL;
    // (n): MOV from DRn: value.
    READ_DR => read_dr, VALUE;
    // (n, value, next): MOV to DRn. May leave.
    WRITE_DR => write_dr, ALL;
    // (): SMSW: value (all of CR0; the IR cuts it).
    SMSW => smsw, VALUE;
    // (value, next): LMSW. May leave.
    LMSW => lmsw, ALL;
    // (next): may leave.
    CLTS => clts, ALL;
    // (0 GDTR or 1 IDTR, 0 limit or 1 base): SGDT, SIDT: value.
    READ_TABLE => read_table, VALUE;
    // (0 GDTR or 1 IDTR, limit, base): LGDT, LIDT.
    LOAD_TABLE => load_table, ALL;
    // (0 LDTR or 1 TR): SLDT, STR: the selector.
    READ_SYSTEM_SEGMENT => read_system_segment, VALUE;
    // (0 LDTR or 1 TR, selector): LLDT, LTR.
    LOAD_SYSTEM_SEGMENT => load_system_segment, ALL;
    // (0 VERR or 1 VERW, selector): 1 if accessible.
    VERIFY_SEGMENT => verify_segment, VALUE;
    // (0 LAR or 1 LSL, selector): bit 63 set if valid, the value in bits 0..32.
    SEGMENT_PROPERTY => segment_property, VALUE;
    // (linear address, next): INVLPG. May leave.
    INVLPG => invlpg, ALL;
    // (type, low half of the descriptor (PCID), high half (address), next): INVPCID. May leave.
    INVPCID => invpcid, ALL;
    // (): INVD, WBINVD: checks privilege.
    WRITE_BACK => write_back, VALUE;
    // (next): RDMSR, by ECX into EDX:EAX. May leave.
    RDMSR => rdmsr, ALL;
    // (next): WRMSR, by ECX from EDX:EAX. May leave.
    WRMSR => wrmsr, ALL;
    // (): the time-stamp counter.
    RDTSC => rdtsc, VALUE;
    // (): as RDTSC.
    RDTSCP => rdtsc, VALUE;
    // (): what RDTSCP has in ECX.
    TSC_AUX => tsc_aux, VALUE;
    // (): by ECX into EDX:EAX.
    RDPMC => rdpmc, ALL;
    // (): by EAX, ECX.
    CPUID => cpuid, ALL;
    // (): by ECX into EDX:EAX.
    XGETBV => xgetbv, ALL;
    // (next): by ECX from EDX:EAX. May leave.
    XSETBV => xsetbv, ALL;
    // (next): exchanges the GS base (and its slot). May leave.
    SWAPGS => swapgs, ALL;
    // (linear address).
    MONITOR => monitor, ALL;
    // (next): MWAIT. Leaves (halted or, if it does not wait, by Trap::Leave).
    MWAIT => mwait, ALL;
    // (0 CLAC or 1 STAC, next): may leave.
    SET_AC => set_ac, ALL;
    // (4 FS or 5 GS): RDFSBASE, RDGSBASE: value.
    READ_BASE => read_base, VALUE;
    // (4 FS or 5 GS, value): WRFSBASE, WRGSBASE.
    WRITE_BASE => write_base, ALL;
    // (next): RSM. Leaves.
    RSM => rsm, ALL;
    // (0 VMCALL or 1 VMMCALL, next): may leave.
    HYPERCALL => hypercall, ALL;
    // (next): PAUSE in the guest: gives up the slice (Exit::Yield, RIP at next).
    PAUSE => pause, ALL;
}

type Args = [u64; 4];

/// KVM_ENOSYS and KVM_EPERM, negated: answers to hypercalls.
const NO_SUCH_CALL: i32 = -1000;
const NOT_PERMITTED: i32 = -1;

/// Whether the CPU model has a feature: undecodable otherwise.
pub(crate) fn has_feature(core: &Core, feature: CpuidFeature) -> bool {
    use CpuidFeature::*;
    let wanted = match feature {
        INTEL8086 | INTEL8086_ONLY | INTEL186 | INTEL286 | INTEL286_ONLY | INTEL386
        | INTEL386_ONLY | INTEL486 | CPUID | RDPMC | FPU | FPU287 | FPU387 | PAUSE
        | MULTIBYTENOP | SMM => return true,
        X64 => feature::LM,
        CMOV => feature::CMOV,
        CX8 => feature::CX8,
        CMPXCHG16B => feature::CX16,
        MSR => feature::MSR,
        TSC => feature::TSC,
        RDTSCP => feature::RDTSCP,
        // SYSCALL exists in 64-bit mode wherever long mode does.
        SYSCALL => feature::SYSCALL,
        SEP => feature::SEP,
        MMX => feature::MMX,
        SSE => feature::SSE,
        SSE2 => feature::SSE2,
        SSE3 => feature::PNI,
        SSSE3 => feature::SSSE3,
        SSE4_1 => feature::SSE41,
        SSE4_2 => feature::SSE42,
        FXSR => feature::FXSR,
        CLFSH => feature::CLFLUSH,
        POPCNT => feature::POPCNT,
        MOVBE => feature::MOVBE,
        MONITOR => feature::MONITOR,
        // A hint: executing it never needs the feature bit.
        PREFETCHW => return true,
        XSAVE => feature::XSAVE,
        FSGSBASE => feature::FSGSBASE,
        INVPCID => feature::INVPCID,
        SMAP => feature::SMAP,
        LZCNT => feature::ABM,
        BMI1 => feature::BMI1,
        BMI2 => feature::BMI2,
        ADX => feature::ADX,
        RDPID => feature::RDPID,
        // Of these only VMCALL and VMMCALL are known, which call the hypervisor that we are.
        VMX | SVM => feature::HYPERVISOR,
        _ => return false,
    };
    core.arch.system.model.has(wanted)
}

/// Bodies: arguments as listed above, each a call into the file of its chapter.
macro_rules! calls {
    ($($name:ident($core:ident $(, $arg:pat_param)*) $body:expr;)*) => { $(
        fn $name($core: &mut Core, args: Args) -> Result<u64, Trap> {
            #[allow(unused_variables)]
            let [$($arg,)* ..] = args;
            $body
        }
    )* };
}

calls! {
    load_segment(core, n, selector, next, sp) {
        let n = need_register(core, n)?;
        let changed = segment::load(core, n, selector as u16)?;
        core.regs.set(regs::gpr(index::RSP), sp);
        after_load(core, n, changed, next)
    };
    load_far_pointer(core, packed, selector, offset, next) {
        let n = need_register(core, packed & 0xff)?;
        let changed = segment::load(core, n, selector as u16)?;
        let slot = regs::gpr((packed >> 8 & 15) as usize);
        let value = match packed >> 16 & 15 {
            2 => core.regs.get(slot) & !0xffff | offset & 0xffff,
            4 => offset & 0xffff_ffff,
            _ => offset,
        };
        core.regs.set(slot, value);
        after_load(core, n, changed, next)
    };
    far_jump(core, selector, offset, size, next)
        transfer::far(core, Far::Jump, selector as u16, offset, bytes(size), next);
    far_call(core, selector, offset, size, next)
        transfer::far(core, Far::Call, selector as u16, offset, bytes(size), next);
    far_return(core, size, release) transfer::far_return(core, bytes(size), release);
    interrupt_return(core, size, next) transfer::iret(core, bytes(size), next);
    software_interrupt(core, vector, next) {
        if super::is_vm86(core) && flags::iopl(core) < 3 {
            return Err(super::gp(core, 0));
        }
        exception::software(core, vector as u8, next)
    };
    breakpoint(core, next) exception::software(core, vector::BP, next);
    overflow(core, next) exception::software(core, vector::OF, next);
    icebp(core, next) {
        // Breakpoints that MOV SS held off are in the same exception.
        super::debug::take_hits(core);
        super::raise(core, vector::DB, None);
        core.set_pc(next);
        Err(Trap::After)
    };
    syscall(core, next) fast::syscall(core, next);
    sysret(core, size) fast::sysret(core, bytes(size));
    sysenter(core) fast::sysenter(core);
    sysexit(core, size) fast::sysexit(core, bytes(size));
    halt(core, next) io::halt(core, next);
    cli(core) io::cli(core);
    sti(core, next) io::sti(core, next);
    sti_inside(core, next) io::sti_inside(core, next);
    pushf_check(core) io::pushf_check(core);
    popf(core, value, size, next, sp) io::popf(core, value, bytes(size), next, sp);
    read_cr(core, n) control::read_cr(core, n);
    write_cr(core, n, value, next) control::write_cr(core, n, value, next);
    read_dr(core, n) control::read_dr(core, n);
    write_dr(core, n, value, next) control::write_dr(core, n, value, next);
    smsw(core) control::smsw(core);
    lmsw(core, value, next) control::lmsw(core, value, next);
    clts(core, next) control::clts(core, next);
    read_table(core, idt, base) control::read_table(core, idt != 0, base != 0);
    load_table(core, idt, limit, base) control::load_table(core, idt != 0, limit, base);
    read_system_segment(core, tr) control::read_system_segment(core, tr != 0);
    load_system_segment(core, tr, selector)
        control::load_system_segment(core, tr != 0, selector as u16);
    verify_segment(core, write, selector)
        segment::verify(core, selector as u16, write != 0).map(u64::from);
    segment_property(core, limit, selector) {
        let found = if limit != 0 {
            segment::lsl(core, selector as u16)?
        } else {
            segment::lar(core, selector as u16)?
        };
        Ok(found.map_or(0, |value| value | 1 << 63))
    };
    invlpg(core, va) {
        super::need_cpl0(core)?;
        paging::invlpg(core, va);
        Ok(0)
    };
    invpcid(core, kind, pcid, va, next) {
        super::need_cpl0(core)?;
        paging::invpcid(core, kind, pcid, va)?;
        super::leave(core, next)
    };
    write_back(core) super::need_cpl0(core).map(|()| 0);
    rdmsr(core) msr::rdmsr(core);
    wrmsr(core, next) msr::wrmsr(core, next);
    rdtsc(core) msr::rdtsc(core);
    tsc_aux(core) Ok(core.arch.system.msr.tsc_aux & 0xffff_ffff);
    rdpmc(core) msr::rdpmc(core);
    cpuid(core) {
        let leaf = core.regs.get(regs::gpr(index::RAX)) as u32;
        let subleaf = core.regs.get(regs::gpr(index::RCX)) as u32;
        let [eax, ebx, ecx, edx] = super::reset::view(core).leaf(leaf, subleaf);
        for (n, value) in [(index::RAX, eax), (index::RBX, ebx), (index::RCX, ecx), (index::RDX, edx)] {
            core.regs.set(regs::gpr(n), u64::from(value));
        }
        Ok(0)
    };
    xgetbv(core) control::xgetbv(core);
    xsetbv(core, next) control::xsetbv(core, next);
    swapgs(core, next) fast::swapgs(core, next);
    monitor(core, _) {
        if core.arch.cpl != 0 {
            return Err(super::ud(core));
        }
        Ok(0)
    };
    mwait(core, next) {
        // Waking on stores is not modelled: a wait may always end early.
        if core.arch.cpl != 0 {
            return Err(super::ud(core));
        }
        Err(give_up_slice(core, next))
    };
    set_ac(core, on, next) fast::set_ac(core, on != 0, next);
    read_base(core, n) fast::read_base(core, n);
    write_base(core, n, base) fast::write_base(core, n, base);
    // No system management mode.
    rsm(core) Err(super::ud(core));
    hypercall(core) {
        if !core.arch.system.model.has(feature::HYPERVISOR) {
            return Err(super::ud(core));
        }
        // No call exists. The answer is KVM's: guests see the same with either accelerator.
        let error = if core.arch.cpl == 0 { NO_SUCH_CALL } else { NOT_PERMITTED };
        let wide = core.arch.is_64();
        let error = i64::from(error).cast_unsigned();
        core.regs.set(regs::gpr(index::RAX), if wide { error } else { error & 0xffff_ffff });
        Ok(0)
    };
    pause(core, next) {
        Err(give_up_slice(core, next))
    };
}

/// Ends MWAIT and PAUSE, which another CPU may need the time of.
fn give_up_slice(core: &mut Core, next: u64) -> Trap {
    core.set_pc(next);
    if exception::is_traced(core) {
        return Trap::Leave;
    }
    Trap::Exit(Exit::Yield)
}

pub(crate) fn io_in(core: &mut Core, args: Args) -> Result<u64, Trap> {
    let [port, size, ..] = args;
    io::input(core, port as u16, bytes(size))
}

pub(crate) fn io_out(core: &mut Core, args: Args) -> Result<u64, Trap> {
    let [port, size, value, _] = args;
    io::output(core, port as u16, bytes(size), value as u32)
}

fn need_register(core: &mut Core, n: u64) -> Result<SegmentIndex, Trap> {
    segment::register(n).ok_or_else(|| super::ud(core))
}

/// An operand size; only 1, 2, 4 and 8 exist.
fn bytes(size: u64) -> u8 {
    match size {
        1 => 1,
        2 => 2,
        4 => 4,
        _ => 8,
    }
}

/// After a segment register was loaded: SS holds interrupts off.
fn after_load(core: &mut Core, n: SegmentIndex, changed: bool, next: u64) -> Result<u64, Trap> {
    if n == SegmentIndex::Ss {
        exception::hold_off(core, Shadow::StackSwitch);
    } else if !changed {
        return Ok(0);
    }
    super::leave(core, next)
}
