//! The MMIO transport.
//!
//! Spec: VIRTIO 1.2 section 4.2, with the legacy register layout of section 4.2.4.

#[cfg(test)]
mod tests;

use hw_core::{
    Access, AccessSizes, Args, BusKind, Category, ChildBus, Device, DeviceClass, DeviceError,
    Doorbell, Fault, IrqLine, IrqPin, Prop, PropType, Region, ResetKind, Section, StateError,
    TimerId, Wiring,
};

use crate::core::{Core, Options, RUNG};
use crate::device::VirtioDevice;

/// "virt"
const MAGIC: u32 = 0x7472_6976;
/// "QEMU": drivers look for it.
const VENDOR: u32 = 0x554d_4551;
/// Bytes of a slot.
const LEN: u64 = 0x200;
const CONFIG: u64 = 0x100;

const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const GUEST_PAGE_SIZE: u64 = 0x028;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_ALIGN: u64 = 0x03c;
const QUEUE_PFN: u64 = 0x040;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const SHM_FIRST: u64 = 0x0b0;
const SHM_LAST: u64 = 0x0bc;
const CONFIG_GENERATION: u64 = 0x0fc;

/// Interrupt reason: used buffers.
const USED_BUFFER: u32 = 1;
/// Interrupt reason: configuration change.
const CONFIG_CHANGE: u32 = 2;

/// A slot of a board for one MMIO device, given as its bus. Its interrupt is line 0 of the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MmioSlot {
    /// First address.
    pub base: u64,
    /// Register layout version 1 (QEMU's default) instead of 2.
    pub force_legacy: bool,
}

/// `virtio-mmio`: the transport itself, a part of boards.
pub static VIRTIO_MMIO: DeviceClass = DeviceClass {
    name: "virtio-mmio",
    aliases: &[],
    doc: "virtio transport in memory",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[Prop {
        name: FORCE_LEGACY,
        ty: PropType::Bool,
        default: "on",
        doc: "Register layout of before VIRTIO 1.0; off on machine microvm",
    }],
    user_creatable: false,
    create: |args, _| {
        Err(DeviceError::Other(format!(
            "'{}' is part of a machine and cannot be added to one",
            args.class().name
        )))
    },
};

const FORCE_LEGACY: &str = "force-legacy";

impl MmioSlot {
    /// A slot of a board, with the properties of [`VIRTIO_MMIO`].
    pub fn new(base: u64, args: &Args) -> Self {
        MmioSlot {
            base,
            force_legacy: args.flag(FORCE_LEGACY).unwrap_or(true),
        }
    }
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    interrupt_status: u32,
    /// Legacy: unit of `QueuePFN`.
    guest_page_size: u32,
    /// Legacy: alignment of the used ring.
    queue_align: u32,
}

/// A virtio device on MMIO, or an empty slot for one.
#[derive(Default)]
pub struct VirtioMmio {
    irq: IrqLine,
    legacy: bool,
    core: Option<Core>,
    state: State,
}

impl VirtioMmio {
    /// A device.
    pub fn new(device: Box<dyn VirtioDevice>, options: Options) -> Self {
        VirtioMmio {
            core: Some(Core::new(device, options)),
            ..VirtioMmio::default()
        }
    }

    /// A slot without a device: it identifies itself so and ignores all else.
    pub fn empty() -> Self {
        VirtioMmio::default()
    }

    fn sync(&mut self) {
        let Some(core) = &mut self.core else { return };
        let signals = core.take_signals();
        if !signals.queues.is_empty() {
            self.state.interrupt_status |= USED_BUFFER;
        }
        if signals.config {
            self.state.interrupt_status |= CONFIG_CHANGE;
        }
        self.irq.set(self.state.interrupt_status != 0);
    }

