use super::*;
use crate::ISA_SERIAL;
use crate::testing::Bench;
use hw_core::{Attrs, RegionId};
use proptest::prelude::*;

const THR: u64 = 0;
const RBR: u64 = 0;
const IER: u64 = 1;
const IIR: u64 = 2;
const FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;
const SCR: u64 = 7;

fn bench() -> Bench {
    Bench::new(&ISA_SERIAL, 0x3f8, &[])
}

#[test]
fn characters_leave_in_order_and_the_transmitter_is_empty_at_once() {
    let b = bench();
    for c in b"hello" {
        assert_eq!(b.rd(LSR) & 0x60, 0x60);
        b.wr(THR, *c);
    }
    assert_eq!(b.out(), b"hello");
}

#[test]
fn a_stalled_stream_shows_in_thre_and_loses_nothing_that_fits_the_fifo() {
    let b = bench();
    b.stream.lock().unwrap().takes = 2;
    b.wr(FCR, 1);
    for c in b'a'..=b'p' {
        b.wr(THR, c);
    }
    assert_eq!(b.rd(LSR) & 0x60, 0);
    assert_eq!(b.out(), b"ab");
    b.wr(IER, 2);
    assert!(!b.pin());
    b.stream.lock().unwrap().takes = usize::MAX;
    b.inbox().wake();
    assert_eq!(b.out(), b"abcdefghijklmnop");
    assert_eq!(b.rd(LSR) & 0x60, 0x60);
    assert!(b.pin());
}

#[test]
fn reading_iir_clears_the_transmitter_interrupt_and_writing_thr_sets_it_again() {
    let b = bench();
    b.wr(IER, 2);
    assert!(b.pin());
    assert_eq!(b.rd(IIR), 0x02);
    assert!(!b.pin());
    assert_eq!(b.rd(IIR), 0x01);
    b.wr(THR, b'x');
    assert!(b.pin());
    b.wr(IER, 0);
    assert!(!b.pin());
    b.wr(IER, 2);
    assert!(b.pin());
}

#[test]
fn without_fifo_one_character_is_taken_and_the_rest_waits_outside() {
    let b = bench();
    assert_eq!(b.inbox().room(), 1);
    b.wr(IER, 1);
    b.inbox().receive(b"1");
    assert_eq!(b.inbox().room(), 0);
    assert!(b.pin());
    assert_eq!(b.rd(IIR), 0x04);
    assert_eq!(b.rd(LSR) & 1, 1);
    assert_eq!(b.rd(RBR), b'1');
    assert!(!b.pin());
    assert_eq!(b.stream.lock().unwrap().accepts, 1);
    assert_eq!(b.rd(LSR) & 1, 0);
}

#[test]
fn the_fifo_raises_its_interrupt_at_the_trigger_level() {
    let b = bench();
    b.wr(FCR, 0x81);
    b.wr(IER, 1);
    b.inbox().receive(b"1234567");
    assert!(!b.pin());
    b.inbox().receive(b"8");
    assert_eq!(b.rd(IIR), 0xc4);
    assert_eq!(b.rd(RBR), b'1');
    assert!(!b.pin());
}

#[test]
fn characters_below_the_trigger_level_raise_a_timeout() {
    let b = bench();
    b.wr(FCR, 0xc1);
    b.wr(LCR, 3);
    b.wr(IER, 1);
    b.inbox().receive(b"ab");
    // Four characters of ten bits at 9600 baud.
    b.pass_ns(4_166_000);
    assert!(!b.pin());
    b.pass_ns(1_000);
    assert_eq!(b.rd(IIR), 0xcc);
    assert_eq!(b.rd(RBR), b'a');
    assert!(!b.pin());
    b.pass_ns(5_000_000);
    assert!(b.pin());
    assert_eq!(b.rd(RBR), b'b');
    assert_eq!(b.rd(IIR), 0xc1);
    b.pass_ns(5_000_000);
    assert!(!b.pin());
}

