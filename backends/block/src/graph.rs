//! The block graph: nodes with names, edges with permissions.
//!
//! An edge says what its parent does to the node below and what it lets others do to it; an edge that
//! contradicts another one is refused. Edges can be moved to another node while nothing is under way,
//! which is what snapshots and jobs do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::edge::{Child, check_edge, perm};
use crate::error::OpenError;
use crate::node::Node;
use crate::workers::{Paused, Workers};

/// How the names of nodes begin that were given none.
const UNNAMED: &str = "#block";

/// Whether this is the name of a node that was given none.
pub(crate) fn is_unnamed(name: &str) -> bool {
    name.starts_with(UNNAMED)
}

/// All nodes by name.
#[derive(Default)]
pub struct Graph {
    nodes: Mutex<BTreeMap<String, Weak<Node>>>,
    /// Nodes that the user made: they live until the user deletes them.
    owned: Mutex<BTreeMap<String, Arc<Node>>>,
    next: AtomicU64,
    /// Held by whoever changes edges.
    turn: Mutex<()>,
    /// Requests of all disks.
    users: Mutex<Vec<Weak<Workers>>>,
    /// Nodes that a job works on, and which.
    claims: Mutex<Vec<(String, String)>>,
}

/// Nobody else changes the graph, and no disk's request is under way, while this lives.
pub struct Still<'a> {
    _turn: MutexGuard<'a, ()>,
    _paused: Vec<Paused>,
}

/// Nodes that a job works on: nobody else may change their place in the graph.
pub struct Claim {
    graph: Arc<Graph>,
    nodes: Vec<String>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.graph.claims();
        claims.retain(|(node, _)| !self.nodes.contains(node));
    }
}

impl Graph {
    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Node>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the requests of a disk wait while the graph is changed.
    pub(crate) fn join(&self, workers: &Arc<Workers>) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|user| user.strong_count() != 0);
        users.push(Arc::downgrade(workers));
    }

    /// Waits until no request of any disk is under way, and lets none begin.
    pub fn still(&self) -> Still<'_> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let users: Vec<_> = users.iter().filter_map(Weak::upgrade).collect();
        let nodes = self.nodes();
        nodes.iter().for_each(|node| node.driver().hurry(true));
        let paused = users.iter().map(|workers| workers.pause()).collect();
        nodes.iter().for_each(|node| node.driver().hurry(false));
        Still {
            _turn: turn,
            _paused: paused,
        }
    }

    /// Keeps others from what `what` does with these nodes.
    ///
    /// # Errors
    /// When a job has one of them already.
    pub fn claim(self: &Arc<Self>, nodes: &[Arc<Node>], what: &str) -> Result<Claim, OpenError> {
        nodes.iter().try_for_each(|node| self.check_free(node))?;
        let nodes: Vec<String> = nodes.iter().map(|node| node.name().to_owned()).collect();
        let claimed = nodes.iter().map(|node| (node.clone(), what.to_owned()));
        self.claims().extend(claimed);
        Ok(Claim {
            graph: self.clone(),
            nodes,
        })
    }

    /// Refuses a node that a job works on.
    ///
    /// # Errors
    /// Which one.
    pub fn check_free(&self, node: &Node) -> Result<(), OpenError> {
        match self.claims().iter().find(|(name, _)| name == node.name()) {
            None => Ok(()),
            Some((name, what)) => Err(OpenError::Busy {
                node: name.clone(),
                what: what.clone(),
            }),
        }
    }

    /// Whether an edge to a backing node is that of an image which nobody uses: what others do below
    /// it does not matter.
    fn is_idle(&self, edge: &Child) -> bool {
        edge.role() == "backing"
            && self.find(edge.parent()).is_none_or(|node| {
                let users = node.edges();
                users.iter().all(|user| self.is_idle(user))
            })
    }

    /// Has the users of `old` use `new`, but for those that are below `new` themselves.
    ///
    /// # Errors
    /// When an edge forbids it; then nothing was changed.
    pub fn replace(
        &self,
        _: &Still<'_>,
        old: &Arc<Node>,
        new: &Arc<Node>,
    ) -> Result<(), OpenError> {
        let below = new.subtree();
        let mut moved = old.edges();
        moved.retain(|edge| {
            edge.role() == "root" || !below.iter().any(|node| node.name() == edge.parent())
        });
        let mut others = new.edges();
        others.retain(|other| !self.is_idle(other));
        for edge in &moved {
            let used = edge.used(&[]);
            check_edge(new, &others, (used, edge.shared(&[])), &moved)?;
            if used & perm::WRITE != 0 {
                new.let_write()?;
            }
            if used & perm::WRITE != 0 && new.options().read_only {
                return Err(OpenError::Other(format!(
                    "node '{}' is read-only, and '{}' writes",
                    new.name(),
                    edge.parent()
                )));
            }
        }
        moved.iter().for_each(|edge| edge.move_to(new));
        Ok(())
    }

    /// A name for a node that was given none.
    pub fn unnamed(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{UNNAMED}{number:03}")
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
        if names.contains_key(node.name()) {
            return Err(OpenError::NameTaken(node.name().to_owned()));
        }
        names.insert(node.name().to_owned(), Arc::downgrade(node));
        Ok(())
    }

    /// Keeps a node until [`delete`](Self::delete).
    pub fn keep(&self, node: Arc<Node>) {
        self.owned().insert(node.name().to_owned(), node);
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
        self.check_free(node)?;
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
