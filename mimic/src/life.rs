//! A machine's whole life: opened, started, run by the main loop, ended.

use std::ffi::CString;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use backend_block::SharedBlock;
use backend_char::{Chardev, MuxCommand};
use control_hmp::{Hmp, HmpMonitor};
use control_options::Config;
use control_options::config::{MemLock, PanicAction, RebootAction, ShutdownAction};
use control_qapi::{
    Event as QmpEvent, EventBus, GuestPanicAction, IdentityInfo, ShutdownCause, Timestamp, Vm,
};
use control_qmp::{Human, QmpMonitor};
use hw_core::Request;
use machine_core::{Event, Machine, Policy};
use runtime::process::{self, PidFile};
use runtime::signals::{self, Signal};
use runtime::{EventLoop, Handle, terminal, time};

use crate::blocks::{BlockControl, media};
use crate::build::{self, Plan};
use crate::guests::Guest;
use crate::hotplug::HotPlugControl;
use crate::monitor::{Facts, Monitored};
use crate::run_with::RunWith;
use crate::wreck::{self, Wreck};
use crate::{accel, assembly, sandbox, streams};

/// How long the guest's last words may take at the end.
const FLUSH: Duration = Duration::from_secs(1);
/// The multiplexer's escape key, `Ctrl-A`.
const ESCAPE: u8 = 1;

/// Ends the machine and the process.
pub(crate) struct Ending {
    machine: Machine,
    main_loop: Handle,
    events: Arc<EventBus>,
    policy: Policy,
    status: AtomicI32,
    /// A panic of the guest ends the process with a failure.
    panic_fails: bool,
    /// Somebody can look at a machine that failed.
    has_monitor: bool,
    has_panicked: AtomicBool,
}

impl Ending {
    /// Ends everything for this reason, soon: whoever asks may still have an answer to send.
    pub(crate) fn ask(self: &Arc<Self>, cause: &'static str, status: i32) {
        let me = Arc::clone(self);
        self.main_loop.post(move || me.end(cause, status));
    }

    fn end(&self, cause: &'static str, status: i32) {
        // Who asks from outside is not held back by -no-shutdown.
        self.machine.set_policy(Policy {
            no_shutdown: false,
            ..self.policy
        });
        if self.machine.state() == control_qapi::RunState::Shutdown {
            self.events.emit(&shutdown(false, cause));
            self.finish(status);
        } else {
            self.machine.shut_down(false, cause, status);
        }
    }

    /// Ends the main loop after what is posted already: monitors still send their events.
    fn finish(&self, status: i32) {
        self.status.store(status, Ordering::Relaxed);
        let main_loop = self.main_loop.clone();
        self.main_loop.post(move || main_loop.quit());
    }

    fn heed(&self, event: &Event) {
        if let Some(event) = qmp_event(event) {
            self.events.emit(&event);
        }
        match event {
            Event::Panicked { action: "poweroff" } => {
                self.has_panicked.store(true, Ordering::Relaxed)
            }
            Event::Shutdown {
                stays: false,
                status,
                ..
            } => {
                let fails = self.panic_fails && self.has_panicked.load(Ordering::Relaxed);
                self.finish(if fails { 1 } else { *status });
            }
            Event::Failed(_) if self.has_monitor => {
                log::error!("the machine is stopped; 'quit' in its monitor ends it");
            }
            Event::Failed(_) => self.finish(1),
            _ => {}
        }
    }
}

fn shutdown(guest: bool, cause: &str) -> QmpEvent {
    QmpEvent::Shutdown {
        guest,
        reason: ShutdownCause::named(cause).unwrap_or(ShutdownCause::HostError),
    }
}

