//! Programs at EL1 without translation, that log the exceptions they take: what system code does.

use std::sync::{Arc, Mutex};

use accel_core::{Executor, Exit, Guest};
use hw_clock::{Clock, ManualTime};
use target_arm::{
    Answer, Arm, Boot, Conduit, CpuModel, GicAccess, GicFault, Port, Setup, Start, SysReg, Timer,
    World, new_core,
};

pub use crate::frame::CODE;
use crate::frame::{LEN, bytes_of, memory};

// Memory: vectors, the program, the log, data.
/// Exceptions taken, four words each.
const LOG: u64 = 0x4000;
/// Left to the program.
pub const DATA: u64 = 0x8000;
/// The handler's own: where the log ends. It uses x21 and x22, too.
const LOG_REGISTER: u32 = 20;

/// An exception from EL1 to EL1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// ELR_EL1.
    pub pc: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
}

impl Taken {
    /// ESR_EL1.EC.
    pub fn class(&self) -> u64 {
        self.esr >> 26
    }
}

/// What a program left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Exceptions, in order.
    pub taken: Vec<Taken>,
    /// x0 to x19.
    pub x: Vec<u64>,
    /// The first words of `DATA`.
    pub data: Vec<u64>,
    /// Level of the PMU's interrupt at the end, and how often it rose.
    pub pmu: (bool, u32),
}

/// MRS.
pub fn mrs(rt: u32, reg: SysReg) -> u32 {
    0xd520_0000 | u32::from(reg.0) << 5 | rt
}

/// MSR.
pub fn msr(reg: SysReg, rt: u32) -> u32 {
    0xd500_0000 | u32::from(reg.0) << 5 | rt
}

/// MOVZ and MOVK of a whole value.
pub fn mov(rd: u32, value: u64) -> Vec<u32> {
    let part = |n: u32| (value >> (16 * n)) as u32 & 0xffff;
    let mut code = vec![0xd280_0000 | part(0) << 5 | rd];
    code.extend((1..4).filter(|n| part(*n) != 0).map(|n| {
        // MOVK
        0xf280_0000 | n << 21 | part(n) << 5 | rd
    }));
    code
}

/// A value into a system register, by x19.
pub fn set(reg: SysReg, value: u64) -> Vec<u32> {
    let mut code = mov(19, value);
    code.push(msr(reg, 19));
    code
}

/// LDR (64-bit), unsigned offset in bytes.
pub fn ldr(rt: u32, rn: u32, offset: u32) -> u32 {
    0xf940_0000 | (offset / 8) << 10 | rn << 5 | rt
}

/// STR (64-bit).
pub fn str(rt: u32, rn: u32, offset: u32) -> u32 {
    0xf900_0000 | (offset / 8) << 10 | rn << 5 | rt
}

/// NOP.
pub const NOP: u32 = 0xd503_201f;
/// ISB.
pub const ISB: u32 = 0xd503_3fdf;
/// MSR DAIFClr, #8: debug exceptions.
pub const UNMASK_DEBUG: u32 = 0xd503_48ff;
/// MSR DAIFClr, #2: IRQ.
pub const UNMASK_IRQ: u32 = 0xd503_42ff;
/// HVC #0: ends the program.
const END: u32 = 0xd400_0002;
const ERET: u32 = 0xd69f_03e0;

const fn el1(crn: u16, crm: u16, op2: u16) -> SysReg {
    SysReg::new(3, 0, crn, crm, op2)
}

/// Logs the exception.
fn logged() -> Vec<u32> {
    let log = |rt| 0xf800_8400 | LOG_REGISTER << 5 | rt;
    let mut code = Vec::new();
    for reg in [el1(4, 0, 1), el1(5, 2, 0), el1(6, 0, 0)] {
        code.extend([mrs(21, reg), log(21)]);
    }
    code.extend([mrs(21, el1(4, 0, 0)), log(21)]);
    code
}

/// Logs the exception, and returns to where it was with debug exceptions masked (SPSR.D).
fn handler() -> Vec<u32> {
    let spsr = el1(4, 0, 0);
    let mut code = logged();
    code.extend(mov(22, 1 << 9));
    // ORR x21, x21, x22
    code.extend([0xaa16_02b5, msr(spsr, 21), ERET]);
    code
}

struct BarePort {
    ended: Arc<Mutex<bool>>,
    pmu: Arc<Mutex<(bool, u32)>>,
}

impl Port for BarePort {
    fn irq(&mut self, _: World) -> bool {
        false
    }
    fn fiq(&mut self, _: World) -> bool {
        false
    }
    fn gic_read(&mut self, _: GicAccess) -> Result<u64, GicFault> {
        Err(GicFault::Undefined)
    }
    fn gic_write(&mut self, _: GicAccess, _: u64) -> Result<(), GicFault> {
        Err(GicFault::Undefined)
    }
    fn timer_control(&mut self, _: Timer) -> u64 {
        0
    }
    fn set_timer_control(&mut self, _: Timer, _: u64) {}
    fn timer_compare(&mut self, _: Timer) -> u64 {
        0
    }
    fn set_timer_compare(&mut self, _: Timer, _: u64) {}
    fn set_counter_offset(&mut self, _: u64) {}
    fn set_pmu_interrupt(&mut self, level: bool) {
        if let Ok(mut pmu) = self.pmu.lock() {
            pmu.1 += u32::from(level && !pmu.0);
            pmu.0 = level;
        }
    }
    fn call(&mut self, _: Conduit, _: [u64; 8]) -> Answer {
        if let Ok(mut ended) = self.ended.lock() {
            *ended = true;
        }
        Answer::Off
    }
    fn start(&mut self) -> Option<Start> {
        None
    }
}

