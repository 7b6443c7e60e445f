use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io::Read, io::Write};

use proptest::prelude::*;
use runtime::EventLoop;

use super::*;

/// A sink that remembers, with as much room as it is given.
struct Recorder {
    room: AtomicUsize,
    bytes: Mutex<Vec<u8>>,
    events: Mutex<Vec<CharEvent>>,
    writable: AtomicUsize,
}

impl Recorder {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self {
            room: AtomicUsize::new(room),
            bytes: Mutex::default(),
            events: Mutex::default(),
            writable: AtomicUsize::new(0),
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn events(&self) -> Vec<CharEvent> {
        self.events.lock().unwrap().clone()
    }
}

impl CharSink for Recorder {
    fn can_receive(&self) -> usize {
        self.room.load(Ordering::SeqCst)
    }

    fn receive(&self, data: &[u8]) {
        assert!(data.len() <= self.can_receive());
        self.room.fetch_sub(data.len(), Ordering::SeqCst);
        self.bytes.lock().unwrap().extend(data);
    }

    fn event(&self, event: CharEvent) {
        self.events.lock().unwrap().push(event);
    }

    fn writable(&self) {
        self.writable.fetch_add(1, Ordering::SeqCst);
    }
}

struct Bench {
    event_loop: EventLoop,
    folder: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("mimic-char-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self {
            event_loop: EventLoop::new().unwrap(),
            folder,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn open(&self, text: &str) -> Arc<Chardev> {
        Chardev::open(&CharSpec::parse(text).unwrap(), &self.event_loop.handle()).unwrap()
    }

    /// Runs the loop until `done`; a turn in which nothing happens for long is a failure.
    #[track_caller]
    fn until(&mut self, mut done: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if done() {
                return;
            }
            self.event_loop.turn(Some(Duration::from_millis(10)));
        }
        panic!("it never happened");
    }

