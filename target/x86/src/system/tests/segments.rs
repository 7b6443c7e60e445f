use super::*;

#[test]
fn real_mode_loads_keep_the_limit_of_big_real_mode() {
    let mut b = Bench::protected();
    b.call(WRITE_CR, [0, 0, 0x5000, 0]).unwrap_err();
    b.call(LOAD_SEGMENT, [3, 0x1234, 0, 0x8000]).ok();
    let ds = b.core.arch.segment(SegmentIndex::Ds as usize);
    assert_eq!((ds.base, ds.limit), (0x12340, 0xffff_ffff));
    assert_eq!(b.core.regs.get(regs::base(3)), 0x12340);
}

#[test]
fn data_segments_are_checked_for_presence_type_and_privilege() {
    let mut b = Bench::protected();
    let mut load = |n: u64, selector: u64| {
        let result = b.call(LOAD_SEGMENT, [n, selector, 0, 0x8000]);
        matches!(result, Err(Trap::Exception)).then(|| b.fault(result))
    };
    assert_eq!(load(3, 0x40), Some((vector::NP, Some(0x40))));
    assert_eq!(load(2, 0x40), Some((vector::SS, Some(0x40))));
    assert_eq!(load(3, 0x28), Some((vector::GP, Some(0x28))));
    assert_eq!(load(2, 0x08), Some((vector::GP, Some(0x08))));
    assert_eq!(load(2, 0x20), Some((vector::GP, Some(0x20))));
    assert_eq!(load(2, 0), Some((vector::GP, Some(0))));
    assert_eq!(load(3, 0x108), Some((vector::GP, Some(0x108))));
    assert_eq!(load(3, 0x0c), Some((vector::GP, Some(0x0c))), "no LDT");
    assert_eq!(load(3, 0), None);
    assert_eq!(load(0, 0x48), None, "conforming code may be read");
}

#[test]
fn a_load_sets_the_accessed_bit() {
    let mut b = Bench::protected();
    b.put(0x1050, 8, 0x00cf_9200_0000_ffff);
    b.call(LOAD_SEGMENT, [3, 0x50, 0, 0x8000]).ok();
    assert_eq!(b.get(0x1055, 1), 0x93);
}

#[test]
fn mov_ss_sets_the_stack_pointer_and_holds_interrupts_off() {
    let mut b = Bench::protected();
    let result = b.call(LOAD_SEGMENT, [2, 0x10, 0x5002, 0x7777]);
    assert_eq!(result, Err(Trap::Leave));
    assert_eq!((b.sp(), b.core.pc()), (0x7777, 0x5002));
    assert!(b.core.arch.shadow);
}

#[test]
fn a_far_pointer_load_fills_both_registers() {
    let mut b = Bench::protected();
    b.set(index::RBX, u64::MAX);
    let packed = SegmentIndex::Es as u64 | (index::RBX as u64) << 8 | 2 << 16;
    b.call(LOAD_FAR_POINTER, [packed, 0x10, 0x1234, 0]).ok();
    assert_eq!(b.gpr(index::RBX), 0xffff_ffff_ffff_1234);
    assert_eq!(b.selector(SegmentIndex::Es), 0x10);
}

#[test]
fn a_far_call_and_return_within_a_level() {
    let mut b = Bench::protected();
    b.call(FAR_CALL, [8, 0x6000, 4, 0x5007]).unwrap_err();
    assert_eq!((b.core.pc(), b.sp()), (0x6000, 0x7ff8));
    assert_eq!(b.get(0x7ff8, 8), 8 << 32 | 0x5007);
    b.call(FAR_RETURN, [4, 8, 0x6001, 0]).unwrap_err();
    assert_eq!((b.core.pc(), b.sp()), (0x5007, 0x8008));
}

