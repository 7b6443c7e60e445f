//! What host bridges show between 640 KiB and 1 MiB: programmable attribute map and SMRAM.
//!
//! Spec: Intel 82441FX datasheet, sections 3.2.18 (PAM) and 3.2.19 (SMRAM).
//!
//! As in QEMU, an area that is read from PCI and written to RAM is all PCI.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hw_core::{Access, AccessSizes, ByteOrder, Fault, IoRegion, Mapping, RegionId};
use hw_memory::{MappingSpec, MemoryMap, RamBlock, What};

/// Priorities of what lies in the first megabyte; RAM itself has 0.
pub mod priority {
    /// The window to PCI over RAM, 0xa0000 to 0xfffff.
    pub const PCI_WINDOW: i32 = 1;
    /// What boards and devices put there: the BIOS's alias, video memory.
    pub const ON_PCI: i32 = 2;
    /// RAM shown again by PAM registers.
    pub const PAM: i32 = 10;
    /// SMRAM shown to all.
    pub const SMRAM: i32 = 11;
}

const SMRAM_BASE: u64 = 0xa0000;
const SMRAM_LEN: u64 = 0x20000;
/// SMRAM register: everyone sees it.
const D_OPEN: u8 = 1 << 6;
/// SMRAM register: locked until reset.
const D_LCK: u8 = 1 << 4;
/// SMRAM register: CPUs in system management mode see it.
const G_SMRAME: u8 = 1 << 3;
/// SMRAM register after reset: at 0xa0000, not shown to anyone.
pub(crate) const SMRAM_RESET: u8 = 0x02;

/// An area is read from RAM.
const READ: u8 = 1;
/// An area is written to RAM.
const WRITE: u8 = 2;

/// The SMRAM register, for the CPUs' own views. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Smram {
    value: Arc<AtomicU8>,
}

impl Smram {
    /// Whether CPUs in system management mode see RAM at 0xa0000 to 0xbffff.
    pub fn is_enabled(&self) -> bool {
        self.value.load(Ordering::Acquire) & G_SMRAME != 0
    }

    /// What the register becomes when the guest writes `new` over `old`.
    pub(crate) fn next(old: u8, new: u8) -> u8 {
        if old & D_LCK != 0 {
            return old;
        }
        let new = (new & !7) | 2;
        if new & D_LCK != 0 { new & !D_OPEN } else { new }
    }
}

/// PCI where nothing answers.
struct Nothing;

impl IoRegion for Nothing {
    fn read(&self, _: Access) -> Result<u64, Fault> {
        Err(Fault::Unassigned)
    }

    fn write(&self, _: Access, _: u64) -> Result<(), Fault> {
        Err(Fault::Unassigned)
    }
}

struct Area {
    base: u64,
    mapping: Mapping,
    mode: u8,
}

/// The areas of a host bridge.
pub(crate) struct Pam {
    ram: Arc<RamBlock>,
    areas: Vec<Area>,
    open_smram: Mapping,
    smram: Smram,
}

impl Pam {
    /// Lays a window to PCI over RAM, which begins at address 0 in `ram`.
    pub(crate) fn new(memory: &MemoryMap, ram: Arc<RamBlock>, smram: Smram) -> Self {
        memory.add(MappingSpec {
            name: "pci".into(),
            base: SMRAM_BASE,
            len: 0x60000,
            priority: priority::PCI_WINDOW,
            enabled: true,
            what: What::Io {
                io: Arc::new(Nothing),
                region: RegionId(0),
                order: ByteOrder::Little,
                sizes: AccessSizes::ANY,
            },
        });
        let add = |name: &str, base: u64, len: u64, priority: i32| {
            memory.add(MappingSpec {
                name: name.into(),
                base,
                len,
                priority,
                enabled: false,
                what: What::Ram {
                    block: ram.clone(),
                    offset: base,
                },
            })
        };
        let area = |base: u64, len: u64| Area {
            base,
            mapping: add("pam-ram", base, len, priority::PAM),
            mode: 0,
        };
        // In the order of the registers' nibbles; the first has only a high one.
        let mut areas = vec![area(0xf_0000, 0x1_0000)];
        areas.extend(
            (0xc_0000..0xf_0000u64)
                .step_by(0x4000)
                .map(|b| area(b, 0x4000)),
        );
        Pam {
            areas,
            open_smram: add("smram-open", SMRAM_BASE, SMRAM_LEN, priority::SMRAM),
            smram,
            ram,
        }
    }

    /// The areas follow the seven PAM registers and the SMRAM register.
    pub(crate) fn follow(&mut self, registers: [u8; 7], smram: u8) {
        let [first, rest @ ..] = registers;
        let nibbles = std::iter::once(first >> 4).chain(rest.into_iter().flat_map(|r| [r, r >> 4]));
        for (area, nibble) in self.areas.iter_mut().zip(nibbles) {
            let mode = nibble & (READ | WRITE);
            if mode == area.mode {
                continue;
            }
            area.mode = mode;
            let (block, offset) = (self.ram.clone(), area.base);
            match mode {
                READ => area.mapping.set_what(What::Rom {
                    block,
                    offset,
                    writes: None,
                }),
                _ => area.mapping.set_what(What::Ram { block, offset }),
            }
            area.mapping.set_enabled(mode & READ != 0);
        }
        self.open_smram.set_enabled(smram & D_OPEN != 0);
        self.smram.value.store(smram, Ordering::Release);
    }
}
