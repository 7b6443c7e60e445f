//! Arm's side of the run loop: the kernel has the interrupts, the timers and PSCI, so that little is left.

use accel_core::{VcpuExit, reason};

use crate::exit::Entry;
use crate::run::{Loop, Parts};

/// The one exit that only Arm has: an access to memory that no slot took, by an instruction that the
/// processor does not describe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Undescribed {
    pub(crate) address: u64,
    /// Where the guest is.
    pub(crate) place: String,
}

/// One CPU's loop.
pub(crate) struct ArmLoop<E> {
    pub(crate) parts: Parts<E>,
}

impl<E: Entry<Own = Undescribed>> Loop for ArmLoop<E> {
    type Entry = E;

    fn parts(&mut self) -> &mut Parts<E> {
        &mut self.parts
    }

    fn heed(&mut self) -> Option<VcpuExit> {
        // What else is pending is for controllers in user space.
        self.parts.pending.take(!reason::STOP);
        if self.parts.pending.get() & reason::STOP == 0 {
            return None;
        }
        Some(self.finish().err().unwrap_or(VcpuExit::Stopped))
    }

    fn own(&mut self, exit: Undescribed) -> VcpuExit {
        let Undescribed { address, place } = exit;
        self.failed(&format!(
            "the guest reaches for a device at {address:#x} by an instruction that the processor does not describe, as loads of pairs and of vectors ({place})"
        ))
    }
}
