//! The device that has a drive, and the names that clients know it by.

use machine_core::Board;

/// A device with a drive.
pub(crate) struct User {
    /// The user's id for it, or the board's.
    pub(crate) id: String,
    /// The disk is a part of the device, which is only the way to it.
    is_inside: bool,
}

impl User {
    /// The device that has this drive.
    pub(crate) fn of(board: &Board, drive: &str) -> Option<Self> {
        let parts = board.machine.fabric().parts();
        let has =
            |props: &[(String, String)]| props.iter().any(|(k, v)| k == "drive" && v == drive);
        let part = parts.iter().find(|part| has(&part.props))?;
        Some(User {
            id: part.path.clone(),
            is_inside: part.class.starts_with("virtio-") && part.class.ends_with("-pci"),
        })
    }

    /// Its path in QEMU's tree of objects.
    pub(crate) fn path(&self) -> String {
        let inside = if self.is_inside { INSIDE } else { "" };
        format!("{TREE}{}{inside}", self.id)
    }

    /// What clients are told: the id of the part that has the drive, or its path if it has no id.
    pub(crate) fn qdev(&self) -> String {
        match self.is_inside {
            true => self.path(),
            false => self.id.clone(),
        }
    }

    /// Whether a client means this one by an id or a path.
    pub(crate) fn is(&self, name: &str) -> bool {
        let name = name.strip_prefix(TREE).unwrap_or(name);
        self.id == name.strip_suffix(INSIDE).unwrap_or(name)
    }
}

/// Where devices are in QEMU's tree of objects.
const TREE: &str = "/machine/peripheral/";
/// What QEMU calls a virtio device inside of its transport.
const INSIDE: &str = "/virtio-backend";
