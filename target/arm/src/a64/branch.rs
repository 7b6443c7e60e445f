//! Branches, exception generation and system instructions (DDI 0487, C4.1.94).

use accel_ir::{Binary, Cmp, Mem, Slot, Ty, Val, Via};

use super::context::Ctx;
use crate::model::Feature;
use crate::port::SysReg;
use crate::system::special;
use crate::{helper, regs};

mod table {
    include!(concat!(env!("OUT_DIR"), "/branch.rs"));
}
use table::Insn;
pub(super) use table::{FORMS, decode};

/// Two ways on: the unit ends.
fn branch_if(c: &mut Ctx, holds: Val, target: u64) {
    let (taken, other) = (c.b.block(), c.b.block());
    c.b.branch(holds, taken, other);
    c.b.switch(taken);
    c.b.goto(target);
    c.b.switch(other);
    let next = c.next();
    c.b.goto(next);
}

impl Ctx {
    fn target(&self, words: i32) -> u64 {
        self.pc.wrapping_add((i64::from(words) << 2) as u64)
    }

    /// Where the subroutine that is branched to returns to, from now on in X30.
    fn link(&mut self) -> u64 {
        let next = self.next();
        self.set_const(regs::x(30), next);
        next
    }

    /// PSTATE.BTYPE after an indirect branch.
    fn set_btype(&mut self, value: u64) {
        if self.mode.has_bti() {
            self.set_const(regs::BTYPE, value);
        }
    }

    /// Signs or authenticates `x[rd]`. `key`: instruction B is bit 0, data is bit 1.
    pub(super) fn pointer_auth(&mut self, rd: u32, modifier: Val, key: u32, auth: bool) {
        let pointer = self.x(rd, Ty::I64);
        let v = self.authenticated(pointer, modifier, key, auth);
        self.set_x(rd, v);
    }

    pub(super) fn authenticated(
        &mut self,
        pointer: Val,
        modifier: Val,
        key: u32,
        auth: bool,
    ) -> Val {
        let how = self.imm(Ty::I64, u64::from(key | u32::from(auth) << 2));
        if self.mode.pauth_traps() {
            self.call(helper::PAUTH_TRAP, &[how]);
        }
        self.call(helper::POINTER_AUTH, &[pointer, modifier, how])
    }

    /// XPACI, XPACD.
    pub(super) fn strip_pac(&mut self, rd: u32, data: bool) {
        let pointer = self.x(rd, Ty::I64);
        let data = self.imm(Ty::I64, data.into());
        let v = self.call(helper::STRIP_PAC, &[pointer, data]);
        self.set_x(rd, v);
    }

    /// An indirect branch with an authenticated target.
    fn authenticated_branch(&mut self, rn: u32, modifier: Val, key: u32) -> Val {
        let target = self.x(rn, Ty::I64);
        self.authenticated(target, modifier, key, true)
    }
}

