//! Firmware: the flash chips it is in and what it is told beside the device tree.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use device_fwcfg::{Items, keys};
use firmware_load::{find_firmware, unpack_arm64};
use firmware_smbios::EntryPoint;
use hw_memory::RamBlock;
use machine_core::{BoardError, Machine, MachineSpec, Parts, bootorder};

use crate::acpi;
use crate::boot::Ram;
use crate::map::{FLASH, RAM_BASE};
use crate::seeds::SeededTree;
use crate::virt::Shape;

const SECTOR: u64 = 256 << 10;

/// Whether there is firmware for the CPUs to begin with.
pub(crate) fn is_there(spec: &MachineSpec) -> bool {
    spec.bios.is_some() || spec.flash.iter().flatten().next().is_some()
}

/// Adds the flash chips, with the firmware of `-bios` in the first.
///
/// With a secure world the first is its own.
pub(crate) fn add_flash(parts: &mut Parts<'_>, has_el3: bool) -> Result<(), BoardError> {
    let blocks = (FLASH.len / SECTOR).to_string();
    let sector = SECTOR.to_string();
    let mut chips = Vec::new();
    for (n, name) in ["virt.flash0", "virt.flash1"].into_iter().enumerate() {
        let base = match (n, has_el3) {
            (0, true) => FLASH.secret(),
            _ => FLASH.base + n as u64 * FLASH.len,
        };
        let base = base.to_string();
        let props = [
            ("base", base.as_str()),
            ("name", name),
            ("num-blocks", blocks.as_str()),
            ("sector-length", sector.as_str()),
            ("width", "4"),
            ("device-width", "2"),
            ("id0", "0x89"),
            ("id1", "0x18"),
        ];
        chips.push(parts.add_flash(n, &props)?);
    }
    if let (Some(name), Some(chip)) = (&parts.spec.bios, chips.first()) {
        load(parts.spec, name, chip)?;
    }
    Ok(())
}

/// Puts the firmware of `-bios` into a chip.
fn load(spec: &MachineSpec, name: &str, chip: &Arc<RamBlock>) -> Result<(), BoardError> {
    let error = |text: String| BoardError::Boot(format!("-bios: {text}"));
    if spec.flash.first().is_some_and(Option::is_some) {
        return Err(error(
            "the first flash chip has a drive already; leave either out".into(),
        ));
    }
    let executable = std::env::current_exe().ok();
    let dirs: &[PathBuf] = &spec.firmware_dirs;
    let path =
        find_firmware(name, dirs, executable.as_deref()).map_err(|e| error(e.to_string()))?;
    let cannot = |e: std::io::Error| error(format!("cannot read {}: {e}", path.display()));
    let len = std::fs::metadata(&path).map_err(cannot)?.len();
    if len == 0 || len > chip.len() {
        return Err(error(format!(
            "{} has {len} bytes; firmware of this machine has 1 to {}",
            path.display(),
            chip.len()
        )));
    }
    let bytes = std::fs::read(&path).map_err(cannot)?;
    // A file that grew meanwhile does not fit either.
    chip.write(0, &bytes)
        .ok_or_else(|| error(format!("{} does not fit", path.display())))
}

/// Everything that firmware finds in fw_cfg beside the items that are always there.
pub(crate) fn offer(parts: &Parts<'_>, shape: &Shape, items: &Items) -> Result<(), BoardError> {
    let spec = parts.spec;
    let file = |name: &str, bytes: Vec<u8>| {
        items
            .add_file(name, bytes)
            .map_err(|e| BoardError::Boot(e.to_string()))
    };
    if shape.has_acpi {
        let tables = firmware_acpi::build_arm(&acpi::board(spec, shape));
        for (name, bytes) in tables.loader().named() {
            file(name, bytes)?;
        }
    }
    if let Some(order) = parts.boot_order.file(spec.boot.strict) {
        file(bootorder::FILE, order)?;
    }
    let tables = machine_core::smbios(spec, &[(RAM_BASE, spec.memory)], EntryPoint::V3)?;
    file(firmware_smbios::TABLES_FILE, tables.structures().to_vec())?;
    file(firmware_smbios::ANCHOR_FILE, tables.anchor(0))?;
    hand_kernel(spec, items)
}

/// Hands firmware the kernel to boot: it asks for these items before it looks at disks.
fn hand_kernel(spec: &MachineSpec, items: &Items) -> Result<(), BoardError> {
    let Some(kernel) = &spec.kernel else {
        return Ok(());
    };
    let error =
        |e: &dyn std::fmt::Display| BoardError::Boot(format!("-kernel {}: {e}", kernel.path));
    let put = |size: u16, data: u16, bytes: Arc<[u8]>| {
        let len = u32::try_from(bytes.len()).map_err(|e| error(&e))?;
        items.add_u32(size, len);
        items.add_bytes(data, bytes);
        Ok::<_, BoardError>(())
    };
    let contents = kernel.contents("-kernel")?;
    let image: Arc<[u8]> = match unpack_arm64(&contents).map_err(|e| error(&e))? {
        Cow::Borrowed(bytes) => bytes.into(),
        Cow::Owned(bytes) => bytes.into(),
    };
    put(keys::KERNEL_SIZE, keys::KERNEL_DATA, image)?;
    if let Some(initrd) = &spec.initrd {
        put(
            keys::INITRD_SIZE,
            keys::INITRD_DATA,
            initrd.contents("-initrd")?.as_slice().into(),
        )?;
    }
    for file in spec.initrd.iter().chain([kernel]) {
        file.forget();
    }
    let mut line = spec.append.clone().into_bytes();
    line.push(0);
    put(keys::CMDLINE_SIZE, keys::CMDLINE_DATA, line.into())
}

/// Has the device tree at the beginning of RAM after every reset: where firmware looks for it.
pub(crate) fn install_tree(machine: &Machine, ram: Ram, tree: SeededTree) {
    machine.set_boot(move |index, _| {
        let put = || ram.write(RAM_BASE, &tree.blob().ok()?);
        if index == 0 && put().is_none() {
            log::error!("the device tree does not fit into guest memory");
        }
    });
}
