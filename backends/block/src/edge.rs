//! An edge of the block graph: what a parent does to the node below, and what it lets others do.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use crate::driver::DriverKind;
use crate::error::OpenError;
use crate::node::Node;

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

/// An edge of the graph, as its parent holds it.
pub(crate) struct Edge {
    role: &'static str,
    parent: String,
    used: AtomicU8,
    shared: u8,
    /// The filter that holds it: what its users do and share counts, and nothing else.
    filter: OnceLock<Weak<Node>>,
    node: RwLock<Arc<Node>>,
}

/// A node as its parent holds it. Clones are the same edge.
#[derive(Clone)]
pub struct Child(pub(crate) Arc<Edge>);

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.0.role, self.0.parent)
    }
}

/// Whether an edge that does and shares this goes with the others at a node, and if that is a filter with those
/// below it. Edges that are `gone` then are not counted.
pub(crate) fn check_edge(
    node: &Node,
    others: &[Child],
    (used, shared): (u8, u8),
    gone: &[Child],
) -> Result<(), OpenError> {
    for other in others.iter().filter(|other| !other.is_among(gone)) {
        let conflict = (used & !other.shared(gone)) | (other.used(gone) & !shared);
        let names = perm::NAMES.iter().find(|(bit, _)| conflict & bit != 0);
        if let Some((_, what)) = names {
            return Err(OpenError::InUse {
                node: node.name().to_owned(),
                user: other.parent().to_owned(),
                what,
            });
        }
    }
    if node.class().kind != DriverKind::Filter {
        return Ok(());
    }
    node.driver().children().iter().try_for_each(|child| {
        let below = child.node();
        let mut others = below.edges();
        others.retain(|other| !Arc::ptr_eq(&other.0, &child.0));
        check_edge(&below, &others, (used, shared), gone)
    })
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
            used: AtomicU8::new(used),
            shared,
            filter: OnceLock::new(),
            node: RwLock::new(node.clone()),
        });
        let mut parents = node.parents();
        parents.retain(|edge| edge.strong_count() != 0);
        let others: Vec<Child> = parents
            .iter()
            .filter_map(Weak::upgrade)
            .map(Child)
            .collect();
        check_edge(&node, &others, (used, shared), &[])?;
        parents.push(Arc::downgrade(&edge));
        drop(parents);
        if used & perm::WRITE != 0 {
            node.let_write()?;
        }
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

    /// Something about the node that takes no waiting to say.
    pub fn ask<R>(&self, question: impl FnOnce(&Node) -> R) -> R {
        question(&self.0.node.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the node is to its parent: `file`, `backing`, ...
    pub fn role(&self) -> &'static str {
        self.0.role
    }

    /// Who holds it: a node, or with the role `root` a disk.
    pub fn parent(&self) -> &str {
        &self.0.parent
    }

    /// It is this filter's.
    pub(crate) fn belongs_to_filter(&self, filter: &Arc<Node>) {
        let _ = self.0.filter.set(Arc::downgrade(filter));
    }

    pub(crate) fn is_among(&self, edges: &[Child]) -> bool {
        edges.iter().any(|edge| Arc::ptr_eq(&edge.0, &self.0))
    }

    /// The users of the filter that holds it, but for those that are gone; nothing if it is no filter's.
    fn filter_users(&self, gone: &[Child]) -> Option<Vec<Child>> {
        let filter = self.0.filter.get()?;
        let mut users = filter.upgrade().map(|f| f.edges()).unwrap_or_default();
        users.retain(|user| !user.is_among(gone));
        Some(users)
    }

    /// What is done through it.
    pub(crate) fn used(&self, gone: &[Child]) -> u8 {
        match self.filter_users(gone) {
            Some(users) => users.iter().fold(0, |all, user| all | user.used(gone)),
            None => self.0.used.load(Ordering::Acquire),
        }
    }

    /// What others may do.
    pub(crate) fn shared(&self, gone: &[Child]) -> u8 {
        match self.filter_users(gone) {
            Some(users) => (users.iter()).fold(perm::ALL, |all, user| all & user.shared(gone)),
            None => self.0.shared,
        }
    }

    pub(crate) fn add_used(&self, more: u8) -> Result<(), OpenError> {
        let node = self.node();
        let mut others = node.edges();
        others.retain(|other| !Arc::ptr_eq(&other.0, &self.0));
        if self.0.filter.get().is_some() {
            return Ok(());
        }
        let used = self.0.used.load(Ordering::Acquire) | more;
        check_edge(&node, &others, (used, self.0.shared), &[])?;
        self.0.used.store(used, Ordering::Release);
        Ok(())
    }

    pub(crate) fn drop_used(&self, less: u8) {
        self.0.used.fetch_and(!less, Ordering::AcqRel);
    }

    /// Does nothing to the node any more, and lets others do what they like.
    pub(crate) fn let_go(&self) {
        self.0.used.store(0, Ordering::Release);
        let is_own = |edge: &Weak<Edge>| edge.as_ptr() == Arc::as_ptr(&self.0);
        self.node().parents().retain(|edge| !is_own(edge));
    }

    /// Another node from now on. Nothing is under way through the edge.
    pub(crate) fn move_to(&self, node: &Arc<Node>) {
        let mut slot = self.0.node.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *slot, node.clone());
        drop(slot);
        let is_own = |edge: &Weak<Edge>| edge.as_ptr() == Arc::as_ptr(&self.0);
        old.parents().retain(|edge| !is_own(edge));
        node.parents().push(Arc::downgrade(&self.0));
    }
}
