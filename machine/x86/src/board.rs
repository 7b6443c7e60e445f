//! What all PCs have in common: memory, CPUs, interrupt controllers, the devices of the user.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device_input::Input;
use device_intc::{
    ApicBus, ApicDevice, CpuSignal, I8259, I8259Device, IOAPIC_BASE, IoApic, IoApicDevice,
    IsaLines, LINT0,
};
use firmware_acpi::Ports;
use hw_core::{Args, Clock, IrqHub, IrqSink, Links, Msi, Part, PowerButton};
use machine_core::{Board, BoardError, DeviceSpec, Event, Machine, MachineSpec, Parts, ram_at};
use runtime::Handle;

use crate::accelerator::{Accelerator, Controllers, CpuWires, Irqchip};
use crate::port::{A20, Ear, PcPort};

/// RAM below 4 GiB ends here at the latest: PCI and the chipset are above.
pub(crate) const FOUR_GIB: u64 = 1 << 32;

/// A PC in the making.
pub(crate) struct Builder<'a> {
    parts: Parts<'a>,
    pub(crate) apics: Arc<ApicBus>,
    pub(crate) pic: Option<Arc<I8259>>,
    pub(crate) ioapic: Arc<IoApic>,
    lines: Arc<IsaLines>,
    pub(crate) a20: A20,
    pub(crate) a20_hub: IrqHub,
    pub(crate) button: PowerButton,
    pub(crate) input: Option<Input>,
    /// Bytes of RAM below 4 GiB.
    pub(crate) low: u64,
    pub(crate) pci: Option<hw_pci::PciBus>,
    /// What the first reset undoes (`-boot once=`).
    pub(crate) on_first_reset: Option<Box<dyn Fn() + Send + Sync>>,
    /// First port and interrupt of each serial port of `-serial`.
    serials: Vec<Ports>,
    pub(crate) accelerator: Arc<dyn Accelerator>,
    /// How the interrupt controllers reach the bootstrap processor.
    first_ear: Arc<Ear>,
}

/// A PC is built as all machines are, and has more.
impl<'a> Deref for Builder<'a> {
    type Target = Parts<'a>;

    fn deref(&self) -> &Parts<'a> {
        &self.parts
    }
}

impl<'a> DerefMut for Builder<'a> {
    fn deref_mut(&mut self) -> &mut Parts<'a> {
        &mut self.parts
    }
}

impl<'a> Builder<'a> {
    /// Memory, interrupt controllers and nothing else. `low_limit` is where low RAM ends at most.
    pub(crate) fn new(
        spec: &'a MachineSpec,
        links: &'a mut Links,
        accelerator: Arc<dyn Accelerator>,
        clock: Clock,
        low_limit: u64,
        has_pic: bool,
    ) -> Result<Self, BoardError> {
        let mut parts = Parts::new(spec, links, clock.clone())?;
        let (fabric, ram) = (parts.fabric.clone(), parts.ram.clone());
        let low = spec.memory.min(low_limit);
        fabric.memory.add(ram_at("ram-below-4g", 0, &ram, 0, low));
        if spec.memory > low {
            fabric.memory.add(ram_at(
                "ram-above-4g",
                FOUR_GIB,
                &ram,
                low,
                spec.memory - low,
            ));
        }
        let ids = apic_ids(spec);
        let apics = ApicBus::new(&clock, &ids, true);
        let messages = accelerator.messages();
        fabric.set_msi(Msi::new(messages.unwrap_or_else(|| apics.clone()), 0));
        let ioapic = IoApic::new();
        apics.connect_ioapic(&ioapic);
        let pic = has_pic.then(I8259::new);
        if let Some(pic) = &pic {
            apics.connect_pic(pic);
        }
        let lines = IsaLines::new(pic.clone(), Some(ioapic.clone()));
        // Global interrupts; the first sixteen are ISA's.
        parts.irqs = match accelerator.lines() {
            Some(kernel) => (0..24).map(|n| IrqHub::new(kernel.clone(), n)).collect(),
            None => lines.hubs(24),
        };
        let first_ear = Arc::new(Ear::default());
        let lint0 = match accelerator.irqchip() {
            Irqchip::Split => {
                // The local APIC that would pass it on is in the kernel.
                let ear = first_ear.clone();
                let sink: Arc<dyn IrqSink> = Arc::new(move |_: u32, level: bool| {
                    if level {
                        ear.signal(CpuSignal::Intr);
                    }
                });
                IrqHub::new(sink, 0)
            }
            Irqchip::User | Irqchip::Kernel => IrqHub::new(apics.clone(), LINT0),
        };
        let a20 = A20::default();
        let gate = (a20.clone(), fabric.memory.clone());
        let sink: Arc<dyn IrqSink> =
            Arc::new(move |_: u32, level: bool| gate.0.set(level, &gate.1));
        let mut builder = Builder {
            parts,
            apics: apics.clone(),
            pic: pic.clone(),
            ioapic: ioapic.clone(),
            lines,
            a20,
            a20_hub: IrqHub::new(sink, 0),
            button: PowerButton::default(),
            input: None,
            low,
            pci: None,
            on_first_reset: None,
            serials: Vec::new(),
            accelerator,
            first_ear,
        };
        builder.add(
            "apic",
            "apic",
            Box::new(ApicDevice::new(apics.clone())),
            &[],
        )?;
        builder.add(
            "ioapic",
            "ioapic",
            Box::new(IoApicDevice::new(ioapic, IOAPIC_BASE)),
            &[],
        )?;
        if let Some(pic) = pic {
            builder.add(
                "isa-i8259",
                "isa-i8259",
                Box::new(I8259Device::new(pic)),
                &[("intr", lint0)],
            )?;
        }
        Ok(builder)
    }

