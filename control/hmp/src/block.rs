//! What `info` and the commands of the table say about disks and jobs.

use std::fmt::Write as _;

use control_qapi::{
    BlockDeviceInfo, BlockInfo, BlockJobInfo, BlockStats, ImageInfo, IoThreadInfo, QmpError, Value,
    json,
};

use control_options::number::readable;

use crate::args::Args;
use crate::commands::Call;

type Text = Result<String, QmpError>;

/// Flags and words of `info block`.
fn words<'a>(topic: &str, detail: &'a str) -> Result<(bool, bool, Option<&'a str>), QmpError> {
    let (mut nodes, mut verbose, mut name) = (false, false, None);
    for word in detail.split_whitespace() {
        match word {
            "-n" => nodes = true,
            "-v" => verbose = true,
            word if word.starts_with('-') || name.is_some() => {
                let shown: String = word.chars().take(40).collect();
                return Err(QmpError::generic(format!(
                    "{topic}: '{shown}' makes no sense here; it takes -n, -v and one name"
                )));
            }
            word => name = Some(word),
        }
    }
    Ok((nodes, verbose, name))
}

pub(crate) fn block(c: &Call<'_>, detail: &str) -> Text {
    let (nodes, verbose, name) = words("info block", detail)?;
    let mut out = String::new();
    if nodes {
        let all: Vec<BlockDeviceInfo> = c.qmp("query-named-block-nodes")?;
        let is_wanted =
            |node: &&BlockDeviceInfo| name.is_none() || node.node_name.as_deref() == name;
        for node in all.iter().filter(is_wanted) {
            gap(&mut out);
            let title = node.node_name.clone().unwrap_or_default();
            medium(&mut out, &title, None, node, verbose);
        }
        return Ok(out);
    }
    let all: Vec<BlockInfo> = c.qmp("query-block")?;
    let node_name = |info: &BlockInfo| info.inserted.as_ref()?.node_name.clone();
    // Disks on a node of -blockdev have no name but the node's.
    let title = |info: &BlockInfo| match (info.device.as_str(), node_name(info)) {
        ("", node) => node.unwrap_or_default(),
        (device, Some(node)) => format!("{device} ({node})"),
        (device, None) => device.to_owned(),
    };
    let is_called = |info: &BlockInfo, name: &str| match info.device.as_str() {
        "" => node_name(info).as_deref() == Some(name),
        device => device == name,
    };
    let is_wanted = |info: &&BlockInfo| name.is_none_or(|name| is_called(info, name));
    for info in all.iter().filter(is_wanted) {
        gap(&mut out);
        match &info.inserted {
            Some(node) => medium(&mut out, &title(info), Some(info), node, verbose),
            None => {
                let _ = writeln!(out, "{}: [not inserted]", info.device);
                device(&mut out, info);
            }
        }
    }
    Ok(out)
}

fn gap(out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
}

fn device(out: &mut String, info: &BlockInfo) {
    if let Some(qdev) = &info.qdev {
        let _ = writeln!(out, "    Attached to:      {qdev}");
    }
    if info.removable {
        let locked = if info.locked { "locked" } else { "not locked" };
        let tray = match info.tray_open {
            Some(true) => "open",
            _ => "closed",
        };
        let _ = writeln!(out, "    Removable device: {locked}, tray {tray}");
    }
    if let Some(status) = info.io_status.filter(|status| status.name() != "ok") {
        let _ = writeln!(out, "    I/O status:       {}", status.name());
    }
}

