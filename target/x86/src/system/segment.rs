//! Segmentation (SDM vol. 3, chapters 3.4 and 5): descriptors, loads of segment registers, LDTR, TR.

use accel_core::Trap;

use super::stack::{load_entry, set_bits};
use super::{gp, mode_changed, np, raise};
use crate::state::{Segment, SegmentIndex, vector};
use crate::{Core, Table, regs};

/// A segment or gate descriptor of 8 bytes (SDM vol. 3, 3.4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptor(pub(crate) u64);

impl Descriptor {
    pub(crate) fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 56 << 24
    }

    pub(crate) fn limit(self) -> u32 {
        let raw = (self.0 & 0xffff | self.0 >> 32 & 0xf_0000) as u32;
        if self.0 >> 55 & 1 != 0 {
            raw << 12 | 0xfff
        } else {
            raw
        }
    }

    pub(crate) fn attributes(self) -> u16 {
        (self.0 >> 40) as u16 & 0xf0ff
    }

    /// Type field.
    pub(crate) fn kind(self) -> u8 {
        (self.0 >> 40) as u8 & 15
    }

    /// Code or data.
    pub(crate) fn is_user(self) -> bool {
        self.0 >> 44 & 1 != 0
    }

    pub(crate) fn is_code(self) -> bool {
        self.is_user() && self.kind() & 8 != 0
    }

    pub(crate) fn is_conforming(self) -> bool {
        self.kind() & 4 != 0
    }

    /// Readable code or any data.
    pub(crate) fn is_readable(self) -> bool {
        self.is_user() && self.kind() & 10 != 8
    }

    pub(crate) fn is_writable(self) -> bool {
        self.is_user() && self.kind() & 10 == 2
    }

    pub(crate) fn dpl(self) -> u8 {
        (self.0 >> 45) as u8 & 3
    }

    pub(crate) fn is_present(self) -> bool {
        self.0 >> 47 & 1 != 0
    }

    pub(crate) fn is_64(self) -> bool {
        self.0 >> 53 & 1 != 0
    }

    pub(crate) fn is_32(self) -> bool {
        self.0 >> 54 & 1 != 0
    }

    /// A gate's selector.
    pub(crate) fn gate_selector(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// A gate's offset, its low 32 bits.
    pub(crate) fn gate_offset(self) -> u64 {
        self.0 & 0xffff | self.0 >> 48 << 16
    }

    /// The segment register's hidden part after loading this.
    pub(crate) fn segment(self, selector: u16) -> Segment {
        Segment {
            selector,
            base: self.base(),
            limit: self.limit(),
            attributes: self.attributes(),
        }
    }
}

/// Types of system descriptors (SDM vol. 3, table 3-2).
pub(crate) mod kind {
    pub(crate) const TSS_16: u8 = 1;
    pub(crate) const LDT: u8 = 2;
    pub(crate) const TSS_16_BUSY: u8 = 3;
    pub(crate) const CALL_16: u8 = 4;
    pub(crate) const TASK: u8 = 5;
    pub(crate) const INTERRUPT_16: u8 = 6;
    pub(crate) const TRAP_16: u8 = 7;
    pub(crate) const TSS: u8 = 9;
    pub(crate) const TSS_BUSY: u8 = 11;
    pub(crate) const CALL: u8 = 12;
    pub(crate) const INTERRUPT: u8 = 14;
    pub(crate) const TRAP: u8 = 15;
}

/// Whether a selector is null: index and table zero.
pub(crate) fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

/// A selector in an error code.
pub(crate) fn error_of(selector: u16) -> u32 {
    u32::from(selector & 0xfffc)
}

/// The table a selector points into.
fn table_of(core: &Core, selector: u16) -> Table {
    if selector & 4 == 0 {
        return core.arch.gdtr;
    }
    let ldtr = core.arch.ldtr;
    // An LDTR that is null has no entry at all: a limit of 0 never holds one.
    Table {
        base: ldtr.base,
        limit: if ldtr.is_present() {
            ldtr.limit.min(0xffff) as u16
        } else {
            0
        },
    }
}

