use super::*;

const MEM: Mem = Mem {
    ty: Ty::I32,
    endian: Endian::Little,
    aligned: false,
    ordering: Ordering::Relaxed,
    ctx: 0,
};

#[test]
fn the_text_form_shows_values_types_and_edges() {
    let mut b = Builder::new();
    b.insn(0x100);
    let a = b.get(Slot(3));
    let one = b.iconst(Ty::I64, 1);
    b.flags_def(FlagKind::Add, a, one, None);
    let sum = b.add(a, one);
    b.set(Slot(3), sum);
    let (yes, no) = (b.block(), b.block());
    let c = b.flags_use(Cond::E);
    b.branch(c, yes, no);
    b.switch(yes);
    b.goto(0x200);
    b.switch(no);
    b.goto(0x104);
    let unit = b.finish();
    assert_eq!(verify(&unit), Ok(()));
    let expected = "b0():\n insn 0x100\n  v0: i64 = get r3\n  v1: i64 = 0x1\n  flags.def add.i64 v0, v1\n  \
        v2: i64 = add v0, v1\n  set r3, v2\n  v3: i8 = flags.use e\n  branch v3, b1, b2\n\
        b1():\n  goto 0x200\nb2():\n  goto 0x104\n";
    assert_eq!(unit.to_string(), expected);
}

#[test]
fn a_fault_after_a_set_is_found() {
    let mut b = Builder::new();
    b.insn(0);
    let a = b.get(Slot(0));
    b.set(Slot(1), a);
    b.load(a, MEM);
    b.goto(1);
    assert!(matches!(
        verify(&b.finish()),
        Err(VerifyError::SetBeforeFault(0, _))
    ));
}

#[test]
fn a_value_of_one_branch_only_is_not_defined_after_the_join() {
    let mut b = Builder::new();
    let c = b.iconst(Ty::I8, 1);
    let (left, right, join) = (b.block(), b.block(), b.block());
    b.branch(c, left, right);
    b.switch(left);
    let v = b.iconst(Ty::I64, 5);
    b.jump(join, &[]);
    b.switch(right);
    b.jump(join, &[]);
    b.switch(join);
    b.set(Slot(0), v);
    assert_eq!(verify(&b.finish()), Err(VerifyError::Undefined(3, v)));
}

#[test]
fn types_and_backward_edges_are_checked() {
    let mut b = Builder::new();
    let a = b.iconst(Ty::I32, 5);
    b.push(Op::Load {
        d: a,
        addr: a,
        mem: MEM,
    });
    assert!(matches!(verify(&b.finish()), Err(VerifyError::Types(0, _))));
    let mut b = Builder::new();
    b.jump(BlockId(0), &[]);
    assert_eq!(verify(&b.finish()), Err(VerifyError::Edge(0, 0)));
}

#[test]
fn flags_follow_the_manual() {
    use flags::{AF, CF, OF, PF, SF, ZF, pack};
    assert_eq!(pack(FlagKind::Add, Ty::I8, 0xff, 1, 0), CF | PF | AF | ZF);
    assert_eq!(pack(FlagKind::Sub, Ty::I8, 0x80, 1, 0), OF | AF);
    assert_eq!(pack(FlagKind::Sub, Ty::I32, 0, 1, 0), CF | PF | AF | SF);
    assert_eq!(
        pack(FlagKind::Inc, Ty::I16, 0x7fff, 0, 1),
        CF | OF | SF | AF | PF
    );
    assert_eq!(pack(FlagKind::Logic, Ty::I64, 0, 0, 0), ZF | PF);
    assert_eq!(pack(FlagKind::LogicC, Ty::I64, 0, 0, 0), ZF | PF | CF);
    assert_eq!(
        pack(FlagKind::Sbb, Ty::I64, 0, u64::MAX, 1),
        CF | ZF | PF | AF
    );
}

