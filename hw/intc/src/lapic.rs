//! State of a local APIC (Intel SDM volume 3, chapter 11).

use hw_state::{Section, StateError, Value};

/// Reset value of the base address in IA32_APIC_BASE.
pub const APIC_BASE: u64 = 0xfee0_0000;
/// Frequency of the timer before its divider.
pub const APIC_BUS_HZ: u64 = 1_000_000_000;
/// Entries of the local vector table.
pub const LVT_COUNT: usize = 6;

/// Bits of IA32_APIC_BASE (11.4.4).
pub mod base {
    /// Bootstrap processor.
    pub const BSP: u64 = 1 << 8;
    /// x2APIC mode.
    pub const EXTD: u64 = 1 << 10;
    /// Enabled.
    pub const ENABLE: u64 = 1 << 11;
}

/// Register numbers: the MMIO offset divided by 16, or the MSR minus 800h (tables 11-1, 11-6).
pub mod reg {
    /// APIC id.
    pub const ID: u32 = 0x02;
    /// Version.
    pub const VERSION: u32 = 0x03;
    /// Task priority.
    pub const TPR: u32 = 0x08;
    /// Arbitration priority (xAPIC).
    pub const APR: u32 = 0x09;
    /// Processor priority.
    pub const PPR: u32 = 0x0a;
    /// End of interrupt.
    pub const EOI: u32 = 0x0b;
    /// Remote read (xAPIC).
    pub const RRD: u32 = 0x0c;
    /// Logical destination.
    pub const LDR: u32 = 0x0d;
    /// Destination format (xAPIC).
    pub const DFR: u32 = 0x0e;
    /// Spurious interrupt vector.
    pub const SVR: u32 = 0x0f;
    /// First of eight in-service words.
    pub const ISR: u32 = 0x10;
    /// First of eight trigger-mode words.
    pub const TMR: u32 = 0x18;
    /// First of eight request words.
    pub const IRR: u32 = 0x20;
    /// Error status.
    pub const ESR: u32 = 0x28;
    /// Interrupt command, low half (xAPIC) or whole (x2APIC).
    pub const ICR: u32 = 0x30;
    /// Interrupt command, high half (xAPIC).
    pub const ICR_HIGH: u32 = 0x31;
    /// First entry of the local vector table.
    pub const LVT: u32 = 0x32;
    /// Timer: initial count.
    pub const INITIAL_COUNT: u32 = 0x38;
    /// Timer: current count.
    pub const CURRENT_COUNT: u32 = 0x39;
    /// Timer: divide configuration.
    pub const DIVIDE: u32 = 0x3e;
    /// Self IPI (x2APIC).
    pub const SELF_IPI: u32 = 0x3f;
}

/// Positions in the local vector table, in register order.
pub mod lvt_index {
    /// Timer.
    pub const TIMER: usize = 0;
    /// Thermal sensor.
    pub const THERMAL: usize = 1;
    /// Performance counters.
    pub const PERFORMANCE: usize = 2;
    /// LINT0: the i8259's output on PCs.
    pub const LINT0: usize = 3;
    /// LINT1: NMI on PCs.
    pub const LINT1: usize = 4;
    /// APIC error.
    pub const ERROR: usize = 5;
}

/// Bits of a local vector table entry (11.5.1).
pub mod lvt {
    /// Delivery mode, three bits from here.
    pub const MODE_SHIFT: u32 = 8;
    /// Masked.
    pub const MASKED: u32 = 1 << 16;
    /// Timer: the two mode bits.
    pub const TIMER_MODE: u32 = 3 << 17;
    /// Timer mode: periodic.
    pub const PERIODIC: u32 = 1 << 17;
    /// Timer mode: TSC deadline.
    pub const TSC_DEADLINE: u32 = 2 << 17;
    /// What software may write, by entry.
    pub const WRITABLE: [u32; super::LVT_COUNT] =
        [0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff];
}

/// Bits of the spurious interrupt vector register (11.9).
pub mod svr {
    /// APIC software enable.
    pub const ENABLE: u32 = 1 << 8;
    /// Suppresses the broadcast of ends of level interrupts.
    pub const NO_EOI_BROADCAST: u32 = 1 << 12;
    /// What software may write.
    pub const WRITABLE: u32 = 0x13ff;
}

/// log2 of the timer's divider, from the divide configuration register.
pub fn divide_shift(divide: u32) -> u32 {
    let code = (divide & 3) | ((divide >> 1) & 4);
    code.wrapping_add(1) & 7
}

/// The highest vector set in a 256-bit register.
pub fn highest(words: [u32; 8]) -> Option<u8> {
    let (word, bits) = (0u8..).zip(words).filter(|(_, bits)| *bits != 0).last()?;
    let bit = bits.checked_ilog2()?;
    Some((word << 5) | (bit as u8))
}

