//! The header and its extensions (qcow2 specification, "Header", "Header extensions").

use backend_block::{BlockError, IoVector, Node, OpenError};

use crate::bytes::{slice, u32_at, u64_at};

/// `QFI\xfb`
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Length of the header of version 2.
const LEN_V2: u32 = 72;
/// Least length of the header of version 3.
const LEN_V3: u32 = 104;
/// Length with `compression_type`.
const LEN_COMPRESSION: u32 = 112;

/// Cluster sizes that are taken.
pub(crate) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Least cluster size with extended L2 entries.
pub(crate) const CLUSTER_BITS_EXTENDED: u32 = 14;
/// Longest L1 table in bytes, as QEMU has it.
pub(crate) const L1_MAX: u64 = 32 << 20;
/// Longest refcount table in bytes, as QEMU has it.
pub(crate) const REFCOUNT_TABLE_MAX: u64 = 8 << 20;
/// Longest name of a backing file.
const NAME_MAX: u32 = 1023;

/// Bits of `incompatible_features`.
pub(crate) mod incompatible {
    pub(crate) const DIRTY: u64 = 1;
    pub(crate) const CORRUPT: u64 = 1 << 1;
    pub(crate) const DATA_FILE: u64 = 1 << 2;
    pub(crate) const COMPRESSION: u64 = 1 << 3;
    pub(crate) const EXTENDED_L2: u64 = 1 << 4;
    pub(crate) const KNOWN: u64 = 31;
}
/// Bit of `compatible_features`: refcounts may be written late.
pub(crate) const LAZY_REFCOUNTS: u64 = 1;
/// Bits of `autoclear_features`.
pub(crate) mod autoclear {
    pub(crate) const BITMAPS: u64 = 1;
    pub(crate) const DATA_FILE_RAW: u64 = 2;
}

/// Header extension types.
mod extension {
    pub(super) const END: u32 = 0;
    pub(super) const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub(super) const FEATURE_NAMES: u32 = 0x6803_f857;
    pub(super) const BITMAPS: u32 = 0x2385_2875;
    pub(super) const DATA_FILE: u32 = 0x4441_5441;
}

/// Names for programs that do not know a bit: kind, bit, name.
const FEATURE_NAMES: &[(u8, u8, &str)] = &[
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// How clusters are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Compression {
    #[default]
    Zlib,
    Zstd,
}

impl Compression {
    pub(crate) const NAMES: &[&str] = &["zlib", "zstd"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Compression::Zlib => "zlib",
            Compression::Zstd => "zstd",
        }
    }
}

/// The bitmaps extension: where the directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BitmapsExtension {
    pub(crate) count: u32,
    pub(crate) directory_len: u64,
    pub(crate) directory_offset: u64,
}

/// The header, checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) size: u64,
    pub(crate) l1_size: u32,
    pub(crate) l1_offset: u64,
    pub(crate) refcount_table_offset: u64,
    pub(crate) refcount_table_clusters: u32,
    pub(crate) snapshots: u32,
    pub(crate) snapshots_offset: u64,
    pub(crate) incompatible: u64,
    pub(crate) compatible: u64,
    pub(crate) autoclear: u64,
    pub(crate) refcount_order: u32,
    pub(crate) compression: Compression,
    pub(crate) backing: Option<String>,
    pub(crate) backing_format: Option<String>,
    pub(crate) data_file: Option<String>,
    pub(crate) bitmaps: Option<BitmapsExtension>,
    /// Additional fields and extensions that we do not know: kept.
    pub(crate) more_fields: Vec<u8>,
    pub(crate) extensions: Vec<(u32, Vec<u8>)>,
}

/// Reads bytes of the image file; those beyond its end are zeros.
pub(crate) fn read(node: &Node, offset: u64, len: usize) -> Result<Vec<u8>, BlockError> {
    let memory = IoVector::zeroed(len);
    node.read(offset, &memory)?;
    Ok(memory.to_vec())
}

