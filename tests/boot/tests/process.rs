//! How the process runs, and what outlives a reset.

use std::path::{Path, PathBuf};

use test_boot::{Error, Folder, Vm, kernels, skip};

#[test]
fn boot_once_holds_until_the_first_reset() -> Result<(), Error> {
    let folder = Folder::new()?;
    let kernel = folder.join("order.elf");
    // Writes CMOS byte 3Dh, the first two boot devices, as a digit, and resets by port CF9h.
    let program = [
        0xb0, 0x3d, 0xe6, 0x70, // mov al, 0x3d; out 0x70, al
        0xe4, 0x71, 0x04, 0x30, // in al, 0x71; add al, '0'
        0x66, 0xba, 0xf8, 0x03, 0xee, // mov dx, 0x3f8; out dx, al
        0x66, 0xba, 0xf9, 0x0c, // mov dx, 0xcf9
        0xb0, 0x06, 0xee, // mov al, 6; out dx, al
        0xf4, 0xeb, 0xfd, // hlt
    ];
    std::fs::write(&kernel, kernels::pvh_elf(&program))?;
    for (machine, order) in [("pc", "once=d,order=c"), ("q35", "once=d,order=c,menu=on")] {
        let mut vm = Vm::new(machine)
            .kernel(&kernel)
            .args("-accel tcg -m 64 -action reboot=reset")
            .option("-boot", order)
            .boot()?;
        // CD, then disk from the first reset on.
        vm.expect("3222")?;
        assert!(vm.console().text().starts_with('3'));
    }
    Ok(())
}

/// The values of a line of `/proc/PID/status`.
fn status(task: &Path, name: &str) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(task.join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let words = line.unwrap_or_default().split_whitespace();
    Ok(words.map(str::to_owned).collect())
}

#[test]
fn the_process_gives_up_its_root_and_its_user() -> Result<(), Error> {
    let me = Path::new("/proc/self");
    if status(me, "Uid:")?.first().is_none_or(|uid| uid != "0") {
        return skip("only the superuser may change root and user");
    }
    let folder = Folder::new()?;
    let kernel = folder.join("ticks.elf");
    std::fs::write(&kernel, kernels::ticks(1_000_000))?;
    let jail = folder.join("jail");
    std::fs::create_dir(&jail)?;
    let mut vm = Vm::new("pc")
        .kernel(&kernel)
        .args("-accel tcg -m 64")
        .option(
            "-run-with",
            format!("chroot={},user=1234:4321,async-teardown=on", jail.display()),
        )
        .with_qmp()
        .boot()?;
    let mut qmp = vm.qmp()?;
    vm.expect("abc")?;
    let process = PathBuf::from(format!("/proc/{}", vm.pid()));
    assert_eq!(std::fs::read_link(process.join("root"))?, jail);
    let mut cleaner = None;
    for task in std::fs::read_dir(process.join("task"))? {
        let task = task?.path();
        assert_eq!(status(&task, "Uid:")?, ["1234"; 4]);
        assert_eq!(status(&task, "Gid:")?, ["4321"; 4]);
        assert_eq!(status(&task, "Groups:")?, ["4321"]);
        let children = std::fs::read_to_string(task.join("children"))?;
        cleaner = cleaner.or(children.split_whitespace().next().map(str::to_owned));
    }
    // The process that keeps the memory holds nothing else.
    let cleaner = PathBuf::from(format!("/proc/{}", cleaner.unwrap_or_default()));
    for _ in 0..100 {
        if std::fs::read_dir(cleaner.join("fd"))?.count() == 0 {
            break;
        }
        // It may not have come to that yet: 26 ticks of the guest's.
        vm.expect("a")?;
    }
    assert_eq!(std::fs::read_dir(cleaner.join("fd"))?.count(), 0);
    qmp.execute("quit", serde_json::json!({}))?;
    vm.expect_success()
}
