//! The helpers that IR calls for x87 instructions: pending exceptions, memory operands, pointers.
//!
//! One helper call is one instruction. Its arguments are a [`Form`], the instruction's offset, and
//! the linear address and offset of a memory operand.

use accel_core::{Trap, X87Form as Form, X87Format as Format};

use super::x87::X87;
use super::x87_arith::{Arith, Source};
use super::x87_function::Function;
use crate::state::vector;
use crate::{Core, system};

/// CR0.NE: x87 exceptions are #MF, not an external interrupt.
const CR0_NE: u64 = 1 << 5;

/// The arguments of every helper here.
struct Call {
    form: Form,
    ip: u64,
    address: u64,
    offset: u64,
}

/// Takes a pending exception first, as all waiting instructions do.
pub(super) fn check_pending(core: &mut Core) -> Result<(), Trap> {
    if core.arch.x87.is_pending() && core.arch.cr0 & CR0_NE != 0 {
        return Err(system::raise(core, vector::MF, None));
    }
    Ok(())
}

fn start(core: &mut Core, [form, ip, address, offset]: [u64; 4]) -> Result<Call, Trap> {
    check_pending(core)?;
    Ok(Call {
        form: Form::unpack(form),
        ip,
        address,
        offset,
    })
}

impl Call {
    /// Reads the memory operand.
    fn load(&self, core: &mut Core, format: Format) -> Result<u128, Trap> {
        let ctx = self.form.ctx;
        match format.bytes() {
            10 => {
                let mut bytes = [0; 16];
                let ten = bytes.get_mut(..10).unwrap_or_default();
                core.load_bytes(self.address, ten, ctx)?;
                Ok(u128::from_le_bytes(bytes))
            }
            size => core.load(self.address, size, ctx).map(u128::from),
        }
    }

    fn store(&self, core: &mut Core, format: Format, bits: u128) -> Result<(), Trap> {
        let ctx = self.form.ctx;
        match format.bytes() {
            10 => {
                let bytes = bits.to_le_bytes();
                core.store_bytes(self.address, bytes.get(..10).unwrap_or_default(), ctx)
            }
            size => core.store(self.address, size, bits as u64, ctx),
        }
    }

    /// Remembers this instruction as the last one; nothing can fault any more.
    fn note<'a>(&self, core: &'a mut Core) -> &'a mut X87 {
        let x87 = &mut core.arch.x87;
        x87.ip = self.ip;
        if self.form.format.is_some() {
            x87.dp = self.offset;
        }
        x87
    }

    /// The source operand of arithmetic and comparisons; `None` is an empty register.
    fn source(&self, core: &mut Core) -> Result<Option<Source>, Trap> {
        let Some(format) = self.form.format else {
            return Ok(core.arch.x87.get(self.form.src).map(Source::register));
        };
        let bits = self.load(core, format)?;
        Ok(Some(match format {
            Format::F32 => Source::f32(bits as u32),
            Format::F64 => Source::f64(bits as u64),
            Format::I16 => Source::int((bits as i16).into()),
            _ => Source::int((bits as i32).into()),
        }))
    }
}

/// FADD to FDIVR.
pub(super) fn arith(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let source = call.source(core)?;
    let form = call.form;
    call.note(core)
        .arith(Arith::from_number(form.op), form.dst, source, form.pops);
    Ok(0)
}

/// FCOM and FUCOM.
pub(super) fn compare(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let source = call.source(core)?;
    let form = call.form;
    call.note(core).compare(source, form.variant, form.pops);
    Ok(0)
}

/// FCOMI and FUCOMI: the flags.
pub(super) fn compare_flags(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let form = call.form;
    Ok(call
        .note(core)
        .compare_flags(form.src, form.variant, form.pops))
}

/// FLD, FILD, FBLD, and the constants.
pub(super) fn load(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let form = call.form;
    match form.format {
        Some(format) => {
            let bits = call.load(core, format)?;
            call.note(core).load_memory(format, bits);
        }
        None if form.variant => call.note(core).load_constant(form.op),
        None => call.note(core).load_register(form.src),
    }
    Ok(0)
}

/// [`Form::op`] of FSTPNCE.
pub(super) const STORE_UNCHECKED: u8 = 1;

/// FST, FIST, FISTTP, FBSTP, FSTPNCE.
pub(super) fn store(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let form = call.form;
    let Some(format) = form.format else {
        let x87 = call.note(core);
        if form.op == STORE_UNCHECKED {
            x87.store_unchecked(form.dst);
        } else {
            x87.store_register(form.dst, form.pops);
        }
        return Ok(0);
    };
    let stored = core.arch.x87.store_memory(format, form.variant, form.pops);
    match stored.bits {
        Some(bits) => call.store(core, format, bits)?,
        // The address is checked even so.
        None => core.probe_write(call.address, format.bytes(), form.ctx)?,
    }
    core.arch.x87 = stored.after;
    call.note(core);
    Ok(0)
}

/// Instructions on the top of the stack.
pub(super) fn function(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let which = Function::from_number(call.form.op);
    call.note(core).function(which);
    Ok(0)
}

/// FXCH.
pub(super) fn exchange(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let i = call.form.src;
    call.note(core).exchange(i);
    Ok(0)
}

/// FFREE and FFREEP.
pub(super) fn free(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let form = call.form;
    let x87 = call.note(core);
    x87.free(form.src);
    x87.pop(form.pops);
    Ok(0)
}

/// FCMOVcc; the third argument is the condition.
pub(super) fn move_if(core: &mut Core, args: [u64; 4]) -> Result<u64, Trap> {
    let call = start(core, args)?;
    let (i, condition) = (call.form.src, call.address != 0);
    call.note(core).move_if(i, condition);
    Ok(0)
}

/// FWAIT, and what comes before instructions that use MMX registers.
pub(super) fn wait(core: &mut Core, _: [u64; 4]) -> Result<u64, Trap> {
    check_pending(core)?;
    Ok(0)
}
