//! Entering guest code through a vCPU's file descriptor.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use accel_core::Pending;
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use target_x86::system::CpuState;

use crate::exit::{Entry, Exit, Flags};
use crate::kick::Kick;
use crate::reason;

/// `_IOW(KVMIO, 0x86, struct kvm_interrupt)`.
const KVM_INTERRUPT: libc::c_ulong = 0x4004_ae86;
/// Bytes shown of an instruction that cannot be emulated.
const SHOWN: usize = 15;

/// A vCPU's descriptor and how its thread is reached.
pub(crate) struct RealEntry {
    pub(crate) fd: VcpuFd,
    pub(crate) kick: Arc<Kick>,
    /// Bytes of the shared page and its data.
    pub(crate) run_size: usize,
    /// Reads and writes the whole state.
    pub(crate) transfer: crate::state::Transfer,
}

impl RealEntry {
    /// Enters and tells why guest code was left.
    fn run(&mut self) -> io::Result<Exit> {
        match self.fd.run() {
            Ok(_) => {}
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Exit::Intr);
            }
            Err(error) => return Err(self.refusal(error)),
        }
        Ok(self.decode())
    }

    /// Why guest code was not entered.
    fn refusal(&mut self, error: kvm_ioctls::Error) -> io::Error {
        let run = self.fd.get_kvm_run();
        let why = match run.exit_reason {
            // Told together with EFAULT or EHWPOISON.
            KVM_EXIT_MEMORY_FAULT => {
                // SAFETY: the exit reason says that this member is the one in use.
                let fault = unsafe { run.__bindgen_anon_1.memory_fault };
                let (at, size) = (fault.gpa, fault.size);
                format!("the host cannot give the guest its memory at {at:#x} ({size} bytes)")
            }
            number => reason::sentence(number),
        };
        io::Error::other(format!(
            "{}; {why} ({})",
            io::Error::from(error),
            self.place()
        ))
    }

    fn decode(&mut self) -> Exit {
        let run = self.fd.get_kvm_run();
        let what = &run.__bindgen_anon_1;
        match run.exit_reason {
            KVM_EXIT_INTR => Exit::Intr,
            KVM_EXIT_IO => {
                // SAFETY: the exit reason says that this member is the one in use.
                let io = unsafe { what.io };
                Exit::Io {
                    write: u32::from(io.direction) == KVM_EXIT_IO_OUT,
                    port: io.port,
                    size: io.size,
                    count: io.count,
                }
            }
            KVM_EXIT_MMIO => {
                // SAFETY: as above.
                let mmio = unsafe { what.mmio };
                Exit::Mmio {
                    write: mmio.is_write != 0,
                    address: mmio.phys_addr,
                    len: mmio.len.min(8) as u8,
                    data: mmio.data,
                }
            }
            KVM_EXIT_HLT => Exit::Hlt,
            KVM_EXIT_IRQ_WINDOW_OPEN => Exit::IrqWindowOpen,
            KVM_EXIT_SHUTDOWN => Exit::Shutdown,
            // SAFETY: as above.
            KVM_EXIT_IOAPIC_EOI => Exit::IoapicEoi(unsafe { what.eoi }.vector),
            // SAFETY: as above.
            KVM_EXIT_SYSTEM_EVENT => Exit::SystemEvent(unsafe { what.system_event }.type_),
            KVM_EXIT_X86_RDMSR => Exit::Msr {
                // SAFETY: as above.
                index: unsafe { what.msr }.index,
                write: None,
            },
            KVM_EXIT_X86_WRMSR => {
                // SAFETY: as above.
                let msr = unsafe { what.msr };
                Exit::Msr {
                    index: msr.index,
                    write: Some(msr.data),
                }
            }
            KVM_EXIT_DEBUG => Exit::Debug,
            // Hints about the task priority, and an NMI of the host's: nothing to do.
            KVM_EXIT_SET_TPR | KVM_EXIT_TPR_ACCESS | KVM_EXIT_NMI => Exit::Intr,
            KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: as above.
                let fail = unsafe { what.fail_entry };
                let (why, cpu) = (fail.hardware_entry_failure_reason, fail.cpu);
                Exit::Failed(format!(
                    "the host's processor {cpu} refuses the guest's state (hardware reason {why:#x}, {})",
                    self.place()
                ))
            }
            KVM_EXIT_INTERNAL_ERROR => {
                // SAFETY: as above.
                let internal = unsafe { what.internal };
                Exit::Failed(self.internal_error(internal.suberror, internal.ndata, internal.data))
            }
            other => {
                // SAFETY: all bytes of the union are initialised: the kernel shares a zeroed page.
                let hardware = unsafe { what.hw }.hardware_exit_reason;
                Exit::Failed(format!(
                    "{} (hardware reason {hardware:#x}, {})",
                    reason::sentence(other),
                    self.place()
                ))
            }
        }
    }

    fn internal_error(&self, suberror: u32, count: u32, data: [u64; 16]) -> String {
        let place = self.place();
        let data: Vec<String> = data
            .iter()
            .take(count as usize)
            .map(|word| format!("{word:#x}"))
            .collect();
        let why = match suberror {
            KVM_INTERNAL_ERROR_EMULATION => "KVM cannot emulate an instruction of the guest",
            KVM_INTERNAL_ERROR_SIMUL_EX => "exceptions came together that KVM cannot deliver",
            KVM_INTERNAL_ERROR_DELIVERY_EV => "KVM cannot deliver an event",
            KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "KVM does not know the processor's exit",
            _ => "KVM has an internal error",
        };
        format!(
            "{why} ({place}; suberror {suberror}, data {})",
            data.join(" ")
        )
    }

    /// Where the guest is, with the bytes of its instruction.
    fn place(&self) -> String {
        let rip = self.fd.get_regs().map(|regs| regs.rip).unwrap_or(0);
        let sregs = self.fd.get_sregs().ok();
        // In 64-bit mode the base counts for nothing.
        let base = sregs.map_or(0, |s| if s.cs.l != 0 { 0 } else { s.cs.base });
        let bytes: String = (0..SHOWN as u64)
            .map_while(|n| {
                let linear = base.wrapping_add(rip).wrapping_add(n);
                let found = self.fd.translate_gva(linear).ok()?;
                if found.valid == 0 {
                    return None;
                }
                let map = self.transfer.memory.snapshot();
                let (block, offset) = map
                    .find(found.physical_address)?
                    .ram_at(found.physical_address)?;
                block.load(offset, 1).map(|byte| format!(" {byte:02x}"))
            })
            .collect();
        let bytes = if bytes.is_empty() {
            " unreadable"
        } else {
            &bytes
        };
        let cs = sregs.map_or(0, |s| s.cs.selector);
        format!("cs:rip {cs:04x}:{rip:#x}, bytes{bytes}")
    }

    fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }
}

