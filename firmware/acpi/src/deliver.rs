//! Linking the tables together, by the guest's firmware or by us.
//!
//! Spec: QEMU `docs/specs/acpi_*` and SeaBIOS's `romfile_loader`: a script of 128-byte commands
//! that allocate files, add their addresses to pointers, and compute checksums.

use crate::tables::{self, OEM_ID};

/// `fw_cfg` file with the root pointer.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// `fw_cfg` file with all other tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";
/// `fw_cfg` file with the script.
pub const LOADER_FILE: &str = "etc/table-loader";
/// Bytes of the root pointer.
pub const RSDP_LEN: usize = 36;

const COMMAND_LEN: usize = 128;
const FILE_FIELD: usize = 56;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Anywhere below 4 GiB, or in the BIOS segment where root pointers are searched.
const ZONE_HIGH: u8 = 1;
const ZONE_FSEG: u8 = 2;
/// The FACS asks for the most.
const ALIGNMENT: usize = 64;
/// Where tables and root pointer have their checksums.
const TABLE_CHECKSUM: usize = 9;
const RSDP_CHECKSUM: usize = 8;
const RSDP_EXTENDED_CHECKSUM: usize = 32;
/// What the first checksum of a root pointer covers.
const RSDP_V1_LEN: usize = 20;
const RSDT_POINTER: usize = 16;
const XSDT_POINTER: usize = 24;

/// The tables in one piece, pointers still relative to its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    blob: Vec<u8>,
    /// Offset and size of every pointer within the piece.
    pointers: Vec<(usize, u8)>,
    /// Offset and length of every table with a checksum.
    sums: Vec<(usize, usize)>,
    rsdt: usize,
    xsdt: usize,
}

/// The three `fw_cfg` files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderFiles {
    /// [`RSDP_FILE`].
    pub rsdp: Vec<u8>,
    /// [`TABLES_FILE`].
    pub tables: Vec<u8>,
    /// [`LOADER_FILE`].
    pub script: Vec<u8>,
}

impl LoaderFiles {
    /// The files with their names.
    pub fn named(self) -> [(&'static str, Vec<u8>); 3] {
        [
            (RSDP_FILE, self.rsdp),
            (TABLES_FILE, self.tables),
            (LOADER_FILE, self.script),
        ]
    }
}

fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    if let Some(slot) = data.get_mut(at..end) {
        slot.copy_from_slice(bytes);
    }
}

/// Makes `data[start..start + len]` sum to zero by the byte at `at`.
fn sum(data: &mut [u8], at: usize, start: usize, len: usize) {
    put(data, at, &[0]);
    let range = data
        .get(start..start.saturating_add(len))
        .unwrap_or_default();
    let total = range.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    put(data, at, &[total.wrapping_neg()]);
}

impl Tables {
    /// Adds a table and returns its offset.
    pub(crate) fn add(&mut self, table: &[u8]) -> usize {
        let at = self.blob.len().next_multiple_of(ALIGNMENT);
        self.blob.resize(at, 0);
        self.blob.extend_from_slice(table);
        // The FACS alone has no checksum.
        if !table.starts_with(b"FACS") {
            self.sums.push((at, table.len()));
        }
        at
    }

    /// Makes a pointer of `size` bytes at `at` point to the table at `target`.
    pub(crate) fn point(&mut self, at: usize, size: u8, target: usize) {
        let bytes = (target as u64).to_le_bytes();
        let bytes = bytes.get(..usize::from(size)).unwrap_or_default();
        put(&mut self.blob, at, bytes);
        self.pointers.push((at, size));
    }

    /// Adds the root tables that list the others.
    pub(crate) fn finish(&mut self, listed: &[usize]) {
        for (size, signature) in [(4u8, *b"RSDT"), (8, *b"XSDT")] {
            let width = usize::from(size);
            let body = vec![0; listed.len().saturating_mul(width)];
            let root = self.add(&tables::table(signature, 1, &body));
            for (n, target) in listed.iter().enumerate() {
                let entry = root
                    .saturating_add(36)
                    .saturating_add(n.saturating_mul(width));
                self.point(entry, size, *target);
            }
            if size == 4 {
                self.rsdt = root;
            } else {
                self.xsdt = root;
            }
        }
        let end = self.blob.len().next_multiple_of(ALIGNMENT);
        self.blob.resize(end, 0);
    }

