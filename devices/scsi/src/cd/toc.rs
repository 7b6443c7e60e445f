//! READ TOC/PMA/ATIP (MMC-5, 6.26): one data track.

use hw_scsi::Cdb;

use crate::counted;

/// Frames of a second, and those before block 0.
const FRAMES: u32 = 75;
const LEAD_IN: u32 = 150;
/// A data track, position in the Q channel.
const DATA: u8 = 0x14;
const LEAD_OUT: u8 = 0xaa;

/// Minutes, seconds and frames of a block.
fn msf(block: u32) -> [u8; 3] {
    let frames = block.saturating_add(LEAD_IN);
    let part = |n: Option<u32>| n.unwrap_or(0).min(255) as u8;
    let seconds = frames.checked_div(FRAMES).unwrap_or(0);
    [
        part(seconds.checked_div(60)),
        part(seconds.checked_rem(60)),
        part(frames.checked_rem(FRAMES)),
    ]
}

fn address(block: u32, in_msf: bool) -> [u8; 4] {
    if !in_msf {
        return block.to_be_bytes();
    }
    let [m, s, f] = msf(block);
    [0, m, s, f]
}

/// The answer for a medium of so many blocks; `None` for formats that it has not.
pub(super) fn toc(cdb: Cdb<'_>, blocks: u32) -> Option<Vec<u8>> {
    let in_msf = cdb.byte(1) & 2 != 0;
    let start = cdb.byte(6);
    // Drivers of old put the format into the last byte (SFF-8020i, 9.8.16).
    let format = match cdb.byte(2) & 0xf {
        0 => cdb.byte(9) >> 6,
        format => format,
    };
    let mut bytes = vec![1, 1];
    match format {
        0 => {
            if start > 1 && start != LEAD_OUT {
                return None;
            }
            let track = |number: u8, block: u32| {
                let mut entry = vec![0, DATA, number, 0];
                entry.extend(address(block, in_msf));
                entry
            };
            if start <= 1 {
                bytes.extend(track(1, 0));
            }
            bytes.extend(track(LEAD_OUT, blocks));
        }
        1 => {
            bytes.extend([0, DATA, 1, 0]);
            bytes.extend(address(0, in_msf));
        }
        2 => {
            let mut entry = |point: u8, place: [u8; 3]| {
                bytes.extend([1, DATA, 0, point, 0, 0, 0, 0]);
                bytes.extend(place);
            };
            // First track, last track, lead-out, the track itself.
            entry(0xa0, [1, 0, 0]);
            entry(0xa1, [1, 0, 0]);
            entry(0xa2, msf(blocks));
            entry(1, msf(0));
        }
        _ => return None,
    }
    Some(counted(bytes))
}
