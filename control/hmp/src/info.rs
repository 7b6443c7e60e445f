//! `info`.

use std::fmt::Write as _;

use control_options::suggest::Hint;
use control_qapi::{
    ChardevInfo, CpuInfoFast, InfoTopic, KvmInfo, NameInfo, PciDeviceInfo, PciInfo, QmpError,
    RunState, StatusInfo, UuidInfo, VersionInfo,
};

use crate::block;
use crate::commands::Call;

type Show = fn(&Call<'_>, &str) -> Result<String, QmpError>;

/// One topic.
pub(crate) struct TopicDef {
    pub(crate) name: &'static str,
    params: &'static str,
    pub(crate) doc: &'static str,
    show: Show,
}

macro_rules! topic {
    ($name:literal, $params:literal, $doc:literal, $show:expr) => {
        TopicDef {
            name: $name,
            params: $params,
            doc: $doc,
            show: $show,
        }
    };
}

/// All topics.
pub(crate) static TOPICS: &[TopicDef] = &[
    topic!(
        "block",
        "[-n] [-v] [device]",
        "disks; -n the nodes they are made of, -v in more detail",
        block::block
    ),
    topic!("block-jobs", "", "jobs on disks", |c, _| block::block_jobs(
        c
    )),
    topic!("blockstats", "", "what disks did so far", |c, _| {
        block::blockstats(c)
    }),
    topic!("chardev", "", "streams", |c, _| chardev(c)),
    topic!("cpus", "", "vCPUs and their threads", |c, _| cpus(c)),
    topic!(
        "iothreads",
        "",
        "threads that take the requests of disks",
        |c, _| block::io_threads(c)
    ),
    topic!("irq", "", "counts of interrupts", |c, d| c
        .topic(InfoTopic::Irq, d)),
    topic!("jit", "", "the engine's blocks and counters", |c, d| c
        .topic(InfoTopic::Jit, d)),
    topic!("kvm", "", "whether KVM is there and used", |c, _| kvm(c)),
    topic!("lapic", "[apic-id]", "a local APIC", lapic),
    topic!("mem", "", "mapped ranges of virtual memory", |c, d| c
        .topic(InfoTopic::Mem, d)),
    topic!(
        "mtree",
        "[-f][-d][-o][-D]",
        "the memory map; -f flat, -d with dispatch, -o with owners, -D with disabled",
        mtree
    ),
    topic!("name", "", "the guest's name", |c, _| name(c)),
    topic!("pci", "", "PCI functions", |c, _| pci(c)),
    topic!("pic", "", "interrupt controllers", |c, d| c
        .topic(InfoTopic::Pic, d)),
    topic!("qtree", "", "the device tree", |c, d| c
        .topic(InfoTopic::Qtree, d)),
    topic!("registers", "[-a]", "registers; -a of all vCPUs", registers),
    topic!("status", "", "what the machine is doing", |c, _| status(c)),
    topic!("tlb", "", "translations of virtual memory", |c, d| c
        .topic(InfoTopic::Tlb, d)),
    topic!("uuid", "", "the machine's UUID", |c, _| uuid(c)),
    topic!("version", "", "who answers", |c, _| version(c)),
];

/// Flags of `info mtree`; all but the first show what is shown anyway.
const MTREE_FLAGS: [&str; 4] = ["-f", "-d", "-o", "-D"];

fn mtree(call: &Call<'_>, detail: &str) -> Result<String, QmpError> {
    let mut flags = detail.split_whitespace();
    if let Some(other) = flags.find(|flag| !MTREE_FLAGS.contains(flag)) {
        let other: String = other.chars().take(40).collect();
        return Err(QmpError::generic(format!(
            "info mtree: unsupported option '{other}'; there are {}",
            MTREE_FLAGS.join(", ")
        )));
    }
    call.topic(InfoTopic::Mtree, detail)
}

pub(crate) fn run(call: &Call<'_>, topic: &str, detail: &str) -> Result<String, QmpError> {
    match TOPICS.iter().find(|t| t.name == topic) {
        Some(found) => (found.show)(call, detail.trim()),
        None if topic.is_empty() || topic == "help" => Ok(help()),
        None => {
            let names = TOPICS.iter().map(|t| t.name);
            let hint = Hint::new(topic, names);
            Err(QmpError::generic(format!(
                "there is no topic '{topic}'{hint}"
            )))
        }
    }
}

pub(crate) fn help() -> String {
    TOPICS.iter().fold(String::new(), |mut out, t| {
        let space = if t.params.is_empty() { "" } else { " " };
        let _ = writeln!(out, "info {}{space}{} -- {}", t.name, t.params, t.doc);
        out
    })
}

fn status(c: &Call<'_>) -> Result<String, QmpError> {
    let info: StatusInfo = c.qmp("query-status")?;
    let more = match info.status {
        RunState::Running | RunState::Paused => String::new(),
        other => format!(" ({})", other.name()),
    };
    Ok(format!(
        "VM status: {}{more}\n",
        if info.running { "running" } else { "paused" }
    ))
}

fn version(c: &Call<'_>) -> Result<String, QmpError> {
    let info: VersionInfo = c.qmp("query-version")?;
    Ok(format!(
        "{}.{}.{} ({})\n",
        info.qemu.major, info.qemu.minor, info.qemu.micro, info.package
    ))
}

fn name(c: &Call<'_>) -> Result<String, QmpError> {
    let info: NameInfo = c.qmp("query-name")?;
    Ok(info
        .name
        .map_or_else(String::new, |name| format!("{name}\n")))
}

fn uuid(c: &Call<'_>) -> Result<String, QmpError> {
    let info: UuidInfo = c.qmp("query-uuid")?;
    Ok(format!("{}\n", info.uuid))
}

fn kvm(c: &Call<'_>) -> Result<String, QmpError> {
    let info: KvmInfo = c.qmp("query-kvm")?;
    let state = match (info.present, info.enabled) {
        (_, true) => "enabled",
        (true, false) => "disabled",
        (false, false) => "not available on this host",
    };
    Ok(format!("kvm support: {state}\n"))
}

fn cpus(c: &Call<'_>) -> Result<String, QmpError> {
    let cpus: Vec<CpuInfoFast> = c.qmp("query-cpus-fast")?;
    let mut out = String::new();
    for cpu in cpus {
        let mark = if usize::try_from(cpu.cpu_index) == Ok(c.cpu) {
            '*'
        } else {
            ' '
        };
        let _ = writeln!(
            out,
            "{mark} CPU #{}: thread_id={}",
            cpu.cpu_index, cpu.thread_id
        );
    }
    Ok(out)
}

fn chardev(c: &Call<'_>) -> Result<String, QmpError> {
    let all: Vec<ChardevInfo> = c.qmp("query-chardev")?;
    Ok(all
        .iter()
        .map(|i| format!("{}: filename={}\n", i.label, i.filename))
        .collect())
}

fn pci(c: &Call<'_>) -> Result<String, QmpError> {
    let buses: Vec<PciInfo> = c.qmp("query-pci")?;
    if buses.is_empty() {
        return Ok("there is no PCI in this machine\n".to_owned());
    }
    let mut out = String::new();
    for device in buses.iter().flat_map(|bus| &bus.devices) {
        pci_device(&mut out, device);
    }
    Ok(out)
}

fn pci_device(out: &mut String, d: &PciDeviceInfo) {
    let _ = writeln!(
        out,
        "  Bus {:2}, device {:3}, function {}:",
        d.bus, d.slot, d.function
    );
    let class = match &d.class_info.desc {
        Some(desc) => desc.clone(),
        None => format!("Class {:04x}", d.class_info.class),
    };
    let _ = writeln!(
        out,
        "    {class}: PCI device {:04x}:{:04x}",
        d.id.vendor, d.id.device
    );
    if let (Some(vendor), Some(device)) = (d.id.subsystem_vendor, d.id.subsystem) {
        let _ = writeln!(out, "      PCI subsystem {vendor:04x}:{device:04x}");
    }
    if let Some(irq) = d.irq {
        let pin = u8::try_from(d.irq_pin)
            .ok()
            .filter(|p| (1..=4).contains(p))
            .map_or('?', |p| char::from(b'@' + p));
        let _ = writeln!(out, "      IRQ {irq}, pin {pin}");
    }
    for r in &d.regions {
        let end = r.address.wrapping_add(r.size).wrapping_sub(1);
        let kind = match (r.kind.as_str(), r.mem_type_64) {
            ("io", _) => "I/O".to_owned(),
            (_, wide) => {
                let bits = if wide == Some(true) { 64 } else { 32 };
                let prefetch = if r.prefetch == Some(true) {
                    "prefetchable "
                } else {
                    ""
                };
                format!("{bits} bit {prefetch}memory")
            }
        };
        let _ = match r.kind.as_str() {
            "io" => writeln!(
                out,
                "      BAR{}: {kind} at 0x{:04x} [0x{end:04x}].",
                r.bar, r.address
            ),
            _ => writeln!(
                out,
                "      BAR{}: {kind} at 0x{:08x} [0x{end:08x}].",
                r.bar, r.address
            ),
        };
    }
    let _ = writeln!(out, "      id \"{}\"", d.qdev_id);
}

fn registers(c: &Call<'_>, detail: &str) -> Result<String, QmpError> {
    match detail {
        "" => c.topic(InfoTopic::Registers, ""),
        "-a" => {
            let mut out = String::new();
            for cpu in c.vm.cpus() {
                let text = c.vm.info(InfoTopic::Registers, cpu.index, "")?;
                let _ = write!(out, "\nCPU#{}\n{text}", cpu.index);
            }
            Ok(out)
        }
        other => Err(QmpError::generic(format!(
            "'{other}' is no option of 'info registers'; there is '-a'"
        ))),
    }
}

fn lapic(c: &Call<'_>, detail: &str) -> Result<String, QmpError> {
    if detail.is_empty() {
        return c.topic(InfoTopic::Lapic, "");
    }
    let cpu = control_options::number::unsigned(detail)
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n < c.vm.cpus().len())
        .ok_or_else(|| QmpError::generic(format!("there is no vCPU '{detail}'")))?;
    c.vm.info(InfoTopic::Lapic, cpu, "")
}
