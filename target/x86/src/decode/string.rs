//! String instructions (SDM vol. 1, 5.1.8, 7.3.9).
//!
//! One iteration is plain IR. With a repeat prefix a helper does up to a page of iterations: the
//! state is committed per iteration, so it can stop anywhere, and the unit goes to the same
//! instruction again while iterations are left.

use accel_core::{Access, Fast, Trap};
use accel_ir::{FlagKind, Ty, Val};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::check::{self, check_segment, segment_of, set_flags_of_sub};
use super::context::{Ctx, segment_number};
use super::mode::Mode;
use crate::Core;
use crate::regs::index::{RAX, RCX, RDI, RDX, RSI};
use crate::regs::{self, rflags};
use crate::state::SegmentIndex;
use crate::system::calls;

/// What a string instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Movs,
    Cmps,
    Stos,
    Lods,
    Scas,
    Ins,
    Outs,
}

/// Most bytes per helper call.
const CHUNK: u64 = 4096;

fn kind_of(insn: &Instruction) -> Option<(Kind, u32)> {
    Some(match insn.mnemonic() {
        Mnemonic::Movsb => (Kind::Movs, 1),
        Mnemonic::Movsw => (Kind::Movs, 2),
        Mnemonic::Movsd => (Kind::Movs, 4),
        Mnemonic::Movsq => (Kind::Movs, 8),
        Mnemonic::Cmpsb => (Kind::Cmps, 1),
        Mnemonic::Cmpsw => (Kind::Cmps, 2),
        Mnemonic::Cmpsd => (Kind::Cmps, 4),
        Mnemonic::Cmpsq => (Kind::Cmps, 8),
        Mnemonic::Stosb => (Kind::Stos, 1),
        Mnemonic::Stosw => (Kind::Stos, 2),
        Mnemonic::Stosd => (Kind::Stos, 4),
        Mnemonic::Stosq => (Kind::Stos, 8),
        Mnemonic::Lodsb => (Kind::Lods, 1),
        Mnemonic::Lodsw => (Kind::Lods, 2),
        Mnemonic::Lodsd => (Kind::Lods, 4),
        Mnemonic::Lodsq => (Kind::Lods, 8),
        Mnemonic::Scasb => (Kind::Scas, 1),
        Mnemonic::Scasw => (Kind::Scas, 2),
        Mnemonic::Scasd => (Kind::Scas, 4),
        Mnemonic::Scasq => (Kind::Scas, 8),
        Mnemonic::Insb => (Kind::Ins, 1),
        Mnemonic::Insw => (Kind::Ins, 2),
        Mnemonic::Insd => (Kind::Ins, 4),
        Mnemonic::Outsb => (Kind::Outs, 1),
        Mnemonic::Outsw => (Kind::Outs, 2),
        Mnemonic::Outsd => (Kind::Outs, 4),
        _ => return None,
    })
}

/// Address size by the implied operands; `None` for the SSE instructions of the same names.
fn address_ty(insn: &Instruction) -> Option<Ty> {
    insn.op_kinds().find_map(|kind| match kind {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => Some(Ty::I16),
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => Some(Ty::I32),
        OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => Some(Ty::I64),
        _ => None,
    })
}

/// Translates one of them; false if it is another instruction.
pub(super) fn translate(c: &mut Ctx<'_>) -> bool {
    let (Some((kind, size)), Some(address)) = (kind_of(&c.insn), address_ty(&c.insn)) else {
        return false;
    };
    let segment = match kind {
        Kind::Movs | Kind::Cmps | Kind::Lods | Kind::Outs => {
            segment_number(match c.insn.memory_segment() {
                Register::None => Register::DS,
                segment => segment,
            })
        }
        Kind::Stos | Kind::Scas | Kind::Ins => SegmentIndex::Ds,
    };
    let rep = c.insn.has_repe_prefix() || c.insn.has_repne_prefix();
    // Ports go through the helper in any case.
    if rep || matches!(kind, Kind::Ins | Kind::Outs) {
        let what = Operation {
            kind,
            size,
            address: address.bytes(),
            segment,
            until_equal: c.insn.has_repne_prefix(),
            repeat: rep,
        };
        repeated(c, what);
    } else {
        once(c, kind, Ty::of_bytes(size), address, segment);
    }
    true
}

/// Everything the helper has to know.
#[derive(Clone, Copy)]
struct Operation {
    kind: Kind,
    size: u32,
    address: u8,
    segment: SegmentIndex,
    until_equal: bool,
    repeat: bool,
}

impl Operation {
    fn pack(self) -> u64 {
        self.kind as u64
            | u64::from(self.size) << 8
            | u64::from(self.address) << 16
            | (self.segment as u64) << 24
            | u64::from(self.until_equal) << 32
            | u64::from(self.repeat) << 33
    }

