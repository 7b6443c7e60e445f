//! The commands about disks and jobs.

use control_qapi::{
    BlockCommitArgs, BlockDeviceInfo, BlockInfo, BlockJobArgs, BlockJobCancelArgs, BlockJobInfo,
    BlockJobSetSpeedArgs, BlockResizeArgs, BlockStats, BlockStreamArgs, BlockdevCreateArgs,
    BlockdevMirrorArgs, BlockdevOptions, BlockdevReopenArgs, BlockdevSnapshotArgs,
    BlockdevSnapshotInternalArgs, BlockdevSnapshotSyncArgs, BlockstatsArgs, ChangeMediumArgs,
    ChangeMode, CloseTrayArgs, DriveName, EjectArgs, Empty, InsertMediumArgs, IoThreadInfo,
    IoThrottleArgs, JobArgs, JobChange, JobInfo, MediumChange, NamedNodesArgs, NodeArgs,
    ObjectOptions, Qapi, QmpError, RemoveMediumArgs, SnapshotDeleteInternalArgs, SnapshotInfo,
    TransactionAction, TransactionArgs,
};

use crate::commands::{CommandDef, Context, command};

type Done = Result<Empty, QmpError>;

fn done(result: Result<(), QmpError>) -> Done {
    result.map(|()| Empty {})
}

fn job(c: &Context<'_>, id: &str, change: JobChange) -> Done {
    done(c.vm.blocks().change_job(id, change, false))
}

fn block_job(c: &Context<'_>, id: &str, change: JobChange) -> Done {
    done(c.vm.blocks().change_job(id, change, true))
}

/// A command that is also an action of `transaction`.
fn transact(c: &Context<'_>, action: TransactionAction) -> Done {
    done(c.vm.blocks().transact(vec![action]))
}

fn drive<'a>(
    device: &'a Option<String>,
    id: &'a Option<String>,
) -> Result<DriveName<'a>, QmpError> {
    match (device, id) {
        (None, Some(id)) => Ok(DriveName::Device(id)),
        (Some(device), None) => Ok(DriveName::Drive(device)),
        _ => Err(QmpError::generic("Need exactly one of 'device' and 'id'")),
    }
}

fn medium(c: &Context<'_>, drive: DriveName<'_>, change: MediumChange<'_>) -> Done {
    done(c.vm.blocks().change_medium(drive, change))
}

fn change_medium(c: &Context<'_>, a: ChangeMediumArgs) -> Done {
    if a.read_only_mode == Some(ChangeMode::ReadWrite) {
        return Err(QmpError::generic(
            "Parameter 'read-only-mode': media of CD drives are read-only; leave it out",
        ));
    }
    let change = MediumChange::Replace {
        file: &a.filename,
        format: a.format.as_deref(),
        force: a.force.unwrap_or(false),
    };
    medium(c, drive(&a.device, &a.id)?, change)
}

