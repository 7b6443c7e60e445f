//! Drives whose media can be changed: `eject`, `change`, `blockdev-open-tray` and their like.

use std::sync::Arc;

use anyhow::Context as _;
use backend_block::{BackendOptions, BlockBackend, Node, SharedBlock, Tray, TrayError};
use control_options::{Opts, Scalar};
use control_qapi::{DriveName, ErrorClass, Event, EventBus, MediumChange, QmpError};
use machine_core::Board;

use super::User;
use crate::storage::{Storage, plain_file, protocol_of};

/// Tells the world when a tray moves.
pub(crate) fn tell_moves(tray: &Tray, board: &Board, events: &Arc<EventBus>) {
    let (events, device) = (Arc::clone(events), tray.id().to_owned());
    let id = User::of(board, &device).map_or_else(String::new, |user| user.id);
    tray.on_move(Arc::new(move |tray_open| {
        events.emit(&Event::DeviceTrayMoved {
            device: device.clone(),
            id: id.clone(),
            tray_open,
        });
    }));
}

fn find(board: &Board, storage: &Storage, name: DriveName<'_>) -> Result<Arc<Tray>, QmpError> {
    let drives = &storage.drives;
    let (found, name) = match name {
        DriveName::Drive(id) => (drives.find(|tray| tray.id() == id), id),
        DriveName::Device(path) => {
            let is =
                |tray: &Arc<Tray>| User::of(board, tray.id()).is_some_and(|user| user.is(path));
            (drives.find(is), path)
        }
    };
    found.ok_or_else(|| {
        QmpError::new(
            ErrorClass::DeviceNotFound,
            format!("Device '{name}' not found"),
        )
    })
}

/// Does what a monitor asks.
pub(super) fn change(
    board: &Board,
    storage: &Storage,
    name: DriveName<'_>,
    change: MediumChange<'_>,
) -> Result<(), QmpError> {
    let tray = find(board, storage, name)?;
    let (DriveName::Drive(name) | DriveName::Device(name)) = name;
    let failed = |error: TrayError| {
        QmpError::generic(match error {
            TrayError::Fixed => format!("Device '{name}' is not removable"),
            TrayError::Locked => format!(
                "Device '{name}' is locked and force was not specified, wait for tray to open and try again"
            ),
            TrayError::Closed => format!("Tray of device '{name}' is not open"),
            TrayError::Occupied => format!("There already is a medium in device '{name}'"),
        })
    };
    // What comes out is still being read from, perhaps: that ends before it is let go of.
    let remove = || -> Result<(), TrayError> {
        if let Some(medium) = tray.remove()? {
            medium.drain();
            // Its node can be deleted now.
            storage.disks.remove(|disk| disk.info().id == tray.id());
        }
        Ok(())
    };
    match change {
        MediumChange::Eject { force } => tray.open(force).and_then(|()| remove()),
        MediumChange::Open { force } => tray.open(force),
        MediumChange::Close => {
            tray.set_open(false);
            Ok(())
        }
        MediumChange::Remove => remove(),
        MediumChange::Insert(node) => {
            let node = storage
                .opener
                .graph
                .find(node)
                .ok_or_else(|| QmpError::generic(format!("Node '{node}' not found")))?;
            insert(storage, &tray, node)?
        }
        MediumChange::Replace {
            file,
            format,
            force,
        } => {
            if !tray.is_removable() {
                return Err(failed(TrayError::Fixed));
            }
            // A file that cannot be opened leaves the old medium in its place.
            let node = open(storage, file, format)
                .map_err(|error| QmpError::generic(format!("{error:#}")))?;
            tray.open(force).and_then(|()| remove()).map_err(failed)?;
            insert(storage, &tray, node)?.map_err(failed)?;
            tray.set_open(false);
            Ok(())
        }
    }
    .map_err(failed)
}

fn insert(
    storage: &Storage,
    tray: &Tray,
    node: Arc<Node>,
) -> Result<Result<(), TrayError>, QmpError> {
    let options = BackendOptions {
        read_only: true,
        clock: Some(storage.clock.clone()),
        ..BackendOptions::default()
    };
    let medium = BlockBackend::new(tray.id(), node, options).map_err(super::failed)?;
    medium.join(&storage.opener.graph);
    let medium: SharedBlock = Arc::new(medium);
    let inserted = tray.insert(Arc::clone(&medium));
    if inserted.is_ok() {
        storage.disks.push(medium);
    }
    Ok(inserted)
}

fn open(storage: &Storage, file: &str, format: Option<&str>) -> anyhow::Result<Arc<Node>> {
    let text = |text: &str| Scalar::Text(text.to_owned());
    let path = plain_file("change", file)?;
    let mut opts = Opts::default();
    opts.push("file.driver", text(protocol_of(path)));
    opts.push("file.filename", text(path));
    opts.push("read-only", Scalar::Bool(true));
    let opened = match format {
        Some(format) => {
            opts.push("driver", text(format));
            storage.opener.open("change", &opts)
        }
        None => storage.opener.open_probed("change", &opts),
    };
    opened.with_context(|| format!("Could not open '{file}'"))
}
