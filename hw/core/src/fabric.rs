//! The fabric: every part of a machine behind its mutex, with its wires.
//!
//! Boards and tests alike add devices here. The fabric resets them in two passes, saves and restores
//! them by path, and owns the maps and the clock.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use hw_clock::{Clock, Timer};
use hw_memory::{
    Access, Dma, Doorbell, Fault, IoRegion, Mapping, MappingSpec, MemoryMap, RegionId, RungBell,
    What,
};
use hw_state::{Section, StateError};
use runtime::{Handle, Rank, Ranked, Watch};

use crate::bell::{Bell, Bells, Ringing};
use crate::class::DeviceError;
use crate::device::{Device, IrqPin, Region, ResetKind, TimerId, Wiring};
use crate::irq::{IrqHub, IrqLine, IrqSink, Msi};
use crate::request::Requests;

type Slot = Ranked<Box<dyn Device>>;
type Drain = Arc<dyn Fn() + Send + Sync>;

/// Index of a part in its fabric.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct PartId(usize);

/// One device in its place.
pub struct Part {
    /// Unique path, also the key of the saved state: the user's id, or the board's name for it.
    pub path: String,
    /// Class name.
    pub class: &'static str,
    /// Properties as shown by `info qtree`.
    pub props: Vec<(String, String)>,
    /// Name of the bus it sits on.
    pub bus: String,
    slot: Arc<Slot>,
    bells: Bells,
    /// Its places in the maps.
    mappings: Vec<Mapping>,
    drains: Vec<Drain>,
}

impl Part {
    /// Runs `f` on the device, locked. For boards, monitors and tests; never from within a device.
    pub fn with<R>(&self, f: impl FnOnce(&mut dyn Device) -> R) -> R {
        f(self.slot.lock().as_mut())
    }
}

/// Where a device is put: its name, bus and the other ends of its pins.
#[derive(Default)]
pub struct Placement<'a> {
    /// Unique path.
    pub path: String,
    /// Class name.
    pub class: &'static str,
    /// Name of the bus, for `info qtree`.
    pub bus_name: String,
    /// Properties, for `info qtree`.
    pub props: Vec<(String, String)>,
    /// The bus's lines by number ([`IrqPin::Bus`]).
    pub bus_irqs: &'a [IrqHub],
    /// Lines by pin name ([`IrqPin::Named`]).
    pub pins: &'a [(&'a str, IrqHub)],
    /// The bus itself, as the device's crate knows it.
    pub bus: Option<&'a (dyn Any + Send + Sync)>,
}

/// All parts of a machine and the wires between them. Cheap to clone.
#[derive(Clone)]
pub struct Fabric {
    /// What lies at which physical address.
    pub memory: MemoryMap,
    /// What lies at which port.
    pub ports: MemoryMap,
    /// The machine's time.
    pub clock: Clock,
    /// What guests ask of the machine.
    pub requests: Requests,
    msi: Arc<Ranked<Msi>>,
    parts: Arc<Ranked<Vec<Arc<Part>>>>,
    served: Arc<Ranked<Served>>,
}

/// Who serves doorbells.
#[derive(Default)]
struct Served {
    main_loop: Option<Handle>,
    /// By the path of the part.
    watches: Vec<(String, Watch)>,
}

impl Fabric {
    /// An empty machine.
    pub fn new(clock: Clock) -> Self {
        Fabric {
            memory: MemoryMap::default(),
            ports: MemoryMap::default(),
            clock,
            requests: Requests::default(),
            msi: Arc::new(Ranked::new(Rank::Leaf, Msi::default())),
            parts: Arc::new(Ranked::new(Rank::Leaf, Vec::new())),
            served: Arc::new(Ranked::new(Rank::Leaf, Served::default())),
        }
    }

    /// Says where message-signalled interrupts go, for devices added from now on.
    pub fn set_msi(&self, msi: Msi) {
        *self.msi.lock() = msi;
    }

    /// All parts in the order they were added.
    pub fn parts(&self) -> Vec<Arc<Part>> {
        self.parts.lock().clone()
    }

    /// The part with this path.
    pub fn find(&self, path: &str) -> Option<Arc<Part>> {
        self.parts.lock().iter().find(|p| p.path == path).cloned()
    }

