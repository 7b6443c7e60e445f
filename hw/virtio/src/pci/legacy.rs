//! The legacy interface: I/O registers in BAR 0 (VIRTIO 1.2 section 4.1.4.10).

use hw_core::{Access, Fault};
use hw_pci::Pci;

use super::{NO_VECTOR, VirtioPci};
use crate::status;

const HOST_FEATURES: u64 = 0x00;
const GUEST_FEATURES: u64 = 0x04;
const QUEUE_ADDRESS: u64 = 0x08;
const QUEUE_SIZE: u64 = 0x0c;
const QUEUE_SELECT: u64 = 0x0e;
pub(super) const QUEUE_NOTIFY: u64 = 0x10;
const STATUS: u64 = 0x12;
const ISR: u64 = 0x13;
/// The device's configuration begins here, or behind the two vectors while MSI-X is on.
const CONFIG: u64 = 0x14;
pub(super) const CONFIG_MSIX: u64 = 0x18;
const CONFIG_VECTOR: u64 = 0x14;
const QUEUE_VECTOR: u64 = 0x16;

/// Unit of the queue address, and alignment of the used ring.
const PAGE: u32 = 4096;

impl VirtioPci {
    fn config_offset(pci: &Pci, offset: u64) -> Option<u64> {
        offset.checked_sub(if pci.msix_enabled() {
            CONFIG_MSIX
        } else {
            CONFIG
        })
    }

    pub(super) fn legacy_read(&mut self, pci: &Pci, access: Access) -> Result<u64, Fault> {
        if let Some(offset) = Self::config_offset(pci, access.offset) {
            return Ok(self.core.config_read(offset, access.size));
        }
        let queue = self.core.queue();
        Ok(match access.offset {
            HOST_FEATURES => u64::from(self.core.legacy_features()),
            GUEST_FEATURES => u64::from(self.core.features() as u32),
            QUEUE_ADDRESS => {
                let ready = queue.filter(|q| q.is_ready());
                let [base, ..] = ready.map_or([0; 3], |q| q.areas());
                base.checked_div(u64::from(PAGE)).unwrap_or(0)
            }
            QUEUE_SIZE => queue.map_or(0, |q| u64::from(q.max_size())),
            QUEUE_SELECT => u64::from(self.core.queue_select()),
            STATUS => u64::from(self.core.status()),
            ISR => self.take_isr(),
            CONFIG_VECTOR => u64::from(self.state.config_vector),
            QUEUE_VECTOR => u64::from(self.queue_vector().map_or(NO_VECTOR, |v| *v)),
            _ => return Err(Fault::NoRegister),
        })
    }

    pub(super) fn legacy_write(
        &mut self,
        pci: &mut Pci,
        access: Access,
        value: u64,
    ) -> Result<(), Fault> {
        if let Some(offset) = Self::config_offset(pci, access.offset) {
            self.core.config_write(offset, access.size, value);
            return Ok(());
        }
        match access.offset {
            GUEST_FEATURES => {
                self.core.select_driver_features(0);
                self.core.set_driver_features(value as u32);
            }
            QUEUE_ADDRESS if value == 0 => self.reset_core(),
            QUEUE_ADDRESS => {
                if let Some(queue) = self.core.queue_mut() {
                    let base = (value & 0xffff_ffff).wrapping_mul(u64::from(PAGE));
                    queue.set_legacy(base, PAGE);
                }
            }
            QUEUE_SELECT => self.core.select_queue(value as u16),
            QUEUE_NOTIFY => self.core.notify(value as u16),
            STATUS => {
                // Linux before 2.6.34 says it is ready without enabling bus mastering.
                if value as u8 & (status::DRIVER | status::DRIVER_OK) != 0 {
                    pci.enable_master();
                }
                self.set_status(value as u8);
            }
            CONFIG_VECTOR => self.state.config_vector = self.vector(pci, value),
            QUEUE_VECTOR => {
                let vector = self.vector(pci, value);
                if let Some(slot) = self.queue_vector() {
                    *slot = vector;
                }
            }
            HOST_FEATURES | QUEUE_SIZE | ISR => return Err(Fault::ReadOnly),
            _ => return Err(Fault::NoRegister),
        }
        Ok(())
    }
}