/// A machine's event as QMP has it.
fn qmp_event(event: &Event) -> Option<QmpEvent> {
    Some(match event {
        Event::Stop => QmpEvent::Stop {},
        Event::Resume => QmpEvent::Resume {},
        Event::Powerdown => QmpEvent::Powerdown {},
        Event::Reset { guest } => QmpEvent::Reset {
            guest: *guest,
            reason: if *guest {
                ShutdownCause::GuestReset
            } else {
                ShutdownCause::HostQmpSystemReset
            },
        },
        Event::Shutdown { guest, cause, .. } => shutdown(*guest, cause),
        Event::Panicked { action } => QmpEvent::GuestPanicked {
            action: GuestPanicAction::named(action).unwrap_or(GuestPanicAction::Pause),
        },
        Event::CrashLoaded => QmpEvent::GuestCrashloaded {
            action: GuestPanicAction::Run,
        },
        Event::Failed(_) => return None,
    })
}

/// Runs the machine that `config` describes, to its end. Returns the exit status.
pub(crate) fn run(config: &Config, guest: &'static Guest) -> Result<i32> {
    let mut plan = build::plan(config, guest)?;
    let run_with = RunWith::of(config)?;
    prepare_process(config)?;
    run_with.follow_parent()?;
    let daemon = match config.daemonize {
        true => Some(process::daemonize().context("-daemonize: cannot go to the background")?),
        false => None,
    };
    lock_memory(config)?;
    let mut event_loop = EventLoop::new().context("cannot make the main loop")?;
    let main_loop = event_loop.handle();
    signals::ignore_sigpipe();
    let chardevs = streams::open(&plan.streams.specs, &main_loop)?;
    let wreck = Wreck::watch(&chardevs);
    greet(config, &plan, &chardevs);

    // Signals are blocked before the first thread exists, and handled once there is a machine.
    let ending: Arc<OnceLock<Arc<Ending>>> = Arc::default();
    let theirs = Arc::clone(&ending);
    let watched = [Signal::Int, Signal::Term, Signal::Hup, Signal::Cont];
    let _signals = signals::watch(&watched, &main_loop, move |received| {
        if received.signal == Signal::Cont {
            terminal::resume();
        } else if let Some(ending) = theirs.get() {
            let sender = match received.sender {
                0 => String::new(),
                pid => format!(" from pid {pid}"),
            };
            log::error!("terminating on signal {}{sender}", received.signal.number());
            ending.ask("host-signal", 0);
        }
    })
    .context("cannot watch for signals")?;

    let topology = plan.spec.topology;
    let assembly = assembly::build(&mut plan, &chardevs, &main_loop)?;
    let (board, disks) = (assembly.board.clone(), assembly.storage.disks.clone());
    let machine = board.machine.clone();
    wreck.add_machine(&board, &disks);
    for chardev in &chardevs {
        let requests = machine.fabric().requests.clone();
        chardev.set_on_exit(move |status| requests.post(Request::Exit(status)));
    }
    if let (Some(path), Some(tree)) = (plan.spec.property("dumpdtb"), &board.device_tree) {
        let written = std::fs::write(&path, tree);
        written.with_context(|| format!("-machine: 'dumpdtb={path}' cannot be written"))?;
        log::info!("the device tree was written to {path}");
        return Ok(0);
    }

    let events = EventBus::new(|| Timestamp::from_ns(time::wall_ns()));
    for tray in assembly.storage.drives.all() {
        media::tell_moves(&tray, &board, &events);
    }
    let policy = policy(config);
    machine.set_policy(policy);
    let the_end = Arc::new(Ending {
        machine: machine.clone(),
        main_loop: main_loop.clone(),
        events: Arc::clone(&events),
        policy,
        status: AtomicI32::new(0),
        panic_fails: config.action.panic == PanicAction::ExitFailure,
        has_monitor: !plan.streams.monitors.is_empty(),
        has_panicked: AtomicBool::new(false),
    });
    let weak = Arc::downgrade(&the_end);
    machine.on_event(move |event| {
        if let Some(ending) = weak.upgrade() {
            ending.heed(event);
        }
    });
    // Where tests make a build that is not for users panic: at a press of the power button.
    #[cfg(debug_assertions)]
    if std::env::var_os("MIMIC_TEST_PANIC").is_some() {
        machine.on_event(|event| assert_ne!(*event, Event::Powerdown, "on purpose"));
    }
    let _ = ending.set(Arc::clone(&the_end));
    let control = BlockControl::new(
        assembly.storage.clone(),
        plan.spec.machine,
        Arc::clone(&board),
        &events,
        &main_loop,
    );
    let hot_plug = Arc::new(HotPlugControl {
        board: Arc::clone(&board),
        storage: assembly.storage.clone(),
        blocks: Arc::clone(&control),
        globals: config.globals.clone(),
        io_threads: (assembly.io_threads.iter())
            .map(|thread| (thread.id.clone(), thread.handle()))
            .collect(),
        events: Arc::clone(&events),
        main_loop: main_loop.clone(),
    });
    let facts = Facts {
        guest: plan.guest,
        identity: IdentityInfo {
            name: config.name.guest.clone(),
            uuid: config.uuid.unwrap_or_default(),
            arch: plan.guest.name,
            kvm_enabled: plan.accel.is_kvm,
            kvm_present: accel::is_present("kvm"),
        },
        topology,
        cpu_model: plan.accel.cpu_model.clone(),
        chardevs: chardevs.clone(),
        io_threads: (assembly.io_threads.iter())
            .map(|thread| (thread.id.clone(), thread.thread_id))
            .collect(),
        blocks: Arc::clone(&control),
        hot_plug,
    };
    let vm: Arc<dyn Vm> = Arc::new(Monitored::new(
        board,
        facts,
        main_loop.clone(),
        Arc::clone(&the_end),
    ));
    let monitors = Monitors::start(&plan.streams.monitors, &chardevs, &main_loop, &vm, &events)?;
    for chardev in chardevs.iter().filter(|chardev| chardev.is_mux()) {
        chardev.set_escape(config.escape_key.unwrap_or(ESCAPE));
        let ending = Arc::downgrade(&the_end);
        chardev.set_mux_command(move |command| {
            if let (MuxCommand::Quit, Some(ending)) = (command, ending.upgrade()) {
                ending.ask("host-qmp-quit", 0);
            }
        });
    }

    machine.power_on();
    let pid_file = match &config.pidfile {
        Some(path) => Some(PidFile::create(Path::new(path)).context("-pidfile")?),
        None => None,
    };
    if let Some(daemon) = daemon {
        daemon
            .ready()
            .context("-daemonize: cannot leave the terminal")?;
    }
    run_with.enter()?;
    if let Some(opts) = &config.sandbox {
        sandbox::enter(opts)?;
    }
    if !config.paused {
        machine.start();
    }
    event_loop.run();

    machine.stop(control_qapi::RunState::Shutdown);
    control.end();
    end(&chardevs, &disks.all());
    drop((monitors, vm, pid_file));
    Ok(the_end.status.load(Ordering::Relaxed))
}

