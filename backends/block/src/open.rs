//! Opening nodes from options: flat lists of properties in which children have dotted names, as
//! `-blockdev` and QMP write them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use control_options::suggest::nearest;
use control_options::{Opts, PropDef, PropKind, Props, Scalar};

use runtime::FdSets;

use crate::driver::{DriverClass, DriverKind};
use crate::edge::{Child, perm};
use crate::error::OpenError;
use crate::graph::Graph;
use crate::node::{DetectZeroes, Node, NodeOptions};
use crate::throttle::Throttles;

/// Longest chain of nodes below one that is opened.
const DEPTH_MAX: usize = 200;
/// First bytes of a file from which its format is told.
pub const PROBE_LEN: usize = 512;

/// First bytes of formats that must not be taken for raw, though there is no driver for them.
const FOREIGN: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"conectix", "vpc"),
    (b"vhdxfile", "vhdx"),
    (b"LUKS\xba\xbe", "luks"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
];

/// Properties of all nodes.
pub const NODE_PROPS: &[PropDef] = &[
    PropDef::new("driver", PropKind::Str, "what the node does").required(),
    PropDef::new("node-name", PropKind::Str, "name to refer to it by"),
    PropDef::new("read-only", PropKind::Bool, "refuse writes").or("off"),
    PropDef::new(
        "auto-read-only",
        PropKind::Bool,
        "refuse writes if the file does",
    )
    .or("off"),
    PropDef::new("force-share", PropKind::Bool, "let others write too").or("off"),
    PropDef::new(
        "discard",
        PropKind::Enum(&["ignore", "unmap", "off", "on"]),
        "whether space is given back",
    )
    .or("ignore"),
    PropDef::new(
        "detect-zeroes",
        PropKind::Enum(&["off", "on", "unmap"]),
        "whether zeros that are written take space",
    )
    .or("off"),
    PropDef::new("cache.direct", PropKind::Bool, "past the host's page cache").or("off"),
    PropDef::new("cache.no-flush", PropKind::Bool, "do not wait for flushes").or("off"),
];

/// Opens nodes with these drivers, into this graph.
#[derive(Clone)]
pub struct Opener {
    /// Where the nodes go.
    pub graph: Arc<Graph>,
    /// Groups that nodes may be members of.
    pub throttles: Throttles,
    /// Files that were opened for us.
    pub fds: FdSets,
    /// Images are opened to be repaired: as they are, however wrong.
    pub repairs: bool,
    /// What users are told instead of the file's name.
    pub shown_as: Option<String>,
    drivers: &'static [&'static DriverClass],
}

/// What a node that is being opened takes over from those above it.
#[derive(Clone, Default)]
struct Above {
    option: String,
    options: NodeOptions,
    /// Files of the backing chain so far.
    chain: Vec<PathBuf>,
    depth: usize,
    probed: bool,
}

