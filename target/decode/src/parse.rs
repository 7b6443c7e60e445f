//! Reading a table.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "runs on our own tables when the crate is built"
)]

use crate::Test;

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OwnField {
    pub(crate) name: String,
    pub(crate) shift: u32,
    pub(crate) width: u32,
    pub(crate) signed: bool,
    pub(crate) value: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) mask: u64,
    pub(crate) bits: u64,
    pub(crate) len: u32,
    pub(crate) fields: Vec<OwnField>,
    pub(crate) conditions: Vec<(usize, Test, u32)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    pub(crate) width: u32,
    pub(crate) lines: Vec<Line>,
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Takes bits from the top of a word.
struct Taker {
    line: Line,
    /// Bits not yet described.
    left: u32,
}

impl Taker {
    fn take(&mut self, count: u32) -> Result<u32, String> {
        self.left = self
            .left
            .checked_sub(count)
            .ok_or("more bits than a word has")?;
        Ok(self.left)
    }

    fn token(&mut self, token: &str) -> Result<(), String> {
        if token.bytes().all(|b| matches!(b, b'0' | b'1' | b'x')) {
            for bit in token.bytes() {
                let at = self.take(1)?;
                self.line.mask |= u64::from(bit != b'x').wrapping_shl(at);
                self.line.bits |= u64::from(bit == b'1').wrapping_shl(at);
            }
            return Ok(());
        }
        let mut field = OwnField {
            name: token.into(),
            shift: 0,
            width: 1,
            signed: false,
            value: 0,
        };
        if let Some((name, value)) = token.split_once('=') {
            field.name = name.into();
            field.width = 0;
            field.value = number(value).ok_or_else(|| format!("'{value}' is no number"))?;
        } else if let Some((name, width)) = token.split_once(':') {
            field.name = name.into();
            let plain = width.strip_prefix('s');
            field.signed = plain.is_some();
            field.width = number(plain.unwrap_or(width))
                .filter(|w| (1..=32).contains(w))
                .ok_or_else(|| format!("'{width}' is no width"))?;
        }
        if !is_name(&field.name) {
            return Err(format!("'{token}' is neither bits nor a field"));
        }
        if self.line.fields.iter().any(|f| f.name == field.name) {
            return Err(format!("field '{}' occurs twice", field.name));
        }
        field.shift = self.take(field.width)?;
        self.line.fields.push(field);
        Ok(())
    }

    fn conditions(&mut self, text: &str) -> Result<(), String> {
        for part in text.split('&') {
            let words: Vec<_> = part.split_whitespace().collect();
            let [name, test, value] = words[..] else {
                return Err(format!("'{}' is no condition", part.trim()));
            };
            let test = match test {
                "==" => Test::Equal,
                "!=" => Test::Unequal,
                "<" => Test::Less,
                ">" => Test::Greater,
                _ => return Err(format!("'{test}' is no comparison")),
            };
            let field = self.line.fields.iter().position(|f| f.name == name);
            let field = field.ok_or_else(|| format!("no field '{name}'"))?;
            let value = number(value).ok_or_else(|| format!("'{value}' is no number"))?;
            self.line.conditions.push((field, test, value));
        }
        Ok(())
    }
}

fn line(text: &str, width: u32) -> Result<Line, String> {
    let (pattern, conditions) = match text.split_once(" if ") {
        Some((pattern, conditions)) => (pattern, Some(conditions)),
        None => (text, None),
    };
    let mut tokens = pattern.split_whitespace();
    let name = tokens.next().unwrap_or_default();
    if !is_name(name) {
        return Err(format!("'{name}' is no name"));
    }
    let mut taker = Taker {
        line: Line {
            name: name.into(),
            mask: 0,
            bits: 0,
            len: 0,
            fields: Vec::new(),
            conditions: Vec::new(),
        },
        left: width,
    };
    tokens.try_for_each(|token| taker.token(token))?;
    taker.line.len = width - taker.left;
    if taker.line.len != width && !taker.line.len.is_multiple_of(16) {
        return Err(format!("{} bits of {width}", taker.line.len));
    }
    if let Some(conditions) = conditions {
        taker.conditions(conditions)?;
    }
    // Forms of one name have their fields in one order.
    Ok(taker.line)
}

pub(crate) fn parse(text: &str) -> Result<Table, ParseError> {
    let mut table = Table {
        width: 32,
        lines: Vec::new(),
    };
    for (number_of, full) in text.lines().enumerate() {
        let text = full.split('#').next().unwrap_or_default().trim();
        let fail = |what: String| ParseError {
            line: number_of + 1,
            what,
        };
        if text.is_empty() {
            continue;
        }
        if let Some(width) = text.strip_prefix("width ") {
            table.width = number(width.trim())
                .filter(|w| (16..=64).contains(w))
                .ok_or_else(|| fail(format!("'{width}' is no width")))?;
            continue;
        }
        let line = line(text, table.width).map_err(fail)?;
        if let Some(other) = table.lines.iter().find(|l| l.name == line.name) {
            let names = |l: &Line| {
                let mut names: Vec<_> = l.fields.iter().map(|f| f.name.clone()).collect();
                names.sort();
                names
            };
            if names(other) != names(&line) {
                return Err(fail(format!("'{}' has other fields before", line.name)));
            }
        }
        table.lines.push(line);
    }
    Ok(table)
}
