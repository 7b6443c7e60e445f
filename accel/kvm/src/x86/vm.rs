//! One machine: memory slots, interrupt controllers in the kernel, messages and lines into them.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw_core::{IrqSink, MsiSink};
use hw_intc::redirection;
use hw_memory::MemoryMap;
use kvm_bindings::*;
use kvm_ioctls::{Cap, MsrExitReason, VmFd};

use super::routes::{IOAPIC_INPUTS, Message, Routes, TIMER_INPUT};
use super::{Chips, Host, Mode, chips};
use crate::KvmError;
use crate::kernel::mapped::Mapped;
use crate::kernel::refused;

/// Where Intel's processors keep three pages for real mode, below the largest firmware: no RAM is
/// there on any board.
const TSS: usize = 0xfeff_d000;
const IDENTITY_MAP: u64 = 0xfeff_c000;
/// Bit 15 of a message's data: level-triggered.
const MSI_LEVEL: u32 = 1 << 15;
/// `_IO(KVMIO, 0xa3)` on a machine: the frequency that new vCPUs have, in kHz.
const KVM_GET_TSC_KHZ: libc::c_ulong = 0xaea3;
/// The i8254's line. The model's stays high between its edges, the kernel's is low: with the other one
/// in place the line's level is made to fit, else an edge would be lost or be one too many.
const TIMER_IRQ: u8 = 0;
/// Inputs of the two i8259 that may be made level-triggered.
const ELCR_MASKS: [u8; 2] = [0xf8, 0xde];

