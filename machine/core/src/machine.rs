//! The life cycle: start, stop, reset, power off; saving and restoring.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use accel_core::{Sleeper, Vcpu, VcpuError, VcpuExit};
use control_qapi::RunState;
use hw_core::{Fabric, Request, ResetKind};
use hw_memory::What;
use hw_state::{Section, StateError};
use runtime::{Handle, Rank, Ranked};

use crate::cpu_thread::CpuThread;
use crate::turns::Turns;

/// What happens in a machine's life, for monitors and the binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The vCPUs stopped.
    Stop,
    /// The vCPUs go on.
    Resume,
    /// The machine was reset; by the guest, or by a monitor.
    Reset {
        /// Whether the guest asked.
        guest: bool,
    },
    /// The machine goes down: the binary ends, or waits with the machine stopped.
    Shutdown {
        /// Whether the guest asked.
        guest: bool,
        /// QEMU's `ShutdownCause`.
        cause: &'static str,
        /// Whether the process stays (`-no-shutdown`).
        stays: bool,
        /// Exit status of the process.
        status: i32,
    },
    /// The power button was pressed.
    Powerdown,
    /// The guest panicked.
    Panicked {
        /// `pause`, `poweroff` or `run`.
        action: &'static str,
    },
    /// The guest crashed but loads a crash kernel.
    CrashLoaded,
    /// The accelerator cannot go on.
    Failed(String),
}

/// What to do when a guest resets, powers off or panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A reset powers off (`-no-reboot`).
    pub no_reboot: bool,
    /// Powering off only stops the machine (`-no-shutdown`).
    pub no_shutdown: bool,
    /// A panic: `Some(true)` powers off, `Some(false)` stops, `None` goes on.
    pub panic_powers_off: Option<bool>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            no_reboot: false,
            no_shutdown: false,
            panic_powers_off: Some(true),
        }
    }
}

