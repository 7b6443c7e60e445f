//! What the user plugs into the machine: `-device`, `-global`, `-drive if=virtio`, `-debugcon`.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};
use control_options::Config;
use control_options::config::Global;
use hw_core::{Args, BusKind, DeviceClass, PropType};
use machine_core::{DeviceSpec, GlobalSpec, MachineDef};

use crate::devices;
use crate::objects::Object;
use crate::storage::{Disks, Interface, drive_of_its_own};
use crate::streams::Streams;

fn check_bus(class: &DeviceClass, machine: &MachineDef) -> Result<()> {
    if class.bus == BusKind::System || machine.buses.contains(&class.bus) {
        return Ok(());
    }
    let stem = class
        .name
        .strip_suffix("-pci")
        .or_else(|| class.name.strip_suffix("-device"));
    let other = stem
        .map(|stem| format!("{stem}{}", machine.virtio_form))
        .filter(|name| name != class.name)
        .and_then(|name| devices::find(&name))
        .filter(|class| machine.buses.contains(&class.bus));
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

/// What devices can be linked to.
pub(super) struct Backends<'a> {
    pub(super) streams: &'a Streams,
    pub(super) disks: &'a Disks,
    pub(super) objects: &'a [Object],
}

/// What each of the machine's flash chips stores in: `-drive if=pflash` or `-machine pflash0=`.
pub(super) fn flash(
    machine: &MachineDef,
    props: &[(String, String)],
    disks: &Disks,
) -> Result<Vec<Option<String>>> {
    let mut chips = vec![None; machine.flash_chips];
    for drive in &disks.drives {
        if drive.interface != Interface::Flash {
            continue;
        }
        let chip = usize::try_from(drive.unit).unwrap_or(usize::MAX);
        let Some(slot) = chips.get_mut(chip) else {
            bail!(
                "-drive if=pflash,unit={chip}: machine '{}' has {}",
                machine.name,
                match machine.flash_chips {
                    0 => "no flash chips".to_owned(),
                    n => format!("{n} flash chips, units 0 to {}", n.saturating_sub(1)),
                }
            );
        };
        *slot = Some(drive.id.clone());
    }
    for (chip, (slot, prop)) in chips.iter_mut().zip(machine.flash_props()).enumerate() {
        let given = props.iter().rev().find(|(name, _)| name == prop.name);
        let Some((_, id)) = given.filter(|(_, id)| !id.is_empty()) else {
            continue;
        };
        if slot.is_some() {
            bail!(
                "-machine: '{}={id}' and '-drive if=pflash,unit={chip}' are both for one chip; leave one out",
                prop.name
            );
        }
        let ids = disks.ids();
        if !ids.contains(&id.as_str()) {
            let hint = match hw_core::nearest(id, ids.iter().copied()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("add '-blockdev file,node-name={id},filename=FILE'"),
            };
            bail!(
                "-machine: there is no node named '{id}' for '{}'; {hint}",
                prop.name
            );
        }
        *slot = Some(id.clone());
    }
    Ok(chips)
}

/// All devices beside the board's own, in the order of the command line; disks with `if=virtio` after them.
pub(super) fn devices_of(
    config: &Config,
    machine: &MachineDef,
    flash: &[Option<String>],
    backends: &Backends<'_>,
) -> Result<Vec<DeviceSpec>> {
    let mut all = Vec::new();
    let mut serial = 0;
    let mut taken = BTreeSet::new();
    for id in flash.iter().flatten() {
        if !taken.insert(("drive", id.clone())) {
            bail!("-machine: drive '{id}' is for two flash chips; give each its own");
        }
    }
    for (n, opts) in config.devices.iter().enumerate() {
        let driver = opts.text("driver").unwrap_or_default();
        let class = devices::creatable("-device", driver)?;
        check_bus(class, machine)?;
        let drive = drive_of_its_own(opts, n);
        let own = own_serial(class, &mut serial);
        let given = opts
            .iter()
            .filter(|(key, _)| *key != "driver")
            .map(|(key, value)| (key, value.text()));
        let given: Vec<_> = (own.iter().map(|serial| ("serial", serial.as_str())))
            .chain(drive.iter().map(|id| ("drive", id.as_str())))
            .chain(given)
            .collect();
        let args = args(config, class, &given)?;
        check_links(class, &args, backends)?;
        take_links(class, &args, &mut taken)?;
        all.push(DeviceSpec {
            class,
            id: opts.id().map(str::to_owned),
            bus: opts.text("bus").map(str::to_owned),
            args,
        });
    }
    if let Some(stream) = &backends.streams.debugcon {
        let class = devices::creatable("-debugcon", "isa-debugcon")?;
        check_bus(class, machine)?;
        let args = args(config, class, &[("chardev", stream), ("iobase", "0xe9")])?;
        all.push(own(class, args));
    }
    for drive in &backends.disks.drives {
        let (name, bus) = match drive.interface {
            Interface::None | Interface::Flash => continue,
            Interface::Virtio => (format!("virtio-blk{}", machine.virtio_form), None),
            Interface::Ide => {
                let name = if drive.is_cd { "ide-cd" } else { "ide-hd" };
                (name.to_owned(), Some(format!("ide.{}", drive.bus)))
            }
            Interface::Scsi => {
                if !all.iter().any(|device| is_scsi_adapter(device.class)) {
                    bail!(
                        "-drive {}: 'if=scsi' needs a SCSI controller; add '-device virtio-scsi{}'",
                        drive.id,
                        machine.virtio_form
                    );
                }
                let name = if drive.is_cd { "scsi-cd" } else { "scsi-hd" };
                (name.to_owned(), None)
            }
        };
        let class = devices::creatable("-drive", &name)?;
        check_bus(class, machine)?;
        let unit = drive.unit.to_string();
        let serial = drive.serial.clone().or(own_serial(class, &mut serial));
        let mut given = vec![("drive", drive.id.as_str())];
        given.extend((serial.as_deref()).map(|serial| ("serial", serial)));
        match drive.interface {
            Interface::Ide => given.push(("unit", &unit)),
            Interface::Scsi => given.push(("scsi-id", &unit)),
            _ => {}
        }
        let args = args(config, class, &given)?;
        take_links(class, &args, &mut taken)?;
        all.push(DeviceSpec {
            bus,
            ..own(class, args)
        });
    }
    Ok(all)
}