/// A machine in the kernel.
pub struct Vm {
    pub(crate) fd: Arc<VmFd>,
    pub(crate) host: Host,
    mapped: Arc<Mapped>,
    routes: Mutex<Routes>,
    pub(crate) has_pit: AtomicBool,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vm({:?})", self.host.mode)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vm {
    /// A machine without memory and vCPUs, with the interrupt controllers that `host` was opened
    /// for.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(host: Host) -> Result<Arc<Self>, KvmError> {
        let fd = host.kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
        fd.set_identity_map_address(IDENTITY_MAP)
            .map_err(refused("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(TSS)
            .map_err(refused("KVM_SET_TSS_ADDR"))?;
        let mode = host.mode;
        let fd = Arc::new(fd);
        let vm = Vm {
            mapped: Mapped::new(fd.clone()),
            fd,
            host,
            routes: Mutex::new(Routes::new(mode)),
            has_pit: AtomicBool::new(false),
        };
        vm.create_controllers()?;
        if vm.fd.check_extension(Cap::X86UserSpaceMsr) {
            let reasons = MsrExitReason::Unknown | MsrExitReason::Inval;
            vm.enable(KVM_CAP_X86_USER_SPACE_MSR, reasons.bits().into())
                .map_err(refused("KVM_CAP_X86_USER_SPACE_MSR"))?;
        }
        Ok(Arc::new(vm))
    }

    fn enable(&self, cap: u32, argument: u64) -> Result<(), kvm_ioctls::Error> {
        self.fd.enable_cap(&kvm_enable_cap {
            cap,
            args: [argument, 0, 0, 0],
            ..kvm_enable_cap::default()
        })
    }

    fn create_controllers(&self) -> Result<(), KvmError> {
        match self.host.mode {
            Mode::User => return Ok(()),
            Mode::Split => self
                .enable(KVM_CAP_SPLIT_IRQCHIP, IOAPIC_INPUTS.into())
                .map_err(refused("KVM_CAP_SPLIT_IRQCHIP"))?,
            Mode::Kernel => {
                self.fd
                    .create_irq_chip()
                    .map_err(refused("KVM_CREATE_IRQCHIP"))?;
                lock(&self.routes).apply(&self.fd)?;
            }
        }
        if self.fd.check_extension(Cap::X2ApicApi) {
            // APIC ids of 32 bits in the state and in messages, and x2APIC's broadcast is no special case.
            let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
            self.enable(KVM_CAP_X2APIC_API, flags.into())
                .map_err(refused("KVM_CAP_X2APIC_API"))?;
        }
        Ok(())
    }

    /// Where the interrupt controllers are.
    pub fn mode(&self) -> Mode {
        self.host.mode
    }

    /// Frequency of the time stamp counter that vCPUs have, if the kernel says.
    pub fn tsc_hz(&self) -> Option<u64> {
        // SAFETY: the call takes no argument on a machine's descriptor.
        let khz = unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_GET_TSC_KHZ, 0) };
        let khz = u64::try_from(khz).ok().filter(|khz| *khz != 0);
        khz.or_else(|| {
            // Before Linux 5.18 only vCPUs know: one of a machine that is thrown away.
            let other = self.host.kvm.create_vm().ok()?;
            let vcpu = other.create_vcpu(0).ok()?;
            vcpu.get_tsc_khz().ok().map(u64::from)
        })
        .map(|khz| khz * 1000)
    }

    /// Gives the guest the map's RAM and ROM, and the events of doorbells in both maps, now and after
    /// each change.
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

    /// Marks what the guest wrote since the last call as written in the blocks, whose
    /// `take_dirty` then tells of writes by the guest and by devices alike.
    pub fn sync_dirty(&self) {
        self.mapped.sync_dirty();
    }

    /// Copies the state of the kernel's controllers into the board's models.
    pub(crate) fn read_chips(&self, models: &dyn Chips) -> Result<(), kvm_ioctls::Error> {
        if self.host.mode != Mode::Kernel {
            return Ok(());
        }
        if let Some(mut pic) = models.pic() {
            for (id, chip) in [
                (KVM_IRQCHIP_PIC_MASTER, &mut pic.master),
                (KVM_IRQCHIP_PIC_SLAVE, &mut pic.slave),
            ] {
                let mut kernel = irqchip(id);
                self.fd.get_irqchip(&mut kernel)?;
                // SAFETY: the kernel filled the member that the id names.
                *chip = chips::pic_of(unsafe { &kernel.chip.pic }, chip);
            }
            if self.has_pit.load(Ordering::Relaxed) {
                pic.master.lines |= 1 << TIMER_IRQ;
            }
            models.set_pic(pic);
        }
        let mut kernel = irqchip(KVM_IRQCHIP_IOAPIC);
        self.fd.get_irqchip(&mut kernel)?;
        // SAFETY: as above.
        let mut state = chips::ioapic_of(unsafe { &kernel.chip.ioapic }, &models.ioapic());
        if self.has_pit.load(Ordering::Relaxed) {
            state.lines |= 1 << TIMER_INPUT;
        }
        models.set_ioapic(state);
        Ok(())
    }

    /// The guest was reset or replaced: forgets the messages of the old one.
    pub(crate) fn restart_messages(&self, models: &dyn Chips) {
        let mut level = Vec::new();
        if self.host.mode == Mode::Split {
            let waits = redirection::LEVEL | redirection::REMOTE_IRR;
            let entries = models.ioapic().entries;
            for entry in entries.into_iter().filter(|entry| entry & waits == waits) {
                let (address, data) = redirection::message(entry);
                level.push(Message { address, data });
            }
        }
        lock(&self.routes).restart(&self.fd, level);
    }

    /// How many messages have an irqfd.
    #[cfg(test)]
    pub(crate) fn irqfds(&self) -> usize {
        lock(&self.routes).irqfds()
    }

    /// Copies the state of the board's models into the kernel's controllers.
    pub(crate) fn write_chips(&self, models: &dyn Chips) -> Result<(), kvm_ioctls::Error> {
        if self.host.mode != Mode::Kernel {
            return Ok(());
        }
        if let Some(mut pic) = models.pic() {
            if self.has_pit.load(Ordering::Relaxed) {
                pic.master.lines &= !(1 << TIMER_IRQ);
            }
            for (id, chip, mask) in [
                (KVM_IRQCHIP_PIC_MASTER, &pic.master, ELCR_MASKS[0]),
                (KVM_IRQCHIP_PIC_SLAVE, &pic.slave, ELCR_MASKS[1]),
            ] {
                let mut kernel = irqchip(id);
                kernel.chip.pic = chips::pic_to(chip, mask);
                self.fd.set_irqchip(&kernel)?;
            }
        }
        let mut kernel = irqchip(KVM_IRQCHIP_IOAPIC);
        kernel.chip.ioapic = chips::ioapic_to(&models.ioapic());
        self.fd.set_irqchip(&kernel)
    }
}

fn irqchip(chip_id: u32) -> kvm_irqchip {
    kvm_irqchip {
        chip_id,
        ..kvm_irqchip::default()
    }
}

/// Global interrupts 0 to 23 of [`Mode::Kernel`].
impl IrqSink for Vm {
    fn set(&self, pin: u32, level: bool) {
        if let Err(error) = self.fd.set_irq_line(pin, level) {
            log::warn!("interrupt {pin} is lost: {error}");
        }
    }
}

/// Messages to local APICs in the kernel.
impl MsiSink for Vm {
    fn message(&self, address: u64, data: u32, _: u32) {
        let message = Message { address, data };
        let mut routes = lock(&self.routes);
        if data & MSI_LEVEL != 0 {
            if self.host.mode == Mode::Split {
                routes.add_level(&self.fd, message);
            }
        } else if routes.send(&self.fd, message) {
            return;
        }
        drop(routes);
        let msi = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..kvm_msi::default()
        };
        // Zero says that the guest blocked it, which is its right.
        if let Err(error) = self.fd.signal_msi(msi) {
            log::debug!("message {address:#x} {data:#x} is lost: {error}");
        }
    }
}
