use proptest::prelude::*;

use super::*;

fn tree() -> Node {
    Node::new("")
        .text("compatible", "linux,dummy-virt")
        .cell("#address-cells", 2)
        .with(
            Node::new("memory@40000000")
                .text("device_type", "memory")
                .numbers("reg", &[0x4000_0000, 0x800_0000]),
        )
        .with(Node::new("intc").cell("phandle", 1).flag("empty"))
}

#[test]
fn what_is_written_is_what_is_read() {
    assert_eq!(parse(&tree().blob().unwrap()).unwrap(), tree());
}

#[test]
fn properties_are_set_in_place_and_children_made_when_missing() {
    let mut root = tree();
    root.set("compatible", strings(&["a", "b"]));
    root.change("chosen", |chosen| {
        chosen.set("bootargs", strings(&["quiet"]))
    });
    assert_eq!(root.get("compatible").unwrap(), b"a\0b\0");
    assert_eq!(root.children[2].get("bootargs").unwrap(), b"quiet\0");
}

#[test]
fn other_files_are_refused() {
    assert_eq!(parse(b"MZ\0\0"), Err(ParseError::Magic));
    assert_eq!(parse(&[]), Err(ParseError::Magic));
    let mut newer = tree().blob().unwrap();
    newer[27] = 99;
    assert_eq!(parse(&newer), Err(ParseError::Version(99)));
}

proptest! {
    #[test]
    fn a_mutated_tree_is_a_tree_or_an_error(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut blob = tree().blob().unwrap();
        let at = at.index(blob.len());
        blob[at] = byte;
        if cut {
            blob.truncate(at);
        }
        let _ = parse(&blob);
    }
}
