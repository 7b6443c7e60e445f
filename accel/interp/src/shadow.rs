//! An interpreter that runs ahead of other code, without effects: what that code must come to.
//!
//! A [`Shadow`] begins with a copy of a CPU's registers and interprets the units that follow. It loads
//! from plain RAM that is at hand; what it stores it keeps to itself. Where anything else would
//! happen (a device, a page walk, a helper with effects) it stops: the other code does that, once, and
//! [`Shadow::resume`] takes over what came of it. Wherever the other code leaves,
//! [`Shadow::go_back`] brings the shadow to the same instruction, and both can be compared.

use std::sync::Arc;

use accel_core::{
    Access, CONTEXTS, Core, Fast, Map, PageRef, RegFile, SCRATCH, Source, Target, Trap,
};
use accel_ir::{FlagKind, Mem, Rmw, Slot, Ty, Unit, flags};

use crate::cache::Key;
use crate::code::{Code, Loc};
use crate::exec::{self, Flow};
use crate::lower::lower_by_insn;
use crate::machine::{Machine, Outcome, cas_result, rmw_result};

/// Units kept; when there are more, all are made again.
const MOST_UNITS: usize = 1 << 16;
/// Times that running ahead begins anew because reading code walked page tables.
const MOST_TRIES: usize = 8;

/// What a shadow leaves to the other code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A load.
    Load {
        /// Guest address.
        va: u64,
        /// How many bytes.
        bytes: u8,
    },
    /// A store.
    Store {
        /// Guest address.
        va: u64,
        /// How many bytes.
        bytes: u8,
        /// Little-endian.
        value: u128,
    },
    /// What faults as a store would.
    Probe {
        /// Guest address.
        va: u64,
        /// How many bytes.
        bytes: u8,
    },
    /// An atomic operation.
    Atomic {
        /// Guest address.
        va: u64,
        /// How many bytes.
        bytes: u8,
        /// One, or what is expected and what is new.
        operands: [u64; 2],
    },
    /// An access that must be aligned and is not.
    Misaligned {
        /// Guest address.
        va: u64,
        /// How many bytes.
        bytes: u8,
    },
    /// A helper.
    Call {
        /// Its number.
        helper: u16,
        /// Those that it has.
        args: [Option<u64>; 4],
    },
}

impl Stop {
    /// Whether this is what other code asks for.
    pub fn is(&self, asked: &Stop) -> bool {
        match (self, asked) {
            (Stop::Misaligned { va, bytes }, _) => asked.access() == Some((*va, *bytes)),
            (
                Stop::Call { helper, args },
                Stop::Call {
                    helper: other,
                    args: given,
                },
            ) => {
                let same = |(a, b): (&Option<u64>, &Option<u64>)| a.is_none() || a == b;
                helper == other && args.iter().zip(given).all(same)
            }
            _ => self == asked,
        }
    }

    /// Address and size of what it accesses.
    pub fn access(&self) -> Option<(u64, u8)> {
        match *self {
            Stop::Load { va, bytes }
            | Stop::Store { va, bytes, .. }
            | Stop::Probe { va, bytes }
            | Stop::Atomic { va, bytes, .. }
            | Stop::Misaligned { va, bytes } => Some((va, bytes)),
            Stop::Call { .. } => None,
        }
    }
}

/// A unit, and what it was made from.
struct Made {
    code: Code,
    unit: Unit,
    start: u64,
    bytes: Vec<u8>,
}

impl Made {
    /// The number, from 0, of the instruction that an operation is of.
    fn insn_of(&self, at: u32) -> u64 {
        let after = self.code.marks.partition_point(|(start, _)| *start <= at);
        after.saturating_sub(1) as u64
    }
}

/// A unit that was run, and instructions before it.
struct Run {
    before: u64,
    pc: u64,
    made: Arc<Made>,
}

/// When something was done: number of the run, and operation in its unit.
type When = (u32, u32);

struct Write {
    when: When,
    loc: Loc,
    old: u64,
}

#[derive(Clone, Copy)]
struct Store {
    when: When,
    ctx: u8,
    va: u64,
    host: u64,
    bytes: u8,
    value: u64,
}

struct Load {
    ctx: u8,
    va: u64,
    host: u64,
    bytes: u8,
    value: u64,
}

