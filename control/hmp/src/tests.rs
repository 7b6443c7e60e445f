use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use backend_char::{CharSpec, Chardev};
use control_qapi::fake::FakeVm;
use proptest::prelude::*;
use runtime::EventLoop;

use super::*;

fn hmp() -> (Arc<FakeVm>, Hmp) {
    let vm = FakeVm::new();
    (vm.clone(), Hmp::new(vm))
}

fn run(line: &str) -> String {
    hmp().1.run(line)
}

#[test]
fn expressions_know_precedence_brackets_and_registers() {
    for (line, value) in [
        ("p 1+2*3", "0x7"),
        ("p (1+2)*3", "0x9"),
        ("p/d -5", "-5"),
        ("p/u 0xff & ~0xf", "240"),
        ("p $rip + 4", "0x104"),
        ("p/c 'a'", "'a'"),
        ("p/o 8", "010"),
        ("print 7 % 4 | 8", "0xb"),
        ("p $rax + 1", "0x0"),
    ] {
        assert_eq!(run(line), format!("{value}\n"), "{line}");
    }
    for (line, part) in [
        ("p 1/0", "division by zero"),
        ("p $nix", "unknown register '$nix'"),
        ("p (1", "')' expected"),
        ("p 12ab", "invalid number '12ab'"),
        ("p", "'val' is missing; usage: print /fmt expr"),
        ("p 1 2", "extraneous characters at the end of line: '2'"),
        ("p/q 1", "invalid char in format: 'q'"),
    ] {
        assert!(run(line).contains(part), "{line}: {}", run(line));
    }
    assert!(run(&format!("p {}1", "(".repeat(10000))).contains("nested too deeply"));
}

#[test]
fn disks_and_jobs_are_changed_by_the_commands_of_qmp() {
    let (vm, hmp) = hmp();
    for line in [
        "block_resize virtio0 10",
        "block_resize virtio0 1G",
        "block_stream virtio0 1000K base.img",
        "block_job_cancel -f virtio0",
        "block_job_set_speed virtio0 5",
        "commit all",
        "snapshot_blkdev -n virtio0 new.img",
        "change ide0-cd0 new.iso raw retain",
        "drive_add -n 0 null-co,node-name=n",
        "drive_del n",
    ] {
        assert_eq!(hmp.run(line), "", "{line}");
    }
    assert_eq!(hmp.run("drive_add 0:1 if=none,id=d"), "OK\n");
    // The members of an object come in any order.
    let calls = vm.calls();
    for (call, parts) in calls.iter().zip([
        ["resize ", "\"size\":10485760"],
        ["resize ", "\"size\":1073741824"],
        ["\"speed\":1024000", "\"base\":\"base.img\""],
        ["block job virtio0: ", "Cancel { force: true }"],
        ["block job virtio0: ", "SetSpeed(5242880)"],
        ["commit ", "all"],
        ["\"snapshot-file\":\"new.img\"", "\"mode\":\"existing\""],
        ["change_medium ", "new.iso"],
        ["\"driver\":\"null-co\"", "\"node-name\":\"n\""],
        ["del drive", " n"],
        ["add drive", " if=none,id=d"],
    ]) {
        assert!(parts.iter().all(|part| call.contains(part)), "{call}");
    }
    assert_eq!(calls.len(), 11);
    assert!(hmp.run("block_resize virtio0 x").contains("'x' is no size"));
    assert!(
        hmp.run("block_job_cancel a b")
            .contains("takes [-f] and a device")
    );
    assert!(hmp.run("drive_add 0").contains("takes [-n], a slot"));
    assert!(
        hmp.run("drive_mirror virtio0 x")
            .contains("not available yet; make the target")
    );
}

#[test]
fn memory_is_shown_in_every_form() {
    assert_eq!(
        run("xp/4xb 0x10"),
        "0000000000000010: 0x10 0x11 0x12 0x13\n"
    );
    assert_eq!(
        run("x/6 0x10"),
        "0000000000000010: 0x13121110 0x17161514 0x1b1a1918 0x1f1e1d1c\n0000000000000020: 0x23222120 0x27262524\n"
    );
    assert_eq!(run("xp /1gx 0"), "0000000000000000: 0x0706050403020100\n");
    assert_eq!(run("xp/3c 0x40"), "0000000000000040: '@' 'A' 'B'\n");
    assert_eq!(run("xp/2db 0xfe"), "00000000000000fe:  -2  -1\n");
    assert_eq!(
        run("xp/2xw 0xfffc"),
        "000000000000fffc: Cannot access memory\n"
    );
    assert!(run("xp/99999999999999999999x 0").contains("too large"));
    assert!(run("xp/999999999 0").contains("that is too much"));
}

