//! An open image: the driver of the block graph.
//!
//! Requests that move data hold `moving` shared, from looking at the tables to the last byte; what
//! takes clusters away from under them holds it alone. Tables are behind one lock that is not held
//! while guest data moves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use backend_block::{
    BlockError, Child, ChildDef, Detail, Driver, DriverClass, DriverKind, Extent, IoVector, Node,
    OpenError, Opening, Preallocation, Transfer,
};
use control_options::{PropDef, PropKind, Props};

use crate::bitmap::{Bitmap, bitmaps};
use crate::check::{self, Findings, Fix};
use crate::entry::Geometry;
use crate::header::{Header, LAZY_REFCOUNTS, incompatible, read};
use crate::meta::Meta;
use crate::moving::{Alone, Moving};
use crate::refcount::Refcounts;
use crate::settings::Settings;
use crate::snapshot::{NewSnapshot, Snapshot, read_table};
use crate::sync::DataNode;
use crate::{bytes, create};

const NOT_WHOLE: &str =
    "it was not closed in order and cannot be repaired; look at it with 'mimic img check'";

/// The driver.
pub static CLASS: DriverClass = DriverClass {
    name: "qcow2",
    doc: "QEMU's own format: grows as it is written, with snapshots, backing files, compression",
    kind: DriverKind::Format,
    props: &[
        PropDef::new(
            "lazy-refcounts",
            PropKind::Bool,
            "write refcounts late; default: as the image says",
        ),
        PropDef::new(
            "l2-cache-size",
            PropKind::Size,
            "most memory for L2 tables; default: 32M",
        ),
        PropDef::new(
            "refcount-cache-size",
            PropKind::Size,
            "most memory for refcount blocks; default: 4M",
        ),
        PropDef::new("cache-size", PropKind::Size, "most memory for both"),
        PropDef::new(
            "discard-no-unref",
            PropKind::Bool,
            "clusters keep their place when they are discarded, so that the image stays in order",
        )
        .or("off"),
    ],
    children: &[
        ChildDef::required("file"),
        ChildDef::refusable("backing"),
        ChildDef::optional("data-file"),
    ],
    changes: &[
        "lazy-refcounts",
        "l2-cache-size",
        "refcount-cache-size",
        "cache-size",
        "discard-no-unref",
        "file",
        "backing",
    ],
    probe: Some(|head| head.starts_with(&crate::header::MAGIC)),
    open,
    create: Some(&create::CLASS),
};

/// An open image.
pub struct Qcow2 {
    pub(crate) file: Child,
    pub(crate) data: Option<Child>,
    backing: RwLock<Option<Child>>,
    pub(crate) geometry: Geometry,
    read_only: AtomicBool,
    pub(crate) meta: Mutex<Meta>,
    /// A request has made its place.
    pub(crate) made: Condvar,
    pub(crate) moving: Moving,
    len: AtomicU64,
}

fn open(opening: &mut Opening<'_>) -> Result<Box<dyn Driver>, OpenError> {
    let file = opening.file()?;
    let node = file.node();
    let name = node.file().to_owned();
    let header = Header::open(&node)?;
    let settings = Settings::of(&header, &opening.props);
    let settings = settings.map_err(|problem| OpenError::image(&name, problem))?;
    let read_only = opening.options.read_only;
    if !read_only && !opening.repairs() {
        check_writable(&header, &node).map_err(|problem| OpenError::image(&name, problem))?;
    }
    let data = match header.has_data_file() {
        true => Some(opening.data_file(header.data_file.as_deref())?),
        false => None,
    };
    let named = header.backing.clone();
    let named = named
        .as_deref()
        .map(|name| (name, header.backing_format.as_deref()));
    let backing = match opening.is_refused("backing") {
        true => None,
        false => opening.backing(named)?,
    };
    let meta = load(&header, &node, settings);
    let meta = meta.map_err(|problem| OpenError::image(&name, problem))?;
    let image = Qcow2 {
        file,
        data,
        backing: RwLock::new(backing),
        geometry: Geometry::of(&header),
        read_only: AtomicBool::new(read_only),
        len: AtomicU64::new(header.size),
        meta: Mutex::new(meta),
        made: Condvar::new(),
        moving: Moving::default(),
    };
    let is_dirty = header.incompatible & incompatible::DIRTY != 0;
    if !read_only && is_dirty && !opening.repairs() {
        log::info!("disk image '{name}' was not closed in order; its refcounts are counted anew");
        let findings = image.check(Fix::All);
        let whole = findings.is_ok_and(|findings| findings.corruptions == 0);
        if !whole {
            return Err(OpenError::image(&name, NOT_WHOLE));
        }
    }
    Ok(Box::new(image))
}