/// Bytes in memory that differ from what was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Differing {
    /// Address of the first.
    pub va: u64,
    /// What the shadow stored, and what is there.
    pub bytes: [u8; 2],
}

/// How far to run ahead.
#[derive(Clone, Copy)]
pub struct Distance<'a> {
    /// More than so many instructions.
    pub insns: u64,
    /// So many more where the other code may only leave after some of these units: by address, page, mode
    /// and the target's extra key.
    pub more: u64,
    /// Those units.
    pub is_long: &'a dyn Fn([u64; 4]) -> bool,
}

/// Where running ahead goes on: operation, and what the one before came to.
#[derive(Default)]
struct Start {
    at: usize,
    answer: Option<u128>,
    insns: u64,
    /// All slots, scratch slots too.
    regs: RegFile,
}

/// See the module.
pub struct Shadow {
    units: Map<Key, Arc<Made>>,
    state: State,
    runs: Vec<Run>,
    start: Start,
    /// Instructions done in units that were left.
    insns: u64,
    /// Pages that code was found in since the beginning, or since pages may be mapped otherwise: guest's
    /// address and identity.
    pages: Vec<(u64, u64)>,
    /// Of the translations that they are true for.
    changes: u64,
    /// Instructions up to and with the one that was resumed last: no way back before that.
    done: u64,
    stopped: Option<usize>,
    /// Reading code walked page tables: what was at hand before may not be any more.
    has_walked: bool,
    /// One of the units that the other code leaves late was among them.
    has_long: bool,
}

/// What flat code works on.
struct State {
    regs: RegFile,
    /// Registers at the beginning.
    before: RegFile,
    run: u32,
    at: u32,
    writes: Vec<Write>,
    stores: Vec<Store>,
    loads: Vec<Load>,
    words: Words,
    answer: Option<u128>,
    stop: Option<Stop>,
}

impl Default for Shadow {
    fn default() -> Self {
        Shadow {
            units: Map::default(),
            state: State {
                regs: RegFile::default(),
                before: RegFile::default(),
                run: 0,
                at: 0,
                writes: Vec::new(),
                stores: Vec::new(),
                loads: Vec::new(),
                words: Words::default(),
                answer: None,
                stop: None,
            },
            runs: Vec::new(),
            start: Start::default(),
            insns: 0,
            pages: Vec::new(),
            changes: 0,
            done: 0,
            stopped: None,
            has_walked: false,
            has_long: false,
        }
    }
}

impl Shadow {
    /// Begins anew where the CPU is, and runs ahead of it for about so many instructions. Flags may be
    /// others than the CPU's.
    pub fn begin<T: Target>(
        &mut self,
        core: &mut Core<T>,
        flags: Option<[u64; 4]>,
        distance: Distance<'_>,
    ) {
        self.state.regs = core.regs.clone();
        if let Some(flags) = flags {
            set_flags::<T>(&mut self.state.regs, flags);
        }
        self.state.before = self.state.regs.clone();
        self.state.forget();
        self.runs.clear();
        self.forget_pages(core);
        self.insns = 0;
        self.has_long = false;
        self.done = 0;
        self.start = Start {
            regs: self.state.regs.clone(),
            ..Start::default()
        };
        self.run_ahead(core, distance);
    }

    /// What the shadow stopped at, and the address of the instruction; `None` if it ran ahead as far as
    /// it should.
    pub fn stop(&self) -> Option<(Stop, u64)> {
        let run = self.runs.last()?;
        let insn = run.made.insn_of(self.stopped? as u32);
        let (_, pc) = run.made.code.marks.get(insn as usize)?;
        Some((self.state.stop?, *pc))
    }

    /// Instructions that are complete.
    pub fn insns(&self) -> u64 {
        match (self.runs.last(), self.stopped) {
            (Some(run), Some(at)) => run.before + run.made.insn_of(at as u32),
            _ => self.insns,
        }
    }

