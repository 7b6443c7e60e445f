//! What boots from a disk image, by looking at it.
//!
//! Sources: UEFI 2.10, chapter 5 (GPT) and 13.3 (El Torito); "El Torito" 1.0; ISO 9660.

use std::sync::Arc;

use anyhow::{Result, bail};
use backend_block::Node;
use hw_memory::IoVector;

use super::fat;

const SECTOR: u64 = 512;
const CD_SECTOR: u64 = 2048;
/// Most partitions looked at.
const MOST_PARTITIONS: u32 = 256;
/// Types of partitions: of EFI, and of boot loaders of a BIOS (UEFI 2.10, 5.3.3; GRUB's manual, 3.4).
const ESP: [u8; 16] = guid(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b);
const BIOS_BOOT: [u8; 16] = guid(0x2168_6148, 0x6449, 0x6e6f, 0x744e_6565_6445_4649);

/// As on disk: the first three parts are little-endian.
const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let [a, b, c, d] = first.to_le_bytes();
    let ([e, f], [g, h]) = (second.to_le_bytes(), third.to_le_bytes());
    let [i, j, k, l, m, n, o, p] = rest.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// A guest architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arch {
    X86_64,
    Aarch64,
}

/// What an image is started by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Firmware {
    Bios,
    Uefi,
}

/// What an image is.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// How its parts are listed: `GPT`, `MBR`, `CD`, or not at all.
    pub(super) table: &'static str,
    pub(super) arch: Arch,
    pub(super) firmware: Firmware,
}

impl Found {
    /// Its medium is a CD.
    pub(super) fn is_cd(&self) -> bool {
        self.table == "CD"
    }
}

/// What an image shows.
pub(super) struct Bytes<'a>(pub(super) &'a dyn Fn(u64, &mut [u8]) -> Result<()>);

impl Bytes<'_> {
    pub(super) fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; len];
        (self.0)(at, &mut out)?;
        Ok(out)
    }
}

/// Reads from a disk; zeros behind its end.
pub(super) fn read(node: &Arc<Node>, at: u64, out: &mut [u8]) -> Result<()> {
    let left = usize::try_from(node.len().saturating_sub(at)).unwrap_or(usize::MAX);
    let len = out.len().min(left);
    let memory = IoVector::zeroed(len);
    node.read(at, &memory)?;
    if let Some(out) = out.get_mut(..len) {
        memory.copy_out(0, out);
    }
    Ok(())
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}

/// What boots from an image; `None` for bytes that are no disk.
pub(super) fn look(bytes: &Bytes<'_>) -> Result<Option<Found>> {
    if bytes.read(16 * CD_SECTOR, 6)?.get(1..) == Some(b"CD001") {
        return cd(bytes).map(Some);
    }
    let first = bytes.read(0, 512)?;
    if first.starts_with(b"\x7fELF") || u16_at(&first, 510) != 0xaa55 {
        return Ok(None);
    }
    let has_code = first.iter().take(440).any(|byte| *byte != 0);
    let parts = Vec::from_iter((0..4).filter_map(|n| first.get(446 + 16 * n..462 + 16 * n)));
    let is_valid = |part: &&[u8]| part.first().is_some_and(|flag| flag & 0x7f == 0);
    if !parts.iter().all(is_valid) {
        // A boot sector without a table.
        return Ok(Some(Found {
            table: "no partitions",
            arch: Arch::X86_64,
            firmware: Firmware::Bios,
        }));
    }
    let kind = |part: &&[u8]| part.get(4).copied().unwrap_or(0);
    if parts.iter().any(|part| kind(part) == 0xee) {
        let (by_bios, esps) = gpt(bytes)?;
        let by_bios = has_code && (by_bios || esps.is_empty());
        return choose(bytes, "GPT", by_bios, &esps).map(Some);
    }
    let is_esp = |part: &&&[u8]| kind(part) == 0xef;
    let esps = parts.iter().filter(is_esp);
    let esps: Vec<u64> = esps
        .map(|part| u64::from(u32_at(part, 8)) * SECTOR)
        .collect();
    let is_active = parts.iter().any(|part| part.first() == Some(&0x80));
    let by_bios = has_code && (is_active || esps.is_empty());
    choose(bytes, "MBR", by_bios, &esps).map(Some)
}

