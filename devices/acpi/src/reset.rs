//! The reset control register at port 0xcf9.
//!
//! Spec: Intel 82371SB (PIIX3) datasheet, "RC: Reset Control Register"; ICH9
//! datasheet, section 13.7.5 "RST_CNT". Bit 2 resets, bit 1 says how thoroughly.

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Region,
    Request, Requests, ResetKind, Section, StateError, Wiring,
};

/// The class: for boards whose south bridge does not bring the register.
pub static RESET_CONTROL: DeviceClass = DeviceClass {
    name: "reset-control",
    aliases: &[],
    doc: "reset register at port 0xcf9",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[],
    user_creatable: false,
    create: |_, _| Ok(Box::new(ResetControl::default())),
};

const SYSTEM_RESET: u8 = 1 << 1;
const RESET_CPU: u8 = 1 << 2;

/// The register.
#[derive(Default)]
pub struct ResetControl {
    requests: Requests,
    value: u8,
}

impl Device for ResetControl {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.requests = w.requests();
        // It lies within the PCI configuration ports.
        let region = Region::new("reset-control", 0xcf9, 1).priority(2);
        w.ports(region.sizes(AccessSizes::BYTE));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.value = 0;
    }

    fn read(&mut self, _: Access) -> Result<u64, Fault> {
        Ok(self.value.into())
    }

    fn write(&mut self, _: Access, value: u64) -> Result<(), Fault> {
        let value = value as u8;
        self.value = value & SYSTEM_RESET;
        if value & RESET_CPU != 0 {
            self.requests.post(Request::Reset);
        }
        Ok(())
    }

    fn save(&self) -> Section {
        Section::new("reset-control", 1).with(1, self.value)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("reset-control", 1)?;
        self.value = section.u8(1)? & SYSTEM_RESET;
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![("value", self.value.into())]
    }
}
