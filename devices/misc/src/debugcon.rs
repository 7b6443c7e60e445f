//! `isa-debugcon`: a write-only console at one port, for firmware.
//!
//! Spec: Bochs's port E9; QEMU `hw/char/debugcon.c`. Firmware takes the device for present when the
//! port reads as its `readback` value.

use std::collections::VecDeque;
use std::sync::Arc;

use backend_char::{CharFrontend, CharSink};
use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Prop,
    PropType, Region, ResetKind, Section, StateError, Wiring,
};

/// The class.
pub static ISA_DEBUGCON: DeviceClass = DeviceClass {
    name: "isa-debugcon",
    aliases: &[],
    doc: "firmware's debug console",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[
        Prop {
            name: "iobase",
            ty: PropType::U16,
            default: "0xe9",
            doc: "the port (SeaBIOS and OVMF: 0x402)",
        },
        Prop {
            name: "readback",
            ty: PropType::U8,
            default: "0xe9",
            doc: "what the port reads as",
        },
        Prop {
            name: "chardev",
            ty: PropType::Link("chardev"),
            default: "",
            doc: "where the output goes",
        },
    ],
    user_creatable: true,
    create: |args, links| {
        let chardev = args.link::<CharFrontend>("chardev", links)?;
        let chardev = chardev.ok_or(DeviceError::Required {
            class: "isa-debugcon",
            name: "chardev",
            doc: "where the output goes",
        })?;
        Ok(Box::new(Debugcon {
            chardev,
            base: args.need_int("iobase")?,
            readback: args.need_int("readback")?,
            pending: VecDeque::new(),
        }))
    },
};

/// Output that a slow reader has not taken; beyond this it is lost.
const PENDING_MAX: usize = 64 << 10;

/// A debug console.
pub struct Debugcon {
    chardev: CharFrontend,

    base: u64,
    readback: u64,

    /// Host side only: the guest cannot see what was not taken yet.
    pending: VecDeque<u8>,
}

/// Tells the device that there is room again.
struct Waker(Arc<dyn Fn(u64) + Send + Sync>);

impl CharSink for Waker {
    fn can_receive(&self) -> usize {
        0
    }

    fn receive(&self, _: &[u8]) {}

    fn writable(&self) {
        (self.0)(0);
    }
}

impl Debugcon {
    fn flush(&mut self) {
        while !self.pending.is_empty() {
            let taken = self.chardev.write(self.pending.as_slices().0);
            if taken == 0 {
                break;
            }
            self.pending.drain(..taken.min(self.pending.len()));
        }
    }
}

impl Device for Debugcon {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.ports(Region::new("isa-debugcon", self.base, 1).sizes(AccessSizes::BYTE));
        self.chardev.attach(Arc::new(Waker(w.poke())));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    fn read(&mut self, _: Access) -> Result<u64, Fault> {
        Ok(self.readback)
    }

    fn write(&mut self, _: Access, value: u64) -> Result<(), Fault> {
        if self.pending.len() < PENDING_MAX {
            self.pending.push_back(value as u8);
        }
        self.flush();
        Ok(())
    }

    fn poke(&mut self, _: u64) {
        self.flush();
    }

    fn save(&self) -> Section {
        Section::new("isa-debugcon", 1)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("isa-debugcon", 1)
    }
}
