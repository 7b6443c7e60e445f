//! Exceptions arrive as signals; the handlers read the frame and continue behind the run.

use std::arch::naked_asm;
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use libc::{
    REG_CR2, REG_EFL, REG_ERR, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14,
    REG_R15, REG_RAX, REG_RBP, REG_RBX, REG_RCX, REG_RDI, REG_RDX, REG_RIP, REG_RSI, REG_RSP,
    REG_TRAPNO, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, SIGVTALRM,
};

use super::trampoline::{self, CONTEXT};
use crate::state::{CODE, CODE_PAGE, NativeState, Outcome, PAGE, RFLAGS_IN};

/// What the kernel makes of exceptions, and the tick that ends endless loops.
const SIGNALS: [i32; 6] = [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGVTALRM];

/// Room for the largest frame of AVX-512 and AMX hosts, and for the handler.
const STACK_BYTES: usize = 64 * 1024;

/// Processor time between two ticks. A run that sees two of them does not end by itself.
const TICK_NS: libc::c_long = 10_000_000;

/// `mcontext_t` index of each general register, in encoding order.
const GREGS: [libc::c_int; 16] = [
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9,
    REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
];

/// IF and the bit that is always one.
const RFLAGS_FIXED: u64 = 0x202;
const RFLAGS_RF: u64 = 1 << 16;
const VECTOR_PF: u8 = 14;

/// Between the setting of the context and its reading back.
static ACTIVE: AtomicBool = AtomicBool::new(false);
/// Counts runs, so that a tick can tell whether the run it sees is the one the last tick saw.
static RUN: AtomicU64 = AtomicU64::new(0);
static RUN_AT_TICK: AtomicU64 = AtomicU64::new(0);
/// Bounds of our alternate stack: a handler on another stack is another thread's.
static STACK_AT: AtomicUsize = AtomicUsize::new(0);

struct Shared<T>(UnsafeCell<T>);

// SAFETY: only the owner of the lock in `Native`, and the signal handlers on its thread, use it.
unsafe impl<T> Sync for Shared<T> {}

static OUTCOME: Shared<Outcome> = Shared(UnsafeCell::new(Outcome::Done));
static BEFORE: Shared<[MaybeUninit<libc::sigaction>; SIGNALS.len()]> =
    Shared(UnsafeCell::new([MaybeUninit::uninit(); SIGNALS.len()]));

/// The handlers, for as long as this lives.
pub(super) struct Signals {
    /// Backs the alternate stack; u128 for its alignment.
    _stack: Vec<u128>,
    stack_before: libc::stack_t,
    timer: libc::timer_t,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        let mut stack = vec![0u128; STACK_BYTES / 16];
        let ours = libc::stack_t {
            ss_sp: stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: STACK_BYTES,
        };
        let mut stack_before = libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: 0,
        };
        // SAFETY: `ours` outlives its use: `drop` puts the old stack back before freeing it.
        check(unsafe { libc::sigaltstack(&ours, &mut stack_before) })?;
        STACK_AT.store(stack.as_ptr().addr(), Ordering::Relaxed);

        for (i, &signal) in SIGNALS.iter().enumerate() {
            // SAFETY: all-zero is a valid `sigaction`.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = handler_entry as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            // SAFETY: the lock is held, so no other runner uses `BEFORE`, and our handler for
            // this signal is not installed yet.
            let before = unsafe { &mut (*BEFORE.0.get())[i] };
            // SAFETY: the handler keeps the rules of `SA_SIGINFO`; `before` is writable.
            check(unsafe { libc::sigaction(signal, &action, before.as_mut_ptr()) })?;
        }
        Ok(Self {
            _stack: stack,
            stack_before,
            timer: start_timer()?,
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: `install` made the timer and nothing else deletes it.
        unsafe { libc::timer_delete(self.timer) };
        for signal in SIGNALS {
            restore_action(signal);
        }
        // SAFETY: the stack was the thread's before; we are on the thread, and not on ours.
        unsafe { libc::sigaltstack(&self.stack_before, ptr::null_mut()) };
    }
}

/// Ticks with this thread's processor time, so that a loaded host does not count.
fn start_timer() -> io::Result<libc::timer_t> {
    // SAFETY: all-zero is a valid `sigevent`.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = SIGVTALRM;
    // SAFETY: no preconditions.
    event.sigev_notify_thread_id = unsafe { libc::gettid() };
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: both pointers are to live locals.
    check(unsafe { libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &mut event, &mut timer) })?;
    let tick = libc::timespec {
        tv_sec: 0,
        tv_nsec: TICK_NS,
    };
    let every = libc::itimerspec {
        it_interval: tick,
        it_value: tick,
    };
    // SAFETY: `timer` was just created, `every` is valid, and the old value is not asked for.
    check(unsafe { libc::timer_settime(timer, 0, &every, ptr::null_mut()) })?;
    Ok(timer)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Puts back the action from before `install`.
