//! Disks in images: what a guest writes is in the file afterwards, and the file is whole.

use std::path::Path;
use std::sync::Arc;

use backend_block::{Child, IoVector, Node, Opener, perm};
use backend_qcow2::{Fix, Qcow2};
use control_options::Opts;
use test_boot::{Error, Folder, Guest, Vm};

const LEN: u64 = 64 << 20;
static DRIVERS: &[&backend_block::DriverClass] = &[
    &backend_block::RAW,
    &backend_file::FILE,
    &backend_qcow2::CLASS,
];

fn other(error: impl std::fmt::Display) -> Error {
    Error::Host(std::io::Error::other(error.to_string()))
}

fn open(text: &str) -> Result<Arc<Node>, Error> {
    let opts = Opts::parse("test", text, None).map_err(other)?;
    Opener::new(DRIVERS).open("test", &opts).map_err(other)
}

/// An overlay over a raw file, with these options.
fn overlay(folder: &Folder, options: &str) -> Result<(), Error> {
    let base: Vec<u8> = (0..LEN).map(|at| (at / 4096 % 251) as u8).collect();
    std::fs::write(folder.join("base"), base)?;
    backend_file::create(&folder.join("top")).map_err(other)?;
    let file = open(&format!(
        "driver=file,filename={}",
        folder.join("top").display()
    ))?;
    let child = Child::attach(file, "test", "file", perm::ALL, perm::ALL).map_err(other)?;
    let options = format!("backing_file=base,backing_fmt=raw,{options}");
    let options = Opts::parse("-o", &options, None).map_err(other)?;
    let create = backend_qcow2::CLASS
        .create
        .ok_or_else(|| other("no qcow2"))?;
    (create.create)(&child, LEN, &options).map_err(other)
}

/// The disk's contents, from an image that is whole.
fn contents(top: &Path) -> Result<Vec<u8>, Error> {
    let node = open(&format!(
        "driver=qcow2,read-only=on,file.driver=file,file.filename={}",
        top.display()
    ))?;
    let image: &Qcow2 = (node.driver().as_any().downcast_ref()).ok_or_else(|| other("no qcow2"))?;
    let findings = image.check(Fix::None).map_err(other)?;
    assert_eq!(
        (findings.corruptions, findings.leaks),
        (0, 0),
        "{findings:?}"
    );
    let memory = IoVector::zeroed(usize::try_from(node.len()).map_err(other)?);
    node.read(0, &memory).map_err(other)?;
    Ok(memory.to_vec())
}

fn a_guest_writes(machine: &str, cpus: u32, device: &str, options: &str) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    overlay(&folder, options)?;
    let top = folder.join("top");
    let transport = if machine == "microvm" {
        "virtio_mmio"
    } else {
        "virtio_pci"
    };
    let mut vm = Vm::new(machine)
        .args("-accel tcg -m 256")
        .cpus(cpus)
        .option("-L", &guest.seabios)
        .kernel(&guest.vmlinuz)
        .option("-initrd", &guest.initrd_modules)
        .append(&format!("quiet guest.modules={transport},virtio_blk"))
        .option(
            "-drive",
            format!(
                "if=none,id=d,format=qcow2,discard=unmap,file={}",
                top.display()
            ),
        )
        .option("-device", format!("{device},drive=d,serial=S4711"))
        .boot()?;
    vm.expect("GUEST-UP")?;
    assert_eq!(
        vm.shell("cat /sys/block/vda/size /sys/block/vda/serial | tr '\\n' ' '")?,
        "131072 S4711"
    );
    // Writes of all sizes, of which some are read back past the guest's cache.
    vm.shell("dd if=/dev/zero bs=1M count=3 2>/dev/null | tr '\\0' A > /tmp/a; echo")?;
    vm.shell("dd if=/tmp/a of=/dev/vda bs=3145728 seek=1 2>/dev/null; echo")?;
    vm.shell("dd if=/tmp/a of=/dev/vda bs=512 count=9 seek=60001 2>/dev/null; echo")?;
    vm.shell("sync; echo 3 > /proc/sys/vm/drop_caches; echo")?;
    let sum = vm.shell("md5sum /dev/vda | cut -c 1-32")?;
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()?;
    let mut wanted: Vec<u8> = std::fs::read(folder.join("base"))?;
    wanted[3 << 20..6 << 20].fill(b'A');
    wanted[60_001 * 512..60_010 * 512].fill(b'A');
    let now = contents(&top)?;
    let differs = now
        .iter()
        .zip(&wanted)
        .position(|(is, wanted)| is != wanted);
    assert_eq!(differs, None);
    std::fs::write(folder.join("raw"), &now)?;
    let said = std::process::Command::new("md5sum")
        .arg(folder.join("raw"))
        .output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.split_whitespace().next(), Some(sum.as_str()));
    Ok(())
}

