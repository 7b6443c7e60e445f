//! Registers and lists written at random: values or faults, never a panic or a hang.

use hw_core::{Attrs, ByteOrder, Initiator, ResetKind};
use proptest::prelude::*;

use super::Bench;
use crate::{Ahci, AhciOptions, Piix3Ide};

const ABAR: u64 = 0xe000_0000;

#[derive(Clone, Debug)]
enum Step {
    Port(u64, u8, Option<u64>),
    Memory(u64, Option<u64>),
    Scribble(u64, u64),
    Run,
    Save,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        Just(0xecu64),
        Just(0xa0),
        Just(0x20),
        Just(0x24),
        Just(0x30),
        Just(0xc8),
        Just(0xca),
        Just(0x25),
        Just(0x35),
        Just(0x60),
        Just(0x61),
        Just(0xea),
        Just(0x06),
        Just(0x2f),
        Just(0xc4),
        Just(0xc5),
        Just(0xef),
        Just(0xb0),
        Just(0x08),
        0..256u64,
    ];
    let port = prop_oneof![
        0x1f0..0x1f8u64,
        0x170..0x178u64,
        Just(0x3f6),
        Just(0x376),
        0xc000..0xc010u64
    ];
    let size = prop_oneof![Just(1u8), Just(2), Just(4)];
    let register = prop_oneof![0x100..0x180u64, 0x180..0x200u64, 0..0x30u64];
    let value = prop_oneof![any::<u64>(), Just(1u64), Just(0x17), 0..64u64, Just(0x1000)];
    let step = prop_oneof![
        4 => (port.clone(), size.clone(), proptest::option::of(value.clone()))
            .prop_map(|(port, size, value)| Step::Port(port, size, value)),
        2 => (prop_oneof![Just(0x1f7u64), Just(0x177)], command.clone())
            .prop_map(|(port, command)| Step::Port(port, 1, Some(command))),
        3 => (prop_oneof![Just(0x1f0u64), Just(0x170)], value.clone())
            .prop_map(|(port, value)| Step::Port(port, 2, Some(value))),
        4 => (register, proptest::option::of(value.clone()))
            .prop_map(|(register, value)| Step::Memory(register & !3, value)),
        // Commands, where the port looks for them.
        2 => (command, 0..4u64).prop_map(|(command, slot)| {
            Step::Scribble(0x1000 + slot * 32, 0x8027 | command << 16)
        }),
        3 => (0..0x400u64, value).prop_map(|(at, value)| Step::Scribble(0x1000 + at * 8, value)),
        2 => Just(Step::Run),
        1 => Just(Step::Save),
        1 => Just(Step::Reset),
    ];
    proptest::collection::vec(step, 1..200)
}

fn play(bench: &Bench, steps: &[Step]) {
    let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
    for step in steps {
        match *step {
            Step::Port(port, size, value) => {
                let ports = bench.fabric.ports.snapshot();
                let _ = match value {
                    Some(value) => ports
                        .write(port, size, value, ByteOrder::Little, by, attrs)
                        .map(|_| 0),
                    None => ports.read(port, size, ByteOrder::Little, by, attrs),
                };
            }
            Step::Memory(register, value) => {
                let map = bench.fabric.memory.snapshot();
                let _ = match value {
                    Some(value) => map
                        .write(ABAR + register, 4, value, ByteOrder::Little, by, attrs)
                        .map(|_| 0),
                    None => map.read(ABAR + register, 4, ByteOrder::Little, by, attrs),
                };
            }
            Step::Scribble(address, value) => bench.poke(address, &value.to_le_bytes()),
            Step::Run => bench.run(),
            Step::Save => bench.save_and_restore(),
            Step::Reset => bench.fabric.reset(ResetKind::Cold),
        }
    }
    bench.run();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_parallel_controller_stands_anything(steps in steps()) {
        let bench = Bench::new(Box::new(Piix3Ide::new(8)));
        bench.config(0x20, 4, 0xc000);
        bench.config(4, 2, 5);
        play(&bench, &steps);
    }

    #[test]
    fn the_serial_controller_stands_anything(steps in steps()) {
        let options = AhciOptions::default();
        let bench = Bench::new(Box::new(Ahci::new(options, hw_pci::PciOptions::at(8))));
        bench.config(0x24, 4, ABAR);
        bench.config(4, 2, 7);
        for (register, value) in [(0x00, 0x1000u64), (0x08, 0x2000), (0x18, 0x17)] {
            play(&bench, &[Step::Memory(0x100 + register, Some(value))]);
        }
        play(&bench, &steps);
    }
}
