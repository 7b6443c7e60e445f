//! virtio-serial: consoles and generic ports.
//!
//! Spec: VIRTIO 1.2 section 5.3.
//!
//! The ports are devices of their own that plug into the [`SerialBus`]; all work is the
//! controller's. What the host sends waits in a small buffer until the guest has room.
//!
//! Not modelled: console size, plugging ports while the guest runs.

mod port;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hw_core::{BusKind, ChildBus, DeviceError, Section, StateError, Value, Wiring};
use hw_virtio::{Chain, Io, VirtioDevice, device_id};

use port::PortWire;
pub use port::{PortHost, PortSpec, SerialBus, SerialPort};

const F_MULTIPORT: u64 = 1 << 1;
const F_EMERG_WRITE: u64 = 1 << 2;

const QUEUE_SIZE: u16 = 128;
const CONTROL_SIZE: u16 = 32;
const CONTROL_RX: u16 = 2;
const CONTROL_TX: u16 = 3;

/// Offset of `emerg_wr` in the configuration.
const EMERG_WRITE: u64 = 8;

/// Control events (VIRTIO 1.2 section 5.3.6.2).
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const PORT_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// Bytes of a control message without its text.
const CONTROL_LEN: usize = 8;
/// Control messages that wait for the guest, at most.
const PENDING_MOST: usize = 256;
/// Bytes taken out of guest memory at a time.
const CHUNK: usize = 4096;
/// Bytes sent in one call, at most.
const SEND_MOST: usize = 256 << 10;

