//! `cfi.pflash01`: NOR flash with the Intel command set.
//!
//! Spec: Intel P30 datasheet 306666, "Device Command Codes" and "Status Register"; JESD68.01 for
//! what the chips say of themselves.
//!
//! In read-array mode the chips are memory from which CPUs can execute; in every other mode a
//! register covers them.
//!
//! Not modelled: protection of blocks (they are never locked), suspended operations, the time that
//! operations take.

mod bank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use backend_block::SharedBlock;
use hw_core::{
    Access, AccessSizes, Args, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Mapping,
    PropType, Region, ResetKind, Section, StateError, Wiring, prop,
};
use hw_memory::{MappingSpec, RamBlock, What};
use runtime::{RateLimit, log_limited};

use crate::image::Image;
use bank::Bank;

/// Device commands.
mod command {
    pub(super) const READ_ARRAY: u8 = 0xff;
    /// AMD's way back to the array, which probing drivers try, too.
    pub(super) const RESET: u8 = 0xf0;
    pub(super) const PROGRAM: [u8; 2] = [0x40, 0x10];
    pub(super) const BLOCK_ERASE: u8 = 0x20;
    pub(super) const CLEAR_STATUS: u8 = 0x50;
    pub(super) const BLOCK_LOCK: u8 = 0x60;
    pub(super) const READ_STATUS: u8 = 0x70;
    pub(super) const READ_ID: u8 = 0x90;
    pub(super) const READ_QUERY: u8 = 0x98;
    pub(super) const BUFFERED_PROGRAM: u8 = 0xe8;
    pub(super) const CONFIRM: u8 = 0xd0;
    /// Second cycles of `BLOCK_LOCK`.
    pub(super) const LOCK: u8 = 0x01;
    pub(super) const LOCK_DOWN: u8 = 0x2f;
}

/// Status register.
mod status {
    pub(super) const READY: u8 = 1 << 7;
    pub(super) const ERASE_ERROR: u8 = 1 << 5;
    pub(super) const PROGRAM_ERROR: u8 = 1 << 4;
    /// Both together: the commands made no sense.
    pub(super) const SEQUENCE_ERROR: u8 = ERASE_ERROR | PROGRAM_ERROR;
}

const ERASED: u8 = 0xff;

/// What the next write means and what reads give. The numbers are those of the saved form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
enum Mode {
    /// Reads give what is stored; a write is a command.
    #[default]
    Array = 0,
    /// Reads give the status; a write is a command.
    Status = 1,
    /// Reads give the identifier codes; a write is a command.
    Id = 2,
    /// Reads give the query structure; a write is a command.
    Query = 3,
    /// A write is the data to program.
    Program = 4,
    /// A write must confirm that the block is to be erased.
    Erase = 5,
    /// A write says what becomes of the block's lock.
    Lock = 6,
    /// A write says how many words follow.
    Count = 7,
    /// Writes are data for the buffer.
    Fill = 8,
    /// A write must confirm that the buffer is to be programmed.
    Confirm = 9,
}

impl Mode {
    const ALL: [Mode; 10] = [
        Mode::Array,
        Mode::Status,
        Mode::Id,
        Mode::Query,
        Mode::Program,
        Mode::Erase,
        Mode::Lock,
        Mode::Count,
        Mode::Fill,
        Mode::Confirm,
    ];
}

/// Everything the guest can observe beside what is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    mode: Mode,
    status: u8,
    /// Words that `Fill` still waits for.
    left: u32,
    /// Where `buffer` goes.
    buffer_at: u64,
    /// What a buffered program changes: ones leave bits alone.
    buffer: Vec<u8>,
}

impl Default for State {
    fn default() -> Self {
        State {
            mode: Mode::Array,
            status: status::READY,
            left: 0,
            buffer_at: 0,
            buffer: Vec::new(),
        }
    }
}

/// Flash chips on one bus.
pub struct Pflash01 {
    /// Covers the stored bytes while reads give something else.
    register: Mapping,
    limit: RateLimit,

    name: String,
    base: u64,
    bank: Bank,
    image: Image,
    is_read_only: bool,
    /// Only secure software, and that in system management mode, may give commands.
    is_secure: bool,

