//! "Did you mean": the nearest valid name.

/// Similarity below which a suggestion would only confuse (Jaro-Winkler).
const FLOOR: f64 = 0.75;

/// Similarity of names one slip apart.
const ONE_SLIP: f64 = 0.95;

/// The measure is quadratic: a line of megabytes is no misspelling.
const LONGEST: usize = 128;

/// The valid name nearest to `name`, if one is near enough.
pub fn nearest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
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
}
