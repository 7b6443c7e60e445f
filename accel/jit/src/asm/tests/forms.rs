//! Instructions on general registers.

use iced_x86::Mnemonic as M;

use super::*;

#[test]
fn moves_are_what_was_meant() {
    check(|m| {
        let (size, to, from) = (m.size(), m.reg(), m.rm());
        m.asm.mov(size, to, from);
        let args = [arg(to, size), arg(from, size)];
        (meant(M::Mov, &args, bytes_of(size)), size)
    });
    check(|m| {
        let (size, to, from) = (m.size(), m.rm(), m.reg());
        m.asm.mov_to(size, to, from);
        let args = [arg(to, size), arg(from, size)];
        (meant(M::Mov, &args, bytes_of(size)), size)
    });
    check(|m| {
        let (size, to, value) = (m.size(), m.mem(), m.imm());
        m.asm.mov_imm_to(size, to, value);
        let args = [memory(to), imm(value, size)];
        (meant(M::Mov, &args, bytes_of(size)), size)
    });
    check(|m| {
        let (size, to, mem) = (m.wide(), m.reg(), m.mem());
        m.asm.lea(size, to, mem);
        // The decoder says no size for an address.
        (meant(M::Lea, &[arg(to, size), memory(mem)], 0), size)
    });
}

#[test]
fn a_constant_in_a_register_takes_the_shortest_form_that_keeps_it() {
    check(|m| {
        let to = m.reg();
        let any = m.random() << 11 ^ m.random();
        let small = i64::from(m.imm());
        let value = match m.below(3) {
            0 => any,
            1 => small as u64,
            _ => any & 0xffff_ffff,
        };
        m.asm.mov_imm(to, value);
        assert_eq!(m.asm.flags_of, Some(1));
        let (size, longest) = match value {
            0..=0xffff_ffff => (Size::D, 6),
            _ if i64::from(value as i32) as u64 == value => (Size::Q, 7),
            _ => (Size::Q, 10),
        };
        assert!(m.asm.code.len() <= longest);
        (meant(M::Mov, &[arg(to, size), Arg::Imm(value)], 0), Size::Q)
    });
}

#[test]
fn extensions_are_what_was_meant() {
    check(|m| {
        let (size, to, from) = (m.size(), m.reg(), m.rm());
        m.asm.movzx(size, to, from);
        // From 32 bits a plain move does, which clears the rest.
        let (mnemonic, to_size) = match size {
            Size::B | Size::W => (M::Movzx, Size::D),
            size => (M::Mov, size),
        };
        let args = [arg(to, to_size), arg(from, size)];
        (meant(mnemonic, &args, bytes_of(size)), size)
    });
    check(|m| {
        let (size, to_size) = (m.size(), m.pick(&[Size::D, Size::Q]));
        let (to, from) = (m.reg(), m.rm());
        m.asm.movsx(size, to_size, to, from);
        let (mnemonic, to_size) = match size {
            Size::B | Size::W => (M::Movsx, to_size),
            Size::D => (M::Movsxd, to_size),
            Size::Q => (M::Mov, Size::Q),
        };
        let args = [arg(to, to_size), arg(from, size)];
        (meant(mnemonic, &args, bytes_of(size)), size)
    });
}

#[test]
fn the_stack_is_pushed_and_popped_as_meant() {
    check(|m| {
        let reg = m.reg();
        m.asm.push(reg);
        (meant(M::Push, &[arg(reg, Size::Q)], 0), Size::Q)
    });
    check(|m| {
        let value = m.imm();
        m.asm.push_imm(value);
        (meant(M::Push, &[imm(value, Size::Q)], 0), Size::Q)
    });
    check(|m| {
        let reg = m.reg();
        m.asm.pop(reg);
        (meant(M::Pop, &[arg(reg, Size::Q)], 0), Size::Q)
    });
}

const ALU: [(Alu, M); 8] = [
    (Alu::Add, M::Add),
    (Alu::Or, M::Or),
    (Alu::Adc, M::Adc),
    (Alu::Sbb, M::Sbb),
    (Alu::And, M::And),
    (Alu::Sub, M::Sub),
    (Alu::Xor, M::Xor),
    (Alu::Cmp, M::Cmp),
];

