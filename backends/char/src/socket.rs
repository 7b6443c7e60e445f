//! Streams over unix and TCP sockets, listening or connecting.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use runtime::{Handle, Interest, Timer, Watch, thread, time};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};

use crate::chardev::Backend;
use crate::frontend::CharSink;
use crate::spec::{SocketAddress, SocketSpec};
use crate::stream::Stream;

const NS_PER_MS: u64 = 1_000_000;
/// How long one attempt of a reconnecting client may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// A socket stream.
pub(crate) struct Socket {
    spec: SocketSpec,
    /// The address in use, with the port that was found.
    address: String,
    handle: Handle,
    stream: Arc<Stream>,
    accepting: Mutex<Option<Watch>>,
    retry: Mutex<Option<Timer>>,
    /// Removed with us.
    unlink: Option<PathBuf>,
    me: Weak<Socket>,
}

impl Socket {
    pub(crate) fn open(id: &str, spec: &SocketSpec, handle: &Handle) -> io::Result<Arc<Self>> {
        if spec.server {
            let (listener, address) = listen(spec)?;
            let socket = Self::new(spec, address, handle);
            socket.serve(id, listener)?;
            return Ok(socket);
        }
        let socket = Self::new(spec, spec.address.to_string(), handle);
        match connect(spec, None) {
            Ok(fd) => socket.use_connection(fd)?,
            Err(_) if spec.reconnect_ms > 0 => socket.retry_later(),
            Err(e) => return Err(e),
        }
        Ok(socket)
    }

    fn new(spec: &SocketSpec, address: String, handle: &Handle) -> Arc<Self> {
        let unlink = match &spec.address {
            SocketAddress::Unix {
                path,
                is_abstract: false,
            } if spec.server => Some(path.clone()),
            _ => None,
        };
        Arc::new_cyclic(|me: &Weak<Self>| {
            let stream = Stream::new(handle);
            let weak = me.clone();
            stream.set_on_eof(move || {
                if let Some(socket) = weak.upgrade() {
                    socket.closed();
                }
            });
            Self {
                spec: spec.clone(),
                address,
                handle: handle.clone(),
                stream,
                accepting: Mutex::new(None),
                retry: Mutex::new(None),
                unlink,
                me: me.clone(),
            }
        })
    }

    pub(crate) fn filename(&self) -> String {
        let state = if self.stream.is_open() {
            ""
        } else {
            "disconnected:"
        };
        let role = if self.spec.server { ",server=on" } else { "" };
        let scheme = if self.spec.telnet {
            self.address.replacen("tcp:", "telnet:", 1)
        } else {
            self.address.clone()
        };
        format!("{state}{scheme}{role}")
    }

    fn serve(&self, id: &str, listener: OwnedFd) -> io::Result<()> {
        let listener = Arc::new(listener);
        let mut interest = Interest::READ;
        if self.spec.wait {
            log::warn!(
                "character device '{id}' waits for a connection on {}",
                self.address
            );
            loop {
                let mut fds = [PollFd::new(&listener, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(e) => return Err(e.into()),
                }
                // The client may have gone between the two calls.
                if let Ok(fd) = accept_with(&listener, SocketFlags::CLOEXEC) {
                    self.use_connection(fd)?;
                    break;
                }
            }
            interest = Interest::NONE;
        }
        rustix::io::ioctl_fionbio(&listener, true)?;
        let me = self.me.clone();
        let source = Arc::clone(&listener);
        let watch = self.handle.watch(listener, interest, move |_| {
            if let Some(me) = me.upgrade()
                && let Ok(fd) = accept_with(&source, SocketFlags::CLOEXEC)
            {
                me.set_accepting(Interest::NONE);
                if let Err(e) = me.use_connection(fd) {
                    log::warn!("a connection to {} cannot be used: {e}", me.address);
                    me.set_accepting(Interest::READ);
                }
            }
        });
        *self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(watch);
        Ok(())
    }

    fn set_accepting(&self, interest: Interest) {
        if let Some(watch) = &*self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            watch.set_interest(interest);
        }
    }

    fn use_connection(&self, fd: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        if self.spec.nodelay {
            // Not a TCP socket: then there is nothing to delay.
            let _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
        }
        let fd = Arc::new(fd);
        self.stream
            .connect(Some(Arc::clone(&fd)), Some(fd), self.spec.telnet);
        Ok(())
    }

