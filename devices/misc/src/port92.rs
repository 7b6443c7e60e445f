//! System control port A, "port 92": fast A20 and fast reset.
//!
//! Spec: IBM PS/2 Hardware Interface Technical Reference, "System Control Port A". Bit 0 resets on
//! a rising edge, bit 1 enables address line 20.

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, IrqLine,
    IrqPin, Region, Request, Requests, ResetKind, Section, StateError, Wiring,
};

/// The class. Its pin is `a20`.
pub static PORT92: DeviceClass = DeviceClass {
    name: "port92",
    aliases: &[],
    doc: "system control port A: address line 20 and fast reset",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[],
    user_creatable: false,
    create: |_, _| Ok(Box::new(Port92::default())),
};

const RESET: u8 = 1;
const A20: u8 = 2;

/// System control port A.
#[derive(Default)]
pub struct Port92 {
    a20: IrqLine,
    requests: Requests,

    /// The register, all there is.
    value: u8,
}

impl Port92 {
    fn sync(&self) {
        self.a20.set(self.value & A20 != 0);
    }
}

impl Device for Port92 {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.a20 = w.irq(IrqPin::Named("a20"));
        self.requests = w.requests();
        w.ports(Region::new("port92", 0x92, 1).sizes(AccessSizes::BYTE));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.value = 0;
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, _: Access) -> Result<u64, Fault> {
        Ok(self.value.into())
    }

    fn write(&mut self, _: Access, value: u64) -> Result<(), Fault> {
        let before = std::mem::replace(&mut self.value, value as u8);
        self.sync();
        if self.value & !before & RESET != 0 {
            self.requests.post(Request::Reset);
        }
        Ok(())
    }

    fn save(&self) -> Section {
        Section::new("port92", 1).with(1, self.value)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("port92", 1)?;
        self.value = section.u8(1)?;
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![("value", self.value.into())]
    }
}
