//! `mmdebstrap` for an architecture whose programs this host does not run.
//!
//! It runs in a user namespace with a `binfmt_misc` of its own, which every kernel since 6.7 lets a
//! namespace have: there, and nowhere else, the kernel hands programs of that architecture to `qemu-user`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The first bytes of a program for aarch64, and which of their bits count (ELF header: class, data, type,
/// machine).
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str =
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// What is run in the namespace: says that it is there, waits to be given its users, and goes on as
/// `mmdebstrap`. `F`: the emulator is opened now, and found from inside of the new root.
const SCRIPT: &str = r#"
set -e
echo ready
read -r _
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf '%s' ":mimic:M::$MAGIC:$MASK:$EMULATOR:OCF" > /proc/sys/fs/binfmt_misc/register
exec mmdebstrap --mode=root --skip=check/qemu "$@"
"#;

/// The command, to which the caller adds `mmdebstrap`'s arguments. `tool` finds programs.
pub(super) fn mmdebstrap(tool: impl Fn(&str) -> Command) -> Command {
    let mut command = tool("unshare");
    command.args(["--user", "--mount", "--pid", "--fork"]);
    if !rustix::process::getuid().is_root() {
        // Users that are not root have theirs from /etc/subuid.
        command.args(["--map-root-user", "--map-auto"]);
    }
    command.args(["sh", "-c", SCRIPT, "sh"]);
    command
}

/// Runs it with this emulator.
pub(super) fn run(command: &mut Command, emulator: &Path) -> Result<()> {
    let mut child = command
        .env("MAGIC", MAGIC)
        .env("MASK", MASK)
        .env("EMULATOR", emulator)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start unshare (package 'util-linux')")?;
    let (Some(mut orders), Some(words), Some(mut errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        bail!("no pipes");
    };
    // Both are read to the end, so that neither fills up.
    let gathered = std::thread::spawn(move || {
        let mut said = String::new();
        let _ = errors.read_to_string(&mut said);
        said
    });
    let mut words = BufReader::new(words);
    let mut line = String::new();
    words.read_line(&mut line)?;
    if line == "ready\n" && rustix::process::getuid().is_root() {
        // Root's namespace has root and as many others as Debian knows, each as itself.
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{}/{map}", child.id()), "0 0 65536\n")
                .context("cannot give a namespace its users")?;
        }
    }
    let _ = orders.write_all(b"go\n");
    drop(orders);
    std::io::copy(&mut words, &mut std::io::sink())?;
    let status = child.wait()?;
    let said = gathered.join().unwrap_or_default();
    if !status.success() {
        let said = said.lines().rfind(|line| !line.is_empty());
        bail!(
            "{} (this takes the package 'mmdebstrap', and Linux 6.7 with binfmt_misc and user namespaces)",
            said.unwrap_or("mmdebstrap failed")
        );
    }
    Ok(())
}
