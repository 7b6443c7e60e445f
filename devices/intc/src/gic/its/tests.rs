//! A translation service driven as Linux does: tables allotted, commands queued, messages sent.

use std::sync::Arc;

use hw_core::{Attrs, ByteOrder, Clock, Fabric, Initiator, MsiSink, Part, Placement};
use hw_intc::GicVersion;
use hw_memory::{MappingSpec, RamBlock, What};
use proptest::prelude::*;

use super::super::{GicSystemAccess, GicV3Device, REDISTRIBUTOR_LEN};
use super::*;
use crate::gic::World;

const DIST: u64 = 0x800_0000;
const ITS: u64 = 0x808_0000;
const REDIST: u64 = 0x80a_0000;
const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 4 << 20;
const QUEUE: u64 = RAM;
const DEVICES: u64 = RAM + 0x1_0000;
const COLLECTIONS: u64 = RAM + 0x2_0000;
const ITT: u64 = RAM + 0x3_0000;
const PROPERTIES: u64 = RAM + 0x10_0000;
const PENDING: u64 = RAM + 0x11_0000;
const LEVEL_2: u64 = RAM + 0x20_0000;

const DOORBELL: u64 = ITS + GITS_TRANSLATER;
const CPUS: u64 = 3;

const fn icc(crm: u16, op2: u16) -> u16 {
    3 << 14 | 12 << 7 | crm << 3 | op2
}
const PMR: u16 = 3 << 14 | 4 << 7 | 6 << 3;
const IAR1: u16 = icc(12, 0);
const EOIR1: u16 = icc(12, 1);
const RPR: u16 = icc(11, 3);
const IGRPEN1: u16 = icc(12, 7);

struct Bench {
    gic: Arc<Gic>,
    sink: Arc<dyn MsiSink>,
    fabric: Fabric,
    parts: [Arc<Part>; 2],
    ram: Arc<RamBlock>,
}

impl Bench {
    /// Nothing set up but memory.
    fn bare() -> Self {
        let (clock, _) = Clock::manual();
        let fabric = Fabric::new(clock);
        let ram = Arc::new(RamBlock::new("ram", RAM_LEN).unwrap());
        fabric.memory.add(MappingSpec {
            name: "ram".into(),
            base: RAM,
            len: RAM_LEN,
            priority: 0,
            enabled: true,
            what: What::Ram {
                block: ram.clone(),
                offset: 0,
            },
        });
        let affinities: Vec<u64> = (0..CPUS).collect();
        let gic = Gic::new(GicVersion::V3, &affinities, 64);
        let device = GicV3Device::new(gic.clone(), DIST, vec![(REDIST, CPUS as usize)]);
        let place = |path: &str| Placement {
            path: path.into(),
            ..Placement::default()
        };
        let gic_part = fabric
            .add(Box::new(device.with_lpis()), place("gic"))
            .unwrap();
        let its = GicIts::new(gic.clone(), ITS);
        let sink = its.sink();
        let its_part = fabric.add(Box::new(its), place("its")).unwrap();
        Bench {
            gic,
            sink,
            fabric,
            parts: [gic_part, its_part],
            ram,
        }
    }

    /// As Linux leaves it: LPIs on, all of priority 0xa0 and enabled, flat tables, a collection for
    /// each CPU, device 8 with 32 events.
    fn new() -> Self {
        let b = Bench::bare();
        b.set_up_gic();
        b.wr(ITS + GITS_BASER, VALID | DEVICES | 2 << 8);
        b.start();
        b
    }

    fn set_up_gic(&self) {
        self.put(DIST, 4, 0x13);
        self.ram.fill(PROPERTIES - RAM, 0x1_0000, 0xa1);
        for cpu in 0..CPUS {
            let frame = REDIST + cpu * REDISTRIBUTOR_LEN;
            self.wr(frame + 0x70, PROPERTIES | 0x780 | 15);
            self.wr(frame + 0x78, 1 << 62 | (PENDING + cpu * 0x1_0000) | 0x780);
            self.put(frame, 4, 1);
            self.sys_wr(cpu, PMR, 0xf0);
            self.sys_wr(cpu, IGRPEN1, 1);
        }
    }

