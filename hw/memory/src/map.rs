//! The memory map and the port map: what answers at which address.
//!
//! Boards, buses and devices add [`Mapping`]s; the map flattens them by priority into an immutable
//! [`Snapshot`] of disjoint [`Span`]s. Readers hold a snapshot and look at the map's generation to
//! learn of a newer one: no lock on the way of an access.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::access::{
    Access, AccessSizes, Attrs, ByteOrder, Fault, Initiator, RegionId, RungBell, mask,
};
use crate::ram::RamBlock;

/// What answers accesses to a region: a device behind its mutex, or a bus's decoder.
pub trait IoRegion: Send + Sync {
    /// A read by any thread; the value is in the region's byte order.
    fn read(&self, access: Access) -> Result<u64, Fault>;
    /// A write by any thread.
    fn write(&self, access: Access, value: u64) -> Result<(), Fault>;
    /// The doorbells in this region, for accelerators whose kernel can set their events without an
    /// exit. Called under the map's lock.
    fn doorbells(&self, region: RegionId) -> Vec<RungBell> {
        let _ = region;
        Vec::new()
    }
}

/// What lies behind a mapping.
#[derive(Clone)]
pub enum What {
    /// Readable and writable host memory.
    Ram {
        /// The block.
        block: Arc<RamBlock>,
        /// Where in the block the mapping starts.
        offset: u64,
    },
    /// Host memory that the guest may only read. Writes are dropped, or go to `writes`
    /// (a flash chip's command port).
    Rom {
        /// The block.
        block: Arc<RamBlock>,
        /// Where in the block the mapping starts.
        offset: u64,
        /// Takes the writes, if anything does.
        writes: Option<Arc<dyn IoRegion>>,
    },
    /// A device.
    Io {
        /// Who answers.
        io: Arc<dyn IoRegion>,
        /// Passed on in [`Access::region`].
        region: RegionId,
        /// The device's byte order.
        order: ByteOrder,
        /// The widths it takes.
        sizes: AccessSizes,
    },
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::Ram { .. } => f.write_str("ram"),
            What::Rom { .. } => f.write_str("rom"),
            What::Io { .. } => f.write_str("i/o"),
        }
    }
}

/// A region to be put into a map.
#[derive(Clone, Debug)]
pub struct MappingSpec {
    /// Name shown by `info mtree`.
    pub name: String,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// Higher wins where mappings overlap; among equals the one added later.
    pub priority: i32,
    /// Whether it answers from the start.
    pub enabled: bool,
    /// What it is.
    pub what: What,
}

/// Where a mapping is at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// Whether it answers.
    pub enabled: bool,
}

/// A contiguous piece of a flattened map.
#[derive(Clone, Debug)]
pub struct Span {
    /// First address.
    pub start: u64,
    /// Last address (inclusive, so that the whole 64-bit space can be described).
    pub last: u64,
    /// Name of the mapping it comes from.
    pub name: Arc<str>,
    /// What answers.
    pub what: What,
    /// Offset of `start` from the mapping's base.
    pub skip: u64,
}

impl Span {
    /// The RAM block and the offset in it of `address`, if this is RAM or ROM.
    pub fn ram_at(&self, address: u64) -> Option<(&Arc<RamBlock>, u64)> {
        let into = address.checked_sub(self.start)?.checked_add(self.skip)?;
        match &self.what {
            What::Ram { block, offset } | What::Rom { block, offset, .. } => {
                Some((block, offset.checked_add(into)?))
            }
            What::Io { .. } => None,
        }
    }
}

/// The flattened map at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    spans: Vec<Span>,
    generation: u64,
}

impl Snapshot {
    /// All spans, by address, without overlap.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Number of this snapshot; compare with [`MemoryMap::generation`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What lies at an address.
    pub fn find(&self, address: u64) -> Option<&Span> {
        let after = self.spans.partition_point(|span| span.start <= address);
        let span = self.spans.get(after.checked_sub(1)?)?;
        (address <= span.last).then_some(span)
    }