pub(super) fn translate(c: &mut Ctx) -> Option<()> {
    match decode(c.word)? {
        Insn::B { imm } => {
            let target = c.target(imm);
            c.b.goto(target);
        }
        Insn::Bl { imm } => {
            let target = c.target(imm);
            let back = c.link();
            c.b.goto_via(target, Via::Call { back });
        }
        Insn::BCond { imm, cond } => {
            let target = c.target(imm);
            if cond & 14 == 14 {
                c.b.goto(target);
            } else {
                let holds = c.holds(cond);
                branch_if(c, holds, target);
            }
        }
        Insn::Cbz { sf, nz, imm, rt } => {
            let ty = super::context::width(sf);
            let v = c.x(rt, ty);
            let zero = c.imm(ty, 0);
            let op = if nz != 0 { Cmp::Ne } else { Cmp::Eq };
            let holds = c.b.cmp(op, v, zero);
            let target = c.target(imm);
            branch_if(c, holds, target);
        }
        Insn::Tbz {
            b5,
            nz,
            b40,
            imm,
            rt,
        } => {
            let v = c.x(rt, Ty::I64);
            let bit = c.binary_imm(Binary::And, v, 1u64.wrapping_shl(b5 << 5 | b40));
            let zero = c.imm(Ty::I64, 0);
            let op = if nz != 0 { Cmp::Ne } else { Cmp::Eq };
            let holds = c.b.cmp(op, bit, zero);
            let target = c.target(imm);
            branch_if(c, holds, target);
        }
        Insn::Br { rn } => {
            let target = c.x(rn, Ty::I64);
            let through = matches!(rn, 16 | 17);
            c.set_btype(if through { 1 } else { 3 });
            c.b.goto_val(target);
        }
        Insn::Blr { rn } => {
            let target = c.x(rn, Ty::I64);
            let back = c.link();
            c.set_btype(2);
            c.b.goto_val_via(target, Via::Call { back });
        }
        Insn::Ret { rn } => {
            let target = c.x(rn, Ty::I64);
            c.b.goto_val_via(target, Via::Return);
        }
        Insn::Braz { .. }
        | Insn::Blraz { .. }
        | Insn::Bra { .. }
        | Insn::Blra { .. }
        | Insn::Reta { .. }
        | Insn::Ereta { .. }
            if !c.model.has_pauth() =>
        {
            return None;
        }
        Insn::Braz { key, rn } => {
            let zero = c.imm(Ty::I64, 0);
            let target = c.authenticated_branch(rn, zero, key);
            c.set_btype(if matches!(rn, 16 | 17) { 1 } else { 3 });
            c.b.goto_val(target);
        }
        Insn::Bra { key, rn, rm } => {
            let modifier = c.x_sp(rm, Ty::I64);
            let target = c.authenticated_branch(rn, modifier, key);
            c.set_btype(if matches!(rn, 16 | 17) { 1 } else { 3 });
            c.b.goto_val(target);
        }
        Insn::Blraz { key, rn } => {
            let zero = c.imm(Ty::I64, 0);
            let target = c.authenticated_branch(rn, zero, key);
            let back = c.link();
            c.set_btype(2);
            c.b.goto_val_via(target, Via::Call { back });
        }
        Insn::Blra { key, rn, rm } => {
            let modifier = c.x_sp(rm, Ty::I64);
            let target = c.authenticated_branch(rn, modifier, key);
            let back = c.link();
            c.set_btype(2);
            c.b.goto_val_via(target, Via::Call { back });
        }
        Insn::Reta { key } => {
            let sp = c.x_sp(31, Ty::I64);
            let target = c.authenticated_branch(30, sp, key);
            c.b.goto_val_via(target, Via::Return);
        }
        Insn::Eret => {
            if c.mode.el() == 0 {
                return None;
            }
            c.leave_by(helper::ERET, &[0]);
        }
        Insn::Ereta { key } => {
            if c.mode.el() == 0 {
                return None;
            }
            c.leave_by(helper::ERET, &[1, key.into()]);
        }
        Insn::Svc { imm } => {
            let next = c.next();
            c.leave_by(helper::SVC, &[imm.into(), next]);
        }
        Insn::Hvc { imm } => {
            let next = c.next();
            c.leave_by(helper::HVC, &[imm.into(), next]);
        }
        Insn::Smc { imm } => {
            let next = c.next();
            c.leave_by(helper::SMC, &[imm.into(), next]);
        }
        Insn::Brk { imm } => c.leave_by(helper::BRK, &[imm.into()]),
        Insn::Hlt { imm: SEMIHOSTING } => {
            let next = c.next();
            c.leave_by(helper::SEMIHOST, &[next]);
        }
        // No debugger is attached that halts the CPU: UNDEFINED.
        Insn::Hlt { .. } => return None,
        Insn::Hint { crm, op2 } => hint(c, crm << 3 | op2),
        Insn::Clrex { .. } => c.set_const(regs::MONITOR, u64::MAX),
        Insn::Dsb { .. } => {
            c.b.fence();
            if c.has_peers {
                c.b.call_void(helper::DSB, &[]);
            }
        }
        Insn::Dmb { .. } => c.b.fence(),
        // All that an ISB would wait for has happened, or has ended a unit.
        Insn::Isb { .. } => {}
        Insn::Sb => {
            if !c.has(Feature::Sb) {
                return None;
            }
        }
        Insn::MsrImm { op1, crm, op2 } => return msr_imm(c, op1 << 3 | op2, crm),
        Insn::Sys {
            op1,
            crn,
            crm,
            op2,
            rt,
        } => {
            let reg = encoding((1, op1, crn, crm, op2));
            return sys(c, reg, rt);
        }
        Insn::Sysl { .. } => return None,
        Insn::Msr {
            o0,
            op1,
            crn,
            crm,
            op2,
            rt,
        } => return msr(c, encoding((2 | o0, op1, crn, crm, op2)), rt),
        Insn::Mrs {
            o0,
            op1,
            crn,
            crm,
            op2,
            rt,
        } => return mrs(c, encoding((2 | o0, op1, crn, crm, op2)), rt),
    }
    Some(())
}

