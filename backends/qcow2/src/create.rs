//! New images (`create -f qcow2 -o ...`).

use backend_block::{BlockError, Child, CreateClass, IoVector, OpenError, Preallocation};
use control_options::{Opts, PropDef, PropKind, Props};

use crate::bytes;
use crate::header::{
    CLUSTER_BITS, CLUSTER_BITS_EXTENDED, Compression, Header, L1_MAX, LAZY_REFCOUNTS, autoclear,
    incompatible,
};

/// How images are made.
pub(crate) static CLASS: CreateClass = CreateClass {
    props: &[
        PropDef::new(
            "compat",
            PropKind::Enum(&["0.10", "v2", "1.1", "v3"]),
            "version of the format",
        )
        .or("1.1"),
        PropDef::new(
            "cluster_size",
            PropKind::Size,
            "bytes of a cluster, 512 to 2M",
        )
        .or("64K"),
        PropDef::new(
            "backing_file",
            PropKind::Str,
            "file that shows where nothing was written",
        ),
        PropDef::new("backing_fmt", PropKind::Str, "its format"),
        PropDef::new("lazy_refcounts", PropKind::Bool, "write refcounts late").or("off"),
        PropDef::new(
            "refcount_bits",
            PropKind::U32,
            "bits of a refcount: 1, 2, 4 .. 64",
        )
        .or("16"),
        PropDef::new("extended_l2", PropKind::Bool, "32 subclusters to a cluster").or("off"),
        PropDef::new(
            "compression_type",
            PropKind::Enum(Compression::NAMES),
            "how clusters are compressed",
        )
        .or("zlib"),
        PropDef::new(
            "data_file",
            PropKind::Str,
            "file that holds the disk's data",
        ),
        PropDef::new(
            "data_file_raw",
            PropKind::Bool,
            "the data file is a raw image by itself",
        )
        .or("off"),
        PropDef::new(
            "preallocation",
            PropKind::Enum(Preallocation::NAMES),
            "space set aside",
        )
        .or("off"),
    ],
    create,
};

/// What is to be made: a header, and where its tables go.
pub(crate) fn header(len: u64, opts: &Opts) -> Result<Header, OpenError> {
    let props = Props::check("-o", "format 'qcow2'", opts, CLASS.props)?;
    let bad = |problem: &str| OpenError::Other(format!("-o: {problem}"));
    let cluster = props.unsigned("cluster_size").unwrap_or(0);
    let bits = cluster.checked_ilog2().unwrap_or(0);
    if !cluster.is_power_of_two() || !CLUSTER_BITS.contains(&bits) {
        return Err(bad("cluster_size must be a power of two from 512 to 2M"));
    }
    let version = match props.text("compat") {
        Some("0.10" | "v2") => 2,
        _ => 3,
    };
    let refcount_bits = props.unsigned("refcount_bits").unwrap_or(0);
    if !refcount_bits.is_power_of_two() || refcount_bits > 64 {
        return Err(bad("refcount_bits must be 1, 2, 4, 8, 16, 32 or 64"));
    }
    let compression = match props.text("compression_type") {
        Some("zstd") => Compression::Zstd,
        _ => Compression::Zlib,
    };
    let lazy = props.is_on("lazy_refcounts");
    let extended = props.is_on("extended_l2");
    let data_file = props.text("data_file").map(str::to_owned);
    let raw = props.is_on("data_file_raw");
    let needs_v3 = lazy
        || extended
        || refcount_bits != 16
        || compression != Compression::Zlib
        || data_file.is_some();
    if version == 2 && needs_v3 {
        return Err(bad(
            "lazy_refcounts, extended_l2, refcount_bits, data_file and compression_type=zstd need compat=1.1",
        ));
    }
    if extended && bits < CLUSTER_BITS_EXTENDED {
        return Err(bad("extended_l2 needs a cluster_size of at least 16K"));
    }
    if raw && data_file.is_none() {
        return Err(bad("data_file_raw needs data_file"));
    }
    let backing = props.text("backing_file").map(str::to_owned);
    if raw && backing.is_some() {
        return Err(bad("data_file_raw and backing_file exclude each other"));
    }
    let mut header = Header {
        version,
        cluster_bits: bits,
        size: len,
        refcount_order: refcount_bits.trailing_zeros(),
        backing_format: backing
            .as_ref()
            .and(props.text("backing_fmt"))
            .map(str::to_owned),
        backing,
        compatible: if lazy { LAZY_REFCOUNTS } else { 0 },
        incompatible: if extended {
            incompatible::EXTENDED_L2
        } else {
            0
        },
        ..Header::default()
    };
    if data_file.is_some() {
        header.incompatible |= incompatible::DATA_FILE;
        header.autoclear |= if raw { autoclear::DATA_FILE_RAW } else { 0 };
        header.data_file = data_file;
    }
    header.set_compression(compression);
    let l1 = header.l1_needed(len);
    if l1.saturating_mul(8) > L1_MAX || len > i64::MAX as u64 {
        return Err(bad(
            "the image is too large for this cluster_size; use a larger one",
        ));
    }
    header.l1_size = u32::try_from(l1).unwrap_or(0);
    Ok(header)
}

