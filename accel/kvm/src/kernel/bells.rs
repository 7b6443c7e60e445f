//! Doorbells of devices as ioeventfds: the kernel sets the event and the vCPU goes on.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst, KVM_IOEVENTFD.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use hw_memory::{ByteOrder, Snapshot, What};
use kvm_bindings::*;
use kvm_ioctls::VmFd;

/// `_IOW(KVMIO, 0x79, struct kvm_ioeventfd)`.
const KVM_IOEVENTFD: libc::c_ulong = 0x4040_ae79;
const DATAMATCH: u32 = 1 << kvm_ioeventfd_flag_nr_datamatch;
const PIO: u32 = 1 << kvm_ioeventfd_flag_nr_pio;
const DEASSIGN: u32 = 1 << kvm_ioeventfd_flag_nr_deassign;

/// Which of the two maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Space {
    Memory,
    Ports,
}

/// An address whose writes set an event.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) address: u64,
    /// Bytes; 0 for any width.
    pub(crate) len: u8,
    pub(crate) value: Option<u64>,
    pub(crate) event: Arc<OwnedFd>,
}

impl PartialEq for Wire {
    fn eq(&self, other: &Self) -> bool {
        (self.address, self.len, self.value) == (other.address, other.len, other.value)
            && Arc::ptr_eq(&self.event, &other.event)
    }
}

/// The doorbells that a map has where it shows them.
pub(crate) fn wanted(map: &Snapshot) -> Vec<Wire> {
    let mut wires = Vec::new();
    for span in map.spans() {
        let What::Io {
            io, region, order, ..
        } = &span.what
        else {
            continue;
        };
        for bell in io.doorbells(*region) {
            let place = bell.place;
            let Some(address) = place
                .offset
                .checked_sub(span.skip)
                .and_then(|into| span.start.checked_add(into))
                .filter(|address| *address <= span.last)
            else {
                continue;
            };
            // The kernel compares values as little-endian guests have them in memory.
            if place.value.is_some() && (*order != ByteOrder::Little || place.size.is_none()) {
                continue;
            }
            wires.push(Wire {
                address,
                len: place.size.unwrap_or(0),
                value: place.value,
                event: bell.event,
            });
        }
    }
    wires
}

/// The wires of one map that the kernel has.
#[derive(Default)]
pub(crate) struct Wires {
    list: Vec<Wire>,
    /// A refusal was told.
    told: bool,
}

impl Wires {
    /// Brings the kernel's wires in line with the map. Writes to one that the kernel refuses go on
    /// to be exits, which ring the same bell.
    pub(crate) fn update(&mut self, fd: &VmFd, space: Space, wanted: Vec<Wire>) {
        self.list.retain(|old| {
            let stays = wanted.contains(old);
            if !stays {
                self.told |= !change(fd, space, old, DEASSIGN, self.told);
            }
            stays
        });
        for new in wanted {
            if self.list.contains(&new) {
                continue;
            }
            if change(fd, space, &new, 0, self.told) {
                self.list.push(new);
            } else {
                self.told = true;
            }
        }
    }
}

/// Adds a wire, or with [`DEASSIGN`] removes it; whether the kernel did.
fn change(fd: &VmFd, space: Space, wire: &Wire, how: u32, told: bool) -> bool {
    let mut flags = how;
    if wire.value.is_some() {
        flags |= DATAMATCH;
    }
    if space == Space::Ports {
        flags |= PIO;
    }
    let request = kvm_ioeventfd {
        datamatch: wire.value.unwrap_or(0),
        addr: wire.address,
        len: wire.len.into(),
        fd: wire.event.as_raw_fd(),
        flags,
        ..kvm_ioeventfd::default()
    };
    // SAFETY: the descriptor is a machine's; the request lives through the call, and the kernel
    // holds the event by a reference of its own.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_IOEVENTFD, &request) } == 0;
    if !done && !told {
        log::info!(
            "KVM takes no event for the doorbell at {:#x}: {}",
            wire.address,
            std::io::Error::last_os_error()
        );
    }
    done
}
