//! State of an Arm Generic Interrupt Controller (IHI 0048B for version 2, IHI 0069H for version 3).
//!
//! One shape serves both: what differs is which registers show it. Groups are numbered: 0, 1 (with
//! two Security states Non-secure group 1), and 2 for version 3's Secure group 1.

use hw_state::{Section, StateError, Value};

use crate::lpi::GicLpis;

/// Interrupts of a bank, and those that each CPU has for itself: SGIs 0 to 15, PPIs 16 to 31.
pub const GIC_BANK: usize = 32;
/// Software generated interrupts.
pub const GIC_SGIS: usize = 16;
/// Most shared interrupts: INTIDs 32 to 1019.
pub const GIC_MAX_SPIS: usize = 988;
/// Most CPUs of a version 3 controller here, as in QEMU's `virt`.
pub const GIC_MAX_CPUS: usize = 512;
/// Most CPUs of a version 2 controller.
pub const GICV2_MAX_CPUS: usize = 8;
/// Implemented bits of a priority.
pub const GIC_PRIORITY: u8 = 0xf8;
/// Priority of a CPU that handles no interrupt.
pub const GIC_IDLE: u8 = 0xff;

/// Version of the architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicVersion {
    /// Memory-mapped CPU interfaces, up to eight CPUs.
    V2,
    /// Redistributors and system registers, affinity routing always on.
    V3,
}

impl GicVersion {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            GicVersion::V2 => 2,
            GicVersion::V3 => 3,
        }
    }
}

/// Where a board has its interrupt controller.
#[derive(Clone, Debug)]
pub struct GicPlaces {
    /// Version of the architecture.
    pub version: GicVersion,
    /// Address of the distributor.
    pub distributor: u64,
    /// Version 2: address of the CPU interfaces.
    pub interface: u64,
    /// Version 3: base and count of each region of redistributors.
    pub redistributors: Vec<(u64, usize)>,
    /// Address of the translation service, if there is one.
    pub its: Option<u64>,
    /// How many interrupts there are, the private ones of a CPU included.
    pub interrupts: u32,
    /// The CPUs, as `MPIDR_EL1` has them.
    pub affinities: Vec<u64>,
}

/// Thirty-two interrupts, a bit each.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GicBank {
    /// `IGROUPR`: in group 1.
    pub group: u32,
    /// Version 3, `IGRPMODR`: what is not in group 1 is in Secure group 1, with two Security states.
    pub modifier: u32,
    /// `ISENABLER`.
    pub enabled: u32,
    /// Pending by an edge, a message or a write of `ISPENDR`.
    pub latched: u32,
    /// `ISACTIVER`.
    pub active: u32,
    /// Levels of the inputs as last driven.
    pub lines: u32,
    /// `ICFGR`: edge-triggered.
    pub edges: u32,
    /// `IPRIORITYR`.
    pub priority: [u8; GIC_BANK],
    /// Version 3, `NSACR`: what Non-secure software may do to Secure interrupts, two bits each.
    pub lent: u64,
}

impl GicBank {
    /// After reset: all level-triggered, but for the edge-triggered ones given.
    pub fn with_edges(edges: u32) -> Self {
        GicBank {
            edges,
            ..GicBank::default()
        }
    }

    /// `ISPENDR`.
    pub fn pending(&self) -> u32 {
        self.latched | (self.lines & !self.edges)
    }

    fn save(&self) -> Section {
        let GicBank {
            group,
            modifier,
            enabled,
            latched,
            active,
            lines,
            edges,
            priority,
            lent,
        } = self;
        Section::new("gic-bank", 1)
            .with(1, *group)
            .with(2, *enabled)
            .with(3, *latched)
            .with(4, *active)
            .with(5, *lines)
            .with(6, *edges)
            .with(7, priority.to_vec())
            .with(8, *modifier)
            .with(9, *lent)
    }

    fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect("gic-bank", 1)?;
        Ok(GicBank {
            group: s.u32(1)?,
            enabled: s.u32(2)?,
            latched: s.u32(3)?,
            active: s.u32(4)?,
            lines: s.u32(5)?,
            edges: s.u32(6)?,
            priority: s.array::<GIC_BANK>(7)?.map(|p| p & GIC_PRIORITY),
            modifier: added(s, 8, 0)?,
            lent: s.get(9).map_or(Ok(0), |_| s.u64(9))?,
        })
    }
}

/// List registers of a virtual CPU interface.
pub const GIC_LIST: usize = 4;

/// Version 3: the virtual CPU interface, by the names of its registers (IHI 0069H section 12.4).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the manual's names")]
pub struct GicVirtual {
    pub hcr: u32,
    pub vmcr: u32,
    pub apr: [u32; 2],
    pub list: [u64; GIC_LIST],
}

