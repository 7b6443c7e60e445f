//! Generic event device with sleep and reset registers: ACPI without fixed hardware.
//!
//! Spec: ACPI 6.5, section 5.6.9 "Interrupt-signaled ACPI events", section 4.8.3.7 "Sleep Control
//! and Status Registers"; register layout of QEMU's `acpi-ged` on `microvm`.
//!
//! Not modelled: memory and CPU hot plug events.

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Initiator,
    IrqLine, IrqPin, PowerButton, Prop, PropType, Region, RegionId, Request, Requests, ResetKind,
    Section, StateError, Wiring,
};

/// The class. Its pin is `ged`, edge-triggered. A [`PowerButton`] may be offered as link of kind
/// `power-button` with the id `ged`.
pub static ACPI_GED: DeviceClass = DeviceClass {
    name: "acpi-ged",
    aliases: &[],
    doc: "ACPI generic event device",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[Prop {
        name: "base",
        ty: PropType::U64,
        default: "0xfea00000",
        doc: "first address of the event selector; the registers follow 0x200 above",
    }],
    user_creatable: false,
    create: |args, links| {
        let button = links.take::<PowerButton>("power-button", "ged");
        let mut device = Ged::new(button.unwrap_or_default());
        device.base = args.need_int("base")?;
        Ok(Box::new(device))
    },
};

/// Where `microvm` has the event selector.
pub const GED_EVENT_BASE: u64 = 0xfea0_0000;
/// Where `microvm` has the sleep and reset registers.
pub const GED_REGISTER_BASE: u64 = GED_EVENT_BASE + REGISTERS;
const REGISTERS: u64 = 0x200;

/// Numbers that the ACPI tables repeat.
pub mod ged_register {
    /// Event selector bit: the power button was pressed.
    pub const POWER_BUTTON: u32 = 1 << 1;
    /// Offset of the sleep control register.
    pub const SLEEP_CONTROL: u64 = 0;
    /// Offset of the sleep status register.
    pub const SLEEP_STATUS: u64 = 1;
    /// Offset of the reset register.
    pub const RESET: u64 = 2;
    /// What to write there.
    pub const RESET_VALUE: u8 = 0x42;
    /// Sleep type of S5.
    pub const SLEEP_TYPE_S5: u8 = 5;
    /// Bit that makes the sleep type count.
    pub(crate) const SLEEP_ENABLE: u8 = 1 << 5;
}

/// The generic event device.
pub struct Ged {
    irq: IrqLine,
    requests: Requests,
    registers: Option<RegionId>,

    base: u64,
    has_registers: bool,
    button: PowerButton,

    /// Events that were not read yet: all the state.
    events: u32,
}

impl Ged {
    /// A device at the place where `microvm` has it, whose power button is `button`.
    pub fn new(button: PowerButton) -> Self {
        Ged {
            irq: IrqLine::default(),
            requests: Requests::default(),
            registers: None,
            base: GED_EVENT_BASE,
            has_registers: true,
            button,
            events: 0,
        }
    }
}

impl Ged {
    /// A device with nothing but the event selector at `base`.
    pub fn events_only(base: u64, button: PowerButton) -> Self {
        Ged {
            base,
            has_registers: false,
            ..Ged::new(button)
        }
    }
}

impl Device for Ged {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.irq = w.irq(IrqPin::Named("ged"));
        self.requests = w.requests();
        w.mmio(Region::new("acpi-ged", self.base, 4).sizes(AccessSizes::WORD));
        if self.has_registers {
            let at = self.base.wrapping_add(REGISTERS);
            let (id, _) = w.mmio(Region::new("acpi-ged-regs", at, 3).sizes(AccessSizes::BYTE));
            self.registers = Some(id);
        }
        self.button.connect(w.poke());
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.events = 0;
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        if Some(access.region) == self.registers {
            return Ok(0);
        }
        if access.by == Initiator::Debug {
            return Ok(self.events.into());
        }
        // Reading takes the events.
        Ok(std::mem::take(&mut self.events).into())
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        if Some(access.region) != self.registers {
            return Err(Fault::ReadOnly);
        }
        let value = value as u8;
        match access.offset {
            ged_register::SLEEP_CONTROL if value & ged_register::SLEEP_ENABLE != 0 => {
                if value >> 2 & 7 == ged_register::SLEEP_TYPE_S5 {
                    self.requests.post(Request::PowerOff);
                }
            }
            ged_register::SLEEP_CONTROL | ged_register::SLEEP_STATUS => {}
            ged_register::RESET if value == ged_register::RESET_VALUE => {
                self.requests.post(Request::Reset)
            }
            _ => return Err(Fault::BadValue),
        }
        Ok(())
    }

    fn poke(&mut self, _: u64) {
        self.events |= ged_register::POWER_BUTTON;
        self.irq.pulse();
    }

    fn save(&self) -> Section {
        Section::new("acpi-ged", 1).with(1, self.events)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("acpi-ged", 1)?;
        self.events = section.u32(1)?;
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![("events", self.events.into())]
    }
}
