//! Every option there is, once: parsing, `-help` and suggestions all read this table.

use std::fmt::Write as _;

use crate::apply::{boot, general, machine, parts, streams};
use crate::error::OptionError;
use crate::parse::Builder;
use crate::props::PropDef;
use crate::suggest::Hint;

/// Whether an option takes an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// None.
    None,
    /// One, of this form.
    Needed(&'static str),
}

/// The headings of `-help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// What the machine is.
    Standard,
    /// Disks.
    Block,
    /// Screens.
    Display,
    /// x86 only.
    Pc,
    /// Network.
    Network,
    /// Streams.
    Char,
    /// Kernels and firmware.
    Boot,
    /// Debugging and the process.
    Expert,
}

impl Section {
    const ALL: [Self; 8] = [
        Self::Standard,
        Self::Block,
        Self::Display,
        Self::Pc,
        Self::Network,
        Self::Char,
        Self::Boot,
        Self::Expert,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Standard => "Standard options",
            Self::Block => "Block device options",
            Self::Display => "Display options",
            Self::Pc => "PC options",
            Self::Network => "Network options",
            Self::Char => "Character device options",
            Self::Boot => "Boot options",
            Self::Expert => "Debug and expert options",
        }
    }
}

/// What an option does: `(what is built, the option as messages name it, its argument)`.
type Apply = fn(&mut Builder, &str, &str) -> Result<(), OptionError>;

/// One option.
pub struct OptionDef {
    /// Its name, without the dash.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// Its argument.
    pub arg: Arg,
    /// Where `-help` lists it.
    pub section: Section,
    /// What it does; further lines after `\n`.
    pub doc: &'static str,
    /// The properties of its argument, where the command line itself defines them.
    pub props: &'static [PropDef],
    pub(crate) apply: Apply,
}

impl OptionDef {
    const fn with(self, props: &'static [PropDef]) -> Self {
        Self { props, ..self }
    }
}

impl std::fmt::Debug for OptionDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OptionDef")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

macro_rules! option {
    ($section:ident, $name:literal $(| $alias:literal)*, $doc:literal, $apply:expr) => {
        OptionDef { name: $name, aliases: &[$($alias),*], arg: Arg::None, section: Section::$section, doc: $doc, props: &[], apply: $apply }
    };
    ($section:ident, $name:literal $(| $alias:literal)*, $form:literal => $doc:literal, $apply:expr) => {
        OptionDef { name: $name, aliases: &[$($alias),*], arg: Arg::Needed($form), section: Section::$section, doc: $doc, props: &[], apply: $apply }
    };
}

/// An argument without a dash: the first hard disk.
pub(crate) static DISK_IMAGE: OptionDef = option!(
    Block,
    "",
    "raw hard disk image for the first hard disk",
    parts::disk_image
);

