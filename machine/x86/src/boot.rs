//! Starting a kernel directly: what is put into memory, and in which state the first CPU begins.

use std::sync::Arc;

use firmware_load::{Boot, CpuStart, E820, E820Kind, Loaded, Module, Places, load};
use hw_core::{Attrs, ByteOrder, Initiator};
use hw_memory::{MemoryMap, RamBlock};

use machine_core::{Board, BoardError};

use crate::board::FOUR_GIB;
use machine_core::MachineSpec;

/// The ACPI root pointer is at the end of the tables' RAM.
const RSDP_LEN: u64 = 64;
/// RAM kept for the ACPI tables, at the end of low memory.
const ACPI_LEN: u64 = 0x2_0000;

/// Where kernels search for SMBIOS tables, and room for them.
const SMBIOS_AT: u64 = 0xf_0000;
const SMBIOS_ROOM: u64 = 0x1_0000;

/// RAM by guest physical address.
#[derive(Clone)]
pub(crate) struct Ram {
    pub(crate) block: Arc<RamBlock>,
    pub(crate) low: u64,
}

impl Ram {
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        self.block
            .write(self.offset(address, bytes.len() as u64)?, bytes)
    }

    /// Puts bytes into RAM, and zeros behind them.
    fn put(&self, address: u64, bytes: &[u8], zeros: u64) -> Option<()> {
        self.write(address, bytes)?;
        let end = address.checked_add(bytes.len() as u64)?;
        self.block.fill(self.offset(end, zeros)?, zeros, 0)
    }

    /// Whether there is RAM for them.
    fn has(&self, address: u64, bytes: &[u8], zeros: u64) -> Option<()> {
        let len = bytes.len() as u64;
        self.offset(address, len)?;
        let end = address.checked_add(len)?;
        let end = self.offset(end, zeros)?.checked_add(zeros)?;
        (end <= self.block.len()).then_some(())
    }

    fn offset(&self, address: u64, len: u64) -> Option<u64> {
        let end = address.checked_add(len)?;
        if end <= self.low {
            return Some(address);
        }
        let high = address.checked_sub(FOUR_GIB)?;
        self.low.checked_add(high)
    }
}

/// The memory map handed to kernels started directly.
pub(crate) fn e820(spec: &MachineSpec, low: u64, extra: &[E820]) -> Vec<E820> {
    let mut map = vec![
        E820::new(0, 0x9_fc00, E820Kind::Ram),
        E820::new(0x9_fc00, 0x400, E820Kind::Reserved),
        E820::new(0xf_0000, 0x1_0000, E820Kind::Reserved),
        E820::new(
            0x10_0000,
            low.saturating_sub(0x10_0000 + ACPI_LEN),
            E820Kind::Ram,
        ),
        E820::new(low.saturating_sub(ACPI_LEN), ACPI_LEN, E820Kind::Acpi),
    ];
    map.extend_from_slice(extra);
    if spec.memory > low {
        map.push(E820::new(FOUR_GIB, spec.memory - low, E820Kind::Ram));
    }
    map
}

/// Initializes the i8259 pair as PC firmware does, all inputs masked: a kernel that never touches them
/// must not get their interrupts.
fn quiet_pics(ports: &MemoryMap) {
    /// Port and value: ICW1 to ICW4 of each, then the masks.
    const SEQUENCE: [(u64, u64); 10] = [
        (0x20, 0x11),
        (0x21, 0x08),
        (0x21, 0x04),
        (0x21, 0x01),
        (0xa0, 0x11),
        (0xa1, 0x70),
        (0xa1, 0x02),
        (0xa1, 0x01),
        (0x21, 0xff),
        (0xa1, 0xff),
    ];
    let map = ports.snapshot();
    for (port, value) in SEQUENCE {
        // A machine without them does not mind.
        let _ = map.write(
            port,
            1,
            value,
            ByteOrder::Little,
            Initiator::Cpu(0),
            Attrs::default(),
        );
    }
}

/// What boots: kernel and tables, ready to be put in place after every reset.
pub(crate) struct Direct {
    pub(crate) spec: MachineSpec,
    pub(crate) ram: Ram,
    pub(crate) cmdline: String,
    pub(crate) e820: Vec<E820>,
    pub(crate) acpi: Option<firmware_acpi::Tables>,
    pub(crate) smbios: Option<firmware_smbios::Tables>,
}

