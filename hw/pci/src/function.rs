//! What a PCI function implements, and the half of it that is the same for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hw_core::{
    Access, ChildBus, DeviceError, Dma, Fault, IrqLine, Mapping, Msi, RegionId, ResetKind, Section,
    StateError, TimerId, Wiring,
};
use hw_memory::{MappingSpec, RamBlock, What};

use crate::bar::{self, Bar, BarInfo, BarKind, BarSpec, IO_PRIORITY, PRIORITY};
use crate::bridge::Bridge;
use crate::bus::PciBus;
use crate::config::{CONVENTIONAL, ConfigSpace, cap, reg};
use crate::msi;
use crate::msix::{Layout, Msix};

/// A PCI function: what lies behind its BARs.
///
/// Each method is called with the device's mutex held; [`Pci`] is the rest of the function.
pub trait PciFunction: Send + 'static {
    /// Class name, for messages and the saved section.
    fn name(&self) -> &'static str;

    /// Called once: ids, BARs, capabilities, wires.
    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError>;

    /// A read of a BAR's registers.
    fn bar_read(&mut self, pci: &mut Pci, bar: u8, access: Access) -> Result<u64, Fault> {
        let _ = (pci, bar, access);
        Err(Fault::NoRegister)
    }

    /// A write to a BAR's registers.
    fn bar_write(
        &mut self,
        pci: &mut Pci,
        bar: u8,
        access: Access,
        value: u64,
    ) -> Result<(), Fault> {
        let _ = (pci, bar, access, value);
        Err(Fault::NoRegister)
    }

    /// A read of a region that the function declared itself.
    fn region_read(&mut self, pci: &mut Pci, access: Access) -> Result<u64, Fault> {
        let _ = (pci, access);
        Err(Fault::NoRegister)
    }

    /// A write to a region that the function declared itself.
    fn region_write(&mut self, pci: &mut Pci, access: Access, value: u64) -> Result<(), Fault> {
        let _ = (pci, access, value);
        Err(Fault::NoRegister)
    }

    /// Called before configuration space is read: registers that are not plain memory.
    fn config_reading(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        let _ = (pci, offset, size);
    }

    /// Configuration space was written; the bytes are in, BARs and interrupts have followed.
    fn config_written(&mut self, pci: &mut Pci, offset: u16, size: u8) {
        let _ = (pci, offset, size);
    }

    /// First pass of a reset: own state only.
    fn reset(&mut self, kind: ResetKind);

    /// Second pass of a reset, and after a restore: pins, mappings and timers follow.
    fn after_reset(&mut self, pci: &mut Pci) {
        let _ = pci;
    }

    /// A timer fired.
    fn timer(&mut self, pci: &mut Pci, timer: TimerId) {
        let _ = (pci, timer);
    }

    /// Posted work.
    fn poke(&mut self, pci: &mut Pci, token: u64) {
        let _ = (pci, token);
    }

    /// An input pin changed.
    fn input(&mut self, pci: &mut Pci, pin: u32, level: bool) {
        let _ = (pci, pin, level);
    }

    /// The function's own saved state.
    fn save(&self) -> Section;

    /// Takes over a saved state.
    fn restore(&mut self, section: &Section) -> Result<(), StateError>;

    /// The function is taken out of a machine that runs: it gives up what is under way.
    fn unplug(&mut self) {}

    /// What it leads to, if it is a bridge; asked once, after `setup`.
    fn bridge(&self) -> Option<Arc<Bridge>> {
        None
    }

    /// The buses it carries.
    fn child_buses(&self) -> Vec<ChildBus> {
        Vec::new()
    }

    /// Registers for `info qtree`.
    fn inspect(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Configuration space, BARs and interrupts of one function.
pub struct Pci {
    irq: IrqLine,
    messages: Msi,
    /// Of the bus.
    bus_number: Arc<AtomicU8>,
    /// I/O BARs answer at port 0.
    at_zero: bool,
    dma: Dma,
    pub(crate) devfn: u8,
    pub(crate) bars: Vec<Bar>,
    pub(crate) config: ConfigSpace,
    pub(crate) msi: Option<msi::Msi>,
    pub(crate) msix: Option<Msix>,
    pub(crate) level: bool,
}

impl Pci {
    pub(crate) fn new(dma: Dma) -> Self {
        dma.set_enabled(false);
        Pci {
            irq: IrqLine::default(),
            messages: Msi::default(),
            bus_number: Arc::default(),
            at_zero: false,
            dma,
            devfn: 0,
            bars: Vec::new(),
            config: ConfigSpace::default(),
            msi: None,
            msix: None,
            level: false,
        }
    }

    pub(crate) fn wire(&mut self, bus: &PciBus, devfn: u8, messages: &Msi) {
        self.devfn = devfn;
        self.messages = messages.clone();
        self.bus_number = bus.number();
        self.at_zero = bus.is_at_zero();
        if let Some(pin) = self.config.byte(reg::INTERRUPT_PIN).checked_sub(1) {
            self.irq = bus.intx(devfn, pin);
        }
    }

    /// Slot and function.
    pub fn devfn(&self) -> u8 {
        self.devfn
    }

    /// Configuration space.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// Configuration space, for the function's own registers.
    pub fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    /// Guest memory, as long as the guest lets the function master the bus.
    pub fn dma(&self) -> &Dma {
        &self.dma
    }

    /// Where a BAR answers now.
    pub fn bar(&self, index: u8) -> Option<BarInfo> {
        let bar = self.bars.iter().find(|b| b.index == index)?;
        Some(BarInfo {
            index,
            kind: bar.kind,
            base: bar::decode(&self.config, (index, bar.kind, bar.len), self.at_zero),
            len: bar.len,
        })
    }

    fn is_master(&self) -> bool {
        self.config.word(reg::COMMAND) & reg::COMMAND_MASTER != 0
    }

    /// Sets the bus master bit as the guest should have done, for drivers of old that did not.
    pub fn enable_master(&mut self) {
        let command = self.config.word(reg::COMMAND) | reg::COMMAND_MASTER;
        self.config.set(reg::COMMAND, 2, u64::from(command));
        self.dma.set_enabled(true);
    }

    /// Whether interrupts go as MSI-X messages.
    pub fn msix_enabled(&self) -> bool {
        self.msix
            .as_ref()
            .is_some_and(|m| m.is_enabled(&self.config))
    }

    /// Whether interrupts go as MSI messages.
    pub fn msi_enabled(&self) -> bool {
        self.msi.is_some_and(|m| m.is_enabled(&self.config))
    }

    /// Number of MSI-X vectors.
    pub fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, |m| m.layout.vectors)
    }

    /// Raises an MSI-X vector, if the guest uses MSI-X.
    pub fn raise_msix(&mut self, vector: u16) {
        if let Some(msix) = &mut self.msix
            && let Some((address, data)) = msix.raise(&self.config, vector)
        {
            self.send(address, data);
        }
    }

    /// Raises an MSI vector, if the guest uses MSI.
    pub fn raise_msi(&mut self, vector: u8) {
        if let Some(msi) = self.msi
            && msi.is_enabled(&self.config)
            && let Some((address, data)) = msi.raise(&mut self.config, vector)
        {
            self.send(address, data);
        }
    }

    /// Bus, slot and function, as what the function sends is marked.
    pub fn requester(&self) -> u32 {
        u32::from(self.bus_number.load(Ordering::Acquire)) << 8 | u32::from(self.devfn)
    }

    fn send(&self, address: u64, data: u32) {
        // A message is a memory write by the function.
        if self.is_master() {
            self.messages.of(self.requester()).send(address, data);
        }
    }

    /// Level of the interrupt pin; shown in the status register, and driven unless the guest uses
    /// messages or has disabled the pin.
    pub fn set_intx(&mut self, level: bool) {
        self.level = level;
        self.sync();
    }

    fn sync(&mut self) {
        let status = self.config.word(reg::STATUS) & !reg::STATUS_INTERRUPT;
        let pending = if self.level { reg::STATUS_INTERRUPT } else { 0 };
        self.config.set(reg::STATUS, 2, u64::from(status | pending));
        let off = self.config.word(reg::COMMAND) & reg::COMMAND_INTX_DISABLE != 0;
        self.irq
            .set(self.level && !off && !self.msi_enabled() && !self.msix_enabled());
    }

    /// BARs, bus mastering and interrupts follow the registers.
    pub(crate) fn follow(&mut self) {
        self.dma.set_enabled(self.is_master());
        for bar in &self.bars {
            match bar::decode(&self.config, (bar.index, bar.kind, bar.len), self.at_zero) {
                Some(base) => bar.mapping.place(base, true),
                None => bar.mapping.set_enabled(false),
            }
        }
        self.release();
        self.sync();
    }

    /// Sends what was held back by masks.
    pub(crate) fn release(&mut self) {
        if let Some(msix) = &mut self.msix {
            for (address, data) in msix.released(&self.config) {
                self.send(address, data);
            }
        }
        if let Some(msi) = self.msi
            && msi.is_enabled(&self.config)
        {
            let free = msi.released(&mut self.config);
            for vector in (0..32u8).filter(|v| free.wrapping_shr(u32::from(*v)) & 1 != 0) {
                self.raise_msi(vector);
            }
        }
    }

    pub(crate) fn bar_of(&self, region: RegionId) -> Option<u8> {
        let bar = self.bars.iter().find(|b| b.region == Some(region))?;
        Some(bar.index)
    }

    /// It is gone: it answers, masters and interrupts no more.
    pub(crate) fn unplug(&mut self) {
        self.dma.set_enabled(false);
        self.bars.iter().for_each(|bar| bar.mapping.remove());
        self.irq.set(false);
    }

    pub(crate) fn reset(&mut self) {
        self.config.reset();
        self.level = false;
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
    }
}

