//! Advanced SIMD (DDI 0487, F5.1): translation. Loads and stores of whole registers are IR, and integers in
//! Q registers as they are in A64; all else is done by [`super::lanes`] and [`super::structures`].

use accel_ir::{Binary, Mem, Ty, Val};

use super::as_a64;
use super::context::Ctx;
use super::vfp::{d_slot, number};
use crate::a64::simd;
use crate::helper;

mod table {
    include!(concat!(env!("OUT_DIR"), "/neon.rs"));
}
pub(super) use table::{FORMS, Insn, decode};

/// Has an access fault whose address is no multiple of `bytes`.
pub(super) fn check_alignment(c: &mut Ctx, address: Val, bytes: u64, write: bool) {
    if bytes <= 1 {
        return;
    }
    let low = c.binary_imm(Binary::And, address, bytes.wrapping_sub(1));
    let (bad, good) = (c.b.block(), c.b.block());
    c.b.branch(low, bad, good);
    c.b.switch(bad);
    let how = c.imm(Ty::I64, write.into());
    c.b.call_void(helper::MISALIGNED, &[address, how]);
    c.b.leave();
    c.b.switch(good);
}

pub(super) fn translate(c: &mut Ctx, word: u32) -> Option<()> {
    let insn = decode(word)?;
    if !c.fp_access() {
        return Some(());
    }
    match insn {
        Insn::NMulti {
            d,
            l,
            rn,
            vd,
            r#type,
            size,
            align,
            rm,
        } => {
            let shape = super::structures::multiple(insn)?;
            let base = base(c, rn)?;
            let first = number(true, vd, d);
            let bytes = if align == 0 {
                1
            } else {
                4u64.wrapping_shl(align)
            };
            // VLD1 and VST1, unless a byte order or elements that must be aligned matter.
            if matches!(r#type, 7 | 10 | 6 | 2)
                && !c.mode.is_big_endian()
                && (!c.mode.is_aligned() || size == 3)
            {
                check_alignment(c, base, bytes, l == 0);
                plain(c, base, l != 0, first, shape.registers());
            } else {
                by_helper(c, base, word);
            }
            write_back(c, rn, rm, shape.bytes())
        }
        Insn::NSingle { rn, rm, .. } | Insn::NAll { rn, rm, .. } => {
            let shape = super::structures::single(insn)?;
            let base = base(c, rn)?;
            by_helper(c, base, word);
            write_back(c, rn, rm, shape.bytes())
        }
        _ => {
            if !super::lanes::is_there(&c.model, insn) {
                return None;
            }
            let own = as_a64::word(insn);
            if own.and_then(|own| simd::integers(c, own)).is_some() {
                return Some(());
            }
            let word = c.imm(Ty::I64, word.into());
            c.b.call_void(helper::LANES_32, &[word]);
            Some(())
        }
    }
}

fn base(c: &mut Ctx, rn: u32) -> Option<Val> {
    super::bits::no_pc(&[rn])?;
    let base = c.r(rn);
    Some(c.address(base))
}

/// Whole D registers one after the other.
fn plain(c: &mut Ctx, base: Val, load: bool, first: u32, count: u32) {
    let mem = Mem {
        aligned: c.mode.is_aligned(),
        ..c.data(Ty::I64)
    };
    let places = (0..u64::from(count)).map(|n| n.wrapping_mul(8));
    let registers = first..first.wrapping_add(count);
    if load {
        let mut loaded = Vec::with_capacity(4);
        for (n, at) in registers.zip(places) {
            let address = c.past(base, at);
            loaded.push((n, c.b.load(address, mem)));
        }
        for (n, v) in loaded {
            c.b.set(d_slot(n), v);
        }
        return;
    }
    if count > 1 {
        let last = c.past(base, u64::from(count).wrapping_sub(1).wrapping_mul(8));
        c.b.probe(last, mem);
    }
    for (n, at) in registers.zip(places) {
        let v = c.b.get(d_slot(n));
        let address = c.past(base, at);
        c.b.store(address, v, mem);
    }
}

fn by_helper(c: &mut Ctx, base: Val, word: u32) {
    let word = c.imm(Ty::I64, word.into());
    let how = u64::from(c.mode.ctx())
        | u64::from(c.mode.is_big_endian()) << 8
        | u64::from(c.mode.is_aligned()) << 9;
    let how = c.imm(Ty::I64, how);
    c.b.call_void(helper::STRUCTURES_32, &[base, word, how]);
}

/// Register 15 is no write-back, 13 adds what was moved.
fn write_back(c: &mut Ctx, rn: u32, rm: u32, bytes: u32) -> Option<()> {
    if rm == 15 {
        return Some(());
    }
    let base = c.r(rn);
    let moved = match rm {
        13 => c.b.add_const(base, bytes.into()),
        _ => {
            let step = c.r(rm);
            c.b.add(base, step)
        }
    };
    c.set_r(rn, moved);
    Some(())
}
