//! Installed systems: from firmware through their own boot loader to a login, and down again.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use test_boot::{Error, Folder, Guest, Vm, VmBuilder, skip};

/// A whole user land starts, with the host's other tests beside it.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs a program on images and demands success.
fn succeeds(command: &mut Command) -> Result<(), Error> {
    let done = command.output()?;
    match done.status.success() {
        true => Ok(()),
        false => Err(Error::Host(std::io::Error::other(format!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        )))),
    }
}

/// An overlay over the disk: it takes what this guest writes.
fn overlay(folder: &Folder, guest: &Guest) -> Result<PathBuf, Error> {
    let top = folder.join("top.qcow2");
    let args = ["img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    let files = [guest.disk.as_os_str(), top.as_os_str()];
    let mut command = Command::new(test_boot::program()?);
    succeeds(command.args(args).args(files))?;
    Ok(top)
}

/// By our own tools and, where it is installed, by QEMU's.
fn is_whole(image: &Path) -> Result<(), Error> {
    let args = [OsStr::new("check"), OsStr::new("-q"), image.as_os_str()];
    succeeds(Command::new(test_boot::program()?).arg("img").args(args))?;
    match succeeds(Command::new("qemu-img").args(args)) {
        Err(Error::Host(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("no qemu-img to check the image with")
        }
        done => done,
    }
}

fn machine(name: &str) -> VmBuilder {
    Vm::new(name).args("-accel tcg -m 512").patience(PATIENCE)
}

/// From the menu to a root shell, whose root is on this device.
fn goes_up(vm: &mut Vm, device: &str) -> Result<(), Error> {
    vm.expect("GNU GRUB")?;
    vm.expect("Linux version")?;
    vm.expect("Welcome to")?;
    vm.expect("login: ")?;
    vm.send("root\n")?;
    vm.expect("# ")?;
    vm.send("echo up=$((6 * 7)) on=$(findmnt -n -o SOURCE /)\n")?;
    vm.expect(&format!("up=42 on=/dev/{device}"))?;
    Ok(())
}

/// From the menu to a login, a command, and power off.
fn goes_up_and_down(mut vm: Vm, device: &str) -> Result<(), Error> {
    goes_up(&mut vm, device)?;
    vm.send("echo kept > note; sync; systemctl poweroff\n")?;
    vm.expect_success()
}

#[test]
fn debian_boots_from_a_bios_and_an_ide_disk_on_pc() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let folder = Folder::new()?;
    let top = overlay(&folder, &guest)?;
    let vm = machine("pc")
        .option("-L", &guest.seabios)
        .option("-drive", format!("format=qcow2,file={}", top.display()))
        .boot()?;
    goes_up_and_down(vm, "sda2")?;
    is_whole(&top)
}

#[test]
fn an_image_that_is_run_boots_and_stays_as_it_was() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let folder = Folder::new()?;
    let top = overlay(&folder, &guest)?;
    let before = std::fs::read(&top)?;
    let vm = Vm::new("chosen by what the image holds")
        .image(&top)
        .option("-L", &guest.seabios)
        .patience(PATIENCE)
        .boot()?;
    goes_up_and_down(vm, "vda2")?;
    assert!(std::fs::read(&top)? == before, "the image was written to");
    Ok(())
}

#[test]
fn what_an_image_that_is_run_with_keep_writes_is_there_the_next_time() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let folder = Folder::new()?;
    let top = overlay(&folder, &guest)?;
    let run = |flags: &str| {
        let vm = Vm::new("chosen by what the image holds").image(&top);
        let vm = vm.args(flags).option("-L", &guest.seabios);
        vm.patience(PATIENCE).boot()
    };
    goes_up_and_down(run("--keep")?, "vda2")?;
    is_whole(&top)?;
    let mut vm = run("")?;
    goes_up(&mut vm, "vda2")?;
    vm.send("echo note=$(cat note)\n")?;
    vm.expect("note=kept")?;
    Ok(())
}

#[test]
fn an_arm64_image_that_is_run_boots_by_aavmf_and_keeps_its_variables() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let folder = Folder::new()?;
    let top = overlay(&folder, &guest)?;
    let mut vm = Vm::new("chosen by what the image holds")
        .image(&top)
        .arg("--keep")
        .option("-L", &guest.aavmf)
        .patience(PATIENCE)
        .boot()?;
    vm.expect("UEFI firmware")?;
    goes_up_and_down(vm, "vda2")?;
    let variables = std::fs::read(folder.join("top.qcow2.vars.fd"))?;
    let fresh = std::fs::read(guest.aavmf.join("AAVMF_VARS.fd"))?;
    assert!(variables != fresh, "the firmware kept nothing");
    is_whole(&top)
}

#[test]
fn debian_boots_from_aavmf_and_an_nvme_disk_on_virt() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let folder = Folder::new()?;
    let top = overlay(&folder, &guest)?;
    let variables = folder.join("variables");
    std::fs::copy(guest.aavmf.join("AAVMF_VARS.fd"), &variables)?;
    let code = guest.aavmf.join("AAVMF_CODE.fd");
    let flash =
        |more: &str, file: &Path| format!("if=pflash,format=raw,{more}file={}", file.display());
    let mut vm = machine("virt,gic-version=3")
        .args("-cpu cortex-a57")
        .option("-drive", flash("readonly=on,", &code))
        .option("-drive", flash("", &variables))
        .option(
            "-drive",
            format!("if=none,id=d,format=qcow2,file={}", top.display()),
        )
        .args("-device nvme,serial=S1,drive=d,bootindex=1")
        .boot()?;
    vm.expect("BdsDxe: starting Boot")?;
    goes_up_and_down(vm, "nvme0n1p2")?;
    is_whole(&top)
}

