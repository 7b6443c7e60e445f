use std::sync::Arc;

use accel_core::Trap;
use accel_ir::{Op, Unit, verify};
use hw_clock::Clock;
use hw_memory::{MappingSpec, MemoryMap, RamBlock, What};
use iced_x86::{Decoder, DecoderOptions};
use proptest::prelude::*;
use target_softfloat::{F64, F80, Float};

use super::fxsave::{Layout, Save};
use super::x87::{INDEFINITE, status};
use super::x87_arith::{Arith, Source};
use super::x87_function::Function;
use super::*;
use crate::decode::mode::Mode;
use crate::state::vector;
use crate::{Core, regs, system};
use accel_core::X87Format as Format;

/// Somewhere in memory, aligned.
const AT: u64 = 0x1000;
/// Accesses without paging.
const CTX: u64 = crate::cpu::ctx::SUPERVISOR as u64;
/// FXSAVE64 in 64-bit mode.
const LONG: Layout = Layout {
    wide: true,
    long: true,
};

/// A CPU with paging off and 64 KiB of memory.
fn core() -> (Core, Arc<RamBlock>) {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", 0x1_0000).unwrap());
    map.add(MappingSpec {
        name: "ram".into(),
        base: 0,
        len: 0x1_0000,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset: 0,
        },
    });
    let mut core = system::new_core(
        0,
        Arc::default(),
        system::Topology::default(),
        Box::new(crate::NoPort { a20: true }),
        map,
        Clock::manual().0,
    );
    core.arch.cr0 |= crate::cr0::NE;
    core.arch.cr4 |= 1 << 10;
    core.arch.system.xcr0 = 3;
    core.arch.x87.init();
    crate::decode::refresh(&mut core);
    (core, block)
}

/// An instruction is complete, whether or not the unit is left after it for another mode.
fn complete(result: Result<u64, Trap>) {
    assert!(matches!(result, Ok(0) | Err(Trap::Leave)), "{result:?}");
}

fn x87(control: u16) -> X87 {
    let mut x87 = X87::INIT;
    x87.set_control(control);
    x87
}

fn one() -> F80 {
    F80 {
        se: 0x3fff,
        sig: 1 << 63,
    }
}

fn raised(core: &Core) -> Option<u8> {
    core.arch.exception.map(|e| e.vector)
}

#[test]
fn helper_numbers_find_their_functions_in_the_table() {
    assert_eq!(crate::helper::name(X87_WAIT), "x87_helper::wait");
    assert_eq!(crate::helper::name(SSE_ESTIMATE), "sse_fp::estimates");
}

#[test]
fn a_push_onto_a_full_stack_loads_the_indefinite_value_and_sets_c1() {
    let mut x = x87(0x37f);
    x.used = 0xff;
    x.load_constant(0);
    assert_eq!((x.top, x.st(0)), (7, INDEFINITE));
    assert_eq!(
        x.status,
        status::IE | status::SF | status::C1,
        "no summary: masked"
    );
}

#[test]
fn an_unmasked_stack_fault_changes_nothing_but_the_status() {
    let mut x = x87(0x37e);
    x.used = 0xff;
    let before = x.clone();
    x.load_constant(0);
    assert!(x.is_pending());
    x.status = 0;
    assert_eq!(x, before);
}

#[test]
fn a_signalling_single_is_quieted_by_fld_and_kept_for_the_operation_by_fadd() {
    let mut x = x87(0x37f);
    x.load_memory(Format::F32, 0x7f80_0001);
    assert_eq!((x.st(0).se, x.st(0).sig), (0x7fff, 0xc000_0100_0000_0000));
    assert_eq!(x.status & status::FLAGS, status::IE);
    // A quiet NaN goes before a signalling one, whatever their significands.
    let mut x = x87(0x37f);
    let quiet = F80 {
        se: 0x7fff,
        sig: 0xc000_0000_0000_0001,
    };
    x.push(quiet);
    x.arith(Arith::Add, 0, Some(Source::f32(0x7fbf_ffff)), 0);
    assert_eq!((x.st(0), x.status & status::FLAGS), (quiet, status::IE));
}

