use proptest::prelude::*;

use super::*;
use crate::bytes::{put, u16_at, u32_at, u64_at};

const MAP: &[E820] = &[
    E820 {
        base: 0,
        len: 0x9_fc00,
        kind: E820Kind::Ram,
    },
    E820 {
        base: 0xf_0000,
        len: 0x1_0000,
        kind: E820Kind::Reserved,
    },
    E820 {
        base: 0x10_0000,
        len: 0x7f0_0000,
        kind: E820Kind::Ram,
    },
    E820 {
        base: 1 << 32,
        len: 1 << 30,
        kind: E820Kind::Ram,
    },
];

fn boot<'a>(cmdline: &'a str, modules: &'a [Module<'a>]) -> Boot<'a> {
    Boot {
        name: "kernel",
        cmdline,
        modules,
        e820: MAP,
        rsdp: Some(0xe_0000),
        places: Places::default(),
    }
}

fn at<'a, 'b>(loaded: &'b Loaded<'a>, address: u64) -> &'b Chunk<'a> {
    loaded.chunks.iter().find(|c| c.address == address).unwrap()
}

/// A bzImage of protocol 2.15 with one set-up sector and a page of kernel.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 0x400 + 0x1000];
    put(&mut file, 0x1f1, &[1]);
    put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x20fu16.to_le_bytes());
    put(&mut file, 0x211, &[1]);
    put(&mut file, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut file, 0x234, &[1]);
    put(&mut file, 0x236, &0x3fu16.to_le_bytes());
    put(&mut file, 0x238, &2047u32.to_le_bytes());
    put(&mut file, 0x258, &0x100_0000u64.to_le_bytes());
    put(&mut file, 0x260, &0x20_0000u32.to_le_bytes());
    file
}

/// An ELF64 with one segment at `paddr`, its bytes after the headers, and an optional PVH note.
fn elf64(paddr: u64, code: &[u8], memsz: u64, pvh: Option<u32>) -> Vec<u8> {
    let mut f = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    f.extend(2u16.to_le_bytes());
    f.extend(62u16.to_le_bytes());
    f.extend(1u32.to_le_bytes());
    f.extend((0xffff_ffff_8000_0000 + 4u64).to_le_bytes());
    f.extend(64u64.to_le_bytes());
    f.extend(0u64.to_le_bytes());
    f.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        f.extend(half.to_le_bytes());
    }
    let body = 64 + 2 * 56 + 20;
    let mut program = |ty: u32, flags: u32, words: [u64; 6]| {
        f.extend(ty.to_le_bytes());
        f.extend(flags.to_le_bytes());
        words.iter().for_each(|w| f.extend(w.to_le_bytes()));
    };
    let len = code.len() as u64;
    program(1, 5, [body, 0xffff_ffff_8000_0000, paddr, len, memsz, 16]);
    let note_len = if pvh.is_some() { 20 } else { 0 };
    program(4, 4, [64 + 2 * 56, 0, 0, note_len, note_len, 4]);
    f.extend(4u32.to_le_bytes());
    f.extend(4u32.to_le_bytes());
    f.extend(18u32.to_le_bytes());
    f.extend(b"Xen\0");
    f.extend(pvh.unwrap_or(0).to_le_bytes());
    f.extend(code);
    f
}

