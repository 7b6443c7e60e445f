//! The kinds of guests that programs are measured in.

/// A guest and what runs it.
pub(super) struct Kind {
    /// As users name it, and as QEMU's programs are called.
    pub(super) name: &'static str,
    /// Debian's name of the architecture.
    pub(super) arch: &'static str,
    pub(super) machine: &'static str,
    /// Flags that all emulators get.
    pub(super) flags: &'static [&'static str],
    /// The cross compiler's prefix; `None` for the host's own.
    pub(super) triple: Option<&'static str>,
    /// Debian's package with the QEMU.
    pub(super) package: &'static str,
}

pub(super) static X86_64: Kind = Kind {
    name: "x86_64",
    arch: "amd64",
    machine: "pc",
    flags: &[],
    triple: None,
    package: "qemu-system-x86",
};

/// With page tables of its own for user space, which newer models do without.
static AARCH64: Kind = Kind {
    name: "aarch64",
    arch: "arm64",
    machine: "virt",
    flags: &["-cpu", "cortex-a72"],
    triple: Some("aarch64-linux-gnu"),
    package: "qemu-system-arm",
};

pub(super) static KINDS: &[&Kind] = &[&X86_64, &AARCH64];

impl Kind {
    /// The QEMU for it.
    pub(super) fn qemu(&self) -> String {
        format!("qemu-system-{}", self.name)
    }
}