    fn unpack(bits: u64) -> Self {
        let kind = match bits & 0xff {
            0 => Kind::Movs,
            1 => Kind::Cmps,
            2 => Kind::Stos,
            3 => Kind::Lods,
            4 => Kind::Scas,
            5 => Kind::Ins,
            _ => Kind::Outs,
        };
        Operation {
            kind,
            size: (bits >> 8) as u32 & 0xff,
            address: (bits >> 16) as u8,
            segment: segment_of(bits >> 24 & 0xff),
            until_equal: bits >> 32 & 1 != 0,
            repeat: bits >> 33 & 1 != 0,
        }
    }
}

fn repeated(c: &mut Ctx<'_>, what: Operation) {
    let more = c.call_consts(check::REPEAT, &[what.pack()]);
    if !what.repeat {
        c.b.goto(c.next);
        return;
    }
    let (again, done) = (c.b.block(), c.b.block());
    c.b.branch(more, again, done);
    c.b.switch(again);
    c.b.goto(c.pc);
    c.b.switch(done);
    c.b.goto(c.next);
}

/// Linear address at an index register.
fn at(c: &mut Ctx<'_>, n: usize, address: Ty, segment: SegmentIndex, ty: Ty, write: bool) -> Val {
    let offset = c.reg(n, address);
    let offset = c.b.zext(offset, Ty::I64);
    c.linear(segment, offset, ty.bytes().into(), write)
}

/// Moves an index register on, as DF says.
fn advance(c: &mut Ctx<'_>, n: usize, address: Ty, delta: Val) {
    let old = c.reg(n, address);
    let delta = c.b.zext(delta, address);
    let new = c.b.add(old, delta);
    c.set_reg(n, new);
}

fn once(c: &mut Ctx<'_>, kind: Kind, ty: Ty, address: Ty, segment: SegmentIndex) {
    let size = u64::from(ty.bytes());
    let (mut source, mut target) = (false, false);
    let mut compared = None;
    let mut loaded = None;
    match kind {
        Kind::Movs => {
            let from = at(c, RSI, address, segment, ty, false);
            let v = c.load(from, ty);
            let to = at(c, RDI, address, SegmentIndex::Es, ty, true);
            c.store(to, v);
            (source, target) = (true, true);
        }
        Kind::Cmps => {
            // As AMD's processors do: the second operand is read first.
            let to = at(c, RDI, address, SegmentIndex::Es, ty, false);
            let b = c.load(to, ty);
            let from = at(c, RSI, address, segment, ty, false);
            let a = c.load(from, ty);
            compared = Some((a, b));
            (source, target) = (true, true);
        }
        Kind::Stos => {
            let v = c.reg(RAX, ty);
            let to = at(c, RDI, address, SegmentIndex::Es, ty, true);
            c.store(to, v);
            target = true;
        }
        Kind::Scas => {
            let a = c.reg(RAX, ty);
            let to = at(c, RDI, address, SegmentIndex::Es, ty, false);
            let b = c.load(to, ty);
            compared = Some((a, b));
            target = true;
        }
        Kind::Lods | Kind::Ins | Kind::Outs => {
            let from = at(c, RSI, address, segment, ty, false);
            loaded = Some(c.load(from, ty));
            source = true;
        }
    }
    if let Some((a, b)) = compared {
        c.b.flags_def(FlagKind::Sub, a, b, None);
    }
    let flags = c.b.get(regs::RFLAGS);
    let down = c.b.extract(flags, 10, 1, Ty::I64);
    let twice =
        c.b.shl_const(down, u64::from(size.trailing_zeros()).wrapping_add(1));
    let up = c.const64(size);
    let delta = c.b.sub(up, twice);
    if source {
        advance(c, RSI, address, delta);
    }
    if target {
        advance(c, RDI, address, delta);
    }
    if let Some(v) = loaded {
        c.set_reg(RAX, v);
    }
}

/// A run of iterations in progress.
struct Run {
    what: Operation,
    mode: Mode,
    size: u64,
    /// Mask of addresses and of the count.
    mask: u64,
    /// Added to the index registers per iteration.
    delta: u64,
    /// Iterations to do, at most.
    count: u64,
    /// Iterations done.
    done: u64,
    source: u64,
    target: u64,
    /// Last operands compared.
    compared: Option<(u64, u64)>,
    /// Last value loaded.
    loaded: Option<u64>,
    /// A comparison ended the run.
    ended: bool,
}

