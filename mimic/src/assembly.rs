//! A planned machine put together: back ends opened and linked, board built, virtual timers on the main loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};

use anyhow::{Context as _, Result};
use backend_char::Chardev;
use hw_clock::HostTime;
use hw_core::{Clock, Fabric, Links, PropType};
use machine_core::{Board, MachineSpec};
use runtime::{EventLoop, Handle, LoopThread, Timer, time};

use crate::accel::Accelerator;
use crate::build::Plan;
use crate::objects::Object;
use crate::storage::{Storage, Use};
use crate::{objects, storage};

/// A machine with everything that keeps it going while its main loop runs.
pub struct Assembly {
    /// The machine, not yet powered on.
    pub board: Arc<Board>,
    /// Its open disks.
    pub storage: Storage,
    /// Threads that take the requests of disks.
    pub io_threads: Vec<IoThread>,
    _clockwork: Arc<Clockwork>,
}

/// Builds the machine of `plan` on these streams, which must be the plan's.
///
/// # Errors
/// What the host or a device refuses.
pub fn build(plan: &mut Plan, chardevs: &[Arc<Chardev>], main_loop: &Handle) -> Result<Assembly> {
    let mut links = Links::default();
    objects::offer(&plan.objects, chardevs, &mut links)?;
    let clock = Clock::new(Arc::new(HostTime::default()));
    let groups = objects::throttle_groups(&plan.objects);
    let used = |id: &str| use_of_drive(&plan.spec, id);
    let storage = storage::open(&plan.disks, &groups, &clock, used)?;
    for tray in &storage.drives.all() {
        if let Some(medium) = tray.medium() {
            links.offer("drive", tray.id(), medium);
        }
        links.offer("medium", tray.id(), Arc::clone(tray));
    }
    offer_streams(&plan.spec, chardevs, &mut links)?;
    plan.spec.memory_block = Some(Arc::new(plan.memory.block(plan.spec.memory)?));
    let (main_loop, spec) = (main_loop.clone(), &plan.spec);
    let board = match &plan.accel.accelerator {
        Accelerator::X86(accelerator) => {
            let accelerator = Arc::clone(accelerator);
            machine_x86::build(
                spec,
                accelerator,
                &mut links,
                main_loop.clone(),
                clock.clone(),
            )
        }
        Accelerator::Arm(accelerator) => {
            let accelerator = accelerator.as_ref();
            machine_arm::build(
                spec,
                accelerator,
                &mut links,
                main_loop.clone(),
                clock.clone(),
            )
        }
    }?;
    let io_threads = io_threads(&plan.objects, board.machine.fabric())?;
    Ok(Assembly {
        board: Arc::new(board),
        storage,
        io_threads,
        _clockwork: Clockwork::start(&clock, &main_loop),
    })
}

/// A thread that takes the requests of disks.
pub struct IoThread {
    /// Its id.
    pub id: String,
    /// The host's number for it.
    pub thread_id: i32,
    thread: LoopThread,
}

impl IoThread {
    /// Its loop.
    pub fn handle(&self) -> Handle {
        self.thread.handle()
    }
}

/// Starts the I/O threads, and has each serve the devices that name it.
fn io_threads(objects: &[Object], fabric: &Fabric) -> Result<Vec<IoThread>> {
    let mut all = Vec::new();
    for id in objects.iter().filter_map(Object::io_thread_id) {
        let thread = EventLoop::spawn(&format!("IO {id}"))
            .with_context(|| format!("-object iothread '{id}': cannot start the thread"))?;
        let (tell, told) = mpsc::channel();
        thread.handle().post(move || {
            let _ = tell.send(runtime::thread::current_id());
        });
        for part in fabric.parts() {
            let mut props = part.props.iter();
            if props.any(|(name, value)| name == "iothread" && value == id) {
                fabric.serve_by(&part, &thread.handle());
            }
        }
        all.push(IoThread {
            id: id.to_owned(),
            thread_id: told.recv().unwrap_or(0),
            thread,
        });
    }
    Ok(all)
}

