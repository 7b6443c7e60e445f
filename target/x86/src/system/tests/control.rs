use super::*;

#[test]
fn cr0_refuses_impossible_combinations() {
    let mut b = Bench::protected();
    for value in [cr0::PG, cr0::PE | cr0::NW, 1 << 32 | cr0::PE] {
        let result = b.call(WRITE_CR, [0, value, 0, 0]);
        assert_eq!(b.fault(result), (vector::GP, Some(0)), "{value:#x}");
    }
    assert_eq!(b.core.arch.cr0, cr0::PE | cr0::NE | cr0::ET);
}

#[test]
fn long_mode_begins_with_paging_and_needs_pae() {
    let mut b = Bench::protected();
    b.wrmsr(0xc000_0080, efer::LME).unwrap();
    let result = b.call(WRITE_CR, [0, cr0::PE | cr0::PG, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    b.core.arch.cr4 = cr4::PAE;
    b.call(WRITE_CR, [0, cr0::PE | cr0::PG, 0, 0]).unwrap_err();
    assert_eq!(b.rdmsr(0xc000_0080), Ok(efer::LME | efer::LMA));
    let result = b.wrmsr(0xc000_0080, 0);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn cr4_takes_only_what_the_model_has() {
    let mut b = Bench::cpu(0, "qemu64");
    let result = b.call(WRITE_CR, [4, cr4::SMEP, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    assert_eq!(
        b.call(WRITE_CR, [4, cr4::PAE | cr4::PGE, 0, 0]),
        Err(Trap::Leave)
    );
    let result = b.call(WRITE_CR, [4, cr4::PCIDE, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn cr8_is_the_controllers() {
    let mut b = Bench::long();
    b.call(WRITE_CR, [8, 9, 0, 0]).ok();
    assert_eq!(b.call(READ_CR, [8, 0, 0, 0]), Ok(9));
    let result = b.call(WRITE_CR, [8, 16, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn user_code_may_not_touch_system_registers() {
    let mut b = Bench::protected();
    b.enter_user(2);
    for id in [
        READ_CR, WRITE_CR, RDMSR, WRMSR, CLTS, LMSW, HALT, INVLPG, WRITE_BACK, LOAD_TABLE,
    ] {
        let result = b.call(id, [0; 4]);
        assert_eq!(b.fault(result), (vector::GP, Some(0)));
    }
    assert_eq!(b.call(SMSW, [0; 4]), Ok(cr0::PE | cr0::NE | cr0::ET));
    b.core.arch.cr4 |= cr4::UMIP;
    let result = b.call(SMSW, [0; 4]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn lmsw_cannot_leave_protected_mode() {
    let mut b = Bench::protected();
    b.call(LMSW, [cr0::TS, 0, 0, 0]).ok();
    assert_eq!(b.core.arch.cr0 & 15, cr0::PE | cr0::TS);
    b.call(CLTS, [0; 4]).ok();
    assert_eq!(b.core.arch.cr0 & 15, cr0::PE);
}

#[test]
fn cli_and_popf_obey_iopl() {
    let mut b = Bench::protected();
    b.enter_user(rflags::IF);
    let result = b.call(CLI, [0; 4]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    b.call(POPF, [0x3000, 4, 0, 0x5000]).ok();
    assert_eq!(flags::read(&b.core), 2 | rflags::IF);
    let mut b = Bench::protected();
    b.enter_user(rflags::IF | rflags::IOPL);
    assert_eq!(b.call(CLI, [0; 4]), Ok(0));
    assert_eq!(flags::read(&b.core), 2 | rflags::IOPL);
}

#[test]
fn ports_need_iopl_or_the_bitmap() {
    let mut b = Bench::protected();
    assert_eq!(b.call(IN, [0x60, 1, 0, 0]), Ok(0x1_0060));
    // The map begins at 68h of a TSS long enough for ports 0 to 127.
    b.core.arch.tr.limit = 0x68 + 16;
    b.put(0x3066, 2, 0x68);
    b.put(0x3068 + 12, 1, 0b1111_1110);
    b.enter_user(2);
    assert_eq!(b.call(IN, [0x60, 1, 0, 0]), Ok(0x1_0060));
    let result = b.call(IN, [0x60, 2, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    let result = b.call(OUT, [0x3f8, 1, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    assert!(b.port.with(|p| p.out.is_empty()));
}

#[test]
fn the_tsc_follows_the_clock_and_takes_writes() {
    let mut b = Bench::cpu(0, "max,tsc-frequency=2000000000");
    b.time.advance_ns(100);
    assert_eq!(tsc(&b.core), 200);
    b.wrmsr(0x10, 1000).unwrap();
    b.time.advance_ns(1);
    assert_eq!(b.rdmsr(0x10), Ok(1002));
    assert_eq!(b.rdmsr(0x3b), Ok(800));
    b.wrmsr(0x3b, 0).unwrap();
    assert_eq!(b.rdmsr(0x10), Ok(202));
}

#[test]
fn a_tsc_deadline_reaches_the_controller_as_virtual_time() {
    let mut b = Bench::cpu(0, "max");
    b.time.advance_ns(500);
    b.wrmsr(0x10, 0).unwrap();
    b.wrmsr(0x6e0, 300).unwrap();
    assert_eq!(b.port.with(|p| p.deadline), (300, 800));
    assert_eq!(b.rdmsr(0x6e0), Ok(300));
}

#[test]
fn rdtsc_is_refused_to_users_under_tsd() {
    let mut b = Bench::protected();
    b.core.arch.cr4 |= cr4::TSD;
    assert_eq!(b.call(RDTSC, [0; 4]), Ok(0));
    b.enter_user(2);
    let result = b.call(RDTSC, [0; 4]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn unknown_msrs_and_bad_values_raise() {
    let mut b = Bench::long();
    let result = b.rdmsr(0x1234_5678);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    for (msr, value) in [
        (0xc000_0082, 1 << 63),
        (0xc000_0080, 1 << 20),
        (0x277, 2),
        (0x200, 2),
        (0x2ff, 0x100),
        (0x401, 1),
    ] {
        let result = b.wrmsr(msr, value);
        assert_eq!(b.fault(result), (vector::GP, Some(0)), "{msr:#x}");
    }
    b.wrmsr(0x277, 0x0606_0606_0606_0606).unwrap();
    assert_eq!(b.rdmsr(0x277), Ok(0x0606_0606_0606_0606));
    b.wrmsr(0x26f, 0x0505_0505_0505_0505).unwrap();
    assert_eq!(b.rdmsr(0x26f), Ok(0x0505_0505_0505_0505));
    assert_eq!(b.rdmsr(0x179), Ok(0x10a));
}

#[test]
fn xcr0_holds_x87_and_sse_only() {
    let mut b = Bench::cpu(0, "max");
    let result = b.call(XGETBV, [0; 4]);
    assert_eq!(b.fault(result), (vector::UD, None));
    b.core.arch.cr4 |= cr4::OSXSAVE;
    b.set(index::RAX, 3);
    b.set(index::RDX, 0);
    b.set(index::RCX, 0);
    b.call(XSETBV, [0; 4]).ok();
    assert_eq!(b.core.arch.system.xcr0, 3);
    b.set(index::RAX, 7);
    let result = b.call(XSETBV, [0; 4]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn debug_registers_keep_their_fixed_bits() {
    let mut b = Bench::protected();
    b.call(WRITE_DR, [6, 0, 0, 0]).unwrap();
    // What is watched is looked at before the next unit.
    assert_eq!(b.call(WRITE_DR, [7, 0, 0, 0]), Err(Trap::Leave));
    assert_eq!(b.call(WRITE_DR, [0, 0x1234, 0, 0]), Err(Trap::Leave));
    assert_eq!(b.call(READ_DR, [4, 0, 0, 0]), Ok(0xffff_0ff0));
    assert_eq!(b.call(READ_DR, [7, 0, 0, 0]), Ok(0x400));
    assert_eq!(b.call(READ_DR, [0, 0, 0, 0]), Ok(0x1234));
    b.core.arch.cr4 |= cr4::DE;
    let result = b.call(READ_DR, [4, 0, 0, 0]);
    assert_eq!(b.fault(result), (vector::UD, None));
}

#[test]
fn a_changed_a20_gate_is_seen_after_out() {
    let mut b = Bench::real();
    b.put(0x10_0000, 1, 0x11);
    b.put(0, 1, 0x22);
    assert_eq!(b.core.load(0x10_0000, 1, ctx::SUPERVISOR), Ok(0x11));
    b.port.with(|p| p.a20 = false);
    b.call(OUT, [0x92, 1, 0, 0]).unwrap();
    assert_eq!(b.core.load(0x10_0000, 1, ctx::SUPERVISOR), Ok(0x22));
}

#[test]
fn legacy_performance_counters_of_amd_exist_but_count_nothing() {
    let mut b = Bench::cpu(0, "qemu64");
    for msr in 0xc001_0000..=0xc001_0007 {
        b.wrmsr(msr, 0x1234).unwrap();
        assert_eq!(b.rdmsr(msr), Ok(0));
    }
    let mut b = Bench::cpu(0, "qemu64,vendor=GenuineIntel");
    let result = b.rdmsr(0xc001_0000);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn machine_check_banks_take_what_processors_take() {
    let mut b = Bench::cpu(0, "max");
    let bank = 0x400;
    for value in [0, u64::MAX, !(1 << 10), !1] {
        b.wrmsr(bank, value).unwrap();
        assert_eq!(b.rdmsr(bank), Ok(value));
    }
    for (msr, value) in [(bank, 0x55), (bank + 1, 1)] {
        let result = b.wrmsr(msr, value);
        assert_eq!(b.fault(result), (vector::GP, Some(0)));
    }
    for addr_or_misc in [bank + 2, bank + 3] {
        b.wrmsr(addr_or_misc, 0xaaaa_0000_5555).unwrap();
        assert_eq!(b.rdmsr(addr_or_misc), Ok(0xaaaa_0000_5555));
    }
}

#[test]
fn x2apic_mode_is_reserved_in_models_without_it() {
    let mut b = Bench::cpu(0, "qemu64,-x2apic");
    let result = b.wrmsr(0x1b, 0xfee0_0d00);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
    b.wrmsr(0x1b, 0xfee0_0900).unwrap();
    let mut b = Bench::cpu(0, "qemu64,+x2apic");
    b.wrmsr(0x1b, 0xfee0_0d00).unwrap();
}

#[test]
fn hypercalls_are_unknown_to_the_hypervisor_and_undefined_without_one() {
    let mut b = Bench::cpu(0, "qemu64,-hypervisor");
    let result = b.call(HYPERCALL, [0; 4]);
    assert_eq!(b.fault(result), (vector::UD, None));
    let decodes = |b: &Bench| has_feature(&b.core, iced_x86::CpuidFeature::SVM);
    assert!(!decodes(&b));
    let mut b = Bench::long();
    assert!(decodes(&b));
    assert_eq!(b.call(HYPERCALL, [0; 4]), Ok(0));
    assert_eq!(b.gpr(index::RAX), (-1000i64).cast_unsigned());
}
