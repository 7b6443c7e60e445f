//! Random cases of a form.

use target_decode::Form;

use crate::program::{Case, Program, Record};
use crate::random::Rng;

/// Registers that cases leave alone: the record's pointer and the return address.
const RESERVED: [u32; 2] = [29, 30];

/// Where in a case's memory base registers point.
const CENTRE: u64 = 256;

fn set(word: u32, form: &Form, name: &str, value: u32) -> u32 {
    match form.field(name) {
        Some(f) if f.width != 0 => {
            let mask = u32::MAX >> (32 - f.width) << f.shift;
            word & !mask | value << f.shift & mask
        }
        _ => word,
    }
}

fn get(word: u32, form: &Form, name: &str) -> Option<u32> {
    form.field(name)
        .filter(|f| f.width != 0)
        .map(|f| f.of(word.into()))
}

/// Forms that use a base register.
fn is_memory(form: &Form) -> bool {
    form.bits >> 25 & 5 == 4 && form.mask >> 25 & 5 == 5
}

/// Forms that cannot be compared: literals lie in the code, authentication codes are the
/// implementation's own.
fn is_left_out(form: &Form) -> bool {
    matches!(form.name, "ldr_lit" | "pac" | "xpac" | "pacga" | "ldra")
}

/// Encodings of features that the engine does not claim and QEMU has (SM3, SM4), and those where
/// QEMU 7.2 departs from the manual: it takes half precision with `size<0>` set (FMAXV and scalar
/// FMAXP, C7.2 "FMAXNMV"), and FMOV (vector, immediate) of half precision with `op` set.
fn is_known_to_differ(word: u32, form: &Form) -> bool {
    let field = |name| get(word, form, name).unwrap_or(0);
    let (u, size, opcode) = (field("U"), field("size"), field("opcode"));
    match form.name {
        // Scalar FCVTZS of half precision: QEMU extends the sign above the lane.
        "shift_imm" => form.bits >> 28 & 1 != 0 && opcode == 31 && field("immh") < 4,
        "crypto_four" => field("op") == 2,
        "sha512_two" => opcode == 1,
        "across" | "pairwise" => u == 0 && size & 1 != 0 && matches!(opcode, 12 | 13 | 15),
        "modified_imm" => field("op") == 1 && field("o2") == 1,
        _ => false,
    }
}

fn registers(word: u32, form: &Form) -> Vec<u32> {
    ["rd", "rn", "rm", "ra", "rt", "rt2", "rs"]
        .into_iter()
        .filter_map(|name| get(word, form, name))
        .collect()
}

/// A word of a form that a case may have.
fn word(form: &Form, rng: &mut Rng) -> Option<u32> {
    let mut word = form.random(|| rng.word())? as u32;
    if is_memory(form) {
        match form.name {
            "ldst_uimm" => word = set(word, form, "imm", rng.below(8) as u32),
            // QEMU 7.2 has no FEAT_LSE2.
            "ldapur" => word = set(word, form, "imm", (rng.below(16) as u32) << 3),
            "ldst_imm9" => {
                word = set(word, form, "imm", (rng.below(128) as u32).wrapping_sub(64));
            }
            "pair" => word = set(word, form, "imm", (rng.below(8) as u32).wrapping_sub(4)),
            _ => {}
        }
        let used = registers(word, form);
        let vectors =
            matches!(form.name, "ldst_multi" | "ldst_single") || get(word, form, "V") == Some(1);
        let rn = get(word, form, "rn")?;
        if rn == 31 {
            return None;
        }
        // Registers that meet are unpredictable in many forms.
        let others: Vec<_> = used.iter().filter(|r| **r == rn).collect();
        if others.len() > 1 && !vectors {
            return None;
        }
        if form.name == "pair" {
            let field = |name| get(word, form, name);
            let is_stgp = field("opc") == Some(1) && field("V") == Some(0) && field("L") == Some(0);
            if field("rt") == field("rt2") || is_stgp {
                return None;
            }
        }
        if matches!(form.name, "stxr" | "stxp" | "ldxp") {
            let mut sorted = used.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() != used.len() {
                return None;
            }
        }
        if form.name == "casp" && used.iter().any(|r| *r >= 28) {
            return None;
        }
        if get(word, form, "rm") == Some(rn) {
            return None;
        }
    }
    // Their bits that should be ones or zeros are.
    for (name, should, mask) in [
        ("stxr", 0x7c00, 0x7c00),
        ("ldxr", 0x1f_7c00, 0x1f_7c00),
        ("ldxp", 0x1f_0000, 0x1f_0000),
        ("stlr", 0x1f_fc00, 0x1f_fc00),
        ("ldar", 0x1f_fc00, 0x1f_fc00),
        ("ldapr", 0x1f_0000, 0x1f_0000),
        ("mulh", 0x7c00, 0x7c00),
    ] {
        if form.name == name {
            word = word & !mask | should;
        }
    }
    if !form.fits(word.into()) || is_fatal_to_qemu(word, form) || is_known_to_differ(word, form) {
        return None;
    }
    if registers(word, form).iter().any(|r| RESERVED.contains(r)) {
        return None;
    }
    Some(word)
}

/// Allocated encodings of `two_misc_half`, by `U` and `a`: QEMU 7.2 aborts on others.
const HALF: [&[u32]; 4] = [
    &[0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d],
    &[0x0c, 0x0d, 0x0e, 0x0f, 0x18, 0x19, 0x1a, 0x1b, 0x1d],
    &[0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d],
    &[0x0c, 0x0d, 0x0f, 0x19, 0x1a, 0x1b, 0x1d, 0x1f],
];

fn is_fatal_to_qemu(word: u32, form: &Form) -> bool {
    if form.name != "two_misc_half" {
        return false;
    }
    let field = |name| get(word, form, name).unwrap_or(0);
    let list = HALF[(field("U") << 1 | field("a")) as usize];
    let scalar = form.bits >> 28 & 1 != 0;
    let vector_only = matches!(field("opcode"), 0x0f | 0x18 | 0x19 | 0x1f);
    !list.contains(&field("opcode")) || scalar && vector_only
}

/// Case `n` of `count`, of a form. `None` if chance would not have it.
pub fn case(form: &Form, rng: &mut Rng, n: usize, count: usize) -> Option<Case> {
    if is_left_out(form) {
        return None;
    }
    let word = (0..100).find_map(|_| word(form, rng))?;
    // An earlier line may have it.
    let first = target_arm::a64::describe(word)?;
    if first.split(' ').next() != Some(form.name) {
        return None;
    }
    let mut before = Record::random(rng);
    before.x[31] = Program::stack_of(count);
    // FJCVTZS of a subnormal number that is flushed has Z clear (`FPToFixedJS`); QEMU 7.2 sets it.
    if form.name == "fp_int" && get(word, form, "opcode") == Some(6) {
        before.status[1] &= !(1 << 24);
    }
    if is_memory(form) {
        let rn = get(word, form, "rn")?;
        // SIZE keeps the memory of each case aligned to 16 bytes.
        let base = Program::memory_of(count, n) + CENTRE;
        if let Some(rm) = get(word, form, "rm")
            && rm != 31
            && form.name == "ldst_reg"
        {
            let small = rng.below(8);
            let high = rng.word() << 32;
            // UXTW and SXTW do not look at the upper half.
            let looks = get(word, form, "option")? & 1 != 0;
            before.x[rm as usize] = if looks { small } else { small | high };
        }
        before.x[rn as usize] = base;
    }
    Some(Case { word, before })
}
