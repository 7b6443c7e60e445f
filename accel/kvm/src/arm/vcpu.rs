//! One CPU of the host as a vCPU.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use accel_core::{Guest, Pending, Vcpu, VcpuError, VcpuExit};
use hw_clock::Clock;
use hw_core::{Requests, Section};
use hw_memory::MemoryMap;
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use target_arm::{Arm, Core, CpuModel, CpuState, NoPort, Setup, SysReg, new_core};

use super::entry::RealEntry;
use super::registers::{self, Registers};
use super::run::ArmLoop;
use super::state::Full;
use super::{Models, Vm};
use crate::bus::Bus;
use crate::kernel::door::Door;
use crate::kernel::kick::Kick;
use crate::run::{Loop, Parts as LoopParts};

/// `_IOWR(KVMIO, 0xb0, struct kvm_reg_list)`.
const KVM_GET_REG_LIST: libc::c_ulong = 0xc008_aeb0;
/// Registers that the first call makes room for.
const ROOM: u64 = 1024;
const CNTVOFF_EL2: SysReg = SysReg::new(3, 4, 14, 0, 3);

/// What one vCPU is made of.
pub struct Parts {
    /// Its number; 0 is the first one that runs.
    pub index: u32,
    /// Where it begins.
    pub setup: Setup,
    /// Private interrupt of the performance monitors, by INTID.
    pub pmu_interrupt: u32,
    /// The machine's memory.
    pub memory: MemoryMap,
    /// Time.
    pub clock: Clock,
    /// The board's models of what the kernel has.
    pub models: Arc<dyn Models>,
    /// Where the guest's wishes go.
    pub requests: Requests,
}

/// A vCPU.
pub struct KvmVcpu {
    run: ArmLoop<RealEntry>,
    vm: Arc<Vm>,
    /// Registers that the kernel has of it.
    list: Vec<u64>,
    init: kvm_vcpu_init,
    pmu_interrupt: u32,
    /// The performance monitors are set up.
    has_pmu: bool,
    models: Arc<dyn Models>,
    clock: Clock,
    model: Arc<CpuModel>,
    /// An engine's CPU: what knows states after power-on, and how to walk page tables.
    engine: Core,
    /// Refused registers were told.
    told: bool,
}

/// Registers through a descriptor.
pub(crate) struct Numbered<'a>(pub(crate) &'a VcpuFd);

impl Registers for Numbered<'_> {
    fn get(&self, id: u64) -> io::Result<u128> {
        let mut bytes = [0; 16];
        let len = registers::size_of(id);
        let Some(part) = bytes.get_mut(..len) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.0.get_one_reg(id, part)?;
        Ok(u128::from_le_bytes(bytes))
    }

    fn set(&self, id: u64, value: u128) -> io::Result<()> {
        let bytes = value.to_le_bytes();
        let Some(part) = bytes.get(..registers::size_of(id)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let done = self.0.set_one_reg(id, part);
        done.map_err(|error| io::Error::other(format!("register {id:#x}: {error}")))?;
        Ok(())
    }
}

/// The numbers of all registers.
fn register_list(fd: &VcpuFd) -> io::Result<Vec<u64>> {
    let mut room = ROOM;
    loop {
        let mut list = vec![0u64; room as usize + 1];
        if let Some(count) = list.first_mut() {
            *count = room;
        }
        // SAFETY: the descriptor is a vCPU's; the kernel writes the count and at most as many numbers as
        // the count says there is room for.
        let asked = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_GET_REG_LIST, list.as_mut_ptr()) };
        let count = list.first().copied().unwrap_or(0);
        if asked == 0 {
            list.truncate(count as usize + 1);
            list.remove(0);
            return Ok(list);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::E2BIG) || count <= room {
            return Err(error);
        }
        room = count;
    }
}

fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> VcpuError {
    move |error| VcpuError::Host {
        what: format!("KVM refused {what}"),
        source: error.into(),
    }
}

