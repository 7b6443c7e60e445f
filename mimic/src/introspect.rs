//! What this binary can make, for `query-machines`, `qom-list-types`, `device-list-properties` and their like: all of
//! it read from the tables that make it.

use control_options::PropDef;
use control_qapi::{CpuDefinitionInfo, MachineInfo, ObjectPropertyInfo, ObjectTypeInfo};
use hw_core::{Prop, PropType};
use machine_x86::{Kind, MACHINES};
use serde_json::Value;
use target_x86::system::model;

use crate::objects::OBJECTS;
use crate::{accel, build, devices};

/// Suffix of the object types of CPU models.
const CPU_SUFFIX: &str = "-x86_64-cpu";
/// Suffix of the object types of machines.
const MACHINE_SUFFIX: &str = "-machine";

/// The object type of a CPU model.
pub(crate) fn cpu_type(model: &str) -> String {
    format!("{model}{CPU_SUFFIX}")
}

/// `query-machines`.
pub(crate) fn machines() -> Vec<MachineInfo> {
    MACHINES
        .iter()
        .map(|machine| MachineInfo {
            name: machine.name.to_owned(),
            alias: machine.alias.map(str::to_owned),
            is_default: machine.is_default.then_some(true),
            cpu_max: i64::from(machine.max_cpus),
            hotpluggable_cpus: false,
            numa_mem_supported: false,
            deprecated: false,
            default_cpu_type: (machine.kind != Kind::None).then(|| cpu_type(machine.default_cpu)),
            default_ram_id: (machine.kind != Kind::None).then(|| "pc.ram".to_owned()),
            acpi: machine.props().iter().any(|prop| prop.name == "acpi"),
        })
        .collect()
}

/// `query-cpu-definitions`.
pub(crate) fn cpu_definitions() -> Vec<CpuDefinitionInfo> {
    model::models()
        .map(|(name, _)| CpuDefinitionInfo {
            name: name.to_owned(),
            migration_safe: Some(!matches!(name, "max" | "host")),
            is_static: name == "base",
            unavailable_features: Some(unavailable(name)),
            typename: cpu_type(name),
            alias_of: None,
            deprecated: false,
        })
        .collect()
}

/// What the engine lacks of a model.
fn unavailable(name: &str) -> Vec<String> {
    match model::CpuModel::parse(name, &target_x86::system::feature::engine(), false) {
        Ok((_, missing)) => missing,
        // A model of another accelerator: QEMU's word for "not at all".
        Err(_) => vec!["kvm".to_owned()],
    }
}

fn object_type(name: impl Into<String>, parent: &str) -> ObjectTypeInfo {
    ObjectTypeInfo {
        name: name.into(),
        is_abstract: None,
        parent: Some(parent.to_owned()),
    }
}

/// `qom-list-types`.
pub(crate) fn object_types() -> Vec<ObjectTypeInfo> {
    let accelerators = accel::ACCELERATORS
        .iter()
        .filter(|def| (def.unusable)().is_none())
        .map(|def| object_type(format!("{}-accel", def.name), "accel"));
    let classes = devices::classes().map(|class| object_type(class.name, "device"));
    let objects = OBJECTS.iter().map(|def| object_type(def.name, "object"));
    let machines = MACHINES
        .iter()
        .map(|m| object_type(format!("{}{MACHINE_SUFFIX}", m.name), "machine"));
    let cpus = model::models().map(|(name, _)| object_type(cpu_type(name), "x86_64-cpu"));
    accelerators
        .chain(classes)
        .chain(objects)
        .chain(machines)
        .chain(cpus)
        .collect()
}

/// The properties of a type.
pub(crate) fn type_properties(name: &str) -> Option<Vec<ObjectPropertyInfo>> {
    if let Some(class) = devices::classes().find(|class| class.name == name) {
        return Some(class.props.iter().map(device_property).collect());
    }
    if let Some(def) = OBJECTS.iter().find(|def| def.name == name) {
        return Some(def.props.iter().map(option_property).collect());
    }
    if let Some(machine) = name
        .strip_suffix(MACHINE_SUFFIX)
        .and_then(machine_x86::find)
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
        .strip_suffix(CPU_SUFFIX)
        .is_some_and(|n| model::models().any(|(m, _)| m == n));
    is_cpu.then(|| {
        let names = target_x86::system::feature::names();
        names
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
