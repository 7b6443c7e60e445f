//! One thread for several vCPUs, which run in turn (`-accel tcg,thread=single`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use accel_core::{Sleeper, Vcpu, VcpuExit};

use crate::cpu_thread::{Exited, Shared};

struct Member {
    cpu: Arc<Shared>,
    exited: Exited,
}

#[derive(Default)]
struct Orders {
    /// CPUs that the thread does not know yet.
    new: Mutex<Vec<Member>>,
    /// Whether it is to look at all of them.
    look: AtomicBool,
    quit: AtomicBool,
}

impl Orders {
    fn added(&self) -> MutexGuard<'_, Vec<Member>> {
        self.new.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread. Ends with the last of its CPUs.
pub(crate) struct Turns {
    orders: Arc<Orders>,
    sleeper: Arc<Sleeper>,
    thread: Option<JoinHandle<()>>,
}

impl Turns {
    /// Starts the thread, which sleeps where its CPUs do.
    pub(crate) fn spawn(name: &str, sleeper: Arc<Sleeper>) -> std::io::Result<Self> {
        let orders = Arc::<Orders>::default();
        let (theirs, bed) = (orders.clone(), sleeper.clone());
        let thread = runtime::thread::spawn(name, move || run(&theirs, &bed))?;
        Ok(Turns {
            orders,
            sleeper,
            thread: Some(thread),
        })
    }

    /// Whether CPUs with this sleeper are its own.
    pub(crate) fn is_of(&self, sleeper: &Arc<Sleeper>) -> bool {
        Arc::ptr_eq(&self.sleeper, sleeper)
    }

    pub(crate) fn add(&self, cpu: Arc<Shared>, exited: Exited) {
        self.orders.added().push(Member { cpu, exited });
        self.look();
    }

    /// Has the thread look at all CPUs.
    pub(crate) fn look(&self) {
        self.orders.look.store(true, Ordering::SeqCst);
        self.sleeper.wake();
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.orders.quit.store(true, Ordering::SeqCst);
        self.look();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(orders: &Orders, sleeper: &Sleeper) {
    let mut members: Vec<Member> = Vec::new();
    // Those that run now, by their number.
    let mut running: Vec<(usize, Box<dyn Vcpu>)> = Vec::new();
    loop {
        if orders.look.swap(false, Ordering::SeqCst) {
            if orders.quit.load(Ordering::SeqCst) && running.is_empty() {
                return;
            }
            for member in orders.added().drain(..) {
                member.cpu.be_run_here();
                members.push(member);
            }
            let taken = members.iter().enumerate();
            running.extend(taken.filter_map(|(i, member)| Some((i, member.cpu.take()?))));
            running.sort_by_key(|(i, _)| *i);
        }
        let mut has_run = false;
        for (i, mut cpu) in std::mem::take(&mut running) {
            let exit = match cpu.is_idle() {
                true => VcpuExit::Again,
                false => {
                    has_run = true;
                    cpu.run()
                }
            };
            match (exit, members.get(i)) {
                (VcpuExit::Again, _) => running.push((i, cpu)),
                (exit, Some(member)) => {
                    member.cpu.put_back(cpu, &exit);
                    if exit != VcpuExit::Stopped {
                        (member.exited)(exit);
                    }
                }
                (_, None) => {}
            }
        }
        if !has_run {
            sleeper.wait(|| {
                orders.look.load(Ordering::SeqCst) || running.iter().any(|(_, cpu)| !cpu.is_idle())
            });
        }
    }
}
