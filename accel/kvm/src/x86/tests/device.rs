//! The host's own `/dev/kvm` with a few instructions in real mode, which every KVM runs.

use std::io::Write;

use hw_clock::Clock;
use hw_memory::{
    Access, AccessSizes, ByteOrder, Doorbell, Fault, IoRegion, MappingSpec, RegionId, RungBell,
    What,
};
use runtime::EventFd;
use target_x86::system::{CpuModel, Topology};

use super::super::{Host, KvmVcpu, Parts, Vm};
use super::*;

const RAM: u64 = 1 << 16;
/// Where the program goes; the reset vector jumps there.
const PROGRAM: u64 = 0x1000;
/// A write to this port ends the program.
const END: u16 = 0xf4;
const BELL: u64 = 0x100;

/// A machine with 64 KiB of memory and one vCPU.
pub(super) struct Machine {
    pub(super) vm: Arc<Vm>,
    pub(super) vcpu: KvmVcpu,
    pub(super) ram: Arc<RamBlock>,
    pub(super) seen: Shared,
    ports: MemoryMap,
}

/// The host's KVM, or a loud word that there is none: nothing can be installed against that.
pub(super) fn host(mode: Mode) -> Option<Host> {
    match Host::open(mode) {
        Ok(host) => Some(host),
        Err(error) => {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {error}");
            None
        }
    }
}

impl Machine {
    pub(super) fn new(mode: Mode, program: &[u8]) -> Option<Self> {
        let host = host(mode)?;
        let (model, _) = CpuModel::parse("qemu64,+x2apic", &host.features(), true).unwrap();
        let vm = Vm::new(host).unwrap();
        let memory = MemoryMap::default();
        let ports = MemoryMap::default();
        let block = Arc::new(RamBlock::new("ram", RAM).unwrap());
        memory.add(ram(&block, 0, 0, RAM));
        memory.add(ram(&block, 0xffff_0000, 0, RAM));
        // jmp 0:PROGRAM
        block.write(0xfff0, &[0xea, 0x00, 0x10, 0, 0]).unwrap();
        block.write(PROGRAM, program).unwrap();
        vm.attach(&memory, &ports).unwrap();
        let seen = Shared::default();
        let topology = Topology {
            sockets: 1,
            dies: 1,
            cores: 1,
            threads: 1,
        };
        let parts = Parts {
            index: 0,
            apic_id: 0,
            model: Arc::new(model),
            topology,
            paravirtual: false,
            port: Box::new(Board(seen.clone())),
            memory,
            clock: Clock::manual().0,
            chips: Arc::new(Models(seen.clone())),
            requests: Requests::default(),
        };
        let vcpu = KvmVcpu::new(&vm, parts).unwrap();
        Some(Machine {
            vm,
            vcpu,
            ram: block,
            seen,
            ports,
        })
    }

    /// Runs to the write to [`END`].
    pub(super) fn run(&mut self) {
        use accel_core::Vcpu;
        while !self.seen.lock().unwrap().outs.iter().any(|o| o.0 == END) {
            assert_eq!(self.vcpu.run(), VcpuExit::Again);
        }
        self.seen.lock().unwrap().outs.retain(|o| o.0 != END);
    }
}

/// Registers with one doorbell: 16 bits at offset 0, value 1.
struct Ring(EventFd);

impl IoRegion for Ring {
    fn read(&self, _: Access) -> Result<u64, Fault> {
        Err(Fault::WriteOnly)
    }
    fn write(&self, _: Access, _: u64) -> Result<(), Fault> {
        Ok(())
    }
    fn doorbells(&self, region: RegionId) -> Vec<RungBell> {
        let place = Doorbell {
            region,
            offset: 0,
            size: Some(2),
            value: Some(1),
        };
        let event = self.0.fd().clone();
        vec![RungBell { place, event }]
    }
}