#[test]
fn a_denormal_memory_operand_raises_de_though_its_wide_form_is_normal() {
    let mut x = x87(0x37f);
    x.push(one());
    x.arith(Arith::Mul, 0, Some(Source::f64(1)), 0);
    assert_eq!(x.status & status::FLAGS, 2);
}

#[test]
fn fxam_tells_every_class() {
    use status::{C0, C1, C2, C3};
    let class = |se, sig| {
        let mut x = x87(0x37f);
        x.push(F80 { se, sig });
        x.function(Function::Xam);
        x.status & (C0 | C1 | C2 | C3)
    };
    assert_eq!(class(0x3fff, 1 << 63), C2, "normal");
    assert_eq!(class(0x8000, 0), C3 | C1, "negative zero");
    assert_eq!(class(0x7fff, 1 << 63), C2 | C0, "infinity");
    assert_eq!(class(0x7fff, 3 << 62), C0, "NaN");
    assert_eq!(class(0, 1), C3 | C2, "denormal");
    assert_eq!(class(0x3fff, 1), 0, "unnormal");
    let mut x = x87(0x37f);
    x.function(Function::Xam);
    assert_eq!(x.status & (C0 | C2 | C3), C3 | C0, "empty");
}

#[test]
fn the_tag_word_is_computed_from_the_registers() {
    let mut x = x87(0x37f);
    x.set_register(0, one());
    x.set_register(2, INDEFINITE);
    x.used = 0b111;
    assert_eq!(x.tag_word(), 0xffe4);
    x.set_tag_word(0x3fff);
    assert_eq!(x.used, 0x80);
}

#[test]
fn fldcw_that_unmasks_a_flagged_exception_makes_it_pending() {
    let (mut core, _) = core();
    core.arch.x87.status = status::IE;
    complete(x87_control::load_control(&mut core, [0x37e, 0, 0, 0]));
    assert_eq!(x87_helper::wait(&mut core, [0; 4]), Err(Trap::Exception));
    assert_eq!(raised(&core), Some(vector::MF));
    core.arch.cr0 &= !crate::cr0::NE;
    assert_eq!(x87_helper::wait(&mut core, [0; 4]), Ok(0));
}

#[test]
fn fnsave_and_frstor_are_inverse_in_both_sizes_and_fnsave_initialises() {
    for layout in 0..4 {
        let (mut core, _) = core();
        core.arch.x87.load_constant(3);
        core.arch.x87.load_constant(1);
        core.arch.x87.set_control(0x27f);
        core.arch.x87.ip = 0x1234;
        core.arch.x87.dp = 0x5678;
        let before = core.arch.x87.clone();
        let args = [layout, AT, CTX, 0];
        complete(x87_control::save(&mut core, args));
        assert_eq!((core.arch.x87.used, core.arch.x87.control), (0, 0x37f));
        complete(x87_control::restore(&mut core, args));
        assert_eq!(core.arch.x87, before);
    }
}

#[test]
fn fnstenv_masks_all_exceptions() {
    let (mut core, block) = core();
    core.arch.x87.set_control(0x300);
    complete(x87_control::store_environment(&mut core, [2, AT, CTX, 0]));
    assert_eq!(core.arch.x87.control, 0x37f);
    assert_eq!(block.load(AT, 4), Some(0xffff_0340));
    assert_eq!(block.load(AT + 8, 4), Some(0xffff_ffff), "all empty");
}

#[test]
fn writing_an_mmx_register_resets_top_and_fills_the_tags() {
    let mut x = x87(0x37f);
    x.top = 5;
    x.enter_mmx();
    x.put_mm(3, 42);
    assert_eq!((x.top, x.used, x.mm(3)), (0, 0xff, 42));
    assert_eq!(x.register(3).se, 0xffff);
}

