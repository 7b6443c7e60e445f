//! A GIC driven as kernels do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hw_core::{Attrs, ByteOrder, Clock, Fabric, Initiator, Placement};
use hw_intc::{GicState, GicVersion};
use proptest::prelude::*;

use super::*;

const DIST: u64 = 0x800_0000;
const CPU_IF: u64 = 0x801_0000;
const REDIST: u64 = 0x80a_0000;
const SGI_FRAME: u64 = 0x1_0000;

const fn icc(crm: u16, op2: u16) -> u16 {
    3 << 14 | 12 << 7 | crm << 3 | op2
}
const PMR: u16 = 3 << 14 | 4 << 7 | 6 << 3;
const IAR1: u16 = icc(12, 0);
const EOIR1: u16 = icc(12, 1);
const DIR: u16 = icc(11, 1);
const RPR: u16 = icc(11, 3);
const CTLR: u16 = icc(12, 4);
const SGI1R: u16 = icc(11, 5);
const IGRPEN0: u16 = icc(12, 6);
const IGRPEN1: u16 = icc(12, 7);

struct Bench {
    gic: Arc<Gic>,
    fabric: Fabric,
    part: Arc<hw_core::Part>,
    kicks: Arc<AtomicUsize>,
}

impl Bench {
    fn new(version: GicVersion, cpus: u64) -> Self {
        Bench::with(version, cpus, Security::None)
    }

    fn with(version: GicVersion, cpus: u64, security: Security) -> Self {
        let fabric = Fabric::new(Clock::manual().0);
        let affinities: Vec<u64> = (0..cpus).map(|n| ((n / 16) << 8) | (n % 16)).collect();
        let gic = Gic::with_security(version, &affinities, 64, security);
        let device: Box<dyn hw_core::Device> = match version {
            GicVersion::V2 => Box::new(GicV2Device::new(gic.clone(), DIST, CPU_IF)),
            GicVersion::V3 => Box::new(GicV3Device::new(
                gic.clone(),
                DIST,
                vec![(REDIST, cpus as usize)],
            )),
        };
        let placement = Placement {
            path: "gic".into(),
            ..Placement::default()
        };
        let part = fabric.add(device, placement).unwrap();
        let kicks = Arc::new(AtomicUsize::new(0));
        for cpu in 0..cpus as usize {
            let kicks = kicks.clone();
            gic.connect(
                cpu,
                Arc::new(move || {
                    kicks.fetch_add(1, Ordering::SeqCst);
                }),
            );
        }
        Bench {
            gic,
            fabric,
            part,
            kicks,
        }
    }

    /// A version 2 controller as Linux sets it up: all in group 0, interrupts are IRQs.
    fn v2(cpus: u64) -> Self {
        let b = Bench::new(GicVersion::V2, cpus);
        b.wr(0, DIST, 1);
        for cpu in 0..cpus as u32 {
            b.wr(cpu, CPU_IF + 4, 0xf0);
            b.wr(cpu, CPU_IF, 1);
        }
        b
    }

    /// A version 3 controller as Linux sets it up: all in group 1.
    fn v3(cpus: u64) -> Self {
        let b = Bench::new(GicVersion::V3, cpus);
        b.wr(0, DIST, 0x13);
        for n in 1..3 {
            b.wr(0, DIST + 0x80 + 4 * n, u64::from(u32::MAX));
        }
        for cpu in 0..cpus {
            let frame = REDIST + cpu * REDISTRIBUTOR_LEN;
            b.wr(0, frame + 0x14, 0);
            b.wr(0, frame + SGI_FRAME + 0x80, u64::from(u32::MAX));
            b.sys_wr(cpu as usize, PMR, 0xf0);
            b.sys_wr(cpu as usize, IGRPEN1, 1);
        }
        b
    }

    fn access(&self, cpu: u32, at: u64, size: u8) -> u64 {
        let map = self.fabric.memory.snapshot();
        let by = Initiator::Cpu(cpu);
        map.read(at, size, ByteOrder::Little, by, Attrs::default())
            .unwrap()
    }

