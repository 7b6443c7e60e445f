//! One CPU of the host as a vCPU.

use std::sync::{Arc, Mutex};

use accel_core::{Pending, Vcpu, VcpuError, VcpuExit};
use hw_clock::Clock;
use hw_core::{Requests, Section};
use hw_memory::MemoryMap;
use target_x86::system::cpuid::View;
use target_x86::system::{self, CpuModel, CpuState, Topology, feature};
use target_x86::{Core, NoPort, Port};

use super::entry::RealEntry;
use super::run::{Board, PcLoop};
use super::state::{Full, Transfer};
use super::{Chips, Mode, Vm, msrs};
use crate::bus::Bus;
use crate::kernel::door::Door;
use crate::kernel::kick::Kick;
use crate::run::Loop;

/// `_IOW(KVMIO, 0x9c, u64)`.
const KVM_X86_SETUP_MCE: libc::c_ulong = 0x4008_ae9c;
/// `_IOR(KVMIO, 0x9d, u64)`.
const KVM_X86_GET_MCE_CAP_SUPPORTED: libc::c_ulong = 0x8008_ae9d;
/// IA32_MCG_CAP: IA32_MCG_CTL exists.
const MCG_CTL_P: u64 = 1 << 8;

/// What one vCPU is made of.
pub struct Parts {
    /// Its number; 0 is the bootstrap processor.
    pub index: u32,
    /// Its APIC id.
    pub apic_id: u32,
    /// What CPUID shows.
    pub model: Arc<CpuModel>,
    /// How the machine's CPUs are arranged.
    pub topology: Topology,
    /// Whether KVM's own CPUID leaves are shown.
    pub paravirtual: bool,
    /// Ports and local APIC.
    pub port: Box<dyn Port>,
    /// The machine's memory.
    pub memory: MemoryMap,
    /// Time.
    pub clock: Clock,
    /// The board's interrupt controllers.
    pub chips: Arc<dyn Chips>,
    /// Where the guest's wishes go.
    pub requests: Requests,
}

/// A vCPU.
pub struct KvmVcpu {
    run: PcLoop<RealEntry>,
    memory: MemoryMap,
    clock: Clock,
    model: Arc<CpuModel>,
    topology: Topology,
}

impl KvmVcpu {
    /// A vCPU after power-on.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(vm: &Arc<Vm>, parts: Parts) -> Result<Self, String> {
        let Parts {
            index,
            apic_id,
            model,
            topology,
            paravirtual,
            port,
            memory,
            clock,
            chips,
            requests,
        } = parts;
        let refused = |what: &str, error: kvm_ioctls::Error| {
            format!("CPU {index}: KVM refused {what}: {error}")
        };
        let fd = vm
            .fd
            .create_vcpu(apic_id.into())
            .map_err(|e| refused("KVM_CREATE_VCPU", e))?;
        let view = View {
            model: &model,
            topology,
            apic_id,
            // KVM hides a disabled APIC by itself.
            apic_enabled: true,
            osxsave: false,
            xcr0: 1,
        };
        let table = vm.host.table(&view, paravirtual)?;
        fd.set_cpuid2(&table)
            .map_err(|e| refused("KVM_SET_CPUID2", e))?;
        if model.has(feature::MCA) {
            setup_mce(vm, &fd);
        }
        let core = engine_core(index, &model, topology, &memory, &clock, true);
        let initial = CpuState::of(&core);
        let common = initial.msrs.iter().map(|(n, _)| *n);
        let candidates = msrs::candidates(&vm.host.kvm, common);
        let readable = msrs::read(&fd, &candidates);
        let transfer = Transfer {
            index,
            vm: vm.clone(),
            memory: memory.clone(),
            clock: clock.clone(),
            tsc_hz: model.tsc_hz,
            chips: chips.clone(),
            msrs: readable.iter().map(|(n, _)| *n).collect(),
            refused: Arc::new(Mutex::new(Vec::new())),
        };
        let kick = Arc::new(Kick::new());
        let pending = Arc::new(Pending::default());
        let kicked = kick.clone();
        pending.set_kick(move || kicked.kick());
        let entry = RealEntry {
            run_size: vm.fd.run_size(),
            door: Door { fd, kick },
            transfer,
        };
        let bus = Bus {
            index,
            snapshot: memory.snapshot(),
            memory: memory.clone(),
            requests,
            // What nobody answers reads as ones.
            void: 0xff,
        };
        let board = Board { port, chips };
        let mut vcpu = KvmVcpu {
            run: PcLoop::new(entry, bus, board, vm.mode(), pending, initial),
            memory,
            clock,
            model,
            topology,
        };
        vcpu.power_on().map_err(|e| format!("CPU {index}: {e}"))?;
        Ok(vcpu)
    }

    /// To the state after power-on.
    fn power_on(&mut self) -> Result<(), VcpuError> {
        let now = self.clock.ticks(self.model.tsc_hz);
        let cpu = CpuState {
            // The TSC starts at zero.
            tsc_offset: now.wrapping_neg(),
            ..self.run.initial.clone()
        };
        self.put(&Full {
            cpu,
            ..Full::default()
        })
    }

    fn put(&mut self, full: &Full) -> Result<(), VcpuError> {
        let entry = &self.run.parts.entry;
        entry.transfer.write(&entry.door.fd, full)?;
        self.run.replaced(&full.cpu);
        Ok(())
    }

    fn get(&mut self) -> Result<Full, VcpuError> {
        if let Err(exit) = self.run.finish() {
            log::warn!("an instruction could not be completed: {exit:?}");
        }
        let entry = &self.run.parts.entry;
        let mut full = entry.transfer.read(&entry.door.fd)?;
        if self.run.mode == Mode::User {
            let pending = self.run.parts.pending.get();
            let c = &mut full.cpu;
            c.halted = self.run.halted;
            c.wait_for_sipi = self.run.wait_for_sipi;
            c.init_pending = pending & accel_core::reason::INIT != 0;
            c.sipi_pending = pending & accel_core::reason::SIPI != 0;
        }
        full.cpu.nmi_pending |= self.run.parts.pending.get() & accel_core::reason::NMI != 0;
        Ok(full)
    }

    /// An engine's CPU in this one's state: what knows how to walk page tables.
    fn engine(&mut self) -> Option<Core> {
        let full = self.get().ok()?;
        let a20 = self.run.board.port.a20();
        let index = self.run.parts.bus.index;
        let (model, topology) = (&self.model, self.topology);
        let mut core = engine_core(index, model, topology, &self.memory, &self.clock, a20);
        full.cpu.apply(&mut core);
        Some(core)
    }
}

