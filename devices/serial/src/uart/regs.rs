//! Register map of the 16550A (National Semiconductor PC16550D, "Registers", table II).

/// IER bits.
pub(super) mod ier {
    /// Received data available, and the character timeout.
    pub(crate) const RDI: u8 = 1 << 0;
    /// Transmitter holding register empty.
    pub(crate) const THRI: u8 = 1 << 1;
    /// Receiver line status.
    pub(crate) const RLSI: u8 = 1 << 2;
    /// Modem status.
    pub(crate) const MSI: u8 = 1 << 3;
    /// The bits that exist.
    pub(crate) const ALL: u8 = 0x0f;
}

/// IIR values (table IV) and bits.
pub(super) mod iir {
    /// Modem status.
    pub(crate) const MSI: u8 = 0x00;
    /// Nothing pending.
    pub(crate) const NONE: u8 = 0x01;
    /// Transmitter holding register empty.
    pub(crate) const THRI: u8 = 0x02;
    /// Received data available.
    pub(crate) const RDI: u8 = 0x04;
    /// Receiver line status.
    pub(crate) const RLSI: u8 = 0x06;
    /// Character timeout.
    pub(crate) const CTI: u8 = 0x0c;
    /// Both FIFOs are on.
    pub(crate) const FIFOS: u8 = 0xc0;
}

/// FCR bits.
pub(super) mod fcr {
    /// FIFOs on.
    pub(crate) const ENABLE: u8 = 1 << 0;
    /// Clears the receive FIFO, then itself.
    pub(crate) const CLEAR_RX: u8 = 1 << 1;
    /// Clears the transmit FIFO, then itself.
    pub(crate) const CLEAR_TX: u8 = 1 << 2;
    /// DMA mode and trigger level: what stays of a write.
    pub(crate) const KEPT: u8 = 0xc9;
}

/// LCR bits.
pub(super) mod lcr {
    /// Two stop bits.
    pub(crate) const STOP: u8 = 1 << 2;
    /// A parity bit.
    pub(crate) const PARITY: u8 = 1 << 3;
    /// Holds the output in the break state.
    pub(crate) const BREAK: u8 = 1 << 6;
    /// Offsets 0 and 1 are the divisor latch.
    pub(crate) const DLAB: u8 = 1 << 7;
}

/// MCR bits.
pub(super) mod mcr {
    /// Data terminal ready.
    pub(crate) const DTR: u8 = 1 << 0;
    /// Request to send.
    pub(crate) const RTS: u8 = 1 << 1;
    /// Output 1.
    pub(crate) const OUT1: u8 = 1 << 2;
    /// Output 2: gates the interrupt on PCs.
    pub(crate) const OUT2: u8 = 1 << 3;
    /// Local loop-back.
    pub(crate) const LOOP: u8 = 1 << 4;
    /// The bits that exist.
    pub(crate) const ALL: u8 = 0x1f;
}

/// LSR bits.
pub(super) mod lsr {
    /// Data ready.
    pub(crate) const DR: u8 = 1 << 0;
    /// Overrun.
    pub(crate) const OE: u8 = 1 << 1;
    /// Break.
    pub(crate) const BI: u8 = 1 << 4;
    /// Overrun, parity, framing, break.
    pub(crate) const ERRORS: u8 = 0x1e;
    /// Transmitter holding register (or FIFO) empty.
    pub(crate) const THRE: u8 = 1 << 5;
    /// Transmitter empty.
    pub(crate) const TEMT: u8 = 1 << 6;
    /// An error is in the receive FIFO.
    pub(crate) const FIFO_ERROR: u8 = 1 << 7;
}

/// MSR bits.
pub(super) mod msr {
    /// Ring indicator went from on to off.
    pub(crate) const TERI: u8 = 1 << 2;
    /// The four changes.
    pub(crate) const DELTAS: u8 = 0x0f;
    /// Clear to send.
    pub(crate) const CTS: u8 = 1 << 4;
    /// Data set ready.
    pub(crate) const DSR: u8 = 1 << 5;
    /// Ring indicator.
    pub(crate) const RI: u8 = 1 << 6;
    /// Carrier.
    pub(crate) const DCD: u8 = 1 << 7;
}
