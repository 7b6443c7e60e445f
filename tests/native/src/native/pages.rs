//! Memory at addresses the test cases can know in advance.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{MAP_FAILED, MAP_FIXED_NOREPLACE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};

/// Anonymous memory mapped at a fixed address for the code under test, and a second time
/// anywhere for us.
pub(super) struct Pages {
    fixed: Mapping,
    ours: Mapping,
}

impl Pages {
    /// Readable and writable at `address`.
    pub(super) fn data(address: u64, len: usize) -> io::Result<Self> {
        Self::new(address, len, PROT_READ | PROT_WRITE)
    }

    /// Readable and executable at `address`; only our own mapping writes.
    pub(super) fn executable(address: u64, len: usize) -> io::Result<Self> {
        Self::new(address, len, PROT_READ | PROT_EXEC)
    }

    /// The memory through our own mapping.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `ours` is a live, writable mapping of `len` bytes that nothing in this process
        // names but `self`. Code under test changes the same memory through `fixed`, but only
        // inside `Native::run`, which holds `&mut Native`.
        unsafe { std::slice::from_raw_parts_mut(self.ours.at.cast(), self.ours.len) }
    }

    fn new(address: u64, len: usize, prot: i32) -> io::Result<Self> {
        // SAFETY: the name is a NUL-terminated string.
        let fd = unsafe { libc::memfd_create(c"test_native".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: changes only the size of our own file.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let fixed = Mapping::new(&fd, Some(address), len, prot)?;
        let ours = Mapping::new(&fd, None, len, PROT_READ | PROT_WRITE)?;
        Ok(Self { fixed, ours })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.fixed.unmap();
        self.ours.unmap();
    }
}

struct Mapping {
    at: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, at: Option<u64>, len: usize, prot: i32) -> io::Result<Self> {
        let (hint, flags) = match at {
            Some(at) => (
                ptr::without_provenance_mut(at as usize),
                MAP_FIXED_NOREPLACE,
            ),
            None => (ptr::null_mut(), 0),
        };
        // SAFETY: `MAP_FIXED_NOREPLACE` or a free choice of the kernel: no mapping is replaced.
        let got = unsafe { libc::mmap(hint, len, prot, MAP_SHARED | flags, fd.as_raw_fd(), 0) };
        if got == MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut mapping = Self { at: got, len };
        // Kernels before 4.17 take the address as a mere hint.
        if at.is_some() && got.addr() != hint.addr() {
            mapping.unmap();
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(mapping)
    }

    fn unmap(&mut self) {
        // SAFETY: the range was mapped by `new`, is unmapped once, and nothing refers to it.
        unsafe { libc::munmap(self.at, self.len) };
    }
}
