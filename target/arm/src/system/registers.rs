//! System registers that hold something: encodings, exception levels, slots (DDI 0487, D23).
//!
//! One row is all there is to say about a register that only keeps its value. What writing changes
//! elsewhere is its [`Effect`]; registers that are made up of other state are in [`super::access`].

use accel_ir::Slot;

use crate::model::{CpuModel, Feature};
use crate::port::SysReg;
use crate::regs;

/// What a write does beside storing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Some bits are RES0: the others.
    Mask(u64),
    /// Translation changes: cached translations that the manual lets be kept are forgotten.
    Translation,
    /// A translation table base: another address space.
    Base,
    /// Traps and controls: the mode may be another.
    Mode,
    /// Both of the latter, and interrupts may be routed elsewhere.
    Hypervisor,
    /// CNTVOFF_EL2.
    CounterOffset,
    /// SCR_EL3: the world below EL3.
    Secure,
}

/// A register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) reg: SysReg,
    /// Least exception level that may read it.
    pub(crate) read: u8,
    /// Least exception level that may write it; 4 for none.
    pub(crate) write: u8,
    pub(crate) effect: Effect,
    pub(crate) feature: Option<Feature>,
    pub(crate) slot: Slot,
    /// Reading and writing is no more than getting and setting the slot.
    pub(crate) is_plain: bool,
}

impl Row {
    /// Whether a model has it.
    pub(crate) fn exists(&self, model: &CpuModel) -> bool {
        self.feature.is_none_or(|f| model.has(f))
            && (self.feature.is_some()
                || !matches!(self.read, 2 | 3)
                || has_level(model, self.read))
    }
}

fn has_level(model: &CpuModel, el: u8) -> bool {
    match el {
        2 => model.has(Feature::El2),
        3 => model.has(Feature::El3),
        _ => true,
    }
}

