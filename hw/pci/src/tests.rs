use std::sync::{Arc, Mutex};

use hw_core::{
    Access, Attrs, ByteOrder, Clock, DeviceError, Fabric, Fault, Initiator, Msi, MsiSink, Part,
    Placement, ResetKind, Section, StateError,
};
use hw_memory::{MappingSpec, RamBlock, What};
use proptest::prelude::*;

use super::*;

/// A register in a memory BAR and in an I/O BAR, MSI-X in another, a ROM.
#[derive(Default)]
struct Toy {
    value: u64,
}

impl PciFunction for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn setup(&mut self, s: &mut Setup<'_>) -> Result<(), DeviceError> {
        s.ids(VENDOR_REDHAT, 5, 0x00ff00, 1);
        s.interrupt_pin(1);
        s.bar(BarSpec::new(0, "toy-io", BarKind::Io, 32))?;
        s.msix_bar(1, "toy-msix", 3)?;
        let kind = BarKind::Memory64 { prefetch: true };
        s.bar(BarSpec::new(4, "toy-mem", kind, 1 << 14))?;
        s.rom("toy.rom", &[0x55, 0xaa, 7])?;
        s.msi(4)
    }
    fn bar_read(&mut self, _: &mut Pci, bar: u8, access: Access) -> Result<u64, Fault> {
        Ok(self.value + u64::from(bar) + access.offset)
    }
    fn bar_write(&mut self, pci: &mut Pci, bar: u8, _: Access, value: u64) -> Result<(), Fault> {
        match bar {
            0 => pci.set_intx(value & 1 != 0),
            _ => {
                pci.raise_msix(value as u16);
                pci.raise_msi(value as u8);
                self.value = pci.dma().load_le(0x100, 1).unwrap_or(0xdead);
            }
        }
        Ok(())
    }
    fn reset(&mut self, _: ResetKind) {
        self.value = 0;
    }
    fn save(&self) -> Section {
        Section::new("toy", 1).with(1, self.value)
    }
    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.value = section.u64(1)?;
        Ok(())
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<(u64, u32, u32)>>);

impl MsiSink for Log {
    fn message(&self, address: u64, data: u32, requester: u32) {
        self.0.lock().unwrap().push((address, data, requester));
    }
}

struct Bench {
    fabric: Fabric,
    bus: PciBus,
    pins: Arc<Mutex<Vec<(u32, bool)>>>,
    messages: Arc<Log>,
    _ecam: hw_core::Mapping,
}

impl Bench {
    fn new() -> Self {
        let fabric = Fabric::new(Clock::manual().0);
        let messages = Arc::new(Log::default());
        fabric.set_msi(Msi::new(messages.clone(), 0));
        let pins = Arc::new(Mutex::new(Vec::new()));
        let seen = pins.clone();
        let bus = PciBus::new(
            "pci.0",
            false,
            Arc::new(move |pin: u32, level: bool| seen.lock().unwrap().push((pin, level))),
        );
        let block = Arc::new(RamBlock::new("ram", 1 << 20).unwrap());
        fabric.memory.add(MappingSpec {
            name: "ram".into(),
            base: 0,
            len: 1 << 20,
            priority: 0,
            enabled: true,
            what: What::Ram { block, offset: 0 },
        });
        bus.config_ports().map(&fabric.ports);
        let ecam = Ecam::new(bus.clone()).map(&fabric.memory, 1 << 28);
        ecam.place(0xb000_0000, true);
        Bench {
            fabric,
            bus,
            pins,
            messages,
            _ecam: ecam,
        }
    }

    fn add(&self, path: &str, options: PciOptions) -> Result<Arc<Part>, DeviceError> {
        let placement = Placement {
            path: path.into(),
            bus: Some(&self.bus),
            ..Placement::default()
        };
        let device = PciDevice::new(Toy::default(), options);
        let part = self.fabric.add(Box::new(device), placement)?;
        self.fabric.reset(ResetKind::Cold);
        Ok(part)
    }

