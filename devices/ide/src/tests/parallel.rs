//! The IDE function: ports, packets, bus master.

use backend_block::{BlockError, Operation};

use super::{Bench, text};
use crate::Piix3Ide;

const FIRST: u64 = 0x1f0;
const SECOND: u64 = 0x170;
const MASTER: u64 = 0xc000;

fn bench() -> Bench {
    let bench = Bench::new(Box::new(Piix3Ide::new(8)));
    bench.config(0x20, 4, MASTER);
    bench.config(4, 2, 5);
    bench
}

impl Bench {
    /// A command with a 28-bit address.
    fn command(&self, base: u64, command: u8, lba: u32, count: u8) {
        self.out(base + 2, 1, count.into());
        for (n, byte) in lba.to_le_bytes().into_iter().take(3).enumerate() {
            self.out(base + 3 + n as u64, 1, byte.into());
        }
        self.out(base + 6, 1, u64::from(0xe0 | (lba >> 24) as u8 & 0xf));
        self.out(base + 7, 1, command.into());
    }

    fn status(&self, base: u64) -> u8 {
        self.inp(base + 0x206, 1) as u8
    }

    fn words(&self, base: u64, bytes: usize) -> Vec<u8> {
        (0..bytes / 2)
            .flat_map(|_| (self.inp(base, 2) as u16).to_le_bytes())
            .collect()
    }

    /// A packet, its data moved through the data port, at most so many bytes at a time. Answers them
    /// and the status.
    fn packet(&self, packet: &[u8], limit: u16) -> (Vec<u8>, u8) {
        let [low, high] = limit.to_le_bytes();
        self.out(SECOND + 1, 1, 0);
        self.out(SECOND + 4, 1, low.into());
        self.out(SECOND + 5, 1, high.into());
        self.out(SECOND + 7, 1, 0xa0);
        assert_eq!((self.status(SECOND) & 8, self.inp(SECOND + 2, 1)), (8, 1));
        let mut whole = packet.to_vec();
        whole.resize(12, 0);
        for pair in whole.chunks(2) {
            self.out(SECOND, 2, u16::from_le_bytes([pair[0], pair[1]]).into());
        }
        let mut data = Vec::new();
        loop {
            self.run();
            assert!(self.irq(15));
            let status = self.inp(SECOND + 7, 1) as u8;
            if status & 8 == 0 {
                assert_eq!(self.inp(SECOND + 2, 1) & 3, 3);
                return (data, status);
            }
            assert_eq!(self.inp(SECOND + 2, 1) & 3, 2);
            let len = self.inp(SECOND + 4, 1) | self.inp(SECOND + 5, 1) << 8;
            assert!(len <= u64::from(limit));
            data.extend(self.words(SECOND, (len as usize).next_multiple_of(2)));
        }
    }

    /// One entry of a bus master's table.
    fn table(&self, master: u64, address: u32, len: u16) {
        let mut entry = address.to_le_bytes().to_vec();
        entry.extend(len.to_le_bytes());
        entry.extend([0, 0x80]);
        self.poke(0x1000, &entry);
        self.out(master + 4, 4, 0x1000);
    }
}

#[test]
fn identify_tells_model_serial_and_size() {
    let b = bench();
    b.command(FIRST, 0xec, 0, 0);
    assert!(b.irq(14));
    assert_eq!(b.inp(FIRST + 7, 1), 0x58);
    assert!(!b.irq(14));
    let identify = b.words(FIRST, 512);
    assert_eq!(text(&identify, 27, 20), "QEMU HARDDISK");
    assert_eq!(text(&identify, 10, 10), "S1");
    assert_eq!(identify[120..124], 2048u32.to_le_bytes());
    let sum = identify
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!((sum, b.status(FIRST)), (0, 0x50));
    // A drive for packets says what it is instead.
    b.command(SECOND, 0xec, 0, 0);
    assert_eq!(b.inp(SECOND + 7, 1) & 1, 1);
    assert_eq!((b.inp(SECOND + 4, 1), b.inp(SECOND + 5, 1)), (0x14, 0xeb));
}

