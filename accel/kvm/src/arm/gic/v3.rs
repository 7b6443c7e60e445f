//! Version 3: distributor, redistributors, CPU interfaces.

use std::io;

use hw_intc::{GicCpu, GicState};

use super::{Attributes, BankAt, CPU_SHIFT, group};

const GICD_CTLR: u64 = 0x0000;
const GICD_IROUTER: u64 = 0x6000;
const FIRST_SPI: u64 = 32;
const GICR_CTLR: u64 = 0x0000;
const GICR_PROPBASER: u64 = 0x0070;
const GICR_PENDBASER: u64 = 0x0078;
/// The frame of private interrupts.
const SGI_FRAME: u64 = 0x1_0000;
const ENABLE_LPIS: u32 = 1;

/// The CPU interface's registers by encoding: op0, op1, CRn, CRm, op2.
mod icc {
    const fn reg(crn: u64, crm: u64, op2: u64) -> u64 {
        3 << 14 | crn << 7 | crm << 3 | op2
    }
    pub(super) const PMR: u64 = reg(4, 6, 0);
    pub(super) const BPR0: u64 = reg(12, 8, 3);
    pub(super) const AP0R0: u64 = reg(12, 8, 4);
    pub(super) const AP1R0: u64 = reg(12, 9, 0);
    pub(super) const BPR1: u64 = reg(12, 12, 3);
    pub(super) const CTLR: u64 = reg(12, 12, 4);
    pub(super) const IGRPEN0: u64 = reg(12, 12, 6);
    pub(super) const IGRPEN1: u64 = reg(12, 12, 7);
    /// EOImode and CBPR of CTLR: the rest says what there is.
    pub(super) const CTLR_WRITABLE: u64 = 3;
}

/// Aff3 to Aff0 of a CPU, where attributes have them.
fn place(affinity: u64) -> u64 {
    ((affinity >> 32 & 0xff) << 24 | affinity & 0x00ff_ffff) << CPU_SHIFT
}

/// Levels of 32 inputs.
fn levels(cpu: u64, bank: u64) -> u64 {
    cpu + bank * 32
}

fn spis<A>(chip: &A, n: u64) -> BankAt<'_, A> {
    BankAt {
        chip,
        group: group::DIST_REGS,
        frame: 0,
        n,
    }
}

fn private<A>(chip: &A, cpu: u64) -> BankAt<'_, A> {
    BankAt {
        chip,
        group: group::REDIST_REGS,
        frame: cpu + SGI_FRAME,
        n: 0,
    }
}

fn get_long(chip: &impl Attributes, group: u32, at: u64) -> io::Result<u64> {
    let low = chip.get32(group, at)?;
    Ok(u64::from(chip.get32(group, at + 4)?) << 32 | u64::from(low))
}

fn set_long(chip: &impl Attributes, group: u32, at: u64, value: u64) -> io::Result<()> {
    chip.set32(group, at, value as u32)?;
    chip.set32(group, at + 4, (value >> 32) as u32)
}

/// Reads the state of a controller that was made like `old`.
pub(crate) fn read(
    chip: &impl Attributes,
    affinities: &[u64],
    old: &GicState,
) -> io::Result<GicState> {
    let mut state = old.clone();
    state.ctlr = chip.get32(group::DIST_REGS, GICD_CTLR)? & 3;
    for (n, bank) in (1..).zip(&mut state.spis) {
        let lines = chip.get32(group::LEVEL_INFO, levels(0, n))?;
        *bank = spis(chip, n).read(lines)?;
    }
    for (intid, route) in (FIRST_SPI..).zip(&mut state.routes) {
        *route = get_long(chip, group::DIST_REGS, GICD_IROUTER + 8 * intid)?;
    }
    for (affinity, cpu) in affinities.iter().zip(&mut state.cpus) {
        read_cpu(chip, place(*affinity), cpu)?;
    }
    Ok(state)
}

