//! What jobs copy between nodes: commit, stream and mirror.
//!
//! While a node is copied its users go on. A mirror notes what they write and copies it again; a stream
//! keeps them off the part that it is at.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use hw_memory::IoVector;

use crate::driver::Preallocation;
use crate::edge::{Child, perm};
use crate::error::OpenError;
use crate::graph::{Claim, Graph, Still};
use crate::job::{Job, JobError, Task};
use crate::node::{Node, Observer, Observing};
use crate::request::BlockError;

/// Bytes copied at a time.
const STEP: u64 = 1 << 20;
/// What is noted as written is at least so long, so that many small writes are few pieces.
const GRAIN: u64 = 64 << 10;
/// How often a job that is ready looks whether there is more to copy.
const REST: Duration = Duration::from_millis(20);

/// What images above a base say of a place.
struct Held {
    len: u64,
    /// One of them says what is there.
    is_held: bool,
    is_zero: bool,
}

/// What the images from `top` down to, but without, `base` say of `offset`.
fn held(
    top: &Arc<Node>,
    base: Option<&Arc<Node>>,
    offset: u64,
    len: u64,
) -> Result<Held, BlockError> {
    let mut len = len;
    let mut node = top.clone();
    loop {
        let inside = node.len().saturating_sub(offset);
        if inside == 0 {
            // A node that is too short shows zeros, whatever is behind it.
            return Ok(Held {
                len,
                is_held: true,
                is_zero: true,
            });
        }
        len = len.min(inside);
        let extent = node.extent(offset, len)?;
        len = len.min(extent.len.max(1));
        if extent.is_allocated {
            return Ok(Held {
                len,
                is_held: true,
                is_zero: extent.is_zero,
            });
        }
        match node.behind() {
            Some(next) if base.is_none_or(|base| !Arc::ptr_eq(base, &next)) => node = next,
            _ => {
                return Ok(Held {
                    len,
                    is_held: false,
                    is_zero: false,
                });
            }
        }
    }
}

/// Does a request of a job's own until it goes well or the user has had enough.
fn insist<T: Default>(
    job: &Job,
    is_write: bool,
    mut request: impl FnMut() -> Result<T, BlockError>,
) -> Result<T, JobError> {
    loop {
        match request() {
            Ok(value) => return Ok(value),
            Err(error) => {
                if !job.failed(is_write, error)? {
                    return Ok(T::default());
                }
            }
        }
    }
}

/// Copies a range that `from` shows.
fn copy(
    job: &Job,
    from: &Node,
    to: &Node,
    (offset, len): (u64, u64),
    is_zero: bool,
) -> Result<(), JobError> {
    if is_zero {
        return insist(job, true, || to.write_zeroes(offset, len, true));
    }
    let memory = IoVector::zeroed(usize::try_from(len).unwrap_or(0));
    insist(job, false, || from.read(offset, &memory))?;
    insist(job, true, || match memory.is_zero() {
        true => to.write_zeroes(offset, len, true),
        false => to.write(offset, &memory),
    })
}

/// Calls `f` with each part that is held above the base: where, how long, whether zeros. Where there is
/// no base, nothing behind is zeros too.
fn each_held(
    job: &Job,
    top: &Arc<Node>,
    base: Option<&Arc<Node>>,
    shows_zeros: bool,
    mut f: impl FnMut(u64, u64, bool) -> Result<(), JobError>,
) -> Result<(), JobError> {
    let len = top.len();
    job.set_len(len);
    let mut at = 0u64;
    while at < len {
        let rest = len.saturating_sub(at);
        let found = insist(job, false, || held(top, base, at, rest).map(Some))?;
        // What cannot be looked at is copied, or skipped with the error that this gives.
        let mut found = found.unwrap_or(Held {
            len: STEP.min(rest),
            is_held: true,
            is_zero: false,
        });
        if !found.is_held && shows_zeros {
            (found.is_held, found.is_zero) = (true, true);
        }
        let has_data = found.is_held && !found.is_zero;
        if has_data {
            found.len = found.len.min(STEP);
        }
        job.checkpoint(if has_data { found.len } else { 0 })?;
        if found.is_held {
            f(at, found.len, found.is_zero)?;
        }
        job.advance(found.len);
        at = at.saturating_add(found.len);
    }
    Ok(())
}