    fn rd(&self, cpu: u32, at: u64) -> u64 {
        self.access(cpu, at, 4)
    }

    fn put(&self, cpu: u32, at: u64, size: u8, value: u64) {
        let map = self.fabric.memory.snapshot();
        let by = Initiator::Cpu(cpu);
        map.write(at, size, value, ByteOrder::Little, by, Attrs::default())
            .unwrap();
    }

    fn wr(&self, cpu: u32, at: u64, value: u64) {
        self.put(cpu, at, 4, value);
    }

    fn sys(&self, cpu: usize, reg: u16) -> u64 {
        self.gic
            .read_system(cpu, GicSystemAccess::physical(reg))
            .unwrap()
    }

    fn sys_wr(&self, cpu: usize, reg: u16, value: u64) {
        self.gic
            .write_system(cpu, GicSystemAccess::physical(reg), value)
            .unwrap();
    }
}

#[test]
fn a_level_interrupt_of_version_2_comes_again_until_its_device_is_content() {
    let b = Bench::v2(2);
    let line = b.gic.spi(1).line();
    b.wr(0, DIST + 0x104, 1 << 1);
    b.put(0, DIST + 0x800 + 33, 1, 1);
    line.set(true);
    assert_eq!(
        (
            b.gic.irq(0, World::NonSecure),
            b.gic.irq(1, World::NonSecure),
            b.gic.fiq(0, World::NonSecure)
        ),
        (true, false, false)
    );
    assert_eq!(b.rd(0, CPU_IF + 0xc), 33);
    assert!(!b.gic.irq(0, World::NonSecure));
    assert_eq!(b.rd(0, CPU_IF + 0xc), 1023);
    b.wr(0, CPU_IF + 0x10, 33);
    assert!(b.gic.irq(0, World::NonSecure), "the line is still high");
    b.rd(0, CPU_IF + 0xc);
    line.set(false);
    b.wr(0, CPU_IF + 0x10, 33);
    assert!(!b.gic.irq(0, World::NonSecure));
}

#[test]
fn an_edge_is_remembered_while_its_interrupt_is_handled() {
    let b = Bench::v2(1);
    let line = b.gic.spi(2).line();
    b.wr(0, DIST + 0xc08, 2 << 4);
    b.wr(0, DIST + 0x104, 1 << 2);
    line.pulse();
    assert_eq!(b.rd(0, CPU_IF + 0xc), 34);
    line.pulse();
    assert!(
        !b.gic.irq(0, World::NonSecure),
        "an active interrupt is not signalled"
    );
    b.wr(0, CPU_IF + 0x10, 34);
    assert_eq!(b.rd(0, CPU_IF + 0xc), 34);
    b.wr(0, CPU_IF + 0x10, 34);
    assert_eq!(b.rd(0, CPU_IF + 0xc), 1023);
}

#[test]
fn a_software_interrupt_of_version_2_names_its_senders_one_by_one() {
    let b = Bench::v2(4);
    b.wr(3, DIST + 0x100, 1 << 5);
    for from in [1, 2] {
        b.wr(from, DIST + 0xf00, 1 << (16 + 3) | 5);
    }
    assert_eq!(b.access(3, DIST + 0xf15, 1), 0b110);
    for from in [1, 2] {
        let id = b.rd(3, CPU_IF + 0xc);
        assert_eq!(id, from << 10 | 5);
        b.wr(3, CPU_IF + 0x10, id);
    }
    assert!(!b.gic.irq(3, World::NonSecure));
    // To all others.
    b.wr(0, DIST + 0xf00, 1 << 24 | 5);
    assert_eq!(
        [0, 3].map(|cpu| b.gic.irq(cpu, World::NonSecure)),
        [false, true]
    );
}

