use std::sync::Arc;

use hw_memory::{Initiator, MappingSpec, MemoryMap, RamBlock, What};

use crate::{Access, Fast, Mmu, Permissions, Physical, Translation};

const ALL: Permissions = Permissions {
    read: true,
    write: true,
    exec: true,
};

fn mmu() -> (Mmu, Arc<RamBlock>, MemoryMap) {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", 0x10000).unwrap());
    map.add(MappingSpec {
        name: "ram".into(),
        base: 0x10_0000,
        len: 0x10000,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset: 0,
        },
    });
    (Mmu::new(map.clone(), Initiator::Cpu(0)), block, map)
}

fn found(physical: u64, global: bool) -> Translation {
    Translation {
        physical,
        page_bits: 12,
        allow: ALL,
        global,
    }
}

#[test]
fn a_filled_page_is_reached_on_the_fast_path() {
    let (mut mmu, block, _) = mmu();
    assert_eq!(mmu.load32(0, 0x5000), None);
    mmu.fill(0, 0x5000, Access::Read, &found(0x10_2000, false));
    assert_eq!(mmu.store32(0, 0x5004, 7), Fast::Done(()));
    assert_eq!(block.load(0x2004, 4), Some(7));
    assert_eq!(mmu.load64(0, 0x5001), Some(7 << 24));
    assert_eq!(mmu.load64(0, 0x5ffc), None, "crosses the page");
    assert_eq!(mmu.load32(1, 0x5000), None, "another context");
    assert_eq!(mmu.rmw32(0, 0x5004, |v| Some(v + 1)), Fast::Done(7));
    assert_eq!(mmu.load32(0, 0x5004), Some(8));
}

#[test]
fn a_store_to_a_page_used_last_is_announced_though_another_has_taken_its_line() {
    let (mut mmu, block, _) = mmu();
    mmu.fill(0, 0x5000, Access::Write, &found(0x10_2000, false));
    mmu.recent
        .wrote(0, 3, 0x5004, block.host_ptr().wrapping_add(0x2004));
    // As far away as the table is long.
    let other = 0x5000 + (1 << 26);
    mmu.fill(0, other, Access::Write, &found(0x10_3000, false));
    assert_eq!(mmu.store32(0, 0x5004, 7), Fast::Slow);
    block.track_code(0x2000, 16, true);
    assert_eq!(mmu.announce(0, 0x5004, 4), Some(true));
    let again = mmu.announce(0, 0x5004, 4);
    assert_eq!(again, Some(false), "nothing is left to be told of");
    block.track_code(0x2000, 16, true);
    mmu.flush_page(0x5000);
    assert_eq!(mmu.announce(0, 0x5004, 4), None);
}

#[test]
fn where_code_is_fetched_from_is_known_without_a_walk() {
    let (mut mmu, ..) = mmu();
    assert_eq!(mmu.fetched_from(0, 0x5004), None);
    mmu.fill(0, 0x5000, Access::Fetch, &found(0x10_2000, false));
    assert_eq!(mmu.fetched_from(0, 0x5004), Some(0x10_2004));
    assert_eq!(mmu.fetched_from(1, 0x5004), None, "another context");
    mmu.flush_page(0x5000);
    assert_eq!(mmu.fetched_from(0, 0x5004), None);
}

#[test]
fn sixteen_bytes_are_updated_at_once_or_by_the_slow_path() {
    let (mut mmu, block, _) = mmu();
    mmu.fill(0, 0x5000, Access::Read, &found(0x10_2000, false));
    block.store(0x2010, 8, 1).unwrap();
    block.store(0x2018, 8, 2).unwrap();
    let old = 2u128 << 64 | 1;
    match mmu.rmw128(0, 0x5010, |v| Some(v + 1)) {
        Fast::Done(v) => {
            assert_eq!((v, block.load(0x2010, 8)), (old, Some(2)));
            assert_eq!(mmu.rmw128(0, 0x5010, |_| None), Fast::Done(old + 1));
        }
        other => assert_eq!(other, Fast::Slow, "a host without 16-byte atomics"),
    }
    assert_eq!(mmu.rmw128(0, 0x5018, |v| Some(v + 1)), Fast::Slow);
}

#[test]
fn what_is_not_ram_is_slow_but_cached() {
    let (mut mmu, ..) = mmu();
    mmu.fill(0, 0x9000, Access::Read, &found(0xfee0_0000, false));
    assert_eq!(mmu.load32(0, 0x9010), None);
    assert_eq!(
        mmu.look_up(0, 0x9010, Access::Read),
        Physical::Slow(0xfee0_0010)
    );
}

