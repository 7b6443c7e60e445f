//! Every x87, MMX and SSE form against the host's processor.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use test_native::Native;
use test_native::compare::campaign;
use test_native::generate::{Form, forms};
use test_x86::{Emulated, executors, is_float};

/// Cases per form. `MIMIC_X86_CASES` asks for more.
const CASES: u64 = 30;

#[test]
fn float_forms_do_what_the_host_does() {
    let only = std::env::var("MIMIC_X86_FORM").unwrap_or_default();
    let forms: Vec<Form> = forms()
        .into_iter()
        .filter(|f| is_float(f.code) && f.to_string().contains(&only))
        .collect();
    let cases = std::env::var("MIMIC_X86_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(CASES);
    let mut native = Native::new().unwrap();
    for (name, executor) in executors() {
        let mut emulated = Emulated::new(executor);
        let report = campaign(&forms, cases, 1, &mut native, &mut emulated);
        assert!(report.failing.is_empty(), "{name}: {report}");
    }
}
