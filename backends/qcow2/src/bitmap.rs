//! Persistent bitmaps (qcow2 specification, "Bitmaps extension"): they are kept, not followed.

use backend_block::{BlockError, Node};

use crate::bytes::{slice, u8_at, u16_at, u32_at, u64_at};
use crate::header::{Header, autoclear, read};
use crate::image::Qcow2;

/// Fixed part of an entry of the directory.
const FIXED: usize = 24;

/// One entry of the bitmap directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bitmap {
    pub(crate) table_offset: u64,
    pub(crate) table_entries: u32,
    pub(crate) flags: u32,
    pub(crate) granularity_bits: u8,
    pub(crate) name: String,
}

impl Bitmap {
    pub(crate) const IN_USE: u32 = 1;
    pub(crate) const AUTO: u32 = 2;
}

/// Reads the bitmap directory, if it is consistent.
pub(crate) fn bitmaps(header: &Header, node: &Node) -> Result<Vec<Bitmap>, String> {
    let Some(extension) = &header.bitmaps else {
        return Ok(Vec::new());
    };
    if header.autoclear & autoclear::BITMAPS == 0 {
        return Ok(Vec::new());
    }
    let (offset, len) = (extension.directory_offset, extension.directory_len);
    header.check_table("bitmap directory", offset, len, node.len())?;
    // QEMU's limit: 65,535 bitmaps of 1,023 bytes of name.
    let len = usize::try_from(len).ok().filter(|len| *len <= 64 << 20);
    let len = len.ok_or("its bitmap directory is too long")?;
    let directory = read(node, offset, len).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    let mut at = 0usize;
    let cut = || "its bitmap directory is cut off".to_owned();
    for _ in 0..extension.count {
        let field = |more: usize| at.saturating_add(more);
        let name_len = usize::from(u16_at(&directory, field(18)).ok_or_else(cut)?);
        let extra = u32_at(&directory, field(20)).ok_or_else(cut)? as usize;
        let name_at = field(FIXED).saturating_add(extra);
        let name = slice(&directory, name_at, name_len).ok_or_else(cut)?;
        all.push(Bitmap {
            table_offset: u64_at(&directory, at).ok_or_else(cut)?,
            table_entries: u32_at(&directory, field(8)).ok_or_else(cut)?,
            flags: u32_at(&directory, field(12)).ok_or_else(cut)?,
            granularity_bits: u8_at(&directory, field(17)).ok_or_else(cut)?,
            name: String::from_utf8_lossy(name).into_owned(),
        });
        at = name_at.saturating_add(name_len).next_multiple_of(8);
    }
    Ok(all)
}

impl Bitmap {
    /// Bytes that the bitmap of a disk of `len` bytes takes in an image with clusters of `cluster` bytes: its
    /// bits and its table.
    fn space(&self, len: u64, cluster: u64) -> Option<u64> {
        let granularity = 1u64.checked_shl(self.granularity_bits.into())?;
        let bits = len.div_ceil(granularity);
        let data = bits.div_ceil(8).checked_next_multiple_of(cluster)?;
        let table = data.checked_div(cluster)?.checked_mul(8)?;
        data.checked_add(table.checked_next_multiple_of(cluster)?)
    }
}

impl Qcow2 {
    /// Bytes that copies of its bitmaps take in an image with clusters of `cluster` bytes; `None` if images
    /// of its version have none.
    ///
    /// # Errors
    /// That the bitmaps make no sense.
    pub fn bitmap_space(&self, cluster: u64) -> Result<Option<u64>, BlockError> {
        let header = self.meta().header.clone();
        if header.version < 3 {
            return Ok(None);
        }
        let all = bitmaps(&header, &self.file.node()).map_err(|_| BlockError::Corrupt)?;
        let mut directory = 0u64;
        let mut space = 0u64;
        for bitmap in &all {
            let entry = FIXED.saturating_add(bitmap.name.len()).next_multiple_of(8);
            directory = directory.saturating_add(entry as u64);
            let own = bitmap.space(header.size, cluster);
            space = space.saturating_add(own.ok_or(BlockError::Corrupt)?);
        }
        let directory = directory.checked_next_multiple_of(cluster);
        Ok(Some(space.saturating_add(directory.unwrap_or(0))))
    }
}
