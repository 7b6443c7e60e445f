//! What values a property takes.

use crate::{nearest, number};

/// Type of a property's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PropType {
    /// `on` or `off`.
    Bool,
    /// `on`, `off` or `auto`.
    OnOffAuto,
    /// A number below 2^8.
    U8,
    /// A number below 2^16.
    U16,
    /// A number below 2^32.
    U32,
    /// A number below 2^64.
    U64,
    /// A signed 32-bit number.
    I32,
    /// A signed 64-bit number.
    I64,
    /// A size in bytes, with suffixes.
    Size,
    /// Any text.
    Str,
    /// An Ethernet address.
    Mac,
    /// A PCI slot and function, `04.0`.
    PciAddress,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// The id of another thing; the text says of what (`chardev`, `drive`, `rng`).
    Link(&'static str),
}

/// A switch that may be left to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnOffAuto {
    /// Whatever suits.
    #[default]
    Auto,
    /// On.
    On,
    /// Off.
    Off,
}

/// A checked value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PropValue {
    /// A switch.
    Bool(bool),
    /// A switch or `auto`.
    OnOffAuto(OnOffAuto),
    /// An unsigned number, a size in bytes, or the number of a PCI slot and function.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// Text, a word of an enumeration, or the id of a link.
    Str(String),
    /// A MAC address.
    Mac([u8; 6]),
}

impl PropType {
    /// QEMU's name of the type, as in `-device X,help` and `device-list-properties`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::OnOffAuto => "OnOffAuto",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::Size => "size",
            Self::Str | Self::Mac | Self::PciAddress | Self::Enum(_) => "str",
            Self::Link(kind) => kind,
        }
    }

    /// The type as the help of an option shows it: words in full.
    pub fn form(self) -> String {
        match self {
            Self::OnOffAuto => "on|off|auto".to_owned(),
            Self::Enum(names) => names.join("|"),
            Self::Link(what) => format!("link<{what}>"),
            _ => self.name().to_owned(),
        }
    }

    /// What would be right instead of `text`, for error messages.
    pub fn expected(self, text: &str) -> String {
        match self {
            Self::Bool => "'on' or 'off'".to_owned(),
            Self::OnOffAuto => "'on', 'off' or 'auto'".to_owned(),
            Self::U8 => format!("a number from 0 to {}", u8::MAX),
            Self::U16 => format!("a number from 0 to {}", u16::MAX),
            Self::U32 => format!("a number from 0 to {}", u32::MAX),
            Self::U64 => "a number from 0 to 2^64-1".to_owned(),
            Self::I32 => format!("a number from {} to {}", i32::MIN, i32::MAX),
            Self::I64 => "a number from -2^63 to 2^63-1".to_owned(),
            Self::Size => "a size such as '512', '64K' or '2G'".to_owned(),
            Self::Str => "text".to_owned(),
            Self::Mac => "a MAC address such as '52:54:00:12:34:56'".to_owned(),
            Self::PciAddress => "a PCI slot and function such as '04.0'".to_owned(),
            Self::Enum(names) => {
                let all = names.join(", ");
                match nearest(text, names.iter().copied()) {
                    Some(best) => format!("one of {all} (did you mean '{best}'?)"),
                    None => format!("one of {all}"),
                }
            }
            Self::Link(what) => format!("the id of a {what}"),
        }
    }

    /// Reads a value. `None` if it is not of this type.
    pub fn parse(self, text: &str) -> Option<PropValue> {
        let unsigned = |max: u64| {
            number::unsigned(text)
                .filter(|n| *n <= max)
                .map(PropValue::Unsigned)
        };
        match self {
            Self::Bool => number::switch(text).map(PropValue::Bool),
            Self::OnOffAuto => match text {
                "auto" => Some(PropValue::OnOffAuto(OnOffAuto::Auto)),
                _ => number::switch(text).map(|on| {
                    PropValue::OnOffAuto(if on { OnOffAuto::On } else { OnOffAuto::Off })
                }),
            },
            Self::U8 => unsigned(u8::MAX.into()),
            Self::U16 => unsigned(u16::MAX.into()),
            Self::U32 => unsigned(u32::MAX.into()),
            Self::U64 => unsigned(u64::MAX),
            Self::I32 => number::signed(text)
                .filter(|n| i32::try_from(*n).is_ok())
                .map(PropValue::Signed),
            Self::I64 => number::signed(text).map(PropValue::Signed),
            Self::Size => number::size(text, 1).map(PropValue::Unsigned),
            Self::Str => Some(PropValue::Str(text.to_owned())),
            Self::Mac => number::mac(text).map(PropValue::Mac),
            Self::PciAddress => number::pci_address(text)
                .map(u64::from)
                .map(PropValue::Unsigned),
            Self::Enum(names) => names
                .contains(&text)
                .then(|| PropValue::Str(text.to_owned())),
            Self::Link(_) => (!text.is_empty()).then(|| PropValue::Str(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pci_addresses_are_slots_and_functions() {
        let parse = |text| PropType::PciAddress.parse(text);
        assert_eq!(parse("04.0"), Some(PropValue::Unsigned(0x20)));
        assert_eq!(parse("0x1f.7"), Some(PropValue::Unsigned(0xff)));
        assert_eq!(parse("3"), Some(PropValue::Unsigned(0x18)));
        assert_eq!(parse("0x1.0x2"), Some(PropValue::Unsigned(0x0a)));
        for bad in ["", "20.0", "4.8", "4.", "+4", "4.0.0", "x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_or_not_and_the_way_out_is_said(text in any::<String>()) {
            for ty in [
                PropType::Bool, PropType::OnOffAuto, PropType::U8, PropType::U16, PropType::U32,
                PropType::U64, PropType::I32, PropType::I64, PropType::Size, PropType::Str,
                PropType::Mac, PropType::PciAddress, PropType::Enum(&["fast", "exact"]),
                PropType::Link("drive"),
            ] {
                let _ = ty.parse(&text);
                prop_assert!(!ty.expected(&text).is_empty());
            }
        }

        #[test]
        fn numbers_in_range_are_read(value: u64) {
            for text in [value.to_string(), format!("{value:#x}")] {
                prop_assert_eq!(PropType::U64.parse(&text), Some(PropValue::Unsigned(value)));
                let fits = PropType::U8.parse(&text).is_some();
                prop_assert_eq!(fits, value <= 255);
            }
        }
    }
}
