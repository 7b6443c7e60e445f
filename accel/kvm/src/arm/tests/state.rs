//! Registers to and from the common state.

use proptest::prelude::*;
use target_arm::{CpuModel, IdRegisters, SysReg};

use super::super::registers::{PC, PSTATE, Registers, id_of, read, size_of, write};
use super::super::state::Full;
use super::*;

impl Registers for Values {
    fn get(&self, id: u64) -> io::Result<u128> {
        Ok(self.map.borrow().get(&id).copied().unwrap_or(0))
    }

    fn set(&self, id: u64, value: u128) -> io::Result<()> {
        if self.fixed.contains(&id) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.map.borrow_mut().insert(id, value);
        Ok(())
    }
}

const TTBR0_EL1: SysReg = SysReg::new(3, 0, 2, 0, 0);
const MIDR_EL1: SysReg = SysReg::new(3, 0, 0, 0, 0);
const PMCR_EL0: SysReg = SysReg::new(3, 3, 9, 12, 0);
const DBGWCR3_EL1: SysReg = SysReg::new(2, 0, 0, 3, 7);
/// PSCI's version.
const FIRMWARE: u64 = 0x6030_0000_0014_0000;

fn list() -> Vec<u64> {
    let system = [TTBR0_EL1, MIDR_EL1, PMCR_EL0, DBGWCR3_EL1].map(id_of);
    system.into_iter().chain([FIRMWARE]).collect()
}

fn model() -> CpuModel {
    CpuModel::host(IdRegisters::of(|_| None), 1)
}

proptest! {
    #[test]
    fn a_state_comes_back(
        x: [u64; 31], sp: [u64; 2], pc: u64, v: [u128; 32], values in prop::array::uniform5(1u64..)
    ) {
        let [ttbr, pmcr, watch, firmware, elr] = values;
        let vcpu = Values::default();
        let mut full = read(&vcpu, &list()).unwrap();
        full.cpu.x = x;
        full.cpu.sp = [sp[0], sp[1], 0, 0];
        (full.cpu.pc, full.cpu.v, full.cpu.pstate) = (pc, v, 0x3c5);
        full.cpu.debug[3][3] = watch;
        for (reg, value) in &mut full.cpu.system {
            match reg.fields() {
                (3, 0, 2, 0, 0) => *value = ttbr,
                (3, 0, 4, 0, 1) => *value = elr,
                _ => {}
            }
        }
        full.own = vec![(id_of(PMCR_EL0), pmcr), (FIRMWARE, firmware)];
        prop_assert!(write(&vcpu, &list(), &full).unwrap().is_empty());
        prop_assert_eq!(read(&vcpu, &list()).unwrap(), full);
    }
}

#[test]
fn numbers_are_the_kernels() {
    // The interface's documentation: "ARM64 core/FP-SIMD registers have the following id bit patterns".
    assert_eq!(PC, 0x6030_0000_0010_0040);
    assert_eq!(PSTATE, 0x6030_0000_0010_0042);
    assert_eq!(id_of(TTBR0_EL1), 0x6030_0000_0013_c100);
    assert_eq!(
        [PC, 0x6040_0000_0010_0054, 0x6020_0000_0010_00d4].map(size_of),
        [8, 16, 4]
    );
}

#[test]
fn what_the_processor_is_is_no_state() {
    let vcpu = Values::default();
    vcpu.set(id_of(MIDR_EL1), 7).unwrap();
    let full = read(&vcpu, &list()).unwrap();
    assert!(full.cpu.system.iter().all(|(reg, _)| *reg != MIDR_EL1));
    assert!(full.own.iter().all(|(id, _)| *id != id_of(MIDR_EL1)));
}

#[test]
fn a_register_that_the_host_refuses_is_named_unless_it_is_so_already() {
    let vcpu = Values {
        fixed: vec![id_of(PMCR_EL0), FIRMWARE],
        ..Values::default()
    };
    let mut full = read(&vcpu, &list()).unwrap();
    full.own = vec![(id_of(PMCR_EL0), 1), (FIRMWARE, 0)];
    let refused = write(&vcpu, &list(), &full).unwrap();
    assert_eq!(refused, [id_of(PMCR_EL0)]);
}

#[test]
fn the_saved_form_comes_back_and_a_mutated_one_is_an_error() {
    let vcpu = Values::default();
    let mut full = read(&vcpu, &list()).unwrap();
    full.cpu.model = "host".into();
    full.cpu.pstate = 0x3c5;
    full.own = vec![(FIRMWARE, 3)];
    let section = full.save();
    assert_eq!(Full::load(&section, &model()).unwrap(), full);
    let mut cut = full.cpu.save();
    cut.push(64, vec![0; 8]);
    assert!(Full::load(&cut, &model()).is_err());
    cut.push(65, vec![0; 7]);
    assert!(Full::load(&cut, &model()).is_err());
    // Guests have no EL2.
    full.cpu.pstate = 0x3c9;
    assert!(Full::load(&full.save(), &model()).is_err());
}