/// Those commands.
pub(crate) static COMMANDS: &[CommandDef] = &[
    command!("block-commit", "write overlays into an image behind them", BlockCommitArgs => Empty, |c, a| done(c.vm.blocks().commit(a))),
    command!("block-job-cancel", "end a block job", BlockJobCancelArgs => Empty, |c, a| {
        block_job(c, &a.device, JobChange::Cancel { force: a.force == Some(true) })
    }),
    command!("block-job-complete", "end a block job that is ready", BlockJobArgs => Empty, |c, a| block_job(c, &a.device, JobChange::Complete)),
    command!("block-job-dismiss", "forget a block job that has ended", JobArgs => Empty, |c, a| block_job(c, &a.id, JobChange::Dismiss)),
    command!("block-job-finalize", "end a block job that is pending", JobArgs => Empty, |c, a| block_job(c, &a.id, JobChange::Finalize)),
    command!("block-job-pause", "pause a block job", BlockJobArgs => Empty, |c, a| block_job(c, &a.device, JobChange::Pause)),
    command!("block-job-resume", "let a block job go on", BlockJobArgs => Empty, |c, a| block_job(c, &a.device, JobChange::Resume)),
    command!("block-job-set-speed", "limit a block job", BlockJobSetSpeedArgs => Empty, |c, a| block_job(c, &a.device, JobChange::SetSpeed(a.speed))),
    command!("block-stream", "bring what lies behind a disk into it", BlockStreamArgs => Empty, |c, a| done(c.vm.blocks().stream(a))),
    command!("block_resize", "change the size of a disk", BlockResizeArgs => Empty, |c, a| done(c.vm.blocks().resize(a))),
    command!("block_set_io_throttle", "limit a disk", IoThrottleArgs => Empty, |c, a| done(c.vm.blocks().set_throttle(a))),
    command!("blockdev-add", "open a node of the block graph", BlockdevOptions => Empty, |c, a| done(c.vm.blocks().add_node(a))),
    command!("blockdev-change-medium", "change the medium of a drive", ChangeMediumArgs => Empty, change_medium),
    command!("blockdev-close-tray", "close a drive's tray", CloseTrayArgs => Empty, |c, a| {
        medium(c, drive(&a.device, &a.id)?, MediumChange::Close)
    }),
    command!("blockdev-create", "make an image, as a job", BlockdevCreateArgs => Empty, |c, a| done(c.vm.blocks().create_image(a))),
    command!("blockdev-del", "close a node of the block graph", NodeArgs => Empty, |c, a| done(c.vm.blocks().delete_node(&a.node_name))),
    command!("blockdev-insert-medium", "put a node into an open tray", InsertMediumArgs => Empty, |c, a| {
        medium(c, DriveName::Device(&a.id), MediumChange::Insert(&a.node_name))
    }),
    command!("blockdev-mirror", "copy a disk and keep the copy up to date", BlockdevMirrorArgs => Empty, |c, a| done(c.vm.blocks().mirror(a))),
    command!("blockdev-open-tray", "open a drive's tray", EjectArgs => Empty, |c, a| {
        let force = a.force.unwrap_or(false);
        medium(c, drive(&a.device, &a.id)?, MediumChange::Open { force })
    }),
    command!("blockdev-remove-medium", "take the medium out of an open tray", RemoveMediumArgs => Empty, |c, a| {
        medium(c, DriveName::Device(&a.id), MediumChange::Remove)
    }),
    command!("blockdev-reopen", "give nodes other properties", BlockdevReopenArgs => Empty, |c, a| done(c.vm.blocks().reopen_nodes(a.options))),
    command!("blockdev-snapshot", "freeze a node behind another one", BlockdevSnapshotArgs => Empty, |c, a| transact(c, TransactionAction::BlockdevSnapshot(a))),
    command!("blockdev-snapshot-delete-internal-sync", "delete a snapshot in a disk's own image", SnapshotDeleteInternalArgs => SnapshotInfo, |c, a| c.vm.blocks().delete_snapshot(a)),
    command!("blockdev-snapshot-internal-sync", "freeze a disk in its own image", BlockdevSnapshotInternalArgs => Empty, |c, a| transact(c, TransactionAction::BlockdevSnapshotInternalSync(a))),
    command!("blockdev-snapshot-sync", "freeze a disk behind a new image", BlockdevSnapshotSyncArgs => Empty, |c, a| transact(c, TransactionAction::BlockdevSnapshotSync(a))),
    command!("eject", "take the medium out of a drive", EjectArgs => Empty, |c, a| {
        let force = a.force.unwrap_or(false);
        medium(c, drive(&a.device, &a.id)?, MediumChange::Eject { force })
    }),
    command!("job-cancel", "end a job at once", JobArgs => Empty, |c, a| job(c, &a.id, JobChange::Cancel { force: true })),
    command!("job-complete", "end a job that is ready", JobArgs => Empty, |c, a| job(c, &a.id, JobChange::Complete)),
    command!("job-dismiss", "forget a job that has ended", JobArgs => Empty, |c, a| job(c, &a.id, JobChange::Dismiss)),
    command!("job-finalize", "end a job that is pending", JobArgs => Empty, |c, a| job(c, &a.id, JobChange::Finalize)),
    command!("job-pause", "pause a job", JobArgs => Empty, |c, a| job(c, &a.id, JobChange::Pause)),
    command!("job-resume", "let a job go on", JobArgs => Empty, |c, a| job(c, &a.id, JobChange::Resume)),
    command!("object-add", "make an object that disks can use", ObjectOptions => Empty, |c, a| done(c.vm.blocks().add_object(a))),
    command!("object-del", "delete an object that nobody uses", JobArgs => Empty, |c, a| done(c.vm.blocks().delete_object(&a.id))),
    command!("query-block", "disks", Empty => Vec<BlockInfo>, |c, _| Ok(c.vm.blocks().disks())),
    command!("query-block-jobs", "jobs on disks", Empty => Vec<BlockJobInfo>, |c, _| Ok(c.vm.blocks().block_jobs())),
    command!("query-blockstats", "what disks did so far", BlockstatsArgs => Vec<BlockStats>, |c, a| {
        Ok(c.vm.blocks().stats(a.query_nodes == Some(true)))
    }),
    command!("query-iothreads", "threads that take the requests of disks", Empty => Vec<IoThreadInfo>, |c, _| Ok(c.vm.io_threads())),
    command!("query-jobs", "jobs", Empty => Vec<JobInfo>, |c, _| Ok(c.vm.blocks().jobs())),
    command!("query-named-block-nodes", "nodes of the block graph", NamedNodesArgs => Vec<BlockDeviceInfo>, |c, a| {
        Ok(c.vm.blocks().nodes(a.flat == Some(true)))
    }),
    command!("transaction", "several changes of disks: all of them, or none", TransactionArgs => Empty, |c, a| done(c.vm.blocks().transact(a.actions))),
];
