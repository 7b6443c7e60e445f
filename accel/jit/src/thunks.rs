//! Code that is generated once: the way in, the ways out, and calls of Rust.
//!
//! Between units, guest registers are in their host registers, RBP points into the register file, and
//! RSP is aligned to 16. It is not the thread's stack: what is on it are the calls of subroutines that the
//! guest has not returned from, for each the guest's PC after it, and below that the host's address of the
//! code that goes on there. A thunk for a call keeps all scratch registers; arguments and results go
//! through scratch slots of the register file. Rust code may see and, where it says so, change guest
//! registers: they are in the register file while it runs.

mod flags;
mod x87;

use accel_ir::{Mem as Access, Ordering, Rmw, Ty};

use accel_softmmu::{layout, recent_layout as recent};
pub(crate) use x87::{Cells, Key as X87Key, forget_x87, key as x87_key};

use crate::asm::{Alu, Shift, Size, Xmm};
use crate::asm::{
    Asm, CC_A, CC_E, CC_NE, Mem, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, Reg,
};
use crate::compile::{ARG, BIAS, KEPT_BY_CALLS, PINNED, RESULT, slot_at};
use crate::memory::cell;

/// Why generated code returned, in RAX.
pub(crate) mod out {
    /// At a jump that may be linked, or the budget is used up: RDX tells where.
    pub(crate) const LINK: u64 = 0;
    /// To the PC in the register file.
    pub(crate) const LEAVE: u64 = 1;
    /// A computed jump whose target is not in the table: RDX tells where.
    pub(crate) const MISS: u64 = 2;
    /// `Core::trap` says why: RDX tells where.
    pub(crate) const TRAP: u64 = 3;
    /// Before an instruction of a unit whose code was overwritten: RDX tells where.
    pub(crate) const STALE: u64 = 4;
}

/// What a thunk about memory does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Load = 0,
    Store = 1,
    Announce = 2,
    Probe = 3,
}

/// An atomic operation done by Rust.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Complex {
    Rmw(Rmw),
    Cas,
}

impl Complex {
    /// The operation and the access as a number.
    pub(crate) fn number(self, mem: &Access) -> i32 {
        let op = match self {
            Complex::Rmw(Rmw::Xchg) => 0,
            Complex::Rmw(Rmw::Add) => 1,
            Complex::Rmw(Rmw::Sub) => 2,
            Complex::Rmw(Rmw::And) => 3,
            Complex::Rmw(Rmw::Or) => 4,
            Complex::Rmw(Rmw::Xor) => 5,
            Complex::Cas => 6,
        };
        how(mem) | op << 16
    }

    /// The operation of a number.
    pub(crate) fn of_number(number: u32) -> Complex {
        match number >> 16 & 7 {
            0 => Complex::Rmw(Rmw::Xchg),
            1 => Complex::Rmw(Rmw::Add),
            2 => Complex::Rmw(Rmw::Sub),
            3 => Complex::Rmw(Rmw::And),
            4 => Complex::Rmw(Rmw::Or),
            5 => Complex::Rmw(Rmw::Xor),
            _ => Complex::Cas,
        }
    }
}

/// An access as a number: size, context, whether it must be aligned, byte order.
pub(crate) fn how(mem: &Access) -> i32 {
    i32::from(mem.ty.bytes())
        | i32::from(mem.ctx & 3) << 8
        | i32::from(mem.aligned) << 10
        | i32::from(mem.endian == accel_ir::Endian::Big) << 11
}

/// Addresses of the Rust functions that thunks call. All but `flags` return 0, or something else if
/// `Core::trap` says how it ended.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    /// By [`Kind`]: (core, return address, how).
    pub(crate) memory: [usize; 4],
    /// (core, return address).
    pub(crate) complex: usize,
    /// (core, return address).
    pub(crate) call: usize,
    /// All flags, of the lazy ones' four slots.
    pub(crate) flags: usize,
}

