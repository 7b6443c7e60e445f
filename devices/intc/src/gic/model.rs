//! How interrupts are prioritized, acknowledged and ended: the same in both versions
//! (IHI 0048B chapter 3, IHI 0069H chapter 4).

use hw_intc::{
    GIC_BANK, GIC_FIRST_LPI, GIC_IDLE, GIC_MIN_BPR, GicBank, GicCpu, GicState, GicVersion,
};

use super::Security;
use super::lpi::Properties;

/// First INTID with a special meaning; interrupts of wires end before.
pub(super) const FIRST_SPECIAL: u32 = 1020;
/// The highest pending interrupt is of group 1 and cannot be taken here (version 2).
pub(super) const OTHER_GROUP: u32 = 1022;
/// There is no interrupt.
pub(super) const SPURIOUS: u32 = 1023;

/// `GICC_CTLR`.
pub(super) mod cpu_ctlr {
    pub(crate) const ACK_CTL: u32 = 1 << 2;
    pub(crate) const FIQ_EN: u32 = 1 << 3;
    pub(crate) const CBPR: u32 = 1 << 4;
    /// With two Security states, the Secure one's.
    pub(crate) const EOI_MODE: u32 = 1 << 9;
    pub(crate) const EOI_MODE_NS: u32 = 1 << 10;
    /// All that software may set, but for the group enables.
    pub(crate) const WRITABLE: u32 = 0x61c;
}

/// `ICC_CTLR_EL1`.
pub(super) mod icc_ctlr {
    pub(crate) const CBPR: u64 = 1;
    pub(crate) const EOI_MODE: u64 = 1 << 1;
}

/// An interrupt that could be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) intid: u32,
    pub(super) priority: u8,
    pub(super) group: usize,
}

/// Group 1; with two Security states, Non-secure group 1.
pub(super) const GROUP_1: usize = 1;
/// Secure group 1.
pub(super) const SECURE_GROUP_1: usize = 2;

/// The inputs of a CPU that the controller drives, a bit each.
pub(super) mod line {
    pub(crate) const IRQ: u8 = 1;
    pub(crate) const FIQ: u8 = 2;
    pub(crate) const VIRTUAL_IRQ: u8 = 4;
    pub(crate) const VIRTUAL_FIQ: u8 = 8;
    /// IRQ or FIQ as the CPU's state has it: Non-secure and Secure group 1 of version 3.
    pub(crate) const GROUP_1: u8 = 16;
    pub(crate) const SECURE_GROUP_1: u8 = 32;
}

/// A controller's state and who its CPUs are.
pub(super) struct Model {
    pub(super) state: GicState,
    /// Affinities: Aff3 to Aff0, a byte each.
    affinities: Vec<u32>,
    /// Version 3: the CPU that each shared interrupt goes to.
    homes: Vec<Option<usize>>,
    pub(super) properties: Properties,
    /// It comes up as Secure software leaves it.
    is_set_up: bool,
}

/// The bit of an interrupt in its bank.
pub(super) fn bit(intid: u32) -> u32 {
    1u32.wrapping_shl(intid & 31)
}

/// The bank of an interrupt.
pub(super) fn bank_of(intid: u32) -> usize {
    usize::try_from(intid >> 5).unwrap_or(usize::MAX)
}

/// Aff3 to Aff0 of an `MPIDR` or `GICD_IROUTER` value.
pub(super) fn affinity(value: u64) -> u32 {
    ((value >> 32 & 0xff) << 24 | value & 0x00ff_ffff) as u32
}

/// The priorities that do not preempt each other: those equal under this mask.
fn group_mask(cpu: &GicCpu, group: usize, common: bool) -> u8 {
    let [bpr0, bpr1, secure_bpr1] = cpu.bpr;
    // Group 1's binary point counts from one lower.
    let low_bits = match group {
        _ if common => u32::from(bpr0).wrapping_add(1),
        0 => u32::from(bpr0).wrapping_add(1),
        GROUP_1 => u32::from(bpr1),
        _ => u32::from(secure_bpr1).wrapping_add(1),
    };
    0xffu8.checked_shl(low_bits).unwrap_or(0)
}

