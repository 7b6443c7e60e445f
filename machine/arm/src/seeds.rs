//! The device tree as the guest finds it: with random numbers that are new after every reset.
//!
//! A kernel chooses its addresses by `kaslr-seed` and starts its generator with `rng-seed` (dtschema
//! `chosen.yaml`). Without the second, Linux computes every random number anew, one for each system
//! call, until interrupts have given it enough.

use backend_rng::{Builtin, Randomness};
use firmware_fdt::{FdtError, Node};
use machine_core::MachineSpec;

/// Bytes of each seed.
const SEEDS: [(&str, usize); 2] = [("kaslr-seed", 8), ("rng-seed", 32)];

/// Whether the user wants seeds: `dtb-randomness`, by its old name `dtb-kaslr-seed`.
pub(crate) fn are_wanted(spec: &MachineSpec) -> bool {
    let is_off = |name| spec.switch(name) == Some(false);
    let is_given = spec.props.iter().any(|(name, _)| name == "dtb-randomness");
    !is_off(if is_given {
        "dtb-randomness"
    } else {
        "dtb-kaslr-seed"
    })
}

/// A tree, and which of its nodes get seeds.
pub(crate) struct SeededTree {
    root: Node,
    nodes: &'static [&'static str],
}

impl SeededTree {
    /// A tree that is always the same.
    pub(crate) fn fixed(root: Node) -> Self {
        SeededTree { root, nodes: &[] }
    }

    /// A tree with seeds for the kernel, and for firmware that has a node of its own.
    pub(crate) fn seeded(root: Node, has_el3: bool) -> Self {
        let nodes: &[_] = match has_el3 {
            false => &["chosen"],
            true => &["chosen", "secure-chosen"],
        };
        SeededTree { root, nodes }
    }

    /// Changes the root's child of a name.
    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        self.root.change(name, change);
    }

    /// Flattens the tree with seeds that nobody has seen. It is always as long.
    ///
    /// # Errors
    ///
    /// The tree cannot be written.
    pub(crate) fn blob(&self) -> Result<Vec<u8>, FdtError> {
        let mut root = self.root.clone();
        for name in self.nodes {
            root.change(name, |node| {
                for (seed, len) in SEEDS {
                    let mut bytes = vec![0; len];
                    let filled = Builtin.fill(&mut bytes);
                    // Zeros are no secret: a guest without a seed at least knows that it has none.
                    if filled == len {
                        node.set(seed, bytes);
                    }
                }
            });
        }
        root.blob()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(tree: &SeededTree, name: &str) -> Vec<Vec<u8>> {
        let root = firmware_fdt::parse(&tree.blob().unwrap()).unwrap();
        let node = root.children.iter().find(|node| node.name == name).unwrap();
        let of = |(seed, _)| node.get(seed).map(<[u8]>::to_vec);
        SEEDS.into_iter().filter_map(of).collect()
    }

    fn tree() -> Node {
        Node::new("")
            .with(Node::new("chosen"))
            .with(Node::new("secure-chosen"))
    }

    #[test]
    fn seeds_are_new_each_time_and_as_long() {
        let tree = SeededTree::seeded(tree(), true);
        assert_eq!(tree.blob().unwrap().len(), tree.blob().unwrap().len());
        for node in ["chosen", "secure-chosen"] {
            let (first, second) = (seeds(&tree, node), seeds(&tree, node));
            assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [8, 32]);
            assert_ne!(first[0], second[0]);
            assert_ne!(first[1], second[1]);
        }
    }

    #[test]
    fn a_fixed_tree_has_none_and_a_kernel_alone_no_firmwares() {
        assert!(seeds(&SeededTree::fixed(tree()), "chosen").is_empty());
        assert!(seeds(&SeededTree::seeded(tree(), false), "secure-chosen").is_empty());
    }
}
