//! The host's processor as a model, for accelerators that run guests on it.

use super::{
    CpuModel, Features, IdRegisters, ModelError, on_off,
    property::{Kind, property},
};
use crate::port::SysReg;

/// As help shows it.
pub(super) const NAME_AND_DOC: (&str, &str) = ("host", "The host's own processor, with KVM only");

impl IdRegisters {
    /// Those of a processor, as `read` finds them; what it does not know is zero. Caches are left out.
    pub fn of(mut read: impl FnMut(SysReg) -> Option<u64>) -> Self {
        let mut id = |op1, crn, crm, op2| {
            let value = read(SysReg::new(3, op1, crn, crm, op2));
            value.unwrap_or(0)
        };
        IdRegisters {
            midr: id(0, 0, 0, 0),
            pfr0: id(0, 0, 4, 0),
            pfr1: id(0, 0, 4, 1),
            dfr0: id(0, 0, 5, 0),
            isar0: id(0, 0, 6, 0),
            isar1: id(0, 0, 6, 1),
            isar2: id(0, 0, 6, 2),
            mmfr0: id(0, 0, 7, 0),
            mmfr1: id(0, 0, 7, 1),
            mmfr2: id(0, 0, 7, 2),
            ctr: id(3, 0, 0, 1),
            clidr: id(1, 0, 0, 1),
            ccsidr: [0; 3],
        }
    }
}

/// What `-cpu` may take from the host's processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostOptions {
    /// Performance monitors.
    pub pmu: bool,
    /// Pointer authentication.
    pub pauth: bool,
}

impl HostOptions {
    /// Reads a `-cpu` argument for an accelerator that runs guests on the host's processor.
    ///
    /// # Errors
    /// A model that it is not, and what cannot be chosen about it.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default().trim();
        let plain = name.strip_suffix("-arm-cpu").unwrap_or(name);
        if !matches!(plain, "host" | "max") {
            // A name that there is not at all is told first.
            CpuModel::parse(name)?;
            return Err(ModelError::NotHost(name.into()));
        }
        let mut options = HostOptions {
            pmu: true,
            pauth: true,
        };
        for part in parts.map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, "on"));
            let property = property(name)?;
            let why = match property.kind {
                Kind::Pmu => {
                    options.pmu = on_off(name, value)?;
                    continue;
                }
                Kind::Pauth => {
                    options.pauth = on_off(name, value)?;
                    continue;
                }
                Kind::Kvm(only, _) if on_off(name, value)? == only => continue,
                Kind::Present(_) if on_off(name, value)? => continue,
                Kind::Absent(_) if !on_off(name, value)? => continue,
                Kind::Kvm(_, advice) | Kind::Elsewhere(advice) => {
                    return Err(ModelError::Elsewhere {
                        name: name.into(),
                        advice,
                    });
                }
                Kind::Present(why) => {
                    return Err(ModelError::Lasting {
                        name: name.into(),
                        why,
                    });
                }
                Kind::Absent(_) => "guests under KVM do not get it yet",
                Kind::Algorithm(_) | Kind::OldPauth => "the algorithm is the host's",
                Kind::Frequency | Kind::OldFrequency => "the counter is the host's",
                Kind::Midr => "it is the host's",
                Kind::Rvbar => "guests under KVM begin at zero",
            };
            return Err(ModelError::Missing {
                name: name.into(),
                why,
            });
        }
        Ok(options)
    }
}

impl CpuModel {
    /// The host's processor.
    pub fn host(id: IdRegisters, counter_hz: u64) -> CpuModel {
        let mut model = CpuModel {
            name: "host",
            id,
            counter_hz,
            rvbar: 0,
            features: Features::default(),
        };
        // Guests have EL1 at most, whatever the registers say of the host.
        model.set_el2(false);
        model.set_el3(false);
        model
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_own_processor_is_to_be_had_from_it() {
        let text = |cpu| HostOptions::parse(cpu).unwrap_err().to_string();
        assert_eq!(
            text("cortex-a57"),
            "under KVM a guest has the host's own processor: use '-cpu host' instead of 'cortex-a57'"
        );
        assert_eq!(
            text("cortex-57"),
            "unable to find CPU model 'cortex-57' (did you mean 'cortex-a57'?)"
        );
        assert_eq!(
            text("host,cntfrq=1000"),
            "'cntfrq' cannot be turned on: the counter is the host's"
        );
        assert_eq!(
            text("max,sve=on"),
            "'sve' cannot be turned on: guests under KVM do not get it yet"
        );
        assert_eq!(
            text("host,kvm-no-adjvtime=off"),
            "'kvm-no-adjvtime' is no choice here: the counter goes on while the machine is stopped"
        );
        assert!(HostOptions::parse("host,kvm-no-adjvtime=on,kvm-steal-time=off").is_ok());
        let options = HostOptions::parse("host,pmu=off,pauth=off,sve=off").unwrap();
        assert!(!options.pmu && !options.pauth);
    }
}
