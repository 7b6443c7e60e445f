//! Several users of one stream: the escape key decides who gets the other keys.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use runtime::{Handle, Rank, Ranked, time};

use crate::chardev::Chardev;
use crate::frontend::{CharEvent, CharSink};

/// Keys kept for a user that does not take them. While there is room, the escape key works even if the guest hangs.
const KEYS_MAX: usize = 4096;
const CTRL_A: u8 = 1;

/// What a key after the escape key asks of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MuxCommand {
    /// `x`: end the emulator.
    Quit,
    /// `s`: write `snapshot=on` disks back.
    Commit,
}

type Command = Box<dyn Fn(MuxCommand) + Send + Sync>;

/// The multiplexer on top of one chardev.
pub(crate) struct Mux {
    chardev: Weak<Chardev>,
    handle: Handle,
    state: Ranked<State>,
    command: OnceLock<Command>,
    me: Weak<Mux>,
}

struct State {
    users: Vec<User>,
    /// We are the sink of the stream below.
    listening: bool,
    focus: usize,
    escape: u8,
    escaped: bool,
    /// Nanoseconds at which timestamps were switched on.
    stamps_since: Option<u64>,
    at_line_start: bool,
}

#[derive(Default)]
struct User {
    present: bool,
    sink: Option<Arc<dyn CharSink>>,
    keys: VecDeque<u8>,
    /// It has been told that somebody is there.
    open: bool,
}

impl User {
    /// The sink, if the event is news to it.
    fn admit(&mut self, event: CharEvent) -> Option<Arc<dyn CharSink>> {
        let sink = self.sink.clone()?;
        let open = match event {
            CharEvent::Opened => true,
            CharEvent::Closed => false,
            _ => return Some(sink),
        };
        (std::mem::replace(&mut self.open, open) != open).then_some(sink)
    }
}

/// What one byte of input leads to.
enum Step {
    Key(u8),
    Event(usize, CharEvent),
    Say(String),
    Command(MuxCommand),
}

impl Mux {
    pub(crate) const USERS_MAX: usize = 4;

    pub(crate) fn new(chardev: Weak<Chardev>, handle: &Handle) -> Arc<Self> {
        let state = State {
            users: Vec::new(),
            listening: false,
            focus: 0,
            escape: CTRL_A,
            escaped: false,
            stamps_since: None,
            at_line_start: true,
        };
        Arc::new_cyclic(|me| Self {
            chardev,
            handle: handle.clone(),
            // Below the queue of the stream that it writes to, beside the devices that call it.
            state: Ranked::new(Rank::InterruptController, state),
            command: OnceLock::new(),
            me: me.clone(),
        })
    }

    pub(crate) fn set_command(&self, callback: Command) {
        let _ = self.command.set(callback);
    }

    pub(crate) fn set_escape(&self, key: u8) {
        self.state.lock().escape = key;
    }

    pub(crate) fn add_user(&self) -> Option<usize> {
        let mut state = self.state.lock();
        if let Some(free) = state.users.iter().position(|u| !u.present) {
            state.users.get_mut(free)?.present = true;
            return Some(free);
        }
        if state.users.len() >= Self::USERS_MAX {
            return None;
        }
        state.users.push(User {
            present: true,
            ..User::default()
        });
        Some(state.users.len().saturating_sub(1))
    }

    pub(crate) fn remove_user(&self, index: usize) {
        let mut state = self.state.lock();
        if let Some(user) = state.users.get_mut(index) {
            *user = User::default();
        }
        if state.focus == index {
            state.focus = state.next_user();
        }
    }

    pub(crate) fn has_users(&self) -> bool {
        self.state.lock().users.iter().any(|u| u.present)
    }

