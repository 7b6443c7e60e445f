//! The executor: finds or makes the unit at the PC, runs generated code, acts on why it returned.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use accel_core::{
    Access, Core, Executor, Exit, Map, PageRef, Pending, Source, Target, Trap, reason,
};
use accel_interp::Interp;
use accel_softmmu::Mmu;
use hw_memory::{CodeWatcher, RamBlock};

use crate::cache::{Cache, Id, Key};
use crate::check::Check;
use crate::compile::{self, BIAS, Env, Map as Registers, Member, PINNED, Where, Workshop, compile};
use crate::grow;
use crate::listing::{PerfMap, listing};
use crate::memory::{CodeMemory, CodeMemoryError, cell};
use crate::runtime;
use crate::table;
use crate::thunks::{self, Tables, out};

/// What [`Jit::slice`] is.
const SLICE: i64 = i16::MAX as i64;
/// Most bytes of code kept if nothing else is asked for.
pub const DEFAULT_CODE: usize = 64 << 20;
/// Fewest bytes of code kept.
const LEAST_CODE: usize = 1 << 20;
/// Most bytes of code kept: jumps reach 2 GiB.
const MOST_CODE: usize = 1 << 30;
/// Stale pages noted one by one; beyond, everything is looked at.
const MOST_STALE: usize = 4096;

/// Modes numbered, and units known to be the interpreter's, each: a guest can make up any number.
const MOST_REMEMBERED: usize = 4096;

/// What overwriters of code tell a CPU.
struct Stale {
    /// Pages and granules of them.
    pages: Mutex<Vec<(u64, u64)>>,
    overflow: AtomicBool,
    pending: Arc<Pending>,
}

impl CodeWatcher for Stale {
    fn stale(&self, page: u64, granules: u64) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = pages.len() >= MOST_STALE;
        match pages.last_mut() {
            Some((last, all)) if *last == page => *all |= granules,
            _ if is_full => self.overflow.store(true, Ordering::SeqCst),
            _ => pages.push((page, granules)),
        }
        drop(pages);
        self.pending.raise(reason::CODE);
    }
}

/// What the JIT did, for `info jit`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Statistics {
    compiled: u64,
    pub(crate) regions: u64,
    /// Units whose accesses share no checks.
    wary: u64,
    /// Units left to the interpreter.
    left: u64,
    /// Times generated code was entered.
    entries: u64,
}

/// What calls that the guest has not returned from depend on.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Calls {
    mode: u32,
    /// Of [`Cache::forgotten`].
    forgotten: u64,
    /// Of [`Mmu::changes`].
    changes: u64,
}

/// Compiles and runs the units of one CPU.
pub struct Jit<T: Target> {
    pub(crate) cache: Cache,
    pub(crate) env: Env,
    /// For compiling.
    pub(crate) shop: Workshop,
    interp: Interp,
    enter: extern "C" fn(*mut u8, *const u8) -> Out,
    /// Numbers of modes in generated code.
    modes: Map<(u64, u64), u32>,
    /// Modes asked for lately, and their numbers; none has 0.
    last_modes: [((u64, u64), u32); 4],
    stale: Option<Arc<Stale>>,
    /// Blocks of memory whose overwriters tell, by identity, which the reference keeps from being used
    /// again.
    watched: Map<usize, Weak<RamBlock>>,
    /// Units that the interpreter runs.
    left: Map<Key, ()>,
    /// Reasons in the pending word that were looked at and cannot be acted on yet: whatever changes
    /// that leaves generated code.
    seen: u32,
    pub(crate) statistics: Statistics,
    /// What the calls on the stack of generated code are true for.
    calls: Calls,
    perf_map: Option<PerfMap>,
    /// Most instructions between two looks of generated code at anything else.
    pub(crate) slice: i64,
    /// Samples after which a unit is hot.
    pub(crate) hot: u8,
    /// Lock step with the interpreter.
    pub(crate) check: Option<Box<Check>>,
    /// Spoils units before they are compiled.
    #[cfg(test)]
    pub(crate) spoil: Option<fn(&mut accel_ir::Unit)>,
    target: std::marker::PhantomData<fn(T)>,
}

