use super::*;

const INTERRUPT: u64 = 14;
const TRAP_GATE: u64 = 15;
const TASK: u64 = 5;

#[test]
fn real_mode_goes_through_the_vector_table() {
    let mut b = Bench::real();
    b.put(0x21 * 4, 4, 0xf000_1234);
    flags::write(&mut b.core, rflags::IF | rflags::TF | accel_ir::flags::CF);
    assert_eq!(
        b.call(SOFTWARE_INTERRUPT, [0x21, 2, 0, 0]),
        Err(Trap::Leave)
    );
    assert_eq!(
        (b.core.pc(), b.selector(SegmentIndex::Cs)),
        (0x1234, 0xf000)
    );
    assert_eq!(b.core.arch.cs().base, 0xf_0000);
    assert_eq!(flags::read(&b.core), 3);
    assert_eq!(b.sp(), 0xffa);
    assert_eq!(b.get(0x20ffa, 8) & 0xffff_ffff_ffff, 0x0303_1000_0002);
    b.call(INTERRUPT_RETURN, [2, 0, 0, 0]).unwrap_err();
    assert_eq!((b.core.pc(), b.sp()), (2, 0x1000));
    assert_eq!(flags::read(&b.core), rflags::IF | rflags::TF | 3);
}

#[test]
fn an_interrupt_gate_clears_if_and_a_trap_gate_does_not() {
    for (kind, left) in [(INTERRUPT, 2), (TRAP_GATE, 2 | rflags::IF)] {
        let mut b = Bench::protected();
        b.gate(0x40, kind, 0, 8, 0xabcd_1234);
        flags::write(&mut b.core, rflags::IF | rflags::NT);
        b.call(SOFTWARE_INTERRUPT, [0x40, 0x5002, 0, 0])
            .unwrap_err();
        assert_eq!(b.core.pc(), 0xabcd_1234);
        assert_eq!(flags::read(&b.core), left);
        assert_eq!(b.sp(), 0x8000 - 12);
        assert_eq!(b.get(0x7ff4, 8), 8 << 32 | 0x5002);
        assert_eq!(b.get(0x7ffc, 4), rflags::IF | rflags::NT | 2);
    }
}

#[test]
fn an_exception_from_user_code_takes_the_stack_of_the_tss() {
    let mut b = Bench::protected();
    b.gate(13, INTERRUPT, 0, 8, 0x5500);
    b.enter_user(rflags::IF);
    b.note(vector::GP, Some(0x1234));
    deliver(&mut b.core).unwrap();
    assert_eq!((b.core.arch.cpl, b.core.pc()), (0, 0x5500));
    assert_eq!(b.sp(), 0x9000 - 24);
    let frame: Vec<u64> = (0..6).map(|n| b.get(0x8fe8 + 4 * n, 4)).collect();
    // Error, EIP, CS, EFLAGS with RF, ESP, SS.
    assert_eq!(frame, [0x1234, 0x7000, 0x1b, 0x1_0202, 0x6000, 0x23]);
    assert_eq!(b.selector(SegmentIndex::Ss), 0x10);
}

#[test]
fn int_n_checks_the_privilege_of_the_gate_and_hardware_does_not() {
    let mut b = Bench::protected();
    b.gate(0x40, INTERRUPT, 0, 8, 0x5500);
    b.gate(3, INTERRUPT, 3, 8, 0x5600);
    b.enter_user(2);
    let result = b.call(SOFTWARE_INTERRUPT, [0x40, 0x7002, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0x40 * 8 + 2)));
    assert_eq!(b.core.pc(), 0x7000);
    b.call(BREAKPOINT, [0x7001, 0, 0, 0]).unwrap_err();
    assert_eq!((b.core.pc(), b.get(0x8fec, 4)), (0x5600, 0x7001));
}

#[test]
fn a_gate_that_is_absent_or_beyond_the_table_faults_with_its_number() {
    let mut b = Bench::protected();
    let result = b.call(SOFTWARE_INTERRUPT, [0x41, 0, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0x41 * 8 + 2)));
    b.put(0x2000 + 8 * 0x41, 8, 0x0000_0e00_0008_0000);
    let result = b.call(SOFTWARE_INTERRUPT, [0x41, 0, 0, 0]);
    assert_eq!(b.fault(result), (vector::NP, Some(0x41 * 8 + 2)));
    b.core.arch.idtr.limit = 0x1ff;
    let result = b.call(SOFTWARE_INTERRUPT, [0x41, 0, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0x41 * 8 + 2)));
}

