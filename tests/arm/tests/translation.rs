//! Address translation by instruction (DDI 0487, C5.4 "AT"), on all executors.

#![allow(clippy::unwrap_used)]

use accel_core::{Executor, Guest};
use target_arm::{Arm, SysReg};
use test_arm::bare::mrs;
use test_arm::frame::{AF, After, BLOCK, Frame, TABLE};

const STAGE_2: u64 = 0x2000;
const STAGE_1: u64 = 0x3000;
/// The guest's memory is here, and at 0 in truth.
const IPA: u64 = 0x4000_0000;
/// An intermediate address that stage 2 does not map.
const NOWHERE: u64 = 0x8000_0000;
/// Stage 2: readable and writable, normal memory.
const READ_WRITE: u64 = 3 << 6 | 0xf << 2;
const PAR_EL1: SysReg = SysReg::new(3, 0, 7, 4, 0);
const AT_S1E1R: u32 = 0xd508_7800;
const AT_S12E1R: u32 = 0xd50c_7880;

/// PAR_EL1 after an AT of x0 at EL2, for a guest with both stages of 1 GiB blocks.
fn par_of(at: u32, va: u64, executor: &mut dyn Executor<Arm>) -> u64 {
    let mut after = after(at, va, 2, executor);
    let registers = Arm::registers(&mut after.core);
    let x1 = registers.iter().find(|(name, _)| name == "x1");
    x1.map(|(_, value)| *value as u64).unwrap()
}

/// What is there after an AT at an exception level.
fn after(at: u32, va: u64, el: u8, executor: &mut dyn Executor<Arm>) -> After {
    let frame = Frame::new(&[at, mrs(1, PAR_EL1)]).with_el2();
    // Of each table one entry: IPA is 0, and VA 0 is IPA.
    frame.put_entry(STAGE_2 + 8 * (IPA >> 30), AF | BLOCK | READ_WRITE);
    frame.put_entry(STAGE_1, IPA | AF | BLOCK);
    // From 1 GiB on: a table where the hypervisor has nothing.
    frame.put_entry(STAGE_1 + 8, NOWHERE | TABLE);
    // 39 bits of addresses by tables of 4 KiB, from level 1 on.
    let registers = [
        ("TCR_EL1", 25),
        ("TTBR0_EL1", IPA | STAGE_1),
        ("SCTLR_EL1", 0x30d0_0801),
        ("VTCR_EL2", 2 << 16 | 1 << 6 | 25),
        ("VTTBR_EL2", STAGE_2),
        ("HCR_EL2", 1 << 31 | 1),
    ];
    frame.run(el, [va, 0, 0, 0], &registers, executor)
}

#[test]
fn a_hypervisor_asks_for_the_first_stage_of_a_guest_or_for_both() {
    for (name, mut executor) in test_arm::executors() {
        let mut address = |at, va| {
            let par = par_of(at, va, executor.as_mut());
            assert_eq!(par & 1, 0, "{name}: {par:#x}");
            par & 0x0000_ffff_ffff_f000
        };
        assert_eq!(address(AT_S1E1R, 0x5008), IPA | 0x5000, "{name}");
        assert_eq!(address(AT_S12E1R, 0x5008), 0x5000, "{name}");
    }
}

#[test]
fn what_the_guest_has_not_mapped_is_a_fault_of_its_own_stage() {
    for (name, mut executor) in test_arm::executors() {
        // Level 1 of the guest has nothing for this address.
        let par = par_of(AT_S1E1R, 0x8000_0000, executor.as_mut());
        assert_eq!(par & 0x37f, 1 | 0x05 << 1, "{name}: {par:#x}");
    }
}

#[test]
fn tables_of_a_guest_that_its_hypervisor_has_not_mapped_are_a_fault_of_stage_2() {
    let va = 0x4000_5008;
    for (name, mut executor) in test_arm::executors() {
        for at in [AT_S1E1R, AT_S12E1R] {
            let par = par_of(at, va, executor.as_mut());
            // Stage 2, in a walk; translation, level 1.
            let wanted = 1 | 1 << 9 | 1 << 8 | 0x05 << 1;
            assert_eq!(par & 0x37f, wanted, "{name}: {par:#x}");
        }
        // From the guest itself it is an abort that EL2 takes: CM, S1PTW, WnR.
        let after = after(AT_S1E1R, va, 1, executor.as_mut());
        let esr = after.system(SysReg::new(3, 4, 5, 2, 0));
        assert_eq!(
            esr,
            0x24 << 26 | 1 << 25 | 1 << 8 | 1 << 7 | 1 << 6 | 5,
            "{name}"
        );
        let hpfar = after.system(SysReg::new(3, 4, 6, 0, 4));
        assert_eq!(hpfar, NOWHERE >> 12 << 4, "{name}");
        assert_eq!(after.system(SysReg::new(3, 4, 6, 0, 0)), va, "{name}");
    }
}
