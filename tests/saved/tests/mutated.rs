//! Mutated sections end in errors, or in machines that go on.

use anyhow::Result;
use test_boot::kernels;
use test_saved::{Rig, Storm, through_bytes};

/// Mutations of every section. A hundred times as many found no more when this was written.
const CASES: usize = 60;

/// A small guest that has said its words, on this machine; its sections mutated.
fn a_storm_leaves_it_standing(machine: &str, devices: &[&str], seed: u64) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("test-saved-{}-{machine}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let kernel = folder.join("kernel");
    std::fs::write(
        &kernel,
        kernels::hello_and_halt(&"here I am ".repeat(10_000)),
    )?;
    let disk = folder.join("disk");
    std::fs::write(&disk, vec![0; 1 << 20])?;
    let mut args: Vec<String> = ["-machine", machine, "-smp", "2", "-m", "8"]
        .map(str::to_owned)
        .to_vec();
    args.extend(["-kernel".to_owned(), kernel.display().to_string()]);
    let drive = format!("if=none,id=disk,format=raw,file={}", disk.display());
    args.extend(["-drive".to_owned(), drive]);
    for id in ["scsi", "nvme"] {
        let node = format!("driver=null-co,node-name={id},size=1M");
        args.extend(["-blockdev".to_owned(), node]);
    }
    args.extend(["-object".to_owned(), "rng-builtin,id=rng".to_owned()]);
    args.extend(["-chardev".to_owned(), "null,id=other".to_owned()]);
    for device in devices {
        args.extend(["-device".to_owned(), (*device).to_owned()]);
    }
    let mut rig = Rig::new(&args)?;
    std::fs::remove_dir_all(&folder)?;
    rig.run_to_output("here I".len())?;
    let saved = through_bytes(rig.save()?)?;
    let tally = Storm::new(rig.machine(), &saved, seed).run(CASES)?;
    // Both happen, or the mutations are none.
    assert!(tally.taken > 0 && tally.refused > 0, "{tally:?}");
    Ok(())
}

const PCI: &[&str] = &[
    "virtio-blk-pci,drive=disk",
    "virtio-rng-pci,rng=rng",
    "virtio-serial-pci",
    "virtio-scsi-pci",
    "scsi-hd,drive=scsi",
    "scsi-cd",
    "nvme,serial=S1,drive=nvme",
    "isa-debugcon,chardev=other",
    "pvpanic",
];

#[test]
fn pc_stands_a_storm_of_mutated_sections() -> Result<()> {
    a_storm_leaves_it_standing("pc", PCI, 1)
}

#[test]
fn q35_stands_a_storm_of_mutated_sections() -> Result<()> {
    let port = ["pcie-root-port,id=rp", "virtio-rng-pci,bus=rp"];
    a_storm_leaves_it_standing("q35", &[PCI, &port].concat(), 2)
}

#[test]
fn microvm_stands_a_storm_of_mutated_sections() -> Result<()> {
    let devices = [
        "virtio-blk-device,drive=disk",
        "virtio-rng-device,rng=rng",
        "virtio-serial-device",
        "virtio-scsi-device",
        "scsi-hd,drive=scsi",
    ];
    a_storm_leaves_it_standing("microvm", &devices, 3)
}
