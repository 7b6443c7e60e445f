//! The data types of the commands about disks.

use serde_json::{Map, Value};

use crate::drivers;
use crate::error::QmpError;
use crate::schema::{Member, Schema};
use crate::types::Empty;
use crate::value::{Qapi, object_members};
use crate::{qapi_enum, qapi_struct, qapi_union};

/// Properties of a node: which there are depends on `driver`. They are checked when it is opened.
#[derive(Clone, PartialEq, Debug)]
pub struct BlockdevOptions(pub Map<String, Value>);

/// Properties of an image to be made: which there are depends on `driver`.
#[derive(Clone, PartialEq, Debug)]
pub struct BlockdevCreateOptions(pub Map<String, Value>);

macro_rules! of_driver {
    ($name:ident, $describe:path) => {
        impl Qapi for $name {
            fn describe(schema: &mut Schema) -> String {
                $describe(schema)
            }

            fn to_json(&self) -> Value {
                Value::Object(self.0.clone())
            }

            fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
                object_members(at, value).map(Self)
            }
        }
    };
}

of_driver!(BlockdevOptions, drivers::describe_open);
of_driver!(BlockdevCreateOptions, drivers::describe_create);

qapi_struct! {
    /// Arguments of `blockdev-del`.
    pub struct NodeArgs {
        /// Which.
        node_name: String = "node-name",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-reopen`.
    pub struct BlockdevReopenArgs {
        /// All properties of each node.
        options: Vec<BlockdevOptions> = "options",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-create`.
    pub struct BlockdevCreateArgs {
        /// The job that does it.
        job_id: String = "job-id",
        /// What is to be made.
        options: BlockdevCreateOptions = "options",
    }
}

qapi_struct! {
    /// Arguments of `block_resize`.
    pub struct BlockResizeArgs {
        /// The disk.
        device: Option<String> = "device",
        /// Or the node.
        node_name: Option<String> = "node-name",
        /// Bytes.
        size: u64 = "size",
    }
}

qapi_struct! {
    /// Arguments of `query-blockstats`.
    pub struct BlockstatsArgs {
        /// About nodes instead of disks.
        query_nodes: Option<bool> = "query-nodes",
    }
}

qapi_struct! {
    /// Arguments of `query-named-block-nodes`.
    pub struct NamedNodesArgs {
        /// Without the images behind each.
        flat: Option<bool> = "flat",
    }
}

qapi_struct! {
    /// Arguments of `block_set_io_throttle`.
    pub struct IoThrottleArgs {
        /// The disk.
        device: Option<String> = "device",
        /// Or the device it is connected to.
        id: Option<String> = "id",
        /// Bytes a second.
        bps: u64 = "bps",
        /// Bytes read.
        bps_rd: u64 = "bps_rd",
        /// Bytes written.
        bps_wr: u64 = "bps_wr",
        /// Requests a second.
        iops: u64 = "iops",
        /// Reads.
        iops_rd: u64 = "iops_rd",
        /// Writes.
        iops_wr: u64 = "iops_wr",
        /// Bytes a second in a burst.
        bps_max: Option<u64> = "bps_max",
        /// Bytes read.
        bps_rd_max: Option<u64> = "bps_rd_max",
        /// Bytes written.
        bps_wr_max: Option<u64> = "bps_wr_max",
        /// Requests a second in a burst.
        iops_max: Option<u64> = "iops_max",
        /// Reads.
        iops_rd_max: Option<u64> = "iops_rd_max",
        /// Writes.
        iops_wr_max: Option<u64> = "iops_wr_max",
        /// Seconds that a burst lasts.
        bps_max_length: Option<u64> = "bps_max_length",
        /// Of reads.
        bps_rd_max_length: Option<u64> = "bps_rd_max_length",
        /// Of writes.
        bps_wr_max_length: Option<u64> = "bps_wr_max_length",
        /// Seconds that a burst lasts.
        iops_max_length: Option<u64> = "iops_max_length",
        /// Of reads.
        iops_rd_max_length: Option<u64> = "iops_rd_max_length",
        /// Of writes.
        iops_wr_max_length: Option<u64> = "iops_wr_max_length",
        /// Bytes that count as one request.
        iops_size: Option<u64> = "iops_size",
        /// Whom it shares the limits with.
        group: Option<String> = "group",
    }
}

qapi_struct! {
    /// How the host caches.
    pub struct BlockdevCacheInfo {
        /// Writes may stay in the cache.
        writeback: bool = "writeback",
        /// Past the host's page cache.
        direct: bool = "direct",
        /// Flushes are not waited for.
        no_flush: bool = "no-flush",
    }
}

qapi_struct! {
    /// An internal snapshot.
    pub struct SnapshotInfo {
        /// Its number.
        id: String = "id",
        /// Its name.
        name: String = "name",
        /// Bytes of the machine's state in it.
        vm_state_size: u64 = "vm-state-size",
        /// When it was taken: seconds since 1970,
        date_sec: i64 = "date-sec",
        /// and of the second.
        date_nsec: i64 = "date-nsec",
        /// How long the machine had run then: seconds,
        vm_clock_sec: i64 = "vm-clock-sec",
        /// and of the second.
        vm_clock_nsec: i64 = "vm-clock-nsec",
    }
}

qapi_struct! {
    /// What an image is.
    pub struct ImageInfo {
        /// Its file.
        filename: String = "filename",
        /// Its format.
        format: String = "format",
        /// Whether it was not closed in order.
        dirty_flag: Option<bool> = "dirty-flag",
        /// Bytes on the host.
        actual_size: Option<u64> = "actual-size",
        /// Bytes as the guest sees it.
        virtual_size: u64 = "virtual-size",
        /// Bytes of a cluster.
        cluster_size: Option<u64> = "cluster-size",
        /// The file behind it, as it names it.
        backing_filename: Option<String> = "backing-filename",
        /// The same, seen from here.
        full_backing_filename: Option<String> = "full-backing-filename",
        /// Its format.
        backing_filename_format: Option<String> = "backing-filename-format",
        /// Internal snapshots.
        snapshots: Option<Vec<SnapshotInfo>> = "snapshots",
        /// The image behind it.
        backing_image: Option<Box<ImageInfo>> = "backing-image",
        /// What the format has more.
        format_specific: Option<Value> = "format-specific",
    }
}

qapi_struct! {
    /// A node.
    pub struct BlockDeviceInfo {
        /// The image's name.
        file: String = "file",
        /// Its name.
        node_name: Option<String> = "node-name",
        /// Whether writes are refused.
        ro: bool = "ro",
        /// Its driver.
        drv: String = "drv",
        /// The file behind it.
        backing_file: Option<String> = "backing_file",
        /// How many images are behind it.
        backing_file_depth: i64 = "backing_file_depth",
        /// Whether it is encrypted.
        encrypted: bool = "encrypted",
        /// What becomes of zeros that are written.
        detect_zeroes: String = "detect_zeroes",
        /// Bytes a second.
        bps: u64 = "bps",
        /// Bytes read.
        bps_rd: u64 = "bps_rd",
        /// Bytes written.
        bps_wr: u64 = "bps_wr",
        /// Requests a second.
        iops: u64 = "iops",
        /// Reads.
        iops_rd: u64 = "iops_rd",
        /// Writes.
        iops_wr: u64 = "iops_wr",
        /// What the image is.
        image: ImageInfo = "image",
        /// Bytes a second in a burst.
        bps_max: Option<u64> = "bps_max",
        /// Bytes read.
        bps_rd_max: Option<u64> = "bps_rd_max",
        /// Bytes written.
        bps_wr_max: Option<u64> = "bps_wr_max",
        /// Requests a second in a burst.
        iops_max: Option<u64> = "iops_max",
        /// Reads.
        iops_rd_max: Option<u64> = "iops_rd_max",
        /// Writes.
        iops_wr_max: Option<u64> = "iops_wr_max",
        /// Seconds that a burst lasts.
        bps_max_length: Option<u64> = "bps_max_length",
        /// Of reads.
        bps_rd_max_length: Option<u64> = "bps_rd_max_length",
        /// Of writes.
        bps_wr_max_length: Option<u64> = "bps_wr_max_length",
        /// Seconds that a burst lasts.
        iops_max_length: Option<u64> = "iops_max_length",
        /// Of reads.
        iops_rd_max_length: Option<u64> = "iops_rd_max_length",
        /// Of writes.
        iops_wr_max_length: Option<u64> = "iops_wr_max_length",
        /// Bytes that count as one request.
        iops_size: Option<u64> = "iops_size",
        /// Whom it shares the limits with.
        group: Option<String> = "group",
        /// How the host caches.
        cache: BlockdevCacheInfo = "cache",
        /// Always 0: there are no thresholds.
        write_threshold: u64 = "write_threshold",
        /// Whether it can be used.
        active: bool = "active",
    }
}

qapi_enum! {
    /// How a disk is.
    pub enum BlockDeviceIoStatus {
        /// Well.
        Ok = "ok",
        /// A request failed.
        Failed = "failed",
        /// There was no space.
        Nospace = "nospace",
    }
}

qapi_struct! {
    /// One drive of `query-block`.
    pub struct BlockInfo {
        /// Its id.
        device: String = "device",
        /// The device it is connected to.
        qdev: Option<String> = "qdev",
        /// Always `unknown`.
        kind: String = "type",
        /// Whether the medium can be taken out.
        removable: bool = "removable",
        /// Whether the guest holds it.
        locked: bool = "locked",
        /// The medium.
        inserted: Option<BlockDeviceInfo> = "inserted",
        /// Whether the tray is open.
        tray_open: Option<bool> = "tray_open",
        /// How it is, if errors stop the machine.
        io_status: Option<BlockDeviceIoStatus> = "io-status",
    }
}

qapi_struct! {
    /// What was done so far. `zone_append` is for zoned disks, which there are none of.
    pub struct BlockDeviceStats {
        /// Bytes read.
        rd_bytes: u64 = "rd_bytes",
        /// Bytes written.
        wr_bytes: u64 = "wr_bytes",
        /// Bytes appended to zones.
        zone_append_bytes: u64 = "zone_append_bytes",
        /// Bytes given back.
        unmap_bytes: u64 = "unmap_bytes",
        /// Reads.
        rd_operations: u64 = "rd_operations",
        /// Writes.
        wr_operations: u64 = "wr_operations",
        /// Zone appends.
        zone_append_operations: u64 = "zone_append_operations",
        /// Flushes.
        flush_operations: u64 = "flush_operations",
        /// Discards.
        unmap_operations: u64 = "unmap_operations",
        /// What reads took, in nanoseconds.
        rd_total_time_ns: u64 = "rd_total_time_ns",
        /// What writes took.
        wr_total_time_ns: u64 = "wr_total_time_ns",
        /// What zone appends took.
        zone_append_total_time_ns: u64 = "zone_append_total_time_ns",
        /// What flushes took.
        flush_total_time_ns: u64 = "flush_total_time_ns",
        /// What discards took.
        unmap_total_time_ns: u64 = "unmap_total_time_ns",
        /// End of the furthest write.
        wr_highest_offset: u64 = "wr_highest_offset",
        /// Reads joined with others: none are.
        rd_merged: u64 = "rd_merged",
        /// Writes joined with others.
        wr_merged: u64 = "wr_merged",
        /// Zone appends joined with others.
        zone_append_merged: u64 = "zone_append_merged",
        /// Discards joined with others.
        unmap_merged: u64 = "unmap_merged",
        /// Nanoseconds since the last request.
        idle_time_ns: Option<u64> = "idle_time_ns",
        /// Reads that failed.
        failed_rd_operations: u64 = "failed_rd_operations",
        /// Writes that failed.
        failed_wr_operations: u64 = "failed_wr_operations",
        /// Zone appends that failed.
        failed_zone_append_operations: u64 = "failed_zone_append_operations",
        /// Flushes that failed.
        failed_flush_operations: u64 = "failed_flush_operations",
        /// Discards that failed.
        failed_unmap_operations: u64 = "failed_unmap_operations",
        /// Reads that made no sense.
        invalid_rd_operations: u64 = "invalid_rd_operations",
        /// Writes that made no sense.
        invalid_wr_operations: u64 = "invalid_wr_operations",
        /// Zone appends that made no sense.
        invalid_zone_append_operations: u64 = "invalid_zone_append_operations",
        /// Flushes that made no sense.
        invalid_flush_operations: u64 = "invalid_flush_operations",
        /// Discards that made no sense.
        invalid_unmap_operations: u64 = "invalid_unmap_operations",
        /// Requests that made no sense count.
        account_invalid: bool = "account_invalid",
        /// Requests that failed count.
        account_failed: bool = "account_failed",
        /// Statistics of intervals: there are none.
        timed_stats: Vec<Value> = "timed_stats",
    }
}

qapi_struct! {
    /// One disk or node of `query-blockstats`.
    pub struct BlockStats {
        /// The disk.
        device: Option<String> = "device",
        /// The device it is connected to.
        qdev: Option<String> = "qdev",
        /// The node.
        node_name: Option<String> = "node-name",
        /// What was done.
        stats: BlockDeviceStats = "stats",
        /// The file it is stored in.
        parent: Option<Box<BlockStats>> = "parent",
        /// The image behind it.
        backing: Option<Box<BlockStats>> = "backing",
    }
}

qapi_enum! {
    /// What a job does.
    pub enum JobType {
        /// Writes what images hold into one behind them.
        Commit = "commit",
        /// Brings what lies behind an image into it.
        Stream = "stream",
        /// Copies a disk and keeps the copy up to date.
        Mirror = "mirror",
        /// Makes an image.
        Create = "create",
    }
}

qapi_enum! {
    /// Where a job stands.
    pub enum JobStatus {
        /// Made.
        Created = "created",
        /// At work.
        Running = "running",
        /// Paused.
        Paused = "paused",
        /// It could end.
        Ready = "ready",
        /// Paused when it could end.
        Standby = "standby",
        /// It waits for others.
        Waiting = "waiting",
        /// It waits to be finalized.
        Pending = "pending",
        /// It failed or was cancelled.
        Aborting = "aborting",
        /// It has ended.
        Concluded = "concluded",
        /// It is gone.
        Null = "null",
    }
}

qapi_enum! {
    /// What is to be done when a request of a job fails.
    pub enum BlockdevOnError {
        /// The job fails.
        Report = "report",
        /// The job goes on.
        Ignore = "ignore",
        /// As `stop` without space, and as `report` else.
        Enospc = "enospc",
        /// The job pauses.
        Stop = "stop",
        /// As the device has it.
        Auto = "auto",
    }
}

qapi_enum! {
    /// What was done when a request failed.
    pub enum BlockErrorAction {
        /// It was ignored.
        Ignore = "ignore",
        /// It was reported.
        Report = "report",
        /// The machine, or the job, was stopped.
        Stop = "stop",
    }
}

qapi_enum! {
    /// Which way a request went.
    pub enum IoOperationType {
        /// From the disk.
        Read = "read",
        /// To the disk.
        Write = "write",
    }
}

qapi_struct! {
    /// One job of `query-jobs`.
    pub struct JobInfo {
        /// Its name.
        id: String = "id",
        /// What it does.
        kind: JobType = "type",
        /// Where it stands.
        status: JobStatus = "status",
        /// What is done,
        current_progress: u64 = "current-progress",
        /// and what is to be done.
        total_progress: u64 = "total-progress",
        /// Why it failed.
        error: Option<String> = "error",
    }
}

qapi_struct! {
    /// One job of `query-block-jobs`.
    pub struct BlockJobInfo {
        /// What it does.
        kind: JobType = "type",
        /// Its name.
        device: String = "device",
        /// What is to be done,
        len: u64 = "len",
        /// and what is done.
        offset: u64 = "offset",
        /// Whether it is at work.
        busy: bool = "busy",
        /// Whether it is paused.
        paused: bool = "paused",
        /// Bytes a second.
        speed: u64 = "speed",
        /// How its disk is.
        io_status: BlockDeviceIoStatus = "io-status",
        /// Whether it could end.
        ready: bool = "ready",
        /// Where it stands.
        status: JobStatus = "status",
        /// It ends by itself.
        auto_finalize: bool = "auto-finalize",
        /// It is forgotten when it has ended.
        auto_dismiss: bool = "auto-dismiss",
        /// Why it failed.
        error: Option<String> = "error",
    }
}

qapi_struct! {
    /// Arguments of `job-cancel` and its kind.
    pub struct JobArgs {
        /// The job.
        id: String = "id",
    }
}

qapi_struct! {
    /// Arguments of `block-job-pause` and its kind.
    pub struct BlockJobArgs {
        /// The job.
        device: String = "device",
    }
}

qapi_struct! {
    /// Arguments of `block-job-cancel`.
    pub struct BlockJobCancelArgs {
        /// The job.
        device: String = "device",
        /// At once, even if it is paused or ready.
        force: Option<bool> = "force",
    }
}

qapi_struct! {
    /// Arguments of `block-job-set-speed`.
    pub struct BlockJobSetSpeedArgs {
        /// The job.
        device: String = "device",
        /// Bytes a second; 0 for no limit.
        speed: u64 = "speed",
    }
}

qapi_struct! {
    /// Arguments of `block-commit`.
    pub struct BlockCommitArgs {
        /// The job's name; the device's if not given.
        job_id: Option<String> = "job-id",
        /// The disk, or its node.
        device: String = "device",
        /// Into this node; the last of the chain if not given.
        base_node: Option<String> = "base-node",
        /// The same by file name.
        base: Option<String> = "base",
        /// From this node on; the first of the chain if not given.
        top_node: Option<String> = "top-node",
        /// The same by file name.
        top: Option<String> = "top",
        /// How the image above names the base.
        backing_file: Option<String> = "backing-file",
        /// Bytes a second.
        speed: Option<u64> = "speed",
        /// When a request fails.
        on_error: Option<BlockdevOnError> = "on-error",
        /// It ends by itself.
        auto_finalize: Option<bool> = "auto-finalize",
        /// It is forgotten when it has ended.
        auto_dismiss: Option<bool> = "auto-dismiss",
    }
}

qapi_struct! {
    /// Arguments of `block-stream`.
    pub struct BlockStreamArgs {
        /// The job's name; the device's if not given.
        job_id: Option<String> = "job-id",
        /// The disk, or its node.
        device: String = "device",
        /// What stays behind it, by file name.
        base: Option<String> = "base",
        /// The same by node.
        base_node: Option<String> = "base-node",
        /// The last node that is brought in.
        bottom: Option<String> = "bottom",
        /// How the image names the base.
        backing_file: Option<String> = "backing-file",
        /// Bytes a second.
        speed: Option<u64> = "speed",
        /// When a request fails.
        on_error: Option<BlockdevOnError> = "on-error",
        /// It ends by itself.
        auto_finalize: Option<bool> = "auto-finalize",
        /// It is forgotten when it has ended.
        auto_dismiss: Option<bool> = "auto-dismiss",
    }
}

qapi_enum! {
    /// What a mirror copies at first.
    pub enum MirrorSyncMode {
        /// What the image on top holds.
        Top = "top",
        /// All.
        Full = "full",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-mirror`.
    pub struct BlockdevMirrorArgs {
        /// The job's name; the device's if not given.
        job_id: Option<String> = "job-id",
        /// The disk, or its node.
        device: String = "device",
        /// The node of the copy.
        target: String = "target",
        /// What is copied at first.
        sync: MirrorSyncMode = "sync",
        /// Bytes a second.
        speed: Option<u64> = "speed",
        /// When a request fails.
        on_source_error: Option<BlockdevOnError> = "on-source-error",
        /// It ends by itself.
        auto_finalize: Option<bool> = "auto-finalize",
        /// It is forgotten when it has ended.
        auto_dismiss: Option<bool> = "auto-dismiss",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-snapshot`.
    pub struct BlockdevSnapshotArgs {
        /// The node that is frozen.
        node: String = "node",
        /// The one that takes what is written from now on.
        overlay: String = "overlay",
    }
}

qapi_enum! {
    /// Whether an image is made.
    pub enum NewImageMode {
        /// It is there.
        Existing = "existing",
        /// It is made.
        AbsolutePaths = "absolute-paths",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-snapshot-sync`.
    pub struct BlockdevSnapshotSyncArgs {
        /// The disk.
        device: Option<String> = "device",
        /// Or the node.
        node_name: Option<String> = "node-name",
        /// The image that takes what is written from now on.
        snapshot_file: String = "snapshot-file",
        /// Its node.
        snapshot_node_name: Option<String> = "snapshot-node-name",
        /// Its format; qcow2 if not given.
        format: Option<String> = "format",
        /// Whether it is made.
        mode: Option<NewImageMode> = "mode",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-snapshot-internal-sync`.
    pub struct BlockdevSnapshotInternalArgs {
        /// The disk, or the node.
        device: String = "device",
        /// The snapshot's name.
        name: String = "name",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-snapshot-delete-internal-sync`.
    pub struct SnapshotDeleteInternalArgs {
        /// The disk, or the node.
        device: String = "device",
        /// The snapshot's number,
        id: Option<String> = "id",
        /// or its name, or both.
        name: Option<String> = "name",
    }
}

qapi_union! {
    /// One of several changes that are made together.
    pub enum TransactionAction {
        /// All are taken back.
        Abort(Empty) = "abort",
        /// A node is frozen behind another one.
        BlockdevSnapshot(BlockdevSnapshotArgs) = "blockdev-snapshot",
        /// A disk is frozen in its own image.
        BlockdevSnapshotInternalSync(BlockdevSnapshotInternalArgs) = "blockdev-snapshot-internal-sync",
        /// A disk is frozen behind a new image.
        BlockdevSnapshotSync(BlockdevSnapshotSyncArgs) = "blockdev-snapshot-sync",
    }
}

qapi_enum! {
    /// What becomes of the other jobs of a transaction when one fails. No action begins a job yet.
    pub enum ActionCompletionMode {
        /// They go on.
        Individual = "individual",
        /// They end, too.
        Grouped = "grouped",
    }
}

qapi_struct! {
    /// How actions belong together.
    pub struct TransactionProperties {
        /// What becomes of jobs.
        completion_mode: Option<ActionCompletionMode> = "completion-mode",
    }
}

qapi_struct! {
    /// Arguments of `transaction`.
    pub struct TransactionArgs {
        /// What is done.
        actions: Vec<TransactionAction> = "actions",
        /// How.
        properties: Option<TransactionProperties> = "properties",
    }
}

qapi_struct! {
    /// A thread that takes the requests of disks. None polls.
    pub struct IoThreadInfo {
        /// Its name.
        id: String = "id",
        /// The host's number for it.
        thread_id: i64 = "thread-id",
        /// How long it polls.
        poll_max_ns: i64 = "poll-max-ns",
        /// How that grows.
        poll_grow: i64 = "poll-grow",
        /// How that shrinks.
        poll_shrink: i64 = "poll-shrink",
        /// Requests handed to the host together; 0 for any number.
        aio_max_batch: i64 = "aio-max-batch",
    }
}

qapi_struct! {
    /// Arguments of `device_del`.
    pub struct IdArgs {
        /// Which.
        id: String = "id",
    }
}

/// A device: which further properties there are depends on `driver`.
#[derive(Clone, PartialEq, Debug)]
pub struct DeviceOptions(pub Map<String, Value>);

impl Qapi for DeviceOptions {
    fn describe(schema: &mut Schema) -> String {
        schema.object("DeviceOptions", |schema| {
            vec![
                Member::of::<String>(schema, "driver"),
                Member::of::<Option<String>>(schema, "bus"),
                Member::of::<Option<String>>(schema, "id"),
            ]
        })
    }

    fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
        object_members(at, value).map(Self)
    }
}

/// An object: which further properties there are depends on `qom-type`.
#[derive(Clone, PartialEq, Debug)]
pub struct ObjectOptions(pub Map<String, Value>);

impl Qapi for ObjectOptions {
    fn describe(schema: &mut Schema) -> String {
        schema.object("ObjectOptions", |schema| {
            vec![
                Member::of::<String>(schema, "qom-type"),
                Member::of::<String>(schema, "id"),
            ]
        })
    }

    fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
        object_members(at, value).map(Self)
    }
}

qapi_struct! {
    /// Arguments of `eject` and `blockdev-open-tray`.
    pub struct EjectArgs {
        /// The drive's id.
        device: Option<String> = "device",
        /// The id or path of the device that has it.
        id: Option<String> = "id",
        /// Even if the guest holds it.
        force: Option<bool> = "force",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-close-tray`.
    pub struct CloseTrayArgs {
        /// The drive's id.
        device: Option<String> = "device",
        /// The id or path of the device that has it.
        id: Option<String> = "id",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-remove-medium`.
    pub struct RemoveMediumArgs {
        /// The id or path of the device.
        id: String = "id",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-insert-medium`.
    pub struct InsertMediumArgs {
        /// The id or path of the device.
        id: String = "id",
        /// The node that becomes its medium.
        node_name: String = "node-name",
    }
}

qapi_enum! {
    /// Whether a new medium can be written to.
    pub enum ChangeMode {
        /// As the old one.
        Retain = "retain",
        /// No.
        ReadOnly = "read-only",
        /// Yes.
        ReadWrite = "read-write",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-change-medium`.
    pub struct ChangeMediumArgs {
        /// The drive's id.
        device: Option<String> = "device",
        /// The id or path of the device that has it.
        id: Option<String> = "id",
        /// The image.
        filename: String = "filename",
        /// Its format; found out if not given.
        format: Option<String> = "format",
        /// Even if the guest holds the medium.
        force: Option<bool> = "force",
        /// Whether it can be written to.
        read_only_mode: Option<ChangeMode> = "read-only-mode",
    }
}
