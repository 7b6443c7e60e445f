//! Logical units: what answers commands.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use backend_block::{Operation, SharedBlock};

use crate::{Cdb, Sense};

/// What is left to do of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// These bytes go to the host; none, and the command is done.
    In(Vec<u8>),
    /// So many bytes come from the host, for [`Unit::parameters`].
    Parameters(u64),
    /// Bytes of the medium go to the host.
    Read {
        /// Where on the medium.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Bytes from the host go to the medium.
    Write {
        /// Where on the medium.
        offset: u64,
        /// How many.
        len: u64,
        /// They are not written before they are safe.
        fua: bool,
    },
    /// The same block is written again and again.
    Fill {
        /// Where on the medium.
        offset: u64,
        /// How many bytes, whole blocks.
        len: u64,
        /// The block, never empty.
        block: Vec<u8>,
        /// They are not written before they are safe.
        fua: bool,
    },
    /// One after the other, without data.
    Operations(VecDeque<Operation>),
}

impl Job {
    /// Nothing.
    pub const DONE: Job = Job::In(Vec::new());

    /// A single operation.
    pub fn operation(operation: Operation) -> Self {
        Job::Operations([operation].into())
    }
}

/// A logical unit. What it says does not depend on who asks: there is one initiator.
pub trait Unit: Send {
    /// The medium, if there is one behind a closed door.
    fn medium(&self) -> Option<SharedBlock>;

    /// Carries a command out, or says what is left to be done. REPORT LUNS does not come here.
    fn command(&mut self, cdb: Cdb<'_>) -> Result<Job, Sense>;

    /// The parameters that a [`Job::Parameters`] asked for.
    fn parameters(&mut self, cdb: Cdb<'_>, data: &[u8]) -> Result<Job, Sense>;

    /// Something happened that the host is told with its next command (SAM-5, 5.14).
    fn attention(&mut self, sense: Sense);

    /// Power on, or a reset of the unit: settings are as they were at first.
    fn reset(&mut self);
}

/// How a bus and the unit's own device hold it.
pub type SharedUnit = Arc<Mutex<dyn Unit>>;
