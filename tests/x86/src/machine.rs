//! A CPU, three pages for a case, and a kernel that halts in every exception handler.

use std::sync::Arc;

use accel_core::{Executor, Exit};
use accel_interp::Interp;
use hw_clock::Clock;
use hw_memory::{MappingSpec, MemoryMap, PAGE_SIZE, RamBlock, What};
use target_x86::float::X87;
use target_x86::system::{self, CpuModel, Topology};
use target_x86::{Core, NoPort, Segment, Table, X86, decode, regs};
use test_native::compare::{End, Engine};
use test_native::generate::{Case, SELECTORS};
use test_native::{CODE, CODE_PAGE, DATA, DATA_SIZE, Outcome, RFLAGS_IN};

/// Instructions a case may execute.
const BUDGET: i64 = 100_000;

/// Where the kernel's pages appear.
const KERNEL: u64 = 0xffff_8000_0000_0000;

const PML4: u64 = 0x1000;
const PDPT_LOW: u64 = 0x2000;
const PD_LOW: u64 = 0x3000;
const PT_DATA: u64 = 0x4000;
const PT_CODE: u64 = 0x5000;
const PDPT_HIGH: u64 = 0x6000;
const PD_HIGH: u64 = 0x7000;
const PT_HIGH: u64 = 0x8000;
const GDT: u64 = 0x9000;
const IDT: u64 = 0xa000;
const TSS: u64 = 0xb000;
const HANDLERS: u64 = 0xc000;
const STACK_TOP: u64 = 0xe000;
const KERNEL_SIZE: u64 = 0x1_0000;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED_DIRTY: u64 = 3 << 5;
const NO_EXECUTE: u64 = 1 << 63;

/// Selector of the kernel's code.
const KERNEL_CODE: u64 = 0x10;

/// Bytes from handler to handler; the first is HLT.
const HANDLER: u64 = 16;
const HLT: u8 = 0xf4;
const INT3: u8 = 0xcc;

/// Vectors that push an error code.
const WITH_ERROR: [u64; 7] = [8, 10, 11, 12, 13, 14, 17];

const GP: u64 = 13;
const PF: u64 = 14;

/// All that executes IR on this host, by name.
pub fn executors() -> Vec<(&'static str, Box<dyn Executor<X86>>)> {
    let mut all: Vec<(&str, Box<dyn Executor<X86>>)> =
        vec![("interpreter", Box::new(Interp::default()))];
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    match accel_jit::Jit::<X86>::new(1 << 20) {
        Ok(jit) => all.push(("JIT", Box::new(jit))),
        Err(error) => eprintln!("SKIPPED: no JIT: {error}"),
    }
    all
}

/// The emulated CPU as an engine for test cases.
pub struct Emulated {
    core: Core,
    engine: Box<dyn Executor<X86>>,
    kernel: Arc<RamBlock>,
    data: Arc<RamBlock>,
    code: Arc<RamBlock>,
}

pub(crate) fn ram(map: &MemoryMap, name: &str, base: u64, len: u64) -> Arc<RamBlock> {
    #[allow(clippy::expect_used)]
    let block = Arc::new(RamBlock::new(name, len).expect("a few pages of memory"));
    map.add(MappingSpec {
        name: name.into(),
        base,
        len,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset: 0,
        },
    });
    block
}

impl Emulated {
    /// A CPU with its tables.
    pub fn new(engine: Box<dyn Executor<X86>>) -> Self {
        let map = MemoryMap::default();
        let kernel = ram(&map, "kernel", 0, KERNEL_SIZE);
        let data = ram(&map, "data", DATA, DATA_SIZE as u64);
        let code = ram(&map, "code", CODE_PAGE, PAGE_SIZE);
        let core = system::new_core(
            0,
            Arc::new(CpuModel::default()),
            Topology::default(),
            Box::new(NoPort { a20: true }),
            map,
            Clock::manual().0,
        );
        let mut emulated = Emulated {
            core,
            engine,
            kernel,
            data,
            code,
        };
        emulated.write_tables();
        emulated
    }

    fn put(&mut self, at: u64, value: u64) {
        let done = self.kernel.store(at, 8, value);
        debug_assert!(done.is_some());
    }

