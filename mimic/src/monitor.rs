//! The machine as QMP and HMP see it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_char::Chardev;
use control_options::{Opts, Topology};
use control_qapi::{
    AddressSpace, Blocks, ChardevInfo, CpuDefinitionInfo, CpuRecord, DeviceOptions, ErrorClass,
    IdentityInfo, InfoTopic, Instruction, IoThreadInfo, Key, MachineInfo, ObjectPropertyInfo,
    ObjectTypeInfo, PciInfo, Qapi as _, QmpError, RunState, Vm,
};
use device_input::{Input, InputEvent};
use hw_core::Dma;
use iced_x86::{Decoder, DecoderOptions, Formatter as _, IntelFormatter};
use machine_core::Board;
use runtime::{Handle, Timer, time};

use crate::blocks::BlockControl;
use crate::entry::sentence;
use crate::guests::Guest;
use crate::hotplug::HotPlugControl;
use crate::introspect;
use crate::life::Ending;

mod report;

/// Longest x86 instruction (SDM vol. 2, 2.3.11).
const INSTRUCTION_MAX: usize = 15;
const NS_PER_MS: u64 = 1_000_000;

/// What a monitor needs to know of a machine beside the board.
pub(crate) struct Facts {
    /// What kind of guest it is.
    pub(crate) guest: &'static Guest,
    /// Name, UUID and the like.
    pub(crate) identity: IdentityInfo,
    /// The CPUs' arrangement.
    pub(crate) topology: Topology,
    /// Their model.
    pub(crate) cpu_model: String,
    /// All streams.
    pub(crate) chardevs: Vec<Arc<Chardev>>,
    /// Threads that take the requests of disks: name, and the host's number.
    pub(crate) io_threads: Vec<(String, i32)>,
    /// All disks.
    pub(crate) blocks: Arc<BlockControl>,
    /// Plugs devices in and out.
    pub(crate) hot_plug: Arc<HotPlugControl>,
}

/// The machine behind the monitors.
pub(crate) struct Monitored {
    board: Arc<Board>,
    facts: Facts,
    main_loop: Handle,
    ending: Arc<Ending>,
    /// Keys that `sendkey` holds down, and what releases them.
    held: Arc<Mutex<Vec<device_input::Key>>>,
    release: Mutex<Option<Timer>>,
}

impl Monitored {
    pub(crate) fn new(
        board: Arc<Board>,
        facts: Facts,
        main_loop: Handle,
        ending: Arc<Ending>,
    ) -> Self {
        Self {
            board,
            facts,
            main_loop,
            ending,
            held: Arc::default(),
            release: Mutex::default(),
        }
    }

    /// Reads RAM and ROM; never a device's registers.
    fn read_physical(&self, address: u64, buffer: &mut [u8]) -> Result<(), QmpError> {
        Dma::new(self.board.machine.fabric().memory.clone())
            .read(address, buffer)
            .map_err(|e| QmpError::generic(format!("Cannot access memory: {e}")))
    }

    fn translate(&self, cpu: usize, address: u64) -> Result<u64, QmpError> {
        let found = self.with_cpu(cpu, |cpu| cpu.debug_translate(address))?;
        found
            .ok_or_else(|| QmpError::generic(format!("Virtual address {address:#x} is not mapped")))
    }