#[test]
fn a_bzimage_starts_in_long_mode_at_its_preferred_address() {
    let file = bzimage();
    let initrd = [7u8; 100];
    let modules = [Module {
        bytes: &initrd,
        cmdline: "",
    }];
    let loaded = load(&file, &boot("console=ttyS0", &modules)).unwrap();
    assert_eq!(loaded.protocol, Protocol::Linux64);
    let cpu = loaded.cpu;
    assert_eq!((cpu.rip, cpu.rsi), (0x100_0200, 0x4000));
    assert_eq!((cpu.cr0, cpu.cr4, cpu.efer), (0x8000_0011, 0x20, 0x500));
    assert_eq!((cpu.cs.selector, cpu.data.selector), (0x10, 0x18));
    assert_eq!(at(&loaded, 0x100_0000).bytes.len(), 0x1000);

    let page = &at(&loaded, 0x4000).bytes;
    assert_eq!(page.len(), 0x1000);
    let cmdline = u64::from(u32_at(page, 0x228).unwrap());
    assert_eq!(&*at(&loaded, cmdline).bytes, b"console=ttyS0\0");
    // Highest page below the end of RAM and below initrd_addr_max.
    assert_eq!(u32_at(page, 0x218), Some(0x7ff_f000));
    assert_eq!(u32_at(page, 0x21c), Some(100));
    assert_eq!(*at(&loaded, 0x7ff_f000).bytes, initrd);
    assert_eq!(u64_at(page, 0x70), Some(0xe_0000));
    assert_eq!(page[0x1e8], 4);
    assert_eq!(u32_at(page, 0x2d0 + 16), Some(1));
    assert_eq!(u16_at(page, 0x206), Some(0x20f));
    assert_eq!(u32_at(page, 0x1e0), Some(0x7f0_0000 >> 10));

    let gdt = &at(&loaded, cpu.gdt.base).bytes;
    assert_eq!(cpu.gdt.limit, 0x1f);
    assert_eq!(u64_at(gdt, 0x10), Some(0x00af_9b00_0000_ffff));
    assert_eq!(u64_at(gdt, 0x18), Some(0x00cf_9300_0000_ffff));
}

#[test]
fn the_page_tables_map_the_first_four_gigabytes_to_themselves() {
    let tables = cpu::identity_tables(0x9000);
    let entry =
        |table: u64, index: u64| u64_at(&tables, (table - 0x9000 + index * 8) as usize).unwrap();
    for address in [0u64, 0x4000, 0x3fff_ffff, 0x8000_0000, 0xffff_ffff] {
        let pdpt = entry(0x9000, address >> 39) & !0xfff;
        let pd = entry(pdpt, address >> 30 & 511) & !0xfff;
        let leaf = entry(pd, address >> 21 & 511);
        assert_eq!(leaf & 0xfff, 0x83);
        assert_eq!(leaf & !0xfff, address & !0x1f_ffff);
    }
}

#[test]
fn a_32_bit_bzimage_starts_in_protected_mode() {
    let mut file = bzimage();
    put(&mut file, 0x236, &0u16.to_le_bytes());
    let loaded = load(&file, &boot("", &[])).unwrap();
    assert_eq!(loaded.protocol, Protocol::Linux32);
    assert_eq!((loaded.cpu.rip, loaded.cpu.cr0), (0x100_0000, 0x11));
}

#[test]
fn a_command_line_longer_than_the_kernel_takes_is_refused() {
    let file = bzimage();
    let long = "x".repeat(2048);
    let error = load(&file, &boot(&long, &[])).unwrap_err();
    assert_eq!(
        error,
        LoadError::LongCommandLine {
            len: 2048,
            max: 2047
        }
    );
}

#[test]
fn an_initrd_that_does_not_fit_names_its_size() {
    let file = bzimage();
    let big = vec![0; 0x800_0000];
    let modules = [Module {
        bytes: &big,
        cmdline: "",
    }];
    let error = load(&file, &boot("", &modules)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the initrd (134217728 bytes) does not fit into guest memory; give the guest more with -m"
    );
    assert_eq!(
        load(&file, &boot("", &[modules[0]; 2])),
        Err(LoadError::OneInitrd)
    );
}

