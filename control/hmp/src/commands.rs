//! The commands.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use control_options::suggest::Hint;
use control_qapi::{AddressSpace, InfoTopic, Key, QKeyCode, Qapi, QmpError, Value, Vm, json};
use control_qmp::{Context, Handed, Human, execute};

use crate::args::{ArgDef, Args, Kind};
use crate::{block, dump, info, media};

/// What clients and scripts look for.
pub const PROMPT: &str = "(qemu) ";

/// Most keys pressed together.
const KEYS_MAX: usize = 16;

/// One command.
pub struct CommandDef {
    /// Its name.
    pub name: &'static str,
    /// A shorter one.
    pub alias: Option<&'static str>,
    /// Its arguments, as help shows them.
    pub params: &'static str,
    /// What it does.
    pub doc: &'static str,
    args: &'static [ArgDef],
    run: fn(&Call<'_>, &Args) -> Result<String, QmpError>,
}

impl std::fmt::Debug for CommandDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandDef")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

const FORMAT: ArgDef = ArgDef::new("fmt", Kind::Format).or_none();
const ADDRESS: ArgDef = ArgDef::new("addr", Kind::Expr);
const SIZE: ArgDef = ArgDef::new("size", Kind::Expr);
const DEVICE: ArgDef = ArgDef::new("device", Kind::Word);
const MORE: ArgDef = ArgDef::new("more", Kind::Word).or_none();
const FILE: ArgDef = ArgDef::new("filename", Kind::Word);

macro_rules! command {
    ($name:literal $(| $alias:literal)?, $params:literal, $doc:literal, $args:expr, $run:expr) => {
        CommandDef {
            name: $name,
            alias: { #[allow(unused_mut, unused_assignments)] { let mut _alias: Option<&'static str> = None; $(_alias = Some($alias);)? _alias } },
            params: $params,
            doc: $doc,
            args: $args,
            run: $run,
        }
    };
}

/// All commands.
pub static COMMANDS: &[CommandDef] = &[
    command!(
        "block_job_cancel",
        "[-f] device",
        "end a job on a disk; -f at once",
        &[DEVICE, MORE],
        block::job_cancel
    ),
    command!(
        "block_job_complete",
        "device",
        "end a job on a disk that is ready",
        &[DEVICE],
        |c, a| c.job(a, "block-job-complete")
    ),
    command!(
        "block_job_pause",
        "device",
        "pause a job on a disk",
        &[DEVICE],
        |c, a| c.job(a, "block-job-pause")
    ),
    command!(
        "block_job_resume",
        "device",
        "let a job on a disk go on",
        &[DEVICE],
        |c, a| c.job(a, "block-job-resume")
    ),
    command!(
        "block_job_set_speed",
        "device speed",
        "limit a job on a disk to so many MiB a second; other units may follow the number",
        &[DEVICE, ArgDef::new("speed", Kind::Size)],
        |c, a| {
            let (device, speed) = (a.text("device"), a.number("speed"));
            c.qmp_do(
                "block-job-set-speed",
                json!({ "device": device, "speed": speed }),
            )
        }
    ),
    command!(
        "block_resize",
        "device size",
        "change the size of a disk, in MiB; other units may follow the number",
        &[DEVICE, ArgDef::new("size", Kind::Size)],
        |c, a| {
            let (device, size) = (a.text("device"), a.number("size"));
            c.qmp_do("block_resize", json!({ "device": device, "size": size }))
        }
    ),
    command!(
        "block_set_io_throttle",
        "device bps bps_rd bps_wr iops iops_rd iops_wr",
        "limit a disk",
        &[
            DEVICE,
            ArgDef::new("bps", Kind::Expr),
            ArgDef::new("bps_rd", Kind::Expr),
            ArgDef::new("bps_wr", Kind::Expr),
            ArgDef::new("iops", Kind::Expr),
            ArgDef::new("iops_rd", Kind::Expr),
            ArgDef::new("iops_wr", Kind::Expr)
        ],
        block::set_io_throttle
    ),
    command!(
        "block_stream",
        "device [speed [base]]",
        "bring what lies behind a disk into it",
        &[
            DEVICE,
            ArgDef::new("speed", Kind::Size).or_none(),
            ArgDef::new("base", Kind::Word).or_none()
        ],
        block::stream
    ),
    command!(
        "change",
        "[-f] device filename [format [read-only-mode]]",
        "change the medium of a drive",
        &[ArgDef::new("words", Kind::Rest)],
        media::change
    ),
    command!(
        "commit",
        "device|all",
        "write what overlays hold into their backing files",
        &[DEVICE],
        |c, a| {
            let device = a.text("device").unwrap_or_default();
            c.vm.blocks().commit_disk(device).map(|()| String::new())
        }
    ),
    command!("cont" | "c", "", "let the vCPUs go on", &[], |c, _| c
        .qmp_do("cont", json!({}))),
    command!(
        "cpu",
        "index",
        "choose the vCPU that other commands are about",
        &[ArgDef::new("index", Kind::Expr)],
        cpu
    ),
    command!(
        "drive_add",
        "[-n] [[domain:]bus:]slot options",
        "open a drive for a device to come ('if=none,id=...,file=...'); -n a node of the block graph",
        &[ArgDef::new("words", Kind::Rest)],
        block::drive_add
    ),
    command!(
        "drive_del",
        "device",
        "close a drive or node that nobody uses",
        &[DEVICE],
        |c, a| {
            let device = a.text("device").unwrap_or_default();
            c.vm.blocks().delete_drive(device).map(|()| String::new())
        }
    ),
    command!(
        "eject",
        "[-f] device",
        "take the medium out of a drive; -f even if the guest holds it",
        &[ArgDef::new("words", Kind::Rest)],
        media::eject
    ),
    command!(
        "help" | "?",
        "[cmd]",
        "show the commands, or one",
        &[ArgDef::new("name", Kind::Word).or_none()],
        help
    ),
    command!(
        "info" | "i",
        "[topic]",
        "show something about the machine",
        &[
            ArgDef::new("item", Kind::Word).or_none(),
            ArgDef::new("detail", Kind::Rest).or_none()
        ],
        |c, a| {
            info::run(
                c,
                a.text("item").unwrap_or_default(),
                a.text("detail").unwrap_or_default(),
            )
        }
    ),
    command!(
        "memsave",
        "addr size file",
        "save virtual memory to a file",
        &[ADDRESS, SIZE, FILE],
        |c, a| memsave(c, a, "memsave")
    ),
    command!("nmi", "", "send a non-maskable interrupt", &[], |c, _| c
        .qmp_do("inject-nmi", json!({}))),
    command!(
        "device_add",
        "driver[,prop=value...]",
        "plug a device in",
        &[ArgDef::new("device", Kind::Rest)],
        |c, a| block::add(c, a.text("device"), "driver", "device_add")
    ),
    command!(
        "device_del",
        "id",
        "take a device out, or ask the guest to let go of it",
        &[ArgDef::new("id", Kind::Word)],
        |c, a| c.qmp_do("device_del", json!({ "id": a.text("id") }))
    ),
    command!(
        "object_add",
        "type,id=ID[,prop=value...]",
        "make an object that disks can use",
        &[ArgDef::new("object", Kind::Rest)],
        |c, a| block::add(c, a.text("object"), "qom-type", "object-add")
    ),
    command!(
        "object_del",
        "id",
        "delete an object that nobody uses",
        &[ArgDef::new("id", Kind::Word)],
        |c, a| c.qmp_do("object-del", json!({ "id": a.text("id") }))
    ),
    command!(
        "pmemsave",
        "addr size file",
        "save physical memory to a file",
        &[ADDRESS, SIZE, FILE],
        |c, a| memsave(c, a, "pmemsave")
    ),
    command!(
        "print" | "p",
        "/fmt expr",
        "show the value of an expression ($reg for registers)",
        &[FORMAT, ArgDef::new("val", Kind::Expr)],
        print
    ),
    command!("quit" | "q", "", "end the emulator", &[], |c, _| c
        .qmp_do("quit", json!({}))),
    command!(
        "ringbuf_read",
        "device size",
        "take output out of a ring buffer stream",
        &[ArgDef::new("device", Kind::Word), SIZE],
        ringbuf_read
    ),
    command!(
        "sendkey",
        "keys [hold_ms]",
        "press keys together (e.g. ctrl-alt-f1)",
        &[
            ArgDef::new("keys", Kind::Word),
            ArgDef::new("hold", Kind::Expr).or_none()
        ],
        sendkey
    ),
    command!(
        "snapshot_blkdev",
        "[-n] device file [format]",
        "freeze a disk behind a new image; -n behind one that is there",
        &[
            DEVICE,
            ArgDef::new("file", Kind::Word),
            ArgDef::new("format", Kind::Word).or_none(),
            MORE
        ],
        block::snapshot_blkdev
    ),
    command!(
        "snapshot_blkdev_internal",
        "device name",
        "freeze a disk in its own image",
        &[DEVICE, ArgDef::new("name", Kind::Word)],
        block::snapshot_internal
    ),
    command!(
        "snapshot_delete_blkdev_internal",
        "device name [id]",
        "delete a snapshot in a disk's own image",
        &[
            DEVICE,
            ArgDef::new("name", Kind::Word),
            ArgDef::new("id", Kind::Word).or_none()
        ],
        block::snapshot_delete_internal
    ),
    command!("stop" | "s", "", "park the vCPUs", &[], |c, _| c
        .qmp_do("stop", json!({}))),
    command!(
        "system_powerdown",
        "",
        "press the power button",
        &[],
        |c, _| c.qmp_do("system_powerdown", json!({}))
    ),
    command!("system_reset", "", "reset the machine", &[], |c, _| c
        .qmp_do("system_reset", json!({}))),
    command!(
        "x",
        "/fmt addr",
        "show virtual memory; /10i shows ten instructions",
        &[FORMAT, ADDRESS],
        |c, a| { c.dump(AddressSpace::Virtual(c.cpu), a) }
    ),
    command!(
        "xp",
        "/fmt addr",
        "show physical memory",
        &[FORMAT, ADDRESS],
        |c, a| c.dump(AddressSpace::Physical, a)
    ),
];

/// The human monitor of one machine, without a stream.
#[derive(Clone)]
pub struct Hmp {
    vm: Arc<dyn Vm>,
    /// The vCPU that commands are about.
    cpu: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Hmp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hmp")
            .field("cpu", &self.cpu)
            .finish_non_exhaustive()
    }
}

impl Hmp {
    /// A monitor about `vm`.
    pub fn new(vm: Arc<dyn Vm>) -> Self {
        Self {
            vm,
            cpu: Arc::default(),
        }
    }

