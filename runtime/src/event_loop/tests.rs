use super::*;
use std::sync::mpsc;

fn pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (r, w) = rustix::pipe::pipe().unwrap();
    (Arc::new(r), Arc::new(w))
}

#[test]
fn a_job_posted_by_another_thread_wakes_a_sleeping_loop() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let thread = std::thread::spawn(move || {
        let quit = handle.clone();
        handle.post(move || quit.quit());
    });
    event_loop.run();
    thread.join().unwrap();
}

#[test]
fn a_readable_descriptor_calls_back_until_it_is_drained() {
    let mut event_loop = EventLoop::new().unwrap();
    let (r, w) = pipe();
    let (tx, rx) = mpsc::channel();
    let fd = Arc::clone(&r);
    let _watch = event_loop.handle().watch(r, Interest::READ, move |ready| {
        assert!(ready.read);
        let mut byte = [0];
        rustix::io::read(&*fd, &mut byte).unwrap();
        tx.send(byte[0]).unwrap();
    });
    rustix::io::write(&*w, b"ab").unwrap();
    event_loop.turn(None);
    event_loop.turn(None);
    event_loop.turn(Some(Duration::ZERO));
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), b"ab");
}

#[test]
fn a_watch_without_interest_sleeps_even_after_a_hangup() {
    let mut event_loop = EventLoop::new().unwrap();
    let (r, w) = pipe();
    let (tx, rx) = mpsc::channel();
    let watch = event_loop
        .handle()
        .watch(r, Interest::NONE, move |ready| tx.send(ready).unwrap());
    drop(w);
    event_loop.turn(Some(Duration::ZERO));
    assert!(rx.try_recv().is_err());
    watch.set_interest(Interest::READ);
    event_loop.turn(Some(Duration::ZERO));
    assert!(rx.try_recv().unwrap().hangup);
}

#[test]
fn timers_fire_in_the_order_of_their_deadlines_and_once() {
    let mut event_loop = EventLoop::new().unwrap();
    let (tx, rx) = mpsc::channel();
    let timers: Vec<_> = (0..3)
        .map(|n| {
            let tx = tx.clone();
            event_loop.handle().timer(move || tx.send(n).unwrap())
        })
        .collect();
    timers[0].arm(3);
    timers[1].arm(1);
    timers[2].arm(2);
    timers[2].cancel();
    event_loop.turn(None);
    event_loop.turn(Some(Duration::ZERO));
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn a_callback_may_drop_another_watch_of_the_same_turn() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let (r1, w1) = pipe();
    let (r2, w2) = pipe();
    let victim: Arc<Mutex<Option<Watch>>> = Arc::default();
    let killer = Arc::clone(&victim);
    let (tx, rx) = mpsc::channel();
    let _first = handle.watch(r1, Interest::READ, move |_| *killer.lock().unwrap() = None);
    *victim.lock().unwrap() = Some(handle.watch(r2, Interest::READ, move |_| tx.send(()).unwrap()));
    rustix::io::write(&*w1, b"x").unwrap();
    rustix::io::write(&*w2, b"x").unwrap();
    event_loop.turn(None);
    assert!(rx.try_recv().is_err());
}

#[test]
fn a_loop_thread_ends_when_dropped_and_frees_what_callbacks_hold() {
    let thread = EventLoop::spawn("test loop").unwrap();
    let held = Arc::new(());
    let copy = Arc::clone(&held);
    let (r, _w) = pipe();
    let handle = thread.handle();
    let watch = handle.watch(r, Interest::READ, move |_| drop(Arc::clone(&copy)));
    drop(thread);
    assert_eq!(Arc::strong_count(&held), 1);
    drop(watch);
    handle.post(|| unreachable!());
}

#[test]
fn dev_null_and_regular_files_can_be_watched() {
    let mut event_loop = EventLoop::new().unwrap();
    let fd: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let (tx, rx) = mpsc::channel();
    let _watch = event_loop
        .handle()
        .watch(Arc::new(fd), Interest::READ, move |_| tx.send(()).unwrap());
    event_loop.turn(None);
    assert!(rx.try_recv().is_ok());
}
