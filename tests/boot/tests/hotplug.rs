//! Devices that come and go while a guest runs.

use std::path::Path;

use serde_json::json;
use test_boot::{Error, Folder, Guest, Qmp, Vm};

const LEN: u64 = 8 << 20;

/// A disk of one byte, again and again.
fn disk(path: &Path, byte: u8) -> Result<(), Error> {
    Ok(std::fs::write(path, vec![byte; LEN as usize])?)
}

fn add_node(qmp: &mut Qmp, name: &str, file: &Path) -> Result<(), Error> {
    qmp.execute(
        "blockdev-add",
        json!({
            "driver": "raw",
            "node-name": name,
            "file": { "driver": "file", "filename": file },
        }),
    )?;
    Ok(())
}

/// Whether another process may write to an image: its lock can be had.
fn is_free(file: &Path) -> Result<bool, Error> {
    let program = test_boot::program()?;
    let mut command = std::process::Command::new(program);
    command.args(["img", "resize", "-q", "-f", "raw"]).arg(file);
    let done = command.arg(LEN.to_string()).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() || said.contains("is in use"),
        "{said}"
    );
    Ok(done.status.success())
}

#[test]
fn scsi_disks_come_and_go() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let file = folder.join("disk");
    disk(&file, b'x')?;
    let mut vm = Vm::new("q35")
        .args("-accel tcg -m 512 -device virtio-scsi-pci,id=scsi0")
        .option("-L", &guest.seabios)
        .kernel(&guest.vmlinuz)
        .option("-initrd", &guest.initrd_modules)
        .append("loglevel=1 guest.modules=virtio_pci,virtio_scsi,sd_mod,sr_mod")
        .with_qmp()
        .boot()?;
    vm.expect("GUEST-UP")?;
    let mut qmp = vm.qmp()?;
    let there = "at=/sys/class/scsi_device/0:0:5:0; until d=$(ls $at/device/block 2>/dev/null) \
                 && head -c 1 /dev/$d 2>/dev/null; do sleep 1; done";
    let gone = "until [ ! -e $at ]; do sleep 1; done; echo gone";
    for round in 0..2 {
        add_node(&mut qmp, "n", &file)?;
        qmp.execute(
            "device_add",
            json!({
                "driver": "scsi-hd", "id": "d", "bus": "scsi0.0", "drive": "n", "scsi-id": 5,
            }),
        )?;
        assert_eq!(vm.shell(there)?, "x", "{round}");
        assert_eq!(vm.shell("ls /sys/class/scsi_device")?, "0:0:5:0");
        vm.shell("echo y > /dev/$d; sync; echo")?;
        // A disk has one user, and a node in use stays.
        let again = json!({ "driver": "scsi-hd", "drive": "n" });
        assert!(qmp.execute("device_add", again).is_err());
        assert!(
            qmp.execute("blockdev-del", json!({ "node-name": "n" }))
                .is_err()
        );
        qmp.execute("device_del", json!({ "id": "d" }))?;
        let event = qmp.event("DEVICE_DELETED")?;
        assert_eq!(event["data"]["device"], "d");
        assert_eq!(vm.shell(gone)?, "gone");
        qmp.execute("blockdev-del", json!({ "node-name": "n" }))?;
        assert_eq!(std::fs::read(&file)?[..2], *b"y\n");
        disk(&file, b'x')?;
    }
    // An empty drive, and what goes into it.
    qmp.execute("device_add", json!({ "driver": "scsi-cd", "id": "cd" }))?;
    let empty = "until [ -b /dev/sr0 ]; do sleep 1; done; head -c 1 /dev/sr0 2>/dev/null; echo .";
    assert_eq!(vm.shell(empty)?, ".");
    qmp.execute(
        "blockdev-change-medium",
        json!({ "id": "cd", "format": "raw", "filename": file }),
    )?;
    assert_eq!(vm.shell("head -c 1 /dev/sr0")?, "x");
    qmp.execute("device_del", json!({ "id": "cd" }))?;
    qmp.event("DEVICE_DELETED")?;
    assert!(qmp.execute("device_del", json!({ "id": "cd" })).is_err());
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}