fn engine_core(
    index: u32,
    model: &Arc<CpuModel>,
    topology: Topology,
    memory: &MemoryMap,
    clock: &Clock,
    a20: bool,
) -> Core {
    let port = Box::new(NoPort { a20 });
    system::new_core(
        index,
        model.clone(),
        topology,
        port,
        memory.clone(),
        clock.clone(),
    )
}

/// Machine-check banks as the engine's CPUs have them, as far as the host goes along.
fn setup_mce(vm: &Vm, fd: &kvm_ioctls::VcpuFd) {
    use std::os::fd::AsRawFd;
    let mut supported = 0u64;
    // SAFETY: the descriptor is KVM's and the argument a live u64.
    let asked = unsafe {
        libc::ioctl(
            vm.host.kvm.as_raw_fd(),
            KVM_X86_GET_MCE_CAP_SUPPORTED,
            &mut supported,
        )
    };
    if asked < 0 {
        return;
    }
    let banks = (system::msr::MC_BANKS as u64).min(supported & 0xff);
    let cap = banks | supported & MCG_CTL_P;
    // SAFETY: as above, of a vCPU.
    if unsafe { libc::ioctl(fd.as_raw_fd(), KVM_X86_SETUP_MCE, &cap) } < 0 {
        log::info!("the host's KVM refuses machine-check banks");
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
        let keep = accel_core::reason::STOP | accel_core::reason::FLUSH;
        self.run.parts.pending.clear(!keep);
        if let Err(error) = self.power_on() {
            log::error!("CPU {}: reset: {error}", self.run.parts.bus.index);
        }
    }

    fn save(&mut self) -> Result<Section, VcpuError> {
        Ok(self.get()?.save())
    }

    fn restore(&mut self, section: &Section) -> Result<(), VcpuError> {
        let full = Full::load(section)?;
        let pending = &self.run.parts.pending;
        pending.clear(!(accel_core::reason::STOP | accel_core::reason::FLUSH));
        if self.run.mode == Mode::User {
            for (bit, set) in [
                (accel_core::reason::INIT, full.cpu.init_pending),
                (accel_core::reason::SIPI, full.cpu.sipi_pending),
            ] {
                if set {
                    pending.raise(bit);
                }
            }
        }
        self.put(&full)
    }

    fn registers(&mut self) -> Vec<(String, u128)> {
        self.get().map(|f| f.cpu.registers()).unwrap_or_default()
    }

    fn describe(&mut self) -> String {
        let a20 = self.run.board.port.a20();
        match self.get() {
            Ok(full) => full.cpu.describe(a20),
            Err(error) => format!("{error}\n"),
        }
    }

    fn debug_translate(&mut self, va: u64) -> Option<u64> {
        system::debug_translate(&self.engine()?, va)
    }

    fn is_halted(&self) -> bool {
        if self.run.mode == Mode::User {
            return self.run.halted || self.run.wait_for_sipi;
        }
        let state = self.run.parts.entry.door.fd.get_mp_state();
        state.is_ok_and(|s| s.mp_state != kvm_bindings::KVM_MP_STATE_RUNNABLE)
    }

    fn report(&mut self, topic: &str) -> Option<String> {
        match topic {
            "tlb" => Some(system::info_tlb(&self.engine()?)),
            "mem" => Some(system::info_mem(&self.engine()?)),
            _ => None,
        }
    }
}
