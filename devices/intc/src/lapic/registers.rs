//! The register file, by MMIO (xAPIC) and by MSR (x2APIC).

use std::sync::atomic::Ordering;

use hw_core::Fault;
use hw_intc::{ApicMessage, DeliveryMode, Destination, LVT_COUNT, lvt, lvt_index, reg, svr};

use super::{FIRST_VECTOR, LocalApic, Mode, esr};

/// First x2APIC MSR.
const MSR_FIRST: u32 = 0x800;
/// Registers in the MSR range.
const MSR_COUNT: u32 = 0x100;

/// Version 14h, six local vector table entries, end-of-interrupt broadcast suppression.
const VERSION: u32 = 0x0105_0014;

/// ICR bits (11.6.1).
mod icr {
    pub(super) const LOGICAL: u64 = 1 << 11;
    pub(super) const PENDING: u64 = 1 << 12;
    pub(super) const ASSERT: u64 = 1 << 14;
    pub(super) const LEVEL: u64 = 1 << 15;
    /// What software may write of the low half.
    pub(super) const WRITABLE: u64 = 0x000c_cfff;
}

impl LocalApic {
    /// A read of the register page at `offset`, in xAPIC mode.
    pub(super) fn mmio_read(&self, offset: u64, peek: bool) -> Result<u32, Fault> {
        if self.mode() != Mode::XApic {
            return Err(Fault::Unassigned);
        }
        // Registers are the first words of 16-byte units.
        if offset & 0x0f != 0 {
            return Ok(0);
        }
        let number = (offset >> 4) as u32;
        let value = match number {
            reg::ID => self.id.wrapping_shl(24),
            reg::APR => self.ppr().into(),
            reg::EOI | reg::RRD => 0,
            reg::LDR => self.ldr.load(Ordering::Acquire),
            reg::DFR => self.dfr.load(Ordering::Acquire),
            reg::ICR => self.icr.load(Ordering::Acquire) as u32,
            reg::ICR_HIGH => (self.icr.load(Ordering::Acquire) >> 32) as u32,
            _ => match self.common_read(number) {
                Some(value) => value,
                None => {
                    if !peek {
                        self.error(esr::ILLEGAL_REGISTER);
                    }
                    0
                }
            },
        };
        Ok(value)
    }

    /// A write to the register page at `offset`, in xAPIC mode.
    pub(super) fn mmio_write(&self, offset: u64, value: u32) -> Result<(), Fault> {
        if self.mode() != Mode::XApic {
            return Err(Fault::Unassigned);
        }
        if offset & 0x0f != 0 {
            return Ok(());
        }
        let wide = u64::from(value);
        match (offset >> 4) as u32 {
            reg::LDR => self.ldr.store(value & 0xff00_0000, Ordering::Release),
            reg::DFR => self.dfr.store(value | 0x0fff_ffff, Ordering::Release),
            reg::ICR => {
                let old = self.icr.load(Ordering::Acquire);
                let new = (old & !0xffff_ffff) | (wide & icr::WRITABLE);
                self.icr.store(new, Ordering::Release);
                let dest = (new >> 56) as u8;
                let logical = new & icr::LOGICAL != 0;
                self.send(new, Destination::from_8_bits(dest, logical));
            }
            reg::ICR_HIGH => {
                let low = self.icr.load(Ordering::Acquire) & 0xffff_ffff;
                let high = (wide & 0xff00_0000) << 32;
                self.icr.store(low | high, Ordering::Release);
            }
            // Reads only; the id is fixed as on current processors.
            reg::ID | reg::VERSION | reg::APR | reg::PPR | reg::RRD | reg::CURRENT_COUNT => {}
            reg::ISR..reg::ESR => {}
            number => {
                if !self.common_write(number, value) {
                    self.error(esr::ILLEGAL_REGISTER);
                }
            }
        }
        Ok(())
    }

    /// RDMSR of an x2APIC register, `800h` to `8ffh`. A fault is #GP.
    pub fn read_msr(&self, msr: u32) -> Result<u64, Fault> {
        let number = self.x2apic_register(msr)?;
        Ok(match number {
            reg::ID => self.id.into(),
            reg::LDR => self.snapshot_ldr().into(),
            reg::ICR => self.icr.load(Ordering::Acquire),
            _ => self.common_read(number).ok_or(Fault::NoRegister)?.into(),
        })
    }

    /// WRMSR of an x2APIC register, `800h` to `8ffh`. A fault is #GP.
    pub fn write_msr(&self, msr: u32, value: u64) -> Result<(), Fault> {
        let number = self.x2apic_register(msr)?;
        if number == reg::ICR {
            if value & 0xffff_ffff & !(icr::WRITABLE | icr::PENDING) != 0 {
                return Err(Fault::BadValue);
            }
            let value = value & !icr::PENDING;
            self.icr.store(value, Ordering::Release);
            let dest = (value >> 32) as u32;
            let destination = if value & icr::LOGICAL != 0 {
                Destination::Logical(dest)
            } else {
                Destination::Physical(dest)
            };
            self.send(value, destination);
            return Ok(());
        }
        let value = u32::try_from(value).map_err(|_| Fault::BadValue)?;
        let allowed = match number {
            reg::EOI | reg::ESR => 0,
            reg::TPR | reg::SELF_IPI => 0xff,
            reg::SVR => svr::WRITABLE,
            reg::DIVIDE => 0x0b,
            reg::INITIAL_COUNT => u32::MAX,
            _ => match lvt_number(number) {
                Some(n) => lvt::WRITABLE.get(n).copied().unwrap_or(0),
                None => return Err(Fault::ReadOnly),
            },
        };
        if value & !allowed != 0 {
            return Err(Fault::BadValue);
        }
        if number == reg::SELF_IPI {
            let fixed = u64::from(value);
            self.send(fixed, Destination::Cpu(self.index));
        } else {
            self.common_write(number, value);
        }
        Ok(())
    }

