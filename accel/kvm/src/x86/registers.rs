//! General, segment and table registers, to and from the kernel's structures.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst, KVM_GET_REGS and KVM_GET_SREGS.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment};
use target_x86::{Segment, Table};

/// General registers in encoding order, RIP and RFLAGS for the kernel.
pub fn general_to(gprs: &[u64; 16], rip: u64, rflags: u64) -> kvm_regs {
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = *gprs;
    kvm_regs {
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    }
}

/// The kernel's general registers in encoding order.
pub fn general_of(r: &kvm_regs) -> [u64; 16] {
    [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15,
    ]
}

/// A segment register for the kernel.
pub fn segment_to(s: &Segment) -> kvm_segment {
    let bit = |n: u16| (s.attributes >> n & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: s.kind(),
        present: bit(7),
        dpl: s.dpl(),
        db: bit(14),
        s: bit(4),
        l: bit(13),
        g: bit(15),
        avl: bit(12),
        unusable: u8::from(!s.is_present()),
        padding: 0,
    }
}

/// A segment register of the kernel's.
pub fn segment_of(s: &kvm_segment) -> Segment {
    let bit = |value: u8, n: u16| u16::from(value & 1) << n;
    let present = s.present & u8::from(s.unusable == 0);
    Segment {
        selector: s.selector,
        base: s.base,
        limit: s.limit,
        attributes: u16::from(s.type_ & 15)
            | bit(s.s, 4)
            | u16::from(s.dpl & 3) << 5
            | bit(present, 7)
            | bit(s.avl, 12)
            | bit(s.l, 13)
            | bit(s.db, 14)
            | bit(s.g, 15),
    }
}

/// A table register for the kernel.
pub fn table_to(t: &Table) -> kvm_dtable {
    kvm_dtable {
        base: t.base,
        limit: t.limit,
        padding: [0; 3],
    }
}

/// A table register of the kernel's.
pub fn table_of(t: &kvm_dtable) -> Table {
    Table {
        base: t.base,
        limit: t.limit,
    }
}
