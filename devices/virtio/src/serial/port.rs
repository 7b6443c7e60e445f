//! Ports of a virtio-serial controller, and the bus they plug into.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use backend_char::{CharEvent, CharFrontend, CharSink};
use hw_core::{Device, DeviceError, ResetKind, Section, StateError, Wiring};

/// Bytes from the host that wait for the guest, at most.
pub(super) const INPUT_MOST: usize = 4096;

type Poke = Arc<dyn Fn(u64) + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host's end of a port: a character stream.
pub trait PortHost: Send + Sync {
    /// Takes output, as much as there is room for.
    fn write(&self, data: &[u8]) -> usize;
    /// There is room for input again.
    fn accept_input(&self);
    /// Whether somebody is at the other end.
    fn is_open(&self) -> bool;
    /// Where input goes.
    fn attach(&self, sink: Arc<dyn CharSink>);
}

impl PortHost for CharFrontend {
    fn write(&self, data: &[u8]) -> usize {
        CharFrontend::write(self, data)
    }
    fn accept_input(&self) {
        CharFrontend::accept_input(self);
    }
    fn is_open(&self) -> bool {
        CharFrontend::is_open(self)
    }
    fn attach(&self, sink: Arc<dyn CharSink>) {
        CharFrontend::attach(self, sink);
    }
}

/// A port to be plugged in.
pub struct PortSpec {
    /// Number, or the first free one.
    pub nr: Option<u32>,
    /// Name by which the guest finds it.
    pub name: String,
    /// A console, not a generic port.
    pub is_console: bool,
    /// The host's end, if there is one.
    pub host: Option<Box<dyn PortHost>>,
}

/// What the host sends, until the guest takes it.
struct Input {
    id: u32,
    bytes: Mutex<VecDeque<u8>>,
    open: AtomicBool,
    open_changed: AtomicBool,
    poke: Poke,
}

impl CharSink for Input {
    fn can_receive(&self) -> usize {
        INPUT_MOST.saturating_sub(lock(&self.bytes).len())
    }

    fn receive(&self, data: &[u8]) {
        lock(&self.bytes).extend(data);
        (self.poke)(u64::from(self.id));
    }

    fn event(&self, event: CharEvent) {
        let open = match event {
            CharEvent::Opened => true,
            CharEvent::Closed => false,
            _ => return,
        };
        if self.open.swap(open, Ordering::AcqRel) != open {
            self.open_changed.store(true, Ordering::Release);
            (self.poke)(u64::from(self.id));
        }
    }

    fn writable(&self) {
        (self.poke)(u64::from(self.id));
    }
}

/// A port in its place.
pub(super) struct PortWire {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) is_console: bool,
    host: Option<Box<dyn PortHost>>,
    input: Arc<Input>,
}

impl PortWire {
    /// Whether the guest is to think that somebody is there: always, on a console.
    pub(super) fn is_open(&self) -> bool {
        self.host.is_some() && (self.is_console || self.input.open.load(Ordering::Acquire))
    }

    /// Whether the other end came or went since the last call.
    pub(super) fn take_open_change(&self) -> Option<bool> {
        let changed = self.input.open_changed.swap(false, Ordering::AcqRel);
        (changed && !self.is_console).then(|| self.is_open())
    }

    pub(super) fn write(&self, data: &[u8]) -> usize {
        self.host.as_ref().map_or(data.len(), |h| h.write(data))
    }

    pub(super) fn accept_input(&self) {
        if let Some(host) = &self.host {
            host.accept_input();
        }
    }

    pub(super) fn has_input(&self) -> bool {
        !lock(&self.input.bytes).is_empty()
    }

    pub(super) fn take_input(&self, most: usize) -> Vec<u8> {
        let mut bytes = lock(&self.input.bytes);
        let count = most.min(bytes.len());
        bytes.drain(..count).collect()
    }

    pub(super) fn peek_input(&self) -> Vec<u8> {
        lock(&self.input.bytes).iter().copied().collect()
    }

    pub(super) fn set_input(&self, bytes: Vec<u8>) {
        *lock(&self.input.bytes) = bytes.into();
    }
}

