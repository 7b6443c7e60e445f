//! Lists of properties: `key=value,key2=value2` or a JSON object.
//!
//! Both become one flat list in the order written; members of nested JSON objects and arrays get dotted keys
//! (`file.driver`, `addr.0`), which is how the other form writes them.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use crate::error::{OptionError, shorten};
use crate::number;

/// Deepest nesting of JSON that is looked at.
const DEPTH_MAX: usize = 32;

/// A value as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// Text; everything is, in the `key=value` form.
    Text(String),
    /// A JSON number, in its own spelling.
    Number(String),
    /// A JSON boolean, or a bare key in the `key=value` form.
    Bool(bool),
    /// JSON `null`.
    Null,
}

impl Scalar {
    /// The value as the `key=value` form would write it.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(s) | Self::Number(s) => s,
            Self::Bool(true) => "on",
            Self::Bool(false) => "off",
            Self::Null => "",
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The properties of one option, in the order written. A key may come more than once: the last one counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opts {
    items: Vec<(String, Scalar)>,
}

impl Opts {
    /// Takes `text` apart. A first item without `=` is the value of `implied`; a later one is a switch: `x` means
    /// `x=on` and `nox` means `x=off`. `,,` inside a value is one comma. Text that starts with `{` is JSON.
    ///
    /// # Errors
    /// What does not follow the grammar, in the name of `option`.
    pub fn parse(option: &str, text: &str, implied: Option<&str>) -> Result<Self, OptionError> {
        Self::parse_with(option, text, implied, true)
    }

    /// As [`Opts::parse`], without bare switches: a forgotten value is an error.
    ///
    /// # Errors
    /// As [`Opts::parse`].
    pub fn parse_strict(
        option: &str,
        text: &str,
        implied: Option<&str>,
    ) -> Result<Self, OptionError> {
        Self::parse_with(option, text, implied, false)
    }

    fn parse_with(
        option: &str,
        text: &str,
        implied: Option<&str>,
        switches: bool,
    ) -> Result<Self, OptionError> {
        if text.trim_start().starts_with('{') {
            return Self::parse_json(option, text);
        }
        let mut items = Vec::new();
        for (index, part) in split_commas(text).into_iter().enumerate() {
            let bare = |key: &str| match (index, implied) {
                (0, Some(implied)) => Ok((implied.to_owned(), Scalar::Text(key.to_owned()))),
                _ if is_help(key) => Ok(("help".to_owned(), Scalar::Bool(true))),
                _ if switches => Ok(
                    match key.strip_prefix("no").filter(|rest| !rest.is_empty()) {
                        // Not every word that begins so is a negation.
                        Some(rest) if !["node", "nodelay"].contains(&key) => {
                            (rest.to_owned(), Scalar::Bool(false))
                        }
                        _ => (key.to_owned(), Scalar::Bool(true)),
                    },
                ),
                _ => Err(OptionError::syntax(
                    option,
                    format!("'{}' lacks a value: write '{0}=...'", shorten(key)),
                )),
            };
            match part.split_once('=') {
                Some(("", _)) => {
                    let problem = format!("'{}' lacks a name before '='", shorten(&part));
                    return Err(OptionError::syntax(option, problem));
                }
                Some((key, value)) => items.push((key.to_owned(), Scalar::Text(value.to_owned()))),
                // A trailing or doubled separator at the end is harmless; an empty implied value is not.
                None if part.is_empty() && index > 0 => {}
                None if part.is_empty() && implied.is_none() => {}
                None => items.push(bare(&part)?),
            }
        }
        Ok(Self { items })
    }

    /// A JSON object.
    ///
    /// # Errors
    /// Where the JSON breaks, or that it is no object.
    pub fn parse_json(option: &str, text: &str) -> Result<Self, OptionError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| OptionError::syntax(option, format!("this is no valid JSON: {e}")))?;
        if !value.is_object() {
            return Err(OptionError::syntax(
                option,
                "expected a JSON object, '{...}'",
            ));
        }
        Self::from_json(option, &value)
    }

    /// The members of a JSON object that was parsed already (QMP's `device_add`).
    ///
    /// # Errors
    /// When it is nested too deeply.
    pub fn from_json(option: &str, value: &Value) -> Result<Self, OptionError> {
        let mut items = Vec::new();
        flatten(option, "", value, 0, &mut items)?;
        Ok(Self { items })
    }

    /// The last value of `key`.
    pub fn get(&self, key: &str) -> Option<&Scalar> {
        self.items
            .iter()
            .rev()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v)
    }

    /// The last value of `key`, as text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).map(Scalar::text)
    }

    /// All values of `key`, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.items
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.text())
    }

    /// Removes `key` and returns its last value.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let found = self.text(key).map(str::to_owned);
        self.items.retain(|(k, _)| k != key);
        found
    }

    /// Adds a property at the end, where it wins.
    pub fn push(&mut self, key: &str, value: Scalar) {
        self.items.push((key.to_owned(), value));
    }

    /// All properties in the order written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Scalar)> {
        self.items.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The name this gives to the thing it makes.
    pub fn id(&self) -> Option<&str> {
        self.text("id")
    }

    /// Whether `help` or `?` was asked for, alone or after the implied value.
    pub fn wants_help(&self) -> bool {
        self.items
            .iter()
            .any(|(k, v)| k == "help" && *v == Scalar::Bool(true))
    }

    /// Reads `key` as a switch.
    ///
    /// # Errors
    /// When it has another value.
    pub fn switch(&self, option: &str, key: &str) -> Result<Option<bool>, OptionError> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        number::switch(text)
            .map(Some)
            .ok_or_else(|| OptionError::bad_value(option, key, text, "'on' or 'off'"))
    }

    /// Reads `key` as a number.
    ///
    /// # Errors
    /// When it is none.
    pub fn unsigned(&self, option: &str, key: &str) -> Result<Option<u64>, OptionError> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        number::unsigned(text)
            .map(Some)
            .ok_or_else(|| OptionError::bad_value(option, key, text, "a number"))
    }
}