    fn register(&self, core: &Core, offset: u64) -> Result<u32, Fault> {
        let queue = core.queue();
        Ok(match offset {
            DEVICE_ID => u32::from(core.device().id()),
            DEVICE_FEATURES => core.device_features(self.legacy),
            QUEUE_NUM_MAX => queue.map_or(0, |q| u32::from(q.max_size())),
            QUEUE_PFN if self.legacy => {
                let base = queue.filter(|q| q.is_ready()).map_or(0, |q| q.areas()[0]);
                let page = u64::from(self.state.guest_page_size);
                base.checked_div(page).unwrap_or(0) as u32
            }
            QUEUE_READY if !self.legacy => queue.is_some_and(|q| q.is_ready()).into(),
            INTERRUPT_STATUS => self.state.interrupt_status,
            STATUS => u32::from(core.status()),
            // No shared memory: a length and base of all ones.
            SHM_FIRST..=SHM_LAST if !self.legacy => u32::MAX,
            CONFIG_GENERATION if !self.legacy => u32::from(core.config_generation()),
            DEVICE_FEATURES_SEL | DRIVER_FEATURES | DRIVER_FEATURES_SEL | GUEST_PAGE_SIZE
            | QUEUE_SEL | QUEUE_NUM | QUEUE_ALIGN | QUEUE_NOTIFY | INTERRUPT_ACK
            | QUEUE_DESC_LOW | QUEUE_DESC_HIGH | QUEUE_DRIVER_LOW | QUEUE_DRIVER_HIGH
            | QUEUE_DEVICE_LOW | QUEUE_DEVICE_HIGH => return Err(Fault::WriteOnly),
            _ => return Err(Fault::NoRegister),
        })
    }

    fn set_register(&mut self, offset: u64, value: u32) -> Result<(), Fault> {
        let legacy = self.legacy;
        let Some(core) = &mut self.core else {
            return Ok(());
        };
        match offset {
            DEVICE_FEATURES_SEL => core.select_device_features(value),
            DRIVER_FEATURES if legacy && core.driver_feature_select() != 0 => {}
            DRIVER_FEATURES => core.set_driver_features(value),
            DRIVER_FEATURES_SEL => core.select_driver_features(value),
            GUEST_PAGE_SIZE if legacy => {
                self.state.guest_page_size = if value.is_power_of_two() { value } else { 0 };
            }
            QUEUE_SEL => core.select_queue(u16::try_from(value).unwrap_or(u16::MAX)),
            QUEUE_NUM => {
                if let Some(queue) = core.queue_mut() {
                    queue.set_size(u16::try_from(value).unwrap_or(u16::MAX));
                }
            }
            QUEUE_ALIGN if legacy => {
                self.state.queue_align = if value.is_power_of_two() { value } else { 0 };
            }
            QUEUE_PFN if legacy => {
                if value == 0 {
                    self.reset_core();
                } else {
                    let base = u64::from(value).saturating_mul(self.state.guest_page_size.into());
                    let align = self.state.queue_align;
                    if let Some(queue) = core.queue_mut() {
                        queue.set_legacy(base, align);
                    }
                }
            }
            QUEUE_READY if !legacy && value & 1 != 0 => core.enable_queue(),
            QUEUE_READY if !legacy => {
                if let Some(queue) = core.queue_mut() {
                    queue.set_ready(false);
                }
            }
            QUEUE_NOTIFY => core.notify(u16::try_from(value).unwrap_or(u16::MAX)),
            INTERRUPT_ACK => self.state.interrupt_status &= !value,
            STATUS if value as u8 == 0 => self.reset_core(),
            STATUS => core.set_status(value as u8),
            QUEUE_DESC_LOW..=QUEUE_DEVICE_HIGH if !legacy => return set_area(core, offset, value),
            // SHMSel.
            0x0ac => {}
            MAGIC_VALUE
            | VERSION
            | DEVICE_ID
            | VENDOR_ID
            | DEVICE_FEATURES
            | QUEUE_NUM_MAX
            | INTERRUPT_STATUS
            | SHM_FIRST..=SHM_LAST
            | CONFIG_GENERATION => {
                return Err(Fault::ReadOnly);
            }
            _ => return Err(Fault::NoRegister),
        }
        Ok(())
    }

    fn reset_core(&mut self) {
        if let Some(core) = &mut self.core {
            core.reset();
        }
        self.state.interrupt_status = 0;
    }
}

