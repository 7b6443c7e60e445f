//! PS/2 mouse with the IntelliMouse wheel and five-button extensions.
//!
//! Spec: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft "IntelliMouse" knock
//! sequences: sampling rates 200, 100, 80 turn the wheel on, 200, 200, 80 the extra buttons.

use std::collections::VecDeque;

use hw_core::{Section, StateError};

/// Buttons that are down: bits as in the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Buttons(u8);

impl Buttons {
    /// The left button.
    pub const LEFT: Buttons = Buttons(1);
    /// The right button.
    pub const RIGHT: Buttons = Buttons(2);
    /// The middle button.
    pub const MIDDLE: Buttons = Buttons(4);
    /// The fourth button.
    pub const SIDE: Buttons = Buttons(8);
    /// The fifth button.
    pub const EXTRA: Buttons = Buttons(16);

    /// These buttons and those.
    #[must_use]
    pub fn and(self, other: Buttons) -> Buttons {
        Buttons(self.0 | other.0)
    }
}

const ACK: u8 = 0xfa;
const NAK: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;
/// Packets the mouse holds for a slow reader, in bytes; movement goes on adding up meanwhile.
const QUEUE_MAX: usize = 16;
/// Bounds what adds up.
const TRAVEL_MAX: i32 = 4096;

/// Commands from the system.
mod command {
    pub(super) const SCALING_1: u8 = 0xe6;
    pub(super) const SCALING_2: u8 = 0xe7;
    pub(super) const RESOLUTION: u8 = 0xe8;
    pub(super) const STATUS: u8 = 0xe9;
    pub(super) const STREAM: u8 = 0xea;
    pub(super) const READ_DATA: u8 = 0xeb;
    pub(super) const WRAP_OFF: u8 = 0xec;
    pub(super) const WRAP: u8 = 0xee;
    pub(super) const REMOTE: u8 = 0xf0;
    pub(super) const READ_ID: u8 = 0xf2;
    pub(super) const SAMPLE_RATE: u8 = 0xf3;
    pub(super) const ENABLE: u8 = 0xf4;
    pub(super) const DISABLE: u8 = 0xf5;
    pub(super) const DEFAULTS: u8 = 0xf6;
    pub(super) const RESET: u8 = 0xff;
}

/// Bits of the status byte.
mod status {
    pub(super) const REMOTE: u8 = 1 << 6;
    pub(super) const ENABLED: u8 = 1 << 5;
    pub(super) const SCALING_2: u8 = 1 << 4;
}

/// State of the mouse: guest-visible, saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mouse {
    replies: VecDeque<u8>,
    packets: VecDeque<u8>,
    /// The command that waits for its parameter, or 0.
    waiting: u8,
    wrap: bool,
    /// REMOTE, ENABLED and SCALING_2 bits.
    status: u8,
    resolution: u8,
    rate: u8,
    /// The two rates before `rate`: the knock sequence.
    rates: [u8; 2],
    /// 0, 3 with wheel, 4 with wheel and five buttons.
    id: u8,
    dx: i32,
    dy: i32,
    dz: i32,
    buttons: u8,
    /// Buttons as last reported.
    reported: u8,
}

impl Default for Mouse {
    fn default() -> Self {
        Mouse {
            replies: VecDeque::new(),
            packets: VecDeque::new(),
            waiting: 0,
            wrap: false,
            status: 0,
            resolution: 2,
            rate: 100,
            rates: [0; 2],
            id: 0,
            dx: 0,
            dy: 0,
            dz: 0,
            buttons: 0,
            reported: 0,
        }
    }
}

impl Mouse {
    /// A byte for the controller, if there is one.
    pub(crate) fn next(&mut self) -> Option<u8> {
        if self.replies.is_empty() && self.packets.is_empty() {
            self.stream();
        }
        self.replies
            .pop_front()
            .or_else(|| self.packets.pop_front())
    }

    /// Movement and buttons from outside; `dy` points down, as on the screen.
    pub(crate) fn moved(&mut self, dx: i32, dy: i32, dz: i32, buttons: Buttons) {
        let add = |sum: i32, step: i32| sum.saturating_add(step).clamp(-TRAVEL_MAX, TRAVEL_MAX);
        self.dx = add(self.dx, dx);
        self.dy = add(self.dy, dy.saturating_neg());
        self.dz = add(self.dz, dz);
        self.buttons = buttons.0;
        self.stream();
    }

    /// Queues packets while there is something to report and room.
    fn stream(&mut self) {
        let streams = self.status & status::ENABLED != 0 && self.status & status::REMOTE == 0;
        while streams && self.has_news() && self.packets.len() <= QUEUE_MAX.saturating_sub(4) {
            let packet = self.packet();
            self.packets.extend(packet);
        }
    }

    fn has_news(&self) -> bool {
        let wheel = self.id != 0 && self.dz != 0;
        self.dx != 0 || self.dy != 0 || wheel || self.buttons != self.reported
    }

