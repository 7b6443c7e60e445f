//! What is in RAM when the first CPU begins: kernel, initrd and device tree, or what firmware looks
//! for.
//!
//! Spec: Linux `Documentation/arch/arm64/booting.rst`.

use std::io::ErrorKind;
use std::sync::Arc;

use firmware_fdt::strings;
use firmware_load::{ArmImage, ArmRam, load_arm64};
use hw_memory::RamBlock;
use machine_core::{BoardError, FileSpec, Machine, MachineSpec};
use target_arm::Boot;

use crate::map::RAM_BASE;
use crate::seeds::SeededTree;

/// Kernels map the tree by pieces of this size.
const ALIGN: u64 = 2 << 20;
/// An initrd is this far into RAM, if RAM is large enough: beyond every kernel.
const INITRD_OFFSET: u64 = 128 << 20;
const PAGE: u64 = 4096;

/// Guest memory from `RAM_BASE` on.
#[derive(Clone)]
pub(crate) struct Ram(pub(crate) Arc<RamBlock>);

impl Ram {
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        self.0.write(address.checked_sub(RAM_BASE)?, bytes)
    }

    /// The whole of a file.
    fn copy(&self, address: u64, file: &FileSpec) -> Option<()> {
        let put = |offset, bytes: &[u8]| {
            let at = address.checked_add(offset);
            let done = at.and_then(|at| self.write(at, bytes));
            done.ok_or_else(|| ErrorKind::InvalidInput.into())
        };
        file.copy(put).ok()
    }

    fn clear(&self, address: u64, len: u64) -> Option<()> {
        self.0.fill(address.checked_sub(RAM_BASE)?, len, 0)
    }
}

/// What boots, ready to be put in place after every reset.
pub(crate) struct Direct {
    kernel: FileSpec,
    /// Where it goes, if it goes there as it is.
    image: Option<u64>,
    initrd: Option<(u64, FileSpec)>,
    /// Where the device tree goes.
    tree: u64,
    /// Where the first CPU begins.
    pub(crate) start: Boot,
}

impl Direct {
    /// Lays out kernel and initrd, and completes the tree by them.
    pub(crate) fn plan(
        spec: &MachineSpec,
        kernel: &FileSpec,
        ram_len: u64,
        tree: &mut SeededTree,
    ) -> Result<Self, BoardError> {
        let error =
            |e: &dyn std::fmt::Display| BoardError::Boot(format!("-kernel {}: {e}", kernel.path));
        let ram = ArmRam {
            base: RAM_BASE,
            len: ram_len,
        };
        let head = kernel.head(ArmImage::HEADER).map_err(|e| error(&e))?;
        let image = ArmImage::of(&head, kernel.len() as u64, ram).map_err(|e| error(&e))?;
        let (entry, end, takes_tree) = match image {
            Some(image) => (image.address, image.end, true),
            None => {
                let file = kernel.contents("-kernel")?;
                let loaded = load_arm64(&file, ram).map_err(|e| error(&e))?;
                (loaded.entry, loaded.end, loaded.takes_tree)
            }
        };
        let room = |what: &str, at: u64, len: usize| {
            let end = at.checked_add(len as u64);
            match end.filter(|end| *end <= RAM_BASE.saturating_add(ram_len)) {
                Some(end) => Ok(end),
                None => Err(BoardError::Boot(format!(
                    "{what} ({len} bytes) does not fit into guest memory at {at:#x}; give the guest more with -m"
                ))),
            }
        };
        let mut next = end
            .max(RAM_BASE.saturating_add(INITRD_OFFSET.min(ram_len / 2)))
            .next_multiple_of(PAGE);
        let mut initrd = None;
        tree.change("chosen", |chosen| {
            if !spec.append.is_empty() {
                chosen.set("bootargs", strings(&[&spec.append]));
            }
        });
        if let Some(file) = &spec.initrd {
            let end = room("the initrd", next, file.len())?;
            tree.change("chosen", |chosen| {
                chosen.set("linux,initrd-start", next.to_be_bytes());
                chosen.set("linux,initrd-end", end.to_be_bytes());
            });
            initrd = Some((next, file.clone()));
            next = end;
        }
        let len = tree.blob().map_err(|e| error(&e))?.len();
        let at = next.next_multiple_of(ALIGN);
        room("the device tree", at, len)?;
        let start = Boot {
            pc: entry,
            x: [if takes_tree { at } else { 0 }, 0, 0, 0],
            el: None,
        };
        Ok(Direct {
            kernel: kernel.clone(),
            image: image.map(|image| image.address),
            initrd,
            tree: at,
            start,
        })
    }

    /// It was laid out before: nothing about the files should have changed.
    fn put(&self, ram: &Ram, tree: &SeededTree) -> Option<()> {
        match self.image {
            Some(at) => ram.copy(at, &self.kernel)?,
            None => self.put_parts(ram)?,
        }
        if let Some((at, file)) = &self.initrd {
            ram.copy(*at, file)?;
        }
        ram.write(self.tree, &tree.blob().ok()?)
    }

    fn put_parts(&self, ram: &Ram) -> Option<()> {
        let place = ArmRam {
            base: RAM_BASE,
            len: ram.len(),
        };
        let file = self.kernel.read().ok()?;
        let loaded = load_arm64(&file, place).ok()?;
        for chunk in &loaded.chunks {
            ram.write(chunk.address, &chunk.bytes)?;
            let end = chunk.address.checked_add(chunk.bytes.len() as u64)?;
            ram.clear(end, chunk.zeros)?;
        }
        Some(())
    }

    /// Makes the machine begin so after every reset.
    pub(crate) fn install(self, machine: &Machine, ram: Ram, tree: SeededTree) {
        machine.set_boot(move |index, _| {
            let is_put = index != 0 || self.put(&ram, &tree).is_some();
            // They are read again if there is a reset.
            self.kernel.forget();
            if let Some((_, file)) = &self.initrd {
                file.forget();
            }
            if !is_put {
                log::error!("the files of kernel and initrd are not what they were when the machine was made");
            }
        });
    }
}
