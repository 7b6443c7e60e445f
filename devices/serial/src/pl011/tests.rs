use proptest::prelude::*;

use super::*;
use crate::testing::Bench;

const DR: u64 = 0x00;
const FR: u64 = 0x18;
const LCR_H: u64 = 0x2c;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const ICR: u64 = 0x44;

fn bench() -> Bench {
    Bench::in_memory(&PL011, 0x900_0000)
}

#[test]
fn output_leaves_at_once_and_asks_for_more() {
    let b = bench();
    b.wr32(LCR_H, 0x70);
    b.wr32(IMSC, 0x20);
    assert!(!b.pin());
    for byte in b"hi\n" {
        b.wr32(DR, (*byte).into());
    }
    assert_eq!(b.out(), b"hi\n");
    assert!(b.pin());
    assert_eq!(b.rd32(FR) & 0xa0, 0x80, "empty, not full");
    b.wr32(ICR, 0x20);
    assert!(!b.pin());
}

#[test]
fn a_stalled_stream_fills_the_fifo_and_wakes_it_later() {
    let b = bench();
    b.wr32(LCR_H, 0x70);
    b.wr32(IMSC, 0x20);
    b.stream.lock().unwrap().takes = 0;
    for n in 0..20 {
        b.wr32(DR, n);
    }
    assert_eq!(b.rd32(FR) & 0xa8, 0x28, "full and busy");
    assert!(!b.pin());
    b.stream.lock().unwrap().takes = usize::MAX;
    b.inbox().wake();
    assert_eq!(b.out(), (0..16).collect::<Vec<u8>>());
    assert!(b.pin());
}

#[test]
fn a_lone_character_comes_by_the_receive_timeout() {
    let b = bench();
    b.wr32(LCR_H, 0x70);
    b.wr32(IMSC, 0x50);
    b.inbox().receive(b"x");
    assert_eq!((b.pin(), b.rd32(RIS)), (true, 0x40));
    assert_eq!(b.rd32(DR), u64::from(b'x'));
    assert_eq!((b.pin(), b.rd32(FR) & 0x10), (false, 0x10));
}

#[test]
fn the_receive_interrupt_has_a_level() {
    let b = bench();
    b.wr32(LCR_H, 0x70);
    b.inbox().receive(b"1234567");
    assert_eq!(b.rd32(RIS) & 0x10, 0);
    b.inbox().receive(b"8");
    assert_eq!(b.rd32(RIS) & 0x10, 0x10);
    b.rd32(DR);
    assert_eq!(b.rd32(RIS) & 0x50, 0x40);
}

#[test]
fn without_fifos_there_is_room_for_one_and_the_stream_waits() {
    let b = bench();
    assert_eq!(b.inbox().room(), 1);
    b.inbox().receive(b"ab");
    assert_eq!((b.rd32(DR), b.rd32(DR)), (b'a'.into(), b'b'.into()));
    assert!(b.stream.lock().unwrap().accepts > 0);
}

#[test]
fn a_break_is_marked() {
    let b = bench();
    b.inbox().send_break();
    assert_eq!(b.rd32(RIS) & 0x200, 0x200);
    assert_eq!(b.rd32(DR), 0x400);
    assert_eq!(b.rd32(4), 4);
    b.wr32(LCR_H, 1);
    assert_eq!(b.stream.lock().unwrap().breaks, [true]);
}

#[test]
fn in_loop_back_it_hears_itself() {
    let b = bench();
    b.wr32(0x30, 0x380);
    b.wr32(DR, 0x55);
    assert_eq!((b.out(), b.rd32(DR)), (vec![], 0x55));
}

#[test]
fn it_says_who_it_is() {
    let b = bench();
    let id: Vec<u64> = (0..8).map(|n| b.rd32(0xfe0 + 4 * n)).collect();
    assert_eq!(id, [0x11, 0x10, 0x14, 0, 0x0d, 0xf0, 0x05, 0xb1]);
}

proptest! {
    #[test]
    fn random_traffic_neither_panics_nor_is_lost_by_saving(
        traffic in proptest::collection::vec((0..3u8, any::<u16>(), any::<u32>()), 1..60)
    ) {
        let b = bench();
        for (what, at, value) in traffic {
            let at = u64::from(at & 0xffc);
            match what {
                0 => b.wr32(at, value.into()),
                1 => drop(b.read_sized(at, 4)),
                _ => b.inbox().receive(&value.to_le_bytes()),
            }
        }
        let other = bench();
        let saved = b.part.with(|d| d.save());
        other.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(saved, other.part.with(|d| d.save()));
        other.part.with(|d| d.after_reset());
        for at in (0..0x1000).step_by(4) {
            let (one, two) = (b.read_sized(at, 4), other.read_sized(at, 4));
            prop_assert_eq!(one, two, "{:#x}", at);
        }
    }
}
