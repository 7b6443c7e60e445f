//! The differentiated system description table: devices that buses do not find.

use acpi_tables::aml::{self, FieldAccessType};

use crate::asl::{
    Code, Space, Trigger, code, device, eisa, field, give, hid, interrupts, irq, memory32,
    method_with, name, package, path, ports, region, resources, scope, set, status, when,
};
use crate::{Board, Legacy, Power, VirtioMmio, pci, tables};

/// The table.
pub(crate) fn dsdt(board: &Board) -> Vec<u8> {
    let mut body = Vec::new();
    let mut add = |part: Code| body.extend_from_slice(&part.0);
    let legacy = legacy(board);
    match &board.pci {
        Some(root) => pci::root(root, &legacy).into_iter().for_each(&mut add),
        None => add(scope("_SB_", &legacy)),
    }
    add(scope("_SB_", &system(board)));
    sleep_states(board).into_iter().for_each(&mut add);
    tables::table(*b"DSDT", 2, &body)
}

/// CPUs; names have room for 4096.
pub(crate) fn cpus(count: usize) -> Vec<Code> {
    let uids = (0u32..=0xfff).take(count);
    uids.map(|uid| {
        let children = [hid("ACPI0007"), name("_UID", &uid)];
        device(&format!("C{uid:03X}"), &children)
    })
    .collect()
}

/// virtio-mmio transports; names have room for 256.
pub(crate) fn virtio_mmio(slots: &[VirtioMmio], trigger: Trigger) -> impl Iterator<Item = Code> {
    (0u32..=0xff).zip(slots).map(move |(uid, slot)| {
        let children = [
            hid("LNRO0005"),
            name("_UID", &uid),
            name("_CCA", &aml::ONE),
            resources(&[memory32(slot.base, 0x200), interrupts(trigger, &[slot.gsi])]),
        ];
        device(&format!("VR{uid:02X}"), &children)
    })
}

/// Devices without a bus.
fn system(board: &Board) -> Vec<Code> {
    let mut out = cpus(board.apic_ids.len());
    if let Some(address) = board.hpet {
        let children = [
            eisa("_HID", "PNP0103"),
            name("_UID", &aml::ZERO),
            status(true),
            resources(&[code(&aml::Memory32Fixed::new(false, address, 0x400))]),
        ];
        out.push(device("HPET", &children));
    }
    if let Some(port) = board.fw_cfg {
        let children = [
            hid("QEMU0002"),
            status(false),
            resources(&[ports(port, 12)]),
        ];
        out.push(device("FWCF", &children));
    }
    if let Some(port) = board.pvpanic {
        out.push(pvpanic(port));
    }
    out.extend(virtio_mmio(&board.virtio_mmio, Trigger::Level));
    if let Power::Reduced(events) = &board.power {
        out.extend(self::events(events.events, events.gsi, events.power_button));
    }
    out
}

fn pvpanic(port: u16) -> Code {
    let read = method_with("RDPT", 0, &[give(&path("PEPT"))]);
    let write = method_with("WRPT", 1, &[set(&path("PEPT"), &aml::Arg(0))]);
    let children = [
        hid("QEMU0001"),
        status(true),
        resources(&[ports(port, 1)]),
        region("PEOR", Space::SystemIO, port.into(), 1),
        field("PEOR", FieldAccessType::Byte, &[(b"PEPT", 8)]),
        read,
        write,
    ];
    device("PEVT", &children)
}

/// The event device and the button it reports: address of the selector, interrupt, the button's bit.
pub(crate) fn events(selector: u32, gsi: u32, bit: u32) -> [Code; 2] {
    let button = device("PWRB", &[eisa("_HID", "PNP0C0C"), name("_UID", &aml::ZERO)]);
    let masked = code(&aml::And::new(&aml::ZERO, &aml::Local(0), &bit));
    let pressed = code(&aml::Equal::new(&masked, &bit));
    let notify = code(&aml::Notify::new(&path("PWRB"), &0x80u8));
    let handler = [
        set(&aml::Local(0), &path("ESEL")),
        when(&pressed, &[notify]),
    ];
    let children = [
        hid("ACPI0013"),
        name("_UID", &aml::ZERO),
        resources(&[interrupts(Trigger::Edge, &[gsi])]),
        region("EREG", Space::SystemMemory, selector, 4),
        field("EREG", FieldAccessType::DWord, &[(b"ESEL", 32)]),
        method_with("_EVT", 1, &handler),
    ];
    [button, device("GED_", &children)]
}

/// Devices at legacy ports.
fn legacy(board: &Board) -> Vec<Code> {
    let Legacy {
        rtc,
        i8042,
        serial,
        parallel,
        vga: _,
    } = &board.legacy;
    let mut out = Vec::new();
    if let Some(number) = rtc {
        let list = [ports(0x70, 8), irq(*number)];
        out.push(device("RTC_", &[eisa("_HID", "PNP0B00"), resources(&list)]));
    }
    if *i8042 {
        let list = [ports(0x60, 1), ports(0x64, 1), irq(1)];
        let keyboard = [eisa("_HID", "PNP0303"), status(true), resources(&list)];
        out.push(device("KBD_", &keyboard));
        let mouse = [eisa("_HID", "PNP0F13"), status(true), resources(&[irq(12)])];
        out.push(device("MOU_", &mouse));
    }
    for (uid, at) in (1u8..=0xf).zip(serial) {
        let children = [
            eisa("_HID", "PNP0501"),
            name("_UID", &uid),
            status(true),
            resources(&[ports(at.port, 8), irq(at.irq)]),
        ];
        out.push(device(&format!("COM{uid:X}"), &children));
    }
    for (uid, at) in (1u8..=0xf).zip(parallel) {
        let children = [
            eisa("_HID", "PNP0400"),
            name("_UID", &uid),
            status(true),
            resources(&[ports(at.port, 8), irq(at.irq)]),
        ];
        out.push(device(&format!("LPT{uid:X}"), &children));
    }
    out
}

/// `\_S3` and `\_S5`.
fn sleep_states(board: &Board) -> Vec<Code> {
    let state = |object: &str, kind: u8| {
        let kinds = [code(&kind), code(&kind), code(&aml::ZERO), code(&aml::ZERO)];
        name(object, &package(&kinds))
    };
    match &board.power {
        Power::Fixed(fixed) if fixed.s3 => vec![state("_S3_", 1), state("_S5_", 0)],
        Power::Fixed(_) => vec![state("_S5_", 0)],
        Power::Reduced(events) => vec![state("_S5_", events.s5)],
    }
}
