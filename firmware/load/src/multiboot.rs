//! Multiboot 1 kernels.
//!
//! Spec: "Multiboot Specification version 0.6.96", sections 3.1 (header), 3.2 (machine state) and
//! 3.3 (boot information). A header with address fields (the a.out kludge) wins over the ELF
//! header around it.
//!
//! Not modelled: VBE, drives, APM and symbol information; those flags stay clear.

use std::borrow::Cow;

use crate::bytes::{put, u32_at};
use crate::cpu::CpuStart;
use crate::e820::E820Kind;
use crate::elf;
use crate::place::{Layout, with_zero};
use crate::{Boot, LoadError, Loaded, Protocol};

/// In the file's header.
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// In EAX at the start.
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies within this much of the file, 4-aligned.
const SEARCH_LEN: usize = 8192;
/// Header flag 16: the address fields count.
const ADDRESS_FIELDS: u32 = 1 << 16;
/// Header flag 2: a video mode is wanted.
const VIDEO: u32 = 1 << 2;
/// Header flags that a loader must understand or refuse: bits 0 to 15.
const UNDERSTOOD: u32 = 0b11;

/// Information flags: memory, command line, modules, memory map, loader name.
const INFO_FLAGS: u32 = 1 | 1 << 2 | 1 << 6 | 1 << 9;
const INFO_MODS: u32 = 1 << 3;
const INFO_LEN: usize = 120;
/// What [`Places`](crate::Places) leave for information, module list, map and strings.
const INFO_ROOM: usize = 0x4000;
const MODULE_LEN: usize = 16;
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;

/// Offset of the header in the file.
fn find(file: &[u8]) -> Option<usize> {
    let search = file.get(..file.len().min(SEARCH_LEN))?;
    (0..search.len()).step_by(4).find(|at| {
        let word = |n: usize| u32_at(search, at.saturating_add(n));
        word(0) == Some(HEADER_MAGIC)
            && word(4)
                .zip(word(8))
                .is_some_and(|(f, c)| HEADER_MAGIC.wrapping_add(f).wrapping_add(c) == 0)
    })
}

/// Whether there is a multiboot header.
pub(crate) fn is_multiboot(file: &[u8]) -> bool {
    find(file).is_some()
}

fn damaged(why: impl Into<String>) -> LoadError {
    LoadError::Damaged {
        what: "multiboot kernel",
        why: why.into(),
    }
}

/// Places a kernel by the header's address fields and returns its entry point.
fn place_by_fields<'a>(
    file: &'a [u8],
    at: usize,
    layout: &mut Layout<'a, '_>,
) -> Result<u64, LoadError> {
    let field = |n: usize| {
        u32_at(file, at.saturating_add(n)).ok_or_else(|| damaged("its header is cut off"))
    };
    let (header_addr, load_addr) = (field(12)?, field(16)?);
    let (load_end, bss_end, entry) = (field(20)?, field(24)?, field(28)?);
    let before = header_addr
        .checked_sub(load_addr)
        .and_then(|n| at.checked_sub(n as usize))
        .ok_or_else(|| damaged("header_addr and load_addr contradict the file"))?;
    let bytes = file.get(before..).unwrap_or_default();
    let bytes = match load_end {
        0 => bytes,
        end => end
            .checked_sub(load_addr)
            .and_then(|len| bytes.get(..len as usize))
            .ok_or_else(|| damaged("load_end_addr lies outside the file"))?,
    };
    let loaded_end = u64::from(load_addr).saturating_add(bytes.len() as u64);
    let zeros = u64::from(bss_end).saturating_sub(loaded_end);
    layout.put("the kernel", u64::from(load_addr), bytes, zeros)?;
    Ok(u64::from(entry))
}

