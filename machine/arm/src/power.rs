//! Power of the CPUs and of the machine, as the guest asks for it.
//!
//! Spec: Arm DEN 0022F, "Power State Coordination Interface", version 1.1; calling convention DEN
//! 0028E. Calls come by HVC or SMC from a CPU, which carries out what concerns itself.
//!
//! Not modelled: suspending the system, affinity levels above CPUs, migration.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use accel_core::{Pending, reason};
use hw_core::{
    Device, DeviceError, Request, Requests, ResetKind, Section, StateError, Value, Wiring,
};
use target_arm::{Answer, Start};

/// Function ids; bit 30 makes arguments 64 bits wide.
mod function {
    pub(super) const WIDE: u32 = 1 << 30;
    pub(super) const VERSION: u32 = 0x8400_0000;
    pub(super) const CPU_SUSPEND: u32 = 0x8400_0001;
    pub(super) const CPU_OFF: u32 = 0x8400_0002;
    pub(super) const CPU_ON: u32 = 0x8400_0003;
    pub(super) const AFFINITY_INFO: u32 = 0x8400_0004;
    pub(super) const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    pub(super) const SYSTEM_OFF: u32 = 0x8400_0008;
    pub(super) const SYSTEM_RESET: u32 = 0x8400_0009;
    pub(super) const FEATURES: u32 = 0x8400_000a;
}

const VERSION_1_1: u64 = 0x1_0001;
/// No trusted OS that would have to be migrated.
const NOT_PRESENT: u64 = 2;

const SUCCESS: u64 = 0;
const NOT_SUPPORTED: u64 = (-1i64).cast_unsigned();
const INVALID_PARAMETERS: u64 = (-2i64).cast_unsigned();
const ALREADY_ON: u64 = (-4i64).cast_unsigned();
const ON_PENDING: u64 = (-5i64).cast_unsigned();

/// A CPU's power. The numbers are those of AFFINITY_INFO, and of the saved form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Power {
    On,
    Off,
    /// CPU_ON was called, and the CPU has not looked yet.
    Coming(Start),
}

struct Cpu {
    affinity: u64,
    power: Power,
    pending: Arc<OnceLock<Arc<Pending>>>,
}

/// The firmware that CPUs call.
pub(crate) struct Psci {
    cpus: Mutex<Vec<Cpu>>,
    requests: Requests,
}

fn power_on(index: usize) -> Power {
    if index == 0 { Power::On } else { Power::Off }
}

impl Psci {
    /// For CPUs of these affinities; the first is on.
    pub(crate) fn new(affinities: &[u64], requests: Requests) -> Arc<Self> {
        let cpu = |(n, affinity): (usize, &u64)| Cpu {
            affinity: *affinity,
            power: power_on(n),
            pending: Arc::default(),
        };
        Arc::new(Psci {
            cpus: Mutex::new(affinities.iter().enumerate().map(cpu).collect()),
            requests,
        })
    }

    fn cpus(&self) -> MutexGuard<'_, Vec<Cpu>> {
        self.cpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how a CPU is reached.
    pub(crate) fn connect(&self, index: usize, pending: Arc<Pending>) {
        if let Some(cpu) = self.cpus().get(index) {
            let _ = cpu.pending.set(pending);
        }
    }

    /// Notes that an accelerator's own firmware turned a CPU on or off.
    pub(crate) fn set_power(&self, index: usize, on: bool) {
        if let Some(cpu) = self.cpus().get_mut(index) {
            cpu.power = if on { Power::On } else { Power::Off };
        }
    }

    /// Where a CPU that was turned on begins.
    pub(crate) fn take_start(&self, index: usize) -> Option<Start> {
        let mut cpus = self.cpus();
        let cpu = cpus.get_mut(index)?;
        let Power::Coming(start) = cpu.power else {
            return None;
        };
        cpu.power = Power::On;
        Some(start)
    }

