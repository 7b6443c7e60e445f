//! ELF files as kernels: segments by physical address, and notes.

use object::Endianness;
use object::elf::{FileHeader32, FileHeader64, NoteType, PF_X, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::LoadError;
use crate::place::Layout;

/// One loadable segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) memsz: u64,
    pub(crate) executable: bool,
}

/// What the loaders want to know of an ELF file.
#[derive(Debug, Clone)]
pub(crate) struct Elf<'a> {
    pub(crate) entry: u64,
    pub(crate) segments: Vec<Segment<'a>>,
    /// Value of the PVH note.
    pub(crate) pvh_entry: Option<u64>,
}

/// `XEN_ELFNOTE_PHYS32_ENTRY`: physical address of the PVH entry point.
const PHYS32_ENTRY: NoteType = NoteType(18);

/// More than any kernel has.
const MAX_SEGMENTS: usize = 256;

pub(crate) fn damaged(why: impl Into<String>) -> LoadError {
    LoadError::Damaged {
        what: "ELF file",
        why: why.into(),
    }
}

/// Takes a little-endian ELF file apart.
pub(crate) fn parse(file: &[u8]) -> Result<Elf<'_>, LoadError> {
    match file.get(4) {
        Some(1) => parse_as::<FileHeader32<Endianness>>(file),
        Some(2) => parse_as::<FileHeader64<Endianness>>(file),
        _ => Err(damaged("its class is neither 32 nor 64 bit")),
    }
}

fn parse_as<'a, H: FileHeader<Endian = Endianness>>(file: &'a [u8]) -> Result<Elf<'a>, LoadError> {
    let object = |e: object::Error| damaged(e.to_string());
    let header = H::parse(file).map_err(object)?;
    let endian = header.endian().map_err(object)?;
    let mut elf = Elf {
        entry: header.e_entry(endian).into(),
        segments: Vec::new(),
        pvh_entry: None,
    };
    let programs = header.program_headers(endian, file).map_err(object)?;
    if programs.len() > MAX_SEGMENTS {
        return Err(damaged(format!(
            "it has {} program headers",
            programs.len()
        )));
    }
    for program in programs {
        match program.p_type(endian) {
            PT_LOAD => {
                let bytes = program
                    .data(endian, file)
                    .map_err(|()| damaged("a segment lies outside the file: is it complete?"))?;
                let memsz: u64 = program.p_memsz(endian).into();
                if memsz < bytes.len() as u64 {
                    return Err(damaged("a segment is larger in the file than in memory"));
                }
                if memsz != 0 {
                    elf.segments.push(Segment {
                        vaddr: program.p_vaddr(endian).into(),
                        paddr: program.p_paddr(endian).into(),
                        bytes,
                        memsz,
                        executable: (program.p_flags(endian) & PF_X).0 != 0,
                    });
                }
            }
            PT_NOTE => {
                // A note section that cannot be read is as good as none.
                let Ok(Some(mut notes)) = program.notes(endian, file) else {
                    continue;
                };
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                        elf.pvh_entry = number(note.desc());
                    }
                }
            }
            _ => {}
        }
    }
    if elf.segments.is_empty() {
        return Err(damaged("it has no loadable segment"));
    }
    Ok(elf)
}

/// A note's number: 32 or 64 bits.
fn number(desc: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..desc.len())?.copy_from_slice(desc);
    matches!(desc.len(), 4 | 8).then(|| u64::from_le_bytes(wide))
}

impl Elf<'_> {
    /// The entry point's physical address. The header's is virtual: kernels linked high and loaded
    /// low need it translated by the segment that holds it.
    pub(crate) fn physical_entry(&self) -> u64 {
        self.segments
            .iter()
            .find(|s| {
                s.executable
                    && s.paddr != s.vaddr
                    && self
                        .entry
                        .checked_sub(s.vaddr)
                        .is_some_and(|into| into < s.bytes.len() as u64)
            })
            .map_or(self.entry, |s| {
                self.entry.wrapping_sub(s.vaddr).wrapping_add(s.paddr)
            })
    }
}

impl<'a> Elf<'a> {
    /// Puts all segments at their physical addresses.
    pub(crate) fn place(&self, layout: &mut Layout<'a, '_>) -> Result<(), LoadError> {
        for s in &self.segments {
            let zeros = s.memsz.saturating_sub(s.bytes.len() as u64);
            layout.put("the kernel", s.paddr, s.bytes, zeros)?;
        }
        Ok(())
    }
}