#[test]
fn flushes_drop_what_they_name_and_keep_the_rest() {
    let (mut mmu, ..) = mmu();
    mmu.fill(0, 0x1000, Access::Read, &found(0x10_1000, true));
    mmu.fill(0, 0x2000, Access::Read, &found(0x10_2000, false));
    mmu.bank().flush_non_global();
    assert_eq!(mmu.look_up(0, 0x1000, Access::Read), Physical::Ram);
    assert_eq!(mmu.look_up(0, 0x2000, Access::Read), Physical::Miss);
    mmu.flush_page(0x1000);
    assert_eq!(mmu.look_up(0, 0x1000, Access::Read), Physical::Miss);
}

#[test]
fn a_flush_reaches_every_page_that_was_cached() {
    let (mut mmu, ..) = mmu();
    let pages = || (0..5000u64).map(|n| n * 0x1_3000);
    for global in [false, true] {
        for va in pages() {
            mmu.fill(
                (va >> 12) as u8 & 3,
                va,
                Access::Read,
                &found(0x10_1000, global),
            );
        }
        mmu.bank().flush_non_global();
        if global {
            mmu.bank().flush();
        }
        for va in pages() {
            for ctx in 0..4 {
                assert_eq!(mmu.look_up(ctx, va, Access::Read), Physical::Miss);
            }
        }
    }
}

#[test]
fn a_bank_keeps_its_translations_while_another_is_current() {
    let (mut mmu, ..) = mmu();
    mmu.switch(1);
    mmu.fill(0, 0x1000, Access::Read, &found(0x10_1000, false));
    mmu.switch(2);
    assert_eq!(mmu.look_up(0, 0x1000, Access::Read), Physical::Miss);
    mmu.switch(1);
    assert_eq!(mmu.look_up(0, 0x1000, Access::Read), Physical::Ram);
    mmu.switch(2);
    mmu.flush_all();
    mmu.switch(1);
    assert_eq!(mmu.look_up(0, 0x1000, Access::Read), Physical::Miss);
}

#[test]
fn one_page_of_a_large_page_flushes_all_of_it() {
    let (mut mmu, ..) = mmu();
    let large = |pa| Translation {
        page_bits: 21,
        ..found(pa, false)
    };
    mmu.fill(0, 0x20_1000, Access::Read, &large(0x10_1000));
    mmu.fill(0, 0x20_2000, Access::Read, &large(0x10_2000));
    mmu.flush_page(0x3f_f000);
    assert_eq!(mmu.look_up(0, 0x20_1000, Access::Read), Physical::Miss);
}

#[test]
fn other_large_pages_stay_when_a_page_of_one_is_flushed() {
    let (mut mmu, ..) = mmu();
    let sized = |pa, page_bits| Translation {
        page_bits,
        ..found(pa, true)
    };
    let far = 0xffff_8880_0020_1000;
    mmu.fill(0, 0x20_1000, Access::Read, &sized(0x10_1000, 21));
    mmu.fill(0, 0x20_3000, Access::Fetch, &sized(0x10_3000, 21));
    mmu.fill(0, 0x5000, Access::Read, &found(0x10_5000, false));
    mmu.fill(0, far, Access::Read, &sized(0x10_2000, 21));
    mmu.flush_page(0x7000);
    assert_eq!(mmu.look_up(0, far, Access::Read), Physical::Ram);
    mmu.flush_page(0x2f_0000);
    assert_eq!(mmu.look_up(0, 0x20_1000, Access::Read), Physical::Miss);
    assert_eq!(mmu.look_up(0, 0x20_3000, Access::Fetch), Physical::Miss);
    assert_eq!(mmu.look_up(0, far, Access::Read), Physical::Ram);
    assert_eq!(mmu.look_up(0, 0x5000, Access::Read), Physical::Ram);
    // A gigabyte is flushed together with all else.
    mmu.fill(0, 0x4000_1000, Access::Read, &sized(0x10_1000, 30));
    mmu.flush_page(0x7fff_f000);
    for va in [0x4000_1000, far, 0x5000] {
        assert_eq!(mmu.look_up(0, va, Access::Read), Physical::Miss);
    }
}

#[test]
fn any_number_of_large_pages_can_be_flushed() {
    let (mut mmu, ..) = mmu();
    let large = |pa| Translation {
        page_bits: 21,
        ..found(pa, false)
    };
    for n in 1..3000 {
        mmu.fill(0, n << 21 | 0x1000, Access::Read, &large(0x10_1000));
    }
    mmu.flush_page(2999 << 21);
    let look_up = |va| mmu.look_up(0, va, Access::Read);
    assert_eq!(look_up(2999 << 21 | 0x1000), Physical::Miss);
}

