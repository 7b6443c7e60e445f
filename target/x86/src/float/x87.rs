//! x87 state: registers, control, status and tags, and how exceptions and stack faults are noted.
//!
//! Spec: Intel SDM vol. 1, chapter 8. The status word is kept without TOP; ES and B follow from the
//! flags and masks and are kept in step by [`X87::summarize`].

use target_softfloat::{Env, F80, Flags, Float};

/// Bits of the status word (SDM vol. 1, 8.1.3).
pub(crate) mod status {
    /// Invalid operation.
    pub(crate) const IE: u16 = 1 << 0;
    /// The six exception flags.
    pub(crate) const FLAGS: u16 = 0x3f;
    /// Stack fault.
    pub(crate) const SF: u16 = 1 << 6;
    /// Exception summary.
    pub(crate) const ES: u16 = 1 << 7;
    /// Condition codes.
    pub(crate) const C0: u16 = 1 << 8;
    pub(crate) const C1: u16 = 1 << 9;
    pub(crate) const C2: u16 = 1 << 10;
    pub(crate) const C3: u16 = 1 << 14;
    /// TOP.
    pub(crate) const TOP: u16 = 7 << 11;
    /// Busy: as ES.
    pub(crate) const B: u16 = 1 << 15;
}

/// Control word after FNINIT.
const CONTROL_INIT: u16 = 0x37f;
/// Control word after power-up (SDM vol. 3, table 9-1).
const CONTROL_RESET: u16 = 0x40;
/// Bits of the control word that can be written.
const CONTROL_WRITABLE: u16 = 0x1f3f;
/// Bit 6 of the control word reads as one.
const CONTROL_FIXED: u16 = 0x40;

/// The real indefinite value.
pub(crate) const INDEFINITE: F80 = F80 {
    se: 0xffff,
    sig: 0xc000_0000_0000_0000,
};

/// The x87 unit, whose significands are also the MMX registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X87 {
    /// R0 to R7: physical registers, not relative to TOP.
    pub registers: [F80; 8],
    /// Control word.
    pub control: u16,
    /// Status word with the TOP field zero.
    pub status: u16,
    /// TOP, 0 to 7.
    pub top: u8,
    /// Bit n: physical register n is not empty (FXSAVE's abridged tag word).
    pub used: u8,
    /// Low eleven bits of the last instruction's opcode.
    pub opcode: u16,
    /// Offset of the last instruction.
    pub ip: u64,
    /// Offset of the last memory operand.
    pub dp: u64,
}

impl Default for X87 {
    /// After power-up.
    fn default() -> Self {
        X87 {
            control: CONTROL_RESET,
            used: 0xff,
            ..Self::INIT
        }
    }
}

impl X87 {
    /// After FNINIT, with the registers as XRSTOR initialises them.
    pub const INIT: X87 = X87 {
        registers: [F80 { se: 0, sig: 0 }; 8],
        control: CONTROL_INIT,
        status: 0,
        top: 0,
        used: 0,
        opcode: 0,
        ip: 0,
        dp: 0,
    };

    /// FNINIT: the registers keep their content.
    pub(crate) fn init(&mut self) {
        *self = X87 {
            registers: self.registers,
            ..Self::INIT
        };
    }

    fn physical(&self, i: u8) -> u8 {
        self.top.wrapping_add(i) & 7
    }