#[test]
fn two_contributory_faults_make_a_double_fault_and_a_third_shuts_down() {
    let mut b = Bench::protected();
    b.gate(8, INTERRUPT, 0, 8, 0x5800);
    b.note(vector::GP, Some(0));
    deliver(&mut b.core).unwrap();
    assert_eq!((b.core.pc(), b.get(b.sp(), 4)), (0x5800, 0));
    b.gate(8, INTERRUPT, 0, 0x18, 0x5800);
    b.note(vector::GP, Some(0));
    assert_eq!(deliver(&mut b.core), Err(Exit::Shutdown));
}

#[test]
fn a_benign_exception_does_not_lead_to_a_double_fault() {
    let mut b = Bench::protected();
    b.gate(13, INTERRUPT, 0, 8, 0x5d00);
    b.note(vector::UD, None);
    deliver(&mut b.core).unwrap();
    assert_eq!(b.core.pc(), 0x5d00);
    // The gate of #UD, found by an external event.
    assert_eq!(b.get(b.sp(), 4), 6 * 8 + 3);
}

#[test]
fn a_page_fault_sets_cr2() {
    let mut b = Bench::protected();
    b.gate(14, INTERRUPT, 0, 8, 0x5e00);
    b.core.arch.exception = Some(Exception {
        vector: vector::PF,
        error: Some(2),
        address: Some(0xdead_b000),
        software: false,
    });
    deliver(&mut b.core).unwrap();
    assert_eq!((b.core.pc(), b.core.arch.cr2), (0x5e00, 0xdead_b000));
}

#[test]
fn long_mode_pushes_ss_always_and_aligns_the_stack() {
    let mut b = Bench::long();
    b.gate_64(0x40, INTERRUPT, 0, 0, 0xffff_8000_0012_3456);
    b.set(index::RSP, 0x8006);
    b.call(SOFTWARE_INTERRUPT, [0x40, 0x5002, 0, 0])
        .unwrap_err();
    assert_eq!(b.core.pc(), 0xffff_8000_0012_3456);
    assert_eq!(b.sp(), 0x8000 - 40);
    let frame: Vec<u64> = (0..5).map(|n| b.get(b.sp() + 8 * n, 8)).collect();
    assert_eq!(frame, [0x5002, 0x38, 2, 0x8006, 0x10]);
    assert_eq!(b.call(INTERRUPT_RETURN, [8, 0, 0, 0]), Ok(0x5002));
    assert_eq!((b.core.pc(), b.sp()), (0x5002, 0x8006));
}

#[test]
fn iretq_within_the_mode_goes_on_unless_something_waits() {
    let mut b = Bench::long();
    let call = |b: &mut Bench, flags| {
        for (n, value) in [0x6000, 0x38, flags, 0x8000, 0x10].into_iter().enumerate() {
            b.put(0x7000 + 8 * n as u64, 8, value);
        }
        b.set(index::RSP, 0x7000);
        b.call(INTERRUPT_RETURN, [8, 0, 0, 0])
    };
    assert_eq!(call(&mut b, 0x202), Ok(0x6000));
    assert_eq!(call(&mut b, 0x302), Err(Trap::Leave), "a trap");
    assert_eq!(call(&mut b, 0x202), Ok(0x6000));
    b.core.pending.raise(reason::INTR);
    assert_eq!(call(&mut b, 0x202), Err(Trap::Leave), "an interrupt");
    assert_eq!((b.core.pc(), b.sp()), (0x6000, 0x8000));
}

#[test]
fn the_interrupt_stack_table_names_a_stack() {
    let mut b = Bench::long();
    b.gate_64(8, INTERRUPT, 0, 2, 0x5800);
    b.put(0x3000 + 0x24 + 8, 8, 0xa000);
    b.note(vector::DF, Some(0));
    deliver(&mut b.core).unwrap();
    assert_eq!(b.sp(), 0xa000 - 48);
    assert_eq!(b.get(b.sp(), 8), 0);
}

#[test]
fn a_task_gate_switches_to_the_task_and_iret_returns() {
    let mut b = Bench::protected();
    b.gate(8, TASK, 0, 0x30, 0);
    for (at, value) in [
        (0x20, 0x5a00),
        (0x24, 2),
        (0x28, 0x1111),
        (0x38, 0xb000),
        (0x48, 0x10),
        (0x4c, 8),
        (0x50, 0x10),
        (0x54, 0x10),
    ] {
        b.put(0x4000 + at, 4, value);
    }
    b.set(index::RAX, 0x2222);
    b.note(vector::DF, Some(0));
    deliver(&mut b.core).unwrap();
    assert_eq!((b.core.pc(), b.gpr(index::RAX)), (0x5a00, 0x1111));
    assert_eq!((b.sp(), b.get(0xaffc, 4)), (0xaffc, 0));
    assert_eq!(flags::read(&b.core) & rflags::NT, rflags::NT);
    assert_eq!(b.core.arch.tr.selector, 0x30);
    assert_eq!(b.core.arch.cr0 & cr0::TS, cr0::TS);
    // The old task is saved and still busy; the link leads back.
    assert_eq!((b.get(0x3020, 4), b.get(0x3028, 4)), (0x5000, 0x2222));
    assert_eq!(b.get(0x4000, 2), 0x28);
    b.call(INTERRUPT_RETURN, [4, 0x5a02, 0, 0]).unwrap_err();
    assert_eq!((b.core.pc(), b.gpr(index::RAX)), (0x5000, 0x2222));
    assert_eq!(b.core.arch.tr.selector, 0x28);
    assert_eq!(b.get(0x1035, 1), 0x89, "no longer busy");
}

