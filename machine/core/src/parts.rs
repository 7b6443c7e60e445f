//! What all boards do to put a machine together: its RAM, its own devices, those of the user.

use std::sync::Arc;

use backend_block::SharedBlock;
use device_flash::{CFI_PFLASH01, Pflash01};
use hw_core::{
    BusKind, ChildBus, Clock, Device, DeviceClass, Fabric, IrqHub, Links, Part, Placement,
};
use hw_memory::{MappingSpec, RamBlock, What};
use hw_pci::{FunctionInfo, PciBus};

use crate::board::BoardError;
use crate::bootorder::BootOrder;
use crate::spec::{DeviceSpec, MachineSpec};

/// Class code of NVMe controllers.
const NVM: u16 = 0x0108;

/// A bus of a device.
struct Child {
    name: String,
    kind: BusKind,
    part: Arc<Part>,
    index: usize,
    /// The controller's path in the boot order.
    path: String,
}

impl Child {
    fn bus(&self) -> Option<ChildBus> {
        let mut buses = self.part.with(|device| device.child_buses());
        (self.index < buses.len()).then(|| buses.swap_remove(self.index))
    }
}

/// A machine in the making.
pub struct Parts<'a> {
    /// What is to be built.
    pub spec: &'a MachineSpec,
    /// Back ends.
    pub links: &'a mut Links,
    /// The parts so far.
    pub fabric: Fabric,
    /// RAM.
    pub ram: Arc<RamBlock>,
    /// The wires that the board's own devices know by number.
    pub irqs: Vec<IrqHub>,
    /// What firmware boots from first.
    pub boot_order: BootOrder,
    anonymous: usize,
    /// Buses of devices added so far.
    children: Vec<Child>,
}

impl<'a> Parts<'a> {
    /// RAM, not yet in the memory map, and nothing else.
    pub fn new(
        spec: &'a MachineSpec,
        links: &'a mut Links,
        clock: Clock,
    ) -> Result<Self, BoardError> {
        let ram = match &spec.memory_block {
            Some(block) if block.len() == spec.memory => Arc::clone(block),
            Some(block) => {
                return Err(BoardError::Config(format!(
                    "memory '{}' has {} bytes, the machine {}",
                    block.name(),
                    block.len(),
                    spec.memory
                )));
            }
            None => {
                let size = spec.memory;
                let block = RamBlock::new(spec.machine.ram_id, size);
                Arc::new(block.map_err(|source| BoardError::Memory { size, source })?)
            }
        };
        Ok(Parts {
            spec,
            links,
            fabric: Fabric::new(clock),
            ram,
            irqs: Vec::new(),
            boot_order: BootOrder::default(),
            anonymous: 0,
            children: Vec::new(),
        })
    }

    /// Adds a device of the board.
    pub fn add(
        &mut self,
        path: &str,
        class: &'static str,
        device: Box<dyn Device>,
        pins: &[(&str, IrqHub)],
    ) -> Result<Arc<Part>, BoardError> {
        let placement = Placement {
            path: path.into(),
            class,
            bus_name: "main-system-bus".into(),
            bus_irqs: &self.irqs,
            pins,
            ..Placement::default()
        };
        Ok(self.fabric.add(device, placement)?)
    }

    /// Adds a device of the board by its class, with these properties.
    pub fn add_class(
        &mut self,
        path: &str,
        class: &'static DeviceClass,
        props: &[(&str, &str)],
        pins: &[(&str, IrqHub)],
    ) -> Result<Arc<Part>, BoardError> {
        let args = self.spec.args(class, props)?;
        let device = (class.create)(&args, self.links)?;
        self.add(path, class.name, device, pins)
    }

    /// Bytes of the drive that flash chip `n` stores in, if it has one.
    pub fn flash_len(&mut self, n: usize) -> Option<u64> {
        let id = self.spec.flash.get(n)?.as_ref()?;
        let disk = self.links.take::<SharedBlock>("drive", id)?;
        let len = disk.len();
        self.links.offer("drive", id, disk);
        Some(len)
    }

    /// Adds flash chip `n`, a `cfi.pflash01` with these properties and its drive. Returns the memory
    /// in which it stores.
    pub fn add_flash(
        &mut self,
        n: usize,
        props: &[(&str, &str)],
    ) -> Result<Arc<RamBlock>, BoardError> {
        let spec = self.spec;
        let mut all = props.to_vec();
        if let Some(id) = spec.flash.get(n).and_then(Option::as_deref) {
            all.push(("drive", id));
        }
        let args = spec.args(&CFI_PFLASH01, &all)?;
        let device = Pflash01::new(&args, args.link("drive", self.links)?)?;
        let block = device.memory().clone();
        self.add(
            &format!("pflash{n}"),
            CFI_PFLASH01.name,
            Box::new(device),
            &[],
        )?;
        Ok(block)
    }

