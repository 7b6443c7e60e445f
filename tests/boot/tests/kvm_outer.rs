//! Debian's kernel with busybox under a true KVM, in an emulated outer machine.

use std::process::Command;

use test_boot::{Error, Guest, Outer, Vm};

/// A machine, and what its virtio devices are there.
struct Machine {
    name: &'static str,
    irqchip: &'static str,
    modules: &'static str,
    /// What follows `virtio-blk-`.
    bus: &'static str,
}

/// One story of `linux.rs`, on the CPU that KVM has, with a disk: its bell is an event, its vectors
/// are too.
fn reaches_a_shell_and_powers_off(
    outer: &mut Outer,
    machine: &Machine,
    checksum: &str,
) -> Result<(), Error> {
    let Machine {
        name,
        irqchip,
        modules,
        bus,
    } = machine;
    let vm = outer.start(&format!(
        "-accel kvm,kernel-irqchip={irqchip} -cpu host -machine {name} -smp 2 -m 256 -L seabios \
         -drive if=none,id=disk,file=initrd,format=raw,readonly=on \
         -device virtio-blk-{bus},drive=disk -kernel vmlinuz -initrd initrd-modules \
         -append 'console=ttyS0 quiet guest.modules={modules},virtio_blk'"
    ))?;
    vm.expect("GUEST-UP x86_64 ")?;
    vm.expect(" cpus=2 mem=")?;
    let said =
        vm.shell("echo $((6 * 7)) $(nproc) $(dmesg | grep -c 'Hypervisor detected: KVM')")?;
    assert_eq!(said, "42 2 1", "{name} {irqchip}");
    assert_eq!(vm.shell("sha256sum /dev/vda | cut -c 1-64")?, checksum);
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    assert_eq!(outer.status()?, 0, "{name} {irqchip}");
    Ok(())
}

/// A disk is plugged into a root port and out again: its bell and its vectors are made, and given back, while
/// the vCPUs run.
fn a_disk_comes_and_goes(outer: &mut Outer, checksum: &str) -> Result<(), Error> {
    let vm = outer.start(
        "-accel kvm -cpu host -machine q35 -smp 2 -m 256 -bios seabios/bios-256k.bin \
         -device pcie-root-port,id=port,chassis=1 -kernel vmlinuz -initrd initrd-modules \
         -append 'console=ttyS0 loglevel=1 guest.modules=virtio_pci,virtio_blk'",
    )?;
    vm.expect("GUEST-UP x86_64 ")?;
    let drive = "drive_add 0 if=none,id=late,file=initrd,format=raw,readonly=on";
    let device = "device_add virtio-blk-pci,id=d,bus=port,drive=late";
    monitor(vm, &[drive, device])?;
    let sum = "until [ -b /dev/vda ]; do sleep 1; done; sha256sum /dev/vda | cut -c 1-64";
    assert_eq!(vm.shell(sum)?, checksum);
    monitor(vm, &["device_del d"])?;
    let gone = "while [ -e /sys/block/vda ]; do sleep 1; done; echo gone";
    assert_eq!(vm.shell(gone)?, "gone");
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    assert_eq!(outer.status()?, 0);
    Ok(())
}

/// Says something to the monitor, and goes back to the guest.
fn monitor(vm: &mut Vm, lines: &[&str]) -> Result<(), Error> {
    vm.send("\x01c")?;
    for line in lines {
        vm.expect("(qemu) ")?;
        vm.send(&format!("{line}\n"))?;
    }
    vm.expect("(qemu) ")?;
    // The guest's prompt came before.
    vm.send("\x01c\n")
}

#[test]
fn debian_reaches_a_shell_and_powers_off_under_a_true_kvm() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let Some(mut outer) = Outer::boot()? else {
        return Ok(());
    };
    let said = Command::new("sha256sum").arg(&guest.initrd).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let checksum = said.split_whitespace().next().unwrap_or_default();
    let machine = |name, irqchip, modules, bus| Machine {
        name,
        irqchip,
        modules,
        bus,
    };
    for machine in [
        machine("q35", "on", "virtio_pci", "pci"),
        machine("pc", "split", "virtio_pci", "pci"),
        machine("microvm", "off", "virtio_mmio", "device"),
    ] {
        reaches_a_shell_and_powers_off(&mut outer, &machine, checksum)?;
    }
    a_disk_comes_and_goes(&mut outer, checksum)?;
    outer.power_off()
}
