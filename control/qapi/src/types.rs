//! The data types of the commands, in QMP's names.

use serde_json::{Map, Value, json};

use crate::error::QmpError;
use crate::schema::{Member, Schema};
use crate::value::{Qapi, join, no_more_members, object_members};
use crate::{qapi_enum, qapi_struct};

pub use crate::events::{GuestPanicAction, ShutdownCause, WatchdogAction};

mod block;
mod fds;
mod keys;

pub use block::*;
pub use fds::*;
pub use keys::QKeyCode;

qapi_struct! {
    /// No arguments, or no answer.
    pub struct Empty {}
}

qapi_struct! {
    /// Three numbers.
    pub struct VersionTriple {
        /// First.
        major: i64 = "major",
        /// Second.
        minor: i64 = "minor",
        /// Third.
        micro: i64 = "micro",
    }
}

qapi_struct! {
    /// `query-version`.
    pub struct VersionInfo {
        /// The QEMU whose contract this is.
        qemu: VersionTriple = "qemu",
        /// Who really answers.
        package: String = "package",
    }
}

qapi_enum! {
    /// What the machine is doing.
    pub enum RunState {
        /// A debugger has stopped it.
        Debug = "debug",
        /// It waits for incoming state.
        Inmigrate = "inmigrate",
        /// An error stopped it.
        InternalError = "internal-error",
        /// A disk error stopped it.
        IoError = "io-error",
        /// A monitor stopped it.
        Paused = "paused",
        /// Its state has gone elsewhere.
        Postmigrate = "postmigrate",
        /// It was started with `-S`.
        Prelaunch = "prelaunch",
        /// Its state is about to go elsewhere.
        FinishMigrate = "finish-migrate",
        /// State is being loaded.
        RestoreVm = "restore-vm",
        /// It runs.
        Running = "running",
        /// State is being saved.
        SaveVm = "save-vm",
        /// It has powered off.
        Shutdown = "shutdown",
        /// It sleeps in S3.
        Suspended = "suspended",
        /// A watchdog stopped it.
        Watchdog = "watchdog",
        /// It crashed.
        GuestPanicked = "guest-panicked",
        /// It is in replication.
        Colo = "colo",
    }
}

qapi_struct! {
    /// `query-status`.
    pub struct StatusInfo {
        /// Whether the vCPUs run.
        running: bool = "running",
        /// In more detail.
        status: RunState = "status",
    }
}

qapi_struct! {
    /// A command's name.
    pub struct CommandInfo {
        /// It.
        name: String = "name",
    }
}

qapi_struct! {
    /// `query-name`.
    pub struct NameInfo {
        /// If it has one.
        name: Option<String> = "name",
    }
}

qapi_struct! {
    /// `query-uuid`.
    pub struct UuidInfo {
        /// All zeros if none was given.
        uuid: String = "UUID",
    }
}

qapi_struct! {
    /// `query-kvm`.
    pub struct KvmInfo {
        /// In use.
        enabled: bool = "enabled",
        /// Usable on this host.
        present: bool = "present",
    }
}

qapi_struct! {
    /// `query-target`.
    pub struct TargetInfo {
        /// The guest's architecture.
        arch: String = "arch",
    }
}

/// What does not change while the machine lives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdentityInfo {
    /// `-name`.
    pub name: Option<String>,
    /// `-uuid`.
    pub uuid: [u8; 16],
    /// `x86_64`, `aarch64`, `ppc64`, `s390x`.
    pub arch: &'static str,
    /// KVM runs the machine.
    pub kvm_enabled: bool,
    /// KVM could.
    pub kvm_present: bool,
}

qapi_struct! {
    /// Where a vCPU is in the topology.
    pub struct CpuInstanceProperties {
        /// NUMA node.
        node_id: Option<i64> = "node-id",
        /// Drawer.
        drawer_id: Option<i64> = "drawer-id",
        /// Book.
        book_id: Option<i64> = "book-id",
        /// Socket.
        socket_id: Option<i64> = "socket-id",
        /// Die.
        die_id: Option<i64> = "die-id",
        /// Cluster.
        cluster_id: Option<i64> = "cluster-id",
        /// Module.
        module_id: Option<i64> = "module-id",
        /// Core.
        core_id: Option<i64> = "core-id",
        /// Thread.
        thread_id: Option<i64> = "thread-id",
    }
}

qapi_struct! {
    /// One vCPU of `query-cpus-fast`.
    pub struct CpuInfoFast {
        /// Its number.
        cpu_index: i64 = "cpu-index",
        /// Its object.
        qom_path: String = "qom-path",
        /// Its thread.
        thread_id: i64 = "thread-id",
        /// Its place.
        props: Option<CpuInstanceProperties> = "props",
        /// The guest's architecture.
        target: String = "target",
    }
}

