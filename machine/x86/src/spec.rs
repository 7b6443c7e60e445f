//! What a PC is to be built from: plain data that the command line fills in.

use std::path::PathBuf;
use std::sync::Arc;

use control_options::Topology;
use device_rtc::RtcClock;
use firmware_load::Module;
use hw_core::{Args, DeviceClass, DeviceError, Prop, PropType};
use hw_memory::RamBlock;

/// A kind of PC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// i440FX and PIIX3.
    Pc,
    /// Q35 and ICH9.
    Q35,
    /// No PCI, virtio-mmio, nothing legacy unless asked for.
    Microvm,
    /// Nothing but memory.
    None,
}

/// A machine as users name it: the source of `-machine help`, `query-machines` and the options of
/// `-machine`.
#[derive(Clone, Copy, Debug)]
pub struct MachineDef {
    /// Name, versioned where QEMU's is.
    pub name: &'static str,
    /// Unversioned name, if this is the newest of its kind.
    pub alias: Option<&'static str>,
    /// One line of documentation.
    pub doc: &'static str,
    /// What is built.
    pub kind: Kind,
    /// Whether it is the default machine.
    pub is_default: bool,
    /// Most CPUs.
    pub max_cpus: u32,
    /// Properties beside those that all machines have.
    own_props: &'static [Prop],
    /// `-cpu` when not given.
    pub default_cpu: &'static str,
}

const fn switch(name: &'static str, default: &'static str, doc: &'static str) -> Prop {
    Prop {
        name,
        ty: PropType::OnOffAuto,
        default,
        doc,
    }
}

/// A switch of QEMU's for what is not there yet, so it cannot be on.
const fn absent(name: &'static str, doc: &'static str) -> Prop {
    Prop {
        name,
        ty: PropType::Enum(ABSENT),
        default: "off",
        doc,
    }
}

/// The values of a switch for what is not there.
const ABSENT: &[&str] = &["off", "auto"];

/// Properties that all machines have.
const COMMON_PROPS: &[Prop] = &[
    switch(
        "dump-guest-core",
        "on",
        "Guest memory is part of core dumps",
    ),
    switch(
        "graphics",
        "on",
        "There is a display; without one, firmware uses the serial port",
    ),
    Prop {
        name: "kernel_irqchip",
        ty: PropType::Enum(&["on", "off", "split"]),
        default: "",
        doc: "KVM: interrupt controllers in the kernel",
    },
    switch(
        "mem-merge",
        "on",
        "Guest memory may be merged with equal pages of other processes",
    ),
    Prop {
        name: "memory-backend",
        ty: PropType::Str,
        default: "",
        doc: "Id of the memory backend of the RAM",
    },
    absent("usb", "USB controller"),
];

/// Properties of `pc` and `q35`.
const PC_PROPS: &[Prop] = &[
    switch("acpi", "auto", "ACPI tables and power management"),
    absent(
        "default-bus-bypass-iommu",
        "Devices of the first bus past an IOMMU",
    ),
    switch(
        "fd-bootchk",
        "on",
        "Firmware looks for the signature of boot sectors of floppies",
    ),
    absent("hmat", "Heterogeneous memory attributes table"),
    switch("hpet", "auto", "High precision event timer"),
    switch("i8042", "on", "Keyboard controller"),
    Prop {
        name: "max-ram-below-4g",
        ty: PropType::Size,
        default: "0",
        doc: "Limit of low memory; 0 for the default",
    },
    absent("nvdimm", "Persistent memory modules"),
    Prop {
        name: "pcspk-audiodev",
        ty: PropType::Str,
        default: "",
        doc: "Sound backend of the speaker",
    },
    switch("pic", "on", "i8259 interrupt controllers"),
    switch("pit", "on", "i8254 timer"),
    absent("sata", "ICH9 AHCI controller"),
    absent("smbus", "SMBus host controller"),
    Prop {
        name: "smbios-entry-point-type",
        ty: PropType::Enum(&["auto", "32", "64"]),
        default: "auto",
        doc: "Which entry point SMBIOS has; auto: 64 if the tables need it",
    },
    absent("smm", "System management mode"),
    absent("vmport", "VMware port"),
];

