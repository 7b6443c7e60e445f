//! A QMP client.
//!
//! The harness listens and the machine connects, so nothing has to wait for a socket to appear.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Error;

/// A negotiated monitor connection.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    greeting: Value,
    /// Events that arrived while an answer was waited for.
    events: VecDeque<Value>,
}

/// A listener that waits for the machine.
pub(crate) struct Pending(Receiver<std::io::Result<UnixStream>>);

impl Pending {
    pub(crate) fn listen(listener: UnixListener) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let _ = sender.send(listener.accept().map(|(stream, _)| stream));
        });
        Self(receiver)
    }

    /// The connection once it is there. `alive` is asked now and then whether to go on waiting.
    pub(crate) fn accept(
        self,
        patience: Duration,
        mut alive: impl FnMut() -> bool,
    ) -> Result<Qmp, Error> {
        const STEP: Duration = Duration::from_millis(200);
        let mut waited = Duration::ZERO;
        let stream = loop {
            match self.0.recv_timeout(STEP) {
                Ok(stream) => break stream?,
                Err(RecvTimeoutError::Timeout) if waited < patience && alive() => waited += STEP,
                Err(_) => {
                    return Err(Error::QmpStream("the machine did not connect".to_owned()));
                }
            }
        };
        stream.set_read_timeout(Some(patience))?;
        Qmp::negotiate(stream)
    }
}

impl Qmp {
    fn negotiate(stream: UnixStream) -> Result<Self, Error> {
        let mut qmp = Self {
            reader: BufReader::new(stream.try_clone()?),
            writer: stream,
            greeting: Value::Null,
            events: VecDeque::new(),
        };
        qmp.greeting = qmp.read()?;
        if !qmp.greeting["QMP"].is_object() {
            return Err(Error::QmpStream(format!("{} is no greeting", qmp.greeting)));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// What the monitor said first.
    pub fn greeting(&self) -> &Value {
        &self.greeting
    }

    /// Runs a command and returns the `return` member of its answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        let mut request = json!({ "execute": command }).to_string();
        if arguments
            .as_object()
            .is_some_and(|members| !members.is_empty())
        {
            request = json!({ "execute": command, "arguments": arguments }).to_string();
        }
        request.push('\n');
        self.writer.write_all(request.as_bytes())?;
        loop {
            let message = self.read()?;
            if let Some(result) = message.get("return") {
                return Ok(result.clone());
            }
            if let Some(error) = message.get("error") {
                return Err(Error::Qmp {
                    command: command.to_owned(),
                    answer: error.clone(),
                });
            }
            self.events.push_back(message);
        }
    }

    /// Runs a line of the human monitor.
    pub fn hmp(&mut self, line: &str) -> Result<String, Error> {
        let text = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(text.as_str().unwrap_or_default().replace("\r\n", "\n"))
    }

    /// Waits for an event, dropping others before it.
    pub fn event(&mut self, name: &str) -> Result<Value, Error> {
        loop {
            let message = match self.events.pop_front() {
                Some(message) => message,
                None => self.read()?,
            };
            if message["event"] == name {
                return Ok(message);
            }
        }
    }

    fn read(&mut self) -> Result<Value, Error> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(Error::QmpStream("the machine hung up".to_owned())),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|reason| Error::QmpStream(format!("{reason} in {line:?}"))),
            Err(reason) => Err(Error::QmpStream(format!("no answer: {reason}"))),
        }
    }
}
