//! Ways out of blocks and of the unit.

use std::num::NonZeroU32;

use accel_ir::{BlockId, End, Val, Via};
use accel_softmmu::layout;

use super::{Compiler, Entry, TooBig, Way, slot_at};
use crate::asm::{Alu, CC_E, CC_NE, CC_S, Cc, Fix, Mem, RAX, RBP, RCX, RDX, RSP, Reg, Shift, Size};
use crate::memory::cell;
use crate::table;

/// A way out of a unit that is emitted behind the main line.
#[derive(Clone, Copy)]
pub(super) struct Exit {
    pub(super) from: Fix,
    pub(super) pc: u64,
    /// Instructions done by then that are not taken off the budget.
    pub(super) insns: u16,
    /// The unit it is from.
    pub(super) member: usize,
    /// It leads out of the region even if the PC is in it.
    pub(super) leaves: bool,
    /// It leads to code that shares no checks.
    pub(super) is_wary: bool,
    /// See [`Compiler::is_onward`].
    pub(super) is_onward: bool,
}

/// A way out whose stub is not emitted yet.
#[derive(Clone, Copy)]
pub(super) struct PendingWay {
    /// Jumps to the stub.
    stubs: [Option<Fix>; 3],
    /// The rest is as in [`Way`].
    jump: u32,
    check: Option<NonZeroU32>,
    pc: u64,
    is_wary: bool,
}

