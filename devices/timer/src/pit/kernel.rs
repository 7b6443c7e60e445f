//! The i8254 of a machine that has it in the kernel.
//!
//! The guest never reaches this device: it carries the saved state, and sees to it that the kernel's
//! timer stands still with virtual time. Reads here are the monitor's.
//!
//! The kernel does not tell how far counter 0 has come: a saved period starts over.

use std::sync::Arc;

use hw_core::{
    Access, AccessSizes, BusKind, Category, Clock, Device, DeviceClass, DeviceError, Fault, Prop,
    PropType, Region, RegionId, ResetKind, Section, StateError, TimerId, Wiring,
};
use hw_intc::{I8254State, KernelI8254, LegacyReplacement, PIT_HZ};
use runtime::{Rank, Ranked};

use super::counter::Counter;
use super::{CONTROL, PORT_40, PORT_61, REPLACED, read_61};

#[cfg(test)]
mod tests;

/// What is known while virtual time stands still.
#[derive(Default)]
struct Held {
    state: I8254State,
    /// The kernel does not have this state yet.
    is_new: bool,
}

struct Shared {
    kernel: Arc<dyn KernelI8254>,
    legacy: Arc<LegacyReplacement>,
    held: Ranked<Held>,
}

impl Shared {
    fn get(&self, now: u64) -> Option<I8254State> {
        match self.kernel.get(now) {
            Ok(mut state) => {
                let [counter, ..] = &state.channels;
                state.fires_at = counter.next_rise(now);
                Some(state)
            }
            Err(error) => {
                log::error!("the i8254's state: {error}");
                None
            }
        }
    }

    fn put(&self, state: &I8254State) {
        if let Err(error) = self.kernel.put(state, self.legacy.is_on()) {
            log::error!("the i8254's state: {error}");
        }
    }

    /// Virtual time starts or halts.
    fn follow(&self, runs: bool, now: u64) {
        let mut held = self.held.lock();
        if runs {
            if std::mem::take(&mut held.is_new) {
                self.put(&held.state);
            }
            return;
        }
        let Some(state) = self.get(now) else { return };
        let [counter, ..] = &state.channels;
        if state.fires_at.is_some() && counter.is_periodic() {
            // Its periods would be made up for when time goes on.
            self.put(&I8254State {
                fires_at: None,
                ..state.clone()
            });
            held.is_new = true;
        }
        held.state = state;
    }
}

/// The device.
pub struct KernelPit {
    shared: Arc<Shared>,
    clock: Option<Clock>,
    port_61: RegionId,
    catch_up: bool,
}

impl KernelPit {
    /// The kernel's timer, whose interrupt the HPET may take over. With `catch_up` the
    /// guest gets the interrupts that it was too slow for.
    pub fn new(
        kernel: Arc<dyn KernelI8254>,
        legacy: Arc<LegacyReplacement>,
        catch_up: bool,
    ) -> Self {
        KernelPit {
            shared: Arc::new(Shared {
                kernel,
                legacy,
                held: Ranked::new(Rank::Leaf, Held::default()),
            }),
            clock: None,
            port_61: RegionId::default(),
            catch_up,
        }
    }

    fn now(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.ticks(PIT_HZ))
    }

    fn state(&self) -> I8254State {
        let runs = self.clock.as_ref().is_some_and(Clock::is_running);
        let state = runs.then(|| self.shared.get(self.now())).flatten();
        state.unwrap_or_else(|| self.shared.held.lock().state.clone())
    }

    fn replace(&mut self, state: I8254State) {
        *self.shared.held.lock() = Held {
            state,
            is_new: true,
        };
        if let Some(clock) = self.clock.as_ref().filter(|clock| clock.is_running()) {
            self.shared.follow(true, clock.ticks(PIT_HZ));
        }
    }
}

impl Device for KernelPit {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        w.ports(Region::new("kvm-pit", PORT_40, 4).sizes(AccessSizes::BYTE));
        (self.port_61, _) = w.ports(Region::new("kvm-pcspk", PORT_61, 1).sizes(AccessSizes::BYTE));
        let set = self.shared.kernel.set_catch_up(self.catch_up);
        set.map_err(DeviceError::Other)?;
        self.shared.legacy.on_change(w.timer(REPLACED));
        let clock = w.clock();
        let (shared, time) = (Arc::downgrade(&self.shared), clock.clone());
        clock.follow(move |runs| {
            if let Some(shared) = shared.upgrade() {
                shared.follow(runs, time.ticks(PIT_HZ));
            }
        });
        self.clock = Some(clock);
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.replace(I8254State::default());
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let (now, state) = (self.now(), self.state());
        if access.region == self.port_61 {
            return Ok(read_61(&state, now).into());
        }
        let n = usize::try_from(access.offset).unwrap_or(usize::MAX);
        let channel = state.channels.get(n).ok_or(Fault::WriteOnly)?;
        Ok(channel.peek(now).into())
    }

    fn write(&mut self, access: Access, _: u64) -> Result<(), Fault> {
        // The kernel has these ports.
        match access.offset {
            0..=CONTROL => Err(Fault::ReadOnly),
            _ => Err(Fault::NoRegister),
        }
    }

    fn timer(&mut self, timer: TimerId) {
        if timer == REPLACED
            && let Some(state) = self.shared.get(self.now())
        {
            self.shared.put(&state);
        }
    }

    fn save(&self) -> Section {
        self.state().save()
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.replace(I8254State::restore(section)?);
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        super::inspect(&self.state())
    }
}

/// `kvm-pit`.
pub static KVM_PIT: DeviceClass = DeviceClass {
    name: "kvm-pit",
    aliases: &[],
    doc: "i8254 interval timer with port 61h, in the kernel",
    bus: BusKind::Isa,
    category: Category::Misc,
    props: &[Prop {
        name: "lost_tick_policy",
        ty: PropType::Enum(&["delay", "discard"]),
        default: "delay",
        doc: "interrupts that the guest was too slow for: given later, or dropped",
    }],
    user_creatable: false,
    create: |_, _| {
        Err(DeviceError::Other(
            "a kvm-pit belongs to a machine whose interrupt controllers are in the kernel".into(),
        ))
    },
};
