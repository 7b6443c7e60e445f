use super::*;
use crate::config::*;
use proptest::prelude::*;

fn run(line: &str) -> Result<Config, String> {
    let args: Vec<&str> = line.split_whitespace().collect();
    match parse(&args) {
        Ok(Outcome::Run(config)) => Ok(*config),
        Ok(other) => Err(format!("{other:?}")),
        Err(e) => Err(e.to_string()),
    }
}

fn help(line: &str) -> HelpRequest {
    let args: Vec<&str> = line.split_whitespace().collect();
    match parse(&args) {
        Ok(Outcome::Help(request, _)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_line_libvirt_probes_with_is_understood() {
    let c = run("-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:/x/m,server=on,wait=off -pidfile /x/p -daemonize").unwrap();
    assert!(c.paused && c.nodefaults && c.display == Display::NoGraphic);
    assert_eq!(c.machine.as_deref(), Some("none"));
    assert_eq!(
        c.accels.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(),
        ["kvm", "tcg"]
    );
    let streams = c.streams();
    assert!(streams.serials.is_empty());
    assert_eq!(
        streams.monitors,
        [MonitorOpt {
            stream: StreamRef::Short("unix:/x/m,server=on,wait=off".into()),
            is_qmp: true,
            is_pretty: false
        }]
    );
    assert_eq!(c.pidfile.as_deref(), Some("/x/p"));
}

#[test]
fn the_line_libvirt_starts_a_domain_with_is_understood() {
    let c = run(concat!(
        "-name guest=a,debug-threads=on -S ",
        r#"-object {"qom-type":"secret","id":"masterKey0","format":"raw","file":"/x"} "#,
        "-machine pc-q35-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram -accel tcg -cpu qemu64 -m 512 ",
        r#"-object {"qom-type":"memory-backend-ram","id":"pc.ram","size":536870912} "#,
        "-overcommit mem-lock=off -smp 2,sockets=2,cores=1,threads=1 -uuid 550e8400-e29b-41d4-a716-446655440000 ",
        "-no-user-config -nodefaults -chardev socket,id=charmonitor,fd=26,server=on,wait=off ",
        "-mon chardev=charmonitor,id=monitor,mode=control -rtc base=utc,driftfix=slew -no-shutdown -boot strict=on ",
        "-global kvm-pit.lost_tick_policy=delay -no-hpet -global ICH9-LPC.disable_s3=1 ",
        r#"-blockdev {"driver":"file","filename":"/d","node-name":"n0","auto-read-only":true,"backing":null} "#,
        r#"-device {"driver":"virtio-blk-pci","bus":"pci.4","addr":"0x0","drive":"n0","id":"virtio-disk0","bootindex":1} "#,
        r#"-audiodev {"id":"audio1","driver":"none"} "#,
        "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -msg timestamp=on",
    ))
    .unwrap();
    assert_eq!(c.memory.size, 512 << 20);
    assert_eq!(
        c.machine_opts.to_string(),
        "usb=off,dump-guest-core=off,memory-backend=pc.ram,hpet=off"
    );
    assert_eq!(
        c.globals[1],
        Global {
            driver: "ICH9-LPC".into(),
            property: "disable_s3".into(),
            value: "1".into()
        }
    );
    assert_eq!(c.devices[0].text("bootindex"), Some("1"));
    assert!(c.rtc.slew && c.boot.strict && c.msg_timestamp && c.sandbox.is_some());
    assert_eq!(c.action.shutdown, ShutdownAction::Pause);
    assert_eq!(
        show_uuid(&c.uuid.unwrap()),
        "550e8400-e29b-41d4-a716-446655440000"
    );
    assert!(c.monitors[0].is_qmp);
}

#[test]
fn a_kernel_developers_line_is_understood() {
    let c = run("-M q35 -enable-kvm -cpu max,+avx2,-hle,tsc-frequency=1000 -m 2G -smp 4 -kernel bz -initrd rd -append console=ttyS0 --nographic -no-reboot disk.img").unwrap();
    let cpu = c.cpu.unwrap();
    assert_eq!(cpu.model, "max");
    let settings: Vec<_> = cpu
        .settings
        .iter()
        .map(|s| format!("{}={}", s.name, s.value))
        .collect();
    assert_eq!(settings, ["tsc-frequency=1000", "avx2=on", "hle=off"]);
    assert_eq!(c.drives[0].to_string(), "file=disk.img,index=0,media=disk");
    assert_eq!(
        (c.smp.cpus, c.action.reboot),
        (Some(4), RebootAction::Shutdown)
    );
}

#[test]
fn mistakes_name_the_option_the_value_and_the_remedy() {
    for (line, message) in [
        (
            "-machnie q35",
            "-machnie: no such option; did you mean '-machine'?",
        ),
        (
            "-smp=4",
            "-smp=4: no such option; write the argument after a space: '-smp 4'",
        ),
        ("-kernel", "-kernel needs an argument: FILE"),
        (
            "-m lots",
            "-m: 'size' cannot be 'lots': expected a size such as '512', '1536M' or '4G'",
        ),
        (
            "-m 1G,maxmem=512M",
            "-m: 'maxmem' is less than 'size': make it at least as much",
        ),
        (
            "-smp 4,coers=2",
            "-smp: -smp has no property 'coers'; did you mean 'cores'?",
        ),
        (
            "-append x",
            "-append: a kernel command line needs a kernel: add '-kernel FILE'",
        ),
        (
            "-rtc base=yesterday",
            "-rtc: 'base' cannot be 'yesterday': expected 'utc', 'localtime' or a date such as '2006-06-17T16:01:21'",
        ),
        (
            "-boot order=cc",
            "-boot: 'order' cannot be 'cc': expected drive letters from a to p, each once, such as 'cdn'",
        ),
        (
            "-uuid 1234",
            "-uuid: 'uuid' cannot be '1234': expected a UUID such as '550e8400-e29b-41d4-a716-446655440000'",
        ),
        (
            "-device a,id=x -device b,id=x",
            "-device: the id 'x' is used twice; every id must be unique",
        ),
        (
            "-object rng-random",
            "-object: object 'rng-random' needs 'id=...': name to refer to it by",
        ),
        (
            "-display gkt",
            "-display: there is no display named 'gkt'; valid are none",
        ),
        (
            "-display gtk",
            "-display: display 'gtk' is not available; use '-display none' or '-nographic'",
        ),
        (
            "-vga std",
            "-vga: graphics card 'std' is not available; use '-vga none'",
        ),
        (
            "-d guest_error",
            "-d: there is no log item named 'guest_error'; did you mean 'guest_errors'?",
        ),
        (
            "-d exec,strace",
            "-d: 'strace' is not available; system calls are the guest kernel's; this is for emulators of single programs",
        ),
        (
            "-dfilter 0x1000+0",
            "-dfilter: 'range' cannot be '0x1000+0': expected FIRST..LAST, START+BYTES or LAST-BYTES, as in 0x8000..0x8fff",
        ),
        (
            "-drive if=virito,file=x",
            "-drive: 'if' cannot be 'virito': expected one of none, ide, scsi, virtio, pflash, floppy, sd, mtd (did you mean 'virtio'?)",
        ),
        (
            "-readconfig x",
            "-readconfig: this option of QEMU is not available; leave it out",
        ),
        (
            "-daemonize -serial mon:stdio -display none",
            "-daemonize: a process in the background has no terminal: use another stream than 'stdio'",
        ),
        (
            "-daemonize -nographic",
            "-daemonize: a process in the background has no terminal: write '-display none' instead of '-nographic'",
        ),
        (
            "-action panic=explode",
            "-action: 'panic' cannot be 'explode': expected one of none, pause, shutdown, exit-failure",
        ),
        (
            "-global x=y",
            "-global: expected 'DRIVER.PROPERTY=VALUE' or 'driver=...,property=...,value=...'",
        ),
        (
            "-accel",
            "-accel needs an argument: [accel=]NAME[:NAME...][,PROP=VALUE...]",
        ),
    ] {
        assert_eq!(run(line).unwrap_err(), message, "{line}");
    }
}

#[test]
fn a_log_filter_is_a_list_of_ranges() {
    let line =
        "-dfilter 0x8000..0x8fff,0xffffffc000080000+0x200,0x7000-0x1000,0xffffffffffffffff+1";
    let ranges = run(line).unwrap().log_filter;
    assert_eq!(
        ranges,
        [
            (0x8000, 0x8fff),
            (0xffff_ffc0_0008_0000, 0xffff_ffc0_0008_01ff),
            (0x6001, 0x7000),
            (u64::MAX, u64::MAX),
        ]
    );
    for bad in [
        "",
        "1",
        "2..1",
        "-1",
        "0xffffffffffffffff+2",
        "1-3",
        "0x1..0x2,",
    ] {
        assert!(run(&format!("-dfilter {bad}")).is_err(), "{bad}");
    }
}

#[test]
fn every_help_form_is_a_request() {
    for (line, request) in [
        ("-help", HelpRequest::Options),
        ("-h -machine", HelpRequest::Options),
        ("-machine help", HelpRequest::Machines),
        ("-M ?", HelpRequest::Machines),
        ("-machine q35,help", HelpRequest::MachineProps("q35".into())),
        ("-cpu help", HelpRequest::Cpus),
        ("-accel help", HelpRequest::Accels),
        ("-accel kvm,help", HelpRequest::AccelProps("kvm".into())),
        ("-device help", HelpRequest::Devices),
        (
            "-display none -machine accel=kvm:tcg -device ?",
            HelpRequest::Devices,
        ),
        (
            "-device virtio-blk-pci,help",
            HelpRequest::DeviceProps("virtio-blk-pci".into()),
        ),
        ("-object help", HelpRequest::Objects),
        (
            "-object rng-random,help",
            HelpRequest::ObjectProps("rng-random".into()),
        ),
        ("-chardev help", HelpRequest::Chardevs),
        (
            "-chardev socket,help",
            HelpRequest::ChardevProps("socket".into()),
        ),
        ("-netdev help", HelpRequest::Netdevs),
        ("-d help", HelpRequest::LogItems),
        ("-display help", HelpRequest::Displays),
        ("-vga help", HelpRequest::Vgas),
        ("-blockdev help", HelpRequest::BlockDrivers),
    ] {
        assert_eq!(help(line), request, "{line}");
    }
    assert!(matches!(help("-smp help"), HelpRequest::Text(t) if t.contains("sockets=<uint32>")));
    assert_eq!(parse(&["-version"]), Ok(Outcome::Version));
}

#[test]
fn the_help_text_comes_from_the_table() {
    let text = table::help_text("mimic");
    for line in [
        "-S              do not start the processors; the monitor's 'cont' does",
        "-help or -h     print this and end",
    ] {
        assert!(text.contains(line), "{line}");
    }
    assert!(!text.contains("-readconfig"));
    let mut names: Vec<_> = table::TABLE
        .iter()
        .flat_map(|d| std::iter::once(d.name).chain(d.aliases.iter().copied()))
        .collect();
    names.sort_unstable();
    assert!(
        names.windows(2).all(|w| w[0] != w[1]),
        "a name is there twice"
    );
}

#[test]
fn the_help_text_is_the_golden_one() {
    let text = table::help_text("mimic");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/help.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(
        text,
        std::fs::read_to_string(path).unwrap(),
        "`cargo xtask bless` rewrites it"
    );
}

#[test]
fn the_terminal_gets_what_qemu_would_give_it() {
    let serials = |line: &str| run(line).unwrap().streams().serials;
    let monitors = |line: &str| run(line).unwrap().streams().monitors.len();
    assert_eq!(serials(""), ["mon:stdio"]);
    assert_eq!(serials("-nographic"), ["mon:stdio"]);
    assert_eq!(serials("-monitor none"), ["stdio"]);
    assert_eq!(serials("-display none"), ["null"]);
    assert_eq!(serials("-qmp stdio"), ["null"]);
    assert_eq!(
        (
            serials("-nographic -serial pty"),
            monitors("-nographic -serial pty")
        ),
        (vec!["pty".to_owned()], 1)
    );
    assert_eq!(
        (serials("-serial stdio"), monitors("-serial stdio")),
        (vec!["stdio".to_owned()], 0)
    );
    assert!(serials("-nodefaults -device isa-serial,chardev=c").is_empty());
}

#[test]
fn later_options_add_to_earlier_ones() {
    let c = run(
        "-machine q35,acpi=off -machine hpet=off -m 1G -m slots=2,maxmem=4G -smp 4 -smp threads=2",
    )
    .unwrap();
    assert_eq!(c.machine.as_deref(), Some("q35"));
    assert_eq!(c.machine_opts.to_string(), "acpi=off,hpet=off");
    assert_eq!(
        (c.memory.size, c.memory.slots, c.memory.maxmem),
        (1 << 30, 2, 4 << 30)
    );
    assert_eq!((c.smp.cpus, c.smp.threads), (Some(4), Some(2)));
}

#[test]
fn dates_are_seconds_since_1970() {
    assert_eq!(parse_date("1970-01-01"), Some(0));
    assert_eq!(parse_date("2006-06-17T16:01:21"), Some(1_150_560_081));
    assert_eq!(parse_date("2000-02-29T23:59:59"), Some(951_868_799));
    for bad in [
        "2006-13-01",
        "06-17",
        "2006-06-17T25:00:00",
        "",
        "2006-06-17T1:2:3:4",
    ] {
        assert_eq!(parse_date(bad), None, "{bad}");
    }
}

fn any_argument() -> impl Strategy<Value = String> {
    let names: Vec<&str> = table::TABLE.iter().map(|d| d.name).collect();
    let values = "(help|\\?|[a-z0-9]{1,6}|\\{\"[a-z]{1,3}\":[0-9]\\}|[-+a-z0-9=,.:{}\"\\[\\]]{0,30}|(id|size|type|file|base|order)=[^\\x00]{0,8})";
    prop_oneof![
        prop::sample::select(names).prop_map(|n| format!("-{n}")),
        values.prop_map(|v| v),
        any::<String>()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_line_is_a_configuration_or_one_sentence(args in prop::collection::vec(any_argument(), 0..8)) {
        match parse(&args) {
            Ok(Outcome::Run(config)) => {
                let _ = config.streams();
                let limits = SmpLimits { machine: "pc", max_cpus: 255, levels: &[] };
                let _ = Topology::resolve(&config.smp, &limits);
            }
            Ok(_) => {}
            Err(e) => {
                let text = e.to_string();
                prop_assert!(text.starts_with('-') || text.starts_with("disk image"), "{}", text);
            }
        }
    }

    #[test]
    fn a_list_written_out_reads_back(values in prop::collection::vec(("[a-z][a-z0-9-]{0,5}", "[ -~]{0,10}"), 1..5)) {
        let mut opts = Opts::default();
        for (key, value) in &values {
            opts.push(key, Scalar::Text(value.clone()));
        }
        let text = opts.to_string();
        prop_assert_eq!(Opts::parse("-x", &text, None).unwrap(), opts);
    }
}
