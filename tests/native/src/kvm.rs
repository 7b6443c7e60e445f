//! Runs instructions on the host's processor in any mode, through KVM: the oracle for real mode,
//! 16- and 32-bit code and what only the kernel may do.

use std::io;
use std::ptr;

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

/// A segment register with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Linear base.
    pub base: u64,
    /// Limit in bytes, inclusive.
    pub limit: u32,
    /// Bits 8 to 15 (type, S, DPL, P) and 20 to 23 (AVL, L, D/B, G) of the descriptor's second
    /// doubleword, at bits 0 and 12.
    pub attributes: u16,
}

/// A table register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableRegister {
    /// Linear base.
    pub base: u64,
    /// Limit in bytes, inclusive.
    pub limit: u16,
}

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
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
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
        self.vcpu.set_regs(&regs_of(state))?;
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
        read_regs(&self.vcpu.get_regs()?, state);
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

fn segment_to(s: &Segment) -> kvm_segment {
    let bit = |n: u32| (s.attributes >> n & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: s.attributes as u8 & 15,
        s: bit(4),
        dpl: (s.attributes >> 5) as u8 & 3,
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: 1 - bit(7),
        padding: 0,
    }
}

fn segment_from(s: &kvm_segment) -> Segment {
    let attributes = u16::from(s.type_)
        | u16::from(s.s) << 4
        | u16::from(s.dpl) << 5
        | u16::from(s.present) << 7
        | u16::from(s.avl) << 12
        | u16::from(s.l) << 13
        | u16::from(s.db) << 14
        | u16::from(s.g) << 15;
    Segment {
        selector: s.selector,
        base: s.base,
        limit: s.limit,
        attributes,
    }
}

fn write_sregs(state: &SystemState, to: &mut kvm_sregs) {
    let [es, cs, ss, ds, fs, gs] = &state.segments;
    (to.es, to.cs, to.ss) = (segment_to(es), segment_to(cs), segment_to(ss));
    (to.ds, to.fs, to.gs) = (segment_to(ds), segment_to(fs), segment_to(gs));
    (to.tr, to.ldt) = (segment_to(&state.tr), segment_to(&state.ldtr));
    let table = |t: TableRegister| kvm_dtable {
        base: t.base,
        limit: t.limit,
        padding: [0; 3],
    };
    (to.gdt, to.idt) = (table(state.gdtr), table(state.idtr));
    (to.cr0, to.cr2, to.cr3) = (state.cr0, state.cr2, state.cr3);
    (to.cr4, to.efer) = (state.cr4, state.efer);
    to.interrupt_bitmap = [0; 4];
}

fn read_sregs(from: &kvm_sregs, state: &mut SystemState) {
    let all = [&from.es, &from.cs, &from.ss, &from.ds, &from.fs, &from.gs];
    state.segments = all.map(segment_from);
    (state.tr, state.ldtr) = (segment_from(&from.tr), segment_from(&from.ldt));
    let table = |t: &kvm_dtable| TableRegister {
        base: t.base,
        limit: t.limit,
    };
    (state.gdtr, state.idtr) = (table(&from.gdt), table(&from.idt));
    (state.cr0, state.cr2, state.cr3) = (from.cr0, from.cr2, from.cr3);
    (state.cr4, state.efer) = (from.cr4, from.efer);
}

fn regs_of(state: &SystemState) -> kvm_regs {
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = state.gpr;
    kvm_regs {
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: state.rip,
        rflags: state.rflags,
    }
}

fn read_regs(r: &kvm_regs, state: &mut SystemState) {
    state.gpr = [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15,
    ];
    state.rip = r.rip;
    state.rflags = r.rflags;
}
