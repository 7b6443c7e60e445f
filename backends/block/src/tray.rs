//! A place for a disk that can be taken out: what a CD drive and the monitor share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::SharedBlock;

type Listener = Arc<dyn Fn(bool) + Send + Sync>;

#[derive(Default)]
struct State {
    medium: Option<SharedBlock>,
    is_removable: bool,
    is_open: bool,
    is_locked: bool,
    wants_eject: bool,
    changes: u64,
    on_move: Option<Listener>,
}

/// Why a tray does not do what the monitor wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TrayError {
    /// A fixed disk.
    #[error("not removable")]
    Fixed,
    /// The guest holds the medium; it was told that somebody wants it.
    #[error("locked by the guest")]
    Locked,
    /// The tray must be open for this.
    #[error("tray is not open")]
    Closed,
    /// There is a medium already.
    #[error("there is a medium already")]
    Occupied,
}

/// A drive of the machine: empty or with a medium, its tray open or closed.
pub struct Tray {
    id: String,
    state: Mutex<State>,
}

impl Tray {
    /// A closed drive with this medium.
    pub fn new(id: impl Into<String>, medium: Option<SharedBlock>) -> Arc<Self> {
        Arc::new(Tray {
            id: id.into(),
            state: Mutex::new(State {
                medium,
                ..State::default()
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of the drive.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is in it, behind an open or closed door.
    pub fn medium(&self) -> Option<SharedBlock> {
        self.lock().medium.clone()
    }

    /// Said by the device: media can be changed.
    pub fn set_removable(&self) {
        self.lock().is_removable = true;
    }

    /// Whether media can be changed.
    pub fn is_removable(&self) -> bool {
        self.lock().is_removable
    }

    /// Whether the tray is open.
    pub fn is_open(&self) -> bool {
        self.lock().is_open
    }

    /// Whether the guest prevents removal.
    pub fn is_locked(&self) -> bool {
        self.lock().is_locked
    }

    /// Said by the device: the guest prevents removal, or not.
    pub fn set_locked(&self, locked: bool) {
        self.lock().is_locked = locked;
    }

    /// Grows whenever the tray moves or the medium is another.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Whether somebody asked for the medium since the last call.
    pub fn take_eject_request(&self) -> bool {
        std::mem::take(&mut self.lock().wants_eject)
    }

    /// Calls `listener` after each move with whether the tray is open now.
    pub fn on_move(&self, listener: Listener) {
        self.lock().on_move = Some(listener);
    }

    /// Moves the tray, whoever holds it.
    pub fn set_open(&self, open: bool) {
        let listener = {
            let mut state = self.lock();
            if state.is_open == open {
                return;
            }
            state.is_open = open;
            state.changes = state.changes.wrapping_add(1);
            state.on_move.clone()
        };
        if let Some(listener) = listener {
            listener(open);
        }
    }

    /// Opens the tray for the monitor. One that the guest holds stays closed, unless `force`d.
    pub fn open(&self, force: bool) -> Result<(), TrayError> {
        {
            let mut state = self.lock();
            if !state.is_removable {
                return Err(TrayError::Fixed);
            }
            if state.is_locked && !state.is_open && !force {
                state.wants_eject = true;
                return Err(TrayError::Locked);
            }
        }
        self.set_open(true);
        Ok(())
    }

    /// Takes the medium out of the open tray.
    pub fn remove(&self) -> Result<Option<SharedBlock>, TrayError> {
        let mut state = self.lock();
        if !state.is_removable {
            return Err(TrayError::Fixed);
        }
        if !state.is_open {
            return Err(TrayError::Closed);
        }
        state.changes = state.changes.wrapping_add(1);
        Ok(state.medium.take())
    }

    /// Puts a medium into the open, empty tray.
    pub fn insert(&self, medium: SharedBlock) -> Result<(), TrayError> {
        let mut state = self.lock();
        if !state.is_removable {
            return Err(TrayError::Fixed);
        }
        if !state.is_open {
            return Err(TrayError::Closed);
        }
        if state.medium.is_some() {
            return Err(TrayError::Occupied);
        }
        state.medium = Some(medium);
        state.changes = state.changes.wrapping_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zero_disk;

    #[test]
    fn a_medium_leaves_only_through_an_open_tray() {
        let tray = Tray::new("cd", None);
        assert_eq!(tray.open(true), Err(TrayError::Fixed));
        tray.set_removable();
        let disk = zero_disk("cd", 4096).unwrap();
        assert_eq!(tray.insert(disk.clone()), Err(TrayError::Closed));
        tray.open(false).unwrap();
        tray.insert(disk.clone()).unwrap();
        assert_eq!(tray.insert(disk), Err(TrayError::Occupied));
        tray.set_open(false);
        assert!(matches!(tray.remove(), Err(TrayError::Closed)));
        tray.set_locked(true);
        assert_eq!(tray.open(false), Err(TrayError::Locked));
        assert!(tray.take_eject_request() && !tray.take_eject_request());
        let before = tray.changes();
        tray.open(true).unwrap();
        assert!(tray.remove().unwrap().is_some() && tray.medium().is_none());
        assert!(tray.changes() > before);
    }
}
