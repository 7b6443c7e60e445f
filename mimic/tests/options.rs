//! Whatever stands on a command line ends in a machine's plan or in a message, never in a panic or a hang.

use control_options::{Outcome, PropDef, parse, table};
use hw_core::PropType;
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

fn sample(words: &'static [&'static str]) -> BoxedStrategy<String> {
    proptest::sample::select(words)
        .prop_map(str::to_owned)
        .boxed()
}

/// A value of this type, at an edge, or something else.
fn value(ty: PropType) -> BoxedStrategy<String> {
    let right = match ty {
        PropType::Bool => sample(&["on", "off"]),
        PropType::OnOffAuto => sample(&["on", "off", "auto"]),
        PropType::Size => sample(&["0", "1", "4k", "1.5G", "16E", "0x1000", "64M"]),
        PropType::Mac => sample(&["52:54:00:12:34:56", "0:0:0:0:0:0:0"]),
        PropType::PciAddress => sample(&["4", "04.0", "1f.7", "20.0", "0.8"]),
        PropType::Enum([]) => sample(&["x"]),
        PropType::Enum(words) => sample(words),
        PropType::Str | PropType::Link(_) => sample(&["a", "d0", "r0", "m", "x y", ",,", "é"]),
        _ => sample(&[
            "0",
            "1",
            "255",
            "256",
            "0x3f8",
            "4294967295",
            "4294967296",
            "-1",
            "18446744073709551615",
        ]),
    };
    prop_oneof![8 => right, 1 => sample(VALUES), 1 => "[ -~]{0,12}"].boxed()
}

/// Something that a table defines: the option it is given by, what comes first, its properties.
type Defined = (&'static str, String, Vec<(&'static str, PropType)>);

/// All that there are tables of.
fn defined() -> Vec<Defined> {
    let of =
        |defs: &'static [PropDef]| -> Vec<_> { defs.iter().map(|d| (d.name, d.kind)).collect() };
    let options = table::TABLE.iter().filter(|def| !def.props.is_empty());
    let mut all: Vec<Defined> = options
        .map(|def| (def.name, String::new(), of(def.props)))
        .collect();
    for class in mimic::devices::classes() {
        let props: Vec<_> = class
            .props
            .iter()
            .map(|prop| (prop.name, prop.ty))
            .collect();
        all.push(("device", class.name.to_owned(), props.clone()));
        let globals = props.iter().map(|(name, ty)| {
            let head = format!("driver={},property={name}", class.name);
            ("global", head, vec![("value", *ty)])
        });
        all.extend(globals);
    }
    for machine in machine_x86::MACHINES {
        let props = machine.props().iter().map(|p| (p.name, p.ty)).collect();
        all.push(("machine", machine.name.to_owned(), props));
    }
    for def in mimic::accel::ACCELERATORS {
        all.push(("accel", def.name.to_owned(), of(def.props)));
    }
    for def in backend_char::DRIVERS {
        all.push(("chardev", def.name.to_owned(), of(def.props)));
    }
    for (name, _) in target_x86::system::model::models() {
        let features = target_x86::system::feature::names().map(|name| (name, PropType::Bool));
        all.push(("cpu", name.to_owned(), features.collect()));
    }
    all
}

/// An option with properties from its own table.
fn by_table() -> impl Strategy<Value = Vec<String>> {
    let pick = proptest::sample::select(defined());
    let values = pick.prop_flat_map(|(option, head, props)| {
        let id = ("id", PropType::Str);
        let names = props.into_iter().chain([id]).collect::<Vec<_>>();
        let pair = proptest::sample::select(names)
            .prop_flat_map(|(name, ty)| (Just(name), value(ty), 0u8..8));
        (
            Just(option),
            Just(head),
            proptest::collection::vec(pair, 0..5),
        )
    });
    values.prop_map(|(option, head, pairs)| {
        let pairs = pairs.into_iter().map(|(name, value, form)| match form {
            // As CPUs take them.
            0 => format!("+{name}"),
            1 => format!("-{name}"),
            2 => name.to_owned(),
            _ => format!("{name}={}", value.replace(',', ",,")),
        });
        let words = std::iter::once(head)
            .filter(|head| !head.is_empty())
            .chain(pairs);
        vec![format!("-{option}"), words.collect::<Vec<_>>().join(",")]
    })
}

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
    prop_oneof![4 => right, 4 => by_table(), 1 => any]
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
            Ok(Outcome::Run(config)) => match mimic::guests::choose("mimic", config.machine.as_deref())
                .and_then(|guest| mimic::build::plan(&config, guest)) {
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
