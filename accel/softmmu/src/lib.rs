//! The engine's software MMU: translation banks and access paths.
//!
//! A [`Bank`] caches translations of one address space; a vCPU owns a few and switches between them
//! with one store. Within a bank each translation context (privilege, override) has its own tables
//! of `{tag, addend}` entries for reads, writes and fetches. What is not plain RAM keeps a reason in
//! the low tag bits and leaves the fast path.
//!
//! Stores look at the flags of the page *after* they are done (see `hw_memory`): no fence, no lock.
#![allow(unsafe_code)]
// The access macro serves bytes too, where an alignment mask is zero.
#![allow(clippy::bad_bit_mask, clippy::erasing_op)]

mod bank;
mod bytes;
mod mmu;
mod peek;
mod recent;
mod watch;

pub use bank::{Bank, CONTEXTS, Permissions, Translation, layout};
pub use mmu::{Access, Fast, Mmu, Physical};
pub use peek::Peek;
pub use recent::layout as recent_layout;
pub use watch::Watch;

#[cfg(test)]
mod tests;
