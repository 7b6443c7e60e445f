//! The driver's half of a virtio device, for tests: memory, rings and an MMIO slot.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hw_clock::ManualTime;
use hw_core::{Attrs, ByteOrder, Clock, Dma, Fabric, Initiator, IrqHub, Part, Placement};
use hw_memory::{MappingSpec, RamBlock, What};

use crate::mmio::{MmioSlot, VirtioMmio};
use crate::{Options, VirtioDevice, feature};

/// Guest RAM of a bench.
pub const RAM: u64 = 1 << 20;
/// Where the bench's slot is.
pub const SLOT: u64 = 0xfeb0_0000;

/// A machine of one virtio device on MMIO.
pub struct Bench {
    /// Its fabric.
    pub fabric: Fabric,
    /// Moves its time.
    pub time: Arc<ManualTime>,
    /// Its memory.
    pub dma: Dma,
    /// The device.
    pub part: Arc<Part>,
    /// Interrupt pin.
    pub irq: Arc<AtomicBool>,
}

/// A fabric with [`RAM`] bytes of memory.
pub fn fabric() -> (Fabric, Arc<ManualTime>) {
    let (clock, time) = Clock::manual();
    let fabric = Fabric::new(clock);
    let block = Arc::new(RamBlock::new("ram", RAM).unwrap());
    fabric.memory.add(MappingSpec {
        name: "ram".into(),
        base: 0,
        len: RAM,
        priority: 0,
        enabled: true,
        what: What::Ram { block, offset: 0 },
    });
    (fabric, time)
}

impl Bench {
    /// A machine with `device`; the legacy register layout if asked for.
    pub fn new(device: Box<dyn VirtioDevice>, options: Options, force_legacy: bool) -> Self {
        let (fabric, time) = fabric();
        let irq = Arc::new(AtomicBool::new(false));
        let pin = irq.clone();
        let hub = IrqHub::new(
            Arc::new(move |_: u32, level: bool| pin.store(level, Ordering::SeqCst)),
            0,
        );
        let slot = MmioSlot {
            base: SLOT,
            force_legacy,
        };
        let part = fabric
            .add(
                Box::new(VirtioMmio::new(device, options)),
                Placement {
                    path: "dev".into(),
                    bus_irqs: &[hub],
                    bus: Some(&slot),
                    ..Placement::default()
                },
            )
            .unwrap();
        fabric.reset(hw_core::ResetKind::Cold);
        let dma = Dma::new(fabric.memory.clone());
        Bench {
            fabric,
            time,
            dma,
            part,
            irq,
        }
    }

    /// Reads a register.
    pub fn rd(&self, offset: u64) -> u32 {
        self.rd_size(offset, 4) as u32
    }

    /// Reads `size` bytes of the slot.
    pub fn rd_size(&self, offset: u64, size: u8) -> u64 {
        let map = self.fabric.memory.snapshot();
        let attrs = Attrs::default();
        let address = SLOT + offset;
        map.read(address, size, ByteOrder::Little, Initiator::Cpu(0), attrs)
            .unwrap_or(u64::MAX)
    }

    /// Writes a register.
    pub fn wr(&self, offset: u64, value: u32) {
        self.wr_size(offset, 4, u64::from(value));
    }

    /// Writes `size` bytes of the slot.
    pub fn wr_size(&self, offset: u64, size: u8, value: u64) {
        let map = self.fabric.memory.snapshot();
        let attrs = Attrs::default();
        let (address, order) = (SLOT + offset, ByteOrder::Little);
        let _ = map.write(address, size, value, order, Initiator::Cpu(0), attrs);
    }

    /// Offered features.
    pub fn offered(&self) -> u64 {
        self.wr(0x14, 0);
        let low = u64::from(self.rd(0x10));
        self.wr(0x14, 1);
        low | u64::from(self.rd(0x10)) << 32
    }

    /// Initialises the device as VIRTIO 1.2 section 3.1.1 says, with these features and one ring of
    /// 16 entries per queue; returns the driver's halves.
    pub fn start(&self, features: u64, queues: u16) -> Vec<Ring> {
        self.wr(0x70, 0);
        self.wr(0x70, 1);
        self.wr(0x70, 3);
        let features = features | feature::VERSION_1;
        for word in [0, 1] {
            self.wr(0x24, word);
            self.wr(0x20, (features >> (32 * word)) as u32);
        }
        self.wr(0x70, 11);
        assert_eq!(self.rd(0x70), 11, "features refused");
        let rings = (0..queues)
            .map(|index| {
                let ring = Ring::new(self.dma.clone(), index, features);
                self.wr(0x30, u32::from(index));
                self.wr(0x38, u32::from(SIZE));
                for (offset, area) in [0x80, 0x90, 0xa0].into_iter().zip(ring.areas) {
                    self.wr(offset, area as u32);
                    self.wr(offset + 4, (area >> 32) as u32);
                }
                self.wr(0x44, 1);
                ring
            })
            .collect();
        self.wr(0x70, 15);
        rings
    }

