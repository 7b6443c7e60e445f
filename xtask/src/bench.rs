//! `cargo xtask bench`: the same guest with the same flags on Mimic and on QEMU, in turns.
//!
//! The measure is processor time (user and system, of all threads): on a busy host wall time
//! says more about the host. Runs alternate, so that both meet the same conditions; medians are
//! printed, and ratios of medians. Below 1 Mimic is the cheaper one.

mod monitor;
mod sample;
mod scenario;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{guests, host};
pub(crate) use monitor::run as monitor;
use sample::{Sample, median};
use scenario::Scenario;

/// The hidden chore that watches one run, so that the kernel's account of "all children of this
/// process" is that of one machine.
pub(crate) const MONITOR: &str = "bench-monitor";

const USAGE: &str = "\
usage: cargo xtask bench [--runs N] [--only WORD] [--mimic PATH] [--qemu PATH]

  --runs N      runs of each scenario on each program (default 5)
  --only WORD   scenarios with WORD in their name
  --mimic PATH  a built program instead of a fresh release build
  --qemu PATH   what to compare with (default qemu-system-x86_64)
";

struct Options {
    runs: usize,
    only: String,
    mimic: Option<PathBuf>,
    qemu: PathBuf,
}

/// The chore.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help") {
        print!("{USAGE}");
        return Ok(());
    }
    let options = options(args)?;
    let guests = guests::ready()?;
    let mimic = match options.mimic {
        Some(path) => path,
        None => host::build_mimic()?,
    };
    let version = host::output(Command::new(&options.qemu).arg("--version"))
        .context("nothing to compare with; `apt-get install qemu-system-x86` installs it")?;
    println!(
        "\nAgainst {}, {} runs each, medians.\n",
        version.lines().next().unwrap_or("?"),
        options.runs
    );
    println!("{}", Row::HEAD);
    let mut failed = Vec::new();
    for scenario in scenario::all(&guests)? {
        if !scenario.name.contains(&options.only) {
            continue;
        }
        match compare(&scenario, [&mimic, &options.qemu], options.runs) {
            Ok(row) => println!("{row}"),
            Err(reason) => {
                eprintln!("{}: {reason:#}", scenario.name);
                failed.push(scenario.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options {
        runs: 5,
        only: String::new(),
        mimic: None,
        qemu: PathBuf::from("qemu-system-x86_64"),
    };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let value = args
            .next()
            .with_context(|| format!("`{name}` needs a value\n{USAGE}"))?;
        match name.as_str() {
            "--runs" => {
                options.runs = value
                    .parse()
                    .ok()
                    .filter(|&n| n > 0)
                    .with_context(|| format!("`{value}` is not a number of runs"))?;
            }
            "--only" => options.only.clone_from(value),
            "--mimic" => options.mimic = Some(PathBuf::from(value)),
            "--qemu" => options.qemu = PathBuf::from(value),
            other => bail!("`cargo xtask bench` does not know `{other}`\n{USAGE}"),
        }
    }
    Ok(options)
}

fn compare(scenario: &Scenario, programs: [&PathBuf; 2], runs: usize) -> Result<Row> {
    let mut samples = [const { Vec::new() }; 2];
    for _ in 0..runs {
        for (program, samples) in programs.iter().zip(&mut samples) {
            let sample = monitor::watched(program, scenario)
                .with_context(|| format!("{} did not finish", program.display()))?;
            samples.push(sample);
        }
    }
    Ok(Row {
        name: scenario.name.clone(),
        samples,
    })
}

/// One line of the table.
struct Row {
    name: String,
    /// Mimic's, then QEMU's.
    samples: [Vec<Sample>; 2],
}

impl Row {
    const HEAD: &'static str = "\
| guest | CPU s, Mimic | QEMU | ratio | first byte ms, Mimic | QEMU | ratio | peak RSS MiB, Mimic | QEMU | ratio | beside RAM MiB, Mimic | QEMU | ratio |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";
}

/// What of a sample is shown.
type Measure = fn(&Sample) -> f64;

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MIB: f64 = (1 << 20) as f64;
        let columns: [(Measure, usize); 4] = [
            (|sample| sample.cpu_s, 2),
            (|sample| sample.first_byte_s * 1_000.0, 0),
            (|sample| sample.peak_bytes as f64 / MIB, 0),
            (|sample| sample.beside_ram_bytes as f64 / MIB, 1),
        ];
        write!(f, "| {} |", self.name)?;
        for (measure, digits) in columns {
            let [mimic, qemu] = self
                .samples
                .each_ref()
                .map(|all| median(all.iter().map(measure)));
            write!(
                f,
                " {mimic:.digits$} | {qemu:.digits$} | {:.2} |",
                mimic / qemu
            )?;
        }
        Ok(())
    }
}
