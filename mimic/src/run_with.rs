//! `-run-with`: as whom, where and how the process runs once everything is set up.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use control_options::Config;
use nix::unistd::{self, Gid, Uid, User};
use runtime::process;

/// Whom to become.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    uid: Uid,
    gid: Gid,
    /// The user's name, whose further groups come along; a numeric user has none.
    name: Option<String>,
}

/// What `-run-with` asks for, found on this host.
#[derive(Debug, Default)]
pub(crate) struct RunWith {
    root: Option<PathBuf>,
    identity: Option<Identity>,
    async_teardown: bool,
    exit_with_parent: bool,
}

impl RunWith {
    /// Looks the names up, while the user can still be told.
    ///
    /// # Errors
    /// When the folder or user is not there, or only the superuser may do it.
    pub(crate) fn of(config: &Config) -> Result<Self> {
        let opts = &config.run_with;
        let is_on = |key| Ok::<_, anyhow::Error>(opts.switch("-run-with", key)? == Some(true));
        let root = match opts.text("chroot") {
            None => None,
            Some(path) => {
                let meta = std::fs::metadata(path)
                    .with_context(|| format!("-run-with chroot={path}: cannot use the folder"))?;
                if !meta.is_dir() {
                    bail!("-run-with chroot={path}: this is no folder");
                }
                Some(PathBuf::from(path))
            }
        };
        let identity = opts.text("user").map(identity).transpose()?;
        if !Uid::effective().is_root() {
            for (key, given) in [("chroot", root.is_some()), ("user", identity.is_some())] {
                if given {
                    bail!("-run-with: '{key}' is the superuser's to use; leave it out");
                }
            }
        }
        Ok(RunWith {
            root,
            identity,
            async_teardown: is_on("async-teardown")?,
            exit_with_parent: is_on("exit-with-parent")?,
        })
    }

    /// Ends the process when its starter does, if that is asked for.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn follow_parent(&self) -> Result<()> {
        if self.exit_with_parent {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
                .map_err(std::io::Error::from)
                .context("-run-with: cannot watch the parent process")?;
        }
        Ok(())
    }

    /// Leaves what the machine does not need, for good. Files are open, ports are bound.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn enter(&self) -> Result<()> {
        if let Some(root) = &self.root {
            unistd::chroot(root)
                .and_then(|()| unistd::chdir("/"))
                .with_context(|| format!("-run-with chroot={}", root.display()))?;
        }
        if let Some(identity) = &self.identity {
            identity.assume().context("-run-with user")?;
            // Another user's process forgets whom to follow.
            self.follow_parent()?;
        }
        if self.async_teardown {
            process::free_memory_behind()
                .context("-run-with async-teardown: cannot start the process that does it")?;
        }
        Ok(())
    }
}

impl Identity {
    /// All threads become this user.
    fn assume(&self) -> Result<()> {
        match &self.name {
            Some(name) => {
                let name = std::ffi::CString::new(name.as_str())?;
                unistd::initgroups(&name, self.gid)?;
            }
            None => unistd::setgroups(&[self.gid])?,
        }
        unistd::setgid(self.gid)?;
        unistd::setuid(self.uid)?;
        if !self.uid.is_root() && unistd::setuid(Uid::from_raw(0)).is_ok() {
            bail!("the host gives the privileges back");
        }
        Ok(())
    }
}

/// A user by name, or by numbers as `UID:GID`.
fn identity(text: &str) -> Result<Identity> {
    if let Some((uid, gid)) = text.split_once(':')
        && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
    {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let name = None;
        return Ok(Identity { uid, gid, name });
    }
    let found = User::from_name(text)
        .with_context(|| format!("-run-with user={text}: cannot look the user up"))?;
    let Some(user) = found else {
        bail!("-run-with: there is no user '{text}' on this host; give a name or UID:GID");
    };
    Ok(Identity {
        uid: user.uid,
        gid: user.gid,
        name: Some(user.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_two_numbers() {
        let root = identity("root").unwrap();
        assert_eq!((root.uid.as_raw(), root.name.as_deref()), (0, Some("root")));
        let numbers = identity("1000:50").unwrap();
        assert_eq!((numbers.uid.as_raw(), numbers.gid.as_raw()), (1000, 50));
        for bad in ["", "1000:", "nobody-here", "-1:2", "4294967296:0"] {
            let error = identity(bad).unwrap_err().to_string();
            assert!(error.contains("UID:GID"), "{error}");
        }
    }
}
