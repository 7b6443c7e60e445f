use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// A device with one register that drives its pin and counts timer ticks.
#[derive(Default)]
struct Toy {
    irq: IrqLine,
    timer: Option<Timer>,
    value: u64,
    ticks: u32,
}

impl Device for Toy {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.ports(Region::new("toy", 0x70, 2));
        self.irq = w.irq(IrqPin::Bus(1));
        self.timer = Some(w.timer(TimerId(0)));
        Ok(())
    }
    fn reset(&mut self, _: ResetKind) {
        self.value = 0;
    }
    fn after_reset(&mut self) {
        self.irq.set(self.value != 0);
    }
    fn read(&mut self, _: Access) -> Result<u64, Fault> {
        Ok(self.value)
    }
    fn write(&mut self, _: Access, value: u64) -> Result<(), Fault> {
        self.value = value;
        if let Some(timer) = &self.timer {
            timer.arm(value);
        }
        self.after_reset();
        Ok(())
    }
    fn timer(&mut self, _: TimerId) {
        self.ticks += 1;
        self.irq.set(false);
    }
    fn save(&self) -> Section {
        Section::new("toy", 1).with(1, self.value)
    }
    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        s.expect("toy", 1)?;
        self.value = s.u64(1)?;
        Ok(())
    }
}

static TOY: DeviceClass = DeviceClass {
    name: "toy",
    aliases: &[],
    doc: "a toy",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[
        Prop {
            name: "iobase",
            ty: PropType::U16,
            default: "0x70",
            doc: "first port",
        },
        Prop {
            name: "share-rw",
            ty: PropType::Bool,
            default: "off",
            doc: "sharing",
        },
        Prop {
            name: "mode",
            ty: PropType::Enum(&["fast", "slow"]),
            default: "fast",
            doc: "speed",
        },
        Prop {
            name: "chardev",
            ty: PropType::Link("chardev"),
            default: "",
            doc: "output",
        },
    ],
    user_creatable: true,
    create: |_, _| Ok(Box::new(Toy::default())),
};

fn placed(irqs: &[IrqHub]) -> Placement<'_> {
    Placement {
        path: "toy0".into(),
        class: "toy",
        bus_irqs: irqs,
        ..Placement::default()
    }
}

#[test]
fn an_access_reaches_the_device_and_its_pin_the_controller() {
    let (clock, time) = Clock::manual();
    let fabric = Fabric::new(clock.clone());
    let level = Arc::new(AtomicU32::new(9));
    let seen = level.clone();
    let sink: Arc<dyn IrqSink> =
        Arc::new(move |pin, on| seen.store(pin * 10 + u32::from(on), Ordering::SeqCst));
    let hubs = [IrqHub::new(sink.clone(), 0), IrqHub::new(sink, 1)];
    let part = fabric.add(Box::new(Toy::default()), placed(&hubs)).unwrap();
    let ports = fabric.ports.snapshot();
    ports
        .write(
            0x70,
            1,
            5,
            ByteOrder::Little,
            Initiator::Cpu(0),
            Attrs::default(),
        )
        .unwrap();
    assert_eq!(level.load(Ordering::SeqCst), 11);
    time.advance_ns(5);
    clock.run_timers();
    assert_eq!(level.load(Ordering::SeqCst), 10);
    let saved = fabric.save();
    fabric.reset(ResetKind::Cold);
    assert_eq!(part.with(|d| d.save().u64(1)), Ok(0));
    fabric.restore(&saved).unwrap();
    assert_eq!(part.with(|d| d.save().u64(1)), Ok(5));
    assert!(fabric.restore(&[]).is_err());
    assert!(fabric.add(Box::new(Toy::default()), placed(&hubs)).is_err());
}

#[test]
fn a_shared_wire_is_high_while_any_pin_is() {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let seen = changes.clone();
    let hub = IrqHub::new(
        Arc::new(move |_: u32, on: bool| seen.lock().unwrap().push(on)),
        0,
    );
    let (a, b) = (hub.line(), hub.line());
    a.set(true);
    b.set(true);
    a.set(false);
    assert!(hub.level());
    drop(b);
    assert_eq!(*changes.lock().unwrap(), [true, false]);
}

#[test]
fn properties_are_checked_and_the_nearest_name_is_offered() {
    let args = Args::new(&TOY, [("iobase", "0x80"), ("share_rw", "on")]).unwrap();
    assert_eq!(args.int("iobase"), Some(0x80));
    assert_eq!(args.flag("share-rw"), Some(true));
    assert_eq!(args.text("mode"), Some("fast"));
    let error = Args::new(&TOY, [("iobas", "1")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "device 'toy' has no property 'iobas'; did you mean 'iobase'?"
    );
    let error = Args::new(&TOY, [("iobase", "70000")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "device 'toy' property 'iobase': '70000' is not a number from 0 to 65535"
    );
    let error = Args::new(&TOY, [("mode", "fats")]).unwrap_err();
    assert!(error.to_string().contains("did you mean 'fast'"));
}

#[test]
fn a_back_end_is_handed_out_once() {
    let mut links = Links::default();
    links.offer("chardev", "c0", 7u32);
    let args = Args::new(&TOY, [("chardev", "c0")]).unwrap();
    assert_eq!(args.link::<u32>("chardev", &mut links), Ok(Some(7)));
    assert!(args.link::<u32>("chardev", &mut links).is_err());
    let args = Args::new(&TOY, []).unwrap();
    assert_eq!(args.link::<u32>("chardev", &mut links), Ok(None));
}