/// Whether an instruction was done, if need be with the unit left after it.
fn is_complete(result: Result<u64, Trap>) -> bool {
    matches!(result, Ok(_) | Err(Trap::Leave))
}

#[test]
fn unmasking_an_exception_changes_the_mode_and_leaves_the_unit() {
    let (mut core, _) = core();
    let mut load = |value, next| {
        let result = fxsave::load_mxcsr(&mut core, [value, next, 0, 0]);
        (result, core.pc(), Mode(core.mode).fp_masked())
    };
    assert_eq!(load(0x1f00, 7), (Err(Trap::Leave), 7, false));
    assert_eq!(load(0x7f3f, 8), (Ok(0), 7, false), "the unit goes on");
    assert_eq!(load(0x7fbf, 9), (Err(Trap::Leave), 9, true));
}

#[test]
fn what_rounds_is_no_call_while_exceptions_are_masked() {
    const LONG: u64 = 1;
    const OSFXSR: u64 = 1 << 10;
    const FP_MASKED: u64 = 1 << 17;
    let code: &[&[u8]] = &[
        &[0xf2, 0x0f, 0x58, 0xc1],       // addsd xmm0, xmm1
        &[0x0f, 0x5e, 0x00],             // divps xmm0, [rax]
        &[0x0f, 0xc2, 0xc1, 0x05],       // cmpps xmm0, xmm1, 5
        &[0xf3, 0x0f, 0x5a, 0xc1],       // cvtss2sd xmm0, xmm1
        &[0xf2, 0x48, 0x0f, 0x2a, 0xc1], // cvtsi2sd xmm0, rcx
        &[0xf2, 0x48, 0x0f, 0x2c, 0xc1], // cvttsd2si rax, xmm1
        &[0x66, 0x0f, 0x2e, 0xc1],       // ucomisd xmm0, xmm1
        &[0x66, 0x0f, 0xe6, 0xc1],       // cvttpd2dq xmm0, xmm1
    ];
    let (core, _) = core();
    for bytes in code {
        for (masked, call) in [(FP_MASKED, false), (0, true)] {
            let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
            let mut ctx = Ctx::new(&core, Mode(LONG | OSFXSR | masked), Unit::default());
            ctx.start(insn, 0);
            assert!(translate(&mut ctx), "{insn:?}");
            let unit = ctx.b.finish();
            assert_eq!(verify(&unit), Ok(()));
            let is = |f: fn(&Op) -> bool| unit.blocks[0].ops.iter().any(f);
            assert_eq!(is(|op| matches!(op, Op::Call { .. })), call, "{unit}");
            assert_eq!(is(Op::touches_fp), !call, "{unit}");
        }
    }
}

/// XMM3 divided by the bits of a double.
fn divsd(core: &mut Core, by: u64) -> Result<u64, Trap> {
    let how = sse_fp::row(iced_x86::Mnemonic::Divsd, 0).unwrap();
    sse_fp::operate(core, [sse_fp::code_of(how, Some(3)), by, 0, 0])
}

#[test]
fn an_unmasked_simd_exception_raises_xm_or_ud_and_returns_no_result() {
    let (mut core, _) = core();
    core.regs.set(regs::MXCSR, 0x1d80);
    core.regs.set_v(regs::xmm(3), 0x3ff0_0000_0000_0000);
    assert_eq!(divsd(&mut core, 0), Err(Trap::Exception));
    assert_eq!(core.regs.get_v(regs::xmm(3)), 0x3ff0_0000_0000_0000);
    assert_eq!(raised(&core), Some(vector::XM));
    assert_eq!(core.regs.get(regs::MXCSR), 0x1d84);
    core.arch.cr4 = 0;
    assert!(divsd(&mut core, 0).is_err());
    assert_eq!(raised(&core), Some(vector::UD));
}

