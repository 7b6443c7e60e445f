//! `check=on`: generated code in lock step with the interpreter.
//!
//! Before generated code is entered, a [`Shadow`] interprets what it is about to do. Where generated code
//! asks Rust for something that has effects, the shadow must have stopped at the same thing, in the same
//! state; that is done once, and the shadow goes on with the result. Where generated code leaves, both
//! must have come to the same registers and the same memory. All of generated code is checked like
//! this: what accesses memory in line, links between units, regions.
//!
//! A region does not compute flags that the loop defines anew before it looks at them. When it leaves in
//! between, the shadow keeps the right ones until they are the same again.
//!
//! Devices that write to memory at the same time can make a difference by themselves: what was loaded
//! is looked at once more before a difference counts.

use std::fmt::Write as _;

use accel_core::{Access, Core, Exit, Physical, RegFile, Target, Trap};
use accel_interp::{Distance, Shadow, Stop, lazy_flags, packed_flags};
use accel_ir::Slot;

use crate::cache::{Id, Key};
use crate::listing::listing;
use crate::run::Jit;

/// What [`Jit::slice`] is at first while code is checked. Then it follows how far code gets, as all that
/// it does not do was interpreted in vain.
const SLICE: i64 = 512;
const LEAST_SLICE: i64 = 64;
const MOST_SLICE: i64 = 4096;
/// What [`Jit::hot`] is then: slices are shorter, and what is sampled is as hot as without.
const HOT: u8 = 192;
/// Instructions that a region may go on for when its slice has ended.
const REGION: u64 = 1100;

/// What the executor returns when a difference was found; the log says which.
const DIFFERS: Exit =
    Exit::Internal("generated code differs from the interpreter (check=on); see the log");

/// The state of checking.
#[derive(Default)]
pub(crate) struct Check {
    shadow: Shadow,
    /// The unit that was entered.
    entered: Option<Id>,
    /// Nothing is compared until generated code is entered again.
    is_lost: bool,
    /// Generated code was told to leave.
    is_over: bool,
    /// Flags that generated code left behind, and the right ones.
    flags: Option<[[u64; 4]; 2]>,
    /// What was found.
    pub(crate) report: Option<String>,
    /// Registers before what is being done.
    prior: RegFile,
    pub(crate) compared: u64,
    pub(crate) lost: u64,
}

/// How far the shadow is with what generated code asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    /// Nothing is checked.
    No,
    /// The shadow waits for the result.
    Waits,
    /// It is past that.
    Passed,
}

/// Does something with how far the shadow is to run ahead.
macro_rules! ahead {
    ($jit:ident, |$distance:ident| $act:expr) => {{
        let cache = &$jit.cache;
        let is_long = |[va, page, mode, extra]: [u64; 4]| {
            let key = Key {
                va,
                page,
                mode,
                extra,
                is_wary: false,
            };
            let unit = cache.known(&key);
            unit.is_some_and(|unit| cache.region_of(unit).is_some())
        };
        let $distance = Distance {
            insns: $jit.slice as u64,
            more: REGION,
            is_long: &is_long,
        };
        $act
    }};
}

impl<T: Target> Jit<T> {
    /// Checks all code that is run from now on.
    pub fn check(&mut self) {
        self.check = Some(Box::default());
        // The shadow takes part in what helpers do.
        self.env.x87 = None;
        self.env.always_looks = true;
        self.slice = SLICE;
        self.hot = HOT;
    }

    /// Generated code is about to be entered.
    pub(crate) fn check_entry(&mut self, core: &mut Core<T>, id: Id) {
        let Some(check) = &mut self.check else { return };
        check.entered = Some(id);
        check.is_lost = false;
        check.is_over = false;
        let left = lazy_flags::<T>(&core.regs);
        let flags = check.flags.filter(|[stale, _]| *stale == left);
        let flags = flags.map(|[_, right]| right);
        ahead!(self, |distance| check.shadow.begin(core, flags, distance));
    }

    /// Generated code asks for something.
    pub(crate) fn check_call(
        &mut self,
        core: &mut Core<T>,
        site: u64,
        asked: &Stop,
    ) -> Result<Met, Trap> {
        let Some(check) = &mut self.check else {
            return Ok(Met::No);
        };
        if check.is_lost {
            return Ok(Met::No);
        }
        let Some((stop, pc)) = check.shadow.stop() else {
            return Ok(Met::Passed);
        };
        let at = self.cache.memory.offset(site).unwrap_or(0);
        let is_there = self.cache.insn_at(at).map(|(pc, _)| pc) == Some(pc);
        if !is_there || !stop.is(asked) {
            return Ok(Met::Passed);
        }
        // A helper that neither sees registers nor traps may be called before they are all in place.
        let is_whole = match *asked {
            Stop::Call { helper, .. } => T::helpers()
                .get(usize::from(helper))
                .is_none_or(|helper| helper.effects.reads_regs || helper.effects.traps),
            _ => true,
        };
        if is_whole {
            let insns = check.shadow.insns();
            check.compared += 1;
            let flags = check
                .flags_differ(core)
                .filter(|_| !check.keeps_flags(core));
            let what = check.difference(core).or(flags);
            // The shadow may wait for the same access of a later iteration.
            if what.is_some() && asked.access().is_some() {
                return Ok(Met::Passed);
            }
            self.judge(core, what, insns, site).map_err(Trap::Exit)?;
        }
        match &mut self.check {
            Some(check) if !check.is_lost => {
                check.prior = core.regs.clone();
                Ok(Met::Waits)
            }
            _ => Ok(Met::No),
        }
    }

