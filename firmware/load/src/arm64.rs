//! Kernels for 64-bit Arm: `Image`, compressed or not, uImage, ELF.
//!
//! Spec: Linux `Documentation/arch/arm64/booting.rst`; U-Boot `include/image.h` for uImage;
//! `drivers/firmware/efi/libstub/zboot-header.S` for self-decompressing EFI images.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::DeflateDecoder;

use crate::bytes::{has, u8_at, u16_at, u32_at, u64_at};
use crate::{Chunk, LoadError, elf};

/// At the start of RAM, below the kernel.
const ALIGN: u64 = 2 << 20;
/// Where kernels before 3.17 want to be, whose headers do not say.
const OLD_OFFSET: u64 = 0x8_0000;
/// Largest kernel that is unpacked.
const MOST: usize = 512 << 20;
const EM_AARCH64: u16 = 183;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const UIMAGE: [u8; 4] = [0x27, 0x05, 0x19, 0x56];
const UIMAGE_HEADER: usize = 64;
/// IH_ARCH_ARM64
const UIMAGE_ARM64: u8 = 22;

/// RAM that a kernel is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmRam {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// A kernel laid out for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmKernel<'a> {
    /// What goes into memory.
    pub chunks: Vec<Chunk<'a>>,
    /// First instruction.
    pub entry: u64,
    /// First address after it, what it clears included.
    pub end: u64,
    /// Whether it takes a device tree in x0 (Linux, and what behaves like it).
    pub takes_tree: bool,
}

fn damaged(what: &'static str, why: impl Into<String>) -> LoadError {
    let why = why.into();
    LoadError::Damaged { what, why }
}

fn gunzip(data: &[u8]) -> Result<Vec<u8>, LoadError> {
    let bad = |why: &str| damaged("gzip file", why);
    let flags = u8_at(data, 3).ok_or_else(|| bad("its header is cut off"))?;
    // RFC 1952, section 2.3: extra field, name, comment, header check.
    let mut at = 10usize;
    if flags & 4 != 0 {
        let len = u16_at(data, at).ok_or_else(|| bad("its header is cut off"))?;
        at = at.saturating_add(2).saturating_add(len.into());
    }
    for _ in 0..(flags >> 3 & 1).wrapping_add(flags >> 4 & 1) {
        let rest = data.get(at..).unwrap_or_default();
        let len = rest.iter().position(|byte| *byte == 0);
        at = at
            .saturating_add(len.ok_or_else(|| bad("its header is cut off"))?)
            .saturating_add(1);
    }
    if flags & 2 != 0 {
        at = at.saturating_add(2);
    }
    let body = data.get(at..).unwrap_or_default();
    let mut kernel = Vec::new();
    let most = (MOST as u64).saturating_add(1);
    let unpacked = DeflateDecoder::new(body)
        .take(most)
        .read_to_end(&mut kernel);
    match unpacked {
        Err(error) => Err(bad(&format!("{error}; is it complete?"))),
        Ok(_) if kernel.len() > MOST => Err(bad("it is too large unpacked")),
        Ok(_) => Ok(kernel),
    }
}

/// A kernel as firmware takes it: unpacked if it is packed by gzip.
pub fn unpack_arm64(file: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    Ok(match has(file, 0, &GZIP) {
        true => Cow::Owned(gunzip(file)?),
        false => Cow::Borrowed(file),
    })
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Gzip,
    Zboot,
    UImage,
    Elf,
    /// Linux's `Image`, or code without any header.
    Image,
}

impl Format {
    fn of(head: &[u8]) -> Self {
        match () {
            () if has(head, 0, &GZIP) => Format::Gzip,
            () if has(head, 0, b"MZ") && has(head, 4, b"zimg") => Format::Zboot,
            () if has(head, 0, &UIMAGE) => Format::UImage,
            () if has(head, 0, b"\x7fELF") => Format::Elf,
            () => Format::Image,
        }
    }
}

