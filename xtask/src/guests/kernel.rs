//! A packaged kernel, and the ELF file inside a bzImage.
//!
//! Spec: Linux `Documentation/arch/x86/boot.rst`, fields `setup_sects`, `payload_offset` and
//! `payload_length`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host;

/// Decompressors by what the payload begins with.
const FILTERS: &[(&[u8], &str)] = &[
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    (&[0x1f, 0x8b], "gzip"),
    (b"BZh", "bzip2"),
];

/// The kernel image in a package's tree, and its release.
pub(super) fn find(tree: &Path) -> Result<(PathBuf, String)> {
    let boot = tree.join("boot");
    for entry in fs::read_dir(&boot).context("the kernel's package has no /boot")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        for prefix in ["vmlinuz-", "vmlinux-"] {
            if let Some(release) = name.strip_prefix(prefix) {
                return Ok((entry.path(), release.to_owned()));
            }
        }
    }
    bail!("the kernel's package has no kernel in /boot")
}

/// Decompresses the ELF file a bzImage carries.
pub(super) fn inner_elf(image: &[u8]) -> Result<Vec<u8>> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?))
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("the kernel is not a bzImage");
    }
    let sectors = match image.get(0x1f1) {
        Some(0) | None => 4,
        Some(&n) => usize::from(n),
    };
    let payload = word(0x248)
        .zip(word(0x24c))
        .and_then(|(offset, length)| {
            let start = (sectors + 1) * 512 + offset as usize;
            image.get(start..start.checked_add(length as usize)?)
        })
        .context("the bzImage's payload is outside the file")?;
    let Some((_, program)) = FILTERS.iter().find(|(magic, _)| payload.starts_with(magic)) else {
        bail!("the bzImage is compressed in an unknown way");
    };
    // All but gzip, which has it anyway, are followed by the size of the content.
    let (packed, size) = match payload.split_last_chunk::<4>() {
        Some((packed, size)) if *program != "gzip" => (packed, Some(u32::from_le_bytes(*size))),
        _ => (payload, None),
    };
    let elf = host::filter(Command::new(program).arg("-dc"), packed)
        .with_context(|| format!("cannot unpack the kernel; is `{program}` installed?"))?;
    if !elf.starts_with(b"\x7fELF") || size.is_some_and(|size| elf.len() != size as usize) {
        bail!("the bzImage's payload is not the ELF file it should be");
    }
    Ok(elf)
}
