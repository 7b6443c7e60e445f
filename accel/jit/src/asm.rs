//! Encoder of x86-64 host instructions (Intel SDM vol. 2, chapter 2 and the opcode tables).
//!
//! Knows whether the host's flags still are those of the operation the compiler last named
//! ([`Asm::flags_of`]): every instruction that changes flags forgets it.

mod code;

pub(crate) use code::Code;
use code::{Bytes, one, two};

/// A general register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg(pub(crate) u8);

/// A vector register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Xmm(pub(crate) u8);

pub(crate) const RAX: Reg = Reg(0);
pub(crate) const RCX: Reg = Reg(1);
pub(crate) const RDX: Reg = Reg(2);
pub(crate) const RBX: Reg = Reg(3);
pub(crate) const RSP: Reg = Reg(4);
pub(crate) const RBP: Reg = Reg(5);
pub(crate) const RSI: Reg = Reg(6);
pub(crate) const RDI: Reg = Reg(7);
pub(crate) const R8: Reg = Reg(8);
pub(crate) const R9: Reg = Reg(9);
pub(crate) const R10: Reg = Reg(10);
pub(crate) const R11: Reg = Reg(11);
pub(crate) const R12: Reg = Reg(12);
pub(crate) const R13: Reg = Reg(13);
pub(crate) const R14: Reg = Reg(14);
pub(crate) const R15: Reg = Reg(15);

/// Width of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd)]
pub(crate) enum Size {
    B,
    W,
    D,
    Q,
}

/// A second operand: a register or memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rm {
    Reg(Reg),
    Xmm(Xmm),
    Mem(Mem),
}

impl Rm {
    /// Bits B and X of REX and VEX.
    fn extensions(self) -> (u8, u8) {
        match self {
            Rm::Reg(Reg(r)) | Rm::Xmm(Xmm(r)) => (r >> 3, 0),
            Rm::Mem(Mem::At { base, index, .. }) => {
                let (base, index) = (base.map_or(0, |r| r.0), index.map_or(0, |(r, _)| r.0));
                (base >> 3, index >> 3)
            }
            Rm::Mem(Mem::Code(_)) => (0, 0),
        }
    }
}

/// A memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mem {
    /// `[base + index << scale + disp]`.
    At {
        base: Option<Reg>,
        index: Option<(Reg, u8)>,
        disp: i32,
    },
    /// At this offset in the code memory.
    Code(i32),
}

impl Mem {
    pub(crate) fn base(base: Reg, disp: i32) -> Mem {
        Mem::At {
            base: Some(base),
            index: None,
            disp,
        }
    }

    /// So many bytes further on.
    pub(crate) fn after(self, bytes: i32) -> Mem {
        match self {
            Mem::At { base, index, disp } => Mem::At {
                base,
                index,
                disp: disp + bytes,
            },
            Mem::Code(at) => Mem::Code(at + bytes),
        }
    }
}

impl Size {
    /// An immediate of an operation of this size.
    fn imm(self, value: i32) -> Bytes {
        let len = match self {
            Size::B => 1,
            Size::W => 2,
            Size::D | Size::Q => 4,
        };
        Bytes::imm(value, len)
    }
}

impl From<Reg> for Rm {
    fn from(reg: Reg) -> Rm {
        Rm::Reg(reg)
    }
}

impl From<Xmm> for Rm {
    fn from(reg: Xmm) -> Rm {
        Rm::Xmm(reg)
    }
}

impl From<Mem> for Rm {
    fn from(mem: Mem) -> Rm {
        Rm::Mem(mem)
    }
}

/// Arithmetic of the first opcode row group: the number is the opcode's and ModRM's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Alu {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts of opcode group 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// What is done to a bit of 32: the second byte of the opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bit {
    Test = 0xa3,
    Set = 0xab,
    Clear = 0xb3,
}

/// Condition codes are numbered as in `accel_ir::Cond`.
pub(crate) type Cc = u8;
/// Neither carry nor zero.
pub(crate) const CC_A: Cc = 7;
/// Carry.
pub(crate) const CC_B: Cc = 2;
/// No carry.
pub(crate) const CC_AE: Cc = 3;
/// Carry or zero.
pub(crate) const CC_BE: Cc = 6;
/// Zero.
pub(crate) const CC_E: Cc = 4;
/// Not zero.
pub(crate) const CC_NE: Cc = 5;
/// Sign.
pub(crate) const CC_S: Cc = 8;

