//! Arm Generic Interrupt Controller, versions 2 and 3.
//!
//! Spec: Arm IHI 0048B.b (GICv2), Arm IHI 0069H (GICv3).
//!
//! One controller serves both versions ([`Gic`], with the rules in `model.rs`); beside it are thin
//! devices for the registers: [`GicV2Device`], [`GicV3Device`] and the message frame [`GicV2m`].
//! Nothing polls: after each change the outputs of the CPUs that it may concern are worked out again,
//! and a CPU whose input rises is told.
//!
//! Not modelled: the virtual CPU interface of version 2, 1-of-N routing, extended ranges of interrupts,
//! the GICv3 legacy (non-affinity) mode, version 2's `NSACR`, the locks of `CP15SDISABLE`.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use hw_core::{IrqHub, IrqSink};
use hw_intc::{GIC_BANK, GicState, GicVersion};
use runtime::{Rank, Ranked, RankedGuard};

mod distributor;
mod its;
mod lpi;
mod model;
mod security;
mod sysregs;
mod v2;
mod v2_interface;
mod v2m;
mod v3;
mod virt;

#[cfg(test)]
mod tests;

use model::{Model, line};

pub use its::{ARM_GICV3_ITS, GicIts, ITS_LEN, ItsModel};
pub use sysregs::{Access as GicSystemAccess, SystemFault};
pub use v2::{ARM_GIC, GicV2Device};
pub use v2m::{GICV2M, GicV2m, GicV2mConfig};
pub use v3::{ARM_GICV3, GicV3Device, REDISTRIBUTOR_LEN};

/// INTIDs have ten bits on a pin number; above them is the CPU of a private interrupt.
const PIN_CPU_SHIFT: u32 = 10;

/// Whether a controller has the Security Extensions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Security {
    /// No: there is one Security state.
    None,
    /// There are two, and software of the Secure one sets it up.
    Two,
    /// There are two, and it comes up as Secure software leaves it to a kernel: all interrupts are in group 1.
    SetUp,
}

/// The state of a CPU that asks for its inputs: it decides what group 1 raises (IHI 0069H section 4.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// Non-secure, or there is one Security state.
    NonSecure,
    /// Secure, below EL3.
    Secure,
    /// EL3.
    Monitor,
}

type Ear = Arc<dyn Fn() + Send + Sync>;

/// A CPU's interrupt inputs.
#[derive(Default)]
struct Inputs {
    levels: AtomicU8,
    ear: OnceLock<Ear>,
}

/// A GIC, shared by wires, CPUs and registers.
pub struct Gic {
    version: GicVersion,
    model: Ranked<Model>,
    inputs: Vec<Inputs>,
}

impl std::fmt::Debug for Gic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GICv{}", self.version.number())
    }
}

impl Gic {
    /// A controller of CPUs with these affinities (as `MPIDR_EL1` has them) and `spis` shared
    /// interrupts.
    pub fn new(version: GicVersion, affinities: &[u64], spis: usize) -> Arc<Self> {
        Gic::with_security(version, affinities, spis, Security::None)
    }

    /// As [`new`](Self::new), perhaps with the Security Extensions.
    pub fn with_security(
        version: GicVersion,
        affinities: &[u64],
        spis: usize,
        security: Security,
    ) -> Arc<Self> {
        Arc::new(Gic {
            version,
            model: Ranked::new(
                Rank::InterruptController,
                Model::new(version, affinities, spis, security),
            ),
            inputs: affinities.iter().map(|_| Inputs::default()).collect(),
        })
    }

    /// Its version.
    pub fn version(&self) -> GicVersion {
        self.version
    }

    /// How many CPUs it serves.
    pub fn cpus(&self) -> usize {
        self.inputs.len()
    }

    /// Says what a CPU is told by when one of its inputs rises. Called with locks held: may only touch
    /// atomics and wake.
    pub fn connect(&self, cpu: usize, ear: Ear) {
        if let Some(inputs) = self.inputs.get(cpu) {
            let _ = inputs.ear.set(ear);
        }
    }

    /// The wire of shared interrupt `n`, which is INTID `32 + n`.
    pub fn spi(self: &Arc<Self>, n: u32) -> IrqHub {
        IrqHub::new(self.clone(), n.wrapping_add(GIC_BANK as u32))
    }

    /// The wire of a private interrupt (INTID 16 to 31) of a CPU.
    pub fn ppi(self: &Arc<Self>, cpu: u32, intid: u32) -> IrqHub {
        IrqHub::new(self.clone(), cpu << PIN_CPU_SHIFT | intid)
    }

    /// Level of the IRQ input of a CPU in this state.
    pub fn irq(&self, cpu: usize, world: World) -> bool {
        let own = match world {
            World::NonSecure => line::GROUP_1,
            World::Secure => line::SECURE_GROUP_1,
            World::Monitor => 0,
        };
        self.level(cpu, line::IRQ | own)
    }

    /// Level of the FIQ input of a CPU in this state: group 0, and group 1 of the other Security state.
    pub fn fiq(&self, cpu: usize, world: World) -> bool {
        let others = match world {
            World::NonSecure => line::SECURE_GROUP_1,
            World::Secure => line::GROUP_1,
            World::Monitor => line::GROUP_1 | line::SECURE_GROUP_1,
        };
        self.level(cpu, line::FIQ | others)
    }

    /// Level of a CPU's virtual IRQ input.
    pub fn virtual_irq(&self, cpu: usize) -> bool {
        self.level(cpu, line::VIRTUAL_IRQ)
    }

    /// Level of a CPU's virtual FIQ input.
    pub fn virtual_fiq(&self, cpu: usize) -> bool {
        self.level(cpu, line::VIRTUAL_FIQ)
    }

