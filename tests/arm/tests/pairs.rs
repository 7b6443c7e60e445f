//! Stores of pairs and of blocks at the end of a page, on all executors.

use accel_core::Executor;
use target_arm::{Arm, SysReg};
use test_arm::frame::{AF, Frame, TABLE};

/// Tables of levels 1, 2 and 3: the first eight pages are where they are, all else is nowhere.
const TABLES: [u64; 3] = [0x3000, 0x4000, 0x5000];
const PAGES: u64 = 8;
const END: u64 = PAGES << 12;
const ESR_EL1: SysReg = SysReg::new(3, 0, 5, 2, 0);
const FAR_EL1: SysReg = SysReg::new(3, 0, 6, 0, 0);
const BEFORE: u8 = 0x5a;
/// From the same level, a write; translation, level 3.
const NOT_THERE: u64 = 0x25 << 26 | 1 << 25 | 1 << 6 | 7;

/// Runs a store whose address is x0: ESR_EL1 and FAR_EL1, and the mapped memory's last bytes.
fn after<const N: usize>(
    insn: u32,
    address: u64,
    executor: &mut dyn Executor<Arm>,
) -> (u64, u64, [u8; N]) {
    let frame = Frame::new(&[insn]);
    let [first, second, third] = TABLES;
    frame.put_entry(first, second | TABLE);
    frame.put_entry(second, third | TABLE);
    (0..PAGES).for_each(|n| frame.put_entry(third + 8 * n, n << 12 | AF | TABLE));
    let last = END - N as u64;
    frame.put(last, &[BEFORE; N]);
    let registers = [
        ("TCR_EL1", 25),
        ("TTBR0_EL1", first),
        ("CPACR_EL1", 3 << 20),
        ("SCTLR_EL1", 0x30d0_0801),
    ];
    let x = [address, u64::MAX, u64::MAX, u64::MAX];
    let after = frame.run(1, x, &registers, executor);
    (
        after.system(ESR_EL1),
        after.system(FAR_EL1),
        after.memory(last),
    )
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
                assert_eq!(esr, NOT_THERE, "{what}");
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
            let (esr, _, last) = after::<32>(insn, END - bytes, executor.as_mut());
            assert_eq!(esr, 0, "{name}: {insn:#x}");
            let kept = 32 - bytes as usize;
            assert_eq!(last[..kept], [BEFORE; 32][..kept], "{name}: {insn:#x}");
            assert_ne!(last[kept..], [BEFORE; 32][kept..], "{name}: {insn:#x}");
        }
    }
}

/// DC ZVA of x0.
const DC_ZVA: u32 = 0xd50b_7420;

#[test]
fn a_block_becomes_zeros_or_faults_at_the_address_asked_for() {
    for (name, mut executor) in test_arm::executors() {
        // Anywhere in the block but one.
        let (esr, _, last) = after::<192>(DC_ZVA, END - 128 + 5, executor.as_mut());
        assert_eq!(esr, 0, "{name}");
        let mut wanted = [BEFORE; 192];
        wanted[64..128].fill(0);
        assert_eq!(last, wanted, "{name}");
        let (esr, far, last) = after::<64>(DC_ZVA, END + 5, executor.as_mut());
        assert_eq!((esr, far), (NOT_THERE, END + 5), "{name}");
        assert_eq!(last, [BEFORE; 64], "{name}");
    }
}
