//! The device contract.

use std::any::Any;
use std::sync::Arc;

use hw_clock::{Clock, Timer};
use hw_memory::{
    Access, AccessSizes, ByteOrder, Dma, Doorbell, Fault, IoRegion, Mapping, MemoryMap, RegionId,
};
use hw_state::{Section, StateError};

use crate::bell::Ringing;
use crate::class::{BusKind, DeviceError};
use crate::irq::{IrqLine, Msi};
use crate::request::Requests;

/// Which of a device's timers fired: a number of the device's own choosing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId(pub u32);

/// Why a reset happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetKind {
    /// Power on, or a reset of the whole machine.
    Cold,
    /// Only this device, by its bus or its own register.
    Device,
}

/// A bus that a device carries, for others to plug into.
#[derive(Clone)]
pub struct ChildBus {
    /// What plugs in.
    pub kind: BusKind,
    /// The bus as its crate knows it: goes into [`Placement::bus`](crate::Placement::bus).
    pub bus: Arc<dyn Any + Send + Sync>,
    /// The first free place on it; `None` when it is full.
    pub free: Option<u32>,
    /// Takes devices in and out of a machine that runs; `None` for a bus that does not.
    pub hot_plug: Option<Arc<dyn HotPlug>>,
}

/// A bus whose devices come and go while the machine runs. Called by the machine's life cycle, with
/// nothing locked.
pub trait HotPlug: Send + Sync {
    /// Devices were plugged in or taken out: the guest is told.
    fn changed(&self);

    /// Whether the guest has to let go of a device before it is taken out.
    fn asks_guest(&self) -> bool {
        false
    }

    /// Asks the guest to let go of what is on the bus. It may never do so; once it has, `released` is
    /// called, with a device locked: it must only post.
    fn ask(&self, released: Arc<dyn Fn() + Send + Sync>) -> Result<(), DeviceError> {
        let _ = released;
        Ok(())
    }
}

