//! Random cases of a form of A32 or T32.

use target_decode::Form;

use super::{Case, Program, Record};
use crate::random::Rng;

/// Registers that cases leave alone: the record's pointer and the return address.
const RESERVED: [u32; 2] = [11, 14];
/// Where in a case's memory base registers point.
const CENTRE: u32 = 256;

/// Fields that are general registers.
const REGISTERS: [&str; 10] = ["rd", "rn", "rm", "ra", "rt", "rt2", "rs", "hi", "lo", "h"];

fn get(word: u32, form: &Form, name: &str) -> Option<u32> {
    form.field(name)
        .filter(|f| f.width != 0)
        .map(|f| f.of(word.into()))
}

fn set(word: u32, form: &Form, name: &str, value: u32) -> u32 {
    match form.field(name) {
        Some(f) if f.width != 0 => {
            let mask = u32::MAX >> (32 - f.width) << f.shift;
            word & !mask | value << f.shift & mask
        }
        _ => word,
    }
}

/// Branches, system instructions and literals: proved elsewhere.
fn is_left_out(form: &Form) -> bool {
    matches!(
        form.name,
        "setend"
            | "cps"
            | "setpan"
            | "bx"
            | "blx_imm"
            | "blx_reg"
            | "bkpt"
            | "hlt"
            | "hint"
            | "b"
            | "svc"
            | "mcr"
            | "mcrr"
            | "t_bx"
            | "t_cbz"
            | "t_setpan"
            | "t_setend"
            | "t_cps"
            | "t_bkpt"
            | "t_hlt"
            | "t_it"
            | "t_hint"
            | "t_b_cond"
            | "t_svc"
            | "t_b"
            | "tw_hint"
            | "tw_b_cond"
            | "tw_b"
            | "tw_bl"
            | "tw_blx"
            | "tw_bxj"
            | "tw_table"
            | "mrs"
            | "tw_mrs"
    )
}

/// Register fields of a word. The upper bit of T32's high registers is a field of its own.
fn registers(word: u32, form: &Form) -> Vec<(&'static str, u32)> {
    let mut all = Vec::new();
    for name in REGISTERS {
        let Some(field) = form.field(name).filter(|f| f.width >= 3) else {
            continue;
        };
        let mut value = field.of(word.into());
        if field.width == 3 && matches!(name, "rd" | "rn") && form.field("h").is_some() {
            value |= get(word, form, "h").unwrap_or(0) << 3;
        }
        // The halves of an immediate.
        if form.name == "ldst_extra"
            && (name == "hi" || name == "lo" && get(word, form, "I") == Some(1))
        {
            continue;
        }
        all.push((name, value));
    }
    all
}

/// Where 15 stands for something else than the PC, or is a source like any other.
fn may_be_pc(form: &Form, name: &str, word: u32) -> bool {
    let field = |name| get(word, form, name);
    let test = form.field("op").is_some() && field("S") == Some(1);
    match (form.name, name) {
        ("alu_shift" | "alu_imm", "rn" | "rm") => true,
        // Loads, not stores, which would change the code.
        ("ldst_imm", "rn") => [field("P"), field("W"), field("L")] == [Some(1), Some(0), Some(1)],
        ("smul_dual" | "smmul" | "usad8", "ra") => true,
        ("extend" | "bfi", "rn") => true,
        ("t_add_high" | "t_mov_high", "rm") => true,
        ("tw_shift" | "tw_imm", "rd") => test && matches!(field("op"), Some(0 | 4 | 8 | 13)),
        ("tw_shift" | "tw_imm", "rn") => matches!(field("op"), Some(2 | 3)),
        ("tw_add_imm" | "tw_bfi" | "tw_extend", "rn") => true,
        ("tw_mul" | "tw_smla" | "tw_smlaw" | "tw_smlad" | "tw_smmul" | "tw_usad8", "ra") => {
            !(matches!(field("sub"), Some(1)) && form.name == "tw_mul")
        }
        ("vmrs", "rt") => field("L") == Some(1),
        ("n_multi" | "n_all" | "n_single", "rm") => true,
        _ => false,
    }
}

