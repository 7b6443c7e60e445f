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
    assert_eq!(run("exec,cpu,in_asm,op,out_asm", "0x200000..0x2fffff")?, "");
    Ok(())
}

/// What each item of `-d` logs of a kernel whose program is these bytes.
fn logged(program: &[u8], item: &str) -> Result<String, Error> {
    let folder = Folder::new()?;
    let (kernel, log) = (folder.join("kernel.elf"), folder.join("log"));
    std::fs::write(&kernel, kernels::pvh_elf(program))?;
    let mut vm = Vm::new("microvm")
        .kernel(&kernel)
        .args("-accel tcg -m 64 -no-reboot")
        .option("-d", item)
        .option("-D", log.display().to_string())
        .boot()?;
    vm.wait_exit()?;
    Ok(std::fs::read_to_string(&log)?)
}

#[test]
fn each_item_of_the_log_shows_its_part_of_a_unit() -> Result<(), Error> {
    // mov eax, 0x1234; add eax, ebx; ud2. There is no IDT: the CPU shuts down.
    let program = [0xb8, 0x34, 0x12, 0, 0, 0x01, 0xd8, 0x0f, 0x0b];
    let parts: [(&str, &[&str]); 6] = [
        (
            "in_asm",
            &["IN:\n0x00100000:  mov eax,1234h\n0x00100005:  add eax,ebx\n0x00100007:  ud2\n"],
        ),
        (
            "op",
            &[
                "unit at 0x100000:\nb0():\n insn 0x100000\n",
                " = 0x1234\n",
                " insn 0x100005\n",
                "flags.def add.i32 ",
                " insn 0x100007\n",
            ],
        ),
        (
            "out_asm",
            &["OUT: guest at 0x100000, ", " bytes\n0x", ",1234h\n0x"],
        ),
        ("exec", &["cpu 0 0x0000000000100000\n"]),
        (
            "int",
            &[
                "cpu 0: v=06 e=0000 ",
                "cpu 0: v=0d e=0033 ",
                "cpu 0: v=08 e=0000 ",
            ],
        ),
        (
            "mmu",
            &["cpu 0: Fetch 0x100000 cr3=0x0: 0x100000 rwx- page 2^12\n"],
        ),
    ];
    for (item, wanted) in parts {
        if item == "out_asm" && !cfg!(target_arch = "x86_64") {
            continue;
        }
        let text = logged(&program, item)?;
        let mut rest = text.as_str();
        for part in wanted {
            let Some(at) = rest.find(part) else {
                panic!("{item} does not show {part:?}:\n{text}");
            };
            rest = &rest[at..];
        }
        // Of each item no more than it is for.
        for (other, parts) in &parts {
            let first = parts[0];
            assert!(
                *other == item || !text.contains(first),
                "{item} shows {other}:\n{text}"
            );
        }
    }
    Ok(())
}