impl Opener {
    /// With these drivers.
    pub fn new(drivers: &'static [&'static DriverClass]) -> Self {
        Opener {
            graph: Arc::default(),
            throttles: Throttles::default(),
            fds: FdSets::default(),
            repairs: false,
            shown_as: None,
            drivers,
        }
    }

    /// All drivers.
    pub fn drivers(&self) -> &'static [&'static DriverClass] {
        self.drivers
    }

    /// The driver of this name.
    pub fn driver(&self, name: &str) -> Result<&'static DriverClass, OpenError> {
        let found = self.drivers.iter().find(|class| class.name == name);
        found.copied().ok_or_else(|| {
            let names = || self.drivers.iter().map(|class| class.name);
            if FOREIGN.iter().any(|(_, format)| *format == name) {
                return OpenError::Other(format!(
                    "images of format '{name}' are not supported; convert it with 'qemu-img convert -O raw' and use \
                     format=raw"
                ));
            }
            let hint = match nearest(name, names()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            };
            OpenError::Other(format!("there is no block driver named '{name}'; {hint}"))
        })
    }

    /// The format that a file's first bytes show; `raw` if none.
    pub fn probe(&self, head: &[u8]) -> &'static str {
        let shows = |class: &&&DriverClass| class.probe.is_some_and(|probe| probe(head));
        if let Some(class) = self.drivers.iter().find(shows) {
            return class.name;
        }
        let foreign = FOREIGN.iter().find(|(magic, _)| head.starts_with(magic));
        foreign.map_or("raw", |(_, name)| name)
    }

    /// Opens a node. `option` is what the user wrote these properties under.
    pub fn open(&self, option: &str, opts: &Opts) -> Result<Arc<Node>, OpenError> {
        let above = Above {
            option: option.to_owned(),
            ..Above::default()
        };
        self.open_below(opts, &above)
    }

    /// The format that the `file` of a node shows.
    pub fn format(&self, option: &str, opts: &Opts) -> Result<&'static str, OpenError> {
        let mut above = Above {
            option: option.to_owned(),
            ..Above::default()
        };
        self.format_of(opts, &mut above)
    }

    /// Opens a node of the format that its `file` shows. What looks raw stays raw: a guest is kept
    /// from making it look like something else.
    pub fn open_probed(&self, option: &str, opts: &Opts) -> Result<Arc<Node>, OpenError> {
        let mut above = Above {
            option: option.to_owned(),
            ..Above::default()
        };
        let format = self.format_of(opts, &mut above)?;
        let mut opts = opts.clone();
        opts.push("driver", Scalar::Text(format.to_owned()));
        self.open_below(&opts, &above)
    }

    /// Looks at the file below without the intention to write.
    fn format_of(&self, opts: &Opts, above: &mut Above) -> Result<&'static str, OpenError> {
        let mut look = below(opts, "file");
        look.take("node-name");
        look.push("read-only", Scalar::Bool(true));
        look.push("force-share", Scalar::Bool(true));
        let mut head = vec![0; PROBE_LEN];
        {
            let node = self.open_below(&look, above)?;
            let len = usize::try_from(node.len()).unwrap_or(PROBE_LEN);
            head.truncate(len);
            let memory = hw_memory::IoVector::zeroed(head.len());
            node.read(0, &memory)
                .map_err(|e| OpenError::image(node.file(), e.to_string()))?;
            memory.copy_out(0, &mut head);
        }
        let format = self.probe(&head);
        above.probed = format == "raw";
        Ok(format)
    }

    fn open_below(&self, opts: &Opts, above: &Above) -> Result<Arc<Node>, OpenError> {
        if above.depth > DEPTH_MAX {
            return Err(OpenError::Other(format!(
                "the chain of nodes is longer than {DEPTH_MAX}; commit some of the images"
            )));
        }
        let option = above.option.as_str();
        let Some(driver) = opts.text("driver") else {
            let problem = "'driver=...' is missing: it says what the node does";
            return Err(OpenError::Other(problem.to_owned()));
        };
        let class = self.driver(driver)?;
        let Sorted {
            common,
            own,
            children,
        } = sort(class, opts);
        let name = match opts.text("node-name").filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => self.graph.unnamed(),
        };
        if self.graph.find(&name).is_some() {
            return Err(OpenError::NameTaken(name));
        }
        let subject = format!("block driver '{driver}'");
        let common = Props::check(option, &subject, &common, NODE_PROPS)?;
        let props = Props::check(option, &subject, &own, class.props)?;
        let mut options = node_options(&common, &above.options);
        // With nobody above it nobody writes yet, and others may have the file meanwhile.
        options.read_only |= above.depth == 0 && options.waits_for_writer(class);
        let mut opening = Opening {
            opener: self,
            class,
            options,
            opts,
            above,
            props,
            file: String::new(),
            name,
        };
        let driver = (class.open)(&mut opening)?;
        let Opening {
            name,
            file,
            options,
            ..
        } = opening;
        let file = self.shown_as.clone().unwrap_or(file);
        let node = Node::new(name, file, class, options, driver);
        let rest = [&own, &children].into_iter().flat_map(Opts::iter);
        let mut opened_with = Opts::default();
        rest.for_each(|(key, value)| opened_with.push(key, value.clone()));
        node.set_opened_with(opened_with);
        if class.kind == DriverKind::Filter {
            let children = node.driver().children();
            children
                .iter()
                .for_each(|child| child.belongs_to_filter(&node));
        }
        self.graph.add(&node)?;
        Ok(node)
    }
}

/// Properties by what they belong to.
#[derive(Default)]
pub(crate) struct Sorted {
    pub(crate) common: Opts,
    pub(crate) own: Opts,
    pub(crate) children: Opts,
}