/// How generated code returned.
#[repr(C)]
struct Out {
    why: u64,
    site: u64,
}

/// The unit to run next.
enum Found {
    Code(Id),
    /// It is the interpreter's.
    Interpret,
}

impl<T: Target> Jit<T> {
    /// An executor that keeps up to `code_bytes` of code.
    pub fn new(code_bytes: usize) -> Result<Self, CodeMemoryError> {
        let len = code_bytes
            .clamp(LEAST_CODE, MOST_CODE)
            .next_multiple_of(4096);
        let memory = Arc::new(CodeMemory::new(len)?);
        let base = std::mem::offset_of!(Core<T>, regs) as i32 + BIAS;
        let pinned: Vec<_> = T::LAYOUT.pinned.iter().copied().zip(PINNED).collect();
        let slots: Vec<usize> = pinned.iter().map(|(slot, _)| slot.0.into()).collect();
        let core = -base;
        let functions = runtime::functions::<T>();
        let mmu = std::mem::offset_of!(Core<T>, mmu) as i32 - base;
        let tables = Tables {
            hot: mmu + Mmu::HOT as i32,
            recent: mmu + Mmu::RECENT as i32,
        };
        let state = std::mem::offset_of!(Core<T>, arch) as i32 - base;
        let x87 = T::LAYOUT.x87.map(|at| thunks::Cells::new(&at, state));
        let (thunks, code) = thunks::make(
            cell::CODE,
            &slots,
            core,
            &T::LAYOUT,
            tables,
            x87.as_ref(),
            &functions,
        );
        memory.write(cell::CODE, &code);
        let first = (cell::CODE + code.len()).next_multiple_of(64);
        memory.call_from_nowhere(thunks::NO_PC, thunks.nowhere);
        let entry = memory.address(thunks.enter);
        // SAFETY: the thunk made for this has this signature and keeps the calling convention.
        let enter = unsafe {
            std::mem::transmute::<*mut u8, extern "C" fn(*mut u8, *const u8) -> Out>(entry)
        };
        Ok(Jit {
            cache: Cache::new(memory, first, thunks.link),
            env: Env {
                map: Registers::new(&pinned, &[]),
                layout: T::LAYOUT,
                hot: tables.hot,
                recent: tables.recent,
                thunks,
                x87,
                sole: false,
                always_looks: false,
                effects: |number| {
                    T::helpers()
                        .get(usize::from(number))
                        .map_or(accel_core::Effects::ALL, |h| h.effects)
                },
                intrinsic: |number| T::helpers().get(usize::from(number))?.intrinsic,
            },
            shop: Workshop::default(),
            interp: Interp::default(),
            enter,
            modes: Map::default(),
            last_modes: [((u64::MAX, u64::MAX), 0); 4],
            stale: None,
            watched: Map::default(),
            left: Map::default(),
            seen: 0,
            statistics: Statistics::default(),
            calls: Calls::default(),
            perf_map: None,
            slice: SLICE,
            hot: grow::HOT,
            check: None,
            #[cfg(test)]
            spoil: None,
            target: std::marker::PhantomData,
        })
    }

    /// Samples once in so many instructions, and makes regions of what is sampled once: for tests.
    pub fn hasten(&mut self, slice: i64) {
        self.slice = slice;
        self.hot = 1;
    }

    #[cfg(test)]
    fn spoiled(&self, mut unit: accel_ir::Unit) -> accel_ir::Unit {
        if let Some(spoil) = self.spoil {
            spoil(&mut unit);
        }
        unit
    }

    /// Names code for `perf` from now on.
    ///
    /// # Errors
    /// When the file cannot be had.
    pub fn map_for_perf(&mut self) -> std::io::Result<()> {
        let mut map = PerfMap::open()?;
        let memory = &self.cache.memory;
        let thunks = self.cache.origin() - cell::CODE;
        map.add(memory.address(cell::CODE) as u64, thunks, "mimic:thunks");
        self.perf_map = Some(map);
        Ok(())
    }

