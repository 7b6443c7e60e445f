//! The run loop of any architecture: what is pending goes in, exits are answered by the board.

use std::io;
use std::sync::Arc;

use accel_core::{Pending, VcpuExit};
use hw_core::Request;

use crate::bus::Bus;
use crate::exit::{Entry, Exit};

/// System events (`KVM_SYSTEM_EVENT_*`).
const EVENT_SHUTDOWN: u32 = 1;
const EVENT_RESET: u32 = 2;
const EVENT_CRASH: u32 = 3;
const EVENT_WAKEUP: u32 = 4;
const EVENT_SUSPEND: u32 = 5;
const EVENT_SEV_TERM: u32 = 6;
/// Most exits that completing one instruction may take: a page-crossing string operation has a few.
const MOST_EXITS: u32 = 64;

/// What every loop has.
pub(crate) struct Parts<E> {
    pub(crate) entry: E,
    pub(crate) bus: Bus,
    pub(crate) pending: Arc<Pending>,
    /// The last exit's instruction is completed by the next entry.
    pub(crate) open: bool,
}

impl<E> Parts<E> {
    pub(crate) fn new(entry: E, bus: Bus, pending: Arc<Pending>) -> Self {
        Parts {
            entry,
            bus,
            pending,
            open: false,
        }
    }
}

/// What of an entry is an architecture's own.
pub(crate) type Own<L> = <<L as Loop>::Entry as Entry>::Own;

/// One CPU's loop: an architecture has its own way before and after guest code.
pub(crate) trait Loop {
    /// What enters.
    type Entry: Entry;

    fn parts(&mut self) -> &mut Parts<Self::Entry>;

    /// Acts on the pending word; `Some` if the guest is not to be entered now.
    fn heed(&mut self) -> Option<VcpuExit>;

    /// Hands over what a controller in user space has.
    fn prepare(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes over what the kernel told with the exit.
    fn after(&mut self) {}

    /// Answers an exit that only this architecture has.
    fn own(&mut self, exit: Own<Self>) -> VcpuExit;

    /// One entry and its exit, or one wait.
    fn step(&mut self) -> VcpuExit {
        if let Some(exit) = self.heed() {
            return exit;
        }
        if let Err(error) = self.prepare() {
            return self.failed(&format!("cannot inject an interrupt: {error}"));
        }
        let parts = self.parts();
        match parts.entry.enter(&parts.pending) {
            // What was injected still waits in the kernel: what it said before must not be believed again.
            Ok(None) => VcpuExit::Again,
            Ok(Some(Exit::Intr)) => {
                self.after();
                VcpuExit::Again
            }
            Ok(Some(exit)) => {
                parts.open = false;
                self.after();
                self.handle(exit)
            }
            Err(error) => self.failed(&format!("KVM_RUN: {error}")),
        }
    }

    fn failed(&mut self, why: &str) -> VcpuExit {
        VcpuExit::Failed(format!("CPU {}: {why}", self.parts().bus.index))
    }

    fn handle(&mut self, exit: Exit<Own<Self>>) -> VcpuExit {
        let parts = self.parts();
        match exit {
            Exit::Intr | Exit::Debug => VcpuExit::Again,
            Exit::Mmio {
                write,
                address,
                len,
                data,
            } => {
                parts.open = true;
                if write {
                    parts.bus.write(address, len, data);
                } else {
                    let data = parts.bus.read(address, len);
                    parts.entry.answer_mmio(data);
                }
                VcpuExit::Again
            }
            Exit::SystemEvent(event) => self.system_event(event),
            Exit::Failed(why) => self.failed(&why),
            Exit::Own(exit) => self.own(exit),
        }
    }

    fn system_event(&mut self, event: u32) -> VcpuExit {
        let request = match event {
            EVENT_SHUTDOWN => Request::PowerOff,
            EVENT_RESET => Request::Reset,
            EVENT_CRASH => Request::Panicked,
            EVENT_WAKEUP => Request::WakeUp,
            EVENT_SUSPEND => Request::Suspend,
            EVENT_SEV_TERM => {
                return self
                    .failed("the guest ended itself as an encrypted machine, which it is not");
            }
            other => return self.failed(&format!("unknown KVM system event {other}")),
        };
        self.parts().bus.requests.post(request);
        VcpuExit::Again
    }

    /// Completes an answered instruction, so that the state can be read or replaced.
    fn finish(&mut self) -> Result<(), VcpuExit> {
        for _ in 0..MOST_EXITS {
            let parts = self.parts();
            if !parts.open {
                return Ok(());
            }
            parts.open = false;
            match parts.entry.complete() {
                Ok(Exit::Intr) => return Ok(()),
                Ok(exit) => match self.handle(exit) {
                    VcpuExit::Again => {}
                    exit => return Err(exit),
                },
                Err(error) => return Err(self.failed(&format!("KVM_RUN: {error}"))),
            }
        }
        Ok(())
    }
}
