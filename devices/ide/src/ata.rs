//! ATA disks: commands and settings.
//!
//! Spec: ATA8-ACS (T13/1699-D), chapter 7; ATA/ATAPI-7 volume 1 for addresses by cylinder, head and
//! sector.
//!
//! Not modelled: security, host protected areas, streaming, media serial numbers, sector sizes other
//! than 512 bytes.

mod identify;
mod ncq;
mod smart;

use std::collections::VecDeque;

use backend_block::{Operation, SECTOR, SharedBlock};
use hw_core::{DeviceError, Section, StateError};

pub(crate) use identify::Words;
pub(crate) use ncq::Queued;

use crate::drive::{ABORTED, Begun, Failure, Job, Way};
use crate::taskfile::{TaskFile, device, error};

/// Most sectors of a block of READ MULTIPLE and WRITE MULTIPLE.
const MULTIPLE_MOST: u8 = 16;
/// Most 512-byte blocks of ranges of a discard.
const RANGE_BLOCKS: u64 = 64;
/// Commands of a queue.
const QUEUE_DEPTH: u8 = 32;
/// Sectors that 28-bit addresses reach.
const LBA28_MOST: u64 = 1 << 28;

/// Command codes (7.1, table 14).
mod op {
    pub(super) const DATA_SET_MANAGEMENT: u8 = 0x06;
    pub(super) const READ_SECTORS: u8 = 0x20;
    pub(super) const READ_SECTORS_NO_RETRY: u8 = 0x21;
    pub(super) const READ_SECTORS_EXT: u8 = 0x24;
    pub(super) const READ_DMA_EXT: u8 = 0x25;
    pub(super) const READ_NATIVE_MAX_EXT: u8 = 0x27;
    pub(super) const READ_MULTIPLE_EXT: u8 = 0x29;
    pub(super) const READ_LOG_EXT: u8 = 0x2f;
    pub(super) const WRITE_SECTORS: u8 = 0x30;
    pub(super) const WRITE_SECTORS_NO_RETRY: u8 = 0x31;
    pub(super) const WRITE_SECTORS_EXT: u8 = 0x34;
    pub(super) const WRITE_DMA_EXT: u8 = 0x35;
    pub(super) const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub(super) const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    pub(super) const READ_VERIFY: u8 = 0x40;
    pub(super) const READ_VERIFY_NO_RETRY: u8 = 0x41;
    pub(super) const READ_VERIFY_EXT: u8 = 0x42;
    pub(super) const SEEK: u8 = 0x70;
    pub(super) const EXECUTE_DIAGNOSTIC: u8 = 0x90;
    pub(super) const INITIALIZE_PARAMETERS: u8 = 0x91;
    pub(super) const SMART: u8 = 0xb0;
    pub(super) const READ_MULTIPLE: u8 = 0xc4;
    pub(super) const WRITE_MULTIPLE: u8 = 0xc5;
    pub(super) const SET_MULTIPLE: u8 = 0xc6;
    pub(super) const READ_DMA: u8 = 0xc8;
    pub(super) const READ_DMA_NO_RETRY: u8 = 0xc9;
    pub(super) const WRITE_DMA: u8 = 0xca;
    pub(super) const WRITE_DMA_NO_RETRY: u8 = 0xcb;
    pub(super) const WRITE_MULTIPLE_FUA_EXT: u8 = 0xce;
    pub(super) const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub(super) const IDLE_IMMEDIATE: u8 = 0xe1;
    pub(super) const STANDBY: u8 = 0xe2;
    pub(super) const IDLE: u8 = 0xe3;
    pub(super) const CHECK_POWER_MODE: u8 = 0xe5;
    pub(super) const SLEEP: u8 = 0xe6;
    pub(super) const FLUSH_CACHE: u8 = 0xe7;
    pub(super) const FLUSH_CACHE_EXT: u8 = 0xea;
    pub(super) const IDENTIFY: u8 = 0xec;
    pub(super) const SET_FEATURES: u8 = 0xef;
    pub(super) const READ_NATIVE_MAX: u8 = 0xf8;
}

