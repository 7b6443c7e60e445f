//! `-smbios type=N,FIELD=VALUE,...` and `-smbios file=FILE`.

use std::collections::BTreeMap;

use hw_core::nearest;

/// Fields by structure type.
pub const FIELDS: &[(u8, &[&str])] = &[
    (0, &["vendor", "version", "date", "release", "uefi"]),
    (
        1,
        &[
            "manufacturer",
            "product",
            "version",
            "serial",
            "uuid",
            "sku",
            "family",
        ],
    ),
    (
        2,
        &[
            "manufacturer",
            "product",
            "version",
            "serial",
            "asset",
            "location",
        ],
    ),
    (3, &["manufacturer", "version", "serial", "asset", "sku"]),
    (
        4,
        &[
            "sock_pfx",
            "manufacturer",
            "version",
            "serial",
            "asset",
            "part",
            "max-speed",
            "current-speed",
            "processor-family",
            "processor-id",
        ],
    ),
    (11, &["value"]),
    (
        17,
        &[
            "loc_pfx",
            "bank",
            "manufacturer",
            "serial",
            "asset",
            "part",
            "speed",
        ],
    ),
];

/// Why an option was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmbiosError {
    /// A type without fields here.
    #[error("-smbios type={0} cannot be described by fields; give the structure with file=")]
    Type(u8),
    /// A misspelt field.
    #[error("-smbios type={kind} has no field '{field}'{}", .near.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    Field {
        /// Structure type.
        kind: u8,
        /// What was written.
        field: String,
        /// The nearest existing one.
        near: Option<String>,
    },
    /// A value that is no number, UUID or version.
    #[error("-smbios type={kind},{field}={value}: not {wanted}")]
    Value {
        /// Structure type.
        kind: u8,
        /// Field.
        field: &'static str,
        /// What was written.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// A table file that is none.
    #[error("-smbios file: this is not an SMBIOS structure: {0}")]
    File(&'static str),
}

/// All `-smbios` options of a command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Smbios {
    fields: BTreeMap<(u8, &'static str), String>,
    /// Types that were named, even without a field.
    pub(crate) named: Vec<u8>,
    pub(crate) oem_strings: Vec<String>,
    pub(crate) raw: Vec<Vec<u8>>,
}

impl Smbios {
    /// Takes one `type=N` option. Later fields replace earlier ones; OEM strings add up.
    pub fn add<'a>(
        &mut self,
        kind: u8,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), SmbiosError> {
        let known = FIELDS.iter().find(|(k, _)| *k == kind);
        let (_, known) = known.ok_or(SmbiosError::Type(kind))?;
        for (field, value) in fields {
            let Some(name) = known.iter().find(|name| **name == field) else {
                return Err(SmbiosError::Field {
                    kind,
                    field: field.into(),
                    near: nearest(field, known.iter().copied()).map(str::to_owned),
                });
            };
            check(kind, name, value)?;
            if kind == 11 {
                self.oem_strings.push(value.into());
            } else {
                self.fields.insert((kind, name), value.into());
            }
        }
        if !self.named.contains(&kind) {
            self.named.push(kind);
        }
        Ok(())
    }

    /// Takes the contents of one `file=`: a structure with its strings, without the header of the
    /// option's old form.
    pub fn add_file(&mut self, bytes: &[u8]) -> Result<(), SmbiosError> {
        let (Some(kind), Some(len)) = (bytes.first(), bytes.get(1)) else {
            return Err(SmbiosError::File("it is shorter than a header"));
        };
        let len = usize::from(*len);
        if len < 4 || bytes.len() < len {
            return Err(SmbiosError::File("its length field does not fit"));
        }
        if *kind == 127 {
            return Err(SmbiosError::File("the end marker is added by itself"));
        }
        let mut bytes = bytes.to_vec();
        // Strings, and the structure, end with two zeros.
        let ends = |b: &[u8]| {
            b.get(len..)
                .is_some_and(|s| s.len() >= 2 && s.ends_with(&[0, 0]))
        };
        while !ends(&bytes) {
            bytes.push(0);
        }
        self.raw.push(bytes);
        Ok(())
    }

    /// A field's value.
    pub(crate) fn get(&self, kind: u8, field: &'static str) -> Option<&str> {
        self.fields.get(&(kind, field)).map(String::as_str)
    }

    /// A field's number, checked when it was added.
    pub(crate) fn number(&self, kind: u8, field: &'static str) -> Option<u64> {
        number(self.get(kind, field)?)
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `MAJOR.MINOR` of a BIOS release.
pub(crate) fn release(text: &str) -> Option<(u8, u8)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A UUID as it is written.
pub(crate) fn uuid(text: &str) -> Option<[u8; 16]> {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] || !hex.is_ascii() {
        return None;
    }
    let mut out = [0; 16];
    for (n, byte) in out.iter_mut().enumerate() {
        let at = n.saturating_mul(2);
        *byte = u8::from_str_radix(hex.get(at..at.saturating_add(2))?, 16).ok()?;
    }
    Some(out)
}

fn check(kind: u8, field: &'static str, value: &str) -> Result<(), SmbiosError> {
    let below = |max: u64| number(value).is_some_and(|v| v <= max);
    let (good, wanted) = match field {
        "uuid" => (uuid(value).is_some(), "a UUID"),
        "release" => (
            release(value).is_some(),
            "two numbers from 0 to 255, like 1.2",
        ),
        "uefi" => (matches!(value, "on" | "off"), "on or off"),
        "max-speed" | "current-speed" | "speed" | "processor-family" => {
            (below(0xffff), "an integer from 0 to 65535")
        }
        "processor-id" => (below(u64::MAX), "an integer of 64 bits"),
        _ => (!value.contains('\0'), "text"),
    };
    if good {
        return Ok(());
    }
    Err(SmbiosError::Value {
        kind,
        field,
        value: value.into(),
        wanted,
    })
}
