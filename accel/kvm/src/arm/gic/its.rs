//! The translation service. Its tables, and which messages are pending, are in guest memory: the kernel
//! writes and reads them when it is told to.

use std::io;

use hw_intc::GicItsState;

use super::{Attributes, group};

const GITS_CTLR: u64 = 0x0000;
const GITS_CBASER: u64 = 0x0080;
const GITS_CWRITER: u64 = 0x0088;
const GITS_CREADR: u64 = 0x0090;
const GITS_BASER: u64 = 0x0100;
const ENABLED: u64 = 1;
const VALID: u64 = 1 << 63;
/// `KVM_DEV_ARM_ITS_*`.
const SAVE_TABLES: u64 = 1;
const RESTORE_TABLES: u64 = 2;
const RESET: u64 = 4;

/// Reads the registers; with `tables`, has the tables written.
pub(crate) fn read(chip: &impl Attributes, tables: bool) -> io::Result<GicItsState> {
    let get = |offset| chip.get64(group::ITS_REGS, offset);
    let state = GicItsState {
        enabled: get(GITS_CTLR)? & ENABLED != 0,
        cbaser: get(GITS_CBASER)?,
        cwriter: get(GITS_CWRITER)?,
        creadr: get(GITS_CREADR)?,
        baser: [get(GITS_BASER)?, get(GITS_BASER + 8)?],
    };
    if tables && state.enabled {
        chip.order(group::CTRL, SAVE_TABLES)?;
    }
    Ok(state)
}

/// Replaces the registers. The order is the kernel's: tables are read between the rest and the start.
pub(crate) fn write(chip: &impl Attributes, state: &GicItsState) -> io::Result<()> {
    chip.order(group::CTRL, RESET)?;
    let [devices, collections] = state.baser;
    for (offset, value) in [
        (GITS_CBASER, state.cbaser),
        (GITS_CREADR, state.creadr),
        (GITS_CWRITER, state.cwriter),
        (GITS_BASER, devices),
        (GITS_BASER + 8, collections),
    ] {
        // After a reset the kernel has its own values, which a guest begins with.
        if state.enabled || value & VALID != 0 {
            chip.set64(group::ITS_REGS, offset, value)?;
        }
    }
    if state.enabled {
        chip.order(group::CTRL, RESTORE_TABLES)?;
    }
    let control = chip.get64(group::ITS_REGS, GITS_CTLR)?;
    let enabled = u64::from(state.enabled) * ENABLED;
    chip.set64(group::ITS_REGS, GITS_CTLR, control & !ENABLED | enabled)
}
