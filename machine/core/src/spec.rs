//! What a machine is to be built from: plain data that the command line fills in.

use std::path::PathBuf;
use std::sync::Arc;

use crate::file::FileSpec;
use control_options::Topology;
use control_options::topology::Level;
use device_rtc::RtcClock;
use hw_core::{Args, BusKind, DeviceClass, DeviceError, Prop, PropType};
use hw_memory::RamBlock;

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
    /// What is built: the name of its kind without a version.
    pub family: &'static str,
    /// Whether it is the default machine.
    pub is_default: bool,
    /// Most CPUs.
    pub max_cpus: u32,
    /// Properties beside those that all machines have.
    pub own_props: &'static [Prop],
    /// `-cpu` when not given; `None` for a machine without CPUs.
    pub default_cpu: Option<&'static str>,
    /// Id of its RAM, unless a memory backend is it.
    pub ram_id: &'static str,
    /// Buses that users can plug into.
    pub buses: &'static [BusKind],
    /// Levels of CPUs beside sockets, cores and threads.
    pub levels: &'static [Level],
    /// The form of virtio devices that fits it: the end of their names.
    pub virtio_form: &'static str,
    /// What `-drive` without `if=` means.
    pub drive_interface: &'static str,
    /// Flash chips, at most 2: `-drive if=pflash` and the properties `pflash0` and `pflash1`.
    pub flash_chips: usize,
    /// The buses of its own IDE controller, and the drives on each.
    pub ide: (u32, u32),
}

/// A property that is on, off or up to the machine.
pub const fn switch(name: &'static str, default: &'static str, doc: &'static str) -> Prop {
    Prop {
        name,
        ty: PropType::OnOffAuto,
        default,
        doc,
    }
}

/// A switch of QEMU's for what is not there yet, so it cannot be on.
pub const fn absent(name: &'static str, doc: &'static str) -> Prop {
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

/// Properties of machines with flash chips, one for each.
const FLASH_PROPS: &[Prop] = &[
    Prop {
        name: "pflash0",
        ty: PropType::Str,
        default: "",
        doc: "Node or drive that the first flash chip stores in",
    },
    Prop {
        name: "pflash1",
        ty: PropType::Str,
        default: "",
        doc: "Node or drive that the second flash chip stores in",
    },
];

impl MachineDef {
    /// The properties that name what its flash chips store in, by chip.
    pub fn flash_props(&self) -> &'static [Prop] {
        FLASH_PROPS.get(..self.flash_chips).unwrap_or(FLASH_PROPS)
    }

    /// All its properties, by name.
    pub fn props(&self) -> Vec<Prop> {
        let mut props = [COMMON_PROPS, self.own_props, self.flash_props()].concat();
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
    ("cfi.pflash01", &["secure"]),
    ("hpet", &["timers", "msi"]),
    ("kvm-pit", &["lost_tick_policy"]),
    ("mc146818rtc", &["base_year", "lost_tick_policy"]),
    ("virtio-mmio", &["force_legacy"]),
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

/// What software that asks the host (semihosting) is given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SemihostingSpec {
    /// Unprivileged software may ask, too.
    pub userspace: bool,
    /// The console's stream; standard error without one.
    pub chardev: Option<String>,
    /// What the program is told of its arguments; if empty, the kernel's name and command line.
    pub arguments: Vec<String>,
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

/// Everything a machine is built from.
#[derive(Clone, Debug)]
pub struct MachineSpec {
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
    /// `-dtb`.
    pub dtb: Option<FileSpec>,
    /// `-bios`.
    pub bios: Option<String>,
    /// `-L`.
    pub firmware_dirs: Vec<PathBuf>,
    /// The drive of each flash chip: `-drive if=pflash` or `-machine pflash0=`.
    pub flash: Vec<Option<String>>,
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
    /// `-semihosting-config`, if it is on.
    pub semihosting: Option<SemihostingSpec>,
    /// `-smbios`: properties of each, in order.
    pub smbios: Vec<Vec<(String, String)>>,
    /// `-uuid`.
    pub uuid: Option<[u8; 16]>,
    /// `-S`: a debugger or monitor sees to what is run.
    pub is_paused: bool,
    /// `-nographic`: the firmware's console goes to the serial port.
    pub nographic: bool,
}

impl MachineSpec {
    /// The properties of one of the board's own devices: those of `-global`, then the board's.
    pub fn args(
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

    /// As [`args`](Self::args), with what the board would have unless a `-global` says otherwise.
    pub fn args_by_default(
        &self,
        class: &'static DeviceClass,
        given: &[(&str, &str)],
    ) -> Result<Args, DeviceError> {
        let globals = self
            .globals
            .iter()
            .filter(|global| global.class.name == class.name)
            .map(|global| (global.property.as_str(), global.value.as_str()));
        Args::new(class, given.iter().copied().chain(globals))
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