#[test]
fn disks_come_and_go_in_the_slots_of_root_ports() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let (first, second) = (folder.join("first"), folder.join("second"));
    disk(&first, b'x')?;
    disk(&second, b'y')?;
    let mut vm = Vm::new("q35")
        .args("-accel tcg -m 512 -bios bios-256k.bin")
        .args("-device pcie-root-port,id=rp1,chassis=1 -device pcie-root-port,id=rp2,chassis=2")
        .args("-device pcie-root-port,id=rp3,chassis=3 -device virtio-rng-pci,bus=rp3")
        .option("-L", &guest.seabios)
        .kernel(&guest.vmlinuz)
        .option("-initrd", &guest.initrd_modules)
        .append("loglevel=1 guest.modules=virtio_pci,virtio_blk,virtio_scsi,sd_mod")
        .with_qmp()
        .boot()?;
    vm.expect("GUEST-UP")?;
    let mut qmp = vm.qmp()?;
    let read = |disk: &str| format!("until head -c 1 /dev/{disk} 2>/dev/null; do sleep 1; done");
    for _ in 0..2 {
        add_node(&mut qmp, "a", &first)?;
        let blk = json!({ "driver": "virtio-blk-pci", "id": "d", "bus": "rp1", "drive": "a" });
        qmp.execute("device_add", blk)?;
        assert_eq!(vm.shell(&read("vda"))?, "x");
        vm.shell("dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null; echo")?;
        // An adapter, and a disk on it, which goes with it.
        add_node(&mut qmp, "b", &second)?;
        qmp.execute(
            "device_add",
            json!({ "driver": "virtio-scsi-pci", "id": "hba", "bus": "rp2" }),
        )?;
        qmp.execute(
            "device_add",
            json!({ "driver": "scsi-hd", "bus": "hba.0", "id": "s", "drive": "b" }),
        )?;
        assert_eq!(vm.shell(&read("sda"))?, "y");
        let full = json!({ "driver": "virtio-rng-pci", "bus": "rp2" });
        assert!(qmp.execute("device_add", full).is_err());
        let root = json!({ "driver": "virtio-rng-pci", "bus": "pcie.0" });
        assert!(qmp.execute("device_add", root).is_err());
        assert!(!is_free(&first)? && !is_free(&second)?);
        // The guest is asked, and lets go after the five seconds in which a button can be pressed again.
        for (id, gone) in [("d", vec!["d"]), ("hba", vec!["s", "hba"])] {
            qmp.execute("device_del", json!({ "id": id }))?;
            assert!(qmp.execute("device_del", json!({ "id": id })).is_err());
            for id in gone {
                assert_eq!(qmp.event("DEVICE_DELETED")?["data"]["device"], id);
            }
        }
        assert_eq!(vm.shell("ls /sys/block | grep -c -E 'vda|sda'; true")?, "0");
        for (node, file) in [("a", &first), ("b", &second)] {
            qmp.execute("blockdev-del", json!({ "node-name": node }))?;
            assert!(is_free(file)?, "the lock ends with the node");
        }
    }
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}

#[test]
fn virt_takes_disks_in_and_out_of_root_ports() -> Result<(), Error> {
    let Some(guest) = Guest::find("arm64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let file = folder.join("disk");
    disk(&file, b'x')?;
    let mut vm = Vm::new("virt")
        .args("-accel tcg -m 512 -cpu cortex-a72 -device pcie-root-port,id=rp1")
        .linux(&guest)
        .option("-initrd", &guest.initrd_modules)
        .append("loglevel=1 guest.modules=virtio_pci,virtio_blk")
        .with_qmp()
        .boot()?;
    vm.expect("GUEST-UP")?;
    let mut qmp = vm.qmp()?;
    add_node(&mut qmp, "n", &file)?;
    qmp.hmp("device_add virtio-blk-pci,id=d,bus=rp1,drive=n")?;
    let read = "until head -c 1 /dev/vda 2>/dev/null; do sleep 1; done";
    assert_eq!(vm.shell(read)?, "x");
    qmp.hmp("device_del d")?;
    assert_eq!(qmp.event("DEVICE_DELETED")?["data"]["device"], "d");
    qmp.execute("blockdev-del", json!({ "node-name": "n" }))?;
    assert_eq!(vm.shell("[ -b /dev/vda ] || echo gone")?, "gone");
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}
