//! The guests that are measured.

use std::path::Path;

use anyhow::{Result, bail};
use test_boot::{Guest, kernels};

use super::kind::{Kind, X86_64};
use crate::host;

/// One guest with the flags both programs get.
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    /// What the console must show, else the run does not count.
    pub(super) proof: String,
    /// The exit status of a run that went well; `None` ends the machine at the proof line.
    pub(super) status: Option<i32>,
    pub(super) ram_bytes: u64,
}

const RAM_MIB: u64 = 256;

/// The frequency QEMU gives its TSC, in kHz. Its `microvm` has no clock to find that out by, and
/// the kernel then waits for ever, now and then.
const TSC_KHZ: &str = "tsc_early_khz=1000000";

impl Scenario {
    /// Debian's kernel from reset to power-off, with further flags.
    pub(super) fn boot(machine: &str, ram_mib: u64, guest: &Guest, flags: Vec<String>) -> Self {
        let mut args = words("-nodefaults -display none -no-reboot -serial stdio");
        args.extend(["-M".to_owned(), machine.to_owned()]);
        args.extend(flags);
        args.extend(["-kernel".to_owned(), path(&guest.vmlinuz)]);
        args.extend(["-initrd".to_owned(), path(&guest.initrd)]);
        let mut append = format!("console={} guest.poweroff", guest.console);
        if machine == "microvm" {
            append = format!("{append} {TSC_KHZ}");
        }
        args.extend(["-append".to_owned(), append]);
        Self {
            name: String::new(),
            args,
            proof: "GUEST-UP".to_owned(),
            status: Some(0),
            ram_bytes: ram_mib << 20,
        }
    }
}

/// The machines, from power to the first instruction and to power-off.
pub(super) fn all(kind: &Kind, folder: &Path) -> Result<Vec<Scenario>> {
    let Some(guest) = Guest::find(kind.arch)? else {
        bail!("no guest to boot: `cargo xtask guests` fetches it");
    };
    let mut flags = words("-accel tcg");
    flags.extend(["-m".to_owned(), RAM_MIB.to_string()]);
    if kind.name != X86_64.name {
        return Ok(arm_boots(&guest, &flags));
    }
    flags.extend(["-L".to_owned(), path(&guest.seabios)]);
    let mut all = tiny_kernels(folder, &flags)?;
    // QEMU's microvm with several vCPUs hangs now and then.
    for (name, counts) in [("microvm", &[1][..]), ("pc", &[1, 4]), ("q35", &[1, 4])] {
        for cpus in counts {
            let mut flags = flags.clone();
            flags.extend(["-smp".to_owned(), cpus.to_string()]);
            all.push(Scenario {
                name: format!("Debian boot, {name}, {cpus} vCPU"),
                ..Scenario::boot(name, RAM_MIB, &guest, flags)
            });
        }
    }
    Ok(all)
}

/// Kernels that say one line through the serial port.
fn tiny_kernels(folder: &Path, flags: &[String]) -> Result<Vec<Scenario>> {
    let hello = folder.join("bench-hello.elf");
    host::write_if_changed(&hello, &kernels::hello_and_halt("up\n"))?;
    let scenario = |name: &str| {
        let mut args = words("-nodefaults -display none -no-reboot -serial stdio");
        args.extend(["-M".to_owned(), name.to_owned()]);
        args.extend_from_slice(flags);
        args.extend(["-kernel".to_owned(), path(&hello)]);
        Scenario {
            name: format!("tiny kernel, {name}"),
            args,
            proof: "up".to_owned(),
            status: None,
            ram_bytes: RAM_MIB << 20,
        }
    };
    Ok(["microvm", "pc"].map(scenario).into())
}

/// A model that needs page tables of its own for user space, and the newest; both programs sign
/// pointers by their fast algorithm.
fn arm_boots(guest: &Guest, flags: &[String]) -> Vec<Scenario> {
    let boot = |(model, cpus): (&str, u32)| {
        let mut flags = flags.to_vec();
        flags.extend(words(&format!("-cpu {model} -smp {cpus}")));
        Scenario {
            name: format!("Debian boot, virt, {model}, {cpus} vCPU"),
            ..Scenario::boot("virt", RAM_MIB, guest, flags)
        }
    };
    let max = "max,pauth-impdef=on";
    [("cortex-a72", 1), ("cortex-a72", 4), (max, 1), (max, 4)]
        .map(boot)
        .into()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
