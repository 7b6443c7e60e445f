//! Random instructions in the modes that user programs do not reach, for two CPUs with the same
//! memory. KVM is the oracle: the processor itself, or on hosts that cannot the kernel's instruction
//! emulator, another implementation at least.
//!
//! Every segment has its own 64 KiB of memory; the code segment holds nothing but HLT around the
//! instruction, and so do the handlers of all exceptions. What an instruction did is in the
//! registers and in memory, exception frames included.

use std::collections::BTreeMap;
use std::fmt::Write;

use accel_core::Executor;
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Formatter, Instruction, Mnemonic,
    NasmFormatter, OpKind,
};
use target_x86::{Segment, Table, X86};
use test_native::generate::{Rng, undefined_flags};
use test_native::kvm::{KvmCpu, Stop, SystemState};

use crate::system::EmulatedSystem;

/// Memory of a machine.
pub const MEMORY: usize = 0x4_0000;

const HANDLERS: u64 = 0x1000;
const GDT: u64 = 0x2000;
const IDT: u64 = 0x2800;
const TSS: u64 = 0x3000;
const STACK0: u64 = 0x3f00;
const CODE: u64 = 0x1_0000;
/// Offset of the instruction in its segment.
const START: u64 = 0x8000;
/// Bases of ES, CS, SS, DS, FS, GS.
const BASES: [u64; 6] = [0x2_1230, CODE, 0x2_4560, 0x2_0000, 0x2_2220, 0x2_3330];
const HLT: u8 = 0xf4;

/// Entries of the global descriptor table.
const DESCRIPTORS: u64 = 32;

/// A mode to run in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Real mode.
    Real,
    /// Protected mode, 16-bit code, privilege level 0.
    Protected16,
    /// Protected mode, 32-bit code, privilege level 0.
    Protected32,
}

impl Mode {
    fn bitness(self) -> u32 {
        match self {
            Mode::Real | Mode::Protected16 => 16,
            Mode::Protected32 => 32,
        }
    }

    fn is_real(self) -> bool {
        self == Mode::Real
    }
}

/// A descriptor's eight bytes.
fn descriptor(base: u64, limit: u64, attributes: u16) -> u64 {
    let a = u64::from(attributes);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (a & 0xff) << 40
        | (limit >> 16 & 15) << 48
        | (a >> 12 & 15) << 52
        | (base >> 24 & 0xff) << 56
}

/// Index in the table of each segment register's descriptor, by mode.
fn selector(mode: Mode, n: usize) -> u16 {
    if mode.is_real() {
        return (BASES[n] >> 4) as u16;
    }
    (n as u16 + 1) << 3
}

/// What a segment register holds at the start.
fn segment(mode: Mode, n: usize) -> Segment {
    let code = n == 1;
    let attributes = match mode {
        Mode::Real => 0x93,
        Mode::Protected16 if code => 0x9b,
        Mode::Protected16 => 0x93,
        Mode::Protected32 if code => 0x409b,
        Mode::Protected32 => 0x4093,
    };
    // KVM delivers some exceptions by itself, and takes the stack segment for flat then.
    let base = if n == 2 && !mode.is_real() {
        0
    } else {
        BASES[n]
    };
    Segment {
        selector: selector(mode, n),
        base,
        limit: 0xffff,
        attributes,
    }
}

