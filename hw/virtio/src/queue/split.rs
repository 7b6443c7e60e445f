//! Split virtqueues (VIRTIO 1.2 section 2.7).

use std::sync::atomic::{Ordering, fence};

use hw_core::Dma;

use super::{Desc, INDIRECT, NEXT, Queue, QueueError, WRITE, need_event};
use crate::chain::Chain;
use crate::feature;

/// `avail.flags`: the driver wants no interrupts.
const NO_INTERRUPT: u64 = 1;

impl Queue {
    /// `avail.idx`.
    pub(super) fn split_index(&self, dma: &Dma) -> Result<u16, QueueError> {
        let index = dma.load_le(self.state.driver.wrapping_add(2), 2)? as u16;
        // The ring entry must not be read before the index that announced it.
        fence(Ordering::Acquire);
        Ok(index)
    }

    fn ring_slot(&self, index: u16) -> u64 {
        u64::from(index.checked_rem(self.state.size).unwrap_or(0))
    }

    pub(super) fn pop_split(
        &mut self,
        dma: &Dma,
        features: u64,
    ) -> Result<Option<Chain>, QueueError> {
        let size = self.state.size;
        let mut index = self.split_index(dma)?;
        if index == self.state.next_avail {
            if features & feature::EVENT_IDX == 0 {
                return Ok(None);
            }
            // Say that the next entry is to be notified, then look again: it may have come between.
            let used_end = u64::from(size).wrapping_mul(8).wrapping_add(4);
            let avail_event = self.state.device.wrapping_add(used_end);
            dma.store_le(avail_event, 2, u64::from(self.state.next_avail))?;
            dma.fence();
            index = self.split_index(dma)?;
            if index == self.state.next_avail {
                return Ok(None);
            }
        }
        let ahead = index.wrapping_sub(self.state.next_avail);
        if ahead > size {
            return Err(QueueError::IndexJump(ahead));
        }
        let slot = self.ring_slot(self.state.next_avail).wrapping_mul(2);
        let entry = self.state.driver.wrapping_add(4).wrapping_add(slot);
        let head = dma.load_le(entry, 2)? as u16;
        let chain = self.split_chain(dma, head, features & feature::INDIRECT_DESC != 0)?;
        self.state.next_avail = self.state.next_avail.wrapping_add(1);
        Ok(Some(chain))
    }

    fn split_chain(&self, dma: &Dma, head: u16, indirect: bool) -> Result<Chain, QueueError> {
        let size = self.state.size;
        let mut chain = Chain::new(head, 1);
        let mut index = head;
        for _ in 0..size {
            if index >= size {
                return Err(QueueError::BadIndex(index));
            }
            let desc = Desc::load(dma, self.state.desc, u32::from(index))?;
            if desc.flags & INDIRECT != 0 {
                // A table ends the chain (VIRTIO 1.2 section 2.7.5.3.1).
                if !indirect || desc.flags & NEXT != 0 {
                    return Err(QueueError::BadIndirect);
                }
                self.indirect(dma, &mut chain, desc.addr, desc.len, false)?;
                return Ok(chain);
            }
            chain.push(desc.addr, desc.len, desc.flags & WRITE != 0)?;
            if desc.flags & NEXT == 0 {
                return Ok(chain);
            }
            index = desc.next;
        }
        Err(QueueError::TooLong)
    }

    pub(super) fn push_split(
        &mut self,
        dma: &Dma,
        chain: &Chain,
        written: u32,
    ) -> Result<(), QueueError> {
        let slot = self.ring_slot(self.state.next_used).wrapping_mul(8);
        let entry = self.state.device.wrapping_add(4).wrapping_add(slot);
        let element = u64::from(chain.id) | u64::from(written) << 32;
        dma.store_le(entry, 8, element)?;
        // The element, and the data before it, must be there when the index says so.
        fence(Ordering::Release);
        self.state.next_used = self.state.next_used.wrapping_add(1);
        let index = self.state.device.wrapping_add(2);
        dma.store_le(index, 2, u64::from(self.state.next_used))?;
        Ok(())
    }

    pub(super) fn wants_interrupt_split(
        &mut self,
        dma: &Dma,
        features: u64,
    ) -> Result<bool, QueueError> {
        dma.fence();
        let new = self.state.next_used;
        let old = self.state.signalled.replace(new);
        if features & feature::NOTIFY_ON_EMPTY != 0
            && self.state.in_flight == 0
            && self.split_index(dma)? == self.state.next_avail
        {
            return Ok(true);
        }
        if features & feature::EVENT_IDX == 0 {
            return Ok(dma.load_le(self.state.driver, 2)? & NO_INTERRUPT == 0);
        }
        let ring_end = u64::from(self.state.size).wrapping_mul(2).wrapping_add(4);
        let used_event = dma.load_le(self.state.driver.wrapping_add(ring_end), 2)? as u16;
        Ok(old.is_none_or(|old| need_event(used_event, new, old)))
    }
}
