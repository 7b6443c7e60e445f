use super::*;
use crate::{I8259, I8259Device, IOAPIC_BASE, IoApic, IoApicDevice, IsaLines};
use hw_core::{
    Attrs, ByteOrder, Fabric, Initiator, IrqHub, IrqSink, Msi, MsiSink, Part, Placement, ResetKind,
};
use hw_intc::{MSI_BASE, reg};
use proptest::prelude::*;
use std::sync::Mutex;

type Signals = Arc<Mutex<Vec<(u32, CpuSignal)>>>;

struct Bench {
    fabric: Fabric,
    time: Arc<hw_clock::ManualTime>,
    bus: Arc<ApicBus>,
    pic: Arc<I8259>,
    ioapic: Arc<IoApic>,
    lines: Arc<IsaLines>,
    apics: Arc<Part>,
    signals: Signals,
}

impl Bench {
    fn with_ids(ids: &[u32]) -> Self {
        let (clock, time) = Clock::manual();
        let fabric = Fabric::new(clock.clone());
        let bus = ApicBus::new(&clock, ids, true);
        let signals = Signals::default();
        for apic in bus.cpus() {
            let (seen, n) = (signals.clone(), apic.index());
            apic.connect(Arc::new(move |s| seen.lock().unwrap().push((n, s))));
        }
        fabric.set_msi(Msi::new(bus.clone(), 0));
        let (pic, ioapic) = (I8259::new(), IoApic::new());
        bus.connect_pic(&pic);
        bus.connect_ioapic(&ioapic);
        let at = |path: &str| Placement {
            path: path.into(),
            ..Placement::default()
        };
        let device = Box::new(ApicDevice::new(bus.clone()));
        let apics = fabric.add(device, at("apic")).unwrap();
        let device = Box::new(IoApicDevice::new(ioapic.clone(), IOAPIC_BASE));
        fabric.add(device, at("ioapic")).unwrap();
        let pins = [("intr", IrqHub::new(bus.clone(), LINT0))];
        let placement = Placement {
            pins: &pins,
            ..at("pic")
        };
        let device = Box::new(I8259Device::new(pic.clone()));
        fabric.add(device, placement).unwrap();
        let lines = IsaLines::new(Some(pic.clone()), Some(ioapic.clone()));
        fabric.reset(ResetKind::Cold);
        Bench {
            fabric,
            time,
            bus,
            pic,
            ioapic,
            lines,
            apics,
            signals,
        }
    }

    fn new(cpus: u32) -> Self {
        let b = Bench::with_ids(&(0..cpus).collect::<Vec<_>>());
        for n in 0..cpus {
            b.wr(n, reg::SVR, 0x1ff);
        }
        // The i8259 is not initialized and must not be heard.
        b.wr(0, reg::LVT + 3, 0x10700);
        b.signals();
        b
    }

    fn cpu(&self, n: u32) -> Arc<LocalApic> {
        self.bus.cpu(n).unwrap().clone()
    }

    fn write(&self, cpu: u32, address: u64, size: u8, value: u64) {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(cpu));
        let map = self.fabric.memory.snapshot();
        let _ = map.write(address, size, value, order, by, Attrs::default());
    }

    fn read(&self, cpu: u32, address: u64, size: u8) -> Option<u64> {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(cpu));
        let map = self.fabric.memory.snapshot();
        map.read(address, size, order, by, Attrs::default()).ok()
    }

    fn wr(&self, cpu: u32, number: u32, value: u32) {
        self.write(cpu, MSI_BASE + u64::from(number) * 16, 4, value.into());
    }

    fn rd(&self, cpu: u32, number: u32) -> u32 {
        let address = MSI_BASE + u64::from(number) * 16;
        self.read(cpu, address, 4).unwrap() as u32
    }

    /// An IPI as kernels send it.
    fn ipi(&self, cpu: u32, dest: u32, command: u32) {
        self.wr(cpu, reg::ICR_HIGH, dest << 24);
        self.wr(cpu, reg::ICR, command);
    }

    fn signals(&self) -> Vec<(u32, CpuSignal)> {
        std::mem::take(&mut self.signals.lock().unwrap())
    }

    fn pass_ns(&self, ns: u64) {
        self.time.advance_ns(ns);
        self.fabric.clock.run_timers();
    }

    fn ioapic_entry(&self, pin: u64, entry: u64) {
        for (index, value) in [(0x11 + pin * 2, entry >> 32), (0x10 + pin * 2, entry)] {
            self.write(0, IOAPIC_BASE, 4, index);
            self.write(0, IOAPIC_BASE + 0x10, 4, value & 0xffff_ffff);
        }
    }

    fn x2apic(&self, n: u32) {
        let apic = self.cpu(n);
        apic.set_apic_base(apic.apic_base() | base::EXTD).unwrap();
    }
}

