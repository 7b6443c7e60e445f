//! "Did you mean": the nearest valid name.

use std::fmt;

/// Similarity below which a suggestion would only confuse (Jaro-Winkler).
const FLOOR: f64 = 0.75;

/// Similarity of names one slip apart.
const ONE_SLIP: f64 = 0.95;

/// The most names worth listing when none is near.
const LIST_MAX: usize = 16;

/// The valid name nearest to `name`, if one is near enough.
pub fn nearest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The measure is quadratic: a line of megabytes is no misspelling.
    if name.len() > 128 {
        return None;
    }
    let folded = name.to_ascii_lowercase();
    valid
        .into_iter()
        .map(|v| (similarity(&folded, &v.to_ascii_lowercase()), v))
        .filter(|(score, _)| *score >= FLOOR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, v)| v)
}

/// From 0 to 1; a single slip is near even in a name of three letters.
fn similarity(a: &str, b: &str) -> f64 {
    let score = strsim::jaro_winkler(a, b);
    if a.len() > 2 && strsim::damerau_levenshtein(a, b) == 1 {
        score.max(ONE_SLIP)
    } else {
        score
    }
}

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
    fn a_slip_of_the_finger_finds_its_name() {
        let names = ["q35", "pc", "microvm", "none"];
        assert_eq!(nearest("micorvm", names), Some("microvm"));
        assert_eq!(nearest("Q35", names), Some("q35"));
        assert_eq!(nearest("kmv", ["tcg", "kvm"]), Some("kvm"));
        assert_eq!(nearest("zzzzzz", names), None);
    }

    #[test]
    fn few_names_are_listed_when_none_is_near() {
        assert_eq!(
            Hint::new("zzzz", ["a", "b"]).to_string(),
            "; valid are a, b"
        );
    }
}
