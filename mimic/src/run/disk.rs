//! `mimic run IMAGE`: the options that start an image by its own boot loader.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use firmware_load::find_firmware;

use super::Arguments;
use super::image::{self, Arch, Bytes, Firmware, Found};
use crate::img;

/// Firmware in two flash chips, code and variables, the newest form first; and in one file without room for
/// variables that are kept.
type Uefi = (&'static [(&'static str, &'static str)], &'static str);

const OVMF: Uefi = (
    &[
        ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        ("OVMF_CODE.fd", "OVMF_VARS.fd"),
    ],
    "OVMF.fd",
);
const AAVMF: Uefi = (&[("AAVMF_CODE.fd", "AAVMF_VARS.fd")], "QEMU_EFI.fd");

/// What starts the image; `None` if the file is none.
pub(super) fn options(program: &str, arguments: &Arguments) -> Result<Option<Vec<String>>> {
    let file = &arguments.file;
    let node = img::look(file)?;
    let read = |at, out: &mut [u8]| image::read(&node, at, out);
    let found = image::look(&Bytes(&read)).with_context(|| format!("'{file}'"))?;
    let format = node.class().name;
    let Some(found) = found else {
        match format {
            // Whoever loads kernels says what it is instead.
            "raw" => return Ok(None),
            _ => {
                bail!("'{file}': nothing boots from it: it has no partition table and no boot code")
            }
        }
    };
    for (option, given) in [
        ("--initrd", arguments.initrd.is_some()),
        ("--append", arguments.append.is_some()),
    ] {
        if given {
            bail!("{option} goes with a kernel, and '{file}' is a disk image; leave it out");
        }
    }
    eprintln!(
        "{program}: '{file}': {}",
        describe(&found, format, arguments.keep)
    );
    let folders: Vec<PathBuf> = arguments.folder.iter().map(PathBuf::from).collect();
    let firmware = match found.firmware {
        Firmware::Bios => Vec::new(),
        Firmware::Uefi => uefi(&found, arguments, &folders)?,
    };
    Ok(Some(translate(arguments, &found, format, firmware)))
}

fn describe(found: &Found, format: &str, keep: bool) -> String {
    let (arch, firmware) = match (found.arch, found.firmware) {
        (Arch::X86_64, Firmware::Bios) => ("x86_64", "a BIOS"),
        (Arch::X86_64, Firmware::Uefi) => ("x86_64", "UEFI"),
        (Arch::Aarch64, _) => ("aarch64", "UEFI"),
    };
    let end = match keep {
        _ if found.is_cd() => "",
        true => "; changes are kept",
        false => "; changes are gone in the end (--keep keeps them)",
    };
    format!(
        "{format}, {}, {arch}, started by {firmware}{end}",
        found.table
    )
}

/// A path as the value of a key.
fn value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The options for firmware that is found.
fn uefi(found: &Found, arguments: &Arguments, folders: &[PathBuf]) -> Result<Vec<String>> {
    let (chips, whole) = match found.arch {
        Arch::X86_64 => OVMF,
        Arch::Aarch64 => AAVMF,
    };
    let executable = std::env::current_exe().ok();
    let find = |name: &str| find_firmware(name, folders, executable.as_deref());
    let mut missing = None;
    for (code, template) in chips {
        match (find(code), find(template)) {
            (Ok(code), Ok(template)) => {
                let variables = match arguments.keep && !found.is_cd() {
                    true => format!("file={}", value(&kept(&arguments.file, &template)?)),
                    false => format!("snapshot=on,file={}", value(&template)),
                };
                return Ok(vec![
                    "-drive".to_owned(),
                    format!("if=pflash,format=raw,readonly=on,file={}", value(&code)),
                    "-drive".to_owned(),
                    format!("if=pflash,format=raw,{variables}"),
                ]);
            }
            (Err(error), _) | (_, Err(error)) => {
                missing.get_or_insert(error);
            }
        }
    }
    match (find(whole), missing) {
        (Err(_), Some(error)) => Err(error.into()),
        (file, _) => Ok(vec!["-bios".to_owned(), file?.display().to_string()]),
    }
}

/// The file of an image's own variables; new ones if there is none.
fn kept(image: &str, template: &Path) -> Result<PathBuf> {
    let file = PathBuf::from(format!("{image}.vars.fd"));
    if !file.exists() {
        std::fs::copy(template, &file)
            .with_context(|| format!("cannot make '{}' for UEFI's variables", file.display()))?;
    }
    Ok(file)
}

fn translate(
    arguments: &Arguments,
    found: &Found,
    format: &str,
    firmware: Vec<String>,
) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| out.extend([option.to_owned(), value]);
    let machine = match found.arch {
        Arch::X86_64 => "q35",
        Arch::Aarch64 => "virt",
    };
    let machine = arguments.machine.as_deref().unwrap_or(machine);
    add("-machine", machine.to_owned());
    add("-m", arguments.memory.clone());
    add("-smp", arguments.smp.clone());
    let file = value(Path::new(&arguments.file));
    // What looks raw is found out about once more: only then is the guest kept from making it look like
    // something else, which the next run would believe.
    let format = match format {
        "raw" => String::new(),
        format => format!("format={format},"),
    };
    match found.is_cd() {
        false => {
            let snapshot = if arguments.keep { "off" } else { "on" };
            add(
                "-drive",
                format!("if=virtio,{format}snapshot={snapshot},file={file}"),
            );
        }
        true => {
            add(
                "-drive",
                format!("if=none,id=cd,media=cdrom,{format}file={file}"),
            );
            match found.arch {
                Arch::X86_64 => add("-device", "ide-cd,drive=cd,bootindex=1".to_owned()),
                Arch::Aarch64 => {
                    add("-device", "virtio-scsi-pci".to_owned());
                    add("-device", "scsi-cd,drive=cd,bootindex=1".to_owned());
                }
            }
        }
    }
    for disk in &arguments.disk {
        let disk = value(Path::new(disk));
        add("-drive", format!("if=virtio,format=raw,file={disk}"));
    }
    for folder in &arguments.folder {
        add("-L", folder.clone());
    }
    add("-nic", "none".to_owned());
    out.extend(firmware);
    out.push("-nographic".to_owned());
    out.extend(arguments.more.iter().cloned());
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_raw_image_that_is_kept_is_never_said_to_be_raw() {
        let drive = |format: &str| {
            let arguments = Arguments::try_parse_from(["mimic run", "a.img", "--keep"]).unwrap();
            let found = Found {
                table: "MBR",
                arch: Arch::X86_64,
                firmware: Firmware::Bios,
            };
            let out = translate(&arguments, &found, format, Vec::new());
            let at = out.iter().position(|word| word == "-drive").unwrap();
            out[at + 1].clone()
        };
        // So that the drive's own guess guards it against what the guest writes.
        assert_eq!(drive("raw"), "if=virtio,snapshot=off,file=a.img");
        assert_eq!(
            drive("qcow2"),
            "if=virtio,format=qcow2,snapshot=off,file=a.img"
        );
    }
}
