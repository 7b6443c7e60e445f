//! Model-specific registers (SDM vol. 4; APM vol. 2, appendix A), and the time-stamp counter.
//!
//! Not modelled: performance counters, last branch records, thermal and power management: those that
//! kernels touch without asking read as zero and lose writes.

use accel_core::Trap;
use hw_clock::ticks_to_ns;

use super::control::{ecx, pair, set_pair};
use super::fast::set_base;
use super::mtrr::Mtrrs;
use super::paging::is_canonical;
use super::{feature, gp, leave, leave_if_changed, need_cpl0};
use crate::Core;
use crate::state::{SegmentIndex, cr4, efer};

/// Numbers of MSRs.
#[allow(missing_docs)]
pub mod number {
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const SMI_COUNT: u32 = 0x34;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const UCODE_WRITE: u32 = 0x79;
    pub const UCODE_REV: u32 = 0x8b;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MCG_CTL: u32 = 0x17b;
    pub const PERF_STATUS: u32 = 0x198;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const PAT: u32 = 0x277;
    pub const MC0_CTL: u32 = 0x400;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    pub const PERF_CTL0: u32 = 0xc001_0000;
    pub const PERF_CTR3: u32 = 0xc001_0007;
    pub const SYSCFG: u32 = 0xc001_0010;
    pub const HWCR: u32 = 0xc001_0015;
}

/// IA32_APIC_BASE: the APIC is enabled.
pub(super) const APIC_BASE_EN: u64 = 1 << 11;
/// IA32_APIC_BASE: the APIC is in x2APIC mode.
const APIC_BASE_EXTD: u64 = 1 << 10;
/// Machine-check banks.
pub const MC_BANKS: usize = 10;
/// IA32_MCG_CAP: the banks, and IA32_MCG_CTL exists.
const MCG_CAP: u64 = MC_BANKS as u64 | 1 << 8;
/// MCi_CTL: bit 0 (bank 0 of the P6 family) and bit 10 (bank 4 of AMD's K8).
const MC_CTL_ERRATA: u64 = 1 << 10 | 1;
/// IA32_MISC_ENABLE: fast string operations.
const MISC_ENABLE_RESET: u64 = 1;
/// Microcode revision: of some real processors, so that kernels see no old one.
const UCODE_REV_AMD: u64 = 0x0100_0065;
const UCODE_REV_INTEL: u64 = 0x1_0000_0000;
/// Unknown MSRs are logged this often in a CPU's life.
const LOGGED: u32 = 16;

/// MSRs that are plain storage here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    /// The TSC minus the virtual clock's ticks.
    pub tsc_offset: u64,
    pub misc_enable: u64,
    pub spec_ctrl: u64,
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    /// CTL, STATUS, ADDR, MISC of each bank.
    pub mc_banks: [u64; 40],
    pub hwcr: u64,
    pub mtrr: Mtrrs,
    /// Unknown MSRs logged so far.
    pub(crate) logged: u32,
}

impl Default for Msrs {
    fn default() -> Self {
        let mut mc_banks = [0; 40];
        for ctl in mc_banks.iter_mut().step_by(4) {
            *ctl = u64::MAX;
        }
        Msrs {
            star: 0,
            lstar: 0,
            cstar: 0,
            sfmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_aux: 0,
            tsc_adjust: 0,
            tsc_offset: 0,
            misc_enable: MISC_ENABLE_RESET,
            spec_ctrl: 0,
            mcg_status: 0,
            mcg_ctl: u64::MAX,
            mc_banks,
            hwcr: 0,
            mtrr: Mtrrs::default(),
            logged: 0,
        }
    }
}

