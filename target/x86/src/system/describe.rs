//! Registers for people and debuggers: `info registers` in QEMU's layout.

use std::fmt::Write;

use super::saved::CpuState;
use crate::state::{Segment, cr0, efer};

const GPRS: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

/// Names of system descriptors by type, outside and in IA-32e mode.
const SYSTEM_32: [&str; 16] = [
    "Reserved",
    "TSS16-avl",
    "LDT",
    "TSS16-busy",
    "CallGate16",
    "TaskGate",
    "IntGate16",
    "TrapGate16",
    "Reserved",
    "TSS32-avl",
    "Reserved",
    "TSS32-busy",
    "CallGate32",
    "Reserved",
    "IntGate32",
    "TrapGate32",
];
const SYSTEM_64: [&str; 16] = [
    "<hiword>",
    "Reserved",
    "LDT",
    "Reserved",
    "Reserved",
    "Reserved",
    "Reserved",
    "Reserved",
    "Reserved",
    "TSS64-avl",
    "Reserved",
    "TSS64-busy",
    "CallGate64",
    "Reserved",
    "IntGate64",
    "TrapGate64",
];

/// Bits of RFLAGS that the layout spells out.
const FLAGS: [(u64, char); 7] = [
    (1 << 10, 'D'),
    (1 << 11, 'O'),
    (1 << 7, 'S'),
    (1 << 6, 'Z'),
    (1 << 4, 'A'),
    (1 << 2, 'P'),
    (1 << 0, 'C'),
];

impl CpuState {
    fn is_long(&self) -> bool {
        self.efer & efer::LMA != 0
    }

    fn is_64(&self) -> bool {
        let [_, cs, ..] = &self.segments;
        self.is_long() && cs.attributes & Segment::L != 0
    }

    fn gpr(&self, n: usize) -> u64 {
        self.gprs.get(n).copied().unwrap_or(0)
    }

    /// Registers by name: general, RIP, RFLAGS, segment, control, XMM.
    pub fn registers(&self) -> Vec<(String, u128)> {
        let mut list: Vec<(String, u128)> = Vec::new();
        let mut add = |name: &str, value: u64| list.push((name.into(), u128::from(value)));
        for (name, value) in GPRS.into_iter().zip(self.gprs) {
            add(name, value);
        }
        add("rip", self.rip);
        add("eflags", self.rflags);
        for (name, segment) in SEGMENTS.into_iter().zip(&self.segments) {
            add(name, u64::from(segment.selector));
        }
        for (name, segment) in SEGMENTS.into_iter().zip(&self.segments) {
            add(&format!("{name}_base"), segment.base);
        }
        for (name, value) in [
            ("cr0", self.cr0),
            ("cr2", self.cr2),
            ("cr3", self.cr3),
            ("cr4", self.cr4),
            ("efer", self.efer),
            ("mxcsr", u64::from(self.mxcsr)),
        ] {
            add(name, value);
        }
        for (n, value) in self.xmm.into_iter().enumerate() {
            list.push((format!("xmm{n}"), value));
        }
        list
    }

    /// `info registers` of the CPU `index`, without its heading.
    pub fn describe(&self, a20: bool) -> String {
        let mut text = self.describe_general(a20);
        // Writing to a string does not fail.
        let _ = self.write_float(&mut text, self.is_64());
        text
    }

    /// The same without x87 and SSE.
    pub fn describe_general(&self, a20: bool) -> String {
        let mut text = String::new();
        let _ = self.write(&mut text, a20);
        text
    }