#[test]
fn a_pvh_kernel_starts_at_its_note_with_its_start_info() {
    let file = elf64(0x100_0000, b"\x90\x90\x90\x90\xf4", 0x100, Some(0x100_0001));
    let initrd = [1u8; 5000];
    let modules = [Module {
        bytes: &initrd,
        cmdline: "",
    }];
    let loaded = load(&file, &boot("quiet", &modules)).unwrap();
    assert_eq!(loaded.protocol, Protocol::Pvh);
    assert_eq!(loaded.cpu.rip, 0x100_0001);
    let kernel = at(&loaded, 0x100_0000);
    assert_eq!((kernel.bytes.len(), kernel.zeros), (5, 0xfb));
    let info = &at(&loaded, loaded.cpu.rbx).bytes;
    assert_eq!(u32_at(info, 0), Some(0x336e_c578));
    assert_eq!((u32_at(info, 4), u32_at(info, 12)), (Some(1), Some(1)));
    let cmdline = u64_at(info, 24).unwrap();
    assert_eq!(&*at(&loaded, cmdline).bytes, b"quiet\0");
    assert_eq!(u64_at(info, 32), Some(0xe_0000));
    let module = u64_at(info, 16).unwrap() - loaded.cpu.rbx;
    assert_eq!(u64_at(info, module as usize), Some(0x7ff_e000));
    let map = u64_at(info, 40).unwrap() - loaded.cpu.rbx;
    assert_eq!(u32_at(info, 48), Some(4));
    assert_eq!(u64_at(info, map as usize + 24), Some(0xf_0000));
    assert_eq!(u32_at(info, map as usize + 24 + 16), Some(2));
}

#[test]
fn a_multiboot_elf_wins_over_its_note_and_its_entry_is_made_physical() {
    let mut code = vec![0x90; 32];
    put(&mut code, 8, &0x1bad_b002u32.to_le_bytes());
    put(&mut code, 12, &3u32.to_le_bytes());
    put(&mut code, 16, &0u32.wrapping_sub(0x1bad_b005).to_le_bytes());
    let file = elf64(0x40_0000, &code, 32, Some(1));
    let modules = [
        Module {
            bytes: b"one",
            cmdline: "a x=1",
        },
        Module {
            bytes: b"two",
            cmdline: "b",
        },
    ];
    let loaded = load(&file, &boot("arg", &modules)).unwrap();
    assert_eq!(loaded.protocol, Protocol::Multiboot);
    assert_eq!((loaded.cpu.rip, loaded.cpu.rax), (0x40_0004, 0x2bad_b002));
    let base = loaded.cpu.rbx;
    let info = &at(&loaded, base).bytes;
    let string = |address: u32| {
        let tail = &info[(u64::from(address) - base) as usize..];
        String::from_utf8(tail.iter().copied().take_while(|b| *b != 0).collect()).unwrap()
    };
    assert_eq!(u32_at(info, 0), Some(0x24d));
    assert_eq!(
        (u32_at(info, 4), u32_at(info, 8)),
        (Some(639), Some(0x7f0_0000 >> 10))
    );
    let cmdline = u64::from(u32_at(info, 16).unwrap());
    assert_eq!(&*at(&loaded, cmdline).bytes, b"kernel arg\0");
    assert_eq!(u32_at(info, 20), Some(2));
    let list = (u64::from(u32_at(info, 24).unwrap()) - base) as usize;
    assert_eq!(u32_at(info, list), Some(0x40_1000));
    assert_eq!(u32_at(info, list + 4), Some(0x40_1003));
    assert_eq!(string(u32_at(info, list + 8).unwrap()), "a x=1");
    assert_eq!(u32_at(info, list + 16), Some(0x40_2000));
    assert_eq!(u32_at(info, 44), Some(24 * 4));
    assert_eq!(string(u32_at(info, 64).unwrap()), "mimic");
}