#[test]
fn instructions_are_disassembled_at_a_register() {
    assert_eq!(
        run("x/2i $rip"),
        "0x00000100:  00 01 02                 op00\n0x00000103:  03 04 05                 op03\n"
    );
    assert_eq!(
        run("x/9i 0xfffd"),
        "0x0000fffd:  fd fe ff                 opfd\n0x00010000:  Cannot access memory\n"
    );
}

#[test]
fn info_shows_what_the_queries_answer() {
    for (line, text) in [
        ("info status", "VM status: running\n"),
        ("info version", "10.0.0 (mimic)\n"),
        ("info name", "fake\n"),
        ("info uuid", "00000000-0000-0000-0000-000000000000\n"),
        ("info kvm", "kvm support: disabled\n"),
        (
            "info cpus",
            "* CPU #0: thread_id=100\n  CPU #1: thread_id=100\n",
        ),
        ("info chardev", "serial0: filename=pty:/dev/pts/3\n"),
        (
            "info block ide0-cd0",
            "ide0-cd0: [not inserted]\n    Removable device: not locked, tray closed\n",
        ),
        (
            "info block virtio0",
            "virtio0 (#block001): /images/top.qcow2 (qcow2)\n    Attached to:      disk0\n    \
             Cache mode:       writeback, direct\n    Backing file:     base.img (chain depth: 1)\n    \
             Detect zeroes:    unmap\n    I/O throttling:   bps=0 bps_rd=0 bps_wr=0 bps_max=0 bps_rd_max=0 \
             bps_wr_max=0 iops=100 iops_rd=0 iops_wr=0 iops_max=0 iops_rd_max=0 iops_wr_max=0 iops_size=0 \
             group=virtio0\n",
        ),
        (
            "info block -x",
            "Error: info block: '-x' makes no sense here; it takes -n, -v and one name\n",
        ),
        (
            "info block-jobs",
            "Streaming device virtio0: Completed 7 of 100 bytes, speed limit 0 bytes/s\n",
        ),
        ("info iothreads", "io0: thread_id=7\n"),
        (
            "info blockstats",
            "virtio0: rd_bytes=7 wr_bytes=7 rd_operations=7 wr_operations=7 flush_operations=7 wr_total_time_ns=7 \
             rd_total_time_ns=7 flush_total_time_ns=7 rd_merged=7 wr_merged=7 idle_time_ns=0\n",
        ),
        ("info mtree -f", "mtree of 0 -f\n"),
        ("i registers", "registers of 0 \n"),
        (
            "info registers -a",
            "\nCPU#0\nregisters of 0 \n\nCPU#1\nregisters of 1 \n",
        ),
        ("info lapic 1", "lapic of 1 \n"),
        (
            "info jit",
            "Error: JIT information is only available with accel=tcg\n",
        ),
        (
            "info regsiters",
            "Error: there is no topic 'regsiters'; did you mean 'registers'?\n",
        ),
    ] {
        assert_eq!(run(line), text, "{line}");
    }
    let images = run("info block -n -v");
    assert!(images.ends_with("Images:\nimage: /images/top.qcow2\nfile format: qcow2\nvirtual size: 1 GiB (1073741824 bytes)\ndisk size: 4 KiB\n"), "{images}");
    assert_eq!(
        run("info pci"),
        "  Bus  0, device   2, function 0:\n    SCSI controller: PCI device 1af4:1001\n      PCI subsystem 1af4:0002\n      \
         IRQ 11, pin A\n      BAR0: I/O at 0xc000 [0xc01f].\n      id \"disk0\"\n"
    );
}