impl Compiler<'_> {
    /// Instructions done that are not taken off the budget yet.
    pub(super) fn insns_done(&self) -> u16 {
        self.carry
            .saturating_add((self.marks.len() - self.first_mark) as u16)
    }

    pub(super) fn end(&mut self, index: usize) -> Result<(), TooBig> {
        let unit = self.unit;
        match &unit.blocks[index].end {
            End::Goto { pc, via } => {
                let insns = self.insns_done();
                match self.member_at(*pc) {
                    Some(to) => self.go_on_by(to, *pc, insns, *via),
                    None => self.goto_by(*pc, insns, self.is_onward(*pc), *via),
                }
                Ok(())
            }
            End::GotoVal { pc, via } => self.goto_val(*pc, *via),
            End::Leave => {
                self.leave_region();
                self.count(self.insns_done());
                self.asm.jmp_to(self.env.thunks.leave);
                Ok(())
            }
            End::Jump { to, args } => self.jump(*to, args),
            End::Branch { c, then, other } => self.branch(*c, *then, *other),
        }
    }

    /// Takes instructions off the budget; the sign flag says that it is used up.
    fn count(&mut self, insns: u16) {
        let budget = Mem::Code(cell::BUDGET as i32);
        self.asm
            .alu_imm(Alu::Sub, Size::D, budget, i32::from(insns));
    }

    /// Whether a way out need not look at the budget: it leads on within the page, as no loop does without
    /// a way back, and nothing was stored that may have been code. So few instructions follow before
    /// it is looked at that it cannot be overdrawn by more than its lower half holds.
    fn is_onward(&self, pc: u64) -> bool {
        self.region.is_none()
            && !self.env.always_looks
            && self.is_quiet
            && self.at.is_flat
            && (pc ^ self.at.pc) >> hw_memory::PAGE_BITS == 0
            && pc > self.at.pc
            && self.marks.last().is_some_and(|mark| pc > mark.pc)
    }

    /// Leaves to a known PC.
    fn goto(&mut self, pc: u64, insns: u16, is_wary: bool, is_onward: bool) {
        self.leave_region();
        self.count(insns);
        let spent = (!is_onward).then(|| self.asm.jcc(CC_S));
        self.way(pc, spent, self.is_elsewhere(pc), is_wary, None);
    }

    /// Leaves to a known PC, and comes back if it is a subroutine.
    fn goto_by(&mut self, pc: u64, insns: u16, is_onward: bool, via: Via) {
        let Via::Call { back } = via else {
            return self.goto(pc, insns, false, is_onward);
        };
        if !self.at.is_flat {
            return self.goto(pc, insns, false, is_onward);
        }
        self.leave_region();
        self.count(insns);
        let spent = (!is_onward).then(|| self.asm.jcc(CC_S));
        self.way(pc, spent, self.is_elsewhere(pc), false, Some(back));
        self.come_back(back);
    }

    /// Where the host returns to from a subroutine of the guest, whose instructions have been taken off the
    /// budget. Calls are forgotten if a page may be mapped otherwise than when they were made.
    pub(super) fn come_back(&mut self, pc: u64) {
        if self.is_elsewhere(pc) {
            return self.way(pc, None, true, false, None);
        }
        // Until it is linked, its own stub.
        self.asm.call_to(self.env.thunks.link);
        let end = self.asm.code.len() as u32;
        self.ways.push(Way {
            site: end,
            jump: end,
            check: None,
            pc,
            is_wary: false,
        });
    }

    /// Whether a PC is in another page than the unit.
    fn is_elsewhere(&self, pc: u64) -> bool {
        (pc ^ self.at.pc) >> hw_memory::PAGE_BITS != 0 && self.at.is_flat
    }

    /// A jump or call to a unit that is linked later, if its page is the one it was linked for where that
    /// is not certain.
    fn way(
        &mut self,
        pc: u64,
        spent: Option<Fix>,
        elsewhere: bool,
        is_wary: bool,
        back: Option<u64>,
    ) {
        let (mut check, mut moved) = (None, None);
        if elsewhere {
            self.load_tables();
            let line = (pc >> layout::CODE_SHIFT) as u32 & layout::CODE_MASK;
            let id = Mem::base(RCX, line as i32 + layout::EXEC_ID);
            // No page has this identity.
            self.asm.alu_imm(Alu::Cmp, Size::D, id, i32::MIN);
            check = NonZeroU32::new(self.asm.code.len() as u32);
            moved = Some(self.asm.jcc(CC_NE));
        }
        let jump = match back {
            Some(back) => self.call_for(back),
            None => self.asm.jmp(),
        };
        let end = self.asm.end_of(jump) - self.asm.origin;
        self.pending_ways.push(PendingWay {
            stubs: [spent, moved, Some(jump)],
            jump: end as u32,
            check,
            pc,
            is_wary,
        });
    }

    /// A call of what is to return to a PC of the guest.
    pub(super) fn call_for(&mut self, back: u64) -> Fix {
        self.push_pc(back, RAX);
        self.asm.call()
    }

    fn push_pc(&mut self, pc: u64, by: Reg) {
        match i32::try_from(pc.cast_signed()) {
            Ok(pc) => self.asm.push_imm(pc),
            Err(_) => {
                self.asm.mov_imm(by, pc);
                self.asm.push(by);
            }
        }
    }

    /// Returns to the target in RAX as the host does, if it is where the last call came from.
    fn return_to_caller(&mut self) {
        self.asm.alu(Alu::Cmp, Size::Q, RAX, Mem::base(RSP, 8));
        let unlike = self.asm.jcc(CC_NE);
        self.asm.ret_dropping(8);
        self.asm.bind(unlike);
        // The call goes with its return even if that leads elsewhere. The last one stays.
        self.asm.lea(Size::Q, RCX, Mem::base(RSP, 16));
        self.asm
            .alu(Alu::Cmp, Size::Q, RSP, Mem::Code(cell::NO_CALL as i32));
        self.asm.cmov(CC_NE, RSP, RCX);
    }

    /// At the start: leaves if a page that code is from is not what it was.
    pub(super) fn check_page(&mut self, page: u64, id: u32) {
        self.load_tables();
        let line = (page >> layout::CODE_SHIFT) as u32 & layout::CODE_MASK;
        let at = Mem::base(RCX, line as i32 + layout::EXEC_ID);
        self.asm.alu_imm(Alu::Cmp, Size::D, at, id as i32);
        let same = self.asm.jcc(CC_E);
        self.asm.mov_imm(RAX, self.at.pc);
        let pc = slot_at(self.env.layout.pc.0.into());
        self.asm.mov_to(Size::Q, pc, RAX);
        self.asm.jmp_to(self.env.thunks.leave);
        self.asm.bind(same);
    }

    /// The tables of fetches into RCX.
    fn load_tables(&mut self) {
        let hot = self.env.hot + 8 * i32::from(self.at.fetch_ctx & 3);
        self.asm.mov(Size::Q, RCX, Mem::base(RBP, hot));
    }

    /// Leaves to a computed PC: by the table of recent targets if it is there.
    fn goto_val(&mut self, pc: Val, via: Via) -> Result<(), TooBig> {
        // The scratch registers are all free from here on.
        let from = self.clean(pc)?;
        if from != RAX {
            self.asm.mov(Size::Q, RAX, from);
        }
        self.consume(pc);
        self.computes = true;
        if self.plan.early.is_none() && (via != Via::Return || !self.foresees()) {
            self.go_to_known();
        }
        // Who looks for loops wants to know.
        let last = Mem::Code(table::last_of(self.at.pc) as i32);
        self.asm.mov_to(Size::Q, last, RAX);
        self.leave_region();
        self.count(self.insns_done());
        if !self.at.is_flat {
            self.asm
                .mov_to(Size::Q, slot_at(self.env.layout.pc.0.into()), RAX);
            self.asm.jmp_to(self.env.thunks.leave);
            return Ok(());
        }
        let spent = self.asm.jcc(CC_S);
        if via == Via::Return {
            self.return_to_caller();
        }
        self.asm.imul_imm(Size::D, RCX, RAX, table::HASH);
        self.asm
            .shift_imm(Shift::Shr, Size::D, RCX, table::HASH_SHIFT);
        self.asm.alu_imm(Alu::And, Size::D, RCX, table::HASH_MASK);
        self.asm.lea(Size::Q, RDX, Mem::Code(cell::TABLE as i32));
        self.asm.alu(Alu::Add, Size::Q, RCX, RDX);
        self.asm
            .alu(Alu::Cmp, Size::Q, RAX, Mem::base(RCX, table::PC));
        let unknown = self.asm.jcc(CC_NE);
        self.asm.mov(Size::D, RDX, RAX);
        self.asm
            .shift_imm(Shift::Shr, Size::D, RDX, layout::CODE_SHIFT as u8);
        self.asm
            .alu_imm(Alu::And, Size::D, RDX, layout::CODE_MASK as i32);
        let hot = self.env.hot + 8 * i32::from(self.at.fetch_ctx & 3);
        self.asm.alu(Alu::Add, Size::Q, RDX, Mem::base(RBP, hot));
        self.asm.mov(Size::D, RDX, Mem::base(RDX, layout::EXEC_ID));
        self.asm
            .alu(Alu::Or, Size::Q, RDX, Mem::Code(cell::MODE as i32));
        self.asm
            .alu(Alu::Cmp, Size::Q, RDX, Mem::base(RCX, table::KEY));
        let elsewhere = self.asm.jcc(CC_NE);
        self.misses.extend([spent, unknown, elsewhere]);
        let code = Mem::base(RCX, table::CODE);
        match via {
            Via::Call { back } => {
                self.push_pc(back, RDX);
                self.asm.call_rm(code);
                self.come_back(back);
            }
            Via::Jump | Via::Return => self.asm.jmp_rm(code),
        }
        Ok(())
    }

    fn jump(&mut self, to: BlockId, args: &[Val]) -> Result<(), TooBig> {
        let params = &self.unit.blocks[to.0 as usize].params;
        if !params.is_empty() || !args.is_empty() {
            return Err(TooBig);
        }
        if self.plan.blocks[to.0 as usize].preds > 1 {
            self.settle()?;
        }
        if !self.runs_into(to) {
            self.leave_to(to);
        }
        self.jump_on(to);
        Ok(())
    }

    /// Jumps to a block unless it is the next one emitted.
    fn jump_on(&mut self, to: BlockId) {
        if !self.is_next(to) {
            let fix = self.asm.jmp();
            self.jumps[to.0 as usize].push(fix);
        }
    }

    fn is_next(&self, to: BlockId) -> bool {
        let to = to.0 as usize;
        to > self.block && (self.block + 1..to).all(|b| !self.plan.blocks[b].is_emitted)
    }

    /// Whether a block is the next one and comes from here alone: it begins as things stand.
    fn runs_into(&self, to: BlockId) -> bool {
        self.plan.blocks[to.0 as usize].preds == 1 && self.is_next(to)
    }

    /// Notes how registers stand where a block begins. Blocks that several lead to find all values
    /// where `settle` puts them.
    fn leave_to(&mut self, to: BlockId) {
        let i = to.0 as usize;
        let plan = self.plan.blocks[i];
        if plan.is_emitted && self.entries[i].is_none() {
            let mut places = self.places.clone();
            if plan.preds > 1 {
                // Another way there may not have cleaned what this one did.
                places.distrust(&self.unit.types);
            }
            self.entries[i] = Some(Entry {
                places,
                flags: if plan.preds > 1 { None } else { self.flags },
            });
        }
    }

    fn branch(&mut self, c: Val, then: BlockId, other: BlockId) -> Result<(), TooBig> {
        let joins = [then, other]
            .iter()
            .any(|b| self.plan.blocks[b.0 as usize].preds > 1);
        // The condition stays deferred if it is. All else is computed once, before the ways part: an
        // operand's use must not be counted on both.
        let op = self.places.take_deferred(c);
        self.force_all()?;
        if let Some(op) = op {
            self.places.defer(c, op);
        }
        let cc = self.truth(c)?;
        self.places.unlock();
        if joins {
            // Only moves, which leave the flags alone; what the condition was made of is not kept.
            self.settle()?;
        }
        for to in [then, other] {
            if self.plan.blocks[to.0 as usize].preds > 1 {
                self.leave_to(to);
            }
        }
        let is_emitted = |c: &Self, b: BlockId| c.plan.blocks[b.0 as usize].is_emitted;
        let one = is_emitted(self, then) != is_emitted(self, other);
        for to in [then, other] {
            if !(one && self.runs_into(to)) {
                self.leave_to(to);
            }
        }
        let out = |c: &Self, b: BlockId| {
            let plan = &c.plan.blocks[b.0 as usize];
            plan.goes_to.filter(|_| !plan.is_emitted)
        };
        match (out(self, then), out(self, other)) {
            (Some(pc), Some(second)) => {
                self.exit_on(cc, pc);
                self.goto(second, self.insns_done(), false, self.is_onward(second));
            }
            (Some(pc), None) => {
                self.exit_on(cc, pc);
                self.jump_on(other);
            }
            (None, Some(pc)) => {
                self.exit_on(cc ^ 1, pc);
                self.jump_on(then);
            }
            (None, None) => {
                // Falls through to the earlier of the two.
                let (cc, far, near) = match then.0 < other.0 {
                    true => (cc ^ 1, other, then),
                    false => (cc, then, other),
                };
                let fix = self.asm.jcc(cc);
                self.jumps[far.0 as usize].push(fix);
                self.jump_on(near);
            }
        }
        Ok(())
    }

    fn exit_on(&mut self, cc: Cc, pc: u64) {
        let insns = self.insns_done();
        let to = self.member_at(pc);
        if let Some(to) = to
            && self.is_plain(to, insns)
        {
            let from = self.asm.jcc(cc);
            return self.jumps_to(to, from);
        }
        if let Some(to) = to
            && self.is_passed(to)
        {
            // A loop is closed in line.
            let flags = self.asm.flags_of;
            let over = self.asm.jcc(cc ^ 1);
            self.go_on(to, pc, insns, false);
            self.asm.bind(over);
            self.asm.flags_of = flags;
            return;
        }
        let from = self.asm.jcc(cc);
        self.exits.push(Exit {
            from,
            pc,
            insns,
            member: self.member(),
            leaves: false,
            is_wary: false,
            is_onward: self.is_onward(pc),
        });
    }

    /// Ways out that are not in the main line.
    fn late_exits(&mut self) {
        // Loops closed there have ways out of their own, which are added.
        let mut next = 0;
        while let Some(exit) = self.exits.get(next).copied() {
            next += 1;
            self.asm.bind(exit.from);
            self.be_in(exit.member);
            match self.member_at(exit.pc) {
                Some(to) if !exit.leaves => self.go_on(to, exit.pc, exit.insns, true),
                _ => self.goto(exit.pc, exit.insns, exit.is_wary, exit.is_onward),
            }
        }
        self.exits.clear();
    }

    /// What stands behind the main line.
    pub(super) fn late(&mut self) {
        self.late_exits();
        self.detours();
        self.late_exits();
        self.late_float();
        if !self.misses.is_empty() {
            for fix in self.misses.drain(..) {
                self.asm.bind(fix);
            }
            self.asm.call_to(self.env.thunks.miss);
        }
        for i in 0..self.pending_ways.len() {
            let way = self.pending_ways[i];
            for fix in way.stubs.into_iter().flatten() {
                self.asm.bind(fix);
            }
            self.asm.call_to(self.env.thunks.link);
            self.ways.push(Way {
                site: self.asm.code.len() as u32,
                jump: way.jump,
                check: way.check,
                pc: way.pc,
                is_wary: way.is_wary,
            });
        }
        self.pending_ways.clear();
    }
}