    /// Rings a queue's bell.
    pub fn kick(&self, queue: u16) {
        self.wr(0x50, u32::from(queue));
    }

    /// Whether the pin is high; acknowledges what it was for.
    pub fn interrupted(&self) -> u32 {
        let why = self.rd(0x60);
        assert_eq!(self.irq.load(Ordering::SeqCst), why != 0);
        self.wr(0x64, why);
        why
    }
}

/// Entries of a bench's rings.
pub const SIZE: u16 = 16;

/// A finished request: its name, the bytes the device says it wrote, and its device-written buffers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Used {
    /// As `add` returned it.
    pub id: u16,
    /// Used length.
    pub written: u32,
    /// Contents of the writable buffers, in one piece.
    pub data: Vec<u8>,
}

/// Ring slots and writable buffers of a request.
type Pending = (u16, Vec<(u64, u32)>);

/// The driver's half of a ring, split or packed, direct descriptors.
pub struct Ring {
    dma: Dma,
    packed: bool,
    /// Descriptor, driver and device areas.
    pub areas: [u64; 3],
    next_buffer: u64,
    buffers: (u64, u64),
    next_desc: u16,
    next_avail: u16,
    next_used: u16,
    wrap: bool,
    used_wrap: bool,
    pending: Mutex<BTreeMap<u16, Pending>>,
}

impl Ring {
    /// An empty ring in its own part of memory.
    pub fn new(dma: Dma, index: u16, features: u64) -> Self {
        let base = 0x1_0000 + u64::from(index) * 0x1_0000;
        dma.fill(base, 0x1_0000, 0).unwrap();
        Ring {
            dma,
            packed: features & feature::RING_PACKED != 0,
            areas: [base, base + 0x400, base + 0x800],
            next_buffer: base + 0x1000,
            buffers: (base + 0x1000, base + 0x1_0000),
            next_desc: 0,
            next_avail: 0,
            next_used: 0,
            wrap: true,
            used_wrap: true,
            pending: Mutex::default(),
        }
    }

    fn buffer(&mut self, len: usize) -> u64 {
        let len = (len as u64).next_multiple_of(16);
        if self.next_buffer + len > self.buffers.1 {
            self.next_buffer = self.buffers.0;
        }
        let at = self.next_buffer;
        self.next_buffer += len;
        at
    }

    /// As [`add`](Self::add), through an indirect table.
    pub fn add_indirect(&mut self, reads: &[&[u8]], writes: &[usize]) -> u16 {
        let mut table = Vec::new();
        let mut out = Vec::new();
        let reads = reads.iter().map(|data| (Some(*data), data.len()));
        let writes = writes.iter().map(|len| (None, *len));
        let all: Vec<_> = reads.chain(writes).collect();
        for (i, (data, len)) in all.iter().enumerate() {
            let at = self.buffer(*len);
            let mut flags = 0;
            match data {
                Some(data) => self.dma.write(at, data).unwrap(),
                None => {
                    self.dma.fill(at, *len as u64, 0xee).unwrap();
                    out.push((at, *len as u32));
                    flags = 2;
                }
            }
            let next = i as u16 + 1;
            // Packed: a buffer id, without meaning here, before the flags.
            let (first, second) = match self.packed {
                true => (0, flags),
                false => (flags | u16::from(i + 1 < all.len()), next),
            };
            table.push((at, *len as u32, first, second));
        }
        let at = self.buffer(table.len() * 16);
        for (i, words) in table.iter().enumerate() {
            self.put(at, i as u16, *words);
        }
        let list = [(at, table.len() as u32 * 16, 4)];
        if self.packed {
            self.add_packed(&list, out)
        } else {
            self.add_split(&list, out)
        }
    }

    /// Makes a request available: what the device reads, and the sizes of what it writes.
    pub fn add(&mut self, reads: &[&[u8]], writes: &[usize]) -> u16 {
        let mut list = Vec::new();
        for data in reads {
            let at = self.buffer(data.len());
            self.dma.write(at, data).unwrap();
            list.push((at, data.len() as u32, 0u16));
        }
        let mut out = Vec::new();
        for len in writes {
            let at = self.buffer(*len);
            self.dma.fill(at, *len as u64, 0xee).unwrap();
            list.push((at, *len as u32, 2));
            out.push((at, *len as u32));
        }
        if self.packed {
            self.add_packed(&list, out)
        } else {
            self.add_split(&list, out)
        }
    }

