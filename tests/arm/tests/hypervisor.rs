//! What EL2 sees of pointer authentication (HCR_EL2.APK and API), on all executors.

use accel_core::Executor;
use target_arm::{Arm, SysReg};
use test_arm::bare::{NOP, msr};
use test_arm::frame::Frame;

const ESR_EL2: SysReg = SysReg::new(3, 4, 5, 2, 0);
const APIAKEYLO_EL1: SysReg = SysReg::new(3, 0, 2, 1, 0);
/// PACIA x0, x1.
const PACIA: u32 = 0xdac1_0020;
/// PACGA x0, x0, x1.
const PACGA: u32 = 0x9ac1_3000;
const APK: u64 = 1 << 40;
const API: u64 = 1 << 41;
const RW: u64 = 1 << 31;
/// SCTLR_EL1.EnIA.
const ENIA: u64 = 1 << 31;
const SYSTEM: u64 = 0x18;
const PAUTH: u64 = 0x09;

/// The class of the exception that an instruction at EL1 takes to EL2; 0 for none.
fn class_of(insn: u32, hcr: u64, sctlr: u64, executor: &mut dyn Executor<Arm>) -> u64 {
    let registers = [("HCR_EL2", RW | hcr), ("SCTLR_EL1", 0x30d0_0800 | sctlr)];
    let frame = Frame::new(&[NOP, insn]).with_el2();
    let after = frame.run(1, [0; 4], &registers, executor);
    after.system(ESR_EL2) >> 26
}

#[test]
fn keys_and_their_use_trap_unless_a_hypervisor_lets_its_guest_have_them() {
    let key = msr(APIAKEYLO_EL1, 0);
    for (name, mut executor) in test_arm::executors() {
        let mut class = |insn, hcr, sctlr| class_of(insn, hcr, sctlr, executor.as_mut());
        assert_eq!(class(key, API, 0), SYSTEM, "{name}");
        assert_eq!(class(key, APK, 0), 0, "{name}");
        assert_eq!(class(PACIA, APK, ENIA), PAUTH, "{name}");
        assert_eq!(class(PACIA, API, ENIA), 0, "{name}");
        // A key that is off is not used.
        assert_eq!(class(PACIA, APK, 0), 0, "{name}");
        assert_eq!(class(PACGA, APK, 0), PAUTH, "{name}");
    }
}