qapi_struct! {
    /// One machine of `query-machines`.
    pub struct MachineInfo {
        /// Its name.
        name: String = "name",
        /// Another name.
        alias: Option<String> = "alias",
        /// What is taken if none is named.
        is_default: Option<bool> = "is-default",
        /// Most vCPUs.
        cpu_max: i64 = "cpu-max",
        /// Whether vCPUs can be added while it runs.
        hotpluggable_cpus: bool = "hotpluggable-cpus",
        /// Whether `-numa mem=` works.
        numa_mem_supported: bool = "numa-mem-supported",
        /// Whether it will go away.
        deprecated: bool = "deprecated",
        /// The CPU type taken if none is named.
        default_cpu_type: Option<String> = "default-cpu-type",
        /// The id of its memory.
        default_ram_id: Option<String> = "default-ram-id",
        /// Whether it has ACPI.
        acpi: bool = "acpi",
    }
}

qapi_struct! {
    /// One model of `query-cpu-definitions`.
    pub struct CpuDefinitionInfo {
        /// Its name.
        name: String = "name",
        /// Whether state can move between hosts with it.
        migration_safe: Option<bool> = "migration-safe",
        /// Whether it is the same on every host.
        is_static: bool = "static",
        /// Its features that this host lacks.
        unavailable_features: Option<Vec<String>> = "unavailable-features",
        /// Its object type.
        typename: String = "typename",
        /// The model it stands for.
        alias_of: Option<String> = "alias-of",
        /// Whether it will go away.
        deprecated: bool = "deprecated",
    }
}

qapi_struct! {
    /// One stream of `query-chardev`.
    pub struct ChardevInfo {
        /// Its id.
        label: String = "label",
        /// What it is.
        filename: String = "filename",
        /// Whether a device uses it.
        frontend_open: bool = "frontend-open",
    }
}

qapi_struct! {
    /// A type of `qom-list-types`.
    pub struct ObjectTypeInfo {
        /// Its name.
        name: String = "name",
        /// Whether there are only objects of its children.
        is_abstract: Option<bool> = "abstract",
        /// What it is a kind of.
        parent: Option<String> = "parent",
    }
}

qapi_struct! {
    /// A property of `qom-list` and `device-list-properties`.
    pub struct ObjectPropertyInfo {
        /// Its name.
        name: String = "name",
        /// Its type.
        kind: String = "type",
        /// What it is for.
        description: Option<String> = "description",
        /// What it is if not given.
        default_value: Option<Value> = "default-value",
    }
}

qapi_struct! {
    /// What kind of function.
    pub struct PciDeviceClass {
        /// In words.
        desc: Option<String> = "desc",
        /// Base class and subclass.
        class: i64 = "class",
    }
}

qapi_struct! {
    /// Who made it.
    pub struct PciDeviceId {
        /// Device.
        device: i64 = "device",
        /// Vendor.
        vendor: i64 = "vendor",
        /// Subsystem.
        subsystem: Option<i64> = "subsystem",
        /// Subsystem's vendor.
        subsystem_vendor: Option<i64> = "subsystem-vendor",
    }
}

qapi_struct! {
    /// A base address register.
    pub struct PciMemoryRegion {
        /// Which.
        bar: i64 = "bar",
        /// `io` or `memory`.
        kind: String = "type",
        /// Where.
        address: i64 = "address",
        /// Bytes.
        size: i64 = "size",
        /// Whether reads have no side effects.
        prefetch: Option<bool> = "prefetch",
        /// Whether it may lie above 4G.
        mem_type_64: Option<bool> = "mem_type_64",
    }
}

qapi_struct! {
    /// A function.
    pub struct PciDeviceInfo {
        /// Its bus.
        bus: i64 = "bus",
        /// Its slot.
        slot: i64 = "slot",
        /// Its number in the slot.
        function: i64 = "function",
        /// What it is.
        class_info: PciDeviceClass = "class_info",
        /// Who made it.
        id: PciDeviceId = "id",
        /// The line that firmware assigned.
        irq: Option<i64> = "irq",
        /// 0 for none, 1 for INTA.
        irq_pin: i64 = "irq_pin",
        /// Its id.
        qdev_id: String = "qdev_id",
        /// Its registers.
        regions: Vec<PciMemoryRegion> = "regions",
    }
}

qapi_struct! {
    /// A bus of `query-pci`.
    pub struct PciInfo {
        /// Its number.
        bus: i64 = "bus",
        /// What is on it.
        devices: Vec<PciDeviceInfo> = "devices",
    }
}

qapi_enum! {
    /// What an option's parameter takes.
    pub enum CommandLineParameterType {
        /// Text.
        String = "string",
        /// `on` or `off`.
        Boolean = "boolean",
        /// A number.
        Number = "number",
        /// A size with a suffix.
        Size = "size",
    }
}

qapi_struct! {
    /// A parameter of an option.
    pub struct CommandLineParameterInfo {
        /// Its name.
        name: String = "name",
        /// What it takes.
        kind: CommandLineParameterType = "type",
        /// What it is for.
        help: Option<String> = "help",
        /// What it is if not given.
        default: Option<String> = "default",
    }
}

