//! One machine: memory, the interrupt controller, lines and messages into it.

use std::sync::{Arc, OnceLock};

use hw_core::{IrqSink, MsiSink};
use hw_intc::GicPlaces;
use hw_memory::MemoryMap;
use kvm_bindings::*;
use kvm_ioctls::VmFd;

use super::vgic::Vgic;
use super::{Host, Models};
use crate::KvmError;
use crate::kernel::mapped::Mapped;
use crate::kernel::refused;

/// Kind of a line of KVM_IRQ_LINE: a shared interrupt.
const SHARED: u32 = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT;

/// A machine in the kernel.
pub struct Vm {
    pub(crate) fd: Arc<VmFd>,
    pub(crate) host: Host,
    mapped: Arc<Mapped>,
    vgic: OnceLock<Vgic>,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vm")
    }
}

impl Vm {
    /// A machine without memory, interrupt controller and vCPUs.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(host: Host) -> Result<Arc<Self>, KvmError> {
        let fd = host
            .kvm
            .create_vm_with_type(host.vm_type())
            .map_err(refused("KVM_CREATE_VM"))?;
        let fd = Arc::new(fd);
        let vm = Vm {
            mapped: Mapped::new(fd.clone()),
            fd,
            host,
            vgic: OnceLock::new(),
        };
        // Accesses that the processor does not describe are told, not an error of KVM_RUN.
        let cap = kvm_enable_cap {
            cap: KVM_CAP_ARM_NISV_TO_USER,
            ..kvm_enable_cap::default()
        };
        if let Err(error) = vm.fd.enable_cap(&cap) {
            log::debug!("KVM_CAP_ARM_NISV_TO_USER: {error}");
        }
        Ok(Arc::new(vm))
    }

    /// What the host has.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Gives the guest the map's RAM and ROM, and the events of doorbells, now and after each change.
    ///
    /// # Errors
    /// The slot that the kernel refused.
    pub fn attach(&self, memory: &MemoryMap, ports: &MemoryMap) -> Result<(), String> {
        self.mapped.attach(memory, ports)
    }

    /// Starts or ends the kernel's dirty log. Start the blocks' own log too.
    ///
    /// # Errors
    /// The slot that the kernel refused.
    pub fn set_dirty_log(&self, on: bool) -> Result<(), String> {
        self.mapped.set_dirty_log(on)
    }

    /// Marks what the guest wrote since the last call as written in the blocks.
    pub fn sync_dirty(&self) {
        self.mapped.sync_dirty();
    }

    /// Makes the interrupt controller, once, before the CPUs.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn make_gic(&self, places: &GicPlaces) -> Result<(), KvmError> {
        let vgic = Vgic::new(&self.fd, places)?;
        let _ = self.vgic.set(vgic);
        Ok(())
    }

    /// Says that all CPUs are there.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn complete(&self) -> Result<(), KvmError> {
        self.vgic.get().map_or(Ok(()), Vgic::complete)
    }

    pub(crate) fn read_gic(&self, models: &dyn Models, tables: bool) -> std::io::Result<()> {
        let vgic = self.vgic.get();
        vgic.map_or(Ok(()), |vgic| vgic.read(models, tables))
    }

    pub(crate) fn write_gic(&self, models: &dyn Models) -> std::io::Result<()> {
        let vgic = self.vgic.get();
        vgic.map_or(Ok(()), |vgic| {
            vgic.write(models, |intid, level| self.line(intid, level))
        })
    }

    fn line(&self, intid: u32, level: bool) {
        if let Err(error) = self.fd.set_irq_line(SHARED | intid, level) {
            log::warn!("interrupt {intid} is lost: {error}");
        }
    }
}

/// Shared interrupts, by INTID.
impl IrqSink for Vm {
    fn set(&self, pin: u32, level: bool) {
        if let Some(vgic) = self.vgic.get() {
            vgic.note(pin, level);
        }
        self.line(pin, level);
    }
}

/// Messages to the translation service.
impl MsiSink for Vm {
    fn message(&self, address: u64, data: u32, requester: u32) {
        let msi = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            flags: KVM_MSI_VALID_DEVID,
            devid: requester,
            ..kvm_msi::default()
        };
        // Zero says that the guest blocked it, which is its right; an error, that it knows no such device
        // or event.
        if let Err(error) = self.fd.signal_msi(msi) {
            log::debug!("message {address:#x} {data:#x} of {requester:#x} is lost: {error}");
        }
    }
}