/// Linear address of a selector's descriptor.
fn address_of(core: &Core, selector: u16) -> u64 {
    let table = table_of(core, selector);
    table.base.wrapping_add(u64::from(selector & 0xfff8))
}

/// Reads a descriptor. `None`: null, or beyond the table.
pub(crate) fn find(core: &mut Core, selector: u16) -> Result<Option<Descriptor>, Trap> {
    if is_null(selector) {
        return Ok(None);
    }
    let table = table_of(core, selector);
    let entry = load_entry(core, table, u64::from(selector & 0xfff8), 8)?;
    Ok(entry.map(|(low, _)| Descriptor(low)))
}

/// Reads a descriptor of 16 bytes: the low half, and the base's or offset's upper 32 bits.
pub(crate) fn find_long(core: &mut Core, selector: u16) -> Result<Option<(Descriptor, u64)>, Trap> {
    if is_null(selector) {
        return Ok(None);
    }
    let table = table_of(core, selector);
    let entry = load_entry(core, table, u64::from(selector & 0xfff8), 16)?;
    Ok(entry.map(|(low, high)| (Descriptor(low), high)))
}

/// As [`find`], with #GP(selector | `ext`) instead of `None`.
pub(crate) fn need(core: &mut Core, selector: u16, ext: u32) -> Result<Descriptor, Trap> {
    match find(core, selector)? {
        Some(descriptor) => Ok(descriptor),
        None => Err(gp(core, error_of(selector) | ext)),
    }
}

/// Sets the accessed bit in the table, and in the copy.
pub(crate) fn set_accessed(
    core: &mut Core,
    selector: u16,
    descriptor: Descriptor,
) -> Result<Descriptor, Trap> {
    if descriptor.kind() & 1 == 0 {
        let at = address_of(core, selector).wrapping_add(5);
        set_bits(core, at, 1, 0)?;
    }
    Ok(Descriptor(descriptor.0 | 1 << 40))
}

/// Sets or clears the busy bit of a TSS descriptor.
pub(crate) fn set_busy(core: &mut Core, selector: u16, busy: bool) -> Result<(), Trap> {
    let at = address_of(core, selector).wrapping_add(5);
    let (set, clear) = if busy { (2, 0) } else { (0, 2) };
    set_bits(core, at, set, clear)
}

/// Puts a segment into a register. The caller recomputes the mode.
pub(crate) fn set(core: &mut Core, n: SegmentIndex, segment: Segment) {
    let n = n as usize;
    if let Some(slot) = core.arch.segments.get_mut(n) {
        *slot = segment;
    }
    core.regs.set(regs::base(n), segment.base);
}

/// The register of an encoding's number.
pub(crate) fn register(n: u64) -> Option<SegmentIndex> {
    use SegmentIndex::*;
    [Es, Cs, Ss, Ds, Fs, Gs].get(n as usize).copied()
}

/// Loads a segment register in real-address mode: limit and size stay ("big real mode").
pub(crate) fn set_real(core: &mut Core, n: SegmentIndex, selector: u16) {
    let old = core.arch.segment(n as usize);
    let (limit, attributes) = if old.is_present() {
        (old.limit, old.attributes & 0xf000)
    } else {
        (0xffff, 0)
    };
    let segment = Segment {
        selector,
        base: u64::from(selector) << 4,
        limit,
        // Present, writable, accessed.
        attributes: attributes | 0x93,
    };
    set(core, n, segment);
}

/// Loads a segment register in virtual-8086 mode.
pub(crate) fn set_vm86(core: &mut Core, n: SegmentIndex, selector: u16) {
    let segment = Segment {
        selector,
        base: u64::from(selector) << 4,
        limit: 0xffff,
        attributes: 0xf3,
    };
    set(core, n, segment);
}

/// CS after a far transfer: base and limit of 64-bit code mean nothing.
pub(crate) fn set_cs(core: &mut Core, selector: u16, descriptor: Descriptor, cpl: u8) {
    let mut segment = descriptor.segment(selector & 0xfffc | u16::from(cpl));
    if core.arch.is_long() && descriptor.is_64() {
        segment.base = 0;
        segment.limit = 0xffff_ffff;
    }
    set(core, SegmentIndex::Cs, segment);
    core.arch.cpl = cpl;
}

