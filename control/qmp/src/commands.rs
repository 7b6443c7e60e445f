//! The commands.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use control_qapi::{
    AddressSpace, BlockDrivers, CapabilitiesArgs, ChardevInfo, CommandInfo, CommandLineOptionInfo,
    CommandLineParameterInfo, CommandLineParameterType, CpuDefinitionInfo, CpuInfoFast,
    CpuInstanceProperties, DataFormat, DeviceOptions, Empty, ErrorClass, Event, HumanArgs, IdArgs,
    KvmInfo, MachineInfo, MemsaveArgs, MigrateSetCapabilitiesArgs, MigrationCapabilityStatus,
    NameInfo, ObjectPropertyInfo, ObjectTypeInfo, OptionArgs, PathArgs, PciInfo, PmemsaveArgs,
    Qapi, QmpError, QomListTypesArgs, QomSetArgs, RingbufReadArgs, RunState, Schema, SendKeyArgs,
    StatusInfo, TargetInfo, TypenameArgs, UuidInfo, Value, VersionInfo, VersionTriple, Vm,
};

use crate::block;
use crate::fds;
use crate::memory::save_memory;

/// How long `send-key` holds the keys if not told.
const HOLD_MS: i64 = 100;

/// Runs a line of the human monitor for a vCPU, and returns what it prints.
pub type Human = dyn Fn(&str, Option<usize>) -> Result<String, QmpError> + Send + Sync;

/// What commands act on.
pub struct Context<'a> {
    /// The machine.
    pub vm: &'a dyn Vm,
    /// For `human-monitor-command`.
    pub human: Option<&'a Human>,
    /// Descriptors that came with the command.
    pub handed: &'a Handed,
}

/// Descriptors that a client sent along, in order. What no command takes is closed when more come.
#[derive(Default, Debug)]
pub struct Handed(Mutex<VecDeque<OwnedFd>>);

impl Handed {
    fn lock(&self) -> MutexGuard<'_, VecDeque<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These, and no others any more.
    pub(crate) fn replace(&self, fds: Vec<OwnedFd>) {
        *self.lock() = fds.into();
    }

