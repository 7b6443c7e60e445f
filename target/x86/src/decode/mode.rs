//! What decoding depends on beside the bytes: the packed mode that is part of every unit's key.

use crate::regs::rflags;
use crate::state::{Segment, SegmentIndex};
use crate::{Core, cpu::ctx, regs};

/// CR0 bits (SDM vol. 3, 2.5).
mod cr0 {
    pub(super) const PE: u64 = 1 << 0;
    pub(super) const MP: u64 = 1 << 1;
    pub(super) const EM: u64 = 1 << 2;
    pub(super) const TS: u64 = 1 << 3;
}

/// CR4 bits.
mod cr4 {
    pub(super) const OSFXSR: u64 = 1 << 9;
    pub(super) const OSXSAVE: u64 = 1 << 18;
    pub(super) const SMAP: u64 = 1 << 21;
}

/// IA32_EFER.LMA.
const EFER_LMA: u64 = 1 << 10;

/// The packed mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode(pub(crate) u64);

/// 64-bit code: EFER.LMA and CS.L.
const LONG: u64 = 1 << 0;
/// CS.D: operands and addresses of 32 bits by default.
const CODE32: u64 = 1 << 1;
/// SS.B: ESP, not SP, is the stack pointer.
const STACK32: u64 = 1 << 2;
/// Two bits of CPL.
const CPL_SHIFT: u32 = 3;
/// CR0.PE.
const PE: u64 = 1 << 5;
/// RFLAGS.VM.
const VM86: u64 = 1 << 6;
/// CR0.EM.
const EM: u64 = 1 << 7;
/// CR0.TS.
const TS: u64 = 1 << 8;
/// CR0.MP.
const MP: u64 = 1 << 9;
/// CR4.OSFXSR.
const OSFXSR: u64 = 1 << 10;
/// ES, CS, SS and DS start at 0 (always set in 64-bit code).
const ZERO_BASES: u64 = 1 << 11;
/// ES, CS, SS and DS are usable 4 GiB segments: no access by them needs a check.
const FLAT: u64 = 1 << 12;
/// CR4.SMAP is set and RFLAGS.AC clear.
const SMAP: u64 = 1 << 13;
/// CS ends before the last address its code can name.
const CODE_LIMIT: u64 = 1 << 14;
/// EFER.LMA: long mode, compatibility mode included.
const LMA: u64 = 1 << 15;
/// CR4.OSXSAVE.
const OSXSAVE: u64 = 1 << 16;
/// MXCSR masks all exceptions.
const FP_MASKED: u64 = 1 << 17;
/// The x87's control word masks all exceptions: none can be pending.
const X87_MASKED: u64 = 1 << 18;

/// The exception masks of MXCSR (SDM vol. 1, 10.2.3).
const MXCSR_MASKS: u64 = 0x1f80;

/// The exception masks of the x87's control word (SDM vol. 1, 8.1.5).
const X87_MASKS: u16 = 0x3f;

impl Mode {
    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// 64-bit code.
    pub(crate) fn is_64(self) -> bool {
        self.has(LONG)
    }

    /// 16, 32 or 64, as the decoder wants it.
    pub(crate) fn bitness(self) -> u32 {
        match (self.has(LONG), self.has(CODE32)) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        }
    }

    /// Bytes of the stack pointer.
    pub(crate) fn stack_bytes(self) -> u32 {
        match (self.has(LONG), self.has(STACK32)) {
            (true, _) => 8,
            (false, true) => 4,
            (false, false) => 2,
        }
    }

    /// Current privilege level.
    pub(crate) fn cpl(self) -> u8 {
        (self.0 >> CPL_SHIFT) as u8 & 3
    }

    /// Virtual-8086 mode.
    pub(crate) fn is_vm86(self) -> bool {
        self.has(VM86)
    }

    /// Protected mode with segments in the protected sense: not real, not virtual-8086.
    pub(crate) fn has_descriptors(self) -> bool {
        self.has(PE) && !self.has(VM86)
    }

    /// CR0.EM.
    #[allow(dead_code)]
    pub(crate) fn em(self) -> bool {
        self.has(EM)
    }

    /// CR0.TS.
    #[allow(dead_code)]
    pub(crate) fn ts(self) -> bool {
        self.has(TS)
    }

    /// CR0.MP.
    #[allow(dead_code)]
    pub(crate) fn mp(self) -> bool {
        self.has(MP)
    }

    /// CR4.OSFXSR.
    #[allow(dead_code)]
    pub(crate) fn osfxsr(self) -> bool {
        self.has(OSFXSR)
    }

    /// CR4.OSXSAVE.
    #[allow(dead_code)]
    pub(crate) fn osxsave(self) -> bool {
        self.has(OSXSAVE)
    }

    /// MXCSR masks all exceptions.
    pub(crate) fn fp_masked(self) -> bool {
        self.has(FP_MASKED)
    }

    /// The x87 masks all exceptions.
    pub(crate) fn x87_masked(self) -> bool {
        self.has(X87_MASKED)
    }

    /// EFER.LMA.
    #[allow(dead_code)]
    pub(crate) fn is_long_mode(self) -> bool {
        self.has(LMA)
    }

    /// ES, CS, SS and DS start at 0.
    pub(crate) fn zero_bases(self) -> bool {
        self.has(ZERO_BASES)
    }

    /// No access by ES, CS, SS and DS needs a limit check.
    pub(crate) fn is_flat(self) -> bool {
        self.has(FLAT)
    }

    /// Fetches need a limit check.
    pub(crate) fn has_code_limit(self) -> bool {
        self.has(CODE_LIMIT)
    }

    /// Translation context of data accesses.
    pub(crate) fn data_ctx(self) -> u8 {
        if self.cpl() == 3 {
            ctx::USER
        } else if self.has(SMAP) {
            ctx::SUPERVISOR_SMAP
        } else {
            ctx::SUPERVISOR
        }
    }
}

