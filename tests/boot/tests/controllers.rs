//! Disks and CDs on every controller, under the kernel for real hardware: the same bytes everywhere.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use test_boot::{Error, Folder, Guest, Vm, VmBuilder};

const LEN: usize = 16 << 20;

/// A file of bytes that do not repeat soon, and its checksum.
fn image(path: &Path, seed: u64) -> Result<String, Error> {
    let mut state = seed;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()
    })
    .take(LEN / 8)
    .flatten()
    .collect();
    std::fs::write(path, bytes)?;
    sum(path)
}

fn sum(path: &Path) -> Result<String, Error> {
    let said = Command::new("md5sum").arg(path).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// The kernel for virtual machines, for devices that only they have.
fn virtual_machine(guest: &Guest, machine: &str, drivers: &str) -> VmBuilder {
    Vm::new(machine)
        .args("-accel tcg -m 512")
        .option("-L", &guest.seabios)
        .kernel(&guest.vmlinuz)
        .option("-initrd", &guest.initrd_modules)
        .append(&format!("quiet guest.modules={drivers}"))
}

fn machine(guest: &Guest, machine: &str, drivers: &str) -> VmBuilder {
    Vm::new(machine)
        .args("-accel tcg -m 512")
        .option("-L", &guest.seabios)
        .kernel(&guest.generic.0)
        .option("-initrd", &guest.generic.1)
        .append(&format!("quiet guest.modules={drivers}"))
}

fn reads_and_writes(name: &str, cpus: u32, driver: &str) -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let (disk, cd) = (folder.join("disk"), folder.join("cd"));
    let (disk_sum, cd_sum) = (image(&disk, 1)?, image(&cd, 2)?);
    let mut vm = machine(&guest, name, &format!("{driver},sd_mod,sr_mod"))
        .cpus(cpus)
        .option("-drive", format!("format=raw,file={}", disk.display()))
        .option("-cdrom", &cd)
        .boot()?;
    vm.expect("GUEST-UP")?;
    let sums = vm.shell("cat /dev/sda | md5sum; cat /dev/sr0 | md5sum")?;
    let wanted = format!("{disk_sum}  -\n{cd_sum}  -");
    assert_eq!(sums, wanted);
    // Written from elsewhere on the same disk, past the cache.
    vm.shell("dd if=/dev/sda of=/tmp/part bs=64k skip=32 count=64 2>/dev/null; echo")?;
    vm.shell("dd if=/tmp/part of=/dev/sda bs=64k seek=8 2>/dev/null; sync; echo")?;
    vm.shell("echo 3 > /proc/sys/vm/drop_caches; echo")?;
    let now = vm.shell("cat /dev/sda | md5sum | cut -c 1-32")?;
    let errors = vm.shell("dmesg | grep -c -E 'failed command|hard resetting|I/O error'; true")?;
    assert_eq!(errors, "0");
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()?;
    assert_eq!(sum(&disk)?, now);
    assert_ne!(now, disk_sum);
    assert_eq!(sum(&cd)?, cd_sum);
    Ok(())
}

/// A controller with an installed system's disk: the machine, drivers of the guest, options that attach the
/// drive `installed`, and the guest's name of the second partition.
type Attached = (&'static str, &'static str, &'static str, &'static str);

const CONTROLLERS: &[Attached] = &[
    (
        "pc",
        "ata_piix,sd_mod",
        "-device ide-hd,drive=installed",
        "sda2",
    ),
    (
        "q35",
        "ahci,sd_mod",
        "-device ide-hd,drive=installed",
        "sda2",
    ),
    (
        "q35",
        "nvme",
        "-device nvme,serial=S,drive=installed",
        "nvme0n1p2",
    ),
    (
        "pc",
        "virtio_pci,virtio_scsi,sd_mod",
        "-device virtio-scsi-pci -device scsi-hd,drive=installed",
        "sda2",
    ),
    (
        "pc",
        "virtio_pci,virtio_blk",
        "-device virtio-blk-pci,drive=installed",
        "vda2",
    ),
];

