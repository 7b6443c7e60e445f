//! Entering guest code: what only Arm has.

use kvm_bindings::KVM_EXIT_ARM_NISV;

use super::registers::{self, Registers};
use super::run::Undescribed;
use super::vcpu::Numbered;
use crate::exit::Exit;
use crate::kernel::door::{Door, Real};

/// A vCPU of the host's.
pub(crate) struct RealEntry(pub(crate) Door);

impl Real for RealEntry {
    type Own = Undescribed;

    fn door(&mut self) -> &mut Door {
        &mut self.0
    }

    fn place(&self) -> String {
        let get = |id| Numbered(&self.0.fd).get(id).unwrap_or(0);
        format!(
            "pc {:#x}, pstate {:#x}",
            get(registers::PC),
            get(registers::PSTATE)
        )
    }

    fn own(&mut self) -> Option<Exit<Undescribed>> {
        let run = self.0.fd.get_kvm_run();
        if run.exit_reason != KVM_EXIT_ARM_NISV {
            return None;
        }
        // SAFETY: the exit reason says that this member is the one in use.
        let address = unsafe { run.__bindgen_anon_1.arm_nisv }.fault_ipa;
        let place = self.place();
        Some(Exit::Own(Undescribed { address, place }))
    }
}
