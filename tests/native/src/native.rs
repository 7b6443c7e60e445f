//! The runner: pages at fixed addresses, and one call in and out of the code under test.

mod pages;
mod signals;
mod trampoline;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::state::{CODE, CODE_MAX, CODE_PAGE, DATA, DATA_SIZE, NativeState, Outcome, PAGE};
use pages::Pages;
use signals::Signals;

/// Signal handlers and the fixed addresses belong to the process: one runner at a time.
static ONLY_ONE: Mutex<()> = Mutex::new(());

const INT3: u8 = 0xcc;

/// `jmp [rip]`, followed by the eight bytes of the target: changes no register and no flag.
const JMP_ABSOLUTE: [u8; 6] = [0xff, 0x25, 0, 0, 0, 0];

/// Bits of MXCSR that may be set; others fault when loaded.
const MXCSR_VALID: u32 = 0xffff;

/// Runs instruction bytes on this thread's processor.
///
/// A second runner waits in [`Native::new`] until the first is dropped. Not `Send`: the
/// alternate signal stack is the thread's.
pub struct Native {
    // Dropped in this order: handlers first, the right to have them last.
    _signals: Signals,
    code: Pages,
    data: Pages,
    _only_one: MutexGuard<'static, ()>,
}

impl Native {
    /// Maps the pages and takes over the signals that exceptions turn into.
    pub fn new() -> io::Result<Self> {
        // A panic elsewhere leaves nothing behind that matters here.
        let only_one = ONLY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut code = Pages::executable(CODE_PAGE, PAGE)?;
        code.bytes().fill(INT3);
        let data = Pages::data(DATA, DATA_SIZE)?;
        let signals = Signals::install()?;
        Ok(Self {
            _signals: signals,
            code,
            data,
            _only_one: only_one,
        })
    }

    /// The data pages, mapped at [`DATA`] for the code under test.
    pub fn memory(&mut self) -> &mut [u8] {
        self.data.bytes()
    }

    /// Runs `code` at [`CODE`] from `state`, and leaves the final registers in `state`.
    ///
    /// # Panics
    ///
    /// When `code` is longer than [`CODE_MAX`].
    pub fn run(&mut self, code: &[u8], state: &mut NativeState) -> Outcome {
        assert!(code.len() <= CODE_MAX, "{} bytes of code", code.len());
        let start = (CODE - CODE_PAGE) as usize;
        let end = start + code.len();
        let exit = trampoline::exit_address().to_le_bytes();
        let page = self.code.bytes();
        page[start..end].copy_from_slice(code);
        page[end..end + 6].copy_from_slice(&JMP_ABSOLUTE);
        page[end + 6..end + 14].copy_from_slice(&exit);

        state.fx.clean();
        state.fx.set_mxcsr(state.fx.mxcsr() & MXCSR_VALID);
        let outcome = signals::guarded(state);
        state.fx.clean();

        let page = self.code.bytes();
        page[start..end + 14].fill(INT3);
        outcome
    }
}