    /// Runs a line and returns what it prints, errors included. Lines end in `\n`.
    pub fn run(&self, line: &str) -> String {
        self.run_for(line, None)
    }

    /// Runs a line about this vCPU: for `human-monitor-command`.
    pub fn run_for(&self, line: &str, cpu: Option<usize>) -> String {
        let line = line.trim();
        if line.is_empty() {
            return String::new();
        }
        match self.dispatch(line, cpu) {
            Ok(text) => text,
            Err(e) => format!("Error: {e}\n"),
        }
    }

    /// What QMP's `human-monitor-command` calls. Lines end in `\r\n` there, as from QEMU.
    pub fn human(&self) -> Arc<Human> {
        let hmp = self.clone();
        Arc::new(move |line, cpu| Ok(hmp.run_for(line, cpu).replace('\n', "\r\n")))
    }

    fn dispatch(&self, line: &str, cpu: Option<usize>) -> Result<String, QmpError> {
        // "x/10i" and "p/x" come without a space.
        let end = line
            .find(|c: char| c.is_whitespace() || c == '/')
            .unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let Some(command) = find(name) else {
            return Ok(unknown(name));
        };
        let cpu = cpu.unwrap_or_else(|| self.cpu.load(Ordering::Relaxed));
        let call = Call {
            vm: &*self.vm,
            cpu,
            chosen: &self.cpu,
        };
        let register = |name: &str| self.vm.register(cpu, name);
        let args = Args::parse(rest, command.args, &register).map_err(|e| {
            QmpError::generic(format!("{}: {e}; usage: {}", command.name, usage(command)))
        })?;
        (command.run)(&call, &args)
    }

