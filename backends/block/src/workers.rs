//! Threads that carry out the requests of one disk.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// A request ready to be carried out: does the work and calls the completion.
pub type Work = Box<dyn FnOnce() + Send>;

enum Item {
    Job(Work),
    Barrier,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Threads alive.
    threads: usize,
    /// Threads waiting for work.
    idle: usize,
    /// Threads that will take one job more when theirs is done, and need not be woken for it.
    free_soon: Vec<ThreadId>,
    /// Jobs being carried out.
    busy: usize,
    /// How many want no job to begin.
    pauses: usize,
    closed: bool,
}

impl Queue {
    /// Whether this thread has a job under way and none yet to take after it; now it has.
    fn takes(&mut self, thread: ThreadId) -> bool {
        let found = self.free_soon.iter().position(|free| *free == thread);
        found.map(|at| self.free_soon.swap_remove(at)).is_some()
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// Work has come, or the end.
    work: Condvar,
    /// A job is done.
    quiet: Condvar,
    name: String,
    limit: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pool of named threads, started when there is work for them.
pub struct Workers {
    shared: Arc<Shared>,
}

impl Workers {
    /// At most `limit` threads of this name; the first is started at once, so that there is always
    /// one.
    pub fn new(name: impl Into<String>, limit: usize) -> std::io::Result<Self> {
        let workers = Workers {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                work: Condvar::new(),
                quiet: Condvar::new(),
                name: name.into(),
                limit: limit.max(1),
            }),
        };
        workers.start(&mut workers.shared.lock())?;
        Ok(workers)
    }

    fn start(&self, queue: &mut Queue) -> std::io::Result<()> {
        let shared = self.shared.clone();
        std::thread::Builder::new()
            .name(self.shared.name.clone())
            .spawn(move || run(&shared))?;
        queue.threads = queue.threads.saturating_add(1);
        Ok(())
    }

    /// Queues a job. Whoever does so at the end of a job carries it out next.
    pub fn submit(&self, job: Work) {
        let mut queue = self.shared.lock();
        queue.items.push_back(Item::Job(job));
        if queue.takes(std::thread::current().id()) {
            return;
        }
        // A thread the host has no room for is not missed: the first one does its work.
        if queue.idle == 0 && queue.threads < self.shared.limit && self.start(&mut queue).is_ok() {
            return;
        }
        drop(queue);
        self.shared.work.notify_one();
    }

    /// Carries a job out on the calling thread if it may begin now and none waits before it. The job
    /// waits for nothing.
    pub fn now<R>(&self, job: impl FnOnce() -> R) -> Option<R> {
        let busy = self.enter()?;
        let result = job();
        drop(busy);
        Some(result)
    }

    /// A job that somebody else carries out begins, if it may now and none waits before it.
    pub fn enter(&self) -> Option<Busy> {
        let mut queue = self.shared.lock();
        if queue.pauses != 0 || !queue.items.is_empty() {
            return None;
        }
        queue.busy = queue.busy.saturating_add(1);
        Some(Busy(self.shared.clone()))
    }

    /// Later jobs start only when all earlier ones are done.
    pub fn barrier(&self) {
        let mut queue = self.shared.lock();
        if queue.busy != 0 || !queue.items.is_empty() {
            queue.items.push_back(Item::Barrier);
        }
    }

    /// Waits until there is nothing left to do.
    pub fn drain(&self) {
        let mut queue = self.shared.lock();
        while queue.busy != 0 || !queue.items.is_empty() {
            queue = self
                .shared
                .quiet
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// No job begins while this lives, and none is under way.
pub struct Paused(Arc<Shared>);

impl Workers {
    /// Lets no job begin, and waits for those that have. Not called by a job.
    pub fn pause(&self) -> Paused {
        let mut queue = self.shared.lock();
        queue.pauses = queue.pauses.saturating_add(1);
        let paused = Paused(self.shared.clone());
        while queue.busy != 0 {
            queue = self
                .shared
                .quiet
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        paused
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.pauses = queue.pauses.saturating_sub(1);
        drop(queue);
        self.0.work.notify_all();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

/// A job is under way until this is dropped.
pub struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        drop(ended(&self.0));
    }
}

/// A job has ended.
fn ended(shared: &Shared) -> MutexGuard<'_, Queue> {
    let mut queue = shared.lock();
    queue.busy = queue.busy.saturating_sub(1);
    if queue.busy == 0 {
        shared.quiet.notify_all();
        if !queue.items.is_empty() {
            // A barrier may have fallen: there is work for the others too.
            shared.work.notify_all();
        }
    }
    queue
}

/// Takes what may start now.
fn next(queue: &mut Queue) -> Option<Work> {
    if queue.pauses != 0 {
        return None;
    }
    while let Some(Item::Barrier) = queue.items.front() {
        if queue.busy != 0 {
            return None;
        }
        queue.items.pop_front();
    }
    match queue.items.pop_front() {
        Some(Item::Job(job)) => Some(job),
        _ => None,
    }
}

/// Carries out what there is; returns with the queue locked and nothing to start.
fn work<'a>(shared: &'a Shared, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
    let me = std::thread::current().id();
    while let Some(job) = next(&mut queue) {
        queue.busy = queue.busy.saturating_add(1);
        queue.free_soon.push(me);
        drop(queue);
        // A job that panics must not leave the others waiting for it.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        queue = ended(shared);
        queue.takes(me);
    }
    queue
}

fn run(shared: &Shared) {
    let mut queue = shared.lock();
    loop {
        queue = work(shared, queue);
        if queue.closed && queue.items.is_empty() {
            queue.threads = queue.threads.saturating_sub(1);
            return;
        }
        queue.idle = queue.idle.saturating_add(1);
        queue = shared
            .work
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner);
        queue.idle = queue.idle.saturating_sub(1);
    }
}
