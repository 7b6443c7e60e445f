//! Machines without a kernel: the packaged firmware runs.

use test_boot::{Error, Folder, Guest, Vm, kernels};

fn seabios_finds_no_bootable_device(machine: &str) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let mut vm = Vm::new(machine)
        .args("-accel tcg -m 64")
        .option("-L", &guest.seabios)
        .debugcon()
        .boot()?;
    vm.expect("SeaBIOS (version")?;
    vm.expect("No bootable device.")?;
    Ok(())
}

#[test]
fn pc_runs_seabios_to_no_bootable_device() -> Result<(), Error> {
    seabios_finds_no_bootable_device("pc")
}

#[test]
fn microvm_runs_seabios_to_no_bootable_device() -> Result<(), Error> {
    seabios_finds_no_bootable_device("microvm")
}

#[test]
fn q35_runs_seabios_to_no_bootable_device() -> Result<(), Error> {
    seabios_finds_no_bootable_device("q35")
}

/// Two disks whose boot sectors say who they are: that of the lower bootindex is asked first.
fn seabios_boots_by_bootindex(machine: &str, controller: &str, disk: &str) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let mut builder = Vm::new(machine)
        .args("-accel tcg -m 64 -device isa-debug-exit,iobase=0xf4")
        .args(controller)
        .option("-L", &guest.seabios);
    let folder = Folder::new()?;
    for (code, bootindex) in [(3u8, 9), (5, 1)] {
        let image = folder.join(format!("disk-{code}"));
        std::fs::write(&image, kernels::boot_sector(code))?;
        builder = builder
            .option(
                "-drive",
                format!("if=none,id=d{code},format=raw,file={}", image.display()),
            )
            .option(
                "-device",
                format!("{disk},drive=d{code},bootindex={bootindex}"),
            );
    }
    let ended = builder.boot()?.wait_exit()?;
    assert_eq!(ended.status.code(), Some(5 * 2 + 1));
    Ok(())
}

#[test]
fn pc_boots_the_disk_of_the_lowest_bootindex() -> Result<(), Error> {
    seabios_boots_by_bootindex("pc", "", "virtio-blk-pci")
}

#[test]
fn microvm_boots_the_disk_of_the_lowest_bootindex() -> Result<(), Error> {
    seabios_boots_by_bootindex("microvm", "", "virtio-blk-device")
}

#[test]
fn q35_boots_the_scsi_disk_of_the_lowest_bootindex() -> Result<(), Error> {
    seabios_boots_by_bootindex("q35", "-device virtio-scsi-pci", "scsi-hd")
}

#[test]
fn pc_boots_the_nvme_disk_of_the_lowest_bootindex() -> Result<(), Error> {
    seabios_boots_by_bootindex("pc", "", "nvme,serial=S1")
}

#[test]
fn pc_boots_the_ide_disk_of_the_lowest_bootindex() -> Result<(), Error> {
    seabios_boots_by_bootindex("pc", "", "ide-hd")
}

#[test]
fn q35_boots_the_ahci_disk_of_the_lowest_bootindex() -> Result<(), Error> {
    seabios_boots_by_bootindex("q35", "", "ide-hd")
}

/// A CD with GRUB goes before a disk that could be booted too.
fn seabios_boots_the_cd_by_bootindex(
    machine: &str,
    controller: &str,
    disk: &str,
    cd: &str,
) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let image = folder.join("disk");
    let mut sector = kernels::boot_sector(5);
    sector.resize(1 << 20, 0);
    std::fs::write(&image, sector)?;
    let mut vm = Vm::new(&format!("{machine},graphics=off"))
        .args("-accel tcg -m 256 -device isa-debug-exit,iobase=0xf4")
        .args(controller)
        .option("-L", &guest.seabios)
        .option(
            "-drive",
            format!("if=none,id=disk,format=raw,file={}", image.display()),
        )
        .option(
            "-drive",
            format!("if=none,id=cd,media=cdrom,file={}", guest.rescue.display()),
        )
        .args(&format!("-device {disk},drive=disk,bootindex=2"))
        .args(&format!("-device {cd},drive=cd,bootindex=1"))
        .boot()?;
    vm.expect("GNU GRUB")?;
    Ok(())
}

#[test]
fn pc_boots_the_ide_cd_of_the_lowest_bootindex() -> Result<(), Error> {
    seabios_boots_the_cd_by_bootindex("pc", "", "ide-hd", "ide-cd")
}

#[test]
fn q35_boots_the_ahci_cd_of_the_lowest_bootindex() -> Result<(), Error> {
    seabios_boots_the_cd_by_bootindex("q35", "", "ide-hd", "ide-cd")
}

#[test]
fn q35_boots_the_scsi_cd_of_the_lowest_bootindex() -> Result<(), Error> {
    let adapter = "-device virtio-scsi-pci";
    seabios_boots_the_cd_by_bootindex("q35", adapter, "scsi-hd", "scsi-cd")
}

/// A `pc` with GRUB on a CD, and a disk whose boot sector ends the machine with [`FROM_DISK`]; without a
/// display, SeaBIOS shows its screen on the serial port.
fn with_disk_and_cd(folder: &Folder, boot: &str) -> Result<Option<Vm>, Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(None);
    };
    let disk = folder.join("disk");
    let mut sector = kernels::boot_sector(5);
    sector.resize(1 << 20, 0);
    std::fs::write(&disk, sector)?;
    let vm = Vm::new("pc,graphics=off")
        .args("-accel tcg -m 256 -device isa-debug-exit,iobase=0xf4")
        .args("-action reboot=reset")
        .option("-L", &guest.seabios)
        .option(
            "-drive",
            format!("if=ide,format=raw,file={}", disk.display()),
        )
        .option("-cdrom", &guest.rescue)
        .option("-boot", boot)
        .boot()?;
    Ok(Some(vm))
}

const FROM_DISK: i32 = 5 * 2 + 1;

#[test]
fn boot_once_is_for_the_first_start_and_order_for_those_after_it() -> Result<(), Error> {
    let folder = Folder::new()?;
    let Some(mut vm) = with_disk_and_cd(&folder, "order=c,once=d")? else {
        return Ok(());
    };
    vm.expect("will be executed automatically")?;
    vm.send("c")?;
    vm.expect("grub>")?;
    vm.send("reboot\n")?;
    assert_eq!(vm.wait_exit()?.status.code(), Some(FROM_DISK));
    Ok(())
}

#[test]
fn the_boot_menu_starts_what_is_chosen() -> Result<(), Error> {
    let folder = Folder::new()?;
    let Some(mut vm) = with_disk_and_cd(&folder, "order=c,menu=on")? else {
        return Ok(());
    };
    vm.expect("Press ESC for boot menu")?;
    vm.send("\x1b")?;
    vm.expect("Select boot device:")?;
    vm.expect("2. DVD/CD")?;
    vm.send("2")?;
    vm.expect("GNU GRUB")?;
    Ok(())
}

#[test]
fn seabios_starts_the_kernel_if_both_are_given() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let mut vm = Vm::new("pc")
        .args("-accel tcg -m 256 -bios bios-256k.bin")
        .option("-L", &guest.seabios)
        .linux(&guest)
        .append("guest.poweroff")
        .boot()?;
    vm.expect("BIOS 1.")?;
    vm.expect("GUEST-UP")?;
    vm.expect_success()
}
