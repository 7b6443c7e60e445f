//! Boot order, the real time clock, and what happens at the end.

use super::checked;
use crate::config::{
    PanicAction, RebootAction, RtcBase, RtcClock, ShutdownAction, WatchdogAction, parse_date,
};
use crate::error::OptionError;
use crate::parse::Builder;
use crate::props::{PropDef, PropKind, PropValue};

type Done = Result<(), OptionError>;

pub(crate) const BOOT: &[PropDef] = &[
    PropDef::new("order", PropKind::Str, "drive letters"),
    PropDef::new("once", PropKind::Str, "drive letters for the first boot"),
    PropDef::new("menu", PropKind::Bool, "show the firmware's menu"),
    PropDef::new("splash", PropKind::Str, "picture file"),
    PropDef::new(
        "splash-time",
        PropKind::U64,
        "how long to show it, in milliseconds",
    ),
    PropDef::new(
        "reboot-timeout",
        PropKind::I64,
        "wait after a failure, in milliseconds; -1 for ever",
    ),
    PropDef::new("strict", PropKind::Bool, "try nothing that is not listed"),
];

pub(crate) const RTC: &[PropDef] = &[
    PropDef::new(
        "base",
        PropKind::Str,
        "time at power on: utc, localtime or a date",
    )
    .or("utc"),
    PropDef::new(
        "clock",
        PropKind::Enum(&["host", "rt", "vm"]),
        "what drives it",
    )
    .or("host"),
    PropDef::new(
        "driftfix",
        PropKind::Enum(&["none", "slew"]),
        "make up for lost ticks",
    )
    .or("none"),
];

const WATCHDOG: PropKind = PropKind::Enum(&[
    "reset",
    "shutdown",
    "poweroff",
    "pause",
    "debug",
    "none",
    "inject-nmi",
]);

pub(crate) const ACTION: &[PropDef] = &[
    PropDef::new(
        "reboot",
        PropKind::Enum(&["reset", "shutdown"]),
        "when the guest reboots",
    ),
    PropDef::new(
        "shutdown",
        PropKind::Enum(&["poweroff", "pause"]),
        "when the guest powers off",
    ),
    PropDef::new(
        "panic",
        PropKind::Enum(&["none", "pause", "shutdown", "exit-failure"]),
        "when the guest crashes",
    ),
    PropDef::new("watchdog", WATCHDOG, "when a watchdog fires"),
];

pub(crate) fn boot(b: &mut Builder, option: &str, value: &str) -> Done {
    let Some(props) = checked(b, option, value, Some("order"), BOOT)? else {
        return Ok(());
    };
    let boot = &mut b.config.boot;
    for key in ["order", "once"] {
        let Some(text) = props.text(key) else {
            continue;
        };
        let repeated = text
            .char_indices()
            .any(|(at, c)| text.get(..at).is_some_and(|before| before.contains(c)));
        if repeated || !text.chars().all(|c| ('a'..='p').contains(&c)) {
            return Err(OptionError::bad_value(
                option,
                key,
                text,
                "drive letters from a to p, each once, such as 'cdn'",
            ));
        }
        let field = if key == "order" {
            &mut boot.order
        } else {
            &mut boot.once
        };
        *field = Some(text.to_owned());
    }
    if props.is_given("menu") {
        boot.menu = Some(props.is_on("menu"));
    }
    if let Some(splash) = props.text("splash") {
        boot.splash = Some(splash.to_owned());
    }
    boot.splash_time_ms = props.unsigned("splash-time").or(boot.splash_time_ms);
    if let Some(PropValue::Signed(ms)) = props.get("reboot-timeout") {
        if !(-1..=65535).contains(ms) {
            return Err(OptionError::bad_value(
                option,
                "reboot-timeout",
                &ms.to_string(),
                "-1 to 65535",
            ));
        }
        boot.reboot_timeout_ms = Some(*ms);
    }
    boot.strict |= props.is_on("strict");
    Ok(())
}

pub(crate) fn rtc(b: &mut Builder, option: &str, value: &str) -> Done {
    let Some(props) = checked(b, option, value, Some("base"), RTC)? else {
        return Ok(());
    };
    let rtc = &mut b.config.rtc;
    rtc.base = match props.text("base").unwrap_or("utc") {
        "utc" => RtcBase::Utc,
        "localtime" => RtcBase::LocalTime,
        date => {
            let expected = "'utc', 'localtime' or a date such as '2006-06-17T16:01:21'";
            RtcBase::At(
                parse_date(date)
                    .ok_or_else(|| OptionError::bad_value(option, "base", date, expected))?,
            )
        }
    };
    rtc.clock = match props.text("clock") {
        Some("rt") => RtcClock::Rt,
        Some("vm") => RtcClock::Vm,
        _ => RtcClock::Host,
    };
    rtc.slew = props.text("driftfix") == Some("slew");
    Ok(())
}

pub(crate) fn action(b: &mut Builder, option: &str, value: &str) -> Done {
    let Some(props) = checked(b, option, value, None, ACTION)? else {
        return Ok(());
    };
    let action = &mut b.config.action;
    match props.text("reboot") {
        Some("shutdown") => action.reboot = RebootAction::Shutdown,
        Some(_) => action.reboot = RebootAction::Reset,
        None => {}
    }
    match props.text("shutdown") {
        Some("pause") => action.shutdown = ShutdownAction::Pause,
        Some(_) => action.shutdown = ShutdownAction::Poweroff,
        None => {}
    }
    match props.text("panic") {
        Some("none") => action.panic = PanicAction::None,
        Some("pause") => action.panic = PanicAction::Pause,
        Some("exit-failure") => action.panic = PanicAction::ExitFailure,
        Some(_) => action.panic = PanicAction::Shutdown,
        None => {}
    }
    if let Some(text) = props.text("watchdog") {
        action.watchdog = Some(match text {
            "shutdown" => WatchdogAction::Shutdown,
            "poweroff" => WatchdogAction::Poweroff,
            "pause" => WatchdogAction::Pause,
            "debug" => WatchdogAction::Debug,
            "none" => WatchdogAction::None,
            "inject-nmi" => WatchdogAction::InjectNmi,
            _ => WatchdogAction::Reset,
        });
    }
    Ok(())
}

pub(crate) fn no_reboot(b: &mut Builder, _: &str, _: &str) -> Done {
    b.config.action.reboot = RebootAction::Shutdown;
    Ok(())
}

pub(crate) fn no_shutdown(b: &mut Builder, _: &str, _: &str) -> Done {
    b.config.action.shutdown = ShutdownAction::Pause;
    Ok(())
}

pub(crate) fn watchdog_action(b: &mut Builder, option: &str, value: &str) -> Done {
    action(b, option, &format!("watchdog={}", value.replace(',', ",,")))
}