#[test]
fn each_cpu_sees_its_own_registers() {
    let b = Bench::new(3);
    assert_eq!(b.rd(2, reg::ID), 2 << 24);
    assert_eq!(b.rd(1, reg::VERSION), 0x0105_0014);
    b.wr(1, reg::TPR, 0x50);
    assert_eq!((b.rd(0, reg::TPR), b.rd(1, reg::TPR)), (0, 0x50));
    assert_eq!(b.cpu(1).cr8(), 5);
    assert_eq!(b.cpu(0).apic_base(), 0xfee0_0900);
    assert_eq!(b.cpu(1).apic_base(), 0xfee0_0800);
}

#[test]
fn an_ipi_is_requested_taken_and_ended() {
    let b = Bench::new(2);
    b.ipi(0, 1, 0x4041);
    assert_eq!(b.signals(), [(1, CpuSignal::Intr)]);
    assert_eq!(b.cpu(1).pending_vector(), Some(0x41));
    assert_eq!(b.cpu(0).pending_vector(), None);
    assert_eq!(b.cpu(1).ack(), Some(0x41));
    assert_eq!(b.rd(1, reg::ISR + 2), 2);
    assert_eq!(b.rd(1, reg::PPR), 0x40);
    b.ipi(0, 1, 0x4042);
    assert_eq!(b.cpu(1).pending_vector(), None);
    b.signals();
    b.wr(1, reg::EOI, 0);
    assert_eq!(b.signals(), [(1, CpuSignal::Intr)]);
    assert_eq!(b.cpu(1).ack(), Some(0x42));
}

#[test]
fn a_higher_class_nests_and_the_task_priority_holds_back() {
    let b = Bench::new(1);
    let apic = b.cpu(0);
    b.ipi(0, 0, 0x4031);
    assert_eq!(apic.ack(), Some(0x31));
    b.ipi(0, 0, 0x4051);
    assert_eq!(apic.ack(), Some(0x51));
    b.wr(0, reg::EOI, 0);
    b.wr(0, reg::EOI, 0);
    apic.set_cr8(6);
    b.ipi(0, 0, 0x4061);
    b.signals();
    assert_eq!(apic.ack(), None);
    apic.set_cr8(5);
    assert_eq!(b.signals(), [(0, CpuSignal::Intr)]);
    assert_eq!(apic.ack(), Some(0x61));
}

#[test]
fn shorthands_reach_self_all_and_all_others() {
    let b = Bench::new(3);
    let pending = || -> Vec<bool> {
        (0..3)
            .map(|n| {
                b.cpu(n).ack().is_some_and(|_| {
                    b.wr(n, reg::EOI, 0);
                    true
                })
            })
            .collect()
    };
    b.wr(1, reg::ICR, 0x0004_4040);
    assert_eq!(pending(), [false, true, false]);
    b.wr(1, reg::ICR, 0x0008_4040);
    assert_eq!(pending(), [true, true, true]);
    b.wr(1, reg::ICR, 0x000c_4040);
    assert_eq!(pending(), [true, false, true]);
    b.ipi(0, 0xff, 0x4040);
    assert_eq!(pending(), [true, true, true]);
}

