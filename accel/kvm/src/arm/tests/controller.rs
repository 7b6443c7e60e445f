//! A GIC's registers to and from the models'.

use hw_intc::{GIC_BANK, GicBank, GicItsState, GicState, GicVersion};
use proptest::prelude::*;

use super::super::gic::{
    Attributes, group, read_its, read_v2, read_v3, write_its, write_v2, write_v3,
};
use super::*;

/// Registers with an alias that clears what is written to it.
const CLEARS: [(u64, u64); 3] = [(0x180, 0x100), (0x280, 0x200), (0x380, 0x300)];

fn key(group: u32, attribute: u64) -> u64 {
    u64::from(group) << 56 | attribute & 0x00ff_ffff_ffff_ffff
}

/// As the kernel's, with just what a transfer needs to know.
impl Attributes for Values {
    fn get32(&self, group: u32, attribute: u64) -> io::Result<u32> {
        self.get64(group, attribute).map(|value| value as u32)
    }

    fn set32(&self, group: u32, attribute: u64, value: u32) -> io::Result<()> {
        let is_bank = matches!(group, group::DIST_REGS | group::REDIST_REGS);
        let clears = CLEARS
            .into_iter()
            .find(|(clear, _)| is_bank && attribute & 0xff80 == *clear);
        match clears {
            Some((clear, set)) => {
                let at = attribute - clear + set;
                let old = self.get64(group, at)? as u32;
                self.set64(group, at, (old & !value).into())
            }
            None => self.set64(group, attribute, value.into()),
        }
    }

    fn get64(&self, group: u32, attribute: u64) -> io::Result<u64> {
        let map = self.map.borrow();
        let value = map.get(&key(group, attribute)).copied();
        Ok(value.unwrap_or(0) as u64)
    }

    fn set64(&self, group: u32, attribute: u64, value: u64) -> io::Result<()> {
        let key = key(group, attribute);
        self.map.borrow_mut().insert(key, value.into());
        Ok(())
    }

    fn order(&self, group: u32, attribute: u64) -> io::Result<()> {
        self.set64(group, 0xf000 + attribute, 1)
    }
}

prop_compose! {
    fn bank()(words: [u32; 6], priority: [u8; GIC_BANK]) -> GicBank {
        let [group, enabled, latched, active, lines, edges] = words;
        GicBank {
            group, enabled, active, edges,
            // What is pending by a level is not pending by anything else here.
            latched: latched & !(lines & !edges),
            lines: lines & !edges,
            priority: priority.map(|p| p & 0xf8),
            modifier: 0,
            lent: 0,
        }
    }
}

fn state(version: GicVersion, banks: &[GicBank], words: [u64; 4]) -> GicState {
    let mut state = GicState::new(version, 2, 64);
    let [a, b, c, d] = words;
    state.ctlr = a as u32 & 3;
    state.spis = banks[..2].to_vec();
    for (n, route) in (0u32..).zip(&mut state.routes) {
        *route = match version {
            GicVersion::V2 => b.rotate_left(n) & 3,
            GicVersion::V3 => b.rotate_left(n) & 0xff,
        };
    }
    for (cpu, bank) in state.cpus.iter_mut().zip(&banks[2..]) {
        cpu.bank = bank.clone();
        cpu.pmr = c as u8 & 0xf8;
        cpu.bpr = [3, 4, 2];
        cpu.apr = [d as u32, 0, 0];
        cpu.groups = (c >> 8) as u8 & 3;
        cpu.asleep = version == GicVersion::V2;
    }
    state
}

proptest! {
    #[test]
    fn a_gicv3_comes_back(banks in prop::collection::vec(bank(), 4), words: [u64; 4]) {
        let chip = Values::default();
        let affinities = [0, 0x01_0000_0102];
        let mut gic = state(GicVersion::V3, &banks, words);
        for cpu in &mut gic.cpus {
            cpu.ctlr = words[3] as u32 & 3;
            (cpu.lpis.enabled, cpu.lpis.propbaser) = (true, words[0]);
            cpu.apr[1] = words[2] as u32;
        }
        write_v3(&chip, &affinities, &gic).unwrap();
        let new = GicState::new(GicVersion::V3, 2, 64);
        prop_assert_eq!(read_v3(&chip, &affinities, &new).unwrap(), gic);
    }

    #[test]
    fn a_gicv2_comes_back_but_for_the_levels_of_inputs(
        banks in prop::collection::vec(bank(), 4), words: [u64; 4], sources: [u8; 16]
    ) {
        let chip = Values::default();
        let mut gic = state(GicVersion::V2, &banks, words);
        for cpu in &mut gic.cpus {
            cpu.ctlr = 0x200;
            cpu.sgi_sources = sources;
        }
        write_v2(&chip, &gic).unwrap();
        let mut new = GicState::new(GicVersion::V2, 2, 64);
        for (new, old) in new.spis.iter_mut().zip(&gic.spis) {
            new.lines = old.lines;
        }
        for (new, old) in new.cpus.iter_mut().zip(&gic.cpus) {
            new.bank.lines = old.bank.lines;
        }
        prop_assert_eq!(read_v2(&chip, &new).unwrap(), gic);
    }
}

#[test]
fn a_translation_service_comes_back_and_reads_its_tables_before_it_starts() {
    let chip = Values::default();
    let its = GicItsState {
        enabled: true,
        cbaser: 1 << 63 | 0x1000,
        cwriter: 0x40,
        creadr: 0x20,
        baser: [1 << 63 | 0x2000, 1 << 63 | 0x3000],
    };
    write_its(&chip, &its).unwrap();
    assert_eq!(read_its(&chip, false).unwrap(), its);
    let ordered = |n: u64| chip.get64(group::CTRL, 0xf000 + n).unwrap() != 0;
    assert!(ordered(2) && !ordered(1));
    read_its(&chip, true).unwrap();
    assert!(ordered(1));
}

#[test]
fn a_translation_service_after_reset_keeps_the_kernels_registers() {
    let chip = Values::default();
    chip.set64(group::ITS_REGS, 0x100, 7).unwrap();
    write_its(&chip, &GicItsState::default()).unwrap();
    assert_eq!(chip.get64(group::ITS_REGS, 0x100).unwrap(), 7);
}
