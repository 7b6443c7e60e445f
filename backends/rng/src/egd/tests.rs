use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backend_char::{CharSpec, Chardev};
use proptest::prelude::*;
use runtime::EventLoop;

use super::*;

struct Bench {
    event_loop: EventLoop,
    egd: Egd,
    daemon: UnixStream,
    wakes: Arc<AtomicUsize>,
}

impl Bench {
    /// `name` is the test's: it becomes that of the socket, which no folder has.
    fn new(name: &str) -> Self {
        let mut event_loop = EventLoop::new().unwrap();
        let path = std::env::temp_dir().join(format!("mimic-egd-{}-{name}", std::process::id()));
        let text = format!("socket,id=egd,path={},server=on,wait=off", path.display());
        let spec = CharSpec::parse(&text).unwrap();
        let chardev = Chardev::open(&spec, &event_loop.handle()).unwrap();
        let mut egd = Egd::new(chardev.frontend().unwrap());
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = wakes.clone();
        egd.set_wake(Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        let daemon = UnixStream::connect(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for _ in 0..1000 {
            if egd.shared.outbox.frontend().is_open() {
                break;
            }
            event_loop.turn(Some(Duration::from_millis(10)));
        }
        Bench {
            event_loop,
            egd,
            daemon,
            wakes,
        }
    }

    /// Turns the loop until as many bytes as this have come.
    fn until_there(&mut self, len: usize) {
        for _ in 0..1000 {
            if self.egd.shared.pool().bytes.len() >= len {
                return;
            }
            self.event_loop.turn(Some(Duration::from_millis(10)));
        }
        panic!("they never came");
    }

    /// What the daemon is asked, request by request.
    fn requests(&mut self, count: usize) -> Vec<u8> {
        self.daemon.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        for _ in 0..1000 {
            let mut byte = [0];
            while bytes.len() < count * 2 && matches!(self.daemon.read(&mut byte), Ok(1)) {
                bytes.push(byte[0]);
            }
            if bytes.len() == count * 2 {
                break;
            }
            self.event_loop.turn(Some(Duration::from_millis(10)));
        }
        self.daemon.set_nonblocking(false).unwrap();
        let [commands, lens] = [0, 1].map(|n| {
            bytes
                .iter()
                .skip(n)
                .step_by(2)
                .copied()
                .collect::<Vec<u8>>()
        });
        assert_eq!(commands, vec![READ; count]);
        lens
    }
}

#[test]
fn a_daemon_is_asked_for_what_is_missing_and_once() {
    let mut b = Bench::new("asked");
    let mut out = [0; 600];
    assert_eq!(b.egd.fill(&mut out), 0);
    // Asking again changes nothing while the answer is on its way.
    assert_eq!(b.egd.fill(&mut out), 0);
    assert_eq!(b.requests(3), [255, 255, 90]);
    let before = b.wakes.load(Ordering::SeqCst);
    b.daemon.write_all(&[7; 600]).unwrap();
    b.until_there(600);
    assert!(b.wakes.load(Ordering::SeqCst) > before);
    assert_eq!(b.egd.fill(&mut out), 600);
    assert_eq!(out, [7; 600]);
}

#[test]
fn more_than_was_asked_for_is_not_taken() {
    let mut b = Bench::new("more");
    let mut out = [0; 8];
    b.egd.fill(&mut out);
    assert_eq!(b.requests(1), [8]);
    b.daemon.write_all(&[1; 5000]).unwrap();
    b.until_there(8);
    for _ in 0..5 {
        b.event_loop.turn(Some(Duration::ZERO));
    }
    assert_eq!(b.egd.shared.pool().bytes.len(), 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_answers_leave_a_bounded_pool(
        steps in prop::collection::vec((0usize..6000, 0usize..6000), 1..8),
    ) {
        let mut b = Bench::new("bounded");
        b.daemon.set_nonblocking(true).unwrap();
        for (wanted, sent) in steps {
            let mut out = vec![0; wanted];
            prop_assert!(b.egd.fill(&mut out) <= wanted);
            let _ = b.daemon.write(&vec![9; sent]);
            let _ = b.daemon.read(&mut [0; 1024]);
            b.event_loop.turn(Some(Duration::ZERO));
            let pool = b.egd.shared.pool();
            prop_assert!(pool.bytes.len() + pool.asked <= 2 * AHEAD);
        }
    }
}
