//! Jobs on disks: started, asked about, changed, and their events.

use std::path::Path;
use std::sync::Arc;

use backend_block::{
    Child, Commit, CreateClass, DriverClass, ErrorPolicy, Job, JobError, JobEvent, JobKind,
    JobSpec, Jobs, Mirror, Node, OpenError, Preallocation, Stream, Task, perm,
};
use control_options::{Opts, PropDef, PropKind};
use control_qapi::{
    BlockCommitArgs, BlockJobInfo, BlockStreamArgs, BlockdevCreateArgs, BlockdevMirrorArgs,
    BlockdevOnError, ErrorClass, Event, EventBus, IoOperationType, JobChange, JobInfo, JobStatus,
    JobType, MirrorSyncMode, QmpError,
};
use hw_clock::Clock;
use runtime::FdSets;

use super::{BlockControl, action, failed, query, text};

fn job_type(kind: JobKind) -> JobType {
    match kind {
        JobKind::Commit => JobType::Commit,
        JobKind::Stream => JobType::Stream,
        JobKind::Mirror => JobType::Mirror,
        JobKind::Create => JobType::Create,
    }
}

fn status(status: backend_block::JobStatus) -> JobStatus {
    // Both have QEMU's words.
    JobStatus::named(status.name()).unwrap_or(JobStatus::Null)
}

/// The events of a job that stands like this.
fn event(info: &backend_block::JobInfo, event: &JobEvent) -> Option<Event> {
    let id = info.spec.id.clone();
    let kind = job_type(info.spec.kind);
    let (len, offset, speed) = (info.len, info.offset, info.spec.speed);
    if let JobEvent::Status(now) = event {
        return Some(Event::JobStatusChange {
            id,
            status: status(*now),
        });
    }
    if !info.spec.kind.is_block() {
        return None;
    }
    Some(match event {
        JobEvent::Status(_) => return None,
        JobEvent::Ready => Event::BlockJobReady {
            kind,
            device: id,
            len,
            offset,
            speed,
        },
        JobEvent::Pending => Event::BlockJobPending { kind, id },
        JobEvent::Completed => Event::BlockJobCompleted {
            kind,
            device: id,
            len,
            offset,
            speed,
            error: info.error.clone(),
        },
        JobEvent::Cancelled => Event::BlockJobCancelled {
            kind,
            device: id,
            len,
            offset,
            speed,
        },
        JobEvent::Error {
            is_write,
            action: done,
        } => Event::BlockJobError {
            device: id,
            operation: match is_write {
                true => IoOperationType::Write,
                false => IoOperationType::Read,
            },
            action: action(*done),
        },
    })
}

pub(super) fn jobs(clock: &Clock, events: &Arc<EventBus>) -> Jobs {
    let events = Arc::clone(events);
    Jobs::new(clock.clone(), move |info, what| {
        if let Some(event) = event(info, what) {
            events.emit(&event);
        }
    })
}

/// What all commands that start a job say of it.
struct Start {
    id: Option<String>,
    device: String,
    kind: JobKind,
    speed: Option<u64>,
    on_error: Option<BlockdevOnError>,
    auto_finalize: Option<bool>,
    auto_dismiss: Option<bool>,
}

impl Start {
    fn spec(self) -> JobSpec {
        JobSpec {
            id: self.id.unwrap_or(self.device),
            kind: self.kind,
            auto_finalize: self.auto_finalize != Some(false),
            auto_dismiss: self.auto_dismiss != Some(false),
            speed: self.speed.unwrap_or(0),
            on_error: match self.on_error {
                None | Some(BlockdevOnError::Report) => ErrorPolicy::Report,
                Some(BlockdevOnError::Ignore) => ErrorPolicy::Ignore,
                Some(BlockdevOnError::Stop) => ErrorPolicy::Stop,
                Some(BlockdevOnError::Enospc | BlockdevOnError::Auto) => ErrorPolicy::Enospc,
            },
        }
    }
}

/// An image that is made.
struct Create {
    class: Option<&'static CreateClass>,
    file: Child,
    len: u64,
    options: Opts,
}

impl Task for Create {
    fn run(&mut self, job: &Job) -> Result<(), JobError> {
        job.set_len(1);
        match self.class {
            Some(class) => (class.create)(&self.file, self.len, &self.options)?,
            None => self.file.node().resize(self.len, Preallocation::Off)?,
        }
        job.advance(1);
        Ok(())
    }
}

/// A file that is made, and its length.
struct CreateFile(std::path::PathBuf, FdSets, u64);

