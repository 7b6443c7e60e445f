//! `blockdev-reopen`: a node with other properties, and other nodes behind and below it.

use std::sync::Arc;

use control_options::{Opts, Props};

use crate::copy::set_backing;
use crate::edge::{check_edge, perm};
use crate::error::OpenError;
use crate::graph::Still;
use crate::node::{Node, NodeOptions};
use crate::open::{NODE_PROPS, Opener, node_options, sort};

/// What a node is to be like.
pub struct Reopening {
    node: Arc<Node>,
    options: NodeOptions,
    /// The driver's properties, and those as they were given, with children.
    props: Props,
    opened_with: Opts,
    /// The node behind it, if that is another one.
    backing: Option<Option<Arc<Node>>>,
    /// The node below it, if that is another one.
    file: Option<Arc<Node>>,
}

impl Opener {
    /// What changes if a node is given these properties. All are given: what is not has its default.
    ///
    /// # Errors
    /// That they make no sense, or that one cannot be changed while the node is open.
    pub fn reopening(&self, node: &Arc<Node>, opts: &Opts) -> Result<Reopening, OpenError> {
        let class = node.class();
        let unchangeable = |key: &str| {
            Err(OpenError::Other(format!(
                "'{key}' of node '{}' cannot be changed while it is open; give it as it is",
                node.name()
            )))
        };
        if opts.text("driver") != Some(class.name) {
            return unchangeable("driver");
        }
        let changes = |key: &str| class.changes.contains(&key);
        let sorted = sort(class, opts);
        let option = "blockdev-reopen";
        let subject = format!("block driver '{}'", class.name);
        let common = Props::check(option, &subject, &sorted.common, NODE_PROPS)?;
        let props = Props::check(option, &subject, &sorted.own, class.props)?;
        let old = node.opened_with();
        let (mut backing, mut file) = (None, None);
        for (key, value) in sorted.own.iter().chain(sorted.children.iter()) {
            // A child under its name is compared with what is there now, which snapshots may have moved.
            let child = class.children.iter().find(|child| child.role == key);
            let Some(child) = child else {
                if !changes(key) && old.text(key) != Some(value.text()) {
                    return unchangeable(key);
                }
                continue;
            };
            let now = node.child(child.role);
            let wanted = Some(value.text()).filter(|name| !name.is_empty());
            if now.as_deref().map(Node::name) == wanted {
                continue;
            }
            match (changes(key), key, wanted) {
                (true, "backing", wanted) => backing = Some(self.behind(node, wanted)?),
                (true, "file", Some(name)) => file = Some(self.free(name)?),
                _ => return unchangeable(key),
            }
        }
        let is_given = |key: &str| {
            let role = key.split('.').next().unwrap_or_default();
            let own = sorted.own.get(key).or(sorted.children.get(key));
            own.or(sorted.children.get(role)).is_some()
        };
        let has_default = |key: &str| changes(key) && class.props.iter().any(|p| p.name == key);
        let is_kept = |key: &str| is_given(key) || has_default(key);
        if let Some((key, _)) = old.iter().find(|(key, _)| !is_kept(key)) {
            return unchangeable(key);
        }
        let new = node_options(&common, &NodeOptions::default());
        if new.force_share != node.options().force_share {
            return unchangeable("force-share");
        }
        let mut opened_with = Opts::default();
        let given = [&sorted.own, &sorted.children]
            .into_iter()
            .flat_map(Opts::iter);
        given.for_each(|(key, value)| opened_with.push(key, value.clone()));
        Ok(Reopening {
            node: node.clone(),
            options: new,
            props,
            opened_with,
            backing,
            file,
        })
    }

    /// The node of this name, if no job works on it.
    fn free(&self, name: &str) -> Result<Arc<Node>, OpenError> {
        let found = self.graph.find(name);
        let found = found.ok_or_else(|| OpenError::no_node(name, &self.graph))?;
        self.graph.check_free(&found)?;
        Ok(found)
    }

    /// The node of this name, if it can be behind `node`.
    fn behind(&self, node: &Arc<Node>, name: Option<&str>) -> Result<Option<Arc<Node>>, OpenError> {
        if let Some(now) = node.child("backing") {
            self.graph.check_free(&now)?;
        }
        name.map(|name| self.free(name)).transpose()
    }
}

impl Reopening {
    /// Puts it in force. Returns what puts everything back as it was.
    ///
    /// # Errors
    /// The host's; that another user of a node forbids it. Then nothing was changed.
    pub fn apply(&self, still: &Still<'_>) -> Result<Reopening, OpenError> {
        let before = self.before()?;
        match self.put(still) {
            Ok(()) => Ok(before),
            Err(error) => {
                // It was so: what stood against it is not there.
                let _ = before.put(still);
                Err(error)
            }
        }
    }

    /// The node as it is, in all that may be changed.
    fn before(&self) -> Result<Reopening, OpenError> {
        let node = &self.node;
        let opened_with = node.opened_with();
        let own = sort(node.class(), &opened_with).own;
        Ok(Reopening {
            node: node.clone(),
            options: node.options(),
            props: Props::check("blockdev-reopen", "block driver", &own, node.class().props)?,
            opened_with,
            backing: self.backing.as_ref().map(|_| node.child("backing")),
            file: self.file.as_ref().and_then(|_| node.child("file")),
        })
    }

    fn put(&self, _: &Still<'_>) -> Result<(), OpenError> {
        let node = &self.node;
        let new = self.backing.iter().flatten().chain(&self.file);
        // Only now, for another change may have put it there.
        for new in new {
            if new.subtree().iter().any(|below| Arc::ptr_eq(below, node)) {
                let problem = "would have itself behind it; give it another 'backing' or 'file'";
                let name = node.name();
                return Err(OpenError::Other(format!("node '{name}' {problem}")));
            }
        }
        if let Some(file) = &self.file {
            move_file(node, file)?;
        }
        if let Some(backing) = &self.backing {
            set_backing(node, backing.as_ref())?;
        }
        node.driver().set_props(&self.props)?;
        node.set_cache(self.options.direct, self.options.no_flush)?;
        let waits = self.options.waits_for_writer(node.class()) && !node.is_written();
        node.set_read_only(self.options.read_only || waits)?;
        node.set_options(self.options);
        node.set_opened_with(self.opened_with.clone());
        Ok(())
    }
}

/// Has a node store its data in another one.
fn move_file(node: &Node, new: &Arc<Node>) -> Result<(), OpenError> {
    let children = node.driver().children();
    let Some(edge) = children.iter().find(|child| child.role() == "file") else {
        return Ok(());
    };
    if Arc::ptr_eq(&edge.node(), new) {
        return Ok(());
    }
    node.flush().map_err(|error| {
        OpenError::Other(format!(
            "node '{}' cannot be written out: {error}",
            node.name()
        ))
    })?;
    node.driver().check_file(new)?;
    let used = edge.used(&[]);
    if used & perm::WRITE != 0 {
        new.let_write()?;
    }
    if used & perm::WRITE != 0 && new.options().read_only {
        let (name, parent) = (new.name(), node.name());
        let problem = format!("node '{name}' is read-only, and '{parent}' writes");
        return Err(OpenError::Other(problem));
    }
    // What the old node does to the new one it did for us.
    let old = edge.node();
    let mut others = new.edges();
    others.retain(|other| other.parent() != old.name());
    check_edge(new, &others, (used, edge.shared(&[])), &[])?;
    edge.move_to(new);
    Ok(())
}