/// Random content, with tables where the mode wants them.
pub fn memory(mode: Mode, rng: &mut Rng) -> Vec<u8> {
    let mut memory = Vec::with_capacity(MEMORY);
    while memory.len() < MEMORY {
        memory.extend_from_slice(&rng.u64().to_le_bytes());
    }
    let mut put = |at: u64, value: u64| {
        memory[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    };
    for n in 0..DESCRIPTORS {
        // Behind those in use: one of every kind.
        let attributes = match n {
            9.. => (rng.u64() & 0xf0ff) as u16 | if rng.percent(80) { 0x80 } else { 0 },
            _ => 0,
        };
        let base = 0x2_0000 + (rng.u64() & 0xfff0);
        put(
            GDT + 8 * n,
            descriptor(base, rng.u64() & 0xffff, attributes),
        );
    }
    put(GDT, 0);
    for n in 0..6 {
        let s = segment(mode, n);
        put(
            GDT + 8 * (n as u64 + 1),
            descriptor(s.base, s.limit.into(), s.attributes),
        );
    }
    // The kernel's: flat code and data.
    put(GDT + 8 * 7, descriptor(0, 0xf_ffff, 0xc09b));
    put(GDT + 8 * 8, descriptor(0, 0xf_ffff, 0xc093));
    for vector in 0..256u64 {
        let handler = HANDLERS + (vector & 31) * 16;
        if mode == Mode::Real {
            memory[vector as usize * 4..][..4]
                .copy_from_slice(&((handler >> 4) << 16).to_le_bytes()[..4]);
        } else {
            let gate = handler & 0xffff | (7 << 3) << 16 | 0xee << 40 | (handler >> 16) << 48;
            memory[(IDT + vector * 8) as usize..][..8].copy_from_slice(&gate.to_le_bytes());
        }
        memory[handler as usize..handler as usize + 16].fill(HLT);
    }
    memory[TSS as usize..TSS as usize + 0x68].fill(0);
    memory[TSS as usize + 4..][..4].copy_from_slice(&(STACK0 as u32).to_le_bytes());
    memory[TSS as usize + 8..][..2].copy_from_slice(&(8u16 << 3).to_le_bytes());
    // The I/O map lies beyond the limit.
    memory[TSS as usize + 0x66..][..2].copy_from_slice(&0x68u16.to_le_bytes());
    memory[CODE as usize..CODE as usize + 0x1_0000].fill(HLT);
    memory
}

fn value(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rng.below(0x100),
        1 => rng.below(0x20),
        2 => 0xffff_ffff - rng.below(0x20),
        3 => rng.u64() & 0xffff_ffff,
        4 => 1u64 << rng.below(32),
        5 => rng.below(DESCRIPTORS) << 3 | rng.below(8),
        _ => rng.u64() & 0xffff,
    }
}

/// The registers of a case.
pub fn state(mode: Mode, rng: &mut Rng) -> SystemState {
    let mut state = SystemState {
        rip: START,
        rflags: rng.u64() & 0xcd5 | 2,
        segments: std::array::from_fn(|n| segment(mode, n)),
        tr: Segment {
            selector: 0x48,
            base: TSS,
            limit: 0x67,
            attributes: 0x8b,
        },
        ldtr: Segment {
            selector: 0,
            base: 0,
            limit: 0xffff,
            attributes: 0x82,
        },
        gdtr: Table {
            base: GDT,
            limit: (DESCRIPTORS * 8 - 1) as u16,
        },
        cr0: 0x11,
        ..SystemState::default()
    };
    state.idtr = Table {
        base: IDT,
        limit: 0x7ff,
    };
    for register in &mut state.gpr[..8] {
        *register = value(rng);
    }
    if !rng.percent(10) {
        let high = if rng.percent(30) && mode.is_real() {
            rng.u64() & 0xffff_0000
        } else {
            0
        };
        state.gpr[4] = high | (0x4000 + rng.below(0x4000));
    }
    if mode == Mode::Protected16 {
        state.gpr[4] &= 0xffff;
    }
    if mode == Mode::Real {
        state.cr0 = 0x10;
        state.idtr = Table {
            base: 0,
            limit: 0x3ff,
        };
    }
    state
}

/// Bytes of a random instruction that makes sense to compare.
pub fn instruction(mode: Mode, rng: &mut Rng) -> (Vec<u8>, Option<Instruction>) {
    loop {
        let mut bytes = Vec::new();
        while rng.percent(25) {
            const PREFIXES: [u8; 11] = [
                0x66, 0x67, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x64,
            ];
            bytes.push(PREFIXES[rng.below(PREFIXES.len() as u64) as usize]);
        }
        if rng.percent(35) {
            bytes.push(0x0f);
        }
        for _ in 0..2 {
            bytes.push(rng.u64() as u8);
        }
        while bytes.len() < 16 {
            bytes.push(if rng.percent(50) {
                rng.u64() as u8
            } else {
                rng.below(4) as u8
            });
        }
        let mut decoder = Decoder::with_ip(mode.bitness(), &bytes, START, DecoderOptions::NONE);
        let insn = decoder.decode();
        if insn.is_invalid() {
            if rng.percent(2) {
                return (bytes, None);
            }
            continue;
        }
        bytes.truncate(insn.len());
        if is_wanted(&insn) {
            return (bytes, Some(insn));
        }
    }
}

