//! One disk with a CD in it that is not there, and one with an image; what is asked is recorded.

use super::FakeVm;
use crate::{
    BlockCommitArgs, BlockDeviceInfo, BlockDeviceIoStatus, BlockDeviceStats, BlockDriver,
    BlockDrivers, BlockInfo, BlockJobInfo, BlockResizeArgs, BlockStats, BlockStreamArgs,
    BlockdevCacheInfo, BlockdevCreateArgs, BlockdevMirrorArgs, BlockdevOptions, Blocks, DriveName,
    ErrorClass, ImageInfo, IoThrottleArgs, JobChange, JobInfo, JobStatus, JobType, MediumChange,
    ObjectOptions, Qapi, QmpError, Setting, SnapshotDeleteInternalArgs, SnapshotInfo, Takes,
    TransactionAction, json,
};

fn image(filename: &str, format: &str) -> ImageInfo {
    let json = json!({ "filename": filename, "format": format, "virtual-size": 1 << 30, "actual-size": 4096 });
    ImageInfo::from_json("image", json).unwrap_or_else(|e| unreachable!("{e}"))
}

fn node() -> BlockDeviceInfo {
    let zero = json!({
        "file": "/images/top.qcow2", "node-name": "#block001", "ro": false, "drv": "qcow2",
        "backing_file": "base.img", "backing_file_depth": 1, "encrypted": false,
        "detect_zeroes": "unmap", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 100, "iops_rd": 0,
        "iops_wr": 0, "iops_size": 0, "group": "virtio0", "image": image("/images/top.qcow2", "qcow2").to_json(),
        "cache": BlockdevCacheInfo { writeback: true, direct: true, no_flush: false }.to_json(),
        "write_threshold": 0, "active": true,
    });
    BlockDeviceInfo::from_json("node", zero).unwrap_or_else(|e| unreachable!("{e}"))
}

impl FakeVm {
    fn asked(&self, what: &str) -> Result<(), QmpError> {
        self.note(what);
        Ok(())
    }
}

impl Blocks for FakeVm {
    fn change_medium(
        &self,
        drive: DriveName<'_>,
        change: MediumChange<'_>,
    ) -> Result<(), QmpError> {
        match drive {
            DriveName::Drive("ide0-cd0") | DriveName::Device("cd") => {
                self.note(format!("change_medium {change:?}"));
                Ok(())
            }
            DriveName::Drive(name) | DriveName::Device(name) => Err(QmpError::new(
                ErrorClass::DeviceNotFound,
                format!("Device '{name}' not found"),
            )),
        }
    }

    fn disks(&self) -> Vec<BlockInfo> {
        let empty = BlockInfo {
            device: "ide0-cd0".into(),
            qdev: None,
            kind: "unknown".into(),
            removable: true,
            locked: false,
            inserted: None,
            tray_open: Some(false),
            io_status: None,
        };
        let full = BlockInfo {
            device: "virtio0".into(),
            qdev: Some("disk0".into()),
            removable: false,
            inserted: Some(node()),
            tray_open: None,
            io_status: Some(BlockDeviceIoStatus::Ok),
            ..empty.clone()
        };
        vec![empty, full]
    }

    fn stats(&self, _: bool) -> Vec<BlockStats> {
        let mut stats =
            json!({ "account_invalid": true, "account_failed": true, "timed_stats": [] });
        for name in ["bytes", "operations", "total_time_ns", "merged"] {
            for kind in ["rd", "wr", "zone_append", "unmap", "flush"] {
                if kind != "flush" || ["operations", "total_time_ns"].contains(&name) {
                    stats[format!("{kind}_{name}")] = json!(7);
                }
            }
        }
        for kind in ["rd", "wr", "zone_append", "unmap", "flush"] {
            stats[format!("failed_{kind}_operations")] = json!(0);
            stats[format!("invalid_{kind}_operations")] = json!(0);
        }
        stats["wr_highest_offset"] = json!(512);
        vec![BlockStats {
            device: Some("virtio0".into()),
            qdev: None,
            node_name: Some("#block001".into()),
            stats: BlockDeviceStats::from_json("stats", stats)
                .unwrap_or_else(|e| unreachable!("{e}")),
            parent: None,
            backing: None,
        }]
    }

    fn nodes(&self, _: bool) -> Vec<BlockDeviceInfo> {
        vec![node()]
    }

