//! FXSAVE, FXRSTOR and the XSAVE family: the images (SDM vol. 1, 10.5 and 13.4) and the instructions.

use accel_core::Trap;
use target_softfloat::F80;

use super::memory::probe_image;
use super::x87::X87;
use super::x87_move::bits_of;
use crate::state::{efer, vector};
use crate::{Core, regs, system};

/// Bits of MXCSR that may be set (MXCSR_MASK).
pub const MXCSR_MASK: u32 = 0xffff;
/// MXCSR after reset and in the initial configuration.
pub const MXCSR_INIT: u32 = 0x1f80;

/// Bytes of the legacy image.
pub const LEGACY: usize = 512;
/// Offset of the last byte of the legacy image.
const LAST_BYTE: u64 = 511;
/// Bytes of the image that FXSAVE writes; the rest is reserved or the program's.
const WRITTEN: usize = 416;
/// Offset of MXCSR.
const MXCSR_AT: usize = 24;
/// Offset of the registers ST0 to ST7.
const ST_AT: usize = 32;
/// Offset of XMM0.
const XMM_AT: usize = 160;
/// Bytes that XSAVE may touch with x87 and SSE state: the image and the header.
pub(super) const XSAVE_BYTES: u32 = 576;
/// XSAVE's header follows the legacy image.
const HEADER: u64 = 512;

/// How pointers are laid out and how many XMM registers there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// 64-bit pointers (REX.W).
    pub(super) wide: bool,
    /// XMM8 to XMM15 belong to the image: 64-bit mode.
    pub(super) long: bool,
}

impl Layout {
    fn from_bits(bits: u64) -> Self {
        Layout {
            wide: bits & 1 != 0,
            long: bits & 2 != 0,
        }
    }

    pub(super) fn bits(self) -> u64 {
        u64::from(self.wide) | u64::from(self.long) << 1
    }
}

/// A register of ten bytes.
pub(super) fn register_from(bytes: &[u8]) -> F80 {
    let value = bytes
        .iter()
        .take(10)
        .rev()
        .fold(0_u128, |v, b| v << 8 | u128::from(*b));
    F80 {
        se: (value >> 64) as u16,
        sig: value as u64,
    }
}

fn put<const N: usize>(image: &mut [u8], at: usize, bytes: &[u8; N]) {
    if let Some(to) = image.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *to = *bytes;
    }
}

fn taken<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    image
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .unwrap_or([0; N])
}

fn half(image: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(taken(image, at))
}

fn word(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(taken(image, at))
}

fn quad(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(taken(image, at))
}

impl X87 {
    /// Writes bytes 0 to 23 and 32 to 159 of the image.
    pub fn to_fxsave(&self, image: &mut [u8; LEGACY], wide: bool) {
        put(image, 0, &self.control.to_le_bytes());
        put(image, 2, &self.status_word().to_le_bytes());
        put(image, 4, &[self.used, 0]);
        put(image, 6, &self.opcode.to_le_bytes());
        let (ip, dp) = if wide {
            (self.ip, self.dp)
        } else {
            (self.ip & 0xffff_ffff, self.dp & 0xffff_ffff)
        };
        put(image, 8, &ip.to_le_bytes());
        put(image, 16, &dp.to_le_bytes());
        for (at, i) in (ST_AT..).step_by(16).zip(0..8) {
            put(image, at, &bits_of(self.st(i)).to_le_bytes());
        }
    }

    /// The state in an image.
    pub fn from_fxsave(image: &[u8; LEGACY], wide: bool) -> X87 {
        let mut x87 = X87::INIT;
        x87.set_control(half(image, 0));
        x87.set_status_word(half(image, 2));
        [x87.used] = taken(image, 4);
        x87.opcode = half(image, 6) & 0x7ff;
        let pointer = |at| match wide {
            true => quad(image, at),
            false => word(image, at).into(),
        };
        x87.ip = pointer(8);
        x87.dp = pointer(16);
        for (at, i) in (ST_AT..).step_by(16).zip(0..8_u8) {
            let value = F80 {
                sig: quad(image, at),
                se: half(image, at.wrapping_add(8)),
            };
            x87.set_register(x87.top.wrapping_add(i), value);
        }
        x87
    }
}

/// Whether EFER.FFXSR keeps FXSAVE and FXRSTOR from touching XMM registers: at CPL 0 of 64-bit mode
/// (AMD APM vol. 2, 11.4.4.2).
fn skips_xmm(core: &Core, layout: Layout) -> bool {
    layout.long && core.arch.cpl == 0 && core.arch.efer & efer::FFXSR != 0
}

fn xmm_count(layout: Layout) -> usize {
    if layout.long { 16 } else { 8 }
}

