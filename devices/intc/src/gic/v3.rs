//! Registers of version 3 in memory: distributor and redistributors (IHI 0069H sections 12.9 to
//! 12.11). Affinity routing is always on.

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Prop,
    PropType, Region, RegionId, ResetKind, Section, StateError, Wiring,
};
use hw_intc::{GIC_MAX_CPUS, GicVersion};

use super::distributor::Reg;
use super::model::Model;
use super::security::{View, lent};
use super::{Gic, IIDR, cpu_of, id_register};

const DISTRIBUTOR_LEN: u64 = 0x1_0000;
/// Two frames of 64 KiB for each CPU: control, and private interrupts.
pub const REDISTRIBUTOR_LEN: u64 = 0x2_0000;
const FRAME_LEN: u64 = 0x1_0000;
/// Identification registers are at the end of a frame.
const IDS: u64 = 0xf000;

const GICD_CTLR: u64 = 0x0000;
const GICD_TYPER: u64 = 0x0004;
const GICD_IIDR: u64 = 0x0008;
const GICD_TYPER2: u64 = 0x000c;
const GICD_STATUSR: u64 = 0x0010;
const GICD_IROUTER: u64 = 0x6000;
const GICD_IROUTER_END: u64 = 0x8000;
/// `GICD_CTLR`: affinity routing enabled, of the Secure state first.
const ARE: u64 = 1 << 4;
const ARE_NS: u64 = 1 << 5;
/// `GICD_CTLR`: one security state.
const DS: u64 = 1 << 6;
/// `GICD_TYPER`: two security states.
const SECURITY: u64 = 1 << 10;
/// `GICD_TYPER`: there are LPIs.
const LPIS: u64 = 1 << 17;
/// `GICD_TYPER`: no 1-of-N, Aff3 works, 16 bits of INTID.
const TYPER: u64 = 1 << 25 | 1 << 24 | 0xf << 19;
/// Aff3 to Aff0; interrupts go to one CPU each.
const ROUTER: u64 = 0x00ff_00ff_ffff;

const GICR_CTLR: u64 = 0x00;
const GICR_IIDR: u64 = 0x04;
const GICR_TYPER: u64 = 0x08;
const GICR_TYPER_HIGH: u64 = 0x0c;
const GICR_STATUSR: u64 = 0x10;
const GICR_WAKER: u64 = 0x14;
const GICR_PROPBASER: u64 = 0x70;
const GICR_PENDBASER: u64 = 0x78;
const GICR_BASES_END: u64 = 0x80;
const GICR_SYNCR: u64 = 0xc0;
/// `GICR_WAKER`: ProcessorSleep, ChildrenAsleep.
const ASLEEP: u64 = 1 << 1 | 1 << 2;
/// `GICR_TYPER`: the last redistributor of its region.
const LAST: u64 = 1 << 4;
/// `GICR_TYPER`: there are LPIs.
const PLPIS: u64 = 1;

/// Distributor and redistributors of a GICv3.
pub struct GicV3Device {
    gic: Arc<Gic>,
    distributor: u64,
    /// Base of each region of redistributors and how many it has.
    redistributors: Vec<(u64, usize)>,
    region: RegionId,
    /// Each region and the number of its first redistributor.
    regions: Vec<(RegionId, usize)>,
    /// There are LPIs: a translation service sends them.
    has_lpis: bool,
}

impl GicV3Device {
    /// The registers of `gic` at these addresses: the distributor's, and for each region of
    /// redistributors its base and how many CPUs it has.
    pub fn new(gic: Arc<Gic>, distributor: u64, redistributors: Vec<(u64, usize)>) -> Self {
        GicV3Device {
            gic,
            distributor,
            redistributors,
            region: RegionId::default(),
            regions: Vec::new(),
            has_lpis: false,
        }
    }

    /// With LPIs, for a translation service to send.
    #[must_use]
    pub fn with_lpis(mut self) -> Self {
        self.has_lpis = true;
        self
    }

    /// CPU and offset that an access to a redistributor means, and whether its region ends with it.
    fn target(&self, access: &Access) -> Option<(usize, u64, bool)> {
        let at = self.regions.iter().position(|(r, _)| *r == access.region)?;
        let (_, first) = self.regions.get(at)?;
        let (_, count) = self.redistributors.get(at)?;
        let n = usize::try_from(access.offset / REDISTRIBUTOR_LEN).ok()?;
        let is_last = n.saturating_add(1) == *count;
        let offset = access.offset & (REDISTRIBUTOR_LEN - 1);
        Some((first.saturating_add(n), offset, is_last))
    }
}

/// Half or all of a 64-bit register.
pub(super) fn part(value: u64, access: &Access) -> Result<u64, Fault> {
    match (access.offset & 7, access.size) {
        (0, 8) => Ok(value),
        (0, 4) => Ok(value & 0xffff_ffff),
        (4, 4) => Ok(value >> 32),
        _ => Err(Fault::BadSize),
    }
}

