//! Registers of version 2 (IHI 0048B chapter 4), the distributor's among them (section 4.3).

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Prop,
    PropType, Region, RegionId, ResetKind, Section, StateError, Wiring,
};
use hw_intc::{GIC_SGIS, GICV2_MAX_CPUS, GicVersion};

use super::distributor::Reg;
use super::model::{GROUP_1, Model, bit};
use super::security::View;
use super::v2_interface::{read_interface, write_interface};
use super::{Gic, IIDR, cpu_of, id_register};

const LEN: u64 = 0x1000;
/// The CPU interface has a second page, for GICC_DIR.
const CPU_LEN: u64 = 0x2000;

const GICD_CTLR: u64 = 0x000;
const GICD_TYPER: u64 = 0x004;
const GICD_IIDR: u64 = 0x008;
const GICD_ITARGETSR: u64 = 0x800;
const GICD_ITARGETSR_END: u64 = 0xc00;
const GICD_SGIR: u64 = 0xf00;
const GICD_CPENDSGIR: u64 = 0xf10;
const GICD_SPENDSGIR: u64 = 0xf20;
const GICD_SPENDSGIR_END: u64 = 0xf30;

/// `GICD_TYPER`: two Security states.
const SECURITY: u64 = 1 << 10;
/// `GICD_SGIR.NSATT`: Secure software sends an interrupt of group 1.
const NSATT: u64 = 1 << 15;

/// Distributor and CPU interfaces of a GICv2.
pub struct GicV2Device {
    gic: Arc<Gic>,
    distributor: u64,
    interface: u64,
    regions: [RegionId; 2],
}

impl GicV2Device {
    /// The registers of `gic` at these addresses.
    pub fn new(gic: Arc<Gic>, distributor: u64, interface: u64) -> Self {
        GicV2Device {
            gic,
            distributor,
            interface,
            regions: [RegionId::default(); 2],
        }
    }
}

/// The bytes of a register of a byte for each interrupt.
fn bytes(size: u8, byte: impl Fn(usize) -> u8) -> u64 {
    (0..usize::from(size))
        .rev()
        .fold(0, |value, n| value << 8 | u64::from(byte(n)))
}

/// Whether an interrupt is seen.
fn sees(model: &Model, cpu: usize, intid: usize, view: View) -> bool {
    view.is_whole() || model.group_of(cpu, intid as u32) == GROUP_1
}

fn targets(model: &Model, cpu: usize, intid: usize, view: View) -> u8 {
    // A uniprocessor has no targets to choose (section 4.3.12).
    match intid.checked_sub(32) {
        _ if model.state.cpus.len() == 1 || !sees(model, cpu, intid, view) => 0,
        None => 1u8.checked_shl(cpu as u32).unwrap_or(0),
        Some(spi) => model.state.routes.get(spi).copied().unwrap_or(0) as u8,
    }
}

fn read_distributor(model: &Model, cpu: usize, access: &Access) -> Result<u64, Fault> {
    let (offset, size) = (access.offset, access.size);
    let view = model.view(access);
    if let Some(reg) = Reg::at(offset, size) {
        return Ok(reg.read(model, cpu, size, view));
    }
    let index = (offset & 0x3ff) as usize;
    let state = &model.state;
    Ok(match offset {
        GICD_ITARGETSR..GICD_ITARGETSR_END => {
            bytes(size, |n| targets(model, cpu, index.wrapping_add(n), view))
        }
        GICD_CPENDSGIR..GICD_SPENDSGIR_END => {
            let sources = state.cpus.get(cpu).map(|c| c.sgi_sources);
            let sources = sources.unwrap_or_default();
            let first = (offset & 0xf) as usize;
            let at = |n: usize| {
                sources
                    .get(n)
                    .copied()
                    .filter(|_| sees(model, cpu, n, view))
            };
            bytes(size, |n| at(first.wrapping_add(n)).unwrap_or(0))
        }
        _ if size != 4 => return Err(Fault::BadSize),
        GICD_CTLR if !view.is_whole() => u64::from(state.ctlr) >> 1,
        GICD_CTLR => state.ctlr.into(),
        GICD_TYPER => {
            let cpus = state.cpus.len().saturating_sub(1) as u64 & 7;
            let two = if state.has_two_states() { SECURITY } else { 0 };
            (state.spis.len() as u64 & 31) | cpus << 5 | two
        }
        GICD_IIDR => IIDR,
        GICD_SGIR => return Err(Fault::WriteOnly),
        _ => id_register(offset, 2).ok_or(Fault::NoRegister)?,
    })
}

