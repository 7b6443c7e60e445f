//! The engine: a CPU at EL0 with translation off, and each executor.

use std::sync::{Arc, Mutex};

use accel_core::{Executor, Exit};
use accel_interp::Interp;
use hw_clock::Clock;
use hw_memory::{MappingSpec, MemoryMap, RamBlock, What};
use target_arm::{
    Answer, Arm, Boot, Conduit, CpuModel, GicAccess, GicFault, NoPort, Port, Setup, Start, Timer,
    World, new_core,
};

use crate::aarch32;
use crate::program::{BASE, Program, Record, SIZE, STACK, VECTORS};

/// A port whose firmware ends the program at the first call.
struct Stopper(NoPort, Arc<Mutex<bool>>);

impl Port for Stopper {
    fn irq(&mut self, _: World) -> bool {
        false
    }
    fn fiq(&mut self, _: World) -> bool {
        false
    }
    fn gic_read(&mut self, access: GicAccess) -> Result<u64, GicFault> {
        self.0.gic_read(access)
    }
    fn gic_write(&mut self, access: GicAccess, value: u64) -> Result<(), GicFault> {
        self.0.gic_write(access, value)
    }
    fn timer_control(&mut self, timer: Timer) -> u64 {
        self.0.timer_control(timer)
    }
    fn set_timer_control(&mut self, _: Timer, _: u64) {}
    fn timer_compare(&mut self, timer: Timer) -> u64 {
        self.0.timer_compare(timer)
    }
    fn set_timer_compare(&mut self, _: Timer, _: u64) {}
    fn set_counter_offset(&mut self, _: u64) {}
    fn call(&mut self, _: Conduit, _: [u64; 8]) -> Answer {
        if let Ok(mut ended) = self.1.lock() {
            *ended = true;
        }
        Answer::Off
    }
    fn start(&mut self) -> Option<Start> {
        None
    }
}

/// All that executes IR on this host, by name.
pub fn executors() -> Vec<(&'static str, Box<dyn Executor<Arm>>)> {
    let mut all: Vec<(&str, Box<dyn Executor<Arm>>)> =
        vec![("interpreter", Box::new(Interp::default()))];
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    match accel_jit::Jit::<Arm>::new(64 << 20) {
        Ok(jit) => all.push(("JIT", Box::new(jit))),
        Err(error) => eprintln!("SKIPPED: no JIT: {error}"),
    }
    all
}

/// Runs a program: the records after.
pub fn run(program: &Program, executor: &mut dyn Executor<Arm>) -> Result<Vec<Record>, String> {
    let machine = Machine {
        image: &program.image,
        stack: STACK,
        entry: program.entry(),
        el: 0,
        cases: program.count,
        registers: &[],
    };
    let bytes = machine.run(executor, program.records, program.count * SIZE)?;
    Ok(program.parse(&bytes))
}

/// Runs a program of A32 or T32: the records after.
pub fn run_32(
    program: &aarch32::Program,
    executor: &mut dyn Executor<Arm>,
) -> Result<Vec<aarch32::Record>, String> {
    let machine = Machine {
        image: &program.image,
        stack: aarch32::STACK,
        entry: aarch32::ENTRY,
        el: 1,
        cases: program.count,
        registers: &[],
    };
    let bytes = machine.run(executor, program.records, program.count * aarch32::SIZE)?;
    Ok(program.parse(&bytes))
}

/// A CPU and its memory.
pub(crate) struct Machine<'a> {
    pub(crate) image: &'a [u8],
    pub(crate) stack: u64,
    pub(crate) entry: u64,
    pub(crate) el: u8,
    pub(crate) cases: usize,
    /// System registers beside those that all have.
    pub(crate) registers: &'a [(&'a str, u64)],
}

impl Machine<'_> {
    /// Runs until the first call of firmware: the memory from `at` on.
    pub(crate) fn run(
        &self,
        executor: &mut dyn Executor<Arm>,
        at: usize,
        bytes: usize,
    ) -> Result<Vec<u8>, String> {
        let map = MemoryMap::default();
        let len = (self.image.len() as u64 + self.stack).next_multiple_of(4096);
        let block = RamBlock::new("program", len).map_err(|e| format!("{e}"))?;
        let block = Arc::new(block);
        map.add(MappingSpec {
            name: "program".into(),
            base: BASE,
            len,
            priority: 0,
            enabled: true,
            what: What::Ram {
                block: block.clone(),
                offset: 0,
            },
        });
        block
            .write(0, self.image)
            .ok_or("the program does not fit")?;
        let mut model = CpuModel::parse("max").map_err(|e| e.to_string())?;
        model.set_el2(false);
        model.set_el3(false);
        let setup = Setup {
            boot: Some(Boot {
                pc: self.entry,
                x: [0; 4],
                el: Some(self.el),
            }),
            ..Setup::default()
        };
        let (clock, _time) = Clock::manual();
        let ended = Arc::new(Mutex::new(false));
        let port = Box::new(Stopper(NoPort, ended.clone()));
        let mut core = new_core(0, Arc::new(model), setup, port, map, clock);
        target_arm::set_register(&mut core, "VBAR_EL1", BASE + VECTORS);
        target_arm::set_register(&mut core, "CPACR_EL1", 3 << 20);
        // What Linux lets EL0 do: DC ZVA, CTR_EL0, cache maintenance.
        target_arm::set_register(
            &mut core,
            "SCTLR_EL1",
            0x30d0_0800 | 1 << 14 | 1 << 15 | 1 << 26,
        );
        for (name, value) in self.registers {
            if !target_arm::set_register(&mut core, name, *value) {
                return Err(format!("there is no {name}"));
            }
        }
        core.budget = self.cases as i64 * 1000;
        let exit = executor.run(&mut core);
        executor.flush();
        if !ended.lock().is_ok_and(|e| *e) {
            return Err(format!("{exit:?} at {:#x}", core.pc()));
        }
        let mut records = vec![0; bytes];
        block.read(at as u64, &mut records).ok_or("no records")?;
        if exit != Exit::Halted {
            return Err(format!("{exit:?}"));
        }
        Ok(records)
    }
}
