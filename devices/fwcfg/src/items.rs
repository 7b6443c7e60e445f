//! The items: by key, and files by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::keys;

/// Longest file name: 55 characters and a zero.
const NAME_MAX: usize = 55;
/// One entry of the directory.
const NAME_FIELD: usize = 56;

/// Why an item was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// A file of that name exists.
    #[error("fw_cfg file '{0}' exists already")]
    Exists(String),
    /// The name cannot be in the directory.
    #[error("fw_cfg file name '{0}' is empty, longer than 55 characters or not plain text")]
    BadName(String),
    /// No more keys, or an item of more than 4 GiB.
    #[error("fw_cfg has no room for '{0}'")]
    Full(String),
}

/// What became of an item given by the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserItem {
    /// All well.
    Fine,
    /// Added; its name should begin with `opt/`, all else belongs to the machine. Worth a warning.
    NotUnderOpt,
}

#[derive(Debug)]
struct File {
    bytes: Arc<[u8]>,
    writable: bool,
}

#[derive(Debug, Default)]
struct Inner {
    plain: BTreeMap<u16, Arc<[u8]>>,
    /// Sorted by name: the position is the key, less [`keys::FILE_FIRST`].
    files: BTreeMap<String, File>,
    /// Keys of the files in order, rebuilt when one is added.
    order: Vec<String>,
    directory: Vec<u8>,
}

impl Inner {
    fn name_of(&self, key: u16) -> Option<&String> {
        let index = key.checked_sub(keys::FILE_FIRST)?;
        self.order.get(usize::from(index))
    }

    fn bytes(&self, key: u16) -> Option<&[u8]> {
        if key == keys::FILE_DIR {
            return Some(&self.directory);
        }
        match self.plain.get(&key) {
            Some(bytes) => Some(bytes),
            None => self.files.get(self.name_of(key)?).map(|f| &*f.bytes),
        }
    }

    fn file_mut(&mut self, key: u16) -> Option<&mut File> {
        let name = self.name_of(key)?.clone();
        self.files.get_mut(&name).filter(|f| f.writable)
    }

