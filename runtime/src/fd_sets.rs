//! Open files that others handed to us, in numbered sets: who opens `/dev/fdset/3` gets one of set 3, whichever was
//! opened for what is wanted of it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, fcntl_getfl};

/// How the names of sets begin.
const FOLDER: &str = "/dev/fdset/";
/// Most files in all sets.
const FILES_MAX: usize = 1024;

/// A file of a set.
struct Member {
    file: File,
    opaque: Option<String>,
}

/// A file of a set, as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FdInfo {
    /// Its descriptor's number.
    pub fd: RawFd,
    /// What whoever handed it to us said of it.
    pub opaque: Option<String>,
}

/// All sets. Clones are the same.
#[derive(Clone, Default)]
pub struct FdSets(Arc<Mutex<BTreeMap<u32, Vec<Member>>>>);

/// The number of the set that a file name stands for.
pub fn set_of(name: &str) -> Option<u32> {
    name.strip_prefix(FOLDER)?.parse().ok()
}

impl FdSets {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Vec<Member>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a file into a set, a new one if none is given. Returns the set.
    ///
    /// # Errors
    /// That there are too many.
    pub fn add(&self, set: Option<u32>, fd: OwnedFd, opaque: Option<String>) -> io::Result<u32> {
        let mut sets = self.lock();
        if sets.values().map(Vec::len).sum::<usize>() >= FILES_MAX {
            return Err(io::Error::other(format!(
                "there are {FILES_MAX} files in fd sets already; remove some"
            )));
        }
        let free = || (0..=u32::MAX).find(|number| !sets.contains_key(number));
        let number = set.or_else(free).unwrap_or(u32::MAX);
        let file = File::from(fd);
        sets.entry(number)
            .or_default()
            .push(Member { file, opaque });
        Ok(number)
    }

    /// Closes the file of this number in a set, or all of the set. What was opened through them stays open. Returns
    /// whether there was any.
    pub fn remove(&self, set: u32, fd: Option<RawFd>) -> bool {
        let mut sets = self.lock();
        let Some(members) = sets.get_mut(&set) else {
            return false;
        };
        let before = members.len();
        members.retain(|member| fd.is_some_and(|fd| fd != member.file.as_raw_fd()));
        let is_changed = members.len() != before;
        if members.is_empty() {
            sets.remove(&set);
        }
        is_changed
    }

    /// All sets with what is in them.
    pub fn list(&self) -> Vec<(u32, Vec<FdInfo>)> {
        let info = |member: &Member| FdInfo {
            fd: member.file.as_raw_fd(),
            opaque: member.opaque.clone(),
        };
        let sets = self.lock();
        sets.iter()
            .map(|(set, members)| (*set, members.iter().map(info).collect()))
            .collect()
    }

    /// Opens the file of a set that was opened for reading only, or for reading and writing; with these flags more.
    /// It has locks of its own, unless the host does not let us open the file another time.
    ///
    /// # Errors
    /// That there is no such set, or no such file in it; the host's.
    pub fn open(&self, set: u32, read_only: bool, flags: i32) -> io::Result<File> {
        let refuse = |kind, why: String| Err(io::Error::new(kind, why));
        let sets = self.lock();
        let Some(members) = sets.get(&set) else {
            let why = format!("there is no fd set {set}; '-add-fd' or 'add-fd' makes one");
            return refuse(io::ErrorKind::NotFound, why);
        };
        let (mode, what) = match read_only {
            true => (OFlags::RDONLY, "reading only"),
            false => (OFlags::RDWR, "reading and writing"),
        };
        let fits = |m: &&Member| fcntl_getfl(&m.file).is_ok_and(|f| f & OFlags::RWMODE == mode);
        let Some(member) = members.iter().find(fits) else {
            let why = format!("fd set {set} has no file that is open for {what}; add one");
            return refuse(io::ErrorKind::PermissionDenied, why);
        };
        let kind = member.file.metadata()?.file_type();
        let shared = || member.file.try_clone();
        if !kind.is_file() && !kind.is_block_device() {
            return shared();
        }
        let own = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(flags | OFlags::CLOEXEC.bits().cast_signed())
            .open(format!("/proc/self/fd/{}", member.file.as_raw_fd()));
        match own {
            Err(_) if flags == 0 => shared(),
            opened => opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn temporary(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("mimic-fdset-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_set_gives_the_file_that_was_opened_for_what_is_wanted() {
        let path = temporary("modes");
        std::fs::write(&path, b"abc").unwrap();
        let sets = FdSets::default();
        let missing = sets.open(0, true, 0).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let reader = File::open(&path).unwrap();
        assert_eq!(sets.add(None, reader.into(), None).unwrap(), 0);
        let refused = sets.open(0, false, 0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let both = OpenOptions::new().read(true).write(true).open(&path);
        let opaque = Some("rw:disk".to_owned());
        sets.add(Some(0), both.unwrap().into(), opaque.clone())
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        sets.open(0, false, 0).unwrap().write_all(b"xyz").unwrap();
        let mut text = String::new();
        let mut reader = sets.open(0, true, 0).unwrap();
        assert!(reader.write_all(b"no").is_err());
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "xyz");
        let listed = sets.list();
        assert_eq!((listed.len(), listed[0].0, listed[0].1.len()), (1, 0, 2));
        assert_eq!(listed[0].1[1].opaque, opaque);
    }

    #[test]
    fn sets_are_numbered_from_the_lowest_free_one_and_end_with_their_last_file() {
        let null = || -> OwnedFd { File::open("/dev/null").unwrap().into() };
        let sets = FdSets::default();
        assert_eq!(sets.add(Some(1), null(), None).unwrap(), 1);
        assert_eq!(sets.add(None, null(), None).unwrap(), 0);
        assert_eq!(sets.add(None, null(), None).unwrap(), 2);
        let fd = sets.list()[1].1[0].fd;
        assert!(!sets.remove(0, Some(fd)) && !sets.remove(9, None));
        assert!(sets.remove(1, Some(fd)));
        assert!(sets.remove(2, None));
        assert_eq!(sets.list().len(), 1);
    }

    #[test]
    fn only_numbers_name_sets() {
        assert_eq!(set_of("/dev/fdset/7"), Some(7));
        for other in [
            "/dev/fdset/",
            "/dev/fdset/-1",
            "/dev/fdset/x",
            "disk",
            "/dev/fdset/99999999999",
        ] {
            assert_eq!(set_of(other), None, "{other}");
        }
    }
}