    fn with_toy() -> (Self, Arc<Part>) {
        let b = Bench::new();
        let part = b.add("toy", PciOptions::at(devfn(3, 0))).unwrap();
        (b, part)
    }

    fn io(&self, ports: bool, address: u64, size: u8, value: Option<u64>) -> Option<u64> {
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
                .ok()
                .map(|_| 0),
            None => map.read(address, size, order, by, attrs).ok(),
        }
    }

    fn config(&self, register: u64, size: u8, value: Option<u64>) -> Option<u64> {
        let address = 0x8000_0000 | 3 << 11 | (register & 0xfc);
        self.io(true, 0xcf8, 4, Some(address));
        self.io(true, 0xcfc + (register & 3), size, value)
    }

    fn set(&self, register: u64, size: u8, value: u64) {
        self.config(register, size, Some(value)).unwrap();
    }

    fn get(&self, register: u64, size: u8) -> u64 {
        self.config(register, size, None).unwrap()
    }

    fn place(&self) {
        self.set(0x10, 4, 0xc000);
        self.set(0x14, 4, 0xe000_0000);
        self.set(0x20, 4, 0x4000_0000);
        self.set(0x24, 4, 0x80);
        self.set(0x04, 2, 7);
    }
}

const MEM: u64 = 0x80_4000_0000;

#[test]
fn both_ways_to_configuration_space_reach_the_function() {
    let (b, _) = Bench::with_toy();
    assert_eq!(b.get(0, 4), 0x0005_1b36);
    assert_eq!(b.get(2, 2), 5);
    assert_eq!(b.get(0x2c, 4), 0x1100_1af4);
    assert_eq!(b.get(0x0b, 1), 0);
    assert_eq!(b.io(false, 0xb001_8000, 4, None), Some(0x0005_1b36));
    assert_eq!(b.io(false, 0xb001_8100, 4, None), Some(0xffff_ffff));
    assert_eq!(b.io(false, 0xb002_0000, 4, None), Some(0xffff_ffff));
    b.io(true, 0xcf8, 4, Some(3 << 11));
    assert_eq!(b.io(true, 0xcfc, 4, None), None);
}

#[test]
fn bars_tell_their_size_and_answer_where_they_are_placed() {
    let (b, _) = Bench::with_toy();
    for (register, mask) in [
        (0x10, 0xffff_ffe1),
        (0x14, 0xffff_f000),
        (0x20, 0xffff_c00c),
        (0x24, 0xffff_ffff),
        (0x30, 0xffff_f001),
    ] {
        b.set(register, 4, 0xffff_ffff);
        assert_eq!(b.get(register, 4), mask);
    }
    b.set(0x30, 4, 0);
    b.place();
    assert_eq!(b.io(true, 0xc004, 1, None), Some(4));
    assert_eq!(b.io(false, MEM + 8, 4, None), Some(12));
    b.set(0x04, 2, 1);
    assert_eq!(b.io(false, MEM + 8, 4, None), None);
    b.set(0x04, 2, 2);
    assert_eq!(b.io(true, 0xc004, 1, None), None);
    b.set(0x30, 4, 0xf000_0001);
    assert_eq!(b.io(false, 0xf000_0000, 4, None), Some(0x0007_aa55));
}

#[test]
fn a_bar_does_not_hide_ram() {
    let (b, _) = Bench::with_toy();
    b.place();
    b.set(0x24, 4, 0);
    b.set(0x20, 4, 0x4000);
    assert_eq!(b.io(false, 0x4008, 4, None), Some(0));
}

