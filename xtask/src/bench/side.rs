//! One emulator in a comparison of programs: its guest, kept up between programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use test_boot::programs::{Programs, Server};
use test_boot::{Guest, Vm};

use super::kind::Kind;

pub(super) const RAM_MIB: u64 = 512;

/// An emulator, with the guest that takes orders once it is up.
pub(super) struct Side<'a> {
    pub(super) label: String,
    pub(super) program: PathBuf,
    pub(super) kind: &'static Kind,
    pub(super) flags: &'a [String],
    pub(super) guest: &'a Guest,
    pub(super) programs: &'a Programs,
    /// Ends a boot or a run that hangs.
    pub(super) patience: Duration,
    server: Option<Server>,
    /// A guest that did not come up once is not waited for again.
    is_dead: bool,
}

/// What one run cost and computed.
pub(super) struct Run {
    pub(super) cpu: Duration,
    pub(super) sum: String,
}

impl<'a> Side<'a> {
    pub(super) fn new(
        (label, program): (String, &Path),
        (kind, flags): (&'static Kind, &'a [String]),
        (guest, programs): (&'a Guest, &'a Programs),
        patience: Duration,
    ) -> Self {
        Self {
            label,
            program: program.to_owned(),
            kind,
            flags,
            guest,
            programs,
            patience,
            server: None,
            is_dead: false,
        }
    }

    /// What both emulators are told, then what this one is.
    pub(super) fn flags(&self) -> Vec<String> {
        let mut flags = vec!["-m".to_owned(), RAM_MIB.to_string()];
        if self.guest.seabios.exists() {
            flags.extend(["-L".to_owned(), self.guest.seabios.display().to_string()]);
        }
        flags.extend(self.kind.flags.iter().map(|&flag| flag.to_owned()));
        if !self.flags.iter().any(|flag| flag == "-accel") {
            flags.extend(["-accel".to_owned(), "tcg".to_owned()]);
        }
        flags.extend_from_slice(self.flags);
        flags
    }

    /// Runs a program in this side's guest, booting it first unless it is up. After a failure the
    /// next run gets a fresh guest.
    pub(super) fn run(&mut self, name: &str, units: u64) -> Result<Run> {
        let mut server = match self.server.take() {
            Some(server) => server,
            None => {
                ensure!(!self.is_dead, "{}: its guest does not come up", self.label);
                self.is_dead = true;
                let mut machine = Vm::new(self.kind.machine)
                    .program(&self.program)
                    .patience(self.patience);
                for flag in self.flags() {
                    machine = machine.arg(flag);
                }
                self.programs
                    .serve(machine, self.guest)
                    .with_context(|| format!("{}: the guest did not come up", self.label))?
            }
        };
        self.is_dead = false;
        // The guest waits for a line before and after: all between is the program's.
        let before = processor_time(&server.vm)?;
        let done = server
            .run(name, units)
            .with_context(|| format!("{}: {name} did not end", self.label))?;
        let cpu = processor_time(&server.vm)?.saturating_sub(before);
        self.server = Some(server);
        Ok(Run { cpu, sum: done.sum })
    }

    /// Processor time of one unit, measured over runs of growing length.
    pub(super) fn calibrate(&mut self, name: &str, target: Duration) -> Result<f64> {
        let enough = target / 10;
        // What a program sets up once is not counted.
        self.run(name, 1)?;
        let mut units = 1;
        loop {
            let cpu = self.run(name, units)?.cpu;
            if cpu >= enough {
                return Ok(cpu.as_secs_f64() / units as f64);
            }
            ensure!(units < 1 << 40, "{name} takes no time");
            // The first runs are mostly warming up.
            let wanted = enough.as_secs_f64() / cpu.as_secs_f64().max(1e-6);
            units = (units as f64 * wanted.clamp(2.0, 20.0)).ceil() as u64;
        }
    }
}

/// User and system time of all threads of the machine's process so far.
pub(super) fn processor_time(vm: &Vm) -> Result<Duration> {
    let pid = i32::try_from(vm.pid())?;
    let clock =
        ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).context("the emulator is not running")?;
    Ok(clock_gettime(clock)?.into())
}
