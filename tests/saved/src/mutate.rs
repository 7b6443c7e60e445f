//! Sections that nobody would have written.

use hw_state::{Section, Value, codec};

/// A repeatable stream of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; zero if that is zero.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number().checked_rem(limit as u64).unwrap_or(0)).unwrap_or(0)
    }
}

/// Mutates sections.
pub struct Mutator<'a>(pub &'a mut Random);

impl Mutator<'_> {
    /// A section like this one, but not this one. `None` if its bytes are no section any more.
    pub fn section(&mut self, section: &Section) -> Option<Section> {
        if self.0.below(8) == 0 {
            return self.bytes(section);
        }
        Some(self.fields(section))
    }

    /// A few bytes of its byte form changed.
    fn bytes(&mut self, section: &Section) -> Option<Section> {
        let mut bytes = codec::encode(section);
        for _ in 0..=self.0.below(3) {
            let at = self.0.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = self.0.number() as u8;
            }
        }
        codec::decode(&bytes).ok()
    }

    fn fields(&mut self, section: &Section) -> Section {
        let name = match self.0.below(200) {
            0 => "other",
            _ => section.name(),
        };
        let version = match self.0.below(200) {
            0 => u16::MAX,
            _ => section.version(),
        };
        let mut out = Section::new(name, version);
        let victim = self.0.below(section.fields().len());
        // Now and then a second one.
        let second = self.0.below(section.fields().len().saturating_mul(4));
        for (n, (tag, value)) in section.fields().iter().enumerate() {
            if n != victim && n != second {
                out.push(*tag, value.clone());
            } else if self.0.below(12) != 0 {
                out.push(*tag, self.value(value));
            }
        }
        out
    }

    /// Another value, mostly of the same kind.
    fn value(&mut self, value: &Value) -> Value {
        if self.0.below(20) == 0 {
            return match self.0.below(4) {
                0 => Value::U64(self.0.number()),
                1 => Value::Bytes(vec![0; self.0.below(9)]),
                2 => Value::List(Vec::new()),
                _ => Value::Text("?".to_owned()),
            };
        }
        match value {
            Value::U64(v) => Value::U64(self.number(*v)),
            Value::Bytes(v) => Value::Bytes(self.byte_string(v)),
            Value::Text(v) => Value::Text(v.chars().rev().collect()),
            Value::List(v) => Value::List(self.list(v)),
            Value::Section(v) => Value::Section(self.fields(v)),
        }
    }

    fn number(&mut self, v: u64) -> u64 {
        let bit = 1u64 << self.0.below(64);
        match self.0.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => bit,
            3 => bit.wrapping_sub(1),
            4 => v.wrapping_add(1),
            5 => v.wrapping_sub(1),
            6 => self.0.number() >> self.0.below(64),
            _ => v ^ bit,
        }
    }

    fn byte_string(&mut self, v: &[u8]) -> Vec<u8> {
        let mut v = v.to_vec();
        match self.0.below(6) {
            0 => v.truncate(self.0.below(v.len())),
            1 => v.extend_from_slice(&self.0.number().to_le_bytes()),
            2 => v.fill(0xff),
            _ => {
                let at = self.0.below(v.len());
                if let Some(byte) = v.get_mut(at) {
                    *byte = self.0.number() as u8;
                }
            }
        }
        v
    }

    fn list(&mut self, v: &[Value]) -> Vec<Value> {
        let mut v = v.to_vec();
        let at = self.0.below(v.len());
        match self.0.below(8) {
            0 => v.truncate(at),
            1 => v.extend(v.get(at).cloned()),
            _ => {
                if let Some(item) = v.get_mut(at) {
                    *item = self.value(&item.clone());
                }
            }
        }
        v
    }
}
