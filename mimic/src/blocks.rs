//! The disks as monitors see them, and what monitors do to them.

pub(crate) mod jobs;
pub(crate) mod media;
mod query;
mod transaction;
mod user;

use std::sync::{Arc, Weak};

use backend_block::{
    BlockError, Jobs, Limit, Limited, Limits, Node, OpenError, Preallocation, SharedBlock,
};
use control_options::{Opts, Scalar};
use control_qapi::{
    BlockCommitArgs, BlockDeviceInfo, BlockDrivers, BlockErrorAction, BlockInfo, BlockJobInfo,
    BlockResizeArgs, BlockStats, BlockStreamArgs, BlockdevCreateArgs, BlockdevMirrorArgs,
    BlockdevOptions, Blocks, DriveName, ErrorClass, Event, EventBus, IoOperationType,
    IoThrottleArgs, JobChange, JobInfo, MediumChange, ObjectOptions, Qapi, QmpError, RunState,
    SnapshotDeleteInternalArgs, SnapshotInfo, TransactionAction,
};
use machine_core::{Board, Event as MachineEvent, MachineDef};
use runtime::{FdSets, Handle};

pub(crate) use user::User;

use crate::introspect;
use crate::objects::{self, Object};
use crate::storage::{Storage, Use, plan_drive};

/// What a monitor needs to know of the disks.
pub(crate) struct BlockControl {
    storage: Storage,
    machine: &'static MachineDef,
    board: Arc<Board>,
    jobs: Jobs,
}

/// Any error, with all that lies behind it.
fn failed(error: impl std::error::Error) -> QmpError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    QmpError::generic(text)
}

fn chain(error: anyhow::Error) -> QmpError {
    QmpError::generic(format!("{error:#}"))
}

fn text(text: impl Into<String>) -> Scalar {
    Scalar::Text(text.into())
}

impl BlockControl {
    pub(crate) fn new(
        storage: Storage,
        machine: &'static MachineDef,
        board: Arc<Board>,
        events: &Arc<EventBus>,
        main_loop: &Handle,
    ) -> Arc<Self> {
        let jobs = jobs::jobs(&storage.clock, events);
        let control = Arc::new(BlockControl {
            storage,
            machine,
            board,
            jobs,
        });
        for disk in control.storage.disks.all() {
            control.watch(&disk, events, main_loop);
        }
        let weak = Arc::downgrade(&control);
        control.board.machine.on_event(move |event| {
            if let (MachineEvent::Resume, Some(control)) = (event, weak.upgrade()) {
                control
                    .storage
                    .disks
                    .all()
                    .iter()
                    .for_each(|disk| disk.retry());
            }
        });
        control
    }

    /// Ends all jobs: the machine ends.
    pub(crate) fn end(&self) {
        self.jobs.end();
    }

    /// Tells the world of errors, and stops the machine if the user wants that.
    pub(crate) fn watch(
        self: &Arc<Self>,
        disk: &SharedBlock,
        events: &Arc<EventBus>,
        main_loop: &Handle,
    ) {
        let weak: Weak<Self> = Arc::downgrade(self);
        let (events, main_loop) = (Arc::clone(events), main_loop.clone());
        disk.on_failure(Arc::new(move |failure| {
            let Some(control) = weak.upgrade() else {
                return;
            };
            let user = control.user_of(&failure.id);
            events.emit(&Event::BlockIoError {
                qom_path: user.map_or_else(String::new, |user| user.path()),
                device: control.shown(&failure.id),
                node_name: Some(failure.node.clone()),
                operation: match failure.is_write {
                    true => IoOperationType::Write,
                    false => IoOperationType::Read,
                },
                action: action(failure.action),
                nospace: Some(failure.error == BlockError::NoSpace),
                reason: failure.error.to_string(),
            });
            if failure.action == backend_block::ErrorAction::Stop {
                log::warn!(
                    "disk '{}': {}; the machine stops, and 'cont' tries again",
                    failure.id,
                    failure.error
                );
                let machine = control.board.machine.clone();
                main_loop.post(move || machine.stop(RunState::IoError));
            }
        }));
    }

    /// The device that a disk is connected to.
    fn user_of(&self, id: &str) -> Option<User> {
        User::of(&self.board, id)
    }

    /// The name of a disk: those on nodes of `-blockdev`, and those that a device made for itself, have none.
    fn shown(&self, id: &str) -> String {
        match id.starts_with('#') || self.storage.opener.graph.find(id).is_some() {
            true => String::new(),
            false => id.to_owned(),
        }
    }

