//! `virt`: a machine of paravirtual devices that no real board constrains.

use std::sync::Arc;

use device_acpi::Ged;
use device_fwcfg::{FwCfg, Items, keys};
use device_gpio::{Key, Pl061};
use device_intc::{
    Gic, GicIts, GicSecurity, GicV2Device, GicV2m, GicV2mConfig, GicV3Device, GicVersion, ItsModel,
};
use device_pci::{Gpex, GpexConfig, GpexLines};
use device_rtc::{Pl031, Pl031Config, RtcBase};
use device_timer::{GenericTimer, GenericTimers, GenericTimersDevice};
use hw_core::{
    BusKind, Clock, Device, IrqHub, IrqSink, Links, Msi, MsiSink, Placement, PowerButton, PropType,
    PropValue,
};
use hw_intc::GicPlaces;
use hw_pci::PciBus;
use hw_virtio::{MmioSlot, VIRTIO_MMIO, VirtioMmio};
use machine_core::{Board, BoardError, Machine, MachineSpec, Parts, ram_at};
use runtime::Handle;
use target_arm::{Conduit, Peers, Setup};

use crate::accelerator::{Accelerator, Controllers, CpuWires};
use crate::boot::{Direct, Ram};
use crate::fdt::{Tree, slot};
use crate::map::{self, HighMap, HighParts, Place, ppi, spi};
use crate::port::{Ear, VirtPort};
use crate::power::{Psci, PsciDevice};
use crate::secure;
use crate::seeds::{self, SeededTree};
use crate::semihosting::HostLink;
use crate::{firmware, gic};

/// Pin of the power key.
pub(crate) const POWER_PIN: u8 = 3;
/// Redistributors below RAM.
const LOW_REDISTRIBUTORS: usize =
    (map::GIC_REDISTRIBUTORS.len / device_intc::REDISTRIBUTOR_LEN) as usize;
const FOUR_GIB: u64 = 1 << 32;

/// What follows from the machine's properties.
pub(crate) struct Shape {
    pub(crate) gic: GicVersion,
    /// The GIC has a translation service.
    pub(crate) has_its: bool,
    pub(crate) affinities: Vec<u64>,
    /// Base and count of each region of redistributors.
    pub(crate) redistributors: Vec<(u64, usize)>,
    /// How the firmware that we are is called; with the guest's own at EL3, there is none.
    pub(crate) conduit: Option<Conduit>,
    pub(crate) has_el2: bool,
    pub(crate) has_el3: bool,
    pub(crate) ecam: Place,
    /// PCI memory above RAM.
    pub(crate) high_memory: Option<Place>,
    pub(crate) has_pmu: bool,
    /// There are ACPI tables, and firmware to hand them on.
    pub(crate) has_acpi: bool,
}

pub(crate) fn config(text: String) -> BoardError {
    BoardError::Config(text)
}

/// What the properties want above RAM.
fn high_parts(spec: &MachineSpec, reach: u64) -> Result<HighParts, BoardError> {
    let is_on = |name| spec.switch(name) != Some(false);
    let len = spec.property("highmem-mmio-size").unwrap_or_default();
    let len = match PropType::Size.parse(&len) {
        Some(PropValue::Unsigned(len)) if len.is_power_of_two() && len >= map::HIGH_MEMORY => len,
        _ => {
            return Err(config(format!(
                "-machine: 'highmem-mmio-size={len}' is no power of two from 512G on"
            )));
        }
    };
    Ok(HighParts {
        redistributors: is_on("highmem-redists"),
        ecam: is_on("highmem-ecam"),
        memory: is_on("highmem-mmio").then_some(len),
        is_compact: is_on("compact-highmem"),
        reach,
    })
}