/// Nothing that the guest wrote is lost.
fn end(chardevs: &[Arc<Chardev>], blocks: &[SharedBlock]) {
    wreck::flush(blocks);
    chardevs.iter().for_each(|chardev| chardev.flush(FLUSH));
}

/// What of the process is the command line's business, before any thread exists.
fn prepare_process(config: &Config) -> Result<()> {
    if let Some(name) = &config.name.process {
        let name = CString::new(name.as_str())
            .map_err(|_| anyhow!("-name: 'process' has a zero byte in it"))?;
        rustix::thread::set_name(&name)
            .map_err(io::Error::from)
            .context("-name: cannot name the process")?;
    }
    Ok(())
}

/// Locks the memory, if that is asked for. A process that goes to the background loses its locks on the way.
fn lock_memory(config: &Config) -> Result<()> {
    if config.mem_lock != MemLock::Off {
        use rustix::mm::MlockAllFlags;
        let mut flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE;
        if config.mem_lock == MemLock::OnFault {
            flags |= MlockAllFlags::ONFAULT;
        }
        rustix::mm::mlockall(flags)
            .map_err(io::Error::from)
            .context("-overcommit: cannot lock the memory; raise the limit ('ulimit -l'), or leave mem-lock out")?;
    }
    Ok(())
}

