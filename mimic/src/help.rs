//! Every `help` form, read from the tables that also do the work.

use std::fmt::Write as _;

use anyhow::Result;

use control_options::{HelpRequest, OptionError, log_items_help, props, table};
use hw_core::{Category, DeviceClass};

use crate::guests::{self, GUESTS, Guest};
use crate::objects::OBJECTS;
use crate::{accel, build, devices, storage};

/// Width of the column before a description, as QEMU has it.
const COLUMN: usize = 24;

/// The first line of `-version` and `-help`, in the form that scripts take apart.
pub fn version_line() -> String {
    let version = control_qmp::version();
    let qemu = &version.qemu;
    format!(
        "QEMU emulator version {}.{}.{} (mimic {})\n",
        qemu.major,
        qemu.minor,
        qemu.micro,
        env!("CARGO_PKG_VERSION")
    )
}

/// The text of `-version`.
pub fn version() -> String {
    format!(
        "{}Mimic, a full-system machine emulator that takes QEMU's options. It is not QEMU and shares no code with it.\n",
        version_line()
    )
}

/// The text that a request for help asks for.
///
/// # Errors
/// When it is about something that does not exist.
pub fn text(request: &HelpRequest, program: &str) -> Result<String> {
    let asked = guests::of_program(program)?;
    Ok(match request {
        HelpRequest::Options => format!("{}{}", version_line(), table::help_text(program)),
        HelpRequest::Machines => machines(asked),
        HelpRequest::MachineProps(name) => {
            let name = Some(name.as_str()).filter(|n| !n.is_empty());
            let machine = guests::choose(program, name)?.machine(name)?;
            props::help(machine.name, &build::prop_table(&machine.props()))
        }
        HelpRequest::Cpus => match asked {
            Some(guest) => (guest.cpu_help)(),
            None => cpus(),
        },
        HelpRequest::Accels => accelerators(),
        HelpRequest::AccelProps(name) => {
            let def = named("-accel", "accelerator", name, accel::ACCELERATORS, |def| def.name)?;
            props::help(def.name, def.props)
        }
        HelpRequest::Devices => device_list(),
        HelpRequest::DeviceProps(name) => match devices::find(name) {
            Some(class) => device(class),
            None => device(devices::creatable("-device", name)?),
        },
        HelpRequest::Objects => list("List of user creatable objects:", OBJECTS.iter().map(|def| (def.name, def.doc))),
        HelpRequest::ObjectProps(name) => {
            let def = named("-object", "type of object", name, OBJECTS, |def| def.name)?;
            props::help(def.name, def.props)
        }
        HelpRequest::Chardevs => {
            let drivers = backend_char::DRIVERS.iter().map(|def| (def.name, def.doc));
            list("Available chardev backend types:", drivers)
        }
        HelpRequest::ChardevProps(name) => {
            let def = named("-chardev", "character device driver", name, backend_char::DRIVERS, |def| def.name)?;
            props::help(def.name, def.props)
        }
        HelpRequest::Netdevs => {
            "Available netdev backend types:\n  none (there are no network back ends yet; use '-nic none')\n".to_owned()
        }
        HelpRequest::BlockDrivers => list(
            "Supported block drivers:",
            storage::DRIVERS.iter().map(|class| (class.name, class.doc)),
        ),
        HelpRequest::Displays => list(
            "Available display backend types:",
            [("none", "nothing is shown"), ("nographic", "the terminal is the console: same as -nographic")],
        ),
        HelpRequest::Vgas => list("Available graphics cards:", [("none", "no graphics card")]),
        HelpRequest::Audiodevs => list("Available audio drivers:", [("none", "no sound")]),
        HelpRequest::LogItems => log_items_help(),
        HelpRequest::Text(text) => text.clone(),
    })
}

fn named<'a, T>(
    option: &str,
    what: &str,
    name: &str,
    table: &'a [T],
    key: impl Fn(&T) -> &'static str,
) -> Result<&'a T, OptionError> {
    let names: Vec<_> = table.iter().map(&key).collect();
    table
        .iter()
        .find(|def| key(def) == name)
        .ok_or_else(|| OptionError::unknown_name(option, what, name, names.iter().copied()))
}

fn list<'a>(title: &str, entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = format!("{title}\n");
    for (name, doc) in entries {
        let _ = writeln!(out, "  {name:<22} {doc}");
    }
    out
}

/// The CPUs of all guests.
fn cpus() -> String {
    let each = GUESTS.iter().map(|guest| {
        let title = format!("Guests of kind {}:\n", guest.name);
        title + &(guest.cpu_help)()
    });
    each.collect::<Vec<_>>().join("\n")
}

/// Those of a guest, or of all.
fn machines(named: Option<&'static Guest>) -> String {
    let mut out = "Supported machines are:\n".to_owned();
    let mut lines = Vec::new();
    let guests = GUESTS.iter().filter(|g| named.is_none_or(|n| n.is(g)));
    for machine in guests.flat_map(|guest| guest.machines) {
        if let Some(alias) = machine.alias {
            lines.push((
                alias,
                format!("{alias:<20} {} (alias of {})\n", machine.doc, machine.name),
            ));
        }
        let default = if machine.is_default { " (default)" } else { "" };
        lines.push((
            machine.name,
            format!("{:<20} {}{default}\n", machine.name, machine.doc),
        ));
    }
    lines.sort();
    out.extend(lines.into_iter().map(|(_, line)| line));
    out
}

fn accelerators() -> String {
    let mut out = "Accelerators supported in Mimic:\n".to_owned();
    for def in accel::ACCELERATORS {
        let state = (def.unusable)()
            .map_or_else(|| "usable".to_owned(), |why| format!("not usable: {why}"));
        let _ = writeln!(out, "{:<8} {} ({state})", def.name, def.doc);
    }
    out
}

const HEADINGS: &[(Category, &str)] = &[
    (Category::Bridge, "Controller/Bridge/Hub devices"),
    (Category::Usb, "USB devices"),
    (Category::Storage, "Storage devices"),
    (Category::Network, "Network devices"),
    (Category::Input, "Input devices"),
    (Category::Display, "Display devices"),
    (Category::Sound, "Sound devices"),
    (Category::Misc, "Misc devices"),
];

fn device_list() -> String {
    let mut out = String::new();
    for (category, heading) in HEADINGS {
        let mut classes: Vec<_> = devices::classes()
            .filter(|class| class.user_creatable && class.category == *category)
            .collect();
        if classes.is_empty() {
            continue;
        }
        classes.sort_by_key(|class| class.name);
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = writeln!(out, "{heading}:");
        for class in classes {
            let _ = write!(out, "name \"{}\", bus {}", class.name, class.bus.name());
            for alias in class.aliases {
                let _ = write!(out, ", alias \"{alias}\"");
            }
            let _ = writeln!(out, ", desc \"{}\"", class.doc);
        }
    }
    out
}

/// `-device X,help`: the types are those of introspection.
fn device(class: &DeviceClass) -> String {
    let mut out = format!("{} options:\n", class.name);
    let mut sorted: Vec<_> = class.props.iter().collect();
    sorted.sort_by_key(|prop| prop.name);
    for prop in sorted {
        let left = format!("  {}=<{}>", prop.name, prop.ty.name());
        let _ = write!(out, "{left:<COLUMN$} - {}", prop.doc);
        if prop.default.is_empty() {
            out.push('\n');
        } else {
            let _ = writeln!(out, " (default: {})", prop.default);
        }
    }
    out
}
