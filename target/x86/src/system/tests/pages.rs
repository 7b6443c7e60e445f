use super::*;
use crate::system::paging::{debug_translate, leaves};

fn paged_32() -> Bench {
    let mut b = Bench::protected();
    // Directory at 10000h; the first table at 11000h maps pages 0 to 3ffh one to one.
    b.put(0x10000, 4, 0x11007);
    for n in 0..1024 {
        b.put(0x11000 + 4 * n, 4, n << 12 | 7);
    }
    b.core.arch.cr3 = 0x10000;
    b.call(WRITE_CR, [0, cr0::PE | cr0::PG | cr0::WP, 0, 0])
        .unwrap_err();
    b
}

fn fault(b: &mut Bench, va: u64, access: Access, ctx: u8) -> Option<u32> {
    match walk(&mut b.core, va, access, ctx) {
        Ok(_) => None,
        Err(_) => {
            let e = b.core.arch.exception.take().unwrap();
            assert_eq!((e.vector, e.address), (vector::PF, Some(va)));
            e.error
        }
    }
}

#[test]
fn without_paging_addresses_are_physical_and_the_a20_gate_masks_bit_20() {
    let mut b = Bench::protected();
    let found = walk(&mut b.core, 0x12_3456, Access::Write, ctx::SUPERVISOR).unwrap();
    assert_eq!((found.physical, found.allow.write), (0x12_3456, true));
    b.port.with(|b| b.a20 = false);
    let found = walk(&mut b.core, 0x12_3456, Access::Read, ctx::SUPERVISOR).unwrap();
    assert_eq!(found.physical, 0x2_3456);
}

#[test]
fn a_read_sets_accessed_and_only_a_write_sets_dirty() {
    let mut b = paged_32();
    let found = walk(&mut b.core, 0x5123, Access::Read, ctx::USER).unwrap();
    assert_eq!((found.physical, found.allow.write), (0x5123, false));
    assert_eq!((b.get(0x10000, 4), b.get(0x11014, 4)), (0x11027, 0x5027));
    let found = walk(&mut b.core, 0x5123, Access::Write, ctx::USER).unwrap();
    assert!(found.allow.write);
    assert_eq!(b.get(0x11014, 4), 0x5067);
}

#[test]
fn a_faulting_walk_changes_nothing_and_says_why() {
    let mut b = paged_32();
    b.put(0x11014, 4, 0x5006);
    assert_eq!(fault(&mut b, 0x5000, Access::Read, ctx::USER), Some(4));
    assert_eq!(
        fault(&mut b, 0x5000, Access::Write, ctx::SUPERVISOR),
        Some(2)
    );
    b.put(0x11014, 4, 0x5005);
    assert_eq!(fault(&mut b, 0x5000, Access::Write, ctx::USER), Some(7));
    b.put(0x11014, 4, 0x5003);
    assert_eq!(fault(&mut b, 0x5000, Access::Read, ctx::USER), Some(5));
    assert_eq!(b.get(0x11014, 4), 0x5003);
}

#[test]
fn write_protection_binds_the_supervisor_only_with_wp() {
    let mut b = paged_32();
    b.put(0x11014, 4, 0x5005);
    assert_eq!(
        fault(&mut b, 0x5000, Access::Write, ctx::SUPERVISOR),
        Some(3)
    );
    b.core.arch.cr0 &= !cr0::WP;
    assert_eq!(fault(&mut b, 0x5000, Access::Write, ctx::SUPERVISOR), None);
}

#[test]
fn smep_and_smap_guard_user_pages_from_the_supervisor() {
    let mut b = paged_32();
    assert_eq!(fault(&mut b, 0x5000, Access::Fetch, ctx::SUPERVISOR), None);
    b.core.arch.cr4 |= cr4::SMEP | cr4::SMAP;
    assert_eq!(
        fault(&mut b, 0x5000, Access::Fetch, ctx::SUPERVISOR),
        Some(0x11)
    );
    assert_eq!(
        fault(&mut b, 0x5000, Access::Read, ctx::SUPERVISOR_SMAP),
        Some(1)
    );
    assert_eq!(fault(&mut b, 0x5000, Access::Read, ctx::SUPERVISOR), None);
}

#[test]
fn large_pages_of_32_bit_paging_reach_above_4_gib() {
    let mut b = paged_32();
    b.core.arch.cr4 |= cr4::PSE;
    b.put(0x10004, 4, 0x0080_0087 | 5 << 13);
    let found = walk(&mut b.core, 0x40_1234, Access::Read, ctx::USER).unwrap();
    assert_eq!((found.physical, found.page_bits), (0x5_0080_1234, 22));
    b.put(0x10004, 4, 0x0080_0087 | 1 << 21);
    assert_eq!(fault(&mut b, 0x40_1234, Access::Read, ctx::USER), Some(0xd));
}