macro_rules! registers {
    ($($name:ident $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal
       $read:literal $write:literal $effect:expr $(, $feature:ident)?;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        #[repr(u8)]
        enum Number { $($name),* }
        $(
            #[doc = concat!("Slot of ", stringify!($name), ".")]
            #[allow(dead_code)]
            pub(crate) const $name: Slot =
                Slot(regs::SYSTEM.0.wrapping_add(Number::$name as u8));
        )*
        /// All of them.
        pub(crate) const ROWS: &[Row] = &[
            $(Row {
                name: stringify!($name),
                reg: SysReg::new($op0, $op1, $crn, $crm, $op2),
                read: $read,
                write: $write,
                effect: $effect,
                feature: feature!($($feature)?),
                slot: $name,
                is_plain: matches!($effect, Effect::None),
            }),*
        ];
    };
}
macro_rules! feature {
    () => {
        None
    };
    ($feature:ident) => {
        Some(Feature::$feature)
    };
}

use Effect::{Base, CounterOffset, Hypervisor, Mask, Mode, None as Plain, Secure, Translation};

/// Vector bases have 11 zeros.
const VBAR: u64 = !0x7ff;

registers! {
    SCTLR_EL1       3 0 1 0 0    1 1 Translation;
    ACTLR_EL1       3 0 1 0 1    1 1 Mask(0);
    CPACR_EL1       3 0 1 0 2    1 1 Mode;
    TTBR0_EL1       3 0 2 0 0    1 1 Base;
    TTBR1_EL1       3 0 2 0 1    1 1 Base;
    TCR_EL1         3 0 2 0 2    1 1 Translation;
    SPSR_EL1        3 0 4 0 0    1 1 Plain;
    ELR_EL1         3 0 4 0 1    1 1 Plain;
    AFSR0_EL1       3 0 5 1 0    1 1 Plain;
    AFSR1_EL1       3 0 5 1 1    1 1 Plain;
    ESR_EL1         3 0 5 2 0    1 1 Plain;
    FAR_EL1         3 0 6 0 0    1 1 Plain;
    PAR_EL1         3 0 7 4 0    1 1 Plain;
    MAIR_EL1        3 0 10 2 0   1 1 Plain;
    AMAIR_EL1       3 0 10 3 0   1 1 Mask(0);
    VBAR_EL1        3 0 12 0 0   1 1 Mask(VBAR);
    CONTEXTIDR_EL1  3 0 13 0 1   1 1 Plain;
    TPIDR_EL1       3 0 13 0 4   1 1 Plain;
    CNTKCTL_EL1     3 0 14 1 0   1 1 Plain;
    CSSELR_EL1      3 2 0 0 0    1 1 Mask(0xf);
    MDSCR_EL1       2 0 0 2 2    1 1 Mode;
    OSDLR_EL1       2 0 1 3 4    1 1 Mask(1);
    MDCCINT_EL1     2 0 0 2 0    1 1 Plain;
    TPIDR_EL0       3 3 13 0 2   0 0 Plain;
    TPIDRRO_EL0     3 3 13 0 3   0 1 Plain;
    CNTFRQ_EL0      3 3 14 0 0   1 1 Plain;
    APIAKEYLO_EL1   3 0 2 1 0    1 1 Plain, Pauth;
    APIAKEYHI_EL1   3 0 2 1 1    1 1 Plain, Pauth;
    APIBKEYLO_EL1   3 0 2 1 2    1 1 Plain, Pauth;
    APIBKEYHI_EL1   3 0 2 1 3    1 1 Plain, Pauth;
    APDAKEYLO_EL1   3 0 2 2 0    1 1 Plain, Pauth;
    APDAKEYHI_EL1   3 0 2 2 1    1 1 Plain, Pauth;
    APDBKEYLO_EL1   3 0 2 2 2    1 1 Plain, Pauth;
    APDBKEYHI_EL1   3 0 2 2 3    1 1 Plain, Pauth;
    APGAKEYLO_EL1   3 0 2 3 0    1 1 Plain, Pauth;
    APGAKEYHI_EL1   3 0 2 3 1    1 1 Plain, Pauth;

    VPIDR_EL2       3 4 0 0 0    2 2 Plain;
    VMPIDR_EL2      3 4 0 0 5    2 2 Plain;
    SCTLR_EL2       3 4 1 0 0    2 2 Translation;
    ACTLR_EL2       3 4 1 0 1    2 2 Mask(0);
    HCR_EL2         3 4 1 1 0    2 2 Hypervisor;
    MDCR_EL2        3 4 1 1 1    2 2 Mode;
    CPTR_EL2        3 4 1 1 2    2 2 Mode;
    HSTR_EL2        3 4 1 1 3    2 2 Mask(0);
    HACR_EL2        3 4 1 1 7    2 2 Mask(0);
    TTBR0_EL2       3 4 2 0 0    2 2 Base;
    TTBR1_EL2       3 4 2 0 1    2 2 Base, Vhe;
    TCR_EL2         3 4 2 0 2    2 2 Translation;
    VTTBR_EL2       3 4 2 1 0    2 2 Base;
    VTCR_EL2        3 4 2 1 2    2 2 Translation;
    SPSR_EL2        3 4 4 0 0    2 2 Plain;
    ELR_EL2         3 4 4 0 1    2 2 Plain;
    AFSR0_EL2       3 4 5 1 0    2 2 Plain;
    AFSR1_EL2       3 4 5 1 1    2 2 Plain;
    ESR_EL2         3 4 5 2 0    2 2 Plain;
    FAR_EL2         3 4 6 0 0    2 2 Plain;
    HPFAR_EL2       3 4 6 0 4    2 2 Plain;
    MAIR_EL2        3 4 10 2 0   2 2 Plain;
    AMAIR_EL2       3 4 10 3 0   2 2 Mask(0);
    VBAR_EL2        3 4 12 0 0   2 2 Mask(VBAR);
    CONTEXTIDR_EL2  3 4 13 0 1   2 2 Plain, Vhe;
    TPIDR_EL2       3 4 13 0 2   2 2 Plain;
    CNTVOFF_EL2     3 4 14 0 3   2 2 CounterOffset;
    CNTHCTL_EL2     3 4 14 1 0   2 2 Plain;

    SCTLR_EL3       3 6 1 0 0    3 3 Translation;
    ACTLR_EL3       3 6 1 0 1    3 3 Mask(0);
    SCR_EL3         3 6 1 1 0    3 3 Secure;
    SDER32_EL3      3 6 1 1 1    3 3 Mask(0);
    CPTR_EL3        3 6 1 1 2    3 3 Mode;
    MDCR_EL3        3 6 1 3 1    3 3 Mode;
    TTBR0_EL3       3 6 2 0 0    3 3 Base;
    TCR_EL3         3 6 2 0 2    3 3 Translation;
    SPSR_EL3        3 6 4 0 0    3 3 Plain;
    ELR_EL3         3 6 4 0 1    3 3 Plain;
    AFSR0_EL3       3 6 5 1 0    3 3 Mask(0);
    AFSR1_EL3       3 6 5 1 1    3 3 Mask(0);
    ESR_EL3         3 6 5 2 0    3 3 Plain;
    FAR_EL3         3 6 6 0 0    3 3 Plain;
    MAIR_EL3        3 6 10 2 0   3 3 Plain;
    AMAIR_EL3       3 6 10 3 0   3 3 Mask(0);
    VBAR_EL3        3 6 12 0 0   3 3 Mask(VBAR);
    TPIDR_EL3       3 6 13 0 2   3 3 Plain;
}

const _: () = assert!(ROWS.len() <= 128, "more registers than slots");

/// The row of an encoding.
pub(crate) fn find(reg: SysReg) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.reg == reg)
}