/// A PC that guests do not have. One that returns there all the same finds that as it would anywhere.
pub(crate) const NO_PC: u64 = 1 << 63 | 1;
/// Clears the carry flag.
const CLC: u8 = 0xf8;
/// Sets it.
const STC: u8 = 0xf9;

/// All exceptions masked in MXCSR (Intel SDM vol. 1, 10.2.3).
const MASKS: i32 = 0x1f80;
/// The sticky flags in MXCSR.
const FLAGS: i32 = 0x3f;

const SIZES: usize = 5;
const CONTEXTS: usize = 4;

/// Where thunks are in the code memory.
#[derive(Clone, Default)]
pub(crate) struct Thunks {
    pub(crate) enter: usize,
    pub(crate) link: usize,
    pub(crate) leave: usize,
    /// Called: the target's PC is in RAX.
    pub(crate) miss: usize,
    pub(crate) stale: usize,
    /// Where what returns to [`NO_PC`] goes on.
    pub(crate) nowhere: usize,
    /// Loads the guest's MXCSR. All registers stay.
    pub(crate) float_on: usize,
    /// Brings the register file's MXCSR up to date. All registers stay.
    pub(crate) float_sync: usize,
    exit: usize,
    trap: usize,
    /// By whether it writes, size, context.
    look: Vec<usize>,
    /// By kind, aligned, size, context, vectors.
    memory: Vec<usize>,
    /// As `memory`, where nothing need be aligned.
    reach: Vec<usize>,
    /// By whether it writes, context.
    lead: Vec<usize>,
    complex: [usize; 2],
    /// Makes the host's flags what the lazy ones in the register file say. All registers stay.
    pub(crate) flags: usize,
    /// By whether registers are written, vectors.
    call: [usize; 4],
    /// What is done to the x87 without its helper.
    x87: Vec<(X87Key, usize)>,
}

fn memory_index(kind: usize, aligned: bool, size: usize, ctx: usize, vectors: bool) -> usize {
    let at = (kind * 2 + usize::from(aligned)) * SIZES + size;
    (at * CONTEXTS + ctx) * 2 + usize::from(vectors)
}

fn reach_index(kind: usize, size: usize, ctx: usize, vectors: bool) -> usize {
    ((kind * SIZES + size) * CONTEXTS + ctx) * 2 + usize::from(vectors)
}

fn look_index(write: bool, size: usize, ctx: usize) -> usize {
    (usize::from(write) * SIZES + size) * CONTEXTS + ctx
}

impl Thunks {
    /// The thunk for an access that is little-endian, or whose byte order is the caller's business.
    pub(crate) fn memory(&self, kind: Kind, mem: &Access, vectors: bool) -> usize {
        let size = mem.ty.bytes().trailing_zeros() as usize;
        let index = memory_index(
            kind as usize,
            mem.aligned,
            size,
            usize::from(mem.ctx & 3),
            vectors,
        );
        self.memory[index]
    }

    /// The thunk for an access whose page was not the last one, which is pushed as a distance from RBP;
    /// RDX is the distance from that page. Returns without carry where the page is now the last one and
    /// the access can be done, with RDX as its offset; else it has been done, and RDX is what was loaded.
    /// What is stored is in RCX, but vectors are where thunks find arguments. An announcement is of a store to
    /// the host's address in RCX, and has always been done.
    pub(crate) fn reach(&self, kind: Kind, mem: &Access, vectors: bool) -> usize {
        let size = mem.ty.bytes().trailing_zeros() as usize;
        self.reach[reach_index(kind as usize, size, usize::from(mem.ctx & 3), vectors)]
    }

    /// As [`reach`](Self::reach) of 16 bytes, but if the page is not at hand nothing is done: the carry
    /// flag says so.
    pub(crate) fn lead(&self, write: bool, mem: &Access) -> usize {
        self.lead[usize::from(write) * CONTEXTS + usize::from(mem.ctx & 3)]
    }

