//! What a machine writes, gathered by a thread.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More than any test reads; a guest that never stops writing must not fill the host.
const MAX_BYTES: usize = 16 << 20;

/// A growing stream of bytes with a reading position.
#[derive(Clone, Default)]
pub struct Console {
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    /// Everything before was matched by an earlier `expect`.
    position: usize,
    ended: bool,
}

/// Control sequences (ECMA-48, 5.4), which firmware puts into the middle of words.
#[derive(Default)]
enum Controls {
    #[default]
    Outside,
    Escape,
    Sequence,
}

impl Controls {
    /// Whether the next byte belongs to one.
    fn has(&mut self, byte: u8) -> bool {
        let (next, is_in) = match (&self, byte) {
            (_, 0x1b) => (Controls::Escape, true),
            (Controls::Escape, b'[') => (Controls::Sequence, true),
            (Controls::Sequence, 0x20..0x40) => (Controls::Sequence, true),
            (Controls::Escape | Controls::Sequence, _) => (Controls::Outside, true),
            (Controls::Outside, _) => (Controls::Outside, false),
        };
        *self = next;
        is_in
    }
}

impl Console {
    /// Gathers from `source` until it ends, without control sequences.
    pub(crate) fn gather(mut source: impl Read + Send + 'static) -> Self {
        let console = Self::default();
        let writer = console.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            let mut controls = Controls::default();
            loop {
                let n = match source.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => break,
                };
                let mut seen = writer.lock();
                if seen.bytes.len() < MAX_BYTES {
                    let bytes = chunk.get(..n).unwrap_or_default().iter();
                    seen.bytes
                        .extend(bytes.filter(|byte| !controls.has(**byte)));
                }
                drop(seen);
                writer.shared.1.notify_all();
            }
            writer.lock().ended = true;
            writer.shared.1.notify_all();
        });
        console
    }

    /// Waits for `wanted` after the last match. Returns what came before it, or why it did not
    /// come.
    pub fn expect(&self, wanted: &str, patience: Duration) -> Result<String, &'static str> {
        let deadline = Instant::now() + patience;
        let mut seen = self.lock();
        let mut from = seen.position;
        loop {
            let fresh = seen.bytes.get(from..).unwrap_or_default();
            if let Some(at) = find(fresh, wanted.as_bytes()) {
                let start = seen.position;
                let before = seen.bytes.get(start..from + at).unwrap_or_default();
                let before = String::from_utf8_lossy(before).into_owned();
                seen.position = from + at + wanted.len();
                return Ok(before);
            }
            if seen.ended {
                return Err("it ended");
            }
            // A match may begin in the last bytes searched.
            from = seen
                .bytes
                .len()
                .saturating_sub(wanted.len())
                .max(seen.position);
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Err("time ran out");
            };
            seen = self
                .shared
                .1
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for the stream's end; false if time ran out.
    pub(crate) fn wait_end(&self, patience: Duration) -> bool {
        let guard = self.lock();
        let (guard, _) = self
            .shared
            .1
            .wait_timeout_while(guard, patience, |seen| !seen.ended)
            .unwrap_or_else(PoisonError::into_inner);
        guard.ended
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// The last lines so far, for error messages.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..)
            .unwrap_or_default()
            .join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn matches_follow_each_other() {
        let console = Console::gather(&b"one two one"[..]);
        assert_eq!(console.expect("one", SOON), Ok(String::new()));
        assert_eq!(console.expect("one", SOON).as_deref(), Ok(" two "));
        assert_eq!(console.expect("one", SOON), Err("it ended"));
    }

    #[test]
    fn a_match_may_arrive_in_pieces() {
        let source = (&b"GUE"[..]).chain(&b"ST-UP"[..]);
        let console = Console::gather(source);
        assert_eq!(console.expect("GUEST-UP", SOON), Ok(String::new()));
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let console = Console::gather(&b"a\nb\nc\n"[..]);
        assert!(console.wait_end(SOON));
        assert_eq!(console.tail(2), "b\nc");
    }
}
