//! Tables of Arm boards: no fixed hardware, a GIC, PSCI.
//!
//! Spec: ACPI 6.5; "Server Base Boot Requirements" DEN 0044 for which tables there must be; "PL011
//! in SPCR and DBG2" of Microsoft's descriptions of those tables; IORT DEN 0049B, revision 0.

use acpi_tables::aml::{self, AddressSpace, AddressSpaceCacheable};

use crate::asl::{
    Code, Trigger, code, device, eisa, give, hid, interrupts, memory32, method_with, name,
    resources, scope, status,
};
use crate::deliver::Tables;
use crate::{VirtioMmio, dsdt, pci, tables};
use tables::{Body, MEMORY, flag, table};

/// A memory window: first address, bytes.
pub type Window = (u64, u64);

/// Where messages end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArmMsi {
    /// A GICv2m frame: address, first shared interrupt by its global number, how many.
    Frame(u64, u16, u16),
    /// An interrupt translation service at this address.
    Its(u64),
}

/// The interrupt controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmGic {
    /// 2 or 3.
    pub version: u8,
    /// The distributor.
    pub distributor: u64,
    /// Version 2: the CPU interface.
    pub cpu_interface: u64,
    /// Version 3: regions of redistributors.
    pub redistributors: Vec<Window>,
    /// Messages.
    pub msi: Option<ArmMsi>,
    /// The maintenance interrupt, if CPUs have EL2.
    pub maintenance: Option<u32>,
}

/// Private interrupts of the generic timers and the performance monitors, by INTID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all")]
pub struct ArmPrivate {
    pub secure_timer: u32,
    pub physical_timer: u32,
    pub virtual_timer: u32,
    pub hyp_timer: u32,
    pub hyp_virtual_timer: u32,
    pub pmu: u32,
}

/// How many of each level are in one of the level above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArmTopology {
    /// Clusters of a socket.
    pub clusters: u32,
    /// Cores of a cluster.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

/// The PCI Express host bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArmPci {
    /// Configuration space.
    pub ecam: Window,
    /// Where ports are in memory.
    pub ports: Window,
    /// Memory below 4 GiB.
    pub memory: Window,
    /// Memory above.
    pub high_memory: Option<Window>,
    /// Global interrupt of the first of four lines, which slots and pins rotate over.
    pub gsi: u32,
}

/// An Arm machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmBoard {
    /// MPIDR affinity of each CPU, the boot CPU first.
    pub affinities: Vec<u64>,
    /// How they are grouped.
    pub topology: ArmTopology,
    /// The interrupt controller.
    pub gic: ArmGic,
    /// Interrupts of each CPU's own.
    pub private: ArmPrivate,
    /// PSCI is called by HVC, else by SMC; `None` where the guest's own firmware has it, and says so.
    pub psci_by_hvc: Option<bool>,
    /// PL011: address and global interrupt.
    pub uart: (u64, u32),
    /// Flash chips.
    pub flash: Vec<Window>,
    /// `fw_cfg` registers.
    pub fw_cfg: Window,
    /// Event selector of the generic event device and its global interrupt.
    pub events: (u32, u32),
    /// Its bit of the power button.
    pub power_button: u32,
    /// The host bridge.
    pub pci: ArmPci,
    /// virtio-mmio transports.
    pub virtio_mmio: Vec<VirtioMmio>,
}

/// Makes the tables of an Arm machine.
pub fn build_arm(board: &ArmBoard) -> Tables {
    let mut out = Tables::default();
    let dsdt = out.add(&dsdt_of(board));
    let fadt = out.add(&fadt(board));
    tables::link_dsdt(&mut out, fadt, dsdt);
    let (ecam, len) = board.pci.ecam;
    let last_bus = (len >> 20).saturating_sub(1) as u8;
    let mut listed = vec![fadt];
    let mut add = |bytes: &[u8]| listed.push(out.add(bytes));
    add(&madt(board));
    add(&pptt(board));
    add(&gtdt(board));
    add(&tables::mcfg(ecam, last_bus));
    add(&spcr(board));
    add(&dbg2(board));
    if let Some(ArmMsi::Its(_)) = board.gic.msi {
        add(&iort());
    }
    out.finish(&listed);
    out
}

