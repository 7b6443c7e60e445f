//! Runs instructions on the host's processor in any mode, through KVM: the oracle for real mode,
//! 16- and 32-bit code and what only the kernel may do.

use std::io;
use std::ptr;

use accel_kvm::x86::registers::{
    general_of, general_to, segment_of, segment_to, table_of, table_to,
};
use kvm_bindings::{kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use target_x86::{Segment, Table};

/// The state of a CPU in any mode.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SystemState {
    /// General registers in encoding order.
    pub gpr: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// TR.
    pub tr: Segment,
    /// LDTR.
    pub ldtr: Segment,
    /// GDTR.
    pub gdtr: Table,
    /// IDTR.
    pub idtr: Table,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// At a HLT; RIP is after it.
    Halted,
    /// By a triple fault.
    Shutdown,
    /// Otherwise: by an access outside memory, a port, or not at all in time.
    Other,
}

/// Longest run.
const LIMIT_MS: i64 = 20;

/// The signal that ends a run which does not end by itself.
const SIGNAL: i32 = libc::SIGALRM;

extern "C" fn interrupted(_: i32) {}

/// Sends [`SIGNAL`] to the thread that made it, once a deadline is over.
struct Watchdog(libc::timer_t);

impl Watchdog {
    fn new() -> io::Result<Self> {
        // SAFETY: all-zero is a valid value of these plain C structures.
        let (mut action, mut event): (libc::sigaction, libc::sigevent) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        action.sa_sigaction = interrupted as extern "C" fn(i32) as usize;
        // SAFETY: the handler does nothing, which is always safe in a signal.
        if unsafe { libc::sigaction(SIGNAL, &action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        // SAFETY: has no preconditions.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: both pointers are to live values of the right types.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Watchdog(timer))
    }

    fn arm(&self, ms: i64) {
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: 0,
                tv_nsec: ms * 1_000_000,
            },
        };
        // SAFETY: the timer lives as long as `self`.
        unsafe { libc::timer_settime(self.0, 0, &spec, ptr::null_mut()) };
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: made by `new`, deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// One CPU and its memory, from physical address 0 on. For the thread that made it only.
pub struct KvmCpu {
    watchdog: Watchdog,
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: *mut u8,
    len: usize,
}

impl KvmCpu {
    /// A CPU with `len` bytes of memory. Fails where there is no `/dev/kvm`.
    pub fn new(len: usize) -> io::Result<Self> {
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        // Intel hosts need room for a task state segment.
        vm.set_tss_address(0xfffb_d000)?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: len as u64,
            userspace_addr: memory as u64,
        };
        // SAFETY: the mapping is `len` bytes long and outlives the VM, which `self` owns.
        unsafe { vm.set_user_memory_region(region)? };
        let vcpu = vm.create_vcpu(0)?;
        let supported = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)?;
        vcpu.set_cpuid2(&supported)?;
        Ok(KvmCpu {
            watchdog: Watchdog::new()?,
            vcpu,
            _vm: vm,
            memory: memory.cast(),
            len,
        })
    }

    /// All of memory.
    pub fn memory(&mut self) -> &mut [u8] {
        // SAFETY: a live mapping of `len` bytes that only `self` names; the guest writes to it only
        // inside `run`, which holds `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory, self.len) }
    }

    /// Runs from `state` until something ends it.
    pub fn run(&mut self, state: &mut SystemState) -> io::Result<Stop> {
        let mut sregs = self.vcpu.get_sregs()?;
        write_sregs(state, &mut sregs);
        self.vcpu.set_sregs(&sregs)?;
        let regs = general_to(&state.gpr, state.rip, state.rflags);
        self.vcpu.set_regs(&regs)?;
        // What the last run left behind: shadows, pending exceptions, halts.
        self.vcpu.set_vcpu_events(&Default::default())?;
        self.watchdog.arm(LIMIT_MS);
        let exit = self.vcpu.run();
        let stop = match exit {
            Ok(VcpuExit::Hlt) => Stop::Halted,
            Ok(VcpuExit::Shutdown) => Stop::Shutdown,
            Ok(_) => Stop::Other,
            Err(e) if e.errno() == libc::EINTR => Stop::Other,
            Err(e) => return Err(e.into()),
        };
        self.watchdog.arm(0);
        let regs = self.vcpu.get_regs()?;
        state.gpr = general_of(&regs);
        (state.rip, state.rflags) = (regs.rip, regs.rflags);
        read_sregs(&self.vcpu.get_sregs()?, state);
        Ok(stop)
    }
}

impl Drop for KvmCpu {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, unmapped once; the VM that uses it runs no more.
        unsafe { libc::munmap(self.memory.cast(), self.len) };
    }
}

fn write_sregs(state: &SystemState, to: &mut kvm_sregs) {
    let [es, cs, ss, ds, fs, gs] = &state.segments;
    (to.es, to.cs, to.ss) = (segment_to(es), segment_to(cs), segment_to(ss));
    (to.ds, to.fs, to.gs) = (segment_to(ds), segment_to(fs), segment_to(gs));
    (to.tr, to.ldt) = (segment_to(&state.tr), segment_to(&state.ldtr));
    (to.gdt, to.idt) = (table_to(&state.gdtr), table_to(&state.idtr));
    (to.cr0, to.cr2, to.cr3) = (state.cr0, state.cr2, state.cr3);
    (to.cr4, to.efer) = (state.cr4, state.efer);
    to.interrupt_bitmap = [0; 4];
}

fn read_sregs(from: &kvm_sregs, state: &mut SystemState) {
    let all = [&from.es, &from.cs, &from.ss, &from.ds, &from.fs, &from.gs];
    state.segments = all.map(segment_of);
    (state.tr, state.ldtr) = (segment_of(&from.tr), segment_of(&from.ldt));
    (state.gdtr, state.idtr) = (table_of(&from.gdt), table_of(&from.idt));
    (state.cr0, state.cr2, state.cr3) = (from.cr0, from.cr2, from.cr3);
    (state.cr4, state.efer) = (from.cr4, from.efer);
}
