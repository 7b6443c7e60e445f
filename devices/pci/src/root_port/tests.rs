use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use hw_core::{
    Access, Args, Attrs, ChildBus, Clock, Fabric, Initiator, Links, Msi, MsiSink, Part, Placement,
    RegionId, ResetKind, Section, StateError,
};
use hw_pci::{PciBus, PciDevice, PciFunction, PciOptions, Setup};

use super::PCIE_ROOT_PORT;

/// A card: a function that does nothing but drive its pin when poked.
struct Card;

impl PciFunction for Card {
    fn name(&self) -> &'static str {
        "card"
    }
    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), hw_core::DeviceError> {
        setup.ids(0x1234, 0x5678, 0xff_0000, 0);
        setup.interrupt_pin(1);
        Ok(())
    }
    fn reset(&mut self, _: ResetKind) {}
    fn poke(&mut self, pci: &mut hw_pci::Pci, token: u64) {
        pci.set_intx(token != 0);
    }
    fn save(&self) -> Section {
        Section::new("card", 1)
    }
    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("card", 1)
    }
}

#[derive(Default)]
struct Messages(AtomicU32);

impl MsiSink for Messages {
    fn message(&self, _: u64, _: u32, _: u32) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Bench {
    fabric: Fabric,
    bus: PciBus,
    port: Arc<Part>,
    messages: Arc<Messages>,
    pins: Arc<Mutex<Vec<(u32, bool)>>>,
}

const DEVFN: u8 = 3 << 3;
/// The capability, as the first.
const CAP: u16 = 0x40;
const CONTROL: u16 = CAP + 0x18;
const STATUS: u16 = CAP + 0x1a;
/// On, and every event interrupts.
const ON: u64 = 0x117f;
const OFF: u64 = 0x177f;

impl Bench {
    /// A port with MSI enabled that leads to bus 5.
    fn new() -> Self {
        let fabric = Fabric::new(Clock::manual().0);
        let messages = Arc::new(Messages::default());
        fabric.set_msi(Msi::new(messages.clone(), 0));
        let pins: Arc<Mutex<Vec<(u32, bool)>>> = Arc::default();
        let sink = pins.clone();
        let sink = move |pin: u32, level: bool| sink.lock().unwrap().push((pin, level));
        let bus = PciBus::new("pcie.0", true, Arc::new(sink));
        let given = [("addr", "3"), ("slot", "7")];
        let args = Args::new(&PCIE_ROOT_PORT, given).unwrap();
        let device = (PCIE_ROOT_PORT.create)(&args, &mut Links::default()).unwrap();
        let placement = Placement {
            path: "rp".into(),
            bus: Some(&bus),
            ..Placement::default()
        };
        let port = fabric.add(device, placement).unwrap();
        fabric.reset(ResetKind::Cold);
        let b = Bench {
            fabric,
            bus,
            port,
            messages,
            pins,
        };
        b.number();
        b
    }

    fn number(&self) {
        self.write(0, DEVFN, 0x18, 4, 0x05_0500);
        let msi = self.read(0, DEVFN, 0x34, 1) as u16;
        assert_eq!(self.read(0, DEVFN, msi, 1), 5);
        self.write(0, DEVFN, 4, 2, 6);
        self.write(0, DEVFN, msi + 2, 2, 1);
    }

    fn access(size: u8) -> Access {
        Access {
            region: RegionId(0),
            offset: 0,
            size,
            by: Initiator::Cpu(0),
            attrs: Attrs::default(),
        }
    }

    fn read(&self, bus: u8, devfn: u8, register: u16, size: u8) -> u64 {
        let read = self.bus.read(bus, devfn, register, Self::access(size));
        read.unwrap_or(u64::MAX)
    }

    fn write(&self, bus: u8, devfn: u8, register: u16, size: u8, value: u64) {
        let _ = self
            .bus
            .write(bus, devfn, register, Self::access(size), value);
    }

    fn status(&self) -> u64 {
        self.read(0, DEVFN, STATUS, 2)
    }

    fn clear(&self) {
        self.write(0, DEVFN, STATUS, 2, 0xffff);
    }

    fn messages(&self) -> u32 {
        self.messages.0.swap(0, Ordering::SeqCst)
    }

    fn child(&self) -> ChildBus {
        self.port.with(|port| port.child_buses()).remove(0)
    }