/// Ranges that were written.
#[derive(Default)]
struct Dirty(Mutex<BTreeMap<u64, u64>>);

impl Dirty {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a piece out, a step at most.
    fn take(&self) -> Option<(u64, u64)> {
        let mut ranges = self.lock();
        let (start, end) = ranges.pop_first()?;
        let cut = start.saturating_add(STEP).min(end);
        if cut < end {
            ranges.insert(cut, end);
        }
        Some((start, cut.saturating_sub(start)))
    }
}

impl Observer for Dirty {
    fn after(&self, offset: u64, len: u64) {
        let grain = |n: u64| n & !(GRAIN.saturating_sub(1));
        let mut start = grain(offset);
        let end = offset.saturating_add(len);
        let mut end = grain(end.saturating_add(GRAIN.saturating_sub(1))).max(end);
        let mut ranges = self.lock();
        // Joined with all that it touches.
        while let Some((&before, &until)) = ranges.range(..=end).next_back() {
            if until < start {
                break;
            }
            ranges.remove(&before);
            start = start.min(before);
            end = end.max(until);
        }
        ranges.insert(start, end);
    }
}

/// Copies a disk into another node, keeps that up to date, and puts it in the disk's place at the end:
/// a mirror, or the commit of the image on top.
pub struct Mirror {
    graph: Arc<Graph>,
    source: Arc<Node>,
    /// What is not held above this is in the target already.
    base: Option<Arc<Node>>,
    target: Child,
    is_commit: bool,
    dirty: Arc<Dirty>,
    observing: Option<Observing>,
    keeps_graph: bool,
    _claim: Claim,
}

impl Mirror {
    /// Copies all that `source` shows, or with a `base` what is held above it, to `target`.
    ///
    /// # Errors
    /// What stands against it.
    pub fn new(
        graph: &Arc<Graph>,
        id: &str,
        source: &Arc<Node>,
        target: &Arc<Node>,
        base: Option<Arc<Node>>,
    ) -> Result<Self, OpenError> {
        let claim = graph.claim(&[source.clone(), target.clone()], "mirror")?;
        target.let_write()?;
        if target.options().read_only {
            return Err(OpenError::Other(format!(
                "node '{}' is read-only, and a copy is to be written to it",
                target.name()
            )));
        }
        let target = Child::attach(
            target.clone(),
            id,
            "job",
            perm::CONSISTENT_READ | perm::WRITE,
            perm::CONSISTENT_READ | perm::WRITE_UNCHANGED,
        )?;
        Ok(Mirror::of(graph, source, target, base, claim))
    }

    /// Commits the image on top into `base`.
    ///
    /// # Errors
    /// What stands against it.
    pub fn commit_top(
        graph: &Arc<Graph>,
        id: &str,
        top: &Arc<Node>,
        base: &Arc<Node>,
    ) -> Result<Self, OpenError> {
        let claim = graph.claim(&chain(top, Some(base)), "commit")?;
        let target = write_unchanged(graph, id, base)?;
        let mut mirror = Mirror::of(graph, top, target, Some(base.clone()), claim);
        mirror.is_commit = true;
        Ok(mirror)
    }

    fn of(
        graph: &Arc<Graph>,
        source: &Arc<Node>,
        target: Child,
        base: Option<Arc<Node>>,
        claim: Claim,
    ) -> Self {
        let dirty = Arc::new(Dirty::default());
        let still = graph.still();
        let observing = Some(source.observe(dirty.clone()));
        drop(still);
        Mirror {
            graph: graph.clone(),
            source: source.clone(),
            base,
            target,
            is_commit: false,
            dirty,
            observing,
            keeps_graph: false,
            _claim: claim,
        }
    }

    /// Copies what was written again.
    fn copy_dirty(&self, job: &Job) -> Result<(), JobError> {
        while let Some((offset, len)) = self.dirty.take() {
            let len = len.min(self.source.len().saturating_sub(offset));
            job.checkpoint(len)?;
            job.add_len(len);
            copy(job, &self.source, &self.target.node(), (offset, len), false)?;
            job.advance(len);
        }
        Ok(())
    }
}