/// The highest active priority.
pub(super) fn running(cpu: &GicCpu) -> u8 {
    let [a, b, c] = cpu.apr;
    let first = (a | b | c).trailing_zeros();
    if first >= 32 {
        GIC_IDLE
    } else {
        (first << 3) as u8
    }
}

/// Leaves a controller to Non-secure software: its interrupts, and a priority mask that it may change.
fn set_up(state: &mut GicState) {
    for bank in &mut state.spis {
        bank.group = u32::MAX;
    }
    for cpu in &mut state.cpus {
        cpu.bank.group = u32::MAX;
        cpu.pmr = 0x80;
    }
}

/// The group of the highest active priority.
pub(super) fn active_group(cpu: &GicCpu) -> Option<usize> {
    let first = cpu.apr.map(u32::trailing_zeros);
    let group = (0..first.len()).min_by_key(|n| first.get(*n))?;
    (first.get(group).is_some_and(|n| *n < 32)).then_some(group)
}

impl Model {
    pub(super) fn new(
        version: GicVersion,
        affinities: &[u64],
        spis: usize,
        security: Security,
    ) -> Self {
        let mut state = GicState::new(version, affinities.len(), spis);
        state.has_security = security != Security::None;
        let mut model = Model {
            affinities: affinities.iter().map(|a| affinity(*a)).collect(),
            homes: vec![None; state.routes.len()],
            properties: Properties::default(),
            is_set_up: security == Security::SetUp,
            state,
        };
        model.reset();
        model
    }

    /// As after power on; the inputs keep their levels.
    pub(super) fn reset(&mut self) {
        let old = &self.state;
        let spis = old.spis.len().saturating_mul(GIC_BANK);
        let mut new = GicState::new(old.version, old.cpus.len(), spis);
        new.has_security = old.has_security;
        for (new, old) in new.spis.iter_mut().zip(&old.spis) {
            new.lines = old.lines;
        }
        for (new, old) in new.cpus.iter_mut().zip(&old.cpus) {
            new.bank.lines = old.bank.lines;
        }
        // "In a uniprocessor implementation all interrupts target the one processor."
        if new.version == GicVersion::V2 && new.cpus.len() == 1 {
            new.routes.iter_mut().for_each(|route| *route = 1);
        }
        if self.is_set_up {
            set_up(&mut new);
        }
        self.replace(new);
    }

    /// Takes over a state of the same shape.
    pub(super) fn replace(&mut self, state: GicState) {
        self.state = state;
        self.forget_properties();
        for spi in 0..self.homes.len() {
            self.route(spi);
        }
    }

    /// The number of the CPU of an affinity.
    pub(super) fn cpu_of(&self, affinity: u32) -> Option<usize> {
        self.affinities.iter().position(|a| *a == affinity)
    }

    /// A CPU's affinity.
    pub(super) fn affinity_of(&self, cpu: usize) -> u32 {
        self.affinities.get(cpu).copied().unwrap_or(0)
    }

    fn route(&mut self, spi: usize) {
        let route = self.state.routes.get(spi).copied().unwrap_or(0);
        let home = self.cpu_of(affinity(route));
        if let Some(slot) = self.homes.get_mut(spi) {
            *slot = home;
        }
    }

    /// Sends a shared interrupt elsewhere.
    pub(super) fn set_route(&mut self, spi: usize, route: u64) {
        if let Some(slot) = self.state.routes.get_mut(spi) {
            *slot = route;
            self.route(spi);
        }
    }

    fn reaches(&self, spi: usize, cpu: usize) -> bool {
        match self.state.version {
            GicVersion::V2 => {
                let mask = self.state.routes.get(spi).copied().unwrap_or(0);
                u32::try_from(cpu)
                    .ok()
                    .and_then(|n| mask.checked_shr(n))
                    .is_some_and(|m| m & 1 != 0)
            }
            GicVersion::V3 => self.homes.get(spi).is_some_and(|home| *home == Some(cpu)),
        }
    }

    /// The CPUs that a change of an interrupt may concern: one, or all of them.
    pub(super) fn concerns(&self, cpu: usize, intid: u32) -> Option<usize> {
        match (bank_of(intid), self.state.version) {
            (0, _) => Some(cpu),
            (_, GicVersion::V2) => None,
            (_, GicVersion::V3) => {
                let spi = usize::try_from(intid).unwrap_or(0).saturating_sub(GIC_BANK);
                self.homes.get(spi).copied().flatten()
            }
        }
    }

