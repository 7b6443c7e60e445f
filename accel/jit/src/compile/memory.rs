//! Accesses to guest memory.
//!
//! What is made from one guest register mostly stays in one page. So an access first looks at the page
//! that its base used last (`accel_softmmu::recent_layout`): a subtraction, a comparison and an addition
//! lead from the guest's address to the host's. Behind the main line, a thunk looks in the current bank's
//! table and makes that page the last one. Where the base was itself loaded, or two registers make the
//! address, the table is looked at at once. All else goes to a thunk that calls Rust. A store is announced
//! afterwards if its page is flagged.

mod atomic;
mod detour;

use accel_ir::{Endian, Mem as Access, Op, Ty, Val};
use accel_softmmu::{layout, recent_layout as recent};

use super::ends::Exit;
use super::int::imm_of;
use super::plan::Base;
use super::share::Shared;
use super::{Compiler, FLAGS, FlagsAt, HOST, LINE, TooBig, What};
use crate::asm::{Alu, CC_AE, CC_B, CC_NE, Fix, Mem, RAX, RBP, Reg, Shift, Size, Xmm};
use crate::thunks::Kind;

/// Mask of a page's address, as an immediate.
const PAGE: i32 = -4096;

/// Where a loaded value goes.
#[derive(Clone, Copy)]
pub(super) enum Loaded {
    Reg(Reg),
    Xmm(Xmm),
}

/// What is stored.
#[derive(Clone, Copy)]
pub(super) enum Stored {
    Reg(Reg),
    Xmm(Xmm),
    /// The halves of a vector.
    Pair(Reg, Reg),
    Imm(i32),
}

/// No register.
const NOTHING: Stored = Stored::Imm(0);

/// Thunks for an access.
#[derive(Clone, Copy)]
pub(super) struct Ways {
    /// Does it.
    thunk: usize,
    /// Looks for its page first (`Thunks::reach`).
    reach: usize,
}

/// An access by a thunk.
pub(super) enum Slow {
    /// Loads into a register.
    Load { ways: Ways, to: Loaded },
    /// Stores.
    Store { ways: Ways, value: Stored },
    /// Only faults as a store would.
    Probe { ways: Ways },
    /// An atomic operation, which says what was there before.
    Complex {
        args: [Reg; 2],
        what: i32,
        to: Reg,
        vectors: bool,
    },
}

/// What an address is looked up in.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// A page last used, at this entry from RBP.
    Recent(i32),
    /// The tables.
    Table(Table),
}

/// Registers that tables are looked at with, beside [`HOST`] and [`LINE`].
#[derive(Clone, Copy)]
pub(super) struct Table {
    /// For the page's address, and for what leads to the host's.
    other: Reg,
    /// For the tables' address. Without it that is added to the line's, for which what depends on the
    /// access waits.
    base: Option<Reg>,
    /// Holds an address in the page that is accessed, if it is one page.
    near: Option<Reg>,
}

impl Table {
    fn of(other: Reg) -> Table {
        Table {
            other,
            base: None,
            near: None,
        }
    }

    /// A part of the page's line.
    fn line(&self, at: i32) -> Mem {
        Mem::At {
            base: Some(LINE),
            index: self.base.map(|base| (base, 0)),
            disp: at,
        }
    }
}

/// A check of an address, as emitted.
pub(super) struct Check {
    /// Where the host has what is accessed.
    at: Mem,
    /// The page last used that was looked at; `None` if it was the tables.
    recent: Option<LookedAt>,
    /// The jump of a misaligned access.
    misaligned: Option<Fix>,
    /// The jump of an access elsewhere.
    from: Fix,
}

/// A page last used.
pub(super) struct LookedAt {
    /// Where it is described, from RBP.
    page: i32,
    /// The thunk that looks further.
    look: usize,
    /// The same with less code, for a group's first access (`Thunks::lead`).
    lead: usize,
    /// Where the access goes on when that found the page.
    again: usize,
}

