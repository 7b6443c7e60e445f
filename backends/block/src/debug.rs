//! `blkdebug`: fails requests on purpose, for tests.
//!
//! Beside QEMU's `inject-error` with `errno`, `once`, `iotype`, `sector`, a rule may be given
//! `skip`: how many requests that it matches pass before it strikes. QEMU's events and states are not
//! modelled.

use std::sync::atomic::{AtomicU64, Ordering};

use control_options::{PropDef, PropKind, Props};
use hw_memory::IoVector;

use crate::SECTOR;
use crate::driver::{ChildDef, Driver, DriverClass, DriverKind, Extent, Preallocation};
use crate::edge::Child;
use crate::error::OpenError;
use crate::open::Opening;
use crate::request::BlockError;

/// The driver.
pub static CLASS: DriverClass = DriverClass {
    name: "blkdebug",
    doc: "fails requests on purpose",
    kind: DriverKind::Filter,
    props: &[
        PropDef::new(
            "inject-error.0.errno",
            PropKind::U32,
            "5 (EIO) or 28 (ENOSPC)",
        )
        .or("5"),
        PropDef::new(
            "inject-error.0.iotype",
            PropKind::Enum(&["read", "write", "write-zeroes", "discard", "flush"]),
            "which requests; all if not given",
        ),
        PropDef::new(
            "inject-error.0.sector",
            PropKind::U64,
            "only those that touch this sector",
        ),
        PropDef::new("inject-error.0.once", PropKind::Bool, "only the first").or("off"),
        PropDef::new("inject-error.0.skip", PropKind::U64, "how many pass before").or("0"),
    ],
    children: &[ChildDef::required("image")],
    changes: &[],
    probe: None,
    open,
    create: None,
};

struct Rule {
    error: BlockError,
    kind: Option<String>,
    sector: Option<u64>,
    once: bool,
    skip: u64,
    seen: AtomicU64,
}

struct Debug {
    image: Child,
    rule: Option<Rule>,
}

fn open(opening: &mut Opening<'_>) -> Result<Box<dyn Driver>, OpenError> {
    let Some(image) = opening.named("image")? else {
        let problem = "driver 'blkdebug' needs 'image=...': the node to pass requests on to";
        return Err(OpenError::Other(problem.to_owned()));
    };
    opening.file = image.node().file().to_owned();
    let props = &opening.props;
    let is_given = CLASS.props.iter().any(|prop| props.is_given(prop.name));
    let rule = is_given.then(|| rule(props));
    Ok(Box::new(Debug { image, rule }))
}

fn rule(props: &Props) -> Rule {
    Rule {
        error: match props.unsigned("inject-error.0.errno") {
            Some(28) => BlockError::NoSpace,
            _ => BlockError::Io,
        },
        kind: props.text("inject-error.0.iotype").map(str::to_owned),
        sector: props.unsigned("inject-error.0.sector"),
        once: props.is_on("inject-error.0.once"),
        skip: props.unsigned("inject-error.0.skip").unwrap_or(0),
        seen: AtomicU64::new(0),
    }
}

impl Debug {
    fn strike(&self, kind: &str, offset: u64, len: u64) -> Result<(), BlockError> {
        let Some(rule) = &self.rule else {
            return Ok(());
        };
        let first = offset.checked_div(SECTOR).unwrap_or(0);
        let last = offset.saturating_add(len.saturating_sub(1)) / SECTOR;
        let matches = rule.kind.as_ref().is_none_or(|wanted| wanted == kind)
            && (rule.sector).is_none_or(|sector| len != 0 && (first..=last).contains(&sector));
        if !matches {
            return Ok(());
        }
        let seen = rule.seen.fetch_add(1, Ordering::Relaxed);
        if seen < rule.skip || (rule.once && seen > rule.skip) {
            return Ok(());
        }
        Err(rule.error)
    }
}

impl Driver for Debug {
    fn len(&self) -> u64 {
        self.image.node().len()
    }

    fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.strike("read", offset, memory.len())?;
        self.image.node().read(offset, memory)
    }

    fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.strike("write", offset, memory.len())?;
        self.image.node().write(offset, memory)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        self.strike("write-zeroes", offset, len)?;
        self.image.node().write_zeroes(offset, len, unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        self.strike("discard", offset, len)?;
        self.image.node().discard(offset, len)
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.strike("flush", 0, 0)?;
        self.image.node().flush()
    }

    fn extent(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        self.image.node().extent(offset, len)
    }

    fn resize(&self, len: u64, preallocation: Preallocation) -> Result<(), BlockError> {
        self.image.node().resize(len, preallocation)
    }

    fn children(&self) -> Vec<Child> {
        vec![self.image.clone()]
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