    /// The path of a device that the user asked for.
    fn path_of(&mut self, spec: &DeviceSpec) -> String {
        spec.id.clone().unwrap_or_else(|| {
            let n = self.anonymous;
            self.anonymous += 1;
            format!("{}#{n}", spec.class.name)
        })
    }

    /// Adds a device that the user asked for, on `bus`.
    pub fn add_user(
        &mut self,
        spec: &DeviceSpec,
        bus_name: &str,
        bus: Option<&(dyn std::any::Any + Send + Sync)>,
        irqs: &[IrqHub],
    ) -> Result<Arc<Part>, BoardError> {
        let path = self.path_of(spec);
        let part = put(&self.fabric, self.links, spec, &path, (bus_name, bus), irqs)?;
        let id = spec
            .id
            .as_ref()
            .map_or(part.path.as_str(), |id| id.as_str());
        self.adopt(&part, id, "");
        Ok(part)
    }

    /// Makes the buses of a device known, as `NAME.0` and so on.
    pub fn adopt(&mut self, part: &Arc<Part>, name: &str, path: &str) {
        let buses = part.with(|device| device.child_buses());
        for (index, bus) in buses.iter().enumerate() {
            self.children.push(Child {
                name: bus_name(name, index, bus.kind),
                kind: bus.kind,
                part: Arc::clone(part),
                index,
                path: path.to_owned(),
            });
        }
    }

    /// Adds a user's PCI function, on this root bus or below a bridge on it. Its boot path begins with
    /// `root`.
    pub fn add_pci(
        &mut self,
        device: &DeviceSpec,
        bus: &PciBus,
        irqs: &[IrqHub],
        root: &str,
    ) -> Result<(), BoardError> {
        let below = match &device.bus {
            Some(name) if name != bus.name() => Some(self.pci_below(device, name)?),
            _ => None,
        };
        let (name, bus, root) = match &below {
            Some((name, bus, path)) => (name.as_str(), bus, path.as_str()),
            None => (bus.name(), bus, root),
        };
        let part = self.add_user(device, name, Some(bus), irqs)?;
        let functions = bus.functions();
        // The user's is the one plugged last.
        let place = part.with(|device| device.inspect());
        let devfn = place.iter().find(|(name, _)| *name == "addr");
        let added = devfn.and_then(|(_, devfn)| {
            let is = |f: &&FunctionInfo| u64::from(f.slot << 3 | f.function) == *devfn;
            functions.iter().find(is)
        });
        if let Some(function) = added {
            let path = format!("{root}/{}", boot_name(function));
            for child in self.children.iter_mut() {
                if Arc::ptr_eq(&child.part, &part) {
                    child.path.clone_from(&path);
                }
            }
            let disk = match function.class {
                NVM => "namespace@1,0",
                _ => "disk@0,0",
            };
            self.boot_order.add(device, &format!("{path}/{disk}"))?;
        }
        Ok(())
    }

    /// The PCI bus of this name below a bridge: name, bus and the bridge's boot path.
    fn pci_below(
        &self,
        device: &DeviceSpec,
        name: &str,
    ) -> Result<(String, PciBus, String), BoardError> {
        let mut children = self.children.iter();
        let is = |child: &&Child| child.kind == BusKind::Pci && child.name == name;
        let child = children.find(is);
        let bus = child.and_then(|child| Some((child, child.bus()?)));
        let pci = bus.and_then(|(child, bus)| {
            let bus = bus.bus.downcast_ref::<PciBus>()?.clone();
            Some((child.name.clone(), bus, child.path.clone()))
        });
        pci.ok_or_else(|| {
            BoardError::Config(format!(
                "-device {}: there is no PCI bus '{name}'; add '-device pcie-root-port,id={name}' before it, or \
                 leave 'bus' out",
                device.class.name
            ))
        })
    }