fn write_distributor(
    model: &mut Model,
    cpu: usize,
    access: &Access,
    value: u64,
) -> Result<(), Fault> {
    let (offset, size) = (access.offset, access.size);
    let view = model.view(access);
    if let Some(reg) = Reg::at(offset, size) {
        reg.write(model, cpu, size, value, view);
        return Ok(());
    }
    let each = value.to_le_bytes();
    let each = each.iter().take(size.into());
    match offset {
        GICD_ITARGETSR..GICD_ITARGETSR_END => {
            let all = model.state.cpus.len();
            let present = 0xffu64.wrapping_shr(8u32.saturating_sub(all.min(8) as u32));
            for (intid, byte) in ((offset & 0x3ff) as usize..).zip(each) {
                let is_seen = all > 1 && sees(model, cpu, intid, view);
                if let Some(spi) = intid.checked_sub(32).filter(|_| is_seen) {
                    model.set_route(spi, u64::from(*byte) & present);
                }
            }
        }
        GICD_CPENDSGIR..GICD_SPENDSGIR_END => {
            let seen = (model.state.cpus.get(cpu)).map_or(0, |own| view.visible(&own.bank));
            let Some(own) = model.state.cpus.get_mut(cpu) else {
                return Ok(());
            };
            let first = (offset & 0xf) as usize;
            for (n, byte) in (first..GIC_SGIS).zip(each) {
                let sources = own.sgi_sources.get_mut(n);
                let Some(sources) = sources.filter(|_| seen & bit(n as u32) != 0) else {
                    continue;
                };
                if offset < GICD_SPENDSGIR {
                    *sources &= !byte;
                } else {
                    *sources |= byte;
                }
                let mask = bit(n as u32);
                own.bank.latched &= !mask;
                if *sources != 0 {
                    own.bank.latched |= mask;
                }
            }
        }
        _ if size != 4 => return Err(Fault::BadSize),
        GICD_CTLR if !view.is_whole() => {
            model.state.ctlr = model.state.ctlr & 1 | (value as u32 & 1) << 1;
        }
        GICD_CTLR => model.state.ctlr = value as u32 & 3,
        GICD_SGIR => {
            let others = !1u64.checked_shl(cpu as u32).unwrap_or(0);
            let to = match value >> 24 & 3 {
                0 => value >> 16 & 0xff,
                1 => others,
                2 => !others,
                _ => 0,
            };
            // Of a group, if there are two states.
            let two = model.state.has_two_states();
            let group = usize::from(value & NSATT != 0 || !view.is_whole());
            let sgi = value as u32 & 15;
            for n in 0..model.state.cpus.len().min(GICV2_MAX_CPUS) {
                let fits = !two || model.group_of(n, sgi) == group;
                if fits && to.wrapping_shr(n as u32) & 1 != 0 {
                    model.send_sgi(cpu, n, sgi);
                }
            }
        }
        GICD_TYPER | GICD_IIDR => return Err(Fault::ReadOnly),
        _ => return Err(Fault::NoRegister),
    }
    Ok(())
}

impl Device for GicV2Device {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let cpus = self.gic.cpus();
        if self.gic.version() != GicVersion::V2 || cpus > GICV2_MAX_CPUS {
            return Err(DeviceError::Other(format!(
                "a GICv2 serves up to {GICV2_MAX_CPUS} CPUs, not {cpus}"
            )));
        }
        let frame = Region::new("gic_dist", self.distributor, LEN);
        let (distributor, _) = w.mmio(frame.sizes(AccessSizes::UP_TO_4));
        let frame = Region::new("gic_cpu", self.interface, CPU_LEN);
        let (interface, _) = w.mmio(frame.sizes(AccessSizes::WORD));
        self.regions = [distributor, interface];
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.gic.lock().reset();
    }

    fn after_reset(&mut self) {
        self.gic.with_all(|_| ());
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let cpu = cpu_of(&access);
        if self.regions[0] == access.region {
            return read_distributor(&self.gic.lock(), cpu, &access);
        }
        self.gic
            .with(cpu, |model| read_interface(model, cpu, &access))
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let cpu = cpu_of(&access);
        self.gic.with_all(|model| {
            if self.regions[0] == access.region {
                write_distributor(model, cpu, &access, value)
            } else {
                write_interface(model, cpu, &access, value)
            }
        })
    }

    fn save(&self) -> Section {
        self.gic.lock().state.save()
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let mut model = self.gic.lock();
        let state = model.state.restore(section)?;
        model.replace(state);
        Ok(())
    }
}

/// `arm_gic`.
pub static ARM_GIC: DeviceClass = DeviceClass {
    name: "arm_gic",
    aliases: &[],
    doc: "Arm GICv2 interrupt controller",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[
        Prop {
            name: "num-cpu",
            ty: PropType::U32,
            default: "1",
            doc: "CPUs, up to 8",
        },
        Prop {
            name: "num-irq",
            ty: PropType::U32,
            default: "32",
            doc: "interrupts, those of each CPU included",
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