/// Fields that should be zero are.
fn tidied(word: u32, form: &Form) -> u32 {
    let op = get(word, form, "op").unwrap_or(0);
    match (form.name, op) {
        ("alu_shift" | "alu_reg" | "alu_imm", 8..=11) => set(word, form, "rd", 0),
        ("alu_shift" | "alu_reg" | "alu_imm", 13 | 15) => set(word, form, "rn", 0),
        ("barrier" | "tw_barrier", 7) => set(word, form, "option", 0),
        ("smul_half", 1) if get(word, form, "N") == Some(1) => set(word, form, "ra", 0),
        ("smul_half", 3) => set(word, form, "ra", 0),
        ("n_all" | "n_multi" | "n_single", _) if word >> 22 & 1 != 0 => {
            // No registers beyond D31.
            set(word, form, "vd", get(word, form, "vd").unwrap_or(0) & 7)
        }
        ("tw_clz" | "tw_rev", _) => set(word, form, "rn", word & 15),
        _ => word,
    }
}

/// Unpredictable encodings, which QEMU executes, and those of half precision, which AArch32 does not have
/// here.
fn is_known_to_differ(word: u32, form: &Form) -> bool {
    let field = |name| get(word, form, name).unwrap_or(0);
    let equal = |a, b| get(word, form, a).is_some() && get(word, form, a) == get(word, form, b);
    let half = field("size") & 1 != 0;
    let op = field("op");
    match form.name {
        "ldst_extra" => {
            let indexed = field("I") == 0 && field("rt") | 1 == field("lo") | 1;
            field("rt") | 1 == field("rn") || indexed
        }
        "tw_sat" => field("sh") == 1 && field("imm3") | field("imm2") == 0,
        "vmov_two" => {
            equal("rt", "rt2") || field("double") == 0 && field("vm") == 15 && field("M") == 1
        }
        "tw_pair" => equal("rt", "rt2"),
        "smul_half" => op == 2 && equal("rd", "ra"),
        "t_cmp_high" => field("h") == 0 && field("rm") < 8,
        "smmul" | "tw_smmul" => {
            field("ra") == 15 && form.field("sub").is_some_and(|f| f.value == 1)
        }
        "n_shift" => matches!(op, 12 | 13),
        "n_scalar" => half && matches!(op, 1 | 5 | 9),
        "n_three" => half && (op > 12 || op == 12 && field("o1") == 1 && field("U") == 0),
        "n_two" if field("op1") == 2 && field("op2") < 4 => {
            // Both registers are the same: unknown.
            equal("D", "M") && equal("vd", "vm")
        }
        "n_two" => {
            half && match (field("op1"), field("op2")) {
                (1, n) => n & 8 != 0,
                (2, 12 | 14) => field("Q") == 1,
                (2, n) => n >= 8,
                (3, _) => true,
                _ => false,
            }
        }
        "vfp_one" => {
            let size = if field("t") != 0 { 32 } else { 16 };
            matches!(op, 10 | 11 | 14 | 15) && (field("vm") << 1 | field("M")) > size
        }
        _ => equal("hi", "lo"),
    }
}

/// A word of a form that a case may have.
fn word(form: &Form, thumb: bool, rng: &mut Rng) -> Option<u32> {
    let mut word = form.random(|| rng.word())? as u32;
    if form.len == 16 {
        word &= 0xffff_0000;
    }
    match form.name {
        "ldst_imm" | "tw_uimm" | "tw_imm8" => word = set(word, form, "imm", rng.below(64) as u32),
        "tw_pair" | "tw_strex" | "tw_ldrex" => word = set(word, form, "imm", rng.below(16) as u32),
        "vldm" => {
            word = set(word, form, "imm", rng.below(17) as u32);
            let double = get(word, form, "double")?;
            let count = get(word, form, "imm")? >> double;
            let (d, vd) = (get(word, form, "D")?, get(word, form, "vd")?);
            let first = if double != 0 {
                d << 4 | vd
            } else {
                vd << 1 | d
            };
            if first + count > 32 || count == 0 {
                return None;
            }
        }
        // Not PSTATE.E.
        "msr_reg" | "msr_imm" | "tw_msr" => {
            let mask = get(word, form, "mask")?;
            word = set(word, form, "mask", mask & 13);
        }
        "ldst_reg" => {
            word = set(word, form, "imm", rng.below(3) as u32);
            word = set(word, form, "type", 0);
        }
        "ldst_extra" => {
            let hi = if get(word, form, "I") == Some(1) {
                rng.below(4)
            } else {
                0
            };
            word = set(word, form, "hi", hi as u32);
        }
        _ => {}
    }
    if form.field("cond").is_some_and(|f| f.shift == 28) && (thumb || rng.below(2) == 0) {
        word = set(word, form, "cond", 14);
    }
    word = tidied(word, form);
    if !form.fits(word.into()) || is_known_to_differ(word, form) {
        return None;
    }
    let used = registers(word, form);
    for (name, n) in &used {
        if RESERVED.contains(n) || *n == 15 && !may_be_pc(form, name, word) {
            return None;
        }
        // SP as a base register would leave the case's memory; as an index it means something else.
        let is_base = is_memory(form) && *name == "rn" || !form.name.starts_with("n_");
        if *n == 13 && is_base && (is_memory(form) || thumb) {
            return None;
        }
    }
    // Pairs are a register and the next.
    if matches!(form.name, "ldst_extra" | "ldrex" | "strex") && get(word, form, "rt")? >= 10 {
        return None;
    }
    if is_memory(form) {
        let rn = get(word, form, "rn")?;
        // Registers that meet are unpredictable in many forms.
        if used.iter().filter(|(_, n)| *n == rn).count() > 1 {
            return None;
        }
    }
    if let Some(list) = get(word, form, "list") {
        let reserved = 1 << 11 | 1 << 14 | 1 << 15 | 1 << 13;
        let rn = get(word, form, "rn").unwrap_or(13);
        if list & reserved != 0 || list == 0 || list >> rn & 1 != 0 && form.name != "t_block" {
            return None;
        }
        if matches!(get(word, form, "pc"), Some(1))
            || form.name == "tw_block" && list.count_ones() < 2
        {
            return None;
        }
    }
    Some(word)
}

