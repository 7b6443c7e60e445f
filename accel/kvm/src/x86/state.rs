//! A vCPU's state: between the kernel's structures and the form that all accelerators share.

use std::sync::{Arc, Mutex, PoisonError};

use accel_core::VcpuError;
use hw_clock::Clock;
use hw_intc::LapicState;
use hw_memory::MemoryMap;
use hw_state::{Section, StateError};
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use target_softfloat::F80;
use target_x86::float::X87;
use target_x86::system::CpuState;
use target_x86::{Exception, cr0, cr4, efer, vector};

use super::registers::{segment_of, segment_to, table_of, table_to};
use super::{Chips, Mode, Vm, msrs, registers};

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;
/// Bit 1 of RFLAGS is always set.
const RFLAGS_FIXED: u64 = 2;

/// Offsets in the XSAVE image (SDM vol. 1, 13.4).
mod image {
    pub(super) const MXCSR: usize = 24;
    pub(super) const ST: usize = 32;
    pub(super) const XMM: usize = 160;
    pub(super) const XSTATE_BV: usize = 512;
    pub(super) const EXTENDED: usize = 576;
    pub(super) const LEN: usize = 4096;
    /// x87 and SSE.
    pub(super) const LEGACY: u64 = 3;
}

/// Tags of what only KVM's processors have, beside those of [`CpuState`].
mod tag {
    pub(super) const XSTATE_BV: u16 = 64;
    pub(super) const XSAVE: u16 = 65;
    pub(super) const SIPI_VECTOR: u16 = 66;
}

/// All of a CPU: the common state, and what other accelerators do not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) cpu: CpuState,
    /// XSTATE_BV without x87 and SSE, and the image from the extended area on: AVX and later.
    pub(crate) extended: Option<(u64, Vec<u8>)>,
    /// Vector of a start-up message on its way.
    pub(crate) sipi_vector: u32,
}

impl Full {
    pub(crate) fn save(&self) -> Section {
        let mut section = self.cpu.save();
        if let Some((mask, bytes)) = &self.extended {
            section.push(tag::XSTATE_BV, *mask);
            section.push(tag::XSAVE, bytes.clone());
        }
        if self.sipi_vector != 0 {
            section.push(tag::SIPI_VECTOR, self.sipi_vector);
        }
        section
    }

    pub(crate) fn load(section: &Section) -> Result<Self, StateError> {
        let extended = match section.get(tag::XSTATE_BV) {
            None => None,
            Some(_) => {
                let bytes = section.bytes(tag::XSAVE)?;
                if bytes.len() > image::LEN - image::EXTENDED {
                    return Err(section.bad(tag::XSAVE, "too long"));
                }
                let mask = section.u64(tag::XSTATE_BV)? & !image::LEGACY;
                Some((mask, bytes.to_vec()))
            }
        };
        Ok(Full {
            cpu: CpuState::load(section)?,
            extended,
            sipi_vector: section.u64_or(tag::SIPI_VECTOR, 0)? as u32 & 0xff,
        })
    }
}

pub(crate) fn regs_to(c: &CpuState) -> kvm_regs {
    registers::general_to(&c.gprs, c.rip, c.rflags | RFLAGS_FIXED)
}

pub(crate) fn regs_of(r: &kvm_regs, c: &mut CpuState) {
    c.gprs = registers::general_of(r);
    c.rip = r.rip;
    c.rflags = r.rflags;
}

pub(crate) fn sregs_to(c: &CpuState, lapic: &LapicState) -> kvm_sregs {
    let [es, cs, ss, ds, fs, gs] = &c.segments;
    let long = c.efer & efer::LME != 0 && c.cr0 & cr0::PG != 0;
    kvm_sregs {
        cs: segment_to(cs),
        ds: segment_to(ds),
        es: segment_to(es),
        fs: segment_to(fs),
        gs: segment_to(gs),
        ss: segment_to(ss),
        tr: segment_to(&c.tr),
        ldt: segment_to(&c.ldtr),
        gdt: table_to(&c.gdtr),
        idt: table_to(&c.idtr),
        cr0: c.cr0 | cr0::ET,
        cr2: match c.exception {
            Some(Exception {
                address: Some(address),
                ..
            }) => address,
            _ => c.cr2,
        },
        cr3: c.cr3,
        cr4: c.cr4,
        cr8: u64::from(lapic.tpr >> 4),
        efer: c.efer & !efer::LMA | if long { efer::LMA } else { 0 },
        apic_base: lapic.apic_base,
        interrupt_bitmap: [0; 4],
    }
}