    /// Adds a user's ISA device; its interrupts are the ISA lines.
    pub(crate) fn add_isa(&mut self, spec: &DeviceSpec) -> Result<Arc<Part>, BoardError> {
        let irqs = self.irqs.clone();
        self.add_user(spec, "isa.0", None, &irqs)
    }

    /// The serial ports of `-serial`, as many as the machine has.
    pub(crate) fn add_serials(&mut self, most: usize) -> Result<(), BoardError> {
        let wanted = self.spec.serials.iter().flatten().count();
        if self.spec.serials.len() > most && wanted > most {
            return Err(BoardError::Config(format!(
                "-serial: machine '{}' has {most} serial ports, {wanted} are asked for",
                self.spec.machine.name
            )));
        }
        for (index, link) in self.spec.serials.iter().enumerate() {
            let Some(link) = link else { continue };
            let index = index.to_string();
            let class = &device_serial::ISA_SERIAL;
            let args = self
                .spec
                .args(class, &[("index", &index), ("chardev", link)])?;
            self.serials.push(ports(&args));
            let spec = DeviceSpec {
                class,
                id: Some(format!("serial{index}")),
                bus: None,
                args,
            };
            self.add_isa(&spec)?;
        }
        Ok(())
    }

    /// The parallel ports of `-parallel`, as many as the machine has.
    pub(crate) fn add_parallels(&mut self, most: usize) -> Result<(), BoardError> {
        let wanted = self.spec.parallels.iter().flatten().count();
        if self.spec.parallels.len() > most && wanted > 0 {
            return Err(BoardError::Config(format!(
                "-parallel: machine '{}' has {most} parallel ports, {wanted} are asked for",
                self.spec.machine.name
            )));
        }
        for (index, link) in self.spec.parallels.iter().enumerate() {
            let Some(link) = link else { continue };
            let index = index.to_string();
            let class = &device_serial::ISA_PARALLEL;
            let args = self
                .spec
                .args(class, &[("index", &index), ("chardev", link)])?;
            let spec = DeviceSpec {
                class,
                id: Some(format!("parallel{index}")),
                bus: None,
                args,
            };
            self.add_isa(&spec)?;
        }
        Ok(())
    }

    /// Where the serial ports of `-serial` are, for firmware tables.
    pub(crate) fn serial_ports(&self) -> Vec<Ports> {
        self.serials.clone()
    }

