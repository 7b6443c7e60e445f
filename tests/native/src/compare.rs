//! Runs the same cases on two engines and tells where they disagree.

mod vendors;

use std::collections::BTreeMap;
use std::fmt;

use iced_x86::{Formatter, NasmFormatter};

use crate::generate::{Case, Form, Precision, Rng};
use crate::state::{DATA, NativeState, Outcome};

/// Names of the general registers in encoding order.
const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Largest error of an estimate, relative to the exact result (Intel SDM volume 2, "RCPPS").
const ESTIMATE_ERROR: f64 = 1.5 / 4096.0;

/// Units in the last place two good implementations of a transcendental function may be apart.
const TRANSCENDENTAL_ULPS: u128 = 2;

/// Status bits that tell how a transcendental result was rounded: PE and C1.
const ROUNDING_STATUS: u16 = 1 << 5 | 1 << 9;

/// Everything after a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// Registers.
    pub state: NativeState,
    /// The data pages.
    pub memory: Vec<u8>,
}

/// Something that executes cases.
pub trait Engine {
    /// Starts `case` and reports where it got to.
    fn run_case(&mut self, case: &Case) -> End;
}

impl Engine for crate::Native {
    fn run_case(&mut self, case: &Case) -> End {
        self.memory().copy_from_slice(&case.memory);
        let mut state = case.state.clone();
        let outcome = self.run(&case.bytes, &mut state);
        End {
            outcome,
            state,
            memory: self.memory().to_vec(),
        }
    }
}

/// Lists what `got` has otherwise than `want`, one line each; empty if they agree.
///
/// Not compared: the signal number, which is the kernel's, the x87 instruction and data pointers and
/// all else that differs between vendors, and whatever the case says is undefined.
pub fn differences(form: &Form, case: &Case, want: &End, got: &End) -> Vec<String> {
    let list = all_differences(form, case, want, got);
    if list.is_empty() {
        return list;
    }
    let mut got = got.clone();
    vendors::adopt(case, want, &mut got);
    all_differences(form, case, want, &got)
}

fn all_differences(form: &Form, case: &Case, want: &End, got: &End) -> Vec<String> {
    let mut list = Vec::new();
    outcome(&mut list, want.outcome, got.outcome);
    for (i, name) in GPR.iter().enumerate() {
        hex(
            &mut list,
            name,
            want.state.gpr[i].into(),
            got.state.gpr[i].into(),
        );
    }
    let defined = !case.undefined.rflags;
    hex(
        &mut list,
        "rflags",
        (want.state.rflags & defined).into(),
        (got.state.rflags & defined).into(),
    );
    sse(&mut list, form, want, got);
    x87(&mut list, form, case, want, got);
    memory(&mut list, case, want, got);
    list
}

fn outcome(list: &mut Vec<String>, want: Outcome, got: Outcome) {
    // The signal is the kernel's choice, not the processor's.
    let plain = |outcome| match outcome {
        Outcome::Fault {
            trapno,
            error_code,
            address,
            rip_offset,
            ..
        } => Outcome::Fault {
            signal: 0,
            trapno,
            error_code,
            address,
            rip_offset,
        },
        other => other,
    };
    if plain(want) != plain(got) {
        list.push(format!("outcome: want {}, got {}", Shown(want), Shown(got)));
    }
}

fn sse(list: &mut Vec<String>, form: &Form, want: &End, got: &End) {
    for i in 0..16 {
        let (want, got) = (want.state.fx.xmm(i), got.state.fx.xmm(i));
        if form.precision() != Precision::Estimate || !(0..4).all(|lane| near(want, got, lane)) {
            hex(list, &format!("xmm{i}"), want, got);
        }
    }
    hex(
        list,
        "mxcsr",
        want.state.fx.mxcsr().into(),
        got.state.fx.mxcsr().into(),
    );
}

/// Whether a lane holds two estimates of the same value.
fn near(want: u128, got: u128, lane: u32) -> bool {
    let (want, got) = ((want >> (32 * lane)) as u32, (got >> (32 * lane)) as u32);
    let (a, b) = (
        f64::from(f32::from_bits(want)),
        f64::from(f32::from_bits(got)),
    );
    want == got || (a - b).abs() <= 2.0 * ESTIMATE_ERROR * a.abs()
}

fn x87(list: &mut Vec<String>, form: &Form, case: &Case, want: &End, got: &End) {
    let (want, got) = (&want.state.fx, &got.state.fx);
    let inexact = form.precision() == Precision::Transcendental;
    let defined = !case.undefined.fsw & if inexact { !ROUNDING_STATUS } else { !0 };
    hex(list, "fcw", want.fcw().into(), got.fcw().into());
    hex(
        list,
        "fsw",
        (want.fsw() & defined).into(),
        (got.fsw() & defined).into(),
    );
    hex(list, "ftw", want.ftw().into(), got.ftw().into());
    for i in 0..8 {
        let (want, got) = (want.st(i), got.st(i));
        if !(inexact && ulps(want).abs_diff(ulps(got)) <= TRANSCENDENTAL_ULPS) {
            hex(list, &format!("st{i}"), want, got);
        }
    }
}

