//! Debian's kernel with busybox under a true KVM, in an emulated outer machine.

use test_boot::{Error, Outer};

/// One story of `linux.rs`, on the CPU that KVM has.
fn reaches_a_shell_and_powers_off(
    outer: &mut Outer,
    machine: &str,
    irqchip: &str,
) -> Result<(), Error> {
    let vm = outer.start(&format!(
        "-accel kvm,kernel-irqchip={irqchip} -cpu host -machine {machine} -smp 2 -m 256 \
         -L seabios -kernel vmlinuz -initrd initrd -append 'console=ttyS0 quiet'"
    ))?;
    vm.expect("GUEST-UP x86_64 ")?;
    vm.expect(" cpus=2 mem=")?;
    let said =
        vm.shell("echo $((6 * 7)) $(nproc) $(dmesg | grep -c 'Hypervisor detected: KVM')")?;
    assert_eq!(said, "42 2 1", "{machine} {irqchip}");
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    assert_eq!(outer.status()?, 0, "{machine} {irqchip}");
    Ok(())
}

#[test]
fn debian_reaches_a_shell_and_powers_off_under_a_true_kvm() -> Result<(), Error> {
    let Some(mut outer) = Outer::boot()? else {
        return Ok(());
    };
    reaches_a_shell_and_powers_off(&mut outer, "q35", "on")?;
    reaches_a_shell_and_powers_off(&mut outer, "pc", "split")?;
    reaches_a_shell_and_powers_off(&mut outer, "microvm", "off")?;
    outer.power_off()
}
