//! Disks: a graph of nodes that store bytes in one another, and how devices use it.
//!
//! A device hands a [`Request`] to a [`Block`] and is told when it is done; nobody waits for a disk
//! with a lock held. [`BlockBackend`] is the one for images: its threads carry requests out against
//! the node on top of a [`Graph`], whose drivers are plain code that may wait. Bytes move straight
//! between the host's file and guest memory.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod accounting;
mod backend;
#[cfg(feature = "bench")]
pub mod bench;
mod cache;
mod copy;
mod debug;
mod driver;
mod edge;
mod error;
mod flights;
mod graph;
mod job;
mod node;
mod null;
mod open;
mod policy;
mod raw;
mod reopen;
mod request;
#[cfg(test)]
mod tests;
mod throttle;
mod throttle_node;
mod tray;
mod workers;

use std::sync::Arc;

pub use accounting::{Count, Stats};
pub use backend::{BackendOptions, BlockBackend};
pub use cache::Cache;
pub use control_options::PropDef;
pub use copy::{Commit, Mirror, Stream, commit_now, set_backing};
pub use debug::CLASS as BLKDEBUG;
pub use driver::{
    ChildDef, CreateClass, Detail, Driver, DriverClass, DriverKind, Extent, Preallocation, Transfer,
};
pub use edge::{Child, perm};
pub use error::OpenError;
pub use flights::Flights;
pub use graph::{Claim, Graph, Still};
pub use hw_memory::{BUFFER_ALIGN, IoVector};
pub use job::{Job, JobError, JobEvent, JobInfo, JobKind, JobSpec, JobStatus, Jobs, Task, Verb};
pub use node::{DetectZeroes, Node, NodeOptions, Observer, Observing};
pub use null::{CLASS as NULL_CO, zero_disk};
pub use open::{NODE_PROPS, Opener, Opening, PROBE_LEN, beside};
pub use policy::{ErrorAction, ErrorPolicy, Failure, IoStatus};
pub use raw::CLASS as RAW;
pub use reopen::Reopening;
pub use request::{BlockError, Completion, Gate, Operation, Pass, Request};
pub use throttle::{
    Direction, LIMIT_RATE, Limit, Limited, Limits, Member, THROTTLE_PROPS, ThrottleGroup, Throttles,
};
pub use throttle_node::CLASS as THROTTLE;
pub use tray::{Tray, TrayError};
pub use workers::{Busy, Paused, Work, Workers};

/// The unit in which sizes and offsets are given to guests.
pub const SECTOR: u64 = 512;

/// What a device tells its guest about a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Name for `info block`: the id of the drive or node.
    pub id: String,
    /// File name as shown to users.
    pub file: String,
    /// Driver of the format, as `raw`.
    pub format: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether discards reach the image.
    pub discard: bool,
    /// Whether guests' writes may stay in the host's cache until a flush.
    pub write_back: bool,
}

/// A disk. Shared by its device and the monitor.
pub trait Block: Send + Sync {
    /// What it is.
    fn info(&self) -> BlockInfo;

    /// Bytes, a multiple of [`SECTOR`].
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node of the graph, if it is one of its disks.
    fn node(&self) -> Option<Arc<Node>> {
        None
    }

    /// Another node from now on; requests that wait go there.
    ///
    /// # Errors
    /// When a user of the node forbids it, or it is read-only and written to.
    fn set_node(&self, still: &Still<'_>, node: &Arc<Node>) -> Result<(), OpenError> {
        let _ = (still, node);
        Err(OpenError::Other("this disk has no node".to_owned()))
    }

    /// Takes a request. Never waits. The completion is always called, once, later, and not by the
    /// calling thread before this returns.
    fn submit(&self, request: Request);

    /// Fills `memory` from `offset` on if that is a matter of copying: what the host's cache holds, in a
    /// disk that lets requests through as they come. False: nothing is done, and the request is to be
    /// [submitted](Self::submit). Never waits.
    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        let _ = (offset, memory);
        false
    }

    /// Requests taken from now on start when all earlier ones are done: a device's reset.
    fn barrier(&self);

    /// Waits until every request taken so far has completed. Called with the machine stopped, by
    /// nobody who holds a device.
    fn drain(&self);

    /// What was done so far.
    fn stats(&self) -> Stats {
        Stats::default()
    }

    /// What is done when a read fails, and when anything else does.
    fn policies(&self) -> (ErrorPolicy, ErrorPolicy) {
        (ErrorPolicy::Report, ErrorPolicy::Report)
    }

    /// Whether requests failed and wait for [`retry`](Self::retry).
    fn io_status(&self) -> IoStatus {
        IoStatus::Ok
    }

    /// Calls `listener` with each request that the host fails, on the thread that carried it out.
    fn on_failure(&self, listener: Arc<dyn Fn(&Failure) + Send + Sync>) {
        let _ = listener;
    }

    /// Begins requests that failed and wait another time: the machine goes on.
    fn retry(&self) {}

    /// The group whose limits hold for it, and the limits.
    fn throttle(&self) -> Option<(String, Limits)> {
        None
    }

    /// Makes it a member of a group, or of none.
    fn set_throttle(&self, group: Option<&Arc<ThrottleGroup>>) {
        let _ = group;
    }

    /// Changes the size, and tells whoever listens. Waits; not called by a device.
    fn resize(&self, len: u64) -> Result<(), BlockError> {
        let _ = len;
        Err(BlockError::Unsupported)
    }

    /// Tells whoever listens that the size is another one.
    fn size_changed(&self) {}

    /// Calls `listener` after each change of the size, on the thread that changes it.
    fn on_resize(&self, listener: Arc<dyn Fn() + Send + Sync>) {
        let _ = listener;
    }
}

/// How devices and the monitor hold a disk. The back end of a `drive` property.
pub type SharedBlock = Arc<dyn Block>;