fn read_cpu(chip: &impl Attributes, at: u64, cpu: &mut GicCpu) -> io::Result<()> {
    let lines = chip.get32(group::LEVEL_INFO, levels(at, 0))?;
    cpu.bank = private(chip, at).read(lines)?;
    let control = chip.get32(group::REDIST_REGS, at + GICR_CTLR)?;
    cpu.lpis.enabled = control & ENABLE_LPIS != 0;
    cpu.lpis.propbaser = get_long(chip, group::REDIST_REGS, at + GICR_PROPBASER)?;
    cpu.lpis.pendbaser = get_long(chip, group::REDIST_REGS, at + GICR_PENDBASER)?;
    // Which are pending is in guest memory.
    cpu.lpis.clear();
    cpu.asleep = false;
    let get = |reg| chip.get64(group::CPU_SYSREGS, at | reg);
    cpu.pmr = get(icc::PMR)? as u8;
    cpu.bpr = [get(icc::BPR0)? as u8, get(icc::BPR1)? as u8, cpu.bpr[2]];
    cpu.apr = [get(icc::AP0R0)? as u32, get(icc::AP1R0)? as u32, 0];
    cpu.ctlr = (get(icc::CTLR)? & icc::CTLR_WRITABLE) as u32;
    cpu.groups = (get(icc::IGRPEN0)? & 1 | (get(icc::IGRPEN1)? & 1) << 1) as u8;
    Ok(())
}

/// Replaces the state.
pub(crate) fn write(
    chip: &impl Attributes,
    affinities: &[u64],
    state: &GicState,
) -> io::Result<()> {
    chip.set32(group::DIST_REGS, GICD_CTLR, state.ctlr)?;
    for (intid, route) in (FIRST_SPI..).zip(&state.routes) {
        set_long(chip, group::DIST_REGS, GICD_IROUTER + 8 * intid, *route)?;
    }
    for (n, bank) in (1..).zip(&state.spis) {
        spis(chip, n).write(bank)?;
        // An edge is not made anew by a level.
        chip.set32(group::LEVEL_INFO, levels(0, n), bank.lines & !bank.edges)?;
    }
    for (affinity, cpu) in affinities.iter().zip(&state.cpus) {
        write_cpu(chip, place(*affinity), cpu)?;
    }
    Ok(())
}

fn write_cpu(chip: &impl Attributes, at: u64, cpu: &GicCpu) -> io::Result<()> {
    // The tables hold while LPIs are enabled.
    chip.set32(group::REDIST_REGS, at + GICR_CTLR, 0)?;
    let bases = [
        (GICR_PROPBASER, cpu.lpis.propbaser),
        (GICR_PENDBASER, cpu.lpis.pendbaser),
    ];
    for (offset, value) in bases {
        set_long(chip, group::REDIST_REGS, at + offset, value)?;
    }
    private(chip, at).write(&cpu.bank)?;
    let lines = cpu.bank.lines & !cpu.bank.edges;
    chip.set32(group::LEVEL_INFO, levels(at, 0), lines)?;
    let enable = u32::from(cpu.lpis.enabled) * ENABLE_LPIS;
    chip.set32(group::REDIST_REGS, at + GICR_CTLR, enable)?;
    let control = chip.get64(group::CPU_SYSREGS, at | icc::CTLR)?;
    let control = control & !icc::CTLR_WRITABLE | u64::from(cpu.ctlr) & icc::CTLR_WRITABLE;
    let [bpr0, bpr1, _] = cpu.bpr;
    let [ap0, ap1, _] = cpu.apr;
    for (reg, value) in [
        (icc::CTLR, control),
        (icc::PMR, cpu.pmr.into()),
        (icc::BPR0, bpr0.into()),
        (icc::BPR1, bpr1.into()),
        (icc::AP0R0, ap0.into()),
        (icc::AP1R0, ap1.into()),
        (icc::IGRPEN0, (cpu.groups & 1).into()),
        (icc::IGRPEN1, (cpu.groups >> 1 & 1).into()),
    ] {
        chip.set64(group::CPU_SYSREGS, at | reg, value)?;
    }
    Ok(())
}
