//! Linux/x86 bzImage.
//!
//! Spec: Linux `Documentation/arch/x86/boot.rst`, "The Linux/x86 Boot Protocol", and
//! `zero-page.rst`. Field names are that document's.
//!
//! Not modelled: zImages (protocol before 2.02), `setup_data`, the EFI hand-over.

use crate::bytes::{array, has, put, u8_at, u16_at, u32_at, u64_at};
use crate::cpu::{CpuStart, identity_tables};
use crate::e820::{E820Kind, e820_bytes};
use crate::place::{Layout, is_ram};
use crate::{Boot, LoadError, Loaded, Protocol, single};

/// Selectors the protocol demands: `__BOOT_CS` and `__BOOT_DS`.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
/// The 64-bit entry point lies here in the loaded kernel.
const ENTRY_64: u64 = 0x200;
/// Ranges the zero page has room for.
const E820_MAX: usize = 128;

/// `loadflags` bit 0: the kernel goes to 1 MiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags` bit 0: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;
/// `xloadflags` bit 1: kernel and initrd may lie above 4 GiB.
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 2;

/// A checked bzImage.
#[derive(Debug, Clone)]
pub struct BzImage<'a> {
    /// The real-mode part: boot sector and set-up code.
    pub setup: &'a [u8],
    /// The protected-mode part.
    pub kernel: &'a [u8],
    /// Boot protocol version, `0x020f` for 2.15.
    pub version: u16,
    /// Highest address of the initrd's last byte.
    pub initrd_addr_max: u64,
    /// Longest command line, without the final zero.
    pub cmdline_size: usize,
    xloadflags: u16,
    relocatable: bool,
    pref_address: u64,
    init_size: u64,
}

fn damaged(why: impl Into<String>) -> LoadError {
    LoadError::Damaged {
        what: "Linux bzImage",
        why: why.into(),
    }
}