fn medium(
    out: &mut String,
    title: &str,
    info: Option<&BlockInfo>,
    node: &BlockDeviceInfo,
    verbose: bool,
) {
    let ro = if node.ro { ", read-only" } else { "" };
    let _ = writeln!(out, "{title}: {} ({}{ro})", node.file, node.drv);
    if let Some(info) = info {
        device(out, info);
    }
    let cache = &node.cache;
    let mode = if cache.writeback {
        "writeback"
    } else {
        "writethrough"
    };
    let direct = if cache.direct { ", direct" } else { "" };
    let flush = if cache.no_flush {
        ", ignore flushes"
    } else {
        ""
    };
    let _ = writeln!(out, "    Cache mode:       {mode}{direct}{flush}");
    if let Some(file) = &node.backing_file {
        let depth = node.backing_file_depth;
        let _ = writeln!(out, "    Backing file:     {file} (chain depth: {depth})");
    }
    if node.detect_zeroes != "off" {
        let _ = writeln!(out, "    Detect zeroes:    {}", node.detect_zeroes);
    }
    let rates = [
        ("bps", Some(node.bps)),
        ("bps_rd", Some(node.bps_rd)),
        ("bps_wr", Some(node.bps_wr)),
        ("bps_max", node.bps_max),
        ("bps_rd_max", node.bps_rd_max),
        ("bps_wr_max", node.bps_wr_max),
        ("iops", Some(node.iops)),
        ("iops_rd", Some(node.iops_rd)),
        ("iops_wr", Some(node.iops_wr)),
        ("iops_max", node.iops_max),
        ("iops_rd_max", node.iops_rd_max),
        ("iops_wr_max", node.iops_wr_max),
        ("iops_size", node.iops_size),
    ];
    if rates
        .iter()
        .any(|(_, rate)| rate.is_some_and(|rate| rate != 0))
    {
        out.push_str("    I/O throttling:  ");
        for (name, rate) in rates {
            let _ = write!(out, " {name}={}", rate.unwrap_or(0));
        }
        let _ = writeln!(out, " group={}", node.group.as_deref().unwrap_or_default());
    }
    if verbose {
        out.push_str("\nImages:\n");
        let mut next = Some(&node.image);
        while let Some(shown) = next {
            image(out, shown);
            next = shown.backing_image.as_deref();
        }
    }
}

fn image(out: &mut String, image: &ImageInfo) {
    let _ = writeln!(out, "image: {}", image.filename);
    let _ = writeln!(out, "file format: {}", image.format);
    let size = image.virtual_size;
    let _ = writeln!(out, "virtual size: {} ({size} bytes)", readable(size));
    if let Some(len) = image.actual_size {
        let _ = writeln!(out, "disk size: {}", readable(len));
    }
    if let Some(len) = image.cluster_size {
        let _ = writeln!(out, "cluster_size: {len}");
    }
    if let Some(file) = &image.backing_filename {
        let _ = writeln!(out, "backing file: {file}");
    }
    if let Some(format) = &image.backing_filename_format {
        let _ = writeln!(out, "backing file format: {format}");
    }
    for snapshot in image.snapshots.iter().flatten() {
        let _ = writeln!(out, "snapshot {}: {}", snapshot.id, snapshot.name);
    }
    let specific = image.format_specific.as_ref();
    let Some(Value::Object(members)) = specific.and_then(|specific| specific.get("data")) else {
        return;
    };
    out.push_str("Format specific information:\n");
    for (name, value) in members {
        let name = name.replace('-', " ");
        let _ = match value.as_str() {
            Some(text) => writeln!(out, "    {name}: {text}"),
            None => writeln!(out, "    {name}: {value}"),
        };
    }
}

pub(crate) fn blockstats(c: &Call<'_>) -> Text {
    let all: Vec<BlockStats> = c.qmp("query-blockstats")?;
    let mut out = String::new();
    for (disk, s) in all
        .iter()
        .filter_map(|b| Some((b.device.as_ref()?, &b.stats)))
    {
        let _ = writeln!(
            out,
            "{disk}: rd_bytes={} wr_bytes={} rd_operations={} wr_operations={} flush_operations={} \
             wr_total_time_ns={} rd_total_time_ns={} flush_total_time_ns={} rd_merged={} wr_merged={} \
             idle_time_ns={}",
            s.rd_bytes,
            s.wr_bytes,
            s.rd_operations,
            s.wr_operations,
            s.flush_operations,
            s.wr_total_time_ns,
            s.rd_total_time_ns,
            s.flush_total_time_ns,
            s.rd_merged,
            s.wr_merged,
            s.idle_time_ns.unwrap_or(0),
        );
    }
    Ok(out)
}

pub(crate) fn block_jobs(c: &Call<'_>) -> Text {
    let all: Vec<BlockJobInfo> = c.qmp("query-block-jobs")?;
    if all.is_empty() {
        return Ok("No active jobs\n".to_owned());
    }
    let mut out = String::new();
    for job in all {
        let (offset, len, speed) = (job.offset, job.len, job.speed);
        let _ = match job.kind {
            control_qapi::JobType::Stream => writeln!(
                out,
                "Streaming device {}: Completed {offset} of {len} bytes, speed limit {speed} bytes/s",
                job.device
            ),
            kind => writeln!(
                out,
                "Type {}, device {}: Completed {offset} of {len} bytes, speed limit {speed} bytes/s",
                kind.name(),
                job.device
            ),
        };
    }
    Ok(out)
}

pub(crate) fn io_threads(c: &Call<'_>) -> Text {
    let all: Vec<IoThreadInfo> = c.qmp("query-iothreads")?;
    let line = |thread: &IoThreadInfo| format!("{}: thread_id={}\n", thread.id, thread.thread_id);
    Ok(all.iter().map(line).collect())
}

