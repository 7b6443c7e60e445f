//! The way into the code under test and back.
//!
//! Entering ends in IRETQ: it loads RIP, RFLAGS and RSP at once, and it serialises, which the
//! processor asks for after code was written through another mapping (Intel SDM volume 3,
//! section 10.1.3).

use std::arch::naked_asm;
use std::cell::UnsafeCell;
use std::mem::offset_of;

use crate::state::NativeState;

/// What both sides of a run exchange.
#[repr(C, align(64))]
pub(super) struct Context {
    pub(super) fx: [u8; 512],
    pub(super) gpr: [u64; 16],
    pub(super) rflags: u64,
    pub(super) rip: u64,
    /// Our own stack pointer while the code under test has the register.
    pub(super) host_rsp: u64,
}

/// The one context: the exit path has no register to find it by.
pub(super) struct Shared(UnsafeCell<Context>);

// SAFETY: only the owner of the lock in `Native`, and the signal handlers on its thread, use it.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn get(&self) -> *mut Context {
        self.0.get()
    }
}

pub(super) static CONTEXT: Shared = Shared(UnsafeCell::new(Context {
    fx: [0; 512],
    gpr: [0; 16],
    rflags: 0,
    rip: 0,
    host_rsp: 0,
}));

/// Copies `state` into the context, with `rflags` and `rip` as the code shall start.
pub(super) fn load(state: &NativeState, rflags: u64, rip: u64) {
    let context = CONTEXT.get();
    // SAFETY: the caller owns the runner and no code under test is running, so nothing else
    // refers to the context.
    let context = unsafe { &mut *context };
    context.fx = state.fx.0;
    context.gpr = state.gpr;
    context.rflags = rflags;
    context.rip = rip;
}

/// Copies the context back.
pub(super) fn store(state: &mut NativeState) {
    let context = CONTEXT.get();
    // SAFETY: as in `load`.
    let context = unsafe { &*context };
    state.fx.0 = context.fx;
    state.gpr = context.gpr;
    state.rflags = context.rflags;
}

/// Where the code under test jumps when it is done.
pub(super) fn exit_address() -> u64 {
    exit as *const () as usize as u64
}

/// Where a signal handler returns to after it has filled the context itself.
pub(super) fn restore_address() -> u64 {
    restore as *const () as usize as u64
}

/// Runs from the context to the context.
///
/// # Safety
///
/// The context must hold a valid FXSAVE image, and code at its `rip` that ends in a jump to
/// [`exit_address`] or in a signal whose handler continues at [`restore_address`].
#[unsafe(naked)]
pub(super) unsafe extern "C" fn enter() {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "mov [rip + {ctx} + {host_rsp}], rsp",
        "fxrstor64 [rip + {ctx} + {fx}]",
        "mov rax, ss",
        "push rax",
        "push qword ptr [rip + {ctx} + {gpr} + 8*4]",
        "push qword ptr [rip + {ctx} + {rflags}]",
        "mov rax, cs",
        "push rax",
        "push qword ptr [rip + {ctx} + {rip_at}]",
        "mov rax, [rip + {ctx} + {gpr} + 8*0]",
        "mov rcx, [rip + {ctx} + {gpr} + 8*1]",
        "mov rdx, [rip + {ctx} + {gpr} + 8*2]",
        "mov rbx, [rip + {ctx} + {gpr} + 8*3]",
        "mov rbp, [rip + {ctx} + {gpr} + 8*5]",
        "mov rsi, [rip + {ctx} + {gpr} + 8*6]",
        "mov rdi, [rip + {ctx} + {gpr} + 8*7]",
        "mov r8, [rip + {ctx} + {gpr} + 8*8]",
        "mov r9, [rip + {ctx} + {gpr} + 8*9]",
        "mov r10, [rip + {ctx} + {gpr} + 8*10]",
        "mov r11, [rip + {ctx} + {gpr} + 8*11]",
        "mov r12, [rip + {ctx} + {gpr} + 8*12]",
        "mov r13, [rip + {ctx} + {gpr} + 8*13]",
        "mov r14, [rip + {ctx} + {gpr} + 8*14]",
        "mov r15, [rip + {ctx} + {gpr} + 8*15]",
        "iretq",
        ctx = sym CONTEXT,
        fx = const offset_of!(Context, fx),
        gpr = const offset_of!(Context, gpr),
        rflags = const offset_of!(Context, rflags),
        rip_at = const offset_of!(Context, rip),
        host_rsp = const offset_of!(Context, host_rsp),
    )
}

/// Saves what the code under test left behind, then returns from [`enter`].
#[unsafe(naked)]
unsafe extern "C" fn exit() {
    naked_asm!(
        "mov [rip + {ctx} + {gpr} + 8*0], rax",
        "mov [rip + {ctx} + {gpr} + 8*1], rcx",
        "mov [rip + {ctx} + {gpr} + 8*2], rdx",
        "mov [rip + {ctx} + {gpr} + 8*3], rbx",
        "mov [rip + {ctx} + {gpr} + 8*4], rsp",
        "mov [rip + {ctx} + {gpr} + 8*5], rbp",
        "mov [rip + {ctx} + {gpr} + 8*6], rsi",
        "mov [rip + {ctx} + {gpr} + 8*7], rdi",
        "mov [rip + {ctx} + {gpr} + 8*8], r8",
        "mov [rip + {ctx} + {gpr} + 8*9], r9",
        "mov [rip + {ctx} + {gpr} + 8*10], r10",
        "mov [rip + {ctx} + {gpr} + 8*11], r11",
        "mov [rip + {ctx} + {gpr} + 8*12], r12",
        "mov [rip + {ctx} + {gpr} + 8*13], r13",
        "mov [rip + {ctx} + {gpr} + 8*14], r14",
        "mov [rip + {ctx} + {gpr} + 8*15], r15",
        "mov rsp, [rip + {ctx} + {host_rsp}]",
        "pushfq",
        "pop qword ptr [rip + {ctx} + {rflags}]",
        "fxsave64 [rip + {ctx} + {fx}]",
        "jmp {restore}",
        ctx = sym CONTEXT,
        fx = const offset_of!(Context, fx),
        gpr = const offset_of!(Context, gpr),
        rflags = const offset_of!(Context, rflags),
        host_rsp = const offset_of!(Context, host_rsp),
        restore = sym restore,
    )
}

/// Returns from [`enter`]: expects RSP as `enter` left it and no other register.
#[unsafe(naked)]
unsafe extern "C" fn restore() {
    naked_asm!(
        // Clears DF, NT, AC and TF; IF is not ours to change.
        "push 2",
        "popfq",
        "fninit",
        "ldmxcsr [rsp]",
        "fldcw [rsp + 4]",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}
