//! The first root of a test guest: busybox and an `/init` that does as the command line says.

use test_boot::cpio::Archive;

use super::modules::Modules;

/// The first program. Words on the kernel command line, in order:
///
/// - `guest.modules=a,b`: loads drivers (from `initrd-modules`);
/// - `guest.run=cmd,with,args`: runs a command, prints `GUEST-EXIT <status>`, then powers off;
/// - `guest.poweroff`: powers off instead of offering a shell;
/// - `guest.reboot`: resets where it would power off.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin HOME=/ TERM=linux PS1='guest# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
read -r words </proc/cmdline
end='poweroff -f'
shell=yes
for word in $words; do
    case $word in
    guest.reboot) end='reboot -f' ;;
    guest.poweroff | guest.run=*) shell= ;;
    guest.modules=*)
        IFS=,
        for module in ${word#guest.modules=}; do modprobe "$module" || echo "GUEST-NO-MODULE $module"; done
        unset IFS
        ;;
    esac
done
read -r key memory unit </proc/meminfo
echo "GUEST-UP $(uname -m) $(uname -r) cpus=$(nproc) mem=${memory}${unit}"
for word in $words; do
    case $word in
    guest.run=*)
        IFS=,
        set -- ${word#guest.run=}
        unset IFS
        eval "$*"
        echo "GUEST-EXIT $?"
        ;;
    esac
done
[ -n "$shell" ] && setsid cttyhack sh
echo GUEST-DOWN
$end
"#;

/// The applets given a name of their own; all are in Debian's build on every architecture.
const APPLETS: &str = "ash awk base64 basename blkid cat chmod chown cmp cp cttyhack cut date dd \
    depmod df dirname dmesg du echo egrep env expr false fdisk find free fold getty grep gunzip \
    gzip halt head hexdump hostname hwclock id ifconfig insmod ip kill killall less ln ls lsmod \
    md5sum mkdir mke2fs mkfifo mknod mkswap mktemp modprobe more mount mv nc nproc od pgrep pidof \
    ping poweroff printf ps pwd readlink realpath reboot rm rmdir rmmod route sed seq setsid sh \
    sha256sum sleep sort split stat strings stty sync sysctl tail tar taskset tee test time \
    timeout top touch tr true truncate tty udhcpc umount uname uniq uptime usleep vi watch wc \
    wget which xargs xxd yes zcat";

/// The archive, uncompressed: a guest under test should not spend its time on decompression.
pub(super) fn build(busybox: &[u8], modules: Option<&Modules>) -> Vec<u8> {
    build_with(busybox, modules, &[])
}

/// The same with programs and libraries, in `bin` and `lib`.
pub(super) fn build_with(
    busybox: &[u8],
    modules: Option<&Modules>,
    programs: &[(&str, Vec<u8>)],
) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in [
        "bin", "dev", "etc", "lib", "mnt", "proc", "root", "run", "sys", "tmp", "var",
    ] {
        archive.folder(folder);
    }
    for (path, content) in programs {
        archive.program(path, content);
    }
    // The kernel opens /dev/console for the first program before that can mount anything.
    archive.char_device("dev/console", (5, 1));
    archive.char_device("dev/null", (1, 3));
    archive.program("init", INIT.as_bytes());
    archive.program("bin/busybox", busybox);
    for applet in APPLETS.split_whitespace() {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    if let Some(modules) = modules {
        let home = format!("lib/modules/{}", modules.release);
        for folder in ["lib/modules", home.as_str()] {
            archive.folder(folder);
        }
        let mut dep = String::new();
        for module in &modules.files {
            archive.file(&format!("{home}/{}.ko", module.name), &module.content);
            dep.push_str(&format!("{}.ko:", module.name));
            for need in &module.needs_in_order {
                dep.push_str(&format!(" {need}.ko"));
            }
            dep.push('\n');
        }
        archive.file(&format!("{home}/modules.dep"), dep.as_bytes());
        let builtin: String = modules
            .builtin
            .iter()
            .map(|path| format!("{path}\n"))
            .collect();
        archive.file(&format!("{home}/modules.builtin"), builtin.as_bytes());
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_gives_equal_bytes() {
        assert_eq!(build(b"program", None), build(b"program", None));
    }
}
