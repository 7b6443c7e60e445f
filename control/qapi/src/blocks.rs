//! The disks as monitors see them.

use runtime::FdSets;

use crate::drivers::BlockDrivers;
use crate::error::QmpError;
use crate::types::{
    BlockCommitArgs, BlockDeviceInfo, BlockInfo, BlockJobInfo, BlockResizeArgs, BlockStats,
    BlockStreamArgs, BlockdevCreateArgs, BlockdevMirrorArgs, BlockdevOptions, IoThrottleArgs,
    JobInfo, ObjectOptions, SnapshotDeleteInternalArgs, SnapshotInfo, TransactionAction,
};

/// What is asked of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobChange {
    /// It ends, with nothing changed; a ready one that is not forced with its copy complete.
    Cancel {
        /// At once.
        force: bool,
    },
    /// It waits.
    Pause,
    /// It goes on.
    Resume,
    /// Bytes a second; 0 for no limit.
    SetSpeed(u64),
    /// A ready one ends.
    Complete,
    /// A pending one ends.
    Finalize,
    /// One that has ended is forgotten.
    Dismiss,
}

/// Which drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriveName<'a> {
    /// The drive of this id.
    Drive(&'a str),
    /// The drive of the device with this id or path.
    Device(&'a str),
}

/// What is done to the medium of a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediumChange<'a> {
    /// The tray is opened and the medium taken out.
    Eject {
        /// Even if the guest holds it.
        force: bool,
    },
    /// The tray is opened.
    Open {
        /// Even if the guest holds it.
        force: bool,
    },
    /// The tray is closed.
    Close,
    /// The medium is taken out of the open tray.
    Remove,
    /// This node is put into the open tray.
    Insert(&'a str),
    /// The medium is taken out, and this image is put in its place.
    Replace {
        /// The image.
        file: &'a str,
        /// Its format; found out if not given.
        format: Option<&'a str>,
        /// Even if the guest holds the medium.
        force: bool,
    },
}

/// The disks behind the monitors, and the nodes that they are made of. Called as [`Vm`](crate::Vm) is.
pub trait Blocks: Send + Sync {
    /// Moves the tray of a drive, or changes its medium.
    ///
    /// # Errors
    /// When there is no such drive, its media cannot be changed, or the guest holds this one.
    fn change_medium(&self, drive: DriveName<'_>, change: MediumChange<'_>)
    -> Result<(), QmpError>;

    /// All disks.
    fn disks(&self) -> Vec<BlockInfo>;

    /// What disks, or nodes, did so far.
    fn stats(&self, nodes: bool) -> Vec<BlockStats>;

    /// All nodes; `flat` without what is behind each.
    fn nodes(&self, flat: bool) -> Vec<BlockDeviceInfo>;

    /// What nodes can be, for the schema.
    fn drivers(&self) -> BlockDrivers;

    /// Files that were opened for us.
    fn fds(&self) -> FdSets;

    /// Opens a node.
    ///
    /// # Errors
    /// What is wrong with the properties, or the host's reason.
    fn add_node(&self, options: BlockdevOptions) -> Result<(), QmpError>;

    /// Opens a drive for a device to come: the HMP command `drive_add`.
    ///
    /// # Errors
    /// What is wrong with the options, or the host's reason.
    fn add_drive(&self, options: &str) -> Result<(), QmpError>;

    /// Closes a drive, or a node, that nobody uses: the HMP command `drive_del`.
    ///
    /// # Errors
    /// When there is no such drive, or it is used.
    fn delete_drive(&self, id: &str) -> Result<(), QmpError>;

    /// Closes a node that nobody uses.
    ///
    /// # Errors
    /// When there is no such node, or it is used.
    fn delete_node(&self, name: &str) -> Result<(), QmpError>;

    /// Gives nodes other properties: all of them, or none.
    ///
    /// # Errors
    /// What cannot be changed.
    fn reopen_nodes(&self, options: Vec<BlockdevOptions>) -> Result<(), QmpError>;

    /// Begins a job that makes an image.
    ///
    /// # Errors
    /// What is wrong with the options.
    fn create_image(&self, args: BlockdevCreateArgs) -> Result<(), QmpError>;

    /// Connects the device with this id or path to another node.
    ///
    /// # Errors
    /// When there is no such device or node, or a user of the node forbids it.
    fn set_drive(&self, device: &str, node: &str) -> Result<(), QmpError>;

    /// Changes the size of a disk.
    ///
    /// # Errors
    /// When there is no such disk, or its format cannot.
    fn resize(&self, args: BlockResizeArgs) -> Result<(), QmpError>;

    /// Sets the limits of a disk.
    ///
    /// # Errors
    /// When there is no such disk, or they make no sense.
    fn set_throttle(&self, args: IoThrottleArgs) -> Result<(), QmpError>;

    /// Writes what a disk's overlays hold into their backing files: the HMP command `commit`.
    ///
    /// # Errors
    /// When there is no such disk, or the host fails.
    fn commit_disk(&self, device: &str) -> Result<(), QmpError>;

    /// Begins a commit.
    ///
    /// # Errors
    /// What stands against it.
    fn commit(&self, args: BlockCommitArgs) -> Result<(), QmpError>;

    /// Begins to bring what lies behind a disk into it.
    ///
    /// # Errors
    /// What stands against it.
    fn stream(&self, args: BlockStreamArgs) -> Result<(), QmpError>;

    /// Begins to mirror a disk.
    ///
    /// # Errors
    /// What stands against it.
    fn mirror(&self, args: BlockdevMirrorArgs) -> Result<(), QmpError>;

    /// Makes all these changes of the graph, while no request is under way, or none.
    ///
    /// # Errors
    /// What stands against one of them.
    fn transact(&self, actions: Vec<TransactionAction>) -> Result<(), QmpError>;

    /// Deletes a snapshot that is in the disk's own image.
    ///
    /// # Errors
    /// When there is none, or its format has none.
    fn delete_snapshot(&self, args: SnapshotDeleteInternalArgs) -> Result<SnapshotInfo, QmpError>;

    /// All jobs.
    fn jobs(&self) -> Vec<JobInfo>;

    /// Those that work on disks.
    fn block_jobs(&self) -> Vec<BlockJobInfo>;

    /// Asks something of a job; with `is_block` only of those that work on disks.
    ///
    /// # Errors
    /// When there is no such job, or it cannot in its state.
    fn change_job(&self, id: &str, change: JobChange, is_block: bool) -> Result<(), QmpError>;

    /// Makes an object that disks can use.
    ///
    /// # Errors
    /// What is wrong with its properties, or that its kind is made at the start only.
    fn add_object(&self, object: ObjectOptions) -> Result<(), QmpError>;

    /// Deletes an object that nobody uses.
    ///
    /// # Errors
    /// When there is none, or it is used.
    fn delete_object(&self, id: &str) -> Result<(), QmpError>;
}