/// Properties of `microvm`.
const MICROVM_PROPS: &[Prop] = &[
    switch("acpi", "auto", "ACPI tables"),
    switch(
        "auto-kernel-cmdline",
        "on",
        "Virtio-mmio devices are added to the kernel command line",
    ),
    absent("ioapic2", "Second I/O APIC"),
    switch("isa-serial", "on", "Serial port at 0x3f8"),
    absent("pcie", "PCI Express host bridge"),
    switch("pic", "auto", "i8259 interrupt controllers"),
    switch("pit", "auto", "i8254 timer"),
    switch("rtc", "auto", "MC146818 clock"),
    absent("x-option-roms", "Firmware option ROMs"),
];

const fn pc(name: &'static str, alias: Option<&'static str>, is_default: bool) -> MachineDef {
    MachineDef {
        name,
        alias,
        doc: "Standard PC (i440FX + PIIX, 1996)",
        kind: Kind::Pc,
        is_default,
        max_cpus: 255,
        own_props: PC_PROPS,
        default_cpu: "qemu64",
    }
}

const fn q35(name: &'static str, alias: Option<&'static str>) -> MachineDef {
    MachineDef {
        doc: "Standard PC (Q35 + ICH9, 2009)",
        kind: Kind::Q35,
        max_cpus: 288,
        ..pc(name, alias, false)
    }
}

impl MachineDef {
    /// All its properties, by name.
    pub fn props(&self) -> Vec<Prop> {
        let mut props = [COMMON_PROPS, self.own_props].concat();
        props.sort_by_key(|prop| prop.name);
        props
    }

    /// Whether `on` is a value that a switch would have if there were what it is for.
    pub fn is_absent(&self, prop: &str) -> bool {
        self.props()
            .iter()
            .any(|p| p.name == prop && p.ty == PropType::Enum(ABSENT))
    }
}

/// All PCs.
pub static MACHINES: &[MachineDef] = &[
    MachineDef {
        name: "microvm",
        alias: None,
        doc: "microvm (i386)",
        kind: Kind::Microvm,
        is_default: false,
        max_cpus: 288,
        own_props: MICROVM_PROPS,
        default_cpu: "qemu64",
    },
    MachineDef {
        name: "none",
        alias: None,
        doc: "empty machine",
        kind: Kind::None,
        is_default: false,
        max_cpus: 1,
        own_props: &[],
        default_cpu: "qemu64",
    },
    pc("pc-i440fx-10.0", Some("pc"), true),
    pc("pc-i440fx-7.2", None, false),
    q35("pc-q35-10.0", Some("q35")),
    q35("pc-q35-7.2", None),
];

/// The machine of a name or alias.
pub fn find(name: &str) -> Option<&'static MachineDef> {
    MACHINES
        .iter()
        .find(|m| m.name == name || m.alias == Some(name))
}

/// A device that `-device` (or a drive, or a serial port) asks for.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// Its class.
    pub class: &'static DeviceClass,
    /// The user's id.
    pub id: Option<String>,
    /// `bus=`, if given.
    pub bus: Option<String>,
    /// Checked properties.
    pub args: Args,
}

/// A property's value for all devices of a class that do not say otherwise: `-global`.
#[derive(Clone, Debug)]
pub struct GlobalSpec {
    /// The class.
    pub class: &'static DeviceClass,
    /// The property.
    pub property: String,
    /// Its value, as written.
    pub value: String,
}

/// Properties of the boards' own devices that are not the board's to decide.
const FREE: &[(&str, &[&str])] = &[
    ("hpet", &["timers", "msi"]),
    ("kvm-pit", &["lost_tick_policy"]),
    ("mc146818rtc", &["base_year", "lost_tick_policy"]),
];

impl GlobalSpec {
    /// Whether it can have an effect. A board gives its own devices most of their properties itself.
    pub fn is_free(&self) -> bool {
        let property = self.property.replace('-', "_");
        let mut free = FREE.iter().filter(|(class, _)| *class == self.class.name);
        self.class.user_creatable || free.any(|(_, names)| names.contains(&property.as_str()))
    }
}

