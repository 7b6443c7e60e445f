//! ACPI power management block of PIIX4 and ICH9.
//!
//! Spec: ACPI 6.5, section 4.8 "ACPI Hardware Features"; Intel 82371AB (PIIX4) datasheet, section
//! 7.2 "Power Management I/O Space"; Intel I/O Controller Hub 9 datasheet, section 13.8.3. General
//! purpose events of the PIIX4 form lie where QEMU has them.
//!
//! The timer is never ticked: it is the virtual clock times 3.579545 MHz.
//!
//! The bridge that owns the base address register places the block through a [`PmWindow`].
//!
//! Not modelled: throttling, the watchdog (TCO), sleep states but S5, unless `s3` is on.

use std::sync::{Arc, Mutex, PoisonError};

use hw_clock::{ns_to_ticks, ticks_to_ns};
use hw_core::{
    Access, AccessSizes, BusKind, Category, Clock, Device, DeviceClass, DeviceError, Fault,
    IrqLine, IrqPin, Mapping, PowerButton, Prop, PropType, Region, RegionId, Request, Requests,
    ResetKind, Section, StateError, Timer, TimerId, Wiring,
};

/// The class, for the board alone. Its pins are `sci` and `smi`.
pub static ACPI_PM: DeviceClass = DeviceClass {
    name: "acpi-pm",
    aliases: &[],
    doc: "ACPI power management block",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[
        Prop {
            name: "layout",
            ty: PropType::Enum(&["piix4", "ich9"]),
            default: "piix4",
            doc: "whose registers",
        },
        Prop {
            name: "s3",
            ty: PropType::Bool,
            default: "off",
            doc: "let the guest sleep (S3)",
        },
        Prop {
            name: "smm",
            ty: PropType::Bool,
            default: "off",
            doc: "raise system management interrupts",
        },
    ],
    user_creatable: false,
    create: |args, _| {
        Ok(Box::new(PmBlock::new(PmConfig {
            layout: match args.text("layout") {
                Some("ich9") => PmLayout::Ich9,
                _ => PmLayout::Piix4,
            },
            s3: args.flag("s3").unwrap_or(false),
            smm: args.flag("smm").unwrap_or(false),
            ..PmConfig::default()
        })))
    },
};

/// The PM timer's frequency.
const TIMER_HZ: u64 = 3_579_545;
/// The timer has 24 bits; its status bit follows changes of the highest.
const TIMER_MASK: u64 = 0xff_ffff;
const HALF_PERIOD: u64 = 0x80_0000;

/// Where QEMU's PC has the general purpose event registers.
pub const PIIX4_GPE_BASE: u64 = 0xafe0;
/// Advanced power management control (the SMI command port) and status.
const APM_BASE: u64 = 0xb2;

/// Offsets in the block.
mod reg {
    /// PM1 status (low half) and enable (high half).
    pub(super) const PM1_EVENT: u64 = 0x00;
    pub(super) const PM1_CONTROL: u64 = 0x04;
    pub(super) const TIMER: u64 = 0x08;
    /// ICH9: general purpose event status, 64 bits, and enable, 64 bits.
    pub(super) const GPE0_STATUS: u64 = 0x20;
    pub(super) const GPE0_ENABLE: u64 = 0x28;
    /// ICH9: SMI enable and status.
    pub(super) const SMI_ENABLE: u64 = 0x30;
    pub(super) const SMI_STATUS: u64 = 0x34;
}

/// Bits of PM1 status and enable.
mod pm1 {
    pub(super) const TIMER: u16 = 1;
    pub(super) const GLOBAL: u16 = 1 << 5;
    pub(super) const POWER_BUTTON: u16 = 1 << 8;
    pub(super) const RTC: u16 = 1 << 10;
    pub(super) const WAKE: u16 = 1 << 15;
    /// Those that raise the interrupt.
    pub(super) const SCI: u16 = TIMER | GLOBAL | POWER_BUTTON | RTC;
}

/// Bits of PM1 control.
mod control {
    pub(super) const SCI_ENABLE: u16 = 1;
    pub(super) const SLEEP_ENABLE: u16 = 1 << 13;
    pub(super) const SLEEP_TYPE_SHIFT: u32 = 10;
}

/// Sleep types as the tables say them.
mod sleep {
    pub(super) const S5: u16 = 0;
    pub(super) const S3: u16 = 1;
    pub(super) const S4: u16 = 2;
}