#[test]
fn a_break_is_a_line_status_interrupt_of_highest_priority() {
    let b = bench();
    b.wr(FCR, 1);
    b.wr(IER, 0x0f);
    b.inbox().receive(b"a");
    b.inbox().send_break();
    assert_eq!(b.rd(IIR), 0xc4);
    assert_eq!(b.rd(LSR), 0xe1);
    b.rd(RBR);
    assert_eq!(b.rd(IIR), 0xc6);
    assert_eq!(b.rd(LSR), 0xf1);
    assert_eq!(b.rd(LSR), 0x61);
    assert_eq!(b.rd(RBR), 0);
}

#[test]
fn loop_back_joins_modem_outputs_to_inputs_as_linux_probes() {
    let b = bench();
    // The kernel's autoconfig: LOOP | OUT2 | RTS must read back as DCD | CTS.
    b.wr(MCR, 0x1a);
    assert_eq!(b.rd(MSR) & 0xf0, 0x90);
    b.wr(MCR, 0x1f);
    assert_eq!(b.rd(MSR) & 0xf0, 0xf0);
    b.wr(MCR, 0x10);
    // All four inputs fell, the ring indicator's trailing edge too.
    assert_eq!(b.rd(MSR), 0x0f);
    assert_eq!(b.rd(MSR), 0);
    b.wr(MCR, 0x08);
    assert_eq!(b.rd(MSR), 0xbb);
}

#[test]
fn loop_back_returns_characters_and_counts_an_overrun() {
    let b = bench();
    b.wr(MCR, 0x10);
    b.wr(THR, 0x55);
    assert_eq!(b.rd(LSR) & 3, 1);
    b.wr(THR, 0x66);
    assert_eq!(b.rd(LSR) & 3, 3);
    assert_eq!(b.rd(LSR) & 3, 1);
    assert_eq!(b.rd(RBR), 0x66);
    assert!(b.out().is_empty());
}

#[test]
fn out2_gates_the_pin() {
    let b = bench();
    b.wr(IER, 2);
    assert!(b.pin());
    b.wr(MCR, 0);
    assert!(!b.pin());
    b.wr(MCR, 8);
    assert!(b.pin());
}

#[test]
fn a_modem_change_raises_the_lowest_interrupt() {
    let b = bench();
    b.wr(IER, 8);
    b.wr(MCR, 0x18);
    assert_eq!(b.rd(IIR), 0x00);
    assert!(b.pin());
    b.rd(MSR);
    assert!(!b.pin());
}

#[test]
fn the_divisor_latch_hides_behind_dlab() {
    let b = bench();
    b.wr(IER, 5);
    b.wr(LCR, 0x83);
    b.wr(0, 1);
    b.wr(1, 0);
    assert_eq!((b.rd(0), b.rd(1)), (1, 0));
    b.wr(LCR, 3);
    assert_eq!(b.rd(IER), 5);
    assert!(b.out().is_empty());
    b.wr(SCR, 0xa5);
    assert_eq!(b.rd(SCR), 0xa5);
}

#[test]
fn fcr_clears_fifos_and_shows_in_iir() {
    let b = bench();
    b.wr(FCR, 1);
    b.inbox().receive(b"abc");
    assert_eq!(b.rd(IIR) & 0xc0, 0xc0);
    b.wr(FCR, 3);
    assert_eq!(b.rd(LSR) & 1, 0);
    b.inbox().receive(b"abc");
    b.wr(FCR, 0);
    assert_eq!(b.rd(LSR) & 1, 0);
    assert_eq!(b.rd(IIR) & 0xc0, 0);
}

#[test]
fn a_break_set_in_lcr_reaches_the_stream() {
    let b = bench();
    b.wr(LCR, 0x43);
    b.wr(LCR, 0x43);
    b.wr(LCR, 0x03);
    assert_eq!(b.stream.lock().unwrap().breaks, [true, false]);
}

#[test]
fn a_debugger_reads_without_side_effects() {
    let b = bench();
    b.inbox().receive(b"z");
    let access = Access {
        region: RegionId(0),
        offset: RBR,
        size: 1,
        by: Initiator::Debug,
        attrs: Attrs::default(),
    };
    assert_eq!(b.part.with(|d| d.read(access)), Ok(u64::from(b'z')));
    assert_eq!(b.rd(RBR), b'z');
}

