//! I/O APIC.
//!
//! Spec: Intel 82093AA (290566-001); the EOI register of version 20h: Intel ICH9, 13.5.
//!
//! Messages leave as MSI writes, so that they reach local APICs in user space or in the kernel
//! alike. Wires carry "asserted", not voltage: the polarity bit is kept and means nothing here.
//!
//! Not modelled: the APIC bus and its arbitration.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, IrqSink, Msi,
    Prop, PropType, Region, ResetKind, Section, StateError, Wiring,
};
use hw_intc::{IOAPIC_PINS, IoApicState, redirection};
use runtime::{Rank, Ranked, RankedGuard};

use crate::kept::Kept;

#[cfg(test)]
mod tests;

/// Address of the first I/O APIC.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
const LEN: u64 = 0x1000;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const IOEOI: u64 = 0x40;

const INDEX_ID: u8 = 0x00;
const INDEX_VERSION: u8 = 0x01;
const INDEX_ARBITRATION: u8 = 0x02;
const INDEX_TABLE: u8 = 0x10;
const ID_SHIFT: u32 = 24;

/// Version 20h, which has the EOI register, and the number of the last input.
const VERSION: u32 = 0x0017_0020;

/// One I/O APIC, shared by lines, local APICs and registers.
pub struct IoApic {
    state: Ranked<IoApicState>,
    messages: OnceLock<Msi>,
    kept: Kept,
    /// Whether it waits for the end of an edge interrupt: local APICs tell of these only then.
    awaits: AtomicBool,
    /// How many I/O APICs do.
    awaiting: OnceLock<Arc<AtomicU32>>,
}

impl std::fmt::Debug for IoApic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl IoApic {
    /// Delivers input `n` if its line, entry and history say so.
    fn service(&self, state: &mut IoApicState, n: usize, edge: bool) {
        use redirection::{LEVEL, MASKED, REMOTE_IRR};
        let pin = n as u32;
        let line = state.lines & 1u32.wrapping_shl(pin) != 0;
        let Some(entry) = state.entries.get_mut(n) else {
            return;
        };
        let is_level = *entry & LEVEL != 0;
        // An edge on a masked input is "ignored (i.e. not delivered or held pending)".
        if *entry & MASKED != 0 || !line || (!is_level && !edge) {
            return;
        }
        if is_level {
            if *entry & REMOTE_IRR != 0 {
                return;
            }
            *entry |= REMOTE_IRR;
        } else {
            self.kept.rise(pin);
            self.say_awaiting();
        }
        self.send(*entry);
    }

    fn send(&self, entry: u64) {
        let (address, data) = redirection::message(entry);
        if let Some(messages) = self.messages.get() {
            messages.send(address, data);
        }
    }

    /// A local APIC ended an edge interrupt: the next one of that vector that is owed follows. As
    /// [`eoi`](Self::eoi).
    pub(crate) fn end_of_edge(&self, vector: u8) {
        let state = self.state();
        for (pin, entry) in (0..).zip(state.entries) {
            if entry as u8 == vector
                && entry & redirection::LEVEL == 0
                && self.kept.is_waiting(pin)
                && self.kept.done(pin)
            {
                self.send(entry);
            }
        }
        self.say_awaiting();
    }

    /// Tells local APICs whether ends of edge interrupts are waited for. With the lock held.
    fn say_awaiting(&self) {
        let awaits = self.kept.is_any_waiting();
        if self.awaits.swap(awaits, Ordering::SeqCst) != awaits
            && let Some(awaiting) = self.awaiting.get()
        {
            match awaits {
                true => awaiting.fetch_add(1, Ordering::SeqCst),
                false => awaiting.fetch_sub(1, Ordering::SeqCst),
            };
        }
    }

    pub(crate) fn awaits_edges(&self) -> bool {
        self.awaits.load(Ordering::SeqCst)
    }

    /// Where it is counted how many wait. Once, before anything is delivered.
    pub(crate) fn tell_awaiting(&self, awaiting: &Arc<AtomicU32>) {
        let _ = self.awaiting.set(awaiting.clone());
    }

    /// An I/O APIC after power on.
    pub fn new() -> Arc<Self> {
        Arc::new(IoApic {
            state: Ranked::new(Rank::InterruptController, IoApicState::default()),
            messages: OnceLock::new(),
            kept: Kept::default(),
            awaits: AtomicBool::default(),
            awaiting: OnceLock::new(),
        })
    }