/// ICH9 SMI enable: a write to the command port raises an SMI.
const APMC_ENABLE: u32 = 1 << 5;

/// Whose registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PmLayout {
    /// 82371AB, as on `pc`.
    #[default]
    Piix4,
    /// ICH9, as on `q35`.
    Ich9,
}

impl PmLayout {
    /// Bytes of the block.
    pub fn len(self) -> u64 {
        match self {
            PmLayout::Piix4 => 64,
            PmLayout::Ich9 => 128,
        }
    }

    /// Never: blocks have registers.
    pub fn is_empty(self) -> bool {
        false
    }

    /// What switches ACPI mode on and off when written to port 0xb2.
    pub fn acpi_commands(self) -> (u8, u8) {
        match self {
            PmLayout::Piix4 => (0xf1, 0xf0),
            PmLayout::Ich9 => (0x02, 0x03),
        }
    }
}

/// Moves the block: held by the bridge whose configuration space has its base address, or by a
/// board that boots without firmware. Clones move the same block.
#[derive(Clone, Default)]
pub struct PmWindow {
    mapping: Arc<Mutex<Option<Mapping>>>,
}

impl PmWindow {
    /// Places the block at a port, or takes it away.
    pub fn place(&self, base: u64, enabled: bool) {
        let mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapping) = &*mapping {
            mapping.place(base, enabled);
        }
    }
}

/// How a block is built.
#[derive(Clone, Default)]
pub struct PmConfig {
    /// Whose registers.
    pub layout: PmLayout,
    /// Where the block is moved from.
    pub window: PmWindow,
    /// Its power button.
    pub button: PowerButton,
    /// Whether S3 works.
    pub s3: bool,
    /// Whether the CPUs take system management interrupts. If not, the ICH9 form looks to firmware
    /// as if they were set up already (a PIIX4 function does the same with its DEVACTB register).
    pub smm: bool,
}

/// Which region is which.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Block,
    Gpe,
    Apm,
}

/// The power management block.
pub struct PmBlock {
    sci: IrqLine,
    smi: IrqLine,
    requests: Requests,
    clock: Option<Clock>,
    timer: Option<Timer>,
    regions: Vec<(RegionId, Which)>,

    config: PmConfig,

    state: State,
}

/// Everything the guest can observe.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
    /// Timer ticks, not cut to 24 bits, at which the timer status is set next.
    overflow_at: u64,
    gpe_status: u64,
    gpe_enable: u64,
    smi_enable: u32,
    smi_status: u32,
    apm_control: u8,
    apm_status: u8,
}

/// A write of some bytes of a 32-bit register.
#[derive(Clone, Copy)]
struct Lanes {
    /// The bytes written, in place.
    value: u32,
    /// Ones where bytes were written.
    mask: u32,
}

impl Lanes {
    fn of(access: Access, value: u64) -> Self {
        let shift = (access.offset as u32 & 3).wrapping_mul(8);
        let mask = match access.size {
            1 => 0xff,
            2 => 0xffff,
            _ => u32::MAX,
        };
        Lanes {
            value: (value as u32 & mask).wrapping_shl(shift),
            mask: mask.wrapping_shl(shift),
        }
    }

    /// A register's value after the write.
    fn into_u32(self, before: u32) -> u32 {
        before & !self.mask | self.value
    }

    /// The upper 16 bits.
    fn high(self) -> Self {
        Lanes {
            value: self.value >> 16,
            mask: self.mask >> 16,
        }
    }

    /// A 16-bit register's value after the write.
    fn into_u16(self, before: u16) -> u16 {
        self.into_u32(before.into()) as u16
    }

    /// A half of a 64-bit register, 0 or 32 bits up.
    fn into_u64(self, before: u64, up: u32) -> u64 {
        let half = u64::from(self.into_u32(before.wrapping_shr(up) as u32));
        before & !0xffff_ffffu64.wrapping_shl(up) | half.wrapping_shl(up)
    }
}

impl PmBlock {
    /// A block.
    pub fn new(config: PmConfig) -> Self {
        PmBlock {
            sci: IrqLine::default(),
            smi: IrqLine::default(),
            requests: Requests::default(),
            clock: None,
            timer: None,
            regions: Vec::new(),
            config,
            state: State::default(),
        }
    }

    fn ticks(&self) -> u64 {
        let now = self.clock.as_ref().map_or(0, Clock::now_ns);
        ns_to_ticks(now, TIMER_HZ)
    }

