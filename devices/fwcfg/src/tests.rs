use std::sync::Arc;

use hw_core::{Attrs, ByteOrder, Clock, Fabric, Initiator, Part, Placement};
use hw_memory::{MappingSpec, RamBlock, What};
use proptest::prelude::*;

use super::*;

struct Bench {
    fabric: Fabric,
    part: Arc<Part>,
    items: Items,
    ram: Arc<RamBlock>,
}

fn bench_of(device: FwCfg) -> Bench {
    let (clock, _) = Clock::manual();
    let fabric = Fabric::new(clock);
    let ram = Arc::new(RamBlock::new("ram", 0x10000).unwrap());
    fabric.memory.add(MappingSpec {
        name: "ram".into(),
        base: 0,
        len: 0x10000,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: ram.clone(),
            offset: 0,
        },
    });
    let items = device.items();
    let place = Placement {
        path: "fwcfg".into(),
        ..Placement::default()
    };
    let part = fabric.add(Box::new(device), place).unwrap();
    Bench {
        fabric,
        part,
        items,
        ram,
    }
}

fn bench() -> Bench {
    bench_of(FwCfg::at_ports())
}

impl Bench {
    fn out(&self, port: u64, size: u8, value: u64) {
        let map = self.fabric.ports.snapshot();
        let _ = map.write(
            port,
            size,
            value,
            ByteOrder::Little,
            Initiator::Cpu(0),
            Attrs::default(),
        );
    }

    fn inp(&self, port: u64, size: u8) -> u64 {
        let map = self.fabric.ports.snapshot();
        map.read(
            port,
            size,
            ByteOrder::Little,
            Initiator::Cpu(0),
            Attrs::default(),
        )
        .unwrap_or(!0)
    }

    fn bytes(&self, key: u16, n: usize) -> Vec<u8> {
        self.out(PORT, 2, key.into());
        (0..n).map(|_| self.inp(PORT + 1, 1) as u8).collect()
    }

    /// Runs a control structure at 0x100 and returns its control field afterwards.
    fn dma(&self, control: u32, len: u32, address: u64) -> u32 {
        let raw = [
            &control.to_be_bytes()[..],
            &len.to_be_bytes(),
            &address.to_be_bytes(),
        ]
        .concat();
        self.ram.write(0x100, &raw).unwrap();
        self.out(DMA_PORT, 4, 0);
        self.out(DMA_PORT + 4, 4, u64::from(0x100u32.swap_bytes()));
        let mut word = [0; 4];
        self.ram.read(0x100, &mut word).unwrap();
        u32::from_be_bytes(word)
    }

    fn peek<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut out = [0; N];
        self.ram.read(at, &mut out).unwrap();
        out
    }
}

#[test]
fn firmware_finds_the_signature_and_dma() {
    let b = bench();
    assert_eq!(b.bytes(keys::SIGNATURE, 6), b"QEMU\0\0");
    assert_eq!(b.bytes(keys::ID, 4), [3, 0, 0, 0]);
    assert_eq!(b.inp(DMA_PORT, 4), u64::from(u32::from_le_bytes(*b"QEMU")));
    assert_eq!(
        b.inp(DMA_PORT + 4, 4),
        u64::from(u32::from_le_bytes(*b" CFG"))
    );
}

#[test]
fn the_directory_lists_files_by_name() {
    let b = bench();
    b.items.add_file("etc/z", b"zz".as_slice()).unwrap();
    b.items.add_file("bootorder", b"abc".as_slice()).unwrap();
    let dir = b.bytes(keys::FILE_DIR, 4 + 2 * 64);
    assert_eq!(dir[..4], [0, 0, 0, 2]);
    assert_eq!(dir[4..12], [0, 0, 0, 3, 0, 0x20, 0, 0]);
    assert_eq!(dir[12..22], *b"bootorder\0");
    assert_eq!(dir[68..76], [0, 0, 0, 2, 0, 0x21, 0, 0]);
    assert_eq!(b.bytes(0x21, 3), b"zz\0");
}

#[test]
fn dma_selects_reads_skips_and_fills_with_zeros() {
    let b = bench();
    b.items.add_file("f", b"0123456789".as_slice()).unwrap();
    b.ram.fill(0x200, 16, 0xee).unwrap();
    assert_eq!(b.dma(0x0020_000a, 4, 0x200), 0);
    assert_eq!(b.peek::<5>(0x200), *b"0123\xee");
    assert_eq!(b.dma(control::SKIP, 3, 0), 0);
    assert_eq!(b.dma(control::READ, 6, 0x200), 0);
    assert_eq!(b.peek::<7>(0x200), *b"789\0\0\0\xee");
}

