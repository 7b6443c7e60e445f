//! The timed programs of `bench/`: built for a guest, put into its first root, and run there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary::workspace;
use crate::cpio::Archive;
use crate::{Error, Guest, Vm, VmBuilder};

/// How every compiler is called. Results must not depend on contraction, nor `sqrt` on `errno`.
const FLAGS: &str = "-O2 -std=gnu11 -Wall -Wextra -static -ffp-contract=off -fno-math-errno";

/// The programs, built for one guest.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The static executable.
    pub executable: PathBuf,
    /// The guest's first root with the executable as `/bin/bench`.
    pub initrd: PathBuf,
}

/// What one run printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Nanoseconds by the clock of the machine it ran on.
    pub ns: u64,
    /// The checksum of the results, as printed.
    pub sum: String,
}

impl Programs {
    /// Compiles the programs into `folder` and makes the initrd. `triple` names one of Debian's
    /// cross compilers, as `aarch64-linux-gnu`; without it the host's own is used.
    pub fn build(folder: &Path, triple: Option<&str>, guest: &Guest) -> Result<Self, Error> {
        std::fs::create_dir_all(folder)?;
        let executable = folder.join("bench");
        let compiler = triple.map_or_else(|| "gcc".to_owned(), |triple| format!("{triple}-gcc"));
        let mut command = Command::new(&compiler);
        command.args(FLAGS.split_whitespace());
        command.arg("-o").arg(&executable);
        let mut sources: Vec<PathBuf> = std::fs::read_dir(workspace().join("bench"))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        sources.retain(|path| path.extension().is_some_and(|end| end == "c"));
        sources.sort();
        finished(command.args(sources).arg("-lm"))?;

        let mut archive = Archive::default();
        archive.program("bin/bench", &std::fs::read(&executable)?);
        // The kernel unpacks archives that follow each other into one root.
        let mut bytes = std::fs::read(&guest.initrd)?;
        bytes.extend(archive.finish());
        let initrd = folder.join("initrd");
        std::fs::write(&initrd, bytes)?;
        Ok(Self { executable, initrd })
    }

    /// The names of all programs, of an executable that this host can run.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let said = finished(Command::new(&self.executable).arg("list"))?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// Runs a program on the host itself.
    pub fn native(&self, name: &str, units: u64) -> Result<Done, Error> {
        let said = finished(Command::new(&self.executable).args([name, &units.to_string()]))?;
        done(said.trim(), name, units)
    }

    /// Boots `machine` with the kernel of `guest` until it takes orders.
    pub fn serve(&self, machine: VmBuilder, guest: &Guest) -> Result<Server, Error> {
        let mut vm = machine
            .linux(guest)
            // The last one counts.
            .option("-initrd", &self.initrd)
            .append("quiet guest.run=bench,serve")
            .boot()?;
        vm.expect("SERVING")?;
        vm.expect("\n")?;
        Ok(Server { vm })
    }
}

/// A guest that runs programs one at a time, and is idle in between.
pub struct Server {
    /// The machine.
    pub vm: Vm,
}

impl Server {
    /// Runs a program in the guest.
    pub fn run(&mut self, name: &str, units: u64) -> Result<Done, Error> {
        self.vm.send(&format!("{name} {units}\n"))?;
        // What comes before is the kernel's.
        let before = self.vm.expect(&format!(" {name} units="))?;
        let rest = self.vm.expect("\n")?;
        let verb = before.rsplit(['\n', '\r']).next().unwrap_or_default();
        done(
            format!("{verb} {name} units={rest}").trim_end(),
            name,
            units,
        )
    }
}

/// Reads `DONE name units=N ns=T rate=R sum=S`.
fn done(line: &str, name: &str, units: u64) -> Result<Done, Error> {
    let rest = line.strip_prefix(&format!("DONE {name} units={units} ns="));
    let parsed = rest.and_then(|rest| {
        let (times, sum) = rest.split_once(" sum=")?;
        Some(Done {
            ns: times.split_once(" rate=")?.0.parse().ok()?,
            sum: sum.to_owned(),
        })
    });
    parsed.ok_or_else(|| Error::NotSeen {
        wanted: format!("DONE {name} units={units}"),
        reason: "this came instead",
        seen: line.to_owned(),
    })
}

/// Runs a program of the host to its end and returns what it printed.
fn finished(command: &mut Command) -> Result<String, Error> {
    let program = PathBuf::from(command.get_program());
    let out = command.output().map_err(|reason| Error::Start {
        program: program.clone(),
        reason: reason.to_string(),
    })?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(Error::Exit {
        reason: format!("{} ended with {}", program.display(), out.status),
        seen: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_another_run_is_not_taken_for_this_one() {
        let line = "DONE calls units=3 ns=17 rate=176470588 sum=00ff";
        assert_eq!(
            done(line, "calls", 3).unwrap(),
            Done {
                ns: 17,
                sum: "00ff".to_owned()
            }
        );
        assert!(done(line, "calls", 4).is_err());
        assert!(done(line, "hash", 3).is_err());
    }
}
