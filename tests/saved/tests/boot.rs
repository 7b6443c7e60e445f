//! A booting Debian guest, saved again and again; each saved machine goes on to its end in a fresh one.

use anyhow::{Context as _, Result, ensure};
use machine_core::SavedMachine;
use test_boot::Guest;
use test_saved::{Rig, Storm, through_bytes};

/// Mutations of every section of the one saved half way.
const CASES: usize = 3;

/// Reads the disk in pieces, with a word after each.
const READS: &str =
    "for,i,in,0,1,2,3,4,5,6,7;do,dd,if=/dev/vda,bs=32k,count=8,skip=$i,|,md5sum;done";

/// The command line of a guest with two CPUs that boots, talks and powers off.
fn command_line(machine: &str, guest: &Guest, devices: &[&str]) -> Vec<String> {
    // Of a PC's kernel the ELF inside: that starts by itself.
    let image = match guest.vmlinux.exists() {
        true => &guest.vmlinux,
        false => &guest.vmlinuz,
    };
    let kernel = [
        "-kernel".to_owned(),
        image.display().to_string(),
        "-initrd".to_owned(),
        guest.initrd_modules.display().to_string(),
        "-append".to_owned(),
        format!(
            "console={} panic=-1 cryptomgr.notests guest.modules=virtio_pci,virtio_mmio,virtio_blk,virtio_rng guest.run={READS}",
            guest.console
        ),
    ];
    let drive = format!(
        "if=none,id=disk,format=raw,readonly=on,file={}",
        guest.vmlinuz.display()
    );
    let words = ["-machine", machine, "-smp", "2", "-m", "160"]
        .into_iter()
        // A clock that follows the host's would not stand still with the machine.
        .chain(["-rtc", "base=2026-01-01,clock=vm"])
        .chain(["-object", "rng-builtin,id=rng", "-drive", &drive])
        .chain(devices.iter().flat_map(|device| ["-device", *device]));
    words.map(str::to_owned).chain(kernel).collect()
}

/// Saves a boot at so many points, spread over what it writes, and lets a fresh machine end each.
fn each_saved_boot_reaches_power_off(
    (arch, machine): (&str, &str),
    devices: &[&str],
    points: usize,
) -> Result<()> {
    let Some(guest) = Guest::find(arch)? else {
        return Ok(());
    };
    let args = command_line(machine, &guest, devices);
    let mut whole = Rig::new(&args)?;
    whole.run_to_power_off()?;
    let len = whole.text().len();
    let sums = sums(whole.text());
    ensure!(sums.len() == 8, "{}", whole.text());
    let mut booting = Rig::new(&args)?;
    for point in 0..points {
        // Between nothing and all, ends excluded: two runs never write quite the same.
        let at = len * (2 * point + 1) / (2 * points);
        ensure!(
            booting.run_to_output(at)?,
            "it ended before {at} of {len} bytes:\n{}",
            booting.text()
        );
        let saved = through_bytes(booting.save()?)?;
        if point == points / 2 {
            let other = Rig::new(&args)?;
            Storm::new(other.machine(), &saved, 4).run(CASES)?;
        }
        let mut fresh = Rig::new(&args)?;
        fresh.restore(&saved)?;
        same_again(&fresh, &saved)?;
        drop(saved);
        let written = booting.text().len();
        let end = fresh.run_to_power_off();
        end.with_context(|| format!("saved after {written} of {len} bytes"))?;
        let both = format!("{}{}", booting.text(), fresh.text());
        // What it read from the disk is what it reads unsaved.
        ensure!(
            self::sums(&both) == sums && both.contains("GUEST-DOWN"),
            "saved after {written} of {len} bytes:\n{both}"
        );
    }
    booting.run_to_power_off().context("the one that was saved")
}

/// A machine just restored is the one that was saved.
fn same_again(fresh: &Rig, saved: &SavedMachine) -> Result<()> {
    let first = fresh.save()?;
    ensure!(first.clock_ns == saved.clock_ns, "time went on");
    ensure!(first.cpus == saved.cpus, "the CPUs differ");
    ensure!(first.ram == saved.ram, "memory differs");
    // What was due when it was saved has happened by now: only from here on nothing may change.
    fresh.restore(&first)?;
    let second = fresh.save()?;
    for (was, is) in first.devices.iter().zip(&second.devices) {
        ensure!(was == is, "was {was:?}\nis {is:?}");
    }
    Ok(())
}

/// The sums of what the guest read.
fn sums(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.trim_end().strip_suffix("  -"))
        .collect()
}

#[test]
fn a_pc_saved_while_it_boots_reaches_power_off_in_another() -> Result<()> {
    let devices = ["virtio-blk-pci,drive=disk", "virtio-rng-pci,rng=rng"];
    each_saved_boot_reaches_power_off(("amd64", "pc"), &devices, 20)
}

#[test]
fn a_microvm_saved_while_it_boots_reaches_power_off_in_another() -> Result<()> {
    let devices = ["virtio-blk-device,drive=disk", "virtio-rng-device,rng=rng"];
    each_saved_boot_reaches_power_off(("amd64", "microvm"), &devices, 5)
}

#[test]
fn a_virt_with_gicv2_saved_while_it_boots_reaches_power_off_in_another() -> Result<()> {
    let devices = ["virtio-blk-pci,drive=disk", "virtio-rng-pci,rng=rng"];
    each_saved_boot_reaches_power_off(("arm64", "virt"), &devices, 5)
}

#[test]
fn a_virt_with_gicv3_saved_while_it_boots_reaches_power_off_in_another() -> Result<()> {
    let devices = ["virtio-blk-device,drive=disk", "virtio-rng-device,rng=rng"];
    let machine = "virt,gic-version=3,virtualization=on";
    each_saved_boot_reaches_power_off(("arm64", machine), &devices, 5)
}
