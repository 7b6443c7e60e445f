//! U-Boot as firmware of `virt`: to its prompt, and on to a kernel.

use test_boot::{Error, Guest, Vm, VmBuilder};

/// The machine with U-Boot, if that is there.
fn machine(name: &str, cpu: &str) -> Result<Option<(VmBuilder, Guest)>, Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(None);
    };
    if !guest.has_u_boot()? {
        return Ok(None);
    }
    let vm = Vm::new(name)
        .args("-accel tcg -m 256")
        .option("-cpu", cpu)
        .option("-bios", &guest.u_boot);
    Ok(Some((vm, guest)))
}

/// To the prompt: keys are sent while it waits for one, or when it has found nothing to boot.
fn to_the_prompt(name: &str, cpu: &str) -> Result<Option<Vm>, Error> {
    let Some((machine, _)) = machine(name, cpu)? else {
        return Ok(None);
    };
    let mut vm = machine.boot()?;
    vm.expect("Hit any key to stop autoboot")?;
    vm.send("\n")?;
    vm.expect("=>")?;
    vm.send("version\n")?;
    vm.expect("GNU ld")?;
    vm.expect("=>")?;
    Ok(Some(vm))
}

#[test]
fn its_prompt_takes_commands_and_powers_the_machine_off() -> Result<(), Error> {
    for (name, cpu) in [
        ("virt", "cortex-a57"),
        ("virt,virtualization=on,gic-version=3", "max"),
    ] {
        let Some(mut vm) = to_the_prompt(name, cpu)? else {
            return Ok(());
        };
        // What the flash chips have been asked, U-Boot's own answer.
        vm.send("flinfo\n")?;
        vm.expect("CFI conformant")?;
        vm.expect("=>")?;
        vm.send("poweroff\n")?;
        vm.expect_success()?;
    }
    Ok(())
}

#[test]
fn it_begins_in_the_secure_world_of_a_machine_that_has_one() -> Result<(), Error> {
    for name in ["virt,secure=on", "virt,secure=on,gic-version=3"] {
        let Some(mut vm) = to_the_prompt(name, "max")? else {
            return Ok(());
        };
        vm.send("md.l 0x40000000 1\n")?;
        // The device tree's magic, at the beginning of memory.
        vm.expect("40000000: edfe0dd0")?;
    }
    Ok(())
}

#[test]
fn it_starts_the_kernel_of_the_command_line() -> Result<(), Error> {
    let Some((machine, guest)) = machine("virt", "cortex-a57")? else {
        return Ok(());
    };
    let mut vm = machine
        .linux(&guest)
        .append("quiet guest.poweroff")
        .boot()?;
    vm.expect("Hit any key to stop autoboot")?;
    vm.expect("Starting kernel ...")?;
    vm.expect(&format!("GUEST-UP aarch64 {}", guest.release))?;
    vm.expect_success()
}