#[test]
fn ports_and_interrupts_follow_from_the_index_or_the_first_free_place() {
    let com2 = Bench::new(&ISA_SERIAL, 0x2f8, &[("index", "1")]);
    com2.wr(IER, 2);
    assert_eq!(*com2.edges.lock().unwrap(), [(3, true)]);
    let b = bench();
    let placement = hw_core::Placement {
        path: "second".into(),
        ..hw_core::Placement::default()
    };
    let uart = Box::new(Uart16550::new(Wish::default(), None));
    b.fabric.add(uart, placement).unwrap();
    assert!(b.fabric.ports.snapshot().find(0x2f8).is_some());
    let args = hw_core::Args::new(&ISA_SERIAL, [("index", "4")]).unwrap();
    let fifth = (ISA_SERIAL.create)(&args, &mut hw_core::Links::default()).unwrap();
    let error = b.fabric.add(fifth, hw_core::Placement::default());
    assert!(error.err().unwrap().to_string().contains("at most 4"));
}

#[test]
fn a_reset_port_is_as_new() {
    let b = bench();
    let fresh = b.part.with(|d| d.save());
    for (offset, value) in [(IER, 15), (FCR, 0xc1), (LCR, 0x9b), (MCR, 0x1f), (0, 7)] {
        b.wr(offset, value);
    }
    b.fabric.reset(hw_core::ResetKind::Cold);
    assert_eq!(b.part.with(|d| d.save()), fresh);
    assert!(!b.pin());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_traffic_ends_in_values_and_a_saved_port_is_the_same(
        ops in proptest::collection::vec((0u8..5, 0u64..8, 0usize..3, any::<u32>()), 1..80),
    ) {
        let b = bench();
        b.stream.lock().unwrap().takes = 20;
        for (kind, offset, size, value) in ops {
            let size = [1, 2, 4][size];
            match kind {
                0 | 1 => b.write_sized(offset, size, value.into()),
                2 => { b.read_sized(offset, size); }
                3 => {
                    let room = b.inbox().room();
                    b.inbox().receive(&vec![value as u8; room.min(5)]);
                }
                _ => b.pass_ns(u64::from(value) % 1_000_000),
            }
        }
        let saved = b.part.with(|d| d.save());
        let other = bench();
        other.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(other.part.with(|d| d.save()), saved);
        other.part.with(|d| d.after_reset());
        prop_assert_eq!(other.pin(), b.pin());
    }

    #[test]
    fn a_mutated_section_ends_in_a_port_or_an_error(at in 0usize..400, to: u8) {
        let b = bench();
        let mut bytes = hw_state::codec::encode(&b.part.with(|d| d.save()));
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(section) = hw_state::codec::decode(&bytes) {
            let _ = b.part.with(|d| d.restore(&section));
            b.part.with(|d| d.after_reset());
            b.rd(IIR);
        }
    }
}

#[test]
fn a_ring_buffer_chardev_is_the_other_end() {
    let events = runtime::EventLoop::new().unwrap();
    let spec = backend_char::CharSpec::parse("ringbuf,id=c,size=16").unwrap();
    let chardev = backend_char::Chardev::open(&spec, &events.handle()).unwrap();
    let mut links = hw_core::Links::default();
    links.offer("chardev", "c", chardev.frontend().unwrap());
    let args = hw_core::Args::new(&ISA_SERIAL, [("chardev", "c")]).unwrap();
    let fabric = hw_core::Fabric::new(Clock::manual().0);
    let uart = (ISA_SERIAL.create)(&args, &mut links).unwrap();
    let part = fabric.add(uart, hw_core::Placement::default()).unwrap();
    let thr = Access {
        region: RegionId(0),
        offset: THR,
        size: 1,
        by: Initiator::Cpu(0),
        attrs: Attrs::default(),
    };
    part.with(|d| d.write(thr, b'!'.into())).unwrap();
    assert_eq!(chardev.ringbuf_read(16), Some(b"!".to_vec()));
}