#[test]
fn targets_of_version_2_are_those_there_are() {
    let b = Bench::v2(2);
    b.wr(0, DIST + 0x820, 0xffff_ffff);
    assert_eq!(b.rd(0, DIST + 0x820), 0x0303_0303);
    assert_eq!(b.rd(1, DIST + 0x800), 0x0202_0202, "its own");
    let one = Bench::v2(1);
    one.wr(0, DIST + 0x820, 0xffff_ffff);
    assert_eq!(one.rd(0, DIST + 0x820), 0);
    one.gic.spi(0).line().set(true);
    one.wr(0, DIST + 0x104, 1);
    assert_eq!(one.rd(0, DIST + 0x204) & 1, 0, "its driver is gone");
}

#[test]
fn fast_interrupts_of_version_2_are_group_0_when_asked_for() {
    let b = Bench::v2(1);
    b.wr(0, DIST + 0x104, 1);
    b.wr(0, CPU_IF, 1 | 1 << 3);
    let line = b.gic.spi(0).line();
    line.set(true);
    assert_eq!(
        (
            b.gic.irq(0, World::NonSecure),
            b.gic.fiq(0, World::NonSecure)
        ),
        (false, true)
    );
    // Group 1 is not acknowledged through GICC_IAR.
    b.wr(0, DIST, 3);
    b.wr(0, CPU_IF, 3);
    b.wr(0, DIST + 0x84, 1);
    assert!(b.gic.irq(0, World::NonSecure));
    assert_eq!(b.rd(0, CPU_IF + 0xc), 1022);
    assert_eq!(b.rd(0, CPU_IF + 0x20), 32);
}

#[test]
fn a_higher_priority_preempts_and_the_running_priority_follows() {
    let b = Bench::v3(1);
    let frame = REDIST + SGI_FRAME;
    b.wr(0, frame + 0x100, 0xff);
    b.put(0, frame + 0x401, 1, 0x80);
    b.put(0, frame + 0x402, 1, 0x40);
    let send = |sgi: u64| b.sys_wr(0, SGI1R, sgi << 24 | 1);
    send(1);
    assert_eq!(b.sys(0, IAR1), 1);
    assert_eq!(b.sys(0, RPR), 0x80);
    send(2);
    assert!(b.gic.irq(0, World::NonSecure));
    assert_eq!((b.sys(0, IAR1), b.sys(0, RPR)), (2, 0x40));
    send(1);
    assert!(!b.gic.irq(0, World::NonSecure));
    b.sys_wr(0, EOIR1, 2);
    assert_eq!(
        (b.gic.irq(0, World::NonSecure), b.sys(0, RPR)),
        (false, 0x80)
    );
    b.sys_wr(0, EOIR1, 1);
    assert!(b.gic.irq(0, World::NonSecure), "the one sent meanwhile");
    b.sys_wr(0, PMR, 0x80);
    assert!(
        !b.gic.irq(0, World::NonSecure),
        "masked by its own priority"
    );
}

#[test]
fn a_shared_interrupt_of_version_3_goes_where_it_is_routed() {
    let b = Bench::v3(20);
    b.wr(0, DIST + 0x104, 1 << 4);
    // CPU 17 is Aff1 1, Aff0 1.
    b.put(0, DIST + 0x6000 + 8 * 36, 8, 0x101);
    let line = b.gic.spi(4).line();
    line.set(true);
    let who: Vec<usize> = (0..20)
        .filter(|n| b.gic.irq(*n, World::NonSecure))
        .collect();
    assert_eq!(who, [17]);
    assert_eq!(b.kicks.load(Ordering::SeqCst), 1);
    assert_eq!((b.sys(0, IAR1), b.sys(17, IAR1)), (1023, 36));
    // Priority drop and deactivation apart.
    b.sys_wr(17, CTLR, 2);
    b.sys_wr(17, EOIR1, 36);
    assert!(!b.gic.irq(17, World::NonSecure));
    b.sys_wr(17, DIR, 36);
    assert!(b.gic.irq(17, World::NonSecure));
}

