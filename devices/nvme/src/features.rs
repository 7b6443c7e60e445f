//! Features (NVMe, 5.21.1).

use hw_core::{Section, StateError};

use crate::command::{Command, Status};
use crate::controller::Nvme;

/// Feature Identifiers.
mod id {
    pub(super) const ARBITRATION: u8 = 0x01;
    pub(super) const POWER_MANAGEMENT: u8 = 0x02;
    pub(super) const TEMPERATURE_THRESHOLD: u8 = 0x04;
    pub(super) const ERROR_RECOVERY: u8 = 0x05;
    pub(super) const VOLATILE_WRITE_CACHE: u8 = 0x06;
    pub(super) const NUMBER_OF_QUEUES: u8 = 0x07;
    pub(super) const INTERRUPT_COALESCING: u8 = 0x08;
    pub(super) const INTERRUPT_VECTOR: u8 = 0x09;
    pub(super) const WRITE_ATOMICITY: u8 = 0x0a;
    pub(super) const ASYNC_EVENTS: u8 = 0x0b;
}

/// Kelvin at which the drive would be too warm, and which it has.
const TEMPERATURE_LIMIT: u16 = 0x157;
pub(crate) const TEMPERATURE: u16 = 0x143;
/// Bits of the asynchronous event configuration: namespace attribute notices, and SMART warnings.
const EVENTS: u32 = 0x11f;
pub(crate) const NAMESPACE_NOTICES: u32 = 1 << 8;

/// What the host has set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Features {
    arbitration: u32,
    /// Over and under which temperature.
    thresholds: [u16; 2],
    error_recovery: u32,
    pub(crate) write_cache: bool,
    /// As Number of Queues answers.
    queues: u32,
    coalescing: u32,
    write_atomicity: u32,
    pub(crate) async_events: u32,
}

impl Features {
    pub(crate) fn new(queues: u16, write_cache: bool) -> Self {
        let last = u32::from(queues.saturating_sub(1));
        Features {
            arbitration: 7,
            thresholds: [TEMPERATURE_LIMIT, 0],
            error_recovery: 0,
            write_cache,
            queues: last | last << 16,
            coalescing: 0,
            write_atomicity: 0,
            async_events: 0,
        }
    }

    fn get(&self, feature: u8, selector: u32, vectors: u16) -> Result<u32, Status> {
        Ok(match feature {
            id::ARBITRATION => self.arbitration,
            id::POWER_MANAGEMENT => 0,
            id::TEMPERATURE_THRESHOLD => {
                // Of the composite temperature, and of no other.
                let [over, under] = self.thresholds;
                match (selector >> 16 & 0xf, selector >> 20 & 3) {
                    (0, 0) => over.into(),
                    (0, 1) => under.into(),
                    (1..=8, _) => 0,
                    _ => return Err(Status::INVALID_FIELD),
                }
            }
            id::ERROR_RECOVERY => self.error_recovery,
            id::VOLATILE_WRITE_CACHE => self.write_cache.into(),
            id::NUMBER_OF_QUEUES => self.queues,
            id::INTERRUPT_COALESCING => self.coalescing,
            id::INTERRUPT_VECTOR => {
                let vector = selector & 0xffff;
                if vector >= u32::from(vectors) {
                    return Err(Status::INVALID_FIELD);
                }
                // Interrupts of the admin queue are never put off.
                vector | u32::from(vector == 0) << 16
            }
            id::WRITE_ATOMICITY => self.write_atomicity,
            id::ASYNC_EVENTS => self.async_events,
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    pub(crate) fn save(&self) -> Section {
        let Features {
            arbitration,
            thresholds: [over, under],
            error_recovery,
            write_cache,
            queues,
            coalescing,
            write_atomicity,
            async_events,
        } = self;
        Section::new("features", 1)
            .with(1, *arbitration)
            .with(2, *over)
            .with(3, *under)
            .with(4, *error_recovery)
            .with(5, *write_cache)
            .with(6, *queues)
            .with(7, *coalescing)
            .with(8, *write_atomicity)
            .with(9, *async_events)
    }

    pub(crate) fn restored(section: &Section) -> Result<Self, StateError> {
        section.expect("features", 1)?;
        Ok(Features {
            arbitration: section.u32(1)?,
            thresholds: [section.u16(2)?, section.u16(3)?],
            error_recovery: section.u32(4)?,
            write_cache: section.bool(5)?,
            queues: section.u32(6)?,
            coalescing: section.u32(7)?,
            write_atomicity: section.u32(8)?,
            async_events: section.u32(9)?,
        })
    }
}

impl Nvme {
    /// Get Features (5.14).
    pub(crate) fn get_features(&self, command: &Command) -> Result<u32, Status> {
        const CURRENT: u32 = 0;
        const DEFAULT: u32 = 1;
        const SAVED: u32 = 2;
        const CAPABILITIES: u32 = 3;
        const CHANGEABLE: u32 = 4;
        let (feature, selector) = (command.word(10) as u8, command.word(11));
        let vectors = self.vectors();
        let current = self.state.features.get(feature, selector, vectors)?;
        match command.word(10) >> 8 & 7 {
            CURRENT => Ok(current),
            DEFAULT | SAVED => self.default_features().get(feature, selector, vectors),
            CAPABILITIES => Ok(match feature {
                id::POWER_MANAGEMENT | id::INTERRUPT_VECTOR => 0,
                _ => CHANGEABLE,
            }),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// Set Features (5.21).
    pub(crate) fn set_features(&mut self, command: &Command) -> Result<u32, Status> {
        const SAVE: u32 = 1 << 31;
        let (feature, value) = (command.word(10) as u8, command.word(11));
        if command.word(10) & SAVE != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        let most = self.default_features().queues;
        let features = &mut self.state.features;
        match feature {
            id::ARBITRATION => features.arbitration = value,
            id::POWER_MANAGEMENT if value & 0x1f == 0 => {}
            id::TEMPERATURE_THRESHOLD => {
                let [over, under] = &mut features.thresholds;
                match (value >> 16 & 0xf, value >> 20 & 3) {
                    (0 | 0xf, 0) => *over = value as u16,
                    (0 | 0xf, 1) => *under = value as u16,
                    _ => return Err(Status::INVALID_FIELD),
                }
            }
            // Without the error that unwritten blocks would give (DULBE).
            id::ERROR_RECOVERY if value >> 16 == 0 => features.error_recovery = value,
            id::VOLATILE_WRITE_CACHE => {
                features.write_cache = value & 1 != 0;
            }
            id::NUMBER_OF_QUEUES => {
                // All ones is none, which there cannot be.
                if value & 0xffff == 0xffff || value >> 16 == 0xffff {
                    return Err(Status::INVALID_FIELD);
                }
                let both = (value & 0xffff).min(most & 0xffff);
                let other = (value >> 16).min(most >> 16);
                features.queues = both | other << 16;
                return Ok(features.queues);
            }
            id::INTERRUPT_COALESCING => features.coalescing = value & 0xffff,
            id::WRITE_ATOMICITY => features.write_atomicity = value & 1,
            id::ASYNC_EVENTS => features.async_events = value & EVENTS,
            id::INTERRUPT_VECTOR => return Err(Status::NOT_CHANGEABLE),
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(0)
    }
}
