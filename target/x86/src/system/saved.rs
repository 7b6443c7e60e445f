//! The state of a CPU as plain data, and its saved form. Every accelerator fills a [`CpuState`] and
//! takes one over. Tags are for ever: add, never renumber or reuse.

use accel_core::reason;
use hw_state::{Section, StateError, Value};
use target_softfloat::F80;

use super::msr::{self, number};
use super::{debug, flags, mode_changed, paging, segment};
use crate::float::X87;
use crate::regs;
use crate::state::{SegmentIndex, cr0, efer};
use crate::{Core, Exception, Segment, Table};

/// Name of the section.
pub const NAME: &str = "x86-cpu";
const VERSION: u16 = 1;

/// Most MSRs a section may list.
const MOST_MSRS: usize = 1024;

/// Everything of a CPU that its guest can observe, but for the local APIC and the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuState {
    /// RAX to R15, in encoding order.
    pub gprs: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: Table,
    /// IDTR.
    pub idtr: Table,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// The PDPTEs of PAE paging.
    pub pdptes: [u64; 4],
    /// XCR0.
    pub xcr0: u64,
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// x87.
    pub x87: X87,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// MSRs by number, those of FS, GS, EFER, TSC and the local APIC left out.
    pub msrs: Vec<(u32, u64)>,
    /// The TSC minus the virtual clock's ticks at the TSC's frequency.
    pub tsc_offset: u64,
    /// An exception noted and not delivered yet.
    pub exception: Option<Exception>,
    /// Interrupts are held off for one instruction.
    pub shadow: bool,
    /// Waits for an interrupt.
    pub halted: bool,
    /// Waits for a start-up message.
    pub wait_for_sipi: bool,
    /// NMIs wait for an IRET.
    pub nmi_blocked: bool,
    /// An NMI is pending.
    pub nmi_pending: bool,
    /// INIT is pending.
    pub init_pending: bool,
    /// A start-up message is pending; its vector is the board's to keep.
    pub sipi_pending: bool,
}

/// MSRs that [`CpuState::msrs`] lists.
fn listed() -> impl Iterator<Item = u32> {
    use number::*;
    [
        STAR,
        LSTAR,
        CSTAR,
        SFMASK,
        KERNEL_GS_BASE,
        SYSENTER_CS,
        SYSENTER_ESP,
        SYSENTER_EIP,
        TSC_AUX,
        TSC_ADJUST,
        MISC_ENABLE,
        SPEC_CTRL,
        MCG_STATUS,
        MCG_CTL,
        HWCR,
        PAT,
        0x2ff,
        0x250,
        0x258,
        0x259,
    ]
    .into_iter()
    .chain(0x268..=0x26f)
    .chain(0x200..=0x20f)
    .chain(MC0_CTL..=0x427)
}

impl CpuState {
    /// Of an engine's CPU.
    pub fn of(core: &Core) -> Self {
        let state = &core.arch;
        let system = &state.system;
        let pending = core.pending.get();
        let mut gprs = [0; 16];
        for (n, gpr) in gprs.iter_mut().enumerate() {
            *gpr = core.regs.get(regs::gpr(n));
        }
        let mut xmm = [0; 16];
        for (n, register) in xmm.iter_mut().enumerate() {
            *register = core.regs.get_v(regs::xmm(n));
        }
        CpuState {
            gprs,
            rip: core.pc(),
            rflags: flags::read(core) | debug::rf(core),
            segments: state.segments,
            ldtr: state.ldtr,
            tr: state.tr,
            gdtr: state.gdtr,
            idtr: state.idtr,
            cr0: state.cr0,
            cr2: state.cr2,
            cr3: state.cr3,
            cr4: state.cr4,
            efer: state.efer,
            pdptes: system.pdptes,
            xcr0: system.xcr0,
            dr: system.dr,
            dr6: system.dr6,
            dr7: system.dr7,
            x87: state.x87.clone(),
            xmm,
            mxcsr: core.regs.get(regs::MXCSR) as u32,
            msrs: listed()
                .filter_map(|n| Some((n, msr::stored(&system.msr, n)?)))
                .collect(),
            tsc_offset: system.msr.tsc_offset,
            exception: state.exception,
            shadow: state.shadow,
            halted: state.halted,
            wait_for_sipi: state.wait_for_sipi,
            nmi_blocked: system.nmi_blocked,
            nmi_pending: pending & reason::NMI != 0,
            init_pending: pending & reason::INIT != 0,
            sipi_pending: pending & reason::SIPI != 0,
        }
    }