    fn put(&self, table: u64, index: u16, words: (u64, u32, u16, u16)) {
        let (addr, len, first, second) = words;
        let raw = u128::from(addr)
            | u128::from(len) << 64
            | u128::from(first) << 96
            | u128::from(second) << 112;
        let at = table + u64::from(index) * 16;
        self.dma.write(at, &raw.to_le_bytes()).unwrap();
    }

    fn add_split(&mut self, list: &[(u64, u32, u16)], out: Vec<(u64, u32)>) -> u16 {
        let head = self.next_desc;
        for (i, (addr, len, flags)) in list.iter().enumerate() {
            let index = self.next_desc;
            self.next_desc = (self.next_desc + 1) % SIZE;
            let more = u16::from(i + 1 < list.len());
            self.put(
                self.areas[0],
                index,
                (*addr, *len, flags | more, self.next_desc),
            );
        }
        self.pending.lock().unwrap().insert(head, (1, out));
        let slot = u64::from(self.next_avail % SIZE) * 2;
        let avail = self.areas[1];
        self.dma.store_le(avail + 4 + slot, 2, head.into()).unwrap();
        self.next_avail = self.next_avail.wrapping_add(1);
        self.dma
            .store_le(avail + 2, 2, self.next_avail.into())
            .unwrap();
        head
    }

    fn add_packed(&mut self, list: &[(u64, u32, u16)], out: Vec<(u64, u32)>) -> u16 {
        let id = self.next_desc;
        self.next_desc = self.next_desc.wrapping_add(1) % 0x100;
        for (i, (addr, len, flags)) in list.iter().enumerate() {
            let more = u16::from(i + 1 < list.len());
            let parity = if self.wrap { 1 << 7 } else { 1 << 15 };
            let flags = flags | more | parity;
            self.put(self.areas[0], self.next_avail, (*addr, *len, id, flags));
            self.next_avail += 1;
            if self.next_avail == SIZE {
                self.next_avail = 0;
                self.wrap = !self.wrap;
            }
        }
        let slots = list.len() as u16;
        self.pending.lock().unwrap().insert(id, (slots, out));
        id
    }

    /// Takes the next finished request.
    pub fn used(&mut self) -> Option<Used> {
        let (id, written) = if self.packed {
            let at = self.areas[0] + u64::from(self.next_used) * 16;
            let flags = self.dma.load_le(at + 14, 2).unwrap() as u16;
            let both = (1 << 7) | (1 << 15);
            let wanted = if self.used_wrap { both } else { 0 };
            if flags & both != wanted {
                return None;
            }
            let written = self.dma.load_le(at + 8, 4).unwrap() as u32;
            (self.dma.load_le(at + 12, 2).unwrap() as u16, written)
        } else {
            let index = self.dma.load_le(self.areas[2] + 2, 2).unwrap() as u16;
            if index == self.next_used {
                return None;
            }
            let at = self.areas[2] + 4 + u64::from(self.next_used % SIZE) * 8;
            let id = self.dma.load_le(at, 4).unwrap() as u16;
            (id, self.dma.load_le(at + 4, 4).unwrap() as u32)
        };
        let (slots, out) = self.pending.lock().unwrap().remove(&id).unwrap();
        self.next_used = self.next_used.wrapping_add(slots);
        if self.packed && self.next_used >= SIZE {
            self.next_used -= SIZE;
            self.used_wrap = !self.used_wrap;
        }
        let mut data = Vec::new();
        for (at, len) in out {
            let mut piece = vec![0; len as usize];
            self.dma.read(at, &mut piece).unwrap();
            data.extend(piece);
        }
        Some(Used { id, written, data })
    }

    /// The driver's event index of a split ring: interrupt once this entry is used.
    pub fn set_used_event(&self, value: u16) {
        let at = self.areas[1] + 4 + u64::from(SIZE) * 2;
        self.dma.store_le(at, 2, value.into()).unwrap();
    }

    /// Writes a raw descriptor.
    pub fn raw(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.put(self.areas[0], index, (addr, len, flags, next));
    }

    /// Makes a raw head available (split ring).
    pub fn raw_avail(&mut self, head: u16) {
        let slot = u64::from(self.next_avail % SIZE) * 2;
        let avail = self.areas[1];
        self.dma.store_le(avail + 4 + slot, 2, head.into()).unwrap();
        self.next_avail = self.next_avail.wrapping_add(1);
        self.dma
            .store_le(avail + 2, 2, self.next_avail.into())
            .unwrap();
    }
}