/// The size of an integer type.
pub(super) fn size_of(ty: Ty) -> Size {
    match ty {
        Ty::I8 => Size::B,
        Ty::I16 => Size::W,
        Ty::I32 => Size::D,
        Ty::I64 | Ty::V128 => Size::Q,
    }
}

impl Compiler<'_> {
    /// The address of an access, whose use is then done, in [`HOST`]; and where it is looked up. From here
    /// to the access no register may be taken: the detour skips what that emits.
    fn locate(&mut self, addr: Val, mem: &Access, kept: Stored) -> Result<By, TooBig> {
        let wild = self.base(addr) == Base::Wild;
        let by = self.entry(addr, mem);
        self.address_into(HOST, addr)?;
        if !wild {
            return Ok(by);
        }
        // What the address was made from is not needed any more.
        self.keep_only(kept);
        self.claim(LINE)?;
        Ok(By::Table(Table::of(self.alloc()?)))
    }

    /// Has a look at tables use a register for their address: this one, or one that is free.
    fn with_base(&mut self, by: By, own: Option<Reg>) -> By {
        match by {
            By::Table(table) => By::Table(Table {
                base: own.or_else(|| self.spare()),
                ..table
            }),
            by => by,
        }
    }

    /// Of all registers held for the operation, keeps [`HOST`] and what is stored.
    fn keep_only(&mut self, kept: Stored) {
        self.places.unlock();
        match kept {
            Stored::Reg(reg) => self.places.lock(reg),
            Stored::Xmm(reg) => self.places.lock_v(reg),
            Stored::Pair(low, high) => {
                self.places.lock(low);
                self.places.lock(high);
            }
            Stored::Imm(_) => {}
        }
        self.places.lock(HOST);
    }

    /// As [`locate`](Self::locate), with [`RAX`] and [`FLAGS`] free, too; by tables there would not be enough
    /// registers.
    fn locate_atomic(&mut self, addr: Val, mem: &Access) -> Result<By, TooBig> {
        let by = self.entry(addr, mem);
        self.claim(HOST)?;
        self.address_into(HOST, addr)?;
        // What the address was made from is not needed any more.
        self.keep_only(NOTHING);
        self.claim(RAX)?;
        self.claim(FLAGS)?;
        // Nor what was in their way.
        self.keep_only(Stored::Reg(RAX));
        self.places.lock(FLAGS);
        Ok(by)
    }

    /// Turns the address in [`HOST`] into the host's.
    fn check(&mut self, by: By, mem: &Access, write: bool, aligned: bool) -> Check {
        let mask = i32::from(mem.ty.bytes()) - 1;
        let misaligned = (aligned && mask != 0).then(|| {
            self.asm.test_imm(Size::B, HOST, mask);
            self.asm.jcc(CC_NE)
        });
        let table = match by {
            By::Table(table) => table,
            By::Recent(entry) => return self.check_recent(entry, mem, write, misaligned),
        };
        let other = table.other;
        let tag = if write { layout::WRITE } else { layout::READ };
        self.asm.mov(Size::D, LINE, table.near.unwrap_or(HOST));
        self.asm
            .shift_imm(Shift::Shr, Size::D, LINE, layout::LINE_SHIFT as u8);
        self.asm
            .alu_imm(Alu::And, Size::D, LINE, layout::LINE_MASK as i32);
        let hot = Mem::base(RBP, self.env.hot + 8 * i32::from(mem.ctx & 3));
        match table.base {
            Some(base) => self.asm.mov(Size::Q, base, hot),
            None => self.asm.alu(Alu::Add, Size::Q, LINE, hot),
        }
        // An access that ends in the next page does not match.
        self.asm.lea(Size::Q, other, Mem::base(HOST, mask));
        self.asm.alu_imm(Alu::And, Size::Q, other, PAGE);
        self.asm.alu(Alu::Cmp, Size::Q, other, table.line(tag));
        let from = self.asm.jcc(CC_NE);
        self.asm.mov(Size::Q, other, table.line(tag + 8));
        let at = Mem::At {
            base: Some(HOST),
            index: Some((other, 0)),
            disp: 0,
        };
        Check {
            at,
            recent: None,
            misaligned,
            from,
        }
    }

    /// As [`check`](Self::check), by the page last used.
    fn check_recent(
        &mut self,
        entry: i32,
        mem: &Access,
        write: bool,
        misaligned: Option<Fix>,
    ) -> Check {
        let page = entry + if write { recent::WRITE } else { recent::READ };
        let at = |offset| Mem::base(RBP, page + offset);
        self.asm.alu(Alu::Sub, Size::Q, HOST, at(recent::TAG));
        self.asm.alu(Alu::Cmp, Size::Q, HOST, at(recent::END));
        let from = self.asm.jcc(CC_AE);
        let again = self.asm.here();
        self.asm.alu(Alu::Add, Size::Q, HOST, at(recent::HOST));
        let (look, lead) = self.looks(write, mem);
        Check {
            at: Mem::base(HOST, 0),
            recent: Some(LookedAt {
                page,
                look,
                lead,
                again,
            }),
            misaligned,
            from,
        }
    }

    fn looks(&self, write: bool, mem: &Access) -> (usize, usize) {
        let thunks = &self.env.thunks;
        (thunks.look(write, mem), thunks.lead(write, mem))
    }

    fn ways(&self, kind: Kind, mem: &Access, vectors: bool) -> Ways {
        Ways {
            thunk: self.env.thunks.memory(kind, mem, vectors),
            reach: self.env.thunks.reach(kind, mem, vectors),
        }
    }

    fn base(&self, addr: Val) -> Base {
        let base = self.plan.base.get(addr.0 as usize);
        base.copied().unwrap_or(Base::Wild)
    }

    /// The page last used by an address's base.
    fn entry(&self, addr: Val, mem: &Access) -> By {
        let base = match self.base(addr) {
            Base::Slot(slot) => Some(slot),
            Base::None | Base::Wild => None,
        };
        By::Recent(self.env.recent + recent::entry(mem.ctx, base))
    }

    pub(super) fn load(&mut self, d: Val, addr: Val, mem: &Access) -> Result<(), TooBig> {
        if mem.endian == Endian::Big && mem.ty == Ty::V128 {
            return Err(TooBig);
        }
        if let Some(shared) = self.plan.sharing.find(self.block, self.op) {
            return self.load_shared(d, addr, mem, shared);
        }
        self.claim(HOST)?;
        let by = self.locate(addr, mem, NOTHING)?;
        let vectors = self.places.has_vectors() || mem.ty == Ty::V128;
        let ways = self.ways(Kind::Load, mem, vectors);
        if mem.ty == Ty::V128 {
            let to = self.alloc_v()?;
            let by = self.with_base(by, None);
            let check = self.check(by, mem, false, mem.aligned);
            self.asm.movups(to, check.at);
            let to_v = Loaded::Xmm(to);
            self.access_detour(check, Slow::Load { ways, to: to_v });
            if self.plan.is_used(d) {
                self.define_v(d, to);
            }
            return Ok(());
        }
        let used = self.plan.is_used(d);
        // The target may be a guest register: it is written when the access has succeeded.
        let to = if used { self.fresh(d)? } else { HOST };
        let own = (to != HOST && self.is_free(to)).then_some(to);
        let by = self.with_base(by, own);
        let check = self.check(by, mem, false, mem.aligned);
        self.asm.movzx(size_of(mem.ty), to, check.at);
        let to_reg = Loaded::Reg(to);
        self.access_detour(check, Slow::Load { ways, to: to_reg });
        if mem.endian == Endian::Big {
            self.swap(mem.ty, to);
        }
        if used {
            self.define(d, to, false);
        }
        Ok(())
    }

    /// The load of a group.
    fn load_shared(
        &mut self,
        d: Val,
        addr: Val,
        mem: &Access,
        shared: Shared,
    ) -> Result<(), TooBig> {
        let host = self.shared(addr, mem, false, shared)?;
        let at = Mem::base(host, shared.offset);
        let group = self.group_value(shared);
        let used = self.plan.is_used(d);
        if mem.ty == Ty::V128 {
            let to = self.alloc_v()?;
            self.asm.movups(to, at);
            self.share(group, shared);
            if used {
                self.define_v(d, to);
            }
            return Ok(());
        }
        // A value that nobody wants need not be loaded: it could not fault any more.
        if used {
            let to = self.fresh(d)?;
            self.asm.movzx(size_of(mem.ty), to, at);
            if mem.endian == Endian::Big {
                self.swap(mem.ty, to);
            }
            self.share(group, shared);
            self.define(d, to, false);
        } else {
            self.share(group, shared);
        }
        Ok(())
    }

    /// The value that stands for the host's address a group counts from.
    fn group_value(&self, shared: Shared) -> Val {
        Val(self.unit.types.len() as u32 + shared.group)
    }

    /// An access of a group has used its address.
    fn share(&mut self, group: Val, shared: Shared) {
        if !shared.leads {
            self.consume(group);
        }
    }

    /// The host's address that an access's group counts from, in a register.
    fn shared(
        &mut self,
        addr: Val,
        mem: &Access,
        write: bool,
        shared: Shared,
    ) -> Result<Reg, TooBig> {
        let group = self.group_value(shared);
        if !shared.leads {
            return self.reg(group);
        }
        self.claim(HOST)?;
        let wild = self.base(addr) == Base::Wild;
        let by = self.entry(addr, mem);
        // Offsets are counted from the highest.
        let ahead = shared.offset.wrapping_neg();
        let from = self.counted_from(addr);
        self.address_past(HOST, addr, ahead)?;
        let span = self.plan.sharing.groups[shared.group as usize].span;
        // Any size of access.
        let mem = Access {
            ty: Ty::V128,
            ..*mem
        };
        if wild {
            // What the address was made from is not needed any more.
            self.places.unlock();
            self.places.lock(HOST);
            self.claim(LINE)?;
            let other = self.alloc()?;
            // Between the lowest and the highest one lies what they are all counted from.
            let near = from.filter(|(_, at)| {
                let highest = at.checked_add(i64::from(ahead));
                highest.is_some_and(|highest| (0..=i64::from(span)).contains(&highest))
            });
            let by = By::Table(Table {
                other,
                base: self.spare(),
                near: near.map(|(reg, _)| reg),
            });
            let check = self.check(by, &mem, write, false);
            self.wary_exit(check.from);
            if span != 0 {
                self.asm.mov(Size::D, LINE, HOST);
                self.asm.alu_imm(Alu::And, Size::D, LINE, !PAGE);
                self.asm.alu_imm(Alu::Cmp, Size::D, LINE, span);
                let low = self.asm.jcc(CC_B);
                self.wary_exit(low);
            }
            self.asm.alu(Alu::Add, Size::Q, HOST, other);
        } else if let By::Recent(entry) = by {
            let page = entry + if write { recent::WRITE } else { recent::READ };
            let at = |offset| Mem::base(RBP, page + offset);
            self.asm.alu(Alu::Sub, Size::Q, HOST, at(recent::TAG));
            self.asm.alu(Alu::Cmp, Size::Q, HOST, at(recent::END));
            let from = self.asm.jcc(CC_AE);
            let again = self.asm.here();
            if span != 0 {
                self.asm.alu_imm(Alu::Cmp, Size::Q, HOST, span);
                let low = self.asm.jcc(CC_B);
                self.wary_exit(low);
            }
            self.asm.alu(Alu::Add, Size::Q, HOST, at(recent::HOST));
            let (look, lead) = self.looks(write, &mem);
            let looked_at = LookedAt {
                page,
                look,
                lead,
                again,
            };
            let exit = self.exit_to_wary(from);
            self.detour(from, What::Lead { looked_at, exit });
        }
        let n = shared.group as usize;
        if self.shared_by.len() <= n {
            self.shared_by.resize(n + 1, None);
        }
        self.shared_by[n] = Some(by);
        self.define(group, HOST, false);
        self.places.lock(HOST);
        self.asm.flags_of = None;
        Ok(HOST)
    }

    /// A way to this instruction again, in code that shares nothing.
    fn exit_to_wary(&self, from: Fix) -> Exit {
        let mark = self.marks.last();
        Exit {
            from,
            pc: mark.map_or(self.at.pc, |mark| mark.pc),
            insns: mark.map_or(0, |mark| mark.done),
            member: self.member(),
            leaves: true,
            is_wary: true,
            is_onward: false,
        }
    }

    fn wary_exit(&mut self, from: Fix) {
        let exit = self.exit_to_wary(from);
        self.exits.push(exit);
    }

    /// Swaps the bytes of a clean value.
    fn swap(&mut self, ty: Ty, reg: Reg) {
        match ty {
            Ty::I16 => self.asm.shift_imm(Shift::Rol, Size::W, reg, 8),
            Ty::I32 => self.asm.bswap(Size::D, reg),
            Ty::I64 => self.asm.bswap(Size::Q, reg),
            Ty::I8 | Ty::V128 => {}
        }
    }

    /// Whether the halves of a vector are stored one by one, not made one before. Where tables are looked
    /// up, there are not enough registers for that.
    pub(super) fn stores_halves(&self, addr: Val, mem: &Access) -> bool {
        mem.endian == Endian::Little && !mem.aligned && self.base(addr) != Base::Wild
    }

    pub(super) fn store(&mut self, addr: Val, v: Val, mem: &Access) -> Result<(), TooBig> {
        if mem.endian == Endian::Big && mem.ty == Ty::V128 {
            return Err(TooBig);
        }
        let halves = match self.places.deferred(v) {
            Some(&Op::VecMake { lo, hi, .. }) => {
                self.places.take_deferred(v);
                self.consume(v);
                self.ready(lo)?;
                self.ready(hi)?;
                Some((lo, hi))
            }
            _ => {
                self.ready(v)?;
                None
            }
        };
        let shared = self.plan.sharing.find(self.block, self.op);
        if shared.is_none_or(|shared| shared.leads) {
            self.claim(HOST)?;
        }
        // Nothing but what a group's stores have in it is in the way.
        let flags_at = self.flags_at;
        self.claim(FLAGS)?;
        self.flags_at = flags_at;
        let size = size_of(mem.ty);
        let value = match (mem.ty, self.places.constant(v)) {
            (Ty::V128, _) => match halves {
                Some((lo, hi)) => Stored::Pair(self.clean(lo)?, self.clean(hi)?),
                None => Stored::Xmm(self.xmm(v)?),
            },
            (ty, Some(value)) if mem.endian == Endian::Little && imm_of(ty, value).is_some() => {
                Stored::Imm(imm_of(ty, value).unwrap_or(0))
            }
            _ if mem.endian == Endian::Big => {
                let copy = self.alloc()?;
                self.copy_into(copy, v)?;
                self.swap(mem.ty, copy);
                Stored::Reg(copy)
            }
            _ => Stored::Reg(self.reg(v)?),
        };
        // Nothing else is needed any more: the address wants registers, too.
        self.keep_only(value);
        self.places.lock(FLAGS);
        let vectors = self.places.has_vectors() || mem.ty == Ty::V128;
        if let Some(shared) = shared {
            let host = self.shared(addr, mem, true, shared)?;
            let to = Mem::base(host, shared.offset);
            self.put(size, to, value);
            self.announce_at(to, shared, mem, vectors);
            self.consume_stored(v, halves);
            self.share(self.group_value(shared), shared);
        } else {
            let by = self.locate(addr, mem, value)?;
            let check = self.check(by, mem, true, mem.aligned);
            self.consume_stored(v, halves);
            let ways = self.ways(Kind::Store, mem, vectors);
            self.put(size, check.at, value);
            self.announce(by, mem, vectors);
            self.access_detour(check, Slow::Store { ways, value });
        }
        if mem.ordering == accel_ir::Ordering::SeqCst {
            self.fence();
        }
        Ok(())
    }

    fn consume_stored(&mut self, v: Val, halves: Option<(Val, Val)>) {
        match halves {
            Some((lo, hi)) => {
                self.consume(lo);
                self.consume(hi);
            }
            None => self.consume(v),
        }
    }

    /// Orders stores before loads that follow. Between a CPU that runs alone and devices, devices see to that.
    pub(super) fn fence(&mut self) {
        if !self.env.sole {
            self.asm.lock();
            let stack = Mem::base(crate::asm::RSP, 0);
            self.asm.alu_imm(Alu::Or, Size::D, stack, 0);
        }
    }

    fn put(&mut self, size: Size, to: Mem, value: Stored) {
        match value {
            Stored::Reg(reg) => self.asm.mov_to(size, to, reg),
            Stored::Xmm(reg) => self.asm.movups_to(to, reg),
            Stored::Pair(low, high) => {
                self.asm.mov_to(Size::Q, to, low);
                self.asm.mov_to(Size::Q, to.after(8), high);
            }
            Stored::Imm(imm) => self.asm.mov_imm_to(size, to, imm),
        }
    }

    /// As [`announce`](Self::announce), for a store of a group.
    fn announce_at(&mut self, at: Mem, shared: Shared, mem: &Access, vectors: bool) {
        let by = self.shared_by.get(shared.group as usize).copied().flatten();
        let Some(By::Recent(entry)) = by else { return };
        match self.flags_at {
            Some(known) if known.entry == entry => {
                if let Some(What::AnnounceAt { keeps, .. }) =
                    self.detours.get_mut(known.detour).map(|d| &mut d.what)
                {
                    *keeps = true;
                }
            }
            _ => self.load_flags(entry),
        }
        self.asm.alu_imm(Alu::Cmp, Size::B, Mem::base(FLAGS, 0), 0);
        let from = self.asm.jcc(CC_NE);
        let ways = self.ways(Kind::Announce, mem, vectors);
        let detour = self.detours.len();
        self.flags_at = Some(FlagsAt { entry, detour });
        let what = What::AnnounceAt {
            at,
            entry,
            ways,
            keeps: false,
        };
        self.detour(from, what);
    }

    /// The pointer to the flags of the page that was written last at this entry.
    fn load_flags(&mut self, entry: i32) {
        let flags = Mem::base(RBP, entry + recent::FLAGS);
        self.asm.mov(Size::Q, FLAGS, flags);
    }

    /// Leaves to announce a store if the page's flags say so.
    fn announce(&mut self, by: By, mem: &Access, vectors: bool) {
        self.flags_at = None;
        match by {
            By::Recent(entry) => self.load_flags(entry),
            By::Table(_) => self.asm.mov(Size::Q, FLAGS, Mem::base(LINE, layout::FLAGS)),
        }
        self.asm.alu_imm(Alu::Cmp, Size::B, Mem::base(FLAGS, 0), 0);
        let from = self.asm.jcc(CC_NE);
        let ways = self.ways(Kind::Announce, mem, vectors);
        self.detour(from, What::Announce { by, ways });
    }

    pub(super) fn probe(&mut self, addr: Val, mem: &Access) -> Result<(), TooBig> {
        if let Some(shared) = self.plan.sharing.find(self.block, self.op) {
            if shared.leads {
                self.shared(addr, mem, true, shared)?;
            } else {
                // The group's first has looked at it.
                self.consume(self.group_value(shared));
            }
            return Ok(());
        }
        self.claim(HOST)?;
        let by = self.locate(addr, mem, NOTHING)?;
        let check = self.check(by, mem, true, mem.aligned);
        let vectors = self.places.has_vectors();
        let ways = self.ways(Kind::Probe, mem, vectors);
        self.access_detour(check, Slow::Probe { ways });
        Ok(())
    }
}
