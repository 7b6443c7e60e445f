//! Every class of device there is, under random traffic: it ends in a value or a fault, never in a
//! panic or a hang.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use hw_core::{BusKind, DeviceClass, PropType};
use test_saved::{Rig, Traffic};

/// Steps with each seed. Twenty times as many found no more when this was written.
const STEPS: usize = 50_000;
const SEEDS: u64 = 3;

/// Classes that no machine here has.
const ELSEWHERE: &[&str] = &["reset-control"];

/// The options for one device of a class, with a back end for each link.
fn options(class: &DeviceClass, disk: &str, args: &mut Vec<String>) -> Result<()> {
    let id = class.name.replace('-', "_");
    let mut device = class.name.to_owned();
    for prop in class.props {
        let PropType::Link(kind) = prop.ty else {
            continue;
        };
        let (option, value) = match kind {
            "chardev" => ("-chardev", format!("ringbuf,id={id}_stream")),
            "rng" => ("-object", format!("rng-builtin,id={id}_rng")),
            "iothread" => ("-object", format!("iothread,id={id}_thread")),
            "drive" | "medium" => {
                let drive = format!("{id}_disk");
                let file = format!("{disk}-{drive}");
                std::fs::write(&file, vec![0; 1 << 20])?;
                (
                    "-drive",
                    format!("if=none,id={drive},format=raw,file={file}"),
                )
            }
            other => bail!("{}: no back end for a link of kind '{other}'", class.name),
        };
        let backend = value.split(',').find_map(|word| word.strip_prefix("id="));
        device += &format!(",{}={}", prop.name, backend.unwrap_or_default());
        args.extend([option.to_owned(), value]);
    }
    // Some cannot do without.
    if class.props.iter().any(|prop| prop.name == "serial") {
        device += ",serial=S1";
    }
    args.extend(["-device".to_owned(), device]);
    Ok(())
}

/// A machine with everything that can be plugged into it, under traffic. Returns its classes.
fn stands_traffic(
    accelerator: &str,
    machine: &str,
    buses: &[BusKind],
    regions: &[&str],
) -> Result<BTreeSet<&'static str>> {
    let folder = std::env::temp_dir().join(format!(
        "test-traffic-{}-{accelerator}-{}",
        std::process::id(),
        machine.replace(',', "-")
    ));
    std::fs::create_dir_all(&folder)?;
    let disk = folder.join("disk").display().to_string();
    let bios = folder.join("bios");
    std::fs::write(&bios, vec![0xf4; 0x1_0000])?;
    let mut args: Vec<String> = ["-machine", machine, "-smp", "2", "-m", "8"]
        .map(str::to_owned)
        .to_vec();
    args.extend(["-bios".to_owned(), bios.display().to_string()]);
    let mut classes: Vec<_> = mimic::devices::classes()
        .filter(|class| class.user_creatable && buses.contains(&class.bus))
        // Ports are on PCI Express only.
        .filter(|class| class.name != "pcie-root-port" || !machine.starts_with("pc"))
        .collect();
    // What has a bus comes before what is on it.
    classes.sort_by_key(|class| class.bus);
    for class in classes {
        options(class, &disk, &mut args)?;
    }
    let (mut seen, mut reached) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..SEEDS {
        let rig = Rig::on(accelerator, &args)?;
        seen.extend(rig.machine().fabric().parts().iter().map(|part| part.class));
        reached.extend(Traffic::new(rig.machine(), seed).run(STEPS));
    }
    std::fs::remove_dir_all(&folder)?;
    // The traffic is none if it never enables a device and places it.
    for name in regions {
        assert!(reached.contains(*name), "{machine}: {name} of {reached:?}");
    }
    Ok(seen)
}

#[test]
fn every_class_of_device_stands_random_traffic() -> Result<()> {
    let mut seen = BTreeSet::new();
    let pc = [
        BusKind::Isa,
        BusKind::Pci,
        BusKind::VirtioSerial,
        BusKind::Ide,
        BusKind::Scsi,
        BusKind::Nvme,
    ];
    let placed = [
        "ahci",
        "virtio-blk-pci",
        "virtio-blk-pci-modern",
        "virtio-serial-pci-msix",
        "virtio-scsi-pci-modern",
        "nvme",
        "serial",
    ];
    seen.extend(stands_traffic("tcg", "pc,i8042=off", &pc, &placed)?);
    seen.extend(stands_traffic("tcg", "q35,i8042=off", &pc, &placed)?);
    if test_boot::has_kvm() {
        seen.extend(stands_traffic("kvm", "pc,i8042=off", &pc, &placed)?);
    } else {
        seen.insert("kvm-pit");
    }
    let microvm = [
        BusKind::Isa,
        BusKind::Virtio,
        BusKind::VirtioSerial,
        BusKind::Scsi,
    ];
    seen.extend(stands_traffic(
        "tcg",
        "microvm",
        &microvm,
        &["virtio-mmio", "acpi-ged"],
    )?);
    let virt = [BusKind::Pci, BusKind::Virtio, BusKind::VirtioSerial];
    let placed = ["virtio-blk-pci", "virtio-mmio", "pl011", "pcie-mmcfg"];
    for machine in ["virt,acpi=off", "virt,gic-version=3"] {
        seen.extend(stands_traffic("tcg", machine, &virt, &placed)?);
    }
    let missing: Vec<_> = mimic::devices::classes()
        .map(|class| class.name)
        .filter(|name| !seen.contains(name) && !ELSEWHERE.contains(name))
        .collect();
    assert!(missing.is_empty(), "not in any machine here: {missing:?}");
    Ok(())
}
