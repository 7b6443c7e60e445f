//! The generator: complete, repeatable, and safe to run.

use std::collections::BTreeMap;

use iced_x86::{Code, Decoder, DecoderOptions};

use super::{Form, Precision, Prefix, Rng, exclusion, forms, undefined_flags};

fn find(code: Code) -> Vec<Form> {
    forms().into_iter().filter(|f| f.code == code).collect()
}

#[test]
fn forms_have_register_memory_and_prefix_variants() {
    let add: Vec<_> = find(Code::Add_rm32_r32)
        .iter()
        .map(|f| (f.memory, f.prefix))
        .collect();
    assert_eq!(
        add,
        [
            (false, Prefix::None),
            (true, Prefix::None),
            (true, Prefix::Lock)
        ]
    );
    let scas: Vec<_> = find(Code::Scasb_AL_m8).iter().map(|f| f.prefix).collect();
    assert_eq!(scas, [Prefix::None, Prefix::Rep, Prefix::Repne]);
}

#[test]
fn what_would_leave_the_process_is_excluded() {
    for code in [
        Code::Syscall,
        Code::Int_imm8,
        Code::Iretq,
        Code::Mov_Sreg_rm16,
        Code::Wrmsr,
    ] {
        assert!(exclusion(code).is_some(), "{code:?}");
    }
    assert_eq!(exclusion(Code::Divss_xmm_xmmm32), None);
}

#[test]
fn cases_depend_on_the_seed_only() {
    for form in forms() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        let (a, b) = (form.generate(&mut a), form.generate(&mut b));
        assert_eq!(
            (a.bytes, a.state, a.memory),
            (b.bytes, b.state, b.memory),
            "{form}"
        );
    }
}

#[test]
fn cases_decode_to_the_form_they_came_from() {
    let mut rng = Rng::new(1);
    for form in forms() {
        for _ in 0..8 {
            let case = form.generate(&mut rng);
            let decoded: Vec<_> = Decoder::new(64, &case.bytes, DecoderOptions::NONE)
                .iter()
                .collect();
            assert!(
                decoded.iter().any(|i| i.code() == form.code),
                "{form}: {:02x?} is {decoded:?}",
                case.bytes
            );
        }
    }
}

#[test]
fn undefined_flags_are_the_manuals() {
    assert_eq!(undefined_flags(Code::Add_rm32_r32), 0);
    assert_eq!(undefined_flags(Code::And_rm32_r32), 1 << 4);
    assert_eq!(
        undefined_flags(Code::Mul_rm64),
        1 << 2 | 1 << 4 | 1 << 6 | 1 << 7
    );
}

#[test]
fn estimates_and_transcendental_functions_are_told_apart() {
    assert_eq!(find(Code::Fsin)[0].precision(), Precision::Transcendental);
    assert_eq!(
        find(Code::Rcpps_xmm_xmmm128)[0].precision(),
        Precision::Estimate
    );
    assert_eq!(find(Code::Fsqrt)[0].precision(), Precision::Exact);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn every_form_runs_on_the_host_and_most_cases_end_without_a_fault() {
    use crate::{Native, Outcome};
    let mut native = Native::new().expect("an x86-64 Linux host");
    let mut rng = Rng::new(2);
    let (mut runs, mut faults) = (0, BTreeMap::<u8, u32>::new());
    let forms = forms();
    for form in &forms {
        let mut done = 0;
        for _ in 0..40 {
            let case = form.generate(&mut rng);
            native.memory().copy_from_slice(&case.memory);
            let mut state = case.state.clone();
            match native.run(&case.bytes, &mut state) {
                Outcome::Done => done += 1,
                Outcome::Fault { trapno, .. } => *faults.entry(trapno).or_default() += 1,
                Outcome::TimedOut => panic!("{form}: {:02x?} hangs", case.bytes),
            }
            runs += 1;
        }
        let always_faults = matches!(form.code, Code::Ud2 | Code::Int3);
        assert_eq!(done == 0, always_faults, "{form}");
    }
    let total: u32 = faults.values().sum();
    println!(
        "{} forms, {runs} runs, {total} faults by vector: {faults:?}",
        forms.len()
    );
    assert!(total < runs / 4, "{total} faults in {runs} runs");
}
