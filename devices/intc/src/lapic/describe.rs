//! The listing of `info lapic`.

use hw_intc::{DeliveryMode, lvt};

use super::LocalApic;

impl LocalApic {
    /// What `info lapic` shows.
    pub fn describe(&self) -> String {
        let s = self.snapshot();
        let names = ["LVTT", "LVTTHMR", "LVTPC", "LVT0", "LVT1", "LVTERR"];
        let list = |words: [u32; 8]| -> String {
            let set = (0u8..=255).filter(|v| {
                let word = words.get(usize::from(v >> 5)).copied().unwrap_or(0);
                word & 1u32.wrapping_shl(u32::from(v & 31)) != 0
            });
            let text: Vec<String> = set.map(|v| v.to_string()).collect();
            if text.is_empty() {
                "(none)".into()
            } else {
                text.join(" ")
            }
        };
        let mut text = format!(
            "dumping local APIC state for CPU {} id {:#x} {:?} base {:#x}\n\n",
            self.index,
            self.id,
            self.mode(),
            s.apic_base
        );
        for (name, entry) in names.iter().zip(s.lvt) {
            let mode = DeliveryMode::from_code(entry >> lvt::MODE_SHIFT);
            let mode = mode.map_or("reserved".into(), |mode| format!("{mode:?}"));
            let masked = if entry & lvt::MASKED != 0 {
                " masked"
            } else {
                ""
            };
            text.push_str(&format!(
                "{name:<8} 0x{entry:08x} {mode} vec {}{masked}\n",
                entry & 0xff
            ));
        }
        text.push_str(&format!(
            "Timer    DCR=0x{:x} initial_count={} current_count={} tsc_deadline={}\n",
            s.divide,
            s.initial_count,
            s.current_count(self.timer.now_ns()),
            s.tsc_deadline
        ));
        text.push_str(&format!(
            "SPIV     0x{:08x}\nICR      0x{:016x}\nESR      0x{:02x}\n",
            s.svr, s.icr, s.esr
        ));
        text.push_str(&format!(
            "ISR      {}\nIRR      {}\nTMR      {}\n",
            list(s.isr),
            list(s.irr),
            list(s.tmr)
        ));
        text.push_str(&format!(
            "TPR 0x{:02x} PPR 0x{:02x} LDR 0x{:08x} DFR 0x{:08x}\n",
            s.tpr,
            s.ppr(),
            s.ldr,
            s.dfr
        ));
        text
    }
}
