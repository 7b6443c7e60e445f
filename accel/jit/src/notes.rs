//! What is kept of a unit beside its code, packed: there are tens of thousands of units, and these lists
//! are rarely looked at.
//!
//! Each number is the difference from the one before it, in groups of seven bits, the lowest first.

use std::num::NonZeroU32;

use crate::compile::{Compiled, Mark, Site, Way};

/// The lists of one unit, one behind the other.
pub(crate) struct Notes {
    bytes: Box<[u8]>,
    /// Instructions.
    insns: u16,
    /// Where sites begin.
    sites: u32,
    /// Where ways begin.
    ways: u32,
}

impl Notes {
    /// Those of code of a unit at `pc`. `room` is for making them.
    pub(crate) fn of(compiled: &Compiled, pc: u64, room: &mut Vec<u8>) -> Notes {
        room.clear();
        let mut last = (0, pc);
        for mark in &compiled.marks {
            put(room, u64::from(mark.at.wrapping_sub(last.0)));
            put_signed(room, mark.pc.wrapping_sub(last.1));
            put(room, u64::from(mark.done) << 1 | u64::from(mark.is_first));
            last = (mark.at, mark.pc);
        }
        let sites = room.len() as u32;
        let mut last = (0, 0);
        for site in &compiled.sites {
            put(room, u64::from(site.at.wrapping_sub(last.0)));
            put_signed(room, u64::from(site.insn).wrapping_sub(last.1));
            last = (site.at, u64::from(site.insn));
        }
        let ways = room.len() as u32;
        let mut last = (0, pc);
        for way in &compiled.ways {
            put(room, u64::from(way.site.wrapping_sub(last.0)));
            put(room, u64::from(way.site.wrapping_sub(way.jump)));
            let check = way.check.map_or(0, |at| way.jump.wrapping_sub(at.get()));
            put(room, u64::from(check) << 1 | u64::from(way.is_wary));
            put_signed(room, way.pc.wrapping_sub(last.1));
            last = (way.site, way.pc);
        }
        Notes {
            bytes: room.as_slice().into(),
            insns: u16::try_from(compiled.marks.len()).unwrap_or(u16::MAX),
            sites,
            ways,
        }
    }

    /// Instructions of the unit.
    pub(crate) fn insns(&self) -> usize {
        self.insns.into()
    }

    /// Its instructions, for a unit at `pc`.
    pub(crate) fn marks(&self, pc: u64) -> impl Iterator<Item = Mark> + '_ {
        let mut reader = self.reader(0, self.sites);
        let (mut at, mut pc) = (0u32, pc);
        std::iter::from_fn(move || {
            at = at.wrapping_add(reader.number()? as u32);
            pc = pc.wrapping_add(reader.signed()?);
            let done = reader.number()?;
            let (is_first, done) = (done & 1 != 0, (done >> 1) as u16);
            Some(Mark {
                at,
                pc,
                done,
                is_first,
            })
        })
    }

    /// Return addresses in it.
    pub(crate) fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        let mut reader = self.reader(self.sites, self.ways);
        let (mut at, mut insn) = (0u32, 0u64);
        std::iter::from_fn(move || {
            at = at.wrapping_add(reader.number()? as u32);
            insn = insn.wrapping_add(reader.signed()?);
            let insn = insn as u16;
            Some(Site { at, insn })
        })
    }

    /// Ways out of it, for a unit at `pc`.
    pub(crate) fn ways(&self, pc: u64) -> impl Iterator<Item = Way> + '_ {
        let mut reader = self.reader(self.ways, self.bytes.len() as u32);
        let (mut site, mut pc) = (0u32, pc);
        std::iter::from_fn(move || {
            site = site.wrapping_add(reader.number()? as u32);
            let jump = site.wrapping_sub(reader.number()? as u32);
            let check = reader.number()?;
            let (is_wary, check) = (check & 1 != 0, (check >> 1) as u32);
            pc = pc.wrapping_add(reader.signed()?);
            let check = match check {
                0 => None,
                back => NonZeroU32::new(jump.wrapping_sub(back)),
            };
            Some(Way {
                site,
                jump,
                check,
                pc,
                is_wary,
            })
        })
    }

    fn reader(&self, from: u32, to: u32) -> Reader<'_> {
        let part = self.bytes.get(from as usize..to as usize);
        Reader(part.unwrap_or_default().iter())
    }
}

fn put(room: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        room.push(number as u8 | 0x80);
        number >>= 7;
    }
    room.push(number as u8);
}

/// A difference that may be negative: the sign is the lowest bit.
fn put_signed(room: &mut Vec<u8>, number: u64) {
    let number = number.cast_signed();
    put(room, (number << 1 ^ number >> 63).cast_unsigned());
}

struct Reader<'a>(std::slice::Iter<'a, u8>);

impl Reader<'_> {
    #[inline]
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.0.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Some(number)
    }

    #[inline]
    fn signed(&mut self) -> Option<u64> {
        let number = self.number()?;
        Some(number >> 1 ^ (number & 1).wrapping_neg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of all lengths, some growing and some falling.
    fn compiled() -> Compiled {
        let step = |n: u32| n.wrapping_mul(n) % 300 + 1;
        let mut made = Compiled::default();
        let (mut at, mut site) = (0, 0);
        for n in 0..300u32 {
            at += step(n);
            site += step(n) * 90;
            made.marks.push(Mark {
                at,
                pc: 0xffff_ffff_8100_0000u64.wrapping_sub(u64::from(step(n)) << (n % 40)),
                done: (n * 7) as u16,
                is_first: n % 5 == 0,
            });
            made.sites.push(Site {
                at: site,
                insn: (n.wrapping_mul(40_503) >> 3) as u16,
            });
            made.ways.push(Way {
                site,
                jump: site - 7 * n % site.max(1),
                check: NonZeroU32::new(n % 3 * site / 4),
                pc: u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                is_wary: n % 2 == 0,
            });
            // What is compared comes before the jump.
            if let Some(way) = made.ways.last_mut() {
                way.check = way.check.filter(|at| at.get() < way.jump);
            }
        }
        made
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let made = compiled();
        let pc = 0xffff_ffff_8100_0010;
        let notes = Notes::of(&made, pc, &mut vec![1, 2, 3]);
        let text = |list: &dyn std::fmt::Debug| format!("{list:?}");
        assert_eq!(notes.insns(), made.marks.len());
        assert_eq!(
            text(&notes.marks(pc).collect::<Vec<_>>()),
            text(&made.marks)
        );
        assert_eq!(text(&notes.sites().collect::<Vec<_>>()), text(&made.sites));
        assert_eq!(text(&notes.ways(pc).collect::<Vec<_>>()), text(&made.ways));
    }

    #[test]
    fn a_short_unit_takes_few_bytes() {
        let mut made = Compiled::default();
        for n in 0..9u32 {
            made.marks.push(Mark {
                at: n * 20,
                pc: 0x1000 + u64::from(n) * 4,
                done: n as u16,
                is_first: n == 0,
            });
        }
        let notes = Notes::of(&made, 0x1000, &mut Vec::new());
        assert_eq!(notes.bytes.len(), 27);
    }
}
