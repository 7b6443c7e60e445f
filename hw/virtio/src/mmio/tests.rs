use std::sync::{Arc, Mutex};

use hw_core::{Section, StateError};
use proptest::prelude::*;

use crate::bench::{Bench, Ring, SIZE};
use crate::{Chain, Io, Options, VirtioDevice, feature, status};

/// Writes back what it reads, with every byte plus one; keeps requests while `hold` is set.
#[derive(Default)]
struct Echo {
    hold: Arc<Mutex<bool>>,
    held: Vec<Chain>,
    activated: bool,
}

impl Echo {
    fn answer(io: &mut Io<'_>, queue: u16, chain: &Chain) {
        let mut data = vec![0; usize::try_from(chain.readable_len().min(4096)).unwrap()];
        let Ok(_) = chain.read_at(io.dma(), 0, &mut data) else {
            return io.fail("bad buffer");
        };
        data.iter_mut().for_each(|b| *b = b.wrapping_add(1));
        match chain.write_at(io.dma(), 0, &data) {
            Ok(n) => io.push(queue, chain, n as u32),
            Err(error) => io.fail(error),
        }
    }
}

impl VirtioDevice for Echo {
    fn id(&self) -> u16 {
        42
    }
    fn name(&self) -> &'static str {
        "echo"
    }
    fn features(&self) -> u64 {
        1
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![SIZE, 64]
    }
    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3, 4, 5]
    }
    fn activate(&mut self, _: &mut Io<'_>) {
        self.activated = true;
    }
    fn queue_notified(&mut self, io: &mut Io<'_>, queue: u16) {
        while let Some(chain) = io.pop(queue) {
            if *self.hold.lock().unwrap() {
                self.held.push(chain);
            } else {
                Echo::answer(io, queue, &chain);
            }
        }
    }
    fn reset(&mut self) {
        self.activated = false;
        self.held.clear();
    }
    fn save(&self) -> Section {
        let held = self.held.iter().map(Chain::save);
        Section::new("echo", 1)
            .with(1, self.activated)
            .with(2, held.collect::<hw_core::Value>())
    }
    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("echo", 1)?;
        let held = section.list(2)?.iter().map(|value| match value {
            hw_core::Value::Section(s) => Chain::restore(s),
            _ => Err(section.bad(2, "not sections")),
        });
        self.held = held.collect::<Result<_, _>>()?;
        self.activated = section.bool(1)?;
        Ok(())
    }
    fn resume(&mut self, io: &mut Io<'_>) {
        for chain in std::mem::take(&mut self.held) {
            Echo::answer(io, 0, &chain);
        }
    }
}

fn bench(packed: bool) -> Bench {
    let options = Options {
        packed,
        ..Options::default()
    };
    Bench::new(Box::new(Echo::default()), options, false)
}

const ALL: u64 = 1 | feature::INDIRECT_DESC | feature::EVENT_IDX;

fn needs_reset(b: &Bench) -> bool {
    b.rd(0x70) & u32::from(status::DEVICE_NEEDS_RESET) != 0
}

#[test]
fn the_slot_identifies_itself_as_a_modern_device() {
    let b = bench(false);
    assert_eq!((b.rd(0), b.rd(4)), (0x7472_6976, 2));
    assert_eq!((b.rd(8), b.rd(0xc)), (42, 0x554d_4551));
    assert_eq!(b.offered(), ALL | feature::VERSION_1);
    assert_eq!(b.rd_size(0x101, 2), 0x0302);
    assert_eq!(b.rd_size(0x104, 4), 5);
    assert_eq!((b.rd(0xb0), b.rd(0xb4)), (u32::MAX, u32::MAX));
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let b = bench(false);
    b.wr(0x70, 3);
    b.wr(0x24, 1);
    b.wr(0x20, 0x101);
    b.wr(0x70, 11);
    assert_eq!(b.rd(0x70), 3);
    b.wr(0x20, 1);
    b.wr(0x70, 11);
    assert_eq!(b.rd(0x70), 11);
}

#[test]
fn requests_come_back_in_both_ring_layouts_for_several_rounds() {
    for (packed, features) in [(false, ALL), (false, 0), (true, ALL), (true, 0)] {
        let b = bench(packed);
        let ring = if packed { feature::RING_PACKED } else { 0 };
        let mut q = b.start(features | ring, 1);
        let mut interrupts = 0;
        for round in 0..50u8 {
            let id = q[0].add(&[&[round], &[7, 8]], &[2, 5]);
            if !packed && features & feature::EVENT_IDX != 0 {
                q[0].set_used_event(u16::from(round));
            }
            b.kick(0);
            let used = q[0].used().unwrap();
            assert_eq!((used.id, used.written), (id, 3));
            assert_eq!(used.data[..3], [round.wrapping_add(1), 8, 9]);
            interrupts += u32::from(b.interrupted() == 1);
        }
        assert_eq!(interrupts, 50);
        assert!(q[0].used().is_none() && !needs_reset(&b));
    }
}