    /// The peer has gone: wait for the next one.
    fn closed(&self) {
        self.stream.disconnect();
        if self.spec.server {
            self.set_accepting(Interest::READ);
        } else if self.spec.reconnect_ms > 0 {
            self.retry_later();
        }
    }

    fn retry_later(&self) {
        let mut retry = self.retry.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = retry.get_or_insert_with(|| {
            let me = self.me.clone();
            self.handle.timer(move || {
                if let Some(me) = me.upgrade() {
                    me.retry_now();
                }
            })
        });
        let wait_ns = self.spec.reconnect_ms.saturating_mul(NS_PER_MS);
        timer.arm(time::monotonic_ns().saturating_add(wait_ns));
    }

    /// Connecting may take long, so a thread of its own does it.
    fn retry_now(&self) {
        let (spec, me, handle) = (self.spec.clone(), self.me.clone(), self.handle.clone());
        let attempt = thread::spawn("chardev connect", move || {
            let result = connect(&spec, Some(ATTEMPT));
            handle.post(move || {
                let Some(me) = me.upgrade() else { return };
                if result.and_then(|fd| me.use_connection(fd)).is_err() {
                    me.retry_later();
                }
            });
        });
        if attempt.is_err() {
            self.retry_later();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(path) = &self.unlink {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Backend for Socket {
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

/// A listening socket and its address.
fn listen(spec: &SocketSpec) -> io::Result<(OwnedFd, String)> {
    match &spec.address {
        SocketAddress::Unix { path, is_abstract } => {
            let listener = if *is_abstract {
                UnixListener::bind_addr(&abstract_address(path)?)?
            } else {
                // A socket left over by a process that died is in the way; anything else is not ours to remove.
                if is_socket(path) {
                    std::fs::remove_file(path)?;
                }
                UnixListener::bind(path)?
            };
            Ok((listener.into(), spec.address.to_string()))
        }
        SocketAddress::Tcp { host, port, to, .. } => {
            let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
            for port in *port..=(*to).max(*port) {
                for address in resolve(spec, host, port)? {
                    match TcpListener::bind(address) {
                        Ok(listener) => {
                            let address = format!("tcp:{}", listener.local_addr()?);
                            return Ok((listener.into(), address));
                        }
                        Err(e) => last = e,
                    }
                }
            }
            Err(last)
        }
        SocketAddress::Fd(number) => Ok((
            runtime::process::take_inherited_fd(*number)?,
            spec.address.to_string(),
        )),
    }
}

fn connect(spec: &SocketSpec, timeout: Option<Duration>) -> io::Result<OwnedFd> {
    match &spec.address {
        SocketAddress::Unix {
            path,
            is_abstract: false,
        } => Ok(UnixStream::connect(path)?.into()),
        SocketAddress::Unix {
            path,
            is_abstract: true,
        } => Ok(UnixStream::connect_addr(&abstract_address(path)?)?.into()),
        SocketAddress::Tcp { host, port, .. } => {
            let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
            for address in resolve(spec, host, *port)? {
                let attempt = match timeout {
                    Some(timeout) => TcpStream::connect_timeout(&address, timeout),
                    None => TcpStream::connect(address),
                };
                match attempt {
                    Ok(stream) => return Ok(stream.into()),
                    Err(e) => last = e,
                }
            }
            Err(last)
        }
        SocketAddress::Fd(number) => runtime::process::take_inherited_fd(*number),
    }
}

fn resolve(spec: &SocketSpec, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = match (host, spec.server) {
        ("", true) => "0.0.0.0",
        ("", false) => "localhost",
        (host, _) => host,
    };
    let (want4, want6) = match &spec.address {
        SocketAddress::Tcp { ipv4, ipv6, .. } => match (ipv4, ipv6) {
            (None, None) => (true, true),
            (Some(v4), None) => (*v4, !*v4),
            (None, Some(v6)) => (!*v6, *v6),
            (Some(v4), Some(v6)) => (*v4, *v6),
        },
        _ => (true, true),
    };
    let all = (host, port).to_socket_addrs()?;
    Ok(all
        .filter(|a| if a.is_ipv4() { want4 } else { want6 })
        .collect())
}

fn abstract_address(path: &std::path::Path) -> io::Result<UnixAddr> {
    UnixAddr::from_abstract_name(path.as_os_str().as_encoded_bytes())
}

fn is_socket(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}
