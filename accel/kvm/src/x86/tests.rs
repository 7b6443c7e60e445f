//! The parts that need no KVM: the run loop against a script, conversions.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use accel_core::{Pending, VcpuExit, reason};
use hw_core::Requests;
use hw_intc::{I8259State, IoApicState, LapicState};
use hw_memory::{MemoryMap, PAGE_SIZE, RamBlock};
use target_x86::Port;
use target_x86::system::CpuState;

use super::exit::{Entry, Exit as Own, Flags};
use super::run::{Board as Wires, PcLoop};
use super::{Chips, Mode};
use crate::bus::Bus;
use crate::exit::{self, Exit};
use crate::run::Loop;
use crate::tests::ram;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod device;

/// What the script and the board saw.
#[derive(Default)]
struct Seen {
    outs: Vec<(u16, u8, u32)>,
    ins: Vec<u16>,
    injected: Vec<u8>,
    windows: Vec<bool>,
    nmis: u32,
    completed: u32,
    eois: Vec<u8>,
    mmio: Vec<[u8; 8]>,
    msrs: Vec<Option<u64>>,
    /// Vectors the interrupt controller has.
    vectors: VecDeque<u8>,
    cr8: u64,
    state: CpuState,
}

type Shared = Arc<Mutex<Seen>>;

struct Script {
    seen: Shared,
    exits: VecDeque<Exit<Own>>,
    data: Vec<u8>,
    flags: Flags,
    late: u32,
}

impl exit::Entry for Script {
    type Own = Own;

    fn enter(&mut self, pending: &Pending) -> io::Result<Option<Exit<Own>>> {
        // Comes between the look at what is pending and the entry, as it may from another thread.
        pending.raise(std::mem::take(&mut self.late));
        if pending.get() != 0 {
            return Ok(None);
        }
        Ok(Some(self.exits.pop_front().unwrap_or(Exit::Intr)))
    }
    fn complete(&mut self) -> io::Result<Exit<Own>> {
        self.seen.lock().unwrap().completed += 1;
        Ok(Exit::Intr)
    }
    fn answer_mmio(&mut self, data: [u8; 8]) {
        self.seen.lock().unwrap().mmio.push(data);
    }
}

impl Entry for Script {
    fn io_data(&mut self) -> &mut [u8] {
        &mut self.data
    }
    fn answer_msr(&mut self, value: Option<u64>) {
        self.seen.lock().unwrap().msrs.push(value);
    }
    fn flags(&mut self) -> Flags {
        self.flags
    }
    fn set_window(&mut self, wanted: bool) {
        self.seen.lock().unwrap().windows.push(wanted);
    }
    fn set_cr8(&mut self, _: u64) {}
    fn interrupt(&mut self, vector: u8) -> io::Result<()> {
        self.seen.lock().unwrap().injected.push(vector);
        Ok(())
    }
    fn nmi(&mut self) -> io::Result<()> {
        self.seen.lock().unwrap().nmis += 1;
        Ok(())
    }
    fn change(&mut self, change: &mut dyn FnMut(&mut CpuState)) -> io::Result<()> {
        change(&mut self.seen.lock().unwrap().state);
        Ok(())
    }
}

struct Board(Shared);

impl Port for Board {
    fn io_in(&mut self, _: u32, port: u16, _: u8) -> u32 {
        let mut seen = self.0.lock().unwrap();
        seen.ins.push(port);
        0x1122_3300 + seen.ins.len() as u32
    }
    fn io_out(&mut self, _: u32, port: u16, size: u8, value: u32) {
        self.0.lock().unwrap().outs.push((port, size, value));
    }
    fn ack(&mut self) -> Option<u8> {
        self.0.lock().unwrap().vectors.pop_front()
    }
    fn has_interrupt(&mut self) -> bool {
        !self.0.lock().unwrap().vectors.is_empty()
    }
    fn cr8(&mut self) -> u64 {
        self.0.lock().unwrap().cr8
    }
    fn set_cr8(&mut self, value: u64) {
        self.0.lock().unwrap().cr8 = value;
    }
    fn apic_read(&mut self, msr: u32) -> Option<u64> {
        (msr == 0x802).then_some(7)
    }
    fn apic_write(&mut self, _: u32, _: u64) -> Option<()> {
        None
    }
    fn tsc_deadline(&mut self) -> u64 {
        0
    }
    fn set_tsc_deadline(&mut self, _: u64, _: u64) {}
    fn sipi_vector(&mut self) -> u8 {
        0x9a
    }
    fn init(&mut self) {}
    fn a20(&self) -> bool {
        true
    }
}

