//! `query-block`, `query-blockstats`, `query-named-block-nodes`.

use std::sync::Arc;

use backend_block::{
    Count, Detail, ErrorPolicy, IoStatus, Limited, Limits, Node, SharedBlock, Stats, Tray, beside,
};
use backend_qcow2::Qcow2;
use control_qapi::{
    BlockDeviceInfo, BlockDeviceIoStatus, BlockDeviceStats, BlockInfo, BlockStats,
    BlockdevCacheInfo, ImageInfo, Map, SnapshotInfo, Value, json,
};

use super::BlockControl;

/// Images behind one that are shown.
const CHAIN_MAX: usize = 200;

pub(super) fn io_status(status: IoStatus) -> BlockDeviceIoStatus {
    match status {
        IoStatus::Ok => BlockDeviceIoStatus::Ok,
        IoStatus::Failed => BlockDeviceIoStatus::Failed,
        IoStatus::NoSpace => BlockDeviceIoStatus::Nospace,
    }
}

/// The images behind a node, nearest first.
fn behind(node: &Arc<Node>) -> Vec<Arc<Node>> {
    let chain = std::iter::successors(node.behind(), |node| node.behind());
    chain.take(CHAIN_MAX).collect()
}

/// What an image is, with those behind it unless `flat`.
fn image(node: &Arc<Node>, flat: bool) -> ImageInfo {
    let chain = behind(node);
    let mut below = None;
    if !flat {
        for node in chain.iter().rev() {
            let mut info = alone(node);
            info.backing_image = below.take().map(Box::new);
            below = Some(info);
        }
    }
    let mut info = alone(node);
    info.backing_image = below.map(Box::new);
    info
}

fn alone(node: &Node) -> ImageInfo {
    let driver = node.driver();
    let qcow2 = driver.as_any().downcast_ref::<Qcow2>();
    let backing = qcow2.and_then(Qcow2::backing);
    let full = backing
        .as_ref()
        .and_then(|(name, _)| beside(node.file(), name));
    let snapshots = qcow2.map(Qcow2::snapshots).unwrap_or_default();
    let details = driver.details();
    ImageInfo {
        filename: node.file().to_owned(),
        format: node.class().name.to_owned(),
        dirty_flag: qcow2.map(Qcow2::is_dirty),
        actual_size: driver.allocated_len(),
        virtual_size: node.len(),
        cluster_size: qcow2.map(Qcow2::cluster_len),
        full_backing_filename: full.map(|path| path.to_string_lossy().into_owned()),
        backing_filename_format: backing.as_ref().and_then(|(_, format)| format.clone()),
        backing_filename: backing.map(|(name, _)| name),
        snapshots: (!snapshots.is_empty()).then(|| snapshots.iter().map(snapshot).collect()),
        backing_image: None,
        format_specific: (!details.is_empty()).then(|| {
            let data: Map<String, Value> = details
                .into_iter()
                .map(|(name, detail)| (name.to_owned(), value(detail)))
                .collect();
            json!({ "type": node.class().name, "data": data })
        }),
    }
}

fn value(detail: Detail) -> Value {
    match detail {
        Detail::Bool(on) => on.into(),
        Detail::Number(n) => n.into(),
        Detail::Text(text) => text.into(),
    }
}

pub(super) fn snapshot(snapshot: &backend_qcow2::Snapshot) -> SnapshotInfo {
    let clock = i64::try_from(snapshot.vm_clock_ns).unwrap_or(i64::MAX);
    SnapshotInfo {
        id: snapshot.id.clone(),
        name: snapshot.name.clone(),
        vm_state_size: snapshot.vm_state_len,
        date_sec: i64::from(snapshot.date_s),
        date_nsec: i64::from(snapshot.date_ns),
        vm_clock_sec: clock / 1_000_000_000,
        vm_clock_nsec: clock % 1_000_000_000,
    }
}

/// A node, with the limits of the disk on it.
pub(super) fn node(node: &Arc<Node>, disk: Option<&SharedBlock>, flat: bool) -> BlockDeviceInfo {
    let options = node.options();
    let image = image(node, flat);
    let throttle = disk.and_then(|disk| disk.throttle());
    let (group, limits) = match throttle {
        Some((group, limits)) => (Some(group), limits),
        None => (None, Limits::default()),
    };
    let rate = |what| limits.get(what).average;
    let is_on = group.is_some();
    let max = |what| Some(limits.get(what).max).filter(|max| *max != 0);
    let length = |what| max(what).map(|_| limits.get(what).burst_s);
    BlockDeviceInfo {
        file: node.file().to_owned(),
        node_name: Some(node.name().to_owned()),
        ro: options.read_only,
        drv: node.class().name.to_owned(),
        backing_file: image.backing_filename.clone().or_else(|| {
            let next = node.child("backing")?;
            Some(next.file().to_owned())
        }),
        backing_file_depth: i64::try_from(behind(node).len()).unwrap_or(i64::MAX),
        encrypted: false,
        detect_zeroes: options.detect_zeroes.name().to_owned(),
        bps: rate(Limited::Bps),
        bps_rd: rate(Limited::BpsRead),
        bps_wr: rate(Limited::BpsWrite),
        iops: rate(Limited::Iops),
        iops_rd: rate(Limited::IopsRead),
        iops_wr: rate(Limited::IopsWrite),
        image,
        bps_max: max(Limited::Bps),
        bps_rd_max: max(Limited::BpsRead),
        bps_wr_max: max(Limited::BpsWrite),
        iops_max: max(Limited::Iops),
        iops_rd_max: max(Limited::IopsRead),
        iops_wr_max: max(Limited::IopsWrite),
        bps_max_length: length(Limited::Bps),
        bps_rd_max_length: length(Limited::BpsRead),
        bps_wr_max_length: length(Limited::BpsWrite),
        iops_max_length: length(Limited::Iops),
        iops_rd_max_length: length(Limited::IopsRead),
        iops_wr_max_length: length(Limited::IopsWrite),
        iops_size: is_on.then_some(limits.iops_size).filter(|size| *size != 0),
        group,
        cache: BlockdevCacheInfo {
            writeback: disk.is_none_or(|disk| disk.info().write_back),
            direct: options.direct,
            no_flush: options.no_flush,
        },
        write_threshold: 0,
        active: true,
    }
}

