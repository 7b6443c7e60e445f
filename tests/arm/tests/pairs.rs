//! Stores of pairs over the end of a page, on all executors.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use accel_core::Executor;
use hw_clock::Clock;
use hw_memory::{MappingSpec, MemoryMap, RamBlock, What};
use target_arm::{Arm, Boot, CpuModel, CpuState, NoPort, Setup, SysReg, new_core, set_register};

const LEN: u64 = 0x1_0000;
const CODE: u64 = 0x1000;
/// Tables of levels 1, 2 and 3: the first eight pages are where they are, all else is nowhere.
const TABLES: [u64; 3] = [0x3000, 0x4000, 0x5000];
const PAGES: u64 = 8;
const END: u64 = PAGES << 12;
const AF: u64 = 1 << 10;
const TABLE: u64 = 3;
const ESR_EL1: SysReg = SysReg::new(3, 0, 5, 2, 0);
const FAR_EL1: SysReg = SysReg::new(3, 0, 6, 0, 0);
/// B to itself.
const STOP: u32 = 0x1400_0000;
const BEFORE: u8 = 0x5a;

/// Runs a store whose address is x0: ESR_EL1 and FAR_EL1, and the mapped memory's last bytes.
fn after(insn: u32, address: u64, executor: &mut dyn Executor<Arm>) -> (u64, u64, [u8; 32]) {
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
    let put = |at: u64, value: u64| block.write(at, &value.to_le_bytes()).unwrap();
    let [first, second, third] = TABLES;
    put(first, second | TABLE);
    put(second, third | TABLE);
    (0..PAGES).for_each(|n| put(third + 8 * n, n << 12 | AF | TABLE));
    let code = [insn, STOP];
    let code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    block.write(CODE, &code).unwrap();
    // An exception from EL1.
    block.write(0x200, &STOP.to_le_bytes()).unwrap();
    block.write(END - 32, &[BEFORE; 64]).unwrap();
    let mut model = CpuModel::parse("max").unwrap();
    model.set_el2(false);
    model.set_el3(false);
    let setup = Setup {
        boot: Some(Boot {
            pc: CODE,
            x: [address, u64::MAX, u64::MAX, u64::MAX],
            el: Some(1),
        }),
        ..Setup::default()
    };
    let (clock, _) = Clock::manual();
    let mut core = new_core(0, Arc::new(model), setup, Box::new(NoPort), map, clock);
    for (name, value) in [
        ("TCR_EL1", 25),
        ("TTBR0_EL1", first),
        ("CPACR_EL1", 3 << 20),
        ("SCTLR_EL1", 0x30d0_0801),
    ] {
        assert!(set_register(&mut core, name, value), "{name}");
    }
    core.budget = 100;
    executor.run(&mut core);
    executor.flush();
    let state = CpuState::of(&core);
    let value = |reg: SysReg| {
        let found = state.system.iter().find(|(r, _)| *r == reg);
        found.map(|(_, value)| *value).unwrap()
    };
    let mut last = [0; 32];
    block.read(END - 32, &mut last).unwrap();
    (value(ESR_EL1), value(FAR_EL1), last)
}

/// STP and STNP of X, W, D and Q registers, and one register of 16 bytes.
const STORES: [(u32, u64); 6] = [
    (0xa900_0801, 16), // stp x1, x2, [x0]
    (0xa800_0801, 16), // stnp x1, x2, [x0]
    (0x2900_0801, 8),  // stp w1, w2, [x0]
    (0x6d00_0801, 16), // stp d1, d2, [x0]
    (0xad00_0801, 32), // stp q1, q2, [x0]
    (0x3d80_0001, 16), // str q1, [x0]
];

#[test]
fn a_store_into_a_page_that_is_not_there_changes_nothing() {
    for (name, mut executor) in test_arm::executors() {
        for (insn, bytes) in STORES {
            for into in 1..bytes {
                let (esr, far, last) = after(insn, END - bytes + into, executor.as_mut());
                let what = format!("{name}: {insn:#x} by {into}: {esr:#x} {far:#x}");
                // From the same level, a write; translation, level 3.
                assert_eq!(esr, 0x25 << 26 | 1 << 25 | 1 << 6 | 7, "{what}");
                // In the page that is missing.
                assert_eq!(far & !0xfff, END, "{what}");
                assert_eq!(last, [BEFORE; 32], "{what}");
            }
        }
    }
}

#[test]
fn a_store_up_to_the_end_of_a_page_is_done() {
    for (name, mut executor) in test_arm::executors() {
        for (insn, bytes) in STORES {
            let (esr, _, last) = after(insn, END - bytes, executor.as_mut());
            assert_eq!(esr, 0, "{name}: {insn:#x}");
            let kept = 32 - bytes as usize;
            assert_eq!(last[..kept], [BEFORE; 32][..kept], "{name}: {insn:#x}");
            assert_ne!(last[kept..], [BEFORE; 32][kept..], "{name}: {insn:#x}");
        }
    }
}