#[test]
fn the_chosen_vcpu_is_what_commands_are_about() {
    let (_, hmp) = hmp();
    assert_eq!(hmp.run("cpu 1"), "");
    assert_eq!(hmp.run("p $pc"), "0x200\n");
    assert_eq!(
        hmp.run("info cpus"),
        "  CPU #0: thread_id=100\n* CPU #1: thread_id=100\n"
    );
    assert_eq!(hmp.run_for("p $pc", Some(0)), "0x100\n");
    assert_eq!(
        hmp.run("cpu 2"),
        "Error: invalid CPU index; there are 2, counted from 0\n"
    );
}

#[test]
fn commands_reach_the_machine_through_qmp() {
    let (vm, hmp) = hmp();
    for line in [
        "stop",
        "c",
        "system_reset",
        "system_powerdown",
        "nmi",
        "sendkey ctrl-alt-f1",
        "sendkey 0x1c 200",
        "q",
    ] {
        assert_eq!(hmp.run(line), "", "{line}");
    }
    assert_eq!(
        vm.calls(),
        [
            "stop",
            "cont",
            "system_reset",
            "system_powerdown",
            "nmi",
            "keys ctrl+alt+f1 100",
            "keys 28 200",
            "quit 0"
        ]
    );
    assert_eq!(
        hmp.run("sendkey crtl-c"),
        "Error: unknown key: 'crtl'; did you mean 'ctrl'?\n"
    );
    assert_eq!(hmp.run("ringbuf_read ring0 4"), "ring\n");
    let path = std::env::temp_dir().join(format!("mimic hmp {}", std::process::id()));
    assert_eq!(
        hmp.run(&format!("memsave 0x20 2+1 \"{}\"", path.display())),
        ""
    );
    assert_eq!(std::fs::read(&path).unwrap(), [0x20, 0x21, 0x22]);
    std::fs::remove_file(&path).unwrap();
    // Without quotation marks a path is no division.
    let path = std::env::temp_dir().join(format!("mimic-hmp-{}", std::process::id()));
    assert_eq!(
        hmp.run(&format!("memsave 0x20 6 /2 {}", path.display())),
        ""
    );
    assert_eq!(std::fs::read(&path).unwrap(), [0x20, 0x21, 0x22]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        hmp.run("info mtree -x"),
        "Error: info mtree: unsupported option '-x'; there are -f, -d, -o, -D\n"
    );
}

#[test]
fn a_qmp_client_can_run_lines() {
    let (_, hmp) = hmp();
    let human = hmp.human();
    assert_eq!(
        human("info status", None).unwrap(),
        "VM status: running\r\n"
    );
    assert_eq!(human("p $pc", Some(1)).unwrap(), "0x200\r\n");
}

#[test]
fn unknown_commands_suggest_the_nearest() {
    assert_eq!(
        run("system_rest"),
        "unknown command: 'system_rest'; did you mean 'system_reset'?\n"
    );
    assert_eq!(
        run("@"),
        "unknown command: '@'; 'help' lists the commands\n"
    );
    assert!(run("help").contains("cont|c -- let the vCPUs go on\n"));
    assert!(run("help x").starts_with("x /fmt addr -- "));
    assert!(run("help info").contains("info mtree [-f][-d][-o][-D] -- "));
}

/// The lines that these keys enter, and the last thing shown.
fn edit(keys: &str) -> (Vec<String>, String) {
    let (_, hmp) = hmp();
    let mut editor = LineEditor::new(PROMPT);
    let (mut lines, mut last) = (Vec::new(), String::new());
    for byte in keys.bytes() {
        match editor.key(byte, &|line| hmp.complete(line)) {
            Some(Edit::Line(_, line)) => lines.push(line),
            Some(Edit::Show(text)) => last = text,
            None => {}
        }
    }
    (lines, last)
}

#[test]
fn a_line_can_be_edited() {
    for (keys, line) in [
        ("stpo\x7f\x7fop\r", "stop"),
        ("xxx\x15info\r", "info"),
        ("nfo\x01i\x05 cpus\r", "info cpus"),
        ("info cpux\x08s\n", "info cpus"),
        ("sop\x1b[D\x1b[Dt\r", "stop"),
        ("one two\x17three\r", "one three"),
        ("inXfo\x1b[D\x1b[D\x1b[D\x1b[3~\r", "info"),
        ("gr\u{fc}n\x7f\x7f\r", "gr"),
        ("\x1bOAstop\r\n", "stop"),
    ] {
        assert_eq!(edit(keys).0, [line], "{keys:?}");
    }
}