/// The place of an MSR that is plain storage, for saved state. Kept in step with [`read`].
fn place(m: &mut Msrs, msr: u32) -> Option<&mut u64> {
    use number::*;
    Some(match msr {
        STAR => &mut m.star,
        LSTAR => &mut m.lstar,
        CSTAR => &mut m.cstar,
        SFMASK => &mut m.sfmask,
        KERNEL_GS_BASE => &mut m.kernel_gs_base,
        SYSENTER_CS => &mut m.sysenter_cs,
        SYSENTER_ESP => &mut m.sysenter_esp,
        SYSENTER_EIP => &mut m.sysenter_eip,
        TSC_AUX => &mut m.tsc_aux,
        TSC_ADJUST => &mut m.tsc_adjust,
        MISC_ENABLE => &mut m.misc_enable,
        SPEC_CTRL => &mut m.spec_ctrl,
        MCG_STATUS => &mut m.mcg_status,
        MCG_CTL => &mut m.mcg_ctl,
        HWCR => &mut m.hwcr,
        MC0_CTL..=0x427 => m
            .mc_banks
            .get_mut((msr as usize).wrapping_sub(MC0_CTL as usize))?,
        _ => m.mtrr.place(msr)?,
    })
}

/// The value of an MSR that is plain storage.
pub(super) fn stored(m: &Msrs, msr: u32) -> Option<u64> {
    // Saving is rare: a copy keeps one list of places instead of two.
    place(&mut m.clone(), msr).copied()
}

/// Sets an MSR that is plain storage, as saved state has it; whether there is one.
pub(super) fn set_stored(m: &mut Msrs, msr: u32, value: u64) -> bool {
    match place(m, msr) {
        Some(at) => {
            *at = value;
            true
        }
        None => false,
    }
}

/// The time-stamp counter.
pub fn tsc(core: &Core) -> u64 {
    let system = &core.arch.system;
    core.clock
        .ticks(system.model.tsc_hz)
        .wrapping_add(system.msr.tsc_offset)
}

/// The virtual time at which the TSC reaches `value`; 0 if it has.
fn tsc_to_ns(core: &Core, value: u64) -> u64 {
    let system = &core.arch.system;
    // Deadlines are ahead by less than half of the counter's range.
    let ahead = value.wrapping_sub(tsc(core)).cast_signed();
    if ahead <= 0 {
        return 0;
    }
    let ticks = value.wrapping_sub(system.msr.tsc_offset);
    ticks_to_ns(ticks, system.model.tsc_hz)
}

/// Reads an MSR. `None`: there is none, or not in this model.
pub(crate) fn read(core: &mut Core, msr: u32) -> Option<u64> {
    use number::*;
    let base = |n: SegmentIndex| core.arch.segment(n as usize).base;
    let system = &core.arch.system;
    let m = &system.msr;
    let has = |f| system.model.has(f);
    let intel = system.model.vendor == "GenuineIntel";
    Some(match msr {
        TSC => tsc(core),
        TSC_ADJUST if has(feature::TSC_ADJUST) => m.tsc_adjust,
        APIC_BASE | 0x800..=0x8ff => return core.port.apic_read(msr),
        TSC_DEADLINE if has(feature::TSC_DEADLINE) => core.port.tsc_deadline(),
        SPEC_CTRL if has(feature::SPEC_CTRL) => m.spec_ctrl,
        // Locked, without VMX.
        FEATURE_CONTROL => 1,
        UCODE_REV if intel => UCODE_REV_INTEL,
        UCODE_REV => UCODE_REV_AMD,
        SYSENTER_CS => m.sysenter_cs,
        SYSENTER_ESP => m.sysenter_esp,
        SYSENTER_EIP => m.sysenter_eip,
        MCG_CAP if has(feature::MCA) => self::MCG_CAP,
        MCG_STATUS if has(feature::MCA) => m.mcg_status,
        MCG_CTL if has(feature::MCA) => m.mcg_ctl,
        MC0_CTL..=0x427 if has(feature::MCA) => m
            .mc_banks
            .get((msr as usize).wrapping_sub(MC0_CTL as usize))
            .copied()?,
        MISC_ENABLE => m.misc_enable,
        // A bus ratio that passes kernels' sanity checks.
        PERF_STATUS => 1000 | 4 << 40,
        PLATFORM_ID | EBL_CR_POWERON | SMI_COUNT | DEBUGCTL | 0x1db..=0x1de => 0,
        EFER => core.arch.efer,
        STAR if has(feature::SYSCALL) => m.star,
        LSTAR if has(feature::LM) => m.lstar,
        CSTAR if has(feature::LM) => m.cstar,
        SFMASK if has(feature::SYSCALL) => m.sfmask,
        FS_BASE if has(feature::LM) => base(SegmentIndex::Fs),
        GS_BASE if has(feature::LM) => base(SegmentIndex::Gs),
        KERNEL_GS_BASE if has(feature::LM) => m.kernel_gs_base,
        TSC_AUX if has(feature::RDTSCP) => m.tsc_aux,
        HWCR if !intel => m.hwcr,
        // PERF_CTL, PERF_CTR, SYSCFG, TOP_MEM, NB_CFG, INT_PENDING, VM_CR, IGNNE, VM_HSAVE_PA, DC_CFG,
        // BU_CFG, DE_CFG. All AMD processors have the first two, no CPUID bit hides them; that they
        // lose writes is how kernels see that nothing counts.
        PERF_CTL0..=PERF_CTR3
        | SYSCFG
        | 0xc001_001a
        | 0xc001_001d
        | 0xc001_001f
        | 0xc001_0055
        | 0xc001_0114
        | 0xc001_0115
        | 0xc001_0117
        | 0xc001_1020..=0xc001_102c
            if !intel =>
        {
            0
        }
        _ => {
            return m
                .mtrr
                .read(msr)
                .filter(|_| has(feature::MTRR) || msr == PAT);
        }
    })
}

