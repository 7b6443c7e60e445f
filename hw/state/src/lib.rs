//! Saved state: plain, tagged, versioned data.
//!
//! A device or CPU turns its state into a [`Section`] and back. Sections nest; every field has a
//! tag that is never renumbered. The byte form (see [`codec`]) is explicit about widths and order
//! and is read as untrusted input.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod codec;

/// Why a saved state was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The section is of another device.
    #[error("section '{found}' where '{wanted}' was expected")]
    WrongSection {
        /// Name asked for.
        wanted: String,
        /// Name found.
        found: String,
    },
    /// The section is newer than this program.
    #[error("section '{name}' has version {found}, at most {known} is known")]
    Version {
        /// Section name.
        name: String,
        /// Version found.
        found: u16,
        /// Newest version known.
        known: u16,
    },
    /// A field without default is absent.
    #[error("section '{name}' lacks field {tag}")]
    Missing {
        /// Section name.
        name: String,
        /// Tag of the field.
        tag: u16,
    },
    /// A field has another type, or a value that its owner cannot hold.
    #[error("section '{name}' field {tag}: {why}")]
    BadField {
        /// Section name.
        name: String,
        /// Tag of the field.
        tag: u16,
        /// What was wrong with it.
        why: &'static str,
    },
    /// The bytes are not a saved state.
    #[error("not a saved state: {0}")]
    Malformed(&'static str),
}

/// One value of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Any integer or flag, zero-extended.
    U64(u64),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// UTF-8 text.
    Text(String),
    /// Values of one kind, in order.
    List(Vec<Value>),
    /// A nested section.
    Section(Section),
}

macro_rules! from_int {
    ($($t:ty),*) => {$(
        impl From<$t> for Value {
            fn from(value: $t) -> Self { Value::U64(u64::from(value)) }
        }
    )*};
}
from_int!(u8, u16, u32, u64, bool);

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::U64(value.cast_unsigned())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Value::Bytes(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Value::Bytes(value.to_vec())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl From<Section> for Value {
    fn from(value: Section) -> Self {
        Value::Section(value)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        Value::List(iter.into_iter().map(Into::into).collect())
    }
}

/// The saved form of one part: a name, a version and tagged values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    name: String,
    version: u16,
    fields: Vec<(u16, Value)>,
}

impl Section {
    /// An empty section.
    pub fn new(name: impl Into<String>, version: u16) -> Self {
        Section {
            name: name.into(),
            version,
            fields: Vec::new(),
        }
    }

    /// Adds a field. A tag is used once.
    #[must_use]
    pub fn with(mut self, tag: u16, value: impl Into<Value>) -> Self {
        self.push(tag, value);
        self
    }

    /// Adds a field in place.
    pub fn push(&mut self, tag: u16, value: impl Into<Value>) {
        debug_assert!(
            self.get(tag).is_none(),
            "tag {tag} of '{}' used twice",
            self.name
        );
        self.fields.push((tag, value.into()));
    }

    /// The section's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version it was written with.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// All fields in the order they were written.
    pub fn fields(&self) -> &[(u16, Value)] {
        &self.fields
    }

    /// Checks name and version before any field is read.
    pub fn expect(&self, name: &str, newest: u16) -> Result<(), StateError> {
        if self.name != name {
            return Err(StateError::WrongSection {
                wanted: name.into(),
                found: self.name.clone(),
            });
        }
        if self.version > newest {
            return Err(StateError::Version {
                name: name.into(),
                found: self.version,
                known: newest,
            });
        }
        Ok(())
    }

    /// A field, if it is there.
    pub fn get(&self, tag: u16) -> Option<&Value> {
        self.fields.iter().find(|(t, _)| *t == tag).map(|(_, v)| v)
    }

    /// The error for a field whose value its owner refuses.
    pub fn bad(&self, tag: u16, why: &'static str) -> StateError {
        StateError::BadField {
            name: self.name.clone(),
            tag,
            why,
        }
    }

    fn need(&self, tag: u16) -> Result<&Value, StateError> {
        self.get(tag).ok_or_else(|| StateError::Missing {
            name: self.name.clone(),
            tag,
        })
    }

    /// An integer field.
    pub fn u64(&self, tag: u16) -> Result<u64, StateError> {
        match self.need(tag)? {
            Value::U64(v) => Ok(*v),
            _ => Err(self.bad(tag, "not an integer")),
        }
    }

    /// An integer field added later: `default` must mean "as before".
    pub fn u64_or(&self, tag: u16, default: u64) -> Result<u64, StateError> {
        if self.get(tag).is_none() {
            Ok(default)
        } else {
            self.u64(tag)
        }
    }

    /// A signed integer field.
    pub fn i64(&self, tag: u16) -> Result<i64, StateError> {
        self.u64(tag).map(u64::cast_signed)
    }

    /// A 32-bit field.
    pub fn u32(&self, tag: u16) -> Result<u32, StateError> {
        u32::try_from(self.u64(tag)?).map_err(|_| self.bad(tag, "more than 32 bits"))
    }

    /// A 16-bit field.
    pub fn u16(&self, tag: u16) -> Result<u16, StateError> {
        u16::try_from(self.u64(tag)?).map_err(|_| self.bad(tag, "more than 16 bits"))
    }

    /// An 8-bit field.
    pub fn u8(&self, tag: u16) -> Result<u8, StateError> {
        u8::try_from(self.u64(tag)?).map_err(|_| self.bad(tag, "more than 8 bits"))
    }

    /// A flag.
    pub fn bool(&self, tag: u16) -> Result<bool, StateError> {
        match self.u64(tag)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad(tag, "neither 0 nor 1")),
        }
    }

    /// A byte field of any length.
    pub fn bytes(&self, tag: u16) -> Result<&[u8], StateError> {
        match self.need(tag)? {
            Value::Bytes(v) => Ok(v),
            _ => Err(self.bad(tag, "not bytes")),
        }
    }

    /// A byte field of exactly `N` bytes.
    pub fn array<const N: usize>(&self, tag: u16) -> Result<[u8; N], StateError> {
        self.bytes(tag)?
            .try_into()
            .map_err(|_| self.bad(tag, "wrong length"))
    }

    /// A text field.
    pub fn text(&self, tag: u16) -> Result<&str, StateError> {
        match self.need(tag)? {
            Value::Text(v) => Ok(v),
            _ => Err(self.bad(tag, "not text")),
        }
    }

    /// A list field.
    pub fn list(&self, tag: u16) -> Result<&[Value], StateError> {
        match self.need(tag)? {
            Value::List(v) => Ok(v),
            _ => Err(self.bad(tag, "not a list")),
        }
    }

    /// A list of integers, of exactly `N`.
    pub fn u64_array<const N: usize>(&self, tag: u16) -> Result<[u64; N], StateError> {
        let list = self.list(tag)?;
        let mut out = [0; N];
        if list.len() != N {
            return Err(self.bad(tag, "wrong length"));
        }
        for (slot, value) in out.iter_mut().zip(list) {
            let Value::U64(v) = value else {
                return Err(self.bad(tag, "not integers"));
            };
            *slot = *v;
        }
        Ok(out)
    }

    /// A nested section.
    pub fn section(&self, tag: u16) -> Result<&Section, StateError> {
        match self.need(tag)? {
            Value::Section(v) => Ok(v),
            _ => Err(self.bad(tag, "not a section")),
        }
    }
}

#[cfg(test)]
mod tests;
