//! One running machine.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::console::Console;
use crate::qmp::{Pending, Qmp};
use crate::{Error, Folder, Guest, binary, state};

/// How long a test waits for one thing. Far beyond any boot: it ends tests that hang, and a slow
/// host must not make others fail.
const PATIENCE: Duration = Duration::from_secs(300);

/// The guest's prompt, as its `/init` sets it.
const PROMPT: &str = "guest# ";

/// A machine to be started. Begins with no default devices but the console.
#[derive(Clone, Debug)]
pub struct VmBuilder {
    machine: String,
    program: Option<PathBuf>,
    image: Option<PathBuf>,
    args: Vec<OsString>,
    append: Option<String>,
    console: &'static str,
    with_qmp: bool,
    on_debugcon: bool,
    patience: Duration,
}

/// A started machine; dropping it ends it.
pub struct Vm {
    child: Child,
    stdin: Option<ChildStdin>,
    console: Console,
    errors: Console,
    pending: Option<Pending>,
    patience: Duration,
    /// Where it can be asked what it is doing.
    monitor: Option<PathBuf>,
    /// Dropped after the machine has ended.
    _folder: Folder,
}

/// How a machine ended, and all it wrote.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// The whole console.
    pub console: String,
    /// Standard error output.
    pub errors: String,
}

impl VmBuilder {
    /// Another emulator than the one under test.
    #[must_use]
    pub fn program(mut self, path: impl AsRef<Path>) -> Self {
        self.program = Some(path.as_ref().to_owned());
        self
    }

    /// Starts this image by `mimic run`, which chooses all else: further arguments are that command's.
    #[must_use]
    pub fn image(mut self, path: impl AsRef<Path>) -> Self {
        self.image = Some(path.as_ref().to_owned());
        self
    }

    /// Any further argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// An option and its value.
    #[must_use]
    pub fn option(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.arg(name).arg(value)
    }

    /// Several words, as one would type them.
    #[must_use]
    pub fn args(self, words: &str) -> Self {
        words.split_whitespace().fold(self, Self::arg)
    }

    /// Boots the packaged kernel with the plain initrd.
    #[must_use]
    pub fn linux(self, guest: &Guest) -> Self {
        let console = guest.console;
        VmBuilder { console, ..self }
            .kernel(&guest.vmlinuz)
            .option("-initrd", &guest.initrd)
    }

    /// The kernel file.
    #[must_use]
    pub fn kernel(self, path: impl AsRef<Path>) -> Self {
        self.option("-kernel", path.as_ref())
    }

    /// More words for the kernel's command line, which begins with the console.
    #[must_use]
    pub fn append(mut self, words: &str) -> Self {
        let append = self.append.get_or_insert_default();
        append.push(' ');
        append.push_str(words);
        self
    }

    /// The number of vCPUs.
    #[must_use]
    pub fn cpus(self, n: u32) -> Self {
        self.option("-smp", n.to_string())
    }

    /// Makes port 0x402 the console instead of COM1: SeaBIOS reports there.
    #[must_use]
    pub fn debugcon(mut self) -> Self {
        self.on_debugcon = true;
        self
    }

    /// Opens a QMP monitor for [`Vm::qmp`].
    #[must_use]
    pub fn with_qmp(mut self) -> Self {
        self.with_qmp = true;
        self
    }

    /// Another limit for each wait.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts the machine.
    pub fn boot(self) -> Result<Vm, Error> {
        let program = self.program.map_or_else(binary::program, Ok)?;
        let folder = Folder::new()?;
        let mut command = Command::new(&program);
        if let Some(image) = &self.image {
            command.arg("run").arg(image).args(&self.args);
        } else {
            command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
            command.arg("-machine").arg(&self.machine).args(&self.args);
            if self.on_debugcon {
                command.args(["-chardev", "stdio,id=console"]);
                command.args(["-device", "isa-debugcon,iobase=0x402,chardev=console"]);
            } else {
                command.args(["-serial", "stdio"]);
            }
        }
        let console = self.console;
        if let Some(append) = &self.append {
            let append = format!("console={console}{append}");
            command.arg("-append").arg(append);
        } else if self.args.iter().any(|arg| arg == "-initrd") {
            command.arg("-append").arg(format!("console={console}"));
        }
        // One that gets stuck is asked why.
        let has_monitor = self.args.iter().any(|arg| arg == "-monitor");
        let monitor = (self.image.is_none() && !has_monitor).then(|| folder.join("monitor"));
        if let Some(path) = &monitor {
            let at = format!("unix:{},server=on,wait=off", path.display());
            command.arg("-monitor").arg(at);
        }
        let mut pending = None;
        if self.with_qmp {
            let path = folder.join("qmp");
            pending = Some(Pending::listen(UnixListener::bind(&path)?));
            command.arg("-qmp").arg(format!("unix:{}", path.display()));
        }
        let mut child = command
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|reason| Error::Start {
                program,
                reason: reason.to_string(),
            })?;
        let gather = |source: Option<_>| source.map_or_else(Console::default, Console::gather);
        let console = gather(child.stdout.take());
        let errors = child
            .stderr
            .take()
            .map_or_else(Console::default, Console::gather);
        let stdin = child.stdin.take();
        Ok(Vm {
            stdin,
            console,
            errors,
            pending,
            patience: self.patience,
            monitor,
            _folder: folder,
            child,
        })
    }
}

