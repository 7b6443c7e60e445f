//! The programs of `bench/` on every emulator: the same units of work, in turns.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use test_boot::Guest;
use test_boot::programs::Programs;

use super::options::{BOOT, Options};
use super::sample::median;
use super::scenario::Scenario;
use super::side::{RAM_MIB, Side};
use super::{monitor, version};

/// Prints the table, row by row. `mimic` and then the QEMUs of `options` are the columns.
pub(super) fn table(options: &Options, mimic: &Path, folder: &Path) -> Result<()> {
    let kind = options.kind;
    let Some(guest) = Guest::find(kind.arch)? else {
        bail!("no guest to measure in: `cargo xtask guests` fetches it");
    };
    let home = folder.join(format!("bench-{}", kind.name));
    let programs = Programs::build(&home, kind.triple, &guest)?;
    // The same programs, built for this host, say what they are.
    let own = Programs::build(&folder.join("bench"), None, &guest)?;
    let mut names = own.names()?;
    names.push(BOOT.to_owned());
    names.retain(|name| options.wants_program(name));
    if names.is_empty() {
        return Ok(());
    }
    let mut sides = vec![Side::new(
        ("Mimic".to_owned(), mimic),
        (kind, &options.mimic_flags),
        (&guest, &programs),
        options.patience(),
    )];
    for qemu in &options.qemus {
        sides.push(Side::new(
            (version(qemu, kind.package)?, qemu),
            (kind, &options.qemu_flags),
            (&guest, &programs),
            options.patience(),
        ));
    }
    println!(
        "\nProcessor seconds for the same work in a guest on `{}`, {RAM_MIB} MiB, {} pairs, \
         medians.\n",
        kind.machine, options.pairs
    );
    let mut head = "| program | units |".to_owned();
    let mut rule = "|---|--:|".to_owned();
    for side in &sides {
        let _ = write!(head, " {} |", side.label);
        rule.push_str("--:|");
    }
    println!("{head} times faster |\n{rule}--:|");
    let mut speedups = Vec::new();
    let mut failures = Vec::new();
    for name in &names {
        let row = if name == BOOT {
            boots(&sides, options.pairs)
        } else {
            runs(&mut sides, name, options)
        };
        match row {
            Ok(row) => {
                speedups.push(row.speedup());
                println!("| {name} {row}");
            }
            Err(reason) => {
                println!("| {name} | not measured |");
                failures.push(format!("{name}: {reason:#}"));
            }
        }
    }
    if !speedups.is_empty() {
        println!(
            "| geometric mean of {} |{} {:.2} |",
            speedups.len(),
            " |".repeat(sides.len() + 1),
            geometric_mean(&speedups)
        );
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// One line of the table.
struct Row {
    units: u64,
    /// Median processor seconds of each side, Mimic's first.
    seconds: Vec<f64>,
}

impl Row {
    /// How many times faster Mimic is than the best of the others.
    fn speedup(&self) -> f64 {
        let mut seconds = self.seconds.iter().copied();
        let mimic = seconds.next().unwrap_or(f64::NAN);
        seconds.fold(f64::INFINITY, f64::min) / mimic
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "| {} |", self.units)?;
        for seconds in &self.seconds {
            write!(f, " {seconds:.2} |")?;
        }
        write!(f, " {:.2} |", self.speedup())
    }
}

/// Runs a program on all sides in turns, as often as the faster one needs for a good measure.
fn runs(sides: &mut [Side<'_>], name: &str, options: &Options) -> Result<Row> {
    let mut fastest = f64::INFINITY;
    for side in &mut *sides {
        fastest = fastest.min(side.calibrate(name, options.run_time())?);
    }
    let units = (options.run_time().as_secs_f64() / fastest).ceil() as u64;
    let mut samples: Vec<Vec<Duration>> = sides.iter().map(|_| Vec::new()).collect();
    let mut expected: Option<String> = None;
    for _ in 0..options.pairs {
        for (side, samples) in sides.iter_mut().zip(&mut samples) {
            let run = side.run(name, units)?;
            let expected = expected.get_or_insert_with(|| run.sum.clone());
            ensure!(
                *expected == run.sum,
                "{} computed {} where {expected} is right",
                side.label,
                run.sum
            );
            samples.push(run.cpu);
        }
    }
    let seconds = samples
        .iter()
        .map(|all| median(all.iter().map(Duration::as_secs_f64)))
        .collect();
    Ok(Row { units, seconds })
}

/// Boots Debian's kernel to power-off on all sides in turns.
fn boots(sides: &[Side<'_>], pairs: usize) -> Result<Row> {
    let mut samples: Vec<Vec<f64>> = sides.iter().map(|_| Vec::new()).collect();
    for _ in 0..pairs {
        for (side, samples) in sides.iter().zip(&mut samples) {
            let scenario = Scenario::boot(side.kind.machine, RAM_MIB, side.guest, side.flags());
            samples.push(monitor::watched(&side.program, &scenario)?.cpu_s);
        }
    }
    let seconds = samples
        .iter()
        .map(|all| median(all.iter().copied()))
        .collect();
    Ok(Row { units: 1, seconds })
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_of_two_others_counts() {
        let row = Row {
            units: 7,
            seconds: vec![2.0, 5.0, 4.0],
        };
        assert_eq!(row.to_string(), "| 7 | 2.00 | 5.00 | 4.00 | 2.00 |");
    }

    #[test]
    fn the_geometric_mean_of_a_ratio_and_its_inverse_is_one() {
        assert!((geometric_mean(&[4.0, 0.25]) - 1.0).abs() < 1e-12);
    }
}