#[test]
fn hostile_control_structures_end_in_the_error_bit() {
    let b = bench();
    b.items.add_file("f", b"0123456789".as_slice()).unwrap();
    assert_eq!(b.dma(0x0020_000a, 4, 0xffff_ffff_ffff_fffe), control::ERROR);
    assert_eq!(b.dma(0x0020_000a, 0xffff_ffff, 0x200), control::ERROR);
    assert_eq!(b.dma(0x0020_0018, 4, 0x200), control::ERROR);
    assert_eq!(b.dma(0, 4, 0x200), control::ERROR);
    // The structure itself outside RAM: nothing happens.
    b.out(DMA_PORT, 4, 0xffff_ffff);
    b.out(DMA_PORT + 4, 4, 0xffff_ffff);
}

#[test]
fn a_writable_file_takes_writes_within_its_length_and_is_saved() {
    let b = bench();
    b.items.add_writable_file("w", vec![0; 4]).unwrap();
    b.ram.write(0x200, b"ABCDE").unwrap();
    assert_eq!(b.dma(0x0020_0018, 5, 0x200), control::ERROR);
    assert_eq!(b.dma(0x0020_0018, 4, 0x200), 0);
    assert_eq!(&*b.items.file("w").unwrap(), b"ABCD");
    let saved = b.fabric.save();
    let other = bench();
    assert!(other.fabric.restore(&saved).is_err());
    other.items.add_writable_file("w", vec![0; 4]).unwrap();
    other.fabric.restore(&saved).unwrap();
    assert_eq!(&*other.items.file("w").unwrap(), b"ABCD");
    assert_eq!(other.fabric.save(), saved);
}

#[test]
fn names_are_checked() {
    let items = Items::default();
    assert_eq!(items.add_user_file("opt/x", vec![1]), Ok(UserItem::Fine));
    assert_eq!(
        items.add_user_file("etc/x", vec![1]),
        Ok(UserItem::NotUnderOpt)
    );
    assert_eq!(
        items.add_file("etc/x", vec![1]),
        Err(ItemError::Exists("etc/x".into()))
    );
    assert!(items.add_file(&"x".repeat(56), vec![1]).is_err());
    assert!(items.add_file("", vec![1]).is_err());
}

#[test]
fn the_memory_form_reads_wide_and_selects_big_endian() {
    let b = bench_of(FwCfg::at_memory(0x2_0000));
    let map = b.fabric.memory.snapshot();
    let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
    map.write(0x2_0008, 2, 0, ByteOrder::Big, by, attrs)
        .unwrap();
    let value = map.read(0x2_0000, 4, ByteOrder::Big, by, attrs).unwrap();
    assert_eq!(value, u64::from(u32::from_be_bytes(*b"QEMU")));
    let dma = map.read(0x2_0010, 8, ByteOrder::Big, by, attrs).unwrap();
    assert_eq!(dma, DMA_SIGNATURE);
}

#[test]
fn a_reset_deselects() {
    let b = bench();
    b.items.add_file("f", b"0123456789".as_slice()).unwrap();
    assert_eq!(b.bytes(0x20, 2), b"01");
    b.fabric.reset(ResetKind::Cold);
    assert_eq!(b.inp(PORT + 1, 1), u64::from(b'Q'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_accesses_end_in_a_value_and_saved_state_is_the_same_device(
        ops in proptest::collection::vec((0u64..12, 0u32..4, any::<u64>(), any::<bool>()), 0..40),
        ram in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let b = bench();
        b.items.add_file("f", b"0123456789".as_slice()).unwrap();
        b.items.add_writable_file("g", vec![0; 8]).unwrap();
        b.ram.write(0x100, &ram).unwrap();
        for (at, size, value, write) in ops {
            let size = 1u8 << size;
            if write { b.out(PORT + at, size, value) } else { b.inp(PORT + at, size); }
        }
        let saved = b.fabric.save();
        b.fabric.reset(ResetKind::Cold);
        b.fabric.restore(&saved).unwrap();
        prop_assert_eq!(b.part.with(|d| d.save()), saved[0].1.clone());
    }

    #[test]
    fn a_mutated_saved_state_is_refused_or_harmless(

        field in 0usize..12,
        junk in prop_oneof![
            any::<u64>().prop_map(Value::U64),
            proptest::collection::vec(any::<u8>(), 0..600).prop_map(Value::Bytes),
            Just(Value::List(vec![Value::U64(1)])),
        ],
    ) {
        let b = bench();
        b.items.add_writable_file("g", vec![0; 8]).unwrap();
        let (path, section) = b.fabric.save().remove(0);
        let mut changed = Section::new(section.name(), section.version());
        for (n, (tag, value)) in section.fields().iter().enumerate() {
            changed.push(*tag, if n == field { junk.clone() } else { value.clone() });
        }
        let _ = b.fabric.restore(&[(path, changed)]);
        b.inp(PORT + 1, 1);
        b.dma(control::READ, 16, 0x200);
        b.dma(control::WRITE, 4, 0x200);
        prop_assert_eq!(b.fabric.save().len(), 1);
    }
}
