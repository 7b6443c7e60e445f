//! A vCPU's state: the form that all accelerators share, and what only the host's processor has.

use hw_state::{Section, StateError};
use target_arm::{CpuModel, CpuState};

/// Tags of what only KVM's processors have, beside those of [`CpuState`].
mod tag {
    pub(super) const IDS: u16 = 64;
    pub(super) const VALUES: u16 = 65;
}

/// Most registers of the host's own in a saved state; the kernel has some hundreds.
const MOST: usize = 4096;

/// All of a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) cpu: CpuState,
    /// Registers that the common state has not, by the kernel's number.
    pub(crate) own: Vec<(u64, u64)>,
}

fn bytes(words: impl Iterator<Item = u64>) -> Vec<u8> {
    words.flat_map(u64::to_le_bytes).collect()
}

fn words(section: &Section, tag: u16) -> Result<Vec<u64>, StateError> {
    if section.get(tag).is_none() {
        return Ok(Vec::new());
    }
    let (words, rest) = section.bytes(tag)?.as_chunks::<8>();
    if !rest.is_empty() || words.len() > MOST {
        return Err(section.bad(tag, "has the wrong length"));
    }
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

impl Full {
    pub(crate) fn save(&self) -> Section {
        let mut section = self.cpu.save();
        section.push(tag::IDS, bytes(self.own.iter().map(|(id, _)| *id)));
        section.push(tag::VALUES, bytes(self.own.iter().map(|(_, value)| *value)));
        section
    }

    pub(crate) fn load(section: &Section, model: &CpuModel) -> Result<Self, StateError> {
        let (ids, values) = (words(section, tag::IDS)?, words(section, tag::VALUES)?);
        if ids.len() != values.len() {
            return Err(section.bad(tag::VALUES, "has the wrong length"));
        }
        Ok(Full {
            cpu: CpuState::load(section, model)?,
            own: ids.into_iter().zip(values).collect(),
        })
    }
}
