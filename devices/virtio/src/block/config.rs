//! Properties, features and configuration space of virtio-blk (VIRTIO 1.2 sections 5.2.3, 5.2.4).

use backend_block::{Block, SECTOR};
use hw_core::DeviceError;

const F_SEG_MAX: u64 = 1 << 2;
const F_GEOMETRY: u64 = 1 << 4;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
pub(super) const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
pub(super) const F_CONFIG_WCE: u64 = 1 << 11;
const F_MQ: u64 = 1 << 12;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// Offset of `writeback` in the configuration.
pub(super) const WCE_OFFSET: u64 = 32;

/// Properties of the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlkOptions {
    /// `serial`, of which 20 bytes are shown.
    pub serial: String,
    /// `num-queues`
    pub num_queues: u16,
    /// `queue-size`
    pub queue_size: u16,
    /// `seg-max-adjust`: as many segments as a queue has room for, instead of 126.
    pub seg_max_adjust: bool,
    /// `logical_block_size`
    pub logical_block_size: u32,
    /// `physical_block_size`
    pub physical_block_size: u32,
    /// `min_io_size`, bytes.
    pub min_io_size: u32,
    /// `opt_io_size`, bytes.
    pub opt_io_size: u32,
    /// `discard`
    pub discard: bool,
    /// `write-zeroes`
    pub write_zeroes: bool,
    /// `max-discard-sectors`
    pub max_discard_sectors: u32,
    /// `max-write-zeroes-sectors`
    pub max_write_zeroes_sectors: u32,
    /// `config-wce`: the driver may switch the write cache.
    pub config_wce: bool,
    /// Whether the write cache is on at first.
    pub write_back: bool,
    /// Whether writes are refused.
    pub read_only: bool,
}

impl Default for BlkOptions {
    fn default() -> Self {
        BlkOptions {
            serial: String::new(),
            num_queues: 1,
            queue_size: 256,
            seg_max_adjust: true,
            logical_block_size: 512,
            physical_block_size: 512,
            min_io_size: 0,
            opt_io_size: 0,
            discard: true,
            write_zeroes: true,
            max_discard_sectors: MAX_SECTORS,
            max_write_zeroes_sectors: MAX_SECTORS,
            config_wce: true,
            write_back: true,
            read_only: false,
        }
    }
}

/// Most sectors in a request: its bytes fit 31 bits.
pub(crate) const MAX_SECTORS: u32 = 0x7fff_ffff >> 9;

impl BlkOptions {
    pub(super) fn check(&self, disk: &dyn Block) -> Result<(), DeviceError> {
        let bad = |why: &str| Err(DeviceError::Other(format!("virtio-blk: {why}")));
        let block = |size: u32| size.is_power_of_two() && (512..=2 << 20).contains(&size);
        if self.num_queues == 0 || self.num_queues > 1024 {
            return bad("num-queues must be from 1 to 1024");
        }
        if !self.queue_size.is_power_of_two() || !(4..=1024).contains(&self.queue_size) {
            return bad("queue-size must be a power of two from 4 to 1024");
        }
        if !block(self.logical_block_size) || !block(self.physical_block_size) {
            return bad("block sizes must be powers of two from 512 to 2097152");
        }
        if self.logical_block_size > self.physical_block_size {
            return bad("logical_block_size is larger than physical_block_size");
        }
        if !self.min_io_size.is_multiple_of(self.logical_block_size)
            || !self.opt_io_size.is_multiple_of(self.logical_block_size)
        {
            return bad("min_io_size and opt_io_size must be multiples of logical_block_size");
        }
        let limits = 1..=MAX_SECTORS;
        if !limits.contains(&self.max_discard_sectors)
            || !limits.contains(&self.max_write_zeroes_sectors)
        {
            return bad(
                "max-discard-sectors and max-write-zeroes-sectors must be from 1 to 4194303",
            );
        }
        if disk.info().read_only && !self.read_only {
            return bad("the drive is read-only and the device is not");
        }
        Ok(())
    }

    pub(super) fn features(&self) -> u64 {
        let when = |on: bool, bit: u64| if on { bit } else { 0 };
        F_SEG_MAX
            | F_GEOMETRY
            | F_BLK_SIZE
            | F_TOPOLOGY
            | F_FLUSH
            | when(self.read_only, F_RO)
            | when(self.config_wce, F_CONFIG_WCE)
            | when(self.num_queues > 1, F_MQ)
            | when(self.discard && !self.read_only, F_DISCARD)
            | when(self.write_zeroes && !self.read_only, F_WRITE_ZEROES)
    }

    pub(super) fn config(&self, len: u64, write_back: bool) -> Vec<u8> {
        let capacity = len >> 9;
        let block = self.logical_block_size;
        let seg_max = if self.seg_max_adjust {
            u32::from(self.queue_size).saturating_sub(2)
        } else {
            126
        };
        // A translation that firmware of old can deal with: 16 heads, 63 sectors.
        let cylinders = (capacity.checked_div(16 * 63).unwrap_or(0)).min(16383);
        let ratio = |bytes: u32| bytes.checked_div(block).unwrap_or(0);
        let physical_exp = ratio(self.physical_block_size).checked_ilog2().unwrap_or(0);
        let discard_align = block >> 9;
        let mut out = Vec::with_capacity(60);
        out.extend(capacity.to_le_bytes());
        out.extend(0u32.to_le_bytes()); // size_max
        out.extend(seg_max.to_le_bytes());
        out.extend((cylinders as u16).to_le_bytes());
        out.extend([16u8, 63]);
        out.extend(block.to_le_bytes());
        out.extend([physical_exp as u8, 0]);
        out.extend((ratio(self.min_io_size).min(0xffff) as u16).to_le_bytes());
        out.extend(ratio(self.opt_io_size).to_le_bytes());
        out.extend([u8::from(write_back), 0]);
        out.extend(self.num_queues.to_le_bytes());
        out.extend(self.max_discard_sectors.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend(discard_align.to_le_bytes());
        out.extend(self.max_write_zeroes_sectors.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend([1, 0, 0, 0]); // write_zeroes_may_unmap
        debug_assert_eq!(SECTOR, 512);
        out
    }
}