    /// Puts this state into an engine's CPU.
    pub fn apply(&self, core: &mut Core) {
        use SegmentIndex::{Cs, Ds, Es, Fs, Gs, Ss};
        for (n, gpr) in self.gprs.iter().enumerate() {
            core.regs.set(regs::gpr(n), *gpr);
        }
        for (n, register) in self.xmm.iter().enumerate() {
            core.regs.set_v(regs::xmm(n), *register);
        }
        core.regs.set(regs::MXCSR, u64::from(self.mxcsr));
        core.set_pc(self.rip);
        flags::write(core, self.rflags);
        for (n, s) in [Es, Cs, Ss, Ds, Fs, Gs].into_iter().zip(self.segments) {
            segment::set(core, n, s);
        }
        let long = self.efer & efer::LME != 0 && self.cr0 & cr0::PG != 0;
        let state = &mut core.arch;
        state.ldtr = self.ldtr;
        state.tr = self.tr;
        state.gdtr = self.gdtr;
        state.idtr = self.idtr;
        state.cr0 = self.cr0 | cr0::ET;
        state.cr2 = self.cr2;
        state.cr3 = self.cr3;
        state.cr4 = self.cr4;
        state.efer = self.efer & !efer::LMA | if long { efer::LMA } else { 0 };
        let real = self.cr0 & cr0::PE == 0;
        // As in hardware, SS.DPL is the privilege level.
        state.cpl = if real { 0 } else { state.ss().dpl() };
        state.x87 = self.x87.clone();
        state.exception = self.exception;
        state.shadow = self.shadow;
        state.halted = self.halted;
        state.wait_for_sipi = self.wait_for_sipi;
        let system = &mut state.system;
        system.pdptes = self.pdptes;
        system.xcr0 = self.xcr0;
        system.dr = self.dr;
        system.dr6 = self.dr6;
        system.dr7 = self.dr7;
        system.nmi_blocked = self.nmi_blocked;
        system.fresh_shadow = None;
        for (n, value) in &self.msrs {
            if !msr::set_stored(&mut system.msr, *n, *value) {
                log::debug!("saved MSR {n:#x} is not known here");
            }
        }
        system.msr.tsc_offset = self.tsc_offset;
        for (bit, set) in [
            (reason::NMI, self.nmi_pending),
            (reason::INIT, self.init_pending),
            (reason::SIPI, self.sipi_pending),
        ] {
            if set {
                core.pending.raise(bit);
            } else {
                core.pending.clear(bit);
            }
        }
        core.arch.system.a20 = core.port.a20();
        paging::switch(core);
        core.mmu.sync_map();
        core.mmu.flush_all();
        debug::arm(core);
        debug::resume(core, self.rflags);
        mode_changed(core);
    }

