//! A node of the block graph: a driver with a name and options, and who looks on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use control_options::Opts;
use hw_memory::IoVector;

use crate::driver::{Driver, DriverClass, DriverKind, Extent, Preallocation, Transfer};
use crate::edge::{Child, Edge, perm};
use crate::error::OpenError;
use crate::graph;
use crate::request::BlockError;

/// What is done with runs of zeros that a guest writes (`detect-zeroes`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DetectZeroes {
    /// They are written.
    #[default]
    Off,
    /// They are written as zeros.
    On,
    /// Their space is given back.
    Unmap,
}

impl DetectZeroes {
    /// QEMU's words, in the order of the variants.
    pub const NAMES: &[&str] = &["off", "on", "unmap"];

    /// QEMU's word for it.
    pub fn name(self) -> &'static str {
        match self {
            DetectZeroes::Off => "off",
            DetectZeroes::On => "on",
            DetectZeroes::Unmap => "unmap",
        }
    }
}

/// What all nodes have beside their driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeOptions {
    /// Writes are refused.
    pub read_only: bool,
    /// Discards reach the driver (`discard=unmap`).
    pub discard: bool,
    /// `detect-zeroes`
    pub detect_zeroes: DetectZeroes,
    /// Past the host's page cache (`cache.direct`).
    pub direct: bool,
    /// Flushes are not waited for (`cache.no-flush`).
    pub no_flush: bool,
    /// Others may do to the file what they like (`force-share`).
    pub force_share: bool,
    /// Refuses writes instead of failing to open (`auto-read-only`); a node of its own also until somebody writes.
    pub auto_read_only: bool,
}

impl NodeOptions {
    /// Whether a node of this kind, with these options, refuses writes for as long as nobody writes.
    pub(crate) fn waits_for_writer(&self, class: &DriverClass) -> bool {
        self.auto_read_only && class.kind == DriverKind::Protocol
    }
}

/// Told of all that changes the contents of a node: a job that copies it. `before` may wait; each is
/// followed by one `after`, whether the write went well or not. Ranges are in bytes.
pub trait Observer: Send + Sync {
    /// A range is about to be changed. An error is the request's.
    fn before(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let _ = (offset, len);
        Ok(())
    }

