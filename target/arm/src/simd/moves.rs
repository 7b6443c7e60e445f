//! Immediates, copies, permutations, tables (C4.1.97 "Advanced SIMD copy", "permute", "extract",
//! "table lookup", "modified immediate").

use super::{Lanes, set_v, v};
use crate::a64::simd::Insn;
use crate::{Core, regs};

/// `VFPExpandImm` for a format of 16, 32 or 64 bits.
pub(crate) fn float_immediate(imm: u32, bits: u32) -> u64 {
    let (exponent, fraction) = match bits {
        16 => (5, 10),
        32 => (8, 23),
        _ => (11, 52),
    };
    let imm = u64::from(imm);
    let (sign, top, low) = (imm >> 7, imm >> 6 & 1, imm >> 4 & 3);
    let repeated = if top != 0 {
        // shift: below the width of a lane
        (1 << (exponent - 3)) - 1
    } else {
        0
    };
    // shift: below the width of a lane
    let exponent_field = (top ^ 1) << (exponent - 1) | repeated << 2 | low;
    // shift: below the width of a lane
    sign << (bits - 1) | exponent_field << fraction | (imm & 15) << (fraction - 4)
}

/// `AdvSIMDExpandImm`.
pub(crate) fn expand_immediate(op: u32, cmode: u32, imm: u32) -> u64 {
    let wide = u64::from(imm);
    let repeat = |value: u64, bits: u32| (0..64 / bits).fold(0, |v, _| v << (bits % 64) | value);
    match (cmode >> 1, cmode & 1) {
        (0..=3, _) => repeat(wide << (8 * (cmode >> 1)), 32),
        (4 | 5, _) => repeat(wide << (8 * (cmode >> 1 & 1)), 16),
        (6, 0) => repeat(wide << 8 | 0xff, 32),
        (6, _) => repeat(wide << 16 | 0xffff, 32),
        (_, 0) if op == 0 => repeat(wide, 8),
        // shift: below the width of a lane
        (_, 0) => (0..8).fold(0, |v, i| v | ((wide >> i & 1) * 0xff) << (8 * i)),
        _ if op == 0 => repeat(float_immediate(imm, 32), 32),
        _ => float_immediate(imm, 64),
    }
}

fn x(core: &Core, n: u32) -> u64 {
    match n {
        31 => 0,
        _ => core.regs.get(regs::x(n)),
    }
}

