//! The oracles: `qemu-aarch64` and `qemu-arm`.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::aarch32;
use crate::program::{Program, Record, SIZE};

/// Whether it is there; says so if not.
pub fn is_there(qemu: &str) -> bool {
    let there = Command::new(qemu)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("SKIPPED: no {qemu} (Debian's package qemu-user)");
    }
    there
}

/// Runs a program: the records after.
pub fn run(program: &Program, name: &str) -> Result<Vec<Record>, String> {
    let bytes = program.count * SIZE;
    output("qemu-aarch64", &program.image, bytes, name).map(|b| program.parse(&b))
}

/// Runs a program of A32 or T32: the records after.
pub fn run_32(program: &aarch32::Program, name: &str) -> Result<Vec<aarch32::Record>, String> {
    let bytes = program.count * aarch32::SIZE;
    output("qemu-arm", &program.image, bytes, name).map(|b| program.parse(&b))
}

/// Runs an ELF file that writes so many bytes.
fn output(qemu: &str, image: &[u8], bytes: usize, name: &str) -> Result<Vec<u8>, String> {
    let path = std::env::temp_dir().join(format!("mimic-{}-{name}", std::process::id()));
    let text = |e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::write(&path, image).map_err(text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(text)?;
    // A program that went astray may never end.
    let output = Command::new("timeout")
        .args(["120", qemu, "-cpu", "max"])
        .arg(&path)
        .output()
        .map_err(text);
    let _ = std::fs::remove_file(&path);
    let output = output?;
    if output.stdout.len() != bytes {
        return Err(format!(
            "{qemu}: {}, {} bytes of {bytes}: {}",
            output.status,
            output.stdout.len(),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(output.stdout)
}