fn stats(stats: &Stats, now_ns: Option<u64>) -> BlockDeviceStats {
    let Stats {
        rd,
        wr,
        flush,
        unmap,
        ..
    } = *stats;
    let none = Count::default();
    BlockDeviceStats {
        rd_bytes: rd.bytes,
        wr_bytes: wr.bytes,
        zone_append_bytes: none.bytes,
        unmap_bytes: unmap.bytes,
        rd_operations: rd.operations,
        wr_operations: wr.operations,
        zone_append_operations: none.operations,
        flush_operations: flush.operations,
        unmap_operations: unmap.operations,
        rd_total_time_ns: rd.time_ns,
        wr_total_time_ns: wr.time_ns,
        zone_append_total_time_ns: none.time_ns,
        flush_total_time_ns: flush.time_ns,
        unmap_total_time_ns: unmap.time_ns,
        wr_highest_offset: stats.wr_highest_offset,
        rd_merged: 0,
        wr_merged: 0,
        zone_append_merged: 0,
        unmap_merged: 0,
        idle_time_ns: match (stats.last_ns, now_ns) {
            (Some(last), Some(now)) => Some(now.saturating_sub(last)),
            _ => None,
        },
        failed_rd_operations: rd.failed,
        failed_wr_operations: wr.failed,
        failed_zone_append_operations: none.failed,
        failed_flush_operations: flush.failed,
        failed_unmap_operations: unmap.failed,
        invalid_rd_operations: rd.invalid,
        invalid_wr_operations: wr.invalid,
        invalid_zone_append_operations: none.invalid,
        invalid_flush_operations: flush.invalid,
        invalid_unmap_operations: unmap.invalid,
        account_invalid: true,
        account_failed: true,
        timed_stats: Vec::new(),
    }
}

/// What a node and those below it did: only how far they were written is known.
fn node_stats(node: &Arc<Node>) -> BlockStats {
    let written = Stats {
        wr_highest_offset: node.written_to(),
        ..Stats::default()
    };
    BlockStats {
        device: None,
        qdev: None,
        node_name: Some(node.name().to_owned()),
        stats: stats(&written, None),
        parent: node.child("file").map(|node| Box::new(node_stats(&node))),
        backing: node
            .child("backing")
            .map(|node| Box::new(node_stats(&node))),
    }
}

impl BlockControl {
    pub(super) fn query_disks(&self) -> Vec<BlockInfo> {
        let disk = |tray: &Arc<Tray>| {
            let shown = BlockInfo {
                qdev: self.user_of(tray.id()).map(|user| user.qdev()),
                device: self.shown(tray.id()),
                kind: "unknown".to_owned(),
                removable: tray.is_removable(),
                locked: tray.is_locked(),
                inserted: None,
                tray_open: tray.is_removable().then(|| tray.is_open()),
                io_status: None,
            };
            let Some(disk) = &tray.medium() else {
                return shown;
            };
            let (on_read, on_write) = disk.policies();
            let stops = |policy| matches!(policy, ErrorPolicy::Stop | ErrorPolicy::Enospc);
            let shows = stops(on_read) || stops(on_write);
            BlockInfo {
                inserted: disk.node().map(|top| node(&top, Some(disk), false)),
                io_status: shows.then(|| io_status(disk.io_status())),
                ..shown
            }
        };
        let mut all: Vec<BlockInfo> = self.storage.drives.all().iter().map(disk).collect();
        // As QEMU: those with names come first.
        all.sort_by_key(|info| info.device.is_empty());
        all
    }

    pub(super) fn query_stats(&self, nodes: bool) -> Vec<BlockStats> {
        if nodes {
            let nodes = self.storage.opener.graph.nodes();
            return nodes.iter().map(node_stats).collect();
        }
        let now = self.storage.clock.host_ns();
        let disk = |disk: &SharedBlock| {
            let id = disk.info().id;
            let below = disk.node().map(|node| node_stats(&node));
            BlockStats {
                qdev: self.user_of(&id).map(|user| user.qdev()),
                device: Some(self.shown(&id)),
                stats: stats(&disk.stats(), Some(now)),
                ..below.unwrap_or_else(|| BlockStats {
                    device: None,
                    qdev: None,
                    node_name: None,
                    stats: stats(&Stats::default(), None),
                    parent: None,
                    backing: None,
                })
            }
        };
        let mut all: Vec<BlockStats> = self.storage.disks.all().iter().map(disk).collect();
        all.sort_by_key(|stats| stats.device.as_deref() == Some(""));
        all
    }
}
