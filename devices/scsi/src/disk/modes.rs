//! Mode pages (SPC-4, 6.11, 7.5; SBC-3, 6.5).

use hw_scsi::{Cdb, Job, Sense, cut, op};

use super::Disk;
use crate::counted;

const RECOVERY: u8 = 0x01;
const RIGID_GEOMETRY: u8 = 0x04;
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const ALL: u8 = 0x3f;
const WCE: u8 = 4;

/// Heads of the made-up geometry, and sectors of its tracks.
const HEADS: u8 = 16;
const TRACK: u64 = 63;

/// Header of a parameter list, and a short block descriptor (SPC-4, 7.5.6).
const HEADER_6: usize = 4;
const HEADER_10: usize = 8;
const DESCRIPTOR: usize = 8;

impl Disk {
    /// The pages there are: number, values, and which bits can be changed.
    fn pages(&self) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        const AWRE: u8 = 0x80;
        let per_cylinder = TRACK.wrapping_mul(HEADS.into());
        let cylinders = self.blocks().checked_div(per_cylinder).unwrap_or(0);
        let [.., high, middle, low] = cylinders.min(0xff_ffff).to_be_bytes();
        let mut geometry = vec![high, middle, low, HEADS];
        geometry.resize(22, 0);
        // MEDIUM ROTATION RATE
        if let Some(slot) = geometry.get_mut(18..20) {
            slot.copy_from_slice(&self.options.rotation_rate.to_be_bytes());
        }
        let mut caching = vec![if self.state.write_cache { WCE } else { 0 }];
        caching.resize(18, 0);
        let mut cache_bits = vec![WCE];
        cache_bits.resize(18, 0);
        vec![
            (RECOVERY, [vec![AWRE], vec![0; 9]].concat(), vec![0; 10]),
            (RIGID_GEOMETRY, geometry, vec![0; 22]),
            (CACHING, caching, cache_bits),
            (CONTROL, vec![0; 10], vec![0; 10]),
        ]
    }

    /// MODE SENSE(6) and (10).
    pub(super) fn mode_sense(&self, cdb: Cdb<'_>) -> Result<Job, Sense> {
        const DBD: u8 = 8;
        const CHANGEABLE: u8 = 1;
        const DEFAULT: u8 = 2;
        const SAVED: u8 = 3;
        const WRITE_PROTECTED: u8 = 0x80;
        const DPOFUA: u8 = 0x10;
        let (control, wanted) = (cdb.byte(2) >> 6, cdb.byte(2) & 0x3f);
        if control == SAVED {
            return Err(Sense::NO_SAVED_PAGES);
        }
        // Subpages: all of them, which is the pages themselves, or none.
        if !matches!(cdb.byte(3), 0 | 0xff) {
            return Err(Sense::BAD_FIELD);
        }
        let mut pages = Vec::new();
        for (number, mut values, changeable) in self.pages() {
            if wanted != number && wanted != ALL {
                continue;
            }
            match control {
                CHANGEABLE => values = changeable,
                DEFAULT if number == CACHING => {
                    if let Some(slot) = values.first_mut() {
                        *slot = if self.options.write_back { WCE } else { 0 };
                    }
                }
                _ => {}
            }
            pages.extend([number, u8::try_from(values.len()).unwrap_or(0)]);
            pages.extend(values);
        }
        if pages.is_empty() {
            return Err(Sense::BAD_FIELD);
        }
        let mut descriptor = Vec::new();
        if cdb.byte(1) & DBD == 0 {
            // What does not fit is all ones (SBC-3, 6.5.2).
            let blocks = u32::try_from(self.blocks()).unwrap_or(u32::MAX);
            descriptor.extend(blocks.to_be_bytes());
            descriptor.extend(self.options.logical_block_size.to_be_bytes());
        }
        let specific = match (self.options.read_only, self.options.dpofua) {
            (true, _) => WRITE_PROTECTED,
            (false, true) => DPOFUA,
            (false, false) => 0,
        };
        let len = u8::try_from(descriptor.len()).unwrap_or(0);
        if cdb.code() == op::MODE_SENSE_10 {
            let header = vec![0, specific, 0, 0, 0, len];
            let bytes = counted([header, descriptor, pages].concat());
            return Ok(cut(bytes, cdb.number(7, 2)));
        }
        let rest = [vec![0, specific, len], descriptor, pages].concat();
        let count = u8::try_from(rest.len()).unwrap_or(u8::MAX);
        Ok(cut([vec![count], rest].concat(), cdb.number(4, 1)))
    }

    /// MODE SELECT(6) and (10), with their list.
    pub(super) fn mode_select(&mut self, cdb: Cdb<'_>, data: &[u8]) -> Result<Job, Sense> {
        const PF: u8 = 0x10;
        const SP: u8 = 1;
        // Pages in the standard's format, not to be kept over a power cycle.
        if cdb.byte(1) & (PF | SP) != PF {
            return Err(Sense::BAD_FIELD);
        }
        if data.is_empty() {
            return Ok(Job::DONE);
        }
        let list = Cdb(data);
        let (header, descriptors) = match cdb.code() {
            op::MODE_SELECT_10 => (HEADER_10, list.number(6, 2)),
            _ => (HEADER_6, list.number(3, 1)),
        };
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        if data.len() < header || !matches!(descriptors, 0 | DESCRIPTOR) {
            return Err(Sense::BAD_LIST_LENGTH);
        }
        let mut at = header.saturating_add(descriptors);
        if descriptors == DESCRIPTOR {
            // The size of blocks is what it is.
            let size = list.number(at.saturating_sub(3), 3);
            if data.len() < at || size != 0 && size != self.options.logical_block_size {
                return Err(Sense::BAD_PARAMETER);
            }
        }
        let pages = self.pages();
        let mut write_cache = self.state.write_cache;
        while at < data.len() {
            let (number, len) = (list.byte(at), usize::from(list.byte(at.saturating_add(1))));
            let from = at.saturating_add(2);
            let to = from.saturating_add(len);
            let found = pages.iter().find(|(known, ..)| *known == number & !0x80);
            let (_, values, changeable) = found.ok_or(Sense::BAD_PARAMETER)?;
            let given = data.get(from..to).ok_or(Sense::BAD_LIST_LENGTH)?;
            if given.len() != values.len() {
                return Err(Sense::BAD_PARAMETER);
            }
            let mut bytes = given.iter().zip(values).zip(changeable);
            if bytes.any(|((new, old), bits)| (new ^ old) & !bits != 0) {
                return Err(Sense::BAD_PARAMETER);
            }
            if number & !0x80 == CACHING {
                write_cache = given.first().is_some_and(|byte| byte & WCE != 0);
            }
            at = to;
        }
        let was_on = std::mem::replace(&mut self.state.write_cache, write_cache);
        // What is in caches now is to be safe once they are off.
        match was_on && !write_cache {
            true => Ok(Job::operation(backend_block::Operation::Flush)),
            false => Ok(Job::DONE),
        }
    }
}
