//! The PC's pair of i8259A interrupt controllers.
//!
//! Spec: Intel 8259A (231468-003); edge/level control registers: Intel 82371AB (PIIX4), 7.1.3.
//!
//! A request on an edge-triggered input stays until it is taken, even if the line falls before: the
//! chip would answer with a spurious interrupt then, but short pulses are how devices here say
//! "edge".
//!
//! Not modelled: MCS-80/85 mode, cascades other than the PC's, buffered mode.

use std::sync::{Arc, OnceLock};

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Initiator,
    IrqLine, IrqPin, IrqSink, Region, RegionId, ResetKind, Section, StateError, Wiring,
};
use hw_intc::{I8259Chip, I8259State};
use runtime::{Rank, Ranked, RankedGuard};

use crate::kept::Kept;

mod chip;
#[cfg(test)]
mod tests;

use chip::{Chip, bit};

/// Input of the master that the slave drives.
const CASCADE: u8 = 2;
/// Input whose vector answers an acknowledge without a request.
const SPURIOUS: u8 = 7;

/// Inputs that may be made level-triggered: not the timer, keyboard and cascade.
const MASTER_ELCR: u8 = 0xf8;
/// Not the RTC and the coprocessor.
const SLAVE_ELCR: u8 = 0xde;

/// Both chips, shared by lines, CPU and registers.
pub struct I8259 {
    state: Ranked<I8259State>,
    output: OnceLock<IrqLine>,
    /// Of the master.
    kept: Kept,
}

impl std::fmt::Debug for I8259 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl I8259 {
    /// The pair after power on.
    pub fn new() -> Arc<Self> {
        Arc::new(I8259 {
            state: Ranked::new(Rank::InterruptController, I8259State::default()),
            output: OnceLock::new(),
            kept: Kept::default(),
        })
    }

    fn state(&self) -> RankedGuard<'_, I8259State> {
        self.state.lock()
    }

    /// Brings cascade and output in line with the state; the lock is held so that levels leave in
    /// the order in which they came about.
    fn sync(&self, state: &mut I8259State) {
        if state.slave.pending(None).is_some() {
            state.master.irr |= bit(CASCADE);
        }
        if let Some(output) = self.output.get() {
            output.set(state.master.pending(Some(CASCADE)).is_some());
        }
    }

    /// What is masked or was forgotten is not given later.
    fn forget_edges(&self, state: &I8259State) {
        for n in 0..8 {
            if state.master.irr & !state.master.imr & bit(n) == 0 {
                self.kept.forget(n.into());
            }
        }
    }

    /// The CPU's interrupt acknowledge cycle: the vector of the highest request, or a spurious one.
    /// Takes the controller's own lock and no other but that of the output line.
    pub fn ack(&self) -> u8 {
        let mut state = self.state();
        let state = &mut *state;
        let vector = match state.master.pending(Some(CASCADE)) {
            Some(CASCADE) => {
                state.master.acknowledge(CASCADE);
                let n = state.slave.pending(None);
                if let Some(n) = n {
                    state.slave.acknowledge(n);
                }
                state.slave.irq_base | n.unwrap_or(SPURIOUS)
            }
            Some(n) => {
                state.master.acknowledge(n);
                if self.kept.done(n.into()) {
                    state.master.irr |= bit(n);
                }
                state.master.irq_base | n
            }
            None => state.master.irq_base | SPURIOUS,
        };
        self.sync(state);
        vector
    }

    /// Whether the output to the CPU is high.
    pub fn is_pending(&self) -> bool {
        self.state().master.pending(Some(CASCADE)).is_some()
    }

    /// The state, to hand to an accelerator's controller.
    pub fn snapshot(&self) -> I8259State {
        self.state().clone()
    }

    /// Takes over a state. The output follows.
    pub fn set_snapshot(&self, new: I8259State) {
        let mut state = self.state();
        *state = new;
        self.sync(&mut state);
    }

    /// What `info pic` shows.
    pub fn describe(&self) -> String {
        let state = self.state();
        let line = |name: &str, chip: &I8259Chip| {
            let mode = |on: bool, name: &'static str| if on { name } else { "" };
            format!(
                "{name}: irr={:02x} imr={:02x} isr={:02x} elcr={:02x} base={:02x} top={}{}{}{}\n",
                chip.irr,
                chip.imr,
                chip.isr,
                chip.elcr,
                chip.irq_base,
                chip.priority_add,
                mode(chip.auto_eoi, " auto-eoi"),
                mode(chip.special_mask, " special-mask"),
                mode(chip.special_fully_nested, " special-fully-nested"),
            )
        };
        format!(
            "{}{}",
            line("pic0", &state.master),
            line("pic1", &state.slave)
        )
    }
}