#[test]
fn what_a_guest_writes_to_qcow2_on_virtio_pci_is_there() -> Result<(), Error> {
    a_guest_writes("q35", 2, "virtio-blk-pci", "cluster_size=65536")
}

#[test]
fn what_a_guest_writes_to_subclusters_on_virtio_mmio_is_there() -> Result<(), Error> {
    a_guest_writes("microvm", 1, "virtio-blk-device", "extended_l2=on")
}

/// A guest with a disk of these options, and a QMP client.
fn with_disk(guest: &Guest, drive: String, more: &str) -> Result<Vm, Error> {
    let mut vm = Vm::new("q35")
        .args("-accel tcg -m 256")
        .kernel(&guest.vmlinuz)
        .option("-initrd", &guest.initrd_modules)
        .append("quiet guest.modules=virtio_pci,virtio_blk")
        .option("-drive", format!("if=none,id=d,{drive}"))
        .args("-object iothread,id=io")
        .option(
            "-device",
            format!("virtio-blk-pci,drive=d,iothread=io{more}"),
        )
        .with_qmp()
        .boot()?;
    vm.expect("GUEST-UP")?;
    Ok(vm)
}

const WRITE: &str = "dd if=/tmp/a of=/dev/vda bs=1M oflag=direct 2>/dev/null && echo written";

#[test]
fn a_write_that_finds_no_space_waits_until_the_machine_goes_on() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let path = folder.join("disk");
    std::fs::File::create(&path)?.set_len(16 << 20)?;
    let drive = format!(
        "driver=raw,file.driver=blkdebug,file.inject-error.0.errno=28,file.inject-error.0.once=on,\
         file.inject-error.0.iotype=write,file.image.driver=file,file.image.filename={},werror=report",
        path.display()
    );
    // The device's word counts.
    let mut vm = with_disk(&guest, drive, ",werror=stop")?;
    let mut qmp = vm.qmp()?;
    vm.shell("dd if=/dev/zero bs=1M count=3 2>/dev/null | tr '\\0' A > /tmp/a; echo")?;
    vm.send(&format!("{WRITE}\n"))?;
    let error = qmp.event("BLOCK_IO_ERROR")?["data"].clone();
    assert_eq!(error["device"], "d");
    assert_eq!(error["operation"], "write");
    assert_eq!(error["action"], "stop");
    assert_eq!(error["nospace"], true);
    qmp.event("STOP")?;
    let status = qmp.execute("query-status", serde_json::json!({}))?;
    assert_eq!(status["status"], "io-error");
    let disks = qmp.execute("query-block", serde_json::json!({}))?;
    assert_eq!(disks[0]["io-status"], "nospace");
    qmp.execute("cont", serde_json::json!({}))?;
    vm.expect("written")?;
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()?;
    let now = std::fs::read(&path)?;
    assert!(now.iter().take(3 << 20).all(|byte| *byte == b'A'));
    Ok(())
}