#[test]
fn software_interrupts_of_version_3_reach_a_cluster_or_all_others() {
    let b = Bench::v3(20);
    for cpu in 0..20 {
        b.wr(
            0,
            REDIST + cpu * REDISTRIBUTOR_LEN + SGI_FRAME + 0x100,
            0xffff,
        );
    }
    b.sys_wr(3, SGI1R, 7 << 24 | 1 << 16 | 0b1010);
    let who = |b: &Bench| -> Vec<usize> {
        (0..20)
            .filter(|n| b.gic.irq(*n, World::NonSecure))
            .collect()
    };
    assert_eq!(who(&b), [17, 19]);
    for cpu in who(&b) {
        assert_eq!(b.sys(cpu, IAR1), 7);
        b.sys_wr(cpu, EOIR1, 7);
    }
    b.sys_wr(3, SGI1R, 7 << 24 | 1 << 40);
    assert_eq!(who(&b).len(), 19);
    assert!(!b.gic.irq(3, World::NonSecure));
}

#[test]
fn group_0_of_version_3_is_a_fast_interrupt() {
    let b = Bench::v3(1);
    b.sys_wr(0, IGRPEN0, 1);
    b.wr(0, REDIST + SGI_FRAME + 0x80, 0);
    b.wr(0, REDIST + SGI_FRAME + 0x100, 1 << 27);
    b.gic.ppi(0, 27).line().set(true);
    let line = b.gic.ppi(0, 27).line();
    line.set(true);
    assert_eq!(
        (
            b.gic.irq(0, World::NonSecure),
            b.gic.fiq(0, World::NonSecure)
        ),
        (false, true)
    );
    assert_eq!((b.sys(0, IAR1), b.sys(0, icc(8, 0))), (1023, 27));
}

#[test]
fn redistributors_tell_who_they_are_for() {
    let b = Bench::v3(18);
    let typer = |cpu: u64| b.access(0, REDIST + cpu * REDISTRIBUTOR_LEN + 8, 8);
    assert_eq!(typer(0), 0);
    assert_eq!(typer(17), 0x101 << 32 | 17 << 8 | 1 << 4);
    assert_eq!(b.rd(0, REDIST + 0xffe8) >> 4 & 15, 3);
    assert_eq!(b.rd(0, DIST + 0xffe8) >> 4 & 15, 3);
    assert_eq!(b.rd(0, DIST + 4) & 31, 2);
}

#[test]
fn a_message_frame_owns_some_interrupts_and_no_others() {
    let b = Bench::v2(1);
    let config = GicV2mConfig {
        base: 0x802_0000,
        first_spi: 8,
        spis: 4,
    };
    let frame = GicV2m::new(b.gic.clone(), config);
    let sink = frame.sink();
    let placement = Placement {
        path: "gicv2m".into(),
        ..Placement::default()
    };
    b.fabric.add(Box::new(frame), placement).unwrap();
    assert_eq!(b.rd(0, 0x802_0008), 40 << 16 | 4);
    b.wr(0, DIST + 0x104, u64::from(u32::MAX));
    b.wr(0, DIST + 0xc08, u64::from(u32::MAX));
    for wrong in [39, 44, 0, 1023] {
        sink.message(0x802_0040, wrong, 0);
        b.wr(0, 0x802_0040, wrong.into());
        assert!(!b.gic.irq(0, World::NonSecure), "{wrong}");
    }
    sink.message(0x802_0044, 41, 0);
    assert!(!b.gic.irq(0, World::NonSecure));
    sink.message(0x802_0040, 41, 0);
    assert_eq!(b.rd(0, CPU_IF + 0xc), 41);
    b.wr(0, CPU_IF + 0x10, 41);
    b.wr(0, 0x802_0040, 43);
    assert_eq!(b.rd(0, CPU_IF + 0xc), 43);
}

#[test]
fn private_lines_are_each_cpus_own() {
    let b = Bench::v2(2);
    for cpu in [0, 1] {
        b.wr(cpu, DIST + 0x100, 1 << 30);
    }
    let line = b.gic.ppi(1, 30).line();
    line.set(true);
    assert_eq!(
        [0, 1].map(|n| b.gic.irq(n, World::NonSecure)),
        [false, true]
    );
    assert_eq!((b.rd(0, CPU_IF + 0xc), b.rd(1, CPU_IF + 0xc)), (1023, 30));
}

