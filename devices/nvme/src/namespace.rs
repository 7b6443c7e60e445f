//! A namespace: blocks on a disk, and the device that plugs it in.

use std::sync::Arc;

use backend_block::SharedBlock;
use hw_core::{Device, DeviceError, ResetKind, Section, StateError, Wiring};

use crate::bus::NvmeBus;
use crate::command::Status;

/// Properties of a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NamespaceOptions {
    /// `logical_block_size`
    pub(crate) block: u32,
    /// `discard_granularity`, bytes.
    pub(crate) discard_granularity: u32,
    /// `eui64`; zero for none.
    pub(crate) eui64: u64,
    /// `uuid`
    pub(crate) uuid: Option<[u8; 16]>,
}

/// Blocks on a disk.
pub(crate) struct Namespace {
    pub(crate) disk: SharedBlock,
    pub(crate) options: NamespaceOptions,
    pub(crate) is_read_only: bool,
}

impl Namespace {
    pub(crate) fn new(disk: SharedBlock, options: NamespaceOptions) -> Result<Self, DeviceError> {
        let bad = |why: &str| Err(DeviceError::Other(format!("nvme: {why}")));
        if !options.block.is_power_of_two() || !(512..=1 << 16).contains(&options.block) {
            return bad("logical_block_size must be a power of two from 512 to 65536");
        }
        if options.discard_granularity == 0
            || !options.discard_granularity.is_multiple_of(options.block)
        {
            return bad("discard_granularity must be a multiple of logical_block_size");
        }
        Ok(Namespace {
            is_read_only: disk.info().read_only,
            disk,
            options,
        })
    }

    pub(crate) fn blocks(&self) -> u64 {
        let blocks = self.disk.len().checked_div(self.options.block.into());
        blocks.unwrap_or(0)
    }

    /// Where `count` blocks are on the disk: offset and bytes.
    pub(crate) fn place(&self, first: u64, count: u64) -> Result<(u64, u64), Status> {
        let end = first.checked_add(count).ok_or(Status::LBA_OUT_OF_RANGE)?;
        if end > self.blocks() {
            return Err(Status::LBA_OUT_OF_RANGE);
        }
        // Within the disk, so within 64 bits.
        let bytes = |blocks: u64| blocks.wrapping_mul(self.options.block.into());
        Ok((bytes(first), bytes(count)))
    }

    /// What it needs of the machine: it is drained when that stops, and says when its size changes.
    pub(crate) fn wire(&self, wiring: &mut dyn Wiring, bus: &NvmeBus, id: u32) {
        let disk = self.disk.clone();
        wiring.on_stop(Arc::new(move || disk.drain()));
        // The disk must not keep alive what keeps it.
        let notice = bus.notifier();
        self.disk.on_resize(Arc::new(move || notice(id)));
    }
}

/// A namespace to be plugged in: `nvme-ns`.
pub(crate) struct NvmeNs {
    pub(crate) namespace: Arc<Namespace>,
    /// `nsid`
    pub(crate) id: Option<u32>,
}

impl Device for NvmeNs {
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let bus = wiring.bus().and_then(|bus| bus.downcast_ref::<NvmeBus>());
        let bus = bus.cloned().ok_or_else(|| {
            DeviceError::Other("'nvme-ns' needs an NVMe controller: a device 'nvme'".into())
        })?;
        let id = bus.plug(self.id, self.namespace.clone())?;
        self.id = Some(id);
        self.namespace.wire(wiring, &bus, id);
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    /// The controller has all that changes.
    fn save(&self) -> Section {
        Section::new("nvme-ns", 1)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("nvme-ns", 1)
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![("nsid", self.id.unwrap_or(0).into())]
    }
}