/// Fixed ACPI description table without fixed hardware (section 5.2.9).
fn fadt(board: &ArmBoard) -> Vec<u8> {
    const PSCI_COMPLIANT: u16 = 1;
    const PSCI_USE_HVC: u16 = 1 << 1;
    let mut b = Body::new(276);
    b.put(112, &flag::HW_REDUCED_ACPI.to_le_bytes());
    let flags = match board.psci_by_hvc {
        None => 0,
        Some(false) => PSCI_COMPLIANT,
        Some(true) => PSCI_COMPLIANT | PSCI_USE_HVC,
    };
    b.put(129, &flags.to_le_bytes());
    // Minor version.
    b.put(131, &[5]);
    b.put(268, tables::HYPERVISOR);
    table(*b"FACP", 6, &b.0)
}

/// Multiple APIC description table (section 5.2.12).
fn madt(board: &ArmBoard) -> Vec<u8> {
    const ENABLED: u32 = 1;
    let gic = &board.gic;
    let mut body = vec![0; 8];
    // GIC distributor, section 5.2.12.15.
    body.extend_from_slice(&[0xc, 24, 0, 0, 0, 0, 0, 0]);
    body.extend_from_slice(&gic.distributor.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0, 0, gic.version, 0, 0, 0]);
    for (n, affinity) in (0u32..).zip(&board.affinities) {
        // GIC CPU interface, section 5.2.12.14.
        let mut gicc = vec![0; 80];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(slot) = gicc.get_mut(at..at.saturating_add(bytes.len())) {
                slot.copy_from_slice(bytes);
            }
        };
        put(0, &[0xb, 80]);
        put(4, &n.to_le_bytes());
        put(8, &n.to_le_bytes());
        put(12, &ENABLED.to_le_bytes());
        put(20, &board.private.pmu.to_le_bytes());
        if gic.version == 2 {
            put(32, &gic.cpu_interface.to_le_bytes());
        }
        put(56, &gic.maintenance.unwrap_or(0).to_le_bytes());
        put(68, &affinity.to_le_bytes());
        body.extend_from_slice(&gicc);
    }
    for (base, len) in gic.redistributors.iter().filter(|_| gic.version > 2) {
        // Redistributors, section 5.2.12.17.
        body.extend_from_slice(&[0xe, 16, 0, 0]);
        body.extend_from_slice(&base.to_le_bytes());
        body.extend_from_slice(&(*len as u32).to_le_bytes());
    }
    match gic.msi {
        // MSI frame, section 5.2.12.16: its numbers are to be taken from here.
        Some(ArmMsi::Frame(base, first, count)) => {
            body.extend_from_slice(&[0xd, 24, 0, 0, 0, 0, 0, 0]);
            body.extend_from_slice(&base.to_le_bytes());
            body.extend_from_slice(&1u32.to_le_bytes());
            body.extend_from_slice(&count.to_le_bytes());
            body.extend_from_slice(&first.to_le_bytes());
        }
        // ITS, section 5.2.12.18.
        Some(ArmMsi::Its(base)) => {
            body.extend_from_slice(&[0xf, 20, 0, 0, 0, 0, 0, 0]);
            body.extend_from_slice(&base.to_le_bytes());
            body.extend_from_slice(&[0; 4]);
        }
        None => {}
    }
    table(*b"APIC", 4, &body)
}

/// Generic timer description table (section 5.2.25).
fn gtdt(board: &ArmBoard) -> Vec<u8> {
    const ALWAYS_ON: u32 = 1 << 2;
    let mut b = Body::new(104);
    let p = &board.private;
    // No frames in memory.
    b.put(36, &u64::MAX.to_le_bytes());
    for (at, intid, flags) in [
        (48, p.secure_timer, 0),
        (56, p.physical_timer, ALWAYS_ON),
        (64, p.virtual_timer, ALWAYS_ON),
        (72, p.hyp_timer, ALWAYS_ON),
        (96, p.hyp_virtual_timer, ALWAYS_ON),
    ] {
        b.put(at, &intid.to_le_bytes());
        b.put(at.saturating_add(4), &flags.to_le_bytes());
    }
    b.put(80, &u64::MAX.to_le_bytes());
    table(*b"GTDT", 3, &b.0)
}

/// Port subtype of the PL011 in SPCR and DBG2.
const PL011: u8 = 3;