impl Header {
    /// Reads and checks the header of an image.
    pub(crate) fn open(node: &Node) -> Result<Self, OpenError> {
        let bad = |problem: String| OpenError::image(node.file(), problem);
        let failed = |error: BlockError| bad(format!("cannot read its header: {error}"));
        let head = read(node, 0, LEN_COMPRESSION as usize).map_err(failed)?;
        if slice(&head, 0, 4) != Some(&MAGIC) {
            return Err(bad(
                "it is no qcow2 image; give its 'format=...', as 'raw'".to_owned()
            ));
        }
        let bits = u32_at(&head, 20).unwrap_or(0);
        if !CLUSTER_BITS.contains(&bits) {
            return Err(bad(format!("cluster size 2^{bits} is outside 2^9..=2^21")));
        }
        let cluster = 1usize.wrapping_shl(bits);
        let first = read(node, 0, cluster).map_err(failed)?;
        let mut header = Self::parse(&first).map_err(bad)?;
        header.check(node.len()).map_err(bad)?;
        header.extensions(&first).map_err(bad)?;
        Ok(header)
    }

    fn parse(first: &[u8]) -> Result<Self, String> {
        let short = || "its header is cut off".to_owned();
        let u32_at = |at| u32_at(first, at).ok_or_else(short);
        let u64_at = |at| u64_at(first, at).ok_or_else(short);
        let version = u32_at(4)?;
        let crypt = u32_at(32)?;
        if crypt != 0 {
            let how = if crypt == 1 { "AES" } else { "LUKS" };
            return Err(format!(
                "it is encrypted ({how}), which is not supported; decrypt it with 'qemu-img convert'"
            ));
        }
        let mut header = Header {
            version,
            cluster_bits: u32_at(20)?,
            size: u64_at(24)?,
            l1_size: u32_at(36)?,
            l1_offset: u64_at(40)?,
            refcount_table_offset: u64_at(48)?,
            refcount_table_clusters: u32_at(56)?,
            snapshots: u32_at(60)?,
            snapshots_offset: u64_at(64)?,
            refcount_order: 4,
            ..Header::default()
        };
        match version {
            2 => {}
            3 => {
                header.incompatible = u64_at(72)?;
                header.compatible = u64_at(80)?;
                header.autoclear = u64_at(88)?;
                header.refcount_order = u32_at(96)?;
                let len = u32_at(100)?;
                if len < LEN_V3 || !len.is_multiple_of(8) || len as usize > first.len() {
                    return Err(format!("its header cannot be {len} bytes long"));
                }
                let more = slice(first, LEN_V3 as usize, len.saturating_sub(LEN_V3) as usize);
                header.more_fields = more.unwrap_or_default().to_vec();
            }
            _ => {
                return Err(format!(
                    "qcow2 version {version} is not supported, 2 and 3 are"
                ));
            }
        }
        Ok(header)
    }

    /// Whether the fields make sense in a file of this length.
    fn check(&mut self, file_len: u64) -> Result<(), String> {
        let unknown = self.incompatible & !incompatible::KNOWN;
        if unknown != 0 {
            return Err(format!(
                "it uses features that are not supported (incompatible feature bits {unknown:#x})"
            ));
        }
        let has_type = self.incompatible & incompatible::COMPRESSION != 0;
        self.compression = match (has_type, self.more_fields.first().copied().unwrap_or(0)) {
            (false, 0) => Compression::Zlib,
            (true, 1) => Compression::Zstd,
            (_, kind) => return Err(format!("compression type {kind} is not supported")),
        };
        if self.refcount_order > 6 {
            return Err(format!(
                "refcounts of 2^{} bits are not possible",
                self.refcount_order
            ));
        }
        if self.is_extended() && self.cluster_bits < CLUSTER_BITS_EXTENDED {
            return Err("extended L2 entries need clusters of at least 16 KiB".to_owned());
        }
        if self.size > i64::MAX as u64 {
            return Err(format!("a size of {} bytes is not possible", self.size));
        }
        let l1_len = u64::from(self.l1_size).saturating_mul(8);
        if l1_len > L1_MAX || u64::from(self.l1_size) < self.l1_needed(self.size) {
            return Err(format!(
                "an L1 table of {} entries is not possible",
                self.l1_size
            ));
        }
        let table_len = u64::from(self.refcount_table_clusters).wrapping_shl(self.cluster_bits);
        if table_len > REFCOUNT_TABLE_MAX || table_len == 0 {
            return Err(format!(
                "a refcount table of {} clusters is not possible",
                self.refcount_table_clusters
            ));
        }
        self.check_table("L1 table", self.l1_offset, l1_len, file_len)?;
        let offset = self.refcount_table_offset;
        self.check_table("refcount table", offset, table_len, file_len)
    }

