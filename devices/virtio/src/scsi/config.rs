//! Properties, features and configuration space of virtio-scsi (VIRTIO 1.2 sections 5.6.3, 5.6.4).

use hw_core::DeviceError;
use hw_scsi::BusLimits;

/// A driver hears of units that come and go.
pub(super) const F_HOTPLUG: u64 = 1 << 1;
/// A driver hears of units that change.
pub(super) const F_CHANGE: u64 = 1 << 2;

/// Where `sense_size` and `cdb_size` are, the fields that a driver may write.
pub(super) const SENSE_SIZE: usize = 20;
pub(super) const CDB_SIZE: usize = 24;

/// What a driver can address.
pub(super) const LIMITS: BusLimits = BusLimits {
    channel: 0,
    target: 255,
    lun: 16383,
};

const EVENT_LEN: u32 = 16;

/// Properties of the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScsiOptions {
    /// `num_queues`: request queues.
    pub num_queues: u16,
    /// `virtqueue_size`
    pub queue_size: u16,
    /// `seg_max_adjust`: as many segments as a queue has room for, instead of 126.
    pub seg_max_adjust: bool,
    /// `max_sectors`
    pub max_sectors: u32,
    /// `cmd_per_lun`
    pub cmd_per_lun: u32,
    /// `hotplug`
    pub hotplug: bool,
    /// `param_change`
    pub param_change: bool,
}

impl Default for ScsiOptions {
    fn default() -> Self {
        ScsiOptions {
            num_queues: 1,
            queue_size: 256,
            seg_max_adjust: true,
            max_sectors: 0xffff,
            cmd_per_lun: 128,
            hotplug: true,
            param_change: true,
        }
    }
}

impl ScsiOptions {
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let bad = |why: &str| Err(DeviceError::Other(format!("virtio-scsi: {why}")));
        if self.num_queues == 0 || self.num_queues > 1022 {
            return bad("num_queues must be from 1 to 1022");
        }
        if !self.queue_size.is_power_of_two() || !(4..=1024).contains(&self.queue_size) {
            return bad("virtqueue_size must be a power of two from 4 to 1024");
        }
        Ok(())
    }

    pub(super) fn features(&self) -> u64 {
        let when = |on: bool, bit: u64| if on { bit } else { 0 };
        when(self.hotplug, F_HOTPLUG) | when(self.param_change, F_CHANGE)
    }

    pub(super) fn config(&self, sizes: Sizes) -> Vec<u8> {
        let seg_max = match self.seg_max_adjust {
            true => u32::from(self.queue_size).saturating_sub(2),
            false => 126,
        };
        let words = [
            self.num_queues.into(),
            seg_max,
            self.max_sectors,
            self.cmd_per_lun,
            EVENT_LEN,
            sizes.sense,
            sizes.cdb,
            u32::from(LIMITS.channel) | u32::from(LIMITS.target) << 16,
            LIMITS.lun.into(),
        ];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Sizes of parts of a request, as the driver chose them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    pub(super) sense: u32,
    pub(super) cdb: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { sense: 96, cdb: 32 }
    }
}

impl Sizes {
    /// After a write to the configuration.
    pub(super) fn written(self, mut config: Vec<u8>, offset: u64, data: &[u8]) -> Self {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = at.saturating_add(data.len());
        if let Some(bytes) = config.get_mut(at..end) {
            bytes.copy_from_slice(data);
        }
        let word = |at: usize| {
            let bytes = config.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*bytes))
        };
        Sizes {
            sense: word(SENSE_SIZE).unwrap_or(self.sense),
            cdb: word(CDB_SIZE).unwrap_or(self.cdb),
        }
    }
}
