//! A machine that records what is asked of it, for the tests of the monitors.

use std::sync::{Arc, Mutex, PoisonError};

mod blocks;

use crate::{
    AddressSpace, Blocks, ChardevInfo, CpuDefinitionInfo, CpuRecord, DeviceOptions, Event,
    EventBus, IdentityInfo, InfoTopic, Instruction, IoThreadInfo, Key, MachineInfo,
    ObjectPropertyInfo, ObjectTypeInfo, PciDeviceClass, PciDeviceId, PciDeviceInfo, PciInfo,
    PciMemoryRegion, QmpError, RunState, ShutdownCause, Timestamp, Vm,
};

/// 64 KiB of memory whose bytes count up, two vCPUs, no more.
#[derive(Debug)]
pub struct FakeVm {
    /// Where its events go.
    pub events: Arc<EventBus>,
    calls: Mutex<Vec<String>>,
    state: Mutex<RunState>,
}

const MEMORY: u64 = 0x10000;

impl FakeVm {
    /// A running machine.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            events: EventBus::new(|| Timestamp {
                seconds: 1,
                microseconds: 2,
            }),
            calls: Mutex::default(),
            state: Mutex::new(RunState::Running),
        })
    }

    /// What was asked so far.
    pub fn calls(&self) -> Vec<String> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, call: impl Into<String>) {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call.into());
    }

    fn enter(&self, state: RunState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Vm for FakeVm {
    fn identity(&self) -> IdentityInfo {
        IdentityInfo {
            name: Some("fake".into()),
            arch: "x86_64",
            kvm_present: true,
            ..IdentityInfo::default()
        }
    }

    fn status(&self) -> RunState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.note("stop");
        self.enter(RunState::Paused);
        self.events.emit(&Event::Stop {});
    }

    fn cont(&self) -> Result<(), QmpError> {
        self.note("cont");
        self.enter(RunState::Running);
        self.events.emit(&Event::Resume {});
        Ok(())
    }

    fn quit(&self, status: i32) {
        self.note(format!("quit {status}"));
    }

    fn system_reset(&self) {
        self.note("system_reset");
        self.events.emit(&Event::Reset {
            guest: false,
            reason: ShutdownCause::HostQmpSystemReset,
        });
    }

    fn system_powerdown(&self) {
        self.note("system_powerdown");
        self.events.emit(&Event::Powerdown {});
    }

    fn inject_nmi(&self) -> Result<(), QmpError> {
        self.note("nmi");
        Ok(())
    }

    fn send_keys(&self, keys: &[Key], hold_ms: u64) -> Result<(), QmpError> {
        let names = keys.iter().map(|key| match key {
            Key::Number(n) => n.to_string(),
            Key::Code(code) => code.name().to_owned(),
        });
        self.note(format!(
            "keys {} {hold_ms}",
            names.collect::<Vec<_>>().join("+")
        ));
        Ok(())
    }

    fn cpus(&self) -> Vec<CpuRecord> {
        let cpu = |index| CpuRecord {
            index,
            qom_path: format!("/machine/unattached/device[{index}]"),
            thread_id: 100,
            typename: "qemu64-x86_64-cpu".into(),
            props: vec![("socket-id", 0), ("core-id", 0), ("thread-id", 0)],
            halted: false,
            pc: Some(0xfff0),
        };
        vec![cpu(0), cpu(1)]
    }

    fn read_memory(
        &self,
        _: AddressSpace,
        address: u64,
        buffer: &mut [u8],
    ) -> Result<(), QmpError> {
        let end = address
            .checked_add(buffer.len() as u64)
            .filter(|end| *end <= MEMORY);
        if end.is_none() {
            return Err(QmpError::generic(format!(
                "Cannot access memory at {address:#x}"
            )));
        }
        for (byte, at) in buffer.iter_mut().zip(address..) {
            *byte = at.to_le_bytes()[0];
        }
        Ok(())
    }

    fn register(&self, cpu: usize, name: &str) -> Option<u64> {
        match (cpu, name) {
            (0, "rip" | "pc" | "eip") => Some(0x100),
            (1, "rip" | "pc" | "eip") => Some(0x200),
            (_, "rax") => Some(u64::MAX),
            _ => None,
        }
    }

    fn disassemble(&self, _: usize, _: u64, code: &[u8]) -> Option<Instruction> {
        let byte = code.first()?;
        Some(Instruction {
            text: format!("op{byte:02x}"),
            len: 3.min(code.len()),
        })
    }

    fn max_instruction_len(&self) -> usize {
        15
    }

    fn info(&self, topic: InfoTopic, cpu: usize, detail: &str) -> Result<String, QmpError> {
        match topic {
            InfoTopic::Jit => Err(QmpError::generic(
                "JIT information is only available with accel=tcg",
            )),
            _ => Ok(format!("{} of {cpu} {detail}\n", topic.name())),
        }
    }

    fn machines(&self) -> Vec<MachineInfo> {
        vec![MachineInfo {
            name: "pc-q35-10.0".into(),
            alias: Some("q35".into()),
            is_default: None,
            cpu_max: 288,
            hotpluggable_cpus: true,
            numa_mem_supported: false,
            deprecated: false,
            default_cpu_type: Some("qemu64-x86_64-cpu".into()),
            default_ram_id: Some("pc.ram".into()),
            acpi: true,
        }]
    }

    fn cpu_definitions(&self) -> Vec<CpuDefinitionInfo> {
        vec![CpuDefinitionInfo {
            name: "max".into(),
            migration_safe: Some(false),
            is_static: false,
            unavailable_features: Some(Vec::new()),
            typename: "max-x86_64-cpu".into(),
            alias_of: None,
            deprecated: false,
        }]
    }

    fn chardevs(&self) -> Vec<ChardevInfo> {
        vec![ChardevInfo {
            label: "serial0".into(),
            filename: "pty:/dev/pts/3".into(),
            frontend_open: true,
        }]
    }

    fn io_threads(&self) -> Vec<IoThreadInfo> {
        vec![IoThreadInfo {
            id: "io0".into(),
            thread_id: 7,
            poll_max_ns: 0,
            poll_grow: 0,
            poll_shrink: 0,
            aio_max_batch: 0,
        }]
    }

    fn blocks(&self) -> &dyn Blocks {
        self
    }

    fn add_device(&self, options: DeviceOptions) -> Result<(), QmpError> {
        self.note(format!("device_add {}", crate::Qapi::to_json(&options)));
        Ok(())
    }

    fn delete_device(&self, id: &str) -> Result<(), QmpError> {
        self.note(format!("device_del {id}"));
        Ok(())
    }

    fn pci(&self) -> Vec<PciInfo> {
        let region = PciMemoryRegion {
            bar: 0,
            kind: "io".into(),
            address: 0xc000,
            size: 32,
            prefetch: None,
            mem_type_64: None,
        };
        vec![PciInfo {
            bus: 0,
            devices: vec![PciDeviceInfo {
                bus: 0,
                slot: 2,
                function: 0,
                class_info: PciDeviceClass {
                    desc: Some("SCSI controller".into()),
                    class: 0x100,
                },
                id: PciDeviceId {
                    device: 0x1001,
                    vendor: 0x1af4,
                    subsystem: Some(2),
                    subsystem_vendor: Some(0x1af4),
                },
                irq: Some(11),
                irq_pin: 1,
                qdev_id: "disk0".into(),
                regions: vec![region],
            }],
        }]
    }

    fn object_types(&self) -> Vec<ObjectTypeInfo> {
        let of = |name: &str, parent: &str, is_abstract| ObjectTypeInfo {
            name: name.into(),
            is_abstract,
            parent: Some(parent.into()),
        };
        vec![
            of("device", "object", Some(true)),
            of("isa-device", "device", Some(true)),
            of("isa-serial", "isa-device", None),
            of("rng-random", "object", None),
        ]
    }

    fn type_properties(&self, type_name: &str) -> Option<Vec<ObjectPropertyInfo>> {
        (type_name == "isa-serial").then(|| {
            vec![ObjectPropertyInfo {
                name: "chardev".into(),
                kind: "str".into(),
                description: Some("ID of a chardev to use as a backend".into()),
                default_value: None,
            }]
        })
    }

    fn object_properties(&self, path: &str) -> Option<Vec<ObjectPropertyInfo>> {
        (path == "/machine").then(Vec::new)
    }

    fn ringbuf_read(&self, device: &str, size: usize) -> Result<Vec<u8>, QmpError> {
        match device {
            "ring0" => Ok(b"ring\xff".iter().copied().take(size).collect()),
            _ => Err(QmpError::generic(format!("Device '{device}' not found"))),
        }
    }
}
