//! A bare CPU over RAM: helpers are called as IR would call them.

use std::sync::{Arc, Mutex};

use accel_core::{Access, Exit, Trap, reason};
use hw_clock::{Clock, ManualTime};
use hw_memory::{MappingSpec, MemoryMap, RamBlock, What};

use super::cpuid::{Topology, View};
use super::model::{self, CpuModel, ModelError};
use super::{deliver, feature, flags, new_core, service, tsc, wake_mask, walk};
use crate::cpu::{Port, ctx};
use crate::helper::ALL;
use crate::regs::{self, index, rflags};
use crate::state::{Segment, SegmentIndex, Table, cr0, cr4, efer, vector};
use crate::system::calls::*;
use crate::{Core, Exception};

mod control;
mod exceptions;
mod hostile;
mod identity;
mod pages;
mod segments;

const RAM: u64 = 0x100_0000;

/// What the board would provide.
#[derive(Default)]
pub(crate) struct Board {
    vectors: Vec<u8>,
    cr8: u64,
    a20: bool,
    sipi: u8,
    deadline: (u64, u64),
    out: Vec<(u16, u8, u32)>,
}

#[derive(Clone, Default)]
pub(crate) struct TestPort(Arc<Mutex<Board>>);

impl TestPort {
    fn with<R>(&self, f: impl FnOnce(&mut Board) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }
}

impl Port for TestPort {
    fn io_in(&mut self, _: u32, port: u16, size: u8) -> u32 {
        u32::from(port) | u32::from(size) << 16
    }
    fn io_out(&mut self, _: u32, port: u16, size: u8, value: u32) {
        self.with(|b| b.out.push((port, size, value)));
    }
    fn ack(&mut self) -> Option<u8> {
        self.with(|b| b.vectors.pop())
    }
    fn has_interrupt(&mut self) -> bool {
        self.with(|b| !b.vectors.is_empty())
    }
    fn cr8(&mut self) -> u64 {
        self.with(|b| b.cr8)
    }
    fn set_cr8(&mut self, value: u64) {
        self.with(|b| b.cr8 = value);
    }
    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        (msr == 0x1b).then_some(0xfee0_0900)
    }
    fn apic_write(&mut self, msr: u32, _: u64) -> Option<()> {
        (msr == 0x1b).then_some(())
    }
    fn tsc_deadline(&mut self) -> u64 {
        self.with(|b| b.deadline.0)
    }
    fn set_tsc_deadline(&mut self, value: u64, at_ns: u64) {
        self.with(|b| b.deadline = (value, at_ns));
    }
    fn sipi_vector(&mut self) -> u8 {
        self.with(|b| b.sipi)
    }
    fn init(&mut self) {}
    fn a20(&self) -> bool {
        self.with(|b| b.a20)
    }
}

/// A CPU over 16 MB of RAM.
pub(crate) struct Bench {
    pub(crate) core: Core,
    pub(crate) ram: Arc<RamBlock>,
    pub(crate) port: TestPort,
    pub(crate) time: Arc<ManualTime>,
}

impl Bench {
    /// CPU `index` of model `max` in reset state, without A20 masking.
    pub(crate) fn cpu(index: u32, model: &str) -> Bench {
        let map = MemoryMap::default();
        let ram = Arc::new(RamBlock::new("ram", RAM).unwrap());
        map.add(MappingSpec {
            name: "ram".into(),
            base: 0,
            len: RAM,
            priority: 0,
            enabled: true,
            what: What::Ram {
                block: ram.clone(),
                offset: 0,
            },
        });
        let port = TestPort::default();
        port.with(|b| b.a20 = true);
        let (clock, time) = Clock::manual();
        let (model, _) = CpuModel::parse(model, &feature::engine(), false).unwrap();
        let core = new_core(
            index,
            Arc::new(model),
            Topology::default(),
            Box::new(port.clone()),
            map,
            clock,
        );
        Bench {
            core,
            ram,
            port,
            time,
        }
    }

    pub(crate) fn real() -> Bench {
        let mut b = Bench::cpu(0, "max");
        // SS:SP, and code at 1000:0.
        b.call(LOAD_SEGMENT, [2, 0x2000, 0, 0x1000]).ok();
        b.far_jump(0x1000, 0, 2);
        b.core.arch.shadow = false;
        b
    }

    pub(crate) fn put(&self, at: u64, size: u8, value: u64) {
        self.ram.store(at, size, value).unwrap();
    }

    pub(crate) fn get(&self, at: u64, size: u8) -> u64 {
        self.ram.load(at, size).unwrap()
    }

    /// Calls a helper by number, as IR does.
    pub(crate) fn call(&mut self, id: accel_ir::HelperId, args: [u64; 4]) -> Result<u64, Trap> {
        (ALL[usize::from(id.0)].run)(&mut self.core, args)
    }

    pub(crate) fn far_jump(&mut self, selector: u64, offset: u64, size: u64) {
        assert_eq!(
            self.call(FAR_JUMP, [selector, offset, size, 0]),
            Err(Trap::Leave)
        );
    }

    /// Vector and error code of what a call raised.
    pub(crate) fn fault(&mut self, result: Result<u64, Trap>) -> (u8, Option<u32>) {
        assert_eq!(result, Err(Trap::Exception));
        let e = self.core.arch.exception.take().unwrap();
        (e.vector, e.error)
    }

    pub(crate) fn gpr(&self, n: usize) -> u64 {
        self.core.regs.get(regs::gpr(n))
    }

    pub(crate) fn set(&mut self, n: usize, value: u64) {
        self.core.regs.set(regs::gpr(n), value);
    }

