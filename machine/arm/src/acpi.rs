//! `virt` as its ACPI tables describe it, for firmware to hand on.

use device_acpi::ged_register::POWER_BUTTON;
use device_intc::GicVersion;
use firmware_acpi::{
    ArmBoard, ArmGic, ArmMsi, ArmPci, ArmPrivate, ArmTopology, VirtioMmio, Window,
};
use machine_core::MachineSpec;
use target_arm::Conduit;

use crate::fdt::slot;
use crate::map::{self, FIRST_SPI, Place, ppi, spi};
use crate::virt::Shape;

fn window(place: Place) -> Window {
    (place.base, place.len)
}

/// The board of the tables.
pub(crate) fn board(spec: &MachineSpec, shape: &Shape) -> ArmBoard {
    let gsi = |line: u32| FIRST_SPI + line;
    let t = &spec.topology;
    let flash = window(map::FLASH);
    ArmBoard {
        affinities: shape.affinities.clone(),
        topology: ArmTopology {
            clusters: t.clusters,
            cores: t.cores,
            threads: t.threads,
        },
        gic: ArmGic {
            version: shape.gic.number(),
            distributor: map::GIC_DISTRIBUTOR.base,
            cpu_interface: map::GIC_CPU.base,
            redistributors: (shape.redistributors.iter())
                .map(|(base, count)| (*base, device_intc::REDISTRIBUTOR_LEN * *count as u64))
                .collect(),
            msi: match shape.gic {
                GicVersion::V2 => Some(ArmMsi::Frame(
                    map::GIC_V2M.base,
                    gsi(spi::V2M) as u16,
                    spi::V2M_COUNT as u16,
                )),
                GicVersion::V3 => shape.has_its.then_some(ArmMsi::Its(map::GIC_ITS.base)),
            },
            maintenance: shape.has_el2.then_some(ppi::GIC_MAINTENANCE),
        },
        private: ArmPrivate {
            secure_timer: ppi::SECURE_TIMER,
            physical_timer: ppi::PHYSICAL_TIMER,
            virtual_timer: ppi::VIRTUAL_TIMER,
            hyp_timer: ppi::HYP_TIMER,
            hyp_virtual_timer: ppi::HYP_VIRTUAL_TIMER,
            pmu: if shape.has_pmu { ppi::PMU } else { 0 },
        },
        psci_by_hvc: shape.conduit.map(|conduit| conduit == Conduit::Hvc),
        uart: (map::UART.base, gsi(spi::UART)),
        // The secure world's is none of theirs.
        flash: match shape.has_el3 {
            true => vec![(flash.0 + flash.1, flash.1)],
            false => vec![flash, (flash.0 + flash.1, flash.1)],
        },
        fw_cfg: window(map::FW_CFG),
        events: (map::GED.base as u32, gsi(spi::GED)),
        power_button: POWER_BUTTON,
        pci: ArmPci {
            ecam: window(shape.ecam),
            ports: window(map::PCIE_PORTS),
            memory: window(map::PCIE_MEMORY),
            high_memory: shape.high_memory.map(window),
            gsi: gsi(spi::PCIE),
        },
        virtio_mmio: (0..map::VIRTIO_SLOTS)
            .map(|n| VirtioMmio {
                base: slot(n) as u32,
                gsi: gsi(spi::VIRTIO + n),
            })
            .collect(),
    }
}
