//! Checking a property list against a table.
//!
//! The tables are data of whoever owns the thing (a device class, a chardev driver, a machine): a slice of
//! [`PropDef`]. Parsing, help and suggestions all read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::error::OptionError;
use crate::number;
use crate::opts::Opts;
use crate::suggest::Hint;

/// What values a property takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PropKind {
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
    /// A MAC address.
    Mac,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// The id of another thing; the text says of what.
    Link(&'static str),
}

impl PropKind {
    /// The type as help shows it.
    pub fn type_name(self) -> String {
        match self {
            Self::Bool => "bool".to_owned(),
            Self::OnOffAuto => "on|off|auto".to_owned(),
            Self::U8 => "uint8".to_owned(),
            Self::U16 => "uint16".to_owned(),
            Self::U32 => "uint32".to_owned(),
            Self::U64 => "uint64".to_owned(),
            Self::I32 => "int32".to_owned(),
            Self::I64 => "int64".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Str => "str".to_owned(),
            Self::Mac => "str".to_owned(),
            Self::Enum(names) => names.join("|"),
            Self::Link(what) => format!("link<{what}>"),
        }
    }

    /// What would be right, for error messages.
    fn expected(self) -> String {
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
            Self::Enum(names) => format!("one of {}", names.join(", ")),
            Self::Link(what) => format!("the id of a {what}"),
        }
    }

    /// Reads a value. `None` if it is not of this kind.
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
            Self::Enum(names) => names
                .contains(&text)
                .then(|| PropValue::Str(text.to_owned())),
            Self::Link(_) => (!text.is_empty()).then(|| PropValue::Str(text.to_owned())),
        }
    }
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
    /// An unsigned number or a size in bytes.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// Text, a word of an enumeration, or the id of a link.
    Str(String),
    /// A MAC address.
    Mac([u8; 6]),
}

/// One property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PropDef {
    /// Its name, as written.
    pub name: &'static str,
    /// What it takes.
    pub kind: PropKind,
    /// The value it has when not given; `None` if then it has none.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
    /// One line for help.
    pub doc: &'static str,
}

impl PropDef {
    /// A property that may be left out.
    pub const fn new(name: &'static str, kind: PropKind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            default: None,
            required: false,
            doc,
        }
    }

    /// With a default.
    #[must_use]
    pub const fn or(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }

    /// That must be given.
    #[must_use]
    pub const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }
}

/// Checked values by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Props {
    values: BTreeMap<&'static str, PropValue>,
    given: Vec<&'static str>,
}

impl Props {
    /// Checks `opts` against `table` and fills in the defaults. `subject` says what is being configured, for messages
    /// ("device 'e1000'").
    ///
    /// # Errors
    /// The first unknown property, bad value or missing property.
    pub fn check(
        option: &str,
        subject: &str,
        opts: &Opts,
        table: &[PropDef],
    ) -> Result<Self, OptionError> {
        let mut props = Self::default();
        for (key, value) in opts.iter() {
            let Some(def) = table.iter().find(|d| d.name == key) else {
                return Err(OptionError::UnknownKey {
                    option: option.to_owned(),
                    subject: subject.to_owned(),
                    key: crate::error::shorten(key),
                    hint: Hint::new(key, table.iter().map(|d| d.name)),
                });
            };
            let text = value.text();
            let value = def.kind.parse(text).ok_or_else(|| {
                let mut expected = def.kind.expected();
                if let PropKind::Enum(names) = def.kind
                    && let Some(best) = crate::suggest::nearest(text, names.iter().copied())
                {
                    let _ = write!(expected, " (did you mean '{best}'?)");
                }
                OptionError::bad_value(option, key, text, expected)
            })?;
            props.values.insert(def.name, value);
            props.given.push(def.name);
        }
        for def in table {
            if props.values.contains_key(def.name) {
                continue;
            }
            if let Some(value) = def.default.and_then(|d| def.kind.parse(d)) {
                props.values.insert(def.name, value);
            } else if def.required {
                return Err(OptionError::MissingKey {
                    option: option.to_owned(),
                    subject: subject.to_owned(),
                    key: def.name.to_owned(),
                    doc: def.doc.to_owned(),
                });
            }
        }
        Ok(props)
    }