fn set_area(core: &mut Core, offset: u64, value: u32) -> Result<(), Fault> {
    let Some(queue) = core.queue_mut() else {
        return Ok(());
    };
    let low = |old: u64| (old & !0xffff_ffff) | u64::from(value);
    let high = |old: u64| (old & 0xffff_ffff) | u64::from(value) << 32;
    let [desc, driver, device] = queue.areas();
    queue.set_areas(match offset {
        QUEUE_DESC_LOW => [low(desc), driver, device],
        QUEUE_DESC_HIGH => [high(desc), driver, device],
        QUEUE_DRIVER_LOW => [desc, low(driver), device],
        QUEUE_DRIVER_HIGH => [desc, high(driver), device],
        QUEUE_DEVICE_LOW => [desc, driver, low(device)],
        QUEUE_DEVICE_HIGH => [desc, driver, high(device)],
        _ => return Err(Fault::NoRegister),
    });
    Ok(())
}

impl Device for VirtioMmio {
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let slot = wiring
            .bus()
            .and_then(|bus| bus.downcast_ref::<MmioSlot>())
            .cloned()
            .ok_or_else(|| {
                DeviceError::Other("a virtio device needs a free virtio-mmio slot".into())
            })?;
        self.legacy = slot.force_legacy;
        let region = Region::new("virtio-mmio", slot.base, LEN).sizes(AccessSizes::ANY);
        let (region, _) = wiring.mmio(region);
        self.irq = wiring.irq(IrqPin::Bus(0));
        if let Some(core) = &mut self.core {
            core.set_options(Options {
                modern: !slot.force_legacy,
                legacy: slot.force_legacy,
                ..core.options()
            });
            let dma = wiring.dma();
            core.realize(wiring, dma)?;
            let bell = |queue: u16| Doorbell {
                region,
                offset: QUEUE_NOTIFY,
                size: Some(4),
                value: Some(queue.into()),
            };
            let bells = core.queue_numbers().into_iter().map(bell).collect();
            wiring.doorbells(bells, core.ringing(), RUNG);
        }
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
        self.reset_core();
    }

    fn after_reset(&mut self) {
        if let Some(core) = &mut self.core {
            core.resume();
        }
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        if let Some(offset) = access.offset.checked_sub(CONFIG) {
            let core = self.core.as_ref();
            return Ok(core.map_or(0, |core| core.config_read(offset, access.size)));
        }
        if access.size != 4 {
            return Err(Fault::BadSize);
        }
        Ok(u64::from(match (access.offset, &self.core) {
            (MAGIC_VALUE, _) => MAGIC,
            (VERSION, _) if self.legacy => 1,
            (VERSION, _) => 2,
            (VENDOR_ID, _) => VENDOR,
            (offset, Some(core)) => self.register(core, offset)?,
            (_, None) => 0,
        }))
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let result = match access.offset.checked_sub(CONFIG) {
            Some(offset) => {
                if let Some(core) = &mut self.core {
                    core.config_write(offset, access.size, value);
                }
                Ok(())
            }
            None if access.size != 4 => Err(Fault::BadSize),
            None => self.set_register(access.offset, value as u32),
        };
        self.sync();
        result
    }

    fn timer(&mut self, timer: TimerId) {
        if let Some(core) = &mut self.core {
            core.timer(timer);
        }
        self.sync();
    }

    fn poke(&mut self, token: u64) {
        if let Some(core) = &mut self.core {
            core.poke(token);
        }
        self.sync();
    }

    fn save(&self) -> Section {
        let State {
            interrupt_status,
            guest_page_size,
            queue_align,
        } = self.state.clone();
        let mut section = Section::new("virtio-mmio", 1)
            .with(1, interrupt_status)
            .with(2, guest_page_size)
            .with(3, queue_align);
        if let Some(core) = &self.core {
            section.push(4, core.save());
        }
        section
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("virtio-mmio", 1)?;
        let state = State {
            interrupt_status: section.u32(1)?,
            guest_page_size: section.u32(2)?,
            queue_align: section.u32(3)?,
        };
        if let Some(core) = &mut self.core {
            core.restore(section.section(4)?)?;
        }
        self.state = state;
        Ok(())
    }

    fn child_buses(&self) -> Vec<ChildBus> {
        self.core
            .as_ref()
            .map(Core::child_buses)
            .unwrap_or_default()
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let Some(core) = &self.core else {
            return Vec::new();
        };
        vec![
            ("status", u64::from(core.status())),
            ("features", core.features()),
        ]
    }
}
