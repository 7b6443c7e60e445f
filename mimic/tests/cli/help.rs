//! What help prints, and what the program is called.

use std::process::{Command, Stdio};

use super::{golden, run, stderr, stdout};

#[test]
fn golden_every_list_that_help_prints() {
    let mut text = String::new();
    for line in [
        "-version",
        "-machine help",
        "-machine microvm,help",
        "-machine q35,help",
        "-accel help",
        "-accel tcg,help",
        "-device help",
        "-object help",
        "-object rng-random,help",
        "-chardev help",
        "-chardev socket,help",
        "-netdev help",
        "-blockdev driver=help",
        "-display help",
        "-vga help",
        "-audiodev help",
        "-d help",
        "-smp help",
    ] {
        let output = run(line);
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{line}: {}",
            stderr(&output)
        );
        // Whether KVM is usable is the host's affair.
        let plain: String = stdout(&output)
            .lines()
            .map(|line| match line.split_once(" (") {
                Some((kvm, _)) if kvm.starts_with("kvm ") => format!("{kvm} (STATE)\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        text += &format!("$ mimic {line}\n{plain}\n");
    }
    golden("help.txt", &text);
}

#[test]
fn golden_the_properties_of_devices() {
    let mut text = String::new();
    for class in mimic::devices::classes().filter(|class| class.user_creatable) {
        let output = run(&format!("-device {},help", class.name));
        assert!(output.status.success(), "{}", class.name);
        text += &stdout(&output);
        text.push('\n');
    }
    golden("devices.txt", &text);
}

#[test]
fn the_first_line_of_help_is_the_version() {
    let help = stdout(&run("-h"));
    assert!(help.starts_with("QEMU emulator version 10.0."), "{help}");
    assert!(help.lines().next().unwrap().contains("mimic"));
    assert_eq!(help, stdout(&run("--help")));
}

#[test]
fn the_name_of_the_program_picks_the_guest() {
    let folder = std::env::temp_dir().join(format!("mimic-cli-names-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let as_name = |name: &str| {
        let link = folder.join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mimic"), &link).unwrap();
        Command::new(&link)
            .arg("-version")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert!(as_name("qemu-system-x86_64").status.success());
    let other = as_name("qemu-system-s390x");
    assert_eq!(other.status.code(), Some(1));
    assert!(
        stderr(&other).starts_with("qemu-system-s390x: guests of kind 's390x' are not built yet")
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
