//! Instruction tables: a pattern language, compiled at build time to a decoder.
//!
//! A table is a text; `#` begins a comment, a line is a form, first its name:
//!
//! ```text
//! width 32
//! add_imm    sf op S 100010 sh imm:12 rn:5 rd:5
//! ldr_lit    opc:2 011 V=0 00 imm:s19 rt:5          if opc != 3
//! ```
//!
//! From the top bit down: `0`, `1` and `x` (either) are fixed bits, `name:n` is a field of n bits,
//! `name:sn` one with a sign, a name alone a field of one bit; `name=n` is a field that is no bits but a
//! constant. After `if` follow conditions on fields, all of which must hold: `==`, `!=`, `<`, `>`
//! with a number. The first line that fits decides. Lines of one name have the same fields: they
//! are one form with several encodings. A line shorter than `width` is a shorter instruction,
//! at the top of the word.
//!
//! [`compile`] makes Rust of it: an enum `Insn` of the forms with their fields, `decode(word)`, and the
//! table [`FORMS`](Form) from which come names and fields for logs ([`describe`]), lists, and random
//! instructions for tests ([`Form::random`]).
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod emit;
mod parse;

pub use emit::compile;
pub use parse::ParseError;

/// A field of a form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its lowest bit.
    pub shift: u32,
    /// Number of bits; 0 for a constant.
    pub width: u32,
    /// Whether the top bit is a sign.
    pub signed: bool,
    /// Value of a constant.
    pub value: u32,
}

/// How a field is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Test {
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `>`
    Greater,
}

/// A condition on a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Index of the field.
    pub field: usize,
    /// Comparison.
    pub test: Test,
    /// With what.
    pub value: u32,
}

/// A line of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// Its name.
    pub name: &'static str,
    /// Which bits are fixed.
    pub mask: u64,
    /// Their values.
    pub bits: u64,
    /// Length of the instruction in bits.
    pub len: u32,
    /// Width of a word.
    pub width: u32,
    /// Its fields, in order.
    pub fields: &'static [Field],
    /// What must hold beside.
    pub conditions: &'static [Condition],
}

impl Field {
    /// Its value in a word.
    pub fn of(&self, word: u64) -> u32 {
        if self.width == 0 {
            return self.value;
        }
        let all = word.checked_shr(self.shift).unwrap_or(0);
        let up = 32u32.saturating_sub(self.width);
        let value = all as u32 & u32::MAX.checked_shr(up).unwrap_or(0);
        if self.signed {
            return (value.wrapping_shl(up) as i32).wrapping_shr(up) as u32;
        }
        value
    }
}

impl Condition {
    fn holds(&self, form: &Form, word: u64) -> bool {
        let Some(field) = form.fields.get(self.field) else {
            return false;
        };
        let value = field.of(word);
        match self.test {
            Test::Equal => value == self.value,
            Test::Unequal => value != self.value,
            Test::Less => value < self.value,
            Test::Greater => value > self.value,
        }
    }
}

impl Form {
    /// Whether a word is of this form, if no earlier one takes it.
    pub fn fits(&self, word: u64) -> bool {
        word & self.mask == self.bits && self.conditions.iter().all(|c| c.holds(self, word))
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// A word of this form with random fields. `None` if chance would not have it.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<u64> {
        let all = u64::MAX
            .checked_shr(64u32.saturating_sub(self.width))
            .unwrap_or(0);
        (0..64)
            .map(|_| random() & !self.mask & all | self.bits)
            .find(|word| self.fits(*word))
    }
}

/// Name and fields of an instruction, for logs.
pub fn describe(forms: &[Form], word: u64) -> Option<String> {
    let form = forms.iter().find(|f| f.fits(word))?;
    let mut text = String::from(form.name);
    for field in form.fields {
        let value = field.of(word);
        match field.signed {
            true => text.push_str(&format!(" {}={}", field.name, value as i32)),
            false => text.push_str(&format!(" {}={value:#x}", field.name)),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests;
