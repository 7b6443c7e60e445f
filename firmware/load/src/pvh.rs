//! PVH: ELF kernels with the `XEN_ELFNOTE_PHYS32_ENTRY` note (Linux, FreeBSD, unikernels).
//!
//! Spec: Xen `docs/misc/pvh.pandoc`, "x86/HVM direct boot ABI", and
//! `xen/include/public/arch-x86/hvm/start_info.h`.

use crate::bytes::put;
use crate::cpu::CpuStart;
use crate::elf;
use crate::place::Layout;
use crate::{Boot, LoadError, Loaded, Protocol, single};

/// "xEn3" with the top bit of the E set.
const START_MAGIC: u32 = 0x336e_c578;
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;

pub(crate) fn load<'a>(file: &'a [u8], boot: &Boot<'a>) -> Result<Loaded<'a>, LoadError> {
    let parsed = elf::parse(file)?;
    let entry = parsed
        .pvh_entry
        .ok_or_else(|| elf::damaged("its PVH note has no address"))?;
    let entry = u32::try_from(entry)
        .map_err(|_| elf::damaged(format!("its PVH entry point {entry:#x} is above 4 GiB")))?;
    let mut layout = Layout::new(boot);
    parsed.place(&mut layout)?;
    let floor = layout.end();

    let initrd = match single(boot)? {
        None => None,
        Some(module) => {
            let at = layout.high("the initrd", module.bytes, floor, 1 << 32)?;
            Some((at, module.bytes.len() as u64))
        }
    };
    let cmdline = layout.cmdline(boot.cmdline, usize::MAX)?;

    let start = boot.places.info;
    let modlist = start.saturating_add(0x40);
    let memmap = start.saturating_add(0x100);
    let ranges = boot
        .e820
        .get(..boot.e820.len().min(128))
        .unwrap_or_default();

    let mut info = vec![0; 0x100];
    put(&mut info, 0, &START_MAGIC.to_le_bytes());
    put(&mut info, 4, &1u32.to_le_bytes());
    put(&mut info, 24, &cmdline.to_le_bytes());
    put(&mut info, 32, &boot.rsdp.unwrap_or(0).to_le_bytes());
    put(&mut info, 40, &memmap.to_le_bytes());
    put(&mut info, 48, &(ranges.len() as u32).to_le_bytes());
    if let Some((at, len)) = initrd {
        put(&mut info, 12, &1u32.to_le_bytes());
        put(&mut info, 16, &modlist.to_le_bytes());
        put(&mut info, 0x40, &at.to_le_bytes());
        put(&mut info, 0x48, &len.to_le_bytes());
    }
    for range in ranges {
        info.extend_from_slice(&range.base.to_le_bytes());
        info.extend_from_slice(&range.len.to_le_bytes());
        info.extend_from_slice(&range.kind.number().to_le_bytes());
        info.extend_from_slice(&[0; 4]);
    }
    layout.table("the PVH start information", start, info)?;

    let mut cpu = CpuStart::protected(u64::from(entry), CODE, DATA);
    cpu.rbx = start;
    cpu.rsp = boot.places.stack;
    let gdt = cpu.place_gdt(boot.places.gdt);
    layout.table("the descriptor table", boot.places.gdt, gdt)?;
    Ok(Loaded {
        protocol: Protocol::Pvh,
        chunks: layout.chunks,
        cpu,
    })
}
