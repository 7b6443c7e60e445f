//! Flat code against a plain evaluation of the same IR, on random units.

use std::collections::HashMap;
use std::sync::Arc;

use accel_core::{
    Access, Core, Effects, Exit, Helper, Layout, Permissions, Source, Target, Translation, Trap,
};
use accel_ir::{Builder, Endian, FlagKind, Mem, Ordering, Slot, Ty, Unit};
use hw_clock::Clock;
use hw_memory::{Fault, MappingSpec, MemoryMap, RamBlock, What};
use proptest::prelude::*;

use crate::exec::{self, Flow};
use crate::lower::lower;

mod maker;
mod plain;

use maker::make;
use plain::Plain;

const SLOTS: u8 = 8;
const FLAGS: u8 = 40;
const PC: Slot = Slot(39);
const FP: Slot = Slot(7);

/// A guest with eight registers whose only helper adds its arguments and clobbers r0.
struct Toy;

fn clobber(core: &mut Core<Toy>, args: [u64; 4]) -> Result<u64, Trap> {
    core.regs.set(Slot(0), args[0]);
    Ok(args[0].wrapping_add(args[1]))
}

static HELPERS: [Helper<Toy>; 1] = [Helper {
    name: "clobber",
    run: clobber,
    effects: Effects::ALL,
    intrinsic: None,
}];

impl Target for Toy {
    const NAME: &'static str = "toy";
    const LAYOUT: Layout = Layout {
        pc: PC,
        flags: Slot(FLAGS),
        seen_flags: accel_ir::flags::ALL,
        fp: FP,
        x87: None,
        pinned: &[],
        regs: &[],
    };
    type State = ();
    type Port = ();
    fn helpers() -> &'static [Helper<Self>] {
        &HELPERS
    }
    fn fetch_address(core: &Core<Self>) -> u64 {
        core.pc()
    }
    fn fetch_ctx(_: &Core<Self>) -> u8 {
        0
    }
    fn unit_limit(_: &Core<Self>) -> u32 {
        8
    }
    fn translate(_: &mut Core<Self>, _: &mut Source, _: u32) -> Result<Unit, Trap> {
        Err(Trap::Exception)
    }
    fn walk(_: &mut Core<Self>, va: u64, _: Access, _: u8) -> Result<Translation, Trap> {
        let allow = Permissions {
            read: true,
            write: true,
            exec: true,
        };
        Ok(Translation {
            physical: va & 0x1fff,
            page_bits: 12,
            allow,
            global: false,
        })
    }
    fn bus_fault(_: &mut Core<Self>, _: u64, _: Access, _: Fault) -> Result<u64, Trap> {
        Ok(0)
    }
    fn alignment_fault(_: &mut Core<Self>, _: u64, _: Access) -> Trap {
        Trap::Exception
    }
    fn forget(_: &mut Core<Self>) {}
    fn deliver(_: &mut Core<Self>) -> Result<(), Exit> {
        Err(Exit::Shutdown)
    }
    fn service(_: &mut Core<Self>) -> Result<(), Exit> {
        Err(Exit::Pending)
    }
    fn after_step(_: &mut Core<Self>) -> Result<(), Exit> {
        Ok(())
    }
}

fn core() -> (Core<Toy>, Arc<RamBlock>) {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", 0x2000).unwrap());
    map.add(MappingSpec {
        name: "ram".into(),
        base: 0,
        len: 0x2000,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset: 0,
        },
    });
    (
        Core::new(0, (), Box::new(()), map, Clock::manual().0),
        block,
    )
}

fn compare(seed: u64) {
    let mut state = seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 7
    };
    let unit = make(&mut random, true);
    let code = lower::<Toy>(&unit).expect("a small unit fits");
    let (mut core, block) = core();
    let mut plain = Plain {
        regs: [0; 64],
        memory: vec![0; 0x2000],
        values: HashMap::new(),
    };
    for i in 0..20 {
        let value = if random() % 3 == 0 {
            random() & 0xff
        } else {
            random()
        };
        plain.regs[i] = value;
        core.regs.set(Slot(i as u8), value);
    }
    plain.memory.iter_mut().for_each(|b| *b = random() as u8);
    block.write(0, &plain.memory).unwrap();
    core.alone = true;
    let pc = plain.run(&unit);
    match exec::run(&mut core, &code, 0, code.ops.len()) {
        Flow::Done(_) => {}
        _ => panic!("the unit did not finish:\n{unit}"),
    }
    assert_eq!(core.pc(), pc, "seed {seed}\n{unit}\n{:#?}", code.ops);
    let at = usize::from(FLAGS);
    // The flags' operands may have stray bits above their type.
    let (_, ty) = FlagKind::of(plain.regs[at]);
    for i in [at + 1, at + 2] {
        let got = core.regs.get(Slot(i as u8)) & ty.mask();
        assert_eq!(got, plain.regs[i] & ty.mask(), "flags, seed {seed}\n{unit}");
    }
    for i in (0..20).chain([at]) {
        assert_eq!(
            core.regs.get(Slot(i as u8)),
            plain.regs[i],
            "r{i} seed {seed}\n{unit}\n{:#?}",
            code.ops
        );
    }
    let mut memory = vec![0; 0x2000];
    block.read(0, &mut memory).unwrap();
    assert!(memory == plain.memory, "memory, seed {seed}\n{unit}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn flat_code_does_what_the_unit_says(seed: u64) {
        compare(seed);
    }
}

#[test]
fn a_store_into_the_running_unit_leaves_it_after_the_instruction() {
    let (mut core, block) = core();
    let mem = Mem {
        ty: Ty::I8,
        endian: Endian::Little,
        aligned: false,
        ordering: Ordering::Relaxed,
        ctx: 0,
    };
    let mut b = Builder::new();
    b.insn(0x10);
    let (addr, v) = (b.iconst(Ty::I64, 0x100), b.iconst(Ty::I8, 7));
    b.store(addr, v, mem);
    let one = b.iconst(Ty::I64, 1);
    b.set(Slot(1), one);
    b.insn(0x14);
    b.set(Slot(2), one);
    b.goto(0x18);
    let code = lower::<Toy>(&b.finish()).expect("fits");
    block.track_code(0x100, 4, false);
    assert!(matches!(
        exec::run(&mut core, &code, 0, code.ops.len()),
        Flow::Done(1)
    ));
    assert_eq!(
        (core.pc(), core.regs.get(Slot(1)), core.regs.get(Slot(2))),
        (0x14, 1, 0)
    );
    assert_eq!(block.load(0x100, 1), Some(7));
}