/// The table.
pub static TABLE: &[OptionDef] = &[
    option!(Standard, "help" | "h", "print this and end", general::help),
    option!(
        Standard,
        "version",
        "print the version and end",
        general::version
    ),
    option!(Standard, "machine" | "M", "[type=]NAME[,PROP=VALUE...]" => "the machine; 'help' lists them, 'NAME,help' their properties\nproperty accel=A[:B...] names accelerators to try in turn", machine::machine),
    option!(Standard, "cpu", "MODEL[,+FEATURE][,-FEATURE][,FEATURE=on|off]" => "the processor; 'help' lists models and features", machine::cpu),
    option!(Standard, "accel", "[accel=]NAME[:NAME...][,PROP=VALUE...]" => "the accelerator; given more than once, they are tried in turn; 'help' says which work here", machine::accel),
    option!(
        Standard,
        "enable-kvm",
        "same as '-accel kvm'",
        machine::enable_kvm
    ),
    option!(Standard, "smp", "[cpus=]N[,maxcpus=N][,sockets=N][,dies=N][,clusters=N][,cores=N][,threads=N]" => "number of processors (default 1) and how they are arranged\nwhat is left out is computed", machine::smp).with(crate::topology::SMP_PROPS),
    option!(Standard, "m", "[size=]MEGABYTES[,slots=N,maxmem=SIZE]" => "memory (default 128M); K, M, G and T may follow the number", machine::memory).with(machine::MEMORY),
    option!(Standard, "mem-path", "PATH" => "back the memory with a file in this folder", |b, _, v| general::text(&mut b.config.mem_path, v)),
    option!(
        Standard,
        "mem-prealloc",
        "allocate all memory at the start",
        |b, _, _| general::set(&mut b.config.mem_prealloc)
    ),
    option!(Standard, "device", "DRIVER[,PROP=VALUE...]" => "add a device; 'help' lists them, 'DRIVER,help' its properties", parts::device),
    option!(Standard, "object", "TYPE,id=ID[,PROP=VALUE...]" => "add a backend object; 'help' lists the types", parts::object),
    option!(Standard, "global", "DRIVER.PROP=VALUE" => "set a property of all devices of a kind\nalso driver=DRIVER,property=PROP,value=VALUE", parts::global),
    option!(Standard, "name", "[guest=]NAME[,process=NAME][,debug-threads=on|off]" => "name of the guest, and of the process", general::name).with(general::NAME),
    option!(Standard, "uuid", "UUID" => "the machine's UUID", general::uuid),
    option!(
        Standard,
        "nodefaults",
        "only the devices that are asked for",
        |b, _, _| general::set(&mut b.config.nodefaults)
    ),
    option!(
        Standard,
        "no-user-config" | "nodefconfig",
        "accepted: there are no configuration files",
        |_, _, _| Ok(())
    ),
    option!(Standard, "audiodev", "[driver=]none,id=ID" => "audio backend; only 'none' is there", parts::audiodev),
    option!(Block, "hda", "FILE" => "image of the first hard disk", parts::hda),
    option!(Block, "hdb", "FILE" => "image of the second hard disk", parts::hdb),
    option!(Block, "hdc", "FILE" => "image of the third hard disk", parts::hdc),
    option!(Block, "hdd", "FILE" => "image of the fourth hard disk", parts::hdd),
    option!(Block, "cdrom", "FILE" => "image for the CD drive", parts::cdrom),
    option!(Block, "drive", "[file=]FILE[,if=TYPE][,format=NAME][,id=ID][,index=N][,media=disk|cdrom][,readonly=on|off]\n       [,snapshot=on|off][,cache=MODE][,discard=ignore|unmap][,aio=MODE]\n       [,werror=POLICY][,rerror=POLICY][,throttling.NAME=RATE]" => "add a disk", parts::drive).with(parts::DRIVE),
    option!(Block, "blockdev", "[driver=]NAME,node-name=ID[,PROP=VALUE...]" => "add a node of the block graph; also as JSON", parts::blockdev),
    option!(Block, "add-fd", "fd=FD,set=SET[,opaque=TEXT]" => "put an inherited descriptor into a set: disks open it as /dev/fdset/SET", parts::add_fd).with(parts::ADD_FD),
    option!(Block, "pflash", "FILE" => "image for a flash chip", parts::pflash),
    option!(Block, "sd", "FILE" => "image for an SD card", parts::sd),
    option!(Block, "mtdblock", "FILE" => "image for on-board flash", parts::mtdblock),
    option!(
        Block,
        "snapshot",
        "write to temporary files instead of the images",
        |b, _, _| general::set(&mut b.config.snapshot)
    ),
    option!(Display, "display", "none" => "no window; 'help' lists the kinds", streams::display),
    option!(
        Display,
        "nographic",
        "no window; the terminal gets the serial port and the monitor",
        streams::nographic
    ),
    option!(Display, "vga", "none" => "the graphics card; 'help' lists them", streams::vga),
    option!(Pc, "no-acpi", "same as '-machine acpi=off'", |b, _, _| {
        machine::property(b, "acpi", "off")
    }),
    option!(Pc, "no-hpet", "same as '-machine hpet=off'", |b, _, _| {
        machine::property(b, "hpet", "off")
    }),
    option!(
        Pc,
        "no-fd-bootchk",
        "same as '-machine fd-bootchk=off'",
        |b, _, _| machine::property(b, "fd-bootchk", "off")
    ),
    option!(Pc, "usb", "same as '-machine usb=on'", |b, _, _| {
        machine::property(b, "usb", "on")
    }),
    option!(Pc, "smbios", "file=FILE | type=N[,FIELD=VALUE...]" => "add to the SMBIOS tables", parts::smbios),
    option!(Network, "netdev", "TYPE,id=ID[,PROP=VALUE...]" => "add a network backend; also as JSON; 'help' lists the types", parts::netdev),
    option!(Network, "nic", "none | TYPE[,model=NAME][,mac=ADDRESS][,PROP=VALUE...]" => "add a network card with its backend, or none by default", parts::nic),
    option!(Network, "net", "none | nic[,...] | TYPE[,...]" => "the older form of -nic", parts::net),
    option!(Char, "chardev", "DRIVER,id=ID[,mux=on|off][,logfile=FILE][,PROP=VALUE...]" => "add a stream; 'help' lists the drivers, 'DRIVER,help' its properties", streams::chardev),
    option!(Char, "serial", "STREAM" => "connect a serial port: stdio, mon:stdio, pty, file:F, pipe:F, unix:F, tcp:H:P,\ntelnet:H:P, null, none, chardev:ID", streams::serial),
    option!(Char, "parallel", "STREAM" => "connect a parallel port, in the same way", streams::parallel),
    option!(Char, "monitor", "STREAM" => "connect a monitor for people, in the same way", streams::monitor),
    option!(Char, "qmp", "STREAM" => "connect a monitor for programs (QMP), in the same way", streams::qmp),
    option!(Char, "qmp-pretty", "STREAM" => "the same with line breaks", streams::qmp_pretty),
    option!(Char, "mon", "[chardev=]ID[,mode=readline|control][,pretty=on|off]" => "connect a monitor to a -chardev", streams::mon).with(streams::MON),
    option!(Char, "debugcon", "STREAM" => "connect the debug console at port 0xe9", |b, _, v| general::text(&mut b.config.debugcon, v)),
    option!(Char, "echr", "NUMBER" => "the escape key of the terminal instead of Ctrl-A (1)", streams::echr),
    option!(Boot, "kernel", "FILE" => "the kernel to boot", |b, _, v| general::text(&mut b.config.kernel.kernel, v)),
    option!(Boot, "append", "TEXT" => "the kernel's command line", |b, _, v| general::text(&mut b.config.kernel.append, v)),
    option!(Boot, "initrd", "FILE" => "the kernel's initial RAM disk", |b, _, v| general::text(&mut b.config.kernel.initrd, v)),
    option!(Boot, "dtb", "FILE" => "the device tree", |b, _, v| general::text(&mut b.config.kernel.dtb, v)),
    option!(Boot, "bios", "FILE" => "the firmware", |b, _, v| general::text(&mut b.config.kernel.bios, v)),
    option!(Boot, "L", "FOLDER" => "look for firmware here first", |b, _, v| { b.config.firmware_dirs.push(v.to_owned()); Ok(()) }),
    option!(Boot, "boot", "[order=]DRIVES[,once=DRIVES][,menu=on|off][,splash=FILE][,splash-time=MS][,reboot-timeout=MS][,strict=on|off]" => "what firmware boots from: floppy (a), hard disk (c), CD (d), network (n)", boot::boot).with(boot::BOOT),
    option!(Boot, "fw_cfg", "[name=]NAME,file=FILE | [name=]NAME,string=TEXT" => "add an entry to the firmware's configuration", parts::fw_cfg).with(parts::FW_CFG),
    option!(
        Expert,
        "S",
        "do not start the processors; the monitor's 'cont' does",
        |b, _, _| general::set(&mut b.config.paused)
    ),
    option!(Expert, "rtc", "[base=utc|localtime|DATE][,clock=host|rt|vm][,driftfix=none|slew]" => "the real time clock", boot::rtc).with(boot::RTC),
    option!(Expert, "action", "EVENT=ACTION[,...]" => "reboot=reset|shutdown, shutdown=poweroff|pause,\npanic=none|pause|shutdown|exit-failure, watchdog=reset|shutdown|poweroff|pause|debug|none|inject-nmi", boot::action).with(boot::ACTION),
    option!(
        Expert,
        "no-reboot",
        "same as '-action reboot=shutdown'",
        boot::no_reboot
    ),
    option!(
        Expert,
        "no-shutdown",
        "same as '-action shutdown=pause'",
        boot::no_shutdown
    ),
    option!(Expert, "watchdog-action", "ACTION" => "same as '-action watchdog=ACTION'", boot::watchdog_action),
    option!(Expert, "d", "ITEM[,ITEM...]" => "log these; 'help' lists them", general::log_items),
    option!(Expert, "dfilter", "RANGE[,RANGE...]" => "log guest code at these addresses only: FIRST..LAST, START+BYTES, LAST-BYTES", general::log_filter),
    option!(Expert, "D", "FILE" => "write the log there instead of to standard error", |b, _, v| general::text(&mut b.config.log_file, v)),
    option!(
        Expert,
        "perfmap",
        "name generated code for perf, in /tmp/perf-PID.map",
        |b, _, _| general::set(&mut b.config.perf_map)
    ),
    option!(Expert, "pidfile", "FILE" => "write the process id there", |b, _, v| general::text(&mut b.config.pidfile, v)),
    option!(
        Expert,
        "daemonize",
        "go to the background once everything is set up",
        |b, _, _| general::set(&mut b.config.daemonize)
    ),
    option!(Expert, "msg", "[timestamp=on|off][,guest-name=on|off]" => "what messages begin with", general::msg).with(general::MSG),
    option!(Expert, "overcommit", "[mem-lock=on|off][,cpu-pm=on|off]" => "lock the memory; let the guest put host processors to sleep", general::overcommit).with(general::OVERCOMMIT),
    option!(Expert, "sandbox", "on|off[,obsolete=allow|deny][,elevateprivileges=allow|deny|children][,spawn=allow|deny][,resourcecontrol=allow|deny]" => "restrict the process", general::sandbox).with(general::SANDBOX),
    option!(Expert, "run-with", "[async-teardown=on|off][,chroot=FOLDER][,user=NAME]" => "how the process runs", general::run_with).with(general::RUN_WITH),
    option!(
        Expert,
        "only-migratable",
        "refuse devices that cannot migrate",
        |b, _, _| general::set(&mut b.config.only_migratable)
    ),
    option!(Expert, "seed", "NUMBER" => "seed of the machine's random numbers", general::seed),
    option!(Expert, "qtest", "STREAM" => "drive the machine by the qtest protocol", |b, _, v| general::text(&mut b.config.qtest, v)),
    option!(Expert, "qtest-log", "FILE" => "log the qtest protocol", |b, _, v| general::text(&mut b.config.qtest_log, v)),
    option!(Expert, "semihosting", "let the guest's software ask the host for files and a console", parts::semihosting_on),
    option!(Expert, "semihosting-config", "[enable=]on|off[,target=native|auto][,chardev=ID][,userspace=on|off][,arg=TEXT...]" => "as -semihosting; where its console is, and what its arguments are", parts::semihosting).with(parts::SEMIHOSTING),
    absent("async-teardown", Arg::None),
    absent("audio-help", Arg::None),
    absent("chroot", Arg::Needed("...")),
    absent("dump-vmstate", Arg::Needed("...")),
    absent("option-rom", Arg::Needed("...")),
    absent("portrait", Arg::None),
    absent("rotate", Arg::Needed("...")),
    absent("runas", Arg::Needed("...")),
    absent("singlestep", Arg::None),
    absent("one-insn-per-tb", Arg::None),
    absent("xen-attach", Arg::None),
    absent("xen-domid-restrict", Arg::None),
    absent("acpitable", Arg::Needed("...")),
    absent("audio", Arg::Needed("...")),
    absent("compat", Arg::Needed("...")),
    absent("enable-sync-profile", Arg::None),
    absent("fda", Arg::Needed("...")),
    absent("fdb", Arg::Needed("...")),
    absent("fsdev", Arg::Needed("...")),
    absent("full-screen", Arg::None),
    absent("gdb", Arg::Needed("...")),
    absent("icount", Arg::Needed("...")),
    absent("incoming", Arg::Needed("...")),
    absent("iscsi", Arg::Needed("...")),
    absent("k", Arg::Needed("...")),
    absent("loadvm", Arg::Needed("...")),
    absent("numa", Arg::Needed("...")),
    absent("plugin", Arg::Needed("...")),
    absent("prom-env", Arg::Needed("...")),
    absent("readconfig", Arg::Needed("...")),
    absent("s", Arg::None),
    absent("set", Arg::Needed("...")),
    absent("shim", Arg::Needed("...")),
    absent("spice", Arg::Needed("...")),
    absent("tpmdev", Arg::Needed("...")),
    absent("trace", Arg::Needed("...")),
    absent("usbdevice", Arg::Needed("...")),
    absent("virtfs", Arg::Needed("...")),
    absent("vmcoreinfo", Arg::None),
    absent("vnc", Arg::Needed("...")),
    absent("win2k-hack", Arg::None),
    absent("xen-domid", Arg::Needed("...")),
];

