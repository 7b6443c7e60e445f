//! Breakpoints and watchpoints (DDI 0487, D2.8 and D2.9), on all executors.

#![allow(clippy::unwrap_used)]

use target_arm::SysReg;
use test_arm::bare::{self, CODE, DATA, ISB, NOP, Outcome, UNMASK_DEBUG, ldr, mov, set, str};

const MDSCR: SysReg = SysReg::new(2, 0, 0, 2, 2);
const OSLAR: SysReg = SysReg::new(2, 0, 1, 0, 4);
const CONTEXTIDR: SysReg = SysReg::new(3, 0, 13, 0, 1);
/// MDSCR_EL1.KDE and MDE.
const ON: u64 = 1 << 13 | 1 << 15;
const BREAKPOINT: u64 = 0x31;
const WATCHPOINT: u64 = 0x35;
/// Enabled at EL1, all bytes.
const AT_EL1: u64 = 1 | 1 << 1;
const ALL_BYTES: u64 = 0xff << 5;
const LOADS: u64 = 1 << 3;
const STORES: u64 = 2 << 3;

fn bvr(n: u16) -> SysReg {
    SysReg::new(2, 0, 0, n, 4)
}
fn bcr(n: u16) -> SysReg {
    SysReg::new(2, 0, 0, n, 5)
}
fn wvr(n: u16) -> SysReg {
    SysReg::new(2, 0, 0, n, 6)
}
fn wcr(n: u16) -> SysReg {
    SysReg::new(2, 0, 0, n, 7)
}

fn run(code: &[u32]) -> Outcome {
    bare::run(code).unwrap()
}

/// Registers set, debug exceptions on, then `body`: the program, and where the body begins.
fn program(registers: &[(SysReg, u64)], body: &[u32]) -> (Vec<u32>, u64) {
    let mut code = Vec::new();
    for (reg, value) in registers {
        code.extend(set(*reg, *value));
    }
    code.extend(set(MDSCR, ON));
    code.extend(mov(10, DATA));
    code.extend(mov(11, 0x1234));
    code.extend([ISB, UNMASK_DEBUG]);
    let at = CODE + 4 * code.len() as u64;
    code.extend(body);
    (code, at)
}

/// As above with a watchpoint; the exceptions' classes, addresses and directions, and data.
fn watched(control: u64, address: u64, body: &[u32]) -> (Vec<(u64, bool)>, Vec<u64>) {
    let (code, _) = program(&[(wvr(0), address), (wcr(0), control)], body);
    let outcome = run(&code);
    assert!(
        outcome
            .taken
            .iter()
            .all(|t| t.class() == WATCHPOINT && t.esr & 0x3f == 0x22)
    );
    let taken = outcome.taken.iter();
    (
        taken.map(|t| (t.far, t.esr >> 6 & 1 != 0)).collect(),
        outcome.data,
    )
}

#[test]
fn a_breakpoint_comes_before_its_instruction_and_holds_while_unmasked() {
    // Breakpoints at the second and the fourth instruction.
    let body = [NOP, UNMASK_DEBUG, NOP, UNMASK_DEBUG, NOP];
    let (_, at) = program(&[(bvr(0), 0), (bcr(0), 0), (bvr(1), 0), (bcr(1), 0)], &body);
    let control = AT_EL1 | 0xf << 5;
    let rest = [
        (bvr(0), at + 4),
        (bcr(0), control),
        (bvr(1), at + 12),
        (bcr(1), control),
    ];
    let (code, _) = program(&rest, &body);
    // The values are longer: find the place again.
    let begin = CODE + 4 * (code.len() - body.len()) as u64;
    let rest = [
        (bvr(0), begin + 4),
        (bcr(0), control),
        (bvr(1), begin + 12),
        (bcr(1), control),
    ];
    let (code, begin_now) = program(&rest, &body);
    assert_eq!(begin_now, begin);
    let outcome = run(&code);
    let taken: Vec<_> = outcome
        .taken
        .iter()
        .map(|t| (t.pc - begin, t.class()))
        .collect();
    assert_eq!(taken, [(4, BREAKPOINT), (12, BREAKPOINT)]);
}

#[test]
fn a_watchpoint_comes_before_the_access_it_is_on() {
    let body = [
        str(11, 10, 8),
        UNMASK_DEBUG,
        ldr(12, 10, 8),
        UNMASK_DEBUG,
        ldr(12, 10, 16),
    ];
    let both = AT_EL1 | ALL_BYTES | LOADS | STORES;
    let (taken, data) = watched(both, DATA + 8, &body);
    assert_eq!(taken, [(DATA + 8, true), (DATA + 8, false)]);
    assert_eq!(data[1], 0x1234);
    let (taken, _) = watched(AT_EL1 | ALL_BYTES | LOADS, DATA + 8, &body);
    assert_eq!(taken, [(DATA + 8, false)]);
    let (taken, _) = watched(AT_EL1 | ALL_BYTES | STORES, DATA + 8, &body);
    assert_eq!(taken, [(DATA + 8, true)]);
    // Of EL0 only.
    let (taken, _) = watched(both & !2 | 4, DATA + 8, &body);
    assert_eq!(taken, []);
}

