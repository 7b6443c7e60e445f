//! virtio-blk: a disk.
//!
//! Spec: VIRTIO 1.2 section 5.2.
//!
//! Requests are carried out by the back end's threads, straight between guest memory and image, but for
//! reads that take no waiting; their completions come back through a list and a poke. A reset shuts the gate that requests pass:
//! none touches guest memory afterwards.
//!
//! Not modelled: zoned disks, secure erase, lifetime, the legacy SCSI commands.

mod config;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use backend_block::{BlockError, Gate, IoVector, Operation, Request, SECTOR, SharedBlock};
use hw_core::{DeviceError, DmaError, Section, StateError, Value, Wiring};
use hw_virtio::{Chain, Io, Range, VirtioDevice, device_id, feature};

pub use config::BlkOptions;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

const HEADER_LEN: u64 = 16;
/// A discard or write-zeroes segment.
const SEGMENT_LEN: u64 = 16;
const SEGMENT_UNMAP: u32 = 1;
const ID_LEN: usize = 20;
/// Posted when requests are finished, and when the disk has another size.
const FINISHED: u64 = 0;
const RESIZED: u64 = 1;
/// Bytes of a request at most, so that none keeps a thread for ever.
const MOST: u64 = 1 << 31;

/// A request handed to the back end.
#[derive(Clone, PartialEq, Eq, Debug)]
struct InFlight {
    queue: u16,
    chain: Arc<Chain>,
    /// A write that is not done before it is on the disk.
    flush_after: bool,
}

/// What the back end finished: number of the request, and how it went.
type Finished = Arc<Mutex<Vec<(u64, Result<(), BlockError>)>>>;

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    /// By number, in the order they were taken.
    in_flight: BTreeMap<u64, InFlight>,
    /// The driver's choice of write cache, if it made one.
    write_back: Option<bool>,
}

/// The block device.
pub struct Blk {
    disk: SharedBlock,
    options: BlkOptions,
    poke: Option<Arc<dyn Fn(u64) + Send + Sync>>,
    finished: Finished,
    gate: Gate,
    next_number: u64,
    /// A driver without flushes must find each write on the disk.
    features: u64,
    state: State,
}

impl Blk {
    /// A device on a disk.
    pub fn new(disk: SharedBlock, options: BlkOptions) -> Result<Self, DeviceError> {
        options.check(disk.as_ref())?;
        Ok(Blk {
            disk,
            options,
            poke: None,
            finished: Finished::default(),
            gate: Gate::default(),
            next_number: 0,
            features: 0,
            state: State::default(),
        })
    }

    /// The disk, for the monitor.
    pub fn disk(&self) -> &SharedBlock {
        &self.disk
    }

    fn write_back(&self) -> bool {
        let chosen = self.state.write_back.unwrap_or(self.options.write_back);
        let can_flush = feature::VERSION_1 | config::F_FLUSH | config::F_CONFIG_WCE;
        // VIRTIO 1.2 section 5.2.5.2: without either feature writes are through.
        chosen && (self.features == 0 || self.features & can_flush & !feature::VERSION_1 != 0)
    }

    fn submit(&mut self, request: InFlight, operation: Operation, memory: IoVector) {
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.state.in_flight.insert(number, request);
        self.start(number, operation, memory);
    }

    fn start(&self, number: u64, operation: Operation, memory: IoVector) {
        let finished = self.finished.clone();
        let poke = self.poke.clone();
        self.disk.submit(Request {
            operation,
            memory,
            gate: self.gate.clone(),
            done: Box::new(move |result| {
                let first = {
                    let mut list = finished.lock().unwrap_or_else(PoisonError::into_inner);
                    list.push((number, result));
                    list.len() == 1
                };
                if let Some(poke) = poke.filter(|_| first) {
                    poke(FINISHED);
                }
            }),
        });
    }