struct Models(Shared);

impl Chips for Models {
    fn lapic(&self, cpu: u32) -> LapicState {
        LapicState::new(cpu, cpu == 0)
    }
    fn set_lapic(&self, _: u32, _: &LapicState) {}
    fn pic(&self) -> Option<I8259State> {
        None
    }
    fn set_pic(&self, _: I8259State) {}
    fn ioapic(&self) -> IoApicState {
        IoApicState::default()
    }
    fn set_ioapic(&self, _: IoApicState) {}
    fn eoi(&self, vector: u8) {
        self.0.lock().unwrap().eois.push(vector);
    }
}

fn bench(mode: Mode, index: u32, exits: Vec<Exit<Own>>, data: &[u8]) -> (PcLoop<Script>, Shared) {
    let seen = Shared::default();
    let memory = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", PAGE_SIZE).unwrap());
    block.write(0, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    memory.add(ram(&block, 0x1000, 0, PAGE_SIZE));
    let entry = Script {
        seen: seen.clone(),
        exits: exits.into(),
        data: data.to_vec(),
        flags: Flags::default(),
        late: 0,
    };
    let bus = Bus {
        index,
        snapshot: memory.snapshot(),
        memory,
        requests: Requests::default(),
        void: 0xff,
    };
    let board = Wires {
        port: Box::new(Board(seen.clone())),
        chips: Arc::new(Models(seen.clone())),
    };
    let initial = CpuState {
        rip: 0xfff0,
        ..CpuState::default()
    };
    let pending = Arc::default();
    (PcLoop::new(entry, bus, board, mode, pending, initial), seen)
}

fn io(write: bool, size: u8, count: u32) -> Exit<Own> {
    Exit::Own(Own::Io {
        write,
        port: 0x3f8,
        size,
        count,
    })
}

#[test]
fn a_repeated_out_is_as_many_writes() {
    let (mut run, seen) = bench(Mode::Kernel, 0, vec![io(true, 2, 3)], &[1, 0, 2, 0, 3, 1]);
    assert_eq!(run.step(), VcpuExit::Again);
    let outs = &seen.lock().unwrap().outs;
    assert_eq!(*outs, [(0x3f8, 2, 1), (0x3f8, 2, 2), (0x3f8, 2, 0x103)]);
}

#[test]
fn a_repeated_in_fills_each_value() {
    let (mut run, seen) = bench(Mode::Kernel, 0, vec![io(false, 4, 2)], &[0; 8]);
    run.step();
    assert_eq!(seen.lock().unwrap().ins.len(), 2);
    assert_eq!(
        run.parts.entry.data,
        [1, 0x33, 0x22, 0x11, 2, 0x33, 0x22, 0x11]
    );
}

#[test]
fn memory_behind_no_slot_is_answered_by_the_map_and_nothing_reads_as_ones() {
    let read = |address, len| Exit::Mmio {
        write: false,
        address,
        len,
        data: [0; 8],
    };
    let exits = vec![read(0x1000, 4), read(0x1001, 3), read(0x9000, 8)];
    let (mut run, seen) = bench(Mode::Kernel, 0, exits, &[]);
    (0..3).for_each(|_| assert_eq!(run.step(), VcpuExit::Again));
    let mmio = &seen.lock().unwrap().mmio;
    assert_eq!(mmio[0][..4], [1, 2, 3, 4]);
    assert_eq!(mmio[1][..3], [2, 3, 4]);
    assert_eq!(mmio[2], [0xff; 8]);
}

#[test]
fn stopping_completes_the_last_instruction_once() {
    let (mut run, seen) = bench(Mode::Kernel, 0, vec![io(true, 1, 1)], &[0]);
    run.step();
    run.parts.pending.raise(reason::STOP);
    assert_eq!(run.step(), VcpuExit::Stopped);
    assert_eq!(run.step(), VcpuExit::Stopped);
    assert_eq!(seen.lock().unwrap().completed, 1);
}

#[test]
fn an_interrupt_waits_for_its_window() {
    let (mut run, seen) = bench(
        Mode::User,
        0,
        vec![Exit::Intr, Exit::Own(Own::IrqWindowOpen)],
        &[],
    );
    seen.lock().unwrap().vectors.push_back(0x30);
    run.parts.pending.raise(reason::INTR);
    run.step();
    assert_eq!(seen.lock().unwrap().windows, [true]);
    assert!(seen.lock().unwrap().injected.is_empty());
    run.parts.entry.flags.ready = true;
    run.step();
    run.step();
    assert_eq!(seen.lock().unwrap().injected, [0x30]);
    assert_eq!(seen.lock().unwrap().windows, [true, true, false]);
}

#[test]
fn an_interrupt_is_not_injected_over_one_that_has_not_entered() {
    let (mut run, seen) = bench(Mode::User, 0, vec![Exit::Intr, Exit::Intr], &[]);
    run.parts.entry.flags.ready = true;
    run.step();
    seen.lock().unwrap().vectors.extend([0x30, 0x31]);
    run.parts.pending.raise(reason::INTR);
    run.parts.entry.late = reason::INTR;
    run.step();
    assert_eq!(seen.lock().unwrap().injected, [0x30]);
    // The kernel still holds the first one, whatever it said before it got it.
    run.step();
    assert_eq!(seen.lock().unwrap().injected, [0x30]);
    run.step();
    assert_eq!(seen.lock().unwrap().injected, [0x30, 0x31]);
}

#[test]
fn a_halted_cpu_with_interrupts_enabled_is_woken() {
    let (mut run, seen) = bench(Mode::User, 0, vec![Exit::Own(Own::Hlt)], &[]);
    run.parts.entry.flags.interrupts = true;
    run.step();
    assert!(run.halted);
    seen.lock().unwrap().vectors.push_back(0x30);
    run.parts.pending.raise(reason::INTR);
    run.step();
    assert!(!run.halted);
}

#[test]
fn a_halted_cpu_stops_when_told() {
    let (mut run, _) = bench(Mode::User, 0, vec![Exit::Own(Own::Hlt)], &[]);
    run.step();
    run.parts.pending.raise(reason::STOP);
    assert_eq!(run.step(), VcpuExit::Stopped);
    assert!(run.halted);
}

#[test]
fn cr8_goes_to_the_local_apic() {
    let (mut run, seen) = bench(Mode::User, 0, vec![Exit::Intr], &[]);
    run.parts.entry.flags.cr8 = 9;
    run.step();
    assert_eq!(seen.lock().unwrap().cr8, 9);
}

#[test]
fn init_and_start_up_put_an_application_processor_into_real_mode() {
    let (mut run, seen) = bench(Mode::User, 1, vec![], &[]);
    seen.lock().unwrap().state.mxcsr = 0x1fbf;
    run.parts.pending.raise(reason::INIT | reason::SIPI);
    run.step();
    let state = seen.lock().unwrap().state.clone();
    assert!(!run.wait_for_sipi);
    assert_eq!((state.rip, state.segments[1].selector), (0, 0x9a00));
    assert_eq!(state.segments[1].base, 0x9_a000);
    assert_eq!(state.mxcsr, 0x1fbf);
}

#[test]
fn an_nmi_is_injected_and_a_level_end_reaches_the_ioapic() {
    let (mut run, seen) = bench(Mode::Split, 0, vec![Exit::Own(Own::IoapicEoi(0x41))], &[]);
    run.parts.pending.raise(reason::NMI);
    run.step();
    assert_eq!(seen.lock().unwrap().nmis, 1);
    assert_eq!(seen.lock().unwrap().eois, [0x41]);
}

#[test]
fn only_msrs_of_our_own_local_apic_are_answered() {
    let read = |index| Exit::Own(Own::Msr { index, write: None });
    let (mut run, seen) = bench(Mode::User, 0, vec![read(0x802), read(0x1234)], &[]);
    run.step();
    run.step();
    assert_eq!(seen.lock().unwrap().msrs, [Some(7), None]);
}

#[test]
fn dead_ends_are_told_and_never_entered_again() {
    let exits = vec![Exit::Own(Own::Shutdown), Exit::Failed("why".into())];
    let (mut run, _) = bench(Mode::Kernel, 3, exits, &[]);
    assert_eq!(run.step(), VcpuExit::Shutdown);
    assert_eq!(run.step(), VcpuExit::Failed("CPU 3: why".into()));
}

#[test]
fn system_events_are_requests_and_unknown_ones_failures() {
    let exits = vec![Exit::SystemEvent(2), Exit::SystemEvent(99)];
    let (mut run, _) = bench(Mode::Kernel, 0, exits, &[]);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let list = asked.clone();
    run.parts
        .bus
        .requests
        .connect(move |request| list.lock().unwrap().push(request));
    assert_eq!(run.step(), VcpuExit::Again);
    assert_eq!(*asked.lock().unwrap(), [hw_core::Request::Reset]);
    assert!(matches!(run.step(), VcpuExit::Failed(_)));
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod conversions {
    use proptest::prelude::*;
    use target_x86::system::CpuState;
    use target_x86::{Exception, Segment};

    use super::super::chips::{pic_of, pic_to};
    use super::super::pit::{channel_of, channel_to};
    use super::super::registers::{segment_of, segment_to};
    use super::super::state::*;

    proptest! {
        #[test]
        fn segments_come_back(selector: u16, base: u64, limit: u32, attributes in 0u16..0x1000) {
            // Type, S, DPL, P, and AVL, L, D/B, G.
            let attributes = attributes & 0xff | (attributes & 0xf00) << 4;
            let segment = Segment { selector, base, limit, attributes };
            let back = segment_of(&segment_to(&segment));
            prop_assert_eq!(back, segment);
        }

        #[test]
        fn x87_and_sse_come_back(top in 0u8..8, words: [u64; 8], xmm: [u128; 16], tail in 1u8..) {
            let mut full = Full { extended: Some((4, vec![0, 7, tail])), ..Full::default() };
            full.cpu.x87.top = top;
            full.cpu.xmm = xmm;
            for (register, word) in full.cpu.x87.registers.iter_mut().zip(words) {
                (register.sig, register.se) = (word, word as u16);
            }
            let mut back = Full::default();
            image_of(&image_to(&full), &mut back);
            prop_assert_eq!(back, full);
        }

        #[test]
        fn noted_events_come_back(vector: u8, error: Option<u32>, shadow: bool, blocked: bool) {
            let software = matches!(vector, 3 | 4);
            let error = error.filter(|_| vector < 32 && vector != 2);
            let mut full = Full::default();
            full.cpu.exception = Some(Exception { vector, error, address: None, software });
            (full.cpu.shadow, full.cpu.nmi_blocked) = (shadow, blocked);
            let mut back = Full::default();
            events_of(&events_to(&full), &mut back);
            prop_assert_eq!(back, full);
        }

        #[test]
        fn an_i8259_comes_back(bytes: [u8; 7], flags: [bool; 5]) {
            let [lines, irr, imr, isr, elcr, priority_add, irq_base] = bytes;
            let [auto_eoi, special_mask, poll, reads_isr, has_icw4] = flags;
            let chip = hw_intc::I8259Chip {
                lines, irr, imr, isr, elcr, irq_base,
                priority_add: priority_add & 7,
                auto_eoi, special_mask, poll, reads_isr, has_icw4,
                expects_icw: 3,
                ..Default::default()
            };
            prop_assert_eq!(pic_of(&pic_to(&chip, 0xf8), &chip), chip);
        }

        #[test]
        fn an_i8254_counter_comes_back(
            mode in 0u8..6,
            access in 1u8..4,
            reload: u16,
            flags: [bool; 4],
            write_low: Option<u8>,
            latched_count: Option<u16>,
            latched_status: Option<u8>,
            age in 0u64..1000,
        ) {
            let [bcd, gate, read_high, is_idle] = flags;
            let now = 1 << 20;
            let counts = !is_idle && (gate || !matches!(mode, 0 | 2 | 3 | 4));
            let counter = hw_intc::I8254Channel {
                mode, access, reload, bcd, gate, latched_count, latched_status,
                read_high: read_high && access == 3,
                write_low: write_low.filter(|_| access == 3),
                loaded_at: counts.then_some(now - age),
                ..Default::default()
            };
            let mut back = channel_of(&channel_to(&counter, is_idle), now, age);
            if matches!(mode, 0 | 4) && !counts {
                // Where such a counter is is not asked of the kernel: here, past its end.
                prop_assert_eq!(back.counted > 0x1_0000, is_idle);
                (back.counted, back.loaded_at) = (0, None);
            }
            prop_assert_eq!(back, counter);
        }
    }

    #[test]
    fn general_registers_keep_their_places() {
        let mut state = CpuState::default();
        for (n, gpr) in state.gprs.iter_mut().enumerate() {
            *gpr = n as u64;
        }
        let regs = regs_to(&state);
        assert_eq!((regs.rcx, regs.rbx, regs.rsp, regs.r15), (1, 3, 4, 15));
        let mut back = CpuState::default();
        regs_of(&regs, &mut back);
        assert_eq!(back.gprs, state.gprs);
    }

    #[test]
    fn a_mutated_section_is_an_error() {
        let section = Full {
            extended: Some((4, vec![1; 4000])),
            ..Full::default()
        }
        .save();
        assert!(Full::load(&section).is_err());
        let good = Full {
            extended: Some((4, vec![1; 256])),
            sipi_vector: 9,
            ..Full::default()
        };
        assert_eq!(Full::load(&good.save()).unwrap(), good);
    }
}
