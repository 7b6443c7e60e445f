//! Registers of the host bus adapter (Serial ATA AHCI 1.3.1, chapter 3).

/// Generic host control (3.1).
pub(super) mod host {
    pub(crate) const CAP: u64 = 0x00;
    pub(crate) const GHC: u64 = 0x04;
    pub(crate) const IS: u64 = 0x08;
    pub(crate) const PI: u64 = 0x0c;
    pub(crate) const VS: u64 = 0x10;
    /// First port, and bytes of each.
    pub(crate) const PORTS: u64 = 0x100;
    pub(crate) const PORT_LEN: u64 = 0x80;

    /// 64-bit addresses, queues, AHCI only, 1.5 Gb/s, 32 slots; the number of ports below.
    pub(crate) const CAP_FIXED: u32 = 1 << 31 | 1 << 30 | 1 << 20 | 1 << 18 | 31 << 8;
    /// GHC: reset.
    pub(crate) const HR: u32 = 1;
    /// GHC: interrupts are let through.
    pub(crate) const IE: u32 = 1 << 1;
    /// GHC: AHCI is on, always.
    pub(crate) const AE: u32 = 1 << 31;
    /// Version 1.0.
    pub(crate) const VERSION: u32 = 0x0001_0000;
}

/// Registers of a port (3.3).
pub(super) mod port {
    pub(crate) const CLB: u64 = 0x00;
    pub(crate) const CLBU: u64 = 0x04;
    pub(crate) const FB: u64 = 0x08;
    pub(crate) const FBU: u64 = 0x0c;
    pub(crate) const IS: u64 = 0x10;
    pub(crate) const IE: u64 = 0x14;
    pub(crate) const CMD: u64 = 0x18;
    pub(crate) const TFD: u64 = 0x20;
    pub(crate) const SIG: u64 = 0x24;
    pub(crate) const SSTS: u64 = 0x28;
    pub(crate) const SCTL: u64 = 0x2c;
    pub(crate) const SERR: u64 = 0x30;
    pub(crate) const SACT: u64 = 0x34;
    pub(crate) const CI: u64 = 0x38;
    pub(crate) const SNTF: u64 = 0x3c;
}

/// Bits of PxIS and PxIE (3.3.5).
pub(super) mod event {
    /// A register FIS came from the device.
    pub(crate) const DHRS: u32 = 1;
    /// A PIO setup FIS came.
    pub(crate) const PSS: u32 = 1 << 1;
    /// A set device bits FIS came.
    pub(crate) const SDBS: u32 = 1 << 3;
    /// Another device is there (follows PxSERR.DIAG.X).
    pub(crate) const PCS: u32 = 1 << 6;
    /// The link changed (follows PxSERR.DIAG.N).
    pub(crate) const PRCS: u32 = 1 << 22;
    /// More data than there is memory.
    pub(crate) const OFS: u32 = 1 << 24;
    /// A list in memory could not be read.
    pub(crate) const HBFS: u32 = 1 << 29;
    /// The device reported an error.
    pub(crate) const TFES: u32 = 1 << 30;
    /// All that can be enabled.
    pub(crate) const ALL: u32 = 0xfdc0_00ff;
}

/// Bits of PxCMD (3.3.7).
pub(super) mod cmd {
    /// Commands are processed.
    pub(crate) const ST: u32 = 1;
    /// Override the busy bits of the task file; reads as zero.
    pub(crate) const CLO: u32 = 1 << 3;
    /// Received FISes are stored.
    pub(crate) const FRE: u32 = 1 << 4;
    /// FISes are being stored.
    pub(crate) const FR: u32 = 1 << 14;
    /// Commands are being processed.
    pub(crate) const CR: u32 = 1 << 15;
    /// What software may change, CLO aside: ST, spin-up, power, FRE, and what has no effect here.
    pub(crate) const WRITABLE: u32 = ST | 1 << 1 | 1 << 2 | FRE | 0x0f00_0000;
}

/// PxSSTS (3.3.10): a device, 1.5 Gb/s, active.
pub(super) const LINK_UP: u32 = 0x113;
/// PxSSTS: the port is off line.
pub(super) const LINK_OFF: u32 = 4;
/// PxSCTL: what software may change.
pub(super) const SCTL_WRITABLE: u32 = 0xfff;
/// PxSERR.DIAG.N: the PHY became ready or not.
pub(super) const DIAG_N: u32 = 1 << 16;
/// PxSERR.DIAG.X: a device was exchanged.
pub(super) const DIAG_X: u32 = 1 << 26;

/// Signatures (3.3.9).
pub(super) const SIG_NONE: u32 = 0xffff_ffff;

/// Where received FISes are stored (4.2.1).
pub(super) mod received {
    pub(crate) const PIO_SETUP: u64 = 0x20;
    pub(crate) const REGISTER: u64 = 0x40;
    pub(crate) const DEVICE_BITS: u64 = 0x58;
}

/// FIS types (Serial ATA 2.6, 10.3).
pub(super) mod fis {
    pub(crate) const TO_DEVICE: u8 = 0x27;
    pub(crate) const TO_HOST: u8 = 0x34;
    pub(crate) const PIO_SETUP: u8 = 0x5f;
    pub(crate) const DEVICE_BITS: u8 = 0xa1;
    /// Second byte: a command, not a change of device control.
    pub(crate) const COMMAND: u8 = 0x80;
    /// Second byte: interrupts.
    pub(crate) const INTERRUPTS: u8 = 0x40;
    /// Second byte: towards the host.
    pub(crate) const TOWARDS_HOST: u8 = 0x20;
}
