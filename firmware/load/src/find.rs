//! Finding packaged firmware.

use std::path::{Path, PathBuf};

/// A firmware file that is nowhere to be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// A name without a folder.
    #[error("firmware '{name}' was not found in {}{}", list(.searched), advice(.package))]
    NotFound {
        /// File name.
        name: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
        /// The Debian package that has it.
        package: Option<&'static str>,
    },
    /// A path.
    #[error("firmware file '{}' does not exist{}", .0.display(), package_advice(.0))]
    NoFile(PathBuf),
}

fn package_advice(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(package_of) {
        Some(package) => format!("; install it ('apt install {package}')"),
        None => String::new(),
    }
}

fn list(folders: &[PathBuf]) -> String {
    let names: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
    names.join(", ")
}

fn advice(package: &Option<&'static str>) -> String {
    match package {
        Some(package) => {
            format!("; install it ('apt install {package}') or say where it is with -L FOLDER")
        }
        None => "; say where it is with -L FOLDER".into(),
    }
}

/// Where distributions put firmware.
const SYSTEM: &[&str] = &[
    "/usr/share/seabios",
    "/usr/share/qemu",
    "/usr/share/OVMF",
    "/usr/share/ovmf",
    "/usr/share/AAVMF",
    "/usr/share/qemu-efi-aarch64",
    "/usr/local/share/qemu",
];

/// The Debian package with a firmware file.
fn package_of(name: &str) -> Option<&'static str> {
    if name.starts_with("bios") || name.starts_with("vgabios") {
        Some("seabios")
    } else if name.starts_with("OVMF") {
        Some("ovmf")
    } else if name.starts_with("AAVMF") || name.starts_with("QEMU_EFI") {
        Some("qemu-efi-aarch64")
    } else if [
        "linuxboot",
        "multiboot",
        "qboot",
        "slof",
        "s390-",
        "skiboot",
        "vof",
    ]
    .iter()
    .any(|p| name.starts_with(p))
    {
        Some("qemu-system-data")
    } else {
        None
    }
}

/// Finds a firmware file: a path as it is; a bare name in the `-L` folders in order, then beside
/// the executable's installation, then where Debian puts it.
pub fn find_firmware(
    name: &str,
    dirs: &[PathBuf],
    executable: Option<&Path>,
) -> Result<PathBuf, FirmwareError> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(path.into());
    }
    if name.contains('/') {
        return Err(FirmwareError::NoFile(path.into()));
    }
    let mut searched: Vec<PathBuf> = dirs.to_vec();
    // `PREFIX/bin/mimic` has its firmware in `PREFIX/share/`.
    if let Some(prefix) = executable.and_then(Path::parent).and_then(Path::parent) {
        for folder in ["share/mimic", "share/seabios", "share/qemu"] {
            searched.push(prefix.join(folder));
        }
    }
    for folder in SYSTEM {
        let folder = PathBuf::from(folder);
        if !searched.contains(&folder) {
            searched.push(folder);
        }
    }
    searched
        .iter()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| FirmwareError::NotFound {
            name: name.into(),
            searched,
            package: package_of(name),
        })
}
