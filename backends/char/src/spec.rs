//! What a stream can be made from: the table of drivers, `-chardev` and the short forms of `-serial` and `-monitor`.

use std::fmt;
use std::path::PathBuf;

use control_options::suggest::Hint;
use control_options::{OptionError, Opts, PropDef, PropKind, Props, Scalar};

/// One kind of stream as `-chardev help` lists it.
#[derive(Clone, Copy, Debug)]
pub struct DriverDef {
    /// Its name.
    pub name: &'static str,
    /// One line for help.
    pub doc: &'static str,
    /// Its properties.
    pub props: &'static [PropDef],
}

/// A driver's own properties followed by those that all have.
macro_rules! props {
    ($($own:expr),* $(,)?) => {
        &[
            $($own,)*
            PropDef::new("id", PropKind::Str, "name to refer to it by"),
            PropDef::new("mux", PropKind::Bool, "let several devices and monitors share it").or("off"),
            PropDef::new("logfile", PropKind::Str, "file that gets a copy of the output"),
            PropDef::new("logappend", PropKind::Bool, "keep what the log file has").or("off"),
        ]
    };
}

const RINGBUF_DEFAULT: u64 = 64 << 10;
const RINGBUF_MAX: u64 = 64 << 20;

/// All drivers there are.
pub static DRIVERS: &[DriverDef] = &[
    DriverDef {
        name: "file",
        doc: "output goes to a file",
        props: props![
            PropDef::new("path", PropKind::Str, "the file").required(),
            PropDef::new("input-path", PropKind::Str, "file that input is read from"),
            PropDef::new("append", PropKind::Bool, "keep what the file has").or("off"),
        ],
    },
    DriverDef {
        name: "memory",
        doc: "another name of ringbuf",
        props: props![
            PropDef::new("size", PropKind::Size, "bytes kept, a power of two").or("65536")
        ],
    },
    DriverDef {
        name: "null",
        doc: "output goes nowhere, input never comes",
        props: props![],
    },
    DriverDef {
        name: "pipe",
        doc: "the FIFOs PATH.in and PATH.out, or PATH both ways",
        props: props![
            PropDef::new("path", PropKind::Str, "the FIFO, without '.in' and '.out'").required()
        ],
    },
    DriverDef {
        name: "pty",
        doc: "a new pseudo terminal",
        props: props![],
    },
    DriverDef {
        name: "ringbuf",
        doc: "the newest output is kept in memory",
        props: props![
            PropDef::new("size", PropKind::Size, "bytes kept, a power of two").or("65536")
        ],
    },
    DriverDef {
        name: "socket",
        doc: "a unix or TCP socket, listening or connecting",
        props: props![
            PropDef::new("path", PropKind::Str, "unix: the socket's path"),
            PropDef::new(
                "abstract",
                PropKind::Bool,
                "unix: the path is a name in the abstract namespace"
            )
            .or("off"),
            PropDef::new(
                "tight",
                PropKind::Bool,
                "unix: an abstract name is not padded"
            )
            .or("on"),
            PropDef::new("host", PropKind::Str, "TCP: host name or address"),
            PropDef::new("port", PropKind::U16, "TCP: port number"),
            PropDef::new("to", PropKind::U16, "TCP: last port to try when listening"),
            PropDef::new("ipv4", PropKind::Bool, "TCP: use IPv4"),
            PropDef::new("ipv6", PropKind::Bool, "TCP: use IPv6"),
            PropDef::new("nodelay", PropKind::Bool, "TCP: send small packets at once").or("off"),
            PropDef::new("fd", PropKind::I32, "an open socket that was inherited"),
            PropDef::new("server", PropKind::Bool, "listen instead of connecting").or("off"),
            PropDef::new(
                "wait",
                PropKind::Bool,
                "listening: wait for a client before starting"
            ),
            PropDef::new("telnet", PropKind::Bool, "speak telnet with the client").or("off"),
            PropDef::new(
                "reconnect",
                PropKind::U32,
                "connecting: seconds between attempts, 0 for one attempt"
            )
            .or("0"),
            PropDef::new(
                "reconnect-ms",
                PropKind::U64,
                "connecting: milliseconds between attempts"
            ),
        ],
    },
    DriverDef {
        name: "stdio",
        doc: "the terminal, or standard input and output",
        props: props![
            PropDef::new(
                "signal",
                PropKind::Bool,
                "Ctrl-C ends the emulator instead of reaching the guest"
            )
            .or("on"),
        ],
    },
    DriverDef {
        name: "testdev",
        doc: "output is commands of kvm-unit-tests: the guest ends the process",
        props: props![],
    },
    DriverDef {
        name: "vc",
        doc: "a text console on the display; without one, nowhere",
        props: props![
            PropDef::new("width", PropKind::U32, "pixels"),
            PropDef::new("height", PropKind::U32, "pixels"),
            PropDef::new("cols", PropKind::U32, "characters"),
            PropDef::new("rows", PropKind::U32, "characters"),
        ],
    },
];