/// Lays out an empty image: header, refcount table, refcount blocks, L1 table.
fn create(file: &Child, len: u64, opts: &Opts) -> Result<(), OpenError> {
    let mut header = header(len, opts)?;
    let node = file.node();
    let cluster = header.cluster_mask().wrapping_add(1);
    let l1_clusters = u64::from(header.l1_size)
        .saturating_mul(8)
        .div_ceil(cluster);
    let per_block = (cluster << 3).wrapping_shr(header.refcount_order);
    // The blocks count themselves and what holds their table.
    let (mut table, mut blocks) = (1u64, 1u64);
    loop {
        let total = l1_clusters
            .saturating_add(table)
            .saturating_add(blocks)
            .saturating_add(1);
        let wanted_blocks = total.div_ceil(per_block);
        let wanted_table = wanted_blocks.saturating_mul(8).div_ceil(cluster);
        if (wanted_table, wanted_blocks) == (table, blocks) {
            break;
        }
        (table, blocks) = (wanted_table.max(table), wanted_blocks.max(blocks));
    }
    header.refcount_table_offset = cluster;
    header.refcount_table_clusters = u32::try_from(table).unwrap_or(u32::MAX);
    let first_block = table.saturating_add(1);
    header.l1_offset = match header.l1_size {
        0 => 0,
        _ => first_block.saturating_add(blocks).saturating_mul(cluster),
    };
    let total = first_block
        .saturating_add(blocks)
        .saturating_add(l1_clusters);
    let failed =
        |error: BlockError| OpenError::image(node.file(), format!("cannot be made: {error}"));
    let entries: Vec<u64> = (first_block..first_block.saturating_add(blocks))
        .map(|index| index.saturating_mul(cluster))
        .collect();
    let write = |offset: u64, bytes: &[u8]| node.write(offset, &IoVector::from(bytes));
    node.resize(total.saturating_mul(cluster), Preallocation::Off)
        .map_err(failed)?;
    write(cluster, &bytes::table(&entries)).map_err(failed)?;
    let header_bytes = header.to_bytes().ok_or_else(|| {
        OpenError::image(
            node.file(),
            "the names do not fit into a cluster; use a larger cluster_size",
        )
    })?;
    let mut refcounts = crate::refcount::Refcounts::new(&header, entries, 1 << 20);
    for index in 0..total {
        refcounts.set(&node, index, 1).map_err(failed)?;
    }
    refcounts.write_back(&node).map_err(failed)?;
    // The header last: until then it is no image.
    write(0, &header_bytes).map_err(failed)?;
    node.flush().map_err(failed)
}
