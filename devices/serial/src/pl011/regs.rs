//! Register map of the PL011 (Arm DDI 0183G, table 3-1).

/// One register, in the order of the manual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reg {
    /// UARTDR, 0x000, RW: characters, received ones with their errors.
    Data,
    /// UARTRSR and UARTECR, 0x004: errors of the character read last; a write clears them.
    Status,
    /// UARTFR, 0x018, RO.
    Flags,
    /// UARTILPR, 0x020, RW.
    IrDa,
    /// UARTIBRD, 0x024, RW.
    IntegerBaud,
    /// UARTFBRD, 0x028, RW.
    FractionalBaud,
    /// UARTLCR_H, 0x02c, RW.
    LineControl,
    /// UARTCR, 0x030, RW.
    Control,
    /// UARTIFLS, 0x034, RW: transmit level in bits 2:0, receive level in 5:3.
    FifoLevels,
    /// UARTIMSC, 0x038, RW.
    IntMask,
    /// UARTRIS, 0x03c, RO.
    RawInt,
    /// UARTMIS, 0x040, RO.
    MaskedInt,
    /// UARTICR, 0x044, WO.
    IntClear,
    /// UARTDMACR, 0x048, RW.
    DmaControl,
    /// UARTPeriphID0-3 and UARTPCellID0-3, 0xfe0-0xffc, RO: one byte each.
    Id(usize),
}

impl Reg {
    pub(super) fn at(offset: u64) -> Option<Self> {
        Some(match offset & !3 {
            0x000 => Reg::Data,
            0x004 => Reg::Status,
            0x018 => Reg::Flags,
            0x020 => Reg::IrDa,
            0x024 => Reg::IntegerBaud,
            0x028 => Reg::FractionalBaud,
            0x02c => Reg::LineControl,
            0x030 => Reg::Control,
            0x034 => Reg::FifoLevels,
            0x038 => Reg::IntMask,
            0x03c => Reg::RawInt,
            0x040 => Reg::MaskedInt,
            0x044 => Reg::IntClear,
            0x048 => Reg::DmaControl,
            n @ 0xfe0..0x1000 => Reg::Id(usize::try_from(n >> 2 & 7).ok()?),
            _ => return None,
        })
    }
}

/// Revision r1p5, which has FIFOs of 16 characters.
pub(super) const ID: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// UARTDR.
pub(super) mod dr {
    pub(crate) const BE: u16 = 1 << 10;
}

/// UARTRSR: overrun.
pub(super) const RSR_OE: u8 = 1 << 3;

/// Both FIFOs interrupt at half.
pub(super) const IFLS_RESET: u8 = 0x12;

/// UARTFR.
pub(super) mod fr {
    pub(crate) const CTS: u16 = 1;
    pub(crate) const DSR: u16 = 1 << 1;
    pub(crate) const DCD: u16 = 1 << 2;
    pub(crate) const BUSY: u16 = 1 << 3;
    pub(crate) const RXFE: u16 = 1 << 4;
    pub(crate) const TXFF: u16 = 1 << 5;
    pub(crate) const RXFF: u16 = 1 << 6;
    pub(crate) const TXFE: u16 = 1 << 7;
}

/// UARTLCR_H.
pub(super) mod lcr {
    pub(crate) const BRK: u8 = 1;
    pub(crate) const FEN: u8 = 1 << 4;
}

/// UARTCR.
pub(super) mod cr {
    pub(crate) const LBE: u16 = 1 << 7;
    /// TXE and RXE.
    pub(crate) const RESET: u16 = 0x300;
}

/// Interrupts, as in UARTIMSC, UARTRIS, UARTMIS and UARTICR.
pub(super) mod int {
    pub(crate) const RX: u16 = 1 << 4;
    pub(crate) const TX: u16 = 1 << 5;
    pub(crate) const RT: u16 = 1 << 6;
    pub(crate) const BE: u16 = 1 << 9;
    pub(crate) const OE: u16 = 1 << 10;
    pub(crate) const ALL: u16 = 0x7ff;
}