    fn drivers(&self) -> BlockDrivers {
        let setting = |name: &str, takes, is_optional| Setting {
            name: name.to_owned(),
            takes,
            is_optional,
        };
        BlockDrivers {
            common: vec![
                setting("node-name", Takes::Str, true),
                setting("cache.direct", Takes::Bool, true),
                setting("cache.no-flush", Takes::Bool, true),
            ],
            drivers: vec![
                BlockDriver {
                    name: "file",
                    open: vec![
                        setting("filename", Takes::Str, false),
                        setting("aio", Takes::Word(&["threads", "io_uring"]), true),
                    ],
                    create: Some(vec![setting("size", Takes::Int, false)]),
                },
                BlockDriver {
                    name: "overlay",
                    open: vec![
                        setting("file", Takes::Node, false),
                        setting("backing", Takes::NodeOrNone, true),
                        setting("rules.0.errno", Takes::Int, true),
                    ],
                    create: None,
                },
            ],
        }
    }

    fn add_node(&self, options: BlockdevOptions) -> Result<(), QmpError> {
        self.asked(&format!("add {}", options.to_json()))
    }

    fn add_drive(&self, options: &str) -> Result<(), QmpError> {
        self.asked(&format!("add drive {options}"))
    }

    fn delete_drive(&self, id: &str) -> Result<(), QmpError> {
        self.asked(&format!("del drive {id}"))
    }

    fn delete_node(&self, name: &str) -> Result<(), QmpError> {
        self.asked(&format!("del {name}"))
    }

    fn reopen_nodes(&self, options: Vec<BlockdevOptions>) -> Result<(), QmpError> {
        self.asked(&format!("reopen {}", options.to_json()))
    }

    fn create_image(&self, args: BlockdevCreateArgs) -> Result<(), QmpError> {
        self.asked(&format!("create {}", args.to_json()))
    }

    fn resize(&self, args: BlockResizeArgs) -> Result<(), QmpError> {
        self.asked(&format!("resize {}", args.to_json()))
    }

    fn set_throttle(&self, args: IoThrottleArgs) -> Result<(), QmpError> {
        self.asked(&format!("throttle {}", args.to_json()))
    }

    fn commit_disk(&self, device: &str) -> Result<(), QmpError> {
        self.asked(&format!("commit {device}"))
    }

    fn commit(&self, args: BlockCommitArgs) -> Result<(), QmpError> {
        self.asked(&format!("block-commit {}", args.to_json()))
    }

    fn stream(&self, args: BlockStreamArgs) -> Result<(), QmpError> {
        self.asked(&format!("stream {}", args.to_json()))
    }

    fn mirror(&self, args: BlockdevMirrorArgs) -> Result<(), QmpError> {
        self.asked(&format!("mirror {}", args.to_json()))
    }

    fn fds(&self) -> runtime::FdSets {
        runtime::FdSets::default()
    }

    fn set_drive(&self, device: &str, node: &str) -> Result<(), QmpError> {
        self.asked(&format!("drive of {device}: {node}"))
    }

    fn delete_snapshot(&self, args: SnapshotDeleteInternalArgs) -> Result<SnapshotInfo, QmpError> {
        self.asked(&format!("delete snapshot {}", args.to_json()))?;
        Err(QmpError::generic("there is no snapshot"))
    }

    fn transact(&self, actions: Vec<TransactionAction>) -> Result<(), QmpError> {
        self.asked(&format!("transaction {}", actions.to_json()))
    }

    fn jobs(&self) -> Vec<JobInfo> {
        let job = |job: BlockJobInfo| JobInfo {
            id: job.device,
            kind: job.kind,
            status: job.status,
            current_progress: job.offset,
            total_progress: job.len,
            error: None,
        };
        self.block_jobs().into_iter().map(job).collect()
    }

    fn block_jobs(&self) -> Vec<BlockJobInfo> {
        vec![BlockJobInfo {
            kind: JobType::Stream,
            device: "virtio0".into(),
            len: 100,
            offset: 7,
            busy: true,
            paused: false,
            speed: 0,
            io_status: BlockDeviceIoStatus::Ok,
            ready: false,
            status: JobStatus::Running,
            auto_finalize: true,
            auto_dismiss: true,
            error: None,
        }]
    }

    fn change_job(&self, id: &str, change: JobChange, is_block: bool) -> Result<(), QmpError> {
        let kind = if is_block { "block job" } else { "job" };
        self.asked(&format!("{kind} {id}: {change:?}"))
    }

    fn add_object(&self, object: ObjectOptions) -> Result<(), QmpError> {
        self.asked(&format!("object-add {}", object.to_json()))
    }

    fn delete_object(&self, id: &str) -> Result<(), QmpError> {
        self.asked(&format!("object-del {id}"))
    }
}