/// Subcommands of SET FEATURES (7.45, table 52).
mod feature {
    pub(super) const WRITE_CACHE_ON: u8 = 0x02;
    pub(super) const TRANSFER_MODE: u8 = 0x03;
    pub(super) const SATA_ON: u8 = 0x10;
    pub(super) const LOOK_AHEAD_OFF: u8 = 0x55;
    pub(super) const KEEP_DEFAULTS: u8 = 0x66;
    pub(super) const WRITE_CACHE_OFF: u8 = 0x82;
    pub(super) const SATA_OFF: u8 = 0x90;
    pub(super) const LOOK_AHEAD_ON: u8 = 0xaa;
    pub(super) const REVERT_TO_DEFAULTS: u8 = 0xcc;
}

/// Properties of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskOptions {
    /// `serial`, of which 20 bytes are shown.
    pub serial: String,
    /// `model`, of which 40 bytes are shown.
    pub model: String,
    /// `ver`, of which 8 bytes are shown.
    pub version: String,
    /// `wwn`; zero for none.
    pub wwn: u64,
    /// `physical_block_size`, bytes.
    pub physical_block_size: u32,
    /// `rotation_rate` in turns a minute; 1 for a disk without moving parts, 0 for unknown.
    pub rotation_rate: u16,
    /// Whether the write cache is on at first.
    pub write_back: bool,
    /// Whether discards reach the image.
    pub discard: bool,
    /// `cyls`, `heads`, `secs`: the geometry that firmware of old is told, or one that suits.
    pub geometry: Option<(u16, u8, u8)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    /// Sectors of a block of READ MULTIPLE; 0: the command is not to be used.
    multiple: u8,
    /// Transfer mode as SET FEATURES has it (7.45.6, table 53); 0 for none chosen.
    mode: u8,
    write_cache: bool,
    look_ahead: bool,
    smart: bool,
    /// Heads and sectors of a track that the host counts with.
    heads: u8,
    track: u8,
    /// The last error of the queue, as the log has it.
    queue_error: Option<ncq::QueueError>,
}

/// How an address is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Address {
    /// 28 bits, or cylinder, head and sector.
    Short,
    /// 48 bits.
    Long,
}

/// A disk.
pub(crate) struct Disk {
    medium: SharedBlock,
    options: DiskOptions,
    /// Most commands under way at once.
    queue_depth: u8,
    state: State,
}

impl Disk {
    pub(crate) fn new(medium: SharedBlock, options: DiskOptions) -> Result<Self, DeviceError> {
        let bad = |why: &str| Err(DeviceError::Other(format!("ide-hd: {why}")));
        let physical = options.physical_block_size;
        if !physical.is_power_of_two() || !(512..=32768).contains(&physical) {
            return bad("physical_block_size must be a power of two from 512 to 32768");
        }
        if medium.info().read_only {
            return bad(
                "an ATA disk cannot be read-only; leave 'readonly=on' out, or use a CD drive, or virtio-blk",
            );
        }
        if let Some((cylinders, heads, sectors)) = options.geometry
            && !((1..=65535).contains(&cylinders)
                && (1..=16).contains(&heads)
                && (1..=255).contains(&sectors))
        {
            return bad("there are 1 to 65535 cyls, 1 to 16 heads and 1 to 255 secs");
        }
        let mut disk = Disk {
            medium,
            state: State {
                multiple: MULTIPLE_MOST,
                mode: 0,
                write_cache: options.write_back,
                look_ahead: true,
                smart: true,
                heads: 16,
                track: 63,
                queue_error: None,
            },
            options,
            queue_depth: 1,
        };
        disk.power_on();
        Ok(disk)
    }

    pub(crate) fn medium(&self) -> &SharedBlock {
        &self.medium
    }

    /// Whether the cable is a serial one: then commands can be queued.
    pub(crate) fn set_serial(&mut self, is_serial: bool) {
        self.queue_depth = if is_serial { QUEUE_DEPTH } else { 1 };
    }

