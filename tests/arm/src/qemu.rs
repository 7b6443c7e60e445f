//! The oracle: `qemu-aarch64`.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::program::{Program, Record, SIZE};

/// Whether it is there; says so if not.
pub fn is_there() -> bool {
    let there = Command::new("qemu-aarch64")
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("SKIPPED: no qemu-aarch64 (Debian's package qemu-user)");
    }
    there
}

/// Runs a program: the records after.
pub fn run(program: &Program, name: &str) -> Result<Vec<Record>, String> {
    let path = std::env::temp_dir().join(format!("mimic-{}-{name}", std::process::id()));
    let text = |e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::write(&path, &program.image).map_err(text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(text)?;
    let output = Command::new("qemu-aarch64")
        .args(["-cpu", "max"])
        .arg(&path)
        .output()
        .map_err(text);
    let _ = std::fs::remove_file(&path);
    let output = output?;
    if output.stdout.len() != program.count * SIZE {
        return Err(format!(
            "qemu-aarch64: {}, {} bytes of {}: {}",
            output.status,
            output.stdout.len(),
            program.count * SIZE,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(program.parse(&output.stdout))
}
