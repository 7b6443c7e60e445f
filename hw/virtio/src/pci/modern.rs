//! The modern interface: structures in BAR 4, found by capabilities (VIRTIO 1.2 section 4.1.4).

use hw_core::{DeviceError, Fault};
use hw_pci::{ConfigSpace, Pci, cap};

use super::{MODERN_BAR, NO_VECTOR, VirtioPci};

const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// Bytes of each structure; the bells may take more.
const STRUCTURE: u64 = 0x1000;

/// `cfg_type` of the capabilities.
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// Offsets in the window capability: which BAR, where, how much, data.
const WINDOW_BAR: u16 = 4;
const WINDOW_OFFSET: u16 = 8;
const WINDOW_LENGTH: u16 = 12;
const WINDOW_DATA: u16 = 16;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const MSIX_CONFIG: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_AREAS_END: u64 = 0x38;

/// Where everything is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Bytes of the BAR.
    pub(super) len: u64,
    /// Distance of bells.
    multiplier: u32,
    /// Bytes of all bells.
    notify_len: u64,
    /// Offset of the window capability.
    window: u16,
}

impl Layout {
    pub(super) fn new(queues: usize, page_per_vq: bool) -> Self {
        let multiplier: u32 = if page_per_vq { 4096 } else { 4 };
        let bells = u64::try_from(queues.max(1)).unwrap_or(1);
        let notify_len = bells
            .saturating_mul(u64::from(multiplier))
            .next_power_of_two()
            .max(STRUCTURE);
        Layout {
            len: NOTIFY.saturating_add(notify_len).next_power_of_two(),
            multiplier,
            notify_len,
            window: 0,
        }
    }

    /// Says in configuration space where everything is.
    pub(super) fn add_capabilities(
        mut self,
        config: &mut ConfigSpace,
    ) -> Result<Self, DeviceError> {
        let body = |len: u8, kind: u8, bar: u8, at: u64, bytes: u64, rest: &[u8]| -> Vec<u8> {
            let mut body = vec![len, kind, bar, 0, 0, 0];
            body.extend((at as u32).to_le_bytes());
            body.extend((bytes as u32).to_le_bytes());
            body.extend(rest);
            body
        };
        let structures = [(CFG_COMMON, COMMON), (CFG_ISR, ISR), (CFG_DEVICE, DEVICE)];
        for (kind, at) in structures {
            let body = body(16, kind, MODERN_BAR, at, STRUCTURE, &[]);
            config.add_capability(cap::VENDOR, &body, &[])?;
        }
        let multiplier = self.multiplier.to_le_bytes();
        let notify = body(
            20,
            CFG_NOTIFY,
            MODERN_BAR,
            NOTIFY,
            self.notify_len,
            &multiplier,
        );
        config.add_capability(cap::VENDOR, &notify, &[])?;
        let window = body(20, CFG_PCI, 0, 0, 0, &[0; 4]);
        let writable = [
            0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff,
        ];
        self.window = config.add_capability(cap::VENDOR, &window, &writable)?;
        Ok(self)
    }

    /// Where the bell of a queue is in the BAR.
    pub(super) fn bell(&self, queue: u16) -> u64 {
        NOTIFY.saturating_add(u64::from(queue).saturating_mul(self.multiplier.into()))
    }

    pub(super) fn window_data(&self) -> u16 {
        self.window.saturating_add(WINDOW_DATA)
    }

    /// Where in the BAR, and how wide, an access to the window's data goes, if it is one.
    pub(super) fn window(&self, config: &ConfigSpace, offset: u16, size: u8) -> Option<(u64, u8)> {
        let data = self.window_data();
        let end = offset.saturating_add(u16::from(size));
        if end <= data || offset >= data.saturating_add(4) {
            return None;
        }
        let at = |field: u16| self.window.saturating_add(field);
        let (bar, start) = (config.byte(at(WINDOW_BAR)), config.long(at(WINDOW_OFFSET)));
        let len = config.long(at(WINDOW_LENGTH));
        let (start, len) = (u64::from(start), u64::from(len));
        let possible = bar == MODERN_BAR
            && matches!(len, 1 | 2 | 4)
            && start.is_multiple_of(len)
            && start.saturating_add(len) <= self.len;
        possible.then_some((start, len as u8))
    }
}

impl VirtioPci {
    pub(super) fn modern_read(
        &mut self,
        layout: &Layout,
        offset: u64,
        size: u8,
    ) -> Result<u64, Fault> {
        match offset & !STRUCTURE.wrapping_sub(1) {
            COMMON => self.common_read(layout, offset, size),
            ISR if offset == ISR => Ok(self.take_isr()),
            DEVICE => Ok(self.core.config_read(offset.wrapping_sub(DEVICE), size)),
            // Bells are silent.
            NOTIFY.. => Ok(0),
            _ => Err(Fault::NoRegister),
        }
    }

