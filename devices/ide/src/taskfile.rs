//! The command block registers of an ATA device.
//!
//! Spec: ATA/ATAPI-7 volume 1, section 5 (registers) and volume 2, section 5 (as ports).

use hw_core::{Section, StateError, Value};

/// Bits of the status register (5.15).
pub(crate) mod status {
    /// An error; the error register says which. Of packet devices: check condition.
    pub(crate) const ERR: u8 = 1;
    /// The device waits for data to be moved.
    pub(crate) const DRQ: u8 = 1 << 3;
    /// Seek complete; in use by drivers of old.
    pub(crate) const DSC: u8 = 1 << 4;
    /// The device takes commands.
    pub(crate) const DRDY: u8 = 1 << 6;
    /// The device is at work: no other bit means anything.
    pub(crate) const BSY: u8 = 1 << 7;
    /// At rest.
    pub(crate) const READY: u8 = DRDY | DSC;
}

/// Bits of the error register (5.9).
pub(crate) mod error {
    /// The command was aborted.
    pub(crate) const ABRT: u8 = 1 << 2;
    /// The address does not exist.
    pub(crate) const IDNF: u8 = 1 << 4;
    /// Data could not be read.
    pub(crate) const UNC: u8 = 1 << 6;
    /// Diagnostic code: all is well.
    pub(crate) const PASSED: u8 = 1;
}

/// Bits of the device register (5.7).
pub(crate) mod device {
    /// Device 1, not device 0.
    pub(crate) const DEV: u8 = 1 << 4;
    /// The address is a block number, not cylinder, head and sector.
    pub(crate) const LBA: u8 = 1 << 6;
    /// Bits that always read as ones.
    pub(crate) const OBSOLETE: u8 = 0xa0;
}

/// Bits of the device control register (5.8).
pub(crate) mod control {
    /// No interrupts.
    pub(crate) const NIEN: u8 = 1 << 1;
    /// Software reset.
    pub(crate) const SRST: u8 = 1 << 2;
    /// Reads show what was written before last.
    pub(crate) const HOB: u8 = 1 << 7;
}

/// Interrupt reasons of packet devices, in the sector count register (5.14).
pub(crate) mod reason {
    /// A packet, or the end of the command; not data.
    pub(crate) const CD: u8 = 1;
    /// Towards the host.
    pub(crate) const IO: u8 = 2;
}

/// Signature of a packet device in the upper two LBA registers (volume 1, 5.16).
pub(crate) const PACKET_SIGNATURE: [u8; 2] = [0x14, 0xeb];

/// The registers. Each of the wide ones is a queue of two bytes: the last one written in the low half,
/// the one before it in the high half (48-bit addressing, volume 1, 4.13).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TaskFile {
    pub(crate) feature: u16,
    pub(crate) count: u16,
    /// Low, mid, high.
    pub(crate) lba: [u16; 3],
    pub(crate) device: u8,
    pub(crate) status: u8,
    pub(crate) error: u8,
}

fn push(register: &mut u16, value: u8) {
    *register = *register << 8 | u16::from(value);
}

impl TaskFile {
    /// A write to one of the ports 1 to 6.
    pub(crate) fn write(&mut self, port: u8, value: u8) {
        let [low, mid, high] = &mut self.lba;
        match port {
            1 => push(&mut self.feature, value),
            2 => push(&mut self.count, value),
            3 => push(low, value),
            4 => push(mid, value),
            5 => push(high, value),
            _ => self.device = value | device::OBSOLETE,
        }
    }

    /// A read of one of the ports 1 to 6; `hob` for what was written before last.
    pub(crate) fn read(&self, port: u8, hob: bool) -> u8 {
        let [low, mid, high] = self.lba;
        let half = |register: u16| if hob { register >> 8 } else { register } as u8;
        match port {
            1 if hob => (self.feature >> 8) as u8,
            1 => self.error,
            2 => half(self.count),
            3 => half(low),
            4 => half(mid),
            5 => half(high),
            _ => self.device,
        }
    }

