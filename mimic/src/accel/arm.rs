//! The engine running Arm CPUs.

use std::sync::Arc;

use accel_core::{EngineVcpu, Exclusive, LogFilter, Sleeper, Vcpu};
use anyhow::{Result, anyhow};
use machine_arm::{Accelerator, CpuWires};
use target_arm::{Arm, CpuModel};

use super::{Engine, Wanted, cpu_text};

/// The engine with a model of Arm CPUs.
pub(super) struct Tcg {
    model: CpuModel,
    exclusive: Arc<Exclusive>,
    /// Where all CPUs sleep if one thread runs them.
    sleeper: Option<Arc<Sleeper>>,
    engine: Engine,
    log_filter: LogFilter,
}

impl Tcg {
    /// The engine, running CPUs of the wanted model.
    pub(super) fn new(wanted: &Wanted<'_>, engine: Engine) -> Result<Self> {
        let default = || wanted.default_model.unwrap_or("max").to_owned();
        let text = wanted.cpu.map_or_else(default, cpu_text);
        let model = CpuModel::parse(&text)
            .map_err(|e| anyhow!("-cpu: {e}; '-cpu help' lists models and features"))?;
        Ok(Tcg {
            model,
            exclusive: Arc::default(),
            sleeper: engine.sleeper(),
            engine,
            log_filter: LogFilter::new(wanted.log_filter),
        })
    }

    pub(super) fn model_name(&self) -> String {
        self.model.name.to_owned()
    }
}

impl Accelerator for Tcg {
    fn name(&self) -> &'static str {
        "TCG"
    }

    fn counter_hz(&self) -> u64 {
        self.model.counter_hz()
    }

    fn physical_bits(&self) -> u32 {
        self.model.physical_bits()
    }

    fn has_pmu(&self) -> bool {
        self.model.has_pmu()
    }

    fn compatible(&self) -> &'static str {
        self.model.compatible()
    }

    fn cpu(&self, wires: CpuWires) -> Result<Box<dyn Vcpu>, String> {
        let mut model = self.model.clone();
        model.set_el2(wires.has_el2);
        model.set_el3(wires.has_el3);
        let mut core = target_arm::new_core(
            wires.index,
            Arc::new(model),
            wires.setup,
            wires.port,
            wires.fabric.memory.clone(),
            wires.clock,
        );
        self.engine.set(&mut core, &self.log_filter);
        let executor = self.engine.executor::<Arm>()?;
        let exclusive = Arc::clone(&self.exclusive);
        let mut cpu = EngineVcpu::new(core, executor, exclusive);
        if let Some(sleeper) = &self.sleeper {
            cpu.share_thread(sleeper.clone());
        }
        Ok(Box::new(cpu))
    }
}
