//! What a CPU's requests to the host come to: files, a console, the end of the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_char::CharFrontend;
use backend_semihosting::{Ran, Read, Semihosting};
use hw_core::{Device, DeviceError, Request, Requests, ResetKind, Section, StateError, Wiring};
use machine_core::{BoardError, MachineSpec, Parts};
use target_arm::{HostRan, HostRead, Semihost};

use crate::map::RAM_BASE;

/// Every program is told of a stack and a heap that begin at multiples of this.
const ALIGN: u64 = 1 << 16;

/// One CPU's way to the host. Clones lead to the same.
#[derive(Clone)]
pub(crate) struct HostLink {
    /// Which CPU.
    cpu: usize,
    host: Arc<Mutex<Semihosting>>,
    requests: Requests,
    command_line: Vec<u8>,
    heap: [u64; 4],
    /// EL0 may ask, too.
    pub(crate) for_users: bool,
}

impl HostLink {
    /// As `-semihosting-config` says, if it is on.
    pub(crate) fn plan(parts: &mut Parts<'_>) -> Result<Option<Self>, BoardError> {
        let spec = parts.spec;
        let Some(wanted) = &spec.semihosting else {
            return Ok(None);
        };
        let console = match &wanted.chardev {
            Some(id) => {
                let stream = parts.links.take::<CharFrontend>("chardev", id);
                let missing = || {
                    BoardError::Config(format!(
                        "-semihosting-config: there is no character device named '{id}'; add '-chardev stdio,id={id}'"
                    ))
                };
                Some(stream.ok_or_else(missing)?)
            }
            None => None,
        };
        let host = Arc::new(Mutex::new(Semihosting::new(console)));
        let device = Box::new(HostDevice(host.clone()));
        parts.add("semihosting", "semihosting", device, &[])?;
        Ok(Some(HostLink {
            cpu: 0,
            host,
            requests: parts.fabric.requests.clone(),
            command_line: command_line(spec).into_bytes(),
            heap: heap(spec.memory),
            for_users: wanted.userspace,
        }))
    }

    /// The way of another CPU.
    pub(crate) fn of(&self, cpu: usize) -> Self {
        HostLink {
            cpu,
            ..self.clone()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Semihosting> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was given, else the kernel and its arguments.
fn command_line(spec: &MachineSpec) -> String {
    let given = spec.semihosting.iter().flat_map(|s| &s.arguments);
    let given: Vec<&str> = given.map(String::as_str).collect();
    match (&spec.kernel, given.is_empty()) {
        (Some(kernel), true) => format!("{} {}", kernel.path, spec.append).trim_end().into(),
        _ => given.join(" "),
    }
}

/// Heap and stack in the upper half of RAM, where no kernel is loaded to: a quarter each.
fn heap(ram: u64) -> [u64; 4] {
    let at = |quarter: u64| RAM_BASE + (ram / 4 * quarter) / ALIGN * ALIGN;
    [at(2), at(3), at(4), at(3)]
}

impl Semihost for HostLink {
    fn put(&mut self, bytes: &[u8]) -> usize {
        self.lock().put(bytes)
    }

    fn get(&mut self) -> Option<u8> {
        self.lock().get()
    }

    fn open(&mut self, name: &[u8], mode: u64) -> Option<u64> {
        self.lock().open(name, mode)
    }

    fn close(&mut self, handle: u64) -> Option<()> {
        self.lock().close(handle)
    }

    fn write(&mut self, handle: u64, bytes: &[u8]) -> Option<usize> {
        self.lock().write(handle, bytes)
    }

    fn read(&mut self, handle: u64, out: &mut [u8]) -> Option<HostRead> {
        Some(match self.lock().read(handle, out)? {
            Read::Bytes(count) => HostRead::Bytes(count),
            Read::Later => HostRead::Later,
        })
    }

    fn seek(&mut self, handle: u64, to: u64) -> Option<()> {
        self.lock().seek(handle, to)
    }

    fn len(&mut self, handle: u64) -> Option<u64> {
        self.lock().len(handle)
    }

    fn is_console(&mut self, handle: u64) -> Option<bool> {
        self.lock().is_console(handle)
    }

    fn remove(&mut self, name: &[u8]) -> Option<()> {
        self.lock().remove(name)
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) -> Option<()> {
        self.lock().rename(from, to)
    }

    fn system(&mut self, command: &[u8]) -> Option<HostRan> {
        Some(match self.lock().system(self.cpu, command)? {
            Ran::Status(status) => HostRan::Status(status),
            Ran::Later => HostRan::Later,
        })
    }

    fn temporary(&mut self, number: u8) -> Vec<u8> {
        self.lock().temporary(number)
    }

    fn errno(&mut self) -> u64 {
        self.lock().errno().unsigned_abs().into()
    }

    fn command_line(&mut self) -> Vec<u8> {
        self.command_line.clone()
    }

    fn heap(&mut self) -> [u64; 4] {
        self.heap
    }

    fn exit(&mut self, status: u8) {
        self.requests.post(Request::Exit(status));
    }
}

/// Closes files when the machine is reset. Files are the host's: they are not saved.
struct HostDevice(Arc<Mutex<Semihosting>>);

const NAME: &str = "semihosting";

impl Device for HostDevice {
    fn realize(&mut self, _: &mut dyn Wiring) -> Result<(), DeviceError> {
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reset();
    }

    fn save(&self) -> Section {
        Section::new(NAME, 1)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect(NAME, 1)
    }
}
