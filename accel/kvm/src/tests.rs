//! The parts that need no KVM.