/// Writes an MSR. `None`: there is none, or it does not take the value.
pub(crate) fn write(core: &mut Core, msr: u32, value: u64) -> Option<()> {
    use number::*;
    let model = core.arch.system.model.clone();
    let has = |f| model.has(f);
    let intel = model.vendor == "GenuineIntel";
    let now = tsc(core);
    let deadline_ns = tsc_to_ns(core, value);
    let phys_bits = model.phys_bits;
    let m = &mut core.arch.system.msr;
    let canonical = || is_canonical(value).then_some(value);
    match msr {
        TSC => {
            let by = value.wrapping_sub(now);
            m.tsc_offset = m.tsc_offset.wrapping_add(by);
            m.tsc_adjust = m.tsc_adjust.wrapping_add(by);
        }
        TSC_ADJUST if has(feature::TSC_ADJUST) => {
            let by = value.wrapping_sub(m.tsc_adjust);
            m.tsc_offset = m.tsc_offset.wrapping_add(by);
            m.tsc_adjust = value;
        }
        // EXTD is reserved without x2APIC.
        APIC_BASE if value & APIC_BASE_EXTD != 0 && !has(feature::X2APIC) => return None,
        APIC_BASE if value.checked_shr(phys_bits).is_some_and(|above| above != 0) => return None,
        APIC_BASE | 0x800..=0x8ff => return core.port.apic_write(msr, value),
        TSC_DEADLINE if has(feature::TSC_DEADLINE) => {
            core.port.set_tsc_deadline(value, deadline_ns);
        }
        SPEC_CTRL if has(feature::SPEC_CTRL) => m.spec_ctrl = value & 7,
        PRED_CMD if has(feature::SPEC_CTRL) || has(feature::IBPB) => {}
        UCODE_WRITE | UCODE_REV => {}
        SYSENTER_CS => m.sysenter_cs = value & 0xffff_ffff,
        SYSENTER_ESP => m.sysenter_esp = canonical()?,
        SYSENTER_EIP => m.sysenter_eip = canonical()?,
        MCG_STATUS if has(feature::MCA) => m.mcg_status = value,
        MCG_CTL if has(feature::MCA) => m.mcg_ctl = value,
        MC0_CTL..=0x427 if has(feature::MCA) => {
            let n = (msr as usize).wrapping_sub(MC0_CTL as usize);
            let taken = match n & 3 {
                // CTL: none or all, but for the bits that kernels mask for known errata of banks.
                0 => value == 0 || value | MC_CTL_ERRATA == u64::MAX,
                // STATUS can be cleared only.
                1 => value == 0,
                _ => true,
            };
            if !taken {
                return None;
            }
            *m.mc_banks.get_mut(n)? = value;
        }
        MISC_ENABLE => m.misc_enable = value,
        EBL_CR_POWERON | DEBUGCTL => {}
        EFER => return write_efer(core, value),
        STAR if has(feature::SYSCALL) => m.star = value,
        LSTAR if has(feature::LM) => m.lstar = canonical()?,
        CSTAR if has(feature::LM) => m.cstar = canonical()?,
        SFMASK if has(feature::SYSCALL) => m.sfmask = value & 0xffff_ffff,
        FS_BASE if has(feature::LM) => {
            canonical()?;
            set_base(core, SegmentIndex::Fs, value);
        }
        GS_BASE if has(feature::LM) => {
            canonical()?;
            set_base(core, SegmentIndex::Gs, value);
        }
        KERNEL_GS_BASE if has(feature::LM) => m.kernel_gs_base = canonical()?,
        TSC_AUX if has(feature::RDTSCP) && value >> 32 == 0 => m.tsc_aux = value,
        HWCR if !intel => m.hwcr = value,
        PERF_CTL0..=PERF_CTR3
        | SYSCFG
        | 0xc001_001a
        | 0xc001_001d
        | 0xc001_001f
        | 0xc001_0055
        | 0xc001_0114
        | 0xc001_0115
        | 0xc001_0117
        | 0xc001_1020..=0xc001_102c
            if !intel => {}
        _ if has(feature::MTRR) || msr == PAT => return m.mtrr.write(msr, value, phys_bits),
        _ => return None,
    }
    Some(())
}

