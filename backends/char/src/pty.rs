//! A pseudo terminal: whoever opens its other end is connected.
//!
//! The kernel says when the last user of the other end has closed it (hang-up), and inotify says when somebody opens
//! it again: nothing polls while nobody is there.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use runtime::{Handle, Interest, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::chardev::Backend;
use crate::frontend::CharSink;
use crate::stream::Stream;

/// A pseudo terminal's master side.
pub(crate) struct Pty {
    stream: Arc<Stream>,
    path: String,
    _opens: Mutex<Option<Watch>>,
}

impl Pty {
    pub(crate) fn open(handle: &Handle) -> io::Result<Arc<Self>> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
        rustix::io::ioctl_fionbio(&master, true)?;
        {
            // The guest's console does its own echo and line editing. Opening and closing the other end also brings
            // the master into the hung-up state that "nobody there" is known by.
            let slave = rustix::fs::open(
                path.as_str(),
                OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let mut settings = tcgetattr(&slave)?;
            settings.make_raw();
            tcsetattr(&slave, OptionalActions::Now, &settings)?;
        }
        let opens = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&opens, path.as_str(), inotify::WatchFlags::OPEN)?;
        let (master, opens) = (Arc::new(master), Arc::new(opens));
        let stream = Stream::new(handle);
        let pty = Arc::new(Self {
            stream,
            path,
            _opens: Mutex::new(None),
        });

        let weak: Weak<Stream> = Arc::downgrade(&pty.stream);
        pty.stream.set_on_eof(move || {
            if let Some(stream) = weak.upgrade() {
                stream.disconnect();
            }
        });
        let stream = Arc::clone(&pty.stream);
        let events = Arc::clone(&opens);
        let watch = handle.watch(opens, Interest::READ, move |_| {
            let mut record = [0; 512];
            while rustix::io::read(&*events, &mut record).is_ok_and(|count| count > 0) {}
            if !stream.is_open() && has_user(&master) {
                stream.connect(Some(Arc::clone(&master)), Some(Arc::clone(&master)), false);
            }
        });
        *pty._opens.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        Ok(pty)
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

fn has_user(master: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(master, PollFlags::IN)];
    let none = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&none)).is_ok()
        && fds.iter().all(|fd| !fd.revents().contains(PollFlags::HUP))
}

impl Backend for Pty {
    fn write(&self, data: &[u8]) -> usize {
        self.stream.write(data)
    }

    fn set_sink(&self, sink: Option<Arc<dyn CharSink>>) {
        self.stream.set_sink(sink);
    }

    fn accept_input(&self) {
        self.stream.accept_input();
    }

    fn is_open(&self) -> bool {
        self.stream.is_open()
    }

    fn flush(&self, deadline_ns: u64) {
        self.stream.flush(deadline_ns);
    }
}