/// Forms that use a base register.
fn is_memory(form: &Form) -> bool {
    const PARTS: [&str; 13] = [
        "ldst", "block", "strex", "ldrex", "lda", "stl", "pair", "uimm", "imm8", "vldm", "n_multi",
        "n_single", "n_all",
    ];
    PARTS.iter().any(|part| form.name.contains(part))
        && form.name != "t_ldst_sp"
        && form.name != "t_imm8"
}

/// Case `n` of `count`, of a form. `None` if chance would not have it.
pub fn case(form: &Form, thumb: bool, rng: &mut Rng, n: usize, count: usize) -> Option<Case> {
    if is_left_out(form) {
        return None;
    }
    let word = (0..100).find_map(|_| word(form, thumb, rng))?;
    let is_shared = form.name.starts_with(['v', 'n', 'm']) && form.name != "mls";
    let word = match thumb && is_shared {
        true => target_arm::a32::to_t32(word),
        false => word,
    };
    // An earlier line may have it.
    let first = target_arm::a32::describe(word, thumb)?;
    if first.split(' ').next() != Some(form.name) {
        return None;
    }
    let mut before = Record::random(rng);
    before.r[13] = Program::stack_of(count);
    if is_memory(form) {
        let base = (Program::memory_of(count, n) + CENTRE) & !31;
        if let Some(rn) = get(word, form, "rn") {
            let index = match form.name {
                "ldst_extra" if get(word, form, "I") == Some(0) => get(word, form, "lo"),
                _ => get(word, form, "rm"),
            };
            if let Some(rm) = index.filter(|rm| !matches!(rm, 13 | 15)) {
                before.r[rm as usize & 15] = rng.below(8) as u32 * 4;
            }
            before.r[rn as usize & 15] = base;
        }
    }
    // VJCVT of a subnormal number that is flushed has Z clear; QEMU 7.2 sets it.
    if form.name == "vfp_one" && get(word, form, "op") == Some(9) {
        before.status[1] &= !(1 << 24);
    }
    if form.name == "vmrs" {
        // What FPSCR has here.
        let rt = get(word, form, "rt")?;
        before.r[rt as usize & 15] &= 0xffc0_009f;
    }
    // Some are unconditional.
    let is_move = form.name == "t_shift" && word >> 22 == 0;
    let may_be = !is_move && (!is_shared || form.field("cond").is_some());
    let it = (thumb && may_be && rng.below(3) == 0).then(|| rng.below(14) as u32);
    // Flags that the engine knows to be of a comparison are another way.
    let compared = (rng.below(3) == 0).then(|| (rng.below(8) as u32, rng.below(8) as u32));
    let twice = !is_memory(form) && !form.name.ends_with("_sp") && rng.below(2) == 0;
    Some(Case {
        word,
        it,
        twice,
        compared,
        before,
    })
}