impl Vm {
    /// A machine of this type, by the name `-machine` takes.
    #[expect(
        clippy::new_ret_no_self,
        reason = "reads as what it is: a machine, to be described"
    )]
    pub fn new(machine: &str) -> VmBuilder {
        VmBuilder {
            machine: machine.to_owned(),
            program: None,
            image: None,
            args: Vec::new(),
            append: None,
            console: "ttyS0",
            with_qmp: false,
            on_debugcon: false,
            patience: PATIENCE,
        }
    }

    /// Waits for `wanted` on the console, after what was matched before; returns what came before
    /// it.
    pub fn expect(&mut self, wanted: &str) -> Result<String, Error> {
        self.console
            .expect(wanted, self.patience)
            .map_err(|reason| Error::NotSeen {
                wanted: wanted.to_owned(),
                reason,
                seen: self.seen(),
            })
    }

    /// Types on the console.
    pub fn send(&mut self, text: &str) -> Result<(), Error> {
        if let Some(stdin) = &mut self.stdin {
            stdin.write_all(text.as_bytes())?;
            stdin.flush()?;
        }
        Ok(())
    }

    /// Types a command at the guest's prompt and returns its output. The prompt is waited for
    /// first.
    pub fn shell(&mut self, command: &str) -> Result<String, Error> {
        // The terminal echoes what is typed; the marks in it are quoted apart, so that only the
        // output of `echo` shows them whole.
        self.expect(PROMPT)?;
        self.send(&format!("echo BEG''IN; {command}; echo E''ND\n"))?;
        self.expect("BEGIN\r\n")?;
        let output = self.expect("END\r\n")?;
        Ok(output.replace("\r\n", "\n").trim_end().to_owned())
    }

    /// The monitor, connected and ready for commands.
    pub fn qmp(&mut self) -> Result<Qmp, Error> {
        let pending = self.pending.take().ok_or_else(|| {
            Error::QmpStream("the machine was started without a monitor".to_owned())
        })?;
        let child = &mut self.child;
        pending.accept(self.patience, || matches!(child.try_wait(), Ok(None)))
    }

    /// Another limit for the waits from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The process of the machine.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the console showed so far.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Waits for the machine to end by itself.
    pub fn wait_exit(&mut self) -> Result<Ended, Error> {
        // The process holds its output open to the end, so no polling is needed.
        if !self.console.wait_end(self.patience) {
            return Err(Error::Exit {
                reason: "the machine did not end in time".to_owned(),
                seen: self.seen(),
            });
        }
        let status = self.child.wait()?;
        self.errors.wait_end(self.patience);
        Ok(Ended {
            status,
            console: self.console.text(),
            errors: self.errors.text(),
        })
    }

    /// Waits for the end and demands exit status 0.
    pub fn expect_success(&mut self) -> Result<(), Error> {
        let ended = self.wait_exit()?;
        if ended.status.success() {
            return Ok(());
        }
        Err(Error::Exit {
            reason: format!("the machine ended with {}", ended.status),
            seen: self.seen(),
        })
    }

    fn seen(&self) -> String {
        // One that has ended has said why, or is about to.
        if self.console.wait_end(Duration::ZERO) {
            self.errors.wait_end(Duration::from_secs(5));
        }
        let state = match &self.monitor {
            Some(path) if !self.console.wait_end(Duration::ZERO) => state::ask(path),
            _ => String::new(),
        };
        format!(
            "--- console ---\n{}\n--- standard error ---\n{}\n--- monitor ---\n{state}",
            self.console.tail(40),
            self.errors.tail(20)
        )
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
