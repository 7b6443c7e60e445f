//! The interrupt controller in the kernel, and its translation service.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use hw_intc::{GIC_BANK, GIC_MAX_SPIS, GicPlaces, GicState, GicVersion};
use kvm_bindings::*;
use kvm_ioctls::{DeviceFd, VmFd};

use super::Models;
use super::gic::{self, Attributes, group};
use crate::KvmError;
use crate::kernel::refused;

/// `KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES`.
const SAVE_PENDING_TABLES: u64 = 3;
/// Banks of shared interrupts.
const BANKS: usize = GIC_MAX_SPIS.div_ceil(GIC_BANK);

/// A device of the kernel's.
struct Chip(DeviceFd);

impl Chip {
    fn new(vm: &VmFd, kind: u32, what: &'static str) -> Result<Self, KvmError> {
        let mut device = kvm_create_device {
            type_: kind,
            fd: 0,
            flags: 0,
        };
        vm.create_device(&mut device)
            .map(Chip)
            .map_err(refused(what))
    }

    fn transfer<T>(&self, group: u32, attr: u64, value: &mut T, write: bool) -> io::Result<()> {
        let mut attribute = kvm_device_attr {
            group,
            attr,
            addr: &raw mut *value as u64,
            flags: 0,
        };
        let done = if write {
            self.0.set_device_attr(&attribute)
        } else {
            // SAFETY: the address is that of a live value of the size that the group has.
            unsafe { self.0.get_device_attr(&mut attribute) }
        };
        Ok(done?)
    }

    fn make(&self, what: &'static str, group: u32, attr: u64, value: u64) -> Result<(), KvmError> {
        let mut value = value;
        self.transfer(group, attr, &mut value, true)
            .map_err(|source| KvmError::Refused { what, source })
    }
}

impl Attributes for Chip {
    fn get32(&self, group: u32, attribute: u64) -> io::Result<u32> {
        let mut value = 0u32;
        self.transfer(group, attribute, &mut value, false)?;
        Ok(value)
    }

    fn set32(&self, group: u32, attribute: u64, value: u32) -> io::Result<()> {
        let mut value = value;
        self.transfer(group, attribute, &mut value, true)
    }

    fn get64(&self, group: u32, attribute: u64) -> io::Result<u64> {
        let mut value = 0u64;
        self.transfer(group, attribute, &mut value, false)?;
        Ok(value)
    }

    fn set64(&self, group: u32, attribute: u64, value: u64) -> io::Result<()> {
        let mut value = value;
        self.transfer(group, attribute, &mut value, true)
    }

    fn order(&self, group: u32, attribute: u64) -> io::Result<()> {
        self.set64(group, attribute, 0)
    }
}

/// The controller of a machine.
pub(crate) struct Vgic {
    version: GicVersion,
    chip: Chip,
    its: Option<Chip>,
    affinities: Vec<u64>,
    /// Levels of the inputs as last driven, which the kernel does not tell of version 2.
    levels: [AtomicU32; BANKS],
}

