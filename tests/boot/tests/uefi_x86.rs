//! Debian's UEFI firmware for PCs, without anything to boot.

use test_boot::{Error, Folder, Guest, Vm, VmBuilder};

/// To the prompt of the shell that firmware starts when there is nothing to boot.
fn to_the_shell(vm: &mut Vm) -> Result<(), Error> {
    vm.expect("UEFI Interactive Shell")?;
    vm.expect("any other key to continue")?;
    vm.send("\r")?;
    vm.expect("Shell>")?;
    Ok(())
}

fn machine(name: &str) -> VmBuilder {
    Vm::new(name).args("-accel tcg -m 256")
}

#[test]
fn ovmf_keeps_variables_over_a_reset_and_the_end_of_the_process_on_q35() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let variables = folder.join("vars.fd");
    std::fs::copy(guest.ovmf.join("OVMF_VARS_4M.fd"), &variables)?;
    let code = guest.ovmf.join("OVMF_CODE_4M.fd");
    let code = format!("if=pflash,format=raw,readonly=on,file={}", code.display());
    let variables = format!("if=pflash,format=raw,file={}", variables.display());
    let with_flash = || {
        machine("q35")
            .option("-drive", &code)
            .option("-drive", &variables)
    };
    let show = "setvar Kept -guid 12345678-1234-1234-1234-123456789abc\r";
    let mut vm = with_flash().args("-action reboot=reset").boot()?;
    to_the_shell(&mut vm)?;
    vm.send("setvar Kept -guid 12345678-1234-1234-1234-123456789abc -nv -bs =0xc0ffee\r")?;
    vm.expect("Shell>")?;
    vm.send("reset\r")?;
    to_the_shell(&mut vm)?;
    vm.send(show)?;
    vm.expect("EE FF C0 00")?;
    vm.send("reset -s\r")?;
    vm.expect_success()?;

    let mut vm = with_flash().boot()?;
    to_the_shell(&mut vm)?;
    vm.send(show)?;
    vm.expect("EE FF C0 00")?;
    vm.send("reset -s\r")?;
    vm.expect_success()
}

#[test]
fn ovmf_of_bios_comes_to_its_shell_on_pc() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let share = guest.ovmf.with_file_name("ovmf");
    let mut vm = machine("pc")
        .args("-bios OVMF.fd")
        .option("-L", share)
        .boot()?;
    to_the_shell(&mut vm)?;
    vm.send("reset -s\r")?;
    vm.expect_success()
}
