//! `-smp`: how many processors, and how they are arranged.

use crate::error::OptionError;
use crate::props::{PropDef, PropKind, Props};

/// `-smp` as written; what is not given is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SmpOpts {
    /// Processors at power on.
    pub cpus: Option<u32>,
    /// Most there can be.
    pub maxcpus: Option<u32>,
    /// s390x: drawers on the board.
    pub drawers: Option<u32>,
    /// s390x: books in a drawer.
    pub books: Option<u32>,
    /// Sockets on the board.
    pub sockets: Option<u32>,
    /// Dies in a socket.
    pub dies: Option<u32>,
    /// Modules in a die.
    pub modules: Option<u32>,
    /// Clusters in a die.
    pub clusters: Option<u32>,
    /// Cores in a cluster.
    pub cores: Option<u32>,
    /// Threads in a core.
    pub threads: Option<u32>,
}

pub(crate) const SMP_PROPS: &[PropDef] = &[
    PropDef::new("cpus", PropKind::U32, "processors at power on"),
    PropDef::new("maxcpus", PropKind::U32, "most processors there can be"),
    PropDef::new("drawers", PropKind::U32, "drawers on the board"),
    PropDef::new("books", PropKind::U32, "books in a drawer"),
    PropDef::new("sockets", PropKind::U32, "sockets on the board"),
    PropDef::new("dies", PropKind::U32, "dies in a socket"),
    PropDef::new("modules", PropKind::U32, "modules in a die"),
    PropDef::new("clusters", PropKind::U32, "clusters in a die"),
    PropDef::new("cores", PropKind::U32, "cores in a cluster, die or socket"),
    PropDef::new("threads", PropKind::U32, "threads in a core"),
];

impl SmpOpts {
    /// Takes over what `props` give, keeping the rest: a second `-smp` adds to the first.
    pub(crate) fn merge(&mut self, props: &Props) -> Result<(), OptionError> {
        for (name, field) in self.fields_mut() {
            let Some(count) = props.unsigned(name) else {
                continue;
            };
            if count == 0 {
                return Err(OptionError::bad_value(
                    "-smp",
                    name,
                    "0",
                    "a number of at least 1",
                ));
            }
            *field = u32::try_from(count).ok();
        }
        Ok(())
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut Option<u32>); 10] {
        [
            ("cpus", &mut self.cpus),
            ("maxcpus", &mut self.maxcpus),
            ("drawers", &mut self.drawers),
            ("books", &mut self.books),
            ("sockets", &mut self.sockets),
            ("dies", &mut self.dies),
            ("modules", &mut self.modules),
            ("clusters", &mut self.clusters),
            ("cores", &mut self.cores),
            ("threads", &mut self.threads),
        ]
    }
}

/// What a machine can arrange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SmpLimits<'a> {
    /// The machine's name, for messages.
    pub machine: &'a str,
    /// Most processors.
    pub max_cpus: u32,
    /// Whether it has dies, modules, clusters, books, drawers.
    pub levels: &'a [Level],
}

/// Levels that not every machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// In a socket.
    Dies,
    /// In a die.
    Modules,
    /// In a die.
    Clusters,
    /// In a drawer.
    Books,
    /// On the board.
    Drawers,
}

/// A complete arrangement: the product of all levels is `maxcpus`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Processors at power on.
    pub cpus: u32,
    /// Most there can be.
    pub maxcpus: u32,
    /// s390x: drawers.
    pub drawers: u32,
    /// s390x: books in a drawer.
    pub books: u32,
    /// Sockets.
    pub sockets: u32,
    /// Dies in a socket.
    pub dies: u32,
    /// Modules in a die.
    pub modules: u32,
    /// Clusters in a die.
    pub clusters: u32,
    /// Cores in a cluster.
    pub cores: u32,
    /// Threads in a core.
    pub threads: u32,
}