    /// Shows new code to whoever wants to see it.
    pub(crate) fn show(&mut self, core: &Core<T>, va: u64, kind: &str) {
        let code = &self.shop.made.code;
        let start = self.cache.memory.address(self.cache.origin()) as u64;
        if log::log_enabled!(target: "out_asm", log::Level::Trace) && core.log_filter.has(va) {
            let text = listing(code, start);
            let bytes = code.len();
            log::trace!(target: "out_asm", "OUT: {kind} at {va:#x}, {bytes} bytes{text}");
        }
        if let Some(map) = &mut self.perf_map {
            map.add(start, code.len(), &format!("{kind}:{va:#x}"));
        }
    }

    /// Has everybody who wants this CPU's attention reach it in generated code too.
    fn attach(&mut self, core: &Core<T>) -> Arc<Stale> {
        let memory = Arc::downgrade(&self.cache.memory);
        core.pending.set_kick(move || {
            if let Some(memory) = memory.upgrade() {
                memory.kick();
            }
        });
        let stale = Arc::new(Stale {
            pages: Mutex::default(),
            overflow: AtomicBool::new(false),
            pending: core.pending.clone(),
        });
        self.stale = Some(stale.clone());
        stale
    }

    /// Forgets what was overwritten.
    #[cold]
    fn forget_stale(&mut self, core: &mut Core<T>) {
        let Some(stale) = &self.stale else { return };
        let mut pages = stale.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let pages = std::mem::take(&mut *pages);
        if stale.overflow.swap(false, Ordering::SeqCst) {
            self.cache.clear();
            return;
        }
        for (page, granules) in pages {
            core.counters.stale += self.cache.kill_code(page, granules);
        }
    }

    fn mode_number(&mut self, core: &Core<T>) -> u32 {
        let now = (core.mode, T::extra_key(core));
        let known = self.last_modes.iter().find(|(mode, _)| *mode == now);
        if let Some((_, number)) = known {
            return *number;
        }
        let number = self.number_of(now);
        self.last_modes.rotate_right(1);
        self.last_modes[0] = (now, number);
        number
    }

    fn number_of(&mut self, mode: (u64, u64)) -> u32 {
        if self.modes.len() >= MOST_REMEMBERED {
            // Numbers begin anew, so that the table must not know the old ones.
            self.modes.clear();
            self.last_modes = [((u64::MAX, u64::MAX), 0); 4];
            table::clear(&self.cache.memory);
        }
        let next = self.modes.len() as u32 + 1;
        *self.modes.entry(mode).or_insert(next)
    }

    /// The unit at the PC.
    fn find(&mut self, core: &mut Core<T>) -> Result<Found, Trap> {
        self.find_one(core, false)
    }

    /// The unit at the PC; one whose accesses share no checks if asked for.
    fn find_one(&mut self, core: &mut Core<T>, is_wary: bool) -> Result<Found, Trap> {
        let va = T::fetch_address(core);
        let ctx = T::fetch_ctx(core);
        let mut key = Key {
            va,
            page: 0,
            mode: core.mode,
            extra: T::extra_key(core),
            is_wary,
        };
        if let Some(page) = core.mmu.fetch_page(ctx, va) {
            key.page = page;
            if let Some(id) = self.cache.find(&key)
                && let Some(id) = self.code_of(core, id, ctx)?
            {
                return Ok(Found::Code(id));
            }
            if self.left.contains_key(&key) {
                return Ok(Found::Interpret);
            }
        }
        self.make(core, key, ctx)
    }