#[test]
fn too_many_cpus_are_refused() {
    let gic = Gic::new(GicVersion::V2, &[0; 9], 64);
    let fabric = Fabric::new(Clock::manual().0);
    let device = Box::new(GicV2Device::new(gic, DIST, CPU_IF));
    let error = fabric.add(device, Placement::default()).err().unwrap();
    assert!(error.to_string().contains("up to 8 CPUs"), "{error}");
}

fn registers(version: GicVersion) -> Vec<(u64, u64)> {
    match version {
        GicVersion::V2 => vec![(DIST, 0x1000), (CPU_IF, 0x2000)],
        GicVersion::V3 => vec![(DIST, 0x1_0000), (REDIST, 2 * REDISTRIBUTOR_LEN)],
    }
}

fn version() -> impl Strategy<Value = GicVersion> {
    prop_oneof![Just(GicVersion::V2), Just(GicVersion::V3)]
}

proptest! {
    #[test]
    fn random_traffic_neither_panics_nor_is_lost_by_saving(
        version in version(),
        two_states in any::<bool>(),
        traffic in proptest::collection::vec(
            (0..4u8, 0..2u64, any::<u64>(), 0..4u32, any::<u64>(), any::<u16>()), 1..120)
    ) {
        let security = if two_states { Security::Two } else { Security::None };
        let b = Bench::with(version, 2, security);
        let map = b.fabric.memory.snapshot();
        let lines: Vec<_> = (0..64).map(|n| b.gic.spi(n).line()).collect();
        let places = registers(version);
        for (what, cpu, at, shift, value, encoding) in traffic {
            let (base, len) = places[(at >> 32) as usize % places.len()];
            let size = 1u8 << shift;
            let at = (base + at % len) & !(u64::from(size) - 1);
            let by = Initiator::Cpu(cpu as u32);
            let attrs = Attrs { secure: value >> 54 & 1 != 0, ..Attrs::default() };
            match what {
                0 => drop(map.read(at, size, ByteOrder::Little, by, attrs)),
                1 => drop(map.write(at, size, value, ByteOrder::Little, by, attrs)),
                2 => lines[value as usize % 64].set(value >> 63 != 0),
                _ => {
                    let encoding = 3 << 14 | 12 << 7 | encoding & 0x7f;
                    let access = GicSystemAccess {
                        encoding: encoding | [0, 4, 6, 4][(value >> 60 & 3) as usize] << 11,
                        el: 1 + (value >> 61 & 1) as u8 + (value >> 53 & 1) as u8,
                        groups: (value >> 58 & 3) as u8,
                        monitored: (value >> 56 & 3) as u8,
                        secure: value >> 55 & 1 != 0,
                    };
                    let _ = b.gic.write_system(cpu as usize, access, value);
                    let _ = b.gic.read_system(cpu as usize, access);
                }
            }
        }
        let saved = b.part.with(|d| d.save());
        let other = Bench::with(version, 2, security);
        other.part.with(|d| d.restore(&saved)).unwrap();
        other.part.with(|d| d.after_reset());
        let worlds = [World::NonSecure, World::Secure, World::Monitor];
        for (cpu, world) in (0..2).flat_map(|cpu| worlds.map(|world| (cpu, world))) {
            prop_assert_eq!(b.gic.irq(cpu, world), other.gic.irq(cpu, world));
            prop_assert_eq!(b.gic.fiq(cpu, world), other.gic.fiq(cpu, world));
        }
        let state: GicState = b.gic.snapshot();
        prop_assert_eq!(state, other.gic.snapshot());
    }
}

