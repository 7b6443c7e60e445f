//! Version 2: distributor and CPU interfaces. The kernel does not tell the levels of inputs.

use std::io;

use hw_intc::{GicCpu, GicState};

use super::{Attributes, BankAt, CPU_SHIFT, group};

const GICD_CTLR: u64 = 0x000;
const GICD_ITARGETSR: u64 = 0x800;
const GICD_CPENDSGIR: u64 = 0xf10;
const GICD_SPENDSGIR: u64 = 0xf20;
const GICC_CTLR: u64 = 0x00;
const GICC_PMR: u64 = 0x04;
const GICC_BPR: u64 = 0x08;
const GICC_ABPR: u64 = 0x1c;
const GICC_APR: u64 = 0xd0;
const FIRST_SPI: u64 = 32;
/// Group enables of GICC_CTLR.
const GROUPS: u32 = 3;
/// The kernel has GICC_PMR in the five bits of GICH_VMCR.VMPriMask.
const PMR_SHIFT: u32 = 3;

fn bank<A>(chip: &A, cpu: u64, n: u64) -> BankAt<'_, A> {
    BankAt {
        chip,
        group: group::DIST_REGS,
        frame: cpu << CPU_SHIFT,
        n,
    }
}

/// Reads the state of a controller that was made like `old`, whose levels of inputs are true.
pub(crate) fn read(chip: &impl Attributes, old: &GicState) -> io::Result<GicState> {
    let mut state = old.clone();
    state.ctlr = chip.get32(group::DIST_REGS, GICD_CTLR)? & 3;
    for (n, spis) in (1..).zip(&mut state.spis) {
        let lines = spis.lines;
        *spis = bank(chip, 0, n).read(lines)?;
        // What an input makes pending is told along.
        spis.latched &= !(lines & !spis.edges);
    }
    for (first, routes) in (FIRST_SPI..).step_by(4).zip(state.routes.chunks_mut(4)) {
        let bytes = chip.get32(group::DIST_REGS, GICD_ITARGETSR + first)?;
        for (route, byte) in routes.iter_mut().zip(bytes.to_le_bytes()) {
            *route = byte.into();
        }
    }
    for (n, cpu) in (0..).zip(&mut state.cpus) {
        read_cpu(chip, n, cpu)?;
    }
    Ok(state)
}

fn read_cpu(chip: &impl Attributes, n: u64, cpu: &mut GicCpu) -> io::Result<()> {
    let at = n << CPU_SHIFT;
    cpu.bank = bank(chip, n, 0).read(cpu.bank.lines)?;
    for (word, sources) in (0..).zip(cpu.sgi_sources.as_chunks_mut::<4>().0) {
        let offset = GICD_SPENDSGIR + 4 * word;
        *sources = chip.get32(group::DIST_REGS, at + offset)?.to_le_bytes();
    }
    let get = |offset| chip.get32(group::CPU_REGS, at + offset);
    let control = get(GICC_CTLR)?;
    cpu.ctlr = control & !GROUPS;
    cpu.groups = (control & GROUPS) as u8;
    cpu.pmr = (get(GICC_PMR)? << PMR_SHIFT) as u8;
    cpu.bpr = [get(GICC_BPR)? as u8, get(GICC_ABPR)? as u8, cpu.bpr[2]];
    cpu.apr = [get(GICC_APR)?, 0, 0];
    Ok(())
}

/// Replaces the state, but for the levels of inputs.
pub(crate) fn write(chip: &impl Attributes, state: &GicState) -> io::Result<()> {
    chip.set32(group::DIST_REGS, GICD_CTLR, state.ctlr)?;
    for (first, routes) in (FIRST_SPI..).step_by(4).zip(state.routes.chunks(4)) {
        let value = routes
            .iter()
            .rev()
            .fold(0, |v, r| v << 8 | *r as u32 & 0xff);
        chip.set32(group::DIST_REGS, GICD_ITARGETSR + first, value)?;
    }
    for (n, spis) in (1..).zip(&state.spis) {
        bank(chip, 0, n).write(spis)?;
    }
    for (n, cpu) in (0..).zip(&state.cpus) {
        write_cpu(chip, n, cpu)?;
    }
    Ok(())
}

fn write_cpu(chip: &impl Attributes, n: u64, cpu: &GicCpu) -> io::Result<()> {
    let at = n << CPU_SHIFT;
    bank(chip, n, 0).write(&cpu.bank)?;
    for (word, sources) in (0..).zip(cpu.sgi_sources.as_chunks::<4>().0) {
        chip.set32(group::DIST_REGS, at + GICD_CPENDSGIR + 4 * word, u32::MAX)?;
        let value = u32::from_le_bytes(*sources);
        chip.set32(group::DIST_REGS, at + GICD_SPENDSGIR + 4 * word, value)?;
    }
    let [bpr, alias, _] = cpu.bpr;
    let [apr0, apr1, _] = cpu.apr;
    for (offset, value) in [
        (GICC_CTLR, cpu.ctlr & !GROUPS | u32::from(cpu.groups)),
        (GICC_PMR, u32::from(cpu.pmr) >> PMR_SHIFT),
        (GICC_BPR, bpr.into()),
        (GICC_ABPR, alias.into()),
        (GICC_APR, apr0 | apr1),
    ] {
        chip.set32(group::CPU_REGS, at + offset, value)?;
    }
    Ok(())
}