struct Shared {
    max_ports: u32,
    ports: Mutex<Vec<Arc<PortWire>>>,
    poke: OnceLock<Poke>,
}

/// The bus of a controller. Clones are the same bus; boards hand it to ports as their bus.
#[derive(Clone)]
pub struct SerialBus {
    shared: Arc<Shared>,
}

impl SerialBus {
    pub(super) fn new(max_ports: u32) -> Self {
        SerialBus {
            shared: Arc::new(Shared {
                max_ports,
                ports: Mutex::default(),
                poke: OnceLock::new(),
            }),
        }
    }

    pub(super) fn connect(&self, poke: Poke) {
        let _ = self.shared.poke.set(poke);
    }

    pub(super) fn ports(&self) -> Vec<Arc<PortWire>> {
        lock(&self.shared.ports).clone()
    }

    pub(super) fn port(&self, id: u32) -> Option<Arc<PortWire>> {
        let ports = lock(&self.shared.ports);
        ports.iter().find(|p| p.id == id).cloned()
    }

    /// Plugs a port in and returns its number. Number 0 is for a console: drivers without several
    /// ports take it for one.
    pub fn plug(&self, spec: PortSpec) -> Result<u32, DeviceError> {
        let PortSpec {
            nr,
            name,
            is_console,
            host,
        } = spec;
        let other = |why: String| Err(DeviceError::Other(why));
        let Some(poke) = self.shared.poke.get().cloned() else {
            return other("the virtio-serial controller is not there yet".into());
        };
        let mut ports = lock(&self.shared.ports);
        let is_free = |id: &u32| !ports.iter().any(|p| p.id == *id);
        let first = u32::from(!(is_console && is_free(&0)));
        let id = match nr {
            Some(id) => id,
            None => match (first..self.shared.max_ports).find(is_free) {
                Some(id) => id,
                None => {
                    return other(format!(
                        "the virtio-serial controller has no free port; it has {}",
                        self.shared.max_ports
                    ));
                }
            },
        };
        if id >= self.shared.max_ports || !is_free(&id) {
            return other(format!(
                "port nr={id} of the virtio-serial controller is not free; it has {}",
                self.shared.max_ports
            ));
        }
        if id == 0 && !is_console {
            return other("port nr=0 of a virtio-serial controller is for a virtconsole".into());
        }
        if !name.is_empty() && ports.iter().any(|p| p.name == name) {
            return other(format!("a virtio-serial port is named '{name}' already"));
        }
        let input = Arc::new(Input {
            id,
            bytes: Mutex::default(),
            open: AtomicBool::new(false),
            open_changed: AtomicBool::new(false),
            poke,
        });
        let port = Arc::new(PortWire {
            id,
            name,
            is_console,
            host,
            input: input.clone(),
        });
        ports.push(port.clone());
        drop(ports);
        if let Some(host) = &port.host {
            input.open.store(host.is_open(), Ordering::Release);
            host.attach(input);
        }
        Ok(id)
    }
}

/// A port as a device: it has no registers, all it does is to be on the bus.
pub struct SerialPort {
    spec: Option<PortSpec>,
    nr: u32,
}

impl SerialPort {
    /// A port.
    pub fn new(spec: PortSpec) -> Self {
        SerialPort {
            spec: Some(spec),
            nr: 0,
        }
    }
}

impl Device for SerialPort {
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let bus = wiring
            .bus()
            .and_then(|bus| bus.downcast_ref::<SerialBus>())
            .ok_or_else(|| {
                DeviceError::Other(
                    "a virtio-serial port needs a controller: add '-device virtio-serial-pci' before it"
                        .into(),
                )
            })?;
        if let Some(spec) = self.spec.take() {
            self.nr = bus.plug(spec)?;
        }
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    fn save(&self) -> Section {
        // All that changes is the controller's.
        Section::new("virtio-serial-port", 1).with(1, self.nr)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("virtio-serial-port", 1)?;
        if section.u32(1)? != self.nr {
            return Err(section.bad(1, "another port"));
        }
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![("nr", u64::from(self.nr))]
    }
}