/// A `q35` whose drive of this interface goes with these options, under the name `device`.
fn by_ovmf(interface: &str, options: &str, device: &str) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let folder = Folder::new()?;
    let top = overlay(&folder, &guest)?;
    let variables = folder.join("variables");
    std::fs::copy(guest.ovmf.join("OVMF_VARS_4M.fd"), &variables)?;
    let code = guest.ovmf.join("OVMF_CODE_4M.fd");
    let mut vm = machine("q35")
        .option(
            "-drive",
            format!("if=pflash,format=raw,readonly=on,file={}", code.display()),
        )
        .option(
            "-drive",
            format!("if=pflash,format=raw,file={}", variables.display()),
        )
        .option(
            "-drive",
            format!("{interface}format=qcow2,file={}", top.display()),
        )
        .args(options)
        .boot()?;
    vm.expect("BdsDxe: starting Boot")?;
    goes_up_and_down(vm, device)?;
    is_whole(&top)
}

/// Firmware is asked to start this system from the second of two disks, and from a CD before both, which
/// has nothing for it.
fn starts_the_lowest_bootindex(
    vm: VmBuilder,
    code: &Path,
    variables: &Path,
    guest: &Guest,
) -> Result<Vm, Error> {
    let flash = "if=pflash,format=raw";
    let disk = format!(
        "if=none,snapshot=on,format=raw,file={}",
        guest.disk.display()
    );
    vm.option(
        "-drive",
        format!("{flash},readonly=on,file={}", code.display()),
    )
    .option("-drive", format!("{flash},file={}", variables.display()))
    .option("-drive", format!("{disk},id=first"))
    .option("-drive", format!("{disk},id=second"))
    .boot()
}

#[test]
fn ovmf_starts_the_ahci_drive_of_the_lowest_bootindex() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let folder = Folder::new()?;
    let variables = folder.join("variables");
    std::fs::copy(guest.ovmf.join("OVMF_VARS_4M.fd"), &variables)?;
    let cd = format!("if=none,id=cd,media=cdrom,file={}", guest.rescue.display());
    let builder = machine("q35")
        .option("-drive", cd)
        .args("-device ide-hd,bus=ide.0,drive=first,bootindex=3")
        .args("-device ide-hd,bus=ide.1,drive=second,bootindex=2")
        .args("-device ide-cd,bus=ide.2,drive=cd,bootindex=1");
    let code = guest.ovmf.join("OVMF_CODE_4M.fd");
    let mut vm = starts_the_lowest_bootindex(builder, &code, &variables, &guest)?;
    // The CD comes first, and has nothing for UEFI.
    vm.expect("failed to load Boot")?;
    vm.expect("Sata(0x2,")?;
    vm.expect("starting Boot")?;
    vm.expect("Sata(0x1,")?;
    vm.expect("GNU GRUB")?;
    Ok(())
}

#[test]
fn aavmf_starts_the_virtio_disk_of_the_lowest_bootindex() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let folder = Folder::new()?;
    let variables = folder.join("variables");
    std::fs::copy(guest.aavmf.join("AAVMF_VARS.fd"), &variables)?;
    let builder = machine("virt")
        .args("-cpu cortex-a57 -device virtio-blk-pci,addr=5,drive=first,bootindex=2")
        .args("-device virtio-blk-pci,addr=6,drive=second,bootindex=1");
    let code = guest.aavmf.join("AAVMF_CODE.fd");
    let mut vm = starts_the_lowest_bootindex(builder, &code, &variables, &guest)?;
    vm.expect("starting Boot")?;
    vm.expect("Pci(0x6,0x0)")?;
    vm.expect("GNU GRUB")?;
    Ok(())
}

#[test]
fn debian_boots_from_ovmf_and_an_ahci_disk_on_q35() -> Result<(), Error> {
    by_ovmf("", "", "sda2")
}

#[test]
fn debian_boots_from_ovmf_and_an_nvme_disk_on_q35() -> Result<(), Error> {
    let nvme = "-device nvme,serial=S1,drive=d,bootindex=1";
    by_ovmf("if=none,id=d,", nvme, "nvme0n1p2")
}

#[test]
fn debian_boots_from_ovmf_and_a_scsi_disk_below_a_root_port() -> Result<(), Error> {
    let scsi = "-device pcie-root-port,id=rp -device virtio-scsi-pci,bus=rp -device scsi-hd,drive=d,bootindex=1";
    by_ovmf("if=none,id=d,", scsi, "sda2")
}

#[test]
fn a_rescue_cd_comes_to_its_prompt() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    // Without a display, SeaBIOS shows its screen on the serial port.
    for name in ["pc,graphics=off", "q35,graphics=off"] {
        let mut vm = machine(name)
            .option("-L", &guest.seabios)
            .option("-cdrom", &guest.rescue)
            .args("-boot d")
            .boot()?;
        vm.expect("GRUB!")?;
        vm.expect("GNU GRUB")?;
        vm.expect("will be executed automatically")?;
        vm.send("c")?;
        vm.expect("grub>")?;
    }
    Ok(())
}
