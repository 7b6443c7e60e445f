//! What runs the CPUs: choosing an accelerator, and the engine as the boards see it.

use std::sync::Arc;

use accel_core::{EngineVcpu, Exclusive, Vcpu};
use accel_interp::Interp;
use anyhow::{Result, bail};
use control_options::config::{AccelOpt, CpuOpt};
use control_options::{OptionError, PropDef, PropKind, Props, Topology};
use hw_core::Fabric;
use machine_x86::{Accelerator, CpuWires, Irqchip};
use target_x86::X86;
use target_x86::system::{self, CpuModel, feature};

/// An accelerator by its name.
pub struct AccelDef {
    /// Name as in `-accel`.
    pub name: &'static str,
    /// One line for help.
    pub doc: &'static str,
    /// Its properties.
    pub props: &'static [PropDef],
    /// Why it cannot be used here; `None` if it can.
    pub unusable: Option<&'static str>,
}

/// All accelerators.
pub static ACCELERATORS: &[AccelDef] = &[
    AccelDef {
        name: "tcg",
        doc: "Mimic's own engine: runs everywhere",
        props: &[PropDef::new(
            "thread",
            PropKind::Enum(&["multi", "single"]),
            "host threads for several vCPUs: one each, or one for all",
        )
        .or("multi")],
        unusable: None,
    },
    AccelDef {
        name: "kvm",
        doc: "the host's own processors, through /dev/kvm",
        props: &[PropDef::new(
            "kernel-irqchip",
            PropKind::Enum(&["on", "off", "split"]),
            "interrupt controllers in the kernel",
        )
        .or("on")],
        unusable: Some("this version of Mimic has no KVM back end yet"),
    },
    AccelDef {
        name: "qtest",
        doc: "no processor at all: a test program drives the devices",
        props: &[],
        unusable: Some("this version of Mimic cannot be driven by qtest yet"),
    },
];

fn find(name: &str) -> Result<&'static AccelDef, OptionError> {
    let names = ACCELERATORS.iter().map(|def| def.name);
    ACCELERATORS
        .iter()
        .find(|def| def.name == name)
        .ok_or_else(|| OptionError::unknown_name("-accel", "accelerator", name, names))
}

/// The first usable accelerator of a list, the engine if the list is empty. `cpus` is how many CPUs it is to run.
///
/// # Errors
/// When a name or property is wrong, or none of the list can be used.
pub fn choose(list: &[AccelOpt], cpus: u32) -> Result<&'static AccelDef> {
    // The whole list is checked first: a misspelt fallback is a mistake even if it is not needed.
    let mut checked = Vec::new();
    for choice in list {
        let def = find(&choice.name)?;
        let subject = format!("accelerator '{}'", def.name);
        checked.push((
            def,
            Props::check("-accel", &subject, &choice.opts, def.props)?,
        ));
    }
    if checked.is_empty() {
        checked.push((find("tcg")?, Props::default()));
    }
    let mut refusals = Vec::new();
    for (def, props) in checked {
        if let Some(why) = def.unusable {
            refusals.push(format!("'{}' cannot be used: {why}", def.name));
            continue;
        }
        if props.text("thread") == Some("single") && cpus > 1 {
            bail!(
                "-accel: 'thread=single' with {cpus} vCPUs is not available; leave it out: each vCPU has its thread"
            );
        }
        for refusal in &refusals {
            log::warn!("-accel: {refusal}; going on with '{}'", def.name);
        }
        return Ok(def);
    }
    bail!("-accel: {}; use '-accel tcg'", refusals.join(", and "));
}

/// The text of `-cpu`, as the model's parser takes it.
fn cpu_text(cpu: &CpuOpt) -> String {
    let settings = cpu
        .settings
        .iter()
        .map(|s| format!(",{}={}", s.name, s.value));
    std::iter::once(cpu.model.clone()).chain(settings).collect()
}

/// The portable engine.
pub struct Tcg {
    model: Arc<CpuModel>,
    topology: system::Topology,
    exclusive: Arc<Exclusive>,
}

impl Tcg {
    /// The engine, running CPUs of this model (`default_model` if `-cpu` is absent).
    ///
    /// # Errors
    /// What is wrong with `-cpu`.
    pub fn new(cpu: Option<&CpuOpt>, default_model: &str, topology: &Topology) -> Result<Self> {
        let text = cpu.map_or_else(|| default_model.to_owned(), cpu_text);
        let (model, missing) = CpuModel::parse(&text, &feature::engine(), false)
            .map_err(|e| anyhow::anyhow!("-cpu: {e}; '-cpu help' lists models and features"))?;
        // Only what the user chose is worth a warning.
        if cpu.is_some() {
            for name in missing {
                log::warn!("-cpu: the engine does not have {name}; the guest will not see it");
            }
        }
        Ok(Self {
            model: Arc::new(model),
            topology: system::Topology {
                sockets: topology.sockets,
                dies: topology.dies,
                cores: topology.cores,
                threads: topology.threads,
            },
            exclusive: Arc::default(),
        })
    }

    /// The CPU model's name.
    pub fn model_name(&self) -> &str {
        &self.model.name
    }
}

impl Accelerator for Tcg {
    fn name(&self) -> &'static str {
        "TCG"
    }

    fn irqchip(&self) -> Irqchip {
        Irqchip::User
    }

    fn attach(&self, _: &Fabric) -> Result<(), String> {
        Ok(())
    }

    fn cpu(&self, wires: CpuWires) -> Result<Box<dyn Vcpu>, String> {
        let core = system::new_core(
            wires.index,
            Arc::clone(&self.model),
            self.topology,
            wires.port,
            wires.fabric.memory.clone(),
            wires.clock,
        );
        let cpu: EngineVcpu<X86, Interp> =
            EngineVcpu::new(core, Interp::default(), Arc::clone(&self.exclusive));
        Ok(Box::new(cpu))
    }

    fn tsc_hz(&self) -> u64 {
        self.model.tsc_hz
    }
}