    /// The level of an input changed.
    pub(super) fn set_line(&mut self, cpu: usize, intid: u32, level: bool) {
        let Some(bank) = self.state.bank_mut(cpu, bank_of(intid)) else {
            return;
        };
        let bit = bit(intid);
        if level {
            bank.latched |= bit & bank.edges & !bank.lines;
            bank.lines |= bit;
        } else {
            bank.lines &= !bit;
        }
    }

    /// A software generated interrupt for `to`.
    pub(super) fn send_sgi(&mut self, from: usize, to: usize, sgi: u32) {
        let is_v2 = self.state.version == GicVersion::V2;
        let Some(cpu) = self.state.cpus.get_mut(to) else {
            return;
        };
        let index = usize::try_from(sgi & 15).unwrap_or(0);
        if is_v2 && let Some(sources) = cpu.sgi_sources.get_mut(index) {
            *sources |= u32::try_from(from).map_or(0, |n| 1u8.checked_shl(n).unwrap_or(0));
        }
        cpu.bank.latched |= bit(sgi & 15);
    }

    /// The pending interrupt that comes first for a CPU.
    pub(super) fn highest(&self, cpu: usize) -> Option<Candidate> {
        let own = self.state.cpus.get(cpu)?;
        let groups = self.state.ctlr & u32::from(own.groups);
        let mut best = None;
        self.consider(&own.bank, 0, groups, cpu, &mut best);
        for (bank, first) in self.state.spis.iter().zip((32u32..).step_by(32)) {
            self.consider(bank, first, groups, cpu, &mut best);
        }
        if groups & 2 != 0 {
            self.consider_lpis(own, &mut best);
        }
        best
    }

    fn consider(
        &self,
        bank: &GicBank,
        first: u32,
        groups: u32,
        cpu: usize,
        best: &mut Option<Candidate>,
    ) {
        let secure_1 = self.modified(bank);
        let [zero, one, secure] = [!bank.group & !secure_1, bank.group, secure_1];
        let on = if groups & 1 != 0 { zero } else { 0 }
            | if groups & 2 != 0 { one } else { 0 }
            | if groups & 4 != 0 { secure } else { 0 };
        let mut bits = bank.pending() & bank.enabled & !bank.active & on;
        while bits != 0 {
            let n = bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
            let intid = first.wrapping_add(n);
            let spi = usize::try_from(intid)
                .ok()
                .and_then(|i| i.checked_sub(GIC_BANK));
            if spi.is_some_and(|spi| !self.reaches(spi, cpu)) {
                continue;
            }
            let priority = usize::try_from(n)
                .ok()
                .and_then(|n| bank.priority.get(n).copied());
            let priority = priority.unwrap_or(GIC_IDLE);
            if best.is_none_or(|b| priority < b.priority) {
                *best = Some(Candidate {
                    intid,
                    priority,
                    group: self.group_in(bank, n),
                });
            }
        }
    }

    /// Interrupts of a bank in Secure group 1.
    fn modified(&self, bank: &GicBank) -> u32 {
        if self.state.version == GicVersion::V3 && self.state.has_two_states() {
            bank.modifier & !bank.group
        } else {
            0
        }
    }

    fn group_in(&self, bank: &GicBank, intid: u32) -> usize {
        match bit(intid) {
            bit if bank.group & bit != 0 => GROUP_1,
            bit if self.modified(bank) & bit != 0 => SECURE_GROUP_1,
            _ => 0,
        }
    }

    /// Whether group 0's binary point serves a group too.
    fn is_common(&self, cpu: &GicCpu, group: usize) -> bool {
        match (self.state.version, group) {
            (GicVersion::V2, _) => cpu.ctlr & cpu_ctlr::CBPR != 0,
            (GicVersion::V3, SECURE_GROUP_1) => u64::from(cpu.ctlr_secure) & icc_ctlr::CBPR != 0,
            (GicVersion::V3, _) => u64::from(cpu.ctlr) & icc_ctlr::CBPR != 0,
        }
    }