#[test]
fn a_call_gate_copies_parameters_to_the_inner_stack_and_retf_releases_them() {
    let mut b = Bench::protected();
    // Gate 50h: DPL 3, two parameters, to 08:5c00.
    b.put(0x1050, 8, 0x0000_ec02_0008_5c00);
    b.enter_user(2);
    b.put(0x5ff8, 8, 0xbbbb_0000_aaaa);
    b.set(index::RSP, 0x5ff8);
    b.call(FAR_CALL, [0x50, 0, 4, 0x7007]).unwrap_err();
    assert_eq!((b.core.arch.cpl, b.core.pc()), (0, 0x5c00));
    let frame: Vec<u64> = (0..6).map(|n| b.get(b.sp() + 4 * n, 4)).collect();
    assert_eq!(frame, [0x7007, 0x1b, 0xaaaa, 0xbbbb, 0x5ff8, 0x23]);
    b.call(FAR_RETURN, [4, 8, 0, 0]).unwrap_err();
    assert_eq!((b.core.arch.cpl, b.core.pc()), (3, 0x7007));
    assert_eq!((b.sp(), b.selector(SegmentIndex::Ss)), (0x6000, 0x23));
}

#[test]
fn a_far_jump_needs_its_own_privilege() {
    let mut b = Bench::protected();
    let result = b.call(FAR_JUMP, [0x1b, 0, 4, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0x18)));
    let result = b.call(FAR_JUMP, [0x10, 0, 4, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0x10)));
    let result = b.call(FAR_JUMP, [0, 0, 4, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    b.enter_user(2);
    b.far_jump(0x4b, 0x7100, 4);
    assert_eq!(b.core.arch.cpl, 3, "conforming code keeps the level");
    let result = b.call(FAR_JUMP, [0x08, 0, 4, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0x08)));
}

#[test]
fn a_return_to_user_level_drops_kernel_data_segments() {
    let mut b = Bench::protected();
    b.enter_user(2);
    let ds = b.core.arch.segment(SegmentIndex::Ds as usize);
    assert_eq!((ds.selector, ds.is_present()), (0, false));
}

#[test]
fn iret_from_user_level_cannot_open_interrupts_or_raise_iopl() {
    let mut b = Bench::protected();
    b.enter_user(2);
    for (n, value) in [0x7010, 0x1b, 0x3202 | rflags::AC].into_iter().enumerate() {
        b.put(0x5000 + 4 * n as u64, 4, value);
    }
    b.set(index::RSP, 0x5000);
    b.call(INTERRUPT_RETURN, [4, 0, 0, 0]).unwrap_err();
    assert_eq!(flags::read(&b.core), 2 | rflags::AC);
}

#[test]
fn a_return_inward_is_refused() {
    let mut b = Bench::protected();
    b.enter_user(2);
    for (n, value) in [0x5000, 0x08, 2].into_iter().enumerate() {
        b.put(0x5000 + 4 * n as u64, 4, value);
    }
    b.set(index::RSP, 0x5000);
    let result = b.call(INTERRUPT_RETURN, [4, 0, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0x08)));
    assert_eq!(b.sp(), 0x5000);
}

#[test]
fn lar_lsl_and_verr_answer_by_privilege() {
    let mut b = Bench::protected();
    assert_eq!(
        b.call(SEGMENT_PROPERTY, [0, 8, 0, 0]),
        Ok(1 << 63 | 0xc0_9b00)
    );
    assert_eq!(
        b.call(SEGMENT_PROPERTY, [1, 8, 0, 0]),
        Ok(1 << 63 | 0xffff_ffff)
    );
    assert_eq!(
        b.call(SEGMENT_PROPERTY, [1, 0x28, 0, 0]),
        Ok(1 << 63 | 0x67)
    );
    assert_eq!(b.call(SEGMENT_PROPERTY, [0, 0, 0, 0]), Ok(0));
    assert_eq!(b.call(VERIFY_SEGMENT, [1, 0x10, 0, 0]), Ok(1));
    assert_eq!(b.call(VERIFY_SEGMENT, [1, 8, 0, 0]), Ok(0));
    b.enter_user(2);
    assert_eq!(b.call(VERIFY_SEGMENT, [0, 0x10, 0, 0]), Ok(0));
    assert_eq!(b.call(VERIFY_SEGMENT, [0, 0x23, 0, 0]), Ok(1));
}