/// Why a machine could not be made, saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A vCPU's thread could not be started.
    #[error("cannot start the thread of CPU {0}")]
    Thread(usize, #[source] std::io::Error),
    /// A saved state does not fit this machine.
    #[error("the saved state is refused")]
    State(#[from] StateError),
    /// A vCPU refused.
    #[error("CPU {0}")]
    Cpu(usize, #[source] VcpuError),
    /// The machine runs.
    #[error("the machine must be stopped for this")]
    Running,
}

/// A whole machine in its saved form. Guest RAM is by block name.
#[derive(Clone, Debug)]
pub struct SavedMachine {
    /// Virtual time, in ns.
    pub clock_ns: u64,
    /// vCPUs in order.
    pub cpus: Vec<Section>,
    /// Devices by path.
    pub devices: Vec<(String, Section)>,
    /// RAM blocks by name: contents.
    pub ram: Vec<(String, Vec<u8>)>,
}

type PowerButton = Box<dyn Fn() -> bool + Send + Sync>;
type Boot = Box<dyn Fn(usize, &mut dyn Vcpu) + Send + Sync>;
type Listener = Box<dyn Fn(&Event) + Send + Sync>;

#[derive(Default)]
struct Hooks {
    power_button: Option<PowerButton>,
    boot: Option<Boot>,
}

struct Life {
    state: RunState,
    policy: Policy,
}

struct Shared {
    fabric: Fabric,
    cpus: Mutex<Vec<Arc<CpuThread>>>,
    /// The thread of CPUs that share one.
    turns: Mutex<Option<Weak<Turns>>>,
    /// Held over every change of the life cycle, so that they never interleave.
    turn: Ranked<()>,
    life: Ranked<Life>,
    hooks: Mutex<Hooks>,
    listeners: Mutex<Vec<Listener>>,
    main_loop: Handle,
}

/// A machine. Cheap to clone; all clones are the same machine.
#[derive(Clone)]
pub struct Machine {
    shared: Arc<Shared>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// A machine over these parts whose requests are carried out on `main_loop`, not yet started.
    pub fn new(fabric: Fabric, main_loop: Handle) -> Self {
        let machine = Machine {
            shared: Arc::new(Shared {
                fabric: fabric.clone(),
                cpus: Mutex::default(),
                turns: Mutex::default(),
                turn: Ranked::new(Rank::Machine, ()),
                life: Ranked::new(
                    Rank::Leaf,
                    Life {
                        state: RunState::Prelaunch,
                        policy: Policy::default(),
                    },
                ),
                hooks: Mutex::default(),
                listeners: Mutex::default(),
                main_loop: main_loop.clone(),
            }),
        };
        let weak = Arc::downgrade(&machine.shared);
        fabric.requests.connect(move |request| {
            let weak = weak.clone();
            main_loop.post(move || {
                if let Some(shared) = weak.upgrade() {
                    Machine { shared }.carry_out(request);
                }
            });
        });
        machine
    }

    /// The parts.
    pub fn fabric(&self) -> &Fabric {
        &self.shared.fabric
    }

    /// Adds a vCPU; its thread starts parked.
    pub fn add_cpu(&self, name: String, cpu: Box<dyn Vcpu>) -> Result<(), MachineError> {
        let index = lock(&self.shared.cpus).len();
        let weak = Arc::downgrade(&self.shared);
        let main_loop = self.shared.main_loop.clone();
        let exited = move |exit: VcpuExit| {
            let weak = weak.clone();
            main_loop.post(move || {
                if let Some(shared) = weak.upgrade() {
                    Machine { shared }.cpu_exited(exit);
                }
            });
        };
        let thread = match cpu.shares_thread() {
            None => CpuThread::spawn(name, cpu, exited),
            Some(sleeper) => self
                .turns(&sleeper)
                .map(|turns| CpuThread::share(turns, cpu, Box::new(exited))),
        };
        let thread = thread.map_err(|e| MachineError::Thread(index, e))?;
        lock(&self.shared.cpus).push(Arc::new(thread));
        Ok(())
    }

    /// The thread of all CPUs that sleep there.
    fn turns(&self, sleeper: &Arc<Sleeper>) -> std::io::Result<Arc<Turns>> {
        let mut known = lock(&self.shared.turns);
        let found = known.as_ref().and_then(Weak::upgrade);
        if let Some(turns) = found.filter(|turns| turns.is_of(sleeper)) {
            return Ok(turns);
        }
        let turns = Arc::new(Turns::spawn("ALL CPUs", sleeper.clone())?);
        *known = Some(Arc::downgrade(&turns));
        Ok(turns)
    }

    /// The vCPUs.
    pub fn cpus(&self) -> Vec<Arc<CpuThread>> {
        lock(&self.shared.cpus).clone()
    }

    /// Sets what to do when the guest resets, powers off or panics.
    pub fn set_policy(&self, policy: Policy) {
        self.shared.life.lock().policy = policy;
    }

    /// Sets what pressing the power button does; it answers whether the guest was told.
    pub fn set_power_button(&self, press: impl Fn() -> bool + Send + Sync + 'static) {
        lock(&self.shared.hooks).power_button = Some(Box::new(press));
    }

    /// Sets what puts kernel and start state in place: called for each CPU after its reset, in order.
    pub fn set_boot(&self, boot: impl Fn(usize, &mut dyn Vcpu) + Send + Sync + 'static) {
        lock(&self.shared.hooks).boot = Some(Box::new(boot));
    }

    /// Calls `listener` with every event, on the thread where it happens.
    pub fn on_event(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        lock(&self.shared.listeners).push(Box::new(listener));
    }

    fn tell(&self, event: &Event) {
        for listener in lock(&self.shared.listeners).iter() {
            listener(event);
        }
    }

    /// What the machine is doing.
    pub fn state(&self) -> RunState {
        self.shared.life.lock().state
    }

    fn set_state(&self, state: RunState) {
        self.shared.life.lock().state = state;
    }

    fn policy(&self) -> Policy {
        self.shared.life.lock().policy
    }

    /// Resets everything and puts the kernel in place. Called once before the first start, and for
    /// every reset, with all vCPUs parked.
    fn reset_parts(&self) {
        self.shared.fabric.reset(ResetKind::Cold);
        for (index, cpu) in self.cpus().iter().enumerate() {
            cpu.with(|cpu| {
                cpu.reset();
                if let Some(boot) = &lock(&self.shared.hooks).boot {
                    boot(index, cpu);
                }
            });
        }
    }

    /// Brings a new machine to its start state, still stopped.
    pub fn power_on(&self) {
        let _turn = self.shared.turn.lock();
        self.reset_parts();
    }

    fn park(&self) {
        let cpus = self.cpus();
        cpus.iter().for_each(|cpu| cpu.ask_to_stop());
        cpus.iter().for_each(|cpu| cpu.wait_parked());
        // Completions belong to the state that is stopped: what a disk does after it was saved would
        // be done twice.
        self.shared.fabric.drain();
        self.shared.fabric.clock.stop();
    }

    fn unpark(&self) {
        self.shared.fabric.clock.start();
        self.cpus().iter().for_each(|cpu| cpu.start());
    }

    /// Lets the vCPUs run. Does nothing when they do already.
    pub fn start(&self) {
        let _turn = self.shared.turn.lock();
        if self.state() == RunState::Running {
            return;
        }
        self.set_state(RunState::Running);
        self.tell(&Event::Resume);
        self.unpark();
    }

    /// Parks the vCPUs; the machine is then in `state`.
    pub fn stop(&self, state: RunState) {
        let _turn = self.shared.turn.lock();
        if self.state() == RunState::Running {
            self.park();
            self.set_state(state);
            self.tell(&Event::Stop);
        }
    }

    /// Runs `f` with all vCPUs parked and lets them go on after, without anybody being told.
    pub fn while_parked<R>(&self, f: impl FnOnce(&[Arc<CpuThread>]) -> R) -> R {
        let _turn = self.shared.turn.lock();
        let running = self.state() == RunState::Running;
        if running {
            self.park();
        }
        let result = f(&self.cpus());
        if running {
            self.unpark();
        }
        result
    }

    /// Resets the machine: `guest` says who asked.
    pub fn reset(&self, guest: bool) {
        if self.policy().no_reboot {
            let cause = if guest {
                "guest-reset"
            } else {
                "host-qmp-system-reset"
            };
            self.shut_down(guest, cause, 0);
            return;
        }
        let _turn = self.shared.turn.lock();
        let running = self.state() == RunState::Running;
        self.park();
        self.reset_parts();
        self.tell(&Event::Reset { guest });
        if running {
            self.unpark();
        } else if self.state() != RunState::Prelaunch {
            self.set_state(RunState::Paused);
        }
    }

    /// Presses the power button.
    pub fn press_power_button(&self) -> bool {
        let told = lock(&self.shared.hooks)
            .power_button
            .as_ref()
            .is_some_and(|press| press());
        self.tell(&Event::Powerdown);
        told
    }

    /// The machine goes down.
    pub fn shut_down(&self, guest: bool, cause: &'static str, status: i32) {
        let _turn = self.shared.turn.lock();
        if self.state() == RunState::Shutdown {
            return;
        }
        self.park();
        self.set_state(RunState::Shutdown);
        let stays = self.policy().no_shutdown;
        self.tell(&Event::Shutdown {
            guest,
            cause,
            stays,
            status,
        });
        if stays {
            self.tell(&Event::Stop);
        }
    }

    fn carry_out(&self, request: Request) {
        match request {
            Request::Reset => self.reset(true),
            Request::PowerOff => self.shut_down(true, "guest-shutdown", 0),
            Request::Exit(status) => {
                let _turn = self.shared.turn.lock();
                self.park();
                self.set_state(RunState::Shutdown);
                let status = i32::from(status);
                self.tell(&Event::Shutdown {
                    guest: true,
                    cause: "guest-shutdown",
                    stays: false,
                    status,
                });
            }
            Request::Panicked => match self.policy().panic_powers_off {
                Some(true) => {
                    self.tell(&Event::Panicked { action: "poweroff" });
                    self.shut_down(true, "guest-panic", 0);
                }
                Some(false) => {
                    self.tell(&Event::Panicked { action: "pause" });
                    self.stop(RunState::GuestPanicked);
                }
                None => self.tell(&Event::Panicked { action: "run" }),
            },
            Request::CrashLoaded => self.tell(&Event::CrashLoaded),
            Request::Suspend => self.stop(RunState::Suspended),
            Request::WakeUp if self.state() == RunState::Suspended => self.start(),
            Request::WakeUp => {}
        }
    }

    fn cpu_exited(&self, exit: VcpuExit) {
        match exit {
            VcpuExit::Shutdown => self.reset(true),
            VcpuExit::Failed(why) => {
                log::error!("{why}");
                self.stop(RunState::InternalError);
                self.tell(&Event::Failed(why));
            }
            VcpuExit::Again | VcpuExit::Stopped => {}
        }
    }

    /// The saved form. The machine must be stopped.
    pub fn save(&self) -> Result<SavedMachine, MachineError> {
        let _turn = self.shared.turn.lock();
        if self.state() == RunState::Running {
            return Err(MachineError::Running);
        }
        let mut cpus = Vec::new();
        for (index, cpu) in self.cpus().iter().enumerate() {
            let section = cpu.with(|cpu| cpu.save()).ok_or(MachineError::Running)?;
            cpus.push(section.map_err(|e| MachineError::Cpu(index, e))?);
        }
        let fabric = &self.shared.fabric;
        Ok(SavedMachine {
            clock_ns: fabric.clock.now_ns(),
            cpus,
            devices: fabric.save(),
            ram: self
                .blocks()
                .into_iter()
                .map(|(name, block)| (name, contents(&block)))
                .collect(),
        })
    }

    /// Takes over a saved machine of the same shape. The machine must be stopped.
    pub fn restore(&self, saved: &SavedMachine) -> Result<(), MachineError> {
        let _turn = self.shared.turn.lock();
        if self.state() == RunState::Running {
            return Err(MachineError::Running);
        }
        let cpus = self.cpus();
        if cpus.len() != saved.cpus.len() {
            return Err(StateError::Malformed("the number of CPUs differs").into());
        }
        let fabric = &self.shared.fabric;
        fabric.clock.set_ns(saved.clock_ns);
        for (name, block) in self.blocks() {
            let bytes = saved.ram.iter().find(|(n, _)| *n == name).map(|(_, b)| b);
            let fits =
                bytes.is_some_and(|b| b.len() as u64 == block.len() && block.write(0, b).is_some());
            if !fits {
                return Err(
                    StateError::Malformed("a memory block is missing or of another size").into(),
                );
            }
        }
        fabric.restore(&saved.devices)?;
        for (index, (cpu, section)) in cpus.iter().zip(&saved.cpus).enumerate() {
            let restored = cpu
                .with(|cpu| cpu.restore(section))
                .ok_or(MachineError::Running)?;
            restored.map_err(|e| MachineError::Cpu(index, e))?;
        }
        Ok(())
    }

    /// RAM blocks in the memory map, each once.
    fn blocks(&self) -> Vec<(String, Arc<hw_memory::RamBlock>)> {
        let mut blocks: Vec<(String, Arc<hw_memory::RamBlock>)> = Vec::new();
        for mapping in self.shared.fabric.memory.mappings() {
            if let What::Ram { block, .. } | What::Rom { block, .. } = mapping.what
                && !blocks.iter().any(|(_, b)| Arc::ptr_eq(b, &block))
            {
                blocks.push((block.name().to_string(), block));
            }
        }
        blocks
    }
}

fn contents(block: &hw_memory::RamBlock) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(block.len()).unwrap_or(0)];
    block.read(0, &mut bytes);
    bytes
}