impl GicVirtual {
    fn save(&self) -> Section {
        let GicVirtual {
            hcr,
            vmcr,
            apr,
            list,
        } = self;
        Section::new("gic-virtual", 1)
            .with(1, *hcr)
            .with(2, *vmcr)
            .with(3, apr.iter().copied().collect::<Value>())
            .with(4, list.iter().copied().collect::<Value>())
    }

    fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect("gic-virtual", 1)?;
        Ok(GicVirtual {
            hcr: s.u32(1)?,
            vmcr: s.u32(2)?,
            apr: words(s, 3)?,
            list: s.u64_array(4)?,
        })
    }
}

/// A field that older saved forms lack.
fn added(s: &Section, tag: u16, before: u32) -> Result<u32, StateError> {
    s.get(tag).map_or(Ok(before), |_| s.u32(tag))
}

fn words(s: &Section, tag: u16) -> Result<[u32; 2], StateError> {
    let [a, b] = s.u64_array(tag)?;
    let low = |v: u64| u32::try_from(v).map_err(|_| s.bad(tag, "more than 32 bits"));
    Ok([low(a)?, low(b)?])
}

/// What a CPU has for itself: its private interrupts and its CPU interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GicCpu {
    /// SGIs and PPIs.
    pub bank: GicBank,
    /// Version 2: CPUs that sent each pending SGI, a bit each.
    pub sgi_sources: [u8; GIC_SGIS],
    /// `GICC_CTLR` without the group enables, or `ICC_CTLR_EL1` (the Non-secure one of two).
    pub ctlr: u32,
    /// Version 3: the Secure `ICC_CTLR_EL1`.
    pub ctlr_secure: u32,
    /// Version 3: what `ICC_CTLR_EL3` has of its own.
    pub ctlr_el3: u32,
    /// Enabled groups, a bit each.
    pub groups: u8,
    /// Priority mask.
    pub pmr: u8,
    /// Binary points of the groups.
    pub bpr: [u8; 3],
    /// Active priorities of the groups, a bit for each of 32 levels.
    pub apr: [u32; 3],
    /// Version 3: the redistributor sleeps (`GICR_WAKER`).
    pub asleep: bool,
    /// Version 3: the virtual CPU interface.
    pub virt: GicVirtual,
    /// Version 3: LPIs.
    pub lpis: GicLpis,
}

impl Default for GicCpu {
    fn default() -> Self {
        GicCpu {
            bank: GicBank::with_edges(0xffff),
            sgi_sources: [0; GIC_SGIS],
            ctlr: 0,
            ctlr_secure: 0,
            ctlr_el3: 0,
            groups: 0,
            pmr: 0,
            bpr: [GIC_MIN_BPR, GIC_MIN_BPR.wrapping_add(1), GIC_MIN_BPR],
            apr: [0; 3],
            asleep: true,
            virt: GicVirtual::default(),
            lpis: GicLpis::default(),
        }
    }
}

/// Least binary point with five bits of priority; group 1's is one more.
pub const GIC_MIN_BPR: u8 = 2;

impl GicCpu {
    fn save(&self) -> Section {
        let GicCpu {
            bank,
            sgi_sources,
            ctlr,
            ctlr_secure,
            ctlr_el3,
            groups,
            pmr,
            bpr,
            apr,
            asleep,
            virt,
            lpis,
        } = self;
        Section::new("gic-cpu", 1)
            .with(1, bank.save())
            .with(2, sgi_sources.to_vec())
            .with(3, *ctlr)
            .with(4, *groups)
            .with(5, *pmr)
            .with(6, bpr.iter().take(2).copied().collect::<Vec<u8>>())
            .with(7, apr.iter().take(2).copied().collect::<Value>())
            .with(8, *asleep)
            .with(9, virt.save())
            .with(10, lpis.save())
            .with(11, bpr[2])
            .with(12, apr[2])
            .with(13, *ctlr_secure)
            .with(14, *ctlr_el3)
    }

    fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect("gic-cpu", 1)?;
        let [a, b] = s.array(6)?;
        let least = GIC_MIN_BPR;
        let secure = added(s, 11, least.into())? as u8;
        let [apr0, apr1] = words(s, 7)?;
        Ok(GicCpu {
            bank: GicBank::restore(s.section(1)?)?,
            sgi_sources: s.array(2)?,
            ctlr: s.u32(3)?,
            ctlr_secure: added(s, 13, 0)?,
            ctlr_el3: added(s, 14, 0)?,
            groups: s.u8(4)? & 7,
            pmr: s.u8(5)? & GIC_PRIORITY,
            bpr: [
                a.clamp(least, 7),
                b.clamp(least.wrapping_add(1), 7),
                secure.clamp(least, 7),
            ],
            apr: [apr0, apr1, added(s, 12, 0)?],
            asleep: s.bool(8)?,
            virt: match s.get(9) {
                Some(_) => GicVirtual::restore(s.section(9)?)?,
                None => GicVirtual::default(),
            },
            lpis: match s.get(10) {
                Some(_) => GicLpis::restore(s.section(10)?)?,
                None => GicLpis::default(),
            },
        })
    }
}

