//! Registers of a bit, two bits or a byte for each interrupt: the same in the distributors of both
//! versions and in the redistributors (IHI 0048B section 4.3, IHI 0069H sections 12.9 and 12.11).

use hw_intc::{GicBank, GicVersion};

use super::model::Model;
use super::security::View;

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
            | Reg::Modifier(n) => n,
        }
    }

    /// Whether it is for Secure software alone.
    fn is_secure(self) -> bool {
        matches!(self, Reg::Group(_) | Reg::Modifier(_))
    }

    /// Reads it as `cpu`. A bank that is not there reads as zero.
    pub(super) fn read(self, model: &Model, cpu: usize, size: u8, view: View) -> u64 {
        let Some(bank) = model.state.bank(cpu, self.bank()) else {
            return 0;
        };
        if self.is_secure() && !view.is_whole() {
            return 0;
        }
        let seen = view.visible(bank);
        let shown = |bits: u32| u64::from(bits & seen);
        match self {
            Reg::Group(_) => bank.group.into(),
            Reg::Modifier(_) if model.state.has_two_states() => bank.modifier.into(),
            Reg::Modifier(_) => 0,
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
        let Some(bank) = model.state.bank_mut(cpu, n) else {
            return;
        };
        let seen = view.visible(bank);
        let bits = value as u32 & seen;
        match self {
            Reg::Group(_) => bank.group = bits,
            Reg::Modifier(_) if two_states => bank.modifier = bits,
            Reg::Modifier(_) => {}
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
