//! Registers of a bit, two bits or a byte for each interrupt: the same in the distributors of both
//! versions and in the redistributors (IHI 0048B section 4.3, IHI 0069H sections 12.9 and 12.11).

use hw_intc::{GicBank, GicVersion};

use super::model::Model;
use super::security::{View, lent};

/// SGIs, whose trigger mode is fixed.
const SGIS: u32 = 0xffff;

/// One of the registers, with the number of the bank it shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reg {
    /// `IGROUPR`
    Group(usize),
    /// `ISENABLER`
    SetEnable(usize),
    /// `ICENABLER`
    ClearEnable(usize),
    /// `ISPENDR`
    SetPending(usize),
    /// `ICPENDR`
    ClearPending(usize),
    /// `ISACTIVER`
    SetActive(usize),
    /// `ICACTIVER`
    ClearActive(usize),
    /// `IPRIORITYR`: bank, and number of the first interrupt in it.
    Priority(usize, usize),
    /// `ICFGR`: bank, and whether its upper half.
    Config(usize, bool),
    /// `IGRPMODR`
    Modifier(usize),
    /// `NSACR`, of version 3: bank, and whether its upper half.
    Access(usize, bool),
}

impl Reg {
    /// The register of an offset, and whether an access of this size fits it.
    pub(super) fn at(offset: u64, size: u8) -> Option<Self> {
        let within = usize::try_from(offset & 0x7f).ok()?;
        let word = within >> 2;
        let is_word = size == 4 && offset & 3 == 0;
        Some(match offset {
            0x400..0x800 => {
                let n = usize::try_from(offset & 0x3ff).ok()?;
                Reg::Priority(n >> 5, n & 31)
            }
            _ if !is_word => return None,
            0x080..0x100 => Reg::Group(word),
            0x100..0x180 => Reg::SetEnable(word),
            0x180..0x200 => Reg::ClearEnable(word),
            0x200..0x280 => Reg::SetPending(word),
            0x280..0x300 => Reg::ClearPending(word),
            0x300..0x380 => Reg::SetActive(word),
            0x380..0x400 => Reg::ClearActive(word),
            0xc00..0xd00 => {
                let n = usize::try_from(offset & 0xff).ok()? >> 2;
                Reg::Config(n >> 1, n & 1 != 0)
            }
            0xd00..0xd80 => Reg::Modifier(word),
            0xe00..0xf00 => {
                let n = usize::try_from(offset & 0xff).ok()? >> 2;
                Reg::Access(n >> 1, n & 1 != 0)
            }
            _ => return None,
        })
    }

    /// The bank it shows.
    pub(super) fn bank(self) -> usize {
        match self {
            Reg::Group(n)
            | Reg::SetEnable(n)
            | Reg::ClearEnable(n)
            | Reg::SetPending(n)
            | Reg::ClearPending(n)
            | Reg::SetActive(n)
            | Reg::ClearActive(n)
            | Reg::Priority(n, _)
            | Reg::Config(n, _)
            | Reg::Access(n, _)
            | Reg::Modifier(n) => n,
        }
    }

    /// Whether it is for Secure software alone.
    fn is_secure(self) -> bool {
        matches!(self, Reg::Group(_) | Reg::Modifier(_) | Reg::Access(..))
    }

    /// The interrupts of a bank that it shows, or a write changes.
    fn seen(self, bank: &GicBank, view: View, is_write: bool) -> u32 {
        match self {
            // Of private ones, only sending software generated interrupts is lent.
            _ if self.bank() == 0 => view.visible(bank),
            Reg::SetPending(_) => view.visible_if(bank, lent::SET_PENDING),
            Reg::ClearPending(_) => view.visible_if(bank, lent::CLEAR_PENDING),
            Reg::SetActive(_) | Reg::ClearActive(_) if !is_write => {
                view.visible_if(bank, lent::CLEAR_PENDING)
            }
            _ => view.visible(bank),
        }
    }