#[test]
fn secure_interrupts_are_lent_to_non_secure_software_bit_by_bit() {
    let b = Bench::with(GicVersion::V3, 1, Security::Two);
    let map = b.fabric.memory.snapshot();
    let by = Initiator::Cpu(0);
    let write = |secure: bool, at: u64, size: u8, value: u64| {
        let attrs = Attrs {
            secure,
            ..Attrs::default()
        };
        map.write(at, size, value, ByteOrder::Little, by, attrs)
            .unwrap();
    };
    let read = |secure: bool, at: u64, size: u8| {
        let attrs = Attrs {
            secure,
            ..Attrs::default()
        };
        map.read(at, size, ByteOrder::Little, by, attrs).unwrap()
    };
    // SPI 36, in group 0: its field is bits 9 and 8 of the third word.
    let (nsacr, bit) = (DIST + 0xe08, 1 << 4);
    let (set, clear, active) = (DIST + 0x204, DIST + 0x284, DIST + 0x304);
    let route = DIST + 0x6000 + 8 * 36;
    write(true, DIST, 4, 0x37);
    let outcome = |field: u64| {
        write(true, nsacr, 4, field << 8);
        assert_eq!(read(true, nsacr, 4), field << 8);
        // Non-secure software does not see what it was lent.
        write(false, nsacr, 4, u64::MAX >> 32);
        assert_eq!(read(false, nsacr, 4), 0);
        write(true, clear, 4, bit);
        write(false, set, 4, bit);
        let sets = read(true, set, 4) & bit != 0;
        write(true, set, 4, bit);
        write(false, clear, 4, bit);
        let clears = read(true, set, 4) & bit == 0;
        write(true, active, 4, bit);
        let sees = read(false, active, 4) & bit != 0;
        write(false, active + 0x80, 4, bit);
        assert_eq!(read(true, active, 4) & bit, bit, "never changed");
        write(true, route, 8, 0);
        write(false, route, 8, 0x101);
        [sets, clears, sees, read(true, route, 8) != 0]
    };
    assert_eq!(outcome(0), [false, false, false, false]);
    assert_eq!(outcome(1), [true, false, false, false]);
    assert_eq!(outcome(2), [true, true, true, false]);
    assert_eq!(outcome(3), [true, true, true, true]);
    // Private ones: only SGIs are lent.
    write(true, REDIST + SGI_FRAME + 0xe00, 4, 0x5);
    write(true, REDIST + SGI_FRAME + 0xe04, 4, 0x5);
    assert_eq!(read(true, REDIST + SGI_FRAME + 0xe00, 4), 5);
    assert!(b.gic.snapshot().cpus[0].bank.lent == 5);
    // SGI 1, of group 0, by ICC_SGI0R_EL1; SGI 2 is not lent.
    let sgi = |n: u64| {
        let access = GicSystemAccess {
            encoding: icc(11, 7),
            el: 1,
            groups: 0,
            monitored: 0,
            secure: false,
        };
        b.gic.write_system(0, access, n << 24 | 1).unwrap();
        read(true, REDIST + SGI_FRAME + 0x200, 4) >> n & 1
    };
    assert_eq!((sgi(1), sgi(2)), (1, 0));
}

#[test]
fn a_state_of_another_shape_is_refused() {
    let two = Bench::v2(2);
    let saved = two.part.with(|d| d.save());
    for other in [Bench::v2(1), Bench::v3(2)] {
        assert!(other.part.with(|d| d.restore(&saved)).is_err());
    }
}

/// A guest under a hypervisor: its registers are virtual.
mod guest {
    use super::*;

