//! The engine on other kinds of hosts, which have no compiler of ours: its unit tests, built for them and
//! run under `qemu-user`. One of them is big-endian.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::host;

/// What the interpreter is made of, the guests that it runs, and tables that these read.
const CRATES: &[&str] = &[
    "accel_ir",
    "accel_core",
    "accel_softmmu",
    "accel_interp",
    "accel_kvm",
    "hw_memory",
    "hw_state",
    "hw_intc",
    "hw_virtio",
    "target_decode",
    "target_softfloat",
    "target_x86",
    "target_arm",
    "firmware_acpi",
    "firmware_smbios",
];

/// Tests that look at what `qemu-user` does not show, and why.
const SKIPPED: &[(&str, &str)] = &[
    (
        "advice_reaches_the_mapping",
        "advice is not passed on to the kernel",
    ),
    (
        "the_reference_compiler_accepts",
        "iasl is a program of this host",
    ),
    (
        "dmidecode_reads_them",
        "dmidecode is a program of this host",
    ),
];

/// A kind of host.
struct Host {
    arch: &'static str,
    /// Debian's name for it, in its cross tools.
    gnu: &'static str,
    /// Debian's packages: linker and C library.
    packages: &'static str,
}

const HOSTS: &[Host] = &[
    Host {
        arch: "s390x",
        gnu: "s390x-linux-gnu",
        packages: "gcc-s390x-linux-gnu libc6-dev-s390x-cross",
    },
    Host {
        arch: "aarch64",
        gnu: "aarch64-linux-gnu",
        packages: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    },
];

impl Host {
    fn triple(&self) -> String {
        format!("{}-unknown-linux-gnu", self.arch)
    }

    fn linker(&self) -> String {
        format!("{}-gcc", self.gnu)
    }

    fn emulator(&self) -> String {
        format!("qemu-{}", self.arch)
    }

    /// Where its standard library is, if it can be had.
    fn ready(&self) -> Result<Option<Library>> {
        if !starts(&self.linker()) {
            bail!("no {} (packages {})", self.linker(), self.packages);
        }
        if !starts(&self.emulator()) {
            bail!("no {} (package qemu-user)", self.emulator());
        }
        library(&self.triple())
    }

    fn test(&self, library: Library) -> Result<()> {
        let variable = |what: &str| {
            let triple = self.triple().replace('-', "_").to_uppercase();
            format!("CARGO_TARGET_{triple}_{what}")
        };
        let runner = format!("{} -L /usr/{}", self.emulator(), self.gnu);
        let mut command = Command::new(host::cargo());
        command
            .args(["test", "--lib", "--target", &self.triple()])
            .args(CRATES.iter().flat_map(|name| ["--package", *name]));
        if library == Library::Source {
            // Cargo takes this for unstable; a compiled library is preferred.
            command
                .arg("-Zbuild-std=std,test")
                .env("RUSTC_BOOTSTRAP", "1");
        }
        command.arg("--");
        for (name, why) in SKIPPED {
            eprintln!("on {}, `{name}` is left out: {why}", self.arch);
            command.args(["--skip", name]);
        }
        let status = command
            .current_dir(host::workspace())
            .env(variable("LINKER"), self.linker())
            .env(variable("RUNNER"), runner)
            .status()
            .context("cannot start cargo")?;
        if !status.success() {
            bail!("tests failed on {} ({status})", self.arch);
        }
        Ok(())
    }
}

/// The tests, on every kind of host that is not this one. Without the tools for one they are skipped
/// loudly, or fail where skipping is forbidden. What is not Debian's and cannot be installed by every
/// machine, a library of the Rust at hand, may be missing anywhere.
pub(crate) fn run() -> Result<()> {
    let foreign = HOSTS
        .iter()
        .filter(|host| host.arch != std::env::consts::ARCH);
    for host in foreign {
        match host.ready() {
            Ok(Some(library)) => host.test(library)?,
            Ok(None) => eprintln!(
                "SKIPPED: tests for hosts of kind {}: rustup has neither a standard library for them nor its source",
                host.arch
            ),
            Err(what) if std::env::var("CI_NO_SKIP").is_ok_and(|v| v == "1") => {
                return Err(what.context(format!("no tests for hosts of kind {}", host.arch)));
            }
            Err(what) => eprintln!("SKIPPED: tests for hosts of kind {}: {what:#}", host.arch),
        }
    }
    Ok(())
}

fn starts(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version");
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A standard library for another target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Library {
    Compiled,
    /// Not every release of Rust has every target's.
    Source,
}

/// Sees to it that there is a standard library for a target.
fn library(triple: &str) -> Result<Option<Library>> {
    let root = host::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let libraries = Path::new(root.trim()).join("lib/rustlib");
    let has = |what: &str, name: &str| {
        let added = host::output(Command::new("rustup").args([what, "add", name]));
        added.inspect_err(|e| eprintln!("{e:#}")).is_ok()
    };
    Ok(
        if libraries.join(triple).exists() || has("target", triple) {
            Some(Library::Compiled)
        } else if libraries.join("src/rust/library/std").exists() || has("component", "rust-src") {
            Some(Library::Source)
        } else {
            None
        },
    )
}
