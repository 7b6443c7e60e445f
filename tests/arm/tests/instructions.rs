//! Every form of the tables with random operands, against `qemu-aarch64`.

use std::collections::BTreeMap;

use test_arm::random::Rng;
use test_arm::{Case, Program, Record, engine, generate, qemu};

/// Cases of a program.
const COUNT: usize = 2000;

/// What differs, in words; `None` if nothing.
fn difference(case: &Case, wanted: &Record, got: &Record) -> Option<String> {
    let undefined = |r: &Record| r.status[3] != 0;
    match (undefined(wanted), undefined(got)) {
        (true, true) => return None,
        (false, false) => {}
        (theirs, ours) => return Some(format!("undefined: wanted {theirs}, got {ours}")),
    }
    let mut text = String::new();
    for n in 0..32 {
        if wanted.x[n] != got.x[n] {
            text += &format!(" x{n}={:#x} not {:#x}", got.x[n], wanted.x[n]);
        }
        if wanted.v[n] != got.v[n] {
            text += &format!(" v{n}={:#034x} not {:#034x}", got.v[n], wanted.v[n]);
        }
    }
    for (n, name) in ["nzcv", "fpcr", "fpsr"].into_iter().enumerate() {
        if wanted.status[n] != got.status[n] {
            text += &format!(" {name}={:#x} not {:#x}", got.status[n], wanted.status[n]);
        }
    }
    if wanted.memory != got.memory {
        let at = wanted
            .memory
            .iter()
            .zip(&got.memory)
            .position(|(a, b)| a != b);
        text += &format!(" memory from {at:?}");
    }
    if text.is_empty() {
        return None;
    }
    let mut before = format!(
        " nzcv={:#x} fpcr={:#x}",
        case.before.status[0], case.before.status[1]
    );
    for (shift, name) in [(0, "d"), (5, "n"), (16, "m"), (10, "a")] {
        let r = (case.word >> shift & 31) as usize;
        before += &format!(
            " {name}:x{r}={:#x} v{r}={:#034x}",
            case.before.x[r], case.before.v[r]
        );
    }
    Some(format!("{text}; before:{before}"))
}

#[test]
fn forms_compute_what_qemu_computes() {
    if !qemu::is_there("qemu-aarch64") {
        return;
    }
    let seeds: u64 = std::env::var("TEST_ARM_PROGRAMS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(4);
    let only = std::env::var("TEST_ARM_FORM").ok();
    let forms: Vec<_> = target_arm::a64::forms()
        // Branches and system instructions are proved by booting.
        .filter(|f| f.bits >> 26 & 7 != 5)
        .filter(|f| {
            only.as_deref()
                .is_none_or(|names| names.split(',').any(|n| n == f.name))
        })
        .collect();
    let mut wrong: BTreeMap<(String, String), (usize, String)> = BTreeMap::new();
    let mut executors = engine::executors();
    for seed in 0..seeds {
        let mut rng = Rng(seed);
        let mut cases = Vec::new();
        while cases.len() < COUNT {
            let form = forms[rng.below(forms.len() as u64) as usize];
            if let Some(case) = generate::case(form, &mut rng, cases.len(), COUNT) {
                cases.push((form.name, case));
            }
        }
        let (names, cases): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let program = Program::new(&cases);
        let wanted = qemu::run(&program, "forms").unwrap();
        for (executor, run) in &mut executors {
            let got = engine::run(&program, run.as_mut()).unwrap();
            for (n, case) in cases.iter().enumerate() {
                if let Some(text) = difference(case, &wanted[n], &got[n]) {
                    let what = target_arm::a64::describe(case.word).unwrap_or_default();
                    let entry = wrong
                        .entry((names[n].into(), executor.to_string()))
                        .or_insert_with(|| (0, format!("{:08x} {what}:{text}", case.word)));
                    entry.0 += 1;
                }
            }
        }
    }
    for ((form, executor), (count, first)) in &wrong {
        println!("{form} ({executor}): {count} differ, first {first}");
    }
    assert!(wrong.is_empty());
}