pub(crate) fn sregs_of(s: &kvm_sregs, c: &mut CpuState) {
    c.segments = [s.es, s.cs, s.ss, s.ds, s.fs, s.gs].map(|s| segment_of(&s));
    c.ldtr = segment_of(&s.ldt);
    c.tr = segment_of(&s.tr);
    c.gdtr = table_of(&s.gdt);
    c.idtr = table_of(&s.idt);
    (c.cr0, c.cr2, c.cr3, c.cr4, c.efer) = (s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
}

/// The bytes of an XSAVE image.
pub(crate) type Image = [u8; image::LEN];

fn bytes_of(xsave: &kvm_xsave) -> Image {
    let mut bytes = [0; image::LEN];
    for (to, word) in bytes.chunks_mut(4).zip(xsave.region) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn xsave_from(bytes: &Image) -> kvm_xsave {
    let mut xsave = kvm_xsave::default();
    for (word, from) in xsave.region.iter_mut().zip(bytes.chunks(4)) {
        *word = from.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b));
    }
    xsave
}

fn put(bytes: &mut Image, at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn get(bytes: &Image, at: usize, len: usize) -> u128 {
    let value = &bytes[at..at + len];
    value.iter().rev().fold(0, |v, b| v << 8 | u128::from(*b))
}

pub(crate) fn image_to(full: &Full) -> Image {
    let c = &full.cpu;
    let mut bytes = [0; image::LEN];
    let x = &c.x87;
    let status = x.status & !0x3800 | u16::from(x.top & 7) << 11;
    put(&mut bytes, 0, &x.control.to_le_bytes());
    put(&mut bytes, 2, &status.to_le_bytes());
    put(&mut bytes, 4, &[x.used]);
    put(&mut bytes, 6, &x.opcode.to_le_bytes());
    put(&mut bytes, 8, &x.ip.to_le_bytes());
    put(&mut bytes, 16, &x.dp.to_le_bytes());
    put(&mut bytes, image::MXCSR, &c.mxcsr.to_le_bytes());
    for n in 0..8 {
        let register = x.registers[(n + usize::from(x.top)) & 7];
        put(&mut bytes, image::ST + 16 * n, &register.sig.to_le_bytes());
        put(
            &mut bytes,
            image::ST + 16 * n + 8,
            &register.se.to_le_bytes(),
        );
    }
    for (n, xmm) in c.xmm.iter().enumerate() {
        put(&mut bytes, image::XMM + 16 * n, &xmm.to_le_bytes());
    }
    let mut components = image::LEGACY;
    if let Some((mask, tail)) = &full.extended {
        components |= mask;
        put(&mut bytes, image::EXTENDED, tail);
    }
    put(&mut bytes, image::XSTATE_BV, &components.to_le_bytes());
    bytes
}

pub(crate) fn image_of(bytes: &Image, full: &mut Full) {
    let c = &mut full.cpu;
    let status = get(bytes, 2, 2) as u16;
    let top = (status >> 11 & 7) as u8;
    let mut registers = [F80 { se: 0, sig: 0 }; 8];
    for n in 0..8 {
        registers[(n + usize::from(top)) & 7] = F80 {
            sig: get(bytes, image::ST + 16 * n, 8) as u64,
            se: get(bytes, image::ST + 16 * n + 8, 2) as u16,
        };
    }
    c.x87 = X87 {
        registers,
        control: get(bytes, 0, 2) as u16,
        status: status & !0x3800,
        top,
        used: get(bytes, 4, 1) as u8,
        opcode: get(bytes, 6, 2) as u16 & 0x7ff,
        ip: get(bytes, 8, 8) as u64,
        dp: get(bytes, 16, 8) as u64,
    };
    c.mxcsr = get(bytes, image::MXCSR, 4) as u32;
    for (n, xmm) in c.xmm.iter_mut().enumerate() {
        *xmm = get(bytes, image::XMM + 16 * n, 16);
    }
    let components = get(bytes, image::XSTATE_BV, 8) as u64 & !image::LEGACY;
    full.extended = (components != 0).then(|| {
        let tail = &bytes[image::EXTENDED..];
        let len = tail.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1);
        (components, tail[..len].to_vec())
    });
}

