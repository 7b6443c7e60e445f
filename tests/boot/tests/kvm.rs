//! Small guests through the host's KVM: what every KVM runs, hardware or not.

use test_boot::{Error, Folder, Guest, Vm, has_kvm, kernels, skip};

/// Where the interrupt controllers are.
const IRQCHIPS: [&str; 3] = ["on", "split", "off"];

fn says_hello(machine: &str) -> Result<(), Error> {
    if !has_kvm() {
        return skip("no usable /dev/kvm");
    }
    let folder = Folder::new()?;
    let kernel = folder.join("hello.elf");
    std::fs::write(&kernel, kernels::hello("hello from KVM\r\n", 3))?;
    for irqchip in IRQCHIPS {
        let mut vm = Vm::new(machine)
            .kernel(&kernel)
            .args("-m 64 -device isa-debug-exit,iobase=0xf4,iosize=1")
            .option("-accel", format!("kvm,kernel-irqchip={irqchip}"))
            .boot()?;
        vm.expect("hello from KVM\r\n")?;
        assert_eq!(vm.wait_exit()?.status.code(), Some(7), "{irqchip}");
    }
    Ok(())
}

#[test]
fn pc_runs_a_tiny_kernel_to_its_exit_code() -> Result<(), Error> {
    says_hello("pc")
}

#[test]
fn q35_runs_a_tiny_kernel_to_its_exit_code() -> Result<(), Error> {
    says_hello("q35")
}

#[test]
fn microvm_runs_a_tiny_kernel_to_its_exit_code() -> Result<(), Error> {
    says_hello("microvm")
}

#[test]
fn seabios_finds_all_cpus_and_no_bootable_device() -> Result<(), Error> {
    if !has_kvm() {
        return skip("no usable /dev/kvm");
    }
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    for irqchip in IRQCHIPS {
        let mut vm = Vm::new("pc")
            .args("-m 64 -smp 4")
            .option("-accel", format!("kvm,kernel-irqchip={irqchip}"))
            .option("-L", &guest.seabios)
            .debugcon()
            .boot()?;
        vm.expect("Found 4 cpu(s)")?;
        vm.expect("No bootable device.")?;
    }
    Ok(())
}

/// The state is the kernel's of now, not of the last stop.
#[test]
fn info_pic_shows_what_the_guest_has_programmed() -> Result<(), Error> {
    if !has_kvm() {
        return skip("no usable /dev/kvm");
    }
    let folder = Folder::new()?;
    let kernel = folder.join("ticks.elf");
    std::fs::write(&kernel, kernels::ticks(1_000_000))?;
    for irqchip in IRQCHIPS {
        let mut vm = Vm::new("pc")
            .kernel(&kernel)
            .args("-m 64")
            .option("-accel", format!("kvm,kernel-irqchip={irqchip}"))
            .with_qmp()
            .boot()?;
        let mut qmp = vm.qmp()?;
        vm.expect("abcdef")?;
        let pic = qmp.hmp("info pic")?;
        assert!(pic.contains("imr=fe"), "{irqchip}: {pic}");
        qmp.execute("quit", serde_json::json!({}))?;
        vm.expect_success()?;
    }
    Ok(())
}

/// What KVM cannot run ends in a sentence with the place, not in a hang.
#[test]
fn a_triple_fault_resets_and_no_reboot_ends() -> Result<(), Error> {
    if !has_kvm() {
        return skip("no usable /dev/kvm");
    }
    let folder = Folder::new()?;
    let kernel = folder.join("fault.elf");
    // push 0; push 0; lidt [esp]; ud2
    let program = [0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b];
    std::fs::write(&kernel, kernels::pvh_elf(&program))?;
    let mut vm = Vm::new("microvm")
        .kernel(&kernel)
        .args("-m 64 -accel kvm")
        .boot()?;
    vm.expect_success()
}
