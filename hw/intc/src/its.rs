//! Registers of a GICv3's interrupt translation service (IHI 0069H section 12.19).

use hw_state::{Section, StateError};

/// What is saved of it; its tables are in guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GicItsState {
    /// `GITS_CTLR.Enabled`.
    pub enabled: bool,
    /// `GITS_CBASER`.
    pub cbaser: u64,
    /// `GITS_CWRITER`.
    pub cwriter: u64,
    /// `GITS_CREADR`.
    pub creadr: u64,
    /// `GITS_BASER` of devices, and of collections.
    pub baser: [u64; 2],
}

impl GicItsState {
    /// The saved form.
    pub fn save(&self) -> Section {
        let GicItsState {
            enabled,
            cbaser,
            cwriter,
            creadr,
            baser: [devices, collections],
        } = self;
        Section::new("gic-its", 1)
            .with(1, *enabled)
            .with(2, *cbaser)
            .with(3, *cwriter)
            .with(4, *creadr)
            .with(5, *devices)
            .with(6, *collections)
    }

    /// From the saved form.
    pub fn restore(s: &Section) -> Result<Self, StateError> {
        s.expect("gic-its", 1)?;
        Ok(GicItsState {
            enabled: s.bool(1)?,
            cbaser: s.u64(2)?,
            cwriter: s.u64(3)?,
            creadr: s.u64(4)?,
            baser: [s.u64(5)?, s.u64(6)?],
        })
    }
}
