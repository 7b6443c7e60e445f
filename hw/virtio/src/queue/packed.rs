//! Packed virtqueues (VIRTIO 1.2 section 2.8).

use std::sync::atomic::{Ordering, fence};

use hw_core::Dma;

use super::{Desc, INDIRECT, NEXT, Queue, QueueError, WRITE};
use crate::chain::Chain;
use crate::feature;

/// Descriptor flag: made available in rounds of this parity.
const AVAIL: u16 = 1 << 7;
/// Descriptor flag: used in rounds of this parity.
const USED: u16 = 1 << 15;
/// Event suppression: no notifications.
const DISABLE: u16 = 1;
/// Event suppression: when the ring passes a given descriptor.
const DESC: u16 = 2;
/// Offset and wrap counter share a word.
const WRAP: u16 = 1 << 15;

impl Queue {
    /// Flags of the next descriptor, if the driver has made it available.
    pub(super) fn packed_available(&self, dma: &Dma) -> Result<Option<u16>, QueueError> {
        let at = u64::from(self.state.next_avail)
            .wrapping_mul(16)
            .wrapping_add(14);
        let flags = dma.load_le(self.state.desc.wrapping_add(at), 2)? as u16;
        // The descriptor must not be read before the flags that announced it.
        fence(Ordering::Acquire);
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        let wrap = self.state.avail_wrap;
        Ok((avail == wrap && used != wrap).then_some(flags))
    }

    /// Moves a ring position on; returns it and the wrap counter.
    fn advance(&self, at: u16, wrap: bool, by: u16) -> (u16, bool) {
        let next = at.saturating_add(by);
        match next.checked_sub(self.state.size) {
            Some(rest) => (rest, !wrap),
            None => (next, wrap),
        }
    }

    pub(super) fn pop_packed(
        &mut self,
        dma: &Dma,
        features: u64,
    ) -> Result<Option<Chain>, QueueError> {
        if self.state.next_avail >= self.state.size {
            return Err(QueueError::BadIndex(self.state.next_avail));
        }
        if self.packed_available(dma)?.is_none() {
            self.ask_for_notification(dma, features)?;
            if self.packed_available(dma)?.is_none() {
                return Ok(None);
            }
        }
        let mut chain = Chain::new(0, 0);
        let (mut at, mut wrap) = (self.state.next_avail, self.state.avail_wrap);
        loop {
            let desc = Desc::load_packed(dma, self.state.desc, u32::from(at))?;
            (at, wrap) = self.advance(at, wrap, 1);
            chain.slots = chain.slots.saturating_add(1);
            if chain.slots > self.state.size {
                return Err(QueueError::TooLong);
            }
            if desc.flags & INDIRECT != 0 {
                if features & feature::INDIRECT_DESC == 0
                    || desc.flags & NEXT != 0
                    || chain.slots != 1
                {
                    return Err(QueueError::BadIndirect);
                }
                self.indirect(dma, &mut chain, desc.addr, desc.len, true)?;
            } else {
                chain.push(desc.addr, desc.len, desc.flags & WRITE != 0)?;
            }
            if desc.flags & NEXT == 0 {
                // The last descriptor carries the buffer id.
                chain.id = desc.next;
                break;
            }
        }
        (self.state.next_avail, self.state.avail_wrap) = (at, wrap);
        Ok(Some(chain))
    }

    /// Writes the device's event suppression: notify about the next descriptor.
    fn ask_for_notification(&self, dma: &Dma, features: u64) -> Result<(), QueueError> {
        let wrap = if self.state.avail_wrap { WRAP } else { 0 };
        let (position, flags) = if features & feature::EVENT_IDX != 0 {
            (self.state.next_avail | wrap, DESC)
        } else {
            (0, 0)
        };
        dma.store_le(self.state.device, 2, u64::from(position))?;
        fence(Ordering::Release);
        dma.store_le(self.state.device.wrapping_add(2), 2, u64::from(flags))?;
        dma.fence();
        Ok(())
    }

    pub(super) fn push_packed(
        &mut self,
        dma: &Dma,
        chain: &Chain,
        written: u32,
    ) -> Result<(), QueueError> {
        let at = u64::from(self.state.next_used).wrapping_mul(16);
        let desc = self.state.desc.wrapping_add(at);
        dma.store_le(desc.wrapping_add(8), 4, u64::from(written))?;
        dma.store_le(desc.wrapping_add(12), 2, u64::from(chain.id))?;
        let mut flags = if self.state.used_wrap {
            AVAIL | USED
        } else {
            0
        };
        if written != 0 {
            flags |= WRITE;
        }
        // Length and id, and the data before them, must be there when the flags say so.
        fence(Ordering::Release);
        dma.store_le(desc.wrapping_add(14), 2, u64::from(flags))?;
        let (next, wrap) = (self.state.next_used, self.state.used_wrap);
        (self.state.next_used, self.state.used_wrap) = self.advance(next, wrap, chain.slots);
        Ok(())
    }

    pub(super) fn wants_interrupt_packed(
        &mut self,
        dma: &Dma,
        features: u64,
    ) -> Result<bool, QueueError> {
        dma.fence();
        let new = self.state.next_used;
        let old = self.state.signalled.replace(new);
        let flags = dma.load_le(self.state.driver.wrapping_add(2), 2)? as u16 & 3;
        if flags == DISABLE {
            return Ok(false);
        }
        if flags != DESC || features & feature::EVENT_IDX == 0 {
            return Ok(true);
        }
        let event = dma.load_le(self.state.driver, 2)? as u16;
        let size = self.state.size;
        let Some(old) = old else { return Ok(true) };
        // Count on one line: positions of the round before lie `size` below.
        let line = |position: u16| i32::from(position);
        let mut event_at = line(event & !WRAP);
        if (event & WRAP != 0) != self.state.used_wrap {
            event_at = event_at.saturating_sub(line(size));
        }
        let mut old_at = line(old);
        if old >= new {
            old_at = old_at.saturating_sub(line(size));
        }
        Ok(event_at >= old_at && event_at < line(new))
    }
}
