//! Machines under the control of a monitor, a signal or their starter.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use test_boot::kernels;

use super::*;

/// A QMP client on the process's own streams.
pub(crate) struct Qmp {
    pub(crate) child: std::process::Child,
    /// Seen while waiting for an answer.
    events: VecDeque<Value>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Qmp {
    pub(crate) fn start(line: &str) -> Self {
        let mut command = mimic();
        command.stderr(Stdio::null());
        Self::start_as(command, line)
    }

    pub(crate) fn start_as(mut command: Command, line: &str) -> Self {
        let mut child = command
            .args(words(line))
            .args(["-nodefaults", "-display", "none", "-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
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
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Value {
        self.answer(command, arguments)["return"].take()
    }

    /// Why a command failed.
    pub(crate) fn error(&mut self, command: &str, arguments: Value) -> String {
        let answer = self.answer(command, arguments);
        answer["error"]["desc"].as_str().unwrap().to_owned()
    }

    fn answer(&mut self, command: &str, arguments: Value) -> Value {
        let message = json!({ "execute": command, "arguments": arguments });
        // In one piece: after "quit" there is nobody to take a second one.
        let line = format!("{message}\n");
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        loop {
            let message = self.next();
            if message.get("event").is_none() {
                return message;
            }
            self.events.push_back(message);
        }
    }

    pub(crate) fn hmp(&mut self, line: &str) -> String {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }));
        answer.as_str().unwrap().to_owned()
    }

    pub(crate) fn event(&mut self, name: &str) -> Value {
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

    pub(crate) fn end(mut self) -> Option<i32> {
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
    let pid = rustix::process::Pid::from_child(&qmp.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
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

#[test]
#[cfg(debug_assertions)]
fn a_panic_leaves_a_dump_of_the_machine_and_status_1() {
    let kernel = Scratch::new("panics", &kernels::hello_and_halt("last words\n"));
    let said = Scratch::new("panics-said", b"");
    let line = format!(
        "-machine microvm -m 16 -smp 2 -kernel {} -serial file:{}",
        kernel.path(),
        said.path()
    );
    let mut command = mimic();
    command.env("MIMIC_TEST_PANIC", "1").stderr(Stdio::piped());
    let mut qmp = Qmp::start_as(command, &line);
    while !std::fs::read_to_string(said.path())
        .unwrap()
        .contains("words")
    {
        assert_eq!(qmp.status(), "running");
    }
    let request = json!({ "execute": "system_powerdown" });
    let stdin = qmp.child.stdin.as_mut().unwrap();
    stdin.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut message = String::new();
    let mut errors = qmp.child.stderr.take().unwrap();
    errors.read_to_string(&mut message).unwrap();
    assert_eq!(qmp.end(), Some(1), "{message}");
    assert!(message.contains("on purpose"), "{message}");
    let path = message
        .split_once("the state of the machine was written to '")
        .and_then(|(_, rest)| rest.split_once('\''))
        .map(|(path, _)| path.to_owned());
    let path = path.unwrap_or_else(|| panic!("{message}"));
    let dump = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for part in [
        "on purpose",
        "microvm",
        "VM status: running",
        "CPU#0 ",
        "CPU#1 ",
        "EIP=001000",
    ] {
        assert!(dump.contains(part), "{part}: {dump}");
    }
}