    /// A disk by its id.
    fn disk(&self, id: &str) -> Option<SharedBlock> {
        self.storage.disks.find(|disk| disk.info().id == id)
    }

    /// Changes the graph, and tells the users of disks that have another size then.
    fn telling<T>(&self, change: impl FnOnce() -> T) -> T {
        let lens = |disk: SharedBlock| (disk.len(), disk);
        let before: Vec<_> = self.storage.disks.all().into_iter().map(lens).collect();
        let result = change();
        let changed = before.iter().filter(|(len, disk)| disk.len() != *len);
        changed.for_each(|(_, disk)| disk.size_changed());
        result
    }

    /// A disk by its own id or its device's.
    fn disk_of(&self, device: Option<&str>, qdev: Option<&str>) -> Result<SharedBlock, QmpError> {
        let not_found = |id: &str| {
            QmpError::new(
                ErrorClass::DeviceNotFound,
                format!("Device '{id}' not found"),
            )
        };
        match (device, qdev) {
            (Some(device), None) => self.disk(device).ok_or_else(|| not_found(device)),
            (None, Some(qdev)) => {
                let user = |d: &SharedBlock| self.user_of(&d.info().id);
                let is_its = |d: &SharedBlock| user(d).is_some_and(|user| user.is(qdev));
                let found = self.storage.disks.find(is_its);
                found.ok_or_else(|| not_found(qdev))
            }
            _ => Err(QmpError::generic("Need exactly one of 'device' and 'id'")),
        }
    }

    /// A node, by the disk on it or by its own name.
    fn node(&self, device: &str) -> Result<Arc<Node>, QmpError> {
        let of_disk = || self.disk(device).and_then(|disk| disk.node());
        let found = of_disk().or_else(|| self.storage.opener.graph.find(device));
        found.ok_or_else(|| {
            QmpError::generic(format!(
                "Cannot find device='{device}' nor node-name='{device}'"
            ))
        })
    }

    /// A node, by one of the two.
    fn node_of(&self, device: Option<&str>, node: Option<&str>) -> Result<Arc<Node>, QmpError> {
        match (device, node) {
            (Some(device), None) => match self.disk(device).and_then(|disk| disk.node()) {
                Some(node) => Ok(node),
                None => Err(QmpError::generic(format!(
                    "Cannot find device='{device}' nor node-name=''"
                ))),
            },
            (None, Some(name)) => self.named(name),
            _ => Err(QmpError::generic(
                "Need exactly one of 'device' and 'node-name'",
            )),
        }
    }

    fn named(&self, name: &str) -> Result<Arc<Node>, QmpError> {
        let graph = &self.storage.opener.graph;
        graph
            .find(name)
            .ok_or_else(|| failed(OpenError::no_node(name, graph)))
    }

    fn opts(&self, option: &str, options: &impl Qapi) -> Result<Opts, QmpError> {
        Opts::from_json(option, &options.to_json()).map_err(failed)
    }
}

fn action(action: backend_block::ErrorAction) -> BlockErrorAction {
    match action {
        backend_block::ErrorAction::Report => BlockErrorAction::Report,
        backend_block::ErrorAction::Ignore => BlockErrorAction::Ignore,
        backend_block::ErrorAction::Stop => BlockErrorAction::Stop,
    }
}

/// The limits of `block_set_io_throttle`.
fn limits(a: &IoThrottleArgs) -> Limits {
    let mut limits = Limits::of_size(a.iops_size.unwrap_or(0));
    for (what, average, max, burst_s) in [
        (Limited::Bps, a.bps, a.bps_max, a.bps_max_length),
        (
            Limited::BpsRead,
            a.bps_rd,
            a.bps_rd_max,
            a.bps_rd_max_length,
        ),
        (
            Limited::BpsWrite,
            a.bps_wr,
            a.bps_wr_max,
            a.bps_wr_max_length,
        ),
        (Limited::Iops, a.iops, a.iops_max, a.iops_max_length),
        (
            Limited::IopsRead,
            a.iops_rd,
            a.iops_rd_max,
            a.iops_rd_max_length,
        ),
        (
            Limited::IopsWrite,
            a.iops_wr,
            a.iops_wr_max,
            a.iops_wr_max_length,
        ),
    ] {
        let limit = Limit {
            average,
            max: max.unwrap_or(0),
            burst_s: burst_s.unwrap_or(1),
        };
        limits.set(what, limit);
    }
    limits
}