    /// The other code has done what the shadow stopped at, with this result. Registers that changed from
    /// `before` to what the CPU has now are taken over. Runs ahead again.
    pub fn resume<T: Target>(
        &mut self,
        core: &mut Core<T>,
        before: &RegFile,
        answer: u128,
        distance: Distance<'_>,
    ) {
        let Some(at) = self.stopped else { return };
        let done = self.insns() + 1;
        let flags = T::LAYOUT.flags.0;
        let mut changed: Vec<u8> = (0..=u8::MAX)
            .filter(|slot| core.regs.get(Slot(*slot)) != before.get(Slot(*slot)))
            .collect();
        if changed.iter().any(|slot| (flags..flags + 4).contains(slot)) {
            changed.extend(flags..flags + 4);
        }
        for slot in changed {
            self.state.regs.set(Slot(slot), core.regs.get(Slot(slot)));
        }
        self.state.forget();
        if core.mmu.changes() != self.changes {
            self.forget_pages(core);
        }
        // Only the unit at hand is gone on with.
        let last = self.runs.len().saturating_sub(1);
        self.runs.drain(..last);
        self.done = done;
        self.start = Start {
            at,
            answer: Some(answer),
            insns: self.insns,
            regs: self.state.regs.clone(),
        };
        self.run_ahead(core, distance);
    }

    fn forget_pages<T: Target>(&mut self, core: &Core<T>) {
        self.pages.clear();
        self.changes = core.mmu.changes();
    }

