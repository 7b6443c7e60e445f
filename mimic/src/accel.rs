//! What runs the CPUs: choosing an accelerator, and the engine as the boards see it.

use std::sync::Arc;

use accel_core::{
    Core, EngineVcpu, Exclusive, Executor, LogFilter, Sleeper, Target, Vcpu, logs_units,
};
use accel_interp::Interp;
use anyhow::{Result, bail};
use control_options::config::{AccelOpt, CpuOpt};
use control_options::{OnOffAuto, OptionError, Opts, PropDef, PropKind, Props, Topology};
use hw_core::Fabric;
use machine_x86::{CpuWires, Irqchip};
use target_x86::X86;
use target_x86::system::{self, CpuModel, feature};

use crate::guests::{self, Guest};

mod arm;

/// What CPUs an accelerator is to run.
pub struct Wanted<'a> {
    /// The guest.
    pub guest: &'static Guest,
    /// `-cpu`.
    pub cpu: Option<&'a CpuOpt>,
    /// The model without `-cpu`.
    pub default_model: Option<&'static str>,
    /// How they are arranged.
    pub topology: &'a Topology,
    /// `-dfilter`: first and last addresses of the code that is logged; of none, all.
    pub log_filter: &'a [(u64, u64)],
    /// `-perfmap`.
    pub perf_map: bool,
}

/// An accelerator as the boards of a guest see it.
#[derive(Clone)]
pub enum Accelerator {
    /// PCs.
    X86(Arc<dyn machine_x86::Accelerator>),
    /// Arm boards.
    Arm(Arc<dyn machine_arm::Accelerator>),
}

/// An accelerator, ready for a board.
pub struct Chosen {
    /// As boards see it.
    pub accelerator: Accelerator,
    /// The name of its CPUs' model.
    pub cpu_model: String,
    /// Whether it is KVM.
    pub is_kvm: bool,
}

type Make = fn(&Wanted<'_>, &Props) -> Result<Chosen>;

/// An accelerator by its name.
pub struct AccelDef {
    /// Name as in `-accel`.
    pub name: &'static str,
    /// One line for help.
    pub doc: &'static str,
    /// Its properties.
    pub props: &'static [PropDef],
    /// Looks at this host and says why it cannot be used; `None` if it can.
    pub unusable: fn() -> Option<String>,
    make: Make,
}

/// All accelerators.
pub static ACCELERATORS: &[AccelDef] = &[
    AccelDef {
        name: "tcg",
        doc: "Mimic's own engine: runs everywhere",
        props: &[
            PropDef::new(
                "jit",
                PropKind::OnOffAuto,
                "compile guest code for this host; auto: where the host can",
            )
            .or("auto"),
            PropDef::new(
                "check",
                PropKind::Bool,
                "run generated code in lock step with the interpreter; stop where they differ",
            )
            .or("off"),
            PropDef::new(
                "one-insn-per-tb",
                PropKind::Bool,
                "run each guest instruction by itself",
            )
            .or("off"),
            PropDef::new(
                "split-wx",
                PropKind::Bool,
                "map generated code twice, writable and executable; always on",
            )
            .or("on"),
            PropDef::new(
                "tb-size",
                PropKind::U32,
                "most MiB of generated code to keep for each vCPU; 0: a default",
            )
            .or("0"),
            PropDef::new(
                "thread",
                PropKind::Enum(&["multi", "single"]),
                "host threads for several vCPUs: one each, or one that runs all in turn (as for check=on)",
            )
            .or("multi"),
        ],
        unusable: || None,
        make: make_tcg,
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
        unusable: || accel_kvm::available().err().map(|error| error.to_string()),
        make: make_kvm,
    },
    AccelDef {
        name: "qtest",
        doc: "no processor at all: a test program drives the devices",
        props: &[],
        unusable: || Some("this version of Mimic cannot be driven by qtest yet".to_owned()),
        make: |_, _| bail!("this version of Mimic cannot be driven by qtest yet"),
    },
];

fn find(name: &str) -> Result<&'static AccelDef, OptionError> {
    let names = ACCELERATORS.iter().map(|def| def.name);
    ACCELERATORS
        .iter()
        .find(|def| def.name == name)
        .ok_or_else(|| OptionError::unknown_name("-accel", "accelerator", name, names))
}

