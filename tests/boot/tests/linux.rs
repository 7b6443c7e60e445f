//! Debian's kernel with busybox: up, a typed command, and off again.

use test_boot::{Error, Guest, Vm, VmBuilder};

fn machine(name: &str, cpus: u32, guest: &Guest) -> VmBuilder {
    Vm::new(name)
        .args("-accel tcg -m 256")
        .cpus(cpus)
        .option("-L", &guest.seabios)
}

/// The story every machine must tell.
fn reaches_a_shell_and_powers_off(name: &str, cpus: u32) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let mut vm = machine(name, cpus, &guest)
        .linux(&guest)
        .append("quiet")
        .boot()?;
    vm.expect(&format!(
        "GUEST-UP x86_64 {} cpus={cpus} mem=",
        guest.release
    ))?;
    assert_eq!(vm.shell("echo $((6 * 7)) $(nproc)")?, format!("42 {cpus}"));
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}

/// The same kernel as an ELF file through the PVH entry, with a command on its command line.
fn pvh_runs_a_command_and_powers_off(name: &str) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let mut vm = machine(name, 1, &guest)
        .kernel(&guest.vmlinux)
        .option("-initrd", &guest.initrd)
        .append("quiet guest.run=uname,-s")
        .boot()?;
    vm.expect("GUEST-UP")?;
    vm.expect("Linux\r\n")?;
    vm.expect("GUEST-EXIT 0")?;
    vm.expect_success()
}

#[test]
fn a_kernel_started_directly_finds_the_smbios_tables() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let mut vm = machine("q35", 1, &guest)
        .args("-smbios type=1,serial=S4711")
        .linux(&guest)
        .append("quiet guest.run=cat,/sys/class/dmi/id/product_serial")
        .boot()?;
    vm.expect("S4711")?;
    vm.expect("GUEST-EXIT 0")?;
    vm.expect_success()
}

#[test]
fn pc_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("pc", 1)
}

#[test]
fn pc_with_four_cpus_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("pc", 4)
}

#[test]
fn q35_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("q35", 1)
}

#[test]
fn q35_with_four_cpus_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("q35", 4)
}

#[test]
fn microvm_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("microvm", 1)
}

#[test]
fn microvm_with_four_cpus_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("microvm", 4)
}

#[test]
fn pc_boots_an_elf_kernel_through_its_pvh_entry() -> Result<(), Error> {
    pvh_runs_a_command_and_powers_off("pc")
}

#[test]
fn microvm_boots_an_elf_kernel_through_its_pvh_entry() -> Result<(), Error> {
    pvh_runs_a_command_and_powers_off("microvm")
}
