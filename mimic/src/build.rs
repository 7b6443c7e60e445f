//! From a [`Config`] to the plan of a machine: every name, property and file checked, nothing opened for the guest.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use control_options::config::{Display, RtcBase, RtcClock};
use control_options::topology::Level;
use control_options::{Config, OptionError, Opts, PropDef, PropKind, Props, SmpLimits, Topology};
use firmware_load::{Kind as FileKind, identify};
use hw_core::{Args, BusKind, DeviceClass, Prop, PropType};
use machine_x86::{
    BootSpec, DeviceSpec, FileSpec, GlobalSpec, Kind, MACHINES, MachineDef, PcSpec, RtcSpec,
};

use crate::objects::{self, MemoryFile, Object};
use crate::storage::{self, Disks};
use crate::streams::{self, Streams};
use crate::{accel, devices};

/// Everything a command line asks for, checked.
pub struct Plan {
    /// The board.
    pub spec: PcSpec,
    /// What runs its CPUs.
    pub accel: accel::Chosen,
    /// Character streams and monitors.
    pub streams: Streams,
    /// Disk images.
    pub disks: Disks,
    /// Objects.
    pub(crate) objects: Vec<Object>,
    /// The file that guest memory is in.
    pub(crate) memory_file: Option<MemoryFile>,
}

/// Checks a configuration. Reads kernel, initrd and other files that the guest gets whole.
///
/// # Errors
/// The first mistake, in a sentence with the way out.
pub fn plan(config: &Config) -> Result<Plan> {
    let machine = machine(config.machine.as_deref())?;
    refuse_absent(config)?;
    let props = machine_props(machine, &config.machine_opts)?;
    let limits = SmpLimits {
        machine: machine.name,
        max_cpus: machine.max_cpus,
        levels: &[Level::Dies],
    };
    let topology = Topology::resolve(&config.smp, &limits)?;
    let wanted = accel::Wanted {
        cpu: config.cpu.as_ref(),
        default_model: machine.default_cpu,
        topology: &topology,
    };
    let accel = accel::choose(&config.accels, &wanted)?;
    let objects = objects::plan(config)?;
    let (memory, memory_file) = memory(config, &props, &objects)?;
    let streams = streams::plan(config)?;
    let disks = storage::plan(config, machine.kind)?;
    let kernel = kernel(config)?;
    if kernel.is_none() && machine.kind == Kind::Microvm && config.kernel.bios.is_none() {
        bail!(
            "nothing to boot: machine 'microvm' starts kernels, not disks; add '-kernel FILE', or use '-machine q35'"
        );
    }
    let globals = globals(config)?;
    let devices = devices_of(config, machine, &streams, &disks, &objects)?;
    let (boot, mut fw_cfg) = boot(config)?;
    for opts in &config.fw_cfg {
        fw_cfg.push(fw_cfg_entry(opts)?);
    }
    let spec = PcSpec {
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
        append: config.kernel.append.clone().unwrap_or_default(),
        bios: config.kernel.bios.clone(),
        firmware_dirs: config.firmware_dirs.iter().map(Into::into).collect(),
        serials: streams.serials.clone(),
        parallels: streams.parallels.clone(),
        globals,
        devices,
        rtc: rtc(config),
        boot,
        fw_cfg,
        smbios: config.smbios.iter().map(pairs).collect(),
        uuid: config.uuid,
        nographic: config.display != Display::None && streams.is_on_terminal
            || config.display == Display::NoGraphic,
    };
    Ok(Plan {
        spec,
        accel,
        streams,
        disks,
        objects,
        memory_file,
    })
}

fn pairs(opts: &Opts) -> Vec<(String, String)> {
    opts.iter()
        .map(|(key, value)| (key.to_owned(), value.text().to_owned()))
        .collect()
}

