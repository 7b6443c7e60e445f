//! Runs one CPU: finds or makes the unit at the PC, executes it, delivers what comes out.

use accel_core::{Access, Core, Executor, Exit, Source, Target, Trap};

use crate::cache::{Cache, Key};
use crate::code::Code;
use crate::exec::{self, Flow};
use crate::lower::lower;

/// Interprets the units of one CPU.
#[derive(Default)]
pub struct Interp {
    cache: Cache,
    /// The last unit that must not be kept.
    once: Option<Code>,
}

/// Where the unit to run is.
enum Found {
    Kept(usize),
    Once,
}

impl Interp {
    /// Forgets all units.
    pub fn forget(&mut self) {
        self.cache.clear();
        self.once = None;
    }

    /// A unit for the current PC and mode.
    #[inline(always)]
    fn find<T: Target>(&mut self, core: &mut Core<T>, limit: u32) -> Result<Found, Trap> {
        let va = T::fetch_address(core);
        let ctx = T::fetch_ctx(core);
        let mut key = Key {
            va,
            page: 0,
            mode: core.mode,
            extra: T::extra_key(core),
            single: limit == 1,
        };
        if let Some(page) = core.mmu.fetch_page(ctx, va) {
            key.page = page;
            if let Some(at) = self.cache.find(&key)
                && self
                    .cache
                    .get(at)
                    .is_some_and(|c| c.pages.len() == 1 || second_page_holds(core, c, va, ctx))
            {
                return Ok(Found::Kept(at));
            }
        }
        self.make(core, key, ctx, limit)
    }

    #[cold]
    #[inline(never)]
    fn make<T: Target>(
        &mut self,
        core: &mut Core<T>,
        mut key: Key,
        ctx: u8,
        limit: u32,
    ) -> Result<Found, Trap> {
        // The page may only have left the translation bank.
        core.translate_for(key.va, Access::Fetch, ctx)?;
        if let Some(page) = core.mmu.fetch_page(ctx, key.va)
            && page != key.page
        {
            key.page = page;
            if let Some(at) = self.cache.find(&key)
                && self.cache.get(at).is_some_and(|c| c.pages.len() == 1)
            {
                return Ok(Found::Kept(at));
            }
        }
        let mut insns = limit;
        // Code may change while it is read, by another CPU: a few times at most.
        for _ in 0..16 {
            let mut source = Source::new(core, key.va, ctx)?;
            let unit = T::translate(core, &mut source, insns)?;
            debug_assert_eq!(accel_ir::verify(&unit), Ok(()), "{unit}");
            let Ok(mut code) = lower::<T>(&unit) else {
                if insns == 1 {
                    log::error!("cannot lower this unit:\n{unit}");
                    return Err(Trap::Exit(Exit::Internal(
                        "an instruction needs too many values",
                    )));
                }
                insns = insns.min(unit.insns) / 2;
                insns = insns.max(1);
                continue;
            };
            let Some(pages) = source.track() else {
                continue;
            };
            if core.log_filter.has(key.va) {
                log::trace!(target: "op", "unit at {:#x}:\n{unit}", key.va);
            }
            core.counters.units += 1;
            core.counters.unit_insns += u64::from(unit.insns);
            code.pages = pages;
            let Some(page) = code.pages.first() else {
                self.once = Some(code);
                return Ok(Found::Once);
            };
            key.page = page.page_id();
            let (at, stale) = self.cache.insert(key, code);
            core.counters.stale += u64::from(stale);
            return Ok(Found::Kept(at));
        }
        Err(Trap::Exit(Exit::Internal(
            "code changes faster than it can be translated",
        )))
    }

    /// Acts on a trap at operation `at` of a unit.
    #[cold]
    #[inline(never)]
    fn trap<T: Target>(core: &mut Core<T>, trap: Trap, code: &Code, at: usize) -> Result<(), Exit> {
        let mark = code
            .marks
            .partition_point(|(start, _)| *start as usize <= at);
        let pc = mark.checked_sub(1).and_then(|m| code.marks.get(m));
        core.after_trap(trap, pc.map(|m| (m.1, mark as u64)))
    }

    /// Runs one unit: of one instruction where the target wants that.
    pub fn step<T: Target>(&mut self, core: &mut Core<T>) -> Result<(), Exit> {
        let limit = core.unit_limit();
        if limit == 1
            && let Err(trap) = T::before_step(core)
        {
            return core.after_trap(trap, None);
        }
        let found = match self.find(core, limit) {
            Ok(found) => found,
            Err(trap) => return core.after_trap(trap, None),
        };
        let code = match found {
            Found::Kept(at) => self.cache.get(at),
            Found::Once => self.once.as_ref(),
        };
        let Some(code) = code else {
            return Err(Exit::Internal("no unit"));
        };
        if let Some(log) = core.on_unit {
            log(core);
        }
        core.stepping = limit == 1;
        let flow = exec::run(core, code, 0, code.ops.len());
        core.stepping = false;
        match flow {
            Flow::Done(insns) => {
                core.budget -= i64::from(insns);
                core.counters.insns += u64::from(insns);
            }
            Flow::Trap(trap, at) => {
                let stepped = matches!(trap, Trap::Leave | Trap::Exit(Exit::Halted | Exit::Yield));
                Self::trap(core, trap, code, at)?;
                if limit == 1 && !stepped {
                    return Ok(());
                }
            }
            Flow::Fell(_) => return Err(Exit::Internal("ran off the end of a unit")),
        }
        if limit == 1 {
            T::after_step(core)
        } else {
            Ok(())
        }
    }
}

/// Whether the second page of a unit that crosses into it is still mapped to the same memory.
#[cold]
fn second_page_holds<T: Target>(core: &mut Core<T>, code: &Code, va: u64, ctx: u8) -> bool {
    let next = (va | 0xfff).wrapping_add(1);
    code.pages
        .get(1)
        .is_some_and(|p| core.mmu.fetch_page(ctx, next) == Some(p.page_id()))
}

impl<T: Target> Executor<T> for Interp {
    fn run(&mut self, core: &mut Core<T>) -> Exit {
        loop {
            if core.pending.get() != 0
                && let Err(exit) = T::service(core)
            {
                return exit;
            }
            if core.budget <= 0 {
                return Exit::Budget;
            }
            if let Err(exit) = self.step(core) {
                return exit;
            }
        }
    }

    fn flush(&mut self) {
        self.forget();
    }
}