    fn write(&self, out: &mut String, a20: bool) -> std::fmt::Result {
        let [_, _, ss, ..] = &self.segments;
        let real = self.cr0 & cr0::PE == 0;
        let cpl = if real { 0 } else { ss.dpl() };
        let letters: String = FLAGS
            .iter()
            .map(|(bit, letter)| if self.rflags & bit != 0 { *letter } else { '-' })
            .collect();
        let tail = format!(
            "[{letters}] CPL={cpl} II={} A20={} SMM=0 HLT={}",
            u8::from(self.shadow),
            u8::from(a20),
            u8::from(self.halted)
        );
        // Order of the layout: A, B, C, D, SI, DI, BP, SP.
        let order = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
        let is_64 = self.is_64();
        let count = if is_64 { 16 } else { 8 };
        for (i, n) in order.into_iter().enumerate().take(count) {
            let name = GPRS.get(n).copied().unwrap_or("").to_ascii_uppercase();
            if is_64 {
                write!(out, "{name:<3}={:016x}", self.gpr(n))?;
            } else {
                let name = name.replacen('R', "E", 1);
                write!(out, "{name:<3}={:08x}", self.gpr(n) & 0xffff_ffff)?;
            }
            out.push(if i & 3 == 3 { '\n' } else { ' ' });
        }
        if is_64 {
            writeln!(out, "RIP={:016x} RFL={:08x} {tail}", self.rip, self.rflags)?;
        } else {
            writeln!(
                out,
                "EIP={:08x} EFL={:08x} {tail}",
                self.rip & 0xffff_ffff,
                self.rflags
            )?;
        }
        for (name, segment) in SEGMENTS.into_iter().zip(&self.segments) {
            self.write_segment(out, &name.to_ascii_uppercase(), segment)?;
        }
        self.write_segment(out, "LDT", &self.ldtr)?;
        self.write_segment(out, "TR", &self.tr)?;
        if is_64 {
            writeln!(
                out,
                "GDT=     {:016x} {:08x}",
                self.gdtr.base, self.gdtr.limit
            )?;
            writeln!(
                out,
                "IDT=     {:016x} {:08x}",
                self.idtr.base, self.idtr.limit
            )?;
            writeln!(
                out,
                "CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x}",
                self.cr0, self.cr2, self.cr3, self.cr4
            )?;
        } else {
            writeln!(
                out,
                "GDT=     {:08x} {:08x}",
                self.gdtr.base, self.gdtr.limit
            )?;
            writeln!(
                out,
                "IDT=     {:08x} {:08x}",
                self.idtr.base, self.idtr.limit
            )?;
            writeln!(
                out,
                "CR0={:08x} CR2={:08x} CR3={:08x} CR4={:08x}",
                self.cr0, self.cr2, self.cr3, self.cr4
            )?;
        }
        let [dr0, dr1, dr2, dr3] = self.dr;
        writeln!(
            out,
            "DR0={dr0:016x} DR1={dr1:016x} DR2={dr2:016x} DR3={dr3:016x} "
        )?;
        writeln!(out, "DR6={:016x} DR7={:016x}", self.dr6, self.dr7)?;
        writeln!(out, "EFER={:016x}", self.efer)
    }

    fn write_segment(&self, out: &mut String, name: &str, segment: &Segment) -> std::fmt::Result {
        // The descriptor's second doubleword without its base: type, flags, limit 16 to 19.
        let raw = if segment.attributes & Segment::G != 0 {
            segment.limit >> 12
        } else {
            segment.limit
        };
        let flags = u32::from(segment.attributes) << 8 & 0x00f0_ff00 | raw & 0xf_0000;
        write!(out, "{name:<3}={:04x} ", segment.selector)?;
        if self.is_64() {
            write!(out, "{:016x}", segment.base)?;
        } else {
            write!(out, "{:08x}", segment.base)?;
        }
        write!(out, " {:08x} {flags:08x}", segment.limit)?;
        if self.cr0 & cr0::PE != 0 && segment.is_present() {
            self.write_type(out, segment)?;
        }
        out.push('\n');
        Ok(())
    }

    fn write_type(&self, out: &mut String, segment: &Segment) -> std::fmt::Result {
        let kind = segment.kind();
        write!(out, " DPL={} ", segment.dpl())?;
        let mark = |bit: u8, letter: char| if kind & bit != 0 { letter } else { '-' };
        if segment.attributes & Segment::S == 0 {
            let names = if self.is_long() { SYSTEM_64 } else { SYSTEM_32 };
            let name = names.get(usize::from(kind)).copied().unwrap_or("Reserved");
            return write!(out, "{name}");
        }
        let wide = segment.attributes & Segment::DB != 0;
        if kind & 8 != 0 {
            let name = if segment.attributes & Segment::L != 0 {
                "CS64"
            } else if wide {
                "CS32"
            } else {
                "CS16"
            };
            write!(out, "{name} [{}{}", mark(4, 'C'), mark(2, 'R'))?;
        } else {
            let name = if wide || self.is_long() {
                "DS  "
            } else {
                "DS16"
            };
            write!(out, "{name} [{}{}", mark(4, 'E'), mark(2, 'W'))?;
        }
        write!(out, "{}]", mark(1, 'A'))
    }

    fn write_float(&self, out: &mut String, is_64: bool) -> std::fmt::Result {
        let x87 = &self.x87;
        writeln!(
            out,
            "FCW={:04x} FSW={:04x} [ST={}] FTW={:02x} MXCSR={:08x}",
            x87.control,
            x87.status | u16::from(x87.top) << 11,
            x87.top,
            x87.used,
            self.mxcsr
        )?;
        for (n, register) in x87.registers.iter().enumerate() {
            write!(out, "FPR{n}={:016x} {:04x}", register.sig, register.se)?;
            out.push(if n & 1 == 1 { '\n' } else { ' ' });
        }
        let count = if is_64 { 16 } else { 8 };
        for (n, value) in self.xmm.iter().enumerate().take(count) {
            let (high, low) = ((*value >> 64) as u64, *value as u64);
            write!(out, "XMM{n:02}={high:016x} {low:016x}")?;
            out.push(if n & 1 == 1 { '\n' } else { ' ' });
        }
        Ok(())
    }
}
