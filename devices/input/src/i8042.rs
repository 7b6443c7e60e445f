//! i8042: the PC's keyboard and mouse controller.
//!
//! Spec: IBM PS/2 Hardware Interface Technical Reference, "Keyboard/Auxiliary Device Controller".
//! Ports 0x60 (data) and 0x64 (commands, status).
//!
//! Bytes wait in their devices and move to the one-byte output buffer when the system has emptied
//! it, so nothing is ever polled. The interrupt pins follow the buffer: a read lowers the pin even
//! when the next byte follows at once, so that edge-triggered controllers see each byte.
//!
//! Not modelled: the password and the test inputs.

use hw_core::{
    Access, AccessSizes, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Initiator,
    IrqLine, IrqPin, Prop, PropType, Region, RegionId, Request, Requests, ResetKind, Section,
    StateError, Wiring,
};

use crate::events::{Input, InputEvent};
use crate::keyboard::Keyboard;
use crate::mouse::Mouse;
use crate::translate::{RELEASE, to_set_1};

/// The class. Its pins are ISA interrupts 1 and 12, and `a20`. The board offers an [`Input`] as
/// link of kind `input` with the id `ps2`.
pub static I8042_CLASS: DeviceClass = DeviceClass {
    name: "i8042",
    aliases: &[],
    doc: "PS/2 keyboard and mouse controller",
    bus: BusKind::Isa,
    category: Category::Input,
    props: &[
        Prop {
            name: "kbd-irq",
            ty: PropType::U8,
            default: "1",
            doc: "interrupt of the keyboard",
        },
        Prop {
            name: "mouse-irq",
            ty: PropType::U8,
            default: "12",
            doc: "interrupt of the mouse",
        },
    ],
    user_creatable: true,
    create: |args, links| {
        let mut device = I8042::new(links.take::<Input>("input", "ps2").unwrap_or_default());
        device.kbd_pin = args.need_int("kbd-irq")? as u32;
        device.mouse_pin = args.need_int("mouse-irq")? as u32;
        Ok(Box::new(device))
    },
};

/// Bits of the status register.
mod status {
    pub(super) const OUTPUT_FULL: u8 = 1;
    pub(super) const SYSTEM: u8 = 1 << 2;
    pub(super) const COMMAND: u8 = 1 << 3;
    pub(super) const NOT_INHIBITED: u8 = 1 << 4;
    pub(super) const MOUSE_DATA: u8 = 1 << 5;
}

/// Bits of the command byte.
mod mode {
    pub(super) const KBD_INT: u8 = 1;
    pub(super) const MOUSE_INT: u8 = 1 << 1;
    pub(super) const SYSTEM: u8 = 1 << 2;
    pub(super) const KBD_OFF: u8 = 1 << 4;
    pub(super) const MOUSE_OFF: u8 = 1 << 5;
    pub(super) const TRANSLATE: u8 = 1 << 6;
}

/// Bits of the output port.
mod output {
    /// Low resets the machine.
    pub(super) const RUN: u8 = 1;
    pub(super) const A20: u8 = 1 << 1;
    pub(super) const KBD_FULL: u8 = 1 << 4;
    pub(super) const MOUSE_FULL: u8 = 1 << 5;
    /// Keyboard clock and data lines, idle.
    pub(super) const IDLE: u8 = 0xc0;
}

/// Where the byte in the output buffer came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Keyboard,
    Mouse,
}

/// The controller with its keyboard and mouse.
pub struct I8042 {
    kbd_irq: IrqLine,
    mouse_irq: IrqLine,
    a20: IrqLine,
    requests: Requests,
    command_port: Option<RegionId>,

    input: Input,
    kbd_pin: u32,
    mouse_pin: u32,

    state: State,
}

/// Everything the guest can observe.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    mode: u8,
    /// RUN and A20 bits.
    output: u8,
    /// SYSTEM and COMMAND bits.
    flags: u8,
    /// The command that waits for its data byte, or 0.
    waiting: u8,
    buffer: Option<(u8, Source)>,
    /// Last byte read: what the data port reads as when empty.
    last: u8,
    /// A 0xf0 was swallowed: the next code is a release.
    release: bool,
    /// Answer of the controller itself, to go before the devices' bytes.
    reply: Option<(u8, Source)>,
    keyboard: Keyboard,
    mouse: Mouse,
}