/// A null selector in SS: of 64-bit mode's inner stacks.
pub(crate) fn null_ss(selector: u16, cpl: u8) -> Segment {
    Segment {
        selector,
        attributes: u16::from(cpl) << 5 | Segment::DB,
        ..Segment::default()
    }
}

/// Checks a selector for SS at privilege `cpl` (SDM vol. 2, MOV): the segment, accessed. Null is the
/// caller's business.
pub(crate) fn check_ss(
    core: &mut Core,
    selector: u16,
    cpl: u8,
    bad: u8,
    ext: u32,
) -> Result<Segment, Trap> {
    let error = error_of(selector) | ext;
    let Some(descriptor) = find(core, selector)? else {
        return Err(raise(core, bad, Some(error)));
    };
    let rpl = selector as u8 & 3;
    if rpl != cpl || !descriptor.is_writable() || descriptor.dpl() != cpl {
        return Err(raise(core, bad, Some(error)));
    }
    if !descriptor.is_present() {
        return Err(raise(core, vector::SS, Some(error)));
    }
    let descriptor = set_accessed(core, selector, descriptor)?;
    Ok(descriptor.segment(selector))
}

/// Checks a selector for DS, ES, FS or GS at privilege `cpl`: the segment, accessed.
pub(crate) fn check_data(core: &mut Core, selector: u16, cpl: u8) -> Result<Segment, Trap> {
    if is_null(selector) {
        return Ok(Segment {
            selector,
            ..Segment::default()
        });
    }
    let error = error_of(selector);
    let descriptor = need(core, selector, 0)?;
    let rpl = selector as u8 & 3;
    let conforming = descriptor.is_code() && descriptor.is_conforming();
    if !descriptor.is_readable() || !conforming && descriptor.dpl() < cpl.max(rpl) {
        return Err(gp(core, error));
    }
    if !descriptor.is_present() {
        return Err(np(core, error));
    }
    let descriptor = set_accessed(core, selector, descriptor)?;
    Ok(descriptor.segment(selector))
}

/// MOV or POP to a segment register other than CS, LDS and the like (SDM vol. 2, MOV). Whether the
/// mode is another now.
pub(crate) fn load(core: &mut Core, n: SegmentIndex, selector: u16) -> Result<bool, Trap> {
    if super::is_vm86(core) {
        set_vm86(core, n, selector);
    } else if !core.arch.is_protected() {
        set_real(core, n, selector);
    } else if n == SegmentIndex::Ss {
        let cpl = core.arch.cpl;
        let segment = if is_null(selector) {
            if !core.arch.is_64() || cpl == 3 || selector as u8 & 3 != cpl {
                return Err(gp(core, 0));
            }
            null_ss(selector, cpl)
        } else {
            check_ss(core, selector, cpl, vector::GP, 0)?
        };
        set(core, n, segment);
    } else {
        let mut segment = check_data(core, selector, core.arch.cpl)?;
        if is_null(selector) && core.arch.is_64() {
            // A null selector leaves no base behind (Intel's behaviour).
            segment.base = 0;
        }
        set(core, n, segment);
    }
    Ok(mode_changed(core))
}

/// After a return to a lower privilege: data segments that the new level may not use become null
/// (SDM vol. 3, 5.8.6).
pub(crate) fn drop_inner_segments(core: &mut Core) {
    use SegmentIndex::{Ds, Es, Fs, Gs};
    let cpl = core.arch.cpl;
    for n in [Es, Ds, Fs, Gs] {
        let segment = core.arch.segment(n as usize);
        let code = segment.kind() & 8 != 0;
        let conforming = code && segment.kind() & 4 != 0;
        let usable = segment.is_present() && segment.attributes & Segment::S != 0;
        if usable && !conforming && segment.dpl() < cpl {
            let gone = Segment {
                selector: 0,
                attributes: 0,
                ..segment
            };
            let gone = if matches!(n, Fs | Gs) {
                // The bases of FS and GS are MSRs too and stay.
                gone
            } else {
                Segment { base: 0, ..gone }
            };
            set(core, n, gone);
        }
    }
}