    /// The saved form.
    pub fn save(&self) -> Section {
        // No `..`: a new field does not compile until it is saved.
        let CpuState {
            gprs,
            rip,
            rflags,
            segments,
            ldtr,
            tr,
            gdtr,
            idtr,
            cr0,
            cr2,
            cr3,
            cr4,
            efer,
            pdptes,
            xcr0,
            dr,
            dr6,
            dr7,
            x87,
            xmm,
            mxcsr,
            msrs,
            tsc_offset,
            exception,
            shadow,
            halted,
            wait_for_sipi,
            nmi_blocked,
            nmi_pending,
            init_pending,
            sipi_pending,
        } = self;
        let X87 {
            registers,
            control,
            status,
            top,
            used,
            opcode,
            ip,
            dp,
        } = x87;
        let list = |values: &[u64]| values.iter().copied().collect::<Value>();
        let table = |t: &Table| list(&[t.base, u64::from(t.limit)]);
        let mut section = Section::new(NAME, VERSION)
            .with(1, list(gprs))
            .with(2, *rip)
            .with(3, *rflags)
            .with(4, segments.iter().map(segment_value).collect::<Value>())
            .with(5, segment_value(ldtr))
            .with(6, segment_value(tr))
            .with(7, table(gdtr))
            .with(8, table(idtr))
            .with(9, *cr0)
            .with(10, *cr2)
            .with(11, *cr3)
            .with(12, *cr4)
            .with(13, *efer)
            .with(14, list(pdptes))
            .with(15, *xcr0)
            .with(16, list(dr))
            .with(17, *dr6)
            .with(18, *dr7)
            .with(
                19,
                registers
                    .iter()
                    .flat_map(|r| [r.sig, u64::from(r.se)])
                    .collect::<Value>(),
            )
            .with(
                20,
                list(&[
                    u64::from(*control),
                    u64::from(*status),
                    u64::from(*top),
                    u64::from(*used),
                    u64::from(*opcode),
                    *ip,
                    *dp,
                ]),
            )
            .with(
                21,
                xmm.iter()
                    .flat_map(|x| [*x as u64, (*x >> 64) as u64])
                    .collect::<Value>(),
            )
            .with(22, *mxcsr)
            .with(
                23,
                msrs.iter()
                    .flat_map(|(n, value)| [u64::from(*n), *value])
                    .collect::<Value>(),
            )
            .with(24, *tsc_offset)
            .with(25, *shadow)
            .with(26, *halted)
            .with(27, *wait_for_sipi)
            .with(28, *nmi_blocked)
            .with(29, *nmi_pending)
            .with(30, *init_pending)
            .with(31, *sipi_pending);
        if let Some(Exception {
            vector,
            error,
            address,
            software,
        }) = exception
        {
            section.push(32, *vector);
            section.push(33, *software);
            if let Some(error) = error {
                section.push(34, *error);
            }
            if let Some(address) = address {
                section.push(35, *address);
            }
        }
        section
    }

    /// Reads a saved form.
    pub fn load(section: &Section) -> Result<Self, StateError> {
        section.expect(NAME, VERSION)?;
        let s = section;
        let flag = |tag: u16| s.u64(tag).map(|v| v != 0);
        let table = |tag: u16| -> Result<Table, StateError> {
            let [base, limit] = s.u64_array(tag)?;
            let limit = u16::try_from(limit).map_err(|_| s.bad(tag, "limit"))?;
            Ok(Table { base, limit })
        };
        let mut segments = [Segment::default(); 6];
        let list = s.list(4)?;
        if list.len() != segments.len() {
            return Err(s.bad(4, "wrong length"));
        }
        for (segment, value) in segments.iter_mut().zip(list) {
            *segment = segment_of(value).ok_or_else(|| s.bad(4, "not a segment"))?;
        }
        let system_segment = |tag: u16| {
            let value = s.get(tag).ok_or_else(|| s.bad(tag, "missing"))?;
            segment_of(value).ok_or_else(|| s.bad(tag, "not a segment"))
        };
        let exception = match s.get(32) {
            None => None,
            Some(_) => Some(Exception {
                vector: u8::try_from(s.u64(32)?).map_err(|_| s.bad(32, "vector"))?,
                software: flag(33)?,
                error: match s.get(34) {
                    Some(_) => Some(s.u32(34)?),
                    None => None,
                },
                address: match s.get(35) {
                    Some(_) => Some(s.u64(35)?),
                    None => None,
                },
            }),
        };
        Ok(CpuState {
            gprs: s.u64_array(1)?,
            rip: s.u64(2)?,
            rflags: s.u64(3)?,
            segments,
            ldtr: system_segment(5)?,
            tr: system_segment(6)?,
            gdtr: table(7)?,
            idtr: table(8)?,
            cr0: s.u64(9)?,
            cr2: s.u64(10)?,
            cr3: s.u64(11)?,
            cr4: s.u64(12)?,
            efer: s.u64(13)?,
            pdptes: s.u64_array(14)?,
            xcr0: s.u64(15)?,
            dr: s.u64_array(16)?,
            dr6: s.u64(17)?,
            dr7: s.u64(18)?,
            x87: load_x87(s)?,
            xmm: load_xmm(s)?,
            mxcsr: s.u32(22)?,
            msrs: load_msrs(s)?,
            tsc_offset: s.u64(24)?,
            exception,
            shadow: flag(25)?,
            halted: flag(26)?,
            wait_for_sipi: flag(27)?,
            nmi_blocked: flag(28)?,
            nmi_pending: flag(29)?,
            init_pending: flag(30)?,
            sipi_pending: flag(31)?,
        })
    }
}

