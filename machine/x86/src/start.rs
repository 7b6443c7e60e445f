//! Puts a CPU into the state a boot protocol defines.

use accel_core::{Vcpu, VcpuError};
use firmware_load::CpuStart;
use hw_state::{Section, Value};

/// Applies `start` to a CPU that was just reset.
pub(crate) fn apply(cpu: &mut dyn Vcpu, start: &CpuStart) -> Result<(), VcpuError> {
    let seg = |s: firmware_load::Segment| -> Value {
        [
            u64::from(s.selector),
            s.base,
            s.limit.into(),
            s.attributes.into(),
        ]
        .into_iter()
        .collect()
    };
    let s = Section::new("x86-start", 1)
        .with(1, start.rip)
        .with(2, start.rsp)
        .with(3, start.rax)
        .with(4, start.rbx)
        .with(5, start.rsi)
        .with(6, start.cr0)
        .with(7, start.cr3)
        .with(8, start.cr4)
        .with(9, start.efer)
        .with(10, seg(start.cs))
        .with(11, seg(start.data))
        .with(12, seg(start.tr))
        .with(13, start.gdt.base)
        .with(14, start.gdt.limit);
    cpu.restore(&s)
}
