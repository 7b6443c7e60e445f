//! A disk as its device and the monitor see it: the top of a part of the graph, with threads of its
//! own, policies and counters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw_clock::Clock;

use crate::accounting::{Accounting, Stats};
use crate::driver::{Preallocation, Transfer};
use crate::edge::{Child, check_edge, perm};
use crate::error::OpenError;
use crate::graph::{Graph, Still};
use crate::node::Node;
use crate::policy::{ErrorAction, ErrorPolicy, Failure, IoStatus};
use crate::request::{BlockError, Operation, Request};
use crate::throttle::{Direction, Limits, Member, ThrottleGroup};
use crate::{Block, BlockInfo, IoVector, SECTOR, Workers};

/// Threads that carry out requests of one disk at most.
const THREADS: usize = 16;

/// Bytes of a read that is carried out on the device's own thread at most: no longer than handing it to
/// another takes.
const NOW_MOST: u64 = 64 << 10;

/// How a disk is connected.
#[derive(Clone)]
pub struct BackendOptions {
    /// Guests' writes may stay in the host's cache until a flush.
    pub write_back: bool,
    /// Others may write too (`share-rw`).
    pub share_rw: bool,
    /// Nothing is written through it, whatever the node takes.
    pub read_only: bool,
    /// What is done when a read fails (`rerror`).
    pub on_read_error: ErrorPolicy,
    /// What is done when anything else fails (`werror`).
    pub on_write_error: ErrorPolicy,
    /// Measures how long requests take.
    pub clock: Option<Clock>,
}

impl Default for BackendOptions {
    fn default() -> Self {
        BackendOptions {
            write_back: true,
            share_rw: false,
            read_only: false,
            on_read_error: ErrorPolicy::Report,
            on_write_error: ErrorPolicy::Report,
            clock: None,
        }
    }
}

type Listener = Arc<dyn Fn() + Send + Sync>;
type FailureListener = Arc<dyn Fn(&Failure) + Send + Sync>;

/// The connection between a device and a node.
pub struct BlockBackend {
    shared: Arc<Shared>,
}

struct Shared {
    id: String,
    root: Child,
    options: BackendOptions,
    workers: Arc<Workers>,
    accounting: Accounting,
    on_resize: Mutex<Vec<Listener>>,
    on_failure: Mutex<Option<FailureListener>>,
    is_throttled: AtomicBool,
    throttle: Mutex<Option<Arc<Member>>>,
    parked: Mutex<Parked>,
}

/// Requests that failed and wait for the machine to go on.
struct Parked {
    requests: Vec<Tracked>,
    status: IoStatus,
}

