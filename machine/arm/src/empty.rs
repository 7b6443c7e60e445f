//! `none`: memory and monitors, for programs that only ask questions.

use hw_core::{Clock, Links};
use machine_core::{Board, BoardError, Machine, MachineSpec, Parts};
use runtime::Handle;

/// Builds it.
pub(crate) fn build(
    spec: &MachineSpec,
    links: &mut Links,
    main_loop: Handle,
    clock: Clock,
) -> Result<Board, BoardError> {
    if spec.kernel.is_some() {
        return Err(BoardError::Boot(
            "machine 'none' has no CPU to run a -kernel; use '-machine virt'".into(),
        ));
    }
    let parts = Parts::new(spec, links, clock)?;
    if let Some(device) = spec.devices.first() {
        return Err(parts.no_bus(device));
    }
    let fabric = parts.fabric.clone();
    fabric.serve_doorbells(main_loop.clone());
    Ok(Board {
        machine: Machine::new(fabric, main_loop),
        input: None,
        pci: None,
        has_nmi: false,
        device_tree: None,
        info: Box::new(|_, _| None),
    })
}
