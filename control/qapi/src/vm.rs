//! The machine as monitors see it.

use crate::blocks::Blocks;
use crate::error::QmpError;
use crate::qapi_enum;
use crate::types::{
    ChardevInfo, CpuDefinitionInfo, DeviceOptions, IdentityInfo, IoThreadInfo, Key, MachineInfo,
    ObjectPropertyInfo, ObjectTypeInfo, PciInfo, RunState,
};

qapi_enum! {
    /// What `info` can show as text of the machine's own making.
    pub enum InfoTopic {
        /// The register file of one vCPU.
        Registers = "registers",
        /// The memory map.
        Mtree = "mtree",
        /// The device tree.
        Qtree = "qtree",
        /// Interrupt controllers.
        Pic = "pic",
        /// Counts of interrupts.
        Irq = "irq",
        /// The local APIC of one vCPU.
        Lapic = "lapic",
        /// Mapped ranges of one vCPU's address space.
        Mem = "mem",
        /// Translations of one vCPU's address space.
        Tlb = "tlb",
        /// The engine's blocks and counters.
        Jit = "jit",
    }
}

/// Whose addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressSpace {
    /// As this vCPU's code sees them now.
    Virtual(usize),
    /// On the bus.
    Physical,
}

/// One vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuRecord {
    /// Its number.
    pub index: usize,
    /// Its place in the object tree.
    pub qom_path: String,
    /// The host thread that runs it.
    pub thread_id: i64,
    /// Its QOM type.
    pub typename: String,
    /// Where it is in the topology: names and numbers, outermost first.
    pub props: Vec<(&'static str, u32)>,
    /// Whether it waits for an interrupt.
    pub halted: bool,
    /// Where it is, if it is known without stopping it.
    pub pc: Option<u64>,
}

/// One disassembled instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Its text.
    pub text: String,
    /// Bytes it takes, at least 1.
    pub len: usize,
}

/// The machine behind the monitors. Called on the main loop with nothing locked.
///
/// What changes the machine's state only asks for it; the matching event tells when it is done.
pub trait Vm: Send + Sync {
    /// Name, UUID, guest architecture, accelerator.
    fn identity(&self) -> IdentityInfo;
    /// What the machine is doing.
    fn status(&self) -> RunState;
    /// Parks the vCPUs.
    fn stop(&self);
    /// Lets the vCPUs go on.
    ///
    /// # Errors
    /// When the machine has ended or needs a reset first.
    fn cont(&self) -> Result<(), QmpError>;
    /// Ends the process with this status, once the answer to the command is out.
    fn quit(&self, status: i32);
    /// Resets the machine.
    fn system_reset(&self);
    /// Presses the power button.
    fn system_powerdown(&self);
    /// Sends a non-maskable interrupt to all vCPUs.
    ///
    /// # Errors
    /// When the machine has none.
    fn inject_nmi(&self) -> Result<(), QmpError>;
    /// Presses these keys together for `hold_ms`.
    ///
    /// # Errors
    /// When there is no keyboard.
    fn send_keys(&self, keys: &[Key], hold_ms: u64) -> Result<(), QmpError>;
    /// The vCPUs.
    fn cpus(&self) -> Vec<CpuRecord>;
    /// Reads memory without side effects.
    ///
    /// # Errors
    /// When an address of the range is not mapped, or is no memory.
    fn read_memory(
        &self,
        space: AddressSpace,
        address: u64,
        buffer: &mut [u8],
    ) -> Result<(), QmpError>;
    /// A register of a vCPU by the name that `$name` has in expressions.
    fn register(&self, cpu: usize, name: &str) -> Option<u64>;
    /// Disassembles the instruction at the start of `code`, in the mode that the vCPU is in.
    fn disassemble(&self, cpu: usize, address: u64, code: &[u8]) -> Option<Instruction>;
    /// The longest instruction of the guest, for reading ahead.
    fn max_instruction_len(&self) -> usize;
    /// A report for people; `detail` is the rest of the command's line (`-f` of `info mtree -f`).
    ///
    /// # Errors
    /// When this machine has nothing of the kind.
    fn info(&self, topic: InfoTopic, cpu: usize, detail: &str) -> Result<String, QmpError>;
    /// The machines this binary knows for the guest.
    fn machines(&self) -> Vec<MachineInfo>;
    /// The CPU models it knows.
    fn cpu_definitions(&self) -> Vec<CpuDefinitionInfo>;
    /// The streams.
    fn chardevs(&self) -> Vec<ChardevInfo>;
    /// The threads that take the requests of disks.
    fn io_threads(&self) -> Vec<IoThreadInfo>;
    /// The disks.
    fn blocks(&self) -> &dyn Blocks;
    /// Plugs a device in.
    ///
    /// # Errors
    /// What is wrong with the properties, or that no bus takes it now.
    fn add_device(&self, options: DeviceOptions) -> Result<(), QmpError>;
    /// Takes a device out, or asks the guest to let go of it; an event tells when it is gone.
    ///
    /// # Errors
    /// When there is no such device, or its bus does not let it go.
    fn delete_device(&self, id: &str) -> Result<(), QmpError>;
    /// The PCI buses.
    fn pci(&self) -> Vec<PciInfo>;
    /// All types of objects: devices, backends, CPU models, machines.
    fn object_types(&self) -> Vec<ObjectTypeInfo>;
    /// The properties of a type; `None` if there is no such type.
    fn type_properties(&self, type_name: &str) -> Option<Vec<ObjectPropertyInfo>>;
    /// The properties of the object at a path; `None` if there is none.
    fn object_properties(&self, path: &str) -> Option<Vec<ObjectPropertyInfo>>;
    /// Takes output out of a ring buffer stream.
    ///
    /// # Errors
    /// When there is no such stream, or it is of another kind.
    fn ringbuf_read(&self, device: &str, size: usize) -> Result<Vec<u8>, QmpError>;
}