impl Vgic {
    /// A controller at these places; it serves once [`Vgic::complete`] was called.
    pub(crate) fn new(vm: &VmFd, places: &GicPlaces) -> Result<Self, KvmError> {
        let addresses = KVM_DEV_ARM_VGIC_GRP_ADDR;
        let chip = match places.version {
            GicVersion::V2 => {
                let kind = kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2;
                let chip = Chip::new(vm, kind, "a GICv2")?;
                let [distributor, interface] =
                    [KVM_VGIC_V2_ADDR_TYPE_DIST, KVM_VGIC_V2_ADDR_TYPE_CPU].map(u64::from);
                let what = "the place of a GICv2";
                chip.make(what, addresses, distributor, places.distributor)?;
                chip.make(what, addresses, interface, places.interface)?;
                chip
            }
            GicVersion::V3 => {
                let kind = kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3;
                let chip = Chip::new(vm, kind, "a GICv3")?;
                let what = "the place of a GICv3";
                let distributor = KVM_VGIC_V3_ADDR_TYPE_DIST.into();
                chip.make(what, addresses, distributor, places.distributor)?;
                for (n, (base, count)) in (0u64..).zip(&places.redistributors) {
                    let region = (*count as u64) << 52 | base | n;
                    let kind = KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION.into();
                    chip.make("a region of redistributors", addresses, kind, region)?;
                }
                chip
            }
        };
        let interrupts = places.interrupts.into();
        chip.make(
            "the number of interrupts",
            KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
            0,
            interrupts,
        )?;
        let its = match places.its {
            None => None,
            Some(base) => {
                let kind = kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS;
                let its = Chip::new(vm, kind, "a translation service")?;
                let kind = KVM_VGIC_ITS_ADDR_TYPE.into();
                its.make("the place of a translation service", addresses, kind, base)?;
                Some(its)
            }
        };
        Ok(Vgic {
            version: places.version,
            chip,
            its,
            affinities: places.affinities.clone(),
            levels: Default::default(),
        })
    }

    /// All CPUs are there.
    pub(crate) fn complete(&self) -> Result<(), KvmError> {
        let init = KVM_DEV_ARM_VGIC_CTRL_INIT.into();
        self.chip.make("to start its GIC", group::CTRL, init, 0)?;
        match &self.its {
            Some(its) => its.make("to start its translation service", group::CTRL, init, 0),
            None => Ok(()),
        }
    }

    /// The level of a shared interrupt's input, by INTID.
    pub(crate) fn note(&self, intid: u32, level: bool) {
        let Some(n) = intid.checked_sub(GIC_BANK as u32) else {
            return;
        };
        let bit = 1 << (n & 31);
        if let Some(word) = self.levels.get((n >> 5) as usize) {
            if level {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// Copies the kernel's state into the models. With `tables`, what the kernel keeps of messages goes
    /// to guest memory.
    pub(crate) fn read(&self, models: &dyn Models, tables: bool) -> io::Result<()> {
        let mut old = models.gic();
        let state = match self.version {
            GicVersion::V2 => {
                for (bank, level) in old.spis.iter_mut().zip(&self.levels) {
                    bank.lines = level.load(Ordering::Relaxed);
                }
                gic::read_v2(&self.chip, &old)?
            }
            GicVersion::V3 => gic::read_v3(&self.chip, &self.affinities, &old)?,
        };
        if let Some(its) = &self.its {
            let has_messages = state.cpus.iter().any(|cpu| cpu.lpis.enabled);
            models.set_its(gic::read_its(its, tables)?);
            if tables && has_messages {
                self.chip.order(group::CTRL, SAVE_PENDING_TABLES)?;
            }
        }
        models.set_gic(state);
        Ok(())
    }

    /// Copies the models' state into the kernel; `line` drives an input.
    pub(crate) fn write(&self, models: &dyn Models, line: impl Fn(u32, bool)) -> io::Result<()> {
        let state = models.gic();
        match self.version {
            GicVersion::V2 => gic::write_v2(&self.chip, &state)?,
            GicVersion::V3 => gic::write_v3(&self.chip, &self.affinities, &state)?,
        }
        self.drive(&state, line);
        match (&self.its, models.its()) {
            (Some(its), Some(state)) => gic::write_its(its, &state),
            _ => Ok(()),
        }
    }

    /// Makes the inputs of shared interrupts have the levels that the models know.
    fn drive(&self, state: &GicState, line: impl Fn(u32, bool)) {
        for (bank, first) in state.spis.iter().zip((GIC_BANK as u32..).step_by(GIC_BANK)) {
            for n in 0..GIC_BANK as u32 {
                let level = bank.lines >> n & 1 != 0;
                self.note(first + n, level);
                // An edge is not made anew; version 3 was told by its own way.
                if self.version == GicVersion::V2 && bank.edges >> n & 1 == 0 {
                    line(first + n, level);
                }
            }
        }
    }
}
