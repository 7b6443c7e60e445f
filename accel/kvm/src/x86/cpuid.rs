//! CPUID: what the host offers, and the table for each vCPU.

use std::arch::x86_64::__cpuid;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::Cap;
use target_x86::system::cpuid::View;
use target_x86::system::feature::{self, Features, Word};

use super::{Host, Mode};

/// KVM's own leaves: signature and features.
const PARAVIRTUAL: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4000_0001;
/// Paravirtual features that need a local APIC in the kernel: PV EOI, PV unhalt, asynchronous page
/// faults as interrupts, PV IPIs, extended destination ids.
const NEEDS_KERNEL_LAPIC: u32 = 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15;
/// Processor extended states.
const XSTATE: u32 = 0xd;
/// XSAVE's legacy area and header.
const XSAVE_LEGACY: u32 = 0x240;

/// Who the host's processor says it is: what the models `host` and `max` show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Vendor string.
    pub vendor: String,
    /// Family, extended family added.
    pub family: u32,
    /// Model, extended model included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Brand string.
    pub model_id: String,
    /// Highest basic leaf.
    pub level: u32,
    /// Highest extended leaf.
    pub xlevel: u32,
    /// Width of physical addresses.
    pub phys_bits: u32,
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_matches(['\0', ' ']).to_owned()
}

impl Host {
    fn leaf(&self, function: u32, index: u32) -> [u32; 4] {
        let found = self
            .cpuid
            .as_slice()
            .iter()
            .find(|e| e.function == function && e.index == index);
        found.map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
    }

    /// The features that a guest can have.
    pub fn features(&self) -> Features {
        let mut features = Features::default();
        for (word, slot) in Word::ALL.into_iter().zip(&mut features.0) {
            let (function, index, register) = match word {
                Word::Leaf1Edx => (1, 0, 3),
                Word::Leaf1Ecx => (1, 0, 2),
                Word::Leaf7Ebx => (7, 0, 1),
                Word::Leaf7Ecx => (7, 0, 2),
                Word::Leaf7Edx => (7, 0, 3),
                Word::Ext1Edx => (0x8000_0001, 0, 3),
                Word::Ext1Ecx => (0x8000_0001, 0, 2),
                Word::Ext7Edx => (0x8000_0007, 0, 3),
                Word::Ext8Ebx => (0x8000_0008, 0, 1),
                Word::LeafD1Eax => (XSTATE, 1, 0),
                Word::Leaf6Eax => (6, 0, 0),
            };
            *slot = self.leaf(function, index)[register];
        }
        features.set(feature::HYPERVISOR, true);
        // Always running: the kernel emulates the timer.
        if let Some(arat) = feature::find("arat") {
            features.set(arat, true);
        }
        // Both are the in-kernel local APIC's, whatever the table says.
        let in_kernel = self.mode != Mode::User;
        let deadline = in_kernel && self.kvm.check_extension(Cap::TscDeadlineTimer);
        features.set(feature::TSC_DEADLINE, deadline);
        if !in_kernel {
            features.set(feature::X2APIC, false);
        }
        // There is no system management mode and no nested virtualisation in saved state.
        for name in ["vmx", "svm"] {
            if let Some(feature) = feature::find(name) {
                features.set(feature, false);
            }
        }
        features
    }

    /// Who the host's processor says it is.
    pub fn identity(&self) -> Identity {
        let [level, b, c, d] = registers(0);
        let [eax, ..] = registers(1);
        let (base, extended) = (eax >> 8 & 15, eax >> 20 & 0xff);
        let brand: Vec<u32> = (0x8000_0002..=0x8000_0004).flat_map(registers).collect();
        let [xlevel, ..] = registers(0x8000_0000);
        let [widths, ..] = registers(0x8000_0008);
        Identity {
            vendor: text(&[b, d, c]),
            family: if base == 15 { base + extended } else { base },
            model: eax >> 4 & 15 | (eax >> 16 & 15) << 4,
            stepping: eax & 15,
            model_id: text(&brand),
            // Above are leaves of their own that no guest needs.
            level: level.min(0x16),
            xlevel: xlevel.min(0x8000_0008),
            phys_bits: (widths & 0xff).clamp(32, 52),
        }
    }

    /// The table of one vCPU. `paravirtual` shows KVM's own leaves.
    pub(crate) fn table(&self, view: &View<'_>, paravirtual: bool) -> Result<CpuId, String> {
        let mut entries = Vec::new();
        let mut add = |function: u32, index: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]| {
            entries.push(kvm_cpuid_entry2 {
                function,
                index: index.unwrap_or(0),
                flags: if index.is_some() {
                    KVM_CPUID_FLAG_SIGNIFCANT_INDEX
                } else {
                    0
                },
                eax,
                ebx,
                ecx,
                edx,
                ..kvm_cpuid_entry2::default()
            });
        };
        for leaf in 0..=view.model.level.min(0x20) {
            match leaf {
                4 => (0..4).for_each(|n| add(leaf, Some(n), view.leaf(leaf, n))),
                7 => add(leaf, Some(0), view.leaf(leaf, 0)),
                0xb => (0..3).for_each(|n| add(leaf, Some(n), view.leaf(leaf, n))),
                XSTATE => {
                    for (n, registers) in self.xstate(view) {
                        add(leaf, Some(n), registers);
                    }
                }
                _ => add(leaf, None, view.leaf(leaf, 0)),
            }
        }
        for leaf in 0x8000_0000..=view.model.xlevel.min(0x8000_0020) {
            add(leaf, None, view.leaf(leaf, 0));
        }
        if paravirtual && view.model.has(feature::HYPERVISOR) {
            for leaf in PARAVIRTUAL {
                let mut registers = self.leaf(leaf, 0);
                if leaf == *PARAVIRTUAL.end() && self.mode != Mode::Kernel {
                    registers[0] &= !NEEDS_KERNEL_LAPIC;
                }
                add(leaf, None, registers);
            }
        }
        CpuId::from_entries(&entries).map_err(|e| format!("too many CPUID leaves: {e:?}"))
    }

    /// Leaf 0xd: the host's components that the model has features for.
    fn xstate(&self, view: &View<'_>) -> Vec<(u32, [u32; 4])> {
        if !view.model.has(feature::XSAVE) {
            return vec![(0, [0; 4])];
        }
        let has = |name| feature::find(name).is_some_and(|f| view.model.has(f));
        let mut mask = 3u32;
        for (name, bits) in [("avx", 1 << 2), ("avx512f", 7 << 5), ("pku", 1 << 9)] {
            if has(name) {
                mask |= bits;
            }
        }
        let [components, ..] = self.leaf(XSTATE, 0);
        let mask = mask & (components | 3);
        let mut size = XSAVE_LEGACY;
        let mut list = Vec::new();
        for n in (2..32).filter(|n| mask >> n & 1 != 0) {
            let registers = self.leaf(XSTATE, n);
            size = size.max(registers[0] + registers[1]);
            list.push((n, registers));
        }
        let mut all = vec![
            (0, [mask, XSAVE_LEGACY, size, 0]),
            (1, [view.leaf(XSTATE, 1)[0], 0, 0, 0]),
        ];
        all.append(&mut list);
        all
    }
}

fn registers(leaf: u32) -> [u32; 4] {
    #[allow(unused_unsafe)]
    // SAFETY: every x86_64 processor has CPUID.
    let r = unsafe { __cpuid(leaf) };
    [r.eax, r.ebx, r.ecx, r.edx]
}