    /// Reads `size` (1, 2, 4 or 8) bytes as an initiator of byte order `order` sees them.
    pub fn read(
        &self,
        address: u64,
        size: u8,
        order: ByteOrder,
        by: Initiator,
        attrs: Attrs,
    ) -> Result<u64, Fault> {
        let span = self.find(address).ok_or(Fault::Unassigned)?;
        if u64::from(size).wrapping_sub(1) > span.last.wrapping_sub(address) {
            return self.read_bytes(address, size, order, by, attrs);
        }
        let into = address.wrapping_sub(span.start).wrapping_add(span.skip);
        match &span.what {
            What::Ram { block, offset } | What::Rom { block, offset, .. } => {
                let value = block
                    .load(offset.wrapping_add(into), size)
                    .ok_or(Fault::Unassigned)?;
                Ok(ByteOrder::Little.convert(value, size, order))
            }
            What::Io {
                io,
                region,
                order: device_order,
                sizes,
            } => {
                if size <= sizes.max && size >= sizes.min && into.is_multiple_of(u64::from(size)) {
                    let access = Access {
                        region: *region,
                        offset: into,
                        size,
                        by,
                        attrs,
                    };
                    let value = io.read(access)? & mask(size);
                    return Ok(device_order.convert(value, size, order));
                }
                let value = split_read(
                    io.as_ref(),
                    *region,
                    *device_order,
                    *sizes,
                    into,
                    size,
                    by,
                    attrs,
                )?;
                Ok(ByteOrder::Little.convert(value, size, order))
            }
        }
    }

    fn read_bytes(
        &self,
        address: u64,
        size: u8,
        order: ByteOrder,
        by: Initiator,
        attrs: Attrs,
    ) -> Result<u64, Fault> {
        let mut bytes = [0xff; 8];
        for (byte, i) in bytes.iter_mut().take(usize::from(size)).zip(0u64..) {
            if let Ok(value) = self.read(address.wrapping_add(i), 1, order, by, attrs) {
                *byte = value as u8;
            }
        }
        Ok(ByteOrder::Little.convert(u64::from_le_bytes(bytes) & mask(size), size, order))
    }

    /// Writes the low `size` (1, 2, 4 or 8) bytes of `value`, which is in byte order `order`.
    /// Returns whether translated code was overwritten.
    pub fn write(
        &self,
        address: u64,
        size: u8,
        value: u64,
        order: ByteOrder,
        by: Initiator,
        attrs: Attrs,
    ) -> Result<bool, Fault> {
        let span = self.find(address).ok_or(Fault::Unassigned)?;
        if u64::from(size).wrapping_sub(1) > span.last.wrapping_sub(address) {
            let bytes = order.convert(value, size, ByteOrder::Little).to_le_bytes();
            let mut hit = false;
            for (byte, i) in bytes.iter().take(usize::from(size)).zip(0u64..) {
                hit |= self
                    .write(
                        address.wrapping_add(i),
                        1,
                        u64::from(*byte),
                        order,
                        by,
                        attrs,
                    )
                    .unwrap_or(false);
            }
            return Ok(hit);
        }
        let into = address.wrapping_sub(span.start).wrapping_add(span.skip);
        match &span.what {
            What::Ram { block, offset } => {
                let value = order.convert(value, size, ByteOrder::Little);
                let at = offset.wrapping_add(into);
                let before = block.code_version(at).map(|v| v.load(Ordering::SeqCst));
                block.store(at, size, value).ok_or(Fault::Unassigned)?;
                Ok(block.code_version(at).map(|v| v.load(Ordering::SeqCst)) != before)
            }
            What::Rom { writes: None, .. } => Err(Fault::ReadOnly),
            What::Rom {
                writes: Some(io), ..
            } => {
                let access = Access {
                    region: RegionId(0),
                    offset: into,
                    size,
                    by,
                    attrs,
                };
                io.write(access, order.convert(value, size, ByteOrder::Little))
                    .map(|()| false)
            }
            What::Io {
                io,
                region,
                order: device_order,
                sizes,
            } => {
                if size <= sizes.max && size >= sizes.min && into.is_multiple_of(u64::from(size)) {
                    let access = Access {
                        region: *region,
                        offset: into,
                        size,
                        by,
                        attrs,
                    };
                    io.write(
                        access,
                        order.convert(value, size, *device_order) & mask(size),
                    )?;
                } else {
                    let value = order.convert(value, size, ByteOrder::Little);
                    split_write(
                        io.as_ref(),
                        *region,
                        *device_order,
                        *sizes,
                        into,
                        size,
                        value,
                        by,
                        attrs,
                    )?;
                }
                Ok(false)
            }
        }
    }
}

/// The unit in which a misfitting access is carried out, and the first unit's offset.
fn unit(sizes: AccessSizes, offset: u64, size: u8) -> u8 {
    let mut unit = size.min(sizes.max);
    while unit > 1 && !offset.is_multiple_of(u64::from(unit)) {
        unit >>= 1;
    }
    unit.max(sizes.min).max(1)
}

