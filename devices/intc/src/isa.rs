//! The PC's sixteen ISA interrupts and the I/O APIC inputs above them, as one set of lines.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hw_core::{IrqHub, IrqSink};

use crate::i8259::I8259;
use crate::ioapic::IoApic;

/// Pin the timer has at the I/O APIC: its input 0 belongs to the i8259's output.
const TIMER_PIN: u32 = 2;

/// Inputs of the I/O APIC.
const LINES: usize = 24;

/// Global system interrupts: each of the first sixteen goes to both controllers.
pub struct IsaLines {
    pic: Option<Arc<I8259>>,
    ioapic: Option<Arc<IoApic>>,
    /// Rises of each line.
    counts: [AtomicU64; LINES],
}

impl IsaLines {
    /// Lines into whichever controllers a board has.
    pub fn new(pic: Option<Arc<I8259>>, ioapic: Option<Arc<IoApic>>) -> Arc<Self> {
        Arc::new(IsaLines {
            pic,
            ioapic,
            counts: Default::default(),
        })
    }

    /// `count` shared lines by number, as [`Placement::bus_irqs`](hw_core::Placement) wants them.
    pub fn hubs(self: &Arc<Self>, count: u32) -> Vec<IrqHub> {
        (0..count).map(|n| IrqHub::new(self.clone(), n)).collect()
    }

    /// What `info irq` shows: how often each line rose, by controller.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut list = |controller: &str, lines: usize| {
            let _ = writeln!(text, "IRQ statistics for {controller}:");
            for (n, count) in self.counts.iter().enumerate().take(lines) {
                let count = count.load(Ordering::Relaxed);
                if count != 0 {
                    let _ = writeln!(text, "{n:2}: {count}");
                }
            }
        };
        if self.pic.is_some() {
            list("isa-i8259", 16);
        }
        if self.ioapic.is_some() {
            list("ioapic", LINES);
        }
        text
    }
}

/// The I/O APIC's input of a line. ACPI and MP tables say so: interrupt 0 is overridden to pin 2, and
/// interrupt 2 is the cascade, which no device drives.
fn ioapic_pin(line: u32) -> u32 {
    if line == 0 { TIMER_PIN } else { line }
}

impl IrqSink for IsaLines {
    fn keep_edges(&self, pin: u32) {
        if pin < 16
            && let Some(pic) = &self.pic
        {
            pic.keep_edges(pin);
        }
        if let Some(ioapic) = &self.ioapic {
            ioapic.keep_edges(ioapic_pin(pin));
        }
    }

    fn set(&self, pin: u32, level: bool) {
        let count = usize::try_from(pin).ok().and_then(|n| self.counts.get(n));
        if let Some(count) = count.filter(|_| level) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if pin < 16
            && let Some(pic) = &self.pic
        {
            pic.set(pin, level);
        }
        if let Some(ioapic) = &self.ioapic {
            ioapic.set(ioapic_pin(pin), level);
        }
    }
}