/// Drivers of QEMU that we lack, so that the message can say so.
const ABSENT: &[&str] = &[
    "udp",
    "websocket",
    "msmouse",
    "wctablet",
    "braille",
    "serial",
    "tty",
    "parallel",
    "parport",
    "spicevmc",
    "spiceport",
    "qemu-vdagent",
    "dbus",
    "hub",
    "console",
];

/// A stream to be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CharSpec {
    /// The name others refer to it by.
    pub id: String,
    /// What it is.
    pub kind: CharKind,
    /// Whether several users share it.
    pub mux: bool,
    /// A copy of the output.
    pub log: Option<LogFile>,
}

/// Where a copy of the output goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// Keep what it has.
    pub append: bool,
}

/// The kinds of streams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CharKind {
    /// Nowhere.
    Null,
    /// A text console on the display.
    Vc,
    /// The terminal.
    Stdio {
        /// Whether its keys make signals.
        signal: bool,
    },
    /// A file.
    File {
        /// For output.
        path: PathBuf,
        /// Keep what it has.
        append: bool,
        /// For input.
        input_path: Option<PathBuf>,
    },
    /// Two FIFOs or one.
    Pipe {
        /// Without `.in` and `.out`.
        path: PathBuf,
    },
    /// A new pseudo terminal.
    Pty,
    /// Commands of a test.
    Testdev,
    /// Memory.
    Ringbuf {
        /// Bytes kept.
        size: usize,
    },
    /// A socket.
    Socket(SocketSpec),
}

impl CharKind {
    /// The driver's name.
    pub fn driver(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Vc => "vc",
            Self::Stdio { .. } => "stdio",
            Self::File { .. } => "file",
            Self::Pipe { .. } => "pipe",
            Self::Pty => "pty",
            Self::Testdev => "testdev",
            Self::Ringbuf { .. } => "ringbuf",
            Self::Socket(_) => "socket",
        }
    }
}

/// A socket stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketSpec {
    /// Where.
    pub address: SocketAddress,
    /// Listen.
    pub server: bool,
    /// Wait for the first client before the machine starts.
    pub wait: bool,
    /// Speak telnet.
    pub telnet: bool,
    /// Send small packets at once.
    pub nodelay: bool,
    /// Between attempts to connect; 0 for one attempt.
    pub reconnect_ms: u64,
}

impl SocketSpec {
    pub(crate) fn action(&self) -> String {
        let verb = if self.server {
            "listen on"
        } else {
            "connect to"
        };
        format!("{verb} '{}'", self.address)
    }
}

/// A socket's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SocketAddress {
    /// In the file system or the abstract namespace.
    Unix {
        /// Path or name.
        path: PathBuf,
        /// Which of the two.
        is_abstract: bool,
    },
    /// Host and port.
    Tcp {
        /// Name or address; empty for any.
        host: String,
        /// Port.
        port: u16,
        /// Last port to try.
        to: u16,
        /// Whether to use IPv4; both if neither is said.
        ipv4: Option<bool>,
        /// Whether to use IPv6.
        ipv6: Option<bool>,
    },
    /// Inherited.
    Fd(i32),
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix {
                path,
                is_abstract: false,
            } => write!(f, "unix:{}", path.display()),
            Self::Unix {
                path,
                is_abstract: true,
            } => write!(f, "unix:{},abstract=on", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "tcp:{host}:{port}"),
            Self::Fd(number) => write!(f, "fd:{number}"),
        }
    }
}

