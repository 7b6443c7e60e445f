//! Locality-specific peripheral interrupts: messages that have no input, no active state, and whose
//! properties are a table in guest memory (IHI 0069H chapter 5).
//!
//! Redistributors share the table of properties (`GICR_TYPER.CommonLPIAff` is 0). It is cached as a
//! whole; invalidations read it again. Which LPIs are pending is in guest memory only while a
//! redistributor's are off.

use hw_core::Dma;
use hw_intc::{GIC_FIRST_LPI, GIC_INTID_BITS, GIC_MAX_LPIS, GIC_PRIORITY, GicCpu};

use super::Gic;
use super::model::{Candidate, GROUP_1, Model};

/// `GICR_PROPBASER`: cacheability, shareability, address, IDbits.
const PROPBASER: u64 = 7 << 56 | ADDRESS | 0x1f;
/// `GICR_PENDBASER`: as above; the table is aligned to 64 KiB.
const PENDBASER: u64 = 7 << 56 | PENDING_ADDRESS | 0xf80;
/// `GICR_PENDBASER.PTZ`: the table is zero. It reads as zero itself.
const PTZ: u64 = 1 << 62;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000 | 0xf80;
const TABLE: u64 = 0x000f_ffff_ffff_f000;
const PENDING_ADDRESS: u64 = 0x000f_ffff_ffff_0000;
/// `GICR_CTLR`: EnableLPIs, and that it can be cleared again.
const ENABLE: u64 = 1;
const CAN_CLEAR: u64 = 1 << 1;
/// A byte of the table of properties: enabled.
const ENABLED: u8 = 1;
/// Bytes of a pending table before those of LPIs.
const PENDING_OFFSET: u64 = GIC_FIRST_LPI as u64 / 8;

/// What all redistributors share.
#[derive(Default)]
pub(super) struct Properties {
    /// Guest memory, if there are LPIs at all.
    dma: Option<Dma>,
    /// The table as last read.
    bytes: Vec<u8>,
    /// It is to be read again.
    is_stale: bool,
}

fn index(intid: u32) -> Option<usize> {
    usize::try_from(intid.checked_sub(GIC_FIRST_LPI)?).ok()
}

/// LPIs that a table of so many bits (`GICR_PROPBASER.IDbits`) has.
fn count(propbaser: u64) -> usize {
    let bits = (propbaser as u32 & 0x1f)
        .saturating_add(1)
        .min(GIC_INTID_BITS);
    let all = 1usize.wrapping_shl(bits);
    all.saturating_sub(GIC_FIRST_LPI as usize).min(GIC_MAX_LPIS)
}

impl Model {
    /// There are LPIs, with their tables in this memory.
    pub(super) fn attach(&mut self, dma: Dma) {
        self.properties.dma = Some(dma);
    }

    /// The table is to be read again.
    pub(super) fn forget_properties(&mut self) {
        self.properties.is_stale = true;
    }

    /// Reads the table again, if it is to be.
    pub(super) fn read_properties(&mut self) {
        if !std::mem::take(&mut self.properties.is_stale) {
            return;
        }
        let base = (self.state.cpus.iter())
            .find(|cpu| cpu.lpis.enabled)
            .map(|cpu| cpu.lpis.propbaser);
        let (Some(base), Some(dma)) = (base, &self.properties.dma) else {
            return;
        };
        let mut bytes = vec![0; count(base)];
        // Of a table that is not in RAM, no interrupt is enabled.
        if dma.read(base & TABLE, &mut bytes).is_err() {
            bytes.clear();
        }
        self.properties.bytes = bytes;
    }

    /// Reads what the table says of one interrupt.
    pub(super) fn read_property(&mut self, cpu: usize, intid: u32) {
        let own = self.state.cpus.get(cpu).filter(|cpu| cpu.lpis.enabled);
        let (Some(own), Some(n)) = (own, index(intid)) else {
            return;
        };
        let at = (own.lpis.propbaser & TABLE).saturating_add(n as u64);
        if let (Some(slot), Some(dma)) = (self.properties.bytes.get_mut(n), &self.properties.dma) {
            *slot = dma.load_le(at, 1).unwrap_or(0) as u8;
        }
    }

    /// The pending LPI of a CPU that comes first, if it comes before `best`.
    pub(super) fn consider_lpis(&self, own: &GicCpu, best: &mut Option<Candidate>) {
        if !own.lpis.enabled {
            return;
        }
        for intid in own.lpis.pending() {
            let byte = index(intid).and_then(|n| self.properties.bytes.get(n));
            let Some(byte) = byte.filter(|byte| **byte & ENABLED != 0) else {
                continue;
            };
            let priority = byte & GIC_PRIORITY;
            if best.is_none_or(|b| priority < b.priority) {
                *best = Some(Candidate {
                    intid,
                    priority,
                    group: GROUP_1,
                });
            }
        }
    }

