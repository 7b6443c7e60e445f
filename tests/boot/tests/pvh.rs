//! Kernels of a few bytes through the PVH entry.

use test_boot::{Error, Folder, Vm, kernels};

/// Boots the kernel that says hello and leaves with a code.
fn says_hello(machine: &str) -> Result<(), Error> {
    let folder = Folder::new()?;
    let kernel = folder.join("hello.elf");
    std::fs::write(&kernel, kernels::hello("hello from PVH\r\n", 3))?;
    let mut vm = Vm::new(machine)
        .kernel(&kernel)
        .args("-accel tcg -m 64")
        .option(
            "-device",
            format!("isa-debug-exit,iobase={:#x},iosize=1", kernels::EXIT_PORT),
        )
        .boot()?;
    vm.expect("hello from PVH\r\n")?;
    assert_eq!(vm.wait_exit()?.status.code(), Some(7));
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