    /// Whether the user wrote it, rather than it being a default.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    /// The value, given or default.
    pub fn get(&self, name: &str) -> Option<&PropValue> {
        self.values.get(name)
    }

    /// A switch; off if absent.
    pub fn is_on(&self, name: &str) -> bool {
        matches!(self.get(name), Some(PropValue::Bool(true)))
    }

    /// A number or size.
    pub fn unsigned(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(PropValue::Unsigned(n)) => Some(*n),
            _ => None,
        }
    }

    /// A text, enumeration word or link.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(PropValue::Str(s)) => Some(s),
            _ => None,
        }
    }

    /// A switch that may be `auto`.
    pub fn on_off_auto(&self, name: &str) -> OnOffAuto {
        match self.get(name) {
            Some(PropValue::OnOffAuto(v)) => *v,
            _ => OnOffAuto::Auto,
        }
    }
}

/// The help text of a table, one property a line, in QEMU's form.
pub fn help(subject: &str, table: &[PropDef]) -> String {
    let mut out = format!("{subject} options:\n");
    let mut sorted: Vec<_> = table.iter().collect();
    sorted.sort_by_key(|d| d.name);
    for def in sorted {
        let left = format!("  {}=<{}>", def.name, def.kind.type_name());
        let _ = write!(out, "{left:<32} - {}", def.doc);
        match def.default {
            Some(default) => {
                let _ = writeln!(out, " (default: {default})");
            }
            None => out.push('\n'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[PropDef] = &[
        PropDef::new("path", PropKind::Str, "where it is").required(),
        PropDef::new("queue-size", PropKind::U16, "entries").or("128"),
        PropDef::new("mode", PropKind::Enum(&["fast", "exact"]), "how").or("fast"),
        PropDef::new("share", PropKind::Bool, "with others").or("off"),
    ];

    fn check(text: &str) -> Result<Props, String> {
        let opts = Opts::parse("-thing", text, None).map_err(|e| e.to_string())?;
        Props::check("-thing", "thing 'a'", &opts, TABLE).map_err(|e| e.to_string())
    }

    #[test]
    fn values_are_typed_and_defaults_filled_in() {
        let props = check("path=/x,share=on").unwrap();
        assert_eq!(props.text("path"), Some("/x"));
        assert_eq!(props.unsigned("queue-size"), Some(128));
        assert!(props.is_on("share") && props.is_given("share") && !props.is_given("mode"));
    }

    #[test]
    fn every_mistake_is_a_sentence_with_a_way_out() {
        assert_eq!(
            check("path=/x,queuesize=1").unwrap_err(),
            "-thing: thing 'a' has no property 'queuesize'; did you mean 'queue-size'?"
        );
        assert_eq!(
            check("path=/x,queue-size=70000").unwrap_err(),
            "-thing: 'queue-size' cannot be '70000': expected a number from 0 to 65535"
        );
        assert_eq!(
            check("path=/x,mode=fats").unwrap_err(),
            "-thing: 'mode' cannot be 'fats': expected one of fast, exact (did you mean 'fast'?)"
        );
        assert_eq!(
            check("share=on").unwrap_err(),
            "-thing: thing 'a' needs 'path=...': where it is"
        );
    }

    #[test]
    fn help_lists_the_table() {
        assert_eq!(
            help("thing", TABLE),
            "thing options:\n  \
             mode=<fast|exact>              - how (default: fast)\n  \
             path=<str>                     - where it is\n  \
             queue-size=<uint16>            - entries (default: 128)\n  \
             share=<bool>                   - with others (default: off)\n"
        );
    }
}
