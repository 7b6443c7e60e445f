//! What a submission queue's entry says, and how a command ends (NVMe, 4.2, 4.6).

/// Bytes of an entry.
pub(crate) const ENTRY: usize = 64;

/// A command, copied out of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Command(pub(crate) [u8; ENTRY]);

impl Command {
    /// Command Dword `n`.
    pub(crate) fn word(&self, n: usize) -> u32 {
        let at = n.saturating_mul(4);
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn wide(&self, n: usize) -> u64 {
        u64::from(self.word(n)) | u64::from(self.word(n.saturating_add(1))) << 32
    }

    /// OPC
    pub(crate) fn opcode(&self) -> u8 {
        self.word(0) as u8
    }

    /// FUSE and PSDT: fused with another, or with a scatter gather list.
    pub(crate) fn is_plain(&self) -> bool {
        self.word(0) & 0xc300 == 0
    }

    /// CID
    pub(crate) fn id(&self) -> u16 {
        (self.word(0) >> 16) as u16
    }

    /// NSID
    pub(crate) fn namespace(&self) -> u32 {
        self.word(1)
    }

    /// PRP1 and PRP2
    pub(crate) fn prps(&self) -> [u64; 2] {
        [self.wide(6), self.wide(8)]
    }

    /// SLBA, and the number of blocks.
    pub(crate) fn blocks(&self) -> (u64, u64) {
        let count = u64::from(self.word(12) as u16);
        (self.wide(10), count.saturating_add(1))
    }
}

/// Status Code Type and Status Code, with Do Not Retry above them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Status(pub(crate) u16);

const DNR: u16 = 0x4000;

impl Status {
    pub(crate) const SUCCESS: Status = Status(0);
    pub(crate) const INVALID_OPCODE: Status = Status(0x01 | DNR);
    pub(crate) const INVALID_FIELD: Status = Status(0x02 | DNR);
    pub(crate) const DATA_TRANSFER_ERROR: Status = Status(0x04);
    pub(crate) const INTERNAL_ERROR: Status = Status(0x06);
    pub(crate) const INVALID_NAMESPACE: Status = Status(0x0b | DNR);
    pub(crate) const PRP_OFFSET_INVALID: Status = Status(0x13 | DNR);
    pub(crate) const WRITE_PROTECTED: Status = Status(0x20 | DNR);
    pub(crate) const LBA_OUT_OF_RANGE: Status = Status(0x80 | DNR);
    pub(crate) const CAPACITY_EXCEEDED: Status = Status(0x81);
    pub(crate) const INVALID_CQ: Status = Status(0x100 | DNR);
    pub(crate) const INVALID_QUEUE: Status = Status(0x101 | DNR);
    pub(crate) const INVALID_QUEUE_SIZE: Status = Status(0x102 | DNR);
    pub(crate) const EVENTS_EXCEEDED: Status = Status(0x105 | DNR);
    pub(crate) const INVALID_VECTOR: Status = Status(0x108 | DNR);
    pub(crate) const INVALID_LOG_PAGE: Status = Status(0x109 | DNR);
    pub(crate) const INVALID_QUEUE_DELETION: Status = Status(0x10c | DNR);
    pub(crate) const NOT_SAVEABLE: Status = Status(0x10d | DNR);
    pub(crate) const NOT_CHANGEABLE: Status = Status(0x10e | DNR);
    pub(crate) const WRITE_FAULT: Status = Status(0x280);
    pub(crate) const READ_ERROR: Status = Status(0x281);
    pub(crate) const COMPARE_FAILURE: Status = Status(0x285 | DNR);
}