    fn level(&self, cpu: usize, which: u8) -> bool {
        let inputs = self.inputs.get(cpu);
        inputs.is_some_and(|inputs| inputs.levels.load(Ordering::Acquire) & which != 0)
    }

    /// The state, to hand to an accelerator's controller.
    pub fn snapshot(&self) -> GicState {
        self.lock().state.clone()
    }

    /// Takes over the state of an accelerator's controller, which tells the CPUs itself.
    pub fn set_snapshot(&self, state: GicState) {
        self.lock().replace(state);
    }

    fn lock(&self) -> RankedGuard<'_, Model> {
        self.model.lock()
    }

    /// Brings the inputs of one CPU, or of all, in line with the state.
    fn follow(&self, model: &Model, concerned: Option<usize>) {
        match concerned {
            Some(cpu) => self.follow_one(model, cpu),
            None => (0..self.inputs.len()).for_each(|cpu| self.follow_one(model, cpu)),
        }
    }

    fn follow_one(&self, model: &Model, cpu: usize) {
        let Some(inputs) = self.inputs.get(cpu) else {
            return;
        };
        let (virtual_irq, virtual_fiq) = virt::outputs(&model.state, cpu);
        let mut new = model.outputs(cpu);
        if virtual_irq {
            new |= line::VIRTUAL_IRQ;
        }
        if virtual_fiq {
            new |= line::VIRTUAL_FIQ;
        }
        let old = inputs.levels.swap(new, Ordering::SeqCst);
        if new & !old != 0
            && let Some(ear) = inputs.ear.get()
        {
            ear();
        }
    }

    /// Runs `f` on the model as a CPU that changes what concerns it alone.
    fn with<R>(&self, cpu: usize, f: impl FnOnce(&mut Model) -> R) -> R {
        let mut model = self.lock();
        let result = f(&mut model);
        // The CPUs of version 2 take interrupts from each other.
        let alone = self.version == GicVersion::V3;
        self.follow(&model, alone.then_some(cpu));
        result
    }

    /// Runs `f` on the model; any CPU may be concerned.
    fn with_all<R>(&self, f: impl FnOnce(&mut Model) -> R) -> R {
        let mut model = self.lock();
        let result = f(&mut model);
        self.follow(&model, None);
        result
    }

    /// What `info pic` shows.
    pub fn describe(&self) -> String {
        let model = self.lock();
        let state = &model.state;
        let mut text = format!("gicv{}: ctlr={:#x}\n", self.version.number(), state.ctlr);
        for (n, cpu) in state.cpus.iter().enumerate() {
            let running = model::running(cpu);
            text.push_str(&format!(
                "  cpu {n}: pmr={:#04x} groups={:#x} ctlr={:#x} running={running:#04x} apr={:#x},{:#x}\n",
                cpu.pmr, cpu.groups, cpu.ctlr, cpu.apr[0], cpu.apr[1]
            ));
            describe_bank(&mut text, &cpu.bank, 0);
            if cpu.lpis.enabled {
                let pending: Vec<_> = cpu.lpis.pending().take(8).collect();
                text.push_str(&format!("    lpis on, first pending {pending:?}\n"));
            }
        }
        for (bank, first) in state.spis.iter().zip((32u32..).step_by(32)) {
            describe_bank(&mut text, bank, first);
        }
        text
    }
}

fn describe_bank(text: &mut String, bank: &hw_intc::GicBank, first: u32) {
    if bank.enabled | bank.pending() | bank.active == 0 {
        return;
    }
    text.push_str(&format!(
        "    {first}..: enabled={:#010x} pending={:#010x} active={:#010x} lines={:#010x} group={:#010x} edges={:#010x}\n",
        bank.enabled,
        bank.pending(),
        bank.active,
        bank.lines,
        bank.group,
        bank.edges
    ));
}

impl IrqSink for Gic {
    fn set(&self, pin: u32, level: bool) {
        let cpu = usize::try_from(pin >> PIN_CPU_SHIFT).unwrap_or(usize::MAX);
        let intid = pin & ((1 << PIN_CPU_SHIFT) - 1);
        let mut model = self.lock();
        model.set_line(cpu, intid, level);
        let concerned = model.concerns(cpu, intid);
        self.follow(&model, concerned);
    }
}

/// The CPU that makes an access; a debugger sees what CPU 0 sees.
fn cpu_of(access: &hw_core::Access) -> usize {
    match access.by {
        hw_core::Initiator::Cpu(n) => usize::try_from(n).unwrap_or(0),
        hw_core::Initiator::Device(_) | hw_core::Initiator::Debug => 0,
    }
}

/// Whether an access may have side effects.
fn acts(access: &hw_core::Access) -> bool {
    access.by != hw_core::Initiator::Debug
}

/// Peripheral and component identification (IHI 0048B table 4-46, IHI 0069H table 12-3): one byte
/// each, the last 12 words of a frame. `revision` is the architecture's, in PIDR2.
fn id_register(offset: u64, revision: u64) -> Option<u64> {
    Some(match offset {
        // PIDR4: designed by Arm. The rest of it and PIDR5 to 7 are zero.
        0xfd0 => 0x04,
        0xfe0 => 0x92,
        0xfe4 => 0xb4,
        0xfe8 => revision << 4 | 0xb,
        0xff0 => 0x0d,
        0xff4 => 0xf0,
        0xff8 => 0x05,
        0xffc => 0xb1,
        0xfd4..0x1000 => 0,
        _ => return None,
    })
}

/// Implementer Arm.
const IIDR: u64 = 0x43b;