    fn plug(&self) -> Arc<Part> {
        let child = self.child();
        let card = PciDevice::new(Card, PciOptions::default());
        let placement = Placement {
            path: "card".into(),
            bus: Some(child.bus.as_ref()),
            ..Placement::default()
        };
        let part = self.fabric.add(Box::new(card), placement).unwrap();
        child.hot_plug.unwrap().changed();
        part
    }
}

#[test]
fn functions_below_are_reached_by_the_number_of_their_bus() {
    let b = Bench::new();
    assert_eq!(b.read(0, DEVFN, 0x0e, 1), 1);
    assert_eq!(b.read(5, 0, 0, 4), u64::MAX);
    let card = b.plug();
    assert_eq!(b.read(5, 0, 0, 4), 0x5678_1234);
    assert_eq!(b.read(5, 8, 0, 4), u64::MAX);
    assert_eq!(b.read(6, 0, 0, 4), u64::MAX);
    b.write(0, DEVFN, 0x18, 4, 0x09_0900);
    assert_eq!(
        (b.read(5, 0, 0, 4), b.read(9, 0, 0, 4)),
        (u64::MAX, 0x5678_1234)
    );
    let numbers: Vec<_> = b.bus.all_functions().iter().map(|f| f.bus).collect();
    assert_eq!(numbers, [0, 9]);
    // Its pin is one of the port's.
    card.with(|card| card.poke(1));
    card.with(|card| card.poke(0));
    let pin = u32::from(DEVFN) << 2;
    assert_eq!(*b.pins.lock().unwrap(), [(pin, true), (pin, false)]);
}

#[test]
fn a_card_that_is_plugged_in_is_told_of_by_a_message() {
    let b = Bench::new();
    // Empty, and off.
    assert_eq!(b.status() & 0x40, 0);
    assert_eq!(b.read(0, DEVFN, CONTROL, 2), 0x07c0);
    b.write(0, DEVFN, CONTROL, 2, OFF);
    assert_eq!((b.status() & 0x10, b.messages()), (0x10, 1));
    b.clear();
    b.plug();
    assert_eq!(b.status(), 0x148);
    assert_eq!(b.read(0, DEVFN, CAP + 0x12, 2), 0x2011);
    assert_eq!(b.messages(), 1);
    assert!(b.child().free.is_none());
    b.clear();
    assert_eq!(b.status(), 0x40);
    b.fabric.remove("card").unwrap();
    b.child().hot_plug.unwrap().changed();
    assert_eq!((b.status(), b.messages()), (0x108, 1));
    assert_eq!(b.read(5, 0, 0, 4), u64::MAX);
}

#[test]
fn a_card_is_let_go_of_when_the_guest_switches_it_off() {
    let b = Bench::new();
    b.plug();
    b.write(0, DEVFN, CONTROL, 2, ON);
    b.clear();
    b.messages();
    let released = Arc::new(AtomicU32::new(0));
    let ask = || {
        let released = released.clone();
        let told = Arc::new(move || {
            released.fetch_add(1, Ordering::SeqCst);
        });
        b.child().hot_plug.unwrap().ask(told)
    };
    ask().unwrap();
    // The button is pressed, once.
    assert_eq!((b.status() & 1, b.messages()), (1, 1));
    assert!(ask().is_err());
    b.clear();
    // Off, but the indicator is on still.
    b.write(0, DEVFN, CONTROL, 2, ON | 0x400);
    assert_eq!(released.load(Ordering::SeqCst), 0);
    b.write(0, DEVFN, CONTROL, 2, OFF);
    assert_eq!(released.load(Ordering::SeqCst), 1);
    // Off already: nobody is to be asked.
    ask().unwrap();
    assert_eq!(released.load(Ordering::SeqCst), 2);
    // Neither is a guest that starts anew.
    b.write(0, DEVFN, CONTROL, 2, ON);
    ask().unwrap();
    b.fabric.reset(ResetKind::Cold);
    assert_eq!(released.load(Ordering::SeqCst), 3);
}

#[test]
fn a_saved_port_leads_where_it_did() {
    let b = Bench::new();
    b.plug();
    b.write(0, DEVFN, CONTROL, 2, ON);
    let saved = b.fabric.save();
    b.fabric.reset(ResetKind::Cold);
    assert_eq!(b.read(5, 0, 0, 4), u64::MAX);
    b.fabric.restore(&saved).unwrap();
    assert!(b.fabric.save() == saved);
    assert_eq!(b.read(5, 0, 0, 4), 0x5678_1234);
    assert_eq!(b.read(0, DEVFN, CONTROL, 2), ON);
}

#[test]
fn a_port_needs_an_express_root_bus_and_has_one_slot() {
    let b = Bench::new();
    let port = |bus: &PciBus, path: &str| {
        let args = Args::new(&PCIE_ROOT_PORT, []).unwrap();
        let device = (PCIE_ROOT_PORT.create)(&args, &mut Links::default()).unwrap();
        let placement = Placement {
            path: path.into(),
            bus: Some(bus),
            ..Placement::default()
        };
        b.fabric.add(device, placement).err().unwrap().to_string()
    };
    let old = PciBus::new("pci.0", false, Arc::new(|_: u32, _: bool| {}));
    assert!(port(&old, "a").contains("PCI Express root bus"));
    let child = b.child();
    let below = child.bus.downcast_ref::<PciBus>().unwrap();
    assert!(port(below, "b").contains("PCI Express root bus"));
    let error = below.place("card", Some(8), false).unwrap_err();
    assert!(error.to_string().contains("no slot 0x1"));
}
