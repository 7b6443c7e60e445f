//! From a [`Config`] to the plan of a machine: every name, property and file checked, nothing opened for the guest.

mod machine;
mod memory;
mod plugged;

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use control_options::config::{Display, RtcBase, RtcClock};
use control_options::{Config, Opts, SmpLimits, Topology};
use firmware_load::{Kind as FileKind, identify};
use machine_core::{BootSpec, FileSpec, MachineSpec, RtcSpec, SemihostingSpec};

use crate::accel;
use crate::guests::{self, Guest};
use crate::objects::{self, Keeping, Object};
use crate::storage::{self, Disks};
use crate::streams::{self, Streams};

use machine::machine_props;
pub(crate) use machine::prop_table;
pub(crate) use plugged::device_args;
use plugged::{Backends, devices_of, flash, globals};

/// Everything a command line asks for, checked.
pub struct Plan {
    /// The guest.
    pub guest: &'static Guest,
    /// The board.
    pub spec: MachineSpec,
    /// What runs its CPUs.
    pub accel: accel::Chosen,
    /// Character streams and monitors.
    pub streams: Streams,
    /// Disk images.
    pub disks: Disks,
    /// Objects.
    pub(crate) objects: Vec<Object>,
    /// How guest memory is kept.
    pub(crate) memory: Keeping,
}

/// Checks a configuration. Reads kernel, initrd and other files that the guest gets whole.
///
/// # Errors
/// The first mistake, in a sentence with the way out.
pub fn plan(config: &Config, guest: &'static Guest) -> Result<Plan> {
    let machine = guest.machine(config.machine.as_deref())?;
    refuse_absent(config)?;
    let props = machine_props(machine, config)?;
    let graphics = props.iter().rev().find(|(name, _)| name == "graphics");
    let has_display = graphics.is_none_or(|(_, value)| value != "off");
    let limits = SmpLimits {
        machine: machine.name,
        max_cpus: machine.max_cpus,
        levels: machine.levels,
    };
    let topology = Topology::resolve(&config.smp, &limits)?;
    let wanted = accel::Wanted {
        guest,
        cpu: config.cpu.as_ref(),
        default_model: machine.default_cpu,
        topology: &topology,
        log_filter: &config.log_filter,
        perf_map: config.perf_map,
    };
    let accel = accel::choose(&config.accels, &wanted)?;
    let objects = objects::plan(config)?;
    let (memory, keeping) = memory::memory(config, &props, &objects)?;
    let streams = streams::plan(config)?;
    let disks = storage::plan(config, machine)?;
    let kernel = kernel(config, guest)?;
    let dtb = dtb(config, guest)?;
    let globals = globals(config)?;
    let flash = flash(machine, &props, &disks)?;
    let devices = devices_of(
        config,
        machine,
        &flash,
        &Backends {
            streams: &streams,
            disks: &disks,
            objects: &objects,
        },
    )?;
    let (boot, mut fw_cfg) = boot(config)?;
    for opts in &config.fw_cfg {
        fw_cfg.push(fw_cfg_entry(opts)?);
    }
    let spec = MachineSpec {
        machine,
        props,
        memory,
        memory_block: None,
        topology,
        initrd: match &config.kernel.initrd {
            Some(path) => Some(read_file("-initrd", path)?),
            None => None,
        },
        kernel,
        dtb,
        append: config.kernel.append.clone().unwrap_or_default(),
        bios: config.kernel.bios.clone(),
        flash,
        firmware_dirs: config.firmware_dirs.iter().map(Into::into).collect(),
        serials: streams.serials.clone(),
        parallels: streams.parallels.clone(),
        globals,
        devices,
        rtc: rtc(config),
        boot,
        fw_cfg,
        semihosting: semihosting(config, guest)?,
        smbios: config.smbios.iter().map(pairs).collect(),
        uuid: config.uuid,
        is_paused: config.paused,
        nographic: config.display != Display::None && streams.is_on_terminal
            || config.display == Display::NoGraphic
            || !has_display,
    };
    Ok(Plan {
        guest,
        spec,
        accel,
        streams,
        disks,
        objects,
        memory: keeping,
    })
}

fn pairs(opts: &Opts) -> Vec<(String, String)> {
    opts.iter()
        .map(|(key, value)| (key.to_owned(), value.text().to_owned()))
        .collect()
}

/// What QEMU has and we do not have yet, or not on PCs.
fn refuse_absent(config: &Config) -> Result<()> {
    if let Some(opts) = config.netdevs.first() {
        let kind = opts.text("type").unwrap_or_default();
        bail!(
            "-netdev {kind}: there are no network back ends yet; leave it out, and use '-nic none'"
        );
    }
    if let Some(nic) = config.nics.first() {
        bail!(
            "{}: there are no network cards yet; use '-nic none'",
            nic.option
        );
    }
    if config.qtest.is_some() || config.qtest_log.is_some() {
        bail!("-qtest: this version of Mimic cannot be driven by qtest yet; leave it out");
    }
    if config.memory.slots > 0 {
        bail!("-m: memory cannot be plugged in yet; leave 'slots' and 'maxmem' out");
    }
    if config.action.watchdog.is_some() {
        bail!(
            "-action: 'watchdog' has no effect, as there are no watchdog devices yet; leave it out"
        );
    }
    if config.only_migratable {
        log::info!("-only-migratable: all devices there are can be saved");
    }
    Ok(())
}