#[test]
fn the_history_comes_back_with_the_arrows() {
    assert_eq!(
        edit("one\rtwo\r\x1b[A\x1b[A\r\x1b[A\x1b[A\x1b[B!\r").0,
        ["one", "two", "one", "one!"]
    );
    assert_eq!(edit("one\rdra\x1b[A\x1b[Bft\r").0, ["one", "draft"]);
}

#[test]
fn tab_completes_and_lists() {
    assert_eq!(edit("system_r\t\r").0, ["system_reset "]);
    assert_eq!(edit("sys\tp\t\r").0, ["system_powerdown "]);
    assert_eq!(edit("info reg\t\r").0, ["info registers "]);
    assert!(
        edit("system_\t")
            .1
            .contains("system_powerdown  system_reset")
    );
    assert_eq!(edit("zzz\t\r").0, ["zzz"]);
}

#[test]
fn a_monitor_on_a_socket_greets_and_answers() {
    let mut event_loop = EventLoop::new().unwrap();
    let path = std::env::temp_dir().join(format!("mimic-hmp-{}", std::process::id()));
    let text = format!("unix:{},server=on,wait=off", path.display());
    let spec = CharSpec::parse_short("-monitor", "m", &text).unwrap();
    let chardev = Chardev::open(&spec, &event_loop.handle()).unwrap();
    let (_, hmp) = hmp();
    let _monitor = HmpMonitor::start(chardev.frontend().unwrap(), hmp, "Mimic 0.1.0");
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut seen = String::new();
    let mut until = |client: &mut UnixStream, end: &str| {
        for _ in 0..1000 {
            event_loop.turn(Some(Duration::from_millis(10)));
            let mut buffer = [0; 4096];
            if let Ok(count) = client.read(&mut buffer) {
                seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
            if seen.ends_with(end) {
                return std::mem::take(&mut seen);
            }
        }
        panic!("only {seen:?}");
    };
    let greeting = until(&mut client, "(qemu) ");
    assert!(greeting.starts_with("Mimic 0.1.0 monitor - type 'help' for more information\r\n"));
    client.write_all(b"info status\r").unwrap();
    assert_eq!(
        until(&mut client, "(qemu) "),
        "info status\r\nVM status: running\r\n(qemu) "
    );
}

/// Any command with words that one or another takes.
fn command_line() -> impl Strategy<Value = String> {
    let names: Vec<_> = crate::commands::COMMANDS.iter().map(|c| c.name).collect();
    let word = prop_oneof![
        prop::sample::select(names.clone()),
        prop::sample::select(vec![
            "status",
            "registers",
            "mtree",
            "qtree",
            "tlb",
            "mem",
            "pic",
            "-a",
            "-f",
            "0",
            "-1",
            "$rip",
            "0xffffffffffffffff",
            "/4gx",
            "/3i",
            "ctrl-alt-f1",
            "100",
            "(1+2)*3",
            "\"",
            "none",
        ]),
    ];
    let words = prop::collection::vec(word, 0..5);
    (prop::sample::select(names), words)
        .prop_map(|(name, words)| [vec![name], words].concat().join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_line_prints_something_bounded(
        line in prop_oneof![
            any::<String>(),
            "(x|xp|p|info|cpu|memsave|sendkey|help|i|ringbuf_read)[ /]?[-+*/%&|^~()$'\"0-9a-z ]{0,30}",
            command_line(),
        ],
    ) {
        // A file name is the one thing that must not be random.
        prop_assume!(!line.contains("memsave"));
        prop_assert!(run(&line).len() < 2 << 20);
    }

    #[test]
    fn any_keys_leave_a_line_that_works(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'[')], 0..100)) {
        let (_, hmp) = hmp();
        let mut editor = LineEditor::new(PROMPT);
        for byte in bytes {
            let _ = editor.key(byte, &|line| hmp.complete(line));
        }
        // Out of any escape sequence, to an empty line.
        for byte in b"\x18\x18\x18\r" {
            let _ = editor.key(*byte, &|_| Vec::new());
        }
        let mut entered = None;
        for byte in b"stop\r" {
            if let Some(Edit::Line(_, line)) = editor.key(*byte, &|_| Vec::new()) {
                entered = Some(line);
            }
        }
        prop_assert_eq!(entered.as_deref(), Some("stop"));
    }
}