/// A jump whose target is not known yet: where its displacement stands.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Fix(usize);

/// Code in the making.
pub(crate) struct Asm {
    pub(crate) code: Code,
    /// Offset in the code memory that the first byte will have.
    pub(crate) origin: usize,
    /// The operation whose flags the host's flags are; the compiler's numbering.
    pub(crate) flags_of: Option<u32>,
}

/// What stands before ModRM.
#[derive(Clone, Copy)]
struct Op {
    prefix: Option<u8>,
    wide: bool,
    opcode: Bytes,
    /// The register operands are bytes: the low bytes of RSI and RDI need a REX prefix.
    bytes: bool,
}

/// An SSE instruction: mandatory prefix, opcode bytes after 0F.
fn sse_op(prefix: Option<u8>, opcode: &[u8], wide: bool) -> Op {
    let escape = one(0x0f);
    Op {
        prefix,
        wide,
        opcode: opcode.iter().fold(escape, |all, byte| all.and(one(*byte))),
        bytes: false,
    }
}

/// An opcode whose low bits are a register.
fn opcode_of(opcode: u8, reg: Reg) -> Bytes {
    let opcode = one(opcode | reg.0 & 7);
    match reg.0 >= 8 {
        true => one(0x41).and(opcode),
        false => opcode,
    }
}

impl Asm {
    pub(crate) fn new(origin: usize) -> Asm {
        Asm::reusing(Code::default(), origin)
    }

    /// To add code to a list.
    pub(crate) fn reusing(code: Code, origin: usize) -> Asm {
        Asm {
            code,
            origin,
            flags_of: None,
        }
    }

    /// Offset in the code memory of the next instruction.
    pub(crate) fn here(&self) -> usize {
        self.origin + self.code.len()
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.code.push(byte);
    }

    fn imm32(&mut self, value: i32) {
        self.put(Bytes::imm(value, 4));
    }

    fn put(&mut self, bytes: Bytes) {
        self.code.put(bytes);
    }

    /// An instruction without an immediate.
    fn emit(&mut self, op: Op, reg: u8, rm: Rm) {
        self.emit_with(op, reg, rm, Bytes::default());
    }

    /// An instruction: prefixes and opcode, ModRM and what belongs to it, an immediate.
    fn emit_with(&mut self, op: Op, reg: u8, rm: Rm, imm: Bytes) {
        let (b, x) = rm.extensions();
        let low_byte = op.bytes && (reg >= 4 || matches!(rm, Rm::Reg(r) if r.0 >= 4));
        let rex = u8::from(op.wide) << 3 | (reg >> 3) << 2 | x << 1 | b;
        let has_rex = rex != 0 || low_byte;
        let prefix = op.prefix.map_or(Bytes::default(), one);
        let rex = Bytes::of(u64::from(0x40 | rex) * u64::from(has_rex), has_rex.into());
        let head = prefix.and(rex).and(op.opcode);
        self.operands(head, reg, rm, imm);
    }