    /// A physical register.
    pub(crate) fn register(&self, n: u8) -> F80 {
        self.registers
            .get(usize::from(n & 7))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn set_register(&mut self, n: u8, value: F80) {
        if let Some(r) = self.registers.get_mut(usize::from(n & 7)) {
            *r = value;
        }
    }

    /// Whether ST(i) holds something.
    pub(crate) fn is_used(&self, i: u8) -> bool {
        self.used.wrapping_shr(self.physical(i).into()) & 1 != 0
    }

    /// ST(i), whatever its tag.
    pub(crate) fn st(&self, i: u8) -> F80 {
        self.register(self.physical(i))
    }

    /// ST(i) unless it is empty.
    pub(crate) fn get(&self, i: u8) -> Option<F80> {
        self.is_used(i).then(|| self.st(i))
    }

    /// Writes ST(i); it is no longer empty.
    pub(crate) fn put(&mut self, i: u8, value: F80) {
        let n = self.physical(i);
        self.set_register(n, value);
        self.used |= 1_u8.wrapping_shl(n.into());
    }

    /// FFREE.
    pub(crate) fn free(&mut self, i: u8) {
        self.used &= !1_u8.wrapping_shl(self.physical(i).into());
    }

    /// FINCSTP.
    pub(crate) fn rotate(&mut self, by: i8) {
        self.top = self.top.wrapping_add_signed(by) & 7;
    }

    /// Pops `count` registers.
    pub(crate) fn pop(&mut self, count: u8) {
        for _ in 0..count {
            self.free(0);
            self.rotate(1);
        }
    }

    /// Pushes; the caller has checked ST(7).
    pub(crate) fn push(&mut self, value: F80) {
        self.rotate(-1);
        self.put(0, value);
    }

    /// The environment of the next operation, with no flags set.
    pub(crate) fn env(&self) -> Env {
        Env::from_x87_control(self.control)
    }

    /// Brings ES and B in line with flags and masks.
    pub(crate) fn summarize(&mut self) {
        let summary = status::ES | status::B;
        if self.status & !self.control & status::FLAGS != 0 {
            self.status |= summary;
        } else {
            self.status &= !summary;
        }
    }

    /// Whether an unmasked exception waits for the next waiting instruction.
    pub(crate) fn is_pending(&self) -> bool {
        self.status & status::ES != 0
    }

    /// Sets or clears condition codes.
    pub(crate) fn set_codes(&mut self, mask: u16, codes: u16) {
        self.status = self.status & !mask | codes & mask;
    }

    /// Notes an overflow (C1) or underflow of the stack. Whether the masked response is due; else
    /// nothing may change.
    pub(crate) fn stack_fault(&mut self, overflow: bool) -> bool {
        self.status |= status::IE | status::SF;
        self.set_codes(status::C1, if overflow { status::C1 } else { 0 });
        self.summarize();
        self.control & status::IE != 0
    }

    /// Notes the flags of an operation that began with none. Whether its result is to be written:
    /// not if an unmasked exception was found before computing. C1 says whether it was rounded up.
    pub(crate) fn settle(&mut self, env: &mut Env) -> bool {
        let rounded_up = env.flags.has(Flags::ROUNDED_UP);
        let faults = env.x86_faults();
        let early = Flags::INVALID | Flags::DENORMAL | Flags::DIV_BY_ZERO;
        let stopped = faults.has(early);
        self.status |= u16::from(env.flags.x86_bits());
        self.set_codes(
            status::C1,
            if rounded_up && !stopped {
                status::C1
            } else {
                0
            },
        );
        self.summarize();
        !stopped
    }

    /// The status word as FNSTSW shows it.
    pub fn status_word(&self) -> u16 {
        self.status & !status::TOP | u16::from(self.top & 7) << 11
    }

    /// Sets status and TOP; ES and B follow from the flags.
    pub(crate) fn set_status_word(&mut self, value: u16) {
        self.top = (value >> 11) as u8 & 7;
        self.status = value & !status::TOP;
        self.summarize();
    }

    /// FLDCW.
    pub(crate) fn set_control(&mut self, value: u16) {
        self.control = value & CONTROL_WRITABLE | CONTROL_FIXED;
        self.summarize();
    }

    /// The tag word with two bits a register (SDM vol. 1, 8.1.7).
    pub fn tag_word(&self) -> u16 {
        let mut tags = 0_u16;
        for n in (0..8_u8).rev() {
            let value = self.register(n);
            let tag = if self.used.wrapping_shr(n.into()) & 1 == 0 {
                3
            } else if value.is_zero() {
                1
            } else if matches!(value.se & 0x7fff, 0 | 0x7fff) || value.sig >> 63 == 0 {
                2
            } else {
                0
            };
            tags = tags << 2 | tag;
        }
        tags
    }

    /// Of a tag word only "empty" matters: the rest is recomputed.
    pub(crate) fn set_tag_word(&mut self, tags: u16) {
        self.used = (0..8_u8).fold(0, |used, n| {
            let empty = tags.wrapping_shr(u32::from(n).wrapping_mul(2)) & 3 == 3;
            used | u8::from(!empty).wrapping_shl(n.into())
        });
    }

    /// An MMX register.
    pub(crate) fn mm(&self, n: u8) -> u64 {
        self.register(n).sig
    }

    /// Every MMX instruction but EMMS: TOP is 0 and all registers are in use (SDM vol. 1, 9.5.1).
    pub(crate) fn enter_mmx(&mut self) {
        self.top = 0;
        self.used = 0xff;
    }

    /// Writes an MMX register: the exponent becomes all ones.
    pub(crate) fn put_mm(&mut self, n: u8, value: u64) {
        let value = F80 {
            se: 0xffff,
            sig: value,
        };
        self.set_register(n, value);
    }
}