#[test]
fn a_disk_is_snapshot_resized_and_committed_under_a_guest_that_writes() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    overlay(&folder, "")?;
    let (top, live) = (folder.join("top"), folder.join("live"));
    let mut vm = with_disk(&guest, format!("format=qcow2,file={}", top.display()), "")?;
    let mut qmp = vm.qmp()?;
    vm.shell("dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\0' A > /tmp/a; echo")?;
    qmp.execute(
        "blockdev-snapshot-sync",
        serde_json::json!({ "device": "d", "snapshot-file": live, "snapshot-node-name": "live" }),
    )?;
    assert_eq!(vm.shell(WRITE)?, "written");
    let base = base_node(&mut qmp)?;
    qmp.execute(
        "block-commit",
        serde_json::json!({ "job-id": "j", "device": "d", "base-node": base }),
    )?;
    qmp.event("BLOCK_JOB_READY")?;
    vm.shell("tr A B < /tmp/a > /tmp/b; mv /tmp/b /tmp/a; echo")?;
    assert_eq!(vm.shell(WRITE)?, "written");
    qmp.execute("block-job-complete", serde_json::json!({ "device": "j" }))?;
    let end = qmp.event("BLOCK_JOB_COMPLETED")?;
    assert_eq!(end["data"]["error"], serde_json::Value::Null);
    let size = serde_json::json!({ "device": "d", "size": LEN * 2 });
    qmp.execute("block_resize", size)?;
    let sectors = "until [ $(cat /sys/block/vda/size) = 262144 ]; do :; done; echo grown";
    assert_eq!(vm.shell(sectors)?, "grown");
    assert_eq!(vm.shell(WRITE)?, "written");
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()?;
    let now = contents(&top)?;
    assert_eq!(now.len() as u64, LEN * 2);
    assert!(now.iter().take(8 << 20).all(|byte| *byte == b'B'));
    let base = std::fs::read(folder.join("base"))?;
    assert!(now[8 << 20..LEN as usize] == base[8 << 20..]);
    Ok(())
}

#[test]
fn a_guest_is_told_of_a_size_by_reopen_and_writes_while_a_filter_comes_and_goes()
-> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let path = folder.join("disk");
    std::fs::File::create(&path)?.set_len(LEN)?;
    let file = path.display().to_string();
    let drive = format!("driver=raw,size=32M,file.driver=file,file.filename={file}");
    let mut vm = with_disk(&guest, drive, ",id=v")?;
    let mut qmp = vm.qmp()?;
    let sectors =
        |n: u32| format!("until [ $(cat /sys/block/vda/size) = {n} ]; do :; done; echo now");
    assert_eq!(vm.shell(&sectors(65_536))?, "now");
    let stats = qmp.execute("query-blockstats", serde_json::json!({}))?;
    let name = &stats[0]["node-name"];
    let node = serde_json::json!({ "driver": "raw", "node-name": name, "size": LEN,
                                   "file": { "driver": "file", "filename": file } });
    qmp.execute("blockdev-reopen", serde_json::json!({ "options": [node] }))?;
    assert_eq!(vm.shell(&sectors(131_072))?, "now");
    vm.shell("dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\0' A > /tmp/a; echo")?;
    let forever =
        "dd if=/tmp/a of=/dev/vda bs=4k oflag=direct 2>/dev/null || echo lost >> /tmp/lost";
    vm.shell(&format!("while {forever}; do :; done & echo"))?;
    let group = serde_json::json!({ "qom-type": "throttle-group", "id": "g" });
    qmp.execute("object-add", group)?;
    let filter = serde_json::json!({ "driver": "throttle", "node-name": "t", "file": name, "throttle-group": "g" });
    qmp.execute("blockdev-add", filter)?;
    for _ in 0..20 {
        for node in [&serde_json::json!("t"), name] {
            let drive = serde_json::json!({ "path": "/machine/peripheral/v", "property": "drive", "value": node });
            qmp.execute("qom-set", drive)?;
        }
    }
    qmp.execute("blockdev-del", serde_json::json!({ "node-name": "t" }))?;
    let end = "kill $!; wait; cat /tmp/lost 2>/dev/null; echo whole";
    assert_eq!(vm.shell(end)?, "whole");
    assert_eq!(vm.shell(WRITE)?, "written");
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()?;
    assert!(
        std::fs::read(&path)?
            .iter()
            .take(8 << 20)
            .all(|byte| *byte == b'A')
    );
    Ok(())
}

/// The node behind the one on top.
fn base_node(qmp: &mut test_boot::Qmp) -> Result<String, Error> {
    let stats = qmp.execute("query-blockstats", serde_json::json!({}))?;
    let name = stats[0]["backing"]["node-name"].as_str();
    name.map(str::to_owned)
        .ok_or_else(|| other("nothing behind it"))
}
