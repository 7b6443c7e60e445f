//! Kernels of a few bytes through the PVH entry.

use test_boot::{Error, Vm, kernels};

/// Boots the kernel that says hello and leaves with a code.
fn says_hello(machine: &str) -> Result<(), Error> {
    let folder = tempfile()?;
    let kernel = folder.0.join("hello.elf");
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

/// A folder that goes away with the test.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempfile() -> Result<Folder, Error> {
    let name = std::thread::current()
        .name()
        .unwrap_or("pvh")
        .replace("::", "-");
    let path = std::env::temp_dir().join(format!("mimic-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    Ok(Folder(path))
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