    pub(crate) fn sp(&self) -> u64 {
        self.gpr(index::RSP)
    }

    pub(crate) fn selector(&self, n: SegmentIndex) -> u16 {
        self.core.arch.segment(n as usize).selector
    }

    pub(crate) fn note(&mut self, vector: u8, error: Option<u32>) {
        self.core.arch.exception = Some(Exception {
            vector,
            error,
            address: None,
            software: false,
        });
    }

    /// Protected mode, 32-bit, flat, CPL 0, without paging. GDT at 1000h, IDT at 2000h, TSS at 3000h
    /// (SS0:ESP0 = 10h:9000h).
    pub(crate) fn protected() -> Bench {
        let mut b = Bench::cpu(0, "max");
        for (n, descriptor) in [
            0,
            0x00cf_9b00_0000_ffff, // 08: code, DPL 0
            0x00cf_9300_0000_ffff, // 10: data, DPL 0
            0x00cf_fb00_0000_ffff, // 18: code, DPL 3
            0x00cf_f300_0000_ffff, // 20: data, DPL 3
            0x0000_8900_3000_0067, // 28: TSS
            0x0000_8900_4000_0067, // 30: another TSS
            0x00af_9b00_0000_ffff, // 38: 64-bit code, DPL 0
            0x00cf_1300_0000_ffff, // 40: data, not present
            0x00cf_9f00_0000_ffff, // 48: conforming code, DPL 0
        ]
        .into_iter()
        .enumerate()
        {
            b.put(0x1000 + 8 * n as u64, 8, descriptor);
        }
        b.core.arch.gdtr = Table {
            base: 0x1000,
            limit: 0xff,
        };
        b.core.arch.idtr = Table {
            base: 0x2000,
            limit: 0x7ff,
        };
        b.put(0x3004, 4, 0x9000);
        b.put(0x3008, 4, 0x10);
        assert_eq!(
            b.call(WRITE_CR, [0, cr0::PE | cr0::NE, 0, 0]),
            Err(Trap::Leave)
        );
        b.far_jump(0x08, 0x5000, 4);
        b.call(LOAD_SEGMENT, [2, 0x10, 0x5000, 0x8000]).ok();
        for n in [0, 3] {
            b.call(LOAD_SEGMENT, [n, 0x10, 0x5000, 0x8000]).ok();
        }
        b.call(LOAD_SYSTEM_SEGMENT, [1, 0x28, 0, 0]).unwrap();
        b.core.arch.shadow = false;
        b
    }

    /// A gate of the IDT in protected mode.
    pub(crate) fn gate(&self, vector: u8, kind: u64, dpl: u64, selector: u64, offset: u64) {
        let value = offset & 0xffff
            | selector << 16
            | (0x80 | dpl << 5 | kind) << 40
            | (offset >> 16 & 0xffff) << 48;
        self.put(0x2000 + 8 * u64::from(vector), 8, value);
    }

    /// Leaves for CPL 3 by IRET to 1b:7000 with the stack 23:6000.
    pub(crate) fn enter_user(&mut self, flags: u64) {
        for (n, value) in [0x7000, 0x1b, flags, 0x6000, 0x23].into_iter().enumerate() {
            self.put(0x8000 + 4 * n as u64, 4, value);
        }
        self.set(index::RSP, 0x8000);
        assert_eq!(self.call(INTERRUPT_RETURN, [4, 0, 0, 0]), Err(Trap::Leave));
        assert_eq!(self.core.arch.cpl, 3);
    }

    /// 64-bit mode, CPL 0, all of RAM mapped one to one by 2M pages (user, writable). PML4 at 10000h.
    pub(crate) fn long() -> Bench {
        let mut b = Bench::protected();
        b.put(0x10000, 8, 0x11007);
        b.put(0x11000, 8, 0x12007);
        for n in 0..8 {
            b.put(0x12000 + 8 * n, 8, n << 21 | 0x87);
        }
        b.core.arch.cr4 = cr4::PAE;
        b.core.arch.cr3 = 0x10000;
        b.wrmsr(0xc000_0080, efer::LME | efer::NXE | efer::SCE)
            .unwrap();
        let on = cr0::PE | cr0::PG | cr0::WP;
        assert_eq!(b.call(WRITE_CR, [0, on, 0x5000, 0]), Err(Trap::Leave));
        b.far_jump(0x38, 0x5000, 4);
        assert!(b.core.arch.is_64());
        b
    }

    /// A 64-bit gate.
    pub(crate) fn gate_64(&self, vector: u8, kind: u64, dpl: u64, ist: u64, offset: u64) {
        let value = offset & 0xffff
            | 0x38 << 16
            | ist << 32
            | (0x80 | dpl << 5 | kind) << 40
            | (offset >> 16 & 0xffff) << 48;
        let at = 0x2000 + 16 * u64::from(vector);
        self.put(at, 8, value);
        self.put(at + 8, 8, offset >> 32);
    }

    pub(crate) fn wrmsr(&mut self, msr: u64, value: u64) -> Result<u64, Trap> {
        self.set(index::RCX, msr);
        self.set(index::RAX, value & 0xffff_ffff);
        self.set(index::RDX, value >> 32);
        match self.call(WRMSR, [0; 4]) {
            Err(Trap::Leave) => Ok(0),
            other => other,
        }
    }

    pub(crate) fn rdmsr(&mut self, msr: u64) -> Result<u64, Trap> {
        self.set(index::RCX, msr);
        self.call(RDMSR, [0; 4])?;
        Ok(self.gpr(index::RDX) << 32 | self.gpr(index::RAX))
    }
}
