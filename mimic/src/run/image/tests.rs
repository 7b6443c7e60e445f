use super::*;

/// Where the EFI system partition begins.
const START: u64 = 64;

fn put(disk: &mut [u8], at: u64, bytes: &[u8]) {
    let at = at as usize;
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u16) -> [u8; 32] {
    let mut out = [0; 32];
    out[..11].copy_from_slice(name);
    out[11] = attributes;
    out[26..28].copy_from_slice(&cluster.to_le_bytes());
    out
}

/// A FAT12 file system, a sector to a cluster, with one file in `\EFI\BOOT`; the folder `EFI` takes two
/// clusters that are apart.
fn put_fat(disk: &mut [u8], at: u64, loader: &[u8; 11]) {
    put(disk, at + 11, &512_u16.to_le_bytes());
    put(disk, at + 13, &[1, 1, 0, 1, 16, 0, 64, 0, 0xf8, 1, 0]);
    // Clusters 0 to 5: two reserved ones, EFI is 2 and 4, BOOT is 3, the file 5.
    put(
        disk,
        at + 512,
        &[0xf8, 0xff, 0xff, 4, 0xf0, 0xff, 0xff, 0xff, 0xff],
    );
    let cluster = |n: u64| at + (3 + n - 2) * 512;
    let mut long = entry(b"E\0F\0I\0 \0 \0 ", 0x0f, 0);
    long[11] = 0x0f;
    put(disk, at + 1024, &long);
    put(disk, at + 1024 + 32, &entry(b"EFI        ", 0x10, 2));
    for n in 0..16 {
        put(
            disk,
            cluster(2) + 32 * n,
            &entry(b"\xe5OMETHING  ", 0x20, 0),
        );
    }
    put(disk, cluster(4), &entry(b"BOOT       ", 0x10, 3));
    put(disk, cluster(3), &entry(loader, 0x20, 5));
}

fn disk() -> Vec<u8> {
    let mut disk = vec![0; 256 << 10];
    put(&mut disk, 510, &[0x55, 0xaa]);
    disk
}

/// An MBR's entry: flag, type, first sector.
fn put_partition(disk: &mut [u8], n: u64, flag: u8, kind: u8, start: u32) {
    put(disk, 446 + 16 * n, &[flag, 0, 0, 0, kind]);
    put(disk, 446 + 16 * n + 8, &start.to_le_bytes());
}

fn put_gpt(disk: &mut [u8], types: &[[u8; 16]]) {
    put_partition(disk, 0, 0, 0xee, 1);
    put(disk, 512, b"EFI PART");
    put(disk, 512 + 72, &2_u64.to_le_bytes());
    put(disk, 512 + 80, &[4, 0, 0, 0, 128, 0, 0, 0]);
    for (n, kind) in types.iter().enumerate() {
        put(disk, 1024 + 128 * n as u64, kind);
        put(disk, 1024 + 128 * n as u64 + 32, &START.to_le_bytes());
    }
}

fn looked_at(disk: &[u8]) -> Result<Option<Found>> {
    look(&Bytes(&|at, out: &mut [u8]| {
        let rest = usize::try_from(at).ok().and_then(|at| disk.get(at..));
        for (to, from) in out.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
        Ok(())
    }))
}

fn found(disk: &[u8]) -> (&'static str, Arch, Firmware) {
    let Found {
        table,
        arch,
        firmware,
    } = looked_at(disk).unwrap().unwrap();
    (table, arch, firmware)
}

#[test]
fn what_is_no_disk_is_left_alone() {
    assert_eq!(looked_at(&[]).unwrap(), None);
    assert_eq!(looked_at(&vec![0; 1 << 16]).unwrap(), None);
    let mut elf = disk();
    put(&mut elf, 0, b"\x7fELF");
    assert_eq!(looked_at(&elf).unwrap(), None);
}