    /// The highest pending interrupt, if it may interrupt the CPU now.
    pub(super) fn signalled(&self, cpu: usize) -> Option<Candidate> {
        let candidate = self.highest(cpu)?;
        let own = self.state.cpus.get(cpu)?;
        let common = self.is_common(own, candidate.group);
        let mask = group_mask(own, candidate.group, common);
        let passes = candidate.priority < own.pmr && candidate.priority & mask < running(own);
        passes.then_some(candidate)
    }

    /// The inputs of a CPU that are driven ([`line`]), but for the virtual ones.
    pub(super) fn outputs(&self, cpu: usize) -> u8 {
        let Some(candidate) = self.signalled(cpu) else {
            return 0;
        };
        let is_v3 = self.state.version == GicVersion::V3;
        let own = self.state.cpus.get(cpu);
        let fiq_for_0 = is_v3 || own.is_some_and(|own| own.ctlr & cpu_ctlr::FIQ_EN != 0);
        match candidate.group {
            0 if fiq_for_0 => line::FIQ,
            SECURE_GROUP_1 => line::SECURE_GROUP_1,
            GROUP_1 if is_v3 && self.state.has_two_states() => line::GROUP_1,
            _ => line::IRQ,
        }
    }

    /// The CPU takes an interrupt: it becomes active. The INTID, with the sender of an SGI of
    /// version 2 above it.
    pub(super) fn activate(&mut self, cpu: usize, candidate: Candidate) -> u32 {
        let is_v2 = self.state.version == GicVersion::V2;
        let own = self.state.cpus.get(cpu);
        let common = own.is_some_and(|own| self.is_common(own, candidate.group));
        let intid = candidate.intid;
        let mut id = intid;
        let mut keeps = false;
        if let Some(own) = self.state.cpus.get_mut(cpu) {
            let mask = group_mask(own, candidate.group, common);
            let level = u32::from(candidate.priority & mask) >> 3;
            if let Some(apr) = own.apr.get_mut(candidate.group) {
                *apr |= 1u32.wrapping_shl(level);
            }
            if intid >= GIC_FIRST_LPI {
                own.lpis.set_pending(intid, false);
                return intid;
            }
            let sources = usize::try_from(intid).ok().filter(|_| is_v2);
            if let Some(sources) = sources.and_then(|n| own.sgi_sources.get_mut(n)) {
                let from = sources.trailing_zeros() & 7;
                *sources &= sources.wrapping_sub(1);
                keeps = *sources != 0;
                id |= from << 10;
            }
        }
        if let Some(bank) = self.state.bank_mut(cpu, bank_of(intid)) {
            bank.active |= bit(intid);
            if !keeps {
                bank.latched &= !bit(intid);
            }
        }
        id
    }

    /// The group of an interrupt.
    pub(super) fn group_of(&self, cpu: usize, intid: u32) -> usize {
        let bank = self.state.bank(cpu, bank_of(intid));
        bank.map_or(0, |bank| self.group_in(bank, intid))
    }

    /// The CPU has handled an interrupt of a group: its priority drops, and unless that is all the end
    /// does (`is_split`), it is no longer active.
    pub(super) fn end(&mut self, cpu: usize, intid: u32, group: usize, is_split: bool) {
        let Some(own) = self.state.cpus.get_mut(cpu) else {
            return;
        };
        if let Some(apr) = own.apr.get_mut(group) {
            *apr &= apr.wrapping_sub(1);
        }
        if !is_split {
            self.deactivate(cpu, intid);
        }
    }

    /// An interrupt is no longer active.
    pub(super) fn deactivate(&mut self, cpu: usize, intid: u32) {
        if let Some(bank) = self.state.bank_mut(cpu, bank_of(intid)) {
            bank.active &= !bit(intid);
        }
    }

    /// Sets the binary point of a group, which has a least value.
    pub(super) fn set_bpr(&mut self, cpu: usize, group: usize, value: u64) {
        let own = self.state.cpus.get_mut(cpu);
        if let Some(bpr) = own.and_then(|own| own.bpr.get_mut(group)) {
            let least = GIC_MIN_BPR.wrapping_add(u8::from(group == GROUP_1));
            *bpr = (value as u8 & 7).max(least);
        }
    }
}