#[test]
fn logical_destinations_are_flat_or_clustered() {
    let b = Bench::new(4);
    for n in 0..4 {
        b.wr(n, reg::LDR, 1 << (24 + n));
    }
    b.ipi(0, 0b0110, 0x4850);
    let hit = || (0..4).map(|n| b.cpu(n).ack()).collect::<Vec<_>>();
    assert_eq!(hit(), [None, Some(0x50), Some(0x50), None]);
    for n in 0..4 {
        b.wr(n, reg::EOI, 0);
        b.wr(n, reg::DFR, 0x0fff_ffff);
        b.wr(n, reg::LDR, ((n / 2) << 28) | (1 << (24 + n % 2)));
    }
    b.ipi(0, 0x13, 0x4850);
    assert_eq!(hit(), [None, None, Some(0x50), Some(0x50)]);
}

#[test]
fn lowest_priority_takes_the_least_busy_and_shares_among_equals() {
    let b = Bench::new(2);
    for n in 0..2 {
        b.wr(n, reg::LDR, 1 << (24 + n));
    }
    b.wr(0, reg::TPR, 0x20);
    b.ipi(0, 3, 0x4950);
    assert_eq!((b.cpu(0).ack(), b.cpu(1).ack()), (None, Some(0x50)));
    b.wr(1, reg::EOI, 0);
    b.wr(0, reg::TPR, 0);
    b.ipi(0, 3, 0x4950);
    b.ipi(0, 3, 0x4951);
    assert_eq!((b.cpu(0).ack(), b.cpu(1).ack()), (Some(0x50), Some(0x51)));
}

#[test]
fn application_processors_start_by_init_and_start_up() {
    let b = Bench::new(2);
    assert!(b.cpu(1).waits_for_sipi());
    assert!(!b.cpu(0).waits_for_sipi());
    b.ipi(0, 1, 0xc500);
    b.ipi(0, 1, 0x8500);
    b.ipi(0, 1, 0x0699);
    b.ipi(0, 1, 0x0699);
    let seen = b.signals();
    assert_eq!(seen, [(1, CpuSignal::Init), (1, CpuSignal::Sipi(0x99))]);
    // A CPU that acts on its INIT only now does not wait again.
    b.cpu(1).init_reset();
    assert!(!b.cpu(1).waits_for_sipi());
    assert_eq!(b.rd(1, reg::SVR), 0xff);
    b.ipi(1, 0, 0x0600);
    assert_eq!(b.signals(), []);
}

#[test]
fn nmi_and_smi_pass_a_software_disabled_apic() {
    let b = Bench::new(2);
    b.wr(1, reg::SVR, 0xff);
    b.signals();
    b.ipi(0, 1, 0x4400);
    b.ipi(0, 1, 0x4200);
    b.ipi(0, 1, 0x4040);
    assert_eq!(b.signals(), [(1, CpuSignal::Nmi), (1, CpuSignal::Smi)]);
    assert_eq!(b.cpu(1).pending_vector(), None);
}

#[test]
fn illegal_vectors_and_registers_are_errors() {
    let b = Bench::new(1);
    b.wr(0, reg::LVT + 5, 0xfe);
    b.ipi(0, 0, 0x4005);
    assert_eq!(b.cpu(0).ack(), Some(0xfe));
    b.wr(0, reg::EOI, 0);
    assert_eq!(b.rd(0, reg::ESR), 0);
    b.wr(0, reg::ESR, 0);
    assert_eq!(b.rd(0, reg::ESR), 0x20);
    b.wr(0, reg::ESR, 0);
    assert_eq!(b.rd(0, reg::ESR), 0);
    b.rd(0, 0x04);
    b.bus.message(0xfee0_0000, 0x03, 0);
    b.wr(0, reg::ESR, 0);
    assert_eq!(b.rd(0, reg::ESR), 0xc0);
}

#[test]
fn a_level_interrupt_ends_at_the_ioapic_and_comes_again() {
    let b = Bench::new(1);
    b.ioapic_entry(10, 0x8060);
    b.lines.set(10, true);
    assert_eq!(b.cpu(0).ack(), Some(0x60));
    assert_eq!(b.rd(0, reg::TMR + 3), 1);
    assert_eq!(b.cpu(0).pending_vector(), None);
    b.wr(0, reg::EOI, 0);
    assert_eq!(b.cpu(0).ack(), Some(0x60));
    b.lines.set(10, false);
    b.wr(0, reg::EOI, 0);
    assert_eq!(b.cpu(0).ack(), None);
}

