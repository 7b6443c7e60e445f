//! Instructions on vector registers: the opcodes that the compiler passes are those of the
//! instructions meant.

use iced_x86::Mnemonic as M;

use super::*;

/// `prefix 0F opcode`, two vectors or a vector and memory of so many bytes.
type Plain = (Option<u8>, &'static [u8], M, usize);

const P66: Option<u8> = Some(0x66);
const PF2: Option<u8> = Some(0xf2);
const PF3: Option<u8> = Some(0xf3);

/// Of `compile/vector.rs`, in the order of `accel_ir::VecOp`, then of `compile/float.rs`.
const PLAIN: &[Plain] = &[
    (P66, &[0xdb], M::Pand, 16),
    (P66, &[0xdf], M::Pandn, 16),
    (P66, &[0xeb], M::Por, 16),
    (P66, &[0xef], M::Pxor, 16),
    (P66, &[0xfc], M::Paddb, 16),
    (P66, &[0xfd], M::Paddw, 16),
    (P66, &[0xfe], M::Paddd, 16),
    (P66, &[0xd4], M::Paddq, 16),
    (P66, &[0xf8], M::Psubb, 16),
    (P66, &[0xf9], M::Psubw, 16),
    (P66, &[0xfa], M::Psubd, 16),
    (P66, &[0xfb], M::Psubq, 16),
    (P66, &[0xec], M::Paddsb, 16),
    (P66, &[0xed], M::Paddsw, 16),
    (P66, &[0xdc], M::Paddusb, 16),
    (P66, &[0xdd], M::Paddusw, 16),
    (P66, &[0xe8], M::Psubsb, 16),
    (P66, &[0xe9], M::Psubsw, 16),
    (P66, &[0xd8], M::Psubusb, 16),
    (P66, &[0xd9], M::Psubusw, 16),
    (P66, &[0x74], M::Pcmpeqb, 16),
    (P66, &[0x75], M::Pcmpeqw, 16),
    (P66, &[0x76], M::Pcmpeqd, 16),
    (P66, &[0x64], M::Pcmpgtb, 16),
    (P66, &[0x65], M::Pcmpgtw, 16),
    (P66, &[0x66], M::Pcmpgtd, 16),
    (P66, &[0xda], M::Pminub, 16),
    (P66, &[0xde], M::Pmaxub, 16),
    (P66, &[0xea], M::Pminsw, 16),
    (P66, &[0xee], M::Pmaxsw, 16),
    (P66, &[0xe0], M::Pavgb, 16),
    (P66, &[0xe3], M::Pavgw, 16),
    (P66, &[0xd5], M::Pmullw, 16),
    (P66, &[0xe5], M::Pmulhw, 16),
    (P66, &[0xe4], M::Pmulhuw, 16),
    (P66, &[0x38, 0x0b], M::Pmulhrsw, 16),
    (P66, &[0xf4], M::Pmuludq, 16),
    (P66, &[0xf5], M::Pmaddwd, 16),
    (P66, &[0x38, 0x04], M::Pmaddubsw, 16),
    (P66, &[0xf6], M::Psadbw, 16),
    (P66, &[0x63], M::Packsswb, 16),
    (P66, &[0x67], M::Packuswb, 16),
    (P66, &[0x6b], M::Packssdw, 16),
    (P66, &[0x60], M::Punpcklbw, 16),
    (P66, &[0x61], M::Punpcklwd, 16),
    (P66, &[0x62], M::Punpckldq, 16),
    (P66, &[0x6c], M::Punpcklqdq, 16),
    (P66, &[0x68], M::Punpckhbw, 16),
    (P66, &[0x69], M::Punpckhwd, 16),
    (P66, &[0x6a], M::Punpckhdq, 16),
    (P66, &[0x6d], M::Punpckhqdq, 16),
    (P66, &[0x38, 0x00], M::Pshufb, 16),
    (P66, &[0xf1], M::Psllw, 16),
    (P66, &[0xf2], M::Pslld, 16),
    (P66, &[0xf3], M::Psllq, 16),
    (P66, &[0xd1], M::Psrlw, 16),
    (P66, &[0xd2], M::Psrld, 16),
    (P66, &[0xd3], M::Psrlq, 16),
    (P66, &[0xe1], M::Psraw, 16),
    (P66, &[0xe2], M::Psrad, 16),
    (P66, &[0x38, 0x1c], M::Pabsb, 16),
    (P66, &[0x38, 0x1d], M::Pabsw, 16),
    (P66, &[0x38, 0x1e], M::Pabsd, 16),
    (P66, &[0x38, 0x08], M::Psignb, 16),
    (P66, &[0x38, 0x09], M::Psignw, 16),
    (P66, &[0x38, 0x0a], M::Psignd, 16),
    (P66, &[0x38, 0x01], M::Phaddw, 16),
    (P66, &[0x38, 0x02], M::Phaddd, 16),
    (P66, &[0x38, 0x03], M::Phaddsw, 16),
    (P66, &[0x38, 0x05], M::Phsubw, 16),
    (P66, &[0x38, 0x06], M::Phsubd, 16),
    (P66, &[0x38, 0x07], M::Phsubsw, 16),
    (PF3, &[0x7e], M::Movq, 8),
    (PF3, &[0x10], M::Movss, 4),
    (PF2, &[0x10], M::Movsd, 8),
    (None, &[0x57], M::Xorps, 16),
    (None, &[0x51], M::Sqrtps, 16),
    (P66, &[0x51], M::Sqrtpd, 16),
    (PF3, &[0x51], M::Sqrtss, 4),
    (PF2, &[0x51], M::Sqrtsd, 8),
    (None, &[0x58], M::Addps, 16),
    (P66, &[0x58], M::Addpd, 16),
    (PF3, &[0x58], M::Addss, 4),
    (PF2, &[0x58], M::Addsd, 8),
    (None, &[0x59], M::Mulps, 16),
    (P66, &[0x59], M::Mulpd, 16),
    (PF3, &[0x59], M::Mulss, 4),
    (PF2, &[0x59], M::Mulsd, 8),
    (None, &[0x5c], M::Subps, 16),
    (P66, &[0x5c], M::Subpd, 16),
    (PF3, &[0x5c], M::Subss, 4),
    (PF2, &[0x5c], M::Subsd, 8),
    (None, &[0x5d], M::Minps, 16),
    (P66, &[0x5d], M::Minpd, 16),
    (PF3, &[0x5d], M::Minss, 4),
    (PF2, &[0x5d], M::Minsd, 8),
    (None, &[0x5e], M::Divps, 16),
    (P66, &[0x5e], M::Divpd, 16),
    (PF3, &[0x5e], M::Divss, 4),
    (PF2, &[0x5e], M::Divsd, 8),
    (None, &[0x5f], M::Maxps, 16),
    (P66, &[0x5f], M::Maxpd, 16),
    (PF3, &[0x5f], M::Maxss, 4),
    (PF2, &[0x5f], M::Maxsd, 8),
    (PF2, &[0x7c], M::Haddps, 16),
    (P66, &[0x7c], M::Haddpd, 16),
    (PF2, &[0x7d], M::Hsubps, 16),
    (P66, &[0x7d], M::Hsubpd, 16),
    (PF2, &[0xd0], M::Addsubps, 16),
    (P66, &[0xd0], M::Addsubpd, 16),
    (None, &[0x5a], M::Cvtps2pd, 8),
    (P66, &[0x5a], M::Cvtpd2ps, 16),
    (PF3, &[0x5a], M::Cvtss2sd, 4),
    (PF2, &[0x5a], M::Cvtsd2ss, 8),
    (PF3, &[0xe6], M::Cvtdq2pd, 8),
    (PF2, &[0xe6], M::Cvtpd2dq, 16),
    (P66, &[0xe6], M::Cvttpd2dq, 16),
    (None, &[0x5b], M::Cvtdq2ps, 16),
    (P66, &[0x5b], M::Cvtps2dq, 16),
    (PF3, &[0x5b], M::Cvttps2dq, 16),
];

/// Comparisons, whose flags the caller names.
const COMPARISONS: &[Plain] = &[
    (None, &[0x2e], M::Ucomiss, 4),
    (P66, &[0x2e], M::Ucomisd, 8),
    (None, &[0x2f], M::Comiss, 4),
    (P66, &[0x2f], M::Comisd, 8),
];

/// With an immediate byte.
const IMMEDIATE: &[Plain] = &[
    (P66, &[0x70], M::Pshufd, 16),
    (PF2, &[0x70], M::Pshuflw, 16),
    (PF3, &[0x70], M::Pshufhw, 16),
    (None, &[0xc6], M::Shufps, 16),
    (P66, &[0xc6], M::Shufpd, 16),
    (P66, &[0x3a, 0x0f], M::Palignr, 16),
    (P66, &[0x3a, 0x08], M::Roundps, 16),
    (P66, &[0x3a, 0x09], M::Roundpd, 16),
    (P66, &[0x3a, 0x0a], M::Roundss, 4),
    (P66, &[0x3a, 0x0b], M::Roundsd, 8),
];

#[test]
fn opcodes_of_two_vectors_are_what_was_meant() {
    for &(prefix, opcode, mnemonic, bytes) in PLAIN {
        check(|m| {
            let (to, from) = (m.xmm(), m.xmm_rm());
            m.asm.sse(prefix, opcode, to, from);
            let args = [arg(to, Size::Q), arg(from, Size::Q)];
            (meant(mnemonic, &args, bytes), Size::Q)
        });
    }
}

#[test]
fn comparisons_forget_whose_the_flags_were() {
    for &(prefix, opcode, mnemonic, bytes) in COMPARISONS {
        check(|m| {
            let (left, right) = (m.xmm(), m.xmm_rm());
            m.asm.compare(prefix, opcode[0], left, right);
            let args = [arg(left, Size::Q), arg(right, Size::Q)];
            (meant(mnemonic, &args, bytes), Size::Q)
        });
    }
}

#[test]
fn opcodes_with_a_constant_are_what_was_meant() {
    for &(prefix, opcode, mnemonic, bytes) in IMMEDIATE {
        check(|m| {
            let (to, from, constant) = (m.xmm(), m.xmm_rm(), m.random() as u8);
            m.asm.sse_imm(prefix, opcode, to, from, constant);
            let args = [
                arg(to, Size::Q),
                arg(from, Size::Q),
                Arg::Imm(constant.into()),
            ];
            (meant(mnemonic, &args, bytes), Size::B)
        });
    }
    for (prefix, mnemonic, bytes) in [
        (None, M::Cmpps, 16),
        (P66, M::Cmppd, 16),
        (PF3, M::Cmpss, 4),
        (PF2, M::Cmpsd, 8),
    ] {
        check(|m| {
            let (to, from, predicate) = (m.xmm(), m.xmm_rm(), m.below(8) as u8);
            m.asm.sse_imm(prefix, &[0xc2], to, from, predicate);
            let args = [
                arg(to, Size::Q),
                arg(from, Size::Q),
                Arg::Imm(predicate.into()),
            ];
            (meant(mnemonic, &args, bytes), Size::B)
        });
    }
}

#[test]
fn shifts_by_a_constant_are_of_the_groups_meant() {
    for (opcode, digit, mnemonic) in [
        (0x71, 6, M::Psllw),
        (0x72, 6, M::Pslld),
        (0x73, 6, M::Psllq),
        (0x71, 2, M::Psrlw),
        (0x72, 2, M::Psrld),
        (0x73, 2, M::Psrlq),
        (0x71, 4, M::Psraw),
        (0x72, 4, M::Psrad),
        (0x73, 7, M::Pslldq),
        (0x73, 3, M::Psrldq),
    ] {
        check(|m| {
            let (to, count) = (m.xmm(), m.random() as u8);
            m.asm.sse_imm(P66, &[opcode], Xmm(digit), to, count);
            let args = [arg(to, Size::Q), Arg::Imm(count.into())];
            (meant(mnemonic, &args, 0), Size::B)
        });
    }
}

#[test]
fn vectors_are_loaded_stored_and_copied_as_meant() {
    check(|m| {
        let (to, from) = (m.xmm(), m.mem());
        m.asm.movups(to, from);
        (
            meant(M::Movups, &[arg(to, Size::Q), memory(from)], 16),
            Size::Q,
        )
    });
    check(|m| {
        let (to, from) = (m.mem(), m.xmm());
        m.asm.movups_to(to, from);
        (
            meant(M::Movups, &[memory(to), arg(from, Size::Q)], 16),
            Size::Q,
        )
    });
    check(|m| {
        let to = m.xmm();
        let from = Xmm((to.0 + 1 + m.below(15) as u8) % 16);
        m.asm.movaps(to, to);
        assert!(m.asm.code.is_empty());
        m.asm.movaps(to, from);
        let args = [arg(to, Size::Q), arg(from, Size::Q)];
        (meant(M::Movaps, &args, 0), Size::Q)
    });
}

#[test]
fn values_go_between_vectors_and_registers_as_meant() {
    let sizes = [(Size::D, M::Movd), (Size::Q, M::Movq)];
    check(|m| {
        let ((size, mnemonic), to, from) = (m.pick(&sizes), m.xmm(), m.rm());
        m.asm.movq_to_xmm(to, from, size);
        let args = [arg(to, Size::Q), arg(from, size)];
        (meant(mnemonic, &args, bytes_of(size)), size)
    });
    check(|m| {
        let ((size, mnemonic), to, from) = (m.pick(&sizes), m.rm(), m.xmm());
        m.asm.movq_from_xmm(to, from, size);
        let args = [arg(to, size), arg(from, Size::Q)];
        (meant(mnemonic, &args, bytes_of(size)), size)
    });
    check(|m| {
        let (to, from, lane) = (m.xmm(), m.reg(), m.below(8) as u8);
        m.asm.sse_imm(P66, &[0xc4], to, from, lane);
        let args = [arg(to, Size::Q), arg(from, Size::D), Arg::Imm(lane.into())];
        (meant(M::Pinsrw, &args, 2), Size::B)
    });
    for (prefix, opcode, mnemonic) in [
        (P66, 0xd7, M::Pmovmskb),
        (None, 0x50, M::Movmskps),
        (P66, 0x50, M::Movmskpd),
    ] {
        check(|m| {
            let (to, from) = (m.reg(), m.xmm());
            m.asm.sse_reg(prefix, opcode, Size::D, to.0, from);
            let args = [arg(to, Size::D), arg(from, Size::Q)];
            (meant(mnemonic, &args, 0), Size::D)
        });
    }
}

#[test]
fn conversions_of_integers_are_what_was_meant() {
    for (prefix, mnemonic) in [(PF3, M::Cvtsi2ss), (PF2, M::Cvtsi2sd)] {
        check(|m| {
            let (size, to, from) = (m.pick(&[Size::D, Size::Q]), m.xmm(), m.reg());
            m.asm.sse_reg(prefix, 0x2a, size, to.0, from);
            let args = [arg(to, Size::Q), arg(from, size)];
            (meant(mnemonic, &args, 0), size)
        });
    }
    for (prefix, opcode, mnemonic, bytes) in [
        (PF3, 0x2c, M::Cvttss2si, 4),
        (PF3, 0x2d, M::Cvtss2si, 4),
        (PF2, 0x2c, M::Cvttsd2si, 8),
        (PF2, 0x2d, M::Cvtsd2si, 8),
    ] {
        check(|m| {
            let size = m.pick(&[Size::D, Size::Q]);
            let (to, from) = (m.reg(), m.xmm_rm());
            m.asm.sse_reg(prefix, opcode, size, to.0, from);
            let args = [arg(to, size), arg(from, Size::Q)];
            (meant(mnemonic, &args, bytes), size)
        });
    }
}

/// Opcodes of the 231 forms: for a sum in the operand changed.
const FUSED: [(u8, [M; 2]); 8] = [
    (0xb8, [M::Vfmadd231ps, M::Vfmadd231pd]),
    (0xb9, [M::Vfmadd231ss, M::Vfmadd231sd]),
    (0xba, [M::Vfmsub231ps, M::Vfmsub231pd]),
    (0xbb, [M::Vfmsub231ss, M::Vfmsub231sd]),
    (0xbc, [M::Vfnmadd231ps, M::Vfnmadd231pd]),
    (0xbd, [M::Vfnmadd231ss, M::Vfnmadd231sd]),
    (0xbe, [M::Vfnmsub231ps, M::Vfnmsub231pd]),
    (0xbf, [M::Vfnmsub231ss, M::Vfnmsub231sd]),
];

#[test]
fn fused_products_are_what_was_meant() {
    for (opcode, mnemonics) in FUSED {
        for double in [false, true] {
            let scalar = opcode & 1 != 0;
            let bytes = match (scalar, double) {
                (false, _) => 16,
                (true, false) => 4,
                (true, true) => 8,
            };
            check(|m| {
                let (to, factor, with) = (m.xmm(), m.xmm(), m.xmm_rm());
                m.asm.fused(opcode, double, to, factor, with);
                let args = [arg(to, Size::Q), arg(factor, Size::Q), arg(with, Size::Q)];
                let mnemonic = mnemonics[usize::from(double)];
                (meant(mnemonic, &args, bytes), Size::Q)
            });
        }
    }
}

#[test]
fn the_control_word_is_loaded_and_stored_as_meant() {
    check(|m| {
        let (store, mnemonic) = m.pick(&[(false, M::Ldmxcsr), (true, M::Stmxcsr)]);
        let mem = m.mem();
        m.asm.mxcsr(store, mem);
        (meant(mnemonic, &[memory(mem)], 4), Size::D)
    });
}

#[test]
fn x87_operands_in_memory_are_what_was_meant() {
    check(|m| {
        let (opcode, digit, mnemonic, bytes) = m.pick(&[
            (0xd8, 0, M::Fadd, 4),
            (0xd8, 3, M::Fcomp, 4),
            (0xd9, 0, M::Fld, 4),
            (0xd9, 5, M::Fldcw, 2),
            (0xda, 7, M::Fidivr, 4),
            (0xdb, 1, M::Fisttp, 4),
            (0xdb, 5, M::Fld, 10),
            (0xdb, 7, M::Fstp, 10),
            (0xdc, 4, M::Fsub, 8),
            (0xde, 1, M::Fimul, 2),
            (0xdf, 5, M::Fild, 8),
            (0xdf, 7, M::Fistp, 8),
        ]);
        let mem = m.mem();
        m.asm.fpu(opcode, digit, mem);
        (meant(mnemonic, &[memory(mem)], bytes), Size::D)
    });
}
