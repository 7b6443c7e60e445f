//! What a driver of the block graph is: the behaviour of one node, and the table entry that makes it.
//!
//! Drivers are plain code that waits: they run on worker threads, several requests at a time. What a
//! driver stores in another node it reaches through a [`Child`].

use control_options::{Opts, PropDef, Props};
use hw_memory::IoVector;

use crate::edge::Child;
use crate::error::OpenError;
use crate::node::{Node, NodeOptions};
use crate::open::Opening;
use crate::request::BlockError;

/// What lies at an offset of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Bytes for which this holds; at least one.
    pub len: u64,
    /// Whether this node says what is there; if not, its backing node does.
    pub is_allocated: bool,
    /// Whether it reads as zeros.
    pub is_zero: bool,
    /// Whether it is stored compressed.
    pub is_compressed: bool,
    /// Where in the node below it is stored as it is.
    pub stored_at: Option<u64>,
}

impl Extent {
    /// Data, stored by the node itself or at an offset below.
    pub fn data(len: u64, stored_at: Option<u64>) -> Self {
        Extent {
            len,
            is_allocated: true,
            is_zero: false,
            is_compressed: false,
            stored_at,
        }
    }

    /// Zeros.
    pub fn zero(len: u64) -> Self {
        Extent {
            is_zero: true,
            ..Extent::data(len, None)
        }
    }

    /// What the backing node has there.
    pub fn backing(len: u64) -> Self {
        Extent {
            is_allocated: false,
            ..Extent::data(len, None)
        }
    }
}

/// How space is set aside when an image grows (`preallocation=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preallocation {
    /// Not at all.
    #[default]
    Off,
    /// Only the format's own tables.
    Metadata,
    /// As the host's file system does it.
    Falloc,
    /// By writing zeros.
    Full,
}

impl Preallocation {
    /// QEMU's words, in the order of the variants.
    pub const NAMES: &[&str] = &["off", "metadata", "falloc", "full"];

    /// The mode of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Preallocation::Off,
            "metadata" => Preallocation::Metadata,
            "falloc" => Preallocation::Falloc,
            "full" => Preallocation::Full,
            _ => return None,
        })
    }
}

/// A read or write that a driver may carry out while nobody waits.
pub struct Transfer {
    /// From `memory` to the node.
    pub is_write: bool,
    /// Where in the node; the range is within it.
    pub offset: u64,
    /// The bytes.
    pub memory: IoVector,
    /// Called once, with whether all bytes were moved; if not, the request is made in the other way, which
    /// also finds out why.
    pub done: Box<dyn FnOnce(bool) + Send>,
}

/// The behaviour of a node. All methods may be called by several threads at a time, and may wait.
///
/// Ranges are within [`len`](Self::len), but for writes to a protocol: those grow the file.
pub trait Driver: Send + Sync {
    /// Bytes.
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `memory` from `offset` on.
    fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError>;

