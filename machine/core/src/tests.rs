use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};

use accel_core::{Pending, Sleeper, Vcpu, VcpuError, VcpuExit, reason};
use control_qapi::RunState;
use hw_clock::Clock;
use hw_core::{Device, DeviceError, Fabric, Placement, Request, ResetKind, StateError, Wiring};
use hw_state::Section;
use runtime::EventLoop;

use crate::{Event, Machine, Policy};

/// Counts its runs until it is told to stop.
struct Counter {
    pending: Arc<Pending>,
    runs: u64,
    resets: Arc<AtomicU32>,
    /// Of all CPUs, if they share a thread.
    sleeper: Option<Arc<Sleeper>>,
    /// Told when it has run so often that it has nothing to do until it is told to stop.
    done: Sender<i32>,
}

const MOST: u64 = 1000;

impl Vcpu for Counter {
    fn run(&mut self) -> VcpuExit {
        self.runs += 1;
        if self.runs == MOST {
            let _ = self.done.send(runtime::thread::current_id());
        }
        if self.pending.get() & reason::STOP != 0 {
            VcpuExit::Stopped
        } else {
            VcpuExit::Again
        }
    }
    fn pending(&self) -> Arc<Pending> {
        self.pending.clone()
    }
    fn shares_thread(&self) -> Option<Arc<Sleeper>> {
        self.sleeper.clone()
    }
    fn is_idle(&self) -> bool {
        self.runs >= MOST && self.pending.get() == 0
    }
    fn reset(&mut self) {
        self.runs = 0;
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
    fn save(&mut self) -> Result<Section, VcpuError> {
        Ok(Section::new("counter", 1).with(1, self.runs))
    }
    fn restore(&mut self, s: &Section) -> Result<(), VcpuError> {
        s.expect("counter", 1)?;
        self.runs = s.u64(1)?;
        Ok(())
    }
    fn registers(&mut self) -> Vec<(String, u128)> {
        vec![("runs".into(), self.runs.into())]
    }
    fn describe(&mut self) -> String {
        String::new()
    }
    fn debug_translate(&mut self, va: u64) -> Option<u64> {
        Some(va)
    }
    fn is_halted(&self) -> bool {
        false
    }
    fn report(&mut self, _: &str) -> Option<String> {
        None
    }
}

fn machine(events: &EventLoop) -> (Machine, Arc<AtomicU32>) {
    machine_of(events, None, &channel().0)
}

fn machine_of(
    events: &EventLoop,
    sleeper: Option<Arc<Sleeper>>,
    done: &Sender<i32>,
) -> (Machine, Arc<AtomicU32>) {
    let machine = Machine::new(Fabric::new(Clock::manual().0), events.handle());
    let resets = Arc::new(AtomicU32::new(0));
    for n in 0..2 {
        let cpu = Counter {
            pending: Arc::default(),
            runs: 0,
            resets: resets.clone(),
            sleeper: sleeper.clone(),
            done: done.clone(),
        };
        if let Some(sleeper) = &sleeper {
            cpu.pending.sleep_at(sleeper.clone());
        }
        machine
            .add_cpu(format!("CPU {n}/test"), Box::new(cpu))
            .unwrap();
    }
    machine.power_on();
    (machine, resets)
}

#[test]
fn a_cpus_thread_has_its_id_from_the_start() {
    let events = EventLoop::new().unwrap();
    for _ in 0..50 {
        let (machine, _) = machine(&events);
        let ids: Vec<i32> = machine.cpus().iter().map(|cpu| cpu.thread_id()).collect();
        assert!(ids.iter().all(|id| *id > 0), "{ids:?}");
    }
}

#[test]
fn cpus_that_share_a_thread_run_in_turn_sleep_together_and_are_parked_together() {
    let mut events = EventLoop::new().unwrap();
    let (send, done) = channel();
    let (machine, resets) = machine_of(&events, Some(Arc::default()), &send);
    let ids: Vec<i32> = machine.cpus().iter().map(|cpu| cpu.thread_id()).collect();
    for turn in 1..50 {
        machine.start();
        machine.stop(RunState::Paused);
        machine.start();
        machine.fabric().requests.post(Request::Reset);
        events.turn(None);
        assert_eq!(resets.load(Ordering::SeqCst), 2 + 2 * turn);
        machine.stop(RunState::Paused);
    }
    while done.try_recv().is_ok() {}
    machine.start();
    machine.fabric().requests.post(Request::Reset);
    events.turn(None);
    let threads = [done.recv().unwrap(), done.recv().unwrap()];
    assert_eq!((&threads[..], threads[0]), (&ids[..], threads[1]));
}

#[test]
fn a_stopped_machine_has_all_cpus_parked_and_virtual_time_halted() {
    let events = EventLoop::new().unwrap();
    let (machine, _) = machine(&events);
    machine.start();
    assert_eq!(machine.state(), RunState::Running);
    machine.stop(RunState::Paused);
    assert!(!machine.fabric().clock.is_running());
    let runs: Vec<_> = machine
        .cpus()
        .iter()
        .map(|c| c.with(|c| c.registers()))
        .collect();
    assert!(runs.iter().all(Option::is_some));
    let saved = machine.save().unwrap();
    machine.start();
    assert!(machine.save().is_err());
    machine.stop(RunState::Paused);
    machine.restore(&saved).unwrap();
    assert_eq!(machine.save().unwrap().cpus, saved.cpus);
}

#[test]
fn a_guest_reset_resets_cpus_and_goes_on() {
    let mut events = EventLoop::new().unwrap();
    let (machine, resets) = machine(&events);
    machine.start();
    machine.fabric().requests.post(Request::Reset);
    events.turn(None);
    assert_eq!(resets.load(Ordering::SeqCst), 4);
    assert_eq!(machine.state(), RunState::Running);
}

#[test]
fn without_reboot_a_reset_shuts_down() {
    let mut events = EventLoop::new().unwrap();
    let (machine, _) = machine(&events);
    machine.set_policy(Policy {
        no_reboot: true,
        ..Policy::default()
    });
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    machine.on_event(move |e| log.lock().unwrap().push(e.clone()));
    machine.start();
    machine.fabric().requests.post(Request::Reset);
    events.turn(None);
    assert_eq!(machine.state(), RunState::Shutdown);
    let down = Event::Shutdown {
        guest: true,
        cause: "guest-reset",
        stays: false,
        status: 0,
    };
    assert_eq!(*seen.lock().unwrap(), [Event::Resume, down]);
}

/// A device whose back end is always busy until somebody waits for it.
struct Busy(Arc<AtomicU32>);

impl Device for Busy {
    fn realize(&mut self, wiring: &mut dyn Wiring) -> Result<(), DeviceError> {
        let waits = self.0.clone();
        wiring.on_stop(Arc::new(move || {
            waits.fetch_add(1, Ordering::SeqCst);
        }));
        Ok(())
    }
    fn reset(&mut self, _: ResetKind) {}
    fn save(&self) -> Section {
        Section::new("busy", 1)
    }
    fn restore(&mut self, _: &Section) -> Result<(), StateError> {
        Ok(())
    }
}

#[test]
fn a_machine_is_stopped_when_its_back_ends_have_nothing_under_way() {
    let events = EventLoop::new().unwrap();
    let (machine, _) = machine(&events);
    let waits = Arc::new(AtomicU32::new(0));
    let placement = Placement {
        path: "busy".into(),
        ..Placement::default()
    };
    let busy = Box::new(Busy(waits.clone()));
    machine.fabric().add(busy, placement).unwrap();
    machine.start();
    assert_eq!(waits.load(Ordering::SeqCst), 0);
    machine.stop(RunState::Paused);
    assert_eq!(waits.load(Ordering::SeqCst), 1);
}