    /// The next packet: takes off what it reports.
    fn packet(&mut self) -> Vec<u8> {
        let take = |sum: &mut i32, most: i32| {
            let part = (*sum).clamp(most.saturating_neg(), most);
            *sum = sum.saturating_sub(part);
            part
        };
        let (dx, dy) = (take(&mut self.dx, 127), take(&mut self.dy, 127));
        let signs = u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5;
        self.reported = self.buttons;
        let mut out = vec![8 | signs | self.buttons & 7, dx as u8, dy as u8];
        match self.id {
            3 => out.push(take(&mut self.dz, 127) as u8),
            4 => out.push(take(&mut self.dz, 7) as u8 & 0xf | (self.buttons & 0x18) << 1),
            _ => self.dz = 0,
        }
        out
    }

    /// A command or parameter byte from the system.
    pub(crate) fn write(&mut self, byte: u8) {
        if self.wrap && byte != command::WRAP_OFF && byte != command::RESET {
            if self.replies.len() < QUEUE_MAX {
                self.replies.push_back(byte);
            }
            return;
        }
        self.replies.clear();
        match std::mem::take(&mut self.waiting) {
            command::RESOLUTION if byte < 4 => {
                self.resolution = byte;
                self.replies.push_back(ACK);
            }
            command::SAMPLE_RATE if byte <= 200 => {
                self.set_rate(byte);
                self.replies.push_back(ACK);
            }
            _ => self.command(byte),
        }
    }

    fn set_rate(&mut self, rate: u8) {
        let [_, before] = self.rates;
        match (self.rates, rate) {
            ([200, 100], 80) => self.id = 3,
            ([200, 200], 80) => self.id = 4,
            _ => {}
        }
        self.rates = [before, rate];
        self.rate = rate;
    }

    fn command(&mut self, byte: u8) {
        let mut reply = vec![ACK];
        match byte {
            command::SCALING_1 => self.status &= !status::SCALING_2,
            command::SCALING_2 => self.status |= status::SCALING_2,
            command::RESOLUTION | command::SAMPLE_RATE => self.waiting = byte,
            command::STATUS => {
                // The status byte has the middle button in bit 1 and the right one in bit 0.
                let b = self.buttons;
                let buttons = (b & 1) << 2 | (b & 4) >> 1 | (b & 2) >> 1;
                reply.extend([self.status | buttons, self.resolution, self.rate]);
            }
            command::STREAM => self.status &= !status::REMOTE,
            command::READ_DATA => reply.extend(self.packet()),
            command::WRAP_OFF => self.wrap = false,
            command::WRAP => self.wrap = true,
            command::REMOTE => self.status |= status::REMOTE,
            command::READ_ID => reply.push(self.id),
            command::ENABLE => self.status |= status::ENABLED,
            command::DISABLE => self.status &= !status::ENABLED,
            command::DEFAULTS => {
                self.rate = 100;
                self.resolution = 2;
                self.status = 0;
                self.packets.clear();
            }
            command::RESET => {
                *self = Mouse::default();
                reply.extend([SELF_TEST_PASSED, 0]);
            }
            _ => reply = vec![NAK],
        }
        self.replies.extend(reply);
    }

    pub(crate) fn save(&self) -> Section {
        let Mouse {
            replies,
            packets,
            waiting,
            wrap,
            status,
            resolution,
            rate,
            rates,
            id,
            dx,
            dy,
            dz,
            buttons,
            reported,
        } = self.clone();
        Section::new("ps2-mouse", 1)
            .with(1, Vec::from(replies))
            .with(2, Vec::from(packets))
            .with(3, waiting)
            .with(4, wrap)
            .with(5, status)
            .with(6, resolution)
            .with(7, rate)
            .with(8, rates.to_vec())
            .with(9, id)
            .with(10, i64::from(dx))
            .with(11, i64::from(dy))
            .with(12, i64::from(dz))
            .with(13, buttons)
            .with(14, reported)
    }

    pub(crate) fn restore(section: &Section) -> Result<Self, StateError> {
        section.expect("ps2-mouse", 1)?;
        let bounded = |tag| match section.bytes(tag)? {
            bytes if bytes.len() <= QUEUE_MAX => Ok(VecDeque::from(bytes.to_vec())),
            _ => Err(section.bad(tag, "more than a mouse holds")),
        };
        let travel = |tag| match i32::try_from(section.i64(tag)?) {
            Ok(step) if (-TRAVEL_MAX..=TRAVEL_MAX).contains(&step) => Ok(step),
            _ => Err(section.bad(tag, "too far")),
        };
        Ok(Mouse {
            replies: bounded(1)?,
            packets: bounded(2)?,
            waiting: section.u8(3)?,
            wrap: section.bool(4)?,
            status: section.u8(5)? & (status::REMOTE | status::ENABLED | status::SCALING_2),
            resolution: section.u8(6)?,
            rate: section.u8(7)?,
            rates: section.array(8)?,
            id: match section.u8(9)? {
                id @ (0 | 3 | 4) => id,
                _ => return Err(section.bad(9, "no kind of mouse")),
            },
            dx: travel(10)?,
            dy: travel(11)?,
            dz: travel(12)?,
            buttons: section.u8(13)?,
            reported: section.u8(14)?,
        })
    }
}