#[test]
fn directed_eoi_leaves_the_end_to_the_ioapics_register() {
    let b = Bench::new(1);
    b.wr(0, reg::SVR, 0x11ff);
    b.ioapic_entry(10, 0x8060);
    b.lines.set(10, true);
    b.cpu(0).ack();
    b.wr(0, reg::EOI, 0);
    assert_eq!(b.cpu(0).ack(), None);
    b.write(0, IOAPIC_BASE + 0x40, 4, 0x60);
    assert_eq!(b.cpu(0).ack(), Some(0x60));
}

#[test]
fn the_timer_interrupt_is_pin_2_and_both_controllers_see_it() {
    let b = Bench::new(1);
    b.ioapic_entry(2, 0x30);
    b.lines.set(0, true);
    assert_eq!(b.cpu(0).ack(), Some(0x30));
    assert_eq!(b.pic.snapshot().master.irr, 1);
}

#[test]
fn the_pic_reaches_the_bootstrap_processor_through_its_virtual_wire() {
    let b = Bench::with_ids(&[0, 1]);
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1)] {
        let ports = b.fabric.ports.snapshot();
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        ports
            .write(port, 1, value, order, by, Attrs::default())
            .unwrap();
    }
    b.lines.set(1, true);
    assert_eq!(b.signals(), [(0, CpuSignal::Intr)]);
    assert!(b.cpu(0).has_interrupt());
    assert!(!b.cpu(1).has_interrupt());
    assert_eq!(b.cpu(0).ack(), Some(0x21));
    assert!(!b.cpu(0).has_interrupt());
}

#[test]
fn unmasking_lint0_shows_a_waiting_pic() {
    let b = Bench::new(1);
    b.lines.set(1, true);
    assert!(!b.cpu(0).has_interrupt());
    b.signals();
    b.wr(0, reg::LVT + 3, 0x700);
    assert_eq!(b.signals(), [(0, CpuSignal::Intr)]);
    assert_eq!(b.cpu(0).ack(), Some(1));
    // As a fixed interrupt, as kernels try when all else fails.
    b.lines.set(1, false);
    b.wr(0, reg::LVT + 3, 0x41);
    b.pic.ack();
    b.lines.set(0, true);
    assert_eq!(b.cpu(0).ack(), Some(0x41));
}

#[test]
fn lint1_is_an_nmi_where_unmasked() {
    let b = Bench::new(2);
    b.wr(0, reg::LVT + 4, 0x400);
    b.bus.set(LINT1, true);
    b.bus.set(LINT1, false);
    assert_eq!(b.signals(), [(0, CpuSignal::Nmi)]);
}

#[test]
fn a_one_shot_count_fires_once_and_a_periodic_one_again() {
    let b = Bench::new(1);
    let apic = b.cpu(0);
    b.wr(0, reg::DIVIDE, 0x3);
    b.wr(0, reg::LVT, 0xec);
    b.wr(0, reg::INITIAL_COUNT, 1000);
    b.pass_ns(8000);
    assert_eq!(b.rd(0, reg::CURRENT_COUNT), 500);
    assert_eq!(apic.ack(), None);
    b.pass_ns(8000);
    assert_eq!(apic.ack(), Some(0xec));
    b.wr(0, reg::EOI, 0);
    b.pass_ns(100_000);
    assert_eq!(b.rd(0, reg::CURRENT_COUNT), 0);
    assert_eq!(apic.ack(), None);
    b.wr(0, reg::LVT, 0x200ec);
    b.wr(0, reg::INITIAL_COUNT, 100_000);
    for _ in 0..3 {
        b.pass_ns(1_600_000);
        assert_eq!(apic.ack(), Some(0xec));
        b.wr(0, reg::EOI, 0);
    }
    // Three and a half missed periods are one interrupt, and the phase stays.
    b.pass_ns(5_600_000);
    assert_eq!(apic.ack(), Some(0xec));
    b.wr(0, reg::EOI, 0);
    assert_eq!(b.rd(0, reg::CURRENT_COUNT), 50_000);
    b.pass_ns(800_000);
    assert_eq!(apic.ack(), Some(0xec));
    b.wr(0, reg::INITIAL_COUNT, 0);
    b.wr(0, reg::EOI, 0);
    b.pass_ns(10_000_000);
    assert_eq!(apic.ack(), None);
}