#[test]
fn a_served_bell_leaves_other_registers_and_values_to_the_device() {
    let b = bench(false);
    let mut main_loop = runtime::EventLoop::new().unwrap();
    b.fabric.serve_doorbells(main_loop.handle());
    let mut q = b.start(ALL, 1);
    q[0].add(&[&[1]], &[1]);
    // No queue has this number: the device ignores it.
    b.kick(77);
    b.wr(0x30, 0);
    assert!(q[0].used().is_none());
    b.kick(0);
    assert!(q[0].used().is_none());
    main_loop.turn(None);
    assert!(q[0].used().is_some());
}

#[test]
fn indirect_tables_work_in_both_ring_layouts() {
    for packed in [false, true] {
        let b = bench(packed);
        let ring = if packed { feature::RING_PACKED } else { 0 };
        let mut q = b.start(ALL | ring, 1);
        for round in 0..40u8 {
            let id = q[0].add_indirect(&[&[round], &[7, 8]], &[1, 2]);
            b.kick(0);
            let used = q[0].used().unwrap();
            assert_eq!((used.id, used.written), (id, 3));
            assert_eq!(used.data, [round + 1, 8, 9]);
        }
    }
}

#[test]
fn an_event_index_ahead_keeps_the_pin_low() {
    let b = bench(false);
    let mut q = b.start(ALL, 1);
    q[0].set_used_event(2);
    for expected in [1, 0, 1, 0] {
        q[0].add(&[&[1]], &[1]);
        b.kick(0);
        // The very first request interrupts in any case: nothing was signalled before it.
        assert_eq!(b.interrupted(), expected);
    }
}

#[test]
fn a_legacy_driver_uses_version_1_registers() {
    let b = Bench::new(Box::new(Echo::default()), Options::default(), true);
    assert_eq!(b.rd(4), 1);
    assert_eq!(b.offered() >> 32, 0);
    b.wr(0x28, 4096);
    b.wr(0x30, 0);
    assert_eq!(b.rd(0x34), u32::from(SIZE));
    b.wr(0x38, u32::from(SIZE));
    b.wr(0x3c, 4096);
    b.wr(0x40, 0x10);
    assert_eq!(b.rd(0x40), 0x10);
    b.wr(0x70, 7);
    let desc = |i: u64, addr: u64, len: u64, flags: u64, next: u64| {
        let at = 0x1_0000 + i * 16;
        b.dma.store_le(at, 8, addr).unwrap();
        let rest = len | flags << 32 | next << 48;
        b.dma.store_le(at + 8, 8, rest).unwrap();
    };
    b.dma.write(0x5000, &[41]).unwrap();
    desc(0, 0x5000, 1, 1, 1);
    desc(1, 0x6000, 1, 2, 0);
    let avail = 0x1_0000 + 16 * u64::from(SIZE);
    b.dma.store_le(avail + 2, 2, 1).unwrap();
    b.kick(0);
    let mut out = [0];
    b.dma.read(0x6000, &mut out).unwrap();
    assert_eq!(out, [42]);
    assert_eq!(b.dma.load_le(0x1_1002, 2), Ok(1));
    assert_eq!(b.interrupted(), 1);
    b.wr(0x40, 0);
    assert_eq!((b.rd(0x40), b.rd(0x70)), (0, 0));
}

/// Lets the driver do `mischief`, and expects the device to ask for a reset and to recover from it.
fn hostile(mischief: impl FnOnce(&Bench, &mut Ring)) {
    let b = bench(false);
    let mut q = b.start(ALL, 1);
    mischief(&b, &mut q[0]);
    b.kick(0);
    assert!(needs_reset(&b));
    assert_eq!(b.interrupted() & 2, 2);
    b.kick(0);
    let mut q = b.start(ALL, 1);
    q[0].add(&[&[1]], &[1]);
    b.kick(0);
    assert!(q[0].used().is_some() && !needs_reset(&b));
}