    /// The code to run for a unit: its own, or that of the region it begins.
    fn code_of(&self, core: &mut Core<T>, id: Id, ctx: u8) -> Result<Option<Id>, Trap> {
        if let Some(region) = self.cache.region_of(id)
            && let Some(block) = self.cache.get(region)
        {
            // Its other pages may only have left the translation bank.
            let mut is_same = |(va, id): &(u64, u32)| {
                if core.mmu.exec_id(ctx, *va) == 0
                    && core.translate_for(*va, Access::Fetch, ctx).is_err()
                {
                    T::forget(core);
                }
                core.mmu.exec_id(ctx, *va) == *id
            };
            if block.others().iter().all(&mut is_same) {
                return Ok(Some(region));
            }
        }
        Ok(self.holds(core, id, ctx)?.then_some(id))
    }

    /// Whether a unit that crosses into a second page still finds that there.
    fn holds(&self, core: &mut Core<T>, id: Id, ctx: u8) -> Result<bool, Trap> {
        let Some(block) = self.cache.get(id) else {
            return Ok(false);
        };
        for (va, wanted) in block.others() {
            if core.mmu.fetch_page(ctx, *va).is_none() {
                core.translate_for(*va, Access::Fetch, ctx)?;
            }
            if core.mmu.exec_id(ctx, *va) != *wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[cold]
    #[inline(never)]
    fn make(&mut self, core: &mut Core<T>, mut key: Key, ctx: u8) -> Result<Found, Trap> {
        // The page may only have left the translation bank.
        core.translate_for(key.va, Access::Fetch, ctx)?;
        if let Some(page) = core.mmu.fetch_page(ctx, key.va)
            && page != key.page
        {
            key.page = page;
            if let Some(id) = self.cache.find(&key)
                && let Some(id) = self.code_of(core, id, ctx)?
            {
                return Ok(Found::Code(id));
            }
        }
        let pc = core.pc();
        let mut limit = core.unit_limit();
        if limit == 1 {
            return Ok(Found::Interpret);
        }
        // Code may change while it is read, by another CPU: a few times at most.
        for _ in 0..24 {
            let mut source = Source::new(core, key.va, ctx)?;
            let unit = T::translate(core, &mut source, limit)?;
            debug_assert_eq!(accel_ir::verify(&unit), Ok(()), "{unit}");
            let next_page = (key.va | 0xfff).wrapping_add(1);
            let at = Where {
                pc,
                is_flat: pc == key.va && key.extra == 0,
                fetch_ctx: ctx,
                is_wary: key.is_wary,
                others: match source.is_extended() {
                    true => vec![(next_page, core.mmu.exec_id(ctx, next_page))],
                    false => Vec::new(),
                },
            };
            if at.others.iter().any(|(_, id)| *id == 0) {
                return Ok(Found::Interpret);
            }
            let went = Vec::new();
            #[cfg(test)]
            let unit = self.spoiled(unit);
            let member = Member { unit, at, went };
            let origin = self.cache.origin();
            let compiled = compile(&self.env, &member, origin, &mut self.shop);
            let Member { unit, at, .. } = member;
            let len = self.shop.made.code.len();
            match compiled {
                Ok(()) if len <= self.cache.largest() => {}
                _ if limit > 1 && unit.insns > 1 => {
                    limit = (limit.min(unit.insns) / 2).max(1);
                    continue;
                }
                _ => {
                    log::debug!("left to the interpreter:\n{unit}");
                    self.statistics.left += 1;
                    if self.left.len() >= MOST_REMEMBERED {
                        self.left.clear();
                    }
                    self.left.insert(key, ());
                    return Ok(Found::Interpret);
                }
            }
            if !self.cache.make_room(len) {
                continue;
            }
            let Some(pages) = source.track() else {
                continue;
            };
            if pages.is_empty() {
                return Ok(Found::Interpret);
            }
            self.watch(core, &pages);
            if !pages.iter().all(PageRef::is_current) {
                continue;
            }
            if core.log_filter.has(key.va) {
                log::trace!(target: "op", "unit at {:#x}:\n{unit}", key.va);
            }
            core.counters.units += 1;
            core.counters.unit_insns += u64::from(unit.insns);
            self.statistics.compiled += 1;
            self.statistics.wary += u64::from(key.is_wary);
            let mut pages = pages.into_iter();
            let Some(page) = pages.next() else {
                return Ok(Found::Interpret);
            };
            key.page = page.page_id();
            let pages = (page, pages.collect());
            self.show(core, key.va, if key.is_wary { "wary" } else { "guest" });
            let id = self
                .cache
                .insert(key, pc, &self.shop.made, pages, at.others);
            core.spare = unit;
            return Ok(Found::Code(id));
        }
        Err(Trap::Exit(Exit::Internal(
            "code changes faster than it can be translated",
        )))
    }

    /// Has overwriters of these pages tell.
    pub(crate) fn watch(&mut self, core: &Core<T>, pages: &[PageRef]) {
        for page in pages {
            if !self.watched.contains_key(&page.block_id()) {
                let stale = match &self.stale {
                    Some(stale) => stale.clone(),
                    None => self.attach(core),
                };
                let watcher: Weak<Stale> = Arc::downgrade(&stale);
                self.watched.insert(page.block_id(), page.watch(watcher));
            }
        }
    }

    /// Has the unit that a call at `site` is of left after the instruction, as if its code had been
    /// overwritten.
    pub(crate) fn leave_after(&mut self, site: u64) {
        let at = self.cache.memory.offset(site).unwrap_or(0);
        if let (Some((_, block)), Some(stale)) = (self.cache.at(at), &self.stale) {
            for (page, granules) in block.pages() {
                stale.stale(page, granules);
            }
        }
    }

    /// A call at `site` has overwritten translated code: if that may be of the unit it was called from,
    /// the unit is left after the instruction. All else is left at its end, as overwriters kick.
    pub(crate) fn code_hit(&mut self, site: u64) {
        let Some(at) = self.cache.memory.offset(site) else {
            return;
        };
        let Some((id, block)) = self.cache.at(at) else {
            return;
        };
        let Some(stale) = &self.stale else { return };
        let pages = stale.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let is_hit = pages
            .iter()
            .any(|(page, granules)| block.reads(*page, *granules));
        if !is_hit && !stale.overflow.load(Ordering::SeqCst) {
            return;
        }
        drop(pages);
        if let Some(insn) = block.insn_of(at) {
            self.cache.divert(id, insn + 1, self.env.thunks.stale);
        }
    }

    /// What generated code has called is done. If a page may be mapped otherwise now, no return is foreseen
    /// any more from the next one on.
    pub(crate) fn look_at_calls(&self, core: &Core<T>) {
        if self.calls.changes != core.mmu.changes() {
            self.cache.memory.kick();
        }
    }

    /// Runs generated code from a unit on, and acts on how it returned.
    fn enter(&mut self, core: &mut Core<T>, mut id: Id) -> Result<(), Exit> {
        loop {
            let Some(block) = self.cache.get(id) else {
                return Ok(());
            };
            let code = self.cache.memory.address(block.start());
            let slice = core.budget.min(self.slice);
            let mode = self.mode_number(core);
            let memory = &self.cache.memory;
            memory
                .cell(cell::MODE)
                .store(u64::from(mode) << 32, Ordering::Relaxed);
            memory.budget().store(slice as u32, Ordering::SeqCst);
            let calls = Calls {
                mode,
                forgotten: self.cache.forgotten(),
                changes: core.mmu.changes(),
            };
            if self.calls != calls || memory.has_many_calls() {
                self.calls = calls;
                memory.forget_calls();
            }
            // A kick from before the store is lost, but not its reason.
            if core.pending.get() & !self.seen != 0 {
                return Ok(());
            }
            self.statistics.entries += 1;
            if self.check.is_some() {
                self.check_entry(core, id);
            }
            let this: *mut Self = self;
            // SAFETY: the executor is lent to the run: nothing touches it but what generated code
            // calls, until that returns.
            let out = unsafe {
                (*this)
                    .cache
                    .memory
                    .cell(cell::EXECUTOR)
                    .store(this as u64, Ordering::Relaxed);
                let regs = std::ptr::from_mut(core.regs.raw()).cast::<u8>();
                ((*this).enter)(regs.wrapping_add(BIAS as usize), code)
            };
            let left = self.cache.memory.budget().load(Ordering::SeqCst) as i16;
            let done = slice - i64::from(left);
            core.budget -= done;
            // Where ways of a region meet, the budget may be ahead by what is counted on leaving.
            core.counters.insns = core.counters.insns.wrapping_add_signed(done);
            // No unit is at 0.
            let site = self.cache.memory.offset(out.site).unwrap_or(0);
            match out.why {
                out::LEAVE => {
                    self.check_exit(core, done, core.pc(), out.site)?;
                    match self.next(core)? {
                        Some(next) => id = next,
                        None => return Ok(()),
                    }
                }
                out::LINK => {
                    let Some((from, block)) = self.cache.at(site) else {
                        return Err(Exit::Internal("a way out of no unit"));
                    };
                    let Some((way, found)) = block.way_of(site) else {
                        return Err(Exit::Internal("no way out"));
                    };
                    let source = block.key().va;
                    core.set_pc(found.pc);
                    self.check_exit(core, done, found.pc, out.site)?;
                    if left < 0 {
                        self.sample_next(core);
                    }
                    if !self.may_go_on(core) {
                        return Ok(());
                    }
                    match self.find_one(core, found.is_wary) {
                        Ok(Found::Code(to)) => {
                            self.link(core, (from, way), found.check.is_some(), source, to);
                            id = to;
                        }
                        Ok(Found::Interpret) => return self.interp.step(core),
                        Err(trap) => return core.after_trap(trap, None),
                    }
                }
                out::MISS => {
                    let pc = core.pc();
                    self.check_exit(core, done, pc, out.site)?;
                    // Mostly the page has only left the translation bank.
                    if !table::has(&self.cache.memory, pc) {
                        self.cache.note_target(site, pc);
                    }
                    if left < 0 {
                        self.sample_next(core);
                    }
                    if !self.may_go_on(core) {
                        return Ok(());
                    }
                    match self.find(core) {
                        Ok(Found::Code(to)) => {
                            self.remember(core, to);
                            id = to;
                        }
                        Ok(Found::Interpret) => return self.interp.step(core),
                        Err(trap) => return core.after_trap(trap, None),
                    }
                }
                out::TRAP => {
                    let trap = core
                        .trap
                        .take()
                        .unwrap_or(Trap::Exit(Exit::Internal("a trap without a reason")));
                    let at = self.cache.insn_at(site);
                    if at.is_none() {
                        return Err(Exit::Internal("a trap from nowhere"));
                    }
                    self.check_trap(core, out.site)?;
                    core.after_trap(trap, at)?;
                    match self.next(core)? {
                        Some(next) => id = next,
                        None => return Ok(()),
                    }
                }
                _ => {
                    let at = self.cache.at(site).and_then(|(_, block)| {
                        let mark = block.mark(block.mark_of(site)?)?;
                        Some((mark.pc, mark.done))
                    });
                    let Some((pc, since)) = at else {
                        return Err(Exit::Internal("stale code of no unit"));
                    };
                    core.set_pc(pc);
                    core.budget -= i64::from(since);
                    core.counters.insns += u64::from(since);
                    self.check_exit(core, done + i64::from(since), pc, out.site)?;
                    return Ok(());
                }
            }
        }
    }

    /// A slice has ended: what runs next is what runs often.
    fn sample_next(&mut self, core: &mut Core<T>) {
        let va = T::fetch_address(core);
        if let Some(page) = core.mmu.fetch_page(T::fetch_ctx(core), va) {
            let (mode, extra) = (core.mode, T::extra_key(core));
            let key = Key {
                va,
                page,
                mode,
                extra,
                is_wary: false,
            };
            if let Some(id) = self.cache.find(&key) {
                self.sample(core, id);
            }
        }
    }

    /// The code at the PC, after an instruction that left generated code, if nothing is due before it. What
    /// could not be acted on may be by now.
    fn next(&mut self, core: &mut Core<T>) -> Result<Option<Id>, Exit> {
        if core.budget <= 0 || core.pending.get() != 0 || core.unit_limit() == 1 {
            return Ok(None);
        }
        match self.find(core) {
            Ok(Found::Code(id)) => Ok(Some(id)),
            Ok(Found::Interpret) => self.interp.step(core).map(|()| None),
            Err(trap) => core.after_trap(trap, None).map(|()| None),
        }
    }

    /// Whether nothing is due before the next unit.
    fn may_go_on(&self, core: &Core<T>) -> bool {
        core.budget > 0 && core.pending.get() & !self.seen == 0
    }

    fn link(&mut self, core: &Core<T>, from: (Id, u16), checked: bool, source: u64, to: Id) {
        let Some(target) = self.cache.get(to) else {
            return;
        };
        if self.cache.region_of(to).is_some() {
            // Its region could not be entered this time.
            return;
        }
        let va = target.key().va;
        // A region checks all its pages on the way in.
        let is_near = self
            .cache
            .get(from.0)
            .is_some_and(|block| block.is_region())
            || (va ^ source) >> hw_memory::PAGE_BITS == 0;
        let page = match checked {
            true => core.mmu.exec_id(T::fetch_ctx(core), va),
            false => u32::from(is_near),
        };
        if page != 0 {
            self.cache.link(from.0, from.1, to, page);
        }
    }

    /// Has generated code find a unit by its PC.
    fn remember(&mut self, core: &Core<T>, to: Id) {
        let mode = self.mode_number(core);
        if let Some(block) = self.cache.get(to)
            && self.cache.region_of(to).is_none()
        {
            let va = block.key().va;
            let page = core.mmu.exec_id(T::fetch_ctx(core), va);
            if page != 0 && va == block.pc() {
                let key = table::key(page, mode);
                table::insert(&self.cache.memory, block.pc(), key, block.start());
            }
        }
    }
}

impl<T: Target> Executor<T> for Jit<T> {
    fn run(&mut self, core: &mut Core<T>) -> Exit {
        self.env.sole = core.sole;
        core.fp_host = compile::host();
        loop {
            let before = core.pending.get();
            if before != 0 {
                if core.pending.take(reason::CODE) != 0 {
                    self.forget_stale(core);
                }
                if core.pending.get() != 0
                    && let Err(exit) = T::service(core)
                {
                    return exit;
                }
            }
            // What came in the meantime was not looked at.
            self.seen = before & core.pending.get() & !reason::CODE;
            if core.budget <= 0 {
                return Exit::Budget;
            }
            let result = if core.unit_limit() == 1 {
                self.interp.step(core)
            } else {
                match self.find(core) {
                    Ok(Found::Code(id)) => self.enter(core, id),
                    Ok(Found::Interpret) => self.interp.step(core),
                    Err(trap) => core.after_trap(trap, None),
                }
            };
            if let Err(exit) = result {
                return exit;
            }
        }
    }

    fn flush(&mut self) {
        self.cache.clear();
        self.left = Map::default();
        self.interp.forget();
        if let Some(check) = &mut self.check {
            check.flush();
        }
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        let (units, code_bytes) = self.cache.size();
        let counted = &self.statistics;
        let mut report = vec![
            ("units compiled", counted.compiled),
            ("of them alive", units as u64),
            ("host code", code_bytes as u64),
            ("room for code", self.cache.room() as u64),
            ("room at most", self.cache.memory.len() as u64),
            ("regions compiled", counted.regions),
            ("units sharing nothing", counted.wary),
            ("left to interpret", counted.left),
            ("entries", counted.entries),
        ];
        if let Some(check) = &self.check {
            report.push(("times compared", check.compared));
            report.push(("not compared", check.lost));
        }
        report
    }
}