/// The machine of `-machine`, or the default.
///
/// # Errors
/// When there is none of that name.
pub fn machine(name: Option<&str>) -> Result<&'static MachineDef, OptionError> {
    let names = || {
        MACHINES
            .iter()
            .flat_map(|m| std::iter::once(m.name).chain(m.alias))
    };
    let found = match name {
        None => MACHINES.iter().find(|m| m.is_default),
        Some(name) => machine_x86::find(name),
    };
    found.ok_or_else(|| {
        let name = name.unwrap_or_default();
        let collected: Vec<_> = names().collect();
        OptionError::unknown_name("-machine", "machine", name, collected.iter().copied())
    })
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
    if config.kernel.dtb.is_some() {
        bail!("-dtb: PCs have no device tree; leave it out");
    }
    if config.mem_prealloc {
        bail!("-mem-prealloc: taking all memory at once is not available yet; leave it out");
    }
    if config.memory.slots > 0 {
        bail!("-m: memory cannot be plugged in yet; leave 'slots' and 'maxmem' out");
    }
    if config.rtc.clock == RtcClock::Rt {
        bail!(
            "-rtc: 'clock=rt', the host's monotonic clock, is not available yet; use 'host', or 'vm', which stops with \
             the machine"
        );
    }
    if config.rtc.slew {
        bail!(
            "-rtc: 'driftfix=slew' is not available yet: lost ticks are not made up for; use 'none', or leave it out"
        );
    }
    if config.action.watchdog.is_some() {
        bail!(
            "-action: 'watchdog' has no effect, as there are no watchdog devices yet; leave it out"
        );
    }
    for (key, value) in config.run_with.iter() {
        let instead = match key {
            "exit-with-parent" => continue,
            _ if value.text() == "off" => continue,
            "user" => "start Mimic as that user",
            "chroot" => "start Mimic inside that folder",
            _ => "leave it out",
        };
        bail!("-run-with: '{key}' is not available yet; {instead}");
    }
    if config.only_migratable {
        log::info!("-only-migratable: all devices there are can be saved");
    }
    Ok(())
}

/// The type of a property as the options' own tables have it.
fn kind_of(prop: &Prop) -> PropKind {
    match prop.ty {
        PropType::Bool => PropKind::Bool,
        PropType::OnOffAuto => PropKind::OnOffAuto,
        PropType::U8 => PropKind::U8,
        PropType::U16 => PropKind::U16,
        PropType::U32 => PropKind::U32,
        PropType::U64 => PropKind::U64,
        PropType::I32 => PropKind::I32,
        PropType::Size => PropKind::Size,
        PropType::Mac => PropKind::Mac,
        PropType::Enum(words) => PropKind::Enum(words),
        PropType::Link(what) => PropKind::Link(what),
        PropType::Str | PropType::PciAddress => PropKind::Str,
    }
}

/// A machine's properties as the options' own tables have them.
pub(crate) fn prop_table(props: &[Prop]) -> Vec<PropDef> {
    props
        .iter()
        .map(|prop| PropDef {
            name: prop.name,
            kind: kind_of(prop),
            default: (!prop.default.is_empty()).then_some(prop.default),
            required: false,
            doc: prop.doc,
        })
        .collect()
}

fn machine_props(machine: &MachineDef, opts: &Opts) -> Result<Vec<(String, String)>> {
    Props::check(
        "-machine",
        &format!("machine '{}'", machine.name),
        opts,
        &prop_table(machine.props),
    )?;
    Ok(pairs(opts))
}

/// Bytes of guest memory, from `-m` or the backend that the machine names, and the file they are in.
fn memory(
    config: &Config,
    props: &[(String, String)],
    objects: &[Object],
) -> Result<(u64, Option<MemoryFile>)> {
    let mut size = config.memory.size;
    let mut in_file = config.mem_path.as_ref().map(|path| MemoryFile {
        option: "-mem-path".to_owned(),
        path: path.clone(),
        is_shared: false,
    });
    let backend = props
        .iter()
        .rev()
        .find(|(name, _)| name == "memory-backend");
    if let Some((_, wanted)) = backend {
        let found = objects.iter().find_map(|object| match object {
            Object::Memory { id, size, file } if id == wanted => Some((*size, file)),
            _ => None,
        });
        let Some((bytes, file)) = found else {
            bail!(
                "-machine: there is no memory backend with the id '{wanted}'; add '-object memory-backend-ram,id={wanted},size=...'"
            );
        };
        if config.memory.is_given && bytes != size {
            bail!(
                "-machine: memory backend '{wanted}' has {bytes} bytes, but -m asks for {size}; make them equal or \
                 leave -m out"
            );
        }
        if in_file.is_some() {
            bail!(
                "-mem-path: the machine's memory is memory backend '{wanted}'; give that a 'mem-path', or leave one of \
                 the two out"
            );
        }
        size = bytes;
        in_file = file.clone();
    }
    if let Some(host) = host_memory()
        && size > host
    {
        bail!(
            "-m: {} MiB of guest memory are more than this host has ({} MiB with swap); ask for less",
            size >> 20,
            host >> 20
        );
    }
    Ok((size, in_file))
}

/// Bytes of memory and swap of the host.
fn host_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = rest.trim().trim_end_matches("kB").trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(field("MemTotal:")?.saturating_add(field("SwapTotal:").unwrap_or(0)))
}

