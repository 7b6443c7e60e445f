//! AArch32 at EL0 as EL1 sees it: exceptions, their syndromes, returns; branches between A32 and T32; IT
//! blocks.

use test_arm::aarch32::user::{A32, CODE, DATA, Outcome, T32, a32, run, run_with, survive, t32};
use test_arm::random::Rng;

type Result = std::result::Result<(), String>;

/// Runs code with one exception, which ends it.
fn to_the_end(code: &[u8], spsr: u64) -> std::result::Result<Outcome, String> {
    run(code, &[(CODE, spsr)])
}

#[test]
fn a_system_call_of_a32_tells_its_number_and_the_next_address() -> Result {
    // svc #0x123456
    let outcome = to_the_end(&a32(&[0xef12_3456]), A32)?;
    let taken = outcome.taken[0];
    assert_eq!((taken.vector, taken.pc), (0x600, CODE + 4));
    assert_eq!(taken.esr, 0x11 << 26 | 1 << 25 | 0x3456);
    assert_eq!(taken.spsr & 0xf000_03ff, 0x10);
    Ok(())
}

#[test]
fn a_system_call_of_t32_is_a_short_instruction() -> Result {
    // svc #66
    let taken = to_the_end(&t32(&[0xdf42]), T32)?.taken[0];
    assert_eq!((taken.vector, taken.pc), (0x600, CODE + 2));
    assert_eq!(taken.esr, 0x11 << 26 | 66);
    assert_eq!(taken.spsr & 0x3f, 0x30);
    Ok(())
}

#[test]
fn exceptions_of_a32_have_their_classes() -> Result {
    let code = a32(&[
        0xe7f0_00f0, // udf #0
        0xe121_2374, // bkpt #0x1234
        0xee10_0f10, // mrc p15, 0, r0, c0, c0, 0 (MIDR)
        0xee1e_3f10, // mrc p15, 0, r3, c14, c0, 0 (CNTFRQ)
        0xec51_2f1e, // mrrc p15, 1, r2, r1, c14 (CNTVCT)
    ]);
    let returns = [0, 1, 2, 3, 4].map(|n| (CODE + 4 * n, A32));
    let outcome = run(&code, &returns)?;
    let classes: Vec<_> = outcome.taken.iter().map(|t| t.class()).collect();
    assert_eq!(classes, [0, 0x38, 0, 3, 4]);
    assert_eq!(outcome.taken[1].esr & 0xffff, 0x1234);
    let all = 1 << 25 | 1 << 24 | 0xe << 20;
    // CRn, Rt, and that it is a read.
    assert_eq!(
        outcome.taken[3].esr & 0x3ff_ffff,
        all | 14 << 10 | 3 << 5 | 1
    );
    // opc1, Rt2, Rt, CRm.
    let wide = all | 1 << 16 | 1 << 10 | 2 << 5 | 14 << 1 | 1;
    assert_eq!(outcome.taken[4].esr & 0x3ff_ffff, wide);
    Ok(())
}

#[test]
fn a_branch_to_half_a_word_of_a32_is_a_misaligned_pc() -> Result {
    // add r0, pc, #2; bx r0
    let taken = to_the_end(&a32(&[0xe28f_0002, 0xe12f_ff10]), A32)?.taken[0];
    assert_eq!(taken.class(), 0x22);
    assert_eq!((taken.pc, taken.far), (CODE + 10, CODE + 10));
    Ok(())
}

#[test]
fn words_that_must_be_aligned_fault() -> Result {
    let code = a32(&[
        0xe59f_0014, // ldr r0, [pc, #20]
        0xe890_0006, // ldm r0, {r1, r2}
        0xe190_1f9f, // ldrex r1, [r0]
        0xe1c0_20d0, // ldrd r2, r3, [r0]
        0xed90_0b00, // vldr d0, [r0]
        0xe590_1000, // ldr r1, [r0]
        0xef00_0000, // svc #0
        (DATA + 2) as u32,
    ]);
    let returns = [0, 2, 3, 4, 5].map(|n| (CODE + 4 * n, A32));
    let outcome = run(&code, &returns)?;
    for taken in &outcome.taken[..4] {
        assert_eq!(
            (taken.class(), taken.esr & 0x3f),
            (0x24, 0x21),
            "{taken:x?}"
        );
        assert_eq!(taken.far, DATA + 2);
    }
    // LDR may be anywhere.
    assert_eq!(outcome.taken[4].class(), 0x11);
    Ok(())
}