    fn index(&mut self) {
        self.order = self.files.keys().cloned().collect();
        let mut out = (self.order.len() as u32).to_be_bytes().to_vec();
        for ((name, file), key) in self.files.iter().zip(keys::FILE_FIRST..) {
            out.extend_from_slice(&(file.bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(&key.to_be_bytes());
            out.extend_from_slice(&[0; 2]);
            let mut field = [0; NAME_FIELD];
            for (slot, byte) in field.iter_mut().zip(name.bytes()) {
                *slot = byte;
            }
            out.extend_from_slice(&field);
        }
        self.directory = out;
    }
}

/// The items of a `fw_cfg` device. Clones are the same items. Boards add to them until the machine
/// starts: adding a file moves the keys of those after it.
#[derive(Clone)]
pub struct Items {
    inner: Arc<Mutex<Inner>>,
}

impl Default for Items {
    fn default() -> Self {
        let items = Items {
            inner: Arc::default(),
        };
        items.add_bytes(keys::SIGNATURE, b"QEMU".as_slice());
        // Registers and DMA.
        items.add_u32(keys::ID, 3);
        items.lock().index();
        items
    }
}

impl Items {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the item of a key.
    pub fn add_bytes(&self, key: u16, bytes: impl Into<Arc<[u8]>>) {
        self.lock().plain.insert(key, bytes.into());
    }

    /// Sets an item to a 16-bit number.
    pub fn add_u16(&self, key: u16, value: u16) {
        self.add_bytes(key, value.to_le_bytes().as_slice());
    }

    /// Sets an item to a 32-bit number.
    pub fn add_u32(&self, key: u16, value: u32) {
        self.add_bytes(key, value.to_le_bytes().as_slice());
    }

    /// Sets an item to a 64-bit number.
    pub fn add_u64(&self, key: u16, value: u64) {
        self.add_bytes(key, value.to_le_bytes().as_slice());
    }

    /// Adds a file.
    pub fn add_file(&self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Result<(), ItemError> {
        self.insert(name, bytes.into(), false)
    }

    /// Adds a file that the guest may write to by DMA.
    pub fn add_writable_file(
        &self,
        name: &str,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<(), ItemError> {
        self.insert(name, bytes.into(), true)
    }

    /// Adds a file given with `-fw_cfg name=...`.
    pub fn add_user_file(
        &self,
        name: &str,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<UserItem, ItemError> {
        self.insert(name, bytes.into(), false)?;
        Ok(if name.starts_with("opt/") {
            UserItem::Fine
        } else {
            UserItem::NotUnderOpt
        })
    }

    fn insert(&self, name: &str, bytes: Arc<[u8]>, writable: bool) -> Result<(), ItemError> {
        let printable = name.bytes().all(|b| (0x21..0x7f).contains(&b));
        if name.is_empty() || name.len() > NAME_MAX || !printable {
            return Err(ItemError::BadName(name.into()));
        }
        let mut inner = self.lock();
        if inner.files.contains_key(name) {
            return Err(ItemError::Exists(name.into()));
        }
        let slots = usize::from(keys::FILE_END.saturating_sub(keys::FILE_FIRST));
        if inner.files.len() >= slots || u32::try_from(bytes.len()).is_err() {
            return Err(ItemError::Full(name.into()));
        }
        inner.files.insert(name.into(), File { bytes, writable });
        inner.index();
        Ok(())
    }

    /// The contents of a file, as the guest left them if it may write.
    pub fn file(&self, name: &str) -> Option<Arc<[u8]>> {
        self.lock().files.get(name).map(|f| f.bytes.clone())
    }

    /// Names of all files, sorted.
    pub fn file_names(&self) -> Vec<String> {
        self.lock().order.clone()
    }

    /// Copies from an item; what lies beyond its end is left alone.
    pub(crate) fn read(&self, key: u16, offset: u64, out: &mut [u8]) {
        let len = out.len() as u64;
        self.with(key, offset, len, |bytes| {
            for (slot, byte) in out.iter_mut().zip(bytes) {
                *slot = *byte;
            }
        });
    }

    /// Calls `f` on at most `len` bytes of an item, and says how many there were.
    pub(crate) fn with<R>(
        &self,
        key: u16,
        offset: u64,
        len: u64,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Option<(u64, R)> {
        let inner = self.lock();
        let rest = inner.bytes(key)?.get(usize::try_from(offset).ok()?..)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        let bytes = rest.get(..len)?;
        Some((len as u64, f(bytes)))
    }

    /// How many bytes the guest may write to an item from an offset on.
    pub(crate) fn room(&self, key: u16, offset: u64) -> u64 {
        let mut inner = self.lock();
        let len = inner.file_mut(key).map_or(0, |f| f.bytes.len() as u64);
        len.saturating_sub(offset)
    }

    /// Overwrites part of a writable file.
    pub(crate) fn write(&self, key: u16, offset: u64, data: &[u8]) -> bool {
        let mut inner = self.lock();
        let Some(file) = inner.file_mut(key) else {
            return false;
        };
        let mut bytes = file.bytes.to_vec();
        let slot = usize::try_from(offset)
            .ok()
            .and_then(|from| bytes.get_mut(from..from.checked_add(data.len())?));
        let Some(slot) = slot else { return false };
        slot.copy_from_slice(data);
        file.bytes = bytes.into();
        true
    }

    /// Names and contents of the files the guest may write.
    pub(crate) fn writable(&self) -> Vec<(String, Vec<u8>)> {
        let inner = self.lock();
        let files = inner.files.iter().filter(|(_, f)| f.writable);
        files.map(|(n, f)| (n.clone(), f.bytes.to_vec())).collect()
    }

    /// Takes over saved files, all or none.
    pub(crate) fn restore_writable(&self, saved: Vec<(String, Vec<u8>)>) -> bool {
        let mut inner = self.lock();
        let fits = saved.iter().all(|(name, bytes)| {
            let file = inner.files.get(name);
            file.is_some_and(|f| f.writable && f.bytes.len() == bytes.len())
        });
        if fits {
            for (name, bytes) in saved {
                if let Some(file) = inner.files.get_mut(&name) {
                    file.bytes = bytes.into();
                }
            }
        }
        fits
    }
}