#[test]
fn ltr_marks_the_tss_busy_and_refuses_a_busy_one() {
    let mut b = Bench::protected();
    assert_eq!(b.get(0x102d, 1), 0x8b);
    let result = b.call(LOAD_SYSTEM_SEGMENT, [1, 0x28, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0x28)));
    assert_eq!(b.call(READ_SYSTEM_SEGMENT, [1, 0, 0, 0]), Ok(0x28));
}

#[test]
fn syscall_and_sysret_swap_levels_by_star() {
    let mut b = Bench::long();
    b.wrmsr(0xc000_0081, 0x23 << 48 | 0x10 << 32).unwrap();
    b.wrmsr(0xc000_0082, 0xffff_8000_0000_1000).unwrap();
    b.wrmsr(0xc000_0084, rflags::IF | rflags::DF).unwrap();
    b.set(index::RCX, 0x40_0000);
    b.set(11, rflags::IF | 2);
    b.call(SYSRET, [8, 0, 0, 0]).unwrap_err();
    assert_eq!((b.core.arch.cpl, b.core.pc()), (3, 0x40_0000));
    assert_eq!(b.selector(SegmentIndex::Cs), 0x33);
    assert_eq!(b.selector(SegmentIndex::Ss), 0x2b);
    b.call(SYSCALL, [0x40_0002, 0, 0, 0]).unwrap_err();
    assert_eq!((b.core.arch.cpl, b.core.pc()), (0, 0xffff_8000_0000_1000));
    assert_eq!(b.gpr(index::RCX), 0x40_0002);
    assert_eq!(b.gpr(11), rflags::IF | 2);
    assert_eq!(flags::read(&b.core), 2);
    assert_eq!(b.selector(SegmentIndex::Ss), 0x18);
    assert!(b.core.arch.is_64());
}

#[test]
fn iretq_pops_the_stack_even_within_a_level() {
    let mut b = Bench::long();
    for (n, value) in [0x6000, 0x38, 0x202, 0xaaaa, 0].into_iter().enumerate() {
        b.put(0x8000 + 8 * n as u64, 8, value);
    }
    assert_eq!(b.call(INTERRUPT_RETURN, [8, 0, 0, 0]), Ok(0x6000));
    assert_eq!((b.core.pc(), b.sp()), (0x6000, 0xaaaa));
    assert_eq!(b.selector(SegmentIndex::Ss), 0);
}

#[test]
fn swapgs_exchanges_the_bases() {
    let mut b = Bench::long();
    b.wrmsr(0xc000_0102, 0xffff_8000_0000_0000).unwrap();
    b.wrmsr(0xc000_0101, 0x1234).unwrap();
    assert_eq!(b.core.regs.get(regs::base(5)), 0x1234);
    b.call(SWAPGS, [0; 4]).unwrap();
    assert_eq!(b.core.regs.get(regs::base(5)), 0xffff_8000_0000_0000);
    assert_eq!(b.rdmsr(0xc000_0102), Ok(0x1234));
}

#[test]
fn stack_pushes_respect_expand_down_limits() {
    let mut b = Bench::protected();
    // 50h: expand-down data, 32-bit, valid above 7fff.
    b.put(0x1050, 8, 0x0040_9700_0000_7fff);
    b.call(LOAD_SEGMENT, [2, 0x50, 0, 0x8004]).ok();
    let result = b.call(FAR_CALL, [8, 0x6000, 4, 0x5007]);
    assert_eq!(b.fault(result), (vector::SS, Some(0)));
    b.set(index::RSP, 0x8008);
    assert_eq!(b.call(FAR_CALL, [8, 0x6000, 4, 0x5007]), Err(Trap::Leave));
}

#[test]
fn a_null_segment_has_no_privilege_to_check() {
    let null = Segment::default();
    assert!(!null.is_present());
    assert_eq!(null.dpl(), 0);
}