fn read_file(option: &str, path: &str) -> Result<FileSpec> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.is_dir()) {
        bail!("{option} {path}: this is a folder; name a file");
    }
    // For kernels the words that runners of test suites wait for.
    let what = match option {
        "-kernel" => "could not load kernel: cannot read the file",
        _ => "cannot read the file",
    };
    FileSpec::open(path).with_context(|| format!("{option} {path}: {what}"))
}

fn contents(option: &str, path: &str) -> Result<Arc<[u8]>> {
    let file = read_file(option, path)?;
    let bytes = file
        .read()
        .with_context(|| format!("{option} {path}: cannot read the file"))?;
    Ok(bytes.as_slice().into())
}

fn kernel(config: &Config, guest: &Guest) -> Result<Option<FileSpec>> {
    let Some(path) = &config.kernel.kernel else {
        return Ok(None);
    };
    let file = read_file("-kernel", path)?;
    if guest.is(&guests::X86_64)
        && let FileKind::Other { what, advice } = identify(&file.contents("-kernel")?)
    {
        bail!("-kernel {path}: this is {what}, not a kernel that a PC can start; {advice}");
    }
    Ok(Some(file))
}

fn dtb(config: &Config, guest: &Guest) -> Result<Option<FileSpec>> {
    let Some(path) = &config.kernel.dtb else {
        return Ok(None);
    };
    if guest.is(&guests::X86_64) {
        bail!("-dtb: PCs have no device tree; leave it out");
    }
    read_file("-dtb", path).map(Some)
}

fn rtc(config: &Config) -> RtcSpec {
    let now_s = i64::try_from(runtime::time::wall_ns() / 1_000_000_000).unwrap_or(0);
    RtcSpec {
        offset_s: match config.rtc.base {
            RtcBase::LocalTime => runtime::time::utc_offset_s(now_s),
            RtcBase::Utc | RtcBase::At(_) => 0,
        },
        start_s: match config.rtc.base {
            RtcBase::At(seconds) => Some(seconds),
            RtcBase::Utc | RtcBase::LocalTime => None,
        },
        clock: match config.rtc.clock {
            RtcClock::Host => device_rtc::RtcClock::Host,
            RtcClock::Rt => device_rtc::RtcClock::Rt,
            RtcClock::Vm => device_rtc::RtcClock::Vm,
        },
        slew: config.rtc.slew,
    }
}

type Entry = (String, Arc<[u8]>);

/// `-boot`, as the board takes it and as firmware reads it (SeaBIOS, `docs/Runtime_config.md`).
fn boot(config: &Config) -> Result<(BootSpec, Vec<Entry>)> {
    let boot = &config.boot;
    let mut entries: Vec<Entry> = Vec::new();
    if let Some(path) = &boot.splash {
        let bytes = contents("-boot splash", path)?;
        let name = match () {
            () if bytes.starts_with(b"BM") => "bootsplash.bmp",
            () if bytes.starts_with(&[0xff, 0xd8]) => "bootsplash.jpg",
            () => bail!("-boot: '{path}' is no picture that firmware can show; use BMP or JPEG"),
        };
        entries.push((name.to_owned(), bytes));
    }
    if let Some(ms) = boot.splash_time_ms {
        let ms = u16::try_from(ms).map_err(|_| anyhow!("-boot: 'splash-time' is at most 65535"))?;
        entries.push((
            "etc/boot-menu-wait".to_owned(),
            ms.to_le_bytes().as_slice().into(),
        ));
    }
    if let Some(ms) = boot.reboot_timeout_ms {
        // -1, for ever, is all ones.
        let ms = i32::try_from(ms).unwrap_or(-1);
        entries.push((
            "etc/boot-fail-wait".to_owned(),
            ms.to_le_bytes().as_slice().into(),
        ));
    }
    let spec = BootSpec {
        order: boot.order.clone().unwrap_or_default(),
        once: boot.once.clone(),
        menu: boot.menu.unwrap_or(false),
        strict: boot.strict,
    };
    Ok((spec, entries))
}

/// `-semihosting-config`.
fn semihosting(config: &Config, guest: &Guest) -> Result<Option<SemihostingSpec>> {
    let Some(opts) = &config.semihosting else {
        return Ok(None);
    };
    if guest.is(&crate::guests::X86_64) {
        bail!("-semihosting: software of x86_64 has no way to ask the host; leave it out");
    }
    Ok(Some(SemihostingSpec {
        userspace: opts.switch("-semihosting-config", "userspace")? == Some(true),
        chardev: opts.text("chardev").map(str::to_owned),
        arguments: opts.all("arg").map(str::to_owned).collect(),
    }))
}

fn fw_cfg_entry(opts: &Opts) -> Result<Entry> {
    let name = opts.text("name").unwrap_or_default();
    if name.is_empty() || name.len() > 55 {
        bail!("-fw_cfg: 'name' has 1 to 55 characters, such as 'opt/org.example/key'");
    }
    if !name.starts_with("opt/") {
        log::warn!(
            "-fw_cfg {name}: names that do not begin with 'opt/' may clash with the machine's own"
        );
    }
    let bytes: Arc<[u8]> = match (opts.text("string"), opts.text("file")) {
        (Some(text), _) => text.as_bytes().into(),
        (None, Some(path)) => contents("-fw_cfg", path)?,
        (None, None) => {
            bail!("-fw_cfg {name}: 'gen_id' is not available yet; use 'file=...' or 'string=...'")
        }
    };
    Ok((name.to_owned(), bytes))
}