/// How many devices, ports included, are linked to a stream.
fn stream_uses(spec: &MachineSpec, id: &str) -> usize {
    let by_device = spec.devices.iter().flat_map(|device| {
        device
            .class
            .props
            .iter()
            .filter(|prop| prop.ty == PropType::Link("chardev"))
            .filter(|prop| device.args.text(prop.name) == Some(id))
    });
    let ports = spec.serials.iter().chain(&spec.parallels).flatten();
    let by_port = ports.filter(|stream| *stream == id);
    let semihosting = spec.semihosting.iter().filter_map(|s| s.chardev.as_deref());
    let by_semihosting = semihosting.filter(|stream| *stream == id);
    by_device.count() + by_port.count() + by_semihosting.count()
}

/// How a device uses a drive, if one does.
fn use_of_drive(spec: &MachineSpec, id: &str) -> Option<Use> {
    if spec.flash.iter().flatten().any(|flash| flash == id) {
        return Some(Use::default());
    }
    spec.devices.iter().find_map(|device| {
        let mut props = device.class.props.iter();
        let link = props.find(|prop| {
            let is_drive = matches!(prop.ty, PropType::Link("drive" | "medium"));
            is_drive && device.args.text(prop.name) == Some(id)
        })?;
        Some(Use {
            is_cd: link.ty == PropType::Link("medium"),
            ..Use::of(&device.args)
        })
    })
}

/// Devices come before monitors: the first user of a multiplexer has the keys.
fn offer_streams(spec: &MachineSpec, chardevs: &[Arc<Chardev>], links: &mut Links) -> Result<()> {
    for chardev in chardevs {
        for _ in 0..stream_uses(spec, chardev.id()) {
            links.offer("chardev", chardev.id(), chardev.frontend()?);
        }
    }
    Ok(())
}

/// Fires virtual timers on the main loop, which sleeps until the next one.
struct Clockwork {
    clock: Clock,
    main_loop: Handle,
    timer: OnceLock<Timer>,
    /// A run is posted already.
    is_posted: AtomicBool,
    /// The main loop is running timers: what they arm is seen to when they are done.
    is_running: AtomicBool,
}

impl Clockwork {
    fn start(clock: &Clock, main_loop: &Handle) -> Arc<Self> {
        let clockwork = Arc::new(Self {
            clock: clock.clone(),
            main_loop: main_loop.clone(),
            timer: OnceLock::new(),
            is_posted: AtomicBool::new(false),
            is_running: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&clockwork);
        let timer = main_loop.timer(move || Self::run_weak(&weak));
        let _ = clockwork.timer.set(timer);
        let weak = Arc::downgrade(&clockwork);
        clock.queue().set_waker(move || {
            if let Some(clockwork) = weak.upgrade() {
                clockwork.wake();
            }
        });
        clockwork
    }

    /// An earlier deadline than before was armed, or time goes on. On any thread, with a device locked.
    fn wake(self: &Arc<Self>) {
        if self.is_running.load(Ordering::Acquire) && self.main_loop.is_current() {
            return;
        }
        if self.is_posted.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(self);
        self.main_loop.post(move || {
            if let Some(clockwork) = weak.upgrade() {
                clockwork.is_posted.store(false, Ordering::Release);
                clockwork.run();
            }
        });
    }

    fn run_weak(weak: &Weak<Self>) {
        if let Some(clockwork) = weak.upgrade() {
            clockwork.run();
        }
    }

    fn run(&self) {
        let Some(timer) = self.timer.get() else {
            return;
        };
        if !self.clock.is_running() {
            // Starting the clock wakes us.
            timer.cancel();
            return;
        }
        self.is_running.store(true, Ordering::Release);
        let next = self.clock.run_timers();
        self.is_running.store(false, Ordering::Release);
        match next {
            Some(at) => {
                let wait = at.saturating_sub(self.clock.now_ns());
                timer.arm(time::monotonic_ns().saturating_add(wait));
            }
            None => timer.cancel(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_on_the_loop_at_their_virtual_time() {
        let mut event_loop = EventLoop::new().unwrap();
        let (clock, time) = Clock::manual();
        let _clockwork = Clockwork::start(&clock, &event_loop.handle());
        let (tx, rx) = mpsc::channel();
        let timer = clock.timer(move || tx.send(()).unwrap());
        time.advance_ns(5);
        timer.arm(5);
        event_loop.turn(None);
        assert!(rx.try_recv().is_ok());
    }
}