    /// What comes before ModRM, that, and what comes after it.
    fn operands(&mut self, head: Bytes, reg: u8, rm: Rm, imm: Bytes) {
        let here = self.here();
        let Some(room) = self.code.room_for(16) else {
            self.code.grow();
            return self.operands(head, reg, rm, imm);
        };
        let reg = (reg & 7) << 3;
        let (modrm, disp) = match rm {
            Rm::Reg(Reg(r)) | Rm::Xmm(Xmm(r)) => (one(0xc0 | reg | r & 7), Bytes::default()),
            Rm::Mem(Mem::Code(at)) => {
                let len = head.len + 1 + 4 + imm.len;
                let distance = at - (here as i32 + len as i32);
                (one(reg | 5), Bytes::imm(distance, 4))
            }
            Rm::Mem(Mem::At {
                base: None,
                index,
                disp,
            }) => {
                let (index, scale) = index.unwrap_or((RSP, 0));
                let sib = one(scale << 6 | (index.0 & 7) << 3 | 5);
                (one(reg | 4).and(sib), Bytes::imm(disp, 4))
            }
            Rm::Mem(Mem::At {
                base: Some(base),
                index,
                disp,
            }) => {
                // RBP and R13 as a base need a displacement.
                let (mode, len) = match disp {
                    0 if base.0 & 7 != 5 => (0, 0),
                    -128..=127 => (1, 1),
                    _ => (2, 4),
                };
                let base = base.0 & 7;
                // In place of RSP and R12 ModRM says that a SIB byte follows.
                let modrm = if index.is_some() || base == 4 {
                    let (index, scale) = index.unwrap_or((RSP, 0));
                    let sib = one(scale << 6 | (index.0 & 7) << 3 | base);
                    one(mode << 6 | reg | 4).and(sib)
                } else {
                    one(mode << 6 | reg | base)
                };
                (modrm, Bytes::imm(disp, len))
            }
        };
        let (head, tail) = (head.and(modrm), disp.and(imm));
        // Both of a fixed length are two stores. The first never has eight bytes.
        let split = head.len as usize & 7;
        if let Some(room) = room.first_chunk_mut() {
            *room = head.bits.to_le_bytes();
        }
        if let Some(room) = room.get_mut(split..).and_then(<[u8]>::first_chunk_mut) {
            *room = tail.bits.to_le_bytes();
        }
        self.code.len += split + tail.len as usize;
    }

    /// An instruction with operands of a size: `opcode` for more than bytes, one less for bytes.
    fn sized(&mut self, size: Size, opcode: u8, reg: u8, rm: Rm) {
        self.sized_with(size, opcode, reg, rm, Bytes::default());
    }

    /// As [`sized`](Self::sized) with an immediate.
    fn sized_with(&mut self, size: Size, opcode: u8, reg: u8, rm: Rm, imm: Bytes) {
        self.emit_with(
            Op {
                prefix: (size == Size::W).then_some(0x66),
                wide: size == Size::Q,
                opcode: one(opcode - u8::from(size == Size::B)),
                bytes: size == Size::B,
            },
            reg,
            rm,
            imm,
        );
    }

    // --- moves

    /// Loads or copies without extending: 32 bits clear the upper half, narrower ones keep the rest.
    pub(crate) fn mov(&mut self, size: Size, to: Reg, from: impl Into<Rm>) {
        self.sized(size, 0x8b, to.0, from.into());
    }

    /// Stores, or copies into the low part of a register.
    pub(crate) fn mov_to(&mut self, size: Size, to: impl Into<Rm>, from: Reg) {
        self.sized(size, 0x89, from.0, to.into());
    }

    /// Stores a constant; sign-extended for 64 bits.
    pub(crate) fn mov_imm_to(&mut self, size: Size, to: Mem, value: i32) {
        self.sized_with(size, 0xc7, 0, to.into(), size.imm(value));
    }

