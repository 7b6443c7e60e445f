use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use hw_core::{
    Attrs, ByteOrder, Clock, Device, Fabric, Initiator, IrqHub, IrqSink, Placement, Request,
    ResetKind,
};
use hw_memory::{MappingSpec, RamBlock, What};
use hw_pci::PciBus;
use proptest::prelude::*;

use super::*;

/// A PC without anything but bridges: RAM full of 0x11, a BIOS at 0xe0000 full of 0x22.
struct Bench {
    fabric: Fabric,
    bus: PciBus,
    router: Arc<PirqRouter>,
    gsi: Arc<AtomicU32>,
    requests: Arc<Mutex<Vec<Request>>>,
    placed: Arc<Mutex<Vec<(u64, bool)>>>,
    smram: Smram,
}

fn block(name: &str, len: u64, byte: u8) -> Arc<RamBlock> {
    let block = RamBlock::new(name, len).unwrap();
    block.fill(0, len, byte);
    Arc::new(block)
}

impl Bench {
    fn new(q35: bool) -> Self {
        let fabric = Fabric::new(Clock::manual().0);
        let ram = block("ram", 2 << 20, 0x11);
        let add = |name: &str, base: u64, len: u64, priority: i32, what: What| {
            fabric.memory.add(MappingSpec {
                name: name.into(),
                base,
                len,
                priority,
                enabled: true,
                what,
            });
        };
        let what = What::Ram {
            block: ram.clone(),
            offset: 0,
        };
        add("ram", 0, 2 << 20, 0, what);
        let bios = What::Rom {
            block: block("bios", 0x20000, 0x22),
            offset: 0,
            writes: None,
        };
        add("bios", 0xe0000, 0x20000, priority::ON_PCI, bios);
        let gsi = Arc::new(AtomicU32::new(0));
        let seen = gsi.clone();
        let sink: Arc<dyn IrqSink> = Arc::new(move |pin: u32, level: bool| {
            if level {
                seen.fetch_or(1 << pin, Ordering::SeqCst);
            } else {
                seen.fetch_and(!(1 << pin), Ordering::SeqCst);
            }
        });
        let hubs: Vec<_> = (0..24).map(|n| IrqHub::new(sink.clone(), n)).collect();
        let router = if q35 {
            PirqRouter::ich9(&hubs)
        } else {
            PirqRouter::piix(&hubs)
        };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        fabric
            .requests
            .connect(move |request| log.lock().unwrap().push(request));
        let placed = Arc::new(Mutex::new(Vec::new()));
        let log = placed.clone();
        let place: PlaceIo = Arc::new(move |base, on| log.lock().unwrap().push((base, on)));
        let bus = PciBus::new("pci.0", q35, router.clone());
        let smram = Smram::default();
        let b = Bench {
            fabric,
            bus,
            router: router.clone(),
            gsi,
            requests,
            placed,
            smram: smram.clone(),
        };
        if q35 {
            b.add(Box::new(Mch::new(MchConfig {
                ram,
                smram,
                ecam: None,
            })));
            b.add(Box::new(Ich9Lpc::new(LpcConfig {
                router,
                place_pm: Some(place),
            })));
        } else {
            b.add(Box::new(I440fx::new(ram, smram)));
            b.add(Box::new(Piix3::new(router)));
            b.add(Box::new(Piix4Pm::new(PmConfig {
                place_pm: Some(place),
                ..PmConfig::default()
            })));
        }
        b.fabric.reset(ResetKind::Cold);
        b
    }

    fn add(&self, device: Box<dyn Device>) {
        let path = format!("bridge{}", self.fabric.parts().len());
        let placement = Placement {
            path,
            bus: Some(&self.bus),
            ..Placement::default()
        };
        self.fabric.add(device, placement).unwrap();
    }

    fn access(&self, ports: bool, address: u64, size: u8, value: Option<u64>) -> u64 {
        let map = if ports {
            &self.fabric.ports
        } else {
            &self.fabric.memory
        };
        let map = map.snapshot();
        let (order, by, attrs) = (ByteOrder::Little, Initiator::Cpu(0), Attrs::default());
        match value {
            Some(value) => map
                .write(address, size, value, order, by, attrs)
                .map_or(u64::MAX, u64::from),
            None => map
                .read(address, size, order, by, attrs)
                .unwrap_or(u64::MAX),
        }
    }

    fn rd(&self, address: u64) -> u64 {
        self.access(false, address, 1, None)
    }

    fn wr(&self, address: u64, value: u64) {
        self.access(false, address, 1, Some(value));
    }

