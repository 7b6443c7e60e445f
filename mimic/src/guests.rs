//! The guests that this binary runs: the one list. A program name like `qemu-system-aarch64` picks one, else the
//! machine does.

use std::ptr;

use anyhow::{Result, bail};
use control_options::OptionError;
use hw_core::nearest;
use machine_core::MachineDef;

/// A guest architecture and what there is of it.
pub struct Guest {
    /// Name, as in QEMU's program names.
    pub name: &'static str,
    /// Its machines.
    pub machines: &'static [MachineDef],
    /// The end of the object types of its CPU models, and of the type above them.
    pub(crate) cpu_type: &'static str,
    /// The text of `-cpu help`.
    pub(crate) cpu_help: fn() -> String,
    /// Names of its CPU models.
    pub(crate) cpu_models: fn() -> Vec<&'static str>,
    /// What the engine lacks of a model.
    pub(crate) missing: fn(&str) -> Vec<String>,
    /// Names of CPU features.
    pub(crate) cpu_features: fn() -> Vec<String>,
}

/// 64-bit PCs.
pub static X86_64: Guest = Guest {
    name: "x86_64",
    machines: machine_x86::MACHINES,
    cpu_type: "x86_64-cpu",
    cpu_help: target_x86::system::model::help,
    cpu_models: || {
        let models = target_x86::system::model::models();
        models.map(|(name, _)| name).collect()
    },
    missing: |name| {
        let engine = target_x86::system::feature::engine();
        match target_x86::system::CpuModel::parse(name, &engine, false) {
            Ok((_, missing)) => missing,
            // A model of another accelerator: QEMU's word for "not at all".
            Err(_) => vec!["kvm".to_owned()],
        }
    },
    cpu_features: || {
        let names = target_x86::system::feature::names();
        names.map(str::to_owned).collect()
    },
};

/// 64-bit Arm.
pub static AARCH64: Guest = Guest {
    name: "aarch64",
    machines: machine_arm::MACHINES,
    cpu_type: "arm-cpu",
    cpu_help: target_arm::help,
    cpu_models: || target_arm::models().map(|(name, _)| name).collect(),
    missing: |name| match target_arm::CpuModel::parse(name) {
        Ok(_) => Vec::new(),
        Err(_) => vec!["kvm".to_owned()],
    },
    cpu_features: || {
        target_arm::properties()
            .map(|(name, _)| name.to_owned())
            .collect()
    },
};

/// All of them; the first one's default machine is started when none is asked for.
pub static GUESTS: &[&Guest] = &[&X86_64, &AARCH64];

/// Guests of QEMU's that will follow.
const PLANNED: &[&str] = &["ppc64", "s390x"];

/// The guest of a program name like QEMU's; `None` for a name that leaves it open.
///
/// # Errors
/// When there is no such guest.
pub fn of_program(program: &str) -> Result<Option<&'static Guest>> {
    let Some(name) = program.strip_prefix("qemu-system-") else {
        return Ok(None);
    };
    if let Some(guest) = GUESTS.iter().find(|guest| guest.name == name) {
        return Ok(Some(guest));
    }
    let all: Vec<_> = GUESTS.iter().map(|guest| guest.name).collect();
    let all = all.join(", ");
    let use_one = match nearest(name, GUESTS.iter().map(|guest| guest.name)) {
        Some(near) => format!("use 'qemu-system-{near}'"),
        None => "use 'qemu-system-x86_64'".to_owned(),
    };
    if PLANNED.contains(&name) {
        bail!(
            "guests of kind '{name}' are not built yet; this version of Mimic runs {all}: {use_one}"
        );
    }
    bail!("Mimic has no guests of kind '{name}'; this version runs {all}: {use_one}");
}

/// The guest of a program, or the one that has the machine.
///
/// # Errors
/// When the program names a guest that there is not.
pub fn choose(program: &str, machine: Option<&str>) -> Result<&'static Guest> {
    if let Some(guest) = of_program(program)? {
        return Ok(guest);
    }
    let has = |guest: &&&Guest| machine.is_some_and(|name| guest.find(name).is_some());
    Ok(GUESTS.iter().find(has).copied().unwrap_or(&X86_64))
}

impl Guest {
    /// Its machine of a name or alias.
    pub fn find(&self, name: &str) -> Option<&'static MachineDef> {
        let mut machines = self.machines.iter();
        machines.find(|m| m.name == name || m.alias == Some(name))
    }

    /// Whether it is the other one.
    pub fn is(&self, other: &Guest) -> bool {
        ptr::eq(self, other)
    }

    /// The machine of `-machine`, or the default.
    ///
    /// # Errors
    /// When there is none of that name, or no default.
    pub fn machine(&self, name: Option<&str>) -> Result<&'static MachineDef, OptionError> {
        if let Some(found) = match name {
            None => self.machines.iter().find(|m| m.is_default),
            Some(name) => self.find(name),
        } {
            return Ok(found);
        }
        let names: Vec<_> = self
            .machines
            .iter()
            .flat_map(|m| std::iter::once(m.name).chain(m.alias))
            .collect();
        let Some(name) = name else {
            return Err(OptionError::Unavailable {
                option: "-machine".to_owned(),
                what: format!("a default machine for guests of kind '{}'", self.name),
                hint: control_options::suggest::Hint::text(format!(
                    "name one with '-machine': {}",
                    names.join(", ")
                )),
            });
        };
        Err(OptionError::unknown_name(
            "-machine",
            "machine",
            name,
            names.iter().copied(),
        ))
    }

    /// The object type of a CPU model.
    pub(crate) fn type_of_cpu(&self, model: &str) -> String {
        format!("{model}-{}", self.cpu_type)
    }
}
