//! What one run of a machine cost.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The cost of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// User and system time of all threads, from start to end.
    pub(super) cpu_s: f64,
    /// Wall time from start to the first byte on the console.
    pub(super) first_byte_s: f64,
    /// The most memory ever resident.
    pub(super) peak_bytes: u64,
    /// Resident memory without guest RAM, when the proof line appeared.
    pub(super) beside_ram_bytes: u64,
}

impl Sample {
    pub(super) fn to_json(self) -> String {
        let Self {
            cpu_s,
            first_byte_s,
            peak_bytes,
            beside_ram_bytes,
        } = self;
        json!([cpu_s, first_byte_s, peak_bytes, beside_ram_bytes]).to_string()
    }

    pub(super) fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the monitor said no numbers")?;
        let number = |at: usize| value[at].as_f64();
        let count = |at: usize| value[at].as_u64();
        number(0)
            .zip(number(1))
            .zip(count(2).zip(count(3)))
            .map(
                |((cpu_s, first_byte_s), (peak_bytes, beside_ram_bytes))| Self {
                    cpu_s,
                    first_byte_s,
                    peak_bytes,
                    beside_ram_bytes,
                },
            )
            .context("the monitor said too few numbers")
    }
}

/// The middle value, or the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = middle.checked_sub(1).and_then(|at| values.get(at)).copied();
    lower.map_or(upper, |lower| (lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_an_outlier() {
        assert_eq!(median([1.0, 100.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([1.0, 3.0].into_iter()), 2.0);
    }

    #[test]
    fn a_sample_survives_its_journey() {
        let sample = Sample {
            cpu_s: 1.5,
            first_byte_s: 0.25,
            peak_bytes: 7,
            beside_ram_bytes: 9,
        };
        assert_eq!(Sample::from_json(&sample.to_json()).unwrap(), sample);
    }
}
