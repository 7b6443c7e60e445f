//! Interrupt translation service of version 3: messages of devices become LPIs (IHI 0069H chapter 5,
//! registers in section 12.19).
//!
//! Its tables are where the guest wants them, and are read for each message: nothing of them is
//! cached. A queue of commands is served as it is written, a limited number at a time; the main loop
//! goes on with the rest.
//!
//! Not modelled: virtual LPIs and SGIs (GICv4), collections held in the service itself, messages that
//! CPUs write to `GITS_TRANSLATER`.

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, BusKind, Category, Clock, Device, DeviceClass, DeviceError, Dma, Fault,
    MsiSink, Region, RegionId, ResetKind, Section, StateError, Timer, TimerId, Wiring,
};
use hw_intc::GicItsState as State;
use runtime::{Rank, Ranked};

use super::v3::{merged, part};
use super::{Gic, IIDR, id_register};

mod commands;
mod tables;

#[cfg(test)]
mod tests;

/// Two frames of 64 KiB: control and translation.
pub const ITS_LEN: u64 = 0x2_0000;
const GITS_CTLR: u64 = 0x0000;
const GITS_IIDR: u64 = 0x0004;
const GITS_TYPER: u64 = 0x0008;
const GITS_TYPER_END: u64 = 0x0010;
const GITS_CBASER: u64 = 0x0080;
const GITS_CWRITER: u64 = 0x0088;
const GITS_CREADR: u64 = 0x0090;
const GITS_BASER: u64 = 0x0100;
const GITS_BASER_END: u64 = 0x0140;
const IDS: u64 = 0xffd0;
const GITS_TRANSLATER: u64 = 0x1_0040;

/// `GITS_CTLR`.
const ENABLED: u64 = 1;
const QUIESCENT: u64 = 1 << 31;
/// `GITS_TYPER`: physical LPIs, entries of 8 bytes, 16 bits of event and of device, 16 bits of
/// collection (CIL, CIDbits), redistributors named by their number.
const TYPER: u64 = 1 | 7 << 4 | 15 << 8 | 15 << 13 | 15 << 32 | 1 << 36;
/// `GITS_CBASER`: Valid, cacheability, address, shareability, size.
const CBASER: u64 = VALID | 7 << 59 | 7 << 53 | tables::ADDRESS | 3 << 10 | 0xff;
/// `GITS_CREADR.Stalled`, `GITS_CWRITER.Retry`.
const STALLED: u64 = 1;
/// Offsets in the queue: 32 bytes to a command.
const OFFSET: u64 = 0xf_ffe0;
const VALID: u64 = 1 << 63;
/// Commands served before others get a turn.
const BUDGET: usize = 1024;
const GO_ON: TimerId = TimerId(0);

/// Registers and what they act on; shared by the device and whoever sends messages.
struct Its {
    gic: Arc<Gic>,
    dma: Dma,
    state: State,
}

impl Its {
    /// `GITS_CBASER.Size`, in bytes.
    fn queue_len(&self) -> u64 {
        (self.state.cbaser & 0xff)
            .saturating_add(1)
            .saturating_mul(4096)
    }

    /// Serves commands, as many as the budget allows. Whether there are more.
    fn serve(&mut self) -> bool {
        if !self.state.enabled || self.state.cbaser & VALID == 0 {
            return false;
        }
        let mut reread = false;
        let mut left = BUDGET;
        while left > 0 && self.has_work() {
            let at = (self.state.cbaser & tables::ADDRESS).saturating_add(self.state.creadr);
            let mut words = [0u64; 4];
            for (word, n) in words.iter_mut().zip(0u64..) {
                match self.dma.load_le(at.saturating_add(n.wrapping_mul(8)), 8) {
                    Ok(value) => *word = value,
                    // No memory there: the guest has to set things right and say so.
                    Err(_) => self.state.creadr |= STALLED,
                }
            }
            if self.state.creadr & STALLED != 0 {
                break;
            }
            reread |= self.command(words) == commands::After::Reread;
            let next = self.state.creadr.saturating_add(32);
            self.state.creadr = if next >= self.queue_len() { 0 } else { next };
            left = left.saturating_sub(1);
        }
        if reread {
            self.gic.reread_lpis();
        }
        self.has_work()
    }