    fn config(&self, devfn: u8, register: u16, size: u8, value: Option<u64>) -> u64 {
        let address = 0x8000_0000 | u64::from(devfn) << 8 | u64::from(register & 0xfc);
        self.access(true, 0xcf8, 4, Some(address));
        self.access(true, 0xcfc + u64::from(register & 3), size, value)
    }

    fn gsi(&self) -> u32 {
        self.gsi.load(Ordering::SeqCst)
    }

    /// Drives INTA# of a slot.
    fn inta(&self, slot: u8, level: bool) {
        self.router.set(u32::from(slot) << 5, level);
    }
}

const PIIX: u8 = 1 << 3;
const PM: u8 = (1 << 3) | 3;
const LPC: u8 = 31 << 3;

#[test]
fn bridges_have_their_ids() {
    let ids = |q35| -> Vec<_> {
        let functions = Bench::new(q35).bus.functions();
        functions
            .iter()
            .map(|f| (f.slot, f.function, f.device, f.class))
            .collect()
    };
    let pc = [
        (0, 0, 0x1237, 0x0600),
        (1, 0, 0x7000, 0x0601),
        (1, 3, 0x7113, 0x0680),
    ];
    assert_eq!(ids(false), pc);
    assert_eq!(ids(true), [(0, 0, 0x29c0, 0x0600), (31, 0, 0x2918, 0x0601)]);
}

#[test]
fn pam_registers_turn_the_bios_into_ram_and_back() {
    for (q35, pam) in [(false, 0x59), (true, 0x90)] {
        let b = Bench::new(q35);
        assert_eq!((b.rd(0xf0000), b.rd(0xe4000)), (0x22, 0x22));
        // Nothing answers between RAM and BIOS, but RAM does around.
        assert_eq!((b.rd(0xc0000), b.rd(0xa0000)), (u64::MAX, u64::MAX));
        assert_eq!((b.rd(0x9ffff), b.rd(0x100000)), (0x11, 0x11));
        b.config(0, pam, 1, Some(0x30));
        b.wr(0xf0000, 0x33);
        assert_eq!((b.rd(0xf0000), b.rd(0xeffff)), (0x33, 0x22));
        b.config(0, pam, 1, Some(0x10));
        b.wr(0xf0000, 0x44);
        assert_eq!(b.rd(0xf0000), 0x33);
        b.config(0, pam, 1, Some(0x00));
        assert_eq!(b.rd(0xf0000), 0x22);
        // The low nibble of PAM5 is the first 16 KiB at 0xe0000, the high one the second.
        b.config(0, pam + 5, 1, Some(0x30));
        assert_eq!(
            (b.rd(0xe3fff), b.rd(0xe4000), b.rd(0xe8000)),
            (0x22, 0x11, 0x22)
        );
        b.config(0, pam + 1, 1, Some(0x33));
        assert_eq!((b.rd(0xc0000), b.rd(0xc8000)), (0x11, u64::MAX));
        b.fabric.reset(ResetKind::Cold);
        assert_eq!((b.rd(0xc0000), b.rd(0xe4000)), (u64::MAX, 0x22));
    }
}

#[test]
fn smram_opens_until_it_is_locked() {
    for (q35, register) in [(false, 0x72), (true, 0x9d)] {
        let b = Bench::new(q35);
        assert_eq!(b.config(0, register, 1, None), 0x02);
        b.config(0, register, 1, Some(0x4a));
        assert_eq!((b.rd(0xa0000), b.smram.is_enabled()), (0x11, true));
        b.config(0, register, 1, Some(0x5a));
        assert_eq!(b.config(0, register, 1, None), 0x1a);
        assert_eq!(b.rd(0xa0000), u64::MAX);
        b.config(0, register, 1, Some(0x4a));
        assert_eq!(b.rd(0xa0000), u64::MAX);
        b.fabric.reset(ResetKind::Cold);
        b.config(0, register, 1, Some(0x4a));
        assert_eq!(b.rd(0xa0000), 0x11);
    }
}

#[test]
fn the_piix_routes_four_requests_to_isa_interrupts() {
    let b = Bench::new(false);
    b.inta(3, true);
    assert_eq!(b.gsi(), 0);
    // Slot 3, INTA# is PIRQC#.
    b.config(PIIX, 0x60, 4, Some(0x0b0b_0a0a));
    assert_eq!(b.gsi(), 1 << 11);
    b.config(PIIX, 0x62, 1, Some(0x05));
    assert_eq!(b.gsi(), 1 << 5);
    b.inta(7, true);
    b.inta(3, false);
    assert_eq!(b.gsi(), 1 << 5);
    b.inta(7, false);
    assert_eq!(b.gsi(), 0);
    assert_eq!(b.router.isa_irq(3 << 3, 0), Some(5));
}