    fn start(&self) {
        self.wr(ITS + GITS_BASER + 8, VALID | COLLECTIONS | 2 << 8);
        self.wr(ITS + GITS_CBASER, VALID | QUEUE | 15);
        self.put(ITS, 4, 1);
        for cpu in 0..CPUS {
            self.run(&[[0x09, 0, VALID | cpu << 16 | cpu, 0]]);
        }
        self.run(&[[0x08 | 8 << 32, 4, VALID | ITT, 0]]);
    }

    fn rd(&self, at: u64, size: u8) -> u64 {
        let map = self.fabric.memory.snapshot();
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        map.read(at, size, ByteOrder::Little, by, attrs).unwrap()
    }

    fn put(&self, at: u64, size: u8, value: u64) {
        let map = self.fabric.memory.snapshot();
        let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
        map.write(at, size, value, ByteOrder::Little, by, attrs)
            .unwrap();
    }

    fn wr(&self, at: u64, value: u64) {
        self.put(at, 8, value);
    }

    fn sys(&self, cpu: u64, reg: u16) -> u64 {
        self.gic
            .read_system(cpu as usize, GicSystemAccess::physical(reg))
            .unwrap()
    }

    fn sys_wr(&self, cpu: u64, reg: u16, value: u64) {
        self.gic
            .write_system(cpu as usize, GicSystemAccess::physical(reg), value)
            .unwrap();
    }

    /// Queues commands and waits for their end.
    fn run(&self, commands: &[[u64; 4]]) {
        let mut at = self.rd(ITS + GITS_CWRITER, 8);
        for command in commands {
            for (n, word) in command.iter().enumerate() {
                self.ram.store(QUEUE - RAM + at + 8 * n as u64, 8, *word);
            }
            at = (at + 32) % 0x1_0000;
        }
        self.wr(ITS + GITS_CWRITER, at);
        for _ in 0..64 {
            if self.rd(ITS + GITS_CREADR, 8) == at {
                return;
            }
            self.parts[1].with(|d| d.timer(GO_ON));
        }
        panic!("the queue is stuck at {:#x}", self.rd(ITS + GITS_CREADR, 8));
    }

    /// Event `event` of device 8 is `intid`, of a collection.
    fn map(&self, event: u64, intid: u64, collection: u64) {
        self.run(&[
            [0x0a | 8 << 32, intid << 32 | event, collection, 0],
            [0x05, 0, collection << 16, 0],
        ]);
    }

    fn message(&self, event: u32) {
        self.sink.message(DOORBELL, event, 8);
    }

    fn irqs(&self) -> Vec<bool> {
        (0..CPUS as usize)
            .map(|cpu| self.gic.irq(cpu, World::NonSecure))
            .collect()
    }
}

#[test]
fn a_message_becomes_the_interrupt_it_is_mapped_to() {
    let b = Bench::new();
    b.map(3, 8200, 1);
    b.message(3);
    assert_eq!(b.irqs(), [false, true, false]);
    assert_eq!(b.sys(1, IAR1), 8200);
    assert_eq!(
        (b.sys(1, RPR), b.gic.irq(1, World::NonSecure)),
        (0xa0, false)
    );
    // There is no active state: it may come again at once, and is held back by its priority.
    b.message(3);
    assert!(!b.gic.irq(1, World::NonSecure));
    b.sys_wr(1, EOIR1, 8200);
    assert_eq!(b.sys(1, RPR), 0xff);
    assert_eq!(b.sys(1, IAR1), 8200);
    b.sys_wr(1, EOIR1, 8200);
    assert_eq!(b.sys(1, IAR1), 1023);
}

