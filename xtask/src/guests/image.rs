//! A disk image with Debian on it, made out of packages without a mount or a loop device.
//!
//! `mmdebstrap` unpacks and configures, `mke2fs -d` makes the file system, `mtools` the EFI system
//! partition, `sfdisk` the table on the plain file. amd64's disk boots both ways: GRUB's own boot sector and
//! core image lie before the first partition, and Debian's signed shim and GRUB in the EFI one, which is all
//! that arm64 has.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::emulated;
use crate::host;

/// Packages of every guest, beside its kernel and those that are essential.
const PACKAGES: &str = "systemd-sysv,udev,kmod,login";
/// What of them is not wanted on the disk: it would only be copied about.
const LEFT_OUT: &[&str] = &[
    "usr/share/man/*",
    "usr/share/locale/*",
    "usr/share/doc/*",
    "lib/modules/*/kernel/sound/*",
    "lib/modules/*/kernel/drivers/gpu/*",
    "lib/modules/*/kernel/drivers/media/*",
    "lib/modules/*/kernel/drivers/net/*",
    "lib/modules/*/kernel/drivers/infiniband/*",
    "lib/modules/*/kernel/drivers/staging/*",
    "lib/modules/*/kernel/drivers/usb/*",
];
const SUITE: &str = "bookworm";
const LABEL: &str = "mimic-root";
/// Sectors before the first partition, of the EFI system partition, and of the root file system.
const FIRST: u64 = 2048;
const ESP: u64 = 40 * 2048;
const ROOT: u64 = 640 * 2048;
const SECTOR: u64 = 512;

/// GRUB modules in the core image: everything that it needs to come up to the menu and boot.
const GRUB: &str = "biosdisk part_msdos ext2 search search_label configfile normal linux serial \
                    terminal echo test ls boot halt reboot";

/// The shell line that sums the files of some folders up, as `test_boot` has its guests say it.
const SUM: &str = "find boot etc usr/bin usr/sbin -xdev -type f -print0 | LC_ALL=C sort -z | \
                   xargs -0 md5sum | md5sum | cut -c 1-32";

