//! Performance monitors (DDI 0487, D12), on all executors.
#![allow(clippy::unwrap_used)]

use target_arm::SysReg;
use test_arm::bare::{self, CODE, ISB, NOP, Outcome, mov, mrs, msr, set};

const fn el0(crn: u16, crm: u16, op2: u16) -> SysReg {
    SysReg::new(3, 3, crn, crm, op2)
}
const PMCR: SysReg = el0(9, 12, 0);
const PMCNTENSET: SysReg = el0(9, 12, 1);
const PMOVSCLR: SysReg = el0(9, 12, 3);
const PMSWINC: SysReg = el0(9, 12, 4);
const PMUSERENR: SysReg = el0(9, 14, 0);
const PMCCNTR: SysReg = el0(9, 13, 0);
const PMINTENSET: SysReg = SysReg::new(3, 0, 9, 14, 1);
const COUNTER_0: SysReg = el0(14, 8, 0);
const COUNTER_1: SysReg = el0(14, 8, 1);
const TYPE_0: SysReg = el0(14, 12, 0);
const TYPE_1: SysReg = el0(14, 12, 1);
const SPSR: SysReg = SysReg::new(3, 0, 4, 0, 0);
const ELR: SysReg = SysReg::new(3, 0, 4, 0, 1);

const SW_INCR: u64 = 0;
const INST_RETIRED: u64 = 8;
const CHAIN: u64 = 0x1e;
/// PMCR_EL0.E.
const E: u64 = 1;
const SVC: u32 = 0xd400_0001;
const ERET: u32 = 0xd69f_03e0;

fn run(code: &[u32]) -> Outcome {
    bare::run(code).unwrap()
}

/// `loops` times SUBS and B.GT, in x2.
fn spin(loops: u64) -> Vec<u32> {
    let mut code = mov(2, loops);
    code.extend([0xf100_0442, 0x54ff_ffec]);
    code
}

/// Counter 0 counts an event while a piece of code runs: what it has then, in x0.
fn counted(event: u64, body: &[u32]) -> Outcome {
    let mut code = set(TYPE_0, event);
    code.extend(set(PMCNTENSET, 1));
    code.extend(mov(1, E));
    code.push(msr(PMCR, 1));
    code.extend(body);
    // MSR PMCR_EL0, XZR
    code.extend([msr(PMCR, 31), mrs(0, COUNTER_0)]);
    run(&code)
}

#[test]
fn every_retired_instruction_is_counted_once() {
    for loops in [1, 20, 1000, 100_000] {
        let outcome = counted(INST_RETIRED, &spin(loops));
        // MOV (two for large numbers), the loop, and the MSR that ends it.
        let movs = spin(loops).len() as u64 - 2;
        assert_eq!(outcome.x[0], movs + 2 * loops + 1);
    }
    // Reading does not disturb.
    let body = [NOP, mrs(3, COUNTER_0), NOP, mrs(4, COUNTER_0)];
    let outcome = counted(INST_RETIRED, &body);
    assert_eq!((outcome.x[3], outcome.x[4], outcome.x[0]), (1, 3, 5));
}

#[test]
fn levels_that_a_counter_leaves_out_do_not_count() {
    // To EL0 for three instructions, the last of which is an SVC: the handler comes back to EL0, which
    // calls the end by an undefined HVC, whose handler returns to it again and again. So it is EL1 that
    // counts here: the way to EL0 is the last thing.
    let program = |filter: u64| {
        let mut code = set(TYPE_0, INST_RETIRED | filter);
        code.extend(set(PMCNTENSET, 1));
        code.extend(set(SPSR, 0));
        let head = code.len() as u64;
        // Three words for the two moves and MSR ELR below, then MOV, MSR, ERET.
        let user = CODE + 4 * (head + 5);
        code.extend(set(ELR, user));
        code.extend(mov(1, E));
        code.extend([msr(PMCR, 1), ERET]);
        assert_eq!(code.len() as u64, head + 5);
        // At EL0, until an SVC whose handler leaves EL0 for good.
        code.extend([NOP, NOP, SVC]);
        code
    };
    let at_el0 = |filter| {
        let mut executors = test_arm::executors();
        let mut counts = Vec::new();
        for (_, executor) in &mut executors {
            let outcome = bare::run_to_el1(&program(filter), executor.as_mut(), COUNTER_0).unwrap();
            counts.push(outcome.x[0]);
        }
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        counts[0]
    };
    // ERET; NOP, NOP, SVC at EL0; one more at EL1: MSR PMCR_EL0, XZR.
    assert_eq!(at_el0(0), 1 + 3 + 1);
    // P: not at EL1. U: not at EL0.
    assert_eq!(at_el0(1 << 31), 3);
    assert_eq!(at_el0(1 << 30), 2);
}