/// Lays out a kernel of any of the formats.
pub fn load_arm64(file: &[u8], ram: ArmRam) -> Result<ArmKernel<'_>, LoadError> {
    match Format::of(file) {
        Format::Gzip => image(Cow::Owned(gunzip(file)?), ram),
        Format::Zboot => zboot(file, ram),
        Format::UImage => uimage(file, ram),
        Format::Elf => elf_kernel(file, ram),
        Format::Image => image(Cow::Borrowed(file), ram),
    }
}

/// A self-decompressing EFI image: what it holds is started, as its own code needs firmware.
fn zboot(file: &[u8], ram: ArmRam) -> Result<ArmKernel<'_>, LoadError> {
    const WHAT: &str = "EFI zboot image";
    let part = |at| u32_at(file, at).and_then(|v| usize::try_from(v).ok());
    let payload = part(8).zip(part(12)).and_then(|(offset, len)| {
        let end = offset.checked_add(len)?;
        file.get(offset..end)
    });
    let payload = payload.ok_or_else(|| damaged(WHAT, "its payload lies outside the file"))?;
    match has(file, 24, b"gzip") {
        true => image(Cow::Owned(gunzip(payload)?), ram),
        false => {
            let name = file.get(24..32).unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            Err(LoadError::NotArm64 {
                what: format!(
                    "an EFI zboot image packed by '{}'",
                    name.trim_end_matches('\0').escape_default()
                ),
                advice: "only gzip is unpacked here; unpack it first, or start it by UEFI firmware"
                    .into(),
            })
        }
    }
}

fn uimage(file: &[u8], ram: ArmRam) -> Result<ArmKernel<'_>, LoadError> {
    const WHAT: &str = "uImage";
    let word = |at| u32_at(file, at).map(|v| u64::from(v.swap_bytes()));
    let header = word(12).zip(word(16)).zip(word(20));
    let ((size, load), entry) = header.ok_or_else(|| damaged(WHAT, "its header is cut off"))?;
    if u8_at(file, 29) != Some(UIMAGE_ARM64) {
        return Err(LoadError::NotArm64 {
            what: "a uImage for another processor".into(),
            advice: "give a kernel for arm64".into(),
        });
    }
    let end = usize::try_from(size)
        .ok()
        .and_then(|size| size.checked_add(UIMAGE_HEADER));
    let body = end.and_then(|end| file.get(UIMAGE_HEADER..end));
    let body = body.ok_or_else(|| damaged(WHAT, "it is shorter than its header says"))?;
    let body = match u8_at(file, 31) {
        Some(0) => Cow::Borrowed(body),
        Some(1) => Cow::Owned(gunzip(body)?),
        _ => {
            return Err(LoadError::NotArm64 {
                what: "a uImage packed by something else than gzip".into(),
                advice: "unpack it first".into(),
            });
        }
    };
    place(body, load, entry, 0, ram)
}

fn elf_kernel(file: &[u8], ram: ArmRam) -> Result<ArmKernel<'_>, LoadError> {
    if u16_at(file, 18) != Some(EM_AARCH64) {
        return Err(LoadError::NotArm64 {
            what: "an ELF file for another processor".into(),
            advice: "start it as a guest of its own kind".into(),
        });
    }
    let parsed = elf::parse(file)?;
    let mut kernel = ArmKernel {
        chunks: Vec::new(),
        entry: parsed.physical_entry(),
        end: ram.base,
        takes_tree: false,
    };
    for segment in &parsed.segments {
        let zeros = segment.memsz.saturating_sub(segment.bytes.len() as u64);
        let bytes = Cow::Borrowed(segment.bytes);
        let placed = place(bytes, segment.paddr, 0, zeros, ram)?;
        // Linux clears its own memory; what is linked to begin with zeros expects them.
        let cleared = placed.chunks.into_iter().map(|c| Chunk { zeros, ..c });
        kernel.chunks.extend(cleared);
        kernel.end = kernel.end.max(placed.end);
    }
    Ok(kernel)
}

/// Where an unpacked Linux `Image` goes, as a whole: its header says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmImage {
    /// Of its first byte, which is its first instruction.
    pub address: u64,
    /// First address after it, what it clears included.
    pub end: u64,
}

impl ArmImage {
    /// Bytes of the header.
    pub const HEADER: usize = 64;

