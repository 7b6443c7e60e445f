//! Integer expressions: `$rip + 4*(2-1)`, on 64 bits that wrap.

use control_qapi::QmpError;

/// Deepest nesting of brackets and signs.
const DEPTH_MAX: u32 = 64;

/// Reads an expression from the start of `text`; returns its value and the rest.
pub(crate) fn parse<'a>(
    text: &'a str,
    register: &dyn Fn(&str) -> Option<u64>,
) -> Result<(u64, &'a str), QmpError> {
    let mut parser = Parser {
        rest: text,
        register,
        depth: 0,
    };
    let value = parser.binary(0)?;
    Ok((value, parser.rest))
}

struct Parser<'a, 'r> {
    rest: &'a str,
    register: &'r dyn Fn(&str) -> Option<u64>,
    depth: u32,
}

/// Operators by binding strength, weakest first.
const LEVELS: [&[char]; 3] = [&['&', '|', '^'], &['+', '-'], &['*', '/', '%']];

impl<'a> Parser<'a, '_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let c = self.rest.chars().next().filter(|c| wanted(*c))?;
        self.rest = self.rest.strip_prefix(c)?;
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn binary(&mut self, level: usize) -> Result<u64, QmpError> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        loop {
            // White space ends an expression unless an operator follows at once: the next argument may begin with
            // a sign.
            let Some(operator) = self.take(|c| operators.contains(&c)) else {
                return Ok(left);
            };
            let right = self.binary(level + 1)?;
            left = match operator {
                '&' => left & right,
                '|' => left | right,
                '^' => left ^ right,
                '+' => left.wrapping_add(right),
                '-' => left.wrapping_sub(right),
                '*' => left.wrapping_mul(right),
                _ if right == 0 => return Err(QmpError::generic("division by zero")),
                '/' => left / right,
                _ => left % right,
            };
        }
    }

    fn unary(&mut self) -> Result<u64, QmpError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(QmpError::generic("the expression is nested too deeply"));
        }
        self.skip_space();
        let value = match self.take(|c| "+-~(\'$".contains(c)) {
            Some('+') => self.unary()?,
            Some('-') => self.unary()?.wrapping_neg(),
            Some('~') => !self.unary()?,
            Some('(') => {
                let value = self.binary(0)?;
                self.skip_space();
                self.take(|c| c == ')')
                    .ok_or_else(|| QmpError::generic("')' expected"))?;
                value
            }
            Some('\'') => {
                let c = self
                    .take(|c| c != '\'')
                    .ok_or_else(|| QmpError::generic("character constant expected"))?;
                self.take(|c| c == '\'')
                    .ok_or_else(|| QmpError::generic("missing terminating ' character"))?;
                u64::from(u32::from(c))
            }
            Some(_) => {
                let name = self.take_while(|c| c.is_ascii_alphanumeric() || "_.:".contains(c));
                (self.register)(name)
                    .ok_or_else(|| QmpError::generic(format!("unknown register '${name}'")))?
            }
            None => self.number()?,
        };
        self.depth -= 1;
        // An operator may follow after spaces: look, and go back if it is not one.
        let spaced = self.rest;
        self.skip_space();
        // A path may follow, too: no operand begins with a letter.
        let divisor = self.rest.strip_prefix('/').filter(|_| spaced != self.rest);
        let is_path = divisor
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic() || "._~".contains(c)));
        if is_path || !self.rest.starts_with(|c| "&|^+-*/%".contains(c)) {
            self.rest = spaced;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<u64, QmpError> {
        let word = self.take_while(|c| c.is_ascii_alphanumeric());
        if word.is_empty() {
            return Err(match self.rest.chars().next() {
                Some(c) => QmpError::generic(format!("invalid char '{c}' in expression")),
                None => QmpError::generic("unexpected end of expression"),
            });
        }
        control_options::number::unsigned(word).ok_or_else(|| {
            QmpError::generic(format!(
                "invalid number '{word}'; hexadecimal numbers begin with 0x"
            ))
        })
    }
}