#[test]
fn a_masked_timer_counts_in_silence() {
    let b = Bench::new(1);
    b.wr(0, reg::DIVIDE, 0xb);
    b.wr(0, reg::INITIAL_COUNT, 0xffff_ffff);
    b.pass_ns(1_000_000);
    assert_eq!(b.rd(0, reg::CURRENT_COUNT), 0xffff_ffff - 1_000_000);
    b.wr(0, reg::DIVIDE, 0x0);
    assert_eq!(b.rd(0, reg::CURRENT_COUNT), 0xffff_ffff - 1_000_000);
    b.pass_ns(1_000_000);
    assert_eq!(b.rd(0, reg::CURRENT_COUNT), 0xffff_ffff - 1_500_000);
}

#[test]
fn a_tsc_deadline_fires_once_and_reads_zero_after() {
    let b = Bench::new(1);
    let apic = b.cpu(0);
    apic.set_tsc_deadline(500, 1000);
    assert_eq!(apic.tsc_deadline(), 0);
    b.wr(0, reg::LVT, 0x400ec);
    apic.set_tsc_deadline(500, 1000);
    assert_eq!(apic.tsc_deadline(), 500);
    b.wr(0, reg::INITIAL_COUNT, 5);
    b.pass_ns(999);
    assert_eq!(apic.ack(), None);
    b.pass_ns(1);
    assert_eq!(apic.ack(), Some(0xec));
    assert_eq!(apic.tsc_deadline(), 0);
    b.wr(0, reg::EOI, 0);
    // A deadline in the past does not wait for the loop.
    apic.set_tsc_deadline(10, 20);
    assert_eq!(apic.ack(), Some(0xec));
    b.wr(0, reg::EOI, 0);
    apic.set_tsc_deadline(5000, 10_000);
    apic.set_tsc_deadline(0, 0);
    b.pass_ns(100_000);
    assert_eq!(apic.ack(), None);
}

#[test]
fn x2apic_registers_are_msrs_and_the_page_is_gone() {
    let b = Bench::with_ids(&[0, 0x123]);
    let apic = b.cpu(1);
    assert!(apic.read_msr(0x802).is_err());
    b.x2apic(1);
    assert_eq!(b.read(1, MSI_BASE + 0x20, 4), None);
    assert_eq!(apic.read_msr(0x802), Ok(0x123));
    assert_eq!(apic.read_msr(0x80d), Ok(0x0012_0008));
    assert_eq!(apic.read_msr(0x803), Ok(0x0105_0014));
    apic.write_msr(0x80f, 0x1ff).unwrap();
    apic.write_msr(0x83f, 0x77).unwrap();
    assert_eq!(apic.ack(), Some(0x77));
    assert!(apic.write_msr(0x80b, 1).is_err());
    apic.write_msr(0x80b, 0).unwrap();
    for bad in [0x80e, 0x809, 0x80c, 0x831, 0x82f, 0x8ff, 0x80b, 0x83f] {
        assert!(apic.read_msr(bad).is_err(), "{bad:#x}");
    }
    for read_only in [0x802, 0x803, 0x80a, 0x80d, 0x810, 0x818, 0x820, 0x839] {
        assert!(apic.write_msr(read_only, 0).is_err(), "{read_only:#x}");
    }
    assert!(apic.write_msr(0x808, 0x100).is_err());
    assert!(apic.write_msr(0x808, 1 << 32).is_err());
}

