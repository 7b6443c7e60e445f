//! Jobs: long work on the graph beside the machine, with the states and events that QEMU's users know
//! (QEMU's `docs/interop/live-block-operations`, `JobStatus` of its QAPI).
//!
//! A job is a [`Task`] on a thread of its own. What it was for, a change of the graph as a rule, comes at
//! the end and all at once: [`Task::commit`].

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hw_clock::Clock;

use crate::policy::{ErrorAction, ErrorPolicy, IoStatus};
use crate::request::BlockError;

const NS_PER_S: u128 = 1_000_000_000;

/// What a job does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobKind {
    /// Writes what images hold into one behind them.
    Commit,
    /// Brings what lies behind an image into it.
    Stream,
    /// Copies a disk and keeps the copy up to date.
    Mirror,
    /// Makes an image.
    Create,
}

impl JobKind {
    /// QEMU's word.
    pub fn name(self) -> &'static str {
        match self {
            JobKind::Commit => "commit",
            JobKind::Stream => "stream",
            JobKind::Mirror => "mirror",
            JobKind::Create => "create",
        }
    }

    /// Whether it is one of those that `query-block-jobs` shows, with events of their own.
    pub fn is_block(self) -> bool {
        self != JobKind::Create
    }
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are QEMU's")]
pub enum JobStatus {
    Created,
    Running,
    Paused,
    Ready,
    Standby,
    Waiting,
    Pending,
    Aborting,
    Concluded,
    Null,
}

impl JobStatus {
    /// QEMU's word.
    pub fn name(self) -> &'static str {
        match self {
            JobStatus::Created => "created",
            JobStatus::Running => "running",
            JobStatus::Paused => "paused",
            JobStatus::Ready => "ready",
            JobStatus::Standby => "standby",
            JobStatus::Waiting => "waiting",
            JobStatus::Pending => "pending",
            JobStatus::Aborting => "aborting",
            JobStatus::Concluded => "concluded",
            JobStatus::Null => "null",
        }
    }
}

/// What is asked of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are QEMU's")]
pub enum Verb {
    Cancel,
    Pause,
    Resume,
    SetSpeed,
    Complete,
    Finalize,
    Dismiss,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Verb::Cancel => "cancel",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::SetSpeed => "set-speed",
            Verb::Complete => "complete",
            Verb::Finalize => "finalize",
            Verb::Dismiss => "dismiss",
        }
    }

    /// Whether a job takes it in this state (QEMU's table of verbs).
    fn fits(self, status: JobStatus) -> bool {
        use JobStatus::*;
        let is_alive = matches!(status, Created | Running | Paused | Ready | Standby);
        match self {
            Verb::Cancel => is_alive || matches!(status, Waiting | Pending),
            Verb::Pause | Verb::Resume | Verb::SetSpeed => is_alive,
            Verb::Complete => status == Ready,
            Verb::Finalize => status == Pending,
            Verb::Dismiss => status == Concluded,
        }
    }
}

/// Why a job ended before it was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobError {
    /// Somebody wanted it to.
    Cancelled,
    /// Something went wrong.
    Failed(String),
}

impl From<BlockError> for JobError {
    fn from(error: BlockError) -> Self {
        JobError::Failed(error.to_string())
    }
}

impl From<crate::OpenError> for JobError {
    fn from(error: crate::OpenError) -> Self {
        JobError::Failed(error.to_string())
    }
}

/// The work of a job.
pub trait Task: Send {
    /// Does it, with a look at [`Job::checkpoint`] every now and then.
    fn run(&mut self, job: &Job) -> Result<(), JobError>;

    /// What it was for, once all is done.
    fn commit(&mut self) -> Result<(), JobError> {
        Ok(())
    }
}

/// What a job is started with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobSpec {
    /// Its name.
    pub id: String,
    /// What it does.
    pub kind: JobKind,
    /// It ends by itself when all is done.
    pub auto_finalize: bool,
    /// It is forgotten when it has ended.
    pub auto_dismiss: bool,
    /// Bytes a second; 0 for no limit.
    pub speed: u64,
    /// What is done when the host fails a request of its own.
    pub on_error: ErrorPolicy,
}

