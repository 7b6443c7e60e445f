//! Loads and stores of pairs (DDI 0487, C4.1.95 "Load/store register pair").

use accel_ir::{Mem, Ty};

use super::ty_of;
use crate::a64::context::{Ctx, width};

/// LDP, STP, LDPSW, LDNP and STNP.
pub(super) fn pair(
    c: &mut Ctx,
    (opc, v, l): (u32, u32, u32),
    mode: u32,
    imm: i32,
    (rt, rt2, rn): (u32, u32, u32),
) -> Option<()> {
    let (ty, signed) = match (opc, v) {
        (3, _) => return None,
        (1, 0) => match (l, mode) {
            (0, _) | (_, 0) => return None,
            _ => (Ty::I32, true),
        },
        (_, 0) => (width(opc >> 1), false),
        _ => (ty_of(opc.wrapping_add(2)), false),
    };
    if v != 0 && !c.fp_access() {
        return Some(());
    }
    let bytes = u32::from(ty.bytes());
    let base = c.x_sp(rn, Ty::I64);
    let moved = c.offset(base, i64::from(imm).wrapping_mul(bytes.into()));
    let address = if mode == 1 { base } else { moved };
    let second = c.offset(address, bytes.into());
    let mem = c.mem(ty);
    let back = (mode & 1 != 0).then_some((rn, moved));
    if l == 0 {
        let (a, b) = match v {
            0 => (c.x(rt, ty), c.x(rt2, ty)),
            _ => (c.v_low(rt, ty), c.v_low(rt2, ty)),
        };
        if ty == Ty::I32 {
            // One store of twice the size (as below), where that faults alike.
            let a = c.b.zext(a, Ty::I64);
            let both = c.b.insert(a, b, 32, 32);
            let mem = Mem {
                ty: Ty::I64,
                aligned: false,
                ..mem
            };
            if c.mode.is_aligned() {
                let aligned = Mem {
                    ty: Ty::I32,
                    ..c.mem(Ty::I32)
                };
                c.b.probe(address, aligned);
            }
            c.b.store(address, both, mem);
        } else if ty == Ty::I64 && !c.mode.is_aligned() {
            let both = c.b.vec_make(a, b);
            let mem = Mem {
                ty: Ty::V128,
                ..mem
            };
            c.b.store(address, both, mem);
        } else {
            // Both or none.
            c.b.probe(second, mem);
            c.b.store(address, a, mem);
            c.b.store(second, b, mem);
        }
        if let Some((rn, v)) = back {
            c.set_x_sp(rn, v);
        }
        return Some(());
    }
    let a = c.b.load(address, mem);
    let b = c.b.load(second, mem);
    if let Some((rn, v)) = back {
        c.set_x_sp(rn, v);
    }
    for (n, value) in [(rt, a), (rt2, b)] {
        if v != 0 {
            c.set_v_low(n, value);
        } else if signed {
            let wide = c.b.sext(value, Ty::I64);
            c.set_x(n, wide);
        } else {
            c.set_x(n, value);
        }
    }
    Some(())
}
