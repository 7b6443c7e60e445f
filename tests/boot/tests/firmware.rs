//! Machines without a kernel: the packaged firmware runs.

use test_boot::{Error, Guest, Vm};

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
fn q35_runs_seabios_to_no_bootable_device() -> Result<(), Error> {
    seabios_finds_no_bootable_device("q35")
}