#[test]
fn the_ich9_drives_both_controllers() {
    let b = Bench::new(true);
    // Slot 2, INTA# is PIRQG#.
    b.inta(2, true);
    assert_eq!(b.gsi(), 1 << 22);
    b.config(LPC, 0x6a, 1, Some(10));
    assert_eq!(b.gsi(), 1 << 22 | 1 << 10);
    b.inta(2, false);
    // Slot 31, INTA# is PIRQA#, until its route register says otherwise.
    b.inta(31, true);
    assert_eq!(b.gsi(), 1 << 16);
    b.config(LPC, 0xf0, 4, Some(0xfed1_c001));
    let dir = 0xfed1_c000 + 0x3140;
    assert_eq!(b.access(false, dir, 2, None), 0x3210);
    b.access(false, dir, 2, Some(0x3215));
    assert_eq!(b.gsi(), 1 << 21);
    b.inta(31, false);
    assert_eq!(b.gsi(), 0);
}

#[test]
fn port_cf9_resets_and_leaves_the_address_latch_alone() {
    for q35 in [false, true] {
        let b = Bench::new(q35);
        b.access(true, 0xcf8, 4, Some(0x8000_0604));
        assert!(b.requests.lock().unwrap().is_empty());
        b.access(true, 0xcf9, 1, Some(2));
        assert_eq!(b.access(true, 0xcf9, 1, None), 2);
        b.access(true, 0xcf9, 1, Some(6));
        assert_eq!(*b.requests.lock().unwrap(), [Request::Reset]);
        assert_eq!(b.access(true, 0xcf8, 4, None), 0x8000_0604);
    }
}

#[test]
fn the_power_management_block_goes_where_firmware_puts_it() {
    let b = Bench::new(false);
    assert_eq!(b.config(PM, 0x40, 4, None), 1);
    b.config(PM, 0x40, 4, Some(0x601));
    assert_eq!(b.placed.lock().unwrap().last(), Some(&(0x600, false)));
    b.config(PM, 0x80, 1, Some(1));
    assert_eq!(b.placed.lock().unwrap().last(), Some(&(0x600, true)));
    assert_eq!(b.config(PM, 0x58, 4, None), 1 << 25);
    let b = Bench::new(true);
    b.config(LPC, 0x40, 4, Some(0x681));
    b.config(LPC, 0x44, 1, Some(0x80));
    assert_eq!(b.placed.lock().unwrap().last(), Some(&(0x680, true)));
}

#[test]
fn configuration_space_is_mapped_with_the_size_asked_for() {
    let b = Bench::new(true);
    let ids = |base: u64| b.access(false, base, 4, None);
    assert_eq!(ids(0xb000_0000), u64::MAX);
    b.config(0, 0x60, 4, Some(0xb000_0001));
    assert_eq!(ids(0xb000_0000), 0x29c0_8086);
    assert_eq!(ids(0xb000_0000 + (31 << 15)), 0x2918_8086);
    // 64 MiB at an address that only they can have.
    b.config(0, 0x60, 4, Some(0xe400_0005));
    assert_eq!(
        (ids(0xb000_0000), ids(0xe400_0000)),
        (u64::MAX, 0x29c0_8086)
    );
}

#[test]
fn boards_alone_make_bridges() {
    for class in CLASSES.iter().filter(|class| !class.user_creatable) {
        let args = hw_core::Args::new(class, []).unwrap();
        assert!((class.create)(&args, &mut hw_core::Links::default()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_configuration_survives_save_and_restore(
        q35: bool,
        ops in proptest::collection::vec(
            (0u8..3, any::<bool>(), 0u16..256, 0u32..3, any::<u32>()), 1..60),
    ) {
        let b = Bench::new(q35);
        for (which, write, register, size, value) in ops {
            let devfn = match (which, q35) {
                (0, _) => 0,
                (_, true) => LPC,
                (1, false) => PIIX,
                _ => PM,
            };
            let value = write.then_some(u64::from(value));
            b.config(devfn, register, 1 << size, value);
        }
        let probe = |b: &Bench| -> Vec<u64> {
            (0xa0000..0x100000u64).step_by(0x4000).map(|a| b.rd(a)).collect()
        };
        let (saved, seen) = (b.fabric.save(), probe(&b));
        b.fabric.reset(ResetKind::Cold);
        b.fabric.restore(&saved).unwrap();
        prop_assert_eq!(b.fabric.save(), saved);
        prop_assert_eq!(probe(&b), seen);
    }
}
