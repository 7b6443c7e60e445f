//! `pci-testdev`: writes to registers, counted.
//!
//! Spec: QEMU `docs/specs/pci-testdev.rst`. BAR 0 is memory, BAR 1 ports; each begins with a header that
//! chooses a test and shows where to write for it and how many writes were seen. Three tests: any write,
//! any write through an event, a certain value through an event. All writes come to the device and are
//! counted; QEMU counts only those of the first.
//!
//! Not modelled: `membar=`.

#[cfg(test)]
mod tests;

use hw_core::{
    Access, Args, BusKind, Category, Device, DeviceClass, DeviceError, Fault, Links, ResetKind,
    Section, StateError,
};
use hw_pci::{
    ACPI_INDEX, ADDR, BarKind, BarSpec, MULTIFUNCTION, Pci, PciDevice, PciFunction, PciOptions,
    Setup, VENDOR_REDHAT,
};

const NAME: &str = "pci-testdev";
const DEVICE: u16 = 0x0005;
/// Of before there were classes, and no display.
const CLASS: u32 = 0x00_ff00;
/// BAR 0 and BAR 1; what is written to is their upper half.
const LENGTHS: [u64; 2] = [0x1000, 0x100];
const SPACES: [&str; 2] = ["mmio", "portio"];
const TESTS: [&str; 3] = ["no-eventfd", "wildcard-eventfd", "datamatch-eventfd"];
/// The value of a write that counts; others do not in the last test.
const DATA: u8 = 0xfa;

/// Offsets in the header.
mod header {
    pub(super) const TEST: u64 = 0;
    pub(super) const COUNT: usize = 12;
    pub(super) const NAME: usize = 16;
}

/// The test at hand of a BAR.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct State {
    test: u8,
    count: u32,
}

/// The device.
#[derive(Default)]
struct PciTestdev {
    states: [State; 2],
}

/// What the header shows.
fn header(bar: usize, state: State) -> Vec<u8> {
    let (Some(name), Some(len), Some(space)) = (
        TESTS.get(usize::from(state.test)),
        LENGTHS.get(bar),
        SPACES.get(bar),
    ) else {
        // No such test: its width is none of those there are.
        return Vec::new();
    };
    let offset = (*len as u32 / 2).saturating_add(state.test.into());
    let mut bytes = vec![0, 1, 0, 0];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(u32::from(DATA).to_le_bytes());
    bytes.resize(header::COUNT, 0);
    bytes.extend(state.count.to_le_bytes());
    bytes.resize(header::NAME, 0);
    bytes.extend(format!("{space}-{name}\0").into_bytes());
    bytes
}

impl PciFunction for PciTestdev {
    fn name(&self) -> &'static str {
        NAME
    }

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), DeviceError> {
        setup.ids(VENDOR_REDHAT, DEVICE, CLASS, 0);
        let kinds = [BarKind::Memory32 { prefetch: false }, BarKind::Io];
        let names = ["pci-testdev-mmio", "pci-testdev-portio"];
        for (((n, kind), len), name) in (0..).zip(kinds).zip(LENGTHS).zip(names) {
            setup.bar(BarSpec::new(n, name, kind, len))?;
        }
        Ok(())
    }

    fn bar_read(&mut self, _: &mut Pci, bar: u8, access: Access) -> Result<u64, Fault> {
        let bar = usize::from(bar);
        let state = self.states.get(bar).ok_or(Fault::NoRegister)?;
        let bytes = header(bar, *state);
        let from = usize::try_from(access.offset).map_err(|_| Fault::NoRegister)?;
        let shown = bytes.iter().skip(from).take(access.size.into());
        Ok(shown.rev().fold(0, |value, b| value << 8 | u64::from(*b)))
    }

    fn bar_write(&mut self, _: &mut Pci, bar: u8, access: Access, value: u64) -> Result<(), Fault> {
        let bar = usize::from(bar);
        let len = LENGTHS.get(bar).ok_or(Fault::NoRegister)?;
        let state = self.states.get_mut(bar).ok_or(Fault::NoRegister)?;
        if access.offset == header::TEST {
            *state = State {
                test: value as u8,
                count: 0,
            };
        } else if access.offset == (len / 2).saturating_add(state.test.into())
            && (state.test != 2 || value == u64::from(DATA))
        {
            state.count = state.count.saturating_add(1);
        }
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.states = Default::default();
    }

    fn save(&self) -> Section {
        let [a, b] = self.states;
        Section::new(NAME, 1)
            .with(1, a.test)
            .with(2, a.count)
            .with(3, b.test)
            .with(4, b.count)
    }

    fn restore(&mut self, s: &Section) -> Result<(), StateError> {
        s.expect(NAME, 1)?;
        let state = |test, count| {
            Ok(State {
                test: s.u8(test)?,
                count: s.u32(count)?,
            })
        };
        self.states = [state(1, 2)?, state(3, 4)?];
        Ok(())
    }
}

/// The class.
pub(crate) static PCI_TESTDEV: DeviceClass = DeviceClass {
    name: NAME,
    aliases: &[],
    doc: "PCI test device of kvm-unit-tests",
    bus: BusKind::Pci,
    category: Category::Misc,
    props: &[ADDR, MULTIFUNCTION, ACPI_INDEX],
    user_creatable: true,
    create,
};

fn create(args: &Args, _: &mut Links) -> Result<Box<dyn Device>, DeviceError> {
    let device = PciDevice::new(PciTestdev::default(), PciOptions::from_args(args)?);
    Ok(Box::new(device))
}