#[test]
fn a_task_with_the_trap_flag_begins_with_a_debug_exception() {
    let mut b = Bench::protected();
    b.gate(8, TASK, 0, 0x30, 0);
    b.gate(1, INTERRUPT, 0, 8, 0x5100);
    for (at, value) in [
        (0x20, 0x5a00),
        (0x24, 2),
        (0x38, 0xb000),
        (0x48, 0x10),
        (0x4c, 8),
        (0x50, 0x10),
        (0x54, 0x10),
        (0x64, 1),
    ] {
        b.put(0x4000 + at, 4, value);
    }
    b.note(vector::DF, Some(0));
    deliver(&mut b.core).unwrap();
    assert_eq!(b.core.pc(), 0x5a00);
    service(&mut b.core).unwrap();
    assert_eq!(
        (b.core.pc(), b.core.arch.system.dr6 & 0xe00f),
        (0x5100, 0x8000)
    );
    assert_eq!(b.get(b.sp(), 4), 0x5a00);
}

#[test]
fn virtual_8086_mode_is_entered_by_iret_and_left_by_an_interrupt() {
    let mut b = Bench::protected();
    b.gate(13, INTERRUPT, 0, 8, 0x5d00);
    let frame = [
        0x100,
        0x2000,
        rflags::VM | rflags::IF,
        0xfff0,
        0x3000,
        0x4000,
        0x5000,
        0x6000,
        0x7000,
    ];
    for (n, value) in frame.into_iter().enumerate() {
        b.put(0x8000 + 4 * n as u64, 4, value);
    }
    b.call(INTERRUPT_RETURN, [4, 0, 0, 0]).unwrap_err();
    assert_eq!((b.core.arch.cpl, b.core.arch.cs().base), (3, 0x20000));
    assert_eq!(b.core.arch.segment(SegmentIndex::Gs as usize).base, 0x70000);
    // INT n is sensitive to IOPL there.
    let result = b.call(SOFTWARE_INTERRUPT, [0x21, 0x102, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    b.note(vector::GP, Some(0));
    deliver(&mut b.core).unwrap();
    assert_eq!((b.core.arch.cpl, b.core.pc()), (0, 0x5d00));
    let saved: Vec<u64> = (0..10).map(|n| b.get(b.sp() + 4 * n, 4)).collect();
    let flags = 2 | rflags::VM | rflags::IF | rflags::RF;
    assert_eq!(
        saved,
        [
            0, 0x100, 0x2000, flags, 0xfff0, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000
        ]
    );
    assert!(!b.core.arch.segment(SegmentIndex::Ds as usize).is_present());
}

#[test]
fn an_interrupt_waits_for_if_and_for_the_end_of_the_shadow() {
    let mut b = Bench::protected();
    b.gate(0x30, INTERRUPT, 0, 8, 0x5300);
    b.port.with(|p| p.vectors.push(0x30));
    b.core.pending.raise(reason::INTR);
    service(&mut b.core).unwrap();
    assert_eq!(b.core.pc(), 0x5000, "IF is clear");
    assert_eq!(b.call(STI, [0x5001, 0, 0, 0]), Err(Trap::Leave));
    service(&mut b.core).unwrap();
    assert_eq!(b.core.pc(), 0x5001, "in the shadow of STI");
    super::super::after_step(&mut b.core).unwrap();
    service(&mut b.core).unwrap();
    assert_eq!((b.core.pc(), b.get(b.sp(), 4)), (0x5300, 0x5001));
    assert_eq!(b.core.pending.get(), 0);
}

#[test]
fn a_halted_cpu_sleeps_until_an_interrupt_it_can_take() {
    let mut b = Bench::protected();
    b.gate(0x30, INTERRUPT, 0, 8, 0x5300);
    assert_eq!(b.call(STI, [0x5001, 0, 0, 0]), Err(Trap::Leave));
    assert_eq!(
        b.call(HALT, [0x5002, 0, 0, 0]),
        Err(Trap::Exit(Exit::Halted))
    );
    assert_ne!(wake_mask(&b.core) & reason::INTR, 0);
    b.core.pending.raise(reason::INTR);
    assert_eq!(service(&mut b.core), Err(Exit::Halted), "spurious");
    b.port.with(|p| p.vectors.push(0x30));
    b.core.pending.raise(reason::INTR);
    service(&mut b.core).unwrap();
    assert_eq!((b.core.pc(), b.get(b.sp(), 4)), (0x5300, 0x5002));
    assert!(!b.core.arch.halted);
}

#[test]
fn an_nmi_is_blocked_until_iret() {
    let mut b = Bench::protected();
    b.gate(2, INTERRUPT, 0, 8, 0x5200);
    b.core.pending.raise(reason::NMI);
    service(&mut b.core).unwrap();
    assert_eq!(b.core.pc(), 0x5200);
    b.core.pending.raise(reason::NMI);
    let sp = b.sp();
    service(&mut b.core).unwrap();
    assert_eq!(b.sp(), sp);
    b.call(INTERRUPT_RETURN, [4, 0, 0, 0]).unwrap_err();
    service(&mut b.core).unwrap();
    assert_eq!(b.sp(), sp);
    assert_eq!(b.core.pending.get(), 0);
}

#[test]
fn an_application_processor_starts_where_the_message_says() {
    let mut b = Bench::cpu(1, "max");
    assert!(b.core.arch.wait_for_sipi);
    assert_eq!(service(&mut b.core), Err(Exit::Halted));
    b.port.with(|p| p.sipi = 0x9f);
    b.core.pending.raise(reason::INIT | reason::SIPI);
    service(&mut b.core).unwrap();
    assert_eq!((b.core.arch.cs().base, b.core.pc()), (0x9f000, 0));
    assert_eq!(b.selector(SegmentIndex::Cs), 0x9f00);
}

#[test]
fn a_single_step_traps_after_the_instruction_and_sets_bs() {
    let mut b = Bench::protected();
    b.gate(1, INTERRUPT, 0, 8, 0x5100);
    flags::write(&mut b.core, rflags::TF);
    super::super::after_step(&mut b.core).unwrap();
    assert_eq!((b.core.pc(), b.core.arch.system.dr6 >> 14 & 1), (0x5100, 1));
    assert_eq!(b.get(b.sp() + 8, 4), rflags::TF | 2, "no RF for a trap");
    assert_eq!(flags::read(&b.core) & rflags::TF, 0);
}

#[test]
fn stop_and_park_are_the_threads_business() {
    let mut b = Bench::protected();
    for bit in [reason::STOP, reason::PARK, reason::WORK] {
        b.core.pending.raise(bit);
        assert_eq!(service(&mut b.core), Err(Exit::Pending));
        b.core.pending.clear(bit);
    }
    assert_eq!(service(&mut b.core), Ok(()));
}

#[test]
fn popf_traps_by_the_tf_before_it() {
    let mut b = Bench::protected();
    b.gate(1, INTERRUPT, 0, 8, 0x5100);
    b.core.stepping = true;
    flags::write(&mut b.core, rflags::TF);
    b.call(POPF, [2, 4, 0x4001, 0x5000]).ok();
    b.core.set_pc(0x4001);
    super::super::after_step(&mut b.core).unwrap();
    assert_eq!(b.core.pc(), 0x5100, "cleared: one trap more");

    let mut b = Bench::protected();
    b.gate(1, INTERRUPT, 0, 8, 0x5100);
    b.core.stepping = true;
    b.call(POPF, [rflags::TF | 2, 4, 0x4001, 0x5000]).ok();
    super::super::after_step(&mut b.core).unwrap();
    assert_eq!(b.core.pc(), 0x4001, "set: not yet");
    super::super::after_step(&mut b.core).unwrap();
    assert_eq!(b.core.pc(), 0x5100);
}

#[test]
fn sysret_traps_by_the_tf_that_it_loads() {
    let mut b = Bench::long();
    let efer = b.rdmsr(0xc000_0080).unwrap();
    b.wrmsr(0xc000_0080, efer | efer::SCE).unwrap();
    b.set(index::RCX, 0x7000);
    b.set(11, rflags::TF | 2);
    assert_eq!(b.call(SYSRET, [8, 0, 0, 0]), Err(Trap::After));
    let noted = b.core.arch.exception.take().unwrap();
    assert_eq!((noted.vector, b.core.pc()), (vector::DB, 0x7000));
}

#[test]
fn a_traced_cpu_neither_halts_nor_gives_up_its_slice() {
    let mut b = Bench::protected();
    for id in [HALT, PAUSE, MWAIT] {
        flags::write(&mut b.core, rflags::TF);
        assert_eq!(b.call(id, [0x4002, 0, 0, 0]), Err(Trap::Leave));
        assert!(!b.core.arch.halted);
    }
}
