//! Keys of the items that are not files (QEMU `include/standard-headers/linux/qemu_fw_cfg.h` and
//! `include/hw/nvram/fw_cfg.h` name them so). Numbers are little-endian.

/// "QEMU".
pub const SIGNATURE: u16 = 0x00;
/// Which interfaces exist: bit 0 registers, bit 1 DMA.
pub const ID: u16 = 0x01;
/// The machine's UUID, 16 bytes.
pub const UUID: u16 = 0x02;
/// Bytes of RAM, 64 bits.
pub const RAM_SIZE: u16 = 0x03;
/// Whether there is no display, 16 bits.
pub const NOGRAPHIC: u16 = 0x04;
/// CPUs at boot, 16 bits.
pub const NB_CPUS: u16 = 0x05;
/// Kind of machine.
pub const MACHINE_ID: u16 = 0x06;
/// Where the kernel goes, 32 bits.
pub const KERNEL_ADDR: u16 = 0x07;
/// Its size, 32 bits.
pub const KERNEL_SIZE: u16 = 0x08;
/// Kernel command line (other machines).
pub const KERNEL_CMDLINE: u16 = 0x09;
/// Where the initrd goes, 32 bits.
pub const INITRD_ADDR: u16 = 0x0a;
/// Its size, 32 bits.
pub const INITRD_SIZE: u16 = 0x0b;
/// First boot device (other machines).
pub const BOOT_DEVICE: u16 = 0x0c;
/// NUMA topology.
pub const NUMA: u16 = 0x0d;
/// Whether to show a boot menu, 16 bits.
pub const BOOT_MENU: u16 = 0x0e;
/// CPUs at most, 16 bits.
pub const MAX_CPUS: u16 = 0x0f;
/// Kernel entry point, 32 bits.
pub const KERNEL_ENTRY: u16 = 0x10;
/// The kernel without its set-up code.
pub const KERNEL_DATA: u16 = 0x11;
/// The initrd.
pub const INITRD_DATA: u16 = 0x12;
/// Where the command line goes, 32 bits.
pub const CMDLINE_ADDR: u16 = 0x13;
/// Its size with the final zero, 32 bits.
pub const CMDLINE_SIZE: u16 = 0x14;
/// The command line.
pub const CMDLINE_DATA: u16 = 0x15;
/// Where the set-up code goes, 32 bits.
pub const SETUP_ADDR: u16 = 0x16;
/// Its size, 32 bits.
pub const SETUP_SIZE: u16 = 0x17;
/// The set-up code.
pub const SETUP_DATA: u16 = 0x18;
/// The directory of files.
pub const FILE_DIR: u16 = 0x19;
/// The first file.
pub const FILE_FIRST: u16 = 0x20;
/// Keys of files end before this.
pub(crate) const FILE_END: u16 = 0x4000;
/// Ignored when selecting.
pub(crate) const WRITE_CHANNEL: u16 = 0x4000;
/// x86: bit of the architecture's own keys.
pub const ARCH_LOCAL: u16 = 0x8000;
/// x86: ACPI tables from the command line.
pub const ACPI_TABLES: u16 = 0x8000;
/// x86: SMBIOS entries, old form.
pub const SMBIOS_ENTRIES: u16 = 0x8001;
/// x86: whether the timer's interrupt 0 is on IOAPIC pin 2.
pub const IRQ0_OVERRIDE: u16 = 0x8002;
/// x86: HPET description.
pub const HPET: u16 = 0x8004;