/// The first usable accelerator of a list, the engine if the list is empty.
///
/// # Errors
/// When a name or property is wrong, none of the list can be used, or the CPUs cannot be had.
pub fn choose(list: &[AccelOpt], wanted: &Wanted<'_>) -> Result<Chosen> {
    // The whole list is checked first: a misspelt fallback is a mistake even if it is not needed.
    let mut checked = Vec::new();
    for choice in list {
        let def = find(&choice.name)?;
        let subject = format!("accelerator '{}'", def.name);
        let props = Props::check("-accel", &subject, &choice.opts, def.props)?;
        checked.push((def, props));
    }
    if checked.is_empty() {
        let def = find("tcg")?;
        let props = Props::check("-accel", "accelerator 'tcg'", &Opts::default(), def.props)?;
        checked.push((def, props));
    }
    let mut refusals = Vec::new();
    for (def, props) in checked {
        if let Some(why) = (def.unusable)() {
            refusals.push(format!("'{}' cannot be used: {why}", def.name));
            continue;
        }
        for refusal in &refusals {
            log::warn!("-accel: {refusal}; going on with '{}'", def.name);
        }
        return (def.make)(wanted, &props);
    }
    bail!("-accel: {}; use '-accel tcg'", refusals.join(", and "));
}

fn make_tcg(wanted: &Wanted<'_>, props: &Props) -> Result<Chosen> {
    if !props.is_on("split-wx") {
        bail!(
            "-accel: 'split-wx=off' is not available: generated code is never writable where it runs"
        );
    }
    let engine = Engine {
        perf_map: wanted.perf_map,
        one_cpu: wanted.topology.maxcpus == 1,
        ..Engine::of(props)?
    };
    if wanted.guest.is(&guests::AARCH64) {
        let tcg = arm::Tcg::new(wanted, engine)?;
        return Ok(Chosen {
            cpu_model: tcg.model_name(),
            accelerator: Accelerator::Arm(Arc::new(tcg)),
            is_kvm: false,
        });
    }
    let default = wanted.default_model.unwrap_or("qemu64");
    let mut tcg = Tcg::new(wanted.cpu, default, wanted.topology)?;
    tcg.engine = engine;
    tcg.sleeper = engine.sleeper();
    tcg.log_filter = LogFilter::new(wanted.log_filter);
    Ok(Chosen {
        cpu_model: tcg.model.name.clone(),
        accelerator: Accelerator::X86(Arc::new(tcg)),
        is_kvm: false,
    })
}