/// What a guest architecture's disk has of its own.
pub(super) struct Kind {
    /// Debian's name of the architecture.
    pub(super) arch: &'static str,
    kernel: &'static str,
    /// Drivers of the first root, so that it is not unpacked for minutes.
    drivers: &'static str,
    console: &'static str,
    /// Lines of GRUB's menu before the entries: where it speaks.
    menu: &'static [&'static str],
    /// The partition table: the label, and the types of the EFI system partition and of the root.
    table: [&'static str; 3],
    /// GRUB and shim for UEFI: where they are in their packages, and their names on the disk.
    efi: [[&'static str; 2]; 2],
}

pub(super) static AMD64: Kind = Kind {
    arch: "amd64",
    kernel: "linux-image-amd64",
    drivers: "ahci ata_piix sd_mod virtio_pci virtio_blk virtio_scsi nvme ext4",
    console: "ttyS0",
    menu: &[
        "serial --unit=0 --speed=115200",
        "terminal_input serial",
        "terminal_output serial",
    ],
    table: ["dos", "ef", "83,bootable"],
    efi: [
        ["usr/lib/shim/shimx64.efi.signed", "BOOTX64.EFI"],
        [
            "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
            "grubx64.efi",
        ],
    ],
};

/// Its firmware speaks on the serial port, and so does GRUB through it.
pub(super) static ARM64: Kind = Kind {
    arch: "arm64",
    kernel: "linux-image-cloud-arm64",
    drivers: "virtio_pci virtio_blk virtio_scsi nvme sd_mod ext4",
    console: "ttyAMA0",
    menu: &[],
    table: ["gpt", "uefi", "linux"],
    efi: [
        ["usr/lib/shim/shimaa64.efi.signed", "BOOTAA64.EFI"],
        [
            "usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed",
            "grubaa64.efi",
        ],
    ],
};

/// Unpacked packages.
pub(super) struct Loaders {
    /// `shim-signed`
    pub(super) shim: PathBuf,
    /// `grub-efi-*-signed`
    pub(super) efi: PathBuf,
    /// For guests with a BIOS.
    pub(super) bios: Option<Bios>,
    /// For guests whose programs do not run on this host: what runs them.
    pub(super) emulator: Option<PathBuf>,
}

/// Unpacked packages for a boot from a BIOS.
pub(super) struct Bios {
    /// `grub-common`
    pub(super) tools: PathBuf,
    /// `libdevmapper1.02.1`, without which those do not start
    pub(super) library: PathBuf,
    /// `grub-pc-bin`
    pub(super) loader: PathBuf,
}

/// A disk to be made.
pub(super) struct Disk {
    pub(super) kind: &'static Kind,
    pub(super) image: PathBuf,
    pub(super) loaders: Loaders,
}

/// Makes the image, and the sum of its files as `*.sum`, unless both are there as this source makes them.
pub(super) fn build(disk: &Disk, update: bool) -> Result<()> {
    let Disk {
        kind,
        image,
        loaders,
    } = disk;
    let (sum, recipe) = (image.with_extension("sum"), image.with_extension("recipe"));
    let source = include_bytes!("image.rs");
    let is_made = !update && image.exists() && sum.exists();
    if is_made && fs::read(&recipe).is_ok_and(|made_by| made_by == source) {
        return Ok(());
    }
    println!(
        "{}: a disk with Debian on it; this takes some minutes",
        kind.arch
    );
    let work = image.with_extension("work");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    let tar = work.join("root.tar");
    bootstrap(kind, loaders.emulator.as_deref(), &tar)?;
    let root = work.join("root.ext4");
    let files = root_file_system(&tar, &root)?;
    let esp = work.join("esp");
    system_partition(&esp, kind, loaders)?;
    let disk = work.join("disk");
    assemble(&disk, [&esp, &root], kind, loaders.bios.as_ref())?;
    fs::rename(&disk, image)?;
    fs::write(&sum, files)?;
    fs::write(&recipe, source)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// A program of the host, which may lie where only root looks for it.
fn tool(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// A command that sees itself as root, so that files keep their owners.
fn as_root(program: &str) -> Command {
    if rustix::process::getuid().is_root() {
        return tool(program);
    }
    let mut command = tool("unshare");
    command.args(["--map-root-user", "--map-auto", "--", program]);
    command
}

/// Runs a program of a package. What it was told may be pages long: an error has what it said last.
fn run(command: &mut Command, package: &str) -> Result<String> {
    host::output(command).map_err(|error| {
        let said = error.root_cause().to_string();
        let said = said.lines().last().unwrap_or_default();
        anyhow!("{said} (this takes the package '{package}')")
    })
}

fn bootstrap(kind: &Kind, emulator: Option<&Path>, tar: &Path) -> Result<()> {
    let mut command = match emulator {
        None => tool("mmdebstrap"),
        Some(_) => emulated::mmdebstrap(tool),
    };
    command.args(["--variant=minbase", "--quiet"]);
    command.arg(format!("--architectures={}", kind.arch));
    command.arg(format!("--include={PACKAGES},{}", kind.kernel));
    for path in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude=/{path}"));
    }
    let lines = [
        "mkdir -p \"$1/etc/initramfs-tools/conf.d\" \"$1/usr/share/initramfs-tools/modules.d\""
            .to_owned(),
        "echo MODULES=list > \"$1/etc/initramfs-tools/conf.d/mimic\"".to_owned(),
        format!(
            "printf '%s\\n' {} > \"$1/usr/share/initramfs-tools/modules.d/mimic\"",
            kind.drivers
        ),
    ];
    command.arg(format!("--essential-hook={}", lines.join("; ")));
    let unit = "etc/systemd/system.conf.d";
    let lines = [
        // Nobody has a password here.
        "sed -i 's/^root:[^:]*:/root::/' \"$1/etc/shadow\"".to_owned(),
        "echo mimic > \"$1/etc/hostname\"".to_owned(),
        format!("echo 'LABEL={LABEL} / ext4 defaults 0 1' > \"$1/etc/fstab\""),
        format!("mkdir -p \"$1/{unit}\" \"$1/boot/grub\""),
        // A starved host is no reason to give a start up.
        format!(
            "printf '[Manager]\\nDefaultTimeoutStartSec=1h\\nDefaultDeviceTimeoutSec=1h\\n' > \"$1/{unit}/patience.conf\""
        ),
        menu(kind),
        "rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/*".to_owned(),
    ];
    command.arg(format!("--customize-hook={}", lines.join("; ")));
    command.arg(SUITE).arg(tar);
    match emulator {
        None => {
            let packages = match rustix::process::getuid().is_root() {
                true => "mmdebstrap",
                false => "mmdebstrap' and, as you are not root, 'uidmap",
            };
            run(&mut command, packages)?;
        }
        Some(emulator) => emulated::run(&mut command, emulator)?,
    }
    Ok(())
}

/// The shell line that writes GRUB's menu, with the names that kernel and initrd have.
fn menu(kind: &Kind) -> String {
    let mut text = kind.menu.join("\\n");
    for line in [
        "",
        "set timeout=1",
        "menuentry \"Mimic test guest\" {",
        &format!("linux /boot/%s root=LABEL=%s console={}", kind.console),
        "initrd /boot/%s",
        "}",
        "",
    ] {
        text.push_str(line);
        text.push_str("\\n");
    }
    format!(
        "printf '{text}' \"$(cd \"$1/boot\"; echo vmlinuz-*)\" {LABEL} \
         \"$(cd \"$1/boot\"; echo initrd.img-*)\" > \"$1/boot/grub/grub.cfg\""
    )
}

/// Makes the file system of an archive, and returns the sum of its files.
fn root_file_system(tar: &Path, image: &Path) -> Result<String> {
    let tree = tar.with_extension("tree");
    fs::create_dir_all(&tree)?;
    let script = format!(
        "set -e; trap 'rm -rf \"$1\"' EXIT; tar -C \"$1\" --exclude=./dev/* -xpf \"$2\"; \
         mke2fs -q -t ext4 -L \"$4\" -d \"$1\" -F \"$3\" \"$5\" >/dev/null; cd \"$1\"; {SUM}"
    );
    let mut command = as_root("sh");
    command
        .args(["-c", &script, "sh"])
        .args([&tree, tar, image])
        .arg(LABEL)
        .arg(format!("{}k", ROOT * SECTOR / 1024));
    let sum = run(&mut command, "e2fsprogs")?;
    fs::remove_file(tar)?;
    Ok(sum)
}

/// How GRUB, wherever it starts, finds its menu.
fn finder() -> String {
    format!(
        "search --label --set=root {LABEL}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    )
}

/// The EFI system partition: shim, which starts GRUB, which looks for its menu.
fn system_partition(image: &Path, kind: &Kind, loaders: &Loaders) -> Result<()> {
    fs::File::create(image)?.set_len(ESP * SECTOR)?;
    let mtool = |name: &str| {
        let mut command = tool(name);
        command.arg("-i").arg(image);
        command
    };
    run(mtool("mformat").arg("-F").arg("::"), "mtools")?;
    host::output(mtool("mmd").args(["::/EFI", "::/EFI/BOOT", "::/EFI/debian"]))?;
    let menu = image.with_extension("cfg");
    fs::write(&menu, finder())?;
    let [shim, grub] = kind.efi;
    let files = [
        (
            loaders.shim.join(shim[0]),
            format!("::/EFI/BOOT/{}", shim[1]),
        ),
        (
            loaders.efi.join(grub[0]),
            format!("::/EFI/BOOT/{}", grub[1]),
        ),
        (menu, "::/EFI/debian/grub.cfg".to_owned()),
    ];
    for (from, to) in files {
        host::output(mtool("mcopy").arg(from).arg(to))?;
    }
    Ok(())
}

/// GRUB's core image for disks that a BIOS boots from.
fn core_image(work: &Path, loaders: &Bios) -> Result<Vec<u8>> {
    let (menu, core) = (work.join("early.cfg"), work.join("core.img"));
    fs::write(&menu, finder())?;
    host::output(
        Command::new(loaders.tools.join("usr/bin/grub-mkimage"))
            .env(
                "LD_LIBRARY_PATH",
                loaders.library.join("lib/x86_64-linux-gnu"),
            )
            .arg("--directory")
            .arg(loaders.loader.join("usr/lib/grub/i386-pc"))
            .args(["--format=i386-pc", "--prefix=/boot/grub", "--config"])
            .arg(&menu)
            .arg("--output")
            .arg(&core)
            .args(GRUB.split_whitespace()),
    )?;
    Ok(fs::read(&core)?)
}

fn assemble(disk: &Path, parts: [&Path; 2], kind: &Kind, bios: Option<&Bios>) -> Result<()> {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(disk)?;
    // A GPT has a second half at the end.
    file.set_len((FIRST + ESP + ROOT + FIRST) * SECTOR)?;
    let [label, esp, root] = kind.table;
    let table = format!(
        "label: {label}\nstart={FIRST},size={ESP},type={esp}\nstart={},size={ROOT},type={root}\n",
        FIRST + ESP
    );
    let mut sfdisk = tool("sfdisk");
    sfdisk.arg("--quiet").arg(disk);
    host::filter(&mut sfdisk, table.as_bytes()).context("this takes the package 'fdisk'")?;
    if let Some(bios) = bios {
        let work = disk.parent().context("no folder")?;
        let core = core_image(work, bios)?;
        if core.len() as u64 > (FIRST - 1) * SECTOR {
            bail!("GRUB's core image has {} bytes: too many", core.len());
        }
        let boot = fs::read(bios.loader.join("usr/lib/grub/i386-pc/boot.img"))?;
        // The table is behind the code (as in every boot sector).
        file.write_all_at(boot.get(..440).context("boot.img is too short")?, 0)?;
        file.write_all_at(&core, SECTOR)?;
    }
    for (part, at) in parts.into_iter().zip([FIRST, FIRST + ESP]) {
        copy_sparsely(&fs::File::open(part)?, &file, at * SECTOR)?;
    }
    Ok(())
}

/// Copies what is not zero.
fn copy_sparsely(from: &fs::File, to: &fs::File, at: u64) -> Result<()> {
    let mut block = vec![0; 1 << 16];
    let mut offset = 0;
    loop {
        let len = from.read_at(&mut block, offset)?;
        let Some(data) = block.get(..len).filter(|data| !data.is_empty()) else {
            return Ok(());
        };
        if data.iter().any(|byte| *byte != 0) {
            to.write_all_at(data, at + offset)?;
        }
        offset += len as u64;
    }
}