#[test]
fn a_return_to_other_modes_of_aarch32_is_illegal() -> Result {
    // Supervisor mode; then the system call.
    let outcome = run(&a32(&[0xef00_0000]), &[(CODE, 0x13), (CODE, A32)])?;
    let taken = outcome.taken[0];
    // From EL1 itself.
    assert_eq!((taken.vector, taken.class()), (0x200, 0x0e));
    assert_eq!(taken.spsr & 0x1f, 5);
    assert_eq!(outcome.taken[1].class(), 0x11);
    Ok(())
}

#[test]
fn calls_go_between_the_sets_and_back() -> Result {
    let mut code = a32(&[
        0xe3a0_0000, // mov r0, #0
        0xfa00_0002, // blx CODE + 20
        0xe280_0010, // add r0, r0, #16
        0xe28f_2011, // add r2, pc, #17: T32 at CODE + 37
        0xe12f_ff12, // bx r2
    ]);
    // CODE + 20, T32.
    code.extend(t32(&[
        0x3001, // adds r0, #1
        0xb500, // push {lr}
        0xbd00, // pop {pc}
        0x46c0, 0x46c0, 0x46c0, 0x46c0, 0x46c0,
    ]));
    // CODE + 36
    code.extend(t32(&[
        0x3064, // adds r0, #100
        0xdf00, // svc #0
    ]));
    // The stack pointer is in memory.
    let mut start = a32(&[0xe59f_d000, 0xea00_0000, (DATA + 0x100) as u32]);
    let shift = start.len() as u64;
    start.extend(&code);
    let outcome = to_the_end(&start, A32)?;
    assert_eq!(outcome.taken[0].class(), 0x11);
    assert_eq!(outcome.taken[0].pc, CODE + shift + 40);
    assert_eq!(outcome.x[0], 117);
    assert_eq!(outcome.x[13], DATA + 0x100);
    Ok(())
}

#[test]
fn an_exception_in_an_it_block_keeps_where_it_was() -> Result {
    let code = t32(&[
        0x2000, // movs r0, #0
        0x2101, // movs r1, #1
        0x4288, // cmp r0, r1
        0xbf3c, // itt cc
        0x3001, // addcc r0, #1
        0xde00, // udf #0, if the condition holds
        0x3010, // adds r0, #16
        0xdf00, // svc #0
    ]);
    let outcome = run(&code, &[(CODE, T32), (CODE + 12, T32)])?;
    let taken = outcome.taken[0];
    assert_eq!((taken.class(), taken.pc), (0, CODE + 10));
    // The last of the block: CC and a mask of one bit.
    assert_eq!(taken.it(), 0x38);
    assert_eq!(outcome.taken[1].it(), 0);
    assert_eq!(outcome.x[0], 17);
    Ok(())
}

#[test]
fn a_return_into_an_it_block_goes_on_with_it() -> Result {
    let code = t32(&[
        0x3001, // add r0, #1, if the condition holds
        0x3010, // add r0, #16, if it does not
        0x3040, // adds r0, #64
        0xdf00, // svc #0
    ]);
    // ITE EQ before the first; Z as given.
    let it = 0x0c;
    let spsr = |z: u64| T32 | (it & 0xfc) << 8 | (it & 3) << 25 | z << 30;
    for (z, sum) in [(1, 65), (0, 80)] {
        let outcome = run(&code, &[(CODE, spsr(z))])?;
        assert_eq!(outcome.x[0], sum, "Z={z}");
    }
    Ok(())
}

#[test]
fn it_blocks_go_over_the_ends_of_units() -> Result {
    // Units have up to 32 instructions: the block is moved across their end.
    for before in 25..33u16 {
        let mut code = vec![0x2000, 0x2800]; // movs r0, #0; cmp r0, #0
        code.extend(vec![0xbf00; usize::from(before)]);
        // itete eq; add r0, #1, #2, #4, #8
        code.extend([0xbf0b, 0x3001, 0x3002, 0x3004, 0x3008, 0xdf00]);
        let outcome = to_the_end(&t32(&code), T32)?;
        assert_eq!(outcome.x[0], 5, "{before} before");
    }
    Ok(())
}

