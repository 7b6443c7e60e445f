//! Memory that generated code lives in: mapped twice, writable at one address and executable at
//! another, so that no page is ever both.
//!
//! The executable mapping begins with a few writable pages for what generated code reads and writes
//! by addresses relative to itself ([`cell`]).

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::table::{LAST_BYTES, TABLE_BYTES};

/// Offsets of cells that generated code reaches relative to itself.
pub(crate) mod cell {
    use super::PAGE;
    use crate::table::{LAST_BYTES, TABLE_BYTES};

    /// Guest instructions left: the low 16 bits, signed. The high 16 bits are all ones when somebody
    /// wants the CPU's attention. 32 bits.
    pub(crate) const BUDGET: usize = 0;
    /// The mode's number, in the upper half of 64 bits.
    pub(crate) const MODE: usize = 8;
    /// Pointer to the executor, for what generated code calls.
    pub(crate) const EXECUTOR: usize = 16;
    /// Not zero while the host's MXCSR is the guest's. 8 bits.
    pub(crate) const FLOAT: usize = 24;
    /// Not zero while the host's x87 has a control word of the guest's; bit 0: it is the one of now. 8 bits.
    pub(crate) const X87: usize = 25;
    /// x87 control word for Rust code. 16 bits.
    pub(crate) const RUST_CONTROL: usize = 26;
    /// MXCSR for Rust code. 32 bits.
    pub(crate) const RUST_MXCSR: usize = 28;
    /// MXCSR on its way to or from the register file. 32 bits.
    pub(crate) const MXCSR: usize = 32;
    /// RSP of generated code, while Rust runs. 64 bits.
    pub(crate) const RSP: usize = 40;
    /// RSP of Rust, while generated code runs. 64 bits.
    pub(crate) const RUST_RSP: usize = 48;
    /// RSP of generated code where it knows of no call. 64 bits.
    pub(crate) const NO_CALL: usize = 56;
    /// Targets of indirect jumps.
    pub(crate) const TABLE: usize = PAGE;
    /// Where computed jumps went last.
    pub(crate) const LAST: usize = TABLE + TABLE_BYTES;
    /// Where code begins.
    pub(crate) const CODE: usize = LAST + LAST_BYTES;
}

const PAGE: usize = 4096;
/// MXCSR as the calling convention has it: nearest, all exceptions masked.
const RUST_MXCSR: u32 = 0x1f80;
/// x87 control word as it has it: nearest, to 64 bits, all exceptions masked.
const RUST_CONTROL: u16 = 0x37f;
const _: () = assert!((TABLE_BYTES + LAST_BYTES).is_multiple_of(PAGE));