    /// Bytes of the tables without the root pointer. They must be placed at a multiple of 64.
    pub fn len(&self) -> usize {
        self.blob.len()
    }

    /// Whether nothing was built.
    pub fn is_empty(&self) -> bool {
        self.blob.is_empty()
    }

    /// The root pointer for tables at `base` (ACPI 6.5, section 5.2.5.3), checksums left zero.
    fn rsdp(&self, base: u64) -> Vec<u8> {
        let mut out = vec![0; RSDP_LEN];
        let at = |offset: usize| base.wrapping_add(offset as u64);
        put(&mut out, 0, b"RSD PTR ");
        put(&mut out, 9, &OEM_ID);
        put(&mut out, 15, &[2]);
        put(
            &mut out,
            RSDT_POINTER,
            &(at(self.rsdt) as u32).to_le_bytes(),
        );
        put(&mut out, 20, &(RSDP_LEN as u32).to_le_bytes());
        put(&mut out, XSDT_POINTER, &at(self.xsdt).to_le_bytes());
        out
    }

    /// Root pointer and tables for fixed addresses below 4 GiB, ready to be copied there.
    pub fn place(&self, tables_at: u32) -> (Vec<u8>, Vec<u8>) {
        let base = u64::from(tables_at);
        let mut blob = self.blob.clone();
        for (at, size) in &self.pointers {
            let width = usize::from(*size);
            let mut wide = [0; 8];
            let old = blob.get(*at..at.saturating_add(width)).unwrap_or_default();
            put(&mut wide, 0, old);
            let new = u64::from_le_bytes(wide).wrapping_add(base).to_le_bytes();
            put(&mut blob, *at, new.get(..width).unwrap_or_default());
        }
        for (at, len) in &self.sums {
            sum(&mut blob, at.saturating_add(TABLE_CHECKSUM), *at, *len);
        }
        let mut rsdp = self.rsdp(base);
        sum(&mut rsdp, RSDP_CHECKSUM, 0, RSDP_V1_LEN);
        sum(&mut rsdp, RSDP_EXTENDED_CHECKSUM, 0, RSDP_LEN);
        (rsdp, blob)
    }

    /// The files from which SeaBIOS and OVMF link the tables.
    pub fn loader(&self) -> LoaderFiles {
        let mut script = Vec::new();
        let mut command = |number: u32, parts: &[&[u8]]| {
            let start = script.len();
            script.extend_from_slice(&number.to_le_bytes());
            parts.iter().for_each(|part| script.extend_from_slice(part));
            script.resize(start.saturating_add(COMMAND_LEN), 0);
        };
        let name = |file: &str| {
            let mut field = [0; FILE_FIELD];
            put(&mut field, 0, file.as_bytes());
            field
        };
        let word = |value: usize| (value as u32).to_le_bytes();
        let (rsdp, tables) = (name(RSDP_FILE), name(TABLES_FILE));

        command(ALLOCATE, &[&rsdp, &word(16), &[ZONE_FSEG]]);
        command(ALLOCATE, &[&tables, &word(ALIGNMENT), &[ZONE_HIGH]]);
        for (at, size) in &self.pointers {
            command(ADD_POINTER, &[&tables, &tables, &word(*at), &[*size]]);
        }
        for (at, size) in [(RSDT_POINTER, 4), (XSDT_POINTER, 8)] {
            command(ADD_POINTER, &[&rsdp, &tables, &word(at), &[size]]);
        }
        // The byte itself must be zero before, for OVMF.
        let mut blob = self.blob.clone();
        for (at, len) in &self.sums {
            let byte = at.saturating_add(TABLE_CHECKSUM);
            put(&mut blob, byte, &[0]);
            command(
                ADD_CHECKSUM,
                &[&tables, &word(byte), &word(*at), &word(*len)],
            );
        }
        for (byte, len) in [
            (RSDP_CHECKSUM, RSDP_V1_LEN),
            (RSDP_EXTENDED_CHECKSUM, RSDP_LEN),
        ] {
            command(ADD_CHECKSUM, &[&rsdp, &word(byte), &word(0), &word(len)]);
        }
        LoaderFiles {
            rsdp: self.rsdp(0),
            tables: blob,
            script,
        }
    }
}