fn is_wanted(insn: &Instruction) -> bool {
    use CpuidFeature as F;
    use Mnemonic::*;
    let known = insn.cpuid_features().iter().all(|f| {
        matches!(
            f,
            F::INTEL8086
                | F::INTEL8086_ONLY
                | F::INTEL186
                | F::INTEL286
                | F::INTEL386
                | F::INTEL486
                | F::CMOV
                | F::CX8
                | F::POPCNT
                | F::MOVBE
                | F::MULTIBYTENOP
                | F::X64
        )
    });
    let system = matches!(
        insn.mnemonic(),
        In | Out
            | Insb
            | Insw
            | Insd
            | Outsb
            | Outsw
            | Outsd
            | Hlt
            | Lgdt
            | Lidt
            | Lmsw
            | Ltr
            | Lldt
            | Invd
            | Wbinvd
            | Invlpg
            | Iret
            | Iretd
            | Retf
            | Int1
            | Wait
            | Sti
            | Rsm
    ) || insn
        .op_kinds()
        .any(|k| matches!(k, OpKind::FarBranch16 | OpKind::FarBranch32))
        || insn.is_jmp_far_indirect()
        || insn.is_call_far_indirect();
    let control = insn.op0_register().is_cr()
        || insn.op0_register().is_dr()
        || insn.op0_register().is_tr()
        || insn.op1_register().is_cr()
        || insn.op1_register().is_dr()
        || insn.op1_register().is_tr();
    // A branch into itself may never end.
    let branches = matches!(
        insn.flow_control(),
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::Call
    );
    let itself = branches && insn.near_branch_target().wrapping_sub(START) < insn.len() as u64 + 1;
    known && !system && !control && !itself
}

/// RFLAGS.TF.
const TF: u64 = 1 << 8;

/// What the manuals leave open, and what the instruction emulator that KVM uses in these modes on
/// some hosts does against them.
fn is_undefined(insn: Option<&Instruction>, mode: Mode, start: &SystemState) -> bool {
    let Some(insn) = insn else {
        return false;
    };
    // Double shifts of 16 bits by more than 16.
    let count = match insn.code() {
        Code::Shld_rm16_r16_CL | Code::Shrd_rm16_r16_CL => start.gpr[1],
        Code::Shld_rm16_r16_imm8 | Code::Shrd_rm16_r16_imm8 => insn.immediate8().into(),
        _ => 0,
    };
    if count & 31 > 16 {
        return true;
    }
    match insn.code() {
        // Pushed as 32 bits or as 16.
        Code::Pushd_ES
        | Code::Pushd_CS
        | Code::Pushd_SS
        | Code::Pushd_DS
        | Code::Pushd_FS
        | Code::Pushd_GS => return true,
        // The emulator goes by the size of the stack.
        Code::Enterd_imm16_imm8 if mode.bitness() == 16 => return true,
        Code::Enterw_imm16_imm8 if mode.bitness() == 32 => return true,
        _ => {}
    }
    // The emulator lacks MOVBE, and in real mode pushes 32 bits each with an operand size prefix.
    insn.mnemonic() == Mnemonic::Movbe
        || mode == Mode::Real
            && matches!(
                insn.mnemonic(),
                Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Into
            )
}

/// RFLAGS bits that are up to the processor.
fn undefined(insn: &Instruction) -> u64 {
    use Mnemonic::*;
    let shift = match insn.mnemonic() {
        Rol | Ror | Rcl | Rcr => 1 << 11,
        // The emulator goes by AX.
        Aam | Aad => 1 << 6 | 1 << 7,
        Shl | Sal | Shr | Sar | Shld | Shrd => 1 << 11 | 1 << 4 | 1,
        _ => 0,
    };
    undefined_flags(insn.code()) | shift
}

/// The pair of machines.
pub struct Pair {
    native: KvmCpu,
    emulated: EmulatedSystem,
    scratch: Vec<u8>,
}

/// Failures by instruction.
#[derive(Default)]
pub struct Failures {
    /// Cases compared.
    pub cases: u64,
    /// How often, and an example.
    pub by_code: BTreeMap<String, (u64, String)>,
}

impl Failures {
    /// One text of everything.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (code, (count, example)) in &self.by_code {
            let _ = writeln!(text, "{code}: {count} times\n{example}");
        }
        let _ = write!(
            text,
            "{} cases, {} failing codes",
            self.cases,
            self.by_code.len()
        );
        text
    }
}

impl Pair {
    /// Fails where there is no KVM.
    pub fn new(executor: Box<dyn Executor<X86>>) -> std::io::Result<Self> {
        Ok(Pair {
            native: KvmCpu::new(MEMORY)?,
            emulated: EmulatedSystem::new(MEMORY, executor),
            scratch: vec![0; MEMORY],
        })
    }

