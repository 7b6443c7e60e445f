//! Checking a property list against a table.
//!
//! The tables are data of whoever owns the thing (a device class, a chardev driver, a machine): a slice of
//! [`PropDef`]. Parsing, help and suggestions all read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

pub use hw_props::{OnOffAuto, PropType as PropKind, PropValue};

use crate::error::OptionError;
use crate::opts::Opts;
use crate::suggest::Hint;

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
                let expected = def.kind.expected(text);
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
        let left = format!("  {}=<{}>", def.name, def.kind.form());
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
