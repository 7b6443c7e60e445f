//! What the machine tells its monitors unasked.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use crate::qapi_enum;
use crate::schema::{Member, Schema};
use crate::types::{BlockErrorAction, IoOperationType, JobStatus, JobType};
use crate::value::Qapi;

qapi_enum! {
    /// Why the machine shuts down or resets.
    pub enum ShutdownCause {
        /// Nothing is shutting down.
        None = "none",
        /// An error of the host.
        HostError = "host-error",
        /// QMP `quit`.
        HostQmpQuit = "host-qmp-quit",
        /// QMP `system_reset`.
        HostQmpSystemReset = "host-qmp-system-reset",
        /// A signal.
        HostSignal = "host-signal",
        /// The terminal or a window.
        HostUi = "host-ui",
        /// The guest powered off.
        GuestShutdown = "guest-shutdown",
        /// The guest reset the machine.
        GuestReset = "guest-reset",
        /// The guest panicked.
        GuestPanic = "guest-panic",
        /// A part of the machine reset it.
        SubsystemReset = "subsystem-reset",
        /// A snapshot is being loaded.
        SnapshotLoad = "snapshot-load",
    }
}

qapi_enum! {
    /// What is done about a crashed guest.
    pub enum GuestPanicAction {
        /// The vCPUs are stopped.
        Pause = "pause",
        /// The machine ends.
        Poweroff = "poweroff",
        /// Nothing.
        Run = "run",
    }
}

qapi_enum! {
    /// What a watchdog does.
    pub enum WatchdogAction {
        /// Reset the machine.
        Reset = "reset",
        /// Ask the guest to power off.
        Shutdown = "shutdown",
        /// End.
        Poweroff = "poweroff",
        /// Stop the vCPUs.
        Pause = "pause",
        /// Say so.
        Debug = "debug",
        /// Nothing.
        None = "none",
        /// Send an NMI.
        InjectNmi = "inject-nmi",
    }
}

/// Defines [`Event`], its names and its schema.
macro_rules! events {
    ($($(#[$meta:meta])* $variant:ident = $json:literal {
        $($(#[$field_meta:meta])* $field:ident: $ty:ty = $field_json:literal),* $(,)?
    })*) => {
        /// An event of the protocol.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Event {
            $($(#[$meta])* $variant { $($(#[$field_meta])* $field: $ty),* },)*
        }

        impl Event {
            /// The names of all events.
            pub const NAMES: &'static [&'static str] = &[$($json),*];

            /// As it is sent.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $json,)*
                }
            }

            /// The members of `data`.
            pub fn data(&self) -> serde_json::Map<String, Value> {
                #[allow(unused_mut)]
                let mut members = serde_json::Map::new();
                match self {
                    $(Self::$variant { $($field),* } => {
                        $($field.put(&mut members, $field_json);)*
                    })*
                }
                members
            }

            /// Adds all events to the schema.
            pub fn describe_all(schema: &mut Schema) {
                $(
                    let data = schema.object(concat!("event ", $json), |schema| {
                        let _ = &schema;
                        vec![$(Member::of::<$ty>(schema, $field_json)),*]
                    });
                    schema.event($json, &data);
                )*
            }
        }
    };
}

