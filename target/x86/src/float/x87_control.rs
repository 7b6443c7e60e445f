//! x87 control: words, environment and whole state in memory (SDM vol. 1, 8.1.10 and 8.3.8).

use accel_core::Trap;

use super::memory::probe_image;
use super::x87::{X87, status};
use super::x87_helper::check_pending;
use super::x87_move::bits_of;
use crate::{Core, system};

/// All exceptions masked.
const ALL_MASKED: u16 = 0x3f;
/// Bytes of the environment with 32-bit and 16-bit operand size.
const ENV_32: usize = 28;
const ENV_16: usize = 14;

/// FNINIT: (next).
pub(super) fn init(core: &mut Core, [next, ..]: [u64; 4]) -> Result<u64, Trap> {
    core.arch.x87.init();
    system::leave_if_changed(core, next)
}

/// FNCLEX.
pub(super) fn clear_exceptions(core: &mut Core, _: [u64; 4]) -> Result<u64, Trap> {
    let x87 = &mut core.arch.x87;
    x87.status &= !(status::FLAGS | status::SF | status::ES | status::B);
    Ok(0)
}

/// FLDCW: (value, next).
pub(super) fn load_control(core: &mut Core, [value, next, ..]: [u64; 4]) -> Result<u64, Trap> {
    core.arch.x87.set_control(value as u16);
    system::leave_if_changed(core, next)
}

/// FNSTCW: the control word.
pub(super) fn read_control(core: &mut Core, _: [u64; 4]) -> Result<u64, Trap> {
    Ok(core.arch.x87.control.into())
}

/// FNSTSW: the status word.
pub(super) fn read_status(core: &mut Core, _: [u64; 4]) -> Result<u64, Trap> {
    Ok(core.arch.x87.status_word().into())
}

/// Size and layout of an environment.
#[derive(Clone, Copy)]
struct Layout {
    /// 16-bit operand size.
    small: bool,
    /// Protected mode: selectors instead of the upper address bits.
    protected: bool,
}

impl Layout {
    fn from_bits(bits: u64) -> Self {
        Layout {
            small: bits & 1 != 0,
            protected: bits & 2 != 0,
        }
    }

    /// Size of a field.
    fn field(self) -> u8 {
        if self.small { 2 } else { 4 }
    }

    fn bytes(self) -> usize {
        if self.small { ENV_16 } else { ENV_32 }
    }
}

/// The seven fields as words or doublewords.
fn environment(x87: &X87, layout: Layout) -> [u32; 7] {
    let fields = [x87.control, x87.status_word(), x87.tag_word()];
    let [control, status, tags] = fields.map(u32::from);
    let (ip, dp) = (x87.ip as u32, x87.dp as u32);
    let opcode = u32::from(x87.opcode & 0x7ff);
    // Selectors are not kept: processors that say so by CPUID.7.EBX[13] store 0.
    let [ip_low, ip_high, dp_low, dp_high] = match (layout.protected, layout.small) {
        (true, true) => [ip & 0xffff, 0, dp & 0xffff, 0],
        (true, false) => [ip, opcode << 16, dp, 0],
        (false, true) => [
            ip & 0xffff,
            ip >> 4 & 0xf000 | opcode,
            dp & 0xffff,
            dp >> 4 & 0xf000,
        ],
        (false, false) => [
            ip & 0xffff,
            ip >> 4 & 0x0fff_f000 | opcode,
            dp & 0xffff,
            dp >> 4 & 0x0fff_f000,
        ],
    };
    let rest = if layout.small { 0 } else { 0xffff_0000 };
    // The unused upper halves read as ones where a 16-bit field stands alone.
    let (ip_rest, dp_rest) = if layout.protected {
        (0, rest)
    } else {
        (rest, 0)
    };
    [
        control | rest,
        status | rest,
        tags | rest,
        ip_low | ip_rest,
        ip_high,
        dp_low | ip_rest,
        dp_high | dp_rest,
    ]
}

/// Takes an environment; the reverse.
fn set_environment(x87: &mut X87, layout: Layout, fields: [u32; 7]) {
    let [control, status, tags, ip_low, ip_high, dp_low, dp_high] = fields;
    x87.set_tag_word(tags as u16);
    x87.set_control(control as u16);
    x87.set_status_word(status as u16);
    match (layout.protected, layout.small) {
        (true, true) => {
            x87.ip = ip_low.into();
            x87.dp = dp_low.into();
            x87.opcode = 0;
        }
        (true, false) => {
            x87.ip = ip_low.into();
            x87.dp = dp_low.into();
            x87.opcode = (ip_high >> 16) as u16 & 0x7ff;
        }
        (false, _) => {
            x87.ip = (ip_low & 0xffff | (ip_high & !0xfff) << 4).into();
            x87.dp = (dp_low & 0xffff | (dp_high & !0xfff) << 4).into();
            x87.opcode = ip_high as u16 & 0x7ff;
        }
    }
}

