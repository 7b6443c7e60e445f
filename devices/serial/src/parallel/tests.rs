use crate::ISA_PARALLEL;
use crate::testing::Bench;
use proptest::prelude::*;

const DATA: u64 = 0;
const STATUS: u64 = 1;
const CONTROL: u64 = 2;

fn bench() -> Bench {
    Bench::new(&ISA_PARALLEL, 0x378, &[])
}

#[test]
fn the_rising_strobe_prints_and_acknowledges() {
    let b = bench();
    b.wr(DATA, b'P');
    b.wr(CONTROL, 0x1c);
    b.wr(CONTROL, 0x1d);
    b.wr(CONTROL, 0x1d);
    b.wr(CONTROL, 0x1c);
    assert_eq!(b.out(), b"P");
    assert_eq!(*b.edges.lock().unwrap(), [(7, true), (7, false)]);
    assert_eq!(b.rd(STATUS), 0xd8);
    assert_eq!(b.rd(CONTROL), 0xdc);
}

#[test]
fn a_stalled_stream_shows_as_busy() {
    let b = bench();
    b.stream.lock().unwrap().takes = 0;
    b.wr(DATA, b'Q');
    b.wr(CONTROL, 0x0d);
    assert_eq!(b.rd(STATUS) & 0x80, 0);
    b.stream.lock().unwrap().takes = 1;
    b.inbox().wake();
    assert_eq!(b.rd(STATUS) & 0x80, 0x80);
    assert_eq!(b.out(), b"Q");
}

#[test]
fn the_data_lines_can_be_inputs() {
    let b = bench();
    b.wr(DATA, 0x5a);
    assert_eq!(b.rd(DATA), 0x5a);
    b.wr(CONTROL, 0x2c);
    assert_eq!(b.rd(DATA), 0xff);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_traffic_ends_in_values_and_a_saved_port_is_the_same(
        ops in proptest::collection::vec((any::<bool>(), 0u64..3, 0usize..3, any::<u32>()), 1..40),
    ) {
        let b = bench();
        b.stream.lock().unwrap().takes = 5;
        for (write, offset, size, value) in ops {
            let size = [1, 2, 4][size];
            if write { b.write_sized(offset, size, value.into()) } else { b.read_sized(offset, size); }
        }
        let saved = b.part.with(|d| d.save());
        let other = bench();
        other.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(other.part.with(|d| d.save()), saved);
    }
}
