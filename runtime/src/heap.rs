//! The C library's heap, as it suits this program.
//!
//! Spec: glibc manual, "Malloc Tunable Parameters".

/// How much the heap grows by when it is full, in bytes.
#[cfg(target_env = "gnu")]
const STEP: i32 = 1 << 20;

/// Has all threads share one heap. By default each has its own, and those grow by single pages: a vCPU that compiles
/// code would ask the host's kernel thousands of times during a boot. For the start, before there are threads.
pub fn share() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_TOP_PAD, STEP)] {
        // SAFETY: takes two numbers. What it does not know or cannot do it leaves as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}
