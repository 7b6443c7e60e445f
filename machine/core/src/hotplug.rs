//! Devices that come and go while the machine runs.

use std::sync::Arc;

use hw_core::{BusKind, ChildBus, HotPlug, Links, Part, ResetKind};

use crate::board::{Board, BoardError};
use crate::parts::{bus_name, put};
use crate::spec::DeviceSpec;

/// A bus of a device, by its name.
struct Named {
    name: String,
    bus: ChildBus,
}

/// What became of a device that is to go.
pub enum Leaving {
    /// It is gone, with those on its own buses; in the order in which they went.
    Gone(Vec<Arc<Part>>),
    /// The guest was asked to let go of it.
    Asked,
}

impl Board {
    /// The buses of all devices.
    fn buses(&self) -> Vec<Named> {
        let mut all = Vec::new();
        for part in self.machine.fabric().parts() {
            let buses = part.with(|device| device.child_buses());
            for (index, bus) in buses.into_iter().enumerate() {
                let name = bus_name(&part.path, index, bus.kind);
                all.push(Named { name, bus });
            }
        }
        all
    }

    fn is_root(&self, name: &str) -> bool {
        self.pci.as_ref().is_some_and(|root| root.name() == name)
    }

    /// The bus for a device that is to be plugged in.
    fn bus_for(&self, spec: &DeviceSpec) -> Result<Named, BoardError> {
        let fail = |why: String| Err(BoardError::Config(why));
        let (class, kind) = (spec.class.name, spec.class.bus);
        let mut buses = self.buses();
        if let Some(wanted) = &spec.bus {
            if self.is_root(wanted) {
                return fail(not_hot(wanted));
            }
            let Some(at) = buses.iter().position(|named| named.name == *wanted) else {
                let names = buses.iter().map(|named| named.name.as_str());
                let hint = match hw_core::nearest(wanted, names) {
                    Some(near) => format!("; did you mean '{near}'?"),
                    None => String::new(),
                };
                return fail(format!("Bus '{wanted}' not found{hint}"));
            };
            let named = buses.swap_remove(at);
            if named.bus.kind != kind {
                return fail(format!(
                    "'{class}' goes on a {} bus; '{wanted}' is a {} bus",
                    kind.name(),
                    named.bus.kind.name()
                ));
            }
            if kind == BusKind::Pci && named.bus.free.is_none() {
                return fail(format!("bus '{wanted}' has no room for another device"));
            }
            return Ok(named);
        }
        let fits = |named: &Named| named.bus.kind == kind && named.bus.hot_plug.is_some();
        let has_room = |named: &Named| fits(named) && named.bus.free.is_some();
        let at = buses.iter().position(has_room);
        // One that is full says so itself, but for slots: there are others to be had.
        let full = || buses.iter().position(fits).filter(|_| kind != BusKind::Pci);
        match at.or_else(full) {
            Some(at) => Ok(buses.swap_remove(at)),
            None => fail(format!(
                "there is no {} bus that takes '{class}' while the machine runs{}",
                kind.name(),
                match kind {
                    BusKind::Pci =>
                        " and has room; start it with one more '-device pcie-root-port,id=...'",
                    BusKind::Scsi => "; start it with '-device virtio-scsi-pci,id=...'",
                    _ => "",
                }
            )),
        }
    }

    /// Plugs a device in, and tells the guest. `path` is what it is called.
    pub fn plug(
        &self,
        spec: &DeviceSpec,
        path: &str,
        links: &mut Links,
    ) -> Result<Arc<Part>, BoardError> {
        let Named { name, bus } = self.bus_for(spec)?;
        let Some(hot_plug) = bus.hot_plug else {
            return Err(BoardError::Config(not_hot(&name)));
        };
        let place = (name.as_str(), Some(bus.bus.as_ref() as _));
        let part = put(self.machine.fabric(), links, spec, path, place, &[])?;
        part.with(|device| {
            device.reset(ResetKind::Cold);
            device.after_reset();
        });
        hot_plug.changed();
        Ok(part)
    }

    /// Takes a device out, or has the guest let go of it: then `released` is called, which must only
    /// post, for [`take_out`](Self::take_out) to follow.
    pub fn unplug(
        &self,
        path: &str,
        released: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Leaving, BoardError> {
        let fail = |why: String| Err(BoardError::Config(why));
        let Some(part) = self.machine.fabric().find(path) else {
            return fail(format!("Device '{path}' not found"));
        };
        let Some(hot_plug) = self.hot_plug_of(&part) else {
            return fail(not_hot(&part.bus));
        };
        if hot_plug.asks_guest() {
            hot_plug.ask(released)?;
            return Ok(Leaving::Asked);
        }
        Ok(Leaving::Gone(self.take_out(path)))
    }

    fn hot_plug_of(&self, part: &Part) -> Option<Arc<dyn HotPlug>> {
        let buses = self.buses();
        let found = buses.into_iter().find(|named| named.name == part.bus)?;
        found.bus.hot_plug
    }

    /// Takes a device out of the machine, those on its buses first.
    pub fn take_out(&self, path: &str) -> Vec<Arc<Part>> {
        let fabric = self.machine.fabric();
        let Some(part) = fabric.find(path) else {
            return Vec::new();
        };
        let hot_plug = self.hot_plug_of(&part);
        let mut gone = Vec::new();
        let buses = part.with(|device| device.child_buses());
        for (index, bus) in buses.iter().enumerate() {
            let name = bus_name(path, index, bus.kind);
            for child in fabric.parts().iter().filter(|child| child.bus == name) {
                gone.extend(self.take_out(&child.path));
            }
        }
        gone.extend(fabric.remove(path));
        if let Some(hot_plug) = hot_plug {
            hot_plug.changed();
        }
        gone
    }
}

fn not_hot(bus: &str) -> String {
    format!("Bus '{bus}' does not support hotplugging")
}
