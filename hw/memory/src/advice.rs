//! What the host is told about a block's memory (madvise(2)).

use std::io;

use crate::ram::RamBlock;

/// One thing to tell the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Equal pages may be kept once. Has no effect on memory that other processes share.
    Merge,
    /// Core dumps go without it.
    NoDump,
    /// Huge pages suit it.
    Huge,
    /// All of it is to be there now.
    Populate,
}

impl Advice {
    fn flag(self) -> libc::c_int {
        match self {
            Advice::Merge => libc::MADV_MERGEABLE,
            Advice::NoDump => libc::MADV_DONTDUMP,
            Advice::Huge => libc::MADV_HUGEPAGE,
            Advice::Populate => libc::MADV_POPULATE_WRITE,
        }
    }
}

impl RamBlock {
    /// Tells the host something about the whole block. None of it changes what the block holds.
    ///
    /// # Errors
    /// The host does not know the advice, or cannot follow it.
    pub fn advise(&self, advice: Advice) -> io::Result<()> {
        let len = usize::try_from(self.len()).unwrap_or(usize::MAX);
        // SAFETY: the range is this block's own mapping, and no `Advice` discards what is in it.
        match unsafe { libc::madvise(self.host_ptr().cast(), len, advice.flag()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