    /// Begins one request, or answers it at once.
    fn begin(&mut self, io: &mut Io<'_>, queue: u16, chain: Chain) {
        let Some(data_len) = chain.writable_len().checked_sub(1) else {
            return io.fail("a request has no room for its status");
        };
        let mut header = [0u8; HEADER_LEN as usize];
        match chain.read_at(io.dma(), 0, &mut header) {
            Ok(16) => {}
            Ok(_) => return io.fail("a request is shorter than its header"),
            Err(error) => return io.fail(error),
        }
        let header = u128::from_le_bytes(header);
        let (kind, sector) = (header as u32, (header >> 64) as u64);
        let chain = Arc::new(chain);
        let request = InFlight {
            queue,
            chain: chain.clone(),
            flush_after: false,
        };
        let out_len = chain.readable_len().saturating_sub(HEADER_LEN);
        let read_only = self.options.read_only;
        match kind {
            T_IN => match self.place(sector, data_len) {
                Some(offset) => {
                    let memory = memory(io, chain.writable(), true);
                    match memory.map(|memory| memory.slice(0, data_len)) {
                        Ok(memory) if self.disk.read_now(offset, &memory) => {
                            self.finish(io, &request, S_OK);
                        }
                        Ok(memory) => self.submit(request, Operation::Read { offset }, memory),
                        Err(_) => self.finish(io, &request, S_IOERR),
                    }
                }
                None => self.finish(io, &request, S_IOERR),
            },
            T_OUT if read_only => self.finish(io, &request, S_IOERR),
            T_OUT => match self.place(sector, out_len) {
                Some(offset) => {
                    let Ok(memory) = memory(io, chain.readable(), false) else {
                        return self.finish(io, &request, S_IOERR);
                    };
                    let memory = memory.slice(HEADER_LEN, out_len);
                    let flush_after = !self.write_back();
                    let request = InFlight {
                        flush_after,
                        ..request
                    };
                    self.submit(request, Operation::Write { offset }, memory);
                }
                None => self.finish(io, &request, S_IOERR),
            },
            T_FLUSH => self.submit(request, Operation::Flush, IoVector::default()),
            T_GET_ID => {
                let mut id = [0u8; ID_LEN];
                for (slot, byte) in id.iter_mut().zip(self.options.serial.bytes()) {
                    *slot = byte;
                }
                let len = usize::try_from(data_len).unwrap_or(ID_LEN).min(ID_LEN);
                match chain.write_at(io.dma(), 0, id.get(..len).unwrap_or_default()) {
                    Ok(_) => self.finish(io, &request, S_OK),
                    Err(error) => io.fail(error),
                }
            }
            T_DISCARD | T_WRITE_ZEROES => match self.segment(io, &chain, kind, out_len) {
                Ok(operation) => self.submit(request, operation, IoVector::default()),
                Err(status) => self.finish(io, &request, status),
            },
            _ => self.finish(io, &request, S_UNSUPP),
        }
    }

    /// Byte offset of whole blocks within the disk.
    fn place(&self, sector: u64, len: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR)?;
        let block = u64::from(self.options.logical_block_size);
        let aligned = offset.is_multiple_of(block) && len.is_multiple_of(block);
        let inside = offset.checked_add(len)? <= self.disk.len();
        (aligned && inside && len <= MOST).then_some(offset)
    }

    /// The one segment of a discard or write-zeroes request (VIRTIO 1.2 section 5.2.6).
    fn segment(&self, io: &Io<'_>, chain: &Chain, kind: u32, len: u64) -> Result<Operation, u8> {
        let enabled = if kind == T_DISCARD {
            self.options.discard
        } else {
            self.options.write_zeroes
        };
        if !enabled {
            return Err(S_UNSUPP);
        }
        if self.options.read_only || len != SEGMENT_LEN {
            return Err(S_IOERR);
        }
        let mut raw = [0u8; SEGMENT_LEN as usize];
        match chain.read_at(io.dma(), HEADER_LEN, &mut raw) {
            Ok(16) => {}
            _ => return Err(S_IOERR),
        }
        let raw = u128::from_le_bytes(raw);
        let (sector, sectors, flags) = (raw as u64, (raw >> 64) as u32, (raw >> 96) as u32);
        let most = if kind == T_DISCARD {
            self.options.max_discard_sectors
        } else {
            self.options.max_write_zeroes_sectors
        };
        if flags & !SEGMENT_UNMAP != 0 || (kind == T_DISCARD && flags != 0) {
            return Err(S_UNSUPP);
        }
        let len = u64::from(sectors).wrapping_mul(SECTOR);
        let offset = self.place(sector, len).filter(|_| sectors <= most);
        let offset = offset.ok_or(S_IOERR)?;
        Ok(if kind == T_DISCARD {
            Operation::Discard { offset, len }
        } else {
            let unmap = flags & SEGMENT_UNMAP != 0;
            Operation::WriteZeroes { offset, len, unmap }
        })
    }

    /// Answers a request: the status is the last byte that the device writes.
    fn finish(&self, io: &mut Io<'_>, request: &InFlight, status: u8) {
        let data_len = request.chain.writable_len().saturating_sub(1);
        if let Err(error) = request.chain.write_at(io.dma(), data_len, &[status]) {
            return io.fail(error);
        }
        let written = u32::try_from(data_len.saturating_add(1)).unwrap_or(u32::MAX);
        io.push(request.queue, &request.chain, written);
    }
}