impl<'a> BzImage<'a> {
    /// Takes the header apart.
    pub fn parse(file: &'a [u8]) -> Result<Self, LoadError> {
        let short = || damaged("the file ends within its header");
        let version = u16_at(file, 0x206).ok_or_else(short)?;
        let loadflags = u8_at(file, 0x211).ok_or_else(short)?;
        if version < 0x202 || loadflags & LOADED_HIGH == 0 {
            return Err(LoadError::NotBootable {
                what: format!(
                    "a Linux zImage or a kernel with boot protocol {}.{:02}",
                    version >> 8,
                    version & 0xff
                ),
                advice: "use a bzImage (boot protocol 2.02 or newer)".into(),
            });
        }
        let sectors = match u8_at(file, 0x1f1).ok_or_else(short)? {
            0 => 4,
            n => usize::from(n),
        };
        let setup_len = sectors.saturating_add(1).saturating_mul(512);
        let (setup, kernel) = file.split_at_checked(setup_len).ok_or_else(|| {
            damaged(format!(
                "its set-up code takes {setup_len} bytes, the file has {}",
                file.len()
            ))
        })?;
        if kernel.is_empty() {
            return Err(damaged("nothing follows the set-up code"));
        }
        // Fields are present from the version on that introduced them.
        let since = |v: u16| version >= v;
        let field16 = |v, at| if since(v) { u16_at(setup, at) } else { None };
        let field32 = |v, at| if since(v) { u32_at(setup, at) } else { None };
        let field64 = |v, at| if since(v) { u64_at(setup, at) } else { None };
        Ok(BzImage {
            setup,
            kernel,
            version,
            initrd_addr_max: field32(0x203, 0x22c).map_or(0x37ff_ffff, u64::from),
            cmdline_size: field32(0x206, 0x238)
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| *n != 0)
                .unwrap_or(255),
            xloadflags: field16(0x20c, 0x236).unwrap_or(0),
            relocatable: since(0x205) && u8_at(setup, 0x234).is_some_and(|b| b != 0),
            pref_address: field64(0x20a, 0x258).unwrap_or(0x10_0000),
            init_size: field32(0x20a, 0x260)
                .map_or(0, u64::from)
                .max(kernel.len() as u64),
        })
    }

    /// Whether the kernel has the 64-bit entry point.
    pub fn is_64_bit(&self) -> bool {
        self.xloadflags & XLF_KERNEL_64 != 0
    }

    /// The initrd's highest last byte below 4 GiB: kernels that take it above 4 GiB ignore
    /// `initrd_addr_max`.
    pub fn initrd_limit(&self) -> u64 {
        if self.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0 {
            u64::from(u32::MAX)
        } else {
            self.initrd_addr_max
        }
    }

    /// Where the protected-mode part goes: the preferred address when RAM is there, which saves
    /// the kernel a copy of itself; else 1 MiB.
    fn address(&self, boot: &Boot<'_>) -> u64 {
        let preferred = self.relocatable
            && self.pref_address >= 0x10_0000
            && self.pref_address < 1 << 32
            && is_ram(boot.e820, self.pref_address, self.init_size);
        if preferred {
            self.pref_address
        } else {
            0x10_0000
        }
    }

    /// Lays out the kernel for a start by its 64-bit entry point, or by the 32-bit one where it
    /// has no other.
    pub fn load(&self, boot: &Boot<'a>) -> Result<Loaded<'a>, LoadError> {
        let mut layout = Layout::new(boot);
        let address = self.address(boot);
        let room = self.init_size.saturating_sub(self.kernel.len() as u64);
        // The room is checked, not cleared: the kernel clears its own BSS.
        layout.put("the kernel", address, self.kernel, room)?;
        if let Some(chunk) = layout.chunks.last_mut() {
            chunk.zeros = 0;
        }
        let cmdline = layout.cmdline(boot.cmdline, self.cmdline_size)?;
        let initrd = match single(boot)? {
            None => (0, 0),
            Some(module) => {
                let floor = address.saturating_add(self.init_size);
                let limit = self.initrd_limit().saturating_add(1);
                let at = layout.high("the initrd", module.bytes, floor, limit)?;
                (at, module.bytes.len() as u64)
            }
        };
        let zero_page = self.zero_page(boot, address, cmdline, initrd);
        layout.table("the zero page", boot.places.info, zero_page)?;

        let mut cpu = if self.is_64_bit() {
            let tables = boot.places.page_tables;
            layout.table("the page tables", tables, identity_tables(tables))?;
            CpuStart::long(address.saturating_add(ENTRY_64), tables, BOOT_CS, BOOT_DS)
        } else {
            CpuStart::protected(address, BOOT_CS, BOOT_DS)
        };
        cpu.rsp = boot.places.stack;
        cpu.rsi = boot.places.info;
        let gdt = cpu.place_gdt(boot.places.gdt);
        layout.table("the descriptor table", boot.places.gdt, gdt)?;
        Ok(Loaded {
            protocol: if self.is_64_bit() {
                Protocol::Linux64
            } else {
                Protocol::Linux32
            },
            chunks: layout.chunks,
            cpu,
        })
    }

    /// `struct boot_params`: the set-up header as the file has it, and what a loader fills in.
    fn zero_page(
        &self,
        boot: &Boot<'_>,
        address: u64,
        cmdline: u64,
        (initrd, initrd_len): (u64, u64),
    ) -> Vec<u8> {
        let mut page = vec![0; 0x1000];
        let header_end =
            0x202usize.saturating_add(usize::from(u8_at(self.setup, 0x201).unwrap_or(0)));
        if let Some(header) = self.setup.get(0x1f1..header_end.min(0x290)) {
            put(&mut page, 0x1f1, header);
        }
        let high = |value: u64| ((value >> 32) as u32).to_le_bytes();
        let low = |value: u64| (value as u32).to_le_bytes();
        if let Some(rsdp) = boot.rsdp {
            put(&mut page, 0x070, &rsdp.to_le_bytes());
        }
        put(&mut page, 0x0c0, &high(initrd));
        put(&mut page, 0x0c4, &high(initrd_len));
        put(&mut page, 0x0c8, &high(cmdline));
        put(&mut page, 0x1e0, &low(extended_kib(boot)));
        let ranges = boot
            .e820
            .get(..boot.e820.len().min(E820_MAX))
            .unwrap_or_default();
        put(&mut page, 0x1e8, &[ranges.len() as u8]);
        // vid_mode: "normal".
        put(&mut page, 0x1fa, &0xffffu16.to_le_bytes());
        // type_of_loader: one without an assigned number.
        put(&mut page, 0x210, &[0xff]);
        put(&mut page, 0x214, &low(address));
        put(&mut page, 0x218, &low(initrd));
        put(&mut page, 0x21c, &low(initrd_len));
        put(&mut page, 0x228, &low(cmdline));
        put(&mut page, 0x2d0, &e820_bytes(ranges));
        page
    }
}

/// `alt_mem_k`: KiB of RAM from 1 MiB up to the first hole.
fn extended_kib(boot: &Boot<'_>) -> u64 {
    boot.e820
        .iter()
        .find(|r| {
            r.kind == E820Kind::Ram
                && r.base <= 0x10_0000
                && r.base.saturating_add(r.len) > 0x10_0000
        })
        .map_or(0, |r| {
            r.base.saturating_add(r.len).saturating_sub(0x10_0000) >> 10
        })
}

/// Whether a file has the set-up header's marks.
pub(crate) fn is_bzimage(file: &[u8]) -> bool {
    has(file, 0x202, b"HdrS") && array::<2>(file, 0x1fe) == Some([0x55, 0xaa])
}