    /// A range was changed.
    fn after(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}

/// An observer looks on for as long as this lives.
pub struct Observing {
    node: Arc<Node>,
    observer: Arc<dyn Observer>,
}

impl Drop for Observing {
    fn drop(&mut self) {
        let mut observers = self.node.observers();
        observers.retain(|other| !Arc::ptr_eq(other, &self.observer));
        let is_watched = !observers.is_empty();
        self.node.is_watched.store(is_watched, Ordering::Release);
    }
}

/// A node of the graph.
pub struct Node {
    name: String,
    file: String,
    class: &'static DriverClass,
    options: RwLock<NodeOptions>,
    driver: Box<dyn Driver>,
    parents: Mutex<Vec<Weak<Edge>>>,
    is_watched: AtomicBool,
    written_to: AtomicU64,
    /// What it was opened with, beside its options.
    opened_with: Mutex<Opts>,
    observers: Mutex<Vec<Arc<dyn Observer>>>,
}

impl Node {
    /// A node of its own, in no graph.
    pub fn new(
        name: impl Into<String>,
        file: impl Into<String>,
        class: &'static DriverClass,
        options: NodeOptions,
        driver: Box<dyn Driver>,
    ) -> Arc<Self> {
        Arc::new(Node {
            name: name.into(),
            file: file.into(),
            class,
            options: RwLock::new(options),
            driver,
            parents: Mutex::default(),
            is_watched: AtomicBool::new(false),
            written_to: AtomicU64::new(0),
            opened_with: Mutex::default(),
            observers: Mutex::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file name that users know it by.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The driver's table entry.
    pub fn class(&self) -> &'static DriverClass {
        self.class
    }

    /// Its options.
    pub fn options(&self) -> NodeOptions {
        *self.options.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other options from now on, but for what takes more than that: `read_only` (see
    /// [`set_read_only`](Self::set_read_only)) and `direct` (see [`set_cache`](Self::set_cache)); and
    /// `force_share`.
    pub fn set_options(&self, new: NodeOptions) {
        let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
        *options = NodeOptions {
            read_only: options.read_only,
            direct: options.direct,
            no_flush: options.no_flush,
            force_share: options.force_share,
            ..new
        };
        self.driver.options_changed(&options);
    }

    /// Other uses of the host's cache from now on, also by nodes that were opened for this one and not told
    /// of another use. Nothing is under way on the node.
    ///
    /// # Errors
    /// The host's.
    pub fn set_cache(&self, direct: bool, no_flush: bool) -> Result<(), OpenError> {
        self.driver.set_direct(direct)?;
        let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
        (options.direct, options.no_flush) = (direct, no_flush);
        self.driver.options_changed(&options);
        drop(options);
        let given = self.opened_with();
        for child in self.driver.children() {
            let (role, node) = (child.role(), child.node());
            let is_below = |key: &str| key.strip_prefix(role).is_some_and(|k| k.starts_with('.'));
            let is_named_by_image = given.get(role).is_none() && graph::is_unnamed(node.name());
            if !is_named_by_image && !given.iter().any(|(key, _)| is_below(key)) {
                continue;
            }
            let now = node.options();
            let own = |key: &str| given.get(&format!("{role}.{key}")).is_some();
            node.set_cache(
                if own("cache.direct") {
                    now.direct
                } else {
                    direct
                },
                if own("cache.no-flush") {
                    now.no_flush
                } else {
                    no_flush
                },
            )?;
        }
        Ok(())
    }

    /// Lets writes through from now on, or refuses them; so do the nodes that the driver stores its
    /// data in. Nothing is under way on the node.
    ///
    /// # Errors
    /// The host's; that another user of the file forbids it.
    pub fn set_read_only(&self, read_only: bool) -> Result<(), OpenError> {
        if self.options().read_only == read_only {
            return Ok(());
        }
        let children = self.driver.children();
        let files = || children.iter().filter(|child| child.role() != "backing");
        if read_only {
            self.driver.set_read_only(true)?;
        } else {
            for child in files() {
                child.node().set_read_only(false)?;
                child.add_used(perm::WRITE | perm::RESIZE)?;
            }
            self.driver.set_read_only(false)?;
        }
        let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
        options.read_only = read_only;
        drop(options);
        if read_only {
            for child in files() {
                child.drop_used(perm::WRITE | perm::RESIZE);
                if !child.node().is_written() {
                    child.node().set_read_only(true)?;
                }
            }
        }
        Ok(())
    }

    /// Lets writes through from now on if it refuses them only because nobody has written yet.
    ///
    /// # Errors
    /// The host's; that another user of the file forbids it.
    pub(crate) fn let_write(&self) -> Result<(), OpenError> {
        let options = self.options();
        match options.read_only && options.auto_read_only {
            true => self.set_read_only(false),
            false => Ok(()),
        }
    }

    /// End of the furthest change so far.
    pub fn written_to(&self) -> u64 {
        self.written_to.load(Ordering::Relaxed)
    }

    pub(crate) fn set_opened_with(&self, opts: Opts) {
        let old = self.opened_with.lock();
        *old.unwrap_or_else(PoisonError::into_inner) = opts;
    }

    /// The properties of its driver and children that it was opened with, last time.
    pub(crate) fn opened_with(&self) -> Opts {
        let opts = self.opened_with.lock();
        opts.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether any user of it writes.
    pub fn is_written(&self) -> bool {
        let mut edges = self.edges().into_iter();
        edges.any(|edge| edge.used(&[]) & (perm::WRITE | perm::RESIZE) != 0)
    }

    fn observers(&self) -> MutexGuard<'_, Vec<Arc<dyn Observer>>> {
        self.observers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `observer` of all changes that begin from now on. What has begun already it is not told
    /// of: the users of the node are paused.
    pub fn observe(self: &Arc<Self>, observer: Arc<dyn Observer>) -> Observing {
        self.observers().push(observer.clone());
        self.is_watched.store(true, Ordering::Release);
        Observing {
            node: self.clone(),
            observer,
        }
    }

    /// Carries out a change, with observers told.
    fn change(
        &self,
        offset: u64,
        len: u64,
        change: impl FnOnce() -> Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        self.written_to
            .fetch_max(offset.saturating_add(len), Ordering::Relaxed);
        if !self.is_watched.load(Ordering::Acquire) {
            return change();
        }
        let observers = self.observers().clone();
        let mut told = 0usize;
        let mut result = Ok(());
        for observer in &observers {
            told = told.saturating_add(1);
            result = observer.before(offset, len);
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|()| change());
        let told = observers.iter().take(told);
        told.for_each(|observer| observer.after(offset, len));
        result
    }

    /// The driver.
    pub fn driver(&self) -> &dyn Driver {
        self.driver.as_ref()
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.driver.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node below in this role.
    pub fn child(&self, role: &str) -> Option<Arc<Node>> {
        let children = self.driver.children();
        let child = children.iter().find(|child| child.role() == role)?;
        Some(child.node())
    }

    /// The node and all that it stores its data in, itself first.
    pub fn subtree(self: &Arc<Self>) -> Vec<Arc<Node>> {
        let mut all = vec![self.clone()];
        let mut next = 0usize;
        while let Some(node) = all.get(next).cloned() {
            for child in node.driver.children() {
                let child = child.node();
                if !all.iter().any(|known| Arc::ptr_eq(known, &child)) {
                    all.push(child);
                }
            }
            next = next.saturating_add(1);
        }
        all
    }

    /// The node that shows where this one has nothing: `backing`, or what a filter passes on to.
    pub fn behind(&self) -> Option<Arc<Node>> {
        match self.class.kind {
            DriverKind::Filter => self.driver.children().first().map(Child::node),
            _ => self.child("backing"),
        }
    }

    pub(crate) fn parents(&self) -> MutexGuard<'_, Vec<Weak<Edge>>> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who uses it.
    pub fn users(&self) -> Vec<String> {
        let edges = self.edges();
        edges.iter().map(|edge| edge.parent().to_owned()).collect()
    }

    /// The edges from its users.
    pub(crate) fn edges(&self) -> Vec<Child> {
        let parents = self.parents();
        parents
            .iter()
            .filter_map(Weak::upgrade)
            .map(Child)
            .collect()
    }

    fn writable(&self) -> Result<NodeOptions, BlockError> {
        let options = self.options();
        match options.read_only {
            true => Err(BlockError::ReadOnly),
            false => Ok(options),
        }
    }

    /// Fills `memory` from `offset` on.
    pub fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        if memory.is_empty() {
            return Ok(());
        }
        self.driver.read(offset, memory)
    }

    /// The same if it takes no waiting; see [`Driver::read_now`].
    pub fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        self.driver.read_now(offset, memory)
    }

    /// Begins a request without waiting for it, if it is one that the driver can; see [`Driver::start`].
    pub fn start(&self, transfer: Transfer) -> Option<Transfer> {
        if transfer.is_write {
            let options = self.options();
            let is_plain = !options.read_only && options.detect_zeroes == DetectZeroes::Off;
            if !is_plain || self.is_watched.load(Ordering::Acquire) {
                return Some(transfer);
            }
            let end = transfer.offset.saturating_add(transfer.memory.len());
            self.written_to.fetch_max(end, Ordering::Relaxed);
        }
        self.driver.start(transfer)
    }

    /// Stores `memory` from `offset` on.
    pub fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let options = self.writable()?;
        if memory.is_empty() {
            return Ok(());
        }
        if options.detect_zeroes != DetectZeroes::Off && memory.is_zero() {
            let unmap = options.detect_zeroes == DetectZeroes::Unmap;
            return self.write_zeroes(offset, memory.len(), unmap);
        }
        self.change(offset, memory.len(), || self.driver.write(offset, memory))
    }

    /// Stores one cluster compressed.
    pub fn write_compressed(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.writable()?;
        let compress = || self.driver.write_compressed(offset, memory);
        self.change(offset, memory.len(), compress)
    }

    /// Stores one cluster of `len` bytes that is compressed already.
    pub fn write_packed(&self, offset: u64, len: u64, packed: &[u8]) -> Result<(), BlockError> {
        self.writable()?;
        let store = || self.driver.write_packed(offset, len, packed);
        self.change(offset, len, store)
    }

    /// Stores zeros.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        let options = self.writable()?;
        if len == 0 {
            return Ok(());
        }
        let unmap = unmap && options.discard;
        let zero = || self.driver.write_zeroes(offset, len, unmap);
        self.change(offset, len, zero)
    }

    /// Gives space back, if the node's options let it.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let options = self.writable()?;
        if len == 0 || !options.discard {
            return Ok(());
        }
        self.change(offset, len, || self.driver.discard(offset, len))
    }

    /// All writes that have returned reach stable storage.
    pub fn flush(&self) -> Result<(), BlockError> {
        if self.options().read_only {
            return Ok(());
        }
        self.driver.flush()
    }

    /// What lies at `offset`.
    pub fn extent(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        self.driver.extent(offset, len)
    }

    /// Changes the size.
    pub fn resize(&self, len: u64, preallocation: Preallocation) -> Result<(), BlockError> {
        self.writable()?;
        self.driver.resize(len, preallocation)
    }
}