#[test]
fn masked_simd_exceptions_leave_flags_and_a_result() {
    let (mut core, _) = core();
    core.regs.set(regs::MXCSR, 0x1f80);
    core.regs
        .set_v(regs::xmm(3), 7 << 64 | 0x3ff0_0000_0000_0000);
    assert_eq!(
        divsd(&mut core, 0x4008_0000_0000_0000),
        Ok(0x3fd5_5555_5555_5555)
    );
    let wanted = 7 << 64 | 0x3fd5_5555_5555_5555;
    assert_eq!(core.regs.get_v(regs::xmm(3)), wanted);
    assert_eq!(core.regs.get(regs::MXCSR), 0x1fa0);
}

#[test]
fn estimates_are_good_to_eleven_bits() {
    let (mut core, _) = core();
    core.regs.set(regs::MXCSR, 0x1f80);
    for bits in (0x3f80_0000_u64..0x4080_0000).step_by(0x1_2345) {
        let x = f64::from(f32::from_bits(bits as u32));
        let estimate = |bits: u64| f64::from(f32::from_bits(bits as u32));
        let r = estimate(sse_fp::estimates(&mut core, [0, bits, 0, 0]).unwrap());
        let s = estimate(sse_fp::estimates(&mut core, [1, bits, 0, 0]).unwrap());
        assert!((r * x - 1.0).abs() < 1.5 / 4096.0, "{x}");
        assert!((s * x.sqrt() - 1.0).abs() < 1.5 / 4096.0, "{x}");
    }
    assert_eq!(core.regs.get(regs::MXCSR), 0x1f80);
}

#[test]
fn ffxsr_keeps_fxsave_at_cpl_0_from_xmm_registers() {
    let (mut core, block) = core();
    core.regs.set_v(regs::xmm(0), 7);
    core.arch.efer = crate::efer::FFXSR;
    for (cpl, stored) in [(0, 0), (3, 7)] {
        core.arch.cpl = cpl;
        fxsave::fxsave(&mut core, [LONG.bits(), AT, CTX, 0]).unwrap();
        assert_eq!(block.load(AT + 160, 8), Some(stored));
    }
}

#[test]
fn ldmxcsr_refuses_reserved_bits() {
    let (mut core, _) = core();
    assert!(fxsave::load_mxcsr(&mut core, [0x1_0000, 0, 0, 0]).is_err());
    assert_eq!(raised(&core), Some(vector::GP));
    assert_eq!(fxsave::load_mxcsr(&mut core, [0xffff, 0, 0, 0]), Ok(0));
}

fn save(which: Save) -> u64 {
    LONG.bits() | (which as u64) << 8 | CTX << 16
}

#[test]
fn xsaveopt_leaves_out_what_is_in_its_initial_configuration() {
    let (mut core, block) = core();
    core.regs.set_v(regs::xmm(9), 7);
    block.store(AT, 8, 0x5555);
    fxsave::xsave(&mut core, [save(Save::Optimized), AT, u64::MAX, 0]).unwrap();
    assert_eq!(block.load(AT, 8), Some(0x5555), "x87 was not written");
    assert_eq!(block.load(AT + 160 + 9 * 16, 8), Some(7));
    assert_eq!(block.load(AT + 512, 8), Some(2), "XSTATE_BV");
}

#[test]
fn xsave_keeps_the_header_bits_of_components_not_asked_for() {
    let (mut core, block) = core();
    core.arch.x87.load_constant(0);
    block.store(AT + 512, 8, 2);
    fxsave::xsave(&mut core, [save(Save::All), AT, 1, 0]).unwrap();
    assert_eq!(block.load(AT + 512, 8), Some(3));
    assert_eq!(block.load(AT + 24, 4), Some(0), "MXCSR goes with SSE");
}