/// Runs a program on an executor, in slices; `pass` is called between them and may let time pass.
pub fn run_with(
    code: &[u32],
    executor: &mut dyn Executor<Arm>,
    pass: impl Fn(&ManualTime),
) -> Result<Outcome, String> {
    execute(code, &handler(), executor, pass)
}

/// Runs a program that goes to EL0: at its first exception from there the PMU is switched off, a register
/// read into x0, and the end has come.
pub fn run_to_el1(
    code: &[u32],
    executor: &mut dyn Executor<Arm>,
    register: SysReg,
) -> Result<Outcome, String> {
    let mut last = vec![msr(SysReg::new(3, 3, 9, 12, 0), 31), mrs(0, register)];
    last.extend(logged());
    last.push(END);
    execute(code, &last, executor, |_| ())
}

fn execute(
    code: &[u32],
    from_el0: &[u32],
    executor: &mut dyn Executor<Arm>,
    pass: impl Fn(&ManualTime),
) -> Result<Outcome, String> {
    let (map, block) = memory(LEN)?;
    let put = |at: u64, code: &[u32]| {
        let bytes = bytes_of(code);
        block.write(at, &bytes).ok_or("the program is too long")
    };
    put(0x200, &handler())?;
    put(0x400, from_el0)?;
    // Before the program: the OS lock is opened, and x20 is the handler's.
    put(CODE - 8, &[msr(SysReg::new(2, 0, 1, 0, 4), 31)])?;
    put(CODE - 4, &mov(LOG_REGISTER, LOG))?;
    put(CODE, code)?;
    put(CODE + 4 * code.len() as u64, &[END])?;
    let mut model = CpuModel::parse("max").map_err(|e| e.to_string())?;
    model.set_el2(false);
    model.set_el3(false);
    let setup = Setup {
        boot: Some(Boot {
            pc: CODE - 8,
            x: [0; 4],
            el: Some(1),
        }),
        ..Setup::default()
    };
    let (clock, time) = Clock::manual();
    let ended: Arc<Mutex<bool>> = Arc::default();
    let pmu: Arc<Mutex<(bool, u32)>> = Arc::default();
    let port = Box::new(BarePort {
        ended: ended.clone(),
        pmu: pmu.clone(),
    });
    let mut core = new_core(0, Arc::new(model), setup, port, map, clock.clone());
    core.sole = true;
    target_arm::set_register(&mut core, "VBAR_EL1", 0);
    let is_over = || ended.lock().is_ok_and(|over| *over);
    for _ in 0..1000 {
        core.budget = 1000;
        let exit = executor.run(&mut core);
        match exit {
            Exit::Halted if is_over() => break,
            Exit::Budget | Exit::Halted | Exit::Yield => {}
            other => return Err(format!("{other:?} at {:#x}", core.pc())),
        }
        pass(&time);
        clock.run_timers();
    }
    executor.flush();
    if !is_over() {
        return Err(format!("does not end: at {:#x}", core.pc()));
    }
    let words = |from: u64, to: u64| -> Vec<u64> {
        let at = (from..to).step_by(8);
        at.map(|at| block.load(at, 8).unwrap_or(0)).collect()
    };
    let registers = Arm::registers(&mut core);
    let x = |n: u32| {
        let name = format!("x{n}");
        let found = registers.iter().find(|(known, _)| *known == name);
        found.map_or(0, |(_, value)| *value as u64)
    };
    let log = words(LOG, x(LOG_REGISTER));
    let pmu = pmu.lock().map(|pmu| *pmu).unwrap_or_default();
    Ok(Outcome {
        taken: log
            .chunks(4)
            .map(|row| Taken {
                pc: row[0],
                esr: row[1],
                far: row[2],
            })
            .collect(),
        x: (0..20).map(x).collect(),
        data: words(DATA, DATA + 0x100),
        pmu,
    })
}

/// Runs a program on every executor: all come to the same.
pub fn run(code: &[u32]) -> Result<Outcome, String> {
    let mut first: Option<Outcome> = None;
    for (name, mut executor) in crate::executors() {
        let outcome = run_with(code, executor.as_mut(), |_| ());
        let outcome = outcome.map_err(|error| format!("{name}: {error}"))?;
        match &first {
            Some(first) if *first != outcome => {
                return Err(format!("{name}: {outcome:x?}, but the first {first:x?}"));
            }
            Some(_) => {}
            None => first = Some(outcome),
        }
    }
    first.ok_or_else(|| "no executor".to_owned())
}
