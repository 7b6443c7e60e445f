//! `cargo xtask guests`: real kernels, a small user land and firmware, out of Debian's packages.
//!
//! Everything lands in one cache folder, `.cache/guests` or `$MIMIC_GUESTS`; nothing is added to
//! the system. What is there already is not fetched again. The folder then holds:
//!
//! ```text
//! manifest.json            what was fetched: package, version, checksum
//! amd64/vmlinuz            the kernel as packaged (a bzImage; on arm64 an Image)
//! amd64/vmlinux            the ELF inside it, for boots through the PVH entry
//! amd64/release            the kernel's release string
//! amd64/initrd             busybox and an /init that prints GUEST-UP
//! amd64/initrd-modules     the same with drivers to `modprobe`
//! amd64/vmlinuz-generic    the kernel for real hardware, which drives AHCI
//! amd64/initrd-generic     its drivers
//! amd64/grub-rescue.iso    GRUB on a CD
//! amd64/disk.raw           a disk with Debian on it, which boots from a BIOS and from UEFI; for tests only
//! arm64/initrd-armhf       busybox, bash and perl of armhf: programs of 32 bits alone
//! arm64/disk.raw           the same for UEFI alone
//! share/seabios/*.bin      firmware, by the name of its folder in the package
//! share/AAVMF/*.fd         UEFI for arm64, likewise
//! share/qemu_arm64/*       U-Boot for `virt`
//! ```

mod apt;
mod emulated;
mod image;
mod initrd;
mod kernel;
mod manifest;
mod modules;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host;
use apt::Apt;
use manifest::Manifest;

/// What to fetch for one guest architecture; its name is Debian's.
#[derive(Clone, Copy)]
struct Guest {
    arch: &'static str,
    /// The meta package whose dependency is the current kernel. Never an exact version: kernels
    /// are superseded every few weeks.
    kernel: &'static str,
    /// Packages, and the folder in each with firmware.
    firmware: &'static [(&'static str, &'static str)],
    /// Drivers of `initrd-modules`, without what they depend on.
    modules: &'static [&'static str],
    /// An architecture whose programs the kernel runs too: what is in their initrd, beside busybox.
    programs: Option<Programs>,
    /// Another kernel, and the drivers of its initrd: `vmlinuz-generic`, `initrd-generic`.
    generic: Option<(&'static str, &'static [&'static str])>,
}

/// Programs of another architecture, linked with glibc: `initrd-<arch>`.
#[derive(Clone, Copy)]
struct Programs {
    arch: &'static str,
    /// Packages, and the files wanted of them: their names in the package and in the initrd. Libraries
    /// have the ABI's name in both.
    packages: &'static [(&'static str, &'static [(&'static str, &'static str)])],
}

const GUESTS: &[Guest] = &[AMD64, ARM64];

const AMD64: Guest = Guest {
    arch: "amd64",
    kernel: "linux-image-cloud-amd64",
    firmware: &[
        ("seabios", "usr/share/seabios"),
        ("ovmf", "usr/share/OVMF"),
        ("ovmf", "usr/share/ovmf"),
    ],
    modules: &[
        "virtio_pci",
        "virtio_mmio",
        "virtio_blk",
        "virtio_rng",
        "virtio_console",
        "virtio_net",
        "virtio_scsi",
        "virtio_balloon",
        "nvme",
        "ata_piix",
        "sd_mod",
        "sr_mod",
        "ext4",
        "kvm_amd",
    ],
    programs: None,
    generic: Some((
        "linux-image-amd64",
        &[
            "ahci",
            "ata_piix",
            "nvme",
            "virtio_pci",
            "virtio_blk",
            "virtio_scsi",
            "sd_mod",
            "sr_mod",
            "isofs",
            "crc32c_generic",
            "ext4",
        ],
    )),
};

const ARM64: Guest = Guest {
    arch: "arm64",
    kernel: "linux-image-cloud-arm64",
    firmware: &[
        ("qemu-efi-aarch64", "usr/share/AAVMF"),
        ("qemu-efi-aarch64", "usr/share/qemu-efi-aarch64"),
        ("u-boot-qemu", "usr/lib/u-boot/qemu_arm64"),
    ],
    modules: &[
        "virtio_pci",
        "virtio_mmio",
        "virtio_blk",
        "virtio_rng",
        "virtio_console",
        "gpio_pl061",
        "gpio_keys",
        "evdev",
        "rtc_pl031",
        "ext4",
    ],
    programs: Some(ARMHF),
    generic: None,
};

const ARMHF: Programs = Programs {
    arch: "armhf",
    packages: &[
        (
            "libc6",
            &[
                ("ld-linux-armhf.so.3", "lib/ld-linux-armhf.so.3"),
                ("libc.so.6", "lib/libc.so.6"),
                ("libm.so.6", "lib/libm.so.6"),
                ("libdl.so.2", "lib/libdl.so.2"),
                ("libpthread.so.0", "lib/libpthread.so.0"),
            ],
        ),
        ("libgcc-s1", &[("libgcc_s.so.1", "lib/libgcc_s.so.1")]),
        ("libcrypt1", &[("libcrypt.so.1", "lib/libcrypt.so.1")]),
        ("libtinfo6", &[("libtinfo.so.6", "lib/libtinfo.so.6")]),
        ("bash", &[("bash", "bin/bash")]),
        ("perl-base", &[("perl", "bin/perl")]),
    ],
};

const BUSYBOX: &str = "busybox-static";

/// The cache folder: `$MIMIC_GUESTS`, or `.cache/guests` in the workspace.
pub(crate) fn folder() -> PathBuf {
    match std::env::var_os("MIMIC_GUESTS") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => host::workspace().join(".cache/guests"),
    }
}

