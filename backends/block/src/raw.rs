//! `raw`: a file's bytes as they are, or a part of them.

use std::sync::{PoisonError, RwLock};

use control_options::{PropDef, PropKind, Props};
use hw_memory::IoVector;

use crate::SECTOR;
use crate::driver::{ChildDef, Driver, DriverClass, DriverKind, Extent, Preallocation, Transfer};
use crate::edge::Child;
use crate::error::OpenError;
use crate::node::Node;
use crate::open::{Opening, PROBE_LEN};
use crate::request::BlockError;

/// The driver.
pub static CLASS: DriverClass = DriverClass {
    name: "raw",
    doc: "a file's bytes as they are",
    kind: DriverKind::Format,
    props: &[
        PropDef::new("offset", PropKind::Size, "where in the file it begins").or("0"),
        PropDef::new("size", PropKind::Size, "how long it is"),
    ],
    children: &[ChildDef::required("file")],
    changes: &["offset", "size", "file"],
    probe: None,
    open,
    create: None,
};

/// Tells whether first bytes of a file show a format.
type Prober = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// The part of the file that is the disk.
#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    size: Option<u64>,
}

impl Part {
    fn of(file: &Node, props: &Props) -> Result<Self, OpenError> {
        let offset = props.unsigned("offset").unwrap_or(0);
        let size = props.unsigned("size");
        let (have, name) = (file.len(), file.file());
        let is_odd = |n: u64| !n.is_multiple_of(SECTOR);
        if is_odd(offset) || size.is_some_and(is_odd) {
            return Err(OpenError::image(
                name,
                format!("'offset' and 'size' must be multiples of {SECTOR}"),
            ));
        }
        let end = offset.checked_add(size.unwrap_or(0));
        if end.is_none_or(|end| end > have) {
            return Err(OpenError::image(
                name,
                format!("it has {have} bytes: 'offset' and 'size' reach beyond them"),
            ));
        }
        Ok(Part { offset, size })
    }
}

struct Raw {
    file: Child,
    part: RwLock<Part>,
    /// The format was guessed: first sectors that look like another one are refused, or the guess
    /// would be another one next time.
    guard: Option<Prober>,
}

fn open(opening: &mut Opening<'_>) -> Result<Box<dyn Driver>, OpenError> {
    let guard = opening.is_probed().then(|| Box::new(opening.prober()) as _);
    let file = opening.file()?;
    let part = RwLock::new(Part::of(&file.node(), &opening.props)?);
    Ok(Box::new(Raw { file, part, guard }))
}

impl Raw {
    fn part(&self) -> Part {
        *self.part.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, offset: u64, len: u64) -> Result<u64, BlockError> {
        let end = offset.checked_add(len).ok_or(BlockError::OutOfRange)?;
        let part = self.part();
        if part.size.is_some_and(|size| end > size) {
            return Err(BlockError::OutOfRange);
        }
        let start = part.offset.checked_add(offset);
        start.ok_or(BlockError::OutOfRange)
    }
}

impl Driver for Raw {
    fn len(&self) -> u64 {
        let Part { offset, size } = self.part();
        let rest = self.file.node().len().saturating_sub(offset);
        size.map_or(rest, |size| size.min(rest))
    }

    fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let at = self.at(offset, memory.len())?;
        self.file.node().read(at, memory)
    }

    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        let at = self.at(offset, memory.len());
        at.is_ok_and(|at| self.file.node().read_now(at, memory))
    }

    fn can_start(&self) -> bool {
        self.file.ask(|file| file.driver().can_start())
    }

    fn start(&self, transfer: Transfer) -> Option<Transfer> {
        let is_guarded = transfer.is_write && transfer.offset == 0 && self.guard.is_some();
        match self.at(transfer.offset, transfer.memory.len()) {
            Ok(offset) if !is_guarded => self.file.node().start(Transfer { offset, ..transfer }),
            _ => Some(transfer),
        }
    }

    fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        let at = self.at(offset, memory.len())?;
        if let Some(shows_format) = &self.guard
            && offset == 0
        {
            // A guest may change the bytes while they are written: what was looked at is written.
            let head = IoVector::from(memory.slice(0, PROBE_LEN as u64).to_vec().as_slice());
            if shows_format(&head.to_vec()) {
                log::warn!(
                    "a guest was kept from making the raw image '{}' look like another format; open it with \
                     'format=raw' if that is what it is for",
                    self.file.node().file()
                );
                return Err(BlockError::ReadOnly);
            }
            self.file.node().write(at, &head)?;
            let rest = memory.slice(head.len(), u64::MAX);
            return self.file.node().write(at.saturating_add(head.len()), &rest);
        }
        self.file.node().write(at, memory)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        let at = self.at(offset, len)?;
        self.file.node().write_zeroes(at, len, unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        let at = self.at(offset, len)?;
        self.file.node().discard(at, len)
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.file.node().flush()
    }

    fn extent(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        let at = self.at(offset, len)?;
        let below = self.file.node().extent(at, len)?;
        Ok(Extent {
            stored_at: Some(at),
            ..below
        })
    }

    fn resize(&self, len: u64, preallocation: Preallocation) -> Result<(), BlockError> {
        let part = self.part();
        if part.size.is_some() {
            return Err(BlockError::Unsupported);
        }
        let len = part.offset.checked_add(len).ok_or(BlockError::OutOfRange)?;
        self.file.node().resize(len, preallocation)
    }

    fn set_props(&self, props: &Props) -> Result<(), OpenError> {
        let part = Part::of(&self.file.node(), props)?;
        *self.part.write().unwrap_or_else(PoisonError::into_inner) = part;
        Ok(())
    }

    fn children(&self) -> Vec<Child> {
        vec![self.file.clone()]
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
