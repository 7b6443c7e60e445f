//! `cargo xtask bench`: the same guests with the same flags on Mimic and on QEMU, in turns.
//!
//! The measure is processor time (user and system, of all threads): on a busy host wall time
//! says more about the host. Runs alternate, so that both meet the same conditions, and medians
//! are compared. There are two tables: programs in a running guest, and whole machines; `--disks` has its
//! own.

mod disks;
mod kind;
mod monitor;
mod newer;
mod options;
mod programs;
mod sample;
mod scenario;
mod side;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{guests, host};
pub(crate) use monitor::run as monitor;
use options::{Options, USAGE};
use sample::{Sample, median};
use scenario::Scenario;

/// The hidden chore that watches one run, so that the kernel's account of "all children of this
/// process" is that of one machine.
pub(crate) const MONITOR: &str = "bench-monitor";

/// The chore.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help") {
        print!("{USAGE}");
        return Ok(());
    }
    let mut options = Options::read(args)?;
    let folder = guests::ready()?;
    for suite in &options.suites {
        options
            .qemus
            .push(newer::qemu(options.kind, suite, &folder)?);
    }
    let mimic = match &options.mimic {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("there is no {}", path.display()))?,
        None => host::build_mimic()?,
    };
    if options.is_disks {
        return disks::run(&options, &mimic, &folder);
    }
    let programs = programs::table(&options, &mimic, &folder);
    let machines = machines(&options, &mimic, &folder);
    programs.and(machines)
}

/// What a QEMU calls itself: `QEMU 7.2.22`.
fn version(qemu: &Path, package: &str) -> Result<String> {
    let said = host::output(Command::new(qemu).arg("--version")).with_context(|| {
        format!("nothing to compare with; `apt-get install {package}` installs it")
    })?;
    let number = said.split_whitespace().nth(3).unwrap_or("of no version");
    Ok(format!("QEMU {number}"))
}

/// The table of whole machines: time to the first byte and memory too.
fn machines(options: &Options, mimic: &PathBuf, folder: &Path) -> Result<()> {
    let mut scenarios = scenario::all(options.kind, folder)?;
    scenarios.retain(|scenario| options.wants_machine(&scenario.name));
    let Some(qemu) = options.qemus.first().filter(|_| !scenarios.is_empty()) else {
        return Ok(());
    };
    println!(
        "\nAgainst {}, {} runs each, medians; ratios below 1 are in Mimic's favour.\n",
        version(qemu, options.kind.package)?,
        options.pairs
    );
    println!("{}", Row::HEAD);
    let mut failed = Vec::new();
    for scenario in scenarios {
        match compare(&scenario, [mimic, qemu], options.pairs) {
            Ok(row) => println!("{row}"),
            Err(reason) => failed.push(format!("{}: {reason:#}", scenario.name)),
        }
    }
    if !failed.is_empty() {
        bail!("not measured:\n{}", failed.join("\n"));
    }
    Ok(())
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
