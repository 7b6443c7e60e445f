//! What EL2 sees of pointer authentication (HCR_EL2.APK and API), on all executors.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use accel_core::Executor;
use hw_clock::Clock;
use hw_memory::{MappingSpec, MemoryMap, RamBlock, What};
use target_arm::{Arm, Boot, CpuModel, CpuState, NoPort, Setup, SysReg, new_core, set_register};
use test_arm::bare::{NOP, msr};

const LEN: u64 = 0x1_0000;
const CODE: u64 = 0x1000;
const ESR_EL2: SysReg = SysReg::new(3, 4, 5, 2, 0);
const APIAKEYLO_EL1: SysReg = SysReg::new(3, 0, 2, 1, 0);
/// PACIA x0, x1.
const PACIA: u32 = 0xdac1_0020;
/// PACGA x0, x0, x1.
const PACGA: u32 = 0x9ac1_3000;
/// B to itself.
const STOP: u32 = 0x1400_0000;
const APK: u64 = 1 << 40;
const API: u64 = 1 << 41;
const RW: u64 = 1 << 31;
/// SCTLR_EL1.EnIA.
const ENIA: u64 = 1 << 31;
const SYSTEM: u64 = 0x18;
const PAUTH: u64 = 0x09;

/// The class of the exception that an instruction at EL1 takes to EL2; 0 for none.
fn class_of(insn: u32, hcr: u64, sctlr: u64, executor: &mut dyn Executor<Arm>) -> u64 {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", LEN).unwrap());
    map.add(MappingSpec {
        name: "ram".into(),
        base: 0,
        len: LEN,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset: 0,
        },
    });
    let put = |at: u64, code: &[u32]| {
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        block.write(at, &bytes).unwrap();
    };
    put(CODE, &[NOP, insn, STOP]);
    // From a lower level in AArch64.
    put(0x400, &[STOP]);
    let mut model = CpuModel::parse("max").unwrap();
    model.set_el2(true);
    model.set_el3(false);
    let setup = Setup {
        boot: Some(Boot {
            pc: CODE,
            x: [0; 4],
            el: Some(1),
        }),
        ..Setup::default()
    };
    let (clock, _) = Clock::manual();
    let mut core = new_core(0, Arc::new(model), setup, Box::new(NoPort), map, clock);
    for (name, value) in [("HCR_EL2", RW | hcr), ("SCTLR_EL1", 0x30d0_0800 | sctlr)] {
        assert!(set_register(&mut core, name, value), "{name}");
    }
    core.budget = 100;
    executor.run(&mut core);
    executor.flush();
    let state = CpuState::of(&core);
    let esr = state.system.iter().find(|(reg, _)| *reg == ESR_EL2);
    esr.map(|(_, value)| value >> 26).unwrap()
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
