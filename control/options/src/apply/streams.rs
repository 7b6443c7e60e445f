//! Streams, monitors and displays.

use super::checked;
use crate::config::{Display, MonitorOpt, StreamRef};
use crate::error::OptionError;
use crate::number;
use crate::opts::{Opts, is_help};
use crate::parse::{Builder, HelpRequest};
use crate::props::{PropDef, PropKind};
use crate::suggest::Hint;

type Done = Result<(), OptionError>;

pub(crate) const MON: &[PropDef] = &[
    PropDef::new("chardev", PropKind::Link("chardev"), "the stream").required(),
    PropDef::new(
        "mode",
        PropKind::Enum(&["readline", "control"]),
        "for people, or for programs (QMP)",
    )
    .or("readline"),
    PropDef::new("pretty", PropKind::Bool, "QMP with line breaks").or("off"),
    PropDef::new("id", PropKind::Str, "name of the monitor"),
];

/// Displays of QEMU's that are not there yet.
const DISPLAYS_ABSENT: &[&str] = &[
    "gtk",
    "sdl",
    "curses",
    "egl-headless",
    "spice-app",
    "dbus",
    "vnc",
    "cocoa",
];
/// Graphics cards of QEMU's that are not there yet.
const VGAS_ABSENT: &[&str] = &[
    "std", "cirrus", "vmware", "qxl", "xenfb", "tcx", "cg3", "virtio",
];

pub(crate) fn chardev(b: &mut Builder, option: &str, value: &str) -> Done {
    let opts = Opts::parse(option, value, Some("backend"))?;
    match opts.text("backend") {
        Some(name) if is_help(name) => b.ask(HelpRequest::Chardevs),
        None | Some("") => {
            return Err(OptionError::syntax(
                option,
                "the driver is missing; '-chardev help' lists them",
            ));
        }
        Some(name) if opts.wants_help() => b.ask(HelpRequest::ChardevProps(name.to_owned())),
        Some(_) => b.config.chardevs.push(opts),
    }
    Ok(())
}

pub(crate) fn serial(b: &mut Builder, _: &str, value: &str) -> Done {
    b.config.serials.push(value.to_owned());
    Ok(())
}

pub(crate) fn parallel(b: &mut Builder, _: &str, value: &str) -> Done {
    b.config.parallels.push(value.to_owned());
    Ok(())
}

fn push_monitor(b: &mut Builder, text: &str, is_qmp: bool, is_pretty: bool) -> Done {
    let stream = match text.strip_prefix("chardev:") {
        Some(id) => StreamRef::Id(id.to_owned()),
        None => StreamRef::Short(text.to_owned()),
    };
    b.config.monitors.push(MonitorOpt {
        stream,
        is_qmp,
        is_pretty,
    });
    Ok(())
}

pub(crate) fn monitor(b: &mut Builder, _: &str, value: &str) -> Done {
    push_monitor(b, value, false, false)
}

pub(crate) fn qmp(b: &mut Builder, _: &str, value: &str) -> Done {
    push_monitor(b, value, true, false)
}

pub(crate) fn qmp_pretty(b: &mut Builder, _: &str, value: &str) -> Done {
    push_monitor(b, value, true, true)
}

pub(crate) fn mon(b: &mut Builder, option: &str, value: &str) -> Done {
    let Some(props) = checked(b, option, value, Some("chardev"), MON)? else {
        return Ok(());
    };
    b.config.monitors.push(MonitorOpt {
        stream: StreamRef::Id(props.text("chardev").unwrap_or_default().to_owned()),
        is_qmp: props.text("mode") == Some("control"),
        is_pretty: props.is_on("pretty"),
    });
    Ok(())
}

pub(crate) fn display(b: &mut Builder, option: &str, value: &str) -> Done {
    let name = value.split([',', '=']).next().unwrap_or_default();
    match name {
        _ if is_help(name) => b.ask(HelpRequest::Displays),
        "none" => b.config.display = Display::None,
        "nographic" => b.config.display = Display::NoGraphic,
        _ if DISPLAYS_ABSENT.contains(&name) => {
            return Err(absent(
                option,
                "display",
                name,
                "'-display none' or '-nographic'",
            ));
        }
        _ => return Err(OptionError::unknown_name(option, "display", name, ["none"])),
    }
    Ok(())
}

pub(crate) fn nographic(b: &mut Builder, _: &str, _: &str) -> Done {
    b.config.display = Display::NoGraphic;
    Ok(())
}

pub(crate) fn vga(b: &mut Builder, option: &str, value: &str) -> Done {
    match value {
        _ if is_help(value) => b.ask(HelpRequest::Vgas),
        "none" => b.config.vga_none = true,
        _ if VGAS_ABSENT.contains(&value) => {
            return Err(absent(option, "graphics card", value, "'-vga none'"));
        }
        _ => {
            return Err(OptionError::unknown_name(
                option,
                "graphics card",
                value,
                ["none"],
            ));
        }
    }
    Ok(())
}

fn absent(option: &str, what: &str, name: &str, instead: &str) -> OptionError {
    OptionError::Unavailable {
        option: option.to_owned(),
        what: format!("{what} '{name}'"),
        hint: Hint::text(format!("use {instead}")),
    }
}

pub(crate) fn echr(b: &mut Builder, option: &str, value: &str) -> Done {
    let key = number::unsigned(value).and_then(|n| u8::try_from(n).ok());
    let expected = "a character's number from 0 to 255, such as 1 for Ctrl-A";
    b.config.escape_key =
        Some(key.ok_or_else(|| OptionError::bad_value(option, "echr", value, expected))?);
    Ok(())
}