    /// Whether it could not begin: nothing can be compared.
    pub fn is_blank(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether the state at the end of so many instructions can be had by going back.
    pub fn has(&self, insns: u64) -> bool {
        (self.done..=self.insns()).contains(&insns) && !self.runs.is_empty()
    }

    /// Goes back to the end of so many instructions; see [`has`](Self::has). Returns the PC there.
    pub fn go_back<T: Target>(&mut self, insns: u64) -> u64 {
        let runs = &self.runs;
        let is_later = |(run, at): When| {
            let run = runs.get(run as usize);
            run.is_none_or(|run| run.before >= insns || run.before + run.made.insn_of(at) >= insns)
        };
        let state = &mut self.state;
        while let Some(write) = state.writes.pop_if(|write| is_later(write.when)) {
            state.regs.raw()[usize::from(write.loc)] = write.old;
        }
        while state.stores.pop_if(|store| is_later(store.when)).is_some() {}
        if self.stopped.is_none() && insns == self.insns {
            return state.regs.get(T::LAYOUT.pc);
        }
        let Some(run) = runs.iter().rev().find(|run| run.before <= insns) else {
            return state.regs.get(T::LAYOUT.pc);
        };
        match run.made.code.marks.get((insns - run.before) as usize) {
            Some((_, pc)) if insns > run.before => *pc,
            _ => run.pc,
        }
    }

    /// The registers.
    pub fn regs(&self) -> &RegFile {
        &self.state.regs
    }

    /// The registers at the beginning.
    pub fn before(&self) -> &RegFile {
        &self.state.before
    }

    /// Bytes that were stored and are not in memory.
    pub fn differing<T: Target>(&self, core: &Core<T>) -> Option<Differing> {
        let mut words = Words::default();
        for store in &self.state.stores {
            words.store(store.host, store.bytes, store.value);
        }
        for store in &self.state.stores {
            // What is not at hand any more cannot be looked at without effects.
            let found = core
                .mmu
                .peek(store.ctx, store.va, store.bytes, Access::Write);
            let Some(found) = found.map(|found| found.value) else {
                continue;
            };
            let wanted = words.over(store.host, store.bytes, found);
            if wanted != found {
                let first = (wanted ^ found).trailing_zeros() / 8;
                let byte = |value: u64| (value >> (8 * first)) as u8;
                return Some(Differing {
                    va: store.va.wrapping_add(first.into()),
                    bytes: [byte(wanted), byte(found)],
                });
            }
        }
        None
    }

    /// Whether somebody else has changed memory that was loaded from.
    pub fn is_disturbed<T: Target>(&self, core: &Core<T>) -> bool {
        self.state.loads.iter().any(|load| {
            let is_own = |store: &Store| {
                store.host < load.host + u64::from(load.bytes)
                    && load.host < store.host + u64::from(store.bytes)
            };
            let now = core.mmu.peek(load.ctx, load.va, load.bytes, Access::Read);
            now.is_some_and(|now| now.value != load.value) && !self.state.stores.iter().any(is_own)
        })
    }

    /// The guest code and IR that was run up to the end of so many instructions, or is stopped in: the
    /// last unit.
    pub fn describe<T: Target>(&self, core: &Core<T>, insns: u64) -> String {
        let last = match self.stopped {
            Some(_) => insns,
            None => insns.saturating_sub(1),
        };
        let Some(run) = self.runs.iter().rev().find(|run| run.before <= last) else {
            return String::new();
        };
        let Made {
            unit, start, bytes, ..
        } = &*run.made;
        let code = T::disassemble(core, *start, bytes);
        format!("guest code:{code}\nas IR:\n{unit}")
    }

    /// Forgets all units.
    pub fn flush(&mut self) {
        self.units.clear();
        self.runs.clear();
    }

    /// The other code has made more memory at hand, before what the shadow stopped at: goes on if it
    /// can by now.
    pub fn go_on<T: Target>(&mut self, core: &mut Core<T>, distance: Distance<'_>) {
        let (Some(at), Some(stop)) = (self.stopped, self.state.stop) else {
            return;
        };
        let (Some((va, bytes)), false) = (stop.access(), matches!(stop, Stop::Misaligned { .. }))
        else {
            return;
        };
        let [first, last] = [va, va.wrapping_add(u64::from(bytes) - 1)];
        let is_there =
            |va| (0..CONTEXTS as u8).any(|ctx| core.mmu.peek(ctx, va, 1, Access::Read).is_some());
        if !is_there(first) || !is_there(last) {
            return;
        }
        self.stopped = None;
        self.state.stop = None;
        self.has_walked = false;
        self.work(core, at, distance);
        if self.has_walked {
            // It cannot begin anew: the other code has stored meanwhile.
            self.runs.clear();
            self.stopped = None;
        }
    }

    fn run_ahead<T: Target>(&mut self, core: &mut Core<T>, distance: Distance<'_>) {
        for _ in 0..MOST_TRIES {
            self.has_walked = false;
            self.insns = self.start.insns;
            self.state.answer = self.start.answer;
            self.stopped = None;
            self.state.stop = None;
            self.try_ahead(core, distance);
            if !self.has_walked {
                return;
            }
            self.state.regs.clone_from(&self.start.regs);
            self.state.forget();
            self.runs.truncate(usize::from(self.start.answer.is_some()));
        }
        // Pages that evict each other: nothing is known.
        self.runs.clear();
        self.stopped = None;
    }

    fn try_ahead<T: Target>(&mut self, core: &mut Core<T>, distance: Distance<'_>) {
        if self.start.answer.is_some() || self.enter(core, distance) {
            self.work(core, self.start.at, distance);
        }
    }

    /// Runs from an operation of the last unit on.
    fn work<T: Target>(&mut self, core: &mut Core<T>, mut from: usize, distance: Distance<'_>) {
        loop {
            let Some(run) = self.runs.last() else { return };
            let made = run.made.clone();
            self.state.run = self.runs.len() as u32 - 1;
            let mut ahead = Ahead {
                core,
                state: &mut self.state,
            };
            match exec::run(&mut ahead, &made.code, from, made.code.ops.len()) {
                Flow::Done(done) => self.insns += u64::from(done),
                Flow::Trap(_, at) => {
                    self.stopped = Some(at);
                    return;
                }
                Flow::Fell(_) => return,
            }
            let more = if self.has_long { distance.more } else { 0 };
            let is_far = self.insns > self.done + distance.insns + more;
            if is_far || !self.enter(core, distance) {
                return;
            }
            from = 0;
        }
    }

    /// Begins the unit at the shadow's PC.
    fn enter<T: Target>(&mut self, core: &mut Core<T>, distance: Distance<'_>) -> bool {
        let kept = core.pc();
        let pc = self.state.regs.get(T::LAYOUT.pc);
        core.set_pc(pc);
        let made = self.find(core, distance);
        core.set_pc(kept);
        match made {
            Some(made) => {
                let before = self.insns;
                self.runs.push(Run { before, pc, made });
                true
            }
            None => false,
        }
    }

    fn find<T: Target>(&mut self, core: &mut Core<T>, distance: Distance<'_>) -> Option<Arc<Made>> {
        const PAGE: u64 = !(hw_memory::PAGE_SIZE - 1);
        let va = T::fetch_address(core);
        let ctx = T::fetch_ctx(core);
        let known = self.pages.iter().find(|(page, _)| *page == va & PAGE);
        let page = match (core.mmu.fetch_page(ctx, va), known) {
            (Some(page), _) => page,
            // Code goes on in a page that it is in, whatever is at hand.
            (None, Some((_, page))) => *page,
            (None, None) => return None,
        };
        if known.is_none() {
            self.pages.push((va & PAGE, page));
        }
        let key = Key {
            va,
            page,
            mode: core.mode,
            extra: T::extra_key(core),
            single: false,
        };
        self.has_long =
            self.has_long || (distance.is_long)([key.va, key.page, key.mode, key.extra]);
        let next = (va | !PAGE).wrapping_add(1);
        let holds = |made: &Arc<Made>| {
            let pages = &made.code.pages;
            pages.iter().all(PageRef::is_current)
                && pages
                    .get(1)
                    .is_none_or(|page| core.mmu.fetch_page(ctx, next) == Some(page.page_id()))
        };
        if let Some(made) = self.units.get(&key).cloned().filter(holds) {
            return Some(made);
        }
        let is_at_hand = [va, next].map(|va| core.mmu.fetch_page(ctx, va).is_some());
        let made = make(core, va, ctx).map(Arc::new);
        let is_long = made.as_ref().is_some_and(|made| made.code.pages.len() > 1);
        self.has_walked |= !is_at_hand[0] || is_long && !is_at_hand[1];
        let is_there =
            |made: &Arc<Made>| made.code.pages.first().map(PageRef::page_id) == Some(page);
        let made = made.filter(is_there)?;
        if self.units.len() >= MOST_UNITS {
            self.units.clear();
        }
        self.units.insert(key, made.clone());
        Some(made)
    }
}

/// Makes the unit at the PC.
fn make<T: Target>(core: &mut Core<T>, va: u64, ctx: u8) -> Option<Made> {
    let mut limit = core.unit_limit();
    loop {
        let made = Source::new(core, va, ctx).and_then(|mut source| {
            let unit = T::translate(core, &mut source, limit)?;
            Ok((source, unit))
        });
        let (source, unit) = match made {
            Ok(made) => made,
            Err(trap) => {
                if trap == Trap::Exception {
                    T::forget(core);
                }
                return None;
            }
        };
        let Ok(mut code) = lower_by_insn::<T>(&unit) else {
            if unit.insns <= 1 {
                return None;
            }
            limit = limit.min(unit.insns) / 2;
            continue;
        };
        let bytes = source.code().to_vec();
        code.pages = source.track().filter(|pages| !pages.is_empty())?;
        return Some(Made {
            code,
            unit,
            start: va,
            bytes,
        });
    }
}

/// The slots of lazy flags.
pub fn lazy_flags<T: Target>(regs: &RegFile) -> [u64; 4] {
    std::array::from_fn(|i| regs.get(Slot(T::LAYOUT.flags.0 + i as u8)))
}

fn set_flags<T: Target>(regs: &mut RegFile, flags: [u64; 4]) {
    for (i, value) in flags.into_iter().enumerate() {
        regs.set(Slot(T::LAYOUT.flags.0 + i as u8), value);
    }
}

/// All flags of a register file, as the guest sees them.
pub fn packed_flags<T: Target>(regs: &RegFile) -> u64 {
    let [number, a, b, c] = lazy_flags::<T>(regs);
    let (kind, ty) = FlagKind::of(number);
    flags::pack(kind, ty, a & ty.mask(), b & ty.mask(), c) & T::LAYOUT.seen_flags
}

/// Memory as it is after stores, by words of 8 bytes: their bytes, and which of them were stored.
#[derive(Default)]
struct Words {
    words: Map<u64, (u64, u64)>,
    /// Bits that say that a word may be among them.
    filter: u64,
}

impl Words {
    fn clear(&mut self) {
        if self.filter != 0 {
            self.words.clear();
            self.filter = 0;
        }
    }