fn is_flat_data(segment: &Segment, checked: bool) -> bool {
    // Writable, not expand-down, data.
    let usable = !checked
        || segment.attributes & (Segment::P | Segment::S) == Segment::P | Segment::S
            && segment.kind() & 0b1110 == 0b0010;
    segment.limit == u32::MAX && usable
}

fn is_flat_code(segment: &Segment, checked: bool) -> bool {
    segment.limit == u32::MAX && (!checked || segment.kind() & 0b1010 == 0b1010)
}

/// The mode that the state asks for.
pub(crate) fn mode_of(core: &Core) -> u64 {
    let arch = &core.arch;
    let [es, cs, ss, ds, ..] = &arch.segments;
    let flags = core.regs.get(regs::RFLAGS);
    let lma = arch.efer & EFER_LMA != 0;
    let long = lma && cs.attributes & Segment::L != 0;
    let code32 = cs.attributes & Segment::DB != 0;
    let protected = arch.cr0 & cr0::PE != 0;
    let vm86 = protected && flags & rflags::VM != 0;
    let checked = protected && !vm86;
    let four = [es, cs, ss, ds];
    let smap = arch.cr4 & cr4::SMAP != 0 && flags & rflags::AC == 0;
    let reach = if code32 { u32::MAX } else { 0xffff };
    let bits = [
        (LONG, long),
        (CODE32, code32 && !long),
        (STACK32, ss.attributes & Segment::DB != 0 && !long),
        (PE, protected),
        (VM86, vm86),
        (EM, arch.cr0 & cr0::EM != 0),
        (TS, arch.cr0 & cr0::TS != 0),
        (MP, arch.cr0 & cr0::MP != 0),
        (OSFXSR, arch.cr4 & cr4::OSFXSR != 0),
        (OSXSAVE, arch.cr4 & cr4::OSXSAVE != 0),
        (ZERO_BASES, long || four.iter().all(|s| s.base == 0)),
        (
            FLAT,
            long || [es, ss, ds].iter().all(|s| is_flat_data(s, checked))
                && is_flat_code(cs, checked),
        ),
        (SMAP, smap && arch.cpl != 3),
        (CODE_LIMIT, !long && cs.limit < reach),
        (LMA, lma),
        (
            FP_MASKED,
            core.regs.get(regs::MXCSR) & MXCSR_MASKS == MXCSR_MASKS,
        ),
        (X87_MASKED, arch.x87.control & X87_MASKS == X87_MASKS),
    ];
    bits.iter()
        .filter(|(_, set)| *set)
        .fold(u64::from(arch.cpl & 3) << CPL_SHIFT, |mode, (bit, _)| {
            mode | bit
        })
}

/// Brings `core.mode` in line with the state. To be called after every change of CR0, CR4, EFER,
/// CPL, RFLAGS.VM, RFLAGS.AC, MXCSR's masks, the x87's or a segment register; a helper that changed the mode must end with
/// [`accel_core::Trap::Leave`] (or `After`). Returns whether the mode is another now.
pub fn refresh(core: &mut Core) -> bool {
    let mode = mode_of(core);
    let changed = core.mode != mode;
    core.mode = mode;
    changed
}

/// The segment register's hidden part.
pub(crate) fn segment(core: &Core, index: SegmentIndex) -> &Segment {
    let [es, cs, ss, ds, fs, gs] = &core.arch.segments;
    match index {
        SegmentIndex::Es => es,
        SegmentIndex::Cs => cs,
        SegmentIndex::Ss => ss,
        SegmentIndex::Ds => ds,
        SegmentIndex::Fs => fs,
        SegmentIndex::Gs => gs,
    }
}