    /// What could come at the end of this beginning of a line.
    pub fn complete(&self, line: &str) -> Vec<String> {
        let (start, word) = line.rsplit_once(char::is_whitespace).unwrap_or(("", line));
        let names: Vec<&str> = match start.trim() {
            "" if !line.starts_with(char::is_whitespace) => {
                COMMANDS.iter().map(|c| c.name).collect()
            }
            "help" | "?" => COMMANDS.iter().map(|c| c.name).collect(),
            "info" | "i" => info::TOPICS.iter().map(|t| t.name).collect(),
            "sendkey" => QKeyCode::ALL.iter().map(|k| k.name()).collect(),
            _ => Vec::new(),
        };
        names
            .into_iter()
            .filter(|n| n.starts_with(word))
            .map(str::to_owned)
            .collect()
    }
}

/// What a running command knows.
pub(crate) struct Call<'a> {
    pub(crate) vm: &'a dyn Vm,
    pub(crate) cpu: usize,
    chosen: &'a AtomicUsize,
}

impl Call<'_> {
    fn execute(&self, name: &str, arguments: Value) -> Result<Value, QmpError> {
        execute(
            &Context {
                vm: self.vm,
                human: None,
                handed: &Handed::default(),
            },
            name,
            arguments,
        )
    }

    /// A query.
    pub(crate) fn qmp<T: Qapi>(&self, name: &str) -> Result<T, QmpError> {
        T::from_json(name, self.execute(name, json!({}))?)
    }

    /// A command that answers nothing.
    pub(crate) fn qmp_do(&self, name: &str, arguments: Value) -> Result<String, QmpError> {
        self.execute(name, arguments).map(|_| String::new())
    }

    /// A command about a job.
    fn job(&self, a: &Args, name: &str) -> Result<String, QmpError> {
        self.qmp_do(name, json!({ "device": a.text("device") }))
    }

    pub(crate) fn topic(&self, topic: InfoTopic, detail: &str) -> Result<String, QmpError> {
        self.vm.info(topic, self.cpu, detail)
    }

    fn dump(&self, space: AddressSpace, a: &Args) -> Result<String, QmpError> {
        dump::memory(
            self.vm,
            self.cpu,
            space,
            a.format(),
            a.number("addr").unwrap_or(0),
        )
    }
}