impl CharSpec {
    /// Reads the argument of `-chardev`: `socket,id=a,path=b`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        Self::from_opts("-chardev", &Opts::parse("-chardev", text, Some("backend"))?)
    }

    /// Reads a list that was taken apart already; `option` is what errors name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_opts(option: &str, opts: &Opts) -> Result<Self, OptionError> {
        let mut opts = opts.clone();
        let Some(name) = opts.take("backend") else {
            return Err(OptionError::syntax(
                option,
                "the driver is missing: write 'DRIVER,id=...', see 'help'",
            ));
        };
        let driver = driver(option, &name)?;
        let props = Props::check(
            option,
            &format!("character device '{name}'"),
            &opts,
            driver.props,
        )?;
        let Some(id) = props.text("id").filter(|id| !id.is_empty()) else {
            return Err(OptionError::MissingKey {
                option: option.to_owned(),
                subject: format!("character device '{name}'"),
                key: "id".to_owned(),
                doc: "name to refer to it by".to_owned(),
            });
        };
        let path = |key| props.text(key).map(PathBuf::from);
        let kind = match driver.name {
            "null" => CharKind::Null,
            "vc" => CharKind::Vc,
            "stdio" => CharKind::Stdio {
                signal: props.is_on("signal"),
            },
            "file" => CharKind::File {
                path: path("path").unwrap_or_default(),
                append: props.is_on("append"),
                input_path: path("input-path"),
            },
            "pipe" => CharKind::Pipe {
                path: path("path").unwrap_or_default(),
            },
            "pty" => CharKind::Pty,
            "testdev" => CharKind::Testdev,
            "socket" => CharKind::Socket(socket(option, &props)?),
            _ => CharKind::Ringbuf {
                size: ringbuf_size(option, &props)?,
            },
        };
        let log = path("logfile").map(|path| LogFile {
            path,
            append: props.is_on("logappend"),
        });
        Ok(Self {
            id: id.to_owned(),
            kind,
            mux: props.is_on("mux"),
            log,
        })
    }

    /// Reads the short form that `-serial`, `-parallel`, `-monitor` and `-qmp` take: `mon:stdio`, `pty`, `file:x`,
    /// `unix:/run/x,server=on,wait=off`, `tcp::4444,server`, `telnet:...`. (`none` and `chardev:ID` are the caller's.)
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_short(option: &str, id: &str, text: &str) -> Result<Self, OptionError> {
        let (text, mux) = match text.strip_prefix("mon:") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let mut opts = Opts::default();
        let mut set = |key: &str, value: &str| opts.push(key, Scalar::Text(value.to_owned()));
        let (head, rest) = text.split_once(':').unwrap_or((text, ""));
        match head {
            "null" | "pty" | "stdio" | "vc" | "ringbuf" if text == head => set("backend", head),
            "vc" => set("backend", "vc"),
            "file" | "pipe" => {
                set("backend", head);
                // The whole rest is the path, commas and all.
                set("path", rest);
            }
            "unix" | "tcp" | "telnet" => {
                let (address, extra) = rest.split_once(',').unwrap_or((rest, ""));
                set("backend", "socket");
                if head == "unix" {
                    set("path", address);
                } else {
                    let (host, port) = split_host(option, address)?;
                    set("host", host);
                    set("port", port);
                }
                if head == "telnet" {
                    set("telnet", "on");
                }
                for (key, value) in Opts::parse(option, extra, None)?.iter() {
                    opts.push(key, value.clone());
                }
            }
            "fdset" | "con" | "websocket" | "udp" | "msmouse" | "braille" | "testdev" => {
                return Err(absent(option, head));
            }
            _ if text.starts_with("/dev/") => {
                return Err(OptionError::Unavailable {
                    option: option.to_owned(),
                    what: format!("a host device ('{text}')"),
                    hint: Hint::text(
                        "'pipe:PATH', 'pty' or 'unix:PATH,server=on,wait=off' connect to host programs",
                    ),
                });
            }
            _ => {
                let valid = [
                    "null",
                    "pty",
                    "stdio",
                    "vc",
                    "ringbuf",
                    "file",
                    "pipe",
                    "unix",
                    "tcp",
                    "telnet",
                    "mon:stdio",
                    "none",
                ];
                return Err(OptionError::unknown_name(
                    option,
                    "character device",
                    head,
                    valid,
                ));
            }
        }
        if mux {
            opts.push("mux", Scalar::Bool(true));
            // A terminal that the monitor shares does not end the emulator with Ctrl-C.
            if text == "stdio" {
                opts.push("signal", Scalar::Bool(false));
            }
        }
        opts.push("id", Scalar::Text(id.to_owned()));
        Self::from_opts(option, &opts)
    }
}

