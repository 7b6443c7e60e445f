//! KVM of x86_64 hosts.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use accel_core::Vcpu;
use accel_kvm::x86::{Chips, Host, KvmVcpu, Mode, Parts, Vm};
use anyhow::{Context, Result, bail};
use control_options::config::CpuOpt;
use hw_core::{Fabric, IrqSink, MsiSink};
use hw_intc::{I8259State, IoApicState, KernelI8254, LapicState};
use machine_x86::{Accelerator, Controllers, CpuWires, Irqchip};
use target_x86::system::{self, CpuModel};

use control_options::Props;

use crate::accel::{self, Chosen, Wanted, cpu_text, topology_of};

/// `-cpu` settings that say who the processor is: one given by the user stands.
const IDENTITY: [&str; 8] = [
    "vendor",
    "family",
    "model",
    "stepping",
    "model-id",
    "level",
    "xlevel",
    "phys-bits",
];

/// A machine in the kernel, and what its CPUs are.
type Made = (Arc<Vm>, Arc<CpuModel>);

/// KVM, running CPUs of one model. The machine in the kernel belongs to the process that makes it:
/// it is made when the board is, after the process went to the background.
struct Kvm {
    mode: Mode,
    host: Mutex<Option<Host>>,
    model: CpuModel,
    /// The frequency that `-cpu` asks for.
    tsc_frequency: Option<String>,
    made: OnceLock<Result<Made, String>>,
    topology: system::Topology,
    paravirtual: bool,
}

/// The model of `-cpu` on this host.
///
/// # Errors
/// What is wrong with `-cpu`.
fn model(host: &Host, cpu: Option<&CpuOpt>, default_model: &str) -> Result<CpuModel> {
    let text = cpu.map_or_else(|| default_model.to_owned(), cpu_text);
    let (mut model, missing) = CpuModel::parse(&text, &host.features(), true)
        .map_err(|e| anyhow::anyhow!("-cpu: {e}; '-cpu help' lists models and features"))?;
    if cpu.is_some() {
        for name in missing {
            log::warn!("-cpu: the host does not have {name}; the guest will not see it");
        }
    }
    let is_given = |name: &str| {
        IDENTITY.contains(&name)
            && cpu.is_some_and(|cpu| cpu.settings.iter().any(|s| s.name == name))
    };
    let identity = host.identity();
    if matches!(model.name.as_str(), "host" | "max") {
        let fields: [(&str, &mut u32, u32); 6] = [
            ("family", &mut model.family, identity.family),
            ("model", &mut model.model, identity.model),
            ("stepping", &mut model.stepping, identity.stepping),
            ("level", &mut model.level, identity.level),
            ("xlevel", &mut model.xlevel, identity.xlevel),
            ("phys-bits", &mut model.phys_bits, identity.phys_bits),
        ];
        for (name, field, value) in fields {
            if !is_given(name) {
                *field = value;
            }
        }
        if !is_given("model-id") {
            model.model_id = identity.model_id;
        }
    }
    // The kernel emulates what differs between vendors as the host's own does.
    if !is_given("vendor") && identity.vendor.len() == 12 {
        model.vendor = identity.vendor;
    }
    if model.phys_bits > identity.phys_bits {
        model.phys_bits = identity.phys_bits;
    }
    Ok(model)
}

/// KVM for these CPUs.
///
/// # Errors
/// What is wrong with the properties or with `-cpu`, or what the kernel refused.
pub(crate) fn make(wanted: &Wanted<'_>, props: &Props) -> Result<Chosen> {
    let mode = match props.text("kernel-irqchip") {
        Some("off") => Mode::User,
        Some("split") => Mode::Split,
        _ => Mode::Kernel,
    };
    let kvm = Kvm::new(mode, wanted)?;
    Ok(Chosen {
        cpu_model: kvm.model_name().to_owned(),
        accelerator: accel::Accelerator::X86(Arc::new(kvm)),
        is_kvm: true,
    })
}

impl Kvm {
    /// A machine in the kernel that runs these CPUs.
    ///
    /// # Errors
    /// What is wrong with `-cpu`, or what the kernel refused.
    fn new(mode: Mode, wanted: &Wanted<'_>) -> Result<Self> {
        let cpu = wanted.cpu;
        let host = Host::open(mode).context("-accel kvm")?;
        let (cpus, most) = (wanted.topology.cpus, host.max_cpus());
        if cpus as usize > most {
            bail!("-smp {cpus}: the host's KVM runs at most {most} vCPUs");
        }
        let model = model(&host, cpu, wanted.default_model.unwrap_or("qemu64"))?;
        let setting = |name: &str| {
            let mut settings = cpu.into_iter().flat_map(|cpu| &cpu.settings);
            settings.find(|s| s.name == name).map(|s| s.value.clone())
        };
        let is_off = |value: String| matches!(value.as_str(), "off" | "no" | "false" | "n");
        Ok(Kvm {
            mode,
            host: Mutex::new(Some(host)),
            model,
            tsc_frequency: setting("tsc-frequency"),
            made: OnceLock::new(),
            topology: topology_of(wanted.topology),
            paravirtual: !setting("kvm").is_some_and(is_off),
        })
    }