#[test]
fn arithmetic_is_what_was_meant() {
    check(|m| {
        let ((op, mnemonic), size) = (m.pick(&ALU), m.size());
        let (to, from) = (m.reg(), m.rm());
        m.asm.alu(op, size, to, from);
        let args = [arg(to, size), arg(from, size)];
        (meant(mnemonic, &args, bytes_of(size)), size)
    });
    check(|m| {
        let ((op, mnemonic), size) = (m.pick(&ALU), m.size());
        let (to, from) = (m.mem(), m.reg());
        let lock = op != Alu::Cmp && m.below(2) == 0;
        if lock {
            m.asm.lock();
        }
        m.asm.alu_to(op, size, to, from);
        let args = [memory(to), arg(from, size)];
        let plain = meant(mnemonic, &args, bytes_of(size));
        (Meant { lock, ..plain }, size)
    });
    check(|m| {
        let ((op, mnemonic), size) = (m.pick(&ALU), m.size());
        let (to, value) = (m.rm(), m.imm());
        m.asm.alu_imm(op, size, to, value);
        let args = [arg(to, size), imm(value, size)];
        (meant(mnemonic, &args, bytes_of(size)), size)
    });
    check(|m| {
        let (size, a, b) = (m.size(), m.rm(), m.reg());
        m.asm.test(size, a, b);
        let args = [arg(a, size), arg(b, size)];
        (meant(M::Test, &args, bytes_of(size)), size)
    });
    check(|m| {
        let (size, a, value) = (m.size(), m.rm(), m.imm());
        m.asm.test_imm(size, a, value);
        let args = [arg(a, size), imm(value, size)];
        (meant(M::Test, &args, bytes_of(size)), size)
    });
}

#[test]
fn operations_on_one_register_are_what_was_meant() {
    check(|m| {
        let (size, to) = (m.size(), m.reg());
        m.asm.not(size, to);
        (meant(M::Not, &[arg(to, size)], 0), size)
    });
    check(|m| {
        let (size, to) = (m.size(), m.reg());
        m.asm.neg(size, to);
        (meant(M::Neg, &[arg(to, size)], 0), size)
    });
    check(|m| {
        let (size, to) = (m.size(), m.reg());
        let (up, mnemonic) = m.pick(&[(true, M::Inc), (false, M::Dec)]);
        m.asm.step(up, size, to);
        (meant(mnemonic, &[arg(to, size)], 0), size)
    });
    check(|m| {
        let (size, to) = (m.pick(&[Size::D, Size::Q]), m.reg());
        m.asm.bswap(size, to);
        (meant(M::Bswap, &[arg(to, size)], 0), size)
    });
}

#[test]
fn shifts_are_what_was_meant() {
    const SHIFTS: [(Shift, M); 5] = [
        (Shift::Rol, M::Rol),
        (Shift::Ror, M::Ror),
        (Shift::Shl, M::Shl),
        (Shift::Shr, M::Shr),
        (Shift::Sar, M::Sar),
    ];
    check(|m| {
        let ((op, mnemonic), size) = (m.pick(&SHIFTS), m.size());
        let (to, count) = (m.reg(), m.below(64) as u8);
        m.asm.shift_imm(op, size, to, count);
        let args = [arg(to, size), Arg::Imm(count.into())];
        (meant(mnemonic, &args, 0), Size::B)
    });
    check(|m| {
        let ((op, mnemonic), size) = (m.pick(&SHIFTS), m.size());
        let to = m.reg();
        m.asm.shift_cl(op, size, to);
        let args = [arg(to, size), arg(RCX, Size::B)];
        (meant(mnemonic, &args, 0), size)
    });
}

#[test]
fn products_and_quotients_are_what_was_meant() {
    check(|m| {
        let by = m.reg();
        let (signed, mnemonic) = m.pick(&[(false, M::Mul), (true, M::Imul)]);
        m.asm.mul(signed, by);
        (meant(mnemonic, &[arg(by, Size::Q)], 0), Size::Q)
    });
    check(|m| {
        let (size, by) = (m.size(), m.reg());
        let (signed, mnemonic) = m.pick(&[(false, M::Div), (true, M::Idiv)]);
        m.asm.div(size, signed, by);
        (meant(mnemonic, &[arg(by, size)], 0), size)
    });
    check(|m| {
        let (size, to, by) = (m.wide(), m.reg(), m.rm());
        m.asm.imul(size, to, by);
        let args = [arg(to, size), arg(by, size)];
        (meant(M::Imul, &args, bytes_of(size)), size)
    });
    check(|m| {
        let (size, value) = (m.pick(&[Size::D, Size::Q]), m.imm());
        let (to, from) = (m.reg(), m.rm());
        m.asm.imul_imm(size, to, from, value);
        let args = [arg(to, size), arg(from, size), imm(value, size)];
        (meant(M::Imul, &args, bytes_of(size)), size)
    });
}

