//! Single units with one thing in question.

use accel_core::Access;
use accel_interp::Interp;
use accel_ir::{Builder, Endian, Mem, Op, Ordering, Slot, Ty, Unit};

use super::{After, FP, MASKED, RAM, START, Toy, compare_program, counted, maker, random, run};
use crate::Jit;

/// Runs one unit both ways, from these registers on.
fn agree(make: impl Fn(&mut Builder), regs: &[u64]) -> After {
    let mut b = Builder::new();
    b.insn(START);
    make(&mut b);
    b.goto(0x7010);
    let program: [(u64, Unit); 1] = [(START, b.finish())];
    let bytes = [7; RAM as usize];
    let mut regs = regs.to_vec();
    regs.resize(8, 0);
    regs[usize::from(FP.0)] = MASKED;
    let mut jit = Jit::<Toy>::new(0).unwrap();
    let (got, got_memory) = run(&mut jit, &program, &regs, &bytes);
    let (wanted, memory) = run(&mut Interp::default(), &program, &regs, &bytes);
    assert_eq!(got, wanted);
    assert!(got_memory == memory);
    got
}

#[test]
fn a_probe_of_what_must_be_aligned_faults_as_the_store_would() {
    let make = |b: &mut Builder| {
        let at = b.get(Slot(0));
        let mem = Mem {
            ty: Ty::I32,
            endian: Endian::Little,
            aligned: true,
            ordering: Ordering::Relaxed,
            ctx: 0,
        };
        // The second time the page is at hand.
        for number in 1..3 {
            b.probe(at, mem);
            let v = b.iconst(Ty::I64, number);
            b.set(Slot(1), v);
            b.insn(START + 4 * number);
        }
    };
    assert_eq!(agree(make, &[0x40]).seen.faults, []);
    let faulting = agree(make, &[0x42]);
    assert_eq!(faulting.seen.faults, [(0x42, Access::Write)]);
    assert_eq!(faulting.regs[1], 0);
}

#[test]
fn generated_code_is_named_for_profilers() {
    let mut jit = Jit::<Toy>::new(0).unwrap();
    jit.map_for_perf().unwrap();
    let mut b = Builder::new();
    b.insn(START);
    b.goto(0x7010);
    run(
        &mut jit,
        &[(START, b.finish())],
        &[0; 8],
        &[7; RAM as usize],
    );
    // Where `perf` looks for it.
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let named = |name| {
        let line = text.lines().find(|line| line.ends_with(name)).unwrap();
        let numbers: Vec<_> = line.split(' ').take(2).collect();
        [0, 1].map(|i| usize::from_str_radix(numbers[i], 16).unwrap())
    };
    let [at, len] = named(" guest:0x1010");
    let [thunks, thunks_len] = named(" mimic:thunks");
    assert!(at >= thunks + thunks_len && len > 0, "{text}");
}

/// Has some accesses be aligned, and some stores be asked for before they are made.
fn demand(unit: &mut Unit, random: &mut impl FnMut() -> u64) {
    for block in &mut unit.blocks {
        let mut ops = Vec::new();
        for mut op in std::mem::take(&mut block.ops) {
            match &mut op {
                Op::Load { mem, .. } => mem.aligned = random() & 1 == 0,
                Op::Store { addr, mem, .. }
                | Op::Rmw { addr, mem, .. }
                | Op::Cas { addr, mem, .. } => {
                    mem.aligned = random() & 1 == 0;
                    if random() & 1 == 0 {
                        ops.push(Op::Probe {
                            addr: *addr,
                            mem: *mem,
                        });
                    }
                }
                _ => {}
            }
            ops.push(op);
        }
        block.ops = ops;
    }
}

#[test]
fn aligned_and_probed_accesses_do_what_the_interpreter_does() {
    for seed in 0..600 {
        let mut random = random(seed << 1);
        let mut unit = maker::make(&mut random, false);
        demand(&mut unit, &mut random);
        let report = compare_program(seed, &[(START, unit)], random);
        assert_eq!(counted(&report, "left to interpret"), 0, "{seed}");
    }
}