#[test]
fn pae_uses_the_pointers_loaded_with_cr3() {
    let mut b = Bench::protected();
    b.put(0x10000, 8, 0x11001);
    b.put(0x11000, 8, 0x80_0083);
    b.core.arch.cr4 |= cr4::PAE;
    b.core.arch.cr3 = 0x10000;
    b.call(WRITE_CR, [0, cr0::PE | cr0::PG, 0, 0]).unwrap_err();
    b.put(0x10000, 8, 0);
    let found = walk(&mut b.core, 0x12_3456, Access::Read, ctx::SUPERVISOR).unwrap();
    assert_eq!((found.physical, found.page_bits), (0x92_3456, 21));
    // A reserved bit in a present pointer refuses the load.
    b.put(0x10000, 8, 0x11003);
    let result = b.call(WRITE_CR, [3, 0x10000, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn four_levels_map_pages_of_three_sizes() {
    let mut b = Bench::long();
    let found = walk(&mut b.core, 0x20_1234, Access::Write, ctx::SUPERVISOR).unwrap();
    assert_eq!((found.physical, found.page_bits), (0x20_1234, 21));
    assert_eq!(b.get(0x12008, 8), 0x20_00e7);
    b.put(0x11008, 8, 0xc000_0087);
    let found = walk(&mut b.core, 0x4012_3456, Access::Read, ctx::SUPERVISOR).unwrap();
    assert_eq!((found.physical, found.page_bits), (0xc012_3456, 30));
    b.put(0x12010, 8, 0x13007);
    b.put(0x13008, 8, 0x6_6007);
    let found = walk(&mut b.core, 0x40_1fff, Access::Read, ctx::SUPERVISOR).unwrap();
    assert_eq!((found.physical, found.page_bits), (0x6_6fff, 12));
}

#[test]
fn a_debugger_reads_tables_of_five_levels() {
    let mut b = Bench::long();
    let four = debug_translate(&b.core, 0x20_1234);
    // A fifth level at 9000h: its first and its last entry lead to the four levels below.
    b.put(0x9000, 8, 0x10007);
    b.put(0x9ff8, 8, 0x10007);
    b.core.arch.cr3 = 0x9000;
    b.core.arch.cr4 |= cr4::LA57;
    assert_eq!(debug_translate(&b.core, 0x20_1234), four);
    assert_eq!(debug_translate(&b.core, 0xffff_0000_0020_1234), four);
    assert_eq!(debug_translate(&b.core, 0x00ff_0000_0020_1234), None);
    assert_eq!(debug_translate(&b.core, 0x0100_0000_0020_1234), None);
    let mut seen = Vec::new();
    leaves(&b.core, 10_000, |leaf| seen.push(leaf.va));
    assert!(seen.contains(&0x20_0000) && seen.contains(&0xffff_0000_0020_0000));
}

#[test]
fn no_execute_and_reserved_bits_fault() {
    let mut b = Bench::long();
    b.put(0x12008, 8, 1 << 63 | 0x20_0087);
    assert_eq!(
        fault(&mut b, 0x20_0000, Access::Fetch, ctx::USER),
        Some(0x15)
    );
    let found = walk(&mut b.core, 0x20_0000, Access::Read, ctx::USER).unwrap();
    assert!(!found.allow.exec);
    b.put(0x12008, 8, 1 << 45 | 0x20_0087);
    assert_eq!(fault(&mut b, 0x20_0000, Access::Read, ctx::USER), Some(0xd));
    b.put(0x12008, 8, 0x20_2087);
    assert_eq!(fault(&mut b, 0x20_0000, Access::Read, ctx::USER), Some(0xd));
    b.core.arch.efer &= !efer::NXE;
    b.put(0x12008, 8, 1 << 63 | 0x20_0087);
    assert_eq!(fault(&mut b, 0x20_0000, Access::Read, ctx::USER), Some(0xd));
}

#[test]
fn an_address_that_is_not_canonical_is_a_general_protection_fault() {
    let mut b = Bench::long();
    let result = walk(&mut b.core, 1 << 47, Access::Read, ctx::SUPERVISOR);
    assert!(result.is_err());
    assert_eq!(b.core.arch.exception.unwrap().vector, vector::GP);
}

#[test]
fn global_pages_survive_a_load_of_cr3_and_others_do_not() {
    let mut b = Bench::long();
    b.call(WRITE_CR, [4, cr4::PAE | cr4::PGE, 0, 0])
        .unwrap_err();
    b.put(0x12008, 8, 0x20_01e7);
    let s = ctx::SUPERVISOR;
    assert_eq!(b.core.load(0x20_0000, 8, s), Ok(0));
    assert_eq!(b.core.load(0x40_1000, 8, s), Ok(0));
    // Nobody told the CPU that the entries are gone.
    b.put(0x12008, 8, 0);
    b.put(0x12010, 8, 0);
    b.call(WRITE_CR, [3, 0x10000, 0, 0]).unwrap_err();
    assert_eq!(b.core.load(0x20_0000, 8, s), Ok(0));
    assert!(b.core.load(0x40_1000, 8, s).is_err());
    b.call(INVLPG, [0x20_0000, 0, 0, 0]).unwrap();
    assert!(b.core.load(0x20_0000, 8, s).is_err());
}

#[test]
fn with_pcids_a_load_of_cr3_with_bit_63_keeps_that_address_space() {
    let mut b = Bench::long();
    b.call(WRITE_CR, [4, cr4::PAE | cr4::PCIDE, 0, 0])
        .unwrap_err();
    let s = ctx::SUPERVISOR;
    assert_eq!(b.core.load(0x20_0000, 8, s), Ok(0));
    b.put(0x12008, 8, 0);
    b.call(WRITE_CR, [3, 0x10001, 0, 0]).unwrap_err();
    assert!(b.core.load(0x20_0000, 8, s).is_err(), "another space");
    b.call(WRITE_CR, [3, 1 << 63 | 0x10000, 0, 0]).unwrap_err();
    assert_eq!(b.core.arch.cr3, 0x10000);
    assert_eq!(b.core.load(0x20_0000, 8, s), Ok(0));
    b.call(WRITE_CR, [3, 0x10000, 0, 0]).unwrap_err();
    assert!(b.core.load(0x20_0000, 8, s).is_err());
}

#[test]
fn invpcid_drops_one_space_or_all() {
    let mut b = Bench::long();
    b.call(WRITE_CR, [4, cr4::PAE | cr4::PCIDE, 0, 0])
        .unwrap_err();
    let s = ctx::SUPERVISOR;
    assert_eq!(b.core.load(0x20_0000, 8, s), Ok(0));
    b.put(0x12008, 8, 0);
    b.call(WRITE_CR, [3, 0x10001, 0, 0]).unwrap_err();
    b.call(INVPCID, [1, 0, 0, 0]).unwrap_err();
    b.call(WRITE_CR, [3, 1 << 63 | 0x10000, 0, 0]).unwrap_err();
    assert!(b.core.load(0x20_0000, 8, s).is_err());
    b.core.arch.exception = None;
    let result = b.call(INVPCID, [4, 0, 0, 0]);
    assert_eq!(b.fault(result), (vector::GP, Some(0)));
}

#[test]
fn a_debug_walk_has_no_side_effects() {
    let b = Bench::long();
    let before = b.get(0x12010, 8);
    assert_eq!(
        super::super::debug_translate(&b.core, 0x40_0123),
        Some(0x40_0123)
    );
    assert_eq!(super::super::debug_translate(&b.core, 0x8000_0000), None);
    assert_eq!(super::super::debug_translate(&b.core, 1 << 50), None);
    assert_eq!(b.get(0x12010, 8), before);
}

#[test]
fn the_listings_show_each_page_and_merge_ranges() {
    let b = Bench::long();
    b.put(0x12008, 8, 0x13007);
    b.put(0x13000, 8, 1 << 63 | 0x6_6061);
    let tlb = crate::system::info_tlb(&b.core);
    assert_eq!(
        tlb.lines().take(2).collect::<Vec<_>>(),
        [
            "0000000000000000: 0000000000000000 --P-A--UW",
            "0000000000200000: 0000000000066000 X--DA----",
        ]
    );
    let mem = crate::system::info_mem(&b.core);
    assert_eq!(
        mem.lines().collect::<Vec<_>>(),
        [
            "0000000000000000-0000000000200000 0000000000200000 urw",
            "0000000000200000-0000000000201000 0000000000001000 -r-",
            "0000000000400000-0000000001000000 0000000000c00000 urw",
        ]
    );
    // Tables that name themselves over and over end too.
    for n in 0..512 {
        b.put(0x10000 + 8 * n, 8, 0x10007);
    }
    assert!(crate::system::info_mem(&b.core).ends_with("(more pages are not shown)\n"));
}