#[test]
fn a_doorbell_sets_its_event_without_an_exit_where_it_is_mapped() {
    let program = [
        0xba, 0x00, 0x01, // mov dx, BELL
        0xb8, 0x02, 0x00, 0xef, // mov ax, 2; out dx, ax
        0xb8, 0x01, 0x00, 0xef, // mov ax, 1; out dx, ax
        0xe6, 0xf4, // out END, al
        0xeb, 0xf1, // jmp to the start
    ];
    let Some(mut machine) = Machine::new(Mode::User, &program) else {
        return;
    };
    let event = EventFd::new().unwrap();
    let mapping = machine.ports.add(MappingSpec {
        name: "bell".into(),
        base: 0x800,
        len: 4,
        priority: 0,
        enabled: true,
        what: What::Io {
            io: Arc::new(Ring(event.clone())),
            region: RegionId(0),
            order: ByteOrder::Little,
            sizes: AccessSizes::UP_TO_4,
        },
    });
    let bell = BELL as u16;
    let outs = |machine: &mut Machine| {
        machine.run();
        std::mem::take(&mut machine.seen.lock().unwrap().outs)
    };
    assert_eq!(outs(&mut machine), [(bell, 2, 2), (bell, 2, 1)]);
    assert!(!event.take());
    mapping.place(BELL, true);
    assert_eq!(outs(&mut machine), [(bell, 2, 2)]);
    assert!(event.take());
    mapping.set_enabled(false);
    assert_eq!(outs(&mut machine), [(bell, 2, 2), (bell, 2, 1)]);
    assert!(!event.take());
}

#[test]
fn a_message_sent_again_is_one_write_to_its_irqfd() {
    use hw_core::MsiSink;
    let program = [
        0xfa, // cli
        0xc7, 0x06, 0x00, 0x01, 0x00, 0x11, // mov word [4 * 40h], HANDLER
        0xc7, 0x06, 0x02, 0x01, 0x00, 0x00, // mov word [4 * 40h + 2], 0
        0xbc, 0x00, 0x80, // mov sp, 8000h
        0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx, IA32_APIC_BASE
        0x0f, 0x32, // rdmsr
        0x80, 0xcc, 0x0c, // or ah, 0ch: x2APIC
        0x0f, 0x30, // wrmsr
        0x66, 0xb9, 0x0f, 0x08, 0x00, 0x00, // mov ecx, IA32_X2APIC_SIVR
        0x66, 0xb8, 0xff, 0x01, 0x00, 0x00, // mov eax, 1ffh: enabled
        0x66, 0x31, 0xd2, // xor edx, edx
        0x0f, 0x30, // wrmsr
        0xe6, 0xf4, // out END, al
        0xfb, // sti
        0xeb, 0xfe, // jmp to itself
    ];
    let handler = [
        0x66, 0xb9, 0x0b, 0x08, 0x00, 0x00, // mov ecx, IA32_X2APIC_EOI
        0x66, 0x31, 0xc0, // xor eax, eax
        0x0f, 0x30, // wrmsr
        0xe6, 0xf4, // out END, al
        0xcf, // iret
    ];
    for mode in [Mode::Kernel, Mode::Split] {
        let Some(mut machine) = Machine::new(mode, &program) else {
            return;
        };
        machine.ram.write(0x1100, &handler).unwrap();
        machine.run();
        for _ in 0..3 {
            machine.vm.message(0xfee0_0000, 0x40, 0);
            machine.run();
            assert_eq!(machine.vm.irqfds(), 1, "{mode:?}");
        }
        // Another guest programs other messages.
        accel_core::Vcpu::reset(&mut machine.vcpu);
        assert_eq!(machine.vm.irqfds(), 0, "{mode:?}");
    }
}

#[test]
fn the_dirty_log_tells_what_the_guest_wrote_since_it_was_asked() {
    let program = [
        0xff, 0x06, 0x00, 0x20, // inc word [0x2000]
        0xe6, 0xf4, // out END, al
        0xff, 0x06, 0x00, 0x50, // inc word [0x5000]
        0xe6, 0xf4, // out END, al
        0xeb, 0xfe, // jmp to itself
    ];
    let Some(mut machine) = Machine::new(Mode::User, &program) else {
        return;
    };
    let dirty = |machine: &Machine| {
        machine.vm.sync_dirty();
        machine.ram.take_dirty()
    };
    // Before the log is on, nothing is noted.
    machine.vm.set_dirty_log(true).unwrap();
    machine.ram.log_dirty();
    assert_eq!(dirty(&machine), [0]);
    machine.run();
    assert_eq!(dirty(&machine), [1 << 2]);
    assert_eq!(dirty(&machine), [0]);
    machine.run();
    // Devices write through the block itself: both are told.
    machine.ram.write(0x7000, &[1]).unwrap();
    assert_eq!(dirty(&machine), [1 << 5 | 1 << 7]);
    machine.vm.set_dirty_log(false).unwrap();
    assert_eq!(machine.ram.load(0x2000, 2), Some(1));
}