    /// Makes the CPUs and closes the machine.
    pub(crate) fn finish(mut self, main_loop: Handle) -> Result<Board, BoardError> {
        self.fabric.serve_doorbells(main_loop.clone());
        let machine = Machine::new(self.fabric.clone(), main_loop);
        self.accelerator
            .attach(&self.fabric)
            .map_err(BoardError::Accelerator)?;
        for (index, apic_id) in (0u32..).zip(apic_ids(self.spec)) {
            let ear = match index {
                0 => self.first_ear.clone(),
                _ => Arc::new(Ear::default()),
            };
            let apic = self.apics.cpu(index).cloned();
            let split = self.accelerator.irqchip() == Irqchip::Split;
            let pic = self.pic.clone().filter(|_| split && index == 0);
            if let Some(apic) = &apic {
                let ear = ear.clone();
                apic.connect(Arc::new(move |signal| ear.signal(signal)));
            }
            let port = PcPort::new(
                apic,
                ear.clone(),
                self.a20.clone(),
                self.fabric.ports.clone(),
            )
            .with_pic(pic);
            let wires = CpuWires {
                index,
                apic_id,
                port: Box::new(port),
                fabric: self.fabric.clone(),
                clock: self.fabric.clock.clone(),
                controllers: Controllers {
                    apics: self.apics.clone(),
                    pic: self.pic.clone(),
                    ioapic: self.ioapic.clone(),
                },
            };
            let cpu = self
                .accelerator
                .cpu(wires)
                .map_err(BoardError::Accelerator)?;
            ear.connect(cpu.pending());
            machine.add_cpu(format!("CPU {index}/{}", self.accelerator.name()), cpu)?;
        }
        if let Some(undo) = self.on_first_reset.take() {
            let is_first = AtomicBool::new(true);
            machine.on_event(move |event| {
                if matches!(event, Event::Reset { .. }) && is_first.swap(false, Ordering::Relaxed) {
                    undo();
                }
            });
        }
        let button = self.button.clone();
        machine.set_power_button(move || button.press());
        let Builder {
            apics,
            pic,
            ioapic,
            lines,
            ..
        } = self;
        Ok(Board {
            machine,
            input: self.input,
            pci: self.pci,
            has_nmi: true,
            device_tree: None,
            info: Box::new(move |topic, cpu| match topic {
                "pic" => {
                    let pic = pic.as_ref().map(|pic| pic.describe()).unwrap_or_default();
                    Some(format!("{pic}{}", ioapic.describe()))
                }
                "irq" => Some(lines.describe()),
                "lapic" => apics.cpus().get(cpu).map(|apic| apic.describe()),
                _ => None,
            }),
        })
    }
}

/// Where a serial port is, for firmware tables.
fn ports(args: &Args) -> Ports {
    let index = args.int("index").and_then(|n| usize::try_from(n).ok());
    let (port, irq) = index
        .and_then(|n| device_serial::COM_PORTS.get(n).copied())
        .unwrap_or_default();
    Ports {
        port: args.int("iobase").map_or(port, |n| n as u16),
        irq: args.int("irq").map_or(irq as u8, |n| n as u8),
    }
}

/// APIC ids by CPU number: fields of thread, core, die and socket, each as wide as its count needs
/// (SDM vol. 3, 9.9.1 "Hierarchical Mapping of Shared Resources").
pub(crate) fn apic_ids(spec: &MachineSpec) -> Vec<u32> {
    let t = &spec.topology;
    let bits = |n: u32| u32::BITS - n.max(1).saturating_sub(1).leading_zeros();
    let cores = t.cores.max(1) * t.clusters.max(1) * t.modules.max(1);
    let (threads, dies) = (t.threads.max(1), t.dies.max(1));
    (0..t.cpus)
        .map(|n| {
            let thread = n % threads;
            let core = n / threads % cores;
            let die = n / threads / cores % dies;
            let socket = n / threads / cores / dies;
            let core_shift = bits(threads);
            let die_shift = core_shift + bits(cores);
            let socket_shift = die_shift + bits(dies);
            thread | core << core_shift | die << die_shift | socket << socket_shift
        })
        .collect()
}

/// The machine `none`: memory, and nothing that runs.
pub(crate) fn empty(
    spec: &MachineSpec,
    accelerator: Arc<dyn Accelerator>,
    links: &mut Links,
    main_loop: Handle,
    clock: Clock,
) -> Result<Board, BoardError> {
    if let Some(device) = spec.devices.first() {
        let b = Builder::new(spec, links, accelerator, clock, FOUR_GIB, false)?;
        return Err(b.no_bus(device));
    }
    if spec.kernel.is_some() {
        return Err(BoardError::Boot(
            "machine 'none' has no CPU to run a -kernel; use -machine pc, q35 or microvm".into(),
        ));
    }
    let spec = MachineSpec {
        topology: control_options::Topology {
            cpus: 0,
            ..spec.topology
        },
        ..spec.clone()
    };
    Builder::new(&spec, links, accelerator, clock, FOUR_GIB, false)?.finish(main_loop)
}