/// What happens to a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobEvent {
    /// It is in another state.
    Status(JobStatus),
    /// It could end now.
    Ready,
    /// It waits to be finalized.
    Pending,
    /// It has ended.
    Completed,
    /// It was ended.
    Cancelled,
    /// The host failed a request; whether it was a write.
    Error {
        /// Or a read.
        is_write: bool,
        /// What was done about it.
        action: ErrorAction,
    },
}

/// What a monitor is told of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobInfo {
    /// What it was started with.
    pub spec: JobSpec,
    /// Where it stands.
    pub status: JobStatus,
    /// Bytes, or steps, done,
    pub offset: u64,
    /// and to be done.
    pub len: u64,
    /// It waits because somebody paused it.
    pub is_paused: bool,
    /// How its disk is.
    pub io_status: IoStatus,
    /// Why it failed.
    pub error: Option<String>,
}

type Listener = Arc<dyn Fn(&JobInfo, &JobEvent) + Send + Sync>;

struct State {
    info: JobInfo,
    cancel: Option<Cancel>,
    complete: bool,
    finalize: bool,
    dismiss: bool,
    /// When the next bytes may be moved, on the host's clock.
    due_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cancel {
    /// A job that is ready leaves what it has done.
    Soft,
    Force,
}

/// A job, as its task and the monitor hold it.
pub struct Job {
    state: Mutex<State>,
    changed: Condvar,
    clock: Clock,
    listener: Listener,
}

impl Job {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let state = self.changed.wait(state);
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// What a monitor is told.
    pub fn info(&self) -> JobInfo {
        self.lock().info.clone()
    }

    fn tell(&self, event: &JobEvent) {
        let info = self.info();
        (self.listener)(&info, event);
    }

    fn enter(&self, status: JobStatus) {
        self.lock().info.status = status;
        self.changed.notify_all();
        self.tell(&JobEvent::Status(status));
    }

    /// How much there is to do.
    pub fn set_len(&self, len: u64) {
        self.lock().info.len = len;
    }

    /// More to do than was thought.
    pub fn add_len(&self, more: u64) {
        let info = &mut self.lock().info;
        info.len = info.len.saturating_add(more);
    }

    /// So much more is done, or need not be.
    pub fn advance(&self, done: u64) {
        let info = &mut self.lock().info;
        info.offset = info.offset.saturating_add(done);
    }

    /// Whether somebody wants an end: a job that is ready to.
    pub fn is_asked_to_end(&self) -> bool {
        let state = self.lock();
        state.complete || state.cancel.is_some()
    }

    /// Whether a job that is ready shall leave the graph as it is.
    pub fn is_soft_cancelled(&self) -> bool {
        let state = self.lock();
        state.cancel == Some(Cancel::Soft)
    }