/// Serial port console redirection table, revision 2.
fn spcr(board: &ArmBoard) -> Vec<u8> {
    const GIC: u8 = 1 << 3;
    const BAUD_9600: u8 = 3;
    let (base, gsi) = board.uart;
    let mut b = Body::new(80);
    b.put(36, &[PL011]);
    b.address(40, MEMORY, 4, base);
    b.put(52, &[GIC]);
    b.put(54, &gsi.to_le_bytes());
    b.put(58, &[BAUD_9600]);
    // One stop bit.
    b.put(60, &[1]);
    // No PCI device.
    b.put(64, &[0xff, 0xff, 0xff, 0xff]);
    table(*b"SPCR", 2, &b.0)
}

/// Debug port table 2, revision 0: the console again.
fn dbg2(board: &ArmBoard) -> Vec<u8> {
    const NAME: &[u8] = b"\\_SB.COM0\0";
    const INFO: usize = 44;
    const INFO_LEN: usize = 38;
    const SERIAL: u16 = 0x8000;
    let (base, _) = board.uart;
    let mut b = Body::new(INFO.saturating_add(INFO_LEN).saturating_add(NAME.len()));
    let within = |offset: usize| INFO.saturating_add(offset);
    b.put(36, &(INFO as u32).to_le_bytes());
    b.put(40, &1u32.to_le_bytes());
    let len = INFO_LEN.saturating_add(NAME.len()) as u16;
    b.put(within(1), &len.to_le_bytes());
    b.put(within(3), &[1]);
    b.put(within(4), &(NAME.len() as u16).to_le_bytes());
    b.put(within(6), &(INFO_LEN as u16).to_le_bytes());
    b.put(within(12), &SERIAL.to_le_bytes());
    b.put(within(14), &u16::from(PL011).to_le_bytes());
    // Address, then the size of what is there.
    b.put(within(18), &22u16.to_le_bytes());
    b.put(within(20), &34u16.to_le_bytes());
    b.address(within(22), MEMORY, 4, base);
    b.put(within(34), &0x1000u32.to_le_bytes());
    b.put(within(INFO_LEN), NAME);
    table(*b"DBG2", 0, &b.0)
}

/// Processor properties topology table (section 5.2.30): sockets, clusters, cores, threads.
fn pptt(board: &ArmBoard) -> Vec<u8> {
    const PACKAGE: u32 = 1;
    const HAS_ID: u32 = 1 << 1;
    const IS_THREAD: u32 = 1 << 2;
    const LEAF: u32 = 1 << 3;
    let t = &board.topology;
    let threads = t.threads.max(1);
    let per_cluster = t.cores.max(1).saturating_mul(threads);
    let per_socket = t.clusters.max(1).saturating_mul(per_cluster);
    let mut body: Vec<u8> = Vec::new();
    let mut node = |flags: u32, parent: u32, id: u32| {
        let at = body.len().saturating_add(36) as u32;
        body.extend_from_slice(&[0, 20, 0, 0]);
        for word in [flags, parent, id, 0] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        at
    };
    let group = |n: u32, per: u32| n.checked_div(per).unwrap_or(0);
    let (mut socket, mut cluster, mut core) = (0, 0, 0);
    for (n, _) in (0u32..).zip(&board.affinities) {
        if n.is_multiple_of(per_socket) {
            socket = node(PACKAGE, 0, group(n, per_socket));
        }
        if n.is_multiple_of(per_cluster) {
            cluster = match t.clusters {
                0 | 1 => socket,
                _ => node(0, socket, group(n, per_cluster)),
            };
        }
        if threads == 1 {
            node(HAS_ID | LEAF, cluster, n);
            continue;
        }
        if n.is_multiple_of(threads) {
            core = node(0, cluster, group(n, threads));
        }
        node(HAS_ID | IS_THREAD | LEAF, core, n);
    }
    table(*b"PPTT", 2, &body)
}