fn restore_action(signal: i32) {
    let Some(i) = SIGNALS.iter().position(|&s| s == signal) else {
        return;
    };
    // SAFETY: `install` wrote the entry before any handler could run, and it does not change.
    let before = unsafe { (*BEFORE.0.get())[i].assume_init_ref() };
    // SAFETY: `before` came from the kernel.
    unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
}

/// Runs the code at [`CODE`], which the caller has put there, from `state` to `state`.
pub(super) fn guarded(state: &mut NativeState) -> Outcome {
    trampoline::load(state, state.rflags & RFLAGS_IN | RFLAGS_FIXED, CODE);
    // SAFETY: the caller holds the runner and `ACTIVE` is clear: no handler uses it.
    unsafe { *OUTCOME.0.get() = Outcome::Done };
    RUN.fetch_add(1, Ordering::Relaxed);
    ACTIVE.store(true, Ordering::SeqCst);
    // SAFETY: the FXSAVE image has its reserved bits clear, the code page ends in the jump to
    // the exit, and the handlers are installed since `Native` exists. The code under test keeps
    // to the limits named in the crate's documentation.
    unsafe { trampoline::enter() };
    ACTIVE.store(false, Ordering::SeqCst);
    trampoline::store(state);
    // SAFETY: as above.
    unsafe { *OUTCOME.0.get() }
}

/// Clears AC, which the kernel leaves as the code under test set it and compiled code cannot
/// bear, then handles the signal.
#[unsafe(naked)]
unsafe extern "C" fn handler_entry() {
    naked_asm!(
        "pushfq",
        "and dword ptr [rsp], {not_ac}",
        "popfq",
        "jmp {handle}",
        not_ac = const !(1i32 << 18),
        handle = sym handle,
    )
}

/// # Safety
///
/// Called by the kernel, with a frame as for `SA_SIGINFO`.
unsafe extern "C" fn handle(
    signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    frame: *mut libc::ucontext_t,
) {
    let stack = STACK_AT.load(Ordering::Relaxed);
    let on_our_stack = (stack..stack + STACK_BYTES).contains(&frame.addr());
    if !on_our_stack || !ACTIVE.load(Ordering::SeqCst) {
        if signal != SIGVTALRM {
            // Not ours: let the instruction fault again with the action from before.
            restore_action(signal);
        }
        return;
    }
    // SAFETY: the kernel's frame is ours until we return.
    let machine = unsafe { &mut (*frame).uc_mcontext };
    let gregs = &mut machine.gregs;
    let rip = gregs[REG_RIP as usize] as u64;
    let outcome = if signal == SIGVTALRM {
        let run = RUN.load(Ordering::Relaxed);
        let seen = RUN_AT_TICK.swap(run, Ordering::Relaxed);
        if run != seen || !(CODE_PAGE..CODE_PAGE + PAGE as u64).contains(&rip) {
            return;
        }
        Outcome::TimedOut
    } else {
        let trapno = gregs[REG_TRAPNO as usize] as u8;
        let address = if trapno == VECTOR_PF {
            gregs[REG_CR2 as usize] as u64
        } else {
            0
        };
        Outcome::Fault {
            signal,
            trapno,
            error_code: gregs[REG_ERR as usize] as u64,
            address,
            rip_offset: rip.wrapping_sub(CODE),
        }
    };
    // SAFETY: the thread is inside `enter`, which does not touch it.
    unsafe { *OUTCOME.0.get() = outcome };
    // SAFETY: the thread is inside `enter`; this handler is the only user of the context until
    // it returns.
    let context = unsafe { &mut *CONTEXT.get() };
    for (to, from) in context.gpr.iter_mut().zip(GREGS) {
        *to = gregs[from as usize] as u64;
    }
    context.rflags = gregs[REG_EFL as usize] as u64 & !RFLAGS_RF;
    // SAFETY: the kernel points to the FXSAVE image within the frame, and there is always one on
    // x86-64.
    context.fx = unsafe { *machine.fpregs.cast::<[u8; 512]>() };

    gregs[REG_RIP as usize] = trampoline::restore_address() as i64;
    gregs[REG_RSP as usize] = context.host_rsp as i64;
    gregs[REG_EFL as usize] = RFLAGS_FIXED as i64;
}