/// Whether a partition is for a BIOS's boot loader, and where EFI's are.
fn gpt(bytes: &Bytes<'_>) -> Result<(bool, Vec<u64>)> {
    let header = bytes.read(SECTOR, 512)?;
    let (mut by_bios, mut esps) = (false, Vec::new());
    if !header.starts_with(b"EFI PART") {
        return Ok((by_bios, esps));
    }
    let (table, len) = (u64_at(&header, 72), u64::from(u32_at(&header, 84)));
    for n in 0..u32_at(&header, 80).min(MOST_PARTITIONS) {
        let at = table
            .saturating_mul(SECTOR)
            .saturating_add(len * u64::from(n));
        let entry = bytes.read(at, 128)?;
        by_bios |= entry.starts_with(&BIOS_BOOT);
        if entry.starts_with(&ESP) {
            esps.push(u64_at(&entry, 32).saturating_mul(SECTOR));
        }
    }
    Ok((by_bios, esps))
}

/// The architectures that have a boot loader in any of these file systems.
fn loaders(bytes: &Bytes<'_>, esps: &[u64]) -> Result<Vec<Arch>> {
    let mut out = Vec::new();
    for start in esps {
        let names = fat::loaders(bytes, *start)?;
        for (name, arch) in [
            ("BOOTX64.EFI", Arch::X86_64),
            ("BOOTAA64.EFI", Arch::Aarch64),
        ] {
            if names.iter().any(|found| found == name) {
                out.push(arch);
            }
        }
    }
    Ok(out)
}

fn choose(bytes: &Bytes<'_>, table: &'static str, by_bios: bool, esps: &[u64]) -> Result<Found> {
    let all = loaders(bytes, esps)?;
    // A BIOS is the faster way; what only seems to be for it is often there on disks of others.
    let is_pc = all.is_empty() || all.contains(&Arch::X86_64);
    let (arch, firmware) = match all.first() {
        _ if by_bios && is_pc => (Arch::X86_64, Firmware::Bios),
        Some(_) if is_pc => (Arch::X86_64, Firmware::Uefi),
        Some(arch) => (*arch, Firmware::Uefi),
        None => bail!(
            "nothing boots from it: it has a partition table ({table}), but neither boot code for a BIOS nor \
             \\EFI\\BOOT\\BOOTX64.EFI or BOOTAA64.EFI on an EFI system partition"
        ),
    };
    Ok(Found {
        table,
        arch,
        firmware,
    })
}

/// By the boot catalogue.
fn cd(bytes: &Bytes<'_>) -> Result<Found> {
    let record = bytes.read(17 * CD_SECTOR, 128)?;
    if record.get(7..30) != Some(b"EL TORITO SPECIFICATION") {
        bail!("nothing boots from it: it is a CD without a boot record");
    }
    let catalogue = u64::from(u32_at(&record, 71)) * CD_SECTOR;
    let catalogue = bytes.read(catalogue, 2048)?;
    // The entry of the platform in front, then sections, each with a header that names its platform.
    let mut platform = catalogue.get(1).copied().unwrap_or(0);
    let (mut by_bios, mut esps) = (false, Vec::new());
    for entry in catalogue.chunks(32).skip(1) {
        match entry.first() {
            Some(0x90 | 0x91) => platform = entry.get(1).copied().unwrap_or(0),
            Some(0x88) if platform == 0xef => esps.push(u64::from(u32_at(entry, 8)) * CD_SECTOR),
            Some(0x88) => by_bios |= platform == 0,
            _ => {}
        }
    }
    choose(bytes, "CD", by_bios, &esps)
}

#[cfg(test)]
mod tests;