/// What a function does once: it describes itself.
pub struct Setup<'a> {
    /// The half that is the same for all.
    pub pci: &'a mut Pci,
    /// The way to the world.
    pub wiring: &'a mut dyn Wiring,
    /// The bus it will sit on.
    pub bus: &'a PciBus,
}

fn other<T>(why: impl Into<String>) -> Result<T, DeviceError> {
    Err(DeviceError::Other(why.into()))
}

impl Setup<'_> {
    /// Vendor, device, 24 bits of class code, revision. The subsystem is the usual one.
    pub fn ids(&mut self, vendor: u16, device: u16, class: u32, revision: u8) {
        let config = &mut self.pci.config;
        config.set(reg::VENDOR_ID, 2, u64::from(vendor));
        config.set(reg::DEVICE_ID, 2, u64::from(device));
        config.set(reg::REVISION, 1, u64::from(revision));
        config.set(reg::CLASS, 3, u64::from(class));
        self.subsystem(crate::VENDOR_VIRTUAL, crate::SUBSYSTEM);
    }

    /// Another subsystem than the usual one.
    pub fn subsystem(&mut self, vendor: u16, id: u16) {
        let config = &mut self.pci.config;
        config.set(reg::SUBSYSTEM_VENDOR, 2, u64::from(vendor));
        config.set(reg::SUBSYSTEM_ID, 2, u64::from(id));
    }

    /// Interrupt pin: 1 is INTA#.
    pub fn interrupt_pin(&mut self, pin: u8) {
        self.pci
            .config
            .set(reg::INTERRUPT_PIN, 1, u64::from(pin & 7));
    }

    /// Configuration space.
    pub fn config(&mut self) -> &mut ConfigSpace {
        &mut self.pci.config
    }

    /// Adds a BAR; answers its region, unless it is memory.
    pub fn bar(&mut self, spec: BarSpec) -> Result<Option<RegionId>, DeviceError> {
        let smallest = if spec.kind == BarKind::Io { 4 } else { 16 };
        let last = if matches!(spec.kind, BarKind::Memory64 { .. }) {
            4
        } else {
            5
        };
        let rom = spec.kind == BarKind::Rom;
        if !spec.len.is_power_of_two()
            || spec.len < smallest
            || (spec.index > last) != rom
            || self.pci.bars.iter().any(|b| b.index == spec.index)
        {
            return other(format!("BAR {} '{}' is impossible", spec.index, spec.name));
        }
        let BarSpec {
            index,
            name,
            kind,
            len,
            sizes,
            ram,
        } = spec;
        let (region, mapping) = match ram {
            Some(block) => (None, self.map_ram(name, len, kind == BarKind::Rom, block)),
            None => {
                let region = hw_core::Region::unplaced(name, len).sizes(sizes);
                let (id, mapping) = if kind == BarKind::Io {
                    self.wiring.ports(region.priority(IO_PRIORITY))
                } else {
                    self.wiring.mmio(region.priority(PRIORITY))
                };
                (Some(id), mapping)
            }
        };
        bar::define(&mut self.pci.config, index, kind, len);
        self.pci.bars.push(Bar {
            index,
            kind,
            len,
            mapping,
            region,
        });
        Ok(region)
    }

    fn map_ram(&self, name: String, len: u64, rom: bool, block: Arc<RamBlock>) -> Mapping {
        let what = if rom {
            What::Rom {
                block,
                offset: 0,
                writes: None,
            }
        } else {
            What::Ram { block, offset: 0 }
        };
        self.wiring.memory_map().add(MappingSpec {
            name,
            base: 0,
            len,
            priority: PRIORITY,
            enabled: false,
            what,
        })
    }

    /// The expansion ROM with these contents.
    pub fn rom(&mut self, name: &str, contents: &[u8]) -> Result<(), DeviceError> {
        if contents.is_empty() || contents.len() > 16 << 20 {
            return other(format!("expansion ROM '{name}' is empty or above 16 MiB"));
        }
        let len = (contents.len() as u64).max(4096).next_power_of_two();
        let block = RamBlock::new(name, len).map_err(|e| DeviceError::Other(e.to_string()))?;
        block.write(0, contents);
        self.bar(BarSpec {
            ram: Some(Arc::new(block)),
            ..BarSpec::new(6, name, BarKind::Rom, len)
        })
        .map(|_| ())
    }

    /// Adds an MSI capability of 1, 2, 4 ... 32 vectors, if messages arrive anywhere.
    pub fn msi(&mut self, vectors: u8) -> Result<(), DeviceError> {
        if !self.wiring.msi().is_connected() {
            return Ok(());
        }
        if !vectors.is_power_of_two() || vectors > 32 {
            return other(format!("{vectors} MSI vectors are impossible"));
        }
        let (body, writable) = msi::body(vectors);
        let at = self.pci.config.add_capability(cap::MSI, &body, &writable)?;
        self.pci.msi = Some(msi::Msi { at, vectors });
        Ok(())
    }

    /// Adds an MSI-X capability whose table and bitmap lie in a BAR, if messages arrive anywhere.
    pub fn msix(&mut self, bar: u8, table: u32, pba: u32, vectors: u16) -> Result<(), DeviceError> {
        if !self.wiring.msi().is_connected() {
            return Ok(());
        }
        if vectors == 0 || vectors > 2048 || bar > 5 || (table | pba) & 7 != 0 {
            return other(format!("{vectors} MSI-X vectors are impossible"));
        }
        let layout = Layout {
            bar,
            table,
            pba,
            vectors,
        };
        let (body, writable) = layout.body();
        let at = self
            .pci
            .config
            .add_capability(cap::MSIX, &body, &writable)?;
        self.pci.msix = Some(Msix::new(at, layout));
        Ok(())
    }

    /// Adds a memory BAR for nothing but MSI-X, as QEMU lays it out.
    pub fn msix_bar(&mut self, bar: u8, name: &str, vectors: u16) -> Result<(), DeviceError> {
        if vectors == 0 || !self.wiring.msi().is_connected() {
            return Ok(());
        }
        let table = u32::from(vectors).saturating_mul(16);
        let pba = table.max(2048);
        let bitmap = u32::from(vectors).div_ceil(64).saturating_mul(8);
        let len = pba.saturating_add(bitmap).max(4096).next_power_of_two();
        let kind = BarKind::Memory32 { prefetch: false };
        self.bar(BarSpec::new(bar, name, kind, u64::from(len)))?;
        self.msix(bar, 0, pba, vectors)
    }
}

/// Whether a configuration access lies in the space of a conventional function.
pub(crate) fn in_config(offset: u64, size: u8) -> Option<u16> {
    let end = offset.checked_add(u64::from(size))?;
    let offset = u16::try_from(offset).ok()?;
    (end <= CONVENTIONAL as u64).then_some(offset)
}
