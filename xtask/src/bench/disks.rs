//! `cargo xtask bench --disks`: the model of a disk without a guest, the image tool, and reads in a guest.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use test_boot::{Folder, Guest, Vm};

use super::options::Options;
use super::sample::median;
use super::side::processor_time;
use super::version;
use crate::host;

/// Bytes of each read in a guest, and how many there are.
const READ: &str = "4k";
const READS: u64 = 100_000;
const READS_QUICK: u64 = 10_000;

pub(super) fn run(options: &Options, mimic: &Path, folder: &Path) -> Result<()> {
    let Some(guest) = Guest::find("amd64")? else {
        bail!("no guest to measure in: `cargo xtask guests` fetches it");
    };
    // Beside the guests: the host's temporary folder may be in memory.
    let work = Folder::within(folder)?;
    let wants = |part: &str| options.only.is_empty() || options.only.iter().any(|w| w == part);
    if wants("model") {
        model()?;
    }
    if wants("tool") {
        // The host's disk is not what is measured.
        let memory = Folder::within(Path::new("/dev/shm"));
        tool(options, mimic, &guest, memory.as_ref().unwrap_or(&work))?;
    }
    if wants("guest") {
        reads(options, mimic, &guest, &work)?;
    }
    Ok(())
}

/// The model of virtio-blk, driven by `devices/virtio/benches/model.rs`.
fn model() -> Result<()> {
    let mut command = Command::new(host::cargo());
    command.args(["bench", "--quiet", "--package", "device_virtio"]);
    command
        .args(["--bench", "model"])
        .current_dir(host::workspace());
    let said = host::output(&mut command)?;
    println!("\nReads a second by our virtio-blk, without a guest.\n");
    println!("| back end | at a time | KiB each | reads/s | for each core |");
    println!("|---|--:|--:|--:|--:|");
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() == 5 {
            println!("| {} |", words.join(" | "));
        }
    }
    Ok(())
}

/// A command that other programs of the host do not hold up, if we may have that: the scheduler deals a busy
/// processor out by threads, so that of two tools the one with more of them, waiting for each other though they
/// be, would seem the faster one.
fn undisturbed(program: impl AsRef<std::ffi::OsStr>, may: bool) -> Command {
    if !may {
        return Command::new(program);
    }
    let mut command = Command::new("chrt");
    command.args(["--fifo", "1"]).arg(program);
    command
}

/// What one command took: wall time, and processor time of all its threads.
fn timed(command: &mut Command) -> Result<[f64; 2]> {
    let cpu = || -> Result<Duration> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let of = |time: nix::sys::time::TimeVal| {
            Duration::new(time.tv_sec() as u64, (time.tv_usec() as u32) * 1000)
        };
        Ok(of(usage.user_time()) + of(usage.system_time()))
    };
    let (before, begun) = (cpu()?, Instant::now());
    let done = command.stdin(Stdio::null()).output();
    let done = done.with_context(|| format!("cannot start {command:?}"))?;
    let wall = begun.elapsed();
    ensure!(
        done.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok([wall.as_secs_f64(), (cpu()? - before).as_secs_f64()])
}

/// `mimic img` and `qemu-img` in turns.
fn tool(options: &Options, mimic: &Path, guest: &Guest, work: &Folder) -> Result<()> {
    ensure!(
        guest.disk.exists(),
        "no disk with Debian on it: `cargo xtask guests` makes it"
    );
    let raw = guest.disk.display().to_string();
    let file = |name: &str| work.join(name).display().to_string();
    let (plain, packed) = (file("plain.qcow2"), file("packed.qcow2"));
    let out = file("out");
    let images: [&[&str]; 2] = [
        &["convert", "-O", "qcow2", &raw, &plain],
        &["convert", "-c", "-O", "qcow2", &raw, &packed],
    ];
    for words in images {
        host::output(Command::new("qemu-img").args(words)).context("package 'qemu-utils'")?;
    }
    let rows: [(&str, &[&str]); 12] = [
        (
            "convert raw to qcow2",
            &["convert", "-f", "raw", "-O", "qcow2", &raw, &out],
        ),
        (
            "convert qcow2 to raw",
            &["convert", "-O", "raw", &plain, &out],
        ),
        (
            "convert qcow2 to qcow2",
            &["convert", "-O", "qcow2", &plain, &out],
        ),
        (
            "convert -c",
            &["convert", "-c", "-f", "raw", "-O", "qcow2", &raw, &out],
        ),
        (
            "convert from compressed",
            &["convert", "-O", "raw", &packed, &out],
        ),
        ("check", &["check", "-q", &plain]),
        (
            "bench, reads",
            &["bench", "-c", "100000", "-f", "qcow2", &plain],
        ),
        (
            "bench, one at a time",
            &["bench", "-c", "50000", "-d", "1", "-f", "qcow2", &plain],
        ),
        (
            "bench -t none, one at a time",
            &[
                "bench", "-t", "none", "-c", "50000", "-d", "1", "-f", "qcow2", &plain,
            ],
        ),
        (
            "bench -t none -i io_uring",
            &[
                "bench", "-t", "none", "-i", "io_uring", "-c", "50000", "-f", "qcow2", &plain,
            ],
        ),
        (
            "bench -w, one at a time",
            &[
                "bench", "-w", "-c", "50000", "-d", "1", "-f", "qcow2", &plain,
            ],
        ),
        (
            "bench -w",
            &["bench", "-w", "-c", "50000", "-f", "qcow2", &plain],
        ),
    ];
    let may = undisturbed("true", true).output();
    let may = may.is_ok_and(|done| done.status.success());
    println!(
        "\n`mimic img` and `qemu-img`, {} pairs, medians, seconds{}.\n",
        options.pairs,
        match may {
            true => "",
            false => "; `chrt --fifo 1` is not allowed, so what else the host does counts too",
        }
    );
    println!("| what | wall, Mimic | qemu-img | times faster | CPU, Mimic | qemu-img |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (name, words) in rows {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // The first run reads the image into the host's cache, and is not counted.
        timed(undisturbed("qemu-img", may).args(words))?;
        for _ in 0..options.pairs {
            ours.push(timed(undisturbed(mimic, may).arg("img").args(words))?);
            theirs.push(timed(undisturbed("qemu-img", may).args(words))?);
        }
        let column = |all: &[[f64; 2]], at: usize| median(all.iter().map(|one| one[at]));
        let (wall, their_wall) = (column(&ours, 0), column(&theirs, 0));
        println!(
            "| {name} | {wall:.2} | {their_wall:.2} | {:.2} | {:.2} | {:.2} |",
            their_wall / wall,
            column(&ours, 1),
            column(&theirs, 1)
        );
    }
    Ok(())
}