    /// Calls `each` with the words of some bytes: number, and shift of their first byte.
    fn of(host: u64, bytes: u8, mut each: impl FnMut(u64, i32)) {
        let at = (host & 7) as i32;
        each(host >> 3, 8 * at);
        if at + i32::from(bytes) > 8 {
            each((host >> 3) + 1, 8 * at - 64);
        }
    }

    fn store(&mut self, host: u64, bytes: u8, value: u64) {
        let mask = Ty::of_bytes(bytes.into()).mask();
        Self::of(host, bytes, |word, by| {
            self.filter |= 1 << (word & 63);
            let (old, stored) = self.words.entry(word).or_default();
            let (value, mask) = (shift(value & mask, by), shift(mask, by));
            *old = *old & !mask | value;
            *stored |= mask;
        });
    }

    /// What is there, with what was stored over it.
    fn over(&self, host: u64, bytes: u8, value: u64) -> u64 {
        let mut all = value;
        Self::of(host, bytes, |word, by| {
            if self.filter >> (word & 63) & 1 != 0
                && let Some((value, stored)) = self.words.get(&word)
            {
                let stored = shift(*stored, -by) & Ty::of_bytes(bytes.into()).mask();
                all = all & !stored | shift(*value, -by) & stored;
            }
        });
        all
    }
}

/// To the left, or to the right if negative.
fn shift(value: u64, by: i32) -> u64 {
    let shifted = match by {
        0.. => value.checked_shl(by.unsigned_abs()),
        _ => value.checked_shr(by.unsigned_abs()),
    };
    shifted.unwrap_or(0)
}

impl State {
    fn forget(&mut self) {
        self.writes.clear();
        self.stores.clear();
        self.loads.clear();
        self.words.clear();
    }