    fn has_work(&self) -> bool {
        let State {
            enabled,
            cbaser,
            cwriter,
            creadr,
            ..
        } = self.state;
        // A place outside the queue is the guest's mistake: it is never reached.
        enabled
            && cbaser & VALID != 0
            && creadr & STALLED == 0
            && cwriter < self.queue_len()
            && creadr != cwriter
    }

    fn read(&self, access: &Access) -> Result<u64, Fault> {
        let s = &self.state;
        let value = match access.offset & !7 {
            GITS_CTLR if access.size == 4 => {
                let quiet = if s.enabled { 0 } else { QUIESCENT };
                return match access.offset {
                    GITS_IIDR => Ok(IIDR),
                    _ => Ok(u64::from(s.enabled) | quiet),
                };
            }
            GITS_TYPER..GITS_TYPER_END => TYPER,
            GITS_CBASER => s.cbaser,
            GITS_CWRITER => s.cwriter,
            GITS_CREADR => s.creadr,
            GITS_BASER..GITS_BASER_END => {
                let n = usize::try_from((access.offset & 0x3f) >> 3).ok();
                n.and_then(|n| s.baser.get(n).copied()).unwrap_or(0)
            }
            IDS.. if access.size == 4 && access.offset < tables::FRAME => {
                return id_register(access.offset & 0xfff, 3).ok_or(Fault::NoRegister);
            }
            _ => return Err(Fault::NoRegister),
        };
        part(value, access)
    }

    fn write(&mut self, access: &Access, value: u64) -> Result<(), Fault> {
        let is_off = !self.state.enabled;
        match access.offset & !7 {
            GITS_CTLR => match (access.offset, access.size) {
                (GITS_CTLR, 4) => self.state.enabled = value & ENABLED != 0,
                _ => return Err(Fault::ReadOnly),
            },
            // Where the queue and the tables are is fixed while the service runs.
            GITS_CBASER => {
                let value = merged(self.state.cbaser, access, value)? & CBASER;
                if is_off {
                    self.state.cbaser = value;
                    self.state.creadr = 0;
                }
            }
            GITS_CWRITER => {
                let value = merged(self.state.cwriter, access, value)?;
                self.state.cwriter = value & OFFSET;
                if value & STALLED != 0 {
                    self.state.creadr &= !STALLED;
                }
            }
            GITS_BASER..GITS_BASER_END => {
                let n = usize::try_from((access.offset & 0x3f) >> 3).ok();
                if let Some(baser) = n.and_then(|n| self.state.baser.get_mut(n)) {
                    let value = merged(*baser, access, value)?;
                    if is_off {
                        *baser = tables::written(*baser, value);
                    }
                }
            }
            GITS_CREADR | GITS_TYPER..GITS_TYPER_END => return Err(Fault::ReadOnly),
            _ => return Err(Fault::NoRegister),
        }
        Ok(())
    }
}

/// The registers of a service, for an accelerator that has one of its own.
#[derive(Clone)]
pub struct ItsModel(Arc<Ranked<Option<Its>>>);

impl ItsModel {
    /// The registers.
    pub fn snapshot(&self) -> State {
        let its = self.0.lock();
        let state = its.as_ref().map(|its| its.state.clone());
        state.unwrap_or_default()
    }

    /// Takes over the registers of the accelerator's.
    pub fn set_snapshot(&self, state: State) {
        if let Some(its) = &mut *self.0.lock() {
            its.state = state;
        }
    }
}

/// Takes the messages of devices.
struct Sink {
    its: Arc<Ranked<Option<Its>>>,
    translater: u64,
}

