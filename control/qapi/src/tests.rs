#![allow(unreachable_pub)] // the macro writes `pub`
use super::*;

qapi_struct! {
    /// For the tests.
    pub struct Sample {
        /// A number.
        count: u8 = "count",
        /// A list.
        names: Option<Vec<String>> = "names",
        /// A word.
        state: RunState = "state",
    }
}

fn read(value: Value) -> Result<Sample, String> {
    Sample::from_json("", value).map_err(|e| e.desc)
}

#[test]
fn a_struct_reads_what_it_writes() {
    let sample = Sample {
        count: 3,
        names: Some(vec!["a".into()]),
        state: RunState::Paused,
    };
    let sent = sample.to_json();
    assert_eq!(
        sent,
        json!({ "count": 3, "names": ["a"], "state": "paused" })
    );
    assert_eq!(read(sent), Ok(sample));
    assert!(
        read(json!({ "count": 3, "state": "paused" }))
            .unwrap()
            .names
            .is_none()
    );
}

#[test]
fn what_is_wrong_is_said_in_qemus_words() {
    for (value, message) in [
        (json!({ "state": "paused" }), "Parameter 'count' is missing"),
        (
            json!({ "count": "3", "state": "paused" }),
            "Invalid parameter type for 'count', expected: integer",
        ),
        (
            json!({ "count": 300, "state": "paused" }),
            "Parameter 'count' expects uint8_t",
        ),
        (
            json!({ "count": 3, "state": "x" }),
            "Parameter 'state' does not accept value 'x'",
        ),
        (
            json!({ "count": 3, "state": "paused", "z": 1 }),
            "Parameter 'z' is unexpected",
        ),
        (
            json!({ "count": 3, "state": "paused", "names": [1] }),
            "Invalid parameter type for 'names[0]', expected: string",
        ),
    ] {
        assert_eq!(read(value).unwrap_err(), message);
    }
}

#[test]
fn keys_come_by_name_or_number() {
    let read = |value| {
        SendKeyArgs::from_json("", value)
            .map(|a| a.keys)
            .map_err(|e| e.desc)
    };
    assert_eq!(
        read(
            json!({ "keys": [{ "type": "qcode", "data": "ret" }, { "type": "number", "data": 28 }] })
        ),
        Ok(vec![Key::Code(QKeyCode::Ret), Key::Number(28)])
    );
    assert_eq!(QKeyCode::Ret.scan_code(), Some(28));
    assert_eq!(
        read(json!({ "keys": [{ "type": "qcode", "data": "any" }] })).unwrap_err(),
        "Parameter 'keys[0].data' does not accept value 'any'"
    );
}

#[test]
fn the_schema_names_every_type_it_uses_once() {
    let mut schema = Schema::default();
    let arguments = SendKeyArgs::describe(&mut schema);
    let answer = Vec::<PciInfo>::describe(&mut schema);
    schema.command("x", &arguments, &answer);
    Event::describe_all(&mut schema);
    let entries = schema.into_entries();
    let mut names: Vec<_> = entries
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    let known = |name: &Value| entries.iter().any(|e| e["name"] == *name);
    for entry in &entries {
        for key in ["arg-type", "ret-type", "element-type"] {
            assert!(entry.get(key).is_none_or(known), "{entry}");
        }
        for list in ["members", "variants"] {
            for member in entry
                .get(list)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                assert!(member.get("type").is_none_or(known), "{entry}");
            }
        }
    }
    names.sort_unstable();
    assert!(names.windows(2).all(|w| w[0] != w[1]));
}

#[test]
fn an_event_carries_its_time_and_data() {
    struct Log(std::sync::Mutex<Vec<Value>>);
    impl EventSink for Log {
        fn event(&self, event: &Event, at: Timestamp) {
            self.0.lock().unwrap().push(event.to_json(at));
        }
    }
    let log = std::sync::Arc::new(Log(std::sync::Mutex::default()));
    let bus = EventBus::new(|| Timestamp::from_ns(5_000_001_999));
    let sink: std::sync::Arc<dyn EventSink> = log.clone();
    bus.subscribe(std::sync::Arc::downgrade(&sink));
    bus.emit(&Event::Stop {});
    bus.emit(&Event::Shutdown {
        guest: true,
        reason: ShutdownCause::GuestShutdown,
    });
    let stamp = json!({ "seconds": 5, "microseconds": 1 });
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            json!({ "timestamp": stamp, "event": "STOP" }),
            json!({ "timestamp": stamp, "event": "SHUTDOWN", "data": { "guest": true, "reason": "guest-shutdown" } }),
        ]
    );
}
