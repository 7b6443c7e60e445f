//! Requests for which nobody waits: reads of what is there already, and transfers that the kernel makes
//! straight between guest memory and one place of the data file. The tables must be at hand, and nothing
//! else may be at them; what is more than that goes the long way.

use std::sync::Arc;

use backend_block::{IoVector, Node, Transfer};

use crate::image::Qcow2;
use crate::mapping::Stored;
use crate::moving::Share;

impl Qcow2 {
    /// What is stored in a range, if that is one run and its L2 table is in the cache.
    fn run_now(&self, offset: u64, len: u64) -> Option<Stored> {
        let mut meta = self.meta.try_lock().ok()?;
        if !meta.is_at_hand(offset) {
            return None;
        }
        match self.run_in(&mut meta, offset, len) {
            Ok((stored, run)) if run >= len => Some(stored),
            _ => None,
        }
    }

    /// The node behind this one, if it has all of a range.
    fn behind_whole(&self, offset: u64, len: u64) -> Option<Arc<Node>> {
        let backing = self.behind()?.node();
        let end = offset.checked_add(len)?;
        (end <= backing.len()).then_some(backing)
    }

    /// [`Driver::read_now`](backend_block::Driver::read_now)
    pub(crate) fn read_guest_now(&self, offset: u64, memory: &IoVector) -> bool {
        let Some(_moving) = self.moving.try_share() else {
            return false;
        };
        match self.run_now(offset, memory.len()) {
            Some(Stored::At(host)) => self.data_node().read_now(host, memory),
            Some(Stored::Behind) if self.has_behind() => self
                .behind_whole(offset, memory.len())
                .is_some_and(|backing| backing.read_now(offset, memory)),
            Some(Stored::Zero | Stored::Behind) => {
                memory.fill(0);
                true
            }
            Some(Stored::Compressed(..)) | None => false,
        }
    }

    /// [`Driver::start`](backend_block::Driver::start)
    pub(crate) fn start_guest(&self, transfer: Transfer) -> Option<Transfer> {
        let Some(share) = self.moving.try_share() else {
            return Some(transfer);
        };
        let (offset, len) = (transfer.offset, transfer.memory.len());
        if transfer.is_write {
            return match self.place_now(offset, len) {
                Some(host) => pass_on(&self.data_node(), host, share, transfer),
                None => Some(transfer),
            };
        }
        match self.run_now(offset, len) {
            Some(Stored::At(host)) => pass_on(&self.data_node(), host, share, transfer),
            Some(Stored::Behind) => match self.behind_whole(offset, len) {
                Some(backing) => pass_on(&backing, offset, share, transfer),
                None => Some(transfer),
            },
            _ => Some(transfer),
        }
    }

    /// Where a range is stored, if it may be overwritten there.
    fn place_now(&self, offset: u64, len: u64) -> Option<u64> {
        let mut meta = self.meta.try_lock().ok()?;
        let first = self.geometry.index(offset);
        let last = self
            .geometry
            .index(offset.checked_add(len)?.checked_sub(1)?);
        let clusters = last.checked_sub(first)?.checked_add(1)?;
        if meta.check_usable().is_err() || meta.is_busy(first, clusters) || !meta.is_at_hand(offset)
        {
            return None;
        }
        match self.in_place(&mut meta, &self.file.node(), offset, len) {
            Ok(Some((host, run))) if run >= len => Some(host),
            _ => None,
        }
    }
}

/// Has the node that stores it make a transfer, whose share of moving data ends when it does.
fn pass_on(node: &Node, offset: u64, share: Share, transfer: Transfer) -> Option<Transfer> {
    let Transfer { done, .. } = transfer;
    let done = Box::new(move |is_whole| {
        drop(share);
        done(is_whole);
    });
    node.start(Transfer {
        offset,
        done,
        ..transfer
    })
}
