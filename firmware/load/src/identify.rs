//! What a file is, by its contents.

use crate::LoadError;
use crate::bytes::{has, u16_at, u32_at, u64_at};
use crate::{bzimage, elf, multiboot};

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Linux/x86 bzImage.
    BzImage,
    /// Multiboot 1 kernel, ELF or flat.
    Multiboot,
    /// ELF file with a PVH entry point.
    PvhElf,
    /// Something that a PC does not start.
    Other {
        /// Its name, with article.
        what: String,
        /// What would be right.
        advice: String,
    },
}

impl Kind {
    fn other(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Kind::Other {
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// The error for a file that is not started.
    pub(crate) fn refusal(self) -> LoadError {
        match self {
            Kind::Other { what, advice } => LoadError::NotBootable { what, advice },
            Kind::BzImage | Kind::Multiboot | Kind::PvhElf => LoadError::NotBootable {
                what: "a kernel".into(),
                advice: KERNELS.into(),
            },
        }
    }
}

const KERNELS: &str = "-kernel takes a Linux bzImage (vmlinuz), an ELF kernel with a PVH note or a \
                       multiboot kernel";
const DISK: &str = "attach a disk image with -drive file=...";
const UNPACK: &str = "unpack it first";
const INITRD: &str = "give it with -initrd, beside a -kernel";

/// Tells what a file is. Looks at the headers only.
pub fn identify(file: &[u8]) -> Kind {
    if file.is_empty() {
        return Kind::other("an empty file", KERNELS);
    }
    if bzimage::is_bzimage(file) {
        return Kind::BzImage;
    }
    if multiboot::is_multiboot(file) {
        return Kind::Multiboot;
    }
    if has(file, 0, b"\x7fELF") {
        return elf_kind(file);
    }
    foreign_kernel(file)
        .or_else(|| by_magic(file))
        .unwrap_or_else(|| unknown(file))
}

/// ELF machine numbers of other guests, with the name of their QEMU.
const MACHINES: &[(u16, &str, &str)] = &[
    (2, "SPARC", "sparc"),
    (8, "MIPS", "mips"),
    (20, "32-bit PowerPC", "ppc"),
    (21, "64-bit PowerPC", "ppc64"),
    (22, "S/390", "s390x"),
    (40, "32-bit Arm", "arm"),
    (43, "SPARC64", "sparc64"),
    (183, "64-bit Arm", "aarch64"),
    (243, "RISC-V", "riscv64"),
    (258, "LoongArch", "loongarch64"),
];
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;

fn elf_kind(file: &[u8]) -> Kind {
    let big = file.get(5) == Some(&2);
    let half = |at| u16_at(file, at).map(|v| if big { v.swap_bytes() } else { v });
    let Some(machine) = half(18) else {
        return Kind::other("a cut-off ELF file", KERNELS);
    };
    if machine != EM_386 && machine != EM_X86_64 {
        let known = MACHINES.iter().find(|(number, _, _)| *number == machine);
        return match known {
            Some((_, name, qemu)) => Kind::other(
                format!("an ELF file for {name}"),
                format!("start it as a guest of that kind (qemu-system-{qemu})"),
            ),
            None => Kind::other(
                format!("an ELF file for processor number {machine}"),
                KERNELS,
            ),
        };
    }
    let bits = if machine == EM_386 {
        "32-bit"
    } else {
        "64-bit"
    };
    match elf::parse(file) {
        Ok(parsed) if parsed.pvh_entry.is_some() => Kind::PvhElf,
        _ if half(16) == Some(1) => Kind::other(
            "an ELF object file",
            "link it; kernel modules (.ko) are loaded by a running kernel",
        ),
        _ if half(16) == Some(4) => Kind::other("a core dump", KERNELS),
        Ok(_) => Kind::other(
            format!("a {bits} x86 ELF file with neither a PVH note nor a multiboot header"),
            "if it is a Linux vmlinux, build it with CONFIG_PVH=y or give the bzImage",
        ),
        Err(error) => Kind::other(format!("a {bits} x86 ELF file ({error})"), KERNELS),
    }
}

/// Kernels of other architectures and containers of kernels.
fn foreign_kernel(file: &[u8]) -> Option<Kind> {
    let kind = if has(file, 0x38, b"ARM\x64") {
        Kind::other(
            "a Linux Image for 64-bit Arm",
            "start it as an aarch64 guest (qemu-system-aarch64 -M virt)",
        )
    } else if has(file, 0x38, b"RSC\x05") {
        Kind::other(
            "a Linux Image for RISC-V",
            "start it as a RISC-V guest (qemu-system-riscv64)",
        )
    } else if u32_at(file, 0x24) == Some(0x016f_2818) {
        Kind::other(
            "a Linux zImage for 32-bit Arm",
            "start it as an Arm guest (qemu-system-arm)",
        )
    } else if has(file, 0x10008, b"S390EP") {
        Kind::other(
            "a Linux kernel for s390x",
            "start it as an s390x guest (qemu-system-s390x)",
        )
    } else if has(file, 0, b"MZ") && has(file, 4, b"zimg") {
        Kind::other(
            "a compressed EFI kernel (zboot) of another architecture",
            "start it by UEFI firmware, or unpack the kernel in it",
        )
    } else if has(file, 0, b"MZ") {
        pe_kind(file)
    } else if has(file, 0, &[0x27, 0x05, 0x19, 0x56]) {
        Kind::other(
            "a U-Boot legacy image (uImage)",
            "unpack the kernel in it (dumpimage) and give that",
        )
    } else {
        return None;
    };
    Some(kind)
}

fn pe_kind(file: &[u8]) -> Kind {
    let at = u32_at(file, 0x3c).map_or(0, |v| v as usize);
    if !has(file, at, b"PE\0\0") {
        return Kind::other("a DOS program", KERNELS);
    }
    match u16_at(file, at.saturating_add(4)) {
        Some(0x8664 | 0x14c) => Kind::other(
            "a PE file (an EFI program)",
            "start it from UEFI firmware (-bios OVMF.fd) on a disk, or give a Linux bzImage",
        ),
        Some(0xaa64) => Kind::other(
            "a PE file for 64-bit Arm",
            "start it as an aarch64 guest (qemu-system-aarch64)",
        ),
        _ => Kind::other("a PE file for another processor", KERNELS),
    }
}

/// Marks of files that are no kernels: offset, mark, what it is, what would be right.
const MAGICS: &[(usize, &[u8], &str, &str)] = &[
    (0, b"\x1f\x8b", "a gzip file", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz file", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"\x04\x22\x4d\x18", "an lz4 file", UNPACK),
    (
        0,
        b"\x02\x21\x4c\x18",
        "an lz4 file (legacy format)",
        UNPACK,
    ),
    (0, b"\x89LZO", "an lzop file", UNPACK),
    (0, b"\x5d\0\0", "an lzma file", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"070701", "a cpio archive (an initrd)", INITRD),
    (0, b"070702", "a cpio archive (an initrd)", INITRD),
    (0, b"hsqs", "a squashfs image", DISK),
    (0, b"QFI\xfb", "a qcow2 disk image", DISK),
    (0, b"QED\0", "a QED disk image", DISK),
    (0, b"KDMV", "a VMDK disk image", DISK),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor", DISK),
    (0, b"vhdxfile", "a VHDX disk image", DISK),
    (0, b"conectix", "a VHD disk image", DISK),
    (0, b"LUKS\xba\xbe", "an encrypted (LUKS) disk image", DISK),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk image", DISK),
    (
        0x8001,
        b"CD001",
        "a CD image (ISO 9660)",
        "attach it with -cdrom FILE",
    ),
    (
        0,
        b"!<arch>\ndebian",
        "a Debian package",
        "unpack it (dpkg -x) and give the boot/vmlinuz in it",
    ),
    (
        0,
        b"\xed\xab\xee\xdb",
        "an RPM package",
        "unpack it and give the vmlinuz in it",
    ),
    (0, b"!<arch>\n", "an archive of object files", KERNELS),
    (
        0,
        b"\xd0\x0d\xfe\xed",
        "a device tree or a U-Boot FIT image",
        "a PC has no device tree; unpack the kernel in it",
    ),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"#!", "a script", KERNELS),
    (
        0,
        b"<!DOCTYPE",
        "an HTML page",
        "a download may have failed",
    ),
    (0, b"<html", "an HTML page", "a download may have failed"),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer",
        "fetch the file itself (git lfs pull)",
    ),
    (
        0,
        b"\x55\xaa",
        "an option ROM",
        "attach it with -option-rom or a device's romfile=",
    ),
    (0x200, b"EFI PART", "a GPT disk image", DISK),
    (0x438, b"\x53\xef", "an ext2/3/4 file system", DISK),
];

fn by_magic(file: &[u8]) -> Option<Kind> {
    if u32_at(file, 0).is_some() && u64_at(file, 0).is_none() {
        return Some(Kind::other("a file of a few bytes", KERNELS));
    }
    MAGICS
        .iter()
        .find(|(at, magic, _, _)| has(file, *at, magic))
        .map(|(_, _, what, advice)| Kind::other(*what, *advice))
        .or_else(|| {
            has(file, 510, &[0x55, 0xaa])
                .then(|| Kind::other("a disk image with a boot sector", DISK))
        })
}

fn unknown(file: &[u8]) -> Kind {
    let head = file.get(..file.len().min(512)).unwrap_or_default();
    let text = head
        .iter()
        .all(|b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..));
    if head.iter().all(|b| *b == 0) {
        Kind::other("a file that begins with zeros", KERNELS)
    } else if text && std::str::from_utf8(head.get(..64).unwrap_or(head)).is_ok() {
        Kind::other("a text file", KERNELS)
    } else {
        Kind::other("a file of an unknown kind", KERNELS)
    }
}
