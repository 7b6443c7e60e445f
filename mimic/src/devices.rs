//! The one list of everything that `-device` and the boards can make.

use control_options::{OptionError, suggest::Hint};
use hw_core::DeviceClass;

/// The tables of all device crates.
static TABLES: &[&[&DeviceClass]] = &[
    device_acpi::CLASSES,
    device_flash::CLASSES,
    device_fwcfg::CLASSES,
    device_gpio::CLASSES,
    device_ide::CLASSES,
    device_input::CLASSES,
    device_intc::CLASSES,
    device_misc::CLASSES,
    device_nvme::CLASSES,
    device_pci::CLASSES,
    device_rtc::CLASSES,
    device_scsi::CLASSES,
    device_serial::CLASSES,
    device_timer::CLASSES,
    device_virtio::CLASSES,
];

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static DeviceClass> + Clone {
    TABLES.iter().flat_map(|table| table.iter().copied())
}

/// The class of a name or alias.
pub fn find(name: &str) -> Option<&'static DeviceClass> {
    classes().find(|class| class.name == name || class.aliases.contains(&name))
}

/// The class of a name, for an option that makes one.
///
/// # Errors
/// When there is none, or only boards make it.
pub fn creatable(option: &str, name: &str) -> Result<&'static DeviceClass, OptionError> {
    match find(name) {
        Some(class) if class.user_creatable => Ok(class),
        Some(class) => Err(OptionError::Unavailable {
            option: option.to_owned(),
            what: format!("'{}' as a device of its own", class.name),
            hint: Hint::text("it is part of the machines that have it; leave it out"),
        }),
        None => Err(unknown(option, name, |class| class.user_creatable)),
    }
}

/// The class of a name, whoever makes its devices.
///
/// # Errors
/// When there is none.
pub fn known(option: &str, name: &str) -> Result<&'static DeviceClass, OptionError> {
    find(name).ok_or_else(|| unknown(option, name, |_| true))
}

fn unknown(option: &str, name: &str, fits: fn(&DeviceClass) -> bool) -> OptionError {
    let names = classes()
        .filter(|class| fits(class))
        .flat_map(|class| std::iter::once(class.name).chain(class.aliases.iter().copied()));
    OptionError::UnknownName {
        option: option.to_owned(),
        what: "device".to_owned(),
        name: name.chars().take(80).collect(),
        hint: match control_options::suggest::nearest(name, names) {
            Some(near) => Hint::text(format!(
                "did you mean '{near}'? ('-device help' lists them all)"
            )),
            None => Hint::text("'-device help' lists those there are"),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn no_two_classes_share_a_name() {
        let mut seen = BTreeSet::new();
        for class in super::classes() {
            for name in std::iter::once(&class.name).chain(class.aliases) {
                assert!(seen.insert(*name), "'{name}' is there twice");
            }
        }
    }

    #[test]
    fn every_default_is_a_value_of_its_property() {
        for class in super::classes() {
            for prop in class.props.iter().filter(|p| !p.default.is_empty()) {
                let args = hw_core::Args::new(class, [(prop.name, prop.default)]);
                assert!(args.is_ok(), "{}.{}: {args:?}", class.name, prop.name);
            }
        }
    }
}
