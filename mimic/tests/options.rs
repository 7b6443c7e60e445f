//! Whatever stands on a command line ends in a machine's plan or in a message, never in a panic or a hang.

use control_options::{Outcome, parse, table};
use proptest::prelude::*;

/// Options that are right, or nearly so.
const PAIRS: &[(&str, &str)] = &[
    ("machine", "q35"),
    ("machine", "pc"),
    ("machine", "microvm,isa-serial=off"),
    ("machine", "pc-q35-7.2,accel=kvm:tcg,hpet=off"),
    ("machine", "q35,memory-backend=m"),
    ("accel", "tcg,thread=multi"),
    ("cpu", "qemu64,+sse3,-nx,vendor=GenuineIntel"),
    ("cpu", "max,tsc-frequency=0"),
    ("smp", "4,sockets=2,cores=2,threads=1"),
    (
        "smp",
        "2,maxcpus=4294967295,dies=4294967295,sockets=4294967295",
    ),
    ("m", "64"),
    ("m", "1k"),
    ("m", "18446744073709551615T"),
    ("m", "512,slots=1,maxmem=1G"),
    ("device", "isa-serial,chardev=a,id=a"),
    ("device", "virtio-blk-pci,drive=d0,bus=pcie.0,addr=1f.7"),
    (
        "device",
        "virtio-rng-device,rng=r0,max-bytes=18446744073709551615",
    ),
    (
        "device",
        "{\"driver\":\"isa-debug-exit\",\"iobase\":244,\"iosize\":4}",
    ),
    ("device", "{\"driver\":{\"driver\":[]}}"),
    ("object", "rng-builtin,id=r0"),
    ("object", "rng-random,id=r0,filename=/nonexistent"),
    ("object", "memory-backend-ram,id=m,size=1G"),
    ("chardev", "null,id=a"),
    ("chardev", "stdio,id=a,mux=on,signal=off"),
    (
        "chardev",
        "socket,id=a,path=/nonexistent/x,server=on,wait=off",
    ),
    ("serial", "chardev:a"),
    ("serial", "mon:stdio"),
    ("serial", "none"),
    ("parallel", "null"),
    ("monitor", "unix:/nonexistent/x,server"),
    ("qmp", "tcp:localhost:0,server=on,wait=off"),
    ("mon", "a,mode=control,pretty=on"),
    ("debugcon", "null"),
    (
        "drive",
        "if=virtio,file=/nonexistent/disk,format=raw,serial=x",
    ),
    (
        "drive",
        "if=none,id=d0,file=/nonexistent/disk,cache=none,discard=unmap",
    ),
    ("drive", "file=/nonexistent/disk"),
    ("blockdev", "driver=raw,node-name=n,file=n"),
    ("blockdev", "driver=raw,node-name=d0,file=f"),
    (
        "blockdev",
        "driver=file,node-name=f,filename=/nonexistent/disk",
    ),
    ("global", "isa-serial.index=1"),
    ("global", "driver=isa-serial,property=irq,value=4"),
    (
        "boot",
        "order=cdn,menu=on,strict=on,reboot-timeout=-1,splash-time=65536",
    ),
    ("rtc", "base=2006-06-17T16:01:21,clock=vm"),
    ("smbios", "type=1,serial=x"),
    ("fw_cfg", "name=opt/x,string=y"),
    ("action", "panic=pause,shutdown=pause,reboot=shutdown"),
    ("uuid", "550e8400-e29b-41d4-a716-446655440000"),
    ("name", "guest=x,process=y"),
    ("d", "guest_errors,unimp"),
    ("nic", "none"),
    ("display", "none"),
];

/// Values that are right nowhere, or anywhere.
const VALUES: &[&str] = &["", ",", "=", "help", "?", "on", "off", "none"];

fn argument() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => proptest::sample::select(PAIRS).prop_map(|(_, value)| value.to_owned()),
        1 => proptest::sample::select(VALUES).prop_map(str::to_owned),
        1 => "[a-z0-9=,.:{}\"+-]{0,24}",
    ]
}

fn option() -> impl Strategy<Value = Vec<String>> {
    let names: Vec<_> = table::TABLE
        .iter()
        .map(|def| (def.name, def.arg != table::Arg::None))
        .collect();
    let any = (proptest::sample::select(names), argument()).prop_map(|((name, takes), value)| {
        let mut words = vec![format!("-{name}")];
        if takes {
            words.push(value);
        }
        words
    });
    let right = proptest::sample::select(PAIRS)
        .prop_map(|(name, value)| vec![format!("-{name}"), value.to_owned()]);
    prop_oneof![4 => right, 1 => any]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_command_lines_end_in_a_plan_or_a_sentence(line in proptest::collection::vec(option(), 0..6)) {
        let words = line.concat();
        let message = match parse(&words) {
            Err(error) => error.to_string(),
            Ok(Outcome::Version) => return Ok(()),
            Ok(Outcome::Help(request, _)) => match mimic::help::text(&request, "mimic") {
                Ok(text) => {
                    prop_assert!(text.ends_with('\n'));
                    return Ok(());
                }
                Err(error) => error.to_string(),
            },
            Ok(Outcome::Run(config)) => match mimic::build::plan(&config) {
                Ok(plan) => {
                    prop_assert!(plan.spec.topology.cpus >= 1);
                    return Ok(());
                }
                Err(error) => error.to_string(),
            },
        };
        prop_assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
    }
}
