//! What reaches stable storage, and what becomes of the image when the host fails that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use backend_block::{BlockError, IoVector, Node};

use crate::header::read;

/// Where a flush goes beside the image file: the guest's data, if it is elsewhere.
pub(crate) type DataNode<'a> = Option<&'a Node>;

/// Flushes under way. One of a guest's holds no table; the host tells of an error only once, so what
/// must be stable before tables are written waits for what those of guests have to say.
#[derive(Default)]
pub(crate) struct Syncing {
    turn: RwLock<()>,
    /// What the file holds is not known, so nothing more is entered into it.
    broken: AtomicBool,
}

impl Syncing {
    fn flush(&self, node: &Node, data: DataNode<'_>) -> Result<(), BlockError> {
        let flushed = data.map_or(Ok(()), Node::flush).and_then(|()| node.flush());
        if flushed.is_err() {
            // The host may have dropped what it could not write: from now on nobody knows what is there.
            self.broken.store(true, Ordering::Release);
        }
        flushed
    }

    /// Refuses to go on when nobody knows what the file holds.
    pub(crate) fn check(&self) -> Result<(), BlockError> {
        match self.broken.load(Ordering::Acquire) {
            true => Err(BlockError::Io),
            false => Ok(()),
        }
    }

    /// What was written before reaches stable storage; others may flush at the same time.
    pub(crate) fn beside(&self, node: &Node, data: DataNode<'_>) -> Result<(), BlockError> {
        let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
        self.flush(node, data)
    }

    /// The same for what tables are to refer to.
    pub(crate) fn alone(&self, node: &Node, data: DataNode<'_>) -> Result<(), BlockError> {
        let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        self.flush(node, data)
    }

    /// Puts a field of the header in force. What it refers to is stable. When the host fails it, the file
    /// may have the new field all the same, while the image goes on with the old one: that is put back.
    pub(crate) fn put(&self, node: &Node, offset: u64, field: &[u8]) -> Result<(), BlockError> {
        self.check()?;
        let old = read(node, offset, field.len())?;
        let write = |field: &[u8]| node.write(offset, &IoVector::from(field));
        match write(field) {
            Ok(()) => self.alone(node, None),
            // A full disk has taken nothing.
            Err(BlockError::NoSpace) => Err(BlockError::NoSpace),
            Err(error) => {
                if write(&old).is_err() {
                    self.broken.store(true, Ordering::Release);
                }
                Err(error)
            }
        }
    }
}
