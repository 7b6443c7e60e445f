//! Media of drives: `eject` and `change`.

use control_qapi::{QmpError, json};

use crate::args::Args;
use crate::block::set;
use crate::commands::Call;

/// The words after a command, and whether `-f` was before them.
fn forced(a: &Args) -> (bool, Vec<&str>) {
    let mut words: Vec<&str> = a
        .text("words")
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let force = words.first() == Some(&"-f");
    if force {
        words.remove(0);
    }
    (force, words)
}

pub(crate) fn eject(c: &Call<'_>, a: &Args) -> Result<String, QmpError> {
    let (force, words) = forced(a);
    let [device] = words.as_slice() else {
        return Err(QmpError::generic("eject: expected [-f] device"));
    };
    c.qmp_do("eject", json!({ "device": device, "force": force }))
}

pub(crate) fn change(c: &Call<'_>, a: &Args) -> Result<String, QmpError> {
    let (force, words) = forced(a);
    let mut arguments = match words.as_slice() {
        [device, file] | [device, file, _] | [device, file, _, _] => {
            json!({ "device": device, "filename": file, "force": force })
        }
        _ => {
            return Err(QmpError::generic(
                "change: expected [-f] device filename [format [read-only-mode]]",
            ));
        }
    };
    for (at, name) in [(2, "format"), (3, "read-only-mode")] {
        if let Some(word) = words.get(at) {
            set(&mut arguments, name, *word);
        }
    }
    c.qmp_do("blockdev-change-medium", arguments)
}
