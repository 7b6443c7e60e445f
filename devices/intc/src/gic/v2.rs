//! Registers of version 2: distributor and CPU interfaces (IHI 0048B sections 4.3 and 4.4).

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Prop,
    PropType, Region, RegionId, ResetKind, Section, StateError, Wiring,
};
use hw_intc::{GIC_PRIORITY, GIC_SGIS, GICV2_MAX_CPUS, GicVersion};

use super::distributor::Reg;
use super::model::{FIRST_SPECIAL, Model, OTHER_GROUP, SPURIOUS, bit, cpu_ctlr, running};
use super::{Gic, IIDR, acts, cpu_of, id_register};

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

const GICC_CTLR: u64 = 0x00;
const GICC_PMR: u64 = 0x04;
const GICC_BPR: u64 = 0x08;
const GICC_IAR: u64 = 0x0c;
const GICC_EOIR: u64 = 0x10;
const GICC_RPR: u64 = 0x14;
const GICC_HPPIR: u64 = 0x18;
const GICC_ABPR: u64 = 0x1c;
const GICC_AIAR: u64 = 0x20;
const GICC_AEOIR: u64 = 0x24;
const GICC_AHPPIR: u64 = 0x28;
const GICC_APR0: u64 = 0xd0;
const GICC_NSAPR0: u64 = 0xe0;
const GICC_IIDR: u64 = 0xfc;
const GICC_DIR: u64 = 0x1000;
/// A CPU interface of version 2.
const GICC_VERSION: u64 = 2 << 16;

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

fn targets(model: &Model, cpu: usize, intid: usize) -> u8 {
    // A uniprocessor has no targets to choose (section 4.3.12).
    match intid.checked_sub(32) {
        _ if model.state.cpus.len() == 1 => 0,
        None => 1u8.checked_shl(cpu as u32).unwrap_or(0),
        Some(spi) => model.state.routes.get(spi).copied().unwrap_or(0) as u8,
    }
}

