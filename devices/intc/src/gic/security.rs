//! What the Non-secure state sees of a controller with two Security states (IHI 0048B sections 3.6 and
//! 4.1.3, IHI 0069H sections 4.6 and 4.8): its own interrupts, which are those of group 1, and their half of the
//! priorities.

use hw_core::{Access, Initiator};
use hw_intc::{GIC_IDLE, GIC_PRIORITY, GicBank};

use super::model::Model;

/// How much of the controller an access sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    /// All of it: a Secure access, or there is one Security state.
    Whole,
    /// Non-secure, and there are two.
    NonSecure,
}

impl View {
    pub(super) fn is_whole(self) -> bool {
        self == View::Whole
    }

    /// The interrupts of a bank that are seen, a bit each.
    pub(super) fn visible(self, bank: &GicBank) -> u32 {
        match self {
            View::Whole => u32::MAX,
            View::NonSecure => bank.group,
        }
    }

    /// A priority as it is shown. Non-secure priorities are the lower half: higher ones show as 0.
    pub(super) fn shown(self, priority: u8) -> u8 {
        match self {
            View::NonSecure if priority < 0x80 => 0,
            View::NonSecure if priority != GIC_IDLE => priority << 1,
            _ => priority,
        }
    }

    /// The priority that a value written means.
    pub(super) fn meant(self, value: u8) -> u8 {
        let priority = match self {
            View::Whole => value,
            View::NonSecure => 0x80 | value >> 1,
        };
        priority & GIC_PRIORITY
    }

    /// The priority mask after a write: Non-secure, it is left alone while it is Secure.
    pub(super) fn new_mask(self, old: u8, value: u8) -> u8 {
        match self {
            View::NonSecure if old < 0x80 => old,
            _ => self.meant(value),
        }
    }
}

impl Model {
    /// What an access to a register in memory sees.
    pub(super) fn view(&self, access: &Access) -> View {
        let sees_all = access.attrs.secure || access.by == Initiator::Debug;
        if sees_all || !self.state.has_two_states() {
            View::Whole
        } else {
            View::NonSecure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_secure_priorities_are_the_lower_half() {
        let view = View::NonSecure;
        assert_eq!(
            [0x40, 0x80, 0xc0, 0xff].map(|p| view.shown(p)),
            [0, 0, 0x80, 0xff]
        );
        assert_eq!([0, 0x80, 0xff].map(|p| view.meant(p)), [0x80, 0xc0, 0xf8]);
        assert_eq!(view.new_mask(0x70, 0xff), 0x70);
        assert_eq!(view.new_mask(0xf0, 0), 0x80);
        assert_eq!(View::Whole.new_mask(0xf0, 8), 8);
    }
}