#[test]
fn xsavec_writes_a_compact_header_that_xrstor_reads_back() {
    let (mut core, block) = core();
    core.arch.x87.load_constant(3);
    core.regs.set_v(regs::xmm(0), 1 << 100);
    core.regs.set(regs::MXCSR, 0x1fa0);
    let x87 = core.arch.x87.clone();
    fxsave::xsave(&mut core, [save(Save::Compact), AT, 3, 0]).unwrap();
    assert_eq!(block.load(AT + 520, 8), Some(1 << 63 | 3), "XCOMP_BV");
    core.arch.x87.init();
    core.regs.set_v(regs::xmm(0), 0);
    core.regs.set(regs::MXCSR, 0x1f80);
    complete(fxsave::xrstor(&mut core, [save(Save::All), AT, 3, 0]));
    assert_eq!(core.arch.x87, x87);
    assert_eq!(core.regs.get_v(regs::xmm(0)), 1 << 100);
    assert_eq!(core.regs.get(regs::MXCSR), 0x1fa0);
}

#[test]
fn xrstor_initialises_what_the_header_says_is_not_there() {
    let (mut core, block) = core();
    core.arch.x87.load_constant(3);
    core.regs.set_v(regs::xmm(15), 1);
    block.store(AT + 24, 4, 0x1f80);
    complete(fxsave::xrstor(&mut core, [save(Save::All), AT, 3, 0]));
    assert_eq!(core.arch.x87, X87::INIT);
    assert_eq!(core.regs.get_v(regs::xmm(15)), 0);
}

#[test]
fn xrstor_refuses_bad_headers_and_addresses() {
    let (mut core, block) = core();
    let mut is_refused = |offset: u64, value: u64, at: u64| {
        block.store(AT + offset, 8, value);
        let result = fxsave::xrstor(&mut core, [save(Save::All), at, 3, 0]);
        block.store(AT + offset, 8, 0);
        result.is_err() && raised(&core) == Some(vector::GP)
    };
    assert!(is_refused(512, 4, AT), "a component not enabled");
    assert!(is_refused(520, 1, AT), "XCOMP_BV of the standard form");
    assert!(is_refused(24, 1 << 16, AT), "reserved bits of MXCSR");
    assert!(is_refused(0, 0, AT + 16), "misaligned");
}

/// The unit of one instruction, and whether it only raises this exception.
fn only_raises(mode: u64, bytes: &[u8], vector: u8) -> bool {
    let (core, _) = core();
    let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    let mut ctx = Ctx::new(&core, Mode(mode), Unit::default());
    ctx.start(insn, 0);
    assert!(translate(&mut ctx), "{insn:?}");
    let ended = ctx.b.is_ended();
    let unit = ctx.b.finish();
    let first = unit.blocks[0].ops.iter().find_map(|op| match op {
        Op::Const { value, .. } => Some(*value),
        _ => None,
    });
    ended && first == Some(vector.into())
}