    pub(crate) fn attach(&self, index: usize, sink: Option<Arc<dyn CharSink>>) {
        let present = sink.is_some();
        let (old, first) = {
            let mut state = self.state.lock();
            let first = present && !std::mem::replace(&mut state.listening, present);
            let Some(user) = state.users.get_mut(index) else {
                return;
            };
            user.open = false;
            (std::mem::replace(&mut user.sink, sink), first)
        };
        drop(old);
        let (Some(chardev), Some(me)) = (self.chardev.upgrade(), self.me.upgrade()) else {
            return;
        };
        if first {
            chardev
                .backend()
                .set_sink(Some(Arc::new(Input { mux: me })));
        } else if present && chardev.is_open() {
            // The caller may hold a lock that its sink needs.
            self.handle
                .post(move || me.perform(Step::Event(index, CharEvent::Opened)));
        }
    }

    /// Gives the keys to this user.
    pub(crate) fn take_focus(&self, index: usize) {
        self.state.lock().focus = index;
        // The caller may hold a lock that its sink needs.
        if let Some(me) = self.me.upgrade() {
            self.handle
                .post(move || me.perform(Step::Event(index, CharEvent::FocusIn)));
        }
    }

    /// The focused user can take more.
    pub(crate) fn accept_input(&self, index: usize) {
        let waiting = self
            .state
            .lock()
            .users
            .get(index)
            .is_some_and(|u| !u.keys.is_empty());
        if !waiting {
            return;
        }
        // The caller holds the device that the keys go to.
        if let Some(me) = self.me.upgrade() {
            self.handle.post(move || me.deliver(index));
        }
    }

    pub(crate) fn write(&self, _: usize, data: &[u8]) -> usize {
        let Some(chardev) = self.chardev.upgrade() else {
            return data.len();
        };
        let since = self.state.lock().stamps_since;
        match since {
            None => chardev.write_raw(data),
            Some(since) => self.write_stamped(&chardev, since, data),
        }
    }

    fn write_stamped(&self, chardev: &Chardev, since: u64, data: &[u8]) -> usize {
        let mut taken = 0usize;
        for line in data.split_inclusive(|b| *b == b'\n') {
            if std::mem::replace(&mut self.state.lock().at_line_start, line.ends_with(b"\n")) {
                let ms = time::monotonic_ns().saturating_sub(since) / 1_000_000;
                let (s, ms) = (ms / 1000, ms % 1000);
                let stamp = format!(
                    "[{:02}:{:02}:{:02}.{ms:03}] ",
                    s / 3600,
                    s / 60 % 60,
                    s % 60
                );
                chardev.write_raw(stamp.as_bytes());
            }
            let count = chardev.write_raw(line);
            taken = taken.saturating_add(count);
            if count < line.len() {
                self.state.lock().at_line_start = false;
                break;
            }
        }
        taken
    }

    fn receive(&self, data: &[u8]) {
        for byte in data {
            // One byte at a time: an escape may change who gets the next.
            let steps = self.state.lock().step(*byte);
            for step in steps {
                self.perform(step);
            }
        }
        let count = self.state.lock().users.len();
        (0..count).for_each(|index| self.deliver(index));
    }

    fn perform(&self, step: Step) {
        match step {
            Step::Key(key) => {
                let mut state = self.state.lock();
                let focus = state.focus;
                if let Some(user) = state.users.get_mut(focus) {
                    user.keys.push_back(key);
                }
            }
            Step::Event(index, event) => {
                let sink = self
                    .state
                    .lock()
                    .users
                    .get_mut(index)
                    .and_then(|u| u.admit(event));
                if let Some(sink) = sink {
                    sink.event(event);
                }
            }
            Step::Say(text) => {
                if let Some(chardev) = self.chardev.upgrade() {
                    chardev.write_raw(text.as_bytes());
                }
            }
            Step::Command(command) => {
                if let Some(callback) = self.command.get() {
                    callback(command);
                }
            }
        }
    }

