#[test]
fn a_raised_bit_ends_the_wait() {
    let pending = std::sync::Arc::new(crate::Pending::default());
    let other = pending.clone();
    let thread = std::thread::spawn(move || other.wait(crate::reason::INTR));
    pending.raise(crate::reason::INTR);
    thread.join().unwrap();
    assert_eq!(pending.take(crate::reason::INTR), crate::reason::INTR);
    assert_eq!(pending.get(), 0);
}

#[test]
fn only_one_cpu_runs_alone_and_none_beside_it() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let exclusive = std::sync::Arc::new(crate::Exclusive::default());
    let alone = std::sync::Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (exclusive, alone) = (exclusive.clone(), alone.clone());
            std::thread::spawn(move || {
                for _ in 0..200 {
                    exclusive.enter();
                    assert!(!alone.load(Ordering::SeqCst));
                    exclusive.leave();
                    let guard = exclusive.alone();
                    assert!(!alone.swap(true, Ordering::SeqCst));
                    alone.store(false, Ordering::SeqCst);
                    drop(guard);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}