/// An 80-bit number as one that counts up in units in the last place, as the other formats' bits do: there
/// is no integer bit.
fn ulps(st: u128) -> u128 {
    const INTEGER: u128 = 1 << 63;
    (st >> 64) << 63 | st & (INTEGER - 1)
}

fn memory(list: &mut Vec<String>, case: &Case, want: &End, got: &End) {
    const SHOWN: usize = 4;
    if want.memory == got.memory {
        return;
    }
    let mut count = 0;
    for (at, (&want, &got)) in want.memory.iter().zip(&got.memory).enumerate() {
        if want != got && !case.undefined.memory.iter().any(|r| r.contains(&at)) {
            count += 1;
            if count <= SHOWN {
                hex(
                    list,
                    &format!("[{:#x}]", DATA + at as u64),
                    want.into(),
                    got.into(),
                );
            }
        }
    }
    if count > SHOWN {
        list.push(format!("and {} more bytes", count - SHOWN));
    }
}

fn hex(list: &mut Vec<String>, name: &str, want: u128, got: u128) {
    if want != got {
        list.push(format!("{name}: want {want:#x}, got {got:#x}"));
    }
}

/// An outcome in one short line.
struct Shown(Outcome);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Done => f.write_str("done"),
            Outcome::TimedOut => f.write_str("timeout"),
            Outcome::Fault {
                trapno,
                error_code,
                address,
                rip_offset,
                ..
            } => write!(
                f,
                "vector {trapno}({error_code:#x}) address {address:#x} rip +{:#x}",
                rip_offset as i64
            ),
        }
    }
}

/// The failures of a campaign, by form.
#[derive(Default, Debug)]
pub struct Report {
    /// Cases run.
    pub cases: u64,
    /// Forms with at least one failure.
    pub failing: BTreeMap<String, Failure>,
}

/// The failures of one form.
#[derive(Default, Debug)]
pub struct Failure {
    /// Cases run.
    pub cases: u64,
    /// Cases in which the engines disagreed.
    pub failed: u64,
    /// The failure with the fewest differences.
    pub example: String,
    differences: usize,
}

/// Runs `cases` cases of each of `forms` on both engines; `want` is right by definition.
///
/// Every form has its own random numbers, so that a failure stays the same in a run of this form
/// alone.
pub fn campaign(
    forms: &[Form],
    cases: u64,
    seed: u64,
    want: &mut dyn Engine,
    got: &mut dyn Engine,
) -> Report {
    let mut report = Report::default();
    for form in forms {
        let mut rng = Rng::new(seed ^ (form.code as u64) << 8 ^ u64::from(form.memory));
        let mut failure = Failure {
            cases,
            ..Failure::default()
        };
        for _ in 0..cases {
            let case = form.generate(&mut rng);
            let (want, got) = (want.run_case(&case), got.run_case(&case));
            let list = differences(form, &case, &want, &got);
            if list.is_empty() {
                continue;
            }
            failure.failed += 1;
            if failure.differences == 0 || list.len() < failure.differences {
                failure.differences = list.len();
                failure.example = example(&case, &want, &list);
            }
        }
        report.cases += cases;
        if failure.failed > 0 {
            report.failing.insert(form.to_string(), failure);
        }
    }
    report
}

fn example(case: &Case, want: &End, list: &[String]) -> String {
    use fmt::Write;
    let mut text = String::new();
    let mut instruction = String::new();
    NasmFormatter::new().format(&case.instruction, &mut instruction);
    let start = &case.state;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "    {instruction}  ({:02x?})", case.bytes);
    let _ = write!(text, "    from");
    for (name, value) in GPR.iter().zip(start.gpr) {
        let _ = write!(text, " {name}={value:x}");
    }
    let fx = &start.fx;
    let _ = writeln!(
        text,
        " rflags={:x} mxcsr={:x} fcw={:x} fsw={:x} ftw={:x}",
        start.rflags,
        fx.mxcsr(),
        fx.fcw(),
        fx.fsw(),
        fx.ftw()
    );
    for i in 0..case.instruction.op_count() {
        let register = case.instruction.op_register(i);
        if register.is_xmm() {
            let _ = writeln!(text, "    {register:?}={:x}", fx.xmm(register.number()));
        } else if register.is_mm() || register.is_st() {
            let _ = writeln!(text, "    {register:?}={:x}", fx.st(register.number()));
        }
    }
    let _ = writeln!(text, "    ends: {}", Shown(want.outcome));
    for line in list {
        let _ = writeln!(text, "      {line}");
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (form, failure) in &self.failing {
            writeln!(f, "{form}: {} of {} differ", failure.failed, failure.cases)?;
            f.write_str(&failure.example)?;
        }
        writeln!(
            f,
            "{} cases, {} failing forms",
            self.cases,
            self.failing.len()
        )
    }
}

#[cfg(test)]
mod tests;