    pub(super) fn modern_write(
        &mut self,
        pci: &mut Pci,
        layout: &Layout,
        offset: u64,
        size: u8,
        value: u64,
    ) -> Result<(), Fault> {
        match offset & !STRUCTURE.wrapping_sub(1) {
            COMMON => self.common_write(pci, offset, size, value),
            DEVICE => {
                let at = offset.wrapping_sub(DEVICE);
                self.core.config_write(at, size, value);
                Ok(())
            }
            NOTIFY.. => {
                let bell = offset.wrapping_sub(NOTIFY);
                let queue = bell.checked_div(u64::from(layout.multiplier)).unwrap_or(0);
                self.core.notify(u16::try_from(queue).unwrap_or(u16::MAX));
                Ok(())
            }
            _ => Err(Fault::ReadOnly),
        }
    }

    fn common_read(&mut self, _: &Layout, offset: u64, size: u8) -> Result<u64, Fault> {
        // Registers may be read in part: take the 32-bit words they lie in.
        let word = |low: u64, high: u64| low & 0xffff | (high & 0xffff) << 16;
        let queue = self.core.queue();
        let value = match offset & !3 {
            DEVICE_FEATURE_SELECT => u64::from(self.core.device_feature_select()),
            DEVICE_FEATURE => u64::from(self.core.device_features(false)),
            DRIVER_FEATURE_SELECT => u64::from(self.core.driver_feature_select()),
            DRIVER_FEATURE => u64::from(self.core.driver_features()),
            MSIX_CONFIG => word(
                u64::from(self.state.config_vector),
                self.core.queues().len() as u64,
            ),
            DEVICE_STATUS => word(
                u64::from(self.core.status()) | u64::from(self.core.config_generation()) << 8,
                u64::from(self.core.queue_select()),
            ),
            QUEUE_SIZE => {
                let size = queue.map_or(0, |q| u64::from(q.size()));
                let vector = self.queue_vector().map_or(NO_VECTOR, |v| *v);
                word(size, u64::from(vector))
            }
            QUEUE_ENABLE => word(
                queue.is_some_and(|q| q.is_ready()).into(),
                // Each queue has the bell of its number.
                queue.map_or(0, |_| u64::from(self.core.queue_select())),
            ),
            QUEUE_DESC..QUEUE_AREAS_END => {
                let areas = queue.map_or([0; 3], |q| q.areas());
                let index = usize::try_from(offset.wrapping_sub(QUEUE_DESC) >> 3).unwrap_or(3);
                let area = areas.get(index).copied().unwrap_or(0);
                if offset & 4 != 0 { area >> 32 } else { area }
            }
            _ => return Err(Fault::NoRegister),
        };
        let mask = if size >= 4 {
            0xffff_ffff
        } else {
            0xffff >> (16u32.saturating_sub(u32::from(size).saturating_mul(8)))
        };
        let shift = (offset as u32 & 3).saturating_mul(8);
        Ok(value.wrapping_shr(shift) & mask)
    }

    fn common_write(
        &mut self,
        pci: &mut Pci,
        offset: u64,
        size: u8,
        value: u64,
    ) -> Result<(), Fault> {
        // Writes have the width of the field (VIRTIO 1.2 section 4.1.3.1).
        match (offset, size) {
            (DEVICE_FEATURE_SELECT, 4) => self.core.select_device_features(value as u32),
            (DRIVER_FEATURE_SELECT, 4) => self.core.select_driver_features(value as u32),
            (DRIVER_FEATURE, 4) => self.core.set_driver_features(value as u32),
            (MSIX_CONFIG, 2) => self.state.config_vector = self.vector(pci, value),
            (DEVICE_STATUS, 1) => self.set_status(value as u8),
            (QUEUE_SELECT, 2) => self.core.select_queue(value as u16),
            (QUEUE_SIZE, 2) => {
                if let Some(queue) = self.core.queue_mut() {
                    queue.set_size(value as u16);
                }
            }
            (QUEUE_MSIX_VECTOR, 2) => {
                let vector = self.vector(pci, value);
                if let Some(slot) = self.queue_vector() {
                    *slot = vector;
                }
            }
            // Only a reset switches a queue off.
            (QUEUE_ENABLE, 2) if value == 1 => self.core.enable_queue(),
            (QUEUE_ENABLE, 2) => {}
            (QUEUE_DESC..QUEUE_AREAS_END, 4) if offset.is_multiple_of(4) => {
                if let Some(queue) = self.core.queue_mut() {
                    let mut areas = queue.areas();
                    let index = usize::try_from(offset.wrapping_sub(QUEUE_DESC) >> 3).unwrap_or(3);
                    if let Some(area) = areas.get_mut(index) {
                        *area = if offset & 4 != 0 {
                            (*area & 0xffff_ffff) | value << 32
                        } else {
                            (*area & !0xffff_ffff) | (value & 0xffff_ffff)
                        };
                    }
                    queue.set_areas(areas);
                }
            }
            (DEVICE_FEATURE | NUM_QUEUES | CONFIG_GENERATION | QUEUE_NOTIFY_OFF, _) => {
                return Err(Fault::ReadOnly);
            }
            _ => return Err(Fault::BadSize),
        }
        Ok(())
    }
}