/// Whether this image may be written at all.
fn check_writable(header: &Header, node: &Node) -> Result<(), String> {
    if header.incompatible & incompatible::CORRUPT != 0 {
        return Err("it is marked corrupt and can only be opened read-only; repair it with 'mimic img check -r all'".to_owned());
    }
    let active = bitmaps(header, node)?;
    let active = active
        .iter()
        .find(|b| b.flags & Bitmap::AUTO != 0 && b.flags & Bitmap::IN_USE == 0);
    match active {
        Some(bitmap) => Err(format!(
            "its bitmap '{}' follows all writes, which is not supported yet; open it read-only, or disable the \
             bitmap with 'qemu-img bitmap --disable'",
            bitmap.name
        )),
        None => Ok(()),
    }
}

/// Reads the tables that are kept whole.
fn load(header: &Header, node: &Node, settings: Settings) -> Result<Meta, String> {
    let failed = |error: BlockError| format!("cannot read its tables: {error}");
    let len = usize::try_from(header.l1_size)
        .unwrap_or(0)
        .saturating_mul(8);
    let l1 = bytes::entries(&read(node, header.l1_offset, len).map_err(failed)?);
    let len = u64::from(header.refcount_table_clusters).wrapping_shl(header.cluster_bits);
    let len = usize::try_from(len).unwrap_or(0);
    let table = bytes::entries(&read(node, header.refcount_table_offset, len).map_err(failed)?);
    let mut blocks: Vec<u64> = table.iter().copied().filter(|entry| *entry != 0).collect();
    blocks.sort_unstable();
    let limit = node.len();
    let is_odd = blocks.windows(2).any(|pair| pair.first() == pair.last())
        || blocks.last().is_some_and(|last| *last >= limit);
    if is_odd {
        return Err("its refcount table makes no sense".to_owned());
    }
    let refcounts = Refcounts::new(header, table, settings.refcount_cache);
    let snapshots = read_table(header, node)?;
    if header.has_data_file() && !snapshots.is_empty() {
        return Err("it has snapshots although its data is in another file".to_owned());
    }
    Ok(Meta::new(
        header.clone(),
        l1,
        refcounts,
        snapshots,
        settings,
    ))
}

impl Qcow2 {
    pub(crate) fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no request is under way, and lets none begin.
    pub(crate) fn alone(&self) -> Alone {
        self.moving.alone()
    }

    fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// The node that shows where the image has nothing.
    pub(crate) fn behind(&self) -> Option<Child> {
        let backing = self.backing.read();
        backing.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has_behind(&self) -> bool {
        let backing = self.backing.read();
        backing.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The node that holds guest clusters.
    pub(crate) fn data_node(&self) -> std::sync::Arc<Node> {
        self.data.as_ref().unwrap_or(&self.file).node()
    }

    pub(crate) fn with_data<T>(&self, f: impl FnOnce(&Node, DataNode<'_>) -> T) -> T {
        let node = self.file.node();
        match &self.data {
            Some(data) => f(&node, Some(&data.node())),
            None => f(&node, None),
        }
    }

    pub(crate) fn set_len(&self, len: u64) {
        self.len.store(len, Ordering::Release);
    }

    /// Writes tables and counts what is free, when much waits for it.
    pub(crate) fn tidy(&self) -> Result<(), BlockError> {
        let (is_full, has_freed) = {
            let meta = self.meta();
            (meta.is_full(), meta.has_freed())
        };
        if !is_full {
            return Ok(());
        }
        let _alone = has_freed.then(|| self.alone());
        self.with_data(|node, data| {
            let mut meta = self.meta();
            match has_freed {
                true => meta.reclaim(node, data),
                false => meta.write_out(node, data),
            }
        })
    }

    /// Looks at all tables, and repairs them if told to.
    ///
    /// # Errors
    /// The host's, or what cannot be looked at at all.
    pub fn check(&self, fix: Fix) -> Result<Findings, BlockError> {
        let _alone = self.alone();
        self.with_data(|node, data| {
            let mut meta = self.meta();
            // What waits to be counted less is not to be taken for a leak, and then counted less again.
            if meta.has_freed() {
                meta.reclaim(node, data)?;
            }
            // Of tables that are not in the file yet some would seem to lie beyond its end.
            if meta.has_unwritten() {
                meta.write_out(node, data)?;
            }
            check::check(&mut meta, node, fix)
        })
    }

    /// All internal snapshots.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.meta().snapshots.clone()
    }

    /// Freezes the disk as it is under a name.
    ///
    /// # Errors
    /// The host's; [`BlockError::Unsupported`] with a data file.
    pub fn take_snapshot(&self, name: &str, date_s: u32, date_ns: u32) -> Result<(), BlockError> {
        self.check_snapshots()?;
        let _alone = self.alone();
        let name = name.to_owned();
        let new = NewSnapshot {
            name,
            date_s,
            date_ns,
        };
        self.meta().take_snapshot(&self.file.node(), new)
    }

    /// Forgets the snapshot of this name or id.
    ///
    /// # Errors
    /// The host's; [`BlockError::OutOfRange`] if there is none.
    pub fn delete_snapshot(&self, name: &str) -> Result<(), BlockError> {
        self.check_snapshots()?;
        let _alone = self.alone();
        let mut meta = self.meta();
        let index = find(&meta.snapshots, name)?;
        meta.delete_snapshot(&self.file.node(), index)
    }

    /// The disk is as it was when the snapshot of this name or id was taken.
    ///
    /// # Errors
    /// The host's; [`BlockError::OutOfRange`] if there is none; [`BlockError::Unsupported`] if the
    /// disk had another size then.
    pub fn apply_snapshot(&self, name: &str) -> Result<(), BlockError> {
        self.check_snapshots()?;
        let _alone = self.alone();
        let mut meta = self.meta();
        let index = find(&meta.snapshots, name)?;
        meta.apply_snapshot(&self.file.node(), index)
    }

    /// Shows what the snapshot of this name or id holds, for as long as the image is open read-only.
    ///
    /// # Errors
    /// The host's; [`BlockError::OutOfRange`] if there is none; [`BlockError::Unsupported`] of an image that
    /// is open for writing.
    pub fn show_snapshot(&self, name: &str) -> Result<(), BlockError> {
        if !self.is_read_only() {
            return Err(BlockError::Unsupported);
        }
        let _alone = self.alone();
        let mut meta = self.meta();
        let index = find(&meta.snapshots, name)?;
        let len = meta.show_snapshot(&self.file.node(), index)?;
        self.set_len(len);
        Ok(())
    }

    fn check_snapshots(&self) -> Result<(), BlockError> {
        match (self.is_read_only(), self.geometry.has_data_file) {
            (true, _) => Err(BlockError::ReadOnly),
            (_, true) => Err(BlockError::Unsupported),
            _ => Ok(()),
        }
    }

    /// The backing file and its format, as the header names them.
    pub fn backing(&self) -> Option<(String, Option<String>)> {
        let meta = self.meta();
        let name = meta.header.backing.clone()?;
        Some((name, meta.header.backing_format.clone()))
    }

    /// Whether it was not closed in order.
    pub fn is_dirty(&self) -> bool {
        self.meta().header.incompatible & incompatible::DIRTY != 0
    }

    /// Sets space aside for the whole disk.
    ///
    /// # Errors
    /// The host's.
    pub fn preallocate_all(&self, how: Preallocation) -> Result<(), BlockError> {
        self.preallocate(0, self.len(), how)
    }

    /// Bytes of a cluster.
    pub fn cluster_len(&self) -> u64 {
        self.geometry.cluster()
    }
}

fn find(snapshots: &[Snapshot], name: &str) -> Result<usize, BlockError> {
    let by_id = snapshots.iter().position(|s| s.id == name);
    let by_name = || snapshots.iter().position(|s| s.name == name);
    by_id.or_else(by_name).ok_or(BlockError::OutOfRange)
}

impl Driver for Qcow2 {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let _moving = self.moving.share();
        self.read_guest(offset, memory)
    }

    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        self.read_guest_now(offset, memory)
    }

    fn can_start(&self) -> bool {
        let holder = self.data.as_ref().unwrap_or(&self.file);
        holder.ask(|node| node.driver().can_start())
    }

    fn start(&self, transfer: Transfer) -> Option<Transfer> {
        self.start_guest(transfer)
    }

    fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.write_guest(offset, memory)?;
        self.tidy()
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        self.zero_guest(offset, len, unmap)?;
        self.tidy()
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        self.discard_guest(offset, len)?;
        self.tidy()
    }

    fn flush(&self) -> Result<(), BlockError> {
        let has_freed = self.meta().has_freed();
        let _alone = has_freed.then(|| self.alone());
        self.with_data(|node, data| {
            let syncing = {
                let mut meta = self.meta();
                if has_freed {
                    meta.reclaim(node, data)?;
                }
                meta.write_out(node, data)?;
                meta.syncing.clone()
            };
            // Without the tables' lock: other requests go on.
            syncing.beside(node, data)
        })
    }

    fn extent(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        let _moving = self.moving.share();
        self.extent_of(offset, len)
    }

    fn resize(&self, len: u64, preallocation: Preallocation) -> Result<(), BlockError> {
        self.resize_to(len, preallocation)
    }

    fn write_compressed(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.write_packing(offset, memory)?;
        self.tidy()
    }

    fn write_packed(&self, offset: u64, len: u64, packed: &[u8]) -> Result<(), BlockError> {
        self.store_packed(offset, len, packed)?;
        self.tidy()
    }

    fn children(&self) -> Vec<Child> {
        let others = self.behind().into_iter().chain(self.data.clone());
        std::iter::once(self.file.clone()).chain(others).collect()
    }

    fn set_props(&self, props: &Props) -> Result<(), OpenError> {
        let _alone = self.alone();
        let node = self.file.node();
        let mut meta = self.meta();
        let settings = Settings::of(&meta.header, props);
        let settings = settings.map_err(|problem| OpenError::image(node.file(), problem))?;
        meta.set(settings);
        Ok(())
    }

    fn check_file(&self, file: &Node) -> Result<(), OpenError> {
        let header = Header::open(file)?;
        match header == self.meta().header {
            true => Ok(()),
            false => Err(OpenError::image(
                file.file(),
                "it is not the same image: a node keeps its image while it is open",
            )),
        }
    }

    fn set_backing(&self, backing: Option<Child>) -> Result<(), BlockError> {
        let _alone = self.alone();
        *self.backing.write().unwrap_or_else(PoisonError::into_inner) = backing;
        Ok(())
    }

    fn name_backing(&self, backing: Option<(&str, &str)>) -> Result<(), BlockError> {
        let _alone = self.alone();
        let node = self.file.node();
        let mut meta = self.meta();
        let old = meta.header.clone();
        meta.header.backing = backing.map(|(name, _)| name.to_owned());
        meta.header.backing_format = backing.map(|(_, format)| format.to_owned());
        let written = meta.write_header(&node);
        if written.is_err() {
            meta.header = old;
        }
        written
    }

    fn empty(&self) -> Result<(), BlockError> {
        if self.is_read_only() {
            return Err(BlockError::ReadOnly);
        }
        self.forget(0, self.len())?;
        self.flush()
    }

    fn set_read_only(&self, read_only: bool) -> Result<(), OpenError> {
        let _alone = self.alone();
        let node = self.file.node();
        let bad = |problem: String| OpenError::image(node.file(), problem);
        if read_only {
            let closed = self.with_data(|node, data| {
                let mut meta = self.meta();
                meta.reclaim(node, data)?;
                meta.flush(node, data)?;
                meta.set_clean(node, data)
            });
            closed.map_err(|error| bad(format!("it cannot be closed in order: {error}")))?;
        } else {
            let header = self.meta().header.clone();
            check_writable(&header, &node).map_err(bad)?;
            if header.incompatible & incompatible::DIRTY != 0 {
                let findings = check::check(&mut self.meta(), &node, Fix::All);
                if !findings.is_ok_and(|findings| findings.corruptions == 0) {
                    return Err(bad(NOT_WHOLE.to_owned()));
                }
            }
        }
        self.read_only.store(read_only, Ordering::Release);
        Ok(())
    }

    fn details(&self) -> Vec<(&'static str, Detail)> {
        let meta = self.meta();
        let header = &meta.header;
        let compat = if header.version == 2 { "0.10" } else { "1.1" };
        let compression = header.compression.name();
        let mut all = vec![("compat", Detail::Text(compat.to_owned()))];
        if header.version >= 3 {
            let bit = |bit: u64| Detail::Bool(header.incompatible & bit != 0);
            if let Some(name) = &header.data_file {
                all.push(("data-file", Detail::Text(name.clone())));
            }
            if header.has_data_file() {
                all.push(("data-file-raw", Detail::Bool(header.is_data_file_raw())));
            }
            all.push(("compression-type", Detail::Text(compression.to_owned())));
            let lazy = header.compatible & LAZY_REFCOUNTS != 0;
            all.push(("lazy-refcounts", Detail::Bool(lazy)));
            let bits = 1u64.wrapping_shl(header.refcount_order);
            all.push(("refcount-bits", Detail::Number(bits)));
            all.push(("corrupt", bit(incompatible::CORRUPT)));
            all.push(("extended-l2", bit(incompatible::EXTENDED_L2)));
        } else {
            all.push(("compression-type", Detail::Text(compression.to_owned())));
            all.push(("refcount-bits", Detail::Number(16)));
        }
        all
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        if self.is_read_only() {
            return;
        }
        let closed = self.with_data(|node, data| {
            let mut meta = self.meta();
            meta.reclaim(node, data)?;
            meta.flush(node, data)?;
            meta.set_clean(node, data)
        });
        if let Err(error) = closed {
            let name = self.file.node().file().to_owned();
            log::error!("disk image '{name}' could not be closed in order: {error}");
        }
    }
}