/// A request, and when it was taken.
struct Tracked {
    request: Request,
    begun_ns: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlockBackend {
    /// Connects `id` to a node.
    pub fn new(
        id: impl Into<String>,
        node: Arc<Node>,
        options: BackendOptions,
    ) -> Result<Self, OpenError> {
        let id = id.into();
        if !options.read_only {
            match node.let_write() {
                // The host does not let us: the disk is read-only.
                Ok(()) | Err(OpenError::Host { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (used, shared) = match node.options().read_only || options.read_only {
            true => (perm::CONSISTENT_READ, perm::ALL),
            false if options.share_rw => (perm::CONSISTENT_READ | perm::WRITE, perm::ALL),
            false => (
                perm::CONSISTENT_READ | perm::WRITE,
                perm::CONSISTENT_READ | perm::WRITE_UNCHANGED | perm::RESIZE,
            ),
        };
        let file = node.file().to_owned();
        let root = Child::attach(node, &id, "root", used, shared)?;
        let workers = Workers::new(format!("block {id}"), THREADS)
            .map_err(|source| OpenError::Host { file, source })?;
        let shared = Arc::new(Shared {
            id,
            root,
            options,
            workers: Arc::new(workers),
            accounting: Accounting::default(),
            on_resize: Mutex::default(),
            on_failure: Mutex::default(),
            is_throttled: AtomicBool::new(false),
            throttle: Mutex::default(),
            parked: Mutex::new(Parked {
                requests: Vec::new(),
                status: IoStatus::Ok,
            }),
        });
        Ok(BlockBackend { shared })
    }

    /// Has requests wait while the edges of this graph change.
    pub fn join(&self, graph: &Graph) {
        graph.join(&self.shared.workers);
    }

    /// The node that it is connected to.
    pub fn node(&self) -> Arc<Node> {
        self.shared.root.node()
    }
}

/// Whether `offset..offset + len` lies within a disk of `size` bytes.
fn check(offset: u64, len: u64, size: u64) -> Result<(), BlockError> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(BlockError::OutOfRange),
    }
}

fn sectors(len: u64) -> u64 {
    len.checked_next_multiple_of(SECTOR).unwrap_or(len)
}

/// Bytes that a request moves, or says something about.
fn bytes(request: &Request) -> u64 {
    match request.operation {
        Operation::Discard { len, .. } | Operation::WriteZeroes { len, .. } => len,
        _ => request.memory.len(),
    }
}

/// Carries out one request, on a thread that may wait.
fn carry_out(node: &Node, request: &Request) -> Result<(), BlockError> {
    let memory = &request.memory;
    let size = sectors(node.len());
    match request.operation {
        Operation::Read { offset } => {
            check(offset, memory.len(), size)?;
            let inside = node.len().saturating_sub(offset).min(memory.len());
            if inside == memory.len() {
                return node.read(offset, memory);
            }
            // The rest of a last, partial sector reads as zeros.
            node.read(offset, &memory.slice(0, inside))?;
            memory.slice(inside, u64::MAX).fill(0);
            Ok(())
        }
        Operation::Write { offset } => {
            check(offset, memory.len(), size)?;
            node.write(offset, memory)
        }
        Operation::Flush => node.flush(),
        Operation::Discard { offset, len } => {
            check(offset, len, size)?;
            let len = len.min(node.len().saturating_sub(offset));
            node.discard(offset, len)
        }
        Operation::WriteZeroes { offset, len, unmap } => {
            check(offset, len, size)?;
            let len = len.min(node.len().saturating_sub(offset));
            node.write_zeroes(offset, len, unmap)
        }
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.options.clock.as_ref().map_or(0, Clock::host_ns)
    }

    /// Lets a request wait for its turn, if there are limits.
    fn admit(self: &Arc<Self>, tracked: Tracked) {
        let direction = match tracked.request.operation {
            Operation::Read { .. } => Some(Direction::Read),
            Operation::Write { .. } | Operation::WriteZeroes { .. } => Some(Direction::Write),
            Operation::Flush | Operation::Discard { .. } => None,
        };
        let member = match (direction, self.is_throttled.load(Ordering::Acquire)) {
            (Some(direction), true) => {
                let member = lock(&self.throttle).clone();
                member.map(|member| (direction, member))
            }
            _ => None,
        };
        let Some((direction, member)) = member else {
            return self.begin(tracked);
        };
        let (me, bytes) = (self.clone(), bytes(&tracked.request));
        member.admit(direction, bytes, Box::new(move || me.begin(tracked)));
    }

    fn begin(self: &Arc<Self>, tracked: Tracked) {
        if let Some(tracked) = self.start(tracked) {
            self.hand_on(tracked);
        }
    }

    /// Has a thread carry a request out.
    fn hand_on(self: &Arc<Self>, tracked: Tracked) {
        let me = self.clone();
        self.workers.submit(Box::new(move || me.run(tracked)));
    }

    /// Begins a request that needs no thread of ours. Given back: not such a one.
    fn start(self: &Arc<Self>, tracked: Tracked) -> Option<Tracked> {
        let request = &tracked.request;
        let (is_write, offset) = match request.operation {
            Operation::Read { offset } => (false, offset),
            Operation::Write { offset } => (true, offset),
            _ => return Some(tracked),
        };
        let len = request.memory.len();
        if !self.root.ask(|node| node.driver().can_start()) {
            return Some(tracked);
        }
        let node = self.root.node();
        if len == 0 || check(offset, len, node.len()).is_err() {
            return Some(tracked);
        }
        let (Some(busy), Some(pass)) = (self.workers.enter(), request.gate.pass()) else {
            return Some(tracked);
        };
        let memory = request.memory.clone();
        // Whoever needs it first takes it: the completion, or the caller if nothing was begun.
        let slot = Arc::new(Mutex::new(Some(tracked)));
        let (me, theirs) = (self.clone(), slot.clone());
        let done = Box::new(move |is_whole: bool| {
            let Some(tracked) = lock(&theirs).take() else {
                return;
            };
            drop(pass);
            match is_whole {
                true => {
                    let times = (tracked.begun_ns, me.now_ns());
                    let operation = tracked.request.operation;
                    me.accounting.count(operation, len, times, Ok(()));
                    finish(tracked, Ok(()));
                }
                false => me.hand_on(tracked),
            }
            // Who waits for all has waited for what came of it, and for us to let go of the files.
            drop(me);
            drop(busy);
        });
        let back = node.start(Transfer {
            is_write,
            offset,
            memory,
            done,
        })?;
        let tracked = lock(&slot).take();
        drop(back);
        tracked
    }

    fn run(&self, tracked: Tracked) {
        let request = &tracked.request;
        let result = match request.gate.pass() {
            Some(_pass) => carry_out(&self.root.node(), request),
            None => Err(BlockError::Cancelled),
        };
        let times = (tracked.begun_ns, self.now_ns());
        let bytes = bytes(request);
        if result != Err(BlockError::Cancelled) {
            self.accounting
                .count(request.operation, bytes, times, result);
        }
        let is_the_hosts = matches!(
            result,
            Err(BlockError::Io | BlockError::NoSpace | BlockError::ReadOnly | BlockError::Corrupt)
        );
        match result {
            Err(error) if is_the_hosts => self.failed(tracked, error),
            result => finish(tracked, result),
        }
    }

    /// Does what the user wants about a request that the host failed.
    fn failed(&self, tracked: Tracked, error: BlockError) {
        let is_write = !matches!(tracked.request.operation, Operation::Read { .. });
        let policy = match is_write {
            true => self.options.on_write_error,
            false => self.options.on_read_error,
        };
        let action = policy.action(error);
        let finished = match action {
            ErrorAction::Report => Some((tracked, Err(error))),
            ErrorAction::Ignore => Some((tracked, Ok(()))),
            ErrorAction::Stop => {
                let mut parked = lock(&self.parked);
                parked.requests.push(tracked);
                if parked.status == IoStatus::Ok {
                    parked.status = match error {
                        BlockError::NoSpace => IoStatus::NoSpace,
                        _ => IoStatus::Failed,
                    };
                }
                None
            }
        };
        let listener = lock(&self.on_failure).clone();
        if let Some(listener) = listener {
            listener(&Failure {
                id: self.id.clone(),
                node: self.root.node().name().to_owned(),
                is_write,
                action,
                error,
            });
        }
        if let Some((tracked, result)) = finished {
            finish(tracked, result);
        }
    }

    fn hurry(&self, on: bool) {
        let member = lock(&self.throttle).clone();
        if let Some(member) = member {
            member.hurry(on);
        }
        for node in self.root.node().subtree() {
            node.driver().hurry(on);
        }
    }
}

fn finish(tracked: Tracked, result: Result<(), BlockError>) {
    let Request { memory, done, .. } = tracked.request;
    drop(memory);
    done(result);
}

impl Block for BlockBackend {
    fn info(&self) -> BlockInfo {
        let node = self.node();
        BlockInfo {
            id: self.shared.id.clone(),
            file: node.file().to_owned(),
            format: node.class().name.to_owned(),
            read_only: node.options().read_only || self.shared.options.read_only,
            discard: node.options().discard,
            write_back: self.shared.options.write_back,
        }
    }

    fn len(&self) -> u64 {
        sectors(self.node().len())
    }

    fn node(&self) -> Option<Arc<Node>> {
        Some(self.shared.root.node())
    }

    fn submit(&self, request: Request) {
        self.shared.admit(Tracked {
            request,
            begun_ns: self.shared.now_ns(),
        });
    }

    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        let shared = &self.shared;
        if memory.len() > NOW_MOST || shared.is_throttled.load(Ordering::Acquire) {
            return false;
        }
        let begun_ns = shared.now_ns();
        let read = shared.workers.now(|| {
            let node = shared.root.node();
            // A last, partial sector is left to those who know what follows it.
            check(offset, memory.len(), node.len()).is_ok() && node.read_now(offset, memory)
        });
        if read != Some(true) {
            return false;
        }
        let times = (begun_ns, shared.now_ns());
        let operation = Operation::Read { offset };
        let accounting = &shared.accounting;
        accounting.count(operation, memory.len(), times, Ok(()));
        true
    }

    fn barrier(&self) {
        self.shared.workers.barrier();
    }

    fn drain(&self) {
        self.shared.hurry(true);
        self.shared.workers.drain();
        self.shared.hurry(false);
    }

    fn stats(&self) -> Stats {
        self.shared.accounting.read()
    }

    fn policies(&self) -> (ErrorPolicy, ErrorPolicy) {
        let options = &self.shared.options;
        (options.on_read_error, options.on_write_error)
    }

    fn io_status(&self) -> IoStatus {
        lock(&self.shared.parked).status
    }

    fn on_failure(&self, listener: Arc<dyn Fn(&Failure) + Send + Sync>) {
        *lock(&self.shared.on_failure) = Some(listener);
    }

    fn retry(&self) {
        let requests = {
            let mut parked = lock(&self.shared.parked);
            parked.status = IoStatus::Ok;
            std::mem::take(&mut parked.requests)
        };
        requests.into_iter().for_each(|r| self.shared.begin(r));
    }

    fn throttle(&self) -> Option<(String, Limits)> {
        let member = lock(&self.shared.throttle).clone()?;
        let group = member.group();
        Some((group.name().to_owned(), group.limits()))
    }

    fn set_throttle(&self, group: Option<&Arc<ThrottleGroup>>) {
        let member = group.map(|group| Arc::new(group.member()));
        let is_throttled = member.is_some();
        let old = std::mem::replace(&mut *lock(&self.shared.throttle), member);
        self.shared
            .is_throttled
            .store(is_throttled, Ordering::Release);
        // What waits goes on when the lock is free.
        drop(old);
    }

    fn resize(&self, len: u64) -> Result<(), BlockError> {
        self.drain();
        self.node().resize(len, Preallocation::Off)?;
        self.size_changed();
        Ok(())
    }

    fn set_node(&self, _: &Still<'_>, node: &Arc<Node>) -> Result<(), OpenError> {
        let root = &self.shared.root;
        let (used, shared) = (root.used(&[]), root.shared(&[]));
        let gone = [root.clone()];
        check_edge(node, &node.edges(), (used, shared), &gone)?;
        if used & perm::WRITE != 0 {
            node.let_write()?;
            if node.options().read_only {
                return Err(OpenError::Other(format!(
                    "node '{}' is read-only, and '{}' writes",
                    node.name(),
                    self.shared.id
                )));
            }
        }
        root.node().flush().map_err(|error| {
            let name = root.node().name().to_owned();
            OpenError::Other(format!("node '{name}' cannot be written out: {error}"))
        })?;
        root.move_to(node);
        Ok(())
    }

    fn size_changed(&self) {
        let listeners = lock(&self.shared.on_resize).clone();
        listeners.iter().for_each(|listener| listener());
    }

    fn on_resize(&self, listener: Arc<dyn Fn() + Send + Sync>) {
        lock(&self.shared.on_resize).push(listener);
    }
}