    pub(crate) fn write_cache(&self) -> bool {
        self.state.write_cache
    }

    fn sectors(&self) -> u64 {
        self.medium.len().checked_div(SECTOR).unwrap_or(0)
    }

    /// Cylinders, heads and sectors as IDENTIFY gives them (ATA/ATAPI-7 volume 1, 6.2).
    pub(crate) fn geometry(&self) -> (u16, u8, u8) {
        self.options.geometry.unwrap_or_else(|| {
            let cylinders = self.sectors().checked_div(16 * 63).unwrap_or(0);
            (cylinders.clamp(1, 16383) as u16, 16, 63)
        })
    }

    pub(crate) fn power_on(&mut self) {
        let (_, heads, track) = self.geometry();
        self.state = State {
            multiple: MULTIPLE_MOST,
            mode: 0,
            write_cache: self.options.write_back,
            look_ahead: true,
            smart: true,
            heads,
            track,
            queue_error: None,
        };
    }

    pub(crate) fn begin(
        &mut self,
        command: u8,
        registers: &mut TaskFile,
    ) -> Result<Begun, Failure> {
        use Address::{Long, Short};
        let dma = Way::Dma;
        let pio = Way::Pio(SECTOR);
        let multiple = Way::Pio(u64::from(self.state.multiple).wrapping_mul(SECTOR));
        let done = Ok(Begun::new(Job::Done));
        match command {
            op::READ_MULTIPLE
            | op::READ_MULTIPLE_EXT
            | op::WRITE_MULTIPLE
            | op::WRITE_MULTIPLE_EXT
            | op::WRITE_MULTIPLE_FUA_EXT
                if self.state.multiple == 0 =>
            {
                Err(ABORTED)
            }
            op::READ_SECTORS | op::READ_SECTORS_NO_RETRY => self.read(registers, Short, pio),
            op::READ_SECTORS_EXT => self.read(registers, Long, pio),
            op::READ_MULTIPLE => self.read(registers, Short, multiple),
            op::READ_MULTIPLE_EXT => self.read(registers, Long, multiple),
            op::READ_DMA | op::READ_DMA_NO_RETRY => self.read(registers, Short, dma),
            op::READ_DMA_EXT => self.read(registers, Long, dma),
            op::WRITE_SECTORS | op::WRITE_SECTORS_NO_RETRY => {
                self.write(registers, Short, pio, false)
            }
            op::WRITE_SECTORS_EXT => self.write(registers, Long, pio, false),
            op::WRITE_MULTIPLE => self.write(registers, Short, multiple, false),
            op::WRITE_MULTIPLE_EXT => self.write(registers, Long, multiple, false),
            op::WRITE_MULTIPLE_FUA_EXT => self.write(registers, Long, multiple, true),
            op::WRITE_DMA | op::WRITE_DMA_NO_RETRY => self.write(registers, Short, dma, false),
            op::WRITE_DMA_EXT => self.write(registers, Long, dma, false),
            op::WRITE_DMA_FUA_EXT => self.write(registers, Long, dma, true),
            op::READ_VERIFY | op::READ_VERIFY_NO_RETRY => {
                self.span(registers, Short)?;
                done
            }
            op::READ_VERIFY_EXT => {
                self.span(registers, Long)?;
                done
            }
            op::FLUSH_CACHE | op::FLUSH_CACHE_EXT => {
                Ok(Begun::new(Job::operation(Operation::Flush)))
            }
            op::DATA_SET_MANAGEMENT => self.data_set(registers),
            op::IDENTIFY => Ok(data(self.identify())),
            op::READ_LOG_EXT => self.read_log(registers).map(data),
            op::SMART => self.smart(registers),
            op::SET_FEATURES => self.set_features(registers),
            op::SET_MULTIPLE => {
                let sectors = registers.count as u8;
                if sectors > MULTIPLE_MOST || (sectors != 0 && !sectors.is_power_of_two()) {
                    return Err(ABORTED);
                }
                self.state.multiple = sectors;
                done
            }
            op::INITIALIZE_PARAMETERS => {
                let track = registers.count as u8;
                if track == 0 {
                    return Err(ABORTED);
                }
                self.state.track = track;
                self.state.heads = (registers.device & 0xf).wrapping_add(1);
                done
            }
            op::READ_NATIVE_MAX => {
                let last = self.sectors().min(LBA28_MOST).saturating_sub(1);
                registers.set_lba48(last & 0xff_ffff);
                registers.device = (registers.device & 0xf0) | (last >> 24) as u8 & 0xf;
                done
            }
            op::READ_NATIVE_MAX_EXT => {
                registers.set_lba48(self.sectors().saturating_sub(1));
                done
            }
            op::EXECUTE_DIAGNOSTIC => {
                *registers = TaskFile::signature(false);
                done
            }
            op::CHECK_POWER_MODE => {
                // Active or idle: a disk that is not made of metal never sleeps.
                registers.count = 0xff;
                done
            }
            op::STANDBY_IMMEDIATE | op::STANDBY => Ok(Begun::new(Job::operation(Operation::Flush))),
            op::IDLE_IMMEDIATE | op::IDLE | op::SLEEP => done,
            op::SEEK => {
                self.place(registers, Address::Short, 1)?;
                done
            }
            _ => Err(ABORTED),
        }
    }

