//! The PC's sixteen ISA interrupts and the I/O APIC inputs above them, as one set of lines.

use std::sync::Arc;

use hw_core::{IrqHub, IrqSink};

use crate::i8259::I8259;
use crate::ioapic::IoApic;

/// Pin the timer has at the I/O APIC: its input 0 belongs to the i8259's output.
const TIMER_PIN: u32 = 2;

/// Global system interrupts: each of the first sixteen goes to both controllers.
pub struct IsaLines {
    pic: Option<Arc<I8259>>,
    ioapic: Option<Arc<IoApic>>,
}

impl IsaLines {
    /// Lines into whichever controllers a board has.
    pub fn new(pic: Option<Arc<I8259>>, ioapic: Option<Arc<IoApic>>) -> Arc<Self> {
        Arc::new(IsaLines { pic, ioapic })
    }

    /// `count` shared lines by number, as [`Placement::bus_irqs`](hw_core::Placement) wants them.
    pub fn hubs(self: &Arc<Self>, count: u32) -> Vec<IrqHub> {
        (0..count).map(|n| IrqHub::new(self.clone(), n)).collect()
    }
}

impl IrqSink for IsaLines {
    fn set(&self, pin: u32, level: bool) {
        if pin < 16
            && let Some(pic) = &self.pic
        {
            pic.set(pin, level);
        }
        if let Some(ioapic) = &self.ioapic {
            // ACPI and MP tables say so: interrupt 0 is overridden to pin 2, and interrupt 2 is the
            // cascade, which no device drives.
            ioapic.set(if pin == 0 { TIMER_PIN } else { pin }, level);
        }
    }
}