/// A 64-bit register with half or all of it written.
pub(super) fn merged(old: u64, access: &Access, value: u64) -> Result<u64, Fault> {
    match (access.offset & 7, access.size) {
        (0, 8) => Ok(value),
        (0, 4) => Ok(old & !0xffff_ffff | value & 0xffff_ffff),
        (4, 4) => Ok(old & 0xffff_ffff | value << 32),
        _ => Err(Fault::BadSize),
    }
}

/// Number of the shared interrupt of a GICD_IROUTER; those of private interrupts do not exist.
fn routed(offset: u64) -> Option<usize> {
    usize::try_from((offset & 0x1fff) >> 3)
        .ok()?
        .checked_sub(32)
}

fn read_distributor(model: &Model, access: &Access) -> Result<u64, Fault> {
    let (offset, size) = (access.offset, access.size);
    let view = model.view(access);
    if let Some(reg) = Reg::at(offset, size) {
        // With affinity routing, private interrupts are in the redistributors.
        return Ok(match reg.bank() {
            0 => 0,
            _ => reg.read(model, 0, size, view),
        });
    }
    if (GICD_IROUTER..GICD_IROUTER_END).contains(&offset) {
        let route = routed(offset).filter(|spi| sees(model, *spi, view));
        let route = route.and_then(|n| model.state.routes.get(n));
        return part(route.copied().unwrap_or(0), access);
    }
    if size != 4 {
        return Err(Fault::BadSize);
    }
    Ok(match offset {
        GICD_CTLR => control(model, view),
        GICD_TYPER => {
            let lpis = if model.has_lpis() { LPIS } else { 0 };
            let two = if model.state.has_two_states() {
                SECURITY
            } else {
                0
            };
            TYPER | lpis | two | model.state.spis.len() as u64 & 31
        }
        GICD_IIDR => IIDR,
        GICD_TYPER2 | GICD_STATUSR => 0,
        // Reserved.
        0x0d80..0x0e00 => 0,
        IDS.. => id_register(offset & 0xfff, 3).ok_or(Fault::NoRegister)?,
        _ => return Err(Fault::NoRegister),
    })
}

/// Whether the route of a shared interrupt is seen.
fn sees(model: &Model, spi: usize, view: View) -> bool {
    let bank = model.state.spis.get(spi / 32);
    let bit = 1u32.wrapping_shl(spi as u32 & 31);
    bank.is_some_and(|bank| view.visible_if(bank, lent::ROUTE) & bit != 0)
}

/// `GICD_CTLR`.
fn control(model: &Model, view: View) -> u64 {
    let groups = u64::from(model.state.ctlr);
    match view {
        // Enables of group 1 and of its affinity routing alone.
        View::NonSecure => groups & 2 | ARE,
        View::Whole if model.state.has_two_states() => groups | ARE | ARE_NS,
        View::Whole => groups | ARE | DS,
    }
}

fn set_control(model: &mut Model, view: View, value: u64) {
    let state = &mut model.state;
    if view == View::NonSecure {
        state.ctlr = state.ctlr & !2 | value as u32 & 2;
        return;
    }
    // Until the next reset.
    state.is_single |= state.has_security && value & DS != 0;
    let groups = if state.has_two_states() { 7 } else { 3 };
    state.ctlr = value as u32 & groups;
}

fn write_distributor(model: &mut Model, access: &Access, value: u64) -> Result<(), Fault> {
    let (offset, size) = (access.offset, access.size);
    let view = model.view(access);
    if let Some(reg) = Reg::at(offset, size) {
        if reg.bank() != 0 {
            reg.write(model, 0, size, value, view);
        }
        return Ok(());
    }
    if (GICD_IROUTER..GICD_IROUTER_END).contains(&offset) {
        if let Some(spi) = routed(offset).filter(|spi| sees(model, *spi, view)) {
            let old = model.state.routes.get(spi).copied().unwrap_or(0);
            model.set_route(spi, merged(old, access, value)? & ROUTER);
        }
        return Ok(());
    }
    match (offset, size) {
        (GICD_CTLR, 4) => set_control(model, view, value),
        (GICD_STATUSR, 4) | (0x0d80..0x0e00, 4) => {}
        (_, 4) => return Err(Fault::NoRegister),
        _ => return Err(Fault::BadSize),
    }
    Ok(())
}

