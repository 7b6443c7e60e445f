//! Debian's UEFI firmware for arm64 on `virt`.

use std::path::{Path, PathBuf};

use test_boot::{Error, Folder, Guest, Vm, VmBuilder};

/// Variables of the test's own.
fn variables(guest: &Guest, folder: &Folder) -> Result<PathBuf, Error> {
    let file = folder.join("vars.fd");
    std::fs::copy(guest.aavmf.join("AAVMF_VARS.fd"), &file)?;
    Ok(file)
}

fn with_flash(machine: &str, guest: &Guest, variables: &Path) -> VmBuilder {
    let code = guest.aavmf.join("AAVMF_CODE.fd");
    Vm::new(machine)
        .args("-accel tcg -m 256 -cpu cortex-a57")
        .option(
            "-drive",
            format!("if=pflash,format=raw,readonly=on,file={}", code.display()),
        )
        .option(
            "-drive",
            format!("if=pflash,format=raw,file={}", variables.display()),
        )
}

/// To the prompt of the shell that firmware starts when there is nothing to boot.
fn to_the_shell(vm: &mut Vm) -> Result<(), Error> {
    vm.expect("UEFI firmware")?;
    vm.expect("any other key to continue")?;
    vm.send("\r")?;
    vm.expect("Shell>")?;
    Ok(())
}

#[test]
fn variables_are_kept_over_a_reset_and_the_end_of_the_process() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let variables = variables(&guest, &folder)?;
    let show = "setvar Kept -guid 12345678-1234-1234-1234-123456789abc\r";
    let mut vm = with_flash("virt", &guest, &variables)
        .args("-action reboot=reset")
        .boot()?;
    to_the_shell(&mut vm)?;
    vm.send("setvar Kept -guid 12345678-1234-1234-1234-123456789abc -nv -bs =0xc0ffee\r")?;
    vm.expect("Shell>")?;
    vm.send("reset\r")?;
    to_the_shell(&mut vm)?;
    vm.send(show)?;
    vm.expect("EE FF C0 00")?;
    vm.send("reset -s\r")?;
    vm.expect_success()?;

    let mut vm = with_flash("virt,gic-version=3", &guest, &variables).boot()?;
    to_the_shell(&mut vm)?;
    vm.send(show)?;
    vm.expect("EE FF C0 00")?;
    vm.send("reset -s\r")?;
    vm.expect_success()
}

/// A kernel handed to firmware starts by its EFI stub, on ACPI.
fn starts_by_the_efi_stub(machine: &str, cpu: &str) -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let variables = variables(&guest, &folder)?;
    let mut vm = with_flash(machine, &guest, &variables)
        .option("-cpu", cpu)
        .cpus(2)
        .linux(&guest)
        .boot()?;
    vm.expect("EFI stub: Booting Linux Kernel")?;
    vm.expect("ACPI: RSDP")?;
    vm.expect("SMBIOS 3.0")?;
    vm.expect("GUEST-UP aarch64")?;
    assert_eq!(vm.shell("nproc")?, "2");
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}

#[test]
fn a_kernel_starts_by_its_efi_stub_with_gicv2() -> Result<(), Error> {
    starts_by_the_efi_stub("virt", "cortex-a57")
}

#[test]
fn a_kernel_starts_by_its_efi_stub_with_gicv3() -> Result<(), Error> {
    starts_by_the_efi_stub("virt,gic-version=3,virtualization=on", "max")
}

#[test]
fn firmware_of_bios_runs_without_drives() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    let share = guest.aavmf.with_file_name("qemu-efi-aarch64");
    let mut vm = Vm::new("virt")
        .args("-accel tcg -m 256 -cpu max -bios QEMU_EFI.fd")
        .option("-L", share)
        .boot()?;
    to_the_shell(&mut vm)
}