impl Topology {
    /// Completes `smp` for a machine. What is missing is computed from what is given, cores before sockets.
    ///
    /// # Errors
    /// A level the machine lacks, numbers that do not multiply, too many processors.
    pub fn resolve(smp: &SmpOpts, limits: &SmpLimits<'_>) -> Result<Self, OptionError> {
        let fail = |problem: String| Err(OptionError::syntax("-smp", problem));
        let optional = [
            ("dies", smp.dies, Level::Dies),
            ("modules", smp.modules, Level::Modules),
            ("clusters", smp.clusters, Level::Clusters),
            ("books", smp.books, Level::Books),
            ("drawers", smp.drawers, Level::Drawers),
        ];
        let mut outer = 1u64;
        for (name, count, level) in optional {
            let count = count.unwrap_or(1);
            if count > 1 && !limits.levels.contains(&level) {
                return fail(format!(
                    "machine '{}' has no {name}; leave '{name}={count}' out",
                    limits.machine
                ));
            }
            outer = outer.saturating_mul(u64::from(count));
        }
        let wide = |n: Option<u32>| n.map(u64::from);
        let (mut sockets, mut cores, mut threads) =
            (wide(smp.sockets), wide(smp.cores), wide(smp.threads));
        let wanted = wide(smp.maxcpus.or(smp.cpus));
        if let Some(wanted) = wanted {
            let rest = |a: u64, b: u64| {
                let others = outer.saturating_mul(a).saturating_mul(b).max(1);
                (wanted / others).max(1)
            };
            if cores.is_none() {
                let (s, t) = (*sockets.get_or_insert(1), *threads.get_or_insert(1));
                cores = Some(rest(s, t));
            } else if sockets.is_none() {
                let t = *threads.get_or_insert(1);
                sockets = Some(rest(cores.unwrap_or(1), t));
            }
            threads = threads.or(Some(rest(sockets.unwrap_or(1), cores.unwrap_or(1))));
        }
        let (sockets, cores, threads) = (
            sockets.unwrap_or(1),
            cores.unwrap_or(1),
            threads.unwrap_or(1),
        );
        let total = outer
            .saturating_mul(sockets)
            .saturating_mul(cores)
            .saturating_mul(threads);
        let maxcpus = wanted.unwrap_or(total);
        let cpus = smp.cpus.map_or(maxcpus, u64::from);
        if total != maxcpus {
            let others = if outer > 1 {
                format!(" * other levels ({outer})")
            } else {
                String::new()
            };
            return fail(format!(
                "sockets ({sockets}) * cores ({cores}) * threads ({threads}){others} is {total}, but must be maxcpus \
                 ({maxcpus}): change one of them or leave one out"
            ));
        }
        if cpus > maxcpus {
            return fail(format!(
                "{cpus} processors at power on are more than maxcpus={maxcpus} allows"
            ));
        }
        if maxcpus > u64::from(limits.max_cpus) {
            return fail(format!(
                "{maxcpus} processors are more than machine '{}' takes: at most {}",
                limits.machine, limits.max_cpus
            ));
        }
        // All are at most `maxcpus`, which fits.
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Self {
            cpus: narrow(cpus),
            maxcpus: narrow(maxcpus),
            drawers: smp.drawers.unwrap_or(1),
            books: smp.books.unwrap_or(1),
            sockets: narrow(sockets),
            dies: smp.dies.unwrap_or(1),
            modules: smp.modules.unwrap_or(1),
            clusters: smp.clusters.unwrap_or(1),
            cores: narrow(cores),
            threads: narrow(threads),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opts::Opts;

    const PC: SmpLimits<'_> = SmpLimits {
        machine: "q35",
        max_cpus: 288,
        levels: &[Level::Dies],
    };

    fn resolve(text: &str) -> Result<Topology, String> {
        let opts = Opts::parse("-smp", text, Some("cpus")).map_err(|e| e.to_string())?;
        let props = Props::check("-smp", "-smp", &opts, SMP_PROPS).map_err(|e| e.to_string())?;
        let mut smp = SmpOpts::default();
        smp.merge(&props).map_err(|e| e.to_string())?;
        Topology::resolve(&smp, &PC).map_err(|e| e.to_string())
    }

    fn shape(text: &str) -> (u32, u32, u32, u32, u32, u32) {
        let t = resolve(text).unwrap();
        (t.cpus, t.maxcpus, t.sockets, t.dies, t.cores, t.threads)
    }

    #[test]
    fn what_is_missing_is_computed_cores_first() {
        assert_eq!(shape("4"), (4, 4, 1, 1, 4, 1));
        assert_eq!(shape("8,threads=2"), (8, 8, 1, 1, 4, 2));
        assert_eq!(shape("8,sockets=2"), (8, 8, 2, 1, 4, 1));
        assert_eq!(shape("8,cores=2"), (8, 8, 4, 1, 2, 1));
        assert_eq!(shape("8,sockets=2,cores=2"), (8, 8, 2, 1, 2, 2));
        assert_eq!(shape("sockets=2,cores=3"), (6, 6, 2, 1, 3, 1));
        assert_eq!(shape("2,maxcpus=8,dies=2"), (2, 8, 1, 2, 4, 1));
        assert_eq!(Topology::resolve(&SmpOpts::default(), &PC).unwrap().cpus, 1);
    }

    #[test]
    fn impossible_arrangements_are_explained() {
        for (text, part) in [
            (
                "5,sockets=2,cores=2,threads=1",
                "is 4, but must be maxcpus (5)",
            ),
            ("4,maxcpus=2", "more than maxcpus=2 allows"),
            ("0", "'cpus' cannot be '0'"),
            ("1000", "at most 288"),
            ("4,clusters=2", "machine 'q35' has no clusters"),
            ("4,coers=2", "did you mean 'cores'?"),
            (
                "4294967295,sockets=4294967295,cores=4294967295",
                "is 18446744065119617025, but",
            ),
        ] {
            let e = resolve(text).unwrap_err();
            assert!(e.contains(part), "{text}: {e}");
        }
    }
}
