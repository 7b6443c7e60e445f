//! What a command line says, typed.

use crate::error::OptionError;
use crate::number;
use crate::opts::Opts;
use crate::topology::SmpOpts;

/// Guest memory without `-m`, as QEMU has it.
pub const DEFAULT_MEMORY: u64 = 128 << 20;

/// Everything the command line asks for. Lists are in the order written.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config {
    /// `-machine`'s name, if given.
    pub machine: Option<String>,
    /// `-machine`'s properties, beside the name and the accelerator.
    pub machine_opts: Opts,
    /// Accelerators to try in turn; empty for the default.
    pub accels: Vec<AccelOpt>,
    /// Properties of KVM written as the machine's.
    pub kvm_opts: Opts,
    /// `-cpu`.
    pub cpu: Option<CpuOpt>,
    /// `-smp`, to be resolved with what the machine supports.
    pub smp: SmpOpts,
    /// `-m`.
    pub memory: Memory,
    /// `-kernel`, `-initrd`, `-append`, `-dtb`, `-bios`.
    pub kernel: KernelOpts,
    /// `-L`: folders searched for firmware before the standard ones.
    pub firmware_dirs: Vec<String>,
    /// `-drive` and its short forms.
    pub drives: Vec<Opts>,
    /// `-blockdev`.
    pub blockdevs: Vec<Opts>,
    /// `-add-fd`.
    pub add_fds: Vec<Opts>,
    /// `-snapshot`: writes go to temporary files.
    pub snapshot: bool,
    /// `-device`.
    pub devices: Vec<Opts>,
    /// `-object`; the type is under `qom-type`.
    pub objects: Vec<Opts>,
    /// `-chardev`; the driver is under `backend`.
    pub chardevs: Vec<Opts>,
    /// `-netdev`; the type is under `type`.
    pub netdevs: Vec<Opts>,
    /// `-nic` and `-net`, beside `none`.
    pub nics: Vec<NicOpt>,
    /// `-nic none` or `-net none`: no network card by default.
    pub nic_none: bool,
    /// `-audiodev`.
    pub audiodevs: Vec<Opts>,
    /// `-global`.
    pub globals: Vec<Global>,
    /// `-serial`, as written.
    pub serials: Vec<String>,
    /// `-parallel`, as written.
    pub parallels: Vec<String>,
    /// `-debugcon`, as written.
    pub debugcon: Option<String>,
    /// `-monitor`, `-qmp`, `-mon`.
    pub monitors: Vec<MonitorOpt>,
    /// `-display`, `-nographic`.
    pub display: Display,
    /// `-vga none`.
    pub vga_none: bool,
    /// `-nodefaults`: only what is asked for.
    pub nodefaults: bool,
    /// `-S`: do not start the vCPUs.
    pub paused: bool,
    /// `-action`, `-no-reboot`, `-no-shutdown`.
    pub action: Action,
    /// `-name`.
    pub name: Name,
    /// `-uuid`.
    pub uuid: Option<[u8; 16]>,
    /// `-rtc`.
    pub rtc: Rtc,
    /// `-boot`.
    pub boot: Boot,
    /// `-d`: what to log.
    pub log_items: Vec<String>,
    /// `-dfilter`: first and last addresses of the guest code that is logged.
    pub log_filter: Vec<(u64, u64)>,
    /// `-D`: where to.
    pub log_file: Option<String>,
    /// `-perfmap`.
    pub perf_map: bool,
    /// `-pidfile`.
    pub pidfile: Option<String>,
    /// `-daemonize`.
    pub daemonize: bool,
    /// `-msg timestamp=on`.
    pub msg_timestamp: bool,
    /// `-msg guest-name=on`.
    pub msg_guest_name: bool,
    /// `-overcommit mem-lock=`.
    pub mem_lock: MemLock,
    /// `-overcommit cpu-pm=`.
    pub cpu_pm: bool,
    /// `-mem-path`.
    pub mem_path: Option<String>,
    /// `-mem-prealloc`.
    pub mem_prealloc: bool,
    /// `-smbios`.
    pub smbios: Vec<Opts>,
    /// `-fw_cfg`.
    pub fw_cfg: Vec<Opts>,
    /// `-semihosting-config`, if on.
    pub semihosting: Option<Opts>,
    /// `-sandbox`, if on.
    pub sandbox: Option<Opts>,
    /// `-run-with`.
    pub run_with: Opts,
    /// `-qtest`: the stream, as written.
    pub qtest: Option<String>,
    /// `-qtest-log`.
    pub qtest_log: Option<String>,
    /// `-echr`: the multiplexer's escape key.
    pub escape_key: Option<u8>,
    /// `-seed`: for the machine's randomness.
    pub seed: Option<u64>,
    /// `-only-migratable`.
    pub only_migratable: bool,
}

/// One accelerator to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccelOpt {
    /// Its name.
    pub name: String,
    /// Its properties.
    pub opts: Opts,
}

