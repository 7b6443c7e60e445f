use std::sync::Arc;

use hw_core::{Args, Attrs, ByteOrder, Clock, Fabric, Initiator, Links, Placement};
use hw_pci::PciBus;

use super::PCI_TESTDEV;

const BASE: u64 = 0x1_0000;

/// A device whose BAR 0 is at `BASE` in memory.
fn bench() -> Fabric {
    let fabric = Fabric::new(Clock::manual().0);
    let bus = PciBus::new("pcie.0", true, Arc::new(|_: u32, _: bool| ()));
    let args = Args::new(&PCI_TESTDEV, [("addr", "2")]).unwrap();
    let device = (PCI_TESTDEV.create)(&args, &mut Links::default()).unwrap();
    let placement = Placement {
        path: "t".into(),
        bus: Some(&bus),
        ..Placement::default()
    };
    fabric.add(device, placement).unwrap();
    bus.config_ports().map(&fabric.ports);
    fabric.reset(hw_core::ResetKind::Cold);
    let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
    for (register, value) in [(0x10u64, BASE), (4, 2)] {
        let ports = fabric.ports.snapshot();
        let at = 0x8000_1000 | register;
        ports
            .write(0xcf8, 4, at, ByteOrder::Little, by, attrs)
            .unwrap();
        ports
            .write(0xcfc, 4, value, ByteOrder::Little, by, attrs)
            .unwrap();
    }
    fabric
}

#[test]
fn writes_are_counted_test_by_test_until_there_is_none() {
    let fabric = bench();
    let (by, attrs) = (Initiator::Cpu(0), Attrs::default());
    let map = fabric.memory.snapshot();
    let write = |offset: u64, value: u64| {
        map.write(BASE + offset, 1, value, ByteOrder::Little, by, attrs)
            .unwrap();
    };
    let read = |offset: u64, size: u8| {
        map.read(BASE + offset, size, ByteOrder::Little, by, attrs)
            .unwrap()
    };
    for test in 0..3 {
        write(0, test);
        assert_eq!((read(1, 1), read(12, 4)), (1, 0));
        let (offset, data) = (read(4, 4), read(8, 4));
        (0..16).for_each(|_| write(offset, data));
        write(offset, data ^ 1);
        write(offset + 9, data);
        assert_eq!(read(12, 4), if test == 2 { 16 } else { 17 });
        assert_eq!(read(16, 1), u64::from(b'm'));
    }
    write(0, 3);
    assert_eq!((read(1, 1), read(12, 4)), (0, 0));
}
