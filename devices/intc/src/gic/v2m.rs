//! GICv2m: a frame where writes are message-signalled interrupts (Arm Base System Architecture,
//! DEN 0094, appendix "GICv2m Architecture").

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, IrqSink,
    MsiSink, Prop, PropType, Region, ResetKind, Section, StateError, Wiring,
};

use super::acts;

const LEN: u64 = 0x1000;
const MSI_TYPER: u64 = 0x008;
const MSI_SETSPI_NS: u64 = 0x040;
const MSI_IIDR: u64 = 0xfcc;

/// Where a frame is and which interrupts it owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GicV2mConfig {
    /// Address of the frame.
    pub base: u64,
    /// First shared interrupt, counted from 0.
    pub first_spi: u32,
    /// How many.
    pub spis: u32,
}

/// A message frame.
pub struct GicV2m {
    gic: Arc<dyn IrqSink>,
    config: GicV2mConfig,
}

impl GicV2m {
    /// A frame that sends to `gic`, whose pins are by INTID.
    pub fn new(gic: Arc<dyn IrqSink>, config: GicV2mConfig) -> Self {
        GicV2m { gic, config }
    }

    /// Where devices' messages go.
    pub fn sink(&self) -> Arc<dyn MsiSink> {
        Arc::new(GicV2m::new(self.gic.clone(), self.config))
    }

    fn first_intid(&self) -> u32 {
        self.config.first_spi.saturating_add(32)
    }

    fn set_spi(&self, value: u64) {
        let intid = u32::try_from(value & 0x3ff).unwrap_or(0);
        let number = intid.checked_sub(self.first_intid());
        if number.is_some_and(|n| n < self.config.spis) {
            // Edge-triggered, as drivers make them.
            self.gic.set(intid, true);
            self.gic.set(intid, false);
        }
    }
}

impl MsiSink for GicV2m {
    fn message(&self, address: u64, data: u32, _: u32) {
        if address == self.config.base.saturating_add(MSI_SETSPI_NS) {
            self.set_spi(data.into());
        }
    }
}

impl Device for GicV2m {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.mmio(Region::new("gicv2m", self.config.base, LEN).sizes(AccessSizes::WORD));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        Ok(match access.offset {
            MSI_TYPER => u64::from(self.first_intid()) << 16 | u64::from(self.config.spis),
            // Product "Q" as QEMU's; drivers only look for known broken ones.
            MSI_IIDR => u64::from(b'Q') << 20,
            0xfd0..0x1000 => 0,
            MSI_SETSPI_NS => return Err(Fault::WriteOnly),
            _ => return Err(Fault::NoRegister),
        })
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        match access.offset {
            MSI_SETSPI_NS if acts(&access) => self.set_spi(value),
            MSI_SETSPI_NS => {}
            _ => return Err(Fault::ReadOnly),
        }
        Ok(())
    }

    fn save(&self) -> Section {
        Section::new("gicv2m", 1)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("gicv2m", 1)
    }
}

/// `arm-gicv2m`.
pub static GICV2M: DeviceClass = DeviceClass {
    name: "arm-gicv2m",
    aliases: &[],
    doc: "Arm GICv2m message frame",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[
        Prop {
            name: "base-spi",
            ty: PropType::U32,
            default: "0",
            doc: "first shared interrupt of the frame",
        },
        Prop {
            name: "num-spi",
            ty: PropType::U32,
            default: "64",
            doc: "how many shared interrupts it has",
        },
    ],
    user_creatable: false,
    create: |args, _| {
        Err(DeviceError::Other(format!(
            "'{}' is part of a machine and cannot be added to one",
            args.class().name
        )))
    },
};