fn policy(config: &Config) -> Policy {
    let action = &config.action;
    let no_shutdown = action.shutdown == ShutdownAction::Pause;
    Policy {
        no_reboot: action.reboot == RebootAction::Shutdown,
        no_shutdown,
        panic_powers_off: match action.panic {
            PanicAction::None => None,
            PanicAction::Pause => Some(false),
            // With -no-shutdown a crashed guest stays to be looked at.
            PanicAction::Shutdown => Some(!no_shutdown),
            PanicAction::ExitFailure => Some(true),
        },
    }
}

/// The monitors, for as long as the machine lives.
#[derive(Default)]
struct Monitors {
    _qmp: Vec<Arc<QmpMonitor>>,
    _hmp: Vec<Arc<HmpMonitor>>,
}

impl Monitors {
    fn start(
        plans: &[streams::MonitorPlan],
        chardevs: &[Arc<Chardev>],
        main_loop: &Handle,
        vm: &Arc<dyn Vm>,
        events: &EventBus,
    ) -> Result<Self> {
        let hmp = Hmp::new(Arc::clone(vm));
        let human: Arc<Human> = Arc::new(move |line, cpu| Ok(hmp.run_for(line, cpu)));
        let mut monitors = Self::default();
        for plan in plans {
            let Some(chardev) = chardevs.iter().find(|chardev| chardev.id() == plan.stream) else {
                continue;
            };
            let frontend = chardev.frontend()?;
            if plan.is_qmp {
                let human = Some(Arc::clone(&human));
                let monitor = QmpMonitor::start(
                    frontend,
                    main_loop,
                    Arc::clone(vm),
                    events,
                    human,
                    plan.is_pretty,
                );
                monitors._qmp.push(monitor);
            } else {
                let product = concat!("Mimic ", env!("CARGO_PKG_VERSION"));
                monitors._hmp.push(HmpMonitor::start(
                    frontend,
                    Hmp::new(Arc::clone(vm)),
                    product,
                ));
            }
        }
        Ok(monitors)
    }
}

/// `Ctrl-A` for 1, and so on.
fn key_name(key: u8) -> String {
    match key {
        1..=26 => format!("Ctrl-{}", char::from(key + b'@')),
        key => format!("key {key}"),
    }
}

/// What the user must know before the guest has the terminal.
fn greet(config: &Config, plan: &Plan, chardevs: &[Arc<Chardev>]) {
    for chardev in chardevs {
        if let Some(path) = chardev.pty_path() {
            eprintln!("char device redirected to {path} (label {})", chardev.id());
        }
    }
    if plan.streams.is_on_terminal && io::stdin().is_terminal() && io::stderr().is_terminal() {
        let key = key_name(config.escape_key.unwrap_or(ESCAPE));
        eprintln!(
            "{key} X leaves, {key} C switches to the monitor and back, {key} H shows more keys"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_shutdown_a_crashed_guest_stays() {
        let mut config = Config::default();
        assert_eq!(policy(&config).panic_powers_off, Some(true));
        config.action.shutdown = ShutdownAction::Pause;
        assert_eq!(policy(&config).panic_powers_off, Some(false));
    }

    #[test]
    fn every_event_of_a_machine_has_its_qmp_form() {
        let event = Event::Shutdown {
            guest: true,
            cause: "guest-shutdown",
            stays: false,
            status: 0,
        };
        let expected = QmpEvent::Shutdown {
            guest: true,
            reason: ShutdownCause::GuestShutdown,
        };
        assert_eq!(qmp_event(&event), Some(expected));
    }
}