impl Task for CreateFile {
    fn run(&mut self, job: &Job) -> Result<(), JobError> {
        job.set_len(1);
        let file = backend_file::create_in(&self.0, &self.1)?;
        let grown = file.set_len(self.2);
        grown.map_err(|error| JobError::Failed(error.to_string()))?;
        job.advance(1);
        Ok(())
    }
}

fn is_same_file(a: &str, b: &str) -> bool {
    let real = |path: &str| std::fs::canonicalize(path).unwrap_or(Path::new(path).to_owned());
    a == b || real(a) == real(b)
}

impl BlockControl {
    fn start(&self, start: Start, task: Box<dyn Task>) -> Result<(), QmpError> {
        self.jobs
            .start(start.spec(), task)
            .map_err(QmpError::generic)
    }

    /// The node of a disk that a job is about: filters on it are none of its business.
    fn image_of(&self, device: &str) -> Result<Arc<Node>, QmpError> {
        let mut node = self.node(device)?;
        while node.class().kind == backend_block::DriverKind::Filter
            && let Some(next) = node.behind()
        {
            node = next;
        }
        Ok(node)
    }

    /// A node of the chain behind `top`, by its name or its file.
    fn in_chain(
        &self,
        top: &Arc<Node>,
        name: Option<&str>,
        file: Option<&str>,
    ) -> Result<Option<Arc<Node>>, QmpError> {
        let mut chain = std::iter::successors(Some(top.clone()), |node| node.behind());
        let (what, found) = match (name, file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(QmpError::generic("give the node or the file, not both"));
            }
            (Some(name), None) => (name, chain.find(|node| node.name() == name)),
            (None, Some(file)) => (file, chain.find(|node| is_same_file(node.file(), file))),
        };
        found.map(Some).ok_or_else(|| {
            QmpError::generic(format!(
                "'{what}' is not in the backing chain of '{}'",
                top.name()
            ))
        })
    }

    pub(super) fn start_commit(&self, a: BlockCommitArgs) -> Result<(), QmpError> {
        let device = self.image_of(&a.device)?;
        let top = self.in_chain(&device, a.top_node.as_deref(), a.top.as_deref())?;
        let top = top.unwrap_or_else(|| device.clone());
        let base = match self.in_chain(&top, a.base_node.as_deref(), a.base.as_deref())? {
            Some(base) => base,
            None => {
                let chain = std::iter::successors(top.behind(), |node| node.behind());
                let none = || QmpError::generic(format!("'{}' has no backing image", top.name()));
                chain.last().ok_or_else(none)?
            }
        };
        if Arc::ptr_eq(&base, &top) {
            return Err(QmpError::generic("the base and the top are the same image"));
        }
        let is_active = Arc::ptr_eq(&top, &device);
        if is_active && a.backing_file.is_some() {
            return Err(QmpError::generic(
                "'backing-file' specified, but 'top' is the active layer",
            ));
        }
        let start = Start {
            id: a.job_id,
            device: a.device,
            kind: JobKind::Commit,
            speed: a.speed,
            on_error: a.on_error,
            auto_finalize: a.auto_finalize,
            auto_dismiss: a.auto_dismiss,
        };
        let id = start.id.clone().unwrap_or_else(|| start.device.clone());
        let graph = &self.storage.opener.graph;
        let task: Box<dyn Task> = if is_active {
            Box::new(Mirror::commit_top(graph, &id, &top, &base).map_err(failed)?)
        } else {
            let mut chain = std::iter::successors(Some(device), |node| node.behind());
            let above = chain.find(|n| n.behind().is_some_and(|n| Arc::ptr_eq(&n, &top)));
            let above = above.ok_or_else(|| QmpError::generic("the chain has changed"))?;
            let file = a.backing_file.as_deref();
            Box::new(Commit::new(graph, &id, [&above, &top, &base], file).map_err(failed)?)
        };
        self.start(start, task)
    }

    pub(super) fn start_stream(&self, a: BlockStreamArgs) -> Result<(), QmpError> {
        let top = self.image_of(&a.device)?;
        let mut base = self.in_chain(&top, a.base_node.as_deref(), a.base.as_deref())?;
        if let Some(bottom) = &a.bottom {
            if base.is_some() {
                return Err(QmpError::generic("give the base or the bottom, not both"));
            }
            let bottom = self.in_chain(&top, Some(bottom), None)?;
            base = bottom.and_then(|bottom| bottom.behind());
        }
        if base.as_ref().is_some_and(|base| Arc::ptr_eq(base, &top)) {
            return Err(QmpError::generic("the base is the image itself"));
        }
        let graph = &self.storage.opener.graph;
        let file = a.backing_file.as_deref();
        let task = Stream::new(graph, &top, base.as_ref(), file).map_err(failed)?;
        let start = Start {
            id: a.job_id,
            device: a.device,
            kind: JobKind::Stream,
            speed: a.speed,
            on_error: a.on_error,
            auto_finalize: a.auto_finalize,
            auto_dismiss: a.auto_dismiss,
        };
        self.start(start, Box::new(task))
    }

    pub(super) fn start_mirror(&self, a: BlockdevMirrorArgs) -> Result<(), QmpError> {
        let source = self.image_of(&a.device)?;
        let target = self.named(&a.target)?;
        if source
            .subtree()
            .iter()
            .any(|node| Arc::ptr_eq(node, &target))
        {
            return Err(QmpError::generic("the target is part of the disk itself"));
        }
        let base = match a.sync {
            MirrorSyncMode::Full => None,
            MirrorSyncMode::Top => source.behind(),
        };
        let start = Start {
            id: a.job_id,
            device: a.device,
            kind: JobKind::Mirror,
            speed: a.speed,
            on_error: a.on_source_error,
            auto_finalize: a.auto_finalize,
            auto_dismiss: a.auto_dismiss,
        };
        let id = start.id.clone().unwrap_or_else(|| start.device.clone());
        let graph = &self.storage.opener.graph;
        let task = Mirror::new(graph, &id, &source, &target, base).map_err(failed)?;
        self.start(start, Box::new(task))
    }

    pub(super) fn start_create(&self, a: BlockdevCreateArgs) -> Result<(), QmpError> {
        let mut opts = self.opts("blockdev-create", &a.options)?;
        let driver = opts.take("driver").unwrap_or_default();
        let size = opts
            .take("size")
            .and_then(|size| control_options::number::size(&size, 1));
        let len = size
            .and_then(|size| size.checked_next_multiple_of(backend_block::SECTOR))
            .ok_or_else(|| QmpError::generic("Parameter 'size' is missing or makes no sense"))?;
        let opener = &self.storage.opener;
        let class = opener.driver(&driver).map_err(failed)?;
        let task: Box<dyn Task> = if driver == "file" {
            let Some(path) = opts.take("filename") else {
                return Err(QmpError::generic("Parameter 'filename' is missing"));
            };
            refuse(&driver, &opts)?;
            Box::new(CreateFile(path.into(), opener.fds.clone(), len))
        } else {
            let can = class.create.is_some() || driver == "raw";
            let Some(file) = opts.take("file").filter(|_| can) else {
                let problem = match can {
                    true => "Parameter 'file' is missing: the name of the node that the image is made in".to_owned(),
                    false => format!("Driver '{driver}' makes no images"),
                };
                return Err(QmpError::generic(problem));
            };
            if class.create.is_none() {
                refuse(&driver, &opts)?;
            }
            let node = self.named(&file)?;
            let used = perm::CONSISTENT_READ | perm::WRITE | perm::RESIZE;
            let file = Child::attach(node, &a.job_id, "job", used, perm::CONSISTENT_READ);
            Box::new(Create {
                class: class.create,
                file: file.map_err(failed)?,
                len,
                options: create_options(&opts),
            })
        };
        let spec = JobSpec {
            id: a.job_id,
            kind: JobKind::Create,
            auto_finalize: true,
            auto_dismiss: false,
            speed: 0,
            on_error: ErrorPolicy::Report,
        };
        self.jobs.start(spec, task).map_err(QmpError::generic)
    }

    /// The HMP command `commit`: waits until it is done.
    pub(super) fn commit_now(&self, device: &str) -> Result<(), QmpError> {
        let is_all = device == "all";
        let disks = self.storage.disks.all();
        let ids: Vec<String> = disks.iter().map(|disk| disk.info().id).collect();
        let ids: Vec<&String> = ids.iter().filter(|id| is_all || *id == device).collect();
        if ids.is_empty() && !is_all {
            let problem = format!("Device '{device}' not found");
            return Err(QmpError::new(ErrorClass::DeviceNotFound, problem));
        }
        for id in ids {
            let top = self.image_of(id)?;
            match top.child("backing") {
                Some(base) => self.commit_into(&top, &base)?,
                None if is_all => {}
                None => {
                    let problem = format!("Device '{id}' has no backing image to commit into");
                    return Err(QmpError::generic(problem));
                }
            }
        }
        Ok(())
    }

    fn commit_into(&self, top: &Arc<Node>, base: &Arc<Node>) -> Result<(), QmpError> {
        let graph = &self.storage.opener.graph;
        let _claim = graph
            .claim(&[top.clone(), base.clone()], "commit")
            .map_err(failed)?;
        backend_block::commit_now(graph, top, base).map_err(failed)?;
        Ok(())
    }

    pub(super) fn query_jobs(&self) -> Vec<JobInfo> {
        let job = |job: &Arc<Job>| {
            let info = job.info();
            JobInfo {
                id: info.spec.id,
                kind: job_type(info.spec.kind),
                status: status(info.status),
                current_progress: info.offset,
                total_progress: info.len,
                error: info.error,
            }
        };
        self.jobs.all().iter().map(job).collect()
    }

    pub(super) fn query_block_jobs(&self) -> Vec<BlockJobInfo> {
        let jobs = self.jobs.all();
        let infos = jobs.iter().map(|job| job.info());
        let job = |info: backend_block::JobInfo| BlockJobInfo {
            kind: job_type(info.spec.kind),
            device: info.spec.id,
            len: info.len,
            offset: info.offset,
            busy: info.status == backend_block::JobStatus::Running,
            paused: info.is_paused,
            speed: info.spec.speed,
            io_status: query::io_status(info.io_status),
            ready: matches!(
                info.status,
                backend_block::JobStatus::Ready | backend_block::JobStatus::Standby
            ),
            status: status(info.status),
            auto_finalize: info.spec.auto_finalize,
            auto_dismiss: info.spec.auto_dismiss,
            error: info.error,
        };
        infos
            .filter(|info| info.spec.kind.is_block())
            .map(job)
            .collect()
    }

    pub(super) fn change(
        &self,
        id: &str,
        change: JobChange,
        is_block: bool,
    ) -> Result<(), QmpError> {
        let job = self.jobs.find(id);
        let job = job.filter(|job| !is_block || job.info().spec.kind.is_block());
        let Some(job) = job else {
            return Err(match is_block {
                true => {
                    let problem = format!("Block job '{id}' not found");
                    QmpError::new(ErrorClass::DeviceNotActive, problem)
                }
                false => QmpError::generic("Job not found"),
            });
        };
        let changed = match change {
            JobChange::Cancel { force } => job.cancel(force),
            JobChange::Pause => job.set_paused(true),
            JobChange::Resume => job.set_paused(false),
            JobChange::SetSpeed(speed) => job.set_speed(speed),
            JobChange::Complete => job.complete(),
            JobChange::Finalize => job.finalize(),
            JobChange::Dismiss => self.jobs.dismiss(&job),
        };
        changed.map_err(QmpError::generic)
    }
}