impl Shape {
    fn of(spec: &MachineSpec, accelerator: &dyn Accelerator) -> Result<Self, BoardError> {
        let kernel = accelerator.kernel();
        let gic = gic::version(spec, kernel)?;
        let has_el2 = spec.switch("virtualization") == Some(true);
        if kernel.is_some() {
            gic::refuse_under_kernel(spec)?;
        }
        if spec.property("iommu").is_some_and(|iommu| iommu != "none") {
            return Err(config(
                "-machine: 'iommu=smmuv3' is not available yet; leave it out".into(),
            ));
        }
        let has_high = spec.switch("highmem") != Some(false);
        let bits = accelerator.physical_bits();
        let reach = 1u64.checked_shl(bits).unwrap_or(u64::MAX);
        let limit = if has_high { reach } else { FOUR_GIB };
        if map::RAM_BASE
            .checked_add(spec.memory)
            .is_none_or(|end| end > limit)
        {
            return Err(config(format!(
                "-m: {} bytes of memory end above {limit:#x}, the last address {}",
                spec.memory,
                match has_high {
                    true => format!(
                        "of this CPU, which has {bits} bits of it; {}",
                        gic::more_bits(kernel)
                    ),
                    false => "with 'highmem=off'; leave that out".to_owned(),
                }
            )));
        }
        let high = match has_high {
            true => HighMap::above(spec.memory, high_parts(spec, reach)?),
            false => HighMap::default(),
        };
        let high_redistributors = high.redistributors;
        let cpus = usize::try_from(spec.topology.cpus).unwrap_or(usize::MAX);
        let machine = spec.machine.name;
        let (cluster, most) = match gic {
            GicVersion::V2 => (8, 8),
            GicVersion::V3 if high_redistributors.is_some() => (16, 512),
            GicVersion::V3 => (16, LOW_REDISTRIBUTORS),
        };
        if cpus > most {
            let advice = match gic {
                GicVersion::V2 => "use '-machine virt,gic-version=3' for more",
                GicVersion::V3 if most < 512 => {
                    "leave 'highmem=off' and 'highmem-redists=off' out for more"
                }
                GicVersion::V3 => "ask for fewer",
            };
            return Err(config(format!(
                "-smp: the GICv{} of machine '{machine}' serves up to {most} CPUs, {cpus} are asked for; {advice}",
                gic.number()
            )));
        }
        let affinities: Vec<u64> = (0..cpus as u64)
            .map(|n| ((n / cluster) << 8) | (n % cluster))
            .collect();
        let mut redistributors = vec![(map::GIC_REDISTRIBUTORS.base, cpus.min(LOW_REDISTRIBUTORS))];
        if let Some(place) = high_redistributors
            && cpus > LOW_REDISTRIBUTORS
        {
            redistributors.push((place.base, cpus - LOW_REDISTRIBUTORS));
        }
        let has_el3 = spec.switch("secure") == Some(true);
        Ok(Shape {
            gic,
            has_its: gic::has_its(spec, gic, kernel)?,
            affinities,
            redistributors,
            conduit: match (has_el3 && firmware::is_there(spec), has_el2) {
                (true, _) => None,
                (false, true) => Some(Conduit::Smc),
                (false, false) => Some(Conduit::Hvc),
            },
            has_el2,
            has_el3,
            ecam: high.ecam.unwrap_or(map::PCIE_ECAM),
            high_memory: high.memory,
            has_pmu: accelerator.has_pmu(),
            has_acpi: firmware::is_there(spec) && spec.switch("acpi") != Some(false),
        })
    }
}

impl Shape {
    fn gic_places(&self) -> GicPlaces {
        GicPlaces {
            version: self.gic,
            distributor: map::GIC_DISTRIBUTOR.base,
            interface: map::GIC_CPU.base,
            redistributors: self.redistributors.clone(),
            its: self.has_its.then_some(map::GIC_ITS.base),
            interrupts: map::FIRST_SPI.saturating_add(map::SPIS as u32),
            affinities: self.affinities.clone(),
        }
    }
}

struct Virt<'a> {
    parts: Parts<'a>,
    shape: Shape,
    gic: Arc<Gic>,
    /// Shared interrupts, by INTID: the model's, or those of the accelerator's controller.
    lines: Arc<dyn IrqSink>,
    /// Messages to the accelerator's translation service.
    messages: Option<Arc<dyn MsiSink>>,
    its: Option<ItsModel>,
    bus: PciBus,
    button: PowerButton,
    items: Items,
}

