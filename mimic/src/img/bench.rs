//! `bench`: how fast an image is.
//!
//! Whoever hears that a request has ended begins the next one, so that no thread is woken for it.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use backend_block::{
    BackendOptions, Block as _, BlockBackend, BlockError, IoVector, Operation, Request,
};

use super::args::Args;
use super::{BUFFER_MAX, How, open, size};
use crate::entry::print;

/// Most requests at a time.
const DEPTH_MAX: u64 = 1 << 16;

/// What is to be done.
struct Plan {
    writes: bool,
    count: u64,
    /// Bytes of a request, and from the start of one to that of the next.
    buffer: u64,
    step: u64,
    /// Bytes of the disk.
    len: u64,
    /// A flush after so many requests; 0: none.
    flush_interval: u64,
    /// A flush waits for all requests before it, and those after it wait for it.
    drains: bool,
}

/// How far it is.
struct State {
    sent: u64,
    offset: u64,
    /// Requests under way, flushes too.
    flying: u64,
    free: Vec<IoVector>,
    /// A flush comes next.
    is_flush_due: bool,
    /// A flush that others wait for is under way.
    is_flushing: bool,
    failed: Option<BlockError>,
}

struct Bench {
    disk: BlockBackend,
    plan: Plan,
    state: Mutex<State>,
    ended: Sender<Result<(), BlockError>>,
}

impl State {
    /// What to begin now, and in which memory. None if what is under way has to end first, or all is done.
    fn next(&mut self, plan: &Plan) -> Option<(Operation, IoVector)> {
        if self.failed.is_some() || self.is_flushing {
            return None;
        }
        if self.is_flush_due {
            if plan.drains && self.flying > 0 {
                return None;
            }
            self.is_flush_due = false;
            self.is_flushing = plan.drains;
            self.flying += 1;
            return Some((Operation::Flush, IoVector::default()));
        }
        if self.sent == plan.count {
            return None;
        }
        let memory = self.free.pop()?;
        let offset = self.offset;
        self.offset = offset.saturating_add(plan.step);
        if !fits(self.offset, plan.buffer, plan.len) {
            self.offset = 0;
        }
        self.sent += 1;
        self.flying += 1;
        self.is_flush_due =
            plan.flush_interval != 0 && self.sent.is_multiple_of(plan.flush_interval);
        let operation = match plan.writes {
            true => Operation::Write { offset },
            false => Operation::Read { offset },
        };
        Some((operation, memory))
    }

    fn end(&mut self, result: Result<(), BlockError>, operation: Operation, memory: IoVector) {
        self.flying -= 1;
        match operation {
            Operation::Flush => self.is_flushing = false,
            _ => self.free.push(memory),
        }
        self.failed = self.failed.or(result.err());
    }

    /// How it ended, once it has.
    fn result(&self, plan: &Plan) -> Option<Result<(), BlockError>> {
        if self.flying > 0 {
            return None;
        }
        match self.failed {
            Some(error) => Some(Err(error)),
            None => (self.sent == plan.count && !self.is_flush_due).then_some(Ok(())),
        }
    }
}

impl Bench {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what can begin.
    fn advance(self: &Arc<Self>) {
        let mut state = self.state();
        while let Some((operation, memory)) = state.next(&self.plan) {
            drop(state);
            // As devices do it: what takes no waiting is not handed on.
            let is_done = match operation {
                Operation::Read { offset } => self.disk.read_now(offset, &memory),
                _ => false,
            };
            if is_done {
                state = self.state();
                state.end(Ok(()), operation, memory);
                continue;
            }
            let (me, back) = (Arc::clone(self), memory.clone());
            let done = Box::new(move |result| {
                me.state().end(result, operation, back);
                me.advance();
            });
            self.disk.submit(Request::new(operation, memory, done));
            state = self.state();
        }
        if let Some(result) = state.result(&self.plan) {
            // Who is told twice listens once.
            let _ = self.ended.send(result);
        }
    }
}

/// Whether a request of `buffer` bytes lies within a disk of `len`.
fn fits(offset: u64, buffer: u64, len: u64) -> bool {
    offset.checked_add(buffer).is_some_and(|end| end <= len)
}