    /// Whether a table lies within the file.
    pub(crate) fn check_table(
        &self,
        what: &str,
        offset: u64,
        len: u64,
        file_len: u64,
    ) -> Result<(), String> {
        let mask = self.cluster_mask();
        let end = offset.checked_add(len);
        // The last cluster of a file may be cut off.
        let limit = file_len.saturating_add(mask) & !mask;
        let fits = end.is_some_and(|end| end <= limit);
        if len != 0 && (offset == 0 || offset & mask != 0 || !fits) {
            return Err(format!("its {what} cannot be at {offset:#x}"));
        }
        Ok(())
    }

    fn extensions(&mut self, first: &[u8]) -> Result<(), String> {
        let mut at = self.header_len() as usize;
        let text = |data: &[u8]| {
            let text = String::from_utf8(data.to_vec());
            text.map_err(|_| "a name in its header is no text".to_owned())
        };
        let word = |at: usize| Some((u32_at(first, at)?, u32_at(first, at.checked_add(4)?)?));
        // Without an end mark the area ends with the cluster.
        while let Some((kind, len)) = word(at) {
            if kind == extension::END {
                break;
            }
            at = at.saturating_add(8);
            let Some(data) = slice(first, at, len as usize) else {
                return Err(format!("header extension {kind:#x} is cut off"));
            };
            match kind {
                extension::BACKING_FORMAT => self.backing_format = Some(text(data)?),
                extension::DATA_FILE => self.data_file = Some(text(data)?),
                extension::FEATURE_NAMES => {}
                extension::BITMAPS => {
                    let (Some(count), Some(directory_len), Some(directory_offset)) =
                        (u32_at(data, 0), u64_at(data, 8), u64_at(data, 16))
                    else {
                        return Err("its bitmaps extension is cut off".to_owned());
                    };
                    self.bitmaps = Some(BitmapsExtension {
                        count,
                        directory_len,
                        directory_offset,
                    });
                }
                _ => self.extensions.push((kind, data.to_vec())),
            }
            at = at.saturating_add((len as usize).next_multiple_of(8));
        }
        let (offset, len) = (u64_at(first, 8), u32_at(first, 16));
        if let (Some(offset), Some(len)) = (offset.filter(|offset| *offset != 0), len) {
            let name = usize::try_from(offset).ok();
            let name = name.filter(|_| len <= NAME_MAX);
            let name = name.and_then(|at| slice(first, at, len as usize));
            let name = name.ok_or("the name of its backing file is not in the first cluster")?;
            self.backing = Some(text(name)?).filter(|name| !name.is_empty());
        }
        if self.bitmaps.is_none() && self.autoclear & autoclear::BITMAPS != 0 {
            return Err("it should have bitmaps, but has none".to_owned());
        }
        Ok(())
    }

    pub(crate) fn is_extended(&self) -> bool {
        self.incompatible & incompatible::EXTENDED_L2 != 0
    }

    pub(crate) fn has_data_file(&self) -> bool {
        self.incompatible & incompatible::DATA_FILE != 0
    }

    pub(crate) fn is_data_file_raw(&self) -> bool {
        self.autoclear & autoclear::DATA_FILE_RAW != 0
    }

    pub(crate) fn cluster_mask(&self) -> u64 {
        1u64.wrapping_shl(self.cluster_bits).wrapping_sub(1)
    }

