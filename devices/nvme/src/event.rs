//! Asynchronous events (NVMe, 5.2): what the controller says of its own accord.

use std::collections::VecDeque;

use crate::command::Status;
use crate::controller::Nvme;
use crate::queue::Ended;

/// Something to say: type, what it is, and the log page that has more of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) kind: u8,
    pub(crate) info: u8,
    pub(crate) page: u8,
}

impl Event {
    const fn new(kind: u8, info: u8, page: u8) -> Self {
        Event { kind, info, page }
    }

    pub(crate) const BAD_DOORBELL: Event = Event::new(0, 0, 1);
    pub(crate) const BAD_DOORBELL_VALUE: Event = Event::new(0, 1, 1);
    pub(crate) const NAMESPACES_CHANGED: Event = Event::new(2, 0, 4);

    /// As completions have it.
    fn result(self) -> u32 {
        u32::from(self.kind) | u32::from(self.info) << 8 | u32::from(self.page) << 16
    }
}

/// Events that wait for a command to carry them.
const QUEUED: usize = 64;

/// Events and the commands that wait for them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Events {
    /// Commands that wait for one.
    pub(crate) requests: VecDeque<u16>,
    pub(crate) queued: VecDeque<Event>,
    /// Types that were told and whose log page was not read since, a bit each.
    pub(crate) masked: u8,
}

impl Nvme {
    /// Asynchronous Event Request: `None` for one that waits.
    pub(crate) fn event_request(&mut self, command: u16) -> Option<Status> {
        let events = &mut self.state.events;
        if events.requests.len() > usize::from(self.options.aerl) {
            return Some(Status::EVENTS_EXCEEDED);
        }
        events.requests.push_back(command);
        None
    }

    /// Has something to say.
    pub(crate) fn event(&mut self, event: Event) {
        let events = &mut self.state.events;
        if events.queued.len() < QUEUED && !events.queued.contains(&event) {
            events.queued.push_back(event);
        }
    }

    /// Says what there is to say, as far as commands wait for it.
    pub(crate) fn tell_events(&mut self) {
        loop {
            let events = &mut self.state.events;
            let is_open = |event: &Event| events.masked & 1u8.wrapping_shl(event.kind.into()) == 0;
            let Some(at) = events.queued.iter().position(is_open) else {
                return;
            };
            if events.requests.is_empty() {
                return;
            }
            let (Some(command), Some(event)) =
                (events.requests.pop_front(), events.queued.remove(at))
            else {
                return;
            };
            events.masked |= 1u8.wrapping_shl(event.kind.into());
            self.end(Ended {
                queue: 0,
                command,
                status: Status::SUCCESS,
                result: event.result(),
            });
        }
    }

    /// The host has read a log page: events of its type may be told again.
    pub(crate) fn page_read(&mut self, page: u8) {
        let kind = match page {
            1 => Event::BAD_DOORBELL.kind,
            4 => Event::NAMESPACES_CHANGED.kind,
            _ => return,
        };
        self.state.events.masked &= !1u8.wrapping_shl(kind.into());
    }
}