#[test]
fn an_installed_file_tree_is_the_same_on_every_controller() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    if !guest.has_disk()? {
        return Ok(());
    }
    let wanted = std::fs::read_to_string(guest.disk.with_extension("sum"))?;
    for (name, drivers, options, partition) in CONTROLLERS {
        let drive = format!(
            "if=none,id=installed,snapshot=on,format=raw,file={}",
            guest.disk.display()
        );
        let mut vm = machine(&guest, name, &format!("{drivers},crc32c_generic,ext4"))
            .cpus(2)
            .option("-drive", drive)
            .args(options)
            .boot()?;
        vm.expect("GUEST-UP")?;
        let said = vm.shell(&format!(
            "until [ -b /dev/{partition} ]; do sleep 1; done; mount -t ext4 -o ro,noload /dev/{partition} /mnt && cd /mnt"
        ))?;
        assert_eq!(said, "", "{name} {options}");
        let sum = vm.shell(
            "find boot etc usr/bin usr/sbin -xdev -type f -print0 | sort -z | xargs -0 md5sum | md5sum | cut -c 1-32",
        )?;
        assert_eq!(sum, wanted.trim(), "{name} {options}");
        vm.send("cd /; umount /mnt; exit\n")?;
        vm.expect("GUEST-DOWN")?;
        vm.expect_success()?;
    }
    Ok(())
}

#[test]
fn linux_reads_and_writes_disks_on_the_ide_controller_of_pc() -> Result<(), Error> {
    reads_and_writes("pc", 1, "ata_piix")
}

#[test]
fn linux_reads_and_writes_disks_on_the_ahci_controller_of_q35() -> Result<(), Error> {
    reads_and_writes("q35", 2, "ahci")
}

#[test]
fn a_guest_sees_media_change_and_keeps_what_it_holds() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let (first, second) = (folder.join("first"), folder.join("second"));
    let (first_sum, second_sum) = (image(&first, 3)?, image(&second, 4)?);
    let mut vm = machine(&guest, "q35", "ahci,sr_mod")
        .option("-device", "ide-cd,id=tray,bus=ide.1")
        .with_qmp()
        .boot()?;
    vm.expect("GUEST-UP")?;
    let mut qmp = vm.qmp()?;
    let sum_of_cd = "cat /dev/sr0 2>/dev/null | md5sum | cut -c 1-32";
    let empty = vm.shell(sum_of_cd)?;
    for (file, sum) in [(&first, &first_sum), (&second, &second_sum)] {
        qmp.execute(
            "blockdev-change-medium",
            json!({ "id": "tray", "format": "raw", "filename": file }),
        )?;
        assert_eq!(vm.shell(sum_of_cd)?, *sum);
    }
    qmp.execute("eject", json!({ "id": "tray" }))?;
    assert_eq!(vm.shell(sum_of_cd)?, empty);
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}

/// Makes a file system on a disk, and finds in it what was put there: before and after a look at the
/// medium itself, and after a part of it was taken out again.
fn keeps_a_tree(vm: &mut Vm, disk: &str) -> Result<(), Error> {
    let sums = |tree: &str| {
        format!("cd {tree} && find . -type f -exec md5sum {{}} + | sort | md5sum; cd /")
    };
    let made = format!(
        "mkdir -p /mnt; mke2fs /dev/{disk} >/dev/null && mount -t ext4 -o discard /dev/{disk} /mnt; echo"
    );
    vm.shell(&made)?;
    let wanted = vm.shell(&sums("/lib/modules"))?;
    vm.shell("cp -a /lib/modules /mnt/a; cp -a /lib/modules /mnt/b; rm -r /mnt/a; sync; echo")?;
    assert_eq!(vm.shell(&sums("/mnt/b"))?, wanted);
    vm.shell(&format!(
        "umount /mnt; echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/{disk} /mnt; echo"
    ))?;
    assert_eq!(vm.shell(&sums("/mnt/b"))?, wanted);
    let errors = vm.shell("dmesg | grep -c -E 'I/O error|EXT4-fs error|abort|timeout, '; true")?;
    assert_eq!(errors, "0");
    vm.shell("umount /mnt; echo")?;
    Ok(())
}