    /// What generated code asked for was done.
    pub(crate) fn check_result(
        &mut self,
        core: &mut Core<T>,
        (met, site): (Met, u64),
        asked: (&Stop, u8),
        result: Result<u128, Trap>,
    ) -> Result<(), Trap> {
        let Some(check) = &mut self.check else {
            return result.map(|_| ());
        };
        match (met, result) {
            (Met::No, _) => {}
            (Met::Waits, Ok(answer)) => {
                let prior = std::mem::take(&mut check.prior);
                ahead!(self, |distance| check
                    .shadow
                    .resume(core, &prior, answer, distance));
                check.prior = prior;
            }
            (Met::Waits, Err(_)) => check.is_over = true,
            // What is done to plain RAM the shadow did by itself.
            (Met::Passed, Ok(_)) if is_plain(core, asked) => {
                ahead!(self, |distance| check.shadow.go_on(core, distance));
            }
            (Met::Passed, _) if check.shadow.stop().is_none() => check.lose(),
            (Met::Passed, _) => {
                let insns = check.shadow.insns();
                let what = format!("generated code asks for {:x?}", asked.0);
                self.judge(core, Some(what), insns, site)
                    .map_err(Trap::Exit)?;
            }
        }
        result.map(|_| ())
    }

    /// Generated code has left at `pc` after so many instructions.
    pub(crate) fn check_exit(
        &mut self,
        core: &mut Core<T>,
        insns: i64,
        pc: u64,
        site: u64,
    ) -> Result<(), Exit> {
        let Some(check) = &mut self.check else {
            return Ok(());
        };
        if check.report.is_some() {
            return Err(DIFFERS);
        }
        if check.is_lost || check.is_over {
            return Ok(());
        }
        if self.slice >= LEAST_SLICE {
            self.slice = (2 * insns).clamp(LEAST_SLICE, MOST_SLICE);
        }
        let insns = insns.max(0) as u64;
        let at = self.cache.memory.offset(site).unwrap_or(0);
        let is_region = self
            .cache
            .at(at)
            .is_some_and(|(_, block)| block.is_region());
        let is_ahead = insns > check.shadow.insns() && check.shadow.stop().is_none();
        if is_ahead || check.shadow.is_blank() {
            check.lose();
            return Ok(());
        }
        check.compared += 1;
        let what = if check.shadow.has(insns) {
            let wanted = check.shadow.go_back::<T>(insns);
            let elsewhere = (wanted != pc)
                .then(|| format!("generated code goes to {pc:#x}, the interpreter to {wanted:#x}"));
            let flags = check.flags_differ(core);
            let [left, right] = [&core.regs, check.shadow.regs()].map(lazy_flags::<T>);
            let is_kept = is_region || check.flags.is_some_and(|[_, kept]| kept == right);
            check.flags = (flags.is_some() && is_kept).then_some([left, right]);
            let flags = flags.filter(|_| !is_kept);
            elsewhere.or_else(|| check.difference(core)).or(flags)
        } else {
            let there = check.shadow.insns();
            Some(format!(
                "generated code has done {insns} instructions, the interpreter {there}"
            ))
        };
        self.judge(core, what, insns, site)
    }

    /// Generated code has trapped.
    pub(crate) fn check_trap(&mut self, core: &mut Core<T>, site: u64) -> Result<(), Exit> {
        let Some(check) = &mut self.check else {
            return Ok(());
        };
        if check.report.is_some() {
            return Err(DIFFERS);
        }
        let what = match check.is_lost || check.is_over {
            true => None,
            false => Some("generated code traps".to_owned()),
        };
        let insns = check.shadow.insns();
        self.judge(core, what, insns, site)
    }

    /// Stops at a difference, unless somebody else has changed memory meanwhile.
    fn judge(
        &mut self,
        core: &mut Core<T>,
        what: Option<String>,
        insns: u64,
        site: u64,
    ) -> Result<(), Exit> {
        let (Some(what), Some(check)) = (what, &mut self.check) else {
            return Ok(());
        };
        if check.shadow.is_disturbed(core) {
            check.lose();
            return Ok(());
        }
        let report = self.difference_report(core, &what, insns, site);
        log::error!("{report}");
        if let Some(check) = &mut self.check {
            check.report = Some(report);
        }
        Err(DIFFERS)
    }