#[test]
fn the_pin_follows_level_command_and_message_enables() {
    let (b, _) = Bench::with_toy();
    b.place();
    let last = || b.pins.lock().unwrap().last().copied();
    b.io(true, 0xc000, 1, Some(1));
    assert_eq!(last(), Some((3 << 5, true)));
    assert_eq!(b.get(6, 2) & 8, 8);
    b.set(4, 2, 0x407);
    assert_eq!((last(), b.get(6, 2) & 8), (Some((3 << 5, false)), 8));
    b.set(4, 2, 7);
    assert_eq!(last(), Some((3 << 5, true)));
    let msix = capability(&b, cap::MSIX);
    b.set(msix + 2, 2, 0x8000);
    assert_eq!(last(), Some((3 << 5, false)));
}

fn capability(b: &Bench, id: u8) -> u64 {
    let mut at = b.get(0x34, 1);
    while b.get(at, 1) != u64::from(id) {
        at = b.get(at + 1, 1);
        assert_ne!(at, 0);
    }
    at
}

#[test]
fn msix_messages_are_held_while_masked() {
    let (b, _) = Bench::with_toy();
    b.place();
    let msix = capability(&b, cap::MSIX);
    assert_eq!(b.get(msix + 2, 2), 2);
    assert_eq!((b.get(msix + 4, 4), b.get(msix + 8, 4)), (1, 2049));
    let table = 0xe000_0000;
    b.io(false, table + 16, 4, Some(0xfee0_0000));
    b.io(false, table + 24, 4, Some(0x31));
    b.io(false, MEM, 4, Some(1));
    assert!(b.messages.0.lock().unwrap().is_empty());
    b.set(msix + 2, 2, 0x8000);
    b.io(false, MEM, 4, Some(1));
    assert_eq!(b.io(false, table + 2048, 8, None), Some(2));
    b.io(false, table + 28, 4, Some(0));
    let sent = vec![(0xfee0_0000, 0x31, 3 << 3)];
    assert_eq!(*b.messages.0.lock().unwrap(), sent);
    assert_eq!(b.io(false, table + 2048, 8, None), Some(0));
    b.set(msix + 2, 2, 0xc000);
    b.io(false, MEM, 4, Some(1));
    assert_eq!(b.messages.0.lock().unwrap().len(), 1);
    b.set(msix + 2, 2, 0x8000);
    assert_eq!(b.messages.0.lock().unwrap().len(), 2);
    b.set(4, 2, 2);
    b.io(false, MEM, 4, Some(1));
    assert_eq!(b.messages.0.lock().unwrap().len(), 2);
}

#[test]
fn msi_messages_carry_the_vector_in_the_low_bits() {
    let (b, _) = Bench::with_toy();
    b.place();
    let msi = capability(&b, cap::MSI);
    b.set(msi + 4, 4, 0xfee0_1000);
    b.set(msi + 12, 2, 0x40);
    b.set(msi + 2, 2, 0x21);
    b.io(false, MEM, 4, Some(3));
    b.set(msi + 16, 4, 4);
    b.io(false, MEM, 4, Some(2));
    let sent = || b.messages.0.lock().unwrap().clone();
    assert_eq!(sent(), [(0xfee0_1000, 0x43, 24)]);
    b.set(msi + 16, 4, 0);
    assert_eq!(sent()[1..], [(0xfee0_1000, 0x42, 24)]);
}

#[test]
fn memory_is_out_of_reach_without_bus_mastering() {
    let (b, part) = Bench::with_toy();
    b.place();
    b.set(4, 2, 2);
    b.io(false, MEM, 4, Some(0));
    assert_eq!(b.io(false, MEM, 2, None), Some(0xdead + 4));
    b.set(4, 2, 6);
    b.io(false, MEM, 4, Some(0));
    assert_eq!(b.io(false, MEM, 2, None), Some(4));
    assert_eq!(part.with(|d| d.inspect()), [("addr", 24)]);
}

