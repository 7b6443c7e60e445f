//! The class table: one definition of a device's name, properties and documentation.

use std::any::Any;
use std::collections::BTreeMap;

use crate::device::Device;

/// Which bus a device plugs into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum BusKind {
    /// On the board itself, created by it alone.
    System,
    /// ISA or LPC.
    Isa,
    /// PCI or PCI Express.
    Pci,
    /// A virtio-mmio slot or any virtio transport.
    Virtio,
    /// The ports of a virtio console controller.
    VirtioSerial,
    /// An ATA cable: parallel, or a port of an AHCI controller.
    Ide,
    /// The logical units of a SCSI host adapter.
    Scsi,
    /// The namespaces of an NVMe controller.
    Nvme,
}

impl BusKind {
    /// QEMU's word, as in `-device help`.
    pub fn name(self) -> &'static str {
        match self {
            BusKind::System => "System",
            BusKind::Isa => "ISA",
            BusKind::Pci => "PCI",
            BusKind::Virtio => "virtio-bus",
            BusKind::VirtioSerial => "virtio-serial-bus",
            BusKind::Ide => "IDE",
            BusKind::Scsi => "SCSI",
            BusKind::Nvme => "nvme-bus",
        }
    }
}

/// Heading of a device in `-device help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Category {
    /// Bridges and controllers of buses.
    Bridge,
    /// USB.
    Usb,
    /// Disks.
    Storage,
    /// Network.
    Network,
    /// Keyboards, mice, serial ports.
    Input,
    /// Displays.
    Display,
    /// Sound.
    Sound,
    /// All else.
    Misc,
}

use hw_props::OnOffAuto;
pub use hw_props::{PropType, PropValue, nearest};

/// One property of a class.
#[derive(Clone, Copy, Debug)]
pub struct Prop {
    /// Name as on the command line.
    pub name: &'static str,
    /// Type.
    pub ty: PropType,
    /// Value when not given; empty for none.
    pub default: &'static str,
    /// Help text.
    pub doc: &'static str,
}

/// An entry of a table of properties.
pub const fn prop(
    name: &'static str,
    ty: PropType,
    default: &'static str,
    doc: &'static str,
) -> Prop {
    Prop {
        name,
        ty,
        default,
        doc,
    }
}

/// Why a device cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A property of that name does not exist.
    #[error("device '{class}' has no property '{name}'{}", hint(.nearest))]
    NoSuchProperty {
        /// Device class.
        class: &'static str,
        /// What was written.
        name: String,
        /// The nearest existing one.
        nearest: Option<String>,
    },
    /// The value does not fit.
    #[error("device '{class}' property '{name}': '{value}' is not {wanted}")]
    BadValue {
        /// Device class.
        class: &'static str,
        /// Property.
        name: String,
        /// What was written.
        value: String,
        /// What would be right.
        wanted: String,
    },
    /// A property without default was not given.
    #[error("device '{class}' needs {name}=...: {doc}")]
    Required {
        /// Device class.
        class: &'static str,
        /// Property.
        name: &'static str,
        /// Its help text.
        doc: &'static str,
    },
    /// A back end of that id does not exist.
    #[error("device '{class}' property '{name}': no {kind} has the id '{id}'")]
    NoSuchLink {
        /// Device class.
        class: &'static str,
        /// Property.
        name: &'static str,
        /// Kind of back end.
        kind: &'static str,
        /// The id.
        id: String,
    },
    /// Anything else, in a sentence.
    #[error("{0}")]
    Other(String),
}

fn hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|n| format!("; did you mean '{n}'?"))
        .unwrap_or_default()
}

/// Back ends by kind and id, handed out as often as they were offered.
#[derive(Default)]
pub struct Links {
    map: BTreeMap<(String, String), Vec<Box<dyn Any + Send>>>,
}

impl Links {
    /// Offers a back end to one user more.
    pub fn offer<T: Any + Send>(&mut self, kind: &str, id: &str, value: T) {
        let key = (kind.into(), id.into());
        self.map.entry(key).or_default().push(Box::new(value));
    }

    /// Takes a back end out, the first that was offered.
    pub fn take<T: Any + Send>(&mut self, kind: &str, id: &str) -> Option<T> {
        let offered = self.map.get_mut(&(kind.to_string(), id.to_string()))?;
        let at = offered.iter().position(|value| value.is::<T>())?;
        offered.remove(at).downcast::<T>().ok().map(|value| *value)
    }

