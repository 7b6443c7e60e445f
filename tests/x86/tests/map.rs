//! Stores to devices that change the memory map, as of flash chips: later accesses of the same unit, at
//! addresses it has used before, go where the new map says.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::sync::{Arc, OnceLock};

use hw_memory::{
    Access, AccessSizes, ByteOrder, Fault, IoRegion, Mapping, MappingSpec, RamBlock, What,
};
use target_x86::Segment;
use test_native::kvm::{Stop, SystemState};
use test_x86::{EmulatedSystem, executors};

const CODE: u64 = 0x4000;
const CHIP: u64 = 0x2_0000;
const LEN: u64 = 0x1000;
const STORED: u8 = 0x5a;
const STATUS: u8 = 0x80;

/// Storage that a register covers once anything but zero is written to it.
#[derive(Default)]
struct Chip {
    register: OnceLock<Mapping>,
}

impl IoRegion for Chip {
    fn read(&self, _: Access) -> Result<u64, Fault> {
        Ok(STATUS.into())
    }

    fn write(&self, _: Access, value: u64) -> Result<(), Fault> {
        let register = self.register.get().ok_or(Fault::NoRegister)?;
        register.set_enabled(value != 0);
        Ok(())
    }
}

fn put_chip(cpu: &EmulatedSystem, block: Arc<RamBlock>) {
    let chip = Arc::new(Chip::default());
    block.fill(0, LEN, STORED);
    let spec = |priority, enabled, what| MappingSpec {
        name: "chip".into(),
        base: CHIP,
        len: LEN,
        priority,
        enabled,
        what,
    };
    let writes: Option<Arc<dyn IoRegion>> = Some(chip.clone());
    let rom = What::Rom {
        block,
        offset: 0,
        writes,
    };
    cpu.map().add(spec(1, true, rom));
    let io = What::Io {
        io: chip.clone(),
        region: Default::default(),
        order: ByteOrder::Little,
        sizes: AccessSizes::ANY,
    };
    let register = cpu.map().add(spec(2, false, io));
    assert!(chip.register.set(register).is_ok());
}

#[test]
fn what_a_store_uncovers_is_seen_by_the_next_instruction() {
    // Notes what it sees in EDX (before), ESI (covered) and EDI (uncovered), as sums over all rounds.
    let program = [
        0xb9, 0x00, 0x10, 0x00, 0x00, // mov ecx, 4096
        0xbb, 0x00, 0x00, 0x02, 0x00, // mov ebx, CHIP
        0x0f, 0xb6, 0x03, // again: movzx eax, byte [ebx]
        0x01, 0xc2, // add edx, eax
        0xc6, 0x03, 0x01, // mov byte [ebx], 1
        0x0f, 0xb6, 0x03, // movzx eax, byte [ebx]
        0x01, 0xc6, // add esi, eax
        0x0f, 0xb6, 0x43, 0x08, // movzx eax, byte [ebx + 8]
        0x01, 0xc6, // add esi, eax
        0xc6, 0x43, 0x04, 0x00, // mov byte [ebx + 4], 0
        0x0f, 0xb6, 0x43, 0x08, // movzx eax, byte [ebx + 8]
        0x01, 0xc7, // add edi, eax
        0x49, // dec ecx
        0x75, 0xe0, // jnz again
        0xf4, // hlt
    ];
    let flat = |attributes| Segment {
        selector: 8,
        base: 0,
        limit: u32::MAX,
        attributes,
    };
    for (name, executor) in executors() {
        let mut cpu = EmulatedSystem::new(0x1_0000, executor);
        put_chip(&cpu, Arc::new(RamBlock::new("chip", LEN).unwrap()));
        cpu.write(CODE, &program);
        let mut state = SystemState {
            rip: CODE,
            rflags: 2,
            cr0: 0x11,
            segments: [0, 1, 2, 3, 4, 5].map(|n| flat(if n == 1 { 0xc09b } else { 0xc093 })),
            ..SystemState::default()
        };
        assert_eq!(cpu.run(&mut state), Stop::Halted, "{name}: {state:x?}");
        let rounds = 4096;
        let (stored, status) = (u64::from(STORED), u64::from(STATUS));
        assert_eq!(state.gpr[2], rounds * stored, "{name}: before");
        assert_eq!(state.gpr[6], 2 * rounds * status, "{name}: covered");
        assert_eq!(state.gpr[7], rounds * stored, "{name}: uncovered");
    }
}