#[test]
fn messages_that_mean_nothing_are_lost() {
    let b = Bench::new();
    b.map(3, 8200, 1);
    b.sink.message(DOORBELL + 4, 3, 8);
    b.sink.message(DOORBELL, 3, 9);
    b.sink.message(DOORBELL, 4, 8);
    b.sink.message(DOORBELL, u32::MAX, u32::MAX);
    assert_eq!(b.irqs(), [false; 3]);
    // A number that is none of an LPI, and a collection that nobody mapped.
    b.map(4, 100, 0);
    b.message(4);
    b.map(4, 8200, 77);
    b.message(4);
    // An event beyond the device's.
    b.map(32, 8201, 0);
    b.message(32);
    assert_eq!(b.irqs(), [false; 3]);
    b.message(3);
    assert_eq!(b.irqs(), [false, true, false]);
    // A device that is gone.
    b.sys(1, IAR1);
    b.sys_wr(1, EOIR1, 8200);
    b.run(&[[0x08 | 8 << 32, 0, 0, 0]]);
    b.message(3);
    assert_eq!(b.irqs(), [false; 3]);
}

#[test]
fn an_interrupt_goes_where_it_is_moved_to_and_takes_along_what_is_pending() {
    let b = Bench::new();
    b.map(3, 8200, 1);
    b.map(4, 8201, 1);
    b.message(3);
    b.message(4);
    b.run(&[[0x01 | 8 << 32, 3, 2, 0]]);
    assert_eq!(b.irqs(), [false, true, true]);
    assert_eq!((b.sys(1, IAR1), b.sys(2, IAR1)), (8201, 8200));
    b.sys_wr(2, EOIR1, 8200);
    b.message(3);
    assert_eq!(b.sys(2, IAR1), 8200);
    b.sys_wr(2, EOIR1, 8200);
    b.message(3);
    // All of CPU 2 to CPU 0, as before a CPU goes off.
    b.run(&[[0x0e, 0, 2 << 16, 0]]);
    assert_eq!((b.irqs(), b.sys(0, IAR1)), (vec![true, false, false], 8200));
}

#[test]
fn int_clear_and_discard_are_messages_of_software() {
    let b = Bench::new();
    b.map(3, 8200, 0);
    let int = [0x03 | 8 << 32, 3, 0, 0];
    b.run(&[int]);
    assert!(b.gic.irq(0, World::NonSecure));
    b.run(&[[0x04 | 8 << 32, 3, 0, 0]]);
    assert!(!b.gic.irq(0, World::NonSecure));
    b.run(&[int, [0x0f | 8 << 32, 3, 0, 0], int]);
    assert!(!b.gic.irq(0, World::NonSecure));
    // The number is the event's own.
    b.run(&[[0x08 | 7 << 32, 15, VALID | (ITT + 0x4_0000), 0]]);
    b.run(&[[0x0b | 7 << 32, 9000, 0, 0], [0x03 | 7 << 32, 9000, 0, 0]]);
    assert_eq!(b.sys(0, IAR1), 9000);
}

#[test]
fn properties_hold_once_they_are_invalidated() {
    let b = Bench::new();
    b.map(3, 8200, 0);
    b.map(4, 8201, 0);
    b.ram.store(PROPERTIES - RAM + 8, 1, 0xa0);
    b.message(3);
    assert!(b.gic.irq(0, World::NonSecure), "still as cached");
    b.run(&[[0x0c | 8 << 32, 3, 0, 0]]);
    assert!(!b.gic.irq(0, World::NonSecure), "pending, but not enabled");
    // A higher priority comes first.
    b.ram.store(PROPERTIES - RAM + 8, 1, 0x51);
    b.message(4);
    b.run(&[[0x0d, 0, 0, 0]]);
    assert_eq!(b.sys(0, IAR1), 8200);
    assert!(!b.gic.irq(0, World::NonSecure));
    b.sys_wr(0, EOIR1, 8200);
    assert_eq!(b.sys(0, IAR1), 8201);
}

