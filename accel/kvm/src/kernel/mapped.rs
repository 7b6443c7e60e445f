//! What of the memory map the kernel knows: slots with their dirty log, and doorbells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw_memory::{MemoryMap, PAGE_SIZE, Snapshot};
use kvm_bindings::*;
use kvm_ioctls::VmFd;

use super::bells::{self, Space, Wires};
use crate::slots::{Step, Table, Wanted, wanted};

#[derive(Default)]
struct Slots {
    table: Table,
    dirty_log: bool,
}

/// Memory and doorbells of a machine in the kernel.
pub(crate) struct Mapped {
    fd: Arc<VmFd>,
    /// An event may be set by writes of any width.
    any_length: bool,
    /// Bytes of the host's pages: what slots and the dirty log are made of.
    page: u64,
    slots: Mutex<Slots>,
    /// Doorbells in memory and at ports.
    memory_bells: Mutex<Wires>,
    port_bells: Mutex<Wires>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of the host's pages.
fn host_page() -> u64 {
    // SAFETY: sysconf takes no pointers.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(0).max(PAGE_SIZE)
}

impl Mapped {
    pub(crate) fn new(fd: Arc<VmFd>) -> Arc<Self> {
        let any_length = fd.check_extension_raw(KVM_CAP_IOEVENTFD_ANY_LENGTH.into()) > 0;
        Arc::new(Mapped {
            fd,
            any_length,
            page: host_page(),
            slots: Mutex::default(),
            memory_bells: Mutex::default(),
            port_bells: Mutex::default(),
        })
    }

    /// Gives the guest the map's RAM and ROM, and the events of doorbells in both maps, now and after
    /// each change.
    pub(crate) fn attach(
        self: &Arc<Self>,
        memory: &MemoryMap,
        ports: &MemoryMap,
    ) -> Result<(), String> {
        let mapped = Arc::downgrade(self);
        memory.on_change(move |map| {
            let Some(mapped) = mapped.upgrade() else {
                return;
            };
            if let Err(error) = mapped.update(map) {
                log::error!("{error}");
            }
            mapped.update_bells(Space::Memory, map);
        });
        let mapped = Arc::downgrade(self);
        ports.on_change(move |map| {
            if let Some(mapped) = mapped.upgrade() {
                mapped.update_bells(Space::Ports, map);
            }
        });
        self.update_bells(Space::Memory, &memory.snapshot());
        self.update_bells(Space::Ports, &ports.snapshot());
        self.update(&memory.snapshot())
    }

    fn update_bells(&self, space: Space, map: &Snapshot) {
        let wires = match space {
            Space::Memory => &self.memory_bells,
            Space::Ports => &self.port_bells,
        };
        let mut wanted = bells::wanted(map);
        if !self.any_length {
            wanted.retain(|wire| wire.len != 0);
        }
        lock(wires).update(&self.fd, space, wanted);
    }

    fn update(&self, map: &Snapshot) -> Result<(), String> {
        let mut slots = lock(&self.slots);
        let dirty_log = slots.dirty_log;
        for step in slots.table.update(wanted(map, self.page)) {
            match step {
                Step::Delete(n, old) => {
                    if dirty_log {
                        self.take_log(n, &old);
                    }
                    self.set_slot(n, &Wanted { len: 0, ..old }, false)?;
                }
                Step::Create(n, new) => self.set_slot(n, &new, dirty_log)?,
            }
        }
        Ok(())
    }

    fn set_slot(&self, slot: u32, wanted: &Wanted, dirty_log: bool) -> Result<(), String> {
        let mut flags = 0;
        if wanted.readonly {
            flags |= KVM_MEM_READONLY;
        } else if dirty_log {
            flags |= KVM_MEM_LOG_DIRTY_PAGES;
        }
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: wanted.base,
            memory_size: wanted.len,
            userspace_addr: wanted.block.host_ptr() as u64 + wanted.offset,
        };
        // SAFETY: the range lies in the block, as `wanted` found; the table keeps the block alive
        // until the slot is deleted, and slots of one table never overlap.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(|error| {
            format!(
                "KVM refused memory slot {slot} at {:#x} ({} bytes of {}): {error}",
                wanted.base,
                wanted.len,
                wanted.block.name()
            )
        })
    }

    /// Starts or ends the kernel's dirty log.
    pub(crate) fn set_dirty_log(&self, on: bool) -> Result<(), String> {
        let mut slots = lock(&self.slots);
        slots.dirty_log = on;
        for (n, slot) in slots.table.all() {
            if !slot.readonly {
                self.set_slot(n, slot, on)?;
            }
        }
        Ok(())
    }

    /// Marks what the guest wrote since the last call as written in the blocks.
    pub(crate) fn sync_dirty(&self) {
        let slots = lock(&self.slots);
        if slots.dirty_log {
            for (n, slot) in slots.table.all() {
                self.take_log(n, slot);
            }
        }
    }

    fn take_log(&self, n: u32, slot: &Wanted) {
        if slot.readonly {
            return;
        }
        match self.fd.get_dirty_log(n, slot.len as usize) {
            Ok(words) => {
                for (word, first) in words.into_iter().zip((0u64..).step_by(64)) {
                    for bit in (0..64).filter(|bit| word >> bit & 1 != 0) {
                        let page = (first + bit) * self.page;
                        slot.block.mark_written(slot.offset + page, self.page);
                    }
                }
            }
            Err(error) => {
                log::error!("KVM_GET_DIRTY_LOG of slot {n}: {error}");
                // Nothing may be lost: all of it counts as written.
                slot.block.mark_written(slot.offset, slot.len);
            }
        }
    }
}