#[test]
fn a_flat_multiboot_kernel_is_placed_by_its_address_fields() {
    let mut file = vec![0x90; 0x100];
    let fields = [
        0x1bad_b002,
        0x1_0000,
        0u32.wrapping_sub(0x1bad_b002 + 0x1_0000),
        0x10_0010, // header_addr: 0x10 bytes in
        0x10_0000,
        0x10_0080,
        0x10_0200,
        0x10_0040,
    ];
    for (n, word) in fields.iter().enumerate() {
        put(&mut file, 0x10 + n * 4, &word.to_le_bytes());
    }
    let loaded = load(&file, &boot("", &[])).unwrap();
    assert_eq!(loaded.cpu.rip, 0x10_0040);
    let kernel = at(&loaded, 0x10_0000);
    assert_eq!((kernel.bytes.len(), kernel.zeros), (0x80, 0x180));
}

#[test]
fn a_kernel_outside_ram_or_over_the_loaders_tables_is_refused() {
    let file = elf64(0x8_0000_0000, b"\xf4", 1, Some(0x1000));
    let error = load(&file, &boot("", &[])).unwrap_err();
    assert!(error.to_string().contains("at 0x800000000"), "{error}");
    let file = elf64(0x4000, b"\xf4", 1, Some(0x4000));
    let error = load(&file, &boot("", &[])).unwrap_err();
    assert!(
        error.to_string().contains("where the kernel wants"),
        "{error}"
    );
}

#[test]
fn other_files_are_named_and_the_right_option_is_given() {
    let mut image = vec![0; 64];
    put(&mut image, 0x38, b"ARM\x64");
    let mut sector = vec![0; 512];
    put(&mut sector, 510, &[0x55, 0xaa]);
    let arm_elf = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 9], &[2, 0, 183, 0]].concat();
    let s390_elf = [b"\x7fELF\x02\x02\x01".as_slice(), &[0; 9], &[0, 2, 0, 22]].concat();
    let plain = elf64(0x100_0000, b"\xf4", 1, None);
    let cases: &[(&[u8], &str, &str)] = &[
        (b"", "an empty file", "bzImage"),
        (&image, "64-bit Arm", "qemu-system-aarch64"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0", "gzip", "unpack"),
        (b"QFI\xfb\0\0\0\x03", "qcow2", "-drive"),
        (b"#!/bin/sh\nexit\n", "a script", "-kernel takes"),
        (b"\x27\x05\x19\x56\0\0\0\0", "uImage", "dumpimage"),
        (b"MZ\x90\0aaaaaaaaa", "DOS program", "bzImage"),
        (b"07070100000000", "initrd", "-initrd"),
        (b"hello, this is a text\n", "a text file", "bzImage"),
        (&sector, "boot sector", "-drive"),
        (&arm_elf, "64-bit Arm", "aarch64"),
        (&s390_elf, "S/390", "s390x"),
        (&plain, "neither a PVH note", "CONFIG_PVH"),
    ];
    for (file, what, advice) in cases {
        let error = load(file, &boot("", &[])).unwrap_err().to_string();
        assert!(
            error.contains(what) && error.contains(advice),
            "{what}: {error}"
        );
    }
}

#[test]
fn a_cut_off_bzimage_is_damaged() {
    let file = bzimage();
    assert!(matches!(
        load(&file[..0x400], &boot("", &[])),
        Err(LoadError::Damaged { .. })
    ));
    let mut old = bzimage();
    put(&mut old, 0x206, &0x201u16.to_le_bytes());
    let error = load(&old, &boot("", &[])).unwrap_err();
    assert!(error.to_string().contains("protocol 2.01"));
}