    /// The next one.
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        self.lock().pop_front()
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

/// One command.
pub struct CommandDef {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    pub(crate) describe: fn(&mut Schema) -> (String, String),
    pub(crate) run: fn(&Context<'_>, Value) -> Result<Value, QmpError>,
}

impl std::fmt::Debug for CommandDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandDef")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One line of the table: the types give arguments' checks, the answer's form and the schema.
macro_rules! command {
    ($name:literal, $doc:literal, $args:ty => $answer:ty, $run:expr) => {
        CommandDef {
            name: $name,
            doc: $doc,
            describe: |schema| {
                (
                    <$args as Qapi>::describe(schema),
                    <$answer as Qapi>::describe(schema),
                )
            },
            run: |context, arguments| {
                let run: fn(&Context<'_>, $args) -> Result<$answer, QmpError> = $run;
                run(context, <$args as Qapi>::from_json("", arguments)?)
                    .map(|answer| answer.to_json())
            },
        }
    };
}

pub(crate) use command;

/// All commands.
pub fn commands() -> impl Iterator<Item = &'static CommandDef> + Clone {
    let more = block::COMMANDS.iter().chain(fds::COMMANDS);
    COMMANDS.iter().chain(more)
}

/// Those about the machine.
static COMMANDS: &[CommandDef] = &[
    command!("cont", "let the vCPUs go on", Empty => Empty, |c, _| c.vm.cont().map(|()| Empty {})),
    command!("device_add", "plug a device in", DeviceOptions => Empty, |c, a| c.vm.add_device(a).map(|()| Empty {})),
    command!("device_del", "take a device out, or ask the guest to let go of it", IdArgs => Empty, |c, a| c.vm.delete_device(&a.id).map(|()| Empty {})),
    command!("device-list-properties", "properties of a device type", TypenameArgs => Vec<ObjectPropertyInfo>, device_list_properties),
    command!("human-monitor-command", "run a line of the human monitor", HumanArgs => String, human),
    command!("inject-nmi", "send a non-maskable interrupt", Empty => Empty, |c, _| c.vm.inject_nmi().map(|()| Empty {})),
    command!("memsave", "save virtual memory to a file", MemsaveArgs => Empty, |c, a| {
        let space = AddressSpace::Virtual(cpu_index(c.vm, a.cpu_index)?);
        save_memory(c.vm, space, a.val, a.size, &a.filename).map(|()| Empty {})
    }),
    command!("pmemsave", "save physical memory to a file", PmemsaveArgs => Empty, |c, a| {
        save_memory(c.vm, AddressSpace::Physical, a.val, a.size, &a.filename).map(|()| Empty {})
    }),
    command!("qmp_capabilities", "begin the session", CapabilitiesArgs => Empty, |_, _| Ok(Empty {})),
    command!("qom-list", "properties of an object", PathArgs => Vec<ObjectPropertyInfo>, |c, a| {
        c.vm.object_properties(&a.path).ok_or_else(|| not_found(&a.path))
    }),
    command!("migrate-set-capabilities", "what a migration shall do: as there is none, only its events can be on", MigrateSetCapabilitiesArgs => Empty, |_, a| {
        let on = a.capabilities.iter().find(|c| c.state && c.capability != "events");
        on.map_or(Ok(Empty {}), |on| {
            let problem = "is not available: this machine cannot be migrated yet";
            Err(QmpError::generic(format!("Migration capability '{}' {problem}", on.capability)))
        })
    }),
    command!("qom-list-properties", "properties of an object type", TypenameArgs => Vec<ObjectPropertyInfo>, |c, a| {
        c.vm.type_properties(&a.typename).ok_or_else(|| {
            QmpError::new(ErrorClass::DeviceNotFound, format!("Class '{}' not found", a.typename))
        })
    }),
    command!("qom-list-types", "object types", QomListTypesArgs => Vec<ObjectTypeInfo>, qom_list_types),
    command!("qom-set", "set a property of an object: the drive of a device", QomSetArgs => Empty, qom_set),
    command!("query-chardev", "streams", Empty => Vec<ChardevInfo>, |c, _| Ok(c.vm.chardevs())),
    command!("query-command-line-options", "options of the command line", OptionArgs => Vec<CommandLineOptionInfo>, |_, a| command_line_options(a)),
    command!("query-commands", "commands", Empty => Vec<CommandInfo>, |_, _| {
        Ok(commands().map(|command| CommandInfo { name: command.name.to_owned() }).collect())
    }),
    command!("query-cpu-definitions", "CPU models", Empty => Vec<CpuDefinitionInfo>, |c, _| Ok(c.vm.cpu_definitions())),
    command!("query-cpus-fast", "vCPUs", Empty => Vec<CpuInfoFast>, query_cpus_fast),
    command!("query-kvm", "whether KVM is there and used", Empty => KvmInfo, |c, _| {
        let identity = c.vm.identity();
        Ok(KvmInfo { enabled: identity.kvm_enabled, present: identity.kvm_present })
    }),
    command!("query-machines", "machines", Empty => Vec<MachineInfo>, |c, _| Ok(c.vm.machines())),
    command!("query-migrate-capabilities", "what a migration can do: nothing yet", Empty => Vec<MigrationCapabilityStatus>, |_, _| Ok(Vec::new())),
    command!("query-name", "the guest's name", Empty => NameInfo, |c, _| Ok(NameInfo { name: c.vm.identity().name })),
    command!("query-pci", "PCI buses", Empty => Vec<PciInfo>, |c, _| Ok(c.vm.pci())),
    command!("query-qmp-schema", "types of this protocol", Empty => Vec<Value>, |c, _| Ok(schema(c.vm.blocks().drivers()))),
    command!("query-status", "what the machine is doing", Empty => StatusInfo, |c, _| {
        let status = c.vm.status();
        Ok(StatusInfo { running: status == RunState::Running, status })
    }),
    command!("query-target", "the guest's architecture", Empty => TargetInfo, |c, _| {
        Ok(TargetInfo { arch: c.vm.identity().arch.to_owned() })
    }),
    command!("query-uuid", "the machine's UUID", Empty => UuidInfo, |c, _| Ok(UuidInfo { uuid: uuid(&c.vm.identity().uuid) })),
    command!("query-version", "who answers", Empty => VersionInfo, |_, _| Ok(version())),
    command!("quit", "end", Empty => Empty, |c, _| {
        c.vm.quit(0);
        Ok(Empty {})
    }),
    command!("ringbuf-read", "take output out of a ring buffer stream", RingbufReadArgs => String, ringbuf_read),
    command!("send-key", "press keys", SendKeyArgs => Empty, send_key),
    command!("stop", "park the vCPUs", Empty => Empty, |c, _| {
        c.vm.stop();
        Ok(Empty {})
    }),
    command!("system_powerdown", "press the power button", Empty => Empty, |c, _| {
        c.vm.system_powerdown();
        Ok(Empty {})
    }),
    command!("system_reset", "reset the machine", Empty => Empty, |c, _| {
        c.vm.system_reset();
        Ok(Empty {})
    }),
];

/// Runs a command by name.
///
/// # Errors
/// When there is none of that name, the arguments are wrong, or it fails.
pub fn execute(context: &Context<'_>, name: &str, arguments: Value) -> Result<Value, QmpError> {
    match commands().find(|command| command.name == name) {
        Some(command) => (command.run)(context, arguments),
        None => {
            let desc = format!("The command {name} has not been found");
            Err(QmpError::new(ErrorClass::CommandNotFound, desc))
        }
    }
}

/// `query-qmp-schema`, with these drivers for disks.
pub fn schema(drivers: BlockDrivers) -> Vec<Value> {
    let mut schema = Schema::of(drivers);
    for command in commands() {
        let (arguments, answer) = (command.describe)(&mut schema);
        schema.command(command.name, &arguments, &answer);
    }
    Event::describe_all(&mut schema);
    schema.into_entries()
}

/// `query-version`: the QEMU whose contract this is, and who really answers.
pub fn version() -> VersionInfo {
    VersionInfo {
        qemu: VersionTriple {
            major: 10,
            minor: 0,
            micro: 0,
        },
        package: "mimic".to_owned(),
    }
}

fn not_found(name: &str) -> QmpError {
    QmpError::new(
        ErrorClass::DeviceNotFound,
        format!("Device '{name}' not found"),
    )
}

fn cpu_index(vm: &dyn Vm, index: Option<i64>) -> Result<usize, QmpError> {
    let index = index.unwrap_or(0);
    usize::try_from(index)
        .ok()
        .filter(|index| *index < vm.cpus().len())
        .ok_or_else(|| QmpError::generic("Invalid parameter 'cpu-index': expected a CPU number"))
}

fn human(c: &Context<'_>, a: HumanArgs) -> Result<String, QmpError> {
    let cpu = a
        .cpu_index
        .map(|index| cpu_index(c.vm, Some(index)))
        .transpose()?;
    match c.human {
        Some(human) => human(&a.command_line, cpu),
        None => Err(QmpError::generic(
            "there is no human monitor in this process",
        )),
    }
}

fn device_list_properties(
    c: &Context<'_>,
    a: TypenameArgs,
) -> Result<Vec<ObjectPropertyInfo>, QmpError> {
    let types = c.vm.object_types();
    let Some(found) = types.iter().find(|t| t.name == a.typename) else {
        return Err(not_found(&a.typename));
    };
    if found.is_abstract == Some(true) || !is_kind_of(&types, &a.typename, "device") {
        return Err(QmpError::generic(
            "Parameter 'typename' expects a non-abstract device type",
        ));
    }
    c.vm.type_properties(&a.typename)
        .ok_or_else(|| not_found(&a.typename))
}

fn qom_set(c: &Context<'_>, a: QomSetArgs) -> Result<Empty, QmpError> {
    if a.property != "drive" {
        return Err(QmpError::generic(format!(
            "Property '{}' of '{}' cannot be set while the machine is there; only 'drive' can",
            a.property, a.path
        )));
    }
    let node = String::from_json("value", a.value)?;
    c.vm.blocks().set_drive(&a.path, &node).map(|()| Empty {})
}

fn qom_list_types(c: &Context<'_>, a: QomListTypesArgs) -> Result<Vec<ObjectTypeInfo>, QmpError> {
    let types = c.vm.object_types();
    let with_abstract = a.is_abstract == Some(true);
    let wanted = |t: &&ObjectTypeInfo| {
        (with_abstract || t.is_abstract != Some(true))
            && a.implements
                .as_ref()
                .is_none_or(|parent| is_kind_of(&types, &t.name, parent))
    };
    Ok(types.iter().filter(wanted).cloned().collect())
}

fn is_kind_of(types: &[ObjectTypeInfo], name: &str, ancestor: &str) -> bool {
    let mut name = name.to_owned();
    // As many steps as there are types: a circle in the table ends, too.
    for _ in 0..=types.len() {
        if name == ancestor {
            return true;
        }
        match types
            .iter()
            .find(|t| t.name == name)
            .and_then(|t| t.parent.clone())
        {
            Some(parent) => name = parent,
            None => return false,
        }
    }
    false
}

fn query_cpus_fast(c: &Context<'_>, _: Empty) -> Result<Vec<CpuInfoFast>, QmpError> {
    let target = c.vm.identity().arch;
    let info = |cpu: control_qapi::CpuRecord| {
        let id = |name| {
            cpu.props
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, id)| i64::from(*id))
        };
        let props = CpuInstanceProperties {
            node_id: id("node-id"),
            drawer_id: id("drawer-id"),
            book_id: id("book-id"),
            socket_id: id("socket-id"),
            die_id: id("die-id"),
            cluster_id: id("cluster-id"),
            module_id: id("module-id"),
            core_id: id("core-id"),
            thread_id: id("thread-id"),
        };
        CpuInfoFast {
            cpu_index: i64::try_from(cpu.index).unwrap_or(i64::MAX),
            qom_path: cpu.qom_path.clone(),
            thread_id: cpu.thread_id,
            props: (!cpu.props.is_empty()).then_some(props),
            target: target.to_owned(),
        }
    };
    Ok(c.vm.cpus().into_iter().map(info).collect())
}

