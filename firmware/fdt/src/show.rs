//! Trees as text, in the source form of the Devicetree Specification v0.4, appendix A.

use std::fmt::{self, Display, Formatter};

use crate::Node;

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        show(self, f, 0)
    }
}

fn show(node: &Node, f: &mut Formatter<'_>, depth: usize) -> fmt::Result {
    let indent = "\t".repeat(depth);
    let name = if node.name.is_empty() {
        "/"
    } else {
        &node.name
    };
    writeln!(f, "{indent}{name} {{")?;
    for (name, value) in &node.props {
        write!(f, "{indent}\t{name}")?;
        match (value.is_empty(), texts(value)) {
            (true, _) => {}
            (false, Some(texts)) => {
                let quoted: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
                write!(f, " = {}", quoted.join(", "))?;
            }
            (false, None) => numbers(value, f)?,
        }
        writeln!(f, ";")?;
    }
    for child in &node.children {
        show(child, f, depth.saturating_add(1))?;
    }
    writeln!(f, "{indent}}};")
}

/// What is nothing but texts that each end with a zero.
fn texts(value: &[u8]) -> Option<Vec<&str>> {
    let whole = std::str::from_utf8(value).ok()?.strip_suffix('\0')?;
    let texts: Vec<_> = whole.split('\0').collect();
    let is_text = |text: &&str| !text.is_empty() && text.bytes().all(|b| (b' '..0x7f).contains(&b));
    texts.iter().all(is_text).then_some(texts)
}

fn numbers(value: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    let (cells, rest) = value.as_chunks::<4>();
    if rest.is_empty() {
        let cells = cells
            .iter()
            .map(|cell| format!("{:#x}", u32::from_be_bytes(*cell)));
        return write!(f, " = <{}>", cells.collect::<Vec<_>>().join(" "));
    }
    let bytes = value.iter().map(|byte| format!("{byte:02x}"));
    write!(f, " = [{}]", bytes.collect::<Vec<_>>().join(" "))
}
