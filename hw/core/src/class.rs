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

/// Type of a property's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PropType {
    /// `on` or `off`.
    Bool,
    /// `on`, `off` or `auto`.
    OnOffAuto,
    /// 8 bits.
    U8,
    /// 16 bits.
    U16,
    /// 32 bits.
    U32,
    /// 64 bits.
    U64,
    /// 32 bits, signed.
    I32,
    /// Bytes, with a unit suffix.
    Size,
    /// Text.
    Str,
    /// An Ethernet address.
    Mac,
    /// A PCI slot and function, `04.0`.
    PciAddress,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// The id of a back end of this kind (`chardev`, `drive`, `rng`, `netdev`, `memory-backend`).
    Link(&'static str),
}

impl PropType {
    /// QEMU's name of the type, as in `-device X,help` and `device-list-properties`.
    pub fn name(self) -> &'static str {
        match self {
            PropType::Bool => "bool",
            PropType::OnOffAuto => "OnOffAuto",
            PropType::U8 => "uint8",
            PropType::U16 => "uint16",
            PropType::U32 => "uint32",
            PropType::U64 => "uint64",
            PropType::I32 => "int32",
            PropType::Size => "size",
            PropType::Str | PropType::Mac | PropType::PciAddress | PropType::Enum(_) => "str",
            PropType::Link(kind) => kind,
        }
    }
}

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

/// The nearest of `names` to a misspelt word, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(word.len()).div_ceil(3))
        .min()
        .map(|(_, name)| name.to_string())
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
                    nearest: nearest(name, names),
                });
            };
            check(prop, value).map_err(|wanted| DeviceError::BadValue {
                class: class.name,
                name: name.into(),
                value: value.into(),
                wanted,
            })?;
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
        let ty = self.class.props.iter().find(|p| p.name == name)?.ty;
        let text = self.text(name)?;
        match ty {
            PropType::Size => parse_size(text),
            PropType::I32 => text
                .parse::<i32>()
                .ok()
                .map(|v| i64::from(v).cast_unsigned()),
            PropType::PciAddress => parse_pci_address(text),
            _ => parse_int(text),
        }
    }

    /// An integer, required to be there.
    pub fn need_int(&self, name: &'static str) -> Result<u64, DeviceError> {
        self.int(name).ok_or_else(|| self.required(name))
    }

    /// A flag; `auto` and absent are `None`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        parse_bool(self.text(name)?)
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

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

fn parse_int(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    if let Some(value) = parse_int(text) {
        return Some(value);
    }
    let unit = text.chars().next_back()?;
    let shift = match unit.to_ascii_uppercase() {
        'B' => 0,
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        'P' => 50,
        _ => return None,
    };
    let number = text.get(..text.len().checked_sub(unit.len_utf8())?)?;
    parse_int(number)?.checked_mul(1u64.checked_shl(shift)?)
}

/// `SLOT[.FUNCTION]` in hexadecimal to devfn.
fn parse_pci_address(text: &str) -> Option<u64> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let slot = u64::from_str_radix(slot.trim_start_matches("0x"), 16)
        .ok()
        .filter(|s| *s < 32)?;
    let function = u64::from_str_radix(function, 16).ok().filter(|f| *f < 8)?;
    Some((slot << 3) | function)
}

/// Checks one value; the error says what would be right.
fn check(prop: &Prop, value: &str) -> Result<(), String> {
    let bits = |bits: u32| {
        let limit = u64::MAX.wrapping_shr(64u32.wrapping_sub(bits));
        match parse_int(value) {
            Some(v) if v <= limit => Ok(()),
            _ => Err(format!("an integer from 0 to {limit}")),
        }
    };
    match prop.ty {
        PropType::Bool => parse_bool(value)
            .map(|_| ())
            .ok_or_else(|| "on or off".into()),
        PropType::OnOffAuto if value == "auto" => Ok(()),
        PropType::OnOffAuto => parse_bool(value)
            .map(|_| ())
            .ok_or_else(|| "on, off or auto".into()),
        PropType::U8 => bits(8),
        PropType::U16 => bits(16),
        PropType::U32 => bits(32),
        PropType::U64 => bits(64),
        PropType::I32 => value
            .parse::<i32>()
            .map(|_| ())
            .map_err(|_| "a 32-bit integer".into()),
        PropType::Size => parse_size(value)
            .map(|_| ())
            .ok_or_else(|| "a size like 64M".into()),
        PropType::PciAddress => parse_pci_address(value)
            .map(|_| ())
            .ok_or_else(|| "a PCI slot and function like 04.0".into()),
        PropType::Mac => {
            let parts: Vec<_> = value
                .split([':', '-'])
                .map(|p| u8::from_str_radix(p, 16))
                .collect();
            let good = parts.len() == 6 && parts.iter().all(Result::is_ok);
            good.then_some(())
                .ok_or_else(|| "an Ethernet address like 52:54:00:12:34:56".into())
        }
        PropType::Enum(words) if words.contains(&value) => Ok(()),
        PropType::Enum(words) => {
            let near = nearest(value, words.iter().copied());
            let near = near
                .map(|n| format!("; did you mean '{n}'?"))
                .unwrap_or_default();
            Err(format!("one of {}{near}", words.join(", ")))
        }
        PropType::Str | PropType::Link(_) => Ok(()),
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
