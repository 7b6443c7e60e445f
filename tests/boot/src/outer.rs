//! A machine with hardware virtualisation inside an emulator: a true KVM wherever a QEMU can be
//! had, whatever the host's own processor and kernel offer.
//!
//! QEMU's engine shows AMD's SVM with nested paging, or Mimic's own Arm's EL2, to the *outer* guest, Debian's
//! kernel, which has `/dev/kvm` then. The program under test, built for that kind of host, the libraries it needs
//! and its own guest's files go there as an archive on a read-only disk and run in a root of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Folder, Guest, Vm, binary, cross, skip};

/// A kind of outer machine.
struct Kind {
    /// Its guest, by Debian's name.
    arch: &'static str,
    /// The emulator, by the name that Debian's package gives it.
    emulator: &'static str,
    package: &'static str,
    modules: &'static str,
}

const AMD64: Kind = Kind {
    arch: "amd64",
    emulator: "qemu-system-x86_64",
    package: "qemu-system-x86",
    modules: "virtio_pci,virtio_blk,kvm_amd",
};

/// KVM is part of the kernel.
const ARM64: Kind = Kind {
    arch: "arm64",
    emulator: "qemu-system-aarch64",
    package: "qemu-system-arm",
    modules: "virtio_pci,virtio_blk",
};

/// The outer guest at its prompt, with `/dev/kvm` and everything unpacked.
pub struct Outer {
    vm: Vm,
    /// Holds the disk.
    _folder: Folder,
}

impl Outer {
    /// Boots the outer guest on x86; `None` after a loud word where that cannot be.
    pub fn boot() -> Result<Option<Self>, Error> {
        Self::boot_kind(&AMD64, "q35", || binary::program().map(Some))
    }

    /// The same on Arm, with a GICv2.
    pub fn boot_arm_v2() -> Result<Option<Self>, Error> {
        let machine = "virt,virtualization=on,gic-version=2";
        Self::boot_kind(&ARM64, machine, cross::program)
    }

    /// The same on Arm, with a GICv3: the program under test is the outer machine, too.
    pub fn boot_arm_in_itself() -> Result<Option<Self>, Error> {
        Self::boot_arm_v3(cross::program)
    }

    /// The same with the program in the program's place that saves a machine and goes on in another
    /// (`tests/saved/examples/moves.rs`).
    pub fn boot_arm_for_moves() -> Result<Option<Self>, Error> {
        Self::boot_arm_v3(cross::moves)
    }

    fn boot_arm_v3(
        program: impl FnOnce() -> Result<Option<PathBuf>, Error>,
    ) -> Result<Option<Self>, Error> {
        let machine = "virt,virtualization=on,gic-version=3";
        let Some(guest) = Guest::find(ARM64.arch)? else {
            return Ok(None);
        };
        let Some(program) = program()? else {
            return Ok(None);
        };
        Self::boot_in(&binary::program()?, &ARM64, machine, &guest, &program).map(Some)
    }

    fn boot_kind(
        kind: &Kind,
        machine: &str,
        program: impl FnOnce() -> Result<Option<PathBuf>, Error>,
    ) -> Result<Option<Self>, Error> {
        let Some(guest) = Guest::find(kind.arch)? else {
            return Ok(None);
        };
        let Some(emulator) = in_path(kind.emulator) else {
            skip(&format!(
                "no {} to be the outer machine: install the package {}",
                kind.emulator, kind.package
            ))?;
            return Ok(None);
        };
        let Some(program) = program()? else {
            return Ok(None);
        };
        Self::boot_in(&emulator, kind, machine, &guest, &program).map(Some)
    }

