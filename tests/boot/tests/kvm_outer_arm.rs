//! Debian's arm64 kernel with busybox under a true KVM, in an emulated outer machine with EL2: Mimic itself, and
//! QEMU where there is no other.

use std::process::Command;

use test_boot::{Error, Guest, Outer};

/// The story of `virt.rs` on the host's own processor, with a disk whose interrupts are messages; twice, with
/// a reset between.
fn reaches_a_shell_and_powers_off(outer: &mut Outer, name: &str) -> Result<(), Error> {
    let vm = outer.start(&format!(
        "-accel kvm -cpu host -machine {name} -smp 2 -m 256 -action reboot=reset \
         -drive if=none,id=disk,file=initrd,format=raw,readonly=on \
         -device virtio-blk-pci,drive=disk -kernel vmlinuz -initrd initrd-modules \
         -append 'console=ttyAMA0 quiet guest.reboot guest.modules=virtio_pci,virtio_blk'"
    ))?;
    vm.expect("GUEST-UP aarch64 ")?;
    vm.expect(" cpus=2 mem=")?;
    let said =
        vm.shell("echo $((6 * 7)) $(nproc) $(dmesg | grep -c 'KVM: hypervisor services')")?;
    assert_eq!(said, "42 2 1", "{name}");
    let said = vm.shell("sha256sum /dev/vda | cut -c 1-64")?;
    assert_eq!(said, checksum()?, "{name}");
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect("GUEST-UP aarch64 ")?;
    let said = vm.shell("sha256sum /dev/vda | cut -c 1-64")?;
    assert_eq!(said, checksum()?, "{name} after a reset");
    vm.send("poweroff -f\n")?;
    assert_eq!(outer.status()?, 0, "{name}");
    Ok(())
}

/// Of the disk.
fn checksum() -> Result<String, Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(String::new());
    };
    let said = Command::new("sha256sum").arg(&guest.initrd).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// What cannot be had is a sentence.
fn is_refused(outer: &mut Outer, words: &str, why: &str) -> Result<(), Error> {
    let vm = outer.start(&format!("-accel kvm {words} -kernel vmlinuz"))?;
    vm.expect(why)?;
    assert_eq!(outer.status()?, 1, "{words}");
    Ok(())
}

#[test]
fn debian_reaches_a_shell_and_powers_off_under_kvm_in_mimic_with_gicv3() -> Result<(), Error> {
    let Some(mut outer) = Outer::boot_arm_in_itself()? else {
        return Ok(());
    };
    reaches_a_shell_and_powers_off(&mut outer, "virt,gic-version=host")?;
    for (words, why) in [
        (
            "-machine virt -cpu cortex-a57",
            "use '-cpu host' instead of 'cortex-a57'",
        ),
        (
            "-machine virt,gic-version=2",
            "the host's KVM has no GICv2; use 'gic-version=host'",
        ),
        (
            "-machine virt,virtualization=on",
            "'virtualization=on' is not available under KVM",
        ),
        (
            "-machine virt -semihosting",
            "-semihosting: not available under KVM",
        ),
        (
            "-machine q35",
            "only guests of the host's own kind, not x86_64",
        ),
    ] {
        is_refused(&mut outer, words, why)?;
    }
    outer.power_off()
}

#[test]
fn debian_reaches_a_shell_and_powers_off_under_a_true_kvm_with_gicv2() -> Result<(), Error> {
    let Some(mut outer) = Outer::boot_arm_v2()? else {
        return Ok(());
    };
    reaches_a_shell_and_powers_off(&mut outer, "virt")?;
    outer.power_off()
}

/// All registers by KVM_GET_ONE_REG, the GIC's by its device, and back by the form that all accelerators share.
#[test]
fn a_machine_saved_under_kvm_goes_on_in_another() -> Result<(), Error> {
    let Some(mut outer) = Outer::boot_arm_for_moves()? else {
        return Ok(());
    };
    let vm = outer.run(
        "1000,4000,8000,11000 kvm -cpu host -machine virt,gic-version=host -smp 2 -m 160 \
         -drive if=none,id=disk,file=initrd,format=raw,readonly=on \
         -device virtio-blk-pci,drive=disk -kernel vmlinuz -initrd initrd-modules \
         -append 'console=ttyAMA0 guest.modules=virtio_pci,virtio_blk guest.run=sha256sum,/dev/vda'",
    )?;
    let said = vm.expect("MOVED")?;
    assert!(said.contains(&checksum()?), "{said}");
    assert!(said.contains("GUEST-DOWN"), "{said}");
    assert_eq!(outer.status()?, 0);
    outer.power_off()
}