/// One local APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LapicState {
    /// IA32_APIC_BASE.
    pub apic_base: u64,
    /// The x2APIC id; its low eight bits are the xAPIC id.
    pub id: u32,
    /// Task priority.
    pub tpr: u8,
    /// Logical destination as written in xAPIC mode (bits 31:24).
    pub ldr: u32,
    /// Destination format.
    pub dfr: u32,
    /// Spurious vector.
    pub svr: u32,
    /// In service.
    pub isr: [u32; 8],
    /// Trigger modes.
    pub tmr: [u32; 8],
    /// Requests.
    pub irr: [u32; 8],
    /// Error status as last latched.
    pub esr: u32,
    /// Errors since.
    pub esr_pending: u32,
    /// Interrupt command as last written.
    pub icr: u64,
    /// Local vector table.
    pub lvt: [u32; LVT_COUNT],
    /// Timer: initial count.
    pub initial_count: u32,
    /// Timer: divide configuration.
    pub divide: u32,
    /// Timer: virtual time at which the initial count was loaded, or would have been at the
    /// present divider: modulo 2^64.
    pub started_ns: u64,
    /// Timer: virtual time at which it fires next.
    pub fires_ns: Option<u64>,
    /// IA32_TSC_DEADLINE; 0 when disarmed.
    pub tsc_deadline: u64,
    /// An ExtINT message waits for its vector.
    pub ext_int: bool,
    /// The CPU waits for a start-up message.
    pub waits_for_sipi: bool,
}

impl LapicState {
    /// The state after power on (11.4.7.1).
    pub fn new(id: u32, is_bsp: bool) -> Self {
        let mut lvt = [lvt::MASKED; LVT_COUNT];
        if is_bsp {
            // Virtual wire mode, as the MP specification wants firmware to leave it: kernels that
            // are loaded without firmware depend on it.
            lvt[lvt_index::LINT0] = 7 << lvt::MODE_SHIFT;
        }
        LapicState {
            apic_base: APIC_BASE | base::ENABLE | if is_bsp { base::BSP } else { 0 },
            id,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: [0; 8],
            tmr: [0; 8],
            irr: [0; 8],
            esr: 0,
            esr_pending: 0,
            icr: 0,
            lvt,
            initial_count: 0,
            divide: 0,
            started_ns: 0,
            fires_ns: None,
            tsc_deadline: 0,
            ext_int: false,
            waits_for_sipi: !is_bsp,
        }
    }

    /// Processor priority: the task's or the highest in service (11.8.3.1).
    pub fn ppr(&self) -> u8 {
        let in_service = highest(self.isr).unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= in_service {
            self.tpr
        } else {
            in_service
        }
    }

    /// The timer's current count at a virtual time.
    pub fn current_count(&self, now_ns: u64) -> u32 {
        let mode = self.lvt[lvt_index::TIMER] & lvt::TIMER_MODE;
        if self.fires_ns.is_none() || mode & lvt::TSC_DEADLINE != 0 {
            return 0;
        }
        let initial = u64::from(self.initial_count);
        let passed = now_ns
            .wrapping_sub(self.started_ns)
            .wrapping_shr(divide_shift(self.divide));
        let left = if mode == lvt::PERIODIC {
            initial.saturating_sub(passed.checked_rem(initial).unwrap_or(0))
        } else {
            initial.saturating_sub(passed)
        };
        left as u32
    }

    /// The saved form.
    pub fn save(&self) -> Section {
        let LapicState {
            apic_base,
            id,
            tpr,
            ldr,
            dfr,
            svr,
            isr,
            tmr,
            irr,
            esr,
            esr_pending,
            icr,
            lvt,
            initial_count,
            divide,
            started_ns,
            fires_ns,
            tsc_deadline,
            ext_int,
            waits_for_sipi,
        } = self.clone();
        let words = |words: [u32; 8]| words.into_iter().collect::<Value>();
        let mut section = Section::new(NAME, VERSION)
            .with(1, apic_base)
            .with(2, id)
            .with(3, tpr)
            .with(4, ldr)
            .with(5, dfr)
            .with(6, svr)
            .with(7, words(isr))
            .with(8, words(tmr))
            .with(9, words(irr))
            .with(10, esr)
            .with(11, esr_pending)
            .with(12, icr)
            .with(13, lvt.into_iter().collect::<Value>())
            .with(14, initial_count)
            .with(15, divide)
            .with(16, started_ns)
            .with(18, tsc_deadline)
            .with(19, ext_int)
            .with(20, waits_for_sipi);
        if let Some(at) = fires_ns {
            section.push(17, at);
        }
        section
    }

