//! Sense: why a command failed, or what happened to the unit meanwhile.

use backend_block::BlockError;

/// Key, code and qualifier (SPC-4, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sense {
    /// SENSE KEY
    pub key: u8,
    /// ADDITIONAL SENSE CODE
    pub code: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER
    pub qualifier: u8,
}

#[allow(missing_docs)]
impl Sense {
    pub const NONE: Sense = Sense::new(0, 0, 0);
    /// Not ready until somebody does something about it.
    pub const NOT_READY: Sense = Sense::new(2, 0x04, 3);
    pub const TRAY_CLOSED_EMPTY: Sense = Sense::new(2, 0x3a, 1);
    pub const TRAY_OPEN: Sense = Sense::new(2, 0x3a, 2);
    pub const WRITE_ERROR: Sense = Sense::new(3, 0x0c, 0);
    pub const READ_ERROR: Sense = Sense::new(3, 0x11, 0);
    pub const TARGET_FAILURE: Sense = Sense::new(4, 0x44, 0);
    pub const BAD_LIST_LENGTH: Sense = Sense::new(5, 0x1a, 0);
    pub const NO_SUCH_COMMAND: Sense = Sense::new(5, 0x20, 0);
    pub const NO_SUCH_BLOCK: Sense = Sense::new(5, 0x21, 0);
    pub const BAD_FIELD: Sense = Sense::new(5, 0x24, 0);
    pub const NO_SUCH_UNIT: Sense = Sense::new(5, 0x25, 0);
    pub const BAD_PARAMETER: Sense = Sense::new(5, 0x26, 0);
    pub const NO_SAVED_PAGES: Sense = Sense::new(5, 0x39, 0);
    pub const REMOVAL_PREVENTED: Sense = Sense::new(5, 0x53, 2);
    pub const MEDIUM_CHANGED: Sense = Sense::new(6, 0x28, 0);
    pub const RESET: Sense = Sense::new(6, 0x29, 0);
    pub const MODE_CHANGED: Sense = Sense::new(6, 0x2a, 1);
    pub const CAPACITY_CHANGED: Sense = Sense::new(6, 0x2a, 9);
    pub const UNITS_CHANGED: Sense = Sense::new(6, 0x3f, 0x0e);
    pub const WRITE_PROTECTED: Sense = Sense::new(7, 0x27, 0);
    pub const SPACE_EXHAUSTED: Sense = Sense::new(7, 0x27, 7);
}

impl Sense {
    /// Sense of these numbers.
    pub const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Sense {
            key,
            code,
            qualifier,
        }
    }

    /// What a failed operation of the medium is to the host.
    pub fn of(error: BlockError, is_write: bool) -> Self {
        match (error, is_write) {
            (BlockError::OutOfRange, _) => Sense::NO_SUCH_BLOCK,
            (BlockError::ReadOnly, _) => Sense::WRITE_PROTECTED,
            (BlockError::NoSpace, _) => Sense::SPACE_EXHAUSTED,
            (BlockError::Unsupported, _) => Sense::BAD_FIELD,
            (BlockError::BadBuffer | BlockError::Cancelled, _) => Sense::TARGET_FAILURE,
            (_, true) => Sense::WRITE_ERROR,
            (_, false) => Sense::READ_ERROR,
        }
    }

    /// In the fixed format (SPC-4, 4.5.3).
    pub fn fixed(self) -> Vec<u8> {
        let mut bytes = vec![0; 18];
        let fields = [
            (0, 0x70),
            (2, self.key),
            (7, 10),
            (12, self.code),
            (13, self.qualifier),
        ];
        for (at, value) in fields {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = value;
            }
        }
        bytes
    }

    /// In the descriptor format (SPC-4, 4.5.2).
    pub fn descriptors(self) -> Vec<u8> {
        vec![0x72, self.key, self.code, self.qualifier, 0, 0, 0, 0]
    }
}