    /// Where the address of a command is on the medium, for so many sectors.
    fn place(
        &self,
        registers: &TaskFile,
        address: Address,
        sectors: u64,
    ) -> Result<(u64, u64), Failure> {
        let not_found = Failure(error::IDNF);
        let lba = match address {
            Address::Long => registers.lba48(),
            Address::Short if registers.device & device::LBA != 0 => registers.lba28(),
            Address::Short => {
                // Sectors of a track are counted from 1 (ATA/ATAPI-7 volume 1, 6.2).
                let [sector, low, high] = registers.lba.map(|register| u64::from(register & 0xff));
                let (heads, track) = (u64::from(self.state.heads), u64::from(self.state.track));
                let head = u64::from(registers.device & 0xf);
                let sector = sector.checked_sub(1).ok_or(not_found)?;
                if head >= heads || sector >= track {
                    return Err(not_found);
                }
                let cylinder = low | high << 8;
                let tracks = cylinder.wrapping_mul(heads).wrapping_add(head);
                tracks.wrapping_mul(track).wrapping_add(sector)
            }
        };
        let end = lba.checked_add(sectors).ok_or(not_found)?;
        if end > self.sectors() {
            return Err(not_found);
        }
        Ok((lba.wrapping_mul(SECTOR), sectors.wrapping_mul(SECTOR)))
    }

    fn span(&self, registers: &TaskFile, address: Address) -> Result<(u64, u64), Failure> {
        let sectors = match address {
            Address::Short => registers.count28(),
            Address::Long => registers.count48(),
        };
        self.place(registers, address, sectors)
    }

    fn read(&self, registers: &TaskFile, address: Address, way: Way) -> Result<Begun, Failure> {
        let (offset, len) = self.span(registers, address)?;
        let job = Job::Read { offset, len };
        Ok(Begun { job, way })
    }

    fn write(
        &self,
        registers: &TaskFile,
        address: Address,
        way: Way,
        fua: bool,
    ) -> Result<Begun, Failure> {
        let (offset, len) = self.span(registers, address)?;
        let job = Job::Write { offset, len, fua };
        Ok(Begun { job, way })
    }

    /// DATA SET MANAGEMENT: TRIM, and nothing else (7.7).
    fn data_set(&self, registers: &TaskFile) -> Result<Begun, Failure> {
        let blocks = u64::from(registers.count);
        if registers.feature & 0xff != 1 || blocks == 0 || blocks > RANGE_BLOCKS {
            return Err(ABORTED);
        }
        Ok(Begun::new(Job::Ranges(blocks.wrapping_mul(SECTOR))))
    }

