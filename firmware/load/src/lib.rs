//! Loaders: from a kernel file to what a guest finds in memory and registers at its first
//! instruction.
//!
//! Everything here is a pure function of bytes: [`load`] looks at the file, picks the boot protocol
//! and answers with pieces of guest memory ([`Chunk`]) and registers ([`CpuStart`]). The board says
//! where RAM is and applies the result; on a machine reset it applies it again.
//!
//! A Linux bzImage is started by the kernel's own 64-bit (or 32-bit) boot protocol without any
//! firmware having run: the guest starts at once, and every machine does it the same way. A board
//! that runs a BIOS first hands it [`linux_option_rom`] and [`BzImage::firmware_items`] instead.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod arm64;
mod bios;
mod bytes;
mod bzimage;
mod cpu;
mod e820;
mod elf;
mod find;
mod identify;
mod multiboot;
mod option_rom;
mod place;
mod pvh;

use std::borrow::Cow;

pub use arm64::{ArmImage, ArmKernel, ArmRam, load_arm64, unpack_arm64};
pub use bios::FirmwareItem;
pub use bzimage::BzImage;
pub use cpu::{CpuStart, DescriptorTable, Segment};
pub use e820::{E820, E820Kind, e820_bytes};
pub use find::{FirmwareError, find_firmware};
pub use identify::{Kind, identify};
pub use option_rom::linux_option_rom;

/// Why a file was not loaded. Each names the cause and, where there is one, the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file is something else.
    #[error("this is {what}, not a kernel that a PC can start; {advice}")]
    NotBootable {
        /// What it is, with article.
        what: String,
        /// What would be right.
        advice: String,
    },
    /// The file is something else than a kernel for 64-bit Arm.
    #[error("this is {what}, not a kernel for 64-bit Arm; {advice}")]
    NotArm64 {
        /// What it is, with article.
        what: String,
        /// What would be right.
        advice: String,
    },
    /// The file says it is a kernel, but parts of it are missing or contradict each other.
    #[error("damaged {what}: {why}")]
    Damaged {
        /// Which format it claims to be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Guest memory is too small or not where the kernel wants to be.
    #[error(
        "{what} ({len} bytes) does not fit into guest memory{hint}; give the guest more with -m"
    )]
    NoRoom {
        /// What does not fit.
        what: &'static str,
        /// Its size.
        len: u64,
        /// Where it had to go, as ` at 0x...`, or empty.
        hint: String,
    },
    /// The kernel takes a shorter command line.
    #[error("the kernel command line has {len} characters, this kernel takes at most {max}")]
    LongCommandLine {
        /// Its length.
        len: usize,
        /// What the kernel takes.
        max: usize,
    },
    /// More than one module for a protocol that knows only one initrd.
    #[error(
        "this kernel takes one initrd; several, separated by commas, are for multiboot kernels"
    )]
    OneInitrd,
}

/// Bytes to be put into guest memory, followed by `zeros` bytes of zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Guest physical address.
    pub address: u64,
    /// The bytes, mostly borrowed from the file.
    pub bytes: Cow<'a, [u8]>,
    /// Zero bytes after them (an ELF segment's BSS).
    pub zeros: u64,
}

/// An initrd or multiboot module.
#[derive(Debug, Clone, Copy)]
pub struct Module<'a> {
    /// Contents.
    pub bytes: &'a [u8],
    /// Its own command line (multiboot: file name and arguments).
    pub cmdline: &'a str,
}

/// Low addresses that the loaders use for their own tables. All lie below 640 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Global descriptor table.
    pub gdt: u64,
    /// Zero page, `hvm_start_info` or multiboot information, with what hangs off it. Up to 16 KiB.
    pub info: u64,
    /// Identity page tables: six pages.
    pub page_tables: u64,
    /// Top of a small stack.
    pub stack: u64,
    /// Kernel command line. Up to 64 KiB.
    pub cmdline: u64,
}

impl Default for Places {
    fn default() -> Self {
        Places {
            gdt: 0x1000,
            info: 0x4000,
            stack: 0x8ff0,
            page_tables: 0x9000,
            cmdline: 0x2_0000,
        }
    }
}

/// What the board knows and the loaders need.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The kernel's file name: the first word of a multiboot command line.
    pub name: &'a str,
    /// `-append`.
    pub cmdline: &'a str,
    /// `-initrd`, split at commas by the caller for multiboot kernels.
    pub modules: &'a [Module<'a>],
    /// The memory map, sorted.
    pub e820: &'a [E820],
    /// ACPI root pointer, when the tables are placed in memory directly.
    pub rsdp: Option<u64>,
    /// Where own tables go.
    pub places: Places,
}

/// How a kernel is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Linux/x86 boot protocol, 64-bit entry.
    Linux64,
    /// Linux/x86 boot protocol, 32-bit entry.
    Linux32,
    /// Xen's PVH entry point.
    Pvh,
    /// Multiboot 1.
    Multiboot,
}

/// A kernel laid out for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<'a> {
    /// How it is started.
    pub protocol: Protocol,
    /// What goes into memory, in order; later chunks win.
    pub chunks: Vec<Chunk<'a>>,
    /// The first CPU's registers; the other CPUs wait for their start-up interrupt.
    pub cpu: CpuStart,
}

/// Lays out a kernel file: bzImage, multiboot 1 or PVH ELF, told apart by their contents in the
/// order QEMU tries them.
pub fn load<'a>(file: &'a [u8], boot: &Boot<'a>) -> Result<Loaded<'a>, LoadError> {
    match identify(file) {
        Kind::BzImage => BzImage::parse(file)?.load(boot),
        Kind::Multiboot => multiboot::load(file, boot),
        Kind::PvhElf => pvh::load(file, boot),
        other => Err(other.refusal()),
    }
}

/// The one initrd of protocols that take only one.
fn single<'a>(boot: &Boot<'a>) -> Result<Option<Module<'a>>, LoadError> {
    match boot.modules {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(LoadError::OneInitrd),
    }
}

#[cfg(test)]
mod tests;