qapi_struct! {
    /// An option of the command line.
    pub struct CommandLineOptionInfo {
        /// Its name, without the dash.
        option: String = "option",
        /// Its parameters.
        parameters: Vec<CommandLineParameterInfo> = "parameters",
    }
}

qapi_struct! {
    /// Arguments of `query-command-line-options`.
    pub struct OptionArgs {
        /// Only this one.
        option: Option<String> = "option",
    }
}

qapi_struct! {
    /// What a migration can do.
    pub struct MigrationCapabilityStatus {
        /// Its name.
        capability: String = "capability",
        /// Whether it is switched on.
        state: bool = "state",
    }
}

qapi_struct! {
    /// Arguments of `migrate-set-capabilities`.
    pub struct MigrateSetCapabilitiesArgs {
        /// What shall be on or off.
        capabilities: Vec<MigrationCapabilityStatus> = "capabilities",
    }
}

qapi_enum! {
    /// What a session can agree on.
    pub enum QmpCapability {
        /// Commands that overtake others.
        Oob = "oob",
    }
}

qapi_struct! {
    /// Arguments of `qmp_capabilities`.
    pub struct CapabilitiesArgs {
        /// What the client wants.
        enable: Option<Vec<QmpCapability>> = "enable",
    }
}

qapi_struct! {
    /// Arguments of `human-monitor-command`.
    pub struct HumanArgs {
        /// The line.
        command_line: String = "command-line",
        /// The vCPU it is about.
        cpu_index: Option<i64> = "cpu-index",
    }
}

qapi_struct! {
    /// Arguments of `memsave`.
    pub struct MemsaveArgs {
        /// First address.
        val: u64 = "val",
        /// Bytes.
        size: u64 = "size",
        /// Where to.
        filename: String = "filename",
        /// Whose addresses.
        cpu_index: Option<i64> = "cpu-index",
    }
}

qapi_struct! {
    /// Arguments of `pmemsave`.
    pub struct PmemsaveArgs {
        /// First address.
        val: u64 = "val",
        /// Bytes.
        size: u64 = "size",
        /// Where to.
        filename: String = "filename",
    }
}

qapi_struct! {
    /// Arguments of `qom-list-types`.
    pub struct QomListTypesArgs {
        /// Only kinds of this.
        implements: Option<String> = "implements",
        /// Also those without objects of their own.
        is_abstract: Option<bool> = "abstract",
    }
}

qapi_struct! {
    /// Arguments of `device-list-properties` and `qom-list-properties`.
    pub struct TypenameArgs {
        /// Which.
        typename: String = "typename",
    }
}

qapi_struct! {
    /// Arguments of `qom-set`.
    pub struct QomSetArgs {
        /// The object.
        path: String = "path",
        /// Which of its properties.
        property: String = "property",
        /// Its new value.
        value: Value = "value",
    }
}

qapi_struct! {
    /// Arguments of `qom-list`.
    pub struct PathArgs {
        /// Which.
        path: String = "path",
    }
}

qapi_enum! {
    /// How bytes are written as text.
    pub enum DataFormat {
        /// As they are.
        Utf8 = "utf8",
        /// In base 64.
        Base64 = "base64",
    }
}

qapi_struct! {
    /// Arguments of `ringbuf-read`.
    pub struct RingbufReadArgs {
        /// The stream.
        device: String = "device",
        /// Most bytes.
        size: i64 = "size",
        /// How they are written.
        format: Option<DataFormat> = "format",
    }
}

qapi_struct! {
    /// Arguments of `send-key`.
    pub struct SendKeyArgs {
        /// Pressed together.
        keys: Vec<Key> = "keys",
        /// For how many milliseconds.
        hold_time: Option<i64> = "hold-time",
    }
}

/// A key, by name or by PC scan code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// By number.
    Number(u16),
    /// By name.
    Code(QKeyCode),
}

impl Qapi for Key {
    fn describe(schema: &mut Schema) -> String {
        schema.union("KeyValue", "type", |schema| {
            let tag = schema.enumeration("KeyValueKind", &["number", "qcode"]);
            let number = schema.object("IntWrapper", |s| vec![Member::of::<i64>(s, "data")]);
            let code = schema.object("QKeyCodeWrapper", |s| {
                vec![Member::of::<QKeyCode>(s, "data")]
            });
            (
                vec![Member::tag("type", tag)],
                vec![("number", number), ("qcode", code)],
            )
        })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Number(n) => json!({ "type": "number", "data": n }),
            Self::Code(code) => json!({ "type": "qcode", "data": code.name() }),
        }
    }

    fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
        let mut members: Map<String, Value> = object_members(at, value)?;
        let kind = String::take(&mut members, at, "type")?;
        let key = match kind.as_str() {
            "number" => Self::Number(u16::take(&mut members, at, "data")?),
            "qcode" => Self::Code(QKeyCode::take(&mut members, at, "data")?),
            _ => {
                let path = join(at, "type");
                return Err(QmpError::generic(format!(
                    "Parameter '{path}' does not accept value '{kind}'"
                )));
            }
        };
        no_more_members(at, &members)?;
        Ok(key)
    }
}
