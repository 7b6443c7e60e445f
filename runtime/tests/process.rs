//! What only a process of its own can show: the terminal after its end, and life in the background.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use runtime::process::{PidFile, daemonize, exit_on_panic};
use runtime::signals::{self, Signal};
use runtime::terminal::RawMode;
use runtime::{EventLoop, thread};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

const ROLE: &str = "MIMIC_TEST_ROLE";
const PIDFILE: &str = "MIMIC_TEST_PIDFILE";

/// Runs as one of the roles if told to, else the tests, one after the other. There is no test harness because its threads
/// would take the signals and forbid the fork.
fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        child(&role);
    }
    let tests: [(&str, fn()); 4] = [
        (
            "the_terminal_is_restored_however_the_process_ends",
            the_terminal_is_restored_however_the_process_ends,
        ),
        (
            "a_panic_anywhere_ends_the_process_after_its_last_words",
            a_panic_anywhere_ends_the_process_after_its_last_words,
        ),
        (
            "a_daemon_has_its_pid_file_when_its_starter_ends",
            a_daemon_has_its_pid_file_when_its_starter_ends,
        ),
        (
            "a_daemon_that_dies_early_makes_its_starter_fail",
            a_daemon_that_dies_early_makes_its_starter_fail,
        ),
    ];
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
}

/// Starts this file again as a process in the given role.
fn start(role: &str, stdin: Stdio, pidfile: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ROLE, role)
        .env(PIDFILE, pidfile)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The other process.
fn child(role: &str) -> ! {
    if let Some(after) = role.strip_prefix("daemon-") {
        let daemon = daemonize().unwrap();
        if after == "fails" {
            std::process::exit(3);
        }
        let file = PidFile::create(Path::new(&std::env::var(PIDFILE).unwrap())).unwrap();
        daemon.ready().unwrap();
        // Long enough alive for nobody to look: the parent has been told.
        std::mem::forget(file);
        std::process::exit(0);
    }
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let quit = handle.clone();
    let watch = signals::watch(&[Signal::Term], &handle, move |_| quit.quit()).unwrap();
    let raw = RawMode::enter(std::io::stdin().as_fd(), false)
        .unwrap()
        .unwrap();
    println!("raw");
    match role {
        "panic" => {
            let _ = thread::spawn("panics", || panic!("on purpose"))
                .unwrap()
                .join();
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        "vital" => {
            exit_on_panic(|_| println!("last words"));
            let _ = thread::spawn("panics", || panic!("on purpose"))
                .unwrap()
                .join();
            std::process::exit(0);
        }
        "exit" => std::process::exit(0),
        "abort" => std::process::abort(),
        "fault" => {
            let me = rustix::process::getpid();
            kill_process(me, rustix::process::Signal::SEGV).unwrap();
            loop {
                std::thread::park();
            }
        }
        _ => event_loop.run(),
    }
    drop((raw, watch));
    std::process::exit(0);
}

fn pty() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let tty = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (master, tty)
}

fn the_terminal_is_restored_however_the_process_ends() {
    for role in ["panic", "vital", "exit", "abort", "fault", "signal"] {
        let (_master, tty) = pty();
        let is_cooked = || {
            tcgetattr(&tty)
                .unwrap()
                .local_modes
                .contains(LocalModes::ICANON)
        };
        assert!(is_cooked());
        let mut process = start(role, tty.try_clone().unwrap().into(), "");
        let out = BufReader::new(process.stdout.take().unwrap());
        assert!(out.lines().any(|line| line.unwrap() == "raw"), "{role}");
        if role == "signal" {
            let id = Pid::from_child(&process);
            assert!(!is_cooked());
            kill_process(id, rustix::process::Signal::TERM).unwrap();
        }
        let status = process.wait().unwrap();
        assert!(is_cooked(), "{role}");
        if role == "fault" {
            assert_eq!(status.signal(), Some(libc::SIGSEGV));
        }
    }
}

fn a_panic_anywhere_ends_the_process_after_its_last_words() {
    let (_master, tty) = pty();
    let mut process = start("vital", tty.into(), "");
    let out = BufReader::new(process.stdout.take().unwrap());
    assert_eq!(out.lines().last().unwrap().unwrap(), "last words");
    assert_eq!(process.wait().unwrap().code(), Some(1));
}

fn a_daemon_has_its_pid_file_when_its_starter_ends() {
    let path = std::env::temp_dir().join(format!("mimic-daemon-{}", std::process::id()));
    let text = path.to_str().unwrap();
    assert!(
        start("daemon-works", Stdio::null(), text)
            .wait()
            .unwrap()
            .success()
    );
    let id: u32 = std::fs::read_to_string(&path)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(id > 1);
    std::fs::remove_file(&path).unwrap();
}

fn a_daemon_that_dies_early_makes_its_starter_fail() {
    assert_eq!(
        start("daemon-fails", Stdio::null(), "")
            .wait()
            .unwrap()
            .code(),
        Some(1)
    );
}