    /// Adds a device and realizes it.
    pub fn add(
        &self,
        device: Box<dyn Device>,
        placement: Placement<'_>,
    ) -> Result<Arc<Part>, DeviceError> {
        if self.find(&placement.path).is_some() {
            return Err(DeviceError::Other(format!(
                "a device with the id '{}' exists already; give one of them another id",
                placement.path
            )));
        }
        let slot = Arc::new(Ranked::new(Rank::Device, device));
        let mut wires = Wires {
            fabric: self,
            placement: &placement,
            slot: &slot,
            next_region: 0,
            done: Vec::new(),
            drains: Vec::new(),
            bells: Bells::default(),
            bell_list: Vec::new(),
        };
        let realized = slot.lock().realize(&mut wires);
        let done = std::mem::take(&mut wires.done);
        let drains = std::mem::take(&mut wires.drains);
        let bells = wires.bells.clone();
        bells.set(std::mem::take(&mut wires.bell_list));
        if let Err(error) = realized {
            done.iter().for_each(Mapping::remove);
            return Err(error);
        }
        let part = Arc::new(Part {
            path: placement.path,
            class: placement.class,
            props: placement.props,
            bus: placement.bus_name,
            slot,
            bells,
            mappings: done,
            drains,
        });
        self.serve(&part);
        self.parts.lock().push(part.clone());
        Ok(part)
    }

    /// Takes a device out of a machine that runs. What is under way on it is given up, or done when
    /// this returns. For boards; never from within a device.
    pub fn remove(&self, path: &str) -> Option<Arc<Part>> {
        let part = {
            let mut parts = self.parts.lock();
            let at = parts.iter().position(|part| part.path == path)?;
            parts.remove(at)
        };
        let mut served = self.served.lock();
        served.watches.retain(|(watched, _)| watched != path);
        drop(served);
        part.with(|device| device.unplug());
        part.mappings.iter().for_each(Mapping::remove);
        part.drains.iter().for_each(|drain| drain());
        Some(part)
    }

    /// Has a loop serve the doorbells of all devices, those added later included.
    pub fn serve_doorbells(&self, main_loop: Handle) {
        self.served.lock().main_loop = Some(main_loop);
        self.parts().iter().for_each(|part| self.serve(part));
    }

    /// Has a thread of its own serve the doorbells of one part from now on.
    pub fn serve_by(&self, part: &Part, server: &Handle) {
        part.bells.set_has_thread();
        self.watch(part, server);
    }

    fn watch(&self, part: &Part, server: &Handle) {
        let mut served = self.served.lock();
        served.watches.retain(|(path, _)| *path != part.path);
        let watches = part.bells.serve(server, &poker(&part.slot));
        let watches = watches.into_iter().map(|watch| (part.path.clone(), watch));
        served.watches.extend(watches);
    }

    fn serve(&self, part: &Part) {
        let main_loop = self.served.lock().main_loop.clone();
        if let Some(main_loop) = main_loop {
            self.watch(part, &main_loop);
        }
    }

    /// Resets every part: own state first, pins after. All vCPUs are parked.
    pub fn reset(&self, kind: ResetKind) {
        let parts = self.parts();
        parts.iter().for_each(|p| p.with(|d| d.reset(kind)));
        parts.iter().for_each(|p| p.with(|d| d.after_reset()));
    }

    /// Waits until no back end has anything under way and no doorbell is unheard. All vCPUs are
    /// parked; no lock is held.
    pub fn drain(&self) {
        for part in self.parts() {
            part.bells.attend(poker(&part.slot).as_ref());
        }
        for part in self.parts() {
            part.drains.iter().for_each(|drain| drain());
        }
    }

    /// The saved form of every part, by path. The machine is stopped.
    pub fn save(&self) -> Vec<(String, Section)> {
        self.parts()
            .iter()
            .map(|p| (p.path.clone(), p.with(|d| d.save())))
            .collect()
    }

    /// Takes over a saved machine of the same shape. The machine is stopped.
    pub fn restore(&self, sections: &[(String, Section)]) -> Result<(), StateError> {
        let by_path: BTreeMap<&str, &Section> =
            sections.iter().map(|(p, s)| (p.as_str(), s)).collect();
        let parts = self.parts();
        for part in &parts {
            let section = by_path
                .get(part.path.as_str())
                .ok_or(StateError::Malformed(
                    "a device of this machine is not in the saved state",
                ))?;
            part.with(|d| d.restore(section))?;
        }
        if by_path.len() != parts.len() {
            return Err(StateError::Malformed(
                "the saved state has a device that this machine lacks",
            ));
        }
        parts.iter().for_each(|p| p.with(|d| d.after_reset()));
        Ok(())
    }
}

fn poker(slot: &Arc<Slot>) -> Arc<dyn Fn(u64) + Send + Sync> {
    let slot = Arc::downgrade(slot);
    Arc::new(move |token| {
        if let Some(slot) = slot.upgrade() {
            slot.lock().poke(token);
        }
    })
}

/// Locks a device for one access.
struct Handler {
    slot: Weak<Slot>,
    bells: Bells,
    region: Option<RegionId>,
}

