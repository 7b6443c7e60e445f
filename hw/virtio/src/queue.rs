//! A virtqueue: where it lies, how far it has been worked off, and whom to notify.

mod packed;
mod split;

use hw_core::{Dma, DmaError, Section, StateError};

use crate::chain::Chain;
use crate::feature;

/// Largest ring of any kind (VIRTIO 1.2 sections 2.7 and 2.8).
pub(crate) const MAX_SIZE: u16 = 32768;

const INDIRECT: u16 = 4;
const WRITE: u16 = 2;
const NEXT: u16 = 1;

/// How a driver broke the rules of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueueError {
    /// The ring or a table lies outside of RAM.
    #[error("ring: {0}")]
    Memory(#[from] DmaError),
    /// The available index jumped by more than the ring's size.
    #[error("the available index jumped by {0}")]
    IndexJump(u16),
    /// A descriptor index beyond the table.
    #[error("descriptor {0} is outside of the table")]
    BadIndex(u16),
    /// A chain longer than its table, thus a loop, or beyond any sense.
    #[error("a descriptor chain is too long or loops")]
    TooLong,
    /// A buffer of no bytes.
    #[error("a descriptor has no length")]
    ZeroLength,
    /// A buffer past the end of the address space.
    #[error("the buffer at {0:#x} wraps around")]
    AddressWraps(u64),
    /// A buffer to be read after one to be written.
    #[error("a device-readable descriptor follows a device-writable one")]
    ReadAfterWrite,
    /// An indirect table of a bad size, inside another, or with more descriptors after it.
    #[error("a bad indirect descriptor")]
    BadIndirect,
    /// More requests in flight than the ring can hold.
    #[error("more requests than the ring has descriptors")]
    TooMany,
}

/// The guest-visible state of a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    size: u16,
    ready: bool,
    desc: u64,
    driver: u64,
    device: u64,
    next_avail: u16,
    next_used: u16,
    avail_wrap: bool,
    used_wrap: bool,
    /// Where the used index was at the last look at whether to interrupt.
    signalled: Option<u16>,
    /// Ring slots of requests taken and not given back.
    in_flight: u16,
}

/// One virtqueue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    max_size: u16,
    state: State,
}

/// `event` lies in `old..new`, modulo 2^16 (VIRTIO 1.2 section 2.7.7.1).
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

impl Queue {
    /// A queue of at most `max_size` entries, a power of two.
    pub fn new(max_size: u16) -> Self {
        Queue {
            max_size,
            state: State {
                size: max_size,
                ready: false,
                desc: 0,
                driver: 0,
                device: 0,
                next_avail: 0,
                next_used: 0,
                avail_wrap: true,
                used_wrap: true,
                signalled: None,
                in_flight: 0,
            },
        }
    }

    /// Back to the state after power on.
    pub fn reset(&mut self) {
        *self = Queue::new(self.max_size);
    }

    /// Entries the device can deal with; zero when the queue does not exist.
    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    /// Entries the driver chose.
    pub fn size(&self) -> u16 {
        self.state.size
    }

    /// Takes the driver's choice, if it is possible.
    pub fn set_size(&mut self, size: u16) {
        if size != 0 && size <= self.max_size && !self.state.ready {
            self.state.size = size;
        }
    }

    /// Whether the driver has switched the queue on.
    pub fn is_ready(&self) -> bool {
        self.state.ready
    }

    /// Switches the queue on or off.
    pub fn set_ready(&mut self, ready: bool) {
        self.state.ready = ready;
    }

    /// Descriptor area, driver area (available ring), device area (used ring).
    pub fn areas(&self) -> [u64; 3] {
        [self.state.desc, self.state.driver, self.state.device]
    }

    /// Places the queue. Ignored while it is on.
    pub fn set_areas(&mut self, [desc, driver, device]: [u64; 3]) {
        if !self.state.ready {
            self.state.desc = desc;
            self.state.driver = driver;
            self.state.device = device;
        }
    }

    /// Places the queue as the legacy interface does: one piece of memory, the used ring at the next
    /// multiple of `align` (VIRTIO 1.2 section 2.7.2). Address zero switches it off.
    pub fn set_legacy(&mut self, base: u64, align: u32) {
        self.state.ready = false;
        let size = u64::from(self.state.size);
        let driver = base.saturating_add(size.saturating_mul(16));
        let end = driver
            .saturating_add(size.saturating_mul(2))
            .saturating_add(6);
        let align = u64::from(align.max(4)).next_power_of_two();
        let device = end.checked_next_multiple_of(align).unwrap_or(u64::MAX);
        self.set_areas([base, driver, device]);
        self.state.ready = base != 0;
    }

    /// Takes the next request, if the driver has made one available. Asks the driver to notify about
    /// the next one when there is none.
    pub fn pop(&mut self, dma: &Dma, features: u64) -> Result<Option<Chain>, QueueError> {
        if !self.state.ready {
            return Ok(None);
        }
        let chain = if features & feature::RING_PACKED != 0 {
            self.pop_packed(dma, features)?
        } else {
            self.pop_split(dma, features)?
        };
        if let Some(chain) = &chain {
            let slots = if features & feature::RING_PACKED != 0 {
                chain.slots
            } else {
                1
            };
            let in_flight = self.state.in_flight.saturating_add(slots);
            if in_flight > self.state.size {
                return Err(QueueError::TooMany);
            }
            self.state.in_flight = in_flight;
        }
        Ok(chain)
    }