    fn state(&self) -> RankedGuard<'_, IoApicState> {
        self.state.lock()
    }

    /// A local APIC ended a level interrupt: inputs of that vector that are still asserted are
    /// delivered again. Called with no lock held; takes this controller's own.
    pub fn eoi(&self, vector: u8) {
        let mut state = self.state();
        for n in 0..IOAPIC_PINS {
            if let Some(entry) = state.entries.get_mut(n)
                && *entry as u8 == vector
                && *entry & redirection::LEVEL != 0
                && *entry & redirection::REMOTE_IRR != 0
            {
                *entry &= !redirection::REMOTE_IRR;
                self.service(&mut state, n, false);
            }
        }
    }

    /// The state, to hand to an accelerator's controller.
    pub fn snapshot(&self) -> IoApicState {
        self.state().clone()
    }

    /// Takes over a state.
    pub fn set_snapshot(&self, new: IoApicState) {
        *self.state() = new;
    }

    /// What `info pic` shows.
    pub fn describe(&self) -> String {
        let state = self.state();
        let mut text = format!(
            "ioapic0: ver=0x20 id=0x{:02x} sel=0x{:02x}\n",
            state.id, state.select
        );
        for (n, entry) in state.entries.iter().enumerate() {
            let flag = |bit: u64, set: &'static str, clear: &'static str| {
                if entry & bit != 0 { set } else { clear }
            };
            let mode = [
                "fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "ExtINT",
            ];
            let code = (entry >> redirection::MODE_SHIFT) & 7;
            let mode = usize::try_from(code).ok().and_then(|c| mode.get(c));
            text.push_str(&format!(
                "  pin {n:<2} 0x{entry:016x} dest={:x} vec={:<3} {} {} {} {} {}{}\n",
                entry >> redirection::DEST_SHIFT,
                entry & 0xff,
                flag(redirection::ACTIVE_LOW, "active-lo", "active-hi"),
                flag(redirection::LEVEL, "level", "edge"),
                flag(redirection::MASKED, "masked", ""),
                mode.copied().unwrap_or(""),
                flag(redirection::LOGICAL, "logical", "physical"),
                flag(redirection::REMOTE_IRR, " remote-irr", ""),
            ));
        }
        text.push_str(&format!("  lines 0x{:06x}\n", state.lines));
        text
    }

    fn read_window(state: &IoApicState) -> u32 {
        match state.select {
            INDEX_ID | INDEX_ARBITRATION => u32::from(state.id).wrapping_shl(ID_SHIFT),
            INDEX_VERSION => VERSION,
            select => {
                let Some((n, high)) = table_index(select) else {
                    return 0;
                };
                let entry = state.entries.get(n).copied().unwrap_or(0);
                if high {
                    (entry >> 32) as u32
                } else {
                    entry as u32
                }
            }
        }
    }

    fn write_window(&self, state: &mut IoApicState, value: u32) {
        if state.select == INDEX_ID {
            state.id = (value >> ID_SHIFT) as u8 & 0x0f;
            return;
        }
        let Some((n, high)) = table_index(state.select) else {
            return;
        };
        let Some(entry) = state.entries.get_mut(n) else {
            return;
        };
        let value = if high {
            (*entry & 0xffff_ffff) | (u64::from(value) << 32)
        } else {
            (*entry & !0xffff_ffff) | u64::from(value)
        };
        let kept = *entry & redirection::REMOTE_IRR;
        *entry = (value & redirection::WRITABLE) | kept;
        // Making an entry edge-triggered forgets its level interrupt: how kernels end one on
        // controllers without EOI register.
        if *entry & redirection::LEVEL == 0 {
            *entry &= !redirection::REMOTE_IRR;
        }
        if *entry & (redirection::LEVEL | redirection::MASKED) != 0 {
            self.kept.forget(n as u32);
            self.say_awaiting();
        }
        self.service(state, n, false);
    }
}

/// Entry and half of the redirection table.
fn table_index(select: u8) -> Option<(usize, bool)> {
    let index = select.checked_sub(INDEX_TABLE)?;
    let n = usize::from(index >> 1);
    (n < IOAPIC_PINS).then_some((n, index & 1 != 0))
}

impl IrqSink for IoApic {
    fn keep_edges(&self, pin: u32) {
        self.kept.keep(pin);
    }

    fn set(&self, pin: u32, level: bool) {
        let Some(n) = usize::try_from(pin).ok().filter(|n| *n < IOAPIC_PINS) else {
            return;
        };
        let mut state = self.state();
        let bit = 1u32.wrapping_shl(pin);
        let rose = level && state.lines & bit == 0;
        if level {
            state.lines |= bit;
        } else {
            state.lines &= !bit;
        }
        self.service(&mut state, n, rose);
    }
}

/// The registers of an I/O APIC.
pub struct IoApicDevice {
    ioapic: Arc<IoApic>,
    base: u64,
}

impl IoApicDevice {
    /// Registers of `ioapic` at `base`.
    pub fn new(ioapic: Arc<IoApic>, base: u64) -> Self {
        IoApicDevice { ioapic, base }
    }
}

impl Device for IoApicDevice {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.mmio(Region::new("ioapic", self.base, LEN).sizes(AccessSizes::WORD));
        let _ = self.ioapic.messages.set(w.msi());
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        let mut state = self.ioapic.state();
        *state = IoApicState {
            lines: state.lines,
            ..IoApicState::default()
        };
        (0..)
            .zip(state.entries)
            .for_each(|(pin, _)| self.ioapic.kept.forget(pin));
        self.ioapic.say_awaiting();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let state = self.ioapic.state();
        Ok(match access.offset {
            IOREGSEL => state.select.into(),
            IOWIN => IoApic::read_window(&state).into(),
            _ => 0,
        })
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        match access.offset {
            IOREGSEL => self.ioapic.state().select = value as u8,
            IOWIN => {
                let mut state = self.ioapic.state();
                self.ioapic.write_window(&mut state, value as u32);
            }
            IOEOI => self.ioapic.eoi(value as u8),
            _ => return Err(Fault::NoRegister),
        }
        Ok(())
    }

    fn save(&self) -> Section {
        self.ioapic.state().save()
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        *self.ioapic.state() = IoApicState::restore(section)?;
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let state = self.ioapic.state();
        vec![("id", state.id.into()), ("lines", state.lines.into())]
    }
}

/// `ioapic`.
pub static IOAPIC: DeviceClass = DeviceClass {
    name: "ioapic",
    aliases: &[],
    doc: "I/O APIC with 24 inputs",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[Prop {
        name: "base",
        ty: PropType::U64,
        default: "0xfec00000",
        doc: "address of the registers",
    }],
    user_creatable: false,
    create: |args, _| {
        let base = args.int("base").unwrap_or(IOAPIC_BASE);
        Ok(Box::new(IoApicDevice::new(IoApic::new(), base)))
    },
};
