//! Changes of the graph that are made together: `transaction`, and each of its actions as a command of its own.

use std::path::Path;
use std::sync::Arc;

use backend_block::{BlockError, Child, Node, Still, perm, set_backing};
use backend_qcow2::{Qcow2, Snapshot};
use control_options::{Opts, Scalar};
use control_qapi::{
    BlockdevSnapshotArgs, BlockdevSnapshotInternalArgs, BlockdevSnapshotSyncArgs, NewImageMode,
    QmpError, SnapshotDeleteInternalArgs, SnapshotInfo, TransactionAction,
};

use super::{BlockControl, failed, query, text};
use crate::storage::protocol_of;

const NS_PER_S: u64 = 1_000_000_000;

/// What an action did, to be taken back.
enum Done {
    Frozen(Frozen),
    /// A node has a snapshot of this id in its image: names may be ids of others.
    Internal(Arc<Node>, String),
}

/// A node with an overlay before it.
struct Frozen {
    node: Arc<Node>,
    overlay: Arc<Node>,
    was_read_only: bool,
    /// The overlay is the user's from now on.
    is_kept: bool,
}

impl BlockControl {
    /// Carries actions out while no request of any disk is under way: all of them, or none.
    pub(super) fn transact_all(&self, actions: Vec<TransactionAction>) -> Result<(), QmpError> {
        let still = self.storage.opener.graph.still();
        let mut done = Vec::new();
        for action in actions {
            let result = match action {
                TransactionAction::Abort(_) => {
                    let problem = "Transaction aborted using Abort action";
                    Err(QmpError::generic(problem))
                }
                TransactionAction::BlockdevSnapshot(args) => {
                    self.snapshot(&still, &args).map(Done::Frozen)
                }
                TransactionAction::BlockdevSnapshotSync(args) => {
                    self.snapshot_sync(&still, &args).map(Done::Frozen)
                }
                TransactionAction::BlockdevSnapshotInternalSync(args) => self.internal(&args),
            };
            match result {
                Ok(action) => done.push(action),
                Err(error) => {
                    for action in done.iter().rev() {
                        if let Err(error) = self.undo(&still, action) {
                            log::error!("a part of a transaction that failed stays: {error}");
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn undo(&self, still: &Still<'_>, done: &Done) -> Result<(), QmpError> {
        match done {
            Done::Frozen(frozen) => self.thaw(still, frozen),
            Done::Internal(node, id) => {
                let deleted = image(node)?.delete_snapshot(id);
                deleted.map_err(|error| not_so(node, id, error))
            }
        }
    }

    /// Freezes a disk in its own image.
    fn internal(&self, args: &BlockdevSnapshotInternalArgs) -> Result<Done, QmpError> {
        let node = self.node(&args.device)?;
        self.storage
            .opener
            .graph
            .check_free(&node)
            .map_err(failed)?;
        let name = args.name.as_str();
        if name.is_empty() {
            return Err(QmpError::generic("Name is empty"));
        }
        let image = image(&node)?;
        if image.snapshots().iter().any(|known| known.name == name) {
            return Err(QmpError::generic(format!(
                "Snapshot with name '{name}' already exists on device '{}'",
                args.device
            )));
        }
        let now_ns = self.storage.clock.wall_ns();
        let seconds = u32::try_from(now_ns / NS_PER_S).unwrap_or(u32::MAX);
        let rest = u32::try_from(now_ns % NS_PER_S).unwrap_or(0);
        let taken = image.take_snapshot(name, seconds, rest);
        taken.map_err(|error| not_so(&node, name, error))?;
        let mut all = image.snapshots().into_iter();
        let id = all.find(|taken| taken.name == name).map(|taken| taken.id);
        Ok(Done::Internal(node, id.unwrap_or_default()))
    }

    pub(super) fn delete_internal(
        &self,
        args: &SnapshotDeleteInternalArgs,
    ) -> Result<SnapshotInfo, QmpError> {
        let node = self.node(&args.device)?;
        self.storage
            .opener
            .graph
            .check_free(&node)
            .map_err(failed)?;
        let image = image(&node)?;
        let (id, name) = (args.id.as_deref(), args.name.as_deref());
        if id.is_none() && name.is_none() {
            return Err(QmpError::generic("Name or id must be provided"));
        }
        let is_it = |known: &Snapshot| {
            id.is_none_or(|id| known.id == id) && name.is_none_or(|name| known.name == name)
        };
        let found = image.snapshots().into_iter().find(is_it);
        let found = found.ok_or_else(|| {
            QmpError::generic(format!(
                "Snapshot with id '{}' and name '{}' does not exist on device '{}'",
                id.unwrap_or("null"),
                name.unwrap_or("null"),
                args.device
            ))
        })?;
        let deleted = image.delete_snapshot(&found.id);
        deleted.map_err(|error| not_so(&node, &found.name, error))?;
        Ok(query::snapshot(&found))
    }

    fn snapshot(&self, still: &Still<'_>, args: &BlockdevSnapshotArgs) -> Result<Frozen, QmpError> {
        let node = self.node(&args.node)?;
        let overlay = self.named(&args.overlay)?;
        self.freeze(still, &node, &overlay)
    }

    fn snapshot_sync(
        &self,
        still: &Still<'_>,
        args: &BlockdevSnapshotSyncArgs,
    ) -> Result<Frozen, QmpError> {
        let node = self.node_of(args.device.as_deref(), args.node_name.as_deref())?;
        let opener = &self.storage.opener;
        opener.graph.check_free(&node).map_err(failed)?;
        let format = args.format.as_deref().unwrap_or("qcow2");
        let path = args.snapshot_file.as_str();
        if args.mode != Some(NewImageMode::Existing) {
            self.make_overlay(path, format, &node)?;
        }
        let mut opts = Opts::default();
        opts.push("driver", text(format));
        opts.push("file.driver", text(protocol_of(path)));
        opts.push("file.filename", text(path));
        opts.push("backing", Scalar::Null);
        if let Some(name) = &args.snapshot_node_name {
            opts.push("node-name", text(name));
        }
        let options = node.options();
        opts.push("detect-zeroes", text(options.detect_zeroes.name()));
        opts.push(
            "discard",
            text(if options.discard { "unmap" } else { "ignore" }),
        );
        opts.push("cache.direct", Scalar::Bool(options.direct));
        opts.push("cache.no-flush", Scalar::Bool(options.no_flush));
        let overlay = opener
            .open("blockdev-snapshot-sync", &opts)
            .map_err(failed)?;
        let mut frozen = self.freeze(still, &node, &overlay)?;
        if args.snapshot_node_name.is_some() {
            opener.graph.keep(overlay);
            frozen.is_kept = true;
        }
        Ok(frozen)
    }

    /// Puts an overlay before all users of a node.
    fn freeze(
        &self,
        still: &Still<'_>,
        node: &Arc<Node>,
        overlay: &Arc<Node>,
    ) -> Result<Frozen, QmpError> {
        let graph = &self.storage.opener.graph;
        graph.check_free(node).map_err(failed)?;
        graph.check_free(overlay).map_err(failed)?;
        let refused = |what: &str| QmpError::generic(format!("The overlay {what}"));
        if overlay.child("backing").is_some() {
            return Err(refused("already has a backing image"));
        }
        if let Some(user) = overlay.users().into_iter().next() {
            return Err(refused(&format!("is already in use by '{user}'")));
        }
        if overlay
            .subtree()
            .iter()
            .any(|below| Arc::ptr_eq(below, node))
        {
            return Err(refused("is stored in the node itself"));
        }
        if overlay.len() < node.len() {
            return Err(refused("is shorter than the image that it is to be put on"));
        }
        node.flush().map_err(failed)?;
        let frozen = Frozen {
            node: node.clone(),
            overlay: overlay.clone(),
            was_read_only: node.options().read_only,
            is_kept: false,
        };
        graph.replace(still, node, overlay).map_err(failed)?;
        if let Err(error) = put_behind(node, overlay) {
            // Nobody else has touched the overlay since.
            self.thaw(still, &frozen)?;
            return Err(error);
        }
        Ok(frozen)
    }

    /// Takes the overlay away again. Nothing was written to it.
    fn thaw(&self, still: &Still<'_>, frozen: &Frozen) -> Result<(), QmpError> {
        let Frozen { node, overlay, .. } = frozen;
        let graph = &self.storage.opener.graph;
        set_backing(overlay, None).map_err(failed)?;
        node.set_read_only(frozen.was_read_only).map_err(failed)?;
        graph.replace(still, overlay, node).map_err(failed)?;
        if frozen.is_kept {
            graph.delete(overlay.name()).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the image of `blockdev-snapshot-sync`.
    fn make_overlay(&self, path: &str, format: &str, node: &Node) -> Result<(), QmpError> {
        let opener = &self.storage.opener;
        let class = opener.driver(format).map_err(failed)?;
        let Some(create) = class.create else {
            return Err(QmpError::generic(format!(
                "Format '{format}' has no backing files; use 'qcow2'"
            )));
        };
        let base = std::path::absolute(node.file()).map_err(failed)?;
        let base = base.to_string_lossy().into_owned();
        backend_file::create_in(Path::new(path), &opener.fds).map_err(failed)?;
        let mut file = Opts::default();
        file.push("driver", text("file"));
        file.push("filename", text(path));
        let file = opener
            .open("blockdev-snapshot-sync", &file)
            .map_err(failed)?;
        let child =
            Child::attach(file, "snapshot", "file", perm::ALL, perm::ALL).map_err(failed)?;
        let mut options = Opts::default();
        options.push("backing_file", text(base));
        options.push("backing_fmt", text(node.class().name));
        let len = node.len().next_multiple_of(backend_block::SECTOR);
        (create.create)(&child, len, &options).map_err(failed)
    }
}

/// The image, if it is of a format that has snapshots.
fn image(node: &Node) -> Result<&Qcow2, QmpError> {
    node.driver().as_any().downcast_ref().ok_or_else(|| {
        QmpError::generic(format!(
            "Block format '{}' used by node '{}' does not support internal snapshots; use 'qcow2'",
            node.class().name,
            node.name()
        ))
    })
}

fn not_so(node: &Node, name: &str, error: BlockError) -> QmpError {
    QmpError::generic(format!(
        "snapshot '{name}' of node '{}': {error}",
        node.name()
    ))
}

fn put_behind(node: &Arc<Node>, overlay: &Arc<Node>) -> Result<(), QmpError> {
    set_backing(overlay, Some(node)).map_err(failed)?;
    if !node.is_written() {
        node.set_read_only(true).map_err(failed)?;
    }
    Ok(())
}
