//! What is kept of a unit beside its code, packed: there are tens of thousands of units, and these lists
//! are rarely looked at.
//!
//! Each number is the difference from the one before it, in groups of seven bits, the lowest first.

use std::num::NonZeroU32;

use crate::compile::{Compiled, Mark, Site, Way};

/// The lists of one unit, one behind the other: how long they are, ways out, return addresses, instructions.
/// Ways are looked at most.
pub(crate) struct Notes(Box<[u8]>);

impl Notes {
    /// Those of code of a unit at `pc`. `room` is for making them.
    pub(crate) fn of(compiled: &Compiled, pc: u64, room: &mut Vec<u8>) -> Notes {
        let (ways, sites, marks) = (&compiled.ways, &compiled.sites, &compiled.marks);
        let numbers = 3 + OF_WAY * ways.len() + OF_SITE * sites.len() + OF_MARK * marks.len();
        if room.len() < MOST_GROUPS * numbers {
            room.resize(MOST_GROUPS * numbers, 0);
        }
        let mut to = Writer { room, at: 0 };
        to.number(ways.len() as u64);
        to.number(sites.len() as u64);
        to.number(marks.len() as u64);
        let mut last = (0, pc);
        for way in ways {
            to.number(way.site.wrapping_sub(last.0).into());
            to.number(way.site.wrapping_sub(way.jump).into());
            let check = way.check.map_or(0, |at| way.jump.wrapping_sub(at.get()));
            to.number(u64::from(check) << 1 | u64::from(way.is_wary));
            to.signed(way.pc.wrapping_sub(last.1));
            last = (way.site, way.pc);
        }
        let mut last = (0, 0);
        for site in sites {
            to.number(site.at.wrapping_sub(last.0).into());
            to.signed(u64::from(site.insn).wrapping_sub(last.1));
            last = (site.at, u64::from(site.insn));
        }
        let mut last = (0, pc);
        for mark in marks {
            to.number(mark.at.wrapping_sub(last.0).into());
            to.signed(mark.pc.wrapping_sub(last.1));
            to.number(u64::from(mark.done) << 1 | u64::from(mark.is_first));
            last = (mark.at, mark.pc);
        }
        let written = to.room.get(..to.at);
        Notes(written.unwrap_or_default().into())
    }

    /// Instructions of the unit.
    pub(crate) fn insns(&self) -> usize {
        self.begin().1.marks
    }

    /// Its instructions, for a unit at `pc`.
    pub(crate) fn marks(&self, pc: u64) -> impl Iterator<Item = Mark> + '_ {
        let (mut reader, lens) = self.begin();
        reader.skip(OF_WAY * lens.ways + OF_SITE * lens.sites);
        let (mut at, mut pc) = (0u32, pc);
        (0..lens.marks).map_while(move |_| {
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
        let (mut reader, lens) = self.begin();
        reader.skip(OF_WAY * lens.ways);
        let (mut at, mut insn) = (0u32, 0u64);
        (0..lens.sites).map_while(move |_| {
            at = at.wrapping_add(reader.number()? as u32);
            insn = insn.wrapping_add(reader.signed()?);
            let insn = insn as u16;
            Some(Site { at, insn })
        })
    }

    /// Ways out of it, for a unit at `pc`.
    pub(crate) fn ways(&self, pc: u64) -> impl Iterator<Item = Way> + '_ {
        let (mut reader, lens) = self.begin();
        let (mut site, mut pc) = (0u32, pc);
        (0..lens.ways).map_while(move |_| {
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

    /// A reader of the first list, and how long they are.
    fn begin(&self) -> (Reader<'_>, Lens) {
        let mut reader = Reader(self.0.iter());
        let mut len = || reader.number().unwrap_or(0) as usize;
        let lens = Lens {
            ways: len(),
            sites: len(),
            marks: len(),
        };
        (reader, lens)
    }
}

/// How many of each there are.
struct Lens {
    ways: usize,
    sites: usize,
    marks: usize,
}

/// Numbers of a way out, of a return address, of an instruction.
const OF_WAY: usize = 4;
const OF_SITE: usize = 2;
const OF_MARK: usize = 3;
/// Most groups that a number has.
const MOST_GROUPS: usize = 10;

/// Writes numbers, to where there is room for all.
struct Writer<'a> {
    room: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    #[inline]
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    /// A difference that may be negative: the sign is the lowest bit.
    #[inline]
    fn signed(&mut self, number: u64) {
        let number = number.cast_signed();
        self.number((number << 1 ^ number >> 63).cast_unsigned());
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.room.get_mut(self.at) {
            *place = byte;
            self.at += 1;
        }
    }
}

struct Reader<'a>(std::slice::Iter<'a, u8>);

impl Reader<'_> {
    /// Passes over numbers.
    fn skip(&mut self, mut numbers: usize) {
        while numbers > 0
            && let Some(byte) = self.0.next()
        {
            numbers -= usize::from(*byte < 0x80);
        }
    }

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
        assert_eq!(notes.0.len(), 30);
    }
}