    /// Runs `f` on a CPU, parked for as long as it takes.
    fn with_cpu<R>(
        &self,
        index: usize,
        f: impl FnOnce(&mut dyn accel_core::Vcpu) -> R,
    ) -> Result<R, QmpError> {
        self.board
            .machine
            .while_parked(|cpus| cpus.get(index).and_then(|cpu| cpu.with(f)))
            .ok_or_else(|| QmpError::generic(format!("There is no CPU {index}")))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn release(held: &Mutex<Vec<device_input::Key>>, input: &Input) {
    for key in std::mem::take(&mut *lock(held)).into_iter().rev() {
        input.send(InputEvent::Key { key, down: false });
    }
}

/// Width of code, from QEMU's line for CS in `info registers`.
fn code_bits(registers: &str) -> u32 {
    match () {
        () if registers.contains("CS64") => 64,
        () if registers.contains("CS32") => 32,
        () => 16,
    }
}

fn device_key(key: Key) -> Result<device_input::Key, QmpError> {
    match key {
        Key::Number(number) => u8::try_from(number)
            .ok()
            .and_then(device_input::Key::by_number)
            .ok_or_else(|| {
                QmpError::generic(format!("There is no key with the number {number:#x}"))
            }),
        Key::Code(code) => device_input::Key::by_name(code.name())
            .ok_or_else(|| QmpError::generic(format!("The keyboard has no key '{}'", code.name()))),
    }
}

impl Vm for Monitored {
    fn identity(&self) -> IdentityInfo {
        self.facts.identity.clone()
    }

    fn status(&self) -> RunState {
        self.board.machine.state()
    }

    fn stop(&self) {
        self.board.machine.stop(RunState::Paused);
    }

    fn cont(&self) -> Result<(), QmpError> {
        match self.status() {
            RunState::Shutdown | RunState::InternalError => Err(QmpError::generic(
                "Resetting the Virtual Machine is required",
            )),
            // A sleeping guest is woken by its devices.
            RunState::Suspended => Ok(()),
            _ => {
                self.board.machine.start();
                Ok(())
            }
        }
    }

    fn quit(&self, status: i32) {
        self.ending.ask("host-qmp-quit", status);
    }

    fn system_reset(&self) {
        let machine = self.board.machine.clone();
        self.main_loop.post(move || machine.reset(false));
    }

    fn system_powerdown(&self) {
        let machine = self.board.machine.clone();
        self.main_loop.post(move || {
            if !machine.press_power_button() {
                log::info!("system_powerdown: the guest is not listening to its power button");
            }
        });
    }

    fn inject_nmi(&self) -> Result<(), QmpError> {
        if !self.board.nmi() {
            return Err(QmpError::generic("machine does not provide NMIs"));
        }
        Ok(())
    }

    fn send_keys(&self, keys: &[Key], hold_ms: u64) -> Result<(), QmpError> {
        let Some(input) = self.board.input.as_ref().cloned() else {
            return Err(QmpError::generic("The machine has no keyboard"));
        };
        let keys = keys
            .iter()
            .map(|key| device_key(*key))
            .collect::<Result<Vec<_>, _>>()?;
        // Keys of the command before are not held through this one.
        release(&self.held, &input);
        for key in &keys {
            if !input.send(InputEvent::Key {
                key: *key,
                down: true,
            }) {
                return Err(QmpError::generic(
                    "The guest does not take keys: its keyboard is full",
                ));
            }
        }
        *lock(&self.held) = keys;
        let held = Arc::clone(&self.held);
        let timer = self.main_loop.timer(move || release(&held, &input));
        timer.arm(time::monotonic_ns().saturating_add(hold_ms.saturating_mul(NS_PER_MS)));
        *lock(&self.release) = Some(timer);
        Ok(())
    }

    fn cpus(&self) -> Vec<CpuRecord> {
        let t = &self.facts.topology;
        let cpus = self.board.machine.cpus();
        (0u32..)
            .zip(&cpus)
            .map(|(n, cpu)| {
                let (threads, cores, dies) = (t.threads.max(1), t.cores.max(1), t.dies.max(1));
                let mut props = vec![("socket-id", n / threads / cores / dies)];
                if dies > 1 {
                    props.push(("die-id", n / threads / cores % dies));
                }
                props.push(("core-id", n / threads % cores));
                props.push(("thread-id", n % threads));
                CpuRecord {
                    index: n as usize,
                    qom_path: format!("/machine/unattached/device[{n}]"),
                    thread_id: i64::from(cpu.thread_id()),
                    typename: self.facts.guest.type_of_cpu(&self.facts.cpu_model),
                    props,
                    halted: cpu.with(|cpu| cpu.is_halted()).unwrap_or(false),
                    pc: None,
                }
            })
            .collect()
    }

    fn read_memory(
        &self,
        space: AddressSpace,
        address: u64,
        buffer: &mut [u8],
    ) -> Result<(), QmpError> {
        let AddressSpace::Virtual(cpu) = space else {
            return self.read_physical(address, buffer);
        };
        let mut at = address;
        let mut rest = buffer;
        while !rest.is_empty() {
            let in_page = hw_memory::PAGE_SIZE - at % hw_memory::PAGE_SIZE;
            let len = rest
                .len()
                .min(usize::try_from(in_page).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at_mut(len);
            let physical = self.translate(cpu, at)?;
            self.read_physical(physical, now)?;
            at = at.wrapping_add(len as u64);
            rest = later;
        }
        Ok(())
    }

    fn register(&self, cpu: usize, name: &str) -> Option<u64> {
        let registers = self.with_cpu(cpu, |cpu| cpu.registers()).ok()?;
        let wanted = match name {
            "pc" => "rip",
            "sp" => "rsp",
            "fp" => "rbp",
            "eflags" => "rflags",
            name => name,
        };
        let (_, value) = registers
            .into_iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(wanted))?;
        // Wider registers show their low half.
        Some(value as u64)
    }

    fn disassemble(&self, cpu: usize, address: u64, code: &[u8]) -> Option<Instruction> {
        let registers = self.with_cpu(cpu, |cpu| cpu.describe()).ok()?;
        let mut decoder =
            Decoder::with_ip(code_bits(&registers), code, address, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            let byte = code.first()?;
            return Some(Instruction {
                text: format!("(bad) {byte:02x}"),
                len: 1,
            });
        }
        let mut text = String::new();
        IntelFormatter::new().format(&instruction, &mut text);
        Some(Instruction {
            text,
            len: instruction.len(),
        })
    }

    fn max_instruction_len(&self) -> usize {
        INSTRUCTION_MAX
    }

    fn info(&self, topic: InfoTopic, cpu: usize, detail: &str) -> Result<String, QmpError> {
        let fabric = self.board.machine.fabric();
        let absent = || {
            QmpError::generic(format!(
                "This machine has nothing to show for 'info {}'",
                topic.name()
            ))
        };
        match topic {
            InfoTopic::Registers => self.with_cpu(cpu, |cpu| cpu.describe()),
            InfoTopic::Mem | InfoTopic::Tlb | InfoTopic::Jit => self
                .with_cpu(cpu, |cpu| cpu.report(topic.name()))?
                .ok_or_else(absent),
            InfoTopic::Mtree => Ok(report::mtree(fabric, detail.contains("-f"))),
            InfoTopic::Qtree => Ok(report::qtree(fabric)),
            InfoTopic::Pic | InfoTopic::Irq | InfoTopic::Lapic => {
                // Reading a CPU brings the models of controllers that the kernel has up to date: its
                // own local APIC, and with the first CPU's the chips. A machine may have no CPU.
                let of = if topic == InfoTopic::Lapic { cpu } else { 0 };
                let _ = self.with_cpu(of, |cpu| cpu.registers());
                self.board.info(topic.name(), cpu).ok_or_else(absent)
            }
        }
    }

    fn machines(&self) -> Vec<MachineInfo> {
        introspect::machines(self.facts.guest)
    }

    fn cpu_definitions(&self) -> Vec<CpuDefinitionInfo> {
        introspect::cpu_definitions(self.facts.guest)
    }

    fn chardevs(&self) -> Vec<ChardevInfo> {
        self.facts
            .chardevs
            .iter()
            .map(|chardev| ChardevInfo {
                label: chardev.id().to_owned(),
                filename: chardev.filename(),
                frontend_open: chardev.is_used(),
            })
            .collect()
    }

    fn io_threads(&self) -> Vec<IoThreadInfo> {
        let threads = self.facts.io_threads.iter();
        let thread = |(id, thread_id): &(String, i32)| IoThreadInfo {
            id: id.clone(),
            thread_id: i64::from(*thread_id),
            poll_max_ns: 0,
            poll_grow: 0,
            poll_shrink: 0,
            aio_max_batch: 0,
        };
        threads.map(thread).collect()
    }

    fn blocks(&self) -> &dyn Blocks {
        self.facts.blocks.as_ref()
    }

    fn add_device(&self, options: DeviceOptions) -> Result<(), QmpError> {
        let opts = Opts::from_json("device_add", &options.to_json());
        let opts = opts.map_err(|error| QmpError::generic(error.to_string()))?;
        let added = self.facts.hot_plug.add(&opts);
        added.map_err(|error| QmpError::generic(sentence(&error)))
    }

    fn delete_device(&self, id: &str) -> Result<(), QmpError> {
        let path = id.strip_prefix("/machine/peripheral/").unwrap_or(id);
        if self.board.machine.fabric().find(path).is_none() {
            let problem = format!("Device '{id}' not found");
            return Err(QmpError::new(ErrorClass::DeviceNotFound, problem));
        }
        let deleted = self.facts.hot_plug.delete(path);
        deleted.map_err(|error| QmpError::generic(sentence(&error)))
    }

    fn pci(&self) -> Vec<PciInfo> {
        self.board.pci.as_ref().map(report::pci).unwrap_or_default()
    }

    fn object_types(&self) -> Vec<ObjectTypeInfo> {
        introspect::object_types(self.facts.guest)
    }

    fn type_properties(&self, type_name: &str) -> Option<Vec<ObjectPropertyInfo>> {
        introspect::type_properties(self.facts.guest, type_name)
    }

    fn object_properties(&self, path: &str) -> Option<Vec<ObjectPropertyInfo>> {
        let child = |name: String, kind: &str| ObjectPropertyInfo {
            name,
            kind: format!("child<{kind}>"),
            description: None,
            default_value: None,
        };
        match path.trim_end_matches('/') {
            "" => Some(vec![
                child("machine".to_owned(), "machine"),
                child("chardevs".to_owned(), "container"),
            ]),
            "/chardevs" => {
                let chardevs = self.facts.chardevs.iter();
                Some(
                    chardevs
                        .map(|c| child(c.id().to_owned(), "chardev"))
                        .collect(),
                )
            }
            "/machine" => {
                let folders = ["unattached", "peripheral"];
                Some(
                    folders
                        .map(|name| child(name.to_owned(), "container"))
                        .to_vec(),
                )
            }
            "/machine/unattached" => {
                let kind = self.facts.guest.type_of_cpu(&self.facts.cpu_model);
                let cpus = self.board.machine.cpus().len();
                Some(
                    (0..cpus)
                        .map(|n| child(format!("device[{n}]"), &kind))
                        .collect(),
                )
            }
            "/machine/peripheral" => {
                let parts = self.board.machine.fabric().parts();
                Some(
                    parts
                        .iter()
                        .map(|part| child(part.path.clone(), part.class))
                        .collect(),
                )
            }
            path => {
                let name = path.strip_prefix("/machine/peripheral/")?;
                let part = self.board.machine.fabric().find(name)?;
                introspect::type_properties(self.facts.guest, part.class)
            }
        }
    }

    fn ringbuf_read(&self, device: &str, size: usize) -> Result<Vec<u8>, QmpError> {
        let Some(chardev) = self.facts.chardevs.iter().find(|c| c.id() == device) else {
            return Err(QmpError::generic(format!("Device '{device}' not found")));
        };
        chardev
            .ringbuf_read(size)
            .ok_or_else(|| QmpError::generic(format!("{device} is not a ringbuf device")))
    }
}

#[cfg(test)]
mod tests {
    use super::code_bits;

    #[test]
    fn the_width_of_code_is_read_from_the_line_of_cs() {
        assert_eq!(
            code_bits("CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]"),
            64
        );
        assert_eq!(
            code_bits("CS =0008 00000000 ffffffff 00cf9b00 DPL=0 CS32 [-RA]"),
            32
        );
        assert_eq!(code_bits("CS =f000 ffff0000 0000ffff 00009b00"), 16);
    }
}
