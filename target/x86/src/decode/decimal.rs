//! Decimal adjustment: AAA, AAS, AAM, AAD, DAA, DAS (SDM vol. 2).

use accel_core::Trap;
use accel_ir::flags::{AF, CF, FlagKind, pack};
use accel_ir::{FlagKind as Kind, Ty};
use iced_x86::Mnemonic;

use super::check;
use super::context::Ctx;
use crate::Core;
use crate::regs::index::RAX;
use crate::state::vector;

const AAA: u64 = 0;
const AAS: u64 = 1;
const AAM: u64 = 2;
const AAD: u64 = 3;
const DAA: u64 = 4;
const DAS: u64 = 5;

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    let operation = match c.insn.mnemonic() {
        Mnemonic::Aaa => AAA,
        Mnemonic::Aas => AAS,
        Mnemonic::Aam => AAM,
        Mnemonic::Aad => AAD,
        Mnemonic::Daa => DAA,
        Mnemonic::Das => DAS,
        _ => return false,
    };
    let immediate = c.immediate(0) & 0xff;
    if operation == AAM && immediate == 0 {
        c.raise_and_end(vector::DE, None);
        return true;
    }
    let operation = c.const64(operation);
    let immediate = c.const64(immediate);
    let ax = c.reg(RAX, Ty::I16);
    let flags = c.b.flags_get();
    let both = c.b.call(check::ADJUST, &[operation, ax, flags, immediate]);
    let ax = c.b.zext(both, Ty::I16);
    let flags = c.b.extract(both, 16, 16, Ty::I64);
    c.set_flags(flags);
    c.set_reg(RAX, ax);
    true
}

fn szp(al: u64) -> u64 {
    pack(Kind::Logic, Ty::I8, al, al, 0)
}

/// The helper: AX | flags << 16.
pub(super) fn adjust(
    _: &mut Core,
    [operation, ax, flags, immediate]: [u64; 4],
) -> Result<u64, Trap> {
    let (al, ah) = (ax & 0xff, ax >> 8 & 0xff);
    let (af, cf) = (flags & AF != 0, flags & CF != 0);
    let both = |al: u64, ah: u64| (ah & 0xff) << 8 | al & 0xff;
    let low_carry = al & 15 > 9 || af;
    let (ax, flags) = match operation {
        AAA | AAS => {
            let delta = if low_carry { 0x106 } else { 0 };
            let ax = if operation == AAA {
                ax.wrapping_add(delta)
            } else {
                ax.wrapping_sub(delta)
            };
            let ax = both(ax & 15, ax >> 8);
            (ax, szp(ax & 0xff) | if low_carry { AF | CF } else { 0 })
        }
        AAM => {
            let quotient = al.checked_div(immediate).unwrap_or(0);
            let rest = al.checked_rem(immediate).unwrap_or(0);
            (both(rest, quotient), szp(rest))
        }
        AAD => {
            let product = ah.wrapping_mul(immediate) & 0xff;
            let sum = al.wrapping_add(product) & 0xff;
            // As an 8-bit addition, which is what processors do with the undefined flags.
            (sum, pack(FlagKind::Add, Ty::I8, al, product, 0))
        }
        _ => {
            let high_carry = al > 0x99 || cf;
            let delta = if low_carry { 6 } else { 0 } | if high_carry { 0x60 } else { 0 };
            let sum = if operation == DAS {
                al.wrapping_sub(delta) & 0xff
            } else {
                al.wrapping_add(delta) & 0xff
            };
            // DAS also carries when the low digit borrows through the whole byte.
            let borrowed = operation == DAS && low_carry && al < 6;
            let mut flags = szp(sum);
            if low_carry {
                flags |= AF;
            }
            if high_carry || borrowed {
                flags |= CF;
            }
            (both(sum, ah), flags)
        }
    };
    Ok(ax & 0xffff | flags << 16)
}
