//! A host disk in memory that remembers all writes and fails when told to.

use std::sync::{Arc, Mutex, MutexGuard};

use backend_block::{
    BlockError, Child, Driver, DriverClass, DriverKind, Extent, IoVector, Node, NodeOptions,
    OpenError, Opener, Preallocation, Transfer, perm,
};
use control_options::Opts;

/// What was done to the disk.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    Resize(u64),
    Flush,
}

/// Which operations fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) error: BlockError,
    /// The first one, counted from when the disk was made.
    pub(crate) first: u64,
    /// Then every so many; 0: no more.
    pub(crate) every: u64,
    /// How many in a row.
    pub(crate) many: u64,
    /// Whether what failed was done all the same.
    pub(crate) lands: bool,
}

impl Fault {
    fn hits(&self, now: u64) -> bool {
        let Some(since) = now.checked_sub(self.first) else {
            return false;
        };
        // `checked_rem`: only the first ones if there is no period.
        since.checked_rem(self.every).unwrap_or(since) < self.many
    }
}

/// What was done to several disks, in order; which disk it was comes first.
pub(crate) type History = Arc<Mutex<Vec<(usize, Done)>>>;

/// The disk's contents and history.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) bytes: Vec<u8>,
    /// Where its history is kept, and its number there.
    pub(crate) log: Option<(History, usize)>,
    /// Operations so far.
    pub(crate) count: u64,
    pub(crate) fail: Option<Fault>,
    /// Operations that failed so far.
    pub(crate) failed: u64,
    pub(crate) bytes_read: u64,
    /// Transfers that nobody waits for, if it takes such ones, until [`Disk::land`].
    pub(crate) flying: Option<Vec<Transfer>>,
}

/// A disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let disk = Disk::default();
        disk.state().bytes = bytes;
        disk
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed has to be able to close its images.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes all transfers that were begun. Returns where they were.
    pub(crate) fn land(&self) -> Vec<(bool, u64)> {
        let flying = std::mem::take(self.state().flying.as_mut().unwrap());
        let land = |transfer: Transfer| {
            let (is_write, offset) = (transfer.is_write, transfer.offset);
            let result = match is_write {
                true => Driver::write(self, offset, &transfer.memory),
                false => Driver::read(self, offset, &transfer.memory),
            };
            (transfer.done)(result.is_ok());
            (is_write, offset)
        };
        flying.into_iter().map(land).collect()
    }

    fn step(&self, done: impl Fn() -> Done) -> Result<MutexGuard<'_, State>, BlockError> {
        let mut state = self.state();
        if let Err(error) = state.count() {
            if state.fail.is_some_and(|fault| fault.lands) {
                apply(&mut state.bytes, &done());
            }
            return Err(error);
        }
        state.note(done);
        Ok(state)
    }
}

impl State {
    /// One more operation, which may be one that fails.
    fn count(&mut self) -> Result<(), BlockError> {
        let now = self.count;
        self.count += 1;
        let fault = self.fail.filter(|fault| fault.hits(now));
        self.failed += u64::from(fault.is_some());
        fault.map_or(Ok(()), |fault| Err(fault.error))
    }

    fn note(&self, done: impl FnOnce() -> Done) {
        if let Some((history, number)) = &self.log {
            history.lock().unwrap().push((*number, done()));
        }
    }
}

pub(crate) fn apply(bytes: &mut Vec<u8>, done: &Done) {
    let mut reach = |end: u64| {
        if (bytes.len() as u64) < end {
            bytes.resize(end as usize, 0);
        }
    };
    match done {
        Done::Write(offset, data) => {
            reach(offset + data.len() as u64);
            bytes[*offset as usize..][..data.len()].copy_from_slice(data);
        }
        Done::Zero(offset, len) => {
            reach(offset + len);
            bytes[*offset as usize..][..*len as usize].fill(0);
        }
        Done::Resize(len) => bytes.resize(*len as usize, 0),
        Done::Flush => {}
    }
}

impl Driver for Disk {
    fn len(&self) -> u64 {
        self.state().bytes.len() as u64
    }

    fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let mut state = self.state();
        // A full disk can be read.
        if matches!(state.fail, Some(fault) if fault.error == BlockError::Io) {
            state.count()?;
        }
        state.bytes_read += memory.len();
        let mut data = vec![0; memory.len() as usize];
        let from = (offset.min(state.bytes.len() as u64)) as usize;
        let have = (state.bytes.len() - from).min(data.len());
        data[..have].copy_from_slice(&state.bytes[from..][..have]);
        memory.copy_in(0, &data).unwrap();
        Ok(())
    }

    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        self.read(offset, memory).is_ok()
    }

    fn can_start(&self) -> bool {
        self.state().flying.is_some()
    }

    fn start(&self, transfer: Transfer) -> Option<Transfer> {
        match &mut self.state().flying {
            Some(flying) => flying.push(transfer),
            None => return Some(transfer),
        }
        None
    }

    fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let done = Done::Write(offset, memory.to_vec());
        let mut state = self.step(|| done.clone())?;
        if offset + memory.len() > 1 << 28 {
            return Err(BlockError::NoSpace);
        }
        apply(&mut state.bytes, &done);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, _: bool) -> Result<(), BlockError> {
        let done = Done::Zero(offset, len);
        let mut state = self.step(|| done.clone())?;
        if offset + len > 1 << 28 {
            return Err(BlockError::NoSpace);
        }
        apply(&mut state.bytes, &done);
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let mut state = self.state();
        state.count()?;
        let len = len.min((state.bytes.len() as u64).saturating_sub(offset));
        if len != 0 {
            let done = Done::Zero(offset, len);
            apply(&mut state.bytes, &done);
            state.note(|| done);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.step(|| Done::Flush).map(|_| ())
    }

    fn extent(&self, _: u64, len: u64) -> Result<Extent, BlockError> {
        Ok(Extent::data(len, None))
    }

    fn resize(&self, len: u64, _: Preallocation) -> Result<(), BlockError> {
        let mut state = self.step(|| Done::Resize(len))?;
        if len > 1 << 28 {
            return Err(BlockError::NoSpace);
        }
        apply(&mut state.bytes, &Done::Resize(len));
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

static CLASS: DriverClass = DriverClass {
    name: "disk",
    doc: "a disk of the tests",
    kind: DriverKind::Protocol,
    props: &[],
    children: &[],
    changes: &[],
    probe: None,
    open: |_| Err(OpenError::Other("made by the tests".into())),
    create: None,
};

pub(crate) static DRIVERS: &[&DriverClass] = &[
    &backend_qcow2::CLASS,
    &backend_block::RAW,
    &backend_file::FILE,
];

pub(crate) fn opts(text: &str) -> Opts {
    Opts::parse("-o", text, None).unwrap()
}

fn node(disk: &Disk, name: &str, read_only: bool) -> Arc<Node> {
    let options = NodeOptions {
        read_only,
        discard: true,
        ..NodeOptions::default()
    };
    Node::new(name, name, &CLASS, options, Box::new(disk.clone()))
}

/// Makes an image on a disk.
pub(crate) fn create(disk: &Disk, len: u64, options: &str) {
    let child = Child::attach(
        node(disk, "file", false),
        "test",
        "file",
        perm::ALL,
        perm::ALL,
    );
    let create = backend_qcow2::CLASS.create.unwrap();
    (create.create)(&child.unwrap(), len, &opts(options)).unwrap();
}

/// An open image. `backing` is the name under which a disk of another image is known.
pub(crate) struct Image {
    pub(crate) node: Arc<Node>,
    _below: Vec<Arc<Node>>,
}

impl Image {
    pub(crate) fn open(disk: &Disk, more: &str) -> Result<Self, OpenError> {
        Self::open_over(disk, None, more)
    }

    /// With a raw backing disk.
    pub(crate) fn open_over(
        disk: &Disk,
        backing: Option<&Disk>,
        more: &str,
    ) -> Result<Self, OpenError> {
        Self::open_with(disk, backing, None, &format!("driver=qcow2{more}"))
    }

    /// Of the driver that `text` names, with a raw backing disk, and its data on another disk.
    pub(crate) fn open_with(
        disk: &Disk,
        backing: Option<&Disk>,
        data: Option<&Disk>,
        text: &str,
    ) -> Result<Self, OpenError> {
        let opener = Opener::new(DRIVERS);
        let read_only = text.contains("read-only=on");
        let mut below = vec![node(disk, "file", read_only)];
        let mut text = format!("{text},discard=unmap,file=file");
        if let Some(backing) = backing {
            below.push(node(backing, "base", true));
            text += ",backing=base";
        }
        if let Some(data) = data {
            below.push(node(data, "data", read_only));
            text += ",data-file=data";
        }
        for node in &below {
            opener.graph.add(node)?;
        }
        Ok(Image {
            node: opener.open("test", &opts(&text))?,
            _below: below,
        })
    }

    pub(crate) fn qcow2(&self) -> &backend_qcow2::Qcow2 {
        self.node.driver().as_any().downcast_ref().unwrap()
    }

    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, BlockError> {
        let memory = IoVector::zeroed(len as usize);
        memory.fill(0xee);
        self.node.read(offset, &memory)?;
        Ok(memory.to_vec())
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        self.node.write(offset, &IoVector::from(data))
    }

    /// Nothing is wrong with it; leaks only if they are allowed.
    pub(crate) fn assert_whole(&self, leaks: bool) {
        let findings = self.qcow2().check(backend_qcow2::Fix::None).unwrap();
        assert_eq!(findings.corruptions, 0, "{findings:?}");
        assert!(leaks || findings.leaks == 0, "{findings:?}");
    }
}