fn command_line_options(a: OptionArgs) -> Result<Vec<CommandLineOptionInfo>, QmpError> {
    use control_options::PropKind;
    let parameter = |def: &control_options::PropDef| CommandLineParameterInfo {
        name: def.name.to_owned(),
        kind: match def.kind {
            PropKind::Bool => CommandLineParameterType::Boolean,
            PropKind::Size => CommandLineParameterType::Size,
            PropKind::U8
            | PropKind::U16
            | PropKind::U32
            | PropKind::U64
            | PropKind::I32
            | PropKind::I64 => CommandLineParameterType::Number,
            _ => CommandLineParameterType::String,
        },
        help: Some(def.doc.to_owned()),
        default: def.default.map(str::to_owned),
    };
    let found: Vec<_> = control_options::table::TABLE
        .iter()
        .filter(|def| !def.doc.is_empty() && a.option.as_ref().is_none_or(|name| name == def.name))
        .map(|def| CommandLineOptionInfo {
            option: def.name.to_owned(),
            parameters: def.props.iter().map(parameter).collect(),
        })
        .collect();
    match (found.is_empty(), a.option) {
        (true, Some(name)) => Err(QmpError::generic(format!("invalid option name: {name}"))),
        _ => Ok(found),
    }
}

fn send_key(c: &Context<'_>, a: SendKeyArgs) -> Result<Empty, QmpError> {
    let hold = u64::try_from(a.hold_time.unwrap_or(HOLD_MS)).unwrap_or(0);
    c.vm.send_keys(&a.keys, hold).map(|()| Empty {})
}

fn ringbuf_read(c: &Context<'_>, a: RingbufReadArgs) -> Result<String, QmpError> {
    let size = usize::try_from(a.size).ok().filter(|size| *size > 0);
    let size = size.ok_or_else(|| QmpError::generic("size must be greater than zero"))?;
    let data = c.vm.ringbuf_read(&a.device, size)?;
    Ok(match a.format.unwrap_or(DataFormat::Utf8) {
        DataFormat::Utf8 => String::from_utf8_lossy(&data).into_owned(),
        DataFormat::Base64 => base64(&data),
    })
}

/// RFC 4648, section 4.
fn base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for group in data.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for at in 0..4 {
            let digit = (bits >> (18 - 6 * at)) & 63;
            let shown = if at <= group.len() {
                DIGITS.get(digit as usize).copied().unwrap_or(b'=')
            } else {
                b'='
            };
            out.push(char::from(shown));
        }
    }
    out
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
    groups
        .map(|range| hex.get(range).unwrap_or_default().to_owned())
        .join("-")
}