    /// PM1 status; the timer's bit is only looked at when somebody asks.
    fn status(&self) -> u16 {
        if self.ticks() >= self.state.overflow_at {
            self.state.status | pm1::TIMER
        } else {
            self.state.status
        }
    }

    /// The next time the timer's highest bit changes.
    fn next_overflow(&self) -> u64 {
        (self.ticks() & !(HALF_PERIOD.wrapping_sub(1))).wrapping_add(HALF_PERIOD)
    }

    /// Brings interrupt and timer in line with the state.
    fn sync(&mut self) {
        self.state.status = self.status();
        let s = &self.state;
        let fixed = s.status & s.enable & pm1::SCI != 0;
        self.sci.set(fixed || s.gpe_status & s.gpe_enable != 0);
        if let Some(timer) = &self.timer {
            if s.enable & pm1::TIMER != 0 && s.status & pm1::TIMER == 0 {
                timer.arm(ticks_to_ns(s.overflow_at, TIMER_HZ));
            } else {
                timer.disarm();
            }
        }
    }

    fn which(&self, access: Access) -> Result<Which, Fault> {
        let found = self.regions.iter().find(|(id, _)| *id == access.region);
        found.map(|(_, which)| *which).ok_or(Fault::NoRegister)
    }

    /// The 32-bit register that holds an offset.
    fn register(&self, offset: u64) -> u32 {
        let ich9 = self.config.layout == PmLayout::Ich9;
        match offset & !3 {
            reg::PM1_EVENT => u32::from(self.state.enable) << 16 | u32::from(self.status()),
            reg::PM1_CONTROL => self.state.control.into(),
            reg::TIMER => (self.ticks() & TIMER_MASK) as u32,
            reg::GPE0_STATUS if ich9 => self.state.gpe_status as u32,
            0x24 if ich9 => (self.state.gpe_status >> 32) as u32,
            reg::GPE0_ENABLE if ich9 => self.state.gpe_enable as u32,
            0x2c if ich9 => (self.state.gpe_enable >> 32) as u32,
            reg::SMI_ENABLE if ich9 => self.state.smi_enable,
            reg::SMI_STATUS if ich9 => self.state.smi_status,
            _ => 0,
        }
    }

    fn write_block(&mut self, offset: u64, lanes: Lanes) {
        let ich9 = self.config.layout == PmLayout::Ich9;
        match offset & !3 {
            reg::PM1_EVENT => {
                self.state.status = self.status() & !(lanes.value as u16);
                if lanes.value as u16 & pm1::TIMER != 0 {
                    self.state.overflow_at = self.next_overflow();
                }
                self.state.enable = lanes.high().into_u16(self.state.enable);
            }
            reg::PM1_CONTROL => {
                let value = lanes.into_u16(self.state.control);
                self.state.control = value & !control::SLEEP_ENABLE;
                if lanes.value as u16 & control::SLEEP_ENABLE != 0 {
                    self.sleep(value >> control::SLEEP_TYPE_SHIFT & 7);
                }
            }
            reg::GPE0_STATUS if ich9 => self.state.gpe_status &= !u64::from(lanes.value),
            0x24 if ich9 => self.state.gpe_status &= !(u64::from(lanes.value) << 32),
            reg::GPE0_ENABLE if ich9 => {
                self.state.gpe_enable = lanes.into_u64(self.state.gpe_enable, 0);
            }
            0x2c if ich9 => self.state.gpe_enable = lanes.into_u64(self.state.gpe_enable, 32),
            reg::SMI_ENABLE if ich9 => {
                self.state.smi_enable = lanes.into_u32(self.state.smi_enable);
            }
            reg::SMI_STATUS if ich9 => self.state.smi_status &= !lanes.value,
            _ => {}
        }
    }

    fn sleep(&mut self, kind: u16) {
        match kind {
            // Hibernation has written the image; what is left is to switch off.
            sleep::S5 | sleep::S4 => self.requests.post(Request::PowerOff),
            sleep::S3 if self.config.s3 => self.requests.post(Request::Suspend),
            _ => {}
        }
    }

