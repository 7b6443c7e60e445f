//! What this binary can make, for `query-machines`, `qom-list-types`, `device-list-properties` and their like: all of
//! it read from the tables that make it.

use backend_block::{ChildDef, DriverClass, NODE_PROPS};
use control_options::{PropDef, PropKind};
use control_qapi::{
    BlockDriver, BlockDrivers, CpuDefinitionInfo, MachineInfo, ObjectPropertyInfo, ObjectTypeInfo,
    Setting, Takes,
};
use hw_core::{Prop, PropType};
use serde_json::Value;

use crate::guests::Guest;
use crate::objects::OBJECTS;
use crate::storage::DRIVERS;
use crate::{accel, blocks, build, devices};

/// Suffix of the object types of machines.
const MACHINE_SUFFIX: &str = "-machine";

/// `query-machines`.
pub(crate) fn machines(guest: &Guest) -> Vec<MachineInfo> {
    guest
        .machines
        .iter()
        .map(|machine| MachineInfo {
            name: machine.name.to_owned(),
            alias: machine.alias.map(str::to_owned),
            is_default: machine.is_default.then_some(true),
            cpu_max: i64::from(machine.max_cpus),
            hotpluggable_cpus: false,
            numa_mem_supported: false,
            deprecated: false,
            default_cpu_type: machine.default_cpu.map(|cpu| guest.type_of_cpu(cpu)),
            default_ram_id: machine.default_cpu.map(|_| machine.ram_id.to_owned()),
            acpi: machine.props().iter().any(|prop| prop.name == "acpi"),
        })
        .collect()
}

/// `query-cpu-definitions`.
pub(crate) fn cpu_definitions(guest: &Guest) -> Vec<CpuDefinitionInfo> {
    (guest.cpu_models)()
        .into_iter()
        .map(|name| CpuDefinitionInfo {
            name: name.to_owned(),
            migration_safe: Some(!matches!(name, "max" | "host")),
            is_static: name == "base",
            unavailable_features: Some((guest.missing)(name)),
            typename: guest.type_of_cpu(name),
            alias_of: None,
            deprecated: false,
        })
        .collect()
}

fn object_type(name: impl Into<String>, parent: &str) -> ObjectTypeInfo {
    ObjectTypeInfo {
        name: name.into(),
        is_abstract: None,
        parent: Some(parent.to_owned()),
    }
}

/// `qom-list-types`.
pub(crate) fn object_types(guest: &Guest) -> Vec<ObjectTypeInfo> {
    let accelerators = accel::ACCELERATORS
        .iter()
        .filter(|def| (def.unusable)().is_none())
        .map(|def| object_type(format!("{}-accel", def.name), "accel"));
    let classes = devices::classes().map(|class| object_type(class.name, "device"));
    let objects = OBJECTS.iter().map(|def| object_type(def.name, "object"));
    let machines = guest
        .machines
        .iter()
        .map(|m| object_type(format!("{}{MACHINE_SUFFIX}", m.name), "machine"));
    let cpus = (guest.cpu_models)()
        .into_iter()
        .map(|name| object_type(guest.type_of_cpu(name), guest.cpu_type));
    accelerators
        .chain(classes)
        .chain(objects)
        .chain(machines)
        .chain(cpus)
        .collect()
}

/// The properties of a type.
pub(crate) fn type_properties(guest: &Guest, name: &str) -> Option<Vec<ObjectPropertyInfo>> {
    if let Some(class) = devices::classes().find(|class| class.name == name) {
        return Some(class.props.iter().map(device_property).collect());
    }
    if let Some(def) = OBJECTS.iter().find(|def| def.name == name) {
        return Some(def.props.iter().map(option_property).collect());
    }
    if let Some(machine) = name
        .strip_suffix(MACHINE_SUFFIX)
        .and_then(|name| guest.find(name))
    {
        return Some(
            build::prop_table(&machine.props())
                .iter()
                .map(option_property)
                .collect(),
        );
    }
    let def = name
        .strip_suffix("-accel")
        .and_then(|n| accel::ACCELERATORS.iter().find(|d| d.name == n));
    if let Some(def) = def {
        return Some(def.props.iter().map(option_property).collect());
    }
    let is_cpu = name
        .strip_suffix(guest.cpu_type)
        .and_then(|n| n.strip_suffix('-'))
        .is_some_and(|n| (guest.cpu_models)().contains(&n));
    is_cpu.then(|| {
        let names = (guest.cpu_features)();
        names
            .iter()
            .map(|name| property(name, "bool", None, None))
            .collect()
    })
}

fn property(
    name: &str,
    kind: &str,
    doc: Option<&str>,
    default: Option<Value>,
) -> ObjectPropertyInfo {
    ObjectPropertyInfo {
        name: name.to_owned(),
        kind: kind.to_owned(),
        description: doc.map(str::to_owned),
        default_value: default,
    }
}

fn device_property(prop: &Prop) -> ObjectPropertyInfo {
    let default = (!prop.default.is_empty()).then(|| match prop.ty {
        PropType::Bool => Value::Bool(prop.default == "on"),
        PropType::U8
        | PropType::U16
        | PropType::U32
        | PropType::U64
        | PropType::I32
        | PropType::Size => number(prop.default),
        _ => Value::String(prop.default.to_owned()),
    });
    property(prop.name, prop.ty.name(), Some(prop.doc), default)
}

fn number(text: &str) -> Value {
    control_options::number::size(text, 1)
        .map_or_else(|| Value::String(text.to_owned()), Value::from)
}

fn option_property(def: &PropDef) -> ObjectPropertyInfo {
    let default = def.default.map(|text| Value::String(text.to_owned()));
    property(def.name, &def.kind.form(), Some(def.doc), default)
}

fn setting(def: &PropDef) -> Setting {
    Setting {
        // Options of images are written with `_` in `-o`.
        name: def.name.replace('_', "-"),
        takes: match def.kind {
            PropKind::Bool => Takes::Bool,
            PropKind::Enum(words) => Takes::Word(words),
            PropKind::Str | PropKind::OnOffAuto | PropKind::Mac | PropKind::PciAddress => {
                Takes::Str
            }
            PropKind::Link(_) => Takes::Str,
            PropKind::U8 | PropKind::U16 | PropKind::U32 | PropKind::U64 => Takes::Int,
            PropKind::I32 | PropKind::I64 | PropKind::Size => Takes::Int,
        },
        is_optional: !def.required,
    }
}

/// The drivers of the block graph.
pub(crate) fn block_drivers() -> BlockDrivers {
    let child = |child: &ChildDef| Setting {
        name: child.role.to_owned(),
        takes: match child.refusable {
            true => Takes::NodeOrNone,
            false => Takes::Node,
        },
        is_optional: !child.required,
    };
    let driver = |class: &&DriverClass| {
        let children = class.children.iter().map(child);
        BlockDriver {
            name: class.name,
            open: class.props.iter().map(setting).chain(children).collect(),
            create: blocks::jobs::create_settings(class)
                .map(|props| props.iter().map(setting).collect()),
        }
    };
    let common = NODE_PROPS.iter().filter(|def| def.name != "driver");
    BlockDrivers {
        common: common.map(setting).collect(),
        drivers: DRIVERS.iter().map(driver).collect(),
    }
}
