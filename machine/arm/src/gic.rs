//! Which interrupt controller a machine has, and what an accelerator with one of its own leaves out.

use device_intc::GicVersion;
use machine_core::{BoardError, MachineSpec};

use crate::accelerator::Kernel;
use crate::virt::config;

/// CPUs that version 2 serves.
const V2_CPUS: u32 = 8;

/// As `gic-version=` says.
pub(crate) fn version(
    spec: &MachineSpec,
    kernel: Option<&dyn Kernel>,
) -> Result<GicVersion, BoardError> {
    let given = spec.props.iter().any(|(name, _)| name == "gic-version");
    let wanted = spec.property("gic-version");
    let wanted = wanted.as_deref().unwrap_or_default();
    if wanted == "4" {
        return Err(config(
            "-machine: 'gic-version=4' is not available yet; use 'gic-version=3'".into(),
        ));
    }
    let Some(kernel) = kernel else {
        return match wanted {
            "3" | "max" => Ok(GicVersion::V3),
            "host" => Err(config(
                "-machine: 'gic-version=host' is for KVM on an Arm host; use 'gic-version=max'"
                    .into(),
            )),
            _ => Ok(GicVersion::V2),
        };
    };
    let newest = [GicVersion::V3, GicVersion::V2];
    let newest = newest.into_iter().find(|v| kernel.has_gic(*v));
    let newest = newest.ok_or_else(|| config("-accel: the host's KVM has no GIC".into()))?;
    let chosen = match wanted {
        "host" | "max" => newest,
        "3" => GicVersion::V3,
        // The default, where the host has it.
        _ if !given && (!kernel.has_gic(GicVersion::V2) || spec.topology.cpus > V2_CPUS) => newest,
        _ => GicVersion::V2,
    };
    if kernel.has_gic(chosen) {
        return Ok(chosen);
    }
    Err(config(format!(
        "-machine: the host's KVM has no GICv{}; use 'gic-version=host'",
        chosen.number()
    )))
}

/// As `its=` says.
pub(crate) fn has_its(
    spec: &MachineSpec,
    version: GicVersion,
    kernel: Option<&dyn Kernel>,
) -> Result<bool, BoardError> {
    if version != GicVersion::V3 || spec.switch("its") == Some(false) {
        return Ok(false);
    }
    let has = kernel.is_none_or(Kernel::has_its);
    if !has && spec.props.iter().any(|(name, _)| name == "its") {
        return Err(config(
            "-machine: the host's KVM has no translation service for its GICv3; use 'its=off'"
                .into(),
        ));
    }
    Ok(has)
}

/// What guests of an accelerator that has their exception levels itself do not get.
pub(crate) fn refuse_under_kernel(spec: &MachineSpec) -> Result<(), BoardError> {
    for name in ["virtualization", "secure"] {
        if spec.switch(name) == Some(true) {
            return Err(config(format!(
                "-machine: '{name}=on' is not available under KVM; leave it out or use '-accel tcg'"
            )));
        }
    }
    if spec.semihosting.is_some() {
        return Err(config(
            "-semihosting: not available under KVM, which does not tell of such requests; leave it out or use '-accel tcg'"
                .into(),
        ));
    }
    Ok(())
}

/// How to get wider physical addresses.
pub(crate) fn more_bits(kernel: Option<&dyn Kernel>) -> &'static str {
    match kernel {
        Some(_) => "ask for less",
        None => "use '-cpu max'",
    }
}
