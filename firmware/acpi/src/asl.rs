//! ACPI source language, as far as the tables use it: each function makes finished byte code, so
//! that objects nest without borrowing from each other.

use acpi_tables::aml::{self, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, Path};
use acpi_tables::{Aml, AmlSink};

pub(crate) use acpi_tables::aml::OpRegionSpace as Space;

/// Byte code.
#[derive(Debug, Clone, Default)]
pub(crate) struct Code(pub(crate) Vec<u8>);

impl Aml for Code {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// The byte code of anything.
pub(crate) fn code(object: &dyn Aml) -> Code {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    Code(bytes)
}

fn refs(children: &[Code]) -> Vec<&dyn Aml> {
    children.iter().map(|c| c as &dyn Aml).collect()
}

/// A reference to a named object.
pub(crate) fn path(name: &str) -> Code {
    code(&Path::new(name))
}

pub(crate) fn scope(name: &str, children: &[Code]) -> Code {
    code(&aml::Scope::new(name.into(), refs(children)))
}

pub(crate) fn device(name: &str, children: &[Code]) -> Code {
    code(&aml::Device::new(name.into(), refs(children)))
}

pub(crate) fn name(name: &str, value: &dyn Aml) -> Code {
    code(&aml::Name::new(name.into(), value))
}

pub(crate) fn package(children: &[Code]) -> Code {
    code(&aml::Package::new(refs(children)))
}

/// A method without arguments.
pub(crate) fn method(name: &str, body: &[Code]) -> Code {
    code(&aml::Method::new(name.into(), 0, false, refs(body)))
}

/// A serialized method with arguments: needed where it makes named objects.
pub(crate) fn method_with(name: &str, args: u8, body: &[Code]) -> Code {
    code(&aml::Method::new(name.into(), args, true, refs(body)))
}

pub(crate) fn give(value: &dyn Aml) -> Code {
    code(&aml::Return::new(value))
}

pub(crate) fn set(target: &dyn Aml, value: &dyn Aml) -> Code {
    code(&aml::Store::new(target, value))
}

pub(crate) fn when(condition: &dyn Aml, body: &[Code]) -> Code {
    code(&aml::If::new(condition, refs(body)))
}

pub(crate) fn otherwise(body: &[Code]) -> Code {
    code(&aml::Else::new(refs(body)))
}

pub(crate) fn call(name: &str, args: &[Code]) -> Code {
    code(&aml::MethodCall::new(name.into(), refs(args)))
}

/// `_HID` or another identifier, of a device registered with EISA.
pub(crate) fn eisa(object: &str, id: &str) -> Code {
    name(object, &aml::EISAName::new(id))
}

/// `_HID` by any other name.
pub(crate) fn hid(id: &'static str) -> Code {
    name("_HID", &id)
}

/// `_STA`: present, enabled, functioning, and shown or not.
pub(crate) fn status(shown: bool) -> Code {
    name("_STA", &if shown { 0x0fu8 } else { 0x0b })
}

/// Current resources.
pub(crate) fn resources(list: &[Code]) -> Code {
    name("_CRS", &template(list))
}

/// A resource template.
pub(crate) fn template(list: &[Code]) -> Code {
    code(&aml::ResourceTemplate::new(refs(list)))
}

/// Ports at a fixed place.
pub(crate) fn ports(first: u16, len: u8) -> Code {
    code(&aml::IO::new(first, first, 1, len))
}

/// An ISA interrupt: edge-triggered, active high, exclusive (ACPI 6.5, section 6.4.2.1).
pub(crate) fn irq(number: u8) -> Code {
    let mask = 1u16.checked_shl(number.into()).unwrap_or(0);
    let [low, high] = mask.to_le_bytes();
    Code(vec![0x22, low, high])
}

/// Trigger and sharing of an interrupt; all are active high.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    Edge,
    Level,
    LevelShared,
}

/// Global interrupts, one of which a device uses (ACPI 6.5, section 6.4.3.6).
pub(crate) fn interrupts(trigger: Trigger, numbers: &[u32]) -> Code {
    const CONSUMER: u8 = 1;
    let flags = match trigger {
        Trigger::Edge => CONSUMER | 1 << 1,
        Trigger::Level => CONSUMER,
        Trigger::LevelShared => CONSUMER | 1 << 3,
    };
    let count = numbers.len() as u8;
    let len = u16::from(count).saturating_mul(4).saturating_add(2);
    let [low, high] = len.to_le_bytes();
    let mut bytes = vec![0x89, low, high, flags, count];
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    Code(bytes)
}

pub(crate) fn memory32(base: u32, len: u32) -> Code {
    code(&aml::Memory32Fixed::new(true, base, len))
}

/// An operation region.
pub(crate) fn region(name: &str, space: Space, base: u32, len: u32) -> Code {
    code(&aml::OpRegion::new(name.into(), space, &base, &len))
}

/// Fields of a region by name and bits; a name of four blanks is a gap.
pub(crate) fn field(region: &str, access: FieldAccessType, entries: &[(&[u8; 4], usize)]) -> Code {
    let entries = entries.iter().map(|(name, bits)| match *name {
        b"    " => FieldEntry::Reserved(*bits),
        name => FieldEntry::Named(*name, *bits),
    });
    code(&aml::Field::new(
        region.into(),
        access,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        entries.collect(),
    ))
}

/// A name for bytes 4 to 7 and so on of a buffer.
pub(crate) fn dword_field(buffer: &dyn Aml, at: u8, name: &str) -> Code {
    let target = path(name);
    code(&aml::CreateDWordField::new(&target, buffer, &at))
}