    fn boot_in(
        emulator: &Path,
        kind: &Kind,
        machine: &str,
        guest: &Guest,
        program: &Path,
    ) -> Result<Self, Error> {
        let folder = Folder::new()?;
        let disk = payload(&folder, guest, program)?;
        let modules = kind.modules;
        let mut vm = Vm::new(machine)
            .program(emulator)
            .args("-accel tcg,thread=multi -cpu max -smp 2 -m 1280")
            .linux(guest)
            // The last one counts.
            .option("-initrd", &guest.initrd_modules)
            .append(&format!("quiet guest.modules={modules}"))
            .option(
                "-drive",
                format!(
                    "if=none,id=payload,format=raw,readonly=on,file={}",
                    disk.display()
                ),
            )
            .args("-device virtio-blk-pci,drive=payload")
            .boot()?;
        vm.expect("GUEST-UP")?;
        // Kernel messages of the outer guest would fall into the lines that tests wait for.
        let said = vm.shell(
            "echo 1 >/proc/sys/kernel/printk; mkdir /host && tar x -C /host -f /dev/vda && \
             cd /host && mkdir -p dev proc tmp && mount -t proc proc proc && \
             mount --bind /dev dev && ls dev/kvm",
        )?;
        if said != "dev/kvm" {
            return Err(Error::Exit {
                reason: "the outer machine has no /dev/kvm".to_owned(),
                seen: said,
            });
        }
        Ok(Outer {
            vm,
            _folder: folder,
        })
    }

    /// Starts the program under test with these words, its console and monitor on the outer guest's. The files
    /// `vmlinuz`, `initrd` and `initrd-modules` are in its working directory, on x86 `vmlinux` and the
    /// folder `seabios`, on Arm the folder `aavmf` too.
    pub fn start(&mut self, words: &str) -> Result<&mut Vm, Error> {
        self.run(&format!(
            "-nodefaults -display none -no-reboot -serial mon:stdio {words}"
        ))
    }

    /// Starts it with no other words than these.
    pub fn run(&mut self, words: &str) -> Result<&mut Vm, Error> {
        self.vm.expect("guest# ")?;
        // The inner guest's terminal has ended its lines in carriage returns already.
        self.vm.send(&format!(
            "stty -onlcr; chroot . /mimic {words}; \
             status=$?; stty onlcr; echo INNER''-EXIT $status\n"
        ))?;
        Ok(&mut self.vm)
    }

    /// Waits for the program's end; answers its exit status.
    pub fn status(&mut self) -> Result<i32, Error> {
        self.vm.expect("INNER-EXIT ")?;
        let status = self.vm.expect("\r\n")?;
        status.trim().parse().map_err(|_| Error::Exit {
            reason: format!("{status:?} is no exit status"),
            seen: String::new(),
        })
    }

    /// Switches the outer machine off.
    pub fn power_off(mut self) -> Result<(), Error> {
        self.vm.send("exit\n")?;
        self.vm.expect_success()
    }
}

/// A program of the host's.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A tar archive, which is also a disk: whole sectors.
fn payload(folder: &Folder, guest: &Guest, program: &Path) -> Result<PathBuf, Error> {
    let root = folder.join("root");
    let program = program.canonicalize()?;
    let mut files = vec![
        (program.clone(), PathBuf::from("mimic")),
        (guest.vmlinuz.clone(), "vmlinuz".into()),
        (guest.initrd.clone(), "initrd".into()),
        (guest.initrd_modules.clone(), "initrd-modules".into()),
    ];
    files.extend(guest.firmware());
    for library in libraries(&program)? {
        let place = library.strip_prefix("/").unwrap_or(&library).to_owned();
        files.push((library, place));
    }
    for (from, place) in files {
        let link = root.join(place);
        if let Some(parent) = link.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::os::unix::fs::symlink(from.canonicalize()?, link)?;
    }
    let disk = folder.join("payload.tar");
    let made = Command::new("tar")
        .args(["--create", "--dereference", "--file"])
        .arg(&disk)
        .arg("--directory")
        .args([&root, Path::new(".")])
        .stdin(Stdio::null())
        .status()?;
    if !made.success() {
        return Err(Error::Start {
            program: "tar".into(),
            reason: made.to_string(),
        });
    }
    Ok(disk)
}

/// The shared libraries that a program is loaded with, its loader among them; none if it is linked
/// statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let said = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(said
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}