pub(crate) fn load<'a>(file: &'a [u8], boot: &Boot<'a>) -> Result<Loaded<'a>, LoadError> {
    let at = find(file).ok_or_else(|| damaged("it has no header"))?;
    let flags = u32_at(file, at.saturating_add(4)).unwrap_or(0);
    if flags & 0xffff & !UNDERSTOOD & !VIDEO != 0 {
        return Err(damaged(format!(
            "it requires features that multiboot 1 does not define (flags {flags:#x})"
        )));
    }
    let mut layout = Layout::new(boot);
    let entry = if flags & ADDRESS_FIELDS != 0 {
        place_by_fields(file, at, &mut layout)?
    } else {
        let parsed = elf::parse(file)?;
        parsed.place(&mut layout)?;
        parsed.physical_entry()
    };
    let entry = u32::try_from(entry)
        .map_err(|_| damaged(format!("its entry point {entry:#x} is above 4 GiB")))?;

    // Modules follow the kernel, page-aligned, as boot loaders place them.
    let mut next = page_up(layout.end());
    let mut modules = Vec::new();
    for module in boot.modules {
        layout.put("a module", next, module.bytes, 0)?;
        let end = next.saturating_add(module.bytes.len() as u64);
        modules.push((next, end, module.cmdline));
        next = page_up(end);
    }
    let cmdline = if boot.cmdline.is_empty() {
        Cow::Borrowed(boot.name)
    } else {
        Cow::Owned(format!("{} {}", boot.name, boot.cmdline))
    };
    let cmdline_at = layout.cmdline(&cmdline, usize::MAX)?;
    let info = information(boot, cmdline_at, &modules);
    if info.len() > INFO_ROOM {
        return Err(LoadError::LongCommandLine {
            len: info.len(),
            max: INFO_ROOM,
        });
    }
    layout.table("the multiboot information", boot.places.info, info)?;

    let mut cpu = CpuStart::protected(u64::from(entry), CODE, DATA);
    cpu.rax = u64::from(LOADER_MAGIC);
    cpu.rbx = boot.places.info;
    cpu.rsp = boot.places.stack;
    let gdt = cpu.place_gdt(boot.places.gdt);
    layout.table("the descriptor table", boot.places.gdt, gdt)?;
    Ok(Loaded {
        protocol: Protocol::Multiboot,
        chunks: layout.chunks,
        cpu,
    })
}

fn page_up(address: u64) -> u64 {
    address.saturating_add(0xfff) & !0xfff
}

/// The information structure, followed by module list, memory map and strings.
fn information(boot: &Boot<'_>, cmdline: u64, modules: &[(u64, u64, &str)]) -> Vec<u8> {
    let base = boot.places.info;
    let mut info = vec![0; INFO_LEN];
    let low = |value: u64| (value as u32).to_le_bytes();
    let here = |info: &Vec<u8>| low(base.saturating_add(info.len() as u64));

    let list = info.len();
    let mods_addr = here(&info);
    info.resize(
        list.saturating_add(modules.len().saturating_mul(MODULE_LEN)),
        0,
    );
    for (n, (start, end, text)) in modules.iter().enumerate() {
        let string = here(&info);
        info.extend_from_slice(&with_zero(text));
        let entry = list.saturating_add(n.saturating_mul(MODULE_LEN));
        put(&mut info, entry, &low(*start));
        put(&mut info, entry.saturating_add(4), &low(*end));
        put(&mut info, entry.saturating_add(8), &string);
    }
    let name = here(&info);
    info.extend_from_slice(&with_zero("mimic"));
    info.resize(info.len().next_multiple_of(4), 0);

    let map_addr = here(&info);
    let map_start = info.len();
    for range in boot.e820 {
        // `size` does not count itself.
        info.extend_from_slice(&20u32.to_le_bytes());
        info.extend_from_slice(&range.base.to_le_bytes());
        info.extend_from_slice(&range.len.to_le_bytes());
        info.extend_from_slice(&range.kind.number().to_le_bytes());
    }
    let map_len = info.len().saturating_sub(map_start) as u64;

    let ram_from = |base: u64| {
        boot.e820
            .iter()
            .find(|r| {
                r.kind == E820Kind::Ram && r.base <= base && r.base.saturating_add(r.len) > base
            })
            .map_or(0, |r| {
                r.base.saturating_add(r.len).saturating_sub(base) >> 10
            })
    };
    let mods = if modules.is_empty() { 0 } else { INFO_MODS };
    put(&mut info, 0, &(INFO_FLAGS | mods).to_le_bytes());
    put(&mut info, 4, &low(ram_from(0).min(640)));
    put(&mut info, 8, &low(ram_from(1 << 20)));
    put(&mut info, 16, &low(cmdline));
    put(&mut info, 20, &low(modules.len() as u64));
    put(&mut info, 24, &mods_addr);
    put(&mut info, 44, &low(map_len));
    put(&mut info, 48, &map_addr);
    put(&mut info, 64, &name);
    info
}
