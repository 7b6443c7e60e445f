//! Which instructions are tested, and why the others are not.

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic, OpCodeInfo};

/// Features of the baseline CPU and of what it may have besides.
const FEATURES: [CpuidFeature; 23] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::MMX,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::CX8,
    CpuidFeature::CMPXCHG16B,
    CpuidFeature::POPCNT,
    CpuidFeature::MOVBE,
    CpuidFeature::FXSR,
    CpuidFeature::CLFSH,
    CpuidFeature::PAUSE,
    CpuidFeature::MULTIBYTENOP,
];

/// Instructions of those features that are left out, with the reason.
const EXCLUDED: [(Mnemonic, &str); 35] = [
    (Mnemonic::Int, KERNEL),
    (Mnemonic::Int1, "the debugger of the host may keep it"),
    (Mnemonic::Iret, FAR),
    (Mnemonic::Iretd, FAR),
    (Mnemonic::Iretq, FAR),
    (Mnemonic::Retf, FAR),
    (Mnemonic::Sgdt, TABLES),
    (Mnemonic::Sidt, TABLES),
    (Mnemonic::Sldt, TABLES),
    (Mnemonic::Str, TABLES),
    (Mnemonic::Smsw, TABLES),
    (Mnemonic::Lar, TABLES),
    (Mnemonic::Lsl, TABLES),
    (Mnemonic::Verr, TABLES),
    (Mnemonic::Verw, TABLES),
    (Mnemonic::Lss, SEGMENT),
    (Mnemonic::Lfs, SEGMENT),
    (Mnemonic::Lgs, SEGMENT),
    (Mnemonic::Cpuid, "identifies the host"),
    (Mnemonic::In, PRIVILEGED),
    (Mnemonic::Out, PRIVILEGED),
    (Mnemonic::Insb, PRIVILEGED),
    (Mnemonic::Insw, PRIVILEGED),
    (Mnemonic::Insd, PRIVILEGED),
    (Mnemonic::Outsb, PRIVILEGED),
    (Mnemonic::Outsw, PRIVILEGED),
    (Mnemonic::Outsd, PRIVILEGED),
    (Mnemonic::Cli, PRIVILEGED),
    (Mnemonic::Sti, PRIVILEGED),
    (Mnemonic::Feni, OBSOLETE),
    (Mnemonic::Fneni, OBSOLETE),
    (Mnemonic::Fdisi, OBSOLETE),
    (Mnemonic::Fndisi, OBSOLETE),
    (Mnemonic::Fsetpm, OBSOLETE),
    (Mnemonic::Fnsetpm, OBSOLETE),
];

const KERNEL: &str = "enters the host's kernel";
const FAR: &str = "far transfers need the host's descriptors";
const TABLES: &str = "shows the host's system tables, or what its kernel makes of them";
const SEGMENT: &str = "loads a segment register from the host's descriptors";
const PRIVILEGED: &str = "always faults in user programs";
const OBSOLETE: &str = "does nothing since the 80387";

/// Why `op` is not tested, or `None` if it is.
pub(super) fn reason(op: &OpCodeInfo) -> Option<&'static str> {
    let code = op.code();
    if !op.is_instruction() || op.encoding() != EncodingKind::Legacy || !op.mode64() {
        return Some("not an instruction of 64-bit mode");
    }
    if op.must_be_cpl0() || !op.cpl3() {
        return Some(PRIVILEGED);
    }
    if !code.cpuid_features().iter().all(|f| FEATURES.contains(f)) {
        return Some("not in the baseline CPU");
    }
    if !(op.intel_decoder64() && op.amd_decoder64()) {
        return Some("the vendors decode it differently");
    }
    if op.is_reserved_nop() {
        return Some("reserved: later processors give it a meaning");
    }
    if op.fwait() {
        return Some("FWAIT and another instruction, both tested alone");
    }
    match code {
        Code::Call_m1616 | Code::Call_m1632 | Code::Jmp_m1616 | Code::Jmp_m1632 => Some(FAR),
        Code::Mov_Sreg_rm16
        | Code::Mov_Sreg_r32m16
        | Code::Mov_Sreg_r64m16
        | Code::Popw_FS
        | Code::Popq_FS
        | Code::Popw_GS
        | Code::Popq_GS => Some(SEGMENT),
        Code::Bswap_r16 => Some("the result is undefined"),
        Code::Ud1_r16_rm16 | Code::Ud1_r32_rm32 | Code::Ud1_r64_rm64 => Some("UD2 stands for it"),
        _ => EXCLUDED
            .iter()
            .find(|(m, _)| *m == code.mnemonic())
            .map(|(_, why)| *why),
    }
}
