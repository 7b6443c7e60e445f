//! Physical region pages: where a command's data are (NVMe, 4.3).

use backend_block::IoVector;
use hw_core::Dma;

use crate::command::{Command, Status};

const POINTER: u64 = 8;

/// Addresses and lengths of `len` bytes, with pages of `page` bytes.
pub(crate) fn ranges(
    dma: &Dma,
    [first, second]: [u64; 2],
    len: u64,
    page: u64,
) -> Result<Vec<(u64, u64)>, Status> {
    let offset = |address: u64| address & page.wrapping_sub(1);
    if offset(first) & 3 != 0 {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    let here = page.saturating_sub(offset(first)).min(len);
    let mut ranges = vec![(first, here)];
    let mut left = len.saturating_sub(here);
    if left == 0 {
        return Ok(ranges);
    }
    if left <= page {
        if offset(second) != 0 {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        ranges.push((second, left));
        return Ok(ranges);
    }
    if second & POINTER.wrapping_sub(1) != 0 {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    let mut list = second;
    // All lists but the first begin at a page's start, so each has entries of data.
    loop {
        let room = page.saturating_sub(offset(list)).checked_div(POINTER);
        let room = room.unwrap_or(0);
        let needed = left.div_ceil(page);
        let count = room.min(needed);
        let mut bytes = vec![0; usize::try_from(count.wrapping_mul(POINTER)).unwrap_or(0)];
        let read = dma.read(list, &mut bytes);
        read.map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        let (entries, _) = bytes.as_chunks::<8>();
        let mut next = None;
        for (n, entry) in (1..).zip(entries) {
            let entry = u64::from_le_bytes(*entry);
            if offset(entry) != 0 {
                return Err(Status::PRP_OFFSET_INVALID);
            }
            // The last entry of a page leads to more of them, if more are needed.
            if n == room && left > page {
                next = Some(entry);
                break;
            }
            let here = page.min(left);
            ranges.push((entry, here));
            left = left.saturating_sub(here);
        }
        match next {
            Some(next) => list = next,
            None if left == 0 => return Ok(ranges),
            None => return Err(Status::PRP_OFFSET_INVALID),
        }
    }
}

/// The guest memory of a command's data.
pub(crate) fn memory(
    dma: &Dma,
    command: &Command,
    len: u64,
    page: u64,
    write: bool,
) -> Result<IoVector, Status> {
    let ranges = ranges(dma, command.prps(), len, page)?;
    IoVector::guest(dma, ranges, write).map_err(|_| Status::DATA_TRANSFER_ERROR)
}