#[test]
fn x2apic_messages_reach_wide_ids_and_clusters() {
    let ids: Vec<u32> = (0..300).collect();
    let b = Bench::with_ids(&ids);
    for n in 0..300 {
        b.x2apic(n);
        b.cpu(n).write_msr(0x80f, 0x1ff).unwrap();
    }
    let boss = b.cpu(0);
    boss.write_msr(0x830, (299 << 32) | 0x40).unwrap();
    assert_eq!(b.cpu(299).ack(), Some(0x40));
    assert_eq!(b.cpu(299 & 0xff).ack(), None);
    // Cluster 2, members 1 and 3.
    boss.write_msr(0x830, (0x0002_000a << 32) | 0x841).unwrap();
    let hit: Vec<u32> = (0..300).filter(|n| b.cpu(*n).ack().is_some()).collect();
    assert_eq!(hit, [33, 35]);
    b.signals();
    boss.write_msr(0x830, (0xffff_ffff << 32) | 0x42).unwrap();
    assert_eq!(b.signals().len(), 300);
}

#[test]
fn only_the_manuals_mode_changes_are_taken() {
    let b = Bench::new(1);
    let apic = b.cpu(0);
    let page = 0xfee0_0100;
    assert!(apic.set_apic_base(page | base::EXTD).is_err());
    assert!(apic.set_apic_base(0xfee0_0801).is_err());
    apic.set_apic_base(page | base::ENABLE | base::EXTD)
        .unwrap();
    assert!(apic.set_apic_base(page | base::ENABLE).is_err());
    apic.set_apic_base(page).unwrap();
    assert!(
        apic.set_apic_base(page | base::ENABLE | base::EXTD)
            .is_err()
    );
    apic.set_apic_base(page | base::ENABLE).unwrap();
    let plain = ApicBus::new(&b.fabric.clock, &[0], false);
    let value = page | base::ENABLE | base::EXTD;
    assert!(plain.cpu(0).unwrap().set_apic_base(value).is_err());
}

#[test]
fn software_disable_masks_the_local_sources() {
    let b = Bench::new(1);
    b.wr(0, reg::LVT + 4, 0x400);
    b.wr(0, reg::SVR, 0xff);
    assert_eq!(b.rd(0, reg::LVT + 4), 0x10400);
    b.wr(0, reg::LVT + 4, 0x400);
    assert_eq!(b.rd(0, reg::LVT + 4), 0x10400);
}

#[test]
fn device_writes_to_the_window_are_messages() {
    let b = Bench::new(2);
    let (order, by) = (ByteOrder::Little, Initiator::Device(8));
    let map = b.fabric.memory.snapshot();
    map.write(0xfee0_1000, 4, 0x45, order, by, Attrs::default())
        .unwrap();
    assert_eq!(b.cpu(1).ack(), Some(0x45));
}

#[test]
fn messages_from_many_threads_all_arrive() {
    let b = Bench::new(1);
    std::thread::scope(|scope| {
        for t in 0..4u8 {
            let bus = &b.bus;
            scope.spawn(move || {
                for vector in (32 + t..=255).step_by(4) {
                    bus.message(0xfee0_0000, vector.into(), 0);
                }
            });
        }
    });
    let apic = b.cpu(0);
    for vector in (32..=255).rev() {
        assert_eq!(apic.ack(), Some(vector));
        b.wr(0, reg::EOI, 0);
    }
}

#[test]
fn lines_messages_and_ends_from_many_threads_never_wait_for_each_other() {
    let b = Bench::new(2);
    b.ioapic_entry(10, 0x8060);
    b.ioapic_entry(11, 0x0100_0000_0000_8070);
    std::thread::scope(|scope| {
        for pin in [10, 11] {
            let b = &b;
            scope.spawn(move || {
                for n in 0..2000 {
                    b.lines.set(pin, n % 2 == 0);
                }
            });
        }
        for n in 0..2 {
            let b = &b;
            scope.spawn(move || {
                let apic = b.cpu(n);
                for _ in 0..2000 {
                    b.ipi(n, 1 - n, 0x4050);
                    if apic.ack().is_some() {
                        b.wr(n, reg::EOI, 0);
                    }
                }
            });
        }
    });
    // Whatever the order was, nothing is stuck: low lines and all ends leave nothing behind.
    for n in 0..2 {
        while b.cpu(n).ack().is_some() {
            b.wr(n, reg::EOI, 0);
        }
        assert!(!b.cpu(n).has_interrupt());
    }
    let entries = b.ioapic.snapshot().entries;
    let waits = |e: &&u64| **e & hw_intc::redirection::REMOTE_IRR != 0;
    assert_eq!(entries.iter().filter(waits).count(), 0);
}

