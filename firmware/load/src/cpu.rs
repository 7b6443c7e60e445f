//! Registers at the first instruction.

use crate::bytes::put;

/// A segment register with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Bits 40 to 55 of the descriptor, without the limit's: type, S, DPL and P in bits 0 to 7,
    /// AVL, L, D/B and G in bits 12 to 15.
    pub attributes: u16,
}

impl Segment {
    /// Flat 32-bit code, accessed.
    pub fn code32(selector: u16) -> Self {
        Segment {
            selector,
            base: 0,
            limit: u32::MAX,
            attributes: 0xc09b,
        }
    }

    /// Flat 64-bit code, accessed.
    pub fn code64(selector: u16) -> Self {
        Segment {
            attributes: 0xa09b,
            ..Segment::code32(selector)
        }
    }

    /// Flat read/write data, accessed.
    pub fn data(selector: u16) -> Self {
        Segment {
            attributes: 0xc093,
            ..Segment::code32(selector)
        }
    }

    /// The busy task register that x86 insists on in protected mode.
    pub fn task() -> Self {
        Segment {
            selector: 0,
            base: 0,
            limit: 0x67,
            attributes: 0x008b,
        }
    }

    /// The 8-byte descriptor.
    pub fn descriptor(&self) -> u64 {
        let page_granular = self.attributes & 0x8000 != 0;
        let limit = u64::from(if page_granular {
            self.limit >> 12
        } else {
            self.limit
        });
        let base = self.base;
        (limit & 0xffff)
            | (base & 0xff_ffff) << 16
            | u64::from(self.attributes & 0xf0ff) << 40
            | (limit >> 16 & 0xf) << 48
            | (base >> 24 & 0xff) << 56
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DescriptorTable {
    /// Base address.
    pub base: u64,
    /// Limit: size less one.
    pub limit: u16,
}

/// The registers a boot protocol defines; all others are as after reset, or zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuStart {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Accumulator (multiboot magic).
    pub rax: u64,
    /// Information structure of PVH and multiboot.
    pub rbx: u64,
    /// Zero page of Linux.
    pub rsi: u64,
    /// Flags: interrupts off.
    pub rflags: u64,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// CS.
    pub cs: Segment,
    /// DS, ES, FS, GS and SS alike.
    pub data: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdt: DescriptorTable,
    /// IDTR.
    pub idt: DescriptorTable,
}

/// CR0.PE and the fixed CR0.ET.
const CR0_PE: u64 = 0x11;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
/// LME and LMA.
const EFER_LONG: u64 = 0x500;

impl CpuStart {
    /// Flat 32-bit protected mode, paging off. `cs` and `ds` are the selectors' values.
    pub fn protected(rip: u64, cs: u16, ds: u16) -> Self {
        CpuStart {
            rip,
            rsp: 0,
            rax: 0,
            rbx: 0,
            rsi: 0,
            rflags: 2,
            cr0: CR0_PE,
            cr3: 0,
            cr4: 0,
            efer: 0,
            cs: Segment::code32(cs),
            data: Segment::data(ds),
            tr: Segment::task(),
            gdt: DescriptorTable::default(),
            idt: DescriptorTable::default(),
        }
    }

    /// Long mode on page tables at `cr3`.
    pub fn long(rip: u64, cr3: u64, cs: u16, ds: u16) -> Self {
        CpuStart {
            cr0: CR0_PE | CR0_PG,
            cr3,
            cr4: CR4_PAE,
            efer: EFER_LONG,
            cs: Segment::code64(cs),
            ..CpuStart::protected(rip, cs, ds)
        }
    }

    /// The descriptor table that holds `cs` and `data` at their selectors, and GDTR pointing at it.
    pub fn place_gdt(&mut self, address: u64) -> Vec<u8> {
        let last = self.cs.selector.max(self.data.selector) | 7;
        let mut table = vec![0; usize::from(last).saturating_add(1)];
        for segment in [self.cs, self.data] {
            let at = usize::from(segment.selector & !7);
            put(&mut table, at, &segment.descriptor().to_le_bytes());
        }
        self.gdt = DescriptorTable {
            base: address,
            limit: last,
        };
        table
    }
}

/// Page tables that map the first 4 GiB to themselves by 2 MiB pages: six pages, to be put at
/// `base` (Intel SDM vol. 3, section 4.5).
pub(crate) fn identity_tables(base: u64) -> Vec<u8> {
    /// Present and writable.
    const TABLE: u64 = 3;
    /// Present, writable, a 2 MiB page.
    const PAGE: u64 = 0x83;
    let page = |n: u64| base.wrapping_add(n.wrapping_mul(0x1000));
    let mut out = vec![0; 0x6000];
    put(&mut out, 0, &(page(1) | TABLE).to_le_bytes());
    for n in 0..4u64 {
        let at = 0x1000usize.wrapping_add((n as usize).wrapping_mul(8));
        put(
            &mut out,
            at,
            &(page(n.wrapping_add(2)) | TABLE).to_le_bytes(),
        );
    }
    for n in 0..2048u64 {
        let at = 0x2000usize.wrapping_add((n as usize).wrapping_mul(8));
        put(&mut out, at, &(n << 21 | PAGE).to_le_bytes());
    }
    out
}