/// A model of a piece of hardware.
///
/// Each method is called with the device's own mutex held and no other device's. While in one, a
/// device may use its wires (pins, clock, timers, DMA, requests) and nothing else.
pub trait Device: Send + 'static {
    /// Called once, before anything else: declares regions, pins and timers and keeps the wires.
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError>;

    /// First pass of a reset: own state only. Must not touch pins, timers or guest memory: other
    /// devices may be half reset. Called by the life cycle with all vCPUs parked.
    fn reset(&mut self, kind: ResetKind);

    /// Second pass of a reset, after every device had its first: pins and timers follow the state.
    fn after_reset(&mut self) {}

    /// A read of one of the device's regions. The value is in the region's byte order; only the low
    /// `access.size` bytes count.
    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let _ = access;
        Err(Fault::NoRegister)
    }

    /// A write to one of the device's regions; the bits above `access.size` bytes are zero.
    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let _ = (access, value);
        Err(Fault::NoRegister)
    }

    /// A deadline armed through [`Wiring::timer`] passed. Called by the main loop.
    fn timer(&mut self, timer: TimerId) {
        let _ = timer;
    }

    /// The level of input pin `pin` (declared with [`Wiring::inputs`]) changed. Called by whoever
    /// drives the pin, possibly with that device locked: touch own state and own output pins only.
    fn input(&mut self, pin: u32, level: bool) {
        let _ = (pin, level);
    }

    /// Posted work of the device's own making ([`Wiring::poke`]): a back end has data, a doorbell
    /// rang. Called by the main loop or an I/O loop.
    fn poke(&mut self, token: u64) {
        let _ = token;
    }

    /// Called once, when the device is taken out of a machine that runs: it leaves its bus and gives
    /// up what is under way. Its regions are taken out of the maps after it.
    fn unplug(&mut self) {}

    /// The saved form of the state. Called with the machine stopped.
    fn save(&self) -> Section;

    /// Takes over a saved state, which is untrusted: checks everything, then assigns once.
    /// [`after_reset`](Self::after_reset) is called when all devices are restored.
    fn restore(&mut self, section: &Section) -> Result<(), StateError>;

    /// The buses this device carries, once realized. The board names them `ID.0` and so on, and plugs
    /// into them.
    fn child_buses(&self) -> Vec<ChildBus> {
        Vec::new()
    }

    /// What `info qtree` and debuggers show beside the properties: register name and value.
    fn inspect(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A region a device declares.
#[derive(Clone, Debug)]
pub struct Region {
    /// Name shown by `info mtree`.
    pub name: String,
    /// First address; `None` for a region that its bus or the device places later.
    pub base: Option<u64>,
    /// Bytes.
    pub len: u64,
    /// Byte order of the device's registers.
    pub order: ByteOrder,
    /// Widths the device takes.
    pub sizes: AccessSizes,
    /// Higher wins where regions overlap.
    pub priority: i32,
}

impl Region {
    /// A little-endian region of registers of one to four bytes, priority 1.
    pub fn new(name: impl Into<String>, base: u64, len: u64) -> Self {
        Region {
            name: name.into(),
            base: Some(base),
            len,
            order: ByteOrder::Little,
            sizes: AccessSizes::UP_TO_4,
            priority: 1,
        }
    }

    /// A region that is placed later.
    pub fn unplaced(name: impl Into<String>, len: u64) -> Self {
        Region {
            base: None,
            ..Region::new(name, 0, len)
        }
    }

    /// With these widths.
    #[must_use]
    pub fn sizes(mut self, sizes: AccessSizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// With this byte order.
    #[must_use]
    pub fn order(mut self, order: ByteOrder) -> Self {
        self.order = order;
        self
    }

    /// With this priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }
}

/// Which wire a device's output pin goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IrqPin<'a> {
    /// Interrupt request line `n` of the bus the device sits on (ISA IRQ 0 to 15).
    Bus(u32),
    /// A pin of this name, which the board connects.
    Named(&'a str),
}

/// The only way from a device to the world. Given to [`Device::realize`].
pub trait Wiring {
    /// A region of the memory map whose accesses come to the device's `read` and `write`.
    fn mmio(&mut self, region: Region) -> (RegionId, Mapping);

    /// A region of the port map (PCs).
    fn ports(&mut self, region: Region) -> (RegionId, Mapping);

    /// A region in no map: configuration space, or one that a bus places. Its accesses come through
    /// the returned handler, which locks the device.
    fn detached(&mut self) -> (RegionId, Arc<dyn IoRegion>);

    /// Another map entry for an existing handler (a bus's own decoder, RAM behind a BAR).
    fn memory_map(&self) -> MemoryMap;

    /// The port map.
    fn port_map(&self) -> MemoryMap;

    /// One of the device's output pins.
    fn irq(&mut self, pin: IrqPin<'_>) -> IrqLine;

    /// Declares `count` input pins; levels come to [`Device::input`]. The returned sink is what
    /// others drive.
    fn inputs(&mut self, count: u32) -> Arc<dyn crate::irq::IrqSink>;

    /// Where message-signalled interrupts go.
    fn msi(&self) -> Msi;

    /// Guest memory.
    fn dma(&self) -> Dma;

    /// The machine's time.
    fn clock(&self) -> Clock;

    /// A timer on virtual time that comes to [`Device::timer`].
    fn timer(&mut self, id: TimerId) -> Timer;

    /// A callback that may be called from any thread without any lock; it ends in
    /// [`Device::poke`] with the same token. It locks the device: call it from a loop, never from
    /// within a device.
    fn poke(&mut self) -> Arc<dyn Fn(u64) + Send + Sync>;

    /// Registers that the guest writes to say "look", and to say nothing else. Where a loop serves
    /// them, such writes no longer come to [`Device::write`], and however many there were, one
    /// [`Device::poke`] with `token` follows. Everywhere else they come to `write` as ever, and with
    /// [`Ringing::AtOnce`] also from vCPUs whose writes the engine passes on itself.
    fn doorbells(&mut self, registers: Vec<Doorbell>, ringing: Ringing, token: u64);

    /// What waits until a back end has carried out all it was given, completions included. The
    /// machine calls it when its vCPUs are parked, with no lock held: nothing is under way while it
    /// is stopped.
    fn on_stop(&mut self, drain: Arc<dyn Fn() + Send + Sync>);

    /// Requests to the machine.
    fn requests(&self) -> Requests;

    /// The bus the device sits on, as its crate defines it (`hw_pci::PciBus`).
    fn bus(&self) -> Option<&(dyn Any + Send + Sync)>;
}