fn segment_value(segment: &Segment) -> Value {
    [
        u64::from(segment.selector),
        segment.base,
        u64::from(segment.limit),
        u64::from(segment.attributes),
    ]
    .into_iter()
    .collect()
}

fn segment_of(value: &Value) -> Option<Segment> {
    let Value::List(list) = value else {
        return None;
    };
    let [
        Value::U64(selector),
        Value::U64(base),
        Value::U64(limit),
        Value::U64(attributes),
    ] = list.as_slice()
    else {
        return None;
    };
    Some(Segment {
        selector: u16::try_from(*selector).ok()?,
        base: *base,
        limit: u32::try_from(*limit).ok()?,
        attributes: u16::try_from(*attributes).ok()?,
    })
}

fn load_x87(s: &Section) -> Result<X87, StateError> {
    let words: [u64; 16] = s.u64_array(19)?;
    let mut registers = [F80 { se: 0, sig: 0 }; 8];
    for (register, pair) in registers.iter_mut().zip(words.chunks(2)) {
        if let [sig, se] = pair {
            let se = u16::try_from(*se).map_err(|_| s.bad(19, "exponent"))?;
            *register = F80 { se, sig: *sig };
        }
    }
    let [control, status, top, used, opcode, ip, dp] = s.u64_array(20)?;
    let word = |v: u64| u16::try_from(v).map_err(|_| s.bad(20, "more than 16 bits"));
    if top > 7 || used > 0xff {
        return Err(s.bad(20, "top or tags"));
    }
    Ok(X87 {
        registers,
        control: word(control)?,
        // TOP has a field of its own.
        status: word(status)? & !0x3800,
        top: top as u8,
        used: used as u8,
        opcode: word(opcode)? & 0x7ff,
        ip,
        dp,
    })
}

fn load_xmm(s: &Section) -> Result<[u128; 16], StateError> {
    let words: [u64; 32] = s.u64_array(21)?;
    let mut xmm = [0; 16];
    for (register, pair) in xmm.iter_mut().zip(words.chunks(2)) {
        if let [low, high] = pair {
            *register = u128::from(*low) | u128::from(*high) << 64;
        }
    }
    Ok(xmm)
}

fn load_msrs(s: &Section) -> Result<Vec<(u32, u64)>, StateError> {
    let list = s.list(23)?;
    if list.len() > 2 * MOST_MSRS || !list.len().is_multiple_of(2) {
        return Err(s.bad(23, "wrong length"));
    }
    list.chunks(2)
        .map(|pair| match pair {
            [Value::U64(n), Value::U64(value)] => {
                let n = u32::try_from(*n).map_err(|_| s.bad(23, "MSR number"))?;
                Ok((n, *value))
            }
            _ => Err(s.bad(23, "not integers")),
        })
        .collect()
}

/// The saved form of an engine's CPU.
pub fn save(core: &Core) -> Section {
    CpuState::of(core).save()
}

/// Takes over a saved CPU.
pub fn restore(core: &mut Core, section: &Section) -> Result<(), StateError> {
    let state = CpuState::load(section)?;
    if state.cr4 & !super::control::cr4_bits(core) != 0 {
        // Another accelerator's CPU may have had more, such as 5-level paging.
        return Err(section.bad(12, "CR4 has bits that this CPU lacks"));
    }
    state.apply(core);
    Ok(())
}
