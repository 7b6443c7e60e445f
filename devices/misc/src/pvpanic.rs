//! `pvpanic`: a guest's way to say that it panicked.
//!
//! Spec: QEMU `docs/specs/pvpanic.rst`. Reading says which events the device takes.

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Prop,
    PropType, Region, Request, Requests, ResetKind, Section, StateError, Wiring,
};

/// The class.
pub static PVPANIC: DeviceClass = DeviceClass {
    name: "pvpanic",
    aliases: &[],
    doc: "lets a guest report its panic",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[
        Prop {
            name: "ioport",
            ty: PropType::U16,
            default: "0x505",
            doc: "the port",
        },
        Prop {
            name: "events",
            ty: PropType::U8,
            default: "7",
            doc: "events taken: 1 panicked, 2 crash kernel loaded, 4 shutdown",
        },
    ],
    user_creatable: true,
    create: |args, _| {
        Ok(Box::new(Pvpanic {
            requests: Requests::default(),
            port: args.need_int("ioport")?,
            events: args.need_int("events")? & ALL,
        }))
    },
};

const PANICKED: u64 = 1;
const CRASH_LOADED: u64 = 1 << 1;
const SHUTDOWN: u64 = 1 << 2;
const ALL: u64 = PANICKED | CRASH_LOADED | SHUTDOWN;

/// The panic device. It has no state.
pub struct Pvpanic {
    requests: Requests,
    port: u64,
    events: u64,
}

impl Device for Pvpanic {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.requests = w.requests();
        w.ports(Region::new("pvpanic", self.port, 1).sizes(AccessSizes::BYTE));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    fn read(&mut self, _: Access) -> Result<u64, Fault> {
        Ok(self.events)
    }

    fn write(&mut self, _: Access, value: u64) -> Result<(), Fault> {
        let event = value & self.events;
        let request = if event & PANICKED != 0 {
            Request::Panicked
        } else if event & CRASH_LOADED != 0 {
            Request::CrashLoaded
        } else if event & SHUTDOWN != 0 {
            Request::PowerOff
        } else {
            return Err(Fault::BadValue);
        };
        self.requests.post(request);
        Ok(())
    }

    fn save(&self) -> Section {
        Section::new("pvpanic", 1)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("pvpanic", 1)
    }
}
