//! `throttle`: a filter that holds requests back as its group's limits say.

use std::sync::mpsc::channel;
use std::sync::{Arc, PoisonError, RwLock};

use control_options::{PropDef, PropKind, Props};
use hw_memory::IoVector;

use crate::driver::{ChildDef, Driver, DriverClass, DriverKind, Extent, Preallocation};
use crate::edge::Child;
use crate::error::OpenError;
use crate::open::Opening;
use crate::request::BlockError;
use crate::throttle::{Direction, Member, Throttles};

/// The driver.
pub static CLASS: DriverClass = DriverClass {
    name: "throttle",
    doc: "holds requests back as its group's limits say",
    kind: DriverKind::Filter,
    props: &[PropDef::new(
        "throttle-group",
        PropKind::Str,
        "id of the -object throttle-group with the limits",
    )
    .required()],
    children: &[ChildDef::required("file")],
    changes: &["throttle-group", "file"],
    probe: None,
    open,
    create: None,
};

struct Throttle {
    file: Child,
    throttles: Throttles,
    member: RwLock<Arc<Member>>,
}

/// A member of the group that the properties name.
fn member(throttles: &Throttles, props: &Props) -> Result<RwLock<Arc<Member>>, OpenError> {
    let name = props.text("throttle-group").unwrap_or_default();
    let group = throttles.find(name).ok_or_else(|| {
        let names = throttles.names();
        let near = control_options::suggest::nearest(name, names.iter().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("add '-object throttle-group,id={name}'"),
        };
        OpenError::Other(format!("there is no throttle group '{name}'; {hint}"))
    })?;
    Ok(RwLock::new(Arc::new(group.member())))
}

fn open(opening: &mut Opening<'_>) -> Result<Box<dyn Driver>, OpenError> {
    let throttles = opening.throttles().clone();
    let member = member(&throttles, &opening.props)?;
    let file = opening.file()?;
    Ok(Box::new(Throttle {
        file,
        throttles,
        member,
    }))
}

impl Throttle {
    fn member(&self) -> Arc<Member> {
        let member = self.member.read();
        member.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a request's turn.
    fn wait(&self, direction: Direction, bytes: u64) {
        let (go, gone) = channel();
        let job = Box::new(move || {
            let _ = go.send(());
        });
        self.member().admit(direction, bytes, job);
        // The job is always called, or dropped with the group.
        let _ = gone.recv();
    }
}

impl Driver for Throttle {
    fn len(&self) -> u64 {
        self.file.node().len()
    }

    fn read(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.wait(Direction::Read, memory.len());
        self.file.node().read(offset, memory)
    }

    fn write(&self, offset: u64, memory: &IoVector) -> Result<(), BlockError> {
        self.wait(Direction::Write, memory.len());
        self.file.node().write(offset, memory)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BlockError> {
        self.wait(Direction::Write, len);
        self.file.node().write_zeroes(offset, len, unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), BlockError> {
        self.wait(Direction::Write, len);
        self.file.node().discard(offset, len)
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.file.node().flush()
    }

    fn extent(&self, offset: u64, len: u64) -> Result<Extent, BlockError> {
        self.file.node().extent(offset, len)
    }

    fn resize(&self, len: u64, preallocation: Preallocation) -> Result<(), BlockError> {
        self.file.node().resize(len, preallocation)
    }

    fn children(&self) -> Vec<Child> {
        vec![self.file.clone()]
    }

    fn set_props(&self, props: &Props) -> Result<(), OpenError> {
        let new = member(&self.throttles, props)?.into_inner();
        let mut member = self.member.write().unwrap_or_else(PoisonError::into_inner);
        *member = new.unwrap_or_else(PoisonError::into_inner);
        Ok(())
    }

    fn hurry(&self, on: bool) {
        self.member().hurry(on);
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
