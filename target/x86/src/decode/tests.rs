//! Golden IR of instructions, in `tests/integer.ir` and `tests/sse.ir`. `cargo xtask bless` rewrites
//! the files.

use std::fmt::Write;
use std::sync::Arc;

use accel_core::{Source, Target};
use hw_clock::Clock;
use hw_memory::{MappingSpec, MemoryMap, RamBlock, What};
use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

use crate::state::{Segment, cr0, cr4, efer};
use crate::system::{self, CpuModel, Topology};
use crate::{Core, X86, regs};

/// Where the instructions stand.
const CODE: u64 = 0x4000;

/// A CPU at [`CODE`] in flat code of 64 or 32 bits, or in real mode.
fn cpu(bits: u32) -> (Core, Arc<RamBlock>) {
    let map = MemoryMap::default();
    let block = Arc::new(RamBlock::new("ram", 0x1_0000).unwrap());
    map.add(MappingSpec {
        name: "ram".into(),
        base: 0,
        len: 0x1_0000,
        priority: 0,
        enabled: true,
        what: What::Ram {
            block: block.clone(),
            offset: 0,
        },
    });
    let mut core = system::new_core(
        0,
        Arc::new(CpuModel::default()),
        Topology::default(),
        Box::new(crate::NoPort { a20: true }),
        map,
        Clock::manual().0,
    );
    let attributes = match bits {
        64 => Segment::L | 0x9b,
        32 => Segment::DB | 0x9b,
        _ => 0x93,
    };
    for (n, segment) in core.arch.segments.iter_mut().enumerate() {
        segment.base = 0;
        if bits != 16 {
            segment.limit = u32::MAX;
            segment.attributes = if n == 1 {
                attributes
            } else {
                Segment::DB | 0x93
            };
        }
    }
    for n in 0..6 {
        core.regs.set(regs::base(n), 0);
    }
    core.arch.cr4 = cr4::OSFXSR;
    if bits != 16 {
        core.arch.cr0 |= cr0::PE;
    }
    if bits == 64 {
        core.arch.efer = efer::LMA | efer::LME;
    }
    core.set_pc(CODE);
    super::refresh(&mut core);
    (core, block)
}

/// The unit of some bytes as text.
fn unit(bits: u32, bytes: &[u8], limit: u32) -> String {
    let (mut core, block) = cpu(bits);
    block.write(CODE, bytes).unwrap();
    let ctx = X86::fetch_ctx(&core);
    let Ok(mut source) = Source::new(&mut core, CODE, ctx) else {
        return "cannot fetch".into();
    };
    match super::translate(&mut core, &mut source, limit) {
        Ok(unit) => {
            assert_eq!(accel_ir::verify(&unit), Ok(()));
            unit.to_string()
        }
        Err(trap) => format!("{trap:?}"),
    }
}

