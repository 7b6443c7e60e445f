//! "Did you mean": the nearest valid name.

use std::fmt;

pub use hw_props::nearest;

/// The most names worth listing when none is near.
const LIST_MAX: usize = 16;

/// The end of an error message about an unknown name: the nearest valid one, or the valid ones if they are few.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hint(String);

impl Hint {
    /// A hint for `name` among `valid`.
    pub fn new<'a>(name: &str, valid: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        if let Some(best) = nearest(name, valid.clone()) {
            return Self(format!("; did you mean '{best}'?"));
        }
        let all: Vec<_> = valid.into_iter().take(LIST_MAX.saturating_add(1)).collect();
        if all.is_empty() {
            return Self::default();
        }
        if all.len() > LIST_MAX {
            return Self::text("'help' lists them");
        }
        Self(format!("; valid are {}", all.join(", ")))
    }

    /// A hint in so many words.
    pub fn text(text: impl Into<String>) -> Self {
        Self(format!("; {}", text.into()))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_are_listed_when_none_is_near() {
        assert_eq!(
            Hint::new("zzzz", ["a", "b"]).to_string(),
            "; valid are a, b"
        );
    }
}
