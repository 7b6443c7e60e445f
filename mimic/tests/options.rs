//! Whatever stands on a command line ends in a machine's plan or in a message, never in a panic or a hang.

use control_options::{Outcome, parse, table};
use proptest::prelude::*;

/// Values that are right for some option or nearly so.
const VALUES: &[&str] = &[
    "",
    ",",
    "=",
    "help",
    "?",
    "on",
    "off",
    "none",
    "q35",
    "pc",
    "microvm,isa-serial=off",
    "pc-q35-7.2,accel=kvm:tcg,hpet=off",
    "qemu64,+sse3,-nx,vendor=GenuineIntel",
    "max,tsc-frequency=0",
    "4,sockets=2,cores=2,threads=1",
    "2,maxcpus=4294967295,dies=4294967295,sockets=4294967295",
    "64",
    "1k",
    "18446744073709551615T",
    "512,slots=1,maxmem=1G",
    "isa-serial,chardev=a,id=a",
    "virtio-blk-pci,drive=d0,bus=pcie.0,addr=1f.7",
    "virtio-rng-device,rng=r0,max-bytes=18446744073709551615",
    "{\"driver\":\"isa-debug-exit\",\"iobase\":244,\"iosize\":4}",
    "{\"driver\":{\"driver\":[]}}",
    "rng-builtin,id=r0",
    "rng-random,id=r0,filename=/nonexistent",
    "memory-backend-ram,id=m,size=1G",
    "null,id=a",
    "stdio,id=a,mux=on,signal=off",
    "socket,id=a,path=/nonexistent/x,server=on,wait=off",
    "chardev:a",
    "mon:stdio",
    "unix:/nonexistent/x,server",
    "tcp:localhost:0,server=on,wait=off",
    "a,mode=control,pretty=on",
    "if=virtio,file=/nonexistent/disk,format=raw,serial=x",
    "if=none,id=d0,file=/nonexistent/disk,cache=none,discard=unmap",
    "driver=raw,node-name=n,file=n",
    "driver=file,node-name=f,filename=/nonexistent/disk",
    "isa-serial.index=1",
    "driver=isa-serial,property=irq,value=4",
    "order=cdn,menu=on,strict=on,reboot-timeout=-1,splash-time=65536",
    "base=2006-06-17T16:01:21,clock=vm",
    "type=1,serial=x",
    "name=opt/x,string=y",
    "panic=pause,shutdown=pause,reboot=shutdown",
    "550e8400-e29b-41d4-a716-446655440000",
    "guest=x,process=y",
    "guest_errors,unimp",
];

fn argument() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(VALUES).prop_map(str::to_owned),
        1 => "[a-z0-9=,.:{}\"+-]{0,24}",
    ]
}

fn option() -> impl Strategy<Value = Vec<String>> {
    let names: Vec<_> = table::TABLE
        .iter()
        .map(|def| (def.name, def.arg != table::Arg::None))
        .collect();
    (proptest::sample::select(names), argument()).prop_map(|((name, takes), value)| {
        let mut words = vec![format!("-{name}")];
        if takes {
            words.push(value);
        }
        words
    })
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