    fn store(&mut self, store: Store) {
        self.words.store(store.host, store.bytes, store.value);
        self.stores.push(store);
    }

    fn stop(&mut self, stop: Stop) -> Trap {
        self.stop = Some(stop);
        Trap::Leave
    }
}

/// A shadow at work, beside the CPU that it is of.
struct Ahead<'a, T: Target> {
    core: &'a mut Core<T>,
    state: &'a mut State,
}

impl<T: Target> Ahead<'_, T> {
    fn read(&mut self, ctx: u8, va: u64, bytes: u8) -> Option<u64> {
        if let Some(answer) = self.state.answer.take() {
            return Some(answer as u64);
        }
        let found = self.core.mmu.peek(ctx, va, bytes, Access::Read)?;
        let (host, value) = (found.host, found.value);
        self.state.loads.push(Load {
            ctx,
            va,
            host,
            bytes,
            value,
        });
        Some(self.state.words.over(host, bytes, value))
    }

    fn write(&mut self, ctx: u8, va: u64, bytes: u8, value: u64) -> Fast<()> {
        if self.state.answer.take().is_some() {
            return Fast::Done(());
        }
        let Some(found) = self.core.mmu.peek(ctx, va, bytes, Access::Write) else {
            return Fast::Slow;
        };
        self.state.store(Store {
            when: (self.state.run, self.state.at),
            ctx,
            va,
            host: found.host,
            bytes,
            value,
        });
        Fast::Done(())
    }

    fn is_at_hand(&self, ctx: u8, va: u64, access: Access) -> bool {
        let peek = |va| self.core.mmu.peek(ctx, va, 8, access).is_some();
        let second = va.wrapping_add(8);
        (va ^ va.wrapping_add(15)) >> hw_memory::PAGE_BITS == 0 && peek(va) && peek(second)
    }

    fn update(
        &mut self,
        va: u64,
        mem: &Mem,
        operands: [u64; 2],
        update: impl FnOnce(u64) -> Option<u64>,
    ) -> Outcome<u64> {
        if let Some(answer) = self.state.answer.take() {
            return Ok(answer as u64);
        }
        let bytes = mem.ty.bytes();
        if (va.is_multiple_of(u64::from(bytes)) || self.core.sole && !mem.aligned)
            && let Some(found) = self.core.mmu.peek(mem.ctx, va, bytes, Access::Write)
        {
            let old = self.state.words.over(found.host, bytes, found.value);
            if let Some(new) = update(old) {
                self.write(mem.ctx, va, bytes, new);
            }
            return Ok(old);
        }
        Err(self.state.stop(Stop::Atomic {
            va,
            bytes,
            operands,
        }))
    }
}

macro_rules! accesses {
    ($($load:ident $store:ident $t:ty;)*) => {
        $(
            fn $load(&mut self, ctx: u8, va: u64) -> Option<$t> {
                Some(self.read(ctx, va, size_of::<$t>() as u8)? as $t)
            }

            fn $store(&mut self, ctx: u8, va: u64, value: $t) -> Fast<()> {
                self.write(ctx, va, size_of::<$t>() as u8, value.into())
            }
        )*
    };
}