    /// Ranges of a TRIM: 48 bits of address, 16 of count; those that follow one another become one.
    pub(crate) fn ranges(&self, data: &[u8]) -> Result<Job, Failure> {
        let mut operations: VecDeque<Operation> = VecDeque::new();
        let capacity = self.sectors();
        for entry in data.as_chunks::<8>().0 {
            let entry = u64::from_le_bytes(*entry);
            let (lba, count) = (entry & ((1 << 48) - 1), entry >> 48);
            if count == 0 {
                continue;
            }
            if lba.wrapping_add(count) > capacity {
                return Err(Failure(error::IDNF));
            }
            let (at, bytes) = (lba.wrapping_mul(SECTOR), count.wrapping_mul(SECTOR));
            if let Some(Operation::Discard { offset, len }) = operations.back_mut()
                && offset.checked_add(*len) == Some(at)
            {
                *len = len.saturating_add(bytes);
                continue;
            }
            operations.push_back(Operation::Discard {
                offset: at,
                len: bytes,
            });
        }
        Ok(match operations.is_empty() {
            true => Job::Done,
            false => Job::Operations(operations),
        })
    }

    fn set_features(&mut self, registers: &TaskFile) -> Result<Begun, Failure> {
        let done = Ok(Begun::new(Job::Done));
        match registers.feature as u8 {
            feature::WRITE_CACHE_ON => self.state.write_cache = true,
            feature::WRITE_CACHE_OFF => {
                self.state.write_cache = false;
                return Ok(Begun::new(Job::operation(Operation::Flush)));
            }
            feature::LOOK_AHEAD_ON => self.state.look_ahead = true,
            feature::LOOK_AHEAD_OFF => self.state.look_ahead = false,
            feature::KEEP_DEFAULTS | feature::REVERT_TO_DEFAULTS => {}
            // DIPM and the like, which links without power save nothing by.
            feature::SATA_ON | feature::SATA_OFF => {}
            feature::TRANSFER_MODE => {
                let mode = registers.count as u8;
                match (mode >> 3, mode & 7) {
                    // PIO without and with flow control up to mode 4.
                    (0, 0 | 1) | (1, 0..=4) => {}
                    // Multiword DMA up to 2, Ultra DMA up to 5.
                    (4, 0..=2) | (8, 0..=5) => self.state.mode = mode,
                    _ => return Err(ABORTED),
                }
            }
            _ => return Err(ABORTED),
        }
        done
    }

    pub(crate) fn save(&self) -> Section {
        let State {
            multiple,
            mode,
            write_cache,
            look_ahead,
            smart,
            heads,
            track,
            queue_error,
        } = &self.state;
        let mut section = Section::new("ata", 1)
            .with(1, *multiple)
            .with(2, *mode)
            .with(3, *write_cache)
            .with(4, *look_ahead)
            .with(5, *smart)
            .with(6, *heads)
            .with(7, *track);
        if let Some(error) = queue_error {
            section.push(8, error.save());
        }
        section
    }

    pub(crate) fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        section.expect("ata", 1)?;
        let multiple = section.u8(1)?;
        if multiple > MULTIPLE_MOST || (multiple != 0 && !multiple.is_power_of_two()) {
            return Err(section.bad(1, "no size of a block"));
        }
        let (heads, track) = (section.u8(6)?, section.u8(7)?);
        if heads == 0 || track == 0 {
            return Err(section.bad(6, "no geometry"));
        }
        self.state = State {
            multiple,
            mode: section.u8(2)?,
            write_cache: section.bool(3)?,
            look_ahead: section.bool(4)?,
            smart: section.bool(5)?,
            heads,
            track,
            queue_error: match section.get(8) {
                Some(_) => Some(ncq::QueueError::restored(section.section(8)?)?),
                None => None,
            },
        };
        Ok(())
    }
}

/// A command whose answer is one block of data.
fn data(bytes: Vec<u8>) -> Begun {
    let way = Way::Pio(SECTOR);
    let job = Job::In(bytes);
    Begun { job, way }
}
