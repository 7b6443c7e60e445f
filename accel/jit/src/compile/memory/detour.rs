//! What stands behind the main line: accesses that do not find their page at once, announced stores, calls of helpers.

use accel_softmmu::recent_layout as recent;

use super::{By, Check, Exit, Loaded, LookedAt, Slow, Stored, Ways};
use crate::asm::{Alu, CC_AE, Fix, Mem, RAX, RBP, RCX, Size};
use crate::compile::{ARG, Compiler, Detour, FLAGS, HOST, RESULT, What, slot_at};

impl Compiler<'_> {
    pub(in crate::compile) fn detour(&mut self, from: Fix, what: What) {
        self.detours.push(Detour {
            from,
            back: self.asm.here(),
            insn: self.insn(),
            what,
        });
        // Flags differ by the way come.
        self.asm.flags_of = None;
    }

    pub(super) fn access_detour(&mut self, check: Check, access: Slow) {
        let from = check.from;
        self.detour(from, What::Access { check, access });
    }

    /// Emits the detours.
    pub(in crate::compile) fn detours(&mut self) {
        let mut detours = std::mem::take(&mut self.detours);
        for detour in detours.drain(..) {
            self.asm.bind(detour.from);
            match detour.what {
                What::Access { check, access } => self.access_elsewhere(check, access, detour.insn),
                What::Lead { looked_at, exit } => {
                    if self.region.is_none() {
                        self.asm.push_imm(looked_at.page);
                        self.asm.call_to(looked_at.lead);
                        self.asm.jcc_to(CC_AE, looked_at.again);
                    } else {
                        self.look(&looked_at);
                    }
                    let from = self.asm.jmp();
                    self.exits.push(Exit { from, ..exit });
                    continue;
                }
                What::AnnounceAt {
                    at,
                    entry,
                    ways,
                    keeps,
                } => {
                    self.asm.lea(Size::Q, FLAGS, at);
                    self.tell(entry, ways, detour.insn);
                    if keeps {
                        self.load_flags(entry);
                    }
                }
                What::Announce { by, ways } => match by {
                    By::Recent(entry) => {
                        self.asm.mov(Size::Q, FLAGS, HOST);
                        self.tell(entry, ways, detour.insn);
                    }
                    By::Table(_) => {
                        self.asm.mov_to(Size::Q, slot_at(ARG), HOST);
                        self.call_out_for(ways.thunk, detour.insn);
                    }
                },
                What::Call { helper, thunk } => {
                    self.asm
                        .mov_imm_to(Size::Q, slot_at(ARG + 4), i32::from(helper));
                    self.call_out_for(thunk, detour.insn);
                }
                What::Divide {
                    args,
                    bits,
                    helper,
                    vectors,
                } => {
                    self.asm
                        .mov_imm_to(Size::Q, slot_at(ARG + 4), i32::from(helper));
                    for (i, arg) in args.into_iter().enumerate() {
                        self.asm.mov_to(Size::Q, slot_at(ARG + i), arg);
                    }
                    self.asm.mov_imm_to(Size::Q, slot_at(ARG + 3), bits);
                    self.call_out_for(self.env.thunks.call(false, vectors), detour.insn);
                    self.asm.mov(Size::Q, RAX, slot_at(RESULT));
                }
            }
            self.asm.jmp_to(detour.back);
        }
        self.detours = detours;
    }

    /// Announces a store to the host's address in [`FLAGS`], by the page last used at this entry.
    fn tell(&mut self, entry: i32, ways: Ways, insn: u16) {
        let page = entry + recent::WRITE;
        if self.region.is_none() {
            self.asm.push_imm(page);
            self.asm.call_to(ways.reach);
            self.site(insn);
            return;
        }
        let at = |offset| Mem::base(RBP, page + offset);
        self.asm.alu(Alu::Sub, Size::Q, FLAGS, at(recent::HOST));
        self.asm.alu(Alu::Add, Size::Q, FLAGS, at(recent::TAG));
        self.asm.mov_to(Size::Q, slot_at(ARG), FLAGS);
        self.call_out_for(ways.thunk, insn);
    }

    /// Makes the page of the address the last one, and goes on with the access, if it is at hand.
    fn look(&mut self, looked_at: &LookedAt) {
        let LookedAt {
            page, look, again, ..
        } = *looked_at;
        let tag = Mem::base(RBP, page + recent::TAG);
        self.asm.alu(Alu::Add, Size::Q, HOST, tag);
        self.asm.push(RCX);
        self.asm.lea(Size::Q, RCX, Mem::base(RBP, page));
        self.asm.call_to(look);
        self.asm.pop(RCX);
        self.asm.jcc_to(CC_AE, again);
    }

    /// An access that is not in the page last used.
    fn access_elsewhere(&mut self, check: Check, access: Slow, insn: u16) {
        let (thunk, reach) = match access {
            Slow::Load { ways, .. } | Slow::Store { ways, .. } | Slow::Probe { ways } => {
                (ways.thunk, Some(ways.reach))
            }
            Slow::Complex { vectors, .. } => (self.env.thunks.complex(vectors), None),
        };
        let is_short = self.region.is_none() && check.misaligned.is_none();
        if let (true, Some(looked_at), Some(reach)) = (is_short, &check.recent, reach) {
            match &access {
                Slow::Store { value, .. } => match *value {
                    Stored::Reg(reg) => self.asm.mov(Size::Q, FLAGS, reg),
                    Stored::Imm(imm) => self.asm.mov_imm(FLAGS, i64::from(imm) as u64),
                    Stored::Xmm(_) | Stored::Pair(..) => self.give(&access),
                },
                _ => self.give(&access),
            }
            self.asm.push_imm(looked_at.page);
            self.asm.call_to(reach);
            self.site(insn);
            self.asm.jcc_to(CC_AE, looked_at.again);
            match access {
                Slow::Load {
                    to: Loaded::Reg(to),
                    ..
                } if to == HOST => {}
                Slow::Load {
                    to: Loaded::Reg(to),
                    ..
                } => self.asm.mov(Size::Q, to, HOST),
                _ => self.take(&access),
            }
            return;
        }
        if let Some(looked_at) = &check.recent {
            self.look(looked_at);
        }
        if let Some(fix) = check.misaligned {
            self.asm.bind(fix);
        }
        self.asm.mov_to(Size::Q, slot_at(ARG), HOST);
        self.give(&access);
        self.call_out_for(thunk, insn);
        self.take(&access);
    }

    /// Puts what a thunk needs beside the address where it finds it.
    fn give(&mut self, access: &Slow) {
        let at = |n| slot_at(ARG + n);
        match *access {
            Slow::Load { .. } | Slow::Probe { .. } => {}
            Slow::Store { value, .. } => match value {
                Stored::Reg(reg) => self.asm.mov_to(Size::Q, at(1), reg),
                Stored::Xmm(reg) => self.asm.movups_to(at(1), reg),
                Stored::Pair(low, high) => {
                    self.asm.mov_to(Size::Q, at(1), low);
                    self.asm.mov_to(Size::Q, at(2), high);
                }
                Stored::Imm(imm) => self.asm.mov_imm_to(Size::Q, at(1), imm),
            },
            Slow::Complex { args, what, .. } => {
                self.asm.mov_to(Size::Q, at(1), args[0]);
                self.asm.mov_to(Size::Q, at(2), args[1]);
                self.asm.mov_imm_to(Size::D, at(4), what);
            }
        }
    }

    /// Takes what a thunk found.
    fn take(&mut self, access: &Slow) {
        match *access {
            Slow::Load { to, .. } => match to {
                Loaded::Reg(to) => self.asm.mov(Size::Q, to, slot_at(RESULT)),
                Loaded::Xmm(to) => self.asm.movups(to, slot_at(RESULT)),
            },
            Slow::Complex { to, .. } => self.asm.mov(Size::Q, to, slot_at(RESULT)),
            Slow::Store { .. } | Slow::Probe { .. } => {}
        }
    }
}