#[test]
fn functions_share_a_slot_only_when_the_first_lets_them() {
    let b = Bench::new();
    let multi = |at: u8| PciOptions {
        multifunction: true,
        ..PciOptions::at(at)
    };
    b.add("a", PciOptions::at(devfn(1, 0))).unwrap();
    assert!(b.add("b", PciOptions::at(devfn(1, 1))).is_err());
    assert!(b.add("c", PciOptions::at(devfn(1, 0))).is_err());
    b.add("d", multi(devfn(2, 0))).unwrap();
    b.add("e", PciOptions::at(devfn(2, 3))).unwrap();
    b.add("f", PciOptions::at(devfn(4, 1))).unwrap();
    assert!(b.add("g", PciOptions::at(devfn(4, 0))).is_err());
    b.add("h", PciOptions::default()).unwrap();
    b.add("i", PciOptions::default()).unwrap();
    let seen: Vec<_> = b
        .bus
        .functions()
        .iter()
        .map(|f| (f.slot, f.function))
        .collect();
    assert_eq!(seen, [(0, 0), (1, 0), (2, 0), (2, 3), (3, 0), (4, 1)]);
}

#[test]
fn info_shows_where_bars_are() {
    let (b, _) = Bench::with_toy();
    b.place();
    let info = b.bus.functions().remove(0);
    assert_eq!(
        (info.class, info.device, info.interrupt_pin),
        (0x00ff, 5, 1)
    );
    let bases: Vec<_> = info.bars.iter().map(|b| (b.index, b.base)).collect();
    let expected = [
        (0, Some(0xc000)),
        (1, Some(0xe000_0000)),
        (4, Some(MEM)),
        (6, None),
    ];
    assert_eq!(bases, expected);
}

#[test]
fn restore_after_save_is_the_same_function() {
    let (b, part) = Bench::with_toy();
    let fresh = part.with(|d| d.save());
    b.place();
    b.io(true, 0xc000, 1, Some(1));
    b.io(false, 0xe000_0010, 8, Some(0xfee0_0000));
    let saved = b.fabric.save();
    b.fabric.reset(ResetKind::Cold);
    assert_eq!(part.with(|d| d.save()), fresh);
    assert_eq!(b.io(false, MEM, 4, None), None);
    b.fabric.restore(&saved).unwrap();
    assert_eq!(b.fabric.save(), saved);
    assert_eq!(b.io(false, MEM, 4, None), Some(4));
    assert_eq!(b.pins.lock().unwrap().last(), Some(&(96, true)));
    let other = Section::new("pci", 1).with(1, vec![0u8; 256]);
    assert!(part.with(|d| d.restore(&other)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_accesses_do_not_panic(
        ops in proptest::collection::vec(
            (0u8..4, any::<bool>(), 0u64..0x1100, 0u32..4, any::<u64>()), 1..100),
    ) {
        let (b, part) = Bench::with_toy();
        b.place();
        for (space, write, offset, size, value) in ops {
            let size = 1u8 << size;
            let value = write.then_some(value);
            match space {
                0 => { b.config(offset & 0xff, size.min(4), value); }
                1 => { b.io(false, 0xe000_0000 + offset, size, value); }
                2 => { b.io(true, 0xcf8 + (offset & 0xf), size, value); }
                _ => { b.io(false, 0xb001_8000 + offset, size, value); }
            }
        }
        let saved = part.with(|d| d.save());
        part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(part.with(|d| d.save()), saved);
    }
}

#[test]
fn an_unplaced_bar_of_ports_answers_at_0_only_where_the_board_says_so() {
    for at_zero in [false, true] {
        let b = Bench::new();
        if at_zero {
            b.bus.allow_zero();
        }
        b.add("toy", PciOptions::at(devfn(3, 0))).unwrap();
        b.set(4, 2, 3);
        let read = b.io(true, 4, 4, None);
        assert_eq!(read, at_zero.then_some(4));
        let infos = b.bus.functions();
        let bars = &infos[0].bars;
        assert_eq!(bars[0].base, at_zero.then_some(0));
        // Memory that nobody placed is nowhere.
        assert!(bars[1..].iter().all(|bar| bar.base.is_none()));
    }
}