fn read_distributor(model: &Model, cpu: usize, access: &Access) -> Result<u64, Fault> {
    let (offset, size) = (access.offset, access.size);
    if let Some(reg) = Reg::at(offset, size) {
        return Ok(reg.read(model, cpu, size));
    }
    let index = (offset & 0x3ff) as usize;
    let state = &model.state;
    Ok(match offset {
        GICD_ITARGETSR..GICD_ITARGETSR_END => {
            bytes(size, |n| targets(model, cpu, index.wrapping_add(n)))
        }
        GICD_CPENDSGIR..GICD_SPENDSGIR_END => {
            let sources = state.cpus.get(cpu).map(|c| c.sgi_sources);
            let sources = sources.unwrap_or_default();
            let first = (offset & 0xf) as usize;
            let at = |n: usize| sources.get(first.wrapping_add(n)).copied().unwrap_or(0);
            bytes(size, at)
        }
        _ if size != 4 => return Err(Fault::BadSize),
        GICD_CTLR => state.ctlr.into(),
        GICD_TYPER => {
            (state.spis.len() as u64 & 31) | (state.cpus.len().saturating_sub(1) as u64 & 7) << 5
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
    if let Some(reg) = Reg::at(offset, size) {
        reg.write(model, cpu, size, value);
        return Ok(());
    }
    let each = value.to_le_bytes();
    let each = each.iter().take(size.into());
    match offset {
        GICD_ITARGETSR..GICD_ITARGETSR_END => {
            let all = model.state.cpus.len();
            let present = 0xffu64.wrapping_shr(8u32.saturating_sub(all.min(8) as u32));
            for (intid, byte) in ((offset & 0x3ff) as usize..).zip(each) {
                if let Some(spi) = intid.checked_sub(32).filter(|_| all > 1) {
                    model.set_route(spi, u64::from(*byte) & present);
                }
            }
        }
        GICD_CPENDSGIR..GICD_SPENDSGIR_END => {
            let Some(own) = model.state.cpus.get_mut(cpu) else {
                return Ok(());
            };
            let first = (offset & 0xf) as usize;
            for (n, byte) in (first..GIC_SGIS).zip(each) {
                let Some(sources) = own.sgi_sources.get_mut(n) else {
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
        GICD_CTLR => model.state.ctlr = value as u32 & 3,
        GICD_SGIR => {
            let others = !1u64.checked_shl(cpu as u32).unwrap_or(0);
            let to = match value >> 24 & 3 {
                0 => value >> 16 & 0xff,
                1 => others,
                2 => !others,
                _ => 0,
            };
            for n in 0..model.state.cpus.len().min(GICV2_MAX_CPUS) {
                if to.wrapping_shr(n as u32) & 1 != 0 {
                    model.send_sgi(cpu, n, value as u32 & 15);
                }
            }
        }
        GICD_TYPER | GICD_IIDR => return Err(Fault::ReadOnly),
        _ => return Err(Fault::NoRegister),
    }
    Ok(())
}

/// Which interrupts a register of the CPU interface is about.
fn acknowledge(model: &mut Model, cpu: usize, aliased: bool) -> u32 {
    let Some(candidate) = model.signalled(cpu) else {
        return SPURIOUS;
    };
    match visible(model, cpu, candidate.group, aliased) {
        Ok(()) => model.activate(cpu, candidate),
        Err(special) => special,
    }
}

/// Group 1 is seen through the aliased registers, or where GICC_CTLR.AckCtl says so.
fn visible(model: &Model, cpu: usize, group: usize, aliased: bool) -> Result<(), u32> {
    let own = model.state.cpus.get(cpu);
    let ack_ctl = own.is_some_and(|own| own.ctlr & cpu_ctlr::ACK_CTL != 0);
    match (group, aliased) {
        (0, true) => Err(SPURIOUS),
        (1, false) if !ack_ctl => Err(OTHER_GROUP),
        _ => Ok(()),
    }
}

fn read_interface(model: &mut Model, cpu: usize, access: &Access) -> Result<u64, Fault> {
    let aliased = matches!(access.offset, GICC_AIAR | GICC_AHPPIR);
    if matches!(access.offset, GICC_IAR | GICC_AIAR) && acts(access) {
        return Ok(acknowledge(model, cpu, aliased).into());
    }
    let highest = model.highest(cpu);
    let own = model.state.cpus.get(cpu).ok_or(Fault::NoRegister)?;
    Ok(match access.offset {
        GICC_CTLR => u64::from(own.ctlr) | u64::from(own.groups),
        GICC_PMR => own.pmr.into(),
        GICC_BPR => own.bpr[0].into(),
        GICC_ABPR => own.bpr[1].into(),
        GICC_RPR => running(own).into(),
        GICC_HPPIR | GICC_AHPPIR | GICC_IAR | GICC_AIAR => match highest {
            None => SPURIOUS.into(),
            Some(c) => visible(model, cpu, c.group, aliased).map_or_else(u64::from, |()| {
                let sources = own.sgi_sources.get(c.intid as usize).copied();
                let from = sources.map_or(0, |s| u64::from(s.trailing_zeros() & 7));
                u64::from(c.intid) | from << 10
            }),
        },
        GICC_APR0 => own.apr[0].into(),
        GICC_NSAPR0 => own.apr[1].into(),
        // Those of priorities that are not implemented.
        0xd4..0xe0 | 0xe4..0xf0 => 0,
        GICC_IIDR => GICC_VERSION | IIDR,
        GICC_EOIR | GICC_AEOIR | GICC_DIR => return Err(Fault::WriteOnly),
        _ => return Err(Fault::NoRegister),
    })
}

fn write_interface(model: &mut Model, cpu: usize, offset: u64, value: u64) -> Result<(), Fault> {
    let intid = value as u32 & 0x3ff;
    match offset {
        GICC_EOIR | GICC_AEOIR => {
            if intid < FIRST_SPECIAL {
                let group = model.group_of(cpu, intid);
                model.end(cpu, intid, group);
            }
            return Ok(());
        }
        GICC_DIR => {
            if intid < FIRST_SPECIAL {
                model.deactivate(cpu, intid);
            }
            return Ok(());
        }
        GICC_BPR => {
            model.set_bpr(cpu, 0, value);
            return Ok(());
        }
        GICC_ABPR => {
            model.set_bpr(cpu, 1, value);
            return Ok(());
        }
        _ => {}
    }
    let own = model.state.cpus.get_mut(cpu).ok_or(Fault::NoRegister)?;
    match offset {
        GICC_CTLR => {
            own.groups = value as u8 & 3;
            own.ctlr = value as u32 & cpu_ctlr::WRITABLE;
        }
        GICC_PMR => own.pmr = value as u8 & GIC_PRIORITY,
        GICC_APR0 => own.apr[0] = value as u32,
        GICC_NSAPR0 => own.apr[1] = value as u32,
        0xd4..0xe0 | 0xe4..0xf0 => {}
        GICC_IAR | GICC_AIAR | GICC_RPR | GICC_HPPIR | GICC_AHPPIR | GICC_IIDR => {
            return Err(Fault::ReadOnly);
        }
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
                write_interface(model, cpu, access.offset, value)
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