    /// Adds a user's device on the bus of another device.
    pub fn add_child(&mut self, spec: &DeviceSpec) -> Result<Arc<Part>, BoardError> {
        let kind = spec.class.bus;
        let fits = |child: &&Child| {
            let is_named = spec.bus.as_ref().is_none_or(|bus| *bus == child.name);
            child.kind == kind && is_named
        };
        let fitting: Vec<_> = self.children.iter().filter(fits).collect();
        let Some(first) = fitting.first() else {
            return Err(self.no_bus(spec));
        };
        // The first with room for it; if there is none, the device says so.
        let has_room = |child: &&&Child| child.bus().is_some_and(|bus| bus.free.is_some());
        let child = fitting.iter().find(has_room).unwrap_or(first);
        let (name, path) = (child.name.clone(), child.path.clone());
        let (index, bus) = (child.index, child.bus());
        let Some(bus) = bus else {
            return Err(self.no_bus(spec));
        };
        let part = self.add_user(spec, &name, Some(bus.bus.as_ref()), &[])?;
        let at = |what: &str| {
            let place = part.with(|device| device.inspect());
            let found = place.iter().find(|(name, _)| *name == what);
            found.map_or(0, |(_, number)| *number)
        };
        match kind {
            BusKind::Ide => {
                let path = format!("{path}/drive@{index:x}/disk@{:x}", at("unit"));
                self.boot_order.add(spec, &path)?;
            }
            // Firmware has no name for controllers that are not on PCI.
            BusKind::Scsi if !path.is_empty() => {
                let (channel, target, lun) = (at("channel"), at("scsi-id"), at("lun"));
                let path = format!("{path}/channel@{channel:x}/disk@{target:x},{lun:x}");
                self.boot_order.add(spec, &path)?;
            }
            BusKind::Nvme => {
                let path = format!("{path}/namespace@{:x},0", at("nsid"));
                self.boot_order.add(spec, &path)?;
            }
            _ => {}
        }
        Ok(part)
    }

    /// The error for a device whose bus this machine lacks.
    pub fn no_bus(&self, spec: &DeviceSpec) -> BoardError {
        let bus = spec.class.bus.name();
        let class = spec.class.name;
        let machine = self.spec.machine.name;
        let hint = match spec.class.bus {
            BusKind::Isa | BusKind::Pci => "; use -machine pc or q35",
            BusKind::Virtio => "; use the -pci form of the device, or -machine microvm",
            BusKind::VirtioSerial => {
                "; add -device virtio-serial-pci (or virtio-serial-device on microvm) before it"
            }
            BusKind::Ide | BusKind::Scsi | BusKind::Nvme => {
                let controller = match spec.class.bus {
                    BusKind::Nvme => "nvme,serial=...".to_owned(),
                    BusKind::Scsi => format!("virtio-scsi{}", self.spec.machine.virtio_form),
                    _ => "ich9-ahci".to_owned(),
                };
                let names = self.children.iter().filter(|c| c.kind == spec.class.bus);
                let names: Vec<_> = names.map(|c| c.name.as_str()).collect();
                return BoardError::Config(match (&spec.bus, names.as_slice()) {
                    (Some(named), [_, ..]) => format!(
                        "-device {class}: there is no {bus} bus '{named}'; there are {}",
                        names.join(", ")
                    ),
                    _ => format!(
                        "-device {class}: there is no {bus} bus; add -device {controller} before it"
                    ),
                });
            }
            BusKind::System => "; it is part of boards and cannot be added",
        };
        BoardError::Config(format!(
            "-device {class}: machine '{machine}' has no {bus} bus for it{hint}"
        ))
    }
}

/// The name of a device's bus: a PCI bus is called as the port is that leads to it.
pub(crate) fn bus_name(id: &str, index: usize, kind: BusKind) -> String {
    match kind {
        BusKind::Pci => id.to_owned(),
        _ => format!("{id}.{index}"),
    }
}

/// Makes a device that the user asked for and puts it on a bus.
pub(crate) fn put(
    fabric: &Fabric,
    links: &mut Links,
    spec: &DeviceSpec,
    path: &str,
    (bus_name, bus): (&str, Option<&(dyn std::any::Any + Send + Sync)>),
    irqs: &[IrqHub],
) -> Result<Arc<Part>, BoardError> {
    let device = (spec.class.create)(&spec.args, links)?;
    let props = spec
        .class
        .props
        .iter()
        .filter_map(|p| Some((p.name.to_string(), spec.args.text(p.name)?.to_string())))
        .collect();
    let placement = Placement {
        path: path.into(),
        class: spec.class.name,
        bus_name: bus_name.into(),
        props,
        bus_irqs: irqs,
        pins: &[],
        bus,
    };
    Ok(fabric.add(device, placement)?)
}

/// A function's part of a boot path: its kind, or who made it, and where it is.
fn boot_name(info: &FunctionInfo) -> String {
    let kind = match info.class {
        0x0100 => "scsi".to_owned(),
        0x0101 => "ide".to_owned(),
        0x0604 => "pci-bridge".to_owned(),
        _ => format!("pci{:04x},{:04x}", info.vendor, info.device),
    };
    match info.function {
        0 => format!("{kind}@{:x}", info.slot),
        function => format!("{kind}@{:x},{function:x}", info.slot),
    }
}

/// RAM at an address.
pub fn ram_at(name: &str, base: u64, block: &Arc<RamBlock>, offset: u64, len: u64) -> MappingSpec {
    MappingSpec {
        name: name.into(),
        base,
        len,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset,
        },
    }
}