fn encoding((op0, op1, crn, crm, op2): (u32, u32, u32, u32, u32)) -> SysReg {
    SysReg::new(op0 as u16, op1 as u16, crn as u16, crm as u16, op2 as u16)
}

/// Hints (C6.2 "HINT"): those without a meaning here do nothing.
fn hint(c: &mut Ctx, number: u32) {
    let next = c.next();
    match number {
        // YIELD, WFE, WFI, SEV, SEVL.
        1 => c.leave_by(helper::YIELD, &[next]),
        2 => c.leave_by(helper::WFE, &[next]),
        3 => c.leave_by(helper::WFI, &[next]),
        4 | 5 => {
            let local = c.imm(Ty::I64, u64::from(number == 5));
            c.b.call_void(helper::SEND_EVENT, &[local]);
        }
        // XPACLRI.
        7 if c.model.has_pauth() => c.strip_pac(30, false),
        // PACIA1716, PACIB1716, AUTIA1716, AUTIB1716.
        8 | 10 | 12 | 14 if c.model.has_pauth() => {
            let modifier = c.x(16, Ty::I64);
            c.pointer_auth(17, modifier, u32::from(number & 2 != 0), number >= 12);
        }
        // PACIAZ, PACIASP, PACIBZ, PACIBSP, AUTIAZ, AUTIASP, AUTIBZ, AUTIBSP.
        24..=31 if c.model.has_pauth() => {
            let modifier = match number & 1 {
                0 => c.imm(Ty::I64, 0),
                _ => c.x_sp(31, Ty::I64),
            };
            c.pointer_auth(30, modifier, u32::from(number & 2 != 0), number >= 28);
        }
        _ => {}
    }
}

fn msr_imm(c: &mut Ctx, what: u32, crm: u32) -> Option<()> {
    let next = c.next();
    match what {
        // CFINV, XAFLAG, AXFLAG.
        0b000_000 if c.has(Feature::FlagM) => {
            let flags = c.b.flags_get();
            let flags = c.binary_imm(Binary::Xor, flags, accel_ir::flags::CF);
            c.raw_flags(flags);
        }
        0b000_001 | 0b000_010 if c.has(Feature::FlagM2) => {
            let flags = c.b.flags_get();
            let to_external = c.imm(Ty::I64, u64::from(what == 0b000_010));
            let flags = c.call(helper::CONVERT_FLAGS, &[flags, to_external]);
            c.raw_flags(flags);
        }
        // UAO, PAN, SPSel, SSBS, DIT, DAIFSet, DAIFClr.
        0b000_011 if c.has(Feature::Uao) && c.mode.el() > 0 => {
            c.leave_by(helper::MSR_IMM, &[what.into(), crm.into(), next]);
        }
        0b000_100 if c.has(Feature::Pan) && c.mode.el() > 0 => {
            c.leave_by(helper::MSR_IMM, &[what.into(), crm.into(), next]);
        }
        0b000_101 if c.mode.el() > 0 => {
            c.leave_by(helper::MSR_IMM, &[what.into(), crm.into(), next]);
        }
        0b011_001 if c.has(Feature::Ssbs2) => {
            c.leave_by(helper::MSR_IMM, &[what.into(), crm.into(), next]);
        }
        0b011_010 if c.has(Feature::Dit) => {
            c.leave_by(helper::MSR_IMM, &[what.into(), crm.into(), next]);
        }
        0b011_110 | 0b011_111 => {
            if c.mode.daif_traps() {
                // Reported as the MSR that it is.
                c.leave_by(helper::SYS_TRAP, &[c.word.into()]);
                return Some(());
            }
            let bits = u64::from(crm) << 6;
            let old = c.b.get(regs::DAIF);
            if what & 1 == 0 {
                let new = c.binary_imm(Binary::Or, old, bits);
                c.b.set(regs::DAIF, new);
            } else {
                let new = c.binary_imm(Binary::And, old, !bits);
                c.b.set(regs::DAIF, new);
                unmasked(c);
            }
        }
        _ => return None,
    }
    Some(())
}