    /// Runs cases in a mode. `only` names the code to look at, or is empty.
    pub fn campaign(&mut self, mode: Mode, cases: u64, seed: u64, only: &str) -> Failures {
        let mut rng = Rng::new(seed);
        let mut initial = memory(mode, &mut rng);
        let mut failures = Failures::default();
        for _ in 0..cases {
            let (bytes, insn) = instruction(mode, &mut rng);
            let start = state(mode, &mut rng);
            let name = match &insn {
                Some(insn) => format!("{:?}", insn.code()),
                None => "INVALID".into(),
            };
            if !name.contains(only) {
                continue;
            }
            let at = (CODE + START) as usize;
            initial[at..at + 16].fill(HLT);
            initial[at..at + bytes.len()].copy_from_slice(&bytes);
            if is_undefined(insn.as_ref(), mode, &start) {
                continue;
            }
            let Some(list) = self.compare(&initial, &start, insn.as_ref()) else {
                continue;
            };
            failures.cases += 1;
            if !list.is_empty() {
                let entry = failures.by_code.entry(name).or_default();
                entry.0 += 1;
                if entry.0 == 1 {
                    entry.1 = example(&bytes, insn.as_ref(), &start, &list);
                }
            }
        }
        failures
    }

    /// Differences after a case; `None` if the oracle could not run it.
    fn compare(
        &mut self,
        initial: &[u8],
        start: &SystemState,
        insn: Option<&Instruction>,
    ) -> Option<Vec<String>> {
        self.native.memory().copy_from_slice(initial);
        let mut want = start.clone();
        let stop = self.native.run(&mut want).ok()?;
        if stop == Stop::Other {
            return None;
        }
        self.emulated.read(&mut self.scratch);
        self.emulated.restore(&self.scratch, initial);
        let mut got = start.clone();
        // KVM leaves at the final HLT before the single-step trap that HLT owes to a TF just loaded.
        let got_stop = if stop == Stop::Halted && want.rflags & TF != 0 {
            self.emulated.run_through_traced_halt(&mut got, want.rip)?;
            Stop::Halted
        } else {
            self.emulated.run(&mut got)
        };
        self.emulated.read(&mut self.scratch);
        let mut list = Vec::new();
        // With no room for an exception frame the emulator goes its own way.
        if stop != Stop::Halted || got_stop == Stop::Shutdown {
            return None;
        }
        if got_stop != stop {
            list.push(format!("stop: got {got_stop:?}"));
        }
        let mut check = |name: String, want: u64, got: u64| {
            if want != got {
                list.push(format!("{name}: want {want:#x}, got {got:#x}"));
            }
        };
        let delivered = want.segments[1].base != CODE;
        let compares = insn.is_some_and(|i| {
            use Mnemonic::*;
            matches!(i.mnemonic(), Cmpsb | Cmpsw | Cmpsd | Scasb | Scasw | Scasd)
        });
        if delivered && compares {
            // The flags after some iterations and a fault are open, and what a faulting PUSHA wrote.
            return Some(Vec::new());
        }
        for n in 0..8 {
            // Whether delivery in real mode keeps the upper half of ESP is open.
            let mask = if n == 4 && delivered {
                0xffff
            } else {
                u64::MAX
            };
            check(format!("gpr{n}"), want.gpr[n] & mask, got.gpr[n] & mask);
        }
        check("rip".into(), want.rip, got.rip);
        let defined = !insn.map_or(0, undefined) & !(1 << 16);
        check("rflags".into(), want.rflags & defined, got.rflags & defined);
        for n in 0..6 {
            let (want, got) = (&want.segments[n], &got.segments[n]);
            check(
                format!("selector{n}"),
                want.selector.into(),
                got.selector.into(),
            );
            check(format!("base{n}"), want.base, got.base);
            check(format!("limit{n}"), want.limit.into(), got.limit.into());
        }
        let mut bytes = 0;
        for (at, (want, got)) in self.native.memory().iter().zip(&self.scratch).enumerate() {
            if want != got {
                bytes += 1;
                if bytes < 6 {
                    list.push(format!("[{at:#x}]: want {want:#x}, got {got:#x}"));
                }
            }
        }
        Some(list)
    }
}

fn example(
    bytes: &[u8],
    insn: Option<&Instruction>,
    start: &SystemState,
    list: &[String],
) -> String {
    let mut text = String::from("    ");
    match insn {
        Some(insn) => NasmFormatter::new().format(insn, &mut text),
        None => text.push_str("(invalid)"),
    }
    let _ = writeln!(text, "  {bytes:02x?}");
    let _ = writeln!(
        text,
        "    from gpr={:x?} rflags={:x}",
        &start.gpr[..8],
        start.rflags
    );
    for line in list {
        let _ = writeln!(text, "      {line}");
    }
    text
}