/// `block_set_io_throttle`: a disk and six rates.
pub(crate) fn set_io_throttle(c: &Call<'_>, a: &Args) -> Text {
    let mut arguments = json!({ "device": a.text("device").unwrap_or_default() });
    for name in ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"] {
        set(&mut arguments, name, a.number(name).unwrap_or(0));
    }
    c.qmp_do("block_set_io_throttle", arguments)
}

pub(crate) fn set(arguments: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(members) = arguments {
        members.insert(name.to_owned(), value.into());
    }
}

pub(crate) fn stream(c: &Call<'_>, a: &Args) -> Text {
    let mut arguments = json!({ "device": a.text("device").unwrap_or_default() });
    if let Some(speed) = a.number("speed") {
        set(&mut arguments, "speed", speed);
    }
    if let Some(base) = a.text("base") {
        set(&mut arguments, "base", base);
    }
    c.qmp_do("block-stream", arguments)
}

/// `object_add type,id=...`, `device_add driver,id=...`: what the first word is, and QMP's command.
pub(crate) fn add(c: &Call<'_>, text: Option<&str>, first: &str, command: &str) -> Text {
    let opts = control_options::Opts::parse(command, text.unwrap_or_default(), Some(first));
    let opts = opts.map_err(|error| QmpError::generic(error.to_string()))?;
    let mut arguments = json!({});
    for (key, value) in opts.iter() {
        set(&mut arguments, key, value.text());
    }
    c.qmp_do(command, arguments)
}

/// `drive_add [-n] slot options`: the slot says nothing for drives without a place.
pub(crate) fn drive_add(c: &Call<'_>, a: &Args) -> Text {
    let words = a.text("words").unwrap_or_default();
    let after_flag = words
        .strip_prefix("-n")
        .filter(|rest| rest.starts_with(' '));
    let rest = after_flag.unwrap_or(words).trim();
    let Some((_, options)) = rest.split_once(char::is_whitespace) else {
        return Err(QmpError::generic(
            "drive_add takes [-n], a slot (0 will do) and options",
        ));
    };
    match after_flag {
        Some(_) => add(c, Some(options.trim()), "driver", "blockdev-add"),
        None => {
            c.vm.blocks().add_drive(options.trim())?;
            Ok("OK\n".to_owned())
        }
    }
}

/// `block_job_cancel [-f] device`.
pub(crate) fn job_cancel(c: &Call<'_>, a: &Args) -> Text {
    let (force, device) = match (a.text("device").unwrap_or_default(), a.text("more")) {
        ("-f", Some(device)) => (true, device),
        (device, None) => (false, device),
        _ => {
            return Err(QmpError::generic(
                "block_job_cancel takes [-f] and a device",
            ));
        }
    };
    c.qmp_do(
        "block-job-cancel",
        json!({ "device": device, "force": force }),
    )
}

/// `snapshot_blkdev_internal device name`.
pub(crate) fn snapshot_internal(c: &Call<'_>, a: &Args) -> Text {
    let arguments = json!({ "device": a.text("device"), "name": a.text("name") });
    c.qmp_do("blockdev-snapshot-internal-sync", arguments)
}

/// `snapshot_delete_blkdev_internal device name [id]`.
pub(crate) fn snapshot_delete_internal(c: &Call<'_>, a: &Args) -> Text {
    let mut arguments = json!({ "device": a.text("device"), "name": a.text("name") });
    if let (Some(id), Some(members)) = (a.text("id"), arguments.as_object_mut()) {
        members.insert("id".to_owned(), json!(id));
    }
    c.qmp_do("blockdev-snapshot-delete-internal-sync", arguments)
}

/// `snapshot_blkdev [-n] device file [format]`.
pub(crate) fn snapshot_blkdev(c: &Call<'_>, a: &Args) -> Text {
    let words = ["device", "file", "format", "more"];
    let mut words: Vec<&str> = words.iter().filter_map(|name| a.text(name)).collect();
    let reuse = words.first() == Some(&"-n");
    if reuse {
        words.remove(0);
    }
    let (device, file, format) = match words.as_slice() {
        [device, file] => (device, file, "qcow2"),
        [device, file, format] => (device, file, *format),
        _ => {
            return Err(QmpError::generic(
                "snapshot_blkdev takes [-n], a device, a file and perhaps its format",
            ));
        }
    };
    let mode = if reuse { "existing" } else { "absolute-paths" };
    let arguments =
        json!({ "device": device, "snapshot-file": file, "format": format, "mode": mode });
    c.qmp_do("blockdev-snapshot-sync", arguments)
}