fn read_redistributor(
    model: &Model,
    (cpu, offset, is_last): (usize, u64, bool),
    access: &Access,
) -> Result<u64, Fault> {
    let own = model.state.cpus.get(cpu).ok_or(Fault::NoRegister)?;
    let view = model.view(access);
    if let Some(offset) = offset.checked_sub(FRAME_LEN) {
        let reg = Reg::at(offset, access.size).filter(|reg| reg.bank() == 0);
        return match (reg, offset) {
            (Some(reg), _) => Ok(reg.read(model, cpu, access.size, view)),
            (None, IDS..) => id_register(offset & 0xfff, 3).ok_or(Fault::NoRegister),
            (None, _) => Err(Fault::NoRegister),
        };
    }
    let typer = u64::from(model.affinity_of(cpu)) << 32
        | (cpu as u64 & 0xffff) << 8
        | if is_last { LAST } else { 0 }
        | if model.has_lpis() { PLPIS } else { 0 };
    Ok(match (offset, access.size) {
        (GICR_TYPER, 8) | (GICR_TYPER | GICR_TYPER_HIGH, 4) => part(typer, access)?,
        (GICR_PROPBASER..GICR_BASES_END, _) => {
            part(model.lpi_base(cpu, offset >= GICR_PENDBASER), access)?
        }
        (_, 8) => return Err(Fault::BadSize),
        (GICR_CTLR, _) => model.lpi_control(cpu),
        (GICR_STATUSR | GICR_SYNCR, _) => 0,
        (GICR_IIDR, _) => IIDR,
        (GICR_WAKER, _) => {
            if own.asleep && view.is_whole() {
                ASLEEP
            } else {
                0
            }
        }
        (IDS.., _) => id_register(offset & 0xfff, 3).ok_or(Fault::NoRegister)?,
        _ => return Err(Fault::NoRegister),
    })
}

fn write_redistributor(
    model: &mut Model,
    (cpu, offset): (usize, u64),
    access: &Access,
    value: u64,
) -> Result<(), Fault> {
    let view = model.view(access);
    let own = model.state.cpus.get_mut(cpu).ok_or(Fault::NoRegister)?;
    if let Some(offset) = offset.checked_sub(FRAME_LEN) {
        let reg = Reg::at(offset, access.size).filter(|reg| reg.bank() == 0);
        return match (reg, offset) {
            (Some(reg), _) => {
                reg.write(model, cpu, access.size, value, view);
                Ok(())
            }
            (None, _) => Err(Fault::NoRegister),
        };
    }
    match (offset, access.size) {
        (GICR_WAKER, 4) if view.is_whole() => own.asleep = value & 2 != 0,
        (GICR_WAKER, 4) => {}
        (GICR_CTLR, 4) => model.set_lpi_control(cpu, value),
        (GICR_STATUSR, 4) => {}
        (GICR_PROPBASER..GICR_BASES_END, _) => {
            let is_pending = offset >= GICR_PENDBASER;
            let old = model.lpi_base(cpu, is_pending);
            model.set_lpi_base(cpu, is_pending, merged(old, access, value)?);
        }
        (GICR_IIDR | GICR_SYNCR | GICR_TYPER | GICR_TYPER_HIGH, _) => return Err(Fault::ReadOnly),
        _ => return Err(Fault::NoRegister),
    }
    Ok(())
}

impl Device for GicV3Device {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let room: usize = self.redistributors.iter().map(|(_, n)| n).sum();
        let cpus = self.gic.cpus();
        if self.gic.version() != GicVersion::V3 || cpus > room || cpus > GIC_MAX_CPUS {
            return Err(DeviceError::Other(format!(
                "this GICv3 serves up to {} CPUs, not {cpus}",
                room.min(GIC_MAX_CPUS)
            )));
        }
        if self.has_lpis {
            self.gic.lock().attach(w.dma());
        }
        let frame = Region::new("gicv3_dist", self.distributor, DISTRIBUTOR_LEN);
        (self.region, _) = w.mmio(frame.sizes(AccessSizes::ANY));
        let mut first = 0usize;
        for (n, (base, count)) in self.redistributors.iter().enumerate() {
            let len = REDISTRIBUTOR_LEN.saturating_mul(*count as u64);
            let frame = Region::new(format!("gicv3_redist_region[{n}]"), *base, len);
            let (region, _) = w.mmio(frame.sizes(AccessSizes::ANY));
            self.regions.push((region, first));
            first = first.saturating_add(*count);
        }
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.gic.lock().reset();
    }

    fn after_reset(&mut self) {
        self.gic.with_all(|model| model.read_properties());
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let model = self.gic.lock();
        if access.region == self.region {
            return read_distributor(&model, &access);
        }
        let target = self.target(&access).ok_or(Fault::NoRegister)?;
        read_redistributor(&model, target, &access)
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        if access.region == self.region {
            return self
                .gic
                .with_all(|model| write_distributor(model, &access, value));
        }
        let (cpu, offset, _) = self.target(&access).ok_or(Fault::NoRegister)?;
        self.gic.with(cpu, |model| {
            write_redistributor(model, (cpu, offset), &access, value)
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

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let access = Access {
            region: self.region,
            offset: 0,
            size: 4,
            by: hw_core::Initiator::Debug,
            attrs: hw_core::Attrs::default(),
        };
        let cpu = cpu_of(&access);
        let model = self.gic.lock();
        let own = model.state.cpus.get(cpu);
        vec![
            ("ctlr", model.state.ctlr.into()),
            ("pmr0", own.map_or(0, |own| own.pmr.into())),
        ]
    }
}

/// `arm-gicv3`.
pub static ARM_GICV3: DeviceClass = DeviceClass {
    name: "arm-gicv3",
    aliases: &[],
    doc: "Arm GICv3 interrupt controller",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[
        Prop {
            name: "num-cpu",
            ty: PropType::U32,
            default: "1",
            doc: "CPUs, up to 512",
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