impl Task for Mirror {
    fn run(&mut self, job: &Job) -> Result<(), JobError> {
        let (source, target) = (self.source.clone(), self.target.node());
        if target.len() < source.len() {
            target.resize(source.len(), Preallocation::Off)?;
        }
        let target = &target;
        let is_commit = self.is_commit;
        each_held(
            job,
            &source,
            self.base.as_ref(),
            !is_commit,
            |at, len, is_zero| {
                // A target that is new needs no zeros.
                let is_blank = is_zero && !is_commit && {
                    let there = target.extent(at, len)?;
                    there.is_zero && there.len >= len
                };
                match is_blank {
                    true => Ok(()),
                    false => copy(job, &source, target, (at, len), is_zero),
                }
            },
        )?;
        self.copy_dirty(job)?;
        job.ready();
        while !job.is_asked_to_end() {
            job.checkpoint(0)?;
            self.copy_dirty(job)?;
            job.rest(REST);
        }
        job.checkpoint(0)?;
        self.copy_dirty(job)?;
        self.keeps_graph = job.is_soft_cancelled();
        Ok(())
    }

    fn commit(&mut self) -> Result<(), JobError> {
        let graph = self.graph.clone();
        let target = self.target.node();
        let still = graph.still();
        while let Some((offset, len)) = self.dirty.take() {
            let len = len.min(self.source.len().saturating_sub(offset));
            let memory = IoVector::zeroed(usize::try_from(len).unwrap_or(0));
            self.source.read(offset, &memory)?;
            target.write(offset, &memory)?;
        }
        self.observing = None;
        target.flush()?;
        if self.keeps_graph {
            return Ok(());
        }
        let backing = self.source.child("backing");
        if self.is_commit {
            // Nobody looks through the old top any more: what it shows changes from now on.
            self.source.driver().set_backing(None)?;
        }
        self.target.let_go();
        if let Err(error) = graph.replace(&still, &self.source, &target) {
            if let (true, Some(backing)) = (self.is_commit, backing) {
                set_backing(&self.source, Some(&backing))?;
            }
            return Err(error.into());
        }
        Ok(())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.observing = None;
        if self.is_commit {
            leave(&self.graph, &self.target);
        }
    }
}

/// A base that nobody writes to is read-only again.
fn leave(graph: &Graph, base: &Child) {
    let _still = graph.still();
    base.let_go();
    let base = base.node();
    if !base.is_written()
        && let Err(error) = base.set_read_only(true)
    {
        log::error!("node '{}': {error}", base.name());
    }
}

/// `top` and all below it, to `base`; the whole chain without one.
fn chain(top: &Arc<Node>, base: Option<&Arc<Node>>) -> Vec<Arc<Node>> {
    let mut nodes = vec![top.clone()];
    let mut at = top.clone();
    while let Some(next) = at.behind() {
        if base.is_some_and(|base| Arc::ptr_eq(base, &at)) {
            break;
        }
        nodes.push(next.clone());
        at = next;
    }
    nodes
}

/// An edge to write what is shown above already to a node that nobody wrote to.
fn write_unchanged(graph: &Graph, id: &str, node: &Arc<Node>) -> Result<Child, OpenError> {
    let still = graph.still();
    node.set_read_only(false)?;
    drop(still);
    Child::attach(
        node.clone(),
        id,
        "job",
        perm::CONSISTENT_READ | perm::WRITE_UNCHANGED,
        perm::CONSISTENT_READ | perm::WRITE_UNCHANGED,
    )
}

/// Gives a node another backing node.
///
/// # Errors
/// That its driver has none, or that an edge forbids it.
pub fn set_backing(node: &Node, backing: Option<&Arc<Node>>) -> Result<(), OpenError> {
    let child = match backing {
        Some(backing) => Some(Child::attach(
            backing.clone(),
            node.name(),
            "backing",
            perm::CONSISTENT_READ,
            perm::CONSISTENT_READ | perm::WRITE_UNCHANGED,
        )?),
        None => None,
    };
    let set = node.driver().set_backing(child);
    set.map_err(|_| {
        OpenError::Other(format!(
            "driver '{}' of node '{}' has no backing files",
            node.class().name,
            node.name()
        ))
    })
}