    /// The CPU model's name.
    fn model_name(&self) -> &str {
        &self.model.name
    }

    fn made(&self) -> Result<&Made, String> {
        let made = self.made.get_or_init(|| self.make());
        made.as_ref().map_err(Clone::clone)
    }

    fn make(&self) -> Result<Made, String> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host.take().ok_or("KVM makes one machine")?;
        let vm = Vm::new(host).map_err(|error| error.to_string())?;
        let mut model = self.model.clone();
        if let Some(hz) = vm.tsc_hz() {
            if let Some(wanted) = &self.tsc_frequency
                && model.tsc_hz / 1000 != hz / 1000
            {
                return Err(format!(
                    "-cpu: 'tsc-frequency={wanted}' is not to be had: the host's counter runs at {hz} Hz"
                ));
            }
            model.tsc_hz = hz;
        }
        Ok((vm, Arc::new(model)))
    }
}

/// The board's controllers, for the kernel's state.
struct Models(Controllers);

impl Chips for Models {
    fn lapic(&self, cpu: u32) -> LapicState {
        match self.0.apics.cpu(cpu) {
            Some(apic) => apic.snapshot(),
            None => LapicState::new(cpu, cpu == 0),
        }
    }

    fn set_lapic(&self, cpu: u32, state: &LapicState) {
        if let Some(apic) = self.0.apics.cpu(cpu) {
            apic.set_snapshot(state);
        }
    }

    fn pic(&self) -> Option<I8259State> {
        self.0.pic.as_ref().map(|pic| pic.snapshot())
    }

    fn set_pic(&self, state: I8259State) {
        if let Some(pic) = &self.0.pic {
            pic.set_snapshot(state);
        }
    }

    fn ioapic(&self) -> IoApicState {
        self.0.ioapic.snapshot()
    }

    fn set_ioapic(&self, state: IoApicState) {
        self.0.ioapic.set_snapshot(state);
    }

    fn eoi(&self, vector: u8) {
        self.0.ioapic.eoi(vector);
    }
}

impl Accelerator for Kvm {
    fn name(&self) -> &'static str {
        "KVM"
    }

    fn irqchip(&self) -> Irqchip {
        match self.mode {
            Mode::User => Irqchip::User,
            Mode::Split => Irqchip::Split,
            Mode::Kernel => Irqchip::Kernel,
        }
    }

    fn lines(&self) -> Option<Arc<dyn IrqSink>> {
        // What cannot be made is told by `attach`.
        let (vm, _) = self.made().ok()?;
        (self.mode == Mode::Kernel).then(|| Arc::clone(vm) as Arc<dyn IrqSink>)
    }

    fn messages(&self) -> Option<Arc<dyn MsiSink>> {
        let (vm, _) = self.made().ok()?;
        (self.mode != Mode::User).then(|| Arc::clone(vm) as Arc<dyn MsiSink>)
    }

    fn pit(&self) -> Result<Option<Arc<dyn KernelI8254>>, String> {
        let (vm, _) = self.made()?;
        vm.pit().map_err(|error| error.to_string())
    }

    fn attach(&self, fabric: &Fabric) -> Result<(), String> {
        self.made()?.0.attach(&fabric.memory, &fabric.ports)
    }

    fn cpu(&self, wires: CpuWires) -> Result<Box<dyn Vcpu>, String> {
        let (vm, model) = self.made()?;
        let cpu = KvmVcpu::new(
            vm,
            Parts {
                index: wires.index,
                apic_id: wires.apic_id,
                model: Arc::clone(model),
                topology: self.topology,
                paravirtual: self.paravirtual,
                port: wires.port,
                memory: wires.fabric.memory.clone(),
                clock: wires.clock,
                chips: Arc::new(Models(wires.controllers)),
                requests: wires.fabric.requests.clone(),
            },
        )?;
        Ok(Box::new(cpu))
    }

    fn tsc_hz(&self) -> u64 {
        self.made()
            .map_or(self.model.tsc_hz, |(_, model)| model.tsc_hz)
    }
}
