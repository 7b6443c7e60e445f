//! What `cargo xtask bench` is told.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::kind::{KINDS, Kind, X86_64};

/// The row of the programs' table that is no program: the kernel from reset to power-off.
pub(super) const BOOT: &str = "boot";

pub(super) const USAGE: &str = "\
usage: cargo xtask bench [OPTIONS]

  --guest KIND  what the programs run in: x86_64 (default) or aarch64
  --disks       disks instead: our virtio-blk without a guest, `mimic img` and qemu-img, reads in a guest
                (--only model,tool,guest)
  --only A,B    these programs of bench/ only, `boot`, or machines with such a word in their name
  --quick       short runs, one pair each, programs only: for use while developing
  --pairs N     runs of each row on each emulator, in turns (default 5)
  --mimic PATH  a built program instead of a fresh release build
  --flags WORDS further flags for Mimic: --flags '-cpu max -accel tcg,thread=single'
  --qemu PATH   what to compare with (default qemu-system-KIND); given again, the better of them
                counts in each row of the programs' table
  --qemu-of SUITE
                compare with the QEMU of this suite of Debian too: fetched once, not installed
  --qemu-flags WORDS
                further flags for QEMU
";

pub(super) struct Options {
    pub(super) kind: &'static Kind,
    pub(super) only: Vec<String>,
    pub(super) is_quick: bool,
    pub(super) is_disks: bool,
    pub(super) pairs: usize,
    pub(super) mimic: Option<PathBuf>,
    pub(super) mimic_flags: Vec<String>,
    pub(super) qemus: Vec<PathBuf>,
    pub(super) suites: Vec<String>,
    pub(super) qemu_flags: Vec<String>,
}

impl Options {
    pub(super) fn read(args: &[String]) -> Result<Self> {
        let mut options = Self {
            kind: &X86_64,
            only: Vec::new(),
            is_quick: false,
            is_disks: false,
            pairs: 0,
            mimic: None,
            mimic_flags: Vec::new(),
            qemus: Vec::new(),
            suites: Vec::new(),
            qemu_flags: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            if name == "--quick" {
                options.is_quick = true;
                continue;
            }
            if name == "--disks" {
                options.is_disks = true;
                continue;
            }
            let value = args
                .next()
                .with_context(|| format!("`{name}` needs a value\n{USAGE}"))?;
            let words = || value.split_whitespace().map(str::to_owned);
            match name.as_str() {
                "--guest" => {
                    let found = KINDS.iter().find(|kind| kind.name == value);
                    let names = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>();
                    options.kind = found.with_context(|| {
                        format!("no guest `{value}`; there is {}", names().join(", "))
                    })?;
                }
                "--only" => options
                    .only
                    .extend(value.split(',').map(|word| word.trim().to_owned())),
                "--pairs" => {
                    options.pairs = value
                        .parse()
                        .ok()
                        .filter(|&n| n > 0)
                        .with_context(|| format!("`{value}` is not a number of pairs"))?;
                }
                "--mimic" => options.mimic = Some(PathBuf::from(value)),
                "--flags" => options.mimic_flags.extend(words()),
                "--qemu" => options.qemus.push(PathBuf::from(value)),
                "--qemu-of" => options.suites.push(value.clone()),
                "--qemu-flags" => options.qemu_flags.extend(words()),
                other => bail!("`cargo xtask bench` does not know `{other}`\n{USAGE}"),
            }
        }
        if options.pairs == 0 {
            options.pairs = if options.is_quick { 1 } else { 5 };
        }
        if options.qemus.is_empty() {
            options.qemus.push(PathBuf::from(options.kind.qemu()));
        }
        Ok(options)
    }

    /// Whether a row of the programs' table is wanted.
    pub(super) fn wants_program(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| word == name)
    }

    /// Whether a machine is wanted.
    pub(super) fn wants_machine(&self, name: &str) -> bool {
        if self.only.is_empty() {
            return !self.is_quick;
        }
        self.only
            .iter()
            .any(|word| word != BOOT && name.contains(word.as_str()))
    }

    /// How long a boot or a run of a program may take.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(if self.is_quick { 120 } else { 600 })
    }

    /// Processor time that a program takes on the faster side.
    pub(super) fn run_time(&self) -> Duration {
        if self.is_quick {
            Duration::from_millis(300)
        } else {
            Duration::from_secs(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Options> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Options::read(&words)
    }

    #[test]
    fn only_names_programs_whole_and_machines_in_part() {
        let options = read(&["--only", "calls,boot,microvm"]).unwrap();
        assert!(options.wants_program("calls"));
        assert!(!options.wants_program("syscalls"));
        assert!(options.wants_machine("tiny kernel, microvm"));
        assert!(!options.wants_machine("Debian boot, pc"));
    }

    #[test]
    fn quick_is_one_pair_of_all_programs_unless_told_otherwise() {
        let options = read(&["--quick"]).unwrap();
        assert_eq!(options.pairs, 1);
        assert!(options.wants_program("calls") && !options.wants_machine("tiny kernel, pc"));
        assert_eq!(read(&["--quick", "--pairs", "3"]).unwrap().pairs, 3);
        assert!(read(&["--pairs", "none"]).is_err());
        assert!(read(&["--only"]).is_err());
    }
}
