//! Shifts by a variable: `x << n` panics or wraps when a guest chooses n, and clippy is silent.
//!
//! A heuristic on rustfmt's output. A shift is taken as safe if its amount is a number, a constant,
//! or masked by one. Where the amount is bounded otherwise, say how: `// shift: n < 8, checked above`
//! on the same line or the one before.

use super::Finding;
use super::sources::Sources;

const FOLDERS: &[&str] = &["devices/", "hw/", "target/", "firmware/", "backends/"];

pub(super) fn all(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.rust() {
        if source.is_test() || !FOLDERS.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        let text: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code_lines() {
            let excused = |n: usize| text.get(n).is_some_and(|line| line.contains("// shift:"));
            // Constants are computed by the compiler, which refuses a shift that is too far.
            let is_constant = [
                "const ",
                "pub const ",
                "pub(crate) const ",
                "pub(super) const ",
                "static ",
            ]
            .iter()
            .any(|word| line.trim_start().starts_with(word) && !line.contains(" fn "));
            if is_constant || excused(number - 1) || (number > 1 && excused(number - 2)) {
                continue;
            }
            if let Some(amount) = variable_amount(&line) {
                findings.push(Finding {
                    place: format!("{}:{number}", source.path),
                    rule: "shift",
                    message: format!(
                        "shift by `{amount}`: use wrapping_shl/shr or checked_shl/shr, or say \
                         `// shift: why it is in range`"
                    ),
                });
            }
        }
    }
    findings
}

/// The amount of the first shift in the line that is not evidently in range.
fn variable_amount(line: &str) -> Option<String> {
    for operator in [" << ", " >> ", " <<= ", " >>= "] {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once(operator) {
            rest = after;
            let amount = operand(after);
            if !is_safe(amount) {
                return Some(amount.to_owned());
            }
        }
    }
    None
}

/// The operand a line begins with: a parenthesised expression or a path with calls.
fn operand(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return text.get(..at).unwrap_or(text),
            ')' | ']' => depth -= 1,
            ' ' | ',' | ';' if depth == 0 => return text.get(..at).unwrap_or(text),
            _ => {}
        }
    }
    text
}

fn is_safe(amount: &str) -> bool {
    let bare = amount.trim_start_matches(['(', '*']);
    if bare.is_empty() || bare.starts_with(|c: char| c.is_ascii_digit()) {
        // Nothing: the amount is on the next line, which rustfmt does to long ones only.
        return !bare.is_empty();
    }
    // A constant by its spelling, alone or at the end of a path: SHIFT, Self::SHIFT, u64::BITS.
    let last = bare
        .trim_end_matches(')')
        .rsplit("::")
        .next()
        .unwrap_or_default();
    let is_constant = last
        .chars()
        .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    // Masked or reduced: (n & 31), (n % 8).
    let is_masked = [" & ", " % "].iter().any(|operator| {
        amount.split_once(operator).is_some_and(|(_, mask)| {
            mask.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())
        })
    });
    is_constant || is_masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_by_a_variable_is_found() {
        assert_eq!(variable_amount("let x = a << n;").as_deref(), Some("n"));
        assert_eq!(
            variable_amount("x >>= self.count(a, b);").as_deref(),
            Some("self.count(a, b)")
        );
        assert_eq!(
            variable_amount("f(1 << 3, 1 << bit)").as_deref(),
            Some("bit")
        );
    }

    #[test]
    fn a_shift_by_a_number_a_constant_or_a_masked_value_is_not() {
        for line in [
            "a << 3;",
            "a >> SHIFT",
            "a << Self::SHIFT",
            "a >> (n & 31)",
            "a << (n % 8)",
            "a >> u64::BITS",
        ] {
            assert_eq!(variable_amount(line), None, "{line}");
        }
    }
}