#[test]
fn an_instruction_may_cross_a_page() -> Result {
    // From the last halfword of a page on: movw r0, #0x1234; svc #0.
    let at = 0xffe;
    let mut code = vec![0u8; at];
    code.extend(t32(&[0xf241, 0x2034, 0xdf00]));
    let outcome = run(&code, &[(CODE + at as u64, T32)])?;
    assert_eq!(outcome.x[0], 0x1234);
    Ok(())
}

#[test]
fn data_is_big_endian_after_setend() -> Result {
    let code = a32(&[
        0xe59f_0014, // ldr r0, [pc, #20]: DATA
        0xe59f_1014, // ldr r1, [pc, #20]: 0x01020304
        0xf101_0200, // setend be
        0xe580_1000, // str r1, [r0]
        0xf101_0000, // setend le
        0xe590_2000, // ldr r2, [r0]
        0xef00_0000, // svc #0
        DATA as u32,
        0x0102_0304,
    ]);
    let outcome = to_the_end(&code, A32)?;
    assert_eq!(outcome.x[2], 0x0403_0201);
    Ok(())
}

#[test]
fn addresses_wrap_at_32_bits() -> Result {
    let code = a32(&[
        0xe59f_000c, // ldr r0, [pc, #12]: DATA
        0xe3e0_1000, // mvn r1, #0
        0xe2811001,  // add r1, r1, #1
        0xe791_2000, // ldr r2, [r1, r0]
        0xef00_0000, // svc #0
        (DATA + 8) as u32,
    ]);
    let outcome = to_the_end(&code, A32)?;
    assert_eq!(outcome.taken[0].class(), 0x11);
    // 0xfffffff0 + DATA + 16.
    let code = a32(&[
        0xe59f_0008, // ldr r0, [pc, #8]
        0xe3e0_100f, // mvn r1, #15
        0xe791_2000, // ldr r2, [r1, r0]
        0xef00_0000, // svc #0
        (DATA + 16) as u32,
    ]);
    let outcome = to_the_end(&code, A32)?;
    assert_eq!(outcome.taken[0].class(), 0x11);
    Ok(())
}

