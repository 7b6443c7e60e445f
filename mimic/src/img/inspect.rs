//! `info`, `map` and `check`: images looked at.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use backend_block::{Detail, Node};
use backend_qcow2::{Findings, Fix, Snapshot};
use control_options::number::readable;
use serde_json::{Map, Value, json};

use super::args::Args;
use super::{How, open, size};
use crate::entry::print;

/// Exit status of `check` for formats without tables, as QEMU has it.
const NOT_CHECKED: i32 = 63;

pub(super) fn how(args: &Args) -> How<'_> {
    How {
        format: args.value("f"),
        shares: args.has("U") || args.has("force-share"),
        is_opts: args.has("image-opts"),
        ..How::default()
    }
}

pub(super) fn info(args: &mut Args) -> Result<i32> {
    args.parse(
        &["U", "backing-chain", "force-share", "image-opts"],
        &["f", "output"],
    )?;
    let file = args.one()?;
    let chain = args.has("backing-chain");
    let how = How {
        alone: !chain,
        ..how(args)
    };
    let open = open(file, how)?;
    let mut nodes = vec![Arc::clone(&open.node)];
    while chain && let Some(backing) = nodes.last().and_then(|node| node.child("backing")) {
        nodes.push(backing);
    }
    if args.wants_json()? {
        let all: Vec<Value> = nodes.iter().map(|node| info_json(node)).collect();
        let value = match (chain, all.first()) {
            (false, Some(one)) => one.clone(),
            _ => Value::Array(all),
        };
        print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
        return Ok(0);
    }
    let all: Vec<String> = nodes.iter().map(|node| info_text(node)).collect();
    print(&all.join("\n"))?;
    Ok(0)
}

fn qcow2(node: &Node) -> Option<&backend_qcow2::Qcow2> {
    node.driver().as_any().downcast_ref()
}

fn info_json(node: &Node) -> Value {
    let mut out = Map::new();
    let image = qcow2(node);
    if let Some(image) = image {
        let snapshots = image.snapshots();
        if !snapshots.is_empty() {
            let all = snapshots.iter().map(snapshot_json);
            out.insert("snapshots".to_owned(), all.collect());
        }
    }
    let size = node.len().next_multiple_of(512);
    out.insert("virtual-size".to_owned(), json!(size));
    out.insert("filename".to_owned(), json!(node.file()));
    if let Some(image) = image {
        out.insert("cluster-size".to_owned(), json!(image.cluster_len()));
    }
    out.insert("format".to_owned(), json!(node.class().name));
    if let Some(used) = node.driver().allocated_len() {
        out.insert("actual-size".to_owned(), json!(used));
    }
    if let Some((name, format)) = image.and_then(|image| image.backing()) {
        let full = backend_block::beside(node.file(), &name);
        out.insert("backing-filename".to_owned(), json!(name));
        if let Some(full) = full {
            let full = full.display().to_string();
            out.insert("full-backing-filename".to_owned(), json!(full));
        }
        if let Some(format) = format {
            out.insert("backing-filename-format".to_owned(), json!(format));
        }
    }
    let details = node.driver().details();
    if !details.is_empty() {
        let data: Map<String, Value> = details
            .into_iter()
            .map(|(name, detail)| {
                let value = match detail {
                    Detail::Bool(on) => json!(on),
                    Detail::Number(n) => json!(n),
                    Detail::Text(text) => json!(text),
                };
                (name.to_owned(), value)
            })
            .collect();
        let specific = json!({ "type": node.class().name, "data": data });
        out.insert("format-specific".to_owned(), specific);
    }
    let dirty = image.is_some_and(|image| image.is_dirty());
    out.insert("dirty-flag".to_owned(), json!(dirty));
    Value::Object(out)
}

fn snapshot_json(snapshot: &Snapshot) -> Value {
    json!({
        "id": snapshot.id,
        "name": snapshot.name,
        "vm-state-size": snapshot.vm_state_len,
        "date-sec": snapshot.date_s,
        "date-nsec": snapshot.date_ns,
        "vm-clock-sec": snapshot.vm_clock_ns / 1_000_000_000,
        "vm-clock-nsec": snapshot.vm_clock_ns % 1_000_000_000,
    })
}

fn info_text(node: &Node) -> String {
    let size = node.len().next_multiple_of(512);
    let mut out = format!(
        "image: {}\nfile format: {}\nvirtual size: {} ({size} bytes)\n",
        node.file(),
        node.class().name,
        readable(size)
    );
    match node.driver().allocated_len() {
        Some(used) => out += &format!("disk size: {}\n", readable(used)),
        None => out += "disk size: unavailable\n",
    }
    let Some(image) = qcow2(node) else {
        return out;
    };
    let _ = writeln!(out, "cluster_size: {}", image.cluster_len());
    if let Some((name, format)) = image.backing() {
        out += &format!("backing file: {name}");
        if let Some(full) = backend_block::beside(node.file(), &name) {
            let full = full.display().to_string();
            if full != name {
                out += &format!(" (actual path: {full})");
            }
        }
        out.push('\n');
        if let Some(format) = format {
            let _ = writeln!(out, "backing file format: {format}");
        }
    }
    let snapshots = image.snapshots();
    if !snapshots.is_empty() {
        out += &snapshot_list(&snapshots);
    }
    out += "Format specific information:\n";
    for (name, detail) in node.driver().details() {
        let name = name.replace('-', " ");
        let value = match detail {
            Detail::Bool(on) => on.to_string(),
            Detail::Number(n) => n.to_string(),
            Detail::Text(text) => text,
        };
        let _ = writeln!(out, "    {name}: {value}");
    }
    out
}

