//! `blockdev-reopen`: a node with other properties, and another one behind it.

use std::sync::Arc;

use control_options::{Opts, Props};

use crate::copy::set_backing;
use crate::graph::Still;
use crate::node::{Node, NodeOptions};
use crate::open::{NODE_PROPS, OpenError, Opener, node_options, sort};

/// What is to change of a node.
pub struct Reopening {
    node: Arc<Node>,
    options: NodeOptions,
    /// The node behind it, if that is another one.
    backing: Option<Option<Arc<Node>>>,
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
        let sorted = sort(class, opts);
        let option = "blockdev-reopen";
        let subject = format!("block driver '{}'", class.name);
        let common = Props::check(option, &subject, &sorted.common, NODE_PROPS)?;
        Props::check(option, &subject, &sorted.own, class.props)?;
        let none = Opts::default();
        let old = node.opened_with().unwrap_or(&none);
        let mut backing = None;
        for (key, value) in sorted.own.iter().chain(sorted.children.iter()) {
            // A child under its name is compared with what is there now, which snapshots may have moved.
            let child = class.children.iter().find(|child| child.role == key);
            let Some(child) = child else {
                if old.text(key) != Some(value.text()) {
                    return unchangeable(key);
                }
                continue;
            };
            let now = node.child(child.role);
            let wanted = Some(value.text()).filter(|name| !name.is_empty());
            if now.as_deref().map(Node::name) == wanted {
                continue;
            }
            if !child.refusable {
                return unchangeable(key);
            }
            backing = Some(self.behind(node, wanted)?);
        }
        let is_given = |key: &str| {
            let role = key.split('.').next().unwrap_or_default();
            let own = sorted.own.get(key).or(sorted.children.get(key));
            own.or(sorted.children.get(role)).is_some()
        };
        if let Some((key, _)) = old.iter().find(|(key, _)| !is_given(key)) {
            return unchangeable(key);
        }
        let new = node_options(&common, &NodeOptions::default());
        let old = node.options();
        if new.direct != old.direct {
            return unchangeable("cache.direct");
        }
        if new.force_share != old.force_share {
            return unchangeable("force-share");
        }
        Ok(Reopening {
            node: node.clone(),
            options: new,
            backing,
        })
    }

    /// The node of this name, if it can be behind `node`.
    fn behind(&self, node: &Arc<Node>, name: Option<&str>) -> Result<Option<Arc<Node>>, OpenError> {
        if let Some(now) = node.child("backing") {
            self.graph.check_free(&now)?;
        }
        let Some(name) = name else {
            return Ok(None);
        };
        let found = self.graph.find(name);
        let found = found.ok_or_else(|| OpenError::no_node(name, &self.graph))?;
        self.graph.check_free(&found)?;
        Ok(Some(found))
    }
}

impl Reopening {
    /// Puts it in force. Returns what puts everything back as it was.
    ///
    /// # Errors
    /// The host's; that another user of a node forbids it. Then nothing was changed.
    pub fn apply(&self, _: &Still<'_>) -> Result<Reopening, OpenError> {
        let node = &self.node;
        let before = Reopening {
            node: node.clone(),
            options: node.options(),
            backing: self.backing.as_ref().map(|_| node.child("backing")),
        };
        if let Some(backing) = &self.backing {
            // Only now, for another change may have put it there.
            let behind = backing.iter().flat_map(Node::subtree);
            if behind.into_iter().any(|below| Arc::ptr_eq(&below, node)) {
                let problem = "would have itself behind it; give it another 'backing'";
                return Err(OpenError::Other(format!(
                    "node '{}' {problem}",
                    node.name()
                )));
            }
            set_backing(node, backing.as_ref())?;
        }
        if let Err(error) = node.set_read_only(self.options.read_only) {
            if let Some(backing) = &before.backing {
                // It was so before: what stood against it is not there.
                let _ = set_backing(node, backing.as_ref());
            }
            return Err(error);
        }
        node.set_options(self.options);
        Ok(before)
    }
}