    fn idle(&mut self) {
        for _ in 0..5 {
            self.event_loop.turn(Some(Duration::ZERO));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn read_available(stream: &mut UnixStream) -> Vec<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        all.extend(&buffer[..n]);
    }
    all
}

#[test]
fn a_file_gets_all_output_and_its_log_a_copy() {
    let b = Bench::new("file");
    let (path, log) = (b.path("out"), b.path("log"));
    let chardev = b.open(&format!("file,id=f,path={path},logfile={log}"));
    let frontend = chardev.frontend().unwrap();
    assert_eq!(frontend.write(b"hello\n"), 6);
    chardev.flush(Duration::from_secs(5));
    assert_eq!(fs::read_to_string(&path).unwrap(), "hello\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), "hello\n");
}

#[test]
fn a_file_is_truncated_unless_told_to_append() {
    let b = Bench::new("append");
    let path = b.path("out");
    for (options, expected) in [("", "x"), (",append=on", "xx"), (",append=off", "x")] {
        let chardev = b.open(&format!("file,id=f,path={path}{options}"));
        chardev.frontend().unwrap().write(b"x");
        chardev.flush(Duration::from_secs(5));
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{options}");
    }
}

#[test]
fn a_listening_socket_takes_one_client_after_another() {
    let mut b = Bench::new("server");
    let path = b.path("s");
    let chardev = b.open(&format!("socket,id=s,path={path},server=on,wait=off"));
    assert_eq!(
        chardev.filename(),
        format!("disconnected:unix:{path},server=on")
    );
    let sink = Recorder::new(100);
    let frontend = chardev.frontend().unwrap();
    frontend.attach(sink.clone());
    assert_eq!(frontend.write(b"nobody reads this"), 17);
    for round in 1..=2 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"in").unwrap();
        b.until(|| sink.bytes.lock().unwrap().len() == round * 2);
        assert!(frontend.is_open());
        frontend.write(b"out");
        b.until(|| read_available(&mut client) == b"out");
        drop(client);
        b.until(|| !frontend.is_open());
    }
    b.idle();
    use CharEvent::{Closed, Opened};
    assert_eq!(sink.events(), [Opened, Closed, Opened, Closed]);
    drop(frontend);
    drop(chardev);
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn input_waits_until_the_sink_has_room() {
    let mut b = Bench::new("flow");
    let path = b.path("s");
    let chardev = b.open(&format!("socket,id=s,path={path},server=on,wait=off"));
    let sink = Recorder::new(2);
    let frontend = chardev.frontend().unwrap();
    frontend.attach(sink.clone());
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"abcdef").unwrap();
    b.until(|| sink.text() == "ab");
    b.idle();
    assert_eq!(sink.text(), "ab");
    sink.room.store(3, Ordering::SeqCst);
    frontend.accept_input();
    b.until(|| sink.text() == "abcde");
}

#[test]
fn a_writer_is_held_back_by_a_slow_reader_and_told_when_there_is_room() {
    let mut b = Bench::new("slow");
    let path = b.path("s");
    let chardev = b.open(&format!("socket,id=s,path={path},server=on,wait=off"));
    let sink = Recorder::new(0);
    let frontend = chardev.frontend().unwrap();
    frontend.attach(sink.clone());
    let mut client = UnixStream::connect(&path).unwrap();
    b.until(|| frontend.is_open());
    let block = [b'x'; 8192];
    let mut sent = 0;
    loop {
        let count = frontend.write(&block);
        sent += count;
        if count < block.len() {
            break;
        }
        b.event_loop.turn(Some(Duration::ZERO));
        assert!(sent < 16 << 20, "the queue has no end");
    }
    let mut received = 0;
    b.until(|| {
        received += read_available(&mut client).len();
        received == sent
    });
    assert_eq!(sink.writable.load(Ordering::SeqCst), 1);
}

#[test]
fn single_bytes_in_a_row_wait_for_each_other_and_words_do_not() {
    let mut b = Bench::new("trickle");
    let path = b.path("out");
    let chardev = b.open(&format!("file,id=f,path={path}"));
    let frontend = chardev.frontend().unwrap();
    let written = || fs::read_to_string(&path).unwrap();
    frontend.write(b"a");
    b.until(|| written() == "a");
    frontend.write(b"b");
    // The turn that ends the rest does not write yet.
    b.event_loop.turn(Some(Duration::ZERO));
    assert_eq!(written(), "a");
    b.until(|| written() == "ab");
    frontend.write(b"c");
    frontend.write(b"def");
    b.event_loop.turn(Some(Duration::ZERO));
    assert_eq!(written(), "abcdef");
    frontend.write(b"g");
    b.until(|| written() == "abcdefg");
}

#[test]
fn a_connecting_socket_comes_back_after_its_server_did() {
    let mut b = Bench::new("reconnect");
    let path = b.path("s");
    let chardev = b.open(&format!("socket,id=s,path={path},reconnect-ms=1"));
    let sink = Recorder::new(100);
    let frontend = chardev.frontend().unwrap();
    frontend.attach(sink.clone());
    assert!(!frontend.is_open());
    let listener = UnixListener::bind(&path).unwrap();
    b.until(|| frontend.is_open());
    drop(listener.accept().unwrap());
    b.until(|| sink.events().contains(&CharEvent::Closed));
    b.until(|| frontend.is_open());
}

#[test]
fn a_pty_is_connected_while_somebody_has_it_open() {
    let mut b = Bench::new("pty");
    let chardev = b.open("pty,id=p");
    let path = chardev.pty_path().unwrap().to_owned();
    assert_eq!(chardev.filename(), format!("pty:{path}"));
    let sink = Recorder::new(100);
    let frontend = chardev.frontend().unwrap();
    frontend.attach(sink.clone());
    b.idle();
    assert!(!frontend.is_open());
    for round in 1..=2 {
        let mut user = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        b.until(|| frontend.is_open());
        user.write_all(b"k").unwrap();
        b.until(|| sink.text().len() == round);
        frontend.write(b"out");
        chardev.flush(Duration::from_secs(5));
        let mut answer = [0; 3];
        user.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"out");
        drop(user);
        b.until(|| !frontend.is_open());
    }
}

