//! Entering guest code through a vCPU's file descriptor: what is the same on every kind of host.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use accel_core::Pending;
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;

use super::kick::Kick;
use super::reason;
use crate::exit::{Entry, Exit};

/// A vCPU's descriptor and how its thread is reached.
pub(crate) struct Door {
    pub(crate) fd: VcpuFd,
    pub(crate) kick: Arc<Kick>,
}

/// A vCPU of the host's.
pub(crate) trait Real {
    /// Exits that only this architecture has.
    type Own;

    fn door(&mut self) -> &mut Door;

    /// Where the guest is, for sentences.
    fn place(&self) -> String;

    /// The exit that the shared page holds, if only this architecture has it.
    fn own(&mut self) -> Option<Exit<Self::Own>>;
}

/// Enters and tells why guest code was left.
fn run<R: Real>(cpu: &mut R) -> io::Result<Exit<R::Own>> {
    match cpu.door().fd.run() {
        Ok(_) => {}
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            return Ok(Exit::Intr);
        }
        Err(error) => return Err(refusal(cpu, error)),
    }
    Ok(decode(cpu))
}

/// Why guest code was not entered.
fn refusal(cpu: &mut impl Real, error: kvm_ioctls::Error) -> io::Error {
    let run = cpu.door().fd.get_kvm_run();
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
        cpu.place()
    ))
}

fn decode<R: Real>(cpu: &mut R) -> Exit<R::Own> {
    let run = cpu.door().fd.get_kvm_run();
    let what = &run.__bindgen_anon_1;
    match run.exit_reason {
        KVM_EXIT_INTR => Exit::Intr,
        KVM_EXIT_MMIO => {
            // SAFETY: the exit reason says that this member is the one in use.
            let mmio = unsafe { what.mmio };
            Exit::Mmio {
                write: mmio.is_write != 0,
                address: mmio.phys_addr,
                len: mmio.len.min(8) as u8,
                data: mmio.data,
            }
        }
        // SAFETY: as above.
        KVM_EXIT_SYSTEM_EVENT => Exit::SystemEvent(unsafe { what.system_event }.type_),
        KVM_EXIT_DEBUG => Exit::Debug,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: as above.
            let fail = unsafe { what.fail_entry };
            let (why, number) = (fail.hardware_entry_failure_reason, fail.cpu);
            Exit::Failed(format!(
                "the host's processor {number} refuses the guest's state (hardware reason {why:#x}, {})",
                cpu.place()
            ))
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: as above.
            let internal = unsafe { what.internal };
            let (ndata, data) = (internal.ndata, internal.data);
            Exit::Failed(internal_error(cpu, internal.suberror, ndata, data))
        }
        other => {
            // SAFETY: all bytes of the union are initialised: the kernel shares a zeroed page.
            let hardware = unsafe { what.hw }.hardware_exit_reason;
            cpu.own().unwrap_or_else(|| {
                Exit::Failed(format!(
                    "{} (hardware reason {hardware:#x}, {})",
                    reason::sentence(other),
                    cpu.place()
                ))
            })
        }
    }
}

fn internal_error(cpu: &impl Real, suberror: u32, count: u32, data: [u64; 16]) -> String {
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
        "{why} ({}; suberror {suberror}, data {})",
        cpu.place(),
        data.join(" ")
    )
}

impl<R: Real + Send> Entry for R {
    type Own = R::Own;

    fn enter(&mut self, pending: &Pending) -> io::Result<Option<Exit<R::Own>>> {
        let door = self.door();
        let flag = &raw mut door.fd.get_kvm_run().immediate_exit;
        door.kick.arm(flag);
        // Looked at after the kick is armed: what came before is seen here, what comes later kicks.
        let result = if pending.get() == 0 {
            run(self).map(Some)
        } else {
            Ok(None)
        };
        let door = self.door();
        door.kick.disarm();
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        door.fd.set_kvm_immediate_exit(0);
        result
    }

    fn complete(&mut self) -> io::Result<Exit<R::Own>> {
        self.door().fd.set_kvm_immediate_exit(1);
        let result = run(self);
        self.door().fd.set_kvm_immediate_exit(0);
        result
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        let run = self.door().fd.get_kvm_run();
        // SAFETY: plain bytes of a union that the kernel reads by the exit reason.
        unsafe { &mut run.__bindgen_anon_1.mmio }.data = data;
    }
}
