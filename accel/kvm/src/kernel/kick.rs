//! Dragging a vCPU's thread out of guest code: a signal whose handler sets `immediate_exit`, so that
//! it works in the moment before the thread enters too.

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering, fence};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread is about to enter. The handler reads it.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

extern "C" fn on_signal(_: libc::c_int) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: it is not null only between `arm` and `disarm` on this thread, while the vCPU that
        // owns the mapping is borrowed.
        unsafe { AtomicU8::from_ptr(flag) }.store(1, Ordering::SeqCst);
    }
}

fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 2
}

/// Installs the handler, once in the process.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler: extern "C" fn(libc::c_int) = on_signal;
        // SAFETY: an all-zero sigaction is a valid one: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as usize;
        // SAFETY: `action` is a valid sigaction whose handler only stores to an atomic.
        if unsafe { libc::sigaction(signal(), &action, null_mut()) } != 0 {
            log::error!(
                "vCPUs cannot be interrupted: {}",
                std::io::Error::last_os_error()
            );
        }
    });
}

/// Lets the signal through on the calling thread: the process may block all by default.
fn unblock() {
    // SAFETY: a zeroed set is initialised by sigemptyset; all pointers are to live locals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, null_mut());
    }
}

/// Reaches the thread that runs a vCPU.
#[derive(Default)]
pub(crate) struct Kick {
    /// The thread, while it is in or about to enter guest code.
    thread: AtomicI32,
    /// The thread that last let the signal through.
    ready: AtomicI32,
}

impl Kick {
    pub(crate) fn new() -> Self {
        install();
        Kick::default()
    }

    /// Called after something was made pending.
    pub(crate) fn kick(&self) {
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: tgkill takes no pointers. A thread that has left since ignores the signal: its
            // flag is null; one that has ended is ESRCH.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }

    /// From here on the calling thread is reached. Look at what is pending after this.
    pub(crate) fn arm(&self, immediate_exit: *mut u8) {
        // SAFETY: gettid takes no arguments.
        let me = unsafe { libc::gettid() };
        if self.ready.swap(me, Ordering::Relaxed) != me {
            unblock();
        }
        IMMEDIATE_EXIT.set(immediate_exit);
        self.thread.store(me, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The calling thread has left guest code.
    pub(crate) fn disarm(&self) {
        self.thread.store(0, Ordering::SeqCst);
        IMMEDIATE_EXIT.set(null_mut());
    }
}
