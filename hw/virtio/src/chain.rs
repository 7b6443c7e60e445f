//! A request: the buffers of one descriptor chain.

use hw_core::{Dma, DmaError, Section, StateError, Value};

use crate::queue::QueueError;

/// Descriptors of one request, an indirect table included: QEMU's own limit.
pub(crate) const MAX_DESCRIPTORS: usize = 1024;

/// A piece of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First guest-physical address.
    pub addr: u64,
    /// Bytes, never zero.
    pub len: u32,
}

/// One request taken from a queue: what the device reads, then what it writes.
///
/// The descriptors are a copy: the driver cannot change them any more. Their addresses are as
/// hostile as before; every access through [`Dma`] may fail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// Name of the chain in the ring: head descriptor, or buffer id of a packed ring.
    pub(crate) id: u16,
    /// Ring slots it takes up (packed rings).
    pub(crate) slots: u16,
    readable: Vec<Range>,
    writable: Vec<Range>,
}

impl Chain {
    pub(crate) fn new(id: u16, slots: u16) -> Self {
        Chain {
            id,
            slots,
            ..Chain::default()
        }
    }

    pub(crate) fn push(
        &mut self,
        addr: u64,
        len: u32,
        device_writes: bool,
    ) -> Result<(), QueueError> {
        if len == 0 {
            return Err(QueueError::ZeroLength);
        }
        if addr.checked_add(u64::from(len)).is_none() {
            return Err(QueueError::AddressWraps(addr));
        }
        if self.readable.len().saturating_add(self.writable.len()) >= MAX_DESCRIPTORS {
            return Err(QueueError::TooLong);
        }
        match (device_writes, self.writable.is_empty()) {
            (true, _) => self.writable.push(Range { addr, len }),
            (false, true) => self.readable.push(Range { addr, len }),
            (false, false) => return Err(QueueError::ReadAfterWrite),
        }
        Ok(())
    }

    /// Head descriptor or buffer id: names the request among those in flight.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Buffers that the device reads.
    pub fn readable(&self) -> &[Range] {
        &self.readable
    }

    /// Buffers that the device writes.
    pub fn writable(&self) -> &[Range] {
        &self.writable
    }

    /// Bytes that the device reads.
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes that the device writes.
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies from the readable buffers, from byte `at` on; returns how many there were, at most
    /// `out.len()`.
    pub fn read_at(&self, dma: &Dma, at: u64, out: &mut [u8]) -> Result<usize, DmaError> {
        let mut done = 0usize;
        for (addr, len) in pieces(&self.readable, at, out.len()) {
            let to = done.saturating_add(len);
            dma.read(addr, out.get_mut(done..to).unwrap_or_default())?;
            done = to;
        }
        Ok(done)
    }

    /// Copies into the writable buffers, from byte `at` on; returns how many fitted.
    pub fn write_at(&self, dma: &Dma, at: u64, data: &[u8]) -> Result<usize, DmaError> {
        let mut done = 0usize;
        for (addr, len) in pieces(&self.writable, at, data.len()) {
            let to = done.saturating_add(len);
            dma.write(addr, data.get(done..to).unwrap_or_default())?;
            done = to;
        }
        Ok(done)
    }

    /// The saved form of a request in flight.
    pub fn save(&self) -> Section {
        let list = |ranges: &[Range]| -> Value {
            ranges
                .iter()
                .flat_map(|r| [r.addr, u64::from(r.len)])
                .collect()
        };
        Section::new("chain", 1)
            .with(1, self.id)
            .with(2, self.slots)
            .with(3, list(&self.readable))
            .with(4, list(&self.writable))
    }

    /// A saved request; as hostile as one from a ring.
    pub fn restore(section: &Section) -> Result<Self, StateError> {
        section.expect("chain", 1)?;
        let mut chain = Chain::new(section.u16(1)?, section.u16(2)?);
        for (tag, device_writes) in [(3, false), (4, true)] {
            let list = section.list(tag)?;
            for pair in list.chunks(2) {
                let [Value::U64(addr), Value::U64(len)] = pair else {
                    return Err(section.bad(tag, "not pairs of integers"));
                };
                let len = u32::try_from(*len).map_err(|_| section.bad(tag, "length"))?;
                chain
                    .push(*addr, len, device_writes)
                    .map_err(|_| section.bad(tag, "not a possible request"))?;
            }
        }
        Ok(chain)
    }
}

fn total(ranges: &[Range]) -> u64 {
    ranges
        .iter()
        .fold(0, |sum, r| u64::from(r.len).saturating_add(sum))
}

/// The parts of `ranges` that hold bytes `at..at + len`.
fn pieces(ranges: &[Range], at: u64, len: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
    let (mut skip, mut left) = (at, len);
    ranges.iter().filter_map(move |r| {
        let range_len = u64::from(r.len);
        if skip >= range_len {
            skip = skip.saturating_sub(range_len);
            return None;
        }
        let here = usize::try_from(range_len.saturating_sub(skip))
            .unwrap_or(usize::MAX)
            .min(left);
        let addr = r.addr.wrapping_add(skip);
        skip = 0;
        left = left.saturating_sub(here);
        (here != 0).then_some((addr, here))
    })
}
