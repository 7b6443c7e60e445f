//! The process and its messages.

use super::checked;
use crate::config::{MemLock, Name, parse_uuid};
use crate::error::OptionError;
use crate::number;
use crate::opts::{Opts, is_help};
use crate::parse::{Builder, HelpRequest};
use crate::props::{PropDef, PropKind, Props};
use crate::suggest::Hint;

type Done = Result<(), OptionError>;

/// What `-d` can log, with what it shows.
pub static LOG_ITEMS: &[(&str, &str)] = &[
    (
        "in_asm",
        "guest code of each block when it is first translated",
    ),
    ("op", "intermediate code of each block"),
    ("out_asm", "host code of each block"),
    ("int", "interrupts and exceptions"),
    (
        "exec",
        "each block that is entered (code is interpreted then)",
    ),
    (
        "cpu",
        "the registers before each block (code is interpreted then)",
    ),
    ("fpu", "with 'cpu': the x87 and SSE registers too"),
    ("mmu", "page table walks and changes of the address space"),
    ("pcall", "far calls, jumps and returns"),
    (
        "nochain",
        "blocks are entered one by one, which 'exec' and 'cpu' do anyway",
    ),
    ("cpu_reset", "each reset of a CPU"),
    ("unimp", "use of what a device does not model"),
    ("guest_errors", "what the guest does wrong"),
    ("page", "changes of the memory map"),
    ("invalid_mem", "accesses to addresses where nothing is"),
];

/// QEMU's other items, and why they are not here.
const LOG_ITEMS_ABSENT: &[(&str, &str)] = &[
    (
        "op_opt",
        "intermediate code is optimized while it is compiled, not before; 'op' shows it",
    ),
    (
        "op_ind",
        "there is no such stage here; 'op' shows the intermediate code",
    ),
    ("op_plugin", "there are no plugins"),
    ("plugin", "there are no plugins"),
    (
        "strace",
        "system calls are the guest kernel's; this is for emulators of single programs",
    ),
    (
        "tid",
        "there is one log for all threads; lines of 'exec', 'int', 'mmu' and 'pcall' name the CPU",
    ),
    (
        "vpu",
        "this belongs to vector units of other architectures; 'cpu,fpu' shows the SSE registers",
    ),
];

pub(crate) const NAME: &[PropDef] = &[
    PropDef::new("guest", PropKind::Str, "name of the guest"),
    PropDef::new("process", PropKind::Str, "name of the process"),
    PropDef::new("debug-threads", PropKind::Bool, "name the threads"),
];

pub(crate) const MSG: &[PropDef] = &[
    PropDef::new("timestamp", PropKind::Bool, "begin messages with the time"),
    PropDef::new(
        "guest-name",
        PropKind::Bool,
        "begin messages with the guest's name",
    ),
];

pub(crate) const OVERCOMMIT: &[PropDef] = &[
    PropDef::new(
        "mem-lock",
        PropKind::Enum(&["on", "off", "on-fault"]),
        "lock the memory",
    ),
    PropDef::new(
        "cpu-pm",
        PropKind::Bool,
        "let the guest put host processors to sleep",
    ),
];

pub(crate) const SANDBOX: &[PropDef] = &[
    PropDef::new("enable", PropKind::Bool, "restrict the process"),
    PropDef::new(
        "obsolete",
        PropKind::Enum(&["allow", "deny"]),
        "obsolete system calls",
    ),
    PropDef::new(
        "elevateprivileges",
        PropKind::Enum(&["allow", "deny", "children"]),
        "setuid and the like",
    ),
    PropDef::new("spawn", PropKind::Enum(&["allow", "deny"]), "new processes"),
    PropDef::new(
        "resourcecontrol",
        PropKind::Enum(&["allow", "deny"]),
        "scheduling and affinity",
    ),
];

pub(crate) const RUN_WITH: &[PropDef] = &[
    PropDef::new(
        "async-teardown",
        PropKind::Bool,
        "free the memory after the process has gone",
    ),
    PropDef::new(
        "chroot",
        PropKind::Str,
        "folder to enter before the machine starts",
    ),
    PropDef::new(
        "user",
        PropKind::Str,
        "user to become before the machine starts",
    ),
    PropDef::new(
        "exit-with-parent",
        PropKind::Bool,
        "end when the starter does",
    ),
];

pub(crate) fn set(flag: &mut bool) -> Done {
    *flag = true;
    Ok(())
}

pub(crate) fn text(field: &mut Option<String>, value: &str) -> Done {
    *field = Some(value.to_owned());
    Ok(())
}

pub(crate) fn help(b: &mut Builder, _: &str, _: &str) -> Done {
    b.help = Some(HelpRequest::Options);
    Ok(())
}

pub(crate) fn version(b: &mut Builder, _: &str, _: &str) -> Done {
    b.version = true;
    Ok(())
}

pub(crate) fn name(b: &mut Builder, option: &str, value: &str) -> Done {
    if let Some(props) = checked(b, option, value, Some("guest"), NAME)? {
        let own = |key| props.text(key).map(str::to_owned);
        let Name {
            guest,
            process,
            debug_threads,
        } = std::mem::take(&mut b.config.name);
        b.config.name = Name {
            guest: own("guest").or(guest),
            process: own("process").or(process),
            debug_threads: debug_threads || props.is_on("debug-threads"),
        };
    }
    Ok(())
}

