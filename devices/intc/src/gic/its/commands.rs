//! Commands of the translation service (IHI 0069H section 5.3). One that makes no sense does nothing.

use hw_intc::{GIC_FIRST_LPI, GIC_INTID_BITS};

use super::tables::{DeviceEntry, ID_BITS, Translation};
use super::{Its, VALID};

const MOVI: u8 = 0x01;
const INT: u8 = 0x03;
const CLEAR: u8 = 0x04;
const MAPD: u8 = 0x08;
const MAPC: u8 = 0x09;
const MAPTI: u8 = 0x0a;
const MAPI: u8 = 0x0b;
const INV: u8 = 0x0c;
const INVALL: u8 = 0x0d;
const MOVALL: u8 = 0x0e;
const DISCARD: u8 = 0x0f;

/// What is to be done after a command, once for all before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    Nothing,
    /// Properties of LPIs are read again.
    Reread,
}

/// The redistributor that a command names by its number.
fn redistributor(word: u64) -> usize {
    usize::try_from(word >> 16 & 0xffff).unwrap_or(usize::MAX)
}

fn is_lpi(intid: u32) -> bool {
    intid >= GIC_FIRST_LPI && intid >> GIC_INTID_BITS == 0
}

impl Its {
    /// Carries out one command.
    pub(super) fn command(&mut self, words: [u64; 4]) -> After {
        let [first, _, _, _] = words;
        if first as u8 == INVALL {
            // Of one collection; reading more again does no harm.
            return After::Reread;
        }
        let _ = self.carry_out(words);
        After::Nothing
    }

    fn carry_out(&mut self, [w0, w1, w2, w3]: [u64; 4]) -> Option<()> {
        let device = (w0 >> 32) as u32;
        let event = w1 as u32;
        let collection = w2 as u32 & 0xffff;
        let is_valid = w2 & VALID != 0;
        match w0 as u8 {
            MAPD => {
                let size = w1 as u32 & 0x1f;
                let known = is_valid.then_some(DeviceEntry { itt: w2, size });
                if is_valid && size >= ID_BITS {
                    return None;
                }
                self.set_device(device, known)
            }
            MAPC => {
                let cpu = redistributor(w2);
                if is_valid && cpu >= self.gic.cpus() {
                    return None;
                }
                self.set_collection(collection, is_valid.then_some(cpu))
            }
            MAPTI => self.map(device, event, (w1 >> 32) as u32, collection),
            MAPI => self.map(device, event, event, collection),
            MOVI => {
                let old = self.event(device, event)?;
                let to = self.collection(collection)?;
                if let Some(from) = self.collection(old.collection) {
                    self.gic.move_lpi(from, to, old.intid);
                }
                self.set_event(device, event, Some(Translation { collection, ..old }))
            }
            MOVALL => {
                let (from, to) = (redistributor(w2), redistributor(w3));
                if from < self.gic.cpus() && to < self.gic.cpus() {
                    self.gic.move_all_lpis(from, to);
                }
                Some(())
            }
            INT => self.set_pending(device, event, true),
            CLEAR => self.set_pending(device, event, false),
            DISCARD => {
                let _ = self.set_pending(device, event, false);
                self.set_event(device, event, None)
            }
            INV => {
                let known = self.event(device, event)?;
                let cpu = self.collection(known.collection)?;
                self.gic.reread_lpi(cpu, known.intid);
                Some(())
            }
            // SYNC: all before it has been done. What else there is, is of other versions.
            _ => None,
        }
    }

    fn map(&self, device: u32, event: u32, intid: u32, collection: u32) -> Option<()> {
        if !is_lpi(intid) {
            return None;
        }
        self.set_event(device, event, Some(Translation { intid, collection }))
    }

    fn set_pending(&self, device: u32, event: u32, pending: bool) -> Option<()> {
        let known = self.event(device, event).filter(|t| is_lpi(t.intid))?;
        let cpu = self.collection(known.collection)?;
        self.gic.set_lpi(cpu, known.intid, pending);
        Some(())
    }

    /// A device wrote to `GITS_TRANSLATER`.
    pub(super) fn message(&self, device: u32, event: u32) {
        // One that means nothing is lost, as in hardware.
        if self.state.enabled {
            let _ = self.set_pending(device, event, true);
        }
    }
}