    /// Looks for the page of the address in RDX and makes it the one that RCX points to. Then RDX is the
    /// offset in it; or the address, with the carry flag set, if the access is not all in plain RAM
    /// that is at hand.
    pub(crate) fn look(&self, write: bool, mem: &Access) -> usize {
        let size = mem.ty.bytes().trailing_zeros() as usize;
        self.look[look_index(write, size, usize::from(mem.ctx & 3))]
    }

    pub(crate) fn complex(&self, vectors: bool) -> usize {
        self.complex[usize::from(vectors)]
    }

    /// The thunk for an x87 operation. Its arguments are where those of helpers are, and so is the result; it
    /// returns with carry if the helper is to be called. All registers stay.
    pub(crate) fn x87(&self, key: X87Key) -> Option<usize> {
        let found = self.x87.iter().find(|(of, _)| *of == key);
        found.map(|(_, at)| *at)
    }

    pub(crate) fn call(&self, writes: bool, vectors: bool) -> usize {
        self.call[usize::from(writes) * 2 + usize::from(vectors)]
    }
}

/// Distances from RBP to what translations are kept in.
#[derive(Clone, Copy)]
pub(crate) struct Tables {
    /// The array of pointers to tables.
    pub(crate) hot: i32,
    /// The pages used last.
    pub(crate) recent: i32,
}

/// What a thunk passes to its function beside the core.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    Site,
    SiteAnd(i32),
    /// The same, and what was loaded is also left in RDX.
    Load(i32),
}

struct Make<'a> {
    asm: Asm,
    thunks: Thunks,
    slots: &'a [usize],
    core: i32,
    pc: usize,
    control: usize,
}

/// Scratch registers that calls keep.
const SCRATCH: [Reg; 5] = [RAX, RCX, RDX, RSI, RDI];
/// Bytes that vector registers take on the stack.
const VECTOR_BYTES: i32 = 256;

/// Makes all thunks for the code memory from `origin` on. `core` is the distance from RBP to the core.
pub(crate) fn make(
    origin: usize,
    slots: &[usize],
    core: i32,
    layout: &accel_core::Layout,
    tables: Tables,
    x87: Option<&Cells>,
    functions: &Functions,
) -> (Thunks, Vec<u8>) {
    let mut make = Make {
        asm: Asm::new(origin),
        thunks: Thunks::default(),
        slots,
        core,
        pc: layout.pc.0.into(),
        control: layout.fp.0.into(),
    };
    make.float();
    make.enter();
    make.exits();
    for write in [false, true] {
        for size in 0..SIZES {
            for ctx in 0..CONTEXTS {
                let at = make.look(write, 1 << size, ctx as u8, tables);
                make.thunks.look.push(at);
            }
        }
    }
    let count = memory_index(3, true, SIZES - 1, CONTEXTS - 1, true) + 1;
    make.thunks.memory = vec![0; count];
    for kind in 0..4 {
        for aligned in [false, true] {
            for (size, ty) in [Ty::I8, Ty::I16, Ty::I32, Ty::I64, Ty::V128]
                .into_iter()
                .enumerate()
            {
                for ctx in 0..CONTEXTS {
                    let mem = Access {
                        ty,
                        endian: accel_ir::Endian::Little,
                        aligned,
                        ordering: Ordering::Relaxed,
                        ctx: ctx as u8,
                    };
                    for vectors in [false, true] {
                        let extra = match kind {
                            0 => Extra::Load(how(&mem)),
                            _ => Extra::SiteAnd(how(&mem)),
                        };
                        let at = make.call(functions.memory[kind], extra, false, vectors);
                        let index = memory_index(kind, aligned, size, ctx, vectors);
                        make.thunks.memory[index] = at;
                    }
                }
            }
        }
    }
    if let Some(cells) = x87 {
        make.x87(cells);
    }
    make.reaches(tables);
    make.flags(layout.flags.0.into(), functions.flags);
    for vectors in [false, true] {
        let i = usize::from(vectors);
        make.thunks.complex[i] = make.call(functions.complex, Extra::Site, false, vectors);
        make.thunks.call[i] = make.call(functions.call, Extra::Site, false, vectors);
        make.thunks.call[i + 2] = make.call(functions.call, Extra::Site, true, vectors);
    }
    (make.thunks, make.asm.code.to_vec())
}

