//! What the Non-secure state sees of a controller with two Security states (IHI 0048B sections 3.6 and
//! 4.1.3, IHI 0069H sections 4.6 and 4.8): its own interrupts, which are those of group 1, and their half of the
//! priorities; and what of version 3's Secure interrupts it was lent (section 12.9.25 "GICD_NSACR").

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

/// What Non-secure software may do to a Secure interrupt, by its field of `NSACR`: each has those before.
pub(super) mod lent {
    /// Make it pending, or send it if it is software generated and of group 0.
    pub(crate) const SET_PENDING: u64 = 1;
    /// Take that back, see whether it is active, or send it if it is of Secure group 1.
    pub(crate) const CLEAR_PENDING: u64 = 2;
    /// Route it.
    pub(crate) const ROUTE: u64 = 3;
}

/// The interrupts of a bank that are lent so far, a bit each.
fn lent_to(bank: &GicBank, least: u64) -> u32 {
    (0..32u32)
        .filter(|n| bank.lent.wrapping_shr(n.wrapping_mul(2)) & 3 >= least)
        .fold(0, |bits, n| bits | 1u32.wrapping_shl(n))
}

impl View {
    /// The interrupts of a bank that are seen where those lent so far are, too.
    pub(super) fn visible_if(self, bank: &GicBank, least: u64) -> u32 {
        match self {
            View::Whole => u32::MAX,
            View::NonSecure if bank.lent == 0 => bank.group,
            View::NonSecure => bank.group | lent_to(bank, least),
        }
    }

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
