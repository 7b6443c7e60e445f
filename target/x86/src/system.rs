//! System: segmentation, paging, exceptions, control registers, MSRs, CPUID.
#![allow(missing_docs)]
use accel_core::{Access, Exit, Translation, Trap};

pub(crate) mod calls;

pub(crate) use calls::HELPERS;

/// MSRs and the like.
#[derive(Clone, Debug, Default)]
pub struct SystemState;

/// Notes an exception.
pub(crate) fn raise(core: &mut crate::Core, vector: u8, error: Option<u32>) -> Trap {
    core.arch.exception = Some(crate::Exception {
        vector,
        error,
        address: None,
        software: false,
    });
    Trap::Exception
}

pub(crate) fn walk(_: &mut crate::Core, va: u64, _: Access, _: u8) -> Result<Translation, Trap> {
    let allow = accel_core::Permissions {
        read: true,
        write: true,
        exec: true,
    };
    Ok(Translation {
        physical: va,
        page_bits: 12,
        allow,
        global: false,
    })
}

pub(crate) fn deliver(_: &mut crate::Core) -> Result<(), Exit> {
    Err(Exit::Shutdown)
}

pub(crate) fn service(_: &mut crate::Core) -> Result<(), Exit> {
    Err(Exit::Pending)
}

pub(crate) fn after_step(_: &mut crate::Core) -> Result<(), Exit> {
    Ok(())
}
