//! The IDE function of the Intel PIIX3 (82371SB): two channels at the ports of the IBM AT.
//!
//! Spec: Intel 82371FB (PIIX) and 82371SB (PIIX3) PCI ISA IDE Xcelerator, 2.3 (configuration) and 2.7
//! (bus master).
//!
//! Not modelled: timing (kept, without effect).

use hw_core::{
    Access, AccessSizes, ChildBus, DeviceError, Fault, IrqPin, Region, RegionId, ResetKind,
    Section, StateError,
};
use hw_pci::{BarKind, BarSpec, Pci, PciDevice, PciFunction, PciOptions, Setup, VENDOR_INTEL, reg};

use crate::channel::{Channel, Mastered, is_mastered, master};
use crate::master::Master;

const DEVICE: u16 = 0x7010;
/// IDE, channels at their old ports, with a bus master.
const CLASS: u32 = 0x01_0180;
/// Timing of the two channels; bit 15 lets the ports answer.
const IDETIM: u16 = 0x40;
/// Base address of the bus masters.
const BMIBA: u8 = 4;

/// First port of the command block, that of device control, and interrupt, of each channel.
const CHANNELS: [(u64, u64, u32); 2] = [(0x1f0, 0x3f6, 14), (0x170, 0x376, 15)];

/// Poke token: requests of the media have ended.
const ENDED: u64 = 0;

/// What a region is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Command,
    Control,
}

/// The function beside the ISA bridge.
pub struct Piix3Ide {
    regions: Vec<(RegionId, usize, Block)>,
    channels: [Channel; 2],
    masters: [Master; 2],
}

impl Piix3Ide {
    /// The function at this place.
    pub fn new(devfn: u8) -> PciDevice<Self> {
        let function = Piix3Ide {
            regions: Vec::new(),
            channels: [Channel::new(), Channel::new()],
            masters: [Master::default(), Master::default()],
        };
        PciDevice::new(function, PciOptions::at(devfn))
    }

    /// The drive of a channel waits for its bus master: both begin when both are ready.
    fn run(&mut self, pci: &Pci, index: usize) {
        let (Some(channel), Some(bus_master)) =
            (self.channels.get_mut(index), self.masters.get_mut(index))
        else {
            return;
        };
        while bus_master.is_active()
            && let Some(drive) = channel.waiting()
        {
            let mut drive = drive.lock();
            let (len, is_out) = (drive.transfer.job.len(), drive.transfer.job.is_out());
            let memory = match bus_master.memory(pci.dma(), len, !is_out) {
                Some(memory) => Mastered::Memory(memory),
                None => Mastered::Fault,
            };
            let interrupts = master(&mut drive, memory);
            if !is_mastered(&drive) {
                bus_master.done();
            }
            drop(drive);
            if interrupts {
                channel.interrupt();
                bus_master.interrupt();
            }
        }
    }

    /// Runs `f` on a channel; what it raises is seen by the bus master too.
    fn on<R>(&mut self, index: usize, f: impl FnOnce(&mut Channel) -> R) -> Option<R> {
        let channel = self.channels.get_mut(index)?;
        let before = channel.intrq();
        let result = f(channel);
        if channel.intrq() && !before {
            self.masters.get_mut(index)?.interrupt();
        }
        Some(result)
    }

    fn place(&self, access: &Access) -> Result<(usize, Block), Fault> {
        let found = self.regions.iter().find(|(id, ..)| *id == access.region);
        let (_, index, block) = found.ok_or(Fault::NoRegister)?;
        Ok((*index, *block))
    }
}

/// Which channel's bus master a port belongs to, and which of its ports.
fn master_port(offset: u64) -> Option<(usize, u64)> {
    let index = usize::try_from(offset.checked_div(Master::PORTS)?).ok()?;
    Some((index, offset.checked_rem(Master::PORTS)?))
}