/// I/O remapping table: all PCI requesters send their messages to the one ITS.
fn iort() -> Vec<u8> {
    const GROUP: usize = 48;
    const ROOT: usize = GROUP + 24;
    const MAPPINGS: usize = 32;
    let mut b = Body::new(ROOT + MAPPINGS + 20);
    let root = |offset: usize| ROOT.saturating_add(offset);
    // Two nodes from `GROUP` on.
    b.put(36, &2u32.to_le_bytes());
    b.put(40, &(GROUP as u32).to_le_bytes());
    // ITS group of the ITS 0.
    b.put(GROUP, &[0, 24]);
    b.put(GROUP + 16, &1u32.to_le_bytes());
    // Root complex, coherent, segment 0.
    b.put(root(0), &[2, (MAPPINGS + 20) as u8]);
    b.put(root(8), &1u32.to_le_bytes());
    b.put(root(12), &(MAPPINGS as u32).to_le_bytes());
    b.put(root(16), &1u32.to_le_bytes());
    b.put(root(23), &[3]);
    // Requesters 0 to 0xffff keep their numbers.
    b.put(root(MAPPINGS + 4), &0xffffu32.to_le_bytes());
    b.put(root(MAPPINGS + 12), &(GROUP as u32).to_le_bytes());
    table(*b"IORT", 0, &b.0)
}

fn dsdt_of(board: &ArmBoard) -> Vec<u8> {
    let mut out = dsdt::cpus(board.affinities.len());
    let (base, gsi) = board.uart;
    out.push(device(
        "COM0",
        &[
            hid("ARMH0011"),
            name("_UID", &aml::ZERO),
            resources(&[window((base, 0x1000)), interrupts(Trigger::Level, &[gsi])]),
        ],
    ));
    for (n, flash) in (0u8..=9).zip(&board.flash) {
        let children = [
            hid("LNRO0015"),
            name("_UID", &n),
            resources(&[window(*flash)]),
        ];
        out.push(device(&format!("FLS{n}"), &children));
    }
    out.push(device(
        "FWCF",
        &[
            hid("QEMU0002"),
            status(false),
            name("_CCA", &aml::ONE),
            resources(&[window(board.fw_cfg)]),
        ],
    ));
    out.extend(dsdt::virtio_mmio(&board.virtio_mmio, Trigger::Edge));
    out.extend(host_bridge(&board.pci));
    let (selector, gsi) = board.events;
    out.extend(dsdt::events(selector, gsi, board.power_button));
    table(*b"DSDT", 2, &scope("_SB_", &out).0)
}

fn window((base, len): Window) -> Code {
    memory32(base as u32, len as u32)
}

fn host_bridge(root: &ArmPci) -> Vec<Code> {
    let (ecam, ecam_len) = root.ecam;
    let last_bus = (ecam_len >> 20).saturating_sub(1) as u16;
    let last = |(base, len): Window| base.saturating_add(len).saturating_sub(1);
    let cache = AddressSpaceCacheable::NotCacheable;
    let (ports, ports_len) = root.ports;
    let mut windows = vec![
        code(&AddressSpace::new_bus_number(0u16, last_bus)),
        code(&AddressSpace::new_memory(
            cache,
            true,
            root.memory.0 as u32,
            last(root.memory) as u32,
            None,
        )),
        code(&AddressSpace::new_io(
            0u32,
            ports_len.saturating_sub(1) as u32,
            Some(ports as u32),
        )),
    ];
    if let Some(high) = root.high_memory {
        let space = AddressSpace::new_memory(cache, true, high.0, last(high), None);
        windows.push(code(&space));
    }
    let link = |n: u32| format!("GSI{}", n & 3);
    let routes = (0..32u32).flat_map(|slot| {
        (0..4u32).map(move |pin| pci::route(slot, pin, &link(slot.wrapping_add(pin))))
    });
    let routes = crate::asl::package(&routes.collect::<Vec<_>>());
    // The configuration space is no device's: it is kept free by a motherboard resource.
    let kept = AddressSpace::new_memory(cache, true, ecam, last(root.ecam), None);
    let reserved = [eisa("_HID", "PNP0C02"), resources(&[code(&kept)])];
    let children = [
        eisa("_HID", "PNP0A08"),
        eisa("_CID", "PNP0A03"),
        name("_SEG", &aml::ZERO),
        name("_BBN", &aml::ZERO),
        name("_UID", &aml::ZERO),
        name("_CCA", &aml::ONE),
        method_with("_CBA", 0, &[give(&ecam)]),
        resources(&windows),
        name("_PRT", &routes),
        pci::os_capabilities(),
        device("RES0", &reserved),
    ];
    let mut out: Vec<Code> = (0..4u32)
        .map(|n| pci::fixed_link(&link(n), n, root.gsi.saturating_add(n)))
        .collect();
    out.push(device("PCI0", &children));
    out
}
