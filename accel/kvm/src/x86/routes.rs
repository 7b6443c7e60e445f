//! Which global interrupt of the kernel means what.
//!
//! Spec: Linux, Documentation/virt/kvm/api.rst, KVM_SET_GSI_ROUTING and KVM_IRQFD.
//!
//! Numbers 0 to 23 are the I/O APIC's inputs: with the chips in the kernel, their lines; with an I/O
//! APIC in user space, its level messages, of whose ends the kernel tells only for these numbers. A
//! message that was sent once has a number above and an irqfd, so that sending it again is one
//! write from any thread. Lines stay with KVM_IRQ_LINE: they also go low.

use kvm_bindings::*;
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Mode;
use crate::KvmError;
use crate::kernel::refused;

/// Inputs of an I/O APIC.
pub(crate) const IOAPIC_INPUTS: u32 = 24;
/// ISA interrupts.
const ISA: u32 = 16;
/// The ISA timer's interrupt is at this input of the I/O APIC, as the firmware's tables say.
pub(crate) const TIMER_INPUT: u32 = 2;
/// Messages with an irqfd at most; others are sent one by one.
const MOST_MESSAGES: usize = 256;

/// A message of a device: where and what it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) address: u64,
    pub(crate) data: u32,
}

/// The kernel's table, and the irqfds into it.
#[derive(Default)]
pub(crate) struct Routes {
    fixed: Vec<kvm_irq_routing_entry>,
    level: Vec<Message>,
    messages: Vec<(Message, EventFd)>,
    /// The kernel refused an irqfd or its route: none are tried again.
    refused: bool,
}

impl Routes {
    /// The table of a machine after power-on.
    pub(crate) fn new(mode: Mode) -> Self {
        let fixed = match mode {
            Mode::Kernel => isa_routes(),
            Mode::User | Mode::Split => Vec::new(),
        };
        Routes {
            fixed,
            ..Routes::default()
        }
    }

    /// Gives the kernel the whole table.
    pub(crate) fn apply(&self, fd: &VmFd) -> Result<(), KvmError> {
        let level = (0u32..).zip(&self.level);
        let messages = (IOAPIC_INPUTS..).zip(self.messages.iter().map(|(message, _)| message));
        let mut entries = self.fixed.clone();
        entries.extend(level.chain(messages).map(|(gsi, m)| msi_route(gsi, *m)));
        let list = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| KvmError::Lacks("enough interrupt routes"))?;
        fd.set_gsi_routing(&list)
            .map_err(refused("KVM_SET_GSI_ROUTING"))
    }

    /// Makes a level message of an I/O APIC in user space a route, so that the kernel tells of its
    /// end.
    pub(crate) fn add_level(&mut self, fd: &VmFd, message: Message) {
        if self.level.contains(&message) {
            return;
        }
        if self.level.len() == IOAPIC_INPUTS as usize {
            self.level.remove(0);
        }
        self.level.push(message);
        if let Err(error) = self.apply(fd) {
            log::error!("{error}");
        }
    }

    /// Sends a message by its irqfd, which it gets when it is new. False if it has none.
    pub(crate) fn send(&mut self, fd: &VmFd, message: Message) -> bool {
        let known = self.messages.iter().find(|(known, _)| *known == message);
        match known {
            Some((_, event)) => event.write(1).is_ok(),
            None if self.refused || self.messages.len() == MOST_MESSAGES => false,
            None => match self.add_message(fd, message) {
                Ok(()) => self.send(fd, message),
                Err(error) => {
                    log::info!("messages are sent without irqfds: {error}");
                    self.refused = true;
                    false
                }
            },
        }
    }

    fn add_message(&mut self, fd: &VmFd, message: Message) -> Result<(), KvmError> {
        let event =
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| KvmError::Refused {
                what: "an event",
                source,
            })?;
        let gsi = IOAPIC_INPUTS + self.messages.len() as u32;
        self.messages.push((message, event));
        let added = self.apply(fd).and_then(|()| {
            let event = self.messages.last().map(|(_, event)| event);
            event.map_or(Ok(()), |event| {
                fd.register_irqfd(event, gsi).map_err(refused("KVM_IRQFD"))
            })
        });
        if added.is_err() {
            self.messages.pop();
        }
        added
    }

    /// Forgets all messages: the guest that programmed them is gone. The new one waits for the ends
    /// of these level messages.
    pub(crate) fn restart(&mut self, fd: &VmFd, level: Vec<Message>) {
        if self.level == level && self.messages.is_empty() {
            return;
        }
        for (gsi, (_, event)) in (IOAPIC_INPUTS..).zip(self.messages.drain(..)) {
            if let Err(error) = fd.unregister_irqfd(&event, gsi) {
                log::debug!("irqfd of interrupt {gsi}: {error}");
            }
        }
        self.level = level;
        if let Err(error) = self.apply(fd) {
            log::error!("{error}");
        }
    }

    /// How many messages have an irqfd.
    #[cfg(test)]
    pub(crate) fn irqfds(&self) -> usize {
        self.messages.len()
    }
}

fn chip_route(gsi: u32, chip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..kvm_irq_routing_entry::default()
    };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: chip, pin };
    entry
}

fn msi_route(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..kvm_irq_routing_entry::default()
    };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..kvm_irq_routing_msi::default()
    };
    entry
}

/// The PC's lines: the first sixteen go to both controllers.
fn isa_routes() -> Vec<kvm_irq_routing_entry> {
    let pic = (0..ISA).filter(|n| *n != 2).map(|n| match n {
        0..8 => chip_route(n, KVM_IRQCHIP_PIC_MASTER, n),
        _ => chip_route(n, KVM_IRQCHIP_PIC_SLAVE, n - 8),
    });
    let ioapic = (0..IOAPIC_INPUTS).filter(|n| *n != 2).map(|n| {
        let input = if n == 0 { TIMER_INPUT } else { n };
        chip_route(n, KVM_IRQCHIP_IOAPIC, input)
    });
    pic.chain(ioapic).collect()
}