    /// Entries of the L1 table for a disk of this size.
    pub(crate) fn l1_needed(&self, size: u64) -> u64 {
        let entry_bits = if self.is_extended() { 4 } else { 3 };
        let covered_bits = self
            .cluster_bits
            .saturating_mul(2)
            .saturating_sub(entry_bits);
        let mask = 1u64.wrapping_shl(covered_bits).wrapping_sub(1);
        size.checked_shr(covered_bits)
            .unwrap_or(0)
            .saturating_add(u64::from(size & mask != 0))
    }

    /// Bytes of the header itself.
    fn header_len(&self) -> u32 {
        match self.version {
            2 => LEN_V2,
            _ => LEN_V3.saturating_add(u32::try_from(self.more_fields.len()).unwrap_or(0)),
        }
    }

    /// The first cluster. `None` when it does not all fit.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        // The names of features are a help only.
        self.lay_out(self.version >= 3)
            .or_else(|| self.lay_out(false))
    }

    fn lay_out(&self, names_features: bool) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(512);
        out.extend(MAGIC);
        out.extend(self.version.to_be_bytes());
        // The name's place is filled in below.
        out.extend([0; 12]);
        out.extend(self.cluster_bits.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.extend(0u32.to_be_bytes());
        out.extend(self.l1_size.to_be_bytes());
        out.extend(self.l1_offset.to_be_bytes());
        out.extend(self.refcount_table_offset.to_be_bytes());
        out.extend(self.refcount_table_clusters.to_be_bytes());
        out.extend(self.snapshots.to_be_bytes());
        out.extend(self.snapshots_offset.to_be_bytes());
        if self.version >= 3 {
            out.extend(self.incompatible.to_be_bytes());
            out.extend(self.compatible.to_be_bytes());
            out.extend(self.autoclear.to_be_bytes());
            out.extend(self.refcount_order.to_be_bytes());
            out.extend(self.header_len().to_be_bytes());
            out.extend(&self.more_fields);
        }
        let mut extension = |kind: u32, data: &[u8]| {
            out.extend(kind.to_be_bytes());
            out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend(data);
            out.resize(out.len().next_multiple_of(8), 0);
        };
        if let Some(format) = &self.backing_format {
            extension(extension::BACKING_FORMAT, format.as_bytes());
        }
        if let Some(name) = &self.data_file {
            extension(extension::DATA_FILE, name.as_bytes());
        }
        if let Some(bitmaps) = &self.bitmaps {
            let mut data = bitmaps.count.to_be_bytes().to_vec();
            data.extend([0; 4]);
            data.extend(bitmaps.directory_len.to_be_bytes());
            data.extend(bitmaps.directory_offset.to_be_bytes());
            extension(extension::BITMAPS, &data);
        }
        if names_features {
            extension(extension::FEATURE_NAMES, &feature_names());
        }
        for (kind, data) in &self.extensions {
            extension(*kind, data);
        }
        extension(extension::END, &[]);
        if let Some(name) = &self.backing {
            let place = (out.len() as u64).to_be_bytes();
            let len = u32::try_from(name.len())
                .ok()
                .filter(|len| *len <= NAME_MAX)?;
            out.extend(name.as_bytes());
            out.get_mut(8..16)?.copy_from_slice(&place);
            out.get_mut(16..20)?.copy_from_slice(&len.to_be_bytes());
        }
        (out.len() as u64 <= self.cluster_mask()).then_some(out)
    }

    /// Sets the field of the compression type, for a new image.
    pub(crate) fn set_compression(&mut self, compression: Compression) {
        self.compression = compression;
        if self.version >= 3 {
            let mut fields = vec![0; LEN_COMPRESSION.saturating_sub(LEN_V3) as usize];
            if compression == Compression::Zstd {
                self.incompatible |= incompatible::COMPRESSION;
                if let Some(kind) = fields.first_mut() {
                    *kind = 1;
                }
            }
            self.more_fields = fields;
        }
    }
}

fn feature_names() -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, bit, name) in FEATURE_NAMES {
        out.extend([*kind, *bit]);
        let mut field = [0u8; 46];
        for (to, from) in field.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        out.extend(field);
    }
    out
}