pub(super) fn bench(args: &mut Args) -> Result<i32> {
    args.parse(
        &["n", "q", "w", "U", "force-share", "no-drain", "image-opts"],
        &[
            "c",
            "d",
            "f",
            "i",
            "o",
            "s",
            "S",
            "t",
            "flush-interval",
            "pattern",
        ],
    )?;
    let file = args.one()?;
    let number =
        |name: &str, usual: u64| -> Result<u64> { args.value(name).map_or(Ok(usual), size) };
    let (count, depth) = (number("c", 75_000)?, number("d", 64)?);
    let buffer = number("s", 4096)?;
    let step = number("S", buffer)?;
    let start = number("o", 0)?;
    let flush_interval = number("flush-interval", 0)?;
    let pattern = u8::try_from(number("pattern", 0)?).context("'--pattern' is a byte")?;
    if depth == 0 || depth > DEPTH_MAX || buffer == 0 || buffer > BUFFER_MAX {
        bail!("'-d' is from 1 to {DEPTH_MAX}, '-s' from 1 to {BUFFER_MAX}");
    }
    if !buffer.is_multiple_of(512) || !step.is_multiple_of(512) || !start.is_multiple_of(512) {
        bail!("'-s', '-S' and '-o' are multiples of 512");
    }
    let writes = args.has("w");
    if flush_interval != 0 && !writes {
        bail!("'--flush-interval' is for writes: give '-w' too");
    }
    let how = How {
        format: args.value("f"),
        cache: if args.has("n") {
            Some("none")
        } else {
            args.value("t")
        },
        aio: args.value("i"),
        writes,
        shares: args.has("U") || args.has("force-share"),
        is_opts: args.has("image-opts"),
        ..How::default()
    };
    let node = open(file, how)?.node;
    let len = node.len();
    if !fits(start, buffer, len) {
        bail!("'{file}' has {len} bytes: a request of {buffer} at {start} reaches beyond them");
    }
    let disk = BlockBackend::new("bench", node, BackendOptions::default())?;
    let drains = !args.has("no-drain");
    if !args.has("q") {
        let what = if writes { "write" } else { "read" };
        print(&format!(
            "Sending {count} {what} requests, {buffer} bytes each, {depth} in parallel (starting at offset {start}, step size {step})\n"
        ))?;
        if flush_interval != 0 {
            let drain = if drains { "with" } else { "without" };
            print(&format!(
                "Sending flush every {flush_interval} requests ({drain} drain)\n"
            ))?;
        }
    }
    let begun = Instant::now();
    let free = (0..depth.min(count)).map(|_| {
        let memory = IoVector::zeroed(usize::try_from(buffer).unwrap_or(0));
        memory.fill(pattern);
        memory
    });
    let (told, ended) = channel();
    let bench = Arc::new(Bench {
        disk,
        plan: Plan {
            writes,
            count,
            buffer,
            step,
            len,
            flush_interval,
            drains,
        },
        state: Mutex::new(State {
            sent: 0,
            offset: start,
            flying: 0,
            free: free.collect(),
            is_flush_due: false,
            is_flushing: false,
            failed: None,
        }),
        ended: told,
    });
    bench.advance();
    let result = ended.recv().context("the disk's threads are gone")?;
    let took_s = begun.elapsed().as_secs_f64();
    // The last who was told lets go of the disk.
    bench.disk.drain();
    result.context("a request failed")?;
    print(&format!("Run completed in {took_s:.3} seconds.\n"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(drains: bool) -> Plan {
        Plan {
            writes: true,
            count: 5,
            buffer: 512,
            step: 512,
            len: 2048,
            flush_interval: 2,
            drains,
        }
    }

    fn state(depth: usize) -> State {
        State {
            sent: 0,
            offset: 0,
            flying: 0,
            free: vec![IoVector::zeroed(512); depth],
            is_flush_due: false,
            is_flushing: false,
            failed: None,
        }
    }

    /// What is begun at once, with all that is under way then.
    fn begin(state: &mut State, plan: &Plan) -> Vec<Operation> {
        std::iter::from_fn(|| state.next(plan).map(|(operation, _)| operation)).collect()
    }

    fn write(offset: u64) -> Operation {
        Operation::Write { offset }
    }

    #[test]
    fn a_flush_waits_for_what_is_before_it_and_the_rest_waits_for_the_flush() {
        let (plan, mut state) = (plan(true), state(4));
        assert_eq!(begin(&mut state, &plan), [write(0), write(512)]);
        state.end(Ok(()), write(0), IoVector::zeroed(512));
        assert!(begin(&mut state, &plan).is_empty());
        state.end(Ok(()), write(512), IoVector::zeroed(512));
        assert_eq!(begin(&mut state, &plan), [Operation::Flush]);
        assert!(begin(&mut state, &plan).is_empty());
        state.end(Ok(()), Operation::Flush, IoVector::default());
        assert_eq!(begin(&mut state, &plan), [write(1024), write(1536)]);
    }

    #[test]
    fn without_drain_nothing_waits_and_offsets_begin_again_at_the_disks_end() {
        let (plan, mut state) = (plan(false), state(5));
        let flush = Operation::Flush;
        let all = [
            write(0),
            write(512),
            flush,
            write(1024),
            write(1536),
            flush,
            write(0),
        ];
        assert_eq!(begin(&mut state, &plan), all);
        for operation in all {
            assert_eq!(state.result(&plan), None);
            state.end(Ok(()), operation, IoVector::zeroed(512));
        }
        assert_eq!(state.result(&plan), Some(Ok(())));
    }

    #[test]
    fn after_a_failure_nothing_is_begun_and_it_is_told_when_all_have_ended() {
        let (plan, mut state) = (plan(false), state(2));
        assert_eq!(begin(&mut state, &plan).len(), 3);
        state.end(Err(BlockError::Io), write(0), IoVector::zeroed(512));
        assert!(begin(&mut state, &plan).is_empty());
        state.end(Ok(()), write(512), IoVector::zeroed(512));
        assert_eq!(state.result(&plan), None);
        state.end(Ok(()), Operation::Flush, IoVector::default());
        assert_eq!(state.result(&plan), Some(Err(BlockError::Io)));
    }
}
