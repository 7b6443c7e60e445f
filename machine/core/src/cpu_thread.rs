//! A vCPU's thread: runs the CPU while it may, parks it when told. Several may share one
//! ([`turns`](crate::turns)).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use accel_core::{Pending, Vcpu, VcpuExit, reason};

use crate::turns::Turns;

#[derive(Default)]
struct Slot {
    /// The CPU, while it is parked.
    cpu: Option<Box<dyn Vcpu>>,
    run: bool,
    quit: bool,
    /// Operating system's id of the thread.
    thread_id: i32,
}

/// What is called on a CPU's thread when it ends a run by itself.
pub(crate) type Exited = Box<dyn Fn(VcpuExit) + Send>;

impl Slot {
    fn may_run(&self) -> bool {
        self.run && self.cpu.is_some()
    }
}

/// A CPU as its thread and everybody else see it.
pub(crate) struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

impl Shared {
    fn new(cpu: Box<dyn Vcpu>) -> Arc<Self> {
        let slot = Slot {
            cpu: Some(cpu),
            ..Slot::default()
        };
        Arc::new(Shared {
            slot: Mutex::new(slot),
            changed: Condvar::new(),
        })
    }

    /// The calling thread runs the CPU.
    pub(crate) fn be_run_here(&self) {
        self.lock().thread_id = runtime::thread::current_id();
        self.changed.notify_all();
    }

    fn wait_for_thread(&self) {
        let unknown = |slot: &mut Slot| slot.thread_id == 0;
        drop(self.changed.wait_while(self.lock(), unknown));
    }

    /// The CPU, if it may run.
    pub(crate) fn take(&self) -> Option<Box<dyn Vcpu>> {
        let mut slot = self.lock();
        match slot.may_run() && !slot.quit {
            true => slot.cpu.take(),
            false => None,
        }
    }

    /// The CPU has ended a run.
    pub(crate) fn put_back(&self, cpu: Box<dyn Vcpu>, exit: &VcpuExit) {
        let mut slot = self.lock();
        slot.cpu = Some(cpu);
        if *exit != VcpuExit::Stopped {
            slot.run = false;
        }
        drop(slot);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vCPU and the thread that runs it.
pub struct CpuThread {
    shared: Arc<Shared>,
    pending: Arc<Pending>,
    thread: Thread,
}

enum Thread {
    Own(Option<std::thread::JoinHandle<()>>),
    Shared(Arc<Turns>),
}

impl CpuThread {
    /// Starts the thread, parked. `exited` is called on it when the CPU ends a run by itself.
    pub fn spawn(
        name: String,
        cpu: Box<dyn Vcpu>,
        exited: impl Fn(VcpuExit) + Send + 'static,
    ) -> std::io::Result<Self> {
        let pending = cpu.pending();
        let shared = Shared::new(cpu);
        let theirs = shared.clone();
        let thread = runtime::thread::spawn(&name, move || {
            theirs.be_run_here();
            run(&theirs, exited);
        })?;
        // Whoever asks for its id from now on gets it.
        shared.wait_for_thread();
        Ok(CpuThread {
            shared,
            pending,
            thread: Thread::Own(Some(thread)),
        })
    }

    /// Has a thread that runs several CPUs run this one too.
    pub(crate) fn share(turns: Arc<Turns>, cpu: Box<dyn Vcpu>, exited: Exited) -> Self {
        let pending = cpu.pending();
        let shared = Shared::new(cpu);
        turns.add(shared.clone(), exited);
        shared.wait_for_thread();
        CpuThread {
            shared,
            pending,
            thread: Thread::Shared(turns),
        }
    }

    /// Lets the CPU run.
    pub fn start(&self) {
        self.pending.clear(reason::STOP);
        self.shared.lock().run = true;
        self.tell();
    }

    /// Has the thread look at what was changed.
    fn tell(&self) {
        self.shared.changed.notify_all();
        if let Thread::Shared(turns) = &self.thread {
            turns.look();
        }
    }

    /// Asks the CPU to park. [`wait_parked`](Self::wait_parked) waits for it.
    pub fn ask_to_stop(&self) {
        self.shared.lock().run = false;
        self.pending.raise(reason::STOP);
    }

    /// Waits until the CPU is parked.
    pub fn wait_parked(&self) {
        let mut slot = self.shared.lock();
        while slot.cpu.is_none() {
            slot = self
                .shared
                .changed
                .wait(slot)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the CPU is parked, but no longer than this. Says whether it is.
    pub fn wait_parked_for(&self, limit: Duration) -> bool {
        let slot = self.shared.lock();
        let parks = |slot: &mut Slot| slot.cpu.is_none();
        self.shared
            .changed
            .wait_timeout_while(slot, limit, parks)
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .cpu
            .is_some()
    }

    /// Runs `f` on the parked CPU. `None` while it runs.
    pub fn with<R>(&self, f: impl FnOnce(&mut dyn Vcpu) -> R) -> Option<R> {
        self.shared.lock().cpu.as_mut().map(|cpu| f(cpu.as_mut()))
    }

    /// The word by which others reach the CPU.
    pub fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// Operating system's id of the thread.
    pub fn thread_id(&self) -> i32 {
        self.shared.lock().thread_id
    }
}

impl Drop for CpuThread {
    fn drop(&mut self) {
        self.shared.lock().quit = true;
        self.ask_to_stop();
        self.tell();
        match &mut self.thread {
            Thread::Own(thread) => {
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            Thread::Shared(_) => self.wait_parked(),
        }
    }
}

fn run(shared: &Shared, exited: impl Fn(VcpuExit)) {
    loop {
        let mut slot = shared.lock();
        while !slot.quit && !slot.may_run() {
            slot = shared
                .changed
                .wait(slot)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if slot.quit {
            return;
        }
        let Some(mut cpu) = slot.cpu.take() else {
            continue;
        };
        drop(slot);
        let exit = loop {
            match cpu.run() {
                VcpuExit::Again => {}
                exit => break exit,
            }
        };
        shared.put_back(cpu, &exit);
        if exit != VcpuExit::Stopped {
            exited(exit);
        }
    }
}