/// The time on the real time clock at power on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RtcSpec {
    /// Seconds to add to UTC (local time), if the host's time is the base.
    pub offset_s: i64,
    /// Seconds since 1970 at power on, instead of the host's time.
    pub start_s: Option<i64>,
    /// What drives it.
    pub clock: RtcClock,
    /// The guest gets the periodic interrupts that it missed (`driftfix=slew`).
    pub slew: bool,
}

/// Boot order for firmware.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BootSpec {
    /// Drive letters, `cdn` and the like; empty for the default.
    pub order: String,
    /// The order until the first reset, if it is another.
    pub once: Option<String>,
    /// Show the menu.
    pub menu: bool,
    /// Try nothing that is not listed.
    pub strict: bool,
}

/// A file given to the guest: its path for messages, its contents.
#[derive(Clone, Debug)]
pub struct FileSpec {
    /// As written by the user.
    pub path: String,
    /// Contents.
    pub bytes: Arc<[u8]>,
}

impl FileSpec {
    /// As boot protocols have it.
    pub(crate) fn module(&self) -> Module<'_> {
        Module {
            bytes: &self.bytes,
            cmdline: &self.path,
        }
    }
}

/// Everything a PC is built from.
#[derive(Clone, Debug)]
pub struct PcSpec {
    /// Which machine.
    pub machine: &'static MachineDef,
    /// `-machine` properties, checked against the machine's.
    pub props: Vec<(String, String)>,
    /// Bytes of RAM.
    pub memory: u64,
    /// The RAM itself, of as many bytes, if it is not to be made with the board.
    pub memory_block: Option<Arc<RamBlock>>,
    /// CPUs.
    pub topology: Topology,
    /// `-kernel`.
    pub kernel: Option<FileSpec>,
    /// `-initrd`.
    pub initrd: Option<FileSpec>,
    /// `-append`.
    pub append: String,
    /// `-bios`.
    pub bios: Option<String>,
    /// `-L`.
    pub firmware_dirs: Vec<PathBuf>,
    /// `-serial`s in order: the link id of each port's stream (kind `chardev` in the links); `None`
    /// leaves the port out.
    pub serials: Vec<Option<String>>,
    /// `-parallel`s, likewise.
    pub parallels: Vec<Option<String>>,
    /// `-global`s in order, checked; the `devices` have theirs in them.
    pub globals: Vec<GlobalSpec>,
    /// `-device`s in order.
    pub devices: Vec<DeviceSpec>,
    /// `-rtc`.
    pub rtc: RtcSpec,
    /// `-boot`.
    pub boot: BootSpec,
    /// `-fw_cfg`: name, contents.
    pub fw_cfg: Vec<(String, Arc<[u8]>)>,
    /// `-smbios`: properties of each, in order.
    pub smbios: Vec<Vec<(String, String)>>,
    /// `-uuid`.
    pub uuid: Option<[u8; 16]>,
    /// `-nographic`: the firmware's console goes to the serial port.
    pub nographic: bool,
}

impl PcSpec {
    /// The properties of one of the board's own devices: those of `-global`, then the board's.
    pub(crate) fn args(
        &self,
        class: &'static DeviceClass,
        given: &[(&str, &str)],
    ) -> Result<Args, DeviceError> {
        let globals = self
            .globals
            .iter()
            .filter(|global| global.class.name == class.name)
            .map(|global| (global.property.as_str(), global.value.as_str()));
        Args::new(class, globals.chain(given.iter().copied()))
    }

    /// A `-machine` switch: `None` for `auto`.
    pub fn switch(&self, name: &str) -> Option<bool> {
        match self.property(name)?.as_str() {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        }
    }

    /// A `-machine` property, given or by default; `None` for nothing.
    pub fn property(&self, name: &str) -> Option<String> {
        let given = self.props.iter().rev().find(|(n, _)| n == name);
        let default = || {
            let all = self.machine.props();
            let prop = all.iter().find(|p| p.name == name)?;
            (!prop.default.is_empty()).then(|| prop.default.to_owned())
        };
        given.map(|(_, value)| value.clone()).or_else(default)
    }
}
