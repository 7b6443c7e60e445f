//! Why a node cannot be opened or changed.

use control_options::OptionError;
use control_options::suggest::nearest;

use crate::graph::Graph;

/// Why a node cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Properties that are not there, or make no sense.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The host refuses.
    #[error("cannot open disk image '{file}'")]
    Host {
        /// File name.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The image is not what it was taken for, or is damaged.
    #[error("disk image '{file}': {problem}")]
    Image {
        /// File name.
        file: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Another process has the image.
    #[error(
        "disk image '{file}' is in use: cannot get the \"{lock}\" lock; end the other process{holder}, or give both share-rw=on or read-only=on"
    )]
    Locked {
        /// File name.
        file: String,
        /// `write`, `consistent read`, ...
        lock: &'static str,
        /// Who it is, if known: ` (pid 7)`.
        holder: String,
    },
    /// An edge of the graph forbids it.
    #[error(
        "node '{node}' is in use by '{user}', which does not allow '{what}'; use a node of its own"
    )]
    InUse {
        /// The node.
        node: String,
        /// Who uses it.
        user: String,
        /// What was to be done.
        what: &'static str,
    },
    /// A job works on the node.
    #[error("node '{node}' is busy: block device is in use by block job: {what}")]
    Busy {
        /// The node.
        node: String,
        /// The kind of job.
        what: String,
    },
    /// The name of a node is taken.
    #[error("the node name '{0}' is used twice; every name must be unique")]
    NameTaken(String),
    /// There is no such node.
    #[error("there is no node named '{name}'{hint}")]
    NoNode {
        /// What was asked for.
        name: String,
        /// What is near, if anything.
        hint: String,
    },
    /// The node belongs to another one.
    #[error("node '{0}' is part of another node or of a drive; delete that")]
    NotOwned(String),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Other(String),
}

impl OpenError {
    /// There is no node of this name.
    pub fn no_node(name: &str, graph: &Graph) -> Self {
        let nodes = graph.nodes();
        let hint = nearest(name, nodes.iter().map(|node| node.name()))
            .map(|near| format!("; did you mean '{near}'?"))
            .unwrap_or_default();
        OpenError::NoNode {
            name: name.to_owned(),
            hint,
        }
    }

    /// Something is wrong with an image.
    pub fn image(file: &str, problem: impl Into<String>) -> Self {
        OpenError::Image {
            file: file.to_owned(),
            problem: problem.into(),
        }
    }
}
