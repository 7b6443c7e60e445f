//! The guests that are measured.

use std::path::Path;

use anyhow::Result;
use test_boot::kernels;

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

pub(super) fn all(guests: &Path) -> Result<Vec<Scenario>> {
    let machine = |name: &str| -> Vec<String> {
        let mut args = words("-nodefaults -display none -no-reboot -serial stdio -accel tcg");
        args.extend(["-m".to_owned(), RAM_MIB.to_string()]);
        args.extend(["-M".to_owned(), name.to_owned()]);
        args.extend(["-L".to_owned(), path(&guests.join("share/seabios"))]);
        args
    };
    let mut all = Vec::new();

    let hello = guests.join("bench-hello.elf");
    host::write_if_changed(&hello, &kernels::hello_and_halt("up\n"))?;
    for name in ["microvm", "pc"] {
        let mut args = machine(name);
        args.extend(["-kernel".to_owned(), path(&hello)]);
        all.push(Scenario {
            name: format!("tiny kernel, {name}"),
            args,
            proof: "up".to_owned(),
            status: None,
            ram_bytes: RAM_MIB << 20,
        });
    }
    // QEMU's microvm with several vCPUs hangs now and then: its guest has no clock to calibrate by.
    for (name, counts) in [("microvm", &[1][..]), ("pc", &[1, 4]), ("q35", &[1, 4])] {
        for cpus in counts {
            let mut args = machine(name);
            args.extend(["-smp".to_owned(), cpus.to_string()]);
            args.extend(["-kernel".to_owned(), path(&guests.join("amd64/vmlinuz"))]);
            args.extend(["-initrd".to_owned(), path(&guests.join("amd64/initrd"))]);
            args.push("-append".to_owned());
            args.push("console=ttyS0 guest.poweroff".to_owned());
            all.push(Scenario {
                name: format!("Debian boot, {name}, {cpus} vCPU"),
                args,
                proof: "GUEST-UP".to_owned(),
                status: Some(0),
                ram_bytes: RAM_MIB << 20,
            });
        }
    }
    Ok(all)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