    /// The same if it takes no waiting for a disk or another thread. False: nothing is known of what
    /// `memory` holds.
    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        let _ = (offset, memory);
        false
    }

    /// Stores `memory` from `offset` on.
    fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError>;

    /// Whether it may [`start`](Self::start) a request.
    fn can_start(&self) -> bool {
        false
    }

    /// Begins a request without waiting for it. Given back: not such a one.
    fn start(&self, transfer: Transfer) -> Option<Transfer> {
        Some(transfer)
    }

    /// Stores zeros. With `unmap` the space may be given back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError>;

    /// The contents are not needed any more; a hint.
    fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError>;

    /// All writes that have returned reach stable storage.
    fn flush(&self) -> Result<(), BlockError>;

    /// What lies at `offset`; the answer holds for at most `len` bytes.
    fn extent(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        let _ = offset;
        Ok(Extent::data(len, None))
    }

    /// Changes the size. What is gained reads as zeros.
    fn resize(&self, len: u64, preallocation: Preallocation) -> Result<(), BlockError> {
        let _ = (len, preallocation);
        Err(BlockError::Unsupported)
    }

    /// Stores one cluster compressed, for `convert -c`. `memory` is a cluster, or the rest of the
    /// image.
    fn write_compressed(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let _ = (offset, memory);
        Err(BlockError::Unsupported)
    }

    /// Stores one cluster of `len` bytes that its format has compressed already.
    fn write_packed(&self, offset: u64, len: u64, packed: &[u8]) -> Result<(), BlockError> {
        let _ = (offset, len, packed);
        Err(BlockError::Unsupported)
    }

    /// The nodes it stores things in.
    fn children(&self) -> Vec<Child> {
        Vec::new()
    }

    /// Another backing node, or none, from now on. Nothing is under way.
    fn set_backing(&self, backing: Option<Child>) -> Result<(), BlockError> {
        let _ = backing;
        Err(BlockError::Unsupported)
    }

    /// Names another backing file and its format in the image, or none.
    fn name_backing(&self, backing: Option<(&str, &str)>) -> Result<(), BlockError> {
        let _ = backing;
        Err(BlockError::Unsupported)
    }

    /// Forgets all that it holds: the backing node shows. Nothing is under way.
    fn empty(&self) -> Result<(), BlockError> {
        Err(BlockError::Unsupported)
    }

    /// Whether it is written to changes. What the driver stores its data in can be written already,
    /// or still. Nothing is under way.
    fn set_read_only(&self, read_only: bool) -> Result<(), OpenError> {
        let _ = read_only;
        Ok(())
    }

    /// Other values of the properties that its class lets change; all are given. Nothing is under way.
    ///
    /// # Errors
    /// That they make no sense; then all is as it was.
    fn set_props(&self, props: &Props) -> Result<(), OpenError> {
        let _ = props;
        Ok(())
    }

    /// Whether it can store its data in this node instead, where its own is already. All is written out
    /// to the old one. Nothing is under way.
    ///
    /// # Errors
    /// That it is another image.
    fn check_file(&self, file: &Node) -> Result<(), OpenError> {
        let _ = file;
        Ok(())
    }

    /// Whether requests go past the host's page cache. Nothing is under way.
    ///
    /// # Errors
    /// The host's.
    fn set_direct(&self, direct: bool) -> Result<(), OpenError> {
        let _ = direct;
        Ok(())
    }

    /// The node's options are others.
    fn options_changed(&self, options: &NodeOptions) {
        let _ = options;
    }

    /// Whether requests that the driver holds back are let through, because somebody waits for all.
    fn hurry(&self, on: bool) {
        let _ = on;
    }

    /// Bytes used on the host, if that can be told.
    fn allocated_len(&self) -> Option<u64> {
        let file = self
            .children()
            .into_iter()
            .find(|child| child.role() == "file")?;
        file.node().driver().allocated_len()
    }

    /// What `info` shows of the format: name and value, in order.
    fn details(&self) -> Vec<(&'static str, Detail)> {
        Vec::new()
    }

    /// The driver itself, for callers that know the format.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A fact about an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Detail {
    /// A switch.
    Bool(bool),
    /// A number.
    Number(u64),
    /// Text.
    Text(String),
}

/// Where a driver stands in the graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverKind {
    /// Reaches something outside of the graph.
    Protocol,
    /// Gives a file's bytes a meaning.
    Format,
    /// Passes requests on, changed.
    Filter,
}

/// A node that a driver may be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildDef {
    /// Its role.
    pub role: &'static str,
    /// Whether there is no node without it.
    pub required: bool,
    /// Whether it can be said that there is none (`backing=null`).
    pub refusable: bool,
}

impl ChildDef {
    /// One that must be given.
    pub const fn required(role: &'static str) -> Self {
        ChildDef {
            role,
            required: true,
            refusable: false,
        }
    }

    /// One that the image may name.
    pub const fn optional(role: &'static str) -> Self {
        ChildDef {
            required: false,
            ..Self::required(role)
        }
    }

    /// One that the image may name, and that there need not be.
    pub const fn refusable(role: &'static str) -> Self {
        ChildDef {
            refusable: true,
            ..Self::optional(role)
        }
    }
}

/// One definition of a driver, from which options, help and introspection come.
pub struct DriverClass {
    /// QEMU's name.
    pub name: &'static str,
    /// One line for help.
    pub doc: &'static str,
    /// Where it stands.
    pub kind: DriverKind,
    /// Properties beside those of all nodes. Children are no properties.
    pub props: &'static [PropDef],
    /// Nodes that it may be given.
    pub children: &'static [ChildDef],
    /// Properties and children that are changed while a node is open (`blockdev-reopen`).
    pub changes: &'static [&'static str],
    /// Whether these first bytes of a file are of this format.
    pub probe: Option<fn(&[u8]) -> bool>,
    /// Opens a node.
    pub open: fn(&mut Opening<'_>) -> Result<Box<dyn Driver>, OpenError>,
    /// Makes a new image, if that can be done.
    pub create: Option<&'static CreateClass>,
}

/// How images of a format are made (`-f FORMAT -o ...`).
pub struct CreateClass {
    /// Options.
    pub props: &'static [PropDef],
    /// Makes an image of `len` bytes in the file of this node.
    pub create: fn(&Child, u64, &Opts) -> Result<(), OpenError>,
}
