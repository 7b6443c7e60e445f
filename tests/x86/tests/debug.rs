//! Breakpoints of the debug registers (SDM vol. 3, 19.2 and 19.3), on all executors.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use target_x86::{Segment, Table};
use test_native::kvm::{Stop, SystemState};
use test_x86::{EmulatedSystem, executors};

const MEMORY: usize = 0x1_0000;
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const CODE: u32 = 0x4000;
/// Where the program goes on behind what sets the debug registers.
const BODY: u32 = CODE + 0x10;
const HANDLER: u32 = 0x5000;
/// Pointer to the end of the handler's log, and the log.
const END: u64 = 0x6000;
const LOG: u32 = 0x6100;
/// Data: a selector for SS.
const DATA: u32 = 0x7000;
const STACK: u64 = 0x8000;
/// A page of code of its own: RET.
const FUNCTION: u32 = 0x9000;

/// DR7.G0.
const G0: u32 = 2;
const WRITE: u32 = 1 << 16;
const PORT: u32 = 2 << 16;
const ACCESS: u32 = 3 << 16;
const LEN_2: u32 = 1 << 18;
const LEN_4: u32 = 3 << 18;
/// CR4.DE.
const DE: u64 = 8;

/// Notes EIP and DR6, clears DR6, sets RF in the saved flags and returns.
const HANDLER_CODE: &[u8] = &[
    0x8b, 0x0d, 0x00, 0x60, 0x00, 0x00, // mov ecx, [END]
    0x8b, 0x14, 0x24, // mov edx, [esp]
    0x89, 0x11, // mov [ecx], edx
    0x0f, 0x21, 0xf2, // mov edx, dr6
    0x89, 0x51, 0x04, // mov [ecx + 4], edx
    0x83, 0xc1, 0x08, // add ecx, 8
    0x89, 0x0d, 0x00, 0x60, 0x00, 0x00, // mov [END], ecx
    0x31, 0xd2, // xor edx, edx
    0x0f, 0x23, 0xf2, // mov dr6, edx
    0x81, 0x4c, 0x24, 0x08, 0x00, 0x00, 0x01, 0x00, // or dword [esp + 8], RF
    0xcf, // iret
];

/// The exceptions while `body` runs under one breakpoint: where they return to, and DR6.
fn exceptions(dr0: u32, dr7: u32, cr4: u64, body: &[u8]) -> Vec<(u32, u32)> {
    let mut program = vec![0xb8];
    program.extend(dr0.to_le_bytes());
    program.extend([0x0f, 0x23, 0xc0, 0xb8]);
    program.extend(dr7.to_le_bytes());
    program.extend([0x0f, 0x23, 0xf8]);
    program.extend(body);
    program.push(0xf4);
    let flat = |selector, attributes| Segment {
        selector,
        base: 0,
        limit: u32::MAX,
        attributes,
    };
    let mut seen = Vec::new();
    for (name, executor) in executors() {
        let mut cpu = EmulatedSystem::new(MEMORY, executor);
        let gate = u64::from(HANDLER) | 8 << 16 | 0x8e00 << 32;
        for (at, value) in [
            (GDT + 8, 0x00cf_9b00_0000_ffff_u64),
            (GDT + 16, 0x00cf_9300_0000_ffff),
            (IDT + 8, gate),
            (END, LOG.into()),
            (DATA.into(), 0x10),
        ] {
            cpu.write(at, &value.to_le_bytes());
        }
        cpu.write(CODE.into(), &program);
        cpu.write(HANDLER.into(), HANDLER_CODE);
        cpu.write(FUNCTION.into(), &[0xc3]);
        let mut state = SystemState {
            rip: CODE.into(),
            rflags: 2,
            cr0: 0x11,
            cr4,
            segments: [0, 1, 2, 3, 4, 5].map(|n| match n {
                1 => flat(8, 0xc09b),
                _ => flat(0x10, 0xc093),
            }),
            gdtr: Table {
                base: GDT,
                limit: 0x17,
            },
            idtr: Table {
                base: IDT,
                limit: 0xff,
            },
            ..SystemState::default()
        };
        state.gpr[4] = STACK;
        assert_eq!(cpu.run(&mut state), Stop::Halted, "{name}: {state:x?}");
        let mut memory = vec![0; MEMORY];
        cpu.read(&mut memory);
        let bytes = |at: usize| memory[at..at + 4].iter().rev();
        let word = |at| bytes(at).fold(0, |word, byte| word << 8 | u32::from(*byte));
        let log: Vec<(u32, u32)> = (LOG as usize..word(END as usize) as usize)
            .step_by(8)
            .map(|at| (word(at), word(at + 4) & 0xf00f))
            .collect();
        seen.push(log);
    }
    assert!(seen.iter().all(|log| *log == seen[0]), "{seen:x?}");
    seen.swap_remove(0)
}

/// mov dword [DATA], 1; nop; mov eax, [DATA].
const STORE_AND_LOAD: &[u8] = &[
    0xc7, 0x05, 0x00, 0x70, 0x00, 0x00, 1, 0, 0, 0, 0x90, 0xa1, 0x00, 0x70, 0x00, 0x00,
];

#[test]
fn a_breakpoint_on_code_faults_before_the_instruction_and_rf_lets_it_pass_once() {
    let nops = [0x90; 4];
    assert_eq!(exceptions(BODY + 1, G0, 0, &nops), [(BODY + 1, 1)]);
    // Not in the middle of an instruction.
    assert_eq!(exceptions(BODY + 1, G0, 0, STORE_AND_LOAD), []);
    assert_eq!(exceptions(BODY + 1, 0, 0, &nops), []);
}

