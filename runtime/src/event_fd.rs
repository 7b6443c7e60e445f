//! A flag that any thread sets and a loop or the kernel waits for: `eventfd(2)`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A counter in the kernel, used as a flag. Clones are the same flag.
#[derive(Clone, Debug)]
pub struct EventFd {
    fd: Arc<OwnedFd>,
}

impl EventFd {
    /// A flag that is not set.
    ///
    /// # Errors
    /// The host's, when the process has too many descriptors.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(EventFd { fd: Arc::new(fd) })
    }

    /// Sets the flag. Never waits: a counter that is full is set.
    pub fn set(&self) {
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Takes the flag back; whether it was set.
    pub fn take(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&self.fd, &mut count) == Ok(count.len())
    }

    /// The descriptor: readable while the flag is set.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_set_twice_is_taken_once() {
        let flag = EventFd::new().unwrap();
        assert!(!flag.take());
        flag.set();
        flag.clone().set();
        assert!(flag.take());
        assert!(!flag.take());
    }
}