/// A whole controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GicState {
    /// Version of the architecture.
    pub version: GicVersion,
    /// It has the Security Extensions.
    pub has_security: bool,
    /// `GICD_CTLR.DS`: there is one Security state although it has them.
    pub is_single: bool,
    /// Enabled groups, a bit each: bits 2:0 of `GICD_CTLR`.
    pub ctlr: u32,
    /// Shared interrupts, from INTID 32 on.
    pub spis: Vec<GicBank>,
    /// Where each shared interrupt goes: version 2 `GICD_ITARGETSR`, version 3 `GICD_IROUTER`.
    pub routes: Vec<u64>,
    /// The CPUs.
    pub cpus: Vec<GicCpu>,
}

const NAME: &str = "gic";
const VERSION: u16 = 1;

impl GicState {
    /// After reset, with room for `spis` shared interrupts (a multiple of 32).
    pub fn new(version: GicVersion, cpus: usize, spis: usize) -> Self {
        let banks = spis.min(GIC_MAX_SPIS).div_ceil(GIC_BANK);
        GicState {
            version,
            has_security: false,
            is_single: false,
            ctlr: 0,
            spis: vec![GicBank::default(); banks],
            routes: vec![0; banks.saturating_mul(GIC_BANK)],
            cpus: vec![GicCpu::default(); cpus],
        }
    }

    /// Whether there are two Security states.
    pub fn has_two_states(&self) -> bool {
        self.has_security && !self.is_single
    }

    /// The bank of INTIDs `32 * n` on, as a CPU sees it.
    pub fn bank(&self, cpu: usize, n: usize) -> Option<&GicBank> {
        match n.checked_sub(1) {
            None => self.cpus.get(cpu).map(|c| &c.bank),
            Some(n) => self.spis.get(n),
        }
    }

    /// As [`bank`](Self::bank), to change it.
    pub fn bank_mut(&mut self, cpu: usize, n: usize) -> Option<&mut GicBank> {
        match n.checked_sub(1) {
            None => self.cpus.get_mut(cpu).map(|c| &mut c.bank),
            Some(n) => self.spis.get_mut(n),
        }
    }

    /// The saved form.
    pub fn save(&self) -> Section {
        let GicState {
            version,
            has_security,
            is_single,
            ctlr,
            spis,
            routes,
            cpus,
        } = self;
        Section::new(NAME, VERSION)
            .with(1, version.number())
            .with(2, *ctlr)
            .with(3, spis.iter().map(GicBank::save).collect::<Value>())
            .with(4, routes.iter().copied().collect::<Value>())
            .with(5, cpus.iter().map(GicCpu::save).collect::<Value>())
            .with(6, *has_security)
            .with(7, *is_single)
    }

    /// From the saved form of a controller of the same shape as this one.
    pub fn restore(&self, s: &Section) -> Result<Self, StateError> {
        s.expect(NAME, VERSION)?;
        if s.u8(1)? != self.version.number() {
            return Err(s.bad(1, "another version of the controller"));
        }
        let flag = |tag| s.get(tag).map_or(Ok(false), |_| s.bool(tag));
        if flag(6)? != self.has_security {
            return Err(s.bad(6, "with and without Security Extensions are two"));
        }
        let spis = sections(s, 3, self.spis.len())?;
        let cpus = sections(s, 5, self.cpus.len())?;
        let routes = s.list(4)?;
        if routes.len() != self.routes.len() {
            return Err(s.bad(4, "another number of interrupts"));
        }
        let route = |value: &Value| match value {
            Value::U64(v) => Ok(*v),
            _ => Err(s.bad(4, "not integers")),
        };
        Ok(GicState {
            version: self.version,
            has_security: self.has_security,
            is_single: flag(7)?,
            ctlr: s.u32(2)? & 7,
            spis: spis
                .into_iter()
                .map(GicBank::restore)
                .collect::<Result<_, _>>()?,
            routes: routes.iter().map(route).collect::<Result<_, _>>()?,
            cpus: cpus
                .into_iter()
                .map(GicCpu::restore)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn sections(s: &Section, tag: u16, count: usize) -> Result<Vec<&Section>, StateError> {
    let list = s.list(tag)?;
    if list.len() != count {
        return Err(s.bad(tag, "another number of parts than this machine has"));
    }
    list.iter()
        .map(|value| match value {
            Value::Section(section) => Ok(section),
            _ => Err(s.bad(tag, "not sections")),
        })
        .collect()
}
