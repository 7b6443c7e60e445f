//! What of an open image the user may change: how much memory its tables take, and when refcounts are written.

use control_options::Props;

use crate::header::{Header, LAZY_REFCOUNTS};

/// Memory for L2 tables: as QEMU, enough for 256 GiB with clusters of 64 KiB.
const L2_CACHE: u64 = 32 << 20;
/// Memory for refcount blocks.
const REFCOUNT_CACHE: u64 = 4 << 20;

/// What the properties say, with what the image says where they do not.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) is_lazy: bool,
    /// Discarded clusters stay allocated.
    pub(crate) keeps_place: bool,
    pub(crate) l2_cache: u64,
    pub(crate) refcount_cache: u64,
}

impl Settings {
    /// The names and defaults are QEMU's.
    pub(crate) fn of(header: &Header, props: &Props) -> Result<Self, String> {
        let is_lazy = match props.is_given("lazy-refcounts") {
            true => props.is_on("lazy-refcounts"),
            false => header.compatible & LAZY_REFCOUNTS != 0,
        };
        if is_lazy && header.version < 3 {
            return Err("lazy-refcounts needs qcow2 version 3 (compat=1.1)".to_owned());
        }
        let keeps_place = props.is_on("discard-no-unref");
        if keeps_place && header.version < 3 {
            return Err("discard-no-unref needs qcow2 version 3 (compat=1.1)".to_owned());
        }
        let all = props.unsigned("cache-size");
        let l2 = props.unsigned("l2-cache-size");
        let refcounts = props.unsigned("refcount-cache-size");
        let rest = |part: u64, usual: u64| all.map_or(usual, |all| all.saturating_sub(part));
        let (l2_cache, refcount_cache) = match (l2, refcounts) {
            (Some(l2), Some(refcounts)) => (l2, refcounts),
            (Some(l2), None) => (l2, rest(l2, REFCOUNT_CACHE)),
            (None, Some(refcounts)) => (rest(refcounts, L2_CACHE), refcounts),
            // L2 tables are looked at by each request, refcounts only by some.
            (None, None) => {
                let refcounts = REFCOUNT_CACHE.min(all.map_or(u64::MAX, |all| all >> 3));
                (rest(refcounts, L2_CACHE), refcounts)
            }
        };
        match all {
            Some(all)
                if l2 > Some(all)
                    || refcounts > Some(all)
                    || l2.is_some() && refcounts.is_some() =>
            {
                Err(format!(
                    "cache-size={all} is the memory for all tables: give one of l2-cache-size and refcount-cache-size \
                     beside it, and a smaller one"
                ))
            }
            _ => Ok(Settings {
                is_lazy,
                keeps_place,
                l2_cache,
                refcount_cache,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_options::Opts;

    fn caches(text: &str) -> Result<(u64, u64), String> {
        let props = Opts::parse("test", text, None).unwrap();
        let props = Props::check("test", "qcow2", &props, crate::CLASS.props).unwrap();
        let header = crate::header::Header {
            version: 3,
            ..crate::header::Header::default()
        };
        let settings = Settings::of(&header, &props)?;
        Ok((settings.l2_cache >> 10, settings.refcount_cache >> 10))
    }

    #[test]
    fn the_memory_for_all_tables_is_shared_out() {
        assert_eq!(caches(""), Ok((32 << 10, 4 << 10)));
        assert_eq!(caches("cache-size=8M"), Ok((7 << 10, 1 << 10)));
        assert_eq!(
            caches("cache-size=8M,l2-cache-size=2M"),
            Ok((2 << 10, 6 << 10))
        );
        let both = caches("cache-size=8M,l2-cache-size=2M,refcount-cache-size=1M");
        assert!(both.is_err_and(|why| why.contains("one of")));
    }
}
