//! `-chardev`, `-serial`, `-monitor` and their like: from options to character streams.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use backend_char::{CharKind, CharSpec, Chardev, SocketSpec};
use control_options::config::StreamRef;
use control_options::suggest::nearest;
use control_options::{Config, OptionError};
use runtime::Handle;

/// A monitor and its stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonitorPlan {
    /// The stream's id.
    pub stream: String,
    /// For programs.
    pub is_qmp: bool,
    /// With line breaks.
    pub is_pretty: bool,
}

/// The streams that a command line asks for, checked but not opened.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Streams {
    /// All of them.
    pub specs: Vec<CharSpec>,
    /// The serial ports' streams; `None` leaves a port out.
    pub serials: Vec<Option<String>>,
    /// The parallel ports', likewise.
    pub parallels: Vec<Option<String>>,
    /// The debug console's.
    pub debugcon: Option<String>,
    /// Monitors.
    pub monitors: Vec<MonitorPlan>,
    /// Whether the terminal has a multiplexer, whose keys the user must know.
    pub is_on_terminal: bool,
}

impl Streams {
    /// Whether there is a stream of this id.
    pub fn has(&self, id: &str) -> bool {
        self.specs.iter().any(|spec| spec.id == id)
    }

    /// The stream of a short form: a reference, nothing, or a new one.
    fn short(&mut self, option: &str, id: &str, text: &str) -> Result<Option<String>> {
        if text == "none" {
            return Ok(None);
        }
        if let Some(id) = text.strip_prefix("chardev:") {
            self.need(option, id)?;
            return Ok(Some(id.to_owned()));
        }
        let spec = CharSpec::parse_short(option, id, text)?;
        if self.has(id) {
            bail!(
                "{option}: the id '{id}' is taken by a -chardev, but {option} {text} uses it; give the -chardev another"
            );
        }
        self.specs.push(spec);
        if text.starts_with("mon:") {
            self.monitors.push(MonitorPlan {
                stream: id.to_owned(),
                is_qmp: false,
                is_pretty: false,
            });
        }
        Ok(Some(id.to_owned()))
    }

    fn need(&self, option: &str, id: &str) -> Result<()> {
        if self.has(id) {
            return Ok(());
        }
        let hint = match nearest(id, self.specs.iter().map(|spec| spec.id.as_str())) {
            Some(near) => format!("did you mean '{near}'?"),
            None => "add '-chardev'".to_owned(),
        };
        bail!("{option}: there is no character device named '{id}'; {hint}");
    }
}

/// Checks all streams.
///
/// # Errors
/// The first mistake.
pub fn plan(config: &Config) -> Result<Streams> {
    let wanted = config.streams();
    let mut streams = Streams::default();
    for opts in &config.chardevs {
        streams.specs.push(CharSpec::from_opts("-chardev", opts)?);
    }
    for (index, text) in wanted.serials.iter().enumerate() {
        let stream = streams.short("-serial", &format!("serial{index}"), text)?;
        streams.serials.push(stream);
    }
    for (index, text) in wanted.parallels.iter().enumerate() {
        let stream = streams.short("-parallel", &format!("parallel{index}"), text)?;
        streams.parallels.push(stream);
    }
    if let Some(text) = &config.debugcon {
        streams.debugcon = streams.short("-debugcon", "debugcon", text)?;
    }
    let mut shorts = 0;
    for monitor in &wanted.monitors {
        let option = if monitor.is_qmp { "-qmp" } else { "-monitor" };
        let stream = match &monitor.stream {
            StreamRef::Id(id) => {
                streams.need("-mon", id)?;
                Some(id.clone())
            }
            StreamRef::Short(text) => {
                let id = format!("compat_monitor{shorts}");
                shorts += 1;
                // The monitor itself is what a "mon:" would add.
                streams.short(option, &id, text.strip_prefix("mon:").unwrap_or(text))?
            }
        };
        if let Some(stream) = stream {
            streams.monitors.push(MonitorPlan {
                stream,
                is_qmp: monitor.is_qmp,
                is_pretty: monitor.is_pretty,
            });
        }
    }
    let mut ids = BTreeSet::new();
    for spec in &streams.specs {
        if !ids.insert(spec.id.as_str()) {
            return Err(OptionError::DuplicateId {
                option: "-chardev".to_owned(),
                id: spec.id.clone(),
            }
            .into());
        }
    }
    let on_terminal = |spec: &&CharSpec| matches!(spec.kind, CharKind::Stdio { .. });
    if streams.specs.iter().filter(on_terminal).count() > 1 {
        bail!(
            "-serial, -monitor: only one character device can use the terminal; share it: '-serial mon:stdio', or \
             '-chardev stdio,id=ID,mux=on' with 'chardev:ID'"
        );
    }
    streams.is_on_terminal = streams
        .specs
        .iter()
        .any(|spec| on_terminal(&spec) && spec.mux);
    Ok(streams)
}

fn waits(spec: &CharSpec) -> bool {
    matches!(
        &spec.kind,
        CharKind::Socket(SocketSpec {
            server: true,
            wait: true,
            ..
        })
    )
}

/// Opens all streams on the loop. Waits for clients where that is asked for, before the terminal is touched: until
/// then `Ctrl-C` ends the process.
///
/// # Errors
/// The host's reason.
pub fn open(specs: &[CharSpec], handle: &Handle) -> Result<Vec<Arc<Chardev>>> {
    let (first, rest): (Vec<_>, Vec<_>) = specs.iter().partition(|spec| waits(spec));
    let mut chardevs = Vec::new();
    for spec in first.into_iter().chain(rest) {
        chardevs.push(Chardev::open(spec, handle)?);
    }
    Ok(chardevs)
}