/// Sets a register of the table by its name, as a debugger would. Whether there is one.
pub fn set_register(core: &mut crate::Core, name: &str, value: u64) -> bool {
    let Some(row) = ROWS.iter().find(|row| row.name == name) else {
        return false;
    };
    core.regs.set(row.slot, value);
    core.mmu.flush_all();
    super::exception::changed(core);
    true
}

/// What an encoding means at EL2 under HCR_EL2.E2H: names of EL1 are registers of EL2, and those
/// with op1 = 5 (`_EL12`, `_EL02`) the ones of EL1 and EL0.
pub(crate) fn redirect(reg: SysReg, host: bool) -> SysReg {
    if !host {
        return reg;
    }
    let (op0, op1, crn, crm, op2) = reg.fields();
    match (op0, op1, crn, crm, op2) {
        (3, 5, 14, 2 | 3, _) => SysReg::new(op0, 3, crn, crm, op2),
        (3, 5, ..) => SysReg::new(op0, 0, crn, crm, op2),
        // CNTKCTL_EL1 is CNTHCTL_EL2.
        (3, 0, 14, 1, 0) => SysReg::new(3, 4, 14, 1, 0),
        // CPACR_EL1 is CPTR_EL2.
        (3, 0, 1, 0, 2) => SysReg::new(3, 4, 1, 1, 2),
        (3, 0, 1, 0, 0)
        | (3, 0, 2, 0, 0..=2)
        | (3, 0, 4, 0, 0 | 1)
        | (3, 0, 5, 1, 0 | 1)
        | (3, 0, 5, 2, 0)
        | (3, 0, 6, 0, 0)
        | (3, 0, 10, 2 | 3, 0)
        | (3, 0, 12, 0, 0)
        | (3, 0, 13, 0, 1) => SysReg::new(op0, 4, crn, crm, op2),
        _ => reg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_encoding_has_two_rows() {
        for (n, row) in ROWS.iter().enumerate() {
            assert!(
                ROWS[n + 1..].iter().all(|r| r.reg != row.reg),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn a_host_at_el2_reaches_its_own_registers_by_names_of_el1() {
        let sctlr = find(redirect(SysReg::new(3, 0, 1, 0, 0), true)).unwrap();
        assert_eq!(sctlr.name, "SCTLR_EL2");
        let guests = find(redirect(SysReg::new(3, 5, 1, 0, 0), true)).unwrap();
        assert_eq!(guests.name, "SCTLR_EL1");
    }
}