/// Reads in the units the device takes; the result is in little-endian order.
#[allow(clippy::too_many_arguments)]
fn split_read(
    io: &dyn IoRegion,
    region: RegionId,
    order: ByteOrder,
    sizes: AccessSizes,
    offset: u64,
    size: u8,
    by: Initiator,
    attrs: Attrs,
) -> Result<u64, Fault> {
    let unit = unit(sizes, offset, size);
    let step = u64::from(unit);
    let end = offset.saturating_add(u64::from(size));
    let mut at = offset & !step.wrapping_sub(1);
    let mut bytes = [0u8; 8];
    while at < end {
        let value = io.read(Access {
            region,
            offset: at,
            size: unit,
            by,
            attrs,
        })? & mask(unit);
        let le = order.convert(value, unit, ByteOrder::Little).to_le_bytes();
        for (byte, i) in le.iter().take(usize::from(unit)).zip(at..) {
            if let Some(slot) = i
                .checked_sub(offset)
                .and_then(|n| bytes.get_mut(usize::try_from(n).ok()?))
            {
                *slot = *byte;
            }
        }
        at = at.saturating_add(step);
    }
    Ok(u64::from_le_bytes(bytes) & mask(size))
}

/// Writes in the units the device takes; a unit only partly written is read first.
#[allow(clippy::too_many_arguments)]
fn split_write(
    io: &dyn IoRegion,
    region: RegionId,
    order: ByteOrder,
    sizes: AccessSizes,
    offset: u64,
    size: u8,
    value: u64,
    by: Initiator,
    attrs: Attrs,
) -> Result<(), Fault> {
    let unit = unit(sizes, offset, size);
    let step = u64::from(unit);
    let end = offset.saturating_add(u64::from(size));
    let bytes = value.to_le_bytes();
    let mut at = offset & !step.wrapping_sub(1);
    while at < end {
        let access = Access {
            region,
            offset: at,
            size: unit,
            by,
            attrs,
        };
        let whole = at >= offset && at.saturating_add(step) <= end;
        let mut le = if whole {
            [0; 8]
        } else {
            order
                .convert(io.read(access)?, unit, ByteOrder::Little)
                .to_le_bytes()
        };
        for (slot, i) in le.iter_mut().take(usize::from(unit)).zip(at..end) {
            if let Some(byte) = i
                .checked_sub(offset)
                .and_then(|n| bytes.get(usize::try_from(n).ok()?))
            {
                *slot = *byte;
            }
        }
        io.write(
            access,
            ByteOrder::Little.convert(u64::from_le_bytes(le), unit, order) & mask(unit),
        )?;
        at = at.saturating_add(step);
    }
    Ok(())
}

struct Entry {
    id: u64,
    spec: MappingSpec,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    next_id: u64,
}

type Listener = Box<dyn Fn(&Arc<Snapshot>) + Send + Sync>;

struct Shared {
    inner: Mutex<Inner>,
    current: RwLock<Arc<Snapshot>>,
    generation: AtomicU64,
    listeners: Mutex<Vec<Listener>>,
    light_cpus: AtomicBool,
}

/// A map of addresses, memory or ports. Cheap to clone; all clones are the same map.
#[derive(Clone)]
pub struct MemoryMap {
    shared: Arc<Shared>,
}

impl Default for MemoryMap {
    fn default() -> Self {
        MemoryMap {
            shared: Arc::new(Shared {
                inner: Mutex::default(),
                current: RwLock::default(),
                generation: AtomicU64::new(0),
                listeners: Mutex::default(),
                light_cpus: AtomicBool::new(false),
            }),
        }
    }
}

impl MemoryMap {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a region.
    pub fn add(&self, spec: MappingSpec) -> Mapping {
        let mut inner = self.lock();
        let id = inner.next_id;
        inner.next_id = id.wrapping_add(1);
        inner.entries.push(Entry { id, spec });
        self.publish(&inner);
        Mapping {
            map: Some(self.clone()),
            id,
        }
    }

