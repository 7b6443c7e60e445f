//! A whole machine in this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use backend_char::Chardev;
use control_options::{Outcome, parse};
use control_qapi::RunState;
use hw_state::codec;
use machine_core::{Event, Machine, Policy, SavedMachine};
use mimic::assembly::{self, Assembly};
use mimic::{build, guests, streams};
use runtime::EventLoop;

/// How long a machine may take to its end. Far beyond any boot: it ends tests that hang.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the console is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Words of every command line.
const ALWAYS: &[&str] = &[
    "-nodefaults",
    "-display",
    "none",
    "-no-reboot",
    "-chardev",
    "ringbuf,id=console,size=16M",
    "-serial",
    "chardev:console",
];

/// A machine, its main loop and its console. Dropping it ends it.
pub struct Rig {
    machine: Machine,
    _assembly: Assembly,
    console: Arc<Chardev>,
    text: String,
    events: Arc<Mutex<Vec<Event>>>,
    event_loop: EventLoop,
}

impl Rig {
    /// The machine of this command line on the engine, powered on and stopped.
    ///
    /// # Errors
    /// When there cannot be one.
    pub fn new(args: &[String]) -> Result<Self> {
        Rig::on("tcg", args)
    }

    /// The same on another accelerator, as `-accel` names it.
    ///
    /// # Errors
    /// When there cannot be one.
    pub fn on(accelerator: &str, args: &[String]) -> Result<Self> {
        let mut all: Vec<String> = ALWAYS.iter().map(|word| (*word).to_owned()).collect();
        all.extend(["-accel".to_owned(), accelerator.to_owned()]);
        all.extend_from_slice(args);
        let Outcome::Run(config) = parse(&all)? else {
            bail!("the command line asks for help");
        };
        let mut plan = build::plan(&config, guests::choose("mimic", config.machine.as_deref())?)?;
        let event_loop = EventLoop::new()?;
        let chardevs = streams::open(&plan.streams.specs, &event_loop.handle())?;
        let console = chardevs.iter().find(|chardev| chardev.id() == "console");
        let console = Arc::clone(console.context("no console")?);
        let assembly = assembly::build(&mut plan, &chardevs, &event_loop.handle())?;
        let machine = assembly.board.machine.clone();
        machine.set_policy(Policy {
            no_reboot: true,
            ..Policy::default()
        });
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let log = Arc::clone(&events);
        machine.on_event(move |event| {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push(event.clone());
        });
        machine.power_on();
        Ok(Rig {
            machine,
            _assembly: assembly,
            console,
            text: String::new(),
            events,
            event_loop,
        })
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What the guest wrote so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How the machine ended, if it did.
    pub fn ended(&self) -> Option<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let is_end = |event: &&Event| matches!(event, Event::Shutdown { .. } | Event::Failed(_));
        events.iter().find(is_end).cloned()
    }

    /// One turn of the main loop.
    fn turn(&mut self) {
        self.event_loop.turn(Some(LOOK));
        self.listen();
    }

    fn listen(&mut self) {
        let bytes = self.console.ringbuf_read(usize::MAX).unwrap_or_default();
        self.text.push_str(&String::from_utf8_lossy(&bytes));
    }

    /// Runs the machine until the guest has written `len` bytes, and stops it. False if it ended
    /// before.
    ///
    /// # Errors
    /// When it takes for ever.
    pub fn run_to_output(&mut self, len: usize) -> Result<bool> {
        let start = Instant::now();
        self.machine.start();
        while self.text.len() < len && self.ended().is_none() {
            ensure!(
                start.elapsed() < PATIENCE,
                "the guest hangs after:\n{}",
                self.text
            );
            self.turn();
        }
        self.machine.stop(RunState::Paused);
        // What it wrote before it stood still is in the saved machine's past too.
        self.listen();
        Ok(self.ended().is_none())
    }

    /// Runs the machine until the guest has powered it off.
    ///
    /// # Errors
    /// When it ends otherwise, or never.
    pub fn run_to_power_off(&mut self) -> Result<()> {
        self.run_to_output(usize::MAX)?;
        let end = self.ended();
        let is_off = matches!(
            end,
            Some(Event::Shutdown {
                cause: "guest-shutdown",
                ..
            })
        );
        ensure!(is_off, "the machine ended by {end:?} after:\n{}", self.text);
        Ok(())
    }

    /// The saved form of the stopped machine.
    ///
    /// # Errors
    /// When a part refuses.
    pub fn save(&self) -> Result<SavedMachine> {
        Ok(self.machine.save()?)
    }

    /// Takes over a saved machine.
    ///
    /// # Errors
    /// When a part refuses it.
    pub fn restore(&self, saved: &SavedMachine) -> Result<()> {
        self.machine.restore(saved).context("restoring")
    }
}

/// The same saved machine, every section written to bytes and read back.
///
/// # Errors
/// When a section does not survive that.
pub fn through_bytes(saved: SavedMachine) -> Result<SavedMachine> {
    let again = |section: &hw_state::Section| -> Result<hw_state::Section> {
        let back = codec::decode(&codec::encode(section))?;
        ensure!(back == *section, "'{}' changed on its way", section.name());
        Ok(back)
    };
    let cpus = saved.cpus.iter().map(again).collect::<Result<_>>()?;
    let devices = saved
        .devices
        .iter()
        .map(|(path, section)| Ok((path.clone(), again(section)?)))
        .collect::<Result<_>>()?;
    Ok(SavedMachine {
        cpus,
        devices,
        ..saved
    })
}
