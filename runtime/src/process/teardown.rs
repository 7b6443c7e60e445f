//! A process that shares our memory, does nothing, and ends after us: the kernel frees the memory then,
//! so that we ourselves are gone at once. Freeing the pages of a large guest takes seconds.

use std::ffi::{c_int, c_void};
use std::io;

/// Bytes of its stack.
const STACK: usize = 64 << 10;

/// Starts the process. It ends when the calling thread does, which should be the main one.
///
/// # Errors
/// When the host refuses it, or its stack.
pub fn free_memory_behind() -> io::Result<()> {
    let (prot, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
    );
    // SAFETY: a new mapping, at an address of the kernel's choice. It is kept for the process.
    let stack = unsafe { libc::mmap(std::ptr::null_mut(), STACK, prot, flags, -1, 0) };
    if stack == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the end of the mapping, from which the stack grows down.
    let top = unsafe { stack.byte_add(STACK) };
    let me = std::process::id() as usize as *mut c_void;
    // SAFETY: the stack is the new process's alone; its function keeps to system calls.
    if unsafe { libc::clone(wait_for_end, top, libc::CLONE_VM, me) } == -1 {
        let error = io::Error::last_os_error();
        // SAFETY: mapped above, and no process uses it.
        unsafe { libc::munmap(stack, STACK) };
        return Err(error);
    }
    Ok(())
}

/// The process: shares memory and thread-local storage with the thread that started it, so that it
/// calls what touches neither.
extern "C" fn wait_for_end(parent: *mut c_void) -> c_int {
    let name = c"cleanup";
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut end = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut got = 0;
    // SAFETY: system calls on this process alone, with arguments on its own stack. Its descriptors are
    // copies: closing them leaves the other process's open, and lets streams end when that one ends.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGHUP);
        libc::sigemptyset(end.as_mut_ptr());
        libc::sigaddset(end.as_mut_ptr(), libc::SIGHUP);
        // It may be gone already.
        if libc::getppid() as usize == parent as usize {
            libc::sigwait(end.as_ptr(), &mut got);
        }
        libc::_exit(0)
    }
}