#[test]
fn a_breakpoint_on_a_function_is_met_by_each_call_of_translated_code() {
    // mov esi, 100; again: call FUNCTION; dec esi; jnz again.
    let mut body = vec![0xbe, 100, 0, 0, 0, 0xe8];
    body.extend((FUNCTION - (BODY + 10)).to_le_bytes());
    body.extend([0x4e, 0x75, 0xf8]);
    let seen = exceptions(FUNCTION, G0, 0, &body);
    assert_eq!(seen, [(FUNCTION, 1); 100]);
}

#[test]
fn a_breakpoint_on_data_traps_after_the_instruction() {
    let write = exceptions(DATA, G0 | WRITE | LEN_4, 0, STORE_AND_LOAD);
    assert_eq!(write, [(BODY + 10, 1)]);
    let access = exceptions(DATA, G0 | ACCESS | LEN_4, 0, STORE_AND_LOAD);
    assert_eq!(access, [(BODY + 10, 1), (BODY + 16, 1)]);
    // The last of the four bytes.
    let last = exceptions(DATA + 3, G0 | WRITE, 0, STORE_AND_LOAD);
    assert_eq!(last, [(BODY + 10, 1)]);
    let behind = exceptions(DATA + 4, G0 | ACCESS | LEN_4, 0, STORE_AND_LOAD);
    assert_eq!(behind, []);
}

#[test]
fn only_what_is_watched_of_a_page_traps_in_a_loop_that_is_hot() {
    // mov esi, 5000; again: mov [DATA + 0x100], esi; dec esi; jnz again; mov [DATA], esi; nop.
    let mut body = [
        0xbe, 0x88, 0x13, 0, 0, 0x89, 0x35, 0x00, 0x71, 0, 0, 0x4e, 0x75, 0xf7, 0x89, 0x35, 0x00,
        0x70, 0, 0, 0x90,
    ];
    let seen = exceptions(DATA, G0 | WRITE | LEN_4, 0, &body);
    assert_eq!(seen, [(BODY + 20, 1)]);
    body[1..3].copy_from_slice(&[100, 0]);
    let seen = exceptions(DATA + 0x100, G0 | WRITE | LEN_4, 0, &body);
    assert_eq!(seen, [(BODY + 11, 1); 100]);
}

#[test]
fn a_breakpoint_on_a_port_needs_de() {
    // out 0x80, al; in al, 0x80; nop.
    let body = [0xe6, 0x80, 0xe4, 0x80, 0x90];
    let seen = exceptions(0x80, G0 | PORT, DE, &body);
    assert_eq!(seen, [(BODY + 2, 1), (BODY + 4, 1)]);
    assert_eq!(exceptions(0x80, G0 | PORT, 0, &body), []);
}

#[test]
fn loading_ss_holds_the_trap_until_after_the_next_instruction() {
    // mov ss, [DATA]; nop; nop.
    let body = [0x8e, 0x15, 0x00, 0x70, 0, 0, 0x90, 0x90];
    let seen = exceptions(DATA, G0 | ACCESS | LEN_2, 0, &body);
    assert_eq!(seen, [(BODY + 7, 1)]);
}

#[test]
fn a_single_step_and_a_breakpoint_are_one_exception() {
    // push 0x102; popf; mov [DATA], eax; push 2; popf: three traps of TF.
    let body = [
        0x68, 0x02, 0x01, 0, 0, 0x9d, 0xa3, 0x00, 0x70, 0, 0, 0x6a, 0x02, 0x9d,
    ];
    let seen = exceptions(DATA, G0 | WRITE | LEN_4, 0, &body);
    let wanted = [
        (BODY + 11, 0x4001),
        (BODY + 13, 0x4000),
        (BODY + 14, 0x4000),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn single_steps_begin_after_popf_where_there_are_breakpoints_near() {
    // push 0x102; popf; nop; push 2; popf; a breakpoint that is not met.
    let body = [0x68, 0x02, 0x01, 0, 0, 0x9d, 0x90, 0x6a, 0x02, 0x9d];
    let wanted = [7, 9, 10].map(|at| (BODY + at, 0x4000));
    assert_eq!(exceptions(BODY + 32, G0, 0, &body), wanted);
    assert_eq!(exceptions(0, 0, 0, &body), wanted);
}

#[test]
fn an_exception_says_what_was_hit_and_nothing_of_what_was_before() {
    // mov eax, 0x4002 (BS and B1); mov dr6, eax; nop.
    let body = [0xb8, 0x02, 0x40, 0, 0, 0x0f, 0x23, 0xf0, 0x90];
    assert_eq!(exceptions(BODY + 8, G0, 0, &body), [(BODY + 8, 0x4001)]);
}

#[test]
fn icebp_traps_and_takes_what_mov_ss_held_off_along() {
    // icebp; nop.
    assert_eq!(exceptions(0, 0, 0, &[0xf1, 0x90]), [(BODY + 1, 0)]);
    // mov ss, [DATA]; icebp; nop.
    let body = [0x8e, 0x15, 0x00, 0x70, 0, 0, 0xf1, 0x90];
    let seen = exceptions(DATA, G0 | ACCESS | LEN_2, 0, &body);
    assert_eq!(seen, [(BODY + 7, 1)]);
}