#[test]
fn a_disk_with_boot_code_and_an_active_partition_is_a_bios_s() {
    let mut disk = disk();
    put(&mut disk, 0, &[0xeb, 0x63]);
    put_partition(&mut disk, 0, 0, 0xef, START as u32);
    put_partition(&mut disk, 1, 0x80, 0x83, 128);
    put_fat(&mut disk, START * 512, b"BOOTX64 EFI");
    assert_eq!(found(&disk), ("MBR", Arch::X86_64, Firmware::Bios));
    // Without the mark, or without code, only UEFI is sure to start it.
    put_partition(&mut disk, 1, 0, 0x83, 128);
    assert_eq!(found(&disk), ("MBR", Arch::X86_64, Firmware::Uefi));
}

#[test]
fn a_gpt_disk_is_started_by_what_it_has_a_loader_for() {
    let mut pc = disk();
    put_gpt(&mut pc, &[[7; 16], ESP]);
    let error = looked_at(&pc).unwrap_err().to_string();
    assert!(error.starts_with("nothing boots from it"), "{error}");
    put_fat(&mut pc, START * 512, b"BOOTX64 EFI");
    assert_eq!(found(&pc), ("GPT", Arch::X86_64, Firmware::Uefi));
    put(&mut pc, 0, &[0xeb, 0x63]);
    assert_eq!(found(&pc), ("GPT", Arch::X86_64, Firmware::Uefi));
    put_gpt(&mut pc, &[BIOS_BOOT, ESP]);
    assert_eq!(found(&pc), ("GPT", Arch::X86_64, Firmware::Bios));
    put_fat(&mut pc, START * 512, b"BOOTAA64EFI");
    assert_eq!(found(&pc), ("GPT", Arch::Aarch64, Firmware::Uefi));
}

#[test]
fn a_cd_says_in_its_catalogue_what_starts_it() {
    let mut cd = vec![0; 128 << 10];
    put(&mut cd, 16 * CD_SECTOR, b"\x01CD001");
    let error = looked_at(&cd).unwrap_err().to_string();
    assert!(error.contains("without a boot record"), "{error}");
    put(
        &mut cd,
        17 * CD_SECTOR,
        b"\0CD001\x01EL TORITO SPECIFICATION",
    );
    put(&mut cd, 17 * CD_SECTOR + 71, &20_u32.to_le_bytes());
    // The entry in front is for platform 0, a PC; then a section for EFI's.
    put(&mut cd, 20 * CD_SECTOR, &[1, 0]);
    put(&mut cd, 20 * CD_SECTOR + 64, &[0x91, 0xef, 1, 0]);
    put(
        &mut cd,
        20 * CD_SECTOR + 96,
        &[0x88, 0, 0, 0, 0, 0, 1, 0, 22],
    );
    put_fat(&mut cd, 22 * CD_SECTOR, b"BOOTAA64EFI");
    assert_eq!(found(&cd), ("CD", Arch::Aarch64, Firmware::Uefi));
    put_fat(&mut cd, 22 * CD_SECTOR, b"BOOTX64 EFI");
    assert_eq!(found(&cd), ("CD", Arch::X86_64, Firmware::Uefi));
    put(&mut cd, 20 * CD_SECTOR + 32, &[0x88]);
    assert_eq!(found(&cd), ("CD", Arch::X86_64, Firmware::Bios));
}

#[test]
fn any_bytes_end_in_an_answer() {
    let mut disk = disk();
    put_gpt(&mut disk, &[ESP, BIOS_BOOT]);
    put_fat(&mut disk, START * 512, b"BOOTX64 EFI");
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let places = [0, 512, 1024, START * 512, START * 512 + 512];
    for _ in 0..2000 {
        let mut disk = disk.clone();
        for _ in 0..4 {
            let at = places[random() as usize % places.len()] + random() % 160;
            disk[at as usize] = random() as u8;
        }
        // No panic, no endless chain; what it is does not matter.
        let _ = looked_at(&disk);
    }
}