/// An error with its cause.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl KvmVcpu {
    /// A vCPU, which has no state before its first reset.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(vm: &Arc<Vm>, parts: Parts) -> Result<Self, String> {
        let Parts {
            index,
            setup,
            pmu_interrupt,
            memory,
            clock,
            models,
            requests,
        } = parts;
        let refused =
            |what: &str, error: io::Error| format!("CPU {index}: KVM refused {what}: {error}");
        let fd = vm
            .fd
            .create_vcpu(index.into())
            .map_err(|e| refused("KVM_CREATE_VCPU", e.into()))?;
        let mut init = vm.host.init;
        init.features[0] |= u32::from(setup.powered_off) << KVM_ARM_VCPU_POWER_OFF;
        fd.vcpu_init(&init)
            .map_err(|e| refused("KVM_ARM_VCPU_INIT", e.into()))?;
        let list = register_list(&fd).map_err(|e| refused("KVM_GET_REG_LIST", e))?;
        let model = Arc::new(vm.host.model().clone());
        let engine = new_core(
            index,
            model.clone(),
            setup,
            Box::new(NoPort),
            memory.clone(),
            clock.clone(),
        );
        let kick = Arc::new(Kick::new());
        let pending = Arc::new(Pending::default());
        let kicked = kick.clone();
        pending.set_kick(move || kicked.kick());
        let bus = Bus {
            index,
            snapshot: memory.snapshot(),
            memory,
            requests,
            // What nobody answers reads as zeros.
            void: 0,
        };
        let entry = RealEntry(Door { fd, kick });
        Ok(KvmVcpu {
            run: ArmLoop {
                parts: LoopParts::new(entry, bus, pending),
            },
            vm: vm.clone(),
            list,
            init,
            pmu_interrupt,
            has_pmu: false,
            models,
            clock,
            model,
            engine,
            told: false,
        })
    }

    fn fd(&self) -> &VcpuFd {
        &self.run.parts.entry.0.fd
    }

    fn index(&self) -> u32 {
        self.run.parts.bus.index
    }

    fn power_on(&mut self) -> Result<(), VcpuError> {
        let fd = self.fd();
        fd.vcpu_init(&self.init)
            .map_err(host("KVM_ARM_VCPU_INIT"))?;
        self.set_up_pmu()?;
        Arm::reset(&mut self.engine);
        let state = CpuState::of(&self.engine);
        // System registers are as the kernel begins.
        let cpu = CpuState {
            system: vec![(CNTVOFF_EL2, 0)],
            ..state
        };
        self.put(&Full {
            cpu,
            own: Vec::new(),
        })
    }

    /// Gives the performance monitors their interrupt, once the interrupt controller is there.
    fn set_up_pmu(&mut self) -> Result<(), VcpuError> {
        if self.has_pmu || !self.vm.host.has_pmu() {
            return Ok(());
        }
        let interrupt = self.pmu_interrupt;
        for (attr, addr) in [
            (KVM_ARM_VCPU_PMU_V3_IRQ, &raw const interrupt as u64),
            (KVM_ARM_VCPU_PMU_V3_INIT, 0),
        ] {
            let attribute = kvm_device_attr {
                group: KVM_ARM_VCPU_PMU_V3_CTRL,
                attr: attr.into(),
                addr,
                flags: 0,
            };
            self.fd()
                .set_device_attr(&attribute)
                .map_err(host("performance monitors"))?;
        }
        self.has_pmu = true;
        Ok(())
    }

    fn ticks(&self) -> u64 {
        self.clock.ticks(self.model.counter_hz())
    }

    /// Reads the state; the models of what the kernel has follow. With `tables`, what the kernel keeps of
    /// messages goes to guest memory.
    fn get(&mut self, tables: bool) -> Result<Full, VcpuError> {
        if let Err(exit) = self.run.finish() {
            log::warn!("an instruction could not be completed: {exit:?}");
        }
        let index = self.index();
        let vcpu = Numbered(self.fd());
        let mut full = registers::read(&vcpu, &self.list).map_err(host("its registers"))?;
        let get = |id| vcpu.get(id).map(|value| value as u64);
        let count = get(registers::TIMER_CNT).map_err(host("its counter"))?;
        let offset = self.ticks().wrapping_sub(count);
        full.cpu.system.push((CNTVOFF_EL2, offset));
        full.cpu.model = self.model.name.to_owned();
        for (timer, [control, compare]) in registers::TIMERS {
            // Older kernels keep the physical one to themselves.
            if let (Ok(control), Ok(compare)) = (get(control), get(compare)) {
                self.models.set_timer(index, timer, control, compare);
            }
        }
        let power = self.fd().get_mp_state().map_err(host("KVM_GET_MP_STATE"))?;
        full.cpu.powered_off = power.mp_state == KVM_MP_STATE_STOPPED;
        self.models.set_power(index, !full.cpu.powered_off);
        if index == 0 {
            self.vm
                .read_gic(self.models.as_ref(), tables)
                .map_err(host("the state of its GIC"))?;
        }
        Ok(full)
    }

    /// Replaces the state; what else the kernel has follows the models.
    fn put(&mut self, full: &Full) -> Result<(), VcpuError> {
        let index = self.index();
        if index == 0 {
            self.vm
                .write_gic(self.models.as_ref())
                .map_err(host("the state of its GIC"))?;
        }
        let vcpu = Numbered(self.fd());
        let refused = registers::write(&vcpu, &self.list, full).map_err(host("its registers"))?;
        let offset = full.cpu.system.iter().find(|(reg, _)| *reg == CNTVOFF_EL2);
        // The kernel has one counter for all CPUs.
        if let (0, Some((_, offset))) = (index, offset) {
            let count = self.ticks().wrapping_sub(*offset);
            vcpu.set(registers::TIMER_CNT, count.into())
                .map_err(host("its counter"))?;
        }
        for (timer, [control, compare]) in registers::TIMERS {
            let (new_control, new_compare) = self.models.timer(index, timer);
            // As above: what cannot be read is not set either.
            if vcpu.get(compare).is_ok() {
                vcpu.set(compare, new_compare.into())
                    .and_then(|()| vcpu.set(control, new_control.into()))
                    .map_err(host("its timers"))?;
            }
        }
        let mp_state = match full.cpu.powered_off {
            true => KVM_MP_STATE_STOPPED,
            false => KVM_MP_STATE_RUNNABLE,
        };
        self.fd()
            .set_mp_state(kvm_mp_state { mp_state })
            .map_err(host("KVM_SET_MP_STATE"))?;
        self.run.parts.open = false;
        if !refused.is_empty() && !std::mem::replace(&mut self.told, true) {
            let names: Vec<String> = refused.iter().map(|id| format!("{id:#x}")).collect();
            log::info!(
                "CPU {index}: the host's KVM does not take these registers: {}",
                names.join(" ")
            );
        }
        Ok(())
    }

    /// The engine's CPU in this one's state.
    fn engine(&mut self) -> Result<&mut Core, VcpuError> {
        let full = self.get(false)?;
        full.cpu.apply(&mut self.engine);
        Ok(&mut self.engine)
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self) -> VcpuExit {
        self.run.step()
    }

    fn pending(&self) -> Arc<Pending> {
        self.run.parts.pending.clone()
    }

    fn reset(&mut self) {
        let pending = &self.run.parts.pending;
        pending.clear(!(accel_core::reason::STOP | accel_core::reason::FLUSH));
        if let Err(error) = self.power_on() {
            log::error!("CPU {}: reset: {}", self.index(), chain(&error));
        }
    }

    fn save(&mut self) -> Result<Section, VcpuError> {
        Ok(self.get(true)?.save())
    }

    fn restore(&mut self, section: &Section) -> Result<(), VcpuError> {
        let full = Full::load(section, &self.model)?;
        let pending = &self.run.parts.pending;
        pending.clear(!(accel_core::reason::STOP | accel_core::reason::FLUSH));
        self.put(&full)
    }

    fn registers(&mut self) -> Vec<(String, u128)> {
        self.engine().map(Arm::registers).unwrap_or_default()
    }

    fn describe(&mut self) -> String {
        match self.engine() {
            Ok(core) => Arm::describe(core),
            Err(error) => format!("{error}\n"),
        }
    }

    fn debug_translate(&mut self, va: u64) -> Option<u64> {
        Arm::debug_translate(self.engine().ok()?, va)
    }

    fn is_halted(&self) -> bool {
        let state = self.fd().get_mp_state();
        state.is_ok_and(|state| state.mp_state == KVM_MP_STATE_STOPPED)
    }

    fn report(&mut self, topic: &str) -> Option<String> {
        Arm::report(self.engine().ok()?, topic)
    }
}
