//! From arguments to a [`Config`].

use crate::config::{Config, Display};
use crate::error::OptionError;
use crate::suggest::Hint;
use crate::table::{self, Arg, OptionDef};

/// What a command line asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Run a machine.
    Run(Box<Config>),
    /// Print something and end; the configuration tells for which machine.
    Help(HelpRequest, Box<Config>),
    /// Print the version and end.
    Version,
}

/// What to print.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HelpRequest {
    /// All options: [`crate::table::help_text`].
    Options,
    /// `-machine help`.
    Machines,
    /// `-machine q35,help`.
    MachineProps(String),
    /// `-cpu help`.
    Cpus,
    /// `-accel help`.
    Accels,
    /// `-accel kvm,help`.
    AccelProps(String),
    /// `-device help`.
    Devices,
    /// `-device X,help`.
    DeviceProps(String),
    /// `-object help`.
    Objects,
    /// `-object X,help`.
    ObjectProps(String),
    /// `-chardev help`.
    Chardevs,
    /// `-chardev X,help`.
    ChardevProps(String),
    /// `-netdev help`, `-nic help`.
    Netdevs,
    /// `-blockdev help`, `-drive format=help`.
    BlockDrivers,
    /// `-display help`.
    Displays,
    /// `-vga help`.
    Vgas,
    /// `-audiodev help`.
    Audiodevs,
    /// `-d help`.
    LogItems,
    /// A property table of the command line itself, ready to print.
    Text(String),
}

/// What parsing builds up.
#[derive(Default, Debug)]
pub(crate) struct Builder {
    pub(crate) config: Config,
    pub(crate) help: Option<HelpRequest>,
    pub(crate) version: bool,
}

impl Builder {
    /// Remembers the first request for help.
    pub(crate) fn ask(&mut self, request: HelpRequest) {
        self.help.get_or_insert(request);
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// The first mistake.
pub fn parse<S: AsRef<str>>(args: &[S]) -> Result<Outcome, OptionError> {
    let mut builder = Builder::default();
    let mut args = args.iter().map(AsRef::as_ref);
    while let Some(arg) = args.next() {
        if arg == "-" || !arg.starts_with('-') {
            (table::DISK_IMAGE.apply)(&mut builder, "disk image", arg)?;
            continue;
        }
        let def = find(arg)?;
        let value = match def.arg {
            Arg::None => "",
            Arg::Needed(form) => args.next().ok_or_else(|| OptionError::NoArgument {
                option: format!("-{}", def.name),
                form: form.to_owned(),
            })?,
        };
        (def.apply)(&mut builder, &format!("-{}", def.name), value)?;
        // These two end the line: what follows is not looked at, as in QEMU.
        if builder.version {
            return Ok(Outcome::Version);
        }
        if builder.help == Some(HelpRequest::Options) {
            break;
        }
    }
    let mut config = Box::new(builder.config);
    // The accelerator's own come last, so that they win.
    for accel in config.accels.iter_mut().filter(|accel| accel.name == "kvm") {
        let own = std::mem::replace(&mut accel.opts, config.kvm_opts.clone());
        own.iter()
            .for_each(|(key, value)| accel.opts.push(key, value.clone()));
    }
    if let Some(request) = builder.help {
        return Ok(Outcome::Help(request, config));
    }
    check(&config)?;
    Ok(Outcome::Run(config))
}

fn find(arg: &str) -> Result<&'static OptionDef, OptionError> {
    // One dash or two, as in QEMU.
    let name = arg
        .strip_prefix("--")
        .or_else(|| arg.strip_prefix('-'))
        .unwrap_or(arg);
    if let Some(def) = table::find(name) {
        return Ok(def);
    }
    // "-smp=4" and "-m=1G" are a common slip.
    if let Some((name, value)) = name.split_once('=')
        && let Some(def) = table::find(name)
        && def.arg != Arg::None
    {
        return Err(OptionError::UnknownOption {
            option: crate::error::shorten(arg),
            hint: Hint::text(format!(
                "write the argument after a space: '-{} {}'",
                def.name,
                crate::error::shorten(value)
            )),
        });
    }
    let hint = match crate::suggest::nearest(name, table::names()) {
        Some(best) => Hint::text(format!("did you mean '-{best}'?")),
        None => Hint::text("'-help' lists them"),
    };
    Err(OptionError::UnknownOption {
        option: crate::error::shorten(arg),
        hint,
    })
}

/// What can only be seen once all is read.
fn check(config: &Config) -> Result<(), OptionError> {
    let fail = |option: &str, problem: &str| Err(OptionError::syntax(option, problem));
    config.check_ids()?;
    let kernel = &config.kernel;
    if kernel.kernel.is_none() {
        if kernel.append.is_some() {
            return fail(
                "-append",
                "a kernel command line needs a kernel: add '-kernel FILE'",
            );
        }
        if kernel.initrd.is_some() {
            return fail(
                "-initrd",
                "an initial RAM disk needs a kernel: add '-kernel FILE'",
            );
        }
    }
    if config.daemonize && config.uses_stdio() {
        return fail(
            "-daemonize",
            "a process in the background has no terminal: use another stream than 'stdio'",
        );
    }
    // With everything else said, -nographic asks for nothing: libvirt writes both.
    let wants_terminal =
        !config.nodefaults && (config.serials.is_empty() || config.monitors.is_empty());
    if config.daemonize && config.display == Display::NoGraphic && wants_terminal {
        return fail(
            "-daemonize",
            "a process in the background has no terminal: write '-display none' instead of '-nographic'",
        );
    }
    let memory = config.memory;
    if memory.maxmem < memory.size {
        return fail(
            "-m",
            "'maxmem' is less than 'size': make it at least as much",
        );
    }
    if memory.slots > 0 && memory.maxmem == memory.size {
        return fail("-m", "'slots' needs a 'maxmem' above 'size'");
    }
    if memory.slots == 0 && memory.maxmem > memory.size {
        return fail(
            "-m",
            "a 'maxmem' above 'size' needs 'slots=N' to put the memory in",
        );
    }
    Ok(())
}