/// Mode and bytes of each golden.
const CASES: &[(u32, &[u8])] = &[
    (64, &[0x48, 0x01, 0xd8]),                            // add rax, rbx
    (64, &[0x00, 0xe0]),                                  // add al, ah
    (64, &[0x66, 0x83, 0xc0, 0xff]),                      // add ax, -1
    (64, &[0x83, 0x45, 0xf8, 0x01]),                      // add dword [rbp-8], 1
    (64, &[0xf0, 0x48, 0x01, 0x07]),                      // lock add [rdi], rax
    (64, &[0x11, 0xc8]),                                  // adc eax, ecx
    (64, &[0x31, 0xc0]),                                  // xor eax, eax
    (64, &[0x48, 0x39, 0xc8]),                            // cmp rax, rcx
    (64, &[0x84, 0xc0]),                                  // test al, al
    (64, &[0xff, 0xc0]),                                  // inc eax
    (64, &[0xf7, 0xd8]),                                  // neg eax
    (64, &[0xf0, 0xf7, 0x18]),                            // lock neg dword [rax]
    (64, &[0x48, 0xf7, 0xe1]),                            // mul rcx
    (64, &[0x6b, 0xc1, 0x0a]),                            // imul eax, ecx, 10
    (64, &[0x48, 0xf7, 0xf1]),                            // div rcx
    (64, &[0xf0, 0x0f, 0xb1, 0x0f]),                      // lock cmpxchg [rdi], ecx
    (64, &[0x0f, 0xc1, 0xc8]),                            // xadd eax, ecx
    (64, &[0x48, 0xc1, 0xe0, 0x04]),                      // shl rax, 4
    (64, &[0xd3, 0xf8]),                                  // sar eax, cl
    (64, &[0xc0, 0xc0, 0x03]),                            // rol al, 3
    (64, &[0xd1, 0xd0]),                                  // rcl eax, 1
    (64, &[0x0f, 0xa4, 0xc8, 0x05]),                      // shld eax, ecx, 5
    (64, &[0x48, 0x0f, 0xba, 0xe0, 0x07]),                // bt rax, 7
    (64, &[0xf0, 0x0f, 0xab, 0x0f]),                      // lock bts [rdi], ecx
    (64, &[0x0f, 0xbc, 0xc1]),                            // bsf eax, ecx
    (64, &[0x0f, 0x94, 0xc0]),                            // sete al
    (64, &[0x0f, 0x4c, 0xc1]),                            // cmovl eax, ecx
    (64, &[0x48, 0x8b, 0x44, 0xc8, 0x10]),                // mov rax, [rax+rcx*8+16]
    (64, &[0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0]), // mov rax, [gs:28h]
    (64, &[0x67, 0x8b, 0x00]),                            // mov eax, [eax]
    (64, &[0x48, 0x8d, 0x05, 0x10, 0, 0, 0]),             // lea rax, [rip+16]
    (64, &[0x0f, 0xb6, 0x07]),                            // movzx eax, byte [rdi]
    (64, &[0x48, 0x63, 0xc1]),                            // movsxd rax, ecx
    (64, &[0x87, 0x0f]),                                  // xchg [rdi], ecx
    (64, &[0x0f, 0xc8]),                                  // bswap eax
    (64, &[0x99]),                                        // cdq
    (64, &[0x55]),                                        // push rbp
    (64, &[0x8f, 0x04, 0x24]),                            // pop qword [rsp]
    (64, &[0xc9]),                                        // leave
    (64, &[0x9c]),                                        // pushfq
    (64, &[0x9e]),                                        // sahf
    (64, &[0xe8, 0x10, 0, 0, 0]),                         // call
    (64, &[0xc3]),                                        // ret
    (64, &[0xff, 0xe0]),                                  // jmp rax
    (64, &[0x48, 0x39, 0xc8, 0x74, 0x10, 0x90]),          // cmp rax, rcx; je; nop
    (64, &[0xa4]),                                        // movsb
    (64, &[0xf3, 0x48, 0xab]),                            // rep stosq
    (64, &[0x0f, 0xae, 0xf0]),                            // mfence
    (64, &[0x0f, 0x0b]),                                  // ud2
    (64, &[0x0f, 0xa2]),                                  // cpuid
    (64, &[0x0f, 0x05]),                                  // syscall
    (64, &[0x0f, 0x22, 0xd8]),                            // mov cr3, rax
    (32, &[0x8e, 0xd8]),                                  // mov ds, eax
    (32, &[0x60]),                                        // pusha
    (32, &[0x27]),                                        // daa
    (32, &[0xea, 1, 2, 3, 4, 8, 0]),                      // jmp 8:4030201h
    (32, &[0xe2, 0xfe]),                                  // loop
    (16, &[0x8b, 0x40, 0x02]),                            // mov ax, [bx+si+2]
    (16, &[0xcd, 0x10]),                                  // int 10h
];

