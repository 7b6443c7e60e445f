//! The adapter that makes a device of a PCI function.

use hw_core::{
    Access, Args, ChildBus, Device, DeviceError, Dma, Fault, IoRegion, RegionId, ResetKind,
    Section, StateError, TimerId, Wiring,
};
use hw_memory::MemoryMap;

use crate::bus::{PciBus, Plugged};
use crate::config::reg;
use crate::function::{Pci, PciFunction, Setup, in_config};

/// Properties that every PCI function has.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PciOptions {
    /// Slot and function, or the first free slot.
    pub devfn: Option<u8>,
    /// Others may share the slot.
    pub multifunction: bool,
    /// Contents of the expansion ROM.
    pub rom: Option<Vec<u8>>,
}

impl PciOptions {
    /// At a fixed place.
    pub fn at(devfn: u8) -> Self {
        PciOptions {
            devfn: Some(devfn),
            ..PciOptions::default()
        }
    }

    /// From the properties of a class that has [`ADDR`](crate::ADDR) and its fellows.
    pub fn from_args(args: &Args) -> Result<Self, DeviceError> {
        let rom = match args.text("romfile") {
            Some(file) if !file.is_empty() && args.int("rombar") != Some(0) => {
                let bytes = std::fs::read(file).map_err(|e| {
                    DeviceError::Other(format!("cannot read expansion ROM '{file}': {e}"))
                })?;
                Some(bytes)
            }
            _ => None,
        };
        Ok(PciOptions {
            devfn: args.int("addr").and_then(|v| u8::try_from(v).ok()),
            multifunction: args.flag("multifunction").unwrap_or(false),
            rom,
        })
    }
}

/// A PCI function as a device.
pub struct PciDevice<F> {
    pci: Pci,
    config_region: Option<RegionId>,
    options: PciOptions,
    bus: Option<PciBus>,
    function: F,
}

impl<F: PciFunction> PciDevice<F> {
    /// A function with the properties all have.
    pub fn new(function: F, options: PciOptions) -> Self {
        PciDevice {
            pci: Pci::new(Dma::new(MemoryMap::default())),
            config_region: None,
            options,
            bus: None,
            function,
        }
    }

    /// The function itself.
    pub fn function(&self) -> &F {
        &self.function
    }

    fn config_read(&mut self, access: Access) -> Result<u64, Fault> {
        let offset = in_config(access.offset, access.size).ok_or(Fault::NoRegister)?;
        self.function
            .config_reading(&mut self.pci, offset, access.size);
        Ok(self.pci.config.get(offset, access.size))
    }

    fn config_write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let offset = in_config(access.offset, access.size).ok_or(Fault::NoRegister)?;
        self.pci.config.guest_write(offset, access.size, value);
        self.pci.follow();
        self.function
            .config_written(&mut self.pci, offset, access.size);
        Ok(())
    }
}

impl<F: PciFunction> Device for PciDevice<F> {
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let name = self.function.name();
        let bus = wiring
            .bus()
            .and_then(|bus| bus.downcast_ref::<PciBus>())
            .cloned()
            .ok_or_else(|| DeviceError::Other(format!("'{name}' needs a PCI bus")))?;
        let devfn = bus.place(name, self.options.devfn, self.options.multifunction)?;
        self.pci = Pci::new(wiring.dma().fork());
        self.pci.devfn = devfn;
        let mut setup = Setup {
            pci: &mut self.pci,
            wiring,
            bus: &bus,
        };
        self.function.setup(&mut setup)?;
        if let Some(rom) = self.options.rom.take() {
            setup.rom(&format!("{name}.rom"), &rom)?;
        }
        if self.options.multifunction {
            let header = self.pci.config.byte(reg::HEADER_TYPE) | 0x80;
            self.pci.config.set(reg::HEADER_TYPE, 1, u64::from(header));
        }
        self.pci.config.seal();
        self.pci.wire(&bus, devfn, &wiring.msi());
        let (region, config): (_, std::sync::Arc<dyn IoRegion>) = wiring.detached();
        self.config_region = Some(region);
        let bars = self.pci.bars.iter();
        bus.plug(
            devfn,
            Plugged {
                name: name.into(),
                multifunction: self.options.multifunction,
                config,
                bars: bars.map(|b| (b.index, b.kind, b.len)).collect(),
                bridge: self.function.bridge(),
            },
        );
        self.bus = Some(bus);
        Ok(())
    }

    fn reset(&mut self, kind: ResetKind) {
        self.pci.reset();
        self.function.reset(kind);
    }

    fn after_reset(&mut self) {
        self.pci.follow();
        self.function.after_reset(&mut self.pci);
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        if Some(access.region) == self.config_region {
            return self.config_read(access);
        }
        let Some(bar) = self.pci.bar_of(access.region) else {
            return self.function.region_read(&mut self.pci, access);
        };
        if let Some(msix) = &self.pci.msix
            && let Some(value) = msix.read(bar, access.offset, access.size)
        {
            return Ok(value);
        }
        self.function.bar_read(&mut self.pci, bar, access)
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        if Some(access.region) == self.config_region {
            return self.config_write(access, value);
        }
        let Some(bar) = self.pci.bar_of(access.region) else {
            return self.function.region_write(&mut self.pci, access, value);
        };
        if let Some(msix) = &mut self.pci.msix
            && msix.write(bar, access.offset, access.size, value)
        {
            self.pci.release();
            return Ok(());
        }
        self.function.bar_write(&mut self.pci, bar, access, value)
    }

    fn timer(&mut self, timer: TimerId) {
        self.function.timer(&mut self.pci, timer);
    }

    fn poke(&mut self, token: u64) {
        self.function.poke(&mut self.pci, token);
    }

    fn input(&mut self, pin: u32, level: bool) {
        self.function.input(&mut self.pci, pin, level);
    }

    fn unplug(&mut self) {
        if let Some(bus) = self.bus.take() {
            bus.unplug(self.pci.devfn);
        }
        self.function.unplug();
        self.pci.unplug();
    }

    fn save(&self) -> Section {
        let Pci {
            config,
            msi,
            msix,
            level,
            ..
        } = &self.pci;
        let mut section = Section::new("pci", 1)
            .with(1, config.bytes())
            .with(2, *level)
            .with(3, self.function.save());
        if let Some(msix) = msix {
            section.push(4, msix.save());
        }
        if let Some(msi) = msi {
            section.push(5, msi.pending(config));
        }
        section
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("pci", 1)?;
        let mut config = self.pci.config.restored(section.bytes(1)?)?;
        let level = section.bool(2)?;
        let msix = match &self.pci.msix {
            Some(msix) => Some(msix.restored(section.section(4)?)?),
            None => None,
        };
        if let Some(msi) = &self.pci.msi {
            msi.set_pending(&mut config, section.u32(5)?);
        }
        self.function.restore(section.section(3)?)?;
        self.pci.config = config;
        self.pci.level = level;
        self.pci.msix = msix;
        Ok(())
    }

    fn child_buses(&self) -> Vec<ChildBus> {
        self.function.child_buses()
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let mut out = vec![("addr", u64::from(self.pci.devfn))];
        out.extend(self.function.inspect());
        out
    }
}