    /// A constant. Leaves the flags alone.
    pub(crate) fn mov_imm(&mut self, to: Reg, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            let imm = Bytes::imm(value as i32, 4);
            self.put(opcode_of(0xb8, to).and(imm));
        } else if i64::from(value as i32) as u64 == value {
            let imm = Bytes::imm(value as i32, 4);
            self.sized_with(Size::Q, 0xc7, 0, to.into(), imm);
        } else {
            self.put(one(0x48 | to.0 >> 3).and(one(0xb8 | to.0 & 7)));
            self.put(Bytes::of(value, 8));
        }
    }

    /// Loads or copies zero-extended to 64 bits.
    pub(crate) fn movzx(&mut self, from_size: Size, to: Reg, from: impl Into<Rm>) {
        let from = from.into();
        let opcode = match from_size {
            Size::B => two(0xb6),
            Size::W => two(0xb7),
            _ => return self.mov(from_size, to, from),
        };
        self.extend(opcode, from_size, false, to, from);
    }

    /// Loads or copies sign-extended to 32 (zero above) or 64 bits.
    pub(crate) fn movsx(&mut self, from_size: Size, to_size: Size, to: Reg, from: impl Into<Rm>) {
        let opcode = match from_size {
            Size::B => two(0xbe),
            Size::W => two(0xbf),
            Size::D => one(0x63),
            Size::Q => return self.mov(Size::Q, to, from),
        };
        self.extend(opcode, from_size, to_size == Size::Q, to, from.into());
    }

    fn extend(&mut self, opcode: Bytes, from_size: Size, wide: bool, to: Reg, from: Rm) {
        let low_byte = from_size == Size::B && matches!(from, Rm::Reg(r) if r.0 >= 4);
        self.emit(
            Op {
                prefix: None,
                wide,
                opcode,
                bytes: low_byte,
            },
            to.0,
            from,
        );
    }

    /// The address itself.
    pub(crate) fn lea(&mut self, size: Size, to: Reg, mem: Mem) {
        self.sized(size, 0x8d, to.0, mem.into());
    }

    pub(crate) fn push(&mut self, reg: Reg) {
        self.put(opcode_of(0x50, reg));
    }

    /// Pushes a constant, sign-extended.
    pub(crate) fn push_imm(&mut self, value: i32) {
        self.byte(0x68);
        self.imm32(value);
    }

    pub(crate) fn pop(&mut self, reg: Reg) {
        self.put(opcode_of(0x58, reg));
    }

    // --- arithmetic

    pub(crate) fn alu(&mut self, op: Alu, size: Size, to: Reg, from: impl Into<Rm>) {
        self.flags_of = None;
        self.sized(size, (op as u8) << 3 | 3, to.0, from.into());
    }

    pub(crate) fn alu_to(&mut self, op: Alu, size: Size, to: Mem, from: Reg) {
        self.flags_of = None;
        self.sized(size, (op as u8) << 3 | 1, from.0, to.into());
    }

    /// With a constant: sign-extended from 32 bits.
    pub(crate) fn alu_imm(&mut self, op: Alu, size: Size, to: impl Into<Rm>, value: i32) {
        self.flags_of = None;
        let is_short = size != Size::B && i32::from(value as i8) == value;
        let (opcode, imm) = match is_short {
            true => (0x83, Bytes::imm(value, 1)),
            false => (0x81, size.imm(value)),
        };
        self.sized_with(size, opcode, op as u8, to.into(), imm);
    }

    pub(crate) fn test(&mut self, size: Size, a: impl Into<Rm>, b: Reg) {
        self.flags_of = None;
        self.sized(size, 0x85, b.0, a.into());
    }

    pub(crate) fn test_imm(&mut self, size: Size, a: impl Into<Rm>, value: i32) {
        self.flags_of = None;
        self.sized_with(size, 0xf7, 0, a.into(), size.imm(value));
    }

    pub(crate) fn shift_imm(&mut self, op: Shift, size: Size, to: Reg, count: u8) {
        self.flags_of = None;
        self.sized_with(size, 0xc1, op as u8, to.into(), one(count));
    }

    /// By CL.
    pub(crate) fn shift_cl(&mut self, op: Shift, size: Size, to: Reg) {
        self.flags_of = None;
        self.sized(size, 0xd3, op as u8, to.into());
    }

    pub(crate) fn not(&mut self, size: Size, to: Reg) {
        self.sized(size, 0xf7, 2, to.into());
    }

    pub(crate) fn neg(&mut self, size: Size, to: Reg) {
        self.flags_of = None;
        self.sized(size, 0xf7, 3, to.into());
    }

    /// RDX:RAX = RAX * `by`.
    pub(crate) fn mul(&mut self, signed: bool, by: Reg) {
        self.flags_of = None;
        self.sized(Size::Q, 0xf7, if signed { 5 } else { 4 }, by.into());
    }

    /// RAX, RDX = quotient and remainder of RDX:RAX. Traps if the quotient does not fit.
    pub(crate) fn div(&mut self, size: Size, signed: bool, by: Reg) {
        self.flags_of = None;
        self.sized(size, 0xf7, if signed { 7 } else { 6 }, by.into());
    }

    pub(crate) fn imul(&mut self, size: Size, to: Reg, by: impl Into<Rm>) {
        self.flags_of = None;
        self.two_byte(size, 0xaf, to, by.into());
    }

    pub(crate) fn imul_imm(&mut self, size: Size, to: Reg, from: impl Into<Rm>, value: i32) {
        self.flags_of = None;
        if i32::from(value as i8) == value {
            let imm = Bytes::imm(value, 1);
            self.sized_with(size, 0x6b, to.0, from.into(), imm);
        } else {
            let imm = Bytes::imm(value, 4);
            self.sized_with(size, 0x69, to.0, from.into(), imm);
        }
    }

    fn two_byte(&mut self, size: Size, opcode: u8, reg: Reg, rm: Rm) {
        self.emit(
            Op {
                prefix: (size == Size::W).then_some(0x66),
                wide: size == Size::Q,
                opcode: two(opcode),
                bytes: false,
            },
            reg.0,
            rm,
        );
    }

    pub(crate) fn cmov(&mut self, cc: Cc, to: Reg, from: impl Into<Rm>) {
        self.two_byte(Size::Q, 0x40 | cc, to, from.into());
    }

    /// Sets the low byte to 0 or 1.
    pub(crate) fn setcc(&mut self, cc: Cc, to: Reg) {
        self.emit(
            Op {
                prefix: None,
                wide: false,
                opcode: two(0x90 | cc),
                bytes: true,
            },
            0,
            to.into(),
        );
    }

    pub(crate) fn bswap(&mut self, size: Size, to: Reg) {
        let rex = u8::from(size == Size::Q) << 3 | to.0 >> 3;
        if rex != 0 {
            self.byte(0x40 | rex);
        }
        self.byte(0x0f);
        self.byte(0xc8 | to.0 & 7);
    }

    /// Bit scan forward (`0xbc`), reverse (`0xbd`); undefined for zero.
    pub(crate) fn bit_scan(&mut self, reverse: bool, to: Reg, from: Reg) {
        self.flags_of = None;
        self.two_byte(Size::Q, 0xbc | u8::from(reverse), to, from.into());
    }

    /// Needs the host's POPCNT.
    pub(crate) fn popcnt(&mut self, to: Reg, from: Reg) {
        self.flags_of = None;
        self.byte(0xf3);
        self.two_byte(Size::Q, 0xb8, to, from.into());
    }

    /// Bit `bit` of `of` into the carry flag.
    pub(crate) fn bt_imm(&mut self, of: Reg, bit: u8) {
        self.flags_of = None;
        self.emit_with(
            Op {
                prefix: None,
                wide: true,
                opcode: two(0xba),
                bytes: false,
            },
            4,
            of.into(),
            one(bit),
        );
    }

    /// Adds or takes off one, and leaves the carry flag.
    pub(crate) fn step(&mut self, up: bool, size: Size, reg: Reg) {
        self.flags_of = None;
        self.sized(size, 0xff, u8::from(!up), reg.into());
    }

    /// Flags but OF into AH.
    pub(crate) fn lahf(&mut self) {
        self.byte(0x9f);
    }

    /// `mov ah, cl`, and AH into the flags but OF.
    pub(crate) fn sahf_of_cl(&mut self) {
        self.flags_of = None;
        self.code.extend_from_slice(&[0x88, 0xcc, 0x9e]);
    }

    /// `movzx eax, ah`.
    pub(crate) fn movzx_eax_ah(&mut self) {
        self.code.extend_from_slice(&[0x0f, 0xb6, 0xc4]);
    }

    // --- atomics

    /// The prefix that makes the next instruction atomic for other CPUs, and a fence.
    pub(crate) fn lock(&mut self) {
        self.byte(0xf0);
    }

    /// `xchg [mem], reg`, which locks by itself.
    pub(crate) fn xchg_mem(&mut self, size: Size, mem: Mem, reg: Reg) {
        self.sized(size, 0x87, reg.0, mem.into());
    }

    pub(crate) fn xadd(&mut self, size: Size, mem: Mem, reg: Reg) {
        self.exchange(size, 0xc1, mem, reg);
    }

    /// Compares with RAX, which gets the old value.
    pub(crate) fn cmpxchg(&mut self, size: Size, mem: Mem, reg: Reg) {
        self.exchange(size, 0xb1, mem, reg);
    }

    fn exchange(&mut self, size: Size, opcode: u8, mem: Mem, reg: Reg) {
        self.flags_of = None;
        self.emit(
            Op {
                prefix: (size == Size::W).then_some(0x66),
                wide: size == Size::Q,
                opcode: two(opcode - u8::from(size == Size::B)),
                bytes: size == Size::B,
            },
            reg.0,
            mem.into(),
        );
    }

    // --- control

    /// A jump forward on a condition.
    pub(crate) fn jcc(&mut self, cc: Cc) -> Fix {
        self.put(two(0x80 | cc).and(Bytes::of(0, 4)));
        Fix(self.code.len())
    }

    /// A jump forward.
    pub(crate) fn jmp(&mut self) -> Fix {
        self.put(Bytes::of(0xe9, 5));
        Fix(self.code.len())
    }

    /// A call whose target is bound or patched later.
    pub(crate) fn call(&mut self) -> Fix {
        self.put(Bytes::of(0xe8, 5));
        Fix(self.code.len())
    }

    /// Offset in the code memory behind a jump's displacement.
    pub(crate) fn end_of(&self, fix: Fix) -> usize {
        self.origin + fix.0
    }

    /// Makes a jump go here.
    pub(crate) fn bind(&mut self, fix: Fix) {
        self.flags_of = None;
        let at = self.code.len();
        let distance = (at - fix.0) as i32;
        self.code[fix.0 - 4..fix.0].copy_from_slice(&distance.to_le_bytes());
    }

    /// Has a jump go to an offset in the code memory.
    pub(crate) fn bind_to(&mut self, fix: Fix, at: usize) {
        let end = self.end_of(fix);
        let distance = (at as i64 - end as i64) as i32;
        let start = end - self.origin - 4;
        if let Some(place) = self.code.get_mut(start..start + 4) {
            place.copy_from_slice(&distance.to_le_bytes());
        }
    }

    /// The displacement that the last instruction ends with.
    pub(crate) fn last_disp(&self) -> Fix {
        Fix(self.code.len())
    }

    /// An entry of a table: a PC, and the distance to where its jump goes from behind that.
    pub(crate) fn far_entry(&mut self, pc: u64) -> Fix {
        self.put(Bytes::of(pc, 8));
        self.imm32(0);
        let fix = Fix(self.code.len());
        self.imm32(0);
        fix
    }

    /// An instruction that goes to an offset in the code memory.
    fn to(&mut self, opcode: Bytes, at: usize) {
        let next = self.here() as i64 + i64::from(opcode.len) + 4;
        let distance = (at as i64 - next) as i32;
        self.put(opcode.and(Bytes::imm(distance, 4)));
    }

    /// Jumps to an offset in the code memory.
    pub(crate) fn jmp_to(&mut self, at: usize) {
        self.to(one(0xe9), at);
    }

    /// Jumps to an offset in the code memory on a condition.
    pub(crate) fn jcc_to(&mut self, cc: Cc, at: usize) {
        self.to(two(0x80 | cc), at);
    }

    /// Calls an offset in the code memory.
    pub(crate) fn call_to(&mut self, at: usize) {
        self.to(one(0xe8), at);
        self.flags_of = None;
    }

    pub(crate) fn call_reg(&mut self, reg: Reg) {
        self.sized(Size::D, 0xff, 2, reg.into());
        self.flags_of = None;
    }

    pub(crate) fn jmp_rm(&mut self, to: impl Into<Rm>) {
        self.sized(Size::D, 0xff, 4, to.into());
    }

    /// Calls what a register or a cell of memory points to.
    pub(crate) fn call_rm(&mut self, to: impl Into<Rm>) {
        self.sized(Size::D, 0xff, 2, to.into());
    }

    pub(crate) fn ret(&mut self) {
        self.byte(0xc3);
    }

    /// Returns, and drops these bytes of arguments.
    pub(crate) fn ret_dropping(&mut self, bytes: u16) {
        self.byte(0xc2);
        self.code.extend_from_slice(&bytes.to_le_bytes());
    }

    /// Puts a bit, whose number is in a register, into the carry flag, and changes it.
    pub(crate) fn bit(&mut self, what: Bit, of: Reg, number: Reg) {
        self.flags_of = None;
        self.emit(
            Op {
                prefix: None,
                wide: false,
                opcode: two(what as u8),
                bytes: false,
            },
            number.0,
            of.into(),
        );
    }

    /// An x87 instruction with a memory operand: opcode and the digit in ModRM.
    pub(crate) fn fpu(&mut self, opcode: u8, digit: u8, mem: Mem) {
        self.emit(
            Op {
                prefix: None,
                wide: false,
                opcode: one(opcode),
                bytes: false,
            },
            digit,
            mem.into(),
        );
    }

    // --- vectors

    /// An SSE instruction: mandatory prefix, opcode bytes after 0F.
    pub(crate) fn sse(&mut self, prefix: Option<u8>, opcode: &[u8], reg: Xmm, rm: impl Into<Rm>) {
        self.sse_wide(prefix, opcode, false, reg.0, rm.into());
    }

    /// A comparison of the lowest lanes, which changes the flags.
    pub(crate) fn compare(&mut self, prefix: Option<u8>, opcode: u8, a: Xmm, b: impl Into<Rm>) {
        self.flags_of = None;
        self.sse(prefix, &[opcode], a, b);
    }

    /// As [`sse`](Self::sse) with an immediate byte.
    pub(crate) fn sse_imm(
        &mut self,
        prefix: Option<u8>,
        opcode: &[u8],
        reg: Xmm,
        rm: impl Into<Rm>,
        imm: u8,
    ) {
        let op = sse_op(prefix, opcode, false);
        self.emit_with(op, reg.0, rm.into(), one(imm));
    }

    fn sse_wide(&mut self, prefix: Option<u8>, opcode: &[u8], wide: bool, reg: u8, rm: Rm) {
        self.emit(sse_op(prefix, opcode, wide), reg, rm);
    }

    /// An SSE instruction between a general register (`reg`) and `rm`.
    pub(crate) fn sse_reg(
        &mut self,
        prefix: Option<u8>,
        opcode: u8,
        size: Size,
        reg: u8,
        rm: impl Into<Rm>,
    ) {
        self.sse_wide(prefix, &[opcode], size == Size::Q, reg, rm.into());
    }

    /// An instruction of FMA on 128 bits: `to` is changed by `factor * with`.
    pub(crate) fn fused(
        &mut self,
        opcode: u8,
        double: bool,
        to: Xmm,
        factor: Xmm,
        with: impl Into<Rm>,
    ) {
        let rm = with.into();
        let (b, x) = rm.extensions();
        // VEX: the extensions and the factor inverted; map 0F38; prefix 66.
        let head = one(0xc4)
            .and(one((!(to.0 >> 3 << 7 | x << 6 | b << 5) & 0xe0) | 2))
            .and(one(u8::from(double) << 7 | (!factor.0 & 15) << 3 | 1))
            .and(one(opcode));
        self.operands(head, to.0, rm, Bytes::default());
    }

    /// Unaligned 16 bytes.
    pub(crate) fn movups(&mut self, to: Xmm, from: Mem) {
        self.sse(None, &[0x10], to, from);
    }

    /// Unaligned 16 bytes.
    pub(crate) fn movups_to(&mut self, to: Mem, from: Xmm) {
        self.sse(None, &[0x11], from, to);
    }

    pub(crate) fn movaps(&mut self, to: Xmm, from: Xmm) {
        if to != from {
            self.sse(None, &[0x28], to, from);
        }
    }

    /// `movd`/`movq xmm, r`: clears the rest.
    pub(crate) fn movq_to_xmm(&mut self, to: Xmm, from: impl Into<Rm>, size: Size) {
        self.sse_wide(Some(0x66), &[0x6e], size == Size::Q, to.0, from.into());
    }

    /// `movd`/`movq r, xmm`.
    pub(crate) fn movq_from_xmm(&mut self, to: impl Into<Rm>, from: Xmm, size: Size) {
        self.sse_wide(Some(0x66), &[0x7e], size == Size::Q, from.0, to.into());
    }

    /// `ldmxcsr` (2), `stmxcsr` (3).
    pub(crate) fn mxcsr(&mut self, store: bool, mem: Mem) {
        self.emit(
            Op {
                prefix: None,
                wide: false,
                opcode: two(0xae),
                bytes: false,
            },
            if store { 3 } else { 2 },
            mem.into(),
        );
    }
}

#[cfg(test)]
mod tests;
