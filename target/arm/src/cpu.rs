//! The [`Target`] implementation: ties decoding, memory management and exceptions together.

use accel_core::{Access, Exit, Helper, Layout, Source, Target, Translation, Trap};
use accel_ir::Unit;
use hw_memory::Fault;

use crate::port::Port;
use crate::state::State;
use crate::{Core, regs};

/// The aarch64 architecture.
#[derive(Debug)]
pub struct Arm;

impl Target for Arm {
    const NAME: &'static str = "aarch64";
    const LAYOUT: Layout = regs::LAYOUT;
    type State = State;
    type Port = dyn Port;

    fn helpers() -> &'static [Helper<Self>] {
        &[]
    }

    fn fetch_address(core: &Core) -> u64 {
        core.regs.get(regs::PC)
    }

    fn fetch_ctx(_: &Core) -> u8 {
        0
    }

    fn unit_limit(_: &Core) -> u32 {
        32
    }

    fn translate(_: &mut Core, _: &mut Source, _: u32) -> Result<Unit, Trap> {
        Err(Trap::Exit(Exit::Internal(
            "the engine does not execute aarch64 instructions yet",
        )))
    }

    fn walk(_: &mut Core, _: u64, _: Access, _: u8) -> Result<Translation, Trap> {
        Err(Trap::Exit(Exit::Internal("no aarch64 translation yet")))
    }

    fn bus_fault(_: &mut Core, _: u64, _: Access, _: Fault) -> Result<u64, Trap> {
        Err(Trap::Exit(Exit::Internal("no aarch64 aborts yet")))
    }

    fn alignment_fault(_: &mut Core, _: u64, _: Access) -> Trap {
        Trap::Exit(Exit::Internal("no aarch64 alignment faults yet"))
    }

    fn deliver(_: &mut Core) -> Result<(), Exit> {
        Err(Exit::Internal("no aarch64 exceptions yet"))
    }

    fn service(_: &mut Core) -> Result<(), Exit> {
        Err(Exit::Pending)
    }

    fn after_step(_: &mut Core) -> Result<(), Exit> {
        Ok(())
    }
}
