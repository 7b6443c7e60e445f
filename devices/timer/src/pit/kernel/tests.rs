use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::Pit;
use crate::testing::Bench;

/// A kernel that remembers what it was given.
#[derive(Default)]
struct Fake {
    state: Mutex<I8254State>,
    puts: Mutex<Vec<(I8254State, bool)>>,
    catch_up: Mutex<Option<bool>>,
}

impl KernelI8254 for Fake {
    fn get(&self, _: u64) -> Result<I8254State, String> {
        Ok(self.state.lock().unwrap().clone())
    }
    fn put(&self, state: &I8254State, replaced: bool) -> Result<(), String> {
        *self.state.lock().unwrap() = state.clone();
        self.puts.lock().unwrap().push((state.clone(), replaced));
        Ok(())
    }
    fn set_catch_up(&self, on: bool) -> Result<(), String> {
        *self.catch_up.lock().unwrap() = Some(on);
        Ok(())
    }
}

struct Set {
    bench: Bench,
    kernel: Arc<Fake>,
    legacy: Arc<LegacyReplacement>,
}

impl Set {
    fn new() -> Self {
        let kernel = Arc::new(Fake::default());
        let legacy = LegacyReplacement::new();
        let device = KernelPit::new(kernel.clone(), legacy.clone(), false);
        let bench = Bench::new(device);
        Set {
            bench,
            kernel,
            legacy,
        }
    }

    fn puts(&self) -> Vec<(I8254State, bool)> {
        std::mem::take(&mut self.kernel.puts.lock().unwrap())
    }

    /// The guest programs counter 0, past this process.
    fn program(&self, mode: u8, loaded_at: u64) {
        let mut state = self.kernel.state.lock().unwrap();
        state.channels[0].mode = mode;
        state.channels[0].reload = 1000;
        state.channels[0].loaded_at = Some(loaded_at);
        state.fires_at = None;
    }
}

#[test]
fn periods_stand_still_with_virtual_time() {
    let set = Set::new();
    assert_eq!(*set.kernel.catch_up.lock().unwrap(), Some(false));
    set.program(2, 0);
    let clock = &set.bench.fabric.clock;
    clock.stop();
    // Idle in the kernel, as it was in what would be saved.
    let [(held, false)] = &set.puts()[..] else {
        panic!()
    };
    assert_eq!(held.fires_at, None);
    let saved = I8254State::restore(&set.bench.saved()).unwrap();
    assert_eq!(saved.fires_at, Some(1000));
    clock.start();
    assert_eq!(set.puts(), [(saved, false)]);
    // A second start changes nothing.
    clock.start();
    assert!(set.puts().is_empty());
}

#[test]
fn a_single_count_runs_on_while_the_machine_is_stopped_for_a_look() {
    let set = Set::new();
    set.program(0, 0);
    set.bench.fabric.clock.stop();
    set.bench.fabric.clock.start();
    assert!(set.puts().is_empty());
}

#[test]
fn a_restored_state_reaches_the_kernel_when_time_goes_on() {
    let set = Set::new();
    set.program(2, 0);
    let mut state = I8254State::default();
    state.channels[0].mode = 3;
    state.fires_at = Some(77);
    set.bench.fabric.clock.stop();
    set.puts();
    let restored = set.bench.part.with(|d| d.restore(&state.save()));
    restored.unwrap();
    assert!(set.puts().is_empty());
    assert_eq!(set.bench.saved(), state.save());
    set.bench.fabric.clock.start();
    assert_eq!(set.puts(), [(state, false)]);
}

#[test]
fn a_reset_undoes_what_the_guest_programmed() {
    let set = Set::new();
    set.program(2, 0);
    set.bench.fabric.clock.stop();
    set.bench.fabric.reset(ResetKind::Cold);
    set.puts();
    set.bench.fabric.clock.start();
    assert_eq!(set.puts(), [(I8254State::default(), false)]);
}

#[test]
fn the_hpet_takes_the_interrupt_over() {
    let set = Set::new();
    set.program(2, 0);
    set.legacy.set(true);
    set.bench.pass_ns(0);
    assert!(matches!(set.puts()[..], [(_, true)]));
    set.legacy.set(false);
    set.bench.pass_ns(0);
    assert!(matches!(set.puts()[..], [(_, false)]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_the_model_saves_the_kernels_device_takes_and_back(
        ops in proptest::collection::vec((0usize..5, any::<u8>(), any::<u16>()), 1..60),
    ) {
        let model = Bench::new(Pit::new(0x40, LegacyReplacement::new()));
        for (port, value, wait) in ops {
            model.outb([0x40, 0x41, 0x42, 0x43, 0x61][port], value);
            model.pass_ns(wait.into());
        }
        let set = Set::new();
        set.bench.fabric.clock.stop();
        let saved = model.saved();
        set.bench.part.with(|d| d.restore(&saved)).unwrap();
        prop_assert_eq!(set.bench.saved(), saved);
        // A monitor's looks, and nobody else's writes.
        for port in 0x40..0x44 {
            set.bench.inb(port);
            set.bench.outb(port, 0x34);
        }
        prop_assert_eq!(set.bench.saved(), model.saved());
    }
}