    state: State,
}

impl Pflash01 {
    /// Chips with the properties of [`CFI_PFLASH01`], with the contents of `disk`.
    pub fn new(args: &Args, disk: Option<SharedBlock>) -> Result<Self, DeviceError> {
        let class = args.class().name;
        let byte = |name| args.int(name).unwrap_or(0) as u8;
        let id = |name| args.int(name).unwrap_or(0) as u16;
        let width = byte("width");
        let device_width = byte("device-width");
        let is_plain = device_width == 0;
        let device_width = if is_plain { width } else { device_width };
        let bank = Bank {
            width,
            device_width,
            max_device_width: match byte("max-device-width") {
                0 => device_width,
                most => most,
            },
            num_blocks: args.need_int("num-blocks")? as u32,
            sector_length: args.need_int("sector-length")?,
            old_handling: args.flag("old-multiple-chip-handling") == Some(true),
            is_plain,
            is_big_endian: args.flag("big-endian") == Some(true),
            ids: [id("id0"), id("id1"), id("id2"), id("id3")],
        };
        bank.check(class)?;
        let name = args.text("name").ok_or_else(|| args.required("name"))?;
        let is_read_only = disk.as_ref().is_some_and(|disk| disk.info().read_only);
        Ok(Pflash01 {
            register: Mapping::default(),
            limit: RateLimit::default(),
            name: name.to_owned(),
            base: args.need_int("base")?,
            image: Image::open(name, bank.len(), disk)?,
            bank,
            is_read_only,
            is_secure: args.flag("secure") == Some(true),
            state: State::default(),
        })
    }

    /// What is stored, for a board that puts firmware in.
    pub fn memory(&self) -> &Arc<RamBlock> {
        &self.image.block
    }

    /// The register covers the array when it has to. Called after every change of the mode.
    fn sync(&self) {
        self.register.set_enabled(self.state.mode != Mode::Array);
    }

    fn may_command(&self, access: &Access) -> bool {
        !self.is_secure || access.attrs.secure || access.attrs.smm
    }

    /// Programs bytes: bits can only become zero.
    fn program(&mut self, offset: u64, bytes: &[u8]) {
        if self.is_read_only {
            self.state.status |= status::PROGRAM_ERROR;
            return;
        }
        let mut stored = vec![0; bytes.len()];
        if self.image.block.read(offset, &mut stored).is_none() {
            return;
        }
        for (stored, byte) in stored.iter_mut().zip(bytes) {
            *stored &= byte;
        }
        self.image.block.write(offset, &stored);
        self.image.changed(offset, bytes.len() as u64);
    }

    fn erase(&mut self, offset: u64) {
        if self.is_read_only {
            self.state.status |= status::ERASE_ERROR;
            return;
        }
        let len = self.bank.sector_length;
        let start = offset & !len.saturating_sub(1);
        self.image.block.fill(start, len, ERASED);
        self.image.changed(start, len);
    }

    /// An operation has ended.
    fn finish(&mut self, error: u8) {
        self.state.status |= status::READY | error;
        self.state.mode = Mode::Status;
    }

    /// A write that is a command. Chips side by side are all told the same.
    fn command(&mut self, command: u8) {
        use command::*;
        self.state.mode = match command {
            READ_ARRAY | RESET => Mode::Array,
            c if PROGRAM.contains(&c) => Mode::Program,
            BLOCK_ERASE => Mode::Erase,
            CLEAR_STATUS => {
                // UEFI for PCs knows the chip by a status that is all zero now, READY included.
                self.state.status = 0;
                Mode::Array
            }
            BLOCK_LOCK => Mode::Lock,
            READ_STATUS => Mode::Status,
            READ_ID => Mode::Id,
            READ_QUERY => Mode::Query,
            BUFFERED_PROGRAM => {
                self.state.status |= status::READY;
                Mode::Count
            }
            _ => {
                log_limited!(
                    self.limit,
                    log::Level::Warn,
                    target: "guest_errors",
                    "{}: there is no flash command {command:#04x}",
                    self.name
                );
                Mode::Array
            }
        };
    }