    const fn reg(op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
        3 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
    }
    const PMR: u16 = reg(0, 4, 6, 0);
    const IAR1: u16 = reg(0, 12, 12, 0);
    const EOIR1: u16 = reg(0, 12, 12, 1);
    const HPPIR1: u16 = reg(0, 12, 12, 2);
    const BPR1: u16 = reg(0, 12, 12, 3);
    const CTLR: u16 = reg(0, 12, 12, 4);
    const IGRPEN0: u16 = reg(0, 12, 12, 6);
    const IGRPEN1: u16 = reg(0, 12, 12, 7);
    const DIR: u16 = reg(0, 12, 11, 1);
    const RPR: u16 = reg(0, 12, 11, 3);
    const SGI1R: u16 = reg(0, 12, 11, 5);
    const ICH_HCR: u16 = reg(4, 12, 11, 0);
    const ICH_VTR: u16 = reg(4, 12, 11, 1);
    const ICH_MISR: u16 = reg(4, 12, 11, 2);
    const ICH_EISR: u16 = reg(4, 12, 11, 3);
    const ICH_ELRSR: u16 = reg(4, 12, 11, 5);
    const ICH_VMCR: u16 = reg(4, 12, 11, 7);
    const LR: u16 = reg(4, 12, 12, 0);
    const PENDING: u64 = 1 << 62;
    const ACTIVE: u64 = 1 << 63;
    const GROUP_1: u64 = 1 << 60;
    const HW: u64 = 1 << 61;

    const fn from_guest(encoding: u16) -> GicSystemAccess {
        GicSystemAccess {
            el: 1,
            groups: 3,
            ..GicSystemAccess::physical(encoding)
        }
    }

    impl Bench {
        fn guest_reads(&self, encoding: u16) -> u64 {
            self.gic.read_system(0, from_guest(encoding)).unwrap()
        }
        fn guest_writes(&self, encoding: u16, value: u64) {
            self.gic
                .write_system(0, from_guest(encoding), value)
                .unwrap();
        }
        fn host_reads(&self, encoding: u16) -> u64 {
            let access = GicSystemAccess::physical(encoding);
            self.gic.read_system(0, access).unwrap()
        }
        fn host_writes(&self, encoding: u16, value: u64) {
            let access = GicSystemAccess::physical(encoding);
            self.gic.write_system(0, access, value).unwrap();
        }
    }

    /// A guest that takes interrupts of group 1, and a hypervisor that lists them.
    fn ready() -> Bench {
        let b = Bench::v3(1);
        b.host_writes(ICH_HCR, 1);
        b.guest_writes(PMR, 0xff);
        b.guest_writes(IGRPEN1, 1);
        b
    }

    fn entry(intid: u64, priority: u64) -> u64 {
        PENDING | GROUP_1 | priority << 48 | intid
    }

    #[test]
    fn a_listed_interrupt_is_taken_and_ended() {
        let b = ready();
        assert_eq!(b.host_reads(ICH_VTR) & 31, 3);
        assert_eq!(b.host_reads(ICH_ELRSR), 0xf);
        b.host_writes(LR + 1, entry(40, 0x80));
        b.host_writes(LR + 2, entry(41, 0x40));
        assert!(b.gic.virtual_irq(0) && !b.gic.virtual_fiq(0) && !b.gic.irq(0, World::NonSecure));
        assert_eq!(b.guest_reads(HPPIR1), 41);
        assert_eq!(b.guest_reads(IAR1), 41);
        assert_eq!(b.host_reads(LR + 2), ACTIVE | GROUP_1 | 0x40 << 48 | 41);
        assert_eq!(b.guest_reads(RPR), 0x40);
        // The other does not preempt it.
        assert!(!b.gic.virtual_irq(0));
        assert_eq!(b.guest_reads(IAR1), 1023);
        b.guest_writes(EOIR1, 41);
        assert_eq!(b.host_reads(LR + 2), GROUP_1 | 0x40 << 48 | 41);
        assert_eq!(b.guest_reads(RPR), 0xff);
        assert_eq!(b.guest_reads(IAR1), 40);
        assert_eq!(b.host_reads(ICH_ELRSR), 0b1101);
    }