impl Entry for RealEntry {
    fn enter(&mut self, pending: &Pending) -> io::Result<Option<Exit>> {
        let flag = self.immediate_exit();
        self.kick.arm(flag);
        // Looked at after the kick is armed: what came before is seen here, what comes later kicks.
        let result = if pending.get() == 0 {
            self.run().map(Some)
        } else {
            Ok(None)
        };
        self.kick.disarm();
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        self.fd.set_kvm_immediate_exit(0);
        result
    }

    fn complete(&mut self) -> io::Result<Exit> {
        self.fd.set_kvm_immediate_exit(1);
        let result = self.run();
        self.fd.set_kvm_immediate_exit(0);
        result
    }

    fn io_data(&mut self) -> &mut [u8] {
        let size = self.run_size;
        let run = self.fd.get_kvm_run();
        if run.exit_reason != KVM_EXIT_IO {
            return &mut [];
        }
        // SAFETY: the exit reason says that this member is the one in use.
        let io = unsafe { run.__bindgen_anon_1.io };
        let len = io.count as usize * usize::from(io.size);
        let start = io.data_offset as usize;
        if start.checked_add(len).is_none_or(|end| end > size) {
            return &mut [];
        }
        // SAFETY: the kernel's data lies in the shared mapping, which is `size` bytes long and lives
        // as long as the descriptor that is borrowed.
        unsafe {
            std::slice::from_raw_parts_mut((run as *mut kvm_run).cast::<u8>().add(start), len)
        }
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        let run = self.fd.get_kvm_run();
        // SAFETY: plain bytes of a union that the kernel reads by the exit reason.
        unsafe { &mut run.__bindgen_anon_1.mmio }.data = data;
    }

    fn answer_msr(&mut self, value: Option<u64>) {
        let run = self.fd.get_kvm_run();
        // SAFETY: as in `answer_mmio`.
        let msr = unsafe { &mut run.__bindgen_anon_1.msr };
        msr.error = u8::from(value.is_none());
        if let Some(value) = value {
            msr.data = value;
        }
    }

    fn flags(&mut self) -> Flags {
        let run = self.fd.get_kvm_run();
        Flags {
            ready: run.ready_for_interrupt_injection != 0,
            interrupts: run.if_flag != 0,
            cr8: run.cr8,
            apic_base: run.apic_base,
        }
    }

    fn set_window(&mut self, wanted: bool) {
        self.fd.get_kvm_run().request_interrupt_window = wanted.into();
    }

    fn set_cr8(&mut self, cr8: u64) {
        self.fd.get_kvm_run().cr8 = cr8;
    }

    fn interrupt(&mut self, vector: u8) -> io::Result<()> {
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the descriptor is a vCPU's and the argument lives through the call.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_INTERRUPT, &interrupt) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn nmi(&mut self) -> io::Result<()> {
        Ok(self.fd.nmi()?)
    }

    fn change(&mut self, change: &mut dyn FnMut(&mut CpuState)) -> io::Result<()> {
        let read = self.transfer.read(&self.fd).map_err(io::Error::other)?;
        let mut state = read.cpu;
        change(&mut state);
        let new = crate::state::Full { cpu: state, ..read };
        self.transfer
            .write(&self.fd, &new)
            .map_err(io::Error::other)
    }
}
