//! KVM of aarch64 hosts.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use accel_core::Vcpu;
use accel_kvm::arm::{Host, KvmVcpu, Models, Parts, Vm};
use anyhow::{Context, Result, anyhow, bail};
use control_options::Props;
use device_timer::GenericTimer;
use hw_core::Fabric;
use hw_intc::{GicItsState, GicPlaces, GicState, GicVersion};
use machine_arm::{Accelerator, Controllers, CpuWires, GicWires, Kernel};
use target_arm::{CpuModel, HostOptions, Timer};

use crate::accel::{self, Chosen, Wanted, cpu_text};

/// KVM, running CPUs as the host's. The machine in the kernel belongs to the process that makes it: it
/// is made when the board is, after the process went to the background.
struct Kvm {
    host: Mutex<Option<Host>>,
    model: CpuModel,
    physical_bits: u32,
    has_pmu: bool,
    /// Versions 2 and 3.
    has_gic: [bool; 2],
    has_its: bool,
    made: OnceLock<Result<Arc<Vm>, String>>,
}

/// KVM for these CPUs.
///
/// # Errors
/// What is wrong with the properties or with `-cpu`, or what the kernel refused.
pub(crate) fn make(wanted: &Wanted<'_>, props: &Props) -> Result<Chosen> {
    if let Some(mode @ ("off" | "split")) = props.text("kernel-irqchip") {
        bail!(
            "-accel: 'kernel-irqchip={mode}' is not available on Arm hosts: the interrupt controller is in the kernel; leave it out"
        );
    }
    // Boards name a model that is not the host's; a user who names none gets what there is.
    let text = wanted.cpu.map_or_else(|| "host".to_owned(), cpu_text);
    let options = HostOptions::parse(&text)
        .map_err(|e| anyhow!("-cpu: {e}; '-cpu help' lists models and features"))?;
    let host = Host::open(options).context("-accel kvm")?;
    let (cpus, most) = (wanted.topology.cpus, host.max_cpus());
    if cpus as usize > most {
        bail!("-smp {cpus}: the host's KVM runs at most {most} vCPUs");
    }
    let kvm = Kvm {
        model: host.model().clone(),
        physical_bits: host.physical_bits(),
        has_pmu: host.has_pmu(),
        has_gic: [GicVersion::V2, GicVersion::V3].map(|version| host.has_gic(version)),
        has_its: host.has_its(),
        host: Mutex::new(Some(host)),
        made: OnceLock::new(),
    };
    Ok(Chosen {
        cpu_model: kvm.model.name.to_owned(),
        accelerator: accel::Accelerator::Arm(Arc::new(kvm)),
        is_kvm: true,
    })
}

impl Kvm {
    fn made(&self) -> Result<&Arc<Vm>, String> {
        let made = self.made.get_or_init(|| {
            let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
            let host = host.take().ok_or("KVM makes one machine")?;
            Vm::new(host).map_err(|error| error.to_string())
        });
        made.as_ref().map_err(Clone::clone)
    }
}

/// The board's controllers, for the kernel's state.
struct Carriers(Controllers);

fn kind(timer: Timer) -> GenericTimer {
    match timer {
        Timer::Physical => GenericTimer::Physical,
        Timer::Virtual => GenericTimer::Virtual,
        Timer::HypPhysical => GenericTimer::HypPhysical,
        Timer::HypVirtual => GenericTimer::HypVirtual,
        Timer::SecurePhysical => GenericTimer::SecurePhysical,
    }
}

impl Models for Carriers {
    fn gic(&self) -> GicState {
        self.0.gic.snapshot()
    }

    fn set_gic(&self, state: GicState) {
        self.0.gic.set_snapshot(state);
    }

    fn its(&self) -> Option<GicItsState> {
        self.0.its.as_ref().map(|its| its.snapshot())
    }

    fn set_its(&self, state: GicItsState) {
        if let Some(its) = &self.0.its {
            its.set_snapshot(state);
        }
    }

    fn timer(&self, cpu: u32, timer: Timer) -> (u64, u64) {
        let (timers, timer) = (&self.0.timers, kind(timer));
        (timers.control(cpu, timer), timers.compare(cpu, timer))
    }

    fn set_timer(&self, cpu: u32, timer: Timer, control: u64, compare: u64) {
        let (timers, timer) = (&self.0.timers, kind(timer));
        timers.set_control(cpu, timer, control);
        timers.set_compare(cpu, timer, compare);
    }

    fn set_power(&self, cpu: u32, on: bool) {
        self.0.set_power(cpu as usize, on);
    }
}

impl Kernel for Kvm {
    fn has_gic(&self, version: GicVersion) -> bool {
        let [v2, v3] = self.has_gic;
        match version {
            GicVersion::V2 => v2,
            GicVersion::V3 => v3,
        }
    }

    fn has_its(&self) -> bool {
        self.has_its
    }

    fn make_gic(&self, places: &GicPlaces) -> Result<GicWires, String> {
        let vm = self.made()?;
        vm.make_gic(places).map_err(|error| error.to_string())?;
        Ok(GicWires {
            lines: vm.clone(),
            messages: vm.clone(),
        })
    }

    fn attach(&self, fabric: &Fabric) -> Result<(), String> {
        self.made()?.attach(&fabric.memory, &fabric.ports)
    }

    fn complete(&self) -> Result<(), String> {
        self.made()?.complete().map_err(|error| error.to_string())
    }
}

impl Accelerator for Kvm {
    fn name(&self) -> &'static str {
        "KVM"
    }

    fn counter_hz(&self) -> u64 {
        self.model.counter_hz()
    }

    fn physical_bits(&self) -> u32 {
        self.physical_bits
    }

    fn has_pmu(&self) -> bool {
        self.has_pmu
    }

    fn compatible(&self) -> &'static str {
        self.model.compatible()
    }

    fn kernel(&self) -> Option<&dyn Kernel> {
        Some(self)
    }

    fn cpu(&self, wires: CpuWires) -> Result<Box<dyn Vcpu>, String> {
        let cpu = KvmVcpu::new(
            self.made()?,
            Parts {
                index: wires.index,
                setup: wires.setup,
                pmu_interrupt: wires.pmu_interrupt,
                memory: wires.fabric.memory.clone(),
                clock: wires.clock,
                models: Arc::new(Carriers(wires.controllers)),
                requests: wires.fabric.requests.clone(),
            },
        )?;
        Ok(Box::new(cpu))
    }
}
