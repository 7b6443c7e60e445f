//! Rust of a table: nested matches on the bits that tell forms apart.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "runs on our own tables when the crate is built"
)]

use std::fmt::Write;

use crate::Test;
use crate::parse::{Line, ParseError, Table, parse};

/// Makes the Rust source of a table's decoder.
pub fn compile(text: &str) -> Result<String, ParseError> {
    let table = parse(text)?;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut out, &table);
    Ok(out)
}

fn camel(name: &str) -> String {
    name.split('_')
        .map(|part| {
            let mut letters = part.chars();
            let first = letters.next().map(|c| c.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        })
        .collect()
}

/// A field's name in Rust.
fn lower(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "type" | "match" | "move" | "in" | "as" | "if" | "fn" | "loop" => format!("r#{lower}"),
        _ => lower,
    }
}

fn word_type(table: &Table) -> &'static str {
    if table.width > 32 { "u64" } else { "u32" }
}

fn write_all(out: &mut String, table: &Table) -> std::fmt::Result {
    writeln!(out, "/// An instruction.")?;
    writeln!(out, "#[derive(Clone, Copy, PartialEq, Eq, Debug)]")?;
    writeln!(out, "#[allow(missing_docs, clippy::enum_variant_names)]")?;
    writeln!(out, "pub(crate) enum Insn {{")?;
    let mut seen: Vec<&str> = Vec::new();
    for line in &table.lines {
        if seen.contains(&line.name.as_str()) {
            continue;
        }
        seen.push(&line.name);
        write!(out, "    {}", camel(&line.name))?;
        if !line.fields.is_empty() {
            write!(out, " {{ ")?;
            for field in &line.fields {
                let ty = if field.signed { "i32" } else { "u32" };
                write!(out, "{}: {ty}, ", lower(&field.name))?;
            }
            write!(out, "}}")?;
        }
        writeln!(out, ",")?;
    }
    writeln!(out, "}}\n")?;
    write_forms(out, table)?;
    writeln!(out, "\n/// Decodes a word.")?;
    writeln!(
        out,
        "#[allow(unused_variables, clippy::all)]\npub(crate) fn decode(w: {}) -> Option<Insn> {{",
        word_type(table)
    )?;
    let all: Vec<_> = table.lines.iter().collect();
    node(out, &all, 0, 1)?;
    writeln!(out, "    None\n}}")
}

fn write_forms(out: &mut String, table: &Table) -> std::fmt::Result {
    writeln!(out, "/// The table.")?;
    writeln!(out, "pub(crate) static FORMS: &[target_decode::Form] = &[")?;
    for line in &table.lines {
        writeln!(
            out,
            "    target_decode::Form {{ name: {:?}, mask: {:#x}, bits: {:#x}, len: {}, width: {}, fields: &[",
            line.name, line.mask, line.bits, line.len, table.width
        )?;
        for f in &line.fields {
            writeln!(
                out,
                "        target_decode::Field {{ name: {:?}, shift: {}, width: {}, signed: {}, value: {} }},",
                f.name, f.shift, f.width, f.signed, f.value
            )?;
        }
        write!(out, "    ], conditions: &[")?;
        for (field, test, value) in &line.conditions {
            write!(
                out,
                "target_decode::Condition {{ field: {field}, test: target_decode::Test::{test:?}, value: {value} }}, "
            )?;
        }
        writeln!(out, "] }},")?;
    }
    writeln!(out, "];")
}

/// Forms tried one after the other without a match on bits.
const FEW: usize = 3;

/// Decides among `lines`, whose bits in `known` are looked at already.
fn node(out: &mut String, lines: &[&Line], known: u64, depth: usize) -> std::fmt::Result {
    let pad = "    ".repeat(depth);
    if lines.len() <= FEW {
        return lines
            .iter()
            .try_for_each(|line| leaf(out, line, known, depth));
    }
    let common = lines.iter().fold(!known, |all, line| all & line.mask);
    if common != 0 {
        let mut values: Vec<u64> = lines.iter().map(|l| l.bits & common).collect();
        values.sort_unstable();
        values.dedup();
        writeln!(out, "{pad}match w & {common:#x} {{")?;
        for value in values {
            let some: Vec<_> = lines
                .iter()
                .filter(|l| l.bits & common == value)
                .copied()
                .collect();
            writeln!(out, "{pad}    {value:#x} => {{")?;
            node(out, &some, known | common, depth + 2)?;
            writeln!(out, "{pad}    }}")?;
        }
        writeln!(out, "{pad}    _ => return None,\n{pad}}}")?;
        return Ok(());
    }
    // The bit that most forms fix.
    let best = (0..64)
        .map(|bit| 1u64.wrapping_shl(bit))
        .filter(|bit| bit & known == 0)
        .max_by_key(|bit| lines.iter().filter(|l| l.mask & bit != 0).count());
    let Some(bit) = best.filter(|bit| lines.iter().any(|l| l.mask & bit != 0)) else {
        return lines
            .iter()
            .try_for_each(|line| leaf(out, line, known, depth));
    };
    for (value, test) in [(0, "=="), (bit, "!=")] {
        let some: Vec<_> = lines
            .iter()
            .filter(|l| l.mask & bit == 0 || l.bits & bit == value)
            .copied()
            .collect();
        writeln!(out, "{pad}if w & {bit:#x} {test} 0 {{")?;
        node(out, &some, known | bit, depth + 1)?;
        writeln!(out, "{pad}}}")?;
    }
    Ok(())
}

fn leaf(out: &mut String, line: &Line, known: u64, depth: usize) -> std::fmt::Result {
    let pad = "    ".repeat(depth);
    let value = |n: usize| {
        let Some(f) = line.fields.get(n) else {
            return String::new();
        };
        if f.width == 0 {
            return format!("{}", f.value);
        }
        let mask = u32::MAX >> (32 - f.width);
        let plain = format!("((w >> {}) as u32 & {mask:#x})", f.shift);
        match f.signed {
            false => plain,
            true => {
                let up = 32 - f.width;
                format!("(({plain} << {up}) as i32 >> {up})")
            }
        }
    };
    let mut tests = Vec::new();
    let left = line.mask & !known;
    if left != 0 {
        tests.push(format!("w & {left:#x} == {:#x}", line.bits & left));
    }
    for (field, test, with) in &line.conditions {
        let test = match test {
            Test::Equal => "==",
            Test::Unequal => "!=",
            Test::Less => "<",
            Test::Greater => ">",
        };
        tests.push(format!("{} {test} {with}", value(*field)));
    }
    if tests.is_empty() {
        tests.push("true".into());
    }
    write!(
        out,
        "{pad}if {} {{ return Some(Insn::{}",
        tests.join(" && "),
        camel(&line.name)
    )?;
    if !line.fields.is_empty() {
        write!(out, " {{ ")?;
        for (n, f) in line.fields.iter().enumerate() {
            write!(out, "{}: {}, ", lower(&f.name), value(n))?;
        }
        write!(out, "}}")?;
    }
    writeln!(out, "); }}")
}