    fn write_tables(&mut self) {
        let table = PRESENT | WRITABLE | USER | ACCESSED_DIRTY;
        let entry = |va: u64, shift: u32| 8 * (va >> shift & 511);
        self.put(PML4 + entry(DATA, 39), PDPT_LOW | table);
        self.put(PDPT_LOW + entry(DATA, 30), PD_LOW | table);
        self.put(PD_LOW + entry(DATA, 21), PT_DATA | table);
        self.put(PD_LOW + entry(CODE_PAGE, 21), PT_CODE | table);
        for page in 0..DATA_SIZE as u64 / PAGE_SIZE {
            let va = DATA + page * PAGE_SIZE;
            self.put(PT_DATA + entry(va, 12), va | table | NO_EXECUTE);
        }
        let read_only = PRESENT | USER | ACCESSED_DIRTY;
        self.put(PT_CODE + entry(CODE_PAGE, 12), CODE_PAGE | read_only);
        let kernel = PRESENT | WRITABLE | ACCESSED_DIRTY;
        self.put(PML4 + entry(KERNEL, 39), PDPT_HIGH | kernel);
        self.put(PDPT_HIGH + entry(KERNEL, 30), PD_HIGH | kernel);
        self.put(PD_HIGH + entry(KERNEL, 21), PT_HIGH | kernel);
        for page in 0..KERNEL_SIZE / PAGE_SIZE {
            self.put(PT_HIGH + 8 * page, (page * PAGE_SIZE) | kernel);
        }
        // Flat descriptors at the selectors that a Linux program has: 64-bit code and data.
        self.put(GDT + KERNEL_CODE, 0x00af_9b00_0000_ffff);
        self.put(GDT + 0x18, 0x00cf_9300_0000_ffff);
        self.put(GDT + 0x28, 0x00cf_f300_0000_ffff);
        self.put(GDT + 0x30, 0x00af_fb00_0000_ffff);
        for vector in 0..32 {
            let handler = KERNEL + HANDLERS + vector * HANDLER;
            // An interrupt gate that software interrupts may use.
            let gate =
                handler & 0xffff | KERNEL_CODE << 16 | 0xee << 40 | (handler >> 16 & 0xffff) << 48;
            self.put(IDT + 16 * vector, gate);
            self.put(IDT + 16 * vector + 8, handler >> 32);
            let done = self.kernel.write(HANDLERS + vector * HANDLER, &[HLT]);
            debug_assert!(done.is_some());
        }
        // RSP0.
        let rsp0 = KERNEL + STACK_TOP;
        let done = self.kernel.write(TSS + 4, &rsp0.to_le_bytes());
        debug_assert!(done.is_some());
    }

    /// CPL 3 in 64-bit mode.
    fn enter_user_mode(&mut self) {
        let arch = &mut self.core.arch;
        let segment = |selector: u16, attributes: u16| Segment {
            selector,
            base: 0,
            limit: u32::MAX,
            attributes,
        };
        let null = Segment::default();
        let [_, cs, ss, ..] = SELECTORS;
        arch.segments = [
            null,
            segment(cs, Segment::G | Segment::L | 0xfb),
            segment(ss, Segment::G | Segment::DB | 0xf3),
            null,
            null,
            null,
        ];
        arch.gdtr = Table {
            base: KERNEL + GDT,
            limit: 0xfff,
        };
        arch.idtr = Table {
            base: KERNEL + IDT,
            limit: 0xfff,
        };
        arch.tr = Segment {
            selector: 0x40,
            base: KERNEL + TSS,
            limit: 0x67,
            attributes: 0x8b,
        };
        // PE, MP, NE, WP, PG; PAE, OSFXSR, OSXMMEXCPT; SCE, LME, LMA, NXE.
        arch.cr0 = 0x8001_0023;
        arch.cr3 = PML4;
        arch.cr4 = 1 << 5 | 1 << 9 | 1 << 10;
        arch.efer = 1 | 1 << 8 | 1 << 10 | 1 << 11;
        arch.cpl = 3;
        arch.exception = None;
        arch.halted = false;
        for n in 0..6 {
            self.core.regs.set(regs::base(n), 0);
        }
    }