/// Fetches what is missing and returns the cache folder. Of what tests alone need, nothing is made.
pub(crate) fn ready() -> Result<PathBuf> {
    all(GUESTS, false, false)
}

/// The same, with what tests need, as far as this host can make it.
pub(crate) fn ready_for_tests() -> Result<PathBuf> {
    all(GUESTS, false, true)
}

/// The chore: fetches and makes what is missing for the named architectures, or for all.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut wanted = Vec::new();
    let mut update = false;
    for arg in args {
        match arg.as_str() {
            "--update" => update = true,
            name => match GUESTS.iter().find(|guest| guest.arch == name) {
                Some(guest) => wanted.push(*guest),
                None => {
                    let known: Vec<&str> = GUESTS.iter().map(|guest| guest.arch).collect();
                    bail!("no guest `{name}`; there is {}", known.join(", "));
                }
            },
        }
    }
    if wanted.is_empty() {
        wanted.extend(GUESTS);
    }
    let folder = all(&wanted, update, true)?;
    println!("guests are ready in {}", folder.display());
    Ok(())
}

fn all(wanted: &[Guest], update: bool, with_disks: bool) -> Result<PathBuf> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let lock = File::create(folder.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .context("cannot lock the guest folder")?;
    let mut disks = Vec::new();
    for guest in wanted {
        let disk = fetch(guest, &folder, update, with_disks);
        disks.extend(disk.with_context(|| format!("guests for {} are incomplete", guest.arch))?);
    }
    // Each is a matter of minutes on one processor.
    let made: Vec<Result<()>> = std::thread::scope(|scope| {
        let makers: Vec<_> = disks
            .iter()
            .map(|disk| scope.spawn(move || image::build(disk, update)))
            .collect();
        let made = makers.into_iter().map(std::thread::ScopedJoinHandle::join);
        made.map(|made| made.unwrap_or_else(|_| bail!("making it ended early")))
            .collect()
    });
    for (disk, made) in disks.iter().zip(made) {
        match made.context("cannot make the disk with Debian on it") {
            Err(reason) if std::env::var_os("CI_NO_SKIP").is_some_and(|value| value == "1") => {
                return Err(reason);
            }
            // Not every user may unpack a system.
            Err(reason) => eprintln!(
                "{}: {reason:#}; tests that boot from it will be skipped",
                disk.kind.arch
            ),
            Ok(()) => {}
        }
    }
    Ok(folder)
}

/// Fetches one guest. Returns the disk that is to be made for it.
fn fetch(
    guest: &Guest,
    folder: &Path,
    update: bool,
    with_disks: bool,
) -> Result<Option<image::Disk>> {
    let mut manifest = Manifest::load(folder, guest.arch)?;
    let mut apt = Apt::new(guest.arch, folder)?;

    let kernel = unpacked(guest.kernel, folder, &mut manifest, &mut apt, update)?;
    let busybox = unpacked(BUSYBOX, folder, &mut manifest, &mut apt, update)?;
    for (package, from) in guest.firmware {
        let tree = unpacked(package, folder, &mut manifest, &mut apt, update)?;
        let name = from.rsplit('/').next().unwrap_or(from);
        copy_folder(&tree.join(from), &folder.join("share").join(name))?;
    }

    let home = folder.join(guest.arch);
    let (image, release) = kernel::find(&kernel)?;
    let packaged = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
    let changed = host::write_if_changed(&home.join("vmlinuz"), &packaged)?;
    let inner = home.join("vmlinux");
    // Only a bzImage holds another kernel.
    if guest.arch == "amd64" && (changed || !inner.exists()) {
        host::write_if_changed(&inner, &kernel::inner_elf(&packaged)?)?;
    }
    host::write_if_changed(&home.join("release"), format!("{release}\n").as_bytes())?;

    let program = busybox_in(&busybox)?;
    host::write_if_changed(&home.join("initrd"), &initrd::build(&program, None))?;
    let modules = modules::collect(&kernel, &release, guest.modules)?;
    host::write_if_changed(
        &home.join("initrd-modules"),
        &initrd::build(&program, Some(&modules)),
    )?;
    if let Some(programs) = guest.programs {
        let content = programs_initrd(programs, folder, update)?;
        let name = format!("initrd-{}", programs.arch);
        host::write_if_changed(&home.join(name), &content)?;
    }
    if let Some((package, drivers)) = guest.generic {
        let kernel = unpacked(package, folder, &mut manifest, &mut apt, update)?;
        let (image, release) = kernel::find(&kernel)?;
        let packaged = fs::read(&image)?;
        host::write_if_changed(&home.join("vmlinuz-generic"), &packaged)?;
        let modules = modules::collect(&kernel, &release, drivers)?;
        host::write_if_changed(
            &home.join("initrd-generic"),
            &initrd::build(&program, Some(&modules)),
        )?;
    }
    println!("{}: Linux {release}", guest.arch);
    if !with_disks {
        return Ok(None);
    }
    let mut package = |name: &str| unpacked(name, folder, &mut manifest, &mut apt, update);
    let shim = package("shim-signed")?;
    let efi = package(&format!("grub-efi-{}-signed", guest.arch))?;
    let (kind, bios) = match guest.arch {
        "amd64" => {
            let rescue = package("grub-rescue-pc")?;
            let cd = fs::read(rescue.join("usr/lib/grub-rescue/grub-rescue-cdrom.iso"))?;
            host::write_if_changed(&home.join("grub-rescue.iso"), &cd)?;
            let bios = image::Bios {
                tools: package("grub-common")?,
                library: package("libdevmapper1.02.1")?,
                loader: package("grub-pc-bin")?,
            };
            (&image::AMD64, Some(bios))
        }
        _ => (&image::ARM64, None),
    };
    let loaders = image::Loaders {
        shim,
        efi,
        bios,
        emulator: emulator(guest.arch, folder, update)?,
    };
    Ok(Some(image::Disk {
        kind,
        image: home.join("disk.raw"),
        loaders,
    }))
}

