//! A disk as its device and the monitor see it: the top of a part of the graph, with threads of its
//! own, policies and counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::driver::Preallocation;
use crate::graph::{Child, Node, perm};
use crate::open::OpenError;
use crate::request::{BlockError, Operation, Request};
use crate::{Block, BlockInfo, SECTOR, Stats, Workers};

/// Threads that carry out requests of one disk at most.
const THREADS: usize = 16;

/// How a disk is connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendOptions {
    /// Guests' writes may stay in the host's cache until a flush.
    pub write_back: bool,
    /// Others may write too (`share-rw`).
    pub share_rw: bool,
}

impl Default for BackendOptions {
    fn default() -> Self {
        BackendOptions {
            write_back: true,
            share_rw: false,
        }
    }
}

type Listener = Arc<dyn Fn() + Send + Sync>;

/// The connection between a device and a node.
pub struct BlockBackend {
    id: String,
    root: Child,
    options: BackendOptions,
    workers: Workers,
    counters: Arc<Counters>,
    on_resize: Mutex<Vec<Listener>>,
}

#[derive(Default)]
struct Counters {
    rd: Counter,
    wr: Counter,
    flush: Counter,
    unmap: Counter,
    wr_highest: AtomicU64,
}

#[derive(Default)]
struct Counter {
    operations: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

impl Counter {
    fn count(&self, bytes: u64, is_ok: bool) {
        match is_ok {
            true => {
                self.operations.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            false => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn read(&self) -> [u64; 3] {
        [&self.operations, &self.bytes, &self.failed].map(|n| n.load(Ordering::Relaxed))
    }
}

impl Counters {
    fn count(&self, operation: Operation, bytes: u64, result: Result<(), BlockError>) {
        let is_ok = result.is_ok();
        match operation {
            Operation::Read { .. } => self.rd.count(bytes, is_ok),
            Operation::Write { offset } | Operation::WriteZeroes { offset, .. } => {
                self.wr.count(bytes, is_ok);
                if is_ok {
                    let end = offset.saturating_add(bytes);
                    self.wr_highest.fetch_max(end, Ordering::Relaxed);
                }
            }
            Operation::Flush => self.flush.count(0, is_ok),
            Operation::Discard { .. } => self.unmap.count(bytes, is_ok),
        }
    }
}

impl BlockBackend {
    /// Connects `id` to a node.
    pub fn new(
        id: impl Into<String>,
        node: Arc<Node>,
        options: BackendOptions,
    ) -> Result<Self, OpenError> {
        let id = id.into();
        let (used, shared) = match node.options().read_only {
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
        Ok(BlockBackend {
            id,
            root,
            options,
            workers,
            counters: Arc::default(),
            on_resize: Mutex::default(),
        })
    }

    /// The node that it is connected to.
    pub fn node(&self) -> Arc<Node> {
        self.root.node()
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.on_resize
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

impl Block for BlockBackend {
    fn info(&self) -> BlockInfo {
        let node = self.root.node();
        BlockInfo {
            id: self.id.clone(),
            file: node.file().to_owned(),
            format: node.class().name.to_owned(),
            read_only: node.options().read_only,
            discard: node.options().discard,
            write_back: self.options.write_back,
        }
    }

    fn len(&self) -> u64 {
        sectors(self.root.node().len())
    }

    fn node(&self) -> Option<Arc<Node>> {
        Some(self.root.node())
    }

    fn submit(&self, request: Request) {
        let (root, counters) = (self.root.clone(), self.counters.clone());
        self.workers.submit(Box::new(move || {
            let result = match request.gate.pass() {
                Some(_pass) => carry_out(&root.node(), &request),
                None => Err(BlockError::Cancelled),
            };
            let bytes = match request.operation {
                Operation::Discard { len, .. } | Operation::WriteZeroes { len, .. } => len,
                _ => request.memory.len(),
            };
            counters.count(request.operation, bytes, result);
            let Request { memory, done, .. } = request;
            drop(memory);
            done(result);
        }));
    }

    fn barrier(&self) {
        self.workers.barrier();
    }

    fn drain(&self) {
        self.workers.drain();
    }

    fn stats(&self) -> Stats {
        let [rd_operations, rd_bytes, failed_rd_operations] = self.counters.rd.read();
        let [wr_operations, wr_bytes, failed_wr_operations] = self.counters.wr.read();
        let [flush_operations, _, failed_flush_operations] = self.counters.flush.read();
        let [unmap_operations, unmap_bytes, failed_unmap_operations] = self.counters.unmap.read();
        Stats {
            rd_operations,
            rd_bytes,
            failed_rd_operations,
            wr_operations,
            wr_bytes,
            failed_wr_operations,
            flush_operations,
            failed_flush_operations,
            unmap_operations,
            unmap_bytes,
            failed_unmap_operations,
            wr_highest_offset: self.counters.wr_highest.load(Ordering::Relaxed),
        }
    }

    fn resize(&self, len: u64) -> Result<(), BlockError> {
        self.workers.drain();
        self.root.node().resize(len, Preallocation::Off)?;
        let listeners = self.listeners().clone();
        listeners.iter().for_each(|listener| listener());
        Ok(())
    }

    fn on_resize(&self, listener: Arc<dyn Fn() + Send + Sync>) {
        self.listeners().push(listener);
    }
}
