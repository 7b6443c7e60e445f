//! PCI host bridges: windows, interrupt links and routing, `_OSC`.

use acpi_tables::aml::{self, AddressSpace, AddressSpaceCacheable, FieldAccessType};

use crate::asl::{
    Code, Space, Trigger, call, code, device, dword_field, eisa, field, give, interrupts, memory32,
    method, method_with, name, otherwise, package, path, ports, region, resources, scope, set,
    template, when,
};
use crate::{PciRoot, Routing};

/// ISA interrupts that the chip sets' links may use.
const LINK_IRQS: &[u32] = &[5, 10, 11];
/// Global interrupt of ICH9's first link.
const ICH9_GSI: u32 = 16;
/// A link register's bit 7: not routed.
const OFF: u8 = 0x80;

/// The host bridge with the ISA bridge's devices.
pub(crate) fn root(root: &PciRoot, legacy: &[Code]) -> Vec<Code> {
    let express = root.routing == Routing::Ich9;
    let mut bridge = Vec::new();
    if express {
        bridge.push(eisa("_HID", "PNP0A08"));
        bridge.push(eisa("_CID", "PNP0A03"));
    } else {
        bridge.push(eisa("_HID", "PNP0A03"));
    }
    bridge.push(name("_UID", &aml::ZERO));
    bridge.push(windows(root));
    if express {
        bridge.push(os_capabilities());
    }
    bridge.push(match root.routing {
        Routing::Piix => method("_PRT", &[give(&piix_routing())]),
        Routing::Ich9 => {
            let pic = code(&aml::Equal::new(&path("\\PICF"), &aml::ZERO));
            let body = [
                when(&pic, &[give(&ich9_routing("LNK"))]),
                otherwise(&[give(&ich9_routing("GSI"))]),
            ];
            method("_PRT", &body)
        }
    });
    if let Some(ecam) = root.ecam.and_then(|base| u32::try_from(base).ok()) {
        // The configuration space is no device's: it is kept free by a motherboard resource.
        let len = (u32::from(root.last_bus).saturating_add(1)).saturating_mul(1 << 20);
        let children = [eisa("_HID", "PNP0C01"), resources(&[memory32(ecam, len)])];
        bridge.push(device("DRAC", &children));
    }
    bridge.push(isa_bridge(root.routing, legacy));

    let mut out = Vec::new();
    if express {
        out.push(name("PICF", &aml::ZERO));
        let body = [set(&path("PICF"), &aml::Arg(0))];
        out.push(method_with("_PIC", 1, &body));
    }
    out.push(scope("_SB_", &[device("PCI0", &bridge)]));
    out.push(scope("_SB_", &links(root.routing)));
    out
}

/// `_CRS`: what the bridge hands down.
fn windows(root: &PciRoot) -> Code {
    let mut list = vec![
        code(&AddressSpace::new_bus_number(0u16, root.last_bus.into())),
        ports(0xcf8, 8),
    ];
    for (first, last) in &root.io {
        if first <= last && (*first, *last) != (0, u16::MAX) {
            list.push(code(&AddressSpace::new_io(*first, *last, None)));
        }
    }
    let cache = AddressSpaceCacheable::NotCacheable;
    for (first, last) in &root.memory {
        if first > last || (*first, *last) == (0, u64::MAX) {
            continue;
        }
        list.push(match (u32::try_from(*first), u32::try_from(*last)) {
            (Ok(first), Ok(last)) if (first, last) != (0, u32::MAX) => {
                code(&AddressSpace::new_memory(cache, true, first, last, None))
            }
            _ => code(&AddressSpace::new_memory(cache, true, *first, *last, None)),
        });
    }
    resources(&list)
}

/// `_OSC` of PCI Express host bridges: everything the guest asks for but native hot plug that no
/// port has (PCI Firmware Specification 3.3, section 4.5).
pub(crate) fn os_capabilities() -> Code {
    const UUID: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
    /// Native hot plug and PME, AER, the Express capability.
    const GRANTED: u32 = 0x1f;
    const UNKNOWN_UUID: u8 = 4;
    const UNKNOWN_REVISION: u8 = 8;
    const MASKED: u8 = 16;
    let or = |name: &str, bits: u8| {
        let target = path(name);
        code(&aml::Or::new(&target, &target, &bits))
    };
    let wanted = code(&aml::And::new(&aml::Local(0), &path("CDW3"), &GRANTED));
    let old = code(&aml::NotEqual::new(&aml::Arg(1), &aml::ONE));
    let cut = code(&aml::NotEqual::new(&path("CDW3"), &aml::Local(0)));
    let known = [
        dword_field(&aml::Arg(3), 8, "CDW3"),
        wanted,
        when(&old, &[or("CDW1", UNKNOWN_REVISION)]),
        when(&cut, &[or("CDW1", MASKED)]),
        set(&path("CDW3"), &aml::Local(0)),
    ];
    let ours = code(&aml::Equal::new(&aml::Arg(0), &aml::Uuid::new(UUID)));
    let body = [
        dword_field(&aml::Arg(3), 0, "CDW1"),
        when(&ours, &known),
        otherwise(&[or("CDW1", UNKNOWN_UUID)]),
        give(&aml::Arg(3)),
    ];
    method_with("_OSC", 4, &body)
}