pub(crate) fn sort(class: &DriverClass, opts: &Opts) -> Sorted {
    let mut sorted = Sorted::default();
    for (key, value) in opts.iter() {
        let is_child = class.children.iter().any(|child| {
            key.strip_prefix(child.role)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let is_common = NODE_PROPS.iter().any(|prop| prop.name == key);
        let list = match (is_common, is_child) {
            (true, _) => &mut sorted.common,
            (false, true) => &mut sorted.children,
            (false, false) => &mut sorted.own,
        };
        list.push(key, value.clone());
    }
    sorted
}

/// The properties under `role.`.
fn below(opts: &Opts, role: &str) -> Opts {
    let mut out = Opts::default();
    for (key, value) in opts.iter() {
        if let Some(key) = key.strip_prefix(role).and_then(|k| k.strip_prefix('.')) {
            out.push(key, value.clone());
        }
    }
    out
}

pub(crate) fn node_options(props: &Props, above: &NodeOptions) -> NodeOptions {
    let switch = |name: &str, above: bool| match props.is_given(name) {
        true => props.is_on(name),
        false => above,
    };
    let discard = match props.is_given("discard") {
        true => matches!(props.text("discard"), Some("unmap" | "on")),
        false => above.discard,
    };
    let read_only = switch("read-only", above.read_only);
    NodeOptions {
        read_only,
        discard,
        detect_zeroes: match props.text("detect-zeroes") {
            Some("on") => DetectZeroes::On,
            Some("unmap") => DetectZeroes::Unmap,
            _ => DetectZeroes::Off,
        },
        direct: switch("cache.direct", above.direct),
        no_flush: switch("cache.no-flush", above.no_flush),
        force_share: switch("force-share", above.force_share),
        auto_read_only: !read_only && switch("auto-read-only", above.auto_read_only),
    }
}

/// A node that is being opened, as its driver sees it.
pub struct Opening<'a> {
    opener: &'a Opener,
    class: &'static DriverClass,
    opts: &'a Opts,
    above: &'a Above,
    /// The node's name.
    pub name: String,
    /// The driver's properties.
    pub props: Props,
    /// The node's options; a driver may refuse writes that were asked for.
    pub options: NodeOptions,
    /// File name for users; set by protocols, and taken over from the file below.
    pub file: String,
}

impl Opening<'_> {
    /// Whether the image is to be repaired, and opened as it is.
    pub fn repairs(&self) -> bool {
        self.opener.repairs
    }

    /// Files that were opened for us.
    pub fn fds(&self) -> &FdSets {
        &self.opener.fds
    }

    /// Groups that it may be a member of.
    pub fn throttles(&self) -> &Throttles {
        &self.opener.throttles
    }

    /// Whether the format was told from the file's first bytes.
    pub fn is_probed(&self) -> bool {
        self.above.probed
    }

    /// Whether first bytes of a file show a format other than raw.
    pub fn prober(&self) -> impl Fn(&[u8]) -> bool + Send + Sync + 'static {
        let opener = self.opener.clone();
        move |head| opener.probe(head) != "raw"
    }

    /// What the user said of a child: nothing, a name, or properties.
    pub fn is_given(&self, role: &str) -> bool {
        self.opts.get(role).is_some() || !below(self.opts, role).is_empty()
    }

    /// Whether the user wants none of this child (`backing=null`, or an empty name).
    pub fn is_refused(&self, role: &str) -> bool {
        below(self.opts, role).is_empty() && self.opts.text(role) == Some("")
    }

    fn above(&self, options: NodeOptions) -> Above {
        Above {
            option: self.above.option.clone(),
            options,
            chain: self.above.chain.clone(),
            depth: self.above.depth.saturating_add(1),
            probed: false,
        }
    }

    /// The file below, in which the driver stores its things.
    pub fn file(&mut self) -> Result<Child, OpenError> {
        let node = self.found("file")?.ok_or_else(|| {
            OpenError::Other(format!(
                "driver '{}' needs 'file=...': the node that it stores its data in",
                self.class.name
            ))
        })?;
        self.file = node.file().to_owned();
        let is_filter = self.class.kind == DriverKind::Filter;
        if is_filter && !self.options.read_only {
            node.let_write()?;
        }
        if self.options.auto_read_only && !self.options.read_only {
            match node.let_write() {
                // The host does not let us: that is what the option is for.
                Ok(()) | Err(OpenError::Host { .. }) => {}
                Err(error) => return Err(error),
            }
            self.options.read_only = node.options().read_only;
        }
        let child = self.attach(node, "file")?;
        let node = child.node();
        if node.options().read_only && !self.options.read_only {
            return Err(OpenError::Other(format!(
                "node '{}' is read-only: give node '{}' 'read-only=on' too",
                node.name(),
                self.name
            )));
        }
        Ok(child)
    }

    /// A child that was given by name or with its properties.
    pub fn named(&mut self, role: &'static str) -> Result<Option<Child>, OpenError> {
        let node = self.found(role)?;
        node.map(|node| self.attach(node, role)).transpose()
    }

    /// The node of such a child.
    fn found(&self, role: &str) -> Result<Option<Arc<Node>>, OpenError> {
        let properties = below(self.opts, role);
        let node = if !properties.is_empty() {
            let mut options = self.options;
            options.detect_zeroes = DetectZeroes::Off;
            if role == "backing" {
                options.read_only = true;
                options.discard = false;
            }
            self.opener.open_below(&properties, &self.above(options))?
        } else {
            match self.opts.text(role).filter(|name| !name.is_empty()) {
                Some(name) => (self.opener.graph.find(name))
                    .ok_or_else(|| OpenError::no_node(name, &self.opener.graph))?,
                None => return Ok(None),
            }
        };
        Ok(Some(node))
    }

    fn attach(&self, node: Arc<Node>, role: &'static str) -> Result<Child, OpenError> {
        use perm::{ALL, CONSISTENT_READ, RESIZE, WRITE, WRITE_UNCHANGED};
        // A filter's users say what they do, and what they share.
        if self.class.kind == DriverKind::Filter {
            return Child::attach(node, &self.name, role, 0, ALL);
        }
        let writes = match self.options.read_only || role == "backing" {
            true => 0,
            false => WRITE | RESIZE,
        };
        let shared = match self.options.force_share {
            true => ALL,
            false => CONSISTENT_READ | WRITE_UNCHANGED,
        };
        Child::attach(node, &self.name, role, CONSISTENT_READ | writes, shared)
    }

    /// The backing node that the user or the image names. What an image names is opened read-only,
    /// as a plain file that is no device, and not if it is in the chain above already.
    pub fn backing(
        &mut self,
        named_by_image: Option<(&str, Option<&str>)>,
    ) -> Result<Option<Child>, OpenError> {
        if self.is_given("backing") {
            return self.named("backing");
        }
        let Some((name, format)) = named_by_image else {
            return Ok(None);
        };
        let bad = |problem: &str| {
            let problem = format!(
                "its backing file '{}' {problem}; name the backing node with 'backing=...'",
                name.escape_debug()
            );
            OpenError::image(&self.file, problem)
        };
        let path = beside(&self.file, name)
            .ok_or_else(|| bad("is no plain path, and images may name nothing else"))?;
        let kind = std::fs::metadata(&path).map_err(|source| OpenError::Host {
            file: path.display().to_string(),
            source,
        })?;
        if !kind.is_file() {
            return Err(bad("is no regular file, and images may name nothing else"));
        }
        let mut above = self.above(NodeOptions {
            read_only: true,
            discard: false,
            detect_zeroes: DetectZeroes::Off,
            ..self.options
        });
        let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or(path.to_owned());
        above.chain.push(canonical(Path::new(&self.file)));
        if above.chain.contains(&canonical(&path)) {
            return Err(bad("leads back to an image above it"));
        }
        let mut opts = Opts::default();
        opts.push("file.driver", Scalar::Text("file".to_owned()));
        opts.push("file.filename", Scalar::Text(path.display().to_string()));
        let format = match format.filter(|format| !format.is_empty()) {
            Some(format) => format,
            None => self.opener.format_of(&opts, &mut above)?,
        };
        opts.push("driver", Scalar::Text(format.to_owned()));
        let node = self.opener.open_below(&opts, &above)?;
        self.attach(node, "backing").map(Some)
    }

    /// A file that the image names for its data: as strict as [`backing`](Self::backing).
    pub fn data_file(&mut self, named_by_image: Option<&str>) -> Result<Child, OpenError> {
        if let Some(child) = self.named("data-file")? {
            return Ok(child);
        }
        let missing = |problem: &str| {
            let problem = format!("{problem}; name the node with 'data-file=...'");
            OpenError::image(&self.file, problem)
        };
        let name = named_by_image.ok_or_else(|| missing("it does not name its data file"))?;
        let path = beside(&self.file, name)
            .filter(|path| std::fs::metadata(path).is_ok_and(|kind| kind.is_file()))
            .ok_or_else(|| missing("its data file is no plain file"))?;
        let mut opts = Opts::default();
        opts.push("driver", Scalar::Text("file".to_owned()));
        opts.push("filename", Scalar::Text(path.display().to_string()));
        let node = self.opener.open_below(&opts, &self.above(self.options))?;
        self.attach(node, "data-file")
    }
}

/// The path of a file that an image names, seen from where the image lies. `None` for what is no
/// plain path: a protocol, or JSON.
pub fn beside(image: &str, name: &str) -> Option<PathBuf> {
    let first = name.split('/').next().unwrap_or_default();
    if name.is_empty() || name.contains('\0') || first.contains(':') {
        return None;
    }
    let directory = Path::new(image).parent().unwrap_or(Path::new(""));
    Some(directory.join(name))
}
