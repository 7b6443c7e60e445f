//! Random instructions in 16- and 32-bit modes against KVM. Passes
//! without a comparison where there is no `/dev/kvm`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use test_x86::executors;
use test_x86::fuzz::{Mode, Pair};

/// Cases per mode. `MIMIC_X86_CASES` asks for more.
const CASES: u64 = 3000;

fn run(mode: Mode) {
    let number = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let only = std::env::var("MIMIC_X86_FORM").unwrap_or_default();
    let cases = number("MIMIC_X86_CASES", CASES);
    for (name, executor) in executors() {
        let Ok(mut pair) = Pair::new(executor) else {
            return;
        };
        let failures = pair.campaign(mode, cases, number("MIMIC_X86_SEED", 1), &only);
        assert!(failures.by_code.is_empty(), "{name}: {}", failures.text());
    }
}

#[test]
fn real_mode_does_what_kvm_does() {
    run(Mode::Real);
}

#[test]
fn protected_mode_of_16_bits_does_what_kvm_does() {
    run(Mode::Protected16);
}

#[test]
fn protected_mode_of_32_bits_does_what_kvm_does() {
    run(Mode::Protected32);
}