/// The same of SSE, with all exceptions masked.
const SSE_CASES: &[(u32, &[u8])] = &[
    (64, &[0x0f, 0x28, 0xc1]),             // movaps xmm0, xmm1
    (64, &[0x0f, 0x28, 0x07]),             // movaps xmm0, [rdi]
    (64, &[0xf3, 0x0f, 0x7f, 0x07]),       // movdqu [rdi], xmm0
    (64, &[0xf3, 0x0f, 0x10, 0xc1]),       // movss xmm0, xmm1
    (64, &[0xf2, 0x0f, 0x10, 0x07]),       // movsd xmm0, [rdi]
    (64, &[0xf2, 0x0f, 0x11, 0x07]),       // movsd [rdi], xmm0
    (64, &[0x66, 0x0f, 0x6e, 0xc0]),       // movd xmm0, eax
    (64, &[0x66, 0x48, 0x0f, 0x7e, 0xc0]), // movq rax, xmm0
    (64, &[0x66, 0x0f, 0x16, 0x07]),       // movhpd xmm0, [rdi]
    (64, &[0x0f, 0x12, 0xc1]),             // movhlps xmm0, xmm1
    (64, &[0xf2, 0x0f, 0x58, 0xc1]),       // addsd xmm0, xmm1
    (64, &[0xf3, 0x0f, 0x59, 0x07]),       // mulss xmm0, [rdi]
    (64, &[0x0f, 0x5e, 0x07]),             // divps xmm0, [rdi]
    (64, &[0xf2, 0x0f, 0x51, 0xc1]),       // sqrtsd xmm0, xmm1
    (64, &[0x0f, 0xc2, 0xc1, 0x06]),       // cmpps xmm0, xmm1, 6
    (64, &[0x66, 0x0f, 0x2e, 0xc1]),       // ucomisd xmm0, xmm1
    (64, &[0xf2, 0x48, 0x0f, 0x2a, 0xc0]), // cvtsi2sd xmm0, rax
    (64, &[0xf2, 0x0f, 0x2c, 0xc1]),       // cvttsd2si eax, xmm1
    (64, &[0xf3, 0x0f, 0x5a, 0xc1]),       // cvtss2sd xmm0, xmm1
    (64, &[0x66, 0x0f, 0x5a, 0xc1]),       // cvtpd2ps xmm0, xmm1
    (64, &[0x0f, 0x53, 0xc1]),             // rcpps xmm0, xmm1
    (64, &[0x66, 0x0f, 0xef, 0xc0]),       // pxor xmm0, xmm0
    (64, &[0x66, 0x0f, 0x74, 0x07]),       // pcmpeqb xmm0, [rdi]
    (64, &[0x66, 0x0f, 0xd7, 0xc1]),       // pmovmskb eax, xmm1
    (64, &[0x66, 0x0f, 0x72, 0xf0, 0x03]), // pslld xmm0, 3
    (64, &[0x66, 0x0f, 0xd2, 0xc1]),       // psrld xmm0, xmm1
    (64, &[0x66, 0x0f, 0x70, 0xc1, 0x1b]), // pshufd xmm0, xmm1, 1Bh
    (64, &[0x66, 0x0f, 0xc4, 0xc0, 0x03]), // pinsrw xmm0, eax, 3
    (64, &[0x66, 0x0f, 0xc5, 0xc1, 0x05]), // pextrw eax, xmm1, 5
    (64, &[0x0f, 0xae, 0x17]),             // ldmxcsr [rdi]
    (64, &[0x0f, 0xae, 0x1f]),             // stmxcsr [rdi]
];

fn golden(file: &str, expected: &str, cases: &[(u32, &[u8])]) {
    let mut text = String::new();
    for (bits, bytes) in cases {
        let mut name = String::new();
        let insn = Decoder::with_ip(*bits, bytes, CODE, DecoderOptions::NONE).decode();
        NasmFormatter::new().format(&insn, &mut name);
        writeln!(text, "; {bits} bits: {name}").unwrap();
        let limit = if bytes.len() > insn.len() { 8 } else { 1 };
        // What follows in memory is `add [rax], al`: the limit keeps it out, or it is seen.
        writeln!(text, "{}", unit(*bits, bytes, limit.min(3))).unwrap();
    }
    if std::env::var_os("BLESS").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::write(path, &text).unwrap();
        return;
    }
    for (n, (want, got)) in expected.lines().zip(text.lines()).enumerate() {
        assert_eq!(want, got, "{file}:{}", n + 1);
    }
    assert_eq!(expected.lines().count(), text.lines().count(), "{file}");
}

#[test]
fn instructions_become_the_golden_ir() {
    golden(
        "tests/integer.ir",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integer.ir")),
        CASES,
    );
}

#[test]
fn sse_instructions_become_the_golden_ir() {
    golden(
        "tests/sse.ir",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sse.ir")),
        SSE_CASES,
    );
}

#[test]
fn an_instruction_of_16_bytes_raises_general_protection() {
    let bytes = [0x66; 15]
        .into_iter()
        .chain([0x90, 0x90])
        .collect::<Vec<_>>();
    let text = unit(64, &bytes, 8);
    assert!(text.contains("0xd\n"), "{text}");
}

#[test]
fn lock_without_a_memory_destination_is_undefined() {
    for bytes in [
        &[0xf0, 0x01, 0xc8][..],
        &[0xf0, 0x8b, 0x00],
        &[0xf0, 0x90],
        &[0xf0, 0x3b, 0x00],
    ] {
        let text = unit(64, bytes, 1);
        assert!(text.contains("0x6\n"), "{text}");
    }
}

#[test]
fn what_sti_holds_off_waits_for_the_instruction_after_it() {
    // nop; sti; hlt, and the same as the last that have room: HLT is of STI's unit, or STI is the one that
    // leaves a shadow behind.
    let inside = unit(64, &[0x90, 0xfb, 0xf4], 32);
    assert_eq!(inside.matches("insn ").count(), 3, "{inside}");
    let last = unit(64, &[0x90, 0xfb, 0xf4], 2);
    assert_eq!(last.matches("insn ").count(), 2, "{last}");
    let helper = |text: &str| {
        let calls = text.lines().filter(|line| line.contains("call h"));
        calls.map(str::to_owned).next().unwrap()
    };
    assert_ne!(helper(&inside), helper(&last));
}