#[test]
fn the_kernels_timer_ticks_rests_and_goes_on() {
    let program = [
        0xfa, // cli
        0xc7, 0x06, 0x20, 0x00, 0x00, 0x11, // mov word [4 * 8], HANDLER
        0xc7, 0x06, 0x22, 0x00, 0x00, 0x00, // mov word [4 * 8 + 2], 0
        0xbc, 0x00, 0x80, // mov sp, 8000h
        0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx, IA32_APIC_BASE
        0x0f, 0x32, // rdmsr
        0x80, 0xcc, 0x0c, // or ah, 0ch: x2APIC
        0x0f, 0x30, // wrmsr
        0x66, 0xb9, 0x0f, 0x08, 0x00, 0x00, // mov ecx, IA32_X2APIC_SIVR
        0x66, 0xb8, 0xff, 0x01, 0x00, 0x00, // mov eax, 1ffh: enabled
        0x66, 0x31, 0xd2, // xor edx, edx
        0x0f, 0x30, // wrmsr
        0x66, 0xb9, 0x35, 0x08, 0x00, 0x00, // mov ecx, IA32_X2APIC_LVT_LINT0
        0x66, 0xb8, 0x00, 0x07, 0x00, 0x00, // mov eax, 700h: ExtINT
        0x0f, 0x30, // wrmsr
        0xb0, 0x11, 0xe6, 0x20, // ICW1
        0xb0, 0x08, 0xe6, 0x21, // ICW2: vectors from 8
        0xb0, 0x04, 0xe6, 0x21, // ICW3
        0xb0, 0x01, 0xe6, 0x21, // ICW4
        0xb0, 0xfe, 0xe6, 0x21, // all masked but the timer
        0xb0, 0x03, 0xe6, 0x61, // speaker: gate and data
        0xb0, 0x34, 0xe6, 0x43, // counter 0: two bytes, mode 2
        0xb0, 0xa9, 0xe6, 0x40, // 1193: 1 kHz
        0xb0, 0x04, 0xe6, 0x40, //
        0xfb, // sti
        0xeb, 0xfe, // jmp to itself
    ];
    let handler = [
        0xe4, 0x61, // in al, 61h
        0xe6, 0xf5, // out 0f5h, al
        0xb0, 0x20, 0xe6, 0x20, // end of interrupt
        0xe6, 0xf4, // out END, al
        0xcf, // iret
    ];
    let Some(mut machine) = Machine::new(Mode::Kernel, &program) else {
        return;
    };
    machine.ram.write(0x1100, &handler).unwrap();
    let pit = machine.vm.pit().unwrap().unwrap();
    pit.set_catch_up(true).unwrap();
    pit.put(&hw_intc::I8254State::default(), false).unwrap();
    let ticks = |machine: &mut Machine| {
        for _ in 0..3 {
            machine.run();
            let outs = std::mem::take(&mut machine.seen.lock().unwrap().outs);
            let [(0xf5, 1, port_61)] = outs[..] else {
                panic!("{outs:?}");
            };
            assert_eq!(port_61 & 3, 3);
        }
    };
    ticks(&mut machine);
    let now = 1 << 40;
    let mut state = pit.get(now).unwrap();
    let [counter, refresh, speaker] = &state.channels;
    assert_eq!((counter.mode, counter.reload, counter.access), (2, 1193, 3));
    assert_eq!(counter.loaded_at, Some(now));
    assert_eq!((refresh.gate, speaker.gate), (true, true));
    pit.put(&state, false).unwrap();
    let idle = pit.get(now).unwrap();
    assert_eq!(idle.channels[0].loaded_at, None);
    assert_eq!(idle.channels[0].mode, 2);
    state.fires_at = Some(now);
    pit.put(&state, false).unwrap();
    ticks(&mut machine);
}
