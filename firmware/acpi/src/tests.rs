use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn pc() -> Board {
    let level = |irq: u8| IrqOverride {
        irq,
        gsi: irq.into(),
        level: true,
    };
    Board {
        apic_ids: vec![0, 1],
        lapic: 0xfee0_0000,
        ioapics: vec![IoApic {
            id: 0,
            address: 0xfec0_0000,
            gsi_base: 0,
        }],
        overrides: vec![
            IrqOverride {
                irq: 0,
                gsi: 2,
                level: false,
            },
            level(5),
            level(9),
            level(10),
            level(11),
        ],
        has_8259: true,
        power: Power::Fixed(Fixed {
            pm_base: 0x600,
            gpe: (0xafe0, 4),
            sci: 9,
            smi_command: (0xb2, 0xf1, 0xf0),
            s3: false,
        }),
        hpet: Some(0xfed0_0000),
        pci: Some(PciRoot {
            routing: Routing::Piix,
            last_bus: 0xff,
            io: vec![(0, 0xcf7), (0xd00, 0xffff)],
            memory: vec![(0xa_0000, 0xb_ffff), (0xc000_0000, 0xfebf_ffff)],
            ecam: None,
        }),
        legacy: Legacy {
            rtc: Some(8),
            i8042: true,
            serial: vec![
                Ports {
                    port: 0x3f8,
                    irq: 4,
                },
                Ports {
                    port: 0x2f8,
                    irq: 3,
                },
            ],
            parallel: vec![Ports {
                port: 0x378,
                irq: 7,
            }],
            vga: false,
        },
        fw_cfg: Some(0x510),
        pvpanic: Some(0x505),
        virtio_mmio: Vec::new(),
    }
}

fn q35() -> Board {
    let mut board = pc();
    board.apic_ids = (0..4).chain([300]).collect();
    if let Power::Fixed(fixed) = &mut board.power {
        fixed.gpe = (0x620, 16);
        fixed.smi_command = (0xb2, 2, 3);
        fixed.s3 = true;
    }
    board.pci = Some(PciRoot {
        routing: Routing::Ich9,
        last_bus: 0xff,
        io: vec![(0, 0xcf7), (0xd00, 0xffff)],
        memory: vec![(0xc000_0000, 0xfebf_ffff), (0x80_0000_0000, 0xff_ffff_ffff)],
        ecam: Some(0xb000_0000),
    });
    board
}

fn microvm() -> Board {
    Board {
        power: Power::Reduced(GenericEvents {
            events: 0xfea0_0000,
            gsi: 9,
            power_button: 2,
            sleep: 0xfea0_0200,
            s5: 5,
            reset: (0xfea0_0202, 0x42),
        }),
        has_8259: false,
        overrides: Vec::new(),
        hpet: None,
        pci: None,
        legacy: Legacy {
            serial: vec![Ports {
                port: 0x3f8,
                irq: 4,
            }],
            ..Legacy::default()
        },
        pvpanic: None,
        virtio_mmio: (0..24)
            .map(|n| VirtioMmio {
                base: 0xfeb0_0000 + n * 0x200,
                gsi: 5 + n,
            })
            .collect(),
        ..pc()
    }
}

/// A `virt` with four CPUs in two clusters, of two threads each with version 3.
fn virt(version: u8) -> ArmBoard {
    ArmBoard {
        affinities: vec![0, 1, 0x100, 0x101],
        topology: ArmTopology {
            clusters: 2,
            cores: if version == 3 { 1 } else { 2 },
            threads: if version == 3 { 2 } else { 1 },
        },
        gic: ArmGic {
            version,
            distributor: 0x800_0000,
            cpu_interface: 0x801_0000,
            redistributors: vec![(0x80a_0000, 0xf6_0000)],
            msi: Some(match version {
                2 => ArmMsi::Frame(0x802_0000, 80, 64),
                _ => ArmMsi::Its(0x808_0000),
            }),
            maintenance: (version == 3).then_some(25),
        },
        private: ArmPrivate {
            secure_timer: 29,
            physical_timer: 30,
            virtual_timer: 27,
            hyp_timer: 26,
            hyp_virtual_timer: 28,
            pmu: 23,
        },
        psci_by_hvc: Some(true),
        uart: (0x900_0000, 33),
        flash: vec![(0, 0x400_0000), (0x400_0000, 0x400_0000)],
        fw_cfg: (0x902_0000, 0x18),
        events: (0x908_0000, 41),
        power_button: 2,
        pci: ArmPci {
            ecam: (0x40_1000_0000, 0x1000_0000),
            ports: (0x3eff_0000, 0x1_0000),
            memory: (0x1000_0000, 0x2eff_0000),
            high_memory: Some((0x80_0000_0000, 0x80_0000_0000)),
            gsi: 35,
        },
        virtio_mmio: (0..32)
            .map(|n| VirtioMmio {
                base: 0xa00_0000 + n * 0x200,
                gsi: 48 + n,
            })
            .collect(),
    }
}

