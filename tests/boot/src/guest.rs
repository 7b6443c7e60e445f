//! The guests that `cargo xtask guests` fetched.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::binary::workspace;

/// The files of one guest architecture.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The kernel as packaged; on x86 a bzImage.
    pub vmlinuz: PathBuf,
    /// The ELF kernel, for boots through the PVH entry.
    pub vmlinux: PathBuf,
    /// busybox with an `/init` that prints `GUEST-UP`.
    pub initrd: PathBuf,
    /// The same with drivers, for `guest.modules=` on the kernel command line.
    pub initrd_modules: PathBuf,
    /// On arm64, busybox, bash and perl of armhf: all programs have 32 bits. See [`Guest::has_armhf`].
    pub initrd_armhf: PathBuf,
    /// On amd64, the kernel for real hardware, and an initrd with its drivers.
    pub generic: (PathBuf, PathBuf),
    /// A disk with Debian on it: not to be written to. See [`Guest::has_disk`].
    pub disk: PathBuf,
    /// On amd64, GRUB on a CD.
    pub rescue: PathBuf,
    /// Folder of OVMF images.
    pub ovmf: PathBuf,
    /// Folder of SeaBIOS images, for `-L`.
    pub seabios: PathBuf,
    /// Folder of UEFI images for `virt`.
    pub aavmf: PathBuf,
    /// U-Boot for `virt`. See [`Guest::has_u_boot`].
    pub u_boot: PathBuf,
    /// Its first serial port, as Linux names it.
    pub console: &'static str,
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
}

impl Guest {
    /// The guest of an architecture by Debian's name, or `None` after a loud word on standard
    /// error: then the test ends as skipped. With `CI_NO_SKIP=1` that is an error.
    pub fn find(arch: &str) -> Result<Option<Self>, Error> {
        let cache = match std::env::var_os("MIMIC_GUESTS").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => workspace().join(".cache/guests"),
        };
        let home = cache.join(arch);
        let guest = Self {
            vmlinuz: home.join("vmlinuz"),
            vmlinux: home.join("vmlinux"),
            initrd: home.join("initrd"),
            initrd_modules: home.join("initrd-modules"),
            initrd_armhf: home.join("initrd-armhf"),
            generic: (home.join("vmlinuz-generic"), home.join("initrd-generic")),
            disk: home.join("disk.raw"),
            rescue: home.join("grub-rescue.iso"),
            ovmf: cache.join("share/OVMF"),
            seabios: cache.join("share/seabios"),
            aavmf: cache.join("share/AAVMF"),
            u_boot: cache.join("share/qemu_arm64/u-boot.bin"),
            console: if arch == "arm64" { "ttyAMA0" } else { "ttyS0" },
            release: std::fs::read_to_string(home.join("release"))
                .unwrap_or_default()
                .trim()
                .to_owned(),
        };
        let missing = guest
            .files(arch)
            .into_iter()
            .find(|path| !path.exists())
            .cloned();
        let Some(missing) = missing else {
            return Ok(Some(guest));
        };
        skip(&format!(
            "no {arch} guest ({} is missing): run `cargo xtask guests`",
            missing.display()
        ))?;
        Ok(None)
    }

    /// Whether the disk is there, which not every host can make; if not, that is said as by
    /// [`Guest::find`].
    pub fn has_disk(&self) -> Result<bool, Error> {
        let is_there = self.disk.exists();
        if !is_there {
            skip(&format!(
                "no disk with Debian on it ({} is missing): `cargo xtask guests` says what it lacks",
                self.disk.display()
            ))?;
        }
        Ok(is_there)
    }

    /// Whether the programs of armhf are there, which guests fetched earlier may lack; if not, that is said
    /// as by [`Guest::find`].
    pub fn has_armhf(&self) -> Result<bool, Error> {
        let is_there = self.initrd_armhf.exists();
        if !is_there {
            skip(&format!(
                "no programs of armhf ({} is missing): run `cargo xtask guests`",
                self.initrd_armhf.display()
            ))?;
        }
        Ok(is_there)
    }

    /// Whether U-Boot is there, which guests fetched earlier may lack; if not, that is said as by
    /// [`Guest::find`].
    pub fn has_u_boot(&self) -> Result<bool, Error> {
        let is_there = self.u_boot.exists();
        if !is_there {
            skip(&format!(
                "no U-Boot ({} is missing): run `cargo xtask guests`",
                self.u_boot.display()
            ))?;
        }
        Ok(is_there)
    }

    /// What a guest of KVM is given beside kernel and initrd, and its name there.
    pub(crate) fn firmware(&self) -> Vec<(PathBuf, PathBuf)> {
        let own: &[(&PathBuf, &str)] = match self.console {
            "ttyAMA0" => &[(&self.aavmf, "aavmf")],
            _ => &[(&self.vmlinux, "vmlinux"), (&self.seabios, "seabios")],
        };
        let named = |(path, name): &(&PathBuf, &str)| ((*path).clone(), PathBuf::from(name));
        own.iter().map(named).collect()
    }

    fn files(&self, arch: &str) -> Vec<&PathBuf> {
        let mut files = vec![&self.vmlinuz, &self.initrd, &self.initrd_modules];
        match arch {
            "amd64" => {
                files.extend([&self.vmlinux, &self.seabios]);
                files.extend([&self.generic.0, &self.generic.1]);
                files.extend([&self.rescue, &self.ovmf]);
            }
            "arm64" => files.push(&self.aavmf),
            _ => {}
        }
        files
    }
}

/// Whether this user can open `/dev/kvm`. Its absence is said aloud and never a failure: a host
/// cannot be given KVM by fetching something.
pub fn has_kvm() -> bool {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new("/dev/kvm"));
    if let Err(reason) = &opened {
        shout(&format!("no /dev/kvm ({reason})"));
    }
    opened.is_ok()
}

/// Says that a test is skipped; an error where `CI_NO_SKIP=1` forbids that.
pub fn skip(reason: &str) -> Result<(), Error> {
    if std::env::var_os("CI_NO_SKIP").is_some_and(|value| value == "1") {
        return Err(Error::Skipped(reason.to_owned()));
    }
    shout(reason);
    Ok(())
}

/// Says that a test is skipped for want of what not every machine can be given.
pub(crate) fn skip_always(reason: &str) {
    shout(reason);
}

/// Not `eprintln!`: the test runner hides what a passing test prints that way.
fn shout(reason: &str) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}
