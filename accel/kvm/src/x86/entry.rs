//! Entering guest code: what only x86 has.

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::*;
use target_x86::system::CpuState;

use super::exit::{Entry, Exit, Flags};
use super::state::{Full, Transfer};
use crate::exit;
use crate::kernel::door::{Door, Real};

/// `_IOW(KVMIO, 0x86, struct kvm_interrupt)`.
const KVM_INTERRUPT: libc::c_ulong = 0x4004_ae86;
/// Bytes shown of an instruction that cannot be emulated.
const SHOWN: usize = 15;

/// A vCPU of the host's.
pub(crate) struct RealEntry {
    pub(crate) door: Door,
    /// Bytes of the shared page and its data.
    pub(crate) run_size: usize,
    /// Reads and writes the whole state.
    pub(crate) transfer: Transfer,
}

impl Real for RealEntry {
    type Own = Exit;

    fn door(&mut self) -> &mut Door {
        &mut self.door
    }

    /// With the bytes of its instruction.
    fn place(&self) -> String {
        let rip = self.door.fd.get_regs().map(|regs| regs.rip).unwrap_or(0);
        let sregs = self.door.fd.get_sregs().ok();
        // In 64-bit mode the base counts for nothing.
        let base = sregs.map_or(0, |s| if s.cs.l != 0 { 0 } else { s.cs.base });
        let bytes: String = (0..SHOWN as u64)
            .map_while(|n| {
                let linear = base.wrapping_add(rip).wrapping_add(n);
                let found = self.door.fd.translate_gva(linear).ok()?;
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

    fn own(&mut self) -> Option<exit::Exit<Exit>> {
        let run = self.door.fd.get_kvm_run();
        let what = &run.__bindgen_anon_1;
        let exit = match run.exit_reason {
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
            KVM_EXIT_HLT => Exit::Hlt,
            KVM_EXIT_IRQ_WINDOW_OPEN => Exit::IrqWindowOpen,
            KVM_EXIT_SHUTDOWN => Exit::Shutdown,
            // SAFETY: as above.
            KVM_EXIT_IOAPIC_EOI => Exit::IoapicEoi(unsafe { what.eoi }.vector),
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
            // Hints about the task priority, and an NMI of the host's: nothing to do.
            KVM_EXIT_SET_TPR | KVM_EXIT_TPR_ACCESS | KVM_EXIT_NMI => {
                return Some(exit::Exit::Intr);
            }
            _ => return None,
        };
        Some(exit::Exit::Own(exit))
    }
}

impl Entry for RealEntry {
    fn io_data(&mut self) -> &mut [u8] {
        let size = self.run_size;
        let run = self.door.fd.get_kvm_run();
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

    fn answer_msr(&mut self, value: Option<u64>) {
        let run = self.door.fd.get_kvm_run();
        // SAFETY: plain bytes of a union that the kernel reads by the exit reason.
        let msr = unsafe { &mut run.__bindgen_anon_1.msr };
        msr.error = u8::from(value.is_none());
        if let Some(value) = value {
            msr.data = value;
        }
    }

    fn flags(&mut self) -> Flags {
        let run = self.door.fd.get_kvm_run();
        Flags {
            ready: run.ready_for_interrupt_injection != 0,
            interrupts: run.if_flag != 0,
            cr8: run.cr8,
            apic_base: run.apic_base,
        }
    }

    fn set_window(&mut self, wanted: bool) {
        self.door.fd.get_kvm_run().request_interrupt_window = wanted.into();
    }

    fn set_cr8(&mut self, cr8: u64) {
        self.door.fd.get_kvm_run().cr8 = cr8;
    }

    fn interrupt(&mut self, vector: u8) -> io::Result<()> {
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the descriptor is a vCPU's and the argument lives through the call.
        let result = unsafe { libc::ioctl(self.door.fd.as_raw_fd(), KVM_INTERRUPT, &interrupt) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn nmi(&mut self) -> io::Result<()> {
        Ok(self.door.fd.nmi()?)
    }

    fn change(&mut self, change: &mut dyn FnMut(&mut CpuState)) -> io::Result<()> {
        let read = self
            .transfer
            .read(&self.door.fd)
            .map_err(io::Error::other)?;
        let mut state = read.cpu;
        change(&mut state);
        let new = Full { cpu: state, ..read };
        self.transfer
            .write(&self.door.fd, &new)
            .map_err(io::Error::other)
    }
}