pub(crate) fn events_to(full: &Full) -> kvm_vcpu_events {
    let c = &full.cpu;
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING
            | KVM_VCPUEVENT_VALID_SHADOW
            | KVM_VCPUEVENT_VALID_SIPI_VECTOR,
        ..kvm_vcpu_events::default()
    };
    match c.exception {
        None => {}
        Some(Exception {
            vector: vector::NMI,
            ..
        }) => events.nmi.injected = 1,
        Some(e) if e.vector >= 32 => {
            events.interrupt.injected = 1;
            events.interrupt.nr = e.vector;
            events.interrupt.soft = e.software.into();
        }
        Some(e) => {
            events.exception.injected = 1;
            events.exception.nr = e.vector;
            events.exception.has_error_code = e.error.is_some().into();
            events.exception.error_code = e.error.unwrap_or(0);
        }
    }
    events.interrupt.shadow = if c.shadow {
        KVM_X86_SHADOW_INT_STI as u8
    } else {
        0
    };
    events.nmi.pending = c.nmi_pending.into();
    events.nmi.masked = c.nmi_blocked.into();
    events.sipi_vector = full.sipi_vector;
    events
}

pub(crate) fn events_of(e: &kvm_vcpu_events, full: &mut Full) {
    let c = &mut full.cpu;
    let noted = |vector, error, software| {
        Some(Exception {
            vector,
            error,
            address: None,
            software,
        })
    };
    c.exception = if e.exception.injected != 0 || e.exception.pending != 0 {
        let error = (e.exception.has_error_code != 0).then_some(e.exception.error_code);
        let software = matches!(e.exception.nr, vector::BP | vector::OF);
        noted(e.exception.nr, error, software)
    } else if e.interrupt.injected != 0 {
        noted(e.interrupt.nr, None, e.interrupt.soft != 0)
    } else if e.nmi.injected != 0 {
        noted(vector::NMI, None, false)
    } else {
        None
    };
    c.shadow = e.interrupt.shadow != 0;
    c.nmi_pending = e.nmi.pending != 0;
    c.nmi_blocked = e.nmi.masked != 0;
    full.sipi_vector = e.sipi_vector & 0xff;
}

fn host<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> VcpuError {
    move |error| VcpuError::Host {
        what: format!("KVM refused {what}"),
        source: error.into(),
    }
}

/// Moves a vCPU's state.
#[derive(Clone)]
pub(crate) struct Transfer {
    pub(crate) index: u32,
    pub(crate) vm: Arc<Vm>,
    pub(crate) memory: MemoryMap,
    pub(crate) clock: Clock,
    pub(crate) tsc_hz: u64,
    pub(crate) chips: Arc<dyn Chips>,
    /// MSRs to move.
    pub(crate) msrs: Arc<[u32]>,
    /// MSRs that the host refused, told once.
    pub(crate) refused: Arc<Mutex<Vec<u32>>>,
}

impl Transfer {
    fn has_lapic(&self) -> bool {
        self.vm.mode() != Mode::User
    }