    /// The image of `len` bytes that begins with `head`; `None` if the file is something else.
    pub fn of(head: &[u8], len: u64, ram: ArmRam) -> Result<Option<Self>, LoadError> {
        if Format::of(head) != Format::Image || !has(head, 56, b"ARM\x64") {
            return Ok(None);
        }
        Self::at(u64_at(head, 8), u64_at(head, 16), len, ram).map(Some)
    }

    /// By the offset and the size that a header says, if there is one.
    fn at(
        offset: Option<u64>,
        size: Option<u64>,
        len: u64,
        ram: ArmRam,
    ) -> Result<Self, LoadError> {
        let (offset, size) = match (offset, size) {
            (Some(_), Some(0)) | (None, _) => (OLD_OFFSET, 0),
            (Some(offset), size) => (offset, size.unwrap_or(0)),
        };
        let at = ram.base.checked_next_multiple_of(ALIGN);
        // The first 2 MiB stay free when the kernel leaves it open, as QEMU does.
        let at = at
            .and_then(|at| at.checked_add(offset))
            .and_then(|at| at.checked_add(if offset < 0x1000 { ALIGN } else { 0 }));
        let address = at.ok_or_else(|| damaged("kernel", "its header's offset is too large"))?;
        let end = end_of(address, len.max(size), ram)?;
        Ok(ArmImage { address, end })
    }
}

/// An unpacked kernel: Linux's header says where it goes; anything else is code from its first byte.
fn image(bytes: Cow<'_, [u8]>, ram: ArmRam) -> Result<ArmKernel<'_>, LoadError> {
    if bytes.is_empty() {
        return Err(damaged("kernel", "it is empty"));
    }
    let len = bytes.len() as u64;
    let placed = match ArmImage::of(&bytes, len, ram)? {
        Some(placed) => placed,
        None => match foreign(&bytes) {
            None => ArmImage::at(None, None, len, ram)?,
            Some(what) => {
                return Err(LoadError::NotArm64 {
                    what: what.into(),
                    advice: "-kernel takes an arm64 Image, Image.gz, uImage or ELF file".into(),
                });
            }
        },
    };
    Ok(whole(bytes, placed.address, placed.address, placed.end))
}

fn foreign(bytes: &[u8]) -> Option<&'static str> {
    Some(match () {
        () if has(bytes, 0x202, b"HdrS") => "an x86 bzImage",
        () if has(bytes, 0, b"QFI\xfb") => "a qcow2 disk image",
        () if has(bytes, 0, b"070701") => "an initrd",
        () if has(bytes, 0, b"\xfd7zXZ") => "an xz file",
        () if has(bytes, 0, &[0x28, 0xb5, 0x2f, 0xfd]) => "a zstd file",
        () if has(bytes, 0, b"#!") => "a script",
        () => return None,
    })
}

/// The address after so many bytes, which RAM must have.
fn end_of(address: u64, len: u64, ram: ArmRam) -> Result<u64, LoadError> {
    let last = ram.base.saturating_add(ram.len);
    let end = address.checked_add(len).filter(|end| *end <= last);
    end.filter(|_| address >= ram.base)
        .ok_or_else(|| LoadError::NoRoom {
            what: "the kernel",
            len,
            hint: format!(" at {address:#x}"),
        })
}

fn place(
    bytes: Cow<'_, [u8]>,
    address: u64,
    entry: u64,
    zeros: u64,
    ram: ArmRam,
) -> Result<ArmKernel<'_>, LoadError> {
    let len = (bytes.len() as u64).saturating_add(zeros);
    let end = end_of(address, len, ram)?;
    Ok(whole(bytes, address, entry, end))
}

