//! Watches one run from a process of its own.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

use super::MONITOR;
use super::sample::Sample;
use super::scenario::Scenario;
use crate::host;

/// Ends a run that hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// Stands for an exit status: the machine is ended at its proof line.
const KILL: &str = "kill";

/// Runs a machine under a monitor process.
pub(super) fn watched(program: &Path, scenario: &Scenario) -> Result<Sample> {
    let said = host::output(
        Command::new(std::env::current_exe()?)
            .arg(MONITOR)
            .arg(&scenario.proof)
            .arg(
                scenario
                    .status
                    .map_or_else(|| KILL.to_owned(), |status| status.to_string()),
            )
            .arg(scenario.ram_bytes.to_string())
            .arg(program)
            .args(&scenario.args),
    )?;
    Sample::from_json(said.trim())
}

/// The hidden chore: `PROOF STATUS RAM PROGRAM ARGS...`; prints one sample.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let [proof, status, ram, program, args @ ..] = args else {
        bail!("the monitor is started by `cargo xtask bench` only");
    };
    let status = if status == KILL {
        None
    } else {
        Some(status.parse::<i32>()?)
    };
    let ram: u64 = ram.parse()?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    // The machine's console stays open to the end: its end of input must not be seen.
    let stdin = child.stdin.take();
    let mut stdout = child.stdout.take().context("no console")?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n) = stdout.read(&mut chunk) {
            if n == 0
                || sender
                    .send(chunk.get(..n).unwrap_or_default().to_vec())
                    .is_err()
            {
                break;
            }
        }
    });
    let mut first_byte = None;
    let mut beside_ram = None;
    let mut console = Vec::new();
    loop {
        let left = LIMIT.saturating_sub(start.elapsed());
        match receiver.recv_timeout(left) {
            Ok(chunk) => {
                first_byte.get_or_insert_with(|| start.elapsed());
                console.extend_from_slice(&chunk);
                if beside_ram.is_none() && contains(&console, proof.as_bytes()) {
                    beside_ram = Some(resident_beside_ram(child.id(), ram));
                    if status.is_none() {
                        child.kill()?;
                    }
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                bail!("no end after {} s:\n{}", LIMIT.as_secs(), tail(&console));
            }
        }
    }
    let ended = child.wait()?;
    drop(stdin);
    let (Some(first_byte), Some(beside_ram)) = (first_byte, beside_ram) else {
        bail!(
            "ended with {ended} before `{proof}` appeared:\n{}",
            tail(&console)
        );
    };
    if status.is_some() && ended.code() != status {
        bail!("ended with {ended}:\n{}", tail(&console));
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let sample = Sample {
        cpu_s: seconds(usage.user_time()) + seconds(usage.system_time()),
        first_byte_s: first_byte.as_secs_f64(),
        peak_bytes: (usage.max_rss() as u64) << 10,
        beside_ram_bytes: beside_ram,
    };
    writeln!(std::io::stdout(), "{}", sample.to_json())?;
    Ok(())
}

/// Resident bytes of all mappings but guest RAM, memory that is mapped twice counted once. Guest RAM is the
/// mapping of about its size, whatever a program calls it. A process that has just ended has none.
fn resident_beside_ram(pid: u32, ram: u64) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut sum = 0;
    let mut is_ram = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (key, value) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let bytes = value.parse::<u64>().unwrap_or_default() << 10;
        match key {
            "Size:" => is_ram = bytes >= ram / 2 && bytes < ram * 2,
            "Pss:" if !is_ram => sum += bytes,
            _ => {}
        }
    }
    sum
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes
        .windows(wanted.len().max(1))
        .any(|window| window == wanted)
}

fn tail(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(15)..)
        .unwrap_or_default()
        .join("\n")
}