fn put_xmm(core: &Core, image: &mut [u8; LEGACY], layout: Layout) {
    for (at, n) in (XMM_AT..).step_by(16).zip(0..xmm_count(layout)) {
        put(image, at, &core.regs.get_v(regs::xmm(n)).to_le_bytes());
    }
}

fn take_xmm(core: &mut Core, image: &[u8; LEGACY], layout: Layout) {
    for (at, n) in (XMM_AT..).step_by(16).zip(0..xmm_count(layout)) {
        let value = u128::from_le_bytes(taken(image, at));
        core.regs.set_v(regs::xmm(n), value);
    }
}

fn general_protection(core: &mut Core) -> Trap {
    system::raise(core, vector::GP, Some(0))
}

/// FXSAVE: (layout, address, context).
pub(super) fn fxsave(core: &mut Core, [layout, address, ctx, _]: [u64; 4]) -> Result<u64, Trap> {
    let layout = Layout::from_bits(layout);
    if !address.is_multiple_of(16) {
        return Err(general_protection(core));
    }
    let mut image = [0; LEGACY];
    core.arch.x87.to_fxsave(&mut image, layout.wide);
    put(&mut image, MXCSR_AT, &mxcsr_and_mask(core));
    put_xmm(core, &mut image, layout);
    let end = if skips_xmm(core, layout) {
        XMM_AT
    } else {
        XMM_AT.wrapping_add(xmm_count(layout).wrapping_mul(16))
    };
    // AMD's processors look at the last byte first.
    core.probe_write(address.wrapping_add(LAST_BYTE), 1, ctx as u8)?;
    probe_image(core, address, (1, LEGACY as u64), (true, ctx as u8))?;
    let written = image.get(..end.min(WRITTEN)).unwrap_or_default();
    core.store_bytes(address, written, ctx as u8)?;
    Ok(0)
}

fn mxcsr_and_mask(core: &Core) -> [u8; 8] {
    (core.regs.get(regs::MXCSR) & 0xffff_ffff | u64::from(MXCSR_MASK) << 32).to_le_bytes()
}

/// MXCSR of an image, unless it has reserved bits.
fn mxcsr_of(core: &mut Core, image: &[u8; LEGACY]) -> Result<u64, Trap> {
    let value = u64::from(word(image, MXCSR_AT));
    if value & !u64::from(MXCSR_MASK) != 0 {
        return Err(general_protection(core));
    }
    Ok(value)
}

/// FXRSTOR: (layout, address, context, next).
pub(super) fn fxrstor(
    core: &mut Core,
    [layout, address, ctx, next]: [u64; 4],
) -> Result<u64, Trap> {
    let layout = Layout::from_bits(layout);
    if !address.is_multiple_of(16) {
        return Err(general_protection(core));
    }
    let mut image = [0; LEGACY];
    probe_image(core, address, (1, LEGACY as u64), (false, ctx as u8))?;
    core.load_bytes(address, &mut image, ctx as u8)?;
    let mxcsr = mxcsr_of(core, &image)?;
    core.arch.x87 = X87::from_fxsave(&image, layout.wide);
    core.regs.set(regs::MXCSR, mxcsr);
    if !skips_xmm(core, layout) {
        take_xmm(core, &image, layout);
    }
    // Whether exceptions are masked is part of the mode.
    system::leave_if_changed(core, next)
}

/// State components (SDM vol. 1, 13.1).
mod component {
    pub(super) const X87: u64 = 1 << 0;
    pub(super) const SSE: u64 = 1 << 1;
    /// XSAVE saves MXCSR with AVX state too.
    pub(super) const AVX: u64 = 1 << 2;
}

/// XCOMP_BV: the image is compacted.
const COMPACT: u64 = 1 << 63;

/// The variants of XSAVE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Save {
    /// XSAVE.
    All,
    /// XSAVEOPT: leaves out what is in its initial configuration.
    Optimized,
    /// XSAVEC and XSAVES: so too, and compacted.
    Compact,
}

/// The components that are not in their initial configuration.
fn in_use(core: &Core, layout: Layout) -> u64 {
    let x87 = X87 {
        ip: 0,
        dp: 0,
        opcode: 0,
        ..core.arch.x87.clone()
    };
    let sse = (0..xmm_count(layout)).any(|n| core.regs.get_v(regs::xmm(n)) != 0);
    let mut used = 0;
    if x87 != X87::INIT {
        used |= component::X87;
    }
    if sse {
        used |= component::SSE;
    }
    used
}