#[test]
fn firmware_is_found_by_name_and_its_package_is_named() {
    let dir = std::env::temp_dir().join(format!("mimic-firmware-{}", std::process::id()));
    let share = dir.join("share/mimic");
    std::fs::create_dir_all(&share).unwrap();
    std::fs::write(share.join("x.bin"), b"x").unwrap();
    let found = find_firmware("x.bin", std::slice::from_ref(&share), None);
    assert_eq!(found, Ok(share.join("x.bin")));
    let exe = dir.join("bin/mimic");
    assert_eq!(
        find_firmware("x.bin", &[], Some(&exe)),
        Ok(share.join("x.bin"))
    );
    let error = find_firmware("bios-none.bin", &[], None).unwrap_err();
    assert!(error.to_string().contains("apt install seabios"), "{error}");
    let error = find_firmware("/nowhere/x.bin", &[], None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "firmware file '/nowhere/x.bin' does not exist"
    );
    let error = find_firmware("/nowhere/OVMF_CODE.fd", &[], None).unwrap_err();
    assert!(error.to_string().contains("apt install ovmf"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_bios_starts_a_bzimage_from_its_items() {
    let file = bzimage();
    let modules = [Module {
        bytes: &[7; 100],
        cmdline: "",
    }];
    let image = BzImage::parse(&file).unwrap();
    let items = image
        .firmware_items(&boot("root=x vga=0x317", &modules))
        .unwrap();
    let item = |key| &items.iter().find(|i| i.0 == key).unwrap().1;
    let word = |key| u32_at(item(key), 0).unwrap();
    assert_eq!((word(0x07), word(0x08)), (0x10_0000, 0x1000));
    // Below what the BIOS keeps at the top of RAM.
    assert_eq!((word(0x0a), word(0x0b)), (0x7fb_f000, 100));
    assert_eq!(&**item(0x15), b"root=x vga=0x317\0");
    assert_eq!((word(0x16), word(0x17)), (0x1_0000, 0x400));
    let setup = item(0x18);
    assert_eq!(u16_at(setup, 0x1fa), Some(0x317));
    assert_eq!(setup[0x210..0x212], [0xb0, 0x81]);
    assert_eq!(u32_at(setup, 0x218), Some(0x7fb_f000));
    assert_eq!(u32_at(setup, 0x228), Some(0x2_0000));
}

#[test]
fn the_option_rom_has_its_marks_and_sums() {
    let rom = linux_option_rom();
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    assert_eq!(
        (rom.len(), &rom[..3], sum(&rom)),
        (512, &[0x55, 0xaa, 1][..], 0)
    );
    let header = usize::from(rom[0x1a]);
    assert_eq!(&rom[header..header + 4], b"$PnP");
    assert_eq!(sum(&rom[header..header + 32]), 0);
    let entry = usize::from(rom[header + 26]);
    assert_eq!(rom[entry], 0xfa);
    let name = usize::from(rom[header + 16]);
    assert_eq!(&rom[name..name + 6], b"Linux\0");
}

/// Every chunk a loader answers lies in RAM.
fn sound(file: &[u8]) {
    let modules = [Module {
        bytes: b"initrd",
        cmdline: "m",
    }];
    if let Ok(loaded) = load(file, &boot("a b", &modules)) {
        for c in &loaded.chunks {
            let len = c.bytes.len() as u64 + c.zeros;
            assert!(place::is_ram(MAP, c.address, len), "{:#x}", c.address);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_files_end_in_an_error_or_in_chunks_within_ram(
        file in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        sound(&file);
    }

    #[test]
    fn mutated_kernels_end_in_an_error_or_in_chunks_within_ram(
        which in 0usize..3,
        changes in proptest::collection::vec((0usize..0x400, any::<u8>()), 1..12),
        cut in 0usize..6000,
    ) {
        let mut code = vec![0x90; 64];
        put(&mut code, 8, &0x1bad_b002u32.to_le_bytes());
        put(&mut code, 16, &0u32.wrapping_sub(0x1bad_b002).to_le_bytes());
        let mut file = match which {
            0 => bzimage(),
            1 => elf64(0x10_0000, b"\xf4", 100, Some(0x10_0000)),
            _ => elf64(0x10_0000, &code, 100, None),
        };
        for (at, byte) in changes {
            put(&mut file, at, &[byte]);
        }
        file.truncate(cut);
        sound(&file);
    }
}