    /// A call of CPU `index` with x0 to x7.
    pub(crate) fn call(&self, index: usize, x: [u64; 8]) -> Answer {
        let [x0, x1, x2, x3, ..] = x;
        let id = x0 as u32;
        let wide = id & function::WIDE != 0;
        let narrow = |v: u64| if wide { v } else { v & 0xffff_ffff };
        let answer = |value: u64| Answer::Return([value, x1, x2, x3]);
        // Those with addresses or affinities have two forms.
        let has_two = [
            function::CPU_SUSPEND,
            function::CPU_ON,
            function::AFFINITY_INFO,
        ];
        let plain = id & !function::WIDE;
        if wide && !has_two.contains(&plain) {
            return answer(NOT_SUPPORTED);
        }
        match plain {
            function::VERSION => answer(VERSION_1_1),
            // All states are standby states here: the CPU keeps what it has.
            function::CPU_SUSPEND => Answer::Suspend,
            function::CPU_OFF => {
                if let Some(cpu) = self.cpus().get_mut(index) {
                    cpu.power = Power::Off;
                }
                Answer::Off
            }
            function::CPU_ON => {
                let start = Start {
                    entry: narrow(x2),
                    context: narrow(x3),
                };
                answer(self.turn_on(narrow(x1), start))
            }
            function::AFFINITY_INFO if narrow(x2) != 0 => answer(INVALID_PARAMETERS),
            function::AFFINITY_INFO => answer(self.affinity_info(narrow(x1))),
            function::MIGRATE_INFO_TYPE => answer(NOT_PRESENT),
            function::SYSTEM_OFF => {
                self.requests.post(Request::PowerOff);
                Answer::Off
            }
            function::SYSTEM_RESET => {
                self.requests.post(Request::Reset);
                Answer::Off
            }
            function::FEATURES => answer(features(x1 as u32)),
            _ => answer(NOT_SUPPORTED),
        }
    }

    fn turn_on(&self, affinity: u64, start: Start) -> u64 {
        let mut cpus = self.cpus();
        let Some(cpu) = cpus.iter_mut().find(|cpu| cpu.affinity == affinity) else {
            return INVALID_PARAMETERS;
        };
        match cpu.power {
            Power::On => ALREADY_ON,
            Power::Coming(_) => ON_PENDING,
            Power::Off => {
                cpu.power = Power::Coming(start);
                if let Some(pending) = cpu.pending.get() {
                    pending.raise(reason::SIPI);
                }
                SUCCESS
            }
        }
    }

    fn affinity_info(&self, affinity: u64) -> u64 {
        let cpus = self.cpus();
        let cpu = cpus.iter().find(|cpu| cpu.affinity == affinity);
        cpu.map_or(INVALID_PARAMETERS, |cpu| number(cpu.power))
    }
}

fn number(power: Power) -> u64 {
    match power {
        Power::On => 0,
        Power::Off => 1,
        Power::Coming(_) => 2,
    }
}

