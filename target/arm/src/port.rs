//! What the board gives an Arm CPU: interrupt inputs, the GIC's CPU interface, generic timers, calls
//! to firmware.

use std::fmt;

/// A system register by its encoding: `op0 << 14 | op1 << 11 | CRn << 7 | CRm << 3 | op2`, as KVM's
/// `ARM64_SYS_REG` has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysReg(pub u16);

impl SysReg {
    /// The register `S<op0>_<op1>_C<crn>_C<crm>_<op2>`.
    pub const fn new(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> Self {
        SysReg((op0 & 3) << 14 | (op1 & 7) << 11 | (crn & 15) << 7 | (crm & 15) << 3 | op2 & 7)
    }

    /// Its fields: op0, op1, CRn, CRm, op2.
    pub const fn fields(self) -> (u16, u16, u16, u16, u16) {
        let n = self.0;
        (n >> 14, n >> 11 & 7, n >> 7 & 15, n >> 3 & 15, n & 7)
    }
}

impl fmt::Debug for SysReg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op0, op1, crn, crm, op2) = self.fields();
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

/// An access to a register of the GIC's CPU interface (`ICC_*`, `ICH_*`), by encoding. Whether the
/// `ICC_*` registers mean the virtual CPU interface (`ICV_*`) is for the interface to decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GicAccess {
    /// Which register.
    pub reg: SysReg,
    /// Exception level of the access, 1 to 3.
    pub el: u8,
    /// HCR_EL2 as it is in effect: FMO is bit 3, IMO bit 4; 0 where EL2 is absent or off.
    pub hcr: u64,
    /// SCR_EL3: NS is bit 0, IRQ bit 1, FIQ bit 2. Without EL3 as after software that wants nothing of it:
    /// NS alone.
    pub scr: u64,
}

/// What the CPU is when it asks for its interrupt inputs: a GIC signals interrupts of the other Security
/// state as FIQ (IHI 0069H section 4.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// Non-secure, or without EL3.
    NonSecure,
    /// Secure, below EL3.
    Secure,
    /// At EL3.
    Monitor,
}

/// Why a register of the GIC's CPU interface was not accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicFault {
    /// There is none: undefined.
    Undefined,
    /// The access traps to this exception level.
    Trap(u8),
}

/// The generic timers of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// CNTP: EL1 physical; PPI 30 (INTID) on most boards.
    Physical,
    /// CNTV: virtual; compared with the counter less its offset; PPI 27.
    Virtual,
    /// CNTHP: EL2 physical; PPI 26.
    HypPhysical,
    /// CNTHV: EL2 virtual (VHE), whose offset is zero; PPI 28.
    HypVirtual,
    /// CNTPS: secure physical; PPI 29.
    SecurePhysical,
}

impl Timer {
    /// All of them.
    pub const ALL: [Timer; 5] = [
        Timer::Physical,
        Timer::Virtual,
        Timer::HypPhysical,
        Timer::HypVirtual,
        Timer::SecurePhysical,
    ];
}

/// How firmware is called (SMC Calling Convention, DEN 0028).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
}

/// What becomes of a call to firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The board serves no calls by this conduit: the instruction does what the architecture says.
    NotServed,
    /// Served; these are the new x0 to x3.
    Return([u64; 4]),
    /// The CPU is off until [`Port::start`] has something (CPU_OFF), or for good (SYSTEM_OFF and
    /// SYSTEM_RESET, of which the port has told the machine).
    Off,
    /// The CPU waits for an interrupt, then goes on with 0 in x0 (CPU_SUSPEND to a standby state).
    Suspend,
}

/// Where a CPU that was off begins (CPU_ON), at the highest exception level below EL3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// First instruction.
    pub entry: u64,
    /// In x0.
    pub context: u64,
}

/// What came of a read of semihosting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostRead {
    /// So many bytes; none at the end.
    Bytes(usize),
    /// Nothing yet: ask again.
    Later,
}

/// What came of a command of semihosting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostRan {
    /// It ended with this status.
    Status(i32),
    /// Not yet: ask again.
    Later,
}

/// The host, for software that asks it (semihosting). `None` is failure; why is in `errno`.
#[expect(missing_docs, reason = "the requests of the specification, chapter 6")]
pub trait Semihost {
    /// Writes to the console: how many bytes it took.
    fn put(&mut self, bytes: &[u8]) -> usize;
    /// A key; `None` until there is one.
    fn get(&mut self) -> Option<u8>;
    fn open(&mut self, name: &[u8], mode: u64) -> Option<u64>;
    fn close(&mut self, handle: u64) -> Option<()>;
    fn write(&mut self, handle: u64, bytes: &[u8]) -> Option<usize>;
    fn read(&mut self, handle: u64, out: &mut [u8]) -> Option<HostRead>;
    fn seek(&mut self, handle: u64, to: u64) -> Option<()>;
    fn len(&mut self, handle: u64) -> Option<u64>;
    fn is_console(&mut self, handle: u64) -> Option<bool>;
    fn remove(&mut self, name: &[u8]) -> Option<()>;
    fn rename(&mut self, from: &[u8], to: &[u8]) -> Option<()>;
    fn system(&mut self, command: &[u8]) -> Option<HostRan>;
    fn temporary(&mut self, number: u8) -> Vec<u8>;
    fn errno(&mut self) -> u64;
    /// What the program is told of its arguments.
    fn command_line(&mut self) -> Vec<u8>;
    /// Heap base and limit, stack base and limit.
    fn heap(&mut self) -> [u64; 4];
    /// Ends the process.
    fn exit(&mut self, status: u8);
}

