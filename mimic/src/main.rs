//! Mimic: command line in, machine out.

use std::process::ExitCode;

fn main() -> ExitCode {
    mimic::main()
}