const BASE: u32 = 0x7fe_0000;

fn word(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
}

/// All tables that the root pointer leads to, by signature, as a guest finds them.
fn walk(tables: &Tables) -> Vec<(String, Vec<u8>)> {
    let (rsdp, blob) = tables.place(BASE);
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    assert_eq!(
        (&rsdp[..8], sum(&rsdp[..20]), sum(&rsdp)),
        (&b"RSD PTR "[..], 0, 0)
    );
    let table = |address: u32| {
        let at = (address - BASE) as usize;
        let bytes = blob[at..at + word(&blob, at + 4) as usize].to_vec();
        (String::from_utf8(bytes[..4].to_vec()).unwrap(), bytes)
    };
    let (_, rsdt) = table(word(&rsdp, 16));
    let (_, xsdt) = table(word(&rsdp, 24));
    let entries = |root: &[u8], width: usize| -> Vec<u32> {
        root[36..].chunks(width).map(|c| word(c, 0)).collect()
    };
    assert_eq!(entries(&rsdt, 4), entries(&xsdt, 8));
    let mut all: Vec<_> = entries(&rsdt, 4).into_iter().map(table).collect();
    let fadt = all[0].1.clone();
    // Without fixed hardware there is nothing that a FACS would be for.
    if word(&fadt, 36) != 0 {
        assert_eq!(word(&fadt, 40), word(&fadt, 140));
        let (name, facs) = table(word(&fadt, 36));
        assert_eq!(
            (name.as_str(), word(&fadt, 36) % 64, facs.len()),
            ("FACS", 0, 64)
        );
    }
    all.push(table(word(&fadt, 140)));
    all.push(("RSDT".into(), rsdt));
    all.push(("XSDT".into(), xsdt));
    for (name, bytes) in &all {
        assert_eq!(sum(bytes), 0, "{name}");
    }
    all
}

#[test]
fn the_root_pointer_leads_to_every_table() {
    let names = |tables: &Tables| -> Vec<String> {
        let all = walk(tables).into_iter();
        all.map(|t| t.0).collect()
    };
    assert_eq!(
        names(&build(&pc())),
        ["FACP", "APIC", "HPET", "WAET", "DSDT", "RSDT", "XSDT"]
    );
    assert_eq!(
        names(&build(&q35())),
        [
            "FACP", "APIC", "HPET", "MCFG", "WAET", "DSDT", "RSDT", "XSDT"
        ]
    );
    assert_eq!(
        names(&build(&microvm())),
        ["FACP", "APIC", "DSDT", "RSDT", "XSDT"]
    );
    assert_eq!(
        names(&build_arm(&virt(3))),
        [
            "FACP", "APIC", "PPTT", "GTDT", "MCFG", "SPCR", "DBG2", "IORT", "DSDT", "RSDT", "XSDT"
        ]
    );
}

#[test]
fn large_apic_identifiers_get_x2apic_entries() {
    let tables = walk(&build(&q35()));
    let (_, madt) = tables.iter().find(|t| t.0 == "APIC").unwrap();
    let mut at = 44;
    let mut kinds = Vec::new();
    while at < madt.len() {
        kinds.push(madt[at]);
        at += usize::from(madt[at + 1]);
    }
    assert_eq!(kinds, [0, 0, 0, 0, 9, 1, 2, 2, 2, 2, 2, 4, 10]);
    assert_eq!(at, madt.len());
}

