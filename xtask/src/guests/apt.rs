//! Packages by the host's apt, without touching the host's package state.
//!
//! The host's own package lists serve first, as they are. If a package is unknown there or its
//! file has been superseded, lists of our own are fetched into the cache folder and tried once.
//! Lists of our own also make this work without root, and for architectures the host is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host;

/// A downloaded package.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) sha256: String,
    pub(super) file: PathBuf,
}

/// apt for one architecture.
pub(super) struct Apt {
    pub(super) arch: String,
    /// Holds our lists, apt's caches and the downloaded files.
    folder: PathBuf,
    native: bool,
    /// Whether our own lists are in use and fresh.
    updated: bool,
}

impl Apt {
    pub(super) fn new(arch: &str, cache: &Path) -> Result<Self> {
        let folder = cache.join("apt").join(arch);
        for part in ["lists/partial", "cache/archives/partial", "files"] {
            let path = folder.join(part);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        // No package is installed as far as this apt is concerned.
        fs::write(folder.join("status"), "")?;
        let native = native()?;
        Ok(Self {
            arch: arch.to_owned(),
            folder,
            native: native == arch,
            updated: false,
        })
    }

    /// Downloads a package, or for a meta package of kernels the kernel it stands for.
    pub(super) fn fetch(&mut self, wanted: &str) -> Result<Package> {
        if self.native && !self.updated {
            match self.attempt(wanted) {
                Ok(package) => return Ok(package),
                Err(reason) => eprintln!("{}: fetching package lists ({reason:#})", self.arch),
            }
        }
        if !self.updated {
            // One unreachable source of several is no reason to stop: the download decides.
            if let Err(reason) = host::output(self.apt("apt-get", true).arg("update")) {
                eprintln!("{}: some package lists are missing: {reason:#}", self.arch);
            }
            self.updated = true;
        }
        self.attempt(wanted).with_context(|| {
            format!(
                "cannot fetch the package `{wanted}` for {}; is a Debian archive among apt's \
                 sources, and the network up?",
                self.arch
            )
        })
    }

    fn attempt(&self, wanted: &str) -> Result<Package> {
        let mut name = wanted.to_owned();
        let mut about = self.show(&name)?;
        if let Some(kernel) = kernel_of(&about) {
            name = kernel;
            about = self.show(&name)?;
        }
        let field = |key: &str| {
            field(&about, key).with_context(|| format!("the package `{name}` has no field {key}"))
        };
        let (version, sha256) = (field("Version")?, field("SHA256")?);
        let files = self.folder.join("files");
        fs::remove_dir_all(&files)?;
        fs::create_dir_all(&files)?;
        host::output(
            self.apt("apt-get", self.updated)
                .arg("download")
                .arg(format!("{name}={version}"))
                .current_dir(&files),
        )?;
        for entry in fs::read_dir(&files)? {
            let file = entry?.path();
            if file.extension().is_some_and(|ext| ext == "deb") {
                return Ok(Package {
                    name,
                    version,
                    sha256,
                    file,
                });
            }
        }
        bail!("apt-get downloaded nothing for `{name}`")
    }

    fn show(&self, name: &str) -> Result<String> {
        let mut command = self.apt("apt-cache", self.updated);
        let about = host::output(command.args(["--no-all-versions", "show", name]))?;
        if about.trim().is_empty() {
            bail!("apt knows no package `{name}`");
        }
        Ok(about)
    }

    fn apt(&self, program: &str, own_lists: bool) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        let at = |part: &str| self.folder.join(part).display().to_string();
        let mut options = vec![
            "Acquire::Retries=3".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // A download user of apt's own could not write into this folder.
            "APT::Sandbox::User=".to_owned(),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::State::status={}", at("status")),
            format!("APT::Architecture={}", self.arch),
            format!("APT::Architectures={}", self.arch),
        ];
        if own_lists {
            options.push(format!("Dir::State::Lists={}", at("lists")));
        }
        for option in options {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// Debian's name of this host's architecture.
pub(super) fn native() -> Result<String> {
    let said = host::output(Command::new("dpkg").arg("--print-architecture"))
        .context("this host has no dpkg: guests come from Debian's packages")?;
    Ok(said.trim().to_owned())
}

/// One field of a control stanza.
fn field(stanza: &str, key: &str) -> Option<String> {
    stanza.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == key).then(|| value.trim().to_owned())
    })
}

/// The kernel a meta package depends on: it has no files itself.
fn kernel_of(stanza: &str) -> Option<String> {
    if field(stanza, "Section").as_deref() != Some("kernel") {
        return None;
    }
    let depends = field(stanza, "Depends")?;
    depends
        .split([',', '|'])
        .filter_map(|item| item.split_whitespace().next())
        .find(|name| {
            // linux-image-6.1.0-37-cloud-amd64: a digit right after the common part.
            name.strip_prefix("linux-image-")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_names_its_kernel_whatever_the_version() {
        let stanza = "Package: linux-image-cloud-amd64\nSection: kernel\n\
                      Depends: linux-image-6.1.0-99-cloud-amd64 (= 6.1.999-1)\n";
        assert_eq!(
            kernel_of(stanza).as_deref(),
            Some("linux-image-6.1.0-99-cloud-amd64")
        );
    }

    #[test]
    fn a_kernel_is_not_a_meta_package() {
        let stanza = "Package: linux-image-6.1.0-99-cloud-amd64\nSection: kernel\n\
                      Depends: kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool\n";
        assert_eq!(kernel_of(stanza), None);
    }
}