#[test]
fn bits_are_looked_at_as_meant() {
    check(|m| {
        let (to, from) = (m.reg(), m.reg());
        let (reverse, mnemonic) = m.pick(&[(false, M::Bsf), (true, M::Bsr)]);
        m.asm.bit_scan(reverse, to, from);
        let args = [arg(to, Size::Q), arg(from, Size::Q)];
        (meant(mnemonic, &args, 0), Size::Q)
    });
    check(|m| {
        let (to, from) = (m.reg(), m.reg());
        m.asm.popcnt(to, from);
        let args = [arg(to, Size::Q), arg(from, Size::Q)];
        (meant(M::Popcnt, &args, 0), Size::Q)
    });
    check(|m| {
        let (of, bit) = (m.reg(), m.below(64) as u8);
        m.asm.bt_imm(of, bit);
        let args = [arg(of, Size::Q), Arg::Imm(bit.into())];
        (meant(M::Bt, &args, 0), Size::B)
    });
}

/// By number, as `accel_ir::Cond` and the opcodes have them.
const CONDITIONS: [(M, M, M); 16] = [
    (M::Jo, M::Seto, M::Cmovo),
    (M::Jno, M::Setno, M::Cmovno),
    (M::Jb, M::Setb, M::Cmovb),
    (M::Jae, M::Setae, M::Cmovae),
    (M::Je, M::Sete, M::Cmove),
    (M::Jne, M::Setne, M::Cmovne),
    (M::Jbe, M::Setbe, M::Cmovbe),
    (M::Ja, M::Seta, M::Cmova),
    (M::Js, M::Sets, M::Cmovs),
    (M::Jns, M::Setns, M::Cmovns),
    (M::Jp, M::Setp, M::Cmovp),
    (M::Jnp, M::Setnp, M::Cmovnp),
    (M::Jl, M::Setl, M::Cmovl),
    (M::Jge, M::Setge, M::Cmovge),
    (M::Jle, M::Setle, M::Cmovle),
    (M::Jg, M::Setg, M::Cmovg),
];

#[test]
fn bits_named_by_registers_are_changed_as_meant() {
    check(|m| {
        let (what, mnemonic) =
            m.pick(&[(Bit::Test, M::Bt), (Bit::Set, M::Bts), (Bit::Clear, M::Btr)]);
        let (of, number) = (m.reg(), m.reg());
        m.asm.bit(what, of, number);
        let args = [arg(of, Size::D), arg(number, Size::D)];
        (meant(mnemonic, &args, 0), Size::D)
    });
}

#[test]
fn conditions_are_those_of_the_numbers() {
    check(|m| {
        let (cc, to, from) = (m.below(16) as u8, m.reg(), m.rm());
        m.asm.cmov(cc, to, from);
        let (_, _, mnemonic) = CONDITIONS[usize::from(cc)];
        let args = [arg(to, Size::Q), arg(from, Size::Q)];
        (meant(mnemonic, &args, 8), Size::Q)
    });
    check(|m| {
        let (cc, to) = (m.below(16) as u8, m.reg());
        m.asm.setcc(cc, to);
        let (_, mnemonic, _) = CONDITIONS[usize::from(cc)];
        (meant(mnemonic, &[arg(to, Size::B)], 0), Size::B)
    });
    check(|m| {
        let (cc, at) = (m.below(16) as u8, m.below(1 << 24) as usize);
        m.asm.jcc_to(cc, at);
        let (mnemonic, _, _) = CONDITIONS[usize::from(cc)];
        (meant(mnemonic, &[Arg::To(at as u64)], 0), Size::Q)
    });
    for (cc, wanted) in [
        (CC_A, M::Ja),
        (CC_B, M::Jb),
        (CC_AE, M::Jae),
        (CC_BE, M::Jbe),
        (CC_E, M::Je),
        (CC_NE, M::Jne),
        (CC_S, M::Js),
    ] {
        assert_eq!(CONDITIONS[usize::from(cc)].0, wanted);
    }
}