impl Direct {
    /// Lays the kernel out and hands it to `f`.
    fn with_loaded<R>(
        &self,
        f: impl FnOnce(Loaded<'_>) -> Result<R, BoardError>,
    ) -> Result<R, BoardError> {
        let Some(kernel) = &self.spec.kernel else {
            return Err(BoardError::Boot("there is no kernel".into()));
        };
        let image = kernel.contents("-kernel")?;
        let initrd = match &self.spec.initrd {
            Some(file) => Some((file, file.contents("-initrd")?)),
            None => None,
        };
        let module = initrd.as_ref().map(|(file, bytes)| Module {
            bytes,
            cmdline: &file.path,
        });
        let boot = Boot {
            name: &kernel.path,
            cmdline: &self.cmdline,
            modules: module.as_slice(),
            e820: &self.e820,
            rsdp: self
                .acpi
                .as_ref()
                .map(|_| self.ram.low.saturating_sub(RSDP_LEN)),
            places: Places::default(),
        };
        f(load(&image, &boot)
            .map_err(|e| BoardError::Boot(format!("-kernel {}: {e}", kernel.path)))?)
    }

    /// Hands all that is to be in memory to `put`: an address, bytes, and how many zeros follow them.
    fn lay_out(&self, put: impl Fn(u64, &[u8], u64) -> Option<()>) -> Result<CpuStart, BoardError> {
        if let Some(acpi) = &self.acpi {
            let at = self.ram.low.saturating_sub(ACPI_LEN);
            let (rsdp, tables) = acpi.place(at as u32);
            if tables.len() as u64 > ACPI_LEN - RSDP_LEN {
                return Err(BoardError::Boot(
                    "the ACPI tables of so many devices do not fit".into(),
                ));
            }
            let placed = put(self.ram.low.saturating_sub(RSDP_LEN), &rsdp, 0)
                .and_then(|()| put(at, &tables, 0));
            placed.ok_or_else(|| {
                BoardError::Boot("no memory for the ACPI tables; give more with -m".into())
            })?;
        }
        if let Some(smbios) = &self.smbios {
            let bytes = smbios.place(SMBIOS_AT as u32);
            let fits = bytes.len() as u64 <= SMBIOS_ROOM;
            let placed = put(SMBIOS_AT, &bytes, 0).filter(|()| fits);
            placed.ok_or_else(|| {
                BoardError::Boot(format!(
                    "the SMBIOS tables take {} bytes, and there is room for {SMBIOS_ROOM}; leave some '-smbios' out",
                    bytes.len()
                ))
            })?;
        }
        self.with_loaded(|loaded| {
            for chunk in &loaded.chunks {
                put(chunk.address, &chunk.bytes, chunk.zeros).ok_or_else(|| {
                    let end = chunk
                        .address
                        .saturating_add(chunk.bytes.len() as u64 + chunk.zeros);
                    BoardError::Boot(format!(
                        "the kernel needs memory up to {end:#x}; give more with -m"
                    ))
                })?;
            }
            Ok(loaded.cpu)
        })
    }

    /// Checks that it boots, and makes the board do so after every reset.
    pub(crate) fn install(self, board: &Board) -> Result<(), BoardError> {
        self.install_with(board, || {})
    }

    /// As [`install`](Self::install), with what else firmware would have done.
    pub(crate) fn install_with(
        self,
        board: &Board,
        firmware: impl Fn() + Send + Sync + 'static,
    ) -> Result<(), BoardError> {
        self.lay_out(|address, bytes, zeros| self.ram.has(address, bytes, zeros))?;
        let ports = board.machine.fabric().ports.clone();
        board.machine.set_boot(move |index, cpu| {
            if index != 0 {
                return;
            }
            quiet_pics(&ports);
            firmware();
            let start = self.lay_out(|address, bytes, zeros| self.ram.put(address, bytes, zeros));
            // They are read again if there is a reset.
            for file in self.spec.kernel.iter().chain(&self.spec.initrd) {
                file.forget();
            }
            match start {
                Ok(start) => {
                    if let Err(error) = crate::start::apply(cpu, &start) {
                        log::error!("the first CPU cannot be started: {error}");
                    }
                }
                Err(error) => log::error!("{error}"),
            }
        });
        Ok(())
    }
}