events! {
    /// The vCPUs stopped.
    Stop = "STOP" {}
    /// The vCPUs go on.
    Resume = "RESUME" {}
    /// The guest was asked to power off.
    Powerdown = "POWERDOWN" {}
    /// The machine ends.
    Shutdown = "SHUTDOWN" {
        /// Whether the guest wanted it.
        guest: bool = "guest",
        /// Why.
        reason: ShutdownCause = "reason",
    }
    /// The machine was reset.
    Reset = "RESET" {
        /// Whether the guest wanted it.
        guest: bool = "guest",
        /// Why.
        reason: ShutdownCause = "reason",
    }
    /// The guest sleeps in S3.
    Suspend = "SUSPEND" {}
    /// The guest sleeps in S4.
    SuspendDisk = "SUSPEND_DISK" {}
    /// The guest woke up.
    Wakeup = "WAKEUP" {}
    /// The guest says that it crashed.
    GuestPanicked = "GUEST_PANICKED" {
        /// What is done about it.
        action: GuestPanicAction = "action",
    }
    /// The guest says that it crashed and deals with it.
    GuestCrashloaded = "GUEST_CRASHLOADED" {
        /// What is done about it.
        action: GuestPanicAction = "action",
    }
    /// A watchdog fired.
    Watchdog = "WATCHDOG" {
        /// What is done about it.
        action: WatchdogAction = "action",
    }
    /// The guest set its clock.
    RtcChange = "RTC_CHANGE" {
        /// Seconds from the host's time.
        offset: i64 = "offset",
        /// The clock.
        qom_path: String = "qom-path",
    }
    /// A guest opened or closed a virtio serial port.
    VserportChange = "VSERPORT_CHANGE" {
        /// The port.
        id: String = "id",
        /// Which.
        open: bool = "open",
    }
    /// The host failed a request of a disk.
    BlockIoError = "BLOCK_IO_ERROR" {
        /// The device.
        qom_path: String = "qom-path",
        /// The disk.
        device: String = "device",
        /// Its node.
        node_name: Option<String> = "node-name",
        /// Which way it went.
        operation: IoOperationType = "operation",
        /// What was done about it.
        action: BlockErrorAction = "action",
        /// Whether there was no space.
        nospace: Option<bool> = "nospace",
        /// In words.
        reason: String = "reason",
    }
    /// A job stands elsewhere.
    JobStatusChange = "JOB_STATUS_CHANGE" {
        /// The job.
        id: String = "id",
        /// Where.
        status: JobStatus = "status",
    }
    /// A job has ended.
    BlockJobCompleted = "BLOCK_JOB_COMPLETED" {
        /// What it does.
        kind: JobType = "type",
        /// Its name.
        device: String = "device",
        /// What was to be done,
        len: u64 = "len",
        /// and what was done.
        offset: u64 = "offset",
        /// Bytes a second.
        speed: u64 = "speed",
        /// Why it failed.
        error: Option<String> = "error",
    }
    /// A job was ended.
    BlockJobCancelled = "BLOCK_JOB_CANCELLED" {
        /// What it does.
        kind: JobType = "type",
        /// Its name.
        device: String = "device",
        /// What was to be done,
        len: u64 = "len",
        /// and what was done.
        offset: u64 = "offset",
        /// Bytes a second.
        speed: u64 = "speed",
    }
    /// The host failed a request of a job.
    BlockJobError = "BLOCK_JOB_ERROR" {
        /// Its name.
        device: String = "device",
        /// Which way it went.
        operation: IoOperationType = "operation",
        /// What was done about it.
        action: BlockErrorAction = "action",
    }
    /// A job could end.
    BlockJobReady = "BLOCK_JOB_READY" {
        /// What it does.
        kind: JobType = "type",
        /// Its name.
        device: String = "device",
        /// What was to be done,
        len: u64 = "len",
        /// and what was done.
        offset: u64 = "offset",
        /// Bytes a second.
        speed: u64 = "speed",
    }
    /// A job waits to be finalized.
    BlockJobPending = "BLOCK_JOB_PENDING" {
        /// What it does.
        kind: JobType = "type",
        /// Its name.
        id: String = "id",
    }
    /// The tray of a drive moved.
    DeviceTrayMoved = "DEVICE_TRAY_MOVED" {
        /// The drive.
        device: String = "device",
        /// Its device.
        id: String = "id",
        /// Whether it is open now.
        tray_open: bool = "tray-open",
    }
    /// A device is gone.
    DeviceDeleted = "DEVICE_DELETED" {
        /// Its id.
        device: Option<String> = "device",
        /// Its path.
        path: String = "path",
    }
}

/// When something happened, as QMP says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamp {
    /// Since 1970.
    pub seconds: u64,
    /// Of the second.
    pub microseconds: u32,
}

impl Timestamp {
    /// From nanoseconds since 1970.
    pub fn from_ns(ns: u64) -> Self {
        let us = ns / 1000;
        // A remainder below a million fits.
        Self {
            seconds: us / 1_000_000,
            microseconds: u32::try_from(us % 1_000_000).unwrap_or(0),
        }
    }
}

impl Event {
    /// The whole message.
    pub fn to_json(&self, at: Timestamp) -> Value {
        let mut message = json!({
            "timestamp": { "seconds": at.seconds, "microseconds": at.microseconds },
            "event": self.name(),
        });
        let data = self.data();
        if let (false, Value::Object(members)) = (data.is_empty(), &mut message) {
            members.insert("data".to_owned(), Value::Object(data));
        }
        message
    }
}

/// Who wants to hear of events. Called on whatever thread the event happened, perhaps with a device locked: queue it.
pub trait EventSink: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event, at: Timestamp);
}

/// Hands each event to all who listen. The clock is given, so that a replay has the times of the recording.
pub struct EventBus {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    sinks: Mutex<Vec<Weak<dyn EventSink>>>,
}

impl std::fmt::Debug for EventBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventBus")
    }
}

impl EventBus {
    /// A bus that nobody listens to yet.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            clock: Box::new(clock),
            sinks: Mutex::default(),
        })
    }

    /// Tells `sink` from now on, as long as it lives.
    pub fn subscribe(&self, sink: Weak<dyn EventSink>) {
        self.sinks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sink);
    }

    /// Tells everybody.
    pub fn emit(&self, event: &Event) {
        let at = (self.clock)();
        let sinks: Vec<_> = {
            let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
            sinks.retain(|sink| sink.strong_count() > 0);
            sinks.iter().filter_map(Weak::upgrade).collect()
        };
        for sink in sinks {
            sink.event(event, at);
        }
    }
}
