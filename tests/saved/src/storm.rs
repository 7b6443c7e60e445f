//! Mutated sections against a machine, one after the other.

use accel_core::reason;
use anyhow::{Context as _, Result, ensure};
use machine_core::{Machine, SavedMachine};

use crate::mutate::{Mutator, Random};
use crate::traffic::access;

/// Register accesses after each restored mutation.
const ACCESSES: usize = 24;

/// How the mutations went.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Restored all the same.
    pub taken: u64,
    /// Ended in an error.
    pub refused: u64,
}

/// Restores mutations of a saved machine into a stopped one of the same shape.
pub struct Storm<'a> {
    machine: &'a Machine,
    saved: &'a SavedMachine,
    random: Random,
    tally: Tally,
}

impl<'a> Storm<'a> {
    /// Mutations by this seed.
    pub fn new(machine: &'a Machine, saved: &'a SavedMachine, seed: u64) -> Self {
        Storm {
            machine,
            saved,
            random: Random::new(seed),
            tally: Tally::default(),
        }
    }

    /// `cases` mutations of every device's and every CPU's section.
    ///
    /// # Errors
    /// When a refused section left a trace, or the machine does not come back.
    pub fn run(mut self, cases: usize) -> Result<Tally> {
        self.heal()?;
        for _ in 0..cases {
            for (path, _) in &self.saved.devices {
                self.device(path)?;
            }
            for cpu in 0..self.saved.cpus.len() {
                self.cpu(cpu)?;
            }
        }
        Ok(self.tally)
    }

    /// The state that was saved, but for RAM: its contents are the guest's anyway.
    fn heal(&self) -> Result<()> {
        self.machine.fabric().clock.set_ns(self.saved.clock_ns);
        self.machine.fabric().restore(&self.saved.devices)?;
        for (cpu, section) in self.machine.cpus().iter().zip(&self.saved.cpus) {
            cpu.with(|cpu| cpu.restore(section))
                .context("the CPU runs")??;
        }
        Ok(())
    }

    fn device(&mut self, path: &str) -> Result<()> {
        let section = self.saved.devices.iter().find(|(p, _)| p == path);
        let (_, section) = section.context("no such device")?;
        let Some(mutated) = Mutator(&mut self.random).section(section) else {
            return Ok(());
        };
        let part = self.machine.fabric().find(path).context("no such part")?;
        let before = part.with(|device| device.save());
        if let Err(error) = part.with(|device| device.restore(&mutated)) {
            self.tally.refused += 1;
            ensure!(
                part.with(|device| device.save()) == before,
                "{path}: refused ({error}), but changed"
            );
            return Ok(());
        }
        self.tally.taken += 1;
        for part in self.machine.fabric().parts() {
            part.with(|device| device.after_reset());
        }
        self.use_it();
        // What came of it can be saved and read again.
        let again = part.with(|device| device.save());
        part.with(|device| device.restore(&again))
            .with_context(|| format!("{path} does not take what it saved: {again:?}"))?;
        self.heal()
    }

    fn cpu(&mut self, index: usize) -> Result<()> {
        let section = self.saved.cpus.get(index).context("no such CPU")?;
        let Some(mutated) = Mutator(&mut self.random).section(section) else {
            return Ok(());
        };
        let cpus = self.machine.cpus();
        let cpu = cpus.get(index).context("no such CPU")?;
        if cpu
            .with(|cpu| cpu.restore(&mutated))
            .context("the CPU runs")?
            .is_err()
        {
            self.tally.refused += 1;
            return Ok(());
        }
        self.tally.taken += 1;
        self.use_it();
        cpu.with(|cpu| (cpu.describe(), cpu.debug_translate(0), cpu.report("tlb")));
        self.heal()
    }

    /// Register accesses, timers, and a slice of instructions on each CPU that is awake.
    fn use_it(&mut self) {
        let fabric = self.machine.fabric();
        fabric.clock.start();
        fabric.clock.run_timers();
        for _ in 0..ACCESSES {
            access(&fabric.ports, &mut self.random);
            access(&fabric.memory, &mut self.random);
        }
        for cpu in self.machine.cpus() {
            cpu.with(|cpu| {
                cpu.pending().clear(reason::STOP);
                if !cpu.is_halted() {
                    let _ = cpu.run();
                }
            });
        }
        fabric.clock.run_timers();
        fabric.clock.stop();
    }
}
