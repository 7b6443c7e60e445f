//! The machine, its processors and its memory.

use super::checked;
use crate::config::{AccelOpt, CpuOpt, CpuSetting};
use crate::error::OptionError;
use crate::number;
use crate::opts::{Opts, Scalar, is_help};
use crate::parse::{Builder, HelpRequest};
use crate::props::{PropDef, PropKind};
use crate::topology::SMP_PROPS;

type Done = Result<(), OptionError>;

const MIB: u64 = 1 << 20;
/// QEMU rounds guest memory up to this.
const MEMORY_STEP: u64 = 8 << 10;

pub(crate) const MEMORY: &[PropDef] = &[
    PropDef::new("size", PropKind::Str, "memory at power on"),
    PropDef::new("slots", PropKind::U64, "slots for hot-plugged memory"),
    PropDef::new("maxmem", PropKind::Str, "memory with all slots full"),
];

/// Machine properties that are the accelerator's own by now.
const ACCEL_LEGACY: &[&str] = &[
    "kernel-irqchip",
    "kernel_irqchip",
    "kvm-shadow-mem",
    "igd-passthru",
];

pub(crate) fn machine(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("type"))?;
    if opts.text("type").is_some_and(is_help) {
        b.ask(HelpRequest::Machines);
        return Ok(());
    }
    let mut accel = Vec::new();
    let mut legacy = Vec::new();
    for (key, value) in opts.iter() {
        match key {
            "type" if value.text().is_empty() => {
                return Err(OptionError::syntax(
                    option,
                    "the machine's name is missing; 'help' lists them",
                ));
            }
            "type" => b.config.machine = Some(value.text().to_owned()),
            "accel" => accel = names(option, value.text(), &mut b.help)?,
            "help" if *value == Scalar::Bool(true) => {}
            // smp and memory may be given here as well: smp.cores=2.
            _ if key.starts_with("smp.") => {
                let inner = format!("{}={}", key.trim_start_matches("smp."), value.text());
                smp(b, option, &inner)?;
            }
            "memory" | "memory.size" => memory(b, option, value.text())?,
            _ if ACCEL_LEGACY.contains(&key) => {
                legacy.push((key.replace('_', "-"), value.clone()));
            }
            _ => {
                let key = key.replace('_', "-");
                b.config.machine_opts.push(&key, value.clone());
            }
        }
    }
    if opts.wants_help() {
        b.ask(HelpRequest::MachineProps(
            b.config.machine.clone().unwrap_or_default(),
        ));
    }
    if !accel.is_empty() {
        b.config.accels = accel
            .into_iter()
            .map(|name| AccelOpt {
                name,
                opts: Opts::default(),
            })
            .collect();
    }
    // They are for whichever `-accel kvm` there is, before or after; without one nobody asks.
    for (key, value) in legacy {
        b.config.kvm_opts.push(&key, value);
    }
    Ok(())
}

pub(crate) fn property(b: &mut Builder, key: &str, value: &str) -> Done {
    b.config
        .machine_opts
        .push(key, Scalar::Text(value.to_owned()));
    Ok(())
}

pub(crate) fn accel(b: &mut Builder, option: &str, value: &str) -> Done {
    let mut opts = Opts::parse(option, value, Some("accel"))?;
    let list = opts.take("accel").unwrap_or_default();
    let names = names(option, &list, &mut b.help)?;
    if opts.wants_help() {
        b.ask(HelpRequest::AccelProps(list));
        return Ok(());
    }
    for name in names {
        b.config.accels.push(AccelOpt {
            name,
            opts: opts.clone(),
        });
    }
    Ok(())
}

/// Takes `kvm:tcg` apart.
fn names(
    option: &str,
    list: &str,
    help: &mut Option<HelpRequest>,
) -> Result<Vec<String>, OptionError> {
    if is_help(list) {
        help.get_or_insert(HelpRequest::Accels);
        return Ok(Vec::new());
    }
    let names: Vec<String> = list.split(':').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(OptionError::syntax(
            option,
            "the accelerator's name is missing; '-accel help' lists them",
        ));
    }
    Ok(names)
}

pub(crate) fn enable_kvm(b: &mut Builder, _: &str, _: &str) -> Done {
    b.config.accels.push(AccelOpt {
        name: "kvm".to_owned(),
        opts: Opts::default(),
    });
    Ok(())
}

pub(crate) fn cpu(b: &mut Builder, option: &str, value: &str) -> Done {
    if is_help(value) {
        b.ask(HelpRequest::Cpus);
        return Ok(());
    }
    let mut parts = value.split(',');
    let model = parts.next().unwrap_or_default();
    if model.is_empty() {
        return Err(OptionError::syntax(
            option,
            "the model's name is missing; '-cpu help' lists them",
        ));
    }
    let (mut settings, mut legacy) = (Vec::new(), Vec::new());
    for part in parts.filter(|p| !p.is_empty()) {
        let setting = |name: &str, value: &str| CpuSetting {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        match (
            part.strip_prefix('+'),
            part.strip_prefix('-'),
            part.split_once('='),
        ) {
            (Some(name), ..) => legacy.push(setting(name, "on")),
            (_, Some(name), _) => legacy.push(setting(name, "off")),
            (.., Some((name, value))) if !name.is_empty() => settings.push(setting(name, value)),
            (.., None) => settings.push(setting(part, "on")),
            _ => {
                let problem = format!("'{}' lacks a name before '='", crate::error::shorten(part));
                return Err(OptionError::syntax(option, problem));
            }
        }
    }
    settings.append(&mut legacy);
    b.config.cpu = Some(CpuOpt {
        model: model.to_owned(),
        settings,
    });
    Ok(())
}

pub(crate) fn smp(b: &mut Builder, option: &str, value: &str) -> Done {
    match checked(b, option, value, Some("cpus"), SMP_PROPS)? {
        Some(props) => b.config.smp.merge(&props),
        None => Ok(()),
    }
}

pub(crate) fn memory(b: &mut Builder, option: &str, value: &str) -> Done {
    let Some(props) = checked(b, option, value, Some("size"), MEMORY)? else {
        return Ok(());
    };
    let size = |key: &str, unit| match props.text(key) {
        None => Ok(None),
        Some(text) => match number::size(text, unit) {
            Some(bytes) if bytes > 0 => bytes
                .checked_next_multiple_of(MEMORY_STEP)
                .map(Some)
                .ok_or_else(|| OptionError::bad_value(option, key, text, "a smaller size")),
            _ => Err(OptionError::bad_value(
                option,
                key,
                text,
                "a size such as '512', '1536M' or '4G'",
            )),
        },
    };
    let memory = &mut b.config.memory;
    if let Some(bytes) = size("size", MIB)? {
        memory.size = bytes;
        memory.is_given = true;
        if memory.slots == 0 {
            memory.maxmem = bytes;
        }
    }
    if let Some(slots) = props.unsigned("slots") {
        memory.slots = slots;
    }
    if let Some(bytes) = size("maxmem", 1)? {
        memory.maxmem = bytes;
    }
    Ok(())
}