/// One `_PRT` entry: all functions of a slot, a pin, the link.
pub(crate) fn route(slot: u32, pin: u32, link: &str) -> Code {
    let address = slot << 16 | 0xffff;
    package(&[code(&address), code(&pin), path(link), code(&aml::ZERO)])
}

/// PIIX3: pins rotate over links A to D by slot.
fn piix_routing() -> Code {
    let entries = (0..32u32).flat_map(|slot| {
        (0..4u32).map(move |pin| {
            let link = slot.wrapping_add(pin).wrapping_sub(1) & 3;
            route(slot, pin, &link_name("LNK", link))
        })
    });
    package(&entries.collect::<Vec<_>>())
}

/// ICH9: slots 0 to 24 and 30 rotate over links E to H, the chip set's own devices use A to D in
/// order, as the reset values of their route registers say.
fn ich9_routing(prefix: &str) -> Code {
    let entries = (0..32u32).flat_map(|slot| {
        (0..4u32).map(move |pin| {
            let link = match slot {
                0..=24 | 30 => slot.wrapping_add(pin) & 3 | 4,
                _ => pin,
            };
            route(slot, pin, &link_name(prefix, link))
        })
    });
    package(&entries.collect::<Vec<_>>())
}

fn link_name(prefix: &str, link: u32) -> String {
    let letter = (b'A'..=b'H').nth(link as usize).unwrap_or(b'A');
    format!("{prefix}{}", char::from(letter))
}

/// The bridge to ISA with its link registers and devices.
fn isa_bridge(routing: Routing, legacy: &[Code]) -> Code {
    let mut children = match routing {
        Routing::Piix => vec![
            name("_ADR", &0x0001_0000u32),
            region("PIRQ", Space::PCIConfig, 0x60, 4),
            field(
                "PIRQ",
                FieldAccessType::Byte,
                &[(b"PRQA", 8), (b"PRQB", 8), (b"PRQC", 8), (b"PRQD", 8)],
            ),
        ],
        Routing::Ich9 => vec![
            name("_ADR", &0x001f_0000u32),
            region("PIRQ", Space::PCIConfig, 0x60, 12),
            field(
                "PIRQ",
                FieldAccessType::Byte,
                &[
                    (b"PRQA", 8),
                    (b"PRQB", 8),
                    (b"PRQC", 8),
                    (b"PRQD", 8),
                    (b"    ", 32),
                    (b"PRQE", 8),
                    (b"PRQF", 8),
                    (b"PRQG", 8),
                    (b"PRQH", 8),
                ],
            ),
        ],
    };
    children.extend_from_slice(legacy);
    device("ISA_", &children)
}

/// The link devices and what they share.
fn links(routing: Routing) -> Vec<Code> {
    let mut out = vec![link_status(), link_resources()];
    let count = match routing {
        Routing::Piix => 4,
        Routing::Ich9 => 8,
    };
    for n in 0..count {
        let register = format!("\\_SB_.PCI0.ISA_.{}", link_name("PRQ", n));
        out.push(link(n, &register));
    }
    if routing == Routing::Ich9 {
        for n in 0..count {
            let gsi = ICH9_GSI.saturating_add(n);
            out.push(fixed_link(&link_name("GSI", n), gsi, gsi));
        }
    }
    out
}

/// `IQST(register)`: `_STA` of a link.
fn link_status() -> Code {
    let off = code(&aml::And::new(&aml::ZERO, &aml::Arg(0), &OFF));
    let body = [when(&off, &[give(&0x09u8)]), give(&0x0bu8)];
    method_with("IQST", 1, &body)
}

/// `IQCR(register)`: `_CRS` of a link.
fn link_resources() -> Code {
    let routed = code(&aml::LessThan::new(&aml::Arg(0), &OFF));
    let body = [
        name("PRR0", &template(&[interrupts(Trigger::LevelShared, &[0])])),
        dword_field(&path("PRR0"), 5, "PRRI"),
        when(&routed, &[set(&path("PRRI"), &aml::Arg(0))]),
        give(&path("PRR0")),
    ];
    method_with("IQCR", 1, &body)
}

/// A link routed by a register.
fn link(n: u32, register: &str) -> Code {
    let register = path(register);
    let disable = code(&aml::Or::new(&register, &register, &OFF));
    let route = [
        dword_field(&aml::Arg(0), 5, "PRRI"),
        set(&register, &path("PRRI")),
    ];
    let args = [register.clone()];
    let children = [
        eisa("_HID", "PNP0C0F"),
        name("_UID", &n),
        name(
            "_PRS",
            &template(&[interrupts(Trigger::LevelShared, LINK_IRQS)]),
        ),
        method("_STA", &[give(&call("IQST", &args))]),
        method("_DIS", &[disable]),
        method("_CRS", &[give(&call("IQCR", &args))]),
        method_with("_SRS", 1, &route),
    ];
    device(&link_name("LNK", n), &children)
}

/// A link that is always the same global interrupt.
pub(crate) fn fixed_link(link: &str, uid: u32, gsi: u32) -> Code {
    let list = template(&[interrupts(Trigger::LevelShared, &[gsi])]);
    let children = [
        eisa("_HID", "PNP0C0F"),
        name("_UID", &uid),
        name("_PRS", &list),
        name("_CRS", &list),
        method_with("_SRS", 1, &[]),
    ];
    device(link, &children)
}
