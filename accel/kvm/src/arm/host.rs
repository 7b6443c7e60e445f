//! What the host's KVM can do.

use std::arch::asm;
use std::os::fd::AsRawFd;

use hw_intc::GicVersion;
use kvm_bindings::*;
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use target_arm::{CpuModel, HostOptions, IdRegisters, SysReg};

use super::registers::{Registers, id_of};
use super::vcpu::Numbered;
use crate::KvmError;
use crate::kernel::{open, refused};

/// What is used without alternative.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "user memory regions"),
    (Cap::DestroyMemoryRegionWorks, "removal of memory regions"),
    (Cap::ReadonlyMem, "read-only memory"),
    (Cap::OneReg, "KVM_GET_ONE_REG"),
    (Cap::MpState, "KVM_GET_MP_STATE"),
    (Cap::Irqchip, "in-kernel interrupt controllers"),
    (Cap::DeviceCtrl, "KVM_CREATE_DEVICE"),
    (Cap::ArmPsci02, "PSCI 0.2"),
    (Cap::SignalMsi, "KVM_SIGNAL_MSI"),
    (Cap::ImmediateExit, "immediate_exit"),
];
/// Widths of guests' physical addresses: without the capability, and the largest that boards know.
const OLD_IPA_BITS: u32 = 40;
const MOST_IPA_BITS: u32 = 48;

/// The host's KVM, found to have what machines need.
pub struct Host {
    pub(crate) kvm: Kvm,
    pub(crate) init: kvm_vcpu_init,
    model: CpuModel,
    has_v2: bool,
    has_v3: bool,
    has_its: bool,
}

/// Ticks of the counter in a second.
fn counter_hz() -> u64 {
    let hz: u64;
    // SAFETY: Linux lets programs read this register, which changes nothing.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) hz, options(nomem, nostack, preserves_flags)) };
    hz
}

/// `_IOWR(KVMIO, 0xe0, struct kvm_create_device)`.
const KVM_CREATE_DEVICE: libc::c_ulong = 0xc00c_aee0;

fn has_device(vm: &VmFd, kind: u32) -> bool {
    let mut device = kvm_create_device {
        type_: kind,
        fd: 0,
        // Nothing is made, so that there is no descriptor.
        flags: KVM_CREATE_DEVICE_TEST,
    };
    // SAFETY: the descriptor is a machine's and the structure lives through the call.
    unsafe { libc::ioctl(vm.as_raw_fd(), KVM_CREATE_DEVICE, &mut device) == 0 }
}

fn set_feature(init: &mut kvm_vcpu_init, feature: u32, on: bool) {
    let bit = 1 << feature;
    init.features[0] = init.features[0] & !bit | if on { bit } else { 0 };
}

impl Host {
    /// Opens `/dev/kvm`; CPUs will have what `options` leave of the host's.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(options: HostOptions) -> Result<Self, KvmError> {
        let kvm = open()?;
        for (cap, name) in NEEDED {
            if !kvm.check_extension(*cap) {
                return Err(KvmError::Lacks(name));
            }
        }
        // A machine that is thrown away tells what there is.
        let vm = kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
        let mut init = kvm_vcpu_init::default();
        vm.get_preferred_target(&mut init)
            .map_err(refused("KVM_ARM_PREFERRED_TARGET"))?;
        let has_pauth =
            [Cap::ArmPtrAuthAddress, Cap::ArmPtrAuthGeneric].map(|cap| kvm.check_extension(cap));
        let pauth = options.pauth && has_pauth == [true; 2];
        set_feature(&mut init, KVM_ARM_VCPU_PSCI_0_2, true);
        set_feature(&mut init, KVM_ARM_VCPU_PTRAUTH_ADDRESS, pauth);
        set_feature(&mut init, KVM_ARM_VCPU_PTRAUTH_GENERIC, pauth);
        let pmu = options.pmu && kvm.check_extension(Cap::ArmPmuV3);
        set_feature(&mut init, KVM_ARM_VCPU_PMU_V3, pmu);
        let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        vcpu.vcpu_init(&init)
            .map_err(refused("KVM_ARM_VCPU_INIT"))?;
        Ok(Host {
            has_v2: has_device(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2),
            has_v3: has_device(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3),
            has_its: has_device(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS),
            model: model(&vcpu),
            kvm,
            init,
        })
    }

    /// What the CPUs are.
    pub fn model(&self) -> &CpuModel {
        &self.model
    }

    /// Whether the kernel has an interrupt controller of a version.
    pub fn has_gic(&self, version: GicVersion) -> bool {
        match version {
            GicVersion::V2 => self.has_v2,
            GicVersion::V3 => self.has_v3,
        }
    }

    /// Whether the kernel has a translation service.
    pub fn has_its(&self) -> bool {
        self.has_its
    }

    /// Width of guests' physical addresses.
    pub fn physical_bits(&self) -> u32 {
        match u32::try_from(self.kvm.get_host_ipa_limit()) {
            Ok(bits) if bits >= 32 => bits.min(MOST_IPA_BITS),
            _ => OLD_IPA_BITS,
        }
    }

    /// What `KVM_CREATE_VM` is to make: 0 has 40 bits.
    pub(crate) fn vm_type(&self) -> u64 {
        match self.physical_bits() {
            OLD_IPA_BITS => 0,
            bits => bits.into(),
        }
    }

    /// Whether CPUs have performance monitors.
    pub fn has_pmu(&self) -> bool {
        self.init.features[0] & 1 << KVM_ARM_VCPU_PMU_V3 != 0
    }

    /// Most vCPUs that a machine may have.
    pub fn max_cpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }
}

fn model(vcpu: &VcpuFd) -> CpuModel {
    let vcpu = Numbered(vcpu);
    let read = |reg: SysReg| vcpu.get(id_of(reg)).ok().map(|value| value as u64);
    CpuModel::host(IdRegisters::of(read), counter_hz())
}
