//! What a machine that is stuck says of itself.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What is asked.
const QUESTIONS: &str =
    "info status\ninfo registers -a\ninfo pic\ninfo irq\ninfo lapic 0\ninfo lapic 1\ninfo jit\n";

/// How long an answer may take. One that hangs is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the monitor at this socket.
pub(crate) fn ask(path: &Path) -> String {
    let mut said = Vec::new();
    if let Err(error) = talk(path, &mut said) {
        said.extend(format!("({error})").bytes());
    }
    // The terminal's echo of what is typed, and how it moves the cursor, are of no use.
    let text = String::from_utf8_lossy(&said).replace("\x1b[K", "");
    let lines = text.lines().map(|line| {
        let shown = line.rfind("\x1b[D").map(|at| &line[at + 3..]);
        shown.unwrap_or(line).trim_end()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn talk(path: &Path, said: &mut Vec<u8>) -> std::io::Result<()> {
    let mut monitor = UnixStream::connect(path)?;
    monitor.set_read_timeout(Some(PATIENCE))?;
    monitor.write_all(QUESTIONS.as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        match monitor.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            // It has said all.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