/// A guest that reads a disk past its own cache.
struct Reader {
    vm: Vm,
    reads: u64,
}

impl Reader {
    fn boot(
        program: &Path,
        flags: &[String],
        guest: &Guest,
        disk: &Path,
        reads: u64,
    ) -> Result<Self> {
        let mut vm = Vm::new("q35")
            .program(program)
            .args("-accel tcg -m 256 -smp 1");
        for flag in flags {
            vm = vm.arg(flag);
        }
        let node = format!(
            "driver=raw,node-name=d,read-only=on,file.driver=file,file.filename={}",
            disk.display()
        );
        let mut vm = vm
            .kernel(&guest.vmlinuz)
            .option("-initrd", &guest.initrd_modules)
            .append("guest.modules=virtio_pci,virtio_blk")
            .option("-blockdev", node)
            .args("-device virtio-blk-pci,drive=d")
            .boot()?;
        vm.expect("GUEST-UP")?;
        let mut reader = Reader { vm, reads };
        // What is read for the first time is translated for the first time.
        reader.read()?;
        Ok(reader)
    }

    /// Reads for a second of processor time.
    fn read(&mut self) -> Result<[f64; 2]> {
        let command = format!(
            "dd if=/dev/vda of=/dev/null bs={READ} count={} iflag=direct 2>/dev/null; echo st=$?",
            self.reads
        );
        let (cpu, begun) = (processor_time(&self.vm)?, Instant::now());
        let said = self.vm.shell(&command)?;
        let (wall, cpu) = (
            begun.elapsed(),
            processor_time(&self.vm)?.saturating_sub(cpu),
        );
        ensure!(said.contains("st=0"), "the guest could not read: {said}");
        let rate = |time: Duration| self.reads as f64 / time.as_secs_f64();
        Ok([rate(wall), rate(cpu)])
    }
}

/// 4 KiB at a time, in a guest of each emulator, in turns.
fn reads(options: &Options, mimic: &Path, guest: &Guest, work: &Folder) -> Result<()> {
    const DISK: usize = 512 << 20;
    let disk: PathBuf = work.join("disk.raw");
    std::fs::write(&disk, vec![0x5a; DISK])?;
    let Some(qemu) = options.qemus.first() else {
        return Ok(());
    };
    let reads = if options.is_quick { READS_QUICK } else { READS };
    let mut ours = Reader::boot(mimic, &options.mimic_flags, guest, &disk, reads)?;
    let mut theirs = Reader::boot(qemu, &options.qemu_flags, guest, &disk, reads)?;
    let (mut mine, mut other) = (Vec::new(), Vec::new());
    for _ in 0..options.pairs {
        mine.push(ours.read()?);
        other.push(theirs.read()?);
    }
    println!(
        "\nDirect reads of {READ} in an amd64 guest, virtio-blk, one at a time; {} pairs, medians.\n",
        options.pairs
    );
    println!(
        "| measure | Mimic | {} | times faster |",
        version(qemu, "qemu-system-x86")?
    );
    println!("|---|--:|--:|--:|");
    for (at, name) in ["reads/s", "reads for a second of processor time"]
        .into_iter()
        .enumerate()
    {
        let [mine, other] = [&mine, &other].map(|all| median(all.iter().map(|one| one[at])));
        println!("| {name} | {mine:.0} | {other:.0} | {:.2} |", mine / other);
    }
    Ok(())
}
