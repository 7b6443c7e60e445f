//! A vCPU's thread: runs the CPU while it may, parks it when told.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use accel_core::{Pending, Vcpu, VcpuExit, reason};

#[derive(Default)]
struct Slot {
    /// The CPU, while it is parked.
    cpu: Option<Box<dyn Vcpu>>,
    run: bool,
    quit: bool,
    /// Operating system's id of the thread.
    thread_id: i32,
}

impl Slot {
    fn may_run(&self) -> bool {
        self.run && self.cpu.is_some()
    }
}

struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vCPU and the thread that runs it.
pub struct CpuThread {
    shared: Arc<Shared>,
    pending: Arc<Pending>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl CpuThread {
    /// Starts the thread, parked. `exited` is called on it when the CPU ends a run by itself.
    pub fn spawn(
        name: String,
        cpu: Box<dyn Vcpu>,
        exited: impl Fn(VcpuExit) + Send + 'static,
    ) -> std::io::Result<Self> {
        let pending = cpu.pending();
        let slot = Slot {
            cpu: Some(cpu),
            ..Slot::default()
        };
        let shared = Arc::new(Shared {
            slot: Mutex::new(slot),
            changed: Condvar::new(),
        });
        let theirs = shared.clone();
        let thread = runtime::thread::spawn(&name, move || {
            theirs.lock().thread_id = runtime::thread::current_id();
            theirs.changed.notify_all();
            run(&theirs, exited);
        })?;
        // Whoever asks for its id from now on gets it.
        let unknown = |slot: &mut Slot| slot.thread_id == 0;
        drop(shared.changed.wait_while(shared.lock(), unknown));
        Ok(CpuThread {
            shared,
            pending,
            thread: Some(thread),
        })
    }

    /// Lets the CPU run.
    pub fn start(&self) {
        self.pending.clear(reason::STOP);
        self.shared.lock().run = true;
        self.shared.changed.notify_all();
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
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
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
        let mut slot = shared.lock();
        slot.cpu = Some(cpu);
        if exit != VcpuExit::Stopped {
            slot.run = false;
        }
        drop(slot);
        shared.changed.notify_all();
        if exit != VcpuExit::Stopped {
            exited(exit);
        }
    }
}
