//! Puts a CPU into the state a boot protocol defines.

use accel_core::{Vcpu, VcpuError};
use firmware_load::CpuStart;
use target_x86::system::CpuState;
use target_x86::{Segment, Table};

fn segment(s: &firmware_load::Segment) -> Segment {
    Segment {
        selector: s.selector,
        base: s.base,
        limit: s.limit,
        attributes: s.attributes,
    }
}

/// Applies `start` to a CPU that was just reset, through its saved form: the same way for every
/// accelerator.
pub(crate) fn apply(cpu: &mut dyn Vcpu, start: &CpuStart) -> Result<(), VcpuError> {
    let mut state = CpuState::load(&cpu.save()?)?;
    let CpuStart {
        rip,
        rsp,
        rax,
        rbx,
        rsi,
        rflags,
        cr0,
        cr3,
        cr4,
        efer,
        cs,
        data,
        tr,
        gdt,
        idt,
    } = *start;
    let [a, c, d, b, sp, bp, si, di, rest @ ..] = &mut state.gprs;
    (*a, *b, *c, *d) = (rax, rbx, 0, 0);
    (*sp, *bp, *si, *di) = (rsp, 0, rsi, 0);
    *rest = [0; 8];
    state.rip = rip;
    state.rflags = rflags;
    (state.cr0, state.cr3, state.cr4, state.efer) = (cr0, cr3, cr4, efer);
    let data = segment(&data);
    state.segments = [data, segment(&cs), data, data, data, data];
    state.tr = segment(&tr);
    state.gdtr = Table {
        base: gdt.base,
        limit: gdt.limit,
    };
    state.idtr = Table {
        base: idt.base,
        limit: idt.limit,
    };
    cpu.restore(&state.save())
}
