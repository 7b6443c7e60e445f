//! Finding room in guest memory.

use std::borrow::Cow;

use crate::{Boot, Chunk, E820, E820Kind, LoadError};

/// Whether `base..base + len` is RAM. Adjoining ranges count as one only when they are one entry.
pub(crate) fn is_ram(map: &[E820], base: u64, len: u64) -> bool {
    let Some(end) = base.checked_add(len) else {
        return false;
    };
    map.iter().any(|range| {
        range.kind == E820Kind::Ram
            && range.base <= base
            && range.base.saturating_add(range.len) >= end
    })
}

/// The highest page-aligned address where `len` bytes fit into RAM, all of them below `limit` and
/// not below `floor`.
pub(crate) fn highest(map: &[E820], len: u64, floor: u64, limit: u64) -> Option<u64> {
    map.iter()
        .filter(|range| range.kind == E820Kind::Ram)
        .filter_map(|range| {
            let end = range.base.saturating_add(range.len).min(limit);
            let base = end.checked_sub(len)? & !0xfff;
            (base >= range.base.max(floor)).then_some(base)
        })
        .max()
}

/// Chunks collected so far, each checked to lie in RAM.
pub(crate) struct Layout<'a, 'b> {
    boot: &'b Boot<'a>,
    pub(crate) chunks: Vec<Chunk<'a>>,
}

impl<'a, 'b> Layout<'a, 'b> {
    pub(crate) fn new(boot: &'b Boot<'a>) -> Self {
        Layout {
            boot,
            chunks: Vec::new(),
        }
    }

    /// Adds a chunk at a fixed address.
    pub(crate) fn put(
        &mut self,
        what: &'static str,
        address: u64,
        bytes: impl Into<Cow<'a, [u8]>>,
        zeros: u64,
    ) -> Result<(), LoadError> {
        let bytes = bytes.into();
        let len = (bytes.len() as u64).saturating_add(zeros);
        if !is_ram(self.boot.e820, address, len) {
            let hint = format!(" at {address:#x}");
            return Err(LoadError::NoRoom { what, len, hint });
        }
        self.chunks.push(Chunk {
            address,
            bytes,
            zeros,
        });
        Ok(())
    }

    /// Adds one of the loader's own tables, which must not lie over the kernel or a module.
    pub(crate) fn table(
        &mut self,
        what: &'static str,
        address: u64,
        bytes: Vec<u8>,
    ) -> Result<(), LoadError> {
        let len = bytes.len() as u64;
        let end = address.saturating_add(len);
        let taken = self.chunks.iter().any(|c| {
            let c_end = c
                .address
                .saturating_add(c.bytes.len() as u64)
                .saturating_add(c.zeros);
            address < c_end && c.address < end
        });
        if taken {
            let hint = format!(" at {address:#x}, where the kernel wants to be loaded");
            return Err(LoadError::NoRoom { what, len, hint });
        }
        self.put(what, address, bytes, 0)
    }

    /// First address above everything placed from 1 MiB up.
    pub(crate) fn end(&self) -> u64 {
        self.chunks
            .iter()
            .map(|c| {
                c.address
                    .saturating_add(c.bytes.len() as u64)
                    .saturating_add(c.zeros)
            })
            .max()
            .unwrap_or(0)
            .max(1 << 20)
    }

    /// Adds an initrd as high as possible below `limit` and above `floor`.
    pub(crate) fn high(
        &mut self,
        what: &'static str,
        bytes: &'a [u8],
        floor: u64,
        limit: u64,
    ) -> Result<u64, LoadError> {
        let len = bytes.len() as u64;
        let hint = String::new();
        let address = highest(self.boot.e820, len, floor, limit).ok_or(LoadError::NoRoom {
            what,
            len,
            hint,
        })?;
        self.put(what, address, bytes, 0)?;
        Ok(address)
    }

    /// Adds the kernel command line, ended by a zero byte. It must not hold one itself.
    pub(crate) fn cmdline(&mut self, text: &str, max: usize) -> Result<u64, LoadError> {
        let max = max.min(CMDLINE_ROOM);
        if text.len() > max {
            return Err(LoadError::LongCommandLine {
                len: text.len(),
                max,
            });
        }
        let address = self.boot.places.cmdline;
        self.table("the command line", address, with_zero(text))?;
        Ok(address)
    }
}

/// What the places leave for a command line, its final zero taken off.
const CMDLINE_ROOM: usize = 0xffff;

/// Text ended by a zero byte; a zero within ends it early.
pub(crate) fn with_zero(text: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.bytes().take_while(|b| *b != 0).collect();
    bytes.push(0);
    bytes
}
