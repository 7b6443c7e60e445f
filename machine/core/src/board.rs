//! A finished machine, as the binary and its monitors see it.

use device_input::Input;
use hw_core::DeviceError;
use hw_memory::RamError;
use hw_pci::PciBus;

use crate::machine::{Machine, MachineError};

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Guest memory.
    #[error("guest memory of {size} bytes cannot be had; ask for less with -m")]
    Memory {
        /// Bytes asked for.
        size: u64,
        /// Why.
        #[source]
        source: RamError,
    },
    /// A device.
    #[error("{0}")]
    Device(#[from] DeviceError),
    /// The life cycle.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The accelerator.
    #[error("{0}")]
    Accelerator(String),
    /// The kernel, initrd or firmware.
    #[error("{0}")]
    Boot(String),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Config(String),
}

type Info = Box<dyn Fn(&str, usize) -> Option<String> + Send + Sync>;

/// A finished machine.
pub struct Board {
    /// Its life cycle.
    pub machine: Machine,
    /// Keyboard and mouse, if it has them.
    pub input: Option<Input>,
    /// The root PCI bus, if it has one.
    pub pci: Option<PciBus>,
    /// Whether its CPUs take non-maskable interrupts.
    pub has_nmi: bool,
    /// The device tree that its guest is given, if it has one.
    pub device_tree: Option<Vec<u8>>,
    /// Reports on the board's own parts, by topic (`pic`, `irq`, `lapic`) and CPU.
    pub info: Info,
}

impl Board {
    /// Sends a non-maskable interrupt to all CPUs. Says whether there is such a thing.
    pub fn nmi(&self) -> bool {
        if self.has_nmi {
            let cpus = self.machine.cpus();
            let pending = cpus.iter().map(|cpu| cpu.pending());
            pending.for_each(|pending| pending.raise(accel_core::reason::NMI));
        }
        self.has_nmi
    }

    /// A report on the board's own parts.
    pub fn info(&self, topic: &str, cpu: usize) -> Option<String> {
        (self.info)(topic, cpu)
    }
}
