//! Random programs that overwrite and remap their own code: generated code, also in lock step, against the
//! interpreter, and both against the host's processor where there is KVM.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use accel_interp::Interp;
use accel_jit::Jit;
use target_x86::X86;
use test_native::generate::Rng;
use test_native::kvm::{KvmCpu, Stop, SystemState};
use test_x86::EmulatedSystem;
use test_x86::overwrite::{MEMORY, Program, program};

/// Programs run. `MIMIC_X86_CASES` asks for more.
const PROGRAMS: u64 = 300;

/// AF, which some of the instructions leave undefined.
const AF: u64 = 1 << 4;

#[allow(clippy::expect_used)]
fn jit(slice: i64, checks: bool) -> Box<Jit<X86>> {
    let mut jit = Jit::new(0).expect("code memory");
    if checks {
        jit.check();
    }
    jit.hasten(slice);
    Box::new(jit)
}

/// How a program ends, and with how many instructions executed.
fn run(cpu: &mut EmulatedSystem, program: &Program) -> (Stop, (SystemState, u64), Vec<u8>) {
    let mut memory = vec![0; MEMORY];
    cpu.read(&mut memory);
    cpu.restore(&memory, &program.memory);
    let mut state = program.state.clone();
    let before = cpu.insns();
    let stop = cpu.run(&mut state);
    cpu.read(&mut memory);
    let insns = cpu.insns() - before;
    let insns = if program.copies { 0 } else { insns };
    (stop, (state, insns), memory)
}

fn differences(a: &[u8], b: &[u8]) -> Vec<usize> {
    let differs = |i: &usize| a[*i] != b[*i];
    (0..a.len()).filter(differs).take(8).collect()
}

fn count(cpu: &EmulatedSystem, what: &str) -> u64 {
    let report = cpu.report();
    let found = report.iter().find(|(name, _)| *name == what);
    found.map_or(0, |(_, count)| *count)
}

/// What lives through all programs.
struct Cpus {
    interpreter: EmulatedSystem,
    /// Its code is driven out by later code again and again.
    old: EmulatedSystem,
    host: Option<KvmCpu>,
    regions: u64,
}

impl Cpus {
    fn new() -> Self {
        let host = KvmCpu::new(MEMORY).ok();
        if host.is_none() {
            eprintln!("SKIPPED: no KVM to compare with");
        }
        Cpus {
            interpreter: EmulatedSystem::new(MEMORY, Box::new(Interp::default())),
            old: EmulatedSystem::new(MEMORY, jit(100, false)),
            host,
            regions: 0,
        }
    }

    fn compare(&mut self, seed: u64) {
        let mut rng = Rng::new(seed);
        let is_paged = !seed.is_multiple_of(3);
        let program = program(&mut rng, is_paged);
        let slice = [25, 100, 400][rng.below(3) as usize];
        let (stop, wanted, memory) = run(&mut self.interpreter, &program);
        assert_eq!(stop, Stop::Halted, "seed {seed}: {wanted:x?}");
        if !is_paged {
            self.compare_host(seed, &program, &wanted.0, &memory);
        }
        for checks in [Some(false), Some(true), None] {
            let mut fresh = checks.map(|checks| EmulatedSystem::new(MEMORY, jit(slice, checks)));
            let cpu = fresh.as_mut().unwrap_or(&mut self.old);
            let (stop, end, now) = run(cpu, &program);
            let name = match checks {
                Some(true) => "in lock step",
                Some(false) => "new",
                None => "old",
            };
            assert_eq!(stop, Stop::Halted, "seed {seed}: {name}: {end:x?}");
            assert_eq!(end, wanted, "seed {seed}: {name}");
            let differ = differences(&now, &memory);
            assert!(differ.is_empty(), "seed {seed}: {name}: {differ:x?}");
            self.regions += count(cpu, "regions compiled");
        }
    }

    #[allow(clippy::expect_used)]
    fn compare_host(&mut self, seed: u64, program: &Program, wanted: &SystemState, memory: &[u8]) {
        let Some(host) = &mut self.host else { return };
        host.memory().copy_from_slice(&program.memory);
        let mut state = program.state.clone();
        let stop = host.run(&mut state).expect("KVM runs");
        if stop == Stop::Other {
            // It was busy elsewhere for too long.
            return;
        }
        assert_eq!(stop, Stop::Halted, "seed {seed}: the host: {state:x?}");
        assert_eq!(state.gpr, wanted.gpr, "seed {seed}: the host");
        let flags = [&state, wanted].map(|state| state.rflags & !AF);
        assert_eq!(flags[0], flags[1], "seed {seed}: the host");
        let differ = differences(host.memory(), memory);
        assert!(differ.is_empty(), "seed {seed}: the host: {differ:x?}");
    }
}

#[test]
fn code_that_overwrites_and_remaps_itself_does_what_the_interpreter_and_the_host_do() {
    let number = |name: &str, default| {
        let given = std::env::var(name).ok();
        given.and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let first = number("MIMIC_X86_SEED", 0);
    let mut cpus = Cpus::new();
    for seed in first..first + number("MIMIC_X86_CASES", PROGRAMS) {
        cpus.compare(seed);
    }
    assert!(cpus.regions != 0);
    // More than there is room for.
    let [made, alive] = ["units compiled", "of them alive"].map(|what| count(&cpus.old, what));
    assert!(made > 10 * alive, "{made} {alive}");
}

#[test]
fn lock_step_does_not_go_on_in_a_page_that_invlpg_has_taken_away() {
    Cpus::new().compare(478);
}