/// The name and format by which an image names a node behind it.
type Named = Option<(String, String)>;

fn name_of(node: &Node, given: Option<&str>) -> Named {
    let name = given.unwrap_or_else(|| node.file()).to_owned();
    Some((name, node.class().name.to_owned()))
}

fn rechain(
    _: &Still<'_>,
    node: &Node,
    backing: Option<&Arc<Node>>,
    named: &Named,
) -> Result<(), JobError> {
    set_backing(node, backing)?;
    let named = named
        .as_ref()
        .map(|(name, format)| (name.as_str(), format.as_str()));
    node.driver().name_backing(named)?;
    Ok(())
}

/// Writes what images between an overlay and a base hold into the base, and takes them out.
pub struct Commit {
    graph: Arc<Graph>,
    overlay: Arc<Node>,
    top: Arc<Node>,
    base: Child,
    named: Named,
    _claim: Claim,
}

impl Commit {
    /// Commits the images from `top`, which is behind `overlay`, into `base`. The overlay names the
    /// base by its file, or as given.
    ///
    /// # Errors
    /// What stands against it.
    pub fn new(
        graph: &Arc<Graph>,
        id: &str,
        [overlay, top, base]: [&Arc<Node>; 3],
        backing_file: Option<&str>,
    ) -> Result<Self, OpenError> {
        let claim = graph.claim(&chain(overlay, Some(base)), "commit")?;
        Ok(Commit {
            graph: graph.clone(),
            overlay: overlay.clone(),
            top: top.clone(),
            base: write_unchanged(graph, id, base)?,
            named: name_of(base, backing_file),
            _claim: claim,
        })
    }
}

impl Task for Commit {
    fn run(&mut self, job: &Job) -> Result<(), JobError> {
        let (top, base) = (self.top.clone(), self.base.node());
        if base.len() < top.len() {
            base.resize(top.len(), Preallocation::Off)?;
        }
        each_held(job, &top, Some(&base), false, |at, len, is_zero| {
            copy(job, &top, &base, (at, len), is_zero)
        })?;
        base.flush()?;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), JobError> {
        let graph = self.graph.clone();
        let base = self.base.node();
        let still = graph.still();
        self.base.let_go();
        rechain(&still, &self.overlay, Some(&base), &self.named)
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        leave(&self.graph, &self.base);
    }
}

/// Writes what an image holds into its backing image and takes it out, all at once: nothing else goes
/// on meanwhile.
///
/// # Errors
/// The host's; that its format cannot.
pub fn commit_now(graph: &Graph, top: &Arc<Node>, base: &Arc<Node>) -> Result<(), OpenError> {
    let still = graph.still();
    let was_read_only = base.options().read_only;
    base.set_read_only(false)?;
    let committed = commit_all(&still, top, base);
    if was_read_only && !base.is_written() {
        base.set_read_only(true)?;
    }
    committed.map_err(|error| {
        let (top, base) = (top.name(), base.name());
        OpenError::Other(format!(
            "node '{top}' cannot be committed into '{base}': {error}"
        ))
    })
}

fn commit_all(_: &Still<'_>, top: &Arc<Node>, base: &Arc<Node>) -> Result<(), BlockError> {
    if base.len() < top.len() {
        base.resize(top.len(), Preallocation::Off)?;
    }
    let mut at = 0u64;
    while at < top.len() {
        let found = held(top, Some(base), at, top.len().saturating_sub(at))?;
        let mut len = found.len;
        if found.is_held && found.is_zero {
            base.write_zeroes(at, len, true)?;
        } else if found.is_held {
            len = len.min(STEP);
            let memory = IoVector::zeroed(usize::try_from(len).unwrap_or(0));
            top.read(at, &memory)?;
            base.write(at, &memory)?;
        }
        at = at.saturating_add(len);
    }
    base.flush()?;
    top.driver().empty()
}