/// LLDT.
pub(crate) fn lldt(core: &mut Core, selector: u16) -> Result<(), Trap> {
    if is_null(selector) {
        core.arch.ldtr = Segment {
            selector,
            ..Segment::default()
        };
        return Ok(());
    }
    let segment = check_system(core, selector, &[kind::LDT])?;
    core.arch.ldtr = segment;
    Ok(())
}

/// LTR.
pub(crate) fn ltr(core: &mut Core, selector: u16) -> Result<(), Trap> {
    if is_null(selector) {
        return Err(gp(core, 0));
    }
    let kinds: &[u8] = if core.arch.is_long() {
        &[kind::TSS]
    } else {
        &[kind::TSS, kind::TSS_16]
    };
    let mut segment = check_system(core, selector, kinds)?;
    set_busy(core, selector, true)?;
    segment.attributes |= 2;
    core.arch.tr = segment;
    Ok(())
}

/// A system segment of one of `kinds`: for LLDT and LTR.
fn check_system(core: &mut Core, selector: u16, kinds: &[u8]) -> Result<Segment, Trap> {
    let error = error_of(selector);
    if selector & 4 != 0 {
        return Err(gp(core, error));
    }
    let found = if core.arch.is_long() {
        find_long(core, selector)?
    } else {
        find(core, selector)?.map(|d| (d, 0))
    };
    let Some((descriptor, high)) = found else {
        return Err(gp(core, error));
    };
    // The upper half's type field must be zero.
    if descriptor.is_user() || !kinds.contains(&descriptor.kind()) || high >> 40 & 0x1f != 0 {
        return Err(gp(core, error));
    }
    if !descriptor.is_present() {
        return Err(np(core, error));
    }
    let mut segment = descriptor.segment(selector);
    segment.base |= high << 32;
    if !super::paging::is_canonical(segment.base) && core.arch.is_long() {
        return Err(gp(core, error));
    }
    Ok(segment)
}

/// What LAR, LSL, VERR and VERW may look at: the descriptor, if the current privilege may see it.
fn visible(core: &mut Core, selector: u16) -> Result<Option<Descriptor>, Trap> {
    let Some(descriptor) = find(core, selector)? else {
        return Ok(None);
    };
    let conforming = descriptor.is_code() && descriptor.is_conforming();
    let rpl = selector as u8 & 3;
    let seen = conforming || descriptor.dpl() >= core.arch.cpl.max(rpl);
    Ok(seen.then_some(descriptor))
}

/// LAR: the access rights, or `None` (ZF clear).
pub(crate) fn lar(core: &mut Core, selector: u16) -> Result<Option<u64>, Trap> {
    use kind::*;
    let long = core.arch.is_long();
    Ok(visible(core, selector)?
        .filter(|d| {
            d.is_user()
                || match d.kind() {
                    LDT | TSS | TSS_BUSY | CALL => true,
                    TSS_16 | TSS_16_BUSY | CALL_16 | TASK => !long,
                    _ => false,
                }
        })
        .map(|d| d.0 >> 32 & 0x00f0_ff00))
}

/// LSL: the limit in bytes, or `None` (ZF clear).
pub(crate) fn lsl(core: &mut Core, selector: u16) -> Result<Option<u64>, Trap> {
    use kind::*;
    let long = core.arch.is_long();
    Ok(visible(core, selector)?
        .filter(|d| {
            d.is_user()
                || match d.kind() {
                    LDT | TSS | TSS_BUSY => true,
                    TSS_16 | TSS_16_BUSY => !long,
                    _ => false,
                }
        })
        .map(|d| u64::from(d.limit())))
}

/// VERR and VERW.
pub(crate) fn verify(core: &mut Core, selector: u16, write: bool) -> Result<bool, Trap> {
    Ok(visible(core, selector)?.is_some_and(|d| {
        if write {
            d.is_writable()
        } else {
            d.is_readable()
        }
    }))
}