fn driver(option: &str, name: &str) -> Result<&'static DriverDef, OptionError> {
    if let Some(driver) = DRIVERS.iter().find(|d| d.name == name) {
        return Ok(driver);
    }
    if ABSENT.contains(&name) {
        return Err(absent(option, name));
    }
    Err(OptionError::unknown_name(
        option,
        "character device driver",
        name,
        DRIVERS.iter().map(|d| d.name),
    ))
}

fn absent(option: &str, name: &str) -> OptionError {
    let there: Vec<_> = DRIVERS.iter().map(|d| d.name).collect();
    OptionError::Unavailable {
        option: option.to_owned(),
        what: format!("character device driver '{name}'"),
        hint: Hint::text(format!("there are {}", there.join(", "))),
    }
}

fn split_host<'a>(option: &str, address: &'a str) -> Result<(&'a str, &'a str), OptionError> {
    let split = match address.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => address.rsplit_once(':'),
    };
    split.ok_or_else(|| {
        OptionError::syntax(
            option,
            format!("'{address}' lacks a port: write 'HOST:PORT'"),
        )
    })
}

fn ringbuf_size(option: &str, props: &Props) -> Result<usize, OptionError> {
    let size = props.unsigned("size").unwrap_or(RINGBUF_DEFAULT);
    match usize::try_from(size) {
        Ok(n) if n.is_power_of_two() && size <= RINGBUF_MAX => Ok(n),
        _ => Err(OptionError::bad_value(
            option,
            "size",
            &size.to_string(),
            "a power of two up to 64M",
        )),
    }
}

fn socket(option: &str, props: &Props) -> Result<SocketSpec, OptionError> {
    let server = props.is_on("server");
    let given = |key| props.is_given(key);
    let address = match (props.text("path"), props.unsigned("port"), props.get("fd")) {
        (Some(path), None, None) => SocketAddress::Unix {
            path: path.into(),
            is_abstract: props.is_on("abstract"),
        },
        (None, Some(port), None) => {
            let port = u16::try_from(port).unwrap_or(0);
            let to = props
                .unsigned("to")
                .and_then(|to| u16::try_from(to).ok())
                .unwrap_or(port);
            let flag = |key| props.get(key).map(|_| props.is_on(key));
            let host = props.text("host").unwrap_or_default().to_owned();
            SocketAddress::Tcp {
                host,
                port,
                to,
                ipv4: flag("ipv4"),
                ipv6: flag("ipv6"),
            }
        }
        (None, None, Some(control_options::PropValue::Signed(number))) => {
            SocketAddress::Fd(i32::try_from(*number).unwrap_or(-1))
        }
        _ => {
            let problem = "a socket needs one of 'path=...' (unix), 'host=...,port=...' (TCP) or 'fd=...' (inherited)";
            return Err(OptionError::syntax(option, problem));
        }
    };
    if given("wait") && !server {
        return Err(OptionError::syntax(
            option,
            "'wait' is for listening sockets: add 'server=on' or leave it out",
        ));
    }
    let reconnect_ms = match props.unsigned("reconnect-ms") {
        Some(ms) => ms,
        None => props
            .unsigned("reconnect")
            .unwrap_or(0)
            .saturating_mul(1000),
    };
    if reconnect_ms > 0 && server {
        return Err(OptionError::syntax(
            option,
            "'reconnect' is for connecting sockets: leave out 'server=on'",
        ));
    }
    Ok(SocketSpec {
        address,
        server,
        wait: server && (!given("wait") || props.is_on("wait")),
        telnet: props.is_on("telnet"),
        nodelay: props.is_on("nodelay"),
        reconnect_ms,
    })
}
