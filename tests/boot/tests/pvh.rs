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

/// What `-d` logs of units: with `-dfilter` of those that begin there only.
#[test]
fn a_log_shows_units_and_registers_where_the_filter_says() -> Result<(), Error> {
    let folder = Folder::new()?;
    let (kernel, log) = (folder.join("hello.elf"), folder.join("log"));
    std::fs::write(&kernel, kernels::hello("x\n", 3))?;
    let run = |items: &str, filter: &str| -> Result<String, Error> {
        let mut vm = Vm::new("microvm")
            .kernel(&kernel)
            .args("-accel tcg -m 64")
            .option("-d", items)
            .option("-dfilter", filter)
            .option("-D", log.display().to_string())
            .option(
                "-device",
                format!("isa-debug-exit,iobase={:#x},iosize=1", kernels::EXIT_PORT),
            )
            .boot()?;
        assert_eq!(vm.wait_exit()?.status.code(), Some(7));
        Ok(std::fs::read_to_string(&log)?)
    };
    let text = run("exec,cpu", "0x100000+0x1000")?;
    assert!(text.starts_with("cpu 0 0x0000000000100000\nEAX="), "{text}");
    assert!(!text.contains("FCW="), "{text}");
    assert!(run("cpu,fpu", "0x100000+1")?.contains("FCW="));
    assert_eq!(run("exec,cpu,in_asm,op", "0x200000..0x2fffff")?, "");
    Ok(())
}