impl MsiSink for Sink {
    fn message(&self, address: u64, data: u32, requester: u32) {
        if address == self.translater
            && let Some(its) = &mut *self.its.lock()
        {
            its.message(requester, data);
        }
    }
}

/// The translation service as a device.
pub struct GicIts {
    gic: Arc<Gic>,
    base: u64,
    /// There once it is realized.
    its: Arc<Ranked<Option<Its>>>,
    region: RegionId,
    wires: Option<(Clock, Timer)>,
}

impl GicIts {
    /// A service at this address that sends to the redistributors of `gic`.
    pub fn new(gic: Arc<Gic>, base: u64) -> Self {
        GicIts {
            gic,
            base,
            its: Arc::new(Ranked::new(Rank::InterruptTranslation, None)),
            region: RegionId::default(),
            wires: None,
        }
    }

    /// Where devices' messages go.
    pub fn sink(&self) -> Arc<dyn MsiSink> {
        Arc::new(Sink {
            its: self.its.clone(),
            translater: self.base.saturating_add(GITS_TRANSLATER),
        })
    }

    /// Its registers.
    pub fn model(&self) -> ItsModel {
        ItsModel(self.its.clone())
    }

    /// Serves commands; what is left is the main loop's.
    fn serve(&mut self) {
        let more = self.its.lock().as_mut().is_some_and(Its::serve);
        if more && let Some((clock, timer)) = &self.wires {
            timer.arm(clock.now_ns());
        }
    }
}

impl Device for GicIts {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let frames = Region::new("gicv3_its", self.base, ITS_LEN);
        (self.region, _) = w.mmio(frames.sizes(AccessSizes::ANY));
        self.wires = Some((w.clock(), w.timer(GO_ON)));
        *self.its.lock() = Some(Its {
            gic: self.gic.clone(),
            dma: w.dma(),
            state: tables::reset(),
        });
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        if let Some(its) = &mut *self.its.lock() {
            its.state = tables::reset();
        }
    }

    fn after_reset(&mut self) {
        self.serve();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let its = self.its.lock();
        its.as_ref().ok_or(Fault::NoRegister)?.read(&access)
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        match &mut *self.its.lock() {
            Some(its) => its.write(&access, value)?,
            None => return Err(Fault::NoRegister),
        }
        self.serve();
        Ok(())
    }

    fn timer(&mut self, _: TimerId) {
        self.serve();
    }

    fn save(&self) -> Section {
        let its = self.its.lock();
        let state = its.as_ref().map(|its| its.state.clone());
        state.unwrap_or_default().save()
    }

    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        let saved = State::restore(s)?;
        let [devices, collections] = tables::reset().baser;
        let [new_devices, new_collections] = saved.baser;
        let state = State {
            cbaser: saved.cbaser & CBASER,
            cwriter: saved.cwriter & OFFSET,
            creadr: saved.creadr & (OFFSET | STALLED),
            baser: [
                tables::written(devices, new_devices),
                tables::written(collections, new_collections),
            ],
            ..saved
        };
        if let Some(its) = &mut *self.its.lock() {
            its.state = state;
        }
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let its = self.its.lock();
        its.as_ref().map_or_else(Vec::new, |its| {
            vec![
                ("enabled", its.state.enabled.into()),
                ("cwriter", its.state.cwriter),
                ("creadr", its.state.creadr),
            ]
        })
    }
}

/// `arm-gicv3-its`.
pub static ARM_GICV3_ITS: DeviceClass = DeviceClass {
    name: "arm-gicv3-its",
    aliases: &[],
    doc: "Arm GICv3 interrupt translation service",
    bus: BusKind::System,
    category: Category::Misc,
    props: &[],
    user_creatable: false,
    create: |args, _| {
        Err(DeviceError::Other(format!(
            "'{}' is part of a machine and cannot be added to one",
            args.class().name
        )))
    },
};
