//! Runs x86 instructions on the host's own processor, as the oracle for the x86 front end.