fn features(id: u32) -> u64 {
    match id & !function::WIDE {
        function::VERSION
        | function::CPU_SUSPEND
        | function::CPU_OFF
        | function::CPU_ON
        | function::AFFINITY_INFO
        | function::MIGRATE_INFO_TYPE
        | function::SYSTEM_OFF
        | function::SYSTEM_RESET
        | function::FEATURES => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}

/// What resets and saves the power of the CPUs.
pub(crate) struct PsciDevice(pub(crate) Arc<Psci>);

impl Device for PsciDevice {
    fn realize(&mut self, _: &mut dyn Wiring) -> Result<(), DeviceError> {
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        for (n, cpu) in self.0.cpus().iter_mut().enumerate() {
            cpu.power = power_on(n);
        }
    }

    fn save(&self) -> Section {
        let cpus = self.0.cpus();
        let each = cpus.iter().map(|cpu| {
            let section = Section::new("cpu", 1).with(1, number(cpu.power));
            match cpu.power {
                Power::Coming(start) => section.with(2, start.entry).with(3, start.context),
                Power::On | Power::Off => section,
            }
        });
        Section::new("psci", 1).with(1, each.collect::<Value>())
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("psci", 1)?;
        let list = section.list(1)?;
        let mut cpus = self.0.cpus();
        if list.len() != cpus.len() {
            return Err(section.bad(1, "another number of CPUs"));
        }
        let powers = list.iter().map(|value| {
            let Value::Section(s) = value else {
                return Err(section.bad(1, "not sections"));
            };
            Ok(match s.u64(1)? {
                0 => Power::On,
                1 => Power::Off,
                2 => Power::Coming(Start {
                    entry: s.u64(2)?,
                    context: s.u64(3)?,
                }),
                _ => return Err(s.bad(1, "no power state")),
            })
        });
        let powers = powers.collect::<Result<Vec<_>, _>>()?;
        for (cpu, power) in cpus.iter_mut().zip(powers) {
            cpu.power = power;
            if let (Power::Coming(_), Some(pending)) = (power, cpu.pending.get()) {
                pending.raise(reason::SIPI);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(psci: &Psci, cpu: usize, args: [u64; 4]) -> u64 {
        let [a, b, c, d] = args;
        match psci.call(cpu, [a, b, c, d, 0, 0, 0, 0]) {
            Answer::Return([x0, ..]) => x0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cpu_is_turned_on_once_and_off_again() {
        let psci = Psci::new(&[0, 1, 0x100], Requests::default());
        let pending = Arc::<Pending>::default();
        psci.connect(2, pending.clone());
        assert_eq!(call(&psci, 0, [0xc400_0004, 0x100, 0, 0]), 1);
        assert_eq!(call(&psci, 0, [0xc400_0003, 0x100, 0x4020_0000, 7]), 0);
        assert_eq!(pending.get(), reason::SIPI);
        assert_eq!(call(&psci, 0, [0xc400_0003, 0x100, 1, 1]), ON_PENDING);
        assert_eq!(call(&psci, 0, [0xc400_0004, 0x100, 0, 0]), 2);
        let start = psci.take_start(2).unwrap();
        assert_eq!((start.entry, start.context), (0x4020_0000, 7));
        assert_eq!(psci.take_start(2), None);
        assert_eq!(call(&psci, 0, [0xc400_0003, 0x100, 1, 1]), ALREADY_ON);
        assert_eq!(
            psci.call(2, [0x8400_0002, 0, 0, 0, 0, 0, 0, 0]),
            Answer::Off
        );
        assert_eq!(call(&psci, 0, [0xc400_0004, 0x100, 0, 0]), 1);
        assert_eq!(call(&psci, 0, [0xc400_0003, 9, 1, 1]), INVALID_PARAMETERS);
    }

    #[test]
    fn the_machine_goes_off_or_begins_anew() {
        let requests = Requests::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        requests.connect(move |r| log.lock().unwrap().push(r));
        let psci = Psci::new(&[0], requests);
        assert_eq!(
            psci.call(0, [0x8400_0008, 0, 0, 0, 0, 0, 0, 0]),
            Answer::Off
        );
        assert_eq!(
            psci.call(0, [0x8400_0009, 0, 0, 0, 0, 0, 0, 0]),
            Answer::Off
        );
        assert_eq!(*seen.lock().unwrap(), [Request::PowerOff, Request::Reset]);
    }

    #[test]
    fn what_is_not_there_is_not_supported() {
        let psci = Psci::new(&[0], Requests::default());
        assert_eq!(call(&psci, 0, [0x8400_0000, 0, 0, 0]), 0x1_0001);
        assert_eq!(call(&psci, 0, [0xc400_0000, 0, 0, 0]), NOT_SUPPORTED);
        assert_eq!(call(&psci, 0, [0x8000_0000, 0, 0, 0]), NOT_SUPPORTED);
        assert_eq!(call(&psci, 0, [0x8400_000a, 0xc400_0003, 0, 0]), 0);
        assert_eq!(
            call(&psci, 0, [0x8400_000a, 0x8000_0000, 0, 0]),
            NOT_SUPPORTED
        );
    }

    #[test]
    fn power_is_saved() {
        let psci = Psci::new(&[0, 1], Requests::default());
        call(&psci, 0, [0xc400_0003, 1, 0x1000, 2]);
        let saved = PsciDevice(psci).save();
        let other = Psci::new(&[0, 1], Requests::default());
        let mut device = PsciDevice(other.clone());
        device.restore(&saved).unwrap();
        assert_eq!(device.save(), saved);
        assert_eq!(other.take_start(1).unwrap().entry, 0x1000);
        let one = Psci::new(&[0], Requests::default());
        assert!(PsciDevice(one).restore(&saved).is_err());
    }
}