    /// Waits while the job is paused, and until `bytes` may be moved.
    ///
    /// # Errors
    /// That it is cancelled.
    pub fn checkpoint(&self, bytes: u64) -> Result<(), JobError> {
        let mut state = self.lock();
        loop {
            let is_ready = matches!(state.info.status, JobStatus::Ready | JobStatus::Standby);
            match state.cancel {
                Some(Cancel::Soft) if is_ready => {}
                Some(_) => return Err(JobError::Cancelled),
                None => {}
            }
            if state.info.is_paused {
                drop(state);
                self.enter(if is_ready {
                    JobStatus::Standby
                } else {
                    JobStatus::Paused
                });
                state = self.lock();
                while state.info.is_paused && state.cancel.is_none() {
                    state = self.wait(state);
                }
                drop(state);
                self.enter(if is_ready {
                    JobStatus::Ready
                } else {
                    JobStatus::Running
                });
                state = self.lock();
                continue;
            }
            let now = self.clock.host_ns();
            let wait = state.due_ns.saturating_sub(now);
            if state.info.spec.speed == 0 || wait == 0 {
                let took = u128::from(bytes)
                    .saturating_mul(NS_PER_S)
                    .checked_div(u128::from(state.info.spec.speed))
                    .unwrap_or(0);
                let took = u64::try_from(took).unwrap_or(u64::MAX);
                state.due_ns = state.due_ns.max(now).saturating_add(took);
                return Ok(());
            }
            let waited = self.changed.wait_timeout(state, Duration::from_nanos(wait));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until something is asked of the job, or for some time.
    pub fn rest(&self, time: Duration) {
        let state = self.lock();
        if !(state.complete || state.cancel.is_some() || state.info.is_paused) {
            let _ = self.changed.wait_timeout(state, time);
        }
    }

    /// The job could end now.
    pub fn ready(&self) {
        self.enter(JobStatus::Ready);
        self.tell(&JobEvent::Ready);
    }

    /// Does what the user wants about a request that the host failed: `Ok(true)` to try again, which
    /// is after a pause, `Ok(false)` to go on without.
    ///
    /// # Errors
    /// The error, or that the job is cancelled.
    pub fn failed(&self, is_write: bool, error: BlockError) -> Result<bool, JobError> {
        let action = self.info().spec.on_error.action(error);
        self.tell(&JobEvent::Error { is_write, action });
        match action {
            ErrorAction::Report => Err(error.into()),
            ErrorAction::Ignore => Ok(false),
            ErrorAction::Stop => {
                {
                    let mut state = self.lock();
                    state.info.is_paused = true;
                    state.info.io_status = match error {
                        BlockError::NoSpace => IoStatus::NoSpace,
                        _ => IoStatus::Failed,
                    };
                }
                self.checkpoint(0)?;
                self.lock().info.io_status = IoStatus::Ok;
                Ok(true)
            }
        }
    }

    fn apply(&self, verb: Verb, change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut state = self.lock();
        let info = &state.info;
        if !verb.fits(info.status) {
            return Err(format!(
                "Job '{}' in state '{}' cannot accept command verb '{}'",
                info.spec.id,
                info.status.name(),
                verb.name()
            ));
        }
        match verb {
            Verb::Pause if info.is_paused => return Err("Job is already paused".to_owned()),
            Verb::Resume if !info.is_paused => {
                return Err("Can't resume a job that was not paused".to_owned());
            }
            _ => change(&mut state),
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Ends it. A job that is ready and not forced leaves the graph as it is, with its copy complete.
    ///
    /// # Errors
    /// That it cannot in this state.
    pub fn cancel(&self, force: bool) -> Result<(), String> {
        self.apply(Verb::Cancel, |state| {
            let cancel = if force { Cancel::Force } else { Cancel::Soft };
            if state.cancel != Some(Cancel::Force) {
                state.cancel = Some(cancel);
            }
        })
    }

    /// Pauses it, or lets it go on.
    ///
    /// # Errors
    /// That it is so already, or cannot in this state.
    pub fn set_paused(&self, paused: bool) -> Result<(), String> {
        let verb = if paused { Verb::Pause } else { Verb::Resume };
        self.apply(verb, |state| state.info.is_paused = paused)
    }

    /// Limits it to bytes a second; 0 for no limit.
    ///
    /// # Errors
    /// That it cannot be in this state.
    pub fn set_speed(&self, speed: u64) -> Result<(), String> {
        self.apply(Verb::SetSpeed, |state| {
            state.info.spec.speed = speed;
            state.due_ns = 0;
        })
    }

    /// Ends a job that is ready.
    ///
    /// # Errors
    /// That it is not, or that it ends by itself.
    pub fn complete(&self) -> Result<(), String> {
        self.apply(Verb::Complete, |state| state.complete = true)
    }

    /// Ends a job that waits for it.
    ///
    /// # Errors
    /// That it does not.
    pub fn finalize(&self) -> Result<(), String> {
        self.apply(Verb::Finalize, |state| state.finalize = true)
    }

    fn dismiss(&self) -> Result<(), String> {
        self.apply(Verb::Dismiss, |state| state.dismiss = true)
    }

    /// The whole life, on the job's thread.
    fn live(&self, mut task: Box<dyn Task>) {
        self.enter(JobStatus::Running);
        let mut result = task.run(self);
        if result.is_ok() {
            self.enter(JobStatus::Waiting);
            self.enter(JobStatus::Pending);
            if !self.info().spec.auto_finalize {
                self.tell(&JobEvent::Pending);
            }
            let mut state = self.lock();
            while !(state.info.spec.auto_finalize || state.finalize || state.cancel.is_some()) {
                state = self.wait(state);
            }
            let is_cancelled = state.cancel == Some(Cancel::Force)
                || (state.cancel.is_some() && !(state.info.spec.auto_finalize || state.finalize));
            drop(state);
            result = match is_cancelled {
                true => Err(JobError::Cancelled),
                false => task.commit(),
            };
        }
        let event = match result {
            Ok(()) => JobEvent::Completed,
            Err(error) => {
                self.enter(JobStatus::Aborting);
                match error {
                    JobError::Cancelled => JobEvent::Cancelled,
                    JobError::Failed(why) => {
                        self.lock().info.error = Some(why);
                        JobEvent::Completed
                    }
                }
            }
        };
        // Whoever hears of the end finds the nodes free.
        drop(task);
        self.tell(&event);
        self.enter(JobStatus::Concluded);
        let mut state = self.lock();
        while !(state.info.spec.auto_dismiss || state.dismiss) {
            state = self.wait(state);
        }
    }
}

/// All jobs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    all: Arc<Mutex<Vec<Arc<Job>>>>,
    /// A job is gone.
    gone: Arc<Condvar>,
    clock: Clock,
    listener: Listener,
}

impl Jobs {
    /// Jobs whose limits go by this clock, and whose events go there, on the threads of the jobs.
    pub fn new(
        clock: Clock,
        listener: impl Fn(&JobInfo, &JobEvent) + Send + Sync + 'static,
    ) -> Self {
        Jobs {
            all: Arc::default(),
            gone: Arc::default(),
            clock,
            listener: Arc::new(listener),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Job>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All jobs, in the order they were started.
    pub fn all(&self) -> Vec<Arc<Job>> {
        self.lock().clone()
    }

    /// The job of this name.
    pub fn find(&self, id: &str) -> Option<Arc<Job>> {
        self.lock()
            .iter()
            .find(|job| job.info().spec.id == id)
            .cloned()
    }

    /// Starts a job.
    ///
    /// # Errors
    /// When the name is taken, or the host has no thread.
    pub fn start(&self, spec: JobSpec, task: Box<dyn Task>) -> Result<(), String> {
        let job = Arc::new(Job {
            state: Mutex::new(State {
                info: JobInfo {
                    spec,
                    status: JobStatus::Created,
                    offset: 0,
                    len: 0,
                    is_paused: false,
                    io_status: IoStatus::Ok,
                    error: None,
                },
                cancel: None,
                complete: false,
                finalize: false,
                dismiss: false,
                due_ns: 0,
            }),
            changed: Condvar::new(),
            clock: self.clock.clone(),
            listener: self.listener.clone(),
        });
        let id = job.info().spec.id;
        {
            let mut all = self.lock();
            if all.iter().any(|job| job.info().spec.id == id) {
                return Err(format!("Job ID '{id}' already in use"));
            }
            all.push(job.clone());
        }
        job.tell(&JobEvent::Status(JobStatus::Created));
        let (me, mine) = (self.clone(), job.clone());
        let live = move || {
            mine.live(task);
            me.forget(&mine);
        };
        let thread = std::thread::Builder::new().name(format!("job {id}"));
        if let Err(error) = thread.spawn(live) {
            self.forget(&job);
            return Err(format!("Cannot start job '{id}': {error}"));
        }
        Ok(())
    }

    fn forget(&self, job: &Arc<Job>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, job));
        job.enter(JobStatus::Null);
        self.gone.notify_all();
    }

    /// Forgets a job that has ended.
    ///
    /// # Errors
    /// That it has not.
    pub fn dismiss(&self, job: &Arc<Job>) -> Result<(), String> {
        job.dismiss()
    }

    /// Ends all jobs, and waits until they have: the machine ends. Called by no job.
    pub fn end(&self) {
        let mut all = self.lock();
        while !all.is_empty() {
            for job in all.iter() {
                // Those that have ended are only forgotten.
                let _ = job.cancel(true);
                let _ = job.dismiss();
            }
            let waited = self.gone.wait_timeout(all, Duration::from_millis(100));
            all = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests;