fn read_file(option: &str, path: &str) -> Result<FileSpec> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.is_dir()) {
        bail!("{option} {path}: this is a folder; name a file");
    }
    let bytes =
        std::fs::read(path).with_context(|| format!("{option} {path}: cannot read the file"))?;
    Ok(FileSpec {
        path: path.to_owned(),
        bytes: bytes.into(),
    })
}

fn kernel(config: &Config) -> Result<Option<FileSpec>> {
    let Some(path) = &config.kernel.kernel else {
        return Ok(None);
    };
    let file = read_file("-kernel", path)?;
    if let FileKind::Other { what, advice } = identify(&file.bytes) {
        bail!("-kernel {path}: this is {what}, not a kernel that a PC can start; {advice}");
    }
    Ok(Some(file))
}

/// The buses of a kind of machine that users can plug into.
fn buses(kind: Kind) -> &'static [BusKind] {
    match kind {
        Kind::Pc | Kind::Q35 => &[BusKind::Isa, BusKind::Pci, BusKind::VirtioSerial],
        Kind::Microvm => &[BusKind::Isa, BusKind::Virtio, BusKind::VirtioSerial],
        Kind::None => &[],
    }
}

/// The form of a virtio device that a kind of machine takes.
fn virtio_form(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Microvm => format!("{name}-device"),
        Kind::Pc | Kind::Q35 | Kind::None => format!("{name}-pci"),
    }
}

fn check_bus(class: &DeviceClass, machine: &MachineDef) -> Result<()> {
    if class.bus == BusKind::System || buses(machine.kind).contains(&class.bus) {
        return Ok(());
    }
    let stem = class
        .name
        .strip_suffix("-pci")
        .or_else(|| class.name.strip_suffix("-device"));
    let other = stem
        .map(|stem| virtio_form(machine.kind, stem))
        .filter(|name| name != class.name)
        .and_then(|name| devices::find(&name))
        .filter(|class| buses(machine.kind).contains(&class.bus));
    let hint = match (other, class.bus) {
        (Some(other), _) => format!("use '{}'", other.name),
        (None, BusKind::Virtio) => "use '-machine microvm', or the device's '-pci' form".to_owned(),
        (None, BusKind::Pci) => "use '-machine q35' or 'pc'".to_owned(),
        (None, _) => "use '-machine q35', 'pc' or 'microvm'".to_owned(),
    };
    bail!(
        "-device {}: machine '{}' has no {} bus; {hint}",
        class.name,
        machine.name,
        class.bus.name()
    );
}

/// All devices beside the board's own, in the order of the command line; disks with `if=virtio` after them.
fn devices_of(
    config: &Config,
    machine: &MachineDef,
    streams: &Streams,
    disks: &Disks,
    objects: &[Object],
) -> Result<Vec<DeviceSpec>> {
    let mut all = Vec::new();
    let mut taken = BTreeSet::new();
    for opts in &config.devices {
        let driver = opts.text("driver").unwrap_or_default();
        let class = devices::creatable("-device", driver)?;
        check_bus(class, machine)?;
        let given: Vec<_> = opts
            .iter()
            .filter(|(key, _)| *key != "driver")
            .map(|(key, value)| (key, value.text()))
            .collect();
        let args = args(config, class, &given)?;
        check_links(class, &args, streams, disks, objects)?;
        take_links(class, &args, &mut taken)?;
        all.push(DeviceSpec {
            class,
            id: opts.id().map(str::to_owned),
            bus: opts.text("bus").map(str::to_owned),
            args,
        });
    }
    if let Some(stream) = &streams.debugcon {
        let class = devices::creatable("-debugcon", "isa-debugcon")?;
        check_bus(class, machine)?;
        let args = args(config, class, &[("chardev", stream), ("iobase", "0xe9")])?;
        all.push(own(class, args));
    }
    for id in &disks.own_device {
        let class = devices::creatable("-drive", &virtio_form(machine.kind, "virtio-blk"))?;
        check_bus(class, machine)?;
        let mut given = vec![("drive", id.as_str())];
        given.extend(
            disks
                .serials
                .get(id)
                .map(|serial| ("serial", serial.as_str())),
        );
        let args = args(config, class, &given)?;
        take_links(class, &args, &mut taken)?;
        all.push(own(class, args));
    }
    Ok(all)
}

fn own(class: &'static DeviceClass, args: Args) -> DeviceSpec {
    DeviceSpec {
        class,
        id: None,
        bus: None,
        args,
    }
}

