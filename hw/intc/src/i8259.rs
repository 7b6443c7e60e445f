//! State of the PC's two i8259A interrupt controllers.

use hw_state::{Section, StateError};

/// One chip. Flags carry the data sheet's names (Intel 231468-003).
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct I8259Chip {
    /// Levels of the eight inputs as last driven.
    pub lines: u8,
    /// Interrupt request register.
    pub irr: u8,
    /// Interrupt mask register.
    pub imr: u8,
    /// In-service register.
    pub isr: u8,
    /// Inputs that are level-triggered (edge/level control register).
    pub elcr: u8,
    /// The input of highest priority.
    pub priority_add: u8,
    /// Vector of input 0.
    pub irq_base: u8,
    /// Initialization word expected next (2, 3, 4), 0 when done.
    pub expects_icw: u8,
    /// ICW1: ICW4 will follow.
    pub has_icw4: bool,
    /// ICW1: no cascade.
    pub is_single: bool,
    /// ICW1: all inputs are level-triggered.
    pub is_level: bool,
    /// ICW4: automatic end of interrupt.
    pub auto_eoi: bool,
    /// ICW4: special fully nested mode.
    pub special_fully_nested: bool,
    /// OCW2: rotate on automatic end of interrupt.
    pub rotate_on_auto_eoi: bool,
    /// OCW3: special mask mode.
    pub special_mask: bool,
    /// OCW3: the next read polls.
    pub poll: bool,
    /// OCW3: reads of port 0 answer ISR.
    pub reads_isr: bool,
}

/// Both chips.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct I8259State {
    /// Inputs 0 to 7, output to the CPU.
    pub master: I8259Chip,
    /// Inputs 8 to 15, output to the master's input 2.
    pub slave: I8259Chip,
}

const NAME: &str = "i8259";
const VERSION: u16 = 1;
const MASTER: u16 = 1;
const SLAVE: u16 = 2;

impl I8259Chip {
    fn save(&self) -> Section {
        let I8259Chip {
            lines,
            irr,
            imr,
            isr,
            elcr,
            priority_add,
            irq_base,
            expects_icw,
            has_icw4,
            is_single,
            is_level,
            auto_eoi,
            special_fully_nested,
            rotate_on_auto_eoi,
            special_mask,
            poll,
            reads_isr,
        } = self.clone();
        Section::new("chip", VERSION)
            .with(1, lines)
            .with(2, irr)
            .with(3, imr)
            .with(4, isr)
            .with(5, elcr)
            .with(6, priority_add)
            .with(7, irq_base)
            .with(8, expects_icw)
            .with(9, has_icw4)
            .with(10, is_single)
            .with(11, is_level)
            .with(12, auto_eoi)
            .with(13, special_fully_nested)
            .with(14, rotate_on_auto_eoi)
            .with(15, special_mask)
            .with(16, poll)
            .with(17, reads_isr)
    }

    fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect("chip", VERSION)?;
        let priority_add = s.u8(6)?;
        let expects_icw = s.u8(8)?;
        if priority_add > 7 {
            return Err(s.bad(6, "not an input"));
        }
        if !matches!(expects_icw, 0 | 2..=4) {
            return Err(s.bad(8, "not an initialization word"));
        }
        Ok(I8259Chip {
            lines: s.u8(1)?,
            irr: s.u8(2)?,
            imr: s.u8(3)?,
            isr: s.u8(4)?,
            elcr: s.u8(5)?,
            priority_add,
            irq_base: s.u8(7)?,
            expects_icw,
            has_icw4: s.bool(9)?,
            is_single: s.bool(10)?,
            is_level: s.bool(11)?,
            auto_eoi: s.bool(12)?,
            special_fully_nested: s.bool(13)?,
            rotate_on_auto_eoi: s.bool(14)?,
            special_mask: s.bool(15)?,
            poll: s.bool(16)?,
            reads_isr: s.bool(17)?,
        })
    }
}

impl I8259State {
    /// The saved form.
    pub fn save(&self) -> Section {
        Section::new(NAME, VERSION)
            .with(MASTER, self.master.save())
            .with(SLAVE, self.slave.save())
    }

    /// From the saved form.
    pub fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect(NAME, VERSION)?;
        Ok(I8259State {
            master: I8259Chip::restore(s.section(MASTER)?)?,
            slave: I8259Chip::restore(s.section(SLAVE)?)?,
        })
    }
}
