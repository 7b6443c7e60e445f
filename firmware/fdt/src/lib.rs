//! Device trees: what a machine has, as its kernel reads it.
//!
//! Spec: Devicetree Specification v0.4. A [`Node`] is the tree in the making; [`Node::blob`] flattens
//! it (chapter 5), [`parse`] reads a flattened one, which is untrusted input.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod parse;
mod show;
#[cfg(test)]
mod tests;

use vm_fdt::FdtWriter;

pub use parse::{ParseError, parse};

/// Why a tree could not be flattened.
#[derive(Debug, thiserror::Error)]
#[error("the device tree cannot be written: {0}")]
pub struct FdtError(String);

impl From<vm_fdt::Error> for FdtError {
    fn from(error: vm_fdt::Error) -> Self {
        FdtError(error.to_string())
    }
}

/// A node: properties in order, then children in order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Node {
    /// Name with unit address; empty for the root.
    pub name: String,
    /// Properties.
    pub props: Vec<(String, Vec<u8>)>,
    /// Children.
    pub children: Vec<Node>,
}

impl Node {
    /// A node without anything.
    pub fn new(name: impl Into<String>) -> Self {
        Node {
            name: name.into(),
            ..Node::default()
        }
    }

    /// Sets a property, in place if it is there.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let value = value.into();
        match self.props.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.props.push((name.to_owned(), value)),
        }
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.props.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// With a property of bytes.
    #[must_use]
    pub fn bytes(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.set(name, value);
        self
    }

    /// With a property of 32-bit cells.
    #[must_use]
    pub fn cells(self, name: &str, cells: &[u32]) -> Self {
        self.bytes(name, big_endian(cells))
    }

    /// With a property of one cell.
    #[must_use]
    pub fn cell(self, name: &str, cell: u32) -> Self {
        self.cells(name, &[cell])
    }

    /// With a property of 64-bit numbers, two cells each.
    #[must_use]
    pub fn numbers(self, name: &str, numbers: &[u64]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        self.bytes(name, bytes)
    }

    /// With a property of text.
    #[must_use]
    pub fn text(self, name: &str, text: &str) -> Self {
        self.texts(name, &[text])
    }

    /// With a property of several texts.
    #[must_use]
    pub fn texts(self, name: &str, texts: &[&str]) -> Self {
        self.bytes(name, strings(texts))
    }

    /// With a property that is there or not.
    #[must_use]
    pub fn flag(self, name: &str) -> Self {
        self.bytes(name, Vec::new())
    }

    /// With a child.
    #[must_use]
    pub fn with(mut self, child: Node) -> Self {
        self.children.push(child);
        self
    }

    /// Changes the child of a name, made if it is not there.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        match self.children.iter_mut().find(|child| child.name == name) {
            Some(child) => change(child),
            None => {
                let mut child = Node::new(name);
                change(&mut child);
                self.children.push(child);
            }
        }
    }

    /// Flattens the tree of which this is the root.
    pub fn blob(&self) -> Result<Vec<u8>, FdtError> {
        let mut writer = FdtWriter::new()?;
        self.write(&mut writer)?;
        Ok(writer.finish()?)
    }

    fn write(&self, writer: &mut FdtWriter) -> Result<(), FdtError> {
        let node = writer.begin_node(&self.name)?;
        for (name, value) in &self.props {
            match (name.as_str(), <[u8; 4]>::try_from(value.as_slice())) {
                ("phandle", Ok(bytes)) => writer.property_phandle(u32::from_be_bytes(bytes))?,
                _ => writer.property(name, value)?,
            }
        }
        for child in &self.children {
            child.write(writer)?;
        }
        Ok(writer.end_node(node)?)
    }
}

/// 32-bit cells as a property has them.
pub fn big_endian(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

/// Texts as a property has them: each ends with a zero.
pub fn strings(texts: &[&str]) -> Vec<u8> {
    let each = texts.iter().flat_map(|text| text.bytes().chain([0]));
    each.collect()
}