pub(super) fn execute(core: &mut Core, insn: Insn) -> Option<()> {
    match insn {
        Insn::ModifiedImm {
            q,
            op,
            high,
            cmode,
            o2,
            low,
            rd,
        } => {
            let imm = high << 5 | low;
            let half = o2 != 0;
            if half && (cmode != 15 || op != 0 || !core.arch.model.has_fp16()) {
                return None;
            }
            if !half && cmode == 15 && op != 0 && q == 0 {
                return None;
            }
            let value = if half {
                float_immediate(imm, 16) * 0x0001_0001_0001_0001
            } else {
                expand_immediate(op, cmode, imm)
            };
            let both = u128::from(value) | u128::from(value) << 64;
            let kept = if q != 0 { u128::MAX } else { u64::MAX.into() };
            // ORR and BIC for odd cmode below 12.
            let old = v(core, rd);
            let result = match (cmode & 1 != 0 && cmode < 12, op) {
                (true, 0) => old | both,
                (true, _) => old & !both,
                (false, 1) if cmode < 14 => !both,
                _ => both,
            };
            set_v(core, rd, result & kept);
        }
        Insn::Copy {
            q,
            op,
            imm5,
            imm4,
            rn,
            rd,
        } => return copy(core, (q, op), (imm5, imm4), (rd, rn)),
        Insn::CopyScalar { imm5, rn, rd } => {
            let (size, index) = lane(imm5)?;
            // shift: below the width of a lane
            let value = Lanes::new(8 << size, 1, 0).get(v(core, rn), index);
            set_v(core, rd, value.into());
        }
        Insn::Permute {
            q,
            size,
            rm,
            opcode,
            rn,
            rd,
        } => {
            if size == 3 && q == 0 {
                return None;
            }
            // shift: below the width of a lane
            let lanes = Lanes::new(8 << size, q, 0);
            let (a, b) = (v(core, rn), v(core, rm));
            let part = opcode >> 2;
            let half = lanes.count / 2;
            // The second operand follows the first.
            let both = |i: u32| match i.checked_sub(lanes.count) {
                Some(i) => lanes.get(b, i),
                None => lanes.get(a, i),
            };
            let result = match opcode & 3 {
                1 => lanes.build(|i| both(2 * i + part)),
                2 => lanes.build(|i| {
                    let from = if i & 1 == 0 { a } else { b };
                    lanes.get(from, (i & !1) + part)
                }),
                3 => lanes.build(|i| {
                    let from = if i & 1 == 0 { a } else { b };
                    lanes.get(from, i / 2 + part * half)
                }),
                _ => return None,
            };
            set_v(core, rd, result);
        }
        Insn::Ext {
            q,
            rm,
            index,
            rn,
            rd,
        } => {
            let (a, b) = (v(core, rn), v(core, rm));
            let result = if q != 0 {
                match index {
                    0 => a,
                    n => a >> (8 * n) | b << (128 - 8 * n),
                }
            } else if index > 7 {
                return None;
            } else {
                let both = u128::from(a as u64) | b << 64;
                u128::from((both >> (8 * index)) as u64)
            };
            set_v(core, rd, result);
        }
        Insn::Tbl {
            q,
            rm,
            len,
            op,
            rn,
            rd,
        } => {
            let lanes = Lanes::new(8, q, 0);
            let (indices, old) = (v(core, rm), v(core, rd));
            let result = lanes.build(|i| {
                let index = lanes.get(indices, i) as u32;
                if index / 16 <= len {
                    let from = v(core, (rn + index / 16) & 31);
                    return (from >> (8 * (index & 15))) as u64;
                }
                if op != 0 { lanes.get(old, i) } else { 0 }
            });
            set_v(core, rd, result);
        }
        _ => return None,
    }
    Some(())
}

/// Size and index of a lane by `imm5`.
fn lane(imm5: u32) -> Option<(u32, u32)> {
    let size = imm5.trailing_zeros();
    // shift: below the width of a lane
    (size < 4).then(|| (size, imm5 >> (size + 1)))
}

fn copy(
    core: &mut Core,
    (q, op): (u32, u32),
    (imm5, imm4): (u32, u32),
    (rd, rn): (u32, u32),
) -> Option<()> {
    let (size, index) = lane(imm5)?;
    // shift: below the width of a lane
    let lanes = Lanes::new(8 << size, 1, 0);
    // shift: below the width of a lane
    let part = Lanes::new(8 << size, q, 0);
    let a = v(core, rn);
    match (op, imm4) {
        // DUP.
        (0, 0) if size < 3 || q != 0 => {
            let value = lanes.get(a, index);
            set_v(core, rd, part.build(|_| value));
        }
        (0, 1) if size < 3 || q != 0 => {
            let value = x(core, rn);
            set_v(core, rd, part.build(|_| value));
        }
        // SMOV, UMOV.
        (0, 5) if size < 2 + q => {
            let value = lanes.signed(a, index) as u64;
            let value = if q != 0 { value } else { value & 0xffff_ffff };
            set_x(core, rd, value);
        }
        (0, 7) if (size == 3) == (q != 0) => set_x(core, rd, lanes.get(a, index)),
        // INS.
        (0, 3) if q != 0 => {
            let mut value = v(core, rd);
            let new = x(core, rn);
            lanes.put(&mut value, index, new);
            set_v(core, rd, value);
        }
        (1, _) if q != 0 => {
            let mut value = v(core, rd);
            // shift: below the width of a lane
            lanes.put(&mut value, index, lanes.get(a, imm4 >> size));
            set_v(core, rd, value);
        }
        _ => return None,
    }
    Some(())
}

fn set_x(core: &mut Core, n: u32, value: u64) {
    if n != 31 {
        core.regs.set(regs::x(n), value);
    }
}
