//! The device tree of `virt`, as kernels and firmware know it from QEMU.
//!
//! Spec: Devicetree Specification v0.4, and the bindings of Linux `Documentation/devicetree`.

use device_intc::GicVersion;
use device_pci::GpexLines;
use firmware_fdt::{Node, big_endian};
use target_arm::Conduit;

use crate::map::{self, Place, ppi, spi};

/// Handles that nodes name each other by.
mod handle {
    pub(super) const CLOCK: u32 = 0x8000;
    pub(super) const GIC: u32 = 0x8001;
    pub(super) const V2M: u32 = 0x8002;
    pub(super) const GPIO: u32 = 0x8003;
    pub(super) const ITS: u32 = 0x8004;
    pub(super) const SECURE_GPIO: u32 = 0x8005;
}

/// Interrupt specifiers (binding `arm,gic`): kind, number, flags.
const SPI: u32 = 0;
const PPI: u32 = 1;
const EDGE: u32 = 1;
const LEVEL: u32 = 4;
/// KEY_POWER of Linux's input event codes.
const KEY_POWER: u32 = 116;
/// PCI address space codes (IEEE 1275 PCI binding, 2.2.1.1).
const PCI_IO: u32 = 0x0100_0000;
const PCI_MEMORY: u32 = 0x0200_0000;
const PCI_MEMORY_64: u32 = 0x0300_0000;

/// What the tree says of a machine.
pub(crate) struct Tree<'a> {
    pub(crate) ram: u64,
    pub(crate) gic: GicVersion,
    /// The GIC has a translation service.
    pub(crate) has_its: bool,
    /// Base and count of each region of redistributors.
    pub(crate) redistributors: &'a [(u64, usize)],
    pub(crate) affinities: &'a [u64],
    pub(crate) compatible: &'a str,
    /// What the machine says that it is, if not QEMU's.
    pub(crate) board: Option<String>,
    /// How we are called, if we are the firmware.
    pub(crate) conduit: Option<Conduit>,
    /// There is a secure world, with parts of its own.
    pub(crate) has_el3: bool,
    pub(crate) has_el2: bool,
    pub(crate) ecam: Place,
    /// PCI memory above RAM.
    pub(crate) high_memory: Option<Place>,
    pub(crate) has_pmu: bool,
    /// The power key is at a pin, not an ACPI event.
    pub(crate) has_key: bool,
}

fn unit(name: &str, place: Place) -> Node {
    let Place { base, len } = place;
    Node::new(format!("{name}@{base:x}")).numbers("reg", &[base, len])
}

fn cells(value: u64) -> [u32; 2] {
    [(value >> 32) as u32, value as u32]
}