fn find(name: &str) -> Option<&'static CommandDef> {
    COMMANDS
        .iter()
        .find(|c| c.name == name || c.alias == Some(name))
}

fn usage(command: &CommandDef) -> String {
    let space = if command.params.is_empty() { "" } else { " " };
    format!("{}{space}{}", command.name, command.params)
}

/// Commands of QEMU's that are not there, and what to do instead.
const ABSENT: &[(&str, &str)] = &[
    (
        "drive_backup",
        "copy the disk with QMP's 'blockdev-mirror', and end the job when it is ready",
    ),
    (
        "drive_mirror",
        "make the target with 'mimic img create', and use QMP's 'blockdev-add' and 'blockdev-mirror'",
    ),
];

fn unknown(name: &str) -> String {
    let shown: String = name.chars().take(40).collect();
    if let Some((_, instead)) = ABSENT.iter().find(|(absent, _)| *absent == name) {
        return format!("'{shown}' is not available yet; {instead}\n");
    }
    let hint = match control_options::suggest::nearest(name, COMMANDS.iter().map(|c| c.name)) {
        Some(best) => Hint::text(format!("did you mean '{best}'?")),
        None => Hint::text("'help' lists the commands"),
    };
    format!("unknown command: '{shown}'{hint}\n")
}

fn help(_: &Call<'_>, a: &Args) -> Result<String, QmpError> {
    let wanted = a.text("name").unwrap_or_default();
    let mut out = String::new();
    for command in COMMANDS {
        if !wanted.is_empty() && command.name != wanted && command.alias != Some(wanted) {
            continue;
        }
        let alias = command
            .alias
            .map_or_else(String::new, |alias| format!("|{alias}"));
        let space = if command.params.is_empty() { "" } else { " " };
        let _ = writeln!(
            out,
            "{}{alias}{space}{} -- {}",
            command.name, command.params, command.doc
        );
    }
    if wanted == "info" {
        out.push_str(&info::help());
    }
    Ok(if out.is_empty() { unknown(wanted) } else { out })
}