    fn load_state(&mut self, case: &Case) {
        self.enter_user_mode();
        let core = &mut self.core;
        for (n, value) in case.state.gpr.iter().enumerate() {
            core.regs.set(regs::gpr(n), *value);
        }
        let rflags = case.state.rflags & RFLAGS_IN | 0x202;
        core.regs.set(regs::RFLAGS, rflags & regs::rflags::SYSTEM);
        decode::set_arithmetic_flags(core, rflags);
        for i in 0..16 {
            core.regs.set_v(regs::xmm(i), case.state.fx.xmm(i));
        }
        core.regs.set(regs::MXCSR, case.state.fx.mxcsr().into());
        core.arch.x87 = X87::from_fxsave(&case.state.fx.0, true);
        core.set_pc(CODE);
        decode::refresh(core);
    }

    fn word(&self, va: u64) -> u64 {
        self.kernel.load(va.wrapping_sub(KERNEL), 8).unwrap_or(0)
    }

    /// Reads the exception frame. Returns vector, error code and where it happened.
    fn frame(&mut self) -> (u64, u64, u64, u64, u64) {
        let handler = self.core.pc().wrapping_sub(1);
        let vector = handler.wrapping_sub(KERNEL + HANDLERS) / HANDLER;
        let mut sp = self.core.regs.get(regs::gpr(regs::index::RSP));
        let mut error = 0;
        if WITH_ERROR.contains(&vector) {
            error = self.word(sp);
            sp = sp.wrapping_add(8);
        }
        let rip = self.word(sp);
        let rflags = self.word(sp.wrapping_add(16));
        let rsp = self.word(sp.wrapping_add(24));
        (vector, error, rip, rflags, rsp)
    }
}

/// Linux shows programs every page fault of the kernel's half as a protection violation.
fn hidden(vector: u64, address: u64) -> u64 {
    u64::from(vector == PF && address >> 47 != 0)
}

impl Engine for Emulated {
    fn run_case(&mut self, case: &Case) -> End {
        let mut page = vec![INT3; PAGE_SIZE as usize];
        let start = (CODE - CODE_PAGE) as usize;
        let end = start + case.bytes.len();
        page[start..end].copy_from_slice(&case.bytes);
        // At the end of the code: HLT, which faults here.
        page[end] = HLT;
        self.code.write(0, &page);
        self.data.write(0, &case.memory);
        self.load_state(case);
        self.core.budget = BUDGET;
        let mut state = case.state.clone();
        let mut exit = self.engine.run(&mut self.core);
        for _ in 0..1000 {
            match exit {
                // One CPU is always alone.
                Exit::Exclusive => {
                    self.core.alone = true;
                    exit = self.engine.run(&mut self.core);
                    self.core.alone = false;
                }
                Exit::Yield => exit = self.engine.run(&mut self.core),
                _ => break,
            }
        }
        let mut outcome = Outcome::TimedOut;
        let mut rflags = self.core.regs.get(regs::RFLAGS) | decode::arithmetic_flags(&self.core);
        let mut rsp = None;
        if exit == Exit::Halted {
            let (vector, error_code, rip, flags, sp) = self.frame();
            rflags = flags;
            rsp = Some(sp);
            outcome = if vector == GP && rip == CODE + case.bytes.len() as u64 {
                Outcome::Done
            } else {
                Outcome::Fault {
                    signal: 0,
                    trapno: vector as u8,
                    error_code: error_code | hidden(vector, self.core.arch.cr2),
                    address: if vector == PF { self.core.arch.cr2 } else { 0 },
                    rip_offset: rip.wrapping_sub(CODE),
                }
            };
        }
        for (n, value) in state.gpr.iter_mut().enumerate() {
            *value = self.core.regs.get(regs::gpr(n));
        }
        if let Some(rsp) = rsp {
            state.gpr[regs::index::RSP] = rsp;
        }
        state.rflags = rflags & !regs::rflags::RF | regs::rflags::FIXED;
        for i in 0..16 {
            state.fx.set_xmm(i, self.core.regs.get_v(regs::xmm(i)));
        }
        state.fx.set_mxcsr(self.core.regs.get(regs::MXCSR) as u32);
        self.core.arch.x87.to_fxsave(&mut state.fx.0, true);
        let mut memory = vec![0; DATA_SIZE];
        self.data.read(0, &mut memory);
        End {
            outcome,
            state,
            memory,
        }
    }
}