    #[test]
    fn group_0_comes_as_fiq_and_masks_hold() {
        let b = ready();
        b.host_writes(LR, PENDING | 0x40 << 48 | 33);
        assert!(!b.gic.virtual_fiq(0));
        b.guest_writes(IGRPEN0, 1);
        assert!(b.gic.virtual_fiq(0) && !b.gic.virtual_irq(0));
        b.guest_writes(PMR, 0x40);
        assert!(!b.gic.virtual_fiq(0));
        // Registers of the guest's are fields of the hypervisor's.
        assert_eq!(b.host_reads(ICH_VMCR) >> 24, 0x40);
        assert_eq!(b.host_reads(ICH_VMCR) & 3, 3);
        b.guest_writes(BPR1, 0);
        assert_eq!(b.guest_reads(BPR1), 3);
        b.guest_writes(CTLR, 3);
        assert_eq!(b.guest_reads(CTLR) & 3, 3);
        b.host_writes(ICH_HCR, 0);
        assert!(!b.gic.virtual_fiq(0));
    }

    #[test]
    fn the_end_of_an_interrupt_of_a_wire_ends_the_real_one() {
        let b = ready();
        // The real one is active: the hypervisor only dropped its priority.
        b.gic.lock().state.cpus[0].bank.active = 1 << 27;
        b.host_writes(LR, entry(27, 0) | HW | 27 << 32);
        assert_eq!(b.guest_reads(IAR1), 27);
        b.guest_writes(EOIR1, 27);
        assert_eq!(b.gic.snapshot().cpus[0].bank.active, 0);
    }

    #[test]
    fn the_hypervisor_is_asked_to_look() {
        let b = ready();
        let line = |b: &Bench| b.gic.snapshot().cpus[0].bank.lines >> 25 & 1;
        // Fewer than two are listed.
        b.host_writes(ICH_HCR, 1 | 1 << 1);
        assert_eq!((b.host_reads(ICH_MISR), line(&b)), (2, 1));
        b.host_writes(LR, entry(40, 0) | 1 << 41);
        b.host_writes(LR + 1, entry(41, 8));
        assert_eq!((b.host_reads(ICH_MISR), line(&b)), (0, 0));
        // The end of one was asked for.
        assert_eq!(b.guest_reads(IAR1), 40);
        b.guest_writes(EOIR1, 40);
        assert_eq!((b.host_reads(ICH_EISR), b.host_reads(ICH_MISR)), (1, 3));
        // An interrupt ended that is not listed any more.
        b.host_writes(ICH_HCR, 1 | 1 << 2);
        b.host_writes(LR, 0);
        assert_eq!(b.guest_reads(IAR1), 41);
        b.host_writes(LR + 1, 0);
        b.guest_writes(EOIR1, 41);
        assert_eq!(b.host_reads(ICH_HCR) >> 27, 1);
        assert_eq!((b.host_reads(ICH_MISR), line(&b)), (4, 1));
        // The guest switched a group off.
        b.host_writes(ICH_HCR, 1 | 1 << 7);
        assert_eq!(b.host_reads(ICH_MISR), 0);
        b.guest_writes(IGRPEN1, 0);
        assert_eq!(b.host_reads(ICH_MISR), 0x80);
    }

    #[test]
    fn an_end_in_two_steps_deactivates_in_the_second() {
        let b = ready();
        b.guest_writes(CTLR, 2);
        b.host_writes(LR, entry(40, 0));
        b.guest_reads(IAR1);
        b.guest_writes(EOIR1, 40);
        assert_eq!(b.host_reads(LR) & ACTIVE, ACTIVE);
        b.guest_writes(DIR, 40);
        assert_eq!(b.host_reads(LR) & ACTIVE, 0);
    }

    #[test]
    fn what_a_hypervisor_wants_to_carry_out_itself_traps() {
        let b = ready();
        let send = b.gic.write_system(0, from_guest(SGI1R), 1);
        assert_eq!(send, Err(SystemFault::Trap));
        for (bit, encoding) in [(10, PMR), (11, IGRPEN0), (12, IAR1), (14, DIR)] {
            b.host_writes(ICH_HCR, 1 | 1 << bit);
            let read = b.gic.read_system(0, from_guest(encoding));
            assert_eq!(read, Err(SystemFault::Trap), "{bit}");
            let elsewhere = b.gic.read_system(0, GicSystemAccess::physical(encoding));
            assert_ne!(elsewhere, Err(SystemFault::Trap), "{bit}");
        }
    }
}