fn cpu(c: &Call<'_>, a: &Args) -> Result<String, QmpError> {
    let count = c.vm.cpus().len();
    match a
        .number("index")
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n < count)
    {
        Some(index) => {
            c.chosen.store(index, Ordering::Relaxed);
            Ok(String::new())
        }
        None => Err(QmpError::generic(format!(
            "invalid CPU index; there are {count}, counted from 0"
        ))),
    }
}

fn print(_: &Call<'_>, a: &Args) -> Result<String, QmpError> {
    let value = a.number("val").unwrap_or(0);
    Ok(match a.format().letter {
        'd' => format!("{}\n", value.cast_signed()),
        'u' => format!("{value}\n"),
        'o' => format!("{value:#o}\n").replacen("0o", "0", 1),
        'c' => format!("{}\n", dump::value(value, 1, 'c')),
        _ => format!("{value:#x}\n"),
    })
}

fn memsave(c: &Call<'_>, a: &Args, name: &str) -> Result<String, QmpError> {
    let mut arguments = json!({
        "val": a.number("addr").unwrap_or(0),
        "size": a.number("size").unwrap_or(0),
        "filename": a.text("filename").unwrap_or_default(),
    });
    if let (true, Value::Object(members)) = (name == "memsave", &mut arguments) {
        members.insert("cpu-index".to_owned(), Value::from(c.cpu));
    }
    c.qmp_do(name, arguments)
}

fn sendkey(c: &Call<'_>, a: &Args) -> Result<String, QmpError> {
    let text = a.text("keys").unwrap_or_default();
    // Some keys have a name that is a sign, too.
    let text = text.replace('<', "less");
    let mut keys = Vec::new();
    for name in text.split('-') {
        let number = || {
            name.strip_prefix("0x")
                .and_then(|hex| u16::from_str_radix(hex, 16).ok())
        };
        let key = match (QKeyCode::named(name), number()) {
            (Some(code), _) => Key::Code(code),
            (None, Some(number)) => Key::Number(number),
            (None, None) => {
                let hint = Hint::new(name, QKeyCode::ALL.iter().map(|k| k.name()));
                let shown: String = name.chars().take(40).collect();
                return Err(QmpError::generic(format!("unknown key: '{shown}'{hint}")));
            }
        };
        keys.push(key.to_json());
        if keys.len() > KEYS_MAX {
            return Err(QmpError::generic(format!(
                "too many keys: at most {KEYS_MAX} together"
            )));
        }
    }
    let mut arguments = json!({ "keys": keys });
    if let (Some(hold), Value::Object(members)) = (a.number("hold"), &mut arguments) {
        members.insert("hold-time".to_owned(), Value::from(hold.min(60_000)));
    }
    c.qmp_do("send-key", arguments)
}

fn ringbuf_read(c: &Call<'_>, a: &Args) -> Result<String, QmpError> {
    let arguments = json!({
        "device": a.text("device").unwrap_or_default(),
        "size": a.number("size").unwrap_or(0).min(1 << 20),
    });
    match c.execute("ringbuf-read", arguments)? {
        Value::String(text) => Ok(text + "\n"),
        _ => Ok(String::new()),
    }
}
