//! `check=on` finds units that are compiled as something else.

use accel_core::Exit;
use accel_ir::{
    Binary, Builder, End, Endian, FlagKind, HelperId, Mem, Op, Ordering, Slot, Ty, Unit, Via,
};

use super::{RAM, START, Toy, run};
use crate::Jit;

const MEM: Mem = Mem {
    ty: Ty::I32,
    endian: Endian::Little,
    aligned: false,
    ordering: Ordering::Relaxed,
    ctx: 0,
};

/// What is reported of a unit that `spoil` changes before it is compiled; nothing of the unit itself.
fn report_of(make: impl Fn(&mut Builder), spoil: fn(&mut Unit)) -> String {
    let mut b = Builder::new();
    b.insn(START);
    make(&mut b);
    b.goto(0x7010);
    let program = [(START, b.finish())];
    let bytes = [7; RAM as usize];
    let checked = |spoil| {
        let mut jit = Jit::<Toy>::new(0).unwrap();
        jit.check();
        jit.spoil = spoil;
        let (after, _) = run(&mut jit, &program, &[0x40, 5], &bytes);
        (after.exit, jit.check.and_then(|check| check.report))
    };
    assert_eq!(checked(None), (Exit::Halted, None));
    let (exit, report) = checked(Some(spoil));
    assert!(matches!(exit, Exit::Internal(_)), "{exit:?}");
    report.unwrap()
}

/// Changes the last operation for which `change` says that it did.
fn change(unit: &mut Unit, change: impl FnMut(&mut Op) -> bool) {
    let ops = unit.blocks.iter_mut().flat_map(|block| &mut block.ops);
    assert!(ops.rev().any(change));
}

fn add(b: &mut Builder) {
    let (x, y) = (b.get(Slot(0)), b.get(Slot(1)));
    let sum = b.add(x, y);
    b.set(Slot(2), sum);
}

#[test]
fn a_wrong_register_is_reported_with_the_block_both_states_and_the_host_code() {
    let report = report_of(add, |unit| {
        change(unit, |op| match op {
            Op::Binary { op, .. } => {
                *op = Binary::Sub;
                true
            }
            _ => false,
        });
    });
    for part in [
        "after 1 instructions from 0x1010",
        "slot 2 r2 is 0x3b, the interpreter's 0x45",
        "v2: i64 = add v0, v1",
        "host code for 0x1010",
        ":  sub r",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let states = report.lines().find(|line| line.starts_with("r2 ")).unwrap();
    let words: Vec<_> = states.split_whitespace().collect();
    assert_eq!(words, ["r2", "0x0", "0x45", "0x3b", "*"]);
}

#[test]
fn a_wrong_value_stored_in_line_is_found() {
    let make = |b: &mut Builder| {
        for value in [1, 2] {
            // The first store asks for the page, the second finds it.
            let (at, value) = (b.get(Slot(0)), b.iconst(Ty::I32, value));
            b.store(at, value, MEM);
            b.insn(START + 4);
        }
    };
    let report = report_of(make, |unit| {
        change(unit, |op| match op {
            Op::Const { value, .. } => {
                *value = 3;
                true
            }
            _ => false,
        });
    });
    let wanted = "memory at 0x40 is 0x3, the interpreter's 0x2";
    assert!(report.contains(wanted), "{report}");
}

#[test]
fn a_store_left_out_is_found() {
    let make = |b: &mut Builder| {
        let (at, value) = (b.get(Slot(0)), b.iconst(Ty::I32, 1));
        b.store(at, value, MEM);
    };
    let report = report_of(make, |unit| {
        unit.blocks[0]
            .ops
            .retain(|op| !matches!(op, Op::Store { .. }));
    });
    assert!(
        report.contains("generated code has done 1 instructions, the interpreter 0"),
        "{report}"
    );
    assert!(
        report.contains("stops at 0x1010 for Store { va: 40"),
        "{report}"
    );
}

#[test]
fn another_argument_of_a_helper_is_found_before_it_is_called() {
    let make = |b: &mut Builder| {
        let (x, y) = (b.get(Slot(0)), b.iconst(Ty::I64, 1));
        b.call(HelperId(0), &[x, y]);
    };
    let report = report_of(make, |unit| {
        change(unit, |op| match op {
            Op::Const { value, .. } => {
                *value = 3;
                true
            }
            _ => false,
        });
    });
    assert!(report.contains("generated code asks for Call"), "{report}");
}

#[test]
fn wrong_flags_are_found() {
    let make = |b: &mut Builder| {
        let (x, y) = (b.get(Slot(0)), b.get(Slot(1)));
        b.flags_def(FlagKind::Sub, x, y, None);
    };
    let report = report_of(make, |unit| {
        change(unit, |op| match op {
            Op::FlagsDef { kind, .. } => {
                *kind = FlagKind::Add;
                true
            }
            _ => false,
        });
    });
    assert!(report.contains("flags are"), "{report}");
}

#[test]
fn a_way_to_elsewhere_is_found() {
    let report = report_of(add, |unit| {
        unit.blocks[0].end = End::Goto {
            pc: 0x7018,
            via: Via::Jump,
        }
    });
    let wanted = "goes to 0x7018, the interpreter to 0x7010";
    assert!(report.contains(wanted), "{report}");
}

#[test]
fn flags_are_compared_where_only_generated_code_ends_a_unit() {
    // The second instruction defines all flags anew: within one unit, nobody looks at the first's.
    let second = |b: &mut Builder| {
        b.insn(START + 4);
        let (x, y) = (b.get(Slot(0)), b.get(Slot(1)));
        b.flags_def(FlagKind::Add, x, y, None);
        b.goto(0x7010);
    };
    let mut whole = Builder::new();
    whole.insn(START);
    let (x, y) = (whole.get(Slot(0)), whole.get(Slot(1)));
    whole.flags_def(FlagKind::Sub, y, x, None);
    second(&mut whole);
    let mut rest = Builder::new();
    second(&mut rest);
    let program = [(START, whole.finish()), (START + 4, rest.finish())];
    let mut jit = Jit::<Toy>::new(0).unwrap();
    jit.check();
    jit.spoil = Some(|unit| {
        if unit.insns == 2 {
            let ops = &mut unit.blocks[0].ops;
            let end = ops.iter().rposition(|op| matches!(op, Op::Insn { .. }));
            ops.truncate(end.unwrap());
            unit.insns = 1;
            unit.blocks[0].end = End::Goto {
                pc: START + 4,
                via: Via::Jump,
            };
        }
    });
    let (after, _) = run(&mut jit, &program, &[0x40, 5], &[7; RAM as usize]);
    let report = jit.check.and_then(|check| check.report);
    assert_eq!((after.exit, report), (Exit::Halted, None));
}
