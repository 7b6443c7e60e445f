use proptest::prelude::*;

use super::*;

fn machine<'a>(ram: &'a [(u64, u64)]) -> Machine<'a> {
    Machine {
        manufacturer: "Mimic",
        product: "Standard PC",
        version: "pc-q35-10.0",
        uuid: Some([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        sockets: 2,
        cores: 4,
        threads: 2,
        processor_id: 0x0780_fbff_0000_06fb,
        ram,
    }
}

const RAM: &[(u64, u64)] = &[(0, 3 << 30), (4 << 30, 17 << 30)];

/// Type, formatted part and strings of every structure.
fn walk(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(bytes[1]);
        let (formatted, rest) = bytes.split_at(len);
        let end = rest.windows(2).position(|w| w == [0, 0]).unwrap();
        let strings = rest[..end]
            .split(|b| *b == 0)
            .filter(|s| !s.is_empty())
            .map(|s| String::from_utf8_lossy(s).into_owned())
            .collect();
        out.push((bytes[0], formatted.to_vec(), strings));
        bytes = &rest[end + 2..];
    }
    out
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b))
}

#[test]
fn a_machine_describes_itself() {
    let tables = build(&machine(RAM), &Smbios::default(), EntryPoint::V2);
    let all = walk(tables.structures());
    let kinds: Vec<_> = all.iter().map(|s| s.0).collect();
    assert_eq!(kinds, [1, 3, 4, 4, 16, 17, 17, 19, 19, 32, 127]);
    let lengths: Vec<_> = all.iter().map(|s| s.1.len()).collect();
    assert_eq!(
        lengths,
        [0x1b, 0x16, 0x30, 0x30, 0x17, 0x28, 0x28, 0x1f, 0x1f, 0xb, 4]
    );
    assert_eq!(all[0].2, ["Mimic", "Standard PC", "pc-q35-10.0"]);
    assert_eq!(all[0].1[8..16], [4, 3, 2, 1, 6, 5, 8, 7]);
    assert_eq!(all[3].2[0], "CPU 1");
    // 16 GiB and 4 GiB.
    assert_eq!(
        (&all[5].1[12..14], &all[6].1[12..14]),
        (&[0, 0x40][..], &[0, 0x10][..])
    );
}

#[test]
fn options_replace_what_the_machine_says() {
    let mut o = Smbios::default();
    o.add(
        0,
        [
            ("vendor", "V"),
            ("date", "01/02/2020"),
            ("release", "1.2"),
            ("uefi", "on"),
        ],
    )
    .unwrap();
    o.add(
        1,
        [
            ("serial", "abc"),
            ("uuid", "00112233-4455-6677-8899-aabbccddeeff"),
        ],
    )
    .unwrap();
    o.add(1, [("product", "P")]).unwrap();
    o.add(2, []).unwrap();
    o.add(11, [("value", "one"), ("value", "two")]).unwrap();
    o.add(17, [("manufacturer", "M"), ("speed", "3200")])
        .unwrap();
    o.add_file(&[200, 5, 0, 9, 1, b'x']).unwrap();
    let tables = build(&machine(RAM), &o, EntryPoint::V2);
    let all = walk(tables.structures());
    let kinds: Vec<_> = all.iter().map(|s| s.0).collect();
    assert_eq!(
        kinds,
        [0, 1, 2, 3, 4, 4, 11, 16, 17, 17, 19, 19, 32, 200, 127]
    );
    assert_eq!(all[0].1[0x12..0x18], [0, 0x1c, 1, 2, 0xff, 0xff]);
    assert_eq!(all[1].2, ["Mimic", "P", "pc-q35-10.0", "abc"]);
    assert_eq!(all[1].1[8..12], [0x33, 0x22, 0x11, 0x00]);
    assert_eq!(
        (all[6].1[4], &all[6].2[..]),
        (2, &["one".to_string(), "two".into()][..])
    );
    assert_eq!(all[13].2, ["x"]);
}

#[test]
fn a_misspelt_field_or_value_names_what_is_right() {
    let mut o = Smbios::default();
    let error = |e: Result<(), SmbiosError>| e.unwrap_err().to_string();
    assert_eq!(
        error(o.add(1, [("seriel", "1")])),
        "-smbios type=1 has no field 'seriel'; did you mean 'serial'?"
    );
    assert_eq!(
        error(o.add(1, [("uuid", "12")])),
        "-smbios type=1,uuid=12: not a UUID"
    );
    assert!(error(o.add(9, [])).contains("file="));
    assert!(o.add_file(&[1, 9]).is_err());
    assert!(o.add_file(&[127, 4, 0, 0]).is_err());
}

#[test]
fn entry_points_add_up_and_point_to_the_structures() {
    for entry in [EntryPoint::V2, EntryPoint::V3] {
        let tables = build(&machine(RAM), &Smbios::default(), entry);
        let placed = tables.place(0xf_5000);
        assert_eq!(&placed[32..], tables.structures());
        let anchor = tables.anchor(0xf_5020);
        assert_eq!((&placed[..anchor.len()], sum(&anchor)), (&anchor[..], 0));
        if entry == EntryPoint::V2 {
            assert_eq!(sum(&anchor[16..]), 0);
            assert_eq!(u16::from_le_bytes([anchor[28], anchor[29]]), 11);
        }
    }
}

/// `dmidecode` reads the tables from a dump as it reads them from memory.
#[test]
fn dmidecode_reads_them() {
    let tables = build(&machine(RAM), &Smbios::default(), EntryPoint::V3);
    let mut dump = tables.anchor(32);
    dump.resize(32, 0);
    dump.extend_from_slice(tables.structures());
    let file = std::env::temp_dir().join(format!("mimic-smbios-{}", std::process::id()));
    std::fs::write(&file, dump).unwrap();
    let run = std::process::Command::new("dmidecode")
        .arg("--from-dump")
        .arg(&file)
        .output();
    std::fs::remove_file(&file).unwrap();
    let Ok(run) = run else {
        eprintln!("SKIPPED: dmidecode is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    for line in [
        "Product Name: Standard PC",
        "Core Count: 4",
        "Thread Count: 8",
        "Size: 16 GB",
        "End Of Table",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    for bad in ["BROKEN", "TRUNCATED", "Wrong", "OUT OF SPEC"] {
        assert!(!text.contains(bad), "{bad}: {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_options_make_tables_or_errors(
        fields in proptest::collection::vec((0u8..20, 0usize..10, ".{0,12}"), 0..12),
        file in proptest::collection::vec(any::<u8>(), 0..40),
        ram in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..4),
    ) {
        let mut o = Smbios::default();
        for (kind, n, value) in &fields {
            let names = FIELDS.iter().find(|f| f.0 == *kind).map_or(&["x"][..], |f| f.1);
            let _ = o.add(*kind, [(names[n % names.len()], value.as_str())]);
        }
        let _ = o.add_file(&file);
        let tables = build(&machine(&ram), &o, EntryPoint::V2);
        prop_assert_eq!(sum(&tables.anchor(0)), 0);
        prop_assert!(tables.structures().len() < 100_000);
    }
}