/// Why there is no memory for code.
#[derive(Debug, thiserror::Error)]
#[error("the host gives no memory for generated code")]
pub struct CodeMemoryError(#[source] std::io::Error);

/// Bytes of code that memory is got for at once: as much as the host maps around what is run.
pub(crate) const AHEAD: usize = 64 << 10;
/// Bytes of the stack of generated code: 16 for each call, of which a slice can make tens of thousands.
const STACK: usize = 2 << 20;
/// Bytes of it after which calls are forgotten.
const MOST_CALLS: u64 = 64 << 10;

/// The mappings: of code, and of its stack.
pub(crate) struct CodeMemory {
    /// What generated code has for a stack.
    stack: *mut u8,
    /// The executable mapping, control pages first.
    run: *mut u8,
    /// The writable mapping of the code.
    write: *mut u8,
    /// Bytes of code.
    len: usize,
}

// SAFETY: the mappings belong to this value; the cells that other threads reach are atomics, all else
// is touched by the owning executor's thread only.
unsafe impl Send for CodeMemory {}
// SAFETY: as above.
unsafe impl Sync for CodeMemory {}

fn map(at: *mut u8, len: usize, protection: i32, flags: i32) -> Result<*mut u8, CodeMemoryError> {
    // SAFETY: `MAP_FIXED` is only asked for within a reservation of our own, made just before.
    let got = unsafe { libc::mmap(at.cast(), len, protection, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        return Err(CodeMemoryError(std::io::Error::last_os_error()));
    }
    Ok(got.cast())
}

impl CodeMemory {
    /// Room for `len` bytes of code, a multiple of the page size.
    pub(crate) fn new(len: usize) -> Result<Self, CodeMemoryError> {
        use libc::{MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED};
        use libc::{PROT_NONE, PROT_READ, PROT_WRITE};
        let data = PROT_READ | PROT_WRITE;
        let none = std::ptr::null_mut();
        // Without a name, as profilers expect of generated code.
        let shared = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
        let write = map(none, len, data, shared)?;
        let private = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        let run = match map(none, cell::CODE + len, PROT_NONE, private) {
            Ok(run) => run,
            Err(error) => {
                // SAFETY: made just before, and nobody has it yet.
                unsafe { libc::munmap(write.cast(), len) };
                return Err(error);
            }
        };
        let stack = match map(none, STACK, data, private) {
            Ok(stack) => stack,
            Err(error) => {
                // SAFETY: made just before, and nobody has them yet.
                unsafe {
                    libc::munmap(write.cast(), len);
                    libc::munmap(run.cast(), cell::CODE + len);
                }
                return Err(error);
            }
        };
        let memory = CodeMemory {
            stack,
            run,
            write,
            len,
        };
        map(run, cell::CODE, data, private | MAP_FIXED)?;
        memory.map_again()?;
        // SAFETY: within the control pages, aligned, and nobody else has them yet.
        unsafe { run.add(cell::RUST_MXCSR).cast::<u32>().write(RUST_MXCSR) };
        // SAFETY: likewise.
        unsafe {
            run.add(cell::RUST_CONTROL)
                .cast::<u16>()
                .write(RUST_CONTROL)
        };
        Ok(memory)
    }

    /// Maps the code a second time, where it runs.
    fn map_again(&self) -> Result<(), CodeMemoryError> {
        let at = self.run.wrapping_add(cell::CODE).cast::<libc::c_void>();
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: of a shared mapping, an old size of zero maps the same memory again; the place is
        // within a reservation of our own, which nobody has yet.
        let got = unsafe { libc::mremap(self.write.cast(), 0, self.len, how, at) };
        if got != at {
            return Err(CodeMemoryError(std::io::Error::last_os_error()));
        }
        // SAFETY: the mapping made just now.
        if unsafe { libc::mprotect(at, self.len, libc::PROT_READ | libc::PROT_EXEC) } != 0 {
            return Err(CodeMemoryError(std::io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Bytes of code.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The host address of an offset: of code to run, or of a cell.
    pub(crate) fn address(&self, at: usize) -> *mut u8 {
        self.run.wrapping_add(at)
    }

    /// The offset of a host address in the executable mapping. The last call returns to just behind it.
    pub(crate) fn offset(&self, address: u64) -> Option<usize> {
        let at = usize::try_from(address.checked_sub(self.run as u64)?).ok()?;
        (at <= cell::CODE + self.len).then_some(at)
    }

    /// Writes code at an offset if it is not there already: hosts are slow to notice changes.
    pub(crate) fn patch(&self, at: usize, code: [u8; 4]) {
        let from = at.wrapping_sub(cell::CODE);
        assert!(
            at >= cell::CODE && from + code.len() <= self.len,
            "code fits its memory"
        );
        // SAFETY: the range was checked to lie in the writable mapping, which only this thread writes.
        let there = unsafe { self.write.add(from).cast::<[u8; 4]>().read() };
        if there != code {
            self.write(at, &code);
        }
    }

    /// Writes code at an offset.
    pub(crate) fn write(&self, at: usize, code: &[u8]) {
        let from = at.wrapping_sub(cell::CODE);
        assert!(
            at >= cell::CODE && from + code.len() <= self.len,
            "code fits its memory"
        );
        // SAFETY: the range was checked to lie in the writable mapping, which only this thread writes.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), self.write.add(from), code.len()) };
    }

    /// Code is about to be written from an offset on: gets the host's memory for the next [`AHEAD`] bytes at once,
    /// not page by page. A host that cannot gives it when it is written.
    pub(crate) fn prepare(&self, at: usize) {
        let from = (at.saturating_sub(cell::CODE).min(self.len)) & !(PAGE - 1);
        let len = AHEAD.min(self.len - from);
        // SAFETY: within the writable mapping; what is in it stays.
        unsafe { libc::madvise(self.write.add(from).cast(), len, libc::MADV_POPULATE_WRITE) };
    }

    /// Nothing is likely to be written before an offset soon: the pages there are taken out of the writable
    /// mapping, which would count them twice. What is written all the same brings them back.
    pub(crate) fn settle(&self, at: usize) {
        let len = at.saturating_sub(cell::CODE).min(self.len) & !(PAGE - 1);
        // SAFETY: the beginning of the writable mapping. It is shared: its memory keeps what is in it.
        unsafe { libc::madvise(self.write.cast(), len, libc::MADV_DONTNEED) };
    }

    /// The code at an offset.
    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let from = at.wrapping_sub(cell::CODE);
        assert!(
            at >= cell::CODE && from + len <= self.len,
            "code fits its memory"
        );
        // SAFETY: the range was checked to lie in the writable mapping, which only this thread writes.
        unsafe { std::slice::from_raw_parts(self.write.add(from), len) }.to_vec()
    }

    /// The budget.
    pub(crate) fn budget(&self) -> &AtomicU32 {
        // SAFETY: the cell lies in the control pages, is aligned, and is only accessed as an atomic.
        unsafe { &*self.address(cell::BUDGET).cast::<AtomicU32>() }
    }

    /// Puts a call on the stack of generated code that was none: from a PC, and what a return to that goes on
    /// with, below all others.
    pub(crate) fn call_from_nowhere(&self, pc: u64, code: usize) {
        let at = self.stack.wrapping_add(STACK - 16).cast::<u64>();
        // SAFETY: within the stack, aligned, and only the owning thread uses it.
        unsafe { at.write(self.address(code) as u64) };
        // SAFETY: as before.
        unsafe { at.add(1).write(pc) };
        self.cell(cell::NO_CALL).store(at as u64, Ordering::Relaxed);
        self.forget_calls();
    }

    /// Empties the stack of generated code.
    pub(crate) fn forget_calls(&self) {
        let empty = self.cell(cell::NO_CALL).load(Ordering::Relaxed);
        self.cell(cell::RSP).store(empty, Ordering::Relaxed);
    }

    /// Whether the stack of generated code may not have room for another slice.
    pub(crate) fn has_many_calls(&self) -> bool {
        let [empty, now] =
            [cell::NO_CALL, cell::RSP].map(|at| self.cell(at).load(Ordering::Relaxed));
        empty.wrapping_sub(now) > MOST_CALLS
    }

    /// A cell of 64 bits.
    pub(crate) fn cell(&self, at: usize) -> &AtomicU64 {
        assert!(at + 8 <= cell::CODE && at.is_multiple_of(8), "a cell");
        // SAFETY: checked to lie in the control pages and to be aligned.
        unsafe { &*self.address(at).cast::<AtomicU64>() }
    }

    /// Asks the CPU to leave generated code soon. May be called by any thread; may get lost against
    /// a decrement of the budget, which then ends the run a little later.
    pub(crate) fn kick(&self) {
        // SAFETY: the high half of the budget's cell; generated code reads both halves at once.
        let high = unsafe { &*self.address(cell::BUDGET + 2).cast::<AtomicU16>() };
        high.store(u16::MAX, Ordering::SeqCst);
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: the mappings were made by `new` with these lengths.
        unsafe {
            libc::munmap(self.run.cast(), cell::CODE + self.len);
            libc::munmap(self.write.cast(), self.len);
            libc::munmap(self.stack.cast(), STACK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_has_settled_is_still_there_and_can_be_patched() {
        let memory = CodeMemory::new(4 * PAGE).unwrap();
        memory.write(cell::CODE, &[1, 2, 3, 4, 5]);
        memory.settle(cell::CODE + 4 * PAGE);
        assert_eq!(memory.read(cell::CODE, 5), [1, 2, 3, 4, 5]);
        memory.settle(cell::CODE + 4 * PAGE);
        memory.patch(cell::CODE + 1, [9; 4]);
        assert_eq!(memory.read(cell::CODE, 5), [1, 9, 9, 9, 9]);
        // SAFETY: within the executable mapping, which shows what was written.
        let seen = unsafe { memory.address(cell::CODE + 1).read() };
        assert_eq!(seen, 9);
    }

    #[test]
    fn a_return_address_may_be_the_end_of_all_code() {
        let memory = CodeMemory::new(PAGE).unwrap();
        let end = cell::CODE + PAGE;
        let offset = |at| memory.offset(memory.address(at) as u64);
        assert_eq!((offset(end), offset(end + 1)), (Some(end), None));
    }
}