#[test]
fn sectors_come_through_the_data_port_with_an_interrupt_each() {
    let b = bench();
    b.command(FIRST, 0x20, 5, 2);
    assert_eq!(b.status(FIRST) & 0x80, 0x80);
    b.run();
    for sector in [5, 6] {
        assert!(b.irq(14));
        assert_eq!(b.inp(FIRST + 7, 1), 0x58);
        assert_eq!(b.words(FIRST, 512), [sector; 512]);
    }
    assert!(!b.irq(14));
    assert_eq!(b.status(FIRST), 0x50);
}

#[test]
fn sectors_are_written_through_the_data_port() {
    let b = bench();
    b.command(FIRST, 0x30, 7, 2);
    for byte in [0xaa, 0xbb] {
        assert_eq!(b.status(FIRST), 0x58);
        for _ in 0..128 {
            b.out(FIRST, 4, u64::from(u32::from_le_bytes([byte; 4])));
        }
        b.run();
        assert!(b.irq(14));
        b.inp(FIRST + 7, 1);
    }
    assert_eq!(b.status(FIRST), 0x50);
    let bytes = b.disk.bytes.lock().unwrap();
    assert_eq!(bytes[7 * 512..8 * 512], [0xaa; 512]);
    assert_eq!(bytes[8 * 512..9 * 512], [0xbb; 512]);
}

#[test]
fn the_bus_master_moves_data_whichever_side_is_ready_first() {
    let b = bench();
    for master_first in [false, true] {
        b.table(MASTER, 0x2000, 1024);
        b.out(MASTER + 2, 1, 6);
        let begin = |master: bool| match master {
            true => b.out(MASTER, 1, 9),
            false => b.command(FIRST, 0xc8, 9, 2),
        };
        begin(master_first);
        begin(!master_first);
        assert_eq!(b.inp(MASTER + 2, 1) & 7, 1);
        b.save_and_restore();
        b.run();
        assert!(b.irq(14));
        assert_eq!(b.inp(MASTER + 2, 1) & 7, 4);
        assert_eq!(b.inp(FIRST + 7, 1), 0x50);
        let memory = b.peek(0x2000, 1024);
        assert_eq!((memory[0], memory[512]), (9, 10));
        b.out(MASTER, 1, 0);
        b.poke(0x2000, &[0; 1024]);
    }
    // And the other way, with a flush as the write cache is off.
    b.out(FIRST + 1, 1, 0x82);
    b.command(FIRST, 0xef, 0, 0);
    b.run();
    b.table(MASTER, 0x2000, 512);
    b.poke(0x2000, &[0x77; 512]);
    b.command(FIRST, 0xca, 100, 1);
    b.out(MASTER, 1, 1);
    b.run();
    assert_eq!(b.inp(FIRST + 7, 1), 0x50);
    assert_eq!(b.disk.bytes.lock().unwrap()[51_200..51_712], [0x77; 512]);
    assert_eq!(b.disk.log.lock().unwrap().last(), Some(&Operation::Flush));
}

#[test]
fn a_table_that_is_too_short_ends_in_an_error_and_not_in_memory() {
    let b = bench();
    b.table(MASTER, 0x2000, 512);
    b.command(FIRST, 0xc8, 0, 2);
    b.out(MASTER, 1, 9);
    assert_eq!(b.inp(FIRST + 7, 1) & 1, 1);
    assert!(b.disk.log.lock().unwrap().is_empty());
    b.table(MASTER, 0xffff_0000, 1024);
    b.command(FIRST, 0xc8, 0, 2);
    b.out(MASTER, 1, 0);
    b.out(MASTER, 1, 9);
    assert_eq!(b.inp(MASTER + 2, 1) & 3, 2);
}

#[test]
fn addresses_beyond_the_end_and_unknown_commands_fail() {
    let b = bench();
    b.command(FIRST, 0x20, 2047, 2);
    assert_eq!((b.inp(FIRST + 7, 1), b.inp(FIRST + 1, 1)), (0x51, 0x10));
    b.command(FIRST, 0xfe, 0, 0);
    assert_eq!((b.inp(FIRST + 7, 1), b.inp(FIRST + 1, 1)), (0x51, 4));
    *b.disk.fails.lock().unwrap() = Some(BlockError::Io);
    b.command(FIRST, 0x20, 3, 1);
    b.run();
    assert_eq!((b.inp(FIRST + 7, 1), b.inp(FIRST + 1, 1)), (0x51, 0x40));
    assert_eq!(b.inp(FIRST + 3, 1), 3);
}