/// A device's properties: those of `-global` first, so that its own win.
fn args(config: &Config, class: &'static DeviceClass, given: &[(&str, &str)]) -> Result<Args> {
    let globals = config
        .globals
        .iter()
        .filter(|g| g.driver == class.name || class.aliases.contains(&g.driver.as_str()))
        .map(|g| (g.property.as_str(), g.value.as_str()));
    let args = Args::new(class, globals.chain(given.iter().copied()));
    args.map_err(|e| anyhow!("-device: {e}"))
}

/// All `-global`s, each of a device and a property that there are.
fn globals(config: &Config) -> Result<Vec<GlobalSpec>> {
    let mut all = Vec::new();
    for global in &config.globals {
        let class = devices::known("-global", &global.driver)?;
        let (property, value) = (global.property.as_str(), global.value.as_str());
        let args = Args::new(class, [(property, value)]).map_err(|e| anyhow!("-global: {e}"))?;
        let spec = GlobalSpec {
            class,
            property: global.property.clone(),
            value: global.value.clone(),
        };
        if !spec.is_free() {
            bail!(
                "-global {}: '{property}' is set by the machine that the device is part of; leave it out",
                class.name
            );
        }
        if let Some(policy) = args.text("lost_tick_policy").filter(|p| *p != "discard") {
            bail!(
                "-global {}: 'lost_tick_policy={policy}' is not available yet; use 'discard', or leave it out",
                class.name
            );
        }
        all.push(spec);
    }
    Ok(all)
}

/// Every back end that a device names must be there.
fn check_links(
    class: &DeviceClass,
    args: &Args,
    streams: &Streams,
    disks: &Disks,
    objects: &[Object],
) -> Result<()> {
    for prop in class.props {
        let (PropType::Link(kind), Some(id)) = (prop.ty, args.text(prop.name)) else {
            continue;
        };
        let ids: Vec<&str> = match kind {
            "chardev" => streams.specs.iter().map(|spec| spec.id.as_str()).collect(),
            "drive" => disks.images.iter().map(|image| image.id.as_str()).collect(),
            "rng" => objects.iter().filter_map(Object::rng_id).collect(),
            _ => continue,
        };
        if ids.contains(&id) {
            continue;
        }
        let hint = match hw_core::nearest(id, ids.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("add '{}'", adding(kind, id)),
        };
        bail!(
            "-device {}: there is no {kind} with the id '{id}'; {hint}",
            class.name
        );
    }
    Ok(())
}

/// Disks and sources of randomness have one user each. Streams say themselves whether they can be shared.
fn take_links(
    class: &DeviceClass,
    args: &Args,
    taken: &mut BTreeSet<(&'static str, String)>,
) -> Result<()> {
    for prop in class.props {
        if let (PropType::Link(kind @ ("drive" | "rng")), Some(id)) =
            (prop.ty, args.text(prop.name))
            && !taken.insert((kind, id.to_owned()))
        {
            bail!(
                "-device {}: {kind} '{id}' is in use by another device; give each its own",
                class.name
            );
        }
    }
    Ok(())
}

fn adding(kind: &str, id: &str) -> String {
    match kind {
        "chardev" => format!("-chardev null,id={id}"),
        "drive" => format!("-drive if=none,id={id},format=raw,file=FILE"),
        _ => format!("-object rng-random,id={id}"),
    }
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
        virtual_time: config.rtc.clock == RtcClock::Vm,
    }
}

type Entry = (String, Arc<[u8]>);

/// `-boot`, as the board takes it and as firmware reads it (SeaBIOS, `docs/Runtime_config.md`).
fn boot(config: &Config) -> Result<(BootSpec, Vec<Entry>)> {
    let boot = &config.boot;
    let mut entries: Vec<Entry> = Vec::new();
    if let Some(path) = &boot.splash {
        let file = read_file("-boot splash", path)?;
        let name = match () {
            () if file.bytes.starts_with(b"BM") => "bootsplash.bmp",
            () if file.bytes.starts_with(&[0xff, 0xd8]) => "bootsplash.jpg",
            () => bail!("-boot: '{path}' is no picture that firmware can show; use BMP or JPEG"),
        };
        entries.push((name.to_owned(), file.bytes));
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
    if boot.once.is_some() {
        bail!("-boot: 'once' is not available yet; use 'order'");
    }
    let spec = BootSpec {
        order: boot.order.clone().unwrap_or_default(),
        menu: boot.menu.unwrap_or(false),
        strict: boot.strict,
    };
    Ok((spec, entries))
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
        (None, Some(path)) => read_file("-fw_cfg", path)?.bytes,
        (None, None) => {
            bail!("-fw_cfg {name}: 'gen_id' is not available yet; use 'file=...' or 'string=...'")
        }
    };
    Ok((name.to_owned(), bytes))
}