    /// Gives a request back with `written` bytes written to it.
    pub fn push(
        &mut self,
        dma: &Dma,
        features: u64,
        chain: &Chain,
        written: u32,
    ) -> Result<(), QueueError> {
        if !self.state.ready {
            return Ok(());
        }
        if features & feature::RING_PACKED != 0 {
            self.state.in_flight = self.state.in_flight.saturating_sub(chain.slots);
            self.push_packed(dma, chain, written)
        } else {
            self.state.in_flight = self.state.in_flight.saturating_sub(1);
            self.push_split(dma, chain, written)
        }
    }

    /// Whether the driver wants an interrupt for what was given back since the last call.
    pub fn wants_interrupt(&mut self, dma: &Dma, features: u64) -> Result<bool, QueueError> {
        if !self.state.ready {
            return Ok(false);
        }
        if features & feature::RING_PACKED != 0 {
            self.wants_interrupt_packed(dma, features)
        } else {
            self.wants_interrupt_split(dma, features)
        }
    }

    /// Whether a request waits, without taking it.
    pub fn has_work(&self, dma: &Dma, features: u64) -> bool {
        if !self.state.ready {
            return false;
        }
        if features & feature::RING_PACKED != 0 {
            self.packed_available(dma)
                .is_ok_and(|flags| flags.is_some())
        } else {
            self.split_index(dma)
                .is_ok_and(|index| index != self.state.next_avail)
        }
    }

    /// Reads an indirect table into `chain`.
    fn indirect(
        &self,
        dma: &Dma,
        chain: &mut Chain,
        addr: u64,
        len: u32,
        packed: bool,
    ) -> Result<(), QueueError> {
        let count = len >> 4;
        if count == 0 || len & 15 != 0 || count > u32::from(MAX_SIZE) {
            return Err(QueueError::BadIndirect);
        }
        let mut index = 0u32;
        for _ in 0..count.min(crate::chain::MAX_DESCRIPTORS as u32) {
            let desc = if packed {
                Desc::load_packed(dma, addr, index)?
            } else {
                Desc::load(dma, addr, index)?
            };
            if desc.flags & INDIRECT != 0 {
                return Err(QueueError::BadIndirect);
            }
            chain.push(desc.addr, desc.len, desc.flags & WRITE != 0)?;
            if packed {
                // All of the table, in order (VIRTIO 1.2 section 2.8.7).
                index = index.saturating_add(1);
                if index == count {
                    return Ok(());
                }
            } else {
                if desc.flags & NEXT == 0 {
                    return Ok(());
                }
                if u32::from(desc.next) >= count {
                    return Err(QueueError::BadIndex(desc.next));
                }
                index = u32::from(desc.next);
            }
        }
        Err(QueueError::TooLong)
    }

    /// The saved form.
    pub fn save(&self) -> Section {
        let Queue { max_size, state } = self;
        let State {
            size,
            ready,
            desc,
            driver,
            device,
            next_avail,
            next_used,
            avail_wrap,
            used_wrap,
            signalled,
            in_flight,
        } = state.clone();
        let mut section = Section::new("virtqueue", 1)
            .with(1, size)
            .with(2, ready)
            .with(3, desc)
            .with(4, driver)
            .with(5, device)
            .with(6, next_avail)
            .with(7, next_used)
            .with(8, avail_wrap)
            .with(9, used_wrap)
            .with(11, in_flight)
            .with(12, *max_size);
        if let Some(signalled) = signalled {
            section.push(10, signalled);
        }
        section
    }

    /// Takes over a saved queue.
    pub fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("virtqueue", 1)?;
        let size = section.u16(1)?;
        if size > self.max_size || (size == 0) != (self.max_size == 0) {
            return Err(section.bad(1, "not a possible queue size"));
        }
        let state = State {
            size,
            ready: section.bool(2)?,
            desc: section.u64(3)?,
            driver: section.u64(4)?,
            device: section.u64(5)?,
            next_avail: section.u16(6)?,
            next_used: section.u16(7)?,
            avail_wrap: section.bool(8)?,
            used_wrap: section.bool(9)?,
            signalled: match section.get(10) {
                Some(_) => Some(section.u16(10)?),
                None => None,
            },
            in_flight: section.u16(11)?,
        };
        if state.in_flight > size {
            return Err(section.bad(11, "more requests than descriptors"));
        }
        self.state = state;
        Ok(())
    }
}

/// One descriptor, copied out of guest memory. Packed rings use `next` as the buffer id.
#[derive(Clone, Copy, Debug)]
struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Desc {
    fn read(dma: &Dma, table: u64, index: u32) -> Result<[u8; 16], QueueError> {
        let mut raw = [0u8; 16];
        let at = table.wrapping_add(u64::from(index).wrapping_mul(16));
        dma.read(at, &mut raw)?;
        Ok(raw)
    }

    /// A descriptor of a split ring or its indirect tables.
    fn load(dma: &Dma, table: u64, index: u32) -> Result<Self, QueueError> {
        let raw = u128::from_le_bytes(Self::read(dma, table, index)?);
        Ok(Desc {
            addr: raw as u64,
            len: (raw >> 64) as u32,
            flags: (raw >> 96) as u16,
            next: (raw >> 112) as u16,
        })
    }

    /// A descriptor of a packed ring or its indirect tables: id before flags.
    fn load_packed(dma: &Dma, table: u64, index: u32) -> Result<Self, QueueError> {
        let raw = u128::from_le_bytes(Self::read(dma, table, index)?);
        Ok(Desc {
            addr: raw as u64,
            len: (raw >> 64) as u32,
            next: (raw >> 96) as u16,
            flags: (raw >> 112) as u16,
        })
    }
}
