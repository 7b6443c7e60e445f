//! One i8259A: priorities, acknowledge, commands.
//!
//! Spec: Intel 8259A (231468-003), "Initialization Command Words", "Operation Command Words".

use hw_intc::I8259Chip;

const ICW1: u8 = 1 << 4;
const ICW1_ICW4: u8 = 1 << 0;
const ICW1_SINGLE: u8 = 1 << 1;
const ICW1_LEVEL: u8 = 1 << 3;
const ICW4_AUTO_EOI: u8 = 1 << 1;
const ICW4_FULLY_NESTED: u8 = 1 << 4;
const OCW3: u8 = 1 << 3;
const OCW3_READ: u8 = 1 << 1;
const OCW3_READ_ISR: u8 = 1 << 0;
const OCW3_POLL: u8 = 1 << 2;
const OCW3_SPECIAL_MASK: u8 = 1 << 5;
const OCW3_SET_SPECIAL_MASK: u8 = 1 << 6;

/// What a poll answers beside the input's number.
const POLL_PENDING: u8 = 0x80;

/// The bit of input `n`.
pub(super) fn bit(n: u8) -> u8 {
    1u8.wrapping_shl(n.into())
}

/// Behaviour of one chip.
pub(super) trait Chip {
    /// Input `n` changes. The cascade input of the master is driven by [`super::I8259`].
    fn set_line(&mut self, n: u8, level: bool);
    /// The input that the chip would interrupt for. `cascade` is the input of a slave, if any.
    fn pending(&self, cascade: Option<u8>) -> Option<u8>;
    /// The CPU took input `n`.
    fn acknowledge(&mut self, n: u8);
    /// A write to the even port.
    fn write_command(&mut self, value: u8);
    /// A write to the odd port.
    fn write_data(&mut self, value: u8);
    /// A read of either port.
    fn read(&mut self, odd: bool, cascade: Option<u8>) -> u8;
    /// What a read would answer but for a poll.
    fn peek(&self, odd: bool) -> u8;
}

/// Distance of the highest set input from the top priority.
fn rank(chip: &I8259Chip, bits: u8) -> Option<u8> {
    let rotated = bits.rotate_right(chip.priority_add.into());
    (rotated != 0).then(|| rotated.trailing_zeros() as u8)
}

/// The input at a distance from the top priority.
fn at_rank(chip: &I8259Chip, rank: u8) -> u8 {
    chip.priority_add.wrapping_add(rank) & 7
}

fn is_level(chip: &I8259Chip, n: u8) -> bool {
    chip.is_level || chip.elcr & bit(n) != 0
}

fn end_of_interrupt(chip: &mut I8259Chip, value: u8) {
    let named = value & 7;
    let highest = rank(chip, chip.isr).map(|rank| at_rank(chip, rank));
    match value >> 5 {
        0 => chip.rotate_on_auto_eoi = false,
        4 => chip.rotate_on_auto_eoi = true,
        // Non-specific, without and with rotation.
        command @ (1 | 5) => {
            let Some(n) = highest else { return };
            chip.isr &= !bit(n);
            if command == 5 {
                chip.priority_add = n.wrapping_add(1) & 7;
            }
        }
        3 => chip.isr &= !bit(named),
        7 => {
            chip.isr &= !bit(named);
            chip.priority_add = named.wrapping_add(1) & 7;
        }
        6 => chip.priority_add = named.wrapping_add(1) & 7,
        _ => {}
    }
}

impl Chip for I8259Chip {
    fn set_line(&mut self, n: u8, level: bool) {
        let mask = bit(n);
        let rose = level && self.lines & mask == 0;
        if level {
            self.lines |= mask;
        } else {
            self.lines &= !mask;
        }
        if is_level(self, n) {
            self.irr = (self.irr & !mask) | (self.lines & mask);
        } else if rose {
            self.irr |= mask;
        }
    }

    fn pending(&self, cascade: Option<u8>) -> Option<u8> {
        let candidate = rank(self, self.irr & !self.imr)?;
        let mut in_service = self.isr;
        if self.special_mask {
            in_service &= !self.imr;
        }
        if self.special_fully_nested
            && let Some(slave) = cascade
        {
            in_service &= !bit(slave);
        }
        match rank(self, in_service) {
            Some(current) if current <= candidate => None,
            _ => Some(at_rank(self, candidate)),
        }
    }

    fn acknowledge(&mut self, n: u8) {
        if self.auto_eoi {
            if self.rotate_on_auto_eoi {
                self.priority_add = n.wrapping_add(1) & 7;
            }
        } else {
            self.isr |= bit(n);
        }
        if !is_level(self, n) {
            self.irr &= !bit(n);
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            *self = I8259Chip {
                lines: self.lines,
                elcr: self.elcr,
                irq_base: self.irq_base,
                expects_icw: 2,
                has_icw4: value & ICW1_ICW4 != 0,
                is_single: value & ICW1_SINGLE != 0,
                is_level: value & ICW1_LEVEL != 0,
                ..I8259Chip::default()
            };
            // Edges are forgotten; a level that is still there is seen again.
            self.irr = self.lines & if self.is_level { 0xff } else { self.elcr };
        } else if value & OCW3 != 0 {
            self.poll = value & OCW3_POLL != 0;
            if value & OCW3_READ != 0 {
                self.reads_isr = value & OCW3_READ_ISR != 0;
            }
            if value & OCW3_SET_SPECIAL_MASK != 0 {
                self.special_mask = value & OCW3_SPECIAL_MASK != 0;
            }
        } else {
            end_of_interrupt(self, value);
        }
    }

    fn write_data(&mut self, value: u8) {
        let after_cascade = if self.has_icw4 { 4 } else { 0 };
        match self.expects_icw {
            2 => {
                self.irq_base = value & 0xf8;
                self.expects_icw = if self.is_single { after_cascade } else { 3 };
            }
            // ICW3 names the cascade input, which is wired.
            3 => self.expects_icw = after_cascade,
            4 => {
                self.special_fully_nested = value & ICW4_FULLY_NESTED != 0;
                self.auto_eoi = value & ICW4_AUTO_EOI != 0;
                self.expects_icw = 0;
            }
            _ => self.imr = value,
        }
    }

    fn read(&mut self, odd: bool, cascade: Option<u8>) -> u8 {
        if self.poll {
            self.poll = false;
            return match self.pending(cascade) {
                Some(n) => {
                    self.acknowledge(n);
                    n | POLL_PENDING
                }
                None => 0,
            };
        }
        self.peek(odd)
    }

    fn peek(&self, odd: bool) -> u8 {
        match (odd, self.reads_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }
}
