use super::*;
use hw_core::{Attrs, ByteOrder, Clock, Fabric, Initiator, MsiSink, Part, Placement};
use proptest::prelude::*;
use std::sync::Mutex;

#[derive(Default)]
struct Log(Mutex<Vec<(u64, u32)>>);

impl MsiSink for Log {
    fn message(&self, address: u64, data: u32, _: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

struct Bench {
    fabric: Fabric,
    ioapic: Arc<IoApic>,
    part: Arc<Part>,
    log: Arc<Log>,
}

impl Bench {
    fn new() -> Self {
        let fabric = Fabric::new(Clock::manual().0);
        let log = Arc::new(Log::default());
        fabric.set_msi(Msi::new(log.clone(), 0));
        let ioapic = IoApic::new();
        let device = Box::new(IoApicDevice::new(ioapic.clone(), IOAPIC_BASE));
        let part = fabric.add(device, Placement::default()).unwrap();
        Bench {
            fabric,
            ioapic,
            part,
            log,
        }
    }

    fn wr(&self, offset: u64, size: u8, value: u64) {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        let map = self.fabric.memory.snapshot();
        let _ = map.write(
            IOAPIC_BASE + offset,
            size,
            value,
            order,
            by,
            Attrs::default(),
        );
    }

    fn rd(&self, offset: u64, size: u8) -> u64 {
        let (order, by) = (ByteOrder::Little, Initiator::Cpu(0));
        let map = self.fabric.memory.snapshot();
        map.read(IOAPIC_BASE + offset, size, order, by, Attrs::default())
            .unwrap_or(0)
    }

    fn set_reg(&self, index: u8, value: u32) {
        self.wr(IOREGSEL, 4, index.into());
        self.wr(IOWIN, 4, value.into());
    }

    fn reg(&self, index: u8) -> u32 {
        self.wr(IOREGSEL, 4, index.into());
        self.rd(IOWIN, 4) as u32
    }

    fn entry(&self, pin: u8, value: u64) {
        self.set_reg(0x11 + pin * 2, (value >> 32) as u32);
        self.set_reg(0x10 + pin * 2, value as u32);
    }

    fn sent(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.log.0.lock().unwrap())
    }
}

#[test]
fn it_has_24_masked_inputs_and_an_eoi_register() {
    let b = Bench::new();
    assert_eq!(b.reg(1), 0x0017_0020);
    for pin in 0..24 {
        assert_eq!((b.reg(0x10 + pin * 2), b.reg(0x11 + pin * 2)), (0x10000, 0));
    }
    b.set_reg(0, 0xff00_0000);
    assert_eq!(b.reg(0), 0x0f00_0000);
}

#[test]
fn an_edge_is_sent_once_and_lost_while_masked() {
    let b = Bench::new();
    b.ioapic.set(4, true);
    b.entry(4, 0x0200_0000_0000_0034);
    assert_eq!(b.sent(), []);
    b.ioapic.set(4, false);
    b.ioapic.set(4, true);
    assert_eq!(b.sent(), [(0xfee0_2000, 0x34)]);
    b.ioapic.set(4, true);
    assert_eq!(b.sent(), []);
}

#[test]
fn a_level_is_sent_again_after_its_end_while_asserted() {
    let b = Bench::new();
    b.entry(10, 0x0100_0000_0000_a93a);
    b.ioapic.set(10, true);
    assert_eq!(b.sent(), [(0xfee0_1004, 0xc13a)]);
    assert_eq!(b.reg(0x24), 0xe93a);
    b.ioapic.set(10, false);
    b.ioapic.set(10, true);
    assert_eq!(b.sent(), []);
    b.ioapic.eoi(0x3b);
    assert_eq!(b.sent(), []);
    b.ioapic.eoi(0x3a);
    assert_eq!(b.sent().len(), 1);
    b.ioapic.set(10, false);
    b.wr(IOEOI, 4, 0x3a);
    assert_eq!(b.sent(), []);
    assert_eq!(b.reg(0x24), 0xa93a);
}

#[test]
fn a_level_is_sent_when_unmasked() {
    let b = Bench::new();
    b.ioapic.set(16, true);
    b.entry(16, 0x1_8051);
    assert_eq!(b.sent(), []);
    b.entry(16, 0x8051);
    assert_eq!(b.sent(), [(0xfee0_0000, 0xc051)]);
}

#[test]
fn turning_to_edge_and_back_ends_a_level_interrupt() {
    let b = Bench::new();
    b.entry(9, 0x8040);
    b.ioapic.set(9, true);
    b.sent();
    b.entry(9, 0x1_0040);
    assert_eq!(b.sent(), []);
    b.entry(9, 0x8040);
    assert_eq!(b.sent().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_traffic_ends_in_values_and_a_saved_controller_is_the_same(
        ops in proptest::collection::vec((0u8..5, 0u64..0x60, 0usize..4, any::<u64>()), 1..120),
    ) {
        let b = Bench::new();
        for (kind, offset, size, value) in ops {
            let size = [1, 2, 4, 8][size];
            match kind {
                0 => b.wr(offset, size, value),
                1 => { b.rd(offset, size); }
                2 => b.set_reg(value as u8 % 0x44, (value >> 8) as u32),
                3 => b.ioapic.set(value as u32 % 26, value & 0x100 != 0),
                _ => b.ioapic.eoi(value as u8),
            }
        }
        prop_assert!(!b.ioapic.describe().is_empty());
        let saved = b.part.with(|d| d.save());
        let other = Bench::new();
        other.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(other.part.with(|d| d.save()), saved);
    }
}