    /// The block, both states, the host code.
    fn difference_report(&self, core: &Core<T>, what: &str, insns: u64, site: u64) -> String {
        let Some(check) = &self.check else {
            return String::new();
        };
        let shadow = &check.shadow;
        let mut text = format!(
            "check: CPU {}: after {insns} instructions from {:#x} on: {what}\n",
            core.index,
            shadow.before().get(T::LAYOUT.pc),
        );
        if let Some((stop, pc)) = shadow.stop() {
            let _ = writeln!(text, "the interpreter stops at {pc:#x} for {stop:x?}");
        }
        text.push_str(&shadow.describe(core, insns));
        let _ = writeln!(
            text,
            "\n{:12} {:>34} {:>34} {:>34}",
            "register", "before", "interpreted", "generated"
        );
        for reg in T::LAYOUT.regs {
            let value = |regs: &RegFile| match reg.bits {
                128 => regs.get_v(reg.slot),
                _ => regs.get(reg.slot).into(),
            };
            let files = [shadow.before(), shadow.regs(), &core.regs];
            let [before, wanted, got] = files.map(value);
            let mark = if wanted == got { ' ' } else { '*' };
            let _ = writeln!(
                text,
                "{:12} {before:#34x} {wanted:#34x} {got:#34x} {mark}",
                reg.name
            );
        }
        let files = [shadow.before(), shadow.regs(), &core.regs];
        let [before, wanted, got] = files.map(packed_flags::<T>);
        let mark = if wanted == got { ' ' } else { '*' };
        let _ = writeln!(
            text,
            "{:12} {before:#34x} {wanted:#34x} {got:#34x} {mark}",
            "flags"
        );
        let at = self.cache.memory.offset(site).unwrap_or(0);
        let left = self.cache.at(at).map(|(id, _)| id).or(check.entered);
        if let Some(block) = left.and_then(|id| self.cache.get(id)) {
            let code = self.cache.memory.read(block.start(), block.len());
            let start = self.cache.memory.address(block.start()) as u64;
            let _ = write!(
                text,
                "host code for {:#x}, left at {site:#x}:{}",
                block.pc(),
                listing(&code, start)
            );
        }
        text
    }
}

/// Whether all of an access was done to plain RAM, or a helper has no effects. A page that generated code
/// used last may have been driven out of the tables by now.
fn is_plain<T: Target>(core: &Core<T>, (asked, ctx): (&Stop, u8)) -> bool {
    let kind = match asked {
        Stop::Load { .. } => Access::Read,
        Stop::Call { helper, .. } => {
            let helper = T::helpers().get(usize::from(*helper));
            return helper.is_some_and(accel_core::Helper::is_plain);
        }
        _ => Access::Write,
    };
    let Some((va, bytes)) = asked.access() else {
        return false;
    };
    let last = va.wrapping_add(u64::from(bytes.max(1)) - 1);
    [va, last]
        .iter()
        .all(|va| !matches!(core.mmu.look_up(ctx, *va, kind), Physical::Slow(_)))
}

impl Check {
    /// Compares no more until generated code is entered again.
    fn lose(&mut self) {
        self.is_lost = true;
        self.lost += 1;
    }

    /// Forgets all units.
    pub(crate) fn flush(&mut self) {
        self.shadow.flush();
    }

    fn flags_differ<T: Target>(&self, core: &Core<T>) -> Option<String> {
        let [wanted, got] = [self.shadow.regs(), &core.regs].map(packed_flags::<T>);
        (wanted != got).then(|| format!("flags are {got:#x}, the interpreter's {wanted:#x}"))
    }

    /// Whether the flags are still those that a region left behind, as after an interrupt.
    fn keeps_flags<T: Target>(&self, core: &Core<T>) -> bool {
        self.flags == Some([&core.regs, self.shadow.regs()].map(lazy_flags::<T>))
    }

    /// How the states differ beside flags, if they do.
    fn difference<T: Target>(&self, core: &Core<T>) -> Option<String> {
        let (flags, pc) = (T::LAYOUT.flags.0, T::LAYOUT.pc.0);
        let is_special = |slot: u8| slot == pc || (flags..flags + 4).contains(&slot);
        let wanted = self.shadow.regs();
        let differs = |slot: &u8| wanted.get(Slot(*slot)) != core.regs.get(Slot(*slot));
        let slot = (0..=u8::MAX).find(|slot| differs(slot) && !is_special(*slot));
        if let Some(slot) = slot {
            let known = |reg: &&accel_core::RegInfo| {
                reg.slot.0 == slot || reg.bits == 128 && reg.slot.0 + 1 == slot
            };
            let name = T::LAYOUT.regs.iter().find(known).map_or("", |reg| reg.name);
            let [wanted, got] = [wanted, &core.regs].map(|regs| regs.get(Slot(slot)));
            return Some(format!(
                "slot {slot} {name} is {got:#x}, the interpreter's {wanted:#x}"
            ));
        }
        let found = self.shadow.differing(core)?;
        let [wanted, got] = found.bytes;
        Some(format!(
            "memory at {:#x} is {got:#x}, the interpreter's {wanted:#x}",
            found.va
        ))
    }
}
