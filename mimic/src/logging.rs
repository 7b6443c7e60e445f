//! Messages: what is wrong goes to standard error, what `-d` asks for goes where `-D` says.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use control_options::Config;
use control_qapi::Timestamp;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Targets that are silent unless `-d` names them: what guests can trigger at will.
const GUEST_TARGETS: &[&str] = &["guest_errors", "unimp", "invalid_mem"];

/// How messages begin.
#[derive(Clone, Default)]
pub(crate) struct Style {
    program: String,
    timestamp: bool,
    guest_name: Option<String>,
}

impl Style {
    /// The style that a configuration asks for.
    pub(crate) fn new(program: &str, config: Option<&Config>) -> Self {
        let named = config
            .filter(|c| c.msg_guest_name)
            .and_then(|c| c.name.guest.clone());
        Self {
            program: program.to_owned(),
            timestamp: config.is_some_and(|c| c.msg_timestamp),
            guest_name: named,
        }
    }

    /// What a message begins with.
    pub(crate) fn prefix(&self) -> String {
        let mut out = String::new();
        if self.timestamp {
            out += &timestamp(runtime::time::wall_ns());
            out.push(' ');
        }
        if let Some(name) = &self.guest_name {
            out += name;
            out.push(' ');
        }
        out + &self.program + ": "
    }
}

/// `2006-06-17T16:01:21.123456Z`.
fn timestamp(ns: u64) -> String {
    let at = Timestamp::from_ns(ns);
    let (days, second) = (at.seconds / 86_400, at.seconds % 86_400);
    // Days since 1970 to a date of the Gregorian calendar, with years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
        at.microseconds
    )
}

struct Logger {
    style: Style,
    items: Vec<String>,
    /// Where `-D` sends what `-d` asks for.
    file: Option<Mutex<File>>,
    /// `MIMIC_LOG`: developers' filter.
    filter: Option<env_logger::Logger>,
}

impl Logger {
    fn is_item(&self, target: &str) -> bool {
        self.items.iter().any(|item| item == target)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        if self.is_item(target) || self.filter.as_ref().is_some_and(|f| f.enabled(metadata)) {
            return true;
        }
        metadata.level() <= Level::Warn && !GUEST_TARGETS.contains(&target)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let target = record.target();
        if self.is_item(target) {
            let line = format!("{}\n", record.args());
            match &self.file {
                Some(file) => {
                    let mut file = file
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    let _ = file.write_all(line.as_bytes());
                }
                None => {
                    let _ = io::stderr().write_all(line.as_bytes());
                }
            }
            return;
        }
        let kind = match record.level() {
            Level::Error => "",
            Level::Warn => "warning: ",
            Level::Info => "info: ",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        // One write, so that lines of several threads never mix.
        let line = format!("{}{kind}{}\n", self.style.prefix(), record.args());
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {
        if let Some(file) = &self.file {
            let _ = file
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .flush();
        }
    }
}

/// Sets up messages for the whole process.
pub(crate) fn install(style: Style, config: &Config) -> Result<()> {
    let file = match &config.log_file {
        // QEMU puts the process id in place of %d.
        Some(path) => {
            let path = path.replace("%d", &std::process::id().to_string());
            let file =
                File::create(&path).with_context(|| format!("-D {path}: cannot write the file"))?;
            Some(Mutex::new(file))
        }
        None => None,
    };
    let filter = std::env::var("MIMIC_LOG")
        .ok()
        .map(|spec| env_logger::Builder::new().parse_filters(&spec).build());
    let level = match &filter {
        _ if !config.log_items.is_empty() => LevelFilter::Trace,
        Some(filter) => filter.filter().max(LevelFilter::Warn),
        None => LevelFilter::Warn,
    };
    let logger = Logger {
        style,
        items: config.log_items.clone(),
        file,
        filter,
    };
    // A second machine in this process keeps the first one's messages.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn time_stamps_are_dates_in_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            timestamp(951_782_400_123_456_000),
            "2000-02-29T00:00:00.123456Z"
        );
        assert_eq!(
            timestamp(1_735_689_599_000_000_000),
            "2024-12-31T23:59:59.000000Z"
        );
    }
}