fn write_efer(core: &mut Core, value: u64) -> Option<()> {
    let model = &core.arch.system.model;
    let allowed = [
        (efer::SCE, feature::SYSCALL),
        (efer::LME, feature::LM),
        (efer::NXE, feature::NX),
        (efer::FFXSR, feature::FXSR_OPT),
    ]
    .iter()
    .filter(|(_, feature)| model.has(*feature))
    .fold(efer::LMA, |bits, (bit, _)| bits | bit);
    let old = core.arch.efer;
    let paging = core.arch.cr0 & crate::state::cr0::PG != 0;
    if value & !allowed != 0 || paging && (value ^ old) & efer::LME != 0 {
        return None;
    }
    // LMA cannot be written.
    let new = value & !efer::LMA | old & efer::LMA;
    core.arch.efer = new;
    if (old ^ new) & efer::NXE != 0 {
        core.mmu.flush_all();
    }
    Some(())
}

fn log_unknown(core: &mut Core, how: &str, msr: u32) {
    let logged = &mut core.arch.system.msr.logged;
    if *logged < LOGGED {
        *logged = logged.wrapping_add(1);
        log::debug!("CPU {}: {how} of unknown MSR {msr:#x}", core.index);
    }
}

/// RDMSR.
pub(crate) fn rdmsr(core: &mut Core) -> Result<u64, Trap> {
    need_cpl0(core)?;
    let msr = ecx(core);
    match read(core, msr) {
        Some(value) => {
            set_pair(core, value);
            Ok(0)
        }
        None => {
            log_unknown(core, "read", msr);
            Err(gp(core, 0))
        }
    }
}

/// WRMSR.
pub(crate) fn wrmsr(core: &mut Core, next: u64) -> Result<u64, Trap> {
    need_cpl0(core)?;
    let msr = ecx(core);
    let value = pair(core);
    if write(core, msr, value).is_none() {
        log_unknown(core, "write", msr);
        return Err(gp(core, 0));
    }
    if msr == number::APIC_BASE {
        // The APIC's page may have moved.
        return leave(core, next);
    }
    leave_if_changed(core, next)
}

fn check_tsd(core: &mut Core) -> Result<(), Trap> {
    if core.arch.cr4 & cr4::TSD != 0 && core.arch.cpl != 0 {
        return Err(gp(core, 0));
    }
    Ok(())
}

/// RDTSC and RDTSCP: the counter.
pub(crate) fn rdtsc(core: &mut Core) -> Result<u64, Trap> {
    check_tsd(core)?;
    Ok(tsc(core))
}

/// RDPMC: no counter exists.
pub(crate) fn rdpmc(core: &mut Core) -> Result<u64, Trap> {
    Err(gp(core, 0))
}