    /// Reads the state; the models of controllers that the kernel has follow.
    pub(crate) fn read(&self, fd: &VcpuFd) -> Result<Full, VcpuError> {
        let mut full = Full::default();
        regs_of(&fd.get_regs().map_err(host("KVM_GET_REGS"))?, &mut full.cpu);
        let sregs = fd.get_sregs().map_err(host("KVM_GET_SREGS"))?;
        sregs_of(&sregs, &mut full.cpu);
        let xsave = fd.get_xsave().map_err(host("KVM_GET_XSAVE"))?;
        image_of(&bytes_of(&xsave), &mut full);
        let xcrs = fd.get_xcrs().map_err(host("KVM_GET_XCRS"))?;
        full.cpu.xcr0 = xcrs
            .xcrs
            .iter()
            .take(xcrs.nr_xcrs as usize)
            .find(|x| x.xcr == 0)
            .map_or(1, |x| x.value);
        let debug = fd.get_debug_regs().map_err(host("KVM_GET_DEBUGREGS"))?;
        (full.cpu.dr, full.cpu.dr6, full.cpu.dr7) = (debug.db, debug.dr6, debug.dr7);
        events_of(
            &fd.get_vcpu_events().map_err(host("KVM_GET_VCPU_EVENTS"))?,
            &mut full,
        );
        full.cpu.msrs = msrs::read(fd, &self.msrs);
        let tsc = msrs::read(fd, &[TSC]).first().map_or(0, |(_, v)| *v);
        full.cpu.tsc_offset = tsc.wrapping_sub(self.clock.ticks(self.tsc_hz));
        full.cpu.pdptes = self.pdptes(&full.cpu);
        if self.has_lapic() {
            self.read_lapic(fd, &sregs, &mut full)?;
            if self.index == 0 {
                self.vm
                    .read_chips(self.chips.as_ref())
                    .map_err(host("the state of its interrupt controllers"))?;
            }
        }
        Ok(full)
    }

    fn read_lapic(&self, fd: &VcpuFd, sregs: &kvm_sregs, full: &mut Full) -> Result<(), VcpuError> {
        let mp = fd.get_mp_state().map_err(host("KVM_GET_MP_STATE"))?;
        let c = &mut full.cpu;
        c.halted = mp.mp_state == KVM_MP_STATE_HALTED;
        c.sipi_pending = mp.mp_state == KVM_MP_STATE_SIPI_RECEIVED;
        c.wait_for_sipi = c.sipi_pending
            || matches!(
                mp.mp_state,
                KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED
            );
        let kernel = fd.get_lapic().map_err(host("KVM_GET_LAPIC"))?;
        let mut lapic = self.chips.lapic(self.index);
        lapic.apic_base = sregs.apic_base;
        lapic.set_page(&kernel.regs.map(|b| b as u8), self.clock.now_ns());
        lapic.tsc_deadline = msrs::read(fd, &[TSC_DEADLINE])
            .first()
            .map_or(0, |(_, v)| *v);
        lapic.waits_for_sipi = c.wait_for_sipi && !c.sipi_pending;
        self.chips.set_lapic(self.index, &lapic);
        Ok(())
    }

    /// The entries that PAE paging has loaded: those in memory, which kernels do not change behind
    /// the processor's back.
    fn pdptes(&self, c: &CpuState) -> [u64; 4] {
        let pae = c.cr0 & cr0::PG != 0 && c.cr4 & cr4::PAE != 0 && c.efer & efer::LMA == 0;
        if !pae {
            return [0; 4];
        }
        let map = self.memory.snapshot();
        let base = c.cr3 & 0xffff_ffe0;
        std::array::from_fn(|n| {
            let at = base + 8 * n as u64;
            map.find(at)
                .and_then(|span| span.ram_at(at))
                .and_then(|(block, offset)| block.load(offset, 8))
                .unwrap_or(0)
        })
    }