impl Virt<'_> {
    /// The wire of shared interrupt `n`.
    fn spi(&self, n: u32) -> IrqHub {
        spi_of(&self.lines, n)
    }

    fn add_gic(&mut self) -> Result<(), BoardError> {
        let gic = self.gic.clone();
        let distributor = map::GIC_DISTRIBUTOR.base;
        if self.shape.gic == GicVersion::V3 {
            let regions = self.shape.redistributors.clone();
            let mut device = GicV3Device::new(gic.clone(), distributor, regions);
            if self.shape.has_its {
                device = device.with_lpis();
            }
            self.parts.add("gic", "arm-gicv3", Box::new(device), &[])?;
            if self.shape.has_its {
                let its = GicIts::new(gic, map::GIC_ITS.base);
                self.its = Some(its.model());
                let sink = self.messages.clone().unwrap_or_else(|| its.sink());
                self.parts.fabric.set_msi(Msi::new(sink, 0));
                self.parts.add("its", "arm-gicv3-its", Box::new(its), &[])?;
            }
            return Ok(());
        }
        let device = GicV2Device::new(gic.clone(), distributor, map::GIC_CPU.base);
        self.parts.add("gic", "arm_gic", Box::new(device), &[])?;
        let frame = GicV2m::new(
            self.lines.clone(),
            GicV2mConfig {
                base: map::GIC_V2M.base,
                first_spi: spi::V2M,
                spis: spi::V2M_COUNT,
            },
        );
        self.parts.fabric.set_msi(Msi::new(frame.sink(), 0));
        self.parts
            .add("gicv2m", "arm-gicv2m", Box::new(frame), &[])?;
        Ok(())
    }

    /// Serial port, clock, power key, fw_cfg.
    fn add_peripherals(&mut self) -> Result<(), BoardError> {
        let spec = self.parts.spec;
        let wanted = spec.serials.iter().flatten().count();
        let (most, ports) = match self.shape.has_el3 {
            true => (2, "2 serial ports"),
            false => (1, "1 serial port"),
        };
        if wanted > most {
            return Err(config(format!(
                "-serial: machine '{}' has {ports}, {wanted} are asked for",
                spec.machine.name
            )));
        }
        if spec.parallels.iter().flatten().next().is_some() {
            return Err(config(format!(
                "-parallel: machine '{}' has no parallel ports; leave it out",
                spec.machine.name
            )));
        }
        let serial = |n: usize| spec.serials.get(n).and_then(Option::as_ref);
        self.add_serial("serial0", map::UART.base, serial(0), spi::UART)?;
        if self.shape.has_el3 {
            secure::add_ram(&self.parts)?;
            let base = map::SECURE_UART.secret();
            self.add_serial("serial1", base, serial(1), spi::SECURE_UART)?;
            secure::add_power_pins(&mut self.parts, &self.gic)?;
        }
        let rtc = Pl031::new(Pl031Config {
            address: map::RTC.base,
            base: RtcBase::new(spec.rtc.start_s, spec.rtc.offset_s),
            clock: spec.rtc.clock,
        });
        let pins = [("irq", self.spi(spi::RTC))];
        self.parts.add("pl031", "pl031", Box::new(rtc), &pins)?;
        let button = self.button.clone();
        if self.shape.has_acpi {
            let events = Ged::events_only(map::GED.base, button);
            let pins = [("ged", self.spi(spi::GED))];
            self.parts
                .add("acpi-ged", "acpi-ged", Box::new(events), &pins)?;
        } else {
            let pin = POWER_PIN;
            let gpio = Pl061::new(map::GPIO.base, Some(Key { pin, button }));
            let pins = [("irq", self.spi(spi::GPIO))];
            self.parts.add("pl061", "pl061", Box::new(gpio), &pins)?;
        }
        let fw_cfg = FwCfg::at_memory(map::FW_CFG.base);
        let items = fw_cfg.items();
        let cpus = spec.topology.cpus as u16;
        items.add_u16(keys::NB_CPUS, cpus);
        items.add_u16(keys::MAX_CPUS, (spec.topology.maxcpus as u16).max(cpus));
        items.add_u16(keys::NOGRAPHIC, u16::from(spec.nographic));
        items.add_u16(keys::BOOT_MENU, u16::from(spec.boot.menu));
        for (name, bytes) in &spec.fw_cfg {
            items
                .add_user_file(name, bytes.clone())
                .map_err(|e| config(format!("-fw_cfg: {e}")))?;
        }
        self.items = items;
        self.parts
            .add("fw_cfg", "fw_cfg_mem", Box::new(fw_cfg), &[])?;
        Ok(())
    }

    fn add_serial(
        &mut self,
        name: &str,
        base: u64,
        chardev: Option<&String>,
        line: u32,
    ) -> Result<(), BoardError> {
        let base = base.to_string();
        let mut props = vec![("base", base.as_str())];
        props.extend(chardev.map(|id| ("chardev", id.as_str())));
        let pins = [("irq", self.spi(line))];
        self.parts
            .add_class(name, &device_serial::PL011, &props, &pins)?;
        Ok(())
    }

    fn add_pcie(&mut self) -> Result<(), BoardError> {
        let Place { base, len } = self.shape.ecam;
        let ports = map::PCIE_PORTS;
        let bridge = Gpex::new(GpexConfig {
            ecam: (base, len),
            ports: (ports.base, ports.len),
        });
        let placement = Placement {
            path: "gpex".into(),
            class: "gpex-root",
            bus_name: self.bus.name().into(),
            bus: Some(&self.bus),
            ..Placement::default()
        };
        self.parts.fabric.add(Box::new(bridge), placement)?;
        Ok(())
    }

    /// The user's devices. virtio slots are taken from the last on, as QEMU does.
    fn add_devices(&mut self) -> Result<(), BoardError> {
        let spec = self.parts.spec;
        let transport = spec.args(&VIRTIO_MMIO, &[])?;
        let mut free = map::VIRTIO_SLOTS;
        for device in &spec.devices {
            match device.class.bus {
                BusKind::Virtio => {
                    free = free.checked_sub(1).ok_or_else(|| {
                        config(format!(
                            "-device {}: all {} virtio-mmio slots of '{}' are taken; use its '-pci' form",
                            device.class.name,
                            map::VIRTIO_SLOTS,
                            spec.machine.name
                        ))
                    })?;
                    let place = MmioSlot::new(slot(free), &transport);
                    let line = self.spi(spi::VIRTIO + free);
                    let name = format!("virtio-mmio-bus.{free}");
                    self.parts.add_user(device, &name, Some(&place), &[line])?;
                    let path = format!("/virtio-mmio@{:016x}/disk@0,0", place.base);
                    self.parts.boot_order.add(device, &path)?;
                }
                BusKind::VirtioSerial | BusKind::Ide | BusKind::Scsi | BusKind::Nvme => {
                    self.parts.add_child(device)?;
                }
                BusKind::Pci => {
                    // AAVMF looks for `pci`; the device tree has `pcie`.
                    let root = format!("/pci@{:016x}", map::PCIE_ECAM.base);
                    self.parts.add_pci(device, &self.bus, &[], &root)?;
                }
                BusKind::Isa | BusKind::System => return Err(self.parts.no_bus(device)),
            }
        }
        for n in 0..free {
            let place = MmioSlot::new(slot(n), &transport);
            let line = [self.spi(spi::VIRTIO + n)];
            let placement = Placement {
                path: format!("virtio-mmio{n}"),
                class: "virtio-mmio",
                bus_name: "main-system-bus".into(),
                bus_irqs: &line,
                bus: Some(&place),
                ..Placement::default()
            };
            let empty: Box<dyn Device> = Box::new(VirtioMmio::empty());
            self.parts.fabric.add(empty, placement)?;
        }
        Ok(())
    }

    fn tree(&self, compatible: &str) -> SeededTree {
        let shape = &self.shape;
        let root = Tree {
            ram: self.parts.spec.memory,
            gic: shape.gic,
            has_its: shape.has_its,
            redistributors: &shape.redistributors,
            affinities: &shape.affinities,
            compatible,
            board: self.parts.spec.property("dt-compatible"),
            conduit: shape.conduit,
            has_el3: shape.has_el3,
            has_el2: shape.has_el2,
            ecam: shape.ecam,
            high_memory: shape.high_memory,
            has_pmu: shape.has_pmu,
            has_key: !shape.has_acpi,
        }
        .root();
        match seeds::are_wanted(self.parts.spec) {
            true => SeededTree::seeded(root, shape.has_el3),
            false => SeededTree::fixed(root),
        }
    }
}