    /// Hands a user its keys as far as it takes them.
    fn deliver(&self, index: usize) {
        loop {
            let sink = {
                let state = self.state.lock();
                match state.users.get(index) {
                    Some(User {
                        sink: Some(sink),
                        keys,
                        ..
                    }) if !keys.is_empty() => Arc::clone(sink),
                    _ => break,
                }
            };
            let room = sink.can_receive();
            if room == 0 {
                return;
            }
            let keys: Vec<u8> = {
                let mut state = self.state.lock();
                let Some(user) = state.users.get_mut(index) else {
                    return;
                };
                let count = room.min(user.keys.len());
                user.keys.drain(..count).collect()
            };
            sink.receive(&keys);
        }
        if let Some(chardev) = self.chardev.upgrade() {
            chardev.backend().accept_input();
        }
    }

    fn sinks(&self) -> Vec<Arc<dyn CharSink>> {
        self.state
            .lock()
            .users
            .iter()
            .filter_map(|u| u.sink.clone())
            .collect()
    }
}

impl State {
    fn next_user(&self) -> usize {
        let count = self.users.len();
        let after =
            (1..=count).map(|n| self.focus.saturating_add(n).checked_rem(count).unwrap_or(0));
        let present = |n: &usize| self.users.get(*n).is_some_and(|u| u.present);
        after.into_iter().find(present).unwrap_or(0)
    }

    fn step(&mut self, byte: u8) -> Vec<Step> {
        if !std::mem::take(&mut self.escaped) {
            if byte == self.escape {
                self.escaped = true;
                return Vec::new();
            }
            return vec![Step::Key(byte)];
        }
        let focus = self.focus;
        match byte {
            _ if byte == self.escape => vec![Step::Key(byte)],
            b'h' | b'H' | b'?' => vec![Step::Say(self.help())],
            b'x' | b'X' => {
                vec![
                    Step::Say("mimic: ended by the terminal\r\n".to_owned()),
                    Step::Command(MuxCommand::Quit),
                ]
            }
            b's' | b'S' => vec![Step::Command(MuxCommand::Commit)],
            b'b' | b'B' => vec![Step::Event(focus, CharEvent::Break)],
            b'c' | b'C' => {
                self.focus = self.next_user();
                if self.focus == focus {
                    return Vec::new();
                }
                vec![
                    Step::Event(focus, CharEvent::FocusOut),
                    Step::Event(self.focus, CharEvent::FocusIn),
                ]
            }
            b't' | b'T' => {
                self.stamps_since = match self.stamps_since {
                    Some(_) => None,
                    None => Some(time::monotonic_ns()),
                };
                self.at_line_start = false;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn help(&self) -> String {
        // Control characters are written by the letter they are on.
        let key = match self.escape {
            byte @ 1..=26 => format!(
                "C-{}",
                char::from(byte.saturating_add(b'a').saturating_sub(1))
            ),
            byte => char::from(byte).to_string(),
        };
        [
            ("h", "print this help"),
            ("x", "exit emulator"),
            ("s", "save disk data back to file (if -snapshot)"),
            ("t", "toggle console timestamps"),
            ("b", "send break (magic sysrq)"),
            ("c", "switch between console and monitor"),
        ]
        .iter()
        .map(|(letter, what)| format!("{key} {letter}    {what}\r\n"))
        .chain([format!("{key} {key}  sends {key}\r\n")])
        .fold("\r\n".to_owned(), |all, line| all + &line)
    }
}

/// The multiplexer as the user of the stream below.
struct Input {
    mux: Arc<Mux>,
}

impl CharSink for Input {
    fn can_receive(&self) -> usize {
        let state = self.mux.state.lock();
        let waiting = state.users.get(state.focus).map_or(0, |u| u.keys.len());
        KEYS_MAX.saturating_sub(waiting)
    }

    fn receive(&self, data: &[u8]) {
        self.mux.receive(data);
    }

    fn event(&self, event: CharEvent) {
        let (focus, count) = {
            let state = self.mux.state.lock();
            (state.focus, state.users.len())
        };
        if event == CharEvent::Break {
            self.mux.perform(Step::Event(focus, event));
        } else {
            (0..count).for_each(|index| self.mux.perform(Step::Event(index, event)));
        }
    }

    fn writable(&self) {
        self.mux.sinks().iter().for_each(|sink| sink.writable());
    }
}
