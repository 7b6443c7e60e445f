//! Which MSRs are saved, and moving them.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

/// MSRs with a field of their own in the saved state, or in the local APIC's.
const ELSEWHERE: &[u32] = &[
    0x10,        // TSC
    0x1b,        // APIC base
    0x6e0,       // TSC deadline
    0xc000_0080, // EFER
    0xc000_0100, // FS base
    0xc000_0101, // GS base
];

/// MSRs that say what the processor is: nothing of the guest's.
const FACTS: &[u32] = &[0xfe, 0x10a, 0x345, 0x179, 0x480, 0x48f, 0x8b, 0xce];

/// Most MSRs of one call.
const AT_ONCE: usize = 128;

/// What the kernel and the common list name, each once.
pub(crate) fn candidates(kvm: &Kvm, common: impl Iterator<Item = u32>) -> Vec<u32> {
    let host = kvm.get_msr_index_list();
    let host = host.iter().flat_map(|list| list.as_slice().iter().copied());
    let mut list: Vec<u32> = common
        .chain(host)
        .filter(|n| !ELSEWHERE.contains(n) && !FACTS.contains(n) && !(0x480..=0x493).contains(n))
        .collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// Reads MSRs; those that the host refuses are left out of the answer.
pub(crate) fn read(fd: &VcpuFd, wanted: &[u32]) -> Vec<(u32, u64)> {
    let mut values = Vec::new();
    let mut rest = wanted;
    while !rest.is_empty() {
        let part = rest.get(..AT_ONCE).unwrap_or(rest);
        let entries: Vec<kvm_msr_entry> = part
            .iter()
            .map(|n| kvm_msr_entry {
                index: *n,
                ..kvm_msr_entry::default()
            })
            .collect();
        let Ok(mut list) = Msrs::from_entries(&entries) else {
            break;
        };
        // The kernel stops at the first that it refuses, and says how many it took.
        let taken = fd.get_msrs(&mut list).unwrap_or(0).min(part.len());
        let done = list.as_slice().iter().take(taken);
        values.extend(done.map(|entry| (entry.index, entry.data)));
        let gone = taken + usize::from(taken < part.len());
        rest = rest.get(gone..).unwrap_or_default();
    }
    values
}

/// Writes MSRs. Answers those that the host refuses.
pub(crate) fn write(fd: &VcpuFd, values: &[(u32, u64)]) -> Vec<u32> {
    let mut refused = Vec::new();
    let mut rest = values;
    while !rest.is_empty() {
        let part = rest.get(..AT_ONCE).unwrap_or(rest);
        let entries: Vec<kvm_msr_entry> = part
            .iter()
            .map(|(n, value)| kvm_msr_entry {
                index: *n,
                data: *value,
                ..kvm_msr_entry::default()
            })
            .collect();
        let Ok(list) = Msrs::from_entries(&entries) else {
            break;
        };
        let taken = fd.set_msrs(&list).unwrap_or(0).min(part.len());
        if let Some((n, _)) = part.get(taken) {
            refused.push(*n);
        }
        let gone = taken + usize::from(taken < part.len());
        rest = rest.get(gone..).unwrap_or_default();
    }
    refused
}

/// Names of MSRs for one log line.
pub(crate) fn names(list: &[u32]) -> String {
    let names: Vec<String> = list.iter().map(|n| format!("{n:#x}")).collect();
    names.join(" ")
}
