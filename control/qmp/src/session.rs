//! One client's conversation.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use control_qapi::{
    CapabilitiesArgs, ErrorClass, Event, EventSink, Map, Qapi, QmpError, Timestamp, Value, Vm, json,
};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::commands::{Context, Handed, Human, execute, version};
use crate::stream::JsonStream;

/// Most events kept for a client that does not read.
const EVENTS_MAX: usize = 4096;

/// The protocol of one client at a time: bytes in, bytes out.
pub struct Session {
    vm: Arc<dyn Vm>,
    human: Option<Arc<Human>>,
    events: Arc<EventQueue>,
    stream: JsonStream,
    has_agreed: bool,
    handed: Handed,
    is_pretty: bool,
}

/// Events that wait for the client's turn.
#[derive(Default)]
pub(crate) struct EventQueue {
    waiting: Mutex<VecDeque<Value>>,
}

impl EventQueue {
    fn take(&self) -> VecDeque<Value> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EventSink for EventQueue {
    fn event(&self, event: &Event, at: Timestamp) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < EVENTS_MAX {
            waiting.push_back(event.to_json(at));
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("has_agreed", &self.has_agreed)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session about `vm`. `human` runs `human-monitor-command`; `is_pretty` breaks lines.
    pub fn new(vm: Arc<dyn Vm>, human: Option<Arc<Human>>, is_pretty: bool) -> Self {
        Self {
            vm,
            human,
            events: Arc::default(),
            stream: JsonStream::default(),
            has_agreed: false,
            is_pretty,
            handed: Handed::default(),
        }
    }

    /// Takes descriptors that come with what is received next.
    pub fn hand(&mut self, fds: Vec<OwnedFd>) {
        self.handed.replace(fds);
    }

    /// Where this session's events are to be sent.
    pub(crate) fn event_queue(&self) -> Arc<EventQueue> {
        Arc::clone(&self.events)
    }

    /// A client has come: forgets the one before and greets.
    pub fn greet(&mut self) -> Vec<u8> {
        self.stream = JsonStream::default();
        self.has_agreed = false;
        self.handed = Handed::default();
        self.events.take();
        let greeting = json!({ "QMP": { "version": version().to_json(), "capabilities": [] } });
        self.encode(&greeting)
    }

    /// Takes what the client sent and returns what it is answered.
    pub fn receive(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in data {
            let Some(text) = self.stream.push(*byte) else {
                continue;
            };
            let answer = match text {
                Ok(text) => self.request(&text),
                Err(e) => failure(&QmpError::generic(e.to_string()), None),
            };
            // What the command caused comes before its answer, as from QEMU.
            out.extend(self.pending_events());
            out.extend(self.encode(&answer));
        }
        out
    }

    /// Events since the last call, if the client is past the greeting.
    pub fn pending_events(&mut self) -> Vec<u8> {
        let events = self.events.take();
        if !self.has_agreed {
            return Vec::new();
        }
        events.iter().flat_map(|event| self.encode(event)).collect()
    }

    fn request(&mut self, text: &[u8]) -> Value {
        let value: Value = match serde_json::from_slice(text) {
            Ok(value) => value,
            Err(e) => {
                let desc = format!("JSON parse error, {}", error_text(&e));
                return failure(&QmpError::generic(desc), None);
            }
        };
        let id = value.get("id").cloned();
        match self.run(value) {
            Ok(answer) => {
                let mut members = Map::new();
                members.insert("return".to_owned(), answer);
                with_id(members, id)
            }
            Err(e) => failure(&e, id),
        }
    }

    fn run(&mut self, request: Value) -> Result<Value, QmpError> {
        let Value::Object(mut members) = request else {
            return Err(QmpError::generic("QMP input must be a JSON object"));
        };
        members.remove("id");
        let name = match members.remove("execute") {
            Some(Value::String(name)) => name,
            Some(_) => {
                return Err(QmpError::generic(
                    "QMP input member 'execute' must be a string",
                ));
            }
            None => return Err(QmpError::generic("QMP input lacks member 'execute'")),
        };
        let arguments = match members.remove("arguments") {
            Some(arguments @ Value::Object(_)) => arguments,
            None => Value::Object(Map::new()),
            Some(_) => {
                return Err(QmpError::generic(
                    "QMP input member 'arguments' must be an object",
                ));
            }
        };
        if let Some(name) = members.keys().next() {
            return Err(QmpError::generic(format!(
                "QMP input member '{name}' is unexpected"
            )));
        }
        match (self.has_agreed, name.as_str()) {
            (false, "qmp_capabilities") => self.agree(arguments),
            (false, _) => Err(QmpError::new(
                ErrorClass::CommandNotFound,
                "Expecting capabilities negotiation with 'qmp_capabilities'",
            )),
            (true, "qmp_capabilities") => Err(QmpError::new(
                ErrorClass::CommandNotFound,
                "Capabilities negotiation is already complete, command ignored",
            )),
            (true, _) => {
                let context = Context {
                    vm: &*self.vm,
                    human: self.human.as_deref(),
                    handed: &self.handed,
                };
                execute(&context, &name, arguments)
            }
        }
    }

    fn agree(&mut self, arguments: Value) -> Result<Value, QmpError> {
        let arguments = CapabilitiesArgs::from_json("", arguments)?;
        if let Some(wanted) = arguments.enable.unwrap_or_default().first() {
            return Err(QmpError::generic(format!(
                "Capability {} not available",
                wanted.name()
            )));
        }
        self.has_agreed = true;
        self.events.take();
        Ok(Value::Object(Map::new()))
    }

    fn encode(&self, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        let done = if self.is_pretty {
            let indent = PrettyFormatter::with_indent(b"    ");
            value.serialize(&mut Serializer::with_formatter(&mut out, indent))
        } else {
            serde_json::to_writer(&mut out, value)
        };
        // Writing a `Value` into memory cannot fail.
        debug_assert!(done.is_ok());
        out.extend(b"\r\n");
        out
    }
}

fn with_id(mut members: Map<String, Value>, id: Option<Value>) -> Value {
    if let Some(id) = id {
        members.insert("id".to_owned(), id);
    }
    Value::Object(members)
}

fn failure(error: &QmpError, id: Option<Value>) -> Value {
    let mut members = Map::new();
    members.insert("error".to_owned(), error.to_json());
    with_id(members, id)
}

/// The parser's reason without its place, which means little in a stream.
fn error_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}
