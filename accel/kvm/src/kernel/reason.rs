//! Why guest code may be left, in words: exits that are not answered end the machine by their name.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst, "The kvm_run structure".

/// What becomes of an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// `RealEntry::decode` answers it.
    Answered,
    /// It comes only after something was switched on that is never switched on here.
    NotAskedFor,
    /// It belongs to guests of another architecture.
    Foreign,
    /// The kernel itself is at a loss.
    Lost,
}

use Fate::{Answered, Foreign, Lost, NotAskedFor};

/// `KVM_EXIT_*` in the order of their numbers.
const REASONS: &[(&str, Fate)] = &[
    ("UNKNOWN", Lost),
    ("EXCEPTION", Lost),
    ("IO", Answered),
    ("HYPERCALL", NotAskedFor),
    ("DEBUG", Answered),
    ("HLT", Answered),
    ("MMIO", Answered),
    ("IRQ_WINDOW_OPEN", Answered),
    ("SHUTDOWN", Answered),
    ("FAIL_ENTRY", Answered),
    ("INTR", Answered),
    ("SET_TPR", Answered),
    ("TPR_ACCESS", Answered),
    ("S390_SIEIC", Foreign),
    ("S390_RESET", Foreign),
    ("DCR", Foreign),
    ("NMI", Answered),
    ("INTERNAL_ERROR", Answered),
    ("OSI", Foreign),
    ("PAPR_HCALL", Foreign),
    ("S390_UCONTROL", Foreign),
    ("WATCHDOG", Foreign),
    ("S390_TSCH", Foreign),
    ("EPR", Foreign),
    ("SYSTEM_EVENT", Answered),
    ("S390_STSI", Foreign),
    ("IOAPIC_EOI", Answered),
    ("HYPERV", NotAskedFor),
    ("ARM_NISV", Foreign),
    ("X86_RDMSR", Answered),
    ("X86_WRMSR", Answered),
    ("DIRTY_RING_FULL", NotAskedFor),
    ("AP_RESET_HOLD", NotAskedFor),
    ("X86_BUS_LOCK", NotAskedFor),
    ("XEN", NotAskedFor),
    ("RISCV_SBI", Foreign),
    ("RISCV_CSR", Foreign),
    ("NOTIFY", NotAskedFor),
    ("LOONGARCH_IOCSR", Foreign),
    ("MEMORY_FAULT", Answered),
    ("TDX", NotAskedFor),
    ("ARM_SEA", Foreign),
    ("ARM_LDST64B", Foreign),
];

/// A sentence for an exit that nothing answers.
pub(crate) fn sentence(number: u32) -> String {
    let known = usize::try_from(number).ok().and_then(|n| REASONS.get(n));
    let Some((name, fate)) = known else {
        return format!("KVM left the guest for reason {number}, which this version does not know");
    };
    let why = match fate {
        Answered => "which has no answer at this place",
        NotAskedFor => "which was never switched on",
        Foreign => "which belongs to guests of another architecture",
        Lost => "which it does not explain further",
    };
    format!("KVM left the guest with KVM_EXIT_{name}, {why}")
}

#[cfg(test)]
mod tests {
    use kvm_bindings::*;

    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        for (number, name) in [
            (KVM_EXIT_UNKNOWN, "UNKNOWN"),
            (KVM_EXIT_IO, "IO"),
            (KVM_EXIT_INTERNAL_ERROR, "INTERNAL_ERROR"),
            (KVM_EXIT_SYSTEM_EVENT, "SYSTEM_EVENT"),
            (KVM_EXIT_IOAPIC_EOI, "IOAPIC_EOI"),
            (KVM_EXIT_X86_WRMSR, "X86_WRMSR"),
            (KVM_EXIT_NOTIFY, "NOTIFY"),
            (KVM_EXIT_MEMORY_FAULT, "MEMORY_FAULT"),
        ] {
            assert_eq!(REASONS[number as usize].0, name);
        }
    }

    #[test]
    fn an_exit_without_answer_is_named() {
        assert_eq!(
            sentence(KVM_EXIT_XEN),
            "KVM left the guest with KVM_EXIT_XEN, which was never switched on"
        );
        assert!(sentence(KVM_EXIT_OSI).contains("another architecture"));
        assert!(sentence(12345).contains("12345"));
    }
}