impl Default for State {
    fn default() -> Self {
        State {
            mode: mode::KBD_INT | mode::MOUSE_INT,
            output: output::RUN | output::A20,
            flags: 0,
            waiting: 0,
            buffer: None,
            last: 0,
            release: false,
            reply: None,
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
        }
    }
}

impl State {
    /// Moves the next byte into the output buffer if that is empty.
    fn fill(&mut self) {
        while self.buffer.is_none() {
            if let Some(reply) = self.reply.take() {
                self.buffer = Some(reply);
            } else if self.mode & mode::KBD_OFF == 0
                && let Some(byte) = self.keyboard.next()
            {
                self.buffer = self.translated(byte).map(|byte| (byte, Source::Keyboard));
            } else if self.mode & mode::MOUSE_OFF == 0
                && let Some(byte) = self.mouse.next()
            {
                self.buffer = Some((byte, Source::Mouse));
            } else {
                break;
            }
        }
    }

    fn translated(&mut self, byte: u8) -> Option<u8> {
        if self.mode & mode::TRANSLATE == 0 {
            return Some(byte);
        }
        if byte == RELEASE {
            self.release = true;
            return None;
        }
        let bit = u8::from(std::mem::take(&mut self.release)) << 7;
        Some(to_set_1(byte) | bit)
    }

    fn status(&self) -> u8 {
        let full = match self.buffer {
            None => 0,
            Some((_, Source::Keyboard)) => status::OUTPUT_FULL,
            Some((_, Source::Mouse)) => status::OUTPUT_FULL | status::MOUSE_DATA,
        };
        self.flags | status::NOT_INHIBITED | full
    }

    fn output_port(&self) -> u8 {
        let full = match self.buffer {
            None => 0,
            Some((_, Source::Keyboard)) => output::KBD_FULL,
            Some((_, Source::Mouse)) => output::MOUSE_FULL,
        };
        self.output | output::IDLE | full
    }
}

impl I8042 {
    /// A controller fed by `input`.
    pub fn new(input: Input) -> Self {
        I8042 {
            kbd_irq: IrqLine::default(),
            mouse_irq: IrqLine::default(),
            a20: IrqLine::default(),
            requests: Requests::default(),
            command_port: None,
            input,
            kbd_pin: 1,
            mouse_pin: 12,
            state: State::default(),
        }
    }

    fn sync(&mut self) {
        self.state.fill();
        let source = self.state.buffer.map(|(_, from)| from);
        let on = |bit: u8| self.state.mode & bit != 0;
        self.kbd_irq
            .set(source == Some(Source::Keyboard) && on(mode::KBD_INT));
        self.mouse_irq
            .set(source == Some(Source::Mouse) && on(mode::MOUSE_INT));
        self.a20.set(self.state.output & output::A20 != 0);
    }

    fn set_output(&mut self, value: u8) {
        self.state.output = value & output::A20 | output::RUN;
        if value & output::RUN == 0 {
            self.requests.post(Request::Reset);
        }
    }

    fn reply(&mut self, byte: u8) {
        self.state.reply = Some((byte, Source::Keyboard));
    }

    fn command(&mut self, command: u8) {
        let s = &mut self.state;
        s.flags |= status::COMMAND;
        s.waiting = 0;
        match command {
            0x20 => {
                let byte = s.mode;
                self.reply(byte);
            }
            0x60 | 0xd1..=0xd4 => s.waiting = command,
            0xa7 => s.mode |= mode::MOUSE_OFF,
            0xa8 => s.mode &= !mode::MOUSE_OFF,
            // Self-tests: mouse interface, controller, keyboard interface.
            0xa9 | 0xab => self.reply(0),
            0xaa => {
                s.flags |= status::SYSTEM;
                self.reply(0x55);
            }
            0xad => s.mode |= mode::KBD_OFF,
            0xae => s.mode &= !mode::KBD_OFF,
            // Input port: keyboard not locked.
            0xc0 => self.reply(0x80),
            0xd0 => {
                let byte = s.output_port();
                self.reply(byte);
            }
            0xdd => s.output &= !output::A20,
            0xdf => s.output |= output::A20,
            // Pulses the output lines whose bits are clear; line 0 is the processor's reset.
            0xf0..=0xff if command & 1 == 0 => self.requests.post(Request::Reset),
            _ => {}
        }
    }