#[test]
fn the_short_ways_to_a_condition_agree_with_the_long_one() {
    use FlagKind::*;
    let values = [
        0u64,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff_ffff,
        0x8000_0000,
        u64::MAX >> 1,
        1 << 63,
        u64::MAX,
    ];
    for kind in [Raw, Add, Adc, Sub, Sbb, Logic, Inc, Dec, Sar, Mul] {
        for ty in [Ty::I8, Ty::I16, Ty::I32, Ty::I64] {
            for (a, b) in values
                .iter()
                .flat_map(|a| values.iter().map(move |b| (*a & ty.mask(), *b & ty.mask())))
            {
                let packed = flags::pack(kind, ty, a, b, 1);
                assert_eq!(
                    flags::carry(kind, ty, a, b, 1),
                    packed & flags::CF,
                    "{kind:?} {ty} {a:#x} {b:#x}"
                );
                for cond in (0..16).map(Cond::from_number) {
                    assert_eq!(
                        flags::test(cond, kind, ty, a, b, 1),
                        cond.holds(packed),
                        "{kind:?} {cond:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn vector_lanes_do_not_leak_into_each_other() {
    use vector::eval;
    let (a, b) = (
        0x00ff_8000_7fff_0001_ff01_80fe_7f02_0100u128,
        0x0101_8001_7fff_0002_01ff_8002_0103_0201u128,
    );
    assert_eq!(
        eval(VecOp::Add8, a, b, 0),
        0x0100_0001_fefe_0003_0000_0000_8005_0301
    );
    assert_eq!(
        eval(VecOp::Shuffle32, a, b, 0b00_01_10_11),
        0x7f02_0100_ff01_80fe_7fff_0001_00ff_8000
    );
    assert_eq!(eval(VecOp::ShlBytes, 1, 0, 16), 0);
    assert_eq!(eval(VecOp::Align8, 1, 2, 16), 1);
    assert_eq!(eval(VecOp::Sad8, 0xff, 0x01, 0), 0xfe);
}

#[test]
fn floating_point_has_a_text_form_and_is_a_set_of_its_control_slot() {
    let mut b = Builder::new();
    b.insn(0);
    let a = b.get_v(Slot(8));
    let how = Fp {
        op: FpOp::Cmp(FpCmp::Nlt),
        fmt: FpFmt::F64,
        shape: FpShape::Scalar,
        rules: FpRules::Sse,
    };
    let sum = b.fp(how, a, a);
    let to = ToInt {
        fmt: FpFmt::F32,
        rules: FpRules::Sse,
        truncate: true,
    };
    let v = b.fp_to_int(to, sum, Ty::I64);
    b.goto(1);
    let unit = b.finish();
    assert_eq!(verify(&unit), Ok(()));
    let expected = "b0():\n insn 0x0\n  v0: v128 = get r8\n  \
        v1: v128 = fp.cmp.nlt.f64.scalar.sse v0, v0\n  \
        v2: i64 = fp.toint.f32.sse.trunc v1\n  goto 0x1\n";
    assert_eq!(unit.to_string(), expected);

    let mut b = Builder::new();
    b.insn(0);
    let a = b.get_v(Slot(8));
    b.fp(how, a, a);
    let address = b.iconst(Ty::I64, 0);
    b.load(address, MEM);
    b.goto(1);
    assert!(matches!(
        verify(&b.finish()),
        Err(VerifyError::SetBeforeFault(0, _))
    ));
    assert_eq!(unit.ty(v), Ty::I64);
}

#[test]
fn scalar_operations_keep_the_other_lanes_and_conversions_clear_them() {
    let rules = FpRules::Sse;
    let one = |op, fmt, shape| Fp {
        op,
        fmt,
        shape,
        rules,
    };
    let f32s = |lanes: [f32; 4]| {
        (0..4).fold(0_u128, |v, i| {
            v | u128::from(lanes[i].to_bits()) << (32 * i)
        })
    };
    let f64s =
        |lanes: [f64; 2]| u128::from(lanes[0].to_bits()) | u128::from(lanes[1].to_bits()) << 64;
    let (a, b) = (f32s([1.0, 2.0, 3.0, 4.0]), f32s([0.5, 0.25, -1.0, 8.0]));
    let mut env = rules.env(0x1f80);
    let add = one(FpOp::Add, FpFmt::F32, FpShape::Scalar);
    assert_eq!(fp::eval(add, a, b, &mut env), f32s([1.5, 2.0, 3.0, 4.0]));
    let add = one(FpOp::HAdd, FpFmt::F32, FpShape::Packed);
    assert_eq!(fp::eval(add, a, b, &mut env), f32s([3.0, 7.0, 0.75, 7.0]));
    let widen = one(FpOp::Convert, FpFmt::F64, FpShape::Packed);
    assert_eq!(fp::eval(widen, a, b, &mut env), f64s([0.5, 0.25]));
    let narrow = one(FpOp::Convert, FpFmt::F32, FpShape::Packed);
    let wide = f64s([2.0, -4.0]);
    assert_eq!(
        fp::eval(narrow, a, wide, &mut env),
        f32s([2.0, -4.0, 0.0, 0.0])
    );
    assert_eq!(env.flags.0, 0, "all exact");
    let to_int = one(FpOp::ToI32, FpFmt::F64, FpShape::Packed);
    let result = fp::eval(to_int, a, f64s([2.5, f64::NAN]), &mut env);
    assert_eq!(result, 2 | 0x8000_0000 << 32);
    assert_eq!(rules.settle(0x1f80, env.flags), 0x1fa1);
}

#[test]
fn operations_on_neighbours_are_of_whole_vectors() {
    let unit = |shape| {
        let mut b = Builder::new();
        b.insn(0);
        let v = b.get_v(Slot(10));
        let how = Fp {
            op: FpOp::HAdd,
            fmt: FpFmt::F32,
            shape,
            rules: FpRules::Sse,
        };
        let sum = b.fp(how, v, v);
        b.set_v(Slot(10), sum);
        b.goto(4);
        b.finish()
    };
    assert_eq!(verify(&unit(FpShape::Packed)), Ok(()));
    let scalar = verify(&unit(FpShape::Scalar));
    assert!(matches!(scalar, Err(VerifyError::Types(..))), "{scalar:?}");
}
