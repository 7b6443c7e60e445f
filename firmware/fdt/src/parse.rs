//! Reading a flattened tree (Devicetree Specification v0.4, chapter 5).

use crate::Node;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// The newest layout a reader must understand.
const COMPATIBLE: u32 = 17;
/// Nodes within nodes: more than any real tree has.
const DEPTH: usize = 32;
/// Longest name that is read.
const NAME: usize = 256;
/// Largest tree that is read: kernels take no more than 2 MiB.
const MOST: usize = 2 << 20;

/// Why a file is no device tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It does not begin as one.
    #[error("this is no flattened device tree (dtc makes them: 'dtc -O dtb')")]
    Magic,
    /// Larger than kernels take.
    #[error("a device tree has at most {MOST} bytes, this has {0}")]
    Large(usize),
    /// A newer layout.
    #[error("its layout is of version {0}, newer than 17")]
    Version(u32),
    /// Parts are missing or contradict each other.
    #[error("damaged at byte {0:#x} of its structure")]
    Damaged(usize),
}

struct Reader<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    at: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    let bytes: [u8; 4] = bytes.get(at..end)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn text(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let len = rest.iter().take(NAME).position(|byte| *byte == 0)?;
    String::from_utf8(rest.get(..len)?.to_vec()).ok()
}

impl Reader<'_> {
    fn word(&mut self) -> Option<u32> {
        let word = word(self.structure, self.at)?;
        self.at = self.at.checked_add(4)?;
        Some(word)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.at = self.at.checked_add(len)?.checked_next_multiple_of(4)?;
        Some(())
    }

    fn token(&mut self) -> Option<u32> {
        loop {
            match self.word()? {
                NOP => {}
                token => return Some(token),
            }
        }
    }

    /// A node, after its BEGIN_NODE.
    fn node(&mut self, depth: usize) -> Option<Node> {
        let name = text(self.structure, self.at)?;
        self.skip(name.len().checked_add(1)?)?;
        let mut node = Node::new(name);
        loop {
            match self.token()? {
                PROP => {
                    let len = usize::try_from(self.word()?).ok()?;
                    let name = usize::try_from(self.word()?).ok()?;
                    let value = self.structure.get(self.at..self.at.checked_add(len)?)?;
                    node.props.push((text(self.strings, name)?, value.to_vec()));
                    self.skip(len)?;
                }
                BEGIN_NODE if depth < DEPTH => {
                    node.children.push(self.node(depth.checked_add(1)?)?);
                }
                END_NODE => return Some(node),
                _ => return None,
            }
        }
    }
}

/// Reads a flattened tree: its root.
pub fn parse(blob: &[u8]) -> Result<Node, ParseError> {
    if word(blob, 0) != Some(MAGIC) {
        return Err(ParseError::Magic);
    }
    if blob.len() > MOST {
        return Err(ParseError::Large(blob.len()));
    }
    let header = |n: usize| {
        let word = word(blob, n).ok_or(ParseError::Damaged(0))?;
        usize::try_from(word).map_err(|_| ParseError::Damaged(0))
    };
    let version = header(24)? as u32;
    if version > COMPATIBLE {
        return Err(ParseError::Version(version));
    }
    let part = |offset: usize| blob.get(offset..).ok_or(ParseError::Damaged(0));
    let mut reader = Reader {
        structure: part(header(8)?)?,
        strings: part(header(12)?)?,
        at: 0,
    };
    let root = match reader.token() {
        Some(BEGIN_NODE) => reader.node(0),
        _ => None,
    };
    root.filter(|_| reader.token() == Some(END))
        .ok_or(ParseError::Damaged(reader.at))
}