/// What runs the programs of a guest if this host does not.
fn emulator(arch: &str, folder: &Path, update: bool) -> Result<Option<PathBuf>> {
    let native = apt::native()?;
    if arch != "arm64" || native == arch {
        return Ok(None);
    }
    let mut manifest = Manifest::load(folder, &native)?;
    let mut apt = Apt::new(&native, folder)?;
    let tree = unpacked("qemu-user-static", folder, &mut manifest, &mut apt, update)?;
    Ok(Some(tree.join("usr/bin/qemu-aarch64-static")))
}

/// An initrd of programs of another architecture alone.
fn programs_initrd(programs: Programs, folder: &Path, update: bool) -> Result<Vec<u8>> {
    let mut manifest = Manifest::load(folder, programs.arch)?;
    let mut apt = Apt::new(programs.arch, folder)?;
    let busybox = unpacked(BUSYBOX, folder, &mut manifest, &mut apt, update)?;
    let mut files = Vec::new();
    for (package, wanted) in programs.packages {
        let tree = unpacked(package, folder, &mut manifest, &mut apt, update)?;
        for (name, path) in *wanted {
            let content = program_in(&tree, name)
                .with_context(|| format!("the package {package} holds no {name}"))?;
            files.push((*path, content));
        }
    }
    let program = busybox_in(&busybox)?;
    Ok(initrd::build_with(&program, None, &files))
}

/// A file by its name, in one of the folders where programs and libraries are.
fn program_in(tree: &Path, name: &str) -> Option<Vec<u8>> {
    let places = ["bin", "usr/bin", "lib", "usr/lib"];
    places.iter().find_map(|place| {
        let place = tree.join(place);
        if let Ok(content) = fs::read(place.join(name)) {
            return Some(content);
        }
        // Folders of one architecture's libraries.
        let inner = fs::read_dir(&place).ok()?.flatten();
        inner
            .map(|entry| entry.path().join(name))
            .find_map(|path| fs::read(path).ok())
    })
}

/// The folder with a package's files; fetches the package unless that was done before.
fn unpacked(
    wanted: &str,
    folder: &Path,
    manifest: &mut Manifest,
    apt: &mut Apt,
    update: bool,
) -> Result<PathBuf> {
    let tree = folder.join(&apt.arch).join("packages").join(wanted);
    if !update && manifest.has(wanted) && tree.exists() {
        return Ok(tree);
    }
    let package = apt.fetch(wanted)?;
    if tree.exists() && manifest.version(wanted) == Some(package.version.as_str()) {
        fs::remove_file(&package.file)?;
        return Ok(tree);
    }
    println!("{}: {} {}", apt.arch, package.name, package.version);
    let fresh = tree.with_extension("new");
    for old in [&fresh, &tree] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    fs::create_dir_all(&fresh)?;
    host::output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&package.file)
            .arg(&fresh),
    )?;
    fs::rename(&fresh, &tree)?;
    fs::remove_file(&package.file)?;
    manifest.record(wanted, &package)?;
    Ok(tree)
}

fn busybox_in(tree: &Path) -> Result<Vec<u8>> {
    // Merged-/usr releases moved the program.
    for place in ["bin/busybox", "usr/bin/busybox"] {
        if let Ok(program) = fs::read(tree.join(place)) {
            return Ok(program);
        }
    }
    bail!("the package {BUSYBOX} holds no busybox")
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let entries =
        fs::read_dir(from).with_context(|| format!("the package holds no {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        // Reading follows links: some images are links to others of the folder.
        if let Ok(content) = fs::read(entry.path()) {
            host::write_if_changed(&to.join(entry.file_name()), &content)?;
        }
    }
    Ok(())
}
