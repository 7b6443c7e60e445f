//! As much of FAT as it takes to see which boot loaders lie in `\EFI\BOOT` (UEFI 2.10, 3.5.1.1).
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03.

use anyhow::Result;

use super::image::{Bytes, u16_at, u32_at};

/// Bytes of a directory that are looked at.
const MOST: usize = 1 << 16;
/// Bytes of an entry.
const ENTRY: usize = 32;
/// Attributes of an entry that is part of a long name, and of a directory.
const LONG_NAME: u8 = 0x0f;
const DIRECTORY: u8 = 0x10;

/// The file system's layout, in bytes but for clusters.
struct Layout {
    cluster_len: u64,
    table: u64,
    data: u64,
    /// Bits of an entry of the table.
    bits: u64,
    root: Root,
}

#[derive(Clone, Copy)]
enum Root {
    /// At this offset, so many bytes.
    Fixed(u64, u64),
    Cluster(u32),
}

/// Names of the files in `\EFI\BOOT` of the file system at `start`: none if there is no such thing.
pub(super) fn loaders(bytes: &Bytes<'_>, start: u64) -> Result<Vec<String>> {
    let Some(layout) = layout(&bytes.read(start, 512)?, start) else {
        return Ok(Vec::new());
    };
    let mut folder = match layout.root {
        Root::Fixed(at, len) => bytes.read(at, usize::try_from(len).unwrap_or(MOST).min(MOST))?,
        Root::Cluster(first) => chain(bytes, &layout, first)?,
    };
    for name in [b"EFI        ", b"BOOT       "] {
        let found = entries(&folder).find(|entry| entry.starts_with(name));
        let Some(entry) = found.filter(|entry| entry.get(11).is_some_and(|a| a & DIRECTORY != 0))
        else {
            return Ok(Vec::new());
        };
        let half = |at| u32::from(u16_at(entry, at));
        folder = chain(bytes, &layout, half(20) << 16 | half(26))?;
    }
    Ok(entries(&folder).filter_map(name_of).collect())
}

fn layout(sector: &[u8], start: u64) -> Option<Layout> {
    let number = |at| u64::from(u16_at(sector, at));
    let (sector_len, per_cluster) = (number(11), u64::from(*sector.get(13)?));
    if !(512..=4096).contains(&sector_len)
        || !sector_len.is_power_of_two()
        || !per_cluster.is_power_of_two()
    {
        return None;
    }
    let (reserved, tables) = (number(14), u64::from(*sector.get(16)?));
    let root_len = number(17) * ENTRY as u64;
    let or_large = |small: u64, at| match small {
        0 => u64::from(u32_at(sector, at)),
        small => small,
    };
    let (sectors, table_len) = (or_large(number(19), 32), or_large(number(22), 36));
    let root = reserved + tables * table_len;
    let data = root + root_len.div_ceil(sector_len);
    let clusters = sectors.checked_sub(data)? / per_cluster;
    let is_large = number(22) == 0;
    Some(Layout {
        cluster_len: per_cluster * sector_len,
        table: start.checked_add(reserved * sector_len)?,
        data: start.checked_add(data * sector_len)?,
        bits: match clusters {
            _ if is_large => 32,
            0..4085 => 12,
            _ => 16,
        },
        root: match is_large {
            true => Root::Cluster(u32_at(sector, 44)),
            false => Root::Fixed(start.checked_add(root * sector_len)?, root_len),
        },
    })
}

/// The start of a chain of clusters.
fn chain(bytes: &Bytes<'_>, layout: &Layout, first: u32) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut cluster = u64::from(first);
    // A chain may be a ring: the number of bytes ends it.
    while out.len() < MOST && cluster >= 2 {
        let at = layout
            .data
            .saturating_add((cluster - 2) * layout.cluster_len);
        let len = usize::try_from(layout.cluster_len).unwrap_or(MOST);
        out.extend(bytes.read(at, len.min(MOST))?);
        let bit = cluster * layout.bits;
        let entry = bytes.read(layout.table.saturating_add(bit / 8), 4)?;
        let word = u32_at(&entry, 0);
        let (next, end) = match layout.bits {
            12 => (word >> (bit % 8) & 0xfff, 0xff7),
            16 => (word & 0xffff, 0xfff7),
            _ => (word & 0x0fff_ffff, 0x0fff_fff7),
        };
        cluster = match next < end {
            true => next.into(),
            false => 0,
        };
    }
    Ok(out)
}

/// Entries in use, without long names.
fn entries(folder: &[u8]) -> impl Iterator<Item = &[u8]> {
    folder
        .chunks(ENTRY)
        .take_while(|entry| entry.first().is_some_and(|first| *first != 0))
        .filter(|entry| entry.first() != Some(&0xe5) && entry.get(11) != Some(&LONG_NAME))
}

fn name_of(entry: &[u8]) -> Option<String> {
    let text = |part: &[u8]| String::from_utf8_lossy(part).trim_end().to_owned();
    let (name, end) = (text(entry.get(..8)?), text(entry.get(8..11)?));
    Some(format!("{name}.{end}"))
}