#[test]
fn random_code_does_no_harm() -> Result {
    let rounds: u64 = std::env::var("TEST_ARM_PROGRAMS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(20);
    for seed in 0..rounds {
        let mut rng = Rng(seed);
        let code: Vec<u8> = (0..0x400)
            .flat_map(|_| rng.word().to_le_bytes())
            .take(0x1000)
            .collect();
        let returns: Vec<_> = (0..48)
            .map(|_| {
                // T, E, IT, GE and the flags; any address.
                let spsr = A32 | rng.word() & 0xfe0f_fe20;
                let spsr = if rng.below(2) == 0 {
                    spsr & !0x0600_fc00
                } else {
                    spsr
                };
                (CODE + rng.below(0xff0), spsr)
            })
            .collect();
        survive(&code, &returns).map_err(|e| format!("seed {seed}: {e}"))?;
    }
    Ok(())
}

#[test]
fn a_conditional_return_in_a_loop_that_is_compiled_as_one_goes_both_ways() -> Result {
    let code = t32(&[
        0xf64f, 0x74ff, // movw r4, #0xffff
        0x2500, // movs r5, #0
        0xf004, 0x0003, // loop: and r0, r4, #3
        0xf000, 0xf804, // bl f
        0x3501, // adds r5, #1
        0x3c01, // subs r4, #1
        0xd1f8, // bne loop
        0xdf00, // svc #0
        0x2800, // f: cmp r0, #0
        0xbf08, // it eq
        0x4770, // bxeq lr
        0x3502, // adds r5, #2
        0x4770, // bx lr
    ]);
    let outcome = to_the_end(&code, T32)?;
    assert_eq!(outcome.taken[0].class(), 0x11);
    // Three of four calls add two.
    assert_eq!(outcome.x[5], 0xffff + 2 * (0xffff - 0xffff / 4));
    Ok(())
}

/// MRC p14, 0, r0, CRn, CRm, 0.
fn mrc_14(crn: u32, crm: u32) -> u32 {
    0xee10_0e10 | crn << 16 | crm
}

const SVC: u32 = 0xef00_0000;

#[test]
fn debug_registers_of_a32_say_what_there_is() -> Result {
    let code = a32(&[
        mrc_14(0, 0) | 4 << 12,  // DBGDIDR
        mrc_14(0, 1) | 5 << 12,  // DBGDSCRint
        mrc_14(0, 1) | 15 << 12, // into the flags
        0xee00_0e15,             // DBGDTRTXint
        0xec52_1e01,             // DBGDRAR
        SVC,
        mrc_14(0, 6),
        mrc_14(1, 1),
        0xee10_0e30 | 7 << 21, // JIDR
        0xec52_1e03,
    ]);
    let returns = [0, 7, 8, 9].map(|n| (CODE + 4 * n, A32 | 0xf << 28));
    let outcome = run(
        &code,
        &[&returns[..1], &[(CODE + 24, A32)], &returns[1..]].concat(),
    )?;
    let classes: Vec<_> = outcome.taken.iter().map(|t| t.class()).collect();
    assert_eq!(classes, [0x11, 0, 0, 0, 0], "{:x?}", outcome.taken);
    // Four watchpoints, six breakpoints, two on contexts; Armv8.
    assert_eq!(outcome.x[4], 0x3516_8000);
    assert_eq!((outcome.x[1], outcome.x[2], outcome.x[5]), (0, 0, 0));
    assert_eq!(outcome.taken[0].spsr >> 28, 0);
    Ok(())
}

#[test]
fn debug_registers_of_a32_trap_where_el1_says_so() -> Result {
    let code = a32(&[
        mrc_14(0, 0) | 3 << 12,
        mrc_14(0, 5),
        0xee00_0e15,
        mrc_14(1, 0),
        0xec52_1e02, // DBGDSAR
        mrc_14(0, 6),
    ]);
    let returns = [0, 1, 2, 3, 4, 5].map(|n| (CODE + 4 * n, A32));
    let outcome = run_with(&code, &returns, &[("MDSCR_EL1", 1 << 12)])?;
    let classes: Vec<_> = outcome.taken.iter().map(|t| t.class()).collect();
    assert_eq!(classes, [5, 5, 5, 5, 0xc, 0]);
    let all = 1 << 25 | 1 << 24 | 0xe << 20;
    assert_eq!(outcome.taken[0].esr & 0x3ff_ffff, all | 3 << 5 | 1);
    assert_eq!(
        outcome.taken[4].esr & 0x3ff_ffff,
        all | 2 << 10 | 1 << 5 | 2 << 1 | 1
    );
    Ok(())
}

#[test]
fn it_blocks_are_short_where_el1_says_so() -> Result {
    const ITD: u64 = 1 << 7;
    let sctlr = [("SCTLR_EL1", 0x30d0_0800 | ITD)];
    let classes = |block: &[u16]| -> std::result::Result<_, String> {
        let code = [&[0x2000, 0x2800], block, &[0xdf00]].concat();
        // movs r0, #0; cmp r0, #0; the block.
        let with = run_with(&t32(&code), &[(CODE, T32)], &sctlr)?.taken[0];
        let without = run_with(&t32(&code), &[(CODE, T32)], &[])?.taken[0];
        assert_eq!(without.class(), 0x11, "{block:x?}");
        Ok((with.class(), with.pc.wrapping_sub(CODE + 4)))
    };
    // it eq; addeq r0, #1.
    assert_eq!(classes(&[0xbf08, 0x3001])?.0, 0x11);
    // itt eq, it eq with add.w, nop, ldr r0, [pc], add r0, pc, mov pc, lr (which is not done).
    assert_eq!(classes(&[0xbf04, 0x3001, 0x3001])?, (0, 0));
    for insn in [
        &[0xf100u16, 0x0001][..],
        &[0xbf00],
        &[0x4800],
        &[0xa000],
        &[0x4478],
    ] {
        assert_eq!(
            classes(&[&[0xbf08][..], insn].concat())?,
            (0, 2),
            "{insn:x?}"
        );
    }
    Ok(())
}