/// Carries the script out as firmware does and compares with direct placement.
#[test]
fn firmware_links_the_same_tables_as_we_do() {
    let pcs = [pc(), q35(), microvm()].map(|board| build(&board));
    for tables in pcs.into_iter().chain([build_arm(&virt(2))]) {
        let files = tables.loader();
        assert_eq!(files.script.len() % 128, 0);
        let mut rsdp = files.rsdp.clone();
        let mut blob = files.tables.clone();
        let text = |field: &[u8]| {
            let end = field.iter().position(|b| *b == 0).unwrap();
            String::from_utf8(field[..end].to_vec()).unwrap()
        };
        for command in files.script.chunks(128) {
            let first = text(&command[4..60]);
            let file = if first == RSDP_FILE {
                &mut rsdp
            } else {
                &mut blob
            };
            match word(command, 0) {
                1 => assert!(word(command, 60).is_power_of_two()),
                2 => {
                    assert_eq!(text(&command[60..116]), TABLES_FILE);
                    let (at, size) = (word(command, 116) as usize, command[120] as usize);
                    let mut wide = [0; 8];
                    wide[..size].copy_from_slice(&file[at..at + size]);
                    let new = u64::from_le_bytes(wide) + u64::from(BASE);
                    file[at..at + size].copy_from_slice(&new.to_le_bytes()[..size]);
                }
                3 => {
                    let at = word(command, 60) as usize;
                    let (start, len) = (word(command, 64) as usize, word(command, 68) as usize);
                    assert_eq!(file[at], 0);
                    let sum = file[start..start + len]
                        .iter()
                        .fold(0u8, |s, b| s.wrapping_add(*b));
                    file[at] = sum.wrapping_neg();
                }
                other => panic!("command {other}"),
            }
        }
        assert_eq!((rsdp, blob), tables.place(BASE));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_board_gets_tables_that_add_up(
        cpus in 1u32..5000,
        windows in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..4),
        io in proptest::collection::vec((any::<u16>(), any::<u16>()), 0..4),
        slots in 0u32..300,
        serial in 0u16..20,
        ich9 in any::<bool>(),
        ecam in any::<u64>(),
    ) {
        let mut board = if ich9 { q35() } else { pc() };
        board.apic_ids = (0..cpus).collect();
        if let Some(root) = &mut board.pci {
            root.memory = windows;
            root.io = io;
            root.ecam = Some(ecam);
        }
        board.virtio_mmio = (0..slots).map(|n| VirtioMmio { base: n, gsi: n }).collect();
        board.legacy.serial = (0..serial).map(|n| Ports { port: n, irq: n as u8 }).collect();
        prop_assert!(walk(&build(&board)).len() > 5);
    }

    #[test]
    fn any_arm_board_gets_tables_that_add_up(
        cpus in 1u64..600,
        version in 2u8..4,
        clusters in 0u32..9,
        cores in 0u32..9,
        threads in 0u32..4,
        ecam in any::<(u64, u64)>(),
        high_memory in proptest::option::of(any::<(u64, u64)>()),
    ) {
        let mut board = virt(version);
        board.affinities = (0..cpus).collect();
        board.topology = ArmTopology { clusters, cores, threads };
        board.pci.ecam = (ecam.0 >> 1, ecam.1 >> 1);
        board.pci.high_memory = high_memory.map(|(base, len)| (base >> 1, (len >> 1).max(1)));
        prop_assert!(walk(&build_arm(&board)).len() > 5);
    }
}

/// Runs the reference compiler; `None` when it is not installed.
fn iasl(dir: &Path, args: &[&str]) -> Option<String> {
    let output = match Command::new("iasl").args(args).current_dir(dir).output() {
        Ok(output) => output,
        Err(_) => {
            eprintln!("SKIPPED: iasl is not installed (apt install acpica-tools)");
            return None;
        }
    };
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_reference_compiler_accepts_every_table() {
    let machines = [
        ("pc", build(&pc())),
        ("q35", build(&q35())),
        ("microvm", build(&microvm())),
        ("virt-2", build_arm(&virt(2))),
        ("virt-3", build_arm(&virt(3))),
    ];
    for (machine, tables) in machines {
        let dir = std::env::temp_dir().join(format!("mimic-acpi-{machine}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in walk(&tables) {
            let (aml, dsl) = (format!("{name}.dat"), format!("{name}.dsl"));
            std::fs::write(dir.join(&aml), &bytes).unwrap();
            let Some(text) = iasl(&dir, &["-d", &aml]) else {
                break;
            };
            assert!(dir.join(&dsl).exists(), "{machine} {name}: {text}");
            for bad in ["Error", "Warning", "Invalid", "Could not"] {
                assert!(!text.contains(bad), "{machine} {name}: {text}");
            }
            let text = iasl(&dir, &[&dsl]).unwrap_or_default();
            let clean = match name.as_str() {
                "DSDT" => "0 Errors, 0 Warnings",
                _ => "Compilation successful. 0 Errors, 0 Warnings",
            };
            assert!(text.contains(clean), "{machine} {name}: {text}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

/// Bytes in rows of sixteen.
fn rows(bytes: &[u8]) -> String {
    let row = |(n, row): (usize, &[u8])| {
        let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}  {}\n", n * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(row).collect()
}

#[test]
fn the_tables_of_virt_are_the_golden_ones() {
    let mut text = String::new();
    for version in [2, 3] {
        for (name, bytes) in walk(&build_arm(&virt(version))) {
            text += &format!("{name}, GICv{version}\n{}", rows(&bytes));
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/virt.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == wanted, "{text}");
}
