//! What a disk says of its size and limits: READ CAPACITY(16) (SBC-3, 5.16), and vital product data
//! (6.6).

use super::{Disk, UNMAP_DESCRIPTORS};
use crate::inquiry::Page;

const BLOCK_LIMITS: u8 = 0xb0;
const CHARACTERISTICS: u8 = 0xb1;
const PROVISIONING: u8 = 0xb2;

impl Disk {
    fn in_blocks(&self, bytes: u64) -> u32 {
        let blocks = bytes.checked_div(self.block()).unwrap_or(0);
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }

    pub(super) fn capacity(&self) -> Vec<u8> {
        const LBPME: u8 = 0x80;
        let last = self.blocks().saturating_sub(1);
        let ratio = self.in_blocks(self.options.physical_block_size.into());
        let exponent = ratio.checked_ilog2().unwrap_or(0).min(15) as u8;
        let thin = match self.options.discard_granularity {
            0 => 0,
            _ => LBPME,
        };
        let mut bytes = last.to_be_bytes().to_vec();
        bytes.extend(self.options.logical_block_size.to_be_bytes());
        bytes.extend([0, exponent, thin, 0]);
        bytes.resize(32, 0);
        bytes
    }

    pub(super) fn vital_product_data(&self) -> Vec<Page> {
        vec![
            (BLOCK_LIMITS, self.block_limits()),
            (CHARACTERISTICS, self.characteristics()),
            (PROVISIONING, self.provisioning()),
        ]
    }

    /// Page B0h (6.6.4).
    fn block_limits(&self) -> Vec<u8> {
        const WSNZ: u8 = 1;
        let options = &self.options;
        let granularity = self.in_blocks(options.min_io_size.into()).min(0xffff) as u16;
        let mut body = vec![WSNZ, 0];
        body.extend(granularity.to_be_bytes());
        body.extend(self.in_blocks(self.most()).to_be_bytes());
        body.extend(self.in_blocks(options.opt_io_size.into()).to_be_bytes());
        body.extend([0; 4]);
        body.extend(self.in_blocks(options.max_unmap_size).to_be_bytes());
        body.extend(UNMAP_DESCRIPTORS.to_be_bytes());
        body.extend(
            self.in_blocks(options.discard_granularity.into())
                .to_be_bytes(),
        );
        body.extend([0; 4]);
        body.extend(self.most_same().to_be_bytes());
        body.resize(0x3c, 0);
        body
    }

    /// Page B1h (6.6.2).
    fn characteristics(&self) -> Vec<u8> {
        let mut body = self.options.rotation_rate.to_be_bytes().to_vec();
        body.resize(0x3c, 0);
        body
    }

    /// Page B2h (6.6.5): UNMAP and both forms of WRITE SAME.
    fn provisioning(&self) -> Vec<u8> {
        const LBPU_LBPWS_LBPWS10: u8 = 0xe0;
        const RESOURCE: u8 = 1;
        const THIN: u8 = 2;
        match self.options.discard_granularity {
            0 => vec![0, 0, RESOURCE, 0],
            _ => vec![0, LBPU_LBPWS_LBPWS10, THIN, 0],
        }
    }
}