fn spi_of(lines: &Arc<dyn IrqSink>, n: u32) -> IrqHub {
    IrqHub::new(lines.clone(), map::FIRST_SPI.saturating_add(n))
}

fn private_interrupt(timer: GenericTimer) -> u32 {
    match timer {
        GenericTimer::Physical => ppi::PHYSICAL_TIMER,
        GenericTimer::Virtual => ppi::VIRTUAL_TIMER,
        GenericTimer::HypPhysical => ppi::HYP_TIMER,
        GenericTimer::HypVirtual => ppi::HYP_VIRTUAL_TIMER,
        GenericTimer::SecurePhysical => ppi::SECURE_TIMER,
    }
}

/// Builds a `virt`.
pub(crate) fn build(
    spec: &MachineSpec,
    accelerator: &dyn Accelerator,
    links: &mut Links,
    main_loop: Handle,
    clock: Clock,
) -> Result<Board, BoardError> {
    let shape = Shape::of(spec, accelerator)?;
    let has_firmware = firmware::is_there(spec);
    let has_code = has_firmware || spec.kernel.is_some();
    if !has_code && !spec.is_paused && spec.property("dumpdtb").is_none() {
        return Err(config(format!(
            "machine '{}' has nothing to run; give it a kernel with '-kernel FILE', firmware with '-bios FILE' or '-drive if=pflash,format=raw,file=FILE', or start it stopped with '-S'",
            spec.machine.name
        )));
    }
    let parts = Parts::new(spec, links, clock.clone())?;
    let (fabric, ram) = (parts.fabric.clone(), Ram(parts.ram.clone()));
    let mapping = ram_at(spec.machine.ram_id, map::RAM_BASE, &ram.0, 0, spec.memory);
    fabric.memory.add(mapping);
    let security = match (shape.has_el3, shape.conduit) {
        (false, _) => GicSecurity::None,
        (true, None) => GicSecurity::Two,
        // What firmware would have done for the kernel is done.
        (true, Some(_)) => GicSecurity::SetUp,
    };
    let gic = Gic::with_security(shape.gic, &shape.affinities, map::SPIS, security);
    let kernel = accelerator.kernel();
    let wires = kernel.map(|kernel| kernel.make_gic(&shape.gic_places()));
    let wires = wires.transpose().map_err(BoardError::Accelerator)?;
    let (lines, messages): (Arc<dyn IrqSink>, _) = match wires {
        Some(wires) => (wires.lines, Some(wires.messages)),
        None => (gic.clone(), None),
    };
    let inputs = [0, 1, 2, 3].map(|n| spi_of(&lines, spi::PCIE + n));
    let mut virt = Virt {
        parts,
        shape,
        gic: gic.clone(),
        lines,
        messages,
        its: None,
        bus: PciBus::new("pcie.0", true, GpexLines::new(&inputs)),
        button: PowerButton::default(),
        items: Items::default(),
    };
    // There are no ports but those of BARs.
    virt.bus.allow_zero();
    firmware::add_flash(&mut virt.parts, virt.shape.has_el3)?;
    virt.add_gic()?;
    let cpus = spec.topology.cpus;
    let hz = accelerator.counter_hz();
    let timers = match kernel {
        Some(_) => GenericTimers::still(&clock, hz, cpus),
        None => GenericTimers::new(&clock, hz, cpus, |cpu, timer| {
            gic.ppi(cpu, private_interrupt(timer)).line()
        }),
    };
    let device = Box::new(GenericTimersDevice::new(timers.clone()));
    virt.parts.add("timer", "arm-generic-timer", device, &[])?;
    let psci = Psci::new(&virt.shape.affinities, fabric.requests.clone());
    let device = Box::new(PsciDevice(psci.clone()));
    virt.parts.add("psci", "psci", device, &[])?;
    virt.add_peripherals()?;
    let host = HostLink::plan(&mut virt.parts)?;
    virt.add_pcie()?;
    virt.add_devices()?;
    if has_firmware {
        firmware::offer(&virt.parts, &virt.shape, &virt.items)?;
    }

    let mut tree = match &spec.dtb {
        None => virt.tree(accelerator.compatible()),
        // The user's own stands as it is, but for what is loaded beside the kernel.
        Some(file) => {
            let root = firmware_fdt::parse(&file.contents("-dtb")?)
                .map_err(|e| BoardError::Boot(format!("-dtb {}: {e}", file.path)))?;
            SeededTree::fixed(root)
        }
    };
    let direct = match &spec.kernel {
        Some(kernel) if !has_firmware => Some(Direct::plan(spec, kernel, ram.len(), &mut tree)?),
        _ => None,
    };
    let blob = tree.blob().map_err(|e| BoardError::Boot(e.to_string()))?;

    fabric.serve_doorbells(main_loop.clone());
    let machine = Machine::new(fabric.clone(), main_loop);
    if let Some(kernel) = kernel {
        kernel.attach(&fabric).map_err(BoardError::Accelerator)?;
    }
    let controllers = Controllers {
        gic: gic.clone(),
        its: virt.its.clone(),
        timers: timers.clone(),
        psci: psci.clone(),
    };
    let peers = Arc::new(Peers::default());
    for (index, mpidr) in (0u32..).zip(&virt.shape.affinities) {
        let number = usize::try_from(index).unwrap_or(usize::MAX);
        let ear = Arc::new(Ear::default());
        let told = ear.clone();
        gic.connect(number, Arc::new(move || told.interrupt()));
        let port = VirtPort {
            index,
            gic: gic.clone(),
            timers: timers.clone(),
            psci: psci.clone(),
            conduit: virt.shape.conduit,
            pmu: gic.ppi(index, ppi::PMU).line(),
            host: host.as_ref().map(|host| host.of(number)),
        };
        let setup = Setup {
            mpidr: *mpidr,
            powered_off: index != 0 && virt.shape.conduit.is_some(),
            boot: direct.as_ref().map(|d| d.start).filter(|_| index == 0),
            peers: peers.clone(),
        };
        let wires = CpuWires {
            index,
            setup,
            has_el2: virt.shape.has_el2,
            has_el3: virt.shape.has_el3,
            port: Box::new(port),
            pmu_interrupt: ppi::PMU,
            fabric: fabric.clone(),
            clock: clock.clone(),
            controllers: controllers.clone(),
        };
        let cpu = accelerator.cpu(wires).map_err(BoardError::Accelerator)?;
        ear.connect(cpu.pending());
        psci.connect(number, cpu.pending());
        machine.add_cpu(format!("CPU {index}/{}", accelerator.name()), cpu)?;
    }
    if let Some(kernel) = kernel {
        kernel.complete().map_err(BoardError::Accelerator)?;
    }
    let button = virt.button.clone();
    machine.set_power_button(move || button.press());
    match direct {
        Some(direct) => direct.install(&machine, ram, tree),
        None => firmware::install_tree(&machine, ram, tree),
    }
    Ok(Board {
        machine,
        input: None,
        pci: Some(virt.bus.clone()),
        has_nmi: false,
        device_tree: Some(blob),
        info: Box::new(move |topic, _| (topic == "pic").then(|| gic.describe())),
    })
}