    /// From the saved form.
    pub fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect(NAME, VERSION)?;
        let words = |tag| -> Result<[u32; 8], StateError> {
            Ok(s.u64_array::<8>(tag)?.map(|word| word as u32))
        };
        let mut table = s.u64_array::<LVT_COUNT>(13)?.map(|entry| entry as u32);
        for (entry, writable) in table.iter_mut().zip(lvt::WRITABLE) {
            *entry &= writable;
        }
        Ok(LapicState {
            apic_base: s.u64(1)?,
            id: s.u32(2)?,
            tpr: s.u8(3)?,
            ldr: s.u32(4)?,
            dfr: s.u32(5)?,
            svr: s.u32(6)? & svr::WRITABLE,
            isr: words(7)?,
            tmr: words(8)?,
            irr: words(9)?,
            esr: s.u32(10)?,
            esr_pending: s.u32(11)?,
            icr: s.u64(12)?,
            lvt: table,
            initial_count: s.u32(14)?,
            divide: s.u32(15)? & 0x0b,
            started_ns: s.u64(16)?,
            fires_ns: s.get(17).map(|_| s.u64(17)).transpose()?,
            tsc_deadline: s.u64(18)?,
            ext_int: s.bool(19)?,
            waits_for_sipi: s.bool(20)?,
        })
    }

    /// The register page as KVM's `KVM_GET_LAPIC` has it: 32-bit registers, 16 bytes apart.
    pub fn to_page(&self, now_ns: u64) -> [u8; 1024] {
        let is_x2apic = self.apic_base & base::EXTD != 0;
        let mut page = [0; 1024];
        let mut put = |number: u32, value: u32| {
            let at = usize::try_from(number).map_or(usize::MAX, |n| n.wrapping_mul(16));
            if let Some(slot) = page.get_mut(at..).and_then(|p| p.first_chunk_mut::<4>()) {
                *slot = value.to_le_bytes();
            }
        };
        put(
            reg::ID,
            if is_x2apic {
                self.id
            } else {
                self.id.wrapping_shl(24)
            },
        );
        put(reg::TPR, self.tpr.into());
        put(
            reg::LDR,
            if is_x2apic {
                self.x2apic_ldr()
            } else {
                self.ldr
            },
        );
        put(reg::DFR, self.dfr);
        put(reg::SVR, self.svr);
        for (first, words) in [
            (reg::ISR, self.isr),
            (reg::TMR, self.tmr),
            (reg::IRR, self.irr),
        ] {
            for (number, word) in (first..).zip(words) {
                put(number, word);
            }
        }
        put(reg::ESR, self.esr);
        put(reg::ICR, self.icr as u32);
        put(reg::ICR_HIGH, (self.icr >> 32) as u32);
        for (number, entry) in (reg::LVT..).zip(self.lvt) {
            put(number, entry);
        }
        put(reg::INITIAL_COUNT, self.initial_count);
        put(reg::CURRENT_COUNT, self.current_count(now_ns));
        put(reg::DIVIDE, self.divide);
        page
    }

    /// Takes over a register page of KVM. What the page lacks (base, deadline, waiting for
    /// start-up) is kept.
    pub fn set_page(&mut self, page: &[u8; 1024], now_ns: u64) {
        let get = |number: u32| {
            let at = usize::try_from(number).map_or(usize::MAX, |n| n.wrapping_mul(16));
            let bytes = page.get(at..).and_then(|p| p.first_chunk::<4>());
            bytes.map_or(0, |b| u32::from_le_bytes(*b))
        };
        let words = |first: u32| {
            let mut words = [0; 8];
            for (number, word) in (first..).zip(&mut words) {
                *word = get(number);
            }
            words
        };
        self.tpr = get(reg::TPR) as u8;
        if self.apic_base & base::EXTD == 0 {
            self.ldr = get(reg::LDR);
        }
        self.dfr = get(reg::DFR);
        self.svr = get(reg::SVR) & svr::WRITABLE;
        self.isr = words(reg::ISR);
        self.tmr = words(reg::TMR);
        self.irr = words(reg::IRR);
        self.esr = get(reg::ESR);
        self.icr = u64::from(get(reg::ICR)) | (u64::from(get(reg::ICR_HIGH)) << 32);
        for ((number, entry), writable) in (reg::LVT..).zip(&mut self.lvt).zip(lvt::WRITABLE) {
            *entry = get(number) & writable;
        }
        self.initial_count = get(reg::INITIAL_COUNT);
        self.divide = get(reg::DIVIDE) & 0x0b;
        let shift = divide_shift(self.divide);
        let ns = |count: u32| u64::from(count).wrapping_shl(shift);
        let left = get(reg::CURRENT_COUNT);
        let passed = ns(self.initial_count.saturating_sub(left));
        self.started_ns = now_ns.wrapping_sub(passed);
        let counts = self.lvt[lvt_index::TIMER] & lvt::TSC_DEADLINE == 0;
        self.fires_ns = (counts && left != 0).then(|| now_ns.saturating_add(ns(left)));
    }

    /// The logical id in x2APIC mode: derived, not written (11.12.10.2).
    pub fn x2apic_ldr(&self) -> u32 {
        (self.id >> 4).wrapping_shl(16) | 1u32.wrapping_shl(self.id & 0x0f)
    }
}

const NAME: &str = "lapic";
const VERSION: u16 = 1;
