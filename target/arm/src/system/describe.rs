//! `info registers` and the like, in QEMU's layout.

use std::fmt::Write;

use super::control;
use super::translation::{self, Query};
use crate::mode::{self, ctx};
use crate::model::Feature;
use crate::{Core, regs};

/// `info registers`, without its heading.
pub(crate) fn describe(core: &Core) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(core, &mut text);
    text
}

fn write(core: &Core, out: &mut String) -> std::fmt::Result {
    let get = |slot| core.regs.get(slot);
    write!(out, " PC={:016x} ", core.pc())?;
    for n in 0..31u32 {
        write!(out, "X{n:02}={:016x}", get(regs::x(n)))?;
        out.push(if n % 3 == 1 { '\n' } else { ' ' });
    }
    writeln!(out, "SP={:016x}", get(regs::SP))?;
    let nzcv = mode::nzcv(core);
    let letters: String = [(31u32, 'N'), (30, 'Z'), (29, 'C'), (28, 'V')]
        .into_iter()
        .map(|(bit, letter)| {
            if nzcv.wrapping_shr(bit) & 1 != 0 {
                letter
            } else {
                '-'
            }
        })
        .collect();
    let level = match (core.arch.el, core.arch.sp_sel) {
        (0, _) if core.arch.aarch32 => match core.arch.thumb {
            true => "T usr32".to_string(),
            false => "A usr32".to_string(),
        },
        (0, _) => "EL0t".to_string(),
        (el, sel) => format!("EL{el}{}", if sel { 'h' } else { 't' }),
    };
    let pstate = super::exception::pstate(core);
    let world = match (core.arch.el, core.arch.model.has(Feature::El3)) {
        (3, _) | (_, false) => "",
        _ if control::is_secure_below_el3(core) => "S ",
        _ => "NS ",
    };
    writeln!(out, "PSTATE={pstate:08x} {letters} {world}{level}")?;
    writeln!(
        out,
        "FPCR={:08x} FPSR={:08x}",
        get(regs::FPCR),
        crate::float::fpsr_now(core)
    )?;
    for n in 0..32u32 {
        let v = core.regs.get_v(regs::v(n));
        write!(out, "Q{n:02}={:016x}:{:016x}", (v >> 64) as u64, v as u64)?;
        out.push(if n & 1 == 1 { '\n' } else { ' ' });
    }
    Ok(())
}

/// The physical address behind a virtual one, without side effects.
pub(crate) fn debug_translate(core: &Core, va: u64) -> Option<u64> {
    let query = |ctx| Query {
        va,
        access: accel_core::Access::Read,
        regime: control::regime(core),
        ctx,
        update: false,
        first_stage: false,
    };
    let found = translation::find(core, &query(ctx::PRIVILEGED))
        .or_else(|_| translation::find(core, &query(ctx::USER)));
    found.ok().map(|f| f.physical)
}