    fn data(&mut self, byte: u8) {
        let s = &mut self.state;
        s.flags &= !status::COMMAND;
        match std::mem::take(&mut s.waiting) {
            0x60 => {
                s.mode = byte;
                s.flags = s.flags & !status::SYSTEM | byte & mode::SYSTEM;
            }
            0xd1 => self.set_output(byte),
            0xd2 => s.reply = Some((byte, Source::Keyboard)),
            0xd3 => s.reply = Some((byte, Source::Mouse)),
            0xd4 => {
                s.mode &= !mode::MOUSE_OFF;
                s.mouse.write(byte);
            }
            _ => {
                // Talking to the keyboard turns its interface on.
                s.mode &= !mode::KBD_OFF;
                s.keyboard.write(byte);
            }
        }
    }
}

impl Device for I8042 {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.kbd_irq = w.irq(IrqPin::Bus(self.kbd_pin));
        self.mouse_irq = w.irq(IrqPin::Bus(self.mouse_pin));
        self.a20 = w.irq(IrqPin::Named("a20"));
        self.requests = w.requests();
        let port = |name: &str, at| Region::new(name, at, 1).sizes(AccessSizes::BYTE);
        w.ports(port("i8042-data", 0x60));
        let (command, _) = w.ports(port("i8042-cmd", 0x64));
        self.command_port = Some(command);
        self.input.connect(w.poke());
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
        self.input.clear();
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        if Some(access.region) == self.command_port {
            return Ok(self.state.status().into());
        }
        if access.by == Initiator::Debug {
            let next = self.state.buffer.map_or(self.state.last, |(byte, _)| byte);
            return Ok(next.into());
        }
        if let Some((byte, _)) = self.state.buffer.take() {
            self.state.last = byte;
            self.kbd_irq.set(false);
            self.mouse_irq.set(false);
            self.sync();
        }
        Ok(self.state.last.into())
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        if Some(access.region) == self.command_port {
            self.command(value as u8);
        } else {
            self.data(value as u8);
        }
        self.sync();
        Ok(())
    }

    fn poke(&mut self, _: u64) {
        while let Some(event) = self.input.take() {
            match event {
                InputEvent::Key { key, down } => self.state.keyboard.key(key, down),
                InputEvent::Mouse {
                    dx,
                    dy,
                    dz,
                    buttons,
                } => self.state.mouse.moved(dx, dy, dz, buttons),
            }
        }
        self.sync();
    }

    fn save(&self) -> Section {
        let State {
            mode,
            output,
            flags,
            waiting,
            buffer,
            last,
            release,
            reply,
            keyboard,
            mouse,
        } = self.state.clone();
        Section::new("i8042", 1)
            .with(1, mode)
            .with(2, output)
            .with(3, flags)
            .with(4, waiting)
            .with(5, packed(buffer))
            .with(6, last)
            .with(7, release)
            .with(8, packed(reply))
            .with(9, keyboard.save())
            .with(10, mouse.save())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("i8042", 1)?;
        self.state = State {
            mode: section.u8(1)?,
            output: section.u8(2)? & (output::RUN | output::A20),
            flags: section.u8(3)? & (status::SYSTEM | status::COMMAND),
            waiting: section.u8(4)?,
            buffer: unpacked(section.u16(5)?),
            last: section.u8(6)?,
            release: section.bool(7)?,
            reply: unpacked(section.u16(8)?),
            keyboard: Keyboard::restore(section.section(9)?)?,
            mouse: Mouse::restore(section.section(10)?)?,
        };
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("status", self.state.status().into()),
            ("mode", self.state.mode.into()),
            ("output", self.state.output_port().into()),
            ("leds", self.state.keyboard.leds.into()),
        ]
    }
}

/// Saved form of a buffered byte: bit 8 full, bit 9 from the mouse.
fn packed(byte: Option<(u8, Source)>) -> u16 {
    match byte {
        None => 0,
        Some((byte, Source::Keyboard)) => u16::from(byte) | 0x100,
        Some((byte, Source::Mouse)) => u16::from(byte) | 0x300,
    }
}

fn unpacked(value: u16) -> Option<(u8, Source)> {
    let from = if value & 0x200 != 0 {
        Source::Mouse
    } else {
        Source::Keyboard
    };
    (value & 0x100 != 0).then_some((value as u8, from))
}