    /// Replaces the state; controllers in the kernel follow the models.
    pub(crate) fn write(&self, fd: &VcpuFd, full: &Full) -> Result<(), VcpuError> {
        let c = &full.cpu;
        let lapic = self.chips.lapic(self.index);
        if self.has_lapic() && self.index == 0 {
            self.vm.restart_messages(self.chips.as_ref());
            self.vm
                .write_chips(self.chips.as_ref())
                .map_err(host("the state of its interrupt controllers"))?;
        }
        // Where it waits decides which state the kernel accepts.
        if self.has_lapic() {
            let mp_state = KVM_MP_STATE_RUNNABLE;
            fd.set_mp_state(kvm_mp_state { mp_state })
                .map_err(host("KVM_SET_MP_STATE"))?;
        }
        fd.set_sregs(&sregs_to(c, &lapic))
            .map_err(host("KVM_SET_SREGS"))?;
        if self.has_lapic() {
            let regs = lapic.to_page(self.clock.now_ns()).map(|b| b as i8);
            fd.set_lapic(&kvm_lapic_state { regs })
                .map_err(host("KVM_SET_LAPIC"))?;
        }
        fd.set_regs(&regs_to(c)).map_err(host("KVM_SET_REGS"))?;
        let xsave = xsave_from(&image_to(full));
        // SAFETY: no dynamic component is enabled, so that the kernel reads 4096 bytes, which the
        // structure has.
        unsafe { fd.set_xsave(&xsave) }.map_err(host("KVM_SET_XSAVE"))?;
        self.write_xcr0(fd, c.xcr0)?;
        self.write_msrs(fd, c);
        fd.set_vcpu_events(&events_to(full))
            .map_err(host("KVM_SET_VCPU_EVENTS"))?;
        if self.has_lapic() {
            let mp_state = if c.sipi_pending {
                KVM_MP_STATE_SIPI_RECEIVED
            } else if c.wait_for_sipi {
                KVM_MP_STATE_UNINITIALIZED
            } else if c.halted {
                KVM_MP_STATE_HALTED
            } else {
                KVM_MP_STATE_RUNNABLE
            };
            fd.set_mp_state(kvm_mp_state { mp_state })
                .map_err(host("KVM_SET_MP_STATE"))?;
            if lapic.tsc_deadline != 0 {
                msrs::write(fd, &[(TSC_DEADLINE, lapic.tsc_deadline)]);
            }
        }
        let debug = kvm_debugregs {
            db: c.dr,
            dr6: c.dr6,
            dr7: c.dr7,
            ..kvm_debugregs::default()
        };
        fd.set_debug_regs(&debug).map_err(host("KVM_SET_DEBUGREGS"))
    }

    fn write_xcr0(&self, fd: &VcpuFd, xcr0: u64) -> Result<(), VcpuError> {
        let mut xcrs = fd.get_xcrs().map_err(host("KVM_GET_XCRS"))?;
        let has = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize);
        if has.clone().any(|x| x.xcr == 0 && x.value == xcr0) || xcrs.nr_xcrs == 0 {
            return Ok(());
        }
        xcrs.nr_xcrs = 1;
        xcrs.xcrs[0] = kvm_xcr {
            xcr: 0,
            reserved: 0,
            value: xcr0,
        };
        fd.set_xcrs(&xcrs).map_err(host("KVM_SET_XCRS"))
    }

    /// Writes what is not so already. What the host refuses is told once, and left.
    fn write_msrs(&self, fd: &VcpuFd, c: &CpuState) {
        let numbers: Vec<u32> = c.msrs.iter().map(|(n, _)| *n).collect();
        let now = msrs::read(fd, &numbers);
        let mut values: Vec<(u32, u64)> = c
            .msrs
            .iter()
            .copied()
            .filter(|pair| !now.contains(pair))
            .collect();
        let tsc = self.clock.ticks(self.tsc_hz).wrapping_add(c.tsc_offset);
        values.push((TSC, tsc));
        let refused = msrs::write(fd, &values);
        let mut told = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<u32> = refused.into_iter().filter(|n| !told.contains(n)).collect();
        if !new.is_empty() {
            log::info!(
                "the host's KVM does not take these MSRs: {}",
                msrs::names(&new)
            );
            told.extend(new);
        }
    }
}