/// What the board wires to a CPU. Called by the CPU's own thread with no lock held.
pub trait Port: Send {
    /// Level of the IRQ input. Asked when `reason::INTR` is pending and whenever interrupts are
    /// unmasked; the CPU clears that bit when no input is active, so whatever makes one active later
    /// must raise it again.
    fn irq(&mut self, world: World) -> bool;

    /// Level of the FIQ input; as [`irq`](Self::irq).
    fn fiq(&mut self, world: World) -> bool;

    /// Level of the virtual IRQ input, driven by the GIC's virtual CPU interface.
    fn virtual_irq(&mut self) -> bool {
        false
    }

    /// Level of the virtual FIQ input.
    fn virtual_fiq(&mut self) -> bool {
        false
    }

    /// Whether the GIC's CPU interface is reached by system registers (GICv3): what ID_AA64PFR0_EL1
    /// says. Asked once, when the CPU is made.
    fn has_gic_registers(&self) -> bool {
        false
    }

    /// Reads a register of the GIC's CPU interface.
    fn gic_read(&mut self, access: GicAccess) -> Result<u64, GicFault>;

    /// Writes a register of the GIC's CPU interface.
    fn gic_write(&mut self, access: GicAccess, value: u64) -> Result<(), GicFault>;

    /// CNT*_CTL_EL*: ENABLE is bit 0, IMASK bit 1, ISTATUS bit 2.
    fn timer_control(&mut self, timer: Timer) -> u64;

    /// Sets CNT*_CTL_EL*.
    fn set_timer_control(&mut self, timer: Timer, value: u64);

    /// CNT*_CVAL_EL*.
    fn timer_compare(&mut self, timer: Timer) -> u64;

    /// Sets CNT*_CVAL_EL*, in ticks of the counter: `clock.ticks(model.counter_hz())`, for
    /// [`Timer::Virtual`] less the offset.
    fn set_timer_compare(&mut self, timer: Timer, value: u64);

    /// CNTVOFF_EL2 changed: the virtual counter is the counter less this.
    fn set_counter_offset(&mut self, offset: u64);

    /// A random number for RNDR; `None` if none is to be had now, which the guest is told.
    fn random(&mut self) -> Option<u64> {
        None
    }

    /// Level of the PMU's interrupt (PPI 23) changed.
    fn set_pmu_interrupt(&mut self, level: bool) {
        let _ = level;
    }

    /// Whether HLT #0xf000 asks the host, at EL0 or above it.
    fn has_semihosting(&self, is_user: bool) -> bool {
        let _ = is_user;
        false
    }

    /// The host, where [`has_semihosting`](Self::has_semihosting) is true.
    fn semihost(&mut self) -> Option<&mut dyn Semihost> {
        None
    }

    /// An HVC or SMC with x0 to x7.
    fn call(&mut self, conduit: Conduit, x: [u64; 8]) -> Answer;

    /// Where this CPU is to begin: asked when `reason::SIPI` is pending and the CPU is off. Takes it.
    fn start(&mut self) -> Option<Start>;
}

/// A port with nothing behind it: no interrupts, timers that never fire, no firmware.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoPort;

impl Port for NoPort {
    fn irq(&mut self, _: World) -> bool {
        false
    }

    fn fiq(&mut self, _: World) -> bool {
        false
    }

    fn gic_read(&mut self, _: GicAccess) -> Result<u64, GicFault> {
        Err(GicFault::Undefined)
    }

    fn gic_write(&mut self, _: GicAccess, _: u64) -> Result<(), GicFault> {
        Err(GicFault::Undefined)
    }

    fn timer_control(&mut self, _: Timer) -> u64 {
        0
    }

    fn set_timer_control(&mut self, _: Timer, _: u64) {}

    fn timer_compare(&mut self, _: Timer) -> u64 {
        0
    }

    fn set_timer_compare(&mut self, _: Timer, _: u64) {}

    fn set_counter_offset(&mut self, _: u64) {}

    fn call(&mut self, _: Conduit, _: [u64; 8]) -> Answer {
        Answer::NotServed
    }

    fn start(&mut self) -> Option<Start> {
        None
    }
}
