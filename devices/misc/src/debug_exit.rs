//! `isa-debug-exit`: a port that ends the emulator with a status of the guest's choice.
//!
//! Spec: QEMU `hw/misc/debugexit.c`: writing `v` ends the process with status `v << 1 | 1`.

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Prop,
    PropType, Region, Request, Requests, ResetKind, Section, StateError, Wiring,
};

/// The class.
pub static ISA_DEBUG_EXIT: DeviceClass = DeviceClass {
    name: "isa-debug-exit",
    aliases: &[],
    doc: "a port that ends the emulator with a status",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[
        Prop {
            name: "iobase",
            ty: PropType::U16,
            default: "0x501",
            doc: "the port",
        },
        Prop {
            name: "iosize",
            ty: PropType::U16,
            default: "2",
            doc: "how many ports",
        },
    ],
    user_creatable: true,
    create: |args, _| {
        Ok(Box::new(DebugExit {
            requests: Requests::default(),
            base: args.need_int("iobase")?,
            len: args.need_int("iosize")?.max(1),
        }))
    },
};

/// Ends the process.
pub struct DebugExit {
    requests: Requests,
    base: u64,
    len: u64,
}

impl Device for DebugExit {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.requests = w.requests();
        let region = Region::new("isa-debug-exit", self.base, self.len);
        w.ports(region.sizes(AccessSizes::UP_TO_4));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    fn read(&mut self, _: Access) -> Result<u64, Fault> {
        Ok(0)
    }

    fn write(&mut self, _: Access, value: u64) -> Result<(), Fault> {
        // A process has eight bits of status.
        self.requests.post(Request::Exit((value << 1 | 1) as u8));
        Ok(())
    }

    fn save(&self) -> Section {
        Section::new("isa-debug-exit", 1)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("isa-debug-exit", 1)
    }
}
