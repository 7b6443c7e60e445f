//! A CPU with a little memory at address 0, for tests of an instruction or two of system code.

// For tests: what is missing ends them.
#![allow(clippy::expect_used)]

use std::sync::Arc;

use accel_core::Executor;
use hw_clock::Clock;
use hw_memory::{MappingSpec, MemoryMap, RamBlock, What};
use target_arm::{
    Arm, Boot, Core, CpuModel, CpuState, NoPort, Setup, SysReg, new_core, set_register,
};

/// Bytes of memory.
pub const LEN: u64 = 0x1_0000;
/// The code. Vectors are at 0.
pub const CODE: u64 = 0x1000;
/// B to itself.
const STOP: u32 = 0x1400_0000;
/// Instructions that are run.
const BUDGET: i64 = 100;

/// A descriptor's access flag.
pub const AF: u64 = 1 << 10;
/// A descriptor of a block.
pub const BLOCK: u64 = 1;
/// A descriptor of a table, or of a page at level 3.
pub const TABLE: u64 = 3;

/// Memory of this length at 0.
pub fn memory(len: u64) -> Result<(MemoryMap, Arc<RamBlock>), String> {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", len).map_err(|e| e.to_string())?);
    map.add(MappingSpec {
        name: "ram".into(),
        base: 0,
        len,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset: 0,
        },
    });
    Ok((map, block))
}

/// Instructions as memory holds them.
pub fn bytes_of(code: &[u32]) -> Vec<u8> {
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A CPU of model `max` and its memory, before it runs.
pub struct Frame {
    map: MemoryMap,
    block: Arc<RamBlock>,
    has_el2: bool,
}

/// What is there afterwards.
pub struct After {
    /// The CPU.
    pub core: Core,
    block: Arc<RamBlock>,
}

impl Frame {
    /// One that runs `code`. All exceptions end it.
    ///
    /// # Panics
    /// When there is no memory for it.
    pub fn new(code: &[u32]) -> Self {
        let (map, block) = memory(LEN).expect("64 KiB");
        let frame = Frame {
            map,
            block,
            has_el2: false,
        };
        for vector in [0, 0x200, 0x400, 0x600] {
            frame.put(vector, &bytes_of(&[STOP]));
        }
        frame.put(CODE, &bytes_of(code));
        frame.put(CODE + 4 * code.len() as u64, &bytes_of(&[STOP]));
        frame
    }

    /// The CPU has EL2.
    pub fn with_el2(mut self) -> Self {
        self.has_el2 = true;
        self
    }

    /// Fills memory.
    ///
    /// # Panics
    /// Beyond its end.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.block.write(at, bytes).expect("within the memory");
    }

    /// A doubleword of memory, as of a table.
    pub fn put_entry(&self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    /// Runs it at an exception level, with these values in x0 to x3 and these system registers.
    ///
    /// # Panics
    /// When there is no such register.
    pub fn run(
        self,
        el: u8,
        x: [u64; 4],
        registers: &[(&str, u64)],
        executor: &mut dyn Executor<Arm>,
    ) -> After {
        let mut model = CpuModel::parse("max").expect("a model");
        model.set_el2(self.has_el2);
        model.set_el3(false);
        let setup = Setup {
            boot: Some(Boot {
                pc: CODE,
                x,
                el: Some(el),
            }),
            ..Setup::default()
        };
        let (clock, _) = Clock::manual();
        let port = Box::new(NoPort);
        let mut core = new_core(0, Arc::new(model), setup, port, self.map, clock);
        for (name, value) in registers {
            assert!(set_register(&mut core, name, *value), "{name}");
        }
        core.budget = BUDGET;
        executor.run(&mut core);
        executor.flush();
        let block = self.block;
        After { core, block }
    }
}

impl After {
    /// A system register.
    ///
    /// # Panics
    /// When there is no such register.
    pub fn system(&self, reg: SysReg) -> u64 {
        let state = CpuState::of(&self.core);
        let found = state.system.iter().find(|(known, _)| *known == reg);
        found.expect("a register that is saved").1
    }

    /// Bytes of memory.
    ///
    /// # Panics
    /// Beyond its end.
    pub fn memory<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.block.read(at, &mut bytes).expect("within the memory");
        bytes
    }
}