pub(crate) fn uuid(b: &mut Builder, option: &str, value: &str) -> Done {
    let expected = "a UUID such as '550e8400-e29b-41d4-a716-446655440000'";
    let uuid =
        parse_uuid(value).ok_or_else(|| OptionError::bad_value(option, "uuid", value, expected))?;
    b.config.uuid = Some(uuid);
    Ok(())
}

pub(crate) fn log_items(b: &mut Builder, option: &str, value: &str) -> Done {
    for item in value.split(',').filter(|i| !i.is_empty()) {
        if is_help(item) {
            b.ask(HelpRequest::LogItems);
        } else if item == "all" {
            b.config
                .log_items
                .extend(LOG_ITEMS.iter().map(|(name, _)| (*name).to_owned()));
        } else if LOG_ITEMS.iter().any(|(name, _)| *name == item) {
            b.config.log_items.push(item.to_owned());
        } else if let Some(why) = absent_item(item) {
            return Err(OptionError::Unavailable {
                option: option.to_owned(),
                what: format!("'{item}'"),
                hint: Hint::text(why),
            });
        } else {
            let names = LOG_ITEMS.iter().map(|(name, _)| *name);
            return Err(OptionError::unknown_name(option, "log item", item, names));
        }
    }
    Ok(())
}

/// Why an item of QEMU's is not here.
fn absent_item(item: &str) -> Option<&'static str> {
    if item.starts_with("trace:") {
        return Some("there are no trace points; 'help' lists the items there are");
    }
    let known = LOG_ITEMS_ABSENT.iter().find(|(name, _)| *name == item);
    known.map(|(_, why)| *why)
}

pub(crate) fn log_filter(b: &mut Builder, option: &str, value: &str) -> Done {
    for text in value.split(',') {
        let range = log_range(text).ok_or_else(|| {
            let expected = "FIRST..LAST, START+BYTES or LAST-BYTES, as in 0x8000..0x8fff";
            OptionError::bad_value(option, "range", text, expected)
        })?;
        b.config.log_filter.push(range);
    }
    Ok(())
}

/// First and last address of a range of `-dfilter`.
fn log_range(text: &str) -> Option<(u64, u64)> {
    if let Some((first, last)) = text.split_once("..") {
        let (first, last) = (number::unsigned(first)?, number::unsigned(last)?);
        return (first <= last).then_some((first, last));
    }
    if let Some((start, len)) = text.split_once('+') {
        let (start, len) = (number::unsigned(start)?, number::unsigned(len)?);
        return Some((start, start.checked_add(len.checked_sub(1)?)?));
    }
    let (last, len) = text.split_once('-')?;
    let (last, len) = (number::unsigned(last)?, number::unsigned(len)?);
    Some((last.checked_sub(len.checked_sub(1)?)?, last))
}

/// The text of `-d help`.
pub fn log_items_help() -> String {
    let lines = LOG_ITEMS
        .iter()
        .map(|(name, doc)| format!("{name:<15} {doc}\n"));
    std::iter::once("Log items (comma separated):\n".to_owned())
        .chain(lines)
        .collect()
}

pub(crate) fn msg(b: &mut Builder, option: &str, value: &str) -> Done {
    if let Some(props) = checked(b, option, value, None, MSG)? {
        if props.is_given("timestamp") {
            b.config.msg_timestamp = props.is_on("timestamp");
        }
        if props.is_given("guest-name") {
            b.config.msg_guest_name = props.is_on("guest-name");
        }
    }
    Ok(())
}

pub(crate) fn overcommit(b: &mut Builder, option: &str, value: &str) -> Done {
    if let Some(props) = checked(b, option, value, None, OVERCOMMIT)? {
        if let Some(mode) = props.text("mem-lock") {
            b.config.mem_lock = match mode {
                "on" => MemLock::On,
                "on-fault" => MemLock::OnFault,
                _ => MemLock::Off,
            };
        }
        if props.is_given("cpu-pm") {
            b.config.cpu_pm = props.is_on("cpu-pm");
        }
    }
    Ok(())
}

pub(crate) fn sandbox(b: &mut Builder, option: &str, value: &str) -> Done {
    if let Some(props) = checked(b, option, value, Some("enable"), SANDBOX)? {
        let opts = Opts::parse(option, value, Some("enable"))?;
        b.config.sandbox = props.is_on("enable").then_some(opts);
    }
    Ok(())
}

pub(crate) fn run_with(b: &mut Builder, option: &str, value: &str) -> Done {
    if checked(b, option, value, None, RUN_WITH)?.is_some() {
        for (key, value) in Opts::parse(option, value, None)?.iter() {
            b.config.run_with.push(key, value.clone());
        }
    }
    Ok(())
}

pub(crate) fn seed(b: &mut Builder, option: &str, value: &str) -> Done {
    let seed = number::unsigned(value)
        .ok_or_else(|| OptionError::bad_value(option, "seed", value, "a number"))?;
    b.config.seed = Some(seed);
    Ok(())
}

/// Reads a list whose text form the caller keeps, after checking it.
pub(crate) fn check_only(option: &str, subject: &str, opts: &Opts, table: &[PropDef]) -> Done {
    Props::check(option, subject, opts, table).map(drop)
}
