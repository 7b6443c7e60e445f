//! What only the secure world of `virt` reaches (`secure=on`): memory, and the pins by which it switches the
//! machine off. In the map they are where bus masters and the other world do not look.

use std::sync::Arc;

use device_gpio::{Output, PL061, Pl061};
use device_intc::Gic;
use hw_core::Request;
use hw_memory::RamBlock;
use machine_core::{BoardError, Parts, ram_at};

use crate::map::{SECURE_GPIO, SECURE_RAM};

/// Pins of the secure PL061.
pub(crate) mod pin {
    pub(crate) const POWER_OFF: u8 = 0;
    pub(crate) const RESET: u8 = 1;
}

/// The line of the secure PL061, which QEMU's machine has at the first shared interrupt.
pub(crate) const GPIO_LINE: u32 = 0;

/// Adds the memory.
pub(crate) fn add_ram(parts: &Parts<'_>) -> Result<(), BoardError> {
    let size = SECURE_RAM.len;
    let block = RamBlock::new("virt.secure-ram", size);
    let block = Arc::new(block.map_err(|source| BoardError::Memory { size, source })?);
    let mapping = ram_at("virt.secure-ram", SECURE_RAM.secret(), &block, 0, size);
    parts.fabric.memory.add(mapping);
    Ok(())
}

/// Adds the pins.
pub(crate) fn add_power_pins(parts: &mut Parts<'_>, gic: &Arc<Gic>) -> Result<(), BoardError> {
    let outputs = [
        (pin::POWER_OFF, Request::PowerOff),
        (pin::RESET, Request::Reset),
    ];
    let outputs = outputs.map(|(pin, request)| Output { pin, request });
    let gpio = Pl061::new(SECURE_GPIO.secret(), None).with_outputs(&outputs);
    let pins = [("irq", gic.spi(GPIO_LINE))];
    parts.add("secure-pl061", PL061.name, Box::new(gpio), &pins)?;
    Ok(())
}
