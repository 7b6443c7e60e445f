//! The block graph: nodes with names, edges with permissions.
//!
//! An edge says what its parent does to the node below and what it lets others do to it; an edge that
//! contradicts another one is refused. Edges can be moved to another node while nothing is under way,
//! which is what snapshots and jobs do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use hw_memory::IoVector;

use crate::driver::{Driver, DriverClass, Extent, Preallocation};
use crate::open::OpenError;
use crate::request::BlockError;

/// Things done to a node, as QEMU names them.
pub mod perm {
    /// Reads that must make sense.
    pub const CONSISTENT_READ: u8 = 1;
    /// Writes.
    pub const WRITE: u8 = 2;
    /// Writes that change nothing that can be seen.
    pub const WRITE_UNCHANGED: u8 = 4;
    /// Changes of the size.
    pub const RESIZE: u8 = 8;
    /// All of them.
    pub const ALL: u8 = 15;

    /// The words for users.
    pub const NAMES: &[(u8, &str)] = &[
        (CONSISTENT_READ, "consistent read"),
        (WRITE, "write"),
        (WRITE_UNCHANGED, "write unchanged"),
        (RESIZE, "resize"),
    ];
}

/// What is done with runs of zeros that a guest writes (`detect-zeroes`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DetectZeroes {
    /// They are written.
    #[default]
    Off,
    /// They are written as zeros.
    On,
    /// Their space is given back.
    Unmap,
}

/// What all nodes have beside their driver.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeOptions {
    /// Writes are refused.
    pub read_only: bool,
    /// Discards reach the driver (`discard=unmap`).
    pub discard: bool,
    /// `detect-zeroes`
    pub detect_zeroes: DetectZeroes,
    /// Past the host's page cache (`cache.direct`).
    pub direct: bool,
    /// Flushes are not waited for (`cache.no-flush`).
    pub no_flush: bool,
    /// Others may do to the file what they like (`force-share`).
    pub force_share: bool,
    /// Refuses writes instead of failing to open (`auto-read-only`).
    pub auto_read_only: bool,
}

/// A node of the graph.
pub struct Node {
    name: String,
    file: String,
    class: &'static DriverClass,
    options: NodeOptions,
    driver: Box<dyn Driver>,
    parents: Mutex<Vec<Weak<Edge>>>,
}

impl Node {
    /// A node of its own, in no graph.
    pub fn new(
        name: impl Into<String>,
        file: impl Into<String>,
        class: &'static DriverClass,
        options: NodeOptions,
        driver: Box<dyn Driver>,
    ) -> Arc<Self> {
        Arc::new(Node {
            name: name.into(),
            file: file.into(),
            class,
            options,
            driver,
            parents: Mutex::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file name that users know it by.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The driver's table entry.
    pub fn class(&self) -> &'static DriverClass {
        self.class
    }

    /// Its options.
    pub fn options(&self) -> &NodeOptions {
        &self.options
    }

    /// The driver.
    pub fn driver(&self) -> &dyn Driver {
        self.driver.as_ref()
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.driver.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node below in this role.
    pub fn child(&self, role: &str) -> Option<Arc<Node>> {
        let children = self.driver.children();
        let child = children.into_iter().find(|child| child.role() == role)?;
        Some(child.node())
    }

    fn parents(&self) -> MutexGuard<'_, Vec<Weak<Edge>>> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who uses it.
    pub fn users(&self) -> Vec<String> {
        let parents = self.parents();
        let edges = parents.iter().filter_map(Weak::upgrade);
        edges.map(|edge| edge.parent.clone()).collect()
    }

    fn writable(&self) -> Result<(), BlockError> {
        match self.options.read_only {
            true => Err(BlockError::ReadOnly),
            false => Ok(()),
        }
    }

    /// Fills `memory` from `offset` on.
    pub fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        if memory.is_empty() {
            return Ok(());
        }
        self.driver.read(offset, memory)
    }

    /// Stores `memory` from `offset` on.
    pub fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.writable()?;
        if memory.is_empty() {
            return Ok(());
        }
        if self.options.detect_zeroes != DetectZeroes::Off && memory.is_zero() {
            let unmap = self.options.detect_zeroes == DetectZeroes::Unmap;
            return self.write_zeroes(offset, memory.len(), unmap);
        }
        self.driver.write(offset, memory)
    }

    /// Stores one cluster compressed.
    pub fn write_compressed(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.writable()?;
        self.driver.write_compressed(offset, memory)
    }

    /// Stores zeros.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        self.writable()?;
        if len == 0 {
            return Ok(());
        }
        self.driver
            .write_zeroes(offset, len, unmap && self.options.discard)
    }