#[test]
fn a_software_reset_gives_up_and_shows_signatures() {
    let b = bench();
    b.command(FIRST, 0x20, 5, 2);
    b.out(FIRST + 0x206, 1, 6);
    assert_eq!(b.status(FIRST), 0x80);
    b.out(FIRST + 0x206, 1, 0);
    b.run();
    assert_eq!(b.status(FIRST), 0x50);
    assert!(!b.irq(14));
    b.out(SECOND + 0x206, 1, 4);
    b.out(SECOND + 0x206, 1, 0);
    assert_eq!((b.inp(SECOND + 4, 1), b.inp(SECOND + 5, 1)), (0x14, 0xeb));
}

#[test]
fn packets_read_the_medium_in_pieces_of_the_host_s_size() {
    let b = bench();
    let (capacity, status) = b.packet(&[0x25], 8);
    assert_eq!(
        (capacity.as_slice(), status),
        (&[0, 0, 1, 255, 0, 0, 8, 0][..], 0x50)
    );
    let (data, status) = b.packet(&[0x28, 0, 0, 0, 0, 3, 0, 0, 2], 0xfe);
    assert_eq!((data.len(), status), (4096, 0x50));
    assert_eq!((data[0], data[2048], data[4095]), (12, 16, 19));
    let (inquiry, _) = b.packet(&[0x12, 0, 0, 0, 36], 0xfffe);
    assert_eq!(inquiry[..2], [5, 0x80]);
    let (toc, _) = b.packet(&[0x43, 0, 0, 0, 0, 0, 0, 0, 100], 0xfffe);
    assert_eq!(toc[..4], [0, 18, 1, 1]);
    assert_eq!(toc[16..20], [0, 0, 2, 0]);
}

#[test]
fn a_medium_that_was_changed_is_told_of_once() {
    let b = bench();
    let sense = || {
        let (data, _) = b.packet(&[0x03, 0, 0, 0, 18], 18);
        (data[2], data[12], data[13])
    };
    b.packet(&[0x1e, 0, 0, 0, 1], 0);
    assert!(b.tray.is_locked() && b.tray.open(false).is_err());
    let (events, _) = b.packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], 8);
    assert_eq!(events, [0, 6, 4, 0x10, 1, 2, 0, 0]);
    b.tray.open(true).unwrap();
    let old = b.tray.remove().unwrap().unwrap();
    assert_eq!(b.packet(&[0], 0).1 & 1, 1);
    assert_eq!(sense(), (2, 0x3a, 2));
    b.tray.insert(old).unwrap();
    b.tray.set_open(false);
    assert_eq!(b.packet(&[0], 0).1 & 1, 1);
    assert_eq!(sense(), (6, 0x28, 0));
    assert_eq!(b.packet(&[0], 0).1, 0x50);
    let (events, _) = b.packet(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], 8);
    assert_eq!(events, [0, 6, 4, 0x10, 2, 2, 0, 0]);
    // The guest opens it itself, once it lets go.
    assert_eq!(b.packet(&[0x1b, 0, 0, 0, 2], 0).1 & 1, 1);
    b.packet(&[0x1e], 0);
    assert_eq!(b.packet(&[0x1b, 0, 0, 0, 2], 0).1, 0x50);
    assert!(b.tray.is_open());
}

#[test]
fn a_command_under_way_is_begun_again_after_a_restore() {
    let b = bench();
    b.command(FIRST, 0x20, 5, 1);
    b.save_and_restore();
    b.run();
    assert!(b.irq(14));
    b.inp(FIRST, 2);
    b.save_and_restore();
    assert_eq!(b.words(FIRST, 510), [5; 510]);
    assert_eq!(b.status(FIRST), 0x50);
}
