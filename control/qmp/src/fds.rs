//! The commands about descriptors that clients hand to us.

use std::os::fd::AsRawFd as _;

use control_qapi::{
    AddFdArgs, AddfdInfo, Empty, FdsetFdInfo, FdsetInfo, Qapi, QmpError, RemoveFdArgs,
};

use crate::commands::{CommandDef, Context, command};

/// Those commands.
pub(crate) static COMMANDS: &[CommandDef] = &[
    command!("add-fd", "put the descriptor that comes with this command into a set", AddFdArgs => AddfdInfo, add_fd),
    command!("query-fdsets", "sets of descriptors", Empty => Vec<FdsetInfo>, |c, _| Ok(sets(c))),
    command!("remove-fd", "close descriptors of a set", RemoveFdArgs => Empty, remove_fd),
];

fn add_fd(c: &Context<'_>, a: AddFdArgs) -> Result<AddfdInfo, QmpError> {
    let fd = c
        .handed
        .take()
        .ok_or_else(|| QmpError::generic("No file descriptor supplied via SCM_RIGHTS"))?;
    let number = fd.as_raw_fd();
    let added = c.vm.blocks().fds().add(a.fdset_id, fd, a.opaque);
    let fdset_id = added.map_err(|error| QmpError::generic(error.to_string()))?;
    Ok(AddfdInfo {
        fdset_id,
        fd: number,
    })
}

fn remove_fd(c: &Context<'_>, a: RemoveFdArgs) -> Result<Empty, QmpError> {
    if c.vm.blocks().fds().remove(a.fdset_id, a.fd) {
        return Ok(Empty {});
    }
    let fd = a.fd.map(|fd| format!(", fd:{fd}")).unwrap_or_default();
    Err(QmpError::generic(format!(
        "File descriptor named 'fdset-id:{}{fd}' not found",
        a.fdset_id
    )))
}

fn sets(c: &Context<'_>) -> Vec<FdsetInfo> {
    let sets = c.vm.blocks().fds().list().into_iter();
    sets.map(|(fdset_id, fds)| FdsetInfo {
        fdset_id,
        fds: fds
            .into_iter()
            .map(|info| FdsetFdInfo {
                fd: info.fd,
                opaque: info.opaque,
            })
            .collect(),
    })
    .collect()
}