#[test]
fn control_register_bits_make_units_unavailable() {
    const LONG: u64 = 1;
    const EM: u64 = 1 << 7;
    const TS: u64 = 1 << 8;
    const MP: u64 = 1 << 9;
    const OSFXSR: u64 = 1 << 10;
    let addsd: &[u8] = &[0xf2, 0x0f, 0x58, 0xc1];
    let paddb: &[u8] = &[0x0f, 0xfc, 0xc1];
    let fadd: &[u8] = &[0xd8, 0xc1];
    let fwait: &[u8] = &[0x9b];
    let fxsave: &[u8] = &[0x0f, 0xae, 0x00];
    let xsave: &[u8] = &[0x0f, 0xae, 0x20];
    let movnti: &[u8] = &[0x0f, 0xc3, 0x00];
    for (bytes, bits, wanted) in [
        (addsd, 0, Some(vector::UD)),
        (addsd, OSFXSR | EM | TS, Some(vector::UD)),
        (addsd, OSFXSR | TS, Some(vector::NM)),
        (addsd, OSFXSR, None),
        (paddb, EM | TS, Some(vector::UD)),
        (paddb, TS, Some(vector::NM)),
        (paddb, 0, None),
        (fadd, EM, Some(vector::NM)),
        (fadd, TS, Some(vector::NM)),
        (fadd, 0, None),
        (fwait, EM | TS, None),
        (fwait, MP | TS, Some(vector::NM)),
        (fxsave, EM, Some(vector::NM)),
        (fxsave, 0, None),
        (xsave, 0, Some(vector::UD)),
        (movnti, EM | TS, None),
    ] {
        let raises = |v| only_raises(LONG | bits, bytes, v);
        match wanted {
            Some(v) => assert!(raises(v), "{bytes:x?} {bits:x}"),
            None => assert!(!raises(vector::UD) && !raises(vector::NM), "{bytes:x?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fxsave_and_fxrstor_are_inverse(
        words in prop::collection::vec(any::<u64>(), 52),
        mxcsr in 0_u64..0x1_0000,
    ) {
        let (mut core, block) = core();
        for (i, word) in (0..).zip(&words) {
            block.store(AT + 8 * i, 8, *word);
        }
        block.store(AT + 24, 8, mxcsr);
        let args = [LONG.bits(), AT, CTX, 0];
        prop_assert!(is_complete(fxsave::fxrstor(&mut core, args)));
        let before = (core.arch.x87.clone(), core.regs.clone());
        let args = [LONG.bits(), 2 * AT, CTX, 0];
        fxsave::fxsave(&mut core, args).unwrap();
        core.arch.x87.init();
        prop_assert!(is_complete(fxsave::fxrstor(&mut core, args)));
        prop_assert_eq!(&core.arch.x87, &before.0);
        prop_assert!((0..16).all(|n| core.regs.get_v(regs::xmm(n)) == before.1.get_v(regs::xmm(n))));
        prop_assert_eq!(core.regs.get(regs::MXCSR), mxcsr);
    }

    #[test]
    fn every_encoding_becomes_a_valid_unit(
        prefix in prop::sample::select(vec![&[][..], &[0x66], &[0xf2], &[0xf3]]),
        opcode in prop_oneof![
            (0xd8_u8..0xe0).prop_map(|b| vec![b]),
            any::<u8>().prop_map(|b| vec![0x0f, b]),
            any::<u8>().prop_map(|b| vec![0x0f, 0x38, b]),
            any::<u8>().prop_map(|b| vec![0x0f, 0x3a, b]),
        ],
        rest in any::<[u8; 8]>(),
        bits in 0_u64..0x4_0000,
    ) {
        let (core, _) = core();
        let mode = Mode(bits);
        let bytes = [prefix, &opcode, &rest].concat();
        let insn = Decoder::new(mode.bitness(), &bytes, DecoderOptions::NONE).decode();
        let mut ctx = Ctx::new(&core, mode, Unit::default());
        ctx.start(insn, 0);
        translate(&mut ctx);
        prop_assert_eq!(verify(&ctx.b.finish()), Ok(()));
    }

    #[test]
    fn x87_operations_never_break_the_state(
        ops in prop::collection::vec((0_u8..21, any::<u64>(), any::<u16>()), 0..40),
        control in any::<u16>(),
    ) {
        let mut x = x87(control);
        for (op, sig, se) in ops {
            x.load(|_| F80 { se, sig });
            x.function(Function::from_number(op));
            x.arith(Arith::from_number(op % 6), op & 7, Some(Source::f64(sig)), op & 1);
            let stored = x.store_memory(Format::from_number(op % 7), op & 1 != 0, 1);
            x = stored.after;
            prop_assert!(x.top < 8);
            let pending = x.status & !x.control & status::FLAGS != 0;
            prop_assert_eq!(x.is_pending(), pending);
        }
    }

    #[test]
    fn fst_of_fld_gives_the_same_double(bits in any::<u64>()) {
        prop_assume!(!F64(bits).is_signalling_nan());
        let mut x = x87(0x37f);
        x.load_memory(Format::F64, bits.into());
        let stored = x.store_memory(Format::F64, false, 1);
        prop_assert_eq!(stored.bits, Some(bits.into()));
    }
}
