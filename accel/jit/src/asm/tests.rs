//! What the encoder writes against an independent decoder: every form, with random operands.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register, RflagsBits};

use super::*;

mod forms;
mod vectors;

/// Where code is pretended to lie.
const ORIGIN: usize = 0x10_0000;
/// Times that each form is made.
const TIMES: usize = 400;

/// An operand, as it was meant and as the decoder reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arg {
    Reg(Register),
    Mem {
        base: Register,
        index: Register,
        scale: u32,
        disp: u64,
    },
    /// Cut to the operation's width.
    Imm(u64),
    To(u64),
}

/// An instruction as it was meant.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Meant {
    mnemonic: Mnemonic,
    args: Vec<Arg>,
    /// Bytes of the operand in memory, where there is one.
    bytes: usize,
    lock: bool,
}

/// Makes random operands, and code of them.
struct Maker {
    state: u64,
    asm: Asm,
}

impl Maker {
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random() % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn reg(&mut self) -> Reg {
        Reg(self.below(16) as u8)
    }

    fn xmm(&mut self) -> Xmm {
        Xmm(self.below(16) as u8)
    }

    fn size(&mut self) -> Size {
        self.pick(&[Size::B, Size::W, Size::D, Size::Q])
    }

    /// Any but a byte.
    fn wide(&mut self) -> Size {
        self.pick(&[Size::W, Size::D, Size::Q])
    }

    /// About every length a constant can have.
    fn imm(&mut self) -> i32 {
        let any = self.random() as i32;
        match self.below(4) {
            0 => any,
            1 => self.pick(&[0, 1, -1, 127, 128, -128, -129, i32::MIN, i32::MAX]),
            2 => any >> 24,
            _ => any >> 16,
        }
    }

    fn mem(&mut self) -> Mem {
        if self.below(8) == 0 {
            return Mem::Code(self.below(1 << 24) as i32);
        }
        // RSP is no index: its number says that there is none.
        let index = self.reg();
        let scale = self.below(4) as u8;
        Mem::At {
            base: (self.below(6) != 0).then(|| self.reg()),
            index: (index != RSP && self.below(2) == 0).then_some((index, scale)),
            disp: self.imm(),
        }
    }

    fn rm(&mut self) -> Rm {
        match self.below(2) {
            0 => self.reg().into(),
            _ => self.mem().into(),
        }
    }

    fn xmm_rm(&mut self) -> Rm {
        match self.below(2) {
            0 => self.xmm().into(),
            _ => self.mem().into(),
        }
    }
}

fn bytes_of(size: Size) -> usize {
    match size {
        Size::B => 1,
        Size::W => 2,
        Size::D => 4,
        Size::Q => 8,
    }
}

/// The register's name at a size.
fn name(reg: Reg, size: Size) -> Register {
    let first = match size {
        // With a REX prefix: SPL to DIL instead of AH to BH.
        Size::B if reg.0 >= 4 => return Register::SPL + u32::from(reg.0 - 4),
        Size::B => Register::AL,
        Size::W => Register::AX,
        Size::D => Register::EAX,
        Size::Q => Register::RAX,
    };
    first + u32::from(reg.0)
}

fn vector(reg: Xmm) -> Register {
    Register::XMM0 + u32::from(reg.0)
}

fn memory(mem: Mem) -> Arg {
    match mem {
        Mem::Code(at) => Arg::Mem {
            base: Register::RIP,
            index: Register::None,
            scale: 1,
            disp: at as u64,
        },
        Mem::At { base, index, disp } => Arg::Mem {
            base: base.map_or(Register::None, |r| name(r, Size::Q)),
            index: index.map_or(Register::None, |(r, _)| name(r, Size::Q)),
            scale: index.map_or(1, |(_, scale)| 1 << scale),
            disp: i64::from(disp) as u64,
        },
    }
}

fn arg(rm: impl Into<Rm>, size: Size) -> Arg {
    match rm.into() {
        Rm::Reg(reg) => Arg::Reg(name(reg, size)),
        Rm::Xmm(reg) => Arg::Reg(vector(reg)),
        Rm::Mem(mem) => memory(mem),
    }
}

fn imm(value: i32, size: Size) -> Arg {
    Arg::Imm(cut(i64::from(value) as u64, bytes_of(size)))
}

fn cut(value: u64, bytes: usize) -> u64 {
    value & (u64::MAX >> (64 - 8 * bytes))
}

fn meant(mnemonic: Mnemonic, args: &[Arg], bytes: usize) -> Meant {
    let has_memory = args.iter().any(|arg| matches!(arg, Arg::Mem { .. }));
    Meant {
        mnemonic,
        args: args.to_vec(),
        bytes: if has_memory { bytes } else { 0 },
        lock: false,
    }
}

/// What the decoder reads; constants cut to this many bytes.
fn read(insn: &Instruction, constants: usize) -> Meant {
    let args = (0..insn.op_count()).map(|i| match insn.op_kind(i) {
        OpKind::Register => Arg::Reg(insn.op_register(i)),
        OpKind::Memory => Arg::Mem {
            base: insn.memory_base(),
            index: insn.memory_index(),
            scale: insn.memory_index_scale(),
            disp: insn.memory_displacement64(),
        },
        OpKind::NearBranch64 => Arg::To(insn.near_branch64()),
        _ => Arg::Imm(cut(insn.immediate(i), constants)),
    });
    let has_memory = insn.op_kinds().any(|kind| kind == OpKind::Memory);
    Meant {
        mnemonic: insn.mnemonic(),
        args: args.collect(),
        bytes: if has_memory {
            insn.memory_size().size()
        } else {
            0
        },
        lock: insn.has_lock_prefix(),
    }
}

/// Makes a form many times. It says what it meant and how wide its constants are.
fn check(form: impl Fn(&mut Maker) -> (Meant, Size)) {
    let mut maker = Maker {
        state: 0x9e37_79b9_7f4a_7c15,
        asm: Asm::new(ORIGIN),
    };
    for _ in 0..TIMES {
        maker.asm = Asm::new(ORIGIN);
        maker.asm.flags_of = Some(1);
        let (wanted, constants) = form(&mut maker);
        let code: &[u8] = &maker.asm.code;
        let mut decoder = Decoder::with_ip(64, code, ORIGIN as u64, DecoderOptions::NONE);
        let insn = decoder.decode();
        assert_eq!(
            read(&insn, bytes_of(constants)),
            wanted,
            "{code:02x?} {insn:?}"
        );
        assert_eq!(insn.len(), code.len(), "{code:02x?} after {wanted:?}");
        // Whoever reads flags relies on those of an operation being forgotten when they go.
        // The x87's condition codes are not among them.
        let codes = RflagsBits::C0 | RflagsBits::C1 | RflagsBits::C2 | RflagsBits::C3;
        let changes_flags = insn.rflags_modified() & !codes != 0;
        assert!(
            !changes_flags || maker.asm.flags_of.is_none(),
            "{wanted:?} changes flags"
        );
    }
}
