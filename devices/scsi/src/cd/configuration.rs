//! What the drive can do: GET CONFIGURATION (MMC-5, 5.3 and 6.5) and MODE SENSE (7.2).

use hw_scsi::Sense;

use super::{BLOCK, Cable, Cd};

/// Profiles (5.3.1).
const PROFILE_CD: u16 = 0x0008;
const PROFILE_DVD: u16 = 0x0010;
/// Blocks of 80 minutes: what has more is a DVD.
const CD_MOST: u32 = 80 * 60 * 75;

/// Mode pages (MMC-5, 7.2; MMC-3, 5.5.10 for the capabilities).
const PAGE_ERROR_RECOVERY: u8 = 0x01;
const PAGE_AUDIO: u8 = 0x0e;
const PAGE_CAPABILITIES: u8 = 0x2a;
const PAGE_ALL: u8 = 0x3f;
/// Four times the speed of a CD player, in kB/s.
const SPEED: u16 = 706;

impl Cd {
    fn profile(&self) -> u16 {
        match self.blocks() {
            None => 0,
            Some(blocks) if blocks > CD_MOST => PROFILE_DVD,
            Some(_) => PROFILE_CD,
        }
    }

    /// The features from `start` on; `request` as MMC-5, table 267 has it: 0 for all, 1 for those in
    /// effect, 2 for one.
    pub(super) fn configuration(&self, request: u8, start: u32) -> Vec<u8> {
        let profile = self.profile();
        let is = |wanted: u16| u8::from(profile == wanted);
        let is_any = u8::from(profile != 0);
        let [dvd_high, dvd_low] = PROFILE_DVD.to_be_bytes();
        let [cd_high, cd_low] = PROFILE_CD.to_be_bytes();
        // Core (5.3.2, table 93).
        let interface = match self.cable {
            Cable::Scsi => 1,
            Cable::Atapi => 2,
        };
        let [.., block_high, block_low] = (BLOCK as u32).to_be_bytes();
        // Number, version, whether always there, whether in effect, what it says.
        let features: [(u16, u8, u8, u8, Vec<u8>); 6] = [
            (
                0x0000,
                0,
                1,
                1,
                vec![
                    dvd_high,
                    dvd_low,
                    is(PROFILE_DVD),
                    0,
                    cd_high,
                    cd_low,
                    is(PROFILE_CD),
                    0,
                ],
            ),
            (0x0001, 2, 1, 1, vec![0, 0, 0, interface, 1, 0, 0, 0]),
            // Removable medium: a tray that can be ejected and locked.
            (0x0003, 0, 1, 1, vec![0x29, 0, 0, 0]),
            // Random access, in units of 16 blocks.
            (
                0x0010,
                0,
                0,
                is_any,
                vec![0, 0, block_high, block_low, 0, 16, 0, 0],
            ),
            (0x001e, 2, 0, is(PROFILE_CD), vec![0, 0, 0, 0]),
            (0x001f, 0, 0, is(PROFILE_DVD), vec![]),
        ];
        let [high, low] = profile.to_be_bytes();
        let mut bytes = vec![0, 0, high, low];
        for (number, version, always, current, body) in features {
            let wanted = match request {
                2 => u32::from(number) == start,
                1 => u32::from(number) >= start && current != 0,
                _ => u32::from(number) >= start,
            };
            if wanted {
                bytes.extend(number.to_be_bytes());
                bytes.extend([version << 2 | always << 1 | current, body.len() as u8]);
                bytes.extend(body);
            }
        }
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        bytes.splice(0..0, len.to_be_bytes());
        bytes
    }

    /// Mode pages; `which` has the page and, above it, whether values are current, changeable, default
    /// or saved ones.
    pub(super) fn mode_pages(&self, which: u8) -> Result<Vec<u8>, Sense> {
        let (control, page) = (which >> 6, which & 0x3f);
        if control == 3 {
            return Err(Sense::NO_SAVED_PAGES);
        }
        let lock = u8::from(self.tray.is_locked()) << 1;
        let [high, low] = SPEED.to_be_bytes();
        let pages: [(u8, Vec<u8>); 3] = [
            (PAGE_ERROR_RECOVERY, vec![0, 5, 0, 0, 0, 0]),
            (
                PAGE_AUDIO,
                vec![4, 0, 0, 0, 0, 0, 1, 0xff, 2, 0xff, 0, 0, 0, 0],
            ),
            (
                PAGE_CAPABILITIES,
                vec![
                    0x3b, // reads CD-R, CD-RW, DVD-ROM, DVD-R
                    0,
                    0x70, // reads both forms of mode 2, several sessions
                    0,
                    0x29 | lock, // a tray that can be ejected and locked
                    0,
                    high,
                    low,
                    0,
                    2,
                    2,
                    0, // a buffer of 512 KiB
                    high,
                    low,
                    0,
                    0,
                    0,
                    0,
                ],
            ),
        ];
        let mut bytes = Vec::new();
        for (number, mut body) in pages {
            if page != number && page != PAGE_ALL {
                continue;
            }
            if control == 1 {
                body.fill(0);
            }
            bytes.extend([number, body.len() as u8]);
            bytes.extend(body);
        }
        match bytes.is_empty() {
            true => Err(Sense::BAD_FIELD),
            false => Ok(bytes),
        }
    }
}