#[test]
fn an_instruction_that_is_watched_is_done_once() {
    // LDADD x11, x12, [x10] twice; STR with writeback.
    let ldadd = 0xf82b_014c;
    let body = [ldadd, UNMASK_DEBUG, ldadd, UNMASK_DEBUG, 0xf800_8d4b];
    let both = AT_EL1 | ALL_BYTES | LOADS | STORES;
    let (taken, data) = watched(both, DATA, &body);
    assert_eq!(taken.len(), 2);
    assert_eq!((data[0], data[1]), (2 * 0x1234, 0x1234));
}

#[test]
fn bytes_and_ranges_are_watched() {
    let byte = |offset: u32| 0x3900_0000 | offset << 10 | 10 << 5 | 11;
    let body = [
        byte(1),
        UNMASK_DEBUG,
        byte(2),
        UNMASK_DEBUG,
        byte(5),
        UNMASK_DEBUG,
        byte(64),
    ];
    // Byte 2 of the word.
    let (taken, _) = watched(AT_EL1 | STORES | 4 << 5, DATA, &body);
    assert_eq!(taken, [(DATA + 2, true)]);
    // The upper word of the double word.
    let (taken, _) = watched(AT_EL1 | STORES | 0xf << 5, DATA + 4, &body);
    assert_eq!(taken, [(DATA + 5, true)]);
    // 64 bytes.
    let (taken, _) = watched(AT_EL1 | STORES | ALL_BYTES | 6 << 24, DATA, &body);
    assert_eq!(taken.len(), 3);
    // A wide store that only reaches into it: its first byte that is watched.
    let (taken, _) = watched(AT_EL1 | STORES | 0xf << 5, DATA + 4, &[str(11, 10, 0)]);
    assert_eq!(taken, [(DATA + 4, true)]);
}

#[test]
fn the_os_lock_and_other_contexts_hold_them_off() {
    let body = [str(11, 10, 0)];
    let control = AT_EL1 | STORES | ALL_BYTES;
    let with = |more: &[(SysReg, u64)], control: u64| {
        let mut registers = vec![(wvr(0), DATA), (wcr(0), control)];
        registers.extend(more);
        run(&program(&registers, &body).0).taken.len()
    };
    assert_eq!(with(&[], control), 1);
    assert_eq!(with(&[(OSLAR, 1)], control), 0);
    // Linked to breakpoint 5, which is on a context.
    let linked = control | 1 << 20 | 5 << 16;
    let context = [(bvr(5), 77), (bcr(5), AT_EL1 | 0xf << 5 | 3 << 20)];
    assert_eq!(with(&context, linked), 0);
    let here = [context[0], context[1], (CONTEXTIDR, 77)];
    assert_eq!(with(&here, linked), 1);
}

#[test]
fn a_breakpoint_on_a_context_stops_each_of_its_instructions() {
    let control = AT_EL1 | 0xf << 5;
    let body = [NOP, UNMASK_DEBUG, NOP];
    let with = |n: u16, kind: u64, context: u64| {
        let registers = [
            (CONTEXTIDR, context),
            (bvr(n), 77),
            (bcr(n), control | kind << 20),
        ];
        let (code, at) = program(&registers, &body);
        let outcome = run(&code);
        let taken = outcome.taken.iter();
        taken.map(|t| (t.pc - at, t.class())).collect::<Vec<_>>()
    };
    let hits = vec![(0, BREAKPOINT), (8, BREAKPOINT)];
    assert_eq!(with(5, 2, 77), hits);
    assert_eq!(with(5, 2, 78), []);
    // The last two only are on contexts; one that is linked to does nothing by itself.
    assert_eq!(with(4, 2, 77), hits);
    assert_eq!(with(3, 2, 77), []);
    assert_eq!(with(5, 3, 77), []);
    // CONTEXTIDR_EL1 by its other name needs an EL2 with VHE.
    assert_eq!(with(5, 6, 77), []);
}

#[test]
fn the_debug_channel_is_empty() {
    let channel = |crm: u16| SysReg::new(2, 3, 0, crm, 0);
    let read = |reg, rt| bare::mrs(rt, reg);
    let body = [
        read(channel(1), 0),
        read(channel(4), 1),
        read(channel(5), 2),
        bare::msr(channel(5), 11),
        read(SysReg::new(2, 0, 0, 6, 2), 3),
    ];
    let (code, _) = program(&[], &body);
    let outcome = run(&code);
    assert_eq!(outcome.taken, []);
    assert_eq!(outcome.x[..4], [0; 4]);
}

#[test]
fn registers_that_are_not_there_are_undefined() {
    let (code, _) = program(&[(bvr(6), 1)], &[]);
    // Without an end of it: the exception comes back to the same instruction, so look at the first only.
    let mut executors = test_arm::executors();
    let (_, executor) = &mut executors[0];
    assert!(test_arm::bare::run_with(&code, executor.as_mut(), |_| ()).is_err());
    let (code, _) = program(&[(bvr(5), 1), (wvr(3), 1)], &[]);
    assert_eq!(run(&code).taken, []);
}