#[test]
fn code_and_data_do_not_drive_each_other_out() {
    let (mut mmu, ..) = mmu();
    let (code, data, other) = (0x100_5000, 0x300_5000, 0x500_5000);
    mmu.fill(0, code, Access::Fetch, &found(0x10_1000, false));
    mmu.fill(0, data, Access::Read, &found(0x10_2000, false));
    mmu.fill(0, other, Access::Fetch, &found(0x10_3000, false));
    let look_up = |va, access| mmu.look_up(0, va, access);
    assert_eq!(look_up(code, Access::Fetch), Physical::Miss);
    assert_eq!(look_up(other, Access::Fetch), Physical::Ram);
    assert_eq!(look_up(data, Access::Read), Physical::Ram);
    assert_eq!(look_up(data, Access::Fetch), Physical::Miss);
}

#[test]
fn a_store_into_code_says_so_once() {
    let (mut mmu, block, _) = mmu();
    mmu.fill(0, 0x1000, Access::Read, &found(0x10_1000, false));
    block.track_code(0x1040, 4, false);
    assert_eq!(mmu.store8(0, 0x1080, 1), Fast::Done(()));
    assert_eq!(mmu.store8(0, 0x1041, 1), Fast::HitCode(()));
    assert_eq!(mmu.store8(0, 0x1041, 1), Fast::Done(()));
}

#[test]
fn a_changed_map_is_taken_over_with_a_flush() {
    let (mut mmu, _, map) = mmu();
    mmu.fill(0, 0x1000, Access::Read, &found(0x10_1000, false));
    map.add(MappingSpec {
        name: "hole".into(),
        base: 0x10_1000,
        len: 0x100,
        priority: 1,
        enabled: true,
        what: What::Rom {
            block: Arc::new(RamBlock::new("rom", 0x1000).unwrap()),
            offset: 0,
            writes: None,
        },
    });
    mmu.sync_map();
    assert_eq!(mmu.look_up(0, 0x1000, Access::Read), Physical::Miss);
    mmu.fill(0, 0x1000, Access::Read, &found(0x10_1000, false));
    assert_eq!(
        mmu.look_up(0, 0x1000, Access::Read),
        Physical::Slow(0x10_1000),
        "not one whole page of RAM"
    );
}

#[test]
fn page_table_bits_are_updated_in_place() {
    let (mmu, block, _) = mmu();
    block.store(8, 8, 0x21).unwrap();
    assert_eq!(
        mmu.update_physical(0x10_0008, 8, |v| Some(v | 0x40)),
        Some(0x21)
    );
    assert_eq!(block.load(8, 8), Some(0x61));
    assert_eq!(mmu.update_physical(0x20_0000, 8, Some), None);
}

#[test]
fn many_bytes_are_at_hand_within_a_page_and_stores_of_them_tell() {
    let (mut mmu, block, _) = mmu();
    mmu.fill(0, 0x5000, Access::Read, &found(0x10_2000, false));
    mmu.fill(0, 0x6000, Access::Read, &found(0x10_4000, false));
    let bytes: Vec<u8> = (0..64).collect();
    assert_eq!(mmu.store_bytes(0, 0x5fc0, &bytes), Fast::Done(()));
    assert_eq!(mmu.store_bytes(0, 0x5fc1, &bytes), Fast::Slow, "crosses");
    let mut out = [0; 64];
    assert!(!mmu.load_bytes(0, 0x5fc1, &mut out));
    assert!(mmu.load_bytes(0, 0x5fc0, &mut out));
    assert_eq!(out[..], bytes);
    block.track_code(0x4000, 64, false);
    assert_eq!(mmu.copy_bytes(0, 0x5fc0, 0x6020, 64), Fast::HitCode(()));
    assert_eq!(block.load(0x4020, 8), Some(0x0706_0504_0302_0100));
    // Down is as if byte by byte; up would copy what was copied.
    assert_eq!(mmu.copy_bytes(0, 0x6028, 0x6020, 56), Fast::Done(()));
    assert_eq!(block.load(0x4020, 8), Some(0x0f0e_0d0c_0b0a_0908));
    assert_eq!(mmu.copy_bytes(0, 0x6020, 0x6028, 56), Fast::Slow);
    assert_eq!(mmu.fill_bytes(0, 0x6f80, 128, 0x11), Fast::Done(()));
    assert_eq!(block.load(0x4ff8, 8), Some(0x11));
    assert_eq!(mmu.fill_bytes(0, 0x6f88, 128, 0x11), Fast::Slow);
}

#[test]
fn what_reaches_over_the_end_of_all_addresses_is_not_taken_for_page_0_of_empty_tables() {
    let (mmu, _, _) = mmu();
    for va in [0, 1, u64::MAX, u64::MAX - 2] {
        assert_eq!(mmu.load32(0, va), None, "{va:#x}");
        assert_eq!(mmu.load64(0, va), None, "{va:#x}");
        assert_eq!(mmu.store32(0, va, 7), Fast::Slow, "{va:#x}");
        assert_eq!(mmu.rmw128(0, va, Some), Fast::Slow, "{va:#x}");
    }
}