#[test]
fn tables_of_two_levels_are_walked() {
    let b = Bench::bare();
    b.set_up_gic();
    let indirect = 1 << 62;
    b.wr(ITS + GITS_BASER, VALID | indirect | DEVICES | 1);
    assert_eq!(b.rd(ITS + GITS_BASER, 8) >> 48, 0xc107);
    b.start();
    // No second level yet: the device could not be mapped.
    b.map(3, 8200, 1);
    b.message(3);
    assert_eq!(b.irqs(), [false; 3]);
    b.ram.store(DEVICES - RAM, 8, VALID | LEVEL_2);
    let far = 0x1208u64;
    b.ram.store(
        DEVICES - RAM + (far / 512) * 8,
        8,
        VALID | (LEVEL_2 + 0x1000),
    );
    b.run(&[[0x08 | 8 << 32, 4, VALID | ITT, 0]]);
    b.map(3, 8200, 1);
    b.message(3);
    assert_eq!(b.irqs(), [false, true, false]);
    b.run(&[
        [0x08 | far << 32, 4, VALID | (ITT + 0x1000), 0],
        [0x0a | far << 32, 8201 << 32, 2, 0],
    ]);
    b.sink.message(DOORBELL, 0, far as u32);
    assert_eq!(b.irqs(), [false, true, true]);
    assert_eq!(
        b.ram.load(LEVEL_2 - RAM + 0x1000 + 8 * 8, 8),
        Some(VALID | (ITT + 0x1000) | 4)
    );
}

#[test]
fn what_is_pending_is_in_memory_while_lpis_are_off() {
    let b = Bench::new();
    b.map(3, 8200, 1);
    b.message(3);
    let frame = REDIST + REDISTRIBUTOR_LEN;
    assert_eq!(b.rd(frame, 4), 3);
    b.put(frame, 4, 0);
    assert!(!b.gic.irq(1, World::NonSecure));
    let table = PENDING + 0x1_0000 - RAM;
    assert_eq!(b.ram.load(table + 8200 / 8, 1), Some(1));
    assert_eq!(b.ram.load(table + 8208 / 8, 1), Some(0));
    b.ram.store(table + 8208 / 8, 1, 2);
    b.wr(frame + 0x78, (PENDING + 0x1_0000) | 0x780);
    b.put(frame, 4, 1);
    assert_eq!(b.sys(1, IAR1), 8200);
    b.sys_wr(1, EOIR1, 8200);
    assert_eq!(b.sys(1, IAR1), 8209);
    // Bases hold while LPIs are on.
    b.wr(frame + 0x70, 0);
    assert_eq!(b.rd(frame + 0x70, 8), PROPERTIES | 0x780 | 15);
}

#[test]
fn a_queue_that_is_full_is_served_in_pieces() {
    let b = Bench::new();
    // 2047 commands, the last of which maps.
    let mut commands = vec![[0x05, 0, 0, 0]; 2046];
    commands.push([0x0a | 8 << 32, 8200 << 32 | 3, 1, 0]);
    let begin = b.rd(ITS + GITS_CWRITER, 8);
    for (n, command) in commands.iter().enumerate() {
        let at = (begin + 32 * n as u64) % 0x1_0000;
        for (k, word) in command.iter().enumerate() {
            b.ram.store(QUEUE - RAM + at + 8 * k as u64, 8, *word);
        }
    }
    let end = (begin + 2047 * 32) % 0x1_0000;
    b.wr(ITS + GITS_CWRITER, end);
    assert_eq!(
        b.rd(ITS + GITS_CREADR, 8),
        (begin + BUDGET as u64 * 32) % 0x1_0000
    );
    b.parts[1].with(|d| d.timer(GO_ON));
    assert_eq!(b.rd(ITS + GITS_CREADR, 8), end);
    b.message(3);
    assert!(b.gic.irq(1, World::NonSecure));
}

