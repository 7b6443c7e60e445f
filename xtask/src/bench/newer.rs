//! A QEMU of another Debian suite, unpacked beside the host's with all libraries it needs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kind::Kind;
use crate::host;

const ARCHIVE: &str = "http://deb.debian.org/debian";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The QEMU of a suite, by a script that starts it with its own loader, libraries and firmware.
/// What was fetched before is used again; removing the folder fetches anew.
pub(super) fn qemu(kind: &Kind, suite: &str, guests: &Path) -> Result<PathBuf> {
    let is_name = suite
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-');
    ensure!(
        is_name && !suite.is_empty(),
        "`{suite}` is not the name of a suite"
    );
    let program = kind.qemu();
    let home = guests.join(format!("{program}-of-{suite}"));
    let start = home.join(&program);
    if start.exists() {
        return Ok(start);
    }
    fetch(kind.package, suite, &home)
        .with_context(|| format!("cannot fetch the QEMU of {suite}"))?;
    let tree = home.join("tree");
    let text = format!(
        "#!/bin/sh\n\
         tree='{}'\n\
         exec \"$tree/usr/lib64/ld-linux-x86-64.so.2\" \\\n    \
         --library-path \"$tree/usr/lib/x86_64-linux-gnu:$tree/lib/x86_64-linux-gnu\" \\\n    \
         \"$tree/usr/bin/{program}\" \\\n    \
         -L \"$tree/usr/share/qemu\" -L \"$tree/usr/share/seabios\" \"$@\"\n",
        tree.display()
    );
    let fresh = home.join("start.new");
    fs::write(&fresh, text)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    host::output(Command::new(&fresh).arg("--version"))?;
    fs::rename(&fresh, &start)?;
    Ok(start)
}

/// Downloads and unpacks the package and all it depends on, the C library included: as far as this
/// apt is concerned nothing is installed.
fn fetch(package: &str, suite: &str, home: &Path) -> Result<()> {
    let tree = home.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for part in ["lists/partial", "cache/archives/partial", "tree"] {
        fs::create_dir_all(home.join(part))?;
    }
    fs::write(home.join("status"), "")?;
    let source = format!("deb [signed-by={KEYS}] {ARCHIVE} {suite} main\n");
    fs::write(home.join("sources.list"), source)?;
    host::output(apt(home).arg("update"))?;
    println!("fetching {package} of {suite}");
    host::output(apt(home).args([
        "install",
        "--yes",
        "--no-install-recommends",
        "--download-only",
        package,
    ]))?;
    for entry in fs::read_dir(home.join("cache/archives"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|ext| ext == "deb") {
            host::output(
                Command::new("dpkg-deb")
                    .arg("--extract")
                    .arg(&file)
                    .arg(&tree),
            )?;
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

fn apt(home: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C");
    let at = |part: &str| home.join(part).display().to_string();
    for option in [
        "Acquire::Retries=3".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "APT::Sandbox::User=".to_owned(),
        "APT::Architecture=amd64".to_owned(),
        "APT::Architectures=amd64".to_owned(),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::Etc::SourceList={}", at("sources.list")),
        format!("Dir::State::Lists={}", at("lists")),
        format!("Dir::State::status={}", at("status")),
        format!("Dir::Cache={}", at("cache")),
    ] {
        command.arg("-o").arg(option);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::kind::X86_64;

    #[test]
    fn a_suite_is_a_name_and_no_path() {
        for bad in ["", "../x", "a b"] {
            assert!(
                qemu(&X86_64, bad, Path::new("/nonexistent")).is_err(),
                "{bad}"
            );
        }
    }
}
