//! Arguments of a command, by the kinds that its line of the table lists.

use control_qapi::QmpError;

use crate::expr;

/// What an argument looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A word, or text in double quotes.
    Word,
    /// An expression.
    Expr,
    /// Bytes: MiB, if no unit follows the number.
    Size,
    /// `/10xw`, before the others.
    Format,
    /// All that is left.
    Rest,
}

/// One argument in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ArgDef {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) is_optional: bool,
}

impl ArgDef {
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            is_optional: false,
        }
    }

    pub(crate) const fn or_none(self) -> Self {
        Self {
            is_optional: true,
            ..self
        }
    }
}

/// How `x`, `xp` and `print` show values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    pub(crate) count: u64,
    /// `x`, `d`, `u`, `o`, `c` or `i`.
    pub(crate) letter: char,
    /// Bytes of a value; 0 if not said.
    pub(crate) size: usize,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            count: 1,
            letter: 'x',
            size: 0,
        }
    }
}

/// An argument as it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Arg {
    Text(String),
    Number(u64),
    Format(Format),
}

/// The arguments of one call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Args {
    given: Vec<(&'static str, Arg)>,
}

impl Args {
    pub(crate) fn parse(
        line: &str,
        defs: &[ArgDef],
        register: &dyn Fn(&str) -> Option<u64>,
    ) -> Result<Self, QmpError> {
        let mut given = Vec::new();
        let mut rest = line.trim();
        for def in defs {
            rest = rest.trim_start();
            let is_missing =
                rest.is_empty() || (def.kind == Kind::Format && !rest.starts_with('/'));
            if is_missing && def.is_optional {
                continue;
            }
            if is_missing {
                return Err(QmpError::generic(format!("'{}' is missing", def.name)));
            }
            let (arg, after) = match def.kind {
                Kind::Word => {
                    let (word, after) = word(rest)?;
                    (Arg::Text(word), after)
                }
                Kind::Expr => {
                    let (value, after) = expr::parse(rest, register)?;
                    (Arg::Number(value), after)
                }
                Kind::Size => {
                    let (text, after) = word(rest)?;
                    let bytes = control_options::number::size(&text, 1 << 20).ok_or_else(|| {
                        let what = format!("'{text}' is no size; write 512M or 10G");
                        QmpError::generic(format!("'{}': {what}", def.name))
                    })?;
                    (Arg::Number(bytes), after)
                }
                Kind::Format => {
                    let (text, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    (Arg::Format(format(text)?), after)
                }
                Kind::Rest => (Arg::Text(rest.to_owned()), ""),
            };
            given.push((def.name, arg));
            rest = after;
        }
        match rest.trim() {
            "" => Ok(Self { given }),
            extra => {
                let extra: String = extra.chars().take(40).collect();
                Err(QmpError::generic(format!(
                    "extraneous characters at the end of line: '{extra}'"
                )))
            }
        }
    }

    fn get(&self, name: &str) -> Option<&Arg> {
        self.given
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, arg)| arg)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Arg::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Arg::Number(n)) => Some(*n),
            _ => None,
        }
    }

    pub(crate) fn format(&self) -> Format {
        match self.get("fmt") {
            Some(Arg::Format(format)) => *format,
            _ => Format::default(),
        }
    }
}

/// A word, or text in double quotes with backslash escapes.
fn word(text: &str) -> Result<(String, &str), QmpError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        return Ok((word.to_owned(), rest));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 'r')) => out.push('\r'),
                Some((_, c @ ('\\' | '\'' | '"'))) => out.push(c),
                Some((_, c)) => {
                    return Err(QmpError::generic(format!(
                        "unsupported escape code: '\\{c}'"
                    )));
                }
                None => break,
            },
            c => out.push(c),
        }
    }
    Err(QmpError::generic("the quotation mark is not closed"))
}

/// `/10xw`: a count, a letter for the form and one for the size.
fn format(text: &str) -> Result<Format, QmpError> {
    let mut format = Format::default();
    let text = text.strip_prefix('/').unwrap_or(text);
    let letters = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.strip_suffix(letters).unwrap_or_default();
    if !digits.is_empty() {
        format.count = digits
            .parse()
            .map_err(|_| QmpError::generic("the count is too large"))?;
    }
    for c in letters.chars() {
        match c {
            'x' | 'd' | 'u' | 'o' | 'c' | 'i' => format.letter = c,
            'b' => format.size = 1,
            'h' => format.size = 2,
            'w' => format.size = 4,
            'g' | 'L' => format.size = 8,
            _ => {
                let forms = "x (hex), d (signed), u (unsigned), o (octal), c (characters), i (instructions)";
                let sizes = "b (1 byte), h (2), w (4), g (8)";
                return Err(QmpError::generic(format!(
                    "invalid char in format: '{c}'; there are {forms}; {sizes}"
                )));
            }
        }
    }
    Ok(format)
}