/// DC ZVA (C5.3.8): the block that holds an address becomes zeros. It lies in one page. A fault is at the address
/// itself (D23.2 "FAR_EL1").
fn zero_block(c: &mut Ctx, address: Val) {
    let byte = Mem {
        aligned: false,
        ..c.mem(Ty::I8)
    };
    c.b.probe(address, byte);
    let block = c.binary_imm(Binary::And, address, !(ZVA_BYTES - 1));
    let zero = c.imm(Ty::I64, 0);
    let zeros = c.b.vec_make(zero, zero);
    let mem = Mem {
        aligned: false,
        ..c.mem(Ty::V128)
    };
    for at in (0..ZVA_BYTES as i64).step_by(16) {
        let address = c.offset(block, at);
        c.b.store(address, zeros, mem);
    }
}

/// Interrupts may have become deliverable.
fn unmasked(c: &mut Ctx) {
    let next = c.imm(Ty::I64, c.next());
    c.b.call_void(helper::UNMASKED, &[next]);
}

/// Bytes that DC ZVA clears.
const ZVA_BYTES: u64 = 4 << special::ZVA_WORDS;
/// HLT by which software asks the host.
const SEMIHOSTING: u32 = 0xf000;
const DAIF: SysReg = SysReg::new(3, 3, 4, 2, 1);
const NZCV: SysReg = SysReg::new(3, 3, 4, 2, 0);
const SP_EL0: SysReg = SysReg::new(3, 0, 4, 1, 0);
const CNTPCT_EL0: SysReg = SysReg::new(3, 3, 14, 0, 1);
const CNTVCT_EL0: SysReg = SysReg::new(3, 3, 14, 0, 2);
const CTR_EL0: SysReg = SysReg::new(3, 3, 0, 0, 1);
const FPCR: SysReg = SysReg::new(3, 3, 4, 4, 0);

/// The slot that holds all of a register, where reading and writing it is no more than that.
fn plain(c: &Ctx, reg: SysReg, write: bool) -> Option<Slot> {
    let el = c.mode.el();
    if reg == SP_EL0 && el > 0 && c.mode.sp_sel() {
        return Some(regs::sp_bank(0));
    }
    if reg == DAIF && !c.mode.daif_traps() && !write {
        return Some(regs::DAIF);
    }
    if c.mode.has_traps() {
        return None;
    }
    let reg = crate::system::registers::redirect(reg, c.mode.is_host());
    let row = crate::system::registers::find(reg)?;
    let least = if write { row.write } else { row.read };
    (row.is_plain && el >= least && row.exists(&c.model)).then_some(row.slot)
}

fn mrs(c: &mut Ctx, reg: SysReg, rt: u32) -> Option<()> {
    if reg == NZCV {
        let flags = c.b.flags_get();
        let mut v = c.imm(Ty::I64, 0);
        let inverted = c.binary_imm(Binary::Xor, flags, accel_ir::flags::CF);
        for (from, to) in [(7, 31), (6, 30), (0, 29), (11, 28)] {
            let bit = c.b.extract(inverted, from, 1, Ty::I64);
            v = c.b.insert(v, bit, to, 1);
        }
        c.set_x(rt, v);
        return Some(());
    }
    if let Some(slot) = plain(c, reg, false) {
        let v = c.b.get(slot);
        c.set_x(rt, v);
        return Some(());
    }
    // Cache maintenance asks each time.
    if reg == CTR_EL0 && !c.mode.has_traps() && !c.mode.ctr_traps() {
        let v = c.imm(Ty::I64, c.model.id.ctr);
        c.set_x(rt, v);
        return Some(());
    }
    if reg == FPCR && !c.fp_access() {
        return Some(());
    }
    let word = c.imm(Ty::I64, c.word.into());
    // What programs ask for often has a way of its own.
    let helper = match reg {
        CNTPCT_EL0 => helper::COUNTER,
        CNTVCT_EL0 => helper::VIRTUAL_COUNTER,
        _ => helper::MRS,
    };
    let v = c.call(helper, &[word]);
    c.set_x(rt, v);
    Some(())
}