impl Blocks for BlockControl {
    fn change_medium(
        &self,
        drive: DriveName<'_>,
        change: MediumChange<'_>,
    ) -> Result<(), QmpError> {
        media::change(&self.board, &self.storage, drive, change)
    }

    fn disks(&self) -> Vec<BlockInfo> {
        self.query_disks()
    }

    fn stats(&self, nodes: bool) -> Vec<BlockStats> {
        self.query_stats(nodes)
    }

    fn nodes(&self, flat: bool) -> Vec<BlockDeviceInfo> {
        let nodes = self.storage.opener.graph.nodes();
        nodes
            .iter()
            .map(|node| query::node(node, None, flat))
            .collect()
    }

    fn drivers(&self) -> BlockDrivers {
        introspect::block_drivers()
    }

    fn fds(&self) -> FdSets {
        self.storage.opener.fds.clone()
    }

    fn add_node(&self, options: BlockdevOptions) -> Result<(), QmpError> {
        let opts = self.opts("blockdev-add", &options)?;
        if opts.text("node-name").is_none_or(str::is_empty) {
            return Err(QmpError::generic(
                "'node-name' must be specified for the root node",
            ));
        }
        let opener = &self.storage.opener;
        let node = opener.open("blockdev-add", &opts).map_err(failed)?;
        opener.graph.keep(node);
        Ok(())
    }

    fn add_drive(&self, text: &str) -> Result<(), QmpError> {
        let option = "drive_add";
        let drive = plan_drive(option, text, self.machine).map_err(chain)?;
        let id = drive.id.as_str();
        let is_taken = self.storage.drives.find(|tray| tray.id() == id).is_some()
            || self.storage.opener.graph.find(id).is_some();
        if is_taken {
            let problem = format!("{option}: the id '{id}' is used twice; every id must be unique");
            return Err(QmpError::generic(problem));
        }
        let added = self.storage.add_drive(option, &drive, Use::default());
        added.map_err(chain)
    }

    fn delete_drive(&self, id: &str) -> Result<(), QmpError> {
        if let Some(user) = self.user_of(id) {
            return Err(QmpError::generic(format!(
                "Device '{id}' is in use by '{}'; 'device_del {}' takes out both",
                user.id, user.id
            )));
        }
        if self.storage.drives.find(|tray| tray.id() == id).is_none() {
            let is_node = self.storage.opener.graph.find(id).is_some();
            return match is_node {
                true => self.delete_node(id),
                false => Err(QmpError::new(
                    ErrorClass::DeviceNotFound,
                    format!("Device '{id}' not found"),
                )),
            };
        }
        if let Some(disk) = self.disk(id) {
            disk.drain();
        }
        self.storage.release(id);
        Ok(())
    }

    fn delete_node(&self, name: &str) -> Result<(), QmpError> {
        self.storage.opener.graph.delete(name).map_err(failed)
    }

    fn reopen_nodes(&self, options: Vec<BlockdevOptions>) -> Result<(), QmpError> {
        let opener = &self.storage.opener;
        let mut changes = Vec::new();
        for options in &options {
            let opts = self.opts("blockdev-reopen", options)?;
            let name = opts.text("node-name").unwrap_or_default();
            let node = self.named(name)?;
            opener.graph.check_free(&node).map_err(failed)?;
            changes.push(opener.reopening(&node, &opts).map_err(failed)?);
        }
        self.telling(|| {
            let still = opener.graph.still();
            let mut done = Vec::new();
            for change in &changes {
                match change.apply(&still) {
                    Ok(before) => done.push(before),
                    Err(error) => {
                        for before in done.into_iter().rev() {
                            // It was so: what stood against it is not there.
                            let _ = before.apply(&still);
                        }
                        return Err(failed(error));
                    }
                }
            }
            Ok(())
        })
    }

    fn create_image(&self, args: BlockdevCreateArgs) -> Result<(), QmpError> {
        self.start_create(args)
    }

    fn set_drive(&self, device: &str, node: &str) -> Result<(), QmpError> {
        let disk = self.disk_of(None, Some(device))?;
        let node = self.named(node)?;
        let graph = &self.storage.opener.graph;
        for node in disk.node().iter().chain([&node]) {
            graph.check_free(node).map_err(failed)?;
        }
        self.telling(|| disk.set_node(&graph.still(), &node))
            .map_err(failed)
    }

