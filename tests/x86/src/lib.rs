//! Runs the oracle's test cases on the emulated CPU.
//!
//! [`Emulated`] is a bare CPU in 64-bit mode at CPL 3, with the pages a case expects mapped at
//! their addresses and everything it takes to receive exceptions in the upper half.

//!
//! [`fuzz`] compares the modes that a user program does not reach, with KVM as the oracle.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod fuzz;
mod machine;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod overwrite;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod system;

pub use machine::{Emulated, executors};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use system::EmulatedSystem;

/// Whether an instruction belongs to the x87, MMX or SSE: what `target_x86::float` translates.
pub fn is_float(code: iced_x86::Code) -> bool {
    use iced_x86::CpuidFeature::*;
    use iced_x86::Mnemonic;
    let integer = matches!(
        code.mnemonic(),
        Mnemonic::Movnti
            | Mnemonic::Lfence
            | Mnemonic::Mfence
            | Mnemonic::Sfence
            | Mnemonic::Prefetchnta
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2
            | Mnemonic::Pause
            | Mnemonic::Clflush
    );
    code.mnemonic() == Mnemonic::Wait
        || !integer
            && code.cpuid_features().iter().any(|feature| {
                matches!(
                    feature,
                    FPU | FPU287 | FPU387 | MMX | SSE | SSE2 | SSE3 | SSSE3 | FXSR
                )
            })
}
