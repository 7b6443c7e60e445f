//! What a chip stores, in host memory and in its disk.
//!
//! The guest changes memory; what changed is written to the disk behind its back, one request at a
//! time so that no older write overtakes a newer one, and all of it before the machine is stopped.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use backend_block::{BlockError, IoVector, Operation, Request, SharedBlock};
use hw_core::DeviceError;
use hw_memory::{PAGE_SIZE, RamBlock};
use runtime::{RateLimit, log_limited};

/// Bytes of a request at most.
const STEP: u64 = 1 << 20;

/// The stored bytes.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) block: Arc<RamBlock>,
    disk: Option<Arc<Disk>>,
}

struct Disk {
    disk: SharedBlock,
    block: Arc<RamBlock>,
    queue: Mutex<Queue>,
    idle: Condvar,
    limit: RateLimit,
}

#[derive(Default)]
struct Queue {
    /// Pages that the disk does not have yet, by number.
    dirty: BTreeSet<u64>,
    /// A request is under way.
    is_busy: bool,
    /// Something was written since the last flush.
    is_unflushed: bool,
}

impl Image {
    /// `len` bytes in memory called `name`, with the contents of the disk, which must have as many.
    /// Waits until they are read.
    pub(crate) fn open(
        name: &str,
        len: u64,
        disk: Option<SharedBlock>,
    ) -> Result<Self, DeviceError> {
        let block = RamBlock::private(name, len);
        let block = Arc::new(block.map_err(|e| DeviceError::Other(format!("{name}: {e}")))?);
        let Some(disk) = disk else {
            return Ok(Image { block, disk: None });
        };
        let id = disk.info().id;
        if disk.len() != len {
            return Err(DeviceError::Other(format!(
                "{name}: the flash chip has {len} bytes, its drive '{id}' {}; make the image as long as the chip ('truncate -s {len} FILE')",
                disk.len()
            )));
        }
        let mut at = 0;
        while at < len {
            let part =
                IoVector::zeroed(usize::try_from(STEP.min(len.saturating_sub(at))).unwrap_or(0));
            wait(&disk, Operation::Read { offset: at }, part.clone()).map_err(|e| {
                DeviceError::Other(format!("{name}: cannot read drive '{id}': {e}"))
            })?;
            // What was never touched takes no memory.
            if !part.is_zero() {
                block.write(at, &part.to_vec());
            }
            at = at.saturating_add(STEP);
        }
        let disk = (!disk.info().read_only).then(|| {
            Arc::new(Disk {
                disk,
                block: block.clone(),
                queue: Mutex::default(),
                idle: Condvar::new(),
                limit: RateLimit::default(),
            })
        });
        Ok(Image { block, disk })
    }

    /// `offset..offset + len` changed.
    pub(crate) fn changed(&self, offset: u64, len: u64) {
        let Some(disk) = self.disk.as_ref().filter(|_| len != 0) else {
            return;
        };
        let end = offset.saturating_add(len).min(self.block.len());
        let mut queue = disk.lock();
        queue
            .dirty
            .extend(offset / PAGE_SIZE..end.div_ceil(PAGE_SIZE));
        if !queue.is_busy {
            disk.go_on(&mut queue);
        }
    }

    /// What waits until the disk has everything.
    pub(crate) fn drain(&self) -> Option<Arc<dyn Fn() + Send + Sync>> {
        let disk = self.disk.clone()?;
        Some(Arc::new(move || {
            let mut queue = disk.lock();
            while queue.is_busy {
                queue = disk
                    .idle
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }))
    }
}

fn wait(disk: &SharedBlock, operation: Operation, memory: IoVector) -> Result<(), BlockError> {
    let (tell, told) = mpsc::channel();
    let done = Box::new(move |result| {
        let _ = tell.send(result);
    });
    disk.submit(Request::new(operation, memory, done));
    told.recv().unwrap_or(Err(BlockError::Cancelled))
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next request, if there is anything to do.
    fn go_on(self: &Arc<Self>, queue: &mut Queue) {
        let next = queue.next_run().and_then(|(at, len)| {
            let len = len.min(self.block.len().saturating_sub(at));
            let mut bytes = vec![0; usize::try_from(len).ok()?];
            self.block.read(at, &mut bytes)?;
            Some((Operation::Write { offset: at }, bytes.as_slice().into()))
        });
        let flush = || {
            let must = queue.is_unflushed && !self.disk.info().write_back;
            must.then(|| (Operation::Flush, IoVector::default()))
        };
        let Some((operation, memory)) = next.or_else(flush) else {
            queue.is_busy = false;
            self.idle.notify_all();
            return;
        };
        queue.is_busy = true;
        queue.is_unflushed = operation != Operation::Flush;
        let this = self.clone();
        let done = Box::new(move |result: Result<(), BlockError>| {
            if let Err(error) = result {
                log_limited!(
                    this.limit,
                    log::Level::Error,
                    target: "block",
                    "drive '{}': what the guest stored in its flash chip is not in the image: {error}",
                    this.disk.info().id
                );
            }
            let mut queue = this.lock();
            this.go_on(&mut queue);
        });
        self.disk.submit(Request::new(operation, memory, done));
    }
}

impl Queue {
    /// Takes the first pages in a row: offset and bytes.
    fn next_run(&mut self) -> Option<(u64, u64)> {
        let first = self.dirty.pop_first()?;
        let mut end = first.saturating_add(1);
        while end.saturating_sub(first) < STEP / PAGE_SIZE && self.dirty.remove(&end) {
            end = end.saturating_add(1);
        }
        let len = end.saturating_sub(first).saturating_mul(PAGE_SIZE);
        Some((first.saturating_mul(PAGE_SIZE), len))
    }
}