fn is_scsi_adapter(class: &DeviceClass) -> bool {
    class.name.starts_with("virtio-scsi")
}

/// The serial number of an IDE drive that is given none: guests know their disks by it.
fn own_serial(class: &DeviceClass, last: &mut u32) -> Option<String> {
    (class.bus == BusKind::Ide).then(|| {
        *last += 1;
        format!("QM{last:05}")
    })
}

fn own(class: &'static DeviceClass, args: Args) -> DeviceSpec {
    DeviceSpec {
        class,
        id: None,
        bus: None,
        args,
    }
}

/// Properties that can only have one value until there is what another would need.
const UNMET: &[(&str, &str)] = &[("acpi-index", "0")];

fn check_met(option: &str, class: &DeviceClass, args: &Args) -> Result<()> {
    for (name, met) in UNMET {
        if let Some(value) = args.text(name).filter(|value| value != met) {
            bail!(
                "{option} {}: '{name}={value}' is not available yet; use '{met}', or leave it out",
                class.name
            );
        }
    }
    Ok(())
}

fn args(config: &Config, class: &'static DeviceClass, given: &[(&str, &str)]) -> Result<Args> {
    device_args("-device", &config.globals, class, given)
}

/// A device's properties: those of `-global` first, so that its own win.
pub(crate) fn device_args(
    option: &str,
    globals: &[Global],
    class: &'static DeviceClass,
    given: &[(&str, &str)],
) -> Result<Args> {
    let globals = globals
        .iter()
        .filter(|g| g.driver == class.name || class.aliases.contains(&g.driver.as_str()))
        .map(|g| (g.property.as_str(), g.value.as_str()));
    let args = Args::new(class, globals.chain(given.iter().copied()));
    let args = args.map_err(|e| anyhow!("{option}: {e}"))?;
    check_met(option, class, &args)?;
    Ok(args)
}

/// All `-global`s, each of a device and a property that there are.
pub(super) fn globals(config: &Config) -> Result<Vec<GlobalSpec>> {
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
        check_met("-global", class, &args)?;
        all.push(spec);
    }
    Ok(all)
}

/// Every back end that a device names must be there.
fn check_links(class: &DeviceClass, args: &Args, backends: &Backends<'_>) -> Result<()> {
    let Backends {
        streams,
        disks,
        objects,
    } = backends;
    for prop in class.props {
        let (PropType::Link(kind), Some(id)) = (prop.ty, args.text(prop.name)) else {
            continue;
        };
        let ids: Vec<&str> = match kind {
            "chardev" => streams.specs.iter().map(|spec| spec.id.as_str()).collect(),
            "drive" | "medium" => disks.ids(),
            "rng" => objects.iter().filter_map(Object::rng_id).collect(),
            "iothread" => objects.iter().filter_map(Object::io_thread_id).collect(),
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
            "-device {}: there is no {} with the id '{id}'; {hint}",
            class.name,
            if kind == "medium" { "drive" } else { kind },
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
        if let (PropType::Link(kind @ ("drive" | "medium" | "rng")), Some(id)) =
            (prop.ty, args.text(prop.name))
        {
            let kind = if kind == "medium" { "drive" } else { kind };
            if taken.insert((kind, id.to_owned())) {
                continue;
            }
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
        "drive" | "medium" => format!("-drive if=none,id={id},format=raw,file=FILE"),
        "iothread" => format!("-object iothread,id={id}"),
        _ => format!("-object rng-random,id={id}"),
    }
}