    fn write_apm(&mut self, offset: u64, value: u8) {
        if offset != 0 {
            self.state.apm_status = value;
            return;
        }
        self.state.apm_control = value;
        let (on, off) = self.config.layout.acpi_commands();
        // What the SMI handler of a BIOS would do; ours need none.
        if value == on {
            self.state.control |= control::SCI_ENABLE;
        } else if value == off {
            self.state.control &= !control::SCI_ENABLE;
        }
        let wanted = match self.config.layout {
            PmLayout::Piix4 => true,
            PmLayout::Ich9 => self.state.smi_enable & APMC_ENABLE != 0,
        };
        if self.config.smm && wanted {
            self.state.smi_status |= APMC_ENABLE;
            self.smi.pulse();
        }
    }
}

impl Device for PmBlock {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.sci = w.irq(IrqPin::Named("sci"));
        self.smi = w.irq(IrqPin::Named("smi"));
        self.requests = w.requests();
        self.clock = Some(w.clock());
        self.timer = Some(w.timer(TimerId(0)));
        let (id, mapping) = w.ports(Region::unplaced("acpi-pm", self.config.layout.len()));
        self.regions.push((id, Which::Block));
        *self
            .config
            .window
            .mapping
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(mapping);
        if self.config.layout == PmLayout::Piix4 {
            let (id, _) = w.ports(Region::new("acpi-gpe0", PIIX4_GPE_BASE, 4));
            self.regions.push((id, Which::Gpe));
        }
        let apm = Region::new("apm-io", APM_BASE, 2).sizes(AccessSizes::BYTE);
        self.regions.push((w.ports(apm).0, Which::Apm));
        self.config.button.connect(w.poke());
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        let smi_enable = match (self.config.layout, self.config.smm) {
            (PmLayout::Ich9, false) => APMC_ENABLE,
            _ => 0,
        };
        self.state = State {
            overflow_at: self.next_overflow(),
            smi_enable,
            ..State::default()
        };
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let register = match self.which(access)? {
            Which::Block => self.register(access.offset),
            Which::Gpe => {
                let s = &self.state;
                (s.gpe_enable as u32) << 16 | s.gpe_status as u32 & 0xffff
            }
            Which::Apm if access.offset == 0 => return Ok(self.state.apm_control.into()),
            Which::Apm => return Ok(self.state.apm_status.into()),
        };
        let shift = (access.offset as u32 & 3).wrapping_mul(8);
        Ok(register.wrapping_shr(shift).into())
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let lanes = Lanes::of(access, value);
        match self.which(access)? {
            Which::Block => self.write_block(access.offset, lanes),
            Which::Gpe => {
                self.state.gpe_status &= !u64::from(lanes.value & 0xffff);
                let enable = lanes.high().into_u16(self.state.gpe_enable as u16);
                self.state.gpe_enable = enable.into();
            }
            Which::Apm => self.write_apm(access.offset, value as u8),
        }
        self.sync();
        Ok(())
    }

    fn timer(&mut self, _: TimerId) {
        self.sync();
    }

    fn poke(&mut self, _: u64) {
        self.state.status |= pm1::POWER_BUTTON;
        self.sync();
    }

    fn save(&self) -> Section {
        let State {
            status: _,
            enable,
            control,
            overflow_at,
            gpe_status,
            gpe_enable,
            smi_enable,
            smi_status,
            apm_control,
            apm_status,
        } = self.state.clone();
        Section::new("acpi-pm", 1)
            .with(1, self.status())
            .with(2, enable)
            .with(3, control)
            .with(4, overflow_at)
            .with(5, gpe_status)
            .with(6, gpe_enable)
            .with(7, smi_enable)
            .with(8, smi_status)
            .with(9, apm_control)
            .with(10, apm_status)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("acpi-pm", 1)?;
        self.state = State {
            status: section.u16(1)? & (pm1::SCI | pm1::WAKE),
            enable: section.u16(2)?,
            control: section.u16(3)? & !control::SLEEP_ENABLE,
            overflow_at: section.u64(4)?,
            gpe_status: section.u64(5)?,
            gpe_enable: section.u64(6)?,
            smi_enable: section.u32(7)?,
            smi_status: section.u32(8)?,
            apm_control: section.u8(9)?,
            apm_status: section.u8(10)?,
        };
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("pm1_sts", self.status().into()),
            ("pm1_en", self.state.enable.into()),
            ("pm1_cnt", self.state.control.into()),
            ("pm_tmr", self.ticks() & TIMER_MASK),
            ("gpe0_sts", self.state.gpe_status),
            ("gpe0_en", self.state.gpe_enable),
        ]
    }
}