#[test]
fn a_pipe_carries_both_directions() {
    let mut b = Bench::new("pipe");
    let path = b.path("p");
    let owner = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    for suffix in ["in", "out"] {
        let name = format!("{path}.{suffix}");
        rustix::fs::mknodat(rustix::fs::CWD, name, rustix::fs::FileType::Fifo, owner, 0).unwrap();
    }
    let chardev = b.open(&format!("pipe,id=p,path={path}"));
    let sink = Recorder::new(100);
    let frontend = chardev.frontend().unwrap();
    frontend.attach(sink.clone());
    fs::OpenOptions::new()
        .write(true)
        .open(format!("{path}.in"))
        .unwrap()
        .write_all(b"hi")
        .unwrap();
    b.until(|| sink.text() == "hi");
    let mut out = fs::File::open(format!("{path}.out")).unwrap();
    frontend.write(b"there");
    chardev.flush(Duration::from_secs(5));
    let mut answer = [0; 5];
    out.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"there");
}

#[test]
fn a_ring_buffer_keeps_the_newest_bytes() {
    let b = Bench::new("ring");
    let chardev = b.open("ringbuf,id=r,size=4");
    let frontend = chardev.frontend().unwrap();
    assert_eq!(frontend.write(b"abcdef"), 6);
    assert!(chardev.ringbuf_write(b"g"));
    assert_eq!(chardev.ringbuf_read(2).unwrap(), b"de");
    assert_eq!(chardev.ringbuf_read(9).unwrap(), b"fg");
}

#[test]
fn a_test_ends_the_process_with_its_number() {
    let b = Bench::new("testdev");
    let chardev = b.open("testdev,id=t");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = seen.clone();
    chardev.set_on_exit(move |status| theirs.lock().unwrap().push(status));
    let frontend = chardev.frontend().unwrap();
    for text in ["0", "q", "2q", "x1", "7 q", "127q"] {
        assert_eq!(frontend.write(text.as_bytes()), text.len());
    }
    assert_eq!(*seen.lock().unwrap(), [1, 5, 1, 255]);
}

#[test]
fn a_stream_that_is_no_multiplexer_has_one_user() {
    let b = Bench::new("one");
    let chardev = b.open("null,id=n");
    let first = chardev.frontend().unwrap();
    let e = chardev.frontend().unwrap_err().to_string();
    assert_eq!(
        e,
        "character device 'n' is in use already; give it 'mux=on' to share it"
    );
    drop(first);
    assert!(chardev.frontend().is_ok());
}

/// A multiplexer over a socket with two users.
struct MuxBench {
    b: Bench,
    chardev: Arc<Chardev>,
    client: UnixStream,
    sinks: [Arc<Recorder>; 2],
    frontends: [CharFrontend; 2],
}

fn mux_bench(name: &str) -> MuxBench {
    let mut b = Bench::new(name);
    let path = b.path("s");
    let chardev = b.open(&format!(
        "socket,id=s,path={path},server=on,wait=off,mux=on"
    ));
    let sinks = [Recorder::new(1000), Recorder::new(1000)];
    let frontends = [chardev.frontend().unwrap(), chardev.frontend().unwrap()];
    for (frontend, sink) in frontends.iter().zip(&sinks) {
        frontend.attach(sink.clone());
    }
    let client = UnixStream::connect(&path).unwrap();
    b.until(|| sinks.iter().all(|s| s.events() == [CharEvent::Opened]));
    MuxBench {
        b,
        chardev,
        client,
        sinks,
        frontends,
    }
}

#[test]
fn keys_go_to_the_focused_user_and_ctrl_a_c_moves_on() {
    let mut m = mux_bench("mux");
    m.client
        .write_all(b"one\x01ctwo\x01cthree\x01\x01")
        .unwrap();
    let sinks = m.sinks.clone();
    m.b.until(|| sinks[0].text() == "onethree\x01" && sinks[1].text() == "two");
    use CharEvent::{FocusIn, FocusOut, Opened};
    assert_eq!(m.sinks[1].events(), [Opened, FocusIn, FocusOut]);
    m.frontends[1].write(b"both may write");
    let client = &mut m.client;
    m.b.until(|| read_available(client) == b"both may write");
}

