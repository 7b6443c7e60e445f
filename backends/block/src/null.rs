//! `null-co`: a disk that takes everything and holds nothing, for measurements and tests.

use std::sync::Arc;

use control_options::{PropDef, PropKind};
use hw_memory::IoVector;

use crate::driver::{Driver, DriverClass, DriverKind, Extent};
use crate::error::OpenError;
use crate::node::{Node, NodeOptions};
use crate::open::Opening;
use crate::request::BlockError;
use crate::{BackendOptions, BlockBackend, SharedBlock};

/// The driver.
pub static CLASS: DriverClass = DriverClass {
    name: "null-co",
    doc: "takes everything and holds nothing",
    kind: DriverKind::Protocol,
    props: &[
        PropDef::new("size", PropKind::Size, "how long it is").or("1G"),
        PropDef::new("read-zeroes", PropKind::Bool, "whether reads give zeros").or("off"),
    ],
    children: &[],
    changes: &[],
    probe: None,
    open,
    create: None,
};

struct Null {
    len: u64,
    read_zeroes: bool,
}

fn open(opening: &mut Opening<'_>) -> Result<Box<dyn Driver>, OpenError> {
    opening.file = "null-co://".to_owned();
    Ok(Box::new(Null {
        len: opening.props.unsigned("size").unwrap_or(0),
        read_zeroes: opening.props.is_on("read-zeroes"),
    }))
}

/// A disk of zeros that is in no graph: what tests of devices need.
pub fn zero_disk(id: &str, len: u64) -> Result<SharedBlock, OpenError> {
    let driver = Box::new(Null {
        len,
        read_zeroes: true,
    });
    let node = Node::new(id, "null-co://", &CLASS, NodeOptions::default(), driver);
    let backend = BlockBackend::new(id, node, BackendOptions::default())?;
    Ok(Arc::new(backend))
}

impl Driver for Null {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, _: u64, memory: &IoVector) -> Result<(), BlockError> {
        if self.read_zeroes {
            memory.fill(0);
        }
        Ok(())
    }

    fn read_now(&self, offset: u64, memory: &IoVector) -> bool {
        self.read(offset, memory).is_ok()
    }

    fn write(&self, _: u64, _: &IoVector) -> Result<(), BlockError> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> Result<(), BlockError> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), BlockError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    fn extent(&self, _: u64, len: u64) -> Result<Extent, BlockError> {
        Ok(match self.read_zeroes {
            true => Extent::zero(len),
            false => Extent::data(len, None),
        })
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