/// Parts of a node that are being written, and the one that a stream is at.
struct Keeping {
    parts: Mutex<Vec<(u64, u64)>>,
    changed: Condvar,
    /// Whose writes are the stream's own.
    own: Mutex<Option<ThreadId>>,
}

impl Keeping {
    /// Waits until a part is free, and takes it.
    fn take(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        while parts
            .iter()
            .any(|(start, until)| *start < end && offset < *until)
        {
            parts = self
                .changed
                .wait(parts)
                .unwrap_or_else(PoisonError::into_inner);
        }
        parts.push((offset, end));
    }

    fn give(&self, offset: u64, len: u64) {
        let part = (offset, offset.saturating_add(len));
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = parts.iter().position(|other| *other == part) {
            parts.swap_remove(at);
        }
        drop(parts);
        self.changed.notify_all();
    }

    fn is_own(&self) -> bool {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        *own == Some(std::thread::current().id())
    }
}

impl Observer for Keeping {
    fn before(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        if !self.is_own() {
            self.take(offset, len);
        }
        Ok(())
    }

    fn after(&self, offset: u64, len: u64) {
        if !self.is_own() {
            self.give(offset, len);
        }
    }
}

/// Brings what lies behind an image into it, and takes out what it came from.
pub struct Stream {
    graph: Arc<Graph>,
    top: Arc<Node>,
    base: Option<Arc<Node>>,
    named: Named,
    keeping: Arc<Keeping>,
    _observing: Observing,
    _claim: Claim,
}

impl Stream {
    /// Brings what lies between `top` and `base` into `top`, or all that lies behind it.
    ///
    /// # Errors
    /// What stands against it.
    pub fn new(
        graph: &Arc<Graph>,
        top: &Arc<Node>,
        base: Option<&Arc<Node>>,
        backing_file: Option<&str>,
    ) -> Result<Self, OpenError> {
        let claim = graph.claim(&chain(top, base), "stream")?;
        if top.options().read_only {
            return Err(OpenError::Other(format!(
                "node '{}' is read-only, and what is behind it is to be written to it",
                top.name()
            )));
        }
        let keeping = Arc::new(Keeping {
            parts: Mutex::default(),
            changed: Condvar::new(),
            own: Mutex::default(),
        });
        let still = graph.still();
        let observing = top.observe(keeping.clone());
        drop(still);
        Ok(Stream {
            graph: graph.clone(),
            top: top.clone(),
            base: base.cloned(),
            named: base.and_then(|base| name_of(base, backing_file)),
            keeping,
            _observing: observing,
            _claim: claim,
        })
    }

    /// Brings a range in, as far as the image itself has nothing there.
    fn bring(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            let extent = self.top.extent(at, end.saturating_sub(at))?;
            let len = extent.len.clamp(1, end.saturating_sub(at));
            if !extent.is_allocated {
                let memory = IoVector::zeroed(usize::try_from(len).unwrap_or(0));
                self.top.read(at, &memory)?;
                match memory.is_zero() {
                    true => self.top.write_zeroes(at, len, true)?,
                    false => self.top.write(at, &memory)?,
                }
            }
            at = at.saturating_add(len);
        }
        Ok(())
    }
}

impl Task for Stream {
    fn run(&mut self, job: &Job) -> Result<(), JobError> {
        let own = std::thread::current().id();
        *self
            .keeping
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(own);
        let me = &*self;
        each_held(job, &me.top, me.base.as_ref(), false, |offset, len, _| {
            let mut at = offset;
            let end = offset.saturating_add(len);
            while at < end {
                let len = STEP.min(end.saturating_sub(at));
                insist(job, true, || {
                    // Not held through a pause: guests' writes wait for it.
                    me.keeping.take(at, len);
                    let brought = me.bring(at, len);
                    me.keeping.give(at, len);
                    brought
                })?;
                at = at.saturating_add(len);
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<(), JobError> {
        let graph = self.graph.clone();
        let still = graph.still();
        self.top.flush()?;
        rechain(&still, &self.top, self.base.as_ref(), &self.named)
    }
}