/// Guest memory of a request.
fn memory(io: &Io<'_>, ranges: &[Range], write: bool) -> Result<IoVector, DmaError> {
    let ranges = ranges
        .iter()
        .map(|range| (range.addr, u64::from(range.len)));
    IoVector::guest(io.dma(), ranges, write)
}

impl VirtioDevice for Blk {
    fn id(&self) -> u16 {
        device_id::BLOCK
    }

    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn features(&self) -> u64 {
        self.options.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.options.queue_size; usize::from(self.options.num_queues)]
    }

    fn config(&self) -> Vec<u8> {
        self.options.config(self.disk.len(), self.write_back())
    }

    fn config_written(&mut self, io: &mut Io<'_>, offset: u64, data: &[u8]) {
        if offset == config::WCE_OFFSET && io.features() & config::F_CONFIG_WCE != 0 {
            self.state.write_back = data.first().map(|b| b & 1 != 0);
        }
    }

    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let poke = wiring.poke();
        self.poke = Some(poke.clone());
        self.disk.on_resize(Arc::new(move || poke(RESIZED)));
        let disk = self.disk.clone();
        wiring.on_stop(Arc::new(move || disk.drain()));
        Ok(())
    }

    fn activate(&mut self, io: &mut Io<'_>) {
        self.features = io.features();
    }

    fn hands_on(&self) -> bool {
        true
    }

    fn queue_notified(&mut self, io: &mut Io<'_>, queue: u16) {
        while let Some(chain) = io.pop(queue) {
            self.begin(io, queue, chain);
        }
    }

    fn poke(&mut self, io: &mut Io<'_>, token: u64) {
        if token == RESIZED {
            return io.config_changed();
        }
        let list =
            std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        for (number, result) in list {
            // Not there: the device was reset meanwhile.
            let Some(mut request) = self.state.in_flight.remove(&number) else {
                continue;
            };
            if result.is_ok() && std::mem::take(&mut request.flush_after) {
                self.state.in_flight.insert(number, request);
                self.start(number, Operation::Flush, IoVector::default());
                continue;
            }
            let status = match result {
                Ok(()) => S_OK,
                Err(BlockError::Unsupported) => S_UNSUPP,
                Err(error) => {
                    log::debug!("virtio-blk: {error}");
                    S_IOERR
                }
            };
            self.finish(io, &request, status);
        }
    }

    fn reset(&mut self) {
        if !self.state.in_flight.is_empty() {
            self.gate.shut();
            self.gate = Gate::default();
            // What the next driver writes comes after what this one wrote.
            self.disk.barrier();
        }
        self.state = State::default();
        self.features = 0;
    }

    fn save(&self) -> Section {
        let State {
            in_flight,
            write_back,
        } = &self.state;
        let requests: Value = in_flight
            .values()
            .map(|r| {
                Section::new("request", 1)
                    .with(1, r.queue)
                    .with(2, r.chain.save())
            })
            .collect();
        let mut section = Section::new(self.name(), 1)
            .with(1, requests)
            .with(3, self.features);
        if let Some(write_back) = write_back {
            section.push(2, *write_back);
        }
        section
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        let mut in_flight = BTreeMap::new();
        let list = section.list(1)?;
        let most = usize::from(self.options.queue_size)
            .saturating_mul(usize::from(self.options.num_queues));
        if list.len() > most {
            return Err(section.bad(1, "more requests than descriptors"));
        }
        let mut number = self.next_number;
        for value in list {
            let Value::Section(request) = value else {
                return Err(section.bad(1, "not sections"));
            };
            let queue = request.u16(1)?;
            if queue >= self.options.num_queues {
                return Err(section.bad(1, "no such queue"));
            }
            let chain = Arc::new(Chain::restore(request.section(2)?)?);
            in_flight.insert(
                number,
                InFlight {
                    queue,
                    chain,
                    flush_after: false,
                },
            );
            number = number.wrapping_add(1);
        }
        let write_back = match section.get(2) {
            Some(_) => Some(section.bool(2)?),
            None => None,
        };
        let features = section.u64(3)?;
        self.reset();
        self.features = features;
        self.next_number = number;
        self.state = State {
            in_flight,
            write_back,
        };
        Ok(())
    }

    fn resume(&mut self, io: &mut Io<'_>) {
        for request in std::mem::take(&mut self.state.in_flight).into_values() {
            let chain = Arc::unwrap_or_clone(request.chain);
            self.begin(io, request.queue, chain);
        }
    }
}