#[test]
fn the_escape_works_while_the_focused_user_takes_nothing() {
    let mut m = mux_bench("hung");
    m.sinks[0].room.store(0, Ordering::SeqCst);
    let quits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&quits);
    m.chardev.set_mux_command(move |command| {
        assert_eq!(command, MuxCommand::Quit);
        count.fetch_add(1, Ordering::SeqCst);
    });
    m.client.write_all(b"typed\x01b\x01x").unwrap();
    m.b.until(|| quits.load(Ordering::SeqCst) == 1);
    assert!(m.sinks[0].events().contains(&CharEvent::Break));
    m.sinks[0].room.store(3, Ordering::SeqCst);
    m.frontends[0].accept_input();
    let sink = m.sinks[0].clone();
    m.b.until(|| sink.text() == "typ");
}

#[test]
fn the_help_key_lists_the_keys_and_timestamps_come_at_line_starts() {
    let mut m = mux_bench("help");
    m.client.write_all(b"\x01h\x01t").unwrap();
    let client = &mut m.client;
    let mut text = Vec::new();
    m.b.until(|| {
        text.extend(read_available(client));
        text.ends_with(b"sends C-a\r\n")
    });
    assert!(String::from_utf8_lossy(&text).contains("C-a x    exit emulator\r\n"));
    m.b.idle();
    assert_eq!(m.frontends[0].write(b"rest\nline\n"), 10);
    text.clear();
    m.b.until(|| {
        text.extend(read_available(client));
        text.ends_with(b"line\n")
    });
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.starts_with("rest\n[00:00:0"), "{text}");
}

#[test]
fn short_forms_mean_what_the_long_ones_do() {
    let short = |text| CharSpec::parse_short("-serial", "serial0", text).unwrap();
    let mon = short("mon:stdio");
    assert!(mon.mux && mon.kind == CharKind::Stdio { signal: false });
    assert_eq!(short("stdio").kind, CharKind::Stdio { signal: true });
    assert_eq!(
        short("unix:/run/x,server,nowait").kind,
        CharSpec::parse("socket,id=a,path=/run/x,server=on,wait=off")
            .unwrap()
            .kind
    );
    assert_eq!(
        short("tcp:[::1]:44,server=on").kind,
        CharSpec::parse("socket,id=a,host=::1,port=44,server=on,wait=on")
            .unwrap()
            .kind
    );
    let CharKind::File { path, .. } = short("file:/tmp/a,b").kind else {
        panic!()
    };
    assert_eq!(path, PathBuf::from("/tmp/a,b"));
}

#[test]
fn mistakes_are_sentences() {
    let long = |text| CharSpec::parse(text).unwrap_err().to_string();
    let short = |text| {
        CharSpec::parse_short("-serial", "s", text)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        long("sokcet,id=a"),
        "-chardev: there is no character device driver named 'sokcet'; did you mean 'socket'?"
    );
    assert_eq!(
        long("null"),
        "-chardev: character device 'null' needs 'id=...': name to refer to it by"
    );
    assert!(long("socket,id=a").contains("needs one of 'path=...'"));
    assert!(long("socket,id=a,path=x,wait=on").contains("add 'server=on'"));
    assert!(long("udp,id=a,port=1").contains("is not available; there are file, "));
    assert!(short("studio").ends_with("did you mean 'stdio'?"));
    assert!(short("tcp:4444").contains("write 'HOST:PORT'"));
    assert!(short("/dev/ttyS0").contains("'pty'"));
    let spec = CharSpec::parse("file,id=f,path=/nonexistent/x").unwrap();
    let b = Bench::new("missing");
    let e = Chardev::open(&spec, &b.event_loop.handle())
        .unwrap_err()
        .to_string();
    assert_eq!(
        e,
        "character device 'f': cannot open file '/nonexistent/x': No such file or directory (os error 2)"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_a_spec_or_an_error(text in "(mon:)?(socket|file|unix|tcp|ringbuf|stdio)?[:,=a-z0-9.\\[\\]]{0,40}") {
        let _ = CharSpec::parse(&text);
        let _ = CharSpec::parse_short("-serial", "s", &text);
    }

    #[test]
    fn any_bytes_through_a_telnet_filter_leave_no_more_than_they_were(
        mut bytes in prop::collection::vec(prop_oneof![Just(255u8), 240u8..=255, any::<u8>()], 0..200),
    ) {
        let before = bytes.len();
        crate::telnet::Filter::default().strip(&mut bytes);
        prop_assert!(bytes.len() <= before);
    }
}