impl Make<'_> {
    /// `extern "C" fn(rbp, code) -> (why, where)`.
    fn enter(&mut self) {
        self.thunks.enter = self.asm.here();
        for reg in [RBP, RBX, R12, R13, R14, R15] {
            self.asm.push(reg);
        }
        self.asm.alu_imm(Alu::Sub, Size::Q, RSP, 8);
        self.asm.mov(Size::Q, RBP, RDI);
        self.leave_rust();
        self.asm.mov(Size::Q, RAX, RSI);
        self.load_pinned(0);
        self.asm.jmp_rm(RAX);
    }

    /// From the thread's stack to that of generated code.
    fn leave_rust(&mut self) {
        let [rust, ours] = [cell::RUST_RSP, cell::RSP].map(|at| Mem::Code(at as i32));
        self.asm.mov_to(Size::Q, rust, RSP);
        self.asm.mov(Size::Q, RSP, ours);
    }

    /// And back.
    fn enter_rust(&mut self) {
        let [rust, ours] = [cell::RUST_RSP, cell::RSP].map(|at| Mem::Code(at as i32));
        self.asm.mov_to(Size::Q, ours, RSP);
        self.asm.mov(Size::Q, RSP, rust);
    }

    /// Jumps if the host's MXCSR is not the guest's.
    fn if_float(&mut self) -> crate::asm::Fix {
        let is_loaded = Mem::Code(cell::FLOAT as i32);
        self.asm.alu_imm(Alu::Cmp, Size::B, is_loaded, 0);
        self.asm.jcc(CC_E)
    }

    fn float(&mut self) {
        let mxcsr = Mem::Code(cell::MXCSR as i32);
        let control = slot_at(self.control);
        self.thunks.float_on = self.asm.here();
        self.asm.push(RAX);
        self.asm.mov(Size::D, RAX, control);
        // The guest's exceptions are masked wherever units compute by themselves; elsewhere these
        // bits do not matter.
        self.asm.alu_imm(Alu::Or, Size::D, RAX, MASKS);
        self.asm.mov_to(Size::D, mxcsr, RAX);
        self.asm.mxcsr(false, mxcsr);
        self.asm
            .mov_imm_to(Size::B, Mem::Code(cell::FLOAT as i32), 1);
        self.asm.pop(RAX);
        self.asm.ret();
        self.thunks.float_sync = self.asm.here();
        self.asm.push(RAX);
        self.asm.mxcsr(true, mxcsr);
        self.asm.mov(Size::D, RAX, mxcsr);
        self.asm.alu_imm(Alu::And, Size::D, RAX, FLAGS);
        self.asm.alu_to(Alu::Or, Size::D, control, RAX);
        self.asm.pop(RAX);
        self.asm.ret();
    }

    fn exits(&mut self) {
        // A return to `NO_PC`, which is in RAX. The call that was none stays, as all look at it.
        self.thunks.nowhere = self.asm.here();
        self.asm.mov(Size::Q, RSP, Mem::Code(cell::NO_CALL as i32));
        self.asm.mov_to(Size::Q, slot_at(self.pc), RAX);
        self.thunks.leave = self.asm.here();
        self.asm.mov_imm(RAX, out::LEAVE);
        self.thunks.exit = self.asm.here();
        self.store_pinned();
        // The common way out, guest registers in the register file.
        let spilled = self.asm.here();
        let float = self.if_float();
        self.asm.call_to(self.thunks.float_sync);
        self.asm.mxcsr(false, Mem::Code(cell::RUST_MXCSR as i32));
        self.asm
            .mov_imm_to(Size::B, Mem::Code(cell::FLOAT as i32), 0);
        self.asm.bind(float);
        self.x87_off();
        self.enter_rust();
        self.asm.alu_imm(Alu::Add, Size::Q, RSP, 8);
        for reg in [R15, R14, R13, R12, RBX, RBP] {
            self.asm.pop(reg);
        }
        self.asm.ret();
        // Called: the return address tells where.
        self.thunks.link = self.out_by_call(out::LINK);
        self.thunks.stale = self.out_by_call(out::STALE);
        self.thunks.miss = self.asm.here();
        self.asm.pop(RDX);
        self.asm.mov_to(Size::Q, slot_at(self.pc), RAX);
        self.asm.mov_imm(RAX, out::MISS);
        self.asm.jmp_to(self.thunks.exit);
        // The site is in RDX. Rust's MXCSR is in place, the guest's in the register file.
        self.thunks.trap = self.asm.here();
        self.asm
            .mov_imm_to(Size::B, Mem::Code(cell::FLOAT as i32), 0);
        self.asm.mov_imm(RAX, out::TRAP);
        self.asm.jmp_to(spilled);
    }

    fn out_by_call(&mut self, why: u64) -> usize {
        let at = self.asm.here();
        self.asm.pop(RDX);
        self.asm.mov_imm(RAX, why);
        self.asm.jmp_to(self.thunks.exit);
        at
    }

    fn load_pinned(&mut self, from: usize) {
        for (reg, slot) in PINNED.iter().zip(self.slots).skip(from) {
            self.asm.mov(Size::Q, *reg, slot_at(*slot));
        }
    }

    fn store_pinned(&mut self) {
        for (reg, slot) in PINNED.iter().zip(self.slots) {
            self.asm.mov_to(Size::Q, slot_at(*slot), *reg);
        }
    }

    /// See [`Thunks::look`].
    fn look(&mut self, write: bool, bytes: i32, ctx: u8, tables: Tables) -> usize {
        let at = self.asm.here();
        let found = |make: &mut Self| {
            make.asm.byte(CLC);
            make.asm.ret();
        };
        let absent = |make: &mut Self| {
            make.asm.byte(STC);
            make.asm.ret();
        };
        self.find_page(write, bytes, ctx, tables, (found, absent));
        at
    }

    /// See [`Thunks::reach`] and [`Thunks::lead`].
    fn reaches(&mut self, tables: Tables) {
        for kind in [Kind::Load, Kind::Store, Kind::Announce, Kind::Probe] {
            for (size, ctx) in (0..SIZES).flat_map(|size| (0..CONTEXTS).map(move |ctx| (size, ctx)))
            {
                for vectors in [false, true] {
                    let index = memory_index(kind as usize, false, size, ctx, vectors);
                    let memory = self.thunks.memory[index];
                    let at = match kind {
                        Kind::Announce => self.tell(memory),
                        _ => self.reach(kind, 1 << size, ctx as u8, tables, memory),
                    };
                    debug_assert_eq!(
                        self.thunks.reach.len(),
                        reach_index(kind as usize, size, ctx, vectors)
                    );
                    self.thunks.reach.push(at);
                }
            }
        }
        for write in [false, true] {
            for ctx in 0..CONTEXTS as u8 {
                let at = self.with_page();
                let absent = |make: &mut Self| {
                    make.asm.pop(RCX);
                    make.asm.byte(STC);
                    make.asm.ret_dropping(8);
                };
                self.find_page(write, 16, ctx, tables, (Self::found, absent));
                self.thunks.lead.push(at);
            }
        }
    }

    /// Begins a thunk with a page pushed: that in RCX, which is pushed, and the address in RDX.
    fn with_page(&mut self) -> usize {
        let at = self.asm.here();
        self.asm.push(RCX);
        self.asm.mov(Size::Q, RCX, Mem::base(RSP, 16));
        self.asm.alu(Alu::Add, Size::Q, RCX, RBP);
        let tag = Mem::base(RCX, recent::TAG);
        self.asm.alu(Alu::Add, Size::Q, RDX, tag);
        at
    }

    /// Returns from a thunk with a page pushed that is now the last one.
    fn found(&mut self) {
        self.asm.pop(RCX);
        self.asm.byte(CLC);
        self.asm.ret_dropping(8);
    }

    /// See [`Thunks::reach`]. What cannot be done in line `memory` does, as if it had been called.
    fn reach(&mut self, kind: Kind, bytes: i32, ctx: u8, tables: Tables, memory: usize) -> usize {
        let at = self.with_page();
        // Vectors are in their place already.
        let stores = kind == Kind::Store && bytes <= 8;
        let absent = |make: &mut Self| {
            make.asm.pop(RCX);
            make.asm.mov_to(Size::Q, slot_at(ARG), RDX);
            if stores {
                make.asm.mov_to(Size::Q, slot_at(ARG + 1), RCX);
            }
            make.asm.pop(RDX);
            make.asm.mov_to(Size::Q, Mem::base(RSP, 0), RDX);
            make.asm.jmp_to(memory);
        };
        self.find_page(
            kind != Kind::Load,
            bytes,
            ctx,
            tables,
            (Self::found, absent),
        );
        at
    }

    /// See [`Thunks::reach`]: announces a store by `memory`, as if that had been called.
    fn tell(&mut self, memory: usize) -> usize {
        let at = self.asm.here();
        let page = |offset| Mem::base(RDX, offset);
        let on_stack = |offset| Mem::base(RSP, offset);
        self.asm.push(RDX);
        self.asm.mov(Size::Q, RDX, on_stack(16));
        self.asm.alu(Alu::Add, Size::Q, RDX, RBP);
        self.asm.alu(Alu::Sub, Size::Q, RCX, page(recent::HOST));
        self.asm.alu(Alu::Add, Size::Q, RCX, page(recent::TAG));
        self.asm.mov_to(Size::Q, slot_at(ARG), RCX);
        self.asm.mov(Size::Q, RCX, on_stack(8));
        self.asm.mov_to(Size::Q, on_stack(16), RCX);
        self.asm.pop(RDX);
        self.asm.alu_imm(Alu::Add, Size::Q, RSP, 8);
        self.asm.jmp_to(memory);
        at
    }

    /// Looks in the tables for the page of the address in RDX, and makes it the one that RCX points to.
    /// Ends in the first way where it is found and the access lies in it: RDX is its offset. In the other,
    /// RDX is the address still.
    fn find_page(
        &mut self,
        write: bool,
        bytes: i32,
        ctx: u8,
        tables: Tables,
        (found, absent): (impl Fn(&mut Self), impl Fn(&mut Self)),
    ) {
        let tag = if write { layout::WRITE } else { layout::READ };
        self.asm.push(RAX);
        self.asm.push(RSI);
        self.asm.mov(Size::D, RAX, RDX);
        self.asm
            .shift_imm(Shift::Shr, Size::D, RAX, layout::LINE_SHIFT as u8);
        self.asm
            .alu_imm(Alu::And, Size::D, RAX, layout::LINE_MASK as i32);
        let hot = Mem::base(RBP, tables.hot + 8 * i32::from(ctx));
        self.asm.alu(Alu::Add, Size::Q, RAX, hot);
        self.asm.mov(Size::Q, RSI, RDX);
        self.asm.alu_imm(Alu::And, Size::Q, RSI, -4096);
        self.asm.alu(Alu::Cmp, Size::Q, RSI, Mem::base(RAX, tag));
        let miss = self.asm.jcc(CC_NE);
        let page = |offset| Mem::base(RCX, offset);
        self.asm.mov_to(Size::Q, page(recent::TAG), RSI);
        self.asm.alu(Alu::Sub, Size::Q, RDX, RSI);
        // The tag is the address of the page: with the addend, the host's.
        self.asm
            .alu(Alu::Add, Size::Q, RSI, Mem::base(RAX, tag + 8));
        self.asm.mov_to(Size::Q, page(recent::HOST), RSI);
        self.asm
            .mov_imm_to(Size::Q, page(recent::END), recent::LIMIT);
        let used = Mem::base(RBP, tables.recent + recent::used(ctx));
        self.asm.mov_imm_to(Size::B, used, 1);
        if write {
            self.asm.mov(Size::Q, RSI, Mem::base(RAX, layout::FLAGS));
            self.asm
                .mov_to(Size::Q, page(recent::FLAGS - recent::WRITE), RSI);
        }
        self.asm.pop(RSI);
        self.asm.pop(RAX);
        self.asm.alu_imm(Alu::Cmp, Size::Q, RDX, 4096 - bytes);
        let crosses = self.asm.jcc(CC_A);
        found(self);
        self.asm.bind(crosses);
        self.asm.alu(Alu::Add, Size::Q, RDX, page(recent::TAG));
        absent(self);
        self.asm.bind(miss);
        self.asm.pop(RSI);
        self.asm.pop(RAX);
        absent(self);
    }

    fn call(&mut self, function: usize, extra: Extra, writes: bool, vectors: bool) -> usize {
        let at = self.asm.here();
        for reg in SCRATCH {
            self.asm.push(reg);
        }
        self.store_pinned();
        let mut depth = 8 * SCRATCH.len() as i32;
        if vectors {
            self.asm.alu_imm(Alu::Sub, Size::Q, RSP, VECTOR_BYTES);
            depth += VECTOR_BYTES;
            for n in 0..16u8 {
                let to = Mem::base(RSP, i32::from(n) * 16);
                self.asm.movups_to(to, Xmm(n));
            }
        }
        let float = self.if_float();
        self.asm.call_to(self.thunks.float_sync);
        self.asm.mxcsr(false, Mem::Code(cell::RUST_MXCSR as i32));
        self.asm.bind(float);
        self.asm.lea(Size::Q, RDI, Mem::base(RBP, self.core));
        self.asm.mov(Size::Q, RSI, Mem::base(RSP, depth));
        if let Extra::SiteAnd(how) | Extra::Load(how) = extra {
            self.asm.mov_imm(RDX, how as u64);
        }
        self.asm.mov(Size::Q, RCX, Mem::Code(cell::EXECUTOR as i32));
        self.asm.mov_imm(RAX, function as u64);
        self.enter_rust();
        self.asm.call_reg(RAX);
        self.leave_rust();
        self.asm.test(Size::D, RAX, RAX);
        let trap = self.asm.jcc(CC_NE);
        let float = self.if_float();
        self.asm.call_to(self.thunks.float_on);
        self.asm.bind(float);
        if vectors {
            for n in 0..16u8 {
                let from = Mem::base(RSP, i32::from(n) * 16);
                self.asm.movups(Xmm(n), from);
            }
            self.asm.alu_imm(Alu::Add, Size::Q, RSP, VECTOR_BYTES);
        }
        self.load_pinned(if writes { 0 } else { KEPT_BY_CALLS });
        for reg in SCRATCH.iter().rev() {
            self.asm.pop(*reg);
        }
        // See `Thunks::reach`.
        if let Extra::Load(_) = extra {
            self.asm.mov(Size::Q, RDX, slot_at(RESULT));
        }
        if matches!(extra, Extra::SiteAnd(_) | Extra::Load(_)) {
            self.asm.byte(STC);
        }
        self.asm.ret();
        self.asm.bind(trap);
        self.asm.mov(Size::Q, RDX, Mem::base(RSP, depth));
        self.asm.alu_imm(Alu::Add, Size::Q, RSP, depth + 8);
        self.asm.jmp_to(self.thunks.trap);
        at
    }
}

const _: () = assert!(BIAS == 128);