    /// Whether an LPI of this number could ever be signalled to a CPU.
    fn has_lpi(&self, cpu: usize, intid: u32) -> bool {
        let own = self.state.cpus.get(cpu).filter(|own| own.lpis.enabled);
        own.is_some_and(|own| index(intid).is_some_and(|n| n < count(own.lpis.propbaser)))
    }

    fn set_lpi(&mut self, cpu: usize, intid: u32, pending: bool) {
        if self.has_lpi(cpu, intid)
            && let Some(own) = self.state.cpus.get_mut(cpu)
        {
            own.lpis.set_pending(intid, pending);
        }
    }

    /// Moves what is pending: one interrupt, or all.
    fn move_lpis(&mut self, from: usize, to: usize, which: Option<u32>) {
        if from == to {
            return;
        }
        let Some(own) = self.state.cpus.get(from) else {
            return;
        };
        let moved: Vec<u32> = match which {
            Some(intid) if own.lpis.is_pending(intid) => vec![intid],
            Some(_) => Vec::new(),
            None => own.lpis.pending().collect(),
        };
        for intid in moved {
            if let Some(own) = self.state.cpus.get_mut(from) {
                own.lpis.set_pending(intid, false);
            }
            self.set_lpi(to, intid, true);
        }
    }

    /// `GICR_CTLR`.
    pub(super) fn lpi_control(&self, cpu: usize) -> u64 {
        let own = self.state.cpus.get(cpu);
        match self.properties.dma {
            Some(_) => CAN_CLEAR | u64::from(own.is_some_and(|own| own.lpis.enabled)),
            None => 0,
        }
    }

    /// Writes `GICR_CTLR`. Tables are read and written where LPIs are turned on and off.
    pub(super) fn set_lpi_control(&mut self, cpu: usize, value: u64) {
        let (Some(own), Some(dma)) = (self.state.cpus.get_mut(cpu), &self.properties.dma) else {
            return;
        };
        let lpis = &mut own.lpis;
        let wanted = value & ENABLE != 0;
        if wanted == lpis.enabled {
            return;
        }
        let at = (lpis.pendbaser & PENDING_ADDRESS).saturating_add(PENDING_OFFSET);
        let bytes = count(lpis.propbaser) / 8;
        lpis.enabled = wanted;
        if wanted {
            let mut table = vec![0; bytes];
            if lpis.pendbaser & PTZ == 0 && dma.read(at, &mut table).is_err() {
                table.clear();
            }
            lpis.load(&table);
            self.properties.is_stale = true;
            self.read_properties();
        } else {
            let table = lpis.table();
            // A table that is not in RAM is the guest's mistake: what was pending is lost.
            let _ = dma.write(at, table.get(..bytes).unwrap_or(&table));
            lpis.clear();
        }
    }

    /// `GICR_PROPBASER`, `GICR_PENDBASER`.
    pub(super) fn lpi_base(&self, cpu: usize, is_pending: bool) -> u64 {
        let own = self.state.cpus.get(cpu);
        own.map_or(0, |own| match is_pending {
            true => own.lpis.pendbaser & !PTZ,
            false => own.lpis.propbaser,
        })
    }

    /// Writes one of them, which only holds while LPIs are off.
    pub(super) fn set_lpi_base(&mut self, cpu: usize, is_pending: bool, value: u64) {
        let own = self.state.cpus.get_mut(cpu);
        let own = own.filter(|own| self.properties.dma.is_some() && !own.lpis.enabled);
        if let Some(own) = own {
            match is_pending {
                true => own.lpis.pendbaser = value & (PENDBASER | PTZ),
                false => own.lpis.propbaser = value & PROPBASER,
            }
        }
    }

    /// Whether there are LPIs.
    pub(super) fn has_lpis(&self) -> bool {
        self.properties.dma.is_some()
    }
}

/// What a translation service asks of the redistributors.
impl Gic {
    /// Makes an LPI of a CPU pending, or not any more.
    pub(super) fn set_lpi(&self, cpu: usize, intid: u32, pending: bool) {
        self.with(cpu, |model| model.set_lpi(cpu, intid, pending));
    }

    /// An LPI goes elsewhere: what is pending goes along.
    pub(super) fn move_lpi(&self, from: usize, to: usize, intid: u32) {
        let mut model = self.lock();
        model.move_lpis(from, to, Some(intid));
        self.follow(&model, Some(from));
        self.follow(&model, Some(to));
    }

    /// All pending LPIs of a CPU go elsewhere.
    pub(super) fn move_all_lpis(&self, from: usize, to: usize) {
        let mut model = self.lock();
        model.move_lpis(from, to, None);
        self.follow(&model, Some(from));
        self.follow(&model, Some(to));
    }

    /// The properties of an LPI may have changed.
    pub(super) fn reread_lpi(&self, cpu: usize, intid: u32) {
        self.with(cpu, |model| model.read_property(cpu, intid));
    }

    /// The properties of any LPI may have changed.
    pub(super) fn reread_lpis(&self) {
        self.with_all(|model| {
            model.forget_properties();
            model.read_properties();
        });
    }
}
