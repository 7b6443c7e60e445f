//! The runner, tried with instructions whose effects are beyond doubt.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use crate::{CODE, DATA, DATA_SIZE, Native, NativeState, Outcome};

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const DF: u64 = 1 << 10;
const OF: u64 = 1 << 11;
const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

const RAX: usize = 0;
const RCX: usize = 1;
const RSP: usize = 4;
const RSI: usize = 6;

fn native() -> Native {
    Native::new().expect("an x86-64 Linux host")
}

fn start() -> NativeState {
    let mut state = NativeState::default();
    state.gpr[RSP] = DATA + 0x1000;
    state
}

fn run(code: &[u8], state: &mut NativeState) -> Outcome {
    native().run(code, state)
}

fn fault(outcome: Outcome) -> (u8, u64, u64, u64) {
    match outcome {
        Outcome::Fault {
            trapno,
            error_code,
            address,
            rip_offset,
            ..
        } => (trapno, error_code, address, rip_offset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_general_register_goes_in_and_comes_out() {
    let mut state = start();
    for (i, r) in state.gpr.iter_mut().enumerate() {
        *r = 0x0123_4567_89ab_cd00 + i as u64;
    }
    let before = state.clone();
    // xchg rax, rcx
    assert_eq!(run(&[0x48, 0x91], &mut state), Outcome::Done);
    let mut want = before.gpr;
    want.swap(RAX, RCX);
    assert_eq!(state.gpr, want);
}

#[test]
fn adc_takes_and_makes_flags() {
    let mut state = start();
    state.gpr[RAX] = 0x7fff_ffff_ffff_ffff;
    state.rflags = CF;
    // adc rax, 0
    assert_eq!(run(&[0x48, 0x83, 0xd0, 0], &mut state), Outcome::Done);
    assert_eq!(state.gpr[RAX], 1 << 63);
    assert_eq!(state.rflags & ARITHMETIC, OF | SF | PF | AF);
    assert_eq!(state.rflags & !ARITHMETIC, 0x202);
}

#[test]
fn the_direction_flag_works_and_does_not_leak() {
    let mut native = native();
    let mut state = start();
    state.gpr[RSI] = DATA + 8;
    state.rflags = DF;
    // lodsq
    assert_eq!(native.run(&[0x48, 0xad], &mut state), Outcome::Done);
    assert_eq!(state.gpr[RSI], DATA);
    let flags: u64;
    // SAFETY: pushes and pops once, and clobbers only the output.
    unsafe { std::arch::asm!("pushfq", "pop {}", out(reg) flags) };
    assert_eq!(flags & DF, 0);
}

#[test]
fn push_and_pop_use_the_data_pages() {
    let mut native = native();
    let mut state = start();
    state.gpr[RAX] = 0x1122_3344_5566_7788;
    // push rax; pop rcx; push rcx
    assert_eq!(native.run(&[0x50, 0x59, 0x51], &mut state), Outcome::Done);
    assert_eq!(state.gpr[RCX], 0x1122_3344_5566_7788);
    assert_eq!(state.gpr[RSP], DATA + 0xff8);
    assert_eq!(
        native.memory()[0xff8..0x1000],
        0x1122_3344_5566_7788u64.to_le_bytes()
    );
}

#[test]
fn division_by_zero_is_vector_0_at_the_instruction() {
    let mut state = start();
    state.gpr[RAX] = 5;
    // nop; div ecx
    assert_eq!(fault(run(&[0x90, 0xf7, 0xf1], &mut state)), (0, 0, 0, 1));
    assert_eq!(state.gpr[RAX], 5);
    assert_eq!(state.gpr[RSP], DATA + 0x1000);
    assert_eq!(state.rflags & 1 << 16, 0);
}

#[test]
fn a_load_behind_the_data_pages_is_a_page_fault_with_its_address() {
    let mut state = start();
    state.gpr[RCX] = DATA + DATA_SIZE as u64 - 4;
    // mov rax, [rcx]: straddles the end, user read of an absent page
    assert_eq!(
        fault(run(&[0x48, 0x8b, 0x01], &mut state)),
        (14, 4, DATA + DATA_SIZE as u64, 0)
    );
}

#[test]
fn a_store_to_a_non_canonical_address_is_a_protection_fault() {
    let mut state = start();
    state.gpr[RCX] = 1 << 63;
    // mov [rcx], rax
    assert_eq!(fault(run(&[0x48, 0x89, 0x01], &mut state)), (13, 0, 0, 0));
}

#[test]
fn int3_is_vector_3_behind_and_ud2_vector_6_at_the_instruction() {
    assert_eq!(fault(run(&[0xcc], &mut start())), (3, 0, 0, 1));
    assert_eq!(fault(run(&[0x0f, 0x0b], &mut start())), (6, 0, 0, 0));
}

#[test]
fn an_unmasked_sse_exception_is_vector_19_and_keeps_the_registers() {
    let mut state = start();
    state.fx.set_mxcsr(0x1f80 & !(1 << 9));
    state.fx.set_xmm(0, 1.0f32.to_bits().into());
    // divss xmm0, xmm1
    assert_eq!(
        fault(run(&[0xf3, 0x0f, 0x5e, 0xc1], &mut state)),
        (19, 0, 0, 0)
    );
    assert_eq!(state.fx.xmm(0), u128::from(1.0f32.to_bits()));
    assert_eq!(state.fx.mxcsr() & 0x3f, 1 << 2);
}

#[test]
fn every_xmm_register_goes_in_and_comes_out() {
    let mut state = start();
    for i in 0..16 {
        state
            .fx
            .set_xmm(i, 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f00 + i as u128);
    }
    // pxor xmm0, xmm15
    assert_eq!(
        run(&[0x66, 0x41, 0x0f, 0xef, 0xc7], &mut state),
        Outcome::Done
    );
    assert_eq!(state.fx.xmm(0), 0xf);
    for i in 1..16 {
        assert_eq!(
            state.fx.xmm(i),
            0x0102_0304_0506_0708_090a_0b0c_0d0e_0f00 + i as u128
        );
    }
}

#[test]
fn x87_code_works_on_the_given_stack() {
    let mut state = start();
    state.fx.set_fsw(7 << 11);
    state.fx.set_ftw(1 << 7);
    state.fx.set_st(0, 0x4000_c90f_daa2_2168_c235);
    // fld1; faddp st(1), st(0)
    assert_eq!(run(&[0xd9, 0xe8, 0xde, 0xc1], &mut state), Outcome::Done);
    assert_eq!(state.fx.st(0), 0x4001_8487_ed51_10b4_611a);
    assert_eq!((state.fx.ftw(), state.fx.fsw() >> 11 & 7), (1 << 7, 7));
}

#[test]
fn a_pending_x87_exception_is_vector_16_at_the_next_waiting_instruction() {
    let mut state = start();
    state.fx.set_fcw(0x37f & !4);
    // fld1; fldz; fdivp; fwait
    let outcome = run(&[0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b], &mut state);
    assert_eq!(fault(outcome), (16, 0, 0, 6));
}

#[test]
fn jumps_inside_the_code_work_and_outside_hit_int3() {
    let mut state = start();
    // jmp +2; ud2
    assert_eq!(run(&[0xeb, 0x02, 0x0f, 0x0b], &mut state), Outcome::Done);
    // jmp -4
    assert_eq!(fault(run(&[0xeb, 0xfc], &mut state)), (3, 0, 0, u64::MAX));
    // call +0: the return address tells where the code is
    let mut native = native();
    assert_eq!(native.run(&[0xe8, 0, 0, 0, 0], &mut state), Outcome::Done);
    assert_eq!(native.memory()[0xff8..0x1000], (CODE + 5).to_le_bytes());
}

#[test]
fn an_endless_loop_times_out_and_the_runner_goes_on() {
    let mut native = native();
    assert_eq!(native.run(&[0xeb, 0xfe], &mut start()), Outcome::TimedOut);
    assert_eq!(native.run(&[0x90], &mut start()), Outcome::Done);
}

#[test]
fn trap_and_alignment_flags_do_not_get_in() {
    let mut state = start();
    state.rflags = u64::MAX;
    // nop; nop
    assert_eq!(run(&[0x90, 0x90], &mut state), Outcome::Done);
    assert_eq!(state.rflags & (1 << 8 | 1 << 18), 0);
}

#[test]
fn code_that_sets_the_alignment_flag_faults_as_it_would_anywhere() {
    let mut state = start();
    state.gpr[RCX] = DATA + 1;
    // push 0x40202; popfq; mov eax, [rcx]
    let code = [0x68, 0x02, 0x02, 0x04, 0x00, 0x9d, 0x8b, 0x01];
    assert_eq!(fault(run(&code, &mut state)), (17, 0, 0, 6));
}
