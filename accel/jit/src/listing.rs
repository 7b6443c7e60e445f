//! Generated code for people (`-d out_asm`) and for profilers (`-perfmap`).

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

/// Host instructions, one a line, as they stand at an address.
pub(crate) fn listing(code: &[u8], address: u64) -> String {
    let mut formatter = NasmFormatter::new();
    let mut text = String::new();
    for insn in Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
        let _ = write!(text, "\n{:#x}:  ", insn.ip());
        formatter.format(&insn, &mut text);
    }
    text
}

/// The file in which `perf` looks for the names of code without a file: `/tmp/perf-PID.map`, a line
/// of address, length and name for each piece. Code that was overwritten stays in it: the last line of an
/// address is right.
pub(crate) struct PerfMap(File);

impl PerfMap {
    pub(crate) fn open() -> io::Result<Self> {
        let path = format!("/tmp/perf-{}.map", std::process::id());
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(PerfMap(file))
    }

    /// Names code. One write, so that lines of several CPUs never mix.
    pub(crate) fn add(&mut self, address: u64, len: usize, name: &str) {
        let _ = self
            .0
            .write_all(format!("{address:x} {len:x} {name}\n").as_bytes());
    }
}