#[test]
fn software_counts_and_overflows_chain() {
    let mut body = set(TYPE_1, CHAIN);
    body.extend(set(PMCNTENSET, 3));
    body.extend(set(COUNTER_0, 0xffff_fffe));
    body.extend(set(COUNTER_1, 0xffff_ffff));
    body.extend(mov(3, 3));
    body.extend([msr(PMSWINC, 3); 3]);
    body.extend([ISB, mrs(4, COUNTER_1), mrs(5, PMOVSCLR)]);
    let outcome = counted(SW_INCR, &body);
    // Counters go on above 32 bits, where they overflow all the same.
    let over = 1u64 << 32;
    let counters = (outcome.x[0], outcome.x[4]);
    assert_eq!((counters, outcome.x[5]), ((over | 1, over), 3));
    assert_eq!(outcome.pmu, (false, 0));
}

#[test]
fn an_overflow_interrupts_where_it_happens() {
    let mut body = set(PMINTENSET, 1);
    // After 50,000 instructions, which is within a slice.
    body.extend(set(COUNTER_0, 0x1_0000_0000 - 50_000));
    body.extend(spin(30_000));
    let outcome = counted(INST_RETIRED, &body);
    // Off at the end, but it rose once.
    assert_eq!(outcome.pmu, (false, 1));
    // Not if it is not asked for, nor before it overflows.
    let outcome = counted(INST_RETIRED, &body[3..]);
    assert_eq!(outcome.pmu, (false, 0));
    let mut short = body[..body.len() - spin(30_000).len()].to_vec();
    short.extend(spin(20_000));
    assert_eq!(counted(INST_RETIRED, &short).pmu, (false, 0));
}

#[test]
fn cycles_are_time_and_overflow_with_an_interrupt() {
    for (_, mut executor) in test_arm::executors() {
        let mut code = set(PMINTENSET, 1 << 31);
        code.extend(set(PMCCNTR, 0u64.wrapping_sub(5_000)));
        code.extend(set(PMCNTENSET, 1 << 31));
        // LC: overflow at 64 bits.
        code.extend(set(PMCR, E | 1 << 6));
        code.extend(spin(10_000));
        code.extend([mrs(0, PMCCNTR), mrs(1, PMOVSCLR)]);
        // A slice has 1000 instructions: a microsecond.
        let outcome = bare::run_with(&code, executor.as_mut(), |time| time.advance_ns(1000));
        let outcome = outcome.unwrap();
        assert_eq!((outcome.x[1], outcome.pmu), (1 << 31, (true, 1)));
        assert!((14_000..17_000).contains(&outcome.x[0]), "{}", outcome.x[0]);
    }
}

#[test]
fn user_mode_sees_what_it_is_let_see() {
    let program = |enable: u64| {
        let mut code = set(PMUSERENR, enable);
        code.extend(set(SPSR, 0));
        let head = code.len() as u64;
        code.extend(set(ELR, CODE + 4 * (head + 3)));
        code.push(ERET);
        code.extend([mrs(5, PMCCNTR), SVC]);
        code
    };
    for (enable, class) in [(0, 0x18), (1, 0x15), (1 << 2, 0x15), (1 << 1, 0x18)] {
        for (name, mut executor) in test_arm::executors() {
            let run = bare::run_to_el1(&program(enable), executor.as_mut(), PMCR);
            let taken = run.unwrap().taken;
            assert_eq!(taken[0].class(), class, "{name}: {enable}");
        }
    }
}

#[test]
fn counters_overflow_at_64_bits_if_that_is_wanted() {
    let last = |begin: u64, times: usize| {
        let mut body = set(COUNTER_0, begin);
        // LP.
        body.extend(set(PMCR, E | 1 << 7));
        body.extend(mov(3, 1));
        body.extend(vec![msr(PMSWINC, 3); times]);
        body.push(mrs(5, PMOVSCLR));
        let outcome = counted(SW_INCR, &body);
        (outcome.x[0], outcome.x[5])
    };
    assert_eq!(last(u64::MAX, 2), (1, 1));
    assert_eq!(last(0xffff_ffff, 1), (1 << 32, 0));
}