/// A request that the host has not taken all of.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sending {
    chain: Chain,
    done: u64,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct PortState {
    guest_connected: bool,
    sending: Option<Sending>,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct State {
    ports: BTreeMap<u32, PortState>,
    /// Control messages that the guest had no room for.
    pending: VecDeque<Vec<u8>>,
}

/// The controller.
pub struct Serial {
    bus: SerialBus,
    max_ports: u32,
    emergency_write: bool,
    state: State,
}

/// Receive and transmit queue of a port.
fn queues(port: u32) -> (u16, u16) {
    let first = match port {
        0 => 0,
        n => n.saturating_mul(2).saturating_add(2),
    };
    let first = u16::try_from(first).unwrap_or(u16::MAX);
    (first, first.saturating_add(1))
}

/// Port of a queue that is not a control queue.
fn port_of(queue: u16) -> u32 {
    match queue {
        0 | 1 => 0,
        n => u32::from(n.saturating_sub(2) >> 1),
    }
}

impl Serial {
    /// A controller for up to `max_ports` (1 to 511) ports.
    pub fn new(max_ports: u32, emergency_write: bool) -> Result<Self, DeviceError> {
        if !(1..=511).contains(&max_ports) {
            return Err(DeviceError::Other(format!(
                "max_ports={max_ports} of a virtio-serial controller is not from 1 to 511"
            )));
        }
        Ok(Serial {
            bus: SerialBus::new(max_ports),
            max_ports,
            emergency_write,
            state: State::default(),
        })
    }

    /// Where ports plug in.
    pub fn bus(&self) -> &SerialBus {
        &self.bus
    }

    fn multiport(io: &Io<'_>) -> bool {
        io.features() & F_MULTIPORT != 0
    }

    fn port(&mut self, id: u32) -> &mut PortState {
        self.state.ports.entry(id).or_default()
    }

    /// Tells the guest about a port.
    fn control(&mut self, io: &mut Io<'_>, id: u32, event: u16, value: u16, text: &[u8]) {
        let mut message = Vec::with_capacity(CONTROL_LEN.saturating_add(text.len()));
        message.extend(id.to_le_bytes());
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        message.extend(text);
        if self.state.pending.len() < PENDING_MOST {
            self.state.pending.push_back(message);
        }
        self.flush_control(io);
    }

    fn flush_control(&mut self, io: &mut Io<'_>) {
        while let Some(message) = self.state.pending.pop_front() {
            let Some(chain) = io.pop(CONTROL_RX) else {
                self.state.pending.push_front(message);
                return;
            };
            match chain.write_at(io.dma(), 0, &message) {
                Ok(written) => io.push(CONTROL_RX, &chain, written as u32),
                Err(error) => return io.fail(error),
            }
        }
    }

    fn take_control(&mut self, io: &mut Io<'_>) {
        while let Some(chain) = io.pop(CONTROL_TX) {
            let mut message = [0u8; CONTROL_LEN];
            match chain.read_at(io.dma(), 0, &mut message) {
                Ok(CONTROL_LEN) => {
                    let message = u64::from_le_bytes(message);
                    let (id, event) = (message as u32, (message >> 32) as u16);
                    self.guest_event(io, id, event, (message >> 48) as u16);
                }
                // Too short to mean anything.
                Ok(_) => {}
                Err(error) => return io.fail(error),
            }
            io.push(CONTROL_TX, &chain, 0);
        }
    }

    fn guest_event(&mut self, io: &mut Io<'_>, id: u32, event: u16, value: u16) {
        if event == event::DEVICE_READY {
            if value != 0 {
                for port in self.bus.ports() {
                    self.control(io, port.id, event::PORT_ADD, 1, &[]);
                }
            }
            return;
        }
        let Some(port) = self.bus.port(id) else {
            log::debug!("virtio-serial: event {event} for port {id}, which is not there");
            return;
        };
        match event {
            event::PORT_READY if value != 0 => {
                if port.is_console {
                    self.control(io, id, event::CONSOLE_PORT, 1, &[]);
                }
                if !port.name.is_empty() {
                    let mut name = port.name.clone().into_bytes();
                    name.push(0);
                    self.control(io, id, event::PORT_NAME, 1, &name);
                }
                if port.is_open() {
                    self.control(io, id, event::PORT_OPEN, 1, &[]);
                }
            }
            event::PORT_OPEN => {
                self.port(id).guest_connected = value != 0;
                self.receive(io, &port);
            }
            _ => {}
        }
    }

    /// Host to guest.
    fn receive(&mut self, io: &mut Io<'_>, port: &PortWire) {
        if !self.port(port.id).guest_connected {
            return;
        }
        let (queue, _) = queues(port.id);
        let mut taken = false;
        while port.has_input() {
            let Some(chain) = io.pop(queue) else { break };
            let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
            let data = port.take_input(room);
            taken |= !data.is_empty();
            match chain.write_at(io.dma(), 0, &data) {
                Ok(written) => io.push(queue, &chain, written as u32),
                Err(error) => return io.fail(error),
            }
        }
        if taken {
            port.accept_input();
        }
    }

    /// Guest to host.
    fn transmit(&mut self, io: &mut Io<'_>, id: u32) {
        let (_, queue) = queues(id);
        let port = self.bus.port(id);
        let mut budget = SEND_MOST;
        loop {
            let waiting = self.port(id).sending.take();
            let fresh = || io.pop(queue).map(|chain| Sending { chain, done: 0 });
            let Some(mut sending) = waiting.or_else(fresh) else {
                return;
            };
            let open = port.as_ref().filter(|p| p.is_open());
            // What nobody is there to read is lost.
            while let Some(port) = open {
                let mut data = [0u8; CHUNK];
                let len = match sending.chain.read_at(io.dma(), sending.done, &mut data) {
                    Ok(0) => break,
                    Ok(len) => len,
                    Err(error) => return io.fail(error),
                };
                if budget == 0 {
                    self.port(id).sending = Some(sending);
                    return io.later(queue);
                }
                let written = port.write(data.get(..len).unwrap_or_default());
                sending.done = sending.done.saturating_add(written as u64);
                budget = budget.saturating_sub(written);
                if written < len {
                    // The rest when the host has room: it pokes.
                    self.port(id).sending = Some(sending);
                    return;
                }
            }
            io.push(queue, &sending.chain, 0);
        }
    }
}

impl VirtioDevice for Serial {
    fn id(&self) -> u16 {
        device_id::CONSOLE
    }

    fn name(&self) -> &'static str {
        "virtio-serial"
    }

    fn features(&self) -> u64 {
        let multiport = if self.max_ports > 1 { F_MULTIPORT } else { 0 };
        let emergency = if self.emergency_write {
            F_EMERG_WRITE
        } else {
            0
        };
        multiport | emergency
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![QUEUE_SIZE, QUEUE_SIZE, CONTROL_SIZE, CONTROL_SIZE];
        for _ in 1..self.max_ports {
            sizes.extend([QUEUE_SIZE, QUEUE_SIZE]);
        }
        sizes
    }

    fn vectors(&self) -> u16 {
        // As in QEMU: one for the configuration, one for all queues.
        2
    }

    fn config(&self) -> Vec<u8> {
        // Columns, rows: unknown.
        let mut out = vec![0; 4];
        out.extend(self.max_ports.to_le_bytes());
        out.extend([0; 4]);
        out
    }

    fn config_written(&mut self, _: &mut Io<'_>, offset: u64, data: &[u8]) {
        if offset == EMERG_WRITE
            && self.emergency_write
            && let Some(console) = self.bus.ports().iter().find(|p| p.is_console)
        {
            console.write(data.get(..1).unwrap_or_default());
        }
    }

    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        self.bus.connect(wiring.poke());
        Ok(())
    }

    fn activate(&mut self, io: &mut Io<'_>) {
        if !Self::multiport(io) {
            self.port(0).guest_connected = true;
            if let Some(port) = self.bus.port(0) {
                self.receive(io, &port);
            }
        }
    }

    fn queue_notified(&mut self, io: &mut Io<'_>, queue: u16) {
        match queue {
            CONTROL_RX => self.flush_control(io),
            CONTROL_TX => self.take_control(io),
            _ if queue & 1 != 0 => self.transmit(io, port_of(queue)),
            _ => {
                if let Some(port) = self.bus.port(port_of(queue)) {
                    self.receive(io, &port);
                }
            }
        }
    }

    fn poke(&mut self, io: &mut Io<'_>, token: u64) {
        let Some(port) = u32::try_from(token).ok().and_then(|id| self.bus.port(id)) else {
            return;
        };
        if let Some(open) = port.take_open_change()
            && Self::multiport(io)
        {
            self.control(io, port.id, event::PORT_OPEN, u16::from(open), &[]);
        }
        self.receive(io, &port);
        self.transmit(io, port.id);
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    fn save(&self) -> Section {
        let State { ports, pending } = &self.state;
        // A port that nobody touched is as good as none.
        let touched = ports.iter().filter(|(_, p)| **p != PortState::default());
        let ports = touched.map(|(id, port)| {
            let PortState {
                guest_connected,
                sending,
            } = port;
            let mut section = Section::new("port", 1)
                .with(1, *id)
                .with(2, *guest_connected);
            if let Some(Sending { chain, done }) = sending {
                section.push(3, chain.save());
                section.push(4, *done);
            }
            section
        });
        let inputs = self.bus.ports().into_iter().map(|port| {
            Section::new("input", 1)
                .with(1, port.id)
                .with(2, port.peek_input())
        });
        Section::new(self.name(), 1)
            .with(1, ports.collect::<Value>())
            .with(2, pending.iter().cloned().collect::<Value>())
            .with(3, inputs.collect::<Value>())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(self.name(), 1)?;
        let sections = |tag: u16| -> Result<Vec<&Section>, StateError> {
            let list = section.list(tag)?.iter();
            list.map(|value| match value {
                Value::Section(s) => Ok(s),
                _ => Err(section.bad(tag, "not sections")),
            })
            .collect()
        };
        let mut state = State::default();
        for port in sections(1)? {
            port.expect("port", 1)?;
            let id = port.u32(1)?;
            if id >= self.max_ports {
                return Err(port.bad(1, "no such port"));
            }
            let sending = match port.get(3) {
                Some(_) => Some(Sending {
                    chain: Chain::restore(port.section(3)?)?,
                    done: port.u64(4)?,
                }),
                None => None,
            };
            let guest_connected = port.bool(2)?;
            state.ports.insert(
                id,
                PortState {
                    guest_connected,
                    sending,
                },
            );
        }
        let pending = section.list(2)?;
        if pending.len() > PENDING_MOST {
            return Err(section.bad(2, "too many messages"));
        }
        for message in pending {
            let Value::Bytes(message) = message else {
                return Err(section.bad(2, "not bytes"));
            };
            state.pending.push_back(message.clone());
        }
        let mut inputs = Vec::new();
        for input in sections(3)? {
            input.expect("input", 1)?;
            let port = self.bus.port(input.u32(1)?);
            let port = port.ok_or_else(|| input.bad(1, "no such port"))?;
            let bytes = input.bytes(2)?;
            if bytes.len() > port::INPUT_MOST {
                return Err(input.bad(2, "too much input"));
            }
            inputs.push((port, bytes.to_vec()));
        }
        for (port, bytes) in inputs {
            port.set_input(bytes);
        }
        self.state = state;
        Ok(())
    }

    fn resume(&mut self, io: &mut Io<'_>) {
        for port in self.bus.ports() {
            self.receive(io, &port);
            self.transmit(io, port.id);
        }
    }

    fn child_bus(&self) -> Option<ChildBus> {
        let bus: Arc<dyn Any + Send + Sync> = Arc::new(self.bus.clone());
        Some(ChildBus {
            kind: BusKind::VirtioSerial,
            hot_plug: None,
            bus,
            free: Some(0),
        })
    }
}
