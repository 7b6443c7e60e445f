//! PS/2 keyboard.
//!
//! Spec: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-key)".
//!
//! Not modelled: typematic repeat (hosts repeat keys themselves), scan code set 3 (refused, as some
//! real keyboards do).

use std::collections::VecDeque;

use hw_core::{Section, StateError};

use crate::keys::{ALT, ALT_R, Key, PAUSE, PRINT, SYSRQ};
use crate::translate::{RELEASE, to_set_1};

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;
const ID: [u8; 2] = [0xab, 0x83];
/// Codes the keyboard holds for a slow reader.
const QUEUE_MAX: usize = 256;

/// Commands from the system.
mod command {
    pub(super) const SET_LEDS: u8 = 0xed;
    pub(super) const ECHO: u8 = 0xee;
    pub(super) const SCAN_CODE_SET: u8 = 0xf0;
    pub(super) const READ_ID: u8 = 0xf2;
    pub(super) const TYPEMATIC: u8 = 0xf3;
    pub(super) const ENABLE: u8 = 0xf4;
    pub(super) const DEFAULT_DISABLE: u8 = 0xf5;
    pub(super) const SET_DEFAULT: u8 = 0xf6;
    pub(super) const RESEND: u8 = 0xfe;
    pub(super) const RESET: u8 = 0xff;
}

/// State of the keyboard: guest-visible, saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keyboard {
    /// Answers to commands: they go before scan codes.
    replies: VecDeque<u8>,
    codes: VecDeque<u8>,
    /// The command that waits for its parameter, or 0.
    waiting: u8,
    scanning: bool,
    set: u8,
    pub(crate) leds: u8,
    typematic: u8,
    last: u8,
    alt: bool,
}

impl Default for Keyboard {
    fn default() -> Self {
        Keyboard {
            replies: VecDeque::new(),
            codes: VecDeque::new(),
            waiting: 0,
            scanning: true,
            set: 2,
            leds: 0,
            typematic: 0x2b,
            last: 0,
            alt: false,
        }
    }
}

impl Keyboard {
    /// A byte for the controller, if there is one.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let byte = self
            .replies
            .pop_front()
            .or_else(|| self.codes.pop_front())?;
        if byte != RESEND {
            self.last = byte;
        }
        Some(byte)
    }

    /// A command or parameter byte from the system.
    pub(crate) fn write(&mut self, byte: u8) {
        // A new byte breaks off whatever was still being answered.
        self.replies.clear();
        match std::mem::take(&mut self.waiting) {
            command::SET_LEDS if byte & 0x80 == 0 => {
                self.leds = byte & 7;
                self.replies.push_back(ACK);
            }
            command::TYPEMATIC if byte & 0x80 == 0 => {
                self.typematic = byte;
                self.replies.push_back(ACK);
            }
            command::SCAN_CODE_SET if byte < 3 => {
                self.replies.push_back(ACK);
                if byte == 0 {
                    self.replies.push_back(self.set);
                } else {
                    self.set = byte;
                }
            }
            command::SCAN_CODE_SET if byte < 0x80 => self.replies.push_back(RESEND),
            _ => self.command(byte),
        }
    }

    fn command(&mut self, byte: u8) {
        match byte {
            command::SET_LEDS | command::TYPEMATIC | command::SCAN_CODE_SET => {
                self.waiting = byte;
            }
            command::ECHO => {
                self.replies.push_back(command::ECHO);
                return;
            }
            command::READ_ID => {
                self.replies.push_back(ACK);
                self.replies.extend(ID);
                return;
            }
            command::ENABLE => self.scanning = true,
            command::DEFAULT_DISABLE => {
                self.defaults();
                self.scanning = false;
            }
            command::SET_DEFAULT => {
                self.defaults();
                self.scanning = true;
            }
            // Make and break or typematic for all keys or for one: scan code set 3 only.
            0xf7..=0xfd => {}
            command::RESEND => {
                self.replies.push_back(self.last);
                return;
            }
            command::RESET => {
                *self = Keyboard::default();
                self.replies.extend([ACK, SELF_TEST_PASSED]);
                return;
            }
            _ => {
                self.replies.push_back(RESEND);
                return;
            }
        }
        self.replies.push_back(ACK);
    }

    fn defaults(&mut self) {
        self.codes.clear();
        self.set = 2;
        self.typematic = 0x2b;
    }

    /// A key goes down or up. Dropped while the system has scanning off or does not read.
    pub(crate) fn key(&mut self, key: Key, down: bool) {
        if key == ALT || key == ALT_R {
            self.alt = down;
        }
        let key = if key == PRINT && self.alt { SYSRQ } else { key };
        let mut codes = Vec::with_capacity(8);
        match (key, down) {
            // Pause has no release: it sends both at once.
            (PAUSE, true) => codes.extend([0xe1, 0x14, 0x77, 0xe1, RELEASE, 0x14, RELEASE, 0x77]),
            (PAUSE, false) => {}
            (PRINT, true) => codes.extend([0xe0, 0x12, 0xe0, 0x7c]),
            (PRINT, false) => codes.extend([0xe0, RELEASE, 0x7c, 0xe0, RELEASE, 0x12]),
            _ => {
                if key.prefix() != 0 {
                    codes.push(key.prefix());
                }
                if !down {
                    codes.push(RELEASE);
                }
                codes.push(key.low());
            }
        }
        if self.set == 1 {
            codes = set_1(&codes);
        }
        let room = QUEUE_MAX.saturating_sub(self.codes.len());
        if self.scanning && codes.len() <= room {
            self.codes.extend(codes);
        }
    }

    pub(crate) fn save(&self) -> Section {
        let Keyboard {
            replies,
            codes,
            waiting,
            scanning,
            set,
            leds,
            typematic,
            last,
            alt,
        } = self.clone();
        Section::new("ps2-kbd", 1)
            .with(1, Vec::from(replies))
            .with(2, Vec::from(codes))
            .with(3, waiting)
            .with(4, scanning)
            .with(5, set)
            .with(6, leds)
            .with(7, typematic)
            .with(8, last)
            .with(9, alt)
    }

    pub(crate) fn restore(section: &Section) -> Result<Self, StateError> {
        section.expect("ps2-kbd", 1)?;
        let bounded = |tag| match section.bytes(tag)? {
            bytes if bytes.len() <= QUEUE_MAX => Ok(VecDeque::from(bytes.to_vec())),
            _ => Err(section.bad(tag, "more than a keyboard holds")),
        };
        Ok(Keyboard {
            replies: bounded(1)?,
            codes: bounded(2)?,
            waiting: section.u8(3)?,
            scanning: section.bool(4)?,
            set: match section.u8(5)? {
                set @ 1..=2 => set,
                _ => return Err(section.bad(5, "no scan code set")),
            },
            leds: section.u8(6)?,
            typematic: section.u8(7)?,
            last: section.u8(8)?,
            alt: section.bool(9)?,
        })
    }
}

/// A key's set 2 codes in set 1: a release is bit 7.
fn set_1(codes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(codes.len());
    let mut release = 0;
    for code in codes {
        match *code {
            RELEASE => release = 0x80,
            code => {
                out.push(to_set_1(code) | release);
                release = 0;
            }
        }
    }
    out
}