    /// Gives space back, if the node's options let it.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        self.writable()?;
        if len == 0 || !self.options.discard {
            return Ok(());
        }
        self.driver.discard(offset, len)
    }

    /// All writes that have returned reach stable storage.
    pub fn flush(&self) -> Result<(), BlockError> {
        if self.options.read_only {
            return Ok(());
        }
        self.driver.flush()
    }

    /// What lies at `offset`.
    pub fn extent(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        self.driver.extent(offset, len)
    }

    /// Changes the size.
    pub fn resize(&self, len: u64, preallocation: Preallocation) -> Result<(), BlockError> {
        self.writable()?;
        self.driver.resize(len, preallocation)
    }
}

/// An edge of the graph, as its parent holds it.
struct Edge {
    role: &'static str,
    parent: String,
    used: u8,
    shared: u8,
    node: RwLock<Arc<Node>>,
}

/// A node as its parent holds it. Clones are the same edge.
#[derive(Clone)]
pub struct Child(Arc<Edge>);

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.0.role, self.0.parent)
    }
}

impl Child {
    /// An edge from `parent` to `node`, if no other edge forbids it.
    pub fn attach(
        node: Arc<Node>,
        parent: impl Into<String>,
        role: &'static str,
        used: u8,
        shared: u8,
    ) -> Result<Self, OpenError> {
        let edge = Arc::new(Edge {
            role,
            parent: parent.into(),
            used,
            shared,
            node: RwLock::new(node.clone()),
        });
        let mut parents = node.parents();
        parents.retain(|edge| edge.strong_count() != 0);
        for other in parents.iter().filter_map(Weak::upgrade) {
            let conflict = (used & !other.shared) | (other.used & !shared);
            let names = perm::NAMES.iter().find(|(bit, _)| conflict & bit != 0);
            if let Some((_, what)) = names {
                return Err(OpenError::InUse {
                    node: node.name.clone(),
                    user: other.parent.clone(),
                    what,
                });
            }
        }
        parents.push(Arc::downgrade(&edge));
        drop(parents);
        Ok(Child(edge))
    }

    /// The node.
    pub fn node(&self) -> Arc<Node> {
        self.0
            .node
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the node is to its parent: `file`, `backing`, ...
    pub fn role(&self) -> &'static str {
        self.0.role
    }
}

/// All nodes by name.
#[derive(Default)]
pub struct Graph {
    nodes: Mutex<BTreeMap<String, Weak<Node>>>,
    /// Nodes that the user made: they live until the user deletes them.
    owned: Mutex<BTreeMap<String, Arc<Node>>>,
    next: AtomicU64,
}

impl Graph {
    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Node>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for a node that was given none.
    pub fn unnamed(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("#block{number:03}")
    }

    /// The node of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Node>> {
        self.names().get(name)?.upgrade()
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.names().values().filter_map(Weak::upgrade).collect()
    }

    /// Makes a node known. Refuses a name that is taken.
    pub fn add(&self, node: &Arc<Node>) -> Result<(), OpenError> {
        let mut names = self.names();
        names.retain(|_, node| node.strong_count() != 0);
        if names.contains_key(&node.name) {
            return Err(OpenError::NameTaken(node.name.clone()));
        }
        names.insert(node.name.clone(), Arc::downgrade(node));
        Ok(())
    }

    /// Keeps a node until [`delete`](Self::delete).
    pub fn keep(&self, node: Arc<Node>) {
        self.owned().insert(node.name.clone(), node);
    }

    /// Lets go of a node that the user made. Refuses one that is in use.
    pub fn delete(&self, name: &str) -> Result<(), OpenError> {
        let mut owned = self.owned();
        let Some(node) = owned.get(name) else {
            return Err(match self.find(name) {
                Some(_) => OpenError::NotOwned(name.to_owned()),
                None => OpenError::no_node(name, self),
            });
        };
        if let Some(user) = node.users().into_iter().next() {
            return Err(OpenError::InUse {
                node: name.to_owned(),
                user,
                what: "delete",
            });
        }
        owned.remove(name);
        Ok(())
    }
}
