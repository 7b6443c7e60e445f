//! State of a CPU outside the register file (DDI 0487, D1.4 "Process state").

use std::sync::Arc;

use crate::model::CpuModel;
use crate::peers::{Peer, Peers};
use crate::system::pauth::PauthShape;
use crate::system::pmu::Pmu;

/// What the board's loader puts into registers before the first instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Boot {
    /// First instruction.
    pub pc: u64,
    /// x0 to x3; the other general registers are zero.
    pub x: [u64; 4],
    /// Exception level; by default the highest there is below EL3 (EL2, else EL1), as Linux wants it.
    pub el: Option<u8>,
}

/// What the board decides about one CPU.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Affinity fields of MPIDR_EL1: Aff0 in bits 7 to 0, Aff1 15 to 8, Aff2 23 to 16, Aff3 39 to 32.
    pub mpidr: u64,
    /// Off after reset, until PSCI's CPU_ON.
    pub powered_off: bool,
    /// A kernel is entered directly, instead of firmware at RVBAR_ELx.
    pub boot: Option<Boot>,
    /// Shared by all CPUs of the machine.
    pub peers: Arc<Peers>,
}

/// Where an exception goes in the vector table, beside its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vector {
    Synchronous,
    Irq,
    Fiq,
}

/// A noted exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exception {
    pub(crate) vector: Vector,
    /// Target exception level.
    pub(crate) to: u8,
    /// ESR_ELx: class, IL and syndrome.
    pub(crate) esr: u64,
    /// FAR_ELx, if the exception sets it.
    pub(crate) far: Option<u64>,
    /// HPFAR_EL2, if the exception sets it.
    pub(crate) hpfar: Option<u64>,
}

/// All state outside the register file.
pub struct State {
    /// What ID registers show.
    pub model: Arc<CpuModel>,
    /// What the board decided.
    pub setup: Setup,
    /// PSTATE.EL.
    pub el: u8,
    /// PSTATE.nRW: AArch32, at EL0 only.
    pub(crate) aarch32: bool,
    /// PSTATE.T: T32.
    pub(crate) thumb: bool,
    /// PSTATE.E: data of AArch32 is big-endian.
    pub(crate) big_endian: bool,
    /// PSTATE.SP.
    pub sp_sel: bool,
    /// PSTATE.PAN.
    pub pan: bool,
    /// PSTATE.UAO.
    pub uao: bool,
    /// PSTATE.DIT.
    pub dit: bool,
    /// PSTATE.SSBS.
    pub ssbs: bool,
    /// PSTATE.IL.
    pub il: bool,
    /// PSTATE.SS.
    pub ss: bool,
    /// Off: executes nothing until PSCI turns it on.
    pub powered_off: bool,
    /// In WFI.
    pub halted: bool,
    /// A translation of a tagged address was cached: flushes by address must forget more.
    pub(crate) tagged: bool,
    /// A guarded page (BTI) was executed: branches keep PSTATE.BTYPE from here on.
    pub(crate) guarded: bool,
    /// TLB maintenance was broadcast since the last DSB.
    pub(crate) unsettled: bool,
    /// The exception noted is none: the instruction is to be executed again.
    pub(crate) again: bool,
    /// OSLSR_EL1.OSLK.
    pub(crate) os_lock: bool,
    /// DBGBVR, DBGBCR, DBGWVR, DBGWCR by number.
    pub(crate) debug: [[u64; 4]; 16],
    pub(crate) pmu: Pmu,
    /// What pointer authentication found out of the registers, until the mode is looked at again.
    pub(crate) pauth: Option<PauthShape>,
    /// Bytes that the semihosting request at hand has written.
    pub(crate) semihost_done: u64,
    pub(crate) exception: Option<Exception>,
    pub(crate) peer: Arc<Peer>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("el", &self.el)
            .field("sp_sel", &self.sp_sel)
            .field("exception", &self.exception)
            .finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn new(model: Arc<CpuModel>, setup: Setup, peer: Arc<Peer>) -> Self {
        State {
            model,
            setup,
            el: 1,
            aarch32: false,
            thumb: false,
            big_endian: false,
            sp_sel: true,
            pan: false,
            uao: false,
            dit: false,
            ssbs: false,
            il: false,
            ss: false,
            powered_off: false,
            halted: false,
            tagged: false,
            guarded: false,
            unsettled: false,
            again: false,
            // As reset leaves it (D23.3 "OSLSR_EL1").
            os_lock: true,
            debug: [[0; 4]; 16],
            pmu: Pmu::default(),
            pauth: None,
            semihost_done: 0,
            exception: None,
            peer,
        }
    }

    /// A debug register by its number and op2.
    pub(crate) fn debug_register(&self, n: u16, kind: u16) -> u64 {
        let row = self.debug.get(usize::from(n));
        row.and_then(|r| r.get(usize::from(kind & 3)))
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn set_debug_register(&mut self, n: u16, kind: u16, value: u64) {
        let row = self.debug.get_mut(usize::from(n));
        if let Some(register) = row.and_then(|r| r.get_mut(usize::from(kind & 3))) {
            *register = value;
        }
    }
}