impl Tree<'_> {
    /// The root.
    pub(crate) fn root(&self) -> Node {
        let board = self.board.as_deref().unwrap_or("linux,dummy-virt");
        let mut root = Node::new("")
            .cell("interrupt-parent", handle::GIC)
            .text("model", "linux,dummy-virt")
            .cell("#size-cells", 2)
            .cell("#address-cells", 2)
            .text("compatible", board);
        if let Some(conduit) = self.conduit {
            root = root.with(psci(conduit));
        }
        root = root
            .with(
                unit(
                    "memory",
                    Place {
                        base: map::RAM_BASE,
                        len: self.ram,
                    },
                )
                .text("device_type", "memory"),
            )
            .with(
                unit("fw-cfg", map::FW_CFG)
                    .flag("dma-coherent")
                    .text("compatible", "qemu,fw-cfg-mmio"),
            );
        root.children.extend(self.virtio());
        root.children.extend(self.flash());
        if self.has_el3 {
            root.children.extend(secure_parts());
        }
        if self.has_key {
            root = root.with(keys()).with(
                peripheral("pl061", map::GPIO, spi::GPIO, &["apb_pclk"])
                    .cell("phandle", handle::GPIO)
                    .flag("gpio-controller")
                    .cell("#gpio-cells", 2),
            );
        }
        if self.has_pmu {
            root = root.with(
                Node::new("pmu")
                    .cells(
                        "interrupts",
                        &[PPI, ppi::PMU.saturating_sub(16), self.ppi_flags()],
                    )
                    .text("compatible", "arm,armv8-pmuv3"),
            );
        }
        root.with(self.pcie())
            .with(peripheral("pl031", map::RTC, spi::RTC, &["apb_pclk"]))
            .with(peripheral(
                "pl011",
                map::UART,
                spi::UART,
                &["uartclk", "apb_pclk"],
            ))
            .with(self.intc())
            .with(self.cpus())
            .with(self.timer())
            .with(
                Node::new("apb-pclk")
                    .cell("phandle", handle::CLOCK)
                    .text("clock-output-names", "clk24mhz")
                    .cell("clock-frequency", 24_000_000)
                    .cell("#clock-cells", 0)
                    .text("compatible", "fixed-clock"),
            )
            .with(Node::new("chosen").text("stdout-path", &format!("/pl011@{:x}", map::UART.base)))
    }

    fn flash(&self) -> Vec<Node> {
        let Place { base, len } = map::FLASH;
        let second = Place {
            base: base.saturating_add(len),
            len,
        };
        let chip = |node: Node| node.cell("bank-width", 4).text("compatible", "cfi-flash");
        if self.has_el3 {
            let first = secure(unit("secflash", map::FLASH));
            return vec![chip(first), chip(unit("flash", second))];
        }
        let both = [base, len, second.base, len];
        let node = Node::new(format!("flash@{base:x}")).numbers("reg", &both);
        vec![chip(node)]
    }

    fn virtio(&self) -> impl Iterator<Item = Node> {
        (0..map::VIRTIO_SLOTS).map(|n| {
            let place = Place {
                base: slot(n),
                ..map::VIRTIO
            };
            unit("virtio_mmio", place)
                .flag("dma-coherent")
                .cells("interrupts", &[SPI, spi::VIRTIO.wrapping_add(n), EDGE])
                .text("compatible", "virtio,mmio")
        })
    }

    fn pcie(&self) -> Node {
        let buses = (self.ecam.len >> 20).saturating_sub(1) as u32;
        let Place { base, len } = map::PCIE_MEMORY;
        let mut ranges = Vec::new();
        let mut range = |code: u32, bus: u64, base: u64, len: u64| {
            ranges.push(code);
            ranges.extend([cells(bus), cells(base), cells(len)].concat());
        };
        range(PCI_IO, 0, map::PCIE_PORTS.base, map::PCIE_PORTS.len);
        range(PCI_MEMORY, base, base, len);
        if let Some(Place { base, len }) = self.high_memory {
            range(PCI_MEMORY_64, base, base, len);
        }
        let mut wires = Vec::new();
        for slot in 0..4u8 {
            for pin in 0..4u8 {
                let line = spi::PCIE.wrapping_add(GpexLines::wire(slot, pin).into());
                wires.extend([u32::from(slot) << 11, 0, 0, u32::from(pin).wrapping_add(1)]);
                wires.extend([handle::GIC, 0, 0, SPI, line, LEVEL]);
            }
        }
        let mut node = Node::new(format!("pcie@{base:x}"))
            .cells("interrupt-map-mask", &[0x1800, 0, 0, 7])
            .cells("interrupt-map", &wires)
            .cell("#interrupt-cells", 1)
            .cells("ranges", &ranges)
            .numbers("reg", &[self.ecam.base, self.ecam.len])
            .flag("dma-coherent")
            .cells("bus-range", &[0, buses])
            .cell("linux,pci-domain", 0)
            .cell("#size-cells", 2)
            .cell("#address-cells", 3)
            .text("device_type", "pci")
            .text("compatible", "pci-host-ecam-generic");
        let messages = match self.gic {
            GicVersion::V2 => Some(handle::V2M),
            GicVersion::V3 => self.has_its.then_some(handle::ITS),
        };
        if let Some(controller) = messages {
            // All requesters send to it by their own number.
            node.set("msi-map", big_endian(&[0, controller, 0, 0x1_0000]));
        }
        node
    }

    fn intc(&self) -> Node {
        let Place { base, len } = map::GIC_DISTRIBUTOR;
        let node = Node::new(format!("intc@{base:x}"))
            .cell("phandle", handle::GIC)
            .cell("#interrupt-cells", 3)
            .flag("interrupt-controller")
            .cell("#address-cells", 2)
            .cell("#size-cells", 2)
            .flag("ranges");
        match self.gic {
            GicVersion::V2 => node
                .numbers("reg", &[base, len, map::GIC_CPU.base, map::GIC_CPU.len])
                .text("compatible", "arm,cortex-a15-gic")
                .with(
                    unit("v2m", map::GIC_V2M)
                        .cell("phandle", handle::V2M)
                        .flag("msi-controller")
                        .text("compatible", "arm,gic-v2m-frame"),
                ),
            GicVersion::V3 => {
                let mut reg = vec![base, len];
                for (base, count) in self.redistributors {
                    let len = device_intc::REDISTRIBUTOR_LEN.saturating_mul(*count as u64);
                    reg.extend([*base, len]);
                }
                let mut node = node
                    .numbers("reg", &reg)
                    .cell("#redistributor-regions", self.redistributors.len() as u32)
                    .text("compatible", "arm,gic-v3");
                if self.has_el2 {
                    // Without it no hypervisor takes the virtual CPU interfaces.
                    let wire = ppi::GIC_MAINTENANCE.saturating_sub(16);
                    node.set("interrupts", big_endian(&[PPI, wire, LEVEL]));
                }
                if self.has_its {
                    node = node.with(
                        unit("its", map::GIC_ITS)
                            .cell("phandle", handle::ITS)
                            .cell("#msi-cells", 1)
                            .flag("msi-controller")
                            .text("compatible", "arm,gic-v3-its"),
                    );
                }
                node
            }
        }
    }

    fn cpus(&self) -> Node {
        let mut cpus = Node::new("cpus")
            .cell("#size-cells", 0)
            .cell("#address-cells", 1);
        for affinity in self.affinities {
            let cpu = Node::new(format!("cpu@{affinity:x}"))
                .text("device_type", "cpu")
                .text("compatible", self.compatible);
            let cpu = match self.conduit {
                Some(_) => cpu.text("enable-method", "psci"),
                None => cpu,
            };
            cpus.children.push(cpu.cell("reg", *affinity as u32));
        }
        cpus
    }

    /// Of a private interrupt, which all CPUs have: version 2 says so in the upper bits.
    fn ppi_flags(&self) -> u32 {
        match self.gic {
            GicVersion::V2 => {
                let cpus = self.affinities.len().min(8) as u32;
                (1u32.wrapping_shl(cpus).wrapping_sub(1)) << 8 | LEVEL
            }
            GicVersion::V3 => LEVEL,
        }
    }

    fn timer(&self) -> Node {
        let flags = self.ppi_flags();
        let timers = [
            ppi::SECURE_TIMER,
            ppi::PHYSICAL_TIMER,
            ppi::VIRTUAL_TIMER,
            ppi::HYP_TIMER,
            ppi::HYP_VIRTUAL_TIMER,
        ];
        let each = timers.map(|intid| [PPI, intid.saturating_sub(16), flags]);
        Node::new("timer")
            .cells("interrupts", &each.concat())
            .flag("always-on")
            .texts("compatible", &["arm,armv8-timer", "arm,armv7-timer"])
    }
}

