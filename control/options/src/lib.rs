//! QEMU's command line grammar.