impl IrqSink for I8259 {
    fn keep_edges(&self, pin: u32) {
        self.kept.keep(pin);
    }

    fn set(&self, pin: u32, level: bool) {
        let mut state = self.state();
        let state = &mut *state;
        let n = pin as u8 & 7;
        match pin {
            // Nothing else drives the cascade.
            2 => return,
            0..8 => {
                let rose = level && state.master.lines & bit(n) == 0;
                // The request that nobody has taken went when the line fell: a local APIC's LINT0 that is
                // not ExtINT, which never takes any, sees an edge for each.
                if rose
                    && state.master.irr & bit(n) != 0
                    && let Some(output) = self.output.get()
                {
                    output.set(false);
                }
                state.master.set_line(n, level);
                if rose && state.master.imr & bit(n) == 0 {
                    self.kept.rise(pin);
                }
            }
            8..16 => state.slave.set_line(n, level),
            _ => return,
        }
        self.sync(state);
    }
}

/// The pair's registers.
pub struct I8259Device {
    pic: Arc<I8259>,
    master: RegionId,
    slave: RegionId,
}

impl I8259Device {
    /// Registers of `pic`.
    pub fn new(pic: Arc<I8259>) -> Self {
        I8259Device {
            pic,
            master: RegionId::default(),
            slave: RegionId::default(),
        }
    }
}

impl Device for I8259Device {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let ports = |name, base| Region::new(name, base, 2).sizes(AccessSizes::BYTE);
        (self.master, _) = w.ports(ports("pic", 0x20));
        (self.slave, _) = w.ports(ports("pic", 0xa0));
        w.ports(ports("elcr", 0x4d0));
        let _ = self.pic.output.set(w.irq(IrqPin::Named("intr")));
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        let mut state = self.pic.state();
        let lines = (state.master.lines, state.slave.lines);
        *state = I8259State::default();
        (state.master.lines, state.slave.lines) = lines;
        self.pic.forget_edges(&state);
    }

    fn after_reset(&mut self) {
        self.pic.sync(&mut self.pic.state());
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let mut state = self.pic.state();
        let state = &mut *state;
        let odd = access.offset != 0;
        let (chip, cascade) = if access.region == self.master {
            (&mut state.master, Some(CASCADE))
        } else if access.region == self.slave {
            (&mut state.slave, None)
        } else {
            let chip = if odd { &state.slave } else { &state.master };
            return Ok(chip.elcr.into());
        };
        if access.by == Initiator::Debug {
            return Ok(chip.peek(odd).into());
        }
        let value = chip.read(odd, cascade);
        self.pic.forget_edges(state);
        self.pic.sync(state);
        Ok(value.into())
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        let value = value as u8;
        let mut state = self.pic.state();
        let state = &mut *state;
        let odd = access.offset != 0;
        let chip = if access.region == self.master {
            &mut state.master
        } else if access.region == self.slave {
            &mut state.slave
        } else {
            let (chip, mask) = if odd {
                (&mut state.slave, SLAVE_ELCR)
            } else {
                (&mut state.master, MASTER_ELCR)
            };
            chip.elcr = value & mask;
            self.pic.sync(state);
            return Ok(());
        };
        if odd {
            chip.write_data(value);
        } else {
            chip.write_command(value);
        }
        self.pic.forget_edges(state);
        self.pic.sync(state);
        Ok(())
    }

    fn save(&self) -> Section {
        self.pic.state().save()
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        *self.pic.state() = I8259State::restore(section)?;
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        let state = self.pic.state();
        vec![
            ("irr0", state.master.irr.into()),
            ("imr0", state.master.imr.into()),
            ("isr0", state.master.isr.into()),
            ("irr1", state.slave.irr.into()),
            ("imr1", state.slave.imr.into()),
            ("isr1", state.slave.isr.into()),
        ]
    }
}

/// `isa-i8259`.
pub static ISA_I8259: DeviceClass = DeviceClass {
    name: "isa-i8259",
    aliases: &[],
    doc: "pair of i8259A interrupt controllers",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[],
    user_creatable: false,
    create: |_, _| Ok(Box::new(I8259Device::new(I8259::new()))),
};