impl PciFunction for Piix3Ide {
    fn name(&self) -> &'static str {
        "piix3-ide"
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_INTEL, DEVICE, CLASS, 0);
        let config = setup.config();
        config.set(reg::STATUS, 2, 0x0280);
        config.set_writable(IDETIM, 4, 0xb3ff_b3ff);
        setup.bar(BarSpec::new(BMIBA, "bmdma", BarKind::Io, 16))?;
        for (index, (command, control, irq)) in CHANNELS.into_iter().enumerate() {
            // The data port is two bytes wide and takes four at once; all others are bytes.
            let region = Region::new("ide", command, 8).sizes(AccessSizes::UP_TO_4);
            let (id, _) = setup.wiring.ports(region);
            self.regions.push((id, index, Block::Command));
            let region = Region::new("ide-control", control, 1);
            let (id, _) = setup
                .wiring
                .ports(region.sizes(AccessSizes { min: 1, max: 1 }));
            self.regions.push((id, index, Block::Control));
            let line = setup.wiring.irq(IrqPin::Bus(irq));
            let poke = setup.wiring.poke();
            if let Some(channel) = self.channels.get_mut(index) {
                channel.irq = line;
                channel.bus.connect(poke, ENDED);
            }
        }
        Ok(())
    }

    fn bar_read(&mut self, _: &mut Pci, _: u8, access: Access) -> Result<u64, Fault> {
        let mut value = 0u64;
        for n in 0..u64::from(access.size) {
            let (index, port) =
                master_port(access.offset.wrapping_add(n)).ok_or(Fault::NoRegister)?;
            let bus_master = self.masters.get(index).ok_or(Fault::NoRegister)?;
            let byte = u64::from(bus_master.read(port));
            value |= byte.wrapping_shl((n as u32).wrapping_mul(8));
        }
        Ok(value)
    }

    fn bar_write(&mut self, pci: &mut Pci, _: u8, access: Access, value: u64) -> Result<(), Fault> {
        let bytes = value.to_le_bytes();
        for (n, byte) in (0..u64::from(access.size)).zip(bytes) {
            let (index, port) =
                master_port(access.offset.wrapping_add(n)).ok_or(Fault::NoRegister)?;
            let bus_master = self.masters.get_mut(index).ok_or(Fault::NoRegister)?;
            if bus_master.write(port, byte) {
                self.run(pci, index);
            }
        }
        Ok(())
    }

    fn region_read(&mut self, _: &mut Pci, access: Access) -> Result<u64, Fault> {
        let (index, block) = self.place(&access)?;
        let port = access.offset as u8;
        self.on(index, |channel| match (block, port) {
            (Block::Control, _) => u64::from(channel.status()),
            (Block::Command, 0) => channel.read_data(access.size),
            (Block::Command, port) => {
                let bytes = (port..8).take(usize::from(access.size)).enumerate();
                bytes.fold(0, |value, (n, port)| {
                    let shift = (n as u32).wrapping_mul(8);
                    value | u64::from(channel.read(port)).wrapping_shl(shift)
                })
            }
        })
        .ok_or(Fault::NoRegister)
    }

    fn region_write(&mut self, pci: &mut Pci, access: Access, value: u64) -> Result<(), Fault> {
        let (index, block) = self.place(&access)?;
        let port = access.offset as u8;
        self.on(index, |channel| match (block, port) {
            (Block::Control, _) => channel.write_control(value as u8),
            (Block::Command, 0) => channel.write_data(access.size, value),
            (Block::Command, port) => {
                let bytes = value.to_le_bytes();
                for (port, byte) in (port..8).zip(bytes).take(usize::from(access.size)) {
                    channel.write(port, byte);
                }
            }
        })
        .ok_or(Fault::NoRegister)?;
        self.run(pci, index);
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.channels.iter_mut().for_each(Channel::reset);
        self.masters = [Master::default(), Master::default()];
    }

    fn after_reset(&mut self, pci: &mut Pci) {
        for index in 0..CHANNELS.len() {
            self.on(index, Channel::resume);
            self.run(pci, index);
        }
    }

    fn poke(&mut self, pci: &mut Pci, _: u64) {
        for index in 0..CHANNELS.len() {
            let is_done = self.on(index, Channel::poke) == Some(true);
            if let Some(bus_master) = self.masters.get_mut(index).filter(|_| is_done) {
                bus_master.done();
            }
            self.run(pci, index);
        }
    }

    fn save(&self) -> Section {
        let [first, second] = &self.channels;
        let [first_master, second_master] = &self.masters;
        Section::new(self.name(), 1)
            .with(1, first.save())
            .with(2, second.save())
            .with(3, first_master.save())
            .with(4, second_master.save())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        let masters = [
            Master::restored(section.section(3)?)?,
            Master::restored(section.section(4)?)?,
        ];
        let states =
            [section.section(1)?, section.section(2)?].map(crate::channel::State::restored);
        let [first, second] = states;
        let states = [first?, second?];
        for (channel, state) in self.channels.iter_mut().zip(states) {
            channel.set_state(state);
        }
        self.masters = masters;
        Ok(())
    }

    fn child_buses(&self) -> Vec<ChildBus> {
        self.channels.iter().map(|c| c.bus.child()).collect()
    }
}