#[test]
fn every_broken_ring_ends_in_needs_reset() {
    hostile(|_, q| {
        // A loop.
        q.raw(0, 0x100, 1, 1, 1);
        q.raw(1, 0x100, 1, 1, 0);
        q.raw_avail(0);
    });
    hostile(|_, q| q.raw_avail(SIZE));
    hostile(|_, q| {
        q.raw(0, 0x100, 0, 0, 0);
        q.raw_avail(0);
    });
    hostile(|_, q| {
        q.raw(0, u64::MAX, 2, 0, 0);
        q.raw_avail(0);
    });
    hostile(|_, q| {
        q.raw(0, 0x100, 1, 3, 1);
        q.raw(1, 0x100, 1, 0, 0);
        q.raw_avail(0);
    });
    hostile(|b, q| b.dma.store_le(q.areas[1] + 2, 2, 17).unwrap());
    hostile(|b, q| {
        // An indirect table in an indirect table.
        b.dma.store_le(0x8000, 8, 0x9000).unwrap();
        b.dma.store_le(0x8008, 8, 16 | 4 << 32).unwrap();
        q.raw(0, 0x8000, 16, 4, 0);
        q.raw_avail(0);
    });
    for len in [0, 8, 24] {
        hostile(|_, q| {
            q.raw(0, 0x8000, len, 4, 0);
            q.raw_avail(0);
        });
    }
    hostile(|b, _| {
        // The rings move out of RAM: areas are fixed while on, so off and on again.
        b.wr(0x44, 0);
        b.wr(0x90, 0xf000_0000);
        b.wr(0x44, 1);
    });
}

#[test]
fn a_ring_cannot_have_more_requests_in_flight_than_descriptors() {
    let echo = Echo::default();
    *echo.hold.lock().unwrap() = true;
    let b = Bench::new(Box::new(echo), Options::default(), false);
    let mut q = b.start(0, 1);
    q[0].raw(0, 0x100, 1, 0, 0);
    for _ in 0..=SIZE {
        q[0].raw_avail(0);
        b.kick(0);
    }
    assert!(needs_reset(&b));
}

#[test]
fn a_restored_device_finishes_what_was_in_flight() {
    for packed in [false, true] {
        let echo = Echo::default();
        let hold = echo.hold.clone();
        *hold.lock().unwrap() = true;
        let options = Options {
            packed,
            ..Options::default()
        };
        let b = Bench::new(Box::new(echo), options, false);
        let ring = if packed { feature::RING_PACKED } else { 0 };
        let mut q = b.start(ALL | ring, 1);
        let id = q[0].add(&[&[1, 2]], &[2]);
        b.kick(0);
        let saved = b.fabric.save();
        let before = b.part.with(|d| d.save());
        b.part.with(|d| d.restore(&before)).unwrap();
        assert_eq!(b.part.with(|d| d.save()), before);
        *hold.lock().unwrap() = false;
        b.wr(0x70, 0);
        assert!(q[0].used().is_none());
        b.fabric.restore(&saved).unwrap();
        let used = q[0].used().unwrap();
        assert_eq!((used.id, used.data), (id, vec![2, 3]));
        assert_eq!(b.interrupted(), 1);
        assert!(b.fabric.restore(&[]).is_err());
    }
}

#[test]
fn reset_equals_new() {
    let b = bench(false);
    let fresh = b.part.with(|d| d.save());
    let mut q = b.start(ALL, 1);
    q[0].add(&[&[1]], &[1]);
    b.kick(0);
    b.fabric.reset(hw_core::ResetKind::Cold);
    assert_eq!(b.part.with(|d| d.save()), fresh);
    assert_eq!(b.interrupted(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_registers_and_rings_do_not_panic(
        packed: bool,
        legacy: bool,
        ring in proptest::collection::vec((0u64..0x900, any::<u8>()), 0..64),
        ops in proptest::collection::vec((any::<bool>(), 0u64..0x210, 0u32..4, any::<u32>()), 0..80),
    ) {
        let options = Options { packed, ..Options::default() };
        let b = Bench::new(Box::new(Echo::default()), options, legacy);
        if !legacy {
            b.start(ALL | if packed { feature::RING_PACKED } else { 0 }, 2);
        }
        for (at, byte) in ring {
            b.dma.write(0x1_0000 + at, &[byte]).unwrap();
        }
        b.kick(0);
        for (write, offset, size, value) in ops {
            let size = 1u8 << size;
            if write {
                b.wr_size(offset, size, u64::from(value));
                b.kick(value as u16 & 1);
            } else {
                b.rd_size(offset, size);
            }
            b.fabric.clock.run_timers();
        }
    }
}
