//! Runs of instructions against the host's processor: what a unit carries from one to the next.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use iced_x86::{
    CpuidFeature, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use test_native::Native;
use test_native::compare::{Engine, differences};
use test_native::generate::{
    Case, Form, Precision, Prefix, Rng, Undefined, forms, undefined_flags,
};
use test_x86::{Emulated, executors};

/// Sequences run.
const SEQUENCES: u64 = 4000;

/// Instructions in each.
const LENGTH: u64 = 12;

/// Works on registers alone and defines all that it changes.
fn is_plain(form: &Form) -> bool {
    use CpuidFeature::*;
    let mut instruction = Instruction::default();
    instruction.set_code(form.code);
    let odd = matches!(
        form.code.mnemonic(),
        Mnemonic::Div
            | Mnemonic::Idiv
            | Mnemonic::Bsf
            | Mnemonic::Bsr
            | Mnemonic::Wait
            | Mnemonic::Xlatb
            | Mnemonic::Lsl
            | Mnemonic::Pause
            | Mnemonic::Ud2
    );
    !form.memory
        && form.prefix == Prefix::None
        && !odd
        && undefined_flags(form.code) == 0
        && instruction.flow_control() == FlowControl::Next
        && !instruction.is_string_instruction()
        && !instruction.is_stack_instruction()
        && form.code.cpuid_features().iter().all(|f| {
            matches!(
                f,
                INTEL8086 | INTEL186 | INTEL386 | INTEL486 | X64 | CMOV | POPCNT
            )
        })
}

/// Whether it reads or writes memory or the stack pointer.
fn touches_memory(instruction: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let memory = info
        .used_memory()
        .iter()
        .any(|m| m.access() != OpAccess::NoMemAccess);
    memory
        || instruction.op_kinds().any(|k| k == OpKind::Memory)
            && instruction.mnemonic() != Mnemonic::Lea
        || info
            .used_registers()
            .iter()
            .any(|r| r.register().full_register() == Register::RSP)
}

fn is_shift(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd
    )
}

/// Works on MMX registers, or moves the x87's stack under them.
fn is_mmx(form: &Form) -> bool {
    use CpuidFeature::*;
    let mut instruction = Instruction::default();
    instruction.set_code(form.code);
    let features = form.code.cpuid_features();
    let moves_stack = matches!(
        form.code.mnemonic(),
        Mnemonic::Fincstp
            | Mnemonic::Fdecstp
            | Mnemonic::Fld1
            | Mnemonic::Emms
            | Mnemonic::Movq2dq
            | Mnemonic::Movdq2q
    );
    let is_mm = features.contains(&MMX) && !features.contains(&CYRIX_EMMI);
    !form.memory
        && form.prefix == Prefix::None
        && (moves_stack || is_mm)
        && instruction.flow_control() == FlowControl::Next
}

/// Works on the x87's registers, exactly, and tells nobody of condition codes that are undefined.
fn is_x87(form: &Form) -> bool {
    use CpuidFeature::*;
    let mut instruction = Instruction::default();
    instruction.set_code(form.code);
    let features = form.code.cpuid_features();
    !form.memory
        && form.prefix == Prefix::None
        && features
            .iter()
            .any(|f| matches!(f, FPU | FPU287 | FPU387 | CMOV | MMX))
        && features.iter().all(|f| *f != CYRIX_EMMI)
        && (features.contains(&MMX) || is_x87_mnemonic(&instruction))
        && !matches!(
            instruction.mnemonic(),
            Mnemonic::Fnstsw | Mnemonic::Fstdw | Mnemonic::Fstsg | Mnemonic::Fstpnce
        )
        && form.precision() == Precision::Exact
        && instruction.flow_control() == FlowControl::Next
}

fn is_x87_mnemonic(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Wait
        || format!("{:?}", instruction.mnemonic()).starts_with('F')
}

#[test]
fn sequences_of_x87_instructions_do_what_the_host_does() {
    let mut native = Native::new().unwrap();
    for (name, executor) in executors() {
        println!("{name}");
        compare(&mut native, Emulated::new(executor), is_x87);
    }
}

#[test]
fn sequences_of_instructions_do_what_the_host_does() {
    let mut native = Native::new().unwrap();
    for (name, executor) in executors() {
        println!("{name}");
        compare(&mut native, Emulated::new(executor), is_plain);
    }
}

#[test]
fn sequences_of_mmx_instructions_do_what_the_host_does() {
    let mut native = Native::new().unwrap();
    for (name, executor) in executors() {
        println!("{name}");
        compare(&mut native, Emulated::new(executor), is_mmx);
    }
}

fn compare(native: &mut Native, mut emulated: Emulated, which: fn(&Form) -> bool) {
    let forms: Vec<Form> = forms().into_iter().filter(which).collect();
    assert!(forms.len() > 30, "{} forms", forms.len());
    let mut rng = Rng::new(3);
    let mut compared = 0;
    for _ in 0..SEQUENCES {
        let mut sequence: Option<Case> = None;
        let mut last = forms[0];
        let mut fsw = 0;
        for _ in 0..LENGTH {
            last = rng.pick(&forms);
            let case = last.generate(&mut rng);
            let insn = &case.instruction;
            // What a shift leaves undefined goes by its count.
            let by_cl = (0..insn.op_count()).any(|i| {
                insn.op_kind(i) == OpKind::Register && insn.op_register(i) == Register::CL
            }) && is_shift(insn.mnemonic());
            if touches_memory(insn) || by_cl || case.undefined.rflags != 0 {
                continue;
            }
            fsw |= case.undefined.fsw;
            match &mut sequence {
                Some(all) => all.bytes.extend_from_slice(&case.bytes),
                None => sequence = Some(case),
            }
        }
        let Some(mut case) = sequence else {
            continue;
        };
        case.undefined = Undefined {
            fsw,
            ..Undefined::default()
        };
        let (want, got) = (native.run_case(&case), emulated.run_case(&case));
        let list = differences(&last, &case, &want, &got);
        assert!(
            list.is_empty(),
            "{:02x?}\nfrom {:x?} {:x}\n{}",
            case.bytes,
            case.state.gpr,
            case.state.rflags,
            list.join("\n")
        );
        compared += 1;
    }
    assert!(compared > SEQUENCES / 2);
}
