//! The byte form of a [`Section`]: little-endian, length-prefixed, bounded.
//!
//! ```text
//! section = u16 name length, name, u16 version, u32 field count, { u16 tag, value }
//! value   = 0 u64 | 1 u32 length, bytes | 2 u32 length, text | 3 u32 count, { value } | 4 section
//! ```

use crate::{Section, StateError, Value};

/// Sections and lists nested deeper than this are refused.
const MAX_DEPTH: u32 = 16;

/// Writes a section.
pub fn encode(section: &Section) -> Vec<u8> {
    let mut out = Vec::new();
    put_section(&mut out, section);
    out
}

/// Reads one section that fills `bytes` entirely.
///
/// The bytes are untrusted: memory used is proportional to their length.
pub fn decode(bytes: &[u8]) -> Result<Section, StateError> {
    let mut reader = Reader { bytes };
    let section = reader.section(MAX_DEPTH)?;
    if reader.bytes.is_empty() {
        Ok(section)
    } else {
        Err(StateError::Malformed("trailing bytes"))
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_section(out: &mut Vec<u8>, section: &Section) {
    out.extend_from_slice(
        &u16::try_from(section.name.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(section.name.as_bytes());
    out.extend_from_slice(&section.version.to_le_bytes());
    put_len(out, section.fields.len());
    for (tag, value) in &section.fields {
        out.extend_from_slice(&tag.to_le_bytes());
        put_value(out, value);
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U64(v) => {
            out.push(0);
            out.extend_from_slice(&v.to_le_bytes());
        }
        Value::Bytes(v) => {
            out.push(1);
            put_len(out, v.len());
            out.extend_from_slice(v);
        }
        Value::Text(v) => {
            out.push(2);
            put_len(out, v.len());
            out.extend_from_slice(v.as_bytes());
        }
        Value::List(v) => {
            out.push(3);
            put_len(out, v.len());
            v.iter().for_each(|item| put_value(out, item));
        }
        Value::Section(v) => {
            out.push(4);
            put_section(out, v);
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (head, rest) = self
            .bytes
            .split_at_checked(len)
            .ok_or(StateError::Malformed("cut short"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn int<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        self.take(N)?
            .try_into()
            .map_err(|_| StateError::Malformed("cut short"))
    }

    fn u16(&mut self) -> Result<u16, StateError> {
        Ok(u16::from_le_bytes(self.int()?))
    }

    fn len(&mut self) -> Result<usize, StateError> {
        usize::try_from(u32::from_le_bytes(self.int()?))
            .map_err(|_| StateError::Malformed("length"))
    }

    fn text(&mut self, len: usize) -> Result<String, StateError> {
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| StateError::Malformed("text is not UTF-8"))
    }

    fn section(&mut self, depth: u32) -> Result<Section, StateError> {
        let depth = depth
            .checked_sub(1)
            .ok_or(StateError::Malformed("nested too deeply"))?;
        let name_len = self.u16()?;
        let name = self.text(usize::from(name_len))?;
        let version = self.u16()?;
        let count = self.len()?;
        let mut fields = Vec::new();
        for _ in 0..count {
            let tag = self.u16()?;
            fields.push((tag, self.value(depth)?));
        }
        Ok(Section {
            name,
            version,
            fields,
        })
    }

    fn value(&mut self, depth: u32) -> Result<Value, StateError> {
        let [kind] = self.int()?;
        Ok(match kind {
            0 => Value::U64(u64::from_le_bytes(self.int()?)),
            1 => {
                let len = self.len()?;
                Value::Bytes(self.take(len)?.to_vec())
            }
            2 => {
                let len = self.len()?;
                Value::Text(self.text(len)?)
            }
            3 => {
                let depth = depth
                    .checked_sub(1)
                    .ok_or(StateError::Malformed("nested too deeply"))?;
                let count = self.len()?;
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(depth)?);
                }
                Value::List(list)
            }
            4 => Value::Section(self.section(depth)?),
            _ => return Err(StateError::Malformed("unknown kind of value")),
        })
    }
}
