//! What can be wrong with a command line, in sentences that say what would be right.

use crate::suggest::Hint;

/// One mistake. `option` is the option as the table names it, with its dash.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionError {
    /// No such option.
    #[error("{option}: no such option{hint}")]
    UnknownOption {
        /// As the user wrote it.
        option: String,
        /// What it might have been.
        hint: Hint,
    },
    /// An option stands last and lacks its argument.
    #[error("{option} needs an argument: {form}")]
    NoArgument {
        /// The option.
        option: String,
        /// What the argument looks like.
        form: String,
    },
    /// A value is not of the right kind.
    #[error("{option}: '{key}' cannot be '{value}': expected {expected}")]
    BadValue {
        /// The option.
        option: String,
        /// The property.
        key: String,
        /// As written.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A property that does not exist.
    #[error("{option}: {subject} has no property '{key}'{hint}")]
    UnknownKey {
        /// The option.
        option: String,
        /// What was being configured.
        subject: String,
        /// As written.
        key: String,
        /// The nearest.
        hint: Hint,
    },
    /// A necessary property is absent.
    #[error("{option}: {subject} needs '{key}=...': {doc}")]
    MissingKey {
        /// The option.
        option: String,
        /// What was being configured.
        subject: String,
        /// The property.
        key: String,
        /// What it is for.
        doc: String,
    },
    /// A name (of a machine, a driver, ...) that does not exist.
    #[error("{option}: there is no {what} named '{name}'{hint}")]
    UnknownName {
        /// The option.
        option: String,
        /// What was named.
        what: String,
        /// As written.
        name: String,
        /// The nearest.
        hint: Hint,
    },
    /// The argument does not follow the grammar.
    #[error("{option}: {problem}")]
    Syntax {
        /// The option.
        option: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Two things have one name.
    #[error("{option}: the id '{id}' is used twice; every id must be unique")]
    DuplicateId {
        /// The option.
        option: String,
        /// The id.
        id: String,
    },
    /// A feature that QEMU has and we do not have yet.
    #[error("{option}: {what} is not available{hint}")]
    Unavailable {
        /// The option.
        option: String,
        /// What is missing.
        what: String,
        /// What to do instead.
        hint: Hint,
    },
}

impl OptionError {
    /// A grammar error.
    pub fn syntax(option: &str, problem: impl Into<String>) -> Self {
        Self::Syntax {
            option: option.to_owned(),
            problem: problem.into(),
        }
    }

    /// A value error.
    pub fn bad_value(option: &str, key: &str, value: &str, expected: impl Into<String>) -> Self {
        Self::BadValue {
            option: option.to_owned(),
            key: key.to_owned(),
            value: shorten(value),
            expected: expected.into(),
        }
    }

    /// An unknown name, with the nearest of `valid`.
    pub fn unknown_name<'a>(
        option: &str,
        what: &str,
        name: &str,
        valid: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Self {
        Self::UnknownName {
            option: option.to_owned(),
            what: what.to_owned(),
            name: shorten(name),
            hint: Hint::new(name, valid),
        }
    }
}

/// A bad value is quoted, but not by the megabyte.
pub(crate) fn shorten(value: &str) -> String {
    const MAX: usize = 80;
    if value.chars().count() <= MAX {
        return value.to_owned();
    }
    value.chars().take(MAX).chain(['.', '.', '.']).collect()
}
