//! `mimic run FILE`: the short way to a shell.

mod disk;
mod fat;
mod image;

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use clap::error::ErrorKind;
use firmware_load::{Kind, identify};

/// As much of a file as is needed to tell what it is.
const HEAD: u64 = 1 << 20;

/// Starts a disk image or a kernel with its console on this terminal.
#[derive(Parser, Debug)]
#[command(
    about = "Starts a disk image or a kernel with its console on this terminal",
    after_help = "What an image needs is found by looking at it. What its guest writes is gone in the end, unless --keep is given. \
                  Ctrl-A X leaves, Ctrl-A C reaches the monitor. For everything else there are QEMU's options: see 'mimic -help'.",
    disable_version_flag = true
)]
struct Arguments {
    /// Disk image (raw, qcow2, or of a CD); Linux bzImage, or an ELF kernel that starts by PVH or multiboot
    file: String,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<String>,
    /// Kernel command line; for Linux, 'console=ttyS0' is added if it names no console
    #[arg(long, value_name = "TEXT")]
    append: Option<String>,
    /// Memory
    #[arg(short, long, value_name = "SIZE", default_value = "512M")]
    memory: String,
    /// Processors
    #[arg(long, value_name = "N", default_value = "1")]
    smp: String,
    /// Raw disk image, attached by virtio; may be given several times
    #[arg(long, value_name = "FILE")]
    disk: Vec<String>,
    /// Machine; chosen by the file's kind if not given
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Writes to the image, and UEFI's variables to a file beside it
    #[arg(long)]
    keep: bool,
    /// Folder to look for firmware in before the usual ones; may be given several times
    #[arg(short = 'L', value_name = "FOLDER")]
    folder: Vec<String>,
    /// QEMU's options, after '--'
    #[arg(last = true, value_name = "QEMU-OPTIONS")]
    more: Vec<String>,
}

/// What `mimic run ...` amounts to.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// A run with these options of QEMU's.
    Run(Vec<String>),
    /// Only this text.
    Print(String),
}

/// Translates the arguments after `run`.
pub(crate) fn arguments(program: &str, args: &[String]) -> Result<Request> {
    let name = format!("{program} run");
    let with_name = std::iter::once(&name).chain(args);
    match Arguments::try_parse_from(with_name) {
        Ok(arguments) => {
            let kind = kind(&arguments.file)?;
            // GRUB, at the start of many a disk, could be started by multiboot too.
            if matches!(kind, Kind::Other { .. } | Kind::Multiboot)
                && let Some(options) = disk::options(program, &arguments)?
            {
                return Ok(Request::Run(options));
            }
            if arguments.keep {
                bail!(
                    "--keep: '{}' is no disk image; leave it out",
                    arguments.file
                );
            }
            Ok(Request::Run(translate(arguments, &kind)))
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            Ok(Request::Print(error.to_string()))
        }
        Err(error) => bail!(
            "{}; '{name} --help' shows how it is used",
            one_line(&error.to_string())
        ),
    }
}

/// clap's message in one line, without its prefix and usage.
fn one_line(text: &str) -> String {
    let message = text.trim_start_matches("error: ");
    let message = message.split("\n\nUsage:").next().unwrap_or_default();
    let lines = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let tips = lines.map(|line| line.trim_start_matches("tip: "));
    tips.collect::<Vec<_>>().join("; ").replace(":; ", ": ")
}

fn kind(path: &str) -> Result<Kind> {
    let mut head = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot read '{path}'"))?;
    file.take(HEAD)
        .read_to_end(&mut head)
        .with_context(|| format!("cannot read '{path}'"))?;
    Ok(identify(&head))
}

/// The machine that suits a kind of kernel.
fn machine_for(kind: &Kind) -> &'static str {
    match kind {
        Kind::BzImage | Kind::Other { .. } => "q35",
        Kind::PvhElf => "microvm",
        Kind::Multiboot => "pc",
    }
}

fn translate(arguments: Arguments, kind: &Kind) -> Vec<String> {
    let machine = arguments
        .machine
        .unwrap_or_else(|| machine_for(kind).to_owned());
    let mut out: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| out.extend([option.to_owned(), value]);
    add("-machine", machine);
    add("-m", arguments.memory);
    add("-smp", arguments.smp);
    add("-kernel", arguments.file);
    if let Some(initrd) = arguments.initrd {
        add("-initrd", initrd);
    }
    let is_linux = matches!(kind, Kind::BzImage | Kind::PvhElf);
    let append = match arguments.append {
        Some(text) if is_linux && !text.contains("console=") => {
            Some(format!("console=ttyS0 {text}"))
        }
        None if is_linux => Some("console=ttyS0".to_owned()),
        given => given,
    };
    if let Some(append) = append {
        add("-append", append);
    }
    for disk in arguments.disk {
        add(
            "-drive",
            format!("if=virtio,format=raw,file={}", disk.replace(',', ",,")),
        );
    }
    for folder in arguments.folder {
        add("-L", folder);
    }
    add("-nic", "none".to_owned());
    out.push("-nographic".to_owned());
    out.extend(arguments.more);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Arguments {
        Arguments::try_parse_from(std::iter::once("mimic run").chain(text.split(' '))).unwrap()
    }

    #[test]
    fn a_linux_kernel_gets_its_console_on_the_terminal() {
        let out = translate(
            words("vmlinuz --append quiet --disk a,b -m 1G -- -no-reboot"),
            &Kind::BzImage,
        );
        assert_eq!(
            out.join(" "),
            "-machine q35 -m 1G -smp 1 -kernel vmlinuz -append console=ttyS0 quiet \
             -drive if=virtio,format=raw,file=a,,b -nic none -nographic -no-reboot"
        );
    }

    #[test]
    fn other_kernels_get_their_machine_and_no_command_line() {
        let out = translate(words("kernel.elf"), &Kind::Multiboot);
        assert_eq!(
            out.join(" "),
            "-machine pc -m 512M -smp 1 -kernel kernel.elf -nic none -nographic"
        );
    }

    #[test]
    fn a_mistake_is_one_line() {
        let e = arguments("mimic", &["--smpp".to_owned(), "2".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(
            !e.contains('\n') && e.starts_with("unexpected argument '--smpp'"),
            "{e}"
        );
    }
}