    /// The map as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Number of the newest snapshot.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Calls `listener` with each new snapshot, under the map's lock: KVM slots, translation flushes.
    pub fn on_change(&self, listener: impl Fn(&Arc<Snapshot>) + Send + Sync + 'static) {
        self.shared
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(listener));
    }

    /// CPUs execute atomic instructions without the fences that these are: only one runs at a time.
    /// Devices pay for both ([`Dma::fence`](crate::Dma::fence)).
    pub fn set_light_cpus(&self) {
        self.shared.light_cpus.store(true, Ordering::Release);
    }

    pub(crate) fn has_light_cpus(&self) -> bool {
        self.shared.light_cpus.load(Ordering::Acquire)
    }

    /// Publishes the map again as it is: what else translations depend on (the A20 gate) changed.
    pub fn refresh(&self) {
        let inner = self.lock();
        self.publish(&inner);
    }

    /// All mappings, enabled or not, in the order they were added.
    pub fn mappings(&self) -> Vec<MappingSpec> {
        self.lock().entries.iter().map(|e| e.spec.clone()).collect()
    }

    fn publish(&self, inner: &Inner) {
        let generation = self
            .shared
            .generation
            .load(Ordering::Relaxed)
            .wrapping_add(1);
        let snapshot = Arc::new(Snapshot {
            spans: flatten(&inner.entries),
            generation,
        });
        log::debug!(target: "page", "memory map {generation}: {} spans", snapshot.spans.len());
        *self
            .shared
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner) = snapshot.clone();
        self.shared.generation.store(generation, Ordering::Release);
        for listener in self
            .shared
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            listener(&snapshot);
        }
    }
}

fn flatten(entries: &[Entry]) -> Vec<Span> {
    let live = |e: &&Entry| e.spec.enabled && e.spec.len != 0;
    let last = |s: &MappingSpec| s.base.saturating_add(s.len.saturating_sub(1));
    let mut by_rank: Vec<&Entry> = entries.iter().filter(live).collect();
    // Highest first; among equals the later one.
    by_rank.sort_by_key(|e| std::cmp::Reverse((e.spec.priority, e.id)));
    let mut spans: Vec<Span> = Vec::new();
    for entry in by_rank {
        let spec = &entry.spec;
        let name: Arc<str> = spec.name.as_str().into();
        let mut start = Some(spec.base);
        let mut taken: Vec<(u64, u64)> = spans.iter().map(|s| (s.start, s.last)).collect();
        taken.sort_unstable();
        let mut fresh = Vec::new();
        let mut emit = |from: u64, to: u64| {
            fresh.push(Span {
                start: from,
                last: to,
                name: name.clone(),
                what: spec.what.clone(),
                skip: from.wrapping_sub(spec.base),
            });
        };
        for (taken_start, taken_last) in taken {
            let Some(from) = start else { break };
            if taken_last < from || taken_start > last(spec) {
                continue;
            }
            if taken_start > from {
                emit(from, taken_start.wrapping_sub(1));
            }
            start = taken_last.checked_add(1);
        }
        if let Some(from) = start
            && from <= last(spec)
        {
            emit(from, last(spec));
        }
        spans.extend(fresh);
    }
    spans.sort_by_key(|s| s.start);
    spans
}

/// A region's place in a map, to move it, switch it or take it out again.
#[derive(Clone, Default)]
pub struct Mapping {
    map: Option<MemoryMap>,
    id: u64,
}

impl Mapping {
    fn change(&self, change: impl FnOnce(&mut MappingSpec)) {
        let Some(map) = &self.map else { return };
        let mut inner = map.lock();
        let Some(entry) = inner.entries.iter_mut().find(|e| e.id == self.id) else {
            return;
        };
        let before = (entry.spec.base, entry.spec.len, entry.spec.enabled);
        change(&mut entry.spec);
        if before != (entry.spec.base, entry.spec.len, entry.spec.enabled) {
            map.publish(&inner);
        }
    }

    /// Moves the region and switches it on or off, in one step.
    pub fn place(&self, base: u64, enabled: bool) {
        self.change(|spec| {
            spec.base = base;
            spec.enabled = enabled;
        });
    }

    /// Switches the region on or off.
    pub fn set_enabled(&self, enabled: bool) {
        self.change(|spec| spec.enabled = enabled);
    }

    /// Replaces what answers (a PAM register turning RAM into ROM).
    pub fn set_what(&self, what: What) {
        let Some(map) = &self.map else { return };
        let mut inner = map.lock();
        if let Some(entry) = inner.entries.iter_mut().find(|e| e.id == self.id) {
            entry.spec.what = what;
            map.publish(&inner);
        }
    }

    /// Where the region is now.
    pub fn now(&self) -> Option<Place> {
        let inner = self.map.as_ref()?.lock();
        let spec = &inner.entries.iter().find(|e| e.id == self.id)?.spec;
        Some(Place {
            base: spec.base,
            len: spec.len,
            enabled: spec.enabled,
        })
    }

    /// Takes the region out of the map for good.
    pub fn remove(&self) {
        let Some(map) = &self.map else { return };
        let mut inner = map.lock();
        inner.entries.retain(|e| e.id != self.id);
        map.publish(&inner);
    }
}