impl Handler {
    fn fix(&self, access: Access) -> Access {
        Access {
            region: self.region.unwrap_or(access.region),
            ..access
        }
    }
}

impl IoRegion for Handler {
    fn read(&self, access: Access) -> Result<u64, Fault> {
        let slot = self.slot.upgrade().ok_or(Fault::Unassigned)?;
        slot.lock().read(self.fix(access))
    }

    fn write(&self, access: Access, value: u64) -> Result<(), Fault> {
        let access = self.fix(access);
        if self.bells.ring(&access, value) {
            return Ok(());
        }
        let slot = self.slot.upgrade().ok_or(Fault::Unassigned)?;
        slot.lock().write(access, value)
    }

    fn doorbells(&self, region: RegionId) -> Vec<RungBell> {
        self.bells.served(self.region.unwrap_or(region))
    }
}

struct Inputs {
    slot: Weak<Slot>,
}

impl IrqSink for Inputs {
    fn set(&self, pin: u32, level: bool) {
        if let Some(slot) = self.slot.upgrade() {
            slot.lock().input(pin, level);
        }
    }
}

struct Wires<'a> {
    fabric: &'a Fabric,
    placement: &'a Placement<'a>,
    slot: &'a Arc<Slot>,
    next_region: u32,
    done: Vec<Mapping>,
    drains: Vec<Drain>,
    bells: Bells,
    bell_list: Vec<Bell>,
}

impl Wires<'_> {
    fn handler(&self, region: Option<RegionId>) -> Arc<dyn IoRegion> {
        Arc::new(Handler {
            slot: Arc::downgrade(self.slot),
            bells: self.bells.clone(),
            region,
        })
    }

    fn next(&mut self) -> RegionId {
        let id = RegionId(self.next_region);
        self.next_region = self.next_region.saturating_add(1);
        id
    }

    fn map(&mut self, map: &MemoryMap, region: Region) -> (RegionId, Mapping) {
        let id = self.next();
        let mapping = map.add(MappingSpec {
            name: region.name,
            base: region.base.unwrap_or(0),
            len: region.len,
            priority: region.priority,
            enabled: region.base.is_some(),
            what: What::Io {
                io: self.handler(None),
                region: id,
                order: region.order,
                sizes: region.sizes,
            },
        });
        self.done.push(mapping.clone());
        (id, mapping)
    }
}

impl Wiring for Wires<'_> {
    fn mmio(&mut self, region: Region) -> (RegionId, Mapping) {
        self.map(&self.fabric.memory.clone(), region)
    }

    fn ports(&mut self, region: Region) -> (RegionId, Mapping) {
        self.map(&self.fabric.ports.clone(), region)
    }

    fn detached(&mut self) -> (RegionId, Arc<dyn IoRegion>) {
        let id = self.next();
        (id, self.handler(Some(id)))
    }

    fn memory_map(&self) -> MemoryMap {
        self.fabric.memory.clone()
    }

    fn port_map(&self) -> MemoryMap {
        self.fabric.ports.clone()
    }

    fn irq(&mut self, pin: IrqPin<'_>) -> IrqLine {
        let hub = match pin {
            IrqPin::Bus(n) => usize::try_from(n)
                .ok()
                .and_then(|n| self.placement.bus_irqs.get(n)),
            IrqPin::Named(name) => self
                .placement
                .pins
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, hub)| hub),
        };
        hub.map(IrqHub::line).unwrap_or_default()
    }

    fn inputs(&mut self, _count: u32) -> Arc<dyn IrqSink> {
        Arc::new(Inputs {
            slot: Arc::downgrade(self.slot),
        })
    }

    fn msi(&self) -> Msi {
        self.fabric.msi.lock().clone()
    }

    fn dma(&self) -> Dma {
        Dma::new(self.fabric.memory.clone())
    }

    fn clock(&self) -> Clock {
        self.fabric.clock.clone()
    }

    fn timer(&mut self, id: TimerId) -> Timer {
        let slot = Arc::downgrade(self.slot);
        self.fabric.clock.timer(move || {
            if let Some(slot) = slot.upgrade() {
                slot.lock().timer(id);
            }
        })
    }

    fn poke(&mut self) -> Arc<dyn Fn(u64) + Send + Sync> {
        poker(self.slot)
    }

    fn doorbells(&mut self, registers: Vec<Doorbell>, ringing: Ringing, token: u64) {
        self.bell_list.push(Bell::new(registers, ringing, token));
    }

    fn on_stop(&mut self, drain: Drain) {
        self.drains.push(drain);
    }

    fn requests(&self) -> Requests {
        self.fabric.requests.clone()
    }

    fn bus(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.placement.bus
    }
}