/// An option of QEMU's that does not work here yet: known, so that the message can say so, and not in `-help`.
const fn absent(name: &'static str, arg: Arg) -> OptionDef {
    OptionDef {
        name,
        aliases: &[],
        arg,
        section: Section::Expert,
        doc: "",
        props: &[],
        apply: refuse,
    }
}

fn refuse(_: &mut Builder, option: &str, _: &str) -> Result<(), OptionError> {
    Err(OptionError::Unavailable {
        option: option.to_owned(),
        what: "this option of QEMU".to_owned(),
        hint: Hint::text("leave it out"),
    })
}

/// The option of this name or alias.
pub fn find(name: &str) -> Option<&'static OptionDef> {
    TABLE
        .iter()
        .find(|def| def.name == name || def.aliases.contains(&name))
}

/// All names that work, for suggestions.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    TABLE
        .iter()
        .filter(|def| !def.doc.is_empty())
        .flat_map(|def| std::iter::once(def.name).chain(def.aliases.iter().copied()))
}

/// The text of `-help`, below the version line.
pub fn help_text(program: &str) -> String {
    let mut out = format!(
        "usage: {program} [options] [disk_image]\n\n'disk_image' is a raw hard disk image\n"
    );
    for section in Section::ALL {
        let _ = write!(out, "\n{}:\n", section.title());
        for def in TABLE
            .iter()
            .filter(|d| d.section == section && !d.doc.is_empty())
        {
            let names: Vec<_> = std::iter::once(&def.name)
                .chain(def.aliases)
                .map(|n| format!("-{n}"))
                .collect();
            let mut usage = names.join(" or ");
            if let Arg::Needed(form) = def.arg {
                let _ = write!(usage, " {form}");
            }
            let mut doc = def.doc.lines();
            if usage.len() < 16 {
                let _ = writeln!(out, "{usage:<15} {}", doc.next().unwrap_or_default());
            } else {
                let _ = writeln!(out, "{usage}");
            }
            for line in doc {
                let _ = writeln!(out, "                {line}");
            }
        }
    }
    out.push_str("\nOn a terminal, Ctrl-A X ends the emulator, Ctrl-A C reaches the monitor and Ctrl-A H shows more.\n");
    out
}
