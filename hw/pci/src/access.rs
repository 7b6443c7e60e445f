//! How a CPU reaches configuration space: configuration mechanism #1 (PCI 3.0 section 3.2.2.3.2)
//! and the memory-mapped window of PCI Express (section 7.2.2).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hw_core::{Access, AccessSizes, ByteOrder, Fault, IoRegion, Mapping, RegionId};
use hw_memory::{MappingSpec, MemoryMap, What};

use crate::bus::{PciBus, WeakBus};

const ENABLE: u32 = 1 << 31;

/// `CONFIG_ADDRESS` and `CONFIG_DATA`, ports 0xcf8 to 0xcff.
///
/// Takes no lock while a function answers. Port 0xcf9 lies in the middle: byte accesses to it go to
/// the chip set's reset control, if that is connected.
pub struct ConfigPorts {
    bus: WeakBus,
    address: AtomicU32,
    reset_control: Mutex<Option<Arc<dyn IoRegion>>>,
}

impl ConfigPorts {
    pub(crate) fn new(bus: WeakBus) -> Self {
        ConfigPorts {
            bus,
            address: AtomicU32::new(0),
            reset_control: Mutex::default(),
        }
    }

    /// Puts the ports into a port map.
    pub fn map(self: &Arc<Self>, ports: &MemoryMap) -> Mapping {
        ports.add(MappingSpec {
            name: "pci-conf".into(),
            base: 0xcf8,
            len: 8,
            priority: 1,
            enabled: true,
            what: What::Io {
                io: self.clone(),
                region: RegionId(0),
                order: ByteOrder::Little,
                sizes: AccessSizes::UP_TO_4,
            },
        })
    }

    /// `CONFIG_ADDRESS`, which the host bridge saves.
    pub fn address(&self) -> u32 {
        self.address.load(Ordering::Acquire)
    }

    /// Sets `CONFIG_ADDRESS`.
    pub fn set_address(&self, value: u32) {
        self.address.store(value, Ordering::Release);
    }

    /// Connects port 0xcf9.
    pub fn set_reset_control(&self, port: Arc<dyn IoRegion>) {
        *self
            .reset_control
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(port);
    }

    fn reset_control(&self) -> Option<Arc<dyn IoRegion>> {
        self.reset_control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Bus, function and register that an access to `CONFIG_DATA` means.
    fn target(&self, access: Access) -> Option<(u8, u8, u16)> {
        let address = self.address();
        let byte = access.offset & 3;
        let register = (address & 0xfc) as u16 | byte as u16;
        (address & ENABLE != 0).then_some(((address >> 16) as u8, (address >> 8) as u8, register))
    }
}

impl IoRegion for ConfigPorts {
    fn read(&self, access: Access) -> Result<u64, Fault> {
        match (access.offset, access.size) {
            (0, 4) => Ok(u64::from(self.address())),
            (1, 1) => {
                let port = self.reset_control().ok_or(Fault::Unassigned)?;
                port.read(Access {
                    offset: 0,
                    ..access
                })
            }
            (4.., _) => {
                let (bus, devfn, register) = self.target(access).ok_or(Fault::Unassigned)?;
                self.bus.get()?.read(bus, devfn, register, access)
            }
            _ => Err(Fault::Unassigned),
        }
    }

    fn write(&self, access: Access, value: u64) -> Result<(), Fault> {
        match (access.offset, access.size) {
            (0, 4) => {
                self.set_address(value as u32);
                Ok(())
            }
            (1, 1) => {
                let port = self.reset_control().ok_or(Fault::Unassigned)?;
                let access = Access {
                    offset: 0,
                    ..access
                };
                port.write(access, value)
            }
            (4.., _) => {
                let (bus, devfn, register) = self.target(access).ok_or(Fault::Unassigned)?;
                self.bus.get()?.write(bus, devfn, register, access, value)
            }
            _ => Err(Fault::Unassigned),
        }
    }
}

/// The enhanced configuration access mechanism: 4 KiB of memory for each function.
pub struct Ecam {
    bus: PciBus,
}

impl Ecam {
    /// A window onto a bus and those below it.
    pub fn new(bus: PciBus) -> Arc<Self> {
        Arc::new(Ecam { bus })
    }

    /// Puts the window into a memory map, not yet placed.
    pub fn map(self: &Arc<Self>, memory: &MemoryMap, len: u64) -> Mapping {
        memory.add(MappingSpec {
            name: "pcie-mmcfg".into(),
            base: 0,
            len,
            priority: 2,
            enabled: false,
            what: What::Io {
                io: self.clone(),
                region: RegionId(0),
                order: ByteOrder::Little,
                sizes: AccessSizes::UP_TO_4,
            },
        })
    }
}

fn split(offset: u64) -> (u8, u8, u16) {
    (
        (offset >> 20) as u8,
        (offset >> 12) as u8,
        (offset & 0xfff) as u16,
    )
}

impl IoRegion for Ecam {
    fn read(&self, access: Access) -> Result<u64, Fault> {
        let (bus, devfn, register) = split(access.offset);
        // No function, or no such register: the bus ends the access, the host sees all ones.
        Ok(self
            .bus
            .read(bus, devfn, register, access)
            .unwrap_or(u64::MAX))
    }

    fn write(&self, access: Access, value: u64) -> Result<(), Fault> {
        let (bus, devfn, register) = split(access.offset);
        let _ = self.bus.write(bus, devfn, register, access, value);
        Ok(())
    }
}
