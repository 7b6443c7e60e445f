//! Guest memory: how much, and how the host keeps it.

use anyhow::{Result, bail};
use control_options::Config;

use crate::objects::{Keeping, MemoryFile, Object};

/// Bytes of guest memory, from `-m` or the backend that the machine names, and how they are kept.
pub(super) fn memory(
    config: &Config,
    props: &[(String, String)],
    objects: &[Object],
) -> Result<(u64, Keeping)> {
    let property = |wanted: &str| {
        let given = props.iter().rev().find(|(name, _)| name == wanted);
        given.map(|(_, value)| value.as_str())
    };
    let mut size = config.memory.size;
    let mut keeping = Keeping {
        file: config.mem_path.as_ref().map(|path| MemoryFile {
            option: "-mem-path".to_owned(),
            path: path.clone(),
        }),
        dump: property("dump-guest-core").map(|value| value != "off"),
        ..Keeping::default()
    };
    if let Some(wanted) = property("memory-backend") {
        let found = objects.iter().find_map(|object| match object {
            Object::Memory { id, size, keeping } if id == wanted => Some((*size, keeping)),
            _ => None,
        });
        let Some((bytes, backend)) = found else {
            bail!(
                "-machine: there is no memory backend with the id '{wanted}'; add '-object memory-backend-ram,id={wanted},size=...'"
            );
        };
        if config.memory.is_given && bytes != size {
            bail!(
                "-machine: memory backend '{wanted}' has {bytes} bytes, but -m asks for {size}; make them equal or \
                 leave -m out"
            );
        }
        if keeping.file.is_some() {
            bail!(
                "-mem-path: the machine's memory is memory backend '{wanted}'; give that a 'mem-path', or leave one of \
                 the two out"
            );
        }
        size = bytes;
        keeping = Keeping {
            dump: backend.dump.or(keeping.dump),
            ..backend.clone()
        };
    }
    if keeping.merge.is_none() {
        keeping.merge = match property("mem-merge") {
            Some("on") => Some(true),
            Some("off") => Some(false),
            _ => None,
        };
    }
    if config.mem_prealloc {
        keeping.prealloc.get_or_insert("-mem-prealloc".to_owned());
    }
    if let Some(host) = host_memory()
        && size > host
    {
        bail!(
            "-m: {} MiB of guest memory are more than this host has ({} MiB with swap); ask for less",
            size >> 20,
            host >> 20
        );
    }
    Ok((size, keeping))
}

/// Bytes of memory and swap of the host.
fn host_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = rest.trim().trim_end_matches("kB").trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(field("MemTotal:")?.saturating_add(field("SwapTotal:").unwrap_or(0)))
}