/// XSAVE, XSAVEOPT, XSAVEC: (layout | which << 8 | context << 16, address, requested components).
pub(super) fn xsave(core: &mut Core, [how, address, wanted, _]: [u64; 4]) -> Result<u64, Trap> {
    let layout = Layout::from_bits(how);
    let ctx = (how >> 16) as u8;
    let which = match how >> 8 & 0xff {
        0 => Save::All,
        1 => Save::Optimized,
        _ => Save::Compact,
    };
    if !address.is_multiple_of(64) {
        return Err(general_protection(core));
    }
    let wanted = wanted & core.arch.system.xcr0;
    let header = address.wrapping_add(HEADER);
    // Everything the instruction may write, before any of it is written.
    probe_image(core, address, (1, XSAVE_BYTES.into()), (true, ctx))?;
    let old = core.load(header, 8, ctx)?;
    let mut used = in_use(core, layout);
    if which == Save::Compact && core.regs.get(regs::MXCSR) != u64::from(MXCSR_INIT) {
        // Only here MXCSR counts as SSE state (SDM vol. 1, 13.10).
        used |= component::SSE;
    }
    let written = match which {
        Save::All => wanted,
        Save::Optimized | Save::Compact => wanted & used,
    };
    let mut image = [0; LEGACY];
    core.arch.x87.to_fxsave(&mut image, layout.wide);
    put_xmm(core, &mut image, layout);
    if written & component::X87 != 0 {
        let head = image.get(..MXCSR_AT).unwrap_or_default();
        core.store_bytes(address, head, ctx)?;
        let registers = image.get(ST_AT..XMM_AT).unwrap_or_default();
        core.store_bytes(address.wrapping_add(ST_AT as u64), registers, ctx)?;
    }
    let saves_mxcsr = match which {
        Save::Compact => written & component::SSE != 0,
        _ => wanted & (component::SSE | component::AVX) != 0,
    };
    if saves_mxcsr {
        let both = mxcsr_and_mask(core);
        core.store_bytes(address.wrapping_add(MXCSR_AT as u64), &both, ctx)?;
    }
    if written & component::SSE != 0 {
        let end = XMM_AT.wrapping_add(xmm_count(layout).wrapping_mul(16));
        let registers = image.get(XMM_AT..end).unwrap_or_default();
        core.store_bytes(address.wrapping_add(XMM_AT as u64), registers, ctx)?;
    }
    // XSAVE writes components in their initial configuration too, but says that they are.
    let (bits, compact) = match which {
        Save::Compact => (wanted & used, Some(wanted | COMPACT)),
        _ => (old & !wanted | wanted & used, None),
    };
    core.store(header, 8, bits, ctx)?;
    if let Some(compact) = compact {
        core.store(header.wrapping_add(8), 8, compact, ctx)?;
    }
    Ok(0)
}

/// XRSTOR: (layout | context << 16, address, requested components, next).
pub(super) fn xrstor(core: &mut Core, [how, address, wanted, next]: [u64; 4]) -> Result<u64, Trap> {
    let layout = Layout::from_bits(how);
    let ctx = (how >> 16) as u8;
    if !address.is_multiple_of(64) {
        return Err(general_protection(core));
    }
    let xcr0 = core.arch.system.xcr0;
    let wanted = wanted & xcr0;
    let mut image = [0; LEGACY];
    let mut header = [0; 64];
    core.load_bytes(address, &mut image, ctx)?;
    core.load_bytes(address.wrapping_add(HEADER), &mut header, ctx)?;
    let (present, layout_bits) = (quad(&header, 0), quad(&header, 8));
    let compact = layout_bits & COMPACT != 0;
    let reserved = if compact {
        present & !layout_bits | layout_bits & !COMPACT & !xcr0
    } else {
        layout_bits | quad(&header, 16)
    };
    let rest = header.iter().skip(16).any(|b| *b != 0) && compact;
    if present & !xcr0 != 0 || reserved != 0 || rest {
        return Err(general_protection(core));
    }
    let sse = component::SSE | component::AVX;
    let mxcsr = if compact {
        match (wanted & component::SSE != 0, present & component::SSE != 0) {
            (true, true) => Some(mxcsr_of(core, &image)?),
            (true, false) => Some(MXCSR_INIT.into()),
            _ => None,
        }
    } else if wanted & sse != 0 {
        Some(mxcsr_of(core, &image)?)
    } else {
        None
    };
    if let Some(mxcsr) = mxcsr {
        core.regs.set(regs::MXCSR, mxcsr);
    }
    if wanted & component::X87 != 0 {
        core.arch.x87 = if present & component::X87 != 0 {
            X87::from_fxsave(&image, layout.wide)
        } else {
            X87::INIT
        };
    }
    if wanted & component::SSE != 0 {
        if present & component::SSE == 0 {
            image = [0; LEGACY];
        }
        take_xmm(core, &image, layout);
    }
    system::leave_if_changed(core, next)
}

/// LDMXCSR: (value, next).
pub(super) fn load_mxcsr(core: &mut Core, [value, next, ..]: [u64; 4]) -> Result<u64, Trap> {
    if value & !u64::from(MXCSR_MASK) != 0 {
        return Err(general_protection(core));
    }
    core.regs.set(regs::MXCSR, value);
    system::leave_if_changed(core, next)
}