    /// Reads it as `cpu`. A bank that is not there reads as zero.
    pub(super) fn read(self, model: &Model, cpu: usize, size: u8, view: View) -> u64 {
        let Some(bank) = model.state.bank(cpu, self.bank()) else {
            return 0;
        };
        if self.is_secure() && !view.is_whole() {
            return 0;
        }
        let seen = self.seen(bank, view, false);
        let shown = |bits: u32| u64::from(bits & seen);
        match self {
            Reg::Group(_) => bank.group.into(),
            Reg::Modifier(_) if model.state.has_two_states() => bank.modifier.into(),
            Reg::Access(_, upper) if is_lending(model) => {
                bank.lent.wrapping_shr(if upper { 32 } else { 0 }) & 0xffff_ffff
            }
            Reg::Modifier(_) | Reg::Access(..) => 0,
            Reg::SetEnable(_) | Reg::ClearEnable(_) => shown(bank.enabled),
            Reg::SetPending(_) | Reg::ClearPending(_) => shown(bank.pending()),
            Reg::SetActive(_) | Reg::ClearActive(_) => shown(bank.active),
            Reg::Priority(_, first) => {
                let each = (0u32..).zip(&bank.priority);
                let bytes = each.map(|(n, p)| match seen.wrapping_shr(n) & 1 {
                    0 => 0,
                    _ => view.shown(*p),
                });
                let bytes = bytes.skip(first).take(size.into()).zip(0u32..);
                bytes.fold(0, |value, (p, n)| {
                    value | u64::from(p).wrapping_shl(n.wrapping_mul(8))
                })
            }
            Reg::Config(_, upper) => spread(half(bank.edges & seen, upper)),
        }
    }

    /// Writes it as `cpu`.
    pub(super) fn write(self, model: &mut Model, cpu: usize, size: u8, value: u64, view: View) {
        if self.is_secure() && !view.is_whole() {
            return;
        }
        // Version 2 has pending bits of SGIs by sender, in registers of their own.
        let is_v2 = model.state.version == GicVersion::V2;
        let n = self.bank();
        let fixed = if n == 0 && is_v2 { SGIS } else { 0 };
        let two_states = model.state.has_two_states();
        let is_lending = is_lending(model);
        let Some(bank) = model.state.bank_mut(cpu, n) else {
            return;
        };
        let seen = self.seen(bank, view, true);
        let bits = value as u32 & seen;
        match self {
            Reg::Group(_) => bank.group = bits,
            Reg::Modifier(_) if two_states => bank.modifier = bits,
            // PPIs are never lent.
            Reg::Access(0, true) => {}
            Reg::Access(_, upper) if is_lending => {
                let shift = if upper { 32u32 } else { 0 };
                let kept = bank.lent & !0xffff_ffffu64.wrapping_shl(shift);
                bank.lent = kept | (value & 0xffff_ffff).wrapping_shl(shift);
            }
            Reg::Modifier(_) | Reg::Access(..) => {}
            Reg::SetEnable(_) => bank.enabled |= bits,
            Reg::ClearEnable(_) => bank.enabled &= !bits,
            Reg::SetPending(_) => bank.latched |= bits & !fixed,
            Reg::ClearPending(_) => bank.latched &= !(bits & !fixed),
            Reg::SetActive(_) => bank.active |= bits,
            Reg::ClearActive(_) => bank.active &= !bits,
            Reg::Priority(_, first) => {
                let bytes = value.to_le_bytes();
                let slots = (0u32..).zip(&mut bank.priority).skip(first);
                for ((n, slot), byte) in slots.take(size.into()).zip(bytes) {
                    if seen.wrapping_shr(n) & 1 != 0 {
                        *slot = view.meant(byte);
                    }
                }
            }
            Reg::Config(_, upper) => configure(bank, n, upper, (value as u32, seen)),
        }
    }
}

/// Whether Secure interrupts can be lent to Non-secure software: not by a version 2 controller here.
fn is_lending(model: &Model) -> bool {
    model.state.has_two_states() && model.state.version == GicVersion::V3
}

fn half(bits: u32, upper: bool) -> u32 {
    if upper { bits >> 16 } else { bits & 0xffff }
}

/// Sixteen bits, each to the upper of two.
fn spread(bits: u32) -> u64 {
    (0..16u32)
        .filter(|n| bits.wrapping_shr(*n) & 1 != 0)
        .fold(0, |value, n| value | 2u64.wrapping_shl(n.wrapping_mul(2)))
}

fn configure(bank: &mut GicBank, n: usize, upper: bool, (value, seen): (u32, u32)) {
    if n == 0 && !upper {
        return;
    }
    let bits = (0..16u32)
        .filter(|n| value.wrapping_shr(n.wrapping_mul(2)) & 2 != 0)
        .fold(0, |bits, n| bits | 1u32.wrapping_shl(n));
    let new = if upper {
        bank.edges & 0xffff | bits << 16
    } else {
        bank.edges & 0xffff_0000 | bits
    };
    bank.edges = bank.edges & !seen | new & seen;
}