/// A kernel in one piece.
fn whole(bytes: Cow<'_, [u8]>, address: u64, entry: u64, end: u64) -> ArmKernel<'_> {
    ArmKernel {
        chunks: vec![Chunk {
            address,
            bytes,
            zeros: 0,
        }],
        entry,
        end,
        takes_tree: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: ArmRam = ArmRam {
        base: 0x4000_0000,
        len: 64 << 20,
    };

    fn linux(offset: u64, size: u64) -> Vec<u8> {
        let mut file = vec![0u8; 4096];
        file[8..16].copy_from_slice(&offset.to_le_bytes());
        file[16..24].copy_from_slice(&size.to_le_bytes());
        file[56..60].copy_from_slice(b"ARM\x64");
        file
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
        out.extend(b"name\0");
        let mut body = flate2::write::DeflateEncoder::new(out, flate2::Compression::default());
        std::io::Write::write_all(&mut body, data).unwrap();
        body.finish().unwrap()
    }

    #[test]
    fn an_image_goes_where_its_header_says() {
        let file = linux(0, 0x20_0000);
        let kernel = load_arm64(&file, RAM).unwrap();
        assert_eq!((kernel.entry, kernel.end), (0x4020_0000, 0x4040_0000));
        let placed = ArmImage::of(&file[..ArmImage::HEADER], 4096, RAM)
            .unwrap()
            .unwrap();
        assert_eq!((placed.address, placed.end), (0x4020_0000, 0x4040_0000));
        assert!(ArmImage::of(&file, RAM.len, RAM).is_err());
        assert_eq!(ArmImage::of(&[0x14; 64], 4096, RAM), Ok(None));
        let file = linux(0x8_0000, 0x1000);
        assert_eq!(load_arm64(&file, RAM).unwrap().entry, 0x4008_0000);
        let file = linux(0, 0);
        assert_eq!(load_arm64(&file, RAM).unwrap().entry, 0x4008_0000);
        // Not Linux at all.
        let kernel = load_arm64(&[0x14; 32], RAM).unwrap();
        assert_eq!((kernel.entry, kernel.takes_tree), (0x4008_0000, true));
    }

    #[test]
    fn packed_kernels_are_unpacked() {
        let file = linux(0, 0x1000);
        let packed = gzip(&file);
        let kernel = load_arm64(&packed, RAM).unwrap();
        assert_eq!(*kernel.chunks[0].bytes, *file);
        let mut zboot = b"MZ\0\0zimg".to_vec();
        zboot.extend(64u32.to_le_bytes());
        zboot.extend((packed.len() as u32).to_le_bytes());
        zboot.resize(24, 0);
        zboot.extend(b"gzip");
        zboot.resize(64, 0);
        zboot.extend(&packed);
        assert_eq!(*load_arm64(&zboot, RAM).unwrap().chunks[0].bytes, *file);
        zboot[24..28].copy_from_slice(b"zstd");
        let error = load_arm64(&zboot, RAM).unwrap_err().to_string();
        assert!(error.contains("'zstd'"), "{error}");
        assert!(load_arm64(&packed[..packed.len() / 2], RAM).is_err());
    }

    #[test]
    fn a_uimage_has_its_own_addresses() {
        let body = [0x55u8; 100];
        let mut file = UIMAGE.to_vec();
        file.resize(64, 0);
        file[12..16].copy_from_slice(&100u32.to_be_bytes());
        file[16..20].copy_from_slice(&0x4100_0000u32.to_be_bytes());
        file[20..24].copy_from_slice(&0x4100_0040u32.to_be_bytes());
        file[29] = UIMAGE_ARM64;
        file.extend(body);
        let kernel = load_arm64(&file, RAM).unwrap();
        assert_eq!(kernel.entry, 0x4100_0040);
        assert_eq!(kernel.chunks[0].address, 0x4100_0000);
        assert!(load_arm64(&file[..120], RAM).is_err());
        file[29] = 2;
        assert!(load_arm64(&file, RAM).is_err());
    }

    #[test]
    fn what_does_not_fit_or_is_something_else_is_refused() {
        let small = ArmRam {
            len: 1 << 20,
            ..RAM
        };
        let file = linux(0, 0x20_0000);
        assert!(matches!(
            load_arm64(&file, small),
            Err(LoadError::NoRoom { .. })
        ));
        let file = linux(u64::MAX, 0x20_0000);
        assert!(load_arm64(&file, RAM).is_err());
        let error = load_arm64(b"QFI\xfb0000", RAM).unwrap_err().to_string();
        assert!(error.contains("a qcow2 disk image"), "{error}");
    }
}
