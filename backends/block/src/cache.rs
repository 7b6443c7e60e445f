//! How the host caches a disk (`cache=` of `-drive`, `-t` of `mimic img`).

/// How the host's page cache is used (`cache=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cache {
    /// Writes may stay in the cache until the guest flushes.
    pub write_back: bool,
    /// Go past the host's page cache (`cache.direct`).
    pub direct: bool,
    /// Ignore the guest's flushes (`cache.no-flush`).
    pub no_flush: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Cache {
            write_back: true,
            direct: false,
            no_flush: false,
        }
    }
}

impl Cache {
    /// The modes of `-drive cache=`.
    pub const MODES: &'static [&'static str] =
        &["writeback", "none", "writethrough", "directsync", "unsafe"];

    /// One of [`MODES`](Self::MODES).
    pub fn mode(name: &str) -> Option<Self> {
        let cache = |write_back, direct, no_flush| Cache {
            write_back,
            direct,
            no_flush,
        };
        Some(match name {
            "writeback" => cache(true, false, false),
            "none" | "off" => cache(true, true, false),
            "writethrough" => cache(false, false, false),
            "directsync" => cache(false, true, false),
            "unsafe" => cache(true, false, true),
            _ => return None,
        })
    }
}