    /// Takes the number of words that follow, less one.
    fn count(&mut self, value: u64) {
        let bits = u32::from(self.bank.device_width).saturating_mul(8);
        let mask = 1u64
            .checked_shl(bits)
            .map_or(u64::MAX, |n| n.saturating_sub(1));
        let words = (value & mask).saturating_add(1);
        let bytes = words.saturating_mul(self.bank.width.into());
        if bytes > self.bank.buffer_len() {
            return self.finish(status::SEQUENCE_ERROR);
        }
        self.state.left = words as u32;
        self.state.buffer = Vec::new();
        self.state.mode = Mode::Fill;
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) {
        let len = self.bank.buffer_len();
        if self.state.buffer.is_empty() {
            self.state.buffer_at = offset & !len.saturating_sub(1);
            self.state.buffer = vec![ERASED; usize::try_from(len).unwrap_or(0)];
        }
        let at = offset
            .checked_sub(self.state.buffer_at)
            .and_then(|at| usize::try_from(at).ok());
        let slots = at.and_then(|at| self.state.buffer.get_mut(at..at.checked_add(bytes.len())?));
        let Some(slots) = slots else {
            self.state.buffer = Vec::new();
            return self.finish(status::SEQUENCE_ERROR);
        };
        slots.copy_from_slice(bytes);
        self.state.left = self.state.left.saturating_sub(1);
        if self.state.left == 0 {
            self.state.mode = Mode::Confirm;
        }
    }

    /// A write of as many bytes as the bus takes at most at once.
    fn cycle(&mut self, offset: u64, bytes: &[u8]) {
        let value = self.bank.value(bytes);
        let code = value as u8;
        match self.state.mode {
            Mode::Array | Mode::Status | Mode::Id | Mode::Query => self.command(code),
            Mode::Program => {
                self.program(offset, bytes);
                self.finish(0);
            }
            Mode::Erase if code == command::CONFIRM => {
                self.erase(offset);
                self.finish(0);
            }
            Mode::Lock if [command::CONFIRM, command::LOCK, command::LOCK_DOWN].contains(&code) => {
                self.finish(0);
            }
            Mode::Erase | Mode::Lock if code == command::READ_ARRAY => self.command(code),
            Mode::Erase | Mode::Lock => self.finish(status::SEQUENCE_ERROR),
            Mode::Count => self.count(value),
            Mode::Fill => self.fill(offset, bytes),
            Mode::Confirm => {
                let buffer = std::mem::take(&mut self.state.buffer);
                if code == command::CONFIRM {
                    let at = self.state.buffer_at;
                    self.program(at, &buffer);
                    self.finish(0);
                } else {
                    self.finish(status::SEQUENCE_ERROR);
                }
            }
        }
    }
}

impl Device for Pflash01 {
    fn realize(&mut self, w: &mut dyn Wiring) -> Result<(), DeviceError> {
        let len = self.bank.len();
        let region = Region::new(format!("{} register", self.name), self.base, len)
            .sizes(AccessSizes::ANY)
            .priority(2);
        (_, self.register) = w.mmio(region);
        let (_, writes) = w.detached();
        w.memory_map().add(MappingSpec {
            name: self.name.clone(),
            base: self.base,
            len,
            priority: 1,
            enabled: true,
            what: What::Rom {
                block: self.image.block.clone(),
                offset: 0,
                writes: Some(writes),
            },
        });
        if let Some(drain) = self.image.drain() {
            w.on_stop(drain);
        }
        self.sync();
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State::default();
    }

    fn after_reset(&mut self) {
        self.sync();
    }