fn msr(c: &mut Ctx, reg: SysReg, rt: u32) -> Option<()> {
    if reg == NZCV {
        let v = c.x(rt, Ty::I64);
        let mut flags = c.imm(Ty::I64, 0);
        let inverted = c.binary_imm(Binary::Xor, v, 1 << 29);
        for (from, to) in [(31, 7), (30, 6), (29, 0), (28, 11)] {
            let bit = c.b.extract(inverted, from, 1, Ty::I64);
            flags = c.b.insert(flags, bit, to, 1);
        }
        c.raw_flags(flags);
        return Some(());
    }
    if reg == DAIF && !c.mode.daif_traps() {
        let v = c.x(rt, Ty::I64);
        let v = c.binary_imm(Binary::And, v, 0x3c0);
        c.b.set(regs::DAIF, v);
        unmasked(c);
        return Some(());
    }
    if let Some(slot) = plain(c, reg, true) {
        let v = c.x(rt, Ty::I64);
        c.b.set(slot, v);
        return Some(());
    }
    let word = c.imm(Ty::I64, c.word.into());
    let v = c.x(rt, Ty::I64);
    let next = c.imm(Ty::I64, c.next());
    c.b.call_void(helper::MSR, &[word, v, next]);
    Some(())
}

/// Cache and TLB maintenance, address translation, prediction restriction (C5.3).
fn sys(c: &mut Ctx, reg: SysReg, rt: u32) -> Option<()> {
    let (_, op1, crn, crm, op2) = reg.fields();
    let el = c.mode.el();
    match (op1, crn, crm, op2) {
        // DC ZVA.
        (3, 7, 4, 1) => {
            if c.mode.zva_traps() && el == 0 {
                c.leave_by(helper::SYS_TRAP, &[c.word.into()]);
                return Some(());
            }
            let address = c.x(rt, Ty::I64);
            zero_block(c, address);
        }
        // IC IVAU, DC CVAC, CVAP, CVADP, CVAU, CIVAC: caches are coherent; only the address is
        // checked.
        (3, 7, 5 | 10 | 11 | 12 | 13 | 14, 1) => {
            let there = match crm {
                12 => c.has(Feature::Dpb),
                13 => c.has(Feature::Dpb2),
                _ => true,
            };
            if !there {
                return None;
            }
            if c.mode.cache_traps() && el == 0 {
                c.leave_by(helper::SYS_TRAP, &[c.word.into()]);
                return Some(());
            }
            let address = c.x(rt, Ty::I64);
            let ctx = c.imm(Ty::I64, c.mode.ctx().into());
            c.b.call_void(helper::CACHE_LINE, &[address, ctx]);
        }
        _ if el == 0 && !(op1 == 3 && crn == 7 && c.has(Feature::SpecRes)) => return None,
        // CFP, DVP, CPP RCTX: nothing is predicted.
        (3, 7, 3, 4 | 5 | 7) if c.has(Feature::SpecRes) => {}
        // IC IALLUIS, IALLU; DC IVAC, ISW, CSW, CISW.
        (0, 7, 1 | 5, 0) | (0, 7, 6, 1 | 2) | (0, 7, 10 | 14, 2) => {}
        _ => {
            let word = c.imm(Ty::I64, c.word.into());
            let v = c.x(rt, Ty::I64);
            let next = c.imm(Ty::I64, c.next());
            c.b.call_void(helper::SYS, &[word, v, next]);
        }
    }
    Some(())
}