#[test]
fn a_queue_outside_memory_stalls_until_it_is_set_right() {
    let b = Bench::new();
    b.put(ITS, 4, 0);
    assert_eq!(b.rd(ITS, 4), 1 << 31);
    b.wr(ITS + GITS_CBASER, VALID | 0x10_0000_0000 | 15);
    b.put(ITS, 4, 1);
    b.wr(ITS + GITS_CWRITER, 32);
    assert_eq!(b.rd(ITS + GITS_CREADR, 8), STALLED);
    b.put(ITS, 4, 0);
    b.wr(ITS + GITS_CBASER, VALID | QUEUE | 15);
    b.put(ITS, 4, 1);
    assert_eq!(b.rd(ITS + GITS_CREADR, 8), 32);
    // Beyond the queue's end there is nothing to reach.
    b.wr(ITS + GITS_CWRITER, 0xf_ffe0);
    assert_eq!(b.rd(ITS + GITS_CREADR, 8), 32);
}

#[test]
fn the_saved_state_brings_back_pending_interrupts_and_tables() {
    let b = Bench::new();
    b.map(3, 8200, 1);
    b.map(4, 8201, 2);
    b.message(3);
    let saved = b.fabric.save();
    b.fabric.reset(ResetKind::Cold);
    assert_eq!((b.irqs(), b.rd(ITS, 4)), (vec![false; 3], 1 << 31));
    b.message(4);
    assert_eq!(b.irqs(), [false; 3]);
    b.fabric.restore(&saved).unwrap();
    assert_eq!(b.irqs(), [false, true, false]);
    b.message(4);
    assert_eq!((b.sys(1, IAR1), b.sys(2, IAR1)), (8200, 8201));
    assert_eq!(b.fabric.save()[1], saved[1]);
}

#[test]
fn without_the_service_there_are_no_lpis() {
    let b = Bench::bare();
    assert_eq!(b.rd(DIST + 4, 4) >> 17 & 1, 1);
    assert_eq!(b.rd(REDIST + 8, 8) & 1, 1);
    let fabric = Fabric::new(Clock::manual().0);
    let gic = Gic::new(GicVersion::V3, &[0], 64);
    let device = GicV3Device::new(gic, DIST, vec![(REDIST, 1)]);
    fabric.add(Box::new(device), Placement::default()).unwrap();
    let map = fabric.memory.snapshot();
    let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
    let read = |at| map.read(at, 4, ByteOrder::Little, by, attrs).unwrap();
    map.write(REDIST, 4, 1, ByteOrder::Little, by, attrs)
        .unwrap();
    assert_eq!(
        (read(DIST + 4) >> 17 & 1, read(REDIST + 8) & 1, read(REDIST)),
        (0, 0, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_program_makes_it_panic(
        writes in prop::collection::vec((0u64..0x140, any::<u64>(), any::<bool>()), 1..60),
        commands in prop::collection::vec(any::<[u64; 4]>(), 1..20),
        messages in prop::collection::vec((any::<u32>(), any::<u32>()), 1..20),
    ) {
        let b = Bench::new();
        for (n, mut command) in commands.into_iter().enumerate() {
            // Mostly commands that there are.
            command[0] &= 0xf_0000_000f;
            for (k, word) in command.iter().enumerate() {
                b.ram.store(QUEUE - RAM + 32 * (n + 4) as u64 + 8 * k as u64, 8, *word);
            }
            b.wr(ITS + GITS_CWRITER, 32 * (n + 5) as u64);
        }
        for (event, device) in messages {
            b.sink.message(DOORBELL, event & 63, device & 15);
        }
        for (offset, value, is_redistributor) in writes {
            let at = if is_redistributor { REDIST } else { ITS } + (offset & !7);
            let map = b.fabric.memory.snapshot();
            let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
            // Faults are answers too.
            let _ = map.write(at, 8, value, ByteOrder::Little, by, attrs);
            let _ = map.write(at, 4, value & 0xffff_ffff, ByteOrder::Little, by, attrs);
            let _ = map.read(at, 8, ByteOrder::Little, by, attrs);
        }
        let saved = b.fabric.save();
        b.fabric.restore(&saved).unwrap();
        prop_assert_eq!(b.fabric.save(), saved);
    }
}
