//! Every form of A32 and T32 with random operands, against `qemu-arm`.

use std::collections::BTreeMap;

use test_arm::aarch32::{Case, FLAGS, Record, generate, program};
use test_arm::random::Rng;
use test_arm::{engine, qemu};

/// Cases of a program.
const COUNT: usize = 2000;

/// What differs, in words; `None` if nothing.
fn difference(case: &Case, wanted: &Record, got: &Record) -> Option<String> {
    let undefined = |r: &Record| r.status[2] != 0;
    match (undefined(wanted), undefined(got)) {
        (true, true) => return None,
        (false, false) => {}
        (theirs, ours) => return Some(format!("undefined: wanted {theirs}, got {ours}")),
    }
    let mut text = String::new();
    for n in 0..16 {
        if wanted.r[n] != got.r[n] {
            text += &format!(" r{n}={:#x} not {:#x}", got.r[n], wanted.r[n]);
        }
    }
    for n in 0..32 {
        if wanted.d[n] != got.d[n] {
            text += &format!(" d{n}={:#018x} not {:#018x}", got.d[n], wanted.d[n]);
        }
    }
    let flags = |r: &Record| r.status[0] & FLAGS;
    if flags(wanted) != flags(got) {
        text += &format!(" apsr={:#x} not {:#x}", flags(got), flags(wanted));
    }
    if wanted.status[1] != got.status[1] {
        text += &format!(" fpscr={:#x} not {:#x}", got.status[1], wanted.status[1]);
    }
    if wanted.memory != got.memory {
        let both = wanted.memory.iter().zip(&got.memory);
        let at = both.clone().position(|(a, b)| a != b);
        text += &format!(" memory from {at:?}");
    }
    if text.is_empty() {
        return None;
    }
    let before = &case.before;
    Some(format!(
        "{text}; it={:x?} twice={} compared={:?}; before: r={:x?} apsr={:#x} fpscr={:#x} d={:x?}",
        case.it, case.twice, case.compared, before.r, before.status[0], before.status[1], before.d
    ))
}

fn compare(thumb: bool) -> Result<(), String> {
    if !qemu::is_there("qemu-arm") {
        return Ok(());
    }
    let seeds: u64 = std::env::var("TEST_ARM_PROGRAMS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(4);
    let only = std::env::var("TEST_ARM_FORM").ok();
    let forms: Vec<_> = target_arm::a32::forms(thumb)
        .filter(|f| {
            only.as_deref()
                .is_none_or(|names| names.split(',').any(|n| n == f.name))
        })
        .collect();
    let mut wrong: BTreeMap<(String, String), (usize, String)> = BTreeMap::new();
    let mut executors = engine::executors();
    let mut undefined = 0;
    for seed in 0..seeds {
        let mut rng = Rng(seed);
        let mut cases = Vec::new();
        while cases.len() < COUNT {
            let form = forms[rng.below(forms.len() as u64) as usize];
            let case = generate::case(form, thumb, &mut rng, cases.len(), COUNT);
            cases.extend(case.map(|case| (form.name, case)));
        }
        let (names, cases): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let program = program(&cases, thumb);
        let name = if thumb { "t32" } else { "a32" };
        let wanted = qemu::run_32(&program, name)?;
        undefined += wanted.iter().filter(|r| r.status[2] != 0).count();
        for (executor, run) in &mut executors {
            let got = engine::run_32(&program, run.as_mut())?;
            for (n, case) in cases.iter().enumerate() {
                if let Some(text) = difference(case, &wanted[n], &got[n]) {
                    let what = target_arm::a32::describe(case.word, thumb).unwrap_or_default();
                    let entry = wrong
                        .entry((names[n].into(), executor.to_string()))
                        .or_insert_with(|| (0, format!("{:08x} {what}:{text}", case.word)));
                    entry.0 += 1;
                }
            }
        }
    }
    println!("{undefined} of {} are undefined", seeds * COUNT as u64);
    for ((form, executor), (count, first)) in &wrong {
        println!("{form} ({executor}): {count} differ, first {first}");
    }
    assert!(wrong.is_empty());
    Ok(())
}

#[test]
fn forms_of_a32_compute_what_qemu_computes() -> Result<(), String> {
    compare(false)
}

#[test]
fn forms_of_t32_compute_what_qemu_computes() -> Result<(), String> {
    compare(true)
}