    fn resize(&self, args: BlockResizeArgs) -> Result<(), QmpError> {
        let node = self.node_of(args.device.as_deref(), args.node_name.as_deref())?;
        self.storage
            .opener
            .graph
            .check_free(&node)
            .map_err(failed)?;
        let len = args.size.checked_next_multiple_of(backend_block::SECTOR);
        let len = len.ok_or_else(|| QmpError::generic("Parameter 'size' is too large"))?;
        let uses = |disk: &SharedBlock| disk.node().is_some_and(|n| Arc::ptr_eq(&n, &node));
        let resized = match self.storage.disks.find(uses) {
            Some(disk) => disk.resize(len),
            None => self.telling(|| node.resize(len, Preallocation::Off)),
        };
        resized.map_err(|error| {
            let (name, driver) = (node.name(), node.class().name);
            QmpError::generic(match error {
                BlockError::Unsupported => format!(
                    "Node '{name}' cannot be resized so: driver '{driver}' or its snapshots do not let it"
                ),
                error => format!("Node '{name}' cannot be resized: {error}"),
            })
        })
    }

    fn set_throttle(&self, args: IoThrottleArgs) -> Result<(), QmpError> {
        let disk = self.disk_of(args.device.as_deref(), args.id.as_deref())?;
        let limits = limits(&args);
        limits.check().map_err(QmpError::generic)?;
        if !limits.is_on() {
            disk.set_throttle(None);
            return Ok(());
        }
        let current = disk.throttle().map(|(group, _)| group);
        let id = disk.info().id;
        let name = args.group.as_deref().or(current.as_deref()).unwrap_or(&id);
        let group = self
            .storage
            .opener
            .throttles
            .group(name, &self.storage.clock);
        group.set_limits(limits);
        if current.as_deref() != Some(name) {
            disk.set_throttle(Some(&group));
        }
        Ok(())
    }

    fn commit_disk(&self, device: &str) -> Result<(), QmpError> {
        self.commit_now(device)
    }

    fn commit(&self, args: BlockCommitArgs) -> Result<(), QmpError> {
        self.start_commit(args)
    }

    fn stream(&self, args: BlockStreamArgs) -> Result<(), QmpError> {
        self.start_stream(args)
    }

    fn mirror(&self, args: BlockdevMirrorArgs) -> Result<(), QmpError> {
        self.start_mirror(args)
    }

    fn delete_snapshot(&self, args: SnapshotDeleteInternalArgs) -> Result<SnapshotInfo, QmpError> {
        self.delete_internal(&args)
    }

    fn transact(&self, actions: Vec<TransactionAction>) -> Result<(), QmpError> {
        self.telling(|| self.transact_all(actions))
    }

    fn jobs(&self) -> Vec<JobInfo> {
        self.query_jobs()
    }

    fn block_jobs(&self) -> Vec<BlockJobInfo> {
        self.query_block_jobs()
    }

    fn change_job(&self, id: &str, change: JobChange, is_block: bool) -> Result<(), QmpError> {
        self.change(id, change, is_block)
    }

    fn add_object(&self, object: ObjectOptions) -> Result<(), QmpError> {
        let option = "object-add";
        let opts = Opts::from_json(option, &object.to_json()).map_err(failed)?;
        let object = objects::object(option, &opts, None);
        let object = object.map_err(chain)?;
        let Object::Throttle(id, limits) = object else {
            return Err(QmpError::generic(
                "only objects of type 'throttle-group' can be added to a machine that is there; give others on the \
                 command line",
            ));
        };
        let throttles = &self.storage.opener.throttles;
        if throttles.find(&id).is_some() {
            let problem = format!("the id '{id}' is used twice; every id must be unique");
            return Err(QmpError::generic(problem));
        }
        let group = throttles.group(&id, &self.storage.clock);
        group.set_limits(limits);
        throttles.own(group);
        Ok(())
    }

    fn delete_object(&self, id: &str) -> Result<(), QmpError> {
        match self.storage.opener.throttles.disown(id) {
            Some(true) => Ok(()),
            Some(false) => Err(QmpError::generic(format!(
                "object '{id}' is in use, can not be deleted"
            ))),
            None => Err(QmpError::generic(format!("object '{id}' not found"))),
        }
    }
}
