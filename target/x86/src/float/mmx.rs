//! The helpers behind MMX registers, which live in the x87's significands (SDM vol. 1, 9.5), and
//! masked stores.

use accel_core::Trap;

use crate::{Core, regs};

/// (n): MMX register n.
pub(super) fn get(core: &mut Core, [n, ..]: [u64; 4]) -> Result<u64, Trap> {
    Ok(core.arch.x87.mm(n as u8))
}

/// (n, value): writes MMX register n; its instruction has called [`touch`].
pub(super) fn set(core: &mut Core, [n, value, ..]: [u64; 4]) -> Result<u64, Trap> {
    core.arch.x87.put_mm(n as u8, value);
    Ok(0)
}

/// What every MMX instruction does to TOP and the tags.
pub(super) fn touch(core: &mut Core, _: [u64; 4]) -> Result<u64, Trap> {
    core.arch.x87.enter_mmx();
    Ok(0)
}

/// EMMS.
pub(super) fn empty(core: &mut Core, _: [u64; 4]) -> Result<u64, Trap> {
    core.arch.x87.top = 0;
    core.arch.x87.used = 0;
    Ok(0)
}

/// MASKMOVQ, MASKMOVDQU: (data | mask << 8 | MMX << 16 | context << 24, address). Faults as a store
/// of all bytes would.
pub(super) fn masked_store(core: &mut Core, [code, address, ..]: [u64; 4]) -> Result<u64, Trap> {
    let [data, mask, mmx, ctx, ..] = code.to_le_bytes();
    let value = |core: &Core, n: u8| {
        if mmx != 0 {
            core.arch.x87.mm(n).into()
        } else {
            core.regs.get_v(regs::xmm(n.into()))
        }
    };
    let bytes = value(core, data).to_le_bytes();
    let mask = value(core, mask).to_le_bytes();
    core.probe_write(address, if mmx != 0 { 8 } else { 16 }, ctx)?;
    for (i, (byte, mask)) in (0..).zip(bytes.iter().zip(mask)) {
        if mask & 0x80 != 0 {
            core.store(address.wrapping_add(i), 1, (*byte).into(), ctx)?;
        }
    }
    Ok(0)
}