    fn read(&mut self, access: Access) -> Result<u64, Fault> {
        let (offset, size) = (access.offset, access.size);
        let bank = &self.bank;
        Ok(match self.state.mode {
            Mode::Id if self.may_command(&access) => bank.spread(offset, size, |at| bank.id(at)),
            Mode::Query if self.may_command(&access) => {
                bank.spread(offset, size, |at| bank.query(at))
            }
            mode if mode != Mode::Array && self.may_command(&access) => {
                bank.spread(offset, size, |_| self.state.status.into())
            }
            _ => {
                let stored = self.image.block.load(offset, size);
                stored.ok_or(Fault::NoRegister)?
            }
        })
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Fault> {
        if !self.may_command(&access) {
            return Err(Fault::ReadOnly);
        }
        let mut offset = access.offset;
        let bytes = value.to_le_bytes();
        let bytes = bytes.get(..access.size.into()).ok_or(Fault::BadSize)?;
        for bytes in bytes.chunks(usize::from(self.bank.width).max(1)) {
            self.cycle(offset, bytes);
            offset = offset.saturating_add(bytes.len() as u64);
        }
        self.sync();
        Ok(())
    }

    fn save(&self) -> Section {
        let State {
            mode,
            status,
            left,
            buffer_at,
            buffer,
        } = &self.state;
        Section::new("cfi.pflash01", 1)
            .with(1, *mode as u8)
            .with(2, *status)
            .with(3, *left)
            .with(4, *buffer_at)
            .with(5, buffer.clone())
    }

    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        s.expect("cfi.pflash01", 1)?;
        let mode = usize::from(s.u8(1)?);
        let len = self.bank.buffer_len();
        let state = State {
            mode: *Mode::ALL.get(mode).ok_or(s.bad(1, "no mode"))?,
            status: s.u8(2)?,
            left: s.u32(3)?,
            buffer_at: s.u64(4)?,
            buffer: s.bytes(5)?.to_vec(),
        };
        if u64::from(state.left) > len {
            return Err(s.bad(3, "more words than the buffer has"));
        }
        let is_aligned = state.buffer_at & len.saturating_sub(1) == 0;
        if !is_aligned || state.buffer_at >= self.bank.len() {
            return Err(s.bad(4, "not where a buffer is"));
        }
        if !state.buffer.is_empty() && state.buffer.len() as u64 != len {
            return Err(s.bad(5, "not the size of the buffer"));
        }
        self.state = state;
        // The stored bytes were restored with the machine's memory.
        self.image.changed(0, self.bank.len());
        Ok(())
    }

    fn inspect(&self) -> Vec<(&'static str, u64)> {
        vec![("status", self.state.status.into())]
    }
}

/// `cfi.pflash01`.
pub static CFI_PFLASH01: DeviceClass = DeviceClass {
    name: "cfi.pflash01",
    aliases: &[],
    doc: "NOR flash with the Intel command set",
    bus: BusKind::System,
    category: Category::Storage,
    props: &[
        prop("base", PropType::U64, "", "first address"),
        prop("big-endian", PropType::Bool, "off", "byte order of the bus"),
        prop(
            "device-width",
            PropType::U8,
            "0",
            "bytes of the bus that each chip is on; 0 for one chip",
        ),
        prop(
            "drive",
            PropType::Link("drive"),
            "",
            "what is stored; without one, it is gone with the machine",
        ),
        prop("id0", PropType::U16, "0", "manufacturer code"),
        prop("id1", PropType::U16, "0", "device code"),
        prop(
            "id2",
            PropType::U16,
            "0",
            "device code of one chip, high byte",
        ),
        prop(
            "id3",
            PropType::U16,
            "0",
            "device code of one chip, low byte",
        ),
        prop(
            "max-device-width",
            PropType::U8,
            "0",
            "bytes of the bus that each chip could be on; 0 for device-width",
        ),
        prop("name", PropType::Str, "", "name of its memory"),
        prop("num-blocks", PropType::U32, "", "erase blocks"),
        prop(
            "old-multiple-chip-handling",
            PropType::Bool,
            "off",
            "chips share blocks and not bytes",
        ),
        prop(
            "secure",
            PropType::Bool,
            "off",
            "only secure software gives commands",
        ),
        prop(
            "sector-length",
            PropType::U64,
            "",
            "bytes of an erase block",
        ),
        prop("width", PropType::U8, "", "bytes of the bus"),
    ],
    user_creatable: false,
    create: |args, links| {
        let disk = args.link::<SharedBlock>("drive", links)?;
        Ok(Box::new(Pflash01::new(args, disk)?))
    },
};
