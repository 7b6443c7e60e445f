//! What is done when the host fails a request (`werror`, `rerror`).

use crate::request::BlockError;

/// What the user wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorPolicy {
    /// The guest is told.
    Report,
    /// The guest is told that all is well.
    Ignore,
    /// The machine stops; when it goes on, the request is tried again.
    Stop,
    /// As `Stop` when there is no space, and as `Report` else.
    Enospc,
}

impl ErrorPolicy {
    /// QEMU's words, in the order of the variants.
    pub const NAMES: &[&str] = &["report", "ignore", "stop", "enospc"];

    /// What a device's `werror` may be; `auto`: what the drive says.
    pub const ON_WRITE: &[&str] = &["ignore", "stop", "report", "enospc", "auto"];

    /// What its `rerror` may be: reads need no space.
    pub const ON_READ: &[&str] = &["ignore", "stop", "report", "auto"];

    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "report" => Self::Report,
            "ignore" => Self::Ignore,
            "stop" => Self::Stop,
            "enospc" => Self::Enospc,
            _ => return None,
        })
    }

    /// What to do about an error.
    pub fn action(self, error: BlockError) -> ErrorAction {
        match (self, error) {
            (Self::Report, _) => ErrorAction::Report,
            (Self::Ignore, _) => ErrorAction::Ignore,
            (Self::Stop, _) | (Self::Enospc, BlockError::NoSpace) => ErrorAction::Stop,
            (Self::Enospc, _) => ErrorAction::Report,
        }
    }
}

/// What was done about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorAction {
    /// The guest was told.
    Report,
    /// The guest was told that all is well.
    Ignore,
    /// The request waits until the machine goes on.
    Stop,
}

/// How a disk is, for `query-block`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoStatus {
    /// Well.
    Ok,
    /// A request failed and waits.
    Failed,
    /// There was no space for a request, and it waits.
    NoSpace,
}

/// A request that the host failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The disk.
    pub id: String,
    /// The node it was connected to.
    pub node: String,
    /// Whether it was to change something.
    pub is_write: bool,
    /// What was done about it.
    pub action: ErrorAction,
    /// What went wrong.
    pub error: BlockError,
}