/// The helper: does iterations until the count, a comparison, a page or a fault ends them.
pub(super) fn repeat(core: &mut Core, [bits, ..]: [u64; 4]) -> Result<u64, Trap> {
    let what = Operation::unpack(bits);
    let mask = Ty::of_bytes(what.address.into()).mask();
    let get = |core: &Core, n| core.regs.get(regs::gpr(n)) & mask;
    let left = if what.repeat { get(core, RCX) } else { 1 };
    if left == 0 {
        return Ok(0);
    }
    let flags = core.regs.get(regs::RFLAGS);
    let size = u64::from(what.size);
    let most = if flags & rflags::TF != 0 {
        1
    } else {
        CHUNK.checked_div(size).unwrap_or(1)
    };
    let mut run = Run {
        what,
        mode: Mode(core.mode),
        size,
        mask,
        delta: if flags & rflags::DF != 0 {
            size.wrapping_neg()
        } else {
            size
        },
        count: left.min(most),
        done: 0,
        source: get(core, RSI),
        target: get(core, RDI),
        compared: None,
        loaded: None,
        ended: false,
    };
    let result = run.all(core);
    run.commit(core, left);
    result?;
    let rest = left.wrapping_sub(run.done);
    Ok(u64::from(rest != 0 && !run.ended))
}

impl Run {
    fn all(&mut self, core: &mut Core) -> Result<(), Trap> {
        while self.done < self.count && !self.ended {
            let before = self.done;
            self.one(core)?;
            if self.done < self.count && matches!(self.what.kind, Kind::Movs | Kind::Stos) {
                self.bulk(core)?;
            }
            // A store into the code that runs: leave as soon as the iteration is done.
            if core.code_hit && self.done > before {
                break;
            }
        }
        Ok(())
    }