/// `-cpu`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuOpt {
    /// The model's name.
    pub model: String,
    /// Settings in the order written; `+x` and `-x` come last, as in QEMU.
    pub settings: Vec<CpuSetting>,
}

/// One setting of a CPU model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuSetting {
    /// The feature or property.
    pub name: String,
    /// Its value; `on` for `+x`.
    pub value: String,
}

/// `-m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Bytes at power on.
    pub size: u64,
    /// Whether `-m` gave the size.
    pub is_given: bool,
    /// Slots for hot-plugged memory.
    pub slots: u64,
    /// Bytes with all slots full; equals `size` if not given.
    pub maxmem: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            size: DEFAULT_MEMORY,
            is_given: false,
            slots: 0,
            maxmem: DEFAULT_MEMORY,
        }
    }
}

/// What to boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelOpts {
    /// `-kernel`.
    pub kernel: Option<String>,
    /// `-initrd`.
    pub initrd: Option<String>,
    /// `-append`.
    pub append: Option<String>,
    /// `-dtb`.
    pub dtb: Option<String>,
    /// `-bios`.
    pub bios: Option<String>,
}

/// `-nic` or `-net`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NicOpt {
    /// Which option it was.
    pub option: &'static str,
    /// Its properties; the first is under `type`.
    pub opts: Opts,
}

/// `-global`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Global {
    /// A device class.
    pub driver: String,
    /// A property of it.
    pub property: String,
    /// What it is for all devices that do not say otherwise.
    pub value: String,
}

/// A monitor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonitorOpt {
    /// Its stream.
    pub stream: StreamRef,
    /// For programs (QMP) rather than people.
    pub is_qmp: bool,
    /// QMP with line breaks.
    pub is_pretty: bool,
}

/// A stream named by an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamRef {
    /// A `-chardev`.
    Id(String),
    /// A short form, as written.
    Short(String),
}

/// What is shown where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Display {
    /// Nothing was said: there is no window yet, so the terminal gets the serial port.
    #[default]
    Default,
    /// `-nographic`: the terminal gets the serial port.
    NoGraphic,
    /// `-display none`: nothing, and the terminal stays as it is.
    None,
}

/// What to do when something ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Action {
    /// The guest reboots.
    pub reboot: RebootAction,
    /// The guest powers off.
    pub shutdown: ShutdownAction,
    /// The guest says that it crashed.
    pub panic: PanicAction,
    /// A watchdog fires; `None` if nothing was said.
    pub watchdog: Option<WatchdogAction>,
}

/// `-action reboot=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RebootAction {
    /// Reset the machine.
    #[default]
    Reset,
    /// As if the guest had powered off.
    Shutdown,
}

/// `-action shutdown=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ShutdownAction {
    /// End.
    #[default]
    Poweroff,
    /// Stop the vCPUs and stay.
    Pause,
}

/// `-action panic=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PanicAction {
    /// Carry on.
    None,
    /// Stop the vCPUs.
    Pause,
    /// As if the guest had powered off.
    #[default]
    Shutdown,
    /// End with a failure.
    ExitFailure,
}

/// `-overcommit mem-lock=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemLock {
    /// The host may swap it out.
    #[default]
    Off,
    /// All of it is taken from the host at once, and stays.
    On,
    /// What was used stays.
    OnFault,
}

/// `-action watchdog=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WatchdogAction {
    /// Reset the machine.
    #[default]
    Reset,
    /// Ask the guest to power off.
    Shutdown,
    /// End.
    Poweroff,
    /// Stop the vCPUs.
    Pause,
    /// Say so.
    Debug,
    /// Carry on.
    None,
    /// Send an NMI.
    InjectNmi,
}

/// `-name`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Name {
    /// The machine's.
    pub guest: Option<String>,
    /// The process's.
    pub process: Option<String>,
    /// Whether threads are named for the debugger. They always are.
    pub debug_threads: bool,
}

/// `-rtc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rtc {
    /// The time at power on.
    pub base: RtcBase,
    /// What drives it.
    pub clock: RtcClock,
    /// Whether lost ticks are made up for.
    pub slew: bool,
}

/// The real time clock's time at power on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RtcBase {
    /// The host's, in UTC.
    #[default]
    Utc,
    /// The host's, in its time zone.
    LocalTime,
    /// Seconds since 1970.
    At(i64),
}

/// What drives the real time clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RtcClock {
    /// The host's wall clock.
    #[default]
    Host,
    /// The host's monotonic clock.
    Rt,
    /// Virtual time.
    Vm,
}

/// `-boot`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Boot {
    /// Drive letters.
    pub order: Option<String>,
    /// Drive letters for the first boot.
    pub once: Option<String>,
    /// The firmware's menu.
    pub menu: Option<bool>,
    /// Picture file.
    pub splash: Option<String>,
    /// How long to show it, in milliseconds.
    pub splash_time_ms: Option<u64>,
    /// How long to wait after a failure; -1 for ever.
    pub reboot_timeout_ms: Option<i64>,
    /// Try nothing that is not listed.
    pub strict: bool,
}

