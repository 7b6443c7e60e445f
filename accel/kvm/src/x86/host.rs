//! What the host's KVM can do.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

use super::Mode;
use crate::KvmError;
use crate::kernel::{open, refused};

/// What is used without alternative.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "user memory regions"),
    (Cap::DestroyMemoryRegionWorks, "removal of memory regions"),
    (Cap::JoinMemoryRegionsWorks, "joined memory regions"),
    (Cap::ReadonlyMem, "read-only memory"),
    (Cap::SetTssAddr, "KVM_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_GET_SUPPORTED_CPUID"),
    (Cap::MpState, "KVM_GET_MP_STATE"),
    (Cap::VcpuEvents, "KVM_GET_VCPU_EVENTS"),
    (Cap::Debugregs, "KVM_GET_DEBUGREGS"),
    (Cap::Xsave, "KVM_GET_XSAVE"),
    (Cap::Xcrs, "KVM_GET_XCRS"),
    (Cap::UserNmi, "KVM_NMI"),
    (Cap::ImmediateExit, "immediate_exit"),
];

const NEEDED_KERNEL: &[(Cap, &str)] = &[
    (Cap::Irqchip, "in-kernel interrupt controllers"),
    (Cap::IrqRouting, "interrupt routing"),
    (Cap::SignalMsi, "KVM_SIGNAL_MSI"),
];

const NEEDED_SPLIT: &[(Cap, &str)] = &[
    (Cap::SplitIrqchip, "the split interrupt controller"),
    (Cap::IrqRouting, "interrupt routing"),
    (Cap::SignalMsi, "KVM_SIGNAL_MSI"),
];

/// The host's KVM, found to have what machines need.
pub struct Host {
    pub(crate) kvm: Kvm,
    pub(crate) cpuid: CpuId,
    pub(crate) mode: Mode,
}

impl Host {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// Why it cannot be used for machines with interrupt controllers as `mode` says.
    pub fn open(mode: Mode) -> Result<Self, KvmError> {
        let kvm = open()?;
        let more = match mode {
            Mode::User => &[],
            Mode::Split => NEEDED_SPLIT,
            Mode::Kernel => NEEDED_KERNEL,
        };
        for (cap, name) in NEEDED.iter().chain(more) {
            if !kvm.check_extension(*cap) {
                return Err(KvmError::Lacks(name));
            }
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(refused("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(Host { kvm, cpuid, mode })
    }

    /// Most vCPUs that a machine may have.
    pub fn max_cpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }
}