#[test]
fn linux_keeps_a_tree_of_files_on_a_scsi_disk() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    for (name, adapter, cpus) in [
        ("q35", "virtio-scsi-pci,num_queues=2,iothread=io", 2),
        ("microvm", "virtio-scsi-device", 1),
    ] {
        let folder = Folder::new()?;
        let (disk, cd) = (folder.join("disk"), folder.join("cd"));
        std::fs::File::create(&disk)?.set_len(64 << 20)?;
        let cd_sum = image(&cd, 2)?;
        let drivers = "virtio_pci,virtio_mmio,virtio_scsi,sd_mod,sr_mod,ext4";
        let mut vm = virtual_machine(&guest, name, drivers)
            .cpus(cpus)
            .args("-object iothread,id=io")
            .option("-device", format!("{adapter},id=scsi0"))
            .option(
                "-drive",
                format!(
                    "if=none,id=d,format=raw,discard=unmap,file={}",
                    disk.display()
                ),
            )
            .option(
                "-device",
                "scsi-hd,drive=d,bus=scsi0.0,serial=S-7,scsi-id=9,lun=300",
            )
            .option(
                "-drive",
                format!("if=scsi,media=cdrom,index=4,file={}", cd.display()),
            )
            .boot()?;
        vm.expect("GUEST-UP")?;
        // Unit 300 in the flat address space (SAM-5, 4.7.7.3), as Linux prints it.
        // Unit 300 in the flat address space (SAM-5, 4.7.7.3), as Linux prints it.
        assert_eq!(
            vm.shell("ls /sys/class/scsi_device")?,
            "0:0:4:0      0:0:9:16684"
        );
        assert_eq!(vm.shell("cat /dev/sr0 | md5sum | cut -c 1-32")?, cd_sum);
        let serial = vm.shell("tail -c 3 /sys/class/scsi_device/0:0:9:16684/device/vpd_pg80")?;
        assert_eq!(serial, "S-7");
        keeps_a_tree(&mut vm, "sda")?;
        vm.send("exit\n")?;
        vm.expect("GUEST-DOWN")?;
        vm.expect_success()?;
    }
    Ok(())
}

#[test]
fn linux_keeps_a_tree_of_files_on_two_nvme_namespaces() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    for (name, cpus) in [("q35", 2), ("pc", 1)] {
        let folder = Folder::new()?;
        let (first, second) = (folder.join("first"), folder.join("second"));
        let sum = image(&first, 5)?;
        std::fs::File::create(&second)?.set_len(64 << 20)?;
        let mut vm = machine(&guest, name, "nvme,ext4")
            .cpus(cpus)
            .option(
                "-drive",
                format!("if=none,id=a,format=raw,file={}", first.display()),
            )
            .option(
                "-drive",
                format!(
                    "if=none,id=b,format=raw,discard=unmap,file={}",
                    second.display()
                ),
            )
            .args("-device nvme,id=n,serial=S-7,drive=a,mdts=5")
            .args("-device nvme-ns,bus=n.0,drive=b,logical_block_size=4096")
            .boot()?;
        vm.expect("GUEST-UP")?;
        assert_eq!(vm.shell("cat /sys/class/nvme/nvme0/serial")?.trim(), "S-7");
        assert_eq!(vm.shell("cat /dev/nvme0n1 | md5sum | cut -c 1-32")?, sum);
        assert_eq!(
            vm.shell("cat /sys/block/nvme0n2/queue/logical_block_size")?,
            "4096"
        );
        keeps_a_tree(&mut vm, "nvme0n2")?;
        vm.send("exit\n")?;
        vm.expect("GUEST-DOWN")?;
        vm.expect_success()?;
    }
    Ok(())
}

#[test]
fn a_scsi_guest_sees_new_sizes_and_new_media() -> Result<(), Error> {
    let Some(guest) = Guest::find("amd64")? else {
        return Ok(());
    };
    let folder = Folder::new()?;
    let (disk, cd) = (folder.join("disk"), folder.join("cd"));
    std::fs::File::create(&disk)?.set_len(1 << 20)?;
    let cd_sum = image(&cd, 3)?;
    let mut vm = virtual_machine(&guest, "pc", "virtio_pci,virtio_scsi,sd_mod,sr_mod")
        .args("-device virtio-scsi-pci -device scsi-hd,drive=d -device scsi-cd,id=tray")
        .option(
            "-drive",
            format!("if=none,id=d,format=raw,file={}", disk.display()),
        )
        .with_qmp()
        .boot()?;
    vm.expect("GUEST-UP")?;
    let mut qmp = vm.qmp()?;
    qmp.execute("block_resize", json!({ "device": "d", "size": 3 << 20 }))?;
    // The driver hears of it, and asks: no command of ours makes it.
    let size = "until [ $(cat /sys/block/sda/size) = 6144 ]; do sleep 1; done; echo seen";
    assert_eq!(vm.shell(size)?, "seen");
    qmp.execute(
        "blockdev-change-medium",
        json!({ "id": "tray", "format": "raw", "filename": cd }),
    )?;
    assert_eq!(vm.shell("cat /dev/sr0 | md5sum | cut -c 1-32")?, cd_sum);
    vm.send("exit\n")?;
    vm.expect("GUEST-DOWN")?;
    vm.expect_success()
}
