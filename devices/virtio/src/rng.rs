//! virtio-rng: an entropy source.
//!
//! Spec: VIRTIO 1.2 section 5.4.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use backend_rng::Randomness;
use hw_core::{Clock, DeviceError, Section, StateError, Timer, Wiring};
use hw_virtio::{Chain, Io, VirtioDevice, device_id};

const QUEUE: u16 = 0;
const QUEUE_SIZE: u16 = 8;
/// Most bytes put into one buffer: drivers ask for 64.
const MOST: u64 = 64 << 10;
const NS_PER_MS: u64 = 1_000_000;

/// How much the guest may draw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// Bytes in a period; `u64::MAX` for no limit.
    pub max_bytes: u64,
    /// Length of a period, milliseconds.
    pub period_ms: u64,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    /// A request that the source could not fill yet.
    waiting: Option<Chain>,
    /// Bytes left in this period.
    quota_left: u64,
    /// Start of this period, virtual nanoseconds.
    period_start_ns: u64,
}

/// The entropy device.
pub struct Rng {
    clock: Option<Clock>,
    timer: Timer,
    source: Box<dyn Randomness>,
    quota: Quota,
    state: State,
}

impl Rng {
    /// A device on a source.
    pub fn new(source: Box<dyn Randomness>, quota: Quota) -> Self {
        Rng {
            clock: None,
            timer: Timer::default(),
            source,
            quota,
            state: State {
                quota_left: quota.max_bytes,
                ..State::default()
            },
        }
    }

    /// Bytes that may be given now.
    fn allowance(&mut self) -> u64 {
        if self.quota.max_bytes == u64::MAX {
            return u64::MAX;
        }
        let now = self.clock.as_ref().map_or(0, Clock::now_ns);
        let end = self
            .state
            .period_start_ns
            .saturating_add(self.quota.period_ms.saturating_mul(NS_PER_MS));
        if now >= end {
            self.state.period_start_ns = now;
            self.state.quota_left = self.quota.max_bytes;
        }
        if self.state.quota_left == 0 {
            self.timer.arm(end);
        }
        self.state.quota_left
    }

    fn serve(&mut self, io: &mut Io<'_>) {
        loop {
            let allowance = self.allowance();
            if allowance == 0 {
                return;
            }
            let Some(chain) = self.state.waiting.take().or_else(|| io.pop(QUEUE)) else {
                return;
            };
            let wanted = chain.writable_len().min(allowance).min(MOST);
            if wanted == 0 {
                io.push(QUEUE, &chain, 0);
                continue;
            }
            let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(0)];
            let count = self.source.fill(&mut bytes);
            if count == 0 {
                self.state.waiting = Some(chain);
                return;
            }
            let data = bytes.get(..count).unwrap_or_default();
            match chain.write_at(io.dma(), 0, data) {
                Ok(written) => {
                    self.state.quota_left = self.state.quota_left.saturating_sub(written as u64);
                    io.push(QUEUE, &chain, u32::try_from(written).unwrap_or(0));
                }
                Err(error) => return io.fail(error),
            }
        }
    }
}

impl VirtioDevice for Rng {
    fn id(&self) -> u16 {
        device_id::ENTROPY
    }

    fn name(&self) -> &'static str {
        "virtio-rng"
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let clock = wiring.clock();
        let poke = wiring.poke();
        let on_timer = poke.clone();
        self.timer = clock.timer(move || on_timer(0));
        self.clock = Some(clock);
        self.source.set_wake(Arc::new(move || poke(0)));
        Ok(())
    }

    fn queue_notified(&mut self, io: &mut Io<'_>, _: u16) {
        self.serve(io);
    }

    fn poke(&mut self, io: &mut Io<'_>, _: u64) {
        self.serve(io);
    }

    fn reset(&mut self) {
        self.state.waiting = None;
    }

    fn save(&self) -> Section {
        let State {
            waiting,
            quota_left,
            period_start_ns,
        } = self.state.clone();
        let mut section = Section::new(self.name(), 1)
            .with(1, quota_left)
            .with(2, period_start_ns);
        if let Some(chain) = waiting {
            section.push(3, chain.save());
        }
        section
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        self.state = State {
            quota_left: section.u64(1)?,
            period_start_ns: section.u64(2)?,
            waiting: match section.get(3) {
                Some(_) => Some(Chain::restore(section.section(3)?)?),
                None => None,
            },
        };
        Ok(())
    }

    fn resume(&mut self, io: &mut Io<'_>) {
        self.serve(io);
    }
}