#[test]
fn atomics_are_what_was_meant() {
    check(|m| {
        let (size, mem, reg) = (m.size(), m.mem(), m.reg());
        m.asm.xchg_mem(size, mem, reg);
        let args = [memory(mem), arg(reg, size)];
        (meant(M::Xchg, &args, bytes_of(size)), size)
    });
    for mnemonic in [M::Xadd, M::Cmpxchg] {
        check(|m| {
            let (size, mem, reg) = (m.size(), m.mem(), m.reg());
            let lock = m.below(2) == 0;
            if lock {
                m.asm.lock();
            }
            match mnemonic {
                M::Xadd => m.asm.xadd(size, mem, reg),
                _ => m.asm.cmpxchg(size, mem, reg),
            }
            let args = [memory(mem), arg(reg, size)];
            let plain = meant(mnemonic, &args, bytes_of(size));
            (Meant { lock, ..plain }, size)
        });
    }
}

#[test]
fn jumps_calls_and_returns_are_what_was_meant() {
    check(|m| {
        let at = m.below(1 << 24) as usize;
        m.asm.jmp_to(at);
        (meant(M::Jmp, &[Arg::To(at as u64)], 0), Size::Q)
    });
    check(|m| {
        let at = m.below(1 << 24) as usize;
        m.asm.call_to(at);
        (meant(M::Call, &[Arg::To(at as u64)], 0), Size::Q)
    });
    check(|m| {
        let reg = m.reg();
        m.asm.call_reg(reg);
        (meant(M::Call, &[arg(reg, Size::Q)], 0), Size::Q)
    });
    check(|m| {
        let to = m.rm();
        m.asm.call_rm(to);
        (meant(M::Call, &[arg(to, Size::Q)], 8), Size::Q)
    });
    check(|m| {
        let to = m.rm();
        m.asm.jmp_rm(to);
        (meant(M::Jmp, &[arg(to, Size::Q)], 8), Size::Q)
    });
    check(|m| {
        m.asm.ret();
        (meant(M::Ret, &[], 0), Size::Q)
    });
    check(|m| {
        let bytes = m.random() as u16;
        m.asm.ret_dropping(bytes);
        (meant(M::Ret, &[Arg::Imm(bytes.into())], 0), Size::W)
    });
}

#[test]
fn jumps_bound_later_go_where_they_were_bound_to() {
    fn make(asm: &mut Asm, mnemonic: M) -> Fix {
        match mnemonic {
            M::Jmp => asm.jmp(),
            M::Call => asm.call(),
            _ => asm.jcc(CC_S),
        }
    }
    for mnemonic in [M::Jmp, M::Call, M::Js] {
        check(|m| {
            let (fix, at) = (make(&mut m.asm, mnemonic), m.below(1 << 24) as usize);
            assert_eq!(m.asm.end_of(fix), m.asm.here());
            m.asm.bind_to(fix, at);
            (meant(mnemonic, &[Arg::To(at as u64)], 0), Size::Q)
        });
        // Forward, over what came since.
        let mut asm = Asm::new(ORIGIN);
        let fix = make(&mut asm, mnemonic);
        asm.flags_of = Some(1);
        asm.push_imm(7);
        asm.bind(fix);
        assert_eq!(asm.flags_of, None);
        let insn = Decoder::with_ip(64, &asm.code, ORIGIN as u64, DecoderOptions::NONE).decode();
        assert_eq!(insn.near_branch64(), asm.here() as u64);
    }
}

#[test]
fn flags_go_through_ah_as_meant() {
    let mut asm = Asm::new(ORIGIN);
    asm.lahf();
    asm.movzx_eax_ah();
    asm.flags_of = Some(1);
    asm.sahf_of_cl();
    assert_eq!(asm.flags_of, None);
    let text = crate::listing::listing(&asm.code, 0);
    let text: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(":  "))
        .collect();
    let text: Vec<_> = text.into_iter().map(|(_, insn)| insn).collect();
    assert_eq!(text, ["lahf", "movzx eax,ah", "mov ah,cl", "sahf"]);
}
