//! Small guests, and what options do to them.

use serde_json::json;
use test_boot::kernels;

use super::control::Qmp;
use super::*;

#[test]
fn an_accelerator_that_is_not_to_be_had_falls_back_and_says_why() {
    let output = run("-accel qtest:tcg -device nosuch");
    assert!(stderr(&output).contains("no device named 'nosuch'"));
    let kernel = Scratch::new("fallback", &kernels::hello("", 3));
    let line = format!(
        "-machine microvm,accel=qtest:tcg -m 16 -display none -nodefaults -kernel {} -device isa-debug-exit,iobase=0xf4",
        kernel.path()
    );
    let output = run(&line);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("'qtest' cannot be used"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_guest_ends_the_process_with_its_own_status() {
    let kernel = Scratch::new("exit", &kernels::hello("", 0x2a));
    for machine in ["pc", "q35", "microvm"] {
        let line = format!(
            "-machine {machine} -m 16 -display none -nodefaults -kernel {} -device isa-debug-exit,iobase=0xf4",
            kernel.path()
        );
        let output = run(&line);
        assert_eq!(
            output.status.code(),
            Some(0x55),
            "{machine}: {}",
            stderr(&output)
        );
        assert!(output.stderr.is_empty(), "{machine}: {}", stderr(&output));
    }
}

#[test]
fn a_guest_writes_to_its_serial_port() {
    let kernel = Scratch::new("hello", &kernels::hello("hello\n", 0));
    let output = run(&format!(
        "-machine q35 -m 16 -nographic -kernel {} -device isa-debug-exit,iobase=0xf4",
        kernel.path()
    ));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stdout(&output), "hello\n");
}

/// Runs `kernel` with its memory in `file`.
fn run_in_file(kernel: &Scratch, file: &str, share: &str) {
    let output = run(&format!(
        "-machine microvm,memory-backend=m -object memory-backend-file,id=m,size=16M,mem-path={file},share={share} \
         -display none -nodefaults -kernel {} -device isa-debug-exit,iobase=0xf4",
        kernel.path()
    ));
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
}

#[test]
fn guest_memory_is_in_the_file_if_it_is_shared() {
    let kernel = Scratch::new("memory-kernel", &kernels::hello("", 3));
    let memory = Scratch::new("memory", b"");
    let is_zero = || {
        let bytes = std::fs::read(memory.path()).unwrap();
        assert!(bytes.len() == 16 << 20);
        bytes.iter().all(|b| *b == 0)
    };
    std::fs::remove_file(memory.path()).unwrap();
    run_in_file(&kernel, memory.path(), "off");
    assert!(is_zero());
    run_in_file(&kernel, memory.path(), "on");
    assert!(!is_zero());
}

#[test]
fn a_file_longer_than_guest_memory_keeps_its_end() {
    let kernel = Scratch::new("longer-kernel", &kernels::hello("", 3));
    let mut bytes = vec![0; (16 << 20) + 8];
    bytes[16 << 20..].copy_from_slice(b"the end.");
    let memory = Scratch::new("longer", &bytes);
    run_in_file(&kernel, memory.path(), "on");
    assert!(
        std::fs::read(memory.path())
            .unwrap()
            .ends_with(b"\0the end.")
    );
}

#[test]
fn guest_memory_in_a_folder_leaves_no_file() {
    let kernel = Scratch::new("folder-kernel", &kernels::hello("", 3));
    let folder = std::env::temp_dir().join(format!("mimic-cli-folder-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    run_in_file(&kernel, folder.to_str().unwrap(), "on");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_global_property_reaches_the_ports_of_the_machine() {
    // Without a kernel, firmware would have to be there.
    let kernel = Scratch::new("ports-kernel", &kernels::hello("", 3));
    let mut qmp = Qmp::start(&format!(
        "-machine q35 -m 16 -S -serial null -parallel null -global isa-serial.irq=5 \
         -global isa-serial.index=3 -global isa-parallel.iobase=0x278 -kernel {}",
        kernel.path()
    ));
    let tree = qmp.hmp("info qtree");
    let about = |device: &str| {
        let start = tree.find(&format!("dev: {device},")).unwrap();
        tree[start..].split("dev:").nth(1).unwrap().to_owned()
    };
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(name));
        let value = line.and_then(|l| l.strip_prefix(" = ")).unwrap();
        value.trim_matches('"').to_owned()
    };
    // The board's own numbers win.
    let serial = about("isa-serial");
    assert_eq!(
        (value(&serial, "irq"), value(&serial, "index")),
        ("5".into(), "0".into())
    );
    let parallel = about("isa-parallel");
    assert!(parallel.contains("0x278"), "{parallel}");
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_global_property_reaches_the_boards_own_devices() {
    // mov eax,[0xfed00000]; shr eax,8; and al,0x1f; out 0xf4,al; hlt: the number of the last timer.
    let code = [
        0xa1, 0, 0, 0xd0, 0xfe, 0xc1, 0xe8, 8, 0x24, 0x1f, 0xe6, 0xf4, 0xf4,
    ];
    let kernel = Scratch::new("timers", &kernels::pvh_elf(&code));
    for (global, status) in [("", 5), ("-global hpet.timers=5", 9)] {
        let output = run(&format!(
            "-machine q35 -m 16 -display none -nodefaults -kernel {} -device isa-debug-exit,iobase=0xf4 {global}",
            kernel.path()
        ));
        assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
    }
}

#[test]
fn memory_locked_on_fault_is_locked_as_it_is_used() {
    let line = "-machine q35 -m 64 -S -overcommit mem-lock=on-fault";
    let kernel = Scratch::new("locked", &kernels::hello("", 3));
    let more = "-display none -nodefaults -device isa-debug-exit,iobase=0xf4";
    let output = run(&format!(
        "{} {more} -kernel {}",
        line.replace("-S ", ""),
        kernel.path()
    ));
    if output.status.code() != Some(7) {
        // A host that lets users lock less than that.
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        return;
    }
    let mut qmp = Qmp::start(line);
    let status = std::fs::read_to_string(format!("/proc/{}/status", qmp.child.id())).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let kib: u64 = locked
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(kib >= 64 << 10, "{kib}");
    qmp.execute("quit", json!({}));
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_guest_runs_in_the_sandbox() {
    let kernel = Scratch::new("sandbox", &kernels::hello("hello\n", 3));
    let output = run(&format!(
        "-machine q35 -m 16 -smp 2 -nographic -kernel {} -device isa-debug-exit,iobase=0xf4 \
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        kernel.path()
    ));
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(stdout(&output), "hello\n");
}

#[test]
fn a_multiplexer_serves_two_devices() {
    let kernel = Scratch::new("mux", &kernels::hello("hello\n", 0));
    let output = run(&format!(
        "-machine q35 -m 16 -display none -nodefaults -chardev stdio,id=a,mux=on -device isa-serial,chardev=a \
         -device isa-debugcon,chardev=a -kernel {} -device isa-debug-exit,iobase=0xf4",
        kernel.path()
    ));
    assert_eq!(stdout(&output), "hello\n", "{}", stderr(&output));
}

#[test]
fn a_triple_fault_resets_and_no_reboot_makes_that_the_end() {
    let kernel = Scratch::new("fault", &triple_faults());
    let output = run(&format!(
        "-machine microvm -m 16 -nographic -no-reboot -kernel {}",
        kernel.path()
    ));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}