    fn linear(&self, core: &mut Core, target: bool, write: bool) -> Result<u64, Trap> {
        let (segment, offset) = if target {
            (SegmentIndex::Es, self.target)
        } else {
            (self.what.segment, self.source)
        };
        let special = matches!(segment, SegmentIndex::Fs | SegmentIndex::Gs);
        let base = core.regs.get(regs::base(segment as usize));
        if self.mode.is_64() {
            let base = if special { base } else { 0 };
            return Ok(base.wrapping_add(offset));
        }
        if special || !self.mode.is_flat() {
            check_segment(core, segment, offset, self.size, write)?;
        }
        Ok(base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// One iteration. Changes nothing if it faults.
    fn one(&mut self, core: &mut Core) -> Result<(), Trap> {
        let ctx = self.mode.data_ctx();
        let size = self.size as u8;
        let mask = Ty::of_bytes(self.what.size).mask();
        let (mut source, mut target) = (false, false);
        match self.what.kind {
            Kind::Movs => {
                let from = self.linear(core, false, false)?;
                let value = core.load(from, size, ctx)?;
                let to = self.linear(core, true, true)?;
                core.store(to, size, value, ctx)?;
                (source, target) = (true, true);
            }
            Kind::Stos => {
                let to = self.linear(core, true, true)?;
                let value = core.regs.get(regs::gpr(RAX));
                core.store(to, size, value & mask, ctx)?;
                target = true;
            }
            Kind::Lods => {
                let from = self.linear(core, false, false)?;
                self.loaded = Some(core.load(from, size, ctx)?);
                source = true;
            }
            Kind::Cmps => {
                // The order matters when both fault. As AMD's processors do, again.
                let first = self.what.repeat && !self.what.until_equal && size == 1;
                let mut read = |run: &Self, target: bool| {
                    let at = run.linear(core, target, false)?;
                    core.load(at, size, ctx)
                };
                let (a, b) = if first {
                    let a = read(self, false)?;
                    (a, read(self, true)?)
                } else {
                    let b = read(self, true)?;
                    (read(self, false)?, b)
                };
                self.compare(a, b);
                (source, target) = (true, true);
            }
            Kind::Scas => {
                let to = self.linear(core, true, false)?;
                let b = core.load(to, size, ctx)?;
                self.compare(core.regs.get(regs::gpr(RAX)) & mask, b);
                target = true;
            }
            Kind::Ins => {
                // The port is read only when the store can be done.
                let to = self.linear(core, true, true)?;
                core.probe_write(to, size, ctx)?;
                let port = core.regs.get(regs::gpr(RDX)) & 0xffff;
                let value = calls::io_in(core, [port, self.size, 0, 0])?;
                core.store(to, size, value & mask, ctx)?;
                target = true;
            }
            Kind::Outs => {
                let from = self.linear(core, false, false)?;
                let value = core.load(from, size, ctx)?;
                let port = core.regs.get(regs::gpr(RDX)) & 0xffff;
                calls::io_out(core, [port, self.size, value, 0])?;
                source = true;
            }
        }
        self.advance(1, source, target);
        Ok(())
    }

    fn compare(&mut self, a: u64, b: u64) {
        self.compared = Some((a, b));
        self.ended = self.what.repeat && (a == b) == self.what.until_equal;
    }

    fn advance(&mut self, n: u64, source: bool, target: bool) {
        let step = self.delta.wrapping_mul(n);
        if source {
            self.source = self.source.wrapping_add(step) & self.mask;
        }
        if target {
            self.target = self.target.wrapping_add(step) & self.mask;
        }
        self.done = self.done.wrapping_add(n);
    }

    /// Bytes from an offset to the end of its page, or to where the offset wraps.
    fn room(&self, linear: u64, offset: u64) -> u64 {
        let page = CHUNK.wrapping_sub(linear & CHUNK.wrapping_sub(1));
        let wrap = self.mask.wrapping_sub(offset);
        if wrap < CHUNK {
            page.min(wrap.wrapping_add(1))
        } else {
            page
        }
    }

    /// Upward iterations within pages of plain RAM, eight bytes at a time.
    fn bulk(&mut self, core: &mut Core) -> Result<(), Trap> {
        let moves = self.what.kind == Kind::Movs;
        let plain = self.mode.is_64() || self.mode.is_flat() && self.what.segment as usize <= 3;
        if self.delta != self.size || !plain {
            return Ok(());
        }
        let ctx = self.mode.data_ctx();
        let to = self.linear(core, true, true)?;
        let mut room = self.room(to, self.target);
        let mut from = 0;
        if moves {
            from = self.linear(core, false, false)?;
            room = room.min(self.room(from, self.source));
            // What is stored would be loaded again within eight bytes.
            let overlaps = to.wrapping_sub(from) < 8;
            if overlaps || !is_ram(core, from, Access::Read, ctx) {
                return Ok(());
            }
        }
        if !is_ram(core, to, Access::Write, ctx) {
            return Ok(());
        }
        let left = self.count.wrapping_sub(self.done);
        let bytes = room.min(left.wrapping_mul(self.size)) & !7;
        if bytes == 0 {
            return Ok(());
        }
        let pattern = self.pattern(core.regs.get(regs::gpr(RAX)));
        let done = if moves {
            core.mmu.copy_bytes(ctx, from, to, bytes as usize)
        } else {
            core.mmu.fill_bytes(ctx, to, bytes as usize, pattern)
        };
        match done {
            Fast::Done(()) => {}
            Fast::HitCode(()) => core.code_hit = true,
            Fast::Slow => {
                for at in (0..bytes).step_by(8) {
                    let value = if moves {
                        core.load(from.wrapping_add(at), 8, ctx)?
                    } else {
                        pattern
                    };
                    core.store(to.wrapping_add(at), 8, value, ctx)?;
                }
            }
        }
        let n = bytes.checked_div(self.size).unwrap_or(0);
        self.advance(n, moves, true);
        Ok(())
    }

    /// The low bytes of a value, repeated to eight.
    fn pattern(&self, value: u64) -> u64 {
        match self.size {
            1 => (value & 0xff).wrapping_mul(0x0101_0101_0101_0101),
            2 => (value & 0xffff).wrapping_mul(0x0001_0001_0001_0001),
            4 => (value & 0xffff_ffff).wrapping_mul(0x0000_0001_0000_0001),
            _ => value,
        }
    }

    /// Writes back the registers after the iterations done.
    fn commit(&self, core: &mut Core, left: u64) {
        if self.done == 0 {
            return;
        }
        let mask = self.mask;
        let mut set = |n: usize, value: u64| {
            let slot = regs::gpr(n);
            let old = core.regs.get(slot);
            let kept = if mask == 0xffff { old & !mask } else { 0 };
            core.regs.set(slot, kept | value & mask);
        };
        if self.what.repeat {
            set(RCX, left.wrapping_sub(self.done));
        }
        if !matches!(self.what.kind, Kind::Stos | Kind::Scas | Kind::Ins) {
            set(RSI, self.source);
        }
        if !matches!(self.what.kind, Kind::Lods | Kind::Outs) {
            set(RDI, self.target);
        }
        if let Some((a, b)) = self.compared {
            set_flags_of_sub(core, self.size, a, b);
        }
        if let Some(value) = self.loaded {
            let slot = regs::gpr(RAX);
            let old = core.regs.get(slot);
            let mask = Ty::of_bytes(self.what.size).mask();
            let kept = if self.size < 4 { old & !mask } else { 0 };
            core.regs.set(slot, kept | value);
        }
    }
}

/// Whether the page is plain RAM whose translation is cached.
fn is_ram(core: &Core, va: u64, access: Access, ctx: u8) -> bool {
    core.mmu.look_up(ctx, va, access) == accel_core::Physical::Ram
}
