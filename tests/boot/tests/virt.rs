//! Debian's arm64 kernel with busybox on `virt`: up, a typed command, and off again.

use test_boot::{Error, Guest, Vm};

/// The story every shape of the machine must tell.
fn reaches_a_shell_and_powers_off(machine: &str, cpu: &str, cpus: u32) -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    let mut vm = Vm::new(machine)
        .args("-accel tcg -m 256")
        .option("-cpu", cpu)
        .cpus(cpus)
        .linux(&guest)
        .append("quiet")
        .boot()?;
    vm.expect(&format!(
        "GUEST-UP aarch64 {} cpus={cpus} mem=",
        guest.release
    ))?;
    assert_eq!(vm.shell("echo $((6 * 7)) $(nproc)")?, format!("42 {cpus}"));
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}

#[test]
fn one_cortex_a57_with_gicv2_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("virt", "cortex-a57", 1)
}

#[test]
fn four_cpus_with_gicv2_reach_a_shell_and_power_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("virt", "max", 4)
}

#[test]
fn one_cpu_max_with_gicv3_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("virt,gic-version=3", "max", 1)
}

#[test]
fn four_cortex_a57_with_gicv3_reach_a_shell_and_power_off() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("virt,gic-version=3", "cortex-a57", 4)
}

#[test]
fn every_other_model_reaches_a_shell_and_powers_off() -> Result<(), Error> {
    for cpu in ["cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1"] {
        reaches_a_shell_and_powers_off("virt,gic-version=3", cpu, 1)?;
    }
    Ok(())
}

#[test]
fn with_a_secure_world_a_kernel_begins_beside_it() -> Result<(), Error> {
    reaches_a_shell_and_powers_off("virt,secure=on", "cortex-a72", 2)?;
    let machine = "virt,secure=on,gic-version=3,virtualization=on";
    reaches_a_shell_and_powers_off(machine, "max", 2)
}

#[test]
fn linux_at_el2_with_gicv3_is_a_hypervisor() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    let mut vm = Vm::new("virt,gic-version=3,virtualization=on")
        .args("-accel tcg -m 256 -cpu max")
        .cpus(2)
        .linux(&guest)
        .append("guest.poweroff")
        .boot()?;
    // It has virtual CPU interfaces for guests, and hears of them.
    vm.expect("vgic interrupt IRQ")?;
    vm.expect("VHE mode initialized successfully")?;
    vm.expect("GUEST-UP aarch64")?;
    vm.expect_success()
}

#[test]
fn virtio_devices_work_by_messages_by_wires_and_in_memory() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    // A GICv2 has a message frame, a GICv3 a translation service, if it is wanted.
    for machine in ["virt", "virt,gic-version=3", "virt,gic-version=3,its=off"] {
        for device in ["virtio-rng-pci", "virtio-rng-device"] {
            let mut vm = Vm::new(machine)
                .args("-accel tcg -m 256 -cpu cortex-a57")
                .option("-device", device)
                .linux(&guest)
                .option("-initrd", &guest.initrd_modules)
                .append("quiet guest.modules=virtio_pci,virtio_mmio,virtio_rng")
                .append("guest.run=head,-c,16,/dev/hwrng,>/dev/null")
                .boot()?;
            vm.expect("GUEST-EXIT 0")?;
            vm.expect_success()?;
        }
    }
    Ok(())
}

#[test]
fn disks_on_pci_interrupt_through_the_translation_service() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    let mut vm = Vm::new("virt,gic-version=3")
        .args("-accel tcg -m 256 -cpu cortex-a57")
        .cpus(2)
        .args("-blockdev null-co,node-name=a,size=1M,read-zeroes=on")
        .args("-blockdev null-co,node-name=b,size=1M,read-zeroes=on")
        .args("-device virtio-blk-pci,drive=a")
        // Below a port, requesters have another bus number.
        .args("-device pcie-root-port,id=port -device nvme,serial=S,drive=b,bus=port")
        .linux(&guest)
        .option("-initrd", &guest.initrd_modules)
        .append("quiet guest.modules=virtio_pci,virtio_blk")
        .boot()?;
    vm.expect("GUEST-UP")?;
    for disk in ["vda", "nvme0n1"] {
        let sum = vm.shell(&format!("cat /dev/{disk} | md5sum"))?;
        assert_eq!(sum, "b6d81b360a5672d80c27430f39153e2c  -", "{disk}");
    }
    // Each came at least once.
    let came = "grep ITS-MSI /proc/interrupts | awk '$2 + $3 > 0 { print $NF }' | sort";
    let who = vm.shell(came)?;
    assert!(
        who.contains("nvme0q0") && who.contains("virtio0-req.0"),
        "{who}"
    );
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}