impl<T: Target> Machine for Ahead<'_, T> {
    type Target = T;

    fn get(&mut self, loc: Loc) -> u64 {
        self.state.regs.raw()[usize::from(loc) & 511]
    }

    fn set(&mut self, loc: Loc, value: u64) {
        let cell = &mut self.state.regs.raw()[usize::from(loc) & 511];
        let old = std::mem::replace(cell, value);
        if usize::from(loc) < SCRATCH {
            let when = (self.state.run, self.state.at);
            self.state.writes.push(Write { when, loc, old });
        }
    }

    fn at(&mut self, at: usize) {
        self.state.at = at as u32;
    }

    accesses! {
        load8 store8 u8;
        load16 store16 u16;
        load32 store32 u32;
        load64 store64 u64;
    }

    fn load_slow(&mut self, va: u64, bytes: u8, _: u8) -> Outcome<u64> {
        Err(self.state.stop(Stop::Load { va, bytes }))
    }

    fn load_v(&mut self, va: u64, ctx: u8) -> Outcome<u128> {
        if let Some(answer) = self.state.answer.take() {
            return Ok(answer);
        }
        if self.is_at_hand(ctx, va, Access::Read)
            && let (Some(low), Some(high)) =
                (self.read(ctx, va, 8), self.read(ctx, va.wrapping_add(8), 8))
        {
            return Ok(u128::from(low) | u128::from(high) << 64);
        }
        Err(self.state.stop(Stop::Load { va, bytes: 16 }))
    }

    fn store_slow(&mut self, va: u64, bytes: u8, value: u64, _: u8) -> Outcome<()> {
        let value = (value & Ty::of_bytes(bytes.into()).mask()).into();
        Err(self.state.stop(Stop::Store { va, bytes, value }))
    }

    fn store_v(&mut self, va: u64, value: u128, ctx: u8) -> Outcome<()> {
        if self.state.answer.take().is_some() {
            return Ok(());
        }
        if self.is_at_hand(ctx, va, Access::Write) {
            self.write(ctx, va, 8, value as u64);
            self.write(ctx, va.wrapping_add(8), 8, (value >> 64) as u64);
            return Ok(());
        }
        let bytes = 16;
        Err(self.state.stop(Stop::Store { va, bytes, value }))
    }

    fn probe(&mut self, va: u64, mem: &Mem) -> Outcome<()> {
        let bytes = mem.ty.bytes();
        let peek = |va| self.core.mmu.peek(mem.ctx, va, 1, Access::Write).is_some();
        let last = va.wrapping_add(u64::from(bytes) - 1);
        if self.state.answer.take().is_some() || peek(va) && peek(last) {
            return Ok(());
        }
        Err(self.state.stop(Stop::Probe { va, bytes }))
    }

    fn rmw(&mut self, op: Rmw, va: u64, v: u64, mem: &Mem) -> Outcome<u64> {
        let operands = [v & mem.ty.mask(), 0];
        self.update(va, mem, operands, |old| Some(rmw_result(op, old, v, mem)))
    }

    fn cas(&mut self, va: u64, expected: u64, new: u64, mem: &Mem) -> Outcome<u64> {
        let operands = [expected & mem.ty.mask(), new & mem.ty.mask()];
        self.update(va, mem, operands, |old| cas_result(old, expected, new, mem))
    }

    fn misaligned(&mut self, va: u64, mem: &Mem, _: Access) -> Trap {
        let bytes = mem.ty.bytes();
        self.state.stop(Stop::Misaligned { va, bytes })
    }

    fn call(&mut self, helper: u16, args: [Option<u64>; 4]) -> Outcome<u64> {
        if let Some(answer) = self.state.answer.take() {
            return Ok(answer as u64);
        }
        if let Some(known) = T::helpers().get(usize::from(helper))
            && known.is_plain()
        {
            let args = args.map(Option::unwrap_or_default);
            match (known.run)(self.core, args) {
                Ok(value) => return Ok(value),
                Err(Trap::Exception) => T::forget(self.core),
                Err(_) => {}
            }
        }
        Err(self.state.stop(Stop::Call { helper, args }))
    }

    fn code_hit(&mut self) -> bool {
        false
    }

    fn fence(&mut self) {}
}