fn psci(conduit: Conduit) -> Node {
    let method = match conduit {
        Conduit::Hvc => "hvc",
        Conduit::Smc => "smc",
    };
    Node::new("psci")
        .cell("cpu_on", 0xc400_0003)
        .cell("cpu_off", 0x8400_0002)
        .cell("cpu_suspend", 0xc400_0001)
        .text("method", method)
        .texts("compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])
}

/// For the secure world alone (Linux's binding `arm/secure.txt`).
fn secure(node: Node) -> Node {
    node.text("status", "disabled")
        .text("secure-status", "okay")
}

fn secure_parts() -> [Node; 6] {
    let ram = unit("secram", map::SECURE_RAM).text("device_type", "memory");
    let uart = peripheral(
        "pl011",
        map::SECURE_UART,
        spi::SECURE_UART,
        &["uartclk", "apb_pclk"],
    );
    let line = crate::secure::GPIO_LINE;
    let gpio = peripheral("pl061", map::SECURE_GPIO, line, &["apb_pclk"])
        .cell("phandle", handle::SECURE_GPIO)
        .flag("gpio-controller")
        .cell("#gpio-cells", 2);
    let switch = |name: &str, pin: u8| {
        let node = Node::new(name).text("compatible", name);
        secure(node.cells("gpios", &[handle::SECURE_GPIO, pin.into(), 0]))
    };
    let chosen = format!("/pl011@{:x}", map::SECURE_UART.base);
    [
        secure(ram),
        secure(uart),
        secure(gpio),
        switch("gpio-poweroff", crate::secure::pin::POWER_OFF),
        switch("gpio-restart", crate::secure::pin::RESET),
        Node::new("secure-chosen").text("stdout-path", &chosen),
    ]
}

/// Address of a virtio slot.
pub(crate) fn slot(n: u32) -> u64 {
    let offset = u64::from(n).saturating_mul(map::VIRTIO.len);
    map::VIRTIO.base.saturating_add(offset)
}

fn peripheral(name: &str, place: Place, line: u32, clocks: &[&str]) -> Node {
    let handles = vec![handle::CLOCK; clocks.len()];
    unit(name, place)
        .texts("clock-names", clocks)
        .cells("clocks", &handles)
        .cells("interrupts", &[SPI, line, LEVEL])
        .texts("compatible", &[&format!("arm,{name}"), "arm,primecell"])
}

fn keys() -> Node {
    Node::new("gpio-keys").text("compatible", "gpio-keys").with(
        Node::new("poweroff")
            .cells("gpios", &[handle::GPIO, crate::virt::POWER_PIN.into(), 0])
            .cell("linux,code", KEY_POWER)
            .text("label", "GPIO Key Poweroff"),
    )
}