fn put_fields(out: &mut [u8], layout: Layout, fields: [u32; 7]) {
    let size = usize::from(layout.field());
    for (to, field) in out.chunks_exact_mut(size).zip(fields) {
        for (to, from) in to.iter_mut().zip(field.to_le_bytes()) {
            *to = from;
        }
    }
}

fn get_fields(bytes: &[u8], layout: Layout) -> [u32; 7] {
    let size = usize::from(layout.field());
    let mut fields = [0; 7];
    for (to, from) in fields.iter_mut().zip(bytes.chunks_exact(size)) {
        *to = from.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b));
    }
    fields
}

/// FNSTENV: (layout, address, context, next).
pub(super) fn store_environment(
    core: &mut Core,
    [layout, address, ctx, next]: [u64; 4],
) -> Result<u64, Trap> {
    let layout = Layout::from_bits(layout);
    let mut image = [0; ENV_32];
    let image = image.get_mut(..layout.bytes()).unwrap_or_default();
    put_fields(image, layout, environment(&core.arch.x87, layout));
    let size = (layout.field(), image.len() as u64);
    probe_image(core, address, size, (true, ctx as u8))?;
    core.store_bytes(address, image, ctx as u8)?;
    let masked = core.arch.x87.control | ALL_MASKED;
    core.arch.x87.set_control(masked);
    system::leave_if_changed(core, next)
}

/// FLDENV: (layout, address, context, next).
pub(super) fn load_environment(
    core: &mut Core,
    [layout, address, ctx, next]: [u64; 4],
) -> Result<u64, Trap> {
    check_pending(core)?;
    let layout = Layout::from_bits(layout);
    let mut image = [0; ENV_32];
    let image = image.get_mut(..layout.bytes()).unwrap_or_default();
    let size = (layout.field(), image.len() as u64);
    probe_image(core, address, size, (false, ctx as u8))?;
    core.load_bytes(address, image, ctx as u8)?;
    set_environment(&mut core.arch.x87, layout, get_fields(image, layout));
    system::leave_if_changed(core, next)
}

/// Bytes of the environment and eight registers.
const STATE: usize = ENV_32 + 80;

/// FNSAVE: (layout, address, context, next).
pub(super) fn save(core: &mut Core, [layout, address, ctx, next]: [u64; 4]) -> Result<u64, Trap> {
    let layout = Layout::from_bits(layout);
    let env = layout.bytes();
    let mut image = [0; STATE];
    let image = image.get_mut(..env.wrapping_add(80)).unwrap_or_default();
    let (head, registers) = image.split_at_mut(env);
    put_fields(head, layout, environment(&core.arch.x87, layout));
    for (to, i) in registers.as_chunks_mut::<10>().0.iter_mut().zip(0..8) {
        let bits = bits_of(core.arch.x87.st(i)).to_le_bytes();
        for (to, from) in to.iter_mut().zip(bits) {
            *to = from;
        }
    }
    let size = (layout.field(), image.len() as u64);
    probe_image(core, address, size, (true, ctx as u8))?;
    core.store_bytes(address, image, ctx as u8)?;
    core.arch.x87.init();
    system::leave_if_changed(core, next)
}

/// FRSTOR: (layout, address, context, next).
pub(super) fn restore(
    core: &mut Core,
    [layout, address, ctx, next]: [u64; 4],
) -> Result<u64, Trap> {
    check_pending(core)?;
    let layout = Layout::from_bits(layout);
    let env = layout.bytes();
    let mut image = [0; STATE];
    let image = image.get_mut(..env.wrapping_add(80)).unwrap_or_default();
    let size = (layout.field(), image.len() as u64);
    probe_image(core, address, size, (false, ctx as u8))?;
    core.load_bytes(address, image, ctx as u8)?;
    let (head, registers) = image.split_at(env);
    let x87 = &mut core.arch.x87;
    set_environment(x87, layout, get_fields(head, layout));
    for (from, i) in registers.as_chunks::<10>().0.iter().zip(0..8_u8) {
        let n = x87.top.wrapping_add(i);
        x87.set_register(n, super::fxsave::register_from(from));
    }
    system::leave_if_changed(core, next)
}