/// The properties of `blockdev-create`, if the driver makes images; see [`BlockControl::start_create`].
pub(crate) fn create_settings(class: &DriverClass) -> Option<Vec<PropDef>> {
    let size = PropDef::new("size", PropKind::Size, "bytes").required();
    let place = match class.name {
        "file" => PropDef::new("filename", PropKind::Str, "the file"),
        _ => PropDef::new("file", PropKind::Str, "name of the node that it is made in"),
    };
    let own = match class.create {
        Some(create) => create.props,
        None if matches!(class.name, "file" | "raw") => &[],
        None => return None,
    };
    let own = own.iter().map(|def| match def.name {
        "compat" => PropDef::new("version", PropKind::Enum(&["v2", "v3"]), def.doc),
        _ => *def,
    });
    Some([place.required(), size].into_iter().chain(own).collect())
}

/// A driver without options of its own was given some.
fn refuse(driver: &str, opts: &Opts) -> Result<(), QmpError> {
    match opts.iter().next() {
        None => Ok(()),
        Some((key, _)) => Err(failed(OpenError::Other(format!(
            "blockdev-create: driver '{driver}' has no option '{key}'; leave it out"
        )))),
    }
}

/// The options of `blockdev-create` in the words of `-o`.
fn create_options(opts: &Opts) -> Opts {
    let mut out = Opts::default();
    for (key, value) in opts.iter() {
        match key {
            "version" => {
                let compat = if value.text() == "v2" { "0.10" } else { "1.1" };
                out.push("compat", text(compat));
            }
            key => out.push(&key.replace('-', "_"), value.clone()),
        }
    }
    out
}