    fn x2apic_register(&self, msr: u32) -> Result<u32, Fault> {
        let number = msr.checked_sub(MSR_FIRST).ok_or(Fault::NoRegister)?;
        if number >= MSR_COUNT || self.mode() != Mode::X2Apic {
            return Err(Fault::NoRegister);
        }
        Ok(number)
    }

    /// Registers that both interfaces read alike.
    fn common_read(&self, number: u32) -> Option<u32> {
        Some(match number {
            reg::VERSION => VERSION,
            reg::TPR => self.tpr.load(Ordering::Acquire),
            reg::PPR => self.ppr().into(),
            reg::SVR => self.svr.load(Ordering::Acquire),
            reg::ISR..reg::TMR => self.isr.get(number.wrapping_sub(reg::ISR)),
            reg::TMR..reg::IRR => self.tmr.get(number.wrapping_sub(reg::TMR)),
            reg::IRR..reg::ESR => self.irr.get(number.wrapping_sub(reg::IRR)),
            reg::ESR => self.esr.load(Ordering::Acquire),
            reg::INITIAL_COUNT => self.timer.lock().initial_count,
            reg::CURRENT_COUNT => self.timer.current_count(self.lvt_entry(lvt_index::TIMER)),
            reg::DIVIDE => self.timer.lock().divide,
            _ => self.lvt_entry(lvt_number(number)?),
        })
    }

    /// Registers that both interfaces write alike; false if there is none.
    fn common_write(&self, number: u32, value: u32) -> bool {
        match number {
            reg::TPR => self.set_tpr(value),
            reg::EOI => self.eoi(),
            reg::SVR => self.write_svr(value),
            // A write shows the errors since the last one.
            reg::ESR => {
                let errors = self.esr_pending.swap(0, Ordering::AcqRel);
                self.esr.store(errors, Ordering::Release);
            }
            reg::INITIAL_COUNT => self
                .timer
                .set_initial_count(self.lvt_entry(lvt_index::TIMER), value),
            reg::DIVIDE => self
                .timer
                .set_divide(self.lvt_entry(lvt_index::TIMER), value & 0x0b),
            _ => match lvt_number(number) {
                Some(n) => self.write_lvt(n, value),
                None => return false,
            },
        }
        true
    }

    fn write_svr(&self, value: u32) {
        let value = value & svr::WRITABLE;
        let old = self.svr.swap(value, Ordering::AcqRel);
        // Software disable masks all local sources (11.4.7.2).
        if old & svr::ENABLE != 0 && value & svr::ENABLE == 0 {
            for entry in &self.lvt {
                entry.fetch_or(lvt::MASKED, Ordering::AcqRel);
            }
        }
        self.recheck();
    }

    fn write_lvt(&self, n: usize, value: u32) {
        let (Some(slot), Some(writable)) = (self.lvt.get(n), lvt::WRITABLE.get(n)) else {
            return;
        };
        let mut value = value & writable;
        if !self.is_software_enabled() {
            value |= lvt::MASKED;
        }
        let old = slot.swap(value, Ordering::AcqRel);
        if n == lvt_index::TIMER && self.timer.mode_changed(old, value) {
            self.deliver_local(n);
        }
        // The i8259 may have waited behind the mask.
        self.recheck();
    }

    /// Sends what ICR says.
    fn send(&self, command: u64, destination: Destination) {
        let vector = command as u8;
        let Some(mode) = DeliveryMode::from_code((command >> 8) as u32) else {
            return;
        };
        let is_level = command & icr::LEVEL != 0;
        let is_deassert = mode == DeliveryMode::Init && is_level && command & icr::ASSERT == 0;
        // INIT level de-assert only re-arbitrates ids; ExtINT is not for ICR.
        if is_deassert || mode == DeliveryMode::ExtInt {
            return;
        }
        if mode.has_vector() && vector < FIRST_VECTOR {
            self.error(esr::SEND_ILLEGAL_VECTOR);
            return;
        }
        let destination = match (command >> 18) & 3 {
            0 => destination,
            1 => Destination::Cpu(self.index),
            2 => Destination::All,
            _ => Destination::AllBut(self.index),
        };
        if let Some(bus) = self.bus.upgrade() {
            bus.deliver(ApicMessage {
                destination,
                mode,
                vector,
                level: false,
            });
        }
    }
}

/// Position in the local vector table of a register number.
fn lvt_number(number: u32) -> Option<usize> {
    let n = usize::try_from(number.checked_sub(reg::LVT)?).ok()?;
    (n < LVT_COUNT).then_some(n)
}