/// The streams a machine has after defaults: what QEMU's start-up does with `-serial`, `-monitor` and the display.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Streams {
    /// Serial ports; `none` leaves a port out.
    pub serials: Vec<String>,
    /// Parallel ports.
    pub parallels: Vec<String>,
    /// Monitors.
    pub monitors: Vec<MonitorOpt>,
    /// Whether the terminal has a serial port because nobody said otherwise.
    pub terminal_by_default: bool,
}

impl Config {
    /// The streams with QEMU's defaults filled in.
    pub fn streams(&self) -> Streams {
        let mut streams = Streams {
            serials: self.serials.clone(),
            parallels: self.parallels.clone(),
            monitors: self.monitors.clone(),
            terminal_by_default: false,
        };
        // An explicit device takes the place of the default one.
        let has = |driver: &str| {
            self.devices
                .iter()
                .any(|d| d.text("driver") == Some(driver))
        };
        let serial = self.serials.is_empty() && !self.nodefaults && !has("isa-serial");
        let monitor = self.monitors.is_empty() && !self.nodefaults;
        let terminal = self.display != Display::None && !self.daemonize;
        let stdio_taken = self.uses_stdio();
        let hmp = |text: &str| MonitorOpt {
            stream: StreamRef::Short(text.to_owned()),
            is_qmp: false,
            is_pretty: false,
        };
        match (serial, monitor) {
            (true, _) if !terminal || stdio_taken => streams.serials.push("null".to_owned()),
            (true, true) => streams.serials.push("mon:stdio".to_owned()),
            (true, false) => streams.serials.push("stdio".to_owned()),
            (false, true) if terminal && !stdio_taken && self.display == Display::NoGraphic => {
                streams.monitors.push(hmp("stdio"));
            }
            (false, _) => {}
        }
        streams.terminal_by_default = serial && terminal && !stdio_taken;
        streams
    }

    /// Whether any stream is asked to be the terminal.
    pub(crate) fn uses_stdio(&self) -> bool {
        let is_stdio = |text: &String| text == "stdio" || text == "mon:stdio";
        let short = |m: &MonitorOpt| matches!(&m.stream, StreamRef::Short(text) if is_stdio(text));
        self.serials.iter().chain(&self.parallels).any(is_stdio)
            || self.debugcon.as_ref().is_some_and(is_stdio)
            || self.monitors.iter().any(short)
            || self
                .chardevs
                .iter()
                .any(|c| c.text("backend") == Some("stdio"))
    }

    /// Checks that no two things of one kind share an id.
    ///
    /// # Errors
    /// The first id that is used twice.
    pub fn check_ids(&self) -> Result<(), OptionError> {
        let lists = [
            ("-device", &self.devices),
            ("-object", &self.objects),
            ("-chardev", &self.chardevs),
            ("-netdev", &self.netdevs),
            ("-drive", &self.drives),
        ];
        for (option, list) in lists {
            let mut seen = Vec::new();
            for id in list.iter().filter_map(Opts::id) {
                if seen.contains(&id) {
                    return Err(OptionError::DuplicateId {
                        option: option.to_owned(),
                        id: id.to_owned(),
                    });
                }
                seen.push(id);
            }
        }
        Ok(())
    }
}

/// Reads a UUID in its usual form.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    if groups.iter().map(|g| g.len()).ne([8, 4, 4, 4, 12]) {
        return None;
    }
    let digits = groups.concat();
    let mut bytes = [0; 16];
    for (byte, at) in bytes.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    digits
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then_some(bytes)
}

/// Writes a UUID in its usual form.
pub fn show_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}

/// Reads `2006-06-17T16:01:21` or `2006-06-17` as seconds since 1970.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T').unwrap_or((text, "0:0:0"));
    let field = |part: Option<&str>, low: u64, high: u64| {
        // Leading zeros are not octal here.
        let digits = part?.trim_start_matches('0');
        let value = if digits.is_empty() {
            0
        } else {
            number::unsigned(digits)?
        };
        (low..=high)
            .contains(&value)
            .then(|| i64::try_from(value).ok())
            .flatten()
    };
    let mut parts = date.split('-');
    let (year, month, day) = (
        field(parts.next(), 1, 9999)?,
        field(parts.next(), 1, 12)?,
        field(parts.next(), 1, 31)?,
    );
    let mut clock = time.split(':');
    let (hour, minute, second) = (
        field(clock.next(), 0, 23)?,
        field(clock.next(), 0, 59)?,
        field(clock.next(), 0, 59)?,
    );
    if parts.next().is_some() || clock.next().is_some() {
        return None;
    }
    // Days since 1970 in the Gregorian calendar, with years that begin in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}