    /// Whether such a back end is still free.
    pub fn has(&self, kind: &str, id: &str) -> bool {
        let offered = self.map.get(&(kind.to_string(), id.to_string()));
        offered.is_some_and(|offered| !offered.is_empty())
    }
}

/// Property values of one device to be made, checked against its class.
#[derive(Clone, Debug)]
pub struct Args {
    class: &'static DeviceClass,
    values: BTreeMap<&'static str, String>,
}

/// Properties every device has.
const COMMON: &[&str] = &["id", "bus"];

impl Args {
    /// Checks `given` (name, value as written) against the class.
    pub fn new<'a>(
        class: &'static DeviceClass,
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, DeviceError> {
        let mut values = BTreeMap::new();
        for prop in class.props {
            if !prop.default.is_empty() {
                values.insert(prop.name, prop.default.to_string());
            }
        }
        for (name, value) in given {
            if COMMON.contains(&name) {
                continue;
            }
            // QEMU takes `_` for `-` in property names.
            let prop = class
                .props
                .iter()
                .find(|p| p.name == name || p.name == name.replace('_', "-"));
            let Some(prop) = prop else {
                let names = class
                    .props
                    .iter()
                    .map(|p| p.name)
                    .chain(COMMON.iter().copied());
                return Err(DeviceError::NoSuchProperty {
                    class: class.name,
                    name: name.into(),
                    nearest: nearest(name, names).map(str::to_owned),
                });
            };
            if prop.ty.parse(value).is_none() {
                return Err(DeviceError::BadValue {
                    class: class.name,
                    name: name.into(),
                    value: value.into(),
                    wanted: prop.ty.expected(value),
                });
            }
            values.insert(prop.name, value.to_string());
        }
        Ok(Args { class, values })
    }

    /// The class.
    pub fn class(&self) -> &'static DeviceClass {
        self.class
    }

    /// The value as written, or the default.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// An integer or size, already checked to fit its property.
    pub fn int(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            PropValue::Unsigned(value) => Some(value),
            PropValue::Signed(value) => Some(value.cast_unsigned()),
            _ => None,
        }
    }

    fn value(&self, name: &str) -> Option<PropValue> {
        let prop = self.class.props.iter().find(|p| p.name == name)?;
        prop.ty.parse(self.text(name)?)
    }

    /// An integer, required to be there.
    pub fn need_int(&self, name: &'static str) -> Result<u64, DeviceError> {
        self.int(name).ok_or_else(|| self.required(name))
    }

    /// A flag; `auto` and absent are `None`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.value(name)? {
            PropValue::Bool(on) => Some(on),
            PropValue::OnOffAuto(OnOffAuto::On) => Some(true),
            PropValue::OnOffAuto(OnOffAuto::Off) => Some(false),
            _ => None,
        }
    }

    /// Takes the back end that a link property names. `None` when the property is not given.
    pub fn link<T: Any + Send>(
        &self,
        name: &'static str,
        links: &mut Links,
    ) -> Result<Option<T>, DeviceError> {
        let Some(id) = self.text(name) else {
            return Ok(None);
        };
        let kind = match self
            .class
            .props
            .iter()
            .find(|p| p.name == name)
            .map(|p| p.ty)
        {
            Some(PropType::Link(kind)) => kind,
            _ => return Ok(None),
        };
        match links.take(kind, id) {
            Some(value) => Ok(Some(value)),
            None => Err(DeviceError::NoSuchLink {
                class: self.class.name,
                name,
                kind,
                id: id.into(),
            }),
        }
    }

    /// The error for a property that must be given.
    pub fn required(&self, name: &'static str) -> DeviceError {
        let doc = self
            .class
            .props
            .iter()
            .find(|p| p.name == name)
            .map_or("", |p| p.doc);
        DeviceError::Required {
            class: self.class.name,
            name,
            doc,
        }
    }
}

/// Makes a device from checked properties and the back ends they name.
pub type Create = fn(&Args, &mut Links) -> Result<Box<dyn Device>, DeviceError>;

/// A kind of device: the one place where its name, properties and documentation stand.
#[derive(Debug)]
pub struct DeviceClass {
    /// Name as in `-device`.
    pub name: &'static str,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// One line of documentation.
    pub doc: &'static str,
    /// Where it plugs in.
    pub bus: BusKind,
    /// Heading in `-device help`.
    pub category: Category,
    /// Its properties.
    pub props: &'static [Prop],
    /// Whether `-device` may make one; else only boards do.
    pub user_creatable: bool,
    /// Makes one from checked properties.
    pub create: Create,
}