#[test]
fn the_listing_names_what_is_set() {
    let b = Bench::new(1);
    b.ipi(0, 0, 0x4051);
    let text = b.bus.describe();
    assert!(text.contains("IRR      81"), "{text}");
    assert!(text.contains("LVT0"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_traffic_ends_in_values_and_saved_controllers_are_the_same(
        ops in proptest::collection::vec((0u8..9, 0u32..3, 0u64..0x420, any::<u64>()), 1..120),
    ) {
        let b = Bench::new(3);
        for (kind, cpu, offset, value) in ops {
            let size = [1, 2, 4, 8][(value >> 60) as usize & 3];
            let apic = b.cpu(cpu);
            match kind {
                0 => b.write(cpu, MSI_BASE + offset, size, value & 0xf_ffff),
                1 => b.wr(cpu, offset as u32 % 0x40, value as u32),
                2 => { b.read(cpu, MSI_BASE + offset, size); }
                3 => { let _ = apic.write_msr(0x800 + offset as u32 % 0x42, value & 0xfff_ffff); }
                4 => { let _ = apic.read_msr(0x800 + offset as u32 % 0x42); }
                5 => { apic.ack(); }
                6 => b.lines.set(offset as u32 % 24, value & 1 != 0),
                7 => { let _ = apic.set_apic_base(0xfee0_0000 | (value & 0xd00)); }
                _ => b.pass_ns(value % 1_000_000),
            }
        }
        let saved = b.fabric.save();
        let other = Bench::new(3);
        other.fabric.restore(&saved).unwrap();
        prop_assert_eq!(other.fabric.save(), saved);
        for n in 0..3 {
            prop_assert_eq!(other.cpu(n).has_interrupt(), b.cpu(n).has_interrupt());
        }
        prop_assert!(!b.ioapic.describe().is_empty());
        let section = b.apics.with(|d| d.save());
        let two = Bench::new(2);
        prop_assert!(two.apics.with(|d| d.restore(&section)).is_err());
    }
}

/// Takes interrupts of a vector until there are none, and says how many there were.
fn take_all(b: &Bench, vector: u8) -> usize {
    let take = || {
        let taken = b.cpu(0).ack()?;
        assert_eq!(taken, vector);
        b.wr(0, reg::EOI, 0);
        Some(taken)
    };
    std::iter::from_fn(take).count()
}

fn pulse(b: &Bench, line: u32) {
    b.lines.set(line, true);
    b.lines.set(line, false);
}

#[test]
fn edges_that_are_kept_are_given_one_by_one_and_others_are_one() {
    let b = Bench::new(1);
    b.lines.keep_edges(0);
    b.ioapic_entry(2, 0x60);
    b.ioapic_entry(4, 0x61);
    for line in [0, 0, 0, 0, 0] {
        pulse(&b, line);
    }
    assert_eq!(take_all(&b, 0x60), 5);
    pulse(&b, 4);
    pulse(&b, 4);
    assert_eq!(take_all(&b, 0x61), 1);
    pulse(&b, 0);
    assert_eq!(take_all(&b, 0x60), 1);
}

#[test]
fn a_kept_edge_that_comes_in_service_is_not_given_twice() {
    let b = Bench::new(1);
    b.lines.keep_edges(0);
    b.ioapic_entry(2, 0x60);
    pulse(&b, 0);
    assert_eq!(b.cpu(0).ack(), Some(0x60));
    pulse(&b, 0);
    b.wr(0, reg::EOI, 0);
    assert_eq!(take_all(&b, 0x60), 1);
}

#[test]
fn kept_edges_of_an_input_that_is_masked_are_forgotten() {
    let b = Bench::new(1);
    b.lines.keep_edges(0);
    b.ioapic_entry(2, 0x60);
    for _ in 0..3 {
        pulse(&b, 0);
    }
    b.ioapic_entry(2, 0x1_0060);
    b.ioapic_entry(2, 0x60);
    assert_eq!(take_all(&b, 0x60), 1);
}