    /// The 28-bit address.
    pub(crate) fn lba28(&self) -> u64 {
        let bytes = self.lba.map(|register| u64::from(register & 0xff));
        let [low, mid, high] = bytes;
        low | mid << 8 | high << 16 | u64::from(self.device & 0xf) << 24
    }

    /// The 48-bit address.
    pub(crate) fn lba48(&self) -> u64 {
        let half = |shift: u32| {
            let bytes = self
                .lba
                .map(|register| u64::from(register.wrapping_shr(shift) & 0xff));
            let [low, mid, high] = bytes;
            low | mid << 8 | high << 16
        };
        half(0) | half(8) << 24
    }

    /// Puts a 48-bit address in.
    pub(crate) fn set_lba48(&mut self, lba: u64) {
        let pair = |shift: u32| {
            let byte = |shift: u32| (lba.wrapping_shr(shift) & 0xff) as u16;
            byte(shift) | byte(shift.wrapping_add(24)) << 8
        };
        self.lba = [pair(0), pair(8), pair(16)];
    }

    /// Sectors of a command with 28-bit addresses.
    pub(crate) fn count28(&self) -> u64 {
        match self.count & 0xff {
            0 => 256,
            count => u64::from(count),
        }
    }

    /// Sectors of a command with 48-bit addresses.
    pub(crate) fn count48(&self) -> u64 {
        match self.count {
            0 => 0x1_0000,
            count => u64::from(count),
        }
    }

    /// The two registers by which a packet command says how many bytes go at once.
    pub(crate) fn byte_count(&self) -> u16 {
        let [_, mid, high] = self.lba;
        (mid & 0xff) | high << 8
    }

    /// Sets them.
    pub(crate) fn set_byte_count(&mut self, bytes: u16) {
        let [low, ..] = self.lba;
        self.lba = [low, bytes & 0xff, bytes >> 8];
    }

    /// What a device shows after power on and resets (volume 1, 5.16).
    pub(crate) fn signature(is_packet: bool) -> Self {
        let mut registers = TaskFile {
            count: 1,
            lba: [1, 0, 0],
            error: error::PASSED,
            status: if is_packet { 0 } else { status::READY },
            device: device::OBSOLETE,
            feature: 0,
        };
        if is_packet {
            registers.set_byte_count(u16::from_le_bytes(PACKET_SIGNATURE));
        }
        registers
    }

    pub(crate) fn save(&self) -> Section {
        let TaskFile {
            feature,
            count,
            lba,
            device,
            status,
            error,
        } = *self;
        let lba: Value = lba.into_iter().collect();
        Section::new("taskfile", 1)
            .with(1, feature)
            .with(2, count)
            .with(3, lba)
            .with(4, device)
            .with(5, status)
            .with(6, error)
    }

    pub(crate) fn restored(section: &Section) -> Result<Self, StateError> {
        section.expect("taskfile", 1)?;
        let mut lba = [0; 3];
        for (slot, value) in lba.iter_mut().zip(section.u64_array::<3>(3)?) {
            *slot = u16::try_from(value).map_err(|_| section.bad(3, "more than 16 bits"))?;
        }
        Ok(TaskFile {
            feature: section.u16(1)?,
            count: section.u16(2)?,
            lba,
            device: section.u8(4)?,
            status: section.u8(5)?,
            error: section.u8(6)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_48_bits_are_written_in_two_halves() {
        let mut registers = TaskFile::default();
        for (port, first, second) in [(2, 1, 2), (3, 0x44, 0x11), (4, 0x55, 0x22), (5, 0x66, 0x33)]
        {
            registers.write(port, first);
            registers.write(port, second);
        }
        assert_eq!(registers.lba48(), 0x6655_4433_2211);
        assert_eq!(registers.count48(), 0x102);
        registers.write(6, 0xe7);
        assert_eq!(registers.lba28(), 0x733_2211);
        assert_eq!((registers.count28(), registers.read(3, true)), (2, 0x44));
        let mut back = TaskFile::default();
        back.set_lba48(0x6655_4433_2211);
        assert_eq!(back.lba, registers.lba);
        assert_eq!(TaskFile::restored(&registers.save()), Ok(registers));
    }
}
