//! The parts that all kinds of hosts share and that need no KVM.

use std::sync::Arc;

use hw_memory::{MappingSpec, MemoryMap, PAGE_SIZE, RamBlock, What};

use crate::slots::{Step, Table, wanted};

pub(crate) fn ram(block: &Arc<RamBlock>, base: u64, offset: u64, len: u64) -> MappingSpec {
    MappingSpec {
        name: "ram".into(),
        base,
        len,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset,
        },
    }
}

#[test]
fn slots_are_whole_pages_and_neighbours_are_one() {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", 16 * PAGE_SIZE).unwrap());
    map.add(ram(&block, 0, 0, 4 * PAGE_SIZE));
    map.add(ram(&block, 4 * PAGE_SIZE, 4 * PAGE_SIZE, 4 * PAGE_SIZE));
    map.add(ram(&block, 0x10_0800, 0x8800, 0x1000));
    let slots = wanted(&map.snapshot(), PAGE_SIZE);
    let spans: Vec<_> = slots.iter().map(|s| (s.base, s.len, s.offset)).collect();
    // The last one has no whole page.
    assert_eq!(spans, [(0, 8 * PAGE_SIZE, 0)]);
}

#[test]
fn a_change_touches_only_the_slots_it_is_about() {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", 16 * PAGE_SIZE).unwrap());
    let moving = map.add(ram(&block, 0x10_0000, PAGE_SIZE, PAGE_SIZE));
    map.add(ram(&block, 0, 0, PAGE_SIZE));
    let mut table = Table::default();
    assert_eq!(table.update(wanted(&map.snapshot(), PAGE_SIZE)).len(), 2);
    moving.place(0x20_0000, true);
    let steps = table.update(wanted(&map.snapshot(), PAGE_SIZE));
    let [Step::Delete(n, old), Step::Create(m, new)] = steps.as_slice() else {
        panic!("{steps:?}");
    };
    assert_eq!((n, old.base, new.base), (m, 0x10_0000, 0x20_0000));
    assert!(table.update(wanted(&map.snapshot(), PAGE_SIZE)).is_empty());
    assert_eq!(table.all().count(), 2);
}

#[test]
fn slots_are_pages_of_the_host() {
    const HOST: u64 = 16 * PAGE_SIZE;
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", 4 * HOST).unwrap());
    map.add(ram(&block, 0, 0, 2 * HOST + PAGE_SIZE));
    map.add(ram(&block, 8 * HOST, PAGE_SIZE, HOST));
    let slots = wanted(&map.snapshot(), HOST);
    let spans: Vec<_> = slots.iter().map(|s| (s.base, s.len)).collect();
    // The second one is nowhere aligned in the host.
    assert_eq!(spans, [(0, 2 * HOST)]);
}
