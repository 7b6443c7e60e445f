//! Engines that agree, and engines that do not.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use iced_x86::Code;

use super::{End, Engine, campaign};
use crate::Native;
use crate::generate::{Case, Form, Prefix, forms};

/// Makes a right result wrong.
type Break = fn(&mut End);

/// The host, but wrong in one place. Shares the runner, because there is only one.
struct Broken<'a> {
    native: &'a std::cell::RefCell<Native>,
    breaks: Break,
}

impl Engine for Broken<'_> {
    fn run_case(&mut self, case: &Case) -> End {
        let mut end = self.native.borrow_mut().run_case(case);
        (self.breaks)(&mut end);
        end
    }
}

fn failing(forms: &[Form], breaks: Break) -> super::Report {
    let native = std::cell::RefCell::new(Native::new().expect("an x86-64 Linux host"));
    let mut want = Broken {
        native: &native,
        breaks: |_| {},
    };
    let mut got = Broken {
        native: &native,
        breaks,
    };
    campaign(forms, 5, 3, &mut want, &mut got)
}

fn of(code: Code) -> Vec<Form> {
    forms()
        .into_iter()
        .filter(|f| f.code == code && !f.memory)
        .collect()
}

#[test]
fn the_host_agrees_with_itself_in_every_form() {
    let report = failing(&forms(), |_| {});
    assert!(report.failing.is_empty(), "{report}");
}

#[test]
fn a_wrong_register_flag_byte_or_vector_part_is_reported() {
    let add = of(Code::Add_rm32_r32);
    let breaks: [(Break, &str); 5] = [
        (|e| e.state.gpr[8] ^= 1, "r8:"),
        (|e| e.state.rflags ^= 1 << 4, "rflags:"),
        (|e| e.memory[16] ^= 1, "[0x10000010]:"),
        (|e| e.state.fx.set_xmm(9, !e.state.fx.xmm(9)), "xmm9:"),
        (|e| e.state.fx.set_st(3, !e.state.fx.st(3)), "st3:"),
    ];
    for (breaks, name) in breaks {
        let report = failing(&add, breaks).to_string();
        assert!(report.contains(name), "{name} in {report}");
    }
}

#[test]
fn undefined_flags_and_x87_pointers_may_differ() {
    assert!(
        failing(&of(Code::And_rm32_r32), |e| e.state.rflags ^= 1 << 4)
            .failing
            .is_empty()
    );
    assert!(
        failing(&of(Code::Fld1), |e| e.state.fx.set_fip(1))
            .failing
            .is_empty()
    );
}

#[test]
fn estimates_may_differ_a_little_but_not_much() {
    let rcp = of(Code::Rcpss_xmm_xmmm32);
    assert!(
        !failing(&rcp, |e| e.state.fx.set_xmm(0, !e.state.fx.xmm(0)))
            .failing
            .is_empty()
    );
    assert!(super::near(0x3f80_0000, 0x3f80_0800, 0));
    assert!(!super::near(0x3f80_0000, 0x3f90_0000, 0));
}

#[test]
fn what_vendors_do_differently_hides_nothing_else() {
    let repeated: Vec<Form> = forms()
        .into_iter()
        .filter(|f| f.code == Code::Cmpsb_m8_m8 && f.prefix == Prefix::Rep)
        .collect();
    assert!(!repeated.is_empty());
    let breaks: [(Break, &str); 3] = [
        (|e| e.state.gpr[1] ^= 1, "rcx:"),
        (|e| e.state.gpr[1] ^= 1 << 40, "rcx:"),
        (|e| e.state.rflags ^= 1, "rflags:"),
    ];
    for (breaks, name) in breaks {
        let report = failing(&repeated, breaks).to_string();
        assert!(report.contains(name), "{name} in {report}");
    }
    let stores: Vec<Form> = forms()
        .into_iter()
        .filter(|f| f.code == Code::Movq_mmm64_mm && f.memory)
        .collect();
    let report = failing(&stores, |e| e.state.fx.set_st(2, !e.state.fx.st(2)));
    assert!(!report.failing.is_empty());
}