/// The table of snapshots, as `snapshot -l` shows it.
pub(super) fn snapshot_list(snapshots: &[Snapshot]) -> String {
    let mut out = "Snapshot list:\n".to_owned();
    let _ = writeln!(
        out,
        "{:<10}{:<17}{:>8}{:>20}{:>15}{:>11}",
        "ID", "TAG", "VM SIZE", "DATE (UTC)", "VM CLOCK", "ICOUNT"
    );
    for snapshot in snapshots {
        let seconds = snapshot.vm_clock_ns / 1_000_000_000;
        let clock = format!(
            "{:02}:{:02}:{:02}.{:03}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            snapshot.vm_clock_ns / 1_000_000 % 1000
        );
        let icount = match snapshot.icount {
            u64::MAX => String::new(),
            count => count.to_string(),
        };
        let _ = writeln!(
            out,
            "{:<9} {:<16} {:>8}{:>20}{:>15}{:>11}",
            snapshot.id,
            snapshot.name,
            readable(snapshot.vm_state_len),
            date(snapshot.date_s),
            clock,
            icount
        );
    }
    out
}

/// Seconds since 1970 as a date (days to civil date: the Gregorian calendar has 146,097 days in 400
/// years).
fn date(seconds: u32) -> String {
    let (days, rest) = (i64::from(seconds / 86_400), seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, day) = (year + era * 400, day - (153 * month + 2) / 5 + 1);
    let (year, month) = match month < 10 {
        true => (year, month + 3),
        false => (year + 1, month - 9),
    };
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// One line of `map`.
#[derive(Clone, PartialEq, Eq)]
struct Run {
    start: u64,
    length: u64,
    depth: u64,
    present: bool,
    zero: bool,
    compressed: bool,
    offset: Option<u64>,
    file: String,
}

impl Run {
    fn continues(&self, next: &Run) -> bool {
        let offset = self.offset.map(|offset| offset + self.length);
        let same = Run {
            start: self.start,
            length: self.length,
            offset: self.offset,
            ..next.clone()
        };
        same == *self && offset == next.offset
    }
}

/// What lies at an offset, wherever in the chain.
fn run_at(node: &Node, at: u64, len: u64, depth: u64) -> Result<Run> {
    let extent = node.extent(at, len)?;
    let backing = node.child("backing").filter(|_| !extent.is_allocated);
    if let Some(backing) = backing {
        let has = backing.len().saturating_sub(at);
        if has != 0 {
            return run_at(&backing, at, extent.len.min(has), depth + 1);
        }
    }
    let below = node.child("data-file").or_else(|| node.child("file"));
    Ok(Run {
        start: at,
        length: extent.len,
        depth,
        present: extent.is_allocated,
        zero: extent.is_zero,
        compressed: extent.is_compressed,
        offset: extent.stored_at,
        file: below
            .as_ref()
            .map_or(node.file(), |node| node.file())
            .to_owned(),
    })
}

pub(super) fn map(args: &mut Args) -> Result<i32> {
    args.parse(
        &["U", "force-share", "image-opts"],
        &["f", "output", "s", "l", "start-offset", "max-length"],
    )?;
    let file = args.one()?;
    let is_json = args.wants_json()?;
    let open = open(file, how(args))?;
    let len = open.node.len();
    let number = |a: &str, b: &str| args.value(a).or(args.value(b)).map(size).transpose();
    let start = number("s", "start-offset")?.unwrap_or(0);
    let most = number("l", "max-length")?.unwrap_or(u64::MAX);
    let end = start.saturating_add(most).min(len);
    let mut runs: Vec<Run> = Vec::new();
    let mut at = start;
    while at < end {
        let run = run_at(&open.node, at, end - at, 0)?;
        at += run.length;
        match runs.last_mut().filter(|last| last.continues(&run)) {
            Some(last) => last.length += run.length,
            None => runs.push(run),
        }
    }
    print(&if is_json {
        map_json(&runs)
    } else {
        map_text(&runs)?
    })?;
    Ok(0)
}

fn map_json(runs: &[Run]) -> String {
    let lines: Vec<String> = runs
        .iter()
        .map(|run| {
            let data = run.present && !run.zero;
            let mut line = format!(
                "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \"data\": {data}, \
                 \"compressed\": {}",
                run.start, run.length, run.depth, run.present, run.zero, run.compressed
            );
            if let Some(offset) = run.offset {
                let _ = write!(line, ", \"offset\": {offset}");
            }
            line + "}"
        })
        .collect();
    format!("[{}]\n", lines.join(",\n"))
}

fn map_text(runs: &[Run]) -> Result<String> {
    let mut out = format!("{:<16}{:<16}{:<16}File\n", "Offset", "Length", "Mapped to");
    for run in runs.iter().filter(|run| run.present && !run.zero) {
        let Some(offset) = run.offset else {
            bail!(
                "the image has compressed clusters, which lie nowhere in particular; use --output=json"
            );
        };
        let hex = |n: u64| match n {
            0 => "0".to_owned(),
            n => format!("{n:#x}"),
        };
        let _ = writeln!(
            out,
            "{:<16}{:<16}{:<16}{}",
            hex(run.start),
            hex(run.length),
            hex(offset),
            run.file
        );
    }
    Ok(out)
}

pub(super) fn check(args: &mut Args) -> Result<i32> {
    args.parse(
        &["q", "U", "force-share", "image-opts"],
        &["f", "r", "T", "output"],
    )?;
    let file = args.one()?;
    let is_json = args.wants_json()?;
    let fix = match args.value("r") {
        None => Fix::None,
        Some("leaks") => Fix::Leaks,
        Some("all") => Fix::All,
        Some(other) => bail!("there is no repair '{other}'; there are leaks, all"),
    };
    let how = How {
        alone: true,
        cache: args.value("T"),
        ..how(args)
    };
    // Looked at before it is opened for writing, which repairs some.
    let before = open(file, how)?;
    let Some(image) = before.qcow2() else {
        let format = before.node.class().name;
        eprintln!("mimic: '{file}': format '{format}' has nothing to check");
        return Ok(NOT_CHECKED);
    };
    let mut findings = image.check(Fix::None)?;
    let format = before.node.class().name;
    let is_bad = findings.corruptions != 0 || findings.leaks != 0 || image.is_dirty();
    drop(before);
    if fix != Fix::None && is_bad {
        let writable = open(
            file,
            How {
                writes: true,
                repairs: true,
                ..how
            },
        )?;
        let after = writable.need_qcow2("tables to check")?.check(fix)?;
        findings.leaks_fixed = findings.leaks - after.leaks.min(findings.leaks);
        findings.corruptions_fixed =
            findings.corruptions - after.corruptions.min(findings.corruptions);
        findings.leaks = after.leaks;
        findings.corruptions = after.corruptions;
    }
    if is_json {
        print(&check_json(file, format, &findings)?)?;
    } else if !args.has("q") {
        print(&check_text(&findings))?;
    }
    Ok(match (findings.corruptions, findings.leaks) {
        (0, 0) => 0,
        (0, _) => 3,
        _ => 2,
    })
}

fn check_json(file: &str, format: &str, found: &Findings) -> Result<String> {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("image-end-offset", json!(found.image_end_offset));
    put("total-clusters", json!(found.total_clusters));
    put("check-errors", json!(0));
    for (name, value) in [
        ("corruptions", found.corruptions),
        ("leaks", found.leaks),
        ("corruptions-fixed", found.corruptions_fixed),
        ("leaks-fixed", found.leaks_fixed),
        ("allocated-clusters", found.allocated_clusters),
        ("fragmented-clusters", found.fragmented_clusters),
        ("compressed-clusters", found.compressed_clusters),
    ] {
        if value != 0 {
            put(name, json!(value));
        }
    }
    put("filename", json!(file));
    put("format", json!(format));
    Ok(format!(
        "{}\n",
        serde_json::to_string_pretty(&Value::Object(out))?
    ))
}

fn check_text(found: &Findings) -> String {
    let mut out = String::new();
    if found.leaks_fixed != 0 || found.corruptions_fixed != 0 {
        let _ = writeln!(
            out,
            "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n",
            found.leaks_fixed, found.corruptions_fixed
        );
    }
    if found.corruptions == 0 && found.leaks == 0 {
        out += "No errors were found on the image.\n";
    }
    if found.corruptions != 0 {
        let _ = writeln!(
            out,
            "\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.",
            found.corruptions
        );
    }
    if found.leaks != 0 {
        let _ = writeln!(
            out,
            "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.",
            found.leaks
        );
    }
    let percent = |part: u64, whole: u64| match whole {
        0 => 0.0,
        whole => part as f64 * 100.0 / whole as f64,
    };
    if found.total_clusters != 0 && found.allocated_clusters != 0 {
        let _ = writeln!(
            out,
            "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
            found.allocated_clusters,
            found.total_clusters,
            percent(found.allocated_clusters, found.total_clusters),
            percent(found.fragmented_clusters, found.allocated_clusters),
            percent(found.compressed_clusters, found.allocated_clusters)
        );
    }
    let _ = writeln!(out, "Image end offset: {}", found.image_end_offset);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date(4_102_444_799), "2099-12-31 23:59:59");
    }
}
