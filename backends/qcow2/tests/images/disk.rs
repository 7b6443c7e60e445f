//! A host disk in memory that remembers all writes and fails when told to.

use std::sync::{Arc, Mutex, MutexGuard};

use backend_block::{
    BlockError, Child, Driver, DriverClass, DriverKind, Extent, IoVector, Node, NodeOptions,
    OpenError, Opener, Preallocation, perm,
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

/// The disk's contents and history.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) bytes: Vec<u8>,
    pub(crate) log: Option<Vec<Done>>,
    /// Operations so far.
    pub(crate) count: u64,
    /// The operation that fails, and those after it that do too.
    pub(crate) fail: Option<(u64, u64, BlockError)>,
    pub(crate) bytes_read: u64,
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

    fn step(&self, done: impl FnOnce() -> Done) -> Result<MutexGuard<'_, State>, BlockError> {
        let mut state = self.state();
        let now = state.count;
        state.count += 1;
        if let Some((first, many, error)) = state.fail
            && (first..first.saturating_add(many)).contains(&now)
        {
            return Err(error);
        }
        if let Some(log) = &mut state.log {
            log.push(done());
        }
        Ok(state)
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
        let len = len.min((state.bytes.len() as u64).saturating_sub(offset));
        if len != 0 {
            let done = Done::Zero(offset, len);
            apply(&mut state.bytes, &done);
            if let Some(log) = &mut state.log {
                log.push(done);
            }
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
        let opener = Opener::new(DRIVERS);
        let read_only = more.contains("read-only=on");
        let mut below = vec![node(disk, "file", read_only)];
        let mut text = format!("driver=qcow2,discard=unmap,file=file{more}");
        if let Some(backing) = backing {
            below.push(node(backing, "base", true));
            text += ",backing=base";
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
