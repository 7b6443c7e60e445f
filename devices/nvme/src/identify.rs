//! Identify (NVMe, 5.15): what the controller and its namespaces are.

use crate::bus::NAMESPACES;
use crate::command::{Command, Status};
use crate::controller::{Nvme, VERSION};
use crate::namespace::Namespace;

/// Bytes of every answer.
const LEN: usize = 4096;

/// An answer in the making.
struct Answer(Vec<u8>);

impl Answer {
    fn new() -> Self {
        Answer(vec![0; LEN])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let slot = self.0.get_mut(at..at.saturating_add(bytes.len()));
        if let Some(slot) = slot {
            slot.copy_from_slice(bytes);
        }
    }

    /// Padded with blanks.
    fn text(&mut self, at: usize, len: usize, text: &str) {
        let letters = text.bytes().chain(std::iter::repeat(b' '));
        let bytes: Vec<u8> = letters.take(len).collect();
        self.put(at, &bytes);
    }
}

impl Nvme {
    /// The answer to a CNS value.
    pub(crate) fn identify(&self, command: &Command) -> Result<Vec<u8>, Status> {
        const NAMESPACE: u8 = 0x00;
        const CONTROLLER: u8 = 0x01;
        const ACTIVE: u8 = 0x02;
        const DESCRIPTORS: u8 = 0x03;
        const ALL: u32 = 0xffff_ffff;
        let id = command.namespace();
        let is_possible = (1..=NAMESPACES).contains(&id);
        match command.word(10) as u8 {
            CONTROLLER => Ok(self.controller()),
            NAMESPACE => match self.bus.namespace(id) {
                Some(namespace) => Ok(describe(&namespace)),
                // What namespaces have in common; and zeros for those that are not active.
                None if is_possible || id == ALL => Ok(Answer::new().0),
                None => Err(Status::INVALID_NAMESPACE),
            },
            ACTIVE if id < 0xffff_fffe => {
                let all = self.bus.namespaces();
                let above = all.iter().map(|(id, _)| *id).filter(|other| *other > id);
                let mut answer = Answer::new();
                for (n, id) in above.enumerate() {
                    answer.put(n.saturating_mul(4), &id.to_le_bytes());
                }
                Ok(answer.0)
            }
            ACTIVE => Err(Status::INVALID_NAMESPACE),
            DESCRIPTORS => match self.bus.namespace(id) {
                Some(namespace) => Ok(descriptors(&namespace)),
                None => Err(Status::INVALID_NAMESPACE),
            },
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// Figure 247.
    fn controller(&self) -> Vec<u8> {
        const ONCS_COMPARE_DSM_ZEROES_SELECT: u16 = 0x1d;
        const LPA_EFFECTS_EXTENDED: u8 = 6;
        const WRITE_CACHE_FLUSHES_ALL: u8 = 7;
        const NAMESPACE_NOTICES: u32 = 1 << 8;
        let options = &self.options;
        let mut answer = Answer::new();
        answer.put(0, &hw_pci::VENDOR_REDHAT.to_le_bytes());
        answer.put(2, &hw_pci::VENDOR_VIRTUAL.to_le_bytes());
        answer.text(4, 20, &options.serial);
        answer.text(24, 40, "QEMU NVMe Ctrl");
        answer.text(64, 8, "1.0");
        answer.put(72, &[6, 0x00, 0x54, 0x52, 0, options.mdts]);
        answer.put(80, &VERSION.to_le_bytes());
        answer.put(92, &NAMESPACE_NOTICES.to_le_bytes());
        // OACS: none of the optional admin commands. ACL, AERL, one read-only slot of firmware.
        answer.put(256, &[0, 0, 3, options.aerl, 3, LPA_EFFECTS_EXTENDED, 0, 0]);
        answer.put(266, &[0x57, 0x01, 0x75, 0x01]); // warning and critical temperature, K
        answer.put(512, &[0x66, 0x44]); // entries of 64 and 16 bytes
        answer.put(516, &NAMESPACES.to_le_bytes());
        answer.put(520, &ONCS_COMPARE_DSM_ZEROES_SELECT.to_le_bytes());
        answer.put(525, &[WRITE_CACHE_FLUSHES_ALL]);
        let name = format!("nqn.2019-08.org.qemu:{}", options.serial);
        answer.put(
            768,
            name.get(..name.len().min(223))
                .unwrap_or_default()
                .as_bytes(),
        );
        // The one power state: 25 W, latencies in microseconds.
        answer.put(2048, &[0xc4, 0x09, 0, 0, 0x10, 0, 0, 0, 4]);
        answer.0
    }
}

/// Figure 245.
fn describe(namespace: &Namespace) -> Vec<u8> {
    const PREFERRED_SIZES: u8 = 0x10;
    const ZEROES_AFTER_DEALLOCATE: u8 = 0x09;
    let options = &namespace.options;
    let blocks = namespace.blocks().to_le_bytes();
    let mut answer = Answer::new();
    answer.put(0, &blocks);
    answer.put(8, &blocks);
    answer.put(16, &blocks);
    answer.put(24, &[PREFERRED_SIZES]);
    answer.put(33, &[ZEROES_AFTER_DEALLOCATE]);
    let granularity = options.discard_granularity.checked_div(options.block);
    let last = granularity.unwrap_or(1).saturating_sub(1).min(0xffff) as u16;
    for at in [68, 70] {
        answer.put(at, &last.to_le_bytes()); // unit and alignment of deallocation
    }
    answer.put(99, &[u8::from(namespace.is_read_only)]);
    answer.put(120, &options.eui64.to_be_bytes());
    let exponent = options.block.checked_ilog2().unwrap_or(9) as u8;
    answer.put(128, &[0, 0, exponent, 0]); // the one format
    answer.0
}

/// Figure 248.
fn descriptors(namespace: &Namespace) -> Vec<u8> {
    const EUI64: u8 = 1;
    const UUID: u8 = 3;
    let options = &namespace.options;
    let mut list = Vec::new();
    if options.eui64 != 0 {
        list.extend([EUI64, 8, 0, 0]);
        list.extend(options.eui64.to_be_bytes());
    }
    if let Some(uuid) = options.uuid {
        list.extend([UUID, 16, 0, 0]);
        list.extend(uuid);
    }
    let mut answer = Answer::new();
    answer.put(0, &list);
    answer.0
}
