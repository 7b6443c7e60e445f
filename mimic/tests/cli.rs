//! The command line as a user meets it: what is printed where, and with which exit status.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use test_boot::kernels;

fn mimic() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mimic"));
    command.stdin(Stdio::null()).env_remove("MIMIC_LOG");
    command
}

fn run(line: &str) -> Output {
    mimic().args(words(line)).output().unwrap()
}

/// Words of a line; a word in single quotes may have spaces in it.
fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            out.push(part.to_owned());
        } else {
            out.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    out
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Compares with a golden file, or rewrites it under `BLESS=1`.
fn golden(name: &str, text: &str) {
    let path = golden_path(name);
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    if text != wanted {
        let line = text
            .lines()
            .zip(wanted.lines())
            .position(|(a, b)| a != b)
            .unwrap_or(0);
        panic!(
            "{} differs from line {} on; 'cargo xtask bless' rewrites it. Now it is:\n{text}",
            path.display(),
            line + 1
        );
    }
}

/// A kernel that loads an empty interrupt table and then needs it.
fn triple_faults() -> Vec<u8> {
    // push 0; push 0; lidt [esp]; ud2
    kernels::pvh_elf(&[
        0xbc, 0, 0x80, 0, 0, 0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b,
    ])
}

/// A file of this test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, contents: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("mimic-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn golden_every_list_that_help_prints() {
    let mut text = String::new();
    for line in [
        "-version",
        "-machine help",
        "-machine microvm,help",
        "-machine q35,help",
        "-accel help",
        "-accel tcg,help",
        "-device help",
        "-object help",
        "-object rng-random,help",
        "-chardev help",
        "-chardev socket,help",
        "-netdev help",
        "-blockdev driver=help",
        "-display help",
        "-vga help",
        "-audiodev help",
        "-d help",
        "-smp help",
    ] {
        let output = run(line);
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{line}: {}",
            stderr(&output)
        );
        // Whether KVM is usable is the host's affair.
        let plain: String = stdout(&output)
            .lines()
            .map(|line| match line.split_once(" (") {
                Some((kvm, _)) if kvm.starts_with("kvm ") => format!("{kvm} (STATE)\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        text += &format!("$ mimic {line}\n{plain}\n");
    }
    golden("help.txt", &text);
}

#[test]
fn golden_the_properties_of_devices() {
    let mut text = String::new();
    for class in mimic::devices::classes().filter(|class| class.user_creatable) {
        let output = run(&format!("-device {},help", class.name));
        assert!(output.status.success(), "{}", class.name);
        text += &stdout(&output);
        text.push('\n');
    }
    golden("devices.txt", &text);
}

/// Mistakes, each with its message. `KERNEL`, `TEXT` and `QCOW2` stand for files.
const MISTAKES: &[&str] = &[
    "",
    "-kernle x",
    "-m=4G",
    "-kernel",
    "-machine q36",
    "-machine q35,hpte=off",
    "-machine q35,hpet=perhaps",
    "-machine q35,memory-backend=ram0",
    "-machine q35,sata=on",
    "-machine microvm,pcie=on",
    "-machine pc,smm=on",
    "-machine pc,max-ram-below-4g=5G",
    "-machine pc,pcspk-audiodev=snd0",
    "-accel kmv",
    "-accel kvm,kernel-irqchip=maybe",
    "-accel tcg,thread=both",
    "-accel tcg,thread=single -smp 2",
    "-accel qtest",
    "-cpu qemu65",
    "-cpu host",
    "-cpu qemu64,+ss3",
    "-cpu qemu64,enforce,+avx512f",
    "-smp 0",
    "-smp 3,cores=2",
    "-smp 1000",
    "-m nonsense",
    "-m 4G,slots=2,maxmem=8G",
    "-kernel /nonexistent/kernel",
    "-kernel /",
    "-kernel TEXT",
    "-initrd TEXT",
    "-append quiet",
    "-kernel KERNEL -initrd /nonexistent/initrd",
    "-machine microvm -kernel KERNEL -bios ROM",
    "-machine pc -kernel KERNEL -bios ROM",
    "-device isa-seral",
    "-device e1000",
    "-device isa-serial,chardve=x",
    "-device isa-serial,index=many",
    "-device virtio-blk-pci,acpi-index=1",
    "-drive if=none,id=a,file=TEXT,format=raw -drive if=none,id=b,file=ROM,format=raw \
     -device virtio-blk-pci,drive=a,bootindex=1 -device virtio-blk-pci,drive=b,bootindex=1 -kernel KERNEL",
    "-device isa-serial,chardev=nosuch",
    "-device isa-serial,id=a -device isa-debugcon,id=a",
    "-device apic",
    "-machine none -device isa-serial",
    "-machine microvm -kernel KERNEL -device virtio-rng-pci",
    "-machine q35 -device virtio-blk-device",
    "-device '{\"driver\":\"isa-serial\",}'",
    "-global isa-serial.indx=3",
    "-global isa-seral.index=3",
    "-global hpett.msi=on",
    "-global hpet.hpet-intcap=1",
    "-global mc146818rtc.lost_tick_policy=slew",
    "-machine microvm -parallel null -kernel KERNEL",
    "-drive if=virtio",
    "-drive if=virtio,file=/nonexistent/disk,format=raw",
    "-drive if=virtio,file=QCOW2",
    "-drive if=virtio,file=TEXT,format=qcow3",
    "-drive if=ide,file=TEXT,format=raw",
    "-drive if=virtio,file=nbd:localhost:1,format=raw",
    "-drive if=none,id=a,file=TEXT,format=raw -drive if=none,id=a,file=TEXT,format=raw",
    "-drive if=virtio,file=TEXT,format=raw,aio=io_uring",
    "-device virtio-blk-pci,drive=nosuch",
    "-drive if=virtio,id=a,file=TEXT,format=raw -device virtio-blk-pci,drive=a",
    "-chardev null,id=a -device isa-serial,chardev=a -device isa-serial,chardev=a -kernel KERNEL",
    "-blockdev driver=rwa,node-name=a",
    "-blockdev driver=raw,node-name=a,file=b",
    "-blockdev driver=file,node-name=a",
    "-blockdev driver=qcow2,node-name=a,file.filename=TEXT",
    "-cdrom TEXT",
    "TEXT",
    "-snapshot",
    "-chardev sdtio,id=x",
    "-chardev file,id=x",
    "-chardev null,id=a -chardev null,id=a",
    "-serial chardev:foo",
    "-serial stdoi",
    "-serial stdio -monitor stdio",
    "-mon chardev=nosuch",
    "-object rng-randm,id=x",
    "-object rng-random",
    "-object rng-random,id=x,filename=/nonexistent/rng",
    "-object memory-backend-ram,id=ram0",
    "-object memory-backend-file,id=m,size=1M",
    "-machine none,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=/nonexistent/ram",
    "-machine q35,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=/nonexistent/ram",
    "-machine q35,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=TEXT",
    "-machine q35,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=/dev/null",
    "-machine q35,memory-backend=m -object memory-backend-file,id=m,size=1M,mem-path=a -mem-path b",
    "-mem-path TEXT",
    "-netdev user,id=n",
    "-nic user",
    "-vga std",
    "-display gtk",
    "-audiodev pa,id=a",
    "-sandbox on,spawn=perhaps",
    "-run-with user=nobody",
    "-d everything",
    "-D /nonexistent/log",
    "-pidfile /nonexistent/pid -machine none -S -nodefaults -display none",
    "-boot order=zz",
    "-boot once=c",
    "-rtc base=yesterday",
    "-rtc clock=rt",
    "-rtc driftfix=slew",
    "-action watchdog=pause",
    "-watchdog-action none",
    "-overcommit mem-lock=maybe",
    "-uuid 1234",
    "-action reboot=explode",
    "-fw_cfg name=opt/x,file=/nonexistent/x",
    "-fw_cfg name=opt/x",
    "-qtest stdio",
    "-daemonize -nographic",
    "run",
    "run /nonexistent/kernel",
    "run KERNEL --smpp 2",
];

#[test]
fn golden_every_mistake_is_a_sentence_and_status_1() {
    let kernel = Scratch::new("kernel", &kernels::hello("", 0));
    let text = Scratch::new("text", b"Dear guest,\nhow are you?\n");
    let qcow2 = Scratch::new("qcow2", b"QFI\xfb\0\0\0\x03");
    let rom = Scratch::new("rom", &[0xf4; 0x1_0000]);
    let files = [
        ("KERNEL", &kernel),
        ("TEXT", &text),
        ("QCOW2", &qcow2),
        ("ROM", &rom),
    ];
    let mut all = String::new();
    for line in MISTAKES {
        let with_paths = files.iter().fold((*line).to_owned(), |l, (name, file)| {
            l.replace(name, file.path())
        });
        let output = run(&with_paths);
        assert_eq!(output.status.code(), Some(1), "{line}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{line}: {}", stdout(&output));
        let message = stderr(&output);
        assert_eq!(message.lines().count(), 1, "{line}: {message}");
        let plain = files
            .iter()
            .fold(message, |m, (name, file)| m.replace(file.path(), name));
        all += &format!("$ mimic {line}\n{plain}\n");
    }
    golden("errors.txt", &all);
}

#[test]
fn more_memory_than_the_host_has_is_refused() {
    let output = run("-m 16384T");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("more than this host has"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_first_line_of_help_is_the_version() {
    let help = stdout(&run("-h"));
    assert!(help.starts_with("QEMU emulator version 10.0."), "{help}");
    assert!(help.lines().next().unwrap().contains("mimic"));
    assert_eq!(help, stdout(&run("--help")));
}

#[test]
fn the_name_of_the_program_picks_the_guest() {
    let folder = std::env::temp_dir().join(format!("mimic-cli-names-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let as_name = |name: &str| {
        let link = folder.join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mimic"), &link).unwrap();
        Command::new(&link)
            .arg("-version")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert!(as_name("qemu-system-x86_64").status.success());
    let other = as_name("qemu-system-s390x");
    assert_eq!(other.status.code(), Some(1));
    assert!(
        stderr(&other).starts_with("qemu-system-s390x: guests of kind 's390x' are not built yet")
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

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
    let mut qmp = Qmp::start(
        "-machine q35 -m 16 -S -serial null -parallel null -global isa-serial.irq=5 \
         -global isa-serial.index=3 -global isa-parallel.iobase=0x278",
    );
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

/// A QMP client on the process's own streams.
struct Qmp {
    child: std::process::Child,
    /// Seen while waiting for an answer.
    events: VecDeque<Value>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Qmp {
    fn start(line: &str) -> Self {
        let mut child = mimic()
            .args(words(line))
            .args(["-nodefaults", "-display", "none", "-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut qmp = Self {
            child,
            events: VecDeque::new(),
            lines,
        };
        assert!(qmp.next()["QMP"]["version"].is_object());
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    /// The answer; events before it are kept.
    fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let message = json!({ "execute": command, "arguments": arguments });
        // In one piece: after "quit" there is nobody to take a second one.
        let line = format!("{message}\n");
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        loop {
            let mut message = self.next();
            if message.get("event").is_none() {
                return message["return"].take();
            }
            self.events.push_back(message);
        }
    }

    fn hmp(&mut self, line: &str) -> String {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }));
        answer.as_str().unwrap().to_owned()
    }

    fn event(&mut self, name: &str) -> Value {
        loop {
            let message = match self.events.pop_front() {
                Some(message) => message,
                None => self.next(),
            };
            if message["event"] == name {
                assert!(message["timestamp"]["seconds"].as_u64().unwrap() > 1_600_000_000);
                return message["data"].clone();
            }
        }
    }

    fn end(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Qmp {
    fn status(&mut self) -> Value {
        self.execute("query-status", json!({}))["status"].take()
    }
}

#[test]
fn the_machine_none_answers_what_libvirt_asks_first() {
    let mut qmp = Qmp::start("-S -no-user-config -machine none,accel=kvm:tcg");
    assert_eq!(qmp.status(), "prelaunch");
    assert_eq!(qmp.execute("query-target", json!({}))["arch"], "x86_64");
    assert!(qmp.execute("query-kvm", json!({}))["present"].is_boolean());
    let machines = qmp.execute("query-machines", json!({}));
    assert!(
        machines
            .as_array()
            .unwrap()
            .iter()
            .any(|m| m["alias"] == "q35")
    );
    let cpus = qmp.execute("query-cpu-definitions", json!({}));
    assert!(
        cpus.as_array()
            .unwrap()
            .iter()
            .any(|c| c["typename"] == "max-x86_64-cpu")
    );
    let types = qmp.execute("qom-list-types", json!({}));
    let names: Vec<_> = types
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    for name in [
        "tcg-accel",
        "isa-serial",
        "memory-backend-ram",
        "max-x86_64-cpu",
        "none-machine",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    for name in names {
        let answer = qmp.execute("qom-list-properties", json!({ "typename": name }));
        assert!(answer.is_array(), "{name}");
    }
    qmp.execute("quit", json!({}));
    assert_eq!(
        qmp.event("SHUTDOWN"),
        json!({ "guest": false, "reason": "host-qmp-quit" })
    );
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_machine_is_stopped_continued_and_reset_with_an_event_each() {
    let kernel = Scratch::new("loop", &kernels::hello_and_halt(""));
    let mut qmp = Qmp::start(&format!(
        "-machine microvm -m 16 -S -smp 2 -kernel {}",
        kernel.path()
    ));
    assert_eq!(
        qmp.execute("query-cpus-fast", json!({}))
            .as_array()
            .unwrap()
            .len(),
        2
    );
    qmp.execute("cont", json!({}));
    qmp.event("RESUME");
    assert_eq!(qmp.status(), "running");
    qmp.execute("stop", json!({}));
    qmp.event("STOP");
    assert_eq!(qmp.status(), "paused");
    assert!(qmp.hmp("info registers").contains("EIP="));
    let code = qmp.hmp("xp/3i 0x100000");
    assert!(code.contains("mov") && code.contains("lodsb"), "{code}");
    qmp.execute("system_reset", json!({}));
    assert_eq!(
        qmp.event("RESET"),
        json!({ "guest": false, "reason": "host-qmp-system-reset" })
    );
    qmp.execute("quit", json!({}));
    qmp.event("SHUTDOWN");
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_signal_ends_the_machine_as_a_command_would() {
    let mut qmp = Qmp::start("-machine none -S");
    let pid = qmp.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        qmp.event("SHUTDOWN"),
        json!({ "guest": false, "reason": "host-signal" })
    );
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn a_shut_down_machine_that_stays_still_quits() {
    let kernel = Scratch::new("stays", &triple_faults());
    let mut qmp = Qmp::start(&format!(
        "-machine microvm -m 16 -S -no-reboot -no-shutdown -kernel {}",
        kernel.path()
    ));
    qmp.execute("cont", json!({}));
    assert_eq!(
        qmp.event("SHUTDOWN"),
        json!({ "guest": true, "reason": "guest-reset" })
    );
    qmp.event("STOP");
    assert_eq!(qmp.status(), "shutdown");
    qmp.execute("quit", json!({}));
    qmp.event("SHUTDOWN");
    assert_eq!(qmp.end(), Some(0));
}

#[test]
fn golden_the_memory_map_of_each_machine() {
    let kernel = Scratch::new("mtree", &kernels::hello_and_halt(""));
    let mut text = String::new();
    for machine in ["microvm", "pc", "q35"] {
        let mut qmp = Qmp::start(&format!(
            "-machine {machine} -m 64 -S -rtc base=2020-02-02,clock=vm -kernel {}",
            kernel.path()
        ));
        text += &format!(
            "$ mimic -machine {machine}: info mtree\n{}\n",
            qmp.hmp("info mtree")
        );
        text += &format!(
            "$ mimic -machine {machine}: info qtree\n{}\n",
            qmp.hmp("info qtree")
        );
        text += &format!(
            "$ mimic -machine {machine}: info pci\n{}\n",
            qmp.hmp("info pci")
        );
        qmp.execute("quit", json!({}));
        assert_eq!(qmp.end(), Some(0));
    }
    golden("machines.txt", &text);
}

#[test]
fn going_to_the_background_leaves_pid_file_and_socket_in_place() {
    let folder = std::env::temp_dir().join(format!("mimic-cli-daemon-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (pid, socket) = (folder.join("pid"), folder.join("qmp"));
    let line = format!(
        "-S -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:{},server=on,wait=off -pidfile {} -daemonize",
        socket.display(),
        pid.display()
    );
    let output = run(&line);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        std::fs::read_to_string(&pid)
            .unwrap()
            .trim()
            .parse::<u32>()
            .is_ok()
    );
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream
        .write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}")
        .unwrap();
    // The stream ends with the process; the pid file goes before that.
    let lines: Vec<_> = BufReader::new(&stream)
        .lines()
        .map_while(Result::ok)
        .collect();
    assert!(
        lines.iter().any(|line| line.contains("SHUTDOWN")),
        "{lines:?}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