impl fmt::Display for Opts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.items.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={}", value.text().replace(',', ",,"))?;
        }
        Ok(())
    }
}

/// Whether an argument asks for help instead of doing something.
pub fn is_help(text: &str) -> bool {
    text == "help" || text == "?"
}

/// Splits at single commas; doubled ones become one comma of the value.
fn split_commas(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != ',' {
            part.push(c);
        } else if chars.next_if_eq(&',').is_some() {
            part.push(',');
        } else {
            parts.push(std::mem::take(&mut part));
        }
    }
    parts.push(part);
    parts
}

fn flatten(
    option: &str,
    prefix: &str,
    value: &Value,
    depth: usize,
    items: &mut Vec<(String, Scalar)>,
) -> Result<(), OptionError> {
    if depth > DEPTH_MAX {
        return Err(OptionError::syntax(
            option,
            format!("the JSON is nested deeper than {DEPTH_MAX} levels"),
        ));
    }
    let mut nested = |key: Cow<'_, str>, value: &Value| {
        let key = if prefix.is_empty() {
            key.into_owned()
        } else {
            format!("{prefix}.{key}")
        };
        flatten(option, &key, value, depth.saturating_add(1), items)
    };
    let scalar = match value {
        Value::Object(members) => {
            return members
                .iter()
                .try_for_each(|(key, value)| nested(Cow::Borrowed(key), value));
        }
        Value::Array(elements) => {
            let mut indexed = elements.iter().enumerate();
            return indexed
                .try_for_each(|(index, value)| nested(Cow::Owned(index.to_string()), value));
        }
        Value::Null => Scalar::Null,
        Value::Bool(b) => Scalar::Bool(*b),
        Value::Number(n) => Scalar::Number(n.to_string()),
        Value::String(s) => Scalar::Text(s.clone()),
    };
    items.push((prefix.to_owned(), scalar));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str, implied: Option<&str>) -> Vec<(String, String)> {
        let opts = Opts::parse("-x", text, implied).unwrap();
        opts.iter()
            .map(|(k, v)| (k.to_owned(), v.text().to_owned()))
            .collect()
    }

    fn pair(k: &str, v: &str) -> (String, String) {
        (k.to_owned(), v.to_owned())
    }

    #[test]
    fn the_first_bare_item_is_the_implied_key_and_commas_are_doubled() {
        assert_eq!(
            pairs("e1000,id=a,,b,mac=x=y", Some("driver")),
            [
                pair("driver", "e1000"),
                pair("id", "a,b"),
                pair("mac", "x=y")
            ]
        );
    }

    #[test]
    fn bare_items_are_switches() {
        assert_eq!(
            pairs("x,server,nowait", Some("d")),
            [pair("d", "x"), pair("server", "on"), pair("wait", "off")]
        );
        assert!(Opts::parse_strict("-object", "x,server", Some("d")).is_err());
    }

    #[test]
    fn json_members_get_dotted_keys() {
        assert_eq!(
            pairs(
                r#"{"driver":"raw","ro":true,"n":3,"file":{"driver":"file","x":[1,null]}}"#,
                None
            ),
            [
                pair("driver", "raw"),
                pair("ro", "on"),
                pair("n", "3"),
                pair("file.driver", "file"),
                pair("file.x.0", "1"),
                pair("file.x.1", ""),
            ]
        );
        let e = Opts::parse("-device", "{\"a\":", None).unwrap_err();
        assert!(
            e.to_string().starts_with("-device: this is no valid JSON"),
            "{e}"
        );
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let mut opts = Opts::parse("-x", "a=1,b=2,a=3", None).unwrap();
        assert_eq!(opts.text("a"), Some("3"));
        assert_eq!(opts.take("a").as_deref(), Some("3"));
        assert_eq!(opts.to_string(), "b=2");
    }

    #[test]
    fn help_may_stand_alone_or_after_the_driver() {
        assert!(
            Opts::parse("-device", "e1000,help", Some("driver"))
                .unwrap()
                .wants_help()
        );
        assert!(
            Opts::parse("-device", "e1000,?", Some("driver"))
                .unwrap()
                .wants_help()
        );
        assert!(
            !Opts::parse("-device", "e1000,help=x", Some("driver"))
                .unwrap()
                .wants_help()
        );
    }
}
