use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use backend_char::{CharSpec, Chardev};
use control_qapi::fake::FakeVm;
use control_qapi::{Event, Value, Vm, json};
use proptest::prelude::*;
use runtime::EventLoop;

use super::*;

fn session() -> (Arc<FakeVm>, Session) {
    let vm = FakeVm::new();
    let human: Arc<Human> = Arc::new(|line, cpu| Ok(format!("{line} on {cpu:?}\n")));
    let session = Session::new(vm.clone(), Some(human), false);
    let queue: Arc<dyn control_qapi::EventSink> = session.event_queue();
    vm.events.subscribe(Arc::downgrade(&queue));
    (vm, session)
}

fn ready() -> (Arc<FakeVm>, Session) {
    let (vm, mut session) = session();
    session.greet();
    assert_eq!(
        talk(&mut session, r#"{"execute":"qmp_capabilities"}"#),
        [json!({ "return": {} })]
    );
    (vm, session)
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    std::str::from_utf8(bytes)
        .unwrap()
        .split_terminator("\r\n")
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn talk(session: &mut Session, text: &str) -> Vec<Value> {
    lines(&session.receive(text.as_bytes()))
}

fn ask(session: &mut Session, name: &str) -> Value {
    talk(session, &json!({ "execute": name }).to_string())[0]["return"].clone()
}

fn error(session: &mut Session, text: &str) -> (String, String) {
    let answer = &talk(session, text)[0]["error"];
    (
        answer["class"].as_str().unwrap().to_owned(),
        answer["desc"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn the_greeting_has_the_shape_that_clients_look_for() {
    let (_, mut session) = session();
    assert_eq!(
        lines(&session.greet()),
        [json!({ "QMP": {
            "version": { "qemu": { "major": 10, "minor": 0, "micro": 0 }, "package": "mimic" },
            "capabilities": [],
        } })]
    );
}

#[test]
fn nothing_works_before_the_negotiation_and_it_works_once() {
    let (_, mut session) = session();
    session.greet();
    let not_found = |text: &str| ("CommandNotFound".to_owned(), text.to_owned());
    assert_eq!(
        error(&mut session, r#"{"execute":"query-status"}"#),
        not_found("Expecting capabilities negotiation with 'qmp_capabilities'")
    );
    assert_eq!(
        error(
            &mut session,
            r#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#
        )
        .1,
        "Capability oob not available"
    );
    assert_eq!(ask(&mut session, "qmp_capabilities"), json!({}));
    assert_eq!(
        error(&mut session, r#"{"execute":"qmp_capabilities"}"#),
        not_found("Capabilities negotiation is already complete, command ignored")
    );
}

#[test]
fn queries_answer_what_the_machine_says() {
    let (_, mut s) = ready();
    assert_eq!(
        ask(&mut s, "query-status"),
        json!({ "running": true, "status": "running" })
    );
    assert_eq!(ask(&mut s, "query-name"), json!({ "name": "fake" }));
    assert_eq!(
        ask(&mut s, "query-uuid"),
        json!({ "UUID": "00000000-0000-0000-0000-000000000000" })
    );
    assert_eq!(
        ask(&mut s, "query-kvm"),
        json!({ "enabled": false, "present": true })
    );
    assert_eq!(ask(&mut s, "query-target"), json!({ "arch": "x86_64" }));
    assert_eq!(
        ask(&mut s, "query-chardev")[0]["filename"],
        "pty:/dev/pts/3"
    );
    assert_eq!(ask(&mut s, "query-machines")[0]["alias"], "q35");
    let cpus = ask(&mut s, "query-cpus-fast");
    assert_eq!(
        cpus[1],
        json!({
            "cpu-index": 1, "qom-path": "/machine/unattached/device[1]", "thread-id": 100,
            "props": { "socket-id": 0, "core-id": 0, "thread-id": 0 }, "target": "x86_64",
        })
    );
    assert_eq!(
        ask(&mut s, "query-pci")[0]["devices"][0]["regions"][0]["size"],
        32
    );
}

#[test]
fn every_command_is_listed_and_in_the_schema() {
    let (_, mut s) = ready();
    let names: Vec<String> = commands().map(|c| c.name.to_owned()).collect();
    let listed: Vec<String> = ask(&mut s, "query-commands")
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap().into())
        .collect();
    assert_eq!(listed, names);
    let schema = ask(&mut s, "query-qmp-schema");
    let entries = schema.as_array().unwrap();
    for name in names
        .iter()
        .map(String::as_str)
        .chain(Event::NAMES.iter().copied())
    {
        assert!(entries.iter().any(|e| e["name"] == name), "{name}");
    }
}

#[test]
fn events_come_before_the_answer_of_the_command_that_caused_them() {
    let (vm, mut s) = ready();
    let stamp = json!({ "seconds": 1, "microseconds": 2 });
    assert_eq!(
        talk(&mut s, r#"{"execute":"stop","id":[1,"x"]}"#),
        [
            json!({ "timestamp": stamp, "event": "STOP" }),
            json!({ "return": {}, "id": [1, "x"] })
        ]
    );
    assert_eq!(
        talk(&mut s, r#"{"execute":"system_reset"}"#)[0],
        json!({
            "timestamp": stamp, "event": "RESET",
            "data": { "guest": false, "reason": "host-qmp-system-reset" },
        })
    );
    assert_eq!(
        ask(&mut s, "query-status"),
        json!({ "running": false, "status": "paused" })
    );
    for name in ["inject-nmi", "quit"] {
        assert_eq!(ask(&mut s, name), json!({}), "{name}");
    }
    assert_eq!(vm.calls(), ["stop", "system_reset", "nmi", "quit 0"]);
}

#[test]
fn a_session_that_has_not_agreed_hears_no_events() {
    let (vm, mut s) = session();
    s.greet();
    vm.stop();
    assert!(s.pending_events().is_empty());
    assert_eq!(ask(&mut s, "qmp_capabilities"), json!({}));
    assert!(s.pending_events().is_empty());
    vm.stop();
    assert_eq!(lines(&s.pending_events())[0]["event"], "STOP");
}

#[test]
fn wrong_requests_are_refused_in_qemus_words() {
    let (_, mut s) = ready();
    for (text, class, desc) in [
        (
            r#"{"execute":"frobnicate"}"#,
            "CommandNotFound",
            "The command frobnicate has not been found",
        ),
        (
            r#"{"execute":1}"#,
            "GenericError",
            "QMP input member 'execute' must be a string",
        ),
        (
            r#"{"arguments":{}}"#,
            "GenericError",
            "QMP input lacks member 'execute'",
        ),
        (
            r#"{"execute":"stop","extra":1}"#,
            "GenericError",
            "QMP input member 'extra' is unexpected",
        ),
        (
            r#"{"execute":"stop","arguments":[]}"#,
            "GenericError",
            "QMP input member 'arguments' must be an object",
        ),
        (
            r#"{"execute":"stop","arguments":{"x":1}}"#,
            "GenericError",
            "Parameter 'x' is unexpected",
        ),
        (
            r#"{"execute":"send-key"}"#,
            "GenericError",
            "Parameter 'keys' is missing",
        ),
        (
            r#"{"execute":"send-key","arguments":{"keys":1}}"#,
            "GenericError",
            "Invalid parameter type for 'keys', expected: array",
        ),
        (
            r#"{"execute":"device-list-properties","arguments":{"typename":"x"}}"#,
            "DeviceNotFound",
            "Device 'x' not found",
        ),
        (
            r#"{"execute":"device-list-properties","arguments":{"typename":"rng-random"}}"#,
            "GenericError",
            "Parameter 'typename' expects a non-abstract device type",
        ),
        (
            r#"{"execute":"qom-list","arguments":{"path":"/x"}}"#,
            "DeviceNotFound",
            "Device '/x' not found",
        ),
        ("[1]", "GenericError", "QMP input must be a JSON object"),
        ("5 ", "GenericError", "QMP input must be a JSON object"),
        (
            "hello\n",
            "GenericError",
            "JSON parse error, invalid keyword 'hello'",
        ),
        (
            "{\"a\": ]\n",
            "GenericError",
            "JSON parse error, expecting value",
        ),
        (
            "{\"a\" \"b\"}\n",
            "GenericError",
            "JSON parse error, expected `:`",
        ),
    ] {
        assert_eq!(
            error(&mut s, text),
            (class.to_owned(), desc.to_owned()),
            "{text}"
        );
        assert_eq!(
            ask(&mut s, "query-status")["status"],
            "running",
            "after {text}"
        );
    }
}

#[test]
fn the_options_and_their_parameters_come_from_the_command_lines_table() {
    let (_, mut s) = ready();
    let options = ask(&mut s, "query-command-line-options");
    let sandbox = options
        .as_array()
        .unwrap()
        .iter()
        .find(|o| o["option"] == "sandbox")
        .unwrap();
    assert_eq!(sandbox["parameters"][0]["name"], "enable");
    assert_eq!(sandbox["parameters"][0]["type"], "boolean");
    assert!(
        !options
            .as_array()
            .unwrap()
            .iter()
            .any(|o| o["option"] == "spice")
    );
    assert_eq!(ask(&mut s, "query-migrate-capabilities"), json!([]));
    let set = |s: &mut Session, capability: &str| {
        let given = json!([{ "capability": capability, "state": true }]);
        let arguments = json!({ "capabilities": given });
        let asked = json!({ "execute": "migrate-set-capabilities", "arguments": arguments });
        talk(s, &asked.to_string())[0].clone()
    };
    assert_eq!(set(&mut s, "events")["return"], json!({}));
    let error = set(&mut s, "xbzrle")["error"]["desc"].clone();
    assert_eq!(
        error,
        "Migration capability 'xbzrle' is not available: this machine cannot be migrated yet"
    );
}

#[test]
fn types_are_listed_by_what_they_implement() {
    let (_, mut s) = ready();
    let names = |s: &mut Session, arguments: Value| -> Vec<String> {
        let text = json!({ "execute": "qom-list-types", "arguments": arguments }).to_string();
        let answer = talk(s, &text)[0]["return"].clone();
        answer
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&mut s, json!({})), ["isa-serial", "rng-random"]);
    assert_eq!(
        names(&mut s, json!({ "implements": "device" })),
        ["isa-serial"]
    );
    assert_eq!(
        names(&mut s, json!({ "implements": "device", "abstract": true })),
        ["device", "isa-device", "isa-serial"]
    );
}

#[test]
fn keys_lines_and_ring_buffers_reach_the_machine() {
    let (vm, mut s) = ready();
    let keys = r#"{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"ctrl"},{"type":"number","data":46}]}}"#;
    assert_eq!(talk(&mut s, keys)[0]["return"], json!({}));
    assert_eq!(vm.calls(), ["keys ctrl+46 100"]);
    let human = r#"{"execute":"human-monitor-command","arguments":{"command-line":"info cpus","cpu-index":1}}"#;
    assert_eq!(talk(&mut s, human)[0]["return"], "info cpus on Some(1)\n");
    let ring = |format| {
        json!({ "execute": "ringbuf-read", "arguments": { "device": "ring0", "size": 9, "format": format } }).to_string()
    };
    assert_eq!(talk(&mut s, &ring("base64"))[0]["return"], "cmluZ/8=");
    assert_eq!(talk(&mut s, &ring("utf8"))[0]["return"], "ring\u{fffd}");
}

#[test]
fn memory_is_saved_to_a_file_or_refused_with_the_address() {
    let (_, mut s) = ready();
    let path = std::env::temp_dir().join(format!("mimic-memsave-{}", std::process::id()));
    let save = |size: u64| {
        let arguments = json!({ "val": 16, "size": size, "filename": path });
        json!({ "execute": "pmemsave", "arguments": arguments }).to_string()
    };
    assert_eq!(talk(&mut s, &save(4))[0]["return"], json!({}));
    assert_eq!(std::fs::read(&path).unwrap(), [16, 17, 18, 19]);
    assert_eq!(
        error(&mut s, &save(1 << 40)).1,
        "Invalid addr 0x0000000000010000/size 1099511627776 specified"
    );
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn nesting_and_size_are_bounded() {
    let (_, mut s) = ready();
    let deep = "[".repeat(5000);
    assert_eq!(error(&mut s, &deep).1, "JSON nesting depth limit exceeded");
    s.receive(b"\n");
    let long = format!("\"{}", "x".repeat(5 << 20));
    assert_eq!(error(&mut s, &long).1, "JSON token size limit exceeded");
    s.receive(b"\n");
    assert_eq!(ask(&mut s, "query-status")["running"], true);
}

#[test]
fn pretty_answers_have_line_breaks() {
    let mut s = Session::new(FakeVm::new(), None, true);
    s.greet();
    let answer = s.receive(b"{\"execute\":\"qmp_capabilities\"}");
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        "{\n    \"return\": {}\n}\r\n"
    );
}

#[test]
fn a_monitor_serves_one_client_after_another_and_sends_events() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let path = std::env::temp_dir().join(format!("mimic-qmp-{}", std::process::id()));
    let text = format!("unix:{},server=on,wait=off", path.display());
    let chardev =
        Chardev::open(&CharSpec::parse_short("-qmp", "m", &text).unwrap(), &handle).unwrap();
    let vm = FakeVm::new();
    let _monitor = QmpMonitor::start(
        chardev.frontend().unwrap(),
        &handle,
        vm.clone(),
        &vm.events,
        None,
        false,
    );
    for _ in 0..2 {
        let client = UnixStream::connect(&path).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let mut writer = client;
        let mut next = || -> Value {
            let mut line = String::new();
            for _ in 0..1000 {
                event_loop.turn(Some(Duration::from_millis(10)));
                if reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                    return serde_json::from_str(&line).unwrap();
                }
            }
            panic!("no answer");
        };
        assert!(next()["QMP"].is_object());
        writer
            .write_all(b"{\"execute\":\"qmp_capabilities\"}")
            .unwrap();
        assert_eq!(next(), json!({ "return": {} }));
        let other = vm.clone();
        std::thread::spawn(move || other.system_powerdown())
            .join()
            .unwrap();
        assert_eq!(next()["event"], "POWERDOWN");
        writer
            .write_all(b"{\"execute\":\"query-qmp-schema\"}")
            .unwrap();
        assert!(next()["return"].as_array().unwrap().len() > 100);
    }
}

#[test]
fn a_client_that_sends_all_and_hangs_up_still_gets_the_answers() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let path = std::env::temp_dir().join(format!("mimic-qmp-half-{}", std::process::id()));
    let text = format!("unix:{},server=on,wait=off", path.display());
    let spec = CharSpec::parse_short("-qmp", "m", &text).unwrap();
    let chardev = Chardev::open(&spec, &handle).unwrap();
    let vm = FakeVm::new();
    let frontend = chardev.frontend().unwrap();
    let _monitor = QmpMonitor::start(frontend, &handle, vm.clone(), &vm.events, None, false);
    let mut client = UnixStream::connect(&path).unwrap();
    let commands = "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}";
    client.write_all(commands.as_bytes()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut answer = Vec::new();
    for _ in 0..1000 {
        event_loop.turn(Some(Duration::from_millis(10)));
        let mut buffer = [0; 4096];
        match std::io::Read::read(&mut client, &mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend(&buffer[..count]),
            Err(_) => {}
        }
    }
    let answers = lines(&answer);
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[2]["return"]["status"], "running");
}

#[test]
fn the_schema_is_the_golden_one() {
    let entries = schema(FakeVm::new().blocks().drivers())
        .iter()
        .map(|e| format!("{e}\n"))
        .collect::<String>();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/query-qmp-schema.txt"
    );
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &entries).unwrap();
    }
    assert_eq!(
        entries,
        std::fs::read_to_string(path).unwrap(),
        "`cargo xtask bless` rewrites it"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_answered_with_json_and_the_session_goes_on(
        bytes in prop::collection::vec(prop_oneof![
            any::<u8>(),
            prop::sample::select(b"{}[]\",: \\\ntrue0".to_vec()),
        ], 0..200),
    ) {
        let (_, mut s) = ready();
        lines(&s.receive(&bytes));
        // Out of whatever string, bracket or word the bytes left open.
        s.receive(b"\n\x01\n");
        prop_assert_eq!(&ask(&mut s, "query-status")["status"], "running");
    }

    #[test]
    fn a_request_may_come_in_any_pieces(cuts in prop::collection::vec(0usize..60, 0..6)) {
        let (_, mut s) = ready();
        let text = br#"{"execute": "query-name", "id": "a\"{b}", "arguments": {} }"#;
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let out: Vec<u8> = cuts.windows(2).flat_map(|w| s.receive(&text[w[0]..w[1]])).collect();
        prop_assert_eq!(lines(&out), [json!({ "return": { "name": "fake" }, "id": "a\"{b}" })]);
    }

    #[test]
    fn any_arguments_are_an_answer_or_an_error(
        index in 0..commands().count(),
        pairs in prop::collection::vec((prop::sample::select(members()), any_value()), 0..5),
    ) {
        let (_, mut s) = ready();
        let mut arguments = json!({});
        for (name, value) in pairs {
            // A file name is the one thing that must not be random.
            arguments[&name] = if name == "filename" { json!("/nonexistent/x") } else { value };
        }
        let text = json!({ "execute": commands().nth(index).unwrap().name, "arguments": arguments }).to_string();
        let answers = talk(&mut s, &text);
        let last = answers.last().unwrap();
        prop_assert!(last.get("return").is_some() || last.get("error").is_some());
    }
}

/// The names of all members in the schema: arguments, and what is in them.
fn members() -> Vec<String> {
    let mut names: Vec<String> = schema(FakeVm::new().blocks().drivers())
        .iter()
        .flat_map(|entry| entry["members"].as_array().cloned().unwrap_or_default())
        .filter_map(|member| Some(member["name"].as_str()?.to_owned()))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![
            json!(0),
            json!(-1),
            json!(u64::MAX),
            json!(1.5),
            json!(1e300)
        ]),
        prop::sample::select(vec![
            "x",
            "qcode",
            "ret",
            "virtio-blk-pci",
            "info status",
            "\u{0}"
        ])
        .prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        let pair = (prop::sample::select(members()), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            prop::collection::vec(pair, 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}