/// The guest that this host's KVM can run.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const HOSTS_GUEST: &Guest = &guests::X86_64;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const HOSTS_GUEST: &Guest = &guests::AARCH64;

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
fn make_kvm(wanted: &Wanted<'_>, props: &Props) -> Result<Chosen> {
    if !wanted.guest.is(HOSTS_GUEST) {
        bail!(
            "-accel: 'kvm' runs only guests of the host's own kind, not {}; use '-accel tcg'",
            wanted.guest.name
        );
    }
    crate::kvm::make(wanted, props)
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
fn make_kvm(_: &Wanted<'_>, _: &Props) -> Result<Chosen> {
    Err(accel_kvm::KvmError::NoHost.into())
}

/// Whether an accelerator can be used on this host.
pub fn is_present(name: &str) -> bool {
    find(name).is_ok_and(|def| (def.unusable)().is_none())
}

/// The text of `-cpu`, as the model's parser takes it.
pub(crate) fn cpu_text(cpu: &CpuOpt) -> String {
    let settings = cpu
        .settings
        .iter()
        .map(|s| format!(",{}={}", s.name, s.value));
    std::iter::once(cpu.model.clone()).chain(settings).collect()
}

/// As CPUs know it.
pub(crate) fn topology_of(topology: &Topology) -> system::Topology {
    system::Topology {
        sockets: topology.sockets,
        dies: topology.dies,
        cores: topology.cores,
        threads: topology.threads,
    }
}

/// The portable engine.
pub struct Tcg {
    model: Arc<CpuModel>,
    topology: system::Topology,
    exclusive: Arc<Exclusive>,
    /// Where all CPUs sleep if one thread runs them.
    sleeper: Option<Arc<Sleeper>>,
    engine: Engine,
    log_filter: LogFilter,
}

/// How the engine executes.
#[derive(Clone, Copy, Default)]
struct Engine {
    /// Bytes of generated code for each vCPU; `None` to interpret.
    code_bytes: Option<usize>,
    /// Each instruction by itself.
    single: bool,
    /// Generated code is named for perf.
    perf_map: bool,
    /// Generated code runs in lock step with the interpreter.
    check: bool,
    /// One thread runs all CPUs in turn.
    one_thread: bool,
    /// There is one CPU.
    one_cpu: bool,
}

impl Engine {
    fn of(props: &Props) -> Result<Self> {
        let mib = props.unsigned("tb-size").unwrap_or(0);
        if mib > JIT_MOST_MIB {
            bail!("-accel: 'tb-size={mib}' is too much; up to {JIT_MOST_MIB} (MiB) can be kept");
        }
        let wanted = props.on_off_auto("jit");
        if wanted == OnOffAuto::On && !HAS_JIT {
            bail!("-accel: 'jit=on' is not available on this host; leave it out to interpret");
        }
        let check = props.is_on("check");
        let is_compiled = HAS_JIT && wanted != OnOffAuto::Off && !logs_units();
        if check && !is_compiled {
            let why = match (HAS_JIT, wanted) {
                (false, _) => "this host has no JIT",
                (_, OnOffAuto::Off) => "'jit=off' leaves nothing to check",
                _ => "'-d exec' and '-d cpu' have everything interpreted",
            };
            bail!("-accel: 'check=on' is not available: {why}");
        }
        let code_bytes = match mib {
            0 => DEFAULT_CODE,
            mib => (mib as usize) << 20,
        };
        Ok(Engine {
            // A log of each unit is the interpreter's.
            code_bytes: is_compiled.then_some(code_bytes),
            single: props.is_on("one-insn-per-tb"),
            perf_map: false,
            check,
            // What is compared must not be changed by another CPU meanwhile.
            one_thread: check || props.text("thread") == Some("single"),
            one_cpu: false,
        })
    }

    /// Gives a new CPU its settings.
    fn set<T: Target>(self, core: &mut Core<T>, log_filter: &LogFilter) {
        core.single = self.single;
        core.log_filter = log_filter.clone();
        // What is checked is what runs without it.
        core.sole = self.one_cpu || self.one_thread && !self.check;
        if core.sole {
            core.mmu.map().set_light_cpus();
        }
    }

    /// Where all CPUs of a machine sleep, if one thread runs them.
    fn sleeper(self) -> Option<Arc<Sleeper>> {
        self.one_thread.then(Arc::default)
    }

    fn executor<T: Target>(self) -> Result<Box<dyn Executor<T>>, String> {
        match self.code_bytes {
            Some(bytes) => jit(bytes, self.perf_map, self.check),
            None => Ok(Box::new(Interp::default())),
        }
    }
}

/// Most MiB of generated code for a vCPU: jumps in it reach no further.
const JIT_MOST_MIB: u64 = 1024;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod host_jit {
    use super::{Executor, Target};

    pub(super) use accel_jit::DEFAULT_CODE;
    /// Whether this host has a JIT.
    pub(super) const HAS_JIT: bool = true;

    pub(super) fn jit<T: Target>(
        bytes: usize,
        perf_map: bool,
        check: bool,
    ) -> Result<Box<dyn Executor<T>>, String> {
        let mut jit = accel_jit::Jit::<T>::new(bytes)
            .map_err(|error| format!("{error}; '-accel tcg,jit=off' does without"))?;
        if check {
            jit.check();
        }
        if perf_map {
            jit.map_for_perf()
                .map_err(|error| format!("-perfmap: {error}"))?;
        }
        Ok(Box::new(jit))
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod host_jit {
    use super::{Executor, Target};

    pub(super) const DEFAULT_CODE: usize = 0;
    pub(super) const HAS_JIT: bool = false;

    pub(super) fn jit<T: Target>(
        _: usize,
        _: bool,
        _: bool,
    ) -> Result<Box<dyn Executor<T>>, String> {
        Err("this host has no JIT".to_owned())
    }
}

use host_jit::{DEFAULT_CODE, HAS_JIT, jit};

impl Tcg {
    /// The engine, running CPUs of this model (`default_model` if `-cpu` is absent).
    ///
    /// # Errors
    /// What is wrong with `-cpu`.
    fn new(cpu: Option<&CpuOpt>, default_model: &str, topology: &Topology) -> Result<Self> {
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
            topology: topology_of(topology),
            exclusive: Arc::default(),
            sleeper: None,
            engine: Engine::default(),
            log_filter: LogFilter::default(),
        })
    }
}

impl machine_x86::Accelerator for Tcg {
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
        let mut core = system::new_core(
            wires.index,
            Arc::clone(&self.model),
            self.topology,
            wires.port,
            wires.fabric.memory.clone(),
            wires.clock,
        );
        let executor = self.engine.executor::<X86>()?;
        self.engine.set(&mut core, &self.log_filter);
        let exclusive = Arc::clone(&self.exclusive);
        let mut cpu = EngineVcpu::new(core, executor, exclusive);
        if let Some(sleeper) = &self.sleeper {
            cpu.share_thread(sleeper.clone());
        }
        Ok(Box::new(cpu))
    }

    fn tsc_hz(&self) -> u64 {
        self.model.tsc_hz
    }
}
