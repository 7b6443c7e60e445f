//! The parts that need no KVM: the run loop against a script; registers and controllers that are lists.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use accel_core::{Pending, VcpuExit, reason};
use hw_core::{Request, Requests};
use hw_memory::{MemoryMap, PAGE_SIZE, RamBlock};

use super::run::{ArmLoop, Undescribed};
use crate::bus::Bus;
use crate::exit::{Entry, Exit};
use crate::run::{Loop, Parts};
use crate::tests::ram;

mod controller;
mod state;

#[derive(Default)]
struct Script {
    exits: VecDeque<Exit<Undescribed>>,
    answers: Vec<[u8; 8]>,
    completed: u32,
}

impl Entry for Script {
    type Own = Undescribed;

    fn enter(&mut self, pending: &Pending) -> io::Result<Option<Exit<Undescribed>>> {
        if pending.get() != 0 {
            return Ok(None);
        }
        Ok(Some(self.exits.pop_front().unwrap_or(Exit::Intr)))
    }

    fn complete(&mut self) -> io::Result<Exit<Undescribed>> {
        self.completed += 1;
        Ok(Exit::Intr)
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        self.answers.push(data);
    }
}

fn bench<const N: usize>(exits: [Exit<Undescribed>; N]) -> ArmLoop<Script> {
    let memory = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", PAGE_SIZE).unwrap());
    block.write(0, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    memory.add(ram(&block, 0x1000, 0, PAGE_SIZE));
    let bus = Bus {
        index: 1,
        snapshot: memory.snapshot(),
        memory,
        requests: Requests::default(),
        void: 0,
    };
    let entry = Script {
        exits: exits.into(),
        ..Script::default()
    };
    ArmLoop {
        parts: Parts::new(entry, bus, Arc::default()),
    }
}

fn access(write: bool, address: u64, data: u64) -> Exit<Undescribed> {
    Exit::Mmio {
        write,
        address,
        len: 4,
        data: data.to_le_bytes(),
    }
}

#[test]
fn devices_are_reached_and_nothing_reads_as_zeros() {
    let reads = [0x1002, 0x9000].map(|address| access(false, address, 0));
    let [here, nowhere] = reads.clone();
    let mut run = bench([access(true, 0x1002, 0xbeef), here, nowhere]);
    (0..3).for_each(|_| assert_eq!(run.step(), VcpuExit::Again));
    let answers = &run.parts.entry.answers;
    assert_eq!(answers[0][..4], [0xef, 0xbe, 0, 0]);
    assert_eq!(answers[1][..4], [0; 4]);
}

#[test]
fn an_exit_with_nothing_of_the_guests_goes_on() {
    let mut run = bench([Exit::Intr, Exit::Debug, access(false, 0x1000, 0)]);
    (0..3).for_each(|_| assert_eq!(run.step(), VcpuExit::Again));
    assert_eq!(run.parts.entry.answers.len(), 1);
}

#[test]
fn stopping_completes_the_last_access_once() {
    let mut run = bench([access(true, 0x1000, 0)]);
    run.step();
    run.parts.pending.raise(reason::STOP);
    assert_eq!(run.step(), VcpuExit::Stopped);
    assert_eq!(run.step(), VcpuExit::Stopped);
    assert_eq!(run.parts.entry.completed, 1);
}

#[test]
fn what_controllers_in_user_space_raise_keeps_no_cpu_out_of_the_guest() {
    let mut run = bench([access(false, 0x1000, 0)]);
    run.parts.pending.raise(reason::INTR | reason::SIPI);
    run.step();
    assert_eq!(run.parts.entry.answers.len(), 1);
}

#[test]
fn psci_of_the_kernel_asks_for_power_off_and_reset() {
    let mut run = bench([Exit::SystemEvent(1), Exit::SystemEvent(2)]);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let list = asked.clone();
    let note = move |request| list.lock().unwrap().push(request);
    run.parts.bus.requests.connect(note);
    run.step();
    run.step();
    assert_eq!(*asked.lock().unwrap(), [Request::PowerOff, Request::Reset]);
}

#[test]
fn an_access_that_the_processor_does_not_describe_is_told_with_its_address() {
    let exit = Undescribed {
        address: 0x900_0000,
        place: "pc 0x40".into(),
    };
    let mut run = bench([Exit::Own(exit)]);
    let VcpuExit::Failed(why) = run.step() else {
        panic!("went on");
    };
    assert!(why.starts_with("CPU 1: the guest reaches for a device at 0x9000000"));
    assert!(why.ends_with("(pc 0x40)"), "{why}");
}

/// Values by number, as the kernel keeps them; those named refuse to be written.
#[derive(Default)]
struct Values {
    map: RefCell<BTreeMap<u64, u128>>,
    fixed: Vec<u64>,
}
