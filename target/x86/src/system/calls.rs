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

use accel_core::{Effects, Trap};
use iced_x86::CpuidFeature;

use crate::Core;
use crate::helper::helpers;
use crate::state::vector;

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
    // (size, next): IRET. Leaves.
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
    // (next): CLI. May leave.
    CLI => cli, ALL;
    // (next): STI. May leave (always when IF was clear: shadow).
    STI => sti, ALL;
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
    // (): into EDX:EAX.
    RDTSC => rdtsc, ALL;
    // (): into EDX:EAX and ECX.
    RDTSCP => rdtscp, ALL;
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

/// Whether the CPU model has a feature: undecodable otherwise.
pub(crate) fn has_feature(_: &Core, feature: CpuidFeature) -> bool {
    use CpuidFeature::*;
    matches!(
        feature,
        INTEL8086
            | INTEL8086_ONLY
            | INTEL186
            | INTEL286
            | INTEL286_ONLY
            | INTEL386
            | INTEL386_ONLY
            | INTEL486
            | X64
            | CMOV
            | CPUID
            | CX8
            | CMPXCHG16B
            | MSR
            | TSC
            | RDTSCP
            | RDPMC
            | SYSCALL
            | SEP
            | SMM
            | FPU
            | FPU287
            | FPU387
            | MMX
            | SSE
            | SSE2
            | SSE3
            | SSSE3
            | FXSR
            | CLFSH
            | PAUSE
            | MULTIBYTENOP
            | POPCNT
            | MONITOR
            | PREFETCHW
    )
}

macro_rules! undefined {
    ($($name:ident)*) => { $(
        fn $name(core: &mut Core, _: Args) -> Result<u64, Trap> {
            Err(super::raise(core, vector::UD, None))
        }
    )* };
}

undefined! {
    load_segment load_far_pointer far_jump far_call far_return interrupt_return software_interrupt
    breakpoint overflow icebp syscall sysret sysenter sysexit halt cli sti pushf_check popf
    read_cr write_cr read_dr write_dr smsw lmsw clts read_table load_table read_system_segment
    load_system_segment verify_segment segment_property invlpg invpcid write_back rdmsr wrmsr rdtsc
    rdtscp rdpmc cpuid xgetbv xsetbv swapgs monitor mwait set_ac read_base write_base rsm hypercall
}

pub(crate) fn io_in(core: &mut Core, _: Args) -> Result<u64, Trap> {
    Err(super::raise(core, vector::UD, None))
}

pub(crate) fn io_out(core: &mut Core, _: Args) -> Result<u64, Trap> {
    Err(super::raise(core, vector::UD, None))
}

fn pause(core: &mut Core, args: Args) -> Result<u64, Trap> {
    let [next, ..] = args;
    core.set_pc(next);
    Err(Trap::Exit(accel_core::Exit::Yield))
}
